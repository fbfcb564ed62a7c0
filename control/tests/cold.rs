//! A pool that is lost more than once: what was said at one loss holds at the next.

mod fake;

use std::fs;
use std::path::{Path, PathBuf};

use fake::Memory;
use landfall_control::cold::restore;
use landfall_layout::TopicId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_replica::names::{TOPIC_FILE, topic_directory};
use landfall_replica::{Resumed, TopicFile};

const CREATED_NS: u64 = 77;

/// Data directories of two brokers, gone with this value.
struct Two(PathBuf);

impl Two {
    fn new(name: &str) -> Self {
        let number = std::process::id();
        Self(std::env::temp_dir().join(format!("landfall-cold-{name}-{number}")))
    }

    fn data(&self) -> [PathBuf; 2] {
        ["broker-0", "broker-1"].map(|broker| self.0.join(broker))
    }

    /// The topic's directory in each.
    fn topics(&self) -> [PathBuf; 2] {
        self.data().map(|data| topic_directory(&data, "t", CREATED_NS))
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
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

/// Writes what a broker's directory says of the topic, whose log went on at `index`.
fn say(directory: &Path, index: u64, pool_bytes: u64) {
    fs::create_dir_all(directory).unwrap();
    let mut file = TopicFile::of(&entry(), "a pool that is lost", pool_bytes).unwrap();
    file.resumed.insert(SEQUENCED_LOG, Resumed { index, position: 10 * index });
    file.write(directory).unwrap();
}

#[test]
fn a_log_that_nobody_copied_since_goes_on_behind_where_it_went_on_before() {
    let two = Two::new("twice");
    let [one, other] = two.topics();
    say(&one, 50, 64 << 20);
    say(&other, 40, 32 << 20);
    let mut reached = (50, 500);
    for lost_bytes in [64 << 20, 32 << 20, 32 << 20] {
        let memory = Memory::new();
        let pool = memory.pool(32);
        let notes = restore(&pool, &two.data(), 1);
        assert!(notes[0].contains("topic t is back"), "{notes:?}");
        let topic = TopicId(entry().id);
        let chain = pool.chain(topic, SEQUENCED_LOG).unwrap();
        let place = (chain.oldest_index, chain.restored_position);
        assert_eq!(place, (reached.0 + lost_bytes / 128, reached.1 + lost_bytes / 16));
        reached = place;
        for directory in two.topics() {
            let file = TopicFile::read(&directory).unwrap();
            assert_eq!((file.pool_uuid, file.pool_bytes), (pool.uuid_text(), 32 << 20));
            let resumed = Resumed { index: reached.0, position: reached.1 };
            assert_eq!(file.resumed[&SEQUENCED_LOG], resumed);
        }
    }
}

#[test]
fn a_directory_that_control_cannot_write_is_told() {
    let two = Two::new("closed");
    let [one, other] = two.topics();
    say(&one, 50, 32 << 20);
    say(&other, 50, 32 << 20);
    // A name that the new file needs: root could write anywhere else.
    fs::create_dir(one.join(format!("{TOPIC_FILE}.new"))).unwrap();
    let notes = restore(&Memory::new().pool(32), &two.data(), 1);
    let told = notes.iter().find(|note| note.contains("let control write there")).unwrap();
    assert!(told.contains("broker-0") && told.starts_with("topic t: "), "{told}");
    assert!(TopicFile::read(&other).unwrap().resumed[&SEQUENCED_LOG].index > 50);
}
