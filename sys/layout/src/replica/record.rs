//! The records of a replica file: what they are, and whether one holds.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{HeaderError, REPLICA_HEADER_BYTES, REPLICA_VERSION, ReplicaHeader};
use crate::batch::{BatchError, BatchPreamble, PREAMBLE_BYTES, crc32c};
use crate::frame::GapReason;
use crate::limits::{BATCH_BYTES_MAX, LINE_BYTES};
use crate::order::{ENTRY_HOLE, FrontierLine, OrderEntry};

/// First word of a record: "LFR1".
pub const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"LFR1");
/// Bytes by which the largest head can be judged: two lines and a preamble.
pub const RECORD_JUDGED_BYTES: u64 = RECORD_HEAD_BYTES + PREAMBLE_BYTES as u64;
/// Bytes of a record in front of the batch, and all of one that has none.
pub const RECORD_HEAD_BYTES: u64 = 128;
/// Bytes of the largest record.
pub const RECORD_BYTES_MAX: u64 = RECORD_HEAD_BYTES + BATCH_BYTES_MAX as u64;
/// A record with a batch.
pub const RECORD_BATCH: u8 = 1;
/// A record that says how far the log was ordered when its group was committed.
pub const RECORD_FRONTIER: u8 = 2;
/// A record of positions that nothing is at and nothing ever will be.
pub const RECORD_HOLE: u8 = 3;

/// In front of each record. Writer: the broker that keeps the replica.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct RecordHeader {
    /// [`RECORD_MAGIC`].
    pub magic: u32,
    /// Low byte of [`REPLICA_VERSION`].
    pub version: u8,
    /// [`RECORD_BATCH`], [`RECORD_FRONTIER`] or [`RECORD_HOLE`].
    pub kind: u8,
    /// Zero.
    pub flags: u16,
    /// Batch and hole: the entry's log index. Frontier: log index below which everything of the
    /// source stands in front of this record.
    pub index: u64,
    /// Entries of the replica before this record: batches and holes.
    pub ordinal: u64,
    /// Byte of the file that this record starts at.
    pub at: u64,
    /// When the topic was created.
    pub created_ns: u64,
    /// Wall clock when it was written, nanoseconds.
    pub written_ns: u64,
    /// Bytes of preamble and payload; 0 where there is no batch.
    pub bytes: u32,
    /// Broker whose batches these are.
    pub source: u8,
    /// Hole: why, a [`GapReason`]. Otherwise zero.
    pub reason: u8,
    /// The low bytes of the file's mark.
    pub mark: [u8; 6],
    /// CRC32C of the 60 bytes before, the order entry or frontier line, and the preamble.
    pub crc: u32,
}

lines!(RecordHeader, 1, {
    magic @ 0, version @ 4, kind @ 5, flags @ 6, index @ 8, ordinal @ 16, at @ 24,
    created_ns @ 32, written_ns @ 40, bytes @ 48, source @ 52, reason @ 53, mark @ 54, crc @ 60,
});

/// The first two lines of a record, ready to be written.
pub type RecordHead = [u8; RECORD_HEAD_BYTES as usize];

fn record_crc(header: &RecordHeader, line: &[u8; 64], preamble: Option<&[u8; 64]>) -> u32 {
    let mut covered = [0; 60 + 64 + 64];
    covered[..60].copy_from_slice(&header.to_bytes()[..60]);
    covered[60..124].copy_from_slice(line);
    match preamble {
        Some(preamble) => {
            covered[124..].copy_from_slice(preamble);
            crc32c(&covered)
        }
        None => crc32c(&covered[..124]),
    }
}

fn sealed(mut header: RecordHeader, line: [u8; 64], preamble: Option<&[u8; 64]>) -> RecordHead {
    header.magic = RECORD_MAGIC;
    header.version = REPLICA_VERSION as u8;
    header.crc = record_crc(&header, &line, preamble);
    let mut head = [0; RECORD_HEAD_BYTES as usize];
    head[..64].copy_from_slice(&header.to_bytes());
    head[64..].copy_from_slice(&line);
    head
}

