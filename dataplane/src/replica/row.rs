//! The files of a replica behind which others were begun: each is read once after a start, and what
//! does not hold or is missing is written again.
//!
//! All that is done at once is bounded: what was landed meanwhile waits for no more than that.

mod count;
mod faults;
mod fill;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::replica::{NO_FILE, REPLICA_HEADER_BYTES, ReplicaHeader};
use landfall_pool::Pool;
use landfall_pool::clock::wall_ns;
use landfall_pool::log::LogReader;
use landfall_replica::mend::{settle, write_header};
use landfall_replica::merge::Wanted;
use landfall_replica::names::list_source;
use landfall_replica::walk::Sight;
use landfall_replica::{FileError, Merge, Walk};

use super::keep::Bounds;
use super::one::is_short;
use count::Counting;
use faults::{Fault, is_damage, is_gone, say_broken};
use fill::{Bound, Filling};

pub use faults::Told;

/// Bytes that are read, or written, at once.
const STEP_BYTES: u64 = 1 << 20;
/// How often is looked again for what was nowhere, nanoseconds.
const RETRY_NS: u64 = 60_000_000_000;
/// What the name of a file ends with that is not whole yet.
const UNFINISHED: &str = ".unfinished";

/// Where a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    /// Log index below which it has everything, from where it begins on.
    index: u64,
    /// Entries up to there, of all files.
    ordinal: u64,
}

enum Stage {
    Look,
    Read { walk: Box<Walk>, first_index: u64 },
    Count(Box<Counting>),
    Fill(Box<Filling>),
    Rest { until_ns: u64 },
}

/// The files of a replica, but for the last one.
pub struct Row {
    directory: PathBuf,
    template: ReplicaHeader,
    file_bytes: u64,
    bounds: Bounds,
    others_have: u64,
    /// Bounds let go of the oldest files, or may have.
    is_bounded: bool,
    /// The copy is this broker's own, and begins with the log.
    is_home: bool,
    wanted: Wanted,
    reader: LogReader,
    /// First index of the file that was the last one at the start.
    last: u64,
    /// Files that hold, and where they end.
    ends: BTreeMap<u64, End>,
    /// What is wrong with a file or in front of it, by the file's first index.
    faults: BTreeMap<u64, Fault>,
    /// Files that there is nothing more to do about for now.
    tried: BTreeSet<u64>,
    /// Something is missing in the last file.
    is_last_torn: bool,
    stage: Stage,
}

/// What a row belongs to.
pub struct Whose {
    pub template: ReplicaHeader,
    pub file_bytes: u64,
    pub bounds: Bounds,
    /// Where another copy that can be read begins before this one: bytes that it has from there on.
    pub others_have: Option<u64>,
    pub is_home: bool,
    pub reader: LogReader,
    /// Data directories, this broker's own first.
    pub data: Vec<PathBuf>,
}

impl Row {
    /// Looks at the headers of the files in `directory`, of which the last one begins at `last`:
    /// a file that is missing is seen at once. What was being written when a process ended goes.
    pub fn open(directory: &Path, last: Option<u64>, whose: Whose) -> (Self, Vec<Told>) {
        let Whose { template, file_bytes, bounds, others_have, is_home, reader, data } = whose;
        let (name, created_ns) = (template.name().to_owned(), template.created_ns);
        let sources = BrokerId::new(usize::from(template.source)).into_iter().collect();
        let mut row = Self {
            directory: directory.to_owned(),
            template,
            file_bytes,
            bounds,
            others_have: others_have.unwrap_or_default(),
            is_bounded: bounds.is_set() && others_have.is_none(),
            is_home,
            wanted: Wanted { data, name, created_ns, sources, is_shared: false, stood_in: None },
            reader,
            last: last.unwrap_or_default(),
            ends: BTreeMap::new(),
            faults: BTreeMap::new(),
            tried: BTreeSet::new(),
            is_last_torn: false,
            stage: if last.is_some() { Stage::Look } else { Stage::Rest { until_ns: u64::MAX } },
        };
        let mut strangers = Vec::new();
        let files = list_source(directory, &mut strangers).unwrap_or_default();
        for path in strangers {
            if path.to_str().is_some_and(|path| path.ends_with(UNFINISHED)) {
                // What cannot be removed is written over when its file is filled again.
                let _ = fs::remove_file(path);
            }
        }
        row.look_at_bounds(&files);
        let told = row.look_at_heads(&files);
        (row, told)
    }

