//! What the broker knows of a topic: where its batches go and which of them have no receipt yet.

use std::collections::VecDeque;
use std::fmt::Display;

use landfall_layout::command::Request;
use landfall_layout::limits::{HEARTBEAT_EVERY_NS, SEQUENCED_LOG};
use landfall_layout::order::FrontierLine;
use landfall_layout::segment::SegmentKind;
use landfall_layout::topic::{Durability, Order, TopicEntry};
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::Memory;
use landfall_pool::log::{Found, LogReader, LogSegment};
use landfall_pool::slot_ring::SlotWriter;

use crate::conns::Token;
use crate::control_link::ControlLink;
use crate::env::Env;
use crate::held::Waited;
use crate::losses::Losses;
use crate::replica::HANGS_NS;
use crate::segments::{Granted, Stock};

/// Batches of one broker's own log that may wait for the end of the burst.
const OWN_IN_FLIGHT: usize = 4096;

/// A topic that somebody published to through this broker.
pub struct Topic {
    pub id: TopicId,
    /// When it was made: what tells it from others of its name.
    pub created_ns: u64,
    me: u8,
    pub order: Order,
    pub check_ingest: bool,
    pub session_lease_ns: u64,
    pub ring_slots: u32,
    pub stock: Stock,
    pub landing: Landing,
    /// Frontier line of log `me`: entries or slots landed. Moved in the pool at a burst's end.
    pub frontier: FrontierLine,
    pub dirty: bool,
    pub in_flight: InFlight,
    /// Batches that are ordered, or landed in an own log, and wait for their replicas.
    pub awaiting: VecDeque<Awaiting>,
    /// Duplicates that wait for replicas, and in order `stream` what stands for all that came
    /// before a session that does.
    pub confirming: Vec<Confirming>,
    /// Copies on disk that a durable receipt waits for.
    pub disk_replicas: usize,
    /// What the oldest of those waits for.
    pub waited: Waited,
    pub durability: Durability,
    /// What those copies have lost.
    pub losses: Losses,
    pub follower: Follower,
    /// Publisher connections.
    pub publishers: u32,
    /// It was noted that they wait for room in a full pool.
    pub is_full_noted: bool,
    /// When the last of them left.
    /// Where the next batch was to be at the last tick, and ticks since it was another place.
    quiet: (u64, u32),
}

/// Where landed batches are shown.
pub enum Landing {
    /// The ring is not there yet.
    Closed,
    /// The ring of (topic, this broker): sequenced topics.
    Ring(SlotWriter),
    /// This broker's own log: orders `none` and `broker`.
    Own(OwnLog),
}

/// Segments of the broker's own log.
#[derive(Default)]
pub struct OwnLog {
    segments: VecDeque<(LogSegment, Granted)>,
    sealed: Vec<Granted>,
}

/// Batches without a receipt, in the order of their ring (or log) indices.
pub struct InFlight {
    base: u64,
    batches: VecDeque<Waiting>,
    bound: usize,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub owner: Token,
    pub batch_seq: u64,
    pub landed_ns: u64,
    /// Own logs: position of the first message.
    pub position: u64,
    pub session: u32,
    pub session_epoch: u32,
    pub count: u16,
    pub reported: bool,
}

/// A batch that has its place in a log and waits for its replicas, in the order of its entry.
#[derive(Clone, Copy, Debug)]
pub struct Awaiting {
    pub batch: Waiting,
    /// Index of its entry.
    pub index: u64,
    /// Position of its first message.
    pub position: u64,
}

/// A batch without an entry of its own, which waits until everything is in the replicas that can
/// be meant by it: whichever broker that came through.
#[derive(Clone, Copy, Debug)]
pub struct Confirming {
    pub batch: Waiting,
    /// Index of the last entry that can be meant.
    pub index: u64,
}

/// Reads the sequenced log for receipts.
pub struct Follower {
    pub reader: LogReader,
    pub next: u64,
    /// Ring index below which batches may have entries that retention took before they were read.
    pub lapped: u64,
}

impl InFlight {
    fn new(bound: usize) -> Self {
        Self { base: 0, batches: VecDeque::with_capacity(bound), bound }
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.batches.len() >= self.bound
    }

