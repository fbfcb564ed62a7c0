//! Memory that NICs send batches from, and who gets a buffer of it.

use landfall_layout::limits::BATCH_BYTES_MAX;
use landfall_pool::slab::{Slab, SlabBuffer};

use super::receipts::LANES;
use crate::verbs::dial::Arena;

/// Buffers kept for batches that are sealed already and lie in other memory, because another
/// transport had them first. They go out in order, so those that have a buffer are always older
/// than those that wait for one, and their receipts bring it back.
const RESERVE: usize = 2;
/// Fewest buffers beside those: an open batch for each lane and one under way.
const BUFFERS_LEAST: u64 = LANES as u64 + 1;

/// The buffers.
pub(crate) struct Store {
    pub(crate) arena: Arena,
    reserve: Vec<SlabBuffer>,
}

impl Store {
    /// Room for `memory_bytes` bytes of batches of `batch_bytes` bytes. Nothing is mapped yet.
    pub(crate) fn new(memory_bytes: u64, batch_bytes: u32) -> Self {
        let each = u64::from(batch_bytes).next_multiple_of(64);
        // More of the smallest batches than a broker lets be in flight are of no use.
        let buffers = (memory_bytes / each).clamp(BUFFERS_LEAST, 4096) + RESERVE as u64;
        let arena = Arena::new(buffers as u32, batch_bytes);
        Self { arena, reserve: Vec::with_capacity(RESERVE) }
    }

    /// Whether there was a connection over verbs, so that batches had better lie here.
    #[inline]
    pub(crate) fn is_mapped(&self) -> bool {
        self.arena.slab().is_some()
    }

    /// A buffer of at least `bytes` bytes for a batch that is opened. `None`: all are in use.
    pub(crate) fn take(&mut self, bytes: u32) -> Option<SlabBuffer> {
        let slab = self.arena.slab()?;
        while self.reserve.len() < RESERVE {
            self.reserve.push(slab.take()?);
        }
        if bytes <= slab.bytes_each() {
            return slab.take();
        }
        Self::larger(bytes)
    }

    /// The same for a batch that is sealed.
    pub(crate) fn take_for_sealed(&mut self, bytes: u32) -> Option<SlabBuffer> {
        let slab = self.arena.slab()?;
        if bytes <= slab.bytes_each() {
            return slab.take().or_else(|| self.reserve.pop());
        }
        Self::larger(bytes)
    }

    /// A batch that is larger than usual gets memory of its own.
    #[cold]
    fn larger(bytes: u32) -> Option<SlabBuffer> {
        let bytes = bytes.min(BATCH_BYTES_MAX).next_multiple_of(64);
        Slab::new(1, bytes).ok()?.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_batches_get_the_buffers_that_open_ones_do_not() {
        let mut store = Store::new(1000, 1000);
        assert!(!store.is_mapped() && store.take(100).is_none(), "nothing is mapped yet");
        store.arena.get_or_map().unwrap();
        let mut open: Vec<_> = std::iter::from_fn(|| store.take(1000)).collect();
        assert_eq!(open.len() as u64, BUFFERS_LEAST);
        let sealed: Vec<_> = std::iter::from_fn(|| store.take_for_sealed(1000)).collect();
        assert_eq!(sealed.len(), RESERVE);
        // What comes back fills the reserve first.
        open.pop();
        assert!(store.take(1000).is_none());
        assert!(store.take_for_sealed(1000).is_some());
        drop(sealed);
        assert!(store.take(1000).is_some());
    }

    #[test]
    fn a_larger_batch_has_memory_of_its_own() {
        let mut store = Store::new(1 << 20, 1000);
        store.arena.get_or_map().unwrap();
        let usual = store.take(1000).unwrap();
        let larger = store.take(100_000).unwrap();
        assert!(larger.len() >= 100_000);
        assert!(!std::sync::Arc::ptr_eq(usual.slab(), larger.slab()));
    }
}
