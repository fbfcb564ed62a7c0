//! What a broker says to a subscriber between batches, and what it announces: the same over sockets
//! and over verbs.

use std::io;

use landfall_layout::batch::PREAMBLE_BYTES;
use landfall_layout::frame::{Delivery, Frame, Refusal};

use super::places::{Arrival, Places};
use super::{Place, Step};
use crate::connect::refusal_text;
use crate::error::Error;

/// What to do with a frame that no batch follows.
pub(crate) fn step<T>(
    broker: u8,
    frame: Frame,
    sentence: &[u8],
    places: &mut Places,
) -> Result<Step<T>, Error> {
    Ok(match frame {
        Frame::Gap { log, reason, missed, resume } => {
            let known = places.get(log).and_then(|place| place.position);
            // A gap that a reconnect shows again, or a part of one, is counted once.
            let missed = known.map_or(missed, |position| resume.saturating_sub(position));
            places.resumed(log, known.map_or(resume, |position| position.max(resume)));
            if missed == 0 { Step::Nothing } else { Step::Gap { log, reason, missed, resume } }
        }
        Frame::CaughtUp => Step::CaughtUp,
        Frame::Bye => {
            let source = io::Error::other("it said goodbye");
            return Err(Error::Connection { broker, doing: "subscribing", source });
        }
        Frame::Refused(Refusal::TopicGone | Refusal::NoTopic) => Step::TopicGone,
        Frame::Refused(why) => {
            let sentence = refusal_text(why, sentence);
            return Err(Error::Refused { broker, why, sentence });
        }
        Frame::Stalled { .. } | Frame::Held(_) => Step::Nothing,
        other => {
            let what = format!("sent a subscriber {other:?}");
            return Err(Error::Unexpected { broker, what });
        }
    })
}

/// What an announced batch is, before any of it is looked at.
pub(crate) enum Announced {
    /// The next one.
    Batch(Place),
    /// Seen before.
    Old,
    /// The next one, and messages before it are missing: they are told of first.
    AfterGap { missed: u64 },
}

/// Checks that a delivery can be, whatever has come of its batch.
pub(crate) fn check_delivery(
    broker: u8,
    delivery: &Delivery,
    batch_bytes_max: u32,
    places: &Places,
) -> Result<(), Error> {
    let Delivery { log, bytes, .. } = *delivery;
    if (PREAMBLE_BYTES..=batch_bytes_max).contains(&bytes) && places.get(log).is_some() {
        return Ok(());
    }
    let what = format!(
        "announced a batch of {bytes} bytes of log {log}; at most {batch_bytes_max} are possible"
    );
    Err(Error::Unexpected { broker, what })
}

/// Judges a whole batch by what was seen before it.
pub(crate) fn announced(delivery: &Delivery, places: &mut Places) -> Announced {
    let Delivery { log, broker, count, index, first_position, landed_ns, checksum, .. } = *delivery;
    match places.judge(log, index, first_position, end_of(delivery)) {
        Arrival::Old => Announced::Old,
        Arrival::AfterGap { missed } => {
            // The batch stays where it is and is what comes next.
            places.resumed(log, first_position);
            Announced::AfterGap { missed }
        }
        Arrival::Next => Announced::Batch(Place {
            log,
            broker,
            count,
            index,
            first_position,
            landed_ns,
            checksum,
        }),
    }
}

/// Position just past the last message of a delivery.
pub(crate) fn end_of(delivery: &Delivery) -> u64 {
    delivery.first_position.saturating_add(delivery.count.into())
}
