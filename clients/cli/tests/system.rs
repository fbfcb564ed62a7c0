//! The tool with a real system: control and brokers as child processes.
//!
//! Needs landfall-control and landfall-broker beside the tool: `cargo build --workspace --bins`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Longest wait for anything; far beyond what a slow machine needs.
const WAIT: Duration = Duration::from_secs(60);

/// The tool, away from the machine's own configuration.
fn landfall() -> Command {
    let tool = Path::new(env!("CARGO_BIN_EXE_landfall"));
    for program in ["landfall-control", "landfall-broker"] {
        assert!(
            tool.with_file_name(program).is_file(),
            "{program} is not beside {}: build it with `cargo build --workspace --bins`",
            tool.display()
        );
    }
    let mut command = Command::new(tool);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LANDFALL")) {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME").env("NO_COLOR", "1");
    command.current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running `landfall up`.
struct System {
    child: Child,
    address: String,
}

impl System {
    fn start(brokers: u32) -> Self {
        Self::start_with(brokers, &[])
    }

    fn start_with(brokers: u32, more: &[&str]) -> Self {
        let mut child = landfall()
            .args(["up", "--control", "127.0.0.1:0", "--pool-bytes", "256M"])
            .args(["--brokers", &brokers.to_string()])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(address) = line.trim_end().strip_prefix("ready http://") else {
            let mut stderr = String::new();
            child.kill().unwrap();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("no ready line but {line:?}: {stderr}");
        };
        Self { address: address.to_owned(), child }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = landfall();
        command.args(arguments).args(["--control", &self.address]);
        command
    }

    /// Runs the tool with `input` on stdin.
    fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A tool that fails early does not read its stdin.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn ok(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = self.run(arguments, input);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        text(&output.stdout)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let document: Value = serde_json::from_str(&self.ok(arguments, b"")).unwrap();
        assert_eq!(document["schema_version"], 1, "{arguments:?}");
        document
    }

    /// Asks the system to stop and returns its status and what it said.
    fn stop(mut self) -> (Option<i32>, String) {
        signal(self.child.id(), Signal::SIGTERM);
        end(&mut self.child)
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // The children die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Stops a process until it is told to go on.
fn stop(pid: u32) {
    signal(pid, Signal::SIGSTOP);
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    until("it is stopped", || stat().contains(") T "));
}

/// Waits for the end of a process: its status, and what it said.
fn end(child: &mut Child) -> (Option<i32>, String) {
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().code(), stderr)
}

/// Processes that one has started.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children"));
    let all: Vec<String> = tasks.filter_map(|task| of(task).ok()).collect();
    all.join(" ").split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn lives(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < deadline, "waited {WAIT:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_published_is_read_back_in_order_over_every_transport() {
    let system = System::start(2);
    let lines: String = (0..5000).map(|number| format!("line {number}\n")).collect();
    for order in ["none", "broker", "total", "stream", "strong"] {
        let topic = format!("t-{order}");
        let made = system.json(&["topic", "create", &topic, "--order", order, "-o", "json"]);
        assert_eq!((&made["name"], &made["order"]), (&topic.clone().into(), &order.into()));
        let mut expected = String::new();
        for transport in ["memory", "tcp"] {
            let publish = ["publish", &topic, "--transport", transport, "--broker", "1"];
            assert_eq!(system.ok(&publish, lines.as_bytes()), "", "stdout is for data");
            expected.push_str(&lines);
        }
        for transport in ["memory", "tcp"] {
            let subscribe = ["subscribe", &topic, "--until-end", "--audit"];
            let output = system.run(&[&subscribe[..], &["--transport", transport]].concat(), b"");
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{order} over {transport}: {stderr}");
            assert!(text(&output.stdout) == expected, "{order} over {transport} differs");
            assert!(stderr.contains("0 violations"), "{stderr}");
        }
        system.ok(&["topic", "rm", &topic], b"");
    }
    let (status, said) = system.stop();
    assert_eq!((status, said.as_str()), (Some(0), ""));
}

#[test]
fn json_lines_have_every_field_and_keys_come_back() {
    let system = System::start(1);
    system.ok(&["topic", "create", "keyed", "--order", "strong"], b"");
    let publish = ["publish", "keyed", "--key-separator", "\\t", "--client-id", "77"];
    system.ok(&publish, b"k1\tv1\nplain\n\xff\tb\xfe\nlast without newline");
    let lines = system.ok(&["subscribe", "keyed", "--until-end", "-o", "json"], b"");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    for (position, line) in lines.iter().enumerate() {
        assert_eq!(line["schema_version"], 1);
        assert_eq!(line["position"], position);
        assert_eq!(line["client"], 77);
        assert_eq!(line["log"], 32);
        assert_eq!(line["broker"], 0);
        assert!(line["sequence"].is_u64() && line["timestamp"].as_u64().unwrap() > 0);
    }
    assert_eq!((&lines[0]["key"], &lines[0]["payload"]), (&"k1".into(), &"v1".into()));
    assert_eq!((&lines[1]["key"], &lines[1]["payload"]), (&Value::Null, &"plain".into()));
    assert_eq!(lines[2]["key"]["base64"], "/w==");
    assert_eq!(lines[2]["payload"]["base64"], "Yv4=");
    assert_eq!(lines[3]["payload"], "last without newline");
    let from = system.ok(&["subscribe", "keyed", "--from", "2", "--count", "1"], b"");
    assert!(from.starts_with('b'), "{from:?}");
    let time = lines[0]["timestamp"].as_u64().unwrap() - 1;
    let from =
        system.ok(&["subscribe", "keyed", "--from", &format!("@{time}"), "--count", "1"], b"");
    assert_eq!(from, "v1\n");
}

#[test]
fn a_line_that_comes_slowly_is_published_after_its_linger() {
    let system = System::start(1);
    system.ok(&["topic", "create", "slow"], b"");
    let mut publish = system.command(&["publish", "slow", "--linger", "5ms"]);
    publish.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut publish = publish.spawn().unwrap();
    let mut stdin = publish.stdin.take().unwrap();
    for number in 0..3 {
        stdin.write_all(format!("{number}\n").as_bytes()).unwrap();
        let from = number.to_string();
        let got = system.ok(&["subscribe", "slow", "--from", &from, "--count", "1"], b"");
        assert_eq!(got, format!("{number}\n"), "stdin is still open");
    }
    drop(stdin);
    let output = publish.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("3 messages reached the level ordered"));
}

