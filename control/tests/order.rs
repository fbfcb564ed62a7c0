//! Slots become entries: sessions, duplicates, gaps, and a control that starts again.

mod fake;

use fake::{Batch, Broker, System, eventually, spec};
use landfall_control::answers::TopicSpec;
use landfall_layout::TopicId;
use landfall_layout::command::{Command, Denial, Request};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::segment::SegmentKind;
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_pool::Memory;
use landfall_pool::counters::ErrorLog;
use landfall_pool::slot_ring::SlotWriter;

const CLIENT: u64 = 77;

/// A broker with all it needs to land batches of one session.
struct Landing {
    broker: Broker,
    ring: SlotWriter,
    batch: Batch,
}

impl Landing {
    fn new(system: &System, topic: TopicId, number: usize, epoch: u32) -> Self {
        let mut broker = Broker::register(&system.pool, number, 100 + number as u64);
        let ring = broker.open_ring(topic);
        let granted = broker.want(topic, SegmentKind::Payload);
        let (session, epoch, _) = broker.session(topic, CLIENT, epoch);
        let batch = Batch { topic, granted, client: CLIENT, session, epoch, seq: 0, offset: 0 };
        Self { broker, ring, batch }
    }

    fn land(&mut self, seq: u64) {
        let offset = self.batch.offset;
        self.batch.offset += 128;
        self.broker.land(&mut self.ring, Batch { seq, offset, ..self.batch });
    }
}

fn sequences(system: &System, topic: TopicId) -> Vec<u64> {
    system.entries(topic).iter().map(|entry| entry.batch_seq).collect()
}

#[test]
fn strong_order_is_the_sessions_own_and_each_batch_comes_once() {
    let system = System::start(64);
    let topic = system.topic("a", "strong");
    let mut landing = Landing::new(&system, topic, 0, 0);
    for seq in [0, 1, 0, 2, 1, 3] {
        landing.land(seq);
    }
    system.wait_for_entries(topic, SEQUENCED_LOG, 4);
    system.wait_for_consumed(topic, landing.broker.id, 6);
    assert_eq!(sequences(&system, topic), [0, 1, 2, 3]);
    let entries = system.entries(topic);
    let positions: Vec<u64> = entries.iter().map(|entry| entry.first_position).collect();
    assert_eq!(positions, [0, 3, 6, 9]);
    assert_eq!(system.pool.session(landing.batch.session).unwrap().next_seq, 4);
    let described = system.describe("a").unwrap();
    assert_eq!((described.messages, described.batches, described.bytes), (12, 4, 512));
}

/// No broker lets such a batch in: what does so all the same costs its own session its epoch.
#[test]
fn a_batch_out_of_turn_ends_its_epoch_and_control_names_it() {
    let system = System::start(64);
    let topic = system.topic("a", "strong");
    let mut landing = Landing::new(&system, topic, 0, 0);
    for seq in [0, 2, 1] {
        landing.land(seq);
    }
    system.wait_for_consumed(topic, landing.broker.id, 3);
    assert_eq!(sequences(&system, topic), [0]);
    let line = system.pool.session(landing.batch.session).unwrap();
    let standing = Standing::unpack(line.standing);
    assert_eq!((standing.state, line.next_seq), (SessionState::Fenced, 1));
}

#[test]
fn a_repeated_session_request_opens_nothing_twice() {
    let system = System::start(64);
    let topic = system.topic("a", "strong");
    let mut broker = Broker::register(&system.pool, 0, 1);
    let (first, request) = broker.open_session(topic, CLIENT, 0);
    assert_eq!(broker.ask_session(topic, CLIENT, 0, request), first);
    assert_eq!(broker.session(topic, CLIENT, 1).1, 1, "the epoch is still the first");
    assert_eq!(broker.session(topic, CLIENT, 0).1, 2);
    let denied = broker.open_session(topic, CLIENT, 1).0;
    assert!(
        matches!(denied, Command::SessionDenied { why: Denial::Fenced, epoch: 2, .. }),
        "{denied:?}"
    );
    let denied = broker.open_session(TopicId(9999), CLIENT, 0).0;
    assert!(matches!(denied, Command::SessionDenied { why: Denial::NoTopic, .. }), "{denied:?}");
    let denied = broker.open_session(topic, 0, 0).0;
    assert!(matches!(denied, Command::SessionDenied { why: Denial::NoSession, .. }), "{denied:?}");
}

