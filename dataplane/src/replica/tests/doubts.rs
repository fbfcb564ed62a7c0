//! Holes that turn out to be none, and those that do not.

use std::collections::BTreeMap;

use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::replica::ENODATA;
use landfall_replica::holes::Hole;
use landfall_replica::there::Kept;
use landfall_replica::{Ended, EndedLog, Numbers, Resumed, Skipped};

use super::disks::{Disks, errors, land, line, look_again, move_on, next_pool, six};
use super::*;

/// What the end in good order before this pool says in a directory: where the log ended, how many
/// entries of the source there were, and how far files had to reach.
fn say_end(disks: &Disks, which: usize, source: &Source, (index, had, tail): (u64, u64, u64)) {
    let log = EndedLog {
        index,
        position: index * 3,
        entries: BTreeMap::from([(0, had)]),
        tails: BTreeMap::from([(0, tail)]),
        ..EndedLog::default()
    };
    let mut file = TopicFile::read(&disks.topic(which)).unwrap();
    file.pool_uuid = source.pool.uuid_text();
    file.began = Some(Ended { logs: BTreeMap::from([(0, log)]) });
    // As control writes it at a cold start.
    file.made_at = BTreeMap::new();
    file.replace(&disks.topic(which)).unwrap();
}

fn holes(disks: &Disks) -> usize {
    TopicFile::read(&disks.topic(0)).unwrap().holes.len()
}

/// The directory of broker 1, whose copy of what broker 0 landed begins behind log index 6: it had
/// landed nothing before.
fn begins_late(name: &str) -> (Disks, Source, Worker) {
    let disks = Disks::new(name);
    let mut source = next_pool(6);
    let mut entry = source.pool.topic_in_slot(0).unwrap();
    (entry.replicas, entry.replica_brokers) = (3, 2);
    source.pool.set_topic(&entry);
    land(&mut source, 2);
    let topic = disks.topic(1);
    fs::create_dir_all(&topic).unwrap();
    let mut file = TopicFile::of(&entry, &source.pool.uuid_text(), 1 << 20).unwrap();
    file.resumed.insert(0, Resumed { index: 6, position: 18 });
    let passed = Skipped { index: 0, to_index: 6, position: 0, to_position: 18 };
    file.skipped.entry(0).or_default().add(passed);
    file.replace(&topic).unwrap();
    // The disk was broker 2's when its file was begun.
    let begin = |me, copy| {
        let data = Data { others: Vec::new(), ..Data::new(&disks.0[1]) };
        let at = source.pool.copy_line(source.topic, broker(0), copy, None);
        let mut worker = source.worker_at(broker(me), data, Box::new(Plain), 1).unwrap();
        work(&mut worker);
        (worker, at)
    };
    (entry.replicas, entry.replica_brokers) = (4, 3);
    source.pool.set_topic(&entry);
    let (worker, at) = begin(2, 2);
    drop(worker);
    source.pool.start_copy(at, &ReplicaLine::default());
    (entry.replicas, entry.replica_brokers) = (3, 2);
    source.pool.set_topic(&entry);
    let (other, _) = begin(1, 1);
    // Others had landed there: it was not passed over.
    let mut file = TopicFile::read(&topic).unwrap();
    file.skipped.clear();
    let disk = Numbers::read(&disks.0[1]).unwrap().id;
    file.places.disks.insert(1, Kept { disk, said_ns: 1, ..Kept::default() });
    file.replace(&topic).unwrap();
    (disks, source, other)
}

/// A disk that was replaced is started before the other home is.
#[test]
fn a_hole_is_judged_again_when_another_home_has_begun() {
    let (disks, source, _other) = begins_late("judged-again");
    let at = source.pool.copy_line(source.topic, broker(0), 1, None);
    let its = source.pool.copy_state(at);
    assert_eq!((its.durable, its.errno), (8, 0));
    source.pool.start_copy(at, &ReplicaLine::default());
    let mut worker = source.worker(disks.data(0, true), Box::new(Plain), 1).unwrap();
    work(&mut worker);
    look_again(&mut worker, 0);
    assert_eq!((line(&source), holes(&disks)), ((8, 2, ReplicaState::Well, ENODATA), 1));
    // It is not known to be whole.
    source.pool.start_copy(at, &ReplicaLine { errno: ENODATA, ..its });
    look_again(&mut worker, 3);
    assert_eq!((line(&source).3, holes(&disks)), (ENODATA, 1));
    source.pool.start_copy(at, &its);
    look_again(&mut worker, 6);
    assert_eq!((line(&source), holes(&disks)), ((8, 2, ReplicaState::Well, 0), 0));
    let lacks = TopicFile::read(&disks.topic(0)).unwrap().places.lacks;
    assert!(lacks.is_empty(), "{lacks:?}");
    drop(worker);
    assert_eq!(errors(&source, disks.data(0, true), 2), [""; 0]);
    assert_eq!(line(&source).3, 0);
}

