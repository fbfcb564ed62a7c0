//! Groups that are written while syncs of earlier ones are under way.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use landfall_layout::pool::Coherence;
use landfall_pool::Pool;
use landfall_pool::disk::{Disk, Job, Syncs};
use landfall_pool::map::memfd;
use landfall_pool::pool::Shape;

use super::*;

/// Holes that make a group full; they cost no memory in the pool.
const GROUP: u64 = 2048;

/// A log with two groups and a bit, and a replicator that has looked at it.
fn begun(name: &str) -> (Bench, Worker) {
    let mut bench = Bench::new(name, 0);
    bench.leave(2 * GROUP + 5);
    let mut worker = bench.worker();
    worker.look_at_table(boot_ns());
    (bench, worker)
}

fn moved(bench: &Bench) -> (u64, u64, ReplicaState) {
    let line = bench.line();
    (line.written, line.durable, line.state())
}

#[test]
fn groups_are_written_while_a_sync_is_under_way_and_durable_after_their_own() {
    let (bench, mut worker) = begun("overlap");
    assert!(worker.round(boot_ns()));
    assert_eq!(moved(&bench), (GROUP, 0, ReplicaState::Well));
    assert!(worker.round(boot_ns()));
    assert_eq!(moved(&bench), (2 * GROUP, 0, ReplicaState::Well));
    // Nothing more to write: now the first sync is waited for. It covers the first group only.
    let syncs = bench.faults.syncs();
    assert!(worker.round(boot_ns()));
    assert_eq!(moved(&bench), (2 * GROUP + 5, GROUP, ReplicaState::Well));
    assert_eq!(bench.line().entries, GROUP);
    assert_eq!(bench.faults.syncs(), syncs + 1, "what was written meanwhile is synced at once");
    assert!(worker.round(boot_ns()));
    assert_eq!(moved(&bench), (2 * GROUP + 5, 2 * GROUP + 5, ReplicaState::Well));
    assert_eq!(bench.holes(), 2 * GROUP + 5);
    assert!(!worker.round(boot_ns()));
}

#[test]
fn power_that_goes_while_a_sync_is_under_way_takes_nothing_that_is_durable() {
    for seed in 0..20 {
        let (mut bench, mut worker) = begun(&format!("overlap-power-{seed}"));
        for _ in 0..seed % 5 {
            worker.round(boot_ns());
        }
        let durable = bench.line().durable;
        drop(worker);
        bench.faults.lose_power(seed).unwrap();
        if durable > 0 {
            assert!(bench.survey().covers() >= durable, "seed {seed}");
        }
        work(&mut bench.worker());
        let all = 2 * GROUP + 5;
        assert_eq!((bench.state(), bench.holes()), ((all, ReplicaState::Well), all), "seed {seed}");
    }
}

#[test]
fn a_sync_that_fails_under_way_fails_what_was_written_behind_it() {
    let (mut bench, mut worker) = begun("overlap-sync");
    // The first sync is that of the file's header.
    bench.faults.set(Plan { sync_fails: Some(2), ..Plan::default() });
    worker.round(boot_ns());
    worker.round(boot_ns());
    assert_eq!(moved(&bench), (2 * GROUP, 0, ReplicaState::Well), "it has not ended");
    let syncs = bench.faults.syncs();
    work(&mut worker);
    assert_eq!((bench.state(), bench.line().errno), ((0, ReplicaState::Failed), 5));
    bench.land(3, 100);
    work(&mut worker);
    worker.finish();
    assert_eq!(bench.state(), (0, ReplicaState::Failed), "it never moves again");
    assert_eq!(bench.faults.syncs(), syncs, "no other sync may say that all is well");
    bench.faults.lose_power(1).unwrap();
    bench.faults.set(Plan::default());
    work(&mut bench.worker());
    assert_eq!(bench.state(), (2 * GROUP + 8, ReplicaState::Well));
    assert_eq!((bench.holes(), bench.batches()), (2 * GROUP + 5, 3));
}

#[test]
fn a_write_that_fails_behind_a_sync_takes_nothing_from_it() {
    let (bench, mut worker) = begun("overlap-write");
    // The first write is that of the file's header.
    bench.faults.set(Plan { write_fails: Some(3), ..Plan::default() });
    work(&mut worker);
    assert_eq!((bench.state(), bench.line().errno), ((GROUP, ReplicaState::Failed), 5));
    assert_eq!(bench.holes(), GROUP);
}

#[test]
fn a_disk_that_is_full_stays_full_when_a_sync_ends_well() {
    for groups in 1..=2 {
        let (bench, mut worker) = begun(&format!("overlap-full-{groups}"));
        let full_after = Some(REPLICA_HEADER_BYTES + groups * (GROUP + 1) * 128 + 500);
        bench.faults.set(Plan { full_after, ..Plan::default() });
        work(&mut worker);
        let fits = groups * GROUP;
        assert_eq!((bench.state(), bench.line().errno), ((fits, ReplicaState::Full), 28));
        assert_eq!(bench.holes(), fits, "no half record stays");
        bench.faults.set(Plan::default());
        while worker.round(boot_ns() + 300_000_000) {}
        let all = 2 * GROUP + 5;
        assert_eq!((bench.state(), bench.holes()), ((all, ReplicaState::Well), all));
    }
}

