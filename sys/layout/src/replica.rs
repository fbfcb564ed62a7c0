//! Replicas on disk: a replica's line in the pool, its files, and the records in them.
//!
//! ```text
//! DATA/<topic name>/<created_ns>/topic.json            the topic, in words
//! DATA/<topic name>/<created_ns>/b<source>/<first index, 20 digits>.replica
//!
//! file:   header, 4096 bytes | record | record | ...
//! record: RecordHeader, 64 | OrderEntry, 64 | preamble, 64 | payload | zeros to 64     (batch)
//!         RecordHeader, 64 | FrontierLine, 64                                          (frontier)
//!         RecordHeader, 64 | OrderEntry, 64                                            (hole)
//! ```
//!
//! A topic is known by its name and the time it was created, since its id says nothing once the
//! pool is gone. A record says where in its file it lies, how many entries came before it and
//! whose it is, so one that is found where it does not belong is never believed. Checksums: the
//! record's covers its two lines and the preamble, and the preamble's `payload_crc` the payload.
//!
//! Behind bytes that do not hold the next record is looked for line by line, and then payloads
//! are looked at too, which publishers made. No publisher can make a record: each carries its
//! file's *mark*, 48 bits that are drawn when the file is begun and that no client is told. A copy
//! of a record lies at another byte, or in a file of another mark.
//!
//! The header stands twice in its page, so that one damaged sector does not take it.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::batch::crc32c;
use crate::ids::BrokerId;
use crate::limits::{LINE_BYTES, TOPIC_NAME_BYTES_MAX};

mod record;

pub use record::*;

/// First word of a replica file: "LFREPLIC".
pub const REPLICA_MAGIC: u64 = u64::from_le_bytes(*b"LFREPLIC");
/// Version of the files. Any change of their layout changes it.
pub const REPLICA_VERSION: u32 = 3;
/// Bytes in front of a file's first record.
pub const REPLICA_HEADER_BYTES: u64 = 4096;
/// Byte of a file at which its header stands once more.
pub const HEADER_COPY_AT: u64 = 2048;
/// A header that was put together again from a file's name and records does not know the log.
pub const LOG_UNKNOWN: u8 = u8::MAX;
/// Bits of a file's mark.
const MARK_BITS: u32 = 48;
/// No file came before this one.
pub const NO_FILE: u64 = u64::MAX;

/// What a replica's broker says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaState {
    /// Nothing is known: the broker that keeps it has not begun.
    Absent,
    /// It follows its log.
    Well,
    /// It stopped for good at `durable`: a sync, a write or a checksum failed. Only the broker's
    /// next start, which reads again what is really there, changes that.
    Failed,
    /// The disk is full, or descriptors or memory are short: the error number says which. Tried
    /// again; nothing is skipped.
    Full,
}

impl ReplicaState {
    /// The state as the line carries it.
    pub fn raw(self) -> u32 {
        self as u32
    }

    /// The state that a line says; anything unknown is absent.
    pub fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Well,
            2 => Self::Failed,
            3 => Self::Full,
            _ => Self::Absent,
        }
    }

    /// Its name, as the API shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Well => "well",
            Self::Failed => "failed",
            Self::Full => "full",
        }
    }
}

/// How far one disk replica of one broker's batches is. Writer: the broker whose line it is, the
/// replica's home or one that stands in for it. Readers: everyone.
///
/// Both indexes count the log and not the source's entries: every batch and every hole of the
/// source whose entry is below them is there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ReplicaLine {
    /// Log index below which everything of the source is on stable storage. Stored last when the
    /// line moves.
    pub durable: u64,
    /// Log index below which everything of the source is written, maybe not synced.
    pub written: u64,
    /// Bytes of the batches below `written`.
    pub bytes: u64,
    /// Log index that the replica's files have to reach, so that they have everything below
    /// `durable`: behind the last of the source's entries there, or behind a hole.
    /// [`TAIL_UNKNOWN`]: nobody ever looked at the files in this pool.
    pub tail: u64,
    /// Topic id these numbers are about, stored last when the line begins. The line of a stand-in
    /// has a [`stand_in_key`](crate::keepers::stand_in_key).
    pub topic: u64,
    /// A [`ReplicaState`].
    pub state: u32,
    /// The system's error number behind a state that is not well; 0: none.
    pub errno: u32,
    /// Incarnation of the broker that wrote the line.
    pub incarnation: u64,
    /// Entries of the source below `durable`, batches and holes, as the replica's files count them.
    pub entries: u64,
}

