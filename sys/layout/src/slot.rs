//! Batch-header rings: how a broker shows landed batches to the sequencer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One landed batch. Writer: the broker that owns the ring. Readers: the sequencer, recovery.
///
/// The first line is written and, where the pool asks for it, flushed before the commit word in
/// the second: two lines may reach other hosts in either order, one line cannot tear.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct RingSlot {
    /// Publisher's client id.
    pub client: u64,
    /// Batch sequence in the publisher's session.
    pub batch_seq: u64,
    /// Session epoch the batch was sealed under.
    pub session_epoch: u32,
    /// Index of the session's line.
    pub session: u32,
    /// Segment the batch lies in.
    pub segment: u32,
    /// Bytes from the start of the segment to the batch's preamble; a multiple of the line.
    pub offset: u32,
    /// Bytes of preamble and payload.
    pub bytes: u32,
    /// Messages.
    pub count: u16,
    /// [`SLOT_PADDING`] or zero.
    pub flags: u16,
    /// Wall clock when the batch had landed, nanoseconds.
    pub landed_ns: u64,
    /// Topic id.
    pub topic: u32,
    /// `header_crc` of the batch's preamble, as the broker loaded it; it becomes the entry's.
    pub checksum: u32,
    /// Generation of the segment, so that a slot of an earlier use of it is recognised.
    pub segment_generation: u64,
    /// Wall clock when the publisher sealed it, nanoseconds.
    pub sealed_ns: u64,
    /// Zero.
    pub reserved: [u64; 6],
    /// Absolute index + 1, stored last: a lap, a tear or old bytes never look committed.
    pub commit: u64,
}

/// The slot carries nothing: a claim was dropped after its index had been given out.
pub const SLOT_PADDING: u16 = 1;

lines!(RingSlot, 2, {
    client @ 0, batch_seq @ 8, session_epoch @ 16, session @ 20, segment @ 24, offset @ 28,
    bytes @ 32, count @ 36, flags @ 38, landed_ns @ 40, topic @ 48, checksum @ 52,
    segment_generation @ 56, sealed_ns @ 64, reserved @ 72, commit @ 120,
});

/// Where the ring of one (topic, broker) is. Writer: control. Reader: that broker.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct RingLine {
    /// Topic id the ring serves, stored last; any other id means: no ring.
    pub topic: u64,
    /// Segment that holds the slots, beside rings of other topics of the broker.
    pub segment: u32,
    /// Slots, a power of two.
    pub slots: u32,
    /// Generation of that segment.
    pub generation: u64,
    /// Bytes from the segment's beginning to the first slot, a multiple of the ring's bytes.
    pub offset: u64,
    /// Zero.
    pub reserved: [u64; 4],
}

lines!(RingLine, 1, {
    topic @ 0, segment @ 8, slots @ 12, generation @ 16, offset @ 24, reserved @ 32,
});

impl RingLine {
    /// The bytes of its segment that the slots lie in; as far as they go where the line is damaged.
    pub fn range(&self) -> std::ops::Range<u64> {
        let bytes = u64::from(self.slots) * RingSlot::BYTES;
        self.offset..self.offset.saturating_add(bytes)
    }
}

/// How far a ring is consumed. Writer: the sequencer. Reader: the ring's broker.
///
/// `through` is the contiguous minimum: every slot below it is ordered or dropped. A slot in a
/// hold buffer (order `token`) keeps its place, so that a new sequencer finds it again.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ConsumedLine {
    /// Topic id, stored after `through` when a ring begins.
    pub topic: u64,
    /// Absolute index of the first slot that is still needed.
    pub through: u64,
    /// Zero.
    pub reserved: [u64; 6],
}

lines!(ConsumedLine, 1, { topic @ 0, through @ 8, reserved @ 16 });
