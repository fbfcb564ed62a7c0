//! Landing: the one way a batch becomes part of a log, whatever carried it here.
//!
//! The bytes are in the payload segment already. What is refused here is the caller's to turn
//! into padding.

use std::fmt;

use landfall_layout::TopicId;
use landfall_layout::batch::{BatchError, BatchPreamble, PREAMBLE_BYTES};
use landfall_layout::counters::{Counter, Stage};
use landfall_layout::limits::{SEQUENCED_LOG, STREAM_WINDOW};
use landfall_layout::order::OrderEntry;
use landfall_layout::slot::RingSlot;
use landfall_layout::topic::Order;
use landfall_pool::Memory;
use landfall_pool::clock::boot_ns;
use landfall_pool::hold::Hold;
use landfall_pool::shared::SharedBytes;

use crate::conns::Token;
use crate::env::Env;
use crate::topics::{Landing, Topic, Waiting};

/// A publisher's identity on one connection.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub client: u64,
    pub epoch: u32,
    /// Index of its line.
    pub index: u32,
    /// Sequence of the last batch landed through this connection.
    pub last_seq: Option<u64>,
}

impl Session {
    /// Whether what it seals is ordered: its epoch is the line's, and the line is still its own.
    #[inline]
    pub fn stands(&self, env: &Env, topic: TopicId) -> bool {
        env.pool.session_stands(self.index, topic, self.client, self.epoch)
    }

    /// What its publisher is told when it does not stand.
    #[cold]
    pub fn fenced(&self, env: &Env, topic: TopicId) -> Fault {
        Fault::Fenced { epoch: self.epoch, next_seq: self.next_seq(env, topic) }
    }

    /// Order `strong`: whether a batch is ordered as soon as the sequencer sees it. It is when the
    /// one before it lies in the same ring, or is ordered. Nothing else lands: it would keep its
    /// slot, and with it the whole ring from everybody, until what it waits for comes.
    #[inline]
    fn has_turn(&self, env: &Env, batch_seq: u64) -> bool {
        self.last_seq.is_some_and(|last| last.checked_add(1) == Some(batch_seq))
            || env.pool.session(self.index).is_none_or(|line| batch_seq <= line.next_seq)
    }

    /// Where its publisher goes on. Somebody else's line says nothing of it.
    #[cold]
    pub fn next_seq(&self, env: &Env, topic: TopicId) -> u64 {
        let line = env.pool.session(self.index).filter(|line| line.is_of(topic, self.client));
        line.map_or(0, |line| line.next_seq)
    }
}

/// A batch whose bytes are in place.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// A private copy of the preamble, loaded once.
    pub preamble: BatchPreamble,
    pub segment: u32,
    pub generation: u64,
    pub offset: u32,
}

/// Why nothing can land at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// The ring of (topic, broker) is full, or not there yet.
    Ring,
    /// No segment to write into.
    Segment,
    /// No room in this broker's own log.
    Log,
    /// Half batches hold as much as they may.
    Halves,
    /// The queue pair takes no more work at this moment.
    Queue,
    /// The connection has as many batches without a receipt as it may.
    InFlight,
    /// Order `strong`: the batch before it is not ordered, and comes through another broker.
    Turn,
}

/// What is wrong with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The batch itself.
    Batch(BatchError),
    /// Another topic's.
    Topic { found: TopicId, expected: TopicId },
    /// Another client's or another epoch's.
    Session { client: u64, epoch: u32, expected_client: u64, expected_epoch: u32 },
    /// Not above the one before.
    Sequence { found: u64, last: u64 },
    /// Below the session's next one, and nobody knows any more whether it is in the log.
    Forgotten { found: u64, next_seq: u64 },
    /// It lies in a segment with a page that cannot be read: what was stored there may be seen by
    /// nobody else.
    Lost { segment: u32 },
    /// The session's epoch is over; everything from `next_seq` on was not ordered in it.
    Fenced { epoch: u32, next_seq: u64 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(error) => error.fmt(f),
            Self::Topic { found, expected } => write!(
                f,
                "batch is for topic id {:#x}; this connection publishes to {:#x}",
                found.0, expected.0
            ),
            Self::Session { client, epoch, expected_client, expected_epoch } => write!(
                f,
                "batch is of client {client:#x} epoch {epoch}; this connection is client \
                 {expected_client:#x} epoch {expected_epoch}"
            ),
            Self::Sequence { found, last } => write!(
                f,
                "batch has sequence {found} and the one before on this connection had {last}; \
                 sequences only grow"
            ),
            Self::Forgotten { found, next_seq } => write!(
                f,
                "batch has sequence {found} and the log has batches of this client up to {}; \
                 whether it is among them is known of the last {STREAM_WINDOW} at most, and not \
                 of this one any more, so it is neither ordered nor acknowledged; read the topic \
                 to see, and publish under another client id",
                next_seq.saturating_sub(1)
            ),
            Self::Lost { segment } => {
                write!(f, "segment {segment}, which it was written to, is lost")
            }
            Self::Fenced { epoch, next_seq } => {
                write!(f, "session epoch {epoch} is over; batches from {next_seq} on do not count")
            }
        }
    }
}

