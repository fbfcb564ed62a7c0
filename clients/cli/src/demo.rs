//! `landfall demo`: the main job in one command, checked.

mod files;
mod read;
mod report;
mod send;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use landfall::api::TopicSpec;
use landfall::audit::Auditor;
use landfall::local::{LocalConfig, LocalSystem};
use landfall::{Client, Order, Publisher, Start, Subscriber, Transport};
use landfall_layout::limits::SEGMENT_BYTES_MIN;

use self::files::Files;
use self::read::Rebuilt;
use self::send::Sent;
use crate::args::system::Demo;
use crate::bench::window::{Window, kept_bytes, segments_beside, window_bytes};
use crate::config::Settings;
use crate::error::{Failure, Outcome, Tried};
use crate::out::{Progress, human_bytes};
use crate::signals::Stop;
use crate::units::Size;

const BROKERS: usize = 4;
const TOPIC: &str = "demo";
/// Who publishes, and how.
const PUBLISHERS: [Transport; 4] =
    [Transport::Memory, Transport::Tcp, Transport::Memory, Transport::Tcp];
/// Who reads, and how.
const SUBSCRIBERS: [Transport; 2] = [Transport::Memory, Transport::Tcp];
/// Bytes of a publisher's batch.
const BATCH_BYTES: u32 = 256 << 10;

/// What all threads share. Relaxed everywhere: the numbers steer and the words are looked at again
/// and again; no other memory is published with them.
struct Shared<'a> {
    files: &'a Files,
    /// The next file that nobody has taken.
    next: AtomicUsize,
    chunk_bytes: usize,
    window: Window,
    auditor: Mutex<Auditor>,
    failed: AtomicBool,
    /// Messages published in all; `u64::MAX` until all publishers are done.
    total: AtomicU64,
    /// Bytes of files that the slower subscriber has seen, for the progress line.
    seen: [AtomicU64; SUBSCRIBERS.len()],
    stop: &'a Stop,
}

impl Shared<'_> {
    fn is_over(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.stop.asked()
    }

    /// Notes a failure, so that the others end.
    fn watch<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        if outcome.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

/// What a run gave.
struct Run {
    sent: Vec<Sent>,
    rebuilt: Vec<Rebuilt>,
    time: Duration,
    audit: landfall::audit::Report,
}

pub fn run(args: &Demo, settings: &Settings) -> Outcome {
    let chunk = settings.demo.chunk_bytes;
    if !(1..=u64::from(BATCH_BYTES) / 2).contains(&chunk.0) {
        return Err(Failure::usage(
            format!("--chunk-bytes {chunk} is not possible"),
            format!("say 1 to {} bytes", BATCH_BYTES / 2),
        ));
    }
    let files = find(&args.dir)?;
    let stop = Stop::on_signals()?;
    let config = LocalConfig {
        brokers: BROKERS,
        pool_bytes: settings.demo.pool_bytes.0,
        // Four brokers keep some segments open each: small ones leave more of a small pool.
        segment_bytes: SEGMENT_BYTES_MIN,
        ..LocalConfig::default()
    };
    let system = LocalSystem::start(config).tried(|| "the system did not start".into())?;
    let client = system.client();
    let run = on(&client, &files, chunk.0 as usize, &stop);
    let counters = client.counters().tried(|| "cannot read the counters".into());
    let stopped = system.stop().tried(|| "the system did not stop cleanly".into());
    let run = run?;
    let report = report::Report::new(&args.dir, &files, &run, &counters?, settings);
    report.print(settings.output.format)?;
    stopped?;
    report.verdict()
}

fn find(dir: &Path) -> Outcome<Files> {
    let again = "landfall demo DIR  (any folder with files in it)";
    let cannot = || format!("cannot publish the files under {}", dir.display());
    let files = Files::under(dir).map_err(|error| Failure::failed(cannot(), error).next(again))?;
    if files.list.is_empty() {
        return Err(Failure::failed(cannot(), "there is no regular file in it").next(again));
    }
    Ok(files)
}

