//! Replicas read together: the log's order, copies that stand in for each other, what is missing.

mod begun;
mod made;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::frame::GapReason;
use landfall_layout::order::OrderEntry;
use landfall_layout::replica::{Body, NO_FILE, REPLICA_HEADER_BYTES};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_replica::copy::CopyReader;
use landfall_replica::lookup::{Start, first, may_have_older};
use landfall_replica::merge::Wanted;
use landfall_replica::names::{replica_file, source_directory, topic_directory};
use landfall_replica::there::{Lack, Part};
use landfall_replica::{Merge, TopicFile, numbers};

use made::{CREATED, HOLE, RECORD, Scratch, file, spoil};

/// Indexes from `from` to `until` as they are read, and what did not hold.
fn read(wanted: &Wanted, from: u64, until: u64) -> (Vec<u64>, Vec<String>) {
    read_on(&mut Merge::new(wanted), from, until)
}

fn read_on(merge: &mut Merge, from: u64, until: u64) -> (Vec<u64>, Vec<String>) {
    let (mut indexes, mut faults) = (Vec::new(), Vec::new());
    let mut next = from;
    while let (Some(picked), _) = merge.next(next, until, &mut faults) {
        match merge.record(picked).unwrap().body {
            Body::Batch { payload, .. } => assert_eq!(payload, [picked.index as u8; 128]),
            Body::Hole { entry, .. } => assert_eq!(entry.commit, picked.index + 1),
            Body::Frontier(_) => panic!("a frontier is nothing to read"),
        }
        indexes.push(picked.index);
        next = picked.index + 1;
    }
    (indexes, faults)
}

/// Two brokers' batches in two files each.
fn two_brokers(scratch: &Scratch, data: &str) -> Vec<PathBuf> {
    let (zero, one) = (scratch.source(data, 0), scratch.source(data, 1));
    vec![
        file(&zero, 0, (0, 0, NO_FILE), &[0, 2, 4]),
        file(&zero, 0, (5, 3, 0), &[6, 7, 9]),
        file(&one, 1, (0, 0, NO_FILE), &[1, 3]),
        file(&one, 1, (4, 2, 0), &[5, 8]),
    ]
}

#[test]
fn files_of_two_brokers_are_one_log() {
    let scratch = Scratch::new("two");
    two_brokers(&scratch, "a");
    let wanted = scratch.wanted(2);
    for from in 0..10 {
        let (indexes, faults) = read(&wanted, from, 100);
        assert_eq!((indexes, faults), ((from..10).collect(), vec![]), "from {from}");
    }
    assert_eq!(read(&wanted, 2, 6).0, [2, 3, 4, 5], "nothing from beyond the bound");
}

/// A keeper was away while another copy went on, and let go of what came next.
#[test]
fn what_was_landed_and_let_go_of_while_a_keeper_was_away_is_not_lost() {
    let scratch = Scratch::new("away");
    let (goes_on, away) = (scratch.source("a", 0), scratch.source("b", 0));
    let begun = [(0, 0, NO_FILE), (5, 3, 0), (20, 8, 5)];
    let indexes = [[0, 2, 4], [6, 7, 9], [21, 22, 23]];
    let files: Vec<_> = begun.iter().zip(&indexes).map(|(b, i)| file(&goes_on, 0, *b, i)).collect();
    file(&away, 0, begun[0], &indexes[0]);
    let wanted = scratch.wanted(1);
    assert_eq!(wanted.retired_below(), 0);
    fs::remove_file(&files[0]).unwrap();
    fs::remove_file(&files[1]).unwrap();
    assert_eq!(wanted.retired_below(), 20);
    // So it is where the oldest that is left was begun anew, behind what a lost pool passed over.
    fs::remove_file(&files[2]).unwrap();
    let anew = file(&goes_on, 0, (30, 11, NO_FILE), &[31]);
    assert_eq!(wanted.retired_below(), 30);
    fs::remove_file(&anew).unwrap();
    file(&goes_on, 0, begun[2], &indexes[2]);
    // It is back, and begins anew behind a hole, or goes on without one.
    let back = file(&away, 0, (8, 5, NO_FILE), &[9]);
    assert_eq!(wanted.retired_below(), 20);
    file(&away, 0, (20, 6, 8), &[21]);
    assert_eq!(wanted.retired_below(), 8);
    fs::remove_file(&back).unwrap();
    file(&away, 0, (5, 3, 0), &[6, 7, 9]);
    assert_eq!(wanted.retired_below(), 0, "it has everything");
}

