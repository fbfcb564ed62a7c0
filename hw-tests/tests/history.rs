//! The history checker on histories made from seeds: legal ones pass, and each way of breaking one
//! is found and called by its name.

mod legal;

use std::path::PathBuf;

use landfall::Order;
use landfall_hw_tests::history::file::{Recorder, read};
use landfall_hw_tests::history::{BatchRead, Event, Level, Name, Promises, Violation, check};
use legal::{Legal, ONCE, ORDERS, SEEDS, broken, gap, legal, receipts};

#[test]
fn legal_histories_pass_whatever_the_order() {
    for seed in 0..2 * SEEDS {
        for order in ORDERS {
            let history = legal(seed, order);
            let report = history.check();
            assert!(report.is_ok(), "seed {seed}, order {order}: {report}");
            assert!(report.sent > 0 && report.finished == 3, "{report}");
        }
    }
}

#[test]
fn another_message_at_a_position_is_a_change() {
    broken(
        &ORDERS,
        |history| {
            // The reader that comes after a restart sees two batches in each other's place.
            let places = history.readings_of(2);
            let fits = |pair: &&[usize]| {
                let [first, second] = [pair[0], pair[1]].map(|at| &history.events[at]);
                let (Event::Read(first), Event::Read(second)) = (first, second) else {
                    return false;
                };
                first.log == second.log && first.numbers.len() == second.numbers.len()
            };
            let Some([at, next]) = places.windows(2).find(fits) else { return false };
            let (first, second) = (history.batch(*at).clone(), history.batch(*next).clone());
            let place = |from: &BatchRead, of: &BatchRead| BatchRead {
                index: of.index,
                position: of.position,
                ..from.clone()
            };
            *history.batch(*at) = place(&second, &first);
            *history.batch(*next) = place(&first, &second);
            true
        },
        |found| matches!(found, Violation::Changed { first: (1, _), then: (2, _), .. }),
    );
}

#[test]
fn a_batch_that_is_passed_over_is_a_hole() {
    broken(
        &ORDERS,
        |history| {
            let places = history.readings_of(1);
            let at = history.random.below(places.len() as u64) as usize;
            let log = history.batch(places[at]).log;
            let is_last = places.get(at + 1).is_none_or(|next| history.batch(*next).log != log);
            history.events.remove(places[at]);
            !is_last
        },
        |found| matches!(found, Violation::Hole { reader: 1, .. }),
    );
}

#[test]
fn a_receipt_for_what_nobody_finds_is_found_missing() {
    broken(
        &ORDERS,
        |history| {
            // The end of the log is gone for everybody: there is no hole to see.
            let Some(last) = history.logs.last().and_then(|log| log.last()).cloned() else {
                return false;
            };
            history.events.retain(|event| match event {
                Event::Read(batch) => (batch.log, batch.index) != (last.log, last.index),
                _ => true,
            });
            history.events.extend(receipts(&last, true, Level::Ordered));
            true
        },
        |found| matches!(found, Violation::Missing { .. }),
    );
}

#[test]
fn a_message_at_two_places_is_found_twice() {
    broken(
        &ONCE,
        |history| {
            let log = history.logs.last().unwrap().clone();
            let again = log[history.random.below(log.len() as u64) as usize].clone();
            let last = log.last().unwrap();
            let position = last.position + last.numbers.len() as u64;
            let (index, epoch) = (last.index + 1, 100);
            for reader in [1, 2] {
                let batch = BatchRead { reader, index, position, epoch, ..again.clone() };
                // Behind what that reader saw of the log.
                history.events.push(Event::Read(batch));
            }
            true
        },
        |found| matches!(found, Violation::Twice { .. }),
    );
}

