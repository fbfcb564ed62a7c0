//! Order logs: the sequencer writes entries and moves the frontier, readers on another host follow.

use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::{SegmentId, TopicId};
use landfall_model::mutate::Subject;
use landfall_model::{Crash, Image, Plan, Process, Scenario};
use landfall_pool::Memory;
use landfall_pool::lines::{move_frontier, move_own_frontier, read_frontier, read_own_frontier};
use landfall_pool::log::LogSegment;

use super::{A, B, C, Family};

const TOPIC: TopicId = TopicId(7);
const FRONTIER: u64 = 0;
/// Word of the frontier line that says whose it is.
const FRONTIER_TOPIC: u64 = FRONTIER + 32;
const LOG: LogSegment = LogSegment { segment: SegmentId(0), at: 64, base: 0, capacity: 4 };
/// Bursts, by the entries they end at.
const BURSTS: [u64; 2] = [1, 3];

/// The family.
pub fn family() -> Family {
    Family {
        name: "order log and frontier",
        scenarios: vec![
            Scenario { name: "two bursts", image: &topic, plan: &writer_and_reader },
            Scenario {
                name: "sequencer's host lost",
                image: &topic,
                plan: &|plan| {
                    plan.process(A, write);
                    plan.process(B, |memory| {
                        let seen = read(memory, 0);
                        if !memory.has_crashed() {
                            memory.wait_for(|| {
                                let now = read(memory, seen);
                                (now == BURSTS[1] || memory.has_crashed()).then_some(())
                            });
                        }
                    });
                    plan.crash(Crash::PowerLoss(A));
                    // Whatever is below the frontier then is there for good.
                    plan.after(C, |memory| {
                        read(memory, 0);
                    });
                },
            },
            Scenario {
                name: "broker killed, own log",
                image: &topic,
                plan: &|plan| {
                    let broker = plan.process(A, land);
                    plan.crash_then(Crash::Kill(broker), A, land);
                    plan.after(A, count);
                },
            },
            Scenario {
                name: "broker killed, and counted by another",
                image: &topic,
                plan: &|plan| {
                    let broker = plan.process(A, land);
                    plan.crash(Crash::Kill(broker));
                    plan.after(A, |memory| {
                        let line = read_own_frontier(memory, FRONTIER, TOPIC);
                        assert_eq!(line.bytes, BYTES * line.entries, "{line:?}");
                    });
                },
            },
        ],
        subject: Subject {
            modules: &["log::", "lines::move_frontier", "lines::read_frontier"],
            redundant: &[],
        },
    }
}

fn topic(image: &Image<'_>) {
    image.store(FRONTIER_TOPIC, TOPIC.0.into());
}

fn writer_and_reader(plan: &mut Plan) {
    plan.process(A, write);
    plan.process(B, |memory| {
        let mut seen = 0;
        while seen < BURSTS[1] {
            seen = memory.wait_for(|| {
                let now = read(memory, seen);
                (now > seen).then_some(now)
            });
        }
    });
}

fn write(memory: &Process<'_>) {
    let mut index = 0;
    for end in BURSTS {
        while index < end {
            let entry = OrderEntry { first_position: 10 + index, ..OrderEntry::default() };
            LOG.write(memory, index, &entry);
            index += 1;
        }
        let line = FrontierLine { entries: end, position: 10 + end, ..FrontierLine::default() };
        move_frontier(memory, FRONTIER, &line);
    }
}

/// Bytes of a batch.
const BYTES: u64 = 64;

/// A broker lands bursts in its own log, from where the process before it ended.
fn land(memory: &Process<'_>) {
    let mut line = read_own_frontier(memory, FRONTIER, TOPIC);
    for end in BURSTS.into_iter().chain([BURSTS[1] + 1]) {
        let burst = end.saturating_sub(line.entries);
        if burst > 0 {
            line.entries = end;
            line.bytes += BYTES * burst;
            move_own_frontier(memory, FRONTIER, &line);
        }
    }
}

fn count(memory: &Process<'_>) {
    let line = read_own_frontier(memory, FRONTIER, TOPIC);
    let counted = (line.entries, line.bytes);
    assert_eq!(counted, (BURSTS[1] + 1, BYTES * (BURSTS[1] + 1)), "bytes counted twice");
}

/// Reads what is new below the frontier, and says how far that is.
fn read(memory: &Process<'_>, seen: u64) -> u64 {
    let line = read_frontier(memory, FRONTIER, TOPIC);
    assert!(line.entries >= seen, "a frontier that went back to {}", line.entries);
    assert!(line.entries == 0 || line.position >= 10 + line.entries, "no position: {line:?}");
    for index in seen..line.entries {
        let entry = LOG.read(memory, index).map(|entry| entry.first_position);
        assert_eq!(entry, Some(10 + index), "entry {index} below the frontier {}", line.entries);
    }
    line.entries
}
