//! `topic.json`: a topic's identity and settings, in words.
//!
//! It is what is left of the topic's entry when the pool is gone: enough to make the topic again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use landfall_layout::topic::{Order, TOPIC_CHECK_INGEST, TOPIC_KEEP, TopicEntry, check_name};
use serde::{Deserialize, Serialize};

use crate::error::FileError;
use crate::names::TOPIC_FILE;

/// Version of the document.
pub const SCHEMA_VERSION: u32 = 1;

/// Where a log went on after the loss of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Index of its first entry from then on.
    pub index: u64,
    /// Position of that one's first message.
    pub position: u64,
}

/// A topic as its directory says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the topic table")]
pub struct TopicFile {
    pub schema_version: u32,
    pub name: String,
    pub created_ns: u64,
    pub id: u32,
    pub order: String,
    pub ring_slots: u32,
    pub retention_bytes: u64,
    pub retention_ns: u64,
    pub keep: bool,
    pub check_ingest: bool,
    pub durability: String,
    pub replicas: u8,
    pub replica_brokers: u8,
    #[serde(default)]
    pub disk_bytes: u64,
    #[serde(default)]
    pub disk_ns: u64,
    pub session_lease_ns: u64,
    pub pool_uuid: String,
    #[serde(default)]
    pub pool_bytes: u64,
    /// By number of the log; empty for a topic whose pool was never lost.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resumed: BTreeMap<usize, Resumed>,
}

impl TopicFile {
    /// The topic of an entry that serves, in the pool `pool_uuid` of `pool_bytes`; `None` where its
    /// order is one this program does not know.
    pub fn of(entry: &TopicEntry, pool_uuid: &str, pool_bytes: u64) -> Option<Self> {
        Some(Self {
            schema_version: SCHEMA_VERSION,
            name: entry.name().to_owned(),
            created_ns: entry.created_ns,
            id: entry.id,
            order: entry.order()?.name().to_owned(),
            ring_slots: entry.ring_slots,
            retention_bytes: entry.retention_bytes,
            retention_ns: entry.retention_ns,
            keep: entry.flags & TOPIC_KEEP != 0,
            check_ingest: entry.flags & TOPIC_CHECK_INGEST != 0,
            durability: entry.durability().name().to_owned(),
            replicas: entry.replicas,
            replica_brokers: entry.replica_brokers,
            disk_bytes: entry.disk_bytes,
            disk_ns: entry.disk_ns,
            session_lease_ns: entry.session_lease_ns,
            pool_uuid: pool_uuid.to_owned(),
            pool_bytes,
            resumed: BTreeMap::new(),
        })
    }

    /// The topic's order.
    pub fn order(&self) -> Option<Order> {
        self.order.parse().ok()
    }

    /// What the file in a topic's directory says.
    pub fn read(topic: &Path) -> Result<Self, FileError> {
        let path = topic.join(TOPIC_FILE);
        let text = fs::read(&path).map_err(FileError::io("read", &path))?;
        let wrong = |why: String| FileError::Topic { path: path.clone(), why };
        let file: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if file.schema_version != SCHEMA_VERSION {
            let version = file.schema_version;
            return Err(wrong(format!(
                "it has schema version {version}; this program knows {SCHEMA_VERSION}"
            )));
        }
        check_name(&file.name).map_err(|error| wrong(error.to_string()))?;
        if file.order().is_none() {
            return Err(wrong(format!("{:?} is no order", file.order)));
        }
        Ok(file)
    }

    /// Writes the file in a topic's directory, whole or not at all. The caller syncs the
    /// directory.
    pub fn write(&self, topic: &Path) -> Result<(), FileError> {
        let path = topic.join(TOPIC_FILE);
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| FileError::Topic { path: path.clone(), why: error.to_string() })?;
        text.push(b'\n');
        let fresh = topic.join(format!("{TOPIC_FILE}.new"));
        let mut file = File::create(&fresh).map_err(FileError::io("create", &fresh))?;
        file.write_all(&text).map_err(FileError::io("write", &fresh))?;
        file.sync_all().map_err(FileError::io("sync", &fresh))?;
        fs::rename(&fresh, &path).map_err(FileError::io("rename", &fresh))
    }
}