/// Why a batch did not land.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotLanded {
    /// Try again with the same batch.
    Later(Wait),
    /// It never will.
    Fault(Fault),
}

/// Everything that can be judged before the payload is there.
#[inline]
pub fn judge(
    env: &Env,
    topic: &Topic,
    session: &Session,
    preamble: &BatchPreamble,
) -> Result<(), Fault> {
    preamble.check(env.pool.geometry().batch_bytes_max()).map_err(Fault::Batch)?;
    if preamble.topic_id() != topic.id {
        return Err(Fault::Topic { found: preamble.topic_id(), expected: topic.id });
    }
    if (preamble.client, preamble.session_epoch) != (session.client, session.epoch) {
        return Err(Fault::Session {
            client: preamble.client,
            epoch: preamble.session_epoch,
            expected_client: session.client,
            expected_epoch: session.epoch,
        });
    }
    if !session.stands(env, topic.id) {
        return Err(session.fenced(env, topic.id));
    }
    if !matches!(topic.order, Order::Stream | Order::Strong) {
        return Ok(());
    }
    match session.last_seq {
        Some(last) if preamble.batch_seq <= last => {
            Err(Fault::Sequence { found: preamble.batch_seq, last })
        }
        None if topic.order == Order::Stream => judge_first(env, session, preamble.batch_seq),
        _ => Ok(()),
    }
}

/// Order `stream`: the first batch on a connection may be one that another connection had. Whether
/// one that is too far below is in the log nobody knows, nor of one that control has forgotten: so
/// nobody may say that it is.
#[cold]
fn judge_first(env: &Env, session: &Session, found: u64) -> Result<(), Fault> {
    let line = env.pool.session(session.index).unwrap_or_default();
    let next_seq = line.next_seq;
    match found < next_seq.saturating_sub(STREAM_WINDOW).max(line.known_from) {
        true => Err(Fault::Forgotten { found, next_seq }),
        false => Ok(()),
    }
}

/// Whether one more batch could be shown at this moment.
#[inline]
pub fn has_room(env: &Env, topic: &mut Topic) -> Result<(), Wait> {
    if topic.in_flight.is_full() {
        return Err(Wait::Ring);
    }
    match &mut topic.landing {
        Landing::Closed => Err(Wait::Ring),
        Landing::Ring(writer) => {
            if writer.room(&env.pool, 1) == 0 {
                Err(Wait::Ring)
            } else {
                Ok(())
            }
        }
        Landing::Own(own) => own.segment_for(topic.frontier.entries).map(|_| ()).ok_or(Wait::Log),
    }
}

