//! Which brokers live: judged by the heartbeat, and by the process where it is on this host.

use landfall_layout::limits::{HEARTBEAT_EVERY_NS, HEARTBEAT_LEASE_NS};
use landfall_layout::pool::{BrokerLine, BrokerState};

/// A late beat makes control look at the process this soon, nanoseconds.
const LATE_NS: u64 = 3 * HEARTBEAT_EVERY_NS;

/// How it is with a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// Nobody ever took this number.
    Never,
    /// It beats.
    Live,
    /// It does not beat and its process is still there: it may go on any moment, so nothing that
    /// it may be reading is reused.
    Hung,
    /// Its process is gone. It said goodbye: then its clients have let go too.
    Gone {
        /// It stopped by itself.
        cleanly: bool,
    },
}

impl Life {
    /// Whether it may be reading or writing the pool.
    pub fn may_act(self) -> bool {
        matches!(self, Self::Live | Self::Hung)
    }
}

/// A broker's beats as control sees them, by control's own clock: hosts' clocks differ.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beats {
    value: u64,
    seen_ns: u64,
    started: bool,
}

impl Beats {
    /// Takes a look at the line. `clock_ns` never goes back; `wall_ns` is only used the first
    /// time, to tell how old a beat was when control started.
    pub fn look(&mut self, line: &BrokerLine, clock_ns: u64, wall_ns: u64) {
        if !self.started {
            let age = wall_ns.saturating_sub(line.heartbeat_ns);
            *self = Self {
                value: line.heartbeat_ns,
                seen_ns: clock_ns.saturating_sub(age),
                started: true,
            };
        } else if self.value != line.heartbeat_ns {
            (self.value, self.seen_ns) = (line.heartbeat_ns, clock_ns);
        }
    }

    /// Nanoseconds since the last beat.
    pub fn age_ns(&self, clock_ns: u64) -> u64 {
        clock_ns.saturating_sub(self.seen_ns)
    }
}

/// What is known of a broker's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Process {
    /// It is on this host.
    Running,
    /// It was on this host and is gone.
    Ended,
    /// It is on another host, or this host was started anew since: its beats alone tell.
    Elsewhere,
}

/// Judges a broker. The process is asked for only when a beat is late.
pub fn judge(line: &BrokerLine, age_ns: u64, process: impl FnOnce() -> Process) -> Life {
    if line.incarnation == 0 {
        return Life::Never;
    }
    if BrokerState::from_raw(line.state) == BrokerState::Absent {
        return Life::Gone { cleanly: true };
    }
    if age_ns < LATE_NS {
        return Life::Live;
    }
    match process() {
        Process::Running | Process::Elsewhere if age_ns < HEARTBEAT_LEASE_NS => Life::Live,
        Process::Running => Life::Hung,
        Process::Ended | Process::Elsewhere => Life::Gone { cleanly: false },
    }
}

/// When the process of that id started, in the system's ticks; `None` when it is not running.
/// Together with the id it names a process for ever.
pub fn process_started(pid: u64) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; fields are counted behind it (proc_pid_stat(5)).
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X" | "x")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(state: BrokerState) -> BrokerLine {
        BrokerLine { incarnation: 7, state: state.raw(), pid: 1, ..BrokerLine::default() }
    }

    #[test]
    fn a_number_nobody_took_was_never_there() {
        assert_eq!(judge(&BrokerLine::default(), 0, || Process::Running), Life::Never);
    }

    #[test]
    fn a_broker_that_beats_lives_wherever_it_runs() {
        assert_eq!(judge(&line(BrokerState::Serving), 1, || panic!("not asked")), Life::Live);
    }

    #[test]
    fn a_late_beat_with_a_process_is_only_late() {
        let age = HEARTBEAT_LEASE_NS - 1;
        assert_eq!(judge(&line(BrokerState::Leaving), age, || Process::Running), Life::Live);
        let dead = Life::Gone { cleanly: false };
        assert_eq!(judge(&line(BrokerState::Leaving), age, || Process::Ended), dead);
    }

    #[test]
    fn a_broker_of_another_host_has_the_whole_lease() {
        let serving = line(BrokerState::Serving);
        let judged = |age| judge(&serving, age, || Process::Elsewhere);
        assert_eq!(judged(HEARTBEAT_LEASE_NS - 1), Life::Live);
        assert_eq!(judged(HEARTBEAT_LEASE_NS), Life::Gone { cleanly: false });
    }

    #[test]
    fn a_stopped_process_is_never_taken_for_dead() {
        let age = 100 * HEARTBEAT_LEASE_NS;
        assert_eq!(judge(&line(BrokerState::Serving), age, || Process::Running), Life::Hung);
        assert!(Life::Hung.may_act());
    }

    #[test]
    fn a_goodbye_counts_at_once() {
        let left = Life::Gone { cleanly: true };
        assert_eq!(judge(&line(BrokerState::Absent), 0, || panic!("not asked")), left);
    }

    #[test]
    fn age_is_counted_by_controls_own_clock() {
        let mut beats = Beats::default();
        let mut seen = BrokerLine { heartbeat_ns: 900, ..line(BrokerState::Serving) };
        beats.look(&seen, 5_000, 1_000);
        assert_eq!(beats.age_ns(5_000), 100, "the first look goes by the wall clock");
        beats.look(&seen, 6_000, 0);
        assert_eq!(beats.age_ns(6_000), 1_100);
        seen.heartbeat_ns = 1;
        beats.look(&seen, 7_000, 0);
        assert_eq!(beats.age_ns(7_500), 500, "any other value is a beat");
    }

    #[test]
    fn this_process_runs_and_an_impossible_one_does_not() {
        assert!(process_started(std::process::id().into()).is_some());
        assert_eq!(process_started(u64::MAX), None);
    }
}
