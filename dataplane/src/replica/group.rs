//! A group: batches that are written together, as records, and the holes between them.
//!
//! A batch is copied once, into memory of this process, and what is checked, sealed and written is
//! the copy: whoever can write the pool, as publishers over memory and through windows can, may
//! change its bytes at any time.

use std::fmt;

use landfall_layout::TopicId;
use landfall_layout::batch::{BatchError, BatchPreamble, PREAMBLE_BYTES};
use landfall_layout::frame::GapReason;
use landfall_layout::limits::{BATCH_BYTES_MAX, LINE_BYTES};
use landfall_layout::order::{ENTRY_HOLE, FrontierLine, OrderEntry};
use landfall_layout::replica::{RECORD_BYTES_MAX, RECORD_HEAD_BYTES, RecordHead, RecordHeader};
use landfall_pool::hold::Hold;
use landfall_pool::shared::SharedBytes;
use landfall_pool::{Memory, Pool};

/// What makes a record of this file: the same in each of a group.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    pub topic: TopicId,
    pub created_ns: u64,
    pub source: u8,
    pub mark: [u8; 6],
    pub now_ns: u64,
}

/// Batches to be written at one place of a file.
pub struct Group {
    marks: Marks,
    /// Byte of the file that the group starts at.
    pub at: u64,
    /// Byte of the file behind it.
    pub end: u64,
    /// Entries of the replica behind it.
    pub ordinal: u64,
    /// Log index below which everything of the source is written once the group is.
    pub covers: u64,
    /// Batches in it.
    pub batches: u64,
    /// Holes in it.
    holes: u64,
    /// Bytes of the batches.
    pub bytes: u64,
    /// The records, as they will stand in the file.
    records: Vec<u8>,
}

/// Why a batch in the pool is not what its entry says.
#[derive(Debug, PartialEq, Eq)]
pub enum Spoilt {
    /// The entry names a place outside the pool's segments.
    Place,
    /// Preamble or payload do not hold.
    Batch(BatchError),
    /// The preamble is another batch's.
    Other,
}

impl fmt::Display for Spoilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place => f.write_str("its entry names a place outside the pool"),
            Self::Batch(error) => error.fmt(f),
            Self::Other => f.write_str("its preamble is another batch's"),
        }
    }
}

impl Group {
    /// An empty one, in a buffer that was used before.
    pub fn new(marks: Marks, at: u64, ordinal: u64, covers: u64, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self {
            marks,
            at,
            end: at,
            ordinal,
            covers,
            batches: 0,
            holes: 0,
            bytes: 0,
            records: buffer,
        }
    }

    /// Adds the batch that `entry`, which stands at `index` of its log, says is there. What does
    /// not hold is no copy of anything, and is not added.
    pub fn add(&mut self, pool: &Pool, index: u64, entry: &OrderEntry) -> Result<(), Spoilt> {
        let head = self.records.len();
        self.records.resize(head + RECORD_HEAD_BYTES as usize, 0);
        match copy(pool, self.marks.topic, entry, &mut self.records) {
            Ok(preamble) => {
                self.seal(index, entry, &preamble, head);
                Ok(())
            }
            Err(why) => {
                self.records.truncate(head);
                Err(why)
            }
        }
    }

    /// Adds a batch that does not hold in the pool, and does where it was copied from.
    pub fn add_copy(&mut self, index: u64, entry: &OrderEntry, copied: &(BatchPreamble, Vec<u8>)) {
        let (preamble, payload) = copied;
        let head = self.records.len();
        self.records.resize(head + RECORD_HEAD_BYTES as usize, 0);
        self.records.extend_from_slice(&preamble.to_bytes());
        self.records.extend_from_slice(payload);
        self.seal(index, entry, preamble, head);
    }

    /// Makes a record of the batch that was put in, behind the room for its head.
    fn seal(&mut self, index: u64, entry: &OrderEntry, preamble: &BatchPreamble, head: usize) {
        let sealed = self.record(index).seal_batch(entry, preamble);
        self.records[head..head + sealed.len()].copy_from_slice(&sealed);
        self.records.resize(self.records.len().next_multiple_of(LINE_BYTES as usize), 0);
        self.end = self.at + self.records.len() as u64;
        self.ordinal += 1;
        self.covers = index + 1;
        self.batches += 1;
        self.bytes += u64::from(entry.bytes);
    }

