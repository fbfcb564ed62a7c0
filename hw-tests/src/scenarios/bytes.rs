//! What was published is what is read.

use std::collections::BTreeMap;

use landfall::{Lane, Order, Outgoing, PublishError, Publisher, Start, Ticket};
use landfall_layout::limits::MESSAGE_BYTES_MAX;

use crate::flow::{Random, Read, Reading, Until, audit, message, read};
use crate::rig::patience;
use crate::{Failure, Rig};

/// A message that was published and what names it.
struct Sent {
    ticket: Ticket,
    key: Option<Vec<u8>>,
    payload: Vec<u8>,
    timestamp_ns: u64,
}

fn send(
    publisher: &mut Publisher,
    key: Option<Vec<u8>>,
    payload: Vec<u8>,
    timestamp_ns: u64,
) -> Result<Sent, Failure> {
    let outgoing = Outgoing {
        key: key.as_deref(),
        payload: &payload,
        timestamp_ns: Some(timestamp_ns),
        lane: Lane::Normal,
    };
    let ticket = publisher.publish_message(outgoing)?;
    Ok(Sent { ticket, key, payload, timestamp_ns })
}

/// Waits for every receipt and puts what was sent where its receipt says.
fn placed(
    publisher: &mut Publisher,
    log: u8,
    sent: Vec<Sent>,
    into: &mut BTreeMap<(u8, u64), Read>,
) -> Result<(), Failure> {
    publisher.flush()?;
    for Sent { ticket, key, payload, timestamp_ns } in sent {
        let receipt = publisher.wait(ticket)?;
        let position = receipt
            .position
            .ok_or_else(|| Failure::new(format!("a receipt without a position: {receipt:?}")))?;
        let read = Read { log, position, key, payload, timestamp_ns };
        let before = into.insert((log, position), read);
        ensure!(before.is_none(), "two messages have position {position} of log {log}");
    }
    Ok(())
}

/// Compares, without printing megabytes.
fn same(reading: &Reading, expected: &BTreeMap<(u8, u64), Read>) -> Result<(), Failure> {
    ensure!(
        reading.messages.len() == expected.len(),
        "{} messages came and {} were published",
        reading.messages.len(),
        expected.len()
    );
    for read in &reading.messages {
        let wanted = expected.get(&(read.log, read.position));
        ensure!(
            wanted == Some(read),
            "position {} of log {}: {} bytes came, and there were published {:?}",
            read.position,
            read.log,
            read.payload.len(),
            wanted.map(|read| read.payload.len())
        );
    }
    Ok(())
}

/// Payloads, keys and timestamps of every kind come back byte by byte, at the position that each
/// receipt named.
pub fn random_payloads_keys_and_timestamps_come_back(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    for order in [Order::Strong, Order::Broker] {
        let topic = site.topic(order)?;
        let mut expected = BTreeMap::new();
        for who in 0..3_u64 {
            let broker = who as u8 % rig.brokers as u8;
            let log = if order.is_sequenced() { 32 } else { broker };
            let mut random = Random::new(who + 1);
            let mut publisher =
                site.publisher(&topic).broker(broker).batch_bytes(48 << 10).build()?;
            ensure!(publisher.transport() == rig.transport, "not the transport that was asked for");
            ensure!(publisher.order() == order, "the topic's order is {}", publisher.order());
            let mut sent = Vec::new();
            for n in 0..300 {
                let key_bytes = random.below(40) as usize;
                let key = match random.below(3) {
                    0 => None,
                    1 => Some(Vec::new()),
                    _ => Some(random.bytes(key_bytes)),
                };
                let most = if n % 10 == 0 { 30_000 } else { 600 };
                let payload_bytes = random.below(most) as usize;
                let payload = random.bytes(payload_bytes);
                sent.push(send(&mut publisher, key, payload, random.word())?);
            }
            placed(&mut publisher, log, sent, &mut expected)?;
            publisher.close()?;
        }
        let first = read(site.subscriber(&topic).build()?, Until::Messages(900))?;
        let last = site.subscriber(&topic).broker(rig.brokers as u8 - 1);
        let last = read(last.build()?, Until::CaughtUp)?;
        for reading in [&first, &last] {
            same(reading, &expected)?;
        }
        audit(order, &[&first, &last])?;
    }
    site.close()
}

