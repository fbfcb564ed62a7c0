//! The pool is gone, and the replicas are there: topics come back from disk.

use std::path::PathBuf;

use landfall::api::Topic;
use landfall::{Ack, Order, Publisher, Transport};
use landfall_replica::FileSurvey;
use landfall_replica::names::list;

use crate::flow::{Promise, Reading, Until, audit, check_sent, publish, read};
use crate::{Failure, Rig, Site};

/// A directory for data, gone with this value.
pub(super) struct Data(pub(super) PathBuf);

impl Data {
    pub(super) fn new(name: &str) -> Result<Self, Failure> {
        let number = std::process::id();
        let path = std::env::temp_dir().join(format!("landfall-data-{name}-{number}"));
        // What a run that was killed left is of no use.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        // A directory that cannot be removed is the system's to clear.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Everything dies and the pool with it, as in a power cut; then everything is started again.
pub(super) fn lose_the_pool(site: &mut Site) -> Result<(), Failure> {
    lose_the_pool_and(site, || Ok(()))
}

/// The same, and something happens while nothing runs.
pub(super) fn lose_the_pool_and(
    site: &mut Site,
    meanwhile: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    site.system.kill_control();
    for broker in 0..site.rig.brokers {
        site.system.kill_broker(broker);
    }
    // Memory that came back from a power cut: there, and all zero.
    std::fs::OpenOptions::new().write(true).open(site.system.pool())?.set_len(0)?;
    meanwhile()?;
    site.system.start_control()?;
    for broker in 0..site.rig.brokers {
        site.system.start_broker(broker)?;
    }
    Ok(())
}

/// What was acknowledged as durable is read as before, at the same positions; publishers go on
/// behind it, exactly once, at positions that nobody was ever shown.
pub fn what_was_durable_comes_back_without_the_pool(rig: &Rig) -> Result<(), Failure> {
    let data = Data::new(&format!("cold-{}-{}", rig.transport, rig.brokers))?;
    let mut site = rig.start_with(|config| config.data = Some(data.0.clone()))?;
    let orders = [Order::Strong, Order::Total, Order::Broker];
    let topics = orders.map(|order| site.topic_with(order, |spec| spec.replicas = Some(2)));
    let topics = topics.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut before = Vec::new();
    for topic in &topics {
        let mut publisher =
            site.publisher(topic).client_id(1).ack(Ack::Durable).batch_bytes(2048).build()?;
        publish(&mut publisher, 1, 0..500, 200)?;
        publisher.close()?;
        before.push(read(site.subscriber(topic).build()?, Until::CaughtUp)?);
    }
    lose_the_pool(&mut site)?;
    for (topic, before) in topics.iter().zip(&before) {
        let again = site.client.topic(&topic.name)?;
        ensure!(
            (again.created_ns, &again.order) == (topic.created_ns, &topic.order),
            "another topic came back: {again:?}"
        );
        let quiet = read(site.subscriber(&again).build()?, Until::CaughtUp)?;
        ensure!(
            quiet.messages == before.messages,
            "{} messages of {} before anything new",
            quiet.messages.len(),
            before.messages.len()
        );
        let mut publisher =
            site.publisher(topic).client_id(1).ack(Ack::Durable).batch_bytes(2048).build()?;
        publish(&mut publisher, 1, 500..800, 200)?;
        publisher.close()?;
        let after = read(site.subscriber(&again).build()?, Until::CaughtUp)?;
        check_sent(&after, &[(1, 800)], Promise::AtLeastOnce)?;
        ensure!(after.messages.len() == 800, "{} messages of 800", after.messages.len());
        // Positions are never used twice: nobody knows of anything at those between.
        ensure!(
            after.missed > 0 && after.skipped == after.missed,
            "of {} positions in gaps, {} are said to be passed over",
            after.missed,
            after.skipped
        );
        ensure!(
            after.messages[..before.messages.len()] == before.messages[..],
            "what was shown before is not what is shown now"
        );
    }
    let again = read(site.subscriber(&topics[0]).build()?, Until::CaughtUp)?;
    check_sent(&again, &[(1, 800)], Promise::InOrderOnce)?;
    audit(Order::Strong, &[&again])?;
    site.close()
}

/// Publishes messages `from..to`, and waits for all their receipts: they are durable then.
fn publish_durably(
    publisher: &mut Publisher,
    who: u64,
    range: std::ops::Range<u64>,
) -> Result<(), Failure> {
    publish(publisher, who, range, 200)?;
    Ok(publisher.flush()?)
}

/// Holes in all replica files of a site.
fn holes_on_disk(site: &Site, data: &Data) -> Result<u64, Failure> {
    let mut holes = 0;
    for broker in 0..site.rig.brokers {
        let listing = list(&data.0.join(format!("broker-{broker}")))?;
        let sources = listing.topics.iter().flat_map(|topic| &topic.sources);
        for (_, path) in sources.flat_map(|source| &source.files) {
            holes += FileSurvey::take(path)?.holes;
        }
    }
    Ok(holes)
}

/// Positions that were reserved and never written are as unwritten after the loss of the pool as
/// before it, and nobody calls them lost.
pub fn holes_come_back_as_holes_without_the_pool(rig: &Rig) -> Result<(), Failure> {
    let data = Data::new(&format!("holes-{}-{}", rig.transport, rig.brokers))?;
    let mut site = rig.start_with(|config| config.data = Some(data.0.clone()))?;
    let topic = site.topic_with(Order::Token, |spec| spec.replicas = Some(2))?;
    let publisher = |site: &Site, who: u64| {
        let broker = (who * (rig.brokers as u64 - 1)) as u8;
        let builder = site.publisher(&topic).client_id(who + 1).broker(broker);
        builder.ack(Ack::Durable).batch_bytes(2048).build()
    };
    let mut stays = publisher(&site, 0)?;
    for turn in 0..3 {
        let mut leaves = publisher(&site, 1)?;
        let reserved = leaves.reserve_positions(7)?;
        ensure!(reserved.count == 7, "{} of 7 positions", reserved.count);
        publish_durably(&mut leaves, 1, 2 * turn..2 * turn + 2)?;
        leaves.close()?;
        publish_durably(&mut stays, 0, 40 * turn..40 * turn + 40)?;
    }
    stays.close()?;
    site.wait_until("that the holes are on the disk", |_| Ok(holes_on_disk(&site, &data)? >= 3))?;
    let before = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    let holes = [(2, 5), (49, 5), (96, 5)];
    ensure!(before.unwritten == holes, "told of {:?}", before.unwritten);
    lose_the_pool(&mut site)?;
    let said = site.client.errors()?;
    let said = said.iter().filter(|said| said.text.contains(&format!("topic {}", topic.name)));
    let said: Vec<&str> = said.map(|said| said.text.as_str()).collect();
    let is_told = said.iter().any(|said| said.contains("15 positions that nobody wrote"));
    ensure!(is_told && !said.iter().any(|said| said.contains("lost")), "control said {said:?}");
    let mut stays = publisher(&site, 0)?;
    publish_durably(&mut stays, 0, 120..160)?;
    stays.close()?;
    for broker in 0..rig.brokers {
        let subscriber = site.subscriber(&topic).broker(broker as u8).build()?;
        let after = read(subscriber, Until::CaughtUp)?;
        check_sent(&after, &[(0, 160), (1, 6)], Promise::InOrderOnce)?;
        ensure!(
            after.messages[..before.messages.len()] == before.messages[..],
            "what was shown before is not what is shown now"
        );
        ensure!(after.unwritten == holes, "told of {:?} then", after.unwritten);
    }
    site.close()
}

/// A subscriber that is in the middle when the pool goes, and still there when an empty one comes,
/// reads on from disk, although nobody publishes any more; and then what is published. So does one
/// that comes back when more is published already.
pub fn a_subscriber_outlives_the_pool(rig: &Rig) -> Result<(), Failure> {
    const BYTES: usize = 30_000;
    const FIRST: u64 = 20;
    // More than a small ring and sockets hold on their way.
    const ALL: u64 = 700;
    let data = Data::new(&format!("outlives-{}-{}", rig.transport, rig.brokers))?;
    let mut site = rig.start_with(|config| config.data = Some(data.0.clone()))?;
    // Nobody who maps the pool outlives it.
    let transport = match rig.transport {
        Transport::Memory => Transport::Tcp,
        other => other,
    };
    let send = |site: &Site, topic: &Topic, range: std::ops::Range<u64>| {
        let builder = site.publisher(topic).client_id(1).broker(0);
        let mut publisher = builder.ack(Ack::Durable).build()?;
        publish(&mut publisher, 1, range, BYTES)?;
        Ok::<_, Failure>(publisher.close()?)
    };
    let mut all = Vec::new();
    for order in [Order::Strong, Order::Broker] {
        let topic = site.topic_with(order, |spec| spec.replicas = Some(2))?;
        send(&site, &topic, 0..FIRST)?;
        let subscriber = || site.subscriber(&topic).transport(transport).ring_bytes(0).build();
        let mut begun = [(subscriber()?, Reading::default()), (subscriber()?, Reading::default())];
        for (subscriber, reading) in &mut begun {
            reading.read(subscriber, Until::CaughtUp)?;
        }
        send(&site, &topic, FIRST..ALL)?;
        for (subscriber, reading) in &mut begun {
            reading.read(subscriber, Until::Messages(FIRST + 10))?;
        }
        all.push((order, topic, begun));
    }
    lose_the_pool(&mut site)?;
    for (order, topic, begun) in all {
        let [(mut subscriber, mut reading), (mut late, mut read_late)] = begun;
        reading.read(&mut subscriber, Until::Messages(ALL))?;
        ensure!(reading.missed == 0, "{} messages were told to be missed", reading.missed);
        check_sent(&reading, &[(1, ALL)], Promise::InOrderOnce)?;
        let end = site.client.topic(&topic.name)?.next_position;
        send(&site, &topic, ALL..ALL + 10)?;
        // Positions that the lost pool may have shown are a gap.
        reading.read(&mut subscriber, Until::Messages(end + 10))?;
        check_sent(&reading, &[(1, ALL + 10)], Promise::InOrderOnce)?;
        read_late.read(&mut late, Until::Messages(end + 10))?;
        check_sent(&read_late, &[(1, ALL + 10)], Promise::InOrderOnce)?;
        ensure!(read_late.missed == reading.missed, "{} were missed", read_late.missed);
        audit(order, &[&reading, &read_late])?;
    }
    site.close()
}
