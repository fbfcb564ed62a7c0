//! A system that is stopped and started again, in good order or not, every pool gone each time.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use landfall::{Ack, Error, Order, Publisher, Reached, Transport};
use landfall_layout::replica::REPLICA_HEADER_BYTES;
use landfall_replica::names::list;

use super::cold::{Data, lose_the_pool};
use crate::flow::{Promise, Reading, Until, audit, check_sent, message, name_of, publish, read};
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

/// Publishes small messages of publisher 2 through all brokers, one after the other, until they
/// send it away; how many were ordered. Says when the first was.
fn trickle(mut publisher: Publisher, first: &Sender<()>) -> u64 {
    let mut ordered = 0;
    loop {
        let ticket = publisher.publish(&message(2, ordered, 100));
        let ticket = ticket.and_then(|ticket| publisher.seal().map(|()| ticket));
        match ticket.and_then(|ticket| publisher.wait(ticket)) {
            Ok(receipt) if receipt.reached == Reached::Ordered => ordered += 1,
            _ => return ordered,
        }
        if ordered == 1 {
            // Whoever does not listen any more needs no word.
            let _ = first.send(());
        }
    }
}

/// What was only ordered is on disk too when all were stopped in good order, however slow disks are
/// and though somebody publishes meanwhile, and is there without the pool.
pub fn what_was_ordered_is_on_slow_disks_after_a_stop(rig: &Rig) -> Result<(), Failure> {
    const MESSAGES: u64 = 1500;
    let data = Data::new(&format!("slow-{}-{}", rig.transport, rig.brokers))?;
    let slow = |broker: usize| (broker, "write-us=200000".to_owned());
    let site = rig.start_with(|config| {
        config.data = Some(data.0.clone());
        config.data_faults = (0..rig.brokers).map(slow).collect();
    })?;
    make_topics(&site)?;
    let topic = site.client.topic(&name(Order::Strong))?;
    let builder = site.publisher(&topic).timeout(Duration::from_secs(3)).spread(true);
    let builder = builder.client_id(2).ack(Ack::Ordered);
    let (says, first) = channel();
    let trickling = std::thread::spawn(move || Ok::<_, Error>(trickle(builder.build()?, &says)));
    let builder = site.publisher(&topic).client_id(1).ack(Ack::Ordered);
    let mut publisher = builder.batch_bytes(1 << 20).build()?;
    publish(&mut publisher, 1, 0..MESSAGES, 16 << 10)?;
    publisher.close()?;
    // Where it ends before, it says so below.
    let _ = first.recv();
    site.system.stop()?;
    let trickled = trickling.join().map_err(|_| Failure::new("a publisher panicked"))??;
    ensure!(trickled > 0, "nothing was published while the system was stopped");
    let site = rig.start_with(|config| config.data = Some(data.0.clone()))?;
    let topic = site.client.topic(&name(Order::Strong))?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    let read: HashSet<_> = reading.messages.iter().filter_map(|it| name_of(&it.payload)).collect();
    for (who, ordered) in [(1, MESSAGES), (2, trickled)] {
        let gone = (0..ordered).filter(|n| !read.contains(&(who, *n))).count();
        ensure!(gone == 0, "{gone} of {ordered} messages of publisher {who} are gone");
    }
    Ok(site.system.stop()?)
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

/// One broker's disk does not take what a publisher spreads over all of them, and the pool is lost.
/// What later batches on the other disks overtook cannot be ordered any more: its publisher is told
/// that it is lost, and the rest is durable, once, and read by everybody.
pub fn what_no_disk_has_is_never_called_durable(rig: &Rig) -> Result<(), Failure> {
    // Every broker has a run of batches that another one is behind.
    const FIRST: u64 = 288;
    const ALL: u64 = 320;
    if rig.brokers < 2 {
        return Ok(());
    }
    let data = Data::new(&format!("holes-of-one-{}-{}", rig.transport, rig.brokers))?;
    let mut site = rig.start_with(|config| {
        config.data = Some(data.0.clone());
        // However often it is tried: a file's header is all that finds room.
        config.data_faults = vec![(0, format!("full-after={REPLICA_HEADER_BYTES}"))];
    })?;
    let topic = site.topic_with(Order::Strong, |spec| spec.replicas = Some(2))?;
    // Nobody who maps the pool outlives it.
    let builder = site.publisher(&topic).transport(Transport::Tcp).client_id(7).spread(true);
    let mut publisher = builder.ack(Ack::Durable).build()?;
    let mut tickets = Vec::new();
    for n in 0..FIRST {
        tickets.push(publisher.publish(&message(7, n, 200))?);
        publisher.seal()?;
    }
    site.wait_until("that all is ordered", |client| {
        publisher.poll()?;
        Ok(client.topic(&topic.name)?.messages == FIRST)
    })?;
    site.wait_until("that the other disks have theirs", |client| {
        publisher.poll()?;
        let copies = client.topic(&topic.name)?.replicas_state;
        Ok(copies.iter().all(|copy| copy.broker == 0 || copy.durable >= FIRST))
    })?;
    site.system.set_data_faults(Vec::new());
    let bad_disk = data.0.join("broker-0");
    let of_bad_disk: Vec<PathBuf> =
        files(&site, &data)?.into_iter().filter(|path| path.starts_with(&bad_disk)).collect();
    super::cold::lose_the_pool_and(&mut site, || {
        // Nothing behind the header was ever called durable.
        for path in &of_bad_disk {
            OpenOptions::new().write(true).open(path)?.set_len(REPLICA_HEADER_BYTES)?;
        }
        Ok(())
    })?;
    let (batches, first) = match publisher.flush() {
        Err(Error::Spoilt { batches, first_seq, .. }) => (batches, first_seq),
        other => return Err(Failure::new(format!("the publisher was told {other:?}"))),
    };
    ensure!(batches > 0 && batches < FIRST, "{batches} batches of {FIRST} are lost");
    for n in FIRST..ALL {
        tickets.push(publisher.publish(&message(7, n, 200))?);
        publisher.seal()?;
    }
    publisher.flush()?;
    let mut kept = Vec::new();
    for (n, ticket) in (0..).zip(tickets) {
        let receipt = publisher.wait(ticket)?;
        match receipt.reached {
            Reached::Lost => ensure!(n >= first && n < FIRST, "message {n} is lost"),
            _ => kept.push((7, n)),
        }
    }
    publisher.close()?;
    ensure!(kept.len() as u64 == ALL - batches, "{} messages and {batches} lost", kept.len());
    for broker in 0..rig.brokers {
        let subscriber = site.subscriber(&topic).broker(broker as u8).build()?;
        let reading = read(subscriber, Until::CaughtUp)?;
        let read: Vec<(u64, u64)> =
            reading.messages.iter().filter_map(|read| name_of(&read.payload)).collect();
        ensure!(read == kept, "{kept:?} are durable, and {read:?} are read");
    }
    let said = site.client.errors()?;
    let is_told = said.iter().any(|said| {
        said.text.contains(&format!("{batches} batches of client 0x7"))
            && said.text.contains("sequences")
    });
    ensure!(is_told, "control said {said:?}");
    site.close()
}