lines!(ReplicaLine, 1, {
    durable @ 0, written @ 8, bytes @ 16, tail @ 24, topic @ 32, state @ 40, errno @ 44,
    incarnation @ 48, entries @ 56,
});

impl ReplicaLine {
    /// The state.
    pub fn state(&self) -> ReplicaState {
        ReplicaState::from_raw(self.state)
    }
}

/// In a replica's line: what its files have to reach is not known.
pub const TAIL_UNKNOWN: u64 = u64::MAX;
/// The error number in the line of a replica that is well and has not all that it should have: its
/// files begin behind what other copies have, or may have, or there is a hole in them.
pub const ENODATA: u32 = 61;

/// Log indexes that a [`LostLine`] names.
pub const LOST_NAMED: usize = 6;

/// Batches of a topic that a copy on disk has not got and never will: their bytes had changed, and
/// no other copy was to be had. Writer: the broker that keeps the copy. Readers: the brokers that
/// landed them, for their receipts.
///
/// A batch is named here before the copy's line moves past it, so who finds it below `durable`
/// finds it here too.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct LostLine {
    /// Topic id that this is about.
    pub topic: u64,
    /// Batches lost so far.
    pub count: u64,
    /// The latest, that of the n-th, from 0, in place n modulo the places: the log index below, the
    /// broker that landed it in the highest byte.
    pub latest: [u64; LOST_NAMED],
}

lines!(LostLine, 1, { topic @ 0, count @ 8, latest @ 16 });

impl LostLine {
    /// The latest, each with the broker that landed it.
    pub fn named(self) -> impl Iterator<Item = (BrokerId, u64)> {
        let known = usize::try_from(self.count).unwrap_or(LOST_NAMED).min(LOST_NAMED);
        let of = |word: u64| Some((BrokerId::new((word >> 56) as usize)?, word & !(0xff << 56)));
        self.latest.into_iter().take(known).filter_map(of)
    }

    /// Whether the batch that `source` landed at a log index is among the latest.
    pub fn names(&self, source: BrokerId, index: u64) -> bool {
        self.named().any(|named| named == (source, index))
    }

    /// The line once the batch that `source` landed at `index` is lost too.
    pub fn and(mut self, source: BrokerId, index: u64) -> Self {
        let place = (self.count % LOST_NAMED as u64) as usize;
        self.latest[place] = index & !(0xff << 56) | u64::from(source.raw()) << 56;
        self.count += 1;
        self
    }
}

