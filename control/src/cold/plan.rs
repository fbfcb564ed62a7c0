//! Where a log goes on after everything but its replicas was lost. Pure.

use landfall_layout::batch::PREAMBLE_BYTES;
use landfall_layout::frame::GapReason;
use landfall_layout::order::OrderEntry;
use landfall_layout::replica::RECORD_HEAD_BYTES;
use landfall_replica::{Resumed, Skipped, Skips};

use super::torn::is_torn;

/// Fewest bytes that a batch takes in the pool: a preamble, and one message in a line.
const BATCH_BYTES_MIN: u64 = 2 * PREAMBLE_BYTES as u64;
/// Bytes that an entry takes in a log, which is all that a hole takes; a batch that waits for its
/// positions has a slot of a ring, which is no smaller.
const ENTRY_BYTES: u64 = OrderEntry::BYTES;
/// Fewest bytes that a message takes: its header.
const MESSAGE_BYTES_MIN: u64 = 16;
/// Most positions of a hole, whose record is the smallest that there is.
const HOLE_POSITIONS_MAX: u64 = u16::MAX as u64;

/// A batch or a hole that some replica has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span {
    /// Log index.
    pub index: u64,
    /// Its first position.
    pub first: u64,
    /// Position behind its last.
    pub end: u64,
    /// Nothing is there, and nothing ever was.
    pub is_hole: bool,
    /// A batch was there, in a record that does not hold any more. After what has the same index
    /// and holds.
    pub is_lost: bool,
}

/// Positions that were ordered and are nowhere any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The first.
    pub first: u64,
    /// The one behind the last.
    pub end: u64,
}

/// The most that bytes of files can have held which do not hold any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unread {
    /// Entries of the log.
    pub entries: u64,
    /// Positions.
    pub positions: u64,
}

impl Unread {
    /// Counts `bytes` of a file. `has_holes`: its topic's order leaves holes.
    pub fn add(&mut self, bytes: u64, has_holes: bool) {
        let records = bytes.div_ceil(RECORD_HEAD_BYTES);
        let positions = match has_holes {
            true => records.saturating_mul(HOLE_POSITIONS_MAX),
            false => bytes.div_ceil(MESSAGE_BYTES_MIN),
        };
        self.entries = self.entries.saturating_add(records);
        self.positions = self.positions.saturating_add(positions);
    }
}

/// What disks tell of a log, its batches and holes aside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told<'a> {
    /// The furthest that a record saw it ordered.
    pub seen: Option<Resumed>,
    /// Where it went on after an earlier loss.
    pub resumed: Option<Resumed>,
    /// How far it was when a file was begun last.
    pub reached: Option<Resumed>,
    /// What it passed over at earlier losses.
    pub skips: Option<&'a Skips>,
    /// Where it ended in good order.
    pub ended: Option<Resumed>,
    /// Log index below which bounds may have let go of what is in no file.
    pub retired_below: u64,
    /// Log indexes among which copies lost something: bounds did not let go of all of it there.
    pub torn: &'a [(u64, u64)],
    /// What files that do not hold may have had.
    pub unread: Unread,
    /// Bytes of the pool that was lost.
    pub pool_bytes: u64,
    /// Its topic's order leaves holes.
    pub has_holes: bool,
    /// It came back into this very pool already, which nobody served since.
    pub is_same_pool: bool,
}

/// A log after the loss.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Batches on disk.
    pub batches: u64,
    /// Positions on disk that nothing was ever written to.
    pub unwritten: u64,
    /// Oldest position on disk.
    pub oldest: u64,
    /// What is lost for certain, in order; none is next to another.
    pub lost: Vec<Lost>,
    /// Positions behind the oldest that bounds let go of: the copies of one broker may go further
    /// back than those of another.
    pub retired: u64,
    /// What is passed over now; none: it goes on right where it ended.
    pub skipped: Option<Skipped>,
    /// Index of the next entry.
    pub index: u64,
    /// Position of the next message.
    pub position: u64,
}

/// Sorts what the replicas have; two of it that cannot both be of one log, if there are such.
pub fn clash(spans: &mut [Span]) -> Option<(Span, Span)> {
    spans.sort_unstable();
    spans.windows(2).find_map(|pair| {
        let (one, other) = (pair[0], pair[1]);
        let is_one_log = match one.index == other.index {
            true => (one.first, one.end) == (other.first, other.end),
            false => one.end <= other.first,
        };
        (!is_one_log).then_some((one, other))
    })
}

