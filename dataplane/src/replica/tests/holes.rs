//! Holes in the middle of a copy: what is in no file that is here, and neither in memory nor in
//! another copy. And what looks like one, and is none.

use std::collections::BTreeMap;

use landfall_layout::keepers::StandIn;
use landfall_layout::replica::ENODATA;
use landfall_replica::holes::Hole;
use landfall_replica::there::{Lack, UNCOUNTED};
use landfall_replica::{Resumed, Skipped, Skips, Unkept};

use super::disks::{
    Disks, copied_back, errors, follow, land, line, move_on, next_pool, six, six_in,
};
use super::*;

/// Entries of another broker, which no copy of this one has, and which have left memory.
fn pass(source: &mut Source, entries: u64) -> u64 {
    follow(source, entries);
    move_on(source)
}

/// A disk with six batches, of a pool that is lost.
fn six_here(name: &str) -> Disks {
    six_in(name, 0)
}

/// What control writes at a cold start in which the log passed over some entries.
fn came_back(disks: &Disks, source: &Source, (from, to): (u64, u64)) {
    let topic = disks.topic(0);
    let mut skips = Skips::default();
    let (position, to_position) = (from * 3, to * 3);
    skips.add(Skipped { index: from, to_index: to, position, to_position });
    let file = TopicFile::read(&topic).unwrap();
    let file = TopicFile {
        pool_uuid: source.pool.uuid_text(),
        resumed: BTreeMap::from([(0, Resumed { index: to, position: to_position })]),
        skipped: BTreeMap::from([(0, skips)]),
        ..file
    };
    file.replace(&topic).unwrap();
}

#[test]
fn a_hole_in_the_middle_is_shown_for_as_long_as_it_is_there() {
    let (disks, mut source) = copied_back("hole");
    move_on(&source);
    // Also where nothing lands behind it.
    for incarnation in 2..5 {
        let said = errors(&source, disks.data(0, false), incarnation);
        let hole = "goes on at log index 6 and has everything only up to 3";
        assert!(said.iter().any(|text| text.contains(hole)), "{said:?}");
        assert_eq!(said.len(), if incarnation == 2 { 2 } else { 1 }, "{said:?}");
        assert_eq!((line(&source).0, line(&source).3), (source.frontier.entries, ENODATA));
        land(&mut source, incarnation - 2);
    }
}

#[test]
fn what_no_disk_had_when_a_pool_was_lost_is_no_hole_in_a_copy() {
    let disks = six_here("told");
    let mut source = next_pool(20);
    came_back(&disks, &source, (8, 20));
    for incarnation in 1..5 {
        assert_eq!(errors(&source, disks.data(0, false), incarnation), [""; 0]);
        let (durable, _, state, errno) = line(&source);
        assert_eq!((durable, state, errno), (source.frontier.entries, ReplicaState::Well, 0));
        move_on(&source);
        match incarnation {
            1 => follow(&mut source, 5),
            _ => land(&mut source, 1),
        }
    }
}

/// The pool before was stopped in good order, with a copy that had failed: the log goes on where it
/// ended.
#[test]
fn what_only_a_pool_had_that_is_gone_is_no_hole_in_a_copy() {
    for (from, of, is_none) in [(6, 0, true), (7, 0, false), (6, 1, false)] {
        let disks = six_here(&format!("alone-{from}-{of}"));
        let mut source = next_pool(20);
        let topic = disks.topic(0);
        let mut file = TopicFile::read(&topic).unwrap();
        file.pool_uuid = source.pool.uuid_text();
        file.resumed.insert(0, Resumed { index: 20, position: 60 });
        let unkept = Unkept { index: from, to_index: 20, log: 0, source: of };
        file.places.add_unkept([unkept].into_iter());
        file.replace(&topic).unwrap();
        for incarnation in 1..4 {
            let said = errors(&source, disks.data(0, false), incarnation);
            assert_eq!(said.is_empty(), is_none, "{from} of {of}: {said:?}");
            let (durable, _, state, errno) = line(&source);
            assert_eq!((durable, state), (source.frontier.entries, ReplicaState::Well));
            assert_eq!(errno, if is_none { 0 } else { ENODATA }, "{from} of {of}");
            assert!(TopicFile::read(&topic).unwrap().places.unkept.contains(&unkept));
            move_on(&source);
            land(&mut source, 1);
        }
    }
}

