//! How many entries come before a file whose header does not hold: counted back from the next file
//! whose header does.

use std::path::PathBuf;

use landfall_layout::TopicId;
use landfall_pool::Pool;
use landfall_pool::log::{Found, LogReader};
use landfall_replica::Merge;
use landfall_replica::names::list_source;

use super::fill::LOOKS_MAX;
use super::{End, Row, STEP_BYTES, Stage, Told, head};

/// The entries between the place that a file is named by and the next file whose header holds.
pub struct Counting {
    first_index: u64,
    why: String,
    /// Where the file before it ends, or the row begins.
    before: Option<End>,
    to: End,
    /// The next file goes on right behind this one, and leaves nothing out.
    goes_on: bool,
    merge: Merge,
    want: u64,
    entries: u64,
    /// Entries in front of this place in the copy that has the first of them.
    theirs: Option<u64>,
    /// Nothing is left out there, as far as copies know.
    is_known: bool,
    is_in_memory: bool,
}

impl Counting {
    /// Counts on. Whether all was looked at.
    fn go_on(&mut self, pool: &Pool, reader: &mut LogReader, source: u8) -> bool {
        let topic: TopicId = reader.topic();
        let frontier = pool.frontier(topic, reader.log()).entries;
        let mut oldest = pool.oldest(topic, reader.log());
        let mut bytes = 0;
        for _ in 0..LOOKS_MAX {
            if self.want >= self.to.index || bytes >= STEP_BYTES {
                break;
            }
            if (oldest..frontier).contains(&self.want) {
                match reader.entry(pool, self.want) {
                    Found::Entry(entry) => {
                        self.entries += u64::from(entry.broker == source);
                        self.want += 1;
                    }
                    Found::Lapped { oldest: now } => oldest = now,
                    Found::Gone => (self.is_known, self.want) = (false, self.to.index),
                }
                continue;
            }
            let until = if self.want < oldest { oldest.min(self.to.index) } else { self.to.index };
            let (picked, is_known) = self.merge.next(self.want, until, &mut Vec::new());
            self.is_known &= is_known;
            self.is_in_memory = false;
            let Some(record) = picked.and_then(|picked| self.merge.record(picked)) else {
                self.want = until;
                continue;
            };
            if self.theirs.is_none() {
                self.theirs = record.header.ordinal.checked_sub(self.entries);
            }
            self.entries += 1;
            bytes += u64::from(record.header.bytes);
            self.want = record.header.index + 1;
        }
        self.want >= self.to.index
    }

    /// Entries before the file, if that is sure: where it fits to what is before it or to the
    /// numbers of another copy, and else only where the row can have left nothing out.
    fn ordinal(&self) -> Option<u64> {
        let Self { before, entries, to, .. } = self;
        let reaches = |end: &End| match end.ordinal.saturating_add(*entries) {
            all if self.goes_on => all == to.ordinal,
            // Other copies may have more than this row in front of a file that was begun anew.
            all => all >= to.ordinal,
        };
        if let Some(end) = before.filter(reaches) {
            return Some(end.ordinal);
        }
        let left = to.ordinal.checked_sub(*entries)?;
        let is_alone = self.is_known && (self.goes_on || self.is_in_memory);
        // Where the one before it reaches up to it, nothing lies between them.
        let fits = before.is_none_or(|end| match end.index >= self.first_index {
            true => end.ordinal == left,
            false => end.ordinal <= left,
        });
        (fits && (is_alone || self.theirs == Some(left))).then_some(left)
    }
}

impl Row {
    /// Begins to count for the file `i`, which does not hold as `why` says.
    pub(super) fn count(&mut self, files: &[(u64, PathBuf)], i: usize, why: &str) -> Vec<Told> {
        let (first_index, path) = (files[i].0, &files[i].1);
        let next = files[i + 1..].iter().find_map(|(index, path)| Some((*index, head(path)?)));
        let Some((index, next)) = next else {
            self.tried.insert(first_index);
            return self.nowhere(first_index, path).into_iter().collect();
        };
        let before = match i.checked_sub(1) {
            Some(before) => self.ends.get(&files[before].0).copied(),
            None => (!self.is_bounded).then_some(End { index: 0, ordinal: 0 }),
        };
        let counting = Counting {
            first_index,
            why: why.to_owned(),
            before,
            to: End { index, ordinal: next.first_ordinal },
            goes_on: next.previous_index == first_index,
            merge: Merge::new(&self.wanted),
            want: first_index,
            entries: 0,
            theirs: None,
            is_known: true,
            is_in_memory: true,
        };
        self.stage = Stage::Count(Box::new(counting));
        Vec::new()
    }

    /// Counts on, and begins to write the file anew once it is known where it stands.
    pub(super) fn counted(&mut self, mut counting: Box<Counting>, pool: &Pool) -> Vec<Told> {
        let first_index = counting.first_index;
        if !counting.go_on(pool, &mut self.reader, self.template.source) {
            self.stage = Stage::Count(counting);
            return Vec::new();
        }
        let files = list_source(&self.directory, &mut Vec::new()).unwrap_or_default();
        // Bounds may have taken it while it was counted.
        let Some(i) = files.iter().position(|(first, _)| *first == first_index) else {
            return Vec::new();
        };
        let Some(ordinal) = counting.ordinal() else {
            self.tried.insert(first_index);
            return self.nowhere(first_index, &files[i].1).into_iter().collect();
        };
        self.replace(&files, i, (None, Some(ordinal)), &counting.why)
    }
}
