//! One child: its output, its life, and when to start it again.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::LocalError;
use super::spawner::Spawner;

/// Lines of stderr that are kept until somebody asks; older ones go, and are counted. A start with
/// as many topics as a pool has says a few of each.
const LINES_KEPT: usize = 8192;
/// Last lines that are kept for the sentence on how it ended.
const LAST_KEPT: usize = 8;
/// Longest line that is kept whole.
const LINE_KEPT_BYTES: usize = 2000;
/// First pause before a dead child is started again, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// A child that lived this long starts over with the first pause.
const LIVED_WELL: Duration = Duration::from_secs(10);

/// What a child said.
#[derive(Default)]
struct Output {
    ready: Option<String>,
    fresh: VecDeque<String>,
    /// Lines that went before somebody asked.
    gone: u64,
    last: VecDeque<String>,
}

impl Output {
    fn note(&mut self, line: String) {
        for (lines, most) in [(&mut self.last, LAST_KEPT), (&mut self.fresh, LINES_KEPT)] {
            if lines.len() == most {
                lines.pop_front();
                self.gone += u64::from(most == LINES_KEPT);
            }
            lines.push_back(line.clone());
        }
    }

    /// What was said since somebody asked last.
    fn take_fresh(&mut self) -> Vec<String> {
        let gone = std::mem::take(&mut self.gone);
        let told = (gone > 0).then(|| format!("{gone} lines before these are not shown"));
        told.into_iter().chain(std::mem::take(&mut self.fresh)).collect()
    }

    fn said(&self) -> String {
        self.last.iter().cloned().collect::<Vec<_>>().join("; ")
    }
}

/// How a wait for the `ready` line ended.
pub(super) enum Waited {
    Ready(String),
    Died { status: String, said: String },
    Late { said: String },
}

/// A child of the system, alive or between two lives.
pub(super) struct Process {
    name: String,
    child: Option<Child>,
    output: Arc<Mutex<Output>>,
    started: Instant,
    deaths: u32,
    again_at: Option<Instant>,
    status: Option<ExitStatus>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Process {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            child: None,
            output: Arc::default(),
            started: Instant::now(),
            deaths: 0,
            again_at: None,
            status: None,
            readers: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts the child in a process group of its own, so that an interrupt from the terminal
    /// reaches only this process, which then stops the children in order.
    pub(super) fn start(
        &mut self,
        spawner: &Spawner,
        command: &mut Command,
    ) -> Result<(), LocalError> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        self.started = Instant::now();
        self.again_at = None;
        let spawned = spawner.spawn(command).and_then(|mut child| {
            let output = Arc::new(Mutex::new(Output::default()));
            let out = child.stdout.take();
            let err = child.stderr.take();
            self.child = Some(child);
            self.status = None;
            self.output = output.clone();
            let ready = output.clone();
            self.readers = vec![
                read_lines(out, move |line| {
                    let mut output = lock(&ready);
                    if line.starts_with("ready ") && output.ready.is_none() {
                        output.ready = Some(line);
                    }
                })?,
                read_lines(err, move |line| lock(&output).note(line))?,
            ];
            Ok(())
        });
        spawned.map_err(|source| {
            self.died();
            LocalError::Spawn { name: self.name.clone(), source }
        })
    }

    pub(super) fn is_alive(&mut self) -> bool {
        let Some(child) = &mut self.child else { return false };
        match child.try_wait() {
            Ok(None) => true,
            // Somebody else reaped it: it is gone all the same.
            Ok(Some(_)) | Err(_) => {
                self.status = child.try_wait().ok().flatten();
                self.child = None;
                self.died();
                false
            }
        }
    }

    fn died(&mut self) {
        if self.started.elapsed() >= LIVED_WELL {
            self.deaths = 0;
        }
        self.again_at = Some(Instant::now() + pause(self.deaths));
        self.deaths = self.deaths.saturating_add(1);
    }

    /// Says what the child did since the last look. True when it is time to start it again.
    pub(super) fn look(&mut self, now: Instant, restart: bool, notes: &mut Vec<String>) -> bool {
        let had = self.child.is_some();
        let alive = self.is_alive();
        if had && !alive {
            self.finish_reading();
        }
        notes.extend(self.fresh());
        if had && !alive {
            let status = describe(self.status);
            let Some(again) = self.again_at.filter(|_| restart) else {
                notes.push(format!("{} has ended ({status})", self.name));
                return false;
            };
            let pause = again.saturating_duration_since(now).as_millis();
            notes.push(format!(
                "{} has ended ({status}); it is started again in {pause} ms",
                self.name
            ));
        }
        !alive && restart && self.again_at.is_some_and(|at| now >= at)
    }

    /// What it said since the last look, a line each.
    fn fresh(&self) -> Vec<String> {
        let fresh = lock(&self.output).take_fresh();
        let said = fresh.iter().map(|line| without_name(&self.name, line));
        said.map(|line| format!("{}: {line}", self.name)).collect()
    }

    /// What one that has ended said since the last look.
    pub(super) fn last_words(&mut self) -> Vec<String> {
        self.finish_reading();
        self.fresh()
    }

    /// How it ended, where that is an error. SIGTERM is none: it may come to one that has no
    /// handler for it yet, and then there is nothing to end.
    pub(super) fn failure(&self) -> Option<String> {
        let status = self.status.filter(|status| !status.success())?;
        let is_told = status.signal() == Some(Signal::SIGTERM as i32);
        (!is_told).then(|| describe(Some(status)))
    }

