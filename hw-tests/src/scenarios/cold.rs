//! The pool is gone, and the replicas are there: topics come back from disk.

use std::path::PathBuf;

use landfall::{Ack, Order};

use crate::flow::{Promise, Until, audit, check_sent, publish, read};
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
fn lose_the_pool(site: &mut Site) -> Result<(), Failure> {
    site.system.kill_control();
    for broker in 0..site.rig.brokers {
        site.system.kill_broker(broker);
    }
    // Memory that came back from a power cut: there, and all zero.
    std::fs::OpenOptions::new().write(true).open(site.system.pool())?.set_len(0)?;
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
        let mut publisher =
            site.publisher(topic).client_id(1).ack(Ack::Durable).batch_bytes(2048).build()?;
        publish(&mut publisher, 1, 500..800, 200)?;
        publisher.close()?;
        let after = read(site.subscriber(&again).build()?, Until::CaughtUp)?;
        check_sent(&after, &[(1, 800)], Promise::AtLeastOnce)?;
        ensure!(after.messages.len() == 800, "{} messages of 800", after.messages.len());
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
