//! How people start a system, and what they are told.

mod common;

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};
use serde_json::Value;

use common::{System, landfall, shell, text, until};

/// An address that nobody listens on, and a socket that keeps its port from everybody who takes
/// any. A listener that names this port gets it, as both let it be used again (socket(7)).
fn free_address() -> (OwnedFd, String) {
    let (family, kind) = (AddressFamily::Inet, SockType::Stream);
    let held = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::setsockopt(&held, sockopt::ReuseAddr, &true).unwrap();
    socket::bind(held.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let address: SockaddrIn = socket::getsockname(held.as_raw_fd()).unwrap();
    (held, address.to_string())
}

/// The first block of the README that starts a system.
fn quick_start() -> String {
    let readme = include_str!("../../../README.md");
    let lines = readme.lines().skip_while(|line| !line.starts_with("    landfall up "));
    lines.map_while(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_readmes_quick_start_works_as_a_script() {
    let tool = Path::new(env!("CARGO_BIN_EXE_landfall")).parent().unwrap();
    let script = format!("{}\nkill $!\nwait $!\n", quick_start());
    assert!(script.contains("landfall up --brokers 2 &") && script.contains("publish news"));
    let path = format!("{}:{}", tool.display(), std::env::var("PATH").unwrap());
    let mut command = shell(&script);
    let (_held, address) = free_address();
    command.env("PATH", path).env("LANDFALL_CONTROL", address);
    // As long as a slow machine needs.
    command.env("LANDFALL__CONTROL__WAIT", "120s").env("LANDFALL__PUBLISH__TIMEOUT", "120s");
    let output = command.output().unwrap();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{said}");
    assert!(out.lines().any(|line| line == "1000000"), "{out}{said}");
    assert!(said.contains("1_000_000 messages reached the level ordered"), "{said}");
    assert!(said.contains("0 violations"), "{said}");
}

#[test]
fn who_asks_before_there_is_a_control_waits_for_it_and_says_so() {
    let (_held, address) = free_address();
    let asks = landfall()
        .args(["topic", "create", "early", "--wait", "10m", "--control", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says for whom it waits before anybody is there.
    let mut asks = asks;
    let mut said = std::io::BufReader::new(asks.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.contains(&address) && line.contains("up to 10m (--wait)"), "{line}");
    let mut up = landfall()
        .args(["up", "--pool-bytes", "256M", "--control", &address])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = asks.wait_with_output().unwrap();
    up.kill().unwrap();
    up.wait().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("early"));
}

#[test]
fn a_standby_names_who_leads_and_clients_follow() {
    let system = System::start(1);
    let cluster = system.json(&["cluster", "-o", "json"]);
    let control = Path::new(env!("CARGO_BIN_EXE_landfall")).with_file_name("landfall-control");
    let (_held, address) = free_address();
    let mut standby = Command::new(control)
        .args(["--pool", cluster["pool"]["path"].as_str().unwrap(), "--standby"])
        .args(["--listen", &address])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ask = || {
        let mut stream = std::net::TcpStream::connect(&address).ok()?;
        stream.write_all(b"GET /v1/health HTTP/1.0\r\n\r\n").ok()?;
        std::io::read_to_string(stream).ok()
    };
    let mut answer = String::new();
    until("the standby answers", || {
        answer = ask().unwrap_or_default();
        !answer.is_empty()
    });
    assert!(answer.contains(" 503 "), "{answer}");
    let leader = format!("\"leader\":\"http://{}\"", system.address);
    assert!(answer.contains(&leader), "{answer}");
    let (_gone, gone) = free_address();
    for (topic, control) in [("a", address.clone()), ("b", format!("{gone},{address}"))] {
        let at = |arguments: &[&str]| {
            let output = landfall().args(arguments).args(["--control", &control]).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
            text(&output.stdout)
        };
        at(&["topic", "create", topic]);
        at(&["publish", topic]);
        let document: Value = serde_json::from_str(&at(&["topic", "ls", "-o", "json"])).unwrap();
        let topics = document["topics"].as_array().unwrap();
        assert!(topics.iter().any(|found| found["name"] == topic), "{document}");
    }
    standby.kill().unwrap();
    standby.wait().unwrap();
}

#[test]
fn a_bound_on_files_is_told_with_the_numbers() {
    let tool = env!("CARGO_BIN_EXE_landfall");
    let up = format!("{tool} up --control 127.0.0.1:0 --pool-bytes 256M");
    let output = shell(&format!("ulimit -f 1000; exec {up}")).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("268435456") && said.contains("ulimit -f"), "{said}");
}

#[test]
fn what_up_and_topics_need_can_stand_in_the_configuration() {
    let dir = std::env::temp_dir().join(format!("landfall-settings-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("data")).unwrap();
    let (file, (_held, address)) = (dir.join("landfall.toml"), free_address());
    let (at, pool) = (dir.display(), format!("/dev/shm/landfall-settings-{}", std::process::id()));
    let toml = [
        format!("[control]\naddress = \"{address}\"\nwait = \"120s\"\n[topic]\nreplicas = 2\n"),
        format!("[up]\ndata = \"{at}/data\"\npool = \"{pool}\"\npool_bytes = \"256M\"\n"),
        format!("unix = \"{at}/control.sock\"\n"),
    ]
    .concat();
    std::fs::write(&file, toml).unwrap();
    let with = |arguments: &[&str]| {
        let mut command = landfall();
        command.args(arguments).arg("--config").arg(&file);
        command
    };
    let mut up = with(&["up"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut made = Value::Null;
    until("the broker with the disk is there", || {
        let output = with(&["topic", "create", "t", "-o", "json"]).output().unwrap();
        made = serde_json::from_slice(&output.stdout).unwrap_or_default();
        made["name"] == "t"
    });
    assert_eq!(made["replicas"], 2);
    assert!(Path::new(&pool).is_file() && dir.join("data/broker-0").is_dir());
    let unix = format!("unix:{}/control.sock", dir.display());
    assert!(with(&["topic", "ls", "--control", &unix]).output().unwrap().status.success());
    common::signal(up.id(), Signal::SIGTERM);
    let (status, said) = common::end(&mut up);
    assert_eq!(status, Some(0), "{said}");
    assert!(!dir.join("control.sock").exists(), "the socket's file is left behind");
    std::fs::remove_file(pool).unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn topics_that_end_with_the_pool_are_named() {
    let system = System::start(1);
    system.ok(&["topic", "create", "mortal"], b"");
    system.ok(&["topic", "create", "empty"], b"");
    system.ok(&["publish", "mortal"], b"a\nb\n");
    let (status, said) = system.stop();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("mortal (2 messages)") && !said.contains("empty"), "{said}");
}

/// A pool has its room from the beginning: whatever else fills its file system later.
#[test]
fn a_pool_takes_its_room_unless_it_is_to_be_sparse() {
    use std::os::unix::fs::MetadataExt;
    const BYTES: u64 = 64 << 20;
    for (more, is_whole) in [(&[][..], true), (&["--sparse"][..], false)] {
        let pool = format!("/dev/shm/landfall-room-{}-{is_whole}", std::process::id());
        let mut up = landfall();
        up.args(["up", "--control", "127.0.0.1:0", "--pool-bytes", "64M", "--pool", &pool]);
        up.args(["--segment-bytes", "2M"]).args(more);
        let mut up = up.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut said = std::io::BufReader::new(up.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        let taken = std::fs::metadata(&pool).unwrap().blocks() * 512;
        common::signal(up.id(), Signal::SIGTERM);
        let (status, said) = common::end(&mut up);
        std::fs::remove_file(&pool).unwrap();
        assert_eq!(status, Some(0), "{line} {said}");
        assert_eq!(taken >= BYTES, is_whole, "{taken} bytes of {BYTES}");
    }
}

/// Somebody's standby leads the pool when control dies: the system's own stands by, leads again
/// when that one is gone, and a stop in between is one in good order.
#[test]
fn control_stands_by_where_another_leads() {
    // Pools do not lie on disks.
    let folder = Path::new("/dev/shm").join(format!("landfall-led-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    for stops_first in [false, true] {
        let (pool, data) = (path("pool"), path("data"));
        let more = ["--pool", &pool, "--pool-bytes", "64M", "--segment-bytes", "2M", "--sparse"];
        let more = [&more[..], &["--data", &data]].concat();
        let system = System::start_with(1, &more);
        let tool = Path::new(env!("CARGO_BIN_EXE_landfall"));
        let mut control = Command::new(tool.with_file_name("landfall-control"));
        control.args(["--pool", &pool, "--standby", "--listen", "127.0.0.1:0"]);
        control.args(["--restore", &path("data/broker-0")]).stdin(Stdio::null());
        let mut standby = Standby::begin(control.stdout(Stdio::null()).stderr(Stdio::piped()));
        let mut said = std::io::BufReader::new(standby.0.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("standing by") {
            line.clear();
            assert_ne!(std::io::BufRead::read_line(&mut said, &mut line).unwrap(), 0);
        }
        let mine = leader(&pool);
        // It is looked after again when the other one leads.
        common::stop(system.child.id());
        common::signal(u32::try_from(mine).unwrap(), Signal::SIGKILL);
        until("the standby leads", || leader(&pool) == u64::from(standby.0.id()));
        common::signal(system.child.id(), Signal::SIGCONT);
        let stands_by = |pid: &u32| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            line.is_ok_and(|line| line.contains("--standby"))
        };
        until("control stands by", || common::children(system.child.id()).iter().any(stands_by));
        if !stops_first {
            standby.end_well();
            until("control leads again", || leader(&pool) != u64::from(standby.0.id()));
            system.ok(&["topic", "create", "a"], b"");
        }
        let (status, words) = system.stop();
        assert_eq!(status, Some(0), "{words}");
        assert_eq!(words.matches("has ended").count(), 1, "{words}");
        assert!(words.contains("stands by") && !words.contains("stop it first"), "{words}");
        let still = format!("kill {}", standby.0.id());
        assert_eq!(words.contains(&still), stops_first, "{words}");
        if stops_first {
            standby.end_well();
        }
        std::fs::remove_file(&pool).unwrap();
        std::fs::remove_dir_all(&data).unwrap();
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// A control that somebody starts beside a system.
struct Standby(Child);

impl Standby {
    fn begin(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Tells it to stop, which it does in good order.
    fn end_well(&mut self) {
        common::signal(self.0.id(), Signal::SIGTERM);
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

/// The process that leads the pool.
fn leader(pool: &str) -> u64 {
    let pool = landfall_pool::Pool::attach_read_only(Path::new(pool)).unwrap();
    pool.serving().map_or(0, |(slot, _)| pool.leader_line(slot).pid)
}
