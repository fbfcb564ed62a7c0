//! What a file or a source's files hold, in numbers.

use std::path::{Path, PathBuf};

use landfall_layout::order::FrontierLine;
use landfall_layout::replica::{Body, HeaderError, LOG_UNKNOWN, NO_FILE, Place, ReplicaHeader};

use crate::damage::Damage;
use crate::error::FileError;
use crate::walk::Walk;

/// What one file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSurvey {
    /// The file.
    pub path: PathBuf,
    /// What it is about.
    pub header: ReplicaHeader,
    /// What is wrong with its header, although what it is about is known.
    pub header_fault: Option<HeaderError>,
    /// Bytes it has.
    pub bytes: u64,
    /// Batches that hold.
    pub batches: u64,
    /// Bytes of them, preambles included.
    pub batch_bytes: u64,
    /// Messages in them.
    pub messages: u64,
    /// Holes: entries of positions that nothing is at.
    pub holes: u64,
    /// Log index of the first batch or hole.
    pub first: Option<u64>,
    /// Log index of the last.
    pub last: Option<u64>,
    /// First position, and the one behind the last.
    pub positions: Option<(u64, u64)>,
    /// The place behind the last record that holds; `end.index` is the log index below which the
    /// files up to this one have everything of the source, damage aside.
    pub end: Place,
    /// How far the log was ordered when the last group was committed.
    pub ordered: Option<FrontierLine>,
    /// What does not hold, with records behind it that do.
    pub damage: Vec<Damage>,
    /// What does not hold at its end: nothing behind it does.
    pub tail: Option<Damage>,
}

impl FileSurvey {
    /// Reads the file at `path` from its first to its last byte.
    pub fn take(path: &Path) -> Result<Self, FileError> {
        Self::of(&mut Walk::open(path)?, path)
    }

    /// The same for a file that is open.
    pub fn of(walk: &mut Walk, path: &Path) -> Result<Self, FileError> {
        let mut survey = Self {
            path: path.to_owned(),
            header: *walk.header(),
            header_fault: walk.header_fault(),
            bytes: walk.bytes(),
            batches: 0,
            batch_bytes: 0,
            messages: 0,
            holes: 0,
            first: None,
            last: None,
            positions: None,
            end: walk.place(),
            ordered: None,
            damage: Vec::new(),
            tail: None,
        };
        while let Some(record) = walk.next()? {
            let entry = match record.body {
                Body::Batch { entry, .. } => {
                    survey.batches += 1;
                    survey.batch_bytes += u64::from(entry.bytes);
                    survey.messages += u64::from(entry.count);
                    entry
                }
                Body::Hole { entry, .. } => {
                    survey.holes += 1;
                    entry
                }
                Body::Frontier(line) => {
                    survey.ordered = Some(line);
                    continue;
                }
            };
            let first = survey.positions.map_or(entry.first_position, |(first, _)| first);
            survey.first.get_or_insert(record.header.index);
            survey.last = Some(record.header.index);
            survey.positions = Some((first, entry.end_position()));
        }
        survey.end = walk.place();
        survey.damage = walk.damage().to_vec();
        survey.tail = survey.damage.pop_if(|damage| damage.behind.is_none());
        Ok(survey)
    }

    /// Bytes that do not hold.
    pub fn damaged_bytes(&self) -> u64 {
        self.damage.iter().chain(&self.tail).map(|damage| damage.bytes).sum()
    }

    /// Whether everything in it is as it was written.
    pub fn is_whole(&self) -> bool {
        self.header_fault.is_none() && self.damage.is_empty() && self.tail.is_none()
    }
}

/// What is wrong between two files of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seam {
    /// The later file says that another one came before it: some are missing.
    Missing {
        /// The later file.
        path: PathBuf,
        /// First index of the file that it says came before.
        wanted: u64,
        /// First index of the file that is there.
        found: Option<u64>,
    },
    /// The earlier file does not reach the later one.
    Short {
        /// The earlier file.
        path: PathBuf,
        /// Entries up to its end.
        ordinal: u64,
        /// Entries that the later one says come before it.
        wanted: u64,
    },
    /// The replica began anew here, and left something out.
    Hole {
        /// The later file.
        path: PathBuf,
        /// Log indexes that are not known to be there.
        indexes: std::ops::Range<u64>,
    },
    /// The files are of different topics, sources or logs.
    Stranger {
        /// The file that does not belong to the first.
        path: PathBuf,
    },
}

/// What the files of one source hold, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceSurvey {
    /// The files.
    pub files: Vec<FileSurvey>,
    /// What is wrong between them.
    pub seams: Vec<Seam>,
}

impl SourceSurvey {
    /// Reads the files, which are in order of their first index.
    pub fn take(files: &[(u64, PathBuf)]) -> Result<Self, FileError> {
        let mut surveys = Vec::with_capacity(files.len());
        for (_, path) in files {
            surveys.push(FileSurvey::take(path)?);
        }
        let seams = seams(&surveys);
        Ok(Self { files: surveys, seams })
    }

    /// Log index below which everything of the source is there, holes aside.
    pub fn covers(&self) -> u64 {
        self.files.last().map_or(0, |file| file.end.index)
    }
}

/// What is wrong between files that were surveyed one by one. The oldest may well say that others
/// came before it: retention takes them from the front.
pub fn seams(files: &[FileSurvey]) -> Vec<Seam> {
    let mut seams = Vec::new();
    for pair in files.windows(2) {
        let [before, after] = pair else { continue };
        let (old, new) = (&before.header, &after.header);
        let path = after.path.clone();
        let same = (old.created_ns, old.source) == (new.created_ns, new.source);
        let is_unknown = old.log == LOG_UNKNOWN || new.log == LOG_UNKNOWN;
        if !same || !(old.log == new.log || is_unknown) || old.name() != new.name() {
            seams.push(Seam::Stranger { path });
        } else if new.previous_index == NO_FILE {
            let indexes = before.end.index..new.first_index;
            seams.push(Seam::Hole { path, indexes });
        } else if new.previous_index != old.first_index {
            let found = Some(old.first_index);
            seams.push(Seam::Missing { path, wanted: new.previous_index, found });
        } else if before.end.ordinal != new.first_ordinal {
            let (ordinal, wanted) = (before.end.ordinal, new.first_ordinal);
            seams.push(Seam::Short { path: before.path.clone(), ordinal, wanted });
        }
    }
    seams
}
