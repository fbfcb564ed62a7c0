//! Single lines with one writer: heartbeats, frontiers, chains, segment headers, sessions.

use landfall_layout::doubt::DoubtLine;
use landfall_layout::limits::{DOUBT_LINES, LINE_BYTES, SEQUENCED_LOG};
use landfall_layout::order::{ChainLine, FrontierLine};
use landfall_layout::pool::{BrokerAddress, BrokerLine};
use landfall_layout::segment::{SegmentHeader, What};
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::slot::{ConsumedLine, RingLine, RingSlot};
use landfall_layout::{BrokerId, SegmentId, TopicId};

use crate::leader::LeaderPlace;
use crate::memory::Memory;
use crate::pool::Pool;

/// Loads a whole line after an acquire load of its word `key`.
pub fn load_keyed<const N: usize>(memory: &impl Memory, at: u64, key: usize) -> [u64; N] {
    memory.refresh(at, 8 * N as u64);
    // EDGE keyed-line, acquire half. Pairs with `store_keyed`.
    let seen = memory.load(at + 8 * key as u64);
    let mut words = memory.load_words(at);
    words[key] = seen;
    words
}

/// Stores a whole line, its word `key` last.
pub fn store_keyed(memory: &impl Memory, at: u64, words: &[u64], key: usize) {
    for (i, word) in words.iter().enumerate().filter(|(i, _)| *i != key) {
        memory.store(at + 8 * i as u64, *word);
    }
    memory.publish(at, 8 * words.len() as u64);
    // EDGE keyed-line, release half. Pairs with `load_keyed`.
    memory.store_release(at + 8 * key as u64, words[key]);
    memory.publish(at, 8 * words.len() as u64);
}

/// One word on a line of its own, for heartbeats and parked flags.
fn store_word(memory: &impl Memory, at: u64, value: u64) {
    memory.store_release(at, value);
    memory.publish(at, 8);
}

fn load_word(memory: &impl Memory, at: u64) -> u64 {
    memory.refresh(at, 8);
    memory.load(at)
}

/// Word of a frontier line that says whose it is.
const FRONTIER_TOPIC: u64 = 32;
/// Word of a chain line that says whose it is.
const CHAIN_TOPIC: u64 = 24;

/// The frontier line at `at`; zeros when it is about another topic.
pub fn read_frontier(memory: &impl Memory, at: u64, topic: TopicId) -> FrontierLine {
    memory.refresh(at, LINE_BYTES);
    let fresh = FrontierLine { topic: topic.0.into(), ..FrontierLine::default() };
    if memory.load(at + FRONTIER_TOPIC) != u64::from(topic.0) {
        return fresh;
    }
    // EDGE frontier, acquire half. Pairs with `move_frontier`: every entry below it is visible,
    // and every batch those entries name.
    let entries = memory.load(at);
    let mut words = memory.load_words::<8>(at);
    // Looked at last too: the line may have begun for another topic between the words.
    memory.acquire_fence();
    if memory.load_relaxed(at + FRONTIER_TOPIC) != u64::from(topic.0) {
        return fresh;
    }
    words[0] = entries;
    words[4] = topic.0.into();
    FrontierLine::from_words(words)
}

/// Moves the frontier line at `at`, after the entries it covers.
#[inline]
pub fn move_frontier(memory: &impl Memory, at: u64, line: &FrontierLine) {
    if memory.flushes() {
        // The entries were only sent on their way; the frontier may not reach another host first.
        memory.after_write_back();
    }
    memory.store(at + 8, line.position);
    memory.store(at + 16, line.bytes);
    memory.store(at + 24, line.at_ns);
    // EDGE frontier, release half. Pairs with `read_frontier`.
    memory.store_release(at, line.entries);
    memory.publish(at, LINE_BYTES);
}

/// Moves the frontier line of a broker's own log, which nobody takes over but the next process of
/// that broker: it has to find the bytes of what counts also where this one is killed between two
/// words of the line.
#[inline]
pub fn move_own_frontier(memory: &impl Memory, at: u64, line: &FrontierLine) {
    let entries = memory.load_relaxed(at);
    // Where they are equal the line was left half moved, and what is there is right already.
    if memory.load_relaxed(at + FrontierLine::WRITTEN_AT) != entries {
        let bytes = memory.load_relaxed(at + FrontierLine::BYTES_AT);
        memory.store(at + FrontierLine::WRITTEN_BYTES_AT, bytes);
        memory.store_release(at + FrontierLine::WRITTEN_AT, entries);
        memory.release_fence();
    }
    move_frontier(memory, at, line);
}

