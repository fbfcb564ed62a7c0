//! The sequencer: gives every batch of a topic its place in the one order.
//!
//! A pure value, one for each topic of order `total`, `token`, `stream` or `strong`: no clock, no
//! memory, no thread. In go ring slots as they are seen, out come verdicts and order entries. The
//! loop around it reads the slots and carries out what was decided, a burst at a time, in this
//! order:
//!
//! 1. [`TopicSequencer::offer`] the slot at each ring's [`TopicSequencer::scan_index`], writing
//!    the entries it emits; then [`TopicSequencer::tick`];
//! 2. write the entries back, re-read the epoch, move the frontier to
//!    [`TopicSequencer::frontier`];
//! 3. write the lines of the sessions that moved ([`TopicSequencer::drain_touched`]) and of those
//!    that were fenced;
//! 4. move each ring's consumed index to [`TopicSequencer::consumed`].
//!
//! The session lines go before the consumed indices: a broker whose slot was consumed and not
//! ordered reads the session's line to know whether it was a duplicate or fenced.
//!
//! After a crash: [`TopicSequencer::new`] with the log's frontier, [`TopicSequencer::open_ring`]
//! with each ring's consumed index, [`TopicSequencer::restore_session`] with each session line,
//! [`TopicSequencer::replay`] with each entry of the log, and the order goes on as if nothing had
//! happened. What was held is still in the rings. Positions that were reserved in order `token` are
//! not in the pool: there the next sequencer begins with every session fenced.

mod hold;
#[cfg(test)]
mod model;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod pressure;
mod recover;
mod ring;
mod session;
mod standing;
#[cfg(test)]
mod tests;
mod token;
mod window;

use landfall_layout::BrokerId;
use landfall_layout::limits::BROKERS_MAX;
use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::session::{Standing, counted_floor};
use landfall_layout::slot::{RingSlot, SLOT_PADDING};
use landfall_layout::topic::{Order, TopicError, check_ring_slots};

use hold::{Held, Holds};
use ring::RingScan;
use session::Sessions;
use token::Reservations;
use window::Known;

pub use standing::{Cause, Fencing};
pub use token::{Wish, Wished};
pub use window::StreamSet;

/// What became of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It has an entry.
    Ordered,
    /// Its batch is ordered already: dropped.
    Duplicate,
    /// It names no session epoch that is active: dropped.
    Fenced,
    /// Order `token`: it waits for the positions before its own, and keeps its slot meanwhile.
    Held,
    /// The ring is full of held slots, or was never opened: the slot is not taken, and the scan
    /// index stays. A broker that keeps to the consumed index has committed nothing there.
    Busy,
    /// It carries no batch.
    Padding,
}

/// How far a log reaches: where a sequencer starts, and where it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Frontier {
    /// Entries: the absolute index of the next one.
    pub entries: u64,
    /// Position of the next message.
    pub position: u64,
    /// Bytes of all batches.
    pub bytes: u64,
    /// Landing time of the last entry, nanoseconds; no later entry has an earlier one.
    pub landed_ns: u64,
}

impl Frontier {
    /// The frontier that a line and the landing time of the log's last entry say.
    pub fn of(line: &FrontierLine, landed_ns: u64) -> Self {
        Self { entries: line.entries, position: line.position, bytes: line.bytes, landed_ns }
    }

    /// The line that says it, about the topic of that raw id.
    pub fn line(&self, topic: u32, at_ns: u64) -> FrontierLine {
        let Self { entries, position, bytes, .. } = *self;
        let topic = topic.into();
        FrontierLine { entries, position, bytes, at_ns, topic, ..FrontierLine::default() }
    }

    /// Gives an entry the next place.
    #[inline]
    fn place(&mut self, entry: &mut OrderEntry) {
        self.landed_ns = self.landed_ns.max(entry.landed_ns);
        entry.landed_ns = self.landed_ns;
        entry.first_position = self.position;
        self.entries += 1;
        entry.commit = self.entries;
        self.position = entry.end_position();
        self.bytes = self.bytes.saturating_add(entry.bytes.into());
    }
}

/// A session as the sequencer sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionView {
    /// Index of its line.
    pub index: u32,
    /// The publisher.
    pub client: u64,
    /// Epoch and state.
    pub standing: Standing,
    /// Order `strong`: everything below is ordered, and this is not. Order `stream`: above every
    /// sequence that is ordered, so a new publisher of this client starts here; with several
    /// brokers in use a sequence below may still be missing. Orders `total` and `token`: as it was
    /// opened.
    pub next_seq: u64,
    /// Order `stream`: the first sequence that is not in the log. Other orders: `next_seq`.
    pub floor: u64,
    /// Order `stream`: of what is below it is not known whether it is in the log. Else 0.
    pub known_from: u64,
    /// Order `stream`: how many sequences from `floor` on are in the log. Else 0.
    pub had: u16,
}

