//! A small pool with something of everything in it, for tests and fuzz targets.
//!
//! It is written through the pool's own functions, as control, a sequencer and two brokers would.

use landfall_layout::batch::{BatchPreamble, MESSAGE_HEADER_BYTES, crc32c};
use landfall_layout::command::{Body, Command, Request, first_command};
use landfall_layout::limits::{COMMAND_LINES, SEQUENCED_LOG};
use landfall_layout::order::{ChainLine, FrontierLine, OrderEntry};
use landfall_layout::pool::{BrokerAddress, BrokerLine, BrokerState, Coherence, LeaderLine, Term};
use landfall_layout::segment::{OWNER_CONTROL, SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::slot::{ConsumedLine, RingLine, RingSlot};
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::line_ring::{LineConsumer, LineProducer, LineRing};
use landfall_pool::log::LogSegment;
use landfall_pool::map::memfd;
use landfall_pool::pool::Shape;
use landfall_pool::slot_ring::{SlotReader, SlotWriter};
use landfall_pool::{Memory, Pool};

/// Epoch of the sample's leader.
pub const EPOCH: u64 = 3;
/// Slots of its rings.
pub const SLOTS: u32 = 16;
/// The topic of order `strong`.
pub const STRONG: TopicId = TopicId(0x100);
/// The topic of order `broker`.
pub const OWN: TopicId = TopicId(0x101);
/// The topic of order `stream`.
pub const STREAM: TopicId = TopicId(0x202);
/// Long ago, so that nobody takes its heartbeats for those of the living.
pub const NOW_NS: u64 = 1_000_000;

/// Who writes the sample, and what it has given out.
struct Writer<'p> {
    pool: &'p Pool,
    next_segment: u32,
    generation: u64,
}

/// A log that is being written.
struct Log {
    topic: TopicId,
    number: usize,
    segments: Vec<LogSegment>,
    line: FrontierLine,
}

/// A payload segment and how far it is full.
#[derive(Clone, Copy)]
struct Payload {
    segment: SegmentId,
    generation: u64,
    used: u32,
}

fn broker(number: usize) -> BrokerId {
    BrokerId::new(number).expect("a broker that a pool can have")
}

/// A pool on a memfd that has one of everything and nothing wrong with it.
///
/// Panics where a machine has no memfds: there is nothing to be tested then.
pub fn pool() -> Pool {
    let shape = Shape {
        pool_bytes: 56 << 20,
        segment_bytes: 2 << 20,
        sessions: 16,
        coherence: Coherence::Coherent,
        uuid: *b"a sample to look",
        now_ns: NOW_NS,
        sparse: true,
    };
    let fd = memfd("landfall-sample", 0).expect("a memfd");
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    let pool = Pool::create_or_attach(path.as_ref(), shape).expect("a pool on a memfd");
    fill(&pool);
    // A leader follows nobody; who looks does.
    Pool::attach(path.as_ref()).expect("the pool just made")
}

fn fill(pool: &Pool) {
    // An earlier leader was in the first slot.
    for (slot, epoch) in [(0, EPOCH - 1), (1, EPOCH)] {
        let term = Term { epoch, serves: false }.pack();
        let line = LeaderLine {
            term,
            pid: 1,
            host: landfall_pool::host::id(),
            started_ns: NOW_NS,
            ..LeaderLine::default()
        };
        assert!(pool.claim(slot, &line), "nobody else leads a fresh pool");
        pool.beat_leader(NOW_NS);
        pool.copy_tables(None);
        assert!(pool.serve(epoch), "nobody else leads a fresh pool");
    }
    let mut writer = Writer { pool, next_segment: 0, generation: 1 };
    for number in [0, 1] {
        writer.broker(broker(number));
    }
    writer.strong();
    writer.own();
    writer.stream();
    writer.commands();
}