/// A copy of the disk from before, which ends in front of what the log passed over: its line says
/// that it had more.
#[test]
fn what_an_older_disk_lacks_in_front_of_a_lost_pool_is_a_hole() {
    for is_bounded in [false, true] {
        let name = if is_bounded { "older-bounded" } else { "older" };
        let (disks, mut source) = copied_back(name);
        if is_bounded {
            let entry = source.pool.topic_in_slot(0).unwrap();
            source.pool.set_topic(&TopicEntry { disk_bytes: 1 << 30, ..entry });
        }
        pass(&mut source, 14);
        came_back(&disks, &source, (6, 20));
        for incarnation in 2..5 {
            let said = errors(&source, disks.data(0, false), incarnation);
            let hole = |text: &String| text.contains("is not on this disk");
            assert!(said.iter().any(hole), "{incarnation}: {said:?}");
            let (durable, _, _, errno) = line(&source);
            assert_eq!((durable, errno), (source.frontier.entries, ENODATA), "{incarnation}");
            let lacks = TopicFile::read(&disks.topic(0)).unwrap().places.lacks;
            let entries = if is_bounded { UNCOUNTED } else { 6 };
            let is_said = |lack: &Lack| (lack.entries, lack.is_torn) == (entries, true);
            assert!(lacks.iter().any(is_said), "{lacks:?}");
            land(&mut source, 4);
        }
    }
}

/// An empty disk in place of one whose line had entries on both sides of what the log passed over.
#[test]
fn what_is_filled_around_what_was_passed_over_is_whole() {
    let disks = six_here("around");
    let mut source = next_pool(20);
    came_back(&disks, &source, (6, 20));
    land(&mut source, 2);
    assert_eq!(errors(&source, disks.data(0, false), 1), [""; 0]);
    assert_eq!(line(&source), (22, 8, ReplicaState::Well, 0));
    fs::rename(&disks.0[0], &disks.0[1]).unwrap();
    move_on(&source);
    let said = errors(&source, disks.data(0, true), 2);
    assert!(said.len() == 1 && said[0].contains("it had 8 entries on stable storage"), "{said:?}");
    assert_eq!(line(&source), (22, 8, ReplicaState::Well, 0));
    let lacks = TopicFile::read(&disks.topic(0)).unwrap().places.lacks;
    assert!(lacks.is_empty(), "{lacks:?}");
}

/// The first of two files is gone, and the other was begun anew behind a lost pool.
#[test]
fn files_that_are_gone_from_the_front_are_missed() {
    let disks = six_here("front");
    let mut source = next_pool(20);
    came_back(&disks, &source, (6, 20));
    land(&mut source, 1);
    assert_eq!(errors(&source, disks.data(0, false), 1), [""; 0]);
    let files = list(&disks.0[0]).unwrap().topics[0].sources[0].files.clone();
    assert_eq!(files.len(), 2);
    fs::remove_file(&files[0].1).unwrap();
    let said = errors(&source, disks.data(0, false), 2);
    assert!(said[0].contains("begins at log index 20, behind files that are gone"), "{said:?}");
    assert_eq!(line(&source), (21, 7, ReplicaState::Well, ENODATA));
}

/// Others land, and its broker comes when that has left memory.
#[test]
fn a_broker_that_comes_late_after_a_cold_start_lacks_nothing() {
    let disks = six_here("late");
    let mut source = next_pool(20);
    came_back(&disks, &source, (6, 20));
    pass(&mut source, 5);
    for incarnation in 1..4 {
        assert_eq!(errors(&source, disks.data(0, false), incarnation), [""; 0]);
        let (durable, _, state, errno) = line(&source);
        assert_eq!((durable, state, errno), (source.frontier.entries, ReplicaState::Well, 0));
        land(&mut source, 1);
    }
    assert_eq!(disks.batches(0), (0, 8));
}