#[test]
fn a_shared_log_has_whatever_brokers_there_are_files_of() {
    let scratch = Scratch::new("shared");
    two_brokers(&scratch, "a");
    // Broker 1 has not landed since the pool was lost: only its files tell of it.
    let one = scratch.wanted(1);
    assert_eq!(read(&one, 0, 100).0, [0, 2, 4, 6, 7, 9]);
    let all = Wanted { is_shared: true, ..one };
    assert_eq!(read(&all, 0, 100).0, (0..10).collect::<Vec<_>>());
    let (position, mut faults) = (|entry: &OrderEntry| entry.end_position() <= 2, Vec::new());
    let start = first(&all, 100, position, &mut faults).start;
    assert_eq!(start, Some(Start { index: 1, position: 2 }));
}

#[test]
fn a_record_that_does_not_hold_is_passed_and_named() {
    let scratch = Scratch::new("spoilt");
    let files = two_brokers(&scratch, "a");
    spoil(&files[0], 1);
    let (indexes, faults) = read(&scratch.wanted(2), 0, 100);
    assert_eq!(indexes, [0, 1, 3, 4, 5, 6, 7, 8, 9]);
    let at = format!("byte {}", REPLICA_HEADER_BYTES + RECORD);
    let named =
        |fault: &String| fault.contains(&at) && fault.contains(&files[0].display().to_string());
    assert!(faults.len() == 1 && faults.iter().all(named), "{faults:?}");
}

/// What a reader is shown from index 0 on: batches, and entries that are lost; and where something
/// begins that a copy had and lost, in front of each of them.
fn shown(wanted: &Wanted) -> Vec<(u64, bool, Option<u64>)> {
    let mut merge = Merge::naming_lost(wanted);
    let (mut shown, mut next) = (Vec::new(), 0);
    while let (Some(picked), _) = merge.next(next, 100, &mut Vec::new()) {
        let is_lost = match merge.record(picked).unwrap().body {
            Body::Hole { entry, reason } => {
                assert_eq!((entry.commit, reason), (picked.index + 1, GapReason::Lost));
                assert_eq!((entry.first_position, entry.count), (2 * picked.index, 2));
                true
            }
            _ => false,
        };
        shown.push((picked.index, is_lost, merge.torn()));
        next = picked.index + 1;
    }
    shown
}

/// Retention took the first file of broker 0, and what is missing of broker 1's was lost.
#[test]
fn what_one_broker_let_go_of_excuses_nothing_that_another_one_lost() {
    let scratch = Scratch::new("excuse");
    let files = two_brokers(&scratch, "a");
    fs::remove_file(&files[0]).unwrap();
    let wanted = scratch.wanted(2);
    assert_eq!(wanted.retired_below(), 5);
    let here = |index| (index, false, None);
    assert_eq!(shown(&wanted), [1, 3, 5, 6, 7, 8, 9].map(here));
    // Which batch it was is known, wherever it lay.
    spoil(&files[2], 0);
    let rest = [3, 5, 6, 7, 8, 9].map(here);
    assert_eq!(shown(&wanted), [&[(1, true, None)], &rest[..]].concat());
    let start = first(&wanted, 100, |_| false, &mut Vec::new());
    assert_eq!(start.start, Some(Start { index: 1, position: 2 }));
    // Another copy has it.
    let others = two_brokers(&scratch, "b");
    fs::remove_file(&others[0]).unwrap();
    assert_eq!(shown(&wanted)[0], here(1));
    others.iter().for_each(|path| drop(fs::remove_file(path)));
    // Nor is that known.
    let at = REPLICA_HEADER_BYTES + 8;
    let head = OpenOptions::new().write(true).open(&files[2]).unwrap();
    head.write_all_at(&[0xff; 8], at).unwrap();
    assert_eq!(shown(&wanted), [&[(3, false, Some(0))], &rest[1..]].concat());
    // Nor what was in its whole file.
    fs::write(&files[2], [7; 9000]).unwrap();
    let without = [5, 6, 7, 8, 9].map(here);
    assert_eq!(shown(&wanted), [&[(5, false, Some(0))], &without[1..]].concat());
    // Retention took that too.
    fs::remove_file(&files[2]).unwrap();
    assert_eq!(shown(&wanted), without);
}

