//! What can go wrong, one variant for each operation, with the numbers in it.

use std::fmt;
use std::io;
use std::time::Duration;

use landfall_layout::batch::BatchError;
use landfall_layout::frame::{FrameError, Refusal, Stall};
use landfall_layout::full::{Full, LogsFull};
use landfall_layout::held::Held;
use landfall_nic::NicError;
use landfall_pool::map::MapError;
use landfall_pool::pool::PoolError;

/// Why an operation failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An address that cannot be understood.
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody listens there, or nobody answers.
    Unreachable {
        /// Who was sought: `control`, or `broker N`.
        who: String,
        /// Where.
        address: String,
        /// What the system said.
        why: String,
    },
    /// Control answered with an error.
    Control {
        /// Method and path of the request.
        request: String,
        /// HTTP status.
        status: u16,
        /// Its short code.
        code: String,
        /// Its sentence.
        message: String,
    },
    /// Control answered something that is not its protocol.
    Answer {
        /// Method and path of the request.
        request: String,
        /// What was wrong.
        why: String,
    },
    /// A setting that is not possible.
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What was given and what is possible.
        why: String,
    },
    /// No broker could be used.
    NoBroker {
        /// Topic it was wanted for.
        topic: String,
        /// What was found instead, and what each attempt said.
        why: String,
        /// A broker may come, or come back: another try may find it.
        may_pass: bool,
    },
    /// Verbs were asked for and this machine has no RDMA.
    NoRdma {
        /// What is missing.
        why: String,
    },
    /// A call to the NIC failed.
    Verbs {
        /// The broker that the connection was for.
        broker: u8,
        /// The call, the object, the system's answer.
        source: Box<NicError>,
    },
    /// A broker refused the connection or a batch.
    Refused {
        /// The broker.
        broker: u8,
        /// Its reason.
        why: Refusal,
        /// Its sentence.
        sentence: String,
    },
    /// A connection ended or failed.
    Connection {
        /// The broker.
        broker: u8,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A broker sent something that is not the protocol.
    Frame {
        /// The broker.
        broker: u8,
        /// What came.
        source: FrameError,
    },
    /// A broker sent a frame that has no place here.
    Unexpected {
        /// The broker.
        broker: u8,
        /// What came, and what was expected.
        what: String,
    },
    /// The pool that a broker handed over could not be used.
    Pool {
        /// The broker.
        broker: u8,
        /// What is wrong with it.
        source: Box<PoolError>,
    },
    /// The channel that a broker handed over could not be used.
    Channel {
        /// The broker.
        broker: u8,
        /// What is wrong with it.
        source: Box<MapError>,
    },
    /// Nothing moved for too long.
    Timeout {
        /// What was awaited.
        awaited: String,
        /// For how long.
        waited: Duration,
        /// What the broker last said about why nothing moves.
        stalled: Option<Stalled>,
        /// The copy on disk that durable receipts wait for, as a broker last said.
        held: Option<Held>,
    },
    /// Bytes written for a broker that died could not be read back.
    Lost {
        /// Batches lost.
        batches: u64,
        /// Messages in them.
        messages: u64,
        /// First batch sequence that was lost; `None` when it had none yet.
        first_seq: Option<u64>,
        /// Why they could not be read back.
        why: String,
    },
    /// Batches were ordered, and their bytes changed, or the pool was lost, before every replica
    /// had them. The publisher goes on; the error is told once.
    Spoilt {
        /// Batches lost.
        batches: u64,
        /// Messages in them.
        messages: u64,
        /// Sequence of the first of them.
        first_seq: u64,
    },
    /// Batches were sent, and nobody knows any more whether they are in the log: while this
    /// publisher was away, the session's line went to another client, or the pool was lost and what
    /// the disks have of the client id is not its own, or was let go of. They are not sent again.
    Doubtful {
        /// The client id.
        client: u64,
        /// Batches sent without a receipt.
        batches: u64,
        /// Messages in them.
        messages: u64,
        /// Sequence of the first of them.
        first_seq: u64,
        /// Sequence of the last of them.
        last_seq: u64,
    },
    /// Another publisher took this client id.
    Superseded {
        /// The client id.
        client: u64,
        /// Epoch that this publisher had.
        epoch: u32,
        /// Epoch of the session now.
        now: u32,
    },
    /// The publisher failed earlier and takes nothing more.
    Failed {
        /// What happened then.
        why: String,
    },
    /// A message larger than the topic takes.
    TooLarge {
        /// Bytes of header, key, payload and padding, with the batch's preamble.
        bytes: u64,
        /// Most that are possible.
        most: u64,
    },
    /// Receipts were asked for of a publisher that asks for none.
    NoReceipts,
    /// A batch whose bytes are not what its broker landed. A subscriber makes a gap of it, of
    /// reason [`GapReason::Corrupt`](crate::GapReason::Corrupt), once no copy has it either.
    Corrupt {
        /// Log it stands in.
        log: u8,
        /// Index in that log.
        index: u64,
        /// Position of its first message.
        position: u64,
        /// Its messages.
        count: u16,
        /// What is wrong.
        why: Corruption,
    },
    /// There is no such topic.
    NoTopic {
        /// Its name.
        topic: String,
    },
    /// A subscription was to begin at a position that the topic has not come to.
    BeyondEnd {
        /// Its name.
        topic: String,
        /// The position.
        position: u64,
        /// The position of the topic's next message.
        end: u64,
    },
    /// The topic was deleted, or is just being deleted, or went with its pool.
    TopicGone {
        /// Its name.
        topic: String,
        /// The pool is not the one that it was used in: then nobody may have deleted it.
        another_pool: bool,
    },
    /// The topic was deleted, or went with its pool, and made again: one of its name is there, and
    /// it is another one.
    MadeAgain {
        /// Its name.
        topic: String,
        /// Of a publisher: batches without a receipt. None of them is in the topic that is there.
        batches: u64,
        /// Their messages.
        messages: u64,
    },
    /// A process of a local system could not be started or stopped.
    Local {
        /// What happened, to which process.
        what: String,
    },
}

