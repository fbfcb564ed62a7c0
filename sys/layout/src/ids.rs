//! Numbers that must not be mixed up are different types.

use crate::limits::{BROKERS_MAX, TOPICS_MAX};

/// A broker, 0..32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BrokerId(u8);

impl BrokerId {
    /// The broker of that number, if a pool can have it.
    pub fn new(number: usize) -> Option<Self> {
        (number < BROKERS_MAX).then_some(Self(number as u8))
    }

    /// The number, below [`BROKERS_MAX`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The number as structures carry it.
    pub fn raw(self) -> u8 {
        self.0
    }

    /// Every broker a pool can have.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..BROKERS_MAX as u8).map(Self)
    }
}

impl std::fmt::Display for BrokerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A topic for as long as it lives: its slot in the topic table (low byte) and the slot's
/// generation. A deleted topic's id never comes back, so a late batch for it is recognised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct TopicId(pub u32);

impl TopicId {
    /// Generations wrap after so many.
    const GENERATIONS: u32 = 1 << 24;

    /// The id of `generation` in `slot`. The generation wraps after 16 million deletions.
    pub fn new(slot: usize, generation: u32) -> Self {
        Self((slot % TOPICS_MAX) as u32 | generation << 8)
    }

    /// Slot in the topic table, below [`TOPICS_MAX`].
    pub fn slot(self) -> usize {
        (self.0 & 0xff) as usize
    }

    /// Which use of the slot this is.
    pub fn generation(self) -> u32 {
        self.0 >> 8
    }

    /// Whether the slot was given to this topic after `earlier`: of two generations, which wrap,
    /// the one that the other comes to sooner. Generation 0 is of a slot that never had a topic.
    pub fn is_after(self, earlier: Self) -> bool {
        let ahead = self.generation().wrapping_sub(earlier.generation()) % Self::GENERATIONS;
        self.slot() == earlier.slot()
            && self.generation() != 0
            && (1..Self::GENERATIONS / 2).contains(&ahead)
    }
}

/// A segment of the pool. An index, not an address: hosts map the pool where they like.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentId(pub u32);

impl SegmentId {
    /// No segment, where a structure may name one.
    pub const NONE: Self = Self(u32::MAX);

    /// This segment, unless it is [`SegmentId::NONE`].
    pub fn some(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }
}

impl std::fmt::Display for SegmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
