//! The sample as it is, with random damage, and as files that are no pools.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use landfall_layout::SegmentId;
use landfall_layout::limits::LINE_BYTES;
use landfall_layout::order::{ChainLine, FrontierLine};
use landfall_layout::segment::{SegmentKind, What};
use landfall_pool::map::memfd;
use landfall_pool::{Memory, Pool};
use landfall_verify::{Severity, look, read_only, verify};
use landfall_verify_fuzz::{Change, hold, pool as any_bytes, sample, with_changes, words_in_use};

/// xorshift64*: the same damage on every machine, so that a failure comes back.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[(self.next() % all.len() as u64) as usize]
    }
}

/// Words at which checks change their minds.
const EDGES: [u64; 12] = [
    0,
    1,
    0xff,
    0xffff,
    0xffff_ffff,
    1 << 32,
    1 << 47,
    1 << 63,
    u64::MAX - 63,
    u64::MAX - 1,
    u64::MAX,
    0x5a5a_5a5a_5a5a_5a5a,
];

#[test]
fn nothing_is_wrong_with_the_sample() {
    let pool = sample::pool();
    let look = look(&pool);
    let found: Vec<String> = look.findings.kept().iter().map(ToString::to_string).collect();
    assert_eq!(found, [] as [String; 0]);
    assert_eq!((look.tally.topics, look.tally.sessions), (3, 4));
    assert_eq!((look.tally.entries, look.tally.slots), (36 + 10 + 4, 4));
    assert_eq!(look.tally.batches, look.tally.entries + look.tally.slots);
    assert!(words_in_use(&pool).len() > 1000);
}

#[test]
fn a_pool_at_rest_is_looked_at_once() {
    let report = verify(&sample::pool());
    assert!(!report.moving && report.findings.is_empty());
    assert_eq!(report.looks, 1);
}

#[test]
fn a_log_that_came_back_and_that_nobody_went_on_with_is_whole() {
    let pool = sample::pool();
    let none = SegmentId::NONE.0;
    let log = 5;
    pool.start_frontier(sample::OWN, log);
    let line = FrontierLine { entries: 9, position: 90, ..FrontierLine::default() };
    pool.advance_frontier(sample::OWN, log, &line);
    let mut chain = ChainLine {
        oldest_index: 9,
        oldest_position: 90,
        head: none,
        tail: none,
        topic: sample::OWN.0.into(),
        ..ChainLine::default()
    };
    pool.set_chain(sample::OWN, log, &chain);
    let found = look(&pool).findings;
    assert!(found.is_empty(), "{:?}", found.kept());
    // With entries that it should have, a log without a segment is not.
    chain.oldest_index = 8;
    pool.set_chain(sample::OWN, log, &chain);
    assert!(!look(&pool).findings.is_empty());
}

/// Whether a word of the pool says something that is not said anywhere else, and that has to hold:
/// lines of logs and rings, order logs, batches. Used-up slots and commands may be anything.
fn matters(pool: &Pool, at: u64) -> bool {
    let geometry = pool.geometry();
    let logs = geometry.log_lines(0)..geometry.log_lines(255);
    let frontiers = geometry.frontier(0, 0)..geometry.frontier(255, 31);
    let holds = (0..geometry.segments()).any(|segment| {
        let start = geometry.segment(SegmentId(segment)).unwrap();
        let what = pool.segment_header(SegmentId(segment)).unwrap().what;
        let kind = What::unpack(what).unwrap().kind;
        let is_data = matches!(kind, SegmentKind::Payload | SegmentKind::OrderLog);
        is_data && (start..start + geometry.segment_bytes()).contains(&at)
    });
    logs.contains(&at) || frontiers.contains(&at) || holds
}

#[test]
fn any_bit_of_it_may_be_wrong() {
    let pool = sample::pool();
    let (mut found, mut flips) = (0_u64, 0_u64);
    for at in words_in_use(&pool) {
        let word = pool.load_relaxed(at);
        let matters = matters(&pool, at);
        // Each word once in each quarter of it: all bits would be sixteen times as long.
        for bit in (at / 8 % 16..64).step_by(16) {
            let findings = with_changes(&pool, &[(at, word ^ 1 << bit)]);
            hold(&pool, &findings);
            found += u64::from(matters && !findings.is_empty());
            flips += u64::from(matters);
        }
    }
    // Times that grow a little and words that are reserved are nobody's to judge.
    assert!(flips > 5_000, "{flips} flips");
    assert!(found * 100 > flips * 95, "{found} of {flips} flips were found");
}

