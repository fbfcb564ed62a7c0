//! Where a position or a time is: a search over the files by their first entry, then a walk.

use std::collections::BTreeSet;

use landfall_layout::BrokerId;
use landfall_layout::order::OrderEntry;
use landfall_layout::replica::Body;

use crate::ask::{Silent, ask};
use crate::copy::CopyReader;
use crate::error::FileError;
use crate::landed::Landed;
use crate::merge::{Wanted, first_header};
use crate::names::{data_of, list_source};
use crate::short;
use crate::walk::Walk;

/// A place in the log, of a batch or a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Its index.
    pub index: u64,
    /// Its first position.
    pub position: u64,
}

/// What was found, and what does not answer, or cannot be read, and may have an earlier one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    /// The first there is.
    pub start: Option<Start>,
    /// It is not known what is there.
    pub silent: Option<Silent>,
}

/// The first entry in the log for which `before` is false; entries are sorted by it. Looked for in
/// what was written below log index `until`. What does not hold is named in `faults`.
pub fn first<F>(wanted: &Wanted, until: u64, before: F, faults: &mut Vec<String>) -> Looked
where
    F: Fn(&OrderEntry) -> bool + Copy + Send + 'static,
{
    let (copies, silent) = wanted.look();
    let mut looked = Looked { start: None, silent: silent.into_iter().next() };
    for copy in copies.into_iter().map(CopyReader::naming_lost) {
        let data = data_of(copy.directory()).to_owned();
        let (found, refused) = short::during(|| {
            ask(&data, move || {
                let mut faults = Vec::new();
                (first_of(copy, until, &before, &mut faults), faults)
            })
        });
        looked.silent = looked.silent.or(refused);
        match found {
            Ok((start, more)) => {
                let all = looked.start.into_iter().chain(start);
                looked.start = all.min_by_key(|start| start.index);
                faults.extend(more);
            }
            Err(silent) => looked.silent = Some(silent),
        }
    }
    looked
}

/// Whether copies in directories that answer have all that there ever was of each source, or know
/// that bounds let go of what is before it: then nothing earlier is anywhere else. A source without
/// such a copy may have it where nobody answers. In a shared log so may one that has not landed in
/// this life of the pool, unless a home of its batches says that there never were any.
pub fn is_oldest_known(wanted: &Wanted) -> bool {
    let mut settled = BTreeSet::new();
    for copy in wanted.copies() {
        let directory = copy.directory().to_owned();
        let header = ask(data_of(copy.directory()), move || first_header(&directory));
        if let Ok(Some(header)) = header
            && (header.first_index == 0 || header.is_behind())
        {
            settled.insert(copy.source());
        }
    }
    if !wanted.sources.iter().all(|source| settled.contains(source)) {
        return false;
    }
    let landed = wanted.is_shared.then(|| Landed::look(wanted));
    let is_known =
        |landed: &Landed, source| settled.contains(&source) || landed.has_nothing_of(source);
    landed.is_none_or(|landed| BrokerId::all().all(|source| is_known(&landed, source)))
}

fn first_of(
    mut copy: CopyReader,
    until: u64,
    before: &dyn Fn(&OrderEntry) -> bool,
    faults: &mut Vec<String>,
) -> Option<Start> {
    // What cannot be listed is said by the copy's own reading.
    let files = list_source(copy.directory(), &mut Vec::new()).unwrap_or_default();
    let (mut low, mut high) = (0, files.len());
    // The file at `low` begins before it, or is the oldest; the one at `high` does not.
    while high.saturating_sub(low) > 1 {
        let middle = low + (high - low) / 2;
        match first_entry(&files[middle].1) {
            Ok(Some(entry)) if before(&entry) => low = middle,
            // One that says nothing is not begun with: the walk from an earlier one passes it.
            _ => high = middle,
        }
    }
    let mut want = files.get(low).map_or(0, |(first_index, _)| *first_index);
    loop {
        let index = copy.seek(want, until, faults).next?;
        let entry = entry_of(&copy.record()?.body)?;
        if !before(&entry) {
            return Some(Start { index, position: entry.first_position });
        }
        want = index + 1;
    }
}

/// What stands in the log for a record; none for one that only says how far the log was.
fn entry_of(body: &Body<'_>) -> Option<OrderEntry> {
    match body {
        Body::Batch { entry, .. } | Body::Hole { entry, .. } => Some(*entry),
        Body::Frontier(_) => None,
    }
}

/// The first entry that a file has.
fn first_entry(path: &std::path::Path) -> Result<Option<OrderEntry>, FileError> {
    let mut walk = Walk::open(path)?;
    while let Some(record) = walk.next()? {
        if let Some(entry) = entry_of(&record.body) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}