#[test]
fn a_reader_that_has_enough_ends_a_subscription_quietly() {
    let system = System::start(1);
    system.ok(&["topic", "create", "long"], b"");
    let lines = "a line of some length\n".repeat(100_000);
    system.ok(&["publish", "long"], lines.as_bytes());
    let mut child = system
        .command(&["subscribe", "long", "--transport", "memory"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn failures_have_status_1_and_a_next_command() {
    let system = System::start(1);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["topic", "describe", "nope"], 1, "next: landfall topic ls"),
        (&["topic", "rm", "nope"], 1, "next: landfall topic ls"),
        (&["publish", "nope"], 1, "next: landfall topic ls"),
        (&["subscribe", "nope"], 1, "next: landfall topic ls"),
        (&["publish", "nope", "--batch-bytes", "64"], 2, "64"),
        (&["subscribe", "nope", "--from", "-1"], 2, "earliest"),
        (&["broker", "forget", "-1"], 2, "0..=255"),
    ];
    for (arguments, status, said) in cases {
        let output = system.run(arguments, b"x\n");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*status), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?} does not say {said:?}: {stderr}");
        assert!(!stderr.contains("describe nope") && !stderr.contains("-- -1"), "{stderr}");
    }
    // Control says so, and no other system would take it.
    let wrong = system.run(&["topic", "create", "t", "--ring-slots", "5"], b"");
    let stderr = text(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("power of two"), "{stderr}");
    // This one has no disk, and another may.
    let disks = system.run(&["topic", "create", "t", "--replicas", "2"], b"");
    assert_eq!(disks.status.code(), Some(1), "{}", text(&disks.stderr));
    system.ok(&["topic", "create", "t"], b"");
    let elsewhere = system.run(&["publish", "t", "--broker", "7"], b"x\n");
    let stderr = text(&elsewhere.stderr);
    assert_eq!(elsewhere.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("next: landfall cluster"), "{stderr}");
    let again = system.run(&["topic", "create", "t"], b"");
    assert_eq!(again.status.code(), Some(1));
    let durable = system.run(&["publish", "t", "--ack", "durable"], b"x\n");
    // What is asked for cannot be, whatever the system does.
    assert_eq!(durable.status.code(), Some(2), "{}", text(&durable.stderr));
    let taken = landfall().args(["up", "--control", &system.address]).output().unwrap();
    let stderr = text(&taken.stderr);
    assert_eq!(taken.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&system.address) && stderr.contains("127.0.0.1:0"), "{stderr}");
}

