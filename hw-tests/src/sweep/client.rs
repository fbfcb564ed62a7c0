//! The clients of a run, as programs of their own: they note what they do before and after it, so
//! that a life that is cut short leaves what has to hold of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use landfall::api::TopicSpec;
use landfall::{
    Ack, BatchReceipt, Client, Error, Event as Heard, GapReason, Order, Publisher, Start,
    Subscriber, Transport,
};
use landfall_layout::frame::Reached;
use landfall_layout::limits::SEQUENCED_LOG;

use super::stage::patience;
use super::token;
use crate::Failure;
use crate::flow::{message, name_of};
use crate::history::file::{Recorder, reached, read};
use crate::history::{BatchRead, Event, Level, Name};

/// What a publisher is to do, over all its lives.
#[derive(Clone, Debug)]
pub struct Publishing {
    /// Control's address.
    pub control: String,
    /// The topic.
    pub topic: String,
    /// Its client id.
    pub client: u64,
    /// How it reaches its broker.
    pub transport: Transport,
    /// Its broker.
    pub broker: u8,
    /// It deals its batches out over all brokers instead.
    pub spread: bool,
    /// Batches under way before it waits for all receipts.
    pub under_way: u64,
    /// It wants receipts for what is durable.
    pub durable: bool,
    /// Batches in all.
    pub batches: u64,
    /// Messages in each.
    pub messages: u64,
    /// Bytes of each message.
    pub bytes: usize,
    /// It reserves positions, fills the first of them and is gone without a word.
    pub leaves: bool,
    /// Where it notes what it does.
    pub notes: PathBuf,
}

/// Publishes what is still to be published: in orders that tell, from the first batch that is not
/// ordered; in others, from the first message without a receipt.
pub fn publish(what: &Publishing) -> Result<(), Failure> {
    let mut recorder = Recorder::append(&what.notes)?;
    let (_, acked) = reached(&read(&what.notes)?, what.client);
    let with_receipt = acked.map_or(0, |n| n + 1);
    let client = Client::new(&what.control)?;
    // Header and padding of a message are less than 32 bytes, a batch's preamble less than 256.
    let batch_bytes = (what.messages as usize * (what.bytes + 32) + 256).max(4096) as u32;
    let mut publisher = patiently(|| {
        let builder = client.publisher(&what.topic).client_id(what.client).batch_bytes(batch_bytes);
        let ack = if what.durable { Ack::Durable } else { Ack::Ordered };
        let builder = builder.transport(what.transport).ack(ack);
        let builder = if what.spread { builder.spread(true) } else { builder.broker(what.broker) };
        builder.linger(Duration::from_secs(60)).timeout(patience()).build()
    })?;
    if publisher.order() == Order::Token {
        return token::publish(what, publisher, recorder, with_receipt);
    }
    let exact = matches!(publisher.order(), Order::Strong | Order::Stream);
    let first = if exact { publisher.next_seq() } else { with_receipt.div_ceil(what.messages) };
    ensure!(
        first * what.messages >= with_receipt,
        "client {} had receipts for {with_receipt} messages, and now batch {first} of {} messages \
         each is expected next",
        what.client,
        what.messages
    );
    // In other orders the sequence of this life's first batch says nothing.
    let offset = first.wrapping_sub(publisher.next_seq());
    let mut under_way = Vec::new();
    for batch in first..what.batches {
        let numbers = batch * what.messages..(batch + 1) * what.messages;
        let name = |n| Name { client: what.client, n };
        let sent: Vec<Event> = numbers.clone().map(|n| Event::Sent { name: name(n) }).collect();
        recorder.note_all(&sent)?;
        for n in numbers {
            publisher.publish(&message(what.client, n, what.bytes))?;
        }
        publisher.seal()?;
        if batch % what.under_way == what.under_way - 1 {
            publisher.flush()?;
        } else {
            publisher.poll()?;
        }
        note_receipts(&mut publisher, what, offset, &mut under_way, &mut recorder)?;
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
) -> Result<(), Failure> {
    receipts.clear();
    publisher.take_receipts(receipts);
    let sequenced = publisher.order().is_sequenced();
    let log = if sequenced { SEQUENCED_LOG as u8 } else { what.broker };
    let mut events = Vec::new();
    for receipt in receipts {
        let level = level_of(receipt.reached);
        ensure!(
            u64::from(receipt.count) == what.messages,
            "a receipt for {} messages of a batch of {}",
            receipt.count,
            what.messages
        );
        let first = receipt.batch_seq.wrapping_add(offset) * what.messages;
        for i in 0..what.messages {
            let name = Name { client: what.client, n: first + i };
            let position = receipt.first_position.map(|first| first + i);
            events.push(Event::Acked { name, level, log: position.map(|_| log), position });
        }
    }
    Ok(recorder.note_all(&events)?)
}

/// What a receipt promises.
pub(crate) fn level_of(reached: Reached) -> Level {
    match reached {
        Reached::Landed | Reached::Lost => Level::Landed,
        // What is replicated is perhaps not on stable storage yet.
        Reached::Ordered | Reached::Duplicate | Reached::Replicated => Level::Ordered,
        Reached::Durable => Level::Durable,
    }
}

/// What a reader is to do.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The topic.
    pub topic: String,
    /// The reader's number, another one in each life.
    pub reader: u32,
    /// How it reaches its broker.
    pub transport: Transport,
    /// Its broker.
    pub broker: u8,
    /// Where it notes what it sees.
    pub notes: PathBuf,
    /// It reads on until this file is there; without one it reads what there is.
    pub until: Option<PathBuf>,
}

