//! What the replicas of a topic have, read from their files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::replica::Body;
use landfall_replica::names::{TopicListing, list};
use landfall_replica::{FileError, TopicFile, Walk};

use super::plan::Span;

/// A publisher's session as its last batch on disk says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastOf {
    /// Session epoch.
    pub epoch: u32,
    /// Sequence of the last batch.
    pub seq: u64,
}

/// A topic on disk.
#[derive(Debug)]
pub struct Found {
    /// What its directories say; of how much the pool had and where logs went on, the most.
    pub file: TopicFile,
    /// Its directories.
    pub directories: Vec<PathBuf>,
    /// Batches and holes of each log.
    pub spans: BTreeMap<usize, Vec<Span>>,
    /// How far each log was seen ordered.
    pub seen: BTreeMap<usize, FrontierLine>,
    /// Sessions by client.
    pub sessions: BTreeMap<u64, LastOf>,
}

/// Finds the topics in the data directories of brokers. Of several topics of one name the latest
/// counts. What cannot be read becomes a sentence.
pub fn find(directories: &[impl AsRef<Path>], notes: &mut Vec<String>) -> Vec<Found> {
    let mut topics: BTreeMap<String, Vec<TopicListing>> = BTreeMap::new();
    for directory in directories {
        let directory = directory.as_ref();
        match list(directory) {
            Ok(listing) => {
                for topic in listing.topics {
                    topics.entry(topic.name.clone()).or_default().push(topic);
                }
            }
            // A broker that never kept a replica has no directory.
            Err(_) if !directory.exists() => {}
            Err(error) => notes.push(error.to_string()),
        }
    }
    topics.into_values().filter_map(|listings| read_topic(listings, notes)).collect()
}

fn read_topic(listings: Vec<TopicListing>, notes: &mut Vec<String>) -> Option<Found> {
    let latest = listings.iter().map(|listing| listing.created_ns).max()?;
    let mut found: Option<Found> = None;
    for listing in &listings {
        if listing.created_ns != latest {
            notes.push(format!(
                "{} is of an earlier topic {}: left alone",
                listing.path.display(),
                listing.name
            ));
            continue;
        }
        let file = match TopicFile::read(&listing.path) {
            Ok(file) => file,
            Err(error) => {
                notes.push(error.to_string());
                continue;
            }
        };
        let found = found.get_or_insert_with(|| Found {
            file: file.clone(),
            directories: Vec::new(),
            spans: BTreeMap::new(),
            seen: BTreeMap::new(),
            sessions: BTreeMap::new(),
        });
        found.directories.push(listing.path.clone());
        found.file.pool_bytes = found.file.pool_bytes.max(file.pool_bytes);
        for (log, resumed) in file.resumed {
            let most = found.file.resumed.entry(log).or_insert(resumed);
            most.index = most.index.max(resumed.index);
            most.position = most.position.max(resumed.position);
        }
        for source in &listing.sources {
            for (_, path) in &source.files {
                if let Err(error) = found.read(source.source, path, notes) {
                    notes.push(error.to_string());
                }
            }
        }
    }
    found
}

impl Found {
    fn read(
        &mut self,
        source: BrokerId,
        path: &Path,
        notes: &mut Vec<String>,
    ) -> Result<(), FileError> {
        let sequenced = self.file.order().is_some_and(|order| order.is_sequenced());
        let log = if sequenced { SEQUENCED_LOG } else { source.index() };
        let mut walk = Walk::open(path)?;
        while let Some(record) = walk.next()? {
            match record.body {
                Body::Batch { entry, .. } | Body::Hole { entry, .. } => {
                    self.take(log, record.header.index, &entry);
                }
                Body::Frontier(line) => {
                    let seen = self.seen.entry(log).or_default();
                    if line.entries > seen.entries {
                        *seen = line;
                    }
                }
            }
        }
        if let Some(why) = walk.header_fault() {
            notes.push(format!("{}: {why}; its records are read", path.display()));
        }
        for damage in walk.damage() {
            notes.push(format!("{}: {damage}", path.display()));
        }
        Ok(())
    }

    fn take(&mut self, log: usize, index: u64, entry: &OrderEntry) {
        let (first, end, is_hole) = (entry.first_position, entry.end_position(), entry.is_hole());
        self.spans.entry(log).or_default().push(Span { index, first, end, is_hole });
        // A hole's session had an epoch, and no batch there: its sequence is 0.
        let last = LastOf { epoch: entry.session_epoch, seq: entry.batch_seq };
        let known = self.sessions.entry(entry.client).or_insert(last);
        known.epoch = known.epoch.max(last.epoch);
        known.seq = known.seq.max(last.seq);
    }
}
