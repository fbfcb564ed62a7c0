//! Command rings: a producer on one host, a consumer on another.

use std::cell::Cell;
use std::rc::Rc;

use landfall_layout::command::Body;
use landfall_model::mutate::{Redundant, Subject};
use landfall_model::{Crash, Image, Plan, Process, ProcessId, Scenario};
use landfall_pool::Memory;
use landfall_pool::line_ring::{LineConsumer, LineProducer, LineRing};

use super::{A, B, C, Family};

const RING: LineRing = LineRing::behind(0, 2);
/// Lines sent: the ring is full once and lapped once.
const LINES: u64 = 3;

/// The family.
pub fn family() -> Family {
    Family {
        name: "command ring",
        scenarios: vec![
            Scenario {
                name: "full",
                image: &nothing,
                plan: &|plan| {
                    both(plan);
                },
            },
            Scenario {
                name: "producer killed",
                image: &nothing,
                plan: &|plan| {
                    let sent = both(plan);
                    plan.crash_then(Crash::Kill(sent.producer), A, move |m| {
                        produce(m, &sent.known)
                    });
                },
            },
            Scenario {
                name: "consumer killed",
                image: &nothing,
                plan: &|plan| {
                    let sent = both(plan);
                    plan.crash_then(Crash::Kill(sent.consumer), B, move |m| {
                        consume(m, &sent.known)
                    });
                },
            },
            Scenario {
                name: "producer's host lost",
                image: &nothing,
                plan: &|plan| {
                    let sent = both(plan);
                    plan.crash_then(Crash::PowerLoss(A), C, move |m| produce(m, &sent.known));
                },
            },
            Scenario {
                name: "consumer's host lost",
                image: &nothing,
                plan: &|plan| {
                    let sent = both(plan);
                    plan.crash_then(Crash::PowerLoss(B), C, move |m| consume(m, &sent.known));
                },
            },
            Scenario {
                name: "consumer's host lost, another comes",
                image: &nothing,
                plan: &|plan| {
                    let Known { taken, .. } = both(plan).known;
                    plan.crash_then(Crash::PowerLoss(B), C, move |m| {
                        consume_from(m, &taken, LineConsumer::begin(m, RING, 0));
                    });
                },
            },
        ],
        subject: Subject {
            modules: &[
                "line_ring::LineProducer::resume",
                "line_ring::LineProducer::push",
                "line_ring::LineConsumer::resume",
                "line_ring::LineConsumer::begin",
                "line_ring::LineConsumer::pop",
                "line_ring::LineConsumer::catch_up.2",
            ],
            redundant: &[
                Redundant { site: "line_ring::LineProducer::resume.1 invalidate", why: LATE_WORD },
                Redundant {
                    site: "line_ring::LineProducer::resume.1 invalidate fence",
                    why: LATE_WORD,
                },
                Redundant {
                    site: "line_ring::LineConsumer::pop.2 write-back fence",
                    why: "the fence of the next look waits for it too",
                },
            ],
        },
    }
}

/// A ring whose consumer is deposed.
pub fn deposed() -> Family {
    Family {
        name: "command ring of a deposed leader",
        scenarios: vec![
            Scenario { name: "deposed", image: &nothing, plan: &depose },
            Scenario { name: "producer killed", image: &taken_by_another, plan: &pass_over },
        ],
        subject: Subject {
            modules: &["line_ring::LineProducer::heed", "line_ring::LineConsumer::catch_up.1"],
            redundant: &[
                Redundant { site: "line_ring::LineProducer::heed.1 invalidate", why: LATE_WORD },
                Redundant {
                    site: "line_ring::LineProducer::heed.1 invalidate fence",
                    why: LATE_WORD,
                },
                Redundant {
                    site: "line_ring::LineConsumer::catch_up.1 invalidate fence",
                    why: "the fence of the next look at the ring waits for it too",
                },
            ],
        },
    }
}

const LATE_WORD: &str = "a late word of what was taken makes the ring look fuller than it is, \
    and a producer looks again before it believes that";

