//! `landfall doctor` on whatever machine this is: its shape, never what it finds.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use landfall_layout::pool::Coherence;
use landfall_pool::pool::Shape;
use landfall_pool::{Mapping, Pool};
use serde_json::Value;

fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LANDFALL")) {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME");
    command.current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command.arg("doctor").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The document of a run, and whether its exit status says the same as its findings.
fn document(arguments: &[&str]) -> Value {
    let output = doctor(&[arguments, &["-o", "json"]].concat());
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    let status = i32::from(document["status"] == "fail");
    assert_eq!(output.status.code(), Some(status), "{document:#}");
    document
}

fn finding<'a>(document: &'a Value, name: &str) -> &'a Value {
    let mut all = document["findings"].as_array().unwrap().iter();
    all.find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn file(folder: &Path, bytes: u64) -> Removed {
    let path = folder.join(format!("landfall-doctor-{}-{bytes}", std::process::id()));
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    Removed(path)
}

#[test]
fn without_options_every_line_has_its_status_and_nothing_fails() {
    let document = document(&[]);
    assert_eq!(document["schema_version"], 1);
    assert_ne!(document["status"], "fail");
    for finding in document["findings"].as_array().unwrap() {
        assert!(["ok", "warn", "unknown"].contains(&finding["status"].as_str().unwrap()));
        for field in ["name", "found", "why"] {
            assert!(!finding[field].as_str().unwrap().is_empty(), "{field} of {finding}");
        }
        assert!(finding["mend"].is_array() && finding["numbers"].is_object(), "{finding}");
        let wrong = finding["status"] == "warn";
        assert_eq!(wrong, !finding["mend"].as_array().unwrap().is_empty(), "{finding}");
    }
    let names = [
        "rdma libraries",
        "rdma kernel",
        "memory lock",
        "huge pages",
        "transparent huge",
        "devdax device",
        "line flush",
        "copy and checksum",
        "nic to cache (ddio)",
        "cores",
        "isolated cores",
        "cpu frequency",
        "clock source",
        "io_uring",
        "surroundings",
    ];
    for name in names {
        finding(&document, name);
    }
}

#[test]
fn the_text_has_a_line_for_each_finding() {
    let output = doctor(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    let lines: Vec<&str> = stdout.lines().take_while(|line| !line.is_empty()).collect();
    let is_finding =
        |line: &&&str| ["ok ", "warn ", "unknown "].iter().any(|word| line.starts_with(word));
    let findings = lines.iter().filter(is_finding).count();
    let mends = lines.iter().filter(|line| line.trim_start().starts_with("$ ")).count();
    assert!(findings >= 15, "{stdout}");
    assert_eq!(findings + mends, lines.len(), "{stdout}");
    assert!(stdout.ends_with(" 0 fail\n"), "{stdout}");
}

#[test]
fn a_pool_file_is_judged_by_where_it_lies() {
    // A fresh file in memory is a place for a pool; on a disk it is refused with brokers' words.
    let shm = file(Path::new("/dev/shm"), 4096);
    let document_of = |path: &Path| document(&["--pool", &path.display().to_string()]);
    let good = document_of(&shm.0);
    assert_eq!(good["pool"], shm.0.display().to_string());
    assert_eq!(finding(&good, "pool memory")["status"], "ok", "{good:#}");
    assert_eq!(finding(&good, "pool")["found"], "none in it yet");
    let beside = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let disk = file(&beside, 8192);
    let judged = document_of(&disk.0);
    let memory = finding(&judged, "pool memory");
    let on_disk = memory["found"].as_str().unwrap().contains("NICs cannot pin its pages");
    assert_eq!(on_disk, memory["status"] == "fail", "{memory}");
    let foreign = file(Path::new("/dev/shm"), 12_288);
    std::fs::write(&foreign.0, [7; 12_288]).unwrap();
    let judged = document_of(&foreign.0);
    assert_eq!(finding(&judged, "pool")["status"], "fail");
    assert_eq!(std::fs::read(&foreign.0).unwrap(), [7; 12_288], "it is only looked at");
}

#[test]
fn a_pool_that_was_made_is_opened_and_described() {
    let place = file(Path::new("/dev/shm"), 0);
    let shape = Shape {
        pool_bytes: 64 << 20,
        segment_bytes: 2 << 20,
        sessions: 64,
        coherence: Coherence::Flush,
        uuid: [1; 16],
        now_ns: 1,
        sparse: true,
    };
    drop(Pool::create_or_attach(&place.0, shape).unwrap());
    let judged = document(&["--pool", &place.0.display().to_string()]);
    if Mapping::can_flush() {
        let found = finding(&judged, "pool");
        assert_eq!(found["numbers"]["bytes"], 64 << 20, "{found}");
        assert_eq!(found["numbers"]["brokers"], 0);
        assert_eq!(finding(&judged, "pool coherence")["found"], "flush; brokers on 0 hosts");
    } else {
        assert_eq!(finding(&judged, "pool")["status"], "fail");
    }
}

#[test]
fn what_cannot_be_a_pool_and_an_address_of_nobody_fail() {
    let document = document(&["--pool", "/proc/self/status", "--verbs", "192.0.2.1"]);
    assert_eq!(document["status"], "fail");
    assert_eq!(document["verbs"], "192.0.2.1");
    let output = doctor(&["--verbs", "192.0.2.1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: this machine cannot do what was asked: "));
    assert!(text(&output.stdout).contains("fail "), "{}", text(&output.stdout));
    assert_eq!(doctor(&["--verbs", "nowhere"]).status.code(), Some(2));
}
