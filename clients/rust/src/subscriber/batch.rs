//! What a subscriber is shown.

use landfall_layout::TopicId;
use landfall_layout::batch::{BatchError, BatchPreamble, Messages, PREAMBLE_BYTES};
use landfall_layout::frame::GapReason;
use landfall_layout::order::OrderEntry;
use landfall_pool::stream::crc32c_far;

use crate::error::Corruption;

/// What [`Subscriber::next`](super::Subscriber::next) found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'s> {
    /// The next batch.
    Batch(Batch<'s>),
    /// Positions whose messages will never be seen.
    Gap {
        /// Log that has the gap.
        log: u8,
        /// Why not.
        reason: GapReason,
        /// Messages missed.
        missed: u64,
        /// Position that it goes on from.
        resume: u64,
    },
    /// Everything that was there when the subscription began has been read. Said once.
    CaughtUp,
    /// Nothing came within the wait.
    Idle,
    /// The topic was deleted, or went with its pool; nothing more will come.
    /// [`Subscriber::topic_gone`](crate::Subscriber::topic_gone) says which.
    TopicGone,
}

/// A batch in the subscriber's own memory. What was checked is what is shown, and it does not
/// change: over memory, where publishers can write the pool at any time, it is a copy.
#[derive(Debug)]
pub struct Batch<'s> {
    pub(crate) place: Place,
    pub(crate) preamble: BatchPreamble,
    pub(crate) payload: &'s [u8],
}

/// What the log says of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) log: u8,
    pub(crate) broker: u8,
    pub(crate) count: u16,
    pub(crate) index: u64,
    pub(crate) first_position: u64,
    pub(crate) landed_ns: u64,
    /// What the broker that landed it took for its preamble's checksum.
    pub(crate) checksum: u32,
}

/// What every batch of a connection has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) topic: TopicId,
    pub(crate) batch_bytes_max: u32,
}

impl Batch<'_> {
    /// Log it stands in: 32 is the sequenced one, any other a broker's.
    pub fn log(&self) -> u8 {
        self.place.log
    }

    /// Its index in that log.
    pub fn index(&self) -> u64 {
        self.place.index
    }

    /// Position of its first message.
    pub fn first_position(&self) -> u64 {
        self.place.first_position
    }

    /// Position just past its last message.
    pub fn end_position(&self) -> u64 {
        self.place.first_position.saturating_add(self.place.count.into())
    }

    /// Its messages, counted.
    pub fn count(&self) -> u16 {
        self.place.count
    }

    /// Broker that landed it.
    pub fn broker(&self) -> u8 {
        self.place.broker
    }

    /// Client id of its publisher.
    pub fn client(&self) -> u64 {
        self.preamble.client
    }

    /// Session epoch it was sealed under.
    pub fn session_epoch(&self) -> u32 {
        self.preamble.session_epoch
    }

    /// Its sequence in the session.
    pub fn batch_seq(&self) -> u64 {
        self.preamble.batch_seq
    }

    /// Wall clock when it landed, nanoseconds.
    pub fn landed_ns(&self) -> u64 {
        self.place.landed_ns
    }

    /// Wall clock when it was sealed, nanoseconds.
    pub fn sealed_ns(&self) -> u64 {
        self.preamble.sealed_ns
    }

    /// Its messages one behind the other: headers, keys, payloads.
    pub fn payload(&self) -> &[u8] {
        self.payload
    }

    /// Its messages, one by one.
    #[inline]
    pub fn messages(&self) -> Messages<'_> {
        Messages::new(self.payload, self.place.count)
    }

    /// Bytes of preamble and payload.
    pub fn bytes(&self) -> u32 {
        self.preamble.batch_bytes() as u32
    }
}

/// Whether this is the preamble of the batch that a log's entry names.
pub(crate) fn check_entry(entry: &OrderEntry, preamble: &BatchPreamble) -> Result<(), Corruption> {
    same("client", entry.client, preamble.client)?;
    same("sequence", entry.batch_seq, preamble.batch_seq)?;
    same("epoch", entry.session_epoch.into(), preamble.session_epoch.into())
}

fn same(field: &'static str, log: u64, preamble: u64) -> Result<(), Corruption> {
    if log == preamble { Ok(()) } else { Err(Corruption::Mismatch { field, log, preamble }) }
}

impl Place {
    /// The place of the batch that the entry of `index` in `log` names.
    pub(crate) fn of(log: u8, index: u64, entry: &OrderEntry) -> Self {
        Self {
            log,
            broker: entry.broker,
            count: entry.count,
            index,
            first_position: entry.first_position,
            landed_ns: entry.landed_ns,
            checksum: entry.checksum,
        }
    }
}

/// Whether `bytes` are the batch that the log says stands at `place`.
pub(crate) fn check_batch(
    bytes: &[u8],
    place: &Place,
    wanted: Wanted,
    verify: bool,
) -> Result<BatchPreamble, Corruption> {
    let short = BatchError::TooShort { bytes: bytes.len() as u32, count: place.count };
    let (head, payload) = bytes.split_first_chunk().ok_or(Corruption::Batch(short))?;
    let preamble = check_head(head, bytes.len(), place, wanted)?;
    if verify {
        preamble.check_payload_crc(crc32c_far(payload))?;
    }
    Ok(preamble)
}

/// The preamble in `head`, if it is that of the batch of `bytes` bytes at `place`. The log's
/// checksum is of a preamble that no client could write any more when it was taken: what a
/// publisher wrote there since, however well it is sealed, is no batch.
pub(crate) fn check_head(
    head: &[u8; PREAMBLE_BYTES as usize],
    bytes: usize,
    place: &Place,
    wanted: Wanted,
) -> Result<BatchPreamble, Corruption> {
    let preamble = BatchPreamble::from_bytes(*head);
    preamble.check(wanted.batch_bytes_max)?;
    same("size", bytes as u64, preamble.batch_bytes())?;
    same("count", place.count.into(), preamble.count.into())?;
    // Room that was given to another topic meanwhile is nobody's batch here.
    same("topic", wanted.topic.0.into(), preamble.topic.into())?;
    same("checksum", place.checksum.into(), preamble.header_crc.into())?;
    Ok(preamble)
}
