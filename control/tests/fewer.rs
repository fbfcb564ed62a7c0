//! Disks that have less than directories count, as where one was put back from an older copy.

mod fake;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fake::Memory;
use fake::homes::{self, Two, remove, said};
use landfall_control::cold::{ColdError, Restored, restore};
use landfall_layout::TopicId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::replica::{NO_FILE, ReplicaHeader};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_replica::names::{self, replica_file, source_directory};
use landfall_replica::there::Part;
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

/// A file of broker 1's that has all of its 5 entries.
fn has_five(two: &Two) -> PathBuf {
    let path = begin_file(&two.topics()[1], 1, 0);
    homes::add_holes(&path, 50..55);
    path
}

/// The second goes on behind positions that it passes over, and no broker comes in either.
#[test]
fn what_was_there_at_the_last_end_is_asked_for_however_often_pools_are_lost() {
    let reached = BTreeMap::from([(SEQUENCED_LOG, Resumed { index: 60, position: 600 })]);
    let file = TopicFile { life: 2, began: end(), reached, ..said(&entry()) };
    let two = homes_say("often", &file);
    let path = has_five(&two);
    for _ in 0..3 {
        let (restored, _) = start(&two, false).unwrap();
        assert!(restored.notes.iter().any(|note| note.contains("are passed over")));
        let file = TopicFile::read(&two.topics()[0]).unwrap();
        assert!(file.began.is_none(), "no copy is whole for it");
    }
    // An older copy of broker 1's disk.
    fs::remove_file(path).unwrap();
    said(&entry()).write(&two.topics()[1]).unwrap();
    assert!(refused(&two) > 60);
}

/// Files whose end does not hold are no older copy, and are cut when their broker comes.
#[test]
fn what_was_told_as_lost_is_not_asked_for_at_the_next_start() {
    let two = homes_say("told", &TopicFile { life: 2, began: end(), ..said(&entry()) });
    let path = has_five(&two);
    start(&two, false).unwrap();
    fs::write(&path, [7; 5000]).unwrap();
    let (restored, _) = start(&two, false).unwrap();
    assert!(restored.notes.iter().any(|note| note.contains("no record of it can be read")));
    fs::remove_file(&path).unwrap();
    start(&two, false).expect("it was told");
}

/// A pool that is kept takes its end back when it goes on, and is lost then.
#[test]
fn what_was_there_when_a_kept_pool_was_stopped_is_asked_for() {
    let two = homes_say("kept", &TopicFile { life: 2, ended: end(), ..said(&entry()) });
    let path = has_five(&two);
    let memory = Memory::new();
    homes::lead(&memory, &two.data()).unwrap().close(&two.data());
    // All that is known of it is what the end said.
    for topic in two.topics() {
        let file = TopicFile::read(&topic).unwrap();
        assert!(file.ended.is_some());
        TopicFile { had: None, began: None, ..file }.write(&topic).unwrap();
    }
    homes::lead(&memory, &two.data()).unwrap().stop();
    fs::remove_file(path).unwrap();
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

/// Two homes, each with a copy of what both landed. In the first a file of broker 1's does not
/// hold.
fn first_is_damaged(name: &str) -> Two {
    let both = TopicEntry { replicas: 3, ..entry() };
    let two = homes_say(name, &TopicFile { life: 1, ended: end(), ..said(&both) });
    begin_file(&two.topics()[0], 0, 0);
    fs::write(begin_file(&two.topics()[0], 1, 0), [7; 5000]).unwrap();
    two
}

fn asks_for_the_second(two: &Two) -> bool {
    match start(two, false) {
        Err(error @ ColdError::Damaged { source: 1, .. }) => {
            let error = error.to_string();
            assert!(error.contains("broker 1 keeps one"), "{error}");
            true
        }
        other => other.map(|_| false).unwrap(),
    }
}

#[test]
fn a_copy_that_is_not_here_is_asked_for_where_the_one_that_is_here_is_damaged() {
    let two = first_is_damaged("damaged");
    let [first, second] = two.data();
    remove(&second);
    fs::create_dir_all(&second).unwrap();
    assert!(asks_for_the_second(&two));
    // The mount point of another disk, on which the broker was started once.
    homes::name(&second, 1);
    let topic = names::topic_directory(&first, "t", entry().created_ns);
    let mut said = TopicFile::read(&topic).unwrap();
    said.places.keep(1, 77, 0);
    said.write(&topic).unwrap();
    assert!(asks_for_the_second(&two));
    // What is given up once is not asked for again.
    let (restored, _) = start(&two, true).unwrap();
    let told = |what: &str| restored.notes.iter().any(|note| note.contains(what));
    assert!(told("broker 1 keeps one") && told("are lost"), "{:?}", restored.notes);
    assert!(!asks_for_the_second(&two));
}

#[test]
fn what_is_damaged_is_lost_where_all_copies_are_here() {
    let two = first_is_damaged("damaged-all");
    let (restored, _) = start(&two, false).unwrap();
    assert!(restored.notes.iter().any(|note| note.contains("are lost")), "{:?}", restored.notes);
}

/// A broker stood in for a home: what it kept is nowhere else.
#[test]
fn who_stood_in_is_asked_for_too() {
    let two = first_is_damaged("damaged-stand-in");
    for topic in two.topics() {
        let mut said = TopicFile::read(&topic).unwrap();
        said.places.add(Part { source: 1, copy: 1, keeper: 2, from: 40 });
        said.write(&topic).unwrap();
    }
    let error = start(&two, false).unwrap_err();
    assert!(matches!(&error, ColdError::Damaged { source: 1, keepers, .. } if *keepers == [2]));
}