    pub(super) fn wait_ready(&mut self, wait: Duration) -> Waited {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(line) = lock(&self.output).ready.clone() {
                return Waited::Ready(line);
            }
            if let Some((status, said)) = self.death() {
                return Waited::Died { status, said };
            }
            if Instant::now() >= deadline {
                return Waited::Late { said: lock(&self.output).said() };
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// How it ended and what it said, where it does not live any more.
    pub(super) fn death(&mut self) -> Option<(String, String)> {
        if self.is_alive() {
            return None;
        }
        self.finish_reading();
        let mut output = lock(&self.output);
        // It is told with the death, and not once more at the stop.
        output.fresh.clear();
        Some((describe(self.status), output.said()))
    }

    /// Lets the readers take in what a dead child left in its pipes.
    fn finish_reading(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(200);
        while Instant::now() < deadline && self.readers.iter().any(|reader| !reader.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Kills the child and waits until it is gone.
    pub(super) fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // An error means it has ended already, which is what is wanted.
            let _ = child.kill();
            self.status = child.wait().ok();
            self.child = None;
            self.died();
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            // The child is not reaped yet, so the id is still its own.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The pause before life number `deaths` + 1.
fn pause(deaths: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << deaths.min(10)).min(PAUSE_MOST)
}

fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a child says of itself in front of a line is said of it anyway.
fn without_name<'a>(name: &str, line: &'a str) -> &'a str {
    let own = line.strip_prefix("landfall-").unwrap_or(line).strip_prefix(name);
    own.and_then(|line| line.strip_prefix(": ")).unwrap_or(line)
}

fn describe(status: Option<ExitStatus>) -> String {
    match status {
        None => "its status is unknown".into(),
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => match Signal::try_from(signal) {
                Ok(known) => format!("killed by {known}"),
                Err(_) => format!("killed by signal {signal}"),
            },
            (None, None) => status.to_string(),
        },
    }
}

fn read_lines(
    stream: Option<impl Read + Send + 'static>,
    mut each: impl FnMut(String) + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("landfall-output".into()).spawn(move || {
        let Some(stream) = stream else { return };
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while let Ok(1..) = stream.read_until(b'\n', &mut line) {
            line.truncate(line.len().min(LINE_KEPT_BYTES));
            each(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn pauses_double_up_to_five_seconds() {
        let pauses: Vec<u128> = (0..8).map(|deaths| pause(deaths).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(pause(u32::MAX), PAUSE_MOST);
    }

    #[test]
    fn the_ready_line_is_found_and_a_death_brings_what_was_said() {
        let spawner = Spawner::start().unwrap();
        let mut process = Process::new("broker 7".into());
        process.start(&spawner, &mut shell("echo noise; echo ready here; exec sleep 60")).unwrap();
        let Waited::Ready(line) = process.wait_ready(Duration::from_secs(10)) else {
            panic!("no ready line")
        };
        assert_eq!(line, "ready here");
        process.kill();
        assert!(!process.is_alive() && process.pid().is_none());

        process.start(&spawner, &mut shell("echo the reason >&2; exit 3")).unwrap();
        let Waited::Died { status, said } = process.wait_ready(Duration::from_secs(10)) else {
            panic!("it did not die")
        };
        assert_eq!((status.as_str(), said.as_str()), ("exit status 3", "the reason"));
    }

    #[test]
    fn all_that_is_said_between_two_looks_is_kept_or_counted() {
        let mut output = Output::default();
        let mut say = |lines: usize| {
            (0..lines).for_each(|line| output.note(format!("line {line}")));
            output.take_fresh()
        };
        assert_eq!(say(300).len(), 300);
        assert!(say(0).is_empty());
        let said = say(LINES_KEPT + 3);
        assert_eq!(said.len(), LINES_KEPT + 1);
        assert_eq!(&said[..2], ["3 lines before these are not shown", "line 3"]);
        assert!(output.said().starts_with(&format!("line {}", LINES_KEPT - 5)));
    }

    #[test]
    fn who_says_a_line_is_said_once() {
        assert_eq!(without_name("control", "control: topic a is back"), "topic a is back");
        assert_eq!(without_name("broker 0", "landfall-broker 0: no room"), "no room");
        assert_eq!(without_name("broker 1", "broker 10: no room"), "broker 10: no room");
        assert_eq!(without_name("control", "no room"), "no room");
    }

    #[test]
    fn a_look_reports_the_death_once_and_says_when_to_start_again() {
        let spawner = Spawner::start().unwrap();
        let mut process = Process::new("control".into());
        process.start(&spawner, &mut shell("echo last words >&2; kill -9 $$")).unwrap();
        let mut notes = Vec::new();
        while process.pid().is_some() {
            assert!(!process.look(Instant::now(), true, &mut notes), "too early");
        }
        let text = notes.join("\n");
        assert!(text.contains("control: last words"), "{text}");
        assert!(text.contains("control has ended (killed by SIGKILL); it is started"), "{text}");
        let later = Instant::now() + Duration::from_secs(1);
        assert!(process.look(later, true, &mut notes), "time to start it again");
        assert!(!process.look(later, false, &mut notes), "nobody wants it again");
        assert_eq!(notes.len(), 2, "said once");
    }
}
