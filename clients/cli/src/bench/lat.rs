//! `landfall bench lat`: latency of single messages from publish to delivery.
//!
//! Publisher and subscriber are polled by one thread: with two cores, the broker and the sequencer
//! have enough to share already.

mod echo;

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use landfall::api::{Latency, ProcessCounters};
use landfall::{BatchReceipt, Event, Publisher, Start, Subscriber};
use landfall_pool::clock::wall_ns;
use serde::Serialize;

use super::machine::Machine;
use super::target::Target;
use super::{cut_short, nothing_yet, seconds};
use crate::args::bench::Lat;
use crate::config::{Config, Settings};
use crate::error::{Failure, Outcome, Tried};
use crate::out::{Out, Progress, grouped, human_ns, table};
use crate::signals::Stop;
use crate::view::below;
use crate::words::{self, Format, Idle, Transport};

/// Longest wait for one message.
const SILENCE: Duration = Duration::from_secs(10);
/// Bytes of a batch: one message each, with room.
const BATCH_BYTES: u64 = 64 << 10;

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
    brokers: usize,
    seconds: f64,
    warmup_seconds: f64,
    idle: words::Idle,
    rate: Option<f64>,
}

/// Percentiles of a histogram.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Percentiles {
    count: u64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
}

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    machine: Machine,
    parameters: Parameters,
    #[serde(flatten)]
    all: Percentiles,
    limit: String,
    limit_p50_ns: u64,
    ratio: f64,
    stages: Vec<Stage>,
    ordered_mean_ns: u64,
    ordered_p50_below_ns: u64,
    ordered_p99_below_ns: u64,
    verified_messages: u64,
    /// Messages a second that went, where there was a timetable.
    rate_reached: Option<f64>,
    /// Whether that was what was asked for. If not, latencies count from a timetable that nobody
    /// kept, and grow with the time measured.
    rate_was_reached: Option<bool>,
    /// It was told to end before its time.
    cut_short: bool,
    measured_seconds: f64,
}

#[derive(Serialize)]
struct Stage {
    stage: &'static str,
    #[serde(flatten)]
    percentiles: Percentiles,
}

/// Histograms of one run.
struct Times {
    all: Histogram<u64>,
    sealed: Histogram<u64>,
    landed: Histogram<u64>,
    delivered: Histogram<u64>,
    acknowledged: Histogram<u64>,
}

impl Times {
    fn new() -> Outcome<Self> {
        let new = || {
            // Three digits from 1 ns to a minute.
            Histogram::new_with_bounds(1, 60_000_000_000, 3)
                .map_err(|error| Failure::failed("cannot keep latencies", format!("{error:?}")))
        };
        Ok(Self {
            all: new()?,
            sealed: new()?,
            landed: new()?,
            delivered: new()?,
            acknowledged: new()?,
        })
    }
}