#[test]
fn a_stop_waits_for_what_is_under_way_and_syncs_the_rest() {
    let (bench, mut worker) = begun("overlap-stop");
    worker.round(boot_ns());
    worker.round(boot_ns());
    assert_eq!(moved(&bench), (2 * GROUP, 0, ReplicaState::Well));
    worker.finish();
    assert_eq!(moved(&bench), (2 * GROUP, 2 * GROUP, ReplicaState::Well));
    bench.faults.lose_power(7).unwrap();
    assert_eq!(bench.holes(), 2 * GROUP);
}

#[test]
fn a_file_is_left_when_all_of_it_is_stable() {
    let mut bench = Bench::new("overlap-roll", 0);
    bench.leave(2 * GROUP + 5);
    let mut worker = bench.worker_of(GROUP * 128);
    worker.look_at_table(boot_ns());
    worker.round(boot_ns());
    assert_eq!(moved(&bench), (GROUP, 0, ReplicaState::Well));
    worker.round(boot_ns());
    // The next group belongs in the next file, so there was nothing to do but to wait.
    assert_eq!(moved(&bench), (GROUP, GROUP, ReplicaState::Well));
    work(&mut worker);
    assert_eq!((bench.state().0, bench.survey().files.len()), (2 * GROUP + 5, 3));
}

#[test]
fn what_is_passed_under_way_is_not_durable_when_the_sync_fails() {
    let mut bench = Bench::new("overlap-passed", 0);
    bench.leave(GROUP);
    let entry = OrderEntry { broker: 5, bytes: 64, count: 1, ..OrderEntry::default() };
    bench.source.append(&entry);
    bench.source.publish();
    let mut worker = bench.worker();
    worker.look_at_table(boot_ns());
    bench.faults.set(Plan { sync_fails: Some(2), ..Plan::default() });
    work(&mut worker);
    assert_eq!(moved(&bench), (GROUP + 1, 0, ReplicaState::Failed));
    bench.faults.set(Plan::default());
    work(&mut bench.worker());
    assert_eq!(moved(&bench), (GROUP + 1, GROUP + 1, ReplicaState::Well));
}

#[test]
fn a_batch_that_does_not_hold_behind_a_sync_that_is_under_way_takes_nothing_from_it() {
    let mut bench = Bench::new("overlap-spoilt", 0);
    bench.leave(GROUP);
    bench.land_one(100, false);
    let mut worker = bench.worker();
    work(&mut worker);
    assert_eq!((bench.state(), bench.holes()), ((GROUP + 1, ReplicaState::Well), GROUP + 1));
}

/// A disk that does something before a sync that is waited for ends.
struct Meanwhile<F> {
    disk: Faulty<Plain>,
    files: Vec<Arc<File>>,
    then: F,
}

impl<F: FnMut(&[Arc<File>]) + Send> Disk for Meanwhile<F> {
    fn run(&mut self, jobs: &mut [Job<'_>]) {
        self.disk.run(jobs);
    }

    fn begin_syncs(&mut self, files: Vec<Arc<File>>) -> Syncs {
        self.files.clone_from(&files);
        self.disk.begin_syncs(files)
    }

    fn end_syncs(&mut self, syncs: Syncs, wait: bool) -> Result<Vec<io::Result<()>>, Syncs> {
        if wait {
            (self.then)(&self.files);
        }
        self.disk.end_syncs(syncs, wait)
    }

    fn name(&self) -> &'static str {
        "meanwhile"
    }
}

impl Bench {
    fn worker_meanwhile(&self, then: impl FnMut(&[Arc<File>]) + Send + 'static) -> Worker {
        let disk = Faulty::new(Plain, self.faults.clone());
        let disk = Box::new(Meanwhile { disk, files: Vec::new(), then });
        self.source.worker(Data::new(&self.directory), disk, 2).unwrap()
    }
}

#[test]
fn a_topic_that_is_deleted_under_way_is_closed_when_that_has_ended() {
    let mut bench = Bench::new("overlap-deleted", 0);
    bench.leave(2 * GROUP + 5);
    let links = Arc::new(AtomicU64::new(0));
    let seen = links.clone();
    let mut worker = bench.worker_meanwhile(move |files| {
        seen.fetch_add(files[0].metadata().unwrap().nlink(), Ordering::Relaxed);
    });
    worker.look_at_table(boot_ns());
    worker.round(boot_ns());
    assert_eq!(moved(&bench), (GROUP, 0, ReplicaState::Well));
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    (entry.state, entry.deleted_ns) = (TopicState::Deleting as u8, 1);
    bench.pool.set_topic(&entry);
    worker.look_at_table(boot_ns());
    assert_eq!(links.load(Ordering::Relaxed), 1, "the sync ended while its file was there");
    assert_eq!(list(&bench.directory).unwrap().topics, []);
    assert!(!worker.round(boot_ns()));
}