/// What a replica file is about, at its start; zeros follow up to [`REPLICA_HEADER_BYTES`].
/// Writer: the broker that keeps the replica, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ReplicaHeader {
    /// [`REPLICA_MAGIC`].
    pub magic: u64,
    /// [`REPLICA_VERSION`].
    pub version: u32,
    /// [`REPLICA_HEADER_BYTES`].
    pub header_bytes: u32,
    /// The pool it was written from.
    pub pool_uuid: [u8; 16],
    /// When the topic was created: with its name, the topic's identity.
    pub created_ns: u64,
    /// Log index below which the files before this one have everything. Also the file's name.
    pub first_index: u64,
    /// Entries of the replica before this file: batches and holes.
    pub first_ordinal: u64,
    /// `first_index` of the file before this one, or [`NO_FILE`]: the replica begins here. A
    /// replica that had to leave a hole begins anew behind it.
    pub previous_index: u64,
    /// Wall clock when the file was begun, nanoseconds.
    pub opened_ns: u64,
    /// The topic's id in that pool.
    pub topic: u32,
    /// Broker whose batches these are.
    pub source: u8,
    /// Which disk replica of them, from 0.
    pub replica: u8,
    /// Log that the indexes count.
    pub log: u8,
    /// An `Order`.
    pub order: u8,
    /// Broker that writes the file.
    pub broker: u8,
    /// Copies of each batch, the pool counted as the first.
    pub replicas: u8,
    /// Brokers that keep the topic's replicas.
    pub replica_brokers: u8,
    /// The topic's flags.
    pub flags: u8,
    /// Bytes in `name`.
    pub name_bytes: u32,
    /// The topic's name, UTF-8.
    pub name: [u8; TOPIC_NAME_BYTES_MAX],
    /// What each record of the file carries, in its low 48 bits; 0 in files of earlier programs.
    pub mark: u64,
    /// Zero.
    pub reserved: [u64; 4],
    /// Zero.
    pub reserved32: u32,
    /// CRC32C of the 252 bytes before.
    pub crc: u32,
}

lines!(ReplicaHeader, 4, {
    magic @ 0, version @ 8, header_bytes @ 12, pool_uuid @ 16, created_ns @ 32, first_index @ 40,
    first_ordinal @ 48, previous_index @ 56, opened_ns @ 64, topic @ 72, source @ 76,
    replica @ 77, log @ 78, order @ 79, broker @ 80, replicas @ 81, replica_brokers @ 82,
    flags @ 83, name_bytes @ 84, name @ 88, mark @ 208, reserved @ 216, reserved32 @ 248, crc @ 252,
});

impl ReplicaHeader {
    /// Whether the copy had entries in front of this file: others came before it. One that was
    /// begun anew, behind a hole or what its log passed over, names none and counts them still.
    pub fn is_behind(&self) -> bool {
        self.previous_index != NO_FILE || self.first_ordinal > 0
    }
}

/// What a file's header has wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// The file ends inside its header.
    Short {
        /// Bytes there are.
        have: u64,
    },
    /// The first word is no replica file's.
    Magic {
        /// Word found.
        found: u64,
    },
    /// Another version of the format.
    Version {
        /// Version found.
        found: u32,
    },
    /// The header's checksum does not hold.
    Crc {
        /// Checksum claimed.
        claimed: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// A field says what cannot be.
    Field {
        /// The field.
        field: &'static str,
        /// Value found.
        value: u64,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short { have } => write!(
                f,
                "the file has {have} bytes; a replica file's header alone has \
                 {REPLICA_HEADER_BYTES}"
            ),
            Self::Magic { found } => write!(
                f,
                "the file starts with {found:#018x}; a replica file starts with \
                 {REPLICA_MAGIC:#018x}"
            ),
            Self::Version { found } => write!(
                f,
                "the file has format version {found}, and this program knows {REPLICA_VERSION}: \
                 use the program that wrote it, or move the topic's directory away"
            ),
            Self::Crc { claimed, computed } => write!(
                f,
                "the file's header claims checksum {claimed:#010x} and its bytes give \
                 {computed:#010x}"
            ),
            Self::Field { field, value } => {
                write!(f, "the file's header has {field} = {value}, which cannot be")
            }
        }
    }
}

impl std::error::Error for HeaderError {}

impl ReplicaHeader {
    /// Fills in magic, version and checksum; call it when all else is set.
    pub fn seal(mut self) -> Self {
        self.magic = REPLICA_MAGIC;
        self.version = REPLICA_VERSION;
        self.header_bytes = REPLICA_HEADER_BYTES as u32;
        self.crc = self.compute_crc();
        self
    }

    fn compute_crc(&self) -> u32 {
        crc32c(&self.to_bytes()[..252])
    }