    fn look_at_heads(&mut self, files: &[(u64, PathBuf)]) -> Vec<Told> {
        let mut told = Vec::new();
        for (i, (first_index, path)) in files.iter().enumerate() {
            let Some(header) = head(path) else { continue };
            let before = i.checked_sub(1).map(|i| files[i].0);
            match before {
                Some(before) if ![before, NO_FILE].contains(&header.previous_index) => {
                    let what = format!(
                        "the file before it, which begins at log index {}, is missing",
                        header.previous_index
                    );
                    let range = header.previous_index.min(*first_index)..*first_index;
                    told.extend(self.fault(*first_index, path, (&what, range)));
                }
                None if self.is_beheaded(&header) => {
                    // Whoever compares the beginnings of copies tells of a home's.
                    let range = 0..*first_index;
                    let said = self.fault(*first_index, path, ("files before it are gone", range));
                    told.extend(said.filter(|_| !self.is_home));
                }
                _ => {}
            }
        }
        told
    }

    /// Where another copy begins before this one, looks whether bounds may have taken what is in
    /// front of these files.
    fn look_at_bounds(&mut self, files: &[(u64, PathBuf)]) {
        if self.bounds.is_set() && !self.is_bounded {
            let bytes = files.iter().filter_map(|(_, path)| Some(path.metadata().ok()?.len()));
            // Of these some may be gone or cut.
            let bytes = (bytes.sum::<u64>().max(self.others_have), self.file_bytes);
            self.is_bounded = self.bounds.may_have_taken(bytes, self.template.created_ns);
        }
    }

    /// Whether bounds let go of the oldest files, or may have.
    pub fn is_bounded(&self) -> bool {
        self.is_bounded
    }

    /// Whether files are missing in front of the first one.
    fn is_beheaded(&self, header: &ReplicaHeader) -> bool {
        !self.is_bounded && (header.previous_index != NO_FILE || header.first_ordinal > 0)
    }

    /// Whether something is missing, as far as is known.
    pub fn is_torn(&self) -> bool {
        self.is_last_torn || !self.faults.is_empty()
    }

    /// Entries are missing in the last file, and nobody has them.
    pub fn last_is_torn(&mut self) {
        self.is_last_torn = true;
    }

    /// Where the file in front of the one at log index `to` ends, if it was read: the index, and
    /// entries up to there.
    pub fn end_before(&self, to: u64) -> Option<(u64, u64)> {
        let files = list_source(&self.directory, &mut Vec::new()).ok()?;
        let (before, _) = files.into_iter().rev().find(|(first_index, _)| *first_index < to)?;
        self.ends.get(&before).map(|end| (end.index, end.ordinal))
    }

    /// Does the next bit of what there is to do; nothing, if there is nothing for now.
    pub fn step(&mut self, pool: &Pool, now_ns: u64) -> Option<Vec<Told>> {
        match std::mem::replace(&mut self.stage, Stage::Look) {
            Stage::Rest { until_ns } if now_ns < until_ns => {
                self.stage = Stage::Rest { until_ns };
                None
            }
            Stage::Rest { .. } => {
                let faults = &self.faults;
                self.tried.retain(|first_index| !faults.contains_key(first_index));
                Some(Vec::new())
            }
            Stage::Look => Some(self.look(now_ns)),
            Stage::Read { walk, first_index } => Some(self.read(walk, first_index)),
            Stage::Count(counting) => Some(self.counted(counting, pool)),
            Stage::Fill(filling) => Some(self.fill(filling, pool)),
        }
    }

