//! Chains of log segments: found again, and cut where a new epoch begins.

use std::collections::{BTreeMap, VecDeque};

use landfall_layout::limits::{LOGS_PER_TOPIC, SEQUENCED_LOG};
use landfall_layout::order::OrderEntry;
use landfall_layout::segment::{OWNER_CONTROL, SegmentKind, SegmentState, What};
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::log::LogSegment;
use landfall_pool::{Memory, Pool};

use crate::keeper::{Log, Topic};
use crate::segments::{Purpose, Segments};

/// Walks every chain of a topic. A chain ends where a link leads to a segment of another use.
pub(super) fn chains(pool: &Pool, segments: &Segments, id: TopicId) -> BTreeMap<usize, Log> {
    let mut logs = BTreeMap::new();
    for number in 0..LOGS_PER_TOPIC {
        let Some(line) = pool.chain(id, number) else { continue };
        let mut chain = VecDeque::new();
        let mut at = SegmentId(line.head);
        // A chain is no longer than the pool has segments; a loop would be a broken one.
        while chain.len() < segments.total() as usize {
            let is_ours = segments.get(at).is_some_and(|used| {
                used.what.kind == SegmentKind::OrderLog
                    && used.what.topic == id
                    && usize::from(used.what.log) == number
            });
            if !is_ours {
                break;
            }
            chain.push_back(at);
            match pool.segment_header(at).and_then(|header| SegmentId(header.next).some()) {
                Some(next) => at = next,
                None => break,
            }
        }
        if !chain.is_empty() {
            let (oldest_index, oldest_position) = (line.oldest_index, line.oldest_position);
            logs.insert(number, Log { chain, oldest_index, oldest_position, granted: None });
        }
    }
    logs
}

/// Gives the sequenced log of a topic a fresh segment that begins at its frontier, so that this
/// epoch writes only what is its own. `None` when there is neither a free segment nor an old one.
pub(super) fn begin_epoch(
    pool: &Pool,
    segments: &mut Segments,
    topic: &mut Topic,
    now_ns: u64,
) -> Option<LogSegment> {
    let id = topic.id;
    let reached = pool.frontier(id, SEQUENCED_LOG).entries;
    let log = topic.logs.entry(SEQUENCED_LOG).or_default();
    log.oldest_index = log.oldest_index.min(reached);
    // What begins at the frontier or behind it holds nothing that counts.
    let mut unused = Vec::new();
    while let Some(tail) = log.chain.back().copied()
        && segments.get(tail).is_some_and(|used| used.base_index >= reached)
    {
        log.chain.pop_back();
        unused.push(tail);
    }
    let last = log.chain.back().copied();
    if let Some(last) = last {
        pool.link_segment(last, SegmentId::NONE);
        pool.set_chain(id, SEQUENCED_LOG, &log.line(id));
        forget_uncovered(pool, &segment_of(pool, segments, last)?, reached);
    }
    for segment in unused {
        segments.give_back(segment);
    }
    let what = What {
        kind: SegmentKind::OrderLog,
        state: SegmentState::Open,
        owner: OWNER_CONTROL,
        log: SEQUENCED_LOG as u8,
        topic: id,
    };
    let purpose = Purpose { what, base_index: reached, previous: last };
    let Some(fresh) = segments.take(purpose, now_ns) else {
        // A full pool: what is left of the old segment has to do. The control that wrote it is
        // gone, because this one has its bells.
        return segment_of(pool, segments, last?).filter(|segment| segment.holds(reached));
    };
    if let Some(last) = last {
        pool.link_segment(last, fresh);
    }
    log.chain.push_back(fresh);
    pool.set_chain(id, SEQUENCED_LOG, &log.line(id));
    segment_of(pool, segments, fresh)
}

/// Unwrites the entries from `reached` on that the dead control wrote and the frontier never
/// passed: a reader that is still in this segment must not take them for those that come instead.
fn forget_uncovered(pool: &Pool, segment: &LogSegment, reached: u64) {
    for index in reached.max(segment.base)..segment.base + segment.capacity {
        let commit = segment.at + (index - segment.base) * OrderEntry::BYTES + 56;
        if pool.load_relaxed(commit) == index + 1 {
            pool.store(commit, 0);
            pool.publish(commit, 8);
        }
    }
}

fn segment_of(pool: &Pool, segments: &Segments, segment: SegmentId) -> Option<LogSegment> {
    Some(LogSegment {
        segment,
        at: pool.geometry().segment(segment)?,
        base: segments.get(segment)?.base_index,
        capacity: pool.geometry().entries_per_segment(),
    })
}