impl SessionView {
    /// The word `floor` of the session's line.
    #[inline]
    pub fn floor_word(&self) -> u64 {
        counted_floor(self.next_seq, self.floor, self.had.into())
    }
}

/// The rule by which slots are let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    Total,
    Token,
    Stream,
    Strong,
}

/// The sequencer of one topic.
pub struct TopicSequencer {
    rule: Rule,
    lease_ns: u64,
    frontier: Frontier,
    rings: [RingScan; BROKERS_MAX],
    sessions: Sessions,
    holds: Holds,
    reservations: Reservations,
    /// Sessions that were fenced because of what they sent.
    trespassers: Vec<Fencing>,
}

impl TopicSequencer {
    /// A sequencer that goes on at `start`; `None` for an order that has no sequencer.
    ///
    /// A session that leaves a position unfilled for longer than `lease_ns` is fenced by
    /// [`Self::tick`].
    pub fn new(order: Order, lease_ns: u64, start: Frontier) -> Option<Self> {
        let rule = match order {
            Order::Total => Rule::Total,
            Order::Stream => Rule::Stream,
            Order::Strong => Rule::Strong,
            Order::Token => Rule::Token,
            Order::None | Order::Broker => return None,
        };
        Some(Self {
            rule,
            lease_ns,
            frontier: start,
            rings: std::array::from_fn(|_| RingScan::default()),
            sessions: Sessions::default(),
            holds: Holds::new(),
            reservations: Reservations::new(start.position),
            trespassers: Vec::new(),
        })
    }

    /// Begins with a broker's ring, of `slots` slots, at its consumed index. A ring is opened
    /// once: saying it again changes nothing.
    pub fn open_ring(
        &mut self,
        broker: BrokerId,
        slots: u32,
        consumed: u64,
    ) -> Result<(), TopicError> {
        check_ring_slots(slots)?;
        let ring = &mut self.rings[broker.index()];
        if !ring.is_open() {
            *ring = RingScan::new(slots, consumed);
            if self.rule == Rule::Token {
                self.holds.open(broker, slots);
                self.reservations.open(slots);
            }
        }
        Ok(())
    }

    /// Absolute index of the slot to offer next.
    #[inline]
    pub fn scan_index(&self, broker: BrokerId) -> u64 {
        self.rings[broker.index()].scan()
    }

    /// Absolute index of the first slot that is still needed: every slot below is ordered or
    /// dropped.
    #[inline]
    pub fn consumed(&self, broker: BrokerId) -> u64 {
        self.rings[broker.index()].consumed()
    }

    /// How far the log reaches with every entry that was emitted.
    pub fn frontier(&self) -> Frontier {
        self.frontier
    }

    /// Batches in the hold buffer: only order `token` has some.
    pub fn held(&self) -> usize {
        self.holds.len()
    }

    /// One offer emits at most one entry more than this.
    #[inline]
    pub fn ready_most(&self) -> usize {
        self.holds.len() + self.reservations.len()
    }

