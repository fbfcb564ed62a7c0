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

/// A stop that waits.
#[derive(Clone, Copy, Debug)]
pub struct Stopping<'a> {
    /// For whom.
    pub left: &'a [Lingering],
    /// For how long so far.
    pub waited: Duration,
}

/// Stops processes, together, and kills those that have not ended after `wait`, which `killed`
/// gets. Every few seconds `tell` hears of those that are waited for.
pub(super) fn stop_all(
    processes: &mut [&mut Process],
    wait: Duration,
    tell: &mut dyn FnMut(Stopping),
    killed: &mut Vec<Lingering>,
) {
    processes.iter().for_each(|process| process.terminate());
    let (began, mut tell_at) = (Instant::now(), TELL_EVERY);
    loop {
        let waited = began.elapsed();
        if !processes.iter_mut().any(|process| process.is_alive()) {
            return;
        }
        if waited >= wait {
            break;
        }
        if waited >= tell_at {
            tell_at += TELL_EVERY;
            tell(Stopping { left: &lingering(processes), waited });
        }
        std::thread::sleep(LOOK_EVERY);
    }
    killed.extend(lingering(processes));
    processes.iter_mut().for_each(|process| process.kill());
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
        let (mut told, mut killed) = (Vec::new(), Vec::new());
        let mut tell = |stopping: Stopping| {
            told.extend(stopping.left.iter().map(|left| (left.name.clone(), left.is_stopped)));
        };
        stop_all(&mut [&mut quick, &mut slow], Duration::from_secs(600), &mut tell, &mut killed);
        assert_eq!((killed, told), (vec![], vec![("slow".to_owned(), false)]));
        assert!(slow.pid().is_none() && quick.pid().is_none());
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
        let mut killed = Vec::new();
        let all = &mut [&mut deaf, &mut frozen];
        stop_all(all, Duration::from_millis(300), &mut |_| {}, &mut killed);
        let told: Vec<String> = killed.iter().map(Lingering::to_string).collect();
        let [one, other] = pids;
        let want = [
            format!("broker 7 (process {one})"),
            format!("broker 8 (process {other}, which was stopped by a signal)"),
        ];
        assert_eq!(told, want);
        assert!(deaf.pid().is_none() && frozen.pid().is_none());
    }
}
