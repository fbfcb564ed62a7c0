//! Where copies had something that no file has any more: bounds did not let go of that.

use std::collections::BTreeSet;

use landfall_layout::BrokerId;
use landfall_layout::replica::{NO_FILE, Place, ReplicaHeader};
use landfall_replica::holes::{Hole, left};
use landfall_replica::{Damage, Skips};

use super::doubt::Here;
use super::plan::Span;

/// One copy of what a broker landed, by its files.
#[derive(Debug)]
pub struct Copied {
    source: BrokerId,
    /// Log indexes in which it has everything, ascending: the first, and the one behind the last.
    covers: Vec<(u64, u64)>,
    /// Those among which it lost something.
    torn: Vec<(u64, u64)>,
    /// First index of its last file, and that file's end.
    last: Option<(u64, Place)>,
    /// First index of a file that cannot be read, with nothing in front of it.
    unread: Option<u64>,
    /// What its directory calls holes of it.
    holes: Vec<Hole>,
    /// Log indexes between two of its files, of which the later was begun anew with as many entries
    /// in front of it as there are: it never had any there.
    bridges: Vec<(u64, u64)>,
    /// Those among which records of its files do not hold.
    damaged: Vec<(u64, u64)>,
    /// Log index from which on bytes of its last file do not hold: what a crash left of what was
    /// being written, or of what was there.
    open: Option<u64>,
    /// Bounds may have let go of its first files.
    is_bounded: bool,
}

impl Copied {
    /// A copy of which no file was read yet.
    pub fn new(source: BrokerId, is_bounded: bool) -> Self {
        Self {
            source,
            is_bounded,
            open: None,
            bridges: Vec::new(),
            damaged: Vec::new(),
            covers: Vec::new(),
            torn: Vec::new(),
            last: None,
            unread: None,
            holes: Vec::new(),
        }
    }

    /// The same, of which its directory says that it has those holes.
    pub fn with(self, holes: Vec<Hole>) -> Self {
        Self { holes, ..self }
    }

    /// Adds its next file, which was read up to `end`.
    pub fn add(&mut self, header: &ReplicaHeader, damage: &[Damage], end: Place) {
        let begin = header.first_index;
        let mut start = begin;
        let is_anew = header.previous_index == NO_FILE;
        let follows = |(first, place): &(u64, Place)| {
            (header.previous_index, header.first_ordinal) == (*first, place.ordinal)
        };
        match self.last {
            Some(last) if follows(&last) => {
                start = self.covers.pop().map_or(begin, |(start, _)| start);
            }
            Some((_, place)) if is_anew && header.first_ordinal == place.ordinal => {
                let holes = self.holes.iter().map(|hole| (hole.from, hole.to));
                self.bridges.extend(left((place.index, begin), holes));
            }
            // It left out what others may have let go of.
            Some(_) if is_anew && self.is_bounded => {}
            Some((_, place)) => self.torn.push((place.index, begin)),
            None if !self.is_bounded && header.is_behind() => self.torn.push((0, begin)),
            None => self.torn.extend(self.unread.map(|first| (first, begin))),
        }
        for damage in damage.iter().filter(|damage| damage.entries().is_some_and(|n| n > 0)) {
            let missing = damage.indexes();
            self.covers.push((start, missing.start));
            self.torn.push((missing.start, missing.end));
            self.damaged.push((missing.start, missing.end));
            start = missing.end;
        }
        self.covers.push((start, end.index));
        self.open = damage.iter().any(|it| it.behind.is_none()).then_some(end.index);
        self.last = Some((begin, end));
    }

    /// Its next file, which is named `name`, is added then, and what can be read of it begins at
    /// `begin`: its header and first records are gone.
    pub fn behead(&mut self, name: u64, begin: u64) {
        if name < begin {
            self.torn.push((name, begin));
            self.damaged.push((name, begin));
        }
    }

    /// Adds what the copy has and never had to what is known of its source.
    pub fn shows(&self, here: &mut Here) {
        here.known.extend(self.covers.iter().chain(&self.bridges));
        here.damaged.extend(&self.damaged);
        here.open.extend(self.open);
    }

    /// The broker that landed it.
    pub fn source(&self) -> BrokerId {
        self.source
    }

    /// Its next file cannot be read.
    pub fn pass(&mut self, first_index: u64) {
        if self.last.is_none() {
            self.unread.get_or_insert(first_index);
        }
        self.open.get_or_insert(first_index);
    }
}

/// Log indexes, in ascending order, among which copies lost something that no other copy of the
/// same broker is known to have or not to have had; and those brokers.
pub fn torn(copies: &[Copied]) -> (Vec<(u64, u64)>, BTreeSet<BrokerId>) {
    let (mut torn, mut sources) = (Vec::new(), BTreeSet::new());
    for (number, copy) in copies.iter().enumerate() {
        let others = copies.iter().enumerate();
        let others = others.filter(|(n, other)| *n != number && other.source == copy.source);
        let covers: Vec<_> = others.flat_map(|(_, other)| other.covers.iter().copied()).collect();
        let all = copy.torn.iter().flat_map(|torn| left(*torn, covers.iter().copied()));
        let left: Vec<_> = all.collect();
        sources.extend((!left.is_empty()).then_some(copy.source));
        torn.extend(left);
    }
    torn.sort_unstable();
    (torn, sources)
}

