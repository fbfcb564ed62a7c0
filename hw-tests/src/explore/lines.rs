//! Single lines: a writer on one host, a reader on another.

use landfall_model::mutate::{Redundant, Subject};
use landfall_model::{Crash, Image, Process, Scenario};
use landfall_pool::lines::{load_keyed, store_keyed};
use landfall_pool::topics::{read_versioned, write_versioned};

use super::takeover::{led, pool};
use super::{A, B, Family};

/// Begins two words before the end of a line.
const AT: u64 = 64 + 48;
const KEYED: u64 = 64;
/// Times that the line is written.
const ROUNDS: u64 = 2;

/// Lines whose key is stored last.
pub fn keyed() -> Family {
    Family {
        name: "keyed line",
        scenarios: vec![
            Scenario {
                name: "twice",
                image: &nothing,
                plan: &|plan| {
                    plan.process(A, |memory| {
                        for round in 1..=ROUNDS {
                            store_keyed(memory, KEYED, &[round; 4], 2);
                        }
                    });
                    plan.process(B, |memory| {
                        let mut before = 0;
                        while before < ROUNDS {
                            before = memory.wait_for(|| {
                                let words: [u64; 4] = load_keyed(memory, KEYED, 2);
                                let whole = words.iter().all(|word| *word >= words[2]);
                                assert!(whole, "a key before its words: {words:?}");
                                assert!(words[2] >= before, "a key that went back to {}", words[2]);
                                (words[2] > before).then_some(words[2])
                            });
                        }
                    });
                },
            },
            Scenario {
                name: "heartbeat",
                image: &led,
                plan: &|plan| {
                    plan.process(A, |memory| {
                        let pool = pool(*memory);
                        pool.beat_slot(0, 1);
                        pool.beat_slot(0, 2);
                    });
                    plan.process(B, |memory| {
                        let pool = pool(*memory);
                        memory.wait_for(|| (pool.heartbeat_of(0) == 2).then_some(()));
                    });
                },
            },
        ],
        subject: Subject {
            modules: &["lines::"],
            redundant: &[
                Redundant { site: "lines::store_keyed.1 write-back", why: ONE_LINE },
                Redundant { site: "lines::store_keyed.1 write-back fence", why: ONE_LINE },
            ],
        },
    }
}

pub(super) const ONE_LINE: &str =
    "the words are on one line, which arrives with its stores in order";

/// Topic entries: more than a line, with a version that is odd while they change.
pub fn versioned() -> Family {
    Family {
        name: "versioned entry",
        scenarios: vec![
            Scenario {
                name: "twice",
                image: &nothing,
                plan: &|plan| {
                    plan.process(A, write_entries);
                    plan.process(B, read_entries);
                },
            },
            Scenario {
                name: "writer killed",
                image: &nothing,
                plan: &|plan| {
                    let writer = plan.process(A, write_entries);
                    plan.process(B, read_entries);
                    plan.crash_then(Crash::Kill(writer), A, write_entries);
                },
            },
        ],
        subject: Subject { modules: &["topics::"], redundant: &[] },
    }
}

/// Words of an entry: the end of one line and the beginning of the next.
const WORDS: usize = 4;

fn nothing(_: &Image<'_>) {}

fn write_entries(memory: &Process<'_>) {
    for round in 1..=ROUNDS {
        write_versioned(memory, AT, &[round; WORDS]);
    }
}

fn read_entries(memory: &Process<'_>) {
    let last = memory.wait_for(|| {
        let words: [u64; WORDS] = read_versioned(memory, AT)?;
        let round = words[1];
        assert!(words[1..].iter().all(|word| *word == round), "an entry in pieces: {words:?}");
        (round == ROUNDS).then_some(words[0])
    });
    assert!(last.is_multiple_of(2));
}
