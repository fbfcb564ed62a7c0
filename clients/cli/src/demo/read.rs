//! A subscriber of the demo: rebuilds every file's hash as its chunks come, and notes the order.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use landfall::audit::Seen;
use landfall::{Batch, Event, Subscriber, Transport};
use sha2::{Digest, Sha256};

use super::Shared;
use super::send::{Key, Print, Then};
use crate::error::{Failure, Outcome, Tried};
use landfall_pool::clock::wall_ns;

/// Longest silence while messages are still missing.
const SILENCE: Duration = Duration::from_secs(20);
/// Sentences about what is wrong that are kept; more are only counted.
const WRONG_MOST: usize = 20;

/// What a subscriber rebuilt.
pub struct Rebuilt {
    /// Transport in use.
    pub transport: Transport,
    /// Files by number.
    pub files: HashMap<usize, Print>,
    /// SHA-256 over the batches in the order they came.
    pub order: [u8; 32],
    /// Messages that came.
    pub messages: u64,
    /// Messages that retention took.
    pub missed: u64,
    /// What is wrong with single messages.
    pub wrong: Vec<String>,
    /// How many such there are.
    pub wrong_total: u64,
    /// Latencies.
    pub times: Times,
}

/// Latencies that the batches themselves tell.
pub struct Times {
    /// From a batch's first message to its seal.
    pub sealed: Histogram<u64>,
    /// From sealed to landed.
    pub landed: Histogram<u64>,
    /// From landed to here.
    pub delivered: Histogram<u64>,
}

struct Open {
    hash: Sha256,
    bytes: u64,
    next: u64,
}

struct Reader {
    open: HashMap<usize, Open>,
    order: Sha256,
    rebuilt: Rebuilt,
}

/// Reads until everything published has come.
pub fn all(number: usize, mut subscriber: Subscriber, shared: &Shared<'_>) -> Outcome<Rebuilt> {
    let transport = subscriber.transport();
    let cannot = || format!("the {transport} subscriber cannot read");
    let mut reader = Reader::new(transport)?;
    let mut last = Instant::now();
    loop {
        let total = shared.total.load(Ordering::Relaxed);
        let seen = reader.rebuilt.messages + reader.rebuilt.missed;
        if seen >= total || shared.is_over() {
            return Ok(reader.finish());
        }
        match subscriber.next(Duration::from_millis(20)).tried(cannot)? {
            Event::Batch(batch) => {
                last = Instant::now();
                let mut auditor = shared.auditor.lock().unwrap_or_else(PoisonError::into_inner);
                auditor.batch(number, Seen::from(&batch));
                drop(auditor);
                let bytes = reader.batch(&batch);
                shared.window.read(number, u64::from(batch.bytes()));
                shared.seen[number].fetch_add(bytes, Ordering::Relaxed);
            }
            Event::Gap { log, reason, missed, resume } => {
                let mut auditor = shared.auditor.lock().unwrap_or_else(PoisonError::into_inner);
                auditor.told(number, log, reason, missed, resume);
                reader.rebuilt.missed += missed;
            }
            Event::TopicGone => return Err(Failure::failed(cannot(), subscriber.topic_gone())),
            Event::CaughtUp => {}
            Event::Idle if last.elapsed() < SILENCE => {}
            Event::Idle => {
                let of = if total == u64::MAX { String::new() } else { format!(" of {total}") };
                let why = format!("nothing came for {SILENCE:?} after {seen}{of} messages");
                return Err(Failure::failed(cannot(), why));
            }
            _ => {}
        }
    }
}

impl Reader {
    fn new(transport: Transport) -> Outcome<Self> {
        let new = || {
            Histogram::new_with_bounds(1, 600_000_000_000, 3)
                .map_err(|error| Failure::failed("cannot keep latencies", format!("{error:?}")))
        };
        let times = Times { sealed: new()?, landed: new()?, delivered: new()? };
        Ok(Self {
            open: HashMap::new(),
            order: Sha256::new(),
            rebuilt: Rebuilt {
                transport,
                files: HashMap::new(),
                order: [0; 32],
                messages: 0,
                missed: 0,
                wrong: Vec::new(),
                wrong_total: 0,
                times,
            },
        })
    }

