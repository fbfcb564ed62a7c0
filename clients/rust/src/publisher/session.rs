//! Sealed batches that have no receipt yet, in the order of their sequences.
//!
//! A pure value: no memory of the pool, no socket, no clock. Sequences follow each other without
//! holes, so a batch is found by its distance from the first.

use std::collections::VecDeque;

use landfall_pool::slab::SlabBuffer;

/// Where a sealed batch's bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// In a granted extent.
    Extent(Location),
    /// In private memory: 64 bytes for the preamble, then the payload.
    Buffer(Vec<u8>),
    /// The same, in memory that NICs send from.
    Slab(Slot),
    /// Nowhere any more: the batch has settled.
    Gone,
}

impl Bytes {
    /// The batch, where it lies in memory of our own.
    #[inline]
    pub(crate) fn private(&self) -> Option<&[u8]> {
        match self {
            Self::Buffer(buffer) => Some(buffer),
            Self::Slab(slot) => Some(slot.batch()),
            Self::Extent(_) | Self::Gone => None,
        }
    }

    /// The same, to put the preamble in front.
    #[inline]
    pub(crate) fn private_mut(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Buffer(buffer) => Some(buffer),
            Self::Slab(slot) => Some(slot.batch_mut()),
            Self::Extent(_) | Self::Gone => None,
        }
    }
}

/// A batch in memory that NICs send from.
pub(crate) struct Slot {
    pub(crate) buffer: SlabBuffer,
    /// Bytes of preamble and payload.
    bytes: usize,
    /// Work request that sends it, on the connection that has it: the buffer is not used again
    /// before that has completed. 0: none does.
    pub(crate) post: u64,
}

impl Slot {
    /// The first `bytes` bytes of `buffer` are a batch.
    pub(crate) fn new(buffer: SlabBuffer, bytes: usize) -> Self {
        let bytes = bytes.min(buffer.len());
        Self { buffer, bytes, post: 0 }
    }

    /// Preamble and payload.
    #[inline]
    pub(crate) fn batch(&self) -> &[u8] {
        &self.buffer[..self.bytes]
    }

    #[inline]
    pub(crate) fn batch_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.bytes]
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("at", &self.buffer.at()).finish_non_exhaustive()
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.batch() == other.batch()
    }
}

impl Eq for Slot {}

/// A place in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: u32,
    pub(crate) generation: u64,
    /// Bytes from the start of the segment to the preamble.
    pub(crate) offset: u32,
}

/// A batch whose messages are all in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) lane: u8,
    /// Its number in the lane.
    pub(crate) number: u64,
    pub(crate) count: u16,
    pub(crate) payload_bytes: u32,
    pub(crate) payload_crc: u32,
    pub(crate) bytes: Bytes,
    /// Connection that its extent belongs to.
    pub(crate) link: usize,
    /// Extent it lies in.
    pub(crate) extent: u32,
    /// Order `token`: position of its first message, once it has one.
    pub(crate) position: Option<u64>,
}

impl Filled {
    /// Bytes of preamble and payload.
    pub(crate) fn batch_bytes(&self) -> u64 {
        64 + u64::from(self.payload_bytes)
    }
}

/// A batch with a sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) filled: Filled,
    pub(crate) sealed_ns: u64,
    settled: bool,
}

/// The batches.
#[derive(Debug, Default)]
pub(crate) struct Session {
    first_seq: u64,
    batches: VecDeque<Sealed>,
    unsettled: usize,
    /// Sequence of the first batch that has to be sent again; those from it on go first.
    resend_from: Option<u64>,
}

impl Session {
    /// The sequence of the next batch that is sealed.
    pub(crate) fn next_seq(&self) -> u64 {
        self.first_seq + self.batches.len() as u64
    }

    /// Sequences from the first batch that is still here on.
    pub(crate) fn span(&self) -> u64 {
        self.batches.len() as u64
    }

    /// Whether every batch has settled.
    pub(crate) fn is_empty(&self) -> bool {
        self.unsettled == 0
    }

    /// Adds a batch that was just sealed under [`next_seq`](Self::next_seq).
    pub(crate) fn push(&mut self, filled: Filled, sealed_ns: u64) {
        self.batches.push_back(Sealed { filled, sealed_ns, settled: false });
        self.unsettled += 1;
    }

