//! A disk replica on another host: it follows the log, writes, syncs, and moves its line. A durable
//! receipt goes out by that line.

use std::cell::Cell;
use std::rc::Rc;

use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::replica::ReplicaLine;
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_model::mutate::{Redundant, Subject};
use landfall_model::{Crash, Image, Plan, Process, Scenario};
use landfall_pool::Memory;
use landfall_pool::lines::{move_frontier, read_frontier};
use landfall_pool::log::LogSegment;
use landfall_pool::replica::{move_replica, note_lost, read_lost, read_replica, start_replica};

use super::lines::ONE_LINE;
use super::{A, B, C, Family};

const TOPIC: TopicId = TopicId(7);
/// The topic that had the replica line before, and how far that was.
const BEFORE: TopicId = TopicId(6);
const DURABLE_BEFORE: u64 = 9;
const FRONTIER: u64 = 0;
const REPLICA: u64 = 64;
const LOG: LogSegment = LogSegment { segment: SegmentId(0), at: 128, base: 0, capacity: 4 };
const ENTRIES: u64 = 2;
/// What the keeper has lost, of what that broker landed.
const LOST: u64 = 512;
const GONE: u64 = 1;

/// The family.
pub fn family() -> Family {
    Family {
        name: "replica frontier",
        scenarios: vec![
            Scenario {
                name: "two syncs",
                image: &lines,
                plan: &|plan| {
                    let disk = replicate(plan);
                    plan.process(C, move |memory| await_durable(memory, &disk));
                },
            },
            Scenario {
                name: "replica's host lost",
                image: &landed,
                plan: &|plan| {
                    let disk = Rc::new(Cell::new(0));
                    let [theirs, again] = [disk.clone(), disk.clone()];
                    plan.process(B, move |memory| keep(memory, &theirs));
                    plan.crash_then(Crash::PowerLoss(B), B, move |memory| keep(memory, &again));
                    plan.process(C, move |memory| await_durable(memory, &disk));
                },
            },
            Scenario {
                name: "replica killed",
                image: &landed,
                plan: &|plan| {
                    let disk = Rc::new(Cell::new(0));
                    let [theirs, again] = [disk.clone(), disk.clone()];
                    let keeper = plan.process(B, move |memory| keep(memory, &theirs));
                    plan.crash_then(Crash::Kill(keeper), B, move |memory| keep(memory, &again));
                    plan.process(C, move |memory| await_durable(memory, &disk));
                },
            },
            Scenario {
                name: "a batch is lost",
                image: &lines,
                plan: &|plan| {
                    plan.process(B, lose);
                    plan.process(C, await_lost);
                },
            },
            Scenario {
                name: "a batch is lost, and its keeper killed",
                image: &lines,
                plan: &|plan| {
                    let keeper = plan.process(B, lose);
                    plan.crash_then(Crash::Kill(keeper), B, lose);
                    plan.process(C, await_lost);
                },
            },
            Scenario {
                name: "a batch is lost, and its keeper's host",
                image: &lines,
                plan: &|plan| {
                    plan.process(B, lose);
                    plan.crash_then(Crash::PowerLoss(B), B, lose);
                    plan.process(C, await_lost);
                },
            },
            Scenario {
                name: "line of another topic",
                image: &lines,
                plan: &|plan| {
                    plan.process(B, |memory| keep(memory, &Cell::new(ENTRIES)));
                    plan.process(C, |memory| {
                        let line = read_replica(memory, REPLICA, BEFORE);
                        let ours = [0, DURABLE_BEFORE].contains(&line.durable);
                        assert!(ours, "another topic's number: {line:?}");
                    });
                },
            },
        ],
        subject: Subject {
            modules: &["replica::"],
            redundant: &[
                Redundant { site: "replica::start_replica.1 write-back", why: ONE_LINE },
                Redundant { site: "replica::start_replica.1 write-back fence", why: ONE_LINE },
            ],
        },
    }
}

fn lines(image: &Image<'_>) {
    image.store(FRONTIER + 32, TOPIC.0.into());
    let before = ReplicaLine { durable: DURABLE_BEFORE, ..ReplicaLine::default() };
    let before = ReplicaLine { topic: BEFORE.0.into(), ..before };
    image.store_words(REPLICA, &before.to_words());
}

/// A broker that lands, and a replica; the entries that are on the replica's disk.
fn replicate(plan: &mut Plan) -> Rc<Cell<u64>> {
    let disk = Rc::new(Cell::new(0));
    let theirs = disk.clone();
    plan.process(A, |memory| land(memory));
    plan.process(B, move |memory| keep(memory, &theirs));
    disk
}

/// Everything is in the log already.
fn landed(image: &Image<'_>) {
    lines(image);
    land(image);
}

fn land(memory: &impl Memory) {
    for index in 0..ENTRIES {
        LOG.write(memory, index, &OrderEntry { client: 10 + index, ..OrderEntry::default() });
        let line = FrontierLine { entries: index + 1, ..FrontierLine::default() };
        move_frontier(memory, FRONTIER, &line);
    }
}

/// Begins its line by what is on its disk, and goes on from there.
fn keep(memory: &Process<'_>, disk: &Cell<u64>) {
    let line = |durable| ReplicaLine {
        durable,
        written: durable,
        topic: TOPIC.0.into(),
        ..ReplicaLine::default()
    };
    start_replica(memory, REPLICA, &line(disk.get()));
    while disk.get() < ENTRIES {
        let end = memory.wait_for(|| {
            let end = read_frontier(memory, FRONTIER, TOPIC).entries;
            (end > disk.get()).then_some(end)
        });
        for index in disk.get()..end {
            let entry = LOG.read(memory, index).expect("an entry below the frontier");
            assert_eq!(entry.client, 10 + index, "what is written to the disk");
        }
        // The write and the sync.
        disk.set(end);
        move_replica(memory, REPLICA, &line(end));
    }
}

fn source() -> BrokerId {
    BrokerId::new(0).expect("0 is below the bound")
}

/// A keeper that has one batch of two on its disk, and will never have the other.
fn lose(memory: &Process<'_>) {
    start_replica(
        memory,
        REPLICA,
        &ReplicaLine { topic: TOPIC.0.into(), ..ReplicaLine::default() },
    );
    note_lost(memory, LOST, TOPIC, (source(), GONE));
    let line = ReplicaLine { durable: GONE + 1, topic: TOPIC.0.into(), ..ReplicaLine::default() };
    move_replica(memory, REPLICA, &line);
}

/// Who landed the batch does not call it durable: the line that has moved past it is not seen
/// before it is named.
fn await_lost(memory: &Process<'_>) {
    memory.wait_for(|| (read_replica(memory, REPLICA, TOPIC).durable > GONE).then_some(()));
    let lost = read_lost(memory, LOST, TOPIC);
    assert!(lost.names(source(), GONE), "called durable: {lost:?}");
}

/// Waits for the durable receipts of all entries.
fn await_durable(memory: &Process<'_>, disk: &Cell<u64>) {
    memory.wait_for(|| {
        let line = read_replica(memory, REPLICA, TOPIC);
        assert!(line.durable <= disk.get(), "{} durable of {}", line.durable, disk.get());
        (line.durable == ENTRIES).then_some(())
    });
}