/// Sizes from 0 bytes to the bound, and one byte past it.
pub fn every_message_size_comes_back_and_one_past_the_bound_is_refused(
    rig: &Rig,
) -> Result<(), Failure> {
    let site = rig.start_with(|config| config.segment_bytes = 8 << 20)?;
    let topic = site.topic(Order::Strong)?;
    let bound = MESSAGE_BYTES_MAX as usize;
    let mut publisher = site.publisher(&topic).batch_bytes(4 << 20).build()?;
    let sizes = [0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 4095, 4096, 4097, 65_535, 1 << 20];
    let mut random = Random::new(5);
    let mut sent = Vec::new();
    for bytes in sizes.into_iter().chain([bound - 1, bound, 0, bound, 3]) {
        let payload = random.bytes(bytes);
        sent.push(send(&mut publisher, None, payload, 7)?);
    }
    let largest_key = random.bytes(usize::from(u16::MAX));
    sent.push(send(&mut publisher, Some(largest_key.clone()), Vec::new(), 8)?);

    let past = vec![0; bound + 1];
    let sentence = match publisher.publish(&past) {
        Ok(_) => return Err(Failure::new("a message past the bound was taken")),
        Err(error) => error.to_string(),
    };
    ensure!(sentence.contains("4194304"), "the bound is not in {sentence:?}");
    let refused = publisher.try_publish(Some(&largest_key), &past[..bound]);
    let too_large = matches!(refused, Err(PublishError::TooLarge { .. }));
    ensure!(too_large, "a key and a payload past the bound: {refused:?}");
    let long_key = vec![0; usize::from(u16::MAX) + 1];
    ensure!(publisher.try_publish(Some(&long_key), b"").is_err(), "a key past the bound was taken");

    // A refused message costs nothing: the publisher goes on.
    sent.push(send(&mut publisher, None, b"after".to_vec(), 9)?);
    let mut expected = BTreeMap::new();
    placed(&mut publisher, 32, sent, &mut expected)?;
    publisher.close()?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    same(&reading, &expected)?;
    audit(Order::Strong, &[&reading])?;
    site.close()
}

/// Receipts name the position; a batch of a more urgent lane goes first.
pub fn lanes_and_receipts_name_the_place(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    let linger = std::time::Duration::from_secs(5);
    let mut publisher = site.publisher(&topic).linger(linger).build()?;
    let mut tickets = Vec::new();
    for (n, lane) in [Lane::Low, Lane::Normal, Lane::High].into_iter().enumerate() {
        let payload = message(1, n as u64, 50);
        let outgoing = Outgoing { key: None, payload: &payload, timestamp_ns: None, lane };
        tickets.push(publisher.publish_message(outgoing)?);
    }
    publisher.flush()?;
    let mut positions = Vec::new();
    for ticket in tickets {
        positions.push(publisher.wait(ticket)?.position);
    }
    ensure!(positions == [Some(2), Some(1), Some(0)], "low, normal, high are at {positions:?}");
    let mut receipts = Vec::new();
    publisher.take_receipts(&mut receipts);
    ensure!(receipts.len() == 3, "{} receipts for 3 batches", receipts.len());
    ensure!(publisher.acked().messages == 3, "acked {:?}", publisher.acked());
    publisher.close()?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    let seen: Vec<_> = reading.messages.iter().map(|read| &read.payload[8]).collect();
    ensure!(seen == [&2, &1, &0], "high, normal, low came as {seen:?}");
    site.close()
}

/// Subscribers start where they ask: at a position in the middle of a batch, at a time, at the end.
pub fn any_position_and_time_can_be_started_from(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Total)?;
    // Only a flush closes a batch, however slow the machine.
    let mut publisher = site.publisher(&topic).linger(patience()).build()?;
    for batch in 0..20 {
        for n in 0..10 {
            publisher.publish(&message(1, batch * 10 + n, 40))?;
        }
        publisher.flush()?;
    }
    let all = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    ensure!(all.messages.len() == 200, "{} messages", all.messages.len());
    for position in [0, 1, 9, 10, 55, 199] {
        let subscriber = site.subscriber(&topic).from(Start::Position(position)).build()?;
        let start = subscriber.start();
        ensure!(start <= position, "starts at {start} when asked for {position}");
        let reading = read(subscriber, Until::CaughtUp)?;
        let first = reading.messages.first().map(|read| read.position);
        ensure!(first == Some(start), "first is {first:?} and the start was said to be {start}");
        // The batch that holds the position, not an earlier one.
        ensure!(position - start < 10, "starts at {start} when asked for {position}");
        ensure!(reading.messages[..] == all.messages[start as usize..], "from {position}");
    }
    let at = publisher.stats().batches;
    ensure!(at == 20, "{at} batches");
    let mut receipts = Vec::new();
    publisher.take_receipts(&mut receipts);
    let landed = receipts[7].landed_ns;
    let reading =
        read(site.subscriber(&topic).from(Start::Time(landed)).build()?, Until::CaughtUp)?;
    let first = reading.messages.first().map(|read| read.position);
    ensure!(first == Some(70), "from the time of batch 7: {first:?}");
    let mut latest = site.subscriber(&topic).from(Start::Latest).build()?;
    let mut reading = Reading::default();
    reading.read(&mut latest, Until::CaughtUp)?;
    ensure!(reading.messages.is_empty(), "the latest had {} before it", reading.messages.len());
    publisher.publish(&message(1, 200, 40))?;
    publisher.close()?;
    reading.read(&mut latest, Until::Messages(1))?;
    ensure!(reading.messages[0].position == 200, "at {}", reading.messages[0].position);
    drop(latest);
    site.close()
}
