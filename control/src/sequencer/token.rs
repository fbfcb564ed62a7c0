//! Order `token`: positions that were handed out and are not all in the log.
//!
//! Positions are handed out in order, so those that are outstanding lie one behind the other from
//! the log's end. A batch that comes before its turn is held in its ring slot, as in order
//! `strong`. What keeps that from filling a ring, so that the batch that is waited for finds no
//! slot, is a bound on what may be outstanding: a quarter of a ring. A held slot and everything
//! behind it in its ring were outstanding when it was looked at or are now, so they are half a
//! ring at most.

use std::collections::{HashMap, VecDeque};

use landfall_layout::BrokerId;
use landfall_layout::limits::BATCH_MESSAGES_MAX;
use landfall_layout::order::{ENTRY_HOLE, OrderEntry};
use landfall_layout::slot::RingSlot;

use super::hold::Holds;
use super::{Cause, Fencing, Rule, TopicSequencer, Verdict};

/// A session's wish for positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Index of the session's line.
    pub session: u32,
    /// Its epoch.
    pub epoch: u32,
    /// Broker that asks.
    pub broker: BrokerId,
    /// Its number for the request. For one session they only grow; one that comes again is known
    /// by it.
    pub request: u64,
    /// Positions.
    pub count: u32,
    /// One batch will fill them all.
    pub whole: bool,
}

/// What became of a wish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wished {
    /// These are the session's.
    Granted {
        /// The first.
        first: u64,
        /// How many: where several batches may fill them, maybe fewer than were asked for.
        count: u32,
    },
    /// Too much is outstanding: ask again.
    Later,
    /// It had its answer.
    Again,
    /// The session's epoch is not active.
    Over,
}

/// Positions of one session.
struct Reservation {
    first: u64,
    count: u32,
    /// Slots that it may take.
    cost: u32,
    session: u32,
    epoch: u32,
    client: u64,
    granted_ns: u64,
    /// Positions that no batch has come for.
    missing: u32,
    /// Those that one has come for, a bit each; empty where one batch fills them all.
    filled: Box<[u64]>,
    broker: BrokerId,
    /// Its session's epoch is over: what is not in the log is holes.
    over: bool,
}

impl Reservation {
    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// How many of the `count` positions from `seq` on are filled.
    fn filled_of(&self, seq: u64, count: u32) -> u32 {
        let from = (seq - self.first) as usize;
        let bit = |at: usize| self.filled[at / 64] >> (at % 64) & 1;
        (from..from + count as usize).map(|at| bit(at) as u32).sum()
    }

    fn fill(&mut self, seq: u64, count: u32) {
        let from = (seq - self.first) as usize;
        (from..from + count as usize).for_each(|at| self.filled[at / 64] |= 1 << (at % 64));
        self.missing -= count;
    }
}

/// Where a batch belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fit {
    /// To positions that nothing had come for.
    Fills,
    /// To positions that another has filled, and that are not in the log.
    Copy,
    /// To positions that are in the log.
    Done,
    /// Not to its session's positions.
    Outside,
}

/// Everything outstanding, by position.
pub(super) struct Reservations {
    list: VecDeque<Reservation>,
    /// The first position that was not handed out.
    next: u64,
    cost: u32,
    /// What may be outstanding, in slots; 0 while there is no ring.
    bound: u32,
    /// The last request that was granted, of each (session, broker).
    granted: HashMap<(u32, BrokerId), u64>,
}

impl Reservations {
    pub fn new(next: u64) -> Self {
        Self { list: VecDeque::new(), next, cost: 0, bound: 0, granted: HashMap::new() }
    }

    /// There is a ring of so many slots.
    pub fn open(&mut self, slots: u32) {
        let bound = (slots / 4).max(1);
        self.bound = if self.bound == 0 { bound } else { self.bound.min(bound) };
        self.list.reserve((self.bound as usize).saturating_sub(self.list.len()));
    }

    /// Reservations that are outstanding. Each makes at most one hole.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// When the oldest was granted, if something may still be missing of it.
    pub fn oldest_ns(&self) -> Option<u64> {
        self.list.front().filter(|front| !front.over).map(|front| front.granted_ns)
    }

    /// Whether holes can be written now.
    pub fn is_over(&self) -> bool {
        self.list.front().is_some_and(|front| front.over)
    }

