//! Claims: room in a payload segment that one writer fills.

use landfall_layout::batch::BatchPreamble;
use landfall_layout::counters::Counter;
use landfall_layout::limits::LINE_BYTES;
use landfall_pool::Memory;

use crate::env::Env;

/// Bytes of one segment that nobody else writes. It ends by [`Stock::done`] or by
/// [`Stock::abandon`]; one that is forgotten keeps its segment from ever being sealed.
///
/// [`Stock::done`]: crate::segments::Stock::done
/// [`Stock::abandon`]: crate::segments::Stock::abandon
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a claim is committed or becomes padding"]
pub struct Claim {
    pub segment: u32,
    pub generation: u64,
    /// Bytes from the start of the segment; a multiple of the line.
    pub offset: u32,
    /// A multiple of the line.
    pub bytes: u32,
}

impl Claim {
    /// Offset just past the claim.
    pub fn end(&self) -> u32 {
        self.offset + self.bytes
    }
}

/// `bytes` rounded up to whole lines; `None` past 32 bits.
pub fn lines_up(bytes: u32) -> Option<u32> {
    bytes.checked_next_multiple_of(LINE_BYTES as u32)
}

/// `bytes` rounded down to whole lines.
pub fn lines_down(bytes: u32) -> u32 {
    bytes - bytes % LINE_BYTES as u32
}

/// Makes `bytes` bytes at `offset` of a segment something that readers step over.
#[cold]
pub fn pad(env: &Env, segment: u32, offset: u32, bytes: u32) {
    if bytes < LINE_BYTES as u32 {
        return;
    }
    let Some(at) = env.pool.at(segment, offset, bytes) else { return };
    env.pool.store_words(at, &BatchPreamble::padding(bytes).to_words());
    // All of it: what came for the batch that was dropped may be in this host's caches only, and
    // must not leave them later, over what the segment's next owner writes.
    env.pool.publish(at, bytes.into());
    env.count(Counter::ClaimsPadded, 1);
}
