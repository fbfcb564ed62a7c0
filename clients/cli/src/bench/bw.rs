//! `landfall bench bw`: throughput of the whole path beside the limit.
//!
//! On two cores the publisher, the broker, the sequencer and the subscriber share what a bare copy
//! has for itself, so a ratio below 1 is expected; the limit's name says what it is a ratio of.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use landfall::{Publisher, Start};
use landfall_layout::batch::message_stride;
use serde::Serialize;

use super::limit::{Limit, Prober, better};
use super::machine::Machine;
use super::parties::{self, Shared, Verified};
use super::target::Target;
use super::window::Window;
use super::{cut_short, nothing_yet, seconds};
use crate::args::bench::Bw;
use crate::config::{Config, Settings};
use crate::error::{Failure, Outcome, Tried};
use crate::out::{Out, Progress, grouped, human_bytes};
use crate::signals::Stop;
use crate::words::{self, Format, Transport};

/// Time given to each measurement of the limit: the figure no longer moves after half a second.
const LIMIT_TIME: Duration = Duration::from_millis(1500);

/// What a measurement over verbs is to be held against, which needs a program that is not ours.
const NIC_LIMIT: &str = "scripts/bench-verbs compares with ib_write_bw on the same device";

#[derive(Serialize)]
struct Parameters {
    transport: words::Transport,
    /// The one that connected: what `auto` chose.
    transport_taken: String,
    grant: words::Grant,
    read: words::Read,
    order: words::Order,
    ack: words::Ack,
    message_bytes: u64,
    batch_bytes: u64,
    publishers: usize,
    depth: u64,
    reserve: bool,
    brokers: usize,
    pool_bytes: u64,
    seconds: f64,
    warmup_seconds: f64,
    idle: words::Idle,
    publish_only: bool,
}

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    machine: Machine,
    parameters: Parameters,
    bytes_per_second: f64,
    messages_per_second: f64,
    limit: String,
    limit_bytes_per_second: f64,
    ratio: f64,
    published_messages: u64,
    acknowledged_messages: u64,
    verified_messages: u64,
    verified_batches: u64,
    verified_bytes: u64,
    /// It was told to end before its time.
    cut_short: bool,
    measured_seconds: f64,
}

/// What the run itself gave.
struct Measured {
    messages: u64,
    time: Duration,
    published: u64,
    acked: u64,
    verified: Option<Verified>,
    transport: landfall::Transport,
    is_cut: bool,
}

pub fn run(args: &Bw, config: &Config) -> Outcome {
    let settings = &config.settings;
    let bench = &settings.bench;
    let time = seconds("--seconds", bench.seconds, 0.1)?;
    let warmup = seconds("--warmup", bench.warmup, 0.0)?;
    check(args, settings)?;
    let stop = Stop::on_signals()?;
    let mut progress = Progress::new();
    progress.show(|| "measuring the limit".into());
    let prober = Prober::new(bench.batch_bytes.0, bench.pool_bytes.0)?;
    let limit = |time| match args.common.transport {
        Transport::Tcp => prober.tcp(time),
        Transport::Memory | Transport::Verbs | Transport::Auto => prober.memory(time),
    };
    let before = limit(LIMIT_TIME)?;
    let target = Target::start(&args.common, config, !args.publish_only)?;
    let measured = measure(args, settings, &target, (warmup, time), &stop, &mut progress);
    let (brokers, pool_bytes) = (target.brokers().len(), target.pool_bytes());
    // The run's own error says more than one of stopping.
    let stopped = target.stop();
    let measured = measured?;
    stopped?;
    // Who is in a hurry gets the one from before.
    let limit = match measured.is_cut {
        true => before,
        false => better(before, limit(LIMIT_TIME)?),
    };
    let is_cut = measured.is_cut;
    progress.clear();
    let parameters = Parameters {
        transport: args.common.transport,
        transport_taken: measured.transport.to_string(),
        grant: args.common.grant,
        read: args.common.read,
        order: settings.topic.order,
        ack: args.common.ack,
        message_bytes: bench.message_bytes.0,
        batch_bytes: bench.batch_bytes.0,
        publishers: bench.publishers,
        depth: depth(args, bench.batch_bytes.0),
        reserve: args.reserve,
        brokers,
        pool_bytes,
        seconds: bench.seconds,
        warmup_seconds: bench.warmup,
        idle: bench.idle,
        publish_only: args.publish_only,
    };
    print(&report(measured, limit, parameters), settings.output.format)?;
    if is_cut { Err(cut_short()) } else { Ok(()) }
}

