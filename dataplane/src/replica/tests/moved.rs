//! A copy that another broker keeps in place of its home, and the way back.

use landfall_layout::keepers::{Keepers, StandIn};
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::replica::NO_FILE;
use landfall_replica::Numbers;
use landfall_replica::holes::Hole;
use landfall_replica::there::{Lack, Part};

use super::disks::look_again;
use super::*;

/// A bench, with the directory of a second broker that may stand in for the first.
struct Two {
    bench: Bench,
    other: PathBuf,
}

impl Two {
    fn new(name: &str) -> Self {
        let other = std::env::temp_dir().join(format!("stand-in-{name}-{}", std::process::id()));
        fs::create_dir_all(&other).unwrap();
        Self { bench: Bench::new(name, 0), other }
    }

    /// A fresh process of the home, which can read the other's directory if `reads`.
    fn home(&mut self, reads: bool) -> Worker {
        self.bench.incarnation += 1;
        let others = if reads { vec![self.other.clone()] } else { Vec::new() };
        let data = Data { others, ..Data::new(&self.bench.directory) };
        self.bench.source.worker(data, Box::new(Plain), self.bench.incarnation).unwrap()
    }

    /// A fresh process of the other broker.
    fn other(&mut self) -> Worker {
        self.bench.incarnation += 1;
        let data = Data::new(&self.other);
        let source = &self.bench.source;
        source.worker_at(broker(1), data, Box::new(Plain), self.bench.incarnation).unwrap()
    }

    /// Control's word.
    fn keep_at(&self, stand_in: Option<StandIn>) {
        let keepers = Keepers::default().with(0, stand_in);
        self.bench.pool.set_keepers(self.bench.topic, broker(0), keepers);
    }

    fn durable(&self) -> u64 {
        self.bench.pool.replicated(self.bench.topic, broker(0), 1).durable
    }

    fn stand_in_line(&self) -> ReplicaLine {
        let at = self.bench.pool.copy_line(self.bench.topic, broker(0), 0, Some(other_keeps()));
        self.bench.pool.copy_state(at)
    }

    /// Files of the other broker.
    fn survey(&self) -> SourceSurvey {
        let listing = list(&self.other).unwrap();
        SourceSurvey::take(&listing.topics[0].sources[0].files).unwrap()
    }

    fn forget(&self, below: u64) {
        self.bench.pool.raise_oldest(self.bench.topic, 0, below, 3 * below);
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.other);
    }
}

/// The other broker, as control names it.
fn other_keeps() -> StandIn {
    StandIn { broker: broker(1), line: 2 }
}

#[test]
fn a_stand_in_goes_on_where_the_home_ended() {
    let mut two = Two::new("goes-on");
    two.bench.land(10, 1000);
    work(&mut two.home(false));
    assert_eq!(two.durable(), 10);
    two.bench.land(10, 1000);
    two.keep_at(Some(other_keeps()));
    assert_eq!(two.durable(), 0, "it has not begun");
    work(&mut two.other());
    assert_eq!((two.durable(), two.bench.line().durable), (20, 10));
    assert_eq!(two.stand_in_line().state(), ReplicaState::Well);
    let survey = two.survey();
    let file = &survey.files[0];
    assert_eq!((survey.files.len(), file.batches, file.header.first_index), (1, 10, 10));
    // A process after it knows what it has.
    two.bench.land(5, 1000);
    work(&mut two.other());
    assert_eq!((two.durable(), two.survey().files[0].batches), (25, 15));
}

/// The disk of the stand-in is in nobody's rule: others have to name it.
#[test]
fn a_stand_in_says_what_it_keeps_here_and_there_and_what_another_directory_had() {
    let mut two = Two::new("says");
    two.bench.land(10, 1000);
    work(&mut two.home(false));
    two.keep_at(Some(other_keeps()));
    two.bench.land(5, 1000);
    let mut data = Data::new(&two.other);
    data.others = vec![two.bench.directory.clone(), two.other.join("not there")];
    let source = &two.bench.source;
    let mut other = source.worker_at(broker(1), data, Box::new(Plain), 7).unwrap();
    work(&mut other);
    assert_eq!(two.durable(), 15);
    let said = |data: &PathBuf| {
        let topic = list(data).unwrap().topics.remove(0);
        TopicFile::read(&topic.path).unwrap().places
    };
    let part = Part { source: 0, copy: 0, keeper: 1, from: 10 };
    assert_eq!(said(&two.other).parts, [part].into());
    assert_eq!(said(&two.bench.directory).parts, [part].into());
    assert_eq!(said(&two.other).lacks, [].into());
    assert_eq!(two.bench.pool.stood_in(two.bench.topic), [broker(1)]);
    assert_eq!(Numbers::read(&two.other).unwrap().brokers(), [1].into());
    // Its disk is not mounted, and it is started on the mount point, also after all is given back.
    for keepers in [Some(other_keeps()), None] {
        drop(fs::remove_dir_all(&two.other));
        fs::create_dir_all(&two.other).unwrap();
        two.keep_at(keepers);
        work(&mut two.other());
        let lack = Lack { keeper: 1, source: 0, entries: 5, below: 15, disk: 0, is_torn: false };
        assert_eq!(said(&two.other).lacks, [lack].into(), "{keepers:?}");
        if keepers.is_some() {
            // As the line was before.
            let at = two.bench.pool.copy_line(two.bench.topic, broker(0), 0, keepers);
            let line = two.stand_in_line();
            two.bench.pool.start_copy(at, &ReplicaLine { entries: 5, durable: 15, ..line });
        }
    }
}

