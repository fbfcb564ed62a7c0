//! Clients that come back: after their broker's connection ended, after another control took over,
//! and beside a life of theirs that was killed.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use landfall_dataplane::Idle;
use landfall_layout::counters::Counter;
use landfall_layout::doubt::DoubtLine;
use landfall_layout::frame::{Ack, Frame, From, Hello, Reached, Refusal};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::FrontierLine;
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::replica::{ReplicaLine, ReplicaState};
use landfall_layout::session::SessionLine;
use landfall_layout::topic::{Order, TopicEntry};
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::Pool;

use crate::client::{Client, Wire, publisher, subscriber};
use crate::rig::{Rig, until};

/// How often something is tried that a tick of the broker may get in the way of.
const TRIES: u32 = 20;

fn durable(client: u64) -> Hello {
    Hello { ack: Ack::Durable, ..publisher(client) }
}

/// A topic of order `stream` of which broker 0 keeps a copy: the test, in the replicator's place.
fn replicated(rig: &Rig) -> TopicId {
    let topic = rig.control().topic("stream", Order::Stream, 64, 0);
    let mut entry = rig.pool.topic(topic).unwrap();
    (entry.replicas, entry.replica_brokers) = (2, 1);
    rig.pool.set_topic(&entry);
    topic
}

fn ordered(rig: &Rig, topic: TopicId, entries: u64) {
    until("everything is ordered", || rig.pool.frontier(topic, SEQUENCED_LOG).entries == entries);
}

fn replica(topic: TopicId, durable: u64) -> ReplicaLine {
    let (topic, state) = (topic.0.into(), ReplicaState::Well.raw());
    ReplicaLine { durable, written: durable, topic, state, ..ReplicaLine::default() }
}

#[test]
fn a_stream_that_comes_back_is_told_of_each_batch_when_it_is_durable() {
    let rig = Rig::new();
    let topic = replicated(&rig);
    let keeper = BrokerId::new(0).unwrap();
    rig.pool.start_replica(topic, keeper, 0, &replica(topic, 0));
    let mut before = Client::welcomed(rig.tcp(), durable(7), "stream");
    (0..3).for_each(|seq| before.publish(7, seq, b"x"));
    ordered(&rig, topic, 3);
    drop(before);
    let mut again = Client::welcomed(rig.tcp(), durable(7), "stream");
    rig.control().drop_seqs.extend([0, 1, 2]);
    (0..4).for_each(|seq| again.publish(7, seq, b"x"));
    ordered(&rig, topic, 4);
    // All but the last of what came before.
    rig.pool.move_replica(topic, keeper, 0, &replica(topic, 2));
    until("the broker has followed the log", || rig.counter(Counter::BatchesLanded) == 7);
    assert_eq!(rig.counter(Counter::DurableReceipts), 0, "they are somewhere in the log");
    rig.pool.move_replica(topic, keeper, 0, &replica(topic, 4));
    let mut receipts: Vec<_> = (0..4).map(|_| again.receipt()).collect();
    receipts.sort_by_key(|receipt| receipt.batch_seq);
    let said = receipts.iter().map(|receipt| (receipt.batch_seq, receipt.reached));
    let twice = (0..3).map(|seq| (seq, Reached::Duplicate));
    let expected: Vec<_> = twice.chain([(3, Reached::Durable)]).collect();
    assert_eq!(said.collect::<Vec<_>>(), expected);
}

/// Of ten batches that had no receipt a lost pool took two, as control found out.
#[test]
fn what_lies_on_disk_between_two_that_were_lost_is_a_duplicate() {
    let rig = Rig::new();
    let topic = rig.control().topic("strong", Order::Strong, 64, 0);
    let mut client = Client::welcomed(rig.tcp(), publisher(7), "strong");
    let known = (0..).map_while(|index| Some((index, rig.pool.session(index)?)));
    let (index, line) = known.into_iter().find(|(_, line)| line.is_of(topic, 7)).unwrap();
    let lost = [(3, 4), (8, 9)];
    for (number, doubt) in DoubtLine::of(topic, index, &lost).iter().enumerate() {
        rig.pool.set_doubt(topic, number, doubt);
    }
    rig.pool.set_session(index, &SessionLine { next_seq: 10, floor: 3, known_from: 9, ..line });
    rig.control().drop_seqs.extend(0..10);
    (0..10).for_each(|seq| client.publish(7, seq, b"x"));
    for seq in 0..10 {
        let receipt = client.receipt();
        let reached = if [3, 8].contains(&seq) { Reached::Lost } else { Reached::Duplicate };
        assert_eq!((receipt.batch_seq, receipt.reached), (seq, reached));
    }
}

