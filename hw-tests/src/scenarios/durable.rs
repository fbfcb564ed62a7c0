//! Batches that are called durable: they are on every disk that was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use landfall::api::Topic;
use landfall::{Ack, BatchReceipt, Order, Publisher, Reached};
use landfall_layout::replica::{Body, REPLICA_HEADER_BYTES};
use landfall_replica::Walk;
use landfall_replica::names::list;

use crate::flow::{Promise, Until, audit, check_sent, publish, read};
use crate::{Failure, Rig, Site};

/// A directory for the brokers' replicas, removed at its end.
struct Disks(PathBuf);

impl Disks {
    fn new() -> Result<Self, Failure> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("landfall-disks-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Every batch of a topic that broker `keeper` has of each source: log index, and the batch's
    /// client and sequence. Every record holds, and the files of a source fit together.
    fn batches(&self, keeper: usize, topic: &Topic) -> Result<Found, Failure> {
        let mut found = Found::new();
        for topic in list(&self.0.join(format!("broker-{keeper}")))?.topics.iter().filter(|there| {
            (there.name.as_str(), there.created_ns) == (topic.name.as_str(), topic.created_ns)
        }) {
            for source in &topic.sources {
                let of = found.entry(source.source.index()).or_default();
                for (_, path) in &source.files {
                    read_file(path, of)?;
                }
            }
        }
        Ok(found)
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// By source and log index: client, sequence.
type Found = BTreeMap<usize, BTreeMap<u64, (u64, u64)>>;

fn read_file(path: &Path, found: &mut BTreeMap<u64, (u64, u64)>) -> Result<(), Failure> {
    // A file that its broker begins at this moment has nothing yet that could be missed.
    if fs::metadata(path)?.len() < REPLICA_HEADER_BYTES {
        return Ok(());
    }
    let mut walk = Walk::open(path)?;
    while let Some(record) = walk.next()? {
        if let Body::Batch { entry, .. } = record.body {
            let twice = found.insert(record.header.index, (entry.client, entry.batch_seq));
            ensure!(twice.is_none(), "index {} stands twice on the disk", record.header.index);
        }
    }
    // A process that was killed may leave an end that was not whole yet; nothing was said of it.
    Ok(())
}

fn receipts(publisher: &mut Publisher) -> Vec<BatchReceipt> {
    let mut receipts = Vec::new();
    publisher.take_receipts(&mut receipts);
    receipts
}

fn with_disks(rig: &Rig, disks: &Disks) -> Result<Site, Failure> {
    rig.start_with(|config| {
        config.data = Some(disks.0.clone());
        config.data_file_bytes = 256 << 10;
    })
}

fn copies(site: &Site, order: Order, replicas: u8) -> Result<Topic, Failure> {
    site.topic_with(order, |spec| spec.replicas = Some(replicas))
}

/// Every order, every publisher asking for durable: the receipts say durable, and when they are
/// all there every batch is in the files of the brokers that keep it.
pub fn durable_receipts_come_once_every_replica_has_the_batch(rig: &Rig) -> Result<(), Failure> {
    let disks = Disks::new()?;
    let site = with_disks(rig, &disks)?;
    let brokers = rig.brokers;
    let replicas = if brokers > 1 { 3 } else { 2 };
    for order in [Order::Strong, Order::Total, Order::Stream, Order::Broker, Order::None] {
        let topic = copies(&site, order, replicas)?;
        let builder = site.publisher(&topic).client_id(7).batch_bytes(2 << 10).ack(Ack::Durable);
        let mut publisher = builder.spread(brokers > 1).build()?;
        publish(&mut publisher, 7, 0..500, 200)?;
        publisher.flush()?;
        let receipts = receipts(&mut publisher);
        publisher.close()?;
        ensure!(receipts.len() > 40, "{order}: {} receipts", receipts.len());
        for receipt in &receipts {
            ensure!(receipt.reached == Reached::Durable, "{order}: {receipt:?}");
            ensure!(receipt.first_position.is_some(), "{order}: {receipt:?}");
        }
        let wanted: BTreeSet<(u64, u64)> = receipts.iter().map(|r| (7, r.batch_seq)).collect();
        for replica in 0..usize::from(replicas) - 1 {
            let mut there = BTreeSet::new();
            for source in 0..brokers {
                let found = disks.batches((source + replica) % brokers, &topic)?;
                there.extend(found.get(&source).into_iter().flatten().map(|(_, name)| *name));
            }
            ensure!(there == wanted, "{order}: replica {replica} has {} batches", there.len());
        }
        let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
        check_sent(&reading, &[(7, 500)], Promise::Once)?;
        audit(order, &[&reading])?;
        // What brokers keep ready for a topic would make the pool short for the next.
        site.client.delete_topic(&topic.name)?;
    }
    site.close()?;
    for broker in 0..brokers {
        let left = list(&disks.0.join(format!("broker-{broker}")))?;
        ensure!(left.topics.is_empty(), "deleted topics left {:?}", left.topics);
    }
    Ok(())
}

/// A topic that is synced now and then says replicated, and never durable.
pub fn with_a_window_a_receipt_says_replicated(rig: &Rig) -> Result<(), Failure> {
    let disks = Disks::new()?;
    let site = with_disks(rig, &disks)?;
    let topic = site.topic_with(Order::Strong, |spec| {
        spec.replicas = Some(2);
        spec.durability = Some("window".into());
    })?;
    ensure!(topic.durability == "window", "{}", topic.durability);
    let mut publisher = site.publisher(&topic).client_id(3).ack(Ack::Durable).build()?;
    publish(&mut publisher, 3, 0..200, 100)?;
    publisher.flush()?;
    for receipt in receipts(&mut publisher) {
        ensure!(receipt.reached == Reached::Replicated, "{receipt:?}");
    }
    publisher.close()?;
    site.wait_until("that everything written is synced", |client| {
        let topic = client.topic(&topic.name)?;
        let synced = |r: &landfall::api::Replica| r.durable == r.written;
        Ok(!topic.replicas_state.is_empty() && topic.replicas_state.iter().all(synced))
    })?;
    site.close()
}

/// Brokers are killed while publishers wait for durable: what a receipt called durable is on the
/// disk of the dead broker, and afterwards everything is there exactly once.
pub fn after_a_kill_nothing_durable_is_missing_on_the_disk(rig: &Rig) -> Result<(), Failure> {
    let disks = Disks::new()?;
    let mut site = with_disks(rig, &disks)?;
    let topic = copies(&site, Order::Strong, 2)?;
    let builder = site.publisher(&topic).client_id(4).batch_bytes(4 << 10).ack(Ack::Durable);
    let mut publisher = builder.broker(0).build()?;
    let mut durable = BTreeSet::new();
    let mut sent = 0;
    for round in 0..4_u64 {
        // Some rounds are killed with batches under way, some right behind a receipt.
        publish(&mut publisher, 4, sent..sent + 300, 300)?;
        sent += 300;
        if round % 2 == 0 {
            publisher.flush()?;
        }
        publisher.poll()?;
        let known = receipts(&mut publisher);
        durable.extend(known.iter().filter(|r| is_durable(r)).map(|r| (4, r.batch_seq)));
        site.system.kill_broker(0);
        let there: BTreeSet<_> = names(&disks.batches(0, &topic)?);
        let missing: Vec<_> = durable.difference(&there).collect();
        ensure!(missing.is_empty(), "round {round}: durable and not on the disk: {missing:?}");
        site.system.start_broker(0)?;
    }
    publisher.flush()?;
    for receipt in receipts(&mut publisher) {
        ensure!(is_durable(&receipt), "{receipt:?}");
    }
    publisher.close()?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(4, sent)], Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    let found = disks.batches(0, &topic)?;
    let batches: usize = found.values().map(BTreeMap::len).sum();
    let log = site.client.topic(&topic.name)?.batches;
    ensure!(batches as u64 == log, "{batches} batches on the disk and {log} in the log");
    site.close()
}

fn names(found: &Found) -> BTreeSet<(u64, u64)> {
    found.values().flat_map(BTreeMap::values).copied().collect()
}

fn is_durable(receipt: &BatchReceipt) -> bool {
    // A duplicate's receipt waits for the copy that is ordered.
    matches!(receipt.reached, Reached::Durable | Reached::Duplicate)
}

/// A sync fails: the replica says so and stops, nothing more is called durable, and the next
/// start goes on from what is really there.
pub fn a_failed_sync_is_seen_and_never_called_durable(rig: &Rig) -> Result<(), Failure> {
    let disks = Disks::new()?;
    let mut site = rig.start_with(|config| {
        config.data = Some(disks.0.clone());
        // The first is that of the file's header.
        config.data_faults = vec![(0, "sync-fails=3".into())];
    })?;
    let topic = copies(&site, Order::Total, 2)?;
    let builder = site.publisher(&topic).client_id(5).broker(0).ack(Ack::Durable);
    let mut publisher = builder.timeout(Duration::from_secs(1)).build()?;
    publish(&mut publisher, 5, 0..10, 100)?;
    publisher.flush()?;
    let first = receipts(&mut publisher).len();
    publish(&mut publisher, 5, 10..20, 100)?;
    ensure!(publisher.flush().is_err(), "a batch was called durable whose sync had failed");
    ensure!(receipts(&mut publisher).is_empty(), "a receipt came");
    let state = site.client.topic(&topic.name)?;
    let replica = &state.replicas_state[0];
    ensure!(
        (replica.state.as_str(), replica.errno) == ("failed", 5)
            && replica.durable >= first as u64
            && replica.durable < state.batches,
        "{replica:?} of {} batches",
        state.batches
    );
    let said = |text: &str| {
        text.contains("fdatasync") && text.contains(&topic.name) && text.contains("broker 0")
    };
    site.wait_until("that the error is shown", |client| {
        Ok(client.errors()?.iter().any(|error| said(&error.text)))
    })?;
    ensure!(site.counter("replica_failures_total")? == 1, "not counted");
    let stuck = replica.durable;
    publish(&mut publisher, 5, 20..30, 100)?;
    std::thread::sleep(Duration::from_millis(100));
    let durable = site.client.topic(&topic.name)?.replicas_state[0].durable;
    ensure!(durable == stuck, "durable moved from {stuck} to {durable} after a failed sync");
    site.system.kill_broker(0);
    site.system.set_data_faults(Vec::new());
    site.system.start_broker(0)?;
    publisher.flush()?;
    publisher.close()?;
    let state = site.client.topic(&topic.name)?;
    ensure!(state.replicas_state[0].state == "well", "{:?}", state.replicas_state);
    let on_disk: usize = disks.batches(0, &topic)?.values().map(BTreeMap::len).sum();
    ensure!(on_disk as u64 == state.batches, "{on_disk} of {} batches", state.batches);
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(5, 30)], Promise::AtLeastOnce)?;
    site.close()
}

