//! Reading what memory has no more: a detour over a broker's stream, which reads it from disk.
//!
//! Readers of the pool, and brokers that write into a reader's ring, have only what memory has.
//! Where the topic has copies on disk, what they lack is no gap yet: the subscriber goes on over a
//! stream connection until it has caught up, and then over its own transport again. Its places
//! outlive connections, so the user sees one sequence.
//!
//! So it is with a batch that does not hold: the broker on the way round checks each batch that it
//! has in memory, names its publisher, and reads from disk what does not hold there either. What no
//! disk has is a gap, the same for every reader. So it is where no disk has copies and no broker
//! can be reached over a stream.

use std::time::Instant;

use landfall_layout::frame::{From, GapReason};
use landfall_layout::limits::SEQUENCED_LOG;

use super::{Found, Step, Subscriber, Via};
use crate::connect::Transport;

/// Where a subscriber is with its detours.
#[derive(Debug, Default)]
pub(super) struct Detour {
    /// Whether the topic has copies on disk, as its broker says.
    has_copies: bool,
    /// The connection is, or will be, a detour.
    is_on: bool,
    /// The next connection goes on behind a detour.
    is_back: bool,
    /// Where the log ended when the connection began, until it is known whether all of that was
    /// shown. None behind a detour to that end: what that had not, nobody has, and another one
    /// would not help.
    end: Option<u64>,
    /// Where the log ended when the last detour began.
    searched: u64,
    /// A batch did not hold: the broker is asked to check each.
    is_checked: bool,
}

impl Detour {
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// There is a connection, to a log that ends at position `end`, of a topic with so many copies.
    pub(super) fn connected(&mut self, end: u64, copies: u8) {
        self.has_copies = copies > 1;
        if self.is_on {
            self.searched = end;
        }
        // Memory may have moved on again while the detour caught up with where it was.
        let is_searched = std::mem::take(&mut self.is_back) && end <= self.searched;
        self.end = (!is_searched).then_some(end);
    }

    /// There was none to be had: much may have happened when there is. Whether another way is open
    /// now: where no disk has copies, a broker would only say of a batch that does not hold what is
    /// known already, and a reader of memory that cannot reach one must not wait for that.
    pub(super) fn not_connected(&mut self) -> bool {
        self.is_back = false;
        let is_given_up = self.is_on && self.is_checked && !self.has_copies;
        self.is_on &= !is_given_up;
        is_given_up
    }

    /// Whether the connection may lack something that it does not know of.
    pub(super) fn may_lack(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the broker is to check each batch before it sends it.
    pub(super) fn is_checked(&self) -> bool {
        self.is_checked
    }
}

impl Subscriber {
    /// The transport of the next connection.
    pub(super) fn way(&self) -> Transport {
        if self.detour.is_on { Transport::Tcp } else { self.setup.transport }
    }

    /// Whether what was found is to be looked for on disk first.
    fn may_detour(&self) -> bool {
        let is_elsewhere = self.detour.is_on || matches!(self.via, Via::Tcp(_) | Via::Down);
        self.detour.has_copies && !is_elsewhere
    }

    #[cold]
    fn leave(&mut self) {
        self.detour.is_on = true;
        self.via = Via::Down;
        self.retry_at = Instant::now();
    }

    /// A gap that memory has: the copies on disk may not have it.
    #[cold]
    pub(super) fn found_gap(&mut self, gap: Step<Found>) -> Step<Found> {
        let Step::Gap { log, reason, missed, resume } = gap else {
            return gap;
        };
        if !may_be_on_disk(reason) || !self.may_detour() {
            return gap;
        }
        self.places.resumed(log, resume - missed);
        self.leave();
        Step::Nothing
    }

    /// A batch does not hold: the copies on disk may have it whole. Whether it is looked for there.
    #[cold]
    pub(super) fn found_spoilt(&mut self, log: u8, index: u64, position: u64) -> bool {
        if self.detour.is_checked {
            // Where that was not over a detour, the next one may be.
            self.detour.is_checked = self.detour.is_on;
            return false;
        }
        self.places.go_back(log, index, position);
        self.detour.is_checked = true;
        self.leave();
        true
    }

    /// Everything that there was has been shown, as the connection sees it. Whether that is so.
    #[cold]
    pub(super) fn found_end(&mut self) -> bool {
        if self.detour.is_on {
            (self.detour.is_on, self.detour.is_checked) = (false, false);
            self.detour.is_back = true;
            self.via = Via::Down;
            self.retry_at = Instant::now();
            return true;
        }
        // Memory may have nothing at all, and then no batch shows that some are missing: at the
        // start, and when a pool came back empty under a subscriber.
        let end = self.detour.end.take();
        let position = self.places.get(SEQUENCED_LOG as u8).and_then(|place| place.position);
        let lacks = position.zip(end).is_some_and(|(position, end)| position < end);
        if lacks && self.order.is_sequenced() && self.may_detour() {
            self.leave();
            return false;
        }
        true
    }

    /// The connection was lost; nothing new where it was a detour. What one of several logs has
    /// meanwhile, memory may give up, and nothing there shows it: so it is looked for at once.
    pub(super) fn lost(&mut self) {
        if !self.order.is_sequenced() && self.may_detour() {
            self.leave();
        }
    }

    /// A subscription has begun. Logs that each have positions of their own cannot tell what is
    /// missing in front of their first batch: so it is looked for at once.
    pub(super) fn begun(&mut self) {
        let wants_old = !matches!(self.setup.from, From::Latest);
        if self.may_detour() && wants_old && !self.order.is_sequenced() {
            self.leave();
        }
    }
}

/// Whether copies on disk may have what memory calls missing for this reason. Behind a lost pool
/// memory has nothing before the positions that the log passed over: who looks only there calls
/// that lost.
fn may_be_on_disk(reason: GapReason) -> bool {
    match reason {
        GapReason::Retention | GapReason::Lost => true,
        GapReason::Unwritten | GapReason::Skipped | GapReason::Corrupt => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_memory_calls_lost_is_looked_for_on_disk() {
        assert!(may_be_on_disk(GapReason::Lost));
        assert!(may_be_on_disk(GapReason::Retention));
        assert!(!may_be_on_disk(GapReason::Skipped));
    }

    #[test]
    fn behind_a_detour_nothing_is_looked_for_again_until_a_connection_is_lost() {
        let mut detour = Detour::default();
        detour.connected(5, 2);
        assert!(detour.may_lack(), "each connection may begin to a pool that lacks something");
        detour.is_on = true;
        detour.connected(5, 2);
        (detour.is_on, detour.is_back) = (false, true);
        detour.connected(5, 2);
        assert!(!detour.may_lack(), "a detour that brought nothing would be taken for ever");
        detour.connected(5, 2);
        assert!(detour.may_lack());
        detour.is_back = true;
        detour.not_connected();
        detour.connected(5, 2);
        assert!(detour.may_lack(), "the pool may have been lost meanwhile");
    }

    #[test]
    fn behind_a_detour_what_came_meanwhile_may_have_left_memory_already() {
        let mut detour = Detour { is_on: true, ..Detour::default() };
        detour.connected(50, 2);
        (detour.is_on, detour.is_back) = (false, true);
        detour.connected(80, 2);
        assert!(detour.may_lack());
    }
}