/// Judges what the replicas have (`spans`, in any order and more than once), and what else they
/// tell.
///
/// A log that ended in good order goes on where it ended. Of any other more may have been ordered,
/// and shown, than any replica saw. All of that still lay in the pool, because retention waits for
/// the replicas, or it stood in a file that does not hold any more: so there cannot have been more
/// than fits both. The log goes on that far behind, and no index and no position ever means two
/// things.
pub fn plan(spans: &mut Vec<Span>, told: &Told<'_>) -> Plan {
    spans.sort_unstable();
    spans.dedup_by_key(|span| span.index);
    let mut plan = Plan {
        batches: spans.iter().filter(|span| !span.is_hole && !span.is_lost).count() as u64,
        unwritten: spans.iter().filter(|span| span.is_hole).map(|span| span.end - span.first).sum(),
        oldest: spans.first().map_or(0, |span| span.first),
        ..Plan::default()
    };
    // Where bounds let go of something the log begins with what is left, unless somebody had what
    // came first, and lost it.
    let is_behind = told.retired_below > 0 && told.torn.first().is_none_or(|(from, _)| *from > 0);
    let oldest = spans.first().filter(|_| is_behind);
    let (mut index, mut position) = oldest.map_or((0, 0), |span| (span.index, span.first));
    for span in spans.iter() {
        plan.lose(Resumed { index, position }, (span.index, span.first), told);
        if span.is_lost {
            plan.has_lost(Lost { first: span.first, end: span.end });
        }
        (index, position) = (span.index + 1, span.end.max(position));
    }
    let at = |place: Option<Resumed>| place.unwrap_or_default();
    let seen = at(told.seen.max_by_index(told.reached));
    if seen.index > index {
        plan.lose(Resumed { index, position }, (seen.index, seen.position), told);
        (index, position) = (seen.index, seen.position.max(position));
    }
    // Nobody ever had what lies in front of where it went on: that is not lost once more.
    let resumed = at(told.resumed);
    let known = (index.max(resumed.index), position.max(resumed.position));
    plan.go_on((index, position), known, told);
    plan
}

/// Log index behind the last entry that the log had, by what files saw, and that none of them has:
/// nothing passed over it, and no bounds let go of it. 0: there is none. `spans` are sorted.
pub fn lost_below(spans: &[Span], told: &Told<'_>) -> u64 {
    let none = Skips::default();
    let skips = told.skips.unwrap_or(&none).ranges();
    let places = [told.seen, told.reached, told.ended];
    let seen = places.into_iter().flatten().map(|place| place.index).max().unwrap_or_default();
    let last = spans.last().map_or(0, |span| span.index + 1);
    let ends = spans.iter().map(|span| span.index).chain([seen.max(last)]);
    let begins = [0].into_iter().chain(spans.iter().map(|span| span.index + 1));
    let lost = begins.zip(ends).filter_map(|(from, mut to)| {
        let from = from.max(told.retired_below);
        while let Some(skip) = skips.iter().find(|skip| skip.index < to && to <= skip.to_index) {
            to = skip.index;
        }
        (from < to).then_some(to)
    });
    lost.max().unwrap_or_default()
}

trait Furthest {
    fn max_by_index(self, other: Self) -> Self;
}

impl Furthest for Option<Resumed> {
    fn max_by_index(self, other: Self) -> Self {
        [self, other].into_iter().flatten().max_by_key(|place| (place.index, place.position))
    }
}

impl Plan {
    /// Notes that what is between `from` and a log index and position is nowhere, but for what was
    /// passed over at an earlier loss. A reader is told the same reasons.
    fn lose(&mut self, from: Resumed, (index, to): (u64, u64), told: &Told<'_>) {
        let none = Skips::default();
        let skips = told.skips.unwrap_or(&none);
        let mut first = from.position;
        let is_torn = is_torn(told.torn, from.index, index);
        let below = if is_torn { 0 } else { told.retired_below };
        for (end, reason) in skips.reasons(from, to, below) {
            match reason {
                GapReason::Lost => self.has_lost(Lost { first, end }),
                GapReason::Retention => self.retired += end - first,
                _ => {}
            }
            first = end;
        }
    }

    /// Adds a range behind all others.
    fn has_lost(&mut self, lost: Lost) {
        match self.lost.last_mut() {
            Some(last) if last.end == lost.first => last.end = lost.end,
            _ => self.lost.push(lost),
        }
    }

    /// Decides where the log goes on. Everything that it had is below `told_of`, as files say, and
    /// it never was beyond `known` without being in the lost pool or in what cannot be read.
    fn go_on(&mut self, told_of: (u64, u64), known: (u64, u64), told: &Told<'_>) {
        let is_reached = |place: Resumed| known.0 <= place.index && known.1 <= place.position;
        if let Some(ended) = told.ended.filter(|ended| is_reached(*ended)) {
            // What of it is in no file was there when it ended.
            let resumed = told.resumed.unwrap_or_default();
            let index = told_of.0.max(resumed.index);
            let from = Resumed { index, position: told_of.1.max(resumed.position) };
            self.lose(from, (ended.index, ended.position), told);
            (self.index, self.position) = (ended.index, ended.position);
            return;
        }
        if let Some(resumed) = told.resumed.filter(|place| told.is_same_pool && is_reached(*place))
        {
            (self.index, self.position) = (resumed.index, resumed.position);
            return;
        }
        let Unread { entries, positions } = told.unread;
        // Where there are holes, each entry or slot that fits the pool may stand for as many
        // positions as a hole has at most. Numbers are cheap: a pool of a tebibyte takes 2^50 of
        // the 2^64 at each loss, and nothing has to be written before positions are given out.
        let (pool_entries, pool_positions) = match told.has_holes {
            true => {
                let entries = told.pool_bytes / ENTRY_BYTES;
                (entries, entries.saturating_mul(HOLE_POSITIONS_MAX))
            }
            false => (told.pool_bytes / BATCH_BYTES_MIN, told.pool_bytes / MESSAGE_BYTES_MIN),
        };
        let beyond =
            |known: u64, pool: u64, unread| known.saturating_add(pool).saturating_add(unread);
        self.index = beyond(known.0, pool_entries, entries);
        self.position = beyond(known.1, pool_positions, positions);
        self.skipped = Some(Skipped {
            index: known.0,
            to_index: self.index,
            position: known.1,
            to_position: self.position,
        });
    }
}

#[cfg(test)]
mod tests;
