//! Publishers that deal their batches out over brokers whose rings are too small for them, where
//! brokers let a batch in behind the one before it: all of it is ordered, and nobody is fenced.

use std::collections::VecDeque;

use landfall_layout::BrokerId;
use landfall_layout::limits::RING_SLOTS_MIN;
use landfall_layout::slot::RingSlot;
use landfall_layout::topic::Order;
use proptest::prelude::*;

use super::{Frontier, TopicSequencer, Verdict};

const BROKERS: usize = 3;
const BATCHES: u64 = 90;

/// A publisher's connections to some brokers.
struct Publisher {
    /// Sequences that wait for a slot or for their turn, by broker.
    queues: [VecDeque<u64>; BROKERS],
    /// The last one that landed, by broker.
    last: [Option<u64>; BROKERS],
    /// What its session's line says.
    next_seq: u64,
}

impl Publisher {
    fn new(joined: u32, run: usize) -> Self {
        let brokers: Vec<usize> = (0..BROKERS).filter(|at| joined >> at & 1 == 1).collect();
        let mut queues: [VecDeque<u64>; BROKERS] = Default::default();
        for seq in 0..BATCHES {
            queues[brokers[seq as usize / run % brokers.len()]].push_back(seq);
        }
        Self { queues, last: [None; BROKERS], next_seq: 0 }
    }

    /// Takes the next batch for a broker, if it is its turn.
    fn take(&mut self, number: usize) -> Option<u64> {
        let seq = *self.queues[number].front()?;
        let follows = self.last[number].is_some_and(|last| last + 1 == seq);
        if !follows && seq > self.next_seq {
            return None;
        }
        self.last[number] = self.queues[number].pop_front();
        Some(seq)
    }
}

struct World {
    sequencer: TopicSequencer,
    publishers: Vec<Publisher>,
    /// Committed, by the index of the slot.
    rings: [Vec<RingSlot>; BROKERS],
    ordered: Vec<u64>,
}

fn broker(number: usize) -> BrokerId {
    BrokerId::new(number).unwrap()
}

impl World {
    /// A publisher for each set of brokers, which deals its batches out in runs.
    fn new(publishers: &[(u32, usize)]) -> Self {
        let mut sequencer = TopicSequencer::new(Order::Strong, 1, Frontier::default()).unwrap();
        for number in 0..BROKERS {
            sequencer.open_ring(broker(number), RING_SLOTS_MIN, 0).unwrap();
        }
        for index in 0..publishers.len() as u32 {
            sequencer.open_session(index, 1 + u64::from(index), 1, 0);
        }
        let ordered = vec![0; publishers.len()];
        let publishers = publishers.iter().map(|(joined, run)| Publisher::new(*joined, *run));
        let publishers = publishers.collect();
        Self { sequencer, publishers, rings: Default::default(), ordered }
    }

    /// A broker takes the next batch of a publisher, if there is a slot. Whether it did.
    fn land(&mut self, number: usize, index: usize) -> bool {
        let landed = self.rings[number].len() as u64;
        if landed - self.sequencer.consumed(broker(number)) >= u64::from(RING_SLOTS_MIN) {
            return false;
        }
        let Some(batch_seq) = self.publishers[index].take(number) else { return false };
        self.rings[number].push(RingSlot {
            client: 1 + index as u64,
            batch_seq,
            session_epoch: 1,
            session: index as u32,
            count: 1,
            bytes: 64,
            ..RingSlot::default()
        });
        true
    }

    /// The sequencer takes some slots of a ring: each of them is ordered, and is free again.
    fn scan(&mut self, number: usize, most: usize) {
        for _ in 0..most {
            let index = self.sequencer.scan_index(broker(number));
            let Some(slot) = self.rings[number].get(index as usize) else { break };
            let ordered = &mut self.ordered;
            let verdict = self.sequencer.offer(broker(number), slot, |entry| {
                let next = &mut ordered[entry.client as usize - 1];
                assert_eq!(entry.batch_seq, *next, "in sequence");
                *next += 1;
            });
            assert_eq!(verdict, Verdict::Ordered);
            assert_eq!(self.sequencer.consumed(broker(number)), index + 1);
        }
    }

    /// Session lines say what is ordered.
    fn tell(&mut self) {
        let publishers = &mut self.publishers;
        self.sequencer.drain_touched(|view| {
            publishers[view.index as usize].next_seq = view.next_seq;
        });
    }

    /// Everybody moves in turn. A round brings every publisher forward that is not done.
    fn finish(&mut self) {
        while self.ordered.iter().any(|ordered| *ordered < BATCHES) {
            self.tell();
            let before = self.ordered.clone();
            for number in 0..BROKERS {
                loop {
                    let publishers = 0..self.publishers.len();
                    let landed = publishers.filter(|index| self.land(number, *index)).count();
                    self.scan(number, usize::MAX);
                    if landed == 0 {
                        break;
                    }
                }
            }
            let moved = before.iter().zip(&self.ordered);
            assert!(moved.clone().all(|(from, to)| from < to || *from == BATCHES), "{moved:?}");
        }
    }
}

/// Which broker takes from which publisher, how many slots of its ring are looked at then, and
/// whether lines are written.
fn steps() -> impl Strategy<Value = Vec<(usize, usize, usize, bool)>> {
    let step = (0..BROKERS, 0..4_usize, 0..3_usize, any::<bool>());
    prop::collection::vec(step, 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4096, failure_persistence: None, ..Default::default() })]

    #[test]
    fn full_rings_never_stand_still(
        publishers in prop::collection::vec((1_u32..8, 1_usize..9), 1..5),
        steps in steps(),
    ) {
        let mut world = World::new(&publishers);
        for (number, index, scans, tells) in steps {
            if index < publishers.len() {
                world.land(number, index);
            }
            world.scan(number, scans);
            if tells {
                world.tell();
            }
        }
        world.finish();
    }
}

#[test]
fn many_publishers_through_few_slots_all_go_on() {
    for publishers in [4, 16, 64, 256] {
        let joined: Vec<(u32, usize)> =
            (0..publishers).map(|at| ([0b111, 0b011, 0b110, 0b101][at % 4], 1 + at % 5)).collect();
        World::new(&joined).finish();
    }
}