impl RecordHeader {
    /// The head of a batch's record; `bytes` and `kind` are filled in.
    pub fn seal_batch(mut self, entry: &OrderEntry, preamble: &BatchPreamble) -> RecordHead {
        self.kind = RECORD_BATCH;
        self.bytes = entry.bytes;
        sealed(self, entry.to_bytes(), Some(&preamble.to_bytes()))
    }

    /// A whole frontier record; `bytes` and `kind` are filled in.
    pub fn seal_frontier(mut self, frontier: &FrontierLine) -> RecordHead {
        self.kind = RECORD_FRONTIER;
        self.bytes = 0;
        sealed(self, frontier.to_bytes(), None)
    }

    /// A whole hole record; `bytes`, `kind` and `reason` are filled in.
    pub fn seal_hole(mut self, entry: &OrderEntry, reason: GapReason) -> RecordHead {
        self.kind = RECORD_HOLE;
        self.bytes = 0;
        self.reason = reason as u8;
        sealed(self, entry.to_bytes(), None)
    }
}

/// Bytes of a record with a batch of `bytes` bytes, zeros behind it included.
pub fn record_bytes(bytes: u32) -> u64 {
    RECORD_HEAD_BYTES + u64::from(bytes).next_multiple_of(LINE_BYTES)
}

/// A record that holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Its header.
    pub header: RecordHeader,
    /// What it carries.
    pub body: Body<'a>,
}

/// What a record carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// A batch, checksum checked.
    Batch {
        /// Its entry in the log, as it stood in the pool.
        entry: OrderEntry,
        /// Its preamble.
        preamble: BatchPreamble,
        /// Its messages.
        payload: &'a [u8],
    },
    /// How far the log was ordered.
    Frontier(FrontierLine),
    /// Positions without messages.
    Hole {
        /// Their entry in the log, as it stood in the pool.
        entry: OrderEntry,
        /// Why there is nothing.
        reason: GapReason,
    },
}

impl Record<'_> {
    /// Bytes that it takes in its file.
    pub fn bytes(&self) -> u64 {
        record_bytes(self.header.bytes)
    }

    /// Log index below which everything of the source stands up to and with this record.
    pub fn covers(&self) -> u64 {
        match self.body {
            Body::Batch { .. } | Body::Hole { .. } => self.header.index.saturating_add(1),
            Body::Frontier(_) => self.header.index,
        }
    }
}

/// Why there is no record where one was looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// The file ends inside the record.
    Short {
        /// Bytes the record would need.
        need: u64,
        /// Bytes there are.
        have: u64,
    },
    /// The first word is no record's.
    Magic {
        /// Word found.
        found: u32,
    },
    /// A field says what cannot be here.
    Field {
        /// The field.
        field: &'static str,
        /// Value found.
        value: u64,
        /// Value that belongs here, or the bound.
        expected: u64,
    },
    /// The record's checksum does not hold.
    Crc {
        /// Checksum claimed.
        claimed: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// The batch's preamble or payload does not hold.
    Batch(BatchError),
    /// The zeros behind the batch are not zero.
    Padding,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short { need, have } => {
                write!(f, "the record needs {need} bytes and {have} are left")
            }
            Self::Magic { found } => write!(
                f,
                "the record starts with {found:#010x}; a record starts with {RECORD_MAGIC:#010x}"
            ),
            Self::Field { field, value, expected } => {
                write!(f, "the record has {field} = {value}; {expected} belongs there")
            }
            Self::Crc { claimed, computed } => write!(
                f,
                "the record claims checksum {claimed:#010x} and its bytes give {computed:#010x}"
            ),
            Self::Batch(error) => error.fmt(f),
            Self::Padding => f.write_str("the bytes behind the record's batch are not zero"),
        }
    }
}

impl std::error::Error for RecordError {}

/// What the next record of a file has to say of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Byte of the file.
    pub at: u64,
    /// When the topic was created.
    pub created_ns: u64,
    /// Broker whose batches these are.
    pub source: u8,
    /// Log index that it may not be below.
    pub index: u64,
    /// Entries before it: batches and holes.
    pub ordinal: u64,
    /// The file's mark.
    pub mark: [u8; 6],
}

