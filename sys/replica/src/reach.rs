//! How far each log of a topic is whole in the directories that are there, whoever kept it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::replica::Body;

use crate::names::{list_source, source_directory};
use crate::topic::TopicFile;
use crate::walk::Walk;

/// Logs of a topic, each counted once.
#[derive(Debug)]
pub struct Reach<'a> {
    topics: &'a [PathBuf],
    is_sequenced: bool,
    counted: RefCell<BTreeMap<usize, u64>>,
}

impl<'a> Reach<'a> {
    /// The topic `file` in the directories `topics`.
    pub fn new(file: &TopicFile, topics: &'a [PathBuf]) -> Self {
        // Of an order that is not known nothing is whole: it has entries of others in between.
        let is_sequenced = file.order().is_none_or(|order| order.is_sequenced());
        Self { topics, is_sequenced, counted: RefCell::default() }
    }

    /// Log index below which every entry of the log that has the source's batches is in a file
    /// that is there, or was passed over when a pool was lost: below that nothing is missing on
    /// any disk.
    pub fn of(&self, source: BrokerId) -> u64 {
        let (log, sources) = match self.is_sequenced {
            true => (SEQUENCED_LOG, BrokerId::all().collect()),
            false => (source.index(), vec![source]),
        };
        *self.counted.borrow_mut().entry(log).or_insert_with(|| self.count(log, &sources))
    }

    fn count(&self, log: usize, sources: &[BrokerId]) -> u64 {
        let mut runs = Vec::new();
        for topic in self.topics {
            let skips = TopicFile::read(topic).ok().and_then(|mut file| file.skipped.remove(&log));
            let skips = skips.iter().flat_map(|skips| skips.ranges());
            runs.extend(skips.map(|range| (range.index, range.to_index)));
            for source in sources {
                runs.extend(runs_in(&source_directory(topic, *source)));
            }
        }
        runs.sort_unstable();
        let end = |end: u64, (from, to): (u64, u64)| if from <= end { end.max(to) } else { end };
        runs.into_iter().fold(0, end)
    }
}

/// Log indexes of the batches and holes in the files of a directory, from one to before another.
fn runs_in(directory: &Path) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (_, path) in list_source(directory, &mut Vec::new()).unwrap_or_default() {
        let Ok(mut walk) = Walk::open(&path) else { continue };
        while let Ok(Some(record)) = walk.next() {
            if !matches!(record.body, Body::Batch { .. } | Body::Hole { .. }) {
                continue;
            }
            let index = record.header.index;
            match runs.last_mut() {
                Some((_, end)) if *end == index => *end += 1,
                _ => runs.push((index, index + 1)),
            }
        }
    }
    runs
}
