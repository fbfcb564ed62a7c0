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
        memory.store(at + 56, index.wrapping_add(1));
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
        (entry.commit == index.wrapping_add(1)).then_some(entry)
    }
}

/// Walks from the head of a chain that find nothing before the chain is called broken. Each one
/// more is a head that retention moved meanwhile.
const WALKS_MAX: u32 = 16;

/// Reads one log, remembering the segment it is in.
#[derive(Clone, Debug)]
pub struct LogReader {
    topic: TopicId,
    log: usize,
    current: Option<LogSegment>,
    /// The segment after the current one, once there is one. A new epoch's segment may begin
    /// before the current one is full.
    next: Option<SegmentId>,
    /// The leader in whose tables `next` was found.
    leader: usize,
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
        Self { topic, log, current: None, next: None, leader: 0 }
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
    pub fn entry(&mut self, pool: &Pool<impl Memory>, index: u64) -> Found {
        for _ in 0..2 {
            if let Some(segment) = self.current
                && segment.holds(index)
                && self.end_of(pool, segment).is_none_or(|end| index < end)
            {
                let entry = segment.read(pool, index);
                // EDGE entry-oldest, acquire half: the oldest index is loaded after the copy was
                // made, so a copy of reused memory is never believed.
                pool.acquire_fence();
                match pool.oldest_of(self.topic, self.log) {
                    None => return Found::Gone,
                    Some(oldest) if oldest > index => {
                        self.current = None;
                        return Found::Lapped { oldest };
                    }
                    Some(_) => {}
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

    /// Where the current segment ends, if its log went on in another. Looked up anew each time,
    /// since control may still change where a segment nobody has written to begins: what an old
    /// leader wrote beyond its frontier must not be taken for an entry.
    #[inline]
    fn end_of(&mut self, pool: &Pool<impl Memory>, segment: LogSegment) -> Option<u64> {
        if self.next.is_none() || self.leader != pool.leader_slot() {
            self.leader = pool.leader_slot();
            self.next = pool.next_segment(segment.segment);
        }
        pool.segment_base(self.next?)
    }

    /// Finds the segment of `index`, from the current one or from the head of the chain.
    fn seek(&mut self, pool: &Pool<impl Memory>, index: u64) -> Result<(), Found> {
        let near = self.current.take().filter(|current| current.base <= index);
        // The segment this reader was in may have gone back and serve another log, or this one
        // again further on: then the walk from it finds nothing, and the head is asked.
        if near.is_some_and(|near| self.walk(pool, near.segment, index)) {
            return Ok(());
        }
        let mut head = None;
        // Retention may free the head while the walk starts there; then the line names another.
        for _ in 0..WALKS_MAX {
            let Some(chain) = pool.chain(self.topic, self.log) else { return Err(Found::Gone) };
            if chain.oldest_index > index {
                return Err(Found::Lapped { oldest: chain.oldest_index });
            }
            if head == Some(chain.head) {
                break;
            }
            head = Some(chain.head);
            if self.walk(pool, SegmentId(chain.head), index) {
                return Ok(());
            }
        }
        Err(Found::Gone)
    }

    /// Walks the chain from `start` until the segment of `index`, and makes it the current one.
    fn walk(&mut self, pool: &Pool<impl Memory>, start: SegmentId, index: u64) -> bool {
        let mut at = start;
        // A chain cannot be longer than the pool has segments; a loop would be a broken chain.
        for _ in 0..pool.geometry().segments() {
            let Some(segment) = self.open(pool, at) else { return false };
            let next = pool.next_segment(at);
            let past = next
                .and_then(|next| pool.segment_header(next))
                .is_some_and(|header| self.is_ours(header.what) && header.base_index <= index);
            if !past && segment.holds(index) {
                self.current = Some(segment);
                // Looked up anew before it is used: the leader may be another by then.
                self.next = None;
                return true;
            }
            match next {
                Some(next) if past => at = next,
                _ => return false,
            }
        }
        false
    }

    fn is_ours(&self, what: u64) -> bool {
        What::unpack(what).is_ok_and(|what| {
            what.kind == SegmentKind::OrderLog
                && what.topic == self.topic
                && usize::from(what.log) == self.log
        })
    }

    fn open(&self, pool: &Pool<impl Memory>, segment: SegmentId) -> Option<LogSegment> {
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
        pool: &Pool<impl Memory>,
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
