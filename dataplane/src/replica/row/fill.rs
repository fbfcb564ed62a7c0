//! A file written anew beside the row, and put into it once it is whole.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use landfall_layout::TopicId;
use landfall_layout::frame::GapReason;
use landfall_layout::order::FrontierLine;
use landfall_layout::replica::{Body, NO_FILE, REPLICA_HEADER_BYTES, ReplicaHeader, mark_bytes};
use landfall_pool::Pool;
use landfall_pool::clock::wall_ns;
use landfall_pool::log::{Found, LogReader};
use landfall_replica::holes::Hole;
use landfall_replica::mend::sync_directory;
use landfall_replica::merge::Wanted;
use landfall_replica::names::{list_source, replica_file};
use landfall_replica::{FileError, Merge, Skips, TopicFile};

use super::{End, Row, STEP_BYTES, Stage, Told, UNFINISHED};
use crate::replica::files::new_mark;
use crate::replica::group::{Group, Marks};

/// Log indexes that are looked at at once.
pub const LOOKS_MAX: u64 = 1 << 14;

/// Where what is missing ends.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Log index that the file behind it begins at.
    pub index: u64,
    /// Entries before that, where its header holds.
    pub ordinal: Option<u64>,
    /// It was begun anew: what lies before it may be in other copies only.
    pub is_anew: bool,
}

/// A file that is being written.
pub struct Filling {
    /// The file that does not hold, or the one behind what is missing.
    path: PathBuf,
    /// It is the one that does not hold.
    replaces: bool,
    header: ReplicaHeader,
    to: Bound,
    /// First index that the file behind names.
    name: u64,
    /// First index of the first entry.
    first: Option<u64>,
    unfinished: PathBuf,
    file: File,
    merge: Merge,
    /// What the log passed over when pools were lost: each copy was begun anew behind it.
    skips: Skips,
    at: u64,
    ordinal: u64,
    want: u64,
    /// Nothing was left out, as far as copies know.
    is_known: bool,
    /// The directory says of no hole in this copy, so that the count of the file behind is one of
    /// all that the source had landed.
    is_counted: bool,
    /// It says of one where this is to be: as many entries may be those of the hole.
    is_doubtful: bool,
    buffer: Vec<u8>,
}

impl Drop for Filling {
    fn drop(&mut self) {
        // It has its name by then, or is of no use.
        let _ = fs::remove_file(&self.unfinished);
    }
}

impl Filling {
    pub fn begin(
        path: &Path,
        replaces: bool,
        header: ReplicaHeader,
        to: Bound,
        wanted: &Wanted,
    ) -> Result<Self, FileError> {
        let mut name = path.as_os_str().to_owned();
        name.push(UNFINISHED);
        let unfinished = PathBuf::from(name);
        let options = OpenOptions::new().write(true).create(true).truncate(true).open(&unfinished);
        let file = options.map_err(FileError::io("create", &unfinished))?;
        Ok(Self {
            path: path.to_owned(),
            replaces,
            header: ReplicaHeader { mark: new_mark()?, ..header },
            to,
            name: NO_FILE,
            first: None,
            unfinished,
            file,
            merge: Merge::new(wanted),
            skips: wanted.skips(header.log.into()).0,
            at: REPLICA_HEADER_BYTES,
            ordinal: header.first_ordinal,
            want: header.first_index,
            is_known: true,
            is_counted: to.ordinal.is_some() && !says_hole(path, header.source, (0, u64::MAX)),
            is_doubtful: says_hole(path, header.source, (header.first_index, to.index)),
            buffer: Vec::new(),
        })
    }

    /// What the file behind calls the one before it.
    pub fn named_by(mut self, name: u64) -> Self {
        self.name = name;
        self
    }

