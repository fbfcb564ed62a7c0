//! A topic that came back from disk: who landed before lands nothing now, and a directory is new.

use std::collections::BTreeMap;

use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{ChainLine, FrontierLine};
use landfall_layout::replica::ENODATA;
use landfall_replica::names::source_directory;
use landfall_replica::there::Lack;
use landfall_replica::{Ended, EndedLog, Resumed, Skipped, Skips};

use super::disks::{errors, next_pool, six};
use super::*;

/// A pool in which the topic is sequenced, with nothing of its log in memory below `index`, and
/// where nobody has a ring.
fn sequenced(index: u64) -> Source {
    let source = Source::new(pool(), 0);
    let mut entry = source.pool.topic_in_slot(0).unwrap();
    entry.order = Order::Total.raw();
    source.pool.set_topic(&entry);
    source.pool.start_frontier(source.topic, SEQUENCED_LOG);
    go_on(&source, index);
    source
}

/// All that there is up to `index` has left memory.
fn go_on(source: &Source, index: u64) {
    let chain = ChainLine {
        oldest_index: index,
        oldest_position: index * 3,
        head: u32::MAX,
        tail: u32::MAX,
        topic: source.topic.0.into(),
        ..ChainLine::default()
    };
    let line = FrontierLine { entries: index, position: index * 3, ..FrontierLine::default() };
    source.pool.advance_frontier(source.topic, SEQUENCED_LOG, &line);
    source.pool.set_chain(source.topic, SEQUENCED_LOG, &chain);
}

#[test]
fn a_wiped_disk_is_filled_with_what_somebody_landed_who_lands_nothing_now() {
    let disks = six("lands-nothing");
    let source = sequenced(6);
    assert_eq!(errors(&source, disks.data(0, true), 1), [""; 0]);
    let line = source.pool.replica(source.topic, broker(0), 0);
    assert_eq!((line.durable, line.entries, line.errno), (6, 6, 0));
    assert_eq!(disks.batches(0), (0, 6));
}

/// Nothing waits for it while it is away: it lands nothing.
#[test]
fn who_lands_nothing_and_was_away_while_others_did_lacks_nothing() {
    let disks = six("was-away");
    let source = sequenced(6);
    assert_eq!(errors(&source, disks.data(0, true), 1), [""; 0]);
    let file = TopicFile::read(&disks.topic(0)).unwrap();
    let resumed = BTreeMap::from([(SEQUENCED_LOG, Resumed { index: 6, position: 18 })]);
    TopicFile { resumed, ..file }.replace(&disks.topic(0)).unwrap();
    for incarnation in 2..5 {
        go_on(&source, 6 * incarnation);
        assert_eq!(errors(&source, disks.data(0, false), incarnation), [""; 0]);
        let line = source.pool.replica(source.topic, broker(0), 0);
        assert_eq!((line.durable, line.entries, line.errno), (6 * incarnation, 6, 0));
    }
}

/// Its own files are looked at too: they are older, and nothing has what came behind them.
#[test]
fn what_is_not_on_a_disk_is_told_also_of_somebody_who_lands_nothing_now() {
    let disks = six("tells");
    errors(&sequenced(6), disks.data(0, true), 1);
    let source = sequenced(9);
    let said = errors(&source, disks.data(0, false), 1);
    assert!(said[0].contains("has everything only up to 6"), "{said:?}");
    assert_eq!(source.pool.replica(source.topic, broker(0), 0).errno, ENODATA);
}

/// Its broker lands nothing more, and no directory that can be read has files of it.
#[test]
fn what_is_gone_from_a_disk_of_somebody_who_lands_nothing_now_is_told_and_shown() {
    for is_all in [true, false] {
        let disks = six(if is_all { "gone-disk" } else { "gone-files" });
        let source = sequenced(6);
        assert_eq!(errors(&source, disks.data(0, true), 1), [""; 0]);
        let mine = source_directory(&disks.topic(0), broker(0));
        fs::remove_dir_all(if is_all { &disks.0[0] } else { &mine }).unwrap();
        for incarnation in 2..4 {
            let said = errors(&source, disks.data(0, false), incarnation);
            let hole = |text: &String| text.contains("landed at indexes 0 to 6 is not on this");
            assert!(said.iter().any(hole), "{said:?}");
            let line = source.pool.replica(source.topic, broker(0), 0);
            assert_eq!((line.durable, line.entries, line.errno), (6, 0, ENODATA));
            let lacks = TopicFile::read(&disks.topic(0)).unwrap().places.lacks;
            let is_said = |lack: &Lack| (lack.entries, lack.is_torn) == (6, true);
            assert!(lacks.iter().any(is_said), "{lacks:?}");
        }
    }
}

#[test]
fn a_directory_that_is_new_learns_what_the_others_say() {
    let disks = six("learns");
    let source = next_pool(20);
    let mut skips = Skips::default();
    skips.add(Skipped { index: 6, to_index: 20, position: 18, to_position: 60 });
    let place = Resumed { index: 20, position: 60 };
    let log = EndedLog { index: 6, position: 18, ..EndedLog::default() };
    let there = TopicFile {
        pool_uuid: source.pool.uuid_text(),
        resumed: BTreeMap::from([(0, place)]),
        reached: BTreeMap::from([(0, place)]),
        skipped: BTreeMap::from([(0, skips)]),
        began: Some(Ended { logs: BTreeMap::from([(3, log)]) }),
        ..TopicFile::read(&disks.topic(1)).unwrap()
    };
    there.replace(&disks.topic(1)).unwrap();
    // One that was made when the other could not be read learns it when it can.
    for reads in [false, true] {
        work(&mut source.worker(disks.data(0, reads), Box::new(Plain), 1).unwrap());
        let own = TopicFile::read(&disks.topic(0)).unwrap();
        assert_eq!(own.reached, there.reached, "at least what the pool says");
        assert_eq!(own.resumed == there.resumed, reads);
        assert_eq!((own.skipped == there.skipped, own.began == there.began), (reads, reads));
    }
}

#[test]
fn a_directory_of_another_pool_teaches_nothing() {
    let disks = six("teaches");
    let source = next_pool(20);
    let place = Resumed { index: 900, position: 2700 };
    let there = TopicFile::read(&disks.topic(1)).unwrap();
    let reached = BTreeMap::from([(0, place)]);
    TopicFile { reached, pool_uuid: "9".repeat(32), ..there }.replace(&disks.topic(1)).unwrap();
    work(&mut source.worker(disks.data(0, true), Box::new(Plain), 1).unwrap());
    assert_eq!(TopicFile::read(&disks.topic(0)).unwrap().reached[&0].index, 20);
}