    /// Adds what is left of a batch that does not hold anywhere: its positions.
    pub fn add_lost(&mut self, index: u64, entry: &OrderEntry) {
        let (segment, offset, bytes, flags) = (0, 0, 0, ENTRY_HOLE);
        let hole = OrderEntry { segment, offset, bytes, flags, ..*entry };
        self.add_hole(index, &hole, GapReason::Corrupt);
    }

    /// Adds a hole, whose entry stands at `index` of its log: nobody wrote there, or what was there
    /// is lost. A hole of another copy stays what it is there.
    pub fn add_hole(&mut self, index: u64, entry: &OrderEntry, reason: GapReason) {
        self.push(&self.record(index).seal_hole(entry, reason));
        self.ordinal += 1;
        self.covers = index + 1;
        self.holes += 1;
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.batches + self.holes == 0
    }

    /// Bytes that it takes in its file.
    pub fn file_bytes(&self) -> u64 {
        self.end - self.at
    }

    /// Ends the group: everything of the source below `covers` stands before this, and the log
    /// was ordered as far as `frontier` says.
    pub fn finish(&mut self, covers: u64, frontier: &FrontierLine) {
        self.covers = covers;
        self.push(&self.record(covers).seal_frontier(frontier));
    }

    fn push(&mut self, head: &RecordHead) {
        self.records.extend_from_slice(head);
        self.end += RECORD_HEAD_BYTES;
    }

    fn record(&self, index: u64) -> RecordHeader {
        RecordHeader {
            index,
            ordinal: self.ordinal,
            at: self.end,
            created_ns: self.marks.created_ns,
            written_ns: self.marks.now_ns,
            source: self.marks.source,
            mark: self.marks.mark,
            ..RecordHeader::default()
        }
    }

    /// What is to be written.
    pub fn records(&self) -> &[u8] {
        &self.records
    }

    /// The buffer, for the next group.
    pub fn into_buffer(self) -> Vec<u8> {
        self.records
    }

    /// Whether more waits for the next group.
    pub fn is_full(&self, bytes_max: u64) -> bool {
        self.file_bytes() >= bytes_max || self.batches.max(self.holes) >= ENTRIES_MAX
    }
}

/// Most batches of a group, and as many holes: who waits for a sync does not wait for more.
const ENTRIES_MAX: u64 = 2048;

/// Buffers of groups that were written, for the next ones: nothing is allocated for a batch.
#[derive(Default)]
pub struct Buffers(Vec<Vec<u8>>);

/// Buffers that are kept while nothing is written.
const SPARE_MAX: usize = 8;

impl Buffers {
    /// One for a group of about `bytes_max` bytes: the largest batch behind them fits, and a record
    /// that says where the log was.
    pub fn take(&mut self, bytes_max: u64) -> Vec<u8> {
        let most = bytes_max + RECORD_BYTES_MAX + RECORD_HEAD_BYTES;
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(most as usize))
    }

    /// Takes one back.
    pub fn give(&mut self, buffer: Vec<u8>) {
        if self.0.len() < SPARE_MAX {
            self.0.push(buffer);
        }
    }
}

/// What the pool has where `entry` says that its batch is.
fn found<'a>(
    pool: &'a Pool,
    entry: &OrderEntry,
    hold: &'a Hold,
) -> Result<SharedBytes<'a>, Spoilt> {
    let at = pool.at(entry.segment, entry.offset, entry.bytes).ok_or(Spoilt::Place)?;
    pool.refresh(at, entry.bytes.into());
    pool.shared(hold, entry.offset, entry.bytes).ok_or(Spoilt::Place)
}

