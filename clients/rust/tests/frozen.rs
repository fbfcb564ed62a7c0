//! Brokers that stop in the middle of everything, as SIGSTOP or a paused machine does it: their
//! sockets stay open, and nothing comes.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{CONTROL, Connections, Peer, Script, States, brokers_saying, welcome};
use landfall::{
    Client, Error, Event, Publisher, PublisherBuilder, Start, Subscriber, SubscriberBuilder,
    Transport,
};
use landfall_layout::frame::{Frame, Welcome};
use landfall_layout::topic::Order;

/// Far longer than a frozen broker may hold anybody up: a client that waits for one fails.
const LONG: Duration = Duration::from_secs(60);

/// Scripted brokers, and what control says of them. The frozen ones wait until the test is over.
struct Site {
    client: Client,
    states: States,
    scripts: Vec<JoinHandle<()>>,
    over: Vec<Sender<()>>,
}

type Scripted = Box<dyn FnOnce(&mut Connections, &States, &Receiver<()>) + Send>;

impl Site {
    fn new(brokers: Vec<Scripted>) -> Self {
        let states = States::default();
        let mut over = Vec::new();
        let scripts = brokers.into_iter().map(|broker| -> Script {
            let (ends, end) = channel();
            over.push(ends);
            let states = States::clone(&states);
            Box::new(move |connections| broker(connections, &states, &end))
        });
        let scripts = scripts.collect();
        let (client, scripts) = brokers_saying(scripts, States::clone(&states));
        Self { client, states, scripts, over }
    }

    fn end(self) {
        drop(self.over);
        for script in self.scripts {
            script.join().unwrap();
        }
    }

    fn publisher(&self) -> PublisherBuilder {
        // Turns begin with the client's id: broker 0 is tried first.
        let builder = self.client.publisher("topic").client_id(8).transport(Transport::Tcp);
        builder.linger(LONG).timeout(LONG)
    }

    fn subscriber(&self) -> SubscriberBuilder {
        let builder = self.client.subscriber("topic").transport(Transport::Tcp);
        builder.from(Start::Earliest).timeout(LONG)
    }
}

/// Says nothing more until the test is over.
fn freeze(states: &States, broker: usize, end: &Receiver<()>) {
    states.lock().unwrap().insert(broker, "frozen");
    let _ = end.recv();
}

fn start(peer: &mut Peer, start: u64, end: u64) {
    peer.send(Frame::Welcome(Welcome { start, end, ..welcome(Order::Strong, 0, 0) }));
}

fn publish(publisher: &mut Publisher, payload: &[u8]) {
    publisher.publish(payload).unwrap();
    publisher.seal().unwrap();
}