/// Three copies on two brokers: every batch on both disks. One broker dead: what it kept is not
/// called durable any more, and shown; once it is back everything is.
pub fn three_copies_on_two_brokers(rig: &Rig) -> Result<(), Failure> {
    let disks = Disks::new()?;
    let rig = Rig { brokers: 2, ..*rig };
    let mut site = with_disks(&rig, &disks)?;
    let topic = copies(&site, Order::Strong, 3)?;
    let builder = site.publisher(&topic).client_id(6).broker(0).ack(Ack::Durable);
    let mut publisher = builder.timeout(Duration::from_secs(1)).batch_bytes(1 << 10).build()?;
    publish(&mut publisher, 6, 0..100, 100)?;
    publisher.flush()?;
    let (first, second) = (disks.batches(0, &topic)?, disks.batches(1, &topic)?);
    ensure!(first == second && names(&first).len() >= 10, "{first:?} and {second:?}");
    site.system.kill_broker(1);
    publish(&mut publisher, 6, 100..120, 100)?;
    ensure!(publisher.flush().is_err(), "durable with one of two disks");
    let state = site.client.topic(&topic.name)?;
    let behind = state.replicas_state.iter().filter(|r| r.durable < state.batches).count();
    ensure!(behind == 1 && state.replicas_state.len() == 2, "{:?}", state.replicas_state);
    // Nobody can take it over: the publisher hears which copy it waits for, and where.
    site.wait_until("that the copy is not called well", |client| {
        let state = client.topic(&topic.name)?.replicas_state;
        let of = state.iter().find(|copy| copy.broker == 1);
        Ok(of.is_some_and(|copy| copy.state == "keeper gone"))
    })?;
    site.wait_until("that the publisher is told of it", |_| {
        let told = publisher.flush().err().map(|error| error.to_string());
        let names = |text: &str| text.contains("copy 1 on disk") && text.contains("broker 1 does");
        Ok(told.is_some_and(|text| names(&text)))
    })?;
    site.system.start_broker(1)?;
    publisher.flush()?;
    publisher.close()?;
    let (first, second) = (disks.batches(0, &topic)?, disks.batches(1, &topic)?);
    ensure!(first == second, "{first:?} and {second:?}");
    site.close()
}

