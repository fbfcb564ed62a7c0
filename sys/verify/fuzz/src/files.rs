//! Replica files of a small topic, for tests and fuzz targets.
//!
//! Two brokers land one log in turns, broker 0 the even entries, and each keeps both replicas: one
//! of its own batches and one of the other's.

use std::fs;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::batch::{BatchPreamble, crc32c};
use landfall_layout::frame::GapReason;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{ENTRY_HOLE, FrontierLine, OrderEntry};
use landfall_layout::replica::{NO_FILE, RecordHeader, ReplicaHeader, mark_bytes};
use landfall_layout::topic::Order;
use landfall_replica::names::{TOPIC_FILE, replica_file, source_directory, topic_directory};

/// When the sample's topic was created.
pub const CREATED_NS: u64 = 1_700_000_000_000_000_000;
/// Its name.
pub const NAME: &str = "kept";
/// Entries of its log.
pub const ENTRIES: u64 = 40;
/// Entry at which the second file of each replica begins.
pub const SECOND_FILE: u64 = 20;
/// Marks of files begin with this one.
const MARK: u64 = 0x1122_3344_5566;
/// Entries that are committed at once.
const GROUP: u64 = 4;

/// What is to be different from a whole sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odd {
    /// This entry is in no replica, and nothing says so.
    pub without: Option<u64>,
    /// This entry has another payload in the second broker's directory.
    pub other: Option<u64>,
    /// This entry begins at a position too far.
    pub moved: Option<u64>,
    /// This entry is of the batch before it of its publisher.
    pub again: Option<u64>,
    /// The topic is of order `token`, and this entry a hole.
    pub hole: Option<u64>,
    /// What broker 0 landed from [`UNKEPT`] on and before its second file is in no replica, as
    /// where only a pool had it that is gone, and that file begins anew in another pool.
    pub is_anew: bool,
}

/// Entry at which a further file of broker 0's begins in such a sample.
pub const MIDDLE_FILE: u64 = 10;
/// Entry from which on such a sample has nothing of broker 0 before the second file.
pub const UNKEPT: u64 = 16;

impl Odd {
    fn order(self) -> Order {
        if self.hole.is_some() { Order::Token } else { Order::Strong }
    }
}

/// One replica file that is being written.
struct File {
    bytes: Vec<u8>,
    ordinal: u64,
    source: u8,
    mark: u64,
}

impl File {
    fn new(source: u8, first_index: u64, ordinal: u64, previous: (u64, Order)) -> Self {
        let (previous_index, order) = previous;
        let mut header = ReplicaHeader::from_bytes([0; ReplicaHeader::BYTES as usize]);
        header.created_ns = CREATED_NS;
        header.first_index = first_index;
        header.first_ordinal = ordinal;
        header.previous_index = previous_index;
        header.topic = 0x100;
        header.source = source;
        header.log = SEQUENCED_LOG as u8;
        header.order = order.raw();
        header.replicas = 3;
        header.replica_brokers = 2;
        header.name_bytes = NAME.len() as u32;
        header.name[..NAME.len()].copy_from_slice(NAME.as_bytes());
        header.mark = MARK + first_index;
        Self { bytes: header.seal().page().to_vec(), ordinal, source, mark: header.mark }
    }

    fn record(&self, index: u64) -> RecordHeader {
        RecordHeader {
            index,
            ordinal: self.ordinal,
            at: self.bytes.len() as u64,
            created_ns: CREATED_NS,
            source: self.source,
            mark: mark_bytes(self.mark),
            ..RecordHeader::default()
        }
    }

