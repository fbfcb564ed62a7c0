//! Publishing and reading with known contents.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use landfall::audit::{Auditor, Report, Seen};
use landfall::{Event, GapReason, Order, Publisher, Subscriber};

use crate::Failure;
use crate::rig::patience;

/// Numbers that look random and are the same on every run: xorshift64*.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next one.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// That many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.word().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Message `n` of a publisher: its name, then bytes that follow from it. At least 16 bytes.
pub fn message(publisher: u64, n: u64, bytes: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(bytes.max(16));
    message.extend_from_slice(&publisher.to_le_bytes());
    message.extend_from_slice(&n.to_le_bytes());
    let mut random = Random::new(publisher << 32 ^ n);
    message.extend_from_slice(&random.bytes(bytes.saturating_sub(16)));
    message
}

/// Whose message that is and which, if its bytes are what [`message`] made.
pub fn name_of(payload: &[u8]) -> Option<(u64, u64)> {
    let publisher = u64::from_le_bytes(payload.get(..8)?.try_into().ok()?);
    let n = u64::from_le_bytes(payload.get(8..16)?.try_into().ok()?);
    (message(publisher, n, payload.len()) == payload).then_some((publisher, n))
}

/// Publishes messages `from..to` of a publisher, of that many bytes each.
pub fn publish(
    publisher: &mut Publisher,
    who: u64,
    range: std::ops::Range<u64>,
    bytes: usize,
) -> Result<(), Failure> {
    for n in range {
        publisher.publish(&message(who, n, bytes))?;
    }
    Ok(())
}

/// A message as a subscriber saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Log it stands in.
    pub log: u8,
    /// Its position there.
    pub position: u64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Its timestamp.
    pub timestamp_ns: u64,
}

/// What a subscriber saw.
#[derive(Debug, Default)]
pub struct Reading {
    /// Messages, in order.
    pub messages: Vec<Read>,
    /// Batches, in order, and gaps before them.
    pub story: Vec<Told>,
    /// Positions it was told that nothing comes of.
    pub missed: u64,
    /// Of these, what is said to have gone with a pool.
    pub lost: u64,
    /// Of these, positions that a log passed over when its pool was lost.
    pub skipped: u64,
    /// Positions that nothing was written to, as it was told: the first and how many, each run
    /// once.
    pub unwritten: Vec<(u64, u64)>,
    /// Whether it was told that it has caught up.
    pub caught_up: bool,
}

/// What a subscriber is told, for the auditor.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// A batch.
    Batch(Seen),
    /// Positions of a log that nothing came of, why, how many, and where it goes on.
    Gap(u8, GapReason, u64, u64),
}

/// When a reader has seen enough.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// So many messages were seen or missed.
    Messages(u64),
    /// Everything that was there at the start.
    CaughtUp,
    /// Nothing came for so long.
    Quiet(Duration),
}

impl Reading {
    /// Takes the next event, waiting no longer than `wait`; false when there was none.
    pub fn step(&mut self, subscriber: &mut Subscriber, wait: Duration) -> Result<bool, Failure> {
        match subscriber.next(wait)? {
            Event::Batch(batch) => {
                self.story.push(Told::Batch(Seen::from(&batch)));
                let mut messages = batch.messages();
                for (position, message) in (batch.first_position()..).zip(messages.by_ref()) {
                    self.messages.push(Read {
                        log: batch.log(),
                        position,
                        key: message.key.map(<[u8]>::to_vec),
                        payload: message.payload.to_vec(),
                        timestamp_ns: message.timestamp_ns,
                    });
                }
                ensure!(messages.is_whole(), "batch {} is not whole", batch.index());
            }
            Event::Gap { log, reason, missed, resume } => {
                self.missed += missed;
                self.lost += if reason == GapReason::Lost { missed } else { 0 };
                self.skipped += if reason == GapReason::Skipped { missed } else { 0 };
                if reason == GapReason::Unwritten {
                    match self.unwritten.last_mut() {
                        Some((first, count)) if *first + *count == resume - missed => {
                            *count += missed;
                        }
                        _ => self.unwritten.push((resume - missed, missed)),
                    }
                }
                self.story.push(Told::Gap(log, reason, missed, resume));
            }
            Event::CaughtUp => {
                ensure!(!self.caught_up, "a subscriber was told twice that it caught up");
                self.caught_up = true;
            }
            Event::Idle => return Ok(false),
            other => return Err(Failure::new(format!("a subscriber was told {other:?}"))),
        }
        Ok(true)
    }