/// The bytes of a file's mark that its records carry.
pub fn mark_bytes(mark: u64) -> [u8; 6] {
    let mut bytes = [0; 6];
    bytes.copy_from_slice(&mark.to_le_bytes()[..6]);
    bytes
}

impl Place {
    /// The place of the first record behind a file's header.
    pub fn first(header: &ReplicaHeader) -> Self {
        Self {
            at: REPLICA_HEADER_BYTES,
            created_ns: header.created_ns,
            source: header.source,
            index: header.first_index,
            ordinal: header.first_ordinal,
            mark: mark_bytes(header.mark),
        }
    }

    /// The place that the record claims which `bytes` start with, at byte `at` of a file; none if
    /// they start with no record, or with one of another place. Nothing of it is checked.
    pub fn named(bytes: &[u8], at: u64) -> Option<Self> {
        let header = RecordHeader::from_bytes(*bytes.first_chunk::<64>()?);
        (header.magic == RECORD_MAGIC && header.at == at).then_some(Self {
            at,
            created_ns: header.created_ns,
            source: header.source,
            index: header.index,
            ordinal: header.ordinal,
            mark: header.mark,
        })
    }

    /// Whether a record here can be one behind `before`, with others between them that do not
    /// hold: each of those took bytes, and a log index if it was a batch or a hole.
    pub fn fits_behind(&self, before: &Self) -> bool {
        let bytes = self.at.checked_sub(before.at);
        let entries = self.ordinal.checked_sub(before.ordinal);
        let indexes = self.index.checked_sub(before.index);
        let (Some(bytes), Some(entries), Some(indexes)) = (bytes, entries, indexes) else {
            return false;
        };
        entries <= bytes / RECORD_HEAD_BYTES && entries <= indexes
    }

    /// The place behind a record that was found here.
    pub fn behind(self, record: &Record<'_>) -> Self {
        self.behind_head(&record.header)
    }

    /// The place behind the record of this header.
    pub fn behind_head(self, header: &RecordHeader) -> Self {
        let entries = u64::from(header.kind != RECORD_FRONTIER);
        Self {
            at: self.at + record_bytes(header.bytes),
            index: header.index.saturating_add(entries),
            ordinal: self.ordinal + entries,
            ..self
        }
    }
}

/// Bytes of the record whose head starts `bytes`: what has to be read before [`parse_record`] can
/// judge it. Total; checks no more than it needs.
pub fn measure(bytes: &[u8]) -> Result<u64, RecordError> {
    let short = RecordError::Short { need: RECORD_HEAD_BYTES, have: bytes.len() as u64 };
    if (bytes.len() as u64) < RECORD_HEAD_BYTES {
        return Err(short);
    }
    let (head, _) = bytes.split_first_chunk::<64>().ok_or(short)?;
    let header = RecordHeader::from_bytes(*head);
    if header.magic != RECORD_MAGIC {
        return Err(RecordError::Magic { found: header.magic });
    }
    let wrong = |field, value: u64, expected: u64| RecordError::Field { field, value, expected };
    if header.version != REPLICA_VERSION as u8 {
        return Err(wrong("version", header.version.into(), REPLICA_VERSION.into()));
    }
    match (header.kind, header.bytes) {
        (RECORD_FRONTIER | RECORD_HOLE, 0) => {}
        (RECORD_FRONTIER | RECORD_HOLE, bytes) => return Err(wrong("bytes", bytes.into(), 0)),
        (RECORD_BATCH, PREAMBLE_BYTES..=BATCH_BYTES_MAX) => {}
        (RECORD_BATCH, bytes) => return Err(wrong("bytes", bytes.into(), BATCH_BYTES_MAX.into())),
        (kind, _) => return Err(wrong("kind", kind.into(), RECORD_BATCH.into())),
    }
    Ok(record_bytes(header.bytes))
}

/// The record at the start of `bytes`, which is what the file has from `place.at` on. Total over
/// any bytes: a record that holds in every respect, or what is wrong with it.
pub fn parse_record(bytes: &[u8], place: Place) -> Result<Record<'_>, RecordError> {
    let need = check_record(bytes, place)?;
    let have = bytes.len() as u64;
    view_record(bytes).ok_or(RecordError::Short { need, have })
}

