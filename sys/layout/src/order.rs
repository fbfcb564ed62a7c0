//! Order logs: entries, and the lines that say how far a log reaches.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use entry::{ENTRY_HOLE, OrderEntry};

mod entry;

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
    /// First position of what the log passed over last, when a pool was lost.
    pub skipped_from: u64,
    /// Position at which it went on then; 0: it never passed over anything.
    pub skipped_to: u64,
    /// Positions that it passed over in all: they are no messages.
    pub skipped_positions: u64,
    /// Indexes that it passed over in all: they are no batches.
    pub skipped_entries: u64,
}

lines!(ChainLine, 1, {
    oldest_index @ 0, oldest_position @ 8, head @ 16, tail @ 20, topic @ 24,
    skipped_from @ 32, skipped_to @ 40, skipped_positions @ 48, skipped_entries @ 56,
});

impl ChainLine {
    /// The positions that the log passed over last, if it ever did.
    pub fn skipped(&self) -> Option<(u64, u64)> {
        (self.skipped_to > 0).then_some((self.skipped_from, self.skipped_to))
    }
}
