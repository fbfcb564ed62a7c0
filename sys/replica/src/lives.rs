//! Where logs ended and went on, from one pool to the next.

use std::collections::BTreeMap;

use landfall_layout::BrokerId;
use landfall_layout::frame::GapReason;
use landfall_layout::replica::{NO_FILE, ReplicaHeader};
use serde::{Deserialize, Serialize};

/// Ranges that are remembered of a log. One comes with each loss of a pool that was not stopped in
/// good order; of more losses than this the oldest look as if retention had taken them.
pub const SKIPS_MAX: usize = 1024;

/// A place in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Index of the next entry.
    pub index: u64,
    /// Position of its first message.
    pub position: u64,
}

/// Where a log ended, and what its replicas had then: everything. Of a broker that it does not name
/// nobody knew how much there was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedLog {
    /// Index behind the last entry.
    pub index: u64,
    /// Position behind the last message.
    pub position: u64,
    /// Batches and holes of each broker, by its number.
    pub entries: BTreeMap<u8, u64>,
    /// Log index that files of each broker have to reach to have all of its entries. Documents of
    /// earlier programs do not say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tails: BTreeMap<u8, u64>,
    /// Log index from which on no file has anything of what these brokers landed: their copies
    /// failed or were not kept, and the rest is in the pool alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unkept: BTreeMap<u8, u64>,
}

impl EndedLog {
    /// What the pool alone had of log number `log`, which ended here.
    pub fn unkept(&self, log: usize) -> impl Iterator<Item = Unkept> {
        let to_index = self.index;
        let all = self.unkept.iter().filter(move |(_, index)| **index < to_index);
        all.map(move |(source, index)| Unkept { index: *index, to_index, log, source: *source })
    }

    /// Whether files of what `source` landed that have everything below log index `covers`, and
    /// `entries` entries, had all of it by then. As many entries may be others where the files are
    /// older, or another disk's: it is the place that counts, wherever one is said. What is not
    /// known is reached by nothing: files that were taken for whole are never filled.
    pub fn is_reached(&self, source: u8, covers: u64, entries: u64) -> bool {
        match (self.tails.get(&source), self.entries.get(&source)) {
            (Some(tail), _) => covers >= *tail,
            (None, Some(had)) => entries >= *had,
            (None, None) => false,
        }
    }

    /// Takes what a later end counts: who is in both counts as that one says.
    pub fn go_on(&mut self, later: &Self) {
        for (source, entries) in &later.entries {
            self.tails.remove(source);
            self.tails.extend(later.tails.get(source).map(|tail| (*source, *tail)));
            self.entries.insert(*source, *entries);
        }
        self.index = self.index.max(later.index);
        self.position = self.position.max(later.position);
    }
}

/// What a broker landed that was in a pool alone when that was stopped in good order: no file ever
/// had an entry of it among these log indexes. The pool is gone, and the log went on behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unkept {
    /// The first log index.
    pub index: u64,
    /// Log index at which the log had ended.
    pub to_index: u64,
    /// Number of the log.
    pub log: usize,
    /// The broker.
    pub source: u8,
}

impl Unkept {
    /// Whether it is what `source` landed in a log.
    pub fn is_of(&self, log: usize, source: u8) -> bool {
        (self.log, self.source) == (log, source)
    }

    /// Whether a log index is among them.
    pub fn contains(&self, index: u64) -> bool {
        (self.index..self.to_index).contains(&index)
    }
}

/// A pool that was stopped in good order: nothing was ordered behind this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The logs whose every entry was on stable storage, by number.
    pub logs: BTreeMap<usize, EndedLog>,
}

impl Ended {
    /// What is known of copies after a later end, too.
    pub fn go_on(&mut self, later: &Self) {
        for (log, later) in &later.logs {
            self.logs.entry(*log).or_default().go_on(later);
        }
    }
}

/// What a log passed over when a pool was lost. No disk has anything of it. Some of it may have
/// been ordered and shown from memory; most of it never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skipped {
    /// First position.
    pub position: u64,
    /// Position at which the log went on.
    pub to_position: u64,
    /// First log index.
    pub index: u64,
    /// Log index at which the log went on.
    pub to_index: u64,
}

impl Skipped {
    /// All that lies in front of a place.
    pub fn below(place: Resumed) -> Self {
        Self { position: 0, to_position: place.position, index: 0, to_index: place.index }
    }
}

/// All that a log passed over, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Skips(Vec<Skipped>);

/// A part of a gap that has one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The position behind it.
    pub end: u64,
    /// It was passed over.
    pub is_skipped: bool,
    /// The log passed something over behind it, within the gap.
    pub is_before_skip: bool,
}

