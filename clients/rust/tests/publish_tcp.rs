//! Publishers over TCP, against a broker that says what each test tells it to.

mod common;

use std::time::Duration;

use common::{TOPIC, broker, broker_with_copies, welcome};
use landfall::{
    Ack, Client, Error, Lane, Outgoing, PublishError, Publisher, PublisherBuilder, Reached,
    Transport,
};
use landfall_layout::batch::Messages;
use landfall_layout::frame::{
    Carrier, FRAME_MAGIC, FRAME_VERSION, Frame, Receipt, Refusal, Role, Stall,
};
use landfall_layout::session::first_epoch_after;
use landfall_layout::topic::Order;

fn set_up(client: &Client) -> PublisherBuilder {
    client
        .publisher("topic")
        .client_id(7)
        .transport(Transport::Tcp)
        .linger(Duration::from_secs(600))
        .timeout(Duration::from_secs(10))
}

/// A batch of one message, by itself.
fn publish_one(publisher: &mut Publisher, payload: &[u8]) -> landfall::Ticket {
    let ticket = publisher.publish(payload).unwrap();
    publisher.seal().unwrap();
    ticket
}

#[test]
fn hello_says_who_and_welcome_is_believed() {
    let (client, script) = broker(|connections| {
        let (mut peer, hello) = connections.greet();
        assert_eq!((hello.role, hello.carrier), (Role::Publish, Carrier::Stream));
        assert_eq!((hello.client, hello.session_epoch, hello.ack), (7, 0, Ack::Ordered));
        peer.send(Frame::Welcome(welcome(Order::Strong, 5, 40)));
        assert_eq!(peer.order_all(0), [40]);
    });
    let mut publisher = set_up(&client).build().unwrap();
    assert_eq!(publisher.client_id(), 7);
    assert_eq!((publisher.session_epoch(), publisher.next_seq()), (5, 40));
    assert_eq!((publisher.order(), publisher.transport()), (Order::Strong, Transport::Tcp));
    publisher.publish(b"x").unwrap();
    publisher.close().unwrap();
    script.join().unwrap();
}

#[test]
fn a_refusal_passes_the_brokers_sentence_on() {
    let (client, script) = broker(|connections| {
        let (mut peer, _) = connections.greet();
        peer.refuse(Frame::Refused(Refusal::NoTopic), "there is no topic \"topic\"");
    });
    let error = set_up(&client).build().err().unwrap();
    assert!(matches!(error, Error::NoTopic { .. }), "{error}");
    assert!(error.to_string().contains("there is no topic \"topic\""), "{error}");
    script.join().unwrap();
}

#[test]
fn nobody_at_the_address_is_unreachable() {
    let held = common::nobody();
    let address = held.local_addr().unwrap().to_string();
    let error = Client::new(&address).unwrap().publisher("t").build().err().unwrap();
    assert!(error.is_unreachable(), "{error}");
}

#[test]
fn a_receipt_names_the_messages_position() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        let (preamble, payload) = peer.batch().unwrap();
        assert_eq!((preamble.topic_id(), preamble.client), (TOPIC, 7));
        assert_eq!((preamble.session_epoch, preamble.batch_seq, preamble.count), (1, 0, 3));
        let messages: Vec<_> = Messages::new(&payload, 3).collect();
        assert_eq!(messages[1].key, Some(&b"key"[..]));
        assert_eq!((messages[1].payload, messages[1].timestamp_ns), (&b"two"[..], 77));
        assert!(messages[0].timestamp_ns > 1_600_000_000_000_000_000, "a wall clock");
        peer.receipt(&preamble, 100);
        peer.order_all(0);
    });
    let mut publisher = set_up(&client).build().unwrap();
    publisher.publish(b"one").unwrap();
    let two =
        Outgoing { key: Some(b"key"), payload: b"two", timestamp_ns: Some(77), lane: Lane::Normal };
    let two = publisher.publish_message(two).unwrap();
    let three = publisher.publish(b"three").unwrap();
    let receipt = publisher.wait(two).unwrap();
    assert_eq!((receipt.reached, receipt.position), (Reached::Ordered, Some(101)));
    assert_eq!((receipt.landed_ns, receipt.batch_seq), (5, Some(0)));
    assert_eq!(publisher.wait(three).unwrap().position, Some(102));
    assert_eq!(publisher.acked().messages, 3);
    let mut receipts = Vec::new();
    publisher.take_receipts(&mut receipts);
    assert_eq!((receipts.len(), receipts[0].first_position), (1, Some(100)));
    publisher.close().unwrap();
    script.join().unwrap();
}

