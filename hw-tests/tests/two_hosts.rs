//! Two hosts, each with its own kernel and NIC, on one CXL device: what host a and what host b do.
//! Each part is a program of its own that the emulated rack runs on its host (`scripts/rack`); they
//! meet by files in a folder that both see.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use landfall::api::{Topic, TopicSpec};
use landfall::{Client, Order, Start, Subscriber, Transport};
use landfall_hw_tests::Failure;
use landfall_hw_tests::flow::{Promise, Reading, Until, audit, check_sent, message, read};
use landfall_hw_tests::rig::patience;

macro_rules! ensure {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(Failure::new(format!($($text)+)));
        }
    };
}

/// Messages each publisher sends where all goes well.
const EACH: u64 = 300;
/// Messages before and after the power cut.
const AROUND_THE_CUT: u64 = 400;

fn word(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: scripts/rack sets it"))
}

fn share(name: &str) -> PathBuf {
    PathBuf::from(word("RACK_SHARE")).join(name)
}

/// Puts a file where the other host sees it, whole or not at all.
fn tell(name: &str, text: &str) -> Result<(), Failure> {
    let part = share(&format!("{name}.part"));
    std::fs::write(&part, text)?;
    Ok(std::fs::rename(part, share(name))?)
}

/// What the other host told; it is waited for.
fn told(name: &str) -> Result<String, Failure> {
    let deadline = Instant::now() + 10 * patience();
    loop {
        match std::fs::read_to_string(share(name)) {
            Ok(text) => return Ok(text),
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            Err(error) => return Err(Failure::new(format!("waiting for {name}: {error}"))),
        }
    }
}

/// A program of the system, killed when it is dropped.
struct Program(Child);

