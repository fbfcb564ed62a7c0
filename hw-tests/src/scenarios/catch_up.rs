//! What has left memory is read from the replicas on disk, and memory is gone back to.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use landfall::api::Topic;
use landfall::{Event, Order, Start, Subscriber};
use landfall_replica::names::list;

use super::cold::Data;
use crate::flow::{Promise, Reading, Told, Until, audit, check_sent, name_of, publish, read};
use crate::rig::patience;
use crate::{Failure, Rig, Site};

/// Bytes of a message, and messages of each publisher: 18 MB.
const BYTES: usize = 30_000;
const MESSAGES: u64 = 600;
/// Gaps that a failure shows.
const GAPS_SHOWN: usize = 8;
/// What memory keeps of a topic at least, in segments of 2 MiB.
const KEPT: u64 = 2 << 20;

fn site(rig: &Rig, name: &str) -> Result<(Data, Site), Failure> {
    let flush = if rig.flush { "-flush" } else { "" };
    let data = Data::new(&format!("{name}-{}-{}{flush}", rig.transport, rig.brokers))?;
    let site = rig.start_with(|config| {
        config.data = Some(data.0.clone());
        config.data_file_bytes = 1 << 20;
    })?;
    Ok((data, site))
}

/// A topic with a copy on disk that keeps little in memory.
fn topic(site: &Site, order: Order) -> Result<Topic, Failure> {
    site.topic_with(order, |spec| {
        spec.replicas = Some(2);
        spec.retention_bytes = Some(KEPT);
    })
}

/// Publishes through the first and the last broker, several times what memory keeps, and waits
/// until memory has given most of it up.
fn fill(site: &Site, topic: &Topic) -> Result<Vec<(u64, u64)>, Failure> {
    let freed = site.counter("segments_freed_total")?;
    let mut sent = Vec::new();
    for who in 0..2_u64 {
        let broker = if who == 0 { 0 } else { site.rig.brokers as u8 - 1 };
        let builder = site.publisher(topic).client_id(who + 1).broker(broker);
        let mut publisher = builder.batch_bytes(128 << 10).build()?;
        publish(&mut publisher, who, 0..MESSAGES, BYTES)?;
        publisher.close()?;
        sent.push((who, MESSAGES));
    }
    if topic.order == Order::Broker.name() {
        // Each log has positions of its own: what was freed says more.
        site.wait_until("that memory gives up what is on disk", |_| {
            Ok(site.counter("segments_freed_total")? >= freed + 5)
        })?;
    } else {
        gone(site, topic, MESSAGES / 2)?;
    }
    Ok(sent)
}

/// Waits until memory begins behind that position.
fn gone(site: &Site, topic: &Topic, position: u64) -> Result<(), Failure> {
    site.wait_until("that memory gives up what is on disk", |client| {
        Ok(client.topic(&topic.name)?.oldest_position > position)
    })
}

fn no_gap(reading: &Reading) -> Result<(), Failure> {
    let gaps = reading.story.iter().filter(|told| matches!(told, Told::Gap(..)));
    let gaps: Vec<_> = gaps.take(GAPS_SHOWN).collect();
    ensure!(reading.missed == 0, "{} messages were told to be missed: {gaps:?}", reading.missed);
    Ok(())
}

/// Reads until there were so many messages, and nothing was missed.
fn read_all(mut subscriber: Subscriber, messages: u64) -> Result<Reading, Failure> {
    let mut reading = Reading::default();
    reading.read(&mut subscriber, Until::Messages(messages))?;
    no_gap(&reading)?;
    Ok(reading)
}

/// A subscriber that comes late reads everything from the first position on, whatever memory
/// still has; from the middle too, by position and by time.
pub fn what_left_memory_is_read_from_disk(rig: &Rig) -> Result<(), Failure> {
    let (_data, site) = site(rig, "left")?;
    for order in [Order::Strong, Order::Broker] {
        let topic = topic(&site, order)?;
        let sent = fill(&site, &topic)?;
        let before = site.counter("batches_from_disk_total")?;
        let whole = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
        no_gap(&whole)?;
        check_sent(&whole, &sent, Promise::InOrderOnce)?;
        let from_disk = site.counter("batches_from_disk_total")? - before;
        ensure!(from_disk > 20, "only {from_disk} batches came from the disk");
        let zero = site.subscriber(&topic).from(Start::Position(0)).build()?;
        let zero = read(zero, Until::CaughtUp)?;
        no_gap(&zero)?;
        check_sent(&zero, &sent, Promise::InOrderOnce)?;
        audit(order, &[&whole, &zero])?;
        if order == Order::Strong {
            from_the_middle(&site, &topic, &whole)?;
        }
        site.client.delete_topic(&topic.name)?;
    }
    site.close()
}

