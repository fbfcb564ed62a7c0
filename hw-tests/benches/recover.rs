//! How long the whole system takes to serve again after a kill, with a million batches in the pool
//! and on the disk: real processes, killed and started again, until a publisher's next batch is
//! ordered and until it is durable.
//!
//! Expected: below a second each. A control replays the order log, an entry a batch; a broker looks
//! at its rings' ends and checks the last file of each replica, 64 MiB at most, whatever lies
//! before.
//! The binaries of the same profile have to be there: `cargo build --release --workspace --bins`.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use landfall::api::TopicSpec;
use landfall::local::{LocalConfig, LocalSystem};
use landfall::{Ack, Order, Publisher};

const ROUNDS: usize = 5;
/// A lost connection is noticed well within it.
const TIMEOUT: Duration = Duration::from_secs(30);

struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> std::io::Result<Self> {
        let name = format!("landfall-recover-{}", std::process::id());
        let base = std::env::var_os("LANDFALL_BENCH_DIR");
        let path = base.map_or_else(std::env::temp_dir, Into::into).join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clear.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Times of one round, from the start of the process that was killed.
#[derive(Clone, Copy, Default)]
struct Round {
    /// Until it said that it is ready.
    ready: Duration,
    /// Until a batch published after the kill was ordered, its publisher's reconnection included.
    ordered: Duration,
    /// Until another was durable.
    durable: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo runs benchmarks as tests too: then a short one shows that it works.
    let is_test = !std::env::args().any(|word| word == "--bench");
    let (batches, rounds) = if is_test { (1_000, 1) } else { (1_000_000, ROUNDS) };
    let directory = Directory::new()?;
    let mut system = start(&directory.0)?;
    let topic = TopicSpec {
        replicas: Some(2),
        keep: Some(true),
        ..TopicSpec::new("recover", Order::Strong)
    };
    system.client().create_topic(&topic)?;
    fill(&system, batches)?;
    println!(
        "{batches} batches of one 64-byte message in the pool and in replicas on {}; \
         {rounds} rounds, medians",
        directory.0.display()
    );
    report("control", rounds, || {
        let mut publishers = publishers(&system)?;
        system.kill_control();
        let since = Instant::now();
        system.start_control()?;
        again(&mut publishers, since)
    })?;
    report("broker", rounds, || {
        let mut publishers = publishers(&system)?;
        system.kill_broker(0);
        let since = Instant::now();
        system.start_broker(0)?;
        again(&mut publishers, since)
    })?;
    system.stop()?;
    Ok(())
}

fn start(data: &Path) -> Result<LocalSystem, Box<dyn Error>> {
    Ok(LocalSystem::start(LocalConfig {
        brokers: 1,
        pool_bytes: 1 << 30,
        segment_bytes: 8 << 20,
        sessions: 1024,
        data: Some(data.to_owned()),
        ..LocalConfig::default()
    })?)
}

fn fill(system: &LocalSystem, batches: u64) -> Result<(), Box<dyn Error>> {
    let mut publisher = system.client().publisher("recover").timeout(TIMEOUT).build()?;
    for _ in 0..batches {
        publisher.publish(&[7; 64])?;
        publisher.seal()?;
    }
    publisher.flush()?;
    publisher.close()?;
    // All of it is on the disk before anything is killed.
    let mut last = system.client().publisher("recover").ack(Ack::Durable).build()?;
    last.publish(&[7; 64])?;
    last.flush()?;
    last.close()?;
    let found = system.client().topic("recover")?;
    assert!(found.batches > batches, "{} batches ordered of {batches}", found.batches);
    Ok(())
}

/// One that waits for `ordered`, one for `durable`, both connected.
fn publishers(system: &LocalSystem) -> Result<[Publisher; 2], Box<dyn Error>> {
    let client = system.client();
    let mut made = Vec::new();
    for ack in [Ack::Ordered, Ack::Durable] {
        let mut publisher = client.publisher("recover").ack(ack).timeout(TIMEOUT).build()?;
        publisher.publish(&[7; 64])?;
        publisher.flush()?;
        made.push(publisher);
    }
    <[Publisher; 2]>::try_from(made).map_err(|_| "two publishers were made".into())
}

fn again(publishers: &mut [Publisher; 2], since: Instant) -> Result<Round, Box<dyn Error>> {
    let ready = since.elapsed();
    let mut times = [Duration::ZERO; 2];
    for (publisher, time) in publishers.iter_mut().zip(&mut times) {
        publisher.publish(&[7; 64])?;
        publisher.flush()?;
        *time = since.elapsed();
    }
    let [ordered, durable] = times;
    Ok(Round { ready, ordered, durable })
}

fn report(
    what: &str,
    rounds: usize,
    mut run: impl FnMut() -> Result<Round, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut all = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        all.push(run()?);
    }
    let median = |of: fn(&Round) -> Duration| {
        let mut times: Vec<Duration> = all.iter().map(of).collect();
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    println!(
        "{what:>8} killed: ready after {:6.1} ms, a batch ordered after {:6.1} ms, durable after \
         {:6.1} ms",
        median(|round| round.ready),
        median(|round| round.ordered),
        median(|round| round.durable)
    );
    Ok(())
}