/// Control could not tell any more which of them are in the log.
#[test]
fn what_control_has_forgotten_of_a_stream_is_refused_in_words() {
    let rig = Rig::new();
    let topic = rig.control().topic("stream", Order::Stream, 64, 0);
    let mut before = Client::welcomed(rig.tcp(), publisher(7), "stream");
    (0..3).for_each(|seq| before.publish(7, seq, b"x"));
    ordered(&rig, topic, 3);
    drop(before);
    let mut again = Client::welcomed(rig.tcp(), publisher(7), "stream");
    // The first session has the first line.
    let line = rig.pool.session(0).unwrap();
    rig.pool.set_session(0, &SessionLine { floor: 3, known_from: 3, ..line });
    again.publish(7, 2, b"x");
    let (why, sentence) = again.refused();
    assert_eq!(why, Refusal::BadBatch, "{sentence}");
    assert!(sentence.contains("sequence 2") && sentence.contains("another client id"));
}

#[test]
fn a_duplicate_that_waits_for_another_brokers_replica_holds_up_nothing() {
    let rig = Rig::with(2, Idle::Backoff);
    let topic = replicated(&rig);
    let [mine, other] = [0, 1].map(|source| BrokerId::new(source).unwrap());
    for source in [mine, other] {
        rig.pool.start_replica(topic, source, 0, &replica(topic, 0));
    }
    let _joined = Client::welcomed(&rig.brokers[1].tcp, publisher(8), "stream");
    rig.control().drop_seqs.insert(1);
    let mut client = Client::welcomed(rig.tcp(), durable(7), "stream");
    (0..3).for_each(|seq| client.publish(7, seq, b"x"));
    ordered(&rig, topic, 2);
    // The one before it may have come through the other broker, whose replica stands still.
    rig.pool.move_replica(topic, mine, 0, &replica(topic, 2));
    for batch_seq in [0, 2] {
        let receipt = client.receipt();
        assert_eq!((receipt.batch_seq, receipt.reached), (batch_seq, Reached::Durable));
    }
    rig.pool.move_replica(topic, other, 0, &replica(topic, 2));
    let receipt = client.receipt();
    assert_eq!((receipt.batch_seq, receipt.reached), (1, Reached::Duplicate));
}

/// Another leader than the rig's control, with a topic that it has just made.
pub fn take_over(rig: &Rig) -> Pool {
    let file = File::from(rig.pool.fd().try_clone_to_owned().unwrap());
    let pool = Pool::attach_file(file, Path::new("the next leader's"), true).unwrap();
    let term = Term { epoch: 2, serves: false }.pack();
    assert!(pool.claim(1, &LeaderLine { term, ..LeaderLine::default() }));
    pool.copy_tables(Some(0));
    let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
    (entry.id, entry.state, entry.order) = (TopicId::new(5, 1).0, 1, Order::None.raw());
    (entry.ring_slots, entry.name_bytes) = (64, 3);
    entry.name[..3].copy_from_slice(b"new");
    pool.set_topic(&entry);
    assert!(pool.serve(2));
    pool
}