fn check(args: &Bw, settings: &Settings) -> Outcome {
    let bench = &settings.bench;
    if bench.publishers == 0 || bench.publishers > 1024 {
        let what = format!("--publishers {} is not possible", bench.publishers);
        return Err(Failure::usage(what, "say 1 to 1024"));
    }
    let fits = usize::try_from(bench.message_bytes.0)
        .ok()
        .and_then(|bytes| message_stride(0, bytes))
        .is_some_and(|stride| stride as u64 + 64 <= bench.batch_bytes.0);
    if !fits {
        return Err(Failure::usage(
            format!("--message-bytes {} is not possible", bench.message_bytes),
            format!(
                "with its header of 16 bytes and the batch's of 64 it has to fit --batch-bytes {}",
                bench.batch_bytes
            ),
        ));
    }
    if args.publish_only && args.common.ack == words::Ack::None {
        let why = "without a subscriber only receipts tell what has landed";
        return Err(Failure::usage("--publish-only and --ack none do not go together", why));
    }
    Ok(())
}

fn measure(
    args: &Bw,
    settings: &Settings,
    target: &Target,
    (warmup, time): (Duration, Duration),
    stop: &Stop,
    progress: &mut Progress,
) -> Outcome<Measured> {
    let subscribers = usize::from(!args.publish_only);
    let window = target.window_bytes(2 * settings.bench.batch_bytes.0);
    let shared = Shared::new(Window::new(window, subscribers));
    let subscriber = (!args.publish_only)
        .then(|| {
            let builder = target.client().subscriber(target.topic());
            let builder = builder.transport(args.common.transport.into()).from(Start::Earliest);
            let builder = builder.one_sided(args.common.read == words::Read::OneSided);
            builder.idle(settings.bench.idle.into()).build()
        })
        .transpose()
        .tried(|| "cannot subscribe".into())?;
    let brokers = target.brokers();
    let mut publishers = Vec::new();
    for number in 0..settings.bench.publishers {
        let broker = brokers.get(number % brokers.len().max(1)).copied();
        publishers.push(publisher(args, settings, target, broker)?);
    }
    let message_bytes = settings.bench.message_bytes.0 as usize;
    let transport =
        publishers.first().map_or(landfall::Transport::Auto, landfall::Publisher::transport);
    std::thread::scope(|scope| {
        let shared = &shared;
        let reader = subscriber
            .map(|subscriber| scope.spawn(|| shared.watch(parties::subscribe(subscriber, shared))));
        let writers: Vec<_> = publishers
            .into_iter()
            .map(|publisher| {
                scope.spawn(|| {
                    shared.watch(parties::publish(publisher, message_bytes, args.reserve, shared))
                })
            })
            .collect();
        let counter = if args.publish_only { &shared.acked } else { &shared.read };
        let count = || counter.load(Ordering::Relaxed);
        wait(warmup, shared, stop, || progress.show(|| "warming up".into()));
        let (from, started) = (count(), Instant::now());
        wait(time, shared, stop, || {
            progress.show(|| {
                let rate = (count() - from) as f64 / started.elapsed().as_secs_f64();
                format!("measuring: {} messages a second", grouped(rate as u64))
            });
        });
        let (messages, took) = (count() - from, started.elapsed());
        shared.stop.store(true, Ordering::Relaxed);
        let written: Vec<Outcome<u64>> = writers.into_iter().map(|w| joined(w.join())).collect();
        let total = written.iter().map(|one| one.as_ref().copied().unwrap_or(0)).sum();
        shared.total.store(total, Ordering::Relaxed);
        let verified = reader.map(|reader| joined(reader.join())).transpose();
        // A publisher's failure is why a subscriber misses something.
        let published = written.into_iter().sum::<Outcome<u64>>()?;
        let is_cut = stop.asked() && took < time;
        if is_cut && messages == 0 {
            return Err(nothing_yet());
        }
        let acked = shared.acked.load(Ordering::Relaxed);
        let (time, verified) = (took, verified?);
        Ok(Measured { messages, time, published, acked, verified, transport, is_cut })
    })
}

