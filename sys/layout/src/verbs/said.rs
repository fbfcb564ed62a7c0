//! Immediates: 32 bits that a receiver gets with a completion.

use std::fmt;

use super::{EXTENT_SLOTS, FRAME_RING_LINES, RECEIVES, RING_LINES_MAX, SEGMENT_SLOTS};
use crate::limits::{LINE_BYTES, SEGMENT_BYTES_MAX, SEGMENTS_MAX};

const PAYLOAD_BITS: u32 = 29;
const PAYLOAD_MASK: u32 = (1 << PAYLOAD_BITS) - 1;
const OFFSET_BITS: u32 = 24;
/// In [`Said::Reserve`]: one batch will fill them all.
const WHOLE: u32 = 1 << (PAYLOAD_BITS - 1);

/// What a client says with an immediate. A number past its bits is a bug of the sender's, and is
/// refused by [`Said::encode`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// A whole batch lies in an extent.
    Batch {
        /// Slot of the extent, below [`EXTENT_SLOTS`].
        slot: u8,
        /// Lines from the extent's start.
        line: u32,
    },
    /// Room for batches of up to so many lines, please.
    Wanted {
        /// Lines.
        lines: u32,
    },
    /// Nothing more will be written into an extent, or read from a segment.
    Done {
        /// Its slot.
        slot: u8,
    },
    /// The client lives, and has taken so many lines of its ring in all (the low 29 bits).
    Taken {
        /// Lines.
        lines: u32,
    },
    /// No more will come; everything before it counts.
    Bye,
    /// Pull: a whole batch lies in the client's memory.
    Ready {
        /// Lines from the start of the memory.
        line: u32,
    },
    /// A reader wants to read a segment.
    Segment {
        /// The segment.
        segment: u32,
    },
    /// Order `token`: positions, please.
    Reserve {
        /// Positions; at least 1, in 28 bits.
        count: u32,
        /// One batch will fill them all.
        whole: bool,
    },
}

/// An immediate that says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownImmediate(pub u32);

impl fmt::Display for UnknownImmediate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "immediate {:#010x} says nothing a client may say", self.0)
    }
}

impl std::error::Error for UnknownImmediate {}

impl Said {
    /// As an immediate; `None` when a number does not fit its bits.
    pub fn encode(self) -> Option<u32> {
        let (kind, payload) = match self {
            Self::Batch { slot, line } => {
                if line >> OFFSET_BITS != 0 || usize::from(slot) >= EXTENT_SLOTS {
                    return None;
                }
                (0, u32::from(slot) << OFFSET_BITS | line)
            }
            Self::Wanted { lines } => (1, lines),
            Self::Done { slot } => (2, slot.into()),
            Self::Taken { lines } => (3, lines & PAYLOAD_MASK),
            Self::Bye => (4, 0),
            Self::Ready { line } => (5, line),
            Self::Segment { segment } => (6, segment),
            Self::Reserve { count, whole } => {
                if count == 0 || count >= WHOLE {
                    return None;
                }
                (7, count | if whole { WHOLE } else { 0 })
            }
        };
        (payload <= PAYLOAD_MASK).then_some(kind << PAYLOAD_BITS | payload)
    }

    /// What an immediate says.
    pub fn decode(immediate: u32) -> Result<Self, UnknownImmediate> {
        let payload = immediate & PAYLOAD_MASK;
        let small = |bound: usize| {
            u8::try_from(payload)
                .ok()
                .filter(|slot| usize::from(*slot) < bound)
                .ok_or(UnknownImmediate(immediate))
        };
        Ok(match immediate >> PAYLOAD_BITS {
            0 => {
                let slot = (payload >> OFFSET_BITS) as u8;
                if usize::from(slot) >= EXTENT_SLOTS {
                    return Err(UnknownImmediate(immediate));
                }
                Self::Batch { slot, line: payload & ((1 << OFFSET_BITS) - 1) }
            }
            1 => Self::Wanted { lines: payload },
            2 => Self::Done { slot: small(EXTENT_SLOTS.max(SEGMENT_SLOTS))? },
            3 => Self::Taken { lines: payload },
            4 if payload == 0 => Self::Bye,
            5 => Self::Ready { line: payload },
            6 => Self::Segment { segment: payload },
            7 if payload & !WHOLE != 0 => {
                Self::Reserve { count: payload & !WHOLE, whole: payload & WHOLE != 0 }
            }
            _ => return Err(UnknownImmediate(immediate)),
        })
    }
}

