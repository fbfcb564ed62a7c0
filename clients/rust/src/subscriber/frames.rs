//! What a broker says to a subscriber between batches, and what it announces: the same over sockets
//! and over verbs.

use std::io;

use landfall_layout::batch::PREAMBLE_BYTES;
use landfall_layout::frame::{Delivery, Frame, GapReason, LogPlace, Refusal};

use super::places::{Arrival, Places};
use super::{Place, Step};
use crate::connect::refusal_text;
use crate::error::Error;

/// What a frame comes to that no batch follows.
pub(crate) struct Said<T> {
    pub(crate) step: Step<T>,
    /// Whether that is all of it. Otherwise it stays where it is and is what comes next.
    pub(crate) is_all: bool,
}

/// What to do with a frame that no batch follows.
pub(crate) fn step<T>(
    broker: u8,
    frame: Frame,
    tail: &[u8],
    places: &mut Places,
) -> Result<Said<T>, Error> {
    let step = match frame {
        Frame::Gap { log, reason, missed, resume } => {
            let known = places.get(log).and_then(|place| place.position);
            let begins = resume.saturating_sub(missed);
            if let Some(position) = known.filter(|position| *position < begins)
                && reason != GapReason::Retention
            {
                // Memory begins here, with positions of which it says something. What came before
                // them is another gap, which copies on disk may have.
                places.resumed(log, begins);
                return Ok(Said { step: Step::gap(log, begins - position, begins), is_all: false });
            }
            // A gap that a reconnect shows again, or a part of one, is counted once.
            let missed = known.map_or(missed, |position| resume.saturating_sub(position));
            places.resumed(log, known.map_or(resume, |position| position.max(resume)));
            if missed == 0 { Step::Nothing } else { Step::Gap { log, reason, missed, resume } }
        }
        Frame::CaughtUp => Step::CaughtUp,
        Frame::Ends => Step::Ends(LogPlace::decode_all(tail).map_err(|why| {
            let what = format!("says where logs end: {why}");
            Error::Unexpected { broker, what }
        })?),
        Frame::Bye => {
            let source = io::Error::other("it said goodbye");
            return Err(Error::Connection { broker, doing: "subscribing", source });
        }
        Frame::Refused(Refusal::TopicGone | Refusal::NoTopic) => Step::TopicGone,
        Frame::Refused(why) => {
            let sentence = refusal_text(why, tail);
            return Err(Error::Refused { broker, why, sentence });
        }
        Frame::Stalled { .. } | Frame::Held(_) | Frame::Beat => Step::Nothing,
        other => {
            let what = format!("sent a subscriber {other:?}");
            return Err(Error::Unexpected { broker, what });
        }
    };
    Ok(Said { step, is_all: true })
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

#[cfg(test)]
mod tests {
    use landfall_layout::frame::From;
    use landfall_layout::limits::SEQUENCED_LOG;

    use super::*;

    const LOG: u8 = SEQUENCED_LOG as u8;

    fn places(position: u64) -> Places {
        let mut places = Places::new();
        places.expect_start(From::Position(position), None);
        places
    }

    /// The gap that a frame comes to, and whether that is all of it.
    fn told(frame: Frame, places: &mut Places) -> Option<(GapReason, u64, u64, bool)> {
        let Said { step, is_all } = step::<()>(0, frame, &[], places).unwrap();
        match step {
            Step::Gap { log: LOG, reason, missed, resume } => {
                Some((reason, missed, resume, is_all))
            }
            Step::Nothing => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_comes_before_a_gap_is_a_gap_of_its_own() {
        for reason in [GapReason::Unwritten, GapReason::Lost] {
            let mut places = places(40);
            let frame = Frame::Gap { log: LOG, reason, missed: 3, resume: 550 };
            let before = told(frame, &mut places);
            assert_eq!(before, Some((GapReason::Retention, 507, 547, false)));
            assert_eq!(told(frame, &mut places), Some((reason, 3, 550, true)));
            assert_eq!(told(frame, &mut places), None, "it is counted once");
        }
    }

    #[test]
    fn what_retention_took_is_one_gap_from_where_reading_is() {
        let frame =
            |missed| Frame::Gap { log: LOG, reason: GapReason::Retention, missed, resume: 550 };
        for missed in [3, 510, 550] {
            let all = Some((GapReason::Retention, 510, 550, true));
            assert_eq!(told(frame(missed), &mut places(40)), all);
        }
        assert_eq!(told(frame(9), &mut places(600)), None);
    }
}
