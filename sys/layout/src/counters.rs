//! Counters and distinct errors that anyone may read from the pool, even from a stuck process.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::limits::{COUNTERS, ERRORS_MAX};

/// Bytes of one process's counters.
pub const COUNTER_BLOCK_BYTES: u64 = COUNTERS as u64 * 8;
/// Bytes of one process's distinct errors.
pub const ERROR_LOG_BYTES: u64 = ERRORS_MAX as u64 * ErrorEntry::BYTES;

/// Buckets of a latency histogram: bucket i counts values from 2^i to 2^(i+1) - 1 nanoseconds.
pub const HISTOGRAM_BUCKETS: usize = 40;

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident = $index:literal, $text:literal;)+) => {
        /// A counter of a process; only grows while the process lives.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Counter { $($(#[$doc])+ $name = $index),+ }

        impl Counter {
            /// All counters.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name, as metrics and tools show it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

counters! {
    /// Batches landed.
    BatchesLanded = 0, "batches_landed_total";
    /// Bytes of them, preamble included.
    BytesLanded = 1, "bytes_landed_total";
    /// Batches whose receipt said ordered or landed.
    Receipts = 2, "receipts_total";
    /// Batches that the sequencer had already ordered.
    Duplicates = 3, "duplicates_total";
    /// Sessions fenced.
    Fenced = 4, "sessions_fenced_total";
    /// Times a full ring stopped a publisher.
    RingFull = 5, "ring_full_total";
    /// Times a missing segment stopped a publisher.
    SegmentWait = 6, "segment_wait_total";
    /// Frames and batches refused.
    Refused = 7, "refused_total";
    /// Payloads or preambles whose checksum did not hold.
    CrcErrors = 8, "crc_errors_total";
    /// Batches delivered to subscribers by this broker.
    BatchesDelivered = 9, "batches_delivered_total";
    /// Bytes of them.
    BytesDelivered = 10, "bytes_delivered_total";
    /// Messages that subscribers were told they missed.
    MessagesMissed = 11, "messages_missed_total";
    /// Publisher connections accepted.
    Publishers = 12, "publisher_connections_total";
    /// Subscriber connections accepted.
    Subscribers = 13, "subscriber_connections_total";
    /// Polls that found work.
    PollsBusy = 14, "polls_busy_total";
    /// Polls that found none.
    PollsEmpty = 15, "polls_empty_total";
    /// Times the loop went to sleep.
    Parks = 16, "parks_total";
    /// Batches ordered.
    BatchesOrdered = 17, "batches_ordered_total";
    /// Messages ordered.
    MessagesOrdered = 18, "messages_ordered_total";
    /// Batches waiting in hold buffers now, in topics of order `token`.
    Held = 19, "batches_held";
    /// Segments given out.
    SegmentsGranted = 20, "segments_granted_total";
    /// Segments that went back to the bitmap.
    SegmentsFreed = 21, "segments_freed_total";
    /// Claims that became padding.
    ClaimsPadded = 22, "claims_padded_total";
    /// Payload bytes that the broker's CPU moved from a socket into a segment.
    BytesReceived = 23, "bytes_received_total";
    /// Payload bytes that the broker's CPU copied within memory while landing.
    BytesCopied = 24, "bytes_copied_total";
    /// Requests to control sent again because no answer came.
    RequestsRepeated = 25, "requests_repeated_total";
    /// Connections over verbs that were refused their token: unknown, used, late, or for another
    /// topic.
    TokensRefused = 26, "tokens_refused_total";
    /// Memory windows bound: extents and segments opened to clients.
    WindowsBound = 27, "windows_bound_total";
    /// Memory windows invalidated.
    WindowsInvalidated = 28, "windows_invalidated_total";
    /// Queue pairs that a client lost by touching what was not its own.
    RemoteAccessErrors = 29, "remote_access_errors_total";
    /// Queue pairs that failed for another reason: the client's host or process is gone.
    QueuePairErrors = 30, "queue_pair_errors_total";
    /// Publishers over verbs let go because they showed no sign of life within the lease.
    LeasesExpired = 31, "leases_expired_total";
    /// Payload bytes that the broker's NIC read from publishers.
    BytesPulled = 32, "bytes_pulled_total";
    /// Batches written to replicas on this broker's disk.
    BatchesReplicated = 33, "batches_replicated_total";
    /// Bytes of them, preamble included.
    BytesReplicated = 34, "bytes_replicated_total";
    /// Syncs of replica files.
    ReplicaSyncs = 35, "replica_syncs_total";
    /// Replicas that stopped: a sync or a write failed, or a batch did not hold.
    ReplicaFailures = 36, "replica_failures_total";
    /// Times a full disk kept a replica from going on.
    ReplicaFull = 37, "replica_full_total";
    /// Log entries between a log's frontier and the replica that is furthest behind, now.
    ReplicaLagEntries = 38, "replica_lag_entries";
    /// Bytes of a log's batches between its frontier and the replica furthest behind, now.
    ReplicaLagBytes = 39, "replica_lag_bytes";
    /// Bytes of replica files that did not hold when they were opened: ends are cut off, and what
    /// lies before records that hold is written again where its batches are elsewhere.
    ReplicaBytesCut = 40, "replica_bytes_cut_total";
    /// Batches whose receipt said durable or replicated.
    DurableReceipts = 41, "durable_receipts_total";
    /// Batches delivered to subscribers out of replica files, because memory had them no more.
    BatchesFromDisk = 42, "batches_from_disk_total";
    /// Subscribers that are served out of replica files now.
    CatchingUp = 43, "catching_up";
    /// Segments of the pool that turned out to be lost: a page of each cannot be read. Control.
    SegmentsLost = 44, "segments_lost_total";
    /// Batches that did not hold in memory and were read from a replica instead.
    BatchesRepaired = 45, "batches_repaired_total";
    /// Batches that a replica counts as lost: they did not hold, and no copy was found.
    BatchesLost = 46, "batches_lost_total";
    /// The longest turn of a broker's loop so far, nanoseconds: whoever came at its beginning had
    /// to wait so long.
    BrokerTurnLongestNs = 47, "broker_turn_longest_ns";
    /// The longest turn of the sequencer so far, nanoseconds. Control.
    SequencerTurnLongestNs = 48, "sequencer_turn_longest_ns";
    /// The longest turn of the keeper so far, nanoseconds. Control.
    KeeperTurnLongestNs = 49, "keeper_turn_longest_ns";
}

/// A latency histogram in a counter block: count, sum, then its buckets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// From sealed by the publisher to landed. Broker.
    SealedToLanded = 0,
    /// From landed to ordered. Control; for orders `none` and `broker`, the broker.
    LandedToOrdered = 1,
    /// From landed to handed to a subscriber's socket. Broker.
    LandedToDelivered = 2,
    /// From landed to a durable or replicated receipt. Broker.
    LandedToDurable = 3,
    /// One sync of a replica's file. Broker.
    ReplicaSync = 4,
}

impl Stage {
    /// All stages.
    pub const ALL: &[Self] = &[
        Self::SealedToLanded,
        Self::LandedToOrdered,
        Self::LandedToDelivered,
        Self::LandedToDurable,
        Self::ReplicaSync,
    ];

    /// Its name, as metrics and tools show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SealedToLanded => "sealed_to_landed",
            Self::LandedToOrdered => "landed_to_ordered",
            Self::LandedToDelivered => "landed_to_delivered",
            Self::LandedToDurable => "landed_to_durable",
            Self::ReplicaSync => "replica_sync",
        }
    }

    /// Index in the counter block of its count; the sum is next, then the buckets.
    pub fn first_counter(self) -> usize {
        64 + self as usize * (2 + HISTOGRAM_BUCKETS)
    }
}