/// The lines taken in all, from the low bits that [`Said::Taken`] carried and the number known
/// before. `None` when that would be more than the `written` lines there ever were.
pub fn taken_in_all(before: u64, low: u32, written: u64) -> Option<u64> {
    let step = low.wrapping_sub(before as u32) & PAYLOAD_MASK;
    Some(before + u64::from(step)).filter(|taken| *taken <= written)
}

/// What a broker says with an immediate: lines that were just written into the client's ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// The lines begin at the start of the ring: what was left at its end is passed over.
    pub wrapped: bool,
    /// Lines.
    pub lines: u32,
}

impl Arrived {
    /// As an immediate. Lines past [`RING_LINES_MAX`] do not exist.
    pub fn encode(self) -> u32 {
        u32::from(self.wrapped) << 31 | self.lines & (RING_LINES_MAX * 2 - 1)
    }

    /// What an immediate says.
    pub fn decode(immediate: u32) -> Self {
        Self { wrapped: immediate >> 31 == 1, lines: immediate & (RING_LINES_MAX * 2 - 1) }
    }
}

const _: () = {
    assert!(SEGMENT_BYTES_MAX / LINE_BYTES <= 1 << OFFSET_BITS, "offsets in an extent fit");
    assert!(EXTENT_SLOTS <= 1 << (PAYLOAD_BITS - OFFSET_BITS), "slots fit beside an offset");
    assert!(SEGMENTS_MAX <= 1 << PAYLOAD_BITS, "segment numbers fit");
    assert!(RING_LINES_MAX.is_power_of_two() && FRAME_RING_LINES.is_power_of_two());
    assert!(RECEIVES >= FRAME_RING_LINES, "a ring of single lines never waits for a receive");
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immediates_come_back_and_what_does_not_fit_is_not_sent() {
        let all = [
            Said::Batch { slot: 7, line: (1 << 24) - 1 },
            Said::Wanted { lines: 65_536 },
            Said::Done { slot: 15 },
            Said::Taken { lines: PAYLOAD_MASK },
            Said::Bye,
            Said::Ready { line: 12 },
            Said::Segment { segment: 1 << 20 },
            Said::Reserve { count: 1, whole: false },
            Said::Reserve { count: WHOLE - 1, whole: true },
        ];
        for said in all {
            assert_eq!(Said::decode(said.encode().unwrap()), Ok(said));
        }
        assert_eq!(Said::Batch { slot: 8, line: 0 }.encode(), None);
        assert_eq!(Said::Batch { slot: 0, line: 1 << 24 }.encode(), None);
        assert_eq!(Said::Wanted { lines: 1 << 29 }.encode(), None);
        assert_eq!(Said::Reserve { count: 0, whole: true }.encode(), None);
        assert_eq!(Said::Reserve { count: WHOLE, whole: false }.encode(), None);
        for bad in [7 << 29, 7 << 29 | WHOLE, 4 << 29 | 1, 2 << 29 | 16, 8 << 24] {
            assert_eq!(Said::decode(bad), Err(UnknownImmediate(bad)));
        }
    }

    #[test]
    fn counts_of_lines_go_on_past_their_bits() {
        assert_eq!(taken_in_all(10, 12, 20), Some(12));
        assert_eq!(taken_in_all(10, 21, 20), None, "more than was written");
        let before = u64::from(PAYLOAD_MASK) - 1;
        assert_eq!(taken_in_all(before, 3, before + 9), Some(before + 5));
        assert_eq!(taken_in_all(10, 9, 20), None, "a count never goes back");
    }

    #[test]
    fn arrivals_come_back() {
        for arrived in [Arrived { wrapped: true, lines: 3 }, Arrived { wrapped: false, lines: 0 }] {
            assert_eq!(Arrived::decode(arrived.encode()), arrived);
        }
    }
}
