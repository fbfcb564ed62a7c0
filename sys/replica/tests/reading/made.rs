//! Replica files made for tests.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::batch::{BatchPreamble, crc32c};
use landfall_layout::frame::GapReason;
use landfall_layout::order::{ENTRY_HOLE, FrontierLine, OrderEntry};
use landfall_layout::replica::{REPLICA_HEADER_BYTES, RecordHeader, ReplicaHeader};
use landfall_replica::merge::Wanted;
use landfall_replica::names::{replica_file, source_directory, topic_directory};

pub const CREATED: u64 = 1_700_000_000_000_000_000;
/// Bytes of each record: head, preamble, payload.
pub const RECORD: u64 = 128 + 64 + 128;

/// A directory of its own for each test, removed at its end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("reading-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The replicas in the data directories `a` and `b` of so many brokers.
    pub fn wanted(&self, sources: usize) -> Wanted {
        Wanted {
            data: ["a", "b"].map(|data| self.0.join(data)).to_vec(),
            name: "t".to_owned(),
            created_ns: CREATED,
            sources: (0..sources).map(|source| BrokerId::new(source).unwrap()).collect(),
            is_shared: false,
            stood_in: Some(Vec::new()),
        }
    }

    pub fn source(&self, data: &str, source: usize) -> PathBuf {
        let topic = topic_directory(&self.0.join(data), "t", CREATED);
        let directory = source_directory(&topic, BrokerId::new(source).unwrap());
        fs::create_dir_all(&directory).unwrap();
        directory
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn record(source: u8, index: u64, ordinal: u64, at: usize) -> RecordHeader {
    let (at, created_ns) = (at as u64, CREATED);
    RecordHeader { index, ordinal, at, created_ns, source, ..RecordHeader::default() }
}

/// Set in an index of a hole.
pub const HOLE: u64 = 1 << 63;

pub fn hole(source: u8, index: u64) -> OrderEntry {
    OrderEntry {
        first_position: index * 2,
        landed_ns: index * 1000,
        client: 7,
        count: 2,
        broker: source,
        flags: ENTRY_HOLE,
        commit: index + 1,
        ..OrderEntry::default()
    }
}

/// A file with batches of two messages, or holes, at these log indexes, and a frontier record
/// behind them.
pub fn file(directory: &Path, source: u8, first: (u64, u64, u64), indexes: &[u64]) -> PathBuf {
    let (first_index, mut ordinal, previous_index) = first;
    let mut header = ReplicaHeader::from_bytes([0; 256]);
    header.created_ns = CREATED;
    (header.first_index, header.first_ordinal) = (first_index, ordinal);
    header.previous_index = previous_index;
    (header.source, header.log, header.name_bytes) = (source, 32, 1);
    header.name[0] = b't';
    let mut bytes = header.seal().to_bytes().to_vec();
    bytes.resize(REPLICA_HEADER_BYTES as usize, 0);
    for index in indexes {
        if index & HOLE != 0 {
            let head = record(source, index - HOLE, ordinal, bytes.len());
            let hole = hole(source, index - HOLE);
            bytes.extend_from_slice(&head.seal_hole(&hole, GapReason::Unwritten));
            ordinal += 1;
            continue;
        }
        let payload = [*index as u8; 128];
        let preamble = BatchPreamble {
            client: 7,
            payload_bytes: 128,
            payload_crc: crc32c(&payload),
            count: 2,
            ..BatchPreamble::default()
        }
        .seal();
        let entry = OrderEntry {
            first_position: index * 2,
            landed_ns: index * 1000,
            client: 7,
            checksum: preamble.header_crc,
            bytes: 192,
            count: 2,
            broker: source,
            commit: index + 1,
            ..OrderEntry::default()
        };
        let head = record(source, *index, ordinal, bytes.len()).seal_batch(&entry, &preamble);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&preamble.to_bytes());
        bytes.extend_from_slice(&payload);
        ordinal += 1;
    }
    let covers = indexes.last().map_or(first_index, |last| (last & !HOLE) + 1);
    let line = FrontierLine { entries: covers, ..FrontierLine::default() };
    bytes.extend_from_slice(&record(source, covers, ordinal, bytes.len()).seal_frontier(&line));
    let path = replica_file(directory, first_index);
    fs::write(&path, &bytes).unwrap();
    path
}

pub fn spoil(path: &Path, record: u64) {
    let at = REPLICA_HEADER_BYTES + record * RECORD + 200;
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xff], at).unwrap();
}
