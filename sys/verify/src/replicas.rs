//! Replicas on disk: each file, each source's files in a row, and what all of them have together.

mod find;
mod gone;
mod homes;
mod judge;
mod level;
mod source;

use std::ops::Range;
use std::path::{Path, PathBuf};

use landfall_replica::FileError;

use crate::finding::Findings;

pub use find::{Group, directories, find};
pub use level::{level_above, level_below, nothing};

/// The check of a header that does not hold and that recovering writes again.
pub const HEADER: &str = "header";

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
    /// Replicas of all brokers say they have everything there.
    Lost,
    /// It may have stood in a file that does not hold any more.
    Damaged,
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
            Self::Lost => "lost",
            Self::Damaged => "damaged",
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

/// Looks at every replica file below `path`: a broker's data directory, or one that has a
/// `broker-N` for each of several.
pub fn look(path: &Path) -> Result<Kept, FileError> {
    let mut kept = Kept::default();
    let groups = find(path, &mut kept)?;
    for group in &groups {
        let topic = judge::topic(group, &mut kept);
        kept.topics.push(topic);
    }
    kept.findings.sort();
    Ok(kept)
}