/// An empty mount point, and a pool that is not served, or served and has lines of what was there.
#[test]
fn a_directory_that_was_made_anew_says_what_its_broker_had_and_is_named_when_the_pool_serves() {
    let mut bench = Bench::new("anew", 0);
    bench.land(10, 1000);
    work(&mut bench.worker());
    let numbers = || Numbers::read(&bench.directory).unwrap();
    let pool = bench.pool.uuid_text();
    assert_eq!(numbers().of, [(0, pool.clone())]);
    let places = || {
        let topic = list(&bench.directory).unwrap().topics.remove(0);
        TopicFile::read(&topic.path).unwrap().places
    };
    assert!(places().lacks.is_empty());
    fs::remove_dir_all(&bench.directory).unwrap();
    fs::create_dir_all(&bench.directory).unwrap();
    let data = || Data::new(&bench.directory);
    let worker = |incarnation| bench.source.worker(data(), Box::new(Plain), incarnation).unwrap();
    assert!(bench.pool.claim(
        1,
        &LeaderLine { term: Term { epoch: 2, serves: false }.pack(), ..LeaderLine::default() }
    ));
    if bench.pool.serving().is_none() {
        work(&mut worker(8));
        assert!(numbers().of.is_empty() && list(&bench.directory).unwrap().topics.is_empty());
    }
    bench.pool.copy_tables(Some(0));
    assert!(bench.pool.serve(2));
    work(&mut worker(9));
    assert_eq!(numbers().of, [(0, pool)]);
    // All of it was in memory, and is here by now.
    assert!(places().lacks.is_empty());
    fs::remove_dir_all(&bench.directory).unwrap();
    fs::create_dir_all(&bench.directory).unwrap();
    bench.pool.raise_oldest(bench.topic, 0, 4, 12);
    work(&mut worker(10));
    let lack = Lack { keeper: 0, source: 0, entries: 10, below: 10, disk: 0, is_torn: true };
    assert_eq!(places().lacks, [lack].into());
    // A process that finds its files as they are cannot tell that something is missing.
    work(&mut worker(11));
    assert_eq!(places().lacks, [lack].into());
}

/// Disks that are mounted in each other's places: what was somebody's once is not for that his.
#[test]
fn the_last_word_on_where_a_broker_keeps_a_topic_is_said_here_and_there() {
    let mut two = Two::new("swapped");
    two.bench.land(10, 1000);
    let places = |data: &PathBuf| {
        let topic = list(data).unwrap().topics.remove(0);
        TopicFile::read(&topic.path).unwrap().places
    };
    let (one, other) = (two.bench.directory.clone(), two.other.clone());
    let start = |two: &mut Two, own: &PathBuf, read: &PathBuf| {
        two.bench.incarnation += 1;
        let data = Data { others: vec![read.clone()], ..Data::new(own) };
        work(&mut two.bench.source.worker(data, Box::new(Plain), two.bench.incarnation).unwrap());
        Numbers::read(own).unwrap().id
    };
    for (own, read) in [(&one, &other), (&other, &one), (&one, &other)] {
        two.bench.land(2, 1000);
        let number = start(&mut two, own, read);
        let known = [own, read].map(|data| list(data).unwrap().topics.len());
        for data in [own, read].into_iter().zip(known).filter(|(_, topics)| *topics > 0) {
            assert_eq!(places(data.0).disks[&0].disk, number, "{data:?}");
        }
        assert!(places(own).lacks.is_empty(), "it was all in memory");
    }
    // Now it is not: only the other directory has what came while it was there.
    start(&mut two, &other, &one);
    two.bench.land(2, 1000);
    start(&mut two, &other, &one);
    two.forget(18);
    start(&mut two, &one, &one.join("not there"));
    let lacks = places(&one).lacks;
    assert!(lacks.iter().all(|lack| lack.is_torn) && !lacks.is_empty(), "{lacks:?}");
}

