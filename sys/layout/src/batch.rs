//! Batches: the preamble a publisher seals, and the messages behind it.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ids::TopicId;
use crate::limits::{BATCH_BYTES_MAX, LINE_BYTES};

/// First word of a batch: "LFB1".
pub const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"LFB1");
/// First word of padding: "LFP1". `payload_bytes` then says how far to step.
pub const PADDING_MAGIC: u32 = u32::from_le_bytes(*b"LFP1");
/// Version of preamble and message headers.
pub const BATCH_VERSION: u8 = 1;
/// Bytes of the preamble.
pub const PREAMBLE_BYTES: u32 = 64;
/// Bytes of a message header.
pub const MESSAGE_HEADER_BYTES: usize = 16;
/// Messages start at multiples of this, from the payload's first byte.
pub const MESSAGE_ALIGN: usize = 8;

/// Messages follow each other in the payload.
pub const ENCODING_PACKED: u8 = 0;
/// The payload is a list of ranges elsewhere in the pool.
pub const ENCODING_SLOTTED: u8 = 1;
/// The payload is not compressed.
pub const CODEC_NONE: u8 = 0;

/// What a publisher writes in front of each payload. Writer: the publisher, by CPU or NIC.
/// Readers: the broker that lands it, subscribers, replicators.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct BatchPreamble {
    /// [`BATCH_MAGIC`] or [`PADDING_MAGIC`].
    pub magic: u32,
    /// [`BATCH_VERSION`].
    pub version: u8,
    /// [`ENCODING_PACKED`] or [`ENCODING_SLOTTED`].
    pub encoding: u8,
    /// [`CODEC_NONE`]; lz4 and zstd have numbers 1 and 2.
    pub codec: u8,
    /// Zero.
    pub flags: u8,
    /// Topic id.
    pub topic: u32,
    /// Session epoch.
    pub session_epoch: u32,
    /// Client id.
    pub client: u64,
    /// Batch sequence in the session, from 0.
    pub batch_seq: u64,
    /// Wall clock when it was sealed, nanoseconds.
    pub sealed_ns: u64,
    /// Bytes behind the preamble.
    pub payload_bytes: u32,
    /// CRC32C of them.
    pub payload_crc: u32,
    /// Messages in them, 1 to 65,535.
    pub count: u16,
    /// Zero.
    pub reserved16: u16,
    /// Random number that the publisher drew when it began, not 0; 0 where a client has none. With
    /// it a batch on disk is known for that publisher's own, whoever else had its client id.
    pub life: u32,
    /// CRC32C of the 56 bytes before.
    pub header_crc: u32,
    /// Zero.
    pub reserved_tail: u32,
}

lines!(BatchPreamble, 1, {
    magic @ 0, version @ 4, encoding @ 5, codec @ 6, flags @ 7, topic @ 8, session_epoch @ 12,
    client @ 16, batch_seq @ 24, sealed_ns @ 32, payload_bytes @ 40, payload_crc @ 44, count @ 48,
    reserved16 @ 50, life @ 52, header_crc @ 56, reserved_tail @ 60,
});

/// What a preamble has wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchError {
    /// The first word is no batch's.
    Magic {
        /// Word found.
        found: u32,
    },
    /// The preamble's own checksum does not hold.
    HeaderCrc {
        /// Checksum claimed.
        claimed: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// Another version of the format.
    Version {
        /// Version found.
        found: u8,
    },
    /// An encoding or codec this version does not know.
    Encoding {
        /// Encoding found.
        encoding: u8,
        /// Codec found.
        codec: u8,
    },
    /// No messages.
    Empty,
    /// More bytes than the bound.
    TooLarge {
        /// Bytes claimed, preamble included.
        bytes: u64,
        /// Most that are possible.
        most: u32,
    },
    /// Fewer payload bytes than its messages' headers need.
    TooShort {
        /// Payload bytes claimed.
        bytes: u32,
        /// Messages claimed.
        count: u16,
    },
    /// The payload's checksum does not hold.
    PayloadCrc {
        /// Checksum claimed.
        claimed: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Magic { found } => {
                write!(f, "batch starts with {found:#010x}, not with {BATCH_MAGIC:#010x}")
            }
            Self::HeaderCrc { claimed, computed } => write!(
                f,
                "batch preamble claims checksum {claimed:#010x} and its bytes give {computed:#010x}"
            ),
            Self::Version { found } => {
                write!(f, "batch has format version {found}; this program knows {BATCH_VERSION}")
            }
            Self::Encoding { encoding, codec } => {
                write!(f, "batch has encoding {encoding} and codec {codec}, which nobody knows")
            }
            Self::Empty => f.write_str("batch has no messages"),
            Self::TooLarge { bytes, most } => {
                write!(f, "batch has {bytes} bytes; at most {most} are possible here")
            }
            Self::TooShort { bytes, count } => {
                write!(f, "batch claims {count} messages in {bytes} bytes of payload")
            }
            Self::PayloadCrc { claimed, computed } => write!(
                f,
                "batch claims payload checksum {claimed:#010x} and its bytes give {computed:#010x}"
            ),
        }
    }
}

impl std::error::Error for BatchError {}

impl BatchPreamble {
    /// Bytes of preamble and payload.
    pub fn batch_bytes(&self) -> u64 {
        u64::from(PREAMBLE_BYTES) + u64::from(self.payload_bytes)
    }

    /// Topic.
    pub fn topic_id(&self) -> TopicId {
        TopicId(self.topic)
    }

