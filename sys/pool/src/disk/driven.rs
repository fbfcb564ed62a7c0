//! A disk whose faults another process sets while this one runs. Only in builds with the feature
//! `kill-switch`.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::faulty::{Faults, Faulty, Plan};
use super::{Disk, Job, Syncs};

/// Names a file with the words of a [`Plan`]; nothing goes wrong while it is empty or not there.
const DISK_FILE: &str = "LANDFALL_DISK_FILE";

struct Driven {
    disk: Faulty<Box<dyn Disk>>,
    faults: Faults,
    path: PathBuf,
    /// The words that hold now.
    words: String,
}

/// `disk`, with the faults of the file that the environment names; as it is where it names none.
pub(super) fn wrap(disk: Box<dyn Disk>) -> Box<dyn Disk> {
    let Some(path) = std::env::var_os(DISK_FILE) else { return disk };
    let faults = Faults::default();
    let disk = Faulty::new(disk, faults.clone());
    Box::new(Driven { disk, faults, path: path.into(), words: String::new() })
}

impl Driven {
    /// Takes the file's words, if they are others than before: calls are counted anew then.
    fn look(&mut self) {
        let words = std::fs::read_to_string(&self.path).unwrap_or_default();
        let words = words.trim();
        if words != self.words {
            let plan = words.parse::<Plan>();
            self.faults.set(plan.unwrap_or_else(|error| panic!("{DISK_FILE}: {error}")));
            words.clone_into(&mut self.words);
        }
    }
}

impl Disk for Driven {
    fn run(&mut self, jobs: &mut [Job<'_>]) {
        self.look();
        self.disk.run(jobs);
    }

    fn begin_syncs(&mut self, files: Vec<Arc<File>>) -> Syncs {
        self.look();
        self.disk.begin_syncs(files)
    }

    fn end_syncs(&mut self, syncs: Syncs, wait: bool) -> Result<Vec<io::Result<()>>, Syncs> {
        self.disk.end_syncs(syncs, wait)
    }

    fn name(&self) -> &'static str {
        self.disk.name()
    }
}
