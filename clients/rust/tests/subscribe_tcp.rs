//! Subscribers over TCP, against a broker that says what each test tells it to.

mod common;

use std::io::Write;
use std::time::Duration;

use common::{LOG, Peer, TOPIC, batch, broker, broker_with_copies, checksum_of, welcome};
use landfall::{Client, Error, Event, GapReason, Start, Subscriber, Transport};
use landfall_layout::TopicId;
use landfall_layout::batch::BatchPreamble;
use landfall_layout::frame::{Delivery, Frame, LogPlace, Refusal, Role, Welcome};
use landfall_layout::topic::Order;

const WAIT: Duration = Duration::from_secs(10);

fn subscribe(client: &Client, from: Start) -> Result<Subscriber, Error> {
    client.subscriber("topic").transport(Transport::Tcp).from(from).timeout(WAIT).build()
}

fn start(peer: &mut Peer, start: u64, end: u64) {
    peer.send(Frame::Welcome(Welcome { start, end, ..welcome(Order::Strong, 0, 0) }));
}

/// The next batch's index and the first message.
fn next(subscriber: &mut Subscriber) -> (u64, Vec<u8>) {
    match subscriber.next(WAIT).unwrap() {
        Event::Batch(batch) => (batch.index(), batch.messages().next().unwrap().payload.to_vec()),
        other => panic!("{other:?}"),
    }
}

/// The next event, a gap: messages missed and the position it goes on from.
fn gap(subscriber: &mut Subscriber) -> (u64, u64) {
    match subscriber.next(WAIT).unwrap() {
        Event::Gap { missed, resume, log: LOG, reason: GapReason::Retention } => (missed, resume),
        other => panic!("{other:?}"),
    }
}