/// Appends the batch in the pool that `entry` names. What was appended is whole only if this says
/// that it is.
fn copy(
    pool: &Pool,
    topic: TopicId,
    entry: &OrderEntry,
    into: &mut Vec<u8>,
) -> Result<BatchPreamble, Spoilt> {
    let hold = Hold::by_broker(entry.segment);
    let batch = found(pool, entry, &hold)?;
    let head = batch.first::<HEAD_BYTES>().ok_or(Spoilt::Place)?;
    let preamble = judge(head, topic, entry)?;
    into.extend_from_slice(&head);
    let crc = batch.behind(HEAD_BYTES).append_summed(into);
    preamble.check_payload_crc(crc).map_err(Spoilt::Batch)?;
    Ok(preamble)
}

/// Whether the batch in the pool is the one that its entry names, whole.
pub fn check(pool: &Pool, topic: TopicId, entry: &OrderEntry) -> Result<BatchPreamble, Spoilt> {
    let hold = Hold::by_broker(entry.segment);
    let batch = found(pool, entry, &hold)?;
    let head = batch.first::<HEAD_BYTES>().ok_or(Spoilt::Place)?;
    let preamble = judge(head, topic, entry)?;
    preamble.check_payload_crc(batch.behind(HEAD_BYTES).crc32c()).map_err(Spoilt::Batch)?;
    Ok(preamble)
}

/// Whether this is the preamble of the batch that an entry names.
fn judge(
    head: [u8; HEAD_BYTES],
    topic: TopicId,
    entry: &OrderEntry,
) -> Result<BatchPreamble, Spoilt> {
    let preamble = BatchPreamble::from_bytes(head);
    preamble.check(BATCH_BYTES_MAX).map_err(Spoilt::Batch)?;
    let same = preamble.topic == topic.0
        && preamble.batch_bytes() == u64::from(entry.bytes)
        && preamble.count == entry.count
        && preamble.client == entry.client
        && preamble.batch_seq == entry.batch_seq
        && preamble.session_epoch == entry.session_epoch
        && preamble.header_crc == entry.checksum;
    if same { Ok(preamble) } else { Err(Spoilt::Other) }
}

const HEAD_BYTES: usize = PREAMBLE_BYTES as usize;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use landfall_layout::SegmentId;
    use landfall_layout::replica::{Place, REPLICA_HEADER_BYTES, check_record};

    use super::*;
    use crate::replica::rig::Source;

    /// Ends the thread that stores, however the test ends.
    struct Over<'a>(&'a AtomicBool);

    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// A publisher over memory, or through a window, can store to what it landed at any time.
    #[test]
    fn what_was_checked_is_what_is_written_though_the_pool_changes() {
        let mut source = Source::new(crate::rig::pool(), 0);
        let entry = source.place(&[7; 16 << 10], true);
        let (topic, of) = (source.topic, entry.broker);
        let marks = Marks { topic, created_ns: 5, source: of, mark: [3; 6], now_ns: 1 };
        let place = Place {
            at: REPLICA_HEADER_BYTES,
            created_ns: 5,
            source: entry.broker,
            index: 0,
            ordinal: 0,
            mark: [3; 6],
        };
        let at = source.pool.geometry().segment(SegmentId(entry.segment)).unwrap();
        let at = at + u64::from(entry.offset);
        let pool = &source.pool;
        let done = AtomicBool::new(false);
        let (mut taken, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Its last byte, whole for half of the time.
                let last = at + u64::from(entry.bytes) - 1;
                while !done.load(Ordering::Relaxed) {
                    pool.write(last, &[8]).unwrap();
                    std::thread::yield_now();
                    pool.write(last, &[7]).unwrap();
                    std::thread::yield_now();
                }
            });
            let _over = Over(&done);
            let mut buffer = Vec::new();
            for _ in 0..20_000 {
                let mut group = Group::new(marks, place.at, 0, 0, std::mem::take(&mut buffer));
                let named = OrderEntry { commit: 1, ..entry };
                match group.add(pool, 0, &named) {
                    Ok(()) => {
                        taken += 1;
                        check_record(group.records(), place).unwrap();
                    }
                    Err(_) => {
                        refused += 1;
                        assert!(group.is_empty() && group.records().is_empty());
                    }
                }
                buffer = group.into_buffer();
            }
        });
        assert!(taken > 0, "{taken} taken, {refused} refused");
    }
}
