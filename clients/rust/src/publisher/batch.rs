//! Filling a batch: where its messages go, and the preamble in front of them.

use std::sync::Arc;

use landfall_layout::TopicId;
use landfall_layout::batch::{
    BatchPreamble, MESSAGE_HAS_KEY, MESSAGE_HEADER_BYTES, PREAMBLE_BYTES,
};
use landfall_pool::Pool;
use landfall_pool::payload_writer::PayloadWriter;
use landfall_pool::slab::SlabBuffer;
use landfall_pool::stream::Crc32c;

use super::session::{Location, Slot};

/// Bytes of a small batch gathered before they go to the extent. Five times what the checksum
/// folds at once, and whole lines.
pub(crate) const STAGE_BYTES: usize = 1920;

/// Batches that may grow to this size and beyond go past the caches: ordinary stores would first
/// fetch every line they overwrite, and then evict something useful.
///
/// Measured on two cores, 64-byte messages ordered and read back, past the caches and through
/// them: batches of 2 KiB 22 and 21 million a second (27 and 30 ns of the publisher's time each),
/// of 4 KiB 36 and 34 (18 and 22), of 16 KiB 78 and 45 (11 and 21), of 256 KiB 80 and 57 (9 and
/// 17). Below 4 KiB it makes no difference to the publisher, and the reader finds the batch in a
/// cache.
pub(crate) const STREAM_BYTES_LEAST: u32 = 4 << 10;

/// A message's header as its two words.
#[inline]
pub(crate) fn header(key: Option<&[u8]>, payload: &[u8], timestamp_ns: u64) -> [u64; 2] {
    let (key_bytes, flags) = key.map_or((0, 0), |key| (key.len() as u64, MESSAGE_HAS_KEY));
    [payload.len() as u64 | key_bytes << 32 | u64::from(flags) << 48, timestamp_ns]
}

/// Bytes that a message takes, its parts being within bounds.
#[inline]
pub(crate) fn stride(part_bytes: usize) -> usize {
    MESSAGE_HEADER_BYTES + part_bytes.next_multiple_of(8)
}

/// Where an open batch's messages go.
pub(crate) enum Filler {
    /// A granted extent, past the caches.
    Streamed(Streamed),
    /// A granted extent, through the caches.
    Extent(Box<ExtentFiller>),
    /// Private memory: 64 bytes for the preamble, then the payload.
    Buffer(Vec<u8>),
    /// The same, in memory that NICs send from.
    Slab(SlabFiller),
}

impl Filler {
    /// Appends a message of `stride` bytes, for which there is room.
    #[inline]
    pub(crate) fn append(&mut self, stride: usize, header: [u64; 2], key: &[u8], payload: &[u8]) {
        match self {
            Self::Streamed(streamed) => streamed.writer.append(header, [key, payload]),
            Self::Extent(filler) => filler.append(stride, header, key, payload),
            Self::Slab(filler) => filler.append(stride, header, key, payload),
            Self::Buffer(buffer) => {
                let end = buffer.len() + stride;
                buffer.extend_from_slice(&header[0].to_le_bytes());
                buffer.extend_from_slice(&header[1].to_le_bytes());
                buffer.extend_from_slice(key);
                buffer.extend_from_slice(payload);
                buffer.resize(end, 0);
            }
        }
    }
}

/// A large batch, which goes from the user's bytes into the pool in one pass.
pub(crate) struct Streamed {
    writer: PayloadWriter,
    spot: Spot,
}

impl Streamed {
    /// Fills the batch at `spot`, for `room` bytes of whose payload the extent has room.
    pub(crate) fn start(pool: &Arc<Pool>, spot: Spot, room: usize) -> Self {
        let writer = PayloadWriter::new(pool, spot.payload_at, room)
            .expect("the extent was checked against the pool and the batch against the extent");
        Self { writer, spot }
    }

    /// The payload's checksum and where it lies, once all of it is there.
    pub(crate) fn finish(self) -> (u32, Spot) {
        (self.writer.finish(), self.spot)
    }
}

/// Fills a small batch straight in the pool, by way of a stage in the first-level cache.
pub(crate) struct ExtentFiller {
    pool: Arc<Pool>,
    spot: Spot,
    /// Payload bytes that are in the extent.
    stored: usize,
    staged: usize,
    stage: Stage,
    crc: Crc32c,
}