fn on(client: &Client, files: &Files, chunk_bytes: usize, stop: &Stop) -> Outcome<Run> {
    let pool = client.cluster().tried(|| "cannot describe the cluster".into())?.pool;
    let needed = segments_beside(&pool, BROKERS) + 2 * BROKERS as u64;
    if pool.segments_free < needed {
        return Err(Failure::usage(
            format!("--pool-bytes {} is not possible", Size(pool.bytes)),
            format!(
                "it has {} free segments and {BROKERS} brokers need {needed}",
                pool.segments_free
            ),
        )
        .next("landfall demo --pool-bytes 128M"));
    }
    let window = window_bytes(&pool, BROKERS, 4 * u64::from(BATCH_BYTES));
    let kept = kept_bytes(&pool, BROKERS, window);
    let spec = TopicSpec { retention_bytes: Some(kept), ..TopicSpec::new(TOPIC, Order::Strong) };
    client.create_topic(&spec).tried(|| format!("cannot create topic {TOPIC}"))?;
    let subscribers = SUBSCRIBERS.map(|transport| {
        let builder = client.subscriber(TOPIC).transport(transport).from(Start::Earliest);
        builder.build().tried(|| format!("cannot subscribe over {transport}"))
    });
    let subscribers = subscribers.into_iter().collect::<Outcome<Vec<Subscriber>>>()?;
    let publishers = PUBLISHERS.map(|transport| {
        let builder = client.publisher(TOPIC).transport(transport).batch_bytes(BATCH_BYTES);
        let builder = builder.linger(Duration::from_millis(2)).spread(true);
        builder.build().tried(|| format!("cannot publish over {transport}"))
    });
    let publishers = publishers.into_iter().collect::<Outcome<Vec<Publisher>>>()?;
    let shared = Shared {
        files,
        next: AtomicUsize::new(0),
        chunk_bytes,
        window: Window::new(window, SUBSCRIBERS.len()),
        auditor: Mutex::new(Auditor::new(Order::Strong)),
        failed: AtomicBool::new(false),
        total: AtomicU64::new(u64::MAX),
        seen: Default::default(),
        stop,
    };
    let started = Instant::now();
    let (sent, rebuilt) = threads(&shared, publishers, subscribers)?;
    let time = started.elapsed();
    if stop.asked() {
        return Err(Failure::here("the demo was interrupted", "a signal asked for it"));
    }
    let auditor = shared.auditor.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    Ok(Run { sent, rebuilt, time, audit: auditor.finish() })
}

fn threads(
    shared: &Shared<'_>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
) -> Outcome<(Vec<Sent>, Vec<Rebuilt>)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = subscribers
            .into_iter()
            .enumerate()
            .map(|(number, subscriber)| {
                scope.spawn(move || shared.watch(read::all(number, subscriber, shared)))
            })
            .collect();
        let writers: Vec<_> = publishers
            .into_iter()
            .map(|publisher| scope.spawn(|| shared.watch(send::all(publisher, shared))))
            .collect();
        scope.spawn(|| show(shared, &over));
        let sent: Vec<Outcome<Sent>> = writers.into_iter().map(|one| joined(one.join())).collect();
        let total = sent.iter().map(|one| one.as_ref().map_or(0, |sent| sent.messages)).sum();
        shared.total.store(total, Ordering::Relaxed);
        let read: Vec<Outcome<Rebuilt>> = readers.into_iter().map(|r| joined(r.join())).collect();
        over.store(true, Ordering::Relaxed);
        // A publisher's failure is why a subscriber misses something.
        let sent = sent.into_iter().collect::<Outcome<Vec<Sent>>>()?;
        Ok((sent, read.into_iter().collect::<Outcome<Vec<Rebuilt>>>()?))
    })
}

fn joined<T>(result: std::thread::Result<Outcome<T>>) -> Outcome<T> {
    result.unwrap_or_else(|_| Err(Failure::failed("the demo broke off", "a thread panicked")))
}

/// The progress line.
fn show(shared: &Shared<'_>, over: &AtomicBool) {
    let mut progress = Progress::new();
    while !over.load(Ordering::Relaxed) {
        progress.show(|| {
            let seen = shared.seen.iter().map(|seen| seen.load(Ordering::Relaxed)).min();
            format!(
                "{} of {} read back by both subscribers",
                human_bytes(seen.unwrap_or(0) as f64),
                human_bytes(shared.files.bytes as f64)
            )
        });
        std::thread::sleep(Duration::from_millis(20));
    }
}
