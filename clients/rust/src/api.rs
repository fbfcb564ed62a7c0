//! What control says and is told, as it stands in its JSON.

use std::collections::BTreeMap;

use landfall_layout::topic::Order;
use serde::{Deserialize, Serialize};

/// Whether control serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Version of this answer's shape.
    pub schema_version: u32,
    /// Whether everything is up.
    pub ready: bool,
    /// Epoch of the leader.
    pub epoch: u64,
    /// Brokers alive.
    pub brokers: u32,
}

/// The pool and its brokers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Version of this answer's shape.
    pub schema_version: u32,
    /// Epoch of the leader.
    pub epoch: u64,
    /// Process id of control.
    pub pid: u64,
    /// The pool.
    pub pool: Pool,
    /// Every broker that ever registered.
    pub brokers: Vec<Broker>,
}

/// The pool as control describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name, 32 hexadecimal digits.
    pub uuid: String,
    /// Path that control opened it by.
    pub path: String,
    /// Bytes of all of it.
    pub bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Segments that nobody uses.
    pub segments_free: u64,
    /// Segments with a page that cannot be read, which are never used again.
    #[serde(default)]
    pub segments_lost: u64,
    /// Bytes of the largest batch, preamble included.
    pub batch_bytes_max: u32,
    /// Session lines.
    pub sessions: u64,
    /// `coherent` or `flush`.
    pub coherence: String,
}

/// One broker as control sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// Its number.
    pub broker: u8,
    /// `serving`, `leaving` or `dead`.
    pub state: String,
    /// Address for TCP, `host:port`.
    pub tcp: String,
    /// Address of its Unix socket, a path or `@name`.
    pub unix: String,
    /// Address for verbs, `host:port`; empty where it has no RDMA.
    #[serde(default)]
    pub verbs: String,
    /// Process id.
    pub pid: u64,
    /// Milliseconds since its last heartbeat; `None` where this control saw none: it may have ended
    /// long before control began.
    pub heartbeat_age_ms: Option<u64>,
    /// The epoch it has seen.
    pub epoch_seen: u64,
}

impl Broker {
    /// Whether it takes new connections.
    pub fn is_serving(&self) -> bool {
        self.state == "serving"
    }
}

/// The right to open one connection over verbs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Version of this answer's shape.
    pub schema_version: u32,
    /// Id of the topic it is for.
    pub topic: u32,
    /// The broker that takes it.
    pub broker: u8,
    /// The token, 32 hexadecimal digits.
    pub token: String,
    /// The broker's address for verbs.
    pub verbs: String,
    /// Milliseconds until it is void.
    pub expires_ms: u64,
}

impl Token {
    /// The token as the number that a knock carries.
    pub fn number(&self) -> Option<u128> {
        u128::from_str_radix(&self.token, 16).ok()
    }
}

/// What a new topic shall be. Everything but name and order may be left to control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSpec {
    /// Its name: 1 to 120 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// Its order, by name.
    pub order: String,
    /// Slots of each broker's ring, a power of two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_slots: Option<u32>,
    /// Payload bytes to keep at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<u64>,
    /// Milliseconds to keep a batch at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<u64>,
    /// Keep everything: a full pool is then backpressure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<bool>,
    /// Brokers check each payload's checksum before it is ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_ingest: Option<bool>,
    /// Copies of each batch, the pool counted as the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u8>,
    /// When copies on disk are synced: `sync`, at once, or `window`, now and then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
    /// Bytes of batches to keep on disk at least, in each copy of each broker's batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Milliseconds to keep a batch on disk at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_ms: Option<u64>,
    /// Longest wait for a missing batch of a session, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_lease_ms: Option<u64>,
}

impl TopicSpec {
    /// A topic of that name and order, all else left to control.
    pub fn new(name: impl Into<String>, order: Order) -> Self {
        Self {
            name: name.into(),
            order: order.name().to_owned(),
            ring_slots: None,
            retention_bytes: None,
            retention_ms: None,
            keep: None,
            check_ingest: None,
            replicas: None,
            durability: None,
            disk_bytes: None,
            disk_ms: None,
            session_lease_ms: None,
        }
    }
}

