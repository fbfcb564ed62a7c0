//! For how long a word has not moved, as this process has seen it itself.

/// One word that somebody moves as long as they live, watched by one clock that does not jump.
///
/// What the word says is no time of ours: another host's clock, or nothing at all. So silence is
/// counted from the first look that found it so, and a first look knows of none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence {
    seen: Option<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    word: u64,
    since_ns: u64,
    has_moved: bool,
}

impl Silence {
    /// Takes a look at the word, at a boot time: for how long it has not moved, nanoseconds.
    pub fn look(&mut self, word: u64, now_ns: u64) -> u64 {
        match self.seen {
            Some(seen) if seen.word == word => now_ns.saturating_sub(seen.since_ns),
            before => {
                self.seen = Some(Seen { word, since_ns: now_ns, has_moved: before.is_some() });
                0
            }
        }
    }

    /// Whether the word was seen to move, and so somebody to live.
    pub fn has_moved(&self) -> bool {
        self.seen.is_some_and(|seen| seen.has_moved)
    }

    /// For how long it had not moved at the last look, counted until now, nanoseconds.
    pub fn age_ns(&self, now_ns: u64) -> u64 {
        self.seen.map_or(0, |seen| now_ns.saturating_sub(seen.since_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_what_was_seen_of_it_whatever_the_word_says() {
        let mut silence = Silence::default();
        assert_eq!(silence.age_ns(900), 0);
        assert_eq!(silence.look(77, 1_000), 0, "a first look knows of none");
        assert_eq!(silence.look(77, 1_400), 400);
        assert!(!silence.has_moved());
        assert_eq!(silence.age_ns(1_500), 500);
        assert_eq!(silence.look(3, 1_600), 0, "any other value is a beat");
        assert_eq!(silence.look(3, 1_601), 1);
        assert!(silence.has_moved());
    }
}
