//! Every protocol over shared lines, run by loom over all its schedules and stale reads. Each model
//! is run once more for each edge it rests on, with that edge weakened, and has to fail then.

use std::sync::Arc;

use landfall_layout::TopicId;
use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::slot::RingSlot;
use landfall_layout::{SegmentId, limits::LINE_BYTES};
use landfall_pool::hold::HoldWord;
use landfall_pool::line_ring::{LineConsumer, LineProducer, LineRing};
use landfall_pool::lines::{
    load_keyed, move_frontier, move_oldest, read_frontier, read_oldest, store_keyed,
};
use landfall_pool::log::LogSegment;
use landfall_pool::slot_ring::{SlotReader, SlotRing, SlotWriter};
use landfall_pool::topics::{read_versioned, write_versioned};
use landfall_pool::{Memory, bell, channel};
use loom::thread;

#[path = "loom/memory.rs"]
mod memory;
use memory::{Model, Weak, explore};

const LINES: LineRing = LineRing::behind(0, 2);
/// Commit words of the two lines.
const COMMITS: [u64; 2] = [64 + 56, 128 + 56];

fn line_words() -> Vec<u64> {
    vec![0, 64, 64 + 48, COMMITS[0], 128, 128 + 48, COMMITS[1]]
}

fn body(n: u64) -> [u64; 7] {
    [10 + n, 0, 0, 0, 0, 0, 20 + n]
}

/// Three lines through a ring of two, each side in its own thread; `restart` makes that side start
/// again from memory after each line. What the threads leave undone is finished after them.
fn line_ring(weak: Weak, restart_producer: bool, restart_consumer: bool) {
    explore(3, move || {
        let memory = Arc::new(Model::stepped(weak, line_words()));
        let theirs = memory.clone();
        let producer = thread::spawn(move || {
            let mut ring = LineProducer::resume(&*theirs, LINES);
            let mut pushed = 0;
            for _ in 0..4 {
                if pushed < 3 && ring.push(&*theirs, body(pushed)) {
                    pushed += 1;
                }
                if restart_producer {
                    ring = LineProducer::resume(&*theirs, LINES);
                }
            }
            pushed
        });
        let mut ring = LineConsumer::resume(&*memory, LINES);
        let mut taken = 0;
        for _ in 0..3 {
            if let Some(line) = ring.pop(&*memory) {
                assert_eq!(line, body(taken), "line {taken}");
                taken += 1;
            }
            if restart_consumer {
                ring = LineConsumer::resume(&*memory, LINES);
            }
        }
        let mut pushed = producer.join().expect("the producer ends");
        let mut producer = LineProducer::resume(&*memory, LINES);
        while taken < 3 {
            if pushed < 3 && producer.push(&*memory, body(pushed)) {
                pushed += 1;
            }
            if let Some(line) = ring.pop(&*memory) {
                assert_eq!(line, body(taken), "line {taken}");
                taken += 1;
            }
        }
        assert_eq!(ring.pop(&*memory), None);
    });
}

#[test]
fn lines_arrive_whole_and_in_order() {
    line_ring(Weak::Nothing, false, false);
}

#[test]
fn lines_arrive_whole_and_in_order_when_the_producer_starts_again() {
    line_ring(Weak::Nothing, true, false);
}

#[test]
fn lines_arrive_whole_and_in_order_when_the_consumer_starts_again() {
    line_ring(Weak::Nothing, false, true);
}

#[test]
#[should_panic(expected = "line 0")]
fn a_line_ring_needs_its_release() {
    line_ring(Weak::Release(COMMITS[0]), false, false);
}

#[test]
#[should_panic(expected = "line ")]
fn a_line_ring_needs_its_acquire() {
    line_ring(Weak::Acquire(COMMITS[1]), false, false);
}

const SLOTS: SlotRing = SlotRing { at: 64, slots: 2, consumed_at: 0, leader: None };
const SLOT_COMMITS: [u64; 2] = [64 + 120, 192 + 120];

fn slot(n: u64) -> RingSlot {
    RingSlot { client: 10 + n, sealed_ns: 20 + n, ..RingSlot::default() }
}

