//! Publishers through memory, against a broker that says what each test tells it to.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::pool::{Peer, batch_at, broker, give, pool};
use landfall::{Ack, Client, Error, PublishError, PublisherBuilder, Transport};
use landfall_layout::batch::Messages;
use landfall_layout::frame::{Frame, Refusal, Stall};
use landfall_layout::segment::SegmentKind;
use landfall_pool::Pool;

const SEGMENT: u32 = 3;

fn set_up(client: &Client) -> PublisherBuilder {
    client
        .publisher("topic")
        .client_id(7)
        .transport(Transport::Memory)
        .linger(Duration::from_secs(600))
        .timeout(Duration::from_secs(10))
}

/// Grants what is wished for from `offset` on and orders what is written, until goodbye. Returns
/// each batch's offset and its bytes.
fn serve(pool: &Pool, peer: &mut Peer, mut offset: u32, extent_bytes: u32) -> Vec<(u32, u32)> {
    let (mut extents, mut position, mut batches) = (1, 0, Vec::new());
    loop {
        match peer.next() {
            Some(Frame::ExtentWanted { .. }) => {
                let bytes = extent_bytes;
                let frame = Frame::Extent {
                    extent: extents,
                    segment: SEGMENT,
                    generation: 1,
                    offset,
                    bytes,
                    key: 0,
                    at: 0,
                };
                peer.send(frame);
                extents += 1;
                offset += bytes;
            }
            Some(Frame::Written { offset, bytes, batch_seq, .. }) => {
                let (preamble, _) = batch_at(pool, SEGMENT, offset);
                assert_eq!(preamble.batch_seq, batch_seq);
                assert_eq!(preamble.batch_bytes(), u64::from(bytes));
                peer.receipt(&preamble, position);
                position += u64::from(preamble.count);
                batches.push((offset, bytes));
            }
            Some(Frame::ExtentDone { .. }) => {}
            Some(Frame::Bye) => {
                peer.send(Frame::Bye);
                return batches;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn batches_lie_one_behind_the_other_in_the_extents_granted() {
    for (batch_bytes, extent_bytes) in [(4096, 16 << 10), (128 << 10, 300 << 10), (4096, 4096)] {
        let (pool, _fd) = pool();
        give(&pool, SEGMENT, SegmentKind::Payload, 1);
        let broker_pool = Arc::clone(&pool);
        let (client, script) = broker(move |connections| {
            let mut peer = connections.publisher(&broker_pool, 1, 0);
            let batches = serve(&broker_pool, &mut peer, 0, extent_bytes);
            assert!(batches.len() > 2);
            for pair in batches.windows(2) {
                let end = pair[0].0 + pair[0].1.next_multiple_of(64);
                let next_extent = end.next_multiple_of(extent_bytes);
                assert!(pair[1].0 == end || pair[1].0 >= end && pair[1].0 <= next_extent);
                assert!(pair[1].0.is_multiple_of(64));
            }
            assert!(batches.iter().all(|(_, bytes)| *bytes <= batch_bytes));
        });
        let mut publisher = set_up(&client).batch_bytes(batch_bytes).build().unwrap();
        assert_eq!(publisher.transport(), Transport::Memory);
        let mut tickets = Vec::new();
        for number in 0..u64::from(batch_bytes / 10) {
            let payload = vec![number as u8; (number % 97) as usize];
            tickets.push(publisher.publish(&payload).unwrap());
        }
        publisher.flush().unwrap();
        assert_eq!(publisher.acked().messages, tickets.len() as u64);
        let last = publisher.wait(*tickets.last().unwrap()).unwrap();
        assert_eq!(last.position, Some(tickets.len() as u64 - 1));
        publisher.close().unwrap();
        script.join().unwrap();
    }
}

#[test]
fn a_message_larger_than_a_batch_gets_an_extent_of_its_own() {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let broker_pool = Arc::clone(&pool);
    let (client, script) = broker(move |connections| {
        let mut peer = connections.publisher(&broker_pool, 1, 0);
        peer.grant(1, SEGMENT, 0, 8192);
        let Some(Frame::Written { offset: 0, extent: 1, .. }) = peer.next() else { panic!() };
        let (first, _) = batch_at(&broker_pool, SEGMENT, 0);
        let Some(Frame::ExtentDone { extent: 1 }) = peer.next() else { panic!() };
        let Some(Frame::ExtentWanted { bytes }) = peer.next() else { panic!() };
        assert!(bytes >= 64 + 16 + 100_000);
        peer.send(Frame::Extent {
            extent: 2,
            segment: SEGMENT,
            generation: 1,
            offset: 8192,
            bytes: bytes.next_multiple_of(64),
            key: 0,
            at: 0,
        });
        while !matches!(peer.next(), Some(Frame::Written { extent: 2, offset: 8192, .. })) {}
        let (second, payload) = batch_at(&broker_pool, SEGMENT, 8192);
        assert_eq!(Messages::new(&payload, 1).next().unwrap().payload, vec![9; 100_000]);
        peer.receipt(&first, 0);
        peer.receipt(&second, 1);
        while peer.next().is_some() {}
    });
    let mut publisher = set_up(&client).batch_bytes(4096).build().unwrap();
    publisher.publish(b"small").unwrap();
    publisher.publish(&[9; 100_000]).unwrap();
    publisher.flush().unwrap();
    assert_eq!(publisher.acked().batches, 2);
    drop(publisher);
    script.join().unwrap();
}

#[test]
fn what_a_dead_broker_had_is_read_back_and_sent_to_the_next() {
    for batch_bytes in [4096, 256 << 10] {
        let (pool, _fd) = pool();
        give(&pool, SEGMENT, SegmentKind::Payload, 1);
        let broker_pool = Arc::clone(&pool);
        let (client, script) = broker(move |connections| {
            let mut peer = connections.publisher(&broker_pool, 1, 0);
            peer.grant(1, SEGMENT, 0, 1 << 20);
            let mut written = Vec::new();
            while written.len() < 3 {
                if let Some(Frame::Written { offset, .. }) = peer.next() {
                    written.push(batch_at(&broker_pool, SEGMENT, offset));
                }
            }
            // Batch 0 was ordered; the publisher hears of it from the next broker.
            drop(peer);
            let mut peer = connections.publisher(&broker_pool, 2, 1);
            peer.grant(1, SEGMENT, 1 << 20, 1 << 19);
            let mut again = Vec::new();
            while again.len() < 3 {
                if let Some(Frame::Written { offset, .. }) = peer.next() {
                    again.push(batch_at(&broker_pool, SEGMENT, offset));
                }
            }
            for (before, after) in written[1..].iter().zip(&again) {
                assert_eq!(after.0.batch_seq, before.0.batch_seq);
                assert_eq!((before.0.session_epoch, after.0.session_epoch), (1, 2));
                assert_eq!(after.1, before.1, "the same messages");
            }
            // The batch that was open when the broker died.
            let open: Vec<_> = Messages::new(&again[2].1, again[2].0.count).collect();
            assert_eq!(open.last().unwrap().payload, b"open");
            for (position, (preamble, _)) in again.iter().enumerate() {
                peer.receipt(preamble, position as u64);
            }
            while peer.next().is_some() {}
        });
        let mut publisher = set_up(&client).batch_bytes(batch_bytes).build().unwrap();
        for number in 0..3_u8 {
            for _ in 0..10 {
                publisher.publish(&[number; 300]).unwrap();
            }
            publisher.seal().unwrap();
        }
        publisher.publish(b"open").unwrap();
        // Until the loss is seen the batch stays open in the extent.
        while publisher.stats().reconnects == 0 {
            publisher.poll().unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        publisher.flush().unwrap();
        assert_eq!((publisher.acked().messages, publisher.stats().resubmitted), (31, 2));
        drop(publisher);
        script.join().unwrap();
    }
}

#[test]
fn what_cannot_be_read_back_is_named() {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let broker_pool = Arc::clone(&pool);
    let (client, script) = broker(move |connections| {
        let mut peer = connections.publisher(&broker_pool, 1, 0);
        peer.grant(1, SEGMENT, 0, 1 << 20);
        let mut seen = 0;
        while seen < 2 {
            seen += u32::from(matches!(peer.next(), Some(Frame::Written { .. })));
        }
        // The segment has another use before the publisher looks.
        give(&broker_pool, SEGMENT, SegmentKind::Payload, 2);
    });
    let mut publisher = set_up(&client).build().unwrap();
    for _ in 0..2 {
        for _ in 0..5 {
            publisher.publish(b"gone").unwrap();
        }
        publisher.seal().unwrap();
    }
    let error = publisher.flush().unwrap_err();
    let Error::Lost { batches: 2, messages: 10, first_seq: Some(0), .. } = error else {
        panic!("{error:?}")
    };
    assert!(error.to_string().contains("generation 2 now and had 1"), "{error}");
    assert!(matches!(publisher.publish(b"more"), Err(Error::Failed { .. })));
    script.join().unwrap();
}

#[test]
fn no_extent_is_backpressure_with_the_brokers_reason() {
    let (pool, _fd) = pool();
    let broker_pool = Arc::clone(&pool);
    let (client, script) = broker(move |connections| {
        let mut peer = connections.publisher(&broker_pool, 1, 0);
        peer.send(Frame::Stalled { why: Stall::PoolFull, used: 0, of: 31 });
        while peer.next().is_some() {}
    });
    let mut publisher = set_up(&client).timeout(Duration::from_secs(2)).build().unwrap();
    assert!(matches!(publisher.try_publish(None, b"x"), Err(PublishError::Full { .. })));
    let text = publisher.publish(b"x").unwrap_err().to_string();
    assert!(text.contains("the pool is full (0 of 31 segments free)"), "{text}");
    drop(publisher);
    script.join().unwrap();
}

#[test]
fn extents_that_cannot_be_are_refused() {
    let cases = [
        (u32::MAX, 0, 4096),
        (SEGMENT, u32::MAX, 4096),
        (SEGMENT, 2 << 20, 4096),
        (SEGMENT, 8, 4096),
        (SEGMENT, 0, 64),
        (SEGMENT, 64, 2 << 20),
    ];
    for (segment, offset, bytes) in cases {
        let (pool, _fd) = pool();
        let broker_pool = Arc::clone(&pool);
        let (client, script) = broker(move |connections| {
            let mut peer = connections.publisher(&broker_pool, 1, 0);
            peer.grant(1, segment, offset, bytes);
            while peer.next().is_some() {}
        });
        let mut publisher = set_up(&client).build().unwrap();
        let error = publisher.publish(b"x").unwrap_err();
        assert!(matches!(error, Error::Unexpected { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{bytes} bytes at {offset}")), "{error}");
        drop(publisher);
        script.join().unwrap();
    }
}

#[test]
fn without_receipts_a_batch_is_done_when_the_broker_can_see_it() {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let broker_pool = Arc::clone(&pool);
    let (client, script) = broker(move |connections| {
        let mut peer = connections.publisher(&broker_pool, 1, 0);
        peer.grant(1, SEGMENT, 0, 1 << 20);
        while peer.next().is_some() {}
    });
    let mut publisher = set_up(&client).ack(Ack::None).build().unwrap();
    publisher.publish(b"x").unwrap();
    publisher.flush().unwrap();
    assert_eq!(publisher.acked().batches, 1);
    drop(publisher);
    script.join().unwrap();
}

#[test]
fn what_a_broker_said_before_its_connection_ended_is_heard() {
    let (pool, _fd) = pool();
    give(&pool, SEGMENT, SegmentKind::Payload, 1);
    let broker_pool = Arc::clone(&pool);
    let (client, script) = broker(move |connections| {
        let mut peer = connections.publisher(&broker_pool, 1, 0);
        peer.grant(1, SEGMENT, 0, 1 << 20);
        let mut written = Vec::new();
        while written.len() < 2 {
            if let Some(Frame::Written { offset, .. }) = peer.next() {
                written.push(batch_at(&broker_pool, SEGMENT, offset).0);
            }
        }
        peer.receipt(&written[0], 0);
        peer.send(Frame::Refused(Refusal::TopicGone));
    });
    let mut publisher = set_up(&client).build().unwrap();
    for text in [b"a", b"b"] {
        publisher.publish(text).unwrap();
        publisher.seal().unwrap();
    }
    // It looks when all of that is over, and whether the broker is there as well.
    script.join().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let error = publisher.flush().unwrap_err();
    assert!(matches!(error, Error::TopicGone { .. }), "{error}");
    assert_eq!((publisher.acked().batches, publisher.stats().reconnects), (1, 0));
}
