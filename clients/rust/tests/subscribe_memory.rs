//! Subscribers through memory, over a log that each test writes.

mod common;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::LOG;
use common::pool::{Log, broker, give, pool};
use landfall::{Client, Event, GapReason, Start, Subscriber, Transport};
use landfall_layout::segment::SegmentKind;
use landfall_pool::Pool;
use landfall_pool::channel::HOLD;

const WAIT: Duration = Duration::from_secs(10);
const SEGMENT: u32 = 3;

fn subscribe(client: &Client, from: Start) -> Subscriber {
    client
        .subscriber("topic")
        .transport(Transport::Memory)
        .from(from)
        .timeout(WAIT)
        .build()
        .unwrap()
}

/// A broker that welcomes one subscriber and then answers what its hold word says.
fn holder(
    pool: &Arc<Pool>,
    start: u64,
    end: u64,
) -> (Client, std::thread::JoinHandle<()>, Sender<()>, Receiver<Option<u32>>) {
    let ((ask, asked), (answer, answers)) = (channel(), channel());
    let pool = Arc::clone(pool);
    let (client, script) = broker(move |connections| {
        let peer = connections.subscriber(&pool, start, end);
        while asked.recv().is_ok() {
            answer.send(HOLD.held(&peer.channel)).unwrap();
        }
    });
    (client, script, ask, answers)
}

