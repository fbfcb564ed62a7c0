//! Segments: rolling over, going back, and what subscribers are told about it.

use std::time::{Duration, Instant};

use landfall::{Order, Start};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::flow::{Promise, Reading, Until, audit, check_sent, message, name_of, publish, read};
use crate::{Failure, Rig};

/// Batches of every size up to a whole segment, so that nearly each meets the end of one.
pub fn batches_that_do_not_fit_go_on_in_the_next_segment(rig: &Rig) -> Result<(), Failure> {
    const SIZES: [usize; 6] =
        [500_000, 700_001, (2 << 20) - 64 - 16, 100, 1_200_000, (2 << 20) - 64 - 16 - 64];
    let site = rig.start()?;
    for order in [Order::Strong, Order::None] {
        let topic = site.topic(order)?;
        let mut sent = Vec::new();
        for who in 0..2_u64 {
            let broker = who as u8 % rig.brokers as u8;
            let builder = site.publisher(&topic).broker(broker).batch_bytes(2 << 20);
            let mut publisher = builder.memory_bytes(16 << 20).build()?;
            for n in 0..18 {
                let bytes = SIZES[(n + who) as usize % SIZES.len()];
                publisher.publish(&message(who, n, bytes))?;
                if n % 2 == 0 {
                    publisher.seal()?;
                }
            }
            publisher.close()?;
            sent.push((who, 18));
        }
        let first = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
        let last = site.subscriber(&topic).broker(rig.brokers as u8 - 1).build()?;
        let last = read(last, Until::CaughtUp)?;
        for reading in [&first, &last] {
            check_sent(reading, &sent, Promise::InOrderOnce)?;
        }
        audit(order, &[&first, &last])?;
        site.client.delete_topic(&topic.name)?;
    }
    site.close()
}

/// Two subscribers of a pool that turns over twice: one that was there from the start and stood
/// still, one that comes late. What the first missed is counted to the message.
pub fn what_was_overtaken_is_counted(rig: &Rig) -> Result<(), Failure> {
    const BYTES: usize = 20_000;
    const MESSAGES: u64 = 6_000;
    let site = rig.start_with(|config| config.pool_bytes = 64 << 20)?;
    for order in [Order::Strong, Order::Broker] {
        let topic = site.topic(order)?;
        let mut publisher = site.publisher(&topic).broker(0).build()?;
        publish(&mut publisher, 4, 0..100, BYTES)?;
        publisher.flush()?;
        let mut early = site.subscriber(&topic).build()?;
        let mut first = Reading::default();
        first.read(&mut early, Until::Messages(50))?;
        publish(&mut publisher, 4, 100..MESSAGES, BYTES)?;
        publisher.close()?;
        first.read(&mut early, Until::Messages(MESSAGES))?;
        let seen = first.messages.len() as u64;
        ensure!(seen + first.missed == MESSAGES, "{seen} seen and {} missed", first.missed);
        ensure!(first.missed > 0, "120 MB went through a pool of 64 MiB and nothing was missed");

        let oldest = site.client.topic(&topic.name)?.oldest_position;
        ensure!(oldest > 0, "nothing was retired");
        let late = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
        let begins = late.messages.first().map(|read| read.position).unwrap_or(MESSAGES);
        ensure!(begins + late.messages.len() as u64 == MESSAGES, "late began at {begins}");
        // Asked for what is gone: told how much.
        let back = site.subscriber(&topic).from(Start::Position(0)).build()?;
        let back = read(back, Until::CaughtUp)?;
        let begins = back.messages.first().map(|read| read.position).unwrap_or(MESSAGES);
        ensure!(begins + back.messages.len() as u64 == MESSAGES, "back began at {begins}");
        ensure!(back.missed == begins, "{} missed before {begins}", back.missed);
        for reading in [&first, &late, &back] {
            for read in &reading.messages {
                let name = name_of(&read.payload);
                ensure!(name == Some((4, read.position)), "{} holds {name:?}", read.position);
            }
        }
        audit(order, &[&first, &late, &back])?;
        drop(early);
        site.client.delete_topic(&topic.name)?;
    }
    site.close()
}

