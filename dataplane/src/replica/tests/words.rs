//! In which directory a broker keeps a topic, by its last word.

use landfall_pool::Memory;

use super::disks::{Disks, land};
use super::*;

/// A broker is given another disk, and can read no other directory. Its words are a day apart, by a
/// clock that was set back.
#[test]
fn a_later_word_counts_though_the_clock_was_set_back() {
    let disks = Disks::new("set-back");
    let mut source = Source::new(pool(), 0);
    land(&mut source, 3);
    let requests = source.pool.geometry().requests_taken(broker(0));
    let mut said = Vec::new();
    for (which, taken) in [(0, 3), (1, 5)] {
        source.pool.store(requests, taken);
        let data = disks.data(which, false);
        work(&mut source.worker(data, Box::new(Plain), which as u64 + 1).unwrap());
        let mut places = TopicFile::read(&disks.topic(which)).unwrap().places;
        places.disks.get_mut(&0).unwrap().said_ns -= which as u64 * 86_400_000_000_000;
        said.push(places);
    }
    let later = said[1].disks[&0];
    assert_ne!(said[0].disks[&0].disk, later.disk);
    assert!(later.said_ns < said[0].disks[&0].said_ns && later.requests == 5, "{later:?}");
    let mut all = said[0].clone();
    all.join(&said[1]);
    assert_eq!(all.disks[&0], later);
}
