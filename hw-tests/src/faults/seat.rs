//! One process's place in a run: it may have many lives there.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fault::{Space, Who};
use crate::Failure;
use crate::sweep::child::{Child, is_killed};

/// Status of a client that saw a promise broken.
pub const BROKEN: u8 = 3;
/// A program that is started in namespaces of its own has its process within this time.
const STARTED_WITHIN: Duration = Duration::from_secs(5);
/// A process that gave up begins again after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What a look at a process found.
pub enum Judged {
    /// It runs, or nobody is there.
    Well,
    /// It ended as it was told to.
    Done,
    /// It was killed.
    Killed,
    /// It ended by itself, and said why.
    GaveUp(String),
}

/// A process's place.
pub struct Seat {
    who: Who,
    program: &'static str,
    pub(super) arguments: Vec<String>,
    space: Option<Space>,
    kill_at: Option<u64>,
    child: Option<Child>,
    /// Lives begun.
    pub(super) lives: u32,
    /// It was told to end.
    pub(super) stopping: bool,
    /// It ended as it should.
    pub(super) done: bool,
    /// It is not started again for now.
    pub(super) held: bool,
    /// How long it stays away when it is killed.
    pub(super) away: Duration,
    again_at: Option<Instant>,
    ready_since: Option<Instant>,
}

impl Seat {
    pub(super) fn new(
        who: Who,
        program: &'static str,
        arguments: Vec<String>,
        space: Option<Space>,
        kill_at: Option<u64>,
    ) -> Self {
        Self {
            who,
            program,
            arguments,
            space,
            kill_at,
            child: None,
            lives: 0,
            stopping: false,
            done: false,
            held: false,
            away: Duration::ZERO,
            again_at: None,
            ready_since: None,
        }
    }

    /// Begins the next life.
    pub(super) fn start(&mut self, programs: &Path, folder: &Path) -> Result<(), Failure> {
        let mut command = command(&programs.join(self.program), self.space);
        command.args(&self.arguments);
        let in_space = matches!(self.space, Some(Space::Pid | Space::Both));
        let parent = if in_space { 0 } else { std::process::id() };
        command.arg(format!("--parent={parent}"));
        if !self.who.is_server() {
            command.arg(format!("--life={}", self.lives));
        }
        environment(&mut command, folder, &self.who.to_string());
        // `with_extension` takes what is behind the last dot for one.
        let stem = folder.join(format!("notes/{}.{}.x", self.who, self.lives));
        let kill_at = self.kill_at.filter(|_| self.lives == 0);
        let child = Child::start(command, &stem, kill_at).map_err(|error| {
            Failure::new(format!("start {} for {}: {error}", self.program, self.who))
        })?;
        self.child = Some(child);
        self.lives += 1;
        (self.again_at, self.ready_since) = (None, None);
        Ok(())
    }

