//! How many segments are free, for the message to people who wait for one.

use landfall_layout::SegmentId;

use crate::env::Env;

/// Headers looked at in one tick: below a millisecond.
const HEADERS_PER_TICK: u32 = 16_384;

/// The count, as the segments' headers say. Of a pool with more of them than one tick looks at, it
/// is some ticks old.
#[derive(Default)]
pub struct Free {
    next: u32,
    so_far: u32,
    whole: u32,
    looked: bool,
}

impl Free {
    /// A tick began.
    pub fn look_again(&mut self) {
        self.looked = false;
    }

    /// Free segments. However many ask in one tick, headers are looked at once.
    #[cold]
    pub fn count(&mut self, env: &Env) -> u32 {
        if !std::mem::replace(&mut self.looked, true) {
            let header = |segment| env.pool.segment_header(SegmentId(segment));
            // One that is lost is nobody's and is given to nobody.
            let is_free = |segment| {
                header(segment).is_some_and(|header| (header.what, header.lost_ns) == (0, 0))
            };
            self.look(env.pool.geometry().segments(), is_free);
        }
        self.whole
    }

    fn look(&mut self, all: u32, is_free: impl Fn(u32) -> bool) {
        let end = all.min(self.next.saturating_add(HEADERS_PER_TICK));
        self.so_far += (self.next..end).filter(|segment| is_free(*segment)).count() as u32;
        self.next = end;
        if end == all {
            self.whole = self.so_far;
            (self.next, self.so_far) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_large_pool_is_counted_over_several_ticks_and_no_tick_looks_at_all_of_it() {
        let mut free = Free::default();
        let all = 3 * HEADERS_PER_TICK + 5;
        for round in 1..=2 {
            for tick in 1..=4 {
                let looked = Cell::new(0);
                free.look(all, |segment| {
                    looked.set(looked.get() + 1);
                    segment % 2 == 0
                });
                assert!(looked.get() <= HEADERS_PER_TICK);
                let is_whole = round > 1 || tick == 4;
                assert_eq!(free.whole, if is_whole { all.div_ceil(2) } else { 0 });
            }
        }
    }
}
