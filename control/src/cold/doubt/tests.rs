use landfall_layout::BrokerId;
use landfall_layout::replica::{NO_FILE, Place, ReplicaHeader};
use landfall_replica::holes::Hole;
use landfall_replica::{EndedLog, Resumed, Skipped, Unkept};

use super::super::plan::Span;
use super::super::torn::Copied;
use super::*;

/// What broker 0 landed, of which the files here have entries at those log indexes.
fn log(indexes: impl IntoIterator<Item = u64>, reached: u64) -> FoundLog {
    let span = |index| Span { index, first: index, end: index + 1, is_hole: false, is_lost: false };
    let reached = Some(Resumed { index: reached, position: reached });
    FoundLog { spans: indexes.into_iter().map(span).collect(), reached, ..FoundLog::default() }
}

/// The same with a copy of files: first index, index of the one before, entries before, and its
/// end.
fn with(mut log: FoundLog, files: &[(u64, u64, u64, (u64, u64))], holes: Vec<Hole>) -> FoundLog {
    let mut copied = Copied::new(BrokerId::new(0).unwrap(), false).with(holes);
    for (first_index, previous_index, first_ordinal, (index, ordinal)) in files.iter().copied() {
        let none = ReplicaHeader::from_words([0; ReplicaHeader::WORDS]);
        let header = ReplicaHeader { first_index, previous_index, first_ordinal, ..none };
        copied.add(&header, &[], Place { index, ordinal, ..Place::first(&header) });
    }
    copied.shows(log.here.entry(0).or_default());
    log.gaps = log.gaps(0);
    log
}

#[test]
fn what_a_log_came_to_and_no_file_has_is_a_gap() {
    let mut log = log([0, 1, 4, 5, 8], 12);
    assert_eq!(log.gaps(0), [(2, 4), (6, 8), (9, 12)]);
    assert_eq!(log.gaps(7), [(7, 8), (9, 12)], "bounds took it");
    log.skips.add(Skipped { position: 7, to_position: 10, index: 7, to_index: 10 });
    assert_eq!(log.gaps(0), [(2, 4), (6, 7), (10, 12)]);
    log.spans[3].is_lost = true;
    assert_eq!(log.gaps(0), [(2, 4), (5, 7), (10, 12)]);
}

#[test]
fn only_a_row_of_files_shows_that_nothing_was_there() {
    let doubt = |files: &[_]| with(log([0, 1, 10, 11], 14), files, Vec::new()).doubt(0);
    let (begin, end) = ((0, NO_FILE, 0, (2, 2)), (14, 4));
    // Entries 2 to 10 were in memory alone when a pool was lost; or a file is gone or cut short.
    assert_eq!(doubt(&[begin, (10, NO_FILE, 2, end)]), []);
    assert_eq!(doubt(&[begin, (10, NO_FILE, 7, end)]), [(2, 10)]);
    assert_eq!(doubt(&[begin, (10, 6, 7, end)]), [(2, 10)]);
    assert_eq!(doubt(&[begin, (10, 0, 2, end)]), []);
    assert_eq!(doubt(&[begin, (10, NO_FILE, 2, (12, 4))]), [(12, 14)], "what an end may be");
    assert_eq!(doubt(&[(10, 6, 7, end)]), [(2, 10)], "its first files are gone");
    assert_eq!(doubt(&[]), [(2, 10), (12, 14)]);
    // A stand-in's files reach the end; the home's are of an older copy.
    assert_eq!(doubt(&[begin, (10, NO_FILE, 0, end)]), [(2, 10)]);
    let hole = Hole { source: 0, from: 4, to: 9 };
    let said = with(log([0, 1, 10], 11), &[begin, (10, NO_FILE, 2, (11, 3))], vec![hole]);
    assert_eq!(said.doubt(0), [(4, 9)], "the copy never had it, and others may");
}

#[test]
fn what_a_word_says_that_no_disk_has_is_not_in_doubt() {
    let mut log = with(log([0, 1], 20), &[(0, NO_FILE, 0, (2, 2))], Vec::new());
    assert_eq!((log.doubt(0), log.doubt(1)), (vec![(2, 20)], vec![(2, 20)]));
    log.told.push((2, 5));
    log.unkept.push(Unkept { index: 4, to_index: 9, log: 32, source: 0 });
    assert_eq!((log.doubt(0), log.doubt(1)), (vec![(9, 20)], vec![(5, 20)]));
    log.ended = Some(EndedLog { index: 20, tails: [(0, 12)].into(), ..EndedLog::default() });
    assert_eq!((log.doubt(0), log.doubt(1)), (vec![(9, 12)], vec![(5, 20)]));
    assert_eq!(log.lacking(0, 10), [(9, 10)]);
    log.here.entry(0).or_default().damaged.push((8, 10));
    assert_eq!((log.lacking(0, 10), log.lacking(0, 12)), (vec![], vec![(10, 12)]));
}
