//! Doubt lines: which of the batches between two of a session's were lost with a pool.
//!
//! A session's line names the first and the last (`SessionLine::is_doubtful`). What lies between
//! them may be on disk. Which of it is not stands here, in lines that a sequenced topic has no
//! other use for: those of the chains of brokers' own logs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::TopicId;
use crate::limits::DOUBT_BITS;

const WORDS: usize = (DOUBT_BITS / 64) as usize;

/// Some batches of one session of order `strong` that were ordered and are on no disk. Writer:
/// control, before it serves a pool that topics came back into. Readers: brokers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct DoubtLine {
    /// The first one's sequence.
    pub first: u64,
    /// How many follow each other from there on.
    pub run: u64,
    /// Zero.
    pub reserved: u64,
    /// Topic id.
    pub topic: u32,
    /// Index of the session's line, and 1. Beside the topic it makes a word that is no chain's.
    pub session: u32,
    /// A bit for each sequence behind the run, from the lowest bit of the first word on.
    pub bits: [u64; WORDS],
}

lines!(DoubtLine, 1, {
    first @ 0, run @ 8, reserved @ 16, topic @ 24, session @ 28, bits @ 32,
});

impl DoubtLine {
    /// Whether it is about that session of that topic.
    pub fn is_of(&self, topic: TopicId, session: u32) -> bool {
        self.topic == topic.0 && self.session == session.wrapping_add(1)
    }

    /// Whether it says that the batch of that sequence was lost.
    pub fn has(&self, seq: u64) -> bool {
        let Some(behind) = seq.checked_sub(self.first) else { return false };
        let Some(bit) = behind.checked_sub(self.run) else { return true };
        bit < DOUBT_BITS && self.bits[(bit / 64) as usize] >> (bit % 64) & 1 != 0
    }

    /// Lines that say all of `ranges`, which are ascending and apart: the first of each, and the
    /// one behind its last.
    pub fn of(topic: TopicId, session: u32, ranges: &[(u64, u64)]) -> Vec<Self> {
        let mut lines: Vec<Self> = Vec::new();
        for &(from, to) in ranges {
            let mut from = from;
            if let Some(line) = lines.last_mut() {
                let begin = line.first + line.run;
                while from < to && from - begin < DOUBT_BITS {
                    let bit = from - begin;
                    line.bits[(bit / 64) as usize] |= 1 << (bit % 64);
                    from += 1;
                }
            }
            if from < to {
                let (topic, session) = (topic.0, session.wrapping_add(1));
                lines.push(Self { first: from, run: to - from, topic, session, ..Self::default() });
            }
        }
        lines
    }

    /// Whether the batch of a sequence that the session's line calls doubtful was lost, by those
    /// of its session's `lines` that there is room for: what is in front of them may have been.
    pub fn is_lost(lines: impl Iterator<Item = Self>, seq: u64) -> bool {
        let mut begin = u64::MAX;
        for line in lines {
            if line.has(seq) {
                return true;
            }
            begin = begin.min(line.first);
        }
        seq < begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = TopicId(256);

    fn lost(lines: &[DoubtLine], to: u64) -> Vec<u64> {
        (0..to).filter(|seq| DoubtLine::is_lost(lines.iter().copied(), *seq)).collect()
    }

    #[test]
    fn lines_say_just_what_was_lost() {
        let far = 10 * DOUBT_BITS;
        let every_other: Vec<(u64, u64)> = (0..far).step_by(2).map(|seq| (seq, seq + 1)).collect();
        for ranges in [
            vec![(0, 3)],
            vec![(3, 900)],
            vec![(1, 2), (5, 7), (2000, 2500), (2502, 2503)],
            vec![(0, 1), (DOUBT_BITS - 1, DOUBT_BITS + 5)],
            every_other,
        ] {
            let lines = DoubtLine::of(TOPIC, 4, &ranges);
            let all: Vec<u64> = ranges.iter().flat_map(|(from, to)| *from..*to).collect();
            assert_eq!(lost(&lines, 3 * far), [(0..ranges[0].0).collect(), all].concat());
            assert!(lines.iter().all(|line| line.is_of(TOPIC, 4) && !line.is_of(TOPIC, 3)));
            assert!(lines.len() as u64 <= 11, "{} lines", lines.len());
        }
    }

    #[test]
    fn what_there_is_no_line_for_may_have_been_lost() {
        let lines = DoubtLine::of(TOPIC, 0, &[(0, 1), (5000, 5001), (9000, 9001)]);
        assert_eq!(lines.len(), 3);
        let left = lost(&lines[1..], 10_000);
        assert_eq!(left, (0..5001).chain([9000]).collect::<Vec<_>>());
        assert_eq!(lost(&[], 9), (0..9).collect::<Vec<_>>());
    }
}
