//! Whether control still counts on this process.
//!
//! A broker that was away (stopped, swapped out, on a host that was suspended) may have been given
//! up meanwhile, where control cannot see its lock. Then others may use what it was writing into.
//! So whoever has not looked for `AWAY_NS`, by a clock that goes on while it is stopped, looks
//! before it writes anything into the pool; what can stop it between the look and the store is
//! bounded by how long control waits before it uses such memory again.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use landfall_layout::BrokerId;
use landfall_layout::limits::AWAY_NS;
use landfall_pool::Pool;

/// What the loop and the replicator's thread both know.
#[derive(Debug, Default)]
struct Shared {
    /// Control has counted on this process once.
    counted: AtomicBool,
    /// It does so no more.
    cast_off: AtomicBool,
}

/// One thread's view of it.
#[derive(Debug)]
pub struct Standing {
    shared: Arc<Shared>,
    me: BrokerId,
    incarnation: u64,
    looked_ns: Cell<u64>,
}

impl Standing {
    /// The standing of a process that control does not know yet.
    pub fn new(me: BrokerId, incarnation: u64) -> Self {
        Self { shared: Arc::default(), me, incarnation, looked_ns: Cell::new(0) }
    }

    /// The same, for another thread.
    pub fn share(&self) -> Self {
        let Self { shared, me, incarnation, .. } = self;
        let looked_ns = Cell::new(0);
        Self { shared: Arc::clone(shared), me: *me, incarnation: *incarnation, looked_ns }
    }

    /// The number and the incarnation of this process.
    pub fn who(&self) -> (BrokerId, u64) {
        (self.me, self.incarnation)
    }

    /// Control has accepted this process.
    pub fn begin(&self) {
        self.shared.counted.store(true, Ordering::Release);
    }

    /// Whether control counts on this process no more, as far as it has been found out.
    pub fn is_cast_off(&self) -> bool {
        self.shared.cast_off.load(Ordering::Acquire)
    }

    /// Whether this thread may write into the pool at `now_ns`, by boot time.
    #[inline]
    pub fn holds(&self, pool: &Pool, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.looked_ns.get()) < AWAY_NS || self.look(pool, now_ns)
    }

    /// As if it had been away.
    #[cfg(test)]
    fn look_again(&self) {
        self.looked_ns.set(0);
    }

    /// Looks whether control still counts on this process.
    #[cold]
    pub fn look(&self, pool: &Pool, now_ns: u64) -> bool {
        if self.is_cast_off() {
            return false;
        }
        // Before it is accepted it writes nothing but its own line and requests.
        let holds = !self.shared.counted.load(Ordering::Acquire)
            || pool.counted(self.me) == self.incarnation;
        if holds {
            self.looked_ns.set(now_ns);
        } else {
            self.looked_ns.set(0);
            self.shared.cast_off.store(true, Ordering::Release);
        }
        holds
    }
}

#[cfg(test)]
mod tests {
    use landfall_layout::pool::Coherence;

    use super::*;
    use crate::land::{NotLanded, Wait};
    use crate::rig::{LandRig, pool_of};

    const ME: usize = 2;

    fn standing() -> (Pool, Standing) {
        let pool = pool_of(Coherence::Coherent);
        let me = BrokerId::new(ME).unwrap();
        pool.count_on(me, 7);
        let standing = Standing::new(me, 7);
        (pool, standing)
    }

    fn count_on(pool: &Pool, incarnation: u64) {
        pool.count_on(BrokerId::new(ME).unwrap(), incarnation);
    }

    #[test]
    fn who_was_away_looks_and_who_was_not_does_not() {
        let (pool, standing) = standing();
        standing.begin();
        assert!(standing.holds(&pool, 10 * AWAY_NS));
        count_on(&pool, 0);
        assert!(standing.holds(&pool, 11 * AWAY_NS - 1), "it looked a moment ago");
        assert!(!standing.holds(&pool, 11 * AWAY_NS));
        count_on(&pool, 7);
        assert!(!standing.holds(&pool, 11 * AWAY_NS + 1), "what it had is given up for good");
    }

    #[test]
    fn the_next_process_of_the_number_is_not_this_one() {
        let (pool, standing) = standing();
        standing.begin();
        count_on(&pool, 8);
        assert!(!standing.look(&pool, 5));
        assert!(standing.is_cast_off());
    }

    #[test]
    fn before_it_is_accepted_nobody_counts_on_it() {
        let (pool, standing) = standing();
        count_on(&pool, 0);
        assert!(standing.holds(&pool, AWAY_NS) && standing.holds(&pool, 5 * AWAY_NS));
    }

    #[test]
    fn nothing_lands_between_two_batches_of_a_burst_either() {
        let mut rig = LandRig::new(256, false);
        rig.env().pool.count_on(rig.env().me, rig.env().incarnation);
        rig.env().standing.begin();
        rig.burst(3);
        rig.env().pool.count_on(rig.env().me, 0);
        rig.env().standing.look_again();
        assert_eq!(rig.land_one(), Err(NotLanded::Later(Wait::Segment)));
        assert!(rig.env().standing.is_cast_off());
    }

    #[test]
    fn each_thread_looks_for_itself_and_what_one_finds_both_know() {
        let (pool, standing) = standing();
        let other = standing.share();
        standing.begin();
        assert!(standing.holds(&pool, AWAY_NS) && other.holds(&pool, AWAY_NS));
        count_on(&pool, 0);
        assert!(!other.look(&pool, AWAY_NS + 1));
        assert!(standing.is_cast_off() && !standing.look(&pool, AWAY_NS + 2));
    }
}
