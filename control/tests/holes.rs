//! Copies that have a hole inside, as their directories say, and whole ones that are not here.

mod fake;

use std::fs;
use std::path::Path;

use fake::Memory;
use fake::homes::{self, Two, said};
use landfall_control::cold::{ColdError, restore};
use landfall_layout::TopicId;
use landfall_layout::replica::{NO_FILE, ReplicaHeader};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_replica::holes::Hole;
use landfall_replica::names::{replica_file, source_directory};
use landfall_replica::{Resumed, TopicFile};

const HOLE: Hole = Hole { source: 0, from: 3, to: 6 };

/// A file of what broker 0 landed that has everything from one log index to another.
fn file(topic: &Path, first_index: u64, index: u64) {
    file_of(topic, 0, first_index, index);
}

fn file_of(topic: &Path, source: usize, first_index: u64, index: u64) {
    let directory = source_directory(topic, homes::broker(source));
    fs::create_dir_all(&directory).unwrap();
    let of = homes::entry(Order::Strong, 3);
    let mut header = ReplicaHeader::from_bytes([0; ReplicaHeader::BYTES as usize]);
    (header.created_ns, header.first_index) = (of.created_ns, first_index);
    (header.previous_index, header.opened_ns) = (NO_FILE, 1);
    (header.log, header.order, header.source) = (32, of.order, source as u8);
    (header.name_bytes, header.name) = (of.name_bytes, of.name);
    let path = replica_file(&directory, first_index);
    fs::write(&path, header.seal().page()).unwrap();
    homes::reach(&path, 0, index);
}

/// Two homes of copies of what broker 0 landed, of which each has a hole or not.
fn homes_with(name: &str, holes: [bool; 2], entry: &TopicEntry) -> Two {
    let two = Two::new(&format!("holes-{name}"));
    for (number, (data, topic)) in two.data().iter().zip(two.topics()).enumerate() {
        fs::create_dir_all(&topic).unwrap();
        homes::name(data, number);
        let mut says = said(entry);
        // Broker 1 landed nothing.
        file_of(&topic, 1, 0, 10);
        if holes[number] {
            says.holes.insert(HOLE);
            file(&topic, 0, 3);
            file(&topic, 6, 10);
        } else {
            file(&topic, 0, 10);
        }
        says.write(&topic).unwrap();
    }
    two
}

fn three() -> TopicEntry {
    homes::entry(Order::Strong, 3)
}

fn words(two: &Two) -> [bool; 2] {
    two.topics().map(|topic| !TopicFile::read(&topic).unwrap().holes.is_empty())
}

fn start(two: &Two, forgets: bool) -> Result<Vec<String>, ColdError> {
    Ok(restore(&Memory::new().pool(48), &two.data(), forgets, 1)?.notes)
}

/// Starts while the disk of broker 0 is not mounted.
fn without_the_first(two: &Two, forgets: bool) -> Result<Vec<String>, ColdError> {
    let [first, _] = two.data();
    let away = two.0.join("away");
    fs::rename(&first, &away).unwrap();
    fs::create_dir(&first).unwrap();
    let started = start(two, forgets);
    fs::remove_dir_all(&first).unwrap();
    fs::rename(&away, &first).unwrap();
    started
}

#[test]
fn the_disk_of_a_whole_copy_is_asked_for_where_only_one_with_a_hole_is_here() {
    let two = homes_with("asked", [false, true], &three());
    for _ in 0..2 {
        let before = TopicFile::read(&two.topics()[1]).unwrap();
        let error = without_the_first(&two, false).unwrap_err();
        assert!(matches!(&error, ColdError::Damaged { source: 0, keepers, .. } if *keepers == [0]));
        let said = error.to_string();
        assert!(said.contains("broker 0 keeps one") && said.contains("--forget-lost"), "{said}");
        assert_eq!(TopicFile::read(&two.topics()[1]).unwrap(), before, "nothing was written");
        // With both, it goes on, and is to be asked for on.
        start(&two, false).unwrap();
        assert_eq!(words(&two), [false, true]);
    }
    let notes = without_the_first(&two, true).unwrap();
    assert!(notes.iter().any(|note| note.contains("broker 0 keeps one")), "{notes:?}");
    without_the_first(&two, false).expect("it is given up");
}

/// It was told as lost with every disk here.
#[test]
fn what_no_copy_has_is_asked_for_once() {
    let two = homes_with("nobody", [true, true], &three());
    without_the_first(&two, false).expect_err("it may be there");
    start(&two, false).unwrap();
    assert_eq!(words(&two), [false, false]);
    without_the_first(&two, false).unwrap();
}

#[test]
fn a_hole_that_is_filled_is_none() {
    let two = homes_with("filled", [false, true], &three());
    let [_, topic] = two.topics();
    file(&topic, 2, 7);
    without_the_first(&two, false).unwrap();
    assert!(!words(&two)[1]);
}

/// Nothing is missing that the log passed over, or that bounds let go of in every copy.
#[test]
fn a_hole_in_which_nothing_was_asks_for_nobody() {
    let two = homes_with("passed", [false, true], &three());
    let [_, topic] = two.topics();
    let mut says = TopicFile::read(&topic).unwrap();
    let (index, to_index) = (3, 6);
    says.skipped.entry(32).or_default().add(landfall_replica::Skipped {
        index,
        to_index,
        position: index,
        to_position: to_index,
    });
    says.write(&topic).unwrap();
    without_the_first(&two, false).unwrap();
    let bounded = TopicEntry { disk_bytes: 1, ..three() };
    let two = homes_with("bounds", [false, true], &bounded);
    let [_, topic] = two.topics();
    fs::remove_file(replica_file(&source_directory(&topic, homes::broker(0)), 0)).unwrap();
    let file = replica_file(&source_directory(&topic, homes::broker(0)), 6);
    let mut bytes = fs::read(&file).unwrap();
    let mut header = *landfall_replica::Walk::open(&file).unwrap().header();
    header.previous_index = 0;
    bytes[..header.seal().page().len()].copy_from_slice(&header.seal().page());
    fs::write(&file, bytes).unwrap();
    without_the_first(&two, false).unwrap();
}

/// A log for each broker that there can be would have positions passed over that nobody had.
#[test]
fn only_logs_that_directories_know_of_come_back() {
    let two = Two::new("logs");
    let entry = homes::entry(Order::Broker, 2);
    for (number, topic) in two.topics().iter().enumerate() {
        fs::create_dir_all(topic).unwrap();
        homes::name(&two.data()[number], number);
        let mut file = said(&entry);
        file.resumed.extend((0..2).map(|log| (log, Resumed { index: 0, position: 0 })));
        file.write(topic).unwrap();
    }
    let pool = Memory::new().pool(48);
    restore(&pool, &two.data(), false, 1).unwrap();
    let back = (0..32).filter(|log| pool.chain(TopicId(entry.id), *log).is_some());
    assert_eq!(back.collect::<Vec<usize>>(), [0, 1]);
    let said = TopicFile::read(&two.topics()[0]).unwrap();
    assert_eq!(said.resumed.into_keys().collect::<Vec<usize>>(), [0, 1]);
}
