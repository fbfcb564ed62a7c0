//! Histories: what clients sent, what they were promised, what they read, and whether that fits.
//!
//! Each client notes what it does in a file of its own, one line an event, before or after the
//! event as it has to be: a message *before* it is sent, a receipt and a batch *after* they came.
//! So a client that is killed has never read or been promised what its file does not say, but for
//! the last event. The [check](check::check) takes the files of one topic together; time is linear
//! in the events.
//!
//! | module | what |
//! |---|---|
//! | [`file`](mod@file) | histories in files, a JSON object a line |
//! | [`check`](mod@check) | the promises, judged |
//! | [`verdict`] | what was found |

pub mod check;
pub mod file;
pub mod verdict;

use landfall::Order;
use serde::{Deserialize, Serialize};

pub use check::check;
pub use verdict::{Report, Violation};

/// A message's name: whose it is, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Name {
    /// The publisher's client id.
    pub client: u64,
    /// Its number among the publisher's messages, from 0.
    pub n: u64,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "message {} of client {}", self.n, self.client)
    }
}

/// What a receipt promised, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// In its broker's log.
    Landed,
    /// In the total order.
    Ordered,
    /// On stable storage.
    Durable,
}

/// A batch as a reader saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BatchRead {
    /// The reader.
    pub reader: u32,
    /// Log it stands in.
    pub log: u8,
    /// Index in that log.
    pub index: u64,
    /// Position of its first message.
    pub position: u64,
    /// Broker that landed it.
    pub broker: u8,
    /// Client id of its publisher.
    pub client: u64,
    /// Session epoch it was sealed under.
    pub epoch: u32,
    /// Its sequence in the session.
    pub seq: u64,
    /// Checksum of its payload.
    pub crc: u32,
    /// Numbers of its messages, by their bytes; `None` for bytes that no publisher of the topic
    /// made under that client id.
    pub numbers: Vec<Option<u64>>,
    /// The first message that says of itself, under its own checksum, that it is another topic's or
    /// another publisher's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stranger: Option<Stranger>,
}

/// Whose a message says that it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Stranger {
    /// The topic's number.
    pub topic: u32,
    /// Its publisher and its number there.
    pub name: Name,
}

/// One thing that happened to a client of a topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A message is about to be sent.
    Sent {
        /// Its name.
        #[serde(flatten)]
        name: Name,
    },
    /// A message has its receipt.
    Acked {
        /// Its name.
        #[serde(flatten)]
        name: Name,
        /// What was promised.
        level: Level,
        /// Log of the position; `None` where the receipt does not tell.
        log: Option<u8>,
        /// Its position, when the receipt says it.
        position: Option<u64>,
    },
    /// A client that breaks the rules: nothing is promised about the order of what it sends, nor
    /// that it stands once.
    Hostile {
        /// Its client id.
        client: u64,
    },
    /// A reader begins.
    Opened {
        /// Its number.
        reader: u32,
        /// First position it was told it will see, where the topic has one sequence.
        start: Option<u64>,
    },
    /// A reader saw a batch.
    Read(BatchRead),
    /// A reader was told of positions that it will not see.
    Gap {
        /// The reader.
        reader: u32,
        /// The log.
        log: u8,
        /// Positions missed.
        missed: u64,
        /// Position that it goes on from.
        resume: u64,
        /// Order `token`: nothing was ever written there.
        #[serde(default)]
        unwritten: bool,
    },
    /// A reader was told of positions that were passed over when a pool was lost: no messages.
    Skipped {
        /// The reader.
        reader: u32,
        /// The log.
        log: u8,
        /// Positions passed over.
        count: u64,
        /// Position that it goes on from.
        resume: u64,
    },
    /// A reader was told that a batch is corrupt, and goes on behind it.
    Corrupt {
        /// The reader.
        reader: u32,
        /// The log.
        log: u8,
        /// Position of its first message.
        position: u64,
    },
    /// A reader that began after the last receipt has seen everything there is.
    Finished {
        /// The reader.
        reader: u32,
    },
    /// The pool was lost, and the topic built anew from its replicas.
    PoolLost,
    /// Positions of messages that were said to be lost with the pool.
    Lost {
        /// The log.
        log: u8,
        /// The first.
        from: u64,
        /// The one behind the last.
        to: u64,
    },
}

/// What a topic promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promises {
    /// Its order.
    pub order: Order,
    /// A publisher may have had to send again: orders other than `strong` and `stream` may then
    /// show a message more than once.
    pub repeats: bool,
}