/// Reads a topic from its earliest message and notes what it sees.
pub fn subscribe(client: &Client, what: &Reading) -> Result<(), Failure> {
    let mut recorder = Recorder::append(&what.notes)?;
    let mut subscriber = patiently(|| {
        let builder = client.subscriber(&what.topic).from(Start::Earliest);
        builder.transport(what.transport).broker(what.broker).timeout(patience()).build()
    })?;
    let reader = what.reader;
    let sequenced = subscriber.order().is_sequenced();
    let start = sequenced.then(|| subscriber.start());
    recorder.note(&Event::Opened { reader, start })?;
    let mut moved = Instant::now();
    loop {
        match step(&mut subscriber, reader)? {
            Step::Saw(event) => {
                recorder.note(&event)?;
                moved = Instant::now();
            }
            Step::CaughtUp if what.until.is_none() => {
                return Ok(recorder.note(&Event::Finished { reader })?);
            }
            Step::CaughtUp => {}
            Step::Gone => return Ok(()),
            Step::Nothing if what.until.as_deref().is_some_and(Path::exists) => return Ok(()),
            Step::Nothing => ensure!(
                what.until.is_some() || moved.elapsed() < patience(),
                "reader {reader} was not told within {:?} that it has caught up",
                patience()
            ),
        }
    }
}

enum Step {
    Saw(Event),
    CaughtUp,
    Gone,
    Nothing,
}

fn step(subscriber: &mut Subscriber, reader: u32) -> Result<Step, Failure> {
    Ok(match subscriber.next(Duration::from_millis(5))? {
        Heard::Batch(batch) => {
            let client = batch.client();
            let mine = |payload| name_of(payload).filter(|(who, _)| *who == client).map(|(_, n)| n);
            let mut messages = batch.messages();
            let numbers = messages.by_ref().map(|message| mine(message.payload)).collect();
            ensure!(messages.is_whole(), "batch {} of log {} is torn", batch.index(), batch.log());
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
                stranger: None,
            }))
        }
        Heard::Gap { log, missed, resume, reason } => {
            let unwritten = reason == GapReason::Unwritten;
            Step::Saw(Event::Gap { reader, log, missed, resume, unwritten })
        }
        Heard::CaughtUp => Step::CaughtUp,
        Heard::TopicGone => Step::Gone,
        Heard::Idle => Step::Nothing,
        other => return Err(Failure::new(format!("a subscriber was told {other:?}"))),
    })
}

/// Tries again while control or a broker is away, which a connected client would sit out by itself.
pub fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Failure> {
    let deadline = Instant::now() + patience();
    loop {
        let error = match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let may_change = matches!(
            error,
            Error::Unreachable { .. }
                | Error::NoBroker { .. }
                | Error::Connection { .. }
                | Error::Control { status: 503, .. }
        );
        if !may_change || Instant::now() >= deadline {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Creates a topic, over deaths of control at any store of that.
pub fn create(client: &Client, spec: &TopicSpec) -> Result<(), Failure> {
    let deadline = Instant::now() + patience();
    loop {
        match patiently(|| client.create_topic(spec)) {
            Ok(_) => return Ok(()),
            // Control died when it was made and could not say so.
            Err(_) if patiently(|| client.topics())?.iter().any(|it| it.name == spec.name) => {
                return Ok(());
            }
            Err(failure) if Instant::now() >= deadline => return Err(failure),
            // A topic half made is deleted by the next control.
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}