/// Nobody but the count of the end says that there was nothing in front.
#[test]
fn a_copy_that_has_as_many_entries_as_there_were_has_no_hole() {
    for (had, is_whole) in [(2, true), (3, false)] {
        let (disks, source, other) = begins_late(&format!("as-many-{had}"));
        drop((source, other));
        let source = next_pool(8);
        say_end(&disks, 1, &source, (8, had, 8));
        let mut worker = source.worker(disks.data(0, true), Box::new(Plain), 1).unwrap();
        work(&mut worker);
        look_again(&mut worker, 0);
        let errno = if is_whole { 0 } else { ENODATA };
        assert_eq!(line(&source), (8, 2, ReplicaState::Well, errno), "{:?}", worker.notes());
        assert_eq!(holes(&disks) == 0, is_whole);
    }
}

/// The copies that were counted went on behind what was passed over, and others landed there.
#[test]
fn what_comes_behind_as_many_entries_as_there_were_is_no_hole() {
    for (had, word, is_whole) in [(6, false, true), (7, false, false), (6, true, false)] {
        let disks = six(&format!("behind-as-many-{had}-{word}"));
        let source = next_pool(30);
        say_end(&disks, 1, &source, (30, had, 20));
        if word {
            // A copy that has a hole was counted.
            Hole { source: 0, from: 3, to: 5 }.say(&disks.topic(1)).unwrap();
        }
        let said = errors(&source, disks.data(0, true), 1);
        assert_eq!(said.is_empty(), is_whole, "{had} {word}: {said:?}");
        let errno = if is_whole { 0 } else { ENODATA };
        assert_eq!(line(&source), (30, 6, ReplicaState::Well, errno), "{had} {word}");
    }
}

/// The only copy had a hole when it was counted.
#[test]
fn a_count_of_a_copy_with_a_hole_makes_none_whole() {
    let disks = Disks::new("counted-hole");
    let mut source = next_pool(6);
    land(&mut source, 2);
    errors(&source, disks.data(0, false), 1);
    assert_eq!((line(&source).3, holes(&disks)), (ENODATA, 1));
    let source = next_pool(8);
    say_end(&disks, 0, &source, (8, 2, 8));
    for incarnation in 1..3 {
        let data = disks.data(0, false);
        let mut worker = source.worker(data, Box::new(Plain), incarnation).unwrap();
        work(&mut worker);
        look_again(&mut worker, 0);
        assert_eq!((line(&source).3, holes(&disks)), (ENODATA, 1), "{incarnation}");
    }
}

/// A topic of which broker 0 keeps what two brokers landed, in one log.
fn one_log(index: u64) -> Source {
    let mut source = Source::of(pool(), 0, Order::Strong);
    let entry = source.pool.topic_in_slot(0).unwrap();
    source.pool.set_topic(&TopicEntry { replicas: 3, replica_brokers: 2, ..entry });
    (source.frontier.entries, source.frontier.position) = (index, index * 3);
    source.publish();
    move_on(&source);
    source
}

