//! Order `token`: positions are reserved first, and each batch is sent to the positions it has.
//!
//! A batch is sealed, asks for as many positions as it has messages, and waits in the session for
//! them; batches are sent in the order in which they were sealed, whatever connection they take.
//! Requests go through the first connection and are answered in order.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use landfall_layout::limits::RESERVATIONS_MAX;
use landfall_layout::topic::Order;

use super::Publisher;
use super::drive::Trouble;
use super::receipts::LANES;
use super::session::Bytes;
use crate::error::Error;
use landfall_pool::clock::wall_ns;

/// Requests under way at a time; half of what a broker allows.
const ASKED_MAX: usize = RESERVATIONS_MAX as usize / 2;
/// Batches that are sealed and wait for their turn: beyond that, an urgent one can still overtake.
const UNSENT_MAX: u64 = 2 * ASKED_MAX as u64;

/// Positions of a topic of order `token` that are this publisher's: what it publishes next goes
/// there, in order. What it has not published there within the topic's session lease becomes a
/// hole, and its session is fenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReservedPositions {
    /// The first of them.
    pub first: u64,
    /// How many; maybe fewer than were asked for.
    pub count: u32,
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    /// Positions of a sealed batch.
    Batch { seq: u64, count: u32 },
    /// Positions for the user.
    User { count: u32 },
}

/// What is known of positions in the present epoch.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    next_request: u32,
    /// Not answered yet, the oldest first.
    asked: VecDeque<(u32, Asked)>,
    /// No batch from this sequence on has asked.
    ask_from: u64,
    /// Batches that have positions, by their first.
    sequences: HashMap<u64, u64>,
    /// Positions that the user reserved and that nothing fills yet.
    own: VecDeque<Range<u64>>,
    /// What the user wants and did not ask for yet.
    wanted: Option<u32>,
    granted: Option<ReservedPositions>,
    /// Batches below this sequence were sent before.
    sent_below: u64,
}

impl Positions {
    /// The epoch is over, and with it everything that was asked for and granted in it. What the
    /// user still waits for is asked for again.
    fn end_epoch(&mut self) {
        let waiting = self.asked.iter().find_map(|(_, asked)| match asked {
            Asked::User { count } => Some(*count),
            Asked::Batch { .. } => None,
        });
        let granted = self.granted.map(|granted| granted.count);
        self.wanted = self.wanted.or(waiting).or(granted);
        self.next_request = 0;
        self.asked.clear();
        self.ask_from = 0;
        self.sequences.clear();
        self.own.clear();
        self.granted = None;
    }

    /// Messages that the next batch may have, where the user has positions for it.
    pub(crate) fn own_left(&self) -> Option<u32> {
        let own = self.own.front()?;
        Some(u32::try_from(own.end - own.start).unwrap_or(u32::MAX))
    }

    /// The user's next `count` positions, if there are any. A batch never has more messages than
    /// [`own_left`](Self::own_left) said when it was begun.
    pub(crate) fn take_own(&mut self, count: u16) -> Option<u64> {
        let own = self.own.front_mut()?;
        let first = own.start;
        own.start += u64::from(count);
        if own.start > own.end {
            self.own.pop_front();
            return None;
        }
        if own.is_empty() {
            self.own.pop_front();
        }
        Some(first)
    }

    /// The sequence of the batch that has the position.
    pub(crate) fn sequence_of(&self, position: u64) -> Option<u64> {
        self.sequences.get(&position).copied()
    }

    /// The batch at that position has settled.
    pub(crate) fn settled(&mut self, position: u64) {
        self.sequences.remove(&position);
    }

    fn ask(&mut self, what: Asked) -> u32 {
        let request = self.next_request;
        self.next_request = request.wrapping_add(1);
        self.asked.push_back((request, what));
        request
    }

    /// What an answer is to, if it is to the oldest request.
    fn answered(&mut self, request: u32) -> Option<Asked> {
        self.asked.pop_front_if(|(oldest, _)| *oldest == request).map(|(_, asked)| asked)
    }
}

impl Publisher {
    /// Reserves positions of a topic of order `token`, waiting for them. What is published from
    /// now on goes there, in order, until they are used up; a batch ends where they do. Fewer may
    /// be granted than were asked for: at most a quarter of the topic's `ring_slots`.
    ///
    /// Positions that stay unfilled for the topic's session lease become holes, which subscribers
    /// are told of, and the session is fenced: what has no receipt by then is published again, at
    /// positions of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for `count` 0 and for topics of other orders.
    pub fn reserve_positions(&mut self, count: u32) -> Result<ReservedPositions, Error> {
        self.check_failed()?;
        let why = match (self.order, count) {
            (Order::Token, 1..) => None,
            (Order::Token, 0) => Some("0 positions; say 1 or more".to_owned()),
            (order, _) => {
                Some(format!("topic {:?} has order {order}, not token", self.setup.topic))
            }
        };
        if let Some(why) = why {
            return Err(Error::Setting { setting: "positions", why });
        }
        // What was published before stays before.
        self.close_through(LANES - 1);
        let mut is_asked = false;
        let granted = self.wait_until("positions", |publisher| {
            if !is_asked && publisher.lanes.iter().all(|lane| lane.filled.is_empty()) {
                is_asked = true;
                publisher.positions.wanted = Some(count);
            }
            Ok(publisher.positions.granted.take())
        });
        self.positions.wanted = None;
        granted
    }

