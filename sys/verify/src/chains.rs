//! Chains of log segments: followed once, link by link.

use std::collections::HashSet;

use landfall_layout::limits::{LOGS_PER_TOPIC, SEQUENCED_LOG};
use landfall_layout::order::{ChainLine, FrontierLine};
use landfall_layout::segment::SegmentKind;
use landfall_layout::topic::Order;
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_pool::lines::load_keyed;

use crate::facts::{Facts, TopicFacts};
use crate::finding::Findings;
use crate::mend;

/// One segment of a chain, and which entries it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The segment.
    pub segment: SegmentId,
    /// Index of its first entry.
    pub base: u64,
    /// Index behind the last entry that belongs to it: where the next one begins, or as far as
    /// there is room.
    pub end: u64,
}

/// A log as its lines say.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// Its segments, the oldest first, as far as the links hold.
    pub links: Vec<Link>,
    /// Oldest index that may be read.
    pub oldest: u64,
    /// Position of that entry's first message, as the line says.
    pub oldest_position: u64,
}

/// The log numbers that a topic of that order may have.
pub fn log_numbers(order: Order) -> std::ops::Range<usize> {
    if order.is_sequenced() { SEQUENCED_LOG..LOGS_PER_TOPIC } else { 0..SEQUENCED_LOG }
}

/// What a log is called in a sentence.
pub fn name(topic: &TopicFacts, log: usize) -> String {
    format!("topic {}, log {log}", topic.name)
}

/// Follows the chain of a log and says what is wrong with it. `None` when there is none.
pub fn follow(
    pool: &Pool,
    facts: &mut Facts,
    topic: &TopicFacts,
    log: usize,
    out: &mut Findings,
) -> Option<Chain> {
    let at = pool.geometry().chain(topic.id.slot(), log);
    let of = format!("chain of {}", name(topic, log));
    let line = ChainLine::from_words(load_keyed(pool, at, 3));
    if line.topic != u64::from(topic.id.0) {
        judge_absent(pool, facts, topic, log, &line, out);
        return None;
    }
    let mut chain = Chain {
        oldest: line.oldest_index,
        oldest_position: line.oldest_position,
        ..Chain::default()
    };
    // A log that came back from disk begins with the first segment that its writer asks for.
    let is_unbegun = SegmentId(line.head).some().is_none() && SegmentId(line.tail).some().is_none();
    if is_unbegun && pool.frontier(topic.id, log).entries == line.oldest_index {
        return Some(chain);
    }
    let mut seen = HashSet::new();
    let mut at_segment = SegmentId(line.head);
    // Every step adds to `seen` a segment of the pool, so there are at most as many as it has.
    loop {
        if !seen.insert(at_segment.0) {
            let found = format!("its links lead back to segment {at_segment}");
            out.error("chain", &of, at, found, mend::COPY_POOL);
            break;
        }
        if !is_of(facts, at_segment, topic.id, log) {
            let found = match chain.links.last() {
                None => format!("its head is {}", facts.describe(at_segment)),
                Some(last) => {
                    let next = facts.describe(at_segment);
                    format!("segment {} leads to {next}", last.segment)
                }
            };
            out.error("chain", &of, at, found, mend::COPY_POOL);
            break;
        }
        join(pool, facts, &mut chain, at_segment, (&of, at), out);
        match facts.segment(at_segment).and_then(|s| SegmentId(s.header.next).some()) {
            Some(next) => at_segment = next,
            None => break,
        }
    }
    for link in &chain.links {
        facts.reach(link.segment);
    }
    judge_ends(&chain, &line, (&of, at), out);
    Some(chain)
}

fn is_of(facts: &Facts, segment: SegmentId, topic: TopicId, log: usize) -> bool {
    facts.segment(segment).and_then(|segment| segment.what).is_some_and(|what| {
        what.kind == SegmentKind::OrderLog && what.topic == topic && usize::from(what.log) == log
    })
}