/// A topic as it is. For orders `none` and `broker`, messages and batches are sums over its logs
/// and the positions are those of the longest log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id; a topic of the same name made later has another.
    pub id: u32,
    /// Its order, by name.
    pub order: String,
    /// Slots of each broker's ring.
    pub ring_slots: u32,
    /// Payload bytes to keep at least; 0: as many as the pool has room for.
    pub retention_bytes: u64,
    /// Milliseconds to keep a batch at least; 0: as long as the pool has room.
    pub retention_ms: u64,
    /// Whether everything is kept.
    pub keep: bool,
    /// Whether brokers check payload checksums before a batch is ordered.
    pub check_ingest: bool,
    /// Copies of each batch, the pool counted as the first.
    pub replicas: u8,
    /// When copies on disk are synced: `sync` or `window`.
    #[serde(default = "sync")]
    pub durability: String,
    /// Copies on disk, one for each broker that lands batches and each replica of it.
    #[serde(default)]
    pub replicas_state: Vec<Replica>,
    /// Bytes of batches to keep on disk at least, in each copy; 0: all.
    #[serde(default)]
    pub disk_bytes: u64,
    /// Milliseconds to keep a batch on disk at least; 0: for ever.
    #[serde(default)]
    pub disk_ms: u64,
    /// Longest wait for a missing batch of a session, milliseconds.
    pub session_lease_ms: u64,
    /// Wall clock when it was made, nanoseconds.
    pub created_ns: u64,
    /// Messages so far.
    pub messages: u64,
    /// Batches so far.
    pub batches: u64,
    /// Bytes of them so far.
    pub bytes: u64,
    /// Oldest position that can still be read.
    pub oldest_position: u64,
    /// Position of the next message.
    pub next_position: u64,
    /// Segments it occupies.
    pub segments: u64,
    /// Those of them with a page that cannot be read.
    #[serde(default)]
    pub segments_lost: u64,
}

fn error() -> String {
    "error".to_owned()
}

fn sync() -> String {
    "sync".to_owned()
}

/// A copy on a disk of what one broker landed for a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The broker that keeps it now.
    pub broker: u8,
    /// The broker that keeps it as long as it is not away.
    #[serde(default)]
    pub home: u8,
    /// The broker that landed the batches.
    pub source: u8,
    /// Which copy on disk it is, from 0.
    pub replica: u8,
    /// Index of the log below which it is on stable storage.
    pub durable: u64,
    /// Index of the log below which it is written.
    pub written: u64,
    /// `well`, or `moved` where another broker than its home keeps it well; `failed`, `full`, or
    /// `absent` while its broker has not begun; `disk hangs` where that one's disk does not answer;
    /// `keeper gone`, `keeper frozen` or `keeper silent` where the broker that keeps it is not
    /// there.
    pub state: String,
    /// The system's error number behind a state that is not well; 0: none.
    #[serde(default)]
    pub errno: u32,
}

impl Topic {
    /// The order, if this program knows it.
    pub fn order(&self) -> Option<Order> {
        self.order.parse().ok()
    }
}

/// Counters and latencies of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessCounters {
    /// `control` or `broker-N`.
    pub process: String,
    /// Counters by name.
    pub counters: BTreeMap<String, u64>,
    /// Latency histograms by stage.
    #[serde(default)]
    pub latencies: BTreeMap<String, Latency>,
}

/// A latency histogram: bucket i counts values from 2^i to 2^(i+1) - 1 nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Values counted.
    pub count: u64,
    /// Their sum, nanoseconds.
    pub sum_ns: u64,
    /// Values in each bucket.
    pub buckets: Vec<u64>,
}

/// A distinct error of one process, or a note of what is as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessError {
    /// `control` or `broker-N`.
    pub process: String,
    /// Times it was seen.
    pub count: u64,
    /// Wall clock of the first time, nanoseconds.
    pub first_ns: u64,
    /// Wall clock of the last time, nanoseconds.
    pub last_ns: u64,
    /// `error` or `note`.
    #[serde(default = "error")]
    pub level: String,
    /// The sentence.
    pub text: String,
}
