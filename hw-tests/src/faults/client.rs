//! The honest clients of a run: they go on until a file tells them to end, and begin again where
//! the client library gave up.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use landfall::{
    Ack, BatchReceipt, Client, Error, Event as Heard, GapReason, Order, Publisher, Start as Begin,
    Subscriber, Transport,
};
use landfall_layout::limits::SEQUENCED_LOG;

use super::payload::{message, says};
use crate::Failure;
use crate::device::slow;
use crate::history::file::{Recorder, reached, read};
use crate::history::{BatchRead, Event, Name};
use crate::sweep::client::level_of;

/// How a client's life ended before it should.
#[derive(Debug)]
pub enum Ended {
    /// The library gave up: faults may do that. The next life goes on.
    GaveUp(String),
    /// A promise was broken.
    Broken(Failure),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::GaveUp(error.to_string())
    }
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::GaveUp(error.to_string())
    }
}

/// A client's own patience: longer than any fault but shorter than the run's.
fn patience() -> Duration {
    slow(Duration::from_secs(20))
}

/// Whose topic, and which way to it.
#[derive(Clone, Debug)]
pub struct Common {
    /// Control's address.
    pub control: String,
    /// The topic's name.
    pub topic: String,
    /// The number that its messages carry.
    pub topic_number: u32,
    /// How to reach the broker.
    pub transport: Transport,
    /// The broker; any, where there is none.
    pub broker: Option<u8>,
    /// Where to note what is done and seen.
    pub notes: PathBuf,
    /// It ends once this file is there.
    pub until: PathBuf,
}

/// What a publisher is to do, over all its lives.
#[derive(Clone, Debug)]
pub struct Publishing {
    /// Where.
    pub common: Common,
    /// Its client id.
    pub client: u64,
    /// It deals its batches out over all brokers.
    pub spread: bool,
    /// It wants receipts for what is durable.
    pub durable: bool,
    /// Messages of a batch.
    pub messages: u64,
    /// Bytes of a message.
    pub bytes: usize,
    /// Between two batches.
    pub pace: Duration,
}

/// Batches that a publisher has under way before it waits for all receipts.
const UNDER_WAY: u64 = 4;

/// Publishes batch after batch.
pub fn publish(what: &Publishing) -> Result<(), Ended> {
    let common = &what.common;
    let mut recorder = Recorder::append(&common.notes)?;
    let (sent, acked) = reached(&read(&common.notes)?, what.client);
    let with_receipt = acked.map_or(0, |n| n + 1);
    let client = Client::new(&common.control)?;
    let batch_bytes = (what.messages as usize * (what.bytes + 32) + 256).max(4096) as u32;
    let builder = client.publisher(&common.topic).client_id(what.client).batch_bytes(batch_bytes);
    let builder = builder.ack(if what.durable { Ack::Durable } else { Ack::Ordered });
    let builder = match common.broker {
        _ if what.spread => builder.spread(true),
        Some(broker) => builder.broker(broker),
        None => builder,
    };
    let builder = builder.transport(common.transport).linger(Duration::from_secs(3600));
    let mut publisher = builder.timeout(patience()).build()?;
    let exact = matches!(publisher.order(), Order::Strong | Order::Stream);
    let first = if exact { publisher.next_seq() } else { with_receipt.div_ceil(what.messages) };
    if first * what.messages < with_receipt {
        return Err(Ended::Broken(Failure::new(format!(
            "client {} had receipts for {with_receipt} messages, and now batch {first} of {} \
             messages each is expected next",
            what.client, what.messages
        ))));
    }
    let most = sent.map_or(0, |n| n + 1);
    if first * what.messages > most {
        return Err(Ended::Broken(Failure::new(format!(
            "client {} has sent {most} messages, and now batch {first} of {} messages each is \
             expected next",
            what.client, what.messages
        ))));
    }
    let offset = first.wrapping_sub(publisher.next_seq());
    let mut under_way = Vec::new();
    let mut batch = first;
    while !common.until.exists() {
        let numbers = batch * what.messages..(batch + 1) * what.messages;
        let name = |n| Name { client: what.client, n };
        let sent: Vec<Event> = numbers.clone().map(|n| Event::Sent { name: name(n) }).collect();
        recorder.note_all(&sent)?;
        for n in numbers {
            publisher.publish(&message(common.topic_number, name(n), what.bytes))?;
        }
        publisher.seal()?;
        if batch % UNDER_WAY == UNDER_WAY - 1 {
            publisher.flush()?;
        } else {
            publisher.poll()?;
        }
        note_receipts(&mut publisher, what, offset, &mut under_way, &mut recorder)?;
        batch += 1;
        std::thread::sleep(what.pace);
    }
    publisher.flush()?;
    note_receipts(&mut publisher, what, offset, &mut under_way, &mut recorder)?;
    Ok(publisher.close()?)
}