#[test]
fn entries_from_before_a_client_had_its_line_say_nothing_of_it_whatever_the_clocks_say() {
    let mut system = System::start(64);
    let topic = system.topic("a", "strong");
    let mut landing = Landing::new(&system, topic, 0, 0);
    (0..4).for_each(|seq| landing.land(seq));
    system.wait_for_consumed(topic, landing.broker.id, 4);
    // The line went to another client and back, which no clock knows of: all landed just now.
    system.stop();
    let index = landing.batch.session;
    let line = system.pool.session(index).unwrap();
    system.pool.set_session(index, &SessionLine { next_seq: 0, opened_at: 4, ..line });
    system.start_again();
    landing.land(0);
    system.wait_for_consumed(topic, landing.broker.id, 5);
    assert_eq!(sequences(&system, topic), [0, 1, 2, 3, 0]);
    // What came since is its own, also where the line is behind.
    system.stop();
    let line = system.pool.session(index).unwrap();
    system.pool.set_session(index, &SessionLine { next_seq: 0, ..line });
    system.start_again();
    landing.land(0);
    system.wait_for_consumed(topic, landing.broker.id, 6);
    assert_eq!(sequences(&system, topic), [0, 1, 2, 3, 0]);
}

#[test]
fn a_gap_that_outlives_the_lease_fences_and_the_next_epoch_goes_on() {
    let system = System::start(64);
    let lease = TopicSpec { session_lease_ms: Some(50), ..spec("a", "strong") };
    let topic = TopicId(system.create(lease).unwrap().id);
    let mut landing = Landing::new(&system, topic, 0, 0);
    landing.land(0);
    landing.land(2);
    let session = landing.batch.session;
    eventually("the fence", || {
        let standing = system.pool.session_standing(session).unwrap();
        (standing.state == SessionState::Fenced).then_some(())
    });
    system.wait_for_consumed(topic, landing.broker.id, 2);
    landing.land(1);
    system.wait_for_consumed(topic, landing.broker.id, 3);
    assert_eq!(sequences(&system, topic), [0], "nothing of a fenced epoch is ordered");
    eventually("the note", || {
        let errors = ErrorLog::new(&system.pool, landfall_layout::geometry::CONTROL_BLOCK);
        errors.entries(&system.pool).iter().any(|e| e.text().contains("fenced")).then_some(())
    });
    let (index, epoch, next_seq) = landing.broker.session(topic, CLIENT, 0);
    assert_eq!((index, epoch, next_seq), (session, 2, 1));
    landing.batch.epoch = epoch;
    landing.land(1);
    system.wait_for_entries(topic, SEQUENCED_LOG, 2);
    assert_eq!(sequences(&system, topic), [0, 1]);
}

#[test]
fn a_session_is_closed_when_it_said_goodbye_everywhere() {
    let system = System::start(64);
    let topic = system.topic("a", "strong");
    let mut first = Landing::new(&system, topic, 0, 0);
    let mut second = Landing::new(&system, topic, 1, 1);
    let (index, epoch) = (first.batch.session, first.batch.epoch);
    assert_eq!((second.batch.session, second.batch.epoch), (index, epoch));
    first.land(0);
    first.broker.ask(Request::CloseSession { index, epoch });
    // An answer to a later request says that the goodbye was taken.
    first.broker.session(topic, CLIENT + 1, 0);
    let state = || system.pool.session_standing(index).unwrap().state;
    assert_eq!(state(), SessionState::Active, "the other broker may have batches of it");
    second.land(1);
    system.wait_for_entries(topic, SEQUENCED_LOG, 2);
    second.broker.ask(Request::CloseSession { index, epoch });
    eventually("the end", || (state() == SessionState::Closed).then_some(()));
}

