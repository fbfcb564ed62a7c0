//! Poison: pages of the pool that can no longer be read, and going on without them.
//!
//! The kernel says it with SIGBUS: memory that the hardware gave up, a file that was cut short, a
//! file system without room for a page. In a payload segment that is not the end. The page is
//! covered with zeros, in this process alone, so that the load goes on and finds no batch there;
//! the segment counts as lost, and whoever needs its batches reads them from a replica. There is
//! nothing to go on with in the pool's tables, and none for control and brokers in a ring or an
//! order log, which say what was promised: those processes end, with a sentence.
//!
//! Everything that runs in the handler is loads, stores and system calls: it takes no lock and
//! allocates nothing.

mod handler;
mod watch;

use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub(crate) use watch::Guard;

/// What a process is to the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Part {
    /// A client, or a tool that looks: it ends only where the tables are lost.
    Client,
    /// Control or a broker: it writes logs and rings, or acts on what they say.
    System,
}

/// Offsets that are kept for people, of the pages that were met first.
const PAGES_KEPT: usize = 16;

/// What this process has lost of one pool, through whichever of its mappings.
pub struct Loss {
    /// Pages met.
    pages: AtomicU64,
    kept: [AtomicU64; PAGES_KEPT],
    /// Segments marked, counted.
    marked: AtomicU32,
    /// A bit a segment.
    segments: Box<[AtomicU64]>,
}

impl Loss {
    /// Nothing is lost of a pool of so many segments.
    pub(crate) fn none(segments: u32) -> Self {
        Self {
            pages: AtomicU64::new(0),
            kept: [const { AtomicU64::new(0) }; PAGES_KEPT],
            marked: AtomicU32::new(0),
            segments: (0..segments.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Segments that this process knows to be lost.
    #[inline]
    pub fn count(&self) -> u32 {
        // Relaxed: whoever met the page itself ran the handler on its own thread; the others learn
        // of it soon.
        self.marked.load(Ordering::Relaxed)
    }

    /// Whether this process knows that a segment is lost.
    #[inline]
    pub fn is_lost(&self, segment: u32) -> bool {
        self.count() != 0 && self.is_marked(segment)
    }

    #[cold]
    fn is_marked(&self, segment: u32) -> bool {
        let word = self.segments.get(segment as usize / 64);
        // Relaxed: see `count`.
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (segment % 64) & 1 == 1)
    }

    /// Marks a segment, met here or told of; whether that is new.
    pub fn mark(&self, segment: u32) -> bool {
        let Some(word) = self.segments.get(segment as usize / 64) else { return false };
        let bit = 1 << (segment % 64);
        // Relaxed: see `count`. The bit is there before it is counted, as far as this thread goes.
        let is_new = word.fetch_or(bit, Ordering::Relaxed) & bit == 0;
        if is_new {
            self.marked.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }

    /// Every segment that is marked.
    pub fn segments(&self) -> Vec<u32> {
        let all = 0..self.segments.len() as u32 * 64;
        all.filter(|segment| self.is_marked(*segment)).collect()
    }

    /// Pages that this process could not read.
    pub fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Offset in the pool of the first page that could not be read between two offsets, if it is
    /// one of those that are kept.
    pub fn page_between(&self, from: u64, to: u64) -> Option<u64> {
        let known = (self.pages() as usize).min(PAGES_KEPT);
        // Relaxed: a number for people.
        let mut kept = self.kept[..known].iter().map(|page| page.load(Ordering::Relaxed));
        kept.find(|page| (from..to).contains(page))
    }

    fn note_page(&self, at: u64) {
        let number = self.pages.fetch_add(1, Ordering::Relaxed) as usize;
        if let Some(place) = self.kept.get(number) {
            place.store(at, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages in {} segments", self.pages(), self.count())
    }
}

/// A file, whatever it is called: its device and its number there.
type Inode = (u64, u64);

/// The losses of each pool that this process has mapped: the mappings of one file share one.
static LOSSES: Mutex<Vec<(Inode, Weak<Loss>)>> = Mutex::new(Vec::new());

pub(crate) fn loss_of(file: &File, segments: u32) -> Arc<Loss> {
    // A file that cannot be asked has a loss of its own.
    let Ok(metadata) = file.metadata() else { return Arc::new(Loss::none(segments)) };
    let inode = (metadata.dev(), metadata.ino());
    let mut losses = LOSSES.lock().unwrap_or_else(PoisonError::into_inner);
    losses.retain(|(_, loss)| loss.strong_count() > 0);
    let of_file = losses.iter().filter(|(of, _)| *of == inode);
    let fits = |loss: &Arc<Loss>| loss.segments.len() == segments.div_ceil(64) as usize;
    if let Some(loss) = of_file.filter_map(|(_, loss)| loss.upgrade()).find(fits) {
        return loss;
    }
    let loss = Arc::new(Loss::none(segments));
    losses.push((inode, Arc::downgrade(&loss)));
    loss
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_marked_once() {
        let loss = Loss::none(70);
        assert!(!loss.is_lost(69));
        assert!(loss.mark(69) && !loss.mark(69) && !loss.mark(128));
        assert!(loss.is_lost(69) && !loss.is_lost(5) && !loss.is_lost(4000));
        assert_eq!((loss.count(), loss.segments()), (1, vec![69]));
    }
}
