//! The JSON of the HTTP API: what is asked, what is answered, and what went wrong.

use serde::{Deserialize, Serialize};

/// Version of every document below.
pub const SCHEMA_VERSION: u32 = 1;

/// Body of `POST /v1/topics`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSpec {
    /// Name.
    pub name: String,
    /// Order, by name.
    pub order: String,
    /// Slots of each broker's ring.
    #[serde(default)]
    pub ring_slots: Option<u32>,
    /// Bytes to keep at least; 0: as many as there is room for.
    #[serde(default)]
    pub retention_bytes: Option<u64>,
    /// Milliseconds to keep a batch at least; 0: as long as there is room.
    #[serde(default)]
    pub retention_ms: Option<u64>,
    /// Keep everything.
    #[serde(default)]
    pub keep: Option<bool>,
    /// Brokers check payloads before they are ordered.
    #[serde(default)]
    pub check_ingest: Option<bool>,
    /// Copies, the pool's the first.
    #[serde(default)]
    pub replicas: Option<u8>,
    /// When copies on disk are synced: `sync`, at once, or `window`, now and then.
    #[serde(default)]
    pub durability: Option<String>,
    /// Bytes of batches to keep on disk at least, in each copy; 0: all.
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    /// Milliseconds to keep a batch on disk at least; 0: for ever.
    #[serde(default)]
    pub disk_ms: Option<u64>,
    /// Longest wait for a missing batch of a session, milliseconds.
    #[serde(default)]
    pub session_lease_ms: Option<u64>,
}

/// A topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the topic table and of the frontier line")]
pub struct Topic {
    pub name: String,
    pub id: u32,
    pub order: &'static str,
    pub ring_slots: u32,
    pub retention_bytes: u64,
    pub retention_ms: u64,
    pub keep: bool,
    pub check_ingest: bool,
    pub replicas: u8,
    pub durability: &'static str,
    pub replicas_state: Vec<ReplicaFacts>,
    pub disk_bytes: u64,
    pub disk_ms: u64,
    pub session_lease_ms: u64,
    pub created_ns: u64,
    pub messages: u64,
    pub batches: u64,
    pub bytes: u64,
    pub oldest_position: u64,
    pub next_position: u64,
    pub segments: u32,
    pub segments_lost: u32,
}

/// A copy on a disk, in [`Topic`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[allow(missing_docs, reason = "described in docs/PROTOCOL.md section 10")]
pub struct ReplicaFacts {
    pub broker: u8,
    pub home: u8,
    pub source: u8,
    pub replica: u8,
    pub durable: u64,
    pub written: u64,
    pub state: &'static str,
    pub errno: u32,
}

/// Answer of `GET /v1/health`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "described in docs/PROTOCOL.md section 10")]
pub struct Health {
    pub schema_version: u32,
    pub ready: bool,
    pub epoch: u64,
    pub brokers: u32,
}

/// Answer of `GET /v1/cluster`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "described in docs/PROTOCOL.md section 10")]
pub struct Cluster {
    pub schema_version: u32,
    pub epoch: u64,
    pub pid: u32,
    pub pool: PoolFacts,
    pub brokers: Vec<BrokerFacts>,
}

/// The pool, in [`Cluster`].
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "described in docs/PROTOCOL.md section 10")]
pub struct PoolFacts {
    pub uuid: String,
    pub path: String,
    pub bytes: u64,
    pub segment_bytes: u64,
    pub segments: u32,
    pub segments_free: u32,
    pub segments_lost: u32,
    pub batch_bytes_max: u32,
    pub sessions: u32,
    pub coherence: &'static str,
}

/// A broker, in [`Cluster`].
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "described in docs/PROTOCOL.md section 10")]
pub struct BrokerFacts {
    pub broker: u8,
    pub state: &'static str,
    pub tcp: String,
    pub unix: String,
    pub verbs: String,
    pub pid: u64,
    pub heartbeat_age_ms: Option<u64>,
    pub epoch_seen: u64,
}

/// Body of `POST /v1/topics/{name}/tokens`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSpec {
    /// The broker that the client wants to connect to.
    pub broker: u8,
}

/// A token for one connection over verbs.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "described in docs/PROTOCOL.md section 11")]
pub struct Token {
    pub schema_version: u32,
    pub topic: u32,
    pub broker: u8,
    pub token: String,
    pub verbs: String,
    pub expires_ms: u64,
}

/// Why a request was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Problem {
    /// Bad input.
    pub fn bad(message: impl Into<String>) -> Self {
        Self { status: 400, code: "bad_request", message: message.into() }
    }

    /// No such thing.
    pub fn missing(message: impl Into<String>) -> Self {
        Self { status: 404, code: "not_found", message: message.into() }
    }

    /// It exists already, or is being deleted.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 409, code, message: message.into() }
    }

    /// No room.
    pub fn full(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 503, code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_nobody_knows_is_refused_by_name() {
        let text = r#"{"name":"a","order":"total","retention_byte":5}"#;
        let error = serde_json::from_str::<TopicSpec>(text).unwrap_err().to_string();
        assert!(error.contains("retention_byte") && error.contains("retention_bytes"), "{error}");
    }

    #[test]
    fn name_and_order_are_enough() {
        let spec: TopicSpec = serde_json::from_str(r#"{"name":"a","order":"none"}"#).unwrap();
        assert_eq!((spec.name.as_str(), spec.order.as_str(), spec.keep), ("a", "none", None));
    }
}