#[test]
fn a_control_that_starts_again_orders_each_slot_once() {
    let mut system = System::start(64);
    let topic = system.topic("a", "strong");
    let mut landing = Landing::new(&system, topic, 0, 0);
    let mut other = Landing::new(&system, topic, 1, 1);
    for seq in 0..5 {
        landing.land(seq);
    }
    system.wait_for_entries(topic, SEQUENCED_LOG, 5);
    system.wait_for_consumed(topic, landing.broker.id, 5);
    system.stop();
    other.land(5);
    other.land(6);
    // As if control had died between the frontier and what follows from it.
    let ring = system.pool.slot_ring(topic, landing.broker.id).unwrap();
    system.pool.store_release(ring.consumed_at, 2);
    system.pool.set_session_next(landing.batch.session, 1);
    for epoch in 2..5 {
        system.start_again();
        assert_eq!(system.pool.epoch_number(), epoch);
        system.wait_for_entries(topic, SEQUENCED_LOG, 7);
        system.wait_for_consumed(topic, landing.broker.id, 5);
        system.wait_for_consumed(topic, other.broker.id, 2);
        system.stop();
    }
    system.start_again();
    assert_eq!(sequences(&system, topic), (0..7).collect::<Vec<_>>());
    assert_eq!(landing.broker.session(topic, CLIENT, 1), (landing.batch.session, 1, 7));
    landing.land(7);
    landing.land(3);
    system.wait_for_entries(topic, SEQUENCED_LOG, 8);
    system.wait_for_consumed(topic, landing.broker.id, 7);
    let described = system.describe("a").unwrap();
    assert_eq!((described.batches, described.messages), (8, 24));
}

#[test]
fn entries_that_the_frontier_never_passed_are_not_read_by_anyone() {
    let mut system = System::start(64);
    let topic = system.topic("a", "total");
    let mut landing = Landing::new(&system, topic, 0, 0);
    landing.land(10);
    landing.land(11);
    system.wait_for_entries(topic, SEQUENCED_LOG, 2);
    // A reader that is in the segment, and knows of none behind it.
    let mut reader = landfall_pool::log::LogReader::new(topic, SEQUENCED_LOG);
    reader.entry(&system.pool, 1);
    system.stop();
    let chain = system.pool.chain(topic, SEQUENCED_LOG).unwrap();
    let at = system.pool.at(chain.tail, 0, 64).unwrap();
    let old = landfall_pool::log::LogSegment {
        segment: landfall_layout::SegmentId(chain.tail),
        at,
        base: 0,
        capacity: system.pool.geometry().entries_per_segment(),
    };
    let lost = landfall_layout::order::OrderEntry { batch_seq: 99, ..Default::default() };
    old.write(&*system.pool, 2, &lost);
    landing.land(12);
    system.start_again();
    system.wait_for_entries(topic, SEQUENCED_LOG, 3);
    match reader.entry(&system.pool, 2) {
        landfall_pool::log::Found::Entry(entry) => assert_eq!(entry.batch_seq, 12),
        other => panic!("{other:?}"),
    }
    assert_eq!(sequences(&system, topic), [10, 11, 12]);
}

#[test]
fn a_log_grows_over_many_segments() {
    let system = System::start(64);
    let topic = system.topic("a", "total");
    let mut landing = Landing::new(&system, topic, 0, 0);
    let entries = system.pool.geometry().entries_per_segment();
    let total = entries * 2 + entries / 2;
    for seq in 0..total {
        while landing.ring.room(&*system.pool, 1) == 0 {
            std::thread::yield_now();
        }
        landing.batch.offset = 0;
        landing.land(seq);
    }
    system.wait_for_entries(topic, SEQUENCED_LOG, total);
    assert!(sequences(&system, topic).iter().copied().eq(0..total));
    let chain = system.pool.chain(topic, SEQUENCED_LOG).unwrap();
    assert_ne!(chain.head, chain.tail);
}
