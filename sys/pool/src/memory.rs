//! Shared words, and what has to be done so that another host sees them.

use landfall_layout::limits::LINE_BYTES;

/// Memory that other threads, processes and hosts read and write.
///
/// Offsets are bytes from the start of the mapping; a word's offset is a multiple of 8. A line is
/// 64 bytes and has one writer. On coherent memory the last four methods do nothing and the
/// acquire and release edges are all there is; without coherence a writer says
/// [`publish`](Memory::publish) after its stores and a reader says [`refresh`](Memory::refresh)
/// before its loads.
///
/// `#[track_caller]` is for models of such memory: they name each flush and fence by its place in
/// the protocol's source. A real mapping's methods ask for no place, and none is passed to them
/// once they are inlined.
pub trait Memory {
    /// Loads a word with acquire order.
    #[track_caller]
    fn load(&self, at: u64) -> u64;
    /// Loads a word that an acquire load of another word already covers.
    #[track_caller]
    fn load_relaxed(&self, at: u64) -> u64;
    /// Stores a word that a later release store covers.
    #[track_caller]
    fn store(&self, at: u64, value: u64);
    /// Stores a word with release order.
    #[track_caller]
    fn store_release(&self, at: u64, value: u64);
    /// Orders stores before it against loads after it (the fence in Dekker's algorithm).
    #[track_caller]
    fn full_fence(&self);
    /// Orders loads before it against loads and stores after it.
    fn acquire_fence(&self) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
    }
    /// Orders loads and stores before it against stores after it.
    fn release_fence(&self) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
    }

    /// Whether hosts need the flushes below. A property of the pool.
    fn flushes(&self) -> bool;
    /// Starts writing lines back to the shared memory.
    #[track_caller]
    fn write_back(&self, at: u64, bytes: u64);
    /// Waits until the write-backs before it are ordered before the stores after it (SFENCE).
    #[track_caller]
    fn after_write_back(&self);
    /// Drops this host's copies of lines.
    #[track_caller]
    fn invalidate(&self, at: u64, bytes: u64);
    /// Orders the invalidations before it against the loads after it. MFENCE: the weaker fences
    /// do not order CLFLUSHOPT against loads (Intel SDM vol. 2A, CLFLUSHOPT).
    #[track_caller]
    fn after_invalidate(&self);

    /// Makes stores to `bytes` bytes at `at` visible to other hosts before any later store.
    #[track_caller]
    fn publish(&self, at: u64, bytes: u64) {
        if self.flushes() {
            self.write_back(at, bytes);
            self.after_write_back();
        }
    }

    /// Makes later loads of `bytes` bytes at `at` see what other hosts published.
    #[track_caller]
    fn refresh(&self, at: u64, bytes: u64) {
        if self.flushes() {
            self.invalidate(at, bytes);
            self.after_invalidate();
        }
    }

    /// Loads `N` words that an acquire load already covers.
    fn load_words<const N: usize>(&self, at: u64) -> [u64; N] {
        std::array::from_fn(|i| self.load_relaxed(at + 8 * i as u64))
    }

    /// Stores words that a later release store covers.
    fn store_words(&self, at: u64, words: &[u64]) {
        for (i, word) in words.iter().enumerate() {
            self.store(at + 8 * i as u64, *word);
        }
    }
}

/// The offsets of the lines that `bytes` bytes at `at` touch.
pub fn lines_of(at: u64, bytes: u64) -> impl Iterator<Item = u64> {
    let first = at - at % LINE_BYTES;
    let end = at + bytes;
    (0..).map(move |i| first + i * LINE_BYTES).take_while(move |line| *line < end)
}