#[test]
fn under_one_epoch_a_reserved_batch_has_one_place() {
    broken(
        &[Order::Token],
        |history| {
            history.promises.repeats = true;
            let log = history.logs.last().unwrap().clone();
            let last = log.last().unwrap();
            let position = last.position + last.numbers.len() as u64;
            let (index, seq) = (last.index + 1, position);
            for reader in [1, 2] {
                let batch = BatchRead { reader, index, position, seq, ..last.clone() };
                history.events.push(Event::Read(batch));
            }
            true
        },
        |found| matches!(found, Violation::Twice { .. }),
    );
}

#[test]
fn what_is_said_to_be_unwritten_and_is_there_is_found() {
    let all_but_token = ORDERS.into_iter().filter(|order| *order != Order::Token);
    for (orders, is_filled) in [(vec![Order::Token], true), (all_but_token.collect(), false)] {
        broken(
            &orders,
            |history| {
                // One reader is told that there is nothing where the others see a batch.
                let places = history.readings_of(2);
                let at = places[history.random.below(places.len() as u64) as usize];
                let batch = history.batch(at).clone();
                let count = batch.numbers.len() as u64;
                let end = batch.position + count;
                history.events[at] = gap(2, batch.log, count, end, true);
                true
            },
            |found| match found {
                Violation::Filled { reader: 2, .. } => is_filled,
                Violation::Unwritten { reader: 2, .. } => !is_filled,
                _ => false,
            },
        );
    }
}

#[test]
fn a_hole_that_nobody_is_told_of_is_found() {
    broken(
        &[Order::Token],
        |history| {
            let is_told = |event: &Event| matches!(event, Event::Gap { unwritten: true, .. });
            let before = history.events.len();
            history.events.retain(|event| !is_told(event));
            !history.holes.is_empty() && history.events.len() < before
        },
        |found| matches!(found, Violation::Hole { .. }),
    );
}

#[test]
fn an_acknowledged_message_is_missed_also_where_there_are_holes() {
    broken(
        &[Order::Token],
        |history| {
            // A receipt that does not say the position, for what nobody reads: no hole excuses it.
            history.events.retain(|event| !matches!(event, Event::Gap { unwritten: false, .. }));
            let name = Name { client: 1, n: 999 };
            history.events.insert(0, Event::Sent { name });
            let (level, log, position) = (Level::Ordered, None, None);
            history.events.push(Event::Acked { name, level, log, position });
            true
        },
        |found| matches!(found, Violation::Missing { name: Name { n: 999, .. }, .. }),
    );
}

#[test]
fn repeats_are_allowed_where_nothing_else_was_promised() {
    for seed in 0..SEEDS {
        for order in [Order::None, Order::Broker, Order::Total, Order::Token] {
            let mut history = legal(seed, order);
            history.promises.repeats = true;
            let log = history.logs.last().unwrap().clone();
            let last = log.last().unwrap();
            let position = last.position + last.numbers.len() as u64;
            let seq = if order == Order::Token { position } else { last.seq };
            let index = last.index + 1;
            let again = BatchRead { index, position, epoch: 100, seq, ..last.clone() };
            for reader in [1, 2] {
                history.events.push(Event::Read(BatchRead { reader, ..again.clone() }));
            }
            let report = history.check();
            assert!(report.is_ok(), "seed {seed}, order {order}: {report}");
        }
    }
}

#[test]
fn a_client_out_of_its_order_is_found_though_all_readers_agree() {
    broken(
        &[Order::Broker, Order::Stream, Order::Strong],
        |history| {
            let log = history.logs.last().unwrap().clone();
            // Two batches of one client through one broker, of one length.
            let pair = (0..log.len()).find_map(|i| {
                let same = |other: &&BatchRead| {
                    (other.client, other.broker) == (log[i].client, log[i].broker)
                        && other.numbers.len() == log[i].numbers.len()
                };
                Some((log[i].clone(), log[i + 1..].iter().find(same)?.clone()))
            });
            let Some((first, second)) = pair else { return false };
            history.events.retain(|event| !matches!(event, Event::Acked { .. }));
            for event in &mut history.events {
                let Event::Read(batch) = event else { continue };
                let other = match batch.index {
                    _ if batch.log != first.log => continue,
                    index if index == first.index => &second,
                    index if index == second.index => &first,
                    _ => continue,
                };
                batch.numbers = other.numbers.clone();
                (batch.seq, batch.epoch, batch.crc) = (other.seq, other.epoch, other.crc);
            }
            true
        },
        |found| matches!(found, Violation::Swapped { .. }),
    );
}

