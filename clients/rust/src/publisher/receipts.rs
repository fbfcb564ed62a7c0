//! What a publisher is told about its batches, and what it tells its user.

use std::collections::VecDeque;

use landfall_layout::frame::Reached;

use crate::error::Error;

/// Receipts kept for [`Publisher::take_receipts`](super::Publisher::take_receipts); the oldest are
/// dropped when nobody takes them.
pub(crate) const RECEIPTS_KEPT: usize = 1 << 16;

/// Outcomes kept for each lane's tickets. Twice what a connection may have in flight.
const OUTCOMES_KEPT: usize = 1024;

/// How urgent a message is. High overtakes normal and normal overtakes low in what waits to be
/// sealed; what is sealed keeps its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Lane {
    /// First.
    High,
    /// Second.
    #[default]
    Normal,
    /// Last.
    Low,
}

/// Lanes of a publisher.
pub(crate) const LANES: usize = 3;

impl Lane {
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// Names a published message, to wait for its receipt.
///
/// A batch gets its sequence when it is sealed, so the ticket names the batch by its lane and its
/// number there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ticket {
    pub(crate) batch: u64,
    pub(crate) lane: u8,
    pub(crate) index: u16,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Receipt {
    /// Level it reached.
    pub reached: Reached,
    /// Its position, when it is known: a batch that was sent twice has one, but this copy's
    /// receipt does not say it.
    pub position: Option<u64>,
    /// Wall clock when its batch landed, nanoseconds; 0 when that is not known.
    pub landed_ns: u64,
    /// Sequence of its batch, when it is known.
    pub batch_seq: Option<u64>,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BatchReceipt {
    /// Its sequence.
    pub batch_seq: u64,
    /// Position of its first message, when it is known.
    pub first_position: Option<u64>,
    /// Its messages.
    pub count: u16,
    /// Level it reached.
    pub reached: Reached,
    /// Wall clock when it landed, nanoseconds; 0 when that is not known.
    pub landed_ns: u64,
    /// Wall clock when it was last sealed, nanoseconds.
    pub sealed_ns: u64,
    /// Wall clock when the receipt was taken, nanoseconds.
    pub acked_ns: u64,
}

/// What has reached the level that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Acked {
    /// Batches.
    pub batches: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of them, preambles included.
    pub bytes: u64,
}

/// Batches that are lost although they were ordered, and that the user was not told of yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spoilt {
    batches: u64,
    messages: u64,
    first_seq: Option<u64>,
}

impl Spoilt {
    pub(crate) fn add(&mut self, batch_seq: u64, count: u16) {
        self.batches += 1;
        self.messages += u64::from(count);
        let first = self.first_seq.get_or_insert(batch_seq);
        *first = batch_seq.min(*first);
    }

    /// The error that tells of them, once.
    pub(crate) fn tell(&mut self) -> Result<(), Error> {
        let Self { batches, messages, first_seq } = std::mem::take(self);
        match first_seq {
            Some(first_seq) => Err(Error::Spoilt { batches, messages, first_seq }),
            None => Ok(()),
        }
    }
}

/// What a publisher has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct PublisherStats {
    /// Batches sealed.
    pub batches: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of them, preambles included.
    pub bytes: u64,
    /// Batches sent again after a connection was lost or a session fenced.
    pub resubmitted: u64,
    /// Times it connected again.
    pub reconnects: u64,
    /// Times a broker said why nothing moves.
    pub stalls: u64,
}

/// The latest receipts, oldest first.
#[derive(Debug, Default)]
pub(crate) struct ReceiptRing {
    ring: VecDeque<BatchReceipt>,
}

impl ReceiptRing {
    pub(crate) fn push(&mut self, receipt: BatchReceipt) {
        if self.ring.len() == RECEIPTS_KEPT {
            self.ring.pop_front();
        }
        self.ring.push_back(receipt);
    }

    pub(crate) fn take(&mut self, into: &mut Vec<BatchReceipt>) {
        into.extend(self.ring.drain(..));
    }
}

/// What became of one lane's latest batches, by their number in the lane.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    slots: Vec<Option<Outcome>>,
}

/// What became of one batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    pub(crate) number: u64,
    pub(crate) batch_seq: u64,
    pub(crate) first_position: Option<u64>,
    pub(crate) landed_ns: u64,
    pub(crate) reached: Reached,
}

/// What is known of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Known {
    /// Nothing yet.
    Pending,
    /// All.
    Settled(Outcome),
    /// It settled so long ago that the details are forgotten.
    Forgotten,
}

impl Outcomes {
    pub(crate) fn record(&mut self, outcome: Outcome) {
        if self.slots.is_empty() {
            self.slots.resize(OUTCOMES_KEPT, None);
        }
        let slot = &mut self.slots[outcome.number as usize % OUTCOMES_KEPT];
        // With several brokers a later batch may settle first; the earlier one must not then
        // make it look pending again.
        if slot.is_none_or(|known| known.number <= outcome.number) {
            *slot = Some(outcome);
        }
    }

    pub(crate) fn look(&self, number: u64) -> Known {
        match self.slots.get(number as usize % OUTCOMES_KEPT).copied().flatten() {
            Some(outcome) if outcome.number == number => Known::Settled(outcome),
            Some(outcome) if outcome.number > number => Known::Forgotten,
            _ => Known::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(number: u64) -> Outcome {
        Outcome {
            number,
            batch_seq: number + 7,
            first_position: Some(10 * number),
            landed_ns: 1,
            reached: Reached::Ordered,
        }
    }

    #[test]
    fn an_outcome_is_pending_then_known_then_forgotten() {
        let mut outcomes = Outcomes::default();
        assert_eq!(outcomes.look(3), Known::Pending);
        outcomes.record(outcome(3));
        assert_eq!(outcomes.look(3), Known::Settled(outcome(3)));
        assert_eq!(outcomes.look(4), Known::Pending);
        outcomes.record(outcome(3 + OUTCOMES_KEPT as u64));
        assert_eq!(outcomes.look(3), Known::Forgotten);
        outcomes.record(outcome(3));
        assert_eq!(outcomes.look(3), Known::Forgotten);
    }

    #[test]
    fn the_ring_of_receipts_drops_the_oldest() {
        let mut ring = ReceiptRing::default();
        for batch_seq in 0..RECEIPTS_KEPT as u64 + 5 {
            ring.push(BatchReceipt {
                batch_seq,
                first_position: None,
                count: 1,
                reached: Reached::Landed,
                landed_ns: 0,
                sealed_ns: 0,
                acked_ns: 0,
            });
        }
        let mut taken = Vec::new();
        ring.take(&mut taken);
        assert_eq!((taken.len(), taken[0].batch_seq), (RECEIPTS_KEPT, 5));
        ring.take(&mut taken);
        assert_eq!(taken.len(), RECEIPTS_KEPT);
    }
}