/// Positions and times that only the disk has, and one that memory has.
fn from_the_middle(site: &Site, topic: &Topic, whole: &Reading) -> Result<(), Failure> {
    let next = 2 * MESSAGES;
    for position in [1, 7, MESSAGES / 3, MESSAGES, next - 2] {
        let subscriber = site.subscriber(topic).from(Start::Position(position)).build()?;
        ensure!(subscriber.start() <= position, "{position} begins at {}", subscriber.start());
        let reading = read(subscriber, Until::CaughtUp)?;
        no_gap(&reading)?;
        let first = reading.messages.first().map_or(next, |read| read.position);
        // The batch that holds the position is shown whole.
        ensure!(first <= position && position < first + 8, "{position} came as {first}");
        let same = reading.messages[..] == whole.messages[first as usize..];
        ensure!(same, "from {position} on it is not the same");
        let first = reading.messages.first().and_then(|read| name_of(&read.payload));
        ensure!(first.is_some(), "the message at {position} is nobody's");
    }
    let mut middle = site.subscriber(topic).from(Start::Position(MESSAGES / 2)).build()?;
    let (position, landed_ns) = loop {
        match middle.next(patience())? {
            Event::Batch(batch) => break (batch.first_position(), batch.landed_ns()),
            Event::Idle => return Err(Failure::new("no batch in the middle")),
            _ => {}
        }
    };
    drop(middle);
    let subscriber = site.subscriber(topic).from(Start::Time(landed_ns)).build()?;
    let reading = read(subscriber, Until::CaughtUp)?;
    no_gap(&reading)?;
    let first = reading.messages.first().map(|read| read.position);
    ensure!(first == Some(position), "the time of {position} begins at {first:?}");
    Ok(())
}

/// Order `token`: positions that nobody wrote are told of in the same way wherever they are read
/// from, memory or disk.
pub fn holes_that_left_memory_are_told_of_from_disk(rig: &Rig) -> Result<(), Failure> {
    let (_data, site) = site(rig, "unwritten")?;
    let topic = topic(&site, Order::Token)?;
    let mut stays = site.publisher(&topic).client_id(1).batch_bytes(128 << 10).build()?;
    let mut holes = Vec::new();
    let broker = site.rig.brokers as u8 - 1;
    let rounds = 12;
    for round in 0..rounds {
        publish(&mut stays, 0, round * 50..(round + 1) * 50, BYTES)?;
        stays.flush()?;
        let mut leaves = site.publisher(&topic).client_id(2).broker(broker).build()?;
        let reserved = leaves.reserve_positions(5)?;
        publish(&mut leaves, 1, 2 * round..2 * round + 2, 60)?;
        leaves.close()?;
        holes.push((reserved.first + 2, u64::from(reserved.count) - 2));
    }
    publish(&mut stays, 0, rounds * 50..rounds * 50 + 1, BYTES)?;
    stays.close()?;
    gone(&site, &topic, holes[rounds as usize / 2].0 + 3)?;
    let before = site.counter("batches_from_disk_total")?;
    let sent = [(0, rounds * 50 + 1), (1, 2 * rounds)];
    for broker in 0..site.rig.brokers {
        let subscriber = site.subscriber(&topic).broker(broker as u8).build()?;
        let whole = read(subscriber, Until::CaughtUp)?;
        check_sent(&whole, &sent, Promise::InOrderOnce)?;
        ensure!(whole.unwritten == holes, "told of {:?}, not {holes:?}", whole.unwritten);
        ensure!(whole.missed == 3 * rounds, "{} positions were missed", whole.missed);
        audit(Order::Token, &[&whole])?;
    }
    let from_disk = site.counter("batches_from_disk_total")? - before;
    ensure!(from_disk > 20, "only {from_disk} batches came from the disk");
    // Start the middle of a hole on: what was asked for is told of, and no more.
    let (first, count) = holes[2];
    let middle = site.subscriber(&topic).from(Start::Position(first + 1)).build()?;
    let middle = read(middle, Until::CaughtUp)?;
    let mut rest = holes[2..].to_vec();
    rest[0] = (first + 1, count - 1);
    ensure!(middle.unwritten == rest, "from its middle: {:?}, not {rest:?}", middle.unwritten);
    site.close()
}

