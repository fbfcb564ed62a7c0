//! Publishers and subscribers over sockets.

use std::io::Write;
use std::time::Duration;

use landfall_dataplane::Idle;
use landfall_layout::SegmentId;
use landfall_layout::batch::PREAMBLE_BYTES;
use landfall_layout::command::Command;
use landfall_layout::counters::{Counter, ErrorEntry};
use landfall_layout::frame::{
    Ack, Frame, From, Hello, HelloTail, LogPlace, Reached, Refusal, Stall,
};
use landfall_layout::full::kept_back;
use landfall_layout::topic::Order;
use landfall_pool::counters::ErrorLog;

use crate::client::{Client, batch, publisher, subscriber};
use crate::rig::{Rig, until};

#[test]
fn a_batch_is_landed_ordered_reported_and_delivered() {
    let rig = Rig::new();
    rig.control().topic("orders", Order::Strong, 64, 0);
    let mut publish = Client::welcomed(rig.tcp(), publisher(7), "orders");
    assert_eq!(publish.welcome().next_seq, 0);
    let mut read = Client::welcomed(rig.tcp(), subscriber(From::Earliest), "orders");
    assert_eq!(read.frame().0, Frame::CaughtUp);
    for seq in 0..50 {
        publish.publish(7, seq, format!("message {seq}").as_bytes());
    }
    for seq in 0..50 {
        let receipt = publish.receipt();
        assert_eq!((receipt.batch_seq, receipt.position), (seq, seq));
        assert_eq!(receipt.reached, Reached::Ordered);
    }
    for seq in 0..50 {
        let (delivery, bytes) = read.delivery();
        assert_eq!((delivery.index, delivery.first_position), (seq, seq));
        let text = format!("message {seq}");
        assert_eq!(&bytes[80..80 + text.len()], text.as_bytes());
    }
    assert_eq!(rig.counter(Counter::BatchesLanded), 50);
    until("they are counted", || rig.counter(Counter::BatchesDelivered) == 50);
}

/// A client that hears nothing would not know whether its broker is there.
#[test]
fn clients_that_there_is_nothing_to_say_to_hear_beats() {
    let rig = Rig::new();
    rig.control().topic("quiet", Order::Total, 64, 0);
    let mut publish = Client::welcomed(rig.tcp(), publisher(7), "quiet");
    let mut read = Client::welcomed(rig.unix(), subscriber(From::Earliest), "quiet");
    assert_eq!(read.frame().0, Frame::CaughtUp);
    for _ in 0..3 {
        publish.beat();
        read.beat();
    }
    publish.publish(7, 0, b"now");
    assert_eq!(publish.receipt().position, 0);
    assert_eq!(read.delivery().0.index, 0);
}

#[test]
fn payloads_go_from_the_socket_to_their_final_place_without_a_copy() {
    let rig = Rig::new();
    rig.control().topic("copies", Order::Total, 64, 0);
    for address in [rig.tcp().to_owned(), rig.unix().to_owned()] {
        let before = rig.counter(Counter::BytesReceived);
        let mut publish = Client::welcomed(&address, publisher(9), "copies");
        let payload = vec![7; 300_000];
        let mut sent = 0;
        for seq in 0..10 {
            publish.publish(9, seq, &payload);
            sent += (payload.len() + 16).next_multiple_of(8) as u64;
            publish.receipt();
        }
        assert_eq!(rig.counter(Counter::BytesReceived) - before, sent);
        assert_eq!(rig.counter(Counter::BytesCopied), 0);
    }
}

#[test]
fn orders_none_and_broker_land_in_the_brokers_own_log() {
    let rig = Rig::with(2, Idle::Backoff);
    for (name, order) in [("none", Order::None), ("broker", Order::Broker)] {
        rig.control().topic(name, order, 64, 0);
        let mut read = Client::welcomed(rig.tcp(), subscriber(From::Earliest), name);
        assert_eq!(read.frame().0, Frame::CaughtUp);
        for (number, served) in rig.brokers.iter().enumerate() {
            let mut publish = Client::welcomed(&served.tcp, publisher(3), name);
            for seq in 0..5 {
                publish.publish(3, seq, b"x");
                let receipt = publish.receipt();
                assert_eq!((receipt.reached, receipt.position), (Reached::Landed, seq));
            }
            for index in 0..5 {
                let (delivery, _) = read.delivery();
                assert_eq!((usize::from(delivery.log), delivery.index), (number, index));
            }
        }
    }
}

