//! Segment headers: what each segment is for, and how logs chain.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ids::{SegmentId, TopicId};

/// What a segment holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// Nothing: the bitmap may give it out.
    Free,
    /// Batches that one broker lands.
    Payload,
    /// The batch-header ring of one (topic, broker).
    Ring,
    /// Order entries of one log.
    OrderLog,
}

/// How far its use has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentState {
    /// Free, or being prepared.
    Idle,
    /// Its owner may write it.
    Open,
    /// Nothing more will be written into it.
    Sealed,
    /// Going back to the bitmap once nobody reads it.
    Retiring,
}

/// Owner byte of segments that control itself writes.
pub const OWNER_CONTROL: u8 = 0xff;

/// One segment's line in the header table. Writer: control. Readers: everyone.
///
/// `what` is stored last when a segment is given out and first when it is taken back, so a crash
/// between two words leaves a free segment, never one with half a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SegmentHeader {
    /// [`What`], packed.
    pub what: u64,
    /// Counts the uses of the whole pool's segments: differs for every use of this one.
    pub generation: u64,
    /// Epoch of the control that gave it out.
    pub epoch: u64,
    /// The log's segment before this one.
    pub previous: u32,
    /// The log's segment after this one.
    pub next: u32,
    /// Order log: absolute index of its first entry. Ring: absolute index its first slot had.
    pub base_index: u64,
    /// Wall clock when it was given out, nanoseconds.
    pub granted_ns: u64,
    /// Wall clock when it was sealed because its broker's process had gone, nanoseconds: publishers
    /// may still read back what they wrote there. 0: its broker sealed it, and all of it landed.
    pub sealed_ns: u64,
    /// Wall clock when a page of it could not be read any more, nanoseconds; 0: all of it can. A
    /// segment that says so is never given another use.
    pub lost_ns: u64,
}

lines!(SegmentHeader, 1, {
    what @ 0, generation @ 8, epoch @ 16, previous @ 24, next @ 28, base_index @ 32,
    granted_ns @ 40, sealed_ns @ 48, lost_ns @ 56,
});

/// The first word of a segment header, unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct What {
    /// Use.
    pub kind: SegmentKind,
    /// Stage of that use.
    pub state: SegmentState,
    /// Broker number, or [`OWNER_CONTROL`].
    pub owner: u8,
    /// Log number in the topic, for an order log.
    pub log: u8,
    /// Topic it serves.
    pub topic: TopicId,
}

impl What {
    /// A free segment.
    pub const FREE: Self = Self {
        kind: SegmentKind::Free,
        state: SegmentState::Idle,
        owner: OWNER_CONTROL,
        log: 0,
        topic: TopicId(0),
    };

    /// The word as it lies in the header.
    pub fn pack(self) -> u64 {
        if self.kind == SegmentKind::Free {
            return 0;
        }
        self.kind as u64
            | (self.state as u64) << 8
            | u64::from(self.owner) << 16
            | u64::from(self.log) << 24
            | u64::from(self.topic.0) << 32
    }

    /// What a word says; an unknown kind or state is an error that carries the word.
    pub fn unpack(word: u64) -> Result<Self, UnknownUse> {
        let kind = match word & 0xff {
            0 => return Ok(Self::FREE),
            1 => SegmentKind::Payload,
            2 => SegmentKind::Ring,
            3 => SegmentKind::OrderLog,
            _ => return Err(UnknownUse { word }),
        };
        let state = match word >> 8 & 0xff {
            0 => SegmentState::Idle,
            1 => SegmentState::Open,
            2 => SegmentState::Sealed,
            3 => SegmentState::Retiring,
            _ => return Err(UnknownUse { word }),
        };
        Ok(Self {
            kind,
            state,
            owner: (word >> 16) as u8,
            log: (word >> 24) as u8,
            topic: TopicId((word >> 32) as u32),
        })
    }
}

/// A segment header whose first word means nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownUse {
    /// The word found.
    pub word: u64,
}

impl std::fmt::Display for UnknownUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment header says {:#018x}, which is no use of a segment", self.word)
    }
}

impl std::error::Error for UnknownUse {}

impl SegmentHeader {
    /// A segment that nobody uses.
    pub const FREE: Self = Self {
        what: 0,
        generation: 0,
        epoch: 0,
        previous: SegmentId::NONE.0,
        next: SegmentId::NONE.0,
        base_index: 0,
        granted_ns: 0,
        sealed_ns: 0,
        lost_ns: 0,
    };
}
