//! What it costs to order a batch.
//!
//! One iteration is one batch, so criterion's time per iteration is the cost of a batch.
//!
//! * `sequencer`: the pure value alone. Expect 6 to 16 ns in order: a session's state is 32 bytes
//!   and a ring's one line, so what grows with brokers and sessions is only how far away those
//!   lines are: 10,000 sessions are 320 KB, which a core's second-level cache holds. `stream`
//!   costs what `strong` does as long as a session's batches come in sequence.
//! * `drive`: the loop that feeds the above, with no sequencer in it; part of each number there.
//!   Expect 1 to 2 ns: more means that others are using the core, and by what factor.
//! * `loop`: through a pool in a memfd, as the control process runs it: peek the slot, decide,
//!   write the entry, and once a burst the epoch, the frontier, session lines and consumed
//!   indices. Expect 12 to 25 ns: slots are read and entries written one behind the other. The
//!   slots were written by this same core; taking them from a broker's core costs a line transfer
//!   each, which the scan of consecutive slots hides in part.

use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use landfall_control::sequencer::{Frontier, TopicSequencer};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::pool::Coherence;
use landfall_layout::slot::{ConsumedLine, RingLine, RingSlot};
use landfall_layout::topic::Order;
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::log::LogSegment;
use landfall_pool::map::memfd;
use landfall_pool::pool::{Pool, Shape};
use landfall_pool::slot_ring::{SlotReader, SlotWriter};

const BATCHES: usize = 1 << 16;
const RING_SLOTS: u32 = 4096;
const BURST: usize = 256;
const LEASE_NS: u64 = 10_000_000_000;

/// One arrival. After a whole round its sequence has moved on by `stride`.
#[derive(Clone, Copy)]
struct Arrival {
    seq: u64,
    session: u32,
    stride: u32,
    broker: BrokerId,
}

/// A round of arrivals: random sessions and brokers, each session in sequence.
struct Schedule {
    arrivals: Vec<Arrival>,
    at: usize,
    slot: RingSlot,
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

impl Schedule {
    fn new(brokers: usize, sessions: u32, sticky: bool) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut next = vec![0; sessions as usize];
        let mut arrivals: Vec<Arrival> = Vec::with_capacity(BATCHES);
        for _ in 0..BATCHES {
            let session = random.below(sessions as usize);
            let seq: u64 = next[session];
            next[session] += 1;
            let number = if sticky { session % brokers } else { random.below(brokers) };
            let broker = BrokerId::new(number).unwrap();
            arrivals.push(Arrival { seq, session: session as u32, stride: 0, broker });
        }
        for arrival in &mut arrivals {
            arrival.stride = next[arrival.session as usize] as u32;
        }
        let slot = RingSlot { session_epoch: 1, bytes: 4096, count: 4, ..RingSlot::default() };
        Self { arrivals, at: 0, slot }
    }

    #[inline]
    fn next(&mut self) -> (BrokerId, &RingSlot) {
        let arrival = &mut self.arrivals[self.at];
        self.at = (self.at + 1) % BATCHES;
        self.slot.client = u64::from(arrival.session) + 1;
        self.slot.session = arrival.session;
        self.slot.batch_seq = arrival.seq;
        self.slot.landed_ns += 100;
        arrival.seq += u64::from(arrival.stride);
        (arrival.broker, &self.slot)
    }
}

fn sequencer(order: Order, brokers: usize, sessions: u32) -> TopicSequencer {
    let mut sequencer = TopicSequencer::new(order, LEASE_NS, Frontier::default()).unwrap();
    for broker in BrokerId::all().take(brokers) {
        sequencer.open_ring(broker, RING_SLOTS, 0).unwrap();
    }
    for session in 0..sessions {
        sequencer.open_session(session, u64::from(session) + 1, 1, 0);
    }
    sequencer
}

fn cases() -> impl Iterator<Item = (usize, u32)> {
    [1, 4, 32].into_iter().flat_map(|brokers| [1, 100, 10_000].map(|sessions| (brokers, sessions)))
}

fn pure(c: &mut Criterion) {
    let mut group = c.benchmark_group("sequencer");
    for (name, order) in
        [("total", Order::Total), ("stream", Order::Stream), ("strong", Order::Strong)]
    {
        for (brokers, sessions) in cases() {
            let mut schedule = Schedule::new(brokers, sessions, order == Order::Stream);
            let mut sequencer = sequencer(order, brokers, sessions);
            let mut offered = 0;
            let id = BenchmarkId::new(name, format!("{brokers}-brokers/{sessions}-sessions"));
            group.bench_function(id, |b| {
                b.iter_custom(|batches| {
                    let start = Instant::now();
                    for batch in 0..batches {
                        let (broker, slot) = schedule.next();
                        let now_ns = slot.landed_ns;
                        sequencer.offer(broker, slot, |entry| {
                            black_box(&entry);
                        });
                        if batch as usize % BURST == BURST - 1 {
                            sequencer.tick(now_ns, |fencing| panic!("fenced: {fencing:?}"));
                            sequencer.drain_touched(|view| {
                                black_box(view.next_seq);
                            });
                        }
                    }
                    offered += batches;
                    start.elapsed()
                });
            });
            // A schedule that broke would be measured as cheap drops.
            let entries = sequencer.frontier().entries;
            assert_eq!(entries, offered);
        }
    }
    group.finish();
}

