//! A place to go on from, which outlives the process that read up to it.

use std::fmt;
use std::str::FromStr;

use landfall_layout::frame::LogPlace;
use landfall_layout::limits::{LOGS_PER_TOPIC, SEQUENCED_LOG};

use super::places::Places;
use crate::Start;

/// First word of a mark as a text, with the version of what follows.
const MAGIC: &str = "landfall-mark-1";

/// Where a subscriber is in a topic, and in which: [`Subscriber::mark`](super::Subscriber::mark)
/// gives it, and [`SubscriberBuilder::resume`](super::SubscriberBuilder::resume) goes on there. A
/// topic that was deleted and made anew has positions of its own, and a mark of the one before is
/// refused there, as [`MadeAgain`](crate::Error::MadeAgain).
///
/// It is stored as a text, without spaces, which reads back as the same mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// When the topic was made: what tells it from another one of its name.
    pub(super) created_ns: u64,
    /// Where the subscription began, for logs that nothing was seen of.
    pub(super) from: Start,
    /// Next position of the topic's one sequence, where it has one.
    pub(super) position: Option<u64>,
    /// Where it is in each log, for orders `none` and `broker`.
    pub(super) logs: Vec<LogPlace>,
}

impl Mark {
    /// Position of the next message; `None` for orders `none` and `broker`, where each log has its
    /// own.
    pub fn position(&self) -> Option<u64> {
        self.position
    }

    /// The same topic at another position, as of a message inside of a batch. A mark of orders
    /// `none` and `broker` stays as it is.
    pub fn at(mut self, position: u64) -> Self {
        self.position = self.position.map(|_| position);
        self
    }

    /// Where a subscriber is that goes on from it.
    pub(super) fn places(&self) -> Places {
        let mut places = Places::new();
        for LogPlace { log, next, position } in &self.logs {
            places.go_back(*log, *next, *position);
        }
        if let Some(position) = self.position {
            places.resumed(SEQUENCED_LOG as u8, position);
        }
        places
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MAGIC}:{}:", self.created_ns)?;
        match (self.position, self.from) {
            (Some(position), _) => return write!(f, "at={position}"),
            (None, Start::Earliest) => f.write_str("earliest")?,
            (None, Start::Latest) => f.write_str("latest")?,
            (None, Start::Position(position)) => write!(f, "from={position}")?,
            (None, Start::Time(ns)) => write!(f, "time={ns}")?,
        }
        for LogPlace { log, next, position } in &self.logs {
            write!(f, ":{log}={next}@{position}")?;
        }
        Ok(())
    }
}

/// A text that is no mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoMark(pub String);

impl fmt::Display for NoMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no mark of a subscriber; one begins with {MAGIC}", self.0)
    }
}

impl std::error::Error for NoMark {}

impl FromStr for Mark {
    type Err = NoMark;

    fn from_str(text: &str) -> Result<Self, NoMark> {
        read(text.trim()).ok_or_else(|| NoMark(text.to_owned()))
    }
}

fn read(text: &str) -> Option<Mark> {
    let mut parts = text.split(':');
    if parts.next()? != MAGIC {
        return None;
    }
    let created_ns = parts.next()?.parse().ok()?;
    let place = parts.next()?;
    let (from, position) = match place.split_once('=') {
        Some(("at", position)) => (Start::Earliest, Some(position.parse().ok()?)),
        Some(("from", position)) => (Start::Position(position.parse().ok()?), None),
        Some(("time", ns)) => (Start::Time(ns.parse().ok()?), None),
        None if place == "earliest" => (Start::Earliest, None),
        None if place == "latest" => (Start::Latest, None),
        _ => return None,
    };
    let logs = parts.map(log).collect::<Option<Vec<_>>>()?;
    Some(Mark { created_ns, from, position, logs })
}

fn log(text: &str) -> Option<LogPlace> {
    let (log, place) = text.split_once('=')?;
    let (next, position) = place.split_once('@')?;
    let log: u8 = log.parse().ok().filter(|log| usize::from(*log) < LOGS_PER_TOPIC)?;
    Some(LogPlace { log, next: next.parse().ok()?, position: position.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_as_the_same() {
        let logs = vec![
            LogPlace { log: 0, next: 7, position: 70 },
            LogPlace { log: 31, next: 0, position: 0 },
        ];
        for (from, position, logs) in [
            (Start::Earliest, Some(42), vec![]),
            (Start::Earliest, None, logs.clone()),
            (Start::Latest, None, logs.clone()),
            (Start::Position(9), None, vec![]),
            (Start::Time(u64::MAX), None, logs),
        ] {
            let mark = Mark { created_ns: 1_796_035_838_978_010_890, from, position, logs };
            assert_eq!(mark.to_string().parse(), Ok(mark.clone()), "{mark}");
        }
        let text = "landfall-mark-1:5:at=42";
        let mark: Mark = text.parse().unwrap();
        assert_eq!((mark.position(), mark.clone().at(40).position()), (Some(42), Some(40)));
        assert_eq!(mark.to_string(), text);
    }

    #[test]
    fn what_is_no_mark_is_refused() {
        for text in [
            "",
            "42",
            "landfall-mark-2:5:at=42",
            "landfall-mark-1:5",
            "landfall-mark-1:x:at=42",
            "landfall-mark-1:5:at=",
            "landfall-mark-1:5:earliest:33=1@1",
            "landfall-mark-1:5:earliest:1=1",
        ] {
            assert_eq!(text.parse::<Mark>(), Err(NoMark(text.to_owned())));
        }
    }
}