impl Writer<'_> {
    fn take(&mut self, what: What, base_index: u64, previous: Option<SegmentId>) -> SegmentId {
        let segment = SegmentId(self.next_segment);
        self.next_segment += 1;
        let header = SegmentHeader {
            what: what.pack(),
            generation: self.generation,
            epoch: EPOCH - 1,
            previous: previous.unwrap_or(SegmentId::NONE).0,
            base_index,
            granted_ns: NOW_NS,
            ..SegmentHeader::FREE
        };
        self.generation += 1;
        self.pool.give_segment(segment, &header);
        segment
    }

    fn broker(&self, broker: BrokerId) {
        let line = BrokerLine {
            incarnation: 77 + u64::from(broker.raw()),
            heartbeat_ns: NOW_NS,
            epoch_seen: EPOCH,
            state: BrokerState::Serving.raw(),
            pid: 2,
            host: landfall_pool::host::id(),
            ..BrokerLine::default()
        };
        let address = BrokerAddress::new("127.0.0.1:1", "@sample", "").expect("short addresses");
        self.pool.set_broker(broker, &line, &address);
    }

    fn topic(&self, id: TopicId, name: &str, order: Order) {
        let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
        entry.id = id.0;
        entry.state = TopicState::Live as u8;
        entry.order = order.raw();
        entry.replicas = 1;
        entry.ring_slots = SLOTS;
        entry.name_bytes = name.len() as u32;
        entry.name[..name.len()].copy_from_slice(name.as_bytes());
        entry.created_ns = NOW_NS;
        entry.session_lease_ns = 1_000_000_000;
        self.pool.set_topic(&entry);
    }

    fn log(&mut self, topic: TopicId, number: usize) -> Log {
        let line = FrontierLine { topic: topic.0.into(), ..FrontierLine::default() };
        let mut log = Log { topic, number, segments: Vec::new(), line };
        self.grow(&mut log, 0);
        self.pool.start_frontier(topic, number);
        log
    }

    /// Hangs a segment behind a log that begins at `base`.
    fn grow(&mut self, log: &mut Log, base: u64) {
        let owner = match log.number {
            SEQUENCED_LOG => OWNER_CONTROL,
            number => number as u8,
        };
        let what = What {
            kind: SegmentKind::OrderLog,
            state: SegmentState::Open,
            owner,
            log: log.number as u8,
            topic: log.topic,
        };
        let previous = log.segments.last().map(|last| last.segment);
        let segment = self.take(what, base, previous);
        if let Some(previous) = previous {
            self.pool.link_segment(previous, segment);
        }
        let geometry = self.pool.geometry();
        log.segments.push(LogSegment {
            segment,
            at: geometry.segment(segment).expect("a segment of the pool"),
            base,
            capacity: geometry.entries_per_segment(),
        });
        let line = ChainLine {
            head: log.segments[0].segment.0,
            tail: segment.0,
            topic: log.topic.0.into(),
            ..ChainLine::default()
        };
        self.pool.set_chain(log.topic, log.number, &line);
    }

    fn payload(&mut self, topic: TopicId, broker: BrokerId) -> Payload {
        let what = What {
            kind: SegmentKind::Payload,
            state: SegmentState::Open,
            owner: broker.raw(),
            log: 0,
            topic,
        };
        let generation = self.generation;
        let segment = self.take(what, 0, None);
        Payload { segment, generation, used: 0 }
    }

    /// Writes a batch of three messages, and says it as the slot of a ring.
    fn batch(&self, topic: TopicId, place: &mut Payload, client: u64, seq: u64) -> RingSlot {
        let mut payload = Vec::new();
        for message in 0..3_u64 {
            let body = [client as u8, seq as u8, message as u8, 9, 9];
            let header = [body.len() as u64, NOW_NS + message];
            header.iter().for_each(|word| payload.extend_from_slice(&word.to_le_bytes()));
            payload.extend_from_slice(&body);
            payload.resize(payload.len().next_multiple_of(8), 0);
        }
        assert!(payload.len() >= 3 * MESSAGE_HEADER_BYTES);
        let preamble = BatchPreamble {
            topic: topic.0,
            session_epoch: 1,
            client,
            batch_seq: seq,
            sealed_ns: NOW_NS,
            payload_bytes: payload.len() as u32,
            payload_crc: crc32c(&payload),
            count: 3,
            ..BatchPreamble::default()
        }
        .seal();
        let bytes = preamble.batch_bytes() as u32;
        let offset = place.used;
        let at = self.pool.at(place.segment.0, offset, bytes).expect("room in the segment");
        self.pool.store_words(at, &preamble.to_words());
        self.pool.write(at + 64, &payload).expect("room in the segment");
        place.used = (offset + bytes).next_multiple_of(64);
        RingSlot {
            client,
            batch_seq: seq,
            session_epoch: 1,
            session: client as u32 - 1,
            segment: place.segment.0,
            offset,
            bytes,
            count: 3,
            landed_ns: NOW_NS,
            topic: topic.0,
            checksum: preamble.header_crc,
            segment_generation: place.generation,
            sealed_ns: NOW_NS,
            ..RingSlot::default()
        }
    }

    /// Puts a batch into a log and moves its frontier.
    fn append(&self, log: &mut Log, broker: BrokerId, slot: &RingSlot, ring_index: u64) {
        let index = log.line.entries;
        let entry = OrderEntry {
            first_position: log.line.position,
            client: slot.client,
            batch_seq: slot.batch_seq,
            landed_ns: slot.landed_ns + index,
            session_epoch: slot.session_epoch,
            ring_index: ring_index as u32,
            checksum: slot.checksum,
            segment: slot.segment,
            offset: slot.offset,
            bytes: slot.bytes,
            count: slot.count,
            broker: broker.raw(),
            ..OrderEntry::default()
        };
        let last = log.segments.last().expect("a log has a segment");
        last.write(self.pool, index, &entry);
        log.line.entries += 1;
        if log.number == SEQUENCED_LOG {
            self.pool.say_written(log.topic, log.line.entries, log.line.bytes);
        }
        log.line.position += u64::from(slot.count);
        log.line.bytes += u64::from(slot.bytes);
        self.pool.advance_frontier(log.topic, log.number, &log.line);
    }

    fn session(&self, client: u64, topic: TopicId, next_seq: u64) {
        let standing = Standing { epoch: 1, state: SessionState::Active };
        let line = SessionLine {
            standing: standing.pack(),
            client,
            next_seq,
            topic: topic.0,
            opened_at: 0,
            ..SessionLine::default()
        };
        self.pool.set_session(client as u32 - 1, &line);
    }

    fn ring(&mut self, topic: TopicId, broker: BrokerId) -> SlotWriter {
        let what = What {
            kind: SegmentKind::Ring,
            state: SegmentState::Open,
            owner: broker.raw(),
            log: 0,
            topic: TopicId(0),
        };
        let generation = self.generation;
        let segment = self.take(what, 0, None);
        let consumed = ConsumedLine { topic: topic.0.into(), ..ConsumedLine::default() };
        self.pool.set_consumed(topic.slot(), broker, &consumed);
        let line = RingLine {
            topic: topic.0.into(),
            segment: segment.0,
            slots: SLOTS,
            generation,
            ..RingLine::default()
        };
        self.pool.set_ring(topic.slot(), broker, &line);
        self.pool.start_frontier(topic, broker.index());
        let ring = self.pool.slot_ring(topic, broker).expect("the ring just made");
        SlotWriter::resume(self.pool, ring)
    }

    fn landed(&self, topic: TopicId, broker: BrokerId, entries: u64) {
        let line = FrontierLine { entries, ..FrontierLine::default() };
        self.pool.advance_frontier(topic, broker.index(), &line);
    }

    /// Two clients through two brokers, more batches than a ring has slots, a log in two epochs'
    /// segments, and at each broker slots that still wait.
    fn strong(&mut self) {
        let id = STRONG;
        let mut log = self.log(id, SEQUENCED_LOG);
        for number in [0, 1] {
            let (broker, client) = (broker(number), number as u64 + 1);
            let mut place = self.payload(id, broker);
            let mut ring = self.ring(id, broker);
            let reader = SlotReader::new(*ring.ring());
            for seq in 0..20 {
                let slot = self.batch(id, &mut place, client, seq);
                let index = ring.push(self.pool, &slot).expect("a ring that is consumed");
                if seq < 18 {
                    self.append(&mut log, broker, &slot, index);
                    reader.release(self.pool, index + 1);
                }
                if seq == 9 {
                    let base = log.line.entries;
                    self.grow(&mut log, base);
                }
            }
            self.landed(id, broker, 20);
            self.session(client, id, 18);
        }
        self.topic(id, "strong", Order::Strong);
    }

    /// Each of two brokers writes its own log.
    fn own(&mut self) {
        for number in [0, 1] {
            let broker = broker(number);
            let mut log = self.log(OWN, number);
            let mut place = self.payload(OWN, broker);
            for seq in 0..5 {
                let slot = self.batch(OWN, &mut place, 3, seq);
                self.append(&mut log, broker, &slot, seq);
            }
        }
        self.session(3, OWN, 0);
        self.topic(OWN, "own", Order::Broker);
    }

    fn stream(&mut self) {
        let id = STREAM;
        let mut log = self.log(id, SEQUENCED_LOG);
        let broker = broker(1);
        let mut place = self.payload(id, broker);
        let mut ring = self.ring(id, broker);
        let reader = SlotReader::new(*ring.ring());
        for seq in [0, 1, 4, 5] {
            let slot = self.batch(id, &mut place, 4, seq);
            let index = ring.push(self.pool, &slot).expect("a ring with room");
            self.append(&mut log, broker, &slot, index);
            reader.release(self.pool, index + 1);
        }
        self.landed(id, broker, 4);
        self.session(4, id, 6);
        self.topic(id, "stream", Order::Stream);
    }

    /// Rings between control and a broker: once around, and something that nobody took.
    fn commands(&self) {
        let geometry = self.pool.geometry();
        let broker = broker(0);
        let commands = LineRing {
            taken_at: geometry.commands_taken(broker),
            at: geometry.commands(broker),
            lines: COMMAND_LINES,
        };
        let first = first_command(EPOCH);
        self.go_around(
            LineProducer::begin(commands, first),
            LineConsumer::begin(self.pool, commands, first),
            Command::RingReady { topic: STRONG }.pack(),
        );
        let requests = LineRing {
            taken_at: geometry.requests_taken(broker),
            at: geometry.requests(broker),
            lines: COMMAND_LINES,
        };
        self.go_around(
            LineProducer::resume(self.pool, requests),
            LineConsumer::resume(self.pool, requests),
            Request::TopicReleased { topic: STRONG }.pack(),
        );
    }

    fn go_around(&self, mut producer: LineProducer, mut consumer: LineConsumer, body: Body) {
        for _ in 0..COMMAND_LINES + 3 {
            assert!(producer.push(self.pool, body), "a ring that is emptied has room");
            assert!(consumer.pop(self.pool).is_some(), "what was pushed is there");
        }
        assert!(producer.push(self.pool, body), "a ring that is emptied has room");
    }
}