    /// Takes up the next file.
    fn look(&mut self, now_ns: u64) -> Vec<Told> {
        let Ok(files) = list_source(&self.directory, &mut Vec::new()) else {
            self.stage = Stage::Rest { until_ns: now_ns + RETRY_NS };
            return Vec::new();
        };
        self.look_at_bounds(&files);
        // Bounds took the others.
        let oldest = files.first().map_or(u64::MAX, |(first_index, _)| *first_index);
        self.faults.retain(|first_index, _| *first_index >= oldest || !self.is_bounded);
        let Some(i) = self.next(&files) else {
            let until_ns = if self.faults.is_empty() { u64::MAX } else { now_ns + RETRY_NS };
            self.stage = Stage::Rest { until_ns };
            return Vec::new();
        };
        let (first_index, path) = &files[i];
        match settled(path) {
            Ok(walk) => self.compare(&files, i, walk),
            Err(error) if is_gone(&error) => {
                // It is in no listing any more, unless its name leads nowhere.
                self.tried.insert(*first_index);
                Vec::new()
            }
            Err(FileError::Io { source, .. }) if is_short(&source) => {
                self.stage = Stage::Rest { until_ns: now_ns + RETRY_NS };
                Vec::new()
            }
            Err(error) if is_damage(&error) => {
                self.replace(&files, i, (None, None), &error.to_string())
            }
            Err(error) => self.leave(*first_index, path, &error.to_string()),
        }
    }

    /// Which file is next: what is known not to hold first, behind the file before it.
    fn next(&self, files: &[(u64, PathBuf)]) -> Option<usize> {
        let is_open = |i: &usize| {
            let first_index = files[*i].0;
            !self.tried.contains(&first_index) && first_index <= self.last
        };
        let is_done = |i: usize| self.ends.contains_key(&files[i].0);
        let mut all = (0..files.len()).filter(is_open);
        if let Some(i) = all.clone().find(|i| self.faults.contains_key(&files[*i].0)) {
            let before = i.checked_sub(1).filter(|before| is_open(before) && !is_done(*before));
            return Some(before.unwrap_or(i));
        }
        all.find(|i| !is_done(*i))
    }

