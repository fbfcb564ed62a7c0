//! Each protocol explored: all schedules, and every flush and fence deleted in turn.

use landfall_hw_tests::explore::{self, Family, explore};

#[track_caller]
fn holds(family: &Family) {
    match explore(family) {
        Ok(table) => println!("{table}"),
        Err(wrong) => panic!("{wrong}"),
    }
}

#[test]
fn command_ring() {
    holds(&explore::line_ring::family());
}

#[test]
fn command_ring_of_a_deposed_leader() {
    holds(&explore::line_ring::deposed());
}

#[test]
fn batch_header_ring() {
    holds(&explore::slot_ring::family());
}

#[test]
fn a_broker_that_is_given_up() {
    holds(&explore::counted::family());
}

#[test]
fn keyed_line() {
    holds(&explore::lines::keyed());
}

#[test]
fn versioned_entry() {
    holds(&explore::lines::versioned());
}

#[test]
fn order_log_and_frontier() {
    holds(&explore::log::family());
}

#[test]
fn retirement_and_holds() {
    holds(&explore::hold::family());
}

#[test]
fn takeover_by_seal() {
    holds(&explore::takeover::family());
}

#[test]
fn deletion_and_takeover() {
    holds(&explore::deletion::family());
}

#[test]
fn a_broker_that_believes_a_deposed_leaders_deletion_is_caught() {
    let failure = explore::deletion::believing().expect("files of a living topic are removed");
    println!("{failure}");
    assert!(failure.what.contains("alive and gone from disks"), "{}", failure.what);
}

#[test]
fn an_entry_that_is_copied_once_is_caught_in_pieces() {
    let failure = explore::deletion::copied_once().expect("an entry of before and after");
    println!("{failure}");
    assert!(failure.what.contains("in pieces"), "{}", failure.what);
}

#[test]
fn late_release() {
    holds(&explore::late_release::family());
}

#[test]
fn a_broker_that_believes_a_deposed_leader_is_caught() {
    let failure = explore::late_release::believing().expect("slots are written over unseen");
    println!("{failure}");
    assert!(!failure.what.is_empty());
}

#[test]
fn sessions_that_are_copied_before_the_consumed_words_are_caught() {
    let failure = explore::late_release::sessions_first().expect("a batch is called a duplicate");
    println!("{failure}");
    assert!(failure.what.contains("would be called a duplicate"), "{}", failure.what);
}

#[test]
fn what_a_killed_broker_left_in_caches_is_written_back() {
    let held = explore::leftovers::written_back();
    assert!(held.complete, "{:?}", held.failure.map(|failure| failure.to_string()));
    println!("{} schedules, {} steps", held.runs, held.steps);
    let caught = explore::leftovers::forgotten().failure.expect("a line leaves a cache too late");
    println!("{caught}");
}

#[test]
fn landing() {
    holds(&explore::landing::family());
}

#[test]
fn segment_grant_and_return() {
    holds(&explore::grant::family());
}

#[test]
fn replica_frontier() {
    holds(&explore::replication::family());
}

#[test]
fn moving_copy() {
    holds(&explore::moving::family());
}