#[test]
fn a_file_that_somebody_took_out_of_a_row_was_not_let_go_of() {
    let scratch = Scratch::new("row");
    let one = scratch.source("a", 1);
    file(&scratch.source("a", 0), 0, (50, 9, 40), &[60]);
    let files = [
        file(&one, 1, (0, 0, NO_FILE), &[1]),
        file(&one, 1, (2, 1, 0), &[3]),
        file(&one, 1, (4, 2, 2), &[5]),
    ];
    let wanted = scratch.wanted(2);
    let here = |index| (index, false, None);
    assert_eq!(shown(&wanted), [1, 3, 5, 60].map(here));
    fs::remove_file(&files[1]).unwrap();
    assert_eq!(shown(&wanted), [here(1), (5, false, Some(2)), here(60)]);
    // It is being read when bounds take all but the last.
    let mut merge = Merge::naming_lost(&wanted);
    assert_eq!(merge.next(0, 100, &mut Vec::new()).0.map(|picked| picked.index), Some(1));
    fs::remove_file(&files[0]).unwrap();
    assert_eq!(merge.next(2, 100, &mut Vec::new()).0.map(|picked| picked.index), Some(5));
    assert_eq!(merge.torn(), None);
}

#[test]
fn another_copy_stands_in_for_what_does_not_hold() {
    let scratch = Scratch::new("copy");
    let files = two_brokers(&scratch, "a");
    let others = two_brokers(&scratch, "b");
    spoil(&files[0], 1);
    spoil(&others[1], 0);
    fs::remove_file(&files[3]).unwrap();
    let (indexes, faults) = read(&scratch.wanted(2), 0, 100);
    assert_eq!(indexes, (0..10).collect::<Vec<_>>(), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.contains(&files[0].display().to_string())));
}

#[test]
fn a_hole_is_known_only_where_every_brokers_files_reach() {
    let scratch = Scratch::new("hole");
    let (zero, one) = (scratch.source("a", 0), scratch.source("a", 1));
    file(&zero, 0, (0, 0, NO_FILE), &[0, 4]);
    let late = file(&one, 1, (0, 0, NO_FILE), &[1, 5]);
    let next = |sources| {
        let mut merge = Merge::new(&scratch.wanted(sources));
        let (picked, is_known) = merge.next(2, 100, &mut Vec::new());
        (picked.map(|picked| picked.index), is_known)
    };
    assert_eq!(next(2), (Some(4), true), "2 and 3 are nowhere");
    assert_eq!(next(3), (Some(4), false), "a third broker may have had them");
    fs::remove_file(late).unwrap();
    assert_eq!(next(2), (Some(4), false));
}

#[test]
fn holes_are_read_where_they_are_and_another_copy_stands_in_for_them() {
    let scratch = Scratch::new("holes");
    let indexes = [HOLE, 1, HOLE | 2, HOLE | 4, 5];
    let files = ["a", "b"].map(|data| {
        file(&scratch.source(data, 1), 1, (0, 0, NO_FILE), &[3]);
        file(&scratch.source(data, 0), 0, (0, 0, NO_FILE), &indexes)
    });
    let all: Vec<u64> = (0..6).collect();
    for from in 0..6 {
        let (read, faults) = read(&scratch.wanted(2), from, 100);
        assert_eq!((&read[..], faults), (&all[from as usize..], vec![]), "from {from}");
    }
    // In the third record, the second hole.
    let at = REPLICA_HEADER_BYTES + 128 + RECORD + 70;
    let damaged = OpenOptions::new().write(true).open(&files[0]).unwrap();
    damaged.write_all_at(&[0xff], at).unwrap();
    let (read, faults) = read(&scratch.wanted(2), 0, 100);
    assert_eq!((read, faults.len()), (all, 1));
}