/// Order `token`: memory may begin with positions that nobody wrote, one behind the batch that was
/// the last to leave it. What is missing before them is on the disk.
pub fn a_hole_that_memory_begins_with_hides_nothing(rig: &Rig) -> Result<(), Failure> {
    let (_data, site) = site(rig, "begins")?;
    let topic = topic(&site, Order::Token)?;
    let mut stays = site.publisher(&topic).client_id(1).build()?;
    let rounds = 12;
    let mut holes = Vec::new();
    for round in 0..rounds {
        // One to a segment, so that each hole is behind the last batch of one.
        publish(&mut stays, 0, round..round + 1, 1_200_000)?;
        stays.flush()?;
        let mut leaves = site.publisher(&topic).client_id(2).build()?;
        let reserved = leaves.reserve_positions(3)?;
        leaves.close()?;
        holes.push((reserved.first, u64::from(reserved.count)));
    }
    publish(&mut stays, 0, rounds..rounds + 1, 1_200_000)?;
    stays.close()?;
    gone(&site, &topic, holes[rounds as usize / 2].0)?;
    for from in [Start::Earliest, Start::Position(0)] {
        let whole = read(site.subscriber(&topic).from(from).build()?, Until::CaughtUp)?;
        check_sent(&whole, &[(0, rounds + 1)], Promise::InOrderOnce)?;
        ensure!(whole.unwritten == holes, "told of {:?}, not {holes:?}", whole.unwritten);
        ensure!(whole.missed == 3 * rounds, "{} positions were missed", whole.missed);
        audit(Order::Token, &[&whole])?;
    }
    site.close()
}

/// A subscriber that stands still while memory moves on misses nothing.
pub fn a_slow_subscriber_catches_up_from_disk(rig: &Rig) -> Result<(), Failure> {
    let (_data, site) = site(rig, "slow")?;
    for order in [Order::Total, Order::Broker] {
        let topic = topic(&site, order)?;
        let before = site.counter("batches_from_disk_total")?;
        let mut publisher = site.publisher(&topic).client_id(1).broker(0).build()?;
        publish(&mut publisher, 0, 0..20, BYTES)?;
        publisher.flush()?;
        // The smallest ring there can be, over verbs: the usual one would take all of it.
        let mut slow = site.subscriber(&topic).ring_bytes(0).build()?;
        let mut reading = Reading::default();
        reading.read(&mut slow, Until::Messages(10))?;
        // More than sockets and that ring hold on their way, and memory keeps less than the rest.
        let mut sent = 20;
        for _ in 0..2 {
            publish(&mut publisher, 0, sent..sent + 800, BYTES)?;
            publisher.flush()?;
            gone(&site, &topic, sent + 550)?;
            sent += 800;
            reading.read(&mut slow, Until::Messages(sent))?;
        }
        publisher.close()?;
        no_gap(&reading)?;
        check_sent(&reading, &[(0, sent)], Promise::InOrderOnce)?;
        audit(order, &[&reading])?;
        let from_disk = site.counter("batches_from_disk_total")? - before;
        ensure!(from_disk > 0, "nothing of order {order} came from the disk");
        drop(slow);
        site.client.delete_topic(&topic.name)?;
    }
    site.close()
}

/// A broker lands for a topic for the first time while a subscriber reads from disk what another
/// one landed: what left memory of it is read from disk as well.
pub fn who_begins_meanwhile_is_read_from_disk_too(rig: &Rig) -> Result<(), Failure> {
    const EACH: u64 = 800;
    if rig.brokers < 2 {
        return Ok(());
    }
    let (_data, site) = site(rig, "begins")?;
    let topic = topic(&site, Order::Total)?;
    let through = |who: u64, broker: usize| {
        let builder = site.publisher(&topic).client_id(who + 1).broker(broker as u8);
        let mut publisher = builder.batch_bytes(128 << 10).build()?;
        publish(&mut publisher, who, 0..EACH, BYTES)?;
        publisher.close()?;
        // More than sockets and the smallest ring hold on their way.
        gone(&site, &topic, (who + 1) * EACH - 250)
    };
    through(0, 0)?;
    let mut slow = site.subscriber(&topic).ring_bytes(0).build()?;
    let mut reading = Reading::default();
    reading.read(&mut slow, Until::Messages(10))?;
    through(1, rig.brokers - 1)?;
    reading.read(&mut slow, Until::Messages(2 * EACH))?;
    no_gap(&reading)?;
    check_sent(&reading, &[(0, EACH), (1, EACH)], Promise::InOrderOnce)?;
    audit(Order::Total, &[&reading])?;
    drop(slow);
    site.close()
}

