//! Where everything lies: no two structures share a byte, and none reaches past the pool.

use landfall_layout::command::COMMAND_RING_BYTES;
use landfall_layout::counters::{COUNTER_BLOCK_BYTES, ERROR_LOG_BYTES};
use landfall_layout::geometry::{CONTROL_BLOCK, Geometry, GeometryError};
use landfall_layout::limits::*;
use landfall_layout::pool::BrokerAddress;
use landfall_layout::topic::TopicEntry;
use landfall_layout::{BrokerId, SegmentId};
use proptest::prelude::*;

/// The structures of one leader slot.
fn pieces_of_leader(geometry: &Geometry, add: &mut impl FnMut(u64, u64, String)) {
    let leader = geometry.leader_slot();
    let mut add = |at, bytes, name: String| add(at, bytes, format!("{name} of leader {leader}"));
    add(geometry.leader_heartbeat(), LINE_BYTES, "heartbeat".into());
    add(geometry.sequencer_parked(), LINE_BYTES, "sequencer parked".into());
    add(geometry.keeper_parked(), LINE_BYTES, "keeper parked".into());
    let (first, bytes) = geometry.tables();
    let copied = |at: u64, name: &str| {
        assert!((first..first + bytes).contains(&at), "{name} at {at} is not copied");
    };
    for broker in BrokerId::all() {
        add(geometry.commands(broker), COMMAND_RING_BYTES, format!("commands {broker}"));
        add(geometry.requests_taken(broker), LINE_BYTES, format!("requests taken {broker}"));
        copied(geometry.requests_taken(broker), "requests taken");
    }
    for slot in 0..TOPICS_MAX {
        add(geometry.topic(slot), TopicEntry::BYTES, format!("topic {slot}"));
        copied(geometry.topic(slot), "topic");
        let at = geometry.frontier(slot, SEQUENCED_LOG);
        add(at, LINE_BYTES, format!("frontier {slot}"));
        for log in 0..LOGS_PER_TOPIC {
            add(geometry.chain(slot, log), LINE_BYTES, format!("chain {slot} {log}"));
        }
        let keepers = geometry.keepers(slot, BrokerId::new(0).expect("below the bound"));
        add(keepers, BROKERS_MAX as u64 * 8, format!("keepers {slot}"));
        let tails = geometry.tail(slot, BrokerId::new(0).expect("below the bound"));
        add(tails, BROKERS_MAX as u64 * 8, format!("tails {slot}"));
        for broker in BrokerId::all() {
            copied(geometry.keepers(slot, broker), "keepers");
            copied(geometry.tail(slot, broker), "tails");
            assert_eq!(geometry.tail(slot, broker), tails + 8 * broker.index() as u64);
            let at = keepers + 8 * broker.index() as u64;
            assert_eq!(geometry.keepers(slot, broker), at, "a word each");
            add(geometry.ring(slot, broker), LINE_BYTES, format!("ring {slot} {broker}"));
            add(geometry.consumed(slot, broker), LINE_BYTES, format!("consumed {slot} {broker}"));
        }
    }
    add(geometry.counters(CONTROL_BLOCK), COUNTER_BLOCK_BYTES, "counters".into());
    add(geometry.errors(CONTROL_BLOCK), ERROR_LOG_BYTES, "errors".into());
    for index in [0, geometry.sessions() / 2, geometry.sessions() - 1] {
        let at = geometry.session(index).expect("below the count");
        add(at, LINE_BYTES, format!("session {index}"));
        copied(at, "session");
    }
    for index in [0, geometry.segments() / 2, geometry.segments() - 1] {
        let at = geometry.segment_header(SegmentId(index)).expect("below the count");
        add(at, LINE_BYTES, format!("segment header {index}"));
        copied(at, "segment header");
    }
}

/// Every structure of a pool: its first byte, the byte past its last, and its name.
fn pieces(geometry: &Geometry) -> Vec<(u64, u64, String)> {
    let mut pieces = Vec::new();
    let mut add = |at: u64, bytes: u64, name: String| pieces.push((at, at + bytes, name));
    add(0, LINE_BYTES, "header".into());
    for broker in BrokerId::all() {
        add(geometry.broker_line(broker), LINE_BYTES, format!("broker {broker}"));
        add(geometry.broker_parked(broker), LINE_BYTES, format!("parked {broker}"));
        add(geometry.broker_address(broker), BrokerAddress::BYTES, format!("address {broker}"));
        add(geometry.commands_taken(broker), LINE_BYTES, format!("taken {broker}"));
        add(geometry.requests(broker), COMMAND_RING_BYTES, format!("requests {broker}"));
    }
    for slot in 0..TOPICS_MAX {
        for log in 0..BROKERS_MAX {
            add(geometry.frontier(slot, log), LINE_BYTES, format!("frontier {slot} {log}"));
        }
        for broker in BrokerId::all() {
            add(geometry.lost(slot, broker), LINE_BYTES, format!("lost {slot} {broker}"));
            for replica in 0..DISK_REPLICAS_MAX {
                let at = geometry.replica(slot, broker, replica);
                add(at, LINE_BYTES, format!("replica {slot} {broker} {replica}"));
            }
            for line in 0..STAND_INS_MAX {
                let at = geometry.stand_in(slot, broker, line);
                add(at, LINE_BYTES, format!("stand-in {slot} {broker} {line}"));
            }
        }
    }
    for block in 0..CONTROL_BLOCK {
        add(geometry.counters(block), COUNTER_BLOCK_BYTES, format!("counters {block}"));
        add(geometry.errors(block), ERROR_LOG_BYTES, format!("errors {block}"));
    }
    for slot in 0..LEADERS_MAX {
        add(geometry.leader_line(slot), LINE_BYTES, format!("leader {slot}"));
        pieces_of_leader(&geometry.of_leader(slot), &mut add);
    }
    for index in [0, geometry.segments() / 2, geometry.segments() - 1] {
        let at = geometry.segment(SegmentId(index)).expect("below the count");
        add(at, geometry.segment_bytes(), format!("segment {index}"));
    }
    pieces
}