/// Makes a placed batch part of its log. The frontier moves at the end of the burst.
#[inline]
pub fn land(
    env: &Env,
    topic: &mut Topic,
    session: &mut Session,
    owner: Token,
    batch: &Placed,
) -> Result<(), NotLanded> {
    judge(env, topic, session, &batch.preamble).map_err(NotLanded::Fault)?;
    if topic.order == Order::Strong && !session.has_turn(env, batch.preamble.batch_seq) {
        return Err(NotLanded::Later(Wait::Turn));
    }
    has_room(env, topic).map_err(NotLanded::Later)?;
    if topic.check_ingest {
        check_payload(env, batch).map_err(NotLanded::Fault)?;
    }
    let bytes = batch.preamble.batch_bytes() as u32;
    if env.pool.is_lost(batch.segment) {
        return Err(NotLanded::Fault(Fault::Lost { segment: batch.segment }));
    }
    if env.pool.flushes()
        && let Some(at) = env.pool.at(batch.segment, batch.offset, bytes)
    {
        // A NIC or a publisher's CPU left the lines in this host's caches.
        env.pool.publish(at, bytes.into());
    }
    let now_ns = boot_ns();
    if !env.stands(now_ns) {
        // It was away since the batch before: the turn ends here.
        return Err(NotLanded::Later(Wait::Segment));
    }
    let landed_ns = env.wall_at(now_ns);
    let waiting = Waiting {
        owner,
        batch_seq: batch.preamble.batch_seq,
        landed_ns,
        position: topic.frontier.position,
        session: session.index,
        session_epoch: session.epoch,
        count: batch.preamble.count,
        reported: false,
    };
    let index = commit(env, topic, session, batch, landed_ns).map_err(NotLanded::Later)?;
    topic.in_flight.push(index, waiting);
    if matches!(topic.landing, Landing::Own(_)) {
        topic.stock.landed(batch.segment, index + 1);
    }
    topic.frontier.entries = index + 1;
    topic.frontier.position += u64::from(batch.preamble.count);
    topic.frontier.bytes += u64::from(bytes);
    topic.dirty = true;
    session.last_seq = Some(batch.preamble.batch_seq);
    env.count(Counter::BatchesLanded, 1);
    env.count(Counter::BytesLanded, bytes.into());
    env.latency(Stage::SealedToLanded, batch.preamble.sealed_ns, landed_ns);
    Ok(())
}

/// Writes the slot or the entry and returns its index.
#[inline]
fn commit(
    env: &Env,
    topic: &mut Topic,
    session: &Session,
    batch: &Placed,
    landed_ns: u64,
) -> Result<u64, Wait> {
    let preamble = &batch.preamble;
    match &mut topic.landing {
        Landing::Closed => Err(Wait::Ring),
        Landing::Ring(writer) => {
            if topic.in_flight.is_empty() {
                // Nothing of ours is in the log between here and what was followed so far, and
                // this slot is not committed yet: receipts begin at the present frontier.
                topic.follower.next = env.pool.frontier(topic.id, SEQUENCED_LOG).entries;
            }
            let slot = RingSlot {
                client: preamble.client,
                batch_seq: preamble.batch_seq,
                session_epoch: session.epoch,
                session: session.index,
                segment: batch.segment,
                offset: batch.offset,
                bytes: preamble.batch_bytes() as u32,
                count: preamble.count,
                landed_ns,
                topic: topic.id.0,
                checksum: preamble.header_crc,
                segment_generation: batch.generation,
                sealed_ns: preamble.sealed_ns,
                ..RingSlot::default()
            };
            writer.push(&env.pool, &slot).ok_or(Wait::Ring)
        }
        Landing::Own(own) => {
            let index = topic.frontier.entries;
            let segment = own.segment_for(index).ok_or(Wait::Log)?;
            let entry = OrderEntry {
                first_position: topic.frontier.position,
                client: preamble.client,
                batch_seq: preamble.batch_seq,
                // A clock that is set back must not unsort the log.
                landed_ns: landed_ns.max(topic.frontier.at_ns),
                session_epoch: session.epoch,
                ring_index: index as u32,
                checksum: preamble.header_crc,
                segment: batch.segment,
                offset: batch.offset,
                bytes: preamble.batch_bytes() as u32,
                count: preamble.count,
                broker: env.me.raw(),
                flags: 0,
                commit: 0,
            };
            topic.frontier.at_ns = entry.landed_ns;
            segment.write(&env.pool, index, &entry);
            if env.pool.flushes() {
                env.pool.after_write_back();
            }
            Ok(index)
        }
    }
}

fn check_payload(env: &Env, batch: &Placed) -> Result<(), Fault> {
    let hold = Hold::by_broker(batch.segment);
    let offset = batch.offset + PREAMBLE_BYTES;
    let payload = env.pool.shared(&hold, offset, batch.preamble.payload_bytes);
    let crc = payload.unwrap_or(SharedBytes::EMPTY).crc32c();
    batch.preamble.check_payload_crc(crc).map_err(|error| match env.pool.is_lost(batch.segment) {
        true => Fault::Lost { segment: batch.segment },
        false => Fault::Batch(error),
    })
}
