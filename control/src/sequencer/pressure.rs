//! Publishers that deal their batches out over brokers whose rings are too small for them: all of
//! it is ordered, and a session lease is waited for only where the next batch could come through a
//! ring that has room, and does not.

use std::collections::{BTreeSet, VecDeque};

use landfall_layout::BrokerId;
use landfall_layout::limits::RING_SLOTS_MIN;
use landfall_layout::session::SessionState;
use landfall_layout::slot::RingSlot;
use landfall_layout::topic::Order;
use proptest::prelude::*;

use super::{Cause, Frontier, TopicSequencer, Verdict};

const BROKERS: usize = 3;
const BATCHES: u64 = 90;
/// Rounds in which every broker takes a batch of every publisher that has one for it. One takes
/// 10 ms, so the session lease ends after 50. 256 publishers need 750.
const ROUNDS: u64 = 15 * BATCHES;
const ROUND_NS: u64 = 10_000_000;
const LEASE_NS: u64 = 50 * ROUND_NS;

/// A publisher: connections to some brokers, each of which takes its batches in sequence.
struct Publisher {
    brokers: Vec<usize>,
    epoch: u32,
    /// Sequences that wait for a slot, by broker.
    queues: [VecDeque<u64>; BROKERS],
}

impl Publisher {
    /// Opens its next epoch and sends everything from `next_seq` on, beginning with the broker
    /// whose turn it is.
    fn send(&mut self, next_seq: u64, turn: usize) {
        self.epoch += 1;
        self.queues = Default::default();
        for (at, seq) in (next_seq..BATCHES).enumerate() {
            let broker = self.brokers[(turn + at) % self.brokers.len()];
            self.queues[broker].push_back(seq);
        }
    }

    fn joined(&self) -> u32 {
        self.brokers.iter().fold(0, |mask, broker| mask | 1 << broker)
    }
}

struct World {
    sequencer: TopicSequencer,
    publishers: Vec<Publisher>,
    /// Committed, by the index of the slot.
    rings: [Vec<RingSlot>; BROKERS],
    ordered: Vec<BTreeSet<u64>>,
    fenced: u64,
    /// Of these, at the end of the lease.
    late: u64,
    now_ns: u64,
}

fn broker(number: usize) -> BrokerId {
    BrokerId::new(number).unwrap()
}

impl World {
    /// A publisher for each set of brokers.
    fn new(joined: &[u32]) -> Self {
        let mut sequencer =
            TopicSequencer::new(Order::Strong, LEASE_NS, Frontier::default()).unwrap();
        for number in 0..BROKERS {
            sequencer.open_ring(broker(number), RING_SLOTS_MIN, 0).unwrap();
        }
        let mut world = Self {
            sequencer,
            publishers: Vec::new(),
            rings: Default::default(),
            ordered: vec![BTreeSet::new(); joined.len()],
            fenced: 0,
            late: 0,
            now_ns: 0,
        };
        for (index, joined) in joined.iter().enumerate() {
            let brokers = (0..BROKERS).filter(|broker| joined >> broker & 1 == 1).collect();
            let mut publisher = Publisher { brokers, epoch: 0, queues: Default::default() };
            publisher.send(0, index);
            world.sequencer.open_session(index as u32, 1 + index as u64, 1, 0);
            world.publishers.push(publisher);
        }
        world
    }

    fn is_full(&self, number: usize) -> bool {
        let landed = self.rings[number].len() as u64;
        landed - self.sequencer.consumed(broker(number)) >= u64::from(RING_SLOTS_MIN)
    }

    /// A broker takes the next batch of a publisher, if it has one and there is a slot.
    fn land(&mut self, number: usize, index: usize) {
        if self.is_full(number) {
            return;
        }
        let publisher = &mut self.publishers[index];
        let Some(batch_seq) = publisher.queues[number].pop_front() else { return };
        self.rings[number].push(RingSlot {
            client: 1 + index as u64,
            batch_seq,
            session_epoch: publisher.epoch,
            session: index as u32,
            count: 1,
            bytes: 64,
            ..RingSlot::default()
        });
    }

    fn scan(&mut self, number: usize) {
        loop {
            let index = self.sequencer.scan_index(broker(number));
            let Some(slot) = self.rings[number].get(index as usize) else { return };
            let ordered = &mut self.ordered;
            let verdict = self.sequencer.offer(broker(number), slot, self.now_ns, |entry| {
                let first = ordered[entry.client as usize - 1].insert(entry.batch_seq);
                assert!(first, "batch {} is ordered twice", entry.batch_seq);
            });
            if verdict == Verdict::Busy {
                return;
            }
        }
    }

    /// Fences who is stuck, and nobody whose next batch may still come. Fenced publishers send
    /// again.
    fn tick(&mut self) {
        let mut fenced = Vec::new();
        let publishers = &self.publishers;
        loop {
            let full = [0, 1, 2].map(|number| self.is_full(number));
            let stuck = self.sequencer.fence_stuck(|at| publishers[at as usize].joined());
            if stuck.is_empty() {
                break;
            }
            for fencing in stuck {
                let session = fencing.session;
                assert!(fencing.cause == Cause::Stuck && fencing.dropped > 0);
                assert_eq!(session.standing.state, SessionState::Fenced);
                let queues = &publishers[session.index as usize].queues;
                let is_here = |queue: &VecDeque<u64>| queue.front() == Some(&session.next_seq);
                let at = queues.iter().position(is_here).expect("it waits for what is not sent");
                assert!(full[at], "batch {} can still come", session.next_seq);
                fenced.push((session.index as usize, session.next_seq));
            }
        }
        let late = &mut self.late;
        self.sequencer.tick(self.now_ns, |fencing| {
            fenced.push((fencing.session.index as usize, fencing.session.next_seq));
            *late += 1;
        });
        for (index, next_seq) in fenced {
            self.fenced += 1;
            self.publishers[index].send(next_seq, self.fenced as usize);
            let epoch = self.publishers[index].epoch;
            self.sequencer.open_session(index as u32, 1 + index as u64, epoch, 0);
        }
    }