#[test]
fn a_batch_that_breaks_off_becomes_padding_and_others_go_on() {
    let rig = Rig::new();
    let topic = rig.control().topic("broken", Order::Strong, 64, 0);
    let mut other = Client::welcomed(rig.tcp(), publisher(2), "broken");
    let mut publish = Client::welcomed(rig.tcp(), publisher(1), "broken");
    let bytes = batch(topic, 1, publish.welcome().session_epoch, 0, &[1; 100_000]);
    publish.send(&bytes[..50_000]);
    until("the payload begins to arrive", || rig.counter(Counter::BytesReceived) > 0);
    other.publish(2, 0, b"whole");
    assert_eq!(other.receipt().position, 0);
    let entry = rig.control().entry(topic, 0).unwrap();
    assert_eq!(entry.client, 2);
    assert!(entry.offset >= 100_000, "behind the claim that breaks off");
    drop(publish);
    until("the claim becomes padding", || rig.counter(Counter::ClaimsPadded) == 1);
    other.publish(2, 1, b"whole");
    assert_eq!(other.receipt().position, 1);
}

#[test]
fn a_full_ring_holds_the_publisher_back_and_nothing_is_lost() {
    let rig = Rig::new();
    rig.control().topic("full", Order::Total, 16, 0);
    let mut publish = Client::welcomed(rig.tcp(), publisher(5), "full");
    rig.control().paused = true;
    for seq in 0..40 {
        publish.publish(5, seq, b"wait");
    }
    match publish.frame().0 {
        Frame::Stalled { why: Stall::RingFull, used: 16, of: 16 } => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.counter(Counter::BatchesLanded), 16);
    assert!(rig.counter(Counter::RingFull) > 0);
    rig.control().paused = false;
    for seq in 0..40 {
        assert_eq!(publish.receipt().batch_seq, seq);
    }
}

