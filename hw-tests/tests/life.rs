//! Brokers that are stopped, seen from where nothing of them can be seen but their lock: what they
//! have is nobody else's, and nobody reads another topic's bytes.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use landfall::{Client, Order, Publisher, Transport};
use landfall_hw_tests::flow::{Promise, Until, audit, check_sent, publish, read};
use landfall_hw_tests::scenarios::tools::tool;
use landfall_hw_tests::{Failure, Rig, Site};
use landfall_layout::BrokerId;
use landfall_pool::Pool;
use landfall_pool::lock::Locks;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

type Outcome = Result<(), Failure>;

/// Longest wait for something that has to come.
const PATIENCE: Duration = Duration::from_secs(30);

fn failure(text: impl Into<String>) -> Failure {
    Failure::new(text)
}

/// A pool that has a name, so that processes of other namespaces find it.
struct Named(PathBuf);

impl Named {
    fn new(name: &str) -> Self {
        Self(format!("/dev/shm/landfall-life-{}-{name}", std::process::id()).into())
    }

    fn start(&self, brokers: usize) -> Result<Site, Failure> {
        Rig::new(Transport::Tcp, brokers).start_with(|config| config.pool = Some(self.0.clone()))
    }

    fn attach(&self) -> Result<Pool, Failure> {
        Pool::attach(&self.0).map_err(|error| failure(error.to_string()))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // Nothing is lost with one that is gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A program started through others. It ends with this value.
struct Wrapped(Child);

impl Wrapped {
    fn start(wrap: &[&str], program: &str, arguments: &[&str]) -> Result<Self, Failure> {
        let program = tool(program)?;
        let mut command = match wrap {
            [] => Command::new(program),
            [first, more @ ..] => {
                let mut command = Command::new(first);
                command.args(more).arg(program);
                command
            }
        };
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        // What `unshare --kill-child` wraps ends with it. One that has ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether this process may make namespaces. Where it may not, what needs one is not shown.
fn may_unshare() -> bool {
    let made = Command::new("unshare").args(["-m", "-n", "-p", "-f", "true"]).status();
    let may = made.is_ok_and(|status| status.success());
    if !may {
        eprintln!("NOT RUN: this process may not make namespaces (unshare -m -n -p -f true)");
    }
    may
}

fn signal(pid: u32, what: Signal) -> Outcome {
    kill(Pid::from_raw(pid.cast_signed()), what).map_err(|error| failure(error.to_string()))
}

fn state(client: &Client, broker: u8) -> Result<String, Failure> {
    let cluster = client.cluster()?;
    let found = cluster.brokers.into_iter().find(|it| it.broker == broker);
    Ok(found.map_or_else(|| "unknown".to_owned(), |it| it.state))
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Outcome {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > end {
            return Err(failure(format!("{what} did not happen within {PATIENCE:?}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A control of another kind in place of the site's own, at the same address.
fn replace_control(site: &mut Site, wrap: &[&str]) -> Result<Wrapped, Failure> {
    let address = site.system.address().trim_start_matches("http://").to_owned();
    let pool = site.system.pool().display().to_string();
    site.system.kill_control();
    // A dead broker's segments would be used again soon.
    let arguments =
        ["--pool", &pool, "--listen", &address, "--kept-ms", "100", "--grace-ms", "100"];
    let control = Wrapped::start(wrap, "landfall-control", &arguments)?;
    let client = site.client.clone();
    eventually("that control answers", || state(&client, 0).is_ok_and(|it| it == "serving"))?;
    Ok(control)
}

/// Two topics are published to through one broker, which is stopped in between: everything that
/// was acknowledged is there, and nothing else.
fn stopped(
    name: &str,
    wrap: &[&str],
    pause: Duration,
    exhaust: impl FnOnce(&Site) -> Vec<TcpStream>,
    meanwhile: &str,
) -> Outcome {
    const BYTES: usize = 40_000;
    let pool = Named::new(name);
    let mut site = pool.start(1)?;
    let control = replace_control(&mut site, wrap)?;
    let topics = [site.topic(Order::Strong)?, site.topic(Order::Strong)?];
    let mut publishers: Vec<Publisher> = Vec::new();
    for (topic, who) in topics.iter().zip(1..) {
        publishers.push(site.publisher(topic).client_id(who).batch_bytes(BYTES as u32).build()?);
    }
    let all = |publishers: &mut Vec<Publisher>, range: std::ops::Range<u64>| -> Outcome {
        for n in range {
            for (publisher, who) in publishers.iter_mut().zip(1..) {
                publish(publisher, who, n..n + 1, BYTES)?;
            }
        }
        for publisher in publishers {
            publisher.flush()?;
        }
        Ok(())
    };
    all(&mut publishers, 0..20)?;
    let incarnation = pool.attach()?.broker(BrokerId::new(0).expect("0 is a number")).incarnation;
    let pid = site.system.broker_pid(0).ok_or_else(|| failure("no broker"))?;
    let held = exhaust(&site);
    signal(pid, Signal::SIGSTOP)?;
    std::thread::sleep(pause);
    if held.is_empty() {
        let now = state(&site.client, 0)?;
        if now != meanwhile {
            signal(pid, Signal::SIGCONT)?;
            return Err(failure(format!("while it was stopped it was {now}, not {meanwhile}")));
        }
    }
    signal(pid, Signal::SIGCONT)?;
    drop(held);
    // Whatever control made of it is done by now.
    std::thread::sleep(Duration::from_millis(500));
    all(&mut publishers, 20..300)?;
    publishers.into_iter().try_for_each(Publisher::close)?;
    for (topic, who) in topics.iter().zip(1..) {
        let reading = read(site.subscriber(topic).build()?, Until::CaughtUp)?;
        check_sent(&reading, &[(who, 300)], Promise::InOrderOnce)?;
        audit(Order::Strong, &[&reading])?;
    }
    let line = pool.attach()?.broker(BrokerId::new(0).expect("0 is a number"));
    if line.incarnation != incarnation {
        return Err(failure("the broker was given up although it was there"));
    }
    drop(control);
    Ok(())
}

fn nothing(_: &Site) -> Vec<TcpStream> {
    Vec::new()
}

#[test]
fn a_control_without_descriptors_takes_no_stopped_broker_for_dead() {
    let idle = |site: &Site| {
        let address = site.system.address().trim_start_matches("http://").to_owned();
        let connections = (0..200).filter_map(|_| TcpStream::connect(&address).ok()).collect();
        std::thread::sleep(Duration::from_millis(200));
        connections
    };
    let wrap = ["prlimit", "--nofile=100:100", "--"];
    stopped("files", &wrap, Duration::from_millis(600), idle, "serving").unwrap();
}

#[test]
fn a_control_in_a_pid_namespace_takes_no_stopped_broker_for_dead() {
    if may_unshare() {
        let wrap = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
        stopped("pids", &wrap, Duration::from_millis(600), nothing, "serving").unwrap();
    }
}

#[test]
fn a_broker_that_names_another_boot_is_not_taken_for_dead_while_its_lock_is_held() {
    if may_unshare() {
        let name = format!("/dev/shm/landfall-life-{}-boot", std::process::id());
        std::fs::write(&name, "01234567-89ab-cdef-0011-223344556677\n").unwrap();
        let script = format!(
            "mount --bind {name} /proc/sys/kernel/random/boot_id && rm -f {name}; exec \"$@\""
        );
        let wrap = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        // Longer than the lease: between hosts this would be the end of it.
        stopped("boots", &wrap, Duration::from_secs(4), nothing, "frozen").unwrap();
        let _ = std::fs::remove_file(&name);
    }
}

#[test]
fn two_processes_are_never_one_broker_whatever_their_namespaces() {
    if !may_unshare() {
        return;
    }
    let pool = Named::new("two");
    let site = pool.start(1).unwrap();
    let before = pool.attach().unwrap().broker(BrokerId::new(0).unwrap()).incarnation;
    for namespace in [&["--net"][..], &["--pid", "--fork", "--kill-child", "--mount-proc"]] {
        let mut second = Command::new("unshare")
            .args(namespace)
            .arg(tool("landfall-broker").unwrap())
            .args(["--number", "0", "--pool"])
            .arg(&pool.0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that serves does not end by itself.
        let ends = eventually("that it ends", || second.try_wait().unwrap().is_some());
        let _ = second.kill();
        let output = second.wait_with_output().unwrap();
        ends.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("another process is broker 0"), "{said}");
    }
    let line = pool.attach().unwrap().broker(BrokerId::new(0).unwrap());
    assert_eq!(line.incarnation, before);
    site.close().unwrap();
}

/// A broker of another host is given up while it is stopped. Hosts of one kernel see each other's
/// locks, so the word that says so is written from here.
#[test]
fn a_broker_that_was_given_up_writes_nothing_when_it_wakes_and_begins_anew() {
    let pool = Named::new("anew");
    let site = pool.start(1).unwrap();
    let topic = site.topic(Order::Strong).unwrap();
    let mut publisher = site.publisher(&topic).client_id(1).batch_bytes(40_000).build().unwrap();
    publish(&mut publisher, 1, 0..20, 40_000).unwrap();
    publisher.flush().unwrap();
    let pid = site.system.broker_pid(0).unwrap();
    let id = BrokerId::new(0).unwrap();
    let seen = pool.attach().unwrap();
    let before = seen.broker(id);
    signal(pid, Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_millis(1_200));
    seen.count_on(id, 0);
    // It lies in the socket when the broker wakes.
    let feeder = std::thread::spawn(move || {
        publish(&mut publisher, 1, 20..60, 40_000).unwrap();
        publisher.flush().unwrap();
        publisher.close().unwrap();
    });
    std::thread::sleep(Duration::from_millis(300));
    let stopped = seen.broker(id);
    signal(pid, Signal::SIGCONT).unwrap();
    eventually("that it begins anew", || seen.broker(id).incarnation != before.incarnation)
        .unwrap();
    assert_eq!(stopped.heartbeat_ns, before.heartbeat_ns.max(stopped.heartbeat_ns));
    assert_eq!(site.system.broker_pid(0), Some(pid), "the same process, another program run");
    feeder.join().unwrap();
    let reading = read(site.subscriber(&topic).build().unwrap(), Until::CaughtUp).unwrap();
    check_sent(&reading, &[(1, 60)], Promise::InOrderOnce).unwrap();
    site.close().unwrap();
}

/// A broker that dies again and again, while another one is published through in a full pool.
/// A publisher that spreads holds the writers' byte of each broker that granted it room, and of no
/// process that it has left.
#[test]
fn a_publisher_over_memory_is_seen_at_each_broker_that_it_writes_to() {
    let run = || -> Outcome {
        let named = Named::new("writers");
        let mut site = named.start(2)?;
        let pool = named.attach()?;
        let locks = Locks::open(&pool)?;
        let [zero, one] = [0, 1].map(|id| BrokerId::new(id).expect("it is a broker's number"));
        let topic = site.topic(Order::Strong)?;
        let builder = site.publisher(&topic).transport(Transport::Memory).client_id(1).spread(true);
        let mut publisher = builder.build()?;
        publish(&mut publisher, 1, 0..200, 100)?;
        publisher.flush()?;
        for broker in [zero, one] {
            assert!(locks.has_writers(broker, None), "no writer is seen at broker {broker}");
        }
        // It was told of nothing: that it may write is seen after the broker's death all the same.
        site.system.kill_broker(1);
        assert!(locks.has_writers(one, None), "it may still write into what was granted");
        site.system.start_broker(1)?;
        // It finds out when it uses that connection, or hears its end.
        let mut sent = 200;
        eventually(
            "that it lets go of what it has left, although it maps that pool still",
            || {
                sent += 10;
                publish(&mut publisher, 1, sent - 10..sent, 100).expect("it is connected");
                publisher.flush().expect("both brokers are there");
                let present = Some(pool.broker(one).incarnation);
                locks.has_writers(one, None) && !locks.has_writers(one, present)
            },
        )?;
        publisher.close()?;
        eventually("that no writer is left", || {
            [zero, one].into_iter().all(|broker| !locks.has_writers(broker, None))
        })?;
        site.close()
    };
    run().unwrap();
}

#[test]
fn a_broker_that_loops_through_crashes_does_not_stop_the_pools_retention() {
    let rig = Rig::new(Transport::Tcp, 2);
    let mut site = rig.start_with(|config| config.restart = true).unwrap();
    let topic = site.topic(Order::Total).unwrap();
    let builder = site.publisher(&topic).client_id(1).broker(0).batch_bytes(1 << 20);
    let feeder = std::thread::spawn(move || -> Outcome {
        let mut publisher = builder.build()?;
        // More than the pool holds, and for longer than one grace.
        for n in 0..180 {
            publish(&mut publisher, 1, n..n + 1, 1 << 20)?;
            std::thread::sleep(Duration::from_millis(25));
        }
        publisher.flush()?;
        publisher.close()?;
        Ok(())
    });
    while !feeder.is_finished() {
        std::thread::sleep(Duration::from_millis(200));
        site.system.kill_broker(1);
        // Not at once, as `tick` would after several deaths: a loop that is as fast as it can be.
        site.system.start_broker(1).unwrap();
    }
    feeder.join().unwrap().unwrap();
}
