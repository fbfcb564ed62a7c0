//! Which brokers live: the kernel knows it of those that hold their lock on this host, and of
//! others nothing but their heartbeat tells.

use landfall_layout::limits::HEARTBEAT_LEASE_NS;
use landfall_layout::pool::{BrokerLine, BrokerState};
use landfall_pool::lock::Process;
use landfall_pool::silence::Silence;

/// How it is with a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// Nobody ever took this number.
    Never,
    /// It beats.
    Live,
    /// It does not beat and its process is still there: it may go on any moment, so nothing that
    /// it may be reading or writing is reused.
    Frozen,
    /// It is on another host and does not beat, and nothing tells whether its process is there.
    /// Nobody waits for it; what it may still write into is not reused.
    Silent,
    /// Its process is gone. It said goodbye: then its clients have let go too.
    Gone {
        /// It stopped by itself.
        cleanly: bool,
    },
}

impl Life {
    /// Whether others wait for what it reads and writes.
    pub fn may_act(self) -> bool {
        matches!(self, Self::Live | Self::Frozen)
    }
}

/// A broker's beats as control sees them, by control's own clock: hosts' clocks differ.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beats(Silence);

impl Beats {
    /// Takes a look at the line: nanoseconds for which no beat was seen, by boot time.
    pub fn look(&mut self, line: &BrokerLine, now_ns: u64) -> u64 {
        self.0.look(line.heartbeat_ns, now_ns)
    }

    /// Nanoseconds for which no beat was seen, by boot time: since the first look where none was.
    pub fn age_ns(&self, now_ns: u64) -> u64 {
        self.0.age_ns(now_ns)
    }

    /// How old its last beat is. `None`: this control saw none, and nobody knows.
    pub fn last_ns(&self, now_ns: u64) -> Option<u64> {
        self.0.has_moved().then(|| self.0.age_ns(now_ns))
    }
}

/// Judges a broker whose last beat is `age_ns` old.
pub fn judge(line: &BrokerLine, age_ns: u64, process: Process) -> Life {
    if line.incarnation == 0 {
        return Life::Never;
    }
    if BrokerState::from_raw(line.state) == BrokerState::Absent {
        return Life::Gone { cleanly: true };
    }
    match process {
        Process::Gone => Life::Gone { cleanly: false },
        _ if age_ns < HEARTBEAT_LEASE_NS => Life::Live,
        Process::There => Life::Frozen,
        Process::Elsewhere => Life::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(state: BrokerState) -> BrokerLine {
        BrokerLine { incarnation: 7, state: state.raw(), pid: 1, ..BrokerLine::default() }
    }

    const LATE: u64 = 100 * HEARTBEAT_LEASE_NS;

    #[test]
    fn a_number_nobody_took_was_never_there() {
        assert_eq!(judge(&BrokerLine::default(), 0, Process::Gone), Life::Never);
    }

    #[test]
    fn a_process_that_is_there_is_never_dead_however_late_it_is() {
        let serving = line(BrokerState::Serving);
        assert_eq!(judge(&serving, 0, Process::There), Life::Live);
        assert_eq!(judge(&serving, HEARTBEAT_LEASE_NS - 1, Process::There), Life::Live);
        assert_eq!(judge(&serving, LATE, Process::There), Life::Frozen);
        assert!(Life::Frozen.may_act());
    }

    #[test]
    fn a_lock_that_came_back_is_a_death_however_fresh_the_beat_is() {
        let dead = Life::Gone { cleanly: false };
        assert_eq!(judge(&line(BrokerState::Serving), 0, Process::Gone), dead);
        assert_eq!(judge(&line(BrokerState::Leaving), LATE, Process::Gone), dead);
    }

    #[test]
    fn a_broker_of_another_host_has_the_whole_lease_and_is_then_only_silent() {
        let serving = line(BrokerState::Serving);
        let judged = |age| judge(&serving, age, Process::Elsewhere);
        assert_eq!(judged(HEARTBEAT_LEASE_NS - 1), Life::Live);
        assert_eq!(judged(LATE), Life::Silent);
        assert!(!Life::Silent.may_act());
    }

    #[test]
    fn a_goodbye_counts_at_once() {
        let left = Life::Gone { cleanly: true };
        for process in [Process::There, Process::Gone, Process::Elsewhere] {
            assert_eq!(judge(&line(BrokerState::Absent), 0, process), left);
        }
    }

    #[test]
    fn age_is_counted_by_controls_own_clock() {
        let mut beats = Beats::default();
        let mut seen = BrokerLine { heartbeat_ns: 900, ..line(BrokerState::Serving) };
        assert_eq!(beats.look(&seen, 5_000), 0, "a first look knows of no silence");
        assert_eq!(beats.look(&seen, 6_000), 1_000);
        assert_eq!(beats.last_ns(6_000), None, "it may have beaten last long before");
        seen.heartbeat_ns = 1;
        assert_eq!(beats.look(&seen, 7_000), 0, "any other value is a beat");
        assert_eq!((beats.age_ns(7_500), beats.last_ns(7_500)), (500, Some(500)));
    }
}
