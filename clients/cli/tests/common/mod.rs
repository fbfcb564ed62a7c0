//! The tool with a real system: control and brokers as child processes.
//!
//! Needs landfall-control and landfall-broker beside the tool: `cargo build --workspace --bins`.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Longest wait for anything; far beyond what a slow machine needs.
pub const WAIT: Duration = Duration::from_secs(60);

/// The tool, away from the machine's own configuration.
pub fn landfall() -> Command {
    let tool = Path::new(env!("CARGO_BIN_EXE_landfall"));
    for program in ["landfall-control", "landfall-broker"] {
        assert!(
            tool.with_file_name(program).is_file(),
            "{program} is not beside {}: build it with `cargo build --workspace --bins`",
            tool.display()
        );
    }
    quiet(Command::new(tool))
}

/// A script, away from the machine's own configuration.
pub fn shell(script: &str) -> Command {
    let mut command = quiet(Command::new("sh"));
    command.args(["-c", script]);
    command
}

fn quiet(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LANDFALL")) {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME").env("NO_COLOR", "1");
    command.current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running `landfall up`.
pub struct System {
    pub child: Child,
    pub address: String,
}

impl System {
    pub fn start(brokers: u32) -> Self {
        Self::start_with(brokers, &[])
    }

    pub fn start_with(brokers: u32, more: &[&str]) -> Self {
        let mut child = landfall()
            .args(["up", "--control", "127.0.0.1:0"])
            .args(if more.contains(&"--pool-bytes") { &[] } else { &["--pool-bytes", "256M"][..] })
            .args(["--brokers", &brokers.to_string()])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(address) = line.trim_end().strip_prefix("ready http://") else {
            let mut stderr = String::new();
            child.kill().unwrap();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("no ready line but {line:?}: {stderr}");
        };
        Self { address: address.to_owned(), child }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = landfall();
        command.args(arguments).args(["--control", &self.address]);
        command
    }

    /// Runs the tool with `input` on stdin.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A tool that fails early does not read its stdin.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    pub fn ok(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = self.run(arguments, input);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        text(&output.stdout)
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let document: Value = serde_json::from_str(&self.ok(arguments, b"")).unwrap();
        assert_eq!(document["schema_version"], 1, "{arguments:?}");
        document
    }

    /// Asks the system to stop and returns its status and what it said.
    pub fn stop(mut self) -> (Option<i32>, String) {
        signal(self.child.id(), Signal::SIGTERM);
        end(&mut self.child)
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // The children die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Stops a process until it is told to go on.
pub fn stop(pid: u32) {
    signal(pid, Signal::SIGSTOP);
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    until("it is stopped", || stat().contains(") T "));
}

/// Waits for the end of a process: its status, and what it said.
pub fn end(child: &mut Child) -> (Option<i32>, String) {
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().code(), stderr)
}

/// Processes that one has started.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children"));
    let all: Vec<String> = tasks.filter_map(|task| of(task).ok()).collect();
    all.join(" ").split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

pub fn lives(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < deadline, "waited {WAIT:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