/// The frontier of a broker's own log with the bytes of the entries that it counts.
pub fn read_own_frontier(memory: &impl Memory, at: u64, topic: TopicId) -> FrontierLine {
    let mut line = read_frontier(memory, at, topic);
    if line.written == line.entries {
        line.bytes = line.written_bytes;
    }
    line
}

/// The oldest readable index in the chain line at `at`; `None` when it is about another topic.
#[inline]
pub fn read_oldest(memory: &impl Memory, at: u64, topic: TopicId) -> Option<u64> {
    memory.refresh(at, LINE_BYTES);
    // EDGE oldest, acquire half. Pairs with `move_oldest`.
    let oldest = memory.load(at);
    (memory.load(at + CHAIN_TOPIC) == u64::from(topic.0)).then_some(oldest)
}

/// Moves the oldest readable index in the chain line at `at`, before anything below it is reused.
pub fn move_oldest(memory: &impl Memory, at: u64, index: u64, position: u64) {
    memory.store(at + 8, position);
    // EDGE oldest, release half. Pairs with `read_oldest`; the fence is the other half of the
    // Dekker pair in `hold`.
    memory.store_release(at, index);
    memory.publish(at, LINE_BYTES);
    // EDGE entry-oldest, release half. Pairs with `LogReader::entry`: whoever copies what is
    // written below the index after this also sees the index.
    memory.full_fence();
}

/// The process that the leader whose word is at `at` counts on, looked up after everything that the
/// caller has read before: its clock too, where it was away.
pub fn read_counted(memory: &impl Memory, at: u64) -> u64 {
    memory.full_fence();
    memory.refresh(at, 8);
    // EDGE counted, acquire half. Pairs with `say_counted`.
    memory.load(at)
}

/// Says on which process the leader counts. The fence lets it be seen before anything that is done
/// because of it.
pub fn say_counted(memory: &impl Memory, at: u64, incarnation: u64) {
    // EDGE counted, release half. Pairs with `read_counted`.
    memory.store_release(at, incarnation);
    memory.publish(at, 8);
    memory.full_fence();
}

impl<M: Memory> Pool<M> {
    /// Wall clock of the leader's last beat, nanoseconds.
    pub fn leader_heartbeat(&self) -> u64 {
        self.heartbeat_of(self.leader_slot())
    }

    /// Wall clock of the last beat of the leader in a slot, nanoseconds.
    pub fn heartbeat_of(&self, slot: usize) -> u64 {
        load_word(self, self.geometry_of(slot).leader_heartbeat())
    }

    /// Moves the leader's heartbeat. Only control.
    pub fn beat_leader(&self, now_ns: u64) {
        self.beat_slot(self.leader_slot(), now_ns);
    }

    /// Moves the heartbeat of the leader in a slot. Only the control that has the slot.
    pub fn beat_slot(&self, slot: usize, now_ns: u64) {
        store_word(self, self.geometry_of(slot).leader_heartbeat(), now_ns);
    }

    /// A broker's status.
    pub fn broker(&self, broker: BrokerId) -> BrokerLine {
        BrokerLine::from_words(load_keyed(self, self.geometry().broker_line(broker), 0))
    }

    /// Where a broker listens.
    pub fn broker_address(&self, broker: BrokerId) -> BrokerAddress {
        BrokerAddress::from_words(load_keyed(self, self.geometry().broker_address(broker), 0))
    }

    /// Writes a broker's addresses and then its status. Only that broker, when it starts.
    pub fn set_broker(&self, broker: BrokerId, line: &BrokerLine, address: &BrokerAddress) {
        let at = self.geometry().broker_address(broker);
        self.store_words(at, &address.to_words());
        self.publish(at, BrokerAddress::BYTES);
        store_keyed(self, self.geometry().broker_line(broker), &line.to_words(), 0);
    }

    /// Moves a broker's heartbeat, epoch and state. Only that broker.
    pub fn beat_broker(&self, broker: BrokerId, now_ns: u64, epoch_seen: u64, state: u64) {
        let at = self.geometry().broker_line(broker);
        self.store(at + 16, epoch_seen);
        self.store(at + 24, state);
        self.store_release(at + 8, now_ns);
        self.publish(at, LINE_BYTES);
    }

