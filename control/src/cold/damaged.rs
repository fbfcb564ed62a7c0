//! Whether what files here have lost may be on a disk that is not here: then it is asked for, where
//! otherwise it would be told as lost.

use std::collections::BTreeSet;

use landfall_replica::there::{Disk, FORGOTTEN, is_in};

use super::ColdError;
use super::fewer;
use super::read::Found;

/// Looks that each copy is here of what files do not have that they had.
///
/// # Errors
///
/// [`ColdError::Damaged`]: a home of one is not here.
pub fn check(found: &Found, disks: &[Disk]) -> Result<(), ColdError> {
    let homes = u16::from(found.file.replica_brokers.max(1));
    for source in sources(found) {
        let home = |copy: u8| ((u16::from(source) + u16::from(copy)) % homes) as u8;
        let keepers: Vec<u8> = (0..found.file.replicas.saturating_sub(1))
            .map(home)
            .filter(|keeper| !is_forgotten(found, *keeper) && !is_here(found, disks, *keeper))
            .collect();
        if !keepers.is_empty() {
            let name = found.file.name.clone();
            return Err(ColdError::Damaged { name, source, keepers });
        }
    }
    Ok(())
}

/// The brokers of whose batches files here lost some that no other copy here has.
fn sources(found: &Found) -> BTreeSet<u8> {
    let torn = found.logs.values().flat_map(|log| log.torn_of.iter().map(|source| source.raw()));
    torn.chain(fewer::damaged(found)).collect()
}

fn is_forgotten(found: &Found, keeper: u8) -> bool {
    found.file.places.disks.get(&keeper).is_some_and(|kept| kept.disk == FORGOTTEN)
}

fn is_here(found: &Found, disks: &[Disk], keeper: u8) -> bool {
    disks.iter().any(|disk| match found.directories.iter().find(|it| is_in(it, &disk.path)) {
        Some(topic) => disk.brokers(topic).contains(&keeper),
        None => disk.numbers.brokers().contains(&keeper),
    })
}