#[test]
fn an_old_keeper_that_wakes_makes_nothing_count() {
    let mut two = Two::new("wakes");
    two.bench.land(10, 1000);
    let mut home = two.home(false);
    work(&mut home);
    two.bench.land(10, 1000);
    two.keep_at(Some(other_keeps()));
    work(&mut home);
    assert_eq!(two.bench.line().durable, 20, "it has it");
    assert_eq!(two.durable(), 0, "and nobody goes by it");
    // The stand-in begins where the furthest keeper is, which leaves nothing out.
    two.bench.land(1, 1000);
    work(&mut two.other());
    assert_eq!((two.durable(), two.survey().files[0].header.first_index), (21, 20));
}

#[test]
fn what_is_given_back_is_kept_at_home_and_the_files_of_the_stand_in_stay() {
    let mut two = Two::new("given-back");
    two.bench.land(10, 1000);
    work(&mut two.home(false));
    two.keep_at(Some(other_keeps()));
    two.bench.land(10, 1000);
    let mut other = two.other();
    work(&mut other);
    let mut home = two.home(false);
    work(&mut home);
    assert_eq!(two.bench.line().durable, 20, "it catches up without being asked");
    two.keep_at(None);
    assert_eq!(two.durable(), 20);
    two.bench.land(5, 1000);
    work(&mut other);
    assert_eq!((two.stand_in_line().durable, two.durable()), (20, 20), "it keeps it no more");
    work(&mut home);
    assert_eq!((two.durable(), two.bench.batches()), (25, 25));
    assert_eq!(two.survey().files[0].batches, 10);
    // The same broker, once more, some entries later.
    two.keep_at(Some(other_keeps()));
    two.bench.land(5, 1000);
    work(&mut other);
    assert_eq!(two.durable(), 30);
    let headers: Vec<_> = two.survey().files.iter().map(|file| file.header).collect();
    let at: Vec<_> = headers.iter().map(|h| (h.first_index, h.previous_index)).collect();
    assert_eq!(at, [(10, NO_FILE), (25, NO_FILE)], "a hole between them, which can be seen");
}

#[test]
fn what_memory_has_no_more_comes_from_the_files_of_the_stand_in() {
    let mut two = Two::new("fills");
    two.bench.land(10, 1000);
    work(&mut two.home(false));
    two.keep_at(Some(other_keeps()));
    two.bench.land(10, 1000);
    work(&mut two.other());
    two.forget(17);
    work(&mut two.home(true));
    assert_eq!(two.bench.state(), (20, ReplicaState::Well));
    assert_eq!((two.bench.batches(), two.bench.survey().files.len()), (20, 1), "no hole");
}

#[test]
fn what_can_be_read_nowhere_is_a_hole_that_is_told_of() {
    let mut two = Two::new("hole");
    two.bench.land(10, 1000);
    work(&mut two.home(false));
    two.keep_at(Some(other_keeps()));
    two.bench.land(10, 1000);
    work(&mut two.other());
    two.forget(17);
    let mut home = two.home(false);
    work(&mut home);
    assert_eq!(two.bench.state(), (20, ReplicaState::Well));
    let survey = two.bench.survey();
    let first: Vec<_> = survey.files.iter().map(|file| file.header.first_index).collect();
    assert_eq!(first, [0, 17]);
    assert_eq!(survey.files[1].header.previous_index, NO_FILE);
}

#[test]
fn a_home_that_never_began_takes_nothing_for_its_own() {
    let mut two = Two::new("never");
    two.bench.land(10, 1000);
    two.keep_at(Some(other_keeps()));
    work(&mut two.other());
    two.forget(10);
    two.bench.land(1, 1000);
    work(&mut two.home(true));
    assert_eq!((two.bench.state().0, two.bench.batches()), (11, 11), "filled from the other's");
}

#[test]
fn after_another_life_of_the_pool_a_stand_in_goes_on_where_the_log_does() {
    let mut two = Two::new("lives");
    two.bench.land(10, 1000);
    work(&mut two.home(false));
    two.keep_at(Some(other_keeps()));
    two.bench.land(5, 1000);
    work(&mut two.other());
    // No line is left, and the log goes on further behind.
    for stand_in in [None, Some(other_keeps())] {
        let at = two.bench.pool.copy_line(two.bench.topic, broker(0), 0, stand_in);
        let none = landfall_pool::copies::CopyLine { key: 0, ..at };
        two.bench.pool.start_copy(none, &ReplicaLine::default());
    }
    two.bench.land(5, 1000);
    two.forget(18);
    work(&mut two.other());
    assert_eq!((two.durable(), two.stand_in_line().state()), (20, ReplicaState::Well));
    let first: Vec<_> = two.survey().files.iter().map(|file| file.header.first_index).collect();
    assert_eq!(first, [10, 18]);
}