    fn grant(&mut self, wish: &Wish, client: u64, now_ns: u64) -> Wished {
        let known = self.granted.get(&(wish.session, wish.broker));
        if known.is_some_and(|known| wish.request <= *known) {
            return Wished::Again;
        }
        let count = wish.count.clamp(1, BATCH_MESSAGES_MAX);
        let count = if wish.whole { count } else { count.min(self.bound) };
        let cost = if wish.whole { 1 } else { count };
        if self.bound == 0 || self.cost + cost > self.bound {
            return Wished::Later;
        }
        self.granted.insert((wish.session, wish.broker), wish.request);
        let words = if wish.whole { 0 } else { count.div_ceil(64) as usize };
        let first = self.next;
        self.next += u64::from(count);
        self.cost += cost;
        self.list.push_back(Reservation {
            first,
            count,
            cost,
            session: wish.session,
            epoch: wish.epoch,
            client,
            granted_ns: now_ns,
            missing: count,
            filled: vec![0; words].into_boxed_slice(),
            broker: wish.broker,
            over: false,
        });
        Wished::Granted { first, count }
    }

    /// Where a batch belongs; notes that it has come.
    fn fit(&mut self, session: u32, seq: u64, count: u32, in_log: u64) -> Fit {
        let end = seq.saturating_add(count.into());
        if end <= in_log {
            return Fit::Done;
        }
        let at = self.list.partition_point(|reservation| reservation.first <= seq);
        let found = at.checked_sub(1).and_then(|at| self.list.get_mut(at));
        let Some(of) = found.filter(|of| !of.over && of.session == session && end <= of.end())
        else {
            return Fit::Outside;
        };
        let filled = match of.filled.is_empty() {
            true if (seq, count) != (of.first, of.count) => return Fit::Outside,
            true => count - of.missing,
            false => of.filled_of(seq, count),
        };
        match filled {
            0 if of.filled.is_empty() => of.missing = 0,
            0 => of.fill(seq, count),
            _ if filled == count => return Fit::Copy,
            _ => return Fit::Outside,
        }
        Fit::Fills
    }

    /// A session's epoch is over.
    pub fn end(&mut self, session: u32) {
        if self.list.is_empty() && self.granted.is_empty() {
            return;
        }
        self.list.iter_mut().filter(|of| of.session == session).for_each(|of| of.over = true);
        self.granted.retain(|(of, _), _| *of != session);
    }

    /// A session of which something is missing for longer than `lease_ns`.
    pub fn expired(&self, now_ns: u64, lease_ns: u64) -> Option<u32> {
        let late = |of: &&Reservation| now_ns.saturating_sub(of.granted_ns) > lease_ns;
        // Those that were granted earlier lie in front.
        let mut list = self.list.iter().take_while(late);
        list.find(|of| !of.over && of.missing > 0).map(|of| of.session)
    }
}

impl TopicSequencer {
    /// Hands out positions. `now_ns` is the clock that [`Self::tick`] is given.
    pub fn reserve(&mut self, wish: &Wish, now_ns: u64) -> Wished {
        let Some(session) = self.sessions.get(wish.session) else { return Wished::Over };
        if self.rule != Rule::Token || !session.takes(session.client, wish.epoch) {
            return Wished::Over;
        }
        let client = session.client;
        self.reservations.grant(wish, client, now_ns)
    }

    /// Whether [`Self::fill_holes`] has something to do.
    #[inline]
    pub fn has_holes(&self) -> bool {
        self.reservations.is_over()
    }

    /// Calls `out` with the entries of positions that nothing will come for any more, and of what
    /// waited for them, as far as it goes.
    pub fn fill_holes(&mut self, out: impl FnMut(OrderEntry)) {
        self.order_reserved(out);
    }

    pub(super) fn judge_reserved(&mut self, slot: &RingSlot) -> Verdict {
        let in_log = self.frontier.position;
        let (session, seq) = (slot.session, slot.batch_seq);
        match self.reservations.fit(session, seq, slot.count.into(), in_log) {
            Fit::Fills if seq == in_log => Verdict::Ordered,
            Fit::Fills => Verdict::Held,
            // As in order `strong`: it is a duplicate once the other is ordered.
            Fit::Copy if self.holds.has(session, seq) => Verdict::Held,
            Fit::Done => Verdict::Duplicate,
            Fit::Copy | Fit::Outside => self.trespass(session, Cause::Trespass),
        }
    }

    /// Orders what is there of the outstanding positions, as far as nothing is missing.
    pub(super) fn order_reserved(&mut self, mut out: impl FnMut(OrderEntry)) {
        while let Some(front) = self.reservations.list.front() {
            let at = self.frontier.position;
            if at == front.end() {
                self.reservations.cost -= front.cost;
                self.reservations.list.pop_front();
                continue;
            }
            let (session, client, epoch) = (front.session, front.client, front.epoch);
            if front.over {
                let mut hole = OrderEntry {
                    client,
                    session_epoch: epoch,
                    segment: landfall_layout::SegmentId::NONE.0,
                    // At most what one reservation has, which is a batch's.
                    count: (front.end() - at) as u16,
                    broker: front.broker.raw(),
                    flags: ENTRY_HOLE,
                    ..OrderEntry::default()
                };
                self.frontier.place(&mut hole);
                out(hole);
                continue;
            }
            let Some(of) = self.sessions.get_mut(session) else { return };
            let Some(place) = self.holds.take(session, at, &mut of.first_held) else { return };
            let held = *self.holds.get(place);
            let broker = Holds::broker_of(place);
            let mut entry = super::held_entry(&held, broker, (client, epoch));
            self.rings[broker].resolve(held.index);
            self.frontier.place(&mut entry);
            out(entry);
            while self.holds.has_copies()
                && let Some(copy) = self.holds.take(session, at, &mut of.first_held)
            {
                self.rings[Holds::broker_of(copy)].resolve(self.holds.get(copy).index);
            }
        }
    }

