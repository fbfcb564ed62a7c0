//! Whether somebody is at work on a pool: what moves by itself while a process lives.

use std::time::Duration;

use landfall_layout::BrokerId;
use landfall_layout::limits::{HEARTBEAT_EVERY_NS, HEARTBEAT_LEASE_NS, LEADERS_MAX};
use landfall_layout::pool::BrokerState;
use landfall_pool::{Pool, host};

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
    /// makes it dead for others, by this host's boot time, or is of another host, whose time nobody
    /// here knows. Nobody's beats are all older, and none is needed to know it.
    pub fn is_recent(&self, pool: &Pool, now_ns: u64) -> bool {
        let recent = |at_ns: u64, host: u64| {
            let age_ns = now_ns.checked_sub(at_ns);
            at_ns != 0
                && (host != host::id() || age_ns.is_some_and(|age_ns| age_ns < HEARTBEAT_LEASE_NS))
        };
        let serving = |broker: BrokerId| {
            let line = pool.broker(broker);
            (line.state != BrokerState::Absent.raw()).then_some(line.host)
        };
        let leaders = (0..LEADERS_MAX).map(|slot| pool.leader_line(slot).host);
        let mut leaders = leaders.zip(&self.leaders);
        let mut brokers = BrokerId::all().zip(&self.brokers);
        leaders.any(|(host, at_ns)| recent(*at_ns, host))
            || brokers.any(|(broker, (_, at_ns))| {
                serving(broker).is_some_and(|host| recent(*at_ns, host))
            })
    }
}
