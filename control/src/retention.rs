//! What retention takes. Pure: the keeper says what there is and carries out the answer.

use std::collections::BTreeMap;

use landfall_layout::{SegmentId, TopicId};

/// A payload segment that nothing more will be written into and whose batches are all ordered or
/// dropped.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The segment.
    pub segment: SegmentId,
    /// Log whose entries name it.
    pub log: usize,
    /// Last entry that names it; none when no readable entry does.
    pub last: Option<u64>,
    /// Bytes of its log up to and with that entry.
    pub end_bytes: u64,
    /// When its last batch landed, wall clock, nanoseconds: segments of a log go in this order.
    pub landed_ns: u64,
    /// How long ago that was, nanoseconds, by a clock that does not jump.
    pub age_ns: u64,
    /// Not before this time, nanoseconds.
    pub kept_until_ns: u64,
}

/// A topic and what may be taken from it.
#[derive(Clone, Debug)]
pub struct TopicView {
    /// The topic.
    pub topic: TopicId,
    /// It keeps everything.
    pub keeps: bool,
    /// Bytes it keeps at least; 0: as many as the pool has room for.
    pub retention_bytes: u64,
    /// Nanoseconds it keeps a batch at least; 0: as long as the pool has room.
    pub retention_ns: u64,
    /// Bytes of all batches so far in each of its logs.
    pub log_bytes: BTreeMap<usize, u64>,
    /// Index of each log below which every replica has what it shall have; a log that is not here
    /// has no replica to wait for.
    pub promised: BTreeMap<usize, u64>,
    /// Its segments.
    pub candidates: Vec<Candidate>,
    /// Segments that the bytes it keeps would fill, and one that each log writes into.
    pub filled: usize,
}

impl TopicView {
    /// Segments that have batches which can be read and that nothing more comes into: what brokers
    /// write into, or have ahead, is no reason to take these.
    fn held(&self) -> usize {
        self.candidates.iter().filter(|candidate| candidate.last.is_some()).count()
    }

    /// Whether everything that was promised for the log's entries up to and with `last` holds.
    fn is_promised(&self, log: usize, last: u64) -> bool {
        self.promised.get(&log).is_none_or(|index| last < *index)
    }
}

/// The pool's side of it.
#[derive(Clone, Copy, Debug)]
pub struct PoolView {
    /// Boot time, nanoseconds.
    pub now_ns: u64,
    /// Segments that are free or on their way to be.
    pub free: u32,
    /// Segments that shall be free.
    pub wanted: u32,
}

/// One segment to retire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retirement {
    /// Its topic.
    pub topic: TopicId,
    /// The segment.
    pub segment: SegmentId,
    /// Log that moves on.
    pub log: usize,
    /// Entry the log moves past; none when no readable entry names the segment.
    pub past: Option<u64>,
}

/// What to retire now: first what nobody can read, then what is beyond a topic's bounds, then,
/// while segments are short, the oldest of the topics that set no bound, and of those that keep
/// bytes alone in more segments than these would fill.
///
/// Within a log segments go in the order of their last entries, so a log is cut at one place.
pub fn plan(pool: PoolView, topics: &[TopicView]) -> Vec<Retirement> {
    let mut taken = Vec::new();
    let mut left: Vec<(usize, Candidate)> = Vec::new();
    for (i, view) in topics.iter().enumerate() {
        let due = |candidate: &&Candidate| candidate.kept_until_ns <= pool.now_ns;
        let mut ordered = Vec::new();
        for candidate in view.candidates.iter().filter(due) {
            match candidate.last {
                None => taken.push(retire(view.topic, candidate)),
                Some(last) if view.is_promised(candidate.log, last) => ordered.push(*candidate),
                Some(_) => {}
            }
        }
        if view.keeps {
            continue;
        }
        ordered.sort_by_key(|candidate| (candidate.landed_ns, candidate.last));
        let beyond = beyond_bounds(view, &ordered);
        taken.extend(ordered[..beyond].iter().map(|candidate| retire(view.topic, candidate)));
        let may_go = match (view.retention_bytes, view.retention_ns) {
            (0, 0) => usize::MAX,
            // Segments that were closed almost empty hold less than there is room for.
            (_, 0) => view.held().saturating_sub(view.filled.saturating_add(beyond)),
            _ => 0,
        };
        left.extend(ordered[beyond..].iter().take(may_go).map(|candidate| (i, *candidate)));
    }
    // Who set no bound goes first.
    let order = |(i, candidate): &(usize, Candidate)| {
        (topics[*i].retention_bytes != 0, candidate.landed_ns)
    };
    let free = u64::from(pool.free) + taken.len() as u64;
    let short = u64::from(pool.wanted).saturating_sub(free) as usize;
    left.sort_by_key(order);
    let oldest = left.iter().take(short);
    taken.extend(oldest.map(|(i, candidate)| retire(topics[*i].topic, candidate)));
    taken
}

