//! Replicas on disk: each file, each source's files in a row, and what all of them have together.

mod find;
mod gone;
mod homes;
mod judge;
mod left;
mod level;
mod source;
mod work;

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use landfall_replica::{FileError, Silent, watch};

use crate::finding::{Finding, Findings, Severity};
use crate::mend;
use crate::pulse::BEAT;

pub use find::{Group, directories, find};
pub use level::{level_above, level_below, nothing};

/// The check of a header that does not hold and that recovering writes again.
pub const HEADER: &str = "header";
/// The check of a directory that does not answer.
pub const HANGS: &str = "hangs";

/// What is kept of everything in a directory.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// What is not as it should be.
    pub findings: Findings,
    /// What there is of each topic.
    pub topics: Vec<TopicKept>,
    /// How much was looked at.
    pub tally: FilesTally,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilesTally {
    /// Data directories.
    pub directories: u64,
    /// Replica files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Batches in them that hold.
    pub batches: u64,
}

/// What is kept of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicKept {
    /// Its name.
    pub name: String,
    /// When it was created, nanoseconds: with the name, its identity.
    pub created_ns: u64,
    /// Its order, where its file or a header says it.
    pub order: Option<&'static str>,
    /// Its logs that anything is kept of.
    pub logs: Vec<LogKept>,
    /// Its replicas.
    pub sources: Vec<SourceKept>,
}

/// What is kept of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKept {
    /// Its number.
    pub log: u8,
    /// Entries and positions that were ordered when a replica was last written.
    pub ordered: Option<(u64, u64)>,
    /// Batches, each counted once.
    pub batches: u64,
    /// Holes: entries of positions of order `token` that nobody wrote.
    pub holes: u64,
    /// Entries from the first kept one to the one behind the last.
    pub entries: Range<u64>,
    /// Their positions.
    pub positions: Range<u64>,
    /// What between and behind them is not kept here.
    pub gaps: Vec<Gap>,
    /// Positions that it passed over when pools were lost: they are in no gap.
    pub skipped: u64,
}

/// Entries that no replica here has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The entries.
    pub entries: Range<u64>,
    /// Their positions, where the entries around them say.
    pub positions: Option<Range<u64>>,
    /// Why.
    pub why: Missing,
}

/// Why an entry is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// No replica of its broker that is here had got so far: it was only in memory.
    Memory,
    /// The same, and the pool that had it was lost since.
    Past,
    /// Replicas of all brokers say they have everything there.
    Lost,
    /// It may have stood in a file that does not hold any more.
    Damaged,
    /// It may stand in a file that could not be read.
    Unread,
    /// It may be of a broker whose replicas are not here.
    Elsewhere,
    /// Files or directories that had it, or may have, are gone: those that are here begin behind
    /// it.
    Gone,
}

impl Missing {
    /// The word that documents use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Past => "past",
            Self::Lost => "lost",
            Self::Damaged => "damaged",
            Self::Unread => "unread",
            Self::Elsewhere => "elsewhere",
            Self::Gone => "gone",
        }
    }
}

/// One replica of what one broker landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceKept {
    /// Its directory.
    pub path: PathBuf,
    /// The broker whose batches these are.
    pub source: u8,
    /// Files.
    pub files: u64,
    /// Batches that hold.
    pub batches: u64,
    /// Their bytes, preambles included.
    pub bytes: u64,
    /// Log indexes within which everything of the broker is there.
    pub covers: Vec<Range<u64>>,
    /// Bytes at ends of files that do not hold.
    pub torn_bytes: u64,
}

/// Looks at a directory that changes meanwhile before an error in it is believed: the last look
/// counts, for words about what is at work change too.
const LOOKS_MAX: u32 = 4;
/// A data directory's levels: brokers, topics, ages, sources, files.
const LEVELS: u32 = 5;

/// Looks at every replica file below `path`: a broker's data directory, or one that has a
/// `broker-N` for each of several. Beside a system that runs what was read of one file may not
/// fit what was read of another a moment later: an error is looked at again there.
pub fn look(path: &Path) -> Result<Kept, FileError> {
    settled(|| state(path), || look_at_rest(path))
}

/// What `look` finds without errors, or in its last look, while `state` changes.
fn settled<S: PartialEq>(
    mut state: impl FnMut() -> S,
    mut look: impl FnMut() -> Result<Kept, FileError>,
) -> Result<Kept, FileError> {
    let mut before = state();
    let mut looks = 1;
    loop {
        let kept = look();
        let is_well = kept.as_ref().is_ok_and(|kept| kept.findings.count(Severity::Error) == 0);
        if is_well || looks == LOOKS_MAX {
            return kept;
        }
        std::thread::sleep(BEAT);
        let now = state();
        if now == before {
            return kept;
        }
        (before, looks) = (now, looks + 1);
    }
}