#[test]
fn an_altered_receipt_is_elsewhere() {
    broken(
        &ORDERS,
        |history| {
            let acked: Vec<usize> = (0..history.events.len())
                .filter(|i| matches!(history.events[*i], Event::Acked { position: Some(1..), .. }))
                .collect();
            if acked.is_empty() {
                return false;
            }
            let at = acked[history.random.below(acked.len() as u64) as usize];
            let Event::Acked { position: Some(position), .. } = &mut history.events[at] else {
                return false;
            };
            *position -= 1;
            true
        },
        // It may name a position now that readers were told is unwritten.
        |found| matches!(found, Violation::Elsewhere { .. } | Violation::Filled { .. }),
    );
}

#[test]
fn two_receipts_for_two_positions_are_told() {
    broken(
        &ORDERS,
        |history| {
            let acked = history
                .events
                .iter()
                .find(|event| matches!(event, Event::Acked { position: Some(1..), .. }));
            let Some(Event::Acked { name, level, log, position: Some(position) }) = acked else {
                return false;
            };
            let again = Event::Acked {
                name: *name,
                level: *level,
                log: *log,
                position: Some(position + 1_000_000),
            };
            history.events.push(again);
            true
        },
        |found| matches!(found, Violation::TwoReceipts { .. }),
    );
}

#[test]
fn what_was_never_sent_is_named() {
    broken(
        &ORDERS,
        |history| {
            let at = history.readings_of(1)[0];
            history.batch(at).numbers[0] = Some(77_777);
            true
        },
        |found| matches!(found, Violation::NotSent { name: Name { n: 77_777, .. }, .. }),
    );
    broken(
        &ORDERS,
        |history| {
            let at = history.readings_of(1)[0];
            history.batch(at).numbers[0] = None;
            true
        },
        |found| matches!(found, Violation::Foreign { .. }),
    );
}

#[test]
fn a_gap_that_was_not_told_or_not_counted_is_a_hole() {
    for count in [false, true] {
        let mut broken = 0;
        for seed in 0..SEEDS {
            let mut history = legal(seed, Order::Strong);
            let gap = history.events.iter().position(|event| matches!(event, Event::Gap { .. }));
            let Some(gap) = gap else { continue };
            if count {
                let Event::Gap { missed, .. } = &mut history.events[gap] else { continue };
                *missed += 1;
            } else {
                history.events.remove(gap);
            }
            broken += 1;
            let report = history.check();
            let found = report
                .violations
                .iter()
                .any(|found| matches!(found, Violation::Hole { reader: 4, .. }));
            assert!(found, "seed {seed}: {report}");
        }
        assert!(broken > SEEDS / 4, "{broken} gaps");
    }
}

/// The pool is lost; what was ordered only, at the end of the log, is said to be lost.
fn cold_start(seed: u64) -> (Legal, BatchRead) {
    let mut history = legal(seed, Order::Strong);
    let log = history.logs[0].clone();
    let last = log.last().unwrap().clone();
    let end = last.position + last.numbers.len() as u64;
    history.events.retain(|event| match event {
        Event::Acked { name, .. } => name.client != last.client,
        Event::Finished { .. } => false,
        _ => true,
    });
    history.events.push(Event::PoolLost);
    history.events.push(Event::Lost { log: last.log, from: last.position, to: end });
    history.events.push(Event::Opened { reader: 9, start: Some(0) });
    for batch in &log[..log.len() - 1] {
        history.events.push(Event::Read(BatchRead { reader: 9, ..batch.clone() }));
    }
    history.events.push(gap(9, last.log, end - last.position, end, false));
    history.events.push(Event::Finished { reader: 9 });
    (history, last)
}

