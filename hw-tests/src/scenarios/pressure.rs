//! Full rings, a full pool, slow subscribers: waiting, with the reason told, and never loss.

use std::time::Duration;

use landfall::{Error, Event, Order};
use landfall_layout::frame::{Reached, Stall};

use crate::flow::{Promise, Reading, Told, Until, audit, check_sent, message, publish, read};
use crate::raw::Session;
use crate::{Failure, Rig};

/// Batches behind one that does not come wait where they are, however many those are: whoever
/// else publishes through the same ring notices nothing, and they go on when the missing one
/// comes, or in the next epoch when the lease ends.
pub fn batches_behind_a_gap_keep_no_slot_from_others(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let alone = rig.brokers == 1;
    let topic = site.topic_with(Order::Strong, |spec| {
        spec.ring_slots = Some(16);
        spec.session_lease_ms = Some(if alone { 1_000 } else { 30_000 });
    })?;
    let mut gappy = Vec::new();
    for client in 1..5 {
        let mut session = Session::open(&site, 0, &topic, client, 0)?;
        session.send(1..41)?;
        gappy.push(session);
    }
    let mut publisher = site.publisher(&topic).client_id(77).broker(0).batch_bytes(256).build()?;
    publish(&mut publisher, 77, 0..1_000, 50)?;
    publisher.close()?;

    let mut receipts = Vec::new();
    for (session, client) in gappy.iter_mut().zip(1..) {
        if alone {
            // Nobody else could bring the missing batch: the lease ends it, and all is sent again.
            let mut none = Vec::new();
            let next = session.fenced(&mut none)?;
            ensure!(next == 0 && none.is_empty(), "fenced from {next} with {none:?}");
            let mut again = Session::open(&site, 0, &topic, client, 0)?;
            again.send(0..41)?;
            receipts.extend(again.receipts(41)?);
            again.bye()?;
        } else {
            let epoch = session.welcome.session_epoch;
            let mut second = Session::open(&site, 1, &topic, client, epoch)?;
            second.send([0])?;
            receipts.extend(second.receipts(1)?);
            receipts.extend(session.receipts(40)?);
            second.bye()?;
        }
    }
    let ordered = receipts.iter().all(|receipt| receipt.reached == Reached::Ordered);
    ensure!(ordered && receipts.len() == 4 * 41, "{receipts:?}");
    if !alone {
        gappy.into_iter().try_for_each(Session::bye)?;
    }
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    let sent = [(1, 41), (2, 41), (3, 41), (4, 41), (77, 1_000)];
    check_sent(&reading, &sent, Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    site.close()
}

/// A topic that keeps everything fills the pool: publishers wait and are told the numbers; when
/// another topic is deleted they go on, and nothing is lost.
pub fn a_full_pool_waits_and_recovers(rig: &Rig) -> Result<(), Failure> {
    const BYTES: usize = 60_000;
    let site = rig.start_with(|config| config.pool_bytes = 72 << 20)?;
    let filler = site.topic_with(Order::Total, |spec| spec.keep = Some(true))?;
    let mut other = site.publisher(&filler).build()?;
    publish(&mut other, 2, 0..250, BYTES)?;
    other.close()?;

    let topic = site.topic_with(Order::Strong, |spec| spec.keep = Some(true))?;
    let mut publisher =
        site.publisher(&topic).memory_bytes(4 << 20).timeout(Duration::from_secs(2)).build()?;
    let mut sent = 0;
    let stopped = loop {
        match publisher.publish(&message(1, sent, BYTES)) {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
        ensure!(sent < 2_000, "72 MiB took {sent} messages of {BYTES} bytes");
    };
    let full = matches!(
        &stopped,
        Error::Timeout { stalled: Some(stalled), .. } if stalled.why == Stall::PoolFull
    );
    ensure!(full, "a full pool was told as: {stopped}");
    ensure!(stopped.to_string().contains("segments"), "no numbers in: {stopped}");
    ensure!(sent > 300, "only {sent} messages went into the rest of the pool");
    ensure!(site.counter("segment_wait_total")? > 0, "waits for a segment are not counted");

    // Reading goes on in a full pool.
    let reading = read(site.subscriber(&filler).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(2, 250)], Promise::Once)?;
    site.client.delete_topic(&filler.name)?;
    let total = sent + 100;
    while sent < total {
        publisher.publish(&message(1, sent, BYTES))?;
        sent += 1;
    }
    publisher.close()?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(1, total)], Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    site.close()
}

/// A subscriber that stands still, a batch in its hands, does not hold up publishers; the batch in
/// its hands stays as it was, and what it missed meanwhile is counted.
pub fn a_slow_subscriber_holds_nobody_up(rig: &Rig) -> Result<(), Failure> {
    const BYTES: usize = 50_000;
    const MESSAGES: u64 = 2_400;
    let site = rig.start_with(|config| config.pool_bytes = 64 << 20)?;
    let topic = site.topic(Order::Total)?;
    let mut publisher = site.publisher(&topic).build()?;
    publish(&mut publisher, 3, 0..10, BYTES)?;
    publisher.flush()?;
    let mut subscriber = site.subscriber(&topic).build()?;
    let mut reading = Reading::default();
    match subscriber.next(Duration::from_secs(5))? {
        Event::Batch(batch) => {
            let before = batch.payload().to_vec();
            publish(&mut publisher, 3, 10..MESSAGES, BYTES)?;
            publisher.close()?;
            ensure!(batch.payload() == before, "a batch changed in its reader's hands");
            reading.story.push(Told::Batch((&batch).into()));
            for (position, message) in (batch.first_position()..).zip(batch.messages()) {
                reading.messages.push(crate::flow::Read {
                    log: batch.log(),
                    position,
                    key: None,
                    payload: message.payload.to_vec(),
                    timestamp_ns: message.timestamp_ns,
                });
            }
        }
        other => return Err(Failure::new(format!("instead of a batch came {other:?}"))),
    }
    reading.read(&mut subscriber, Until::Messages(MESSAGES))?;
    let seen = reading.messages.len() as u64;
    ensure!(seen + reading.missed == MESSAGES, "{seen} seen and {} missed", reading.missed);
    ensure!(reading.missed > 0, "120 MB went through a pool of 64 MiB and nothing was missed");
    for read in &reading.messages {
        let name = crate::flow::name_of(&read.payload);
        ensure!(name == Some((3, read.position)), "position {} holds {name:?}", read.position);
    }
    audit(Order::Total, &[&reading])?;
    drop(subscriber);
    site.close()
}