#[test]
fn any_words_and_lines_of_it_may_be_wrong() {
    let pool = sample::pool();
    let words = words_in_use(&pool);
    let mut random = Random(0x9e37_79b9);
    for _ in 0..6_000 {
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..=random.next() % 6 {
            let at = *random.of(&words);
            let line = at - at % LINE_BYTES;
            match random.next() % 5 {
                0 => changes.push((at, random.next())),
                1 => changes.push((at, *random.of(&EDGES))),
                2 => changes.push((at, pool.load_relaxed(*random.of(&words)))),
                3 => changes.extend((0..8).map(|i| (line + 8 * i, 0))),
                _ => {
                    let from = *random.of(&words) & !(LINE_BYTES - 1);
                    let copied = (0..8).map(|i| (line + 8 * i, pool.load_relaxed(from + 8 * i)));
                    changes.extend(copied);
                }
            }
        }
        hold(&pool, &with_changes(&pool, &changes));
    }
}

#[test]
fn a_pool_of_noise_is_looked_at_in_bounds() {
    let pool = sample::pool();
    let mut random = Random(7);
    for _ in 0..3 {
        for at in (64..pool.geometry().head_bytes()).step_by(8) {
            // Half of it edges, so that lengths and indices are at their worst.
            let word =
                if random.next().is_multiple_of(2) { *random.of(&EDGES) } else { random.next() };
            pool.store(at, word);
        }
        let look = look(&pool);
        hold(&pool, &look.findings);
        assert!(look.findings.count(Severity::Error) > 100);
    }
}

#[test]
fn inputs_of_the_fuzz_target_are_answered() {
    let mut random = Random(11);
    for length in 0..400 {
        let bytes: Vec<u8> = (0..length % 90).map(|_| random.next() as u8).collect();
        any_bytes(&bytes);
    }
}

/// A file in memory with the first `bytes` bytes of the sample.
fn part(pool: &Pool, bytes: u64) -> (OwnedFd, PathBuf) {
    let fd = memfd("landfall-part", bytes).unwrap();
    let file = File::from(fd.try_clone().unwrap());
    for at in (0..bytes.min(1 << 20)).step_by(8) {
        let word = pool.load_relaxed(at).to_le_bytes();
        file.write_all_at(&word[..8.min((bytes - at) as usize)], at).unwrap();
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    (fd, path)
}

#[test]
fn a_file_that_is_no_whole_pool_is_refused_with_its_numbers() {
    let pool = sample::pool();
    for (bytes, says) in [
        (0, "no pool yet"),
        (7, "something else"),
        (64, "too short"),
        (4096, "too short"),
        ((56 << 20) - 4096, "too short"),
    ] {
        let (_fd, path) = part(&pool, bytes);
        let error = read_only(&path).err().expect("a part of a pool").to_string();
        assert!(error.contains(says), "{bytes} bytes: {error}");
    }
    let (fd, path) = part(&pool, 56 << 20);
    let file = File::from(fd);
    for (at, word, says) in [
        (0, 5_u64, "something else"),
        (8, 0x99, "format version 153"),
        (8, u64::from(landfall_layout::pool::VERSION) | 7 << 32, "coherence mode 7"),
        (32, 1 << 50, "too short"),
        (32, 100, "header that cannot be"),
        (40, 12345, "segment of 12345"),
        (48, 0, "0 sessions"),
        (48, 16 | 3 << 32, "3 segments"),
    ] {
        let before = pool.load_relaxed(at).to_le_bytes();
        file.write_all_at(&word.to_le_bytes(), at).unwrap();
        let error = read_only(&path).err().expect("a header that cannot be").to_string();
        assert!(error.contains(says), "{word:#x} at {at}: {error}");
        file.write_all_at(&before, at).unwrap();
    }
    assert!(read_only(&path).is_ok());
}

#[test]
fn a_copy_on_a_disk_is_looked_at_too() {
    let pool = sample::pool();
    let path = std::env::temp_dir().join(format!("landfall-verify-{}", std::process::id()));
    let file = File::create(&path).unwrap();
    file.set_len(pool.geometry().pool_bytes()).unwrap();
    let mut bytes = Vec::new();
    for at in (0..pool.geometry().pool_bytes()).step_by(8) {
        bytes.extend_from_slice(&pool.load_relaxed(at).to_le_bytes());
    }
    file.write_all_at(&bytes, 0).unwrap();
    let copy = read_only(&path);
    std::fs::remove_file(&path).unwrap();
    let found = look(&copy.unwrap());
    assert!(found.findings.is_empty(), "{:?}", found.findings.kept());
    assert_eq!(found.tally, look(&pool).tally);
}
