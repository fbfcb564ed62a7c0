//! Whether what files here have lost may be on a disk that is not here: then it is asked for, where
//! otherwise it would be told as lost.

use std::collections::BTreeSet;

use landfall_replica::there::{Disk, away};

use super::ColdError;
use super::fewer;
use super::read::Found;

/// Looks that all who keep a copy of it are here, of what files do not have that they had.
///
/// # Errors
///
/// [`ColdError::Damaged`]: somebody's directory is not here.
pub fn check(found: &Found, disks: &[Disk]) -> Result<(), ColdError> {
    for source in sources(found) {
        let keepers = away(&found.file, &found.pools, &found.directories, disks, source);
        if !keepers.is_empty() {
            let (name, keepers) = (found.file.name.clone(), keepers.into_iter().collect());
            return Err(ColdError::Damaged { name, source, keepers });
        }
    }
    Ok(())
}

/// Nobody asks any more for what is not here.
pub fn forget(found: &mut Found, disks: &[Disk]) {
    for source in sources(found) {
        for keeper in away(&found.file, &found.pools, &found.directories, disks, source) {
            found.file.places.forget(keeper);
        }
    }
}

/// The brokers of whose batches files here lost some that no other copy here has.
fn sources(found: &Found) -> BTreeSet<u8> {
    let torn = found.logs.values().flat_map(|log| log.torn_of.iter().map(|source| source.raw()));
    torn.chain(fewer::damaged(found)).collect()
}
