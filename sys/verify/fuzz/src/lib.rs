//! Broken pools: what breaks them, and what is held of every answer.
//!
//! A pool is far larger than a fuzzer's input, so an input is a list of changes to a sample that
//! has one of everything. They are made, the pool is looked at, and they are taken back.

#![forbid(unsafe_code)]

pub mod files;
pub mod sample;

use std::cell::OnceCell;

use landfall_layout::limits::LINE_BYTES;
use landfall_layout::replica::REPLICA_HEADER_BYTES;
use landfall_pool::{Memory, Pool};
use landfall_replica::{Step, Walk};
use landfall_verify::{Findings, Severity, look};

/// One word of the pool and what is put there.
pub type Change = (u64, u64);

/// Makes the changes, looks, and takes them back.
pub fn with_changes(pool: &Pool, changes: &[Change]) -> Findings {
    let before: Vec<Change> = changes.iter().map(|(at, _)| (*at, pool.load_relaxed(*at))).collect();
    changes.iter().for_each(|(at, word)| pool.store(*at, *word));
    let findings = look(pool).findings;
    // Backwards, since a word may be changed twice.
    before.iter().rev().for_each(|(at, word)| pool.store(*at, *word));
    findings
}

/// What has to be so whatever was found.
pub fn hold(pool: &Pool, findings: &Findings) {
    let counted: u64 = Severity::ALL.iter().map(|severity| findings.count(*severity)).sum();
    assert_eq!(counted, findings.kept().len() as u64 + findings.more());
    for finding in findings.kept() {
        assert!(!finding.of.is_empty() && !finding.found.is_empty(), "{finding:?}");
        let at = finding.at.expect("what is wrong in a pool is somewhere in it");
        assert!(at < pool.geometry().pool_bytes(), "{finding}");
    }
}

/// Words that any structure of the sample has, as offsets: the tables, and what the segments in
/// use have at their start.
pub fn words_in_use(pool: &Pool) -> Vec<u64> {
    let head = 0..pool.geometry().head_bytes();
    let segments = (0..pool.geometry().segments()).filter_map(|segment| {
        let at = pool.geometry().segment(landfall_layout::SegmentId(segment))?;
        Some(at..at + 64 * LINE_BYTES)
    });
    let all = std::iter::once(head).chain(segments).flat_map(|range| range.step_by(8));
    all.filter(|at| pool.load_relaxed(*at) != 0).collect()
}

thread_local! {
    static SAMPLE: OnceCell<(Pool, Vec<u64>)> = const { OnceCell::new() };
}

/// The changes that any bytes say: nine bytes each, two that choose a word in use, one that says
/// how it changes, and six with which.
fn changes(bytes: &[u8], pool: &Pool, words: &[u64]) -> Vec<Change> {
    let mut changes = Vec::new();
    for chunk in bytes.chunks_exact(9) {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        let at = words[number(&chunk[..2]) as usize % words.len()];
        let with = number(&chunk[3..]);
        let word = pool.load_relaxed(at);
        let line = at - at % LINE_BYTES;
        match chunk[2] % 6 {
            0 => changes.push((at, word ^ 1 << (with % 64))),
            1 => changes.push((at, with)),
            2 => changes.push((at, word.wrapping_add(with).wrapping_sub(1 << 47))),
            3 => changes.push((at, u64::MAX - with % 3)),
            4 => changes.extend((0..8).map(|i| (line + 8 * i, 0))),
            // A line of another structure, or of another of the same kind.
            _ => {
                let from = words[with as usize % words.len()] & !(LINE_BYTES - 1);
                let moved = (0..8).map(|i| (line + 8 * i, pool.load_relaxed(from + 8 * i)));
                changes.extend(moved);
            }
        }
    }
    changes
}

/// A pool with the changes that these bytes say: an answer, whatever they are.
pub fn pool(bytes: &[u8]) {
    SAMPLE.with(|cell| {
        let (pool, words) = cell.get_or_init(|| {
            let pool = sample::pool();
            let words = words_in_use(&pool);
            (pool, words)
        });
        let changes = changes(bytes, pool, words);
        hold(pool, &with_changes(pool, &changes));
    });
}

/// A replica file of these bytes, at `path`: records and damage stand one behind the other from
/// its header to its end, whatever the bytes are.
pub fn any_walk(path: &std::path::Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("there is room for a small file");
    let Ok(mut walk) = Walk::open(path) else { return };
    let mut at = REPLICA_HEADER_BYTES;
    while let Some(step) = walk.step().expect("the file can be read") {
        let (from, long) = match step {
            Step::Record(record) => (record.header.at, record.bytes()),
            Step::Damage(damage) => (damage.at, damage.bytes),
        };
        assert_eq!(from, at);
        assert!(long > 0, "nothing stands at byte {at}");
        at += long;
    }
    assert_eq!(at, walk.bytes().max(REPLICA_HEADER_BYTES));
}
