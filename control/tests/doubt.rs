//! What disks that are here show of having all, while another one that may have more is not.

mod fake;

use std::fs;
use std::path::Path;

use fake::Memory;
use fake::homes::{self, Two, remove, said};
use landfall_control::cold::{ColdError, restore};
use landfall_layout::replica::{NO_FILE, ReplicaHeader};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_replica::names::{replica_file, source_directory};
use landfall_replica::there::Part;
use landfall_replica::{Ended, EndedLog, Resumed, TopicFile};

/// How far the log came.
const END: u64 = 100;

/// First log index, index of the file before, entries before, and the end of a file.
type File = (u64, u64, u64, u64);

/// A file of what broker `source` landed, in the directory of broker `keeper`.
fn file(topic: &Path, (source, keeper): (usize, u8), (first, previous, ordinal, end): File) {
    let mut header = ReplicaHeader::from_bytes([0; ReplicaHeader::BYTES as usize]);
    let of = homes::entry(Order::Strong, 3);
    (header.first_index, header.previous_index, header.first_ordinal) = (first, previous, ordinal);
    (header.created_ns, header.topic, header.mark) = (of.created_ns, of.id, 5);
    (header.log, header.order, header.opened_ns) = (32, of.order, 1);
    (header.source, header.broker) = (source as u8, keeper);
    (header.name_bytes, header.name) = (of.name_bytes, of.name);
    let directory = source_directory(topic, homes::broker(source));
    fs::create_dir_all(&directory).unwrap();
    let path = replica_file(&directory, first);
    fs::write(&path, header.seal().page()).unwrap();
    homes::reach(&path, ordinal, end);
}

/// Two homes that say `says`, of which the second has these files of what broker 0 landed.
fn homes_with(name: &str, says: &TopicFile, files: &[File]) -> Two {
    let two = Two::new(&format!("doubt-{name}"));
    for (number, (data, topic)) in two.data().iter().zip(two.topics()).enumerate() {
        fs::create_dir_all(&topic).unwrap();
        homes::name(data, number);
        says.write(&topic).unwrap();
    }
    let topic = &two.topics()[1];
    files.iter().for_each(|of| file(topic, (0, 1), *of));
    file(topic, (1, 1), (0, NO_FILE, 0, END));
    two
}

/// Both keep a copy of what each landed.
fn three() -> TopicFile {
    let reached = [(32, Resumed { index: END, position: END })].into();
    TopicFile { reached, ..said(&homes::entry(Order::Strong, 3)) }
}

fn start(two: &Two) -> Result<(), ColdError> {
    restore(&Memory::new().pool(48), &two.data(), false, 1).map(drop)
}

/// Starts while the disk of broker 0 is not mounted: between which log indexes something is asked
/// for.
fn missing(two: &Two) -> Option<(u64, u64)> {
    let [first, _] = two.data();
    let away = two.0.join("away");
    fs::rename(&first, &away).unwrap();
    fs::create_dir(&first).unwrap();
    let started = start(two);
    fs::remove_dir_all(&first).unwrap();
    fs::rename(&away, &first).unwrap();
    match started {
        Ok(()) => None,
        Err(error @ ColdError::Damaged { source: 0, missing, .. }) => {
            let said = error.to_string();
            assert!(
                said.contains("broker 0 keeps one") && said.contains("--forget-lost"),
                "{said}"
            );
            missing
        }
        Err(error) => panic!("{error}"),
    }
}

fn asked(name: &str, files: &[File]) -> Option<(u64, u64)> {
    missing(&homes_with(name, &three(), files))
}

const WHOLE: File = (0, NO_FILE, 0, END);

#[test]
fn a_file_that_is_gone_in_front_of_one_that_was_begun_anew_is_asked_for() {
    let first = (0, NO_FILE, 0, 10);
    assert_eq!(asked("anew", &[first, (20, NO_FILE, 5, END)]), Some((10, 20)));
    assert_eq!(asked("nothing", &[first, (20, NO_FILE, 0, END)]), None, "it never had any there");
}