/// How many of a topic's segments, oldest first, its own bounds let go of.
fn beyond_bounds(view: &TopicView, ordered: &[Candidate]) -> usize {
    let behind = |candidate: &Candidate| {
        let all = view.log_bytes.get(&candidate.log).copied().unwrap_or_default();
        all.saturating_sub(candidate.end_bytes)
    };
    // What is left of each log once it is cut behind the segment. A cut takes every entry before
    // it, of whichever segment, so segments cannot be counted instead. Of a log that is not cut yet
    // what is behind its first segment counts, which is less than what it has.
    let mut left: BTreeMap<usize, u64> = BTreeMap::new();
    for candidate in view.candidates.iter().filter(|candidate| candidate.last.is_some()) {
        let most = left.entry(candidate.log).or_default();
        *most = behind(candidate).max(*most);
    }
    let mut by_bytes = |candidate: &Candidate| {
        if view.retention_bytes == 0 {
            return false;
        }
        let least = left.entry(candidate.log).or_default();
        *least = behind(candidate).min(*least);
        left.values().sum::<u64>() >= view.retention_bytes
    };
    let by_time =
        |candidate: &Candidate| view.retention_ns != 0 && candidate.age_ns >= view.retention_ns;
    let keeps = |candidate: &Candidate| !by_bytes(candidate) && !by_time(candidate);
    ordered.iter().position(keeps).unwrap_or(ordered.len())
}

