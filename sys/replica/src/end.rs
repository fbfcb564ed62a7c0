//! How far the files of a topic reach, against how far its logs are in a pool.
//!
//! A replica writes what was ordered: its files never reach further than the pool that they are
//! written from. Where they do, the pool is an older copy of itself, and what it took from there on
//! would have positions that are used.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use landfall_layout::BrokerId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::topic::TopicEntry;

use crate::ask::{self, Asked};
use crate::names::{list_topic, topic_directory};
use crate::survey::FileSurvey;
use crate::topic::TopicFile;
use crate::walk::Walk;

/// Where what a directory has of a source ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Broker whose batches they are.
    pub source: BrokerId,
    /// The last of its files that can be read.
    pub path: PathBuf,
    /// Pool that file was begun in.
    pub pool: [u8; 16],
    /// Log index that it reaches.
    pub index: u64,
}

impl End {
    /// The log that has the source's batches.
    pub fn log(&self, entry: &TopicEntry) -> usize {
        match entry.order().is_none_or(|order| order.is_sequenced()) {
            true => SEQUENCED_LOG,
            false => self.source.index(),
        }
    }

    /// The same where every byte before it holds: a head alone may be of a record that was torn.
    fn whole(&self) -> Option<Self> {
        let index = FileSurvey::take(&self.path).ok()?.end.index.min(self.index);
        Some(Self { index, ..self.clone() })
    }
}

/// The ends of what a topic's directory has of each source. Only heads of records are looked at.
pub fn ends(topic: &Path) -> Vec<End> {
    let sources = list_topic(topic, &mut Vec::new()).unwrap_or_default();
    let end = |source: BrokerId, files: Vec<(u64, PathBuf)>| {
        // One that was begun and never had a header has nothing.
        files.into_iter().rev().find_map(|(_, path)| {
            let mut walk = Walk::open(&path).ok()?;
            let pool = walk.header().pool_uuid;
            let index = walk.skim().ok()?;
            Some(End { source, path, pool, index })
        })
    };
    sources.into_iter().filter_map(|source| end(source.source, source.files)).collect()
}

/// The end in a topic's directory that is furthest beyond what `reached` says of its log, if there
/// is one.
pub fn beyond(
    topic: &Path,
    entry: &TopicEntry,
    reached: impl Fn(usize) -> u64,
) -> Option<(End, u64)> {
    furthest(ends(topic), entry, reached)
}

fn furthest(
    ends: Vec<End>,
    entry: &TopicEntry,
    reached: impl Fn(usize) -> u64,
) -> Option<(End, u64)> {
    let further = |end: End| {
        let here = reached(end.log(entry));
        let end = if end.index > here { end.whole()? } else { return None };
        (end.index > here).then_some((end, here))
    };
    ends.into_iter().filter_map(further).max_by_key(|(end, here)| end.index - here)
}

/// A pool is older than a directory that is its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Behind {
    /// The topic.
    pub name: String,
    /// What reaches further, or says so.
    pub path: PathBuf,
    /// Number of the log.
    pub log: usize,
    /// How far it was there.
    pub index: u64,
    /// How far it is in the pool.
    pub here: u64,
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, path, log, index, here } = self;
        write!(
            f,
            "this pool is older than {} says: log {log} of topic {name} was at index {index} there \
             and is at {here} here, as where an older copy of the pool's file was put back; \
             what it took from here on would have positions that are used. Put the latest file \
             back; if that is gone, remove this one and start with --restore: what is durable \
             comes back",
            path.display()
        )
    }
}

impl std::error::Error for Behind {}

/// Looks into the data directories of a pool, `uuid` in bytes and in words, whether files that are
/// its own reach further than `reached` says of a topic's log, asked after they were read: they may
/// grow meanwhile. A directory is waited for until it was silent for `bound`, and `tell` hears of
/// that; one that does not answer is passed over.
pub fn behind(
    data: &[PathBuf],
    (uuid, text): ([u8; 16], &str),
    topics: &[TopicEntry],
    reached: impl Fn(&TopicEntry, usize) -> u64,
    (bound, tell): (Duration, impl Fn(&Path, Duration)),
) -> Option<Behind> {
    let look = |data: &PathBuf| {
        let (path, topics, text) = (data.clone(), topics.to_vec(), text.to_owned());
        ask::begin_within(data, bound, move || {
            let of = |entry: &TopicEntry| {
                let topic = topic_directory(&path, entry.name(), entry.created_ns);
                // A file that other pools began goes on in this one, and says nothing of that.
                let is_its = TopicFile::read(&topic).ok().map(|file| file.pool_uuid == text);
                let mut ends = ends(&topic);
                ends.retain(|end| is_its.unwrap_or(end.pool == uuid));
                ends
            };
            topics.iter().map(of).collect::<Vec<_>>()
        })
    };
    let asked: Vec<Asked<_>> = data.iter().map(look).collect();
    let heard = asked.into_iter().filter_map(|asked| asked.wait_and_tell(&tell).ok());
    let found = heard.flat_map(|ends| topics.iter().zip(ends)).filter_map(|(entry, ends)| {
        let (end, here) = furthest(ends, entry, |log| reached(entry, log))?;
        let (name, log) = (entry.name().to_owned(), end.log(entry));
        Some(Behind { name, path: end.path, log, index: end.index, here })
    });
    found.max_by_key(|behind| behind.index - behind.here)
}
