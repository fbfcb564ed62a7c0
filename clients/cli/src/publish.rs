//! `landfall publish`: a message a line.

mod lines;

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use landfall::{Client, Lane, Outgoing, Publisher, Transport, api};
use landfall_layout::limits::MESSAGE_BYTES_MAX;
use landfall_layout::topic::Durability;

use self::lines::{Chunk, Reader};
use crate::args::Publish;
use crate::config::Settings;
use crate::error::{Failure, Kind, Outcome, Tried};
use crate::out::{Progress, grouped, human_bytes, note};
use crate::signals::Stop;
use crate::topic::named;
use crate::words::Ack;

/// Longest pause between two polls of the publisher: receipts and broker messages are taken then.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// How far it got.
#[derive(Default)]
struct Account {
    read: u64,
    bytes: u64,
}

pub fn run(args: &Publish, settings: &Settings, client: &Client) -> Outcome {
    named(&args.topic)?;
    let separator = args.key_separator.as_deref().map(separator).transpose()?;
    if args.client_id == Some(0) {
        return Err(Failure::usage("--client-id 0 is not possible", "0 stands for no client"));
    }
    let cannot = || format!("cannot publish to topic {}", args.topic);
    // The file is opened first: a wrong name should not open a session.
    let reader = Reader::open(args.file.as_deref())?;
    let level = settings.publish.ack;
    if matches!(level, Ack::Replicated | Ack::Durable) {
        // Before anything is sent.
        check_level(level, &client.topic(&args.topic).tried(cannot)?)?;
    }
    let mut publisher = connect(args, settings, client)
        .tried(cannot)
        .map_err(|failure| failure.about(&args.topic))?;
    let transport = publisher.transport();
    let stop = Stop::on_signals()?;
    let started = Instant::now();
    let mut account = Account::default();
    let mut progress = Progress::new();
    let sent = send_all(
        Sending { publisher: &mut publisher, account: &mut account, progress: &mut progress },
        reader,
        separator.as_deref(),
        (settings.publish.linger.0, &stop),
    );
    progress.clear();
    let flushed = match sent {
        Ok(()) => publisher.flush().tried(cannot),
        // What was read before is published, and counted.
        Err(failure) if failure.kind == Kind::Here => {
            let _ = publisher.flush();
            Err(failure)
        }
        failed => failed,
    };
    let reached = publisher.acked().messages;
    let result = flushed.and_then(|()| publisher.close().tried(cannot));
    if let Err(failure) = result {
        if level != Ack::None {
            note(format_args!(
                "{} of {} messages reached the level {level}",
                grouped(reached),
                grouped(account.read)
            ));
        }
        return Err(failure.about(&args.topic));
    }
    if level != Ack::None && reached != account.read {
        return Err(Failure::failed(
            cannot(),
            format!("{reached} of {} messages reached the level {level}", account.read),
        )
        .about(&args.topic));
    }
    summary(&account, level, transport, started.elapsed());
    Ok(())
}

/// Refuses a level that the topic's receipts never say.
fn check_level(level: Ack, topic: &api::Topic) -> Outcome {
    let why = match level {
        Ack::Replicated if topic.replicas < 2 => {
            "it has no copy on a disk; publish with --ack ordered, or make the topic with \
             --replicas 2 or more"
                .to_owned()
        }
        Ack::Durable if topic.durability != Durability::Sync.name() => format!(
            "it has durability {}, whose receipts say replicated and never durable; publish with \
             --ack replicated, or make the topic with --durability sync",
            topic.durability
        ),
        _ => return Ok(()),
    };
    Err(Failure::usage(format!("cannot publish to topic {} with --ack {level}", topic.name), why))
}

fn connect(
    args: &Publish,
    settings: &Settings,
    client: &Client,
) -> Result<Publisher, landfall::Error> {
    let publish = &settings.publish;
    let mut builder = client
        .publisher(&args.topic)
        .transport(publish.transport.into())
        .grant(publish.grant.into())
        .ack(publish.ack.into())
        .batch_bytes(publish.batch_bytes.as_u32())
        .linger(publish.linger.0)
        .memory_bytes(publish.memory_bytes.0)
        .timeout(publish.timeout.0)
        .spread(args.spread);
    if let Some(client_id) = args.client_id {
        builder = builder.client_id(client_id);
    }
    if let Some(broker) = args.broker {
        builder = builder.broker(broker);
    }
    builder.build()
}

struct Sending<'a> {
    publisher: &'a mut Publisher,
    account: &'a mut Account,
    progress: &'a mut Progress,
}

