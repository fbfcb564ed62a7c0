//! The life of a real system: starts, deaths, stops.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use common::{System, children, end, landfall, lives, signal, stop, text, until};

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
    // What the control before it had noted is still there.
    let errors = system.ok(&["errors"], b"");
    assert!(errors.contains("broker 1 died: its process is gone"), "{errors}");
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
