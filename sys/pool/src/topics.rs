//! The topic table: control writes entries, everyone reads whole ones.

use landfall_layout::limits::TOPICS_MAX;
use landfall_layout::topic::{TopicEntry, TopicState};
use landfall_layout::{BrokerId, TopicId};

use crate::memory::Memory;
use crate::pool::Pool;

impl Pool {
    /// A whole copy of the entry in `slot`; `None` while control is changing it.
    pub fn topic_in_slot(&self, slot: usize) -> Option<TopicEntry> {
        let at = self.geometry().topic(slot);
        self.refresh(at, TopicEntry::BYTES);
        // EDGE topic-version, acquire half. Pairs with `set_topic`.
        let before = self.load(at);
        if before % 2 == 1 {
            return None;
        }
        let words = self.load_words(at);
        std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
        self.refresh(at, 8);
        (self.load_relaxed(at) == before).then(|| TopicEntry::from_words(words))
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
        let version = self.load_relaxed(at) | 1;
        self.store_release(at, version);
        // The odd version comes before the words for every reader: a store fence by another name.
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
        self.publish(at, 8);
        let words = entry.to_words();
        self.store_words(at + 8, &words[1..]);
        self.publish(at, TopicEntry::BYTES);
        // EDGE topic-version, release half. Pairs with `topic_in_slot`.
        self.store_release(at, version + 1);
        self.publish(at, 8);
    }

    /// Brokers whose line says they took their number at some time.
    pub fn known_brokers(&self) -> impl Iterator<Item = BrokerId> {
        BrokerId::all().filter(|broker| self.broker(*broker).incarnation != 0)
    }
}
