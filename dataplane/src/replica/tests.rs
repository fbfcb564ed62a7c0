//! The replicator's rounds by hand, on a pool in memory and real files, with faults.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use landfall_layout::BrokerId;
use landfall_layout::batch::BatchPreamble;
use landfall_layout::order::{ENTRY_HOLE, OrderEntry};
use landfall_layout::replica::{REPLICA_HEADER_BYTES, ReplicaLine, ReplicaState, record_bytes};
use landfall_layout::topic::{Order, TOPIC_WINDOW, TopicEntry, TopicState};
use landfall_pool::Memory;
use landfall_pool::disk::faulty::{Faults, Faulty, Plan};
use landfall_pool::disk::plain::Plain;
use landfall_replica::names::{TOPIC_FILE, aside_file, cut_file, list, topic_directory};
use landfall_replica::{SourceSurvey, TopicFile};

use super::deleted::{Forgotten, remove_but, remove_forgotten};
use super::rig::{CREATED_NS, Source};
use super::thread::Worker;
use super::{Data, Shared};
use crate::rig::pool;
use landfall_pool::clock::boot_ns;

mod behind;
mod came_back;
mod damage;
mod deposed;
mod disks;
mod doubts;
mod full;
mod holes;
mod moved;
mod not_ours;
mod older;
mod row;
mod short;
mod tails;
mod told;
mod under_way;
mod wiped;
mod words;

fn broker(number: usize) -> BrokerId {
    BrokerId::new(number).unwrap()
}

/// A topic of order none, whose log 0 the test writes, and a data directory.
struct Bench {
    source: Source,
    directory: PathBuf,
    faults: Faults,
    incarnation: u64,
}

impl Deref for Bench {
    type Target = Source;

    fn deref(&self) -> &Source {
        &self.source
    }
}

