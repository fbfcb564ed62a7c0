//! Publishers whose connections ended without goodbye.
//!
//! A publisher that lost its connection comes back within the session lease and joins its epoch.
//! One that does not is dead, and its session is closed, or the session table would fill with the
//! dead. So it is with one that was gone before it was told that its session is open.

use std::collections::VecDeque;

use landfall_layout::command::Request;
use landfall_pool::attention::Attention;
use landfall_pool::clock::boot_ns;

use crate::broker::Broker;
use crate::conn::{Kind, Publisher};
use crate::conns::Conns;
use crate::env::Env;
use crate::hello::Stage;

/// Sessions whose lease ended that are dealt with in one tick: each looks at every connection.
const CLOSED_PER_TICK: usize = 256;

/// Sessions with no goodbye, in the order in which their leases end.
pub struct Lost {
    waiting: VecDeque<Waiting>,
    lease_ns: u64,
    /// Leases go by what this process has listened: it takes nobody in while it is stopped.
    attention: Attention,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiting {
    until_ns: u64,
    index: u32,
    epoch: u32,
}

impl Lost {
    /// Nobody yet; each will have a lease of that length.
    pub fn new(lease_ns: u64) -> Self {
        Self { waiting: VecDeque::new(), lease_ns, attention: Attention::default() }
    }

    /// Notes a session in which there may be nobody any more.
    pub fn note(&mut self, index: u32, epoch: u32) {
        self.note_at(boot_ns(), index, epoch);
    }

    fn note_at(&mut self, now_ns: u64, index: u32, epoch: u32) {
        let until_ns = self.attention.at(now_ns).saturating_add(self.lease_ns);
        self.waiting.push_back(Waiting { until_ns, index, epoch });
    }

    /// Takes a look, at a boot time.
    fn look(&mut self, now_ns: u64) -> u64 {
        self.attention.look(now_ns)
    }

    fn overdue(&mut self, heard_ns: u64) -> Option<(u32, u32)> {
        let waiting = *self.waiting.front().filter(|waiting| waiting.until_ns < heard_ns)?;
        self.waiting.pop_front();
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

/// Whether somebody has asked for this session and waits for the answer. Control may have taken
/// it in already: a goodbye that is said now would be taken for its own.
fn is_asked_for(env: &Env, conns: &mut Conns, index: u32) -> bool {
    let Some(line) = env.pool.session(index) else { return false };
    conns.iter_mut().any(|conn| {
        matches!(&conn.kind, Kind::Greeting(greeting)
            if matches!(greeting.stage, Stage::Session { hello, topic, .. }
                if line.is_of(topic, hello.client)))
    })
}

impl Broker {
    /// Says that nobody here is in a session, but for the connection in `slot`: it ends. Where
    /// somebody is just coming, whether that is so is asked again a lease later.
    pub(crate) fn leave_session(&mut self, slot: Option<usize>, index: u32, epoch: u32) {
        let Self { env, link, conns, lost, .. } = self;
        if is_shared(conns, slot, index, epoch) {
            return;
        }
        match is_asked_for(env, conns, index) {
            true => lost.note(index, epoch),
            false => link.say(env, Request::CloseSession { index, epoch }),
        }
    }

    /// A publisher's connection ends: one whose session's end was not said has a lease.
    pub(crate) fn lose(&mut self, publisher: &Publisher) {
        if !publisher.is_over {
            self.lost.note(publisher.session.index, publisher.session.epoch);
        }
    }

    /// Closes the sessions whose lease is over and whose publisher has not come back here.
    pub(crate) fn close_lost(&mut self, now_ns: u64) {
        let heard_ns = self.lost.look(now_ns);
        for _ in 0..CLOSED_PER_TICK {
            let Some((index, epoch)) = self.lost.overdue(heard_ns) else { return };
            self.leave_session(None, index, epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use landfall_layout::limits::AWAY_NS;

    use super::*;

    #[test]
    fn a_lost_session_is_due_only_after_its_lease_and_only_once() {
        let mut lost = Lost::new(100);
        let heard = lost.look(5_000);
        lost.note_at(5_000, 1, 7);
        lost.note_at(5_100, 2, 8);
        assert_eq!(lost.overdue(heard + 100), None);
        assert_eq!(lost.overdue(heard + 101), Some((1, 7)));
        assert_eq!(lost.overdue(heard + 101), None);
        assert_eq!(lost.overdue(heard + 500), Some((2, 8)));
        assert_eq!(lost.overdue(heard + 500), None);
    }

    #[test]
    fn the_time_that_the_broker_was_stopped_is_no_part_of_a_lease() {
        let mut lost = Lost::new(10 * AWAY_NS);
        lost.look(AWAY_NS);
        lost.note_at(AWAY_NS, 1, 7);
        let heard = lost.look(1_000 * AWAY_NS);
        assert_eq!(lost.overdue(heard), None, "nobody could come back while it was stopped");
        let later = (1_001..1_011).map(|at| lost.look(at * AWAY_NS)).last();
        assert_eq!(later.and_then(|heard| lost.overdue(heard)), Some((1, 7)));
    }
}
