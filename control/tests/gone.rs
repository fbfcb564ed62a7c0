//! Topics that were deleted while a disk was away: they stay deleted when it is back.

mod fake;

use std::fs;
use std::path::PathBuf;

use fake::Memory;
use fake::homes::{self, CREATED_NS, Two, lead, remove};
use landfall_control::cold::restore;
use landfall_control::election::Candidate;
use landfall_control::messages::Ask;
use landfall_control::{Control, Options, StartError};
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::topic::Order;
use landfall_replica::{TopicFile, deletions};

fn deletion() -> deletions::Deletion {
    ("t".to_owned(), CREATED_NS)
}

/// Two disks with the topic, in each its directory.
fn two(name: &str) -> (Two, [PathBuf; 2]) {
    let two = Two::new(name);
    let topics = two.topics();
    for (number, topic) in topics.iter().enumerate() {
        fs::create_dir_all(topic).unwrap();
        homes::said(&homes::entry(Order::Strong, 2)).write(topic).unwrap();
        homes::name(&two.data()[number], number);
    }
    (two, topics)
}

/// Deletes the topic in the pool into which it comes back, while the second disk is away.
fn delete_without_the_second(two: &Two, back: bool) {
    let [first, second] = two.data();
    let memory = Memory::new();
    let control = lead(&memory, &two.data()).unwrap();
    let away = two.0.join("away");
    fs::rename(&second, &away).unwrap();
    // Its mount point.
    fs::create_dir(&second).unwrap();
    let asker = control.asker().unwrap();
    asker.ask_now(|reply| Ask::Delete("t".into(), reply)).unwrap().unwrap();
    control.stop();
    // The first one's broker is there, and removes what it has.
    remove(&first.join("t"));
    remove(&second);
    if back {
        fs::rename(&away, &second).unwrap();
    }
}

#[test]
fn a_topic_deleted_while_a_disk_was_away_is_not_asked_for_and_goes_there_too() {
    let (two, topics) = two("gone");
    delete_without_the_second(&two, true);
    assert!(!TopicFile::read(&topics[1]).unwrap().deleted, "nobody could tell it");
    let pool = Memory::new().pool(48);
    let notes = restore(&pool, &two.data(), false, 1).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("topic t was deleted")), "{notes:?}");
    assert!(pool.topic_in_slot(0).unwrap().name().is_empty(), "it is not back");
    // Its broker finds that there, and removes the files.
    assert!(TopicFile::read(&topics[1]).unwrap().deleted);
    for data in two.data() {
        assert_eq!(deletions::heard(&data).unwrap(), [deletion()].into(), "{}", data.display());
    }
    // One more pool, of which only the disk that was away is left.
    remove(&two.data()[0]);
    fs::create_dir(&two.data()[0]).unwrap();
    let pool = Memory::new().pool(48);
    restore(&pool, &two.data(), false, 1).unwrap();
    assert!(pool.topic_in_slot(0).unwrap().name().is_empty());
}

/// A new disk in place of one that knew keeps what the others say.
#[test]
fn an_empty_disk_hears_what_was_deleted_when_it_comes_in_place_of_another() {
    let (two, _) = two("gone-new");
    delete_without_the_second(&two, false);
    let [first, second] = two.data();
    fs::create_dir(&second).unwrap();
    restore(&Memory::new().pool(48), &[first, second.clone()], false, 1).unwrap();
    assert_eq!(deletions::heard(&second).unwrap(), [deletion()].into());
}

/// As where the file of a pool was put back from before the deletion: what is landed there has to
/// come back when it is lost.
#[test]
fn a_topic_that_is_alive_in_the_pool_is_no_deleted_one() {
    let (two, topics) = two("gone-alive");
    let memory = Memory::new();
    let control = lead(&memory, &two.data()).unwrap();
    control.stop();
    for data in two.data() {
        deletions::say(&data, [&deletion()]).unwrap();
    }
    let control = {
        let pool = memory.pool(48);
        let candidate = Candidate::new(&pool, 1).unwrap();
        let Ok(elected) = candidate.stand(&pool) else { panic!("nobody else is there") };
        Control::lead(pool, &memory.path(), Options::default(), elected, &two.data()).unwrap()
    };
    control.stop();
    assert!(two.data().iter().all(|data| deletions::heard(data).unwrap().is_empty()));
    let pool = Memory::new().pool(48);
    restore(&pool, &two.data(), false, 1).unwrap();
    assert_eq!(pool.topic_in_slot(0).unwrap().name(), "t");
    assert!(topics.iter().all(|topic| !TopicFile::read(topic).unwrap().deleted));
}