impl Bench {
    fn new(name: &str, flags: u8) -> Self {
        let directory =
            std::env::temp_dir().join(format!("replicator-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let source = Source::new(pool(), flags);
        Self { source, directory, faults: Faults::default(), incarnation: 1 }
    }

    /// Lands batches of `bytes` bytes of payload.
    fn land(&mut self, batches: u64, bytes: usize) {
        for _ in 0..batches {
            self.land_one(bytes, true);
        }
    }

    /// Positions that nobody will write.
    fn leave(&mut self, holes: u64) {
        for _ in 0..holes {
            let hole = OrderEntry { count: 4, flags: ENTRY_HOLE, ..OrderEntry::default() };
            self.source.append(&hole);
        }
        self.source.publish();
    }

    fn holes(&self) -> u64 {
        self.survey().files.iter().map(|file| file.holes).sum()
    }

    fn land_one(&mut self, bytes: usize, holds: bool) {
        let index = self.frontier.entries;
        let payload: Vec<u8> = (0..bytes).map(|i| (i as u64 * 7 + index) as u8).collect();
        let entry = self.source.place(&payload, holds);
        self.source.append(&entry);
        self.source.publish();
    }

    /// A fresh process of the broker.
    fn worker(&mut self) -> Worker {
        self.worker_of(64 << 20)
    }

    fn worker_of(&mut self, file_bytes: u64) -> Worker {
        self.incarnation += 1;
        let data = Data { file_bytes, ..Data::new(&self.directory) };
        let disk = Box::new(Faulty::new(Plain, self.faults.clone()));
        self.source.worker(data, disk, self.incarnation).unwrap()
    }

    fn line(&self) -> ReplicaLine {
        self.pool.replica(self.topic, broker(0), 0)
    }

    fn state(&self) -> (u64, ReplicaState) {
        (self.line().durable, self.line().state())
    }

    /// What a process that has no topic open makes of the files there are.
    fn forgotten(&self) -> Forgotten {
        remove_forgotten(&self.pool, &self.directory, |_, _| false).unwrap()
    }

    fn survey(&self) -> SourceSurvey {
        let listing = list(&self.directory).unwrap();
        assert_eq!(listing.topics.len(), 1, "{listing:?}");
        SourceSurvey::take(&listing.topics[0].sources[0].files).unwrap()
    }

    fn batches(&self) -> u64 {
        let survey = self.survey();
        assert_eq!(survey.seams, []);
        assert!(survey.files.iter().all(|file| file.is_whole()), "{survey:?}");
        survey.files.iter().map(|file| file.batches).sum()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Opens what there is and goes round until nothing moves.
fn work(worker: &mut Worker) {
    worker.look_at_table(boot_ns());
    while worker.round(boot_ns()) {}
}

#[test]
fn what_was_landed_is_on_the_disk_and_then_durable() {
    let mut bench = Bench::new("durable", 0);
    bench.land(20, 1000);
    let mut worker = bench.worker();
    work(&mut worker);
    assert_eq!(bench.state(), (20, ReplicaState::Well));
    assert_eq!(bench.line().entries, 20);
    bench.land(1, 49);
    work(&mut worker);
    assert_eq!((bench.state().0, bench.batches()), (21, 21));
    let survey = bench.survey();
    assert_eq!(survey.covers(), 21);
    assert_eq!(survey.files[0].ordered.map(|line| line.position), Some(63));
    let directory = topic_directory(&bench.directory, "t", CREATED_NS);
    let topic = TopicFile::read(&directory).unwrap();
    assert_eq!((topic.name.as_str(), topic.replicas, topic.order()), ("t", 2, Some(Order::None)));
}

#[test]
fn nothing_is_durable_before_the_sync_that_covers_it() {
    let mut bench = Bench::new("sync", 0);
    bench.land(5, 500);
    let mut worker = bench.worker();
    worker.look_at_table(boot_ns());
    // The first sync is that of the file's header.
    bench.faults.set(Plan { sync_fails: Some(2), ..Plan::default() });
    assert!(worker.round(boot_ns()));
    let line = bench.line();
    assert_eq!((line.durable, line.written, line.state()), (0, 5, ReplicaState::Failed));
    assert_eq!(line.errno, 5);
    assert_eq!(bench.pool.replicated(bench.topic, broker(0), 1).written, 0);
    bench.land(5, 500);
    let syncs = bench.faults.syncs();
    work(&mut worker);
    assert_eq!(bench.state(), (0, ReplicaState::Failed), "it never moves again");
    assert_eq!(bench.faults.syncs(), syncs, "and is not synced again");
    // The power goes: what the failed sync was for is not there, whatever came after it.
    bench.faults.lose_power(1).unwrap();
    bench.faults.set(Plan::default());
    work(&mut bench.worker());
    assert_eq!(bench.state(), (10, ReplicaState::Well), "read again, and copied again");
    assert_eq!(bench.batches(), 10);
}

#[test]
fn whatever_the_power_takes_what_was_durable_is_there_after_it() {
    for seed in 0..30 {
        let mut bench = Bench::new(&format!("power-{seed}"), TOPIC_WINDOW);
        let mut worker = bench.worker_of(20_000);
        for step in 0..(seed % 7 + 1) {
            bench.land(3, 300 + 100 * step as usize);
            worker.look_at_table(boot_ns());
            // Some groups are synced, by the clock, and some are not.
            let now = boot_ns() + 300_000_000 * u64::from((seed ^ step) % 2 == 0);
            worker.round(now);
        }
        let before = bench.line();
        assert!(before.durable <= before.written);
        drop(worker);
        bench.faults.lose_power(seed).unwrap();
        work(&mut bench.worker_of(20_000));
        let after = bench.line();
        assert_eq!(after.state(), ReplicaState::Well, "seed {seed}");
        assert_eq!(after.written, bench.frontier.entries, "seed {seed}");
        assert_eq!(bench.batches(), bench.frontier.entries, "seed {seed}: all of them, once");
    }
}

#[test]
fn durable_batches_outlive_power_and_pool() {
    for seed in 0..30 {
        let mut bench = Bench::new(&format!("both-{seed}"), 0);
        let mut worker = bench.worker();
        bench.land(1 + seed % 9, 700);
        work(&mut worker);
        let durable = bench.line().durable;
        bench.land(4, 900);
        // The process dies behind a write and in front of its sync.
        bench.faults.set(Plan { sync_fails: Some(1), ..Plan::default() });
        worker.round(boot_ns());
        drop(worker);
        bench.faults.lose_power(seed).unwrap();
        let survey = bench.survey();
        let last = survey.files.last().unwrap();
        assert!(last.end.index >= durable, "seed {seed}: {durable} were durable: {last:?}");
        assert!(last.batches >= durable, "seed {seed}");
    }
}

#[test]
fn a_batch_that_does_not_hold_is_lost_and_stops_nobody() {
    let mut bench = Bench::new("spoilt", 0);
    bench.land(3, 200);
    bench.land_one(200, false);
    bench.land(3, 200);
    let mut worker = bench.worker();
    work(&mut worker);
    assert_eq!(bench.state(), (7, ReplicaState::Well));
    assert_eq!((bench.batches(), bench.holes()), (6, 1));
    let lost = |bench: &Bench| {
        let line = bench.source.pool.lost(bench.source.topic, broker(0));
        (line.count, line.named().collect::<Vec<_>>())
    };
    assert_eq!(lost(&bench), (1, vec![(broker(0), 3)]));
    drop(worker);
    bench.land(1, 200);
    work(&mut bench.worker());
    assert_eq!(bench.state(), (8, ReplicaState::Well), "and so after a start");
    assert_eq!(lost(&bench), (1, vec![(broker(0), 3)]));
}

#[test]
fn a_batch_that_is_sealed_anew_is_not_copied() {
    let mut bench = Bench::new("anew", 0);
    let entry = bench.source.place(&[5; 200], true);
    bench.source.append(&entry);
    bench.source.publish();
    let pool = &bench.source.pool;
    let at = pool.at(entry.segment, entry.offset, 64).unwrap();
    let preamble = BatchPreamble::from_words(pool.load_words(at));
    let anew = BatchPreamble { sealed_ns: preamble.sealed_ns + 1, ..preamble }.seal();
    pool.write(at, &anew.to_bytes()).unwrap();
    bench.land(1, 200);
    work(&mut bench.worker());
    assert_eq!(bench.state(), (2, ReplicaState::Well));
    assert_eq!((bench.batches(), bench.holes()), (1, 1));
}

#[test]
fn a_write_that_fails_stops_the_replica_until_the_next_start() {
    let mut bench = Bench::new("eio", 0);
    bench.land(2, 1000);
    let mut worker = bench.worker();
    work(&mut worker);
    bench.faults.set(Plan { write_fails: Some(1), ..Plan::default() });
    bench.land(2, 1000);
    work(&mut worker);
    assert_eq!((bench.state(), bench.line().errno), ((2, ReplicaState::Failed), 5));
    work(&mut bench.worker());
    assert_eq!((bench.state(), bench.batches()), ((4, ReplicaState::Well), 4));
}

#[test]
fn short_writes_are_gone_on_from() {
    let mut bench = Bench::new("short", 0);
    bench.faults.set(Plan { short: Some(333), ..Plan::default() });
    bench.land(10, 1500);
    work(&mut bench.worker());
    assert_eq!((bench.state().0, bench.batches()), (10, 10));
}

#[test]
fn files_roll_and_fit_together_also_over_a_restart() {
    let mut bench = Bench::new("roll", 0);
    for _ in 0..3 {
        let mut worker = bench.worker_of(10_000);
        for _ in 0..5 {
            bench.land(2, 2000);
            work(&mut worker);
        }
    }
    assert!(bench.survey().files.len() > 4);
    assert_eq!((bench.state().0, bench.batches()), (30, 30));
}

#[test]
fn with_a_window_written_runs_ahead_of_durable() {
    let mut bench = Bench::new("window", TOPIC_WINDOW);
    bench.land(4, 100);
    let mut worker = bench.worker();
    worker.look_at_table(boot_ns());
    let start = boot_ns();
    worker.round(start);
    assert_eq!((bench.line().written, bench.line().durable), (4, 0));
    worker.round(start + 249_000_000);
    assert_eq!(bench.line().durable, 0);
    worker.round(start + 250_000_000);
    assert_eq!(bench.line().durable, 4);
}

#[test]
fn a_hole_is_written_and_durable_like_a_batch() {
    let mut bench = Bench::new("hole", 0);
    bench.leave(2);
    let mut worker = bench.worker();
    work(&mut worker);
    assert_eq!((bench.state(), bench.line().entries), ((2, ReplicaState::Well), 2));
    assert_eq!((bench.batches(), bench.holes()), (0, 2));
    bench.land(1, 1001);
    bench.leave(1);
    bench.land(2, 100);
    bench.leave(3);
    work(&mut worker);
    assert_eq!((bench.state().0, bench.batches(), bench.holes()), (9, 3, 6));
    let positions = bench.survey().files[0].positions;
    assert_eq!(positions, Some((0, bench.frontier.position)));
    // Retention takes them, and a fresh process still knows that it has everything.
    bench.pool.raise_oldest(bench.topic, 0, 9, bench.frontier.position);
    bench.leave(1);
    work(&mut bench.worker());
    assert_eq!((bench.state().0, bench.batches(), bench.holes()), (10, 3, 7));
}

#[test]
fn a_hole_is_not_durable_before_the_sync_that_covers_it() {
    let mut bench = Bench::new("hole-sync", 0);
    bench.land(1, 100);
    let mut worker = bench.worker();
    work(&mut worker);
    bench.faults.set(Plan { sync_fails: Some(1), ..Plan::default() });
    bench.leave(1);
    work(&mut worker);
    assert_eq!(bench.state(), (1, ReplicaState::Failed));
    bench.faults.set(Plan::default());
    work(&mut bench.worker());
    assert_eq!((bench.state().0, bench.holes()), (2, 1));
}

#[test]
fn a_hole_that_was_cut_off_is_taken_from_the_log_again() {
    let mut bench = Bench::new("hole-cut", 0);
    bench.land(1, 100);
    bench.leave(1);
    work(&mut bench.worker());
    let path = bench.survey().files[0].path.clone();
    // The hole and the frontier record behind it are 128 bytes each.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(path.metadata().unwrap().len() - 192).unwrap();
    assert_eq!(bench.holes(), 0);
    work(&mut bench.worker());
    assert_eq!((bench.state(), bench.holes()), ((2, ReplicaState::Well), 1));
    assert_eq!(bench.batches(), 1);
}

#[test]
fn entries_of_others_are_passed_without_a_write_and_remembered() {
    let mut bench = Bench::new("others", 0);
    bench.land(2, 100);
    let mut worker = bench.worker();
    work(&mut worker);
    // The batch of another broker, as a sequenced log has it.
    let entry = OrderEntry { broker: 5, bytes: 64, count: 1, ..OrderEntry::default() };
    bench.segment.write(&bench.pool, 2, &entry);
    bench.source.frontier.entries = 3;
    bench.source.publish();
    work(&mut worker);
    assert_eq!((bench.state().0, bench.survey().covers()), (3, 2));
    // Retention takes it; a fresh process knows by the line that nothing is missing.
    bench.pool.raise_oldest(bench.topic, 0, 3, 9);
    work(&mut bench.worker());
    bench.land(1, 100);
    work(&mut bench.worker());
    assert_eq!((bench.state(), bench.batches()), ((4, ReplicaState::Well), 3));
}

#[test]
fn a_disk_that_was_wiped_leaves_a_hole_that_can_be_seen() {
    let mut bench = Bench::new("wiped", 0);
    bench.land(5, 100);
    work(&mut bench.worker());
    fs::remove_dir_all(bench.directory.join("t")).unwrap();
    bench.pool.raise_oldest(bench.topic, 0, 3, 9);
    work(&mut bench.worker());
    assert_eq!(bench.state(), (5, ReplicaState::Well));
    let survey = bench.survey();
    assert_eq!((survey.files[0].first, survey.files[0].batches), (Some(3), 2));
}

#[test]
fn files_that_reach_further_than_the_log_are_not_touched() {
    let mut bench = Bench::new("future", 0);
    bench.land(5, 100);
    work(&mut bench.worker());
    bench.source.frontier.entries = 2;
    bench.source.publish();
    work(&mut bench.worker());
    assert_eq!(bench.state(), (0, ReplicaState::Failed));
    assert_eq!(bench.survey().files[0].batches, 5);
}

/// Makes an entry that of a topic which is deleted, as control does.
fn delete(entry: &mut TopicEntry, state: TopicState) {
    (entry.state, entry.deleted_ns) = (state as u8, 1);
}

#[test]
fn a_deleted_topic_takes_its_files_with_it_also_while_the_broker_was_away() {
    let mut bench = Bench::new("deleted", 0);
    bench.land(5, 100);
    let mut worker = bench.worker();
    work(&mut worker);
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    delete(&mut entry, TopicState::Deleting);
    bench.pool.set_topic(&entry);
    work(&mut worker);
    assert_eq!(list(&bench.directory).unwrap().topics, []);
    assert!(!bench.directory.join("t").exists());

    let mut bench = Bench::new("away", 0);
    bench.land(5, 100);
    work(&mut bench.worker());
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    assert_eq!(bench.forgotten(), Forgotten { may_be_more: true, ..Forgotten::default() });
    delete(&mut entry, TopicState::Absent);
    bench.pool.set_topic(&entry);
    let removed = vec!["t".into()];
    assert_eq!(bench.forgotten(), Forgotten { removed, ..Forgotten::default() });
    // What another pool left is not this one's to remove.
    let directory = topic_directory(&bench.directory, "t", CREATED_NS);
    fs::create_dir_all(&directory).unwrap();
    TopicFile::of(&entry, "another pool", 1 << 30).unwrap().write(&directory).unwrap();
    let Forgotten { removed, may_be_more, strangers } = bench.forgotten();
    assert_eq!((removed.len(), may_be_more, directory.exists()), (0, false, true));
    assert_eq!(strangers.len(), 1, "{strangers:?}");
}

#[test]
fn a_topic_that_is_deleted_while_the_broker_looks_for_the_first_time_is_forgotten_too() {
    let mut bench = Bench::new("meanwhile", 0);
    bench.land(5, 100);
    work(&mut bench.worker());
    let mut worker = bench.worker();
    worker.forget();
    // Between its two first looks, and control has not heard of the new process yet.
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    delete(&mut entry, TopicState::Deleting);
    bench.pool.set_topic(&entry);
    worker.look_at_table(boot_ns());
    delete(&mut entry, TopicState::Absent);
    bench.pool.set_topic(&entry);
    worker.forget();
    assert!(!bench.directory.join("t").exists());
}

#[test]
fn a_removal_that_got_no_further_is_finished_by_the_next_process() {
    let mut bench = Bench::new("removing", 0);
    bench.land(5, 100);
    work(&mut bench.worker());
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    delete(&mut entry, TopicState::Absent);
    bench.pool.set_topic(&entry);
    let directory = topic_directory(&bench.directory, "t", CREATED_NS);
    remove_but(&directory, &[TOPIC_FILE]).unwrap();
    let left: Vec<_> = fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [TOPIC_FILE], "it is what says whose the files are");
    bench.worker().forget();
    assert!(!bench.directory.join("t").exists());
}

#[test]
fn a_topic_whose_deletion_had_begun_before_the_broker_came_is_forgotten_too() {
    let mut bench = Bench::new("deleting", 0);
    bench.land(5, 100);
    work(&mut bench.worker());
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    delete(&mut entry, TopicState::Deleting);
    bench.pool.set_topic(&entry);
    let mut worker = bench.worker();
    worker.forget();
    work(&mut worker);
    assert!(bench.directory.join("t").exists(), "its deletion may still need the files");
    // Nobody tells the new process of it.
    delete(&mut entry, TopicState::Absent);
    bench.pool.set_topic(&entry);
    worker.forget();
    assert!(!bench.directory.join("t").exists());
}

#[test]
fn a_topic_that_came_back_takes_its_files_with_it_though_nothing_landed_since() {
    let mut bench = Bench::new("restored", 0);
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    // The pool that they were written for is gone.
    let directory = topic_directory(&bench.directory, "t", CREATED_NS);
    fs::create_dir_all(&directory).unwrap();
    TopicFile::of(&entry, "another pool", 1 << 30).unwrap().write(&directory).unwrap();
    let mut worker = bench.worker();
    worker.look_at_table(boot_ns());
    assert!(directory.exists());
    delete(&mut entry, TopicState::Deleting);
    bench.pool.set_topic(&entry);
    worker.look_at_table(boot_ns());
    assert!(!directory.exists(), "they would bring the topic back after the next loss");
}

/// What earlier programs kept of a file's end, and a file that was set aside.
fn cut(bench: &Bench) -> Vec<PathBuf> {
    let last = bench.survey().files.pop().unwrap().path;
    let kept = vec![cut_file(&last, REPLICA_HEADER_BYTES), aside_file(&last, 0)];
    kept.iter().for_each(|path| fs::write(path, [7; 5000]).unwrap());
    kept
}

#[test]
fn what_was_cut_off_a_file_goes_with_the_file() {
    let mut bench = Bench::new("cut", 0);
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    entry.disk_bytes = 25_000;
    bench.pool.set_topic(&entry);
    bench.land(4, 2000);
    work(&mut bench.worker_of(10_000));
    let cuts = cut(&bench);
    let (state, batches) = (bench.state(), bench.batches());
    assert_eq!((state, batches), ((4, ReplicaState::Well), 4));
    let mut worker = bench.worker_of(10_000);
    let (start, file) = (boot_ns(), bench.survey().files[0].path.clone());
    for round in 0..8 {
        assert!(cuts.iter().all(|cut| cut.exists() == file.exists()), "round {round}");
        bench.land(4, 2000);
        work(&mut worker);
        let entries = bench.frontier.entries;
        bench.pool.raise_oldest(bench.topic, 0, entries, 3 * entries);
        worker.let_go(start + (round + 1) * 1_000_000_000);
    }
    assert!(!file.exists());
    assert!(cuts.iter().all(|cut| !cut.exists()));
}

#[test]
fn what_was_cut_off_a_file_goes_with_the_topic() {
    let mut bench = Bench::new("cut-topic", 0);
    bench.land(4, 2000);
    work(&mut bench.worker_of(10_000));
    let cuts = cut(&bench);
    let mut worker = bench.worker();
    work(&mut worker);
    assert!(cuts[0].exists(), "a topic without bounds keeps it");
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    delete(&mut entry, TopicState::Deleting);
    bench.pool.set_topic(&entry);
    work(&mut worker);
    assert!(!bench.directory.join("t").exists());
}

#[test]
fn a_round_under_way_is_seen_and_so_is_its_end() {
    let shared = Shared::new();
    assert_eq!(shared.round_under_way(), None);
    shared.begin_round();
    let round = shared.round_under_way();
    assert!(round.is_some());
    shared.end_round();
    assert_eq!(shared.round_under_way(), None);
    shared.begin_round();
    assert_ne!(shared.round_under_way(), round);
}
