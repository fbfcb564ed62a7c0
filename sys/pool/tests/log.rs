//! Order logs over a real mapping: chains, epochs, retention, and what an old leader left behind.

use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{ChainLine, FrontierLine, OrderEntry};
use landfall_layout::pool::Coherence;
use landfall_layout::segment::{OWNER_CONTROL, SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_pool::log::{Found, LogReader, LogSegment};

mod common;
use common::pool;

const LOG: usize = SEQUENCED_LOG;

fn topic() -> TopicId {
    TopicId::new(3, 1)
}

fn what(topic: TopicId) -> What {
    What {
        kind: SegmentKind::OrderLog,
        state: SegmentState::Open,
        owner: OWNER_CONTROL,
        log: LOG as u8,
        topic,
    }
}

/// Control's and the sequencer's work on one log.
struct Log<'p> {
    pool: &'p Pool,
    tail: Option<LogSegment>,
    head: SegmentId,
    next: u64,
}

impl<'p> Log<'p> {
    fn new(pool: &'p Pool, first: SegmentId, base: u64) -> Self {
        let mut log = Self { pool, tail: None, head: first, next: base };
        log.grow(first, base);
        pool.start_frontier(topic(), LOG);
        log
    }

    /// Hangs a segment behind the last one.
    fn grow(&mut self, segment: SegmentId, base: u64) {
        let header = SegmentHeader {
            what: what(topic()).pack(),
            generation: 1,
            base_index: base,
            ..SegmentHeader::FREE
        };
        self.pool.give_segment(segment, &header);
        if let Some(tail) = self.tail {
            self.pool.link_segment(tail.segment, segment);
        }
        let geometry = self.pool.geometry();
        self.tail = Some(LogSegment {
            segment,
            at: geometry.segment(segment).expect("a segment of the pool"),
            base,
            capacity: geometry.entries_per_segment(),
        });
        self.chain(0, segment);
    }

    fn chain(&self, oldest_index: u64, tail: SegmentId) {
        let line = ChainLine {
            oldest_index,
            head: self.head.0,
            tail: tail.0,
            topic: topic().0.into(),
            ..ChainLine::default()
        };
        self.pool.set_chain(topic(), LOG, &line);
    }

    /// Writes `count` entries of this batch client, and moves the frontier past them.
    fn append(&mut self, count: u64, client: u64) {
        self.write_beyond(count, client);
        self.next += count;
        let line = FrontierLine {
            entries: self.next,
            position: 10 * self.next,
            ..FrontierLine::default()
        };
        self.pool.advance_frontier(topic(), LOG, &line);
    }

    /// Writes entries and dies before the frontier moves.
    fn write_beyond(&self, count: u64, client: u64) {
        let tail = self.tail.expect("a log has a segment");
        for index in self.next..self.next + count {
            let entry = OrderEntry {
                first_position: 10 * index,
                client,
                count: 10,
                ..OrderEntry::default()
            };
            tail.write(self.pool, index, &entry);
        }
    }
}

fn client(found: Found) -> u64 {
    match found {
        Found::Entry(entry) => entry.client,
        other => panic!("no entry but {other:?}"),
    }
}

#[test]
fn entries_are_found_forwards_backwards_and_anywhere() {
    for coherence in [Coherence::Coherent, Coherence::Flush] {
        let pool = pool(coherence);
        let mut log = Log::new(&pool, SegmentId(2), 0);
        log.append(5, 1);
        log.grow(SegmentId(5), 5);
        log.append(7, 2);
        log.grow(SegmentId(1), 12);
        log.append(3, 3);
        assert_eq!(pool.frontier(topic(), LOG).entries, 15);
        let expected = |index| match index {
            0..5 => 1,
            5..12 => 2,
            _ => 3,
        };
        let mut reader = LogReader::new(topic(), LOG);
        let forwards = 0..15;
        let backwards = (0..15).rev();
        let anywhere = (0..60).map(|i| i * 7 % 15);
        for index in forwards.chain(backwards).chain(anywhere) {
            let found = reader.entry(&pool, index);
            assert_eq!(client(found), expected(index), "entry {index}");
            let Found::Entry(entry) = found else { unreachable!("checked above") };
            assert_eq!((entry.first_position, entry.commit), (10 * index, index + 1));
        }
    }
}

