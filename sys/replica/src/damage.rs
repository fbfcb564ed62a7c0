//! Bytes of a file that do not hold.

use std::fmt;
use std::ops::Range;

use landfall_layout::replica::{Place, RecordError};

/// Bytes of a file in which no record holds: up to the next that does, or to the file's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The first.
    pub at: u64,
    /// How many.
    pub bytes: u64,
    /// What is wrong at the first.
    pub why: RecordError,
    /// The place behind the last record that holds before them, which is this one.
    pub before: Place,
    /// The place of the next record that holds; none: nothing behind them does, in this file.
    pub behind: Option<Place>,
}

impl Damage {
    /// Batches and holes that were in these bytes; none where no record behind them says.
    pub fn entries(&self) -> Option<u64> {
        Some(self.behind?.ordinal - self.before.ordinal)
    }

    /// Log indexes that those are among; nothing where only frontier records are damaged, or where
    /// no record behind them says.
    pub fn indexes(&self) -> Range<u64> {
        match self.behind {
            Some(behind) if behind.ordinal > self.before.ordinal => self.before.index..behind.index,
            _ => self.before.index..self.before.index,
        }
    }

    /// Whether it may be an end that a crash left: the system had not written all of it. A record
    /// that is there in its whole length and does not hold was spoilt later.
    pub fn is_unfinished(&self) -> bool {
        let is_zero = matches!(self.why, RecordError::Magic { found: 0 });
        self.behind.is_none() && (is_zero || matches!(self.why, RecordError::Short { .. }))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, bytes, why, .. } = self;
        match self.entries() {
            None => write!(f, "the last {bytes} bytes, from byte {at} on, do not hold: {why}"),
            Some(0) => {
                write!(f, "{bytes} bytes at byte {at} do not hold: {why}; no batch was there")
            }
            Some(entries) => {
                let Range { start, end } = self.indexes();
                write!(f, "{bytes} bytes at byte {at} do not hold: {why}; ")?;
                write!(f, "{entries} entries between log indexes {start} and {end} were there")
            }
        }
    }
}
