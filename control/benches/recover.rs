//! How long a control takes from its election until it serves, by the batches in the pool.
//!
//! Expected: below a second for a million batches. What grows with them is the replay of the order
//! log, one entry a batch, some tens of nanoseconds each; the rest is the copy of the tables, a few
//! megabytes, the same for every pool of a size. The tables of the last leader and one topic of
//! order `strong` with its log are made by hand; payload is not looked at by a control that starts.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use landfall_control::{Control, Options};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{ChainLine, FrontierLine, OrderEntry};
use landfall_layout::pool::{Coherence, LeaderLine, Term};
use landfall_layout::segment::{OWNER_CONTROL, SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_pool::log::LogSegment;
use landfall_pool::map::memfd;
use landfall_pool::pool::Shape;

const SESSIONS: u64 = 1000;

fn topic() -> TopicId {
    TopicId::new(3, 1)
}

fn set_topic(pool: &Pool) {
    let mut name = [0; 120];
    name[0] = b'a';
    pool.set_topic(&TopicEntry {
        version: 0,
        id: topic().0,
        state: TopicState::Live as u8,
        order: Order::Strong.raw(),
        flags: 0,
        replicas: 1,
        ring_slots: 4096,
        name_bytes: 1,
        retention_bytes: 0,
        retention_ns: 0,
        created_ns: 1,
        session_lease_ns: 1_000_000_000,
        name,
        replica_brokers: 0,
        reserved8: [0; 7],
        disk_bytes: 0,
        disk_ns: 0,
        deleted_ns: 0,
        life: 0,
        begin_index: 0,
        begin_position: 0,
        reserved: [0; 3],
    });
}

/// A log of `batches` entries of all sessions in turn.
fn fill(pool: &Pool, batches: u64) {
    let capacity = pool.geometry().entries_per_segment();
    let segments = batches.div_ceil(capacity) as u32;
    let what = What {
        kind: SegmentKind::OrderLog,
        state: SegmentState::Open,
        owner: OWNER_CONTROL,
        log: SEQUENCED_LOG as u8,
        topic: topic(),
    };
    for segment in 0..segments {
        let base = u64::from(segment) * capacity;
        let header = SegmentHeader {
            what: what.pack(),
            generation: u64::from(segment) + 1,
            base_index: base,
            next: if segment + 1 < segments { segment + 1 } else { SegmentId::NONE.0 },
            ..SegmentHeader::FREE
        };
        pool.give_segment(SegmentId(segment), &header);
        let at = pool.geometry().segment(SegmentId(segment)).expect("the pool has it");
        let log = LogSegment { segment: SegmentId(segment), at, base, capacity };
        for index in base..batches.min(base + capacity) {
            let entry = OrderEntry {
                first_position: 10 * index,
                client: 1 + index % SESSIONS,
                batch_seq: index / SESSIONS,
                landed_ns: 1000 + index,
                session_epoch: 1,
                ring_index: index as u32,
                segment: segments,
                bytes: 256,
                count: 10,
                ..OrderEntry::default()
            };
            log.write(pool, index, &entry);
        }
    }
    for index in 0..SESSIONS {
        let standing = Standing { epoch: 1, state: SessionState::Active }.pack();
        let line =
            SessionLine { standing, client: 1 + index, topic: topic().0, ..SessionLine::default() };
        pool.set_session(index as u32, &line);
    }
    let line = ChainLine { tail: segments - 1, topic: topic().0.into(), ..ChainLine::default() };
    pool.set_chain(topic(), SEQUENCED_LOG, &line);
    pool.start_frontier(topic(), SEQUENCED_LOG);
    pool.say_written(topic(), batches, 256 * batches);
    let frontier = FrontierLine {
        entries: batches,
        position: 10 * batches,
        bytes: 256 * batches,
        ..FrontierLine::default()
    };
    pool.advance_frontier(topic(), SEQUENCED_LOG, &frontier);
    set_topic(pool);
}

fn recover(c: &mut Criterion) {
    let mut group = c.benchmark_group("recover");
    for batches in [1_000_u64, 100_000, 1_000_000] {
        let bytes = 256 << 20;
        let file = memfd("landfall-bench", bytes).expect("a memfd");
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let shape = Shape {
            pool_bytes: bytes,
            segment_bytes: 8 << 20,
            sessions: 16_384,
            coherence: Coherence::Coherent,
            uuid: [8; 16],
            now_ns: 1,
            sparse: true,
        };
        let pool = Pool::create_or_attach(&path, shape).expect("a pool");
        let term = Term { epoch: 1, serves: false }.pack();
        assert!(pool.claim(0, &LeaderLine { term, ..LeaderLine::default() }));
        fill(&pool, batches);
        assert!(pool.serve(1));
        drop(pool);
        group.throughput(Throughput::Elements(batches));
        group.bench_function(BenchmarkId::from_parameter(batches), |b| {
            b.iter_custom(|times| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..times {
                    let start = Instant::now();
                    let pool = Arc::new(Pool::attach(&path).expect("it is there"));
                    let control = Control::start(pool, &path, Options::default()).expect("a lead");
                    elapsed += start.elapsed();
                    let asker = control.asker().expect("a socket");
                    let frontier = asker.pool().frontier(topic(), SEQUENCED_LOG);
                    assert_eq!(frontier.entries, batches, "the log is what it was");
                    let next = asker.pool().session(0).map(|line| line.next_seq);
                    assert!(next.is_some());
                }
                elapsed
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .without_plots();
    targets = recover
}
criterion_main!(benches);