    /// Reads on until enough was seen. Silence for longer than the rig's patience is a failure.
    pub fn read(&mut self, subscriber: &mut Subscriber, until: Until) -> Result<(), Failure> {
        let mut moved = Instant::now();
        loop {
            let done = match until {
                Until::Messages(wanted) => self.messages.len() as u64 + self.missed >= wanted,
                Until::CaughtUp => self.caught_up,
                Until::Quiet(quiet) => moved.elapsed() >= quiet,
            };
            if done {
                return Ok(());
            }
            if self.step(subscriber, Duration::from_millis(50))? {
                moved = Instant::now();
            }
            ensure!(
                moved.elapsed() < patience(),
                "nothing came for {:?}: {} messages read, {} missed, waiting for {until:?}",
                patience(),
                self.messages.len(),
                self.missed
            );
        }
    }
}

/// Everything from the start of a subscription until enough was seen.
pub fn read(mut subscriber: Subscriber, until: Until) -> Result<Reading, Failure> {
    let mut reading = Reading::default();
    reading.read(&mut subscriber, until)?;
    Ok(reading)
}

/// The auditor's report on what several subscribers of one topic saw; a violation is a failure.
pub fn audit(order: Order, readings: &[&Reading]) -> Result<Report, Failure> {
    let mut auditor = Auditor::new(order);
    for (subscriber, reading) in readings.iter().enumerate() {
        for told in &reading.story {
            match *told {
                Told::Batch(seen) => auditor.batch(subscriber, seen),
                Told::Gap(log, reason, missed, resume) => {
                    auditor.told(subscriber, log, reason, missed, resume);
                }
            }
        }
    }
    let report = auditor.finish();
    ensure!(report.ok, "the auditor found: {report}");
    Ok(report)
}

/// What a topic promises of each publisher's messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// Each once, in the order they were published.
    InOrderOnce,
    /// Each once, in any order.
    Once,
    /// Each at least once: a broker died, and the order has no exactly-once.
    AtLeastOnce,
}

/// Messages of a publisher around its `at`th one: number, log and position of each.
fn around(reading: &Reading, publisher: u64, at: usize) -> String {
    let of = |read: &Read| name_of(&read.payload).filter(|(who, _)| *who == publisher);
    let all = reading.messages.iter().filter_map(|read| Some((of(read)?.1, read)));
    let near = all.skip(at.saturating_sub(2)).take(6);
    let words = near.map(|(n, read)| format!("{n} at {} of log {}", read.position, read.log));
    words.collect::<Vec<_>>().join(", ")
}

/// Checks a reading against what publishers sent: publisher and number of messages each.
pub fn check_sent(reading: &Reading, sent: &[(u64, u64)], promise: Promise) -> Result<(), Failure> {
    let mut seen: HashMap<u64, Vec<u64>> = HashMap::new();
    for read in &reading.messages {
        let Some((publisher, n)) = name_of(&read.payload) else {
            return Err(Failure::new(format!(
                "the message at position {} of log {} is nobody's: {} bytes, {:02x?}..",
                read.position,
                read.log,
                read.payload.len(),
                &read.payload[..read.payload.len().min(32)]
            )));
        };
        seen.entry(publisher).or_default().push(n);
    }
    for &(publisher, count) in sent {
        let mut numbers = seen.remove(&publisher).unwrap_or_default();
        if promise == Promise::InOrderOnce
            && let Some(at) = numbers.windows(2).position(|pair| pair[0] >= pair[1])
        {
            let pair = &numbers[at..at + 2];
            let places = around(reading, publisher, at);
            return Err(Failure::new(format!(
                "publisher {publisher}: {} before {}: {places}",
                pair[0], pair[1]
            )));
        }
        numbers.sort_unstable();
        let total = numbers.len();
        numbers.dedup();
        ensure!(
            promise == Promise::AtLeastOnce || numbers.len() == total,
            "publisher {publisher}: {} messages came more than once",
            total - numbers.len()
        );
        let missing: Vec<u64> =
            (0..count).filter(|n| numbers.binary_search(n).is_err()).take(10).collect();
        ensure!(
            missing.is_empty(),
            "publisher {publisher}: {} of {count} messages came, missing {missing:?}..; {} were \
             told to be missed",
            numbers.len(),
            reading.missed
        );
        ensure!(
            numbers.len() as u64 == count,
            "publisher {publisher}: {} messages came and {count} were sent",
            numbers.len()
        );
    }
    ensure!(seen.is_empty(), "messages of publishers that sent none: {:?}", seen.keys());
    Ok(())
}
