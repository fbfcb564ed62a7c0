//! Waiting: until when.

use std::time::{Duration, Instant};

use landfall_pool::clock::wall_ns;

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
