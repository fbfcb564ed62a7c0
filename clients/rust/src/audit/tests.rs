//! Each kind of violation is caught, and nothing else is called one.

use landfall_layout::session::first_epoch_after;

use super::*;

const LOG: u8 = SEQUENCED_LOG as u8;

/// Ten messages of client 1, the batch of that index, through broker `index % 2`.
fn seen(index: u64) -> Seen {
    Seen {
        log: LOG,
        index,
        first_position: 10 * index,
        count: 10,
        broker: (index % 2) as u8,
        client: 1,
        session_epoch: 1,
        batch_seq: index,
        payload_crc: 7,
    }
}

fn audit(order: Order, batches: impl IntoIterator<Item = Seen>) -> Report {
    let mut auditor = Auditor::new(order);
    batches.into_iter().for_each(|batch| auditor.batch(0, batch));
    auditor.finish()
}

#[track_caller]
fn broken(report: &Report, word: &str) {
    assert!(!report.ok && report.violations_total == 1, "{report}");
    assert!(report.violations[0].contains(word), "{word:?} is missing in {report}");
}

#[test]
fn what_is_promised_is_no_violation() {
    let mut auditor = Auditor::new(Order::Strong);
    for subscriber in 0..3 {
        (0..20).for_each(|index| auditor.batch(subscriber, seen(index)));
    }
    let report = auditor.finish();
    assert!(report.ok, "{report}");
    assert_eq!((report.batches, report.messages, report.subscribers), (20, 200, 3));
}

#[test]
fn a_subscriber_that_starts_late_is_no_violation() {
    assert!(audit(Order::Strong, (5..9).map(seen)).ok);
}

#[test]
fn a_hole_is_caught() {
    let mut late = seen(2);
    late.batch_seq = 1;
    broken(&audit(Order::Strong, [seen(0), late]), "a hole");
}

#[test]
fn an_overlap_is_caught() {
    let mut early = seen(1);
    early.first_position = 5;
    broken(&audit(Order::Strong, [seen(0), early]), "an overlap");
}

#[test]
fn a_wrong_index_is_caught() {
    let mut wrong = seen(1);
    wrong.index = 4;
    broken(&audit(Order::Strong, [seen(0), wrong]), "another index");
}

#[test]
fn an_announced_gap_is_no_hole() {
    let mut auditor = Auditor::new(Order::Strong);
    auditor.batch(0, seen(0));
    auditor.gap(0, LOG, 20, 30);
    auditor.batch(0, seen(3));
    let report = auditor.finish();
    assert!(report.ok, "{report}");
    assert_eq!(report.missed, 20);
}

#[test]
fn positions_that_were_passed_over_are_no_messages_missed() {
    let mut auditor = Auditor::new(Order::Strong);
    auditor.batch(0, seen(0));
    auditor.told(0, LOG, GapReason::Lost, 5, 15);
    auditor.told(0, LOG, GapReason::Skipped, 15, 30);
    auditor.batch(0, seen(3));
    let report = auditor.finish();
    assert!(report.ok, "{report}");
    assert_eq!(report.missed, 5);
}

#[test]
fn one_gap_may_follow_another() {
    let mut auditor = Auditor::new(Order::Strong);
    auditor.batch(0, seen(0));
    auditor.gap(0, LOG, 20, 30);
    auditor.gap(0, LOG, 30, 60);
    auditor.batch(0, seen(6));
    let report = auditor.finish();
    assert!(report.ok, "{report}");
    assert_eq!(report.missed, 50);
    auditor.gap(0, LOG, 30, 100);
    auditor.gap(0, LOG, 30, 131);
    broken(&auditor.finish(), "131");
}

#[test]
fn a_gap_that_does_not_add_up_is_caught() {
    let mut auditor = Auditor::new(Order::Strong);
    auditor.batch(0, seen(0));
    auditor.gap(0, LOG, 19, 30);
    auditor.batch(0, seen(3));
    broken(&auditor.finish(), "19");
}

#[test]
fn a_gap_that_resumes_elsewhere_is_caught() {
    let mut auditor = Auditor::new(Order::Strong);
    auditor.batch(0, seen(0));
    auditor.gap(0, LOG, 20, 30);
    auditor.batch(0, seen(4));
    broken(&auditor.finish(), "a hole");
}

#[test]
fn a_duplicate_is_caught_where_exactly_once_is_promised() {
    let mut again = seen(1);
    again.batch_seq = 0;
    for order in [Order::Strong, Order::Total] {
        let word = if order == Order::Strong { "a duplicate" } else { "twice" };
        broken(&audit(order, [seen(0), again]), word);
    }
    let mut same_broker = again;
    same_broker.broker = 0;
    broken(&audit(Order::Stream, [seen(0), same_broker]), "a duplicate");
}

