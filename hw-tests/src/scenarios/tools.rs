//! The programs themselves: what they say when something is wrong, and their exit status.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use landfall::Order;
use landfall_layout::pool::VERSION;

use crate::flow::{Until, publish, read};
use crate::{Failure, Rig};

/// The program of that name that was built with this one.
pub fn tool(name: &str) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe()?;
    let found = beside.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    found
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| Failure::new(format!("{name} is not built: cargo build --workspace --bins")))
}

fn run(program: &str, arguments: &[&str]) -> Result<Output, Failure> {
    let mut command = Command::new(tool(program)?);
    command.args(arguments).stdin(Stdio::null()).env_remove("LANDFALL_CONTROL");
    Ok(command.output()?)
}

/// Runs a program that has to fail with that status and a sentence that has these parts.
fn fails(program: &str, arguments: &[&str], status: i32, parts: &[&str]) -> Result<(), Failure> {
    let output = run(program, arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(status),
        "{program} {arguments:?} ended with {} and not {status}: {said}",
        output.status
    );
    for part in parts {
        ensure!(said.contains(part), "{program} {arguments:?}: {part:?} is not in {said:?}");
    }
    ensure!(!said.contains("panicked"), "{program} {arguments:?} panicked: {said}");
    ensure!(output.stdout.is_empty(), "{program} {arguments:?} wrote data: {output:?}");
    Ok(())
}

