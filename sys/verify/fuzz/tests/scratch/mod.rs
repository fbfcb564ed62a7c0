//! A directory with the sample's files, for tests that change some of them.
#![allow(dead_code, reason = "each test uses what it needs")]

use std::fs;
use std::path::{Path, PathBuf};

use landfall_verify::Severity;
use landfall_verify::replicas::{Kept, look_at_rest as look};
use landfall_verify_fuzz::files::{Odd, write};

/// A directory of its own for each test, removed at its end.
pub struct Scratch {
    pub data: PathBuf,
    /// Broker 0's batches in its own directory and in broker 1's, then broker 1's.
    pub replicas: [PathBuf; 4],
}

impl Scratch {
    pub fn new(name: &str, odd: Odd) -> Self {
        let data = std::env::temp_dir().join(format!("verify-{name}-{}", std::process::id()));
        let replicas = write(&data, odd).unwrap();
        Self { data, replicas }
    }

    pub fn look(&self) -> Kept {
        look(&self.data).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.data);
    }
}

pub fn has(kept: &Kept, check: &str, severity: Severity, word: &str) -> bool {
    let is = |f: &&landfall_verify::Finding| {
        f.check == check && f.severity == severity && f.found.contains(word)
    };
    let found = kept.findings.kept().iter().find(is).is_some();
    if !found {
        let all: Vec<String> = kept.findings.kept().iter().map(ToString::to_string).collect();
        eprintln!("no {check} with {word:?} in\n  {}", all.join("\n  "));
    }
    found
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}
