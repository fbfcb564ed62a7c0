//! `landfall subscribe`: messages in their order.

mod line;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use landfall::audit::{Auditor, Seen};
use landfall::{Batch, Client, Event, GapReason, Message, Start, Subscriber};

use self::line::{Line, SCHEMA_VERSION};
use crate::args::Subscribe;
use crate::config::Settings;
use crate::error::{Failure, Outcome, Tried};
use crate::out::{Out, grouped, note};
use crate::signals::Stop;
use crate::topic::named;
use crate::words::{Lines, Read, Transport};

/// Longest wait inside one call: signals are looked at between them.
const WAIT: Duration = Duration::from_millis(100);

/// Longest time that a message is held back in front of a pipe, while more come.
const HELD: Duration = Duration::from_millis(10);

pub fn run(args: &Subscribe, settings: &Settings, client: &Client) -> Outcome {
    named(&args.topic)?;
    let cannot = || format!("cannot subscribe to topic {}", args.topic);
    let from = settings.subscribe.from.0;
    let mut builder =
        client.subscriber(&args.topic).transport(settings.subscribe.transport.into()).from(from);
    builder = builder.one_sided(settings.subscribe.read == Read::OneSided);
    if let Some(broker) = args.broker {
        builder = builder.broker(broker);
    }
    let stop = Stop::on_signals()?;
    let mut subscriber =
        builder.build().tried(cannot).map_err(|failure| failure.about(&args.topic))?;
    if settings.subscribe.transport == Transport::Auto {
        note(format_args!("reading over {}", subscriber.transport()));
    }
    let mut printer = Printer {
        out: Out::new(),
        lines: settings.subscribe.output,
        held: if std::io::stdout().is_terminal() { Duration::ZERO } else { HELD },
        since: None,
        skip_below: match from {
            Start::Position(position) => position,
            _ => 0,
        },
        left: args.count,
        messages: 0,
        missed: 0,
    };
    let mut auditor = args.audit.then(|| Auditor::new(subscriber.order()));
    let read = read(&mut subscriber, args, &mut printer, auditor.as_mut(), &stop);
    // What was read is delivered whatever came after it.
    let flushed = printer.out.flush();
    let audited = auditor.map_or(Ok(()), |auditor| report(&auditor));
    let ended = read.map_err(|failure| failure.about(&args.topic))?;
    flushed?;
    audited?;
    match (ended, printer.left) {
        (Ended::Signal, Some(left)) => Err(Failure::here(
            stopped(&args.topic, printer.messages),
            format!("a signal asked for it, {left} messages before --count was reached"),
        )),
        (Ended::Signal, None) if args.until_end => Err(Failure::here(
            stopped(&args.topic, printer.messages),
            "a signal asked for it, before the end was reached",
        )),
        _ => Ok(()),
    }
}

fn stopped(topic: &str, messages: u64) -> String {
    format!("reading topic {topic} stopped after {messages} messages")
}

/// Why reading ended.
enum Ended {
    /// As many messages as were asked for were read, or all that there were.
    Whole,
    /// A signal asked for it before.
    Signal,
}

struct Printer {
    out: Out,
    lines: Lines,
    /// Longest time that a message is held back.
    held: Duration,
    /// When the first came of those that are.
    since: Option<Instant>,
    /// A batch is delivered whole; messages before the position asked for are not.
    skip_below: u64,
    left: Option<u64>,
    messages: u64,
    missed: u64,
}

fn read(
    subscriber: &mut Subscriber,
    args: &Subscribe,
    printer: &mut Printer,
    mut auditor: Option<&mut Auditor>,
    stop: &Stop,
) -> Outcome<Ended> {
    let topic = &args.topic;
    while printer.left != Some(0) {
        if stop.asked() {
            return Ok(Ended::Signal);
        }
        // Whoever reads the pipe gets what there is as soon as nothing more is there.
        let wait = if printer.since.is_some() { Duration::ZERO } else { WAIT };
        let event = subscriber.next(wait).tried(|| stopped(topic, printer.messages))?;
        match event {
            Event::Batch(batch) => {
                if let Some(auditor) = auditor.as_deref_mut() {
                    auditor.batch(0, Seen::from(&batch));
                }
                printer.batch(&batch)?;
            }
            Event::Gap { log, reason, missed, resume } => {
                if let Some(auditor) = auditor.as_deref_mut() {
                    auditor.told(0, log, reason, missed, resume);
                }
                // Nobody knows of a message at positions that were passed over.
                printer.missed += if reason == GapReason::Skipped { 0 } else { missed };
                let missed = grouped(missed);
                let what = match reason {
                    GapReason::Retention => format!("retention took {missed} messages"),
                    GapReason::Unwritten => {
                        format!("{missed} positions were reserved and never written")
                    }
                    GapReason::Lost => {
                        format!("{missed} messages are lost: no copy that could be read has them,")
                    }
                    GapReason::Skipped => format!(
                        "{missed} positions were passed over when a pool was lost, and no disk \
                         knows of a message there,"
                    ),
                    GapReason::Corrupt => {
                        format!("{missed} messages are not what was landed, in every copy,")
                    }
                };
                note(format_args!("gap: {what} of log {log}; going on at position {resume}"));
            }
            Event::CaughtUp if args.until_end => break,
            Event::TopicGone => {
                return Err(Failure::failed(
                    stopped(topic, printer.messages),
                    subscriber.topic_gone(),
                ));
            }
            _ => printer.flush()?,
        }
    }
    Ok(Ended::Whole)
}

impl Printer {
    fn batch(&mut self, batch: &Batch<'_>) -> Outcome {
        let positions = batch.first_position()..;
        for (position, message) in positions.zip(batch.messages()) {
            if position < self.skip_below {
                continue;
            }
            if self.left == Some(0) {
                break;
            }
            self.message(batch, position, &message)?;
            self.messages += 1;
            self.left = self.left.map(|left| left - 1);
        }
        match self.since.get_or_insert_with(Instant::now).elapsed() >= self.held {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Outcome {
        self.since = None;
        self.out.flush()
    }

    fn message(&mut self, batch: &Batch<'_>, position: u64, message: &Message<'_>) -> Outcome {
        match self.lines {
            Lines::Raw => {
                self.out.bytes(message.payload)?;
                self.out.bytes(b"\n")
            }
            Lines::Json => self.out.json_line(&Line {
                schema_version: SCHEMA_VERSION,
                position,
                client: batch.client(),
                sequence: batch.batch_seq(),
                timestamp: message.timestamp_ns,
                key: message.key.map(Into::into),
                payload: message.payload.into(),
                log: batch.log(),
                broker: batch.broker(),
            }),
        }
    }
}

/// The audit's report on stderr; a broken promise is a failure.
fn report(auditor: &Auditor) -> Outcome {
    let report = auditor.finish();
    note(format_args!("audit: {report}"));
    if report.ok {
        return Ok(());
    }
    Err(Failure::failed(
        "the topic's order was broken",
        format!("{} violations, listed above", report.violations_total),
    ))
}