#[test]
fn a_killed_process_is_started_again_and_said_so_and_nothing_is_left_behind() {
    let system = System::start(2);
    system.ok(&["topic", "create", "t", "--order", "strong"], b"");
    system.ok(&["publish", "t"], b"before\n");
    let cluster = system.json(&["cluster", "-o", "json"]);
    let broker = cluster["brokers"][1]["pid"].as_u64().unwrap();
    signal(broker as u32, Signal::SIGKILL);
    let control = cluster["pid"].as_u64().unwrap();
    until("the broker to come back", || {
        let broker_now = &system.json(&["cluster", "-o", "json"])["brokers"][1];
        broker_now["state"] == "serving" && broker_now["pid"] != broker
    });
    signal(control as u32, Signal::SIGKILL);
    until("control to come back at its address", || {
        let output = system.run(&["cluster", "-o", "json"], b"");
        output.status.success() && text(&output.stdout).contains("\"epoch\":2")
    });
    system.ok(&["publish", "t", "--timeout", "30s"], b"after\n");
    assert_eq!(system.ok(&["subscribe", "t", "--until-end"], b""), "before\nafter\n");
    let cluster = system.json(&["cluster", "-o", "json"]);
    let mut pids = vec![cluster["pid"].as_u64().unwrap()];
    pids.extend(cluster["brokers"].as_array().unwrap().iter().map(|b| b["pid"].as_u64().unwrap()));
    let (status, said) = system.stop();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("broker 1 has ended (killed by SIGKILL); it is started again"), "{said}");
    assert!(said.contains("control was started again"), "{said}");
    for pid in pids {
        assert!(!lives(pid), "process {pid} was left behind");
    }
}

