//! What the topic table says became of a topic. Pure.

use crate::ids::TopicId;
use crate::topic::{TopicEntry, TopicState};

/// What became of a topic, as the entry of its slot says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is there.
    Here,
    /// It is being deleted.
    Leaving,
    /// It was deleted.
    Deleted,
    /// The slot has not come to it: the table is older than the topic, or damaged.
    Unknown,
}

impl TopicEntry {
    /// What this entry, which stands in the slot of `id`, says became of the topic that has it, by
    /// name and age. That a topic was deleted takes more than that it is not there: its deletion
    /// was noted, or the slot has gone on to a topic after it. No flipped bit makes that of an
    /// entry whose topic lives.
    pub fn fate_of(&self, id: TopicId, name: &str, created_ns: u64) -> Fate {
        let is_it = self.created_ns == created_ns && self.name() == name;
        match (is_it, self.state()) {
            (true, TopicState::Live) => Fate::Here,
            (true, _) if self.id != id.0 || self.deleted_ns == 0 => Fate::Unknown,
            (true, TopicState::Deleting) => Fate::Leaving,
            (true, TopicState::Absent) => Fate::Deleted,
            (false, _) if TopicId(self.id).is_after(id) => Fate::Deleted,
            (false, _) => Fate::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: TopicId, name: u8, created_ns: u64) -> TopicEntry {
        let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
        (entry.id, entry.created_ns, entry.state) = (id.0, created_ns, 1);
        (entry.name[0], entry.name_bytes) = (name, 1);
        entry
    }

    #[test]
    fn a_topic_was_deleted_where_the_slot_says_so_or_has_gone_on() {
        let id = TopicId::new(3, 7);
        let mut own = entry(id, b'a', 10);
        let fate = |entry: &TopicEntry| entry.fate_of(id, "a", 10);
        assert_eq!(fate(&own), Fate::Here);
        own.deleted_ns = 5;
        own.state = TopicState::Deleting as u8;
        assert_eq!(fate(&own), Fate::Leaving);
        own.state = TopicState::Absent as u8;
        assert_eq!(fate(&own), Fate::Deleted);
        assert_eq!(fate(&entry(TopicId::new(3, 8), b'a', 11)), Fate::Deleted);
        assert_eq!(fate(&entry(TopicId::new(3, 0x0080_0006), b'b', 11)), Fate::Deleted);
    }

    #[test]
    fn a_table_that_has_not_come_to_a_topic_says_nothing_of_it() {
        let id = TopicId::new(3, 7);
        let fate = |entry: &TopicEntry| entry.fate_of(id, "a", 10);
        assert_eq!(fate(&TopicEntry::from_words([0; TopicEntry::WORDS])), Fate::Unknown);
        for generation in [6, 7, 1, 0x00ff_ffff] {
            for state in 0..4 {
                let mut other = entry(TopicId::new(3, generation), b'b', 9);
                (other.state, other.deleted_ns) = (state, 1);
                assert_eq!(fate(&other), Fate::Unknown, "generation {generation}");
            }
        }
        let last = TopicId::new(3, 0x00ff_ffff);
        let wrapped = entry(TopicId::new(3, 1), b'b', 11);
        assert_eq!(wrapped.fate_of(last, "a", 10), Fate::Deleted);
        let unused = entry(TopicId::new(3, 0), b'b', 11);
        assert_eq!(unused.fate_of(last, "a", 10), Fate::Unknown);
    }

    #[test]
    fn no_flipped_bit_makes_a_topic_that_lives_a_deleted_one() {
        let id = TopicId::new(3, 7);
        let words = entry(id, b'a', 10).to_words();
        for (word, bit) in (0..words.len()).flat_map(|word| (0..64).map(move |bit| (word, bit))) {
            let mut flipped = words;
            flipped[word] ^= 1 << bit;
            let fate = TopicEntry::from_words(flipped).fate_of(id, "a", 10);
            assert!(matches!(fate, Fate::Here | Fate::Unknown), "word {word}, bit {bit}: {fate:?}");
        }
    }
}