fn publisher(
    args: &Bw,
    settings: &Settings,
    target: &Target,
    broker: Option<u8>,
) -> Outcome<Publisher> {
    let batch_bytes = settings.bench.batch_bytes;
    let mut builder = target
        .client()
        .publisher(target.topic())
        .transport(args.common.transport.into())
        .grant(args.common.grant.into())
        .ack(args.common.ack.into())
        .batch_bytes(batch_bytes.as_u32())
        .memory_bytes(depth(args, batch_bytes.0) * batch_bytes.0)
        .linger(Duration::from_millis(5))
        .idle(settings.bench.idle.into());
    if let Some(broker) = broker {
        builder = builder.broker(broker);
    }
    builder.build().tried(|| "cannot publish".into())
}

/// Batches that a publisher may have under way.
fn depth(args: &Bw, batch_bytes: u64) -> u64 {
    args.depth.map_or(((64 << 20) / batch_bytes).max(8), u64::from)
}

fn joined<T>(result: std::thread::Result<Outcome<T>>) -> Outcome<T> {
    result
        .unwrap_or_else(|_| Err(Failure::failed("the measurement broke off", "a thread panicked")))
}

fn wait(time: Duration, shared: &Shared, stop: &Stop, mut show: impl FnMut()) {
    let deadline = Instant::now() + time;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.failed.load(Ordering::Relaxed) || stop.asked() {
            return;
        }
        show();
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}

fn report(measured: Measured, limit: Limit, parameters: Parameters) -> Report {
    let messages_per_second = measured.messages as f64 / measured.time.as_secs_f64();
    let bytes_per_second = messages_per_second * parameters.message_bytes as f64;
    let verified = measured.verified.unwrap_or_default();
    Report {
        cut_short: measured.is_cut,
        measured_seconds: measured.time.as_secs_f64(),
        bench: "bw",
        machine: Machine::here(),
        parameters,
        bytes_per_second,
        messages_per_second,
        ratio: bytes_per_second / limit.bytes_per_second,
        limit: limit.name,
        limit_bytes_per_second: limit.bytes_per_second,
        published_messages: measured.published,
        acknowledged_messages: measured.acked,
        verified_messages: verified.messages,
        verified_batches: verified.batches,
        verified_bytes: verified.bytes,
    }
}

/// The transport that was taken, with what was asked for where that left it open.
fn taken(p: &Parameters) -> String {
    let mut text = p.transport_taken.clone();
    if text == Transport::Verbs.to_string() {
        text.push_str(&format!(" ({} queue pairs, grant {})", p.publishers, p.grant));
    }
    if p.transport == Transport::Auto {
        text.push_str(" (auto)");
    }
    text
}

fn print(report: &Report, format: Format) -> Outcome {
    let mut out = Out::new();
    if format == Format::Json {
        return out.document(report);
    }
    let p = &report.parameters;
    let path = if p.publish_only { "publish only" } else { "publish, order, subscribe" };
    out.line(format_args!("machine     {}", report.machine))?;
    out.line(format_args!(
        "parameters  {path}; {}, order {}, ack {}, idle {}; {} B messages, {} B batches, \
         {} deep; {} publishers, {} brokers, pool {}; {} s after {} s",
        taken(p),
        p.order,
        p.ack,
        p.idle,
        p.message_bytes,
        p.batch_bytes,
        p.depth,
        p.publishers,
        p.brokers,
        human_bytes(p.pool_bytes as f64),
        p.seconds,
        p.warmup_seconds
    ))?;
    let rate = |rate: f64| format!("{}/s", human_bytes(rate));
    out.line(format_args!(
        "throughput  {} of payload, {} messages/s",
        rate(report.bytes_per_second),
        grouped(report.messages_per_second as u64)
    ))?;
    out.line(format_args!(
        "limit       {} ({})",
        rate(report.limit_bytes_per_second),
        report.limit
    ))?;
    out.line(format_args!("ratio       {:.3}", report.ratio))?;
    if p.transport_taken == Transport::Verbs.to_string() {
        out.line(format_args!("            {NIC_LIMIT}"))?;
    }
    let verified = if p.publish_only {
        format!(
            "{} of {} acknowledged",
            grouped(report.acknowledged_messages),
            grouped(report.published_messages)
        )
    } else {
        format!(
            "{} of {} messages in {} batches: checksum, position, sequence, number",
            grouped(report.verified_messages),
            grouped(report.published_messages),
            grouped(report.verified_batches)
        )
    };
    out.line(format_args!("verified    {verified}"))?;
    if report.cut_short {
        out.line(super::cut_line(report.measured_seconds, p.seconds))?;
    }
    out.flush()
}