impl Program {
    fn start(name: &str, arguments: &[&str]) -> Result<Self, Failure> {
        let program = PathBuf::from(word("LANDFALL_BIN_DIR")).join(name);
        let mut child = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| Failure::new("no stdout"))?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = lines.next().transpose()?.unwrap_or_default();
        eprintln!("{name}: {ready}");
        let program = Self(child);
        ensure!(ready.starts_with("ready"), "{name} did not become ready: {ready:?}");
        Ok(program)
    }

    /// Control on this host, with the pool on the CXL device.
    fn control() -> Result<Self, Failure> {
        let bytes = (word("RACK_CXL_MIB").parse::<u64>().unwrap_or(512) << 20).to_string();
        let listen = format!("{}:7400", word("RACK_ADDRESS"));
        let pool = ["--pool", &word("RACK_DAX"), "--pool-bytes", &bytes];
        let sizes = ["--segment-bytes", "2097152", "--sessions", "64", "--listen", &listen];
        Self::start("landfall-control", &[&pool[..], &sizes[..]].concat())
    }

    fn broker(number: &str) -> Result<Self, Failure> {
        let listen = format!("{}:0", word("RACK_ADDRESS"));
        let pool = ["--pool", &word("RACK_DAX"), "--number", number];
        let sockets = ["--listen", &listen, "--verbs", &listen];
        Self::start("landfall-broker", &[&pool[..], &sockets[..]].concat())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn client(host: &str) -> Result<Client, Failure> {
    Ok(Client::new(&format!("http://{host}:7400"))?)
}

/// Waits until so many brokers serve.
fn brokers(client: &Client, count: usize) -> Result<(), Failure> {
    let deadline = Instant::now() + 3 * patience();
    loop {
        let serving = client
            .cluster()
            .map(|cluster| cluster.brokers.iter().filter(|broker| broker.is_serving()).count());
        if matches!(serving, Ok(serving) if serving == count) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{count} brokers were expected, there are {serving:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn subscriber(
    client: &Client,
    topic: &Topic,
    transport: Transport,
    broker: u8,
) -> Result<Subscriber, Failure> {
    let builder = client.subscriber(&topic.name).from(Start::Earliest).timeout(3 * patience());
    Ok(builder.transport(transport).broker(broker).build()?)
}

/// Publishes through a broker: message by message, with a flush now and then.
fn publish(
    client: &Client,
    topic: &Topic,
    who: u64,
    via: Transport,
    to: u8,
) -> Result<(), Failure> {
    let builder = client.publisher(&topic.name).client_id(who + 1).timeout(3 * patience());
    let mut publisher = builder.transport(via).broker(to).batch_bytes(4 << 10).build()?;
    for n in 0..EACH {
        publisher.publish(&message(who, n, 200 + (n % 7) as usize * 300))?;
    }
    Ok(publisher.close()?)
}

fn positions(reading: &Reading) -> Vec<(u64, &[u8])> {
    reading.messages.iter().map(|read| (read.position, read.payload.as_slice())).collect()
}

/// Host a: control and a broker, until host b is done.
#[test]
#[ignore = "one half of a scenario of scripts/rack"]
fn order_across_hosts_a() {
    let run = || -> Result<(), Failure> {
        let _control = Program::control()?;
        let _broker = Program::broker("0")?;
        tell("a-ready", &word("RACK_ADDRESS"))?;
        told("b-done")?;
        Ok(())
    };
    run().unwrap_or_else(|failure| panic!("{failure}"));
}

/// Host b: a broker, publishers that write by RDMA into both hosts' windows, and subscribers over
/// verbs and through this host's own mapping of the device. All see one order.
#[test]
#[ignore = "one half of a scenario of scripts/rack"]
fn order_across_hosts_b() {
    let run = || -> Result<(), Failure> {
        let client = client(&told("a-ready")?)?;
        let _broker = Program::broker("1")?;
        brokers(&client, 2)?;
        for order in [Order::Total, Order::Strong] {
            let topic = client.create_topic(&TopicSpec::new(format!("across-{order}"), order))?;
            one_order(&client, &topic, order)?;
        }
        tell("b-done", "")
    };
    run().unwrap_or_else(|failure| panic!("{failure}"));
}

fn one_order(client: &Client, topic: &Topic, order: Order) -> Result<(), Failure> {
    let ways = [(Transport::Verbs, 0), (Transport::Memory, 1), (Transport::Verbs, 1)];
    let readings = std::thread::scope(|scope| -> Result<Vec<Reading>, Failure> {
        let mut readers = Vec::new();
        for (transport, broker) in ways {
            let subscriber = subscriber(client, topic, transport, broker)?;
            readers.push(scope.spawn(move || read(subscriber, Until::Messages(3 * EACH))));
        }
        let mut writers = Vec::new();
        for (who, (transport, broker)) in (0_u64..).zip(ways) {
            writers.push(scope.spawn(move || publish(client, topic, who, transport, broker)));
        }
        for writer in writers {
            writer.join().map_err(|_| Failure::new("a publisher panicked"))??;
        }
        let joined = readers
            .into_iter()
            .map(|reader| reader.join().map_err(|_| Failure::new("a subscriber panicked"))?);
        joined.collect()
    })?;
    let sent = [(0, EACH), (1, EACH), (2, EACH)];
    for reading in &readings {
        check_sent(reading, &sent, Promise::InOrderOnce)?;
        ensure!(positions(reading) == positions(&readings[0]), "the hosts saw different orders");
    }
    audit(order, &readings.iter().collect::<Vec<_>>())?;
    eprintln!("{order}: {} messages, one order over verbs and memory", 3 * EACH);
    Ok(())
}

/// Host a: control and a broker, until its power is cut; and again after that.
#[test]
#[ignore = "one half of a scenario of scripts/rack"]
fn power_cut_a() {
    let run = || -> Result<(), Failure> {
        let _control = Program::control()?;
        let _broker = Program::broker("0")?;
        let again = share("a-ready").exists();
        tell(if again { "a-again" } else { "a-ready" }, &word("RACK_ADDRESS"))?;
        told("b-done")?;
        Ok(())
    };
    run().unwrap_or_else(|failure| panic!("{failure}"));
}

/// Host b: publishes into host a's pool by RDMA while a's power is cut, goes on when it is back,
/// and finds all of it, in order and once.
#[test]
#[ignore = "one half of a scenario of scripts/rack"]
fn power_cut_b() {
    let run = || -> Result<(), Failure> {
        let client = client(&told("a-ready")?)?;
        let _broker = Program::broker("1")?;
        brokers(&client, 2)?;
        let topic = client.create_topic(&TopicSpec::new("cut", Order::Strong))?;
        let builder = client.publisher(&topic.name).client_id(1).transport(Transport::Verbs);
        let builder = builder.broker(0).batch_bytes(4 << 10).timeout(30 * patience());
        let mut publisher = builder.build()?;
        for n in 0..AROUND_THE_CUT {
            publisher.publish(&message(0, n, 700))?;
        }
        publisher.flush()?;
        // What was acknowledged is in memory that does not depend on a: read through b's own.
        let before = subscriber(&client, &topic, Transport::Memory, 1)?;
        let before = read(before, Until::Messages(AROUND_THE_CUT))?;
        check_sent(&before, &[(0, AROUND_THE_CUT)], Promise::InOrderOnce)?;
        tell("cut-now", "")?;
        for n in AROUND_THE_CUT..2 * AROUND_THE_CUT {
            publisher.publish(&message(0, n, 700))?;
            std::thread::sleep(Duration::from_millis(5));
        }
        told("a-again")?;
        publisher.flush()?;
        let stats = publisher.stats();
        ensure!(stats.reconnects > 0, "the publisher noticed nothing: {stats:?}");
        publisher.close()?;
        for (transport, broker) in [(Transport::Memory, 1), (Transport::Verbs, 0)] {
            let after = subscriber(&client, &topic, transport, broker)?;
            let after = read(after, Until::Messages(2 * AROUND_THE_CUT))?;
            check_sent(&after, &[(0, 2 * AROUND_THE_CUT)], Promise::InOrderOnce)?;
            let kept = &positions(&after)[..before.messages.len()];
            ensure!(kept == positions(&before), "an order that was shown has changed");
            audit(Order::Strong, &[&after])?;
        }
        eprintln!("power cut: {} reconnects, {} resubmitted", stats.reconnects, stats.resubmitted);
        tell("b-done", "")
    };
    run().unwrap_or_else(|failure| panic!("{failure}"));
}