#[test]
fn the_first_file_of_a_copy_is_asked_for() {
    assert_eq!(asked("first", &[(10, 0, 5, END)]), Some((0, 10)));
    assert_eq!(asked("whole", &[WHOLE]), None);
}

#[test]
fn what_a_copy_may_have_had_behind_its_end_is_asked_for_until_it_is_told_of() {
    assert_eq!(asked("all", &[]), Some((0, END)));
    let two = homes_with("last", &three(), &[(0, NO_FILE, 0, 10)]);
    for _ in 0..2 {
        assert_eq!(missing(&two), Some((10, END)));
    }
    // With every disk here it is told of as lost, and nobody can have it.
    start(&two).unwrap();
    assert_eq!(missing(&two), None);
}

/// A crash leaves such an end, and so does what was cut off later.
#[test]
fn an_end_that_does_not_hold_is_asked_for() {
    let says = TopicFile { reached: [(32, Resumed { index: 1, position: 1 })].into(), ..three() };
    let open = |name: &str, index: u64| {
        let two = homes_with(name, &says, &[WHOLE]);
        let path = replica_file(&source_directory(&two.topics()[1], homes::broker(0)), index);
        let mut bytes = fs::read(&path).unwrap_or_default();
        bytes.extend_from_slice(&[7; 300]);
        fs::write(path, bytes).unwrap();
        two
    };
    for (name, index) in [("cut", 0), ("zeros", END)] {
        let two = open(name, index);
        let [first, _] = two.data();
        remove(&first);
        fs::create_dir(&first).unwrap();
        let error = start(&two).unwrap_err();
        assert!(matches!(&error, ColdError::Damaged { source: 0, .. }), "{error}");
        assert!(error.to_string().contains("broker 0 keeps one"), "{error}");
    }
    start(&open("all", 0)).expect("all who keep a copy are here");
}

#[test]
fn behind_its_end_a_copy_had_nothing_where_the_log_ended_in_good_order() {
    let end = EndedLog { index: END, position: END, ..EndedLog::default() };
    let (entries, tails) = ([(0, 1), (1, 0)].into(), [(0, 10), (1, 0)].into());
    let ended = Some(Ended { logs: [(32, EndedLog { entries, tails, ..end })].into() });
    let says = TopicFile { ended, life: 1, ..three() };
    assert_eq!(missing(&homes_with("ended", &says, &[(0, NO_FILE, 0, 10)])), None);
    assert_eq!(missing(&homes_with("ended-short", &says, &[(0, NO_FILE, 0, 9)])), Some((9, 10)));
}

/// What an older copy of the home's disk lacks is not here because a stand-in's files reach the
/// end.
#[test]
fn a_stand_in_that_reaches_the_end_has_not_what_came_before_it() {
    let entry: TopicEntry = homes::entry(Order::Strong, 2);
    let end = EndedLog { index: END, position: END, ..EndedLog::default() };
    let (entries, tails) = ([(0, 0), (1, 1)].into(), [(0, 0), (1, END)].into());
    let ended = Some(Ended { logs: [(32, EndedLog { entries, tails, ..end })].into() });
    let mut says = TopicFile { ended, life: 1, ..said(&entry) };
    says.places.add(Part { source: 1, copy: 0, keeper: 0, from: 15 });
    let two = homes_with("stand-in", &says, &[]);
    let [first, second] = two.topics();
    file(&first, (1, 0), (15, NO_FILE, 0, END));
    for (home, is_older) in [(7, true), (15, false)] {
        file(&second, (1, 1), (0, NO_FILE, 0, home));
        match start(&two) {
            Err(error @ ColdError::Fewer { .. }) => {
                let said = error.to_string();
                assert!(is_older && said.contains("up to log index 7: the disk of"), "{said}");
            }
            other => assert!(!is_older && other.is_ok(), "{other:?}"),
        }
    }
}
