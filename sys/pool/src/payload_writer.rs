//! A batch's payload on its way to where it will lie: straight into the granted place.

use std::io;
use std::sync::Arc;

use crate::map::stored;
use crate::pool::Pool;
use crate::stream::StreamWriter;

/// Fills the payload of one batch past the caches, summing it on the way. Dropped unfinished, it
/// leaves bytes that nobody was told of.
pub struct PayloadWriter {
    writer: StreamWriter,
    /// Keeps the mapping that `writer` points into.
    _pool: Arc<Pool>,
}

// SAFETY:
// - the raw pointer inside is into the mapping that `_pool` keeps, whichever thread uses it;
// - it has one user at a time: every method takes `&mut self` or `self`;
// - a fence covers only its own thread's streaming stores, but that is no question of memory
//   safety, and handing the value to another thread goes through a locked instruction or the
//   kernel, either of which empties the write-combining buffers (AMD APM vol. 2, "Buffering and
//   Combining Memory Writes"; Intel SDM vol. 3, "Methods of Caching Available").
unsafe impl Send for PayloadWriter {}

impl PayloadWriter {
    /// Writes at most `room` bytes from offset `at` on, a multiple of 64. The place is the
    /// caller's by grant, and nobody was told yet what lies there.
    pub fn new(pool: &Arc<Pool>, at: u64, room: usize) -> io::Result<Self> {
        let target = pool.writable_span(at, room)?;
        if !at.is_multiple_of(64) {
            let text = format!("a payload at {at}, which is not the start of a line");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        // SAFETY:
        // - in bounds: `writable_span` checked `room` bytes from `at`, and the mapping lives as
        //   long as the pool that is kept beside the writer;
        // - nobody else uses the place: it is the caller's grant, and a batch's bytes are read
        //   only after its broker was told of it, which comes after `finish`.
        let writer = unsafe { StreamWriter::new(target, room) };
        Ok(Self { writer, _pool: Arc::clone(pool) })
    }

    /// Appends a message: the two words of its header, then key and payload, padded to 8 bytes.
    ///
    /// Panics when it does not fit the room: the bound that keeps a wrong length from becoming a
    /// write past the grant.
    #[inline]
    pub fn append(&mut self, header: [u64; 2], parts: [&[u8]; 2]) {
        self.writer.append(header, parts);
        stored();
    }

    /// Completes the payload and returns its CRC32C. After this the batch may be announced.
    #[must_use = "the checksum belongs in the batch's preamble"]
    pub fn finish(self) -> u32 {
        self.writer.finish()
    }
}