impl Part {
    /// Why nothing is there. `is_lost`: retention did not take it.
    pub fn reason(&self, is_lost: bool) -> GapReason {
        match (self.is_skipped, is_lost || self.is_before_skip) {
            (true, _) => GapReason::Skipped,
            (false, true) => GapReason::Lost,
            (false, false) => GapReason::Retention,
        }
    }
}

/// The first part of the gap from position `from` to `to`, where positions of `range` were passed
/// over: the first range that ends behind `from`.
pub fn first_part(from: u64, to: u64, range: Option<(u64, u64)>) -> Part {
    match range.filter(|(start, end)| from < *end && *start < to) {
        Some((start, end)) if start <= from => {
            Part { end: end.min(to), is_skipped: true, is_before_skip: false }
        }
        Some((start, end)) => Part { end: start, is_skipped: false, is_before_skip: end <= to },
        None => Part { end: to, is_skipped: false, is_before_skip: false },
    }
}

/// Files of a copy that follow each other without anything left out. One that was begun anew begins
/// another row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Log index from which on it has everything.
    pub start: u64,
    /// The one up to which it has.
    pub end: u64,
    /// Its oldest file says that the copy had something before it.
    pub is_behind: bool,
    /// Also that no file here has it, though the row goes on from one or the copy has none before
    /// it: bounds let go of that, or somebody took it.
    pub is_cut: bool,
}

impl Row {
    /// A copy's first row, by the header of its oldest file that can be read, up to `end`. A file
    /// that was begun anew had others before it too, as its entries say: where it is the oldest
    /// that is left, those were let go of.
    pub fn first(oldest: &ReplicaHeader, end: u64) -> Self {
        let is_behind = oldest.is_behind();
        Self { start: oldest.first_index, end, is_behind, is_cut: is_behind }
    }

    /// A row that has another one of its copy before it.
    pub fn later(oldest: &ReplicaHeader, end: u64) -> Self {
        let is_cut = oldest.previous_index != NO_FILE;
        Self { start: oldest.first_index, end, is_behind: oldest.is_behind(), is_cut }
    }

    /// The rows of a copy, by the headers and the ends of its files, in their order. A file that is
    /// missing among them is damage, and ends no row.
    pub fn all<'a>(files: impl IntoIterator<Item = (&'a ReplicaHeader, u64)>) -> Vec<Self> {
        let mut rows: Vec<Self> = Vec::new();
        for (header, end) in files {
            match rows.last_mut() {
                None => rows.push(Self::first(header, end)),
                Some(_) if header.previous_index == NO_FILE => rows.push(Self::later(header, end)),
                Some(row) => row.end = row.end.max(end),
            }
        }
        rows
    }
}

/// Where the copies of each source begin.
#[derive(Clone, Debug, Default)]
pub struct Begins(BTreeMap<BrokerId, Vec<Row>>);

impl Begins {
    /// Adds a row of a copy.
    pub fn add(&mut self, source: BrokerId, row: Row) {
        self.0.entry(source).or_default().push(row);
    }

    /// Log index below which bounds may have let go of what is in no file. All of it was once in
    /// every copy that was being written, whoever landed it: no file goes before its batches have
    /// left memory.
    pub fn retired_below(&self) -> u64 {
        self.0.values().filter_map(|rows| taken(rows)).max().unwrap_or_default()
    }
}

/// Log index below which bounds may have let go of what one source landed, if they let go of any.
/// The row that begins first says it. One that ended before another was cut is old: its keeper was
/// away, and it has nothing to say of what was landed and let go of meanwhile.
fn taken(rows: &[Row]) -> Option<u64> {
    rows.iter().find(|row| row.is_behind)?;
    let cut = rows.iter().filter(|row| row.is_cut).map(|row| row.start).max().unwrap_or_default();
    rows.iter().filter(|row| row.end >= cut).map(|row| row.start).min()
}

impl Skips {
    /// The ranges.
    pub fn ranges(&self) -> &[Skipped] {
        &self.0
    }

    /// Adds a range, behind all others or among them. Those that meet become one.
    pub fn add(&mut self, range: Skipped) {
        if range.position >= range.to_position && range.index >= range.to_index {
            return;
        }
        self.0.push(range);
        self.0.sort_unstable();
        let mut met: Vec<Skipped> = Vec::with_capacity(self.0.len());
        for range in self.0.drain(..) {
            match met.last_mut() {
                Some(last) if range.position <= last.to_position => {
                    last.to_position = last.to_position.max(range.to_position);
                    last.index = last.index.min(range.index);
                    last.to_index = last.to_index.max(range.to_index);
                }
                _ => met.push(range),
            }
        }
        met.drain(..met.len().saturating_sub(SKIPS_MAX));
        self.0 = met;
    }

    /// Adds what a log passed over last, as the pool says it: only which positions.
    pub fn add_positions(&mut self, (position, to_position): (u64, u64)) {
        let is_new = !self.0.iter().any(|range| range.to_position >= to_position);
        if is_new && position < to_position {
            self.add(Skipped { position, to_position, index: u64::MAX, to_index: 0 });
        }
    }

