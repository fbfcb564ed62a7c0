//! The longest turn of each loop that has a lease, in a system with much of everything: topics,
//! sessions, connections and batches, and with a control and a broker that are killed.
//!
//! Expected: tens of milliseconds at most, where the machine has a core for each process. No turn
//! does more than a bounded part of what grows with any of these: the keeper reads 65,536 entries,
//! a broker makes 64 send calls. The limit is the heartbeat's lease: a loop that is away for longer
//! is taken for dead.
//! The binaries of the same profile have to be there: `cargo build --release --workspace --bins`.

use std::error::Error;
use std::time::{Duration, Instant};

use landfall::api::TopicSpec;
use landfall::local::{LocalConfig, LocalSystem};
use landfall::{Event, Order, Publisher, Start, Subscriber, Transport};
use landfall_layout::limits::HEARTBEAT_LEASE_NS;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Loops, as the counters name them.
const LOOPS: [&str; 3] =
    ["keeper_turn_longest_ns", "sequencer_turn_longest_ns", "broker_turn_longest_ns"];

/// How much of everything.
struct Load {
    topics: usize,
    /// Sessions of publishers that lost their broker, beside those of the connections.
    sessions: usize,
    /// Half of them publish, half read.
    connections: usize,
    batches: u64,
}

const FULL: Load = Load { topics: 250, sessions: 8_000, connections: 2_000, batches: 10_000_000 };
const SHORT: Load = Load { topics: 10, sessions: 40, connections: 20, batches: 100_000 };

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo runs benchmarks as tests too: then a short one shows that it works.
    let is_test = !std::env::args().any(|word| word == "--bench");
    let load = if is_test { SHORT } else { FULL };
    let Load { topics, sessions, connections, batches } = load;
    raise_descriptors()?;
    let mut system = LocalSystem::start(LocalConfig {
        brokers: 1,
        pool_bytes: if is_test { 1 << 30 } else { 10 << 30 },
        segment_bytes: 2 << 20,
        sessions: 16_384,
        session_lease: Duration::from_secs(3600),
        ..LocalConfig::default()
    })?;
    println!(
        "{topics} topics, {} sessions, {connections} connections, {batches} batches; the longest \
         turn so far of each loop, ms; the limit is the heartbeat's lease, {} ms",
        sessions + connections / 2,
        HEARTBEAT_LEASE_NS / 1_000_000
    );
    show(&system, "begun", Instant::now())?;

    let since = Instant::now();
    for number in 0..topics {
        let bound = if number == 0 { Some(8 << 30) } else { None };
        let name = format!("topic-{number}");
        let spec = TopicSpec { retention_bytes: bound, ..TopicSpec::new(name, Order::Total) };
        system.client().create_topic(&spec)?;
    }
    show(&system, "topics made", since)?;

    let since = Instant::now();
    for _ in 0..sessions / connections.max(1) {
        let left = publishers(&system, topics, connections)?;
        system.kill_broker(0);
        system.start_broker(0)?;
        drop(left);
    }
    show(&system, "sessions left", since)?;

    let since = Instant::now();
    let _publishers = publishers(&system, topics, connections / 2)?;
    let _readers = subscribers(&system, connections / 2, |at| at % topics)?;
    show(&system, "connected", since)?;

    let since = Instant::now();
    fill(&system, batches)?;
    show(&system, "batches ordered", since)?;

    let since = Instant::now();
    system.kill_control();
    system.start_control()?;
    fill(&system, 1)?;
    // Retention and padding look at everything again.
    std::thread::sleep(Duration::from_secs(2));
    show(&system, "control killed", since)?;

    let since = Instant::now();
    system.kill_broker(0);
    system.start_broker(0)?;
    fill(&system, 1)?;
    // What the dead broker had is padded when its lease is over.
    std::thread::sleep(Duration::from_secs(12));
    show(&system, "broker killed", since)?;

    let since = Instant::now();
    let mut readers = subscribers(&system, connections / 2, |_| 0)?;
    let until = Instant::now() + Duration::from_secs(if is_test { 1 } else { 10 });
    let mut read = 0_u64;
    while Instant::now() < until {
        for reader in &mut readers {
            if let Event::Batch(batch) = reader.next(Duration::ZERO)? {
                read += batch.messages().count() as u64;
            }
        }
    }
    println!("{:>16}: {read} messages read by {} at once", "", readers.len());
    show(&system, "all catch up", since)?;
    system.stop()?;
    Ok(())
}

/// A descriptor for each connection, and the brokers inherit it.
fn raise_descriptors() -> Result<(), Box<dyn Error>> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

fn publishers(
    system: &LocalSystem,
    topics: usize,
    count: usize,
) -> Result<Vec<Publisher>, Box<dyn Error>> {
    let client = system.client();
    let one = |number: usize| {
        let publisher = client.publisher(&format!("topic-{}", number % topics));
        publisher.transport(Transport::Tcp).memory_bytes(1 << 20).timeout(TIMEOUT).build()
    };
    Ok((0..count).map(one).collect::<Result<_, _>>()?)
}

fn subscribers(
    system: &LocalSystem,
    count: usize,
    topic: impl Fn(usize) -> usize,
) -> Result<Vec<Subscriber>, Box<dyn Error>> {
    let client = system.client();
    let one = |number: usize| {
        let subscriber = client.subscriber(&format!("topic-{}", topic(number)));
        subscriber.transport(Transport::Tcp).from(Start::Earliest).timeout(TIMEOUT).build()
    };
    Ok((0..count).map(one).collect::<Result<_, _>>()?)
}

/// Batches of one message each, in the first topic.
fn fill(system: &LocalSystem, batches: u64) -> Result<(), Box<dyn Error>> {
    let mut publisher = system.client().publisher("topic-0").timeout(TIMEOUT).build()?;
    for _ in 0..batches {
        publisher.publish(&[7; 16])?;
        publisher.seal()?;
    }
    publisher.flush()?;
    Ok(publisher.close()?)
}

fn show(system: &LocalSystem, what: &str, since: Instant) -> Result<(), Box<dyn Error>> {
    let processes = system.client().counters()?;
    let longest = LOOPS.map(|name| {
        let all = processes.iter().filter_map(|process| process.counters.get(name));
        all.copied().max().unwrap_or_default() as f64 / 1e6
    });
    let [keeper, sequencer, broker] = longest;
    println!(
        "{what:>16}: keeper {keeper:7.2}, sequencer {sequencer:7.2}, broker {broker:7.2}   (after \
         {:.1} s)",
        since.elapsed().as_secs_f64()
    );
    Ok(())
}