#[test]
fn a_fenced_session_sends_what_is_not_ordered_again_in_a_new_epoch() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        let batches: Vec<_> = (0..4).map(|_| peer.batch().unwrap()).collect();
        peer.receipt(&batches[0].0, 0);
        // Batch 1 was ordered too, and the publisher does not know it.
        peer.send(Frame::Fenced { session_epoch: 1, next_seq: 2 });
        peer.until_closed();

        let (mut peer, hello) = connections.greet();
        assert_eq!((hello.client, hello.session_epoch), (7, 0));
        peer.send(Frame::Welcome(welcome(Order::Strong, 2, 2)));
        for (sequence, before) in (2..4).zip(&batches[2..]) {
            let (preamble, payload) = peer.batch().unwrap();
            assert_eq!((preamble.batch_seq, preamble.session_epoch), (sequence, 2));
            assert_eq!(payload, before.1, "the same messages");
            peer.receipt(&preamble, 10 + sequence);
        }
        assert_eq!(peer.order_all(0), [4]);
    });
    let mut publisher = set_up(&client).build().unwrap();
    let tickets: Vec<_> =
        [b"a", b"b", b"c", b"d"].iter().map(|text| publish_one(&mut publisher, *text)).collect();
    publisher.flush().unwrap();
    assert_eq!(publisher.session_epoch(), 2);
    assert_eq!((publisher.stats().resubmitted, publisher.stats().reconnects), (2, 1));
    assert_eq!(publisher.acked().batches, 4);
    let positions: Vec<_> =
        tickets.into_iter().map(|ticket| publisher.wait(ticket).unwrap().position).collect();
    assert_eq!(positions, [Some(0), None, Some(12), Some(13)]);
    publisher.publish(b"e").unwrap();
    publisher.close().unwrap();
    script.join().unwrap();
}

#[test]
fn a_connection_that_ends_is_replaced_and_nothing_is_lost() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        peer.batch().unwrap();
        drop(peer);
        let mut peer = connections.publisher(2, 0);
        assert_eq!(peer.order_all(0), [0, 1]);
    });
    let mut publisher = set_up(&client).build().unwrap();
    publish_one(&mut publisher, b"a");
    publisher.publish(b"b").unwrap();
    publisher.flush().unwrap();
    publisher.close().unwrap();
    script.join().unwrap();
}

/// As one is told whose host slept in the middle of a batch.
#[test]
fn who_is_given_up_in_the_middle_of_a_batch_comes_back_and_sends_it_again() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        let (preamble, _) = peer.batch().unwrap();
        assert_eq!(preamble.batch_seq, 0);
        peer.refuse(Frame::Refused(Refusal::Busy), "64 of 80 bytes of a batch came");
        peer.until_closed();
        let mut peer = connections.publisher(2, 0);
        assert_eq!(peer.order_all(0), [0]);
    });
    let mut publisher = set_up(&client).build().unwrap();
    let ticket = publish_one(&mut publisher, b"again");
    assert_eq!(publisher.wait(ticket).unwrap().position, Some(0));
    publisher.close().unwrap();
    script.join().unwrap();
}

#[test]
fn without_sequences_to_go_by_everything_without_a_receipt_is_sent_again() {
    let (client, script) = broker(|connections| {
        let (mut peer, _) = connections.greet();
        peer.send(Frame::Welcome(welcome(Order::Broker, 1, 0)));
        let first = peer.batch().unwrap().0;
        peer.batch().unwrap();
        peer.receipt(&first, 0);
        // The receipt is taken before the end of the connection is looked at.
        std::thread::sleep(Duration::from_millis(50));
        drop(peer);
        let (mut peer, _) = connections.greet();
        // Nobody keeps such a session's sequence: 0 means nothing here.
        peer.send(Frame::Welcome(welcome(Order::Broker, 2, 0)));
        assert_eq!(peer.order_all(0), [1]);
    });
    let mut publisher = set_up(&client).build().unwrap();
    publish_one(&mut publisher, b"a");
    publish_one(&mut publisher, b"b");
    publisher.flush().unwrap();
    assert_eq!(publisher.acked().batches, 2);
    publisher.close().unwrap();
    script.join().unwrap();
}

