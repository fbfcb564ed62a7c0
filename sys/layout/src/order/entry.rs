//! Order entries: what one says, and the line that it takes.

use crate::limits::{
    BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, BROKERS_MAX, LINE_BYTES, SEGMENT_BYTES_MAX, SEGMENTS_MAX,
};

/// Flag of an entry: nothing is at its positions and nothing ever will be. It has no bytes, no
/// segment and no ring index; broker, client and session epoch say whose the positions were.
pub const ENTRY_HOLE: u8 = 1;

/// One batch's place in a log, as programs have it; [`OrderEntry::to_words`] is its line. Writer:
/// the sequencer of that epoch (orders `total` and up), or the broker whose log it is (orders
/// `none` and `broker`). Readers: everyone.
///
/// One line, so one flush a batch. The epoch is not here: each epoch writes its own segments, and
/// their header carries it. The room it would take holds the ring index, with which a new
/// sequencer recognises slots that were ordered before the old one died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// `header_crc` of the batch's preamble, as it was when the broker landed it. No client can
    /// write it, and it binds all of the preamble and, by `payload_crc`, the payload.
    pub checksum: u32,
    /// Segment the batch lies in.
    pub segment: u32,
    /// Bytes from the start of the segment to the batch's preamble; a multiple of the line.
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

/// Bits of the segment's number; the flags lie above them, in the same three bytes.
const SEGMENT_BITS: u32 = 20;
const FLAG_BITS: u32 = 4;
/// Bits of the offset, counted in lines, and of the batch's bytes.
const OFFSET_BITS: u32 = 24;
const BYTES_BITS: u32 = 24;

const _: () = {
    assert!(SEGMENTS_MAX <= 1 << SEGMENT_BITS, "a segment's number fits");
    assert!(ENTRY_HOLE < 1 << FLAG_BITS && SEGMENT_BITS + FLAG_BITS == 24, "so do its flags");
    assert!(SEGMENT_BYTES_MAX / LINE_BYTES <= 1 << OFFSET_BITS, "any line of a segment fits");
    assert!((BATCH_BYTES_MAX as u64) < 1 << BYTES_BITS, "the largest batch fits");
    assert!(BATCH_MESSAGES_MAX <= u16::MAX as u32 && BROKERS_MAX <= 1 << 8);
};

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

const fn least(value: u64, bits: u32) -> u64 {
    if value < mask(bits) { value } else { mask(bits) }
}

impl OrderEntry {
    /// 64-byte lines that an entry takes.
    pub const LINES: usize = 1;
    /// Bytes that an entry takes.
    pub const BYTES: u64 = LINE_BYTES;
    /// 64-bit words that an entry takes.
    pub const WORDS: usize = 8;

    /// The entry as the words that lie in memory:
    ///
    /// ```text
    /// first_position 0..8 | client 8..16 | batch_seq 16..24 | landed_ns 24..32
    /// session_epoch 32..36 | ring_index 36..40 | checksum 40..44
    /// segment, 20 bits, and flags, 4 bits, 44..47 | offset in lines 47..50 | bytes 50..53
    /// count 53..55 | broker 55..56 | commit 56..64
    /// ```
    ///
    /// Total: a number that its bits cannot hold, which no batch of a pool has, becomes the
    /// largest that they can, and an offset that is no line's that of the line it is in. What is
    /// read there then has another checksum.
    #[inline]
    pub fn to_words(&self) -> [u64; Self::WORDS] {
        let segment = least(self.segment.into(), SEGMENT_BITS)
            | (u64::from(self.flags) & mask(FLAG_BITS)) << SEGMENT_BITS;
        let line = least(u64::from(self.offset) / LINE_BYTES, OFFSET_BITS);
        let bytes = least(self.bytes.into(), BYTES_BITS);
        [
            self.first_position,
            self.client,
            self.batch_seq,
            self.landed_ns,
            u64::from(self.session_epoch) | u64::from(self.ring_index) << 32,
            u64::from(self.checksum) | segment << 32 | line << 56,
            line >> 8 | bytes << 16 | u64::from(self.count) << 40 | u64::from(self.broker) << 56,
            self.commit,
        ]
    }

    /// The entry that these words say. Total: checking the values is the caller's.
    #[inline]
    pub fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [first_position, client, batch_seq, landed_ns, session, place, size, commit] = words;
        let line = place >> 56 | (size & mask(16)) << 8;
        Self {
            first_position,
            client,
            batch_seq,
            landed_ns,
            session_epoch: session as u32,
            ring_index: (session >> 32) as u32,
            checksum: place as u32,
            segment: (place >> 32 & mask(SEGMENT_BITS)) as u32,
            offset: (line * LINE_BYTES) as u32,
            bytes: (size >> 16 & mask(BYTES_BITS)) as u32,
            count: (size >> 40) as u16,
            broker: (size >> 56) as u8,
            flags: (place >> (32 + SEGMENT_BITS) & mask(FLAG_BITS)) as u8,
            commit,
        }
    }

    /// The entry as bytes, for files and for golden tests.
    pub fn to_bytes(&self) -> [u8; Self::BYTES as usize] {
        zerocopy::transmute!(self.to_words().map(u64::to_le))
    }

    /// The entry that these bytes say.
    pub fn from_bytes(bytes: [u8; Self::BYTES as usize]) -> Self {
        let words: [u64; Self::WORDS] = zerocopy::transmute!(bytes);
        Self::from_words(words.map(u64::from_le))
    }

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