#[test]
fn the_children_of_a_killed_system_die_with_it() {
    let mut system = System::start(1);
    let cluster = system.json(&["cluster", "-o", "json"]);
    let pids = [cluster["pid"].as_u64().unwrap(), cluster["brokers"][0]["pid"].as_u64().unwrap()];
    system.child.kill().unwrap();
    system.child.wait().unwrap();
    until("the children to die", || {
        pids.iter().all(|pid| {
            // A zombie that nobody has reaped yet is dead.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
    });
}

#[test]
fn the_views_show_the_system() {
    let system = System::start(2);
    system.ok(&["topic", "create", "seen"], b"");
    system.ok(&["publish", "seen"], b"a\nb\n");
    let cluster = system.json(&["cluster", "-o", "json"]);
    assert_eq!(cluster["brokers"].as_array().unwrap().len(), 2);
    let topics = system.json(&["topic", "ls", "-o", "json"]);
    assert_eq!(topics["topics"][0]["messages"], 2);
    let counters = system.json(&["counters", "-o", "json"]);
    assert_eq!(counters["processes"].as_array().unwrap().len(), 3);
    assert!(system.json(&["errors", "-o", "json"])["errors"].is_array());
    assert!(system.ok(&["cluster"], b"").contains("serving"));
    assert!(system.ok(&["counters"], b"").contains("messages_ordered_total"));
    assert!(system.ok(&["topic", "describe", "seen"], b"").contains("next position"));
}

#[test]
fn a_control_that_is_stopped_is_named_and_no_other_one_is_advised() {
    let system = System::start(1);
    let pid = system.json(&["cluster", "-o", "json"])["pid"].as_u64().unwrap() as u32;
    signal(pid, Signal::SIGSTOP);
    let outputs = [system.run(&["topic", "ls"], b""), system.run(&["publish", "a"], b"a\n")];
    signal(pid, Signal::SIGCONT);
    for output in outputs {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(&format!("process {pid}")) && said.contains("frozen"), "{said}");
        assert!(!said.contains("landfall up"), "{said}");
    }
    system.ok(&["topic", "ls"], b"");
}

#[test]
fn the_demo_passes_over_a_small_folder() {
    let dir = std::env::temp_dir().join(format!("landfall-demo-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    for number in 0..50_usize {
        std::fs::write(dir.join(format!("sub/{number}")), vec![number as u8; number * 997])
            .unwrap();
    }
    let output = landfall()
        .arg("demo")
        .arg(&dir)
        .args(["-o", "json", "--pool-bytes", "256M", "--chunk-bytes", "1K"])
        .output()
        .unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["pass"], true);
    assert_eq!((&document["files"], &document["files_skipped"]), (&50.into(), &0.into()));
    assert_eq!(document["bytes"], 997 * (49 * 50) / 2);
    assert_eq!(document["publishers"], serde_json::json!(["memory", "tcp", "memory", "tcp"]));
    assert_eq!(document["subscribers"], serde_json::json!(["memory", "tcp"]));
}

/// What a benchmark prints.
fn bench(arguments: &[&str]) -> Value {
    let mut command = landfall();
    command.arg("bench").args(arguments).args(["--pool-bytes", "256M", "-o", "json"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_benchmarks_print_their_fields_and_verify_what_they_moved() {
    let rates = ["bytes_per_second", "messages_per_second", "limit_bytes_per_second", "ratio"];
    let moves = |document: &Value| rates.iter().all(|rate| document[rate].as_f64() > Some(0.0));
    for transport in ["memory", "tcp"] {
        for more in [&[][..], &["--publish-only"], &["--publishers", "2", "--brokers", "2"]] {
            let run = |seconds| {
                let words = ["bw", "--warmup", "0.1", "--transport", transport];
                bench(&[&words[..], &["--seconds", seconds], more].concat())
            };
            // Nothing may arrive within a short time where a machine has much else to do.
            let document = ["0.2", "2", "20"].into_iter().map(run).find(moves);
            let document = document.expect("a run that moved something");
            assert!(document["limit"].is_string());
            let published = &document["published_messages"];
            if more.contains(&"--publish-only") {
                assert_eq!(&document["acknowledged_messages"], published);
            } else {
                assert_eq!(&document["verified_messages"], published);
            }
        }
        let words = ["--transport", transport, "--seconds", "0.2", "--warmup", "0"];
        let document = bench(&[&["lat", "--rate", "500"], &words[..]].concat());
        let fields = ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"];
        let values: Vec<u64> = fields.iter().map(|f| document[f].as_u64().unwrap()).collect();
        assert!(values[0] > 0 && values.is_sorted(), "{document}");
    }
}

#[test]
fn a_benchmark_of_somebodys_system_leaves_no_topic_behind() {
    let system = System::start(1);
    let bench = ["bench", "bw", "--seconds", "0.1", "--warmup", "0", "-o", "json"];
    assert_eq!(system.json(&bench)["schema_version"], 1);
    let topics = system.json(&["topic", "ls", "-o", "json"]);
    assert_eq!(topics["topics"], serde_json::json!([]));
}

/// Control waits for a data directory that another one is just taking, as one does that is stopped.
#[test]
fn a_start_that_waits_is_told_of_ends_when_asked_and_has_a_bound() {
    let data = std::env::temp_dir().join(format!("landfall-waits-{}", std::process::id()));
    let first = data.join("broker-0");
    std::fs::create_dir_all(&first).unwrap();
    let taken = std::fs::File::create(first.join(".system")).unwrap();
    taken.lock().unwrap();
    let up = |more: &[&str]| {
        let mut command = landfall();
        command.args(["up", "--control", "127.0.0.1:0", "--pool-bytes", "256M", "--data"]);
        command.arg(&data).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let late = up(&["--start-timeout", "3s"]).wait_with_output().unwrap();
    let said = text(&late.stderr);
    assert_eq!(late.status.code(), Some(1), "{said}");
    assert!(said.contains("control was not ready within 3") && said.contains("waiting"), "{said}");
    let mut waits = up(&[]);
    let mut lines = BufReader::new(waits.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("control is not ready after") && line.contains("5m"), "{line}");
    signal(waits.id(), Signal::SIGTERM);
    let said: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(waits.wait().unwrap().code(), Some(1), "{said:?}");
    let is_told = said.iter().any(|line| line.contains("told to stop before it served"));
    assert!(is_told, "control ends without good order, and says so: {said:?}");
    // Control cannot end in good order: somebody has stopped it.
    let mut frozen = up(&["--stop-timeout", "1s"]);
    let mut control = Vec::new();
    until("control is started", || {
        control = children(frozen.id());
        !control.is_empty()
    });
    stop(control[0]);
    signal(frozen.id(), Signal::SIGTERM);
    let (status, said) = end(&mut frozen);
    assert_eq!(status, Some(1), "{said}");
    let who = format!("control (process {}, which was stopped by a signal)", control[0]);
    assert!(said.contains(&who) && said.contains("was killed"), "{said}");
    assert!(!lives(control[0].into()), "{who}");
    drop(taken);
    std::fs::remove_dir_all(data).unwrap();
}

#[test]
fn who_does_not_end_at_a_stop_is_told_of_killed_and_named() {
    let mut system = System::start_with(2, &["--stop-timeout", "6s"]);
    let brokers = system.json(&["cluster", "-o", "json"])["brokers"].clone();
    let frozen = brokers[1]["pid"].as_u64().unwrap();
    stop(frozen as u32);
    signal(system.child.id(), Signal::SIGTERM);
    let (status, said) = end(&mut system.child);
    assert_eq!(status, Some(1), "{said}");
    let who = format!("broker 1 (process {frozen}, which was stopped by a signal)");
    let told = format!("{who} has not ended after 5 s: waiting for up to 6s");
    let killed = format!("{who} did not end within 6s of SIGTERM and was killed");
    assert!(said.contains(&told) && said.contains(&killed), "{said}");
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(!error.contains("broker 0") && !error.contains("control"), "{said}");
}

#[test]
fn a_second_signal_is_no_power_cut_and_a_third_is_if_it_was_meant() {
    let mut system = System::start_with(1, &["--stop-timeout", "60s"]);
    let brokers = system.json(&["cluster", "-o", "json"])["brokers"].clone();
    stop(brokers[0]["pid"].as_u64().unwrap() as u32);
    let up = system.child.id();
    signal(up, Signal::SIGTERM);
    let mut lines = BufReader::new(system.child.stderr.take().unwrap()).lines();
    // It waits for the broker, so that each of these comes in its stop.
    let waits = lines.find(|line| line.as_ref().unwrap().contains("has not ended after"));
    assert!(waits.is_some());
    signal(up, Signal::SIGINT);
    let told = lines.find(|line| line.as_ref().unwrap().contains("a further SIGINT or SIGTERM"));
    assert!(told.is_some());
    signal(up, Signal::SIGINT);
    std::thread::sleep(Duration::from_secs(2));
    assert!(system.child.try_wait().unwrap().is_none(), "it came too soon to be meant");
    signal(up, Signal::SIGINT);
    assert_eq!(system.child.wait().unwrap().code(), Some(1));
    assert!(lines.any(|line| line.unwrap().contains("ended at once, as asked")));
}

/// A system with data, stopped in good order, whose next start ends in some way: what it said, and
/// its status. The start behind it goes on where the logs ended.
fn ends_in_good_order(name: &str, next: impl FnOnce(&str) -> (Option<i32>, String)) {
    let data = std::env::temp_dir().join(format!("landfall-{name}-{}", std::process::id()));
    let path = data.to_str().unwrap();
    let system = System::start_with(1, &["--data", path]);
    system.ok(&["topic", "create", "t", "--order", "strong", "--replicas", "2"], b"");
    system.ok(&["publish", "t", "--ack", "durable"], b"one\ntwo\n");
    let (status, said) = system.stop();
    assert_eq!(status, Some(0), "{said}");
    let (_, between) = next(path);
    let system = System::start_with(1, &["--data", path]);
    system.ok(&["publish", "t", "--ack", "durable"], b"three\n");
    let read = system.run(&["subscribe", "t", "--until-end"], b"");
    let (status, said) = system.stop();
    assert_eq!((status, text(&read.stdout)), (Some(0), "one\ntwo\nthree\n".into()), "{said}");
    let all = format!("{between}{said}{}", text(&read.stderr));
    assert!(!all.contains("passed over"), "{all}");
    std::fs::remove_dir_all(data).unwrap();
}

#[test]
fn a_start_that_fails_takes_no_good_order_along() {
    ends_in_good_order("fails", |data| {
        // An address that no RDMA device has: the broker cannot start, and control can.
        let output = landfall()
            .args(["up", "--control", "127.0.0.1:0", "--pool-bytes", "256M"])
            .args(["--data", data, "--verbs", "127.0.0.1"])
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("broker 0 ended before the system was ready"), "{said}");
        (output.status.code(), said)
    });
}

#[test]
fn a_stop_between_two_lives_of_control_is_in_good_order() {
    ends_in_good_order("between", |data| {
        let system = System::start_with(1, &["--data", data]);
        let comm = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let is_control = |pid: &u32| comm(*pid).starts_with("landfall-contro");
        let control = children(system.child.id()).into_iter().find(is_control).unwrap();
        signal(control, Signal::SIGKILL);
        let (status, said) = system.stop();
        assert_eq!(status, Some(0), "{said}");
        (status, said)
    });
}

#[test]
fn a_broker_that_can_say_nothing_serves() {
    let system = System::start(1);
    let cluster = system.json(&["cluster", "-o", "json"]);
    let broker = Path::new(env!("CARGO_BIN_EXE_landfall")).with_file_name("landfall-broker");
    let mut child = Command::new(broker)
        .args(["--pool", cluster["pool"]["path"].as_str().unwrap(), "--number", "1"])
        // It says that this is not there.
        .args(["--read-data", "/nowhere-at-all"])
        .stdout(Stdio::piped())
        .stderr(std::fs::File::options().write(true).open("/dev/full").unwrap())
        .spawn()
        .unwrap();
    let ready = BufReader::new(child.stdout.take().unwrap()).lines().next();
    assert!(ready.is_some_and(|line| line.unwrap().starts_with("ready ")));
    signal(child.id(), Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