fn retire(topic: TopicId, candidate: &Candidate) -> Retirement {
    let Candidate { segment, log, last, .. } = *candidate;
    Retirement { topic, segment, log, past: last }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: PoolView = PoolView { now_ns: 1000, free: 5, wanted: 0 };

    fn topic(slot: usize, landed: &[u64]) -> TopicView {
        let candidate = |(i, landed_ns): (usize, &u64)| Candidate {
            segment: SegmentId((slot * 100 + i) as u32),
            log: 32,
            last: Some(i as u64 * 10 + 9),
            end_bytes: (i as u64 + 1) * 100,
            landed_ns: *landed_ns,
            age_ns: POOL.now_ns - landed_ns,
            kept_until_ns: 0,
        };
        TopicView {
            topic: TopicId::new(slot, 1),
            keeps: false,
            retention_bytes: 0,
            retention_ns: 0,
            log_bytes: [(32, landed.len() as u64 * 100)].into(),
            promised: BTreeMap::new(),
            candidates: landed.iter().enumerate().map(candidate).collect(),
            filled: usize::MAX,
        }
    }

    #[test]
    fn short_of_segments_bytes_are_kept_in_no_more_than_they_would_fill() {
        let pool = PoolView { wanted: 100, ..POOL };
        let view = TopicView { retention_bytes: 1 << 20, filled: 2, ..topic(0, &[1, 2, 3, 4, 5]) };
        assert_eq!(segments(&plan(pool, std::slice::from_ref(&view))), [0, 1, 2]);
        assert_eq!(plan(POOL, std::slice::from_ref(&view)), [], "there is room");
        let by_time = TopicView { retention_ns: 10_000, ..view };
        assert_eq!(plan(pool, &[by_time]), []);
    }

    #[test]
    fn who_set_no_bound_goes_before_who_keeps_bytes_in_too_many_segments() {
        let pool = PoolView { wanted: 7, ..POOL };
        let bytes = TopicView { retention_bytes: 1 << 20, filled: 1, ..topic(0, &[1, 2, 3]) };
        assert_eq!(segments(&plan(pool, &[bytes, topic(1, &[5, 6, 7])])), [100, 101]);
    }

    #[test]
    fn segments_that_hold_nothing_are_no_reason_to_take_what_is_kept() {
        let pool = PoolView { wanted: 100, ..POOL };
        let mut view = TopicView { retention_bytes: 1 << 20, filled: 2, ..topic(0, &[1, 2, 3, 4]) };
        for candidate in &mut view.candidates[2..] {
            candidate.last = None;
        }
        assert_eq!(segments(&plan(pool, &[view])), [2, 3], "two segments hold batches");
    }

    fn segments(plan: &[Retirement]) -> Vec<u32> {
        plan.iter().map(|retirement| retirement.segment.0).collect()
    }

    #[test]
    fn with_room_and_no_bounds_nothing_goes() {
        assert_eq!(plan(POOL, &[topic(0, &[1, 2, 3])]), []);
    }

    #[test]
    fn short_of_segments_the_oldest_of_all_topics_go() {
        let pool = PoolView { wanted: 8, ..POOL };
        let answer = plan(pool, &[topic(0, &[10, 30, 50]), topic(1, &[20, 40])]);
        assert_eq!(segments(&answer), [0, 100, 1]);
        assert_eq!(answer[2].past, Some(19), "the log moves past the segment's last entry");
    }

    #[test]
    fn bytes_are_kept_at_least() {
        let view = TopicView { retention_bytes: 200, ..topic(0, &[1, 2, 3, 4]) };
        assert_eq!(segments(&plan(POOL, &[view])), [0, 1]);
        let view = TopicView { retention_bytes: 201, ..topic(0, &[1, 2, 3, 4]) };
        assert_eq!(segments(&plan(POOL, &[view])), [0]);
    }

    #[test]
    fn a_cut_takes_what_other_segments_hold_before_it() {
        let mut view = TopicView { retention_bytes: 200, ..topic(0, &[1, 2, 3, 4]) };
        // The second segment's last entry stands behind almost everything of the others.
        view.candidates[1].end_bytes = 350;
        assert_eq!(segments(&plan(POOL, &[view])), [0]);
    }

    #[test]
    fn bytes_of_several_logs_count_together() {
        let mut view = TopicView { retention_bytes: 251, ..topic(0, &[1, 2, 3, 4]) };
        for (candidate, log) in view.candidates.iter_mut().zip([0, 1, 0, 1]) {
            candidate.log = log;
            candidate.end_bytes = candidate.end_bytes.div_ceil(200) * 100;
        }
        // Cut once each, 150 bytes are left of both; cut once more, 200 of both together.
        view.log_bytes = [(0, 250), (1, 250)].into();
        assert_eq!(segments(&plan(POOL, std::slice::from_ref(&view))), [0, 1]);
        view.retention_bytes = 301;
        assert_eq!(segments(&plan(POOL, std::slice::from_ref(&view))), [] as [u32; 0]);
        // Cut twice, 200 bytes are left of the first, and 150 of the second that was cut once.
        view.log_bytes = [(0, 400), (1, 250)].into();
        assert_eq!(segments(&plan(POOL, &[view])), [0, 1, 2]);
    }

    #[test]
    fn a_log_that_lies_still_keeps_nothing_of_the_others() {
        let mut view = TopicView { retention_bytes: 250, ..topic(0, &[1, 2, 3, 4, 5]) };
        // One message of 10 bytes is all that was ever in the first log, and it is the oldest.
        view.candidates[0].log = 0;
        view.candidates[0].end_bytes = 10;
        view.log_bytes = [(0, 10), (32, 500)].into();
        assert_eq!(segments(&plan(POOL, std::slice::from_ref(&view))), [0, 1]);
        // As long as what is behind it in all logs is less than the bound, it stays.
        view.retention_bytes = 301;
        assert_eq!(segments(&plan(POOL, &[view])), [] as [u32; 0]);
    }

    #[test]
    fn time_is_kept_at_least() {
        let view = TopicView { retention_ns: 500, ..topic(0, &[100, 500, 501]) };
        assert_eq!(segments(&plan(POOL, &[view])), [0, 1]);
    }

    #[test]
    fn bounds_hold_even_when_segments_are_short() {
        let pool = PoolView { wanted: 100, ..POOL };
        let view = TopicView { retention_bytes: 1000, ..topic(0, &[1, 2]) };
        assert_eq!(plan(pool, &[view]), []);
    }

    #[test]
    fn a_topic_that_keeps_loses_nothing_that_can_be_read() {
        let pool = PoolView { wanted: 100, ..POOL };
        let mut view =
            TopicView { keeps: true, retention_ns: 1, retention_bytes: 1, ..topic(0, &[1, 2, 3]) };
        view.candidates[1].last = None;
        assert_eq!(segments(&plan(pool, &[view])), [1], "nobody can read that one");
    }

    #[test]
    fn a_dead_brokers_segment_waits_for_its_lease() {
        let pool = PoolView { wanted: 100, ..POOL };
        let mut view = topic(0, &[1, 2]);
        view.candidates[0].kept_until_ns = 1001;
        view.candidates[0].last = None;
        assert_eq!(segments(&plan(pool, std::slice::from_ref(&view))), [1]);
        let later = PoolView { now_ns: 1001, ..pool };
        assert_eq!(segments(&plan(later, &[view])), [0, 1]);
    }

    #[test]
    fn what_a_replica_has_not_got_stays_whatever_the_bounds_say() {
        let pool = PoolView { wanted: 100, ..POOL };
        let mut view = TopicView { retention_ns: 1, ..topic(0, &[1, 2, 3]) };
        for (promised, want) in [(9, &[][..]), (10, &[0]), (29, &[0, 1]), (30, &[0, 1, 2])] {
            view.promised = [(32, promised)].into();
            assert_eq!(
                segments(&plan(pool, std::slice::from_ref(&view))),
                want,
                "below {promised}"
            );
        }
        view.promised = [(5, 0)].into();
        assert_eq!(segments(&plan(pool, &[view])), [0, 1, 2], "another log's replicas");
    }

    #[test]
    fn what_goes_anyway_counts_against_the_shortage() {
        let pool = PoolView { wanted: 6, ..POOL };
        let mut view = topic(0, &[1, 2, 3]);
        view.candidates[2].last = None;
        assert_eq!(segments(&plan(pool, &[view])), [2]);
    }
}