    /// Says what a broker's disk does. Only that broker.
    pub fn say_disk(&self, broker: BrokerId, disk: u64) {
        let at = self.geometry().broker_line(broker);
        self.store_release(at + 48, disk);
        self.publish(at, LINE_BYTES);
    }

    /// The process of a broker's number that the leader counts on; 0: none. Whoever finds another
    /// one than itself writes nothing into the pool any more.
    pub fn counted(&self, broker: BrokerId) -> u64 {
        self.follow();
        read_counted(self, self.geometry().counted(broker))
    }

    /// Says on which process of a broker's number this leader counts. Only control.
    pub fn count_on(&self, broker: BrokerId, incarnation: u64) {
        say_counted(self, self.geometry().counted(broker), incarnation);
    }

    /// How far log `log` of `topic` reaches; zeros when the line is about another topic. A broker's
    /// own log that the broker has not begun yet reaches as far as its chain line says that it
    /// begins: one that came back from disk.
    pub fn frontier(&self, topic: TopicId, log: usize) -> FrontierLine {
        self.follow();
        let at = self.geometry().frontier(topic.slot(), log);
        if log == SEQUENCED_LOG {
            return read_frontier(self, at, topic);
        }
        let line = read_own_frontier(self, at, topic);
        if line.entries > 0 {
            return line;
        }
        let Some(chain) = self.chain(topic, log).filter(|chain| chain.oldest_index > 0) else {
            // A broker that was killed while it moved the line the first time has left the position
            // of messages that nobody has.
            return FrontierLine { position: 0, ..line };
        };
        // Once the broker has begun the log, control moves its oldest entry. Whoever has read that
        // finds the broker's line here.
        let begun = read_own_frontier(self, at, topic);
        if begun.entries > 0 {
            return begun;
        }
        let (entries, position) = (chain.oldest_index, chain.oldest_position);
        FrontierLine { entries, position, topic: topic.0.into(), ..FrontierLine::default() }
    }

    /// Starts log `log`'s frontier line for `topic`: at zero, or a broker's own where the leader
    /// says that it begins. Only the log's writer.
    pub fn start_frontier(&self, topic: TopicId, log: usize) {
        let at = self.geometry().frontier(topic.slot(), log);
        let line = match log {
            SEQUENCED_LOG => FrontierLine { topic: topic.0.into(), ..FrontierLine::default() },
            _ => self.frontier(topic, log),
        };
        // A reader of the slot's topic before this one must not take new numbers for its own.
        self.store_release(at + FRONTIER_TOPIC, u64::MAX);
        self.release_fence();
        store_keyed(self, at, &line.to_words(), 4);
    }

    /// Moves a frontier. Only the log's writer, after the entries it covers.
    #[inline]
    pub fn advance_frontier(&self, topic: TopicId, log: usize, line: &FrontierLine) {
        let at = self.geometry().frontier(topic.slot(), log);
        if log == SEQUENCED_LOG {
            move_frontier(self, at, line);
        } else {
            move_own_frontier(self, at, line);
        }
    }

    /// The chain of log `log` of `topic`; `None` when the line is about another topic.
    pub fn chain(&self, topic: TopicId, log: usize) -> Option<ChainLine> {
        let at = self.geometry().chain(topic.slot(), log);
        let line = ChainLine::from_words(load_keyed(self, at, 3));
        (line.topic == u64::from(topic.0)).then_some(line)
    }

    /// Writes a whole chain line. Only control.
    pub fn set_chain(&self, topic: TopicId, log: usize, line: &ChainLine) {
        store_keyed(self, self.geometry().chain(topic.slot(), log), &line.to_words(), 3);
    }

    /// What was lost of a session of a sequenced topic when a pool was.
    pub fn doubts(&self, topic: TopicId, session: u32) -> impl Iterator<Item = DoubtLine> {
        let line = move |number| {
            let at = self.geometry().chain(topic.slot(), number);
            DoubtLine::from_words(load_keyed(self, at, 3))
        };
        (0..DOUBT_LINES).map(line).filter(move |line| line.is_of(topic, session))
    }

