//! Batch-header rings: the broker commits slots, the sequencer reads them and says how far.
//!
//! Indices are absolute and never wrap; a slot's place is its index modulo the ring's length.

use landfall_layout::limits::LINE_BYTES;
use landfall_layout::slot::RingSlot;

use crate::leader::LeaderPlace;
use crate::memory::Memory;

/// Where a ring and its consumed line lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRing {
    /// Offset of the first slot.
    pub at: u64,
    /// Slots, a power of two.
    pub slots: u64,
    /// Offset of the word that says how far the sequencer is through.
    pub consumed_at: u64,
    /// The leader whose word that is; `None` where there is never another.
    pub leader: Option<LeaderPlace>,
}

impl SlotRing {
    fn slot(&self, index: u64) -> u64 {
        self.at + (index & (self.slots - 1)) * RingSlot::BYTES
    }

    /// How far the sequencer is through, as its leader says it. For the ring's broker that means
    /// nothing once somebody else has claimed the lead: see [`SlotWriter::consumed`].
    pub fn consumed(&self, memory: &impl Memory) -> u64 {
        memory.refresh(self.consumed_at, LINE_BYTES);
        // EDGE slot-consumed, acquire half. Pairs with `SlotReader::release`: the sequencer has
        // copied the slots that are written over, and their order entries are visible.
        memory.load(self.consumed_at)
    }

    /// Whether nobody had claimed the lead from the ring's leader when it said what was loaded
    /// before this.
    fn is_led(&self, memory: &impl Memory) -> bool {
        let Some(leader) = self.leader else { return true };
        // EDGE epoch-claim, acquire half: a Dekker pair with `Pool::claim`, after which the next
        // leader copies the word. If it did not see what was loaded here, its claim is seen here.
        memory.full_fence();
        leader.leads(memory)
    }
}

/// The broker's side.
#[derive(Debug)]
pub struct SlotWriter {
    ring: SlotRing,
    next: u64,
    consumed: u64,
}

impl SlotWriter {
    /// Goes on after the last slot that was committed.
    pub fn resume(memory: &impl Memory, ring: SlotRing) -> Self {
        let consumed = ring.consumed(memory);
        let mut next = consumed;
        while next.wrapping_sub(consumed) < ring.slots && is_committed(memory, &ring, next) {
            // An earlier writer on this host may have died before it wrote the line back.
            memory.publish(ring.slot(next) + LINE_BYTES, LINE_BYTES);
            next = next.wrapping_add(1);
        }
        // The slots are there whoever says that they are consumed, but only a leader makes room.
        let consumed = if ring.is_led(memory) { consumed } else { next.saturating_sub(ring.slots) };
        Self { ring, next, consumed }
    }

    /// Another leader says from now on, elsewhere, how far the sequencer is through.
    pub fn heed(&mut self, consumed_at: u64, leader: Option<LeaderPlace>) {
        self.ring = SlotRing { consumed_at, leader, ..self.ring };
    }

    /// Absolute index of the next slot.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The ring.
    pub fn ring(&self) -> &SlotRing {
        &self.ring
    }

    /// How far the sequencer is through: everything below is ordered or dropped, whoever leads
    /// next, and may be written over.
    ///
    /// A leader that was deposed goes on for a moment without knowing, and gives back slots that
    /// the next one has yet to look at. What it says counts only if nobody had claimed the lead
    /// when it was heard: then the next leader finds it in the tables that it copies.
    #[inline]
    pub fn consumed(&mut self, memory: &impl Memory) -> u64 {
        let consumed = self.ring.consumed(memory);
        // What goes back or runs ahead is no index of the sequencer: the ring stays as full.
        let is_news =
            consumed != self.consumed && self.next.wrapping_sub(consumed) <= self.pending();
        if is_news && self.ring.is_led(memory) {
            self.consumed = consumed;
        }
        self.consumed
    }

    /// Slots that are free, at least; asks the sequencer's line only when it has to.
    pub fn room(&mut self, memory: &impl Memory, wanted: u64) -> u64 {
        if self.ring.slots - self.pending() < wanted {
            self.consumed(memory);
        }
        self.ring.slots - self.pending()
    }

    fn pending(&self) -> u64 {
        self.next.wrapping_sub(self.consumed)
    }

    /// Commits a slot and returns its index; `None` when the ring is full.
    #[must_use = "a full ring took nothing"]
    pub fn push(&mut self, memory: &impl Memory, slot: &RingSlot) -> Option<u64> {
        if self.room(memory, 1) == 0 {
            return None;
        }
        let index = self.next;
        let at = self.ring.slot(index);
        let words = slot.to_words();
        memory.store_words(at, &words[..15]);
        // Two lines may reach another host in either order, so the first goes ahead.
        memory.publish(at, LINE_BYTES);
        // EDGE slot-commit, release half. Pairs with `SlotReader::peek`: whoever sees the commit
        // word sees the slot, and the batch that was landed before it.
        self.next = index.wrapping_add(1);
        memory.store_release(at + 120, self.next);
        memory.publish(at + LINE_BYTES, LINE_BYTES);
        Some(index)
    }
}

fn is_committed(memory: &impl Memory, ring: &SlotRing, index: u64) -> bool {
    let at = ring.slot(index);
    memory.refresh(at + LINE_BYTES, LINE_BYTES);
    memory.load(at + 120) == index.wrapping_add(1)
}

/// The sequencer's side. It keeps its own scan index; this says what a slot holds.
#[derive(Clone, Copy, Debug)]
pub struct SlotReader {
    ring: SlotRing,
}

impl SlotReader {
    /// Reads that ring.
    pub fn new(ring: SlotRing) -> Self {
        Self { ring }
    }

    /// The ring.
    pub fn ring(&self) -> &SlotRing {
        &self.ring
    }

    /// A private copy of the slot at `index`, once it is committed there.
    #[inline]
    pub fn peek(&self, memory: &impl Memory, index: u64) -> Option<RingSlot> {
        let at = self.ring.slot(index);
        memory.refresh(at + LINE_BYTES, LINE_BYTES);
        // EDGE slot-commit, acquire half. Pairs with `SlotWriter::push`.
        if memory.load(at + 120) != index.wrapping_add(1) {
            return None;
        }
        memory.refresh(at, LINE_BYTES);
        Some(RingSlot::from_words(memory.load_words(at)))
    }

    /// Gives every slot below `through` back to the broker.
    pub fn release(&self, memory: &impl Memory, through: u64) {
        // EDGE slot-consumed, release half. Pairs with `SlotRing::consumed`.
        memory.store_release(self.ring.consumed_at, through);
        memory.publish(self.ring.consumed_at, LINE_BYTES);
    }
}
