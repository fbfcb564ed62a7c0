//! Rings over a real mapping: sides that start again at every index, laps, and memory that lies.

use std::collections::VecDeque;

use landfall_layout::limits::LINE_BYTES;
use landfall_layout::pool::{Coherence, LeaderLine, Term};
use landfall_layout::slot::RingSlot;
use landfall_pool::line_ring::{LineConsumer, LineProducer, LineRing};
use landfall_pool::slot_ring::{SlotReader, SlotRing, SlotWriter};
use landfall_pool::{Memory, Pool};

mod common;
use common::{Random, pool};

/// Rings begin at the first segment, where nothing else is.
fn lines(pool: &Pool, lines: u64) -> LineRing {
    LineRing::behind(pool.geometry().head_bytes(), lines)
}

fn slots(pool: &Pool, slots: u64) -> SlotRing {
    let at = pool.geometry().head_bytes();
    SlotRing { at: at + LINE_BYTES, slots, consumed_at: at, leader: None }
}

fn body(n: u64) -> [u64; 7] {
    std::array::from_fn(|i| n * 10 + i as u64)
}

fn slot(n: u64) -> RingSlot {
    RingSlot {
        client: n,
        batch_seq: n + 1,
        checksum: n as u32,
        sealed_ns: !n,
        ..RingSlot::default()
    }
}

#[test]
fn either_side_of_a_line_ring_starts_again_at_every_index() {
    for coherence in [Coherence::Coherent, Coherence::Flush] {
        let pool = pool(coherence);
        let ring = lines(&pool, 4);
        let mut producer = LineProducer::resume(&pool, ring);
        let mut consumer = LineConsumer::resume(&pool, ring);
        let mut oracle = VecDeque::new();
        let mut random = Random(7);
        let mut next = 0;
        for step in 0..2_000 {
            match random.next() % 4 {
                0 | 1 => {
                    let taken = producer.push(&pool, body(next));
                    assert_eq!(taken, oracle.len() < 4, "step {step}");
                    if taken {
                        oracle.push_back(body(next));
                        next += 1;
                    }
                }
                2 => {
                    assert_eq!(consumer.is_ready(&pool), !oracle.is_empty(), "step {step}");
                    assert_eq!(consumer.pop(&pool), oracle.pop_front(), "step {step}");
                }
                _ => {}
            }
            assert!(producer.pending() >= oracle.len() as u64, "step {step}");
            if random.next().is_multiple_of(3) {
                producer = LineProducer::resume(&pool, ring);
                assert_eq!(producer.pending(), oracle.len() as u64, "step {step}");
            }
            if random.next().is_multiple_of(3) {
                consumer = LineConsumer::resume(&pool, ring);
            }
        }
        assert!(next > 400, "only {next} lines went through");
    }
}

#[test]
fn a_line_that_was_not_committed_is_written_again() {
    let pool = pool(Coherence::Coherent);
    let ring = lines(&pool, 4);
    let mut producer = LineProducer::resume(&pool, ring);
    assert!(producer.push(&pool, body(0)));
    // The producer dies with the words of its second line stored and the commit word not.
    pool.store_words(ring.at + 128, &body(99));
    let mut producer = LineProducer::resume(&pool, ring);
    let mut consumer = LineConsumer::resume(&pool, ring);
    assert_eq!(consumer.pop(&pool), Some(body(0)));
    assert_eq!(consumer.pop(&pool), None);
    assert!(producer.push(&pool, body(1)));
    assert_eq!(consumer.pop(&pool), Some(body(1)));
}

#[test]
fn a_consumers_index_that_lies_does_not_move_the_producer() {
    for lie in [100, u64::MAX, 1 << 63, 0] {
        let pool = pool(Coherence::Coherent);
        let ring = lines(&pool, 4);
        let mut producer = LineProducer::resume(&pool, ring);
        let mut consumer = LineConsumer::resume(&pool, ring);
        for n in 0..2 {
            assert!(producer.push(&pool, body(n)));
            assert_eq!(consumer.pop(&pool), Some(body(n)));
        }
        for n in 2..6 {
            assert!(producer.push(&pool, body(n)));
        }
        // The other process, a stranger's, stores nonsense where its index belongs.
        pool.store_release(ring.taken_at, lie);
        for _ in 0..10 {
            assert!(!producer.push(&pool, body(9)), "written over after index {lie}");
            assert_eq!(producer.pending(), 4);
        }
        pool.store_release(ring.taken_at, 3);
        assert!(producer.push(&pool, body(6)), "an index that makes sense again is believed");
        assert_eq!(producer.pending(), 4);
    }
}

