//! For benchmarks and tests: landing alone, on a pool in this process's own memory.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use landfall_layout::batch::{BatchPreamble, PREAMBLE_BYTES, crc32c};
use landfall_layout::limits::RING_SLOTS_DEFAULT;
use landfall_layout::pool::Coherence;
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::slot::RingLine;
use landfall_layout::topic::{Order, TOPIC_CHECK_INGEST, TopicEntry};
use landfall_layout::verbs::Said;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::map::memfd;
use landfall_pool::pool::Shape;
use landfall_pool::slot_ring::SlotReader;
use landfall_pool::{Memory, Pool};

pub use crate::replica::rig::ReplicaRig;

use crate::claim::Claim;
use crate::conns::Token;
use crate::env::Env;
use crate::extents::From;
use crate::land::{Placed, Session, land};
use crate::segments::Granted;
use crate::topics::Topic;
use crate::verbs::{Closing, Gate, Grants};

/// A small fresh pool in a memfd: 2 MiB segments, a few sessions.
pub fn pool() -> Pool {
    pool_of(Coherence::Coherent)
}

/// The same, of that coherence mode.
pub fn pool_of(coherence: Coherence) -> Pool {
    const BYTES: u64 = 64 << 20;
    static POOLS: AtomicU64 = AtomicU64::new(0);
    // Bells and sockets are named by it, and other tests run beside this one.
    let mut uuid = [7; 16];
    uuid[..4].copy_from_slice(&std::process::id().to_le_bytes());
    uuid[4..12].copy_from_slice(&POOLS.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    let memory = memfd("landing", BYTES).expect("the system has memory for a small pool");
    let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    let shape = Shape {
        pool_bytes: BYTES,
        segment_bytes: 2 << 20,
        sessions: 16,
        coherence,
        uuid,
        now_ns: 1,
        sparse: true,
    };
    Pool::create_or_attach(&path, shape).expect("a fresh memfd becomes a pool")
}

/// One topic of one broker, with a session that stands and some granted segments.
pub(crate) struct Shore {
    pub env: Env,
    pub topic: Topic,
    pub session: Session,
}

/// A fresh pool with a topic of order total. The ring of (topic, broker 0) lies in segment 0;
/// `segments` segments from 1 on are granted.
pub(crate) fn shore(segments: u32, checks_payloads: bool) -> (Shore, SlotReader) {
    let pool = pool();
    let me = BrokerId::new(0).expect("0 is below the bound");
    let id = TopicId::new(0, 1);
    let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
    (entry.id, entry.ring_slots) = (id.0, RING_SLOTS_DEFAULT);
    entry.flags = if checks_payloads { TOPIC_CHECK_INGEST } else { 0 };
    let ring = RingLine {
        topic: id.0.into(),
        segment: 0,
        slots: RING_SLOTS_DEFAULT,
        ..RingLine::default()
    };
    pool.set_ring(id.slot(), me, &ring);
    let standing = Standing { epoch: 1, state: SessionState::Active }.pack();
    let line = SessionLine { standing, client: 1, topic: id.0, ..SessionLine::default() };
    pool.set_session(0, &line);
    let reader = SlotReader::new(pool.slot_ring(id, me).expect("the line was just written"));
    let env = Env::new(pool, me, 1).expect("the pool's own file can be opened again");
    let mut topic = Topic::new(&env, &entry, Order::Total);
    for segment in 1..=segments {
        topic.stock.grant(Granted { segment, generation: 1 });
    }
    let session = Session { client: 1, epoch: 1, index: 0, last_seq: None };
    (Shore { env, topic, session }, reader)
}

/// Landing alone: nobody orders what is landed.
pub struct LandRig {
    shore: Shore,
    reader: SlotReader,
    batch: Placed,
}

impl LandRig {
    /// A rig on a fresh pool, with batches of `bytes` bytes.
    pub fn new(bytes: u32, checks_payloads: bool) -> Self {
        let (mut shore, reader) = shore(1, checks_payloads);
        let Shore { env, topic, .. } = &mut shore;
        let claim = topic.stock.claim(env, bytes, bytes).expect("a segment was granted");
        let payload = vec![0; (bytes - PREAMBLE_BYTES) as usize];
        let preamble = BatchPreamble {
            topic: topic.id.0,
            client: 1,
            session_epoch: 1,
            payload_bytes: payload.len() as u32,
            payload_crc: crc32c(&payload),
            count: 1,
            ..BatchPreamble::default()
        };
        let batch = Placed {
            preamble: preamble.seal(),
            segment: claim.segment,
            generation: claim.generation,
            offset: claim.offset,
        };
        topic.stock.done(claim);
        Self { shore, reader, batch }
    }

    /// Lands one more batch, if it may.
    #[cfg(test)]
    pub(crate) fn land_one(&mut self) -> Result<(), crate::land::NotLanded> {
        let Self { shore: Shore { env, topic, session }, batch, .. } = self;
        land(env, topic, session, Token(0), batch)
    }

    #[cfg(test)]
    pub(crate) fn parts(&mut self) -> (&Env, &mut Topic) {
        (&self.shore.env, &mut self.shore.topic)
    }

    #[cfg(test)]
    pub(crate) fn env(&self) -> &Env {
        &self.shore.env
    }

    /// Lands a burst of batches, moves the frontier, and takes the slots back.
    pub fn burst(&mut self, batches: u64) {
        let Self { shore, reader, batch } = self;
        let Shore { env, topic, session } = shore;
        for _ in 0..batches {
            let landed = land(env, topic, session, Token(0), batch);
            assert!(landed.is_ok(), "{landed:?}");
        }
        topic.publish_frontier(env, 1);
        reader.release(&env.pool, topic.next_index());
        while topic.in_flight.pop().is_some() {}
        env.pool.full_fence();
    }
}

/// The whole of a broker's work for a batch over verbs, but for the NIC's own calls: from the
/// immediate to the slot, receipts apart. The payload lies where the publisher's NIC put it.
pub struct VerbsRig {
    shore: Shore,
    reader: SlotReader,
    grants: Grants,
    bytes: u32,
    lines: u32,
    seq: u64,
}

/// Gates that stand open.
struct OpenGates;

impl Gate for OpenGates {
    fn open(&mut self, _: usize, _: &Claim, _: u64) -> Option<u32> {
        Some(1)
    }

    fn close(&mut self, _: usize) -> Closing {
        Closing::Closed
    }
}

impl VerbsRig {
    /// A rig on a fresh pool, with batches of `bytes` bytes, a multiple of the line.
    pub fn new(bytes: u32) -> Self {
        let (shore, reader) = shore(1, false);
        Self { shore, reader, grants: Grants::default(), bytes, lines: 0, seq: 0 }
    }

    /// Lands a burst of batches, with a fresh extent where one is full, moves the frontier, and
    /// takes the slots back.
    pub fn burst(&mut self, batches: u64) {
        for _ in 0..batches {
            self.batch();
        }
        let Self { shore: Shore { env, topic, .. }, reader, .. } = self;
        topic.publish_frontier(env, 1);
        reader.release(&env.pool, topic.next_index());
        while topic.in_flight.pop().is_some() {}
        env.pool.full_fence();
    }

    fn batch(&mut self) {
        let Self { shore, grants, bytes, lines, seq, .. } = self;
        let Shore { env, topic, session } = shore;
        let mut from = From { session, owner: Token(0), fenced: false, allowance: u32::MAX };
        let segment_lines = env.pool.geometry().segment_bytes() as u32 / 64;
        if *lines + *bytes / 64 > segment_lines || *seq == 0 {
            *lines = 0;
            grants.abandon(env, topic);
            topic.stock.close(env);
            while topic.stock.next_sealed().is_some() {}
            topic.stock.grant(Granted { segment: 1, generation: 1 });
            let claim = topic.stock.claim(env, segment_lines * 64, segment_lines * 64);
            let claim = claim.expect("a whole segment is free");
            grants.adopt(0, claim);
        }
        let preamble = BatchPreamble {
            topic: topic.id.0,
            client: 1,
            session_epoch: 1,
            batch_seq: *seq,
            payload_bytes: *bytes - PREAMBLE_BYTES,
            count: 1,
            ..BatchPreamble::default()
        };
        let at = env.pool.at(1, *lines * 64, PREAMBLE_BYTES).expect("inside the segment");
        env.pool.store_words(at, &preamble.seal().to_words());
        let said = Said::Batch { slot: 0, line: *lines };
        let landed = grants.take(env, topic, &mut from, (said, *bytes), &mut OpenGates);
        assert!(matches!(landed, Ok((None, true))), "{landed:?}");
        *lines += *bytes / 64;
        *seq += 1;
    }
}
