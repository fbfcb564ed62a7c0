//! Waiting when there is nothing to do.

use std::time::Duration;

/// How a broker waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idle {
    /// Never sleeps: a core of its own.
    Spin,
    /// Spins, yields, then sleeps until it is woken: small machines.
    Backoff,
}

/// What to do after a turn that found nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    Spin,
    Yield,
    Park,
}

/// Empty turns before yielding, and before sleeping.
const SPINS: u32 = 64;
const YIELDS: u32 = 192;
/// Longest sleep: what nobody rings for is found this late.
pub const PARK_LONGEST: Duration = Duration::from_millis(4);

/// Counts empty turns.
#[derive(Debug)]
pub struct Backoff {
    idle: Idle,
    empty: u32,
}

impl Backoff {
    pub fn new(idle: Idle) -> Self {
        Self { idle, empty: 0 }
    }

    /// A turn found work.
    pub fn busy(&mut self) {
        self.empty = 0;
    }

    /// A turn found nothing.
    pub fn rest(&mut self) -> Rest {
        if self.idle == Idle::Spin {
            return Rest::Spin;
        }
        self.empty = self.empty.saturating_add(1);
        match self.empty {
            0..SPINS => Rest::Spin,
            SPINS..YIELDS => Rest::Yield,
            _ => Rest::Park,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spinning_broker_never_parks() {
        let mut backoff = Backoff::new(Idle::Spin);
        assert!((0..10_000).all(|_| backoff.rest() == Rest::Spin));
    }

    #[test]
    fn an_idle_broker_spins_then_yields_then_parks_and_work_begins_it_again() {
        let mut backoff = Backoff::new(Idle::Backoff);
        let rests: Vec<Rest> = (0..400).map(|_| backoff.rest()).collect();
        assert_eq!(rests[0], Rest::Spin);
        assert_eq!(rests[100], Rest::Yield);
        assert_eq!(rests[399], Rest::Park);
        backoff.busy();
        assert_eq!(backoff.rest(), Rest::Spin);
    }
}
