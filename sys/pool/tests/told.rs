//! Distinct errors: which are errors, which are notes, and that the next leader has them.

use landfall_layout::geometry::CONTROL_BLOCK;
use landfall_layout::limits::ERRORS_MAX;
use landfall_layout::pool::{Coherence, LeaderLine, Term};
use landfall_pool::Pool;
use landfall_pool::counters::ErrorLog;

mod common;
use common::{memory, pool, shape};

/// Sentences that there is room for, beside those that clients cause.
const ROOM: usize = ERRORS_MAX / 4 * 3;

fn told(pool: &Pool) -> Vec<(String, u64, bool)> {
    let entries = ErrorLog::new(pool, CONTROL_BLOCK).entries(pool).into_iter();
    let seen = entries.filter(|entry| entry.count > 0);
    seen.map(|entry| (entry.text().to_owned(), entry.count, entry.is_note())).collect()
}

fn claim(pool: &Pool, slot: usize, epoch: u64) {
    let term = Term { epoch, serves: false }.pack();
    assert!(pool.claim(slot, &LeaderLine { term, ..LeaderLine::default() }));
}

#[test]
fn what_was_noted_outlives_who_noted_it() {
    let (_memory, path) = memory();
    let first = Pool::create_or_attach(&path, shape(Coherence::Coherent)).unwrap();
    claim(&first, 0, 1);
    assert!(first.serve(1));
    let log = ErrorLog::new(&first, CONTROL_BLOCK);
    log.note(&first, 1, "it went wrong");
    log.note(&first, 2, "it went wrong");
    log.tell(&first, 3, "all is well");
    let next = Pool::attach(&path).unwrap();
    claim(&next, 1, 2);
    next.copy_tables(Some(0));
    assert!(told(&next).is_empty(), "each leader has an error log of its own");
    ErrorLog::new(&next, CONTROL_BLOCK).take_over(&next, 0);
    assert_eq!(told(&next), told(&first));
    let seen = [("it went wrong".to_owned(), 2, false), ("all is well".to_owned(), 1, true)];
    assert_eq!(told(&next), seen);
    ErrorLog::new(&next, CONTROL_BLOCK).note(&next, 4, "it went wrong");
    assert_eq!(told(&next)[0].1, 3, "it is counted on");
}

#[test]
fn the_same_sentence_is_an_error_and_a_note_apart_and_notes_make_place_for_errors() {
    let pool = pool(Coherence::Coherent);
    claim(&pool, 0, 1);
    let log = ErrorLog::new(&pool, CONTROL_BLOCK);
    log.tell(&pool, u64::MAX, "both");
    log.note(&pool, 1, "both");
    assert_eq!(told(&pool).len(), 2);
    (2..ROOM as u64).for_each(|at| log.note(&pool, at, &format!("error {at}")));
    log.note(&pool, 1, "one more");
    let seen = told(&pool);
    assert_eq!(seen.len(), ROOM);
    assert!(seen.iter().all(|(_, _, is_note)| !is_note), "the note went, though it is the newest");
    log.tell(&pool, 1, "a note");
    assert_eq!(told(&pool).len(), ROOM);
}
