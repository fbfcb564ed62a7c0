//! Leader lines that are damaged, and tables that only look like the latest.

use landfall_layout::limits::LEADERS_MAX;
use landfall_layout::pool::Term;
use landfall_pool::{Memory, Pool};
use landfall_verify::{Finding, Severity, look, recover};
use landfall_verify_fuzz::sample;

fn errors(pool: &Pool, check: &str) -> Vec<Finding> {
    let findings = look(pool).findings;
    let kept = findings.kept().iter().cloned();
    kept.filter(|found| found.check == check && found.severity == Severity::Error).collect()
}

#[test]
fn any_flipped_bit_of_a_leader_lines_term_is_an_error_of_its_slot() {
    let pool = sample::pool();
    for slot in 0..LEADERS_MAX {
        let at = pool.geometry().leader_line(slot);
        let word = pool.load_relaxed(at);
        for bit in 0..64 {
            pool.store(at, word ^ 1 << bit);
            assert_eq!(pool.serving(), None, "nobody can be known to serve");
            assert_eq!(pool.damaged_term().map(|damaged| damaged.slot), Some(slot));
            let found = errors(&pool, "leader");
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(
                (&found[0].of, found[0].at),
                (&format!("line of leader slot {slot}"), Some(at))
            );
        }
        assert_eq!(recover::pool(&pool, true).done, [""; 0], "nothing is mended by such tables");
        pool.store(at, word);
        assert!(look(&pool).findings.is_empty());
    }
}

#[test]
fn tables_that_do_not_know_what_another_slot_has_are_not_the_latest() {
    let pool = sample::pool();
    let (leading, epoch) = pool.serving().unwrap();
    let other = (leading + 1) % LEADERS_MAX;
    let at = pool.geometry().leader_line(other);
    // As if an old leader's empty tables were those of the latest.
    pool.store(at, Term { epoch: epoch + 32, serves: true }.pack());
    let found = errors(&pool, "older");
    let ids = [sample::STRONG, sample::OWN, sample::STREAM].map(|id| format!("id {:#x}", id.0));
    assert_eq!(found.len(), ids.len(), "{found:?}");
    for id in ids {
        assert!(found.iter().any(|found| found.of.ends_with(&id)), "{id} in {found:?}");
    }
    // The other way round the tables that are followed know more than those of before.
    pool.store(at, Term { epoch: epoch - 2, serves: true }.pack());
    assert!(look(&pool).findings.is_empty());
}
