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