    /// Adds what another directory says of the same log.
    pub fn join(&mut self, other: &Self) {
        other.0.iter().for_each(|range| self.add(*range));
    }

    /// Entries that were passed over.
    pub fn entries(&self) -> u64 {
        self.0.iter().map(|range| range.to_index.saturating_sub(range.index)).sum()
    }

    /// Positions that were.
    pub fn positions(&self) -> u64 {
        self.0.iter().map(|range| range.to_position.saturating_sub(range.position)).sum()
    }

    /// The first range that ends behind position `from`.
    pub fn behind(&self, from: u64) -> Option<&Skipped> {
        self.0.iter().find(|range| range.to_position > from)
    }

    /// The gap from a place up to position `to` in parts: the position behind each, and why no file
    /// has anything of it. Retention may have taken what begins below log index `retired_below`;
    /// what begins there or behind it was lost.
    pub fn reasons(&self, from: Resumed, to: u64, retired_below: u64) -> Vec<(u64, GapReason)> {
        let Resumed { mut index, position: mut at } = from;
        let mut parts = Vec::new();
        while at < to {
            let range = self.behind(at);
            let part = first_part(at, to, range.map(|range| (range.position, range.to_position)));
            let reason = match part.is_skipped {
                true => GapReason::Skipped,
                false if index >= retired_below => GapReason::Lost,
                false => GapReason::Retention,
            };
            if let Some(range) = range.filter(|_| part.is_skipped) {
                index = index.max(range.to_index);
            }
            at = part.end;
            parts.push((at, reason));
        }
        parts
    }

    /// Whether the log passed over all entries from index `from` to below `to`, or there are none.
    pub fn has_passed(&self, from: u64, to: u64) -> bool {
        from >= to || self.0.iter().any(|range| range.index <= from && to <= range.to_index)
    }

