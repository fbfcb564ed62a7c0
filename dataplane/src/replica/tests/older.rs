//! Files that are not those that the line in the pool speaks of: a copy of a disk from before, or
//! another disk with as many entries. And files that are, though the log went on without them.

use landfall_layout::replica::TAIL_UNKNOWN;

use super::disks::{Disks, copied_back, errors, follow, land, line, move_on, next_pool, six};
use super::*;

/// Another disk is used for a while, with as many entries on it, and the first one comes back.
#[test]
fn as_many_other_entries_are_not_those_that_were_durable() {
    let disks = six("as-many");
    let mut source = next_pool(9);
    land(&mut source, 6);
    let kept = disks.data(0, false);
    work(&mut source.worker(kept, Box::new(Plain), 1).unwrap());
    assert_eq!((line(&source).0, line(&source).1), (15, 6));
    assert_eq!(disks.batches(0), (9, 6));
    // The disk with the first six in its place.
    disks.swap();
    let said = errors(&source, disks.data(0, false), 2);
    assert!(said[0].contains("up to log index 15, and its files have 6 and reach 6"), "{said:?}");
    assert_eq!((line(&source).0, line(&source).1), (15, 12));
    assert_eq!(disks.batches(0), (0, 12));
}

#[test]
fn a_copy_of_the_disk_from_before_is_filled_up_again() {
    let (disks, source) = copied_back("from-before");
    let said = errors(&source, disks.data(0, false), 2);
    assert!(said[0].contains("up to log index 6, and its files have 3 and reach 3"), "{said:?}");
    assert_eq!((line(&source), disks.batches(0)), ((6, 6, ReplicaState::Well, 0), (0, 6)));
    assert!(TopicFile::read(&disks.topic(0)).unwrap().places.lacks.is_empty());
}

/// Others landed behind it, and what they landed has left memory: no file says so.
#[test]
fn files_of_a_broker_that_landed_nothing_since_have_all_of_it() {
    let disks = Disks::new("idle");
    let mut source = Source::new(pool(), 0);
    land(&mut source, 3);
    // Some before the files are looked at again, and some after.
    for incarnation in 1..4 {
        follow(&mut source, 5);
        assert_eq!(errors(&source, disks.data(0, false), incarnation), [""; 0]);
        let end = source.frontier.entries;
        assert_eq!(line(&source), (end, 3, ReplicaState::Well, 0));
        move_on(&source);
    }
    // Its directory cannot be opened, and then it can.
    let topic = topic_directory(&disks.0[0], "t", CREATED_NS);
    fs::rename(&topic, disks.0[0].join("t/away")).unwrap();
    fs::write(&topic, []).unwrap();
    for incarnation in 4..6 {
        work(&mut source.worker(disks.data(0, false), Box::new(Plain), incarnation).unwrap());
        assert_eq!((line(&source).0, line(&source).2), (0, ReplicaState::Failed));
    }
    fs::remove_file(&topic).unwrap();
    fs::rename(disks.0[0].join("t/away"), &topic).unwrap();
    assert_eq!(errors(&source, disks.data(0, false), 6), [""; 0]);
    assert_eq!(line(&source), (18, 3, ReplicaState::Well, 0));
}

#[test]
fn a_copy_that_could_never_be_opened_reaches_nothing_that_is_known() {
    let disks = Disks::new("shut");
    let source = next_pool(9);
    fs::create_dir_all(disks.0[0].join("t")).unwrap();
    fs::write(topic_directory(&disks.0[0], "t", CREATED_NS), []).unwrap();
    work(&mut source.worker(disks.data(0, false), Box::new(Plain), 1).unwrap());
    let line = source.pool.replica(source.topic, broker(0), 0);
    assert_eq!((line.state(), line.tail), (ReplicaState::Failed, TAIL_UNKNOWN));
}
