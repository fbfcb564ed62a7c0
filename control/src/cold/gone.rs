//! Topics that were deleted while a disk was away: the disk has them still when it is back.

use std::collections::BTreeSet;
use std::path::PathBuf;

use landfall_pool::Pool;
use landfall_replica::TopicFile;
use landfall_replica::deletions::{self, Deletion};
use landfall_replica::names::topic_directory;

use super::ColdError;

/// What was deleted, as any of the data directories says. With `forgets_lost`, one that cannot be
/// read is a sentence.
pub fn heard(
    directories: &[PathBuf],
    forgets_lost: bool,
    notes: &mut Vec<String>,
) -> Result<BTreeSet<Deletion>, ColdError> {
    let mut said = BTreeSet::new();
    for data in directories {
        match deletions::heard(data) {
            Ok(here) => said.extend(here),
            Err(error) if forgets_lost => notes.push(format!(
                "{error}; which topics were deleted is not known from there, and one that a disk \
                 still has may be back"
            )),
            Err(error) => return Err(ColdError::Refused { error }),
        }
    }
    Ok(said)
}

/// Says all of it in each of them: one that was away hears it, a new one keeps it in place of the
/// one before, and brokers remove what they have of it. What could not be said is a sentence.
pub fn tell(
    pool: &Pool,
    directories: &[PathBuf],
    deleted: &BTreeSet<Deletion>,
) -> Result<Vec<String>, ColdError> {
    let mut notes = Vec::new();
    for data in directories {
        // Who was stopped meanwhile may be one of several by now.
        if !pool.leads(pool.epoch_number()) {
            return Err(ColdError::Overtaken { epoch: pool.highest_epoch() });
        }
        let said = deletions::heard(data).unwrap_or_default();
        let new: Vec<&Deletion> = deleted.difference(&said).collect();
        let told = if new.is_empty() { Ok(()) } else { deletions::say(data, new) };
        let marked = deleted.iter().try_for_each(|(name, created_ns)| {
            let topic = topic_directory(data, name, *created_ns);
            if topic.is_dir() { TopicFile::bury(&topic) } else { Ok(()) }
        });
        if let Err(error) = told.and(marked) {
            notes.push(format!(
                "{error}; topics that were deleted while {} was away may stay there",
                data.display()
            ));
        }
    }
    Ok(notes)
}