    /// Fills in magic, version and the header checksum; call it when all else is set.
    pub fn seal(mut self) -> Self {
        self.magic = BATCH_MAGIC;
        self.version = BATCH_VERSION;
        self.header_crc = self.compute_crc();
        self
    }

    /// A preamble that says: step over `bytes` bytes (a multiple of the line, at least one line).
    pub fn padding(bytes: u32) -> Self {
        let mut padding = Self {
            magic: PADDING_MAGIC,
            version: BATCH_VERSION,
            payload_bytes: bytes.saturating_sub(PREAMBLE_BYTES),
            ..Self::default()
        };
        padding.header_crc = padding.compute_crc();
        padding
    }

    fn compute_crc(&self) -> u32 {
        crate::batch::crc32c(&self.to_bytes()[..56])
    }

    /// Everything that can be judged from the preamble alone. `most` is the largest batch, in
    /// bytes, that the pool takes.
    pub fn check(&self, most: u32) -> Result<(), BatchError> {
        if self.magic != BATCH_MAGIC {
            return Err(BatchError::Magic { found: self.magic });
        }
        let computed = self.compute_crc();
        if self.header_crc != computed {
            return Err(BatchError::HeaderCrc { claimed: self.header_crc, computed });
        }
        if self.version != BATCH_VERSION {
            return Err(BatchError::Version { found: self.version });
        }
        if self.encoding != ENCODING_PACKED || self.codec != CODEC_NONE {
            return Err(BatchError::Encoding { encoding: self.encoding, codec: self.codec });
        }
        if self.count == 0 {
            return Err(BatchError::Empty);
        }
        let most = most.min(BATCH_BYTES_MAX);
        if self.batch_bytes() > u64::from(most) {
            return Err(BatchError::TooLarge { bytes: self.batch_bytes(), most });
        }
        if u64::from(self.payload_bytes) < u64::from(self.count) * MESSAGE_HEADER_BYTES as u64 {
            return Err(BatchError::TooShort { bytes: self.payload_bytes, count: self.count });
        }
        Ok(())
    }

    /// Whether `payload` is what the publisher sealed.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), BatchError> {
        self.check_payload_crc(crc32c(payload))
    }

    /// Whether the payload's checksum, computed elsewhere, is the one that the publisher sealed.
    pub fn check_payload_crc(&self, computed: u32) -> Result<(), BatchError> {
        if computed == self.payload_crc {
            Ok(())
        } else {
            Err(BatchError::PayloadCrc { claimed: self.payload_crc, computed })
        }
    }
}

/// CRC32C (Castagnoli) of `bytes`, RFC 3720 section 12.1.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// In front of each message. The body, key then payload, follows and is padded to 8 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct MessageHeader {
    /// Bytes of the payload, the key not counted.
    pub payload_bytes: u32,
    /// Bytes of the key, in front of the payload.
    pub key_bytes: u16,
    /// [`MESSAGE_HAS_KEY`] or zero.
    pub flags: u16,
    /// Wall clock that the publisher gave it, nanoseconds.
    pub timestamp_ns: u64,
}

/// The message has a key, be it empty.
pub const MESSAGE_HAS_KEY: u16 = 1;

const _: () = assert!(size_of::<MessageHeader>() == MESSAGE_HEADER_BYTES);

/// Bytes a message takes in a payload: header, body, padding to 8. `None` past the bounds.
pub fn message_stride(key_bytes: usize, payload_bytes: usize) -> Option<usize> {
    if key_bytes > crate::limits::KEY_BYTES_MAX {
        return None;
    }
    let body = key_bytes.checked_add(payload_bytes)?;
    (body <= crate::limits::MESSAGE_BYTES_MAX as usize)
        .then(|| MESSAGE_HEADER_BYTES + body.next_multiple_of(MESSAGE_ALIGN))
}

/// A message in a landed batch, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// What was published.
    pub payload: &'a [u8],
    /// Wall clock that the publisher gave it, nanoseconds.
    pub timestamp_ns: u64,
}

/// The messages of a packed payload, in order. Total over any bytes: it ends where a header or a
/// body would reach past the payload, and [`Messages::is_whole`] tells whether that was the end.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Messages<'a> {
    /// The `count` messages of `payload`.
    pub fn new(payload: &'a [u8], count: u16) -> Self {
        Self { rest: payload, left: count }
    }

    /// Messages not yet taken.
    pub fn left(&self) -> u16 {
        self.left
    }

    /// Whether every message promised was there and nothing is left over.
    pub fn is_whole(&self) -> bool {
        self.left == 0 && self.rest.is_empty()
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    #[inline]
    fn next(&mut self) -> Option<Message<'a>> {
        if self.left == 0 {
            return None;
        }
        let (head, body) = self.rest.split_first_chunk::<MESSAGE_HEADER_BYTES>()?;
        let header: MessageHeader = zerocopy::transmute!(*head);
        let key_bytes = usize::from(header.key_bytes);
        let whole = key_bytes + header.payload_bytes as usize;
        let taken = whole.next_multiple_of(MESSAGE_ALIGN);
        let rest = body.get(taken..)?;
        let (key, payload) = body[..whole].split_at(key_bytes);
        self.rest = rest;
        self.left -= 1;
        Some(Message {
            key: (header.flags & MESSAGE_HAS_KEY != 0).then_some(key),
            payload,
            timestamp_ns: header.timestamp_ns,
        })
    }
}

const _: () = assert!(PREAMBLE_BYTES as u64 == LINE_BYTES, "the payload starts on a line");