#[test]
fn a_full_segment_goes_on_in_the_next() {
    let pool = pool(Coherence::Coherent);
    let mut log = Log::new(&pool, SegmentId(0), 0);
    let capacity = pool.geometry().entries_per_segment();
    log.append(capacity, 1);
    log.grow(SegmentId(1), capacity);
    log.append(1, 2);
    let mut reader = LogReader::new(topic(), LOG);
    assert_eq!(client(reader.entry(&pool, capacity - 1)), 1);
    assert_eq!(client(reader.entry(&pool, capacity)), 2);
    assert_eq!(client(reader.entry(&pool, 0)), 1);
}

#[test]
#[should_panic(expected = "is not in the segment")]
fn a_writer_past_its_segment_is_a_fault_of_ours() {
    let pool = pool(Coherence::Coherent);
    let log = Log::new(&pool, SegmentId(0), 5);
    log.tail.expect("a segment").write(&pool, 4, &OrderEntry::default());
}

#[test]
fn what_an_old_leader_wrote_beyond_its_frontier_is_never_read() {
    let pool = pool(Coherence::Coherent);
    let mut log = Log::new(&pool, SegmentId(0), 0);
    log.append(4, 1);
    let mut reader = LogReader::new(topic(), LOG);
    // The reader is in the old segment and knows of no other.
    assert_eq!(client(reader.entry(&pool, 3)), 1);
    log.write_beyond(3, 666);
    log.grow(SegmentId(1), 4);
    log.append(2, 2);
    assert_eq!(client(reader.entry(&pool, 4)), 2);
    assert_eq!(client(reader.entry(&pool, 5)), 2);
    // The same for one that comes later, and for epochs that wrote nothing at all.
    log.write_beyond(1, 667);
    log.grow(SegmentId(2), 6);
    log.write_beyond(1, 668);
    log.grow(SegmentId(3), 6);
    log.append(1, 4);
    for mut reader in [reader, LogReader::new(topic(), LOG)] {
        let clients: Vec<u64> = (0..7).map(|index| client(reader.entry(&pool, index))).collect();
        assert_eq!(clients, [1, 1, 1, 1, 2, 2, 4]);
    }
}

#[test]
fn a_segment_whose_beginning_changed_before_it_was_used_is_read_from_there() {
    let pool = pool(Coherence::Coherent);
    let mut log = Log::new(&pool, SegmentId(0), 0);
    log.append(4, 1);
    let old = log.tail;
    // Linked ahead of need, for when the first is full.
    log.grow(SegmentId(1), pool.geometry().entries_per_segment());
    let mut reader = LogReader::new(topic(), LOG);
    assert_eq!(client(reader.entry(&pool, 3)), 1);
    log.tail = old;
    log.write_beyond(2, 666);
    pool.set_segment_base(SegmentId(1), 4);
    log.tail = old.map(|old| LogSegment {
        segment: SegmentId(1),
        at: pool.geometry().segment(SegmentId(1)).expect("a segment"),
        base: 4,
        ..old
    });
    log.append(2, 2);
    assert_eq!(client(reader.entry(&pool, 4)), 2);
}

#[test]
fn retention_is_told_with_the_oldest_index() {
    let pool = pool(Coherence::Coherent);
    let mut log = Log::new(&pool, SegmentId(0), 0);
    log.append(5, 1);
    log.grow(SegmentId(1), 5);
    log.append(5, 2);
    let mut reader = LogReader::new(topic(), LOG);
    assert_eq!(client(reader.entry(&pool, 2)), 1);
    pool.raise_oldest(topic(), LOG, 4, 40);
    assert_eq!(reader.entry(&pool, 3), Found::Lapped { oldest: 4 });
    assert_eq!(client(reader.entry(&pool, 4)), 1);
    pool.raise_oldest(topic(), LOG, 7, 70);
    assert_eq!(reader.entry(&pool, 4), Found::Lapped { oldest: 7 });
    assert_eq!(client(reader.entry(&pool, 7)), 2);
    assert_eq!(pool.oldest(topic(), LOG), 7);
}