/// Broker 1 landed all that lies in front of the first entry of broker 0, or somebody whose files
/// nobody has here landed some of it.
#[test]
fn a_hole_of_which_each_index_is_anothers_is_none() {
    for (which, is_said) in [(6, true), (6, false), (5, true), (2, false)] {
        let is_whole = which == 6;
        let disks = Disks::new(&format!("anothers-{which}-{is_said}"));
        let mut source = one_log(0);
        source.pool.set_tail_on_disk(source.topic, broker(1), 1);
        for index in 0..6 {
            let broker = if index == which { 3 } else { 1 };
            source.append(&OrderEntry {
                count: 3,
                broker,
                flags: ENTRY_HOLE,
                ..OrderEntry::default()
            });
        }
        source.publish();
        work(&mut source.worker(disks.data(0, false), Box::new(Plain), 1).unwrap());
        let mut source = one_log(6);
        land(&mut source, 2);
        source.pool.set_tail_on_disk(source.topic, broker(0), 7);
        for incarnation in 2..5 {
            let mut worker =
                source.worker(disks.data(0, false), Box::new(Plain), incarnation).unwrap();
            work(&mut worker);
            look_again(&mut worker, 0);
            let errno = if is_whole || incarnation == 2 { 0 } else { ENODATA };
            let notes = worker.notes();
            assert_eq!(line(&source), (8, 2, ReplicaState::Well, errno), "{which}: {notes:?}");
            assert_eq!(notes.is_empty(), errno == 0, "{which} {is_said}: {notes:?}");
            assert_eq!(holes(&disks) == 0, is_whole || !is_said || incarnation == 2);
            // The directory says that there is a hole, or is younger than the log.
            let mut file = TopicFile::read(&disks.topic(0)).unwrap();
            match is_said {
                true => file.holes.extend([Hole { source: 0, from: 0, to: 6 }]),
                false => file.made_at = BTreeMap::from([(SEQUENCED_LOG, 6)]),
            }
            file.replace(&disks.topic(0)).unwrap();
        }
    }
}

/// An end counted nothing of a broker, by a copy that had nothing: its directory says of a hole.
#[test]
fn a_count_of_nothing_by_a_copy_with_a_hole_is_none() {
    for has_hole in [false, true] {
        let disks = Disks::new(&format!("counted-nothing-{has_hole}"));
        let mut source = one_log(6);
        let entry = source.pool.topic_in_slot(0).unwrap();
        source.pool.set_topic(&TopicEntry { replicas: 4, replica_brokers: 3, ..entry });
        fs::create_dir_all(disks.topic(1)).unwrap();
        let mut file = TopicFile::of(&entry, &source.pool.uuid_text(), 1 << 20).unwrap();
        let entries = BTreeMap::from([(0, 0)]);
        let tails = BTreeMap::from([(0, 6)]);
        let log = EndedLog { index: 6, position: 18, entries, tails, ..EndedLog::default() };
        file.began = Some(Ended { logs: BTreeMap::from([(SEQUENCED_LOG, log)]) });
        file.holes.extend(has_hole.then_some(Hole { source: 0, from: 0, to: 6 }));
        file.replace(&disks.topic(1)).unwrap();
        land(&mut source, 2);
        source.pool.set_tail_on_disk(source.topic, broker(0), 7);
        errors(&source, disks.data(0, true), 1);
        let errno = if has_hole { ENODATA } else { 0 };
        assert_eq!((line(&source).0, line(&source).3), (8, errno), "{has_hole}");
    }
}

/// A broker whose disk hung for a while: its copy was kept by another meanwhile, and what that has
/// left memory. That nobody had kept the copy before its process came says nothing of this.
#[test]
fn what_left_memory_since_the_copy_was_opened_is_missed() {
    let disks = Disks::new("since-opened");
    let mut source = next_pool(6);
    let entry = source.pool.topic_in_slot(0).unwrap();
    fs::create_dir_all(disks.topic(0)).unwrap();
    let mut file = TopicFile::of(&entry, &source.pool.uuid_text(), 1 << 20).unwrap();
    file.resumed.insert(0, Resumed { index: 6, position: 18 });
    let passed = Skipped { index: 0, to_index: 6, position: 0, to_position: 18 };
    file.skipped.entry(0).or_default().add(passed);
    file.replace(&disks.topic(0)).unwrap();
    land(&mut source, 2);
    let mut worker = source.worker(disks.data(0, false), Box::new(Plain), 1).unwrap();
    work(&mut worker);
    assert_eq!((line(&source), holes(&disks)), ((8, 2, ReplicaState::Well, 0), 0));
    move_on(&source);
    land(&mut source, 2);
    move_on(&source);
    work(&mut worker);
    let said = worker.notes().concat();
    assert!(said.contains("landed at indexes 8 to 10 is not on this disk"), "{said}");
    assert_eq!((line(&source).3, holes(&disks)), (ENODATA, 1));
}
