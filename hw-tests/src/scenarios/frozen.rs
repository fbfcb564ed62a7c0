//! A broker that is stopped, as by SIGSTOP or with its machine, and goes on later: clients that may
//! use another one do, long before it wakes, and what it finds then harms nobody.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use landfall::{Order, Publisher, Subscriber};
use landfall_layout::frame::{Ack, Carrier, Frame, From, Hello, Role};
use nix::sys::signal::Signal;

use super::takeover::signal;
use crate::flow::{Promise, Reading, Until, audit, check_sent, message, read};
use crate::raw::Raw;
use crate::rig::patience;
use crate::{Failure, Rig, Site};

/// Bytes of a message.
const BYTES: usize = 2000;
/// A broker stays frozen until everybody has gone on, or for this long, which fails: on a machine
/// with nothing else to do everybody has within four seconds.
const LONG: Duration = Duration::from_secs(40);

/// A broker that stands still until this is dropped.
struct Frozen(u32);

impl Frozen {
    fn new(site: &Site, broker: usize) -> Result<Self, Failure> {
        let pid = site.system.broker_pid(broker).ok_or_else(|| Failure::new("it has ended"))?;
        signal(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // One that has ended needs no waking.
        let _ = signal(self.0, Signal::SIGCONT);
    }
}

/// What somebody has got done, and whether it is to go on.
#[derive(Default)]
struct Doing {
    done: AtomicU64,
    is_over: AtomicBool,
}

impl Doing {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// Publishes, and waits for the receipts of every few messages, until it is over.
fn publish_on(mut publisher: Publisher, who: u64, doing: &Doing) -> Result<u64, Failure> {
    let mut n = 0;
    while doing.goes_on() {
        for _ in 0..10 {
            publisher.publish(&message(who, n, BYTES))?;
            n += 1;
        }
        publisher.flush()?;
        doing.done.store(n, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(10));
    }
    publisher.close()?;
    Ok(n)
}

/// Reads on until it is over, and then what there is.
fn read_on(mut subscriber: Subscriber, doing: &Doing) -> Result<(Reading, Subscriber), Failure> {
    let mut reading = Reading::default();
    while doing.goes_on() {
        reading.step(&mut subscriber, Duration::from_millis(50))?;
        doing.done.store(reading.messages.len() as u64, Ordering::Relaxed);
    }
    Ok((reading, subscriber))
}

/// A subscriber that is connected to broker 0.
fn subscriber_of_the_first(
    site: &Site,
    topic: &landfall::api::Topic,
) -> Result<Subscriber, Failure> {
    for _ in 0..1000 {
        let subscriber = site.subscriber(topic).build()?;
        if subscriber.broker() == 0 {
            return Ok(subscriber);
        }
    }
    Err(Failure::new("a thousand subscribers found their way to other brokers"))
}

/// Everybody goes on while the broker that they are with is frozen, whatever it does later: nothing
/// acknowledged is lost, and in order `strong` nothing comes twice.
pub fn a_broker_that_is_frozen_is_left(rig: &Rig) -> Result<(), Failure> {
    if rig.brokers == 1 {
        return Ok(());
    }
    let site = rig.start()?;
    let orders = [Order::Strong, Order::Stream, Order::Total, Order::Broker];
    let topics =
        orders.iter().map(|order| site.topic(*order)).collect::<Result<Vec<_>, Failure>>()?;
    // Turns begin with the client's id: each of these begins with broker 0. One spreads.
    let turn = rig.brokers as u64;
    let mut publishers = Vec::new();
    for (who, topic) in topics.iter().enumerate() {
        let builder = site.publisher(topic).client_id((who as u64 + 1) * turn);
        publishers.push(builder.batch_bytes(8 << 10).timeout(LONG).build()?);
    }
    let spreads = site.publisher(&topics[0]).client_id(9 * turn).spread(true);
    publishers.push(spreads.batch_bytes(8 << 10).timeout(LONG).build()?);
    let reader = subscriber_of_the_first(&site, &topics[0])?;
    let writing: Vec<Doing> = publishers.iter().map(|_| Doing::default()).collect();
    let reads = Doing::default();
    let outcome = std::thread::scope(|scope| {
        let writers: Vec<_> = publishers
            .into_iter()
            .zip(&writing)
            .enumerate()
            .map(|(who, (publisher, doing))| {
                scope.spawn(move || publish_on(publisher, who as u64, doing))
            })
            .collect();
        let reads = &reads;
        let read = scope.spawn(move || read_on(reader, reads));
        let everybody = || writing.iter().chain([reads]);
        let go_on = |what: &str| {
            let before: Vec<u64> = everybody().map(Doing::done).collect();
            let deadline = Instant::now() + LONG;
            while everybody().zip(&before).any(|(doing, before)| doing.done() <= before + 50) {
                let now: Vec<u64> = everybody().map(Doing::done).collect();
                ensure!(Instant::now() < deadline, "{what}: from {before:?} only to {now:?}");
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        };
        let disturbed = go_on("everybody goes on").and_then(|()| {
            let frozen = Frozen::new(&site, 0)?;
            // What each has under way with the broker is still taken for done at first.
            std::thread::sleep(Duration::from_millis(100));
            go_on("everybody goes on while a broker is frozen")?;
            drop(frozen);
            go_on("everybody goes on behind that")
        });
        everybody().for_each(|doing| doing.is_over.store(true, Ordering::Relaxed));
        let sent: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        let read = read.join();
        disturbed?;
        let panicked = |_| Failure::new("a client panicked");
        let sent = sent.into_iter().map(|sent| sent.map_err(panicked)?);
        Ok((sent.collect::<Result<Vec<u64>, Failure>>()?, read.map_err(panicked)??))
    });
    let (sent, (mut followed, mut reader)) =
        outcome.map_err(|failure: Failure| site.explain(failure))?;
    followed.read(&mut reader, Until::Messages(sent[0] + sent[4]))?;
    drop(reader);
    serves_again(&site)?;
    for (who, (topic, order)) in topics.iter().zip(orders).enumerate() {
        let mut all = vec![(who as u64, sent[who])];
        let mut promise = Promise::AtLeastOnce;
        if order == Order::Strong {
            all.push((4, sent[4]));
            promise = Promise::InOrderOnce;
        }
        let whole = read(site.subscriber(topic).broker(0).build()?, Until::CaughtUp)?;
        check_sent(&whole, &all, promise)?;
        audit(order, &[&whole])?;
        if order == Order::Strong {
            check_sent(&followed, &all, promise)?;
            audit(order, &[&whole, &followed])?;
        }
    }
    site.close()
}

/// Who has no other broker waits for this one, says whom it waits for, and goes on when it wakes.
pub fn nobody_waits_long_for_the_only_broker_without_a_word(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    // Pinned, where there are others.
    let soon = patience() / 2;
    let builder = site.publisher(&topic).client_id(1).broker(0);
    let mut publisher = builder.timeout(soon).build()?;
    let mut subscriber = site.subscriber(&topic).broker(0).timeout(soon).build()?;
    publisher.publish(&message(0, 0, BYTES))?;
    publisher.flush()?;
    let mut reading = Reading::default();
    reading.read(&mut subscriber, Until::Messages(1))?;
    let frozen = Frozen::new(&site, 0)?;
    publisher.publish(&message(0, 1, BYTES))?;
    let begun = Instant::now();
    let text = loop {
        let Err(error) = publisher.flush() else {
            return Err(Failure::new("a frozen broker has said that a batch is ordered"));
        };
        // Control may be slow to find it out.
        let text = error.to_string();
        if !text.contains("serving") {
            break text;
        }
        ensure!(begun.elapsed() < LONG, "control calls it serving all the time: {text:?}");
    };
    for part in ["1 batches have no receipt", "broker 0"] {
        ensure!(text.contains(part), "{part:?} is not in {text:?}");
    }
    let begun = Instant::now();
    let text = loop {
        match reading.step(&mut subscriber, Duration::from_millis(50)) {
            Ok(_) => ensure!(begun.elapsed() < LONG, "a subscriber was told nothing"),
            Err(failure) => break failure.to_string(),
        }
    };
    ensure!(text.contains("broker 0"), "it is not named in {text:?}");
    drop(frozen);
    let mut publisher = retried(publisher)?;
    publisher.publish(&message(0, 2, BYTES))?;
    publisher.close()?;
    let deadline = Instant::now() + patience();
    while reading.messages.len() < 3 {
        ensure!(Instant::now() < deadline, "{} of 3 messages came", reading.messages.len());
        // It may have been told once more by now.
        let _ = reading.step(&mut subscriber, Duration::from_millis(50));
    }
    drop(subscriber);
    check_sent(&reading, &[(0, 3)], Promise::InOrderOnce)?;
    serves_again(&site)?;
    let whole = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&whole, &[(0, 3)], Promise::InOrderOnce)?;
    audit(Order::Strong, &[&whole, &reading])?;
    site.close()
}

/// Waits until control knows that the broker is back.
fn serves_again(site: &Site) -> Result<(), Failure> {
    site.wait_until("that the broker serves again", |client| {
        Ok(client.cluster()?.brokers.iter().all(|broker| broker.is_serving()))
    })
}

/// Flushes again: what went wrong before was only that it took long.
fn retried(mut publisher: Publisher) -> Result<Publisher, Failure> {
    let deadline = Instant::now() + patience();
    loop {
        match publisher.flush() {
            Ok(()) => return Ok(publisher),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => {}
        }
    }
}

/// A broker finds, when it wakes, hellos of clients that have given it up: they open no epoch, as
/// that would end the one that such a client has elsewhere by now.
pub fn a_hello_that_is_heard_late_ends_no_session(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    let last = rig.brokers as u8 - 1;
    let mut publisher = site.publisher(&topic).client_id(7).broker(last).build()?;
    publisher.publish(&message(0, 0, BYTES))?;
    publisher.flush()?;
    let epoch = publisher.session_epoch();
    let address = site.client.cluster()?.brokers[0].tcp.clone();
    let frozen = Frozen::new(&site, 0)?;
    for _ in 0..5 {
        let hello = Hello {
            role: Role::Publish,
            carrier: Carrier::Stream,
            ack: Ack::Ordered,
            client: 7,
            session_epoch: 0,
            life: 0,
            comes_back: false,
            from: From::Earliest,
            checked: false,
        };
        Raw::connect(&address)?.send_frame(Frame::Hello(hello), topic.name.as_bytes())?;
    }
    std::thread::sleep(Duration::from_millis(100));
    drop(frozen);
    // Broker 0 takes connections in turn: it has heard those when it welcomes this one.
    let late = site.client.subscriber(&topic.name).transport(landfall::Transport::Tcp).broker(0);
    drop(late.build()?);
    publisher.publish(&message(0, 1, BYTES))?;
    publisher.flush()?;
    let now = publisher.session_epoch();
    ensure!(now == epoch, "session epoch {epoch} was ended, and it is in {now}");
    publisher.close()?;
    site.close()
}
