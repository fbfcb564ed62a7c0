//! Whether what copies had when their logs ended in good order is here: a disk may be put back from
//! an older copy, which says nothing of what came after.

use landfall_layout::replica::{Place, TAIL_UNKNOWN};

use landfall_replica::EndedLog;

use super::ColdError;
use super::read::{Found, FoundLog};

/// How far the files of what one broker landed go, those of all directories together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Log index below which they have everything.
    pub covers: u64,
    /// Entries of the copy that has the most.
    pub entries: u64,
    /// The end of one of them does not hold, or one cannot be read: what that had is told as lost.
    pub is_damaged: bool,
}

impl Reach {
    /// Takes where a copy's last file ends. `stands`: there is something in front of its first, or
    /// nothing was. One that was begun behind a hole covers nothing by where it is.
    pub fn add(&mut self, end: Place, stands: bool) {
        if stands {
            self.covers = self.covers.max(end.index);
        }
        self.entries = self.entries.max(end.ordinal);
    }
}

/// What a broker landed that was on disk when its log ended in good order, and is in no file here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fewer {
    /// The broker.
    pub source: u8,
    /// Entries that were there.
    pub had: u64,
    /// How far the files go that are here.
    pub has: Reach,
}

/// The brokers of whose batches every copy here ends before it did. Bounds let go of the beginning
/// alone, and whoever stands in begins where the home ended.
fn fewer(found: &Found) -> impl Iterator<Item = (usize, Fewer)> {
    behind(found).filter(|(_, fewer)| !fewer.has.is_damaged)
}

/// The brokers of whose batches copies here end before they did, where that may be for damage.
pub fn damaged(found: &Found) -> impl Iterator<Item = u8> {
    behind(found).filter(|(_, fewer)| fewer.has.is_damaged).map(|(_, fewer)| fewer.source)
}

/// What the next starts count of a log, at least. What of it is not here was told as lost, or is
/// to be forgotten.
pub fn carried(log: &FoundLog) -> Option<EndedLog> {
    let mut ends: Vec<&EndedLog> = log.had.iter().collect();
    ends.sort_by_key(|end| end.index);
    let mut all = EndedLog::default();
    ends.into_iter().for_each(|end| all.go_on(end));
    for (source, had) in all.entries.clone() {
        let has = log.reaches.get(&source).copied().unwrap_or_default();
        if !is_here(&all, (source, had), has) {
            all.entries.insert(source, has.entries);
            all.tails.insert(source, has.covers);
        }
    }
    (!all.entries.is_empty()).then_some(all)
}

/// Whether files that go so far have what a copy had at that end.
fn is_here(end: &EndedLog, (source, had): (u8, u64), has: Reach) -> bool {
    // A file that a copy was to begin behind a hole may not have been begun yet.
    has.entries >= had || end.is_reached(source, has.covers, has.entries)
}

fn behind(found: &Found) -> impl Iterator<Item = (usize, Fewer)> {
    found.logs.iter().flat_map(|(number, log)| {
        let counts = log
            .had
            .iter()
            .flat_map(move |end| end.entries.iter().map(move |(source, had)| (end, *source, *had)));
        counts.filter_map(move |(end, source, had)| {
            let has = log.reaches.get(&source).copied().unwrap_or_default();
            let is_known = had > 0 && end.tails.get(&source) != Some(&TAIL_UNKNOWN);
            let is_here = is_here(end, (source, had), has);
            (is_known && !is_here).then_some((*number, Fewer { source, had, has }))
        })
    })
}

/// Looks that nothing is missing that directories count.
pub fn check(found: &Found) -> Result<(), ColdError> {
    let Some((_, fewer)) = fewer(found).next() else { return Ok(()) };
    let (homes, copies) = (found.file.replica_brokers.max(1), found.file.replicas);
    let home = |copy: u8| ((u16::from(fewer.source) + u16::from(copy)) % u16::from(homes)) as u8;
    let keepers = (0..copies.saturating_sub(1)).map(home).collect();
    Err(ColdError::Fewer { name: found.file.name.clone(), fewer, keepers })
}

/// Nobody asks any more for what is not there: the copies that have the most are whole.
pub fn forget(found: &mut Found) {
    for (number, Fewer { source, has, .. }) in fewer(found).collect::<Vec<_>>() {
        let Some(log) = found.logs.get_mut(&number) else { continue };
        for end in log.had.iter_mut().chain(&mut log.ended) {
            end.entries.insert(source, has.entries);
            end.tails.insert(source, has.covers);
        }
    }
}
