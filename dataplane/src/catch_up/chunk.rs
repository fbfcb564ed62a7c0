//! From the files to a block of frames and batches, as the subscriber's socket takes them.

use landfall_layout::batch::BatchPreamble;
use landfall_layout::frame::{Delivery, FRAME_BYTES, Frame, GapReason};
use landfall_layout::order::OrderEntry;
use landfall_layout::replica::Body;
use landfall_replica::Merge;

use super::Place;

/// Bytes after which a block is not made longer.
const CHUNK_BYTES: usize = 512 << 10;

/// A block, and where it leaves the subscriber.
#[derive(Debug)]
pub struct Chunk {
    /// Frames, each with its batch behind it.
    pub bytes: Vec<u8>,
    /// Where it goes on.
    pub place: Place,
    /// Batches in it.
    pub batches: u64,
    /// Bytes of them.
    pub batch_bytes: u64,
    /// Messages that no file has.
    pub missed: u64,
    /// What did not hold.
    pub faults: Vec<String>,
}

/// Reads on from `place` until the block is long enough, or log index `until`, from which on
/// memory has everything. What no file has up to there is left to the reading of memory, which
/// measures it by the first position that it finds. `nowhere`: why positions are missing that every
/// broker's files know nothing of.
pub fn read(merge: &mut Merge, (log, nowhere): (u8, GapReason), place: Place, until: u64) -> Chunk {
    let mut chunk = Chunk {
        bytes: Vec::new(),
        place,
        batches: 0,
        batch_bytes: 0,
        missed: 0,
        faults: Vec::new(),
    };
    merge.look_again();
    // Whether everything between the last batch and the next is known to be nowhere.
    let mut is_known = true;
    while chunk.bytes.len() < CHUNK_BYTES {
        let (picked, known) = merge.next(chunk.place.next, until, &mut chunk.faults);
        is_known &= known;
        let Some(picked) = picked else {
            chunk.place.next = chunk.place.next.max(until);
            break;
        };
        chunk.place.next = picked.index + 1;
        let record = merge.record(picked);
        if let Some(Body::Batch { entry, preamble, payload }) = record.map(|record| record.body) {
            let reason = if is_known { nowhere } else { GapReason::Retention };
            is_known = true;
            chunk.jump(log, entry.first_position, reason);
            chunk.add(log, picked.index, &entry, (&preamble, payload));
        }
    }
    chunk
}

impl Chunk {
    /// Tells of positions that no file has.
    fn jump(&mut self, log: u8, to: u64, reason: GapReason) {
        let Some(missed) = to.checked_sub(self.place.position).filter(|missed| *missed > 0) else {
            return;
        };
        let gap = Frame::Gap { log, reason, missed, resume: to };
        self.bytes.extend_from_slice(&gap.encode(0));
        self.missed += missed;
    }

    fn add(
        &mut self,
        log: u8,
        index: u64,
        entry: &OrderEntry,
        (preamble, payload): (&BatchPreamble, &[u8]),
    ) {
        let delivery = Frame::Delivery(Delivery {
            log,
            broker: entry.broker,
            count: entry.count,
            bytes: entry.bytes,
            index,
            first_position: entry.first_position,
            landed_ns: entry.landed_ns,
        });
        self.bytes.reserve(FRAME_BYTES + entry.bytes as usize);
        self.bytes.extend_from_slice(&delivery.encode(0));
        self.bytes.extend_from_slice(&preamble.to_bytes());
        self.bytes.extend_from_slice(payload);
        self.batches += 1;
        self.batch_bytes += u64::from(entry.bytes);
        self.place.position = entry.end_position();
    }
}
