//! A replica without files in a pool that came back from disks: another disk, or one that lost
//! what it had. Nothing of the log's beginning is in memory.

use std::collections::{BTreeMap, BTreeSet};

use landfall_layout::replica::ENODATA;
use landfall_replica::there::{Disk, Kept, Lack, Part, Places, UNCOUNTED, absent};
use landfall_replica::{Ended, EndedLog, Numbers, Resumed, Skipped, Skips};

use super::disks::{Disks, errors, land, line, next_pool, six};
use super::*;

#[test]
fn a_wiped_disk_is_filled_from_other_copies_after_a_cold_start() {
    let disks = six("filled");
    let mut source = next_pool(6);
    land(&mut source, 2);
    assert_eq!(errors(&source, disks.data(0, true), 1), [""; 0]);
    assert_eq!(line(&source), (8, 8, ReplicaState::Well, 0));
    assert_eq!(disks.batches(0), (0, 8));
}

#[test]
fn a_wiped_disk_is_not_shown_as_well_before_it_is_filled() {
    let disks = six("filling");
    let mut source = next_pool(6);
    land(&mut source, 2);
    let mut worker = source.worker(disks.data(0, true), Box::new(Plain), 1).unwrap();
    worker.look_at_table(boot_ns());
    assert_eq!(line(&source), (0, 0, ReplicaState::Well, ENODATA));
    work(&mut worker);
    assert_eq!(line(&source), (8, 8, ReplicaState::Well, 0));
}

#[test]
fn what_a_wiped_disk_lacks_is_an_error_and_is_shown() {
    let disks = six("lacking");
    let mut source = next_pool(6);
    land(&mut source, 2);
    let said = errors(&source, disks.data(0, false), 1);
    assert!(said[0].contains("landed at indexes 0 to 6 is not on this disk"), "{said:?}");
    assert_eq!((said.len(), line(&source)), (1, (8, 2, ReplicaState::Well, ENODATA)));
    // The next process of the broker, and one that can read the other copy by now.
    for (incarnation, reads) in [(2, false), (3, true)] {
        let said = errors(&source, disks.data(0, reads), incarnation);
        assert!(said[0].contains("landed at indexes 0 to 6 is not on this disk"), "{said:?}");
        assert_eq!(line(&source).3, ENODATA);
    }
    assert_eq!(disks.batches(0), (6, 2));
}

#[test]
fn a_file_that_was_cut_to_nothing_is_filled_like_a_disk_that_was_wiped() {
    let disks = six("cut");
    let mut before = Source::new(pool(), 0);
    land(&mut before, 6);
    work(&mut before.worker(disks.data(0, false), Box::new(Plain), 1).unwrap());
    let listing = list(&disks.0[0]).unwrap();
    fs::write(&listing.topics[0].sources[0].files[0].1, []).unwrap();
    let source = next_pool(6);
    assert_eq!(errors(&source, disks.data(0, true), 1), [""; 0]);
    assert_eq!((line(&source), disks.batches(0)), ((6, 6, ReplicaState::Well, 0), (0, 6)));
}

/// The log went on after the last batch of this broker, and ended in good order.
#[test]
fn what_the_source_never_landed_is_not_missing() {
    let disks = six("never");
    let mut source = next_pool(9);
    let uuid = source.pool.uuid_text();
    let say = |which, had| {
        let entries = BTreeMap::from([(0, had)]);
        let log = EndedLog { index: 9, position: 27, entries, ..EndedLog::default() };
        let began = Some(Ended { logs: BTreeMap::from([(0, log)]) });
        let file = TopicFile::read(&disks.topic(which)).unwrap();
        TopicFile { began, pool_uuid: uuid.clone(), ..file }.replace(&disks.topic(which)).unwrap();
    };
    say(1, 6);
    land(&mut source, 1);
    assert_eq!(errors(&source, disks.data(0, true), 1), [""; 0]);
    assert_eq!(line(&source), (10, 7, ReplicaState::Well, 0));
}

/// An end that was said before any broker came has no count of what the disks have.
#[test]
fn what_nobody_counted_is_copied_from_another_disk() {
    let disks = six("uncounted");
    let mut source = next_pool(9);
    let uuid = source.pool.uuid_text();
    let log = EndedLog { index: 9, position: 27, ..EndedLog::default() };
    let began = Some(Ended { logs: BTreeMap::from([(0, log)]) });
    let mut skips = Skips::default();
    skips.add(Skipped { index: 6, to_index: 9, position: 18, to_position: 27 });
    let skipped = BTreeMap::from([(0, skips)]);
    let file = TopicFile::read(&disks.topic(1)).unwrap();
    let file = TopicFile { began, skipped, pool_uuid: uuid, ..file };
    file.replace(&disks.topic(1)).unwrap();
    land(&mut source, 1);
    assert_eq!(errors(&source, disks.data(0, true), 1), [""; 0]);
    assert_eq!(line(&source), (10, 7, ReplicaState::Well, 0));
    let (_, has) = disks.batches(0);
    assert_eq!(has, 7, "those of the other disk, and the one that came since");
}

/// Disks that are replaced one at a time: each counts once it has all that was on the one before.
#[test]
fn a_directory_that_replaces_another_lacks_nothing_once_it_is_filled() {
    for reads in [true, false] {
        let disks = six(if reads { "replaced" } else { "not-replaced" });
        let mut source = next_pool(6);
        land(&mut source, 2);
        errors(&source, disks.data(0, reads), 1);
        let places = TopicFile::read(&disks.topic(0)).unwrap().places;
        let number = Numbers::read(&disks.0[0]).unwrap().id;
        let elsewhere = TopicFile::read(&disks.topic(1)).unwrap().places.disks[&0].disk;
        assert_eq!(elsewhere == number, reads);
        // What cannot be read may say that another one is asked for.
        assert_eq!(places.disks.get(&0).map(|kept| kept.disk), reads.then_some(number));
        assert!(places.lacks.is_empty(), "{places:?}");
    }
}