    /// Adds a batch that waits to be sent behind what waits already.
    pub(crate) fn push_unsent(&mut self, filled: Filled, sealed_ns: u64) {
        let seq = self.next_seq();
        self.push(filled, sealed_ns);
        self.resend_from.get_or_insert(seq);
    }

    /// Batches that wait to be sent, and settled ones among them.
    pub(crate) fn unsent(&self) -> u64 {
        self.resend_from.map_or(0, |from| self.next_seq().saturating_sub(from))
    }

    /// Whether the last batch waits to be sent and lies in memory of our own.
    pub(crate) fn is_last_private(&self) -> bool {
        self.unsent() > 0
            && self.batches.back().is_some_and(|batch| batch.filled.bytes.private().is_some())
    }

    /// From `from` on, the first batch that has no position: its sequence and its messages.
    pub(crate) fn next_without_position(&self, from: u64) -> Option<(u64, u16)> {
        let skip = usize::try_from(from.saturating_sub(self.first_seq)).ok()?;
        let waits = |batch: &&Sealed| !batch.settled && batch.filled.position.is_none();
        let at = skip + self.batches.iter().skip(skip).position(|batch| waits(&batch))?;
        Some((self.first_seq + at as u64, self.batches[at].filled.count))
    }

    /// No batch has a position now.
    pub(crate) fn forget_positions(&mut self) {
        self.batches.iter_mut().for_each(|batch| batch.filled.position = None);
    }

    /// The batch of that sequence, unless it has settled.
    pub(crate) fn get(&self, seq: u64) -> Option<&Sealed> {
        let at = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        self.batches.get(at).filter(|batch| !batch.settled)
    }

    /// The batch of that sequence, to change it.
    pub(crate) fn get_mut(&mut self, seq: u64) -> Option<&mut Sealed> {
        let at = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        self.batches.get_mut(at).filter(|batch| !batch.settled)
    }

    /// Takes out what is left of a batch that has its receipt. `None` when it had settled before
    /// or never was: receipts may come twice.
    pub(crate) fn settle(&mut self, seq: u64) -> Option<(Filled, u64)> {
        let batch = self.get_mut(seq)?;
        batch.settled = true;
        let sealed_ns = batch.sealed_ns;
        let bytes = std::mem::replace(&mut batch.filled.bytes, Bytes::Gone);
        let filled = Filled { bytes, ..batch.filled };
        self.unsettled -= 1;
        while self.batches.front().is_some_and(|batch| batch.settled) {
            self.batches.pop_front();
            self.first_seq += 1;
        }
        Some((filled, sealed_ns))
    }

