//! Logs with more entries than the keeper reads in one turn: what it sums and gathers is whole.

mod fake;

use fake::{Broker, Granted, System, eventually, spec};
use landfall_control::Options;
use landfall_control::answers::TopicSpec;
use landfall_layout::batch::{BatchPreamble, PADDING_MAGIC};
use landfall_layout::command::{Command, Request};
use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::segment::SegmentKind;
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::Memory;
use landfall_pool::log::LogSegment;

/// More than two turns read.
const ENTRIES: u64 = 150_000;
const BYTES: u32 = 64;

/// Lands entries in the broker's own log of a topic, each of a message, where `place` says.
fn fill(broker: &mut Broker, topic: TopicId, place: impl Fn(u64) -> (Granted, u32)) {
    let pool = broker.pool.clone();
    let (log, capacity) = (broker.id.index(), pool.geometry().entries_per_segment());
    pool.start_frontier(topic, log);
    for first in (0..ENTRIES).step_by(capacity as usize) {
        let granted = broker.want(topic, SegmentKind::OrderLog);
        let (segment, base) = (SegmentId(granted.segment), granted.base_index);
        assert_eq!(base, first);
        let at = pool.at(granted.segment, 0, 64).unwrap();
        let part = LogSegment { segment, at, base, capacity };
        for index in first..ENTRIES.min(first + capacity) {
            let (payload, offset) = place(index);
            let entry = OrderEntry {
                client: 9,
                first_position: index,
                segment: payload.segment,
                offset,
                bytes: BYTES,
                count: 1,
                broker: broker.id.raw(),
                ..OrderEntry::default()
            };
            part.write(&*pool, index, &entry);
        }
    }
    let bytes = ENTRIES * u64::from(BYTES);
    let line = FrontierLine { entries: ENTRIES, position: ENTRIES, bytes, ..Default::default() };
    pool.advance_frontier(topic, log, &line);
}

/// What is behind a segment decides about it, to the byte.
#[test]
fn retention_by_bytes_counts_every_entry_behind_a_segment() {
    let system = System::start(64);
    let mut broker = Broker::register(&system.pool, 0, 1);
    let behind = (ENTRIES - 10) * u64::from(BYTES);
    for (name, retention_bytes) in [("kept", behind + 1), ("goes", behind)] {
        let bound = TopicSpec { retention_bytes: Some(retention_bytes), ..spec(name, "broker") };
        let topic = TopicId(system.create(bound).unwrap().id);
        let [first, rest] = [0; 2].map(|_| broker.want(topic, SegmentKind::Payload));
        fill(&mut broker, topic, |index| (if index < 10 { first } else { rest }, 0));
        let Granted { segment, generation, .. } = first;
        broker.ask(Request::Sealed { segment, generation, through: 10 });
        // Both are settled by the time that the second one goes: the first has come before.
        if name == "goes" {
            broker.wait("Retire", |command| {
                (command == Command::Retire { segment, generation }).then_some(())
            });
        }
        let is_gone = name == "goes";
        assert_eq!(system.pool.oldest(topic, 0), if is_gone { 10 } else { 0 }, "{name}");
    }
}

/// Batches that landed early and late in a long log are found before anything is padded.
#[test]
fn what_landed_anywhere_in_a_long_log_is_not_padded() {
    let options = Options { kept_ns: 100_000_000, ..Options::default() };
    let system = System::with(64, options);
    let topic = system.topic("a", "broker");
    let mut broker = Broker::register(&system.pool, 0, 1);
    let [torn, other] = [0; 2].map(|_| broker.want(topic, SegmentKind::Payload));
    fill(&mut broker, topic, |index| match index {
        0 => (torn, 128),
        last if last == ENTRIES - 1 => (torn, 512),
        _ => (other, 0),
    });
    let pool = system.pool.clone();
    let _next = Broker::register(&pool, 0, 2);
    let start = pool.at(torn.segment, 0, 64).unwrap();
    let preamble = |offset: u64| BatchPreamble::from_words(pool.load_words(start + offset));
    for (offset, end) in [(0, 128), (192, 512), (576, pool.geometry().segment_bytes())] {
        let head = eventually("padding", || {
            Some(preamble(offset)).filter(|preamble| preamble.magic == PADDING_MAGIC)
        });
        assert_eq!(offset + head.batch_bytes(), end);
    }
    assert_eq!((preamble(128).magic, preamble(512).magic), (0, 0), "what landed is not touched");
}
