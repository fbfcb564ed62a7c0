//! Publishers of order `token`: they reserve positions first, and one is gone before it has filled
//! its own.

use landfall::{Publisher, Ticket};
use landfall_layout::limits::SEQUENCED_LOG;

use super::client::{Publishing, level_of};
use crate::Failure;
use crate::flow::message;
use crate::history::file::{Recorder, reached, read};
use crate::history::{Event, Name};

/// Publishes what has no receipt yet. Every second batch has positions that were reserved for it
/// before; the others are given theirs when they are sealed.
pub fn publish(
    what: &Publishing,
    mut publisher: Publisher,
    mut recorder: Recorder,
    with_receipt: u64,
) -> Result<(), Failure> {
    if what.leaves {
        return leave(what, publisher, recorder);
    }
    let mut waiting: Vec<(Ticket, u64)> = Vec::new();
    for batch in with_receipt.div_ceil(what.messages)..what.batches {
        if batch % 2 == 0 {
            let reserved = publisher.reserve_positions(what.messages as u32)?;
            ensure!(
                u64::from(reserved.count) == what.messages,
                "{} positions for {} messages",
                reserved.count,
                what.messages
            );
        }
        let numbers = batch * what.messages..(batch + 1) * what.messages;
        note_sent(what, numbers.clone(), &mut recorder)?;
        for n in numbers {
            let ticket = publisher.publish(&message(what.client, n, what.bytes))?;
            waiting.push((ticket, n));
        }
        publisher.seal()?;
        if batch % what.under_way == what.under_way - 1 {
            note_receipts(what, &mut publisher, &mut waiting, &mut recorder)?;
        }
    }
    note_receipts(what, &mut publisher, &mut waiting, &mut recorder)?;
    Ok(publisher.close()?)
}

fn note_sent(
    what: &Publishing,
    numbers: std::ops::Range<u64>,
    recorder: &mut Recorder,
) -> Result<(), Failure> {
    let sent = |n| Event::Sent { name: Name { client: what.client, n } };
    Ok(recorder.note_all(&numbers.map(sent).collect::<Vec<_>>())?)
}

/// Waits for every receipt and notes it. A batch's sequence is its position here, so that messages
/// are told by their tickets.
fn note_receipts(
    what: &Publishing,
    publisher: &mut Publisher,
    waiting: &mut Vec<(Ticket, u64)>,
    recorder: &mut Recorder,
) -> Result<(), Failure> {
    let mut events = Vec::with_capacity(waiting.len());
    for (ticket, n) in waiting.drain(..) {
        let receipt = publisher.wait(ticket)?;
        events.push(Event::Acked {
            name: Name { client: what.client, n },
            level: level_of(receipt.reached),
            log: receipt.position.map(|_| SEQUENCED_LOG as u8),
            position: receipt.position,
        });
    }
    Ok(recorder.note_all(&events)?)
}

/// Reserves positions for a batch, fills the first of them, and ends the process without a goodbye.
fn leave(
    what: &Publishing,
    mut publisher: Publisher,
    mut recorder: Recorder,
) -> Result<(), Failure> {
    let (sent, _) = reached(&read(&what.notes)?, what.client);
    let n = sent.map_or(0, |n| n + 1);
    publisher.reserve_positions(what.messages as u32)?;
    note_sent(what, n..n + 1, &mut recorder)?;
    publisher.publish(&message(what.client, n, what.bytes))?;
    publisher.seal()?;
    publisher.poll()?;
    std::process::exit(0)
}