/// Whether the bytes start with a record that holds in every respect; its length.
pub fn check_record(bytes: &[u8], place: Place) -> Result<u64, RecordError> {
    let header = check_head(bytes, place)?;
    let need = record_bytes(header.bytes);
    let short = RecordError::Short { need, have: bytes.len() as u64 };
    let record = view_record(bytes).ok_or(short)?;
    if let Body::Batch { preamble, payload, .. } = &record.body {
        preamble.check_payload(payload).map_err(RecordError::Batch)?;
        let end = RECORD_HEAD_BYTES + u64::from(header.bytes);
        if bytes[end as usize..need as usize].iter().any(|byte| *byte != 0) {
            return Err(RecordError::Padding);
        }
    }
    Ok(need)
}

/// Whether the head of a record holds, preamble included, whatever its payload is: the record's
/// length and all that it says of itself can be believed then. Total over any bytes.
pub fn check_head(bytes: &[u8], place: Place) -> Result<RecordHeader, RecordError> {
    let need = measure(bytes)?;
    let short = RecordError::Short { need, have: bytes.len() as u64 };
    let (head, rest) = bytes.split_first_chunk::<64>().ok_or(short)?;
    let (line, rest) = rest.split_first_chunk::<64>().ok_or(short)?;
    let header = RecordHeader::from_bytes(*head);
    let preamble = match header.kind {
        RECORD_BATCH => Some(rest.first_chunk::<64>().ok_or(short)?),
        _ => None,
    };
    let computed = record_crc(&header, line, preamble);
    if header.crc != computed {
        return Err(RecordError::Crc { claimed: header.crc, computed });
    }
    check_place(&header, place)?;
    match preamble {
        Some(preamble) => {
            let (entry, preamble) =
                (OrderEntry::from_bytes(*line), BatchPreamble::from_bytes(*preamble));
            check_batch(&header, &entry, &preamble)?;
        }
        None if header.kind == RECORD_HOLE => check_hole(&header, &OrderEntry::from_bytes(*line))?,
        None => {}
    }
    Ok(header)
}

/// The head of the batch at the start of `bytes` as it stands there, unchecked: for bytes that
/// [`check_head`] has judged. `None`: it is no batch's.
pub fn view_head(bytes: &[u8]) -> Option<(RecordHeader, OrderEntry)> {
    let (head, rest) = bytes.split_first_chunk::<64>()?;
    let header = RecordHeader::from_bytes(*head);
    let entry = OrderEntry::from_bytes(*rest.first_chunk::<64>()?);
    (header.kind == RECORD_BATCH).then_some((header, entry))
}

/// The record at the start of `bytes` as it stands there, unchecked: for bytes that
/// [`check_record`] has judged. `None` where they are too few for what the head says.
pub fn view_record(bytes: &[u8]) -> Option<Record<'_>> {
    let need = usize::try_from(measure(bytes).ok()?).ok()?;
    let (head, rest) = bytes.get(..need)?.split_first_chunk::<64>()?;
    let (line, rest) = rest.split_first_chunk::<64>()?;
    let header = RecordHeader::from_bytes(*head);
    let body = match rest.split_first_chunk::<64>() {
        Some((preamble, _)) => Body::Batch {
            entry: OrderEntry::from_bytes(*line),
            preamble: BatchPreamble::from_bytes(*preamble),
            payload: rest.get(PREAMBLE_BYTES as usize..header.bytes as usize)?,
        },
        None if header.kind == RECORD_HOLE => Body::Hole {
            entry: OrderEntry::from_bytes(*line),
            reason: GapReason::from_raw(header.reason.into()).unwrap_or_default(),
        },
        None => Body::Frontier(FrontierLine::from_bytes(*line)),
    };
    Some(Record { header, body })
}