#[test]
fn positions_and_times_are_found_in_any_file() {
    for holes in [false, true] {
        find_everything(holes);
    }
}

fn find_everything(holes: bool) {
    let scratch = Scratch::new(&format!("lookup-{holes}"));
    let wanted = scratch.wanted(2);
    if holes {
        let (zero, one) = (scratch.source("a", 0), scratch.source("a", 1));
        file(&zero, 0, (0, 0, NO_FILE), &[0, HOLE | 2, 4]);
        file(&zero, 0, (5, 3, 0), &[HOLE | 6, 7, HOLE | 9]);
        file(&one, 1, (0, 0, NO_FILE), &[HOLE | 1, HOLE | 3]);
        file(&one, 1, (4, 2, 0), &[HOLE | 5, 8]);
    } else {
        two_brokers(&scratch, "a");
    }
    for index in 0..10_u64 {
        let start = Some(Start { index, position: 2 * index });
        for position in [2 * index, 2 * index + 1] {
            let before = move |entry: &OrderEntry| entry.end_position() <= position;
            assert_eq!(first(&wanted, 100, before, &mut Vec::new()).start, start, "at {position}");
        }
        let before = move |entry: &OrderEntry| entry.landed_ns < index * 1000;
        assert_eq!(first(&wanted, 100, before, &mut Vec::new()).start, start);
    }
    let past = |entry: &OrderEntry| entry.end_position() <= 20;
    assert_eq!(first(&wanted, 100, past, &mut Vec::new()).start, None);
    let oldest = first(&wanted, 100, |_| false, &mut Vec::new()).start;
    assert_eq!(oldest, Some(Start { index: 0, position: 0 }));
}

/// Whether what does not answer has nothing earlier than what there is.
fn is_oldest_known(wanted: &Wanted) -> bool {
    let looked = first(wanted, 100, |_| false, &mut Vec::new());
    may_have_older(wanted, &looked.unheard).is_none()
}

/// A file in the place of a replica's that whoever opens it waits for.
fn hang(directory: &Path) -> PathBuf {
    let path = replica_file(directory, 0);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    path
}

#[test]
fn a_directory_that_hangs_keeps_nobody_from_what_others_have() {
    let scratch = Scratch::new("hangs");
    two_brokers(&scratch, "a");
    (0..2).for_each(|source| drop(hang(&scratch.source("b", source))));
    let wanted = scratch.wanted(2);
    assert_eq!(read(&wanted, 0, 100).0, (0..10).collect::<Vec<_>>());
    assert!(is_oldest_known(&wanted), "what the other has is no older");
    let looked = first(&wanted, 100, |_| false, &mut Vec::new());
    assert_eq!(looked.start, Some(Start { index: 0, position: 0 }));
    assert!(looked.unheard.iter().all(|it| it.silent.path == scratch.0.join("b")));
    assert!(!looked.unheard.is_empty());
}