/// What is wrong with a batch's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Corruption {
    /// Its preamble or checksum.
    Batch(BatchError),
    /// Its preamble is another batch's than the log says.
    Mismatch {
        /// Field that differs.
        field: &'static str,
        /// What the log says.
        log: u64,
        /// What the preamble says.
        preamble: u64,
    },
    /// It does not lie inside its segment.
    Outside {
        /// Segment that the log names.
        segment: u32,
        /// Offset in it.
        offset: u32,
        /// Bytes.
        bytes: u32,
    },
}

impl From<BatchError> for Corruption {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(error) => error.fmt(f),
            Self::Mismatch { field, log, preamble } => {
                write!(f, "its {field} is {preamble} and the log says {log}")
            }
            Self::Outside { segment, offset, bytes } => {
                write!(f, "{bytes} bytes at {offset} are not inside segment {segment}")
            }
        }
    }
}

/// What a broker last said about why nothing moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stalled {
    /// Its reason.
    pub why: Stall,
    /// Segments free or that logs have, slots in use, or MiB held.
    pub used: u32,
    /// Segments in all, slots in all, or MiB that may be held.
    pub of: u32,
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { why, used, of } = self;
        match why {
            Stall::RingFull => write!(
                f,
                "the topic's ring is full ({used} of {of} slots in use): the sequencer is behind \
                 or a batch is missing; wait, or give the topic a larger ring"
            ),
            Stall::PoolFull => write!(
                f,
                "{}: a topic made with --keep gives none back, another only what is beyond its \
                 --retention and --retention-bytes and on the disks of its copies, and each keeps \
                 what its brokers fill until nobody has published for 5 s; delete a topic, or make \
                 the pool larger; landfall cluster says whether segments are lost",
                Full { free: *used, of: *of }
            ),
            Stall::LogsFull => write!(
                f,
                "{}: this broker has no log of the topic yet, and begins none; publish through a \
                 broker that has one, delete a topic, or make a pool that is larger or has smaller \
                 segments",
                LogsFull { used: *used, of: *of }
            ),
            Stall::HalvesFull => write!(
                f,
                "batches that others have begun to send hold {used} MiB of the {of} MiB that such \
                 batches may: those that stand still are given up"
            ),
        }
    }
}

