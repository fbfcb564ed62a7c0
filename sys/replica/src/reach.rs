//! How far each log of a topic is whole in the directories that are there, whoever kept it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::replica::{Body, Place, ReplicaHeader};

use crate::lives::{Begins, Row};
use crate::names::{list_source, source_directory};
use crate::topic::TopicFile;
use crate::walk::Walk;

/// Logs of a topic, each counted once.
#[derive(Debug)]
pub struct Reach<'a> {
    topics: &'a [PathBuf],
    is_sequenced: bool,
    /// Bounds let go of the oldest files.
    is_bounded: bool,
    /// What is nowhere, of each log and source; of those that have none, of all sources.
    nowhere: Vec<(usize, Option<u8>, Run)>,
    counted: RefCell<BTreeMap<usize, Vec<Run>>>,
}

/// Log indexes, from one to before another.
type Run = (u64, u64);

impl<'a> Reach<'a> {
    /// The topic `file` in the directories `topics`.
    pub fn new(file: &TopicFile, topics: &'a [PathBuf]) -> Self {
        // Of an order that is not known nothing is whole: it has entries of others in between.
        let is_sequenced = file.order().is_none_or(|order| order.is_sequenced());
        let is_bounded = file.disk_bytes | file.disk_ns != 0;
        let unkept = file.places.unkept.iter();
        let unkept = unkept.map(|it| (it.log, Some(it.source), (it.index, it.to_index)));
        let lost = file.places.lost.logs.iter();
        let lost = lost.flat_map(|(log, runs)| runs.iter().map(|run| (*log, None, *run)));
        let nowhere = unkept.chain(lost).collect();
        Self { topics, is_sequenced, is_bounded, nowhere, counted: RefCell::default() }
    }

    /// Whether nothing that the source landed below log index `below` is missing: every entry of
    /// its log is in a file that is there, or was passed over when a pool was lost, or is on no
    /// disk: a pool that is gone had it alone, or a cold start told of it as lost. Where bounds
    /// let go of files, it may also be that copies in other directories than `own` have all of the
    /// source's from where they let go of nothing on: those of other brokers go at other times.
    pub fn is_whole(&self, source: BrokerId, below: u64, own: &Path) -> bool {
        let mut runs = self.runs(source);
        let mut from = 0;
        if self.is_bounded {
            let mut begins = Begins::default();
            for topic in self.topics.iter().filter(|topic| *topic != own) {
                let (rows, covers) = copy_in(&source_directory(topic, source));
                rows.into_iter().for_each(|row| begins.add(source, row));
                runs.extend(covers);
            }
            from = begins.retired_below();
        }
        runs.sort_unstable();
        let end = |end: u64, (from, to): Run| if from <= end { end.max(to) } else { end };
        runs.into_iter().fold(from, end) >= below
    }

    fn runs(&self, source: BrokerId) -> Vec<Run> {
        let (log, sources) = match self.is_sequenced {
            true => (SEQUENCED_LOG, BrokerId::all().collect()),
            false => (source.index(), vec![source]),
        };
        let mut counted = self.counted.borrow_mut();
        let mut runs = counted.entry(log).or_insert_with(|| self.count(log, &sources)).clone();
        let is_its = |of: &Option<u8>| of.is_none_or(|of| of == source.raw());
        let nowhere = self.nowhere.iter().filter(|(of, landed, _)| *of == log && is_its(landed));
        runs.extend(nowhere.map(|(_, _, run)| run));
        runs
    }

    fn count(&self, log: usize, sources: &[BrokerId]) -> Vec<Run> {
        let mut runs = Vec::new();
        for topic in self.topics {
            let skips = TopicFile::read(topic).map(|file| file.skips_of(log)).unwrap_or_default();
            runs.extend(skips.ranges().iter().map(|range| (range.index, range.to_index)));
            for source in sources {
                runs.extend(runs_in(&source_directory(topic, *source)));
            }
        }
        runs
    }
}

/// Log indexes of the batches and holes in the files of a directory.
fn runs_in(directory: &Path) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
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

/// A copy by its files: its rows, and the log indexes in which it has everything of its source.
fn copy_in(directory: &Path) -> (Vec<Row>, Vec<Run>) {
    let (mut files, mut covers): (Vec<(ReplicaHeader, Place)>, Vec<Run>) = Default::default();
    for (_, path) in list_source(directory, &mut Vec::new()).unwrap_or_default() {
        let Ok(mut walk) = Walk::open(&path) else { continue };
        // What cannot be read ends it there.
        while let Ok(Some(_)) = walk.next() {}
        let header = *walk.header();
        let follows = |(last, end): &(ReplicaHeader, Place)| {
            (header.previous_index, header.first_ordinal) == (last.first_index, end.ordinal)
        };
        let before = if files.last().is_some_and(follows) { covers.pop() } else { None };
        let mut start = before.map_or(header.first_index, |(start, _)| start);
        for damage in walk.damage().iter().filter(|it| it.entries().is_some_and(|n| n > 0)) {
            let missing = damage.indexes();
            covers.push((start, missing.start));
            start = missing.end;
        }
        covers.push((start, walk.place().index));
        files.push((header, walk.place()));
    }
    (Row::all(files.iter().map(|(header, end)| (header, end.index))), covers)
}