#[test]
fn what_another_keeper_says_was_never_landed_is_not_missing() {
    let disks = Disks::new("elsewhere");
    let mut source = Source::new(pool(), 0);
    land(&mut source, 6);
    work(&mut source.worker(disks.data(0, false), Box::new(Plain), 1).unwrap());
    let durable = pass(&mut source, 4);
    let to = Some(StandIn { broker: broker(3), line: 0 });
    let at = source.pool.copy_line(source.topic, broker(0), 0, to);
    let state = ReplicaState::Well.raw();
    let mut says = ReplicaLine { durable, written: durable, tail: 6, state, ..line_of(&source) };
    source.pool.start_copy(at, &says);
    assert_eq!(errors(&source, disks.data(0, false), 2), [""; 0]);
    assert_eq!(line(&source), (10, 6, ReplicaState::Well, 0));
    // It kept something.
    let durable = pass(&mut source, 4);
    (says.durable, says.written, says.tail) = (durable, durable, durable);
    source.pool.start_copy(at, &says);
    let said = errors(&source, disks.data(0, false), 3);
    assert!(said[0].contains("landed at indexes 10 to 14 is not on this disk"), "{said:?}");
    assert_eq!(line(&source), (14, 6, ReplicaState::Well, ENODATA));
}

/// Control asks for the disk that has it for as long as the word stands.
#[test]
fn a_hole_is_said_in_its_directory_until_it_is_filled() {
    let disks = Disks::new("said");
    let mut source = Source::new(pool(), 0);
    land(&mut source, 6);
    work(&mut source.worker(disks.data(0, false), Box::new(Plain), 1).unwrap());
    let was = line_of(&source);
    land(&mut source, 4);
    // Another keeper has all of it.
    work(&mut source.worker(disks.data(1, false), Box::new(Plain), 2).unwrap());
    let at = |stand_in| source.pool.copy_line(source.topic, broker(0), 0, stand_in);
    let (home, other) = (at(None), at(Some(StandIn { broker: broker(3), line: 0 })));
    source.pool.start_copy(other, &line_of(&source));
    source.pool.start_copy(home, &was);
    move_on(&source);
    let said = || TopicFile::read(&disks.topic(0)).unwrap().holes;
    let hole = Hole { source: 0, from: 6, to: 10 };
    for incarnation in 3..5 {
        let told = errors(&source, disks.data(0, false), incarnation);
        assert!(told[0].contains("landed at indexes 6 to 10 is not on this disk"), "{told:?}");
        assert_eq!((line(&source).3, said()), (ENODATA, [hole].into()), "{incarnation}");
        land(&mut source, 1);
    }
    fs::remove_dir_all(disks.topic(0).join("b0")).unwrap();
    errors(&source, disks.data(0, true), 5);
    assert_eq!(errors(&source, disks.data(0, true), 6), [""; 0]);
    assert_eq!((line(&source), said()), ((12, 12, ReplicaState::Well, 0), [].into()));
}

/// No place between two files tells of it.
#[test]
fn a_hole_in_front_of_all_files_is_known_by_its_word() {
    let disks = six("said-front");
    let mut source = next_pool(6);
    land(&mut source, 2);
    errors(&source, disks.data(0, false), 1);
    let said = || TopicFile::read(&disks.topic(0)).unwrap();
    let hole = Hole { source: 0, from: 0, to: 6 };
    assert_eq!(said().holes, [hole].into());
    let file = TopicFile { made_at: BTreeMap::new(), ..said() };
    file.replace(&disks.topic(0)).unwrap();
    let told = errors(&source, disks.data(0, false), 2);
    assert!(told[0].contains("landed at indexes 0 to 6 is not on this disk"), "{told:?}");
    assert_eq!((line(&source).3, said().holes), (ENODATA, [hole].into()));
}

fn line_of(source: &Source) -> ReplicaLine {
    source.pool.replica(source.topic, broker(0), 0)
}
