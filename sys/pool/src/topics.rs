//! The topic table: control writes entries, everyone reads whole ones.

use landfall_layout::limits::TOPICS_MAX;
use landfall_layout::topic::{TopicEntry, TopicState};
use landfall_layout::{BrokerId, TopicId};

use crate::memory::Memory;
use crate::pool::Pool;

/// A whole copy of the words at `at`, the first of which is their version; `None` while they
/// change.
pub fn read_versioned<const N: usize>(memory: &impl Memory, at: u64) -> Option<[u64; N]> {
    memory.refresh(at, 8);
    // EDGE topic-version, acquire half. Pairs with `write_versioned`.
    let before = memory.load(at);
    if before % 2 == 1 {
        return None;
    }
    // After the version: other lines that were dropped before it could be fetched again before the
    // change that it tells of.
    memory.refresh(at, 8 * N as u64);
    let mut words = memory.load_words(at);
    words[0] = before;
    memory.acquire_fence();
    memory.refresh(at, 8);
    (memory.load_relaxed(at) == before).then_some(words)
}

/// Writes the words at `at` but for the first, their version, which is set here. One writer.
pub fn write_versioned(memory: &impl Memory, at: u64, words: &[u64]) {
    // A writer that died in mid-change left an odd version, and this one goes on from it.
    let version = memory.load_relaxed(at) | 1;
    memory.store_release(at, version);
    // The odd version comes before the words for every reader.
    memory.release_fence();
    memory.publish(at, 8);
    memory.store_words(at + 8, &words[1..]);
    memory.publish(at, 8 * words.len() as u64);
    // EDGE topic-version, release half. Pairs with `read_versioned`.
    memory.store_release(at, version.wrapping_add(1));
    memory.publish(at, 8);
}

impl<M: Memory> Pool<M> {
    /// A whole copy of the entry in `slot`; `None` while control is changing it.
    pub fn topic_in_slot(&self, slot: usize) -> Option<TopicEntry> {
        let words = read_versioned(self, self.geometry().topic(slot))?;
        Some(TopicEntry::from_words(words))
    }

    /// The entry of a topic that is live.
    pub fn topic(&self, id: TopicId) -> Option<TopicEntry> {
        let entry = self.topic_in_slot(id.slot())?;
        (entry.id == id.0 && entry.state() == TopicState::Live).then_some(entry)
    }

    /// The live topic of that name.
    pub fn topic_by_name(&self, name: &str) -> Option<TopicEntry> {
        (0..TOPICS_MAX)
            .filter_map(|slot| self.topic_in_slot(slot))
            .find(|entry| entry.state() == TopicState::Live && entry.name() == name)
    }

    /// Writes an entry; its version is set here. Only control.
    pub fn set_topic(&self, entry: &TopicEntry) {
        let at = self.geometry().topic(TopicId(entry.id).slot());
        write_versioned(self, at, &entry.to_words());
    }

    /// Brokers whose line says they took their number at some time.
    pub fn known_brokers(&self) -> impl Iterator<Item = BrokerId> {
        BrokerId::all().filter(|broker| self.broker(*broker).incarnation != 0)
    }
}