    /// Adds the batch at `index`, which follows the one before.
    pub fn push(&mut self, index: u64, waiting: Waiting) {
        if self.batches.is_empty() {
            self.base = index;
        }
        debug_assert_eq!(self.base + self.batches.len() as u64, index, "ring indices have no hole");
        self.batches.push_back(waiting);
    }

    /// The batch whose index ends in these 32 bits, if it waits.
    pub fn by_low(&mut self, low: u32) -> Option<&mut Waiting> {
        let distance = low.wrapping_sub(self.base as u32);
        self.batches.get_mut(distance as usize)
    }

    /// Index behind the newest batch.
    pub fn end(&self) -> u64 {
        self.base + self.batches.len() as u64
    }

    /// The oldest batch and its index.
    pub fn front(&self) -> Option<(u64, &Waiting)> {
        self.batches.front().map(|waiting| (self.base, waiting))
    }

    pub fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.batches.pop_front()?;
        self.base += 1;
        Some(waiting)
    }
}

impl Topic {
    /// Notes that publishers wait in a full pool: once, until there is room.
    pub fn note_full(&mut self, env: &Env, full: &dyn Display) {
        if std::mem::replace(&mut self.is_full_noted, true) {
            return;
        }
        let Some(entry) = env.pool.topic(self.id) else { return };
        env.client_error(&format!(
            "topic {}: publishers wait for room, for more than {} s: {full}; delete a topic, or \
             make the pool larger",
            entry.name(),
            HANGS_NS / 1_000_000_000
        ));
    }
}

impl OwnLog {
    /// Takes a grant; false when it is already here or unknown to the pool.
    pub fn grant(&mut self, env: &Env, granted: Granted, base: u64) -> bool {
        if self.segments.iter().any(|(_, have)| *have == granted) || self.sealed.contains(&granted)
        {
            return false;
        }
        let segment = SegmentId(granted.segment);
        let Some(at) = env.pool.geometry().segment(segment) else { return false };
        let capacity = env.pool.geometry().entries_per_segment();
        let place = self.segments.partition_point(|(have, _)| have.base <= base);
        self.segments.insert(place, (LogSegment { segment, at, base, capacity }, granted));
        true
    }

    /// The segment for entry `index`: the last that holds it, since a later one cuts an earlier.
    pub fn segment_for(&mut self, index: u64) -> Option<LogSegment> {
        loop {
            let first = self.segments.front()?.0;
            let second = self.segments.get(1).map(|(segment, _)| *segment);
            if first.holds(index) && second.is_none_or(|second| second.base > index) {
                return Some(first);
            }
            if first.base > index {
                return None;
            }
            let (_, granted) = self.segments.pop_front()?;
            self.sealed.push(granted);
        }
    }

    /// Whether the next segment is to be asked for: half of the last one is full. Most logs never
    /// need a second one.
    fn is_short(&self, index: u64) -> bool {
        let room = |last: &LogSegment| (last.base + last.capacity).saturating_sub(index);
        self.segments.back().is_none_or(|(last, _)| room(last) <= last.capacity / 2)
    }
}

impl Topic {
    pub fn new(env: &Env, entry: &TopicEntry, order: Order) -> Self {
        let id = TopicId(entry.id);
        let mut topic = Self {
            id,
            me: env.me.raw(),
            order,
            check_ingest: entry.checks_ingest(),
            session_lease_ns: entry.session_lease_ns,
            ring_slots: entry.ring_slots,
            stock: Stock::new(env.pool.geometry().segment_bytes() as u32),
            landing: Landing::Closed,
            frontier: FrontierLine::default(),
            dirty: false,
            in_flight: InFlight::new(if order.is_sequenced() {
                entry.ring_slots as usize
            } else {
                OWN_IN_FLIGHT
            }),
            awaiting: VecDeque::new(),
            confirming: Vec::new(),
            created_ns: entry.created_ns,
            disk_replicas: entry.disk_replicas(),
            waited: Waited::default(),
            durability: entry.durability(),
            losses: Losses::begin(env, id),
            follower: Follower { reader: LogReader::new(id, SEQUENCED_LOG), next: 0, lapped: 0 },
            publishers: 0,
            is_full_noted: false,
            quiet: (0, 0),
        };
        if order.is_sequenced() {
            topic.try_ring(env);
        } else {
            topic.begin_frontier(env);
            topic.mend_position(env);
            topic.landing = Landing::Own(OwnLog::default());
        }
        topic
    }