    /// The header that a file starts with, once it holds. Total over any bytes.
    pub fn parse(file: &[u8]) -> Result<Self, HeaderError> {
        let short = HeaderError::Short { have: file.len() as u64 };
        if (file.len() as u64) < REPLICA_HEADER_BYTES {
            return Err(short);
        }
        let (head, _) = file.split_first_chunk::<{ Self::BYTES as usize }>().ok_or(short)?;
        let header = Self::from_bytes(*head);
        if header.magic != REPLICA_MAGIC {
            return Err(HeaderError::Magic { found: header.magic });
        }
        if Self::is_foreign(file) {
            return Err(HeaderError::Version { found: header.version });
        }
        let computed = header.compute_crc();
        if header.crc != computed {
            return Err(HeaderError::Crc { claimed: header.crc, computed });
        }
        let wrong = |field, value: u64| Err(HeaderError::Field { field, value });
        if header.version != REPLICA_VERSION {
            return wrong("version", header.version.into());
        }
        if u64::from(header.header_bytes) != REPLICA_HEADER_BYTES {
            return wrong("header_bytes", header.header_bytes.into());
        }
        if header.name().is_empty() {
            return wrong("name_bytes", header.name_bytes.into());
        }
        Ok(header)
    }

    /// The header of a file that begins with `page`, from either of its places, and what is wrong
    /// with the first where it is from the second. Total over any bytes.
    pub fn read(page: &[u8]) -> Result<(Self, Option<HeaderError>), HeaderError> {
        let why = match Self::parse(page) {
            Ok(header) => return Ok((header, None)),
            // A file that ends inside its header has nothing.
            Err(why @ HeaderError::Short { .. }) => return Err(why),
            Err(why) => why,
        };
        let mut again = [0; REPLICA_HEADER_BYTES as usize];
        let copy = page.get(HEADER_COPY_AT as usize..).unwrap_or_default();
        let copy = copy.get(..Self::BYTES as usize).unwrap_or_default();
        again[..copy.len()].copy_from_slice(copy);
        match Self::parse(&again) {
            Ok(header) if !Self::is_foreign(page) => Ok((header, Some(why))),
            _ => Err(why),
        }
    }

    /// Whether a file is of another version of the format, and no damage made it look so: its first
    /// header says so and has a checksum that holds, or both its headers say it.
    pub fn is_foreign(page: &[u8]) -> bool {
        let Some(head) = page.first_chunk::<{ Self::BYTES as usize }>() else { return false };
        let header = Self::from_bytes(*head);
        if header.magic != REPLICA_MAGIC || header.version == REPLICA_VERSION {
            return false;
        }
        let copy = page.get(HEADER_COPY_AT as usize..).unwrap_or_default();
        let says_it_again = || copy.get(..12).is_some_and(|copy| copy == &head[..12]);
        header.crc == header.compute_crc() || says_it_again()
    }

    /// What a file begins with: the header, twice.
    pub fn page(&self) -> [u8; REPLICA_HEADER_BYTES as usize] {
        let mut page = [0; REPLICA_HEADER_BYTES as usize];
        for at in [0, HEADER_COPY_AT as usize] {
            page[at..at + Self::BYTES as usize].copy_from_slice(&self.to_bytes());
        }
        page
    }

    /// The topic's name; empty when the header says nothing readable.
    pub fn name(&self) -> &str {
        self.name
            .get(..self.name_bytes as usize)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or("")
    }
}

const _: () = {
    assert!(RECORD_HEAD_BYTES == 2 * LINE_BYTES);
    assert!(ReplicaHeader::BYTES <= HEADER_COPY_AT);
    assert!(HEADER_COPY_AT + ReplicaHeader::BYTES <= REPLICA_HEADER_BYTES);
    assert!(MARK_BITS == 8 * 6, "records carry it in six bytes");
    assert!(REPLICA_HEADER_BYTES.is_multiple_of(LINE_BYTES), "records start on lines");
    assert!(REPLICA_VERSION <= u8::MAX as u32, "records carry it in a byte");
};