fn next(subscriber: &mut Subscriber) -> (u64, Vec<u8>) {
    match subscriber.next(WAIT).unwrap() {
        Event::Batch(batch) => (batch.index(), batch.messages().next().unwrap().payload.to_vec()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn batches_are_copied_and_do_not_change_in_their_readers_hands() {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let mut log = Log::new(&pool);
    log.append(SEGMENT, 0, &[b"one", b"two"]);
    log.append(SEGMENT, 4096, &[b"three"]);
    let (client, script, ask, answers) = holder(&pool, 0, 3);
    let mut subscriber = subscribe(&client, Start::Earliest);
    assert_eq!(subscriber.transport(), Transport::Memory);
    match subscriber.next(WAIT).unwrap() {
        Event::Batch(batch) => {
            ask.send(()).unwrap();
            assert_eq!(answers.recv().unwrap(), None, "nothing is held for it");
            let at = pool.at(SEGMENT, 0, 4096).unwrap();
            pool.write(at, &[0xee; 256]).unwrap();
            let texts: Vec<_> = batch.messages().map(|message| message.payload).collect();
            assert_eq!(texts, [&b"one"[..], b"two"]);
            assert_eq!((batch.log(), batch.client(), batch.landed_ns()), (LOG, 9, 100));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(next(&mut subscriber), (1, b"three".to_vec()));
    assert!(matches!(subscriber.next(WAIT).unwrap(), Event::CaughtUp));
    assert!(matches!(subscriber.next(Duration::ZERO).unwrap(), Event::Idle));
    log.append(SEGMENT, 8192, &[b"four"]);
    assert_eq!(next(&mut subscriber), (2, b"four".to_vec()));
    drop((subscriber, ask));
    script.join().unwrap();
}

#[test]
fn a_subscription_starts_where_it_was_asked_to() {
    for (from, first) in [
        (Start::Earliest, Some(2)),
        (Start::Position(8), Some(4)),
        (Start::Position(9), Some(4)),
        (Start::Time(105), Some(5)),
        (Start::Latest, None),
    ] {
        let (pool, _fd) = pool();
        give(&pool, SEGMENT, SegmentKind::Payload, 1);
        let mut log = Log::new(&pool);
        (0..8).for_each(|i| log.append(SEGMENT, 4096 * i, &[b"x", b"y"]));
        log.retire(2, 4);
        let start = match from {
            Start::Latest => 16,
            Start::Time(_) => 10,
            _ => 4,
        };
        let (client, script, ask, _answers) = holder(&pool, start, 16);
        let mut subscriber = subscribe(&client, from);
        match (subscriber.next(WAIT).unwrap(), first) {
            (Event::Batch(batch), Some(first)) => assert_eq!(batch.index(), first, "{from:?}"),
            (Event::CaughtUp, None) => {}
            (other, _) => panic!("{from:?}: {other:?}"),
        }
        drop((subscriber, ask));
        script.join().unwrap();
    }
}

#[test]
fn a_subscriber_that_retention_overtook_is_told_how_much_it_missed() {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let mut log = Log::new(&pool);
    (0..8).for_each(|i| log.append(SEGMENT, 4096 * i, &[b"x", b"y"]));
    let (client, script, ask, _answers) = holder(&pool, 0, 16);
    let mut subscriber = subscribe(&client, Start::Earliest);
    assert_eq!(next(&mut subscriber).0, 0);
    log.retire(5, 10);
    match subscriber.next(WAIT).unwrap() {
        Event::Gap { log: LOG, reason: GapReason::Retention, missed: 8, resume: 10 } => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(next(&mut subscriber).0, 5);
    // Everything there is goes, and nothing comes behind it.
    log.retire(8, 16);
    match subscriber.next(WAIT).unwrap() {
        Event::Gap { missed: 4, resume: 16, .. } => {}
        other => panic!("{other:?}"),
    }
    log.append(SEGMENT, 0, &[b"z"]);
    loop {
        match subscriber.next(WAIT).unwrap() {
            Event::CaughtUp => {}
            Event::Batch(batch) => break assert_eq!(batch.index(), 8),
            other => panic!("{other:?}"),
        }
    }
    drop((subscriber, ask));
    script.join().unwrap();
}

#[test]
fn a_batch_that_was_sealed_anew_is_not_shown_and_not_held() {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let mut log = Log::new(&pool);
    log.append(SEGMENT, 0, &[b"before"]);
    let at = pool.at(SEGMENT, 0, 4096).unwrap();
    pool.write(at, &common::batch(0, &[b"behind"])).unwrap();
    let (client, script, ask, answers) = holder(&pool, 0, 1);
    let mut subscriber = subscribe(&client, Start::Earliest);
    // It is asked for over a connection that this broker does not take.
    let is_shown = matches!(subscriber.next(Duration::ZERO), Ok(Event::Batch(_)));
    assert!(!is_shown);
    ask.send(()).unwrap();
    assert_eq!(answers.recv().unwrap(), None, "nothing is held for it");
    drop((subscriber, ask));
    script.join().unwrap();
}

/// Nobody can be asked over a stream, and no disk has another copy.
#[test]
fn a_batch_that_was_sealed_anew_stops_no_reader_that_has_memory_alone() {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let mut log = Log::new(&pool);
    (0..4).for_each(|batch| log.append(SEGMENT, 4096 * batch, &[b"x"]));
    for batch in [1, 3] {
        let at = pool.at(SEGMENT, 4096 * batch, 4096).unwrap();
        pool.write(at, &common::batch(u64::from(batch), &[b"anew"])).unwrap();
    }
    let broker_pool = Arc::clone(&pool);
    let (end, ends) = channel::<()>();
    let (client, script) = broker(move |connections| {
        // One connection behind each way round that there is none of.
        let peers = [0, 1, 3].map(|start| connections.subscriber(&broker_pool, start, 4));
        let _ = ends.recv();
        drop(peers);
    });
    let mut subscriber = subscribe(&client, Start::Earliest);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        match subscriber.next(WAIT).unwrap() {
            Event::Batch(batch) => seen.push(Ok(batch.first_position())),
            Event::Gap { reason, missed: 1, resume, .. } => seen.push(Err((reason, resume))),
            Event::Idle => {}
            other => panic!("{other:?}, {seen:?}"),
        }
    }
    let corrupt = |resume| Err((GapReason::Corrupt, resume));
    assert_eq!(seen, [Ok(0), corrupt(2), Ok(2), corrupt(4)]);
    drop((subscriber, end));
    script.join().unwrap();
}

#[test]
fn a_lost_broker_is_replaced_and_nothing_is_shown_twice() {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let mut log = Log::new(&pool);
    (0..3).for_each(|i| log.append(SEGMENT, 4096 * i, &[b"x"]));
    let broker_pool = Arc::clone(&pool);
    let (die, dies) = channel::<()>();
    let (client, script) = broker(move |connections| {
        let peer = connections.subscriber(&broker_pool, 0, 3);
        dies.recv().unwrap();
        drop(peer);
        let peer = connections.subscriber(&broker_pool, 2, 3);
        let _ = dies.recv();
        drop(peer);
    });
    let mut subscriber = subscribe(&client, Start::Earliest);
    assert_eq!(next(&mut subscriber).0, 0);
    assert_eq!(next(&mut subscriber).0, 1);
    die.send(()).unwrap();
    assert_eq!(next(&mut subscriber).0, 2);
    loop {
        match subscriber.next(Duration::from_millis(500)).unwrap() {
            Event::CaughtUp => {}
            Event::Idle => break,
            other => panic!("{other:?}"),
        }
    }
    log.append(SEGMENT, 4096 * 3, &[b"y"]);
    assert_eq!(next(&mut subscriber), (3, b"y".to_vec()));
    drop((subscriber, die));
    script.join().unwrap();
}

#[test]
fn a_deleted_topic_is_said() {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let mut log = Log::new(&pool);
    log.append(SEGMENT, 0, &[b"x"]);
    let (client, script, ask, _answers) = holder(&pool, 0, 1);
    let mut subscriber = subscribe(&client, Start::Earliest);
    assert_eq!(next(&mut subscriber).0, 0);
    log.delete();
    loop {
        match subscriber.next(WAIT).unwrap() {
            Event::CaughtUp => {}
            Event::TopicGone => break,
            other => panic!("{other:?}"),
        }
    }
    drop((subscriber, ask));
    script.join().unwrap();
}
