//! What is in no file here, and of whom it may be. Pure.
//!
//! What was acknowledged as durable is in every copy, each of which is what its keepers have
//! together. So a log index that no file here has an entry at is known to be nothing that a broker
//! was answered for only where one of these says so:
//!
//! - the log passed over it when a pool was lost;
//! - bounds may have let go of it;
//! - files of a copy of that broker's batches say that they have everything there, record by record
//!   and file by file ([`Here::known`]);
//! - it lies between two files of one copy, of which the later was begun anew and says that as many
//!   entries came before it as are here, and the directory says of no hole there: the copy never
//!   had any, and nothing is durable that one copy has not;
//! - the log ended in good order behind it, and said that its copies need not reach it;
//! - it was in a pool alone that was stopped in good order (`unkept`);
//! - an earlier start told of it as lost, when all who could have had it were here or were given up
//!   (`lost`).
//!
//! Nothing else counts: neither where the last file of a copy ends, nor how many entries it says
//! came before it, nor that a crash may leave such an end, in bytes that do not hold. What
//! is left is asked for where a keeper of such a copy is not here, and told as lost only where all
//! of them are.

use landfall_layout::BrokerId;
use landfall_replica::holes::left;

use super::read::{Found, FoundLog};

/// Log indexes, from one to before another.
pub type Run = (u64, u64);

/// What copies here show of what one broker landed.
#[derive(Debug, Default)]
pub struct Here {
    /// Log indexes at which they have everything that there was.
    pub known: Vec<Run>,
    /// Those among which records do not hold: what was there is gone, and no disk is older.
    pub damaged: Vec<Run>,
    /// Where bytes at the end of one do not hold.
    pub open: Vec<u64>,
}

impl FoundLog {
    /// Log indexes that the log came to and that no file here has, nor let go of, ascending.
    pub fn gaps(&self, retired_below: u64) -> Vec<Run> {
        let mut indexes: Vec<u64> =
            self.spans.iter().filter(|it| !it.is_lost).map(|it| it.index).collect();
        indexes.sort_unstable();
        let ends = self.had.iter().chain(&self.ended);
        let tails =
            ends.flat_map(|end| end.tails.values().copied().filter(|tail| *tail <= end.index));
        let places =
            [self.seen, self.reached, self.resumed].into_iter().flatten().map(|place| place.index);
        let end = self.ended.iter().map(|end| end.index).chain(places).chain(tails).max();
        let begins = [0].into_iter().chain(indexes.iter().map(|index| index + 1));
        let ends = indexes.iter().copied().chain(end);
        let passed = || self.skips.ranges().iter().map(|range| (range.index, range.to_index));
        let gone = begins.zip(ends).filter(|(from, to)| from < to);
        gone.flat_map(|gap| left(gap, passed().chain([(0, retired_below)]))).collect()
    }

    /// Those of its gaps that a broker may have landed something at, as far as is known here.
    pub fn doubt(&self, source: u8) -> Vec<Run> {
        let here = self.here.get(&source).into_iter().flat_map(|here| here.known.iter().copied());
        let ended = self.ended.iter().filter_map(|end| Some((*end.tails.get(&source)?, end.index)));
        let unkept = self.unkept.iter().filter(|it| it.source == source);
        let unkept = unkept.map(|it| (it.index, it.to_index));
        let known: Vec<Run> =
            here.chain(ended).chain(unkept).chain(self.told.iter().copied()).collect();
        self.gaps.iter().flat_map(|gap| left(*gap, known.iter().copied())).collect()
    }

    /// The same below the log index that files have to reach, but for what records had that do not
    /// hold any more.
    pub fn lacking(&self, source: u8, tail: u64) -> Vec<Run> {
        let damaged =
            self.here.get(&source).into_iter().flat_map(|here| here.damaged.iter().copied());
        let known: Vec<Run> = damaged.chain([(tail, u64::MAX)]).collect();
        self.doubt(source).into_iter().flat_map(|run| left(run, known.iter().copied())).collect()
    }

    /// Whether a copy of what a broker landed ends in bytes that do not hold, and nothing shows
    /// that there was nothing: no other copy goes on there, and no end in good order lies before
    /// that.
    pub fn is_open(&self, source: u8) -> bool {
        let Some(here) = self.here.get(&source) else { return false };
        let tail = self.ended.as_ref().and_then(|end| end.tails.get(&source)).copied();
        let is_behind = |at: u64| tail.is_some_and(|tail| tail <= at);
        let goes_on = |at: u64| here.known.iter().any(|(from, to)| (*from..*to).contains(&at));
        here.open.iter().any(|at| !is_behind(*at) && !goes_on(*at))
    }
}

impl Found {
    /// Looks what of each log no file has, once all are read.
    pub fn look_for_gaps(&mut self) {
        let below: Vec<_> = self.logs.values().map(|log| self.retired_below(log)).collect();
        let Self { logs, file, .. } = self;
        for ((number, log), below) in logs.iter_mut().zip(below) {
            log.gaps = log.gaps(below);
            log.told = file.places.lost.logs.get(number).cloned().unwrap_or_default();
            let before = file.places.unkept.iter().filter(|it| it.log == *number).copied();
            log.unkept = before.collect();
            log.unkept.extend(log.ended.iter().flat_map(|ended| ended.unkept(*number)));
        }
    }

    /// Whether a broker may land in a log.
    pub fn lands_in(&self, source: u8, log: usize) -> bool {
        BrokerId::new(source.into()).is_some_and(|source| self.log_of(source) == log)
    }
}

#[cfg(test)]
mod tests;
