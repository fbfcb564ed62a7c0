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
use crate::unheard::Unheard;
use crate::walk::Walk;

/// A place in the log, of a batch or a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Its index.
    pub index: u64,
    /// Its first position.
    pub position: u64,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    /// The first there is.
    pub start: Option<Start>,
    /// What does not answer, or cannot be read.
    pub unheard: Vec<Unheard>,
}

/// The first entry in the log for which `before` is false; entries are sorted by it. Looked for in
/// what was written below log index `until`. What does not hold is named in `faults`.
pub fn first<F>(wanted: &Wanted, until: u64, before: F, faults: &mut Vec<String>) -> Looked
where
    F: Fn(&OrderEntry) -> bool + Copy + Send + 'static,
{
    let (copies, unheard) = wanted.look();
    let mut looked = Looked { start: None, unheard };
    for copy in copies.into_iter().map(CopyReader::naming_lost) {
        let (source, directory) = (copy.source(), copy.directory().to_owned());
        let data = data_of(&directory).to_owned();
        let (found, refused) = short::during(|| {
            ask(&data, move || {
                let mut faults = Vec::new();
                (first_of(copy, until, &before, &mut faults), faults)
            })
        });
        let silent = match found {
            Ok((start, more)) => {
                let all = looked.start.into_iter().chain(start);
                looked.start = all.min_by_key(|start| start.index);
                faults.extend(more);
                refused
            }
            Err(silent) => Some(silent),
        };
        looked.unheard.extend(silent.map(|silent| Unheard::of(source, &directory, silent)));
    }
    looked
}

/// Which of `unheard` may have something earlier than the first that there is. Of a source of which
/// other copies have all that there ever was, or know that bounds let go of what is before it,
/// nothing earlier is anywhere else. One without such a copy may have it where nobody answers, if
/// that is where its batches are kept. In a shared log so may one that has not landed in this life
/// of the pool, unless a home of its batches says that there never were any.
pub fn may_have_older(wanted: &Wanted, unheard: &[Unheard]) -> Option<Silent> {
    let is_of = |it: &Unheard, copy: &CopyReader| {
        it.data == data_of(copy.directory()) && it.source.is_none_or(|of| of == copy.source())
    };
    let mut settled = BTreeSet::new();
    for copy in wanted.copies().iter().filter(|copy| !unheard.iter().any(|it| is_of(it, copy))) {
        let directory = copy.directory().to_owned();
        let header = ask(data_of(copy.directory()), move || first_header(&directory));
        if let Ok(Some(header)) = header
            && (header.first_index == 0 || header.is_behind())
        {
            settled.insert(copy.source());
        }
    }
    let landed = Landed::look(wanted);
    let is_open = |source: &BrokerId| match wanted.sources.contains(source) {
        true => !settled.contains(source),
        false => wanted.is_shared && !settled.contains(source) && !landed.has_nothing_of(*source),
    };
    let open: Vec<BrokerId> = BrokerId::all().filter(is_open).collect();
    let may_have = |it: &&Unheard| {
        open.iter().any(|source| match it.source {
            Some(of) => of == *source,
            None => landed.may_be_in(&it.data, *source),
        })
    };
    unheard.iter().find(may_have).map(|it| it.silent.clone())
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
