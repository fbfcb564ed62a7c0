//! How the sequencer waits.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Empty turns before the thread begins to give its core away.
const SPINS: u32 = 200;
/// Empty turns after which it sleeps.
const YIELDS: u32 = SPINS + 50;
/// Longest sleep. Whoever has work rings; this only bounds what a lost ring would cost.
pub(super) const SLEEP: Duration = Duration::from_millis(10);

/// How to wait for work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Idle {
    /// Never sleep: for a core of its own.
    Spin,
    /// Spin, then yield, then sleep.
    #[default]
    Backoff,
}

/// What to do after an empty turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Spin,
    Yield,
    Park,
}

impl Idle {
    /// What to do after `empty` turns without work in a row.
    pub(super) fn step(self, empty: u32) -> Step {
        match self {
            Self::Spin => Step::Spin,
            Self::Backoff if empty <= SPINS => Step::Spin,
            Self::Backoff if empty <= YIELDS => Step::Yield,
            Self::Backoff => Step::Park,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backing_off_spins_then_yields_then_sleeps() {
        let steps: Vec<Step> = (1..400).map(|empty| Idle::Backoff.step(empty)).collect();
        assert!(steps.is_sorted_by_key(|step| *step as u8));
        assert_eq!((steps[0], steps[398]), (Step::Spin, Step::Park));
        assert_eq!(Idle::Spin.step(u32::MAX), Step::Spin);
    }

    #[test]
    fn the_words_are_those_of_the_flag() {
        for idle in [Idle::Spin, Idle::Backoff] {
            assert_eq!(idle.to_string().parse(), Ok(idle));
        }
        assert!("fast".parse::<Idle>().unwrap_err().contains("spin or backoff"));
    }
}