/// A hole's entry has positions, and the record says why nothing is there.
fn check_hole(header: &RecordHeader, entry: &OrderEntry) -> Result<(), RecordError> {
    let pairs = [
        ("entry flags", entry.flags.into(), ENTRY_HOLE.into()),
        ("entry bytes", entry.bytes.into(), 0),
        ("entry broker", u64::from(entry.broker), u64::from(header.source)),
        ("entry commit", entry.commit, header.index.wrapping_add(1)),
        // Nobody wrote them, or what was there is lost.
        (
            "reason",
            header.reason.into(),
            match header.reason == GapReason::Corrupt as u8 {
                true => GapReason::Corrupt as u64,
                false => GapReason::Unwritten as u64,
            },
        ),
    ];
    if entry.count == 0 {
        return Err(RecordError::Field { field: "entry count", value: 0, expected: 1 });
    }
    differs(pairs)
}

fn differs<const N: usize>(pairs: [(&'static str, u64, u64); N]) -> Result<(), RecordError> {
    match pairs.into_iter().find(|(_, value, expected)| value != expected) {
        Some((field, value, expected)) => Err(RecordError::Field { field, value, expected }),
        None => Ok(()),
    }
}

fn word(mark: [u8; 6]) -> u64 {
    mark.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn check_place(header: &RecordHeader, place: Place) -> Result<(), RecordError> {
    let same = |field, value: u64, expected: u64| match value == expected {
        true => Ok(()),
        false => Err(RecordError::Field { field, value, expected }),
    };
    same("at", header.at, place.at)?;
    same("created_ns", header.created_ns, place.created_ns)?;
    same("source", header.source.into(), place.source.into())?;
    same("mark", word(header.mark), word(place.mark))?;
    same("ordinal", header.ordinal, place.ordinal)?;
    if header.index < place.index {
        return same("index", header.index, place.index);
    }
    Ok(())
}

fn check_batch(
    header: &RecordHeader,
    entry: &OrderEntry,
    preamble: &BatchPreamble,
) -> Result<(), RecordError> {
    preamble.check(BATCH_BYTES_MAX).map_err(RecordError::Batch)?;
    let pairs = [
        ("entry flags", entry.flags.into(), 0),
        ("entry broker", u64::from(entry.broker), u64::from(header.source)),
        ("entry commit", entry.commit, header.index.wrapping_add(1)),
        ("entry bytes", entry.bytes.into(), header.bytes.into()),
        ("preamble bytes", preamble.batch_bytes(), header.bytes.into()),
        ("preamble count", preamble.count.into(), entry.count.into()),
        ("preamble client", preamble.client, entry.client),
        ("preamble batch_seq", preamble.batch_seq, entry.batch_seq),
        ("preamble session_epoch", preamble.session_epoch.into(), entry.session_epoch.into()),
        ("preamble checksum", preamble.header_crc.into(), entry.checksum.into()),
    ];
    differs(pairs)
}

/// The records of a whole file in memory, one after the other, up to the first that does not
/// hold. Total over any bytes; [`Scan::place`] and [`Scan::error`] then say where it ended and
/// why.
#[derive(Clone, Debug)]
pub struct Scan<'a> {
    file: &'a [u8],
    place: Place,
    error: Option<RecordError>,
}

/// The header of a whole file in memory, and its records.
pub fn scan(file: &[u8]) -> Result<(ReplicaHeader, Scan<'_>), HeaderError> {
    let header = ReplicaHeader::parse(file)?;
    Ok((header, Scan { file, place: Place::first(&header), error: None }))
}

impl Scan<'_> {
    /// Where the next record would be, or where the walk ended.
    pub fn place(&self) -> Place {
        self.place
    }

    /// What is wrong there; none when the file ends behind a whole record.
    pub fn error(&self) -> Option<RecordError> {
        self.error
    }

    /// Bytes of the file that the walk did not reach.
    pub fn left(&self) -> u64 {
        (self.file.len() as u64).saturating_sub(self.place.at)
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.error.is_some() || self.left() == 0 {
            return None;
        }
        let rest = self.file.get(usize::try_from(self.place.at).ok()?..)?;
        match parse_record(rest, self.place) {
            Ok(record) => {
                self.place = self.place.behind(&record);
                Some(record)
            }
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}