    /// Sequences of all batches without a receipt.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = u64> + '_ {
        (self.first_seq..)
            .zip(&self.batches)
            .filter(|(_, batch)| !batch.settled)
            .map(|(seq, _)| seq)
    }

    /// Everything without a receipt has to be sent again.
    pub(crate) fn resend(&mut self) {
        self.resend_from = (!self.is_empty()).then_some(self.first_seq);
    }

    /// The next batch to send again, if there is one.
    pub(crate) fn next_resend(&mut self) -> Option<u64> {
        let mut seq = self.resend_from?;
        while seq < self.next_seq() {
            if self.get(seq).is_some() {
                self.resend_from = Some(seq);
                return Some(seq);
            }
            seq += 1;
        }
        self.resend_from = None;
        None
    }

    /// No connection sends any batch now.
    pub(crate) fn nothing_is_sent(&mut self) {
        for batch in &mut self.batches {
            if let Bytes::Slab(slot) = &mut batch.filled.bytes {
                slot.post = 0;
            }
        }
    }

    /// The batch that [`next_resend`](Self::next_resend) named is on its way.
    pub(crate) fn resent(&mut self, seq: u64) {
        self.resend_from = Some(seq + 1);
    }

    /// Goes on at `next_seq`: nothing from there on is in the log, and what waits there gets the
    /// sequences from there on, in its order and without a hole. A batch among it that has settled
    /// is sent no more, and would be waited for. What waits below keeps its sequence.
    pub(crate) fn go_on_at(&mut self, next_seq: u64) {
        let below = next_seq.saturating_sub(self.first_seq).min(self.span());
        let rest = self.batches.split_off(below as usize);
        self.batches.extend(rest.into_iter().filter(|batch| !batch.settled));
        if below == 0 {
            self.first_seq = next_seq;
        }
        self.resend();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(number: u64) -> Filled {
        Filled {
            lane: 1,
            number,
            count: 1,
            payload_bytes: 16,
            payload_crc: 0,
            bytes: Bytes::Buffer(vec![0; 80]),
            link: 0,
            extent: 0,
            position: None,
        }
    }

    fn session(batches: u64) -> Session {
        let mut session = Session::default();
        (0..batches).for_each(|number| session.push(filled(number), 1));
        session
    }

    #[test]
    fn receipts_in_any_order_release_each_batch_once() {
        let mut session = session(4);
        assert_eq!(session.settle(2).unwrap().0.number, 2);
        assert_eq!(session.settle(2), None);
        assert_eq!(session.first_seq, 0);
        assert_eq!(session.settle(0).unwrap().0.number, 0);
        assert_eq!(session.first_seq, 1);
        assert_eq!(session.unsettled().collect::<Vec<_>>(), [1, 3]);
        assert!(session.settle(1).is_some());
        assert_eq!(session.first_seq, 3);
        assert!(session.settle(3).is_some());
        assert!(session.is_empty());
        assert_eq!(session.next_seq(), 4);
        assert_eq!(session.settle(u64::MAX), None);
    }

    #[test]
    fn what_has_no_receipt_is_sent_again_in_order() {
        let mut session = session(5);
        session.settle(1);
        session.settle(0);
        session.settle(3);
        session.resend();
        let mut order = Vec::new();
        while let Some(seq) = session.next_resend() {
            order.push(seq);
            session.resent(seq);
        }
        assert_eq!(order, [2, 4]);
        assert_eq!(session.next_resend(), None);
    }

    #[test]
    fn batches_wait_for_positions_in_their_order() {
        let mut session = session(1);
        session.push_unsent(filled(1), 1);
        session.push_unsent(filled(2), 1);
        assert_eq!((session.unsent(), session.next_resend()), (2, Some(1)));
        assert!(session.is_last_private());
        session.get_mut(0).unwrap().filled.position = Some(7);
        assert_eq!(session.next_without_position(0), Some((1, 1)));
        assert_eq!(session.next_without_position(2), Some((2, 1)));
        assert_eq!(session.next_without_position(3), None);
        session.forget_positions();
        session.settle(0);
        assert_eq!(session.next_without_position(0), Some((1, 1)));
        session.resent(1);
        session.resent(2);
        assert_eq!((session.unsent(), session.is_last_private()), (0, false));
    }

    /// The batches that are sent, as their sequence and number.
    fn sent(session: &mut Session) -> Vec<(u64, u64)> {
        let mut sent = Vec::new();
        while let Some(seq) = session.next_resend() {
            sent.push((seq, session.get(seq).unwrap().filled.number));
            session.resent(seq);
        }
        sent
    }

    #[test]
    fn what_is_sent_to_a_log_that_has_less_of_it_has_no_hole() {
        // Batches 1, 3 and 5 wait; 0, 2 and 4 have settled.
        let settled = || {
            let mut session = session(6);
            [0, 2, 4].into_iter().for_each(|seq| drop(session.settle(seq)));
            session
        };
        for (next_seq, expected) in [
            (0, [(0, 1), (1, 3), (2, 5)]),
            (1, [(1, 1), (2, 3), (3, 5)]),
            (2, [(1, 1), (2, 3), (3, 5)]),
            (4, [(1, 1), (3, 3), (4, 5)]),
            (6, [(1, 1), (3, 3), (5, 5)]),
        ] {
            let mut session = settled();
            session.go_on_at(next_seq);
            let end = expected[2].0 + 1;
            assert_eq!((session.unsettled().count(), session.next_seq()), (3, end), "{next_seq}");
            assert_eq!(sent(&mut session), expected, "{next_seq}");
            assert!(expected.into_iter().all(|(seq, _)| session.settle(seq).is_some()));
            assert!(session.is_empty() && session.first_seq == end);
        }
        let mut empty = Session::default();
        empty.go_on_at(40);
        assert_eq!((empty.first_seq, empty.next_seq(), empty.next_resend()), (40, 40, None));
    }

    #[test]
    fn a_batch_that_settles_before_its_turn_is_not_sent_again() {
        let mut session = session(3);
        session.resend();
        assert_eq!(session.next_resend(), Some(0));
        session.settle(0);
        session.settle(1);
        assert_eq!(session.next_resend(), Some(2));
        session.settle(2);
        assert_eq!(session.next_resend(), None);
    }
}
