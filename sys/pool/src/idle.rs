//! How a loop waits: eagerly at first, then so that others can run, then asleep.

use std::fmt;
use std::str::FromStr;
use std::thread::available_parallelism;

/// How to wait for work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Idle {
    /// Never sleeps: for a core of its own.
    Spin,
    /// Looks again, lets others run, then sleeps until it is woken.
    #[default]
    Backoff,
}

impl FromStr for Idle {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "spin" => Ok(Self::Spin),
            "backoff" => Ok(Self::Backoff),
            _ => Err(format!("{word:?} is no way to wait; say spin or backoff")),
        }
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spin => "spin",
            Self::Backoff => "backoff",
        })
    }
}

/// What to do after a look that found nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Look again at once.
    Spin,
    /// Let another thread run, then look again.
    Yield,
    /// Sleep until something happens.
    Park,
}

/// A publisher, a broker, the sequencer and a subscriber make four loops on the path of a batch.
/// With no more cores than that, a loop that never gives its core away keeps it from the one that
/// it waits for, for whole time slices.
const CROWDED_CORES: usize = 4;
/// Looks before yielding. Some microseconds: an answer from another core comes within them.
const SPINS: u32 = 200;
/// The same for a spinner on a crowded machine.
const SPINS_CROWDED: u32 = 4;
/// Looks with a yield between them before sleeping. Few: a thread that is woken is let in sooner
/// than one that yielded to somebody with much to do.
const YIELDS: u32 = 50;

/// The course of one wait.
#[derive(Debug)]
pub struct Waiter {
    idle: Idle,
    looks: u32,
    spins: u32,
    yields: u32,
}

impl Waiter {
    /// A waiter for this machine.
    pub fn new(idle: Idle) -> Self {
        let crowded = available_parallelism().is_ok_and(|cores| cores.get() <= CROWDED_CORES);
        Self::on(idle, crowded)
    }

    fn on(idle: Idle, crowded: bool) -> Self {
        let (spins, yields) = match (idle, crowded) {
            (Idle::Spin, false) => (u32::MAX, 0),
            (Idle::Spin, true) => (SPINS_CROWDED, u32::MAX),
            (Idle::Backoff, _) => (SPINS, YIELDS),
        };
        Self { idle, looks: 0, spins, yields }
    }

    /// Something happened: wait eagerly again.
    pub fn reset(&mut self) {
        self.looks = 0;
    }

    /// What to do now.
    pub fn step(&mut self) -> Step {
        if self.looks < self.spins {
            self.looks = self.looks.saturating_add(1);
            Step::Spin
        } else if self.yields == u32::MAX || self.looks - self.spins < self.yields {
            self.looks = self.looks.saturating_add(1);
            Step::Yield
        } else if self.idle == Idle::Spin {
            Step::Spin
        } else {
            Step::Park
        }
    }

    /// Spins or yields; true when the time has come to sleep instead, which is the caller's.
    #[must_use = "true means that the caller should sleep"]
    pub fn rest(&mut self) -> bool {
        match self.step() {
            Step::Spin => std::hint::spin_loop(),
            Step::Yield => std::thread::yield_now(),
            Step::Park => return true,
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(waiter: &mut Waiter, looks: usize) -> Vec<Step> {
        (0..looks).map(|_| waiter.step()).collect()
    }

    #[test]
    fn backing_off_spins_then_yields_then_sleeps_and_a_find_begins_it_again() {
        for crowded in [false, true] {
            let mut waiter = Waiter::on(Idle::Backoff, crowded);
            let seen = steps(&mut waiter, 400);
            assert!(seen.is_sorted_by_key(|step| *step as u8), "crowded {crowded}");
            assert!(seen.contains(&Step::Yield));
            assert_eq!((seen[0], seen[399]), (Step::Spin, Step::Park));
            waiter.reset();
            assert_eq!(waiter.step(), Step::Spin);
        }
    }

    #[test]
    fn a_spinner_never_sleeps_and_yields_where_cores_are_few() {
        let alone = steps(&mut Waiter::on(Idle::Spin, false), 10_000);
        assert!(alone.iter().all(|step| *step == Step::Spin));
        let crowded = steps(&mut Waiter::on(Idle::Spin, true), 10_000);
        assert!(crowded.iter().all(|step| *step != Step::Park));
        assert_eq!(crowded[9_999], Step::Yield);
    }

    #[test]
    fn the_words_are_those_of_the_flag() {
        for idle in [Idle::Spin, Idle::Backoff] {
            assert_eq!(idle.to_string().parse(), Ok(idle));
        }
        assert!("fast".parse::<Idle>().unwrap_err().contains("spin or backoff"));
    }
}
