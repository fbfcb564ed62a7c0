//! Who takes part in a throughput run: publisher threads, and the subscriber that verifies.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use landfall::{Batch, Event, Publisher, Subscriber};
use landfall_layout::batch::message_stride;
use landfall_layout::limits::LOGS_PER_TOPIC;

use super::window::Window;
use crate::error::{Failure, Outcome, Tried};

/// Longest silence while a subscriber still misses messages.
const SILENCE: Duration = Duration::from_secs(10);
/// Messages a publisher sends before it looks around.
const BURST_MESSAGES: u64 = 4096;

/// What all threads of a run share. Relaxed everywhere: the numbers are read for figures and the
/// words looked at again and again; no other memory is published with them.
pub struct Shared {
    /// Time to stop publishing.
    pub stop: AtomicBool,
    /// Somebody failed: everybody ends.
    pub failed: AtomicBool,
    /// Messages that reached their level.
    pub acked: AtomicU64,
    /// Messages that the subscriber has read and verified.
    pub read: AtomicU64,
    /// Messages published in all; `u64::MAX` until all publishers are done.
    pub total: AtomicU64,
    /// How far publishers may be ahead.
    pub window: Window,
}

impl Shared {
    /// Nothing has happened yet.
    pub fn new(window: Window) -> Self {
        Self {
            stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            read: AtomicU64::new(0),
            total: AtomicU64::new(u64::MAX),
            window,
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed)
    }

    /// Notes a failure, so that the others end.
    pub fn watch<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        if outcome.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

/// Publishes until it is told to stop; returns how many messages. From 8 bytes on, each begins
/// with its number.
pub fn publish(
    mut publisher: Publisher,
    message_bytes: usize,
    reserves: bool,
    shared: &Shared,
) -> Outcome<u64> {
    let cannot = || "cannot publish".to_owned();
    let stride = message_stride(0, message_bytes).unwrap_or(usize::MAX) as u64;
    // A burst stays well below the window, whatever the size of the messages.
    let burst = (1_u64 << 20).div_euclid(stride).clamp(1, BURST_MESSAGES);
    let mut payload = vec![0x5a; message_bytes];
    let mut number = 0_u64;
    let mut acked = 0;
    while !shared.is_over() {
        for _ in 0..burst {
            if reserves {
                // What is behind the number is what the room held before.
                let mut room = publisher.reserve(message_bytes).tried(cannot)?;
                if let Some(head) = room.first_chunk_mut() {
                    *head = number.to_le_bytes();
                }
                publisher.seal_reserved(room).tried(cannot)?;
            } else {
                if let Some(head) = payload.first_chunk_mut() {
                    *head = number.to_le_bytes();
                }
                publisher.publish(&payload).tried(cannot)?;
            }
            number += 1;
        }
        shared.window.published(burst * stride);
        while shared.window.is_full() && !shared.is_over() {
            publisher.poll().tried(cannot)?;
            std::thread::yield_now();
        }
        let now = publisher.acked().messages;
        shared.acked.fetch_add(now - acked, Ordering::Relaxed);
        acked = now;
    }
    publisher.flush().tried(cannot)?;
    shared.acked.fetch_add(publisher.acked().messages - acked, Ordering::Relaxed);
    publisher.close().tried(cannot)?;
    Ok(number)
}

/// What the subscriber has verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Batches whose checksum, position and sequence were right.
    pub batches: u64,
    /// Messages in them, each with the number that had to come.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// Where a log and its publishers are.
pub struct Verifier {
    positions: [u64; LOGS_PER_TOPIC],
    clients: HashMap<u64, (u64, u64)>,
    verified: Verified,
}

impl Default for Verifier {
    fn default() -> Self {
        Self {
            positions: [0; LOGS_PER_TOPIC],
            clients: HashMap::new(),
            verified: Verified::default(),
        }
    }
}

impl Verifier {
    /// Checks a batch of a topic that is read from its beginning.
    pub fn batch(&mut self, batch: &Batch<'_>) -> Outcome {
        self.place(batch)?;
        let (next_seq, number) = self.clients.entry(batch.client()).or_default();
        if batch.batch_seq() != *next_seq {
            return Err(wrong(format!(
                "client {} went from batch sequence {next_seq} to {}",
                batch.client(),
                batch.batch_seq()
            )));
        }
        *next_seq += 1;
        let mut messages = batch.messages();
        let mut count = 0;
        for message in messages.by_ref() {
            if let Some(head) = message.payload.first_chunk::<8>() {
                let found = u64::from_le_bytes(*head);
                if found != *number {
                    return Err(wrong(format!(
                        "message {number} of client {} says it is {found}",
                        batch.client()
                    )));
                }
            }
            *number += 1;
            count += 1;
            self.verified.bytes += message.payload.len() as u64;
        }
        if !messages.is_whole() {
            return Err(wrong(format!(
                "a batch promised {} messages and has {count}",
                batch.count()
            )));
        }
        self.verified.batches += 1;
        self.verified.messages += count;
        Ok(())
    }

    fn place(&mut self, batch: &Batch<'_>) -> Outcome {
        let log = batch.log();
        let Some(next) = self.positions.get_mut(usize::from(log)) else {
            return Err(wrong(format!("log {log} cannot be")));
        };
        if batch.first_position() != *next {
            let found = batch.first_position();
            return Err(wrong(format!("position {next} of log {log} was expected, {found} came")));
        }
        *next = batch.end_position();
        Ok(())
    }

    /// What was right so far.
    pub fn verified(&self) -> Verified {
        self.verified
    }
}

fn wrong(why: String) -> Failure {
    Failure::failed("what was read is not what was published", why)
}

/// Reads and verifies until everything published has come.
pub fn subscribe(mut subscriber: Subscriber, shared: &Shared) -> Outcome<Verified> {
    let mut verifier = Verifier::default();
    let mut last = Instant::now();
    loop {
        let verified = verifier.verified();
        if verified.messages >= shared.total.load(Ordering::Relaxed)
            || shared.failed.load(Ordering::Relaxed)
        {
            return Ok(verified);
        }
        match subscriber.next(Duration::from_millis(20)).tried(|| "cannot read".into())? {
            Event::Batch(batch) => {
                verifier.batch(&batch)?;
                shared.window.read(0, u64::from(batch.bytes()));
                shared.read.store(verifier.verified().messages, Ordering::Relaxed);
                last = Instant::now();
            }
            Event::Gap { missed, .. } => {
                return Err(wrong(format!(
                    "retention took {missed} messages before they were read"
                )));
            }
            Event::TopicGone => return Err(wrong(subscriber.topic_gone().to_string())),
            Event::CaughtUp => {}
            Event::Idle if last.elapsed() < SILENCE => {}
            Event::Idle => {
                let total = shared.total.load(Ordering::Relaxed);
                let of = if total == u64::MAX { String::new() } else { format!(" of {total}") };
                return Err(wrong(format!(
                    "nothing came for {SILENCE:?} after {}{of} messages",
                    verified.messages
                )));
            }
            _ => {}
        }
    }
}
