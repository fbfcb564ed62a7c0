//! Who keeps each copy of what one broker landed.
//!
//! A copy has a *home*: the broker that [`TopicEntry::replica_broker`] names. While that one is
//! away, another may keep the copy in its place, the *stand-in*, on a line of its own.
//!
//! [`TopicEntry::replica_broker`]: crate::topic::TopicEntry::replica_broker

use crate::ids::{BrokerId, TopicId};
use crate::limits::{BROKERS_MAX, DISK_REPLICAS_MAX, STAND_INS_MAX};

/// The keepers of all copies of what one broker landed for one topic: a word, so that it changes
/// at once. Writer: control. Readers: everyone.
///
/// Sixteen bits a copy: the stand-in's number + 1, and which of its lines; 0: its home keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Keepers(u64);

/// A broker that keeps a copy in place of its home.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct StandIn {
    /// The broker.
    pub broker: BrokerId,
    /// Which of its lines for the topic says how far the copy is, below [`STAND_INS_MAX`].
    pub line: usize,
}

impl Keepers {
    /// What a word says.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The word.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// Who stands in for the home of copy `replica`; none: the home keeps it. Total over any word:
    /// one that names nobody leaves the copy with its home.
    pub fn stand_in(self, replica: usize) -> Option<StandIn> {
        let bits = self.0.checked_shr(16 * replica as u32)? & 0xffff;
        let broker = BrokerId::new(usize::try_from(bits & 0xff).ok()?.checked_sub(1)?)?;
        let line = (bits >> 8) as usize;
        (line < STAND_INS_MAX).then_some(StandIn { broker, line })
    }

    /// The same, with copy `replica` kept by `stand_in`, or by its home.
    pub fn with(self, replica: usize, stand_in: Option<StandIn>) -> Self {
        assert!(replica < DISK_REPLICAS_MAX, "copy {replica} of {DISK_REPLICAS_MAX}");
        let bits = stand_in.map_or(0, |stand_in| {
            (u64::from(stand_in.broker.raw()) + 1) | (stand_in.line as u64) << 8
        });
        let shift = 16 * replica as u32;
        Self(self.0 & !(0xffff << shift) | bits << shift)
    }
}

/// What the line of a stand-in says it is about, where a home's line has the topic alone: so the
/// line of one copy is never taken for that of another that it served before.
pub fn stand_in_key(topic: TopicId, source: BrokerId, replica: usize) -> u64 {
    u64::from(topic.0) | (u64::from(source.raw()) + 1) << 32 | (replica as u64 + 1) << 40
}

/// Whether a stand-in's line that says `key` is about a copy of `topic`, whichever, or is being
/// begun, so that nobody knows.
pub fn is_stand_in_of(topic: TopicId, key: u64) -> bool {
    key == u64::MAX || key as u32 == topic.0 && key >> 32 != 0
}

const _: () = {
    assert!(DISK_REPLICAS_MAX * 16 <= 64, "all copies of a source are in one word");
    assert!(BROKERS_MAX < 0xff && STAND_INS_MAX <= 0xff, "a byte each");
};

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(number: usize) -> BrokerId {
        BrokerId::new(number).unwrap()
    }

    #[test]
    fn each_copy_has_its_own_keeper() {
        let first = StandIn { broker: broker(31), line: 3 };
        let last = StandIn { broker: broker(0), line: 0 };
        let keepers = Keepers::default().with(0, Some(first)).with(2, Some(last));
        assert_eq!(keepers.raw(), 0x0000_0001_0000_0320);
        let all = [0, 1, 2].map(|replica| keepers.stand_in(replica));
        assert_eq!(all, [Some(first), None, Some(last)]);
        assert_eq!(keepers.with(0, None).with(2, None), Keepers::default());
    }

    #[test]
    fn a_word_that_names_nobody_leaves_the_copy_at_home() {
        let other = Keepers::from_raw(0xffff_ffff_ffff_ffff);
        assert_eq!([0, 1, 2, 3, 4, 9].map(|replica| other.stand_in(replica)), [None; 6]);
        assert_eq!(Keepers::from_raw(1 | 9 << 8).stand_in(0), None, "no such line");
    }

    #[test]
    fn no_two_copies_have_one_key() {
        let topic = TopicId(0x0123_4567);
        let mut keys: Vec<u64> = BrokerId::all()
            .flat_map(|source| (0..3).map(move |replica| stand_in_key(topic, source, replica)))
            .collect();
        keys.push(topic.0.into());
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
        assert_eq!(stand_in_key(topic, broker(2), 1), 0x0000_0203_0123_4567);
        assert!(keys.iter().all(|key| is_stand_in_of(topic, *key) == (*key >> 32 != 0)));
        assert!(!keys.iter().any(|key| is_stand_in_of(TopicId(topic.0 + 1), *key)));
        assert!(is_stand_in_of(topic, u64::MAX), "it is being begun");
    }
}
