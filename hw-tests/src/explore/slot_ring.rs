//! Batch-header rings: a broker on one host, the sequencer on another.

use landfall_layout::slot::RingSlot;
use landfall_model::mutate::{Redundant, Subject};
use landfall_model::{Crash, Image, Plan, Process, ProcessId, Scenario};
use landfall_pool::slot_ring::{SlotReader, SlotRing, SlotWriter};

use super::{A, B, C, Family};

const RING: SlotRing = SlotRing { at: 64, slots: 2, consumed_at: 0, leader: None };
/// Slots committed: the ring is full once and lapped once.
const SLOTS: u64 = 3;

/// The family.
pub fn family() -> Family {
    Family {
        name: "batch-header ring",
        scenarios: vec![
            Scenario {
                name: "full",
                image: &nothing,
                plan: &|plan| {
                    both(plan);
                },
            },
            Scenario {
                name: "broker killed",
                image: &nothing,
                plan: &|plan| {
                    let [broker, _] = both(plan);
                    plan.crash_then(Crash::Kill(broker), A, write);
                },
            },
            Scenario {
                name: "sequencer killed",
                image: &nothing,
                plan: &|plan| {
                    let [_, sequencer] = both(plan);
                    plan.crash_then(Crash::Kill(sequencer), B, read_on);
                },
            },
            Scenario {
                name: "broker's host lost",
                image: &nothing,
                plan: &|plan| {
                    both(plan);
                    plan.crash_then(Crash::PowerLoss(A), C, write);
                },
            },
            Scenario {
                name: "sequencer's host lost",
                image: &nothing,
                plan: &|plan| {
                    both(plan);
                    plan.crash_then(Crash::PowerLoss(B), C, read_on);
                },
            },
        ],
        subject: Subject {
            modules: &["slot_ring::"],
            redundant: &[Redundant {
                site: "slot_ring::SlotReader::release.1 write-back fence",
                why: "the fence of the next look waits for it too; until then there is less room",
            }],
        },
    }
}

fn nothing(_: &Image<'_>) {}

fn both(plan: &mut Plan) -> [ProcessId; 2] {
    [plan.process(A, write), plan.process(B, read)]
}

/// A slot whose first and second line both say which it is.
fn slot(index: u64) -> RingSlot {
    RingSlot { client: 10 + index, sealed_ns: 20 + index, ..RingSlot::default() }
}

fn write(memory: &Process<'_>) {
    let mut ring = SlotWriter::resume(memory, RING);
    while ring.next() < SLOTS {
        let index = ring.next();
        let pushed = memory.wait_for(|| ring.push(memory, &slot(index)));
        assert_eq!(pushed, index);
    }
}

fn read(memory: &Process<'_>) {
    let ring = SlotReader::new(RING);
    let mut scan = RING.consumed(memory);
    while scan < SLOTS {
        let found = memory.wait_for(|| ring.peek(memory, scan));
        assert_eq!(found, RingSlot { commit: scan + 1, ..slot(scan) }, "slot {scan}");
        scan += 1;
        ring.release(memory, scan);
    }
}

/// The next sequencer: it says first what it found consumed, as a leader does that copies the
/// tables of the one before.
fn read_on(memory: &Process<'_>) {
    SlotReader::new(RING).release(memory, RING.consumed(memory));
    read(memory);
}