#[test]
fn a_ring_of_any_memory_starts() {
    let mut random = Random(11);
    let odd = [0, 1, 3, u64::MAX, u64::MAX - 1, u64::MAX - 3, 1 << 63];
    for _ in 0..10 {
        let pool = pool(Coherence::Coherent);
        for _ in 0..50 {
            let ring = lines(&pool, 4);
            let taken = odd[random.next() as usize % odd.len()];
            pool.store_release(ring.taken_at, taken);
            for line in 0..4 {
                let near = taken.wrapping_add(random.next() % 5);
                pool.store_release(ring.at + 64 * line + 56, near);
            }
            let mut producer = LineProducer::resume(&pool, ring);
            assert!(producer.pending() <= 4);
            let room = 4 - producer.pending();
            let mut pushed = 0;
            while producer.push(&pool, body(pushed)) {
                pushed += 1;
            }
            assert_eq!(pushed, room, "from index {taken}");
            let mut consumer = LineConsumer::resume(&pool, ring);
            let mut popped = 0;
            while consumer.pop(&pool).is_some() {
                popped += 1;
            }
            assert_eq!(popped, 4, "from index {taken}");
        }
    }
}

#[test]
fn a_slot_ring_laps_and_never_overwrites() {
    for coherence in [Coherence::Coherent, Coherence::Flush] {
        let pool = pool(coherence);
        let ring = slots(&pool, 16);
        let mut writer = SlotWriter::resume(&pool, ring);
        let reader = SlotReader::new(ring);
        let (mut scan, mut through, mut next) = (0, 0, 0);
        let mut random = Random(3);
        for step in 0..5_000 {
            match random.next() % 5 {
                0 | 1 => {
                    let pushed = writer.push(&pool, &slot(next));
                    assert_eq!(pushed, (next - through < 16).then_some(next), "step {step}");
                    next += u64::from(pushed.is_some());
                }
                2 => {
                    let seen = reader.peek(&pool, scan);
                    let expected = RingSlot { commit: scan + 1, ..slot(scan) };
                    assert_eq!(seen, (scan < next).then_some(expected), "step {step}");
                    scan += u64::from(seen.is_some());
                }
                3 if through < scan => {
                    through += 1 + random.next() % (scan - through);
                    reader.release(&pool, through);
                }
                _ => {
                    writer = SlotWriter::resume(&pool, ring);
                    assert_eq!(writer.next(), next, "step {step}");
                    assert_eq!(writer.room(&pool, 16), 16 - (next - through), "step {step}");
                }
            }
        }
        assert!(next > 400, "only {next} slots went through");
    }
}

#[test]
fn slots_of_the_lap_before_are_not_committed() {
    let pool = pool(Coherence::Coherent);
    let ring = slots(&pool, 16);
    let mut writer = SlotWriter::resume(&pool, ring);
    let reader = SlotReader::new(ring);
    for n in 0..16 {
        assert_eq!(writer.push(&pool, &slot(n)), Some(n));
    }
    assert_eq!(writer.push(&pool, &slot(16)), None);
    for n in 16..32 {
        assert_eq!(reader.peek(&pool, n), None, "a slot of the lap before was taken for {n}");
    }
    reader.release(&pool, 16);
    assert_eq!(SlotWriter::resume(&pool, ring).next(), 16);
    assert_eq!(ring.consumed(&pool), 16);
}

#[test]
fn a_consumed_line_that_lies_does_not_make_room() {
    for lie in [100, u64::MAX, 1 << 63, 0] {
        let pool = pool(Coherence::Coherent);
        let ring = slots(&pool, 16);
        let mut writer = SlotWriter::resume(&pool, ring);
        for n in 0..4 {
            assert!(writer.push(&pool, &slot(n)).is_some());
        }
        SlotReader::new(ring).release(&pool, 4);
        assert_eq!(writer.room(&pool, 16), 16);
        for n in 4..20 {
            assert!(writer.push(&pool, &slot(n)).is_some());
        }
        SlotReader::new(ring).release(&pool, lie);
        assert_eq!(writer.room(&pool, 1), 0, "room after a consumed index of {lie}");
        assert_eq!(writer.push(&pool, &slot(20)), None);
        SlotReader::new(ring).release(&pool, 5);
        assert_eq!(writer.room(&pool, 1), 1);
    }
    // Near the end of all numbers nothing overflows either.
    let pool = pool(Coherence::Coherent);
    let ring = slots(&pool, 16);
    SlotReader::new(ring).release(&pool, u64::MAX - 2);
    let mut writer = SlotWriter::resume(&pool, ring);
    assert_eq!(writer.room(&pool, 16), 16);
    for n in 0..16 {
        assert_eq!(writer.push(&pool, &slot(n)), Some((u64::MAX - 2).wrapping_add(n)));
    }
    assert_eq!(SlotReader::new(ring).peek(&pool, u64::MAX).map(|slot| slot.client), Some(2));
}

