//! Clients that break the rules, beside honest ones.

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use landfall::Client;
use landfall_layout::TopicId;
use landfall_layout::frame::Frame;
use landfall_layout::limits::{BROKERS_MAX, SEQUENCED_LOG};
use landfall_layout::order::OrderEntry;
use landfall_pool::log::{Found, LogReader};
use landfall_pool::{Memory, Pool};

use super::fault::Attack;
use super::payload::message;
use crate::Failure;
use crate::flow::Random;
use crate::history::file::Recorder;
use crate::history::{Event, Name};
use crate::raw::{Batch, Heard, Raw, Session, publisher};
use crate::sweep::client::patiently;

/// What a hostile client is to do.
#[derive(Clone, Debug)]
pub struct Attacking {
    /// Control's address.
    pub control: String,
    /// The topic; its messages carry number 0.
    pub topic: String,
    /// What it does.
    pub attack: Attack,
    /// The pool, which a client through memory can write to.
    pub pool: PathBuf,
    /// Where it notes what it sends.
    pub notes: PathBuf,
    /// For how long.
    pub lasts: Duration,
}

/// Its client ids begin here.
const CLIENTS: u64 = 900;
/// Between two batches that it sends and breaks.
const PACE: Duration = Duration::from_millis(5);

/// Does it until its time is up. What brokers do about it is theirs: an error ends one attempt.
pub fn attack(what: &Attacking) -> Result<(), Failure> {
    let until = Instant::now() + what.lasts;
    let client = Client::new(&what.control)?;
    let mut kept = Vec::new();
    let mut number = u64::from(std::process::id()) << 8;
    while Instant::now() < until {
        number += 1;
        // Brokers come and go; the next attempt finds another.
        let _ = attempt(what, &client, number, until, &mut kept);
        std::thread::sleep(PACE);
    }
    Ok(())
}