/// What holes come to that directories tell of.
#[derive(Debug, Default)]
pub struct Holes {
    /// Brokers of whose batches something may lie there that no copy here has.
    pub of: BTreeSet<BrokerId>,
    /// Those of which others have something: who has them says so on.
    pub stay: BTreeSet<Hole>,
}

/// Judges the holes of the copies of a log, of which nothing below `retired_below` is asked for,
/// nor what was passed over, or is another broker's, as `spans` say.
pub fn holes(copies: &[Copied], skips: &Skips, spans: &[Span], retired_below: u64) -> Holes {
    let mut holes = Holes::default();
    for (number, copy) in copies.iter().enumerate() {
        let others = copies.iter().enumerate();
        let others = others.filter(|(n, other)| *n != number && other.source == copy.source);
        let covers: Vec<_> = others.flat_map(|(_, other)| other.covers.iter().copied()).collect();
        let passed = skips.ranges().iter().map(|range| (range.index, range.to_index));
        let known: Vec<_> =
            copy.covers.iter().copied().chain(passed).chain([(0, retired_below)]).collect();
        for hole in &copy.holes {
            let lacks = left((hole.from, hole.to), known.iter().copied());
            let of = |range: &(u64, u64)| left(*range, covers.iter().copied());
            let nowhere: Vec<_> = lacks.iter().flat_map(of).collect();
            if nowhere != lacks {
                holes.stay.insert(*hole);
            }
            if nowhere.iter().any(|range| !is_anothers(*range, spans)) {
                holes.of.insert(copy.source);
            }
        }
    }
    holes
}

/// Whether every index of a range has an entry.
fn is_anothers((from, to): (u64, u64), spans: &[Span]) -> bool {
    let within = spans.iter().map(|span| span.index).filter(|index| (from..to).contains(index));
    within.collect::<BTreeSet<_>>().len() as u64 == to - from
}

/// Whether some of it lies in these log indexes.
pub fn is_torn(torn: &[(u64, u64)], from: u64, to: u64) -> bool {
    torn.iter().any(|(start, end)| *start < to && from < *end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn torn(copies: &[Copied]) -> Vec<(u64, u64)> {
        super::torn(copies).0
    }

    /// A copy of files: first index, index of the one before, entries before, and its end.
    fn copied(source: usize, files: &[(u64, u64, u64, (u64, u64))]) -> Copied {
        let mut copied = Copied::new(BrokerId::new(source).unwrap(), true);
        for (first_index, previous_index, first_ordinal, (index, ordinal)) in files.iter().copied()
        {
            let none = ReplicaHeader::from_words([0; ReplicaHeader::WORDS]);
            let header = ReplicaHeader { first_index, previous_index, first_ordinal, ..none };
            copied.add(&header, &[], Place { index, ordinal, ..Place::first(&header) });
        }
        copied
    }

    #[test]
    fn what_is_missing_in_a_row_was_lost_unless_another_copy_says_what_was_there() {
        let row = [(0, NO_FILE, 0, (10, 4)), (10, 0, 4, (20, 9)), (20, 10, 9, (30, 12))];
        assert_eq!(torn(&[copied(0, &row)]), []);
        let gap = [row[0], row[2]];
        assert_eq!(torn(&[copied(0, &gap)]), [(10, 20)]);
        assert_eq!(torn(&[copied(0, &gap), copied(1, &row)]), [(10, 20)], "that is another's");
        assert_eq!(torn(&[copied(0, &gap), copied(0, &row)]), []);
        assert_eq!(torn(&[copied(0, &gap), copied(0, &row[..1])]), [(10, 20)]);
        let late = [(15, 10, 7, (20, 9)), (20, 15, 9, (30, 12))];
        assert_eq!(torn(&[copied(0, &gap), copied(0, &late)]), [(10, 15)]);
        let mut beheaded = Copied::new(BrokerId::new(0).unwrap(), true);
        beheaded.behead(0, 5);
        beheaded.behead(10, 10);
        assert_eq!(torn(&[beheaded]), [(0, 5)]);
        // It was begun anew; bounds took its first files; one of them cannot be read.
        assert_eq!(torn(&[copied(0, &[row[0], (20, NO_FILE, 9, (30, 12))])]), []);
        assert_eq!(torn(&[copied(0, &row[2..])]), []);
        let mut unread = Copied::new(BrokerId::new(0).unwrap(), true);
        unread.pass(10);
        let header = ReplicaHeader::from_words([0; ReplicaHeader::WORDS]);
        let header = ReplicaHeader { first_index: 20, previous_index: 10, ..header };
        unread.add(&header, &[], Place { index: 30, ..Place::first(&header) });
        let all = torn(&[unread]);
        assert_eq!(all, [(10, 20)]);
        assert!(is_torn(&all, 19, 25) && !is_torn(&all, 20, 25) && !is_torn(&all, 3, 10));
    }
}