/// Where each broker's log has positions of its own, a subscriber whose connection is lost goes on
/// in all of them: what it has read from disk is not read there once more.
pub fn what_was_read_from_disk_is_not_read_again(rig: &Rig) -> Result<(), Failure> {
    let (_data, mut site) = site(rig, "again")?;
    let topic = topic(&site, Order::Broker)?;
    let sent = fill(&site, &topic)?;
    let counter = "batches_from_disk_total";
    let mut subscriber = site.subscriber(&topic).build()?;
    let mut reading = Reading::default();
    reading.read(&mut subscriber, Until::Messages(2 * MESSAGES))?;
    let once = site.counter(counter)?;
    ensure!(once > 20, "only {once} batches came from the disk");
    for broker in 0..rig.brokers {
        site.system.kill_broker(broker);
        site.system.start_broker(broker)?;
    }
    let before = site.counter(counter)?;
    let mut publisher = site.publisher(&topic).client_id(9).build()?;
    publish(&mut publisher, 9, 0..10, BYTES)?;
    publisher.close()?;
    reading.read(&mut subscriber, Until::Messages(2 * MESSAGES + 10))?;
    no_gap(&reading)?;
    let again = site.counter(counter)? - before;
    ensure!(again < once / 2, "{again} batches came from the disk again, of {once}");
    check_sent(&reading, &[sent, vec![(9, 10)]].concat(), Promise::InOrderOnce)?;
    audit(Order::Broker, &[&reading])?;
    drop(subscriber);
    site.close()
}

/// A topic that bounds what its disks keep: whole files go, never so many that less is left than
/// it says, and what nobody has any more is a counted gap.
pub fn a_bound_on_disk_is_kept(rig: &Rig) -> Result<(), Failure> {
    let (data, site) = site(rig, "bound")?;
    let bounds = [(Some(4 << 20), None), (None, Some(300))];
    for (disk_bytes, disk_ms) in bounds {
        let topic = site.topic_with(Order::Strong, |spec| {
            spec.replicas = Some(2);
            spec.retention_bytes = Some(KEPT);
            (spec.disk_bytes, spec.disk_ms) = (disk_bytes, disk_ms);
        })?;
        let shown = site.client.topic(&topic.name)?;
        let said = (shown.disk_bytes, shown.disk_ms);
        ensure!(said == (disk_bytes.unwrap_or(0), disk_ms.unwrap_or(0)), "it shows {said:?}");
        fill(&site, &topic)?;
        site.wait_until("that the disks have everything", |client| {
            let topic = client.topic(&topic.name)?;
            Ok(topic.replicas_state.iter().all(|replica| replica.durable >= topic.batches))
        })?;
        site.wait_until("that the disks give up what is beyond the bound", |_| {
            let mut most = 0;
            let seen = sources(&data.0, rig.brokers, &topic)?;
            if seen != sources(&data.0, rig.brokers, &topic)? {
                // Written to or removed from at this moment: no sum of it means anything.
                return Ok(false);
            }
            for source in seen {
                let bytes: u64 = source.iter().map(|(_, bytes)| bytes).sum();
                let least = disk_bytes.unwrap_or(1);
                ensure!(bytes >= least, "only {bytes} bytes are left: {source:?}");
                most = most.max(bytes);
            }
            // Memory keeps 2 MiB at least, in segments, and those stay on the disk too.
            Ok(most <= 14 << 20)
        })?;
        let from_zero = site.subscriber(&topic).from(Start::Position(0)).build()?;
        let reading = read(from_zero, Until::CaughtUp)?;
        let seen = reading.messages.len() as u64;
        ensure!(reading.missed > 0, "nothing was missed");
        ensure!(seen + reading.missed == 2 * MESSAGES, "{seen} seen, {} missed", reading.missed);
        let first = reading.messages.first().map(|read| read.position);
        ensure!(first.is_some_and(|first| first <= reading.missed), "it begins at {first:?}");
        let mut late = Reading::default();
        // The disks may be giving up more just when it begins, and that is a gap that counts. Once
        // they are at rest there is none; with several brokers, each of which has bounds of its
        // own, there are some in between for ever.
        site.wait_until("that a late reader misses nothing", |_| {
            let subscriber = site.subscriber(&topic).build()?;
            let begins = subscriber.start();
            late = read(subscriber, Until::CaughtUp)?;
            let seen = late.messages.len() as u64 + late.missed;
            ensure!(begins + seen == 2 * MESSAGES, "from {begins} on came {seen}");
            Ok(rig.brokers > 1 || late.missed == 0)
        })?;
        audit(Order::Strong, &[&reading, &late])?;
        site.client.delete_topic(&topic.name)?;
    }
    let text = match site.topic_with(Order::Total, |spec| spec.disk_bytes = Some(1)) {
        Ok(_) => return Err(Failure::new("a topic without a copy on disk took disk_bytes")),
        Err(failure) => failure.to_string(),
    };
    ensure!(text.contains("disk_bytes"), "{text}");
    site.close()
}

