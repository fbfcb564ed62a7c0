//! How many segments for batches were filled a moment ago: so many are kept free ahead of need.

/// What counts as a moment, nanoseconds. A publisher that fills the pool again and again within it
/// finds as much free as there may be.
const MOMENT_NS: u64 = 1_000_000_000;

/// Segments taken in this moment and in the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    began_ns: u64,
    now: u32,
    before: u32,
}

impl Taken {
    fn at(mut self, clock_ns: u64) -> Self {
        let moments = clock_ns.saturating_sub(self.began_ns) / MOMENT_NS;
        if moments > 0 {
            let before = if moments == 1 { self.now } else { 0 };
            self = Self { began_ns: self.began_ns + moments * MOMENT_NS, now: 0, before };
        }
        self
    }

    /// One more was taken.
    pub(super) fn note(&mut self, clock_ns: u64) {
        *self = self.at(clock_ns);
        self.now = self.now.saturating_add(1);
    }

    /// How many were taken within a moment, now or just before.
    pub(super) fn within(&self, clock_ns: u64) -> u32 {
        let at = self.at(clock_ns);
        at.now.max(at.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_remembered_for_a_moment_or_two() {
        let mut taken = Taken::default();
        let begin = 77 * MOMENT_NS;
        assert_eq!(taken.within(begin), 0);
        (0..3).for_each(|i| taken.note(begin + i));
        assert_eq!(taken.within(begin + 2), 3);
        assert_eq!(taken.within(begin + MOMENT_NS), 3);
        taken.note(begin + MOMENT_NS);
        assert_eq!(taken.within(begin + MOMENT_NS), 3, "the moment before had more");
        assert_eq!(taken.within(begin + 2 * MOMENT_NS), 1);
        assert_eq!(taken.within(begin + 4 * MOMENT_NS), 0);
    }
}
