//! A disk that is full for a moment while it gets what another copy has: what was gathered then is
//! looked for again.

use landfall_layout::replica::ENODATA;
use landfall_replica::names::list;

use super::disks::{Disks, land, line, next_pool, six};
use super::*;

/// A process of broker 0 whose disk takes the first file's header and `bytes` more, twice, and has
/// room after that.
fn full_for_a_moment(disks: &Disks, source: &Source, bytes: u64) {
    let faults = Faults::default();
    let disk = Box::new(Faulty::new(Plain, faults.clone()));
    let mut worker = source.worker(disks.data(0, true), disk, 2).unwrap();
    let full = |full_after| Plan { full_after: Some(full_after), ..Plan::default() };
    faults.set(full(REPLICA_HEADER_BYTES + bytes));
    let mut now = boot_ns();
    worker.look_at_table(now);
    for plan in [full(0), Plan::default()] {
        while worker.round(now) {}
        assert_eq!(line(source).2, ReplicaState::Full);
        faults.set(plan);
        now += 1_000_000_000;
    }
    while worker.round(now) {}
}

/// Batches in the files of broker 0.
fn batches(disks: &Disks) -> u64 {
    let listing = list(&disks.0[0]).unwrap();
    let survey = SourceSurvey::take(&listing.topics[0].sources[0].files).unwrap();
    survey.files.iter().map(|file| file.batches).sum()
}

#[test]
fn what_was_gathered_for_a_full_disk_is_gathered_again() {
    // The log goes on right behind what the other copy has, or behind what nobody knows of.
    for (end, errno) in [(6, 0), (20, ENODATA)] {
        for bytes in [0, 300] {
            let disks = six(&format!("full-{end}-{bytes}"));
            let mut source = next_pool(end);
            land(&mut source, 1);
            full_for_a_moment(&disks, &source, bytes);
            assert_eq!(line(&source), (end + 1, 7, ReplicaState::Well, errno));
            assert_eq!(batches(&disks), 7);
        }
    }
}

/// Memory has them no more, and the other copy does.
#[test]
fn what_memory_lost_is_not_called_lost_because_the_disk_was_full() {
    let disks = Disks::new("full-and-spoilt");
    let mut source = Source::new(pool(), 0);
    land(&mut source, 6);
    let theirs = Data::new(&disks.0[1]);
    work(&mut source.worker(theirs, Box::new(Plain), 1).unwrap());
    let at = source.pool.geometry().segment(landfall_layout::SegmentId(2)).unwrap();
    // Their publisher writes there again.
    (0..6).for_each(|batch| source.pool.write(at + batch * 192 + 100, &[1]).unwrap());
    full_for_a_moment(&disks, &source, 0);
    assert_eq!(line(&source), (6, 6, ReplicaState::Well, 0));
    assert_eq!(source.pool.lost(source.topic, broker(0)).count, 0);
    assert_eq!(batches(&disks), 6);
}