fn note_receipts(
    publisher: &mut Publisher,
    what: &Publishing,
    offset: u64,
    receipts: &mut Vec<BatchReceipt>,
    recorder: &mut Recorder,
) -> Result<(), Ended> {
    receipts.clear();
    publisher.take_receipts(receipts);
    let sequenced = publisher.order().is_sequenced();
    let mut events = Vec::new();
    for receipt in receipts {
        let level = level_of(receipt.reached);
        if u64::from(receipt.count) != what.messages {
            let (count, messages) = (receipt.count, what.messages);
            return Err(Ended::Broken(Failure::new(format!(
                "a receipt for {count} messages of a batch of {messages}"
            ))));
        }
        let first = receipt.batch_seq.wrapping_add(offset) * what.messages;
        // Which log it is in only a publisher with one broker knows.
        let log = if sequenced { Some(SEQUENCED_LOG as u8) } else { what.common.broker };
        for i in 0..what.messages {
            let name = Name { client: what.client, n: first + i };
            let position = log.and(receipt.first_position).map(|first| first + i);
            events.push(Event::Acked { name, level, log: position.and(log), position });
        }
    }
    Ok(recorder.note_all(&events)?)
}

/// Reads a topic from its earliest message and notes what it sees, until the file is there; then,
/// if it is to see everything, until it has caught up.
pub fn subscribe(common: &Common, reader: u32, to_the_end: bool) -> Result<(), Ended> {
    let mut recorder = Recorder::append(&common.notes)?;
    let client = Client::new(&common.control)?;
    let builder = client.subscriber(&common.topic).from(Begin::Earliest);
    let builder = match common.broker {
        Some(broker) => builder.broker(broker),
        None => builder,
    };
    let mut subscriber = builder.transport(common.transport).timeout(patience()).build()?;
    let sequenced = subscriber.order().is_sequenced();
    recorder.note(&Event::Opened { reader, start: sequenced.then(|| subscriber.start()) })?;
    let mut moved = Instant::now();
    loop {
        match step(&mut subscriber, reader, common.topic_number)? {
            Step::Saw(event) => {
                recorder.note(&event)?;
                moved = Instant::now();
            }
            Step::CaughtUp if to_the_end => {
                return Ok(recorder.note(&Event::Finished { reader })?);
            }
            Step::Gone => return Ok(()),
            Step::CaughtUp | Step::Nothing => {}
        }
        if !to_the_end && common.until.exists() {
            return Ok(());
        }
        if to_the_end && moved.elapsed() > patience() {
            return Err(Ended::GaveUp(format!(
                "reader {reader} was not told within {:?} that it has caught up",
                patience()
            )));
        }
    }
}

enum Step {
    Saw(Event),
    CaughtUp,
    Gone,
    Nothing,
}

fn step(subscriber: &mut Subscriber, reader: u32, topic: u32) -> Result<Step, Ended> {
    let heard = match subscriber.next(Duration::from_millis(20)) {
        Err(Error::Corrupt { log, position, .. }) => {
            return Ok(Step::Saw(Event::Corrupt { reader, log, position }));
        }
        other => other?,
    };
    Ok(match heard {
        Heard::Batch(batch) => {
            let client = batch.client();
            let mut stranger = None;
            let mut messages = batch.messages();
            let mut numbers = Vec::new();
            for message in messages.by_ref() {
                let said = says(message.payload);
                let mine = said.filter(|said| said.topic == topic && said.name.client == client);
                numbers.push(mine.map(|said| said.name.n));
                stranger = stranger.or(said.filter(|_| mine.is_none()));
            }
            if !messages.is_whole() {
                let (index, log) = (batch.index(), batch.log());
                return Err(Ended::Broken(Failure::new(format!(
                    "reader {reader}: batch {index} of log {log} is torn"
                ))));
            }
            Step::Saw(Event::Read(BatchRead {
                reader,
                log: batch.log(),
                index: batch.index(),
                position: batch.first_position(),
                broker: batch.broker(),
                client,
                epoch: batch.session_epoch(),
                seq: batch.batch_seq(),
                crc: landfall::audit::Seen::from(&batch).payload_crc,
                numbers,
                stranger,
            }))
        }
        Heard::Gap { log, missed, resume, reason: GapReason::Skipped } => {
            Step::Saw(Event::Skipped { reader, log, count: missed, resume })
        }
        Heard::Gap { log, missed, resume, reason } => {
            let unwritten = reason == GapReason::Unwritten;
            Step::Saw(Event::Gap { reader, log, missed, resume, unwritten })
        }
        Heard::CaughtUp => Step::CaughtUp,
        Heard::TopicGone => Step::Gone,
        Heard::Idle => Step::Nothing,
        other => {
            return Err(Ended::Broken(Failure::new(format!("a subscriber was told {other:?}"))));
        }
    })
}
