//! Whether what files here have lost may be on a disk that is not here: then it is asked for, where
//! otherwise it would be told as lost.

use std::collections::BTreeMap;

use landfall_replica::there::{Disk, away};

use super::ColdError;
use super::doubt::Run;
use super::fewer;
use super::read::Found;

/// Looks that all who keep a copy of it are here, of what files do not have that they had.
///
/// # Errors
///
/// [`ColdError::Damaged`]: somebody's directory is not here.
pub fn check(found: &Found, disks: &[Disk]) -> Result<(), ColdError> {
    // Of those who are known to have landed something first.
    let is_known = |source: &u8| found.logs.values().any(|log| log.here.contains_key(source));
    let (known, others): (Vec<_>, Vec<_>) =
        sources(found).into_iter().partition(|it| is_known(&it.0));
    for (source, missing) in known.into_iter().chain(others) {
        let keepers = away(&found.file, &found.pools, &found.directories, disks, source);
        if !keepers.is_empty() {
            let (name, keepers) = (found.file.name.clone(), keepers.into_iter().collect());
            return Err(ColdError::Damaged { name, source, keepers, missing });
        }
    }
    Ok(())
}

/// Nobody asks any more for what is not here.
pub fn forget(found: &mut Found, disks: &[Disk]) {
    for source in sources(found).into_keys() {
        for keeper in away(&found.file, &found.pools, &found.directories, disks, source) {
            found.file.places.forget(keeper);
        }
    }
}

/// The brokers of whose batches files here lost some that no other copy here has, or may lack some
/// that is about to be told as lost; between which log indexes, where that is known.
fn sources(found: &Found) -> BTreeMap<u8, Option<Run>> {
    let torn = found.logs.values().flat_map(|log| log.torn_of.iter().map(|source| source.raw()));
    let torn = torn.chain(fewer::damaged(found)).map(|source| (source, None));
    let parts = found.file.places.parts.iter().map(|part| part.source);
    let doubts = found.logs.iter().flat_map(|(number, log)| {
        let known = log.here.keys().copied().chain(parts.clone());
        let all = (0..found.file.replica_brokers).chain(known);
        let lands = all.filter(|source| found.lands_in(*source, *number));
        lands.filter_map(|source| {
            let doubt = log.doubt(source);
            let missing = doubt.first().zip(doubt.last()).map(|(first, last)| (first.0, last.1));
            (missing.is_some() || log.is_open(source)).then_some((source, missing))
        })
    });
    torn.chain(doubts).collect()
}
