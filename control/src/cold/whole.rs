//! Whether what was named is all that there is: a disk that is not mounted looks like an empty one.

use std::path::PathBuf;

use landfall_layout::BrokerId;
use landfall_replica::names::list_topic;
use landfall_replica::there::{Disk, absent, is_in, retain_lacks};
use landfall_replica::{Walk, numbers};

use super::ColdError;
use super::plan::{Span, clash};
use super::read::{Found, entry_of};

/// Looks that of what each broker landed a whole copy is there: the directory of its home, and
/// those of all who kept a part of it in the home's place.
pub fn check(found: &Found, disks: &[Disk]) -> Result<(), ColdError> {
    let absent = absent(&found.file, &found.pools, &found.directories, disks);
    match absent.into_iter().next() {
        None => Ok(()),
        Some(absent) => Err(ColdError::Missing {
            name: found.file.name.clone(),
            absent,
            unknown: disks
                .iter()
                .filter_map(|disk| Some(disk.fault.as_ref()?.to_string()))
                .collect(),
        }),
    }
}

/// Nobody asks any more for what is not there.
pub fn forget(found: &mut Found, disks: &[Disk]) {
    for absent in absent(&found.file, &found.pools, &found.directories, disks) {
        absent.keepers.iter().for_each(|keeper| found.file.places.forget(*keeper));
    }
}

/// Notes which data directories have the topic, as it comes back now, of brokers that did not say
/// it: any word of theirs is a later one. What directories lacked, and do not by now, is struck.
pub fn note_disks(found: &mut Found, disks: &[Disk]) {
    let said = found.file.places.disks.clone();
    for topic in &found.directories {
        for disk in disks.iter().filter(|disk| is_in(topic, &disk.path) && disk.numbers.id != 0) {
            for broker in disk.brokers(topic).into_iter().filter(|it| !said.contains_key(it)) {
                found.file.places.keep(broker, disk.numbers.id, 0);
            }
        }
    }
    retain_lacks(&mut found.file, &found.directories, disks);
}

/// A directory that counted for its broker though it has nothing of the topic counts in the new
/// pool too. What could not be said is a sentence.
pub fn carry_over(found: &Found, disks: &[Disk], pool: &str) -> Vec<String> {
    let has_topic = |disk: &Disk| found.directories.iter().any(|topic| is_in(topic, &disk.path));
    let mut notes = Vec::new();
    for disk in disks.iter().filter(|disk| !has_topic(disk)) {
        // Who was there last stays so.
        let last = disk.numbers.of.last().map(|(broker, _)| *broker);
        let before = disk.numbers.brokers().into_iter().filter(|broker| Some(*broker) != last);
        for broker in
            before.chain(last).filter(|broker| disk.numbers.is_under(*broker, &found.pools))
        {
            let Some(broker) = BrokerId::new(broker.into()) else { continue };
            notes.extend(numbers::name(&disk.path, broker, pool).err().map(|e| e.to_string()));
        }
    }
    notes
}