/// Nothing is left of a log: who asks for it is told how much that was, at once, and not only when
/// something is published behind it.
pub fn what_is_gone_as_a_whole_is_counted(rig: &Rig) -> Result<(), Failure> {
    const MESSAGES: u64 = 50;
    let mut site = rig.start()?;
    for order in [Order::Strong, Order::Broker] {
        let topic = site.topic_with(order, |spec| spec.retention_ms = Some(200))?;
        let mut publisher = site.publisher(&topic).broker(0).build()?;
        publish(&mut publisher, 6, 0..MESSAGES, 1000)?;
        publisher.close()?;
        // Its segment is whole then.
        let pid = site.system.broker_pid(0).ok_or_else(|| Failure::new("broker 0 is gone"))?;
        kill(Pid::from_raw(pid as i32), Signal::SIGTERM)?;
        let until = Instant::now() + Duration::from_secs(30);
        while site.system.is_whole() {
            ensure!(Instant::now() < until, "broker 0 did not stop within 30 s");
            std::thread::sleep(Duration::from_millis(1));
        }
        site.system.start_broker(0)?;
        site.wait_until("retention of everything", |client| {
            Ok(client.topic(&topic.name)?.oldest_position == MESSAGES)
        })?;
        let ask = |until| read(site.subscriber(&topic).from(Start::Position(10)).build()?, until);
        let back = ask(Until::CaughtUp)?;
        let (seen, missed) = (back.messages.len(), back.missed);
        ensure!((seen, missed) == (0, MESSAGES - 10), "{seen} seen and {missed} missed");
        let mut publisher = site.publisher(&topic).broker(0).build()?;
        publish(&mut publisher, 7, 0..1, 1000)?;
        publisher.close()?;
        let back = ask(Until::CaughtUp)?;
        let (seen, missed) = (back.messages.len(), back.missed);
        ensure!((seen, missed) == (1, MESSAGES - 10), "{seen} seen and {missed} missed");
        audit(order, &[&back])?;
        site.client.delete_topic(&topic.name)?;
    }
    site.close()
}

/// A topic that bounds its bytes or its time gives segments back in an empty pool too, and keeps
/// at least what it says.
pub fn bounds_of_bytes_and_time_are_kept(rig: &Rig) -> Result<(), Failure> {
    const BYTES: usize = 50_000;
    let site = rig.start()?;
    let by_bytes = site.topic_with(Order::Strong, |spec| spec.retention_bytes = Some(6 << 20))?;
    let by_time = site.topic_with(Order::Strong, |spec| spec.retention_ms = Some(200))?;
    let unbound = site.topic(Order::Strong)?;
    for topic in [&by_bytes, &by_time, &unbound] {
        let mut publisher = site.publisher(topic).broker(0).build()?;
        publish(&mut publisher, 5, 0..600, BYTES)?;
        publisher.close()?;
    }
    site.wait_until("retention by bytes", |client| {
        let topic = client.topic(&by_bytes.name)?;
        // Each message takes a header and a preamble at most besides.
        let kept = (topic.next_position - topic.oldest_position) * (BYTES as u64 + 80);
        ensure!(kept >= 6 << 20, "{kept} bytes are left of at least 6 MiB");
        // What is bound is kept in whole segments: two more than it takes are room enough.
        Ok(kept <= 12 << 20)
    })?;
    site.wait_until("retention by time", |client| {
        let topic = client.topic(&by_time.name)?;
        Ok((topic.next_position - topic.oldest_position) * (BYTES as u64) < 5 << 20)
    })?;
    let reading = read(site.subscriber(&by_bytes).build()?, Until::CaughtUp)?;
    let last = reading.messages.last().map(|read| read.position);
    ensure!(last == Some(599), "the newest is at {last:?}");
    audit(Order::Strong, &[&reading])?;
    let reading = read(site.subscriber(&unbound).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(5, 600)], Promise::InOrderOnce)?;
    site.close()
}
