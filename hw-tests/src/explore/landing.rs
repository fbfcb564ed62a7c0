//! A batch on its way: the NIC of the broker's host writes it, the broker flushes it and commits a
//! slot, the sequencer on another host orders it, a subscriber on a third reads it.

use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::slot::RingSlot;
use landfall_layout::{SegmentId, TopicId};
use landfall_model::mutate::{Redundant, Subject};
use landfall_model::{Crash, Dma, Image, Plan, Process, Scenario};
use landfall_pool::Memory;
use landfall_pool::lines::{move_frontier, read_frontier};
use landfall_pool::log::LogSegment;
use landfall_pool::slot_ring::{SlotReader, SlotRing, SlotWriter};

use super::{A, B, C, Family};

const TOPIC: TopicId = TopicId(7);
const FRONTIER: u64 = 0;
const LOG: LogSegment = LogSegment { segment: SegmentId(0), at: 64, base: 0, capacity: 2 };
const RING: SlotRing = SlotRing { at: 256, slots: 2, consumed_at: 192, leader: None };
/// Where the NIC says that it has written: in memory of the broker's host.
const COMPLETED: u64 = 512;
/// The batch, two lines of it.
const BATCH: [u64; 2] = [576, 640];
const BATCH_BYTES: u64 = 128;
/// What is in them.
const SENT: u64 = 3;

/// The family.
pub fn family() -> Family {
    Family {
        name: "landing",
        scenarios: vec![
            Scenario {
                name: "DMA into the cache",
                image: &topic,
                plan: &|plan| land(plan, Dma::IntoCache),
            },
            Scenario {
                name: "DMA into the memory",
                image: &topic,
                plan: &|plan| land(plan, Dma::IntoMemory),
            },
            Scenario {
                name: "DMA into the cache, host lost",
                image: &topic,
                plan: &|plan| {
                    land_and_lose(plan, Dma::IntoCache);
                },
            },
        ],
        subject: Subject {
            modules: &["landing::"],
            redundant: &[Redundant {
                site: "landing::send.1 write-back fence",
                why: "the fence behind the slot's first line waits for the batch too",
            }],
        },
    }
}

fn topic(image: &Image<'_>) {
    image.store(FRONTIER + 32, TOPIC.0.into());
}

fn land(plan: &mut Plan, how: Dma) {
    send(plan, how);
    plan.process(B, order);
    plan.process(C, |memory| {
        memory.wait_for(|| read(memory).then_some(()));
    });
}

/// The broker's host loses its power at any step: what was ordered is there.
fn land_and_lose(plan: &mut Plan, how: Dma) {
    send(plan, how);
    plan.server(B, order);
    plan.crash(Crash::PowerLoss(A));
    plan.after(C, |memory| {
        read(memory);
    });
}

fn send(plan: &mut Plan, how: Dma) {
    plan.share(COMPLETED, COMPLETED + 8);
    plan.process(A, move |memory| {
        for at in BATCH {
            memory.dma(how, at, &[SENT]);
        }
        memory.dma(Dma::IntoCache, COMPLETED, &[1]);
    });
    plan.process(A, |memory| {
        let mut ring = SlotWriter::resume(memory, RING);
        memory.wait_for(|| (memory.load(COMPLETED) == 1).then_some(()));
        // As the broker's `land` does before it fills the slot.
        memory.publish(BATCH[0], BATCH_BYTES);
        let slot = RingSlot { bytes: BATCH_BYTES as u32, ..RingSlot::default() };
        assert_eq!(ring.push(memory, &slot), Some(0));
    });
}

/// The sequencer: an entry for the slot.
fn order(memory: &Process<'_>) {
    let slot = memory.wait_for(|| SlotReader::new(RING).peek(memory, 0));
    let entry = OrderEntry { bytes: slot.bytes, ..OrderEntry::default() };
    LOG.write(memory, 0, &entry);
    move_frontier(memory, FRONTIER, &FrontierLine { entries: 1, ..FrontierLine::default() });
}

/// The subscriber: whether there is a batch, and it is whole.
fn read(memory: &impl Memory) -> bool {
    if read_frontier(memory, FRONTIER, TOPIC).entries == 0 {
        return false;
    }
    let entry = LOG.read(memory, 0).expect("the entry below the frontier");
    assert_eq!(u64::from(entry.bytes), BATCH_BYTES, "the entry of the batch");
    memory.refresh(BATCH[0], BATCH_BYTES);
    for at in BATCH {
        assert_eq!(memory.load(at), SENT, "a line of the batch");
    }
    true
}
