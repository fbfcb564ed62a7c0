//! An older pool that is started again on directories which another pool has taken up since.

mod fake;

use std::fs::{self, File};
use std::io::Write;
use std::thread;
use std::time::Duration;

use fake::Memory;
use fake::homes::{Two, entry, lead, name, said};
use landfall_control::cold::elsewhere::check;
use landfall_control::cold::restore;
use landfall_layout::TopicId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::FrontierLine;
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::topic::Order;
use landfall_replica::names::{TOPIC_COPY, TOPIC_FILE};
use landfall_replica::{Resumed, TopicFile};
use nix::sys::stat::Mode;

/// Directories of brokers 0 and 1 with topic t, of which both keep everything.
fn two(name_of: &str) -> Two {
    let two = Two::new(name_of);
    for (number, (data, topic)) in two.data().iter().zip(two.topics()).enumerate() {
        fs::create_dir_all(&topic).unwrap();
        name(data, number);
        said(&entry(Order::Total, 3)).write(&topic).unwrap();
    }
    two
}

#[test]
fn a_pool_whose_topics_went_on_in_another_is_not_served_again() {
    let two = two("elsewhere");
    let [first, second] = [Memory::new(), Memory::new()];
    for close in [false, true, false] {
        let control = lead(&first, &two.data()).unwrap();
        if close {
            control.close(&two.data());
        }
    }
    lead(&second, &two.data()).unwrap().stop();
    for _ in 0..2 {
        let why = lead(&first, &two.data()).map(|_| ()).unwrap_err();
        assert!(why.contains("topic t went on in another pool since"), "{why}");
        assert!(why.contains(&second.pool(48).uuid_text()), "{why}");
    }
    lead(&second, &two.data()).unwrap();
}

/// One of its directories went on elsewhere: a control that ends for that would end all others.
#[test]
fn a_pool_that_still_has_a_directory_is_served() {
    let two = two("one-elsewhere");
    let [first, second] = [Memory::new(), Memory::new()];
    lead(&first, &two.data()).unwrap().stop();
    lead(&second, &two.data()[1..]).unwrap().stop();
    let pools = two.topics().map(|topic| TopicFile::read(&topic).unwrap().pool_uuid);
    assert_eq!(pools, [first.pool(48).uuid_text(), second.pool(48).uuid_text()]);
    lead(&first, &two.data()).unwrap();
}

/// A copy of the pool's file from before was put back.
#[test]
fn a_pool_that_is_behind_its_directories_is_not_served() {
    let two = two("behind");
    let memory = Memory::new();
    let control = lead(&memory, &two.data()).unwrap();
    assert!(control.close(&two.data()).is_empty());
    for topic in two.topics() {
        let whole = TopicFile::read(&topic).unwrap();
        let ended = whole.ended.as_ref().unwrap().logs[&SEQUENCED_LOG].index;
        let (mut further, mut reached) = (whole.clone(), whole.clone());
        let end = further.ended.as_mut().unwrap().logs.get_mut(&SEQUENCED_LOG).unwrap();
        end.index += 1;
        let place = Resumed { index: ended + 1, position: 0 };
        reached.reached.insert(SEQUENCED_LOG, place);
        for said in [further, reached] {
            said.write(&topic).unwrap();
            let why = lead(&memory, &two.data()).map(|_| ()).unwrap_err();
            assert!(why.contains("this pool is older than"), "{why}");
            assert!(
                why.contains(&format!("at index {} there and is at {ended}", ended + 1)),
                "{why}"
            );
        }
        whole.write(&topic).unwrap();
    }
    lead(&memory, &two.data()).unwrap();
}

/// The broker of a pool that lives lands on, and says so in its directory, while control reads it.
#[test]
fn a_broker_that_lands_on_is_not_ahead_of_its_pool() {
    let two = two("lands-on");
    for topic in two.topics() {
        said(&entry(Order::None, 3)).write(&topic).unwrap();
    }
    // Without a control, whose threads read directories too.
    let memory = Memory::new();
    let (pool, data, topic) = (memory.pool(48), &two.data()[..1], &two.topics()[0]);
    let term = Term { epoch: 1, serves: false }.pack();
    assert!(pool.claim(1, &LeaderLine { term, ..LeaderLine::default() }));
    pool.copy_tables(None);
    restore(&pool, &two.data(), false, 1).unwrap();
    assert!(pool.serve(1));
    let id = TopicId(entry(Order::None, 3).id);
    pool.start_frontier(id, 0);
    let here = pool.frontier(id, 0);
    let mut further = TopicFile::read(topic).unwrap();
    let place = Resumed { index: here.entries + 9, position: here.position + 9 };
    further.reached.insert(0, place);
    further.write(topic).unwrap();
    // Who opens it for reading waits for who writes.
    let (file, copy) = (topic.join(TOPIC_FILE), topic.join(TOPIC_COPY));
    let text = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::remove_file(copy).unwrap();
    nix::unistd::mkfifo(&file, Mode::S_IRWXU).unwrap();
    thread::scope(|scope| {
        let looks = scope.spawn(|| check(&pool, data, Duration::from_secs(600)));
        let mut file = File::options().write(true).open(&file).unwrap();
        let line = FrontierLine { entries: place.index, position: place.position, ..here };
        pool.advance_frontier(id, 0, &line);
        file.write_all(&text).unwrap();
        drop(file);
        assert!(looks.join().unwrap().is_ok_and(|notes| notes.is_empty()));
    });
}
