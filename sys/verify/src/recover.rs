//! Mending what follows from the rest, and what a crash is known to leave.
//!
//! Control finds most things again by itself when it starts; none of that is done here. Here is
//! what nobody does: a header or a line that was damaged, where everything else says what it was.

mod files;

use std::collections::{BTreeMap, BTreeSet};

use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{ChainLine, FrontierLine};
use landfall_layout::segment::{SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_pool::log::{Found, LogReader};

use crate::batch::{self, Named};
use crate::chains::{self, Chain, follow, log_numbers};
use crate::facts::{Facts, Tally, TopicFacts};
use crate::finding::Findings;
use crate::look::look;
use crate::tables;
use landfall_pool::clock::wall_ns;

pub use files::{FilesRecovered, files};

/// What was done to a pool.
#[derive(Clone, Debug)]
pub struct PoolRecovered {
    /// What was wrong before.
    pub before: Findings,
    /// What was done, or would be.
    pub done: Vec<String>,
    /// What is still wrong: control mends the warnings.
    pub left: Findings,
    /// How much was looked at.
    pub tally: Tally,
}

/// Mends a pool that nobody else has: whoever calls this holds it ([`crate::hold()`]).
pub fn pool(pool: &Pool, dry_run: bool) -> PoolRecovered {
    let before = look(pool).findings;
    let mends = plan(pool);
    if !dry_run {
        mends.iter().for_each(|mend| mend.apply(pool));
    }
    let after = look(pool);
    let mut left = after.findings;
    left.sort();
    let done = mends.iter().map(ToString::to_string).collect();
    PoolRecovered { before, done, left, tally: after.tally }
}

/// One thing to be put right.
#[derive(Clone, Debug)]
enum Mend {
    /// A chain's line.
    Chain { topic: TopicId, log: usize, name: String, line: ChainLine },
    /// A frontier's position and bytes.
    Frontier { topic: TopicId, log: usize, name: String, line: FrontierLine },
    /// The way back from a log's segment.
    Previous { segment: SegmentId, header: SegmentHeader },
    /// What a segment is for.
    Use { segment: SegmentId, what: What, before: String },
}

impl std::fmt::Display for Mend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chain { name, line, .. } => write!(
                f,
                "chain of {name}: it ends with segment {} and begins at position {}",
                line.tail, line.oldest_position
            ),
            Self::Frontier { name, line, .. } => write!(
                f,
                "frontier of {name}: it stands at position {} after {} bytes",
                line.position, line.bytes
            ),
            Self::Previous { segment, header } => {
                write!(f, "header of segment {segment}: segment {} is before it", header.previous)
            }
            Self::Use { segment, what, before } if what.kind == SegmentKind::Free => {
                write!(f, "header of segment {segment}: free, since nothing names it; was {before}")
            }
            Self::Use { segment, what, before } => write!(
                f,
                "header of segment {segment}: sealed payload of broker {} for topic {:#x}, whose \
                 batches lie there; was {before}",
                what.owner, what.topic.0
            ),
        }
    }
}

impl Mend {
    fn apply(&self, pool: &Pool) {
        match self {
            Self::Chain { topic, log, line, .. } => pool.set_chain(*topic, *log, line),
            Self::Frontier { topic, log, line, .. } => pool.advance_frontier(*topic, *log, line),
            Self::Previous { segment, header } => pool.give_segment(*segment, header),
            Self::Use { segment, what, .. } if what.kind == SegmentKind::Free => {
                pool.set_segment_what(*segment, *what);
            }
            Self::Use { segment, what, .. } => {
                pool.set_segment_sealed(*segment, *what, wall_ns());
            }
        }
    }
}

/// What the logs say of the rest.
#[derive(Default)]
struct Known {
    mends: Vec<Mend>,
    /// Segments in which batches lie that a log names, with topic and broker.
    named: BTreeMap<u32, BTreeSet<(TopicId, u8)>>,
    /// Segments that a chain or a ring names.
    led_to: BTreeSet<u32>,
}

fn plan(pool: &Pool) -> Vec<Mend> {
    if pool.damaged_term().is_some() {
        // Nobody knows which tables say what everything else was.
        return Vec::new();
    }
    let mut quiet = Findings::default();
    let epoch = pool.epoch_number();
    let topics = tables::topics(pool, &mut quiet);
    let mut facts = Facts { epoch, topics, segments: tables::segments(pool), ..Facts::default() };
    let live: Vec<TopicFacts> = facts.topics.iter().flatten().filter(|t| t.live).cloned().collect();
    let mut known = Known::default();
    for topic in &live {
        let Some(order) = topic.order else { continue };
        for log in log_numbers(order) {
            if let Some(chain) = follow(pool, &mut facts, topic, log, &mut quiet) {
                one_log(pool, &facts, topic, (log, &chain), &mut known);
            }
        }
        for broker in BrokerId::all() {
            known.led_to.extend(pool.ring(topic.id, broker).map(|ring| ring.segment));
        }
    }
    uses(&facts, &mut known);
    known.mends
}

