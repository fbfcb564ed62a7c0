//! What control found on disk when a topic came back, and files that do not reach so far: another
//! state of the disk was put in its place before its broker was started.

use std::process::Command;

use landfall_replica::holes::Hole;
use landfall_replica::{Resumed, Skipped};

use super::disks::{Disks, copied_back, errors, land, line, look_again, next_pool, six_in};
use super::*;

const ENODATA: u32 = 61;

/// The next pool after a power cut: control found six entries, and the log went on behind what it
/// passed over, which it said in the directory `which`.
fn came_back(disks: &Disks, which: usize) -> Source {
    let source = next_pool(9);
    source.pool.set_tail_on_disk(source.topic, broker(0), 6);
    let topic = disks.topic(which);
    fs::create_dir_all(&topic).unwrap();
    let entry = source.pool.topic_in_slot(0).unwrap();
    let mut file = TopicFile::of(&entry, &source.pool.uuid_text(), 1 << 30).unwrap();
    let passed = Skipped { position: 18, to_position: 27, index: 6, to_index: 9 };
    file.skipped.entry(0).or_default().add(passed);
    file.resumed.insert(0, Resumed { index: 9, position: 27 });
    file.replace(&topic).unwrap();
    source
}

fn lacks(disks: &Disks) -> Vec<(u64, bool)> {
    let lacks = TopicFile::read(&disks.topic(0)).unwrap().places.lacks;
    lacks.into_iter().map(|lack| (lack.below, lack.is_torn)).collect()
}

/// With other directories that have no copy of it, and without a look at them.
#[test]
fn an_older_copy_of_the_only_disk_is_not_well() {
    for reads in [true, false] {
        let (disks, _before) = copied_back("tail-older");
        let source = came_back(&disks, 1);
        for incarnation in 1..4 {
            let said = errors(&source, disks.data(0, reads), incarnation).concat();
            // They go on behind it then.
            if incarnation == 1 {
                assert!(said.contains("up to log index 6 when the topic came"), "{said}");
                assert!(said.contains("have 3 entries and reach 3: some are gone"), "{said}");
            }
            assert!(said.contains("landed at indexes 3 to 9 is not on this disk"), "{said}");
            assert_eq!((line(&source).2, line(&source).3), (ReplicaState::Well, ENODATA));
            assert_eq!(lacks(&disks), [(6, true)], "a cold start asks for the one that has it");
        }
    }
}

#[test]
fn a_disk_that_was_wiped_before_its_broker_began_is_not_well() {
    let disks = Disks::new("tail-wiped");
    let source = came_back(&disks, 1);
    for incarnation in 1..3 {
        let said = errors(&source, disks.data(0, true), incarnation).concat();
        assert!(said.contains("is not on this disk"), "{said}");
        assert_eq!((line(&source).2, line(&source).3), (ReplicaState::Well, ENODATA));
        assert_eq!(lacks(&disks), [(6, true)], "what begins behind it does not have it");
    }
}

#[test]
fn the_disk_that_control_read_is_well() {
    let disks = six_in("tail-same", 0);
    let source = came_back(&disks, 0);
    for incarnation in 1..3 {
        assert_eq!(errors(&source, disks.data(0, false), incarnation), [""; 0]);
        assert_eq!(line(&source), (9, 6, ReplicaState::Well, 0));
        assert_eq!(lacks(&disks), []);
    }
}

/// The older one is filled from another copy, and so is one that went on without it, once its files
/// are away.
#[test]
fn an_older_copy_is_filled_where_another_has_it() {
    let disks = six_in("tail-filled", 1);
    let source = came_back(&disks, 0);
    assert_eq!(errors(&source, disks.data(0, false), 1).len(), 1, "nothing can be read");
    assert_eq!((line(&source).3, lacks(&disks)), (ENODATA, vec![(6, true)]));
    fs::remove_dir_all(disks.topic(0).join("b0")).unwrap();
    errors(&source, disks.data(0, true), 2);
    assert_eq!((line(&source).0, line(&source).1), (9, 6));
    assert_eq!(errors(&source, disks.data(0, true), 3), [""; 0]);
    assert_eq!((line(&source), lacks(&disks)), ((9, 6, ReplicaState::Well, 0), vec![]));
}

