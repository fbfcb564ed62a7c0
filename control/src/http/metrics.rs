//! Counters and distinct errors of every process, as they lie in the pool.

use std::collections::BTreeMap;

use landfall_layout::BrokerId;
use landfall_layout::counters::{Counter, HISTOGRAM_BUCKETS, Stage};
use landfall_layout::geometry::{CONTROL_BLOCK, PROCESS_BLOCKS};
use landfall_pool::Pool;
use landfall_pool::counters::{Counters, ErrorLog};
use serde::Serialize;

/// One process's counters.
#[derive(Serialize)]
pub(super) struct Process {
    process: String,
    counters: BTreeMap<&'static str, u64>,
    latencies: BTreeMap<&'static str, Latency>,
}

/// One stage's histogram. Bucket i counts values of at least 2^i and less than 2^(i+1)
/// nanoseconds; empty buckets at the end are left out.
#[derive(Serialize)]
struct Latency {
    count: u64,
    sum_ns: u64,
    buckets: Vec<u64>,
}

/// One distinct error, or a note, which is none.
#[derive(Serialize)]
pub(super) struct DistinctError {
    process: String,
    count: u64,
    first_ns: u64,
    last_ns: u64,
    level: &'static str,
    text: String,
}

fn name_of(block: usize) -> String {
    if block == CONTROL_BLOCK { "control".to_owned() } else { format!("broker-{block}") }
}

/// The blocks of control and of every broker that ever took its number.
fn blocks(pool: &Pool) -> impl Iterator<Item = usize> {
    (0..PROCESS_BLOCKS).filter(move |block| {
        BrokerId::new(*block).is_none_or(|broker| pool.broker(broker).incarnation != 0)
    })
}

pub(super) fn counters(pool: &Pool) -> Vec<Process> {
    blocks(pool)
        .map(|block| {
            let words = Counters::new(pool, block);
            let counters = Counter::ALL.iter();
            let counters = counters.map(|counter| (counter.name(), words.get(pool, *counter)));
            let latencies = Stage::ALL.iter().map(|stage| {
                let first = stage.first_counter();
                let word = |index| words.word(pool, first + index);
                let mut buckets: Vec<u64> =
                    (0..HISTOGRAM_BUCKETS).map(|bucket| word(2 + bucket)).collect();
                let used = buckets.iter().rposition(|count| *count != 0).map_or(0, |last| last + 1);
                buckets.truncate(used);
                (stage.name(), Latency { count: word(0), sum_ns: word(1), buckets })
            });
            Process {
                process: name_of(block),
                counters: counters.collect(),
                latencies: latencies.collect(),
            }
        })
        .collect()
}

pub(super) fn errors(pool: &Pool) -> Vec<DistinctError> {
    let of_block = |block| {
        let seen = ErrorLog::new(pool, block).entries(pool).into_iter();
        seen.filter(|entry| entry.count > 0).map(move |entry| DistinctError {
            process: name_of(block),
            count: entry.count,
            first_ns: entry.first_ns,
            last_ns: entry.last_ns,
            level: if entry.is_note() { "note" } else { "error" },
            text: entry.text().to_owned(),
        })
    };
    let mut errors: Vec<_> = blocks(pool).flat_map(of_block).collect();
    errors.sort_by_key(|error| std::cmp::Reverse(error.last_ns));
    errors
}