    /// The log that this broker's batches are in.
    pub fn log(&self) -> usize {
        match self.landing {
            Landing::Own(_) => usize::from(self.me),
            Landing::Closed | Landing::Ring(_) => SEQUENCED_LOG,
        }
    }

    /// Opens the ring if control has made it; whether it is open now.
    pub fn try_ring(&mut self, env: &Env) -> bool {
        if !matches!(self.landing, Landing::Closed) {
            return true;
        }
        let Some(ring) = env.pool.slot_ring(self.id, env.me) else { return false };
        let writer = SlotWriter::resume(&env.pool, ring);
        self.begin_frontier(env);
        if self.frontier.entries != writer.next() {
            // Slots that were committed just before an earlier process of this number died.
            self.frontier.entries = writer.next();
            self.dirty = true;
        }
        self.landing = Landing::Ring(writer);
        true
    }

    /// How far the sequencer is through is said by another leader from now on.
    pub fn heed_leader(&mut self, env: &Env) {
        if let Landing::Ring(writer) = &mut self.landing {
            let (consumed_at, leader) = env.pool.told(self.id, env.me);
            writer.heed(consumed_at, leader);
        }
    }

    /// Takes over the frontier line of log `me`, or starts it when the topic is new to the line.
    fn begin_frontier(&mut self, env: &Env) {
        let at = env.pool.geometry().frontier(self.id.slot(), env.me.index());
        // EDGE keyed-line, acquire half: only this broker writes the line, so it reads its own.
        if env.pool.load(at + 32) != u64::from(self.id.0) {
            env.pool.start_frontier(self.id, env.me.index());
        }
        self.frontier = env.pool.frontier(self.id, env.me.index());
    }

    /// Where nothing has landed in this broker's own log, it begins where control says, which it
    /// does with the first segment.
    pub fn begin_where_control_says(&mut self, env: &Env) {
        if self.frontier.entries == 0 {
            self.frontier = env.pool.frontier(self.id, env.me.index());
        }
    }

    /// Finds out anew where the next message of this broker's own log stands, and says so. A
    /// process that was killed while it moved the line has left the position of a burst that does
    /// not count. In a line that counts no entry the pool reads no position.
    fn mend_position(&mut self, env: &Env) {
        let (log, entries, left) = (env.me.index(), self.frontier.entries, self.frontier.position);
        let Some(last) = entries.checked_sub(1) else { return };
        match LogReader::new(self.id, log).entry(&env.pool, last) {
            Found::Entry(entry) => self.frontier.position = entry.end_position(),
            // Retention took all of it, and then the chain says where it goes on.
            Found::Lapped { .. } | Found::Gone => {
                let chain = env.pool.chain(self.id, log);
                if let Some(chain) = chain.filter(|chain| chain.oldest_index == entries) {
                    self.frontier.position = chain.oldest_position;
                }
            }
        }
        if self.frontier.position != left {
            env.pool.advance_frontier(self.id, log, &self.frontier);
        }
    }

    /// Asks control for what will be needed.
    pub fn replenish(&mut self, env: &Env, link: &mut ControlLink) {
        if self.publishers == 0 {
            return;
        }
        let topic = self.id;
        if self.stock.is_short() {
            let is_ahead = self.stock.has_room();
            link.want(env, SegmentKind::Payload, topic, is_ahead);
        }
        match &self.landing {
            Landing::Closed => link.ask(env, Request::OpenRing { topic }),
            Landing::Own(own) if own.is_short(self.frontier.entries) => {
                link.want(env, SegmentKind::OrderLog, topic, false);
            }
            _ => {}
        }
    }

