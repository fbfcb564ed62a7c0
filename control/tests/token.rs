//! Order `token` in a whole control: positions are handed out once, and never by two leaders.

mod fake;

use fake::{Batch, Broker, System, spec};
use landfall_control::answers::TopicSpec;
use landfall_layout::TopicId;
use landfall_layout::command::{Command, Denial, Request};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::OrderEntry;
use landfall_layout::segment::SegmentKind;
use landfall_layout::session::{SessionState, Standing};

/// Asks for positions under a number, and waits for the answer.
fn reserve(
    broker: &mut Broker,
    topic: TopicId,
    (session, epoch): (u32, u32),
    (count, whole): (u32, bool),
    number: u64,
) -> Command {
    broker.ask(Request::Reserve { request: number, topic, session, epoch, count, whole });
    broker.wait("positions", |command| match command {
        Command::Reserved { request, .. } | Command::SessionDenied { request, .. } => {
            (request == number).then_some(command)
        }
        _ => None,
    })
}

fn granted(answer: Command) -> (u64, u32) {
    match answer {
        Command::Reserved { first, count, .. } => (first, count),
        other => panic!("{other:?}"),
    }
}

/// What an entry says: its positions, and whose they are if something is there.
fn said(entry: &OrderEntry) -> (u64, u16, Option<u64>) {
    let client = (!entry.is_hole()).then_some(entry.client);
    (entry.first_position, entry.count, client)
}

fn short(lease_ms: u64) -> TopicSpec {
    TopicSpec { session_lease_ms: Some(lease_ms), ..spec("t", "token") }
}

#[test]
fn positions_are_handed_out_once_and_filled_from_anywhere() {
    let system = System::start(64);
    let topic = TopicId(system.create(short(60_000)).unwrap().id);
    let mut brokers = [7, 8].map(|at| Broker::register(&system.pool, at as usize - 7, at));
    let mut rings = brokers.each_mut().map(|broker| broker.open_ring(topic));
    let segments = brokers.each_mut().map(|broker| broker.want(topic, SegmentKind::Payload));
    let (index, epoch, _) = brokers[0].session(topic, 5, 0);
    let (other, other_epoch, _) = brokers[1].session(topic, 6, 0);
    let mine = (index, epoch);
    assert_eq!(granted(reserve(&mut brokers[0], topic, mine, (3, true), 1000)), (0, 3));
    // Sent again, because the answer was slow or lost.
    assert_eq!(granted(reserve(&mut brokers[0], topic, mine, (3, true), 1000)), (0, 3));
    assert_eq!(granted(reserve(&mut brokers[0], topic, mine, (6, false), 1001)), (3, 6));
    let theirs = (other, other_epoch);
    assert_eq!(granted(reserve(&mut brokers[1], topic, theirs, (3, true), 1000)), (9, 3));
    let batch = |seq, offset| {
        let granted = segments[0];
        Batch { topic, granted, client: 5, session: index, epoch, seq, offset }
    };
    let foreign = Batch { client: 6, session: other, epoch: other_epoch, ..batch(9, 0) };
    brokers[1].land(&mut rings[1], Batch { granted: segments[1], ..foreign });
    brokers[1].land(&mut rings[1], Batch { granted: segments[1], ..batch(6, 128) });
    brokers[0].land(&mut rings[0], batch(3, 0));
    assert_eq!(system.pool.frontier(topic, SEQUENCED_LOG).entries, 0, "the first is missing");
    brokers[0].land(&mut rings[0], batch(0, 128));
    system.wait_for_entries(topic, SEQUENCED_LOG, 4);
    let all: Vec<_> = system.entries(topic).iter().map(said).collect();
    let expected = [(0, 3, Some(5)), (3, 3, Some(5)), (6, 3, Some(5)), (9, 3, Some(6))];
    assert_eq!(all, expected);
    // What it leaves unfilled at its goodbye is a hole at once.
    assert_eq!(granted(reserve(&mut brokers[0], topic, mine, (2, true), 1002)), (12, 2));
    brokers[0].ask(Request::CloseSession { index, epoch });
    system.wait_for_entries(topic, SEQUENCED_LOG, 5);
    assert_eq!(said(&system.entries(topic)[4]), (12, 2, None));
}

