//! Reading what memory has no more: a detour over a broker's stream, which reads it from disk.
//!
//! Readers of the pool, and brokers that write into a reader's ring, have only what memory has.
//! Where the topic has copies on disk, what they lack is no gap yet: the subscriber goes on over a
//! stream connection until it has caught up, and then over its own transport again. Its places
//! outlive connections, so the user sees one sequence.

use std::time::Instant;

use landfall_layout::frame::{From, GapReason};
use landfall_layout::limits::SEQUENCED_LOG;

use super::{Found, Step, Subscriber, Via};
use crate::connect::Transport;

/// Where a subscriber is with its detours.
#[derive(Debug, Default)]
pub(super) struct Detour {
    /// Whether the topic has copies on disk, once control was asked.
    has_copies: Option<bool>,
    /// The connection is, or will be, a detour.
    is_on: bool,
}

impl Detour {
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }
}

impl Subscriber {
    /// The transport of the next connection.
    pub(super) fn way(&self) -> Transport {
        if self.detour.is_on { Transport::Tcp } else { self.setup.transport }
    }

    /// Whether what was found is to be looked for on disk first.
    fn may_detour(&mut self) -> bool {
        if self.detour.is_on || matches!(self.via, Via::Tcp(_) | Via::Down) {
            return false;
        }
        if let Some(has_copies) = self.detour.has_copies {
            return has_copies;
        }
        // While control does not answer, nothing is known, and the next gap asks again.
        let Ok(topic) = self.setup.client.topic(&self.setup.topic) else { return false };
        *self.detour.has_copies.insert(topic.replicas > 1)
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
        let Step::Gap { log, reason: GapReason::Retention, missed, resume } = gap else {
            return gap;
        };
        if !self.may_detour() {
            return gap;
        }
        self.places.resumed(log, resume - missed);
        self.leave();
        Step::Nothing
    }

    /// Everything that there was has been shown, as the connection sees it. Whether that is so.
    #[cold]
    pub(super) fn found_end(&mut self) -> bool {
        if self.detour.is_on {
            self.detour.is_on = false;
            self.via = Via::Down;
            self.retry_at = Instant::now();
            return true;
        }
        // Memory may have nothing at all, and then no batch shows that some are missing.
        let position = self.places.get(SEQUENCED_LOG as u8).and_then(|place| place.position);
        let lacks = self.order.is_sequenced() && position.is_some_and(|at| at < self.end);
        if lacks && self.may_detour() {
            self.leave();
            return false;
        }
        true
    }

    /// A subscription has begun. Logs that each have positions of their own cannot tell what is
    /// missing in front of their first batch: so it is looked for at once.
    pub(super) fn begun(&mut self) {
        let wants_old = !matches!(self.setup.from, From::Latest);
        if wants_old && !self.order.is_sequenced() && self.may_detour() {
            self.leave();
        }
    }
}