    /// Compares a file's beginning with the end of the one before it, and begins to read it.
    fn compare(&mut self, files: &[(u64, PathBuf)], i: usize, walk: Walk) -> Vec<Told> {
        let (first_index, path) = (files[i].0, &files[i].1);
        let header = *walk.header();
        if let Some(why) = self.why_strange(&header) {
            return self.leave(first_index, path, &why);
        }
        let before = i.checked_sub(1).map(|i| files[i].0);
        let end = before.and_then(|before| self.ends.get(&before).copied());
        let is_rebuilt = header.opened_ns == 0;
        let begins = (header.first_index, header.first_ordinal);
        let wanted = end.map_or(header.first_ordinal, |end| end.ordinal);
        if header.first_index != first_index || is_rebuilt && begins.1 != wanted {
            let why = format!("it begins at log index {}, as it says", header.first_index);
            return self.replace(files, i, (None, None), &why);
        }
        let gap = match (end, i) {
            (Some(end), _) if end.ordinal < header.first_ordinal => Some(end),
            (Some(end), _) if end.ordinal > header.first_ordinal => {
                let why = format!(
                    "{} entries stand before it, and it says {}; move it away",
                    end.ordinal, header.first_ordinal
                );
                return self.leave(first_index, path, &why);
            }
            (None, 0) if self.is_beheaded(&header) => {
                let index = if self.is_home { 0 } else { header.previous_index.min(first_index) };
                Some(End { index, ordinal: 0 })
            }
            _ => None,
        };
        if let Some(end) = gap {
            return self.insert((before, end), (path, &header));
        }
        let previous = match (before, end) {
            (Some(before), Some(end))
                if header.previous_index != NO_FILE
                    || is_rebuilt && self.is_nothing(end.index, first_index)
                    || self.faults.contains_key(&first_index) && end.index >= first_index =>
            {
                before
            }
            _ => header.previous_index,
        };
        let mut told = Vec::new();
        if previous != header.previous_index || walk.header_fault().is_some() {
            let known = if is_rebuilt {
                ReplicaHeader { opened_ns: wall_ns(), ..self.template }
            } else {
                header
            };
            let (first_index, first_ordinal) = begins;
            let again = ReplicaHeader { first_index, first_ordinal, mark: header.mark, ..known };
            let again = ReplicaHeader { previous_index: previous, ..again };
            if let Err(error) = write_header(path, &again) {
                return self.leave(first_index, path, &error.to_string());
            }
            let why = walk.header_fault();
            told.extend(why.map(|why| {
                Told::Fault(format!("{}: {why}; it was written again", path.display()))
            }));
        }
        // Who stands before a file that cannot be mended has an end that nobody knows.
        let is_seen = i == 0 || end.is_some();
        if is_seen && (self.ends.contains_key(&first_index) || first_index == self.last) {
            self.faults.remove(&first_index);
        }
        if first_index == self.last || self.ends.contains_key(&first_index) {
            self.tried.insert(first_index);
            return told;
        }
        self.stage = Stage::Read { walk: Box::new(walk), first_index };
        told
    }

    /// Reads on in a file.
    fn read(&mut self, mut walk: Box<Walk>, first_index: u64) -> Vec<Told> {
        let from = walk.place().at;
        let why = loop {
            match walk.look() {
                Ok(Sight::Record) if walk.place().at - from >= STEP_BYTES => {
                    self.stage = Stage::Read { walk, first_index };
                    return Vec::new();
                }
                Ok(Sight::Record) => {}
                Ok(Sight::End) => {
                    let (index, ordinal) = (walk.place().index, walk.place().ordinal);
                    if let Some(wanted) = self.wanted_behind(first_index).filter(|it| *it > ordinal)
                    {
                        break format!("it ends with entry {ordinal}, and had {wanted}");
                    }
                    // What is missing before it stays known until that is compared once more.
                    self.ends.insert(first_index, End { index, ordinal });
                    // What was read once leaves room for what is read again.
                    let _ = File::open(walk.path()).map(|file| settle(&file, walk.path()));
                    return Vec::new();
                }
                Ok(Sight::Broken(broken)) => break say_broken(walk.place().at, &broken.why),
                Err(error) if is_gone(&error) || is_damage(&error) => break error.to_string(),
                Err(error) => return self.leave(first_index, walk.path(), &error.to_string()),
            }
        };
        let files = list_source(&self.directory, &mut Vec::new()).unwrap_or_default();
        // Bounds may have taken it while it was read.
        let Some(i) = files.iter().position(|(first, _)| *first == first_index) else {
            return Vec::new();
        };
        let header = *walk.header();
        let known = (header.opened_ns != 0).then_some(header);
        self.replace(&files, i, (known, Some(header.first_ordinal)), &why)
    }

    /// Entries that stood before the file behind this one, where it was begun behind this one.
    fn wanted_behind(&self, first_index: u64) -> Option<u64> {
        let files = list_source(&self.directory, &mut Vec::new()).ok()?;
        let (_, next) = files.into_iter().find(|(first, _)| *first > first_index)?;
        let header = head(&next)?;
        (header.previous_index == first_index).then_some(header.first_ordinal)
    }