/// Who landed nothing before the pool was lost: a home that has all says so, unless its directory
/// says of a hole.
#[test]
fn what_begins_behind_a_hole_in_a_whole_copy_is_no_hole() {
    for has_hole in [false, true] {
        let disks = Disks::new(&format!("first-behind-{has_hole}"));
        let mut source = next_pool(6);
        let mut entry = source.pool.topic_in_slot(0).unwrap();
        (entry.replicas, entry.replica_brokers) = (3, 2);
        source.pool.set_topic(&entry);
        land(&mut source, 2);
        let home = Data { others: Vec::new(), ..Data::new(&disks.0[1]) };
        let mut other = source.worker_at(broker(1), home, Box::new(Plain), 1).unwrap();
        let topic = disks.topic(1);
        fs::create_dir_all(&topic).unwrap();
        let file = TopicFile::of(&entry, &source.pool.uuid_text(), 1 << 20).unwrap();
        let resumed = BTreeMap::from([(0, Resumed { index: 6, position: 18 })]);
        TopicFile { resumed, ..file }.replace(&topic).unwrap();
        work(&mut other);
        // It knows by how the log ended before that nothing was landed there.
        let at = source.pool.copy_line(source.topic, broker(0), 1, None);
        let its = source.pool.copy_state(at);
        source.pool.start_copy(at, &ReplicaLine { errno: 0, ..its });
        let mut file = TopicFile::read(&topic).unwrap();
        assert_eq!(file.holes.len(), 1);
        if !has_hole {
            file.holes.clear();
            file.replace(&topic).unwrap();
        }
        let said = errors(&source, disks.data(0, true), 1);
        let errno = if has_hole { ENODATA } else { 0 };
        assert_eq!(said.is_empty(), !has_hole, "{said:?}");
        assert_eq!(line(&source), (8, 2, ReplicaState::Well, errno));
    }
}

/// Who stood in was started on an empty mount point, and is started where it was. Nobody knows how
/// much it had there.
#[test]
fn what_nobody_counted_is_not_lacking_where_all_of_the_log_is_there() {
    for (landed, passed_over) in [(6, false), (5, true), (5, false)] {
        let disks = Disks::new(&format!("uncounted-{landed}-{passed_over}"));
        let mut before = Source::new(pool(), 0);
        land(&mut before, landed);
        work(&mut before.worker(disks.data(0, false), Box::new(Plain), 1).unwrap());
        let mut home = TopicFile::read(&disks.topic(0)).unwrap();
        let part = Part { source: 0, copy: 0, keeper: 1, from: 3 };
        let mut places = Places { parts: [part].into(), ..home.places.clone() };
        places.disks.insert(1, Kept { said_ns: 1, disk: 77, ..Kept::default() });
        fs::create_dir_all(disks.topic(1)).unwrap();
        TopicFile { places, ..home.clone() }.replace(&disks.topic(1)).unwrap();
        if passed_over {
            let mut skips = Skips::default();
            skips.add(Skipped { index: 5, to_index: 6, position: 15, to_position: 18 });
            home.skipped.insert(0, skips);
            home.replace(&disks.topic(0)).unwrap();
        }
        let mut source = if passed_over { next_pool(6) } else { Source::new(pool(), 0) };
        if !passed_over {
            // All of it is in memory.
            land(&mut source, 6);
        }
        let stood_in = Data::new(&disks.0[1]);
        work(&mut source.worker_at(broker(1), stood_in, Box::new(Plain), 1).unwrap());
        let file = TopicFile::read(&disks.topic(1)).unwrap();
        let (entries, is_torn) = (UNCOUNTED, false);
        let lack = Lack { keeper: 1, source: 0, entries, below: 6, disk: 77, is_torn };
        assert!(file.places.lacks.contains(&lack), "{:?}", file.places);
        let there = disks.0.each_ref().map(|data| Disk::look(data));
        let topics = [disks.topic(0), disks.topic(1)];
        let absent = absent(&file, &BTreeSet::new(), &topics, &there);
        let of_zero = absent.iter().find(|absent| absent.source == 0);
        let keepers = of_zero.map(|absent| absent.keepers.as_slice());
        let is_there = landed == 6 || passed_over;
        assert_eq!(keepers, (!is_there).then_some([1].as_slice()), "{landed} {passed_over}");
    }
}

/// Its disk was unmounted, or somebody moved it: what has its name now is another one, in which
/// nobody will look when the first is back.
#[test]
fn no_copy_begins_in_a_directory_that_was_put_in_the_place_of_the_one_that_was_taken() {
    for is_made_anew in [false, true] {
        let disks = Disks::new(if is_made_anew { "anew" } else { "away" });
        let mut source = Source::new(pool(), 0);
        let mut worker = source.worker(disks.data(0, false), Box::new(Plain), 1).unwrap();
        fs::rename(&disks.0[0], &disks.0[1]).unwrap();
        if is_made_anew {
            fs::create_dir(&disks.0[0]).unwrap();
        }
        land(&mut source, 6);
        worker.look_at_table(boot_ns());
        work(&mut worker);
        let (_, durable, state, errno) = line(&source);
        assert_eq!((durable, state), (0, ReplicaState::Failed));
        assert_eq!(errno, nix::libc::ESTALE as u32);
        let begun = |path: &PathBuf| fs::read_dir(path).is_ok_and(|mut all| all.next().is_some());
        assert!(!begun(&disks.0[0]) && !begun(&disks.0[1]));
    }
}
