//! Whether what was named is all that there is: a disk that is not mounted looks like an empty one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landfall_replica::names::{list, list_topic};
use landfall_replica::{TopicFile, Walk, owner};

use super::ColdError;
use super::plan::{Span, clash};
use super::read::{Found, entry_of};

/// Brokers whose data directories these are: as they say, and by their names those of programs that
/// wrote no number, if they hold anything.
pub fn brokers(directories: &[PathBuf]) -> BTreeSet<u8> {
    let mut brokers = BTreeSet::new();
    for directory in directories {
        let said = owner::numbers(directory);
        if said.is_empty() {
            brokers.extend(by_name(directory));
        }
        brokers.extend(said);
    }
    brokers
}

fn by_name(directory: &Path) -> Option<u8> {
    let number = directory.file_name()?.to_str()?.strip_prefix("broker-")?.parse().ok()?;
    list(directory).ok().filter(|listing| !listing.topics.is_empty()).map(|_| number)
}

/// Looks that of what each broker landed one of its keepers' directories is there. One that stood
/// in does not count: it has a part.
pub fn check(file: &TopicFile, there: &BTreeSet<u8>) -> Result<(), ColdError> {
    let copies = file.replicas.saturating_sub(1);
    for source in 0..file.replica_brokers {
        let keepers = (0..copies)
            .map(|copy| (u16::from(source) + u16::from(copy)) % u16::from(file.replica_brokers));
        let keepers: BTreeSet<u8> = keepers.map(|keeper| keeper as u8).collect();
        if !keepers.is_empty() && keepers.is_disjoint(there) {
            let (name, keepers) = (file.name.clone(), keepers.into_iter().collect());
            return Err(ColdError::Missing { name, source, keepers });
        }
    }
    Ok(())
}

/// Looks that no two files have other batches at the same place, as when one was away while the log
/// went on without it.
pub fn check_once(found: &mut Found) -> Result<(), ColdError> {
    let mut clashes = found.logs.values_mut().filter_map(|log| clash(&mut log.spans));
    let Some((one, other)) = clashes.next() else { return Ok(()) };
    let position = other.first.max(one.first);
    let file_of = |span: &Span| file_of(found, span).unwrap_or_default();
    let (one, other) = (file_of(&one), file_of(&other));
    Err(ColdError::Twice { name: found.file.name.clone(), position, one, other })
}

/// The first file that has a batch or a hole at that place.
fn file_of(found: &Found, span: &Span) -> Option<PathBuf> {
    for directory in &found.directories {
        let sources = list_topic(directory, &mut Vec::new()).ok()?;
        for (_, path) in sources.into_iter().flat_map(|source| source.files) {
            let Ok(mut walk) = Walk::open(&path) else { continue };
            while let Ok(Some(record)) = walk.next() {
                let entry = entry_of(&record.body);
                let is_it = entry.is_some_and(|entry| {
                    (record.header.index, entry.first_position, entry.end_position())
                        == (span.index, span.first, span.end)
                });
                if is_it {
                    return Some(path);
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use landfall_layout::TopicId;
    use landfall_layout::topic::{Order, TopicEntry, TopicState};

    use super::*;

    fn missing(replicas: u8, brokers: u8, there: &[u8]) -> Option<(u8, Vec<u8>)> {
        let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
        (entry.id, entry.state) = (TopicId::new(0, 1).0, TopicState::Live as u8);
        (entry.order, entry.name_bytes) = (Order::Strong.raw(), 1);
        (entry.replicas, entry.replica_brokers) = (replicas, brokers);
        entry.name[0] = b't';
        let file = TopicFile::of(&entry, "a pool", 0).unwrap();
        match check(&file, &there.iter().copied().collect()) {
            Err(ColdError::Missing { source, keepers, .. }) => Some((source, keepers)),
            Err(other) => panic!("{other}"),
            Ok(()) => None,
        }
    }

    #[test]
    fn one_keeper_of_each_brokers_batches_has_to_be_there() {
        assert_eq!(missing(2, 2, &[0, 1]), None);
        assert_eq!(missing(2, 2, &[0, 5]), Some((1, vec![1])));
        assert_eq!(missing(3, 2, &[0]), None, "both keep all");
        assert_eq!(missing(3, 4, &[0, 2]), None);
        assert_eq!(missing(3, 4, &[0, 1]), Some((2, vec![2, 3])));
        assert_eq!(missing(3, 4, &[]), Some((0, vec![0, 1])));
        assert_eq!(missing(1, 4, &[]), None, "nobody keeps any");
    }
}