/// Names, lengths and times of everything below a directory.
fn state(path: &Path) -> Vec<(PathBuf, u64, (i64, i64))> {
    let mut found = Vec::new();
    let mut directories = vec![(path.to_owned(), 0)];
    while let Some((directory, level)) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if watch::is_aside(&path) {
                continue;
            }
            watch::at(&path);
            let Ok(metadata) = path.metadata() else { continue };
            if metadata.is_dir() && level + 1 < LEVELS {
                directories.push((path, level + 1));
            } else {
                found.push((path, metadata.len(), (metadata.mtime(), metadata.mtime_nsec())));
            }
        }
    }
    found.sort_unstable();
    found
}

/// The same where nobody is at work: one look, which counts.
pub fn look_at_rest(path: &Path) -> Result<Kept, FileError> {
    let mut kept = Kept::default();
    let groups = find(path, &mut kept)?;
    for group in &groups {
        let topic = judge::topic(group, &mut kept);
        kept.topics.push(topic);
    }
    kept.findings.sort();
    Ok(kept)
}

/// Says that a directory does not answer, so that nothing in it was looked at.
pub fn hangs(silent: &Silent, kept: &mut Kept) {
    kept.findings.push(Finding {
        severity: Severity::Error,
        check: HANGS,
        of: silent.path.display().to_string(),
        at: None,
        found: "it does not answer, and nothing in it was looked at; what is not here may be there"
            .to_owned(),
        mend: mend::HANGS,
    });
    kept.findings.sort();
}

#[cfg(test)]
mod tests {
    use std::fs;

    use landfall_layout::BrokerId;
    use landfall_layout::replica::{NO_FILE, ReplicaHeader};
    use landfall_layout::topic::{Order, TopicEntry};
    use landfall_replica::TopicFile;
    use landfall_replica::mend::create_directory;
    use landfall_replica::names::{replica_file, source_directory, topic_directory};

    use super::*;

    /// A data directory, removed at its end.
    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A copy of five files in a row that have no record, of a topic with such bounds; and the
    /// files.
    fn row(name: &str, disk_bytes: u64) -> (Scratch, Vec<PathBuf>) {
        let data = std::env::temp_dir().join(format!("replicas-{name}-{}", std::process::id()));
        let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
        (entry.name[0], entry.name_bytes, entry.created_ns) = (b't', 1, 7);
        (entry.order, entry.replicas, entry.replica_brokers) = (Order::None.raw(), 2, 1);
        entry.disk_bytes = disk_bytes;
        let topic = topic_directory(&data, "t", 7);
        let directory = source_directory(&topic, BrokerId::new(0).unwrap());
        create_directory(&directory).unwrap();
        TopicFile::of(&entry, "pool", 1).unwrap().write(&topic).unwrap();
        let mut header = ReplicaHeader::from_bytes([0; ReplicaHeader::BYTES as usize]);
        (header.created_ns, header.previous_index) = (7, NO_FILE);
        (header.name[0], header.name_bytes) = (b't', 1);
        let mut files = Vec::new();
        for first_index in [0, 10, 20, 30, 40] {
            header.first_index = first_index;
            files.push(replica_file(&directory, first_index));
            fs::write(files.last().unwrap(), header.seal().page()).unwrap();
            header.previous_index = first_index;
        }
        (Scratch(data), files)
    }

    /// Errors where these files were taken after the directory was listed, and files that were
    /// looked at.
    fn errors(name: &str, disk_bytes: u64, taken: &[usize]) -> (Vec<String>, u64) {
        let (scratch, files) = row(name, disk_bytes);
        let mut kept = Kept::default();
        let groups = find(&scratch.0, &mut kept).unwrap();
        taken.iter().for_each(|number| fs::remove_file(&files[*number]).unwrap());
        let topic = judge::topic(&groups[0], &mut kept);
        assert_eq!(topic.sources[0].files, kept.tally.files);
        let errors = kept.findings.kept().iter();
        let errors = errors.filter(|finding| finding.severity == Severity::Error);
        (errors.map(|finding| finding.to_string()).collect(), kept.tally.files)
    }

    #[test]
    fn what_bounds_took_while_it_was_looked_at_is_no_damage() {
        assert_eq!(errors("none", 1, &[]), (vec![], 5));
        assert_eq!(errors("one", 1, &[0]), (vec![], 4));
        assert_eq!(errors("more", 1, &[0, 1, 2]), (vec![], 2));
    }