    /// Begins to write a file anew that does not hold, or to count how many entries are before it.
    fn replace(
        &mut self,
        files: &[(u64, PathBuf)],
        i: usize,
        (header, ordinal): (Option<ReplicaHeader>, Option<u64>),
        why: &str,
    ) -> Vec<Told> {
        let (first_index, path) = (files[i].0, &files[i].1);
        // There is one: the last file of all is not read here.
        let Some((next_index, next)) = files.get(i + 1) else {
            return self.leave(first_index, path, why);
        };
        let mut told: Vec<Told> =
            self.fault(first_index, path, (why, first_index..*next_index)).into_iter().collect();
        let Some(ordinal) = ordinal else {
            told.extend(self.count(files, i, why));
            return told;
        };
        // Only its header said whether it was begun anew, behind what is in no file.
        let before = i.checked_sub(1).map(|i| files[i].0).filter(|before| {
            let end = self.ends.get(before);
            header.is_none() && end.is_some_and(|end| self.is_nothing(end.index, first_index))
        });
        let before = before.unwrap_or(NO_FILE);
        let base = ReplicaHeader { previous_index: before, opened_ns: wall_ns(), ..self.template };
        let base = header.unwrap_or(base);
        let header = ReplicaHeader { first_index, first_ordinal: ordinal, ..base };
        let next = head(next);
        let to = Bound {
            index: *next_index,
            ordinal: next.map(|next| next.first_ordinal),
            is_anew: next.is_some_and(|next| next.previous_index == NO_FILE),
        };
        let begun = Filling::begin(path, true, header, to, &self.wanted);
        told.extend(self.begun(begun, first_index, path));
        told
    }

    /// Whether it is known that nothing lies between two log indexes.
    fn is_nothing(&self, from: u64, to: u64) -> bool {
        let log = self.template.log.into();
        let is_passed = || self.wanted.skips(log).0.has_passed(from, to);
        let found = || Merge::new(&self.wanted).next(from, to, &mut Vec::new());
        from >= to || is_passed() || matches!(found(), (None, true))
    }

    /// Begins to write what is missing in front of a file.
    fn insert(
        &mut self,
        (before, end): (Option<u64>, End),
        (path, after): (&Path, &ReplicaHeader),
    ) -> Vec<Told> {
        let key = after.first_index;
        let what = format!(
            "{} entries are in no file before it",
            after.first_ordinal.saturating_sub(end.ordinal)
        );
        let said = self.fault(key, path, (&what, end.index..key));
        let mut told: Vec<Told> = said.into_iter().collect();
        let header = ReplicaHeader {
            first_index: end.index,
            first_ordinal: end.ordinal,
            previous_index: before.unwrap_or(NO_FILE),
            opened_ns: wall_ns(),
            ..self.template
        };
        let is_anew = after.previous_index == NO_FILE;
        let to = Bound { index: key, ordinal: Some(after.first_ordinal), is_anew };
        let begun = Filling::begin(path, false, header, to, &self.wanted);
        let begun = begun.map(|filling| filling.named_by(after.previous_index));
        told.extend(self.begun(begun, key, path));
        told
    }

    fn begun(&mut self, begun: Result<Filling, FileError>, key: u64, path: &Path) -> Vec<Told> {
        match begun {
            Ok(filling) => {
                self.stage = Stage::Fill(Box::new(filling));
                Vec::new()
            }
            Err(error) => self.leave(key, path, &error.to_string()),
        }
    }
}

/// A file's header, if it holds.
fn head(path: &Path) -> Option<ReplicaHeader> {
    let mut page = Vec::with_capacity(REPLICA_HEADER_BYTES as usize);
    File::open(path).ok()?.take(REPLICA_HEADER_BYTES).read_to_end(&mut page).ok()?;
    Some(ReplicaHeader::read(&page).ok()?.0)
}

/// A file as the disk has it.
fn settled(path: &Path) -> Result<Walk, FileError> {
    let file = File::open(path).map_err(FileError::io("open", path))?;
    settle(&file, path)?;
    Walk::of(file, path)
}
