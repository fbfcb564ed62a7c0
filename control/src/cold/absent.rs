//! Log indexes that no file has: some were lost, some bounds let go of.

use landfall_replica::Skips;

use super::plan::Span;

/// Ranges of log indexes, ascending, and how many indexes there are in them.
#[derive(Debug, Default)]
struct Runs {
    /// First index, and the one behind the last.
    ranges: Vec<(u64, u64)>,
    /// Indexes in all ranges in front of each.
    before: Vec<u64>,
    indexes: u64,
}

impl Runs {
    fn add(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        self.ranges.push((from, to));
        self.before.push(self.indexes);
        self.indexes += to - from;
    }

    fn below(&self, index: u64) -> u64 {
        let at = self.ranges.partition_point(|(from, _)| *from < index);
        let Some(last) = at.checked_sub(1) else { return 0 };
        let (from, to) = self.ranges[last];
        self.before[last] + index.min(to) - from
    }
}

/// Indexes of a log that no file has, but for those that it passed over.
#[derive(Debug, Default)]
pub struct Absent {
    lost: Runs,
    /// Those of `lost` that lie where bounds let go of others.
    torn: Runs,
    retired: Runs,
}

/// How many indexes of a part of a log are in no file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// They were lost.
    pub lost: u64,
    /// Bounds let go of them.
    pub retired: u64,
    /// Some of those that were lost are not behind all of these.
    pub is_mixed: bool,
}

impl Absent {
    /// What is in front of the last of `spans`, which are sorted. Bounds may have let go of what
    /// begins below a log index, but not where copies are torn. Those whose record does not hold
    /// are known, and are not among these.
    pub fn of(spans: &[Span], skips: &Skips, known: (u64, &[(u64, u64)])) -> Self {
        let mut absent = Self::default();
        let mut next = 0;
        for span in spans {
            absent.add((next, span.index), skips, known);
            next = next.max(span.index + 1);
        }
        absent
    }

    fn add(
        &mut self,
        (mut from, to): (u64, u64),
        skips: &Skips,
        (retired_below, torn): (u64, &[(u64, u64)]),
    ) {
        while from < to {
            let skip = skips.ranges().iter().find(|range| range.to_index > from);
            let skip = skip.filter(|range| range.index < to);
            let end = skip.map_or(to, |range| range.index.max(from));
            if from >= retired_below {
                self.lost.add(from, end);
            } else {
                self.add_retired(from, end, torn);
            }
            from = skip.map_or(to, |range| range.to_index);
        }
    }

    fn add_retired(&mut self, mut from: u64, end: u64, torn: &[(u64, u64)]) {
        for (start, behind) in torn {
            let (start, behind) = ((*start).clamp(from, end), (*behind).clamp(from, end));
            if start < behind {
                self.retired.add(from, start);
                self.lost.add(start, behind);
                self.torn.add(start, behind);
                from = behind;
            }
        }
        self.retired.add(from, end);
    }

    /// How many there are from one index to below another.
    pub fn between(&self, from: u64, to: u64) -> Count {
        let count = |runs: &Runs| runs.below(to).saturating_sub(runs.below(from));
        let (lost, retired) = (count(&self.lost), count(&self.retired));
        Count { lost, retired, is_mixed: retired > 0 && count(&self.torn) > 0 }
    }
}

#[cfg(test)]
mod tests {
    use landfall_replica::Skipped;

    use super::*;

    fn spans(indexes: &[u64]) -> Vec<Span> {
        let of = |index: &u64| Span {
            index: *index,
            first: *index,
            end: index + 1,
            is_hole: false,
            is_lost: false,
        };
        indexes.iter().map(of).collect()
    }

    #[test]
    fn what_is_in_no_file_was_lost_or_let_go_of_or_passed_over() {
        let mut skips = Skips::default();
        skips.add(Skipped { position: 10, to_position: 20, index: 12, to_index: 15 });
        let absent = Absent::of(&spans(&[3, 3, 5, 9, 17]), &skips, (4, &[]));
        let count = |from, to| {
            let Count { lost, retired, .. } = absent.between(from, to);
            (lost, retired)
        };
        // Lost: 6 to 8, 10, 11, 15 and 16. Let go of: 0 to 2, and 4 is lost.
        assert_eq!(count(0, 100), (8, 3));
        assert_eq!((count(0, 2), count(2, 5), count(5, 8)), ((0, 2), (1, 1), (2, 0)));
        assert_eq!((count(10, 15), count(12, 15), count(12, 16)), ((2, 0), (0, 0), (1, 0)));
        assert_eq!(count(9, 9), (0, 0));
    }
}
