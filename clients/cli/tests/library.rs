//! The client library with a real system: where a subscriber is, and what a topic is not.

mod common;

use std::time::Duration;

use landfall::api::TopicSpec;
use landfall::{Client, Error, Event, Mark, Order, Start, Subscriber, Transport};

use common::System;

const TRANSPORTS: [Transport; 2] = [Transport::Memory, Transport::Tcp];

fn publish(client: &Client, topic: &str, broker: u8, numbers: std::ops::Range<u32>) {
    let mut publisher = client.publisher(topic).broker(broker).build().unwrap();
    for number in numbers {
        publisher.publish(number.to_string().as_bytes()).unwrap();
        // A batch each, so that a place between any two of them can be gone to.
        publisher.seal().unwrap();
    }
    publisher.close().unwrap();
}

/// What comes until nothing more is there.
fn read(subscriber: &mut Subscriber) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut is_caught_up = false;
    loop {
        match subscriber.next(Duration::from_millis(200)).unwrap() {
            Event::Batch(batch) => numbers.extend(batch.messages().map(|message| {
                std::str::from_utf8(message.payload).unwrap().parse::<u32>().unwrap()
            })),
            Event::CaughtUp => is_caught_up = true,
            Event::Idle if is_caught_up => return numbers,
            Event::Idle => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_mark_goes_on_where_it_was_and_in_no_other_topic_of_that_name() {
    let system = System::start(2);
    let client = Client::new(&system.address).unwrap();
    for (order, transport) in
        [Order::Total, Order::None].into_iter().flat_map(|order| TRANSPORTS.map(|by| (order, by)))
    {
        client.create_topic(&TopicSpec::new("t", order)).unwrap();
        publish(&client, "t", 0, 0..5);
        let subscriber = || client.subscriber("t").transport(transport);
        let mut first = subscriber().from(Start::Earliest).build().unwrap();
        assert_eq!(read(&mut first), [0, 1, 2, 3, 4], "{order} over {transport}");
        let mark: Mark = first.mark().to_string().parse().unwrap();
        assert_eq!(mark.position(), (order == Order::Total).then_some(5));
        assert_eq!(first.position(), mark.position());
        drop(first);
        publish(&client, "t", 0, 5..7);
        publish(&client, "t", 1, 7..9);
        let mut next = subscriber().resume(mark.clone()).build().unwrap();
        let mut numbers = read(&mut next);
        numbers.sort_unstable();
        assert_eq!(numbers, [5, 6, 7, 8], "{order} over {transport}");
        drop(next);
        client.delete_topic("t").unwrap();
        client.create_topic(&TopicSpec::new("t", order)).unwrap();
        publish(&client, "t", 0, 0..20);
        let other = subscriber().resume(mark).build().err();
        assert!(matches!(other, Some(Error::MadeAgain { .. })), "{order} over {transport}");
        client.delete_topic("t").unwrap();
    }
}

#[test]
fn a_subscriber_goes_where_it_is_told_to() {
    let system = System::start(1);
    let client = Client::new(&system.address).unwrap();
    for transport in TRANSPORTS {
        client.create_topic(&TopicSpec::new("t", Order::Strong)).unwrap();
        publish(&client, "t", 0, 0..5);
        let builder = client.subscriber("t").transport(transport).from(Start::Earliest);
        let mut subscriber = builder.build().unwrap();
        assert_eq!(subscriber.position(), Some(0));
        assert_eq!(read(&mut subscriber), [0, 1, 2, 3, 4]);
        subscriber.seek(Start::Position(3)).unwrap();
        assert_eq!(subscriber.position(), Some(3));
        assert_eq!(read(&mut subscriber), [3, 4], "{transport}");
        let beyond = subscriber.seek(Start::Position(6)).unwrap_err();
        assert!(matches!(beyond, Error::BeyondEnd { position: 6, end: 5, .. }), "{beyond}");
        subscriber.seek(Start::Position(5)).unwrap();
        assert_eq!(read(&mut subscriber), [0; 0]);
        publish(&client, "t", 0, 5..6);
        subscriber.seek(Start::Earliest).unwrap();
        assert_eq!(read(&mut subscriber), [0, 1, 2, 3, 4, 5], "{transport}");
        drop(subscriber);
        client.delete_topic("t").unwrap();
    }
}

#[test]
fn a_topic_that_is_not_there_has_one_shape() {
    let system = System::start(1);
    let client = Client::new(&system.address).unwrap();
    let mut errors = vec![client.topic("t").err(), client.delete_topic("t").err()];
    for transport in TRANSPORTS {
        errors.push(client.publisher("t").transport(transport).build().err());
        errors.push(client.subscriber("t").transport(transport).build().err());
    }
    for error in errors {
        assert!(matches!(&error, Some(Error::NoTopic { topic }) if topic == "t"), "{error:?}");
    }
}

/// Whoever calls the library may have a `From` of their own, and may match on why a broker refused.
#[test]
fn what_errors_are_made_of_has_names() {
    struct Mine(Error);
    impl From<Error> for Mine {
        fn from(error: Error) -> Self {
            Self(error)
        }
    }
    let why = landfall::Refusal::Busy;
    let refused = Error::Refused { broker: 0, why, sentence: "full".into() };
    let Mine(error) = refused.into();
    assert!(matches!(error, Error::Refused { why: landfall::Refusal::Busy, .. }));
    let stalled = landfall::Stalled { why: landfall::Stall::PoolFull, used: 0, of: 9 };
    assert!(stalled.to_string().contains("0 of 9"), "{stalled}");
}
