//! Damage of every kind to every kind of file: what holds and was not hit is neither lost nor
//! changed, verify reports it, and recover can be run again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use landfall_layout::replica::{Body, REPLICA_HEADER_BYTES, Record};
use landfall_replica::Walk;
use landfall_replica::names::{TOPIC_FILE, replica_file};
use landfall_verify::replicas::look_at_rest as look;
use landfall_verify::{Severity, recover};
use landfall_verify_fuzz::files::{Odd, SECOND_FILE, write};

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as usize % bound.max(1)
    }
}

/// A record by where it stands: its bytes, whole.
type Records = BTreeMap<usize, Vec<u8>>;

fn bytes_of(record: &Record<'_>) -> usize {
    record.bytes() as usize
}

/// The records of a file, as the walk finds them.
fn records(path: &Path) -> Option<Records> {
    let file = fs::read(path).ok()?;
    let mut walk = Walk::open(path).ok()?;
    let mut found = Records::new();
    while let Some(record) = walk.next().unwrap() {
        let at = record.header.at as usize;
        found.insert(at, file[at..at + bytes_of(&record)].to_vec());
    }
    Some(found)
}

/// What is done to a file: which of its bytes are others afterwards.
fn spoil(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    let long = 1 + random.below(700);
    let end = (at + long).min(bytes.len());
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at..end].fill(0),
        2 => bytes[at..end].fill(0xff),
        3 => (at..end).for_each(|at| bytes[at] = random.below(256) as u8),
        // Records of elsewhere in the file, where others belong.
        4 => {
            let from = random.below(bytes.len() / 64) * 64;
            let line = at / 64 * 64;
            let copied = bytes[from..(from + 640).min(bytes.len())].to_vec();
            let room = bytes.len() - line;
            let some = copied.len().min(room);
            bytes[line..line + some].copy_from_slice(&copied[..some]);
        }
        _ => bytes.truncate(at),
    }
}

/// A directory of that name, in memory where that can be had: thousands of files are written anew
/// and synced.
fn place(name: &str) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("landfall-{name}-{}", std::process::id()))
}

#[test]
fn what_holds_and_was_not_hit_is_neither_lost_nor_changed() {
    let data = place("damage");
    let scratch = Scratch(data.clone());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..300 {
        let replicas = write(&data, Odd { hole: Some(6), ..Odd::default() }).unwrap();
        let paths: Vec<PathBuf> = replicas
            .iter()
            .flat_map(|replica| [replica_file(replica, 0), replica_file(replica, SECOND_FILE)])
            .collect();
        // One replica's file, so that what is missing is in the other.
        let hit = &paths[random.below(paths.len())];
        let whole = fs::read(hit).unwrap();
        let all = records(hit).unwrap();
        let mut bytes = whole.clone();
        for _ in 0..=random.below(2) {
            if bytes.len() > 64 {
                spoil(&mut bytes, &mut random);
            }
        }
        fs::write(hit, &bytes).unwrap();
        let intact: Records = all
            .iter()
            .filter(|(at, record)| bytes.get(**at..**at + record.len()) == Some(&record[..]))
            .map(|(at, record)| (*at, record.clone()))
            .collect();
        let check = |when: &str| {
            let found = records(hit).unwrap_or_default();
            // A file whose header is gone and that has no record is one that was just begun.
            let wanted = if intact.is_empty() { Records::new() } else { intact.clone() };
            for (at, record) in &wanted {
                assert_eq!(found.get(at), Some(record), "round {round}, {when}: byte {at}");
            }
            for (at, record) in &found {
                assert_eq!(all.get(at), Some(record), "round {round}, {when}: made up at {at}");
            }
        };
        check("damaged");
        let kept = look(&data).unwrap();
        let is_hit = bytes.len() < whole.len()
            || (0..256).chain(4096..whole.len()).any(|at| bytes[at] != whole[at]);
        let worst = kept.findings.kept().first().map(|finding| finding.severity);
        assert!(!is_hit || worst >= Some(Severity::Warning), "round {round}: nothing reported");
        // All that is not as a crash leaves it is an error.
        let is_inner = intact
            .keys()
            .next_back()
            .is_some_and(|last| all.range(..last).any(|(at, _)| !intact.contains_key(at)));
        assert!(!is_inner || worst == Some(Severity::Error), "round {round}: {:?}", kept.findings);
        assert!(kept.topics[0].logs[0].gaps.is_empty(), "round {round}: the other copy has it");
        recover::files(&data, false).unwrap();
        check("recovered");
        let once: Vec<_> = paths.iter().map(|path| fs::read(path).ok()).collect();
        assert_eq!(recover::files(&data, false).unwrap().done, [""; 0], "round {round}");
        let twice: Vec<_> = paths.iter().map(|path| fs::read(path).ok()).collect();
        assert_eq!(once, twice, "round {round}");
        fs::remove_dir_all(&data).unwrap();
    }
    drop(scratch);
}

#[test]
fn what_no_copy_has_is_an_error_and_never_only_in_memory() {
    let data = place("damage-both");
    let _scratch = Scratch(data.clone());
    let [own, copied, ..] = write(&data, Odd::default()).unwrap();
    // The same batch of both copies; then the last record of both, in its whole length; then both
    // of an earlier file's end.
    for (file, from_end) in [(0, None), (SECOND_FILE, Some(10)), (0, Some(200))] {
        let mut wholes = Vec::new();
        for replica in [&own, &copied] {
            let path = replica_file(replica, file);
            let whole = fs::read(&path).unwrap();
            let mut bytes = whole.clone();
            match from_end {
                None => bytes[REPLICA_HEADER_BYTES as usize + 200] ^= 1,
                Some(back) => {
                    let at = bytes.len() - back;
                    bytes[at - 200..].fill(0x33);
                }
            }
            fs::write(&path, bytes).unwrap();
            wholes.push((path, whole));
        }
        let kept = look(&data).unwrap();
        let gaps = &kept.topics[0].logs[0].gaps;
        assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap.why.word() == "damaged"), "{gaps:?}");
        assert!(kept.findings.count(Severity::Error) > 0);
        for (path, whole) in wholes {
            fs::write(path, whole).unwrap();
        }
    }
    assert!(look(&data).unwrap().findings.is_empty());
}

#[test]
fn the_walk_ends_over_any_bytes_and_makes_nothing_up() {
    let directory = place("damage-any");
    let _scratch = Scratch(directory.clone());
    let [own, ..] = write(&directory, Odd::default()).unwrap();
    let path = replica_file(&own, 0);
    let whole = fs::read(&path).unwrap();
    let all = records(&path).unwrap();
    let mut random = Random(7);
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random.below(12) {
            if bytes.len() > 64 {
                spoil(&mut bytes, &mut random);
            }
        }
        landfall_verify_fuzz::any_walk(&path, &bytes);
        fs::write(&path, &bytes).unwrap();
        for (at, record) in records(&path).unwrap_or_default() {
            assert_eq!(all.get(&at), Some(&record));
        }
    }
    assert!(Walk::open(&path.with_file_name(TOPIC_FILE)).is_err());
    let is_batch = |record: &Record<'_>| matches!(record.body, Body::Batch { .. });
    fs::write(&path, &whole).unwrap();
    let mut walk = Walk::open(&path).unwrap();
    assert!(walk.next().unwrap().is_some_and(|record| is_batch(&record)));
}