/// Connections that are kept until the end.
enum Kept {
    Raw(#[allow(dead_code, reason = "it is kept open")] Raw),
    Tcp(#[allow(dead_code, reason = "it is kept open")] TcpStream),
}

/// Connections that one client keeps at most: what it takes from others is not this proof's.
const KEPT_MAX: usize = 40;

fn attempt(
    what: &Attacking,
    client: &Client,
    number: u64,
    until: Instant,
    kept: &mut Vec<Kept>,
) -> Result<(), Failure> {
    let mut random = Random::new(number);
    if what.attack == Attack::Http {
        if kept.len() < KEPT_MAX {
            kept.push(Kept::Raw(Raw::connect(what.control.trim_start_matches("unix:"))?));
        }
        return Ok(());
    }
    let brokers = patiently(|| client.cluster())?.brokers;
    let serving: Vec<_> = brokers.iter().filter(|broker| broker.is_serving()).collect();
    ensure!(!serving.is_empty(), "no broker serves");
    let broker = serving[random.below(serving.len() as u64) as usize];
    let who = CLIENTS + number;
    match what.attack {
        Attack::Garbage => {
            let mut raw = Raw::connect(&broker.unix)?;
            let bytes = 1 + random.below(300) as usize;
            raw.send(&random.bytes(bytes))?;
            let mut session = open(&broker.unix, what, who)?;
            session.raw.send(&random.bytes(bytes))?;
            session.raw.hear(Duration::from_millis(50))?;
        }
        Attack::Half => {
            let mut session = open(&broker.unix, what, who)?;
            let mut recorder = recorder(what, who)?;
            let batch = batch(&session, &mut recorder, 0)?.bytes();
            session.raw.send(&batch[..1 + random.below(batch.len() as u64 - 1) as usize])?;
            std::thread::sleep(Duration::from_millis(random.below(200)));
        }
        Attack::Sequence => {
            let mut session = open(&broker.unix, what, who)?;
            let mut recorder = recorder(what, who)?;
            for _ in 0..4 {
                let batch = batch(&session, &mut recorder, random.below(6))?;
                session.raw.send(&batch.bytes())?;
            }
            session.raw.hear(Duration::from_millis(100))?;
        }
        Attack::Hold if kept.len() < KEPT_MAX => {
            kept.push(Kept::Tcp(TcpStream::connect(&broker.tcp)?));
            kept.push(Kept::Raw(Raw::connect(&broker.unix)?));
        }
        Attack::Hold | Attack::Http => {}
        Attack::Hello => {
            let mut raw = TcpStream::connect(&broker.tcp)?;
            for _ in 0..20 {
                let hello = Frame::Hello(publisher(CLIENTS, 0)).encode(what.topic.len());
                raw.write_all(&hello)?;
                raw.write_all(what.topic.as_bytes())?;
            }
        }
        Attack::Rewrite | Attack::Spoil => {
            let mut session = open(&broker.unix, what, who)?;
            let pool = Pool::attach(&what.pool)?;
            let mut recorder = recorder(what, who)?;
            for seq in 0..40 {
                let batch = batch(&session, &mut recorder, seq)?;
                session.raw.send(&batch.bytes())?;
                loop {
                    match session.raw.hear(Duration::from_secs(1))? {
                        Heard::Frame(Frame::Receipt(_), _) => break,
                        Heard::Frame(Frame::Stalled { .. }, _) => {}
                        _ => return Ok(()),
                    }
                }
                let wrong = match what.attack {
                    Attack::Rewrite => {
                        let name = Name { client: who, n: seq + 1_000_000 };
                        Batch::new(batch.preamble, &[&message(0, name, BYTES)]).bytes()
                    }
                    _ => {
                        let mut bytes = batch.bytes();
                        let at = random.below(bytes.len() as u64) as usize;
                        bytes[at] ^= 1 << random.below(8);
                        bytes
                    }
                };
                rewrite(&pool, &session, seq, &wrong);
                if Instant::now() >= until {
                    break;
                }
                std::thread::sleep(PACE);
            }
        }
    }
    Ok(())
}

const BYTES: usize = 200;

fn open(address: &str, what: &Attacking, client: u64) -> Result<Session, Failure> {
    let mut raw = Raw::connect(address)?;
    raw.send_frame(Frame::Hello(publisher(client, 0)), what.topic.as_bytes())?;
    match raw.hear(Duration::from_secs(2))? {
        Heard::Frame(Frame::Welcome(welcome), _) => Ok(Session { raw, welcome, client }),
        other => Err(Failure::new(format!("not welcomed: {other:?}"))),
    }
}

fn recorder(what: &Attacking, client: u64) -> Result<Recorder, Failure> {
    let mut recorder = Recorder::append(&what.notes)?;
    recorder.note(&Event::Hostile { client })?;
    Ok(recorder)
}

/// A batch of one message, which is noted as sent.
fn batch(session: &Session, recorder: &mut Recorder, seq: u64) -> Result<Batch, Failure> {
    let name = Name { client: session.client, n: seq };
    recorder.note(&Event::Sent { name })?;
    Ok(session.batch(seq, &message(0, name, BYTES)))
}

/// Writes over a batch of one's own where it lies in the pool.
fn rewrite(pool: &Pool, session: &Session, seq: u64, bytes: &[u8]) {
    let topic = TopicId(session.welcome.topic.0);
    let mine = |entry: &OrderEntry| (entry.client, entry.batch_seq) == (session.client, seq);
    for log in (0..BROKERS_MAX).chain([SEQUENCED_LOG]) {
        let mut reader = LogReader::new(topic, log);
        let end = pool.frontier(topic, log).entries;
        let begin = pool.oldest(topic, log).max(end.saturating_sub(64));
        let entries = (begin..end).filter_map(|index| match reader.entry(pool, index) {
            Found::Entry(entry) => Some(entry),
            Found::Lapped { .. } | Found::Gone => None,
        });
        for entry in entries.filter(|entry| !entry.is_hole()).filter(mine) {
            let at = pool.at(entry.segment, entry.offset, entry.bytes);
            let Some(at) = at.filter(|_| bytes.len() as u64 <= u64::from(entry.bytes)) else {
                continue;
            };
            for (word, bytes) in bytes.chunks_exact(8).enumerate() {
                let bytes = bytes.try_into().unwrap_or_default();
                pool.store(at + word as u64 * 8, u64::from_le_bytes(bytes));
            }
            pool.publish(at, bytes.len() as u64);
        }
    }
}