#[test]
fn files_that_begin_behind_what_is_to_be_kept_stop_a_stand_in() {
    let mut two = Two::new("behind");
    two.bench.land(10, 1000);
    let mut home = two.home(false);
    work(&mut home);
    two.keep_at(Some(other_keeps()));
    two.bench.land(5, 1000);
    work(&mut two.other());
    // Lines of another life: nobody knows that the home was ever further than 3.
    let nothing = ReplicaLine::default();
    let at = two.bench.pool.copy_line(two.bench.topic, broker(0), 0, Some(other_keeps()));
    two.bench.pool.start_copy(landfall_pool::copies::CopyLine { key: 0, ..at }, &nothing);
    let home_at = two.bench.pool.copy_line(two.bench.topic, broker(0), 0, None);
    let back = ReplicaLine { durable: 3, written: 3, incarnation: 1, ..nothing };
    two.bench.pool.start_copy(home_at, &back);
    work(&mut two.other());
    assert_eq!(two.stand_in_line().state(), ReplicaState::Failed);
    assert_eq!(two.durable(), 0);
    assert_eq!(two.survey().files[0].batches, 5, "they are not touched");
}

/// Its files may be all there is of what it kept, and the topic's bounds apply to them too.
#[test]
fn bounds_let_go_of_files_that_a_stand_in_has_left() {
    let mut two = Two::new("bounds");
    let mut entry = two.bench.pool.topic_in_slot(0).unwrap();
    entry.disk_bytes = 25_000;
    two.bench.pool.set_topic(&entry);
    two.bench.land(2, 2000);
    work(&mut two.home(false));
    two.keep_at(Some(other_keeps()));
    let data = Data { file_bytes: 10_000, ..Data::new(&two.other) };
    let mut other = two.bench.source.worker_at(broker(1), data, Box::new(Plain), 7).unwrap();
    for _ in 0..8 {
        two.bench.land(4, 2000);
        work(&mut other);
    }
    let files = |two: &Two| two.survey().files.len();
    let (start, all) = (boot_ns(), files(&two));
    work(&mut two.home(true));
    two.keep_at(None);
    work(&mut other);
    other.let_go(start + 20_000_000_000);
    assert_eq!(files(&two), all, "memory has it too");
    two.forget(two.bench.frontier.entries);
    other.let_go(start + 40_000_000_000);
    let survey = two.survey();
    let bytes: u64 = survey.files.iter().map(|file| file.bytes).sum();
    assert!(survey.files.len() < all && bytes >= 25_000, "{} of {all}", survey.files.len());
    assert!(survey.seams.is_empty(), "{:?}", survey.seams);
    entry.disk_bytes = 0;
    two.bench.pool.set_topic(&entry);
    other.let_go(start + 60_000_000_000);
    assert_eq!(files(&two), survey.files.len(), "nothing is to be let go of");
}

/// Of what came before it began, its line says nothing, though it has kept nothing yet.
#[test]
fn a_stand_in_excuses_no_hole_that_was_there_before_it_began() {
    let mut two = Two::new("excuses");
    two.bench.land(5, 1000);
    work(&mut two.home(false));
    let (one, older) = (two.bench.directory.clone(), two.bench.directory.with_extension("older"));
    let copied = std::process::Command::new("cp").arg("-a").args([&one, &older]).status();
    assert!(copied.unwrap().success());
    two.bench.land(5, 1000);
    work(&mut two.home(false));
    two.forget(10);
    fs::remove_dir_all(&one).unwrap();
    fs::rename(&older, &one).unwrap();
    let mut home = two.home(false);
    work(&mut home);
    let holes = || {
        let topic = list(&one).unwrap().topics.remove(0);
        TopicFile::read(&topic.path).unwrap().holes
    };
    let hole = Hole { source: 0, from: 5, to: 10 };
    assert_eq!((two.bench.line().errno, holes()), (61, [hole].into()));
    two.keep_at(Some(other_keeps()));
    for _ in 0..2 {
        let mut other = two.other();
        work(&mut other);
        assert_eq!(other.notes(), [""; 0]);
        let line = two.stand_in_line();
        assert_eq!((line.durable, line.tail, line.entries), (10, 10, 0));
        look_again(&mut home, 0);
        assert_eq!((two.bench.line().errno, holes()), (61, [hole].into()));
    }
    // What it follows itself it says: others' entries, which leave memory as well.
    (0..3).for_each(|_| {
        two.bench.source.append(&OrderEntry { broker: 1, count: 3, ..OrderEntry::default() })
    });
    two.bench.source.publish();
    work(&mut two.other());
    assert_eq!((two.stand_in_line().durable, two.stand_in_line().tail), (13, 10));
}
