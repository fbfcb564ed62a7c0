//! Sessions whose publisher went without a word.
//!
//! A publisher that lost its connection comes back within the session lease and joins its epoch.
//! One that does not is dead, and its session is closed, or the session table would fill with the
//! dead.

use std::collections::VecDeque;

use landfall_layout::command::Request;
use landfall_layout::limits::SESSION_LEASE_NS;
use landfall_pool::clock::boot_ns;

use crate::broker::Broker;
use crate::conn::{Kind, Publisher};
use crate::conns::Conns;

/// Sessions with no goodbye, in the order in which their leases end.
#[derive(Default)]
pub struct Lost(VecDeque<Waiting>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiting {
    until_ns: u64,
    index: u32,
    epoch: u32,
}

impl Lost {
    /// Notes a publisher whose connection ended before its goodbye.
    pub fn note(&mut self, publisher: &Publisher) {
        let (index, epoch) = (publisher.session.index, publisher.session.epoch);
        self.0.push_back(Waiting { until_ns: boot_ns() + SESSION_LEASE_NS, index, epoch });
    }

    fn overdue(&mut self, now_ns: u64) -> Option<(u32, u32)> {
        let waiting = *self.0.front().filter(|waiting| waiting.until_ns < now_ns)?;
        self.0.pop_front();
        Some((waiting.index, waiting.epoch))
    }
}

/// Whether a publisher other than the one in `slot` is connected under this session epoch.
pub fn is_shared(conns: &mut Conns, slot: Option<usize>, index: u32, epoch: u32) -> bool {
    conns.iter_mut().any(|other| {
        Some(other.token.slot()) != slot
            && matches!(&other.kind, Kind::Publisher(publisher)
                if publisher.session.index == index && publisher.session.epoch == epoch)
    })
}

impl Broker {
    /// Closes the sessions whose lease is over and whose publisher has not come back here.
    pub(crate) fn close_lost(&mut self, now_ns: u64) {
        while let Some((index, epoch)) = self.lost.overdue(now_ns) {
            if !is_shared(&mut self.conns, None, index, epoch) {
                self.link.say(&self.env, Request::CloseSession { index, epoch });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_session_is_due_only_after_its_lease_and_only_once() {
        let mut lost = Lost::default();
        lost.0.push_back(Waiting { until_ns: 100, index: 1, epoch: 7 });
        lost.0.push_back(Waiting { until_ns: 200, index: 2, epoch: 8 });
        assert_eq!(lost.overdue(100), None);
        assert_eq!(lost.overdue(101), Some((1, 7)));
        assert_eq!(lost.overdue(101), None);
        assert_eq!(lost.overdue(500), Some((2, 8)));
        assert_eq!(lost.overdue(500), None);
    }
}