    #[test]
    fn what_bounds_do_not_take_is_missing_all_the_same() {
        // Out of the row.
        let (found, files) = errors("row", 1, &[2]);
        assert_eq!((found.len(), files), (1, 4), "{found:?}");
        assert!(found[0].contains("the file from entry 20 is missing before it"), "{found:?}");
        let (found, _) = errors("row-and-front", 1, &[0, 2]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    /// Findings of a severity in a look at a topic in whose row a file is missing, after a change.
    fn after(name: &str, change: impl FnOnce(&Path)) -> (Kept, [u64; 3]) {
        let (scratch, files) = row(name, 1);
        fs::remove_file(&files[2]).unwrap();
        change(&topic_directory(&scratch.0, "t", 7));
        let kept = look_at_rest(&scratch.0).unwrap();
        let all = [Severity::Error, Severity::Warning, Severity::Note];
        let counts = all.map(|severity| kept.findings.count(severity));
        (kept, counts)
    }

    #[test]
    fn what_is_left_of_a_deleted_topic_is_not_judged() {
        let (kept, counts) = after("kept", |_| {});
        assert_eq!((kept.topics.len(), counts), (1, [1, 0, 0]));
        let (kept, counts) = after("deleted", |topic| TopicFile::bury(topic).unwrap());
        assert_eq!((kept.topics.len(), counts), (0, [0, 0, 1]));
        // What it says of itself does not count either.
        // Its disk was away then, and others know it.
        let (kept, counts) = after("said", |topic| {
            let data = topic.ancestors().nth(2).unwrap();
            landfall_replica::deletions::say(data, [&("t".to_owned(), 7)]).unwrap();
        });
        assert_eq!((kept.topics.len(), counts), (0, [0, 0, 1]));
        let (kept, counts) = after("buried", |topic| {
            TopicFile::bury(topic).unwrap();
            fs::write(topic.join("topic.json"), "{").unwrap();
        });
        assert_eq!((kept.topics.len(), counts), (0, [0, 0, 1]));
    }

    #[test]
    fn a_topics_file_that_was_just_being_made_is_no_damage() {
        let gone = |topic: &Path| fs::remove_file(topic.join("topic.json")).unwrap();
        let row_error = 1;
        assert_eq!(after("made", gone).1, [row_error, 1, 0]);
        // One that was written again was there, and one that is there does not hold.
        let taken = |topic: &Path| {
            TopicFile::read(topic).unwrap().write(topic).unwrap();
            gone(topic);
        };
        assert_eq!(after("taken", taken).1, [row_error + 1, 0, 0]);
        let half = |topic: &Path| fs::write(topic.join("topic.json"), "").unwrap();
        assert_eq!(after("half", half).1, [row_error + 1, 0, 0]);
    }

    /// As a directory may look that changes while it is listed: a file, and not the one before it.
    #[test]
    fn a_listing_without_a_file_that_is_there_is_made_again() {
        let (scratch, _) = row("listing", 1);
        let mut kept = Kept::default();
        let mut groups = find(&scratch.0, &mut kept).unwrap();
        groups[0].sources[0].files.remove(3);
        judge::topic(&groups[0], &mut kept);
        assert_eq!((kept.findings.count(Severity::Error), kept.tally.files), (0, 5));
    }

    /// A topic's file says where its log is before the first file is there.
    #[test]
    fn an_error_in_a_directory_that_changes_is_looked_at_again() {
        let (scratch, files) = row("moving", 1);
        let whole = fs::read(&files[2]).unwrap();
        fs::remove_file(&files[2]).unwrap();
        let errors = |kept: &Kept| kept.findings.count(Severity::Error);
        let mut looks = 0;
        let look = || {
            looks += 1;
            let kept = look_at_rest(&scratch.0);
            fs::write(&files[2], &whole).unwrap();
            kept
        };
        assert_eq!(errors(&settled(|| state(&scratch.0), look).unwrap()), 0);
        assert_eq!(looks, 2);
        // One that stays is one, and where nothing changes it is not looked at again.
        fs::remove_file(&files[2]).unwrap();
        for (changes, wanted) in [(true, LOOKS_MAX), (false, 1)] {
            let (mut looks, mut number) = (0, 0);
            let state = || {
                number += u32::from(changes);
                number
            };
            let look = || {
                looks += 1;
                look_at_rest(&scratch.0)
            };
            assert_eq!(errors(&settled(state, look).unwrap()), 1);
            assert_eq!(looks, wanted);
        }
    }
}
