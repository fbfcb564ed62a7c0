//! Whether somebody is at work on a pool: what moves by itself while a process lives.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use landfall_layout::BrokerId;
use landfall_layout::limits::{HEARTBEAT_EVERY_NS, HEARTBEAT_LEASE_NS, LEADERS_MAX};
use landfall_layout::pool::BrokerState;
use landfall_pool::Pool;

/// Heartbeats as they stood at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pulse {
    epoch: u64,
    leaders: Vec<u64>,
    brokers: Vec<(u64, u64)>,
}

/// Longer than any live process goes without a beat, but for one that the machine starves.
pub const BEAT: Duration = Duration::from_nanos(3 * HEARTBEAT_EVERY_NS);

impl Pulse {
    /// The heartbeats now.
    pub fn take(pool: &Pool) -> Self {
        let beat = |broker| {
            let line = pool.broker(broker);
            (line.incarnation, line.heartbeat_ns)
        };
        Self {
            epoch: pool.highest_epoch(),
            leaders: (0..LEADERS_MAX).map(|slot| pool.heartbeat_of(slot)).collect(),
            brokers: BrokerId::all().map(beat).collect(),
        }
    }

    /// Whether a process may be alive whose last beat this is: it came within the lease that
    /// makes it dead for others. Nobody's beats are all older, and none is needed to know it.
    pub fn is_recent(&self, pool: &Pool, now_ns: u64) -> bool {
        let recent = |at_ns: u64| at_ns != 0 && now_ns.saturating_sub(at_ns) < HEARTBEAT_LEASE_NS;
        let serving = |broker: BrokerId| pool.broker(broker).state != BrokerState::Absent.raw();
        self.leaders.iter().any(|at_ns| recent(*at_ns))
            || BrokerId::all()
                .zip(&self.brokers)
                .any(|(broker, (_, at_ns))| serving(broker) && recent(*at_ns))
    }
}

/// Wall clock, nanoseconds.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
