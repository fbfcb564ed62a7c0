//! A pool that has no segment for batches, in numbers and words.

use std::fmt;

/// Segments of a pool of so many that batches do not get: order logs and rings need them, without
/// which nothing goes on.
pub fn kept_back(segments: u32) -> u32 {
    (segments / 16).clamp(1, 4)
}

/// Segments of a pool of so many that order logs and rings may have when another one begins: one
/// that has no room for batches is of no use. Each has a segment for batches to go with it, and one
/// more than what is kept back stays free, so that no message goes for that.
pub fn logs_may_have(segments: u32) -> u32 {
    segments.saturating_sub(kept_back(segments) + 1) / 2
}

/// A pool in which no other order log or ring may begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogsFull {
    /// Segments that order logs and rings have.
    pub used: u32,
    /// Segments in all.
    pub of: u32,
}

impl fmt::Display for LogsFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { used, of } = *self;
        write!(
            f,
            "order logs and rings have {used} of {of} segments, and may have {}",
            logs_may_have(of)
        )
    }
}

/// A full pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full {
    /// Segments free.
    pub free: u32,
    /// Segments in all.
    pub of: u32,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { free, of } = self;
        if *free == 0 {
            return write!(f, "the pool is full (0 of {of} segments free)");
        }
        write!(
            f,
            "the pool is full for batches ({free} of {of} segments free, and {} are kept back for \
             order logs and rings)",
            kept_back(*of)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_segments_of_a_full_pool_are_said_to_be_kept_back() {
        assert_eq!([8, 31, 48, 1000].map(kept_back), [1, 1, 3, 4]);
        let text = Full { free: 4, of: 125 }.to_string();
        assert!(text.contains("4 of 125 segments free, and 4 are kept back"), "{text}");
        assert!(text.contains("for order logs and rings"), "{text}");
        let text = Full { free: 0, of: 125 }.to_string();
        assert_eq!(text, "the pool is full (0 of 125 segments free)");
    }
}
