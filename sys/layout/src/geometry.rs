//! Where everything lies in a pool, computed from its size.

use std::fmt;

use crate::command::COMMAND_RING_BYTES;
use crate::counters::{COUNTER_BLOCK_BYTES, ERROR_LOG_BYTES};
use crate::ids::{BrokerId, SegmentId};
use crate::limits::*;

/// Sizes of a pool, and from them the offset of each structure.
///
/// ```text
/// header page | leader lines | broker blocks | broker frontiers | replica lines | stand-ins' lines
/// | lost lines | requests | brokers' counters and errors | leader slots | (up to 2 MiB)
/// | segments ...
/// a leader slot: control's words | topic table | logs and rings | keepers | tails | sessions
/// | segment headers | requests taken | commands | control's counters and errors
/// ```
///
/// Whatever control writes is there once for each leader slot, so that a leader that was deposed
/// and does not know it writes only what nobody else does. A geometry is that of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    pool_bytes: u64,
    segment_bytes: u64,
    sessions: u32,
    segments: u32,
    slot: u8,
    slot_at: u64,
    slot_bytes: u64,
    headers_at: u64,
    taken_at: u64,
    segments_at: u64,
}

const LEADERS_AT: u64 = PAGE_BYTES;
const BROKERS_AT: u64 = 2 * PAGE_BYTES;
const BROKER_BYTES: u64 = 8 * LINE_BYTES;
const FRONTIERS_AT: u64 = BROKERS_AT + BROKERS_MAX as u64 * BROKER_BYTES;
const FRONTIERS_BYTES: u64 = BROKERS_MAX as u64 * LINE_BYTES;
const REPLICAS_AT: u64 = FRONTIERS_AT + TOPICS_MAX as u64 * FRONTIERS_BYTES;
/// A line for each replica of each broker's batches.
const REPLICAS_BYTES: u64 = (BROKERS_MAX * DISK_REPLICAS_MAX) as u64 * LINE_BYTES;
const STAND_INS_AT: u64 = REPLICAS_AT + TOPICS_MAX as u64 * REPLICAS_BYTES;
/// The lines of each broker for copies that it keeps in place of others.
const STAND_INS_BYTES: u64 = (BROKERS_MAX * STAND_INS_MAX) as u64 * LINE_BYTES;
const LOST_AT: u64 = STAND_INS_AT + TOPICS_MAX as u64 * STAND_INS_BYTES;
/// A line of each broker for what the copies that it keeps have lost.
const LOST_BYTES: u64 = BROKERS_MAX as u64 * LINE_BYTES;
const REQUESTS_AT: u64 = LOST_AT + TOPICS_MAX as u64 * LOST_BYTES;
const COUNTERS_AT: u64 = REQUESTS_AT + BROKERS_MAX as u64 * COMMAND_RING_BYTES;
const ERRORS_AT: u64 = COUNTERS_AT + BROKERS_MAX as u64 * COUNTER_BLOCK_BYTES;
const SLOTS_AT: u64 =
    (ERRORS_AT + BROKERS_MAX as u64 * ERROR_LOG_BYTES).next_multiple_of(PAGE_BYTES);

// Within a leader slot.
const TOPICS_IN: u64 = PAGE_BYTES;
const TOPIC_BYTES: u64 = 4 * LINE_BYTES;
const LOGS_IN: u64 = TOPICS_IN + TOPICS_MAX as u64 * TOPIC_BYTES;
/// Frontier and chain of each log, then ring and consumed line of each broker.
const LOG_BYTES: u64 = 2 * LINE_BYTES;
const LOGS_BYTES: u64 = (LOGS_PER_TOPIC + BROKERS_MAX) as u64 * LOG_BYTES;
const KEEPERS_IN: u64 = LOGS_IN + TOPICS_MAX as u64 * LOGS_BYTES;
/// A word for each broker whose batches there are copies of.
const KEEPERS_BYTES: u64 = BROKERS_MAX as u64 * 8;
const TAILS_IN: u64 = KEEPERS_IN + TOPICS_MAX as u64 * KEEPERS_BYTES;
/// A word for each broker whose batches came back from disk.
const TAILS_BYTES: u64 = BROKERS_MAX as u64 * 8;
const SESSIONS_IN: u64 = TAILS_IN + TOPICS_MAX as u64 * TAILS_BYTES;

