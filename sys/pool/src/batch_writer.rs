//! A batch being built where it will lie: messages go straight into the claimed place.

use std::io;
use std::sync::Arc;

use landfall_layout::batch::{BatchPreamble, MESSAGE_HAS_KEY, PREAMBLE_BYTES, message_stride};
use landfall_layout::limits::BATCH_MESSAGES_MAX;

use crate::memory::Memory;
use crate::pool::Pool;
use crate::stream::StreamWriter;

/// Fills one claimed place: first the messages, past the caches and summed on the way, and at the
/// end the preamble in front of them. Dropped unfinished, it leaves bytes that nobody was told of.
pub struct BatchWriter {
    pool: Arc<Pool>,
    at: u64,
    payload_room: usize,
    count: u16,
    writer: StreamWriter,
}

// SAFETY:
// - the raw pointer inside is into the mapping that `pool` keeps alive, whichever thread uses it;
// - it has one user at a time: every method takes `&mut self` or `self`;
// - a fence covers only its own thread's streaming stores, but that is no question of memory
//   safety, and handing the value to another thread goes through a locked instruction or the
//   kernel, either of which empties the write-combining buffers (AMD APM vol. 2, "Buffering and
//   Combining Memory Writes"; Intel SDM vol. 3, "Methods of Caching Available").
unsafe impl Send for BatchWriter {}

impl BatchWriter {
    /// A batch of at most `bytes` bytes, preamble included, at offset `at`, a multiple of 64. The
    /// caller has the grant of that place and nobody was told yet what lies there.
    pub fn new(pool: Arc<Pool>, at: u64, bytes: u32) -> io::Result<Self> {
        let payload_room = (bytes as usize).saturating_sub(PREAMBLE_BYTES as usize);
        let target = pool.writable_span(at, bytes as usize)?;
        if !at.is_multiple_of(64) || payload_room == 0 {
            let text = format!("a batch of {bytes} bytes at {at}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        // SAFETY:
        // - in bounds: `writable_span` checked `bytes` from `at`, of which the preamble's 64 are
        //   the first; the mapping lives as long as `pool`, which the writer is kept beside;
        // - nobody else uses the place: it is the caller's grant, and landed bytes are read only
        //   after the broker was told of them, which `finish` comes before.
        let writer =
            unsafe { StreamWriter::new(target.add(PREAMBLE_BYTES as usize), payload_room) };
        Ok(Self { pool, at, payload_room, count: 0, writer })
    }

    /// Messages so far.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Bytes so far, preamble included.
    pub fn bytes(&self) -> u32 {
        PREAMBLE_BYTES + (self.payload_room - self.writer.room()) as u32
    }

    /// Appends a message; false when it does not fit, and then nothing was written.
    #[inline]
    #[must_use = "a full batch took nothing"]
    pub fn append(&mut self, key: Option<&[u8]>, payload: &[u8], timestamp_ns: u64) -> bool {
        let body = key.unwrap_or_default();
        match message_stride(body.len(), payload.len()) {
            Some(bytes) if bytes <= self.writer.room() => {}
            _ => return false,
        }
        if u32::from(self.count) == BATCH_MESSAGES_MAX {
            return false;
        }
        let flags = if key.is_some() { MESSAGE_HAS_KEY } else { 0 };
        let sizes = payload.len() as u64 | (body.len() as u64) << 32 | u64::from(flags) << 48;
        self.writer.append([sizes, timestamp_ns], [body, payload]);
        self.count += 1;
        true
    }

    /// Completes the batch: sizes, count and checksums are filled into `preamble`, which is stored
    /// in front of the messages and returned. After this the broker may be told.
    pub fn finish(self, preamble: BatchPreamble) -> BatchPreamble {
        let payload_bytes = (self.payload_room - self.writer.room()) as u32;
        let payload_crc = self.writer.finish();
        let sealed =
            BatchPreamble { payload_bytes, payload_crc, count: self.count, ..preamble }.seal();
        self.pool.store_words(self.at, &sealed.to_words());
        self.pool.publish(self.at, sealed.batch_bytes());
        sealed
    }
}
