//! Batches where they lie: the place that was named, the preamble, the messages, the checksum.

use landfall_layout::SegmentId;
use landfall_layout::batch::{BatchPreamble, MESSAGE_HEADER_BYTES, Messages, PREAMBLE_BYTES};
use landfall_layout::limits::LINE_BYTES;
use landfall_layout::order::OrderEntry;
use landfall_layout::segment::{SegmentKind, SegmentState};
use landfall_layout::slot::RingSlot;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::{Memory, Pool};

use crate::facts::{Facts, Tally};
use crate::finding::Findings;
use crate::mend;

/// What an entry or a slot says of its batch.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Topic.
    pub topic: TopicId,
    /// Broker that landed it.
    pub broker: u8,
    /// Segment it lies in.
    pub segment: SegmentId,
    /// Which use of the segment, where that is known.
    pub generation: Option<u64>,
    /// Where in the segment.
    pub offset: u32,
    /// Bytes of preamble and payload.
    pub bytes: u32,
    /// Messages.
    pub count: u16,
    /// Publisher.
    pub client: u64,
    /// Sequence in its session.
    pub batch_seq: u64,
    /// The session's epoch.
    pub session_epoch: u32,
    /// The preamble's checksum, as the broker took it.
    pub checksum: u32,
}

impl Named {
    /// What a log entry says.
    pub fn by_entry(topic: TopicId, entry: &OrderEntry) -> Self {
        Self {
            topic,
            broker: entry.broker,
            segment: SegmentId(entry.segment),
            generation: None,
            offset: entry.offset,
            bytes: entry.bytes,
            count: entry.count,
            client: entry.client,
            batch_seq: entry.batch_seq,
            session_epoch: entry.session_epoch,
            checksum: entry.checksum,
        }
    }

    /// What a slot of a broker's ring says.
    pub fn by_slot(broker: BrokerId, slot: &RingSlot) -> Self {
        Self {
            topic: TopicId(slot.topic),
            broker: broker.raw(),
            segment: SegmentId(slot.segment),
            generation: Some(slot.segment_generation),
            offset: slot.offset,
            bytes: slot.bytes,
            count: slot.count,
            client: slot.client,
            batch_seq: slot.batch_seq,
            session_epoch: slot.session_epoch,
            checksum: slot.checksum,
        }
    }
}

/// Where a batch lies, and who says so. Ranges are compared once all are known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// Segment.
    pub segment: u32,
    /// First byte in it.
    pub start: u32,
    /// Byte behind it, at the end of its last line.
    pub end: u64,
    /// Whether a ring's slot names it, and not an entry: the same batch may be in both while its
    /// slot is not given back.
    pub waits: bool,
    /// Offset in the pool of the entry or slot that names it.
    pub named_at: u64,
}

impl Range {
    fn is_same_batch(&self, other: &Self) -> bool {
        self.waits != other.waits && self.start == other.start && self.end == other.end
    }
}

/// Whether the segment that is named is what its header says.
pub fn is_payload_of(facts: &Facts, named: &Named) -> bool {
    facts.segment(named.segment).and_then(|segment| segment.what).is_some_and(|what| {
        what.kind == SegmentKind::Payload
            && what.topic == named.topic
            && what.owner == named.broker
            && matches!(what.state, SegmentState::Open | SegmentState::Sealed)
    })
}

/// Whether the very batch that is named lies where it is named, whatever the segment is said to be.
pub fn is_there(pool: &Pool, named: &Named, buffer: &mut Vec<u8>) -> bool {
    let aligned = u64::from(named.offset).is_multiple_of(LINE_BYTES);
    let long = named.bytes >= PREAMBLE_BYTES;
    let span = pool.geometry().span(named.segment, named.offset, named.bytes);
    let Some(start) = span.filter(|_| aligned && long) else { return false };
    let mut findings = Findings::default();
    contents(pool, named, start, "", buffer, &mut Tally::default(), &mut findings);
    findings.is_empty()
}