    /// Tells control of segments that are finished.
    pub fn report_sealed(&mut self, env: &Env, link: &mut ControlLink) {
        while let Some((Granted { segment, generation }, landed)) = self.stock.next_sealed() {
            // The sequencer knows itself what lies in a segment, once it is through so many slots.
            let through = if self.order.is_sequenced() { self.next_index() } else { landed };
            link.sealed(env, Request::Sealed { segment, generation, through });
        }
        if let Landing::Own(own) = &mut self.landing {
            while let Some(Granted { segment, generation }) = own.sealed.pop() {
                let through = self.frontier.entries;
                link.sealed(env, Request::Sealed { segment, generation, through });
            }
        }
    }

    /// Ticks in which nothing landed, this one among them.
    pub fn tick_quiet(&mut self) -> u32 {
        let (seen, ticks) = self.quiet;
        let next = self.next_index();
        self.quiet = (next, if next == seen { ticks.saturating_add(1) } else { 0 });
        self.quiet.1
    }

    /// Whether the segment that is being filled closes though it is not full, after so many ticks
    /// without a batch: somebody waits for it, and retention may take what is in it, or all of that
    /// is older than what the topic keeps.
    pub fn closes(&self, env: &Env, quiet: u32, is_short: bool) -> bool {
        let Some(entry) = env.pool.topic(self.id) else { return true };
        let age_ns = u64::from(quiet) * HEARTBEAT_EVERY_NS;
        let is_due = entry.retention_ns != 0 && age_ns >= entry.retention_ns;
        !entry.keeps() && (is_due || is_short && entry.retention_ns == 0)
    }

