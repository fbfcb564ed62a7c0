//! Where a log goes on after everything but its replicas was lost. Pure.

use landfall_layout::batch::PREAMBLE_BYTES;
use landfall_layout::order::FrontierLine;
use landfall_replica::Resumed;

/// Fewest bytes that a batch takes in the pool: a preamble, and one message in a line.
const BATCH_BYTES_MIN: u64 = 2 * PREAMBLE_BYTES as u64;
/// Fewest bytes that a message takes: its header.
const MESSAGE_BYTES_MIN: u64 = 16;

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
}

/// Positions that were ordered and are nowhere any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The first.
    pub first: u64,
    /// The one behind the last.
    pub end: u64,
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
    /// What is lost for certain, in order.
    pub lost: Vec<Lost>,
    /// Index of the next entry.
    pub index: u64,
    /// Position of the next message.
    pub position: u64,
}

/// Judges what the replicas have (`spans`, in any order and more than once) and the furthest that
/// one of them saw the log ordered. `resumed` is where the log went on after an earlier loss, and
/// `pool_bytes` the size of the pool that was lost now.
///
/// More may have been ordered, and shown, than any replica saw. All of that still lay in the pool,
/// because retention waits for the replicas, so there cannot have been more than fits it: the log
/// goes on that far behind, and no index and no position ever means two things.
pub fn plan(
    spans: &mut Vec<Span>,
    seen: Option<&FrontierLine>,
    resumed: Option<Resumed>,
    pool_bytes: u64,
) -> Plan {
    spans.sort_unstable();
    spans.dedup_by_key(|span| span.index);
    let mut plan = Plan {
        batches: spans.iter().filter(|span| !span.is_hole).count() as u64,
        unwritten: spans.iter().filter(|span| span.is_hole).map(|span| span.end - span.first).sum(),
        oldest: spans.first().map_or(0, |span| span.first),
        ..Plan::default()
    };
    let (mut index, mut position) = spans.first().map_or((0, 0), |span| (span.index, span.first));
    for span in spans.iter() {
        if span.first > position {
            plan.lost.push(Lost { first: position, end: span.first });
        }
        (index, position) = (span.index + 1, span.end.max(position));
    }
    if let Some(seen) = seen
        && seen.entries > index
    {
        if seen.position > position {
            plan.lost.push(Lost { first: position, end: seen.position });
        }
        (index, position) = (seen.entries, seen.position.max(position));
    }
    if let Some(resumed) = resumed {
        // Nobody ever had what lies in front of it: that is not lost once more.
        (index, position) = (index.max(resumed.index), position.max(resumed.position));
    }
    plan.index = index.saturating_add(pool_bytes / BATCH_BYTES_MIN);
    plan.position = position.saturating_add(pool_bytes / MESSAGE_BYTES_MIN);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(index: u64, first: u64, end: u64) -> Span {
        Span { index, first, end, is_hole: false }
    }

    fn seen(entries: u64, position: u64) -> FrontierLine {
        FrontierLine { entries, position, ..FrontierLine::default() }
    }

    #[test]
    fn nothing_is_lost_when_everything_ordered_is_on_disk() {
        let mut spans = vec![span(1, 10, 20), span(0, 0, 10), span(1, 10, 20)];
        let plan = plan(&mut spans, Some(&seen(2, 20)), None, 1 << 20);
        assert_eq!((plan.batches, plan.oldest), (2, 0));
        assert_eq!(plan.lost, []);
        assert_eq!((plan.index, plan.position), (2 + (1 << 13), 20 + (1 << 16)));
    }

    #[test]
    fn what_was_ordered_behind_the_last_batch_is_lost_with_its_range() {
        let plan = plan(&mut vec![span(7, 70, 80)], Some(&seen(12, 130)), None, 0);
        assert_eq!(plan.lost, [Lost { first: 80, end: 130 }]);
        assert_eq!((plan.oldest, plan.index, plan.position), (70, 12, 130));
    }

    #[test]
    fn a_batch_of_another_broker_that_is_missing_between_two_is_lost() {
        let plan = plan(&mut vec![span(3, 30, 31), span(5, 35, 36)], None, None, 0);
        assert_eq!(plan.lost, [Lost { first: 31, end: 35 }]);
        assert_eq!((plan.index, plan.position), (6, 36));
    }

    #[test]
    fn a_hole_is_there_and_is_neither_a_batch_nor_lost() {
        let hole = Span { is_hole: true, ..span(4, 31, 35) };
        let plan = plan(&mut vec![span(3, 30, 31), hole, span(5, 35, 36), hole], None, None, 0);
        assert_eq!((plan.batches, plan.unwritten, plan.lost.len()), (2, 4, 0));
        let plan = super::plan(&mut vec![hole], Some(&seen(6, 37)), None, 0);
        assert_eq!((plan.oldest, plan.unwritten), (31, 4));
        assert_eq!(plan.lost, [Lost { first: 35, end: 37 }]);
    }

    #[test]
    fn a_log_of_which_nothing_is_left_goes_on_behind_what_was_seen() {
        let plan = plan(&mut Vec::new(), Some(&seen(4, 9)), None, 128);
        assert_eq!(plan.lost, [Lost { first: 0, end: 9 }]);
        assert_eq!((plan.index, plan.position), (5, 17));
        assert_eq!(super::plan(&mut Vec::new(), None, None, 0), Plan::default());
    }

    #[test]
    fn what_a_replica_saw_earlier_takes_nothing_back() {
        let plan = plan(&mut vec![span(8, 80, 99)], Some(&seen(3, 30)), None, 0);
        assert_eq!((plan.lost.len(), plan.index, plan.position), (0, 9, 99));
    }

    #[test]
    fn what_went_on_after_one_loss_goes_on_behind_that_after_the_next() {
        let spans = || vec![span(0, 0, 10)];
        let first = plan(&mut spans(), None, None, 1 << 20);
        let resumed = Resumed { index: first.index, position: first.position };
        // Batches that nobody copied stood behind it: as many as fit the pool that is lost now.
        let next = plan(&mut spans(), None, Some(resumed), 1 << 12);
        assert_eq!((next.index, next.position), (first.index + 32, first.position + 256));
        assert_eq!(next.lost, [], "nothing ever was between the two");
        let copied = vec![span(0, 0, 10), span(first.index, first.position, first.position + 4)];
        let after = plan(&mut copied.clone(), None, Some(resumed), 0);
        assert_eq!((after.index, after.position), (first.index + 1, first.position + 4));
    }
}
