//! A publisher that comes back where another one had its client id meanwhile, where the pool is
//! another one, or where the topic is gone.

mod common;

use std::time::Duration;

use common::{POOL, States, TOPIC, broker, brokers_saying, welcome};
use landfall::{Client, Error, Event, Publisher, Transport};
use landfall_layout::TopicId;
use landfall_layout::frame::{Frame, Refusal, Role, Welcome};
use landfall_layout::topic::Order;

const WAIT: Duration = Duration::from_secs(10);

fn build(client: &Client) -> Publisher {
    let builder = client.publisher("topic").transport(Transport::Tcp).client_id(7);
    builder.linger(Duration::ZERO).timeout(WAIT).build().unwrap()
}

/// What becomes of a publisher that began at sequence 1, has a batch without a receipt, and finds
/// another pool that welcomes it so. `Ok`: the batch was sent again.
fn in_another_pool(found: Welcome) -> Result<(), Error> {
    let states = States::default();
    let said = States::clone(&states);
    let order = Order::from_raw(found.order).unwrap();
    let script = move |connections: &mut common::Connections| {
        let (mut peer, hello) = connections.greet();
        assert!(hello.life != 0 && !hello.comes_back, "{hello:?}");
        peer.send(Frame::Welcome(welcome(order, 3, 1)));
        let preamble = peer.batch().unwrap().0;
        assert_eq!((preamble.life, preamble.batch_seq), (hello.life, 1));
        said.lock().unwrap().insert(POOL, "01");
        drop(peer);
        let (mut peer, again) = connections.greet();
        assert_eq!((again.life, again.comes_back), (hello.life, true));
        peer.send(Frame::Welcome(found));
        while let Some((preamble, _)) = peer.batch() {
            peer.receipt(&preamble, 0);
        }
        peer.send(Frame::Bye);
    };
    let (client, handles) = brokers_saying(vec![Box::new(script)], states);
    let mut publisher = build(&client);
    publisher.publish(b"a").unwrap();
    let outcome = publisher.flush();
    if outcome.is_ok() {
        assert_eq!(publisher.stats().resubmitted, u64::from(found.next_seq < 2));
    }
    drop(publisher);
    handles.into_iter().for_each(|handle| handle.join().unwrap());
    outcome
}

#[test]
fn what_another_publisher_landed_in_another_pool_is_not_called_its_own() {
    let doubtful = |found| {
        let error = in_another_pool(found).unwrap_err();
        let is_it = matches!(
            error,
            Error::Doubtful { client: 7, batches: 1, messages: 1, first_seq: 1, last_seq: 1 }
        );
        assert!(is_it, "{error}");
    };
    // Two batches of this client id are there, and the last is not this publisher's.
    doubtful(welcome(Order::Strong, 2, 2));
    // The disks let go of what was there.
    doubtful(Welcome { has_bounds: true, ..welcome(Order::Strong, 1, 0) });
    doubtful(Welcome { has_bounds: true, ..welcome(Order::Strong, 2, 1) });
    // Its own last batch is there.
    in_another_pool(Welcome { is_own: true, ..welcome(Order::Strong, 2, 2) }).unwrap();
    // Nothing of it is: one batch of whoever came before, or none.
    in_another_pool(welcome(Order::Strong, 2, 1)).unwrap();
    in_another_pool(welcome(Order::Strong, 1, 0)).unwrap();
}

#[test]
fn an_epoch_that_was_not_opened_for_who_was_taken_over_from_ends_it() {
    let script = |connections: &mut common::Connections| {
        drop(connections.publisher(1, 0));
        let (mut peer, hello) = connections.greet();
        assert_eq!((hello.session_epoch, hello.comes_back), (0, true));
        peer.send(Frame::Fenced { session_epoch: 2, next_seq: 1 });
    };
    let (client, handles) = brokers_saying(vec![Box::new(script)], States::default());
    let mut publisher = build(&client);
    let error = match publisher.publish(b"a") {
        Ok(_) => publisher.flush().unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, Error::Superseded { client: 7, epoch: 1, now: 2 }), "{error}");
    handles.into_iter().for_each(|handle| handle.join().unwrap());
}

/// A log that lost batches waits for each sequence that is missing.
#[test]
fn what_comes_back_to_a_log_that_has_less_of_it_leaves_no_hole() {
    for next_seq in [0, 1] {
        let states = States::default();
        let said = States::clone(&states);
        let script = move |connections: &mut common::Connections| {
            let mut peer = connections.publisher(1, 0);
            let batches: Vec<_> = (0..4).map(|_| peer.batch().unwrap()).collect();
            peer.receipt(&batches[0].0, 0);
            // Another broker's receipt may come before that for the batch in front.
            peer.receipt(&batches[2].0, 2);
            // The receipts are taken before the end of the connection is looked at.
            std::thread::sleep(Duration::from_millis(50));
            said.lock().unwrap().insert(POOL, "01");
            drop(peer);
            let (mut peer, _) = connections.greet();
            let found = welcome(Order::Strong, 1, next_seq);
            peer.send(Frame::Welcome(Welcome { is_own: true, ..found }));
            for (seq, (_, before)) in (next_seq..).zip([&batches[1], &batches[3]]) {
                let (preamble, payload) = peer.batch().unwrap();
                assert_eq!((preamble.batch_seq, &payload), (seq, before));
                peer.receipt(&preamble, seq);
            }
            assert_eq!(peer.order_all(next_seq + 2), [next_seq + 2]);
        };
        let (client, handles) = brokers_saying(vec![Box::new(script)], states);
        let mut publisher = build(&client);
        for text in [b"a", b"b", b"c", b"d"] {
            publisher.publish(text).unwrap();
            publisher.seal().unwrap();
        }
        publisher.flush().unwrap();
        assert_eq!((publisher.next_seq(), publisher.stats().resubmitted), (next_seq + 2, 2));
        publisher.publish(b"e").unwrap();
        publisher.close().unwrap();
        handles.into_iter().for_each(|handle| handle.join().unwrap());
    }
}