fn drive(c: &mut Criterion) {
    let mut schedule = Schedule::new(32, 10_000, false);
    c.bench_function("drive", |b| {
        b.iter(|| {
            black_box(schedule.next());
        });
    });
}

/// A topic in a pool, with its rings, its log, and the sequencer's loop over them.
struct Bed {
    pool: Pool,
    topic: TopicId,
    rings: Vec<(BrokerId, SlotWriter, SlotReader)>,
    log: LogSegment,
    epoch: u64,
    sequencer: TopicSequencer,
    schedule: Schedule,
}

impl Bed {
    fn new(order: Order, brokers: usize, sessions: u32) -> Self {
        let bytes = 192 << 20;
        let file = memfd("landfall-bench", bytes).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let shape = Shape {
            pool_bytes: bytes,
            segment_bytes: 2 << 20,
            sessions: sessions.max(64),
            coherence: Coherence::Coherent,
            uuid: [7; 16],
            now_ns: 1,
            sparse: true,
        };
        let pool = Pool::create_or_attach(&path, shape).unwrap();
        let topic = TopicId::new(3, 1);
        let rings = BrokerId::all()
            .take(brokers)
            .map(|broker| {
                let segment = broker.index() as u32;
                let slots = RING_SLOTS;
                let topic_raw = u64::from(topic.0);
                let line = RingLine { topic: topic_raw, segment, slots, ..RingLine::default() };
                pool.set_ring(topic.slot(), broker, &line);
                let consumed = ConsumedLine { topic: topic_raw, ..ConsumedLine::default() };
                pool.set_consumed(topic.slot(), broker, &consumed);
                let ring = pool.slot_ring(topic, broker).unwrap();
                (broker, SlotWriter::resume(&pool, ring), SlotReader::new(ring))
            })
            .collect();
        let segment = SegmentId(40);
        let log = LogSegment {
            segment,
            at: pool.geometry().segment(segment).unwrap(),
            base: 0,
            capacity: pool.geometry().entries_per_segment(),
        };
        pool.start_frontier(topic, SEQUENCED_LOG);
        let sequencer = sequencer(order, brokers, sessions);
        let schedule = Schedule::new(brokers, sessions, true);
        Self { epoch: pool.epoch_number(), pool, topic, rings, log, sequencer, schedule }
    }

    /// The brokers' side, which is not measured.
    fn land(&mut self, batches: usize) {
        for _ in 0..batches {
            let (broker, slot) = self.schedule.next();
            let (_, writer, _) = &mut self.rings[broker.index()];
            writer.push(&self.pool, slot).expect("a round fits the rings");
        }
    }

    /// Orders everything that was landed, a burst of at most `BURST` slots of each ring at a time.
    fn order(&mut self, now_ns: u64) {
        let Self { pool, topic, rings, log, epoch, sequencer, .. } = self;
        let before = sequencer.frontier().entries;
        for (broker, _, reader) in rings.iter() {
            for _ in 0..BURST {
                let Some(slot) = reader.peek(pool, sequencer.scan_index(*broker)) else { break };
                sequencer.offer(*broker, &slot, |entry| {
                    let index = entry.commit - 1;
                    if !log.holds(index) {
                        // The same memory again: a log that grows faults in pages, which is the
                        // kernel's cost and not this loop's.
                        log.base = index;
                    }
                    log.write(pool, index, &entry);
                });
            }
        }
        sequencer.tick(now_ns, |fencing| panic!("fenced: {fencing:?}"));
        if sequencer.frontier().entries == before {
            return;
        }
        let frontier = sequencer.frontier();
        pool.say_written(*topic, frontier.entries, frontier.bytes);
        assert!(pool.leads(*epoch), "nobody else leads this pool");
        let line = sequencer.frontier().line(topic.0, now_ns);
        pool.advance_frontier(*topic, SEQUENCED_LOG, &line);
        sequencer.drain_touched(|view| pool.set_session_next(view.index, view.next_seq));
        for (broker, _, reader) in rings.iter() {
            reader.release(pool, sequencer.consumed(*broker));
        }
    }
}

fn through_memory(c: &mut Criterion) {
    let mut group = c.benchmark_group("loop");
    for (name, order) in [("total", Order::Total), ("strong", Order::Strong)] {
        for (brokers, sessions) in cases() {
            let mut bed = Bed::new(order, brokers, sessions);
            let mut landed = 0;
            let id = BenchmarkId::new(name, format!("{brokers}-brokers/{sessions}-sessions"));
            group.bench_function(id, |b| {
                b.iter_custom(|batches| {
                    let mut elapsed = Duration::ZERO;
                    let end = landed + batches;
                    while landed < end {
                        let round = (end - landed).min(2048);
                        bed.land(round as usize);
                        landed += round;
                        let start = Instant::now();
                        while bed.sequencer.frontier().entries < landed {
                            bed.order(landed);
                        }
                        elapsed += start.elapsed();
                    }
                    elapsed
                });
            });
            let frontier = bed.pool.frontier(bed.topic, SEQUENCED_LOG);
            assert_eq!(frontier.entries, landed);
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(900))
        .without_plots();
    targets = drive, pure, through_memory
}
criterion_main!(benches);
