//! An older copy of the pool: what it took would have positions that are used.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use landfall_pool::Pool;
use landfall_pool::idle::Idle;
use landfall_pool::map::memfd;
use landfall_replica::FileSurvey;
use landfall_replica::end::{beyond, ends};

use super::disks::{Disks, errors, land, line, next_pool};
use super::*;
use crate::broker::{Broker, Config};

/// The pool's memory as it is now.
fn copied(pool: &Pool) -> Pool {
    let path = |fd: i32| format!("/proc/self/fd/{fd}");
    let memory = memfd("an older copy", 0).unwrap();
    let mut from = File::open(path(pool.fd().as_raw_fd())).unwrap();
    io::copy(&mut from, &mut File::create(path(memory.as_raw_fd())).unwrap()).unwrap();
    Pool::attach_file(File::from(memory), "an older copy".as_ref(), true).unwrap()
}

/// A broker that keeps replicas in `data` and can read `read_data`: whether it begins.
fn start(pool: &Pool, data: Data, read_data: Vec<PathBuf>) -> Result<(), String> {
    let file = File::from(pool.fd().try_clone_to_owned().unwrap());
    let config = Config {
        number: broker(5),
        listen: "127.0.0.1:0".into(),
        unix: None,
        idle: Idle::Backoff,
        verbs: None,
        session_lease_ns: 1,
        data: Some(data),
        read_data,
        host_is_down: false,
        stop_wait_ns: 0,
    };
    let started = Broker::start(Pool::attach_file(file, "it".as_ref(), true).unwrap(), &config);
    started.map(|_| ()).map_err(|error| error.to_string())
}

/// Nobody said in words how far the log was. The broker with the files does not begin, nor one that
/// reads them: it would have what it landed durable at those positions.
#[test]
fn no_broker_begins_on_a_pool_whose_files_reach_further() {
    let disks = Disks::new("behind");
    let mut source = Source::new(pool(), 0);
    land(&mut source, 3);
    work(&mut source.worker(disks.data(0, false), Box::new(Plain), 1).unwrap());
    let same = copied(&source.pool);
    land(&mut source, 2);
    let ahead = copied(&source.pool);
    work(&mut source.worker(disks.data(0, false), Box::new(Plain), 2).unwrap());
    let own = |pool: &Pool| start(pool, disks.data(0, false), Vec::new());
    let reads = |pool: &Pool| start(pool, disks.data(1, true), vec![disks.0[0].clone()]);
    for refused in [own(&same), reads(&same)] {
        let why = refused.unwrap_err();
        let says = "log 0 of topic t was at index 5 there and is at 3 here";
        assert!(why.contains("this pool is older than") && why.contains(says), "{why}");
    }
    assert_eq!(same.broker(broker(5)).incarnation, 0, "nobody ever was that broker");
    // The system was killed before anything was written of what had been ordered.
    for pool in [&ahead, &source.pool] {
        own(pool).unwrap();
        reads(pool).unwrap();
    }
}

/// A directory that was away when its topic came back in this pool never becomes this pool's: it
/// would say that the pool is an older copy.
#[test]
fn files_of_another_pool_that_reach_further_are_not_taken_up() {
    let disks = Disks::new("away");
    let mut source = Source::new(pool(), 0);
    land(&mut source, 6);
    work(&mut source.worker(disks.data(0, false), Box::new(Plain), 1).unwrap());
    let there = TopicFile::read(&disks.topic(0)).unwrap();
    let next = next_pool(4);
    let said = errors(&next, disks.data(0, false), 2);
    assert!(said[0].contains("reach log index 6 and the log only 4"), "{said:?}");
    assert_eq!(line(&next).2, ReplicaState::Failed);
    assert_eq!(TopicFile::read(&disks.topic(0)).unwrap(), there);
    start(&next.pool, disks.data(0, false), Vec::new()).unwrap();
}

/// Only heads are looked at first: what does not hold reaches nowhere.
#[test]
fn where_files_end_is_where_their_records_hold() {
    let mut bench = Bench::new("ends", 0);
    bench.land(4, 100);
    work(&mut bench.worker());
    let entry = bench.pool.topic_in_slot(0).unwrap();
    let topic = topic_directory(&bench.directory, "t", CREATED_NS);
    let [end] = &ends(&topic)[..] else { panic!("one source has files") };
    let whole = fs::read(&end.path).unwrap();
    for at in (REPLICA_HEADER_BYTES as usize..whole.len()).step_by(13) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&end.path, &bytes).unwrap();
        let holds = FileSurvey::take(&end.path).unwrap().end.index;
        assert!(beyond(&topic, &entry, |_| holds).is_none(), "byte {at}");
        let before = holds.checked_sub(1).and_then(|here| beyond(&topic, &entry, |_| here));
        assert_eq!(before.map(|(end, _)| end.index), (holds > 0).then_some(holds), "byte {at}");
    }
}