#[test]
fn what_a_stream_has_no_receipt_for_is_sent_again_whatever_the_highest_is() {
    let (client, script) = broker_with_copies(move |connections| {
        let (mut peer, hello) = connections.greet();
        assert_eq!(hello.ack, Ack::Durable);
        peer.send(Frame::Welcome(welcome(Order::Stream, 1, 0)));
        (0..3).for_each(|_| drop(peer.batch().unwrap()));
        drop(peer);
        let (mut peer, _) = connections.greet();
        // Above the highest that is ordered: one below may have been another broker's.
        peer.send(Frame::Welcome(welcome(Order::Stream, 2, 2)));
        for seq in 0..3 {
            assert_eq!(peer.batch().unwrap().0.batch_seq, seq);
            let reached = if seq == 1 { Reached::Duplicate } else { Reached::Durable };
            peer.send(Frame::Receipt(Receipt {
                reached,
                count: 1,
                batch_seq: seq,
                position: 9 + seq,
                landed_ns: 5,
                session_epoch: 2,
            }));
        }
        assert!(peer.batch().is_none());
        peer.send(Frame::Bye);
    });
    let mut publisher = set_up(&client).ack(Ack::Durable).build().unwrap();
    let tickets: Vec<_> =
        [b"a", b"b", b"c"].iter().map(|text| publish_one(&mut publisher, *text)).collect();
    let told: Vec<_> =
        tickets.iter().map(|ticket| publisher.wait(*ticket).unwrap().reached).collect();
    assert_eq!(told, [Reached::Durable, Reached::Duplicate, Reached::Durable]);
    assert_eq!(publisher.stats().resubmitted, 3);
    publisher.close().unwrap();
    script.join().unwrap();
}

/// The session's line went to another client: what was ordered of this one is not known there, and
/// what has no receipt would be ordered twice.
#[test]
fn what_a_line_that_another_client_had_knows_nothing_of_is_not_sent_again() {
    let other_life = first_epoch_after(1);
    // Of the same line, and of another one that nobody had before.
    for (order, epoch, now) in
        [(Order::Strong, 1, other_life), (Order::Stream, 1, other_life), (Order::Strong, 3, 1)]
    {
        let (client, script) = broker(move |connections| {
            let (mut peer, _) = connections.greet();
            peer.send(Frame::Welcome(welcome(order, epoch, 0)));
            let first = peer.batch().unwrap().0;
            (0..2).for_each(|_| drop(peer.batch().unwrap()));
            peer.receipt(&first, 0);
            // The receipt is taken before the end of the connection is looked at.
            std::thread::sleep(Duration::from_millis(50));
            drop(peer);
            let (mut peer, _) = connections.greet();
            peer.send(Frame::Welcome(welcome(order, now, 0)));
            assert!(peer.batch().is_none(), "{order}: sent again");
        });
        let mut publisher = set_up(&client).build().unwrap();
        for text in [b"a", b"b", b"c"] {
            publish_one(&mut publisher, text);
        }
        let error = publisher.flush().unwrap_err();
        let Error::Doubtful { client: 7, batches, messages, first_seq, last_seq } = error else {
            panic!("{order}: {error}");
        };
        assert_eq!((batches, messages, first_seq, last_seq), (2, 2, 1, 2), "{order}");
        drop(publisher);
        script.join().unwrap();
    }
}

#[test]
fn a_publisher_that_has_all_its_receipts_goes_on_in_a_line_that_another_client_had() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        let first = peer.batch().unwrap().0;
        peer.receipt(&first, 0);
        std::thread::sleep(Duration::from_millis(50));
        drop(peer);
        let mut peer = connections.publisher(first_epoch_after(1), 0);
        assert_eq!(peer.order_all(1), [0]);
    });
    let mut publisher = set_up(&client).build().unwrap();
    let ticket = publish_one(&mut publisher, b"a");
    publisher.wait(ticket).unwrap();
    // The connection's end is seen before anything else is sent.
    std::thread::sleep(Duration::from_millis(100));
    publisher.poll().unwrap();
    publisher.publish(b"b").unwrap();
    publisher.close().unwrap();
    script.join().unwrap();
}

#[test]
fn an_epoch_that_somebody_else_opened_is_fatal() {
    let (client, script) = broker(|connections| {
        let peer = connections.publisher(1, 0);
        drop(peer);
        let peer = connections.publisher(5, 0);
        peer.until_closed();
    });
    let mut publisher = set_up(&client).build().unwrap();
    let error = match publisher.publish(b"a") {
        Ok(_) => publisher.flush().unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, Error::Superseded { client: 7, epoch: 1, now: 5 }), "{error}");
    let error = publisher.publish(b"b").unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error}");
    script.join().unwrap();
}