    /// Positions came.
    pub(super) fn take_positions(
        &mut self,
        link: usize,
        (request, first, count): (u32, u64, u32),
    ) -> Result<(), Trouble> {
        self.moves += 1;
        let asked = self.positions.answered(request);
        let unexpected = |count| {
            let broker = self.links[link].broker;
            let what = format!("granted {count} positions from {first} to request {request}");
            Trouble::from(Error::Unexpected { broker, what })
        };
        match asked {
            Some(Asked::Batch { seq, count: wanted }) if wanted == count => {
                if let Some(batch) = self.session.get_mut(seq) {
                    batch.filled.position = Some(first);
                    self.positions.sequences.insert(first, seq);
                }
            }
            Some(Asked::User { .. }) if count > 0 => {
                self.positions.own.push_back(first..first.saturating_add(count.into()));
                self.positions.granted = Some(ReservedPositions { first, count });
            }
            _ => return Err(unexpected(count)),
        }
        Ok(())
    }

    /// The epoch is over: batches without a receipt will have other positions.
    pub(super) fn forget_positions(&mut self) {
        self.positions.end_epoch();
        self.session.forget_positions();
        let filled = self.lanes.iter_mut().flat_map(|lane| &mut lane.filled);
        filled.for_each(|filled| filled.position = None);
    }

    /// Seals, asks for positions and sends what has some.
    pub(super) fn dispatch_reserved(&mut self) {
        self.seal_reserving();
        self.ask_positions();
        self.send_reserved();
    }

    /// Filled batches get their sequence: high before normal before low.
    fn seal_reserving(&mut self) {
        for lane in 0..LANES {
            while self.session.unsent() < UNSENT_MAX
                && let Some(filled) = self.lanes[lane].filled.pop_front()
            {
                self.stats.batches += 1;
                self.stats.messages += u64::from(filled.count);
                self.stats.bytes += filled.batch_bytes();
                if let Some(position) = filled.position {
                    self.positions.sequences.insert(position, self.session.next_seq());
                }
                self.session.push_unsent(filled, wall_ns());
            }
        }
    }

    fn ask_positions(&mut self) {
        while self.positions.asked.len() < ASKED_MAX
            && let Some((seq, count)) = self.session.next_without_position(self.positions.ask_from)
        {
            self.positions.ask_from = seq + 1;
            let count = u32::from(count);
            let request = self.positions.ask(Asked::Batch { seq, count });
            self.links[0].reserve(request, count, true);
        }
        if self.positions.asked.len() < ASKED_MAX
            && let Some(count) = self.positions.wanted.take()
        {
            let request = self.positions.ask(Asked::User { count });
            self.links[0].reserve(request, count, false);
        }
    }

    fn send_reserved(&mut self) {
        while let Some(seq) = self.session.next_resend() {
            let Some(batch) = self.session.get(seq) else { return };
            if batch.filled.position.is_none() {
                return;
            }
            let (bound, bytes) = (batch.filled.link, batch.filled.batch_bytes());
            let link = match batch.filled.bytes {
                Bytes::Extent(_) => Some(bound).filter(|i| self.links[*i].takes()),
                _ => self.pick_link(bytes),
            };
            let Some(link) = link else { return };
            let (identity, mut spare, now) = (self.identity(), Vec::new(), wall_ns());
            let Some(batch) = self.session.get_mut(seq) else { return };
            batch.filled.link = link;
            batch.sealed_ns = now;
            let seal = (identity, seq, now);
            if !self.links[link].ship(&mut batch.filled, seal, &mut self.store, &mut spare) {
                return;
            }
            self.recycle(spare);
            self.session.resent(seq);
            self.stats.resubmitted += u64::from(seq < self.positions.sent_below);
            self.positions.sent_below = self.positions.sent_below.max(seq + 1);
            self.settle_unwatched(link, seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_positions_are_filled_in_order_to_their_end() {
        let mut positions = Positions::default();
        assert_eq!((positions.own_left(), positions.take_own(1)), (None, None));
        positions.own.push_back(10..13);
        positions.own.push_back(20..21);
        assert_eq!((positions.own_left(), positions.take_own(2)), (Some(3), Some(10)));
        assert_eq!((positions.own_left(), positions.take_own(1)), (Some(1), Some(12)));
        assert_eq!((positions.own_left(), positions.take_own(1)), (Some(1), Some(20)));
        assert_eq!(positions.own_left(), None);
        positions.own.push_back(30..31);
        assert_eq!(positions.take_own(2), None, "a batch that does not fit has none of them");
    }

    #[test]
    fn answers_are_to_the_oldest_request_and_end_with_the_epoch() {
        let mut positions = Positions::default();
        let batch = Asked::Batch { seq: 4, count: 2 };
        let user = Asked::User { count: 9 };
        assert_eq!((positions.ask(batch), positions.ask(user)), (0, 1));
        assert_eq!(positions.answered(1), None);
        assert_eq!(positions.answered(0), Some(batch));
        assert_eq!(positions.answered(1), Some(user));
        positions.ask(user);
        positions.end_epoch();
        assert_eq!((positions.answered(2), positions.wanted), (None, Some(9)));
        assert_eq!(positions.ask(user), 0, "a connection numbers them from 0");
    }
}