    /// Whether every batch has its receipt.
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_empty() && self.awaiting.is_empty() && self.confirming.is_empty()
    }

    /// Ring or log index below which everything landed is.
    pub fn next_index(&self) -> u64 {
        match &self.landing {
            Landing::Ring(writer) => writer.next(),
            Landing::Own(_) | Landing::Closed => self.frontier.entries,
        }
    }

    /// Slots in use and slots in all, for the message to people.
    pub fn ring_use(&mut self, env: &Env) -> (u32, u32) {
        let slots = self.ring_slots;
        match &mut self.landing {
            Landing::Ring(writer) => {
                let all = writer.ring().slots;
                ((all - writer.room(&env.pool, all)) as u32, all as u32)
            }
            _ => (0, slots),
        }
    }

    /// At a burst's end: what was landed counts from here on. The line's time does not go back with
    /// the clock: in an own log the next entry's is never before it, in this process's life or the
    /// next one's.
    pub fn publish_frontier(&mut self, env: &Env, now_ns: u64) {
        self.frontier.at_ns = self.frontier.at_ns.max(now_ns);
        env.pool.advance_frontier(self.id, env.me.index(), &self.frontier);
        self.dirty = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::rig::Source;
    use crate::rig::pool;

    fn waiting(batch_seq: u64) -> Waiting {
        Waiting {
            owner: Token(1),
            batch_seq,
            landed_ns: 0,
            position: 0,
            session: 0,
            session_epoch: 1,
            count: 1,
            reported: false,
        }
    }

    #[test]
    fn a_batch_is_found_by_the_low_half_of_its_index_also_where_that_wraps() {
        let mut in_flight = InFlight::new(16);
        let base = u64::from(u32::MAX) - 1;
        for i in 0..4 {
            in_flight.push(base + i, waiting(i));
        }
        for i in 0..4 {
            let low = (base + i) as u32;
            assert_eq!(in_flight.by_low(low).map(|w| w.batch_seq), Some(i));
        }
        assert!(in_flight.by_low(base as u32 - 1).is_none(), "an earlier process's batch");
        assert!(in_flight.by_low((base + 4) as u32).is_none(), "not landed yet");
        in_flight.pop();
        assert_eq!(in_flight.front().map(|(index, _)| index), Some(base + 1));
        assert!(in_flight.by_low(base as u32).is_none(), "reported already");
    }

    #[test]
    fn the_list_is_full_at_its_bound_and_begins_anywhere_again() {
        let mut in_flight = InFlight::new(2);
        in_flight.push(5, waiting(0));
        in_flight.push(6, waiting(1));
        assert!(in_flight.is_full());
        in_flight.pop();
        in_flight.pop();
        assert!(in_flight.is_empty());
        in_flight.push(90, waiting(2));
        assert_eq!(in_flight.front().map(|(index, _)| index), Some(90));
    }

    /// Where a fresh process of the broker lets its log go on, after one that was killed had
    /// moved the line's position for a burst that does not count.
    fn position_after(batches: u64, oldest: u64) -> u64 {
        let mut source = Source::new(pool(), 0);
        for _ in 0..batches {
            let entry = source.place(&[7; 100], true);
            source.append(&entry);
        }
        if oldest > 0 {
            source.pool.raise_oldest(source.topic, 0, oldest, 3 * oldest);
        }
        source.frontier.position += 9;
        source.publish();
        let entry = source.pool.topic(source.topic).expect("it was written");
        let me = landfall_layout::BrokerId::new(0).unwrap();
        let env = Env::new(source.pool, me, 1).unwrap();
        let topic = Topic::new(&env, &entry, Order::None);
        assert_eq!(topic.frontier.entries, batches);
        topic.frontier.position
    }

    #[test]
    fn a_position_that_was_moved_for_what_does_not_count_leaves_no_hole() {
        assert_eq!(position_after(0, 0), 0);
        assert_eq!(position_after(2, 0), 6);
        assert_eq!(position_after(3, 2), 9);
        assert_eq!(position_after(3, 3), 9, "retention took all of it");
    }

    #[test]
    fn the_time_of_an_own_log_does_not_go_back_with_the_clock() {
        let source = Source::new(pool(), 0);
        let entry = source.pool.topic(source.topic).expect("it was written");
        let me = landfall_layout::BrokerId::new(0).unwrap();
        let env = Env::new(source.pool, me, 1).unwrap();
        let mut topic = Topic::new(&env, &entry, Order::None);
        for (now_ns, at_ns) in [(900, 900), (300, 900), (901, 901)] {
            topic.publish_frontier(&env, now_ns);
            assert_eq!(topic.frontier.at_ns, at_ns);
            assert_eq!(env.pool.frontier(topic.id, 0).at_ns, at_ns);
        }
    }

    #[test]
    fn an_own_log_goes_on_in_the_segment_that_cuts_the_one_before() {
        let me = landfall_layout::BrokerId::new(0).unwrap();
        let env = Env::new(pool(), me, 1).unwrap();
        let capacity = env.pool.geometry().entries_per_segment();
        let mut own = OwnLog::default();
        let granted = |segment| Granted { segment, generation: 1 };
        assert!(own.grant(&env, granted(1), capacity));
        assert!(own.grant(&env, granted(0), 0), "grants may come in any order");
        assert!(!own.grant(&env, granted(1), capacity), "and twice");
        assert_eq!(own.segment_for(capacity - 1).map(|s| s.segment.0), Some(0));
        assert_eq!(own.segment_for(capacity).map(|s| s.segment.0), Some(1));
        assert_eq!(own.sealed, [granted(0)]);
        assert!(own.grant(&env, granted(2), capacity + 7), "a new control began its own there");
        assert_eq!(own.segment_for(capacity + 6).map(|s| s.segment.0), Some(1));
        assert_eq!(own.segment_for(capacity + 7).map(|s| s.segment.0), Some(2));
        assert_eq!(own.segment_for(3 * capacity), None);
    }

    #[test]
    fn an_own_log_asks_for_its_next_segment_in_the_middle_of_its_last() {
        let me = landfall_layout::BrokerId::new(0).unwrap();
        let env = Env::new(pool(), me, 1).unwrap();
        let capacity = env.pool.geometry().entries_per_segment();
        let mut own = OwnLog::default();
        assert!(own.is_short(0));
        assert!(own.grant(&env, Granted { segment: 0, generation: 1 }, 0));
        assert!(!own.is_short(capacity / 2 - 1));
        assert!(own.is_short(capacity / 2) && own.is_short(3 * capacity));
        assert!(own.grant(&env, Granted { segment: 1, generation: 1 }, capacity));
        assert!(!own.is_short(capacity));
    }
}