#[test]
fn a_topic_that_is_gone_is_not_asked_for_again() {
    for answer in [Frame::Refused(Refusal::NoTopic), Frame::Refused(Refusal::TopicGone)] {
        let (client, script) = broker(move |connections| {
            let mut peer = connections.publisher(1, 0);
            peer.batch().unwrap();
            drop(peer);
            let (mut peer, _) = connections.greet();
            peer.send(answer);
            peer.until_closed();
        });
        let mut publisher = build(&client);
        publisher.publish(b"a").unwrap();
        let error = publisher.flush().unwrap_err();
        let is_it = matches!(error, Error::TopicGone { another_pool: false, .. });
        assert!(is_it, "{answer:?}: {error}");
        assert!(matches!(publisher.publish(b"b"), Err(Error::Failed { .. })));
        script.join().unwrap();
    }
}

/// Nobody deleted it: it was in the memory of a pool that ended.
#[test]
fn a_topic_that_another_pool_does_not_have_is_not_called_deleted() {
    let subscribes = |client: &Client| {
        let builder = client.subscriber("topic").transport(Transport::Tcp);
        let mut subscriber = builder.timeout(WAIT).build().unwrap();
        while !matches!(subscriber.next(WAIT).unwrap(), Event::TopicGone) {}
        subscriber.topic_gone()
    };
    let publishes = |client: &Client| {
        let mut publisher = build(client);
        publisher.publish(b"a").unwrap();
        publisher.flush().unwrap_err()
    };
    let users: [&dyn Fn(&Client) -> Error; 2] = [&subscribes, &publishes];
    for uses in users {
        for another in [true, false] {
            let states = States::default();
            let said = States::clone(&states);
            let script = move |connections: &mut common::Connections| {
                let (mut peer, hello) = connections.greet();
                let epoch = u32::from(hello.role == Role::Publish);
                peer.send(Frame::Welcome(welcome(Order::Strong, epoch, 0)));
                if another {
                    said.lock().unwrap().insert(POOL, "01");
                }
                drop(peer);
                let (mut peer, _) = connections.greet();
                peer.send(Frame::Refused(Refusal::NoTopic));
                peer.until_closed();
            };
            let (client, handles) = brokers_saying(vec![Box::new(script)], states);
            let error = uses(&client);
            let is_it =
                matches!(error, Error::TopicGone { another_pool, .. } if another_pool == another);
            assert!(is_it, "{error:?}");
            let text = error.to_string();
            assert_eq!(
                text.contains("was in the memory of an earlier pool alone"),
                another,
                "{text}"
            );
            handles.into_iter().for_each(|handle| handle.join().unwrap());
        }
    }
}

/// Another topic of that name: of another id, of an order that nobody knows, and of the very id and
/// order of the one before, as a new pool gives them again.
#[test]
fn batches_do_not_go_into_a_topic_that_was_made_again() {
    let same = welcome(Order::Strong, 2, 0);
    let again = Welcome { created_ns: same.created_ns + 1, ..same };
    for answer in [again, Welcome { topic: TopicId(TOPIC.0 + 1), order: 99, ..again }] {
        let (client, script) = broker(move |connections| {
            let mut peer = connections.publisher(1, 0);
            peer.batch().unwrap();
            drop(peer);
            let (mut peer, _) = connections.greet();
            peer.send(Frame::Welcome(answer));
            peer.until_closed();
        });
        let mut publisher = build(&client);
        for text in [b"a", b"b", b"c"] {
            publisher.publish(text).unwrap();
            publisher.seal().unwrap();
        }
        let error = publisher.flush().unwrap_err();
        let is_told = matches!(error, Error::MadeAgain { batches: 3, messages: 3, .. });
        assert!(is_told, "{answer:?}: {error}");
        assert!(matches!(publisher.publish(b"d"), Err(Error::Failed { .. })));
        script.join().unwrap();
    }
}

/// A topic that came back keeps the time it was made, and may have another id in the next pool.
#[test]
fn a_topic_that_came_back_is_gone_on_with_whatever_its_id() {
    let (client, script) = broker(|connections| {
        let mut peer = connections.publisher(1, 0);
        peer.batch().unwrap();
        drop(peer);
        let (mut peer, _) = connections.greet();
        let id = TopicId(TOPIC.0 + 1);
        peer.send(Frame::Welcome(Welcome { topic: id, ..welcome(Order::Strong, 2, 0) }));
        let (preamble, _) = peer.batch().unwrap();
        assert_eq!((preamble.topic, preamble.batch_seq), (id.0, 0));
        peer.receipt(&preamble, 0);
        peer.until_closed();
    });
    let mut publisher = build(&client);
    publisher.publish(b"a").unwrap();
    publisher.flush().unwrap();
    drop(publisher);
    script.join().unwrap();
}
