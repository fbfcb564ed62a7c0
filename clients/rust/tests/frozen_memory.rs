//! Brokers of memory clients that stop in the middle of everything: their heartbeat in the pool
//! stands still.

mod common;

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use common::pool::{Log, Peer, alone, batch_at, give, pool};
use common::{States, control_saying, welcome};
use landfall::{Client, Event, Start, Transport};
use landfall_layout::BrokerId;
use landfall_layout::frame::{Frame, Welcome};
use landfall_layout::segment::SegmentKind;
use landfall_layout::topic::Order;
use landfall_pool::Pool;

const SEGMENT: u32 = 3;
/// Far longer than a frozen broker may hold anybody up.
const LONG: Duration = Duration::from_secs(60);

/// Broker 0 is reached through memory, broker 1 over TCP. What connects at first has only the
/// first; then control calls that frozen.
fn site(unix: &str, tcp: &str) -> (Client, States) {
    let states = States::default();
    let client = control_saying(&format!(" {tcp}"), &format!("{unix} "), "", 1, states.clone());
    states.lock().unwrap().insert(1, "leaving");
    (client, states)
}

fn freeze(states: &States) {
    *states.lock().unwrap() = [(0, "frozen")].into();
}

fn beat(pool: &Pool, n: u64) {
    pool.beat_broker(BrokerId::new(0).unwrap(), 100 + n, 1, 2);
}

type Broker = (String, JoinHandle<()>, Sender<()>);

/// A broker over memory that grants one extent and takes one batch; then it beats so often, says
/// that the batch is ordered if it has beaten, and waits for the end of the test.
fn broker(pool: &Arc<Pool>, beats: u64) -> Broker {
    let (over, end) = channel::<()>();
    let pool = Arc::clone(pool);
    let (unix, script) = alone(move |connections| {
        let mut peer: Peer = connections.publisher(&pool, 1, 0);
        peer.grant(1, SEGMENT, 0, 64 << 10);
        let offset = loop {
            match peer.next() {
                Some(Frame::Written { offset, .. }) => break offset,
                Some(_) => {}
                None => panic!("it left before it wrote anything"),
            }
        };
        for n in 0..beats {
            beat(&pool, n);
            std::thread::sleep(Duration::from_millis(500));
        }
        if beats > 0 {
            peer.receipt(&batch_at(&pool, SEGMENT, offset).0, 0);
        }
        let _ = end.recv();
    });
    (unix, script, over)
}

#[test]
fn a_publisher_leaves_a_broker_that_is_frozen() {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let (unix, frozen, over) = broker(&pool, 0);
    let (tcp, well) = common::alone(|connections| {
        let mut peer = connections.publisher(2, 0);
        assert_eq!(peer.order_all(0), [0]);
    });
    let (client, states) = site(&unix, &tcp);
    let builder = client.publisher("topic").client_id(8).linger(LONG).timeout(LONG);
    let mut publisher = builder.build().unwrap();
    freeze(&states);
    assert_eq!(publisher.transport(), Transport::Memory);
    publisher.publish(b"a").unwrap();
    publisher.flush().unwrap();
    assert_eq!(publisher.transport(), Transport::Tcp);
    assert_eq!((publisher.stats().reconnects, publisher.stats().resubmitted), (1, 1));
    publisher.close().unwrap();
    drop(over);
    frozen.join().unwrap();
    well.join().unwrap();
}

#[test]
fn a_broker_whose_heart_beats_is_not_left() {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let (unix, busy, over) = broker(&pool, 10);
    let (tcp, idle) = common::alone(|_| {});
    let (client, states) = site(&unix, &tcp);
    let builder = client.publisher("topic").client_id(8).linger(LONG).timeout(LONG);
    let mut publisher = builder.build().unwrap();
    freeze(&states);
    publisher.publish(b"a").unwrap();
    publisher.flush().unwrap();
    assert_eq!(publisher.stats().reconnects, 0);
    drop((publisher, over));
    busy.join().unwrap();
    idle.join().unwrap();
}

/// Reads what the pool has while its broker is frozen, and leaves it: it answers for what is read.
fn subscriber_leaves(reads_on: bool) {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let mut log = Log::new(&pool);
    log.append(SEGMENT, 0, &[b"a"]);
    let (over, end) = channel::<()>();
    let broker_pool = Arc::clone(&pool);
    let (unix, frozen) = alone(move |connections| {
        let peer = connections.subscriber(&broker_pool, 0, 1);
        let _ = end.recv();
        drop(peer);
    });
    let (tcp, well) = common::alone(|connections| {
        let (mut peer, hello) = connections.greet();
        let Start::Position(position) = hello.from else { panic!("{:?}", hello.from) };
        let welcome = welcome(Order::Strong, 0, 0);
        peer.send(Frame::Welcome(Welcome { start: position, end: position, ..welcome }));
        peer.deliver(position, position, &[b"over tcp"]);
        peer.until_closed();
    });
    let (client, states) = site(&unix, &tcp);
    let builder = client.subscriber("topic").from(Start::Earliest).timeout(LONG);
    let mut subscriber = builder.build().unwrap();
    freeze(&states);
    assert_eq!(subscriber.transport(), Transport::Memory);
    let mut offset = 4096;
    loop {
        if reads_on && subscriber.transport() == Transport::Memory {
            // There is always something more to read.
            log.append(SEGMENT, offset, &[b"b"]);
            offset = 4096 + (offset + 4096) % (1 << 20);
            // One segment holds what comes until then.
            std::thread::sleep(Duration::from_millis(1));
        }
        match subscriber.next(Duration::from_millis(20)).unwrap() {
            Event::Batch(batch) => {
                let message = batch.messages().next().unwrap().payload;
                if message == b"over tcp" {
                    break;
                }
            }
            Event::CaughtUp | Event::Idle => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((subscriber.transport(), subscriber.broker()), (Transport::Tcp, 1));
    drop((subscriber, over));
    frozen.join().unwrap();
    well.join().unwrap();
}

#[test]
fn a_subscriber_leaves_a_broker_that_is_frozen() {
    subscriber_leaves(false);
}

#[test]
fn a_subscriber_that_is_never_idle_leaves_it_too() {
    subscriber_leaves(true);
}
