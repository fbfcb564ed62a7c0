//! The three lanes: an open batch each, and batches that are filled and wait to be sealed.

use std::collections::VecDeque;

use super::batch::{ExtentFiller, Filler};
use super::receipts::Outcomes;
use super::session::Filled;
use landfall_pool::clock::{boot_ns, wall_ns};

/// A batch that still takes messages.
pub(crate) struct Open {
    pub(crate) filler: Filler,
    /// Payload bytes that still fit.
    pub(crate) room: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) count: u32,
    /// Messages that it may have.
    pub(crate) most: u32,
    /// Its number in the lane.
    pub(crate) number: u64,
    /// When it was opened, by the clock that never jumps.
    pub(crate) since_ns: u64,
}

/// One lane.
#[derive(Default)]
pub(crate) struct LaneState {
    pub(crate) open: Option<Open>,
    /// Whole batches that have no sequence yet, oldest first.
    pub(crate) filled: VecDeque<Filled>,
    /// Number of the next batch that is opened.
    pub(crate) next_number: u64,
    pub(crate) outcomes: Outcomes,
    /// What the last batch was filled with, to be used again.
    pub(crate) spare_filler: Option<Box<ExtentFiller>>,
}

/// Messages between two looks at the clocks, at most.
const MESSAGES_PER_LOOK: u32 = 64;
/// A caller that publishes slower than one message in this time has its clocks looked at with
/// each message; they cost it little then.
const SLOW_NS: u64 = 1000;

/// The clocks as of the last look. A look costs more than publishing a small message, so there is
/// one for each batch and for at most 64 messages.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Wall clock.
    pub(crate) wall_ns: u64,
    /// The clock that never jumps.
    pub(crate) steady_ns: u64,
    /// Messages that may come before the next look.
    pub(crate) left: u32,
    every: u32,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { wall_ns: wall_ns(), steady_ns: boot_ns(), left: 0, every: 1 }
    }

    /// Looks at the clocks, and decides when to look again.
    pub(crate) fn look(&mut self) {
        let now = boot_ns();
        self.pace(now.saturating_sub(self.steady_ns));
        self.steady_ns = now;
        self.wall_ns = wall_ns();
    }

    /// `spent_ns` went by since the last look.
    fn pace(&mut self, spent_ns: u64) {
        let messages = self.every - self.left.min(self.every);
        self.every = if spent_ns < u64::from(messages.max(1)) * SLOW_NS {
            (self.every * 2).min(MESSAGES_PER_LOOK)
        } else {
            1
        };
        self.left = self.every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_publisher_looks_seldom_and_a_slow_one_each_time() {
        let mut clock = Clock::new();
        for _ in 0..10 {
            clock.left = 0;
            clock.pace(10);
        }
        assert_eq!(clock.left, MESSAGES_PER_LOOK);
        clock.left = 0;
        clock.pace(MESSAGES_PER_LOOK as u64 * SLOW_NS);
        assert_eq!(clock.left, 1);
    }
}
