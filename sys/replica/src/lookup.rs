//! Where a position or a time is: a search over the files by their first entry, then a walk.

use landfall_layout::order::OrderEntry;
use landfall_layout::replica::Body;

use crate::copy::CopyReader;
use crate::error::FileError;
use crate::merge::Wanted;
use crate::names::list_source;
use crate::walk::Walk;

/// A place in the log, of a batch or a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Its index.
    pub index: u64,
    /// Its first position.
    pub position: u64,
}

/// The first entry in the log for which `before` is false; entries are sorted by it. Looked for in
/// what was written below log index `until`. What does not hold is named in `faults`.
pub fn first(
    wanted: &Wanted,
    until: u64,
    before: &dyn Fn(&OrderEntry) -> bool,
    faults: &mut Vec<String>,
) -> Option<Start> {
    let copies = wanted.copies().into_iter().map(CopyReader::naming_lost);
    let found = copies.filter_map(|copy| first_of(copy, until, before, faults));
    found.min_by_key(|start| start.index)
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