/// Judges the place that `named` names. The offset in the pool of its preamble when the bytes can
/// be read.
pub fn place(
    pool: &Pool,
    facts: &Facts,
    named: &Named,
    (of, at): (&str, u64),
    out: &mut Findings,
) -> Option<u64> {
    if usize::from(named.broker) >= landfall_layout::limits::BROKERS_MAX {
        let found = format!("its broker {} is none", named.broker);
        out.error("entry", of, at, found, mend::COPY_POOL);
    }
    let known = facts.segment(named.segment);
    let fits = is_payload_of(facts, named);
    if !fits {
        let found = format!("its batch, of broker {}, is in ", named.broker)
            + &facts.describe(named.segment);
        out.error("entry", of, at, found, mend::READ_REPLICA);
    } else if let (Some(known), Some(generation)) = (known, named.generation)
        && known.header.generation != generation
    {
        let found = format!("its batch is in use {generation} of segment {}", named.segment)
            + &format!(", which is at use {}", known.header.generation);
        out.error("entry", of, at, found, mend::READ_REPLICA);
    }
    let least = u64::from(PREAMBLE_BYTES) + MESSAGE_HEADER_BYTES as u64;
    let (offset, bytes) = (named.offset, named.bytes);
    let span = pool.geometry().span(named.segment, offset, bytes);
    let aligned = u64::from(offset).is_multiple_of(LINE_BYTES);
    if u64::from(bytes) < least || bytes > pool.geometry().batch_bytes_max() || !aligned {
        let most = pool.geometry().batch_bytes_max();
        let found = format!("its batch has {bytes} bytes at {offset} of segment")
            + &format!(" {}; {least} to {most} at a whole line can be", named.segment);
        out.error("entry", of, at, found, mend::COPY_POOL);
        return None;
    }
    if span.is_none() {
        let found = format!("its batch of {bytes} bytes at {offset} reaches past the end of")
            + &format!(" segment {}", named.segment);
        out.error("entry", of, at, found, mend::COPY_POOL);
    }
    span.filter(|_| fits)
}

/// The range that a batch takes.
pub fn range(named: &Named, named_at: u64) -> Range {
    let end = u64::from(named.offset) + u64::from(named.bytes);
    Range {
        segment: named.segment.0,
        start: named.offset,
        end: end.next_multiple_of(LINE_BYTES),
        waits: false,
        named_at,
    }
}

/// Reads the batch at `start` and says where it is not what was named.
pub fn contents(
    pool: &Pool,
    named: &Named,
    start: u64,
    of: &str,
    buffer: &mut Vec<u8>,
    tally: &mut Tally,
    out: &mut Findings,
) {
    let most = pool.geometry().batch_bytes_max();
    pool.refresh(start, named.bytes.into());
    let preamble = BatchPreamble::from_words(pool.load_words(start));
    tally.batches += 1;
    tally.bytes += u64::from(named.bytes);
    if let Err(error) = preamble.check(most) {
        out.error("batch", of, start, error.to_string(), mend::READ_REPLICA);
        return;
    }
    let pairs = [
        ("bytes", preamble.batch_bytes(), u64::from(named.bytes)),
        ("topic", preamble.topic.into(), named.topic.0.into()),
        ("messages", preamble.count.into(), named.count.into()),
        ("client", preamble.client, named.client),
        ("sequence", preamble.batch_seq, named.batch_seq),
        ("session epoch", preamble.session_epoch.into(), named.session_epoch.into()),
        ("checksum", preamble.header_crc.into(), named.checksum.into()),
    ];
    let wrong = pairs.into_iter().find(|(_, found, said)| found != said);
    if let Some((what, found, said)) = wrong {
        let found = format!("the batch has {what} {found} and was named with {said}");
        out.error("batch", of, start, found, mend::READ_REPLICA);
        return;
    }
    load_bytes(pool, start + u64::from(PREAMBLE_BYTES), preamble.payload_bytes, buffer);
    if let Err(error) = preamble.check_payload(buffer) {
        out.error("batch", of, start, error.to_string(), mend::READ_REPLICA);
        return;
    }
    let mut messages = Messages::new(buffer, preamble.count);
    while messages.next().is_some() {}
    if !messages.is_whole() {
        let found =
            format!("its {} messages end before {} of them,", preamble.count, messages.left())
                + " or bytes are left over: its publisher sealed it so";
        out.error("batch", of, start, found, mend::READ_REPLICA);
    }
}

/// A private copy of `bytes` bytes at `at`, which lie in the pool.
fn load_bytes(pool: &Pool, at: u64, bytes: u32, into: &mut Vec<u8>) {
    into.clear();
    // Segments end on words, so the last word is inside too.
    for word in 0..u64::from(bytes).div_ceil(8) {
        into.extend_from_slice(&pool.load_relaxed(at + 8 * word).to_le_bytes());
    }
    into.truncate(bytes as usize);
}

/// Says which batches lie over each other.
pub fn overlaps(mut ranges: Vec<Range>, out: &mut Findings) {
    ranges.sort_unstable();
    let mut reached: Option<Range> = None;
    for range in ranges {
        if let Some(before) = &reached
            && before.segment == range.segment
            && u64::from(range.start) < before.end
            && !range.is_same_batch(before)
        {
            let of = format!("segment {}", range.segment);
            let found = format!("the batch at {} to {}", range.start, range.end)
                + &format!(" (named at byte {:#x}) and the one at", range.named_at)
                + &format!(" {} to {}", before.start, before.end)
                + &format!(" (named at byte {:#x}) overlap", before.named_at);
            out.error("overlap", of, range.named_at, found, mend::READ_REPLICA);
        }
        let further = reached
            .as_ref()
            .is_none_or(|before| before.segment != range.segment || range.end > before.end);
        if further {
            reached = Some(range);
        }
    }
}
