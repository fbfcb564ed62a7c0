//! Bytes of a log up to a given entry, found a bounded number of entries a turn.

use landfall_layout::TopicId;
use landfall_pool::log::{Found, LogReader};

use super::{ENTRIES_PER_TURN, Keeper};

/// An index of a log, and the bytes of all batches below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The index.
    pub index: u64,
    /// Bytes of all entries below.
    pub bytes: u64,
}

impl Mark {
    /// Whichever of two is nearer to `index`.
    fn nearer(self, other: Self, index: u64) -> Self {
        let way = |mark: Self| mark.index.abs_diff(index);
        if way(self) <= way(other) { self } else { other }
    }

    /// Goes towards `index` until it is there or `left` entries were looked at. `bytes` says how
    /// long the batch of an entry is; `None` if the entry is there no more, and the mark is void.
    fn walk(
        mut self,
        index: u64,
        left: &mut u64,
        mut bytes: impl FnMut(u64) -> Option<u64>,
    ) -> Option<Self> {
        while self.index != index && *left > 0 {
            *left -= 1;
            if self.index < index {
                self.bytes = self.bytes.saturating_add(bytes(self.index)?);
                self.index += 1;
            } else {
                self.index -= 1;
                self.bytes = self.bytes.saturating_sub(bytes(self.index)?);
            }
        }
        Some(self)
    }
}

impl Keeper {
    /// Bytes of a log up to and with entry `last`; `None` while they are not known, and then more
    /// is known at the next turn. The frontier counts the log's bytes, entries do not: they are
    /// summed from there, or from where the last sum ended.
    pub(super) fn bytes_through(&mut self, topic: TopicId, log: usize, last: u64) -> Option<u64> {
        let line = self.pool.frontier(topic, log);
        let end = Mark { index: line.entries, bytes: line.bytes };
        let known = self.topic(topic)?.logs.get(&log)?;
        let near = known.summed.filter(|mark| mark.index >= known.oldest_index);
        let from = near.map_or(end, |mark| mark.nearer(end, last + 1));
        let mut reader = LogReader::new(topic, log);
        let reached = from.walk(last + 1, &mut self.entries_left, |index| {
            match reader.entry(&self.pool, index) {
                Found::Entry(entry) => Some(u64::from(entry.bytes)),
                Found::Lapped { .. } | Found::Gone => None,
            }
        });
        self.topic_mut(topic)?.logs.get_mut(&log)?.summed = reached;
        // What cannot be read any more is below what is left: all of the log's bytes are above it.
        let Some(reached) = reached else { return Some(0) };
        (reached.index == last + 1).then_some(reached.bytes)
    }

    /// Lets the next turn read as many entries as any.
    pub(super) fn read_again(&mut self) {
        self.entries_left = ENTRIES_PER_TURN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of which entry i has i + 1 bytes.
    fn mark(index: u64) -> Mark {
        Mark { index, bytes: index * (index + 1) / 2 }
    }

    #[test]
    fn a_sum_is_the_same_from_both_sides_and_in_any_number_of_turns() {
        for (from, to) in [(0, 0), (0, 100), (100, 0), (40, 60), (60, 40)] {
            for share in [1, 7, 1000] {
                let (mut at, mut turns) = (mark(from), 0);
                while at.index != to {
                    let mut left = share;
                    at = at.walk(to, &mut left, |index| Some(index + 1)).unwrap();
                    assert_eq!(at, mark(at.index));
                    turns += 1;
                }
                assert_eq!(turns, from.abs_diff(to).div_ceil(share), "{from} to {to} by {share}");
            }
        }
    }

    #[test]
    fn a_sum_goes_on_from_where_it_is_nearer() {
        assert_eq!(mark(10).nearer(mark(100), 50), mark(10));
        assert_eq!(mark(10).nearer(mark(100), 60), mark(100));
    }

    #[test]
    fn a_mark_is_void_where_an_entry_on_the_way_is_gone() {
        let gone = |index| (index != 5).then_some(1);
        assert_eq!(mark(0).walk(9, &mut 100, gone), None);
        assert_eq!(mark(9).walk(0, &mut 100, gone), None);
        assert!(mark(9).walk(6, &mut 100, gone).is_some());
    }
}
