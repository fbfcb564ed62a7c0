//! Sessions whose publishers go in other ways than by a goodbye that is answered.

use std::time::Duration;

use landfall_dataplane::Idle;
use landfall_layout::command::Request;
use landfall_layout::frame::{Carrier, Frame, Hello, Reached, Refusal};
use landfall_layout::limits::COMMAND_LINES;
use landfall_layout::topic::Order;
use landfall_pool::line_ring::{LineConsumer, LineRing};

use crate::again::take_over;
use crate::client::{Client, publisher};
use crate::rig::{Rig, until};

const LEASE: Duration = Duration::from_millis(300);

/// A broker with a short lease, and a topic that somebody publishes to.
fn rig() -> (Rig, Client) {
    let rig = Rig::leasing(1, Idle::Backoff, LEASE.as_nanos() as u64);
    rig.control().topic("topic", Order::Total, 64, 0);
    let first = Client::welcomed(rig.tcp(), publisher(99), "topic");
    (rig, first)
}

fn session(client: &Client) -> (u32, u32) {
    (client.welcome().session_index, client.welcome().session_epoch)
}

fn send_hello(address: &str, hello: Hello) -> Client {
    let mut client = Client::raw(address);
    client.send(&Frame::Hello(hello).encode(5));
    client.send(b"topic");
    client
}

fn wait_closed(rig: &Rig, session: (u32, u32)) {
    until("the session's end is said", || rig.control().closed.contains(&session));
}

#[test]
fn who_gave_up_before_its_session_was_open_leaves_none() {
    let (rig, first) = rig();
    let next = session(&first).0 + 1;
    rig.control().silent = true;
    let mut late = send_hello(rig.tcp(), publisher(7));
    let (why, sentence) = late.refused();
    assert_eq!(why, Refusal::NoControl, "{sentence}");
    rig.control().silent = false;
    wait_closed(&rig, (next, 1));
    assert!(!rig.control().closed.contains(&session(&first)), "its publisher is there");
}

#[test]
fn who_finds_no_segment_for_a_ring_is_told_that_the_pool_is_full() {
    let rig = Rig::leasing(1, Idle::Backoff, LEASE.as_nanos() as u64);
    rig.control().topic("topic", Order::Total, 64, 0);
    rig.control().deny_rings = true;
    let (why, sentence) = send_hello(rig.tcp(), publisher(7)).refused();
    assert_eq!(why, Refusal::NoControl, "{sentence}");
    assert!(sentence.contains("the pool is full (0 of "), "{sentence}");
}

#[test]
fn who_is_gone_when_it_would_be_welcomed_leaves_no_session() {
    let (rig, first) = rig();
    let next = session(&first).0 + 1;
    let hello = Hello { carrier: Carrier::Memory, ..publisher(7) };
    // One that is found to be gone in time is asked for by nobody: so again, until one was not.
    until("a session that nobody came for", || {
        rig.control().silent = true;
        let gone = send_hello(rig.unix(), hello);
        std::thread::sleep(LEASE / 10);
        drop(gone);
        rig.control().silent = false;
        std::thread::sleep(LEASE / 10);
        rig.control().sessions() > 1
    });
    wait_closed(&rig, (next, 1));
}

#[test]
fn who_hangs_up_behind_its_goodbye_has_said_it_for_its_session_too() {
    let (rig, _first) = rig();
    let mut polite = Client::welcomed(rig.tcp(), publisher(7), "topic");
    rig.control().paused = true;
    polite.publish(7, 0, b"x");
    polite.send(&Frame::Bye.encode(0));
    let session = session(&polite);
    drop(polite);
    wait_closed(&rig, session);
}

#[test]
fn who_comes_back_as_its_lease_ends_is_not_closed_behind_its_back() {
    let (rig, _first) = rig();
    let [back, gone] = [7, 8].map(|client| Client::welcomed(rig.tcp(), publisher(client), "topic"));
    let [mine, other] = [session(&back), session(&gone)];
    rig.control().silent = true;
    drop(back);
    drop(gone);
    let mut back = send_hello(rig.tcp(), Hello { session_epoch: mine.1, ..publisher(7) });
    // Both leases end while the answer is on its way.
    std::thread::sleep(3 * LEASE);
    rig.control().silent = false;
    let (frame, sentence) = back.frame();
    let Frame::Welcome(welcome) = frame else { panic!("{frame:?} {sentence}") };
    back.welcome = Some(welcome);
    wait_closed(&rig, other);
    assert!(!rig.control().closed.contains(&mine), "it was closed after it was joined");
    back.publish(7, 0, b"x");
    assert_eq!(back.receipt().reached, Reached::Ordered);
    drop(back);
    wait_closed(&rig, mine);
}

#[test]
fn a_new_leader_is_told_of_each_session_that_a_publisher_is_in() {
    let (rig, first) = rig();
    let mut others: Vec<_> =
        (0..12).map(|client| Client::welcomed(rig.tcp(), publisher(client + 1), "topic")).collect();
    let lost = others.pop().map(|lost| session(&lost)).unwrap();
    wait_closed(&rig, lost);
    let leader = take_over(&rig);
    let me = landfall_layout::BrokerId::new(0).unwrap();
    let (taken_at, at) = (leader.geometry().requests_taken(me), leader.geometry().requests(me));
    let ring = LineRing { taken_at, at, lines: COMMAND_LINES };
    let mut requests = LineConsumer::resume(&leader, ring);
    let mut named = Vec::new();
    until("that is all", || {
        while let Some(body) = requests.pop(&leader) {
            match Request::unpack(body).unwrap() {
                Request::Joined { leader: 2, sessions } => named.extend(sessions),
                Request::JoinedAll { leader: 2 } => return true,
                _ => {}
            }
        }
        false
    });
    named.retain(|(_, epoch)| *epoch != 0);
    named.sort_unstable();
    let mut expected: Vec<_> = others.iter().chain([&first]).map(session).collect();
    expected.sort_unstable();
    assert_eq!(named, expected);
}