/// Staged bytes, line by line as they will lie in the pool.
#[repr(align(64))]
struct Stage([u8; STAGE_BYTES]);

/// Where an extent's next batch goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) location: Location,
    pub(crate) extent: u32,
    /// Connection that the extent belongs to.
    pub(crate) link: usize,
    /// Offset in the pool of the payload's first byte.
    pub(crate) payload_at: u64,
}

impl ExtentFiller {
    /// A filler of the batch at `spot`, for whose bytes the extent has room. What an earlier batch
    /// left is used again.
    pub(crate) fn start(pool: &Arc<Pool>, spot: Spot, spare: Option<Box<Self>>) -> Box<Self> {
        let mut filler = spare.unwrap_or_else(|| {
            Box::new(Self {
                pool: Arc::clone(pool),
                spot,
                stored: 0,
                staged: 0,
                stage: Stage([0; STAGE_BYTES]),
                crc: Crc32c::new(),
            })
        });
        if !Arc::ptr_eq(&filler.pool, pool) {
            filler.pool = Arc::clone(pool);
        }
        (filler.spot, filler.stored, filler.staged) = (spot, 0, 0);
        filler.crc = Crc32c::new();
        filler
    }

    #[inline]
    fn append(&mut self, stride: usize, header: [u64; 2], key: &[u8], payload: &[u8]) {
        let end = self.staged + stride;
        let Some(room) = self.stage.0.get_mut(self.staged..end) else {
            return self.append_across(stride, header, key, payload);
        };
        put_message(room, header, key, payload);
        self.staged = end;
    }

    /// A message that does not fit what is left of the stage.
    fn append_across(&mut self, stride: usize, header: [u64; 2], key: &[u8], payload: &[u8]) {
        let [low, high] = header.map(u64::to_le_bytes);
        let padding = &[0; 8][..stride - MESSAGE_HEADER_BYTES - key.len() - payload.len()];
        for mut bytes in [&low, &high, key, payload, padding] {
            while !bytes.is_empty() {
                let (now, later) = bytes.split_at(bytes.len().min(STAGE_BYTES - self.staged));
                self.stage.0[self.staged..][..now.len()].copy_from_slice(now);
                self.staged += now.len();
                bytes = later;
                if self.staged == STAGE_BYTES {
                    self.store();
                }
            }
        }
    }

    /// Moves the stage into the extent.
    fn store(&mut self) {
        let bytes = &self.stage.0[..self.staged];
        // Summed first: the loads overlap the stores of the stage before.
        self.crc.update(bytes);
        let at = self.spot.payload_at + self.stored as u64;
        self.pool
            .write(at, bytes)
            .expect("the extent was checked against the pool and the batch against the extent");
        self.stored += self.staged;
        self.staged = 0;
    }

    /// Stores what is staged. Returns the payload's checksum and where it lies.
    pub(crate) fn finish(&mut self) -> (u32, Spot) {
        self.store();
        (self.crc.finish(), self.spot)
    }
}

/// Fills a batch where a NIC will send it from.
pub(crate) struct SlabFiller {
    buffer: SlabBuffer,
    end: usize,
    /// Bytes from the start that the checksum has, the preamble counted.
    summed: usize,
    crc: Crc32c,
}

/// Bytes that are summed together: still in the first-level cache, and enough to fold.
const SUMMED_AT_ONCE: usize = 4 << 10;

impl SlabFiller {
    /// A filler of an empty batch.
    pub(crate) fn start(buffer: SlabBuffer) -> Self {
        let start = PREAMBLE_BYTES as usize;
        Self { buffer, end: start, summed: start, crc: Crc32c::new() }
    }

    #[inline]
    fn append(&mut self, stride: usize, header: [u64; 2], key: &[u8], payload: &[u8]) {
        let end = self.end + stride;
        put_message(&mut self.buffer[self.end..end], header, key, payload);
        self.end = end;
        if end - self.summed >= SUMMED_AT_ONCE {
            self.sum();
        }
    }

    fn sum(&mut self) {
        self.crc.update(&self.buffer[self.summed..self.end]);
        self.summed = self.end;
    }

    /// The payload's checksum and the batch.
    pub(crate) fn finish(mut self) -> (u32, Slot) {
        self.sum();
        (self.crc.finish(), Slot::new(self.buffer, self.end))
    }
}

