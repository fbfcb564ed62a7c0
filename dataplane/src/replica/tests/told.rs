//! When control is told that a topic stands on this broker's disk.

use std::fs;

use landfall_pool::clock::boot_ns;
use landfall_replica::TopicFile;
use landfall_replica::names::topic_directory;

use super::{Bench, CREATED_NS, Worker};

/// Whoever creates a topic waits for the first broker that says so.
#[test]
fn a_topic_is_said_when_what_it_is_is_on_the_disk() {
    let mut bench = Bench::new("said", 0);
    let said = |worker: &Worker| std::mem::take(&mut *worker.shared.said.lock().unwrap());
    fs::create_dir_all(&bench.directory).unwrap();
    let in_the_way = bench.directory.join("t");
    fs::write(&in_the_way, "").unwrap();
    let mut worker = bench.worker();
    worker.look_at_table(boot_ns());
    assert_eq!(said(&worker), [], "it could not be written");
    fs::remove_file(&in_the_way).unwrap();
    let mut worker = bench.worker();
    worker.look_at_table(boot_ns());
    assert_eq!(said(&worker), [bench.topic]);
    assert!(TopicFile::read(&topic_directory(&bench.directory, "t", CREATED_NS)).is_ok());
    worker.look_at_table(boot_ns());
    assert_eq!(said(&worker), [], "once is enough");
}