fn next(subscriber: &mut Subscriber) -> Vec<u8> {
    match subscriber.next(LONG).unwrap() {
        Event::Batch(batch) => batch.messages().next().unwrap().payload.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// A broker that takes one batch of a publisher and freezes, and one that takes the rest.
fn frozen_and_well() -> Site {
    Site::new(vec![
        Box::new(|connections, states, end| {
            let mut peer = connections.publisher(1, 0);
            peer.batch().unwrap();
            freeze(states, 0, end);
        }),
        Box::new(|connections, _, _| {
            let mut peer = connections.publisher(2, 0);
            assert_eq!(peer.order_all(0), [0, 1]);
        }),
    ])
}

#[test]
fn a_publisher_leaves_a_broker_that_is_frozen() {
    let site = frozen_and_well();
    let mut publisher = site.publisher().build().unwrap();
    publish(&mut publisher, b"a");
    publish(&mut publisher, b"b");
    publisher.flush().unwrap();
    assert_eq!((publisher.stats().reconnects, publisher.stats().resubmitted), (1, 2));
    publisher.close().unwrap();
    site.end();
}

#[test]
fn a_publisher_that_only_polls_leaves_it_too() {
    let site = frozen_and_well();
    let mut publisher = site.publisher().build().unwrap();
    publish(&mut publisher, b"a");
    publish(&mut publisher, b"b");
    while publisher.acked().batches < 2 {
        publisher.poll().unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    publisher.close().unwrap();
    site.end();
}

#[test]
fn a_broker_that_has_nothing_to_say_is_never_left() {
    let site = Site::new(vec![
        Box::new(|connections, states, _| {
            let mut peer = connections.publisher(1, 0);
            let batch = peer.batch().unwrap().0;
            // Control is wrong, or has not heard of it for a while: the client has.
            states.lock().unwrap().insert(0, "frozen");
            for _ in 0..8 {
                std::thread::sleep(Duration::from_millis(500));
                peer.send(Frame::Beat);
            }
            peer.receipt(&batch, 0);
            peer.order_all(1);
        }),
        Box::new(|_, _, _| {}),
    ]);
    let mut publisher = site.publisher().build().unwrap();
    publish(&mut publisher, b"a");
    publisher.flush().unwrap();
    assert_eq!(publisher.stats().reconnects, 0);
    publisher.close().unwrap();
    site.end();
}

#[test]
fn a_broker_that_control_stands_by_is_waited_for() {
    let site = Site::new(vec![
        Box::new(|connections, _, _| {
            let mut peer = connections.publisher(1, 0);
            let batch = peer.batch().unwrap().0;
            std::thread::sleep(Duration::from_millis(4500));
            peer.receipt(&batch, 0);
            peer.order_all(1);
        }),
        Box::new(|_, _, _| {}),
    ]);
    let mut publisher = site.publisher().build().unwrap();
    publish(&mut publisher, b"a");
    publisher.flush().unwrap();
    assert_eq!(publisher.stats().reconnects, 0);
    publisher.close().unwrap();
    site.end();
}

#[test]
fn a_pinned_publisher_stays_and_says_what_it_waits_for() {
    let site = Site::new(vec![
        Box::new(|connections, states, end| {
            let mut peer = connections.publisher(1, 0);
            let batch = peer.batch().unwrap().0;
            freeze(states, 0, end);
            peer.receipt(&batch, 0);
            peer.order_all(1);
        }),
        Box::new(|_, _, _| {}),
    ]);
    let timeout = Duration::from_secs(3);
    let mut publisher = site.publisher().broker(0).timeout(timeout).build().unwrap();
    publish(&mut publisher, b"a");
    let text = publisher.flush().unwrap_err().to_string();
    for part in ["1 batches have no receipt", "broker 0 has 1 of them", "frozen", "pinned"] {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
    site.over[0].send(()).unwrap();
    publisher.flush().unwrap();
    assert_eq!(publisher.stats().reconnects, 0);
    publisher.close().unwrap();
    site.end();
}

#[test]
fn where_control_is_silent_as_well_that_is_said() {
    let site = Site::new(vec![
        Box::new(|connections, states, end| {
            let mut peer = connections.publisher(1, 0);
            let batch = peer.batch().unwrap().0;
            freeze(states, CONTROL, end);
            peer.receipt(&batch, 0);
            peer.order_all(1);
        }),
        Box::new(|_, _, _| {}),
    ]);
    let mut publisher = site.publisher().timeout(Duration::from_secs(4)).build().unwrap();
    publish(&mut publisher, b"a");
    let text = publisher.flush().unwrap_err().to_string();
    for part in ["broker 0", "said nothing for", "control does not answer either"] {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
    site.over[0].send(()).unwrap();
    publisher.flush().unwrap();
    publisher.close().unwrap();
    site.end();
}

#[test]
fn a_hello_to_a_frozen_broker_is_given_up() {
    let site = Site::new(vec![
        Box::new(|connections, states, end| {
            let peer = connections.greet();
            freeze(states, 0, end);
            drop(peer);
        }),
        Box::new(|connections, _, _| {
            let mut peer = connections.publisher(2, 0);
            assert_eq!(peer.order_all(0), [0]);
        }),
    ]);
    let mut publisher = site.publisher().build().unwrap();
    publish(&mut publisher, b"a");
    publisher.close().unwrap();
    site.end();
}

#[test]
fn a_subscriber_leaves_a_broker_that_is_frozen_and_goes_on_where_it_was() {
    let site = Site::new(vec![
        Box::new(|connections, states, end| {
            let (mut peer, _) = connections.greet();
            start(&mut peer, 0, 9);
            peer.deliver(0, 0, &[b"a"]);
            freeze(states, 0, end);
        }),
        Box::new(|connections, _, _| {
            let (mut peer, hello) = connections.greet();
            assert_eq!(hello.from, Start::Position(1));
            start(&mut peer, 1, 9);
            peer.deliver(1, 1, &[b"b"]);
            peer.until_closed();
        }),
    ]);
    let mut subscriber = first_broker(&site);
    assert_eq!(next(&mut subscriber), b"a");
    assert_eq!(next(&mut subscriber), b"b");
    assert_eq!(subscriber.broker(), 1);
    drop(subscriber);
    site.end();
}

/// A subscriber of broker 0: control says of the others, for so long, that they do not serve.
fn first_broker(site: &Site) -> Subscriber {
    site.states.lock().unwrap().insert(1, "leaving");
    let subscriber = site.subscriber().build().unwrap();
    site.states.lock().unwrap().remove(&1);
    subscriber
}

#[test]
fn a_pinned_subscriber_stays_and_says_so() {
    let site = Site::new(vec![
        Box::new(|connections, states, end| {
            let (mut peer, _) = connections.greet();
            start(&mut peer, 0, 9);
            freeze(states, 0, end);
            peer.deliver(0, 0, &[b"a"]);
            peer.until_closed();
        }),
        Box::new(|_, _, _| {}),
    ]);
    let timeout = Duration::from_secs(3);
    let mut subscriber = site.subscriber().broker(0).timeout(timeout).build().unwrap();
    let error = subscriber.next(LONG).err().unwrap();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    let text = error.to_string();
    for part in ["broker 0", "frozen", "pinned"] {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
    site.over[0].send(()).unwrap();
    assert_eq!(next(&mut subscriber), b"a");
    drop(subscriber);
    site.end();
}

#[test]
fn a_subscriber_that_pauses_takes_nobody_for_silent() {
    let site = Site::new(vec![
        Box::new(|connections, states, end| {
            let (mut peer, _) = connections.greet();
            start(&mut peer, 0, 9);
            states.lock().unwrap().insert(0, "frozen");
            for _ in 0..6 {
                std::thread::sleep(Duration::from_millis(500));
                peer.send(Frame::Beat);
            }
            peer.deliver(0, 0, &[b"a"]);
            let _ = end.recv();
        }),
        Box::new(|_, _, _| {}),
    ]);
    let mut subscriber = first_broker(&site);
    assert!(matches!(subscriber.next(Duration::ZERO).unwrap(), Event::Idle));
    std::thread::sleep(Duration::from_millis(3500));
    assert_eq!(next(&mut subscriber), b"a");
    assert_eq!(subscriber.broker(), 0);
    drop(subscriber);
    site.end();
}

#[test]
fn a_control_that_is_frozen_holds_nobody_up_who_knows_the_brokers() {
    let site = Site::new(vec![Box::new(|connections, states, _| {
        let mut peer = connections.publisher(1, 0);
        peer.batch().unwrap();
        states.lock().unwrap().insert(CONTROL, "frozen");
        drop(peer);
        let mut peer = connections.publisher(2, 0);
        assert_eq!(peer.order_all(0), [0]);
    })]);
    let mut publisher = site.publisher().build().unwrap();
    publish(&mut publisher, b"a");
    publisher.close().unwrap();
    assert!(site.states.lock().unwrap().contains_key(&CONTROL));
    site.end();
}
