//! Brokers that are told to stop together with control, as where each is a service of its own.
//! Control says where logs ended, so it ends behind them.

use std::time::Duration;

use landfall_layout::BrokerId;
use landfall_layout::limits::{BROKERS_MAX, HEARTBEAT_LEASE_NS};
use landfall_layout::pool::BrokerState;
use landfall_pool::Pool;
use landfall_pool::clock::boot_ns;

/// Who is told to stop together with control says so within this time.
const TOLD_NS: u64 = 250_000_000;
/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What one look counts at most: whoever looks was stopped as well, if it is longer.
const LOOK_NS: u64 = 100_000_000;

/// Brokers as control sees them that is to end.
#[derive(Debug, Default)]
struct Leavers {
    for_ns: u64,
    /// The last beat of each, and for how long there has been none since.
    beats: [(u64, u64); BROKERS_MAX],
}

impl Leavers {
    /// Whether one of them may end soon: their numbers, what each says of itself, and its beat.
    /// `passed_ns`: since the last look. One that does not beat is frozen or gone.
    fn may_end(
        &mut self,
        all: impl Iterator<Item = (usize, BrokerState, u64)>,
        passed_ns: u64,
    ) -> bool {
        self.for_ns += passed_ns;
        let mut may_one = |(number, state, beat): (usize, BrokerState, u64)| {
            let (last, silent_ns) = &mut self.beats[number];
            *silent_ns = if *last == beat { *silent_ns + passed_ns } else { 0 };
            *last = beat;
            match state {
                BrokerState::Absent => false,
                BrokerState::Serving => self.for_ns < TOLD_NS,
                BrokerState::Leaving | BrokerState::Landed => *silent_ns < HEARTBEAT_LEASE_NS,
            }
        };
        // All of them are looked at.
        all.fold(false, |may, one| may_one(one) | may)
    }
}

/// Waits until each broker of the pool has left, serves on, or does not beat. One that leaves waits
/// for nothing without a bound of its own.
pub async fn gone(pool: &Pool) {
    let (mut leavers, mut looked_ns) = (Leavers::default(), boot_ns());
    loop {
        let all = BrokerId::all().map(|broker| {
            let line = pool.broker(broker);
            (broker.index(), BrokerState::from_raw(line.state), line.heartbeat_ns)
        });
        let now_ns = boot_ns();
        if !leavers.may_end(all, now_ns.saturating_sub(looked_ns).min(LOOK_NS)) {
            return;
        }
        looked_ns = now_ns;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY_NS: u64 = 1_000_000;

    /// For how long one is waited for that control looks at each millisecond, up to ten seconds.
    fn waits(state: BrokerState, beats: bool) -> u64 {
        let mut leavers = Leavers::default();
        let look = |now: &u64| {
            let beat = if beats { *now } else { 5 };
            let all = [(0, BrokerState::Absent, 0), (7, state, beat)];
            !leavers.may_end(all.into_iter(), EVERY_NS)
        };
        (1..=10_000).map(|n| n * EVERY_NS).find(look).unwrap_or(u64::MAX)
    }

    #[test]
    fn who_leaves_is_waited_for_and_who_serves_on_or_is_frozen_is_not() {
        assert_eq!(waits(BrokerState::Absent, true), EVERY_NS);
        assert_eq!(waits(BrokerState::Serving, true), TOLD_NS);
        for state in [BrokerState::Leaving, BrokerState::Landed] {
            assert_eq!(waits(state, true), u64::MAX);
            // The first look takes its beat for a new one.
            assert_eq!(waits(state, false), HEARTBEAT_LEASE_NS + EVERY_NS);
        }
    }
}
