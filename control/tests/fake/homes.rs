//! Data directories of brokers, and the topic t that they have.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use landfall_control::election::Candidate;
use landfall_control::{Control, Options};
use landfall_layout::frame::GapReason;
use landfall_layout::order::{ENTRY_HOLE, FrontierLine, OrderEntry};
use landfall_layout::replica::{RecordHeader, mark_bytes};
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_layout::{BrokerId, TopicId};
use landfall_replica::names::topic_directory;
use landfall_replica::{TopicFile, Walk, numbers};

use super::{Memory, eventually};

pub const CREATED_NS: u64 = 77;
/// The pool in which directories had the topic.
pub const LOST: &str = "a pool that is lost";

/// Data directories of two brokers, gone with this value.
pub struct Two(pub PathBuf);

impl Two {
    /// None is there yet. `name` is this test's alone.
    pub fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("landfall-homes-{name}-{}", process::id())))
    }

    pub fn data(&self) -> [PathBuf; 2] {
        ["broker-0", "broker-1"].map(|broker| self.0.join(broker))
    }

    /// The topic's directory in each.
    pub fn topics(&self) -> [PathBuf; 2] {
        self.data().map(|data| topic_directory(&data, "t", CREATED_NS))
    }
}

/// Removes a directory, into which a thread of a control that has ended may still write.
pub fn remove(path: &Path) {
    eventually("a directory to be removed", || fs::remove_dir_all(path).ok());
}

impl Drop for Two {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn broker(number: usize) -> BrokerId {
    BrokerId::new(number).unwrap()
}

/// The topic, of two brokers.
pub fn entry(order: Order, replicas: u8) -> TopicEntry {
    let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
    entry.id = TopicId::new(0, 1).0;
    entry.state = TopicState::Live as u8;
    (entry.order, entry.replicas, entry.replica_brokers) = (order.raw(), replicas, 2);
    (entry.ring_slots, entry.name_bytes, entry.created_ns) = (16, 1, CREATED_NS);
    entry.name[0] = b't';
    entry
}

/// What directories of the lost pool say of it.
pub fn said(entry: &TopicEntry) -> TopicFile {
    TopicFile::of(entry, LOST, 48 << 20).unwrap()
}

/// Says that the directory is that broker's, in the lost pool.
pub fn name(data: &Path, number: usize) {
    numbers::name(data, broker(number), LOST).unwrap();
}

/// Lets a file, which has `ordinal` entries in front of it, say that it has everything below a log
/// index.
pub fn reach(path: &Path, ordinal: u64, index: u64) {
    let record = record(path, ordinal, index);
    let line = FrontierLine { entries: index, position: index, ..FrontierLine::default() };
    add(path, &record.seal_frontier(&line));
}

/// Adds holes to a file that has none: entries with nothing at their positions, ten each.
pub fn add_holes(path: &Path, indexes: Range<u64>) {
    for (ordinal, index) in indexes.enumerate() {
        let mut record = record(path, ordinal as u64, index);
        record.written_ns = 1;
        let entry = OrderEntry {
            commit: index + 1,
            first_position: 10 * index,
            count: 10,
            client: 1,
            session_epoch: 1,
            flags: ENTRY_HOLE,
            broker: record.source,
            ..OrderEntry::default()
        };
        add(path, &record.seal_hole(&entry, GapReason::Unwritten));
    }
}

fn record(path: &Path, ordinal: u64, index: u64) -> RecordHeader {
    let header = *Walk::open(path).unwrap().header();
    let (created_ns, mark, source) = (header.created_ns, mark_bytes(header.mark), header.source);
    let at = fs::metadata(path).unwrap().len();
    RecordHeader { index, at, created_ns, mark, ordinal, source, ..RecordHeader::default() }
}

fn add(path: &Path, head: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    bytes.extend_from_slice(head);
    fs::write(path, bytes).unwrap();
}

/// A control on new memory that brings topics back from there.
pub fn lead(memory: &Memory, data: &[PathBuf]) -> Result<Control, String> {
    let pool = memory.pool(48);
    let candidate = Candidate::new(&pool, 1).unwrap();
    let Ok(elected) = candidate.stand(&pool) else { panic!("nobody else is there") };
    Control::lead(pool, &memory.path(), Options::default(), elected, data)
        .map_err(|error| error.to_string())
}