    /// When [`Self::tick`] may have something to do, if ever. It may turn out to be too early,
    /// never too late.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.reservations.oldest_ns().map(|oldest| oldest.saturating_add(self.lease_ns))
    }

    /// A session, if one was ever opened under that index.
    pub fn session(&self, index: u32) -> Option<SessionView> {
        self.sessions.view(index)
    }

    /// Calls `each` once for every session whose next sequence moved since the last time.
    pub fn drain_touched(&mut self, each: impl FnMut(SessionView)) {
        self.sessions.drain_touched(each);
    }

    /// Calls `each` for every session that was fenced since the last time because of what it sent:
    /// to positions that it had not reserved, a sequence that was forgotten, or one out of turn.
    #[inline]
    pub fn drain_trespassers(&mut self, each: impl FnMut(Fencing)) {
        self.trespassers.drain(..).for_each(each);
    }

    /// Takes the slot at the scan index of the broker's ring, and calls `out` with every entry
    /// that this lets into the log, in log order: the slot's own, and those of the held batches
    /// that waited for it.
    #[inline]
    pub fn offer(
        &mut self,
        broker: BrokerId,
        slot: &RingSlot,
        mut out: impl FnMut(OrderEntry),
    ) -> Verdict {
        let ring = &mut self.rings[broker.index()];
        if !ring.has_next() {
            return Verdict::Busy;
        }
        let index = ring.take();
        let verdict = self.judge(slot);
        match verdict {
            Verdict::Held => return self.hold(broker, slot, index),
            Verdict::Ordered => {
                self.rings[broker.index()].resolve(index);
                let mut entry = entry_of(broker, slot, index);
                self.frontier.place(&mut entry);
                out(entry);
                if self.rule == Rule::Token {
                    self.order_reserved(out);
                }
            }
            _ => self.rings[broker.index()].resolve(index),
        }
        verdict
    }

    /// What is to become of a slot; moves the session on if it is to be ordered.
    #[inline]
    fn judge(&mut self, slot: &RingSlot) -> Verdict {
        if slot.count == 0 || slot.flags & SLOT_PADDING != 0 {
            return Verdict::Padding;
        }
        let Some((session, touched)) = self.sessions.enter(slot.session) else {
            return Verdict::Fenced;
        };
        if !session.takes(slot.client, slot.session_epoch) {
            return Verdict::Fenced;
        }
        let seq = slot.batch_seq;
        // The largest sequence has no next one; it stays its own, and nothing overflows.
        let after = seq.saturating_add(1);
        match self.rule {
            Rule::Total => Verdict::Ordered,
            Rule::Token => self.judge_reserved(slot),
            Rule::Strong if seq == session.next_seq => {
                session.advance(slot.session, after, touched);
                Verdict::Ordered
            }
            Rule::Strong if seq < session.next_seq => Verdict::Duplicate,
            // Brokers let a batch in behind the one before it: what comes out of turn is wrong.
            Rule::Strong => self.trespass(slot.session, Cause::Turn),
            Rule::Stream if seq == session.next_seq && session.behind == 0 => {
                session.advance(slot.session, after, touched);
                Verdict::Ordered
            }
            Rule::Stream => self.judge_stream(slot),
        }
    }

    /// Order `stream`, where something of the session came out of sequence.
    fn judge_stream(&mut self, slot: &RingSlot) -> Verdict {
        let Some((session, window, touched)) = self.sessions.enter_window(slot.session) else {
            return Verdict::Fenced;
        };
        match window.take(session, slot.batch_seq) {
            Known::New => {
                session.touch(slot.session, touched);
                Verdict::Ordered
            }
            Known::InLog => Verdict::Duplicate,
            // To call it either would be a guess. Its broker is told by the session's line.
            Known::Forgotten => self.trespass(slot.session, Cause::Trespass),
        }
    }

    /// Fences a session because of what it sent.
    fn trespass(&mut self, session: u32, cause: Cause) -> Verdict {
        let fencing = self.fence_session(session, cause);
        self.trespassers.extend(fencing);
        Verdict::Fenced
    }

    fn hold(&mut self, broker: BrokerId, slot: &RingSlot, index: u64) -> Verdict {
        let held = Held {
            batch_seq: slot.batch_seq,
            landed_ns: slot.landed_ns,
            index,
            session: slot.session,
            checksum: slot.checksum,
            segment: slot.segment,
            offset: slot.offset,
            bytes: slot.bytes,
            count: slot.count,
            ..Held::default()
        };
        let Some(session) = self.sessions.get_mut(slot.session) else { return Verdict::Fenced };
        self.holds.insert(broker, &mut session.first_held, held);
        Verdict::Held
    }
}

/// The entry of a held batch, but for its place in the log.
#[inline]
fn held_entry(held: &Held, broker: usize, (client, epoch): (u64, u32)) -> OrderEntry {
    OrderEntry {
        client,
        batch_seq: held.batch_seq,
        landed_ns: held.landed_ns,
        session_epoch: epoch,
        ring_index: held.index as u32,
        checksum: held.checksum,
        segment: held.segment,
        offset: held.offset,
        bytes: held.bytes,
        count: held.count,
        broker: broker as u8,
        ..OrderEntry::default()
    }
}

/// The entry of a slot, but for its place in the log.
#[inline]
fn entry_of(broker: BrokerId, slot: &RingSlot, index: u64) -> OrderEntry {
    OrderEntry {
        client: slot.client,
        batch_seq: slot.batch_seq,
        landed_ns: slot.landed_ns,
        session_epoch: slot.session_epoch,
        ring_index: index as u32,
        checksum: slot.checksum,
        segment: slot.segment,
        offset: slot.offset,
        bytes: slot.bytes,
        count: slot.count,
        broker: broker.raw(),
        ..OrderEntry::default()
    }
}