#[test]
fn a_broker_that_takes_nothing_is_backpressure_with_numbers() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        peer.send(Frame::Stalled { why: Stall::PoolFull, used: 0, of: 96 });
        peer.until_closed();
    });
    let mut publisher = set_up(&client)
        .batch_bytes(4096)
        .memory_bytes(64 << 10)
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let full = loop {
        match publisher.try_publish(None, &[1; 1000]) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let PublishError::Full { queued_bytes, bound } = full else { panic!("{full}") };
    assert_eq!(bound, 64 << 10);
    assert!((60 << 10..=64 << 10).contains(&queued_bytes), "{queued_bytes}");
    let error = publisher.publish(&[1; 1000]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("room to publish") && text.contains("0 of 96"), "{text}");
    drop(publisher);
    script.join().unwrap();
}

#[test]
fn urgent_lanes_are_sealed_first() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        for (sequence, expected) in [(0, &b"high"[..]), (1, b"normal"), (2, b"low")] {
            let (preamble, payload) = peer.batch().unwrap();
            assert_eq!(preamble.batch_seq, sequence);
            assert_eq!(Messages::new(&payload, 1).next().unwrap().payload, expected);
            peer.receipt(&preamble, sequence);
        }
        peer.order_all(0);
    });
    let mut publisher = set_up(&client).build().unwrap();
    for (lane, payload) in
        [(Lane::Low, &b"low"[..]), (Lane::Normal, b"normal"), (Lane::High, b"high")]
    {
        publisher.publish_message(Outgoing { payload, lane, ..Outgoing::default() }).unwrap();
    }
    publisher.flush().unwrap();
    publisher.close().unwrap();
    script.join().unwrap();
}

#[test]
fn a_batch_that_lingered_goes_with_the_next_poll() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        assert_eq!(peer.batch().unwrap().0.count, 1);
        assert_eq!(peer.batch().unwrap().0.count, 1);
    });
    let linger = Duration::from_millis(5);
    let mut publisher = set_up(&client).linger(linger).ack(Ack::None).build().unwrap();
    publisher.publish(b"a").unwrap();
    assert_eq!(publisher.stats().batches, 0);
    std::thread::sleep(linger);
    publisher.poll().unwrap();
    assert_eq!(publisher.stats().batches, 1);
    publisher.publish(b"b").unwrap();
    publisher.seal().unwrap();
    script.join().unwrap();
}

#[test]
fn without_linger_each_message_is_a_batch() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        assert_eq!(peer.order_all(0), [0, 1, 2]);
    });
    let mut publisher = set_up(&client).linger(Duration::ZERO).build().unwrap();
    for _ in 0..3 {
        publisher.publish(b"x").unwrap();
    }
    assert_eq!(publisher.stats().batches, 3);
    publisher.close().unwrap();
    script.join().unwrap();
}

#[test]
fn without_receipts_what_is_written_is_done() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        assert_eq!(peer.batch().unwrap().0.count, 2);
        assert!(peer.batch().is_none(), "goodbye");
        peer.send(Frame::Bye);
        peer.until_closed();
    });
    let mut publisher = set_up(&client).ack(Ack::None).build().unwrap();
    let ticket = publisher.publish(b"a").unwrap();
    publisher.publish(b"b").unwrap();
    publisher.flush().unwrap();
    assert_eq!(publisher.acked().messages, 2);
    assert!(matches!(publisher.wait(ticket), Err(Error::NoReceipts)));
    publisher.close().unwrap();
    script.join().unwrap();
}

#[test]
fn a_message_at_the_bound_goes_and_one_byte_more_does_not() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        assert_eq!(peer.order_all(0), [0, 1]);
    });
    let mut publisher = set_up(&client).build().unwrap();
    let most = (1 << 20) - 64 - 16;
    publisher.publish(b"first").unwrap();
    publisher.publish(&vec![1; most]).unwrap();
    match publisher.publish(&vec![1; most + 1]) {
        Err(Error::TooLarge { bytes, most }) => assert_eq!((bytes, most), ((1 << 20) + 8, 1 << 20)),
        other => panic!("{other:?}"),
    }
    let key = vec![0; 65_536];
    assert!(matches!(publisher.try_publish(Some(&key), b""), Err(PublishError::Failed(_))));
    publisher.close().unwrap();
    script.join().unwrap();
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let client = Client::new("127.0.0.1:1").unwrap();
    let build = |builder: PublisherBuilder| builder.build().err().unwrap().to_string();
    assert!(build(client.publisher("t").batch_bytes(10)).starts_with("batch_bytes: 10 bytes"));
    assert!(build(client.publisher("t").memory_bytes(10)).starts_with("memory_bytes: 10 bytes"));
    assert!(build(client.publisher("t").timeout(Duration::ZERO)).starts_with("timeout: 0"));
    assert!(build(client.publisher("t").broker(32)).starts_with("broker: 32"));
    assert!(build(client.publisher("t").broker(1).spread(true)).starts_with("spread: on"));
    let (client, script) = broker(|connections| {
        let _ = connections.publisher(1, 0);
    });
    let text = build(client.publisher("topic").transport(Transport::Tcp).batch_bytes(2 << 20));
    assert!(text.contains("this pool takes at most 1048576"), "{text}");
    script.join().unwrap();
}

