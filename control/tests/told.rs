//! A control that is told to stop before it serves.

mod fake;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio, id};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fake::Broker;
use fake::homes::{self, Two};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::topic::Order;
use landfall_pool::Pool;
use landfall_replica::owner::SYSTEM_FILE;
use landfall_replica::{Ended, EndedLog, TopicFile};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// It ends, though whom it waits for does not go on.
#[test]
fn a_control_that_waits_for_a_directory_hears_that_it_is_to_stop() {
    // A pool is a file in memory.
    let folder = Path::new("/dev/shm").join(format!("landfall-told-{}", id()));
    let data = folder.join("data");
    fs::create_dir_all(&data).unwrap();
    // As another control has it that is stopped while it takes the directory.
    let taken = File::create(data.join(SYSTEM_FILE)).unwrap();
    taken.lock().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_landfall-control"))
        .arg("--pool")
        .arg(folder.join("pool"))
        .args(["--pool-bytes", "48M", "--segment-bytes", "2M", "--sessions", "64"])
        .args(["--listen", "127.0.0.1:0", "--restore"])
        .arg(&data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let waits = said.next().expect("it says for what it waits");
    assert!(waits.contains("waiting: "), "{waits}");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let ends = said.next().expect("it says that it was told to stop");
    assert!(ends.contains("told to stop before it served"), "{ends}");
    assert_eq!(child.wait().unwrap().code(), Some(1), "that is no end in good order");
    drop(taken);
    fs::remove_dir_all(folder).unwrap();
}

/// A log whose disk is full, that nobody reads any more, or that nobody reads for now, keeps nobody
/// from bringing topics back.
#[test]
fn a_control_that_can_say_nothing_brings_topics_back_and_ends_in_good_order() {
    let two = Two::new("told-nobody");
    for (number, (data, topic)) in two.data().iter().zip(two.topics()).enumerate() {
        fs::create_dir_all(&topic).unwrap();
        homes::name(data, number);
        homes::said(&homes::entry(Order::Strong, 2)).write(&topic).unwrap();
    }
    let pool = Path::new("/dev/shm").join(format!("landfall-told-nobody-{}", id()));
    let start = |stderr: Stdio| {
        let mut control = Command::new(env!("CARGO_BIN_EXE_landfall-control"));
        control.arg("--pool").arg(&pool).args(["--pool-bytes", "48M", "--segment-bytes", "2M"]);
        control.args(["--sessions", "64", "--listen", "127.0.0.1:0", "--restore"]);
        control.arg(&two.data()[0]).arg("--restore").arg(&two.data()[1]);
        let mut child = control.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        // One that stands still ends no test.
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(30));
            let _ = kill(pid, Signal::SIGKILL);
        });
        let ready = BufReader::new(child.stdout.take().unwrap()).lines().next();
        assert!(ready.is_some_and(|line| line.unwrap().starts_with("ready ")));
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        fs::remove_file(&pool).unwrap();
    };
    start(File::options().write(true).open("/dev/full").unwrap().into());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    start(writer.into());
    let (reader, mut full) = std::io::pipe().unwrap();
    fcntl(&full, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while full.write(&[b'x'; 4096]).is_ok() {}
    // What the kernel does with a write belongs to all who have the pipe.
    fcntl(&full, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    start(full.into());
    drop(reader);
}

/// A directory counts once, whatever it is called, and a start that is refused changes nothing.
#[test]
fn a_directory_that_is_named_twice_counts_once_and_a_refused_start_takes_nothing_back() {
    let two = Two::new("told-twice");
    for (number, (data, topic)) in two.data().iter().zip(two.topics()).enumerate() {
        fs::create_dir_all(&topic).unwrap();
        homes::name(data, number);
        homes::said(&homes::entry(Order::Strong, 2)).write(&topic).unwrap();
    }
    let [one, other] = two.data();
    let link = two.0.join("link");
    std::os::unix::fs::symlink(&one, &link).unwrap();
    let pool = Path::new("/dev/shm").join(format!("landfall-told-twice-{}", id()));
    let start = |data: &[&Path]| {
        let mut control = Command::new(env!("CARGO_BIN_EXE_landfall-control"));
        control.arg("--pool").arg(&pool).args(["--pool-bytes", "48M", "--segment-bytes", "2M"]);
        control.args(["--sessions", "64", "--listen", "127.0.0.1:0"]);
        for data in data {
            control.arg("--restore").arg(data);
        }
        let control = control.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = control.spawn().unwrap();
        let ready = BufReader::new(child.stdout.take().unwrap()).lines().next();
        if ready.is_some() {
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        }
        let ended = child.wait_with_output().unwrap();
        (ended.status.success(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let has_ended = || two.topics().map(|topic| TopicFile::read(&topic).unwrap().ended.is_some());
    let (is_well, said) = start(&[&one, &link, &other, &one]);
    assert!(is_well && has_ended() == [true, true], "{said}");
    let (is_well, said) = start(&[&one]);
    assert!(!is_well && said.contains("2 topic directories say"), "{said}");
    assert_eq!(has_ended(), [true, true], "the start was refused");
    let (is_well, said) = start(&[&one, &other]);
    assert!(is_well && has_ended() == [true, true], "{said}");
    fs::remove_file(pool).unwrap();
}

/// The pool before ended in good order, and directories say where: so they do when the next control
/// was told to stop at once, wherever it was by then.
#[test]
fn a_stop_before_it_serves_forgets_no_end_in_good_order() {
    let two = Two::new("told-ended");
    let entries = BTreeMap::from([(0, 0), (1, 0)]);
    let log = EndedLog { index: 60, position: 600, entries, ..EndedLog::default() };
    let ended = Ended { logs: [(SEQUENCED_LOG, log)].into() };
    for (number, (data, topic)) in two.data().iter().zip(two.topics()).enumerate() {
        fs::create_dir_all(&topic).unwrap();
        homes::name(data, number);
        let file = homes::said(&homes::entry(Order::Strong, 2));
        TopicFile { life: 1, ended: Some(ended.clone()), ..file }.write(&topic).unwrap();
    }
    let pool = Path::new("/dev/shm").join(format!("landfall-told-pool-{}", id()));
    for wait_ms in [0, 3, 8, 15, 30, 60, 120] {
        let mut control = Command::new(env!("CARGO_BIN_EXE_landfall-control"));
        control.arg("--pool").arg(&pool).args(["--pool-bytes", "48M", "--segment-bytes", "2M"]);
        control.args(["--sessions", "64", "--listen", "127.0.0.1:0"]);
        for data in two.data() {
            control.arg("--restore").arg(data);
        }
        let mut child = control.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(wait_ms));
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let status = child.wait().unwrap();
        // Killed by it: it had done nothing yet.
        let is_in_order = status.success() || status.code().is_none();
        for topic in two.topics().iter().filter(|_| is_in_order) {
            let said = TopicFile::read(topic).unwrap();
            assert!(said.ended.is_some(), "{wait_ms} ms: {status}");
        }
    }
    let _ = fs::remove_file(pool);
}

/// Where each process is a service of its own, all are told at the same time.
#[test]
fn a_control_that_is_told_to_stop_with_a_broker_ends_behind_it_and_says_where_logs_ended() {
    let two = Two::new("told-together");
    for (number, (data, topic)) in two.data().iter().zip(two.topics()).enumerate() {
        fs::create_dir_all(&topic).unwrap();
        homes::name(data, number);
        homes::said(&homes::entry(Order::Strong, 2)).write(&topic).unwrap();
    }
    let [one, other] = two.data();
    let path = Path::new("/dev/shm").join(format!("landfall-told-together-{}", id()));
    let mut child = Command::new(env!("CARGO_BIN_EXE_landfall-control"))
        .arg("--pool")
        .arg(&path)
        .args(["--pool-bytes", "48M", "--segment-bytes", "2M", "--sessions", "64"])
        .args(["--listen", "127.0.0.1:0", "--restore"])
        .arg(&one)
        .arg("--restore")
        .arg(&other)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = BufReader::new(child.stdout.take().unwrap()).lines().next();
    assert!(ready.is_some_and(|line| line.unwrap().starts_with("ready ")));
    let pool = Arc::new(Pool::attach(&path).unwrap());
    let broker = Broker::appear(&pool, 0, 7);
    broker.begin_to_leave();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    thread::sleep(Duration::from_millis(600));
    assert_eq!(child.try_wait().unwrap(), None, "it did not wait for a broker that leaves");
    broker.leave();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("has not left"), "{said}");
    for topic in two.topics() {
        assert!(TopicFile::read(&topic).unwrap().ended.is_some(), "{said}");
    }
    fs::remove_file(path).unwrap();
}
