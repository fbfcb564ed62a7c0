use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// Programs that stand in for control and brokers, and the data directory of their system.
struct Scripts(PathBuf);

impl Scripts {
    /// Control serves, and writes down when it begins and that it was told to stop.
    fn new(name: &str, broker: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("landfall-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let control = format!(
            "trap 'echo stopped >> {0}/said; echo the last word >&2; exit 0' TERM\n\
             echo began >> {0}/said; echo ready http://127.0.0.1:9\n{WAITS}",
            folder.display()
        );
        for (program, script) in [("landfall-control", &control[..]), ("landfall-broker", broker)] {
            let path = folder.join(program);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(folder)
    }

    fn config(&self) -> LocalConfig {
        LocalConfig {
            binaries: Some(self.0.clone()),
            data: Some(self.0.join("data")),
            restart: true,
            ..LocalConfig::default()
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.0.join("said")).unwrap()
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        // What is left is the system's to clear.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const WAITS: &str = "while :; do sleep 0.01; done";

#[test]
fn a_start_that_fails_behind_control_stops_control_in_good_order() {
    let scripts = Scripts::new("fails", "echo no room >&2; exit 3");
    let mut said = Vec::new();
    let tell = |stopping: Stopping| {
        if let Stopping::Said(line) = stopping {
            said.push(line.to_owned());
        }
    };
    let started = LocalSystem::start_while(scripts.config(), |_| true, tell);
    let why = started.map(|_| ()).unwrap_err().to_string();
    assert!(why.contains("broker 0 ended before") && why.contains("no room"), "{why}");
    assert_eq!(scripts.said(), "began\nstopped\n");
    assert_eq!(said, ["control: the last word"]);
}

#[test]
fn control_between_two_lives_is_started_once_more_for_the_end() {
    let scripts = Scripts::new("between", &format!("echo ready x; {WAITS}"));
    let mut system = LocalSystem::start(scripts.config()).unwrap();
    system.kill_control();
    system.stop().unwrap();
    assert_eq!(scripts.said(), "began\nbegan\nstopped\n");

    let mut system = LocalSystem::start(scripts.config()).unwrap();
    system.kill_control();
    fs::remove_file(scripts.0.join("landfall-control")).unwrap();
    let why = system.stop().unwrap_err().to_string();
    assert!(why.contains("no directory says where logs ended"), "{why}");
}

#[test]
fn a_missing_program_is_named_with_the_folders_and_the_remedy() {
    let config = LocalConfig { binaries: Some("/nonexistent".into()), ..LocalConfig::default() };
    let Err(error) = LocalSystem::start(config) else { panic!("started from nowhere") };
    let text = error.to_string();
    assert!(text.contains("landfall-control is not in /nonexistent"), "{text}");
    assert!(text.contains("cargo build --workspace --bins"), "{text}");
}

#[test]
fn no_broker_and_too_many_are_refused_with_the_bound() {
    for asked in [0, BROKERS_MAX + 1] {
        let config = LocalConfig { brokers: asked, ..LocalConfig::default() };
        let Err(error) = LocalSystem::start(config) else { panic!("{asked} brokers") };
        assert!(error.to_string().contains("say 1 to 32"), "{error}");
    }
}