/// Three slots through a ring of two: full once, lapped once.
fn slot_ring(weak: Weak) {
    explore(3, move || {
        let offsets = [0, 64, 64 + 64, SLOT_COMMITS[0], 192, 192 + 64, SLOT_COMMITS[1]];
        let memory = Arc::new(Model::stepped(weak, offsets));
        let theirs = memory.clone();
        let broker = thread::spawn(move || {
            let mut ring = SlotWriter::resume(&*theirs, SLOTS);
            let mut pushed = 0;
            for _ in 0..4 {
                if pushed < 3 && ring.push(&*theirs, &slot(pushed)) == Some(pushed) {
                    pushed += 1;
                }
            }
            pushed
        });
        let ring = SlotReader::new(SLOTS);
        let mut scan = 0;
        let look = |scan: &mut u64| {
            if let Some(seen) = ring.peek(&*memory, *scan) {
                let expected = RingSlot { commit: *scan + 1, ..slot(*scan) };
                assert_eq!(seen, expected, "slot {scan}");
                *scan += 1;
                ring.release(&*memory, *scan);
            }
        };
        for _ in 0..3 {
            look(&mut scan);
        }
        let mut pushed = broker.join().expect("the broker ends");
        let mut broker = SlotWriter::resume(&*memory, SLOTS);
        assert_eq!(broker.next(), pushed, "a broker that starts again goes on where it was");
        while scan < 3 {
            if pushed < 3 && broker.push(&*memory, &slot(pushed)).is_some() {
                pushed += 1;
            }
            look(&mut scan);
        }
    });
}

#[test]
fn slots_arrive_whole_and_in_order() {
    slot_ring(Weak::Nothing);
}

#[test]
#[should_panic(expected = "slot 0")]
fn a_slot_ring_needs_its_release() {
    slot_ring(Weak::Release(SLOT_COMMITS[0]));
}

#[test]
#[should_panic(expected = "slot 1")]
fn a_slot_ring_needs_its_acquire() {
    slot_ring(Weak::Acquire(SLOT_COMMITS[1]));
}

const TOPIC: TopicId = TopicId(7);
const FRONTIER: u64 = 0;
const ENTRIES: u64 = 64;

/// Two bursts, of one entry and of two; a reader that looks at the frontier between them.
fn frontier(weak: Weak) {
    explore(3, move || {
        let entries = (0..3).flat_map(|i| [ENTRIES + 64 * i, ENTRIES + 64 * i + 56]);
        let offsets = [FRONTIER, FRONTIER + 8, FRONTIER + 32].into_iter().chain(entries);
        let memory = Arc::new(Model::new(weak, offsets));
        let log = LogSegment { segment: SegmentId(0), at: ENTRIES, base: 0, capacity: 4 };
        memory.store_release(FRONTIER + 32, TOPIC.0.into());
        let theirs = memory.clone();
        let sequencer = thread::spawn(move || {
            for burst in [0..1, 1..3] {
                let end = burst.end;
                for index in burst {
                    let entry = OrderEntry { first_position: 10 + index, ..OrderEntry::default() };
                    log.write(&*theirs, index, &entry);
                }
                let line = FrontierLine { entries: end, position: end, ..FrontierLine::default() };
                move_frontier(&*theirs, FRONTIER, &line);
            }
        });
        let mut seen = 0;
        for _ in 0..2 {
            let line = read_frontier(&*memory, FRONTIER, TOPIC);
            assert!(line.entries >= seen, "a frontier went back");
            assert!(line.position >= line.entries, "a frontier without its position");
            for index in seen..line.entries {
                let entry = log.read(&*memory, index).map(|entry| entry.first_position);
                assert_eq!(entry, Some(10 + index), "entry {index} below the frontier");
            }
            seen = line.entries;
        }
        sequencer.join().expect("the sequencer ends");
        assert_eq!(read_frontier(&*memory, FRONTIER, TOPIC).entries, 3);
        assert_eq!(read_frontier(&*memory, FRONTIER, TopicId(8)).entries, 0);
    });
}

#[test]
fn entries_below_the_frontier_are_whole() {
    frontier(Weak::Nothing);
}

#[test]
#[should_panic(expected = "frontier")]
fn a_frontier_needs_its_release() {
    frontier(Weak::Release(FRONTIER));
}

#[test]
#[should_panic(expected = "frontier")]
fn a_frontier_needs_its_acquire() {
    frontier(Weak::Acquire(FRONTIER));
}

const CHAIN: u64 = 256;
const HOLD: HoldWord = HoldWord { at: 512 };
const PAYLOAD: u64 = 576;
const SEGMENT: u32 = 3;

/// A reader takes a hold while retention takes the segment: control moves the oldest index and
/// sends `Retire`, the broker looks at the hold word and, if nothing is held, the segment is
/// written by its next owner.
fn hold(weak: Weak) {
    explore(3, move || {
        let offsets = line_words().into_iter().chain([CHAIN, CHAIN + 24, HOLD.at, PAYLOAD]);
        let memory = Arc::new(Model::new(weak, offsets));
        memory.store_release(CHAIN + 24, TOPIC.0.into());
        let mut commands = LineProducer::resume(&*memory, LINES);
        let theirs = memory.clone();
        let control = thread::spawn(move || {
            move_oldest(&*theirs, CHAIN, 1, 1);
            assert!(commands.push(&*theirs, body(0)), "the ring is empty");
        });
        let mut commands = LineConsumer::resume(&*memory, LINES);
        let theirs = memory.clone();
        let broker = thread::spawn(move || {
            for _ in 0..2 {
                if commands.pop(&*theirs).is_some() && HOLD.held(&*theirs) != Some(SEGMENT) {
                    theirs.store(PAYLOAD, 1);
                }
            }
        });
        let is_there = || read_oldest(&*memory, CHAIN, TOPIC).is_some_and(|oldest| oldest == 0);
        if let Some(hold) = HOLD.take_if(&*memory, SEGMENT, is_there) {
            assert_eq!(hold.segment(), SEGMENT);
            // Loaded as a release store of the other side would be seen: any value is a fault.
            assert_eq!(memory.load(PAYLOAD), 0, "a held segment was reused");
            HOLD.release(&*memory);
        }
        control.join().expect("control ends");
        broker.join().expect("the broker ends");
    });
}