    /// Writes some of what is missing. What there is, this broker's own files are read too.
    fn gather(
        &mut self,
        pool: &Pool,
        reader: &mut LogReader,
        topic: TopicId,
    ) -> Result<(), FileError> {
        let frontier = pool.frontier(topic, reader.log());
        let mut oldest = pool.oldest(topic, reader.log());
        let ReplicaHeader { created_ns, source, mark, .. } = self.header;
        let mark = mark_bytes(mark);
        let marks = Marks { topic, created_ns, source, mark, now_ns: wall_ns() };
        let buffer = std::mem::take(&mut self.buffer);
        let mut group = Group::new(marks, self.at, self.ordinal, self.want, buffer);
        for _ in 0..LOOKS_MAX {
            if self.want >= self.to.index || self.is_full(&group) {
                break;
            }
            let index = self.want;
            let entries = group.ordinal;
            if index < oldest || index >= frontier.entries {
                let until = if index < oldest { oldest.min(self.to.index) } else { self.to.index };
                self.want = self.copy(&mut group, until).map_or(until, |index| index + 1);
            } else {
                match reader.entry(pool, index) {
                    Found::Entry(entry) if entry.broker != source => self.want += 1,
                    Found::Entry(entry) => {
                        let is_hole = entry.is_hole();
                        if is_hole || group.add(pool, index, &entry).is_err() {
                            // A copy knows why nothing is there, or has what memory lost.
                            let was_known = self.is_known;
                            let is_copied = self.copy(&mut group, index + 1).is_some();
                            self.is_known = was_known && (is_copied || is_hole);
                            if is_hole && !is_copied {
                                group.add_hole(index, &entry, GapReason::Unwritten);
                            }
                        }
                        self.want += 1;
                    }
                    Found::Lapped { oldest: now } => oldest = now,
                    Found::Gone => {
                        (self.is_known, self.want) = (false, self.to.index);
                    }
                }
            }
            if group.ordinal > entries {
                self.first.get_or_insert(self.want - 1);
            }
        }
        self.write(group, &frontier)
    }

    /// Whether the group is, or there is nothing more to come.
    fn is_full(&self, group: &Group) -> bool {
        let is_all = self.to.is_anew && Some(group.ordinal) == self.to.ordinal;
        group.is_full(STEP_BYTES) || is_all && !self.is_doubtful
    }

    /// Adds the next entry below `until` that a copy has; its index.
    fn copy(&mut self, group: &mut Group, until: u64) -> Option<u64> {
        let (picked, is_known) = self.merge.next(self.want, until, &mut Vec::new());
        let next = picked.map_or(until, |picked| picked.index);
        let is_passed = is_known || self.skips.has_passed(self.want, next);
        let record = picked.and_then(|picked| self.merge.record(picked));
        // A copy's file ends where its last entry is when a pool is lost, and what others landed
        // behind that was not passed over: the copy that goes on counts as many entries as this.
        // So it is in front of a copy's first entry, and the file behind says whether that is all.
        let is_alike = record.is_some_and(|record| record.header.ordinal == group.ordinal);
        let goes_on = is_alike && self.skips.has_end(self.want, next);
        let is_first = is_alike && group.ordinal == 0 && self.is_counted;
        self.is_known &= is_passed || goes_on || is_first;
        let record = record?;
        let index = record.header.index;
        if !is_passed && is_first && !self.replaces {
            // Who reads it knows nothing of what lies before, as of the copy that it is from.
            self.header.first_index = index;
        }
        match record.body {
            Body::Batch { entry, preamble, payload } => {
                group.add_copy(index, &entry, &(preamble, payload.to_vec()));
            }
            Body::Hole { entry, reason } => group.add_hole(index, &entry, reason),
            Body::Frontier(_) => return None,
        }
        Some(index)
    }

    fn write(&mut self, mut group: Group, frontier: &FrontierLine) -> Result<(), FileError> {
        group.finish(self.want.min(self.to.index), frontier);
        let path = &self.unfinished;
        let written = self.file.write_all_at(group.records(), self.at);
        written.map_err(FileError::io("write", path))?;
        // No more is left for the end than for a step.
        self.file.sync_data().map_err(FileError::io("sync", path))?;
        (self.at, self.ordinal) = (group.end, group.ordinal);
        self.buffer = group.into_buffer();
        Ok(())
    }

    /// Whether there is nothing more to come, and what came is all that is missing.
    fn is_whole(&self) -> Option<bool> {
        let is_all = Some(self.ordinal) == self.to.ordinal;
        if self.to.ordinal.is_some_and(|ordinal| self.ordinal > ordinal) {
            return Some(false);
        }
        if self.to.is_anew && is_all && !self.is_doubtful {
            return Some(self.is_known);
        }
        // As many entries as there were are those: no copy has one that is not in the log.
        let is_end = self.want >= self.to.index;
        let is_enough = is_all && (self.is_known || !self.is_doubtful);
        is_end.then_some(is_enough || self.to.ordinal.is_none() && self.is_known)
    }