/// Blocks of counters and errors: one a broker, and control's last.
pub const PROCESS_BLOCKS: usize = BROKERS_MAX + 1;
/// Control's block of counters and errors.
pub const CONTROL_BLOCK: usize = BROKERS_MAX;

/// Why a pool cannot have the sizes asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GeometryError {
    /// Not a power of two, or outside the bounds.
    SegmentBytes {
        /// Bytes asked for.
        bytes: u64,
    },
    /// Too few or too many session lines.
    Sessions {
        /// Lines asked for.
        sessions: u32,
    },
    /// Too small for the tables and the fewest segments.
    TooSmall {
        /// Bytes asked for.
        bytes: u64,
        /// Fewest bytes that would do with this segment size.
        need: u64,
    },
    /// More segments than the header table may have.
    TooLarge {
        /// Segments that the size would give.
        segments: u64,
    },
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SegmentBytes { bytes } => write!(
                f,
                "a segment of {bytes} bytes is not possible; say a power of two from \
                 {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"
            ),
            Self::Sessions { sessions } => {
                write!(f, "{sessions} sessions are not possible; say 1 to {SESSIONS_MAX}")
            }
            Self::TooSmall { bytes, need } => write!(
                f,
                "a pool of {bytes} bytes is too small: its tables and {SEGMENTS_MIN} segments \
                 need {need}; make the pool larger or its segments smaller"
            ),
            Self::TooLarge { segments } => write!(
                f,
                "the pool would have {segments} segments and at most {SEGMENTS_MAX} are \
                 possible; make the segments larger"
            ),
        }
    }
}

impl std::error::Error for GeometryError {}