fn one_log(
    pool: &Pool,
    facts: &Facts,
    topic: &TopicFacts,
    (log, chain): (usize, &Chain),
    known: &mut Known,
) {
    let (Some(line), Some(last)) = (pool.chain(topic.id, log), chain.links.last()) else { return };
    known.led_to.extend([line.head, line.tail]);
    for pair in chain.links.windows(2) {
        let [before, after] = pair else { continue };
        let Some(header) = pool.segment_header(after.segment) else { continue };
        if header.previous != before.segment.0 {
            let header = SegmentHeader { previous: before.segment.0, ..header };
            known.mends.push(Mend::Previous { segment: after.segment, header });
        }
    }
    for link in &chain.links {
        let next = pool.next_segment(link.segment).map(|next| next.0);
        known.led_to.extend(next.into_iter().chain([link.segment.0]));
    }
    let frontier = pool.frontier(topic.id, log);
    let ends = batches(pool, facts, topic, (log, chain), &frontier, known);
    let name = chains::name(topic, log);
    let first = ends.map_or(line.oldest_position, |(first, _)| first);
    let whole = ChainLine { tail: last.segment.0, oldest_position: first, ..line };
    if whole != line {
        known.mends.push(Mend::Chain { topic: topic.id, log, name: name.clone(), line: whole });
    }
    if let Some((_, line)) = ends.filter(|(_, line)| *line != frontier) {
        known.mends.push(Mend::Frontier { topic: topic.id, log, name, line });
    }
}

/// Notes where the batches of a log lie. The position it begins at and the frontier it comes to,
/// if every entry is there and follows the one before.
fn batches(
    pool: &Pool,
    facts: &Facts,
    topic: &TopicFacts,
    (log, chain): (usize, &Chain),
    frontier: &FrontierLine,
    known: &mut Known,
) -> Option<(u64, FrontierLine)> {
    let end = chain.links.last()?.end.min(frontier.entries);
    let mut reader = LogReader::new(topic.id, log);
    let mut position = None;
    let mut first = None;
    let mut whole = end == frontier.entries;
    let mut bytes = 0_u64;
    let mut buffer = Vec::new();
    for index in chain.oldest..end {
        let Found::Entry(entry) = reader.entry(pool, index) else {
            whole = false;
            continue;
        };
        whole &= position.is_none_or(|position| position == entry.first_position);
        first = first.or(Some(entry.first_position));
        position = Some(entry.end_position());
        bytes = bytes.saturating_add(entry.bytes.into());
        if entry.is_hole() {
            continue;
        }
        let named = Named::by_entry(topic.id, &entry);
        if !batch::is_payload_of(facts, &named) && batch::is_there(pool, &named, &mut buffer) {
            let names = known.named.entry(entry.segment).or_default();
            names.insert((topic.id, entry.broker));
        }
    }
    let (first, position) = (first.filter(|_| whole)?, position?);
    // Bytes of entries that retention took are in no entry any more.
    let bytes = if chain.oldest == 0 { bytes } else { frontier.bytes.max(bytes) };
    // What was written and is not counted, the next leader counts when it seals the log.
    let line = match log == SEQUENCED_LOG && frontier.written != frontier.entries {
        true => *frontier,
        false => FrontierLine { position, bytes, ..*frontier },
    };
    Some((first, line))
}

/// Segments whose header says no use, or none, although batches lie in them.
fn uses(facts: &Facts, known: &mut Known) {
    for (number, segment) in facts.segments.iter().enumerate() {
        let id = SegmentId(number as u32);
        let names = known.named.get(&id.0);
        let is_free = segment.what.is_some_and(|what| what.kind == SegmentKind::Free);
        let is_unknown = segment.what.is_none();
        let what = match names.map(|names| names.iter().collect::<Vec<_>>()).as_deref() {
            Some([(topic, owner)]) if is_free || is_unknown => What {
                kind: SegmentKind::Payload,
                state: SegmentState::Sealed,
                owner: *owner,
                log: 0,
                topic: *topic,
            },
            None if is_unknown && !known.led_to.contains(&id.0) => What::FREE,
            _ => continue,
        };
        let before = facts.describe(id);
        known.mends.push(Mend::Use { segment: id, what, before });
    }
}
