//! Where brokers' own logs end, as a reader takes it that wants what comes.

use landfall_layout::frame::LogPlace;
use landfall_layout::order::{ChainLine, FrontierLine, OrderEntry};
use landfall_layout::pool::Coherence;
use landfall_layout::segment::{SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_pool::ends::ends;
use landfall_pool::log::LogSegment;

mod common;
use common::pool;

fn topic() -> TopicId {
    TopicId::new(3, 1)
}

/// A log of `count` entries of ten messages each, the oldest of which has that index.
fn log(pool: &Pool, log: u8, segment: SegmentId, (count, oldest): (u64, u64), position: u64) {
    let what = What {
        kind: SegmentKind::OrderLog,
        state: SegmentState::Open,
        owner: log,
        log,
        topic: topic(),
    };
    let header =
        SegmentHeader { what: what.pack(), generation: 1, base_index: 0, ..SegmentHeader::FREE };
    pool.give_segment(segment, &header);
    let chain = ChainLine {
        oldest_index: oldest,
        oldest_position: 10 * oldest,
        head: segment.0,
        tail: segment.0,
        topic: topic().0.into(),
        ..ChainLine::default()
    };
    pool.set_chain(topic(), log.into(), &chain);
    pool.start_frontier(topic(), log.into());
    let at = pool.geometry().segment(segment).expect("a segment of the pool");
    let capacity = pool.geometry().entries_per_segment();
    let tail = LogSegment { segment, at, base: 0, capacity };
    for index in 0..count {
        let entry = OrderEntry { first_position: 10 * index, count: 10, ..OrderEntry::default() };
        tail.write(pool, index, &entry);
    }
    let line = FrontierLine { entries: count, position, ..FrontierLine::default() };
    pool.advance_frontier(topic(), log.into(), &line);
}

#[test]
fn a_log_ends_behind_its_last_entry_whatever_its_line_says_next() {
    let pool = pool(Coherence::Coherent);
    log(&pool, 1, SegmentId(2), (3, 0), 30);
    // Its broker is about to count one entry more, and has moved the position.
    log(&pool, 4, SegmentId(3), (3, 1), 40);
    // Retention took all of it.
    log(&pool, 5, SegmentId(4), (7, 7), 70);
    // Back from disk, and not begun in this pool.
    let chain = ChainLine {
        oldest_index: 5,
        oldest_position: 55,
        topic: topic().0.into(),
        ..ChainLine::default()
    };
    pool.set_chain(topic(), 9, &chain);
    let place = |log, next, position| LogPlace { log, next, position };
    let all = [place(1, 3, 30), place(4, 3, 30), place(5, 7, 70), place(9, 5, 55)];
    assert_eq!(ends(&pool, topic()), all);
}
