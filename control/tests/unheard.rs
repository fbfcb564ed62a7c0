//! Brokers' own logs of which no directory knows, after a pool was lost.

mod fake;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use fake::homes::{self, Two, said};
use fake::{Broker, Memory};
use landfall_control::cold::restore;
use landfall_layout::TopicId;
use landfall_layout::segment::SegmentKind;
use landfall_layout::topic::{Order, TopicEntry};
use landfall_pool::Pool;
use landfall_replica::{Ended, EndedLog, Resumed, TopicFile};

/// What a pool of 48 MiB can have had: entries of two lines, and messages of a header.
const MOST: Resumed = Resumed { index: (48 << 20) / 128, position: (48 << 20) / 16 };

/// Directories of two brokers that know of log 0 of the topic, and of no other.
fn directories(name: &str) -> Two {
    let two = Two::new(name);
    for (number, topic) in two.topics().iter().enumerate() {
        fs::create_dir_all(topic).unwrap();
        homes::name(&two.data()[number], number);
        let mut file = said(&homes::entry(Order::Broker, 2));
        file.resumed.insert(0, Resumed { index: 3, position: 30 });
        file.write(topic).unwrap();
    }
    two
}

/// The topic as it comes back into a new pool.
fn back(data: &[PathBuf]) -> (Arc<Pool>, TopicEntry) {
    let pool = Memory::new().pool(48);
    restore(&pool, data, false, 1).unwrap();
    let entry = pool.topic(TopicId(homes::entry(Order::Broker, 2).id)).unwrap();
    (pool, entry)
}

fn begins(entry: &TopicEntry) -> Resumed {
    Resumed { index: entry.begin_index, position: entry.begin_position }
}

/// Any broker may have landed something that was shown from memory and is on no disk.
#[test]
fn a_log_of_which_no_directory_knows_begins_behind_all_that_it_may_have_had() {
    let two = directories("unheard");
    let twice = Resumed { index: 2 * MOST.index, position: 2 * MOST.position };
    for most in [MOST, twice] {
        let (pool, entry) = back(&two.data());
        assert_eq!(begins(&entry), most);
        let there = (0..32).filter(|log| pool.chain(TopicId(entry.id), *log).is_some());
        assert_eq!(there.collect::<Vec<usize>>(), [0], "nobody is known to have landed there");
        assert_eq!(TopicFile::read(&two.topics()[1]).unwrap().begins, most);
    }
    // Stopped in good order, nothing was landed that nobody knows of.
    for topic in two.topics() {
        let mut file = TopicFile::read(&topic).unwrap();
        let Resumed { index, position } = file.resumed[&0];
        let log = EndedLog { index, position, ..EndedLog::default() };
        file.ended = Some(Ended { logs: [(0, log)].into() });
        file.write(&topic).unwrap();
    }
    assert_eq!(begins(&back(&two.data()).1), twice);
}

#[test]
fn a_broker_that_lands_first_after_a_lost_pool_is_given_a_log_behind_it() {
    let two = directories("unheard-lands");
    let memory = Memory::new();
    let control = homes::lead(&memory, &two.data()).unwrap();
    let pool = memory.pool(48);
    let topic = TopicId(homes::entry(Order::Broker, 2).id);
    let mut broker = Broker::register(&pool, 2, 1);
    let granted = broker.want(topic, SegmentKind::OrderLog);
    assert_eq!(granted.base_index, MOST.index);
    let line = pool.frontier(topic, 2);
    assert_eq!((line.entries, line.position), (MOST.index, MOST.position));
    let chain = pool.chain(topic, 2).unwrap();
    assert_eq!(chain.skipped(), Some((0, MOST.position)), "readers are told so");
    assert_eq!(broker.want(topic, SegmentKind::OrderLog).base_index % MOST.index, {
        pool.geometry().entries_per_segment()
    });
    control.stop();
}

/// What such a log passed over is said by the topic, until a copy of it comes back.
#[test]
fn what_such_a_log_passed_over_is_known_wherever_it_is_kept() {
    let mut entry = homes::entry(Order::Broker, 2);
    (entry.begin_index, entry.begin_position) = (MOST.index, MOST.position);
    let mut file = said(&entry);
    file.resumed.insert(0, Resumed { index: 3, position: 30 });
    assert_eq!(file.skips_of(2).positions(), MOST.position);
    assert_eq!(file.resumed_of(2), Some(MOST));
    assert_eq!((file.skips_of(0).positions(), file.resumed_of(0).unwrap().index), (0, 3));
    // One that was made since knows only how far it was by then.
    file.made_at.insert(2, MOST.index);
    assert_eq!((file.skips_of(2).positions(), file.resumed_of(2)), (0, None));
    let two = directories("unheard-kept");
    for topic in two.topics() {
        file.made_at.clear();
        let reached = Resumed { index: MOST.index + 2, position: MOST.position + 2 };
        file.reached.insert(2, reached);
        file.write(&topic).unwrap();
    }
    let (_, _) = back(&two.data());
    let back = TopicFile::read(&two.topics()[0]).unwrap();
    let first = back.skipped[&2].ranges()[0];
    assert_eq!((first.index, first.to_index), (0, MOST.index));
    assert!(back.resumed[&2].index > 2 * MOST.index, "{:?}", back.resumed);
}
