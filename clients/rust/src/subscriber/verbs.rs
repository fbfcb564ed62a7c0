//! Batches that a broker writes into this subscriber's ring.
//!
//! A batch is copied out of the ring once, whole, since the ring is memory that a NIC writes at any
//! time. Its room goes back to the broker at once.

use std::os::fd::{AsFd, BorrowedFd};

use landfall_layout::batch::{BatchPreamble, PREAMBLE_BYTES};
use landfall_layout::frame::{Delivery, Frame};

use super::frames::{self, Announced, Said, announced, check_delivery, end_of};
use super::places::Places;
use super::{Place, Step, Wanted, check_batch};
use crate::error::Error;
use crate::verbs::ring::lines_of;
use crate::verbs::wire::Wire;
use landfall_pool::clock::coarse_ns;

/// Time between two looks at whether the broker is there.
const ALIVE_EVERY_NS: u64 = 250_000_000;

/// A batch found. Its bytes are in the reader's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pushed {
    pub(crate) place: Place,
    pub(crate) preamble: BatchPreamble,
}

/// The connection.
pub(crate) struct PushReader {
    wire: Wire,
    /// The batch that is shown, preamble first.
    batch: Vec<u8>,
    wanted: Wanted,
    looked_ns: u64,
    /// How it ended, until what came before that was shown.
    ended: Option<Error>,
}

impl PushReader {
    pub(crate) fn new(wire: Wire, wanted: Wanted) -> Self {
        Self { wire, batch: Vec::new(), wanted, looked_ns: coarse_ns(), ended: None }
    }

    /// The next thing there is. Never waits.
    pub(crate) fn step(
        &mut self,
        places: &mut Places,
        verify: bool,
    ) -> Result<Step<Pushed>, Error> {
        loop {
            match self.parse(places, verify)? {
                Parsed::Step(step) => return Ok(step),
                Parsed::PassedOver => continue,
                Parsed::Incomplete => {}
            }
            if let Some(error) = self.ended.take() {
                return Err(error);
            }
            if !self.receive() {
                return Ok(Step::Nothing);
            }
        }
    }

    /// Takes completions. Whether there may be more to read now.
    fn receive(&mut self) -> bool {
        let now = coarse_ns();
        let mut came = self.wire.pump();
        if now.saturating_sub(self.looked_ns) >= ALIVE_EVERY_NS {
            self.looked_ns = now;
            self.wire.check_alive(now);
        }
        self.wire.say_taken(now);
        self.wire.flush();
        if let Some(error) = self.wire.lost("receiving") {
            self.ended = Some(error);
            came = true;
        }
        came
    }

    /// What lies first in the ring.
    fn parse(&mut self, places: &mut Places, verify: bool) -> Result<Parsed, Error> {
        let broker = self.wire.broker;
        let frame = self.wire.ring.frame();
        let Some((frame, tail)) = frame.map_err(|source| Error::Frame { broker, source })? else {
            return Ok(Parsed::Incomplete);
        };
        if let Frame::Delivery(delivery) = frame {
            return self.parse_batch(delivery, places, verify);
        }
        let tail_bytes = if tail > 0 { self.wire.ring.text(tail) } else { Vec::new() };
        let Said { step, is_all } = frames::step(broker, frame, &tail_bytes, places)?;
        if is_all {
            self.pass(1 + lines_of(tail));
        }
        Ok(match step {
            Step::Nothing => Parsed::PassedOver,
            step => Parsed::Step(step),
        })
    }

    fn parse_batch(
        &mut self,
        delivery: Delivery,
        places: &mut Places,
        verify: bool,
    ) -> Result<Parsed, Error> {
        let Delivery { log, bytes, index, first_position, .. } = delivery;
        check_delivery(self.wire.broker, &delivery, self.wanted.batch_bytes_max, places)?;
        let whole = 1 + lines_of(bytes as usize);
        if self.wire.ring.cursor.ready() < whole {
            return Ok(Parsed::Incomplete);
        }
        let place = match announced(&delivery, places) {
            Announced::Old => {
                self.pass(whole);
                return Ok(Parsed::PassedOver);
            }
            Announced::AfterGap { missed } => {
                return Ok(Parsed::Step(Step::gap(log, missed, first_position)));
            }
            Announced::Batch(place) => place,
        };
        self.batch.resize(bytes as usize, 0);
        self.wire.ring.copy(1, &mut self.batch);
        self.pass(whole);
        places.shown(log, index, end_of(&delivery));
        match check_batch(&self.batch, &place, self.wanted, verify) {
            Ok(preamble) => Ok(Parsed::Step(Step::Batch(Pushed { place, preamble }))),
            Err(why) => Err(Error::Corrupt {
                log,
                index,
                position: first_position,
                count: place.count,
                why,
            }),
        }
    }

    /// Whether the broker said anything since the last look.
    pub(crate) fn has_heard(&mut self) -> bool {
        std::mem::take(&mut self.wire.has_heard)
    }

    /// What lay first was read: once that is much, the broker learns of it.
    fn pass(&mut self, lines: u64) {
        self.wire.ring.cursor.pass(lines);
        if self.wire.ring.cursor.is_due() {
            self.wire.say_taken(self.looked_ns);
        }
    }

    /// The payload of the batch that was found last.
    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        self.batch.get(PREAMBLE_BYTES as usize..).unwrap_or_default()
    }

    /// Makes the descriptor tell of what comes next. Whether the caller may sleep.
    pub(crate) fn arm(&mut self) -> bool {
        self.wire.arm()
    }

    /// After a sleep.
    pub(crate) fn disarm(&mut self) {
        self.wire.disarm();
    }
}

enum Parsed {
    Step(Step<Pushed>),
    /// Something that is nothing to anybody.
    PassedOver,
    /// More has to come.
    Incomplete,
}

impl AsFd for PushReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}