    /// Writes one of a sequenced topic's doubt lines. Only control.
    pub fn set_doubt(&self, topic: TopicId, number: usize, line: &DoubtLine) {
        assert!(number < DOUBT_LINES, "the lines behind are a log's");
        store_keyed(self, self.geometry().chain(topic.slot(), number), &line.to_words(), 3);
    }

    /// Moves the oldest readable entry of a log, before anything below it is reused. Only control.
    pub fn raise_oldest(&self, topic: TopicId, log: usize, index: u64, position: u64) {
        move_oldest(self, self.geometry().chain(topic.slot(), log), index, position);
    }

    /// Absolute index of the oldest entry of a log that may be read; 0 for a log that has none.
    pub fn oldest(&self, topic: TopicId, log: usize) -> u64 {
        self.oldest_of(topic, log).unwrap_or_default()
    }

    /// Absolute index of the oldest entry of a log that may be read; `None` when the chain line is
    /// about another topic, so that nothing of this one may be read.
    #[inline]
    pub fn oldest_of(&self, topic: TopicId, log: usize) -> Option<u64> {
        // A leader that was deposed moves its line no more: what the one after it reuses, that
        // one's line tells.
        self.follow();
        read_oldest(self, self.geometry().chain(topic.slot(), log), topic)
    }

    /// Where the ring of (topic, broker) is, if there is one.
    pub fn ring(&self, topic: TopicId, broker: BrokerId) -> Option<RingLine> {
        let at = self.geometry().ring(topic.slot(), broker);
        let line = RingLine::from_words(load_keyed(self, at, 0));
        (line.topic == u64::from(topic.0) && line.slots.is_power_of_two()).then_some(line)
    }

    /// Writes the ring line of (topic in its slot, broker). Only control.
    pub fn set_ring(&self, slot: usize, broker: BrokerId, line: &RingLine) {
        store_keyed(self, self.geometry().ring(slot, broker), &line.to_words(), 0);
    }

    /// Writes a whole consumed line, when a ring begins. Only the sequencer's process.
    pub fn set_consumed(&self, slot: usize, broker: BrokerId, line: &ConsumedLine) {
        store_keyed(self, self.geometry().consumed(slot, broker), &line.to_words(), 0);
    }

    /// The ring of (topic, broker) as a checked view.
    pub fn slot_ring(
        &self,
        topic: TopicId,
        broker: BrokerId,
    ) -> Option<crate::slot_ring::SlotRing> {
        let line = self.ring(topic, broker)?;
        let bytes = line.slots.checked_mul(RingSlot::BYTES as u32)?;
        let offset =
            u32::try_from(line.offset).ok().filter(|at| at.is_multiple_of(bytes.max(1)))?;
        let at = self.at(line.segment, offset, bytes)?;
        let (consumed_at, leader) = self.told(topic, broker);
        Some(crate::slot_ring::SlotRing { at, slots: line.slots.into(), consumed_at, leader })
    }

    /// Where it is said how far the ring of (topic, broker) is consumed, and by whom.
    pub fn told(&self, topic: TopicId, broker: BrokerId) -> (u64, Option<LeaderPlace>) {
        (self.geometry().consumed(topic.slot(), broker) + 8, Some(self.leader_place()))
    }

    /// A segment's header; `None` for a segment the pool does not have.
    pub fn segment_header(&self, segment: SegmentId) -> Option<SegmentHeader> {
        let at = self.geometry().segment_header(segment)?;
        Some(SegmentHeader::from_words(load_keyed(self, at, 0)))
    }

    /// The generation of a segment's present use; 0 for one the pool does not have.
    pub fn segment_generation(&self, segment: u32) -> u64 {
        match self.geometry().segment_header(SegmentId(segment)) {
            Some(at) => load_word(self, at + 8),
            None => 0,
        }
    }

    /// The segment after this one in its log, once there is one.
    #[inline]
    pub fn next_segment(&self, segment: SegmentId) -> Option<SegmentId> {
        let at = self.geometry().segment_header(segment)?;
        SegmentId((load_word(self, at + 24) >> 32) as u32).some()
    }

    /// Index of the first entry of a log's segment; `None` for one the pool does not have.
    #[inline]
    pub fn segment_base(&self, segment: SegmentId) -> Option<u64> {
        Some(load_word(self, self.geometry().segment_header(segment)? + 32))
    }