    /// Whether the log went on behind entry `from` and up to `to`, after something was passed over.
    pub fn has_end(&self, from: u64, to: u64) -> bool {
        self.0.iter().any(|range| from < range.to_index && range.to_index <= to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(position: u64, to_position: u64) -> Skipped {
        Skipped { position, to_position, index: position / 10, to_index: to_position / 10 }
    }

    fn skips(ranges: &[Skipped]) -> Skips {
        let mut skips = Skips::default();
        ranges.iter().for_each(|range| skips.add(*range));
        skips
    }

    #[test]
    fn it_is_the_place_that_counts_where_one_is_said() {
        let mut log = EndedLog { index: 90, position: 900, ..EndedLog::default() };
        log.entries = BTreeMap::from([(0, 5), (1, 5), (2, 0)]);
        log.tails = BTreeMap::from([(0, 70)]);
        assert!(log.is_reached(0, 70, 1) && !log.is_reached(0, 69, 5));
        // An earlier program said how many.
        assert!(log.is_reached(1, 3, 5) && !log.is_reached(1, 80, 4));
        assert!(log.is_reached(2, 0, 0), "it landed nothing");
        assert!(!log.is_reached(3, 90, 9), "nobody knows what it landed");
    }

    #[test]
    fn ranges_that_meet_are_one_and_the_rest_stays_sorted() {
        let skips = skips(&[range(500, 700), range(100, 200), range(200, 300), range(100, 200)]);
        assert_eq!(skips.ranges(), [range(100, 300), range(500, 700)]);
        assert_eq!((skips.positions(), skips.entries()), (400, 40));
        assert!(skips.has_passed(12, 30) && skips.has_passed(5, 5));
        assert!(!skips.has_passed(12, 31) && !skips.has_passed(40, 50));
        assert!(skips.has_end(12, 30) && skips.has_end(5, 31) && !skips.has_end(30, 69));
    }

    #[test]
    fn a_gap_is_told_in_parts_with_a_reason_each() {
        let skips = skips(&[range(100, 300), range(500, 700)]);
        let told = |position, to, below| {
            skips.reasons(Resumed { index: position / 10, position }, to, below)
        };
        use GapReason::{Lost, Retention, Skipped};
        assert_eq!(told(90, 300, 0), [(100, Lost), (300, Skipped)]);
        assert_eq!(told(90, 300, 10), [(100, Retention), (300, Skipped)]);
        let all = [(300, Skipped), (500, Lost), (700, Skipped), (800, Lost)];
        assert_eq!(told(150, 800, 30), all);
        let taken = [(300, Skipped), (500, Retention), (700, Skipped), (800, Lost)];
        assert_eq!(told(150, 800, 31), taken, "each part is judged by where it begins");
        assert_eq!(told(300, 400, 31), [(400, Retention)]);
        assert_eq!(told(300, 400, 30), [(400, Lost)]);
        assert_eq!(told(100, 100, 0), []);
    }

    #[test]
    fn retention_took_what_is_in_front_of_every_copy_of_the_source_that_begins_last() {
        let below = |copies: &[(usize, u64, bool)]| {
            let mut begins = Begins::default();
            for (source, first_index, is_behind) in copies.iter().copied() {
                let previous_index = if is_behind { 0 } else { NO_FILE };
                let none = ReplicaHeader::from_words([0; ReplicaHeader::WORDS]);
                let header = ReplicaHeader { first_index, previous_index, ..none };
                begins.add(BrokerId::new(source).unwrap(), Row::first(&header, 1000));
            }
            begins.retired_below()
        };
        assert_eq!(below(&[]), 0);
        assert_eq!(below(&[(0, 700, true), (1, 0, false)]), 700);
        assert_eq!(below(&[(0, 700, true), (0, 500, true), (1, 300, true)]), 500);
        assert_eq!(below(&[(0, 0, false), (0, 700, true)]), 0, "one copy has all of it");
        assert_eq!(below(&[(0, 900, false)]), 0, "a disk was wiped: retention took nothing");
        assert_eq!(below(&[(0, 700, true), (0, 900, false)]), 700, "one that stands in");
        assert_eq!(below(&[(0, 700, true), (0, 500, false)]), 500);
        // A file begun anew behind what a lost pool took is the oldest that is left.
        let none = ReplicaHeader::from_words([0; ReplicaHeader::WORDS]);
        let anew = ReplicaHeader { previous_index: NO_FILE, first_index: 900, ..none };
        let mut begins = Begins::default();
        let anew = ReplicaHeader { first_ordinal: 4, ..anew };
        begins.add(BrokerId::new(0).unwrap(), Row::first(&anew, 1000));
        assert_eq!(begins.retired_below(), 900);
    }

    /// A file's first index, the index of the one before it, the entries before it, and its end.
    type File = (u64, u64, u64, u64);

    fn below(copies: &[&[File]]) -> u64 {
        let mut begins = Begins::default();
        for files in copies {
            let of = |(first_index, previous_index, first_ordinal, end): &File| {
                let none = ReplicaHeader::from_words([0; ReplicaHeader::WORDS]);
                let file = (*first_index, *previous_index, *first_ordinal);
                let (first_index, previous_index, first_ordinal) = file;
                (ReplicaHeader { first_index, previous_index, first_ordinal, ..none }, *end)
            };
            let files: Vec<_> = files.iter().map(of).collect();
            for row in Row::all(files.iter().map(|(header, end)| (header, *end))) {
                begins.add(BrokerId::new(0).unwrap(), row);
            }
        }
        begins.retired_below()
    }

    #[test]
    fn a_copy_whose_keeper_was_away_does_not_say_that_what_others_let_go_of_is_lost() {
        let (old, goes_on) = ((0, NO_FILE, 0, 10), (90, 60, 50, 200));
        assert_eq!(below(&[&[old], &[goes_on]]), 90);
        assert_eq!(below(&[&[old], &[goes_on], &[(50, 10, 30, 200)]]), 50, "it has more");
        assert_eq!(below(&[&[(0, NO_FILE, 0, 50), (50, 0, 9, 200)], &[goes_on]]), 0, "all of it");
        assert_eq!(below(&[&[(0, NO_FILE, 0, 90)], &[goes_on]]), 0, "nothing is between them");
        // It came back: its next file begins anew, behind a hole.
        let back = (70, NO_FILE, 40, 200);
        assert_eq!(below(&[&[old, back], &[goes_on]]), 70);
        assert_eq!(below(&[&[old, (70, NO_FILE, 40, 80)], &[goes_on]]), 90, "and went again");
        // Nobody let go of anything: each copy has a hole there.
        assert_eq!(below(&[&[old, back], &[old, back]]), 0);
        // A pool was lost, and the copy that goes on was begun anew behind what that passed over:
        // what it had before, and what the other one was away for, was let go of.
        assert_eq!(below(&[&[old], &[back]]), 70);
        assert_eq!(below(&[&[old], &[(60, 20, 40, 65), back]]), 60, "not all of it yet");
        assert_eq!(below(&[&[old], &[(70, NO_FILE, 0, 200)]]), 0, "it had nothing before");
        // A file that is missing in the middle is no end of what a copy says.
        assert_eq!(below(&[&[old, (95, 50, 60, 200)], &[goes_on]]), 0);
    }

    #[test]
    fn no_more_ranges_are_kept_than_there_is_room_for() {
        let many = (0..SKIPS_MAX as u64 + 9).map(|n| range(1000 * n + 10, 1000 * n + 20));
        let skips = skips(&many.collect::<Vec<_>>());
        assert_eq!((skips.ranges().len(), skips.ranges()[0].position), (SKIPS_MAX, 9010));
    }
}