#[test]
fn a_topic_that_the_next_control_has_just_made_is_there() {
    let mut welcomed = 0;
    for _ in 0..TRIES {
        let rig = Rig::new();
        rig.control().topic("old", Order::None, 64, 0);
        let mut client = Client::raw(rig.tcp());
        // The broker has taken the connection when it has answered one that came later.
        Client::welcomed(rig.tcp(), subscriber(From::Latest), "old");
        let _leader = take_over(&rig);
        client.send(&Frame::Hello(subscriber(From::Latest)).encode(3));
        client.send(b"new");
        if let Wire::Tcp(stream) = &client.wire {
            stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            // A broker whose tick was first waits for the next control to accept it.
            match stream.peek(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                other => assert_eq!(other.unwrap(), 1),
            }
        }
        let (frame, sentence) = client.frame();
        assert!(matches!(frame, Frame::Welcome(_)), "{frame:?} {sentence}");
        welcomed += 1;
        if welcomed == 3 {
            return;
        }
    }
    panic!("{welcomed} of {TRIES} were answered before a tick");
}

#[test]
fn a_life_that_was_killed_while_it_waited_does_not_fence_the_next() {
    let rig = Rig::new();
    for round in 0..6 {
        let topic = format!("topic-{round}");
        rig.control().topic(&topic, Order::Total, 64, 0);
        rig.control().silent = true;
        let hello = |client: &mut Client| {
            client.send(&Frame::Hello(publisher(7)).encode(topic.len()));
            client.send(topic.as_bytes());
        };
        // The one that lives gets the place of one that has gone, before the one that is killed.
        let gone = Client::raw(rig.tcp());
        let mut killed = Client::raw(rig.tcp());
        hello(&mut killed);
        std::thread::sleep(Duration::from_millis(5));
        drop(gone);
        std::thread::sleep(Duration::from_millis(5));
        let mut living = Client::raw(rig.tcp());
        hello(&mut living);
        std::thread::sleep(Duration::from_millis(5));
        drop(killed);
        rig.control().silent = false;
        let (frame, sentence) = living.frame();
        let Frame::Welcome(welcome) = frame else { panic!("{frame:?} {sentence}") };
        living.welcome = Some(welcome);
        living.publish(7, 0, b"x");
        assert_eq!(living.receipt().reached, Reached::Ordered, "round {round}");
    }
}

/// An earlier pool may have had what lies below, though nobody knows of it.
#[test]
fn an_own_log_begins_where_control_says() {
    let rig = Rig::new();
    rig.control().begins = (1000, 5000);
    let topic = rig.control().topic("own", Order::Broker, 64, 0);
    let mut read = Client::welcomed(rig.tcp(), subscriber(From::Earliest), "own");
    assert_eq!(read.frame().0, Frame::CaughtUp);
    let mut own = Client::welcomed(rig.tcp(), publisher(2), "own");
    for seq in 0..2 {
        own.publish(2, seq, b"m");
        assert_eq!(own.receipt().position, 5000 + seq);
        let (delivery, _) = read.delivery();
        assert_eq!(delivery.first_position, 5000 + seq);
    }
    assert_eq!(rig.pool.frontier(topic, 0).entries, 1002);
}

/// It was killed between the two halves of what it says of its log: where the next message stands,
/// and how many batches count.
#[test]
fn what_a_killed_broker_landed_and_did_not_count_takes_no_positions() {
    for counted in [0, 2] {
        let mut rig = Rig::new();
        let topic = rig.control().topic("own", Order::None, 64, 0);
        let mut client = Client::welcomed(rig.tcp(), publisher(2), "own");
        for seq in 0..counted {
            client.publish(2, seq, b"m");
            assert_eq!(client.receipt().position, seq);
        }
        until("the broker has said so", || rig.pool.frontier(topic, 0).entries == counted);
        drop(client);
        rig.brokers[0].stop();
        let line = FrontierLine { position: 12, ..rig.pool.frontier(topic, 0) };
        rig.pool.advance_frontier(topic, 0, &line);
        rig.control().offer_logs_again();
        rig.brokers[0] = rig.serve(0, Idle::Backoff);
        let mut client = Client::welcomed(rig.tcp(), publisher(3), "own");
        assert_eq!(rig.pool.frontier(topic, 0).position, counted);
        client.publish(3, 0, b"m");
        assert_eq!(client.receipt().position, counted, "{counted} batches counted");
    }
}
