//! A system that refuses to read a file says nothing of what is in it.

mod fake;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use fake::Memory;
use landfall_control::cold::{ColdError, restore};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_layout::{BrokerId, TopicId};
use landfall_replica::names::{TOPIC_FILE, replica_file, source_directory, topic_directory};
use landfall_replica::{Resumed, TopicFile, numbers};

const CREATED_NS: u64 = 77;

/// Data directories of two brokers with topic t, gone with this value.
struct Two(PathBuf);

impl Two {
    fn new(name: &str) -> Self {
        let number = std::process::id();
        let two = Self(std::env::temp_dir().join(format!("landfall-refused-{name}-{number}")));
        for (number, data) in two.data().iter().enumerate() {
            let topic = topic_directory(data, "t", CREATED_NS);
            fs::create_dir_all(source_directory(&topic, broker(0))).unwrap();
            numbers::name(data, broker(number), "a pool that is lost").unwrap();
            let mut file = TopicFile::of(&entry(), "a pool that is lost", 48 << 20).unwrap();
            file.resumed.insert(SEQUENCED_LOG, Resumed { index: 50, position: 500 });
            file.write(&topic).unwrap();
        }
        two
    }

    fn data(&self) -> [PathBuf; 2] {
        ["broker-0", "broker-1"].map(|broker| self.0.join(broker))
    }

    fn topic(&self, which: usize) -> PathBuf {
        topic_directory(&self.data()[which], "t", CREATED_NS)
    }

    /// Brings the topic back into a new pool; the index at which its log goes on.
    fn restore(&self, forgets_lost: bool) -> Result<u64, ColdError> {
        let memory = Memory::new();
        let pool = memory.pool(48);
        restore(&pool, &self.data(), forgets_lost, 1)?;
        Ok(pool.chain(TopicId(entry().id), SEQUENCED_LOG).unwrap().oldest_index)
    }

    /// What the start is refused with, which names the path and what to do; no file was changed.
    fn refusal(&self, name: &str) -> String {
        let error = self.restore(false).unwrap_err();
        assert!(matches!(error, ColdError::Refused { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("os error"), "{text}");
        assert!(text.contains("--forget-lost"), "{text}");
        let file = TopicFile::read(&self.topic(0)).unwrap();
        assert_eq!(file.pool_uuid, "a pool that is lost");
        text
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn broker(number: usize) -> BrokerId {
    BrokerId::new(number).unwrap()
}

fn entry() -> TopicEntry {
    let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
    entry.id = TopicId::new(0, 1).0;
    entry.state = TopicState::Live as u8;
    (entry.order, entry.replicas, entry.replica_brokers) = (Order::Strong.raw(), 3, 2);
    (entry.ring_slots, entry.name_bytes, entry.created_ns) = (16, 1, CREATED_NS);
    entry.name[0] = b't';
    entry
}

/// A file that the system does not read for root either: what follows a link without an end is
/// refused when it is opened, what is a directory when it is read.
#[test]
fn a_replica_file_that_the_system_refuses_is_not_taken_for_damage() {
    for is_open_refused in [true, false] {
        let two = Two::new("replica");
        let path = replica_file(&source_directory(&two.topic(1), broker(0)), 60);
        match is_open_refused {
            true => symlink(&path, &path).unwrap(),
            false => fs::create_dir(&path).unwrap(),
        }
        two.refusal("00060.replica");
        two.restore(true).unwrap();
        // What its bytes say is damage, and the log goes on behind what they may have had.
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        fs::write(&path, vec![7; 1 << 14]).unwrap();
        assert!(two.restore(false).unwrap() > 60);
    }
}

#[test]
fn a_topic_file_that_the_system_refuses_ends_the_start_also_where_another_is_there() {
    let two = Two::new("topic");
    let names = [TOPIC_FILE, "topic.json.copy"];
    for name in names {
        let path = two.topic(1).join(name);
        fs::remove_file(&path).unwrap();
        symlink(&path, &path).unwrap();
    }
    two.refusal(TOPIC_FILE);
    // Damaged, it is put together from the other directory.
    for name in names {
        let path = two.topic(1).join(name);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "{").unwrap();
    }
    two.restore(false).unwrap();
}

#[test]
fn a_directory_that_the_system_does_not_look_at_is_not_passed_over() {
    let two = Two::new("directory");
    let path = source_directory(&two.topic(1), broker(1));
    symlink(&path, &path).unwrap();
    let error = two.restore(false).unwrap_err();
    assert!(matches!(error, ColdError::Directory { .. }), "{error}");
    assert!(error.to_string().contains("/b1: "), "{error}");
}