#[test]
fn a_step_back_is_caught() {
    let mut swapped = [seen(0), seen(1), seen(2)];
    swapped[1].batch_seq = 2;
    swapped[2].batch_seq = 1;
    let report = audit(Order::Strong, swapped);
    assert_eq!(report.violations_total, 2, "{report}");
    assert!(report.violations[0].contains("a missing batch"));
    assert!(report.violations[1].contains("a step back"));
}

#[test]
fn a_missing_batch_is_caught_even_when_positions_have_no_hole() {
    let mut skipped = seen(1);
    skipped.batch_seq = 2;
    broken(&audit(Order::Strong, [seen(0), skipped]), "a missing batch");
}

#[test]
fn an_epoch_that_goes_back_is_caught() {
    let mut second = seen(0);
    second.session_epoch = 2;
    broken(&audit(Order::Strong, [second, seen(1)]), "an earlier epoch");
}

/// Another client had the line meanwhile, or it is another line: epochs and sequences begin anew,
/// and what is of a life that is over comes no more.
#[test]
fn sequences_are_compared_within_one_life_of_the_line() {
    for order in [Order::Strong, Order::Stream, Order::Total] {
        for later in [first_epoch_after(2), first_epoch_after(first_epoch_after(2))] {
            let at = |index: u64, session_epoch: u32, batch_seq: u64| Seen {
                session_epoch,
                batch_seq,
                broker: 1,
                ..seen(index)
            };
            let lives = |first, second| {
                vec![at(0, first, 0), at(1, first + 1, 1), at(2, second, 0), at(3, second, 1)]
            };
            for (first, second) in [(1, later), (later, 1)] {
                let report = audit(order, lives(first, second));
                assert!(report.ok, "{order}: {report}");
                if order == Order::Total {
                    continue;
                }
                let mut again = lives(first, second);
                again.push(at(4, second, 0));
                let word = if order == Order::Strong { "a step back" } else { "a duplicate" };
                broken(&audit(order, again), word);
                let mut late = lives(first, second);
                late.push(at(4, first + 1, 2));
                late.push(at(5, second, 2));
                broken(&audit(order, late), "an earlier epoch");
            }
        }
    }
}

#[test]
fn brokers_may_overtake_each_other_in_total_and_stream_and_not_in_strong() {
    let mut swapped = [seen(0), seen(1)];
    swapped[0].batch_seq = 1;
    swapped[1].batch_seq = 0;
    assert!(audit(Order::Total, swapped).ok);
    assert!(audit(Order::Stream, swapped).ok);
    assert!(!audit(Order::Strong, swapped).ok);
}

#[test]
fn one_broker_keeps_a_clients_order_in_stream_and_broker() {
    for order in [Order::Stream, Order::Broker] {
        let mut swapped = [seen(0), seen(1)];
        swapped[0].batch_seq = 1;
        swapped[1].batch_seq = 0;
        for batch in &mut swapped {
            batch.broker = 3;
            batch.log = if order == Order::Broker { 3 } else { LOG };
        }
        broken(&audit(order, swapped), "a step back");
    }
}

#[test]
fn a_batch_sent_again_in_a_later_epoch_may_repeat_in_broker_and_not_in_strong() {
    let mut again = [seen(0), seen(1)];
    again[1].batch_seq = 0;
    again[1].session_epoch = 2;
    for batch in &mut again {
        batch.broker = 3;
    }
    broken(&audit(Order::Strong, again), "a duplicate");
    again.iter_mut().for_each(|batch| batch.log = 3);
    assert!(audit(Order::Broker, again).ok);
}

#[test]
fn disagreement_is_caught() {
    let changes: [fn(&mut Seen); 4] = [
        |batch| batch.payload_crc += 1,
        |batch| batch.client += 1,
        |batch| batch.count += 1,
        |batch| batch.session_epoch += 1,
    ];
    for change in changes {
        let mut auditor = Auditor::new(Order::Total);
        auditor.batch(0, seen(0));
        let mut other = seen(0);
        change(&mut other);
        auditor.batch(1, other);
        broken(&auditor.finish(), "disagree");
    }
}

#[test]
fn an_empty_batch_and_a_log_of_another_order_are_caught() {
    let mut empty = seen(0);
    empty.count = 0;
    broken(&audit(Order::Strong, [empty]), "an empty batch");
    broken(&audit(Order::Broker, [seen(0)]), "log 32");
}

#[test]
fn violations_beyond_the_hundredth_are_only_counted() {
    let report = audit(Order::Total, std::iter::repeat_n(seen(0), 300));
    assert_eq!(report.violations.len(), VIOLATIONS_SHOWN);
    assert!(report.violations_total > 300, "{}", report.violations_total);
}

#[test]
fn numbers_at_the_bound_do_not_overflow() {
    let mut last = seen(0);
    (last.index, last.first_position, last.batch_seq) = (u64::MAX, u64::MAX, u64::MAX);
    let mut auditor = Auditor::new(Order::Strong);
    auditor.batch(0, last);
    auditor.gap(0, LOG, u64::MAX, u64::MAX);
    auditor.batch(0, last);
    assert!(!auditor.finish().ok);
}