impl Geometry {
    /// The geometry of a pool of `pool_bytes` with segments of `segment_bytes`.
    pub fn new(pool_bytes: u64, segment_bytes: u64, sessions: u32) -> Result<Self, GeometryError> {
        if !segment_bytes.is_power_of_two()
            || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes)
        {
            return Err(GeometryError::SegmentBytes { bytes: segment_bytes });
        }
        if !(1..=SESSIONS_MAX).contains(&sessions) {
            return Err(GeometryError::Sessions { sessions });
        }
        // The header table is sized for the segments that would fit if it took no room itself:
        // at most one line in 32,768 too many.
        let segments = pool_bytes / segment_bytes;
        if segments > SEGMENTS_MAX {
            return Err(GeometryError::TooLarge { segments });
        }
        let page = |at: u64| at.next_multiple_of(PAGE_BYTES);
        let headers_at = page(SESSIONS_IN + u64::from(sessions) * LINE_BYTES);
        let taken_at = page(headers_at + segments.max(SEGMENTS_MIN) * LINE_BYTES);
        let counters_in = taken_at + BROKERS_MAX as u64 * (LINE_BYTES + COMMAND_RING_BYTES);
        let slot_bytes = page(counters_in + COUNTER_BLOCK_BYTES + ERROR_LOG_BYTES);
        let head = SLOTS_AT + LEADERS_MAX as u64 * slot_bytes;
        let segments_at = head.next_multiple_of(SEGMENT_BYTES_MIN);
        let need = segments_at + SEGMENTS_MIN * segment_bytes;
        if pool_bytes < need {
            return Err(GeometryError::TooSmall { bytes: pool_bytes, need });
        }
        let segments = ((pool_bytes - segments_at) / segment_bytes) as u32;
        Ok(Self {
            pool_bytes,
            segment_bytes,
            sessions,
            segments,
            slot: 0,
            slot_at: SLOTS_AT,
            slot_bytes,
            headers_at,
            taken_at,
            segments_at,
        })
    }

    /// The same pool, its tables as the leader in slot `slot` writes them.
    pub fn of_leader(&self, slot: usize) -> Self {
        assert!(slot < LEADERS_MAX, "leader slot {slot} of {LEADERS_MAX}");
        let slot_at = SLOTS_AT + slot as u64 * self.slot_bytes;
        Self { slot: slot as u8, slot_at, ..*self }
    }

    /// The leader slot whose tables these are.
    pub fn leader_slot(&self) -> usize {
        self.slot.into()
    }

    /// Offset and bytes of the leader slot's tables, for one that is copied to another: everything
    /// but control's own words in front, and counters and errors behind.
    pub fn tables(&self) -> (u64, u64) {
        let end = self.taken_at + BROKERS_MAX as u64 * LINE_BYTES;
        (self.slot_at + TOPICS_IN, end - TOPICS_IN)
    }

    /// Bytes of the pool.
    pub fn pool_bytes(&self) -> u64 {
        self.pool_bytes
    }

    /// Bytes of a segment.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Segments.
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Session lines.
    pub fn sessions(&self) -> u32 {
        self.sessions
    }

    /// Bytes of the fixed tables, in front of the first segment.
    pub fn head_bytes(&self) -> u64 {
        self.segments_at
    }

    /// Bytes of the largest batch this pool takes: preamble and payload.
    pub fn batch_bytes_max(&self) -> u32 {
        self.segment_bytes.min(u64::from(BATCH_BYTES_MAX)) as u32
    }

    /// Order entries in one segment.
    pub fn entries_per_segment(&self) -> u64 {
        self.segment_bytes / LINE_BYTES
    }

    /// Offset of the line of the leader in slot `slot`.
    pub fn leader_line(&self, slot: usize) -> u64 {
        assert!(slot < LEADERS_MAX, "leader slot {slot} of {LEADERS_MAX}");
        LEADERS_AT + slot as u64 * LINE_BYTES
    }

    /// Offset of the leader's heartbeat word, on a line of its own.
    pub fn leader_heartbeat(&self) -> u64 {
        self.slot_at + LINE_BYTES
    }

    /// Offset of the sequencer's parked word, on a line of its own.
    pub fn sequencer_parked(&self) -> u64 {
        self.slot_at + 2 * LINE_BYTES
    }

    /// Offset of the parked word of control's keeper, on a line of its own.
    pub fn keeper_parked(&self) -> u64 {
        self.slot_at + 3 * LINE_BYTES
    }

    /// Offset of a broker's status line.
    pub fn broker_line(&self, broker: BrokerId) -> u64 {
        BROKERS_AT + broker.index() as u64 * BROKER_BYTES
    }

    /// Offset of a broker's parked word, on a line of its own.
    pub fn broker_parked(&self, broker: BrokerId) -> u64 {
        self.broker_line(broker) + LINE_BYTES
    }

    /// Offset of a broker's addresses.
    pub fn broker_address(&self, broker: BrokerId) -> u64 {
        self.broker_line(broker) + 2 * LINE_BYTES
    }

    /// Offset of the word that says how many commands a broker has taken, on a line of its own.
    pub fn commands_taken(&self, broker: BrokerId) -> u64 {
        self.broker_line(broker) + 5 * LINE_BYTES
    }

    /// Offset of the topic entry in `slot`, which is below `TOPICS_MAX`.
    pub fn topic(&self, slot: usize) -> u64 {
        assert!(slot < TOPICS_MAX, "topic slot {slot} of {TOPICS_MAX}");
        self.slot_at + TOPICS_IN + slot as u64 * TOPIC_BYTES
    }

    fn log(&self, slot: usize, log: usize) -> u64 {
        assert!(slot < TOPICS_MAX && log < LOGS_PER_TOPIC, "log {log} of topic slot {slot}");
        self.slot_at + LOGS_IN + slot as u64 * LOGS_BYTES + log as u64 * LOG_BYTES
    }

    /// Offset of the frontier line of log `log` of the topic in `slot`. A broker's own is the
    /// broker's, and the same under every leader.
    pub fn frontier(&self, slot: usize, log: usize) -> u64 {
        if log == SEQUENCED_LOG {
            return self.log(slot, log);
        }
        assert!(slot < TOPICS_MAX && log < BROKERS_MAX, "log {log} of topic slot {slot}");
        FRONTIERS_AT + slot as u64 * FRONTIERS_BYTES + log as u64 * LINE_BYTES
    }

    /// Offset of a place for the frontier line of each log with the log's chain line behind it,
    /// for those who read all of a topic at once. Only the sequenced log's frontier is there.
    pub fn log_lines(&self, slot: usize) -> u64 {
        self.log(slot, 0)
    }

    /// Offset of the chain line of log `log` of the topic in `slot`.
    pub fn chain(&self, slot: usize, log: usize) -> u64 {
        self.log(slot, log) + LINE_BYTES
    }

    /// Offset of the ring line of (topic in `slot`, broker).
    pub fn ring(&self, slot: usize, broker: BrokerId) -> u64 {
        self.log(slot, 0) + (LOGS_PER_TOPIC + broker.index()) as u64 * LOG_BYTES
    }

    /// Offset of the consumed line of (topic in `slot`, broker).
    pub fn consumed(&self, slot: usize, broker: BrokerId) -> u64 {
        self.ring(slot, broker) + LINE_BYTES
    }

    /// Offset of the line of disk replica `replica`, from 0, of what `source` landed for the topic
    /// in `slot`. Its writer is the broker that keeps the replica.
    pub fn replica(&self, slot: usize, source: BrokerId, replica: usize) -> u64 {
        assert!(
            slot < TOPICS_MAX && replica < DISK_REPLICAS_MAX,
            "replica {replica} of topic slot {slot}"
        );
        let line = source.index() * DISK_REPLICAS_MAX + replica;
        REPLICAS_AT + slot as u64 * REPLICAS_BYTES + line as u64 * LINE_BYTES
    }

    /// Offset of the line of broker `keeper`, below `STAND_INS_MAX`, for a copy that it keeps in
    /// place of another broker for the topic in `slot`. Its writer is that broker.
    pub fn stand_in(&self, slot: usize, keeper: BrokerId, line: usize) -> u64 {
        assert!(slot < TOPICS_MAX && line < STAND_INS_MAX, "line {line} of topic slot {slot}");
        let line = keeper.index() * STAND_INS_MAX + line;
        STAND_INS_AT + slot as u64 * STAND_INS_BYTES + line as u64 * LINE_BYTES
    }

    /// Offset of the word that says who keeps the copies of what `source` landed for the topic in
    /// `slot`.
    pub fn keepers(&self, slot: usize, source: BrokerId) -> u64 {
        assert!(slot < TOPICS_MAX, "topic slot {slot} of {TOPICS_MAX}");
        self.slot_at + KEEPERS_IN + slot as u64 * KEEPERS_BYTES + source.index() as u64 * 8
    }

    /// Offset of the word that says how far disks had what `source` landed for the topic in `slot`
    /// when that came back.
    pub fn tail(&self, slot: usize, source: BrokerId) -> u64 {
        assert!(slot < TOPICS_MAX, "topic slot {slot} of {TOPICS_MAX}");
        self.slot_at + TAILS_IN + slot as u64 * TAILS_BYTES + source.index() as u64 * 8
    }

    /// Offset of the line in which `keeper` says what the copies that it keeps for the topic in
    /// `slot` have lost. Its writer is that broker.
    pub fn lost(&self, slot: usize, keeper: BrokerId) -> u64 {
        assert!(slot < TOPICS_MAX, "topic slot {slot} of {TOPICS_MAX}");
        LOST_AT + slot as u64 * LOST_BYTES + keeper.index() as u64 * LINE_BYTES
    }

    /// Offset of a session's line, if there is one of that index.
    pub fn session(&self, index: u32) -> Option<u64> {
        let at = self.slot_at + SESSIONS_IN;
        (index < self.sessions).then(|| at + u64::from(index) * LINE_BYTES)
    }

    /// Offset of a segment's header, if there is such a segment.
    pub fn segment_header(&self, segment: SegmentId) -> Option<u64> {
        let at = self.slot_at + self.headers_at;
        (segment.0 < self.segments).then(|| at + u64::from(segment.0) * LINE_BYTES)
    }

    /// Offset of a segment's first byte, if there is such a segment.
    pub fn segment(&self, segment: SegmentId) -> Option<u64> {
        (segment.0 < self.segments)
            .then(|| self.segments_at + u64::from(segment.0) * self.segment_bytes)
    }

    /// Offset of `bytes` bytes at `offset` in a segment, if they lie inside it.
    pub fn span(&self, segment: SegmentId, offset: u32, bytes: u32) -> Option<u64> {
        let at = self.segment(segment)?;
        (u64::from(offset) + u64::from(bytes) <= self.segment_bytes).then(|| at + u64::from(offset))
    }

    /// Offset of the lines of the command ring from control to a broker.
    pub fn commands(&self, broker: BrokerId) -> u64 {
        let lines = self.slot_at + self.taken_at + BROKERS_MAX as u64 * LINE_BYTES;
        lines + broker.index() as u64 * COMMAND_RING_BYTES
    }

    /// Offset of the lines of the request ring from a broker to control.
    pub fn requests(&self, broker: BrokerId) -> u64 {
        REQUESTS_AT + broker.index() as u64 * COMMAND_RING_BYTES
    }

    /// Offset of the word that says how many requests of a broker control has taken, on a line that
    /// has only one more word.
    pub fn requests_taken(&self, broker: BrokerId) -> u64 {
        self.slot_at + self.taken_at + broker.index() as u64 * LINE_BYTES
    }

    /// Offset of the word that names the process of a broker's number that the leader counts on. It
    /// lies beside the one above, which control writes too.
    pub fn counted(&self, broker: BrokerId) -> u64 {
        self.requests_taken(broker) + 8
    }

    /// Offset of a process's counters: brokers by number, then [`CONTROL_BLOCK`].
    pub fn counters(&self, block: usize) -> u64 {
        assert!(block < PROCESS_BLOCKS, "counter block {block} of {PROCESS_BLOCKS}");
        if block == CONTROL_BLOCK {
            return self.slot_at + self.slot_bytes - ERROR_LOG_BYTES - COUNTER_BLOCK_BYTES;
        }
        COUNTERS_AT + block as u64 * COUNTER_BLOCK_BYTES
    }

    /// Offset of a process's distinct errors: brokers by number, then [`CONTROL_BLOCK`].
    pub fn errors(&self, block: usize) -> u64 {
        assert!(block < PROCESS_BLOCKS, "error block {block} of {PROCESS_BLOCKS}");
        if block == CONTROL_BLOCK {
            return self.slot_at + self.slot_bytes - ERROR_LOG_BYTES;
        }
        ERRORS_AT + block as u64 * ERROR_LOG_BYTES
    }
}

const _: () = {
    assert!(BROKER_BYTES >= 6 * LINE_BYTES, "status, parked, three of address, commands taken");
    assert!(LEADERS_MAX as u64 * LINE_BYTES <= PAGE_BYTES && LEADERS_MAX <= u8::MAX as usize);
    assert!(KEEPERS_BYTES.is_multiple_of(LINE_BYTES) && STAND_INS_AT.is_multiple_of(LINE_BYTES));
    assert!(SESSIONS_IN.is_multiple_of(LINE_BYTES) && COUNTERS_AT.is_multiple_of(LINE_BYTES));
};