    fn is_done(&self) -> bool {
        self.ordered.iter().all(|ordered| ordered.len() as u64 == BATCHES)
    }

    /// Everybody moves in turn until all is ordered.
    fn finish(&mut self) {
        for _ in 0..ROUNDS {
            for number in 0..BROKERS {
                (0..self.publishers.len()).for_each(|index| self.land(number, index));
                self.scan(number);
            }
            self.now_ns += ROUND_NS;
            self.tick();
            if self.is_done() {
                return;
            }
        }
        let ordered: Vec<usize> = self.ordered.iter().map(BTreeSet::len).collect();
        panic!("of {BATCHES} batches each {ordered:?} are ordered");
    }
}

/// Which broker takes from which publisher, and which ring is looked at.
fn steps() -> impl Strategy<Value = Vec<(usize, usize, bool)>> {
    let step = (0..BROKERS, 0..4_usize, prop::bool::weighted(0.3));
    prop::collection::vec(step, 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4096, failure_persistence: None, ..Default::default() })]

    #[test]
    fn full_rings_never_stand_still(
        joined in prop::collection::vec(1_u32..8, 1..5),
        steps in steps(),
    ) {
        let mut world = World::new(&joined);
        for (number, index, scans) in steps {
            if index < joined.len() {
                world.land(number, index);
            }
            if scans {
                world.scan(number);
                world.tick();
            }
        }
        world.finish();
    }
}

#[test]
fn who_waits_for_a_slot_in_the_others_full_ring_is_fenced_at_once() {
    let mut world = World::new(&[0b011, 0b011]);
    // The first has its odd batches in one ring, the second its odd ones in the other.
    for (number, index) in [(1, 0), (0, 1)] {
        (0..=RING_SLOTS_MIN).for_each(|_| world.land(number, index));
        world.scan(number);
    }
    assert_eq!(world.sequencer.held(), 2 * RING_SLOTS_MIN as usize);
    world.tick();
    assert_eq!(world.fenced, 1, "one of them makes room for the other");
    assert_eq!(world.sequencer.held(), RING_SLOTS_MIN as usize);
    world.finish();
}

#[test]
fn a_full_ring_is_no_reason_while_what_it_waits_for_can_come() {
    let mut world = World::new(&[0b011, 0b111]);
    (0..=RING_SLOTS_MIN).for_each(|_| world.land(1, 0));
    world.scan(1);
    assert!(world.is_full(1));
    world.tick();
    assert_eq!(world.fenced, 0, "the other ring has room");
    // The third ring has room too, but not for what the first publisher has to send.
    (0..=RING_SLOTS_MIN).for_each(|_| world.land(0, 1));
    world.scan(0);
    world.tick();
    assert_eq!(world.fenced, 0, "the second publisher's next batch comes through the third");
}

/// Which broker takes from which publisher, and `!` where its ring is looked at: then two rings
/// wait for each other, and the last publisher fills the third one again whenever it is fenced.
const STARVED: &str = "\
    02 02 01 12 01 23 02 02 01 12 00 12 12 12 01 20 22 01! 01 02 01 11 12 22 02 12 22! \
    02 02 12 02 00 22 22 22 22 22 12! 12 12 02 22 02 00 00 00 00 00! 12 00 22 12 22 12 \
    22! 11 00 11 11 11 11 12! 02 11 02 12 02! 12 11 11 12 12 22 12 03 03 10! 02 22 22! \
    02 22 01 22 02 12 12 01 02 13 12 00 00 12 10 02 12 01! 12 03 12 13 13 23 12 23 01! \
    01! 02 11! 11 21! 22 01! 02! 02 02 11! 22 02 23! 12! 22 12 02 01 00! 11 22 01 01 13 \
    23 22! 01 13! 02! 12 13 23 01! 11 13 13 13 10! 21! 00 01 01 13 01 00! 00 00! 00! 01! \
    22 21! 13 11 10! 00 02 11! 02 13!";

#[test]
fn who_fills_a_ring_again_at_once_leaves_nobody_behind() {
    let mut world = World::new(&[0b001, 0b011, 0b111, 0b110]);
    for step in STARVED.split(' ') {
        let digit = |at: usize| usize::from(step.as_bytes()[at] - b'0');
        world.land(digit(0), digit(1));
        if step.ends_with('!') {
            world.scan(digit(0));
            world.tick();
        }
    }
    world.finish();
    assert_eq!(world.late, 0, "nobody waits until a lease ends");
}

#[test]
fn many_publishers_through_few_slots_all_go_on() {
    for publishers in [4, 16, 64, 256] {
        let joined: Vec<u32> =
            (0..publishers).map(|at| [0b111, 0b011, 0b110, 0b101][at % 4]).collect();
        World::new(&joined).finish();
    }
}
