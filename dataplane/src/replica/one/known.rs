//! Log indexes at which a source is known to have landed nothing, as a value. Why each of these is
//! sound, [`doubt`](super::doubt) says.

use landfall_layout::replica::{ReplicaLine, ReplicaState};
use landfall_replica::{Skips, Unkept};

/// Log indexes: the first, and the one behind the last.
pub type Range = (u64, u64);

/// What is known without a look into files of others.
#[derive(Debug, Default)]
pub struct Facts {
    /// What the log passed over when pools were lost.
    pub skips: Skips,
    /// What of the source was in pools alone that are gone.
    pub unkept: Vec<Unkept>,
    /// Lines of other keepers of what the source landed.
    pub lines: Vec<ReplicaLine>,
    /// Where the log went on in this pool, and up to where it left memory without the source.
    pub quiet: Option<Range>,
    /// Where the log had ended when as many entries were counted as the files have before that.
    pub counted: Option<u64>,
    /// Where another home begins that has all that the source ever landed.
    pub begins: Option<u64>,
}

impl Facts {
    /// Where the source has no entry that these files lack.
    pub fn empty(&self) -> Vec<Range> {
        let passed = self.skips.ranges().iter().map(|range| (range.index, range.to_index));
        let unkept = self.unkept.iter().map(|unkept| (unkept.index, unkept.to_index));
        let is_whole = |line: &&ReplicaLine| {
            line.incarnation != 0 && line.state() == ReplicaState::Well && line.errno == 0
        };
        let followed = self.lines.iter().filter(is_whole).map(|line| (line.tail, line.durable));
        let before = [self.counted, self.begins].into_iter().flatten().map(|end| (0, end));
        let all = passed.chain(unkept).chain(followed).chain(self.quiet).chain(before);
        all.filter(|(from, to)| from < to).collect()
    }
}

/// Adds ranges to others, ascending. Those that meet become one.
pub fn join(ranges: &mut Vec<Range>, more: impl IntoIterator<Item = Range>) {
    ranges.extend(more.into_iter().filter(|(from, to)| from < to));
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let is_met = next.0 <= last.1;
        if is_met {
            last.1 = last.1.max(next.1);
        }
        is_met
    });
}

#[cfg(test)]
mod tests {
    use landfall_layout::replica::TAIL_UNKNOWN;
    use landfall_replica::Skipped;

    use super::*;

    fn line(tail: u64, durable: u64) -> ReplicaLine {
        let state = ReplicaState::Well.raw();
        ReplicaLine { tail, durable, state, incarnation: 1, ..ReplicaLine::default() }
    }

    #[test]
    fn each_says_of_its_own_indexes_that_nothing_is_there_and_of_no_other() {
        let mut skips = Skips::default();
        skips.add(Skipped { position: 30, to_position: 90, index: 10, to_index: 30 });
        // A pool says of what it passed over last only which positions.
        skips.add_positions((100, 200));
        let none = Facts::default;
        assert_eq!(none().empty(), []);
        assert_eq!(Facts { skips, ..none() }.empty(), [(10, 30)]);
        let unkept = vec![Unkept { index: 4, to_index: 6, log: 0, source: 0 }];
        assert_eq!(Facts { unkept, ..none() }.empty(), [(4, 6)]);
        assert_eq!(Facts { quiet: Some((7, 7)), ..none() }.empty(), []);
        assert_eq!(Facts { quiet: Some((7, 9)), ..none() }.empty(), [(7, 9)]);
        assert_eq!(Facts { counted: Some(5), ..none() }.empty(), [(0, 5)]);
        assert_eq!(Facts { begins: Some(3), ..none() }.empty(), [(0, 3)]);
    }

    #[test]
    fn a_line_says_nothing_of_what_its_keeper_did_not_follow() {
        let of = |line| Facts { lines: vec![line], ..Facts::default() }.empty();
        assert_eq!(of(line(7, 20)), [(7, 20)]);
        // A stand-in that has kept nothing yet, and one that was there when others' entries came.
        assert_eq!((of(line(29, 29)), of(line(29, 40))), (vec![], vec![(29, 40)]));
        assert_eq!(of(line(TAIL_UNKNOWN, 20)), []);
        assert_eq!(of(ReplicaLine { incarnation: 0, ..line(7, 20) }), []);
        assert_eq!(of(ReplicaLine { errno: 61, ..line(7, 20) }), [], "it lacks something");
        let state = ReplicaState::Failed.raw();
        assert_eq!(of(ReplicaLine { state, ..line(7, 20) }), []);
    }

    #[test]
    fn ranges_that_meet_are_one() {
        let mut ranges = vec![(3, 5)];
        join(&mut ranges, [(9, 9), (8, 9), (5, 7), (20, 30), (22, 25)]);
        assert_eq!(ranges, [(3, 7), (8, 9), (20, 30)]);
    }
}
