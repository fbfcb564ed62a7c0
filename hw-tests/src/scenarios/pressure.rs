//! Full rings, a full pool, slow subscribers: waiting, with the reason told, and never loss.

use std::time::Duration;

use landfall::{Error, Event, Order};
use landfall_layout::frame::{Frame, Reached, Stall};

use crate::flow::{Promise, Reading, Told, Until, audit, check_sent, message, publish, read};
use crate::raw::Session;
use crate::{Failure, Rig};

/// A ring that is full of batches behind a gap stops its publisher, says why, disturbs no other
/// topic, and goes on when the gap is closed or the session is fenced.
pub fn a_ring_full_behind_a_gap_waits_and_goes_on(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let alone = rig.brokers == 1;
    let topic = site.topic_with(Order::Strong, |spec| {
        spec.ring_slots = Some(16);
        spec.session_lease_ms = Some(if alone { 1_000 } else { 30_000 });
    })?;
    let mut stuck = Session::open(&site, 0, &topic, 1, 0)?;
    stuck.send(1..41)?;
    match stuck.raw.expect()? {
        (Frame::Stalled { why: Stall::RingFull, used: 16, of: 16 }, _) => {}
        other => return Err(Failure::new(format!("a full ring of 16 was told as {other:?}"))),
    }
    let elsewhere = site.topic(Order::Strong)?;
    let mut publisher = site.publisher(&elsewhere).broker(0).build()?;
    publish(&mut publisher, 77, 0..100, 50)?;
    publisher.close()?;

    let mut receipts = Vec::new();
    if alone {
        // Nobody else could bring the missing batch: the lease ends it, and all is sent again.
        let next = stuck.fenced(&mut receipts)?;
        ensure!(next == 0 && receipts.is_empty(), "fenced from {next} with {receipts:?}");
        let mut again = Session::open(&site, 0, &topic, 1, 0)?;
        again.send(0..41)?;
        receipts = again.receipts(41)?;
        again.bye()?;
    } else {
        let epoch = stuck.welcome.session_epoch;
        let mut second = Session::open(&site, 1, &topic, 1, epoch)?;
        second.send([0])?;
        receipts.extend(second.receipts(1)?);
        receipts.extend(stuck.receipts(40)?);
        second.bye()?;
        stuck.bye()?;
    }
    let ordered = receipts.iter().all(|receipt| receipt.reached == Reached::Ordered);
    ensure!(ordered && receipts.len() == 41, "{receipts:?}");
    ensure!(site.counter("ring_full_total")? > 0, "a full ring is not counted");
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(1, 41)], Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    let reading = read(site.subscriber(&elsewhere).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(77, 100)], Promise::InOrderOnce)?;
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