#[test]
fn what_is_held_is_not_reused() {
    hold(Weak::Nothing);
}

#[test]
#[should_panic(expected = "a held segment was reused")]
fn a_hold_needs_its_fences() {
    hold(Weak::FullFence);
}

/// A sleeper and a ringer: whoever slept was rung for.
fn parked(weak: Weak, sleep: fn(&Model, u64), is_parked: fn(&Model, u64) -> bool) {
    explore(3, move || {
        let memory = Arc::new(Model::new(weak, [0, LINE_BYTES]));
        let theirs = memory.clone();
        let sleeper = thread::spawn(move || {
            sleep(&theirs, 0);
            theirs.load(LINE_BYTES) == 0
        });
        memory.store_release(LINE_BYTES, 1);
        let rung = is_parked(&memory, 0);
        let slept = sleeper.join().expect("the sleeper ends");
        assert!(!slept || rung, "a wake-up was lost");
    });
}

#[test]
fn no_ring_of_a_bell_is_lost() {
    parked(Weak::Nothing, bell::say_parked, bell::is_parked);
}

#[test]
#[should_panic(expected = "a wake-up was lost")]
fn a_bell_needs_its_fences() {
    parked(Weak::FullFence, bell::say_parked, bell::is_parked);
}

#[test]
fn no_ring_of_a_channel_is_lost() {
    let sleep = |m: &Model, at| channel::set_parked(m, at, true);
    parked(Weak::Nothing, sleep, channel::is_parked);
}

#[test]
#[should_panic(expected = "a wake-up was lost")]
fn a_channel_needs_its_fences() {
    let sleep = |m: &Model, at| channel::set_parked(m, at, true);
    parked(Weak::FullFence, sleep, channel::is_parked);
}

/// Two changes of a versioned entry, and a reader that takes it whole or not at all.
fn versioned(weak: Weak) {
    explore(3, move || {
        let memory = Arc::new(Model::new(weak, [0, 8, 16]));
        let theirs = memory.clone();
        let control = thread::spawn(move || {
            for n in 1..3 {
                write_versioned(&*theirs, 0, &[0, n, n]);
            }
        });
        if let Some([version, first, second]) = read_versioned::<3>(&*memory, 0) {
            assert_eq!([first, second], [version / 2; 2], "an entry of version {version}");
        }
        control.join().expect("control ends");
        assert_eq!(read_versioned::<3>(&*memory, 0), Some([4, 2, 2]));
    });
}

#[test]
fn a_versioned_entry_is_whole() {
    versioned(Weak::Nothing);
}

#[test]
#[should_panic(expected = "an entry of version")]
fn a_versioned_entry_needs_its_release() {
    versioned(Weak::Release(0));
}

#[test]
#[should_panic(expected = "an entry of version")]
fn a_versioned_entry_needs_its_acquire() {
    versioned(Weak::Acquire(0));
}

#[test]
#[should_panic(expected = "an entry of version")]
fn a_versioned_entry_needs_its_release_fence() {
    versioned(Weak::ReleaseFence);
}

#[test]
#[should_panic(expected = "an entry of version")]
fn a_versioned_entry_needs_its_acquire_fence() {
    versioned(Weak::AcquireFence);
}

/// A line written once, its key last: who sees the key sees the line.
fn keyed(weak: Weak) {
    explore(3, move || {
        let memory = Arc::new(Model::new(weak, [0, 8, 16, 24]));
        let theirs = memory.clone();
        let writer = thread::spawn(move || store_keyed(&*theirs, 0, &[1, 2, 9, 4], 2));
        let line = load_keyed::<4>(&*memory, 0, 2);
        assert!(line[2] == 0 || line == [1, 2, 9, 4], "a keyed line came as {line:?}");
        writer.join().expect("the writer ends");
    });
}

#[test]
fn a_keyed_line_is_whole() {
    keyed(Weak::Nothing);
}

#[test]
#[should_panic(expected = "a keyed line came as")]
fn a_keyed_line_needs_its_release() {
    keyed(Weak::Release(16));
}

#[test]
#[should_panic(expected = "a keyed line came as")]
fn a_keyed_line_needs_its_acquire() {
    keyed(Weak::Acquire(16));
}
