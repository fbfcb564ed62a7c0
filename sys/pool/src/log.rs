//! Order logs: a chain of segments full of entries, one writer, any number of readers.
//!
//! An entry counts once the log's frontier has passed it; readers never look beyond. What
//! retention has taken is told by the chain's oldest index, which is moved before any segment is
//! reused: a reader that copied an entry and then finds the oldest index still at or below it has
//! copied the entry and nothing else.

use landfall_layout::limits::LINE_BYTES;
use landfall_layout::order::OrderEntry;
use landfall_layout::segment::{SegmentKind, What};
use landfall_layout::{SegmentId, TopicId};

use crate::memory::Memory;
use crate::pool::Pool;

/// One segment of a log, as its writer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSegment {
    /// The segment.
    pub segment: SegmentId,
    /// Offset of its first entry.
    pub at: u64,
    /// Absolute index of that entry.
    pub base: u64,
    /// Entries it has room for.
    pub capacity: u64,
}

impl LogSegment {
    /// Whether the entry of that index lies in this segment.
    pub fn holds(&self, index: u64) -> bool {
        index.wrapping_sub(self.base) < self.capacity
    }

    /// Writes the entry of that index, commit word last; its own `commit` field is ignored.
    ///
    /// The frontier, moved afterwards, is what makes it count.
    #[inline]
    pub fn write(&self, memory: &impl Memory, index: u64, entry: &OrderEntry) {
        assert!(self.holds(index), "entry {index} is not in the segment from {}", self.base);
        let at = self.at + (index - self.base) * OrderEntry::BYTES;
        let words = entry.to_words();
        memory.store_words(at, &words[..7]);
        memory.store(at + 56, index + 1);
        if memory.flushes() {
            memory.write_back(at, OrderEntry::BYTES);
        }
    }

    /// A copy of the entry of that index, if it is committed there. Only below the frontier does
    /// that mean anything.
    #[inline]
    pub fn read(&self, memory: &impl Memory, index: u64) -> Option<OrderEntry> {
        let at = self.at + (index - self.base) * OrderEntry::BYTES;
        memory.refresh(at, LINE_BYTES);
        let entry = OrderEntry::from_words(memory.load_words(at));
        (entry.commit == index + 1).then_some(entry)
    }
}

/// Reads one log, remembering the segment it is in.
#[derive(Clone, Debug)]
pub struct LogReader {
    topic: TopicId,
    log: usize,
    current: Option<LogSegment>,
    /// Index at which the segment after the current one begins, once there is one. A new epoch's
    /// segment may begin before the current one is full.
    end: Option<u64>,
}

/// What is at an index below the frontier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The entry.
    Entry(OrderEntry),
    /// Retention has passed it: the log now starts at this index.
    Lapped {
        /// Oldest index that is left.
        oldest: u64,
    },
    /// The log is not what it was: the topic was deleted, or the chain is broken.
    Gone,
}

impl LogReader {
    /// Reads log `log` of `topic`.
    pub fn new(topic: TopicId, log: usize) -> Self {
        Self { topic, log, current: None, end: None }
    }

    /// The log's number in its topic.
    pub fn log(&self) -> usize {
        self.log
    }

    /// The topic.
    pub fn topic(&self) -> TopicId {
        self.topic
    }

    /// The entry at `index`, which is below the log's frontier.
    #[inline]
    pub fn entry(&mut self, pool: &Pool, index: u64) -> Found {
        for _ in 0..2 {
            if let Some(segment) = self.current
                && segment.holds(index)
                && self.end_of(pool, segment).is_none_or(|end| index < end)
            {
                let entry = segment.read(pool, index);
                // EDGE entry-oldest, acquire half: the oldest index is loaded after the copy was
                // made, so a copy of reused memory is never believed.
                std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
                let oldest = pool.oldest(self.topic, self.log);
                if oldest > index {
                    self.current = None;
                    return Found::Lapped { oldest };
                }
                if let Some(entry) = entry {
                    return Found::Entry(entry);
                }
            }
            if let Err(found) = self.seek(pool, index) {
                return found;
            }
        }
        Found::Gone
    }

    /// Where the current segment ends, if its log went on in another. Looked up anew until it is
    /// known: what an old leader wrote beyond its frontier must not be taken for an entry.
    #[inline]
    fn end_of(&mut self, pool: &Pool, segment: LogSegment) -> Option<u64> {
        if self.end.is_none() {
            let next = pool.next_segment(segment.segment)?;
            self.end = pool.segment_header(next).map(|next| next.base_index);
        }
        self.end
    }

    /// Finds the segment of `index`, from the current one or from the head of the chain.
    fn seek(&mut self, pool: &Pool, index: u64) -> Result<(), Found> {
        let Some(chain) = pool.chain(self.topic, self.log) else { return Err(Found::Gone) };
        if chain.oldest_index > index {
            self.current = None;
            return Err(Found::Lapped { oldest: chain.oldest_index });
        }
        let start = match self.current {
            Some(current) if current.base <= index => current.segment,
            _ => SegmentId(chain.head),
        };
        self.current = None;
        let mut at = start;
        // A chain cannot be longer than the pool has segments; a loop would be a broken chain.
        for _ in 0..pool.geometry().segments() {
            let Some(segment) = self.open(pool, at) else { break };
            let next = pool.segment_header(at).map_or(SegmentId::NONE, |h| SegmentId(h.next));
            let past = next
                .some()
                .and_then(|next| pool.segment_header(next))
                .is_some_and(|next| self.is_ours(next.what) && next.base_index <= index);
            if !past && segment.holds(index) {
                self.current = Some(segment);
                self.end = None;
                return Ok(());
            }
            match next.some() {
                Some(next) => at = next,
                None => break,
            }
        }
        // The chain moved while it was walked, or it is broken: the oldest index tells which.
        match pool.oldest(self.topic, self.log) {
            oldest if oldest > index => Err(Found::Lapped { oldest }),
            _ => Err(Found::Gone),
        }
    }

    fn is_ours(&self, what: u64) -> bool {
        What::unpack(what).is_ok_and(|what| {
            what.kind == SegmentKind::OrderLog
                && what.topic == self.topic
                && usize::from(what.log) == self.log
        })
    }

    fn open(&self, pool: &Pool, segment: SegmentId) -> Option<LogSegment> {
        let header = pool.segment_header(segment)?;
        self.is_ours(header.what).then_some(())?;
        Some(LogSegment {
            segment,
            at: pool.geometry().segment(segment)?,
            base: header.base_index,
            capacity: pool.geometry().entries_per_segment(),
        })
    }

    /// Index of the first entry in `[low, high)` for which `before` is false; entries are sorted
    /// by it. Entries that retention takes meanwhile count as before.
    pub fn partition(
        &mut self,
        pool: &Pool,
        mut low: u64,
        mut high: u64,
        before: impl Fn(&OrderEntry) -> bool,
    ) -> u64 {
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(pool, middle) {
                Found::Entry(entry) if before(&entry) => low = middle + 1,
                Found::Entry(_) => high = middle,
                Found::Lapped { oldest } => low = oldest.max(middle + 1),
                Found::Gone => return low,
            }
        }
        low
    }
}
