//! A control that may open few files.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio, id};

/// The bound on open files that is certainly enough.
const ENOUGH: u32 = 64;

/// It serves, or says what it lacks: whatever the bound, nothing panics.
#[test]
fn a_control_without_descriptors_ends_with_a_sentence() {
    // A pool is a file in memory.
    let folder = Path::new("/dev/shm").join(format!("landfall-short-{}", id()));
    fs::create_dir_all(&folder).unwrap();
    let mut ended = 0;
    for most in 4..=ENOUGH {
        let pool = folder.join(format!("pool-{most}"));
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -n {most}; exec \"$@\""))
            .args(["sh", env!("CARGO_BIN_EXE_landfall-control"), "--pool"])
            .arg(&pool)
            .args(["--pool-bytes", "48M", "--segment-bytes", "2M", "--sessions", "64"])
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let serves = line.starts_with("ready ");
        if serves {
            child.kill().unwrap();
        }
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let status = child.wait().unwrap();
        let _ = fs::remove_file(&pool);
        if serves {
            break;
        }
        // Where not even the program can be loaded, the system's loader says so, with 127.
        assert!(matches!(status.code(), Some(1 | 127)), "{most}: {status}: {said}");
        assert!(!said.contains("panicked") && !said.is_empty(), "{most}: {said}");
        ended = most;
    }
    fs::remove_dir_all(folder).unwrap();
    assert!(ended < ENOUGH, "it needs more than {ENOUGH} files");
}