#[test]
fn a_full_pool_holds_the_publisher_back_until_there_is_a_segment() {
    let rig = Rig::new();
    rig.control().topic("poor", Order::Total, 64, 0);
    rig.control().deny = true;
    let mut publish = Client::welcomed(rig.tcp(), publisher(5), "poor");
    publish.publish(5, 0, b"wait");
    let mut stalled = || match publish.frame().0 {
        Frame::Stalled { why: Stall::PoolFull, used, of } => (used, of),
        other => panic!("{other:?}"),
    };
    let (free, all) = stalled();
    assert!(free < all);
    // What is lost is nobody's, and is given to nobody.
    for segment in [all - 2, all - 1] {
        rig.control().pool.set_segment_lost(SegmentId(segment), 1);
    }
    assert!((0..20).any(|_| stalled().0 == free - 2));
    rig.control().deny = false;
    loop {
        match publish.frame().0 {
            Frame::Stalled { .. } => {}
            Frame::Receipt(receipt) => break assert_eq!(receipt.position, 0),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn publishers_that_wait_long_for_room_are_noted_once_with_the_numbers() {
    let rig = Rig::new();
    rig.control().topic("poor", Order::Total, 64, 0);
    rig.control().deny = true;
    let mut both = [5, 6].map(|client| Client::welcomed(rig.tcp(), publisher(client), "poor"));
    for (client, publish) in (5..).zip(&mut both) {
        publish.publish(client, 0, b"wait");
    }
    let all = rig.pool.geometry().segments();
    let noted = || {
        let entries = ErrorLog::new(&rig.pool, 0).entries(&rig.pool);
        let waits = |e: &&ErrorEntry| e.text().contains("topic poor: publishers wait for room");
        let noted: Vec<_> = entries.iter().filter(waits).cloned().collect();
        noted
    };
    // Each is told at most once a second: by the last of these it has waited for 6 s.
    for publish in &mut both {
        for _ in 0..7 {
            assert!(matches!(publish.frame().0, Frame::Stalled { why: Stall::PoolFull, .. }));
        }
    }
    let [entry] = &noted()[..] else { panic!("{:?}", rig.errors()) };
    assert_eq!(entry.count, 1);
    let numbers = format!("of {all} segments free, and {} are kept back", kept_back(all));
    assert!(entry.text().contains(&numbers), "{}", entry.text());
}

#[test]
fn receipts_tell_duplicates_and_fenced_sessions_from_each_other() {
    let rig = Rig::new();
    let topic = rig.control().topic("judged", Order::Stream, 64, 0);
    rig.control().drop_seqs.insert(1);
    let mut publish = Client::welcomed(rig.tcp(), publisher(6), "judged");
    let epoch = publish.welcome().session_epoch;
    for seq in 0..3 {
        publish.publish(6, seq, b"m");
    }
    let mut reached: Vec<_> =
        (0..3).map(|_| publish.receipt()).map(|r| (r.batch_seq, r.reached)).collect();
    reached.sort_by_key(|(seq, _)| *seq);
    assert_eq!(reached, [(0, Reached::Ordered), (1, Reached::Duplicate), (2, Reached::Ordered)]);
    rig.control().paused = true;
    publish.publish(6, 3, b"late");
    until("it landed", || rig.counter(Counter::BatchesLanded) == 4);
    rig.control().fence(topic, 6);
    rig.control().paused = false;
    assert_eq!(publish.frame().0, Frame::Fenced { session_epoch: epoch, next_seq: 3 });
    // What is still sent is dropped, without another word, until goodbye.
    publish.publish(6, 4, &[0; 5000]);
    publish.send(&Frame::Bye.encode(0));
    assert_eq!(publish.frame().0, Frame::Bye);
    assert_eq!(rig.counter(Counter::BatchesLanded), 4);
    let mut again = Client::welcomed(rig.tcp(), publisher(6), "judged");
    assert_eq!((again.welcome().session_epoch, again.welcome().next_seq), (epoch + 1, 3));
    again.publish(6, 3, b"anew");
    assert_eq!(again.receipt().reached, Reached::Ordered);
}

#[test]
fn goodbye_comes_back_after_the_last_receipt() {
    let rig = Rig::new();
    rig.control().topic("bye", Order::Strong, 64, 0);
    let mut publish = Client::welcomed(rig.tcp(), publisher(8), "bye");
    for seq in 0..20 {
        publish.publish(8, seq, b"last words");
    }
    publish.send(&Frame::Bye.encode(0));
    for seq in 0..20 {
        assert_eq!(publish.receipt().batch_seq, seq);
    }
    assert_eq!(publish.frame().0, Frame::Bye);
    publish.assert_closed();
    let (index, epoch) = (publish.welcome().session_index, publish.welcome().session_epoch);
    until("the session is closed", || rig.control().closed.contains(&(index, epoch)));
}

#[test]
fn a_session_whose_publisher_never_comes_back_is_closed_and_one_that_does_is_not() {
    let rig = Rig::new();
    rig.control().topic("lost", Order::Strong, 64, 0);
    let publish = |client| {
        let mut publish = Client::welcomed(rig.tcp(), publisher(client), "lost");
        publish.publish(client, 0, b"before the connection went");
        assert_eq!(publish.receipt().reached, Reached::Ordered);
        publish.welcome()
    };
    // Both connections are gone when the closure returns, without a goodbye.
    let (gone, back) = (publish(8), publish(9));
    let rejoin = Hello { session_epoch: back.session_epoch, ..publisher(9) };
    let stays = Client::welcomed(rig.tcp(), rejoin, "lost");
    assert_eq!(stays.welcome().session_index, back.session_index);
    let gone = (gone.session_index, gone.session_epoch);
    let back = (back.session_index, back.session_epoch);
    assert!(rig.control().closed.is_empty(), "closed before the lease was over");
    until("the lost session is closed", || rig.control().closed.contains(&gone));
    // The other lease ended within moments of the first.
    std::thread::sleep(Duration::from_millis(500));
    assert!(!rig.control().closed.contains(&back), "its publisher is connected");
}

#[test]
fn ack_none_sends_no_receipts_and_goodbye_still_waits() {
    let rig = Rig::new();
    rig.control().topic("quiet", Order::Total, 64, 0);
    let hello = Hello { ack: Ack::None, ..publisher(8) };
    let mut publish = Client::welcomed(rig.tcp(), hello, "quiet");
    for seq in 0..2000 {
        publish.publish(8, seq, b"m");
    }
    publish.send(&Frame::Bye.encode(0));
    assert_eq!(publish.frame().0, Frame::Bye);
    assert_eq!(rig.counter(Counter::Receipts), 2000);
}

#[test]
fn sequences_only_grow_on_one_connection() {
    let rig = Rig::new();
    rig.control().topic("grow", Order::Strong, 64, 0);
    let mut publish = Client::welcomed(rig.tcp(), publisher(4), "grow");
    publish.publish(4, 0, b"a");
    publish.receipt();
    publish.publish(4, 0, b"b");
    let (why, sentence) = publish.refused();
    assert_eq!(why, Refusal::BadBatch);
    assert!(sentence.contains("sequence 0"), "{sentence}");
    publish.assert_closed();
}

#[test]
fn refusals_say_what_was_wrong_with_numbers() {
    let rig = Rig::new();
    let topic = rig.control().topic("orders", Order::Strong, 64, 2);
    let refused = |hello: Hello, name: &str| match Client::hello(rig.tcp(), hello, name) {
        (_, Frame::Refused(why), sentence) => (why, sentence),
        (_, other, _) => panic!("{other:?}"),
    };
    let (why, sentence) = refused(publisher(1), "ordres");
    assert_eq!(why, Refusal::NoTopic);
    assert!(sentence.contains("did you mean \"orders\""), "{sentence}");
    assert_eq!(refused(publisher(1), "odd name").0, Refusal::NoTopic);
    assert_eq!(refused(publisher(1), "").0, Refusal::NoTopic);
    assert_eq!(refused(publisher(0), "orders").0, Refusal::Malformed);
    let durable = Hello { ack: Ack::Durable, ..publisher(1) };
    let (why, sentence) = refused(durable, "orders");
    assert_eq!(why, Refusal::BadAck);
    assert!(sentence.contains("2 replicas or more") && sentence.contains("keeps 1"), "{sentence}");
    let memory = Hello { carrier: landfall_layout::frame::Carrier::Memory, ..publisher(1) };
    assert_eq!(refused(memory, "orders").0, Refusal::NotServed);
    let unknown = Hello { session_epoch: 9, ..publisher(1) };
    let (why, sentence) = refused(unknown, "orders");
    assert_eq!(why, Refusal::Malformed);
    assert!(sentence.contains("epoch 9"), "{sentence}");

    let spoilt = |spoil: &dyn Fn(&mut Vec<u8>)| {
        let mut publish = Client::welcomed(rig.tcp(), publisher(77), "orders");
        let epoch = publish.welcome().session_epoch;
        let mut bytes = batch(topic, 77, epoch, 0, &[3; 1000]);
        spoil(&mut bytes);
        publish.send(&bytes);
        publish.refused()
    };
    assert_eq!(spoilt(&|bytes| bytes[20] ^= 1).0, Refusal::BadBatch);
    assert_eq!(spoilt(&|bytes| bytes[0] ^= 1).0, Refusal::Malformed);
    let (why, sentence) = spoilt(&|bytes| bytes[500] ^= 1);
    assert_eq!(why, Refusal::BadBatch);
    assert!(sentence.contains("payload checksum"), "{sentence}");
    assert!(rig.counter(Counter::CrcErrors) >= 2);
    assert_eq!(rig.counter(Counter::BatchesLanded), 0);
    assert!(rig.errors().iter().any(|text| text.contains("payload checksum")));
}

#[test]
fn a_batch_of_the_largest_size_lands_and_one_past_it_is_refused() {
    let rig = Rig::new();
    rig.control().topic("large", Order::Total, 64, 2);
    let mut publish = Client::welcomed(rig.tcp(), publisher(1), "large");
    let most = publish.welcome().batch_bytes_max as usize;
    let payload = vec![5; most - PREAMBLE_BYTES as usize - 16];
    for seq in 0..4 {
        publish.publish(1, seq, &payload);
        assert_eq!(publish.receipt().batch_seq, seq);
    }
    let mut read = Client::welcomed(rig.tcp(), subscriber(From::Earliest), "large");
    for index in 0..4 {
        assert_eq!(read.delivery().0.index, index);
    }
    // The broker refuses at the preamble and does not wait for the payload.
    let bytes = batch(
        publish.welcome().topic,
        1,
        publish.welcome().session_epoch,
        4,
        &vec![5; payload.len() + 1],
    );
    let _ = publish.wire.write_all(&bytes);
    let (why, sentence) = publish.refused();
    assert_eq!(why, Refusal::BadBatch);
    assert!(sentence.contains(&most.to_string()), "{sentence}");
}

#[test]
fn segments_roll_over_and_are_reported_sealed() {
    let rig = Rig::new();
    rig.control().topic("roll", Order::Total, 64, 0);
    let mut publish = Client::welcomed(rig.tcp(), publisher(1), "roll");
    for seq in 0..20 {
        publish.publish(1, seq, &vec![1; 700_000]);
        publish.receipt();
    }
    until("segments are sealed", || rig.control().sealed.len() >= 8);
    let sealed = rig.control().sealed.clone();
    assert!(sealed.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{sealed:?}");
}

#[test]
fn subscriptions_start_where_they_were_asked_to() {
    let rig = Rig::new();
    rig.control().topic("from", Order::Total, 64, 0);
    let mut publish = Client::welcomed(rig.tcp(), publisher(1), "from");
    let mut landed = Vec::new();
    for seq in 0..10 {
        publish.publish(1, seq, b"m");
        landed.push(publish.receipt().landed_ns);
        std::thread::sleep(Duration::from_millis(1));
    }
    let first = |from| {
        let mut read = Client::welcomed(rig.tcp(), subscriber(from), "from");
        assert_eq!(read.welcome().end, 10);
        let start = read.welcome().start;
        assert_eq!(read.delivery().0.first_position, start);
        start
    };
    assert_eq!(first(From::Earliest), 0);
    assert_eq!(first(From::Position(4)), 4);
    assert_eq!(first(From::Time(landed[7])), 7);
    let mut latest = Client::welcomed(rig.tcp(), subscriber(From::Latest), "from");
    assert_eq!(latest.frame().0, Frame::CaughtUp);
    let mut later = Client::welcomed(rig.tcp(), subscriber(From::Position(12)), "from");
    assert_eq!(later.frame().0, Frame::CaughtUp);
    for seq in 10..14 {
        publish.publish(1, seq, b"m");
        publish.receipt();
    }
    assert_eq!(latest.delivery().0.first_position, 10);
    assert_eq!(later.delivery().0.first_position, 12);
}

#[test]
fn a_subscriber_that_says_where_it_is_goes_on_there() {
    let rig = Rig::new();
    rig.control().topic("own", Order::Broker, 64, 0);
    let mut publish = Client::welcomed(rig.tcp(), publisher(1), "own");
    for seq in 0..3 {
        publish.publish(1, seq, b"m");
        publish.receipt();
    }
    let tail = |log, next, position| {
        HelloTail { topic: "own".into(), places: vec![LogPlace { log, next, position }] }.encode()
    };
    let hello = subscriber(From::Earliest);
    for (tail, first) in [
        (tail(0, 2, 2), 2),
        // In another log: this one begins where the hello says.
        (tail(5, 2, 2), 0),
        // What the log has not come to is of another life of the topic.
        (tail(0, 9, 9), 0),
        (tail(0, 1, 9), 0),
    ] {
        let (mut read, frame, sentence) = Client::hello_tail(rig.tcp(), hello, &tail);
        assert!(matches!(frame, Frame::Welcome(_)), "{frame:?} {sentence}");
        let delivery = read.delivery().0;
        assert_eq!((delivery.index, delivery.first_position), (first, first));
    }
    let (_, frame, sentence) = Client::hello_tail(rig.tcp(), hello, b"own\0abc");
    assert_eq!(frame, Frame::Refused(Refusal::Malformed));
    assert!(sentence.contains("3 bytes are no places"), "{sentence}");
}

#[test]
fn a_subscriber_from_the_latest_is_told_where_each_log_ends() {
    let rig = Rig::with(2, Idle::Backoff);
    rig.control().topic("own", Order::Broker, 64, 0);
    let told = |places: &[LogPlace]| {
        let mut read = Client::welcomed(rig.tcp(), subscriber(From::Latest), "own");
        let (frame, tail) = read.frame();
        assert_eq!((frame, tail.as_bytes()), (Frame::Ends, &LogPlace::encode_all(places)[..]));
        assert_eq!(read.frame().0, Frame::CaughtUp);
        read
    };
    told(&[]);
    let mut publish = Client::welcomed(&rig.brokers[1].tcp, publisher(1), "own");
    for seq in 0..3 {
        publish.publish(1, seq, b"m");
        publish.receipt();
    }
    let mut read = told(&[LogPlace { log: 1, next: 3, position: 3 }]);
    publish.publish(1, 3, b"m");
    assert_eq!(read.delivery().0.index, 3);
    let mut old = Client::welcomed(rig.tcp(), subscriber(From::Earliest), "own");
    assert!(matches!(old.frame().0, Frame::Delivery(_)), "nobody else is told");
}

#[test]
fn any_broker_delivers_what_another_landed() {
    let rig = Rig::with(2, Idle::Backoff);
    rig.control().topic("shared", Order::Total, 64, 0);
    let mut publish = Client::welcomed(&rig.brokers[0].tcp, publisher(1), "shared");
    let mut read = Client::welcomed(&rig.brokers[1].tcp, subscriber(From::Latest), "shared");
    assert_eq!(read.frame().0, Frame::CaughtUp);
    publish.publish(1, 0, b"m");
    assert_eq!(read.delivery().0.broker, 0);
}

#[test]
fn a_broker_that_starts_again_goes_on_where_it_stopped() {
    let mut rig = Rig::new();
    rig.control().topic("again", Order::Total, 64, 0);
    rig.control().topic("own", Order::Broker, 64, 0);
    for round in 0..3 {
        let mut sequenced = Client::welcomed(rig.tcp(), publisher(1), "again");
        sequenced.publish(1, round, b"m");
        assert_eq!(sequenced.receipt().position, round);
        let mut own = Client::welcomed(rig.tcp(), publisher(2), "own");
        own.publish(2, round, b"m");
        assert_eq!(own.receipt().position, round);
        rig.brokers[0].stop();
        assert_eq!(sequenced.frame().0, Frame::Bye);
        assert_eq!(own.frame().0, Frame::Bye);
        // The scripted control would go on with the old log segment, as the real one does.
        rig.control().offer_logs_again();
        rig.brokers[0] = rig.serve(0, Idle::Backoff);
    }
}

#[test]
fn what_was_granted_to_the_process_before_is_not_given_back_unused() {
    let mut rig = Rig::new();
    let topic = rig.control().topic("own", Order::Broker, 64, 0);
    let mut own = Client::welcomed(rig.tcp(), publisher(2), "own");
    own.publish(2, 0, b"m");
    own.receipt();
    rig.brokers[0].stop();
    // An answer that nobody waits for any more, and the log in which the next process goes on.
    let granted = rig.control().grant_of_log(topic, 0);
    rig.control().tell_all(granted);
    rig.control().offer_logs_again();
    rig.brokers[0] = rig.serve(0, Idle::Backoff);
    let mut own = Client::welcomed(rig.tcp(), publisher(2), "own");
    own.publish(2, 1, b"m");
    assert_eq!(own.receipt().position, 1);
    let Command::Grant { segment: log, .. } = granted else { unreachable!("it is one") };
    let sealed = rig.control().sealed.clone();
    assert!(sealed.iter().all(|(segment, _)| *segment != log), "{sealed:?}: it writes in {log}");
}