    /// Takes a batch in; returns the bytes of files in it.
    fn batch(&mut self, batch: &Batch<'_>) -> u64 {
        let words =
            [batch.first_position(), u64::from(batch.count()), batch.client(), batch.batch_seq()];
        for word in words {
            self.order.update(word.to_le_bytes());
        }
        let times = &mut self.rebuilt.times;
        let since = |later: u64, earlier: u64| later.saturating_sub(earlier).max(1);
        times.landed.saturating_record(since(batch.landed_ns(), batch.sealed_ns()));
        times.delivered.saturating_record(since(wall_ns(), batch.landed_ns()));
        let mut bytes = 0;
        let mut messages = batch.messages();
        for (index, message) in messages.by_ref().enumerate() {
            if index == 0 {
                let sealed = since(batch.sealed_ns(), message.timestamp_ns);
                self.rebuilt.times.sealed.saturating_record(sealed);
            }
            self.rebuilt.messages += 1;
            bytes += message.payload.len() as u64;
            match message.key.and_then(Key::parse) {
                Some(key) => self.chunk(key, message.payload),
                None => self.wrong(format!("a message has the key {:?}", message.key)),
            }
        }
        if !messages.is_whole() {
            let position = batch.first_position();
            self.wrong(format!("the batch at position {position} ends before its last message"));
        }
        bytes
    }

    fn chunk(&mut self, key: Key, payload: &[u8]) {
        let Key { file, chunk, then } = key;
        let open = self.open.entry(file).or_insert_with(|| Open {
            hash: Sha256::new(),
            bytes: 0,
            next: 0,
        });
        let expected = open.next;
        open.next = chunk + 1;
        open.hash.update(payload);
        open.bytes += payload.len() as u64;
        if chunk != expected {
            self.wrong(format!("chunk {chunk} of file {file} came where {expected} was due"));
        }
        if then == Then::More {
            return;
        }
        let Some(open) = self.open.remove(&file) else { return };
        if then == Then::Abandoned {
            return;
        }
        let print = Print { sha256: open.hash.finalize().into(), bytes: open.bytes };
        if self.rebuilt.files.insert(file, print).is_some() {
            self.wrong(format!("file {file} came twice"));
        }
    }

    fn wrong(&mut self, sentence: String) {
        self.rebuilt.wrong_total += 1;
        if self.rebuilt.wrong.len() < WRONG_MOST {
            self.rebuilt.wrong.push(sentence);
        }
    }

    fn finish(mut self) -> Rebuilt {
        for (file, open) in std::mem::take(&mut self.open) {
            self.wrong(format!("file {file} has no end after {} chunks", open.next));
        }
        self.rebuilt.order = self.order.finalize().into();
        self.rebuilt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> Reader {
        Reader::new(Transport::Memory).unwrap()
    }

    fn key(file: usize, chunk: u64, then: Then) -> Key {
        Key { file, chunk, then }
    }

    #[test]
    fn chunks_of_many_files_give_each_files_hash() {
        let mut reader = reader();
        reader.chunk(key(1, 0, Then::More), b"ab");
        reader.chunk(key(2, 0, Then::End), b"");
        reader.chunk(key(1, 1, Then::End), b"c");
        reader.chunk(key(3, 0, Then::More), b"x");
        reader.chunk(key(3, 1, Then::Abandoned), b"");
        let rebuilt = reader.finish();
        assert_eq!(rebuilt.wrong_total, 0, "{:?}", rebuilt.wrong);
        let abc = Print { sha256: Sha256::digest(b"abc").into(), bytes: 3 };
        let empty = Print { sha256: Sha256::digest(b"").into(), bytes: 0 };
        assert_eq!(rebuilt.files, HashMap::from([(1, abc), (2, empty)]));
    }

    #[test]
    fn swapped_repeated_and_missing_chunks_are_wrong() {
        let mut reader = reader();
        reader.chunk(key(1, 1, Then::More), b"b");
        reader.chunk(key(1, 0, Then::More), b"a");
        reader.chunk(key(2, 0, Then::End), b"a");
        reader.chunk(key(2, 0, Then::End), b"a");
        let rebuilt = reader.finish();
        let text = rebuilt.wrong.join("\n");
        assert!(text.contains("chunk 1 of file 1 came where 0 was due"), "{text}");
        assert!(text.contains("chunk 0 of file 1 came where 2 was due"), "{text}");
        assert!(text.contains("file 2 came twice"), "{text}");
        assert!(text.contains("file 1 has no end"), "{text}");
    }
}
