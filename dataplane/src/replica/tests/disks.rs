//! Directories of replicas that are lost, or not those that they were, and logs to fill them from.

use std::fs::{File, remove_dir_all};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use landfall_pool::Pool;

use super::*;
use crate::standing::Standing;

/// The directory that was lost, and another broker's; gone with this value.
pub(super) struct Disks(pub(super) [PathBuf; 2]);

impl Disks {
    pub(super) fn new(name: &str) -> Self {
        let path = |which| format!("landfall-disks-{name}-{which}-{}", std::process::id());
        Self(["mine", "theirs"].map(|which| std::env::temp_dir().join(path(which))))
    }

    /// A replica's directory, and what it can read beside.
    pub(super) fn data(&self, which: usize, reads: bool) -> Data {
        let others = if reads { vec![self.0[1 - which].clone()] } else { Vec::new() };
        Data { others, ..Data::new(&self.0[which]) }
    }

    pub(super) fn topic(&self, which: usize) -> PathBuf {
        topic_directory(&self.0[which], "t", CREATED_NS)
    }

    /// The second one is in the place of the first, which is gone.
    pub(super) fn swap(&self) {
        fs::remove_dir_all(&self.0[0]).unwrap();
        fs::rename(&self.0[1], &self.0[0]).unwrap();
    }

    pub(super) fn batches(&self, which: usize) -> (u64, u64) {
        let listing = list(&self.0[which]).unwrap();
        let survey = SourceSurvey::take(&listing.topics[0].sources[0].files).unwrap();
        let files = &survey.files;
        (files[0].header.first_index, files.iter().map(|file| file.batches).sum())
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(remove_dir_all(path)));
    }
}

pub(super) fn land(source: &mut Source, batches: u64) {
    for _ in 0..batches {
        let entry = source.place(&[7; 100], true);
        source.append(&entry);
    }
    source.publish();
}

/// The next pool: its log goes on at `index`, and nothing before that is in memory.
pub(super) fn next_pool(index: u64) -> Source {
    let mut source = Source::new(pool(), 0);
    (source.frontier.entries, source.frontier.position) = (index, index * 3);
    source.publish();
    source.pool.raise_oldest(source.topic, 0, index, index * 3);
    source
}

/// What a process of broker 0 says of what it has to do.
pub(super) fn errors(source: &Source, data: Data, incarnation: u64) -> Vec<String> {
    let shared = Arc::new(Shared::new());
    let file = File::from(source.pool.fd().try_clone_to_owned().unwrap());
    let pool = Pool::attach_file(file, Path::new("the pool"), true).unwrap();
    let me = Standing::new(broker(0), incarnation);
    let mut worker = Worker::new(pool, me, data, Box::new(Plain), shared.clone()).unwrap();
    work(&mut worker);
    std::mem::take(&mut *shared.notes.lock().unwrap())
}

/// Everything of six batches, of a pool that is lost, is in the directory of that number alone.
pub(super) fn six_in(name: &str, which: usize) -> Disks {
    let disks = Disks::new(name);
    let mut before = Source::new(pool(), 0);
    land(&mut before, 6);
    work(&mut before.worker(disks.data(which, false), Box::new(Plain), 1).unwrap());
    disks
}

/// They are in another broker's directory.
pub(super) fn six(name: &str) -> Disks {
    six_in(name, 1)
}

/// Six batches were landed, and a copy of the disk that was made behind the third is in its place.
pub(super) fn copied_back(name: &str) -> (Disks, Source) {
    let disks = Disks::new(name);
    let mut source = Source::new(pool(), 0);
    let follow = |source: &mut Source| {
        land(source, 3);
        work(&mut source.worker(disks.data(0, false), Box::new(Plain), 1).unwrap());
    };
    follow(&mut source);
    assert!(Command::new("cp").arg("-a").args(&disks.0).status().unwrap().success());
    follow(&mut source);
    disks.swap();
    (disks, source)
}

/// Entries of another broker, which no copy of this one has.
pub(super) fn follow(source: &mut Source, entries: u64) {
    let entry = OrderEntry { count: 3, broker: 1, flags: ENTRY_HOLE, ..OrderEntry::default() };
    (0..entries).for_each(|_| source.append(&entry));
    source.publish();
}

/// All that there is has left memory; up to which index that is.
pub(super) fn move_on(source: &Source) -> u64 {
    let end = source.frontier.entries;
    source.pool.raise_oldest(source.topic, source.log, end, end * 3);
    end
}

pub(super) fn line(source: &Source) -> (u64, u64, ReplicaState, u32) {
    let line = source.pool.replica(source.topic, broker(0), 0);
    (line.durable, line.entries, line.state(), line.errno)
}

/// Looks again for some minutes, of which so many have passed.
pub(super) fn look_again(worker: &mut Worker, minutes: u64) {
    let now = boot_ns() + minutes * 60_000_000_000;
    for second in 1..180 {
        worker.mend(now + second * 1_000_000_000);
    }
    work(worker);
}