    /// Two messages of five bytes each, of the source's own publisher.
    fn batch(&mut self, index: u64, body: u8, odd: Odd) {
        let mut payload = Vec::new();
        for message in 0..2 {
            payload.extend_from_slice(&5_u64.to_le_bytes());
            payload.extend_from_slice(&index.to_le_bytes());
            payload.extend_from_slice(&[body, message, 1, 2, 3, 0, 0, 0]);
        }
        let client = u64::from(self.source) + 1;
        let back = u64::from(odd.again == Some(index));
        let batch_seq = index / 2 - back;
        let preamble = BatchPreamble {
            topic: 0x100,
            session_epoch: 1,
            client,
            batch_seq,
            payload_bytes: payload.len() as u32,
            payload_crc: crc32c(&payload),
            count: 2,
            ..BatchPreamble::default()
        }
        .seal();
        let entry = OrderEntry {
            first_position: 2 * index + u64::from(odd.moved == Some(index)),
            client,
            batch_seq,
            landed_ns: CREATED_NS + index,
            session_epoch: 1,
            checksum: preamble.header_crc,
            bytes: preamble.batch_bytes() as u32,
            count: 2,
            broker: self.source,
            commit: index + 1,
            ..OrderEntry::default()
        };
        let head = self.record(index).seal_batch(&entry, &preamble);
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(&preamble.to_bytes());
        self.bytes.extend_from_slice(&payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        self.ordinal += 1;
    }

    /// Two positions that nobody wrote.
    fn hole(&mut self, index: u64) {
        let entry = OrderEntry {
            first_position: 2 * index,
            client: u64::from(self.source) + 1,
            session_epoch: 1,
            count: 2,
            broker: self.source,
            flags: ENTRY_HOLE,
            commit: index + 1,
            ..OrderEntry::default()
        };
        let head = self.record(index).seal_hole(&entry, GapReason::Unwritten);
        self.bytes.extend_from_slice(&head);
        self.ordinal += 1;
    }

    fn frontier(&mut self, covers: u64) {
        let line =
            FrontierLine { entries: covers, position: 2 * covers, ..FrontierLine::default() };
        let head = self.record(covers).seal_frontier(&line);
        self.bytes.extend_from_slice(&head);
    }
}

/// Writes the sample below `data`, and returns the replicas' directories: of broker 0's batches in
/// its own directory and in broker 1's, then of broker 1's.
pub fn write(data: &Path, odd: Odd) -> std::io::Result<[PathBuf; 4]> {
    let mut directories = Vec::new();
    for source in [0_u8, 1] {
        for keeper in [0_u8, 1] {
            let topic = topic_directory(&data.join(format!("broker-{keeper}")), NAME, CREATED_NS);
            let broker = BrokerId::new(source.into()).expect("a broker that a pool can have");
            let directory = source_directory(&topic, broker);
            fs::create_dir_all(&directory)?;
            fs::write(topic.join(TOPIC_FILE), topic_file(odd.order()))?;
            replica(&directory, source, keeper, odd)?;
            directories.push(directory);
        }
    }
    Ok(directories.try_into().expect("two sources kept by two brokers"))
}

fn topic_file(order: Order) -> String {
    format!(
        "{{\"schema_version\":1,\"name\":\"{NAME}\",\"created_ns\":{CREATED_NS},\"id\":256,\
         \"order\":\"{order}\",\"ring_slots\":16,\"retention_bytes\":0,\"retention_ns\":0,\
         \"keep\":false,\"check_ingest\":false,\"durability\":\"sync\",\"replicas\":3,\
         \"replica_brokers\":2,\"session_lease_ns\":1000000000,\"pool_uuid\":\"00\"}}\n"
    )
}

fn replica(directory: &Path, source: u8, keeper: u8, odd: Odd) -> std::io::Result<()> {
    let order = odd.order();
    let mut file = File::new(source, 0, 0, (NO_FILE, order));
    let is_anew = odd.is_anew && source == 0;
    let mut first = 0;
    for index in 0..ENTRIES {
        if index == SECOND_FILE || is_anew && index == MIDDLE_FILE {
            fs::write(replica_file(directory, first), &file.bytes)?;
            let previous = if is_anew && index == SECOND_FILE { NO_FILE } else { first };
            file = File::new(source, index, file.ordinal, (previous, order));
            first = index;
        }
        if is_anew && (UNKEPT..SECOND_FILE).contains(&index) {
            continue;
        }
        let is_own = index % 2 == u64::from(source);
        if is_own && odd.hole == Some(index) {
            file.hole(index);
        } else if is_own && odd.without != Some(index) {
            let body = if odd.other == Some(index) { keeper } else { 9 };
            file.batch(index, body, odd);
        }
        if (index + 1).is_multiple_of(GROUP) {
            file.frontier(index + 1);
        }
    }
    fs::write(replica_file(directory, SECOND_FILE), &file.bytes)
}
