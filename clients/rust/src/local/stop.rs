//! Ending processes in good order, and killing those that do not end.

use std::fmt;
use std::time::{Duration, Instant};

use landfall_pool::process::is_stopped;

use super::process::Process;

/// How often it is said for whom a stop waits.
const TELL_EVERY: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A process that was told to stop and has not ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lingering {
    /// Which one: `control` or `broker N`.
    pub name: String,
    /// Its number in the system.
    pub pid: u32,
    /// Somebody stopped it, as SIGSTOP does: it cannot end before it goes on.
    pub is_stopped: bool,
}

impl fmt::Display for Lingering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pid, is_stopped } = self;
        let stopped = if *is_stopped { ", which was stopped by a signal" } else { "" };
        write!(f, "{name} (process {pid}{stopped})")
    }
}

/// What is heard of a stop.
#[derive(Clone, Copy, Debug)]
pub enum Stopping<'a> {
    /// It waits.
    Waits {
        /// For whom.
        left: &'a [Lingering],
        /// For how long so far.
        waited: Duration,
    },
    /// What a process said at its end, or since it was looked after last.
    Said(&'a str),
}

/// How a stop went wrong, as far as it is known.
#[derive(Default, Debug)]
pub(super) struct Ends {
    /// Those that had to be killed.
    pub(super) killed: Vec<Lingering>,
    /// Those that ended with an error: which, and its status.
    pub(super) failed: Vec<(String, String)>,
}

/// Stops processes, together, and kills those that have not ended after `wait`. Every few seconds
/// `tell` hears of those that are waited for, and at the end what all of them said.
pub(super) fn stop_all(
    processes: &mut [&mut Process],
    wait: Duration,
    tell: &mut dyn FnMut(Stopping),
    ends: &mut Ends,
) {
    let lived: Vec<bool> = processes.iter_mut().map(|process| process.is_alive()).collect();
    processes.iter().for_each(|process| process.terminate());
    let (began, mut tell_at) = (Instant::now(), TELL_EVERY);
    while processes.iter_mut().any(|process| process.is_alive()) {
        let waited = began.elapsed();
        if waited >= wait {
            break;
        }
        if waited >= tell_at {
            tell_at += TELL_EVERY;
            tell(Stopping::Waits { left: &lingering(processes), waited });
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let killed = lingering(processes);
    for (process, lived) in processes.iter_mut().zip(lived) {
        process.kill();
        process.last_words().iter().for_each(|line| tell(Stopping::Said(line)));
        let name = process.name().to_owned();
        let was_killed = killed.iter().any(|lingering| lingering.name == name);
        ends.failed.extend(process.failure().filter(|_| lived && !was_killed).map(|s| (name, s)));
    }
    ends.killed.extend(killed);
}

/// Those that live.
fn lingering(processes: &mut [&mut Process]) -> Vec<Lingering> {
    let one = |process: &mut &mut Process| {
        let pid = if process.is_alive() { process.pid()? } else { return None };
        Some(Lingering { name: process.name().to_owned(), pid, is_stopped: is_stopped(pid) })
    };
    processes.iter_mut().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::super::process::Waited;
    use super::super::spawner::Spawner;
    use super::*;

    /// One that has said that it is ready.
    fn process(spawner: &Spawner, name: &str, script: &str) -> Process {
        let mut process = Process::new(name.to_owned());
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        process.start(spawner, &mut command).unwrap();
        let ready = process.wait_ready(Duration::from_secs(60));
        assert!(matches!(ready, Waited::Ready(_)), "{name} is not ready");
        process
    }

    #[test]
    fn who_ends_late_is_waited_for_and_told_of_and_is_not_killed() {
        let spawner = Spawner::start().unwrap();
        let begin = |name, script| process(&spawner, name, script);
        let mut slow = begin(
            "slow",
            "trap 'sleep 7; exit 0' TERM; echo ready x; while :; do sleep 0.01; done",
        );
        let mut quick = begin("quick", "echo ready x; exec sleep 600");
        let (mut told, mut ends) = (Vec::new(), Ends::default());
        let mut tell = |stopping: Stopping| match stopping {
            Stopping::Waits { left, .. } => {
                told.extend(left.iter().map(|left| (left.name.clone(), left.is_stopped)));
            }
            Stopping::Said(line) => panic!("nobody said {line}"),
        };
        stop_all(&mut [&mut quick, &mut slow], Duration::from_secs(600), &mut tell, &mut ends);
        assert_eq!((ends.killed, told), (vec![], vec![("slow".to_owned(), false)]));
        assert_eq!(ends.failed, [], "SIGTERM may come before there is a handler for it");
        assert!(slow.pid().is_none() && quick.pid().is_none());
    }

    #[test]
    fn what_is_said_at_the_end_is_told_and_an_error_is_named() {
        let spawner = Spawner::start().unwrap();
        let script = "trap 'echo control: is in the pool alone >&2; exit 3' TERM; echo ready x; \
                      while :; do sleep 0.01; done";
        let mut control = process(&spawner, "control", script);
        let (mut said, mut ends) = (Vec::new(), Ends::default());
        let mut tell = |stopping: Stopping| match stopping {
            Stopping::Said(line) => said.push(line.to_owned()),
            Stopping::Waits { .. } => {}
        };
        stop_all(&mut [&mut control], Duration::from_secs(600), &mut tell, &mut ends);
        assert_eq!(said, ["control: is in the pool alone"]);
        assert_eq!(ends.failed, [("control".to_owned(), "exit status 3".to_owned())]);
    }

    #[test]
    fn who_does_not_end_is_killed_and_named_with_why() {
        let spawner = Spawner::start().unwrap();
        let begin = |name, script| process(&spawner, name, script);
        let mut deaf = begin("broker 7", "trap '' TERM; echo ready x; exec sleep 600");
        let mut frozen = begin("broker 8", "echo ready x; exec sleep 600");
        let pids = [deaf.pid().unwrap(), frozen.pid().unwrap()];
        kill(Pid::from_raw(pids[1] as i32), Signal::SIGSTOP).unwrap();
        while !is_stopped(pids[1]) {
            std::thread::yield_now();
        }
        let mut ends = Ends::default();
        let all = &mut [&mut deaf, &mut frozen];
        stop_all(all, Duration::from_millis(300), &mut |_| {}, &mut ends);
        let told: Vec<String> = ends.killed.iter().map(Lingering::to_string).collect();
        assert_eq!(ends.failed, [], "who was killed is named once");
        let [one, other] = pids;
        let want = [
            format!("broker 7 (process {one})"),
            format!("broker 8 (process {other}, which was stopped by a signal)"),
        ];
        assert_eq!(told, want);
        assert!(deaf.pid().is_none() && frozen.pid().is_none());
    }
}