#[test]
fn what_is_not_filled_within_the_lease_is_a_hole_and_its_session_is_fenced() {
    let system = System::start(64);
    let topic = TopicId(system.create(short(100)).unwrap().id);
    let mut broker = Broker::register(&system.pool, 0, 7);
    let mut ring = broker.open_ring(topic);
    let segment = broker.want(topic, SegmentKind::Payload);
    let (index, epoch, _) = broker.session(topic, 5, 0);
    assert_eq!(granted(reserve(&mut broker, topic, (index, epoch), (4, true), 1)), (0, 4));
    system.wait_for_entries(topic, SEQUENCED_LOG, 1);
    assert_eq!(said(&system.entries(topic)[0]), (0, 4, None));
    let fenced = Standing { epoch, state: SessionState::Fenced };
    fake::eventually("the fence", || {
        (system.pool.session_standing(index) == Some(fenced)).then_some(())
    });
    let batch =
        Batch { topic, granted: segment, client: 5, session: index, epoch, seq: 0, offset: 0 };
    broker.land(&mut ring, batch);
    system.wait_for_consumed(topic, broker.id, 1);
    let denied = reserve(&mut broker, topic, (index, epoch), (4, true), 2);
    assert!(matches!(denied, Command::SessionDenied { why: Denial::Fenced, .. }), "{denied:?}");
    let (index, next, _) = broker.session(topic, 5, 0);
    assert_eq!(next, epoch + 1);
    assert_eq!(granted(reserve(&mut broker, topic, (index, next), (3, true), 3)), (4, 3));
    broker.land(&mut ring, Batch { epoch: next, seq: 4, offset: 128, ..batch });
    system.wait_for_entries(topic, SEQUENCED_LOG, 2);
    assert_eq!(said(&system.entries(topic)[1]), (4, 3, Some(5)));
}

#[test]
fn a_control_that_takes_over_hands_nothing_out_twice() {
    let mut system = System::start(64);
    let topic = TopicId(system.create(short(60_000)).unwrap().id);
    let mut broker = Broker::register(&system.pool, 0, 7);
    let mut ring = broker.open_ring(topic);
    let segment = broker.want(topic, SegmentKind::Payload);
    let (index, epoch, _) = broker.session(topic, 5, 0);
    for number in 0..3 {
        let wish = (3, true);
        let first = number * 3;
        let answer = reserve(&mut broker, topic, (index, epoch), wish, number + 1);
        assert_eq!(granted(answer), (first, 3));
    }
    let batch = |epoch, seq, offset| Batch {
        topic,
        granted: segment,
        client: 5,
        session: index,
        epoch,
        seq,
        offset,
    };
    broker.land(&mut ring, batch(epoch, 0, 0));
    broker.land(&mut ring, batch(epoch, 6, 128));
    system.wait_for_entries(topic, SEQUENCED_LOG, 1);
    system.stop();
    system.start_again();
    broker.ask(Request::Register { incarnation: 7 });
    // What waited for its turn is dropped, and nothing of the epoch counts any more.
    system.wait_for_consumed(topic, broker.id, 2);
    let fenced = Standing { epoch, state: SessionState::Fenced };
    assert_eq!(system.pool.session_standing(index), Some(fenced));
    let denied = reserve(&mut broker, topic, (index, epoch), (3, true), 3);
    assert!(matches!(denied, Command::SessionDenied { why: Denial::Fenced, .. }), "{denied:?}");
    let (again, next, _) = broker.session(topic, 5, 0);
    assert_eq!((again, next), (index, epoch + 1));
    assert_eq!(granted(reserve(&mut broker, topic, (index, next), (3, true), 4)), (3, 3));
    broker.land(&mut ring, batch(next, 3, 256));
    system.wait_for_entries(topic, SEQUENCED_LOG, 2);
    let all: Vec<_> = system.entries(topic).iter().map(said).collect();
    assert_eq!(all, [(0, 3, Some(5)), (3, 3, Some(5))]);
}
