//! Every bound of the system, and the relations between them.

/// Bytes in a coherence line on every host that maps the pool. Part of the format: it does not
/// follow the compiler's target.
pub const LINE_BYTES: u64 = 64;
/// Bytes in the pages that the fixed tables are aligned to.
pub const PAGE_BYTES: u64 = 4096;

/// Brokers of one pool. A broker mask fits one word with room to spare.
pub const BROKERS_MAX: usize = 32;
/// Leader slots of a pool: the leader's, its predecessor's, and those of leaders that were deposed
/// and whose processes are not known to be gone.
pub const LEADERS_MAX: usize = 4;
/// Topics of one pool; a topic's slot is the low byte of its id.
pub const TOPICS_MAX: usize = 256;
/// Logs a topic may have: one a broker (orders `none` and `broker`), and the sequenced one.
pub const LOGS_PER_TOPIC: usize = BROKERS_MAX + 1;
/// The log that the sequencer writes.
pub const SEQUENCED_LOG: usize = BROKERS_MAX;
/// Copies of a batch, the pool counted as the first.
pub const REPLICAS_MAX: usize = 4;
/// Copies of a batch on disk.
pub const DISK_REPLICAS_MAX: usize = REPLICAS_MAX - 1;
/// Copies of other brokers that a broker may keep for one topic while those are away, each with a
/// line of its own. With as many brokers as there may be, four each are more than all copies.
pub const STAND_INS_MAX: usize = 4;
/// Bytes after which a replica's file is followed by another, when nobody says otherwise.
pub const RECORDS_FILE_BYTES: u64 = 64 << 20;
/// Bytes in a topic's name. The alphabet is that of `topic::check_name`.
pub const TOPIC_NAME_BYTES_MAX: usize = 120;

/// Smallest segment: one huge page, and the alignment of devdax.
pub const SEGMENT_BYTES_MIN: u64 = 2 << 20;
/// Segment size when nobody says otherwise: eight batches of 1 MiB, two of the largest.
pub const SEGMENT_BYTES_DEFAULT: u64 = 8 << 20;
/// Largest segment: offsets in it are 32 bits, with room.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Fewest segments a pool can do anything with: payload, ring and order log, each with a spare.
pub const SEGMENTS_MIN: u64 = 8;
/// Most segments: the header table stays below 64 MiB.
pub const SEGMENTS_MAX: u64 = 1 << 20;
/// Pool size when nobody says otherwise.
pub const POOL_BYTES_DEFAULT: u64 = 1 << 30;

/// Session lines when nobody says otherwise.
pub const SESSIONS_DEFAULT: u32 = 16_384;
/// Most session lines of one pool.
pub const SESSIONS_MAX: u32 = 1 << 20;

/// Bytes of a batch as it lies in a segment: preamble and payload.
pub const BATCH_BYTES_MAX: u32 = 4 << 20;
/// Messages in a batch: the count is 16 bits everywhere.
pub const BATCH_MESSAGES_MAX: u32 = 65_535;
/// Bytes in a message's key.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;
/// Bytes of key and payload together that fit a batch of one message.
pub const MESSAGE_BYTES_MAX: u32 = BATCH_BYTES_MAX - 64 - 16;

/// Fewest slots in a batch-header ring.
pub const RING_SLOTS_MIN: u32 = 16;
/// Slots in a ring when a topic does not say.
pub const RING_SLOTS_DEFAULT: u32 = 4096;
/// Most slots in a ring. Order entries carry the low 32 bits of a ring index, which is enough to
/// name a slot only while a ring is much shorter than that.
pub const RING_SLOTS_MAX: u32 = 16_384;

/// Lines in each command ring between control and a broker.
pub const COMMAND_LINES: u64 = 256;
/// Lines in each ring of a memory client's channel.
pub const CHANNEL_LINES: u64 = 1024;
/// Batches a connection may have landed and not yet been told about. Receipts for all of them fit
/// the channel, so a broker never has a receipt and no place for it.
pub const IN_FLIGHT_BATCHES_MAX: u16 = 512;

/// Sequences of a session of order `stream` below its next one of which the sequencer knows each
/// whether it is in the log. A publisher lets its first batch without a receipt fall no further
/// behind, so that it is never asked about one that was forgotten.
pub const STREAM_WINDOW: u64 = 16_384;

/// Lines that say which batches of its sessions a topic lost with a pool.
pub const DOUBT_LINES: usize = BROKERS_MAX;
/// Sequences that one of them has a bit for.
pub const DOUBT_BITS: u64 = 256;

/// Counters of one process.
pub const COUNTERS: usize = 512;
/// Distinct errors a process can show.
pub const ERRORS_MAX: usize = 32;

/// Reservations of positions that one connection may have asked for and not been granted.
pub const RESERVATIONS_MAX: u32 = 64;