fn check(geometry: &Geometry) {
    let mut pieces = pieces(geometry);
    pieces.sort();
    // With few sessions or segments the first, middle and last are the same.
    pieces.dedup();
    for pair in pieces.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{:?} overlaps {:?} in {geometry:?}", pair[0], pair[1]);
    }
    let last = pieces.last().expect("never empty");
    assert!(last.1 <= geometry.pool_bytes(), "{last:?} is past the end of {geometry:?}");
    for (at, _, name) in &pieces {
        assert!(at.is_multiple_of(LINE_BYTES), "{name} at {at} begins in mid-line");
    }
    let first = geometry.segment(SegmentId(0)).expect("there is one");
    assert_eq!(first, geometry.head_bytes());
    assert!(first.is_multiple_of(SEGMENT_BYTES_MIN), "segments begin on a huge page");
    assert!(u64::from(geometry.segments()) >= SEGMENTS_MIN);
    let left =
        geometry.pool_bytes() - first - u64::from(geometry.segments()) * geometry.segment_bytes();
    assert!(left < geometry.segment_bytes(), "{left} bytes are given to nobody in {geometry:?}");
}

#[test]
fn default_sizes_fit() {
    let geometry = Geometry::new(POOL_BYTES_DEFAULT, SEGMENT_BYTES_DEFAULT, SESSIONS_DEFAULT)
        .expect("the defaults are possible");
    check(&geometry);
    assert_eq!(geometry.batch_bytes_max(), BATCH_BYTES_MAX);
    assert!(geometry.head_bytes() < 32 << 20, "the tables take {}", geometry.head_bytes());
}

#[test]
fn the_bounds_themselves_fit() {
    for segment_bytes in [SEGMENT_BYTES_MIN, 4 << 20, 8 << 20, 512 << 20, SEGMENT_BYTES_MAX] {
        for sessions in [1, SESSIONS_DEFAULT, SESSIONS_MAX] {
            let need = match Geometry::new(0, segment_bytes, sessions) {
                Err(GeometryError::TooSmall { bytes: 0, need }) => need,
                other => panic!("a pool of 0 bytes gave {other:?}"),
            };
            let smallest = Geometry::new(need, segment_bytes, sessions).expect("what was asked");
            assert_eq!(u64::from(smallest.segments()), SEGMENTS_MIN);
            check(&smallest);
            let error = Geometry::new(need - 1, segment_bytes, sessions);
            assert_eq!(error, Err(GeometryError::TooSmall { bytes: need - 1, need }));
        }
    }
    let most = Geometry::new(SEGMENTS_MAX * SEGMENT_BYTES_MIN, SEGMENT_BYTES_MIN, SESSIONS_MAX)
        .expect("as many segments as there may be");
    check(&most);
}

#[test]
fn errors_carry_the_numbers_and_say_what_to_do() {
    let text = |pool, segment, sessions| {
        Geometry::new(pool, segment, sessions).expect_err("impossible").to_string()
    };
    let small = text(1 << 20, SEGMENT_BYTES_MIN, 1);
    assert!(small.contains("1048576") && small.contains("need"), "{small}");
    let odd = text(1 << 30, 3 << 20, 1);
    assert!(odd.contains("3145728") && odd.contains("2097152"), "{odd}");
    assert!(text(1 << 30, 1 << 20, 1).contains("1048576"));
    assert!(text(1 << 40, 2 << 30, 1).contains("2147483648"));
    assert!(text(1 << 30, 0, 1).contains("0 bytes"));
    assert!(text(1 << 30, 2 << 20, 0).contains("0 sessions"));
    assert!(text(1 << 30, 2 << 20, SESSIONS_MAX + 1).contains("1048577"));
    let large = text(u64::MAX, SEGMENT_BYTES_MIN, 1);
    assert!(large.contains("8796093022207"), "{large}");
}

#[test]
fn what_is_outside_has_no_offset() {
    let geometry = Geometry::new(64 << 20, 2 << 20, 10).expect("possible");
    assert_eq!(geometry.session(10), None);
    assert_eq!(geometry.segment(SegmentId(geometry.segments())), None);
    assert_eq!(geometry.segment_header(SegmentId::NONE), None);
    assert_eq!(geometry.segment(SegmentId::NONE), None);
    let one = SegmentId(1);
    let whole = geometry.segment_bytes() as u32;
    assert_eq!(geometry.span(one, 0, whole), geometry.segment(one));
    assert_eq!(geometry.span(one, 64, whole), None);
    assert_eq!(geometry.span(one, whole, 0), Some(geometry.segment(one).unwrap() + 2 * (1 << 20)));
    assert_eq!(geometry.span(one, u32::MAX, u32::MAX), None);
    assert_eq!(geometry.span(SegmentId::NONE, 0, 0), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_two_structures_overlap(
        pool in 16_u64 << 20..64 << 30,
        shift in 21_u32..=30,
        sessions in 1_u32..200_000,
    ) {
        if let Ok(geometry) = Geometry::new(pool, 1 << shift, sessions) {
            check(&geometry);
        }
    }

    #[test]
    fn any_sizes_give_a_geometry_or_an_error(
        pool: u64, segment: u64, shift in 0_u32..64, sessions: u32,
    ) {
        for segment in [segment, 1 << shift] {
            match Geometry::new(pool, segment, sessions) {
                Ok(geometry) => prop_assert_eq!(geometry.pool_bytes(), pool),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
