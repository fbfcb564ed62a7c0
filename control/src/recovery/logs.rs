//! Chains of log segments: found again, and cut where a new epoch begins.

use std::collections::{BTreeMap, VecDeque};

use landfall_layout::limits::{LOGS_PER_TOPIC, SEQUENCED_LOG};
use landfall_layout::segment::{OWNER_CONTROL, SegmentKind, SegmentState, What};
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_pool::log::LogSegment;

use crate::keeper::{Log, Passed, Topic};
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
        // A log that came back from disk begins in memory without a segment.
        if !chain.is_empty() || line.oldest_index > 0 {
            let log = Log {
                chain,
                oldest_index: line.oldest_index,
                oldest_position: line.oldest_position,
                passed: Passed {
                    from: line.skipped_from,
                    to: line.skipped_to,
                    positions: line.skipped_positions,
                    entries: line.skipped_entries,
                },
                granted: None,
                awaits_from: None,
                summed: None,
            };
            logs.insert(number, log);
        }
    }
    logs
}

/// Gives the sequenced log of a topic a fresh segment that begins where the log was sealed, so that
/// this epoch writes only what is its own. `None` when there is no segment for it.
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
    // What begins where the log was sealed or behind holds nothing that counts.
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
        // A full pool: what is left of the old segment has to do, if its writer is gone.
        let last = last?;
        let old = segment_of(pool, segments, last)?;
        return Some(old).filter(|old| !segments.is_suspect(last) && old.holds(reached));
    };
    if let Some(last) = last {
        pool.link_segment(last, fresh);
    }
    log.chain.push_back(fresh);
    pool.set_chain(id, SEQUENCED_LOG, &log.line(id));
    segment_of(pool, segments, fresh)
}

/// A segment without room, for a log that gets one later: where the keeper has it begin is noted.
pub(super) fn no_room(pool: &Pool, topic: &mut Topic) -> LogSegment {
    let reached = pool.frontier(topic.id, SEQUENCED_LOG).entries;
    topic.logs.entry(SEQUENCED_LOG).or_default().awaits_from = Some(reached);
    LogSegment { segment: SegmentId::NONE, at: 0, base: reached, capacity: 0 }
}

fn segment_of(pool: &Pool, segments: &Segments, segment: SegmentId) -> Option<LogSegment> {
    Some(LogSegment {
        segment,
        at: pool.geometry().segment(segment)?,
        base: segments.get(segment)?.base_index,
        capacity: pool.geometry().entries_per_segment(),
    })
}