/// Segments are written off as lost only after the longest lease, so that a publisher can copy
/// its unacknowledged batches out of a dead broker's segments. Nanoseconds.
pub const SESSION_LEASE_NS: u64 = 10_000_000_000;
/// A token for a connection over verbs is void after this long. Nanoseconds.
pub const TOKEN_LEASE_NS: u64 = 5_000_000_000;
/// Tokens that a broker remembers: issued and not shown yet.
pub const TOKENS_MAX: usize = 4096;
/// A publisher over verbs that has said nothing for this long is let go, unless the broker was
/// told another time. Longer than a queue pair's own retries to a dead peer (some four seconds).
/// Nanoseconds.
pub const VERBS_LEASE_NS: u64 = 30_000_000_000;
/// Either side of a verbs connection says something at least this often. Nanoseconds.
pub const VERBS_BEAT_NS: u64 = 1_000_000_000;
/// A broker says something on a socket at least this often, so that a client which hears nothing
/// knows that it is not because there is nothing to say. Nanoseconds.
pub const STREAM_BEAT_NS: u64 = 1_000_000_000;
/// A client that waits and has heard nothing of its broker for this long asks control about it:
/// before control takes the broker for dead, and later than any beat that is merely late.
/// Nanoseconds.
pub const BROKER_SILENT_NS: u64 = 2_000_000_000;
/// Over TCP a host is asked whether it is there when nothing has come from it for so long, so
/// often, and so many times: then it is gone. Seconds.
pub const PEER_QUIET_S: u32 = 10;
/// See [`PEER_QUIET_S`].
pub const PEER_ASK_EVERY_S: u32 = 5;
/// See [`PEER_QUIET_S`].
pub const PEER_ASKED_MAX: u32 = 4;
/// When it is gone at the latest, also where something is on its way to it. Seconds.
pub const PEER_GONE_S: u32 = PEER_QUIET_S + PEER_ASKED_MAX * PEER_ASK_EVERY_S;
/// A broker or control that has not moved its heartbeat for this long is dead. Nanoseconds.
pub const HEARTBEAT_LEASE_NS: u64 = 3_000_000_000;
/// A copy on disk whose keeper has been away for this long is taken over by another broker.
/// Nanoseconds.
pub const COPY_MOVE_NS: u64 = 30_000_000_000;
/// How often a heartbeat moves. Nanoseconds.
pub const HEARTBEAT_EVERY_NS: u64 = 100_000_000;
/// A broker that has not looked for this long whether control still counts on it writes nothing
/// before it has. Nanoseconds.
pub const AWAY_NS: u64 = HEARTBEAT_LEASE_NS / 3;
/// A process of another host that is silent this long counts as gone where nothing can tell: what
/// it could still write into is used again. Nanoseconds.
pub const ELSEWHERE_GONE_NS: u64 = 60_000_000_000;

const _: () = {
    assert!(SEGMENT_BYTES_MIN.is_power_of_two() && SEGMENT_BYTES_DEFAULT.is_power_of_two());
    assert!(SEGMENT_BYTES_DEFAULT >= BATCH_BYTES_MAX as u64, "the largest batch has to fit");
    assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64, "offsets in a segment are 32 bits");
    assert!(RING_SLOTS_MAX as u64 * 128 <= SEGMENT_BYTES_MIN, "a ring fits every segment");
    assert!(RING_SLOTS_MIN.is_power_of_two() && RING_SLOTS_MAX.is_power_of_two());
    assert!(BATCH_MESSAGES_MAX == u16::MAX as u32);
    assert!((IN_FLIGHT_BATCHES_MAX as u64) < CHANNEL_LINES / 2 + 1, "receipts always fit");
    assert!(STREAM_WINDOW.is_multiple_of(64) && STREAM_WINDOW <= u16::MAX as u64);
    assert!(STREAM_WINDOW >= BROKERS_MAX as u64 * IN_FLIGHT_BATCHES_MAX as u64, "all in flight");
    assert!((RESERVATIONS_MAX as u64) < CHANNEL_LINES / 4, "and so do positions");
    assert!(HEARTBEAT_LEASE_NS >= 10 * HEARTBEAT_EVERY_NS, "a late beat is not a death");
    assert!(AWAY_NS + HEARTBEAT_EVERY_NS < HEARTBEAT_LEASE_NS, "who is away looks in time");
    assert!(ELSEWHERE_GONE_NS >= 10 * HEARTBEAT_LEASE_NS, "declared dead long before it is gone");
    assert!(BROKER_SILENT_NS >= 2 * STREAM_BEAT_NS && BROKER_SILENT_NS >= 2 * VERBS_BEAT_NS);
    assert!(BROKER_SILENT_NS < HEARTBEAT_LEASE_NS, "asked before its segments are others'");
    assert!(PEER_QUIET_S as u64 * 1_000_000_000 > BROKER_SILENT_NS, "beats come more often");
    assert!(SESSION_LEASE_NS > HEARTBEAT_LEASE_NS, "a broker's death is seen within the lease");
    assert!(BROKERS_MAX * STAND_INS_MAX >= BROKERS_MAX * DISK_REPLICAS_MAX, "every copy has one");
    assert!(TOPICS_MAX == 1 << 8, "a topic's slot is the low byte of its id");
    assert!(BROKERS_MAX < u8::MAX as usize, "the last broker number means control");
};
