//! Session lines: what the sequencer says of each publisher's identity.

use std::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// The line is unused.
    Free,
    /// Its batches are ordered.
    Active,
    /// A gap outlived the lease: nothing after the gap is ever ordered in this epoch.
    Fenced,
    /// The publisher said goodbye; the line may be used again when lines run out.
    Closed,
}

/// A session's line. Writer: the sequencer. Readers: brokers, tools.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SessionLine {
    /// [`Standing`], packed; stored last.
    pub standing: u64,
    /// The publisher's client id.
    pub client: u64,
    /// Batch sequence expected next: everything below it is ordered, or was never sent.
    pub next_seq: u64,
    /// Topic id.
    pub topic: u32,
    /// The epoch that `opened_by` opened. Stored before it, and so no line that was being changed
    /// when its writer died names a request beside an epoch that it did not open.
    pub opened_epoch: u32,
    /// Wall clock when it was opened, nanoseconds.
    pub opened_ns: u64,
    /// The broker's request that opened `opened_epoch`: asked again, of this control or of the next
    /// one, it is answered with that epoch and opens no other. 0: not known.
    pub opened_by: u64,
    /// Which sequences were ordered in a pool that was lost, and are in no file: [`LostSeqs`].
    /// Written when the topic came back, and the same for as long as the line is the client's.
    pub lost: [u64; 2],
}

lines!(SessionLine, 1, {
    standing @ 0, client @ 8, next_seq @ 16, topic @ 24, opened_epoch @ 28,
    opened_ns @ 32, opened_by @ 40, lost @ 48,
});

/// Epoch and state of a session in one word, so that a broker reads both at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Session epoch, from 1.
    pub epoch: u32,
    /// State in that epoch.
    pub state: SessionState,
}

impl Standing {
    /// The word as it lies in the line.
    pub fn pack(self) -> u64 {
        u64::from(self.epoch) | (self.state as u64) << 32
    }

    /// What a word says; an unknown state reads as fenced, the one that stops everything.
    pub fn unpack(word: u64) -> Self {
        let state = match word >> 32 {
            0 => SessionState::Free,
            1 => SessionState::Active,
            3 => SessionState::Closed,
            _ => SessionState::Fenced,
        };
        Self { epoch: word as u32, state }
    }
}

/// Sequences below `next_seq` of which no file has anything, as two words: each bit is for as many
/// sequences as it takes for 64 bits to reach from the first to the last. Up to 64 sequences apart
/// that is exact; further apart, a bit also names sequences beside a lost one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LostSeqs {
    /// The first, and above it how many bits a bit is shifted for the sequences it names.
    first: u64,
    bits: u64,
}

/// Bits of the first word that are the sequence.
const SEQ_BITS: u32 = 58;

impl LostSeqs {
    /// Of ranges that ascend and do not meet. Where a sequence has more bits than the word keeps,
    /// which no publisher counts to, none is named.
    pub fn of(ranges: &[Range<u64>]) -> Self {
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
            return Self::default();
        };
        let (start, apart) = (first.start, last.end.saturating_sub(first.start));
        if last.end >> SEQ_BITS != 0 || apart == 0 {
            return Self::default();
        }
        let shift = apart.div_ceil(64).next_power_of_two().trailing_zeros();
        let mut bits = 0;
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            for bit in (range.start - start) >> shift..=(range.end - 1 - start) >> shift {
                bits |= 1 << bit;
            }
        }
        Self { first: start | u64::from(shift) << SEQ_BITS, bits }
    }

    /// What a line says.
    pub fn from_words([first, bits]: [u64; 2]) -> Self {
        Self { first, bits }
    }

    /// The words of a line.
    pub fn to_words(self) -> [u64; 2] {
        [self.first, self.bits]
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// Whether that sequence is lost, or may be.
    pub fn has(self, seq: u64) -> bool {
        let shift = self.first >> SEQ_BITS;
        let start = self.first & ((1 << SEQ_BITS) - 1);
        let bit = seq.checked_sub(start).map_or(64, |apart| apart >> shift);
        bit < 64 && self.bits >> bit & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn named(ranges: &[Range<u64>], of: Range<u64>) -> Vec<u64> {
        let lost = LostSeqs::from_words(LostSeqs::of(ranges).to_words());
        of.filter(|seq| lost.has(*seq)).collect()
    }

    #[test]
    fn sequences_that_are_close_are_named_exactly() {
        assert_eq!(named(&[3..4, 5..7, 66..67], 0..200), [3, 5, 6, 66]);
        assert_eq!(named(from_ref(&(0..64)), 0..200), (0..64).collect::<Vec<_>>());
        assert_eq!(named(&[], 0..200), [0; 0]);
        assert!(LostSeqs::default().is_empty() && !LostSeqs::of(from_ref(&(0..1))).is_empty());
    }

    #[test]
    fn sequences_that_are_far_apart_are_all_named_and_none_outside() {
        let named = named(&[10..11, 900..1000], 0..2000);
        assert!(named.starts_with(&[10, 11]) && named.ends_with(&[998, 999, 1000, 1001]));
        assert!((900..1000).all(|seq| named.contains(&seq)) && !named.contains(&500));
        let all = LostSeqs::of(&[0..1, (1 << 57)..(1 << 57) + 1]);
        assert!(all.has(0) && all.has(1 << 57) && !all.has(1 << 56));
        assert!(LostSeqs::of(from_ref(&(0..1 << 58))).is_empty(), "nobody counts that far");
    }
}
