//! A control that is told to stop while it waits for another process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio, id};

use landfall_replica::owner::SYSTEM_FILE;
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
    assert!(child.wait().unwrap().success());
    drop(taken);
    fs::remove_dir_all(folder).unwrap();
}
