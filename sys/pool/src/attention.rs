//! How long a process has listened.

use landfall_layout::limits::AWAY_NS;

/// Counts time that this process was there to hear of what happens.
///
/// Whoever has a lease and is not heard of is given up when it ends. A process that was stopped,
/// or whose host was suspended, heard of nobody meanwhile: of a longer time between two looks no
/// more than `AWAY_NS` counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attention {
    heard_ns: u64,
    looked_ns: u64,
}

impl Attention {
    /// Takes a look at everything, at a boot time: nanoseconds listened so far.
    pub fn look(&mut self, now_ns: u64) -> u64 {
        *self = Self { heard_ns: self.at(now_ns), looked_ns: now_ns };
        self.heard_ns
    }

    /// Nanoseconds listened until that boot time, if it looks then.
    pub fn at(&self, now_ns: u64) -> u64 {
        self.heard_ns + now_ns.saturating_sub(self.looked_ns).min(AWAY_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_it_was_away_does_not_count() {
        let mut attention = Attention::default();
        let start = attention.look(900 * AWAY_NS);
        assert_eq!(attention.at(900 * AWAY_NS + 7), start + 7);
        assert_eq!(attention.look(900 * AWAY_NS + 7), start + 7);
        assert_eq!(attention.look(950 * AWAY_NS), start + 7 + AWAY_NS);
        assert_eq!(attention.look(949 * AWAY_NS), start + 7 + AWAY_NS, "it never goes back");
    }
}
