//! Whether a broker of which nothing is heard is there.
//!
//! A broker says something at least every second, on a socket and over verbs, and its heartbeat
//! moves where its line in the pool can be read. A client that waits and hears nothing for longer
//! asks control. It leaves for another broker only when control too says that this one does not
//! serve: its host may have stopped it, and then nobody knows for how long.

use std::io;
use std::time::Duration;

use landfall_layout::BrokerId;
use landfall_layout::limits::BROKER_SILENT_NS;
use landfall_pool::Pool;

use crate::error::Error;

/// Time between two questions to control about the same silence.
const ASK_EVERY_NS: u64 = 500_000_000;
/// The same, after one that control did not answer: that took the client's time.
const ASK_AGAIN_NS: u64 = 3_000_000_000;

/// What is being done when a broker is given up that does not answer: it would answer by no other
/// way either.
pub(crate) const WAITING: &str = "waiting for it";

/// What control says of a broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Finding {
    /// It serves: what it says may be on the way.
    Serves,
    /// It does not. `stays`: why there is no other to go to.
    Gone { state: String, beat_ms: Option<u64>, stays: Option<&'static str> },
    /// Control does not answer either.
    Unknown { why: String },
}

impl Finding {
    /// Whether control says that all is well.
    pub(crate) fn serves(&self) -> bool {
        matches!(self, Self::Serves)
    }

    /// Whether the client is to go to another broker.
    pub(crate) fn leaves(&self) -> bool {
        matches!(self, Self::Gone { stays: None, .. })
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Serves => f.write_str("control calls it serving"),
            Self::Gone { state, beat_ms, stays } => {
                write!(f, "control calls it {state}, ")?;
                match beat_ms {
                    Some(ms) => write!(f, "its last heartbeat was {ms} ms ago")?,
                    None => f.write_str("and has seen no heartbeat of it")?,
                }
                stays.map_or(Ok(()), |why| write!(f, ", and {why}"))
            }
            Self::Unknown { why } => write!(f, "control does not answer either: {why}"),
        }
    }
}

/// A broker that does not answer, as the loss of the connection to it.
pub(crate) fn lost(broker: u8, silent: Duration, finding: &Finding) -> Error {
    let text = format!("it said nothing for {} ms, and {finding}", silent.as_millis());
    let source = io::Error::new(io::ErrorKind::TimedOut, text);
    Error::Connection { broker, doing: WAITING, source }
}

/// How long nothing was heard, counted from a look that found nothing: what came while nobody
/// looked is found by the next look.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    since_ns: Option<u64>,
    ask_ns: u64,
    /// When the user was last told.
    told_ns: u64,
    finding: Option<Finding>,
}

impl Silence {
    /// Something was heard.
    pub(crate) fn heard(&mut self) {
        self.since_ns = None;
    }

    /// A look found nothing. Whether it is time to ask control.
    pub(crate) fn nothing(&mut self, now_ns: u64) -> bool {
        if self.since_ns.is_none() {
            *self = Self {
                since_ns: Some(now_ns),
                ask_ns: now_ns + BROKER_SILENT_NS,
                told_ns: now_ns,
                finding: None,
            };
        }
        now_ns >= self.ask_ns
    }

    /// Control was asked.
    pub(crate) fn found(&mut self, finding: Finding, now_ns: u64) {
        let pause = match finding {
            Finding::Unknown { .. } => ASK_AGAIN_NS,
            Finding::Serves | Finding::Gone { .. } => ASK_EVERY_NS,
        };
        self.ask_ns = now_ns + pause;
        self.finding = Some(finding);
    }

    /// How long it has lasted, and what control said; `None`: it has not lasted long.
    pub(crate) fn doubt(&self, now_ns: u64) -> Option<(Duration, &Finding)> {
        let lasted = now_ns.saturating_sub(self.since_ns?);
        Some((Duration::from_nanos(lasted), self.finding.as_ref()?))
    }

    /// Whether the user is to be told, which is so once in each `every`.
    pub(crate) fn is_to_be_told(&mut self, now_ns: u64, every: Duration) -> bool {
        let is_due = u128::from(now_ns.saturating_sub(self.told_ns)) >= every.as_nanos();
        if is_due {
            self.told_ns = now_ns;
        }
        is_due
    }
}

/// A broker's heartbeat, read where its line in the pool can be.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    broker: Option<BrokerId>,
    seen: u64,
}

impl Heartbeat {
    pub(crate) fn of(broker: u8) -> Self {
        Self { broker: BrokerId::new(broker.into()), seen: 0 }
    }

    /// Whether it has moved since the last look.
    pub(crate) fn has_moved(&mut self, pool: &Pool) -> bool {
        let now = self.broker.map_or(0, |broker| pool.broker(broker).heartbeat_ns);
        std::mem::replace(&mut self.seen, now) != now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn gone(stays: Option<&'static str>) -> Finding {
        Finding::Gone { state: "frozen".into(), beat_ms: Some(3100), stays }
    }

    #[test]
    fn a_heartbeat_that_nobody_saw_has_no_age() {
        let text = gone(None).to_string();
        assert!(text.contains("its last heartbeat was 3100 ms ago"), "{text}");
        let unseen = Finding::Gone { state: "dead".into(), beat_ms: None, stays: None };
        assert_eq!(unseen.to_string(), "control calls it dead, and has seen no heartbeat of it");
    }

    #[test]
    fn control_is_asked_after_a_silence_that_somebody_listened_to() {
        let mut silence = Silence::default();
        assert!(!silence.nothing(100 * MS));
        assert!(!silence.nothing(2099 * MS));
        assert!(silence.nothing(2100 * MS));
        // It spoke while nobody looked: the count begins with the next look that finds nothing.
        silence.heard();
        assert!(!silence.nothing(9000 * MS));
        assert!(silence.nothing(11_000 * MS));
        silence.found(Finding::Serves, 11_000 * MS);
        assert!(!silence.nothing(11_400 * MS));
        assert!(silence.nothing(11_500 * MS));
        silence.found(Finding::Unknown { why: "no".into() }, 11_500 * MS);
        assert!(!silence.nothing(14_400 * MS) && silence.nothing(14_500 * MS));
        let (lasted, finding) = silence.doubt(14_500 * MS).unwrap();
        assert_eq!(lasted, Duration::from_millis(5500));
        assert!(!finding.leaves());
    }

    #[test]
    fn only_a_broker_that_control_gave_up_is_left_and_only_for_another() {
        assert!(gone(None).leaves());
        assert!(!gone(Some("this client is pinned to it")).leaves());
        assert!(!Finding::Serves.leaves());
        assert!(!Finding::Unknown { why: String::new() }.leaves());
        let text = lost(3, Duration::from_millis(3200), &gone(None)).to_string();
        for part in ["broker 3", "3200 ms", "frozen", "3100 ms"] {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
    }

    #[test]
    fn a_user_is_told_once_in_a_while() {
        let mut silence = Silence::default();
        silence.nothing(0);
        let every = Duration::from_millis(10);
        assert!(!silence.is_to_be_told(9 * MS, every));
        assert!(silence.is_to_be_told(10 * MS, every));
        assert!(!silence.is_to_be_told(19 * MS, every));
        assert!(silence.is_to_be_told(20 * MS, every));
    }
}