#[test]
fn what_only_a_directory_that_hangs_may_have_is_not_known_to_be_nowhere() {
    let scratch = Scratch::new("hangs-alone");
    two_brokers(&scratch, "a");
    let one = source_directory(
        &topic_directory(&scratch.0.join("a"), "t", CREATED),
        BrokerId::new(1).unwrap(),
    );
    fs::remove_dir_all(one).unwrap();
    let hung = hang(&scratch.source("b", 1));
    let wanted = scratch.wanted(2);
    let mut merge = Merge::new(&wanted);
    let (picked, is_known) = merge.next(0, 100, &mut Vec::new());
    assert_eq!(picked.map(|picked| picked.index), Some(0));
    assert!(!is_known);
    assert_eq!(merge.silent().map(|silent| silent.path), Some(scratch.0.join("b")));
    assert!(!is_oldest_known(&wanted));
    // The disk answers again: whoever waited in there is let go, and the file is read.
    let waiting = OpenOptions::new().write(true).open(&hung).unwrap();
    fs::remove_file(&hung).unwrap();
    drop(waiting);
    file(&scratch.source("b", 1), 1, (0, 0, NO_FILE), &[1, 3, 5, 8]);
    while merge.silent().is_some() {
        merge.look_again();
        merge.next(0, 100, &mut Vec::new());
    }
    assert_eq!(merge.next(1, 100, &mut Vec::new()).0.map(|picked| picked.index), Some(1));
}

/// Bounds let go of what one broker landed first; another one, which has not landed since the pool
/// was lost, may have landed before that, and only a disk that hangs tells.
#[test]
fn the_beginning_of_who_has_not_landed_since_may_be_where_nobody_answers() {
    let scratch = Scratch::new("hangs-before");
    file(&scratch.source("a", 0), 0, (20, 8, 5), &[21, 23]);
    hang(&scratch.source("b", 1));
    let own = scratch.wanted(1);
    assert!(is_oldest_known(&own), "a broker's own log has nothing of others");
    let shared = Wanted { is_shared: true, ..own };
    assert!(!is_oldest_known(&shared), "nobody says who ever landed");
    let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
    (entry.name[0], entry.name_bytes, entry.created_ns) = (b't', 1, CREATED);
    (entry.order, entry.replicas, entry.replica_brokers) = (Order::Total.raw(), 2, 2);
    let topic = topic_directory(&scratch.0.join("a"), "t", CREATED);
    let mut says = TopicFile::of(&entry, "pool", 1).unwrap();
    says.write(&topic).unwrap();
    numbers::name(&scratch.0.join("a"), BrokerId::new(0).unwrap(), "pool").unwrap();
    assert!(!is_oldest_known(&shared), "the one home of what broker 1 landed hangs");
    says.replicas = 3;
    says.write(&topic).unwrap();
    assert!(is_oldest_known(&shared), "the other home answers, and has nothing of it");
    let (keeper, source, entries, below) = (0, 1, 3, 20);
    says.places.lacks.insert(Lack { keeper, source, entries, below, disk: 0, is_torn: false });
    says.write(&topic).unwrap();
    assert!(!is_oldest_known(&shared), "the other home has been given another disk");
    says.places.lacks.clear();
    says.places.add(Part { source, copy: 1, keeper: 5, from: 0 });
    says.write(&topic).unwrap();
    assert!(!is_oldest_known(&shared), "somebody stood in for it");
}

#[test]
fn what_is_appended_or_begun_is_seen_at_the_next_look() {
    let scratch = Scratch::new("grows");
    let directory = scratch.source("a", 0);
    file(&directory, 0, (0, 0, NO_FILE), &[0]);
    let mut merge = Merge::new(&scratch.wanted(1));
    let next = |merge: &mut Merge, want| {
        merge.next(want, 100, &mut Vec::new()).0.map(|picked| picked.index)
    };
    assert_eq!(next(&mut merge, 0), Some(0));
    assert_eq!(next(&mut merge, 1), None);
    file(&directory, 0, (1, 1, 0), &[1, 2]);
    merge.look_again();
    assert_eq!(next(&mut merge, 1), Some(1));
    assert_eq!(next(&mut merge, 2), Some(2));
    let mut merge = Merge::new(&scratch.wanted(2));
    file(&scratch.source("b", 1), 1, (3, 0, NO_FILE), &[3]);
    assert_eq!(next(&mut merge, 3), None);
    merge.look_again();
    assert_eq!(next(&mut merge, 3), Some(3));
}

/// Whoever could not keep what was found asks for it again.
#[test]
fn what_is_asked_for_again_is_found_again() {
    let scratch = Scratch::new("again");
    two_brokers(&scratch, "a");
    let mut merge = Merge::new(&scratch.wanted(2));
    let all = read_on(&mut merge, 0, 100);
    for from in [5, 0, 3, 3, 1] {
        assert_eq!(read_on(&mut merge, from, 100), (all.0[from as usize..].to_vec(), vec![]));
    }
}

