//! Order logs: entries, and the lines that say how far a log reaches.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Flag of an entry: nothing is at its positions and nothing ever will be. It has no bytes, no
/// segment and no ring index; broker, client and session epoch say whose the positions were.
pub const ENTRY_HOLE: u8 = 1;

/// One batch's place in a log. Writer: the sequencer of that epoch (orders `total` and up), or
/// the broker whose log it is (orders `none` and `broker`). Readers: everyone.
///
/// One line, so one flush a batch. The epoch is not here: each epoch writes its own segments, and
/// their header carries it. The room it would take holds the ring index, with which a new
/// sequencer recognises slots that were ordered before the old one died.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct OrderEntry {
    /// Position of the batch's first message.
    pub first_position: u64,
    /// Publisher's client id.
    pub client: u64,
    /// Batch sequence in the publisher's session.
    pub batch_seq: u64,
    /// Wall clock when the batch landed, nanoseconds; never less than in the entry before.
    pub landed_ns: u64,
    /// Session epoch the batch was sealed under.
    pub session_epoch: u32,
    /// Low 32 bits of the batch's absolute index in its broker's ring.
    pub ring_index: u32,
    /// Segment the batch lies in.
    pub segment: u32,
    /// Bytes from the start of the segment to the batch's preamble.
    pub offset: u32,
    /// Bytes of preamble and payload.
    pub bytes: u32,
    /// Messages.
    pub count: u16,
    /// Broker that landed the batch.
    pub broker: u8,
    /// [`ENTRY_HOLE`] or zero.
    pub flags: u8,
    /// Absolute index of this entry in its log + 1, stored last.
    pub commit: u64,
}

lines!(OrderEntry, 1, {
    first_position @ 0, client @ 8, batch_seq @ 16, landed_ns @ 24, session_epoch @ 32,
    ring_index @ 36, segment @ 40, offset @ 44, bytes @ 48, count @ 52, broker @ 54, flags @ 55,
    commit @ 56,
});

impl OrderEntry {
    /// Whether nothing is at its positions.
    #[inline]
    pub fn is_hole(&self) -> bool {
        self.flags & ENTRY_HOLE != 0
    }

    /// Position just past the batch's last message.
    pub fn end_position(&self) -> u64 {
        self.first_position.saturating_add(u64::from(self.count))
    }
}

/// How far a log reaches. Writer: the log's writer. Readers: everyone.
///
/// For the ring of a sequenced topic the same line says how many slots the broker has landed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct FrontierLine {
    /// Entries (or slots) committed: the absolute index of the next one. Stored last in a burst.
    pub entries: u64,
    /// Position of the next message.
    pub position: u64,
    /// Bytes of all batches so far.
    pub bytes: u64,
    /// Wall clock of the last advance, nanoseconds.
    pub at_ns: u64,
    /// Topic id these numbers are about, stored last when a log begins.
    pub topic: u64,
    /// Sequenced log: entries written, of which the frontier may not have passed the last. Where
    /// the next leader seals the log. A broker's own log: the entries there were before the
    /// last advance.
    pub written: u64,
    /// Bytes of all batches in them.
    pub written_bytes: u64,
    /// Zero.
    pub reserved: u64,
}

lines!(FrontierLine, 1, {
    entries @ 0, position @ 8, bytes @ 16, at_ns @ 24, topic @ 32, written @ 40,
    written_bytes @ 48, reserved @ 56,
});

impl FrontierLine {
    /// Offset of `bytes` in the line.
    pub const BYTES_AT: u64 = 16;
    /// Offset of `written` in the line.
    pub const WRITTEN_AT: u64 = 40;
    /// Offset of `written_bytes` in the line.
    pub const WRITTEN_BYTES_AT: u64 = 48;
}

/// A log's chain of segments and what retention has left of it. Writer: control. Readers: all.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ChainLine {
    /// Absolute index of the oldest entry that may still be read. Moved before anything is freed.
    pub oldest_index: u64,
    /// Position of that entry's first message.
    pub oldest_position: u64,
    /// First segment of the chain.
    pub head: u32,
    /// Last segment of the chain.
    pub tail: u32,
    /// Topic id, stored last when a log begins.
    pub topic: u64,
    /// Position at which the log went on after the pool before this one was lost; 0: it never was.
    pub restored_position: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

lines!(ChainLine, 1, {
    oldest_index @ 0, oldest_position @ 8, head @ 16, tail @ 20, topic @ 24,
    restored_position @ 32, reserved @ 40,
});
