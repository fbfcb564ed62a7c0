//! Waiting: how eagerly, and until when. And the clocks.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// How a caller that has to wait does it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Idle {
    /// Look again and again: the shortest delay, a whole core.
    Spin,
    /// Look again, then let others run, then sleep until woken.
    #[default]
    Backoff,
}

/// What a waiter does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Look again at once.
    Spin,
    /// Let another thread run, then look again.
    Yield,
    /// Sleep until something happens.
    Park,
}

/// Looks before a waiter begins to yield. Some microseconds: an answer of a broker that polls on
/// another core comes within them.
const SPINS: u32 = 200;
/// Looks with a yield in between before a waiter sleeps: on a machine with fewer cores than
/// processes the other side gets its turn, and a sleep and a wake-up are saved.
const YIELDS: u32 = 20;

/// One wait's course.
#[derive(Debug)]
pub(crate) struct Waiter {
    idle: Idle,
    looks: u32,
}

impl Waiter {
    pub(crate) fn new(idle: Idle) -> Self {
        Self { idle, looks: 0 }
    }

    /// Something happened: wait eagerly again.
    pub(crate) fn reset(&mut self) {
        self.looks = 0;
    }

    pub(crate) fn step(&mut self) -> Step {
        self.looks = self.looks.saturating_add(1);
        match self.idle {
            _ if self.looks < SPINS => Step::Spin,
            Idle::Spin => Step::Spin,
            Idle::Backoff if self.looks < SPINS + YIELDS => Step::Yield,
            Idle::Backoff => Step::Park,
        }
    }
}

/// Wall clock, nanoseconds since 1970.
pub(crate) fn wall_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_REALTIME)
}

/// A clock that never jumps, nanoseconds since some moment.
pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// The same clock as of the last timer tick, some milliseconds ago at most: a quarter of the cost.
pub(crate) fn coarse_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC_COARSE)
}

fn nanoseconds(clock: ClockId) -> u64 {
    // These clocks exist on every Linux that this runs on; a clock that fails stands still.
    clock_gettime(clock)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// A wait that ends when nothing moved for `timeout`.
#[derive(Debug)]
pub(crate) struct Patience {
    timeout: Duration,
    since: Instant,
}

impl Patience {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, since: Instant::now() }
    }

    pub(crate) fn progress(&mut self) {
        self.since = Instant::now();
    }

    pub(crate) fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    pub(crate) fn left(&self) -> Duration {
        self.timeout.saturating_sub(self.since.elapsed())
    }
}

/// Delays between attempts to reconnect: doubling from 10 ms to 1 s, each cut at random to between
/// half and all of it, so that clients of one dead broker do not come back in step.
#[derive(Debug)]
pub(crate) struct Reconnects {
    attempts: u32,
    random: u64,
}

impl Reconnects {
    pub(crate) fn new(seed: u64) -> Self {
        Self { attempts: 0, random: seed | 1 }
    }

    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(crate) fn next_delay(&mut self) -> Duration {
        let whole_ms = (10u64 << self.attempts.min(7)).min(1000);
        self.attempts = self.attempts.saturating_add(1);
        // xorshift64 (Marsaglia 2003): any spread will do here.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        Duration::from_millis(whole_ms / 2 + self.random % (whole_ms / 2 + 1))
    }
}

/// A random number that is not 0, for client ids.
pub(crate) fn random_id() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The standard library seeds each RandomState from the system's random source.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(wall_ns());
    hasher.write_u32(std::process::id());
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_that_backs_off_sleeps_in_the_end_and_one_that_spins_never() {
        let mut waiter = Waiter::new(Idle::Backoff);
        let steps: Vec<_> = (0..SPINS + YIELDS).map(|_| waiter.step()).collect();
        assert_eq!(steps[0], Step::Spin);
        assert_eq!(steps[SPINS as usize], Step::Yield);
        assert_eq!(steps.last(), Some(&Step::Park));
        waiter.reset();
        assert_eq!(waiter.step(), Step::Spin);
        let mut spinner = Waiter::new(Idle::Spin);
        assert!((0..10_000).all(|_| spinner.step() == Step::Spin));
    }

    #[test]
    fn delays_grow_to_a_second_and_differ() {
        let mut reconnects = Reconnects::new(7);
        let delays: Vec<_> = (0..20).map(|_| reconnects.next_delay().as_millis()).collect();
        assert!((5..=10).contains(&delays[0]));
        assert!(delays.iter().all(|delay| (5..=1000).contains(delay)));
        assert!(delays[10..].iter().all(|delay| *delay >= 500));
        assert!(delays[10..].windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn ids_are_not_zero_and_differ() {
        let (one, two) = (random_id(), random_id());
        assert!(one != 0 && two != 0 && one != two);
    }
}
