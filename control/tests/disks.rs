//! Which data directories count at a cold start, where disks were replaced or took each other's
//! places.

mod fake;

use std::fs;
use std::path::{Path, PathBuf};

use fake::Memory;
use fake::homes::{self, CREATED_NS, Two};
use landfall_control::cold::restore;
use landfall_layout::BrokerId;
use landfall_layout::topic::{Order, TopicEntry};
use landfall_replica::names::topic_directory;
use landfall_replica::there::{Lack, UNCOUNTED};
use landfall_replica::{TopicFile, numbers};

fn entry() -> TopicEntry {
    homes::entry(Order::Strong, 2)
}

/// Disks that were mounted in each other's places for a while: each was both brokers' once.
#[test]
fn a_directory_counts_for_the_broker_that_keeps_the_topic_there_last() {
    let two = Two::new("last");
    let file = TopicFile::of(&entry(), "a pool that is lost", 48 << 20).unwrap();
    let mut ids = Vec::new();
    for (own, (topic, data)) in two.topics().iter().zip(two.data()).enumerate() {
        fs::create_dir_all(topic).unwrap();
        file.write(topic).unwrap();
        for number in [own, 1 - own, own] {
            numbers::name(&data, BrokerId::new(number).unwrap(), "a pool that is lost").unwrap();
        }
        ids.push(numbers::number(&data).unwrap());
    }
    let [first, _] = two.data();
    let mount = |says: &TopicFile, named: &[PathBuf]| {
        two.topics().iter().for_each(|topic| says.write(topic).unwrap());
        restore(&Memory::new().pool(48), named, false, 1).map_err(|error| error.to_string())
    };
    // As the numbers say it, and as the topic does, which knows better.
    let said = |one: usize, other: usize| {
        let mut said = file.clone();
        said.places.keep(0, ids[one], 7);
        said.places.keep(1, ids[other], 7);
        said
    };
    for says in [file.clone(), said(0, 1)] {
        let error = mount(&says, std::slice::from_ref(&first)).unwrap_err();
        assert!(error.contains("kept by broker 1"), "{error}");
        mount(&says, &two.data()).unwrap();
    }
    mount(&said(1, 0), &two.data()).unwrap();
    let error = mount(&said(1, 0), std::slice::from_ref(&first)).unwrap_err();
    assert!(error.contains("kept by broker 0"), "{error}");
    // Another disk in the place of one, of which the other knows by now.
    let mut replaced = said(0, 1);
    replaced.places.keep(1, 78, 3);
    assert_eq!(replaced.places.disks[&1].said_ns, 8, "behind what was known");
    let error = mount(&replaced, &two.data()).unwrap_err();
    assert!(error.contains("kept by broker 1"), "{error}");
}

/// What is lacking here is there as long as the directory before is, unless that lacks it too.
#[test]
fn what_a_directory_lacks_may_be_in_the_one_before_it() {
    let two = Two::new("before");
    let before = two.0.join("broker-1-before");
    let all = [two.data().to_vec(), vec![before.clone()]].concat();
    let mut file = TopicFile::of(&entry(), "a pool that is lost", 48 << 20).unwrap();
    let number = |data: &Path, broker: usize| {
        fs::create_dir_all(topic_directory(data, "t", CREATED_NS)).unwrap();
        numbers::name(data, BrokerId::new(broker).unwrap(), "a pool that is lost").unwrap();
        numbers::number(data).unwrap()
    };
    let ids: Vec<u64> = all.iter().zip([0, 1, 1]).map(|(data, of)| number(data, of)).collect();
    file.places.keep(0, ids[0], 1);
    file.places.keep(1, ids[1], 1);
    let lack =
        Lack { keeper: 1, source: 1, entries: UNCOUNTED, below: 9, disk: ids[2], is_torn: false };
    for further in [0, 99] {
        for (data, id) in all.iter().zip(&ids) {
            let mut file = file.clone();
            if *id == ids[1] {
                file.places.lacks.insert(lack);
            }
            if *id == ids[2] && further != 0 {
                file.places.lacks.insert(Lack { disk: further, ..lack });
            }
            file.write(&topic_directory(data, "t", CREATED_NS)).unwrap();
        }
        restore(&Memory::new().pool(48), &all[..2], false, 1).unwrap_err();
        assert_eq!(restore(&Memory::new().pool(48), &all, false, 1).is_ok(), further == 0);
    }
}
