//! What a check of a history found.

use std::collections::BTreeSet;
use std::fmt;

use super::{Level, Name, Stranger};

/// Violations that are kept; more are only counted.
pub const VIOLATIONS_KEPT: usize = 100;
/// Violations that a report shows.
const VIOLATIONS_SHOWN: usize = 12;

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A message that nobody sent.
    NotSent {
        /// Who read it.
        reader: u32,
        /// Where.
        at: At,
        /// The message.
        name: Name,
    },
    /// Bytes that no publisher makes.
    Foreign {
        /// Who read them.
        reader: u32,
        /// Where.
        at: At,
        /// Client id of the batch.
        client: u64,
    },
    /// A message of another topic, or of another publisher than its batch's.
    Strange {
        /// Who read it.
        reader: u32,
        /// Where.
        at: At,
        /// Client id of the batch.
        client: u64,
        /// Whose it says that it is.
        whose: Stranger,
    },
    /// A reader saw and was told to have missed more messages than there can have been.
    Invented {
        /// The reader.
        reader: u32,
        /// Messages that it saw.
        seen: u64,
        /// Messages that it was told of.
        missed: u64,
        /// Messages that there can have been.
        most: u64,
    },
    /// Two messages were shown in one place.
    Changed {
        /// Where.
        at: At,
        /// Who saw the first, and what it was.
        first: (u32, Name),
        /// Who saw the other.
        then: (u32, Name),
    },
    /// A reader's next position is not the one behind its last.
    Hole {
        /// The reader.
        reader: u32,
        /// What it should have seen.
        expected: At,
        /// What it saw.
        saw: u64,
    },
    /// A message stands in two places.
    Twice {
        /// The message.
        name: Name,
        /// The places.
        places: (At, At),
    },
    /// A publisher's messages are out of their order.
    Swapped {
        /// The reader.
        reader: u32,
        /// Where.
        at: At,
        /// The message.
        name: Name,
        /// Number of the message before it.
        after: u64,
    },
    /// A receipt's position holds another message.
    Elsewhere {
        /// The message.
        name: Name,
        /// Where its receipt says it is.
        at: At,
        /// What is there.
        found: Name,
    },
    /// Two receipts say two positions.
    TwoReceipts {
        /// The message.
        name: Name,
        /// The positions.
        positions: (u64, u64),
    },
    /// A reader who saw everything did not see a message that had its receipt.
    Missing {
        /// The reader.
        reader: u32,
        /// The message.
        name: Name,
        /// What its receipt promised.
        level: Level,
        /// The position its receipt says.
        position: Option<u64>,
    },
    /// A message whose receipt said durable was said to be lost.
    DurableLost {
        /// The message.
        name: Name,
        /// Where it was.
        at: At,
    },
    /// A reader was told that nothing was written where something stands, or was promised to.
    Filled {
        /// Who was told.
        reader: u32,
        /// Where.
        at: At,
        /// What is there.
        found: Name,
    },
    /// A reader was told of positions that nothing was written to, and the topic's order has none.
    Unwritten {
        /// Who was told.
        reader: u32,
        /// The first of them.
        at: At,
    },
    /// What the order auditor found in the batches.
    Audit(String),
}

/// A place in a topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct At {
    /// The log.
    pub log: u8,
    /// The position.
    pub position: u64,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "position {} of log {}", self.position, self.log)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent { reader, at, name } => {
                write!(f, "reader {reader} saw {name} at {at}, and it was never sent")
            }
            Self::Foreign { reader, at, client } => write!(
                f,
                "reader {reader} saw bytes at {at}, in a batch of client {client}, that are not \
                 any message's"
            ),
            Self::Strange { reader, at, client, whose } => write!(
                f,
                "reader {reader} saw at {at}, in a batch of client {client}, what says that it is \
                 {} of topic {}",
                whose.name, whose.topic
            ),
            Self::Invented { reader, seen, missed, most } => write!(
                f,
                "reader {reader} saw {seen} messages and was told that it missed {missed}, where \
                 there were {most} at most"
            ),
            Self::Changed { at, first: (reader, name), then: (other, shown) } => {
                write!(f, "{at} showed {name} to reader {reader} and {shown} to reader {other}")
            }
            Self::Hole { reader, expected, saw } => {
                write!(f, "reader {reader} was to see {expected} next and saw position {saw}")
            }
            Self::Twice { name, places: (first, second) } => {
                write!(f, "{name} stands twice: at {first} and at {second}")
            }
            Self::Swapped { reader, at, name, after } => write!(
                f,
                "reader {reader} saw {name} at {at}, behind the same publisher's message {after}"
            ),
            Self::Elsewhere { name, at, found } => {
                write!(f, "the receipt of {name} says {at}, where {found} stands")
            }
            Self::TwoReceipts { name, positions: (first, second) } => {
                write!(f, "{name} has receipts for positions {first} and {second}")
            }
            Self::Missing { reader, name, level, position } => {
                write!(f, "{name} has a receipt ({level:?}")?;
                if let Some(position) = position {
                    write!(f, ", position {position}")?;
                }
                write!(f, ") and reader {reader}, who saw everything, did not see it")
            }
            Self::DurableLost { name, at } => {
                write!(f, "{name} at {at} was durable and is said to be lost")
            }
            Self::Filled { reader, at, found } => write!(
                f,
                "reader {reader} was told that nothing was written at {at}, where {found} stands"
            ),
            Self::Unwritten { reader, at } => write!(
                f,
                "reader {reader} was told that nothing was written from {at} on, in a topic whose \
                 order reserves nothing"
            ),
            Self::Audit(text) => f.write_str(text),
        }
    }
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The first violations.
    pub violations: Vec<Violation>,
    /// Violations in all.
    pub total: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages with a receipt.
    pub acked: u64,
    /// Messages sent, those that a later life of their publisher sent again more than once.
    pub attempts: u64,
    /// Batches that readers were told are corrupt.
    pub corrupt: u64,
    /// Messages that anybody read, each place once.
    pub shown: u64,
    /// Messages that readers were told they missed.
    pub missed: u64,
    /// Positions that nothing was written to, as the reader with the most was told.
    pub unwritten: u64,
    /// Readers.
    pub readers: u64,
    /// Readers that saw everything.
    pub finished: u64,
    /// Brokers that landed what was read.
    pub brokers: BTreeSet<u8>,
}

impl Report {
    /// Whether every promise was kept.
    pub fn is_ok(&self) -> bool {
        self.total == 0
    }

    pub(super) fn add(&mut self, violation: Violation) {
        self.total += 1;
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(violation);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages sent, {} acknowledged, {} shown to {} readers ({} saw everything), {} \
             missed, {} corrupt batches, {} positions unwritten: {} violations",
            self.sent,
            self.acked,
            self.shown,
            self.readers,
            self.finished,
            self.missed,
            self.corrupt,
            self.unwritten,
            self.total
        )?;
        for violation in self.violations.iter().take(VIOLATIONS_SHOWN) {
            write!(f, "\n  {violation}")?;
        }
        Ok(())
    }
}