#[test]
fn what_was_durable_survives_the_pool_and_what_was_not_is_told() {
    for seed in 0..SEEDS {
        let (mut history, last) = cold_start(seed);
        history.events.extend(receipts(&last, true, Level::Ordered));
        let report = history.check();
        assert!(report.is_ok(), "seed {seed}: {report}");
        history.events.extend(receipts(&last, true, Level::Durable));
        let report = history.check();
        let is_lost = |found: &Violation| matches!(found, Violation::DurableLost { .. });
        let is_missing = |found: &Violation| {
            matches!(found, Violation::Missing { reader: 9, level: Level::Durable, .. })
        };
        assert!(report.violations.iter().any(is_lost), "seed {seed}: {report}");
        assert!(report.violations.iter().any(is_missing), "seed {seed}: {report}");
        // Lost and not told: the reader simply ends before it.
        history.events.retain(|event| !matches!(event, Event::Lost { .. } | Event::Gap { .. }));
        let report = history.check();
        assert!(report.violations.iter().any(is_missing), "seed {seed}: {report}");
    }
}

#[test]
fn a_file_keeps_a_history_whole_but_for_the_line_its_writer_died_in() {
    let path = PathBuf::from(format!("{}/history.json", env!("CARGO_TARGET_TMPDIR")));
    let _ = std::fs::remove_file(&path);
    let history = legal(5, Order::Strong);
    let mut recorder = Recorder::append(&path).unwrap();
    recorder.note_all(&history.events).unwrap();
    assert_eq!(read(&path).unwrap(), history.events);
    let text = std::fs::read(&path).unwrap();
    for cut in (text.len() - 300..text.len()).step_by(7) {
        std::fs::write(&path, &text[..cut]).unwrap();
        let mut recorder = Recorder::append(&path).unwrap();
        recorder.note(&Event::Finished { reader: 77 }).unwrap();
        let mut events = read(&path).unwrap();
        assert_eq!(events.pop(), Some(Event::Finished { reader: 77 }));
        assert_eq!(events, history.events[..events.len()], "cut at {cut}");
        assert!(events.len() + 10 > history.events.len(), "cut at {cut}: {} left", events.len());
    }
    std::fs::write(&path, "{\"event\":\"sent\",\"client\":1,\"n\":2}\nnonsense\n").unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_log_of_which_nothing_was_durable_begins_behind_what_a_lost_pool_may_have_had() {
    let name = Name { client: 7, n: 0 };
    let batch = |position| BatchRead {
        reader: 1,
        log: 3,
        index: position,
        position,
        broker: 3,
        client: 7,
        epoch: 1,
        seq: 0,
        crc: 9,
        numbers: vec![Some(0)],
        stranger: None,
    };
    let acked = |n, level, position| Event::Acked {
        name: Name { n, ..name },
        level,
        log: Some(3),
        position: Some(position),
    };
    let check = |more: &[Event]| {
        let mut events = vec![
            Event::Sent { name },
            Event::Sent { name: Name { n: 1, ..name } },
            Event::Read(batch(100)),
            acked(0, Level::Durable, 100),
        ];
        events.extend_from_slice(more);
        let report = check(Promises { order: Order::None, repeats: true }, &events);
        report.violations.iter().any(|found| matches!(found, Violation::Hole { reader: 1, .. }))
    };
    assert!(check(&[]), "no pool was lost");
    assert!(!check(&[Event::PoolLost]));
    assert!(!check(&[Event::PoolLost, acked(1, Level::Ordered, 0)]));
    assert!(check(&[Event::PoolLost, acked(1, Level::Durable, 0)]), "that one was durable");
}