    /// Gives it its name and its place among the others, if those are still there. Where it begins.
    fn finish(&mut self, directory: &Path) -> Result<Option<u64>, FileError> {
        let files = list_source(directory, &mut Vec::new())?;
        let at = files.iter().position(|(_, path)| *path == self.path);
        let before = at.and_then(|at| at.checked_sub(1)).map(|at| files[at].0);
        let was = Some(self.header.previous_index).filter(|before| *before != NO_FILE);
        let is_there = match self.replaces {
            true => at.and_then(|at| files.get(at + 1)).is_some_and(|it| it.0 == self.to.index),
            false => at.is_some() && before == was,
        };
        if !is_there {
            return Ok(None);
        }
        if !self.replaces {
            // The name that is missed, unless there is more than belongs into one file.
            let named = self.header.first_index..=self.first.unwrap_or(self.header.first_index);
            let is_taken = |name: u64| files.iter().any(|(first_index, _)| *first_index == name);
            if named.contains(&self.name) && self.name != NO_FILE && !is_taken(self.name) {
                self.header.first_index = self.name;
            } else if is_taken(self.header.first_index) {
                self.header.first_index = self.first.unwrap_or(self.header.first_index);
            }
            if is_taken(self.header.first_index) {
                return Ok(None);
            }
        }
        let path = &self.unfinished;
        let write = |file: &File| {
            file.write_all_at(&self.header.seal().page(), 0)?;
            // Bounds go by it: nothing in here is younger than that.
            file.set_modified(self.path.metadata()?.modified()?)?;
            file.sync_all()
        };
        write(&self.file).map_err(FileError::io("write", path))?;
        let named = replica_file(directory, self.header.first_index);
        fs::rename(path, &named).map_err(FileError::io("rename", path))?;
        sync_directory(directory)?;
        Ok(Some(self.header.first_index))
    }
}

/// Whether the topic's directory says of a hole in the copy of `source` that the file `path` is of,
/// at log indexes of a range, or of something that it went on without.
fn says_hole(path: &Path, source: u8, (from, to): (u64, u64)) -> bool {
    let topic = path.ancestors().nth(2).and_then(|topic| TopicFile::read(topic).ok());
    topic.is_none_or(|topic| {
        let mut lacks = topic.places.lacks.iter();
        let is_in = |hole: &Hole| hole.source == source && hole.from < to && from < hole.to;
        lacks.any(|lack| lack.source == source && lack.is_torn && from < lack.below)
            || topic.holes.iter().any(is_in)
    })
}

impl Row {
    /// Goes on with a file, and puts it into the row if it is whole.
    pub(super) fn fill(&mut self, mut filling: Box<Filling>, pool: &Pool) -> Vec<Told> {
        let key = if filling.replaces { filling.header.first_index } else { filling.to.index };
        let topic = TopicId(self.template.topic);
        if let Err(error) = filling.gather(pool, &mut self.reader, topic) {
            return self.cannot(key, &filling.path, &error);
        }
        let is_piece = !filling.replaces && filling.is_known && filling.at >= self.file_bytes;
        match filling.is_whole() {
            None if is_piece => {}
            None => {
                self.stage = Stage::Fill(filling);
                return Vec::new();
            }
            Some(true) => {}
            Some(false) => {
                self.tried.insert(key);
                return self.nowhere(key, &filling.path).into_iter().collect();
            }
        }
        let first_index = match filling.finish(&self.directory) {
            Ok(Some(first_index)) => first_index,
            // Bounds were first, or it is looked at anew.
            Ok(None) => {
                self.tried.insert(key);
                return Vec::new();
            }
            Err(error) => return self.cannot(key, &filling.path, &error),
        };
        let index = filling.want.min(filling.to.index);
        // The file that it is about is compared with what is before it once more.
        self.ends.insert(first_index, End { index, ordinal: filling.ordinal });
        let path = replica_file(&self.directory, first_index);
        let entries = filling.ordinal - filling.header.first_ordinal;
        vec![Told::Mended(format!(
            "{}: it did not hold, or was missing, and is written again with {entries} entries at \
             log indexes {first_index} to {index}",
            path.display()
        ))]
    }
}
