//! What a new control makes of a pool that another one left in mid-step.

mod fake;

use fake::{Batch, Broker, Memory as Anonymous, System, spec};
use landfall_control::election::{Candidate, NotElected};
use landfall_control::messages::Ask;
use landfall_control::recovery::{Had, Kept, Recovered, recover};
use landfall_control::segments::LastEntries;
use landfall_control::{Control, Options, StartError};
use landfall_layout::command::Command;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::segment::{OWNER_CONTROL, SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::session::{Opening, SessionLine, SessionState, Standing};
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::lock::Locks;
use landfall_pool::{Memory, Pool, host};
use std::sync::Arc;

const KEPT: Kept = Kept { wall_ns: 1_000, boot_ns: 1_000, kept_ns: 100 };

fn entry(name: &str, id: TopicId, order: Order) -> TopicEntry {
    let mut bytes = [0; 120];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    TopicEntry {
        version: 0,
        id: id.0,
        state: TopicState::Live as u8,
        order: order.raw(),
        flags: 0,
        replicas: 1,
        ring_slots: 16,
        name_bytes: name.len() as u32,
        retention_bytes: 0,
        retention_ns: 0,
        created_ns: 1,
        session_lease_ns: 1,
        name: bytes,
        replica_brokers: 0,
        reserved8: [0; 7],
        disk_bytes: 0,
        disk_ns: 0,
        deleted_ns: 0,
        life: 0,
        begin_index: 0,
        begin_position: 0,
        reserved: [0; 3],
    }
}

fn give(pool: &Pool, segment: u32, kind: SegmentKind, topic: TopicId) {
    let log = SEQUENCED_LOG as u8;
    let what = What { kind, state: SegmentState::Open, owner: OWNER_CONTROL, log, topic };
    let header = SegmentHeader { what: what.pack(), generation: 40, ..SegmentHeader::FREE };
    pool.give_segment(SegmentId(segment), &header);
}

/// A pool whose tables are those of a leader that is gone.
fn led(memory: &Anonymous) -> Arc<Pool> {
    let pool = memory.pool(48);
    let term = Term { epoch: 1, serves: false }.pack();
    // It was of this host, and its process is gone.
    let locked = Locks::open(&pool).unwrap().identity();
    let line = LeaderLine { term, host: host::id(), locked, ..LeaderLine::default() };
    assert!(pool.claim(0, &line));
    assert!(pool.serve(1));
    pool
}

fn recovered(pool: &Arc<Pool>) -> Recovered {
    let lasts = LastEntries::new(pool.geometry().segments());
    recover(pool, 2, &lasts, KEPT, (&Locks::open(pool).unwrap(), None), &Had::new()).unwrap()
}

#[test]
fn a_fresh_pool_has_nothing() {
    let memory = Anonymous::new();
    let pool = led(&memory);
    let found = recovered(&pool);
    assert_eq!(found.state.segments.free(), pool.geometry().segments());
    assert!(found.state.topics.iter().all(Option::is_none));
    assert!(found.commands.is_empty() && found.notes.is_empty());
}

#[test]
fn what_nothing_leads_to_is_given_back_and_generations_go_on() {
    let memory = Anonymous::new();
    let pool = led(&memory);
    let id = TopicId::new(3, 1);
    pool.set_topic(&entry("a", id, Order::Total));
    give(&pool, 0, SegmentKind::OrderLog, id);
    give(&pool, 1, SegmentKind::Ring, id);
    give(&pool, 2, SegmentKind::Payload, TopicId::new(3, 9));
    let found = recovered(&pool);
    // The topic's log had no chain, so it begins with a segment of its own.
    assert_eq!(found.state.segments.free(), pool.geometry().segments() - 1);
    let chain = pool.chain(id, SEQUENCED_LOG).unwrap();
    let header = pool.segment_header(SegmentId(chain.head)).unwrap();
    assert_eq!((header.generation, header.epoch, header.base_index), (41, 2, 0));
    assert_eq!(found.commands.len(), 1);
}

#[test]
fn a_header_that_says_nothing_known_is_left_alone_and_told() {
    let memory = Anonymous::new();
    let pool = led(&memory);
    let strange = SegmentHeader { what: 0x77, ..SegmentHeader::FREE };
    pool.give_segment(SegmentId(4), &strange);
    let found = recovered(&pool);
    assert_eq!(found.state.segments.free(), pool.geometry().segments() - 1);
    assert!(found.notes[0].contains("segment 4"), "{:?}", found.notes);
    assert_eq!(pool.segment_header(SegmentId(4)).unwrap().what, 0x77);
}

#[test]
fn a_topic_that_was_being_written_is_deleted() {
    let memory = Anonymous::new();
    let pool = led(&memory);
    let id = TopicId::new(5, 2);
    pool.set_topic(&entry("a", id, Order::Total));
    let at = pool.geometry().topic(5);
    pool.store_release(at, pool.load(at) + 1);
    assert!(pool.topic_in_slot(5).is_none(), "nobody can read it");
    let found = recovered(&pool);
    assert_eq!(pool.topic_in_slot(5).unwrap().state(), TopicState::Deleting);
    assert!(!found.state.topics[5].as_ref().unwrap().is_live());
    let control = Control::start(pool, &memory.path(), Options::default()).unwrap();
    let state = || control.asker().unwrap().pool().topic_in_slot(5).map(|entry| entry.state());
    fake::eventually("its end", || (state() == Some(TopicState::Absent)).then_some(()));
    let cluster = control.asker().unwrap().ask_now(Ask::Cluster).unwrap();
    assert_eq!(cluster.pool.segments_free, cluster.pool.segments);
}

#[test]
fn an_order_that_cannot_be_served_stops_control_and_changes_nothing() {
    let memory = Anonymous::new();
    let pool = led(&memory);
    let unknown = TopicEntry { order: 9, ..entry("a", TopicId::new(0, 1), Order::Total) };
    pool.set_topic(&unknown);
    let error = Control::start(Arc::clone(&pool), &memory.path(), Options::default());
    let Err(StartError::Topic(unknown)) = error else { panic!("it started") };
    assert!(unknown.to_string().contains("\"a\""), "{unknown}");
    assert_eq!(pool.topic_in_slot(0).unwrap().state(), TopicState::Live);
}

#[test]
fn session_lines_of_topics_that_are_gone_are_free_again() {
    let memory = Anonymous::new();
    let pool = led(&memory);
    let there = TopicId::new(0, 2);
    pool.set_topic(&entry("a", there, Order::Strong));
    let standing = Standing { epoch: 4, state: SessionState::Active }.pack();
    for (index, topic) in [(0, TopicId::new(0, 1)), (1, there)] {
        let line = SessionLine { standing, client: 9, topic: topic.0, ..SessionLine::default() };
        pool.set_session(index, &line);
    }
    let found = recovered(&pool);
    assert_eq!(pool.session_standing(0).unwrap().state, SessionState::Free);
    assert_eq!(found.sessions.index_of(there, 9), Some(1));
    assert_eq!(found.sessions.get(1).unwrap().standing.epoch, 4);
}

#[test]
fn what_is_left_of_a_session_line_that_was_being_cleared_is_cleared() {
    let memory = Anonymous::new();
    let pool = led(&memory);
    // Who cleared it died after the client and before the rest.
    let line = SessionLine { next_seq: 60, topic: 256, ..SessionLine::default() };
    pool.set_session(1, &line);
    recovered(&pool);
    let left = pool.session(1).unwrap();
    assert_eq!((left.next_seq, left.topic), (0, 0));
}

#[test]
fn one_control_leads_a_pool_at_a_time() {
    let system = System::start(48);
    let again = Control::start(Arc::clone(&system.pool), &system.memory.path(), Options::default());
    let Err(error) = again else { panic!("two lead") };
    let led = |error: &StartError| match error {
        StartError::NotElected(NotElected::Led { epoch, .. }) => *epoch,
        _ => 0,
    };
    assert_eq!(led(&error), 1, "{error}");
    assert_eq!(system.pool.epoch_number(), 1, "nothing was changed");
}

/// It copies tables, or reads disks: nobody serves meanwhile.
#[test]
fn one_that_is_elected_and_takes_over_is_not_deposed() {
    let mut system = System::start(48);
    system.stop();
    let stand = || Candidate::new(&system.pool, 3_000_000_000).unwrap().stand(&system.pool);
    let Ok(elected) = stand() else { panic!("nobody leads") };
    assert_eq!(elected.epoch, 2);
    let Err((_, why)) = stand() else { panic!("two take over") };
    assert!(matches!(why, NotElected::Led { epoch: 2, .. }), "{why}");
    // It ends on the way.
    drop(elected);
    let Ok(next) = stand() else { panic!("nobody takes over any more") };
    assert_eq!((next.epoch, next.from.is_some()), (3, true));
}

#[test]
fn a_control_that_was_deposed_orders_nothing_more() {
    let system = System::start(64);
    let topic = system.topic("a", "total");
    let mut broker = Broker::register(&system.pool, 0, 1);
    let mut ring = broker.open_ring(topic);
    let granted = broker.want(topic, SegmentKind::Payload);
    let (session, epoch, _) = broker.session(topic, 7, 0);
    let other = Pool::attach(&system.memory.path()).unwrap();
    let term = Term { epoch: 9, serves: false }.pack();
    assert!(other.claim(3, &LeaderLine { term, ..LeaderLine::default() }));
    let batch = Batch { topic, granted, client: 7, session, epoch, seq: 0, offset: 0 };
    broker.land(&mut ring, batch);
    let control = system.control.as_ref().unwrap();
    let why = fake::eventually("the end", || control.failure());
    assert!(why.contains("epoch 9"), "{why}");
    assert_eq!(system.pool.frontier(topic, SEQUENCED_LOG).entries, 0);
    assert_eq!(system.consumed(topic, broker.id), 0);
}

/// Who leads then cannot use what this one may still write into, as long as it is there.
#[test]
fn a_control_that_was_deposed_ends_though_nothing_happens() {
    let system = System::start(48);
    let other = Pool::attach(&system.memory.path()).unwrap();
    let term = Term { epoch: 9, serves: false }.pack();
    assert!(other.claim(3, &LeaderLine { term, ..LeaderLine::default() }));
    let control = system.control.as_ref().unwrap();
    let why = fake::eventually("the end", || control.failure());
    assert!(why.contains("epoch 9"), "{why}");
}

#[test]
fn a_request_that_was_carried_out_opens_no_second_epoch_under_the_next_control() {
    let mut system = System::start(48);
    let topic = system.topic("a", "strong");
    let mut broker = Broker::register(&system.pool, 0, 7);
    let (first, request) = broker.open_session(topic, 9, 0);
    let Command::SessionOpen { epoch: 1, index, .. } = first else { panic!("{first:?}") };
    system.stop();
    system.start_again();
    // Its answer may have been lost with the control that gave it.
    let again = broker.ask_session(topic, 9, 0, request);
    assert!(matches!(again, Command::SessionOpen { epoch: 1, index: of, .. } if of == index));
    assert_eq!(broker.session(topic, 9, 0), (index, 2, 0), "another request opens another one");
    // Died while it opened the third: the words in front of the standing are stored, it is not.
    let mut line = system.pool.session(index).unwrap();
    (line.opened_epoch, line.opened_by) = (3, Opening::by(0, 77, false).pack());
    system.pool.set_session(index, &line);
    system.stop();
    system.start_again();
    assert_eq!(broker.session(topic, 9, 2), (index, 2, 0));
    let third = broker.ask_session(topic, 9, 0, 77);
    assert!(matches!(third, Command::SessionOpen { epoch: 3, .. }), "{third:?}");
}

#[test]
fn topics_and_positions_survive_many_restarts_without_leaking_segments() {
    let mut system = System::start(64);
    for order in ["none", "broker", "total", "stream", "strong"] {
        system.create(spec(order, order)).unwrap();
    }
    let free = system.free();
    for _ in 0..20 {
        system.stop();
        system.start_again();
    }
    assert_eq!(system.free(), free);
    for order in ["none", "broker", "total", "stream", "strong"] {
        assert_eq!(system.describe(order).unwrap().order, order);
    }
}

#[test]
fn what_is_kept_for_the_dead_is_bounded_at_a_takeover() {
    let memory = Anonymous::new();
    let pool = led(&memory);
    let id = TopicId::new(3, 1);
    pool.set_topic(&entry("a", id, Order::Total));
    let (kind, state) = (SegmentKind::Payload, SegmentState::Sealed);
    let what = What { kind, state, owner: 5, log: 0, topic: id };
    for segment in 0..12 {
        let sealed_ns = landfall_pool::clock::wall_ns();
        let header = SegmentHeader { what: what.pack(), sealed_ns, ..SegmentHeader::FREE };
        pool.give_segment(SegmentId(segment), &header);
    }
    let options = Options { kept_ns: u64::MAX / 2, ..Options::default() };
    let control = Control::start(Arc::clone(&pool), &memory.path(), options).unwrap();
    let in_use = || {
        let facts = control.asker().unwrap().ask_now(Ask::Cluster).unwrap().pool;
        facts.segments - facts.segments_free
    };
    // The latest of them, and the topic's log.
    let kept = (pool.geometry().segments() / 8).max(2);
    fake::eventually("the rest is free", || (in_use() <= kept + 1).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(100));
    let is_kept = |segment: &u32| pool.segment_header(SegmentId(*segment)).unwrap().what != 0;
    assert_eq!((0..12).filter(is_kept).collect::<Vec<u32>>(), (12 - kept..12).collect::<Vec<_>>());
}
