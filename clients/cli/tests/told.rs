//! What people are told of what cannot be, and of what came between.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use landfall_layout::limits::MESSAGE_BYTES_MAX;
use nix::sys::signal::Signal;

use common::{System, landfall, shell, signal, text};

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("landfall-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A topic whose receipts say replicated never gives durable: what is told of it is what there is.
#[test]
fn a_level_that_a_topic_never_gives_is_refused_before_anything_is_sent() {
    let data = Dir::new("levels");
    let system = System::start_with(1, &["--data", data.path()]);
    system.ok(&["topic", "create", "w", "--replicas", "2", "--durability", "window"], b"");
    system.ok(&["topic", "create", "s", "--replicas", "2"], b"");
    system.ok(&["topic", "create", "m"], b"");
    let cases = [
        ("w", "durable", &["durability window", "--ack replicated", "--durability sync"][..]),
        ("m", "replicated", &["no copy on a disk", "--ack ordered", "--replicas 2"]),
    ];
    for (topic, level, said) in cases {
        let output = system.run(&["publish", topic, "--ack", level], b"x\n");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(said.iter().all(|said| stderr.contains(said)), "{stderr}");
        let described = system.json(&["topic", "describe", topic, "-o", "json"]);
        assert_eq!(described["messages"], 0);
    }
    for (topic, level) in [("w", "replicated"), ("s", "replicated"), ("s", "durable")] {
        let output = system.run(&["publish", topic, "--ack", level], b"x\n");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(stderr.contains(&format!("1 messages reached the level {level}")), "{stderr}");
    }
}

#[test]
fn a_line_that_is_too_long_is_named() {
    let system = System::start(1);
    system.ok(&["topic", "create", "t"], b"");
    let mut lines = b"one\ntwo\n".to_vec();
    lines.extend(vec![b'x'; MESSAGE_BYTES_MAX as usize + 1]);
    let output = system.run(&["publish", "t"], &lines);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot publish line 3 of stdin"), "{stderr}");
    assert!(!stderr.contains("next:"), "nothing of the topic says more: {stderr}");
}

#[test]
fn a_subscription_that_a_signal_ends_too_early_says_so() {
    let system = System::start(1);
    system.ok(&["topic", "create", "t"], b"");
    let mut subscribe = system.command(&["subscribe", "t", "--count", "3"]);
    let mut subscribe = subscribe.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // From then on it ends by itself.
    let mut stderr = BufReader::new(subscribe.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    signal(subscribe.id(), Signal::SIGTERM);
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(subscribe.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("a signal asked for it, 3 messages before --count"), "{said}");
    assert!(!said.contains("next:"), "nothing of the topic says more: {said}");
    // Far more than a pipe holds: it cannot be at the end while nobody reads.
    system.ok(&["publish", "t"], "a line of some length\n".repeat(500_000).as_bytes());
    let mut subscribe = system.command(&["subscribe", "t", "--until-end"]);
    let mut subscribe = subscribe.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    subscribe.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    signal(subscribe.id(), Signal::SIGTERM);
    let output = subscribe.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("a signal asked for it, before the end was reached"), "{said}");
}

/// Most of a small pool is what each of many topics needs for one message. None is taken for what
/// brokers keep ahead of need.
#[test]
fn a_message_in_each_of_many_topics_stays() {
    for (order, brokers, topics) in [("total", 1, 6), ("none", 2, 4), ("broker", 1, 9)] {
        let pool = ["--pool-bytes", "64M", "--segment-bytes", "2M"];
        let system = System::start_with(brokers, &pool);
        let name = |i| format!("t{i}");
        for i in 0..topics {
            system.ok(&["topic", "create", &name(i), "--order", order], b"");
            for broker in 0..brokers {
                system.ok(&["publish", &name(i), "--broker", &broker.to_string()], b"m\n");
            }
        }
        for i in 0..topics {
            let read =
                system.ok(&["subscribe", &name(i), "--from", "earliest", "--until-end"], b"");
            assert_eq!(read, "m\n".repeat(brokers as usize), "{order}, topic {i} of {topics}");
        }
    }
}

/// What was closed is not empty.
#[test]
fn a_closed_stdin_is_told_and_publishes_nothing() {
    let system = System::start(1);
    system.ok(&["topic", "create", "a"], b"");
    let tool = env!("CARGO_BIN_EXE_landfall");
    for (given, status) in [("<&-", 2), ("</dev/null", 0)] {
        let script = format!("exec {tool} publish a --control {} {given}", system.address);
        let output = shell(&script).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert_eq!(said.contains("stdin is closed"), status == 2, "{said}");
    }
}

/// A broker of a pool that nobody has made says what it waits for.
#[test]
fn a_broker_without_a_pool_says_that_it_waits() {
    let program = Path::new(env!("CARGO_BIN_EXE_landfall")).with_file_name("landfall-broker");
    let mut broker = Command::new(program);
    broker.args(["--pool", "/dev/shm/landfall-no-such-pool", "--number", "0"]);
    let mut broker = broker.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(broker.stderr.take().unwrap()).read_line(&mut line).unwrap();
    broker.kill().unwrap();
    broker.wait().unwrap();
    assert!(line.contains("waiting up to 10 s for control to make the pool"), "{line}");
}

/// A long linger holds messages back; a signal sends them before it ends the command.
#[test]
fn what_was_read_before_a_signal_is_published_and_counted() {
    let system = System::start(1);
    system.ok(&["topic", "create", "a"], b"");
    let mut publish = system.command(&["publish", "a", "--linger", "1h"]);
    publish.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut publish = publish.spawn().unwrap();
    // Kept: an end of it would send everything.
    let mut lines = publish.stdin.take().unwrap();
    std::io::Write::write_all(&mut lines, &b"m\n".repeat(100)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1_000));
    signal(publish.id(), Signal::SIGINT);
    let (status, said) = common::end(&mut publish);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("100 of 100 messages reached the level ordered"), "{said}");
    let read = system.ok(&["subscribe", "a", "--from", "earliest", "--until-end"], b"");
    assert_eq!(read.lines().count(), 100);
}

#[test]
fn a_measurement_that_cannot_be_is_refused_before_anything_is_measured() {
    let output = landfall().args(["bench", "bw", "--brokers", "0"]).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("say 1 to 32"), "{said}");
    let output = landfall().args(["bench", "bw", "--pool-bytes", "4T"]).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("are available; say a smaller --pool-bytes"), "{said}");
}