    /// Fences every session of which something that it reserved is missing for longer than the
    /// lease. `now_ns` is the clock that [`Self::reserve`] is given.
    pub fn tick(&mut self, now_ns: u64, mut fenced: impl FnMut(Fencing)) {
        while let Some(session) = self.reservations.expired(now_ns, self.lease_ns) {
            if let Some(fencing) = self.fence_session(session, Cause::Late) {
                fenced(fencing);
            }
            // A session that is not active has nothing outstanding; were it otherwise, this ends.
            self.reservations.end(session);
        }
    }
}

const _: () = assert!(BATCH_MESSAGES_MAX == u16::MAX as u32, "a reservation is at most one hole");

#[cfg(test)]
mod tests {
    use landfall_layout::topic::Order;

    use super::super::Frontier;
    use super::*;

    const LEASE_NS: u64 = 100;
    const SLOTS: u32 = 64;

    fn broker(number: usize) -> BrokerId {
        BrokerId::new(number).unwrap()
    }

    /// A sequencer with two rings and sessions 1 to 3 of clients 10 to 30, its log at position 5.
    fn sequencer() -> TopicSequencer {
        let start = Frontier { entries: 2, position: 5, ..Frontier::default() };
        let mut sequencer = TopicSequencer::new(Order::Token, LEASE_NS, start).unwrap();
        for number in 0..2 {
            sequencer.open_ring(broker(number), SLOTS, 0).unwrap();
        }
        (1..4).for_each(|index| sequencer.open_session(index, 10 * u64::from(index), 1, 0));
        sequencer
    }

    fn wish(session: u32, request: u64, count: u32, whole: bool) -> Wish {
        Wish { session, epoch: 1, broker: broker(0), request, count, whole }
    }

    fn slot(session: u32, seq: u64, count: u16) -> RingSlot {
        let client = 10 * u64::from(session);
        let batch_seq = seq;
        RingSlot { client, batch_seq, session, session_epoch: 1, count, ..RingSlot::default() }
    }

    /// Offers a slot; the verdict, and first position and count of each entry, with what it is of.
    type Entries = Vec<(u64, u16, u64, bool)>;

    fn said(entry: &OrderEntry) -> (u64, u16, u64, bool) {
        (entry.first_position, entry.count, entry.client, entry.is_hole())
    }

    fn offer(sequencer: &mut TopicSequencer, at: usize, slot: &RingSlot) -> (Verdict, Entries) {
        let mut out = Vec::new();
        let verdict = sequencer.offer(broker(at), slot, |entry| out.push(said(&entry)));
        (verdict, out)
    }

    fn holes(sequencer: &mut TopicSequencer) -> Entries {
        let mut out = Vec::new();
        sequencer.fill_holes(|entry| out.push(said(&entry)));
        out
    }

    #[test]
    fn batches_wait_for_everything_before_them_whoever_has_it() {
        let mut sequencer = sequencer();
        let granted = sequencer.reserve(&wish(1, 1, 2, true), 0);
        assert_eq!(granted, Wished::Granted { first: 5, count: 2 });
        let granted = sequencer.reserve(&wish(2, 2, 3, false), 0);
        assert_eq!(granted, Wished::Granted { first: 7, count: 3 });
        assert_eq!(offer(&mut sequencer, 0, &slot(2, 9, 1)).0, Verdict::Held);
        assert_eq!(offer(&mut sequencer, 1, &slot(2, 7, 2)).0, Verdict::Held);
        assert_eq!(sequencer.consumed(broker(0)), 0);
        let (verdict, out) = offer(&mut sequencer, 1, &slot(1, 5, 2));
        assert_eq!(verdict, Verdict::Ordered);
        let expected = [(5, 2, 10, false), (7, 2, 20, false), (9, 1, 20, false)];
        assert_eq!(out, expected);
        assert_eq!((sequencer.consumed(broker(0)), sequencer.consumed(broker(1))), (1, 2));
        assert_eq!(offer(&mut sequencer, 0, &slot(2, 7, 2)).0, Verdict::Duplicate);
    }