#[test]
fn what_came_during_a_sync_is_covered_by_one() {
    let mut bench = Bench::new("overlap-came", 0);
    bench.leave(GROUP + 1);
    // The log goes on, by another hand, while the first sync is waited for.
    let file = File::from(bench.pool.fd().try_clone_to_owned().unwrap());
    let mut other = Source::new(pool(), 0);
    other.pool = Pool::attach_file(file, Path::new("the pool"), true).unwrap();
    other.frontier = bench.frontier;
    let other = Mutex::new((other, 10));
    let mut worker = bench.worker_meanwhile(move |_| {
        let (source, left) = &mut *other.lock().unwrap();
        for _ in 0..std::mem::take(left) {
            let hole = OrderEntry { count: 4, flags: ENTRY_HOLE, ..OrderEntry::default() };
            source.append(&hole);
        }
        source.publish();
    });
    worker.look_at_table(boot_ns());
    worker.round(boot_ns());
    let syncs = bench.faults.syncs();
    worker.round(boot_ns());
    assert_eq!(moved(&bench), (GROUP + 1, GROUP, ReplicaState::Well));
    assert_eq!(bench.faults.syncs(), syncs, "the next one waits for what came");
    worker.round(boot_ns());
    assert_eq!(moved(&bench), (GROUP + 11, GROUP + 11, ReplicaState::Well));
    assert_eq!(bench.faults.syncs(), syncs + 1);
}

/// A pool whose log segment has room for more than may be written behind a sync.
fn large_pool() -> Pool {
    let memory = memfd("behind", 256 << 20).unwrap();
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let shape = Shape {
        pool_bytes: 256 << 20,
        segment_bytes: 16 << 20,
        sessions: 16,
        coherence: Coherence::Coherent,
        uuid: [7; 16],
        now_ns: 1,
        sparse: true,
    };
    Pool::create_or_attach(Path::new(&path), shape).unwrap()
}

#[test]
fn no_more_than_a_groups_bytes_are_written_behind_a_sync() {
    let mut bench = Bench::new("overlap-behind", 0);
    bench.source = Source::new(large_pool(), 0);
    const GROUPS: u64 = 80;
    const BEHIND: u64 = (8 << 20) / ((GROUP + 1) * 128) + 1;
    bench.leave(GROUPS * GROUP);
    let mut worker = bench.worker();
    worker.look_at_table(boot_ns());
    let syncs = |bench: &Bench| bench.faults.syncs();
    for round in 1..=BEHIND {
        worker.round(boot_ns());
        assert_eq!(moved(&bench), (round * GROUP, 0, ReplicaState::Well));
    }
    let before = syncs(&bench);
    worker.round(boot_ns());
    assert_eq!(moved(&bench), ((BEHIND + 1) * GROUP, GROUP, ReplicaState::Well));
    // The log goes on, and the disk has enough to do: it does not wait for more.
    assert_eq!(syncs(&bench), before + 1);
    work(&mut worker);
    assert_eq!(bench.state(), (GROUPS * GROUP, ReplicaState::Well));
    assert_eq!(syncs(&bench), before + 3);
}

/// A disk that notes at each call whether the thread may be reading batches in the pool.
struct Noting {
    disk: Plain,
    shared: Arc<Mutex<Option<Arc<Shared>>>>,
    reads: Arc<Mutex<Vec<bool>>>,
}

impl Disk for Noting {
    fn run(&mut self, jobs: &mut [Job<'_>]) {
        let shared = self.shared.lock().unwrap();
        let reads = shared.as_ref().unwrap().round_under_way().is_some();
        self.reads.lock().unwrap().push(reads);
        self.disk.run(jobs);
    }

    fn name(&self) -> &'static str {
        "noting"
    }
}

/// What a disk is writing is a copy: one that hangs keeps no room in the pool from being reused.
#[test]
fn a_write_that_is_under_way_holds_nothing_in_the_pool() {
    let mut bench = Bench::new("overlap-hangs", 0);
    bench.leave(3);
    let (shared, reads) = (Arc::default(), Arc::default());
    let disk = Noting { disk: Plain, shared: Arc::clone(&shared), reads: Arc::clone(&reads) };
    let mut worker = bench.source.worker(Data::new(&bench.directory), Box::new(disk), 2).unwrap();
    *shared.lock().unwrap() = Some(Arc::clone(&worker.shared));
    worker.look_at_table(boot_ns());
    work(&mut worker);
    assert_eq!(bench.state(), (3, ReplicaState::Well));
    reads.lock().unwrap().clear();
    // Its file is there: what is written now is a group.
    bench.leave(3);
    work(&mut worker);
    assert_eq!(bench.state(), (6, ReplicaState::Well));
    let reads = reads.lock().unwrap();
    assert!(!reads.is_empty() && !reads.contains(&true), "{reads:?}");
}
