//! The history checker on small histories told by hand: whose messages a reader saw, what it was
//! told to have missed, and batches that it was told are corrupt.

use landfall::Order;
use landfall_hw_tests::history::{
    BatchRead, Event, Level, Name, Promises, Report, Stranger, Violation, check,
};

/// The log of a topic with one sequence.
const LOG: u8 = 32;

fn name(n: u64) -> Name {
    Name { client: 7, n }
}

/// Five batches of two messages, sent and acknowledged, read by reader 1 from the start to the end.
fn history() -> Vec<Event> {
    let mut events = Vec::new();
    for n in 0..10 {
        events.push(Event::Sent { name: name(n) });
        let (level, position) = (Level::Ordered, Some(n));
        events.push(Event::Acked { name: name(n), level, log: Some(LOG), position });
    }
    events.push(Event::Opened { reader: 1, start: Some(0) });
    events.extend((0..5).map(|index| Event::Read(batch(index))));
    events.push(Event::Finished { reader: 1 });
    events
}

fn batch(index: u64) -> BatchRead {
    BatchRead {
        reader: 1,
        log: LOG,
        index,
        position: 2 * index,
        broker: 0,
        client: 7,
        epoch: 1,
        seq: index,
        crc: index as u32,
        numbers: vec![Some(2 * index), Some(2 * index + 1)],
        stranger: None,
    }
}

fn judged(events: &[Event]) -> Report {
    check(Promises { order: Order::Strong, repeats: true }, events)
}

/// Where reader 1 reads the batch with that index.
fn reading(events: &[Event], index: u64) -> usize {
    let is_it = |event: &Event| matches!(event, Event::Read(batch) if batch.index == index);
    events.iter().position(is_it).expect("it is read")
}

#[test]
fn another_topics_bytes_are_told_with_their_topic() {
    assert!(judged(&history()).is_ok(), "{}", judged(&history()));
    let mut events = history();
    let at = reading(&events, 3);
    let Event::Read(batch) = &mut events[at] else { unreachable!() };
    let whose = Stranger { topic: 1, name: Name { client: 9, n: 5 } };
    (batch.numbers, batch.stranger) = (vec![None, None], Some(whose));
    let report = judged(&events);
    let is_it =
        |found: &Violation| matches!(found, Violation::Strange { whose: w, .. } if *w == whose);
    assert!(report.violations.iter().any(is_it), "{report}");
    assert!(report.to_string().contains("message 5 of client 9 of topic 1"), "{report}");
}

#[test]
fn losses_that_there_cannot_have_been_are_invented() {
    // The log goes on far behind what anybody sent.
    for (missed, is_invented) in [(2, false), (67_000_000, true)] {
        let mut events = history();
        let at = reading(&events, 4);
        let resume = 8 + missed;
        events[at] = Event::Gap { reader: 1, log: LOG, missed, resume, unwritten: false };
        let report = judged(&events);
        let is_it = |found: &Violation| {
            matches!(found, Violation::Invented { reader: 1, seen: 8, most: 10, .. })
        };
        assert_eq!(report.violations.iter().any(is_it), is_invented, "{missed}: {report}");
        assert_eq!(report.missed, missed);
    }
}

#[test]
fn a_corrupt_batch_that_is_told_is_a_counted_gap_and_a_silent_one_is_a_hole() {
    let mut events = history();
    let at = reading(&events, 2);
    events[at] = Event::Corrupt { reader: 1, log: LOG, position: 4 };
    let report = judged(&events);
    assert!(report.is_ok(), "{report}");
    assert_eq!((report.corrupt, report.missed), (1, 2));
    // A gap behind it, and two in a row.
    events[at + 1] = Event::Gap { reader: 1, log: LOG, missed: 2, resume: 8, unwritten: false };
    let report = judged(&events);
    assert!(report.is_ok(), "{report}");
    events[at + 1] = Event::Corrupt { reader: 1, log: LOG, position: 6 };
    let report = judged(&events);
    assert!(report.is_ok(), "{report}");
    assert_eq!((report.corrupt, report.missed), (2, 4));
    events.remove(at);
    events.remove(at);
    let report = judged(&events);
    let is_hole = |found: &Violation| matches!(found, Violation::Hole { reader: 1, saw: 8, .. });
    assert!(report.violations.iter().any(is_hole), "{report}");
}

#[test]
fn a_hostile_client_may_stand_twice_and_not_as_what_it_never_sent() {
    let mut events = history();
    events.push(Event::Hostile { client: 9 });
    events.push(Event::Sent { name: Name { client: 9, n: 0 } });
    let at = events.iter().position(|event| matches!(event, Event::Finished { .. }));
    let at = at.expect("the reader ends");
    for index in [6, 5] {
        let (position, numbers) = (index + 5, vec![Some(0)]);
        let batch = BatchRead { index, position, client: 9, seq: 0, numbers, ..batch(index) };
        events.insert(at, Event::Read(batch));
    }
    let report = judged(&events);
    assert!(report.is_ok(), "{report}");
    let Event::Read(batch) = &mut events[at] else { unreachable!() };
    batch.numbers = vec![Some(1_000_000)];
    let report = judged(&events);
    let is_it = |found: &Violation| matches!(found, Violation::NotSent { .. });
    assert!(report.violations.iter().any(is_it), "{report}");
}

#[test]
fn what_a_lost_pool_showed_and_had_not_made_durable_may_come_again() {
    let mut events = history();
    // Reader 1 saw the last batch in the pool that was lost. Its messages come again further on,
    // and reader 2, who sees everything, is told of the gap.
    events.retain(|event| match event {
        Event::Acked { name, .. } => name.n < 8,
        Event::Finished { .. } => false,
        _ => true,
    });
    events.push(Event::PoolLost);
    let again = BatchRead { index: 5, position: 10, epoch: 2, ..batch(4) };
    events.push(Event::Read(again.clone()));
    events.push(Event::Opened { reader: 2, start: Some(0) });
    events.extend((0..4).map(|index| Event::Read(BatchRead { reader: 2, ..batch(index) })));
    events.push(Event::Gap { reader: 2, log: LOG, missed: 2, resume: 10, unwritten: false });
    events.push(Event::Read(BatchRead { reader: 2, ..again.clone() }));
    events.push(Event::Finished { reader: 2 });
    let report = judged(&events);
    assert!(report.is_ok(), "{report}");
    // Not so in a pool that is there.
    events.retain(|event| *event != Event::PoolLost);
    let is_it = |found: &Violation| matches!(found, Violation::Twice { .. });
    assert!(judged(&events).violations.iter().any(is_it));
}