/// The tool's exit status and sentences: 0 done, 1 failed, 2 usage, 3 not reachable.
pub fn the_tool_says_what_is_wrong(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    let at = ["--control", site.system.address()];
    let with = |words: &[&'static str]| -> Vec<String> {
        words.iter().chain(&at).map(|word| (*word).to_owned()).collect()
    };
    let check = |words: &[&'static str], status, parts: &[&str]| {
        let words = with(words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        fails("landfall", &words, status, parts)
    };
    check(&["topic", "create", "x", "--order", "sideways"], 2, &["sideways", "strong"])?;
    check(&["topic", "create", "a b"], 2, &["' '"])?;
    check(&["topic", "describe", "nobody"], 1, &["nobody"])?;
    check(&["topic", "rm", "nobody"], 1, &["nobody"])?;
    check(&["publish", "nobody"], 1, &["nobody"])?;
    check(&["subscribe", "nobody", "--until-end"], 1, &["nobody"])?;
    check(&["topic", "frobnicate"], 2, &["frobnicate"])?;
    check(&["subscribe", "x", "--from", "yesterday-ish"], 2, &["yesterday-ish"])?;
    // The own port of a connection: nobody listens there, and nobody can while it is open.
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let connection = std::net::TcpStream::connect(listener.local_addr()?)?;
    let free = connection.local_addr()?.to_string();
    for words in [&["topic", "ls"][..], &["publish", "x"], &["subscribe", "x"]] {
        let mut words = words.to_vec();
        words.extend(["--control", &free]);
        fails("landfall", &words, 3, &[&free])?;
    }

    let mut publisher = site.publisher(&topic).build()?;
    publisher.publish(b"from the library")?;
    publisher.close()?;
    let transport = rig.transport.to_string();
    let mut words = vec!["subscribe", &topic.name, "--until-end", "--transport", &transport];
    words.extend(["--from", "earliest"]);
    words.extend(at);
    let output = run("landfall", &words)?;
    ensure!(output.status.success(), "subscribe ended with {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text == "from the library\n", "subscribe wrote {text:?}");
    words.extend(["-o", "json", "--audit"]);
    let output = run("landfall", &words)?;
    ensure!(output.status.success(), "subscribe --audit ended with {output:?}");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let value: serde_json::Value = serde_json::from_str(line)?;
        ensure!(value.is_object(), "a line is no object: {line}");
    }
    site.close()
}

/// A tmpfs file that is removed at the end.
struct Shm(PathBuf);

impl Shm {
    fn new(rig: &Rig, name: &str) -> Self {
        let Rig { transport, brokers, .. } = rig;
        let pid = std::process::id();
        Self(PathBuf::from(format!("/dev/shm/landfall-{name}-{transport}-{brokers}-{pid}")))
    }

    fn text(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        // Already gone is what is wanted.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Pools that are too small, of another version, somebody else's, or in use: control and broker
/// say what they found.
pub fn pools_that_cannot_be_used_are_named(rig: &Rig) -> Result<(), Failure> {
    let shm = Shm::new(rig, "odd");
    let path = shm.text();
    let control = |more: &[&str], parts: &[&str]| {
        let mut words = vec!["--pool", &path, "--listen", "127.0.0.1:0"];
        words.extend_from_slice(more);
        fails("landfall-control", &words, 1, parts)
    };
    let broker =
        |parts: &[&str]| fails("landfall-broker", &["--pool", &path, "--number", "0"], 1, parts);
    control(&["--pool-bytes", "1M"], &["1048576", "too small"])?;
    ensure!(!shm.0.exists(), "a pool that was refused left a file behind");
    control(&["--pool-bytes", "64M", "--segment-bytes", "3M"], &["3145728", "power of two"])?;

    std::fs::write(&shm.0, vec![b'x'; 8192])?;
    control(&["--pool-bytes", "64M"], &[&path, "0x7878787878787878"])?;
    broker(&[&path, "0x7878787878787878"])?;
    std::fs::remove_file(&shm.0)?;

    // A real one, its version changed.
    let pool = shm.0.clone();
    let site = rig.start_with(|config| config.pool = Some(pool))?;
    let topic = site.topic(Order::Strong)?;
    let mut publisher = site.publisher(&topic).build()?;
    publish(&mut publisher, 1, 0..10, 100)?;
    publisher.close()?;
    // In use: neither a second control nor a second broker 0.
    control(&["--pool-bytes", "128M"], &[&path])?;
    broker(&["0"])?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    ensure!(reading.messages.len() == 10, "{} messages", reading.messages.len());
    site.close()?;

    let file = File::options().write(true).open(&shm.0)?;
    file.write_all_at(&(VERSION + 1).to_le_bytes(), 8)?;
    let version = format!("version {}", VERSION + 1);
    control(&["--pool-bytes", "128M"], &[&path, &version])?;
    broker(&[&path, &version])?;

    let disk = std::env::current_exe()?.with_extension("pool");
    let disk_text = disk.display().to_string();
    let words = ["--pool", &disk_text, "--pool-bytes", "64M", "--listen", "127.0.0.1:0"];
    fails("landfall-control", &words, 1, &[&disk_text, "tmpfs"])?;
    ensure!(!disk.exists(), "a pool that was refused left a file behind");
    Ok(())
}

/// The memory transport is for processes of the broker's user; others are told so, and use tcp.
pub fn memory_is_for_the_same_user(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    let mut publisher = site.publisher(&topic).build()?;
    publisher.publish(b"hello")?;
    publisher.close()?;
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("another user's part was not run: only root can start a process as another user");
        return site.close();
    }
    let as_nobody = |transport: &str| -> Result<Output, Failure> {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(tool("landfall")?).args(["subscribe", &topic.name, "--until-end"]);
        command.args(["--from", "earliest"]);
        command.args(["--transport", transport, "--control", site.system.address()]);
        Ok(command.stdin(Stdio::null()).output()?)
    };
    let refused = as_nobody("memory")?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(1), "user 65534 ended with {}: {said}", refused.status);
    ensure!(said.contains("65534"), "the user is not named in {said:?}");
    for transport in ["tcp", "auto"] {
        let output = as_nobody(transport)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "over {transport}: {}: {said}", output.status);
        ensure!(output.stdout == b"hello\n", "over {transport}: {:?}", output.stdout);
    }
    site.close()
}