/// The bucket of a value in nanoseconds.
pub fn bucket(ns: u64) -> usize {
    (63 - ns.max(1).leading_zeros() as usize).min(HISTOGRAM_BUCKETS - 1)
}

const _: () = {
    assert!(64 + 5 * (2 + HISTOGRAM_BUCKETS) <= COUNTERS);
};

/// One distinct error of a process. Writer: that process. Readers: tools.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ErrorEntry {
    /// Times it was seen; zero: the entry is unused. Stored after the text.
    pub count: u64,
    /// Wall clock of the first time, nanoseconds.
    pub first_ns: u64,
    /// Wall clock of the last time, nanoseconds.
    pub last_ns: u64,
    /// Bytes of `text`.
    pub text_bytes: u32,
    /// 0: an error. 1: a note, of what is as it should be.
    pub level: u32,
    /// The sentence, UTF-8, cut to fit.
    pub text: [u8; 224],
}

lines!(ErrorEntry, 4, {
    count @ 0, first_ns @ 8, last_ns @ 16, text_bytes @ 24, level @ 28, text @ 32,
});

impl ErrorEntry {
    /// `level` of a note.
    pub const NOTE: u32 = 1;

    /// Whether it is a note, and no error.
    pub fn is_note(&self) -> bool {
        self.level == Self::NOTE
    }

    /// The sentence; empty when the entry says nothing readable.
    pub fn text(&self) -> &str {
        self.text
            .get(..self.text_bytes as usize)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or("")
    }
}
