//! One process of a run: where its output goes, how it ended, how many stores it made.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    output: PathBuf,
    stores: PathBuf,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `command`. What it says goes to `stem.txt`, its count of stores to `stem.stores`.
    /// With `kill_at` it kills itself right after that store.
    pub fn start(mut command: Command, stem: &Path, kill_at: Option<u64>) -> io::Result<Self> {
        let (output, stores) = (stem.with_extension("txt"), stem.with_extension("stores"));
        let out = File::create(&output)?;
        let err = out.try_clone()?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        command.env("LANDFALL_STORES_FILE", &stores);
        match kill_at {
            Some(store) => command.env("LANDFALL_KILL_AT", store.to_string()),
            None => command.env_remove("LANDFALL_KILL_AT"),
        };
        Ok(Self { process: command.spawn()?, output, stores, status: None })
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.process.try_wait()?;
        }
        Ok(self.status)
    }

    /// Its process id: its own for as long as it was not found to have ended.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it has said that it is ready.
    pub fn is_ready(&self) -> bool {
        self.said().lines().any(|line| line.starts_with("ready"))
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        std::fs::read(&self.output)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Stores to shared memory that it has made; 0 when it does not count them.
    pub fn stores(&self) -> u64 {
        let bytes = std::fs::read(&self.stores).unwrap_or_default();
        bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    /// Asks it to end.
    pub fn terminate(&mut self) {
        if self.status.is_none()
            && let Ok(pid) = i32::try_from(self.process.id())
        {
            // It is not reaped yet, so the id is still its own.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            // An error means that it has ended already.
            let _ = self.process.kill();
            self.status = self.process.wait().ok();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether that is the end of a process that was killed, or ended itself so as the first one of a
/// PID namespace, which no signal of its own kills.
pub fn is_killed(status: ExitStatus) -> bool {
    let killed = Signal::SIGKILL as i32;
    status.signal() == Some(killed) || status.code() == Some(128 + killed)
}
