//! How many segments are free, for the message to people who wait for one.

use landfall_layout::SegmentId;
use landfall_layout::frame::Stall;
use landfall_layout::full::logs_may_have;
use landfall_layout::segment::{SegmentKind, What};

use crate::env::Env;

/// Headers looked at in one tick: below a millisecond.
const HEADERS_PER_TICK: u32 = 16_384;

/// What segments are used for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counted {
    /// Free.
    pub free: u32,
    /// For order logs and rings.
    pub logs: u32,
}

/// The count, as the segments' headers say. Of a pool with more of them than one tick looks at, it
/// is some ticks old.
#[derive(Default)]
pub struct Free {
    next: u32,
    so_far: Counted,
    whole: Counted,
    looked: bool,
}

impl Counted {
    /// With one more, of whose header these are the first word and the time of its loss.
    fn with(self, what: u64, lost_ns: u64) -> Self {
        let is_log = |what: What| matches!(what.kind, SegmentKind::OrderLog | SegmentKind::Ring);
        // One that is lost is nobody's and is given to nobody.
        let is_free = (what, lost_ns) == (0, 0);
        let is_log = What::unpack(what).is_ok_and(is_log);
        Self { free: self.free + u32::from(is_free), logs: self.logs + u32::from(is_log) }
    }

    /// What a client is told that waits for a segment, and the number that belongs to it: a log
    /// that is to begin waits for other logs. One that has begun waits only where nothing is free.
    pub fn shown(self, why: Stall, of: u32) -> (Stall, u32) {
        match why {
            Stall::LogsFull if self.free > 0 && self.logs >= logs_may_have(of) => (why, self.logs),
            _ => (Stall::PoolFull, self.free),
        }
    }
}

impl Free {
    /// A tick began.
    pub fn look_again(&mut self) {
        self.looked = false;
    }

    /// However many ask in one tick, headers are looked at once.
    #[cold]
    pub fn count(&mut self, env: &Env) -> Counted {
        if !std::mem::replace(&mut self.looked, true) {
            let header = |segment| env.pool.segment_header(SegmentId(segment));
            self.look(env.pool.geometry().segments(), |segment| {
                header(segment).map_or((u64::MAX, 0), |header| (header.what, header.lost_ns))
            });
        }
        self.whole
    }

    fn look(&mut self, all: u32, header: impl Fn(u32) -> (u64, u64)) {
        let end = all.min(self.next.saturating_add(HEADERS_PER_TICK));
        for (what, lost_ns) in (self.next..end).map(header) {
            self.so_far = self.so_far.with(what, lost_ns);
        }
        self.next = end;
        if end == all {
            self.whole = self.so_far;
            (self.next, self.so_far) = (0, Counted::default());
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
                    (u64::from(segment % 2), 0)
                });
                assert!(looked.get() <= HEADERS_PER_TICK);
                let is_whole = round > 1 || tick == 4;
                assert_eq!(free.whole.free, if is_whole { all.div_ceil(2) } else { 0 });
            }
        }
    }

    #[test]
    fn a_log_waits_for_logs_only_where_they_have_their_half() {
        let log = What { kind: SegmentKind::OrderLog, owner: 1, ..What::FREE }.pack();
        let counted = Counted::default().with(log, 0).with(log, 0).with(0, 0).with(0, 9);
        assert_eq!(counted, Counted { free: 1, logs: 2 });
        assert_eq!(counted.shown(Stall::LogsFull, 4), (Stall::LogsFull, 2));
        assert_eq!(counted.shown(Stall::LogsFull, 8), (Stall::PoolFull, 1));
        assert_eq!(counted.shown(Stall::PoolFull, 4), (Stall::PoolFull, 1));
        let none_free = Counted { free: 0, ..counted };
        assert_eq!(none_free.shown(Stall::LogsFull, 4), (Stall::PoolFull, 0));
    }
}