pub fn run(args: &Lat, config: &Config) -> Outcome {
    let settings = &config.settings;
    let time = seconds("--seconds", settings.bench.seconds, 0.1)?;
    let warmup = seconds("--warmup", settings.bench.warmup, 0.0)?;
    if args.rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1e7)) {
        return Err(Failure::usage(
            "--rate is not possible",
            "say more than 0 and at most 10000000",
        ));
    }
    let message_bytes = args.common.message_bytes.map_or(64, |size| size.0);
    if !(8..=BATCH_BYTES - 128).contains(&message_bytes) {
        let most = BATCH_BYTES - 128;
        let what = format!("--message-bytes {message_bytes} is not possible");
        return Err(Failure::usage(what, format!("say 8 to {most} for latency")));
    }
    let stop = Stop::on_signals()?;
    let mut progress = Progress::new();
    progress.show(|| "measuring the limit".into());
    let (limit, limit_p50_ns) = match args.common.transport {
        Transport::Tcp => ("echo over a bare socket pair", echo::socket(message_bytes as usize)?),
        _ => ("echo through a word that two threads share", echo::word()?),
    };
    let target = Target::start(&args.common, config, true)?;
    let mut transport_taken = String::new();
    let mut run = || -> Outcome<(Times, u64, Latency, Ran)> {
        let before = ordered(&target)?;
        let mut parties = Parties::connect(args, settings, &target)?;
        transport_taken = parties.publisher.transport().to_string();
        let mut times = Times::new()?;
        parties.run(&mut Times::new()?, warmup, &stop, &mut progress)?;
        let ran = parties.run(&mut times, time, &stop, &mut progress)?;
        if times.all.is_empty() {
            return Err(nothing_yet());
        }
        let verified = parties.close()?;
        Ok((times, verified, difference(&before, &ordered(&target)?), ran))
    };
    let run = run();
    let brokers = target.brokers().len();
    let stopped = target.stop();
    let (times, verified_messages, ordered, ran) = run?;
    stopped?;
    progress.clear();
    let all = percentiles(&times.all);
    let stage = |stage, histogram| Stage { stage, percentiles: percentiles(histogram) };
    let report = Report {
        bench: "lat",
        machine: Machine::here(),
        parameters: Parameters {
            transport: args.common.transport,
            transport_taken,
            grant: args.common.grant,
            read: args.common.read,
            order: settings.topic.order,
            ack: args.common.ack,
            message_bytes,
            brokers,
            seconds: settings.bench.seconds,
            warmup_seconds: settings.bench.warmup,
            idle: settings.bench.idle,
            rate: args.rate,
        },
        limit: limit.into(),
        limit_p50_ns,
        ratio: all.p50_ns as f64 / limit_p50_ns.max(1) as f64,
        all,
        stages: vec![
            stage("sealed", &times.sealed),
            stage("landed", &times.landed),
            stage("delivered", &times.delivered),
            stage("acknowledged", &times.acknowledged),
        ],
        ordered_mean_ns: ordered.sum_ns / ordered.count.max(1),
        ordered_p50_below_ns: below(&ordered, 0.5),
        ordered_p99_below_ns: below(&ordered, 0.99),
        verified_messages,
        rate_reached: args.rate.map(|_| ran.rate(times.all.len())),
        rate_was_reached: args.rate.map(|rate| ran.keeps_up(times.all.len(), rate)),
        cut_short: ran.is_cut,
        measured_seconds: ran.took.as_secs_f64(),
    };
    print(&report, settings.output.format)?;
    if ran.is_cut { Err(cut_short()) } else { Ok(()) }
}

/// How a run went.
#[derive(Clone, Copy)]
struct Ran {
    took: Duration,
    is_cut: bool,
}

impl Ran {
    fn rate(self, messages: u64) -> f64 {
        messages as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Whether so many messages are what a timetable asks for: all but a hundredth, or one.
    fn keeps_up(self, messages: u64, rate: f64) -> bool {
        messages as f64 + 1.0 >= 0.99 * rate * self.took.as_secs_f64()
    }
}

/// The publisher and the subscriber.
struct Parties {
    publisher: Publisher,
    subscriber: Subscriber,
    payload: Vec<u8>,
    number: u64,
    interval: Option<Duration>,
    wait: Duration,
    receipts: Vec<BatchReceipt>,
}

impl Parties {
    fn connect(args: &Lat, settings: &Settings, target: &Target) -> Outcome<Self> {
        let idle = settings.bench.idle;
        let subscriber = target
            .client()
            .subscriber(target.topic())
            .transport(args.common.transport.into())
            .one_sided(args.common.read == words::Read::OneSided)
            .from(Start::Earliest)
            .idle(idle.into())
            .build()
            .tried(|| "cannot subscribe".into())?;
        let publisher = target
            .client()
            .publisher(target.topic())
            .transport(args.common.transport.into())
            .grant(args.common.grant.into())
            .ack(args.common.ack.into())
            .batch_bytes(BATCH_BYTES as u32)
            .linger(Duration::ZERO)
            .idle(idle.into())
            .build()
            .tried(|| "cannot publish".into())?;
        let message_bytes = args.common.message_bytes.map_or(64, |size| size.0);
        Ok(Self {
            publisher,
            subscriber,
            payload: vec![0x5a; message_bytes as usize],
            number: 0,
            interval: args.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            // A spinning reader looks and comes back, so that the publisher is polled as well.
            wait: if idle == Idle::Spin { Duration::ZERO } else { Duration::from_millis(1) },
            receipts: Vec::new(),
        })
    }

