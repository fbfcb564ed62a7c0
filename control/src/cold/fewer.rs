//! Whether what copies had when their logs ended in good order is here: a disk may be put back from
//! an older copy, which says nothing of what came after.

use landfall_layout::replica::TAIL_UNKNOWN;

use landfall_replica::EndedLog;

use super::ColdError;
use super::read::{Found, FoundLog};

/// How far the files of what one broker landed go, those of all directories together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Log index below which they have everything, where some is missing.
    pub covers: u64,
    /// Entries that are here of the copy that has the most.
    pub entries: u64,
    /// The end of one of them does not hold, or one cannot be read: what that had is told as lost.
    pub is_damaged: bool,
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

/// The brokers of whose batches something is in no copy here that was there, see
/// [`doubt`](super::doubt).
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
        if let Some(has) = falls_short(log, &all, (source, had)) {
            all.entries.insert(source, has.entries);
            all.tails.insert(source, has.covers);
        }
    }
    (!all.entries.is_empty()).then_some(all)
}

/// How far files go, if they do not have what a copy had at that end. It is the place that counts,
/// where one is said: of a copy that several kept the end counts what the last of them had.
fn falls_short(log: &FoundLog, end: &EndedLog, (source, had): (u8, u64)) -> Option<Reach> {
    let has = log.reaches.get(&source).copied().unwrap_or_default();
    match end.tails.get(&source) {
        Some(tail) => {
            let (covers, _) = log.lacking(source, *tail).into_iter().next()?;
            Some(Reach { covers, ..has })
        }
        None => (has.entries < had).then_some(has),
    }
}

fn behind(found: &Found) -> impl Iterator<Item = (usize, Fewer)> {
    found.logs.iter().flat_map(|(number, log)| {
        let counts = log
            .had
            .iter()
            .flat_map(move |end| end.entries.iter().map(move |(source, had)| (end, *source, *had)));
        counts.filter_map(move |(end, source, had)| {
            let is_known = had > 0 && end.tails.get(&source) != Some(&TAIL_UNKNOWN);
            let has = falls_short(log, end, (source, had)).filter(|_| is_known)?;
            Some((*number, Fewer { source, had, has }))
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
