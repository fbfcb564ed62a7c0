//! Session lines come back: whoever led when they were opened, and whoever was with them.

mod fake;

use fake::{Broker, System, eventually};
use landfall_control::Options;
use landfall_control::messages::Ask;
use landfall_layout::TopicId;
use landfall_layout::command::{Command, Denial, JOINED_SESSIONS, Request};
use landfall_layout::session::SessionState;

/// Lines of a pool of the tests.
const LINES: u64 = 64;

fn start() -> System {
    System::with(64, Options { session_lease_ns: 50_000_000, ..Options::default() })
}

fn state(system: &System, index: u32) -> SessionState {
    system.pool.session_standing(index).unwrap().state
}

fn closed(system: &System, index: u32) {
    eventually("a closed session", || (state(system, index) == SessionState::Closed).then_some(()));
}

/// Says that those sessions are all that the broker is in.
fn name(broker: &mut Broker, named: &[(u32, u32)]) {
    let leader = broker.pool.epoch_number();
    for some in named.chunks(JOINED_SESSIONS) {
        let mut sessions = [(0, 0); JOINED_SESSIONS];
        sessions[..some.len()].copy_from_slice(some);
        broker.ask(Request::Joined { leader, sessions });
    }
    broker.ask(Request::JoinedAll { leader });
}

/// Opens sessions of clients from `first` on until there is no line; how many there were.
fn fill(broker: &mut Broker, topic: TopicId, first: u64) -> u64 {
    (0..=LINES)
        .find(|count| {
            let denied = match broker.open_session(topic, first + count, 0).0 {
                Command::SessionOpen { .. } => None,
                Command::SessionDenied { why, .. } => Some(why),
                other => panic!("{other:?}"),
            };
            assert!(denied.is_none_or(|why| why == Denial::SessionsFull), "{denied:?}");
            denied.is_some()
        })
        .expect("no more sessions than lines")
}

#[test]
fn a_session_that_was_open_before_is_closed_when_no_broker_says_that_it_is_in_it() {
    let mut system = start();
    let topic = system.topic("a", "strong");
    let mut brokers =
        [0, 1, 2].map(|number| Broker::register(&system.pool, number, 100 + number as u64));
    let [kept, left, of_dead] = [0, 1, 2].map(|number| {
        let (index, epoch, _) = brokers[number].session(topic, 7 + number as u64, 0);
        (index, epoch)
    });
    system.stop();
    system.start_again();
    let [mut first, mut slow, mut dies] = brokers;
    name(&mut first, &[kept]);
    // A lease of this leader's own says that it looked at all lines for as long.
    let (marker, ..) = dies.session(topic, 70, 0);
    drop(dies);
    closed(&system, marker);
    for (index, _) in [kept, left, of_dead] {
        assert_eq!(state(&system, index), SessionState::Active, "broker 1 has not said a word");
    }
    name(&mut slow, &[]);
    closed(&system, left.0);
    closed(&system, of_dead.0);
    assert_eq!(state(&system, kept.0), SessionState::Active, "broker 0 is in it");
    let (index, epoch) = kept;
    first.ask(Request::CloseSession { index, epoch });
    closed(&system, kept.0);
}

#[test]
fn lines_come_back_from_a_broker_that_died_and_through_a_control_that_did() {
    let mut system = start();
    let topic = system.topic("a", "total");
    let mut broker = Broker::register(&system.pool, 0, 1);
    assert_eq!(fill(&mut broker, topic, 1_000), LINES);
    drop(broker);
    let mut broker = Broker::register(&system.pool, 0, 2);
    let mut next = 2_000;
    eventually("lines of the dead broker's publishers", || {
        next += 100;
        (fill(&mut broker, topic, next) > 0).then_some(())
    });
    eventually("the rest of them", || {
        next += 100;
        fill(&mut broker, topic, next);
        (0..LINES as u32)
            .all(|index| system.pool.session(index).unwrap().client >= 2_000)
            .then_some(())
    });
    for _ in 0..2 {
        system.stop();
        system.start_again();
    }
    name(&mut broker, &[]);
    eventually("lines from before", || {
        next += 100;
        (fill(&mut broker, topic, next) > 0).then_some(())
    });
}

#[test]
fn who_comes_back_within_its_lease_is_where_it_was_and_is_kept() {
    let system = System::with(64, Options { session_lease_ns: u64::MAX, ..Options::default() });
    let topic = system.topic("a", "strong");
    let [mut first, mut second] = [0, 1].map(|number| Broker::register(&system.pool, number, 9));
    let (index, epoch, _) = first.session(topic, 7, 0);
    drop(first);
    let mut first = Broker::register(&system.pool, 0, 10);
    // Its line is nobody else's while there is a lease, however many ask.
    assert_eq!(fill(&mut second, topic, 100), LINES - 1);
    assert_eq!(first.session(topic, 7, epoch), (index, epoch, 0));
}

#[test]
fn what_a_dead_broker_had_still_to_say_keeps_no_session() {
    let system = start();
    let topic = system.topic("a", "total");
    let mut broker = Broker::register(&system.pool, 0, 1);
    let (index, epoch, _) = broker.session(topic, 7, 0);
    broker.stop_beating();
    eventually("its end", || {
        (system.asker.ask_now(Ask::Health).unwrap().brokers == 0).then_some(())
    });
    name(&mut broker, &[(index, epoch)]);
    closed(&system, index);
}