    fn run(
        &mut self,
        times: &mut Times,
        time: Duration,
        stop: &Stop,
        progress: &mut Progress,
    ) -> Outcome<Ran> {
        let started = Instant::now();
        let mut due = started;
        while started.elapsed() < time {
            // By the timetable the latency counts from when the message should have gone.
            let from = match self.interval {
                None => Instant::now(),
                Some(interval) => {
                    self.wait_until(due)?;
                    let from = due;
                    due += interval;
                    from
                }
            };
            self.one(times, from)?;
            if stop.asked() {
                break;
            }
            if self.number.is_multiple_of(256) {
                progress.show(|| {
                    let p50 = times.all.value_at_quantile(0.5);
                    format!("{} messages, p50 {}", grouped(times.all.len()), human_ns(p50))
                });
            }
        }
        let took = started.elapsed();
        Ok(Ran { took, is_cut: stop.asked() && took < time })
    }

    /// Waits for the timetable and takes receipts meanwhile, so that they are not stamped late. A
    /// sleep may be 100 us late, so the last of the time is spent looking.
    fn wait_until(&mut self, due: Instant) -> Outcome {
        loop {
            self.publisher.poll().tried(|| "cannot publish".into())?;
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if self.wait > Duration::ZERO && left > Duration::from_micros(400) {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }

    /// Publishes a message and waits until it is delivered.
    fn one(&mut self, times: &mut Times, from: Instant) -> Outcome {
        if let Some(head) = self.payload.first_chunk_mut() {
            *head = self.number.to_le_bytes();
        }
        let published_ns = wall_ns();
        self.publisher.publish(&self.payload).tried(|| "cannot publish".into())?;
        loop {
            self.publisher.poll().tried(|| "cannot publish".into())?;
            match self.subscriber.next(self.wait).tried(|| "cannot read".into())? {
                Event::Batch(batch) => {
                    let (now, now_ns) = (Instant::now(), wall_ns());
                    let found = batch.messages().next().and_then(|message| {
                        message.payload.first_chunk().map(|head| u64::from_le_bytes(*head))
                    });
                    if found != Some(self.number) || batch.count() != 1 {
                        return Err(Failure::failed(
                            "what was read is not what was published",
                            format!("message {} was expected and {found:?} came", self.number),
                        ));
                    }
                    record(&mut times.all, now.saturating_duration_since(from).as_nanos() as u64);
                    record(&mut times.sealed, batch.sealed_ns().saturating_sub(published_ns));
                    let landing = batch.landed_ns().saturating_sub(batch.sealed_ns());
                    record(&mut times.landed, landing);
                    record(&mut times.delivered, now_ns.saturating_sub(batch.landed_ns()));
                    break;
                }
                Event::Idle | Event::CaughtUp if from.elapsed() < SILENCE => {}
                _ => {
                    let why = format!("message {} did not come within {SILENCE:?}", self.number);
                    return Err(Failure::failed("a message is missing", why));
                }
            }
        }
        self.number += 1;
        self.publisher.take_receipts(&mut self.receipts);
        for receipt in self.receipts.drain(..) {
            record(&mut times.acknowledged, receipt.acked_ns.saturating_sub(receipt.sealed_ns));
        }
        Ok(())
    }

    fn close(self) -> Outcome<u64> {
        self.publisher.close().tried(|| "cannot close the publisher".into())?;
        Ok(self.number)
    }
}

fn record(histogram: &mut Histogram<u64>, ns: u64) {
    histogram.saturating_record(ns.max(1));
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    let at = |quantile| histogram.value_at_quantile(quantile);
    Percentiles {
        count: histogram.len(),
        p50_ns: at(0.5),
        p90_ns: at(0.9),
        p99_ns: at(0.99),
        p999_ns: at(0.999),
        max_ns: histogram.max(),
    }
}

/// The time from landed to ordered that all processes have counted so far.
fn ordered(target: &Target) -> Outcome<Latency> {
    let processes = target.client().counters().tried(|| "cannot read the counters".into())?;
    Ok(sum_of(&processes, "landed_to_ordered"))
}

/// A stage's histogram over all processes.
pub fn sum_of(processes: &[ProcessCounters], stage: &str) -> Latency {
    let mut sum = Latency::default();
    for latency in processes.iter().filter_map(|process| process.latencies.get(stage)) {
        sum.count += latency.count;
        sum.sum_ns += latency.sum_ns;
        sum.buckets.resize(sum.buckets.len().max(latency.buckets.len()), 0);
        for (total, more) in sum.buckets.iter_mut().zip(&latency.buckets) {
            *total += more;
        }
    }
    sum
}

/// What was counted between two readings.
fn difference(before: &Latency, after: &Latency) -> Latency {
    let earlier = before.buckets.iter().copied().chain(std::iter::repeat(0));
    Latency {
        count: after.count.saturating_sub(before.count),
        sum_ns: after.sum_ns.saturating_sub(before.sum_ns),
        buckets: after.buckets.iter().zip(earlier).map(|(a, b)| a.saturating_sub(b)).collect(),
    }
}

fn print(report: &Report, format: Format) -> Outcome {
    let mut out = Out::new();
    if format == Format::Json {
        return out.document(report);
    }
    let p = &report.parameters;
    out.line(format_args!("machine     {}", report.machine))?;
    let rate = p.rate.map_or("one after the other".into(), |rate| format!("{rate} a second"));
    out.line(format_args!(
        "parameters  {}, order {}, ack {}, idle {}; {} B messages, {rate}; {} brokers; \
         {} s after {} s",
        p.transport_taken,
        p.order,
        p.ack,
        p.idle,
        p.message_bytes,
        p.brokers,
        p.seconds,
        p.warmup_seconds
    ))?;
    let heading = ["latency", "count", "p50", "p90", "p99", "p99.9", "max"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let mut row = |name: &str, of: &Percentiles| {
        let times = [of.p50_ns, of.p90_ns, of.p99_ns, of.p999_ns, of.max_ns];
        let mut row = vec![name.to_owned(), grouped(of.count)];
        row.extend(times.map(human_ns));
        rows.push(row);
    };
    row("publish to delivery", &report.all);
    for stage in &report.stages {
        row(stage.stage, &stage.percentiles);
    }
    out.bytes(table(&rows).as_bytes())?;
    out.line(format_args!(
        "ordered     mean {}, p50 below {}, p99 below {} (control's histogram, from landed)",
        human_ns(report.ordered_mean_ns),
        human_ns(report.ordered_p50_below_ns),
        human_ns(report.ordered_p99_below_ns)
    ))?;
    out.line(format_args!("limit       p50 {} ({})", human_ns(report.limit_p50_ns), report.limit))?;
    out.line(format_args!("ratio       {:.1}", report.ratio))?;
    out.line(format_args!("verified    {} messages", grouped(report.verified_messages)))?;
    if let (Some(rate), Some(reached), Some(false)) =
        (p.rate, report.rate_reached, report.rate_was_reached)
    {
        out.line(format_args!(
            "rate        {reached:.0} a second, of {rate} that were asked for: THE RATE WAS NOT \
             REACHED; latencies say how far behind its timetable a message went, and grow with \
             the time measured"
        ))?;
    }
    if report.cut_short {
        out.line(super::cut_line(report.measured_seconds, p.seconds))?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_reached_by_all_but_a_hundredth_of_its_messages() {
        let ran = Ran { took: Duration::from_secs(2), is_cut: false };
        assert_eq!(ran.rate(1000), 500.0);
        assert!(ran.keeps_up(1980, 1000.0) && !ran.keeps_up(1970, 1000.0));
        let short = Ran { took: Duration::from_millis(1), is_cut: false };
        assert!(short.keeps_up(0, 500.0), "the next one is not due yet");
    }

    #[test]
    fn a_difference_counts_only_what_came_after() {
        let before = Latency { count: 1, sum_ns: 10, buckets: vec![0, 1] };
        let after = Latency { count: 4, sum_ns: 50, buckets: vec![2, 1, 1] };
        let expected = Latency { count: 3, sum_ns: 40, buckets: vec![2, 0, 1] };
        assert_eq!(difference(&before, &after), expected);
        assert_eq!(difference(&Latency::default(), &after), after);
    }
}