/// A topic with bounds, of which the disk was replaced: the line of the one before stood behind
/// what the log passed over.
#[test]
fn one_that_is_filled_up_to_where_the_log_passed_over_is_well() {
    let disks = six_in("tail-replaced", 0);
    let source = came_back(&disks, 0);
    let entry = source.pool.topic_in_slot(0).unwrap();
    source.pool.set_topic(&TopicEntry { disk_bytes: 1 << 40, ..entry });
    for incarnation in 1..3 {
        assert_eq!(errors(&source, disks.data(0, false), incarnation), [""; 0]);
    }
    assert_eq!(line(&source), (9, 6, ReplicaState::Well, 0));
    let [mine, theirs] = &disks.0;
    let _ = fs::remove_dir_all(theirs);
    assert!(Command::new("cp").arg("-a").args([mine, theirs]).status().unwrap().success());
    fs::remove_dir_all(disks.topic(0).join("b0")).unwrap();
    errors(&source, disks.data(0, true), 3);
    assert_eq!((line(&source), lacks(&disks)), ((9, 6, ReplicaState::Well, 0), vec![]));
    assert_eq!(errors(&source, disks.data(0, true), 4), [""; 0]);
}

/// Nobody counts what it has, and the log passed over as much once: that excuses nothing up to
/// where its line says that the last entry was.
#[test]
fn bounds_and_what_was_passed_over_excuse_no_older_disk() {
    let (disks, source) = copied_back("tail-bounds");
    let entry = source.pool.topic_in_slot(0).unwrap();
    source.pool.set_topic(&TopicEntry { disk_bytes: 1 << 40, ..entry });
    source.pool.raise_oldest(source.topic, 0, 6, 18);
    let mut file = TopicFile::read(&disks.topic(0)).unwrap();
    let passed = Skipped { position: 12, to_position: 18, index: 4, to_index: 6 };
    file.skipped.entry(0).or_default().add(passed);
    file.replace(&disks.topic(0)).unwrap();
    let [mine, theirs] = &disks.0;
    assert!(Command::new("cp").arg("-a").args([mine, theirs]).status().unwrap().success());
    for incarnation in 2..4 {
        let said = errors(&source, disks.data(0, true), incarnation).concat();
        assert!(said.contains("landed at indexes 3 to 6 is not on this disk"), "{said}");
        assert_eq!((line(&source).2, line(&source).3), (ReplicaState::Well, ENODATA));
    }
}

/// The same after one more power cut: disks have later entries by then, and the log passed over
/// something right behind the hole. One of the two words on it may be all that there is.
#[test]
fn what_was_passed_over_behind_a_hole_excuses_nothing_of_it_at_a_later_start() {
    for (words, has_lack, has_hole) in
        [("both", true, true), ("lack", true, false), ("hole", false, true)]
    {
        let (disks, _before) = copied_back(&format!("tail-later-{words}"));
        let mut source = came_back(&disks, 0);
        land(&mut source, 3);
        errors(&source, disks.data(0, false), 1);
        assert_eq!((line(&source).3, lacks(&disks)), (ENODATA, vec![(6, true)]));
        let source = next_pool(30);
        source.pool.set_tail_on_disk(source.topic, broker(0), 12);
        let mut file = TopicFile::read(&disks.topic(0)).unwrap();
        assert_eq!(file.holes, [Hole { source: 0, from: 3, to: 9 }].into());
        file.pool_uuid = source.pool.uuid_text();
        let passed = Skipped { position: 36, to_position: 90, index: 12, to_index: 30 };
        file.skipped.entry(0).or_default().add(passed);
        file.resumed.insert(0, Resumed { index: 30, position: 90 });
        file.made_at.clear();
        if !has_lack {
            file.places.lacks.clear();
        }
        if !has_hole {
            file.holes.clear();
        }
        file.replace(&disks.topic(0)).unwrap();
        for incarnation in 1..4 {
            let mut worker =
                source.worker(disks.data(0, false), Box::new(Plain), incarnation).unwrap();
            work(&mut worker);
            look_again(&mut worker, 0);
            let said = worker.notes().concat();
            assert!(
                said.contains("landed at indexes 3 to 9 is not on this disk"),
                "{words}: {said}"
            );
            assert_eq!((line(&source).0, line(&source).3), (30, ENODATA), "{words}");
            let file = TopicFile::read(&disks.topic(0)).unwrap();
            let has = (!file.places.lacks.is_empty(), !file.holes.is_empty());
            assert_eq!(has, (has_lack, has_hole), "{words}");
        }
    }
}