/// Puts a segment behind a chain, after a look at where it begins and what it says is before it.
fn join(
    pool: &Pool,
    facts: &Facts,
    chain: &mut Chain,
    segment: SegmentId,
    (of, at): (&str, u64),
    out: &mut Findings,
) {
    let Some(header) = facts.segment(segment).map(|segment| segment.header) else { return };
    let base = header.base_index;
    let end = base.saturating_add(pool.geometry().entries_per_segment());
    if let Some(last) = chain.links.last_mut() {
        let here = pool.geometry().segment_header(segment).unwrap_or(at);
        if header.previous != last.segment.0 {
            let found = format!("segment {segment} follows {} and says that", last.segment)
                + &format!(" {} is before it", SegmentId(header.previous));
            out.warning("chain", of, here, found, mend::RECOVER);
        }
        if base <= last.base || base > last.end {
            let found = format!("segment {segment} begins at entry {base}, and")
                + &format!(" {} before it has {} to {}", last.segment, last.base, last.end);
            out.error("chain", of, here, found, mend::COPY_POOL);
        }
        last.end = last.end.min(base.max(last.base));
    }
    chain.links.push(Link { segment, base, end });
}

fn judge_ends(chain: &Chain, line: &ChainLine, (of, at): (&str, u64), out: &mut Findings) {
    let (Some(first), Some(last)) = (chain.links.first(), chain.links.last()) else { return };
    if line.oldest_index < first.base {
        let found = format!("its oldest entry is {} and its first segment", line.oldest_index)
            + &format!(" begins at {}", first.base);
        out.error("chain", of, at, found, mend::COPY_POOL);
    }
    if line.tail != last.segment.0 {
        let found = format!("its tail is segment {} and its links end", SegmentId(line.tail))
            + &format!(" at segment {}", last.segment);
        if chain.links.iter().any(|link| link.segment.0 == line.tail) {
            out.warning("chain", of, at, found, mend::RECOVER);
        } else {
            out.error("chain", of, at, found, mend::RECOVER);
        }
    }
}

/// A log without a chain: well for a broker that never had one, and for nobody else.
fn judge_absent(
    pool: &Pool,
    facts: &Facts,
    topic: &TopicFacts,
    log: usize,
    line: &ChainLine,
    out: &mut Findings,
) {
    let at = pool.geometry().chain(topic.id.slot(), log);
    let of = format!("chain of {}", name(topic, log));
    let entries = pool.frontier(topic.id, log).entries;
    let stale = is_stale(line.topic, topic.id);
    if log == SEQUENCED_LOG || entries > 0 {
        let found = format!("it is about topic {:#x}, so nobody finds the log's", line.topic)
            + &format!(" {entries} entries");
        out.error("chain", of, at, found, mend::COPY_POOL);
    } else if !stale {
        let found = format!("it is about topic {:#x}, which this slot never had", line.topic);
        out.error("chain", of, at, found, mend::COPY_POOL);
    } else if let Some(stray) = (0..facts.segments.len() as u32)
        .find(|segment| is_of(facts, SegmentId(*segment), topic.id, log))
    {
        let found = format!("there is none, and segment {stray} is of this log");
        out.warning("chain", of, at, found, mend::CONTROL_FREES);
    }
}

/// Whether a line's topic word is one that an earlier use of the slot, or none, leaves there, or
/// the one that is stored while the line changes hands.
pub fn is_stale(word: u64, topic: TopicId) -> bool {
    let before = u32::try_from(word).map(TopicId);
    word == 0
        || word == u64::MAX
        || before.is_ok_and(|id| id.slot() == topic.slot() && id.generation() < topic.generation())
}

/// Whose a frontier line is.
pub fn frontier_topic(pool: &Pool, topic: &TopicFacts, log: usize) -> u64 {
    let at = pool.geometry().frontier(topic.id.slot(), log);
    FrontierLine::from_words(load_keyed(pool, at, 4)).topic
}