/// A file that its broker goes on with, and finishes, while it is read: as it is at first, then
/// with its last record, which the next file follows. `half`: bytes that are there of that record.
fn finished_while_it_is_read(name: &str, half: usize) {
    let scratch = Scratch::new(name);
    let directory = scratch.source("a", 0);
    let path = file(&directory, 0, (0, 0, NO_FILE), &[0, 1, 2]);
    let whole = fs::read(&path).unwrap();
    let begin = |records: u64| (REPLICA_HEADER_BYTES + records * RECORD) as usize;
    fs::write(&path, &whole[..begin(1)]).unwrap();
    let mut faults = Vec::new();
    let mut reader = CopyReader::new(BrokerId::new(0).unwrap(), CREATED, directory.clone());
    assert_eq!(reader.seek(0, 1, &mut faults).next, Some(0));
    fs::write(&path, &whole[..begin(2) + half]).unwrap();
    assert_eq!(reader.seek(1, 2, &mut faults).next, Some(1));
    fs::write(&path, &whole).unwrap();
    file(&directory, 0, (3, 3, 0), &[3]);
    for index in [2, 3] {
        let says = reader.seek(index, 2, &mut faults);
        assert_eq!((says.next, says.known_from, says.torn), (Some(index), 0, (0, 0)));
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn what_a_file_got_before_the_next_one_was_begun_is_read() {
    finished_while_it_is_read("finished", 0);
}

#[test]
fn a_record_that_was_being_written_when_the_next_file_was_begun_is_read() {
    finished_while_it_is_read("half", 64);
}

/// The end of a file does not hold, and the next one is begun later.
#[test]
fn an_end_that_does_not_hold_is_damage_once_there_is_a_later_file() {
    let scratch = Scratch::new("end");
    let directory = scratch.source("a", 0);
    let path = file(&directory, 0, (0, 0, NO_FILE), &[0, 1]);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..(REPLICA_HEADER_BYTES + RECORD + 64) as usize]).unwrap();
    let mut faults = Vec::new();
    let mut reader = CopyReader::new(BrokerId::new(0).unwrap(), CREATED, directory.clone());
    assert_eq!(reader.seek(0, 1, &mut faults).next, Some(0));
    assert_eq!((reader.seek(1, 1, &mut faults).next, faults.len()), (None, 0));
    file(&directory, 0, (2, 2, 0), &[2]);
    reader.look_again();
    let says = reader.seek(1, 3, &mut faults);
    assert_eq!((says.next, says.torn, faults.len()), (Some(2), (1, 2), 1), "{faults:?}");
}

/// As a file looks that bounds took when the directory had been listed.
#[test]
fn a_file_that_was_taken_before_it_was_opened_is_no_fault() {
    let scratch = Scratch::new("taken");
    let directory = scratch.source("a", 0);
    let first = file(&directory, 0, (0, 0, NO_FILE), &[0]);
    let (mut reader, mut faults) =
        (CopyReader::new(BrokerId::new(0).unwrap(), CREATED, directory.clone()), Vec::new());
    assert_eq!(reader.seek(0, 1, &mut faults).next, Some(0));
    fs::remove_file(&first).unwrap();
    let taken = replica_file(&directory, 1);
    std::os::unix::fs::symlink(scratch.0.join("nothing"), &taken).unwrap();
    let says = reader.seek(1, 2, &mut faults);
    assert_eq!((says.next, says.known_from, &faults[..]), (None, 0, &[][..]));
    fs::remove_file(&taken).unwrap();
    file(&directory, 0, (2, 2, 1), &[2]);
    reader.look_again();
    let says = reader.seek(1, 3, &mut faults);
    assert_eq!((says.next, says.known_from, says.torn), (Some(2), 2, (0, 0)));
    assert_eq!(faults, Vec::<String>::new());
}
