//! Disks that have less than directories count, as where one was put back from an older copy.

mod fake;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fake::Memory;
use fake::homes::{self, Two, said};
use landfall_control::cold::{ColdError, Restored, restore};
use landfall_layout::TopicId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::replica::{NO_FILE, ReplicaHeader};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_replica::names::{replica_file, source_directory};
use landfall_replica::{Ended, EndedLog, Resumed, TopicFile};

/// One copy of what each of two brokers landed.
fn entry() -> TopicEntry {
    homes::entry(Order::Strong, 2)
}

/// The end of a log in good order, of which broker 1's disk had 5 entries.
fn end() -> Option<Ended> {
    let log = EndedLog { index: 60, position: 600, ..EndedLog::default() };
    let entries = BTreeMap::from([(0, 0), (1, 5)]);
    let tails = BTreeMap::from([(0, 0), (1, 55)]);
    Some(Ended { logs: [(SEQUENCED_LOG, EndedLog { entries, tails, ..log })].into() })
}

/// Both homes, each of which says `file`, and no file of a replica.
fn homes_say(name: &str, file: &TopicFile) -> Two {
    let two = Two::new(&format!("fewer-{name}"));
    for (number, (data, topic)) in two.data().iter().zip(two.topics()).enumerate() {
        fs::create_dir_all(&topic).unwrap();
        homes::name(data, number);
        file.write(&topic).unwrap();
    }
    two
}

/// Starts a new pool, and says where the log goes on in it.
fn start(two: &Two, forgets: bool) -> Result<(Restored, u64), ColdError> {
    let memory = Memory::new();
    let pool = memory.pool(48);
    let restored = restore(&pool, &two.data(), forgets, 1)?;
    let chain = pool.chain(TopicId(entry().id), SEQUENCED_LOG).unwrap();
    Ok((restored, chain.oldest_index))
}

/// Looks that the start is refused for want of what broker 1 landed, until that is to be forgotten;
/// where the log goes on then.
fn refused(two: &Two) -> u64 {
    let before = two.topics().map(|topic| TopicFile::read(&topic).unwrap());
    let error = start(two, false).unwrap_err().to_string();
    assert!(error.starts_with("topic t: broker 1 had 5 entries on disk"), "{error}");
    assert!(error.contains("disk of broker 1 is an older copy"), "{error}");
    assert!(error.contains("--forget-lost"), "{error}");
    let after = two.topics().map(|topic| TopicFile::read(&topic).unwrap());
    assert_eq!(after, before, "nothing was written");
    let (restored, index) = start(two, true).unwrap();
    let told = |what: &str| restored.notes.iter().any(|note| note.contains(what));
    assert!(told("broker 1 had 5 entries"), "{:?}", restored.notes);
    assert!(told("positions 0 to 599 were ordered and are lost"), "{:?}", restored.notes);
    start(two, false).expect("it is forgotten");
    index
}

#[test]
fn an_older_copy_that_knows_of_no_end_does_not_hide_that_others_know_of_one() {
    let two = homes_say("copy", &TopicFile { life: 1, ended: end(), ..said(&entry()) });
    // It was made before the pool was ever stopped.
    said(&entry()).write(&two.topics()[1]).unwrap();
    assert!(refused(&two) > 60, "the log may have gone on since");
}

#[test]
fn an_older_copy_that_knows_of_an_earlier_end_is_told() {
    let two = homes_say("earlier", &TopicFile { life: 2, ended: end(), ..said(&entry()) });
    let mut earlier = end();
    let log = earlier.as_mut().unwrap().logs.get_mut(&SEQUENCED_LOG).unwrap();
    (log.index, log.position, log.entries, log.tails) =
        (10, 100, BTreeMap::from([(1, 0)]), BTreeMap::new());
    let older = TopicFile { life: 1, ended: earlier, ..said(&entry()) };
    older.write(&two.topics()[1]).unwrap();
    assert_eq!(refused(&two), 60);
}

#[test]
fn files_that_are_gone_where_all_say_the_same_end_are_told() {
    let two = homes_say("gone", &TopicFile { life: 1, ended: end(), ..said(&entry()) });
    assert_eq!(refused(&two), 60);
}

/// What was on disk when a pool began stays there while it runs.
#[test]
fn what_was_there_when_the_lost_pool_began_is_asked_for_after_a_power_cut() {
    let file = said(&entry());
    let reached = BTreeMap::from([(SEQUENCED_LOG, Resumed { index: 60, position: 600 })]);
    let two = homes_say("began", &TopicFile { life: 2, began: end(), reached, ..file });
    assert!(refused(&two) > 60);
}

/// A file of what `source` landed, in its own directory, that was begun at log index `first_index`
/// with nothing in front of it.
fn begin_file(topic: &Path, source: usize, first_index: u64) -> PathBuf {
    let mut header = ReplicaHeader::from_bytes([0; ReplicaHeader::BYTES as usize]);
    let of = entry();
    (header.first_index, header.previous_index) = (first_index, NO_FILE);
    (header.created_ns, header.topic, header.mark) = (of.created_ns, of.id, 5);
    (header.log, header.order, header.opened_ns) = (SEQUENCED_LOG as u8, of.order, 1);
    (header.source, header.broker) = (source as u8, source as u8);
    (header.name_bytes, header.name) = (of.name_bytes, of.name);
    let directory = source_directory(topic, homes::broker(source));
    fs::create_dir_all(&directory).unwrap();
    let path = replica_file(&directory, first_index);
    fs::write(&path, header.seal().page()).unwrap();
    path
}

/// A new disk whose broker could read nobody's files when it began: it goes on behind all that.
#[test]
fn a_copy_that_was_begun_behind_what_is_missing_does_not_have_it() {
    let two = homes_say("behind", &TopicFile { life: 1, ended: end(), ..said(&entry()) });
    begin_file(&two.topics()[1], 1, 60);
    assert_eq!(refused(&two), 60);
}

#[test]
fn a_copy_that_is_not_here_is_asked_for_where_the_one_that_is_here_is_damaged() {
    let both = TopicEntry { replicas: 3, ..entry() };
    let two = homes_say("damaged", &TopicFile { life: 1, ended: end(), ..said(&both) });
    let [first, second] = two.topics();
    for (topic, source) in [(&first, 0), (&first, 1)] {
        begin_file(topic, source, 0);
    }
    let file = begin_file(&first, 1, 0);
    fs::write(file, [7; 5000]).unwrap();
    let away = two.0.join("away");
    fs::rename(&two.data()[1], &away).unwrap();
    fs::create_dir_all(&two.data()[1]).unwrap();
    let error = start(&two, false).unwrap_err();
    assert!(matches!(&error, ColdError::Damaged { source: 1, keepers, .. } if *keepers == [1]));
    assert!(error.to_string().contains("broker 1 keeps one"), "{error}");
    // Nobody else has one where both are here.
    fs::remove_dir(&two.data()[1]).unwrap();
    fs::rename(&away, &two.data()[1]).unwrap();
    assert!(second.is_dir());
    let (restored, _) = start(&two, false).unwrap();
    assert!(restored.notes.iter().any(|note| note.contains("are lost")), "{:?}", restored.notes);
}
