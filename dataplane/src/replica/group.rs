//! A group: batches that are written together, as records, straight from where they lie, and the
//! holes between them.

use std::fmt;
use std::io::IoSlice;
use std::ops::Range;

use landfall_layout::batch::{BatchError, BatchPreamble, PREAMBLE_BYTES};
use landfall_layout::frame::GapReason;
use landfall_layout::limits::{BATCH_BYTES_MAX, LINE_BYTES};
use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::replica::{RECORD_HEAD_BYTES, RecordHeader, record_bytes};
use landfall_pool::hold::Hold;
use landfall_pool::{Memory, Pool};

/// What makes a record of this file: the same in each of a group.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    pub created_ns: u64,
    pub source: u8,
    pub mark: [u8; 6],
    pub now_ns: u64,
}

/// One batch, where it lies in the pool.
struct Part {
    /// Its record's head, and the zeros of the record before, in `glue`.
    glue: Range<usize>,
    segment: u32,
    offset: u32,
    bytes: u32,
    /// The batch from another replica, where the pool has it no more.
    copy: Option<Vec<u8>>,
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
    /// Bytes of them.
    pub bytes: u64,
    /// Heads and zeros, one behind the other.
    glue: Vec<u8>,
    parts: Vec<Part>,
    /// Zeros that the record before still needs.
    owed: usize,
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
    pub fn new(marks: Marks, at: u64, ordinal: u64, covers: u64) -> Self {
        Self {
            marks,
            at,
            end: at,
            ordinal,
            covers,
            batches: 0,
            holes: 0,
            bytes: 0,
            glue: Vec::new(),
            parts: Vec::new(),
            owed: 0,
        }
    }

    /// Adds the batch that `entry`, which stands at `index` of its log, says is there. It is
    /// checked first: what does not hold is no copy of anything.
    pub fn add(&mut self, pool: &Pool, index: u64, entry: &OrderEntry) -> Result<(), Spoilt> {
        let preamble = check(pool, entry)?;
        self.push(index, entry, &preamble, None);
        Ok(())
    }

    /// Adds a batch that does not hold in the pool, and does where it was copied from.
    pub fn add_copy(&mut self, index: u64, entry: &OrderEntry, copied: &(BatchPreamble, Vec<u8>)) {
        let (preamble, payload) = copied;
        let batch = [&preamble.to_bytes()[..], payload].concat();
        self.push(index, entry, preamble, Some(batch));
    }

    fn push(
        &mut self,
        index: u64,
        entry: &OrderEntry,
        preamble: &BatchPreamble,
        copy: Option<Vec<u8>>,
    ) {
        let record = self.record(index);
        self.push_glue(&record.seal_batch(entry, preamble));
        self.parts.push(Part {
            glue: self.glue_since_last(),
            segment: entry.segment,
            offset: entry.offset,
            bytes: entry.bytes,
            copy,
        });
        self.end += record_bytes(entry.bytes);
        self.owed =
            (u64::from(entry.bytes).next_multiple_of(LINE_BYTES) - u64::from(entry.bytes)) as usize;
        self.ordinal += 1;
        self.covers = index + 1;
        self.batches += 1;
        self.bytes += u64::from(entry.bytes);
    }

    /// After a system call said that it could not read the pool: reads all of the group, so that
    /// what cannot be read is known. Whether something cannot.
    #[cold]
    pub fn probe(&self, pool: &Pool) -> bool {
        let mine = self.parts.iter().filter(|part| part.copy.is_none());
        mine.filter(|part| pool.probe(part.segment, part.offset, part.bytes)).count() > 0
    }

    /// Adds a hole, whose entry stands at `index` of its log.
    pub fn add_hole(&mut self, index: u64, entry: &OrderEntry) {
        let record = self.record(index);
        self.push_glue(&record.seal_hole(entry, GapReason::Unwritten));
        self.end += RECORD_HEAD_BYTES;
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
        let record = self.record(covers);
        self.push_glue(&record.seal_frontier(frontier));
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

    fn push_glue(&mut self, head: &[u8]) {
        self.glue.resize(self.glue.len() + std::mem::take(&mut self.owed), 0);
        self.glue.extend_from_slice(head);
    }

    fn glue_since_last(&self) -> Range<usize> {
        self.parts.last().map_or(0, |part| part.glue.end)..self.glue.len()
    }

    /// The holds under which the pieces are read, in the order of the parts.
    pub fn holds(&self) -> Vec<Hold> {
        self.parts.iter().map(|part| Hold::by_broker(part.segment)).collect()
    }

    /// Everything that is to be written, in order: heads from here, batches from the pool.
    pub fn pieces<'a>(&'a self, pool: &'a Pool, holds: &'a [Hold]) -> Vec<IoSlice<'a>> {
        let mut pieces = Vec::with_capacity(2 * self.parts.len() + 1);
        for (part, hold) in self.parts.iter().zip(holds) {
            pieces.push(IoSlice::new(&self.glue[part.glue.clone()]));
            // It was inside the pool when it was added.
            let there = || pool.read(hold, part.offset, part.bytes).unwrap_or_default();
            pieces.push(IoSlice::new(part.copy.as_deref().unwrap_or_else(there)));
        }
        let rest = &self.glue[self.glue_since_last()];
        if !rest.is_empty() {
            pieces.push(IoSlice::new(rest));
        }
        pieces
    }

    /// Batches that one call can take with their heads, and as many holes: more wait for the next
    /// group.
    pub fn is_full(&self, bytes_max: u64) -> bool {
        let most = self.parts.len().max(self.holes as usize);
        self.bytes >= bytes_max || most >= BATCHES_MAX
    }
}

/// Most batches of a group: two pieces each, and IOV_MAX pieces a call, four calls.
const BATCHES_MAX: usize = 2048;

/// Whether the batch in the pool is the one that its entry names, whole.
pub fn check(pool: &Pool, entry: &OrderEntry) -> Result<BatchPreamble, Spoilt> {
    let at = pool.at(entry.segment, entry.offset, entry.bytes).ok_or(Spoilt::Place)?;
    pool.refresh(at, entry.bytes.into());
    let hold = Hold::by_broker(entry.segment);
    let batch = pool.read(&hold, entry.offset, entry.bytes).ok_or(Spoilt::Place)?;
    let (preamble, payload) = batch.split_first_chunk::<64>().ok_or(Spoilt::Place)?;
    let preamble = BatchPreamble::from_bytes(*preamble);
    preamble.check(BATCH_BYTES_MAX).map_err(Spoilt::Batch)?;
    let same = preamble.batch_bytes() == u64::from(entry.bytes)
        && preamble.count == entry.count
        && preamble.client == entry.client
        && preamble.batch_seq == entry.batch_seq
        && preamble.session_epoch == entry.session_epoch
        && preamble.header_crc == entry.checksum;
    if !same {
        return Err(Spoilt::Other);
    }
    preamble.check_payload(payload).map_err(Spoilt::Batch)?;
    Ok(preamble)
}

const _: () = assert!(PREAMBLE_BYTES == 64);
