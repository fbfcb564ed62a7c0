//! A system that is stopped and started again, in good order or not, every pool gone each time.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use landfall::{Ack, Order};
use landfall_layout::replica::REPLICA_HEADER_BYTES;
use landfall_replica::names::list;

use super::cold::{Data, lose_the_pool};
use crate::flow::{Promise, Reading, Until, audit, check_sent, publish, read};
use crate::{Failure, Rig, Site};

const ORDERS: [Order; 3] = [Order::Strong, Order::Stream, Order::Broker];

fn name(order: Order) -> String {
    format!("lives-{order}")
}

/// Topics with a copy on disk, of known names.
fn make_topics(site: &Site) -> Result<(), Failure> {
    for order in ORDERS {
        site.topic_with(order, |spec| {
            spec.name = name(order);
            spec.replicas = Some(2);
        })?;
    }
    Ok(())
}

/// Publishes messages up to `to` of each topic's one publisher, durably, through all brokers.
fn go_on(site: &Site, from: u64, to: u64) -> Result<(), Failure> {
    for order in ORDERS {
        let topic = site.client.topic(&name(order))?;
        let builder = site.publisher(&topic).client_id(1).ack(Ack::Durable);
        let mut publisher = builder.batch_bytes(2048).build()?;
        publish(&mut publisher, 1, from..to, 200)?;
        publisher.close()?;
    }
    Ok(())
}

/// Reads each topic whole: every message once, and as many counted as there were.
fn read_all(site: &Site, messages: u64) -> Result<Vec<Reading>, Failure> {
    let mut all = Vec::new();
    for order in ORDERS {
        let topic = site.client.topic(&name(order))?;
        let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
        check_sent(&reading, &[(1, messages)], Promise::AtLeastOnce)?;
        ensure!(
            reading.messages.len() as u64 == messages,
            "{} messages of {messages}",
            reading.messages.len()
        );
        let counted = (topic.messages, reading.missed - reading.skipped, reading.lost);
        ensure!(
            counted == (messages, 0, 0),
            "of {messages} messages in order {order}, control counts {}; {} were told to be \
             missed and {} lost",
            counted.0,
            counted.1,
            counted.2
        );
        let report = audit(order, &[&reading])?;
        ensure!(report.missed == 0, "the auditor counts {} missed", report.missed);
        all.push(reading);
    }
    Ok(all)
}

/// What `landfall verify` finds missing.
fn check_files(data: &Data) -> Result<(), Failure> {
    let kept = landfall_verify::replicas::look(&data.0)?;
    for topic in &kept.topics {
        for log in &topic.logs {
            ensure!(log.gaps.is_empty(), "topic {}: verify finds {:?}", topic.name, log.gaps);
        }
    }
    Ok(())
}

/// A system that is stopped in good order goes on where it was, however often: no position is
/// passed over, nothing is said to be missing, and a reader of all of it meets no gap.
pub fn stops_in_good_order_leave_no_gap(rig: &Rig) -> Result<(), Failure> {
    let data = Data::new(&format!("orderly-{}-{}", rig.transport, rig.brokers))?;
    for life in 0..4 {
        let site = rig.start_with(|config| config.data = Some(data.0.clone()))?;
        if life == 0 {
            make_topics(&site)?;
        } else {
            read_all(&site, 60 * life)?;
        }
        go_on(&site, 60 * life, 60 * (life + 1))?;
        for reading in read_all(&site, 60 * (life + 1))? {
            ensure!(reading.skipped == 0, "{} positions were passed over", reading.skipped);
        }
        site.system.stop()?;
        check_files(&data)?;
    }
    Ok(())
}

/// Pools that are lost one after the other, in mid-flight: positions are passed over each time, and
/// none of them is ever called a message, or missed, or lost.
pub fn pools_that_are_lost_again_and_again_lose_nothing_durable(rig: &Rig) -> Result<(), Failure> {
    let data = Data::new(&format!("again-{}-{}", rig.transport, rig.brokers))?;
    let mut site = rig.start_with(|config| config.data = Some(data.0.clone()))?;
    make_topics(&site)?;
    let mut before: Vec<Reading> = Vec::new();
    for life in 0..4 {
        go_on(&site, 40 * life, 40 * (life + 1))?;
        let now = read_all(&site, 40 * (life + 1))?;
        for (before, now) in before.iter().zip(&now) {
            ensure!(
                now.messages.starts_with(&before.messages),
                "what was shown before is not what is shown now"
            );
        }
        before = now;
        lose_the_pool(&mut site)?;
        // Twice without anything in between.
        if life == 1 {
            lose_the_pool(&mut site)?;
        }
        read_all(&site, 40 * (life + 1))?;
        check_files(&data)?;
    }
    site.close()
}

/// Every replica file below a site's data.
fn files(site: &Site, data: &Data) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for broker in 0..site.rig.brokers {
        let listing = list(&data.0.join(format!("broker-{broker}")))?;
        let sources = listing.topics.iter().flat_map(|topic| &topic.sources);
        files.extend(sources.flat_map(|source| source.files.iter().map(|(_, path)| path.clone())));
    }
    Ok(files)
}

/// A byte of the only copy changes, in the header, in its version, in the first record or in the
/// last, and the pool is lost: no position is used twice, whatever of the file can still be read.
pub fn damage_and_a_lost_pool_use_no_position_twice(rig: &Rig) -> Result<(), Failure> {
    let data = Data::new(&format!("damaged-{}-{}", rig.transport, rig.brokers))?;
    for at in [40, 8, REPLICA_HEADER_BYTES + 20, u64::MAX] {
        let _ = std::fs::remove_dir_all(&data.0);
        std::fs::create_dir_all(&data.0)?;
        let mut site = rig.start_with(|config| config.data = Some(data.0.clone()))?;
        make_topics(&site)?;
        go_on(&site, 0, 40)?;
        let ends: Vec<u64> = ORDERS
            .iter()
            .map(|order| Ok(site.client.topic(&name(*order))?.next_position))
            .collect::<Result<_, Failure>>()?;
        let damaged = files(&site, &data)?;
        super::cold::lose_the_pool_and(&mut site, || {
            for path in &damaged {
                let file = OpenOptions::new().read(true).write(true).open(path)?;
                // Behind the last batch stands a record that says how far the log was.
                let at = at.min(file.metadata()?.len().saturating_sub(128 + 20));
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                file.write_all_at(&[byte[0] ^ 0x10], at)?;
            }
            Ok(())
        })?;
        for (order, end) in ORDERS.into_iter().zip(ends) {
            let topic = site.client.topic(&name(order))?;
            ensure!(
                topic.next_position >= end,
                "byte {at} of its files changed, and order {order} goes on at position {} behind \
                 {end}",
                topic.next_position
            );
        }
        site.system.stop()?;
    }
    Ok(())
}