impl Error {
    /// A topic that is not there in the one shape that it has for users, whoever said so.
    pub(crate) fn of_topic(self, topic: &str) -> Self {
        let topic = || topic.to_owned();
        match self {
            Self::Refused { why: Refusal::NoTopic, .. } | Self::Control { status: 404, .. } => {
                Self::NoTopic { topic: topic() }
            }
            Self::Refused { why: Refusal::TopicGone, .. } => {
                Self::TopicGone { topic: topic(), another_pool: false }
            }
            other => other,
        }
    }

    /// Whether nobody listens at the address of control or of a broker.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, why } => write!(
                f,
                "{address:?} is no address: {why}; say http://HOST:PORT, HOST:PORT, unix:PATH or \
                 unix:@NAME"
            ),
            Self::Unreachable { who, address, why } => {
                write!(f, "nobody answers for {who} at {address}: {why}; is it running?")
            }
            Self::Control { request, status, code, message } => {
                write!(f, "{request}: {message} ({code}, status {status})")
            }
            Self::Answer { request, why } => {
                write!(f, "{request}: the answer is not control's: {why}")
            }
            Self::Setting { setting, why } => write!(f, "{setting}: {why}"),
            Self::NoBroker { topic, why, .. } => {
                write!(f, "no broker can be used for topic {topic:?}: {why}")
            }
            Self::NoRdma { why } => write!(
                f,
                "{why}; landfall doctor says what stands in the way, and transport tcp needs none"
            ),
            Self::Verbs { broker, source } => write!(f, "verbs to broker {broker}: {source}"),
            Self::Refused { broker, why, sentence } => {
                write!(f, "broker {broker} refused: {sentence} ({why:?})")
            }
            Self::Connection { broker, doing, source } => {
                write!(f, "connection to broker {broker} lost while {doing}: {source}")
            }
            Self::Frame { broker, source } => write!(f, "broker {broker}: {source}"),
            Self::Unexpected { broker, what } => write!(f, "broker {broker}: {what}"),
            Self::Pool { broker, source } => write!(f, "pool of broker {broker}: {source}"),
            Self::Channel { broker, source } => write!(f, "channel of broker {broker}: {source}"),
            Self::Timeout { awaited, waited, stalled, held } => {
                write!(f, "waited {} ms for {awaited}", waited.as_millis())?;
                match (stalled, held) {
                    (Some(stalled), _) => write!(f, ": {stalled}"),
                    (None, Some(held)) => write!(f, ": {held}"),
                    (None, None) => f.write_str(
                        ": nothing came; see whether control and the brokers are alive, or give \
                         it a longer timeout",
                    ),
                }
            }
            Self::Lost { batches, messages, first_seq, why } => {
                write!(f, "{messages} messages in {batches} batches are lost")?;
                if let Some(seq) = first_seq {
                    write!(f, ", from batch sequence {seq} on")?;
                }
                write!(f, ": {why}; publish them again with a new publisher")
            }
            Self::Spoilt { batches, messages, first_seq } => write!(
                f,
                "{messages} messages in {batches} batches, from batch sequence {first_seq} on, are \
                 lost: the pool was lost before every replica had them, while later ones were on \
                 disk, or their bytes changed after they had landed; publish them again, and see \
                 what landfall errors says"
            ),
            Self::Doubtful { client, batches, messages, first_seq, last_seq } => write!(
                f,
                "{messages} messages in {batches} batches, from batch sequence {first_seq} to \
                 {last_seq}, have no receipt, and may be in the log or not: client {client} was \
                 away, and its session line went to another client (give the next pool more \
                 --sessions), or the pool was lost and the disks let go of its batches, or have \
                 those of another publisher of that client id; sent again they could be ordered \
                 twice: read the log, and publish what it has not with a new publisher"
            ),
            Self::Superseded { client, epoch, now } => write!(
                f,
                "another publisher uses client id {client} and took the session over: it is in \
                 epoch {now}, and this publisher had {epoch}; give each publisher its own client id"
            ),
            Self::Failed { why } => write!(f, "the publisher failed earlier: {why}"),
            Self::TooLarge { bytes, most } => write!(
                f,
                "the message needs a batch of {bytes} bytes and at most {most} are possible"
            ),
            Self::NoReceipts => f.write_str(
                "the publisher asks for no receipts, so there is none to wait for; build it with \
                 ack ordered",
            ),
            Self::Corrupt { log, index, position, why, .. } => {
                write!(f, "batch {index} of log {log}, from position {position}, is corrupt: {why}")
            }
            Self::NoTopic { topic } => write!(f, "there is no topic {topic:?}"),
            Self::BeyondEnd { topic, position, end } => write!(
                f,
                "topic {topic:?} has not come to position {position}: its next message gets {end}; \
                 a position from before it was deleted and made anew, or of another system, means \
                 nothing here"
            ),
            Self::TopicGone { topic, another_pool: false } => {
                write!(f, "topic {topic:?} was deleted")
            }
            Self::TopicGone { topic, another_pool: true } => write!(
                f,
                "this pool has no topic {topic:?}: it was in the memory of an earlier pool alone, \
                 or was deleted"
            ),
            Self::MadeAgain { topic, batches, messages } => {
                write!(
                    f,
                    "topic {topic:?} was deleted, or went with its pool, and was made again: the \
                     one of that name that is there is another one"
                )?;
                match batches {
                    0 => f.write_str(
                        ", and nothing was read from it or published to it: read it with a new \
                         subscriber, from the earliest, and publish with a new publisher",
                    ),
                    _ => write!(
                        f,
                        ". {messages} messages in {batches} batches have no receipt, and are not \
                         in it: publish them again with a new publisher"
                    ),
                }
            }
            Self::Local { what } => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection { source, .. } => Some(source),
            Self::Frame { source, .. } => Some(source),
            Self::Verbs { source, .. } => Some(source),
            Self::Pool { source, .. } => Some(source),
            Self::Channel { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_says_what_for_how_long_and_why() {
        let text = Error::Timeout {
            awaited: "room to publish".into(),
            waited: Duration::from_millis(1500),
            stalled: Some(Stalled { why: Stall::PoolFull, used: 0, of: 96 }),
            held: None,
        }
        .to_string();
        for part in ["room to publish", "1500 ms", "0 of 96 segments free", "make the pool larger"]
        {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
    }

    #[test]
    fn a_topic_that_is_not_there_has_one_shape_whoever_says_so() {
        let refused = |why| Error::Refused { broker: 0, why, sentence: "no".into() }.of_topic("t");
        let (request, code, message) = ("GET /x".into(), "not_found".into(), "no".into());
        let control = Error::Control { request, status: 404, code, message }.of_topic("t");
        for error in [refused(Refusal::NoTopic), control] {
            assert!(matches!(&error, Error::NoTopic { topic } if topic == "t"), "{error:?}");
        }
        assert!(matches!(refused(Refusal::TopicGone), Error::TopicGone { .. }));
        assert!(matches!(refused(Refusal::Busy), Error::Refused { why: Refusal::Busy, .. }));
    }

    #[test]
    fn only_silence_at_an_address_is_unreachable() {
        let unreachable =
            Error::Unreachable { who: "control".into(), address: "x".into(), why: "y".into() };
        assert!(unreachable.is_unreachable());
        assert!(!Error::NoReceipts.is_unreachable());
    }
}