/// Puts a message into room that is as long as its stride.
#[inline]
pub(crate) fn put_message(room: &mut [u8], header: [u64; 2], key: &[u8], payload: &[u8]) {
    let (head, body) = room.split_at_mut(MESSAGE_HEADER_BYTES);
    head[..8].copy_from_slice(&header[0].to_le_bytes());
    head[8..].copy_from_slice(&header[1].to_le_bytes());
    let (key_room, rest) = body.split_at_mut(key.len());
    key_room.copy_from_slice(key);
    let (payload_room, padding) = rest.split_at_mut(payload.len());
    payload_room.copy_from_slice(payload);
    padding.fill(0);
}

/// Who publishes what, as a preamble says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) topic: TopicId,
    pub(crate) client: u64,
    pub(crate) epoch: u32,
    pub(crate) life: u32,
}

impl Identity {
    /// The preamble of a batch sealed now.
    pub(crate) fn seal(
        self,
        filled: &super::session::Filled,
        batch_seq: u64,
        sealed_ns: u64,
    ) -> BatchPreamble {
        BatchPreamble {
            topic: self.topic.0,
            session_epoch: self.epoch,
            client: self.client,
            batch_seq,
            sealed_ns,
            payload_bytes: filled.payload_bytes,
            payload_crc: filled.payload_crc,
            count: filled.count,
            life: self.life,
            ..BatchPreamble::default()
        }
        .seal()
    }
}

/// An empty batch in private memory.
pub(crate) fn start_buffer(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(PREAMBLE_BYTES as usize, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_layout::batch::{MessageHeader, Messages};
    use landfall_pool::slab::Slab;

    #[test]
    fn the_header_words_are_the_header() {
        let words = header(Some(b"key"), b"payload", 99);
        let expected = MessageHeader {
            payload_bytes: 7,
            key_bytes: 3,
            flags: MESSAGE_HAS_KEY,
            timestamp_ns: 99,
        };
        let low = u64::from(expected.payload_bytes)
            | u64::from(expected.key_bytes) << 32
            | u64::from(expected.flags) << 48;
        assert_eq!(words, [low, 99]);
    }

    #[test]
    fn a_buffer_holds_what_was_appended() {
        let mut buffer = Vec::new();
        start_buffer(&mut buffer);
        let mut filler = Filler::Buffer(buffer);
        let messages: [(Option<&[u8]>, &[u8]); 4] =
            [(None, b""), (Some(b""), b"x"), (Some(b"key"), b"12345678"), (None, &[7; 100])];
        for (key, payload) in messages {
            let bytes = key.map_or(0, <[u8]>::len) + payload.len();
            filler.append(stride(bytes), header(key, payload, 5), key.unwrap_or(b""), payload);
        }
        let Filler::Buffer(buffer) = filler else { panic!() };
        let mut read = Messages::new(&buffer[64..], 4);
        for (key, payload) in messages {
            let message = read.next().unwrap();
            assert_eq!((message.key, message.payload), (key, payload));
        }
        assert!(read.is_whole());
    }

    #[test]
    fn a_slab_holds_the_same_as_a_buffer_and_its_sum() {
        let slab = Slab::new(1, 64 << 10).unwrap();
        let mut dirty = slab.take().unwrap();
        dirty.fill(0xaa);
        let mut into_slab = Filler::Slab(SlabFiller::start(dirty));
        let mut into_buffer = Vec::new();
        start_buffer(&mut into_buffer);
        let mut into_buffer = Filler::Buffer(into_buffer);
        for bytes in [0, 3, 900, 5000, 1, 20_000, 8] {
            let payload = vec![bytes as u8; bytes];
            for filler in [&mut into_slab, &mut into_buffer] {
                filler.append(
                    stride(bytes + 3),
                    header(Some(b"key"), &payload, 7),
                    b"key",
                    &payload,
                );
            }
        }
        let (Filler::Slab(filler), Filler::Buffer(buffer)) = (into_slab, into_buffer) else {
            panic!()
        };
        let (crc, slot) = filler.finish();
        assert_eq!(slot.batch()[64..], buffer[64..]);
        assert_eq!(crc, landfall_layout::batch::crc32c(&buffer[64..]));
    }
}