    /// Gives a segment a use: everything first, what it is for last. Only control.
    ///
    /// Panics on a segment the pool does not have: control made the number up.
    pub fn give_segment(&self, segment: SegmentId, header: &SegmentHeader) {
        let at = self.geometry().segment_header(segment).expect("control's own segment number");
        store_word(self, at, What::FREE.pack());
        store_keyed(self, at, &header.to_words(), 0);
    }

    /// Changes what a segment is in, its use staying the same. Only control.
    pub fn set_segment_what(&self, segment: SegmentId, what: What) {
        let at = self.geometry().segment_header(segment).expect("control's own segment number");
        store_word(self, at, what.pack());
    }

    /// Notes when a segment was sealed because its broker had gone, nanoseconds, or 0. Only
    /// control.
    pub fn set_segment_sealed(&self, segment: SegmentId, what: What, now_ns: u64) {
        let at = self.geometry().segment_header(segment).expect("control's own segment number");
        self.store(at + 48, now_ns);
        store_word(self, at, what.pack());
    }

    /// Notes when a page of a segment could not be read any more, nanoseconds. Only control.
    pub fn set_segment_lost(&self, segment: SegmentId, now_ns: u64) {
        let at = self.geometry().segment_header(segment).expect("control's own segment number");
        store_word(self, at + 56, now_ns);
    }

    /// Links a log's segment to the one after it. Only control, before anyone needs the link.
    pub fn link_segment(&self, segment: SegmentId, next: SegmentId) {
        let at = self.geometry().segment_header(segment).expect("control's own segment number");
        let previous = self.load_relaxed(at + 24) & 0xffff_ffff;
        store_word(self, at + 24, previous | u64::from(next.0) << 32);
    }

    /// Changes the index of a log segment's first entry, before anything is written into it.
    pub fn set_segment_base(&self, segment: SegmentId, base_index: u64) {
        let at = self.geometry().segment_header(segment).expect("control's own segment number");
        store_word(self, at + 32, base_index);
    }

    /// A session's line; `None` for an index the pool does not have.
    pub fn session(&self, index: u32) -> Option<SessionLine> {
        let at = self.geometry().session(index)?;
        Some(SessionLine::from_words(load_keyed(self, at, 0)))
    }

    /// Epoch and state of a session; `None` for an index the pool does not have.
    #[inline]
    pub fn session_standing(&self, index: u32) -> Option<Standing> {
        Some(Standing::unpack(load_word(self, self.geometry().session(index)?)))
    }

    /// Whether batches of that client in that topic, sealed under that epoch, are ordered. The
    /// standing is stored last: who sees the epoch of somebody else's line sees whose it is.
    #[inline]
    pub fn session_stands(&self, index: u32, topic: TopicId, client: u64, epoch: u32) -> bool {
        let Some(at) = self.geometry().session(index) else { return false };
        let standing = load_word(self, at);
        let [theirs, _, of] = self.load_words(at + 8);
        let line = SessionLine { standing, client: theirs, topic: of as u32, ..Default::default() };
        line.stands(topic, client, epoch)
    }

    /// Writes a whole session line. Only the sequencer.
    pub fn set_session(&self, index: u32, line: &SessionLine) {
        let at = self.geometry().session(index).expect("the sequencer's own session index");
        if self.load_relaxed(at + 8) != line.client {
            // Another session's from here on: who dies in between leaves a line that says nothing,
            // and not the new client with the old one's numbers. Its epochs were used.
            let epoch = Standing::unpack(self.load_relaxed(at)).epoch;
            store_word(self, at, Standing { epoch, state: SessionState::Free }.pack());
        }
        store_keyed(self, at, &line.to_words(), 0);
    }

    /// Moves the next sequence of a session. Only the sequencer, after the frontier that covers
    /// the batches below it.
    #[inline]
    pub fn set_session_next(&self, index: u32, next_seq: u64) {
        let at = self.geometry().session(index).expect("the sequencer's own session index");
        store_word(self, at + 16, next_seq);
    }

    /// The same of order `stream`, with what is known below. Who dies in between leaves less than
    /// is in the log, which says the rest.
    #[inline]
    pub fn set_session_window(&self, index: u32, next_seq: u64, floor: u64, known_from: u64) {
        let at = self.geometry().session(index).expect("the sequencer's own session index");
        self.store(at + 48, floor);
        self.store(at + 56, known_from);
        store_word(self, at + 16, next_seq);
    }
}