/// Publishes every line there is. Between lines the publisher is polled, so that what lingered
/// goes out although nothing more comes.
fn send_all(
    mut sending: Sending<'_>,
    reader: Reader,
    separator: Option<&[u8]>,
    (linger, stop): (Duration, &Stop),
) -> Outcome {
    let wait = linger.clamp(Duration::from_micros(500), POLL_EVERY);
    let name = reader.name.clone();
    let chunks = reader.start()?;
    loop {
        match chunks.recv_timeout(wait) {
            Ok(Chunk::Lines(bytes)) => sending.lines(&bytes, separator, stop)?,
            Ok(Chunk::TooLong) => return Err(too_long(&name, sending.account.read + 1)),
            Ok(Chunk::Failed(failure)) => return Err(failure),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        sending.publisher.poll().tried(|| "cannot go on publishing".into())?;
        sending.show();
        if stop.asked() {
            return Err(interrupted());
        }
    }
}

impl Sending<'_> {
    fn lines(&mut self, bytes: &[u8], separator: Option<&[u8]>, stop: &Stop) -> Outcome {
        for line in lines::split(bytes) {
            let (key, payload) = keyed(line, separator);
            let message = Outgoing { key, payload, timestamp_ns: None, lane: Lane::Normal };
            let number = self.account.read + 1;
            self.account.read = number;
            self.publisher
                .publish_message(message)
                .tried(|| format!("cannot publish line {number} ({} bytes)", line.len()))?;
            self.account.bytes += line.len() as u64;
            if number.is_multiple_of(4096) {
                self.show();
                if stop.asked() {
                    return Err(interrupted());
                }
            }
        }
        Ok(())
    }

    fn show(&mut self) {
        let Self { account, publisher, progress } = self;
        progress.show(|| {
            format!(
                "{} messages read, {} reached their level, {}",
                grouped(account.read),
                grouped(publisher.acked().messages),
                human_bytes(account.bytes as f64)
            )
        });
    }
}

fn too_long(name: &str, line: u64) -> Failure {
    Failure::here(
        format!("cannot publish line {line} of {name}"),
        format!("it has more than {MESSAGE_BYTES_MAX} bytes, the most a message can have"),
    )
}

fn interrupted() -> Failure {
    Failure::here("publishing was interrupted", "a signal asked for it")
}

fn summary(account: &Account, level: Ack, transport: Transport, took: Duration) {
    let seconds = took.as_secs_f64().max(1e-9);
    let count = grouped(account.read);
    let what = match level {
        Ack::None => format!("{count} messages sent over {transport}, without receipts"),
        _ => format!("{count} messages reached the level {level} over {transport}"),
    };
    note(format_args!(
        "{what}: {} in {seconds:.3} s, {}/s",
        human_bytes(account.bytes as f64),
        human_bytes(account.bytes as f64 / seconds)
    ));
}

/// The separator's bytes: `\t`, `\0` and `\\` stand for what a shell cannot easily type.
fn separator(text: &str) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('t') => bytes.push(b'\t'),
                Some('0') => bytes.push(0),
                Some('\\') => bytes.push(b'\\'),
                other => {
                    let shown = other.map(String::from).unwrap_or_default();
                    let what = format!("--key-separator has \\{shown}");
                    return Err(Failure::usage(what, "only \\t, \\0 and \\\\ mean something"));
                }
            },
            (c, false) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if bytes.is_empty() {
        return Err(Failure::usage("--key-separator is empty", "it needs at least one character"));
    }
    Ok(bytes)
}

/// A line's key and payload.
fn keyed<'l>(line: &'l [u8], separator: Option<&[u8]>) -> (Option<&'l [u8]>, &'l [u8]) {
    let Some(separator) = separator else { return (None, line) };
    match line.windows(separator.len()).position(|window| window == separator) {
        Some(at) => (Some(&line[..at]), &line[at + separator.len()..]),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_stands_before_the_first_separator() {
        let tab = separator("\\t").unwrap();
        assert_eq!(tab, b"\t");
        assert_eq!(keyed(b"k\tv\tw", Some(&tab)), (Some(&b"k"[..]), &b"v\tw"[..]));
        assert_eq!(keyed(b"\tv", Some(&tab)), (Some(&b""[..]), &b"v"[..]));
        assert_eq!(keyed(b"only", Some(&tab)), (None, &b"only"[..]));
        assert_eq!(keyed(b"a::b", Some(b"::")), (Some(&b"a"[..]), &b"b"[..]));
        assert_eq!(keyed(b"a\tb", None), (None, &b"a\tb"[..]));
    }

    #[test]
    fn a_separator_that_means_nothing_is_refused() {
        assert_eq!(separator("\\\\=\\0").unwrap(), b"\\=\0");
        assert!(separator("").unwrap_err().to_string().contains("empty"));
        assert!(separator("\\n").unwrap_err().to_string().contains("\\n"));
        assert!(separator("a\\").is_err());
    }
}
