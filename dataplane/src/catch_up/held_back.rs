//! Tests: who holds a reader back that meets what no file has, by a data directory that does not
//! answer.

use std::fs;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::frame::From;
use landfall_pool::clock::boot_ns;
use landfall_pool::disk::plain::Plain;
use landfall_replica::lookup::Start;
use landfall_replica::merge::Wanted;
use landfall_replica::names::{list_source, source_directory, topic_directory};
use landfall_replica::numbers::NUMBERS_COPY;
use landfall_replica::there::Part;
use landfall_replica::{Merge, Numbers, Skips, TopicFile, numbers};
use nix::sys::stat::Mode;

use super::chunk::{self, Reasons};
use super::{Chunk, Lookup, Place, find};
use crate::replica::Data;
use crate::replica::rig::{CREATED_NS, Source};

/// Two data directories: broker 0's, which answers and has a topic of which it is the only home,
/// and another one, which does not answer.
struct Scene {
    root: PathBuf,
    wanted: Wanted,
    /// The other one's number; 0: it has none.
    id: u64,
}

/// How a directory does not answer.
#[derive(Clone, Copy, Debug)]
enum How {
    Away,
    Hangs,
    Refused,
}

const ALL: [How; 3] = [How::Away, How::Hangs, How::Refused];

impl Drop for Scene {
    fn drop(&mut self) {
        // A thread that waits at it for ever would keep the test's process.
        drop(fs::OpenOptions::new().read(true).write(true).open(self.other().join(NUMBERS_COPY)));
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Scene {
    /// Three batches of three positions, a second apart, each in a file of its own. The other
    /// directory says first that it is broker `whose`'s; none: it never said it to this process.
    fn new(name: &str, whose: Option<usize>, how: How) -> Self {
        let name = format!("held-{name}-{how:?}-{whose:?}-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        let data = ["home", "other"].map(|name| root.join(name)).to_vec();
        data.iter().for_each(|data| fs::create_dir_all(data).unwrap());
        let mut log = Source::new(crate::rig::pool(), 0);
        let mut worker = None;
        for landed_ns in [1, 2, 3] {
            let entry = log.place(&[7; 100], true);
            log.append(&landfall_layout::order::OrderEntry { landed_ns, ..entry });
            log.publish();
            let data = Data { file_bytes: 1, ..Data::new(&data[0]) };
            let worker =
                worker.get_or_insert_with(|| log.worker(data, Box::new(Plain), 1).unwrap());
            worker.look_at_table(boot_ns());
            while worker.round(boot_ns()) {}
        }
        let wanted = Wanted {
            data,
            name: "t".to_owned(),
            created_ns: CREATED_NS,
            sources: vec![broker(0)],
            is_shared: false,
            stood_in: Some(Vec::new()),
        };
        let mut scene = Self { root, wanted, id: 0 };
        if let Some(whose) = whose {
            numbers::name(scene.other(), broker(whose), "pool").unwrap();
            scene.id = Numbers::read(scene.other()).unwrap().id;
        }
        scene.silence(how);
        scene
    }

    fn other(&self) -> &Path {
        &self.wanted.data[1]
    }

    fn topic(&self) -> PathBuf {
        topic_directory(&self.wanted.data[0], "t", CREATED_NS)
    }

    fn silence(&self, how: How) {
        let (other, copy) = (self.other(), self.other().join(NUMBERS_COPY));
        match how {
            How::Away => {
                fs::remove_dir_all(other).unwrap();
                fs::create_dir(other).unwrap();
            }
            How::Hangs => {
                let _ = fs::remove_file(&copy);
                nix::unistd::mkfifo(&copy, Mode::S_IRWXU).unwrap();
            }
            How::Refused => {
                fs::rename(other, other.with_extension("kept")).unwrap();
                std::os::unix::fs::symlink(other, other).unwrap();
            }
        }
    }

    /// The second batch is in no file any more.
    fn lose_one(&self) {
        let source = source_directory(&self.topic(), broker(0));
        let files = list_source(&source, &mut Vec::new()).unwrap();
        fs::remove_file(&files[1].1).unwrap();
    }

    /// What broker 0's directory says of the topic is changed.
    fn change(&self, change: impl FnOnce(&mut TopicFile)) {
        let changed = TopicFile::change(&self.topic(), |file| {
            let mut file = file.unwrap();
            change(&mut file);
            (Some(file), ())
        });
        changed.unwrap();
    }

    /// What a reader is given that has the first batch.
    fn read(&self) -> Chunk {
        self.read_with(&mut Merge::naming_lost(&self.wanted))
    }

    fn read_with(&self, merge: &mut Merge) -> Chunk {
        let (skips, unread) = self.wanted.skips(0);
        assert_eq!(skips, Skips::default());
        let reasons = Reasons { skips: &skips, unread: &unread, bounded: None };
        chunk::read(merge, 0, Place::new(1, 3), 3, &reasons)
    }

    /// It is told that the second batch is lost, and has the third.
    fn goes_on(&self) -> bool {
        went_on(&self.read())
    }

    /// Where a reader begins.
    fn find(&self, from: From) -> Result<Option<Start>, PathBuf> {
        let (wanted, last_skip) = (self.wanted.clone(), None);
        let lookup = Lookup { log: 0, wanted, until: 3, last_skip, is_bounded: false };
        find(&lookup, from, &mut Vec::new()).map_err(|silent| silent.path)
    }
}

fn broker(number: usize) -> BrokerId {
    BrokerId::new(number).unwrap()
}

/// It was told of the gap, and has what is behind it; or it waits in front of the gap.
fn went_on(chunk: &Chunk) -> bool {
    let told = (chunk.missed, chunk.batches, chunk.place.position, chunk.is_blind);
    match told {
        (3, 1, 9, false) => true,
        (0, 0, 3, true) => {
            assert!(chunk.faults.last().unwrap().contains("/other"), "{:?}", chunk.faults);
            false
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_directory_of_no_home_holds_nobody_back() {
    for how in ALL {
        let mut scene = Scene::new("no-home", Some(1), how);
        scene.lose_one();
        assert!(scene.goes_on(), "{how:?}");
        scene.wanted.is_shared = true;
        assert!(scene.goes_on(), "{how:?}: of a sequenced log the home of all others is here too");
    }
}

#[test]
fn the_directory_of_a_home_holds_readers_back_where_the_batches_are_of_its_sources() {
    for how in ALL {
        let mut scene = Scene::new("home", Some(1), how);
        scene.lose_one();
        scene.change(|file| file.replica_brokers = 2);
        assert!(scene.goes_on(), "{how:?}: broker 0 alone keeps what broker 0 landed");
        scene.wanted.is_shared = true;
        assert!(!scene.goes_on(), "{how:?}: broker 1 may have landed it, before the pool was lost");
        scene.wanted.is_shared = false;
        scene.change(|file| file.replicas = 3);
        assert!(!scene.goes_on(), "{how:?}: so does broker 1");
    }
}

/// A broker was started on another one's directory, and that went away before it was looked at.
#[test]
fn a_directory_in_which_a_home_says_that_it_keeps_the_topic_holds_readers_back() {
    for how in ALL {
        let scene = Scene::new("moved", Some(1), how);
        scene.lose_one();
        scene.change(|file| file.places.keep(0, scene.id + 1, u64::MAX / 2));
        assert!(scene.goes_on(), "{how:?}: it is in a third one");
        scene.change(|file| file.places.keep(0, scene.id, u64::MAX));
        assert!(!scene.goes_on(), "{how:?}");
    }
}

#[test]
fn the_directory_of_who_stood_in_holds_readers_back() {
    for how in ALL {
        let scene = Scene::new("said", Some(5), how);
        scene.lose_one();
        let of_another = Part { source: 1, copy: 0, keeper: 5, from: 0 };
        of_another.say(&scene.topic()).unwrap();
        assert!(scene.goes_on(), "{how:?}: it stood in for another one's copy");
        Part { source: 0, ..of_another }.say(&scene.topic()).unwrap();
        assert!(!scene.goes_on(), "{how:?}");
        // Where no directory says it, the pool does, also to who reads already.
        let scene = Scene::new("in-the-pool", Some(5), how);
        scene.lose_one();
        for (stood_in, goes_on) in [(vec![4], true), (vec![4, 5], false)] {
            let mut merge = Merge::naming_lost(&scene.wanted);
            merge.hear_of(&stood_in.into_iter().map(broker).collect::<Vec<_>>());
            assert_eq!(went_on(&scene.read_with(&mut merge)), goes_on, "{how:?}");
        }
    }
}

#[test]
fn a_directory_of_which_nobody_knows_whose_it_is_holds_readers_back() {
    for how in [How::Hangs, How::Refused] {
        let scene = Scene::new("unknown", None, how);
        scene.lose_one();
        assert!(!scene.goes_on(), "{how:?}: it never said whose it is");
    }
    for how in ALL {
        let mut scene = Scene::new("nobody-says", Some(1), how);
        scene.lose_one();
        scene.wanted.stood_in = None;
        assert!(!scene.goes_on(), "{how:?}: nobody asked the pool who stood in");
        scene.wanted.stood_in = Some(Vec::new());
        assert!(scene.goes_on(), "{how:?}");
        fs::remove_dir_all(scene.topic()).unwrap();
        assert!(scene.read().is_blind, "{how:?}: nobody says who keeps what");
    }
}

/// No disk holds up who looks for a time or a position that others are known to have first.
#[test]
fn a_reader_by_time_or_position_is_not_refused_where_another_copy_has_all() {
    let all = [From::Time(2), From::Position(4), From::Time(0), From::Position(0)];
    for how in ALL {
        // Nobody knows whose it is, or it is a home's.
        for whose in [None, Some(0)].into_iter().skip(usize::from(matches!(how, How::Away))) {
            let scene = Scene::new("whole", whose, how);
            let second = Start { index: 1, position: 3 };
            let first = Start { index: 0, position: 0 };
            let found = all.map(|from| scene.find(from));
            let want = [second, second, first, first].map(|start| Ok(Some(start)));
            assert_eq!(found, want, "{how:?} {whose:?}");
        }
    }
}

#[test]
fn a_reader_by_time_or_position_is_refused_where_only_a_silent_disk_may_have_it() {
    // The position is not the oldest: the one that is there begins behind it.
    let all = [From::Time(0), From::Time(2), From::Position(0), From::Position(4)];
    for how in ALL {
        let mut scene = Scene::new("older", Some(1), how);
        // As if the copy was begun anew behind what it lacks.
        let source = source_directory(&scene.topic(), broker(0));
        fs::remove_dir_all(source).unwrap();
        let nothing = all.map(|from| scene.find(from));
        assert_eq!(nothing, [(); 4].map(|()| Ok(None)), "{how:?}: of no home, memory has the rest");
        scene.change(|file| (file.replicas, file.replica_brokers) = (3, 2));
        let refused = all.map(|from| scene.find(from));
        assert!(refused.iter().all(Result::is_err), "{how:?}: {refused:?}");
        scene.change(|file| (file.replicas, file.replica_brokers) = (2, 1));
        scene.wanted.sources.push(broker(1));
        assert!(all.iter().all(|from| scene.find(*from) == Ok(None)), "{how:?}");
        Part { source: 1, copy: 0, keeper: 1, from: 0 }.say(&scene.topic()).unwrap();
        assert!(all.iter().all(|from| scene.find(*from).is_err()), "{how:?}: it stood in for one");
    }
}