#[test]
fn a_leader_that_was_deposed_makes_no_room() {
    for coherence in [Coherence::Coherent, Coherence::Flush] {
        let pool = pool(coherence);
        let claim = |slot, epoch| {
            let term = Term { epoch, serves: false }.pack();
            assert!(pool.claim(slot, &LeaderLine { term, ..LeaderLine::default() }));
            pool.leader_place()
        };
        let old = SlotRing { leader: Some(claim(0, 1)), ..slots(&pool, 16) };
        let mut writer = SlotWriter::resume(&pool, old);
        for n in 0..16 {
            assert_eq!(writer.push(&pool, &slot(n)), Some(n));
        }
        SlotReader::new(old).release(&pool, 3);
        assert_eq!(writer.consumed(&pool), 3, "nobody else leads");
        let leader = Some(claim(1, 2));
        SlotReader::new(old).release(&pool, 5);
        assert_eq!((writer.consumed(&pool), writer.room(&pool, 16)), (3, 3));
        // Another process of the broker finds the same slots and takes no more room.
        let mut again = SlotWriter::resume(&pool, old);
        assert_eq!((again.next(), again.room(&pool, 16)), (16, 0));
        // The next leader's word is another: it goes on where the broker was told.
        let new = SlotRing { consumed_at: old.consumed_at + 8, leader, ..old };
        SlotReader::new(new).release(&pool, 4);
        for writer in [&mut writer, &mut again] {
            writer.heed(new.consumed_at, new.leader);
            assert_eq!((writer.consumed(&pool), writer.room(&pool, 16)), (4, 4));
        }
    }
}

#[test]
fn another_consumer_passes_over_what_was_written_over() {
    let pool = pool(Coherence::Coherent);
    let ring = lines(&pool, 4);
    let mut producer = LineProducer::resume(&pool, ring);
    let mut first = LineConsumer::resume(&pool, ring);
    // The other consumer has a copy of the index, made before the first one went on.
    let taken_at = ring.at + 64 * 8;
    let other = LineRing { taken_at, ..ring };
    let mut second = LineConsumer::resume(&pool, other);
    for n in 0..7 {
        assert!(producer.push(&pool, body(n)));
        assert_eq!(first.pop(&pool), Some(body(n)));
    }
    producer.heed(&pool, taken_at);
    assert!(producer.push(&pool, body(7)), "what the first has taken stays taken");
    assert_eq!(second.pop(&pool), None, "line 0 is written over");
    for n in 4..8 {
        assert_eq!(second.pop(&pool), Some(body(n)));
    }
    assert_eq!(second.pop(&pool), None);
    for n in 8..20 {
        assert!(producer.push(&pool, body(n)));
        assert_eq!(second.pop(&pool), Some(body(n)));
    }
}

#[test]
fn what_an_earlier_epoch_left_in_a_ring_is_not_taken() {
    let pool = pool(Coherence::Coherent);
    let ring = lines(&pool, 4);
    let mut old = LineProducer::begin(ring, 4 << 32);
    for n in 0..3 {
        assert!(old.push(&pool, body(n)));
    }
    let mut consumer = LineConsumer::begin(&pool, ring, 5 << 32);
    assert_eq!(consumer.pop(&pool), None);
    let mut producer = LineProducer::begin(ring, 5 << 32);
    assert!(producer.push(&pool, body(9)));
    assert_eq!(consumer.pop(&pool), Some(body(9)));
    assert!(old.push(&pool, body(4)), "a leader that was deposed does not know it");
    assert_eq!(consumer.pop(&pool), None);
    let mut again = LineConsumer::begin(&pool, ring, 5 << 32);
    assert_eq!(again.pop(&pool), None, "it was taken");
    assert!(producer.push(&pool, body(10)));
    assert_eq!(again.pop(&pool), Some(body(10)));
}
