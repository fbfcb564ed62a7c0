//! Holds: what is being read is not reused.
//!
//! Retention first moves the log's oldest index, then asks every broker to let go of a segment,
//! and only then reuses it. A reader does the opposite: it first says which segment it reads, and
//! then looks at the oldest index again. One of the two sees the other (Dekker's algorithm), so a
//! segment is never reused under a reader that was granted its hold.
//!
//! A memory subscriber says it in a word of its channel, which its broker reads before it answers
//! control. A broker's own deliveries are in its own hands.

use landfall_layout::TopicId;

use crate::memory::Memory;
use crate::pool::Pool;

/// The right to read one segment's batches: it is not used again meanwhile.
///
/// It is made by [`HoldWord::take`], or by the broker that answers for it with
/// [`Hold::by_broker`].
#[derive(Debug, PartialEq, Eq)]
pub struct Hold {
    segment: u32,
}

impl Hold {
    /// A broker's own hold: the broker does not answer `Retire` for this segment before it has
    /// dropped the hold and what it reads under it.
    pub fn by_broker(segment: u32) -> Self {
        Self { segment }
    }

    /// The segment held.
    pub fn segment(&self) -> u32 {
        self.segment
    }
}

/// The word in which a memory subscriber says what it reads.
#[derive(Clone, Copy, Debug)]
pub struct HoldWord {
    /// Offset of the word in the channel.
    pub at: u64,
}

impl HoldWord {
    /// Holds `segment`, in which the entry `index` of (topic, log) says a batch lies. `None` when
    /// retention was first: the entry and its batch are gone.
    pub fn take(
        self,
        channel: &impl Memory,
        pool: &Pool<impl Memory>,
        entry: EntryName,
        segment: u32,
    ) -> Option<Hold> {
        let oldest = || pool.oldest_of(entry.topic, entry.log);
        self.take_if(channel, segment, || oldest().is_some_and(|oldest| oldest <= entry.index))
    }

    /// Holds `segment` if, after that was said, `is_there` still finds its entry.
    pub fn take_if(
        self,
        channel: &impl Memory,
        segment: u32,
        is_there: impl FnOnce() -> bool,
    ) -> Option<Hold> {
        self.announce(channel, segment);
        if is_there() {
            return Some(Hold { segment });
        }
        self.release(channel);
        None
    }

    /// The reader's store and fence; its load of the oldest index comes next.
    pub fn announce(self, channel: &impl Memory, segment: u32) {
        // EDGE hold-word, release half. Pairs with `held`.
        channel.store_release(self.at, u64::from(segment) + 1);
        channel.full_fence();
    }

    /// Lets go. What was read under the hold was copied by then.
    pub fn release(self, channel: &impl Memory) {
        channel.store_release(self.at, 0);
    }

    /// The segment that is held, as the broker sees it after it took `Retire` from its ring.
    pub fn held(self, channel: &impl Memory) -> Option<u32> {
        channel.full_fence();
        // EDGE hold-word, acquire half. Pairs with `announce`.
        channel.load(self.at).checked_sub(1).and_then(|segment| u32::try_from(segment).ok())
    }
}

/// Names one entry of a log.
#[derive(Clone, Copy, Debug)]
pub struct EntryName {
    /// Topic.
    pub topic: TopicId,
    /// Log in the topic.
    pub log: usize,
    /// Absolute index in the log.
    pub index: u64,
}