fn nothing(_: &Image<'_>) {}

/// What both sides know of themselves, as far as they came.
#[derive(Clone, Default)]
struct Known {
    /// Lines that the producer knows it has put in.
    pushed: Rc<Cell<u64>>,
    /// Lines that the consumer knows it has taken.
    taken: Rc<Cell<u64>>,
}

struct Sides {
    producer: ProcessId,
    consumer: ProcessId,
    known: Known,
}

fn both(plan: &mut Plan) -> Sides {
    let known = Known::default();
    let [producing, consuming] = [known.clone(), known.clone()];
    let producer = plan.process(A, move |memory| produce(memory, &producing));
    let consumer = plan.process(B, move |memory| consume(memory, &consuming));
    Sides { producer, consumer, known }
}

fn body(n: u64) -> Body {
    [10 + n, 0, 0, 0, 0, 0, 70 + n]
}

fn produce(memory: &Process<'_>, known: &Known) {
    let mut ring = LineProducer::resume(memory, RING);
    while known.pushed.get() < LINES {
        let n = known.pushed.get();
        // Whoever died after it put the line in could not say so.
        let commit = RING.at + n % RING.lines * 64 + 56;
        if memory.load(commit) != n + 1 {
            memory.wait_for(|| ring.push(memory, body(n)).then_some(()));
        }
        known.pushed.set(n + 1);
    }
}

/// Takes lines until the last. After a crash of either side the first line may be one that was
/// known before, or the one after that: whoever died could not say how far it was.
fn consume(memory: &Process<'_>, known: &Known) {
    consume_from(memory, &known.taken, LineConsumer::resume(memory, RING));
}

fn consume_from(memory: &Process<'_>, taken: &Cell<u64>, mut ring: LineConsumer) {
    while taken.get() < LINES {
        // Whoever died after it took the last line could not say so.
        if memory.has_crashed() && memory.load(RING.taken_at) >= LINES {
            break;
        }
        let Some(line) = ring.pop(memory) else {
            memory.wait();
            continue;
        };
        let n = line[0].wrapping_sub(10);
        assert_eq!(line, body(n), "a line that is not whole");
        let next = taken.get();
        let slack = u64::from(memory.has_crashed());
        assert!((next.saturating_sub(slack)..=next + slack).contains(&n), "line {n} after {next}");
        taken.set(n + 1);
    }
}

/// Where the next consumer says what it has taken, and that it comes, and is there.
const NEXT_TAKEN: u64 = 256;
const SERVES: u64 = 320;
const CLAIMED: u64 = 384;
/// Lines that are put in before the producer heeds the next consumer.
const EARLY: u64 = 3;
/// And after that.
const LATE: u64 = 1;

/// One consumer is deposed by another and does not know it: both take lines, each with a word of
/// its own. The producer heeds the new one when it hears of it; what it puts in after that arrives.
/// What the old one takes counts only if it then finds nobody who has claimed the ring.
fn depose(plan: &mut Plan) {
    plan.process(A, |memory| {
        let mut ring = LineProducer::begin(RING, 0);
        let serves = || {
            memory.refresh(SERVES, 8);
            (memory.load(SERVES) == 1).then_some(())
        };
        for n in 0..EARLY {
            // Without room for it the line is forgotten when another serves.
            while !ring.push(memory, body(n)) && serves().is_none() {
                memory.wait();
            }
        }
        memory.wait_for(serves);
        ring.heed(memory, NEXT_TAKEN);
        for n in EARLY..EARLY + LATE {
            memory.wait_for(|| ring.push(memory, body(n)).then_some(()));
        }
    });
    plan.process(B, |memory| {
        let mut ring = LineConsumer::resume(memory, RING);
        let line = memory.wait_for(|| ring.pop(memory));
        memory.refresh(CLAIMED, 8);
        if memory.load(CLAIMED) == 0 {
            check(line);
        }
    });
    plan.process(C, |memory| {
        memory.store_release(CLAIMED, 1);
        memory.publish(CLAIMED, 8);
        memory.refresh(RING.taken_at, 8);
        memory.store(NEXT_TAKEN, memory.load(RING.taken_at));
        memory.publish(NEXT_TAKEN, 8);
        let mut ring = LineConsumer::resume(memory, LineRing { taken_at: NEXT_TAKEN, ..RING });
        ring.catch_up(memory);
        memory.store_release(SERVES, 1);
        memory.publish(SERVES, 8);
        let mut next = 0;
        let mut late = EARLY;
        while late < EARLY + LATE {
            let n = check(memory.wait_for(|| ring.pop(memory)));
            assert!(n >= next, "line {n} behind line {next}");
            next = n + 1;
            if n >= EARLY {
                assert_eq!(n, late, "a line that was put in for this consumer");
                late += 1;
            }
        }
    });
}

/// Another consumer has taken two lines.
fn taken_by_another(image: &Image<'_>) {
    image.store(NEXT_TAKEN, 2);
}

/// A consumer comes late to lines that are written over, since another has taken them, by a
/// producer that is killed in the midst of it. Its successor's lines arrive.
fn pass_over(plan: &mut Plan) {
    let last = EARLY + LATE - 1;
    let producer = plan.process(A, move |memory| {
        let mut ring = LineProducer::begin(RING, 0);
        assert!(ring.push(memory, body(0)) && ring.push(memory, body(1)), "there is room");
        ring.heed(memory, NEXT_TAKEN);
        for n in 2..=last {
            memory.wait_for(|| ring.push(memory, body(n)).then_some(()));
            ring.heed(memory, RING.taken_at);
        }
    });
    plan.crash_then(Crash::Kill(producer), A, move |memory| {
        let mut ring = LineProducer::resume(memory, RING);
        memory.wait_for(|| ring.push(memory, body(last)).then_some(()));
    });
    plan.process(B, move |memory| {
        let mut ring = LineConsumer::resume(memory, RING);
        memory.wait_for(|| (check(ring.pop(memory)?) == last).then_some(()));
    });
}

/// The number of a line, which is whole.
fn check(line: Body) -> u64 {
    let n = line[0].wrapping_sub(10);
    assert_eq!(line, body(n), "a line that is not whole");
    n
}
