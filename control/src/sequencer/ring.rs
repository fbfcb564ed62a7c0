//! How far one ring has been looked at, and how far it is done with.

/// The sequencer's place in the ring of one broker.
///
/// A slot is *looked at* once, in ring order, and *resolved* when it is ordered or dropped, which
/// for a held slot is later than for its successors. The broker may reuse a slot only below the
/// contiguous minimum of what is resolved; the highest resolved slot says nothing.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct RingScan {
    scan: u64,
    consumed: u64,
    slots: u32,
    /// Resolved slots above `consumed`: bits that are set. 0 while nothing is held, and then no
    /// slot costs a bit.
    ahead: u32,
    /// Resolved slots above `scan`: an earlier sequencer ordered them. 0 after one lap.
    marks: u32,
    resolved: Box<[u64]>,
}

const _: () = assert!(size_of::<RingScan>() == 64, "a ring's hot state is one line");

impl RingScan {
    /// Starts at slot `consumed` of a ring of `slots` slots, a power of two.
    pub fn new(slots: u32, consumed: u64) -> Self {
        let resolved = vec![0; slots.div_ceil(64) as usize].into_boxed_slice();
        Self { scan: consumed, consumed, slots, ahead: 0, marks: 0, resolved }
    }

    /// Whether there is a ring.
    pub fn is_open(&self) -> bool {
        self.slots != 0
    }

    /// The slot to look at next.
    pub fn scan(&self) -> u64 {
        self.scan
    }

    /// The first slot that is not resolved.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether the slot at the scan index can be a new one. It cannot while the slot one lap
    /// before it is unresolved, nor in a ring that was never opened.
    #[inline]
    pub fn has_next(&self) -> bool {
        self.scan - self.consumed < u64::from(self.slots)
    }

    /// Takes the slot at the scan index and moves on, past slots that were ordered before.
    #[inline]
    pub fn take(&mut self) -> u64 {
        let index = self.scan;
        self.scan += 1;
        while self.marks > 0 && self.bit(self.scan) {
            self.scan += 1;
            self.marks -= 1;
        }
        index
    }

    /// Notes that a slot that was taken is ordered or dropped.
    #[inline]
    pub fn resolve(&mut self, index: u64) {
        if index != self.consumed {
            self.set(index);
            self.ahead += 1;
            return;
        }
        self.consumed += 1;
        while self.ahead > 0 && self.bit(self.consumed) {
            self.clear(self.consumed);
            self.consumed += 1;
            self.ahead -= 1;
        }
    }

    /// Notes that the slot whose absolute index ends in `low` is in the log already. A slot that
    /// is consumed, was looked at, or is beyond the ring is none of the present lap: no change.
    pub fn mark(&mut self, low: u32) {
        let index = self.consumed + u64::from(low.wrapping_sub(self.consumed as u32));
        if index < self.scan || index - self.consumed >= u64::from(self.slots) || self.bit(index) {
            return;
        }
        if index == self.scan {
            let index = self.take();
            self.resolve(index);
        } else {
            self.set(index);
            self.ahead += 1;
            self.marks += 1;
        }
    }

    fn place(&self, index: u64) -> (usize, u64) {
        let place = index & u64::from(self.slots - 1);
        ((place / 64) as usize, 1 << (place % 64))
    }

    fn bit(&self, index: u64) -> bool {
        let (word, bit) = self.place(index);
        self.resolved[word] & bit != 0
    }

    fn set(&mut self, index: u64) {
        let (word, bit) = self.place(index);
        self.resolved[word] |= bit;
    }

    fn clear(&mut self, index: u64) {
        let (word, bit) = self.place(index);
        self.resolved[word] &= !bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(ring: &mut RingScan, count: usize) -> Vec<u64> {
        (0..count).map(|_| ring.take()).collect()
    }

    #[test]
    fn consumed_is_the_contiguous_minimum_and_not_the_highest() {
        let mut ring = RingScan::new(16, 100);
        assert_eq!(take(&mut ring, 4), [100, 101, 102, 103]);
        ring.resolve(103);
        ring.resolve(101);
        assert_eq!(ring.consumed(), 100);
        ring.resolve(100);
        assert_eq!(ring.consumed(), 102);
        ring.resolve(102);
        assert_eq!(ring.consumed(), 104);
    }

    #[test]
    fn a_bit_of_the_lap_before_means_nothing() {
        let mut ring = RingScan::new(16, 0);
        for lap in 0..5 {
            take(&mut ring, 16);
            assert!(!ring.has_next(), "every slot of lap {lap} is unresolved");
            for place in (0..16).rev() {
                assert_eq!(ring.consumed(), lap * 16);
                ring.resolve(lap * 16 + place);
            }
            assert!(ring.resolved.iter().all(|word| *word == 0));
        }
    }

    #[test]
    fn marked_slots_are_neither_looked_at_nor_waited_for() {
        let base = u64::from(u32::MAX) - 2;
        let mut ring = RingScan::new(16, base);
        for index in [base, base + 1, base + 4, base + 5, base + 15] {
            ring.mark(index as u32);
            ring.mark(index as u32);
        }
        ring.mark((base - 1) as u32);
        ring.mark((base + 18) as u32);
        assert_eq!((ring.consumed(), ring.scan()), (base + 2, base + 2));
        // The window moved on with the mark of its first slots, so this one is in it now.
        ring.mark((base + 17) as u32);
        let taken = take(&mut ring, 11);
        assert_eq!(taken[..3], [base + 2, base + 3, base + 6]);
        assert_eq!((taken[10], ring.scan()), (base + 14, base + 16));
        for index in taken {
            ring.resolve(index);
        }
        assert_eq!(ring.consumed(), base + 16);
        assert_eq!(ring.take(), base + 16);
        assert_eq!(ring.scan(), base + 18);
        ring.resolve(base + 16);
        assert_eq!((ring.consumed(), ring.marks, ring.ahead), (base + 18, 0, 0));
    }

    #[test]
    fn a_slot_that_was_looked_at_is_not_marked() {
        let mut ring = RingScan::new(16, 7);
        take(&mut ring, 2);
        ring.mark(7);
        ring.mark(8);
        assert_eq!((ring.consumed(), ring.scan(), ring.ahead), (7, 9, 0));
    }

    #[test]
    fn a_ring_that_was_never_opened_has_nothing() {
        assert!(!RingScan::default().has_next());
        assert!(!RingScan::default().is_open());
    }
}
