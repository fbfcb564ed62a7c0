//! `landfall verify` and `landfall recover` on the pool of a real system, whole and damaged.
//!
//! Needs landfall-control and landfall-broker beside the tool: `cargo build --workspace --bins`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::log::{Found, LogReader};
use landfall_pool::{Memory, Pool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn landfall(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LANDFALL")) {
        command.env_remove(name);
    }
    command.args(arguments).env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME");
    command.current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = landfall(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// A system whose pool is a file, removed at the end.
struct System {
    up: Child,
    address: String,
    pool: PathBuf,
}

impl System {
    fn start(name: &str) -> Self {
        let pool = PathBuf::from(format!("/dev/shm/landfall-cli-{name}-{}", std::process::id()));
        let shown = pool.display().to_string();
        let mut up = landfall(&["up", "--control", "127.0.0.1:0", "--pool", &shown])
            .args(["--pool-bytes", "192M", "--segment-bytes", "2M", "--sessions", "16"])
            .args(["--brokers", "2"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("ready ").expect("a system that is ready");
        Self { up, address: address.to_owned(), pool }
    }

    fn tool(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut all = vec!["--control", &self.address];
        all.extend(arguments);
        run(&all)
    }

    fn publish(&self, topic: &str, lines: u32) {
        let mut publish = landfall(&["--control", &self.address, "publish", topic])
            .args(["--batch-bytes", "4K", "--spread"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text: String = (0..lines).map(|line| format!("line {line}\n")).collect();
        publish.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(publish.wait().unwrap().success());
    }

    fn stop(&mut self) {
        kill(Pid::from_raw(self.up.id() as i32), Signal::SIGTERM).unwrap();
        assert!(self.up.wait().unwrap().success());
    }

    fn path(&self) -> String {
        self.pool.display().to_string()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // It may have been stopped already.
        let _ = self.up.kill();
        let _ = self.up.wait();
        let _ = fs::remove_file(&self.pool);
    }
}

fn document(arguments: &[&str]) -> (i32, Value) {
    let (status, stdout, stderr) = run(arguments);
    let document = serde_json::from_str(&stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}{stderr}"));
    (status, document)
}

#[test]
fn a_pool_is_verified_at_work_at_rest_and_damaged() {
    let mut system = System::start("verify");
    for order in ["strong", "stream", "total", "broker", "none"] {
        let (status, _, stderr) = system.tool(&["topic", "create", order, "--order", order]);
        assert_eq!(status, 0, "{stderr}");
        system.publish(order, 3_000);
    }
    let path = system.path();
    let (status, live) = document(&["verify", &path, "--json"]);
    assert_eq!((status, &live["status"]), (0, &"ok".into()), "{live}");
    assert_eq!((&live["moving"], &live["kind"]), (&true.into(), &"pool".into()), "{live}");
    let (status, _, stderr) = run(&["recover", &path]);
    assert!(status == 2 && stderr.contains("stop it first"), "{status}: {stderr}");

    system.stop();
    let (status, rest) = document(&["verify", &path, "-o", "json"]);
    assert_eq!((status, &rest["schema_version"]), (0, &1.into()), "{rest}");
    assert_eq!(rest["counts"]["errors"], 0, "{rest}");
    assert_eq!(rest["looked"]["topics"], 5, "{rest}");
    let batches = rest["looked"]["batches"].as_u64().unwrap();
    assert!(batches > 20, "{rest}");
    let (status, stdout, _) = run(&["verify", &path]);
    assert!(status == 0 && stdout.contains("0 errors, 0 warnings, 0 notes"), "{stdout}");

    damage(&system.pool);
    let (status, stdout, stderr) = run(&["verify", &path]);
    assert_eq!(status, 1, "{stdout}");
    assert!(stdout.contains("payload checksum") && stdout.contains("what to do"), "{stdout}");
    assert!(stderr.contains("is damaged: 1 error"), "{stderr}");
    let (status, broken) = document(&["verify", &path, "--json"]);
    assert_eq!((status, &broken["status"]), (1, &"error".into()));
    let finding = &broken["findings"][0];
    assert_eq!(finding["check"], "batch", "{finding}");
    assert!(finding["at"].as_u64().is_some() && finding["mend"].is_string(), "{finding}");
    let (status, recovered) = document(&["recover", &path, "--json"]);
    assert_eq!((status, &recovered["done"]), (1, &Value::Array(Vec::new())), "{recovered}");
}

/// Offsets of the header of the segment that has the first batch of topic `strong`, and of that
/// batch.
fn segment_with_a_batch(pool: &Pool) -> (u64, u64) {
    let topic = TopicId(pool.topic_by_name("strong").expect("it was made").id);
    assert!(pool.frontier(topic, SEQUENCED_LOG).entries > 0, "a batch was published");
    let found = LogReader::new(topic, SEQUENCED_LOG).entry(pool, 0);
    let Found::Entry(entry) = found else { panic!("{found:?}") };
    let header = pool.geometry().segment_header(SegmentId(entry.segment)).unwrap();
    (header, pool.at(entry.segment, entry.offset, entry.bytes).unwrap())
}

/// Changes a bit of the first batch's first message.
fn damage(path: &Path) {
    let pool = Pool::attach(path).unwrap();
    let (_, start) = segment_with_a_batch(&pool);
    let body = start + 64 + 16;
    pool.store(body, pool.load(body) ^ 1);
}

#[test]
fn a_segment_that_lost_its_use_is_recovered() {
    let mut system = System::start("recover");
    system.tool(&["topic", "create", "strong", "--order", "strong"]);
    system.publish("strong", 3_000);
    let path = system.path();
    system.stop();
    let (_, before) = document(&["verify", &path, "--json"]);
    {
        let pool = Pool::attach(&system.pool).unwrap();
        let (header, _) = segment_with_a_batch(&pool);
        pool.store(header, 0x99);
    }
    let (status, _) = document(&["verify", &path, "--json"]);
    assert_eq!(status, 1);
    let (status, would) = document(&["recover", &path, "--dry-run", "--json"]);
    assert_eq!(status, 1, "{would}");
    let (status, recovered) = document(&["recover", &path, "--json"]);
    assert_eq!(status, 0, "{recovered}");
    assert!(recovered["done"][0].as_str().unwrap().contains("sealed payload"), "{recovered}");
    let (status, after) = document(&["verify", &path, "--json"]);
    assert_eq!((status, &after["looked"]), (0, &before["looked"]), "{after}");
}

#[test]
fn what_cannot_be_looked_at_is_status_2_and_says_why() {
    let (status, _, stderr) = run(&["verify", "/nonexistent/pool"]);
    assert!(status == 2 && stderr.contains("/nonexistent/pool cannot be checked"), "{stderr}");
    let file = std::env::temp_dir().join(format!("landfall-no-pool-{}", std::process::id()));
    fs::write(&file, vec![b'x'; 8192]).unwrap();
    let (status, _, stderr) = run(&["verify", &file.display().to_string()]);
    fs::remove_file(&file).unwrap();
    assert!(status == 2 && stderr.contains("something else"), "{stderr}");
}

/// No errors where nothing was looked at would be taken for good news.
#[test]
fn a_directory_without_replicas_was_not_checked_and_another_level_is_named() {
    let root = std::env::temp_dir().join(format!("landfall-empty-{}", std::process::id()));
    let broker = root.join("data/broker-0");
    fs::create_dir_all(&broker).unwrap();
    let shown = root.display().to_string();
    for command in ["verify", "recover"] {
        let (status, _, stderr) = run(&[command, &shown]);
        assert!(status == 2 && stderr.contains("whether its disk is mounted"), "{stderr}");
    }
    // As /etc has postgresql/15.
    fs::create_dir_all(root.join("postgresql/15/main")).unwrap();
    let (status, _, stderr) = run(&["verify", &shown]);
    assert!(status == 2 && stderr.contains("there is no topic in it"), "{stderr}");
    fs::write(broker.join(".brokers"), "0\n").unwrap();
    let (status, _, stderr) = run(&["verify", &shown]);
    assert!(status == 2 && stderr.contains("/data, which has brokers' files"), "{stderr}");
    // Whoever kept nothing yet is whole.
    let data = root.join("data").display().to_string();
    let (status, empty) = document(&["verify", &data, "--json"]);
    assert_eq!((status, &empty["kind"]), (0, &"replicas".into()), "{empty}");
    assert_eq!(empty["topics"], Value::Array(Vec::new()), "{empty}");
    let (status, stdout, _) = run(&["recover", &data]);
    assert!(status == 0 && stdout.contains("looked at 0 topics"), "{stdout}");
    // What cannot be read is neither whole nor damaged.
    let topic = broker.join("t/77");
    fs::create_dir_all(&topic).unwrap();
    std::os::unix::fs::symlink("topic.json", topic.join("topic.json")).unwrap();
    for command in ["verify", "recover"] {
        let (status, stdout, stderr) = run(&[command, &data]);
        assert!(status == 2 && stderr.contains("1 file in it could not be read"), "{stderr}");
        assert!(stdout.contains("unread"), "{stdout}");
    }
    // What cannot be listed was not looked at.
    std::os::unix::fs::symlink("b0", topic.join("b0")).unwrap();
    for command in ["verify", "recover"] {
        let (status, _, stderr) = run(&[command, &data]);
        assert!(status == 2 && stderr.contains("Too many levels"), "{stderr}");
    }
    fs::remove_dir_all(broker.join("t")).unwrap();
    let (status, _, stderr) = run(&["up", "--data", &broker.display().to_string()]);
    assert!(status == 2 && stderr.contains("of a single broker"), "{stderr}");
    assert!(!broker.join("broker-0").exists(), "nothing is begun there");
    fs::remove_dir_all(&root).unwrap();
}

/// A disk may stop answering for ever: whoever looks is told which, and of the others.
#[test]
fn a_directory_that_does_not_answer_is_named_and_the_others_are_looked_at() {
    let root = std::env::temp_dir().join(format!("landfall-hangs-{}", std::process::id()));
    for broker in ["broker-0", "broker-1"] {
        fs::create_dir_all(root.join(broker)).unwrap();
    }
    fs::write(root.join("broker-0/.brokers"), "0\n").unwrap();
    let hung = root.join("broker-1");
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&hung.join(".brokers"), mode).unwrap();
    let (status, stdout, stderr) = run(&["verify", &root.display().to_string()]);
    assert!(status == 1 && stdout.contains("in 1 directories"), "{status}: {stdout}");
    let named = format!("{} does not answer", hung.display());
    assert!(stderr.contains(&named) && stdout.contains("  hangs "), "{stderr}{stdout}");
    assert!(stderr.contains("was not looked at as a whole: 1 error"), "{stderr}");
    fs::remove_dir_all(&root).unwrap();
}
