//! A replica without files in a pool that came back from disks: another disk, or one that lost
//! what it had. Nothing of the log's beginning is in memory.

use std::collections::BTreeMap;
use std::fs::{File, remove_dir_all};
use std::path::Path;
use std::sync::Arc;

use landfall_layout::replica::ENODATA;
use landfall_pool::Pool;
use landfall_replica::{Ended, EndedLog, Numbers, Resumed};

use super::*;
use crate::standing::Standing;

/// The directory that was lost, and another broker's; gone with this value.
pub(super) struct Disks(pub(super) [PathBuf; 2]);

impl Disks {
    pub(super) fn new(name: &str) -> Self {
        let path = |which| format!("landfall-wiped-{name}-{which}-{}", std::process::id());
        Self(["mine", "theirs"].map(|which| std::env::temp_dir().join(path(which))))
    }

    /// A replica's directory, and what it can read beside.
    pub(super) fn data(&self, which: usize, reads: bool) -> Data {
        let others = if reads { vec![self.0[1 - which].clone()] } else { Vec::new() };
        Data { others, ..Data::new(&self.0[which]) }
    }

    pub(super) fn topic(&self, which: usize) -> PathBuf {
        topic_directory(&self.0[which], "t", CREATED_NS)
    }

    pub(super) fn batches(&self, which: usize) -> (u64, u64) {
        let listing = list(&self.0[which]).unwrap();
        let survey = SourceSurvey::take(&listing.topics[0].sources[0].files).unwrap();
        let files = &survey.files;
        (files[0].header.first_index, files.iter().map(|file| file.batches).sum())
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(remove_dir_all(path)));
    }
}

pub(super) fn land(source: &mut Source, batches: u64) {
    for _ in 0..batches {
        let entry = source.place(&[7; 100], true);
        source.append(&entry);
    }
    source.publish();
}

/// The next pool: its log goes on at `index`, and nothing before that is in memory.
pub(super) fn next_pool(index: u64) -> Source {
    let mut source = Source::new(pool(), 0);
    (source.frontier.entries, source.frontier.position) = (index, index * 3);
    source.publish();
    source.pool.raise_oldest(source.topic, 0, index, index * 3);
    source
}

/// What a process of broker 0 says of what it has to do.
pub(super) fn errors(source: &Source, data: Data, incarnation: u64) -> Vec<String> {
    let shared = Arc::new(Shared::new());
    let file = File::from(source.pool.fd().try_clone_to_owned().unwrap());
    let pool = Pool::attach_file(file, Path::new("the pool"), true).unwrap();
    let me = Standing::new(broker(0), incarnation);
    let mut worker = Worker::new(pool, me, data, Box::new(Plain), shared.clone()).unwrap();
    work(&mut worker);
    std::mem::take(&mut *shared.notes.lock().unwrap())
}

/// Everything of six batches is in another broker's directory.
pub(super) fn six(name: &str) -> Disks {
    let disks = Disks::new(name);
    let mut before = Source::new(pool(), 0);
    land(&mut before, 6);
    work(&mut before.worker(disks.data(1, false), Box::new(Plain), 1).unwrap());
    disks
}

pub(super) fn line(source: &Source) -> (u64, u64, ReplicaState, u32) {
    let line = source.pool.replica(source.topic, broker(0), 0);
    (line.durable, line.entries, line.state(), line.errno)
}

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

/// Who landed nothing before the pool was lost: a home that has all says so.
#[test]
fn what_begins_behind_a_hole_in_a_whole_copy_is_no_hole() {
    let disks = Disks::new("first-behind");
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
    let said = errors(&source, disks.data(0, true), 1);
    assert_eq!((said, line(&source)), (vec![], (8, 2, ReplicaState::Well, 0)));
}