/// Bytes from a generator, so that a failure can be had again.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::new();
    for _ in 0..bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.push(state as u8);
    }
    out
}

#[test]
fn answers_that_are_no_protocol_are_errors_and_nothing_worse() {
    use std::io::Write;
    for seed in 0..40 {
        let (client, script) = broker(move |connections| {
            let (mut peer, _) = connections.greet();
            let mut bytes = noise(seed, 64 + seed as usize);
            if seed % 2 == 0 {
                // A head that is right, and fields that are not.
                bytes[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
                bytes[4..6].copy_from_slice(&[FRAME_VERSION, 2]);
                bytes[6..8].copy_from_slice(&[0; 2]);
            }
            let _ = peer.stream.write_all(&bytes);
        });
        let built = set_up(&client).timeout(Duration::from_millis(200)).build();
        if let Ok(mut publisher) = built {
            let _ = publisher.publish(b"x");
            let _ = publisher.flush();
        }
        script.join().unwrap();
    }
}

#[test]
fn frames_that_make_no_sense_later_are_errors_and_nothing_worse() {
    use landfall_layout::frame::Receipt;
    let receipt = |batch_seq, session_epoch| {
        Frame::Receipt(Receipt {
            reached: Reached::Ordered,
            count: 1,
            batch_seq,
            position: u64::MAX,
            landed_ns: u64::MAX,
            session_epoch,
        })
    };
    // Receipts for what was never sent, or of another epoch, change nothing.
    let (client, script) = broker(move |connections| {
        let mut peer = connections.publisher(1, 0);
        peer.send(receipt(u64::MAX, 1));
        peer.send(receipt(0, 9));
        peer.send(receipt(1, 1));
        peer.send(Frame::Fenced { session_epoch: 9, next_seq: 0 });
        assert_eq!(peer.order_all(0), [0]);
    });
    let mut publisher = set_up(&client).build().unwrap();
    publisher.publish(b"a").unwrap();
    publisher.flush().unwrap();
    assert_eq!(publisher.acked().batches, 1);
    publisher.close().unwrap();
    script.join().unwrap();
    // A frame that only clients send is a broker gone wrong.
    let (client, script) = broker(move |connections| {
        let mut peer = connections.publisher(1, 0);
        peer.send(Frame::ExtentWanted { bytes: 1 });
        peer.until_closed();
    });
    let mut publisher = set_up(&client).build().unwrap();
    let error = match publisher.publish(b"a") {
        Ok(_) => publisher.flush().unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, Error::Unexpected { broker: 0, .. }), "{error}");
    script.join().unwrap();
}

#[test]
fn a_reserved_message_is_published_behind_what_was_published_before() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        let batches: Vec<_> = (0..3).map(|_| peer.batch().unwrap()).collect();
        let payloads: Vec<Vec<u8>> = batches
            .iter()
            .flat_map(|(preamble, payload)| {
                Messages::new(payload, preamble.count).map(|message| message.payload.to_vec())
            })
            .collect();
        let large = vec![7; 300_000];
        assert_eq!(payloads, [b"one".to_vec(), large, b"two".to_vec()]);
        let message = Messages::new(&batches[1].1, 1).next().unwrap();
        assert_eq!((message.key, message.timestamp_ns), (Some(&b"key"[..]), 5));
        for (position, (preamble, _)) in batches.iter().enumerate() {
            peer.receipt(preamble, position as u64);
        }
        peer.order_all(3);
    });
    let mut publisher = set_up(&client).build().unwrap();
    publisher.publish(b"one").unwrap();
    let reservation = landfall::Reservation {
        bytes: 300_000,
        key: Some(b"key"),
        timestamp_ns: Some(5),
        ..Default::default()
    };
    let mut room = publisher.reserve_message(reservation).unwrap();
    assert_eq!(room.len(), 300_000);
    room.fill(7);
    let ticket = publisher.seal_reserved(room).unwrap();
    publisher.publish(b"two").unwrap();
    publisher.seal().unwrap();
    assert_eq!(publisher.wait(ticket).unwrap().position, Some(1));
    let too_large = publisher.reserve(5 << 20).unwrap_err();
    assert!(matches!(too_large, Error::TooLarge { .. }), "{too_large}");
    publisher.close().unwrap();
    script.join().unwrap();
}