#[test]
fn a_segment_that_came_back_further_on_does_not_end_the_log() {
    let pool = pool(Coherence::Coherent);
    let mut log = Log::new(&pool, SegmentId(0), 0);
    log.append(5, 1);
    log.grow(SegmentId(1), 5);
    log.append(5, 2);
    let mut reader = LogReader::new(topic(), LOG);
    assert_eq!(client(reader.entry(&pool, 4)), 1);
    // Retention frees segment 0, and the same log gets it again as its newest.
    log.head = SegmentId(1);
    log.chain(5, SegmentId(1));
    pool.set_segment_what(SegmentId(0), What::FREE);
    log.grow(SegmentId(0), 10);
    log.chain(5, SegmentId(0));
    log.append(3, 3);
    assert_eq!(client(reader.entry(&pool, 5)), 2, "read on from where the reader was");
    let mut late = LogReader::new(topic(), LOG);
    assert_eq!(client(late.entry(&pool, 12)), 3);
    assert_eq!(client(late.entry(&pool, 9)), 2);
    assert_eq!(late.entry(&pool, 4), Found::Lapped { oldest: 5 });
}

#[test]
fn a_log_of_a_deleted_topic_is_gone() {
    let pool = pool(Coherence::Coherent);
    let mut log = Log::new(&pool, SegmentId(0), 0);
    log.append(5, 1);
    let mut reader = LogReader::new(topic(), LOG);
    assert_eq!(client(reader.entry(&pool, 2)), 1);
    let next = TopicId::new(topic().slot(), topic().generation() + 1);
    let line = ChainLine { topic: next.0.into(), ..ChainLine::default() };
    pool.set_chain(next, LOG, &line);
    assert_eq!(reader.entry(&pool, 2), Found::Gone);
    assert_eq!(LogReader::new(topic(), LOG).entry(&pool, 2), Found::Gone);
    assert_eq!(pool.oldest_of(topic(), LOG), None);
    assert_eq!(pool.frontier(next, LOG).entries, 0, "the new topic begins at nothing");
}

#[test]
fn a_broken_chain_ends_and_does_not_spin() {
    let pool = pool(Coherence::Coherent);
    let mut log = Log::new(&pool, SegmentId(0), 0);
    log.append(2, 1);
    log.grow(SegmentId(1), 2);
    log.append(2, 2);
    // A loop: the second names the first as the one after it.
    pool.link_segment(SegmentId(1), SegmentId(0));
    let mut reader = LogReader::new(topic(), LOG);
    assert_eq!(reader.entry(&pool, 1_000_000), Found::Gone);
    // A segment the pool does not have, one of another log, one that says nothing known.
    pool.link_segment(SegmentId(1), SegmentId(4_000_000));
    assert_eq!(reader.entry(&pool, 1_000_000), Found::Gone);
    assert_eq!(client(LogReader::new(topic(), LOG).entry(&pool, 3)), 2);
    for word in [u64::MAX, what(TopicId(9)).pack()] {
        let header = SegmentHeader { what: word, base_index: 4, ..SegmentHeader::FREE };
        pool.give_segment(SegmentId(2), &header);
        pool.link_segment(SegmentId(1), SegmentId(2));
        assert_eq!(reader.entry(&pool, 1_000_000), Found::Gone);
    }
    for index in [u64::MAX, u64::MAX - 1, 1 << 63] {
        assert_eq!(reader.entry(&pool, index), Found::Gone);
    }
}

#[test]
fn partition_finds_the_first_entry_that_is_not_before() {
    let pool = pool(Coherence::Coherent);
    let mut log = Log::new(&pool, SegmentId(0), 0);
    log.append(40, 1);
    log.grow(SegmentId(1), 40);
    log.append(60, 2);
    let mut reader = LogReader::new(topic(), LOG);
    for index in 0..=100 {
        let found = reader.partition(&pool, 0, 100, |entry| entry.first_position < 10 * index);
        assert_eq!(found, index);
    }
    // The batch that holds a position in its middle.
    assert_eq!(reader.partition(&pool, 0, 100, |entry| entry.end_position() <= 455), 45);
    // What retention took counts as before.
    pool.raise_oldest(topic(), LOG, 70, 700);
    assert_eq!(reader.partition(&pool, 0, 100, |entry| entry.first_position < 100), 70);
    assert_eq!(reader.partition(&pool, 0, 100, |entry| entry.first_position < 900), 90);
    assert_eq!(reader.partition(&pool, 0, 100, |_| true), 100);
    assert_eq!(reader.partition(&pool, 5, 5, |_| true), 5);
}