/// First indexes and bytes of the files of each source's copies.
fn sources(data: &Path, brokers: usize, topic: &Topic) -> Result<Vec<Vec<(u64, u64)>>, Failure> {
    let mut sources = Vec::new();
    for broker in 0..brokers {
        for found in list(&data.join(format!("broker-{broker}")))?.topics {
            if found.name != topic.name {
                continue;
            }
            for source in found.sources {
                // One that goes at this moment counts as whole: what is left is seen the next time.
                let bytes = |path: &PathBuf| path.metadata().map_or(1 << 20, |found| found.len());
                sources.push(source.files.iter().map(|(i, path)| (*i, bytes(path))).collect());
            }
        }
    }
    Ok(sources)
}

/// Files of a topic's replicas, oldest first.
fn files(data: &Path, brokers: usize, topic: &Topic) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for broker in 0..brokers {
        for found in list(&data.join(format!("broker-{broker}")))?.topics {
            if found.name == topic.name {
                files.extend(found.sources.into_iter().flat_map(|source| source.files));
            }
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Turns one bit of a file.
fn spoil(path: &Path, at: u64) -> Result<(), Failure> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 0x10], at)?;
    Ok(())
}

/// A bit that turned on disk: the batch is read from another copy where there is one, and is a
/// counted gap where there is none. Never is it shown; and the file is named.
pub fn a_bit_that_turned_on_disk_is_never_shown(rig: &Rig) -> Result<(), Failure> {
    let (data, site) = site(rig, "bit")?;
    let copies = if rig.brokers > 1 { 3 } else { 2 };
    let topic = site.topic_with(Order::Strong, |spec| {
        spec.replicas = Some(copies);
        spec.retention_bytes = Some(KEPT);
    })?;
    let sent = fill(&site, &topic)?;
    let files = files(&data.0, rig.brokers, &topic)?;
    let first = files.first().ok_or_else(|| Failure::new("no replica files"))?;
    // In the payload of the second batch or so, in what broker 0 reads first.
    spoil(first, 4096 + 200_000)?;
    let reading = read(site.subscriber(&topic).broker(0).build()?, Until::CaughtUp)?;
    if copies > 2 {
        no_gap(&reading)?;
        check_sent(&reading, &sent, Promise::InOrderOnce)?;
    } else {
        let seen = reading.messages.len() as u64;
        ensure!((1..=8).contains(&reading.missed), "{} were missed", reading.missed);
        ensure!(seen + reading.missed == 2 * MESSAGES, "{seen} seen, {} missed", reading.missed);
        let odd = reading.messages.iter().find(|read| name_of(&read.payload).is_none());
        ensure!(odd.is_none(), "a message is nobody's");
    }
    audit(Order::Strong, &[&reading])?;
    let name = first.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let errors = site.client.errors()?;
    let named =
        errors.iter().any(|error| error.text.contains(&name) && error.text.contains("byte"));
    ensure!(named, "no error names {name}: {errors:?}");
    site.close()
}

/// The broker that reads for a subscriber is killed: the subscriber goes on through another one,
/// or the same when it is there again, where it was.
pub fn a_broker_killed_while_it_reads_from_disk(rig: &Rig) -> Result<(), Failure> {
    let (_data, mut site) = site(rig, "killed")?;
    let topic = topic(&site, Order::Strong)?;
    let sent = fill(&site, &topic)?;
    let mut subscriber = site.subscriber(&topic).build()?;
    let mut reading = Reading::default();
    for wanted in [10, MESSAGES / 2] {
        reading.read(&mut subscriber, Until::Messages(wanted))?;
        let broker = usize::from(subscriber.broker());
        site.system.kill_broker(broker);
        reading.step(&mut subscriber, Duration::from_millis(1))?;
        site.system.start_broker(broker)?;
    }
    reading.read(&mut subscriber, Until::Messages(2 * MESSAGES))?;
    no_gap(&reading)?;
    check_sent(&reading, &sent, Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    let late = read_all(site.subscriber(&topic).build()?, 2 * MESSAGES)?;
    audit(Order::Strong, &[&reading, &late])?;
    drop(subscriber);
    site.close()
}
