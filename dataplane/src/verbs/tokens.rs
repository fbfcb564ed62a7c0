//! Tokens: what control told this broker to expect of clients over verbs.

use std::collections::VecDeque;
use std::fmt;

use landfall_layout::TopicId;
use landfall_layout::limits::TOKENS_MAX;

/// Tokens issued and not shown yet, the oldest first.
#[derive(Debug, Default)]
pub struct Tokens(VecDeque<Expected>);

#[derive(Clone, Copy, Debug)]
struct Expected {
    token: u128,
    topic: TopicId,
    until_ns: u64,
}

/// Why a token opens nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadToken {
    /// Never issued for this broker, or shown before: it opens one connection.
    Unknown,
    /// It came too late.
    Late {
        /// Milliseconds past its time.
        by_ms: u64,
    },
    /// It was issued for another topic.
    Topic {
        /// That topic.
        issued: TopicId,
    },
}

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the token is unknown or was used; ask control anew"),
            Self::Late { by_ms } => write!(f, "the token is {by_ms} ms too late; ask control anew"),
            Self::Topic { issued } => write!(f, "the token is for topic id {:#x}", issued.0),
        }
    }
}

impl Tokens {
    /// Takes note of a token; the oldest goes when there are too many.
    pub fn expect(&mut self, token: u128, topic: TopicId, until_ns: u64) {
        if self.0.len() >= TOKENS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Expected { token, topic, until_ns });
    }

    /// Uses a token up, whatever becomes of it.
    ///
    /// # Errors
    ///
    /// Why it opens nothing.
    pub fn spend(&mut self, token: u128, topic: TopicId, now_ns: u64) -> Result<(), BadToken> {
        let at = self.0.iter().position(|expected| expected.token == token);
        let expected = at.and_then(|at| self.0.remove(at)).ok_or(BadToken::Unknown)?;
        if expected.until_ns < now_ns {
            return Err(BadToken::Late { by_ms: (now_ns - expected.until_ns) / 1_000_000 });
        }
        if expected.topic != topic {
            return Err(BadToken::Topic { issued: expected.topic });
        }
        Ok(())
    }

    /// Forgets tokens whose time is over.
    pub fn tidy(&mut self, now_ns: u64) {
        // A late token is kept for as long again, to be told from one that never was.
        let kept = landfall_layout::limits::TOKEN_LEASE_NS;
        while self.0.front().is_some_and(|first| first.until_ns.saturating_add(kept) < now_ns) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = TopicId(0x101);

    #[test]
    fn a_token_opens_one_connection() {
        let mut tokens = Tokens::default();
        tokens.expect(7, TOPIC, 100);
        assert_eq!(tokens.spend(8, TOPIC, 1), Err(BadToken::Unknown));
        assert_eq!(tokens.spend(7, TOPIC, 100), Ok(()));
        assert_eq!(tokens.spend(7, TOPIC, 1), Err(BadToken::Unknown), "shown again");
    }

    #[test]
    fn a_token_for_another_topic_or_too_late_is_used_up_too() {
        let mut tokens = Tokens::default();
        tokens.expect(7, TOPIC, 100);
        tokens.expect(8, TOPIC, 100);
        let bad = BadToken::Topic { issued: TOPIC };
        assert_eq!(tokens.spend(7, TopicId(0x102), 1), Err(bad));
        assert_eq!(tokens.spend(7, TOPIC, 1), Err(BadToken::Unknown));
        let late = BadToken::Late { by_ms: 2 };
        assert_eq!(tokens.spend(8, TOPIC, 2_000_100), Err(late));
    }

    #[test]
    fn old_tokens_are_forgotten_and_there_is_a_bound() {
        let mut tokens = Tokens::default();
        for token in 0..TOKENS_MAX as u128 + 1 {
            tokens.expect(token, TOPIC, 100);
        }
        assert_eq!(tokens.spend(0, TOPIC, 1), Err(BadToken::Unknown), "the oldest made room");
        assert_eq!(tokens.spend(1, TOPIC, 1), Ok(()));
        tokens.tidy(100 + landfall_layout::limits::TOKEN_LEASE_NS + 1);
        assert_eq!(tokens.spend(2, TOPIC, 1), Err(BadToken::Unknown));
    }
}