/// As one does that was stopped while it took over, and deposed.
#[test]
fn who_is_deposed_takes_back_nothing_that_was_deleted_since() {
    let (two, _) = two("gone-deposed");
    let memory = Memory::new();
    lead(&memory, &two.data()).unwrap().stop();
    let (stopped, next) = (memory.pool(48), memory.pool(48));
    let Ok(elected) = Candidate::new(&stopped, 1).unwrap().stand(&stopped) else {
        panic!("nobody else is there")
    };
    let term = Term { epoch: next.highest_epoch() + 1, serves: false }.pack();
    let (slot, _) = next.serving().unwrap();
    assert!(next.claim(slot + 2, &LeaderLine { term, ..LeaderLine::default() }));
    for data in two.data() {
        deletions::say(&data, [&deletion()]).unwrap();
    }
    let led = Control::lead(stopped, &memory.path(), Options::default(), elected, &two.data());
    let error = led.map(drop).unwrap_err();
    assert!(matches!(error, StartError::Overtaken { .. }), "{error}");
    for data in two.data() {
        assert_eq!(deletions::heard(&data).unwrap(), [deletion()].into(), "{}", data.display());
    }
}

/// It reads what directories say since, as where they went on elsewhere.
#[test]
fn who_is_deposed_calls_no_pool_older_than_its_directories() {
    let (two, _) = two("gone-older");
    let memory = Memory::new();
    lead(&memory, &two.data()).unwrap().stop();
    let (stopped, next) = (memory.pool(48), memory.pool(48));
    let Ok(elected) = Candidate::new(&stopped, 1).unwrap().stand(&stopped) else {
        panic!("nobody else is there")
    };
    lead(&Memory::new(), &two.data()).unwrap().stop();
    let term = Term { epoch: next.highest_epoch() + 1, serves: false }.pack();
    let (slot, _) = next.serving().unwrap();
    assert!(next.claim(slot + 2, &LeaderLine { term, ..LeaderLine::default() }));
    let led = Control::lead(stopped, &memory.path(), Options::default(), elected, &two.data());
    let error = led.map(drop).unwrap_err();
    assert!(matches!(error, StartError::Overtaken { .. }), "{error}");
}

/// A disk that was replaced while the pool lived: those that know may be replaced next.
#[test]
fn a_new_disk_hears_what_was_deleted_from_the_next_control_of_the_pool() {
    let (two, _) = two("gone-replaced");
    let memory = Memory::new();
    let control = lead(&memory, &two.data()).unwrap();
    let asker = control.asker().unwrap();
    asker.ask_now(|reply| Ask::Delete("t".into(), reply)).unwrap().unwrap();
    control.stop();
    let [_, second] = two.data();
    remove(&second);
    fs::create_dir(&second).unwrap();
    let control = lead(&memory, &two.data()).unwrap();
    fake::eventually("the word on the new disk", || {
        (deletions::heard(&second).unwrap() == [deletion()].into()).then_some(())
    });
    control.stop();
}

#[test]
fn what_cannot_be_read_of_deletions_is_given_up_only_when_that_is_asked_for() {
    let (two, _) = two("gone-refused");
    let loops = two.data()[1].join(deletions::DELETED);
    std::os::unix::fs::symlink(&loops, &loops).unwrap();
    let error = restore(&Memory::new().pool(48), &two.data(), false, 1).unwrap_err().to_string();
    assert!(error.contains(deletions::DELETED) && error.contains("--forget-lost"), "{error}");
    let notes = restore(&Memory::new().pool(48), &two.data(), true, 1).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("not known from there")), "{notes:?}");
}
