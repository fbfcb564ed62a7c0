//! What comes to be there while a log is read.

use std::fs;

use landfall_layout::replica::{Body, NO_FILE};
use landfall_replica::Merge;
use landfall_replica::merge::Wanted;

use crate::made::{Scratch, file, spoil};

/// What comes next at `want`, after a look: its index, and whether it is a batch.
fn next(merge: &mut Merge, want: u64) -> Option<(u64, bool)> {
    merge.look_again();
    let picked = merge.next(want, 100, &mut Vec::new()).0?;
    let body = merge.record(picked).unwrap().body;
    Some((picked.index, matches!(body, Body::Batch { .. })))
}

#[test]
fn a_copy_that_was_begun_since_is_read_where_another_one_is_damaged() {
    let scratch = Scratch::new("begun-damaged");
    let path = file(&scratch.source("a", 0), 0, (0, 0, NO_FILE), &[0, 1, 2]);
    spoil(&path, 1);
    let mut merge = Merge::naming_lost(&scratch.wanted(1));
    assert_eq!(next(&mut merge, 0), Some((0, true)));
    file(&scratch.source("b", 0), 0, (0, 0, NO_FILE), &[0, 1, 2]);
    assert_eq!(next(&mut merge, 1), Some((1, true)));
}

#[test]
fn in_a_shared_log_a_broker_nobody_knew_of_is_found() {
    let scratch = Scratch::new("begun-shared");
    file(&scratch.source("a", 0), 0, (0, 0, NO_FILE), &[0, 2]);
    let mut merge = Merge::new(&Wanted { is_shared: true, ..scratch.wanted(1) });
    assert_eq!(next(&mut merge, 0), Some((0, true)));
    file(&scratch.source("b", 1), 1, (1, 0, NO_FILE), &[1]);
    assert_eq!(next(&mut merge, 1), Some((1, true)));
}

#[test]
fn what_was_written_in_front_of_a_copy_is_read() {
    let scratch = Scratch::new("begun-front");
    file(&scratch.source("a", 0), 0, (0, 0, NO_FILE), &[0]);
    file(&scratch.source("b", 0), 0, (3, 3, NO_FILE), &[3]);
    let mut merge = Merge::new(&scratch.wanted(1));
    assert_eq!(next(&mut merge, 1), Some((3, true)));
    file(&scratch.source("b", 0), 0, (1, 1, NO_FILE), &[1]);
    assert_eq!(next(&mut merge, 1), Some((1, true)));
}

#[test]
fn a_file_that_was_written_again_under_its_name_is_read() {
    let scratch = Scratch::new("begun-again");
    let directory = scratch.source("a", 0);
    let path = file(&directory, 0, (0, 0, NO_FILE), &[0, 1, 2]);
    let whole = fs::read(&path).unwrap();
    spoil(&path, 1);
    let mut merge = Merge::naming_lost(&scratch.wanted(1));
    assert_eq!(next(&mut merge, 0), Some((0, true)));
    let fresh = directory.join("fresh");
    fs::write(&fresh, whole).unwrap();
    fs::rename(&fresh, &path).unwrap();
    assert_eq!(next(&mut merge, 1), Some((1, true)));
}