#[test]
fn batches_come_as_they_were_delivered() {
    let (client, script) = broker(|connections| {
        let (mut peer, hello) = connections.greet();
        assert_eq!((hello.role, hello.from), (Role::Subscribe, Start::Earliest));
        start(&mut peer, 0, 3);
        peer.deliver(0, 0, &[b"one", b"two"]);
        peer.deliver(1, 2, &[b""]);
        peer.send(Frame::CaughtUp);
        peer.until_closed();
    });
    let mut subscriber = subscribe(&client, Start::Earliest).unwrap();
    assert_eq!((subscriber.start(), subscriber.end()), (0, 3));
    match subscriber.next(WAIT).unwrap() {
        Event::Batch(batch) => {
            assert_eq!((batch.first_position(), batch.end_position()), (0, 2));
            assert_eq!((batch.client(), batch.batch_seq(), batch.session_epoch()), (9, 0, 1));
            let texts: Vec<_> = batch.messages().map(|message| message.payload).collect();
            assert_eq!(texts, [b"one", b"two"]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(next(&mut subscriber), (1, Vec::new()));
    assert!(matches!(subscriber.next(WAIT).unwrap(), Event::CaughtUp));
    assert!(matches!(subscriber.next(Duration::ZERO).unwrap(), Event::Idle));
    drop(subscriber);
    script.join().unwrap();
}

#[test]
fn bytes_may_come_one_at_a_time() {
    let (client, script) = broker(|connections| {
        let (mut peer, _) = connections.greet();
        peer.stream.set_nodelay(true).unwrap();
        start(&mut peer, 0, 1);
        let bytes = batch(0, &[b"slow"]);
        let frame = Frame::Delivery(Delivery {
            log: LOG,
            broker: 0,
            count: 1,
            bytes: bytes.len() as u32,
            index: 0,
            first_position: 0,
            landed_ns: 1,
            checksum: checksum_of(&bytes),
        });
        for byte in frame.encode(0).iter().chain(&bytes) {
            peer.stream.write_all(&[*byte]).unwrap();
        }
        peer.until_closed();
    });
    let mut subscriber = subscribe(&client, Start::Earliest).unwrap();
    assert_eq!(next(&mut subscriber), (0, b"slow".to_vec()));
    drop(subscriber);
    script.join().unwrap();
}

#[test]
fn batches_of_all_sizes_pass_through_one_buffer() {
    let sizes = [0, 100_000, 1, 1_000_000, 300_000, 5, 1_000_000, 700_000, 64, 262_144];
    let (client, script) = broker(move |connections| {
        let (mut peer, _) = connections.greet();
        start(&mut peer, 0, 100);
        for index in 0..100 {
            let size = sizes[index as usize % sizes.len()];
            peer.deliver(index, index, &[&vec![index as u8; size]]);
        }
        peer.until_closed();
    });
    let mut subscriber = subscribe(&client, Start::Earliest).unwrap();
    for index in 0..100 {
        let expected = vec![index as u8; sizes[index as usize % sizes.len()]];
        assert!(next(&mut subscriber) == (index, expected), "batch {index}");
    }
    drop(subscriber);
    script.join().unwrap();
}

#[test]
fn a_lost_connection_goes_on_where_it_was_and_shows_nothing_twice() {
    let (client, script) = broker(|connections| {
        let (mut peer, _) = connections.greet();
        start(&mut peer, 100, 200);
        peer.deliver(10, 100, &[b"a", b"b"]);
        peer.deliver(11, 102, &[b"c"]);
        drop(peer);
        let (mut peer, hello) = connections.greet();
        assert_eq!(hello.from, Start::Position(103));
        start(&mut peer, 102, 200);
        peer.deliver(11, 102, &[b"c"]);
        peer.deliver(12, 103, &[b"d"]);
        peer.until_closed();
    });
    let mut subscriber = subscribe(&client, Start::Latest).unwrap();
    assert_eq!(next(&mut subscriber), (10, b"a".to_vec()));
    assert_eq!(next(&mut subscriber), (11, b"c".to_vec()));
    assert_eq!(next(&mut subscriber), (12, b"d".to_vec()));
    drop(subscriber);
    script.join().unwrap();
}

#[test]
fn what_retention_took_is_counted_once() {
    let (client, script) = broker(|connections| {
        let (mut peer, _) = connections.greet();
        start(&mut peer, 0, 100);
        peer.deliver(0, 0, &[b"a"]);
        let reason = GapReason::Retention;
        peer.send(Frame::Gap { log: LOG, reason, missed: 49, resume: 50 });
        peer.deliver(5, 50, &[b"b"]);
        // A jump that nobody announced is a gap as well.
        peer.deliver(9, 90, &[b"c"]);
        peer.until_closed();
    });
    let mut subscriber = subscribe(&client, Start::Earliest).unwrap();
    assert_eq!(next(&mut subscriber).0, 0);
    assert_eq!(gap(&mut subscriber), (49, 50));
    assert_eq!(next(&mut subscriber).0, 5);
    assert_eq!(gap(&mut subscriber), (39, 90));
    assert_eq!(next(&mut subscriber), (9, b"c".to_vec()));
    drop(subscriber);
    script.join().unwrap();
}

#[test]
fn a_position_that_is_gone_is_a_gap_from_there() {
    let (client, script) = broker(|connections| {
        let (mut peer, _) = connections.greet();
        start(&mut peer, 50, 100);
        peer.deliver(5, 50, &[b"a"]);
        peer.until_closed();
    });
    let mut subscriber = subscribe(&client, Start::Position(20)).unwrap();
    assert_eq!(gap(&mut subscriber), (30, 50));
    assert_eq!(next(&mut subscriber).0, 5);
    drop(subscriber);
    script.join().unwrap();
}

/// A batch of one message whose last byte is another than it was sealed with.
fn deliver_damaged(peer: &mut Peer, index: u64) {
    let mut bytes = batch(index, &[b"damaged"]);
    *bytes.last_mut().unwrap() ^= 1;
    let frame = Frame::Delivery(Delivery {
        log: LOG,
        broker: 0,
        count: 1,
        bytes: bytes.len() as u32,
        index,
        first_position: index,
        landed_ns: 1,
        checksum: checksum_of(&bytes),
    });
    peer.send(frame);
    peer.stream.write_all(&bytes).unwrap();
}

/// A batch that its publisher sealed anew, with good checksums, after the broker had landed it.
fn deliver_sealed_anew(peer: &mut Peer, index: u64) {
    let (before, bytes) = (batch(index, &[b"before"]), batch(index, &[b"behind"]));
    let frame = Frame::Delivery(Delivery {
        log: LOG,
        broker: 0,
        count: 1,
        bytes: bytes.len() as u32,
        index,
        first_position: index,
        landed_ns: 1,
        checksum: checksum_of(&before),
    });
    peer.send(frame);
    peer.stream.write_all(&bytes).unwrap();
}

fn corrupt(subscriber: &mut Subscriber) -> (u64, u64) {
    match subscriber.next(WAIT).unwrap() {
        Event::Gap { log: LOG, reason: GapReason::Corrupt, missed, resume } => (missed, resume),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_that_is_not_what_was_landed_is_a_gap_once() {
    for is_sealed_anew in [false, true] {
        let deliver = if is_sealed_anew { deliver_sealed_anew } else { deliver_damaged };
        let (client, script) = broker(move |connections| {
            let (mut peer, hello) = connections.greet();
            assert!(!hello.checked);
            start(&mut peer, 0, 3);
            deliver(&mut peer, 0);
            peer.until_closed();
            let (mut peer, hello) = connections.greet();
            assert_eq!((hello.checked, hello.from), (true, Start::Position(0)));
            start(&mut peer, 0, 3);
            // The broker finds it too, or it is changed behind the broker's look.
            let (log, reason) = (LOG, GapReason::Corrupt);
            peer.send(Frame::Gap { log, reason, missed: 1, resume: 1 });
            deliver(&mut peer, 1);
            peer.deliver(2, 2, &[b"good"]);
            peer.until_closed();
        });
        let mut subscriber = subscribe(&client, Start::Earliest).unwrap();
        assert_eq!(corrupt(&mut subscriber), (1, 1));
        assert_eq!(corrupt(&mut subscriber), (1, 2));
        assert_eq!(next(&mut subscriber), (2, b"good".to_vec()));
        drop(subscriber);
        script.join().unwrap();
    }
}

#[test]
fn bytes_of_another_topic_are_nobodys_batch_here() {
    let (client, script) = broker(|connections| {
        let (mut peer, _) = connections.greet();
        start(&mut peer, 0, 2);
        let mut others = BatchPreamble::from_bytes(*batch(0, &[b"mine"]).first_chunk().unwrap());
        others.topic += 1;
        let others = others.seal();
        let mut bytes = batch(0, &[b"mine"]);
        bytes[..64].copy_from_slice(&others.to_bytes());
        let (count, index, first_position, landed_ns) = (1, 0, 0, 1);
        let (log, broker, checksum) = (LOG, 0, checksum_of(&bytes));
        let bytes_of = bytes.len() as u32;
        let delivery = Delivery {
            log,
            broker,
            count,
            bytes: bytes_of,
            index,
            first_position,
            landed_ns,
            checksum,
        };
        peer.send(Frame::Delivery(delivery));
        peer.stream.write_all(&bytes).unwrap();
        peer.until_closed();
        let (mut peer, hello) = connections.greet();
        assert!(hello.checked);
        start(&mut peer, 0, 2);
        let reason = GapReason::Corrupt;
        peer.send(Frame::Gap { log: LOG, reason, missed: 1, resume: 1 });
        peer.until_closed();
    });
    let mut subscriber = subscribe(&client, Start::Earliest).unwrap();
    assert_eq!(corrupt(&mut subscriber), (1, 1));
    drop(subscriber);
    script.join().unwrap();
}

#[test]
fn where_there_are_copies_a_corrupt_batch_is_asked_for_once_more() {
    let (client, script) = broker_with_copies(|connections| {
        let (mut peer, hello) = connections.greet();
        assert!(!hello.checked);
        let first = Welcome { end: 4, copies: 2, ..welcome(Order::Strong, 0, 0) };
        peer.send(Frame::Welcome(first));
        peer.deliver(0, 0, &[b"first"]);
        deliver_damaged(&mut peer, 1);
        peer.until_closed();
        let (mut peer, hello) = connections.greet();
        assert_eq!((hello.checked, hello.from), (true, Start::Position(1)));
        peer.send(Frame::Welcome(Welcome { start: 1, ..first }));
        peer.deliver(1, 1, &[b"from disk"]);
        // No copy has this one.
        deliver_damaged(&mut peer, 2);
        peer.deliver(3, 3, &[b"last"]);
        peer.send(Frame::CaughtUp);
        peer.until_closed();
        let (mut peer, hello) = connections.greet();
        assert_eq!((hello.checked, hello.from), (false, Start::Position(4)));
        start(&mut peer, 4, 4);
        peer.deliver(4, 4, &[b"new"]);
        peer.until_closed();
    });
    let mut subscriber = subscribe(&client, Start::Earliest).unwrap();
    assert_eq!(next(&mut subscriber), (0, b"first".to_vec()));
    assert_eq!(next(&mut subscriber), (1, b"from disk".to_vec()));
    assert_eq!(corrupt(&mut subscriber), (1, 3));
    assert_eq!(next(&mut subscriber), (3, b"last".to_vec()));
    assert!(matches!(subscriber.next(WAIT).unwrap(), Event::CaughtUp));
    assert_eq!(next(&mut subscriber), (4, b"new".to_vec()));
    drop(subscriber);
    script.join().unwrap();
}

#[test]
fn with_a_log_for_each_broker_it_says_where_it_is_in_those_it_has_seen() {
    let (client, script) = broker(|connections| {
        let (mut peer, _, places) = connections.greet_at();
        assert_eq!(places, []);
        peer.send(Frame::Welcome(welcome(Order::Broker, 0, 0)));
        peer.deliver_in(3, 0, 0, &[b"a", b"b"]);
        peer.deliver_in(0, 0, 0, &[b"c"]);
        peer.deliver_in(3, 1, 2, &[b"d"]);
        drop(peer);
        let (mut peer, hello, places) = connections.greet_at();
        assert_eq!(hello.from, Start::Earliest, "another log may have anything");
        let place = |log, next, position| LogPlace { log, next, position };
        assert_eq!(places, [place(0, 1, 1), place(3, 2, 3)]);
        peer.send(Frame::Welcome(welcome(Order::Broker, 0, 0)));
        peer.deliver_in(7, 0, 0, &[b"e"]);
        // One that knows nothing of places.
        peer.deliver_in(3, 1, 2, &[b"d"]);
        peer.deliver_in(3, 2, 3, &[b"f"]);
        peer.until_closed();
    });
    let mut subscriber = subscribe(&client, Start::Earliest).unwrap();
    let seen: Vec<_> = (0..5).map(|_| next(&mut subscriber).1).collect();
    assert_eq!(seen, [&b"a"[..], b"c", b"d", b"e", b"f"]);
    drop(subscriber);
    script.join().unwrap();
}

#[test]
fn from_the_latest_it_comes_back_to_where_each_log_ended_when_it_began() {
    let end = LogPlace { log: 3, next: 7, position: 70 };
    let (client, script) = broker(move |connections| {
        // Nothing has begun where the connection is lost before it is known where logs end.
        let (mut peer, hello, _) = connections.greet_at();
        assert_eq!(hello.from, Start::Latest);
        peer.send(Frame::Welcome(welcome(Order::Broker, 0, 0)));
        drop(peer);
        let (mut peer, hello, places) = connections.greet_at();
        assert_eq!((hello.from, places), (Start::Latest, vec![]));
        peer.send(Frame::Welcome(welcome(Order::Broker, 0, 0)));
        peer.send_tail(Frame::Ends, &LogPlace::encode_all(&[end]));
        peer.send(Frame::CaughtUp);
        drop(peer);
        let (mut peer, hello, places) = connections.greet_at();
        assert_eq!(hello.from, Start::Earliest, "no clock says what came since");
        let begun = |log| LogPlace { log, next: 0, position: 0 };
        let all: Vec<_> = (0..32).map(|log| if log == 3 { end } else { begun(log) }).collect();
        assert_eq!(places, all);
        peer.send(Frame::Welcome(welcome(Order::Broker, 0, 0)));
        peer.deliver_in(3, 6, 69, &[b"from before"]);
        peer.deliver_in(3, 7, 70, &[b"a"]);
        peer.deliver_in(5, 0, 0, &[b"b"]);
        peer.until_closed();
    });
    let mut subscriber = subscribe(&client, Start::Latest).unwrap();
    while matches!(subscriber.next(Duration::ZERO).unwrap(), Event::CaughtUp | Event::Idle) {
        if subscriber.transport() == Transport::Auto {
            break;
        }
    }
    let seen: Vec<_> = (0..2).map(|_| next(&mut subscriber).1).collect();
    assert_eq!(seen, [&b"a"[..], b"b"]);
    drop(subscriber);
    script.join().unwrap();
}

#[test]
fn ends_of_logs_that_make_no_sense_are_an_error() {
    for (says, why) in [(Some(&[3; 16][..]), "16 bytes are no places"), (None, "before it sends")] {
        let (client, script) = broker(move |connections| {
            let (mut peer, _) = connections.greet();
            peer.send(Frame::Welcome(welcome(Order::Broker, 0, 0)));
            match says {
                Some(tail) => peer.send_tail(Frame::Ends, tail),
                None => peer.deliver_in(3, 0, 0, &[b"a"]),
            }
            peer.until_closed();
        });
        let error = subscribe(&client, Start::Latest).map(drop).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        script.join().unwrap();
    }
    let (client, script) = broker(|connections| {
        let (mut peer, _) = connections.greet();
        start(&mut peer, 0, 0);
        peer.send_tail(Frame::Ends, &[]);
        peer.until_closed();
    });
    let mut subscriber = subscribe(&client, Start::Earliest).unwrap();
    let error = subscriber.next(WAIT).map(|event| format!("{event:?}")).unwrap_err();
    assert!(error.to_string().contains("nobody asked for"), "{error}");
    drop(subscriber);
    script.join().unwrap();
}

#[test]
fn a_deleted_topic_is_said_and_said_again() {
    let (client, script) = broker(|connections| {
        let (mut peer, _) = connections.greet();
        start(&mut peer, 0, 0);
        peer.refuse(Frame::Refused(Refusal::TopicGone), "the topic was deleted");
        peer.until_closed();
    });
    let mut subscriber = subscribe(&client, Start::Earliest).unwrap();
    assert!(matches!(subscriber.next(WAIT).unwrap(), Event::TopicGone));
    assert!(matches!(subscriber.next(WAIT).unwrap(), Event::TopicGone));
    drop(subscriber);
    script.join().unwrap();
}

/// One that was made again may have the very id of the one before, where the pool is another one.
#[test]
fn a_topic_that_was_made_again_is_not_gone_on_with() {
    let first = welcome(Order::Strong, 0, 0);
    let (client, script) = broker(move |connections| {
        let (mut peer, _) = connections.greet();
        start(&mut peer, 0, 1);
        peer.deliver(0, 0, &[b"old"]);
        drop(peer);
        // It came back with the pool's disks, under another id.
        let (mut peer, _) = connections.greet();
        peer.send(Frame::Welcome(Welcome { topic: TopicId(TOPIC.0 + 1), start: 1, ..first }));
        drop(peer);
        for _ in 0..2 {
            let (mut peer, _) = connections.greet();
            let created_ns = first.created_ns + 1;
            peer.send(Frame::Welcome(Welcome { created_ns, start: 1, end: 9, ..first }));
            peer.deliver(1, 1, &[b"new"]);
            peer.until_closed();
        }
    });
    let mut subscriber = subscribe(&client, Start::Earliest).unwrap();
    assert_eq!(next(&mut subscriber), (0, b"old".to_vec()));
    for _ in 0..2 {
        let error = subscriber.next(WAIT).unwrap_err();
        assert!(matches!(error, Error::MadeAgain { .. }), "{error}");
        assert!(error.to_string().contains("from the earliest"), "{error}");
    }
    drop(subscriber);
    script.join().unwrap();
}

#[test]
fn deliveries_that_make_no_sense_are_errors_and_nothing_worse() {
    let good = Delivery {
        log: LOG,
        broker: 0,
        count: 1,
        bytes: 100,
        index: u64::MAX,
        first_position: u64::MAX,
        landed_ns: 0,
        checksum: 0,
    };
    let cases = [
        Delivery { bytes: 63, ..good },
        Delivery { bytes: u32::MAX, ..good },
        Delivery { log: 200, ..good },
        Delivery { count: 0, ..good },
        good,
    ];
    for case in cases {
        let (client, script) = broker(move |connections| {
            let (mut peer, _) = connections.greet();
            start(&mut peer, 0, 0);
            peer.send(Frame::Delivery(case));
            let _ = peer.stream.write_all(&[0x55; 200]);
        });
        let mut subscriber = subscribe(&client, Start::Earliest).unwrap();
        let mut failed = false;
        for _ in 0..3 {
            failed |= subscriber.next(Duration::from_millis(20)).is_err();
        }
        assert!(failed, "{case:?}");
        drop(subscriber);
        script.join().unwrap();
    }
}