/// Copies that nobody can keep are refused when the topic is made, with the numbers.
pub fn replicas_that_cannot_be_are_refused(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let refused = |site: &Site, replicas, says: &str| match copies(site, Order::Total, replicas) {
        Ok(_) => Err(Failure::new(format!("{replicas} replicas were accepted"))),
        Err(failure) => {
            let text = failure.to_string();
            ensure!(text.contains(says), "no word of {says:?} in {text:?}");
            Ok(())
        }
    };
    refused(&site, 2, "--data")?;
    refused(&site, 9, "1 to 4")?;
    site.close()?;
    let disks = Disks::new()?;
    let site = with_disks(&Rig { brokers: 1, ..*rig }, &disks)?;
    refused(&site, 3, "1 live broker has a disk: start 1 more")?;
    let topic = copies(&site, Order::Total, 1)?;
    match site.publisher(&topic).ack(Ack::Durable).build() {
        Ok(_) => return Err(Failure::new("ack durable was accepted without a copy on a disk")),
        Err(error) => {
            let text = error.to_string();
            ensure!(text.contains("2 replicas or more"), "{text}");
        }
    }
    site.close()
}

/// Brokers are killed while a publisher of order `stream` waits for durable: what was ordered by
/// then is not sent again, and its receipts say durable all the same.
pub fn a_stream_that_comes_back_hears_durable_and_nothing_less(rig: &Rig) -> Result<(), Failure> {
    let disks = Disks::new()?;
    let mut site = with_disks(rig, &disks)?;
    let topic = copies(&site, Order::Stream, 2)?;
    let builder = site.publisher(&topic).client_id(4).batch_bytes(4 << 10).ack(Ack::Durable);
    let mut publisher = builder.broker(0).build()?;
    let mut heard = Vec::new();
    for round in 0..6_u64 {
        let before = site.client.topic(&topic.name)?.batches;
        publish(&mut publisher, 4, round * 200..(round + 1) * 200, 300)?;
        publisher.seal()?;
        publisher.poll()?;
        // Ordered is the first of it by now, and not all of that is durable.
        while site.client.topic(&topic.name)?.batches == before {
            publisher.poll()?;
        }
        site.system.kill_broker(0);
        site.system.start_broker(0)?;
        publisher.flush()?;
        heard.append(&mut receipts(&mut publisher));
    }
    publisher.close()?;
    for receipt in &heard {
        ensure!(is_durable(receipt), "{receipt:?}");
    }
    let messages: u64 = heard.iter().map(|receipt| u64::from(receipt.count)).sum();
    ensure!(messages == 1200, "receipts for {messages} messages of 1200");
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(4, 1200)], Promise::InOrderOnce)?;
    audit(Order::Stream, &[&reading])?;
    site.close()
}