    #[test]
    fn a_copy_of_what_waits_is_a_duplicate_only_once_it_is_ordered() {
        let mut sequencer = sequencer();
        sequencer.reserve(&wish(1, 1, 1, true), 0);
        sequencer.reserve(&wish(2, 2, 4, true), 0);
        for at in 0..2 {
            assert_eq!(offer(&mut sequencer, at, &slot(2, 6, 4)).0, Verdict::Held);
        }
        assert_eq!(offer(&mut sequencer, 0, &slot(1, 5, 1)).1.len(), 2);
        assert_eq!((sequencer.consumed(broker(0)), sequencer.consumed(broker(1))), (2, 1));
        assert_eq!(sequencer.held(), 0);
    }

    #[test]
    fn who_writes_elsewhere_is_fenced_and_leaves_holes() {
        let elsewhere = [slot(1, 8, 1), slot(1, 5, 2), slot(1, 7, 2), slot(1, u64::MAX, 9)];
        for wrong in elsewhere {
            let mut sequencer = sequencer();
            sequencer.reserve(&wish(1, 1, 3, true), 0);
            sequencer.reserve(&wish(2, 2, 2, false), 0);
            assert_eq!(offer(&mut sequencer, 0, &slot(2, 9, 1)).0, Verdict::Held);
            assert_eq!(offer(&mut sequencer, 0, &wrong), (Verdict::Fenced, vec![]));
            let mut fenced = Vec::new();
            sequencer.drain_trespassers(|fencing| fenced.push(fencing.session.index));
            assert_eq!(fenced, [1]);
            assert!(sequencer.has_holes());
            assert_eq!(holes(&mut sequencer), [(5, 3, 10, true)]);
            assert_eq!(offer(&mut sequencer, 1, &slot(2, 8, 1)).1.len(), 2);
            assert_eq!(offer(&mut sequencer, 1, &slot(1, 5, 3)).0, Verdict::Fenced);
        }
    }

    #[test]
    fn what_overlaps_a_batch_that_waits_fences_its_session() {
        let mut sequencer = sequencer();
        sequencer.reserve(&wish(3, 1, 1, true), 0);
        sequencer.reserve(&wish(1, 2, 9, false), 0);
        assert_eq!(offer(&mut sequencer, 0, &slot(1, 8, 3)).0, Verdict::Held);
        assert_eq!(offer(&mut sequencer, 0, &slot(1, 9, 1)).0, Verdict::Fenced);
        assert_eq!(sequencer.consumed(broker(0)), 2, "what it had waiting is dropped");
        assert_eq!(
            offer(&mut sequencer, 0, &slot(3, 5, 1)).1,
            [(5, 1, 30, false), (6, 9, 10, true)]
        );
    }

    #[test]
    fn a_lease_ends_what_is_not_filled_and_spares_what_waits() {
        let mut sequencer = sequencer();
        sequencer.reserve(&wish(1, 1, 4, false), 10);
        sequencer.reserve(&wish(2, 2, 2, true), 20);
        assert_eq!(offer(&mut sequencer, 0, &slot(2, 9, 2)).0, Verdict::Held);
        assert_eq!(offer(&mut sequencer, 0, &slot(1, 5, 1)).1.len(), 1);
        assert_eq!(sequencer.deadline_ns(), Some(10 + LEASE_NS));
        let mut fenced = Vec::new();
        sequencer.tick(10 + LEASE_NS, |fencing| fenced.push(fencing.session.index));
        assert!(fenced.is_empty());
        sequencer.tick(500, |fencing| fenced.push(fencing.session.index));
        assert_eq!(fenced, [1], "the other's batch is here");
        assert_eq!(holes(&mut sequencer), [(6, 3, 10, true), (9, 2, 20, false)]);
        assert_eq!((sequencer.held(), sequencer.deadline_ns()), (0, None));
    }

    #[test]
    fn what_is_outstanding_is_bounded_and_a_wish_is_granted_once() {
        let mut sequencer = sequencer();
        let bound = SLOTS / 4;
        let granted = sequencer.reserve(&wish(1, 1, 1000, false), 0);
        assert_eq!(granted, Wished::Granted { first: 5, count: bound });
        assert_eq!(sequencer.reserve(&wish(2, 2, 1, true), 0), Wished::Later);
        assert_eq!(sequencer.reserve(&wish(1, 1, 1000, false), 0), Wished::Again);
        sequencer.close_session(1).unwrap();
        assert_eq!(holes(&mut sequencer), [(5, bound as u16, 10, true)]);
        let first = u64::from(5 + bound);
        let most = BATCH_MESSAGES_MAX;
        let granted = sequencer.reserve(&wish(2, 2, most, true), 0);
        assert_eq!(granted, Wished::Granted { first, count: most });
        assert_eq!(sequencer.reserve(&wish(1, 3, 1, true), 0), Wished::Over);
        assert_eq!(sequencer.reserve(&wish(9, 3, 1, true), 0), Wished::Over);
    }
}