/// Directories of which it is not known whose they are, a sentence each.
pub fn unknown(disks: &[Disk]) -> Vec<String> {
    let faults = disks.iter().filter_map(|disk| disk.fault.as_ref());
    let sentence = |fault| {
        format!("{fault}; whose the directory is is told by the files in it, where there are some")
    };
    faults.map(sentence).collect()
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
    use std::collections::BTreeSet;

    use landfall_layout::TopicId;
    use landfall_layout::topic::{Order, TopicEntry, TopicState};
    use landfall_replica::there::{Kept, Part};
    use landfall_replica::{Numbers, TopicFile};

    use super::*;

    fn file(replicas: u8, brokers: u8) -> TopicFile {
        let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
        (entry.id, entry.state) = (TopicId::new(0, 1).0, TopicState::Live as u8);
        (entry.order, entry.name_bytes) = (Order::Strong.raw(), 1);
        (entry.replicas, entry.replica_brokers) = (replicas, brokers);
        entry.name[0] = b't';
        TopicFile::of(&entry, "a pool", 0).unwrap()
    }

    /// Directories of brokers, which are there with the topic in them.
    fn disks(there: &[u8]) -> (Vec<PathBuf>, Vec<Disk>) {
        let path = |broker: &u8| PathBuf::from(format!("broker-{broker}"));
        let numbers = |broker: &u8| Numbers { id: 0, of: vec![(*broker, "a pool".to_owned())] };
        let disk = |broker: &u8| Disk { path: path(broker), numbers: numbers(broker), fault: None };
        let topics = there.iter().map(|broker| path(broker).join("t/1")).collect();
        (topics, there.iter().map(disk).collect())
    }

    fn missing(file: &TopicFile, there: &[u8]) -> Option<(u8, Vec<u8>)> {
        let (topics, disks) = disks(there);
        let lost = absent(file, &BTreeSet::new(), &topics, &disks);
        lost.into_iter().next().map(|it| (it.source, it.keepers))
    }

    #[test]
    fn one_keeper_of_each_brokers_batches_has_to_be_there() {
        let ask = |replicas, brokers, there: &[u8]| missing(&file(replicas, brokers), there);
        assert_eq!(ask(2, 2, &[0, 1]), None);
        assert_eq!(ask(2, 2, &[0, 5]), Some((1, vec![1])));
        assert_eq!(ask(3, 2, &[0]), None, "both keep all");
        assert_eq!(ask(3, 4, &[0, 2]), None);
        assert_eq!(ask(3, 4, &[0, 1]), Some((2, vec![2, 3])));
        assert_eq!(ask(3, 4, &[]), Some((0, vec![0, 1])));
        assert_eq!(ask(1, 4, &[]), None, "nobody keeps any");
    }

    #[test]
    fn who_stood_in_for_a_home_has_to_be_there_with_it() {
        let part = |source, copy, keeper| Part { source, copy, keeper, from: 7 };
        let with = |replicas, parts: &[Part]| {
            let mut file = file(replicas, 2);
            parts.iter().for_each(|part| file.places.add(*part));
            file
        };
        let one = with(2, &[part(0, 0, 3), part(5, 0, 4)]);
        assert_eq!(missing(&one, &[0, 1, 3, 4]), None);
        assert_eq!(missing(&one, &[0, 1, 4]), Some((0, vec![3])));
        assert_eq!(missing(&one, &[0, 1, 3]), Some((5, vec![4])), "one that joined later");
        assert_eq!(missing(&one, &[1, 3, 4]), Some((0, vec![0])), "its home has the other part");
        let two = with(3, &[part(0, 0, 3)]);
        assert_eq!(missing(&two, &[0, 1]), None, "the other copy is whole");
        assert_eq!(missing(&two, &[0]), Some((0, vec![1, 3])));
    }

    #[test]
    fn a_directory_without_the_topic_counts_only_under_a_pool_of_the_topic() {
        let (topics, mut disks) = disks(&[0, 1]);
        let ask = |pool: &str, disks: &[Disk]| {
            let pools = [pool.to_owned()].into();
            let lost = absent(&file(2, 2), &pools, &topics[..1], disks);
            lost.into_iter().next().map(|it| it.keepers)
        };
        assert_eq!(ask("a pool", &disks), None, "it had nothing of the topic yet");
        assert_eq!(ask("another", &disks), Some(vec![1]));
        disks[1].numbers.of[0].1.clear();
        assert_eq!(ask("a pool", &disks), Some(vec![1]), "of an earlier program");
    }

    #[test]
    fn another_directory_than_the_one_that_had_the_topic_does_not_count() {
        let (topics, mut disks) = disks(&[0, 1]);
        let mut file = file(2, 2);
        file.places.keep(1, 77, 0);
        let ask = |disks: &[Disk]| absent(&file, &BTreeSet::new(), &topics, disks);
        assert_eq!(ask(&disks), [], "it does not say which it is");
        disks[1].numbers.id = 77;
        assert_eq!(ask(&disks), []);
        disks[1].numbers.id = 78;
        let it = ask(&disks).remove(0);
        assert_eq!((it.keepers, it.anew), (vec![1], vec![PathBuf::from("broker-1")]));
    }

    #[test]
    fn a_directory_counts_for_the_broker_that_kept_the_topic_there_last() {
        let (topics, mut disks) = disks(&[0, 1]);
        let kept = |life, disk| Kept { life, disk, ..Kept::default() };
        (disks[0].numbers.id, disks[1].numbers.id) = (11, 10);
        let mut file = file(2, 2);
        // They changed places, and only the one that is here says so.
        file.places.disks = [(0, kept(1, 11)), (1, kept(0, 11))].into();
        let there = |file: &TopicFile, disks: &[Disk]| {
            let lost = absent(file, &BTreeSet::new(), &topics[..disks.len()], disks);
            lost.into_iter().map(|it| it.keepers).collect::<Vec<_>>()
        };
        assert_eq!(there(&file, &disks[..1]), [vec![1]], "what it landed since is on the other");
        assert!(there(&file, &disks).is_empty(), "both are here, and only one said its word yet");
        file.places.disks = [(0, kept(1, 11)), (1, kept(1, 10))].into();
        assert!(there(&file, &disks).is_empty());
        file.places.disks = [(0, kept(0, 11)), (1, kept(0, 11))].into();
        assert!(there(&file, &disks[..1]).is_empty(), "neither word is later");
    }
}
