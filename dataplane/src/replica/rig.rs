//! For benchmarks and tests: a log written by hand, and the replicator's rounds over it.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use landfall_layout::batch::{BatchPreamble, PREAMBLE_BYTES, crc32c};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{ChainLine, FrontierLine, OrderEntry};
use landfall_layout::pool::{Coherence, LeaderLine, Term};
use landfall_layout::segment::{SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_pool::disk::uring::Uring;
use landfall_pool::disk::{Disk, Writing, sync_all, write_all};
use landfall_pool::hold::Hold;
use landfall_pool::log::LogSegment;
use landfall_pool::map::memfd;
use landfall_pool::pool::Shape;
use landfall_replica::FileError;
use landfall_replica::mend::settle;

use super::thread::Worker;
use super::{Data, Shared};
use crate::standing::Standing;
use landfall_pool::clock::boot_ns;

/// When the topic of a [`Source`] was created.
pub const CREATED_NS: u64 = 1_700_000_000_000_000_000;
/// The segments of the log and of the payload.
const LOG: u32 = 1;
const PAYLOAD: u32 = 2;

/// Makes the caller the first leader of a pool: tables that nobody serves are not looked at.
pub(crate) fn lead(pool: &Pool) {
    let term = Term { epoch: 1, serves: false }.pack();
    assert!(pool.claim(0, &LeaderLine { term, ..LeaderLine::default() }));
    assert!(pool.serve(1));
}

/// A topic "t" of order none with one disk replica, at broker 0, and its log 0.
pub(crate) struct Source {
    pub pool: Pool,
    pub topic: TopicId,
    pub log: usize,
    pub segment: LogSegment,
    pub frontier: FrontierLine,
    offset: u32,
}

impl Source {
    pub fn new(pool: Pool, flags: u8) -> Self {
        Self::of(pool, flags, Order::None)
    }

    /// The same of another order: where that is sequenced, the log is that of all brokers.
    pub fn of(pool: Pool, flags: u8, order: Order) -> Self {
        lead(&pool);
        let log = if order.is_sequenced() { SEQUENCED_LOG } else { 0 };
        let topic = TopicId::new(0, 1);
        let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
        (entry.id, entry.state) = (topic.0, TopicState::Live as u8);
        (entry.order, entry.flags) = (order.raw(), flags);
        (entry.replicas, entry.replica_brokers) = (2, 1);
        entry.created_ns = CREATED_NS;
        (entry.name[0], entry.name_bytes) = (b't', 1);
        pool.set_topic(&entry);
        for (segment, kind) in [(LOG, SegmentKind::OrderLog), (PAYLOAD, SegmentKind::Payload)] {
            let log = log as u8;
            let what = What { kind, state: SegmentState::Open, owner: 0, log, topic };
            let header = SegmentHeader {
                what: what.pack(),
                generation: 1,
                previous: SegmentId::NONE.0,
                next: SegmentId::NONE.0,
                ..SegmentHeader::from_words([0; SegmentHeader::WORDS])
            };
            pool.give_segment(SegmentId(segment), &header);
        }
        let chain =
            ChainLine { head: LOG, tail: LOG, topic: topic.0.into(), ..ChainLine::default() };
        pool.set_chain(topic, log, &chain);
        pool.start_frontier(topic, log);
        let segment = LogSegment {
            segment: SegmentId(LOG),
            at: pool.geometry().segment(SegmentId(LOG)).expect("the pool has that segment"),
            base: 0,
            capacity: pool.geometry().entries_per_segment(),
        };
        let frontier = FrontierLine { topic: topic.0.into(), ..FrontierLine::default() };
        Self { pool, topic, log, segment, frontier, offset: 0 }
    }

    /// Puts a batch of that payload into the pool; its entry. `holds`: its checksum is right.
    pub fn place(&mut self, payload: &[u8], holds: bool) -> OrderEntry {
        let preamble = BatchPreamble {
            topic: self.topic.0,
            client: 9,
            session_epoch: 1,
            batch_seq: self.frontier.entries,
            payload_bytes: payload.len() as u32,
            payload_crc: crc32c(payload) ^ u32::from(!holds),
            count: 3,
            ..BatchPreamble::default()
        }
        .seal();
        let bytes = PREAMBLE_BYTES + payload.len() as u32;
        let at = self.pool.at(PAYLOAD, self.offset, bytes).expect("the segment has room");
        let written = self.pool.write(at, &preamble.to_bytes());
        written.and_then(|()| self.pool.write(at + 64, payload)).expect("the pool is writable");
        let entry = OrderEntry {
            client: 9,
            batch_seq: preamble.batch_seq,
            session_epoch: 1,
            checksum: preamble.header_crc,
            segment: PAYLOAD,
            offset: self.offset,
            bytes,
            count: 3,
            ..OrderEntry::default()
        };
        self.offset += bytes.next_multiple_of(64);
        entry
    }

    /// Gives an entry the next place in the log.
    pub fn append(&mut self, entry: &OrderEntry) {
        let entry = OrderEntry { first_position: self.frontier.position, ..*entry };
        self.segment.write(&self.pool, self.frontier.entries, &entry);
        self.frontier.entries += 1;
        self.frontier.position += u64::from(entry.count);
        self.frontier.bytes += u64::from(entry.bytes);
    }

    /// Makes what was appended count.
    pub fn publish(&mut self) {
        self.pool.advance_frontier(self.topic, self.log, &self.frontier);
    }

    /// A replicator of broker 0, as a process of that incarnation has it.
    pub fn worker(&self, data: Data, disk: Box<dyn Disk>, incarnation: u64) -> io::Result<Worker> {
        let me = BrokerId::new(0).expect("0 is below the bound");
        self.worker_at(me, data, disk, incarnation)
    }

    /// The same, of another broker.
    pub fn worker_at(
        &self,
        me: BrokerId,
        data: Data,
        disk: Box<dyn Disk>,
        incarnation: u64,
    ) -> io::Result<Worker> {
        let file = File::from(self.pool.fd().try_clone_to_owned()?);
        let pool = Pool::attach_file(file, Path::new("the pool"), true);
        let pool = pool.map_err(io::Error::other)?;
        Worker::new(pool, Standing::new(me, incarnation), data, disk, Arc::new(Shared::new()))
    }
}

/// Bytes of a file, and of what is written between two syncs.
const FILE_BYTES: u64 = 64 << 20;
const GROUP_BYTES: usize = 8 << 20;

/// Replicating a burst of batches, beside writing the same blocks and nothing else.
pub struct ReplicaRig {
    source: Source,
    entries: Vec<OrderEntry>,
    /// The same batches, in memory that is nobody else's.
    blocks: Vec<Vec<u8>>,
    worker: Worker,
    bare: Uring,
    directory: PathBuf,
    rounds: u32,
}

impl ReplicaRig {
    /// A rig with a burst of `batches` batches of `bytes` bytes, on the disk of `directory`.
    pub fn new(directory: &Path, batches: usize, bytes: usize) -> io::Result<Self> {
        const POOL_BYTES: u64 = 1 << 30;
        let memory = memfd("replicas", POOL_BYTES).map_err(io::Error::other)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
        let shape = Shape {
            pool_bytes: POOL_BYTES,
            segment_bytes: 64 << 20,
            sessions: 16,
            coherence: Coherence::Coherent,
            uuid: [7; 16],
            now_ns: 1,
            sparse: true,
        };
        let pool = Pool::create_or_attach(&path, shape).map_err(io::Error::other)?;
        let mut source = Source::new(pool, 0);
        let mut random = 1_u64;
        let mut payload = vec![0; bytes - PREAMBLE_BYTES as usize];
        let entries: Vec<OrderEntry> = (0..batches)
            .map(|_| {
                // Disks and their caches may look at what they are given.
                for chunk in payload.chunks_mut(8) {
                    random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    let word = random.to_le_bytes();
                    chunk.copy_from_slice(&word[..chunk.len()]);
                }
                source.place(&payload, true)
            })
            .collect();
        let hold = Hold::by_broker(PAYLOAD);
        let block = |entry: &OrderEntry| {
            let mut block = Vec::new();
            let shared = source.pool.shared(&hold, entry.offset, entry.bytes);
            shared.expect("it was placed there").append_to(&mut block);
            block
        };
        let blocks = entries.iter().map(block).collect();
        let directory = directory.join(format!("landfall-replicas-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let data = Data { file_bytes: FILE_BYTES, ..Data::new(directory.join("data")) };
        let worker = source.worker(data, Box::new(Uring::new()?), 2)?;
        Ok(Self { source, entries, blocks, worker, bare: Uring::new()?, directory, rounds: 0 })
    }

    /// Bytes of a burst.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.bytes)).sum()
    }

    /// Appends the burst to the log, which is not the replicator's work.
    pub fn order(&mut self) {
        for entry in &self.entries {
            self.source.append(entry);
        }
        self.source.publish();
        self.worker.look_at_table(boot_ns());
    }

    /// Replicates what was ordered, until all of it is durable.
    pub fn replicate(&mut self) {
        let goal = self.source.frontier.entries;
        let me = BrokerId::new(0).expect("0 is below the bound");
        while self.source.pool.replica(self.source.topic, me, 0).durable < goal {
            assert!(self.worker.round(boot_ns()), "the replica does not move");
        }
    }

    /// Writes the same blocks, and syncs as often, with nothing around them.
    pub fn write_bare(&mut self) -> io::Result<()> {
        let Self { entries, blocks, bare, directory, rounds, .. } = self;
        *rounds += 1;
        let file = File::create(directory.join(format!("bare-{rounds}")))?;
        let each = entries.first().map_or(1, |entry| entry.bytes as usize);
        let mut at = 0;
        for group in blocks.chunks((GROUP_BYTES / each).clamp(1, 2048)) {
            let pieces = group.iter().map(|block| IoSlice::new(block)).collect();
            let mut writings = [Writing::new(&file, at, pieces)];
            write_all(bare, &mut writings);
            let [writing] = writings;
            writing.result?;
            sync_all(bare, &[&file]).into_iter().collect::<io::Result<()>>()?;
            at += group.iter().map(|block| block.len() as u64).sum::<u64>();
        }
        Ok(())
    }

    /// Gives the memory back in which the system keeps what was written. Memory that it has never
    /// given to anybody is slower, many times so on an emulated machine: whoever is measured next
    /// writes into what was used just now.
    pub fn give_memory_back(&self) -> Result<(), FileError> {
        let mut directories = vec![self.directory.clone()];
        while let Some(directory) = directories.pop() {
            let entries = fs::read_dir(&directory).map_err(FileError::io("list", &directory))?;
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                let file = File::open(&path).map_err(FileError::io("open", &path))?;
                settle(&file, &path)?;
            }
        }
        Ok(())
    }
}

impl Drop for ReplicaRig {
    fn drop(&mut self) {
        // Left behind where it cannot be removed; the next run has a directory of its own.
        let _ = fs::remove_dir_all(&self.directory);
    }
}