    /// Whether the next life is to begin now.
    pub(super) fn is_due(&self) -> bool {
        !self.held && self.again_at.is_some_and(|at| Instant::now() >= at)
    }

    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.child.as_ref().is_some_and(Child::is_ready)
    }

    /// Since when it serves.
    pub(super) fn ready_since(&mut self) -> Option<Instant> {
        if self.ready_since.is_none() && self.is_ready() {
            self.ready_since = Some(Instant::now());
        }
        self.ready_since
    }

    /// Looks how it is. One that gave up, where it may, is started again soon; so is one that was
    /// killed. Any other end is a failure.
    /// One that `may_not_start` may end so before it serves.
    pub(super) fn judge(&mut self, may_end: bool, may_not_start: bool) -> Result<Judged, Failure> {
        let Some(child) = &mut self.child else { return Ok(Judged::Well) };
        let Some(status) = child.ended()? else { return Ok(Judged::Well) };
        let said = child.said();
        let sentence = last_lines(&said, 3);
        let was_ready = child.is_ready();
        let may_end = may_end || may_not_start && !was_ready;
        (self.child, self.ready_since) = (None, None);
        // Who makes the namespaces says so when the program in them was killed.
        if is_killed(status) || said.contains("unshare: sigprocmask unblock failed") {
            self.again_at = Some(Instant::now() + std::mem::take(&mut self.away));
            self.done |= self.stopping;
            return Ok(Judged::Killed);
        }
        // Told to end before it had a handler for that.
        let is_told =
            self.stopping && !was_ready && status.signal() == Some(Signal::SIGTERM as i32);
        if is_told || status.success() && (self.stopping || !self.who.is_server()) {
            self.done = true;
            return Ok(Judged::Done);
        }
        let who = self.who;
        let is_broken = status.code() == Some(BROKEN.into());
        ensure!(!is_broken || who.is_server(), "{who} saw a promise broken: {sentence}");
        // Without memory the runtime can do nothing but say so and abort. The first process of a
        // PID namespace is not ended by SIGABRT: abort(3) goes on to an instruction that faults.
        let aborts = match self.space {
            Some(Space::Pid | Space::Both) => vec![Signal::SIGABRT as i32, Signal::SIGSEGV as i32],
            _ => vec![Signal::SIGABRT as i32],
        };
        let no_memory = status.signal().is_some_and(|signal| aborts.contains(&signal))
            && (said.contains("memory allocation of") || said.contains("Cannot allocate memory"));
        // A page of the pool is gone: there is nothing else to do.
        let no_pool = status.signal() == Some(Signal::SIGBUS as i32)
            && said.contains("the pool's memory cannot be read at byte")
            && said.contains("make a new pool with landfall-control --restore");
        let says_why =
            status.code() == Some(1) && !sentence.is_empty() && !said.contains("panicked");
        ensure!(
            may_end && (says_why || no_memory || no_pool),
            "{who}, life {}, ended by itself ({status}); it said: {sentence}",
            self.lives
        );
        self.again_at = Some(Instant::now() + AGAIN_AFTER);
        self.done |= self.stopping;
        Ok(Judged::GaveUp(sentence))
    }

    /// Its id, also where it is in a namespace of its own.
    pub(super) fn pid(&self) -> Option<Pid> {
        let id = self.child.as_ref()?.id();
        if matches!(self.space, Some(Space::Pid | Space::Both)) {
            // The child is who made the namespace; the only child of that is the program.
            let path = format!("/proc/{id}/task/{id}/children");
            let children = std::fs::read_to_string(path).ok()?;
            return children.split_whitespace().next()?.parse().ok().map(Pid::from_raw);
        }
        i32::try_from(id).ok().map(Pid::from_raw)
    }

    fn signal(&self, signal: Signal) {
        // Who makes the namespaces starts the program a moment later.
        let end = Instant::now() + STARTED_WITHIN;
        while self.is_running() && self.pid().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(pid) = self.pid() {
            // An error means that it has ended already.
            let _ = kill(pid, signal);
        }
    }

    pub(super) fn kill(&mut self, away: Duration) {
        self.away = away;
        self.signal(Signal::SIGKILL);
    }

    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Whether it may not have heard that it is to end: the first process of a PID namespace drops
    /// a signal that it has no handler for yet (pid_namespaces(7)).
    pub(super) fn may_be_deaf(&self) -> bool {
        matches!(self.space, Some(Space::Pid | Space::Both))
    }

    pub(super) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(super) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub(super) fn said(&self) -> String {
        last_lines(&self.child.as_ref().map(Child::said).unwrap_or_default(), 4)
    }
}

/// What other processes set for one while it runs.
pub(super) fn environment(command: &mut Command, folder: &Path, name: &str) {
    command.env("LANDFALL_CLOCK_FILE", folder.join(format!("{name}.clock")));
    command.env("LANDFALL_DISK_FILE", folder.join(format!("{name}.disk")));
}

/// A command that runs `program`, in namespaces of its own where that is asked for.
pub(super) fn command(program: &Path, space: Option<Space>) -> Command {
    let Some(space) = space else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    if matches!(space, Space::Net | Space::Both) {
        command.arg("--net");
    }
    if matches!(space, Space::Pid | Space::Both) {
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    }
    command.arg(program);
    command
}

pub(super) fn last_lines(said: &str, count: usize) -> String {
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("ready")).collect();
    // Where a panic was is what counts, and is followed by a stack.
    let panicked = lines.iter().position(|line| line.contains("panicked"));
    match panicked {
        Some(at) => lines[at..].join(" / "),
        None => lines[lines.len().saturating_sub(count)..].join(" / "),
    }
}
