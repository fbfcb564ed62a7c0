//! One look at a whole pool, in the order in which one thing is held against another.

use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::segment::SegmentKind;
use landfall_pool::Pool;

use crate::batch;
use crate::chains::{self, Chain, follow, is_stale, log_numbers};
use crate::entries::{self, Walk};
use crate::facts::{Facts, Tally, TopicFacts};
use crate::finding::Findings;
use crate::sequence::Sequences;
use crate::sessions::Lines;
use crate::{head, mend, others, replica_lines, rings, sessions, tables};

/// What one look found.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// What is not as it should be.
    pub findings: Findings,
    /// How much was looked at.
    pub tally: Tally,
}

/// Looks at everything in a pool, once. Total over any bytes in it, and bounded by its size.
pub fn look(pool: &Pool) -> Look {
    let mut out = Findings::default();
    // Whose tables are looked at: those of the leader that serves now.
    let epoch = pool.follow_what_holds();
    let topics = tables::topics(pool, &mut out);
    let mut facts = Facts { epoch, topics, segments: tables::segments(pool), ..Facts::default() };
    let mut tally = count(&facts);
    head::leaders(pool, &facts, &mut out);
    others::look(pool, &facts, &mut out);
    head::brokers(pool, &facts, &mut out);
    head::commands(pool, &facts, &mut out);
    head::errors(pool, &mut out);
    tables::headers(pool, &facts, &mut out);
    let lines = sessions::load(pool, &facts, &mut tally, &mut out);
    let mut ranges = Vec::new();
    let mut buffer = Vec::new();
    let live: Vec<TopicFacts> = facts.topics.iter().flatten().filter(|t| t.live).cloned().collect();
    for topic in &live {
        let Some(order) = topic.order else { continue };
        let chains: Vec<(usize, Chain)> = log_numbers(order)
            .filter_map(|log| Some((log, follow(pool, &mut facts, topic, log, &mut out)?)))
            .collect();
        if order.is_sequenced() {
            rings::lines(pool, &mut facts, topic, &mut out);
        }
        let none = Lines::new();
        let lines = lines.get(&topic.id).unwrap_or(&none);
        let mut walk = Walk {
            pool,
            facts: &facts,
            tally: &mut tally,
            ranges: &mut ranges,
            buffer: &mut buffer,
            out: &mut out,
        };
        one(&mut walk, topic, &chains, lines);
        replica_lines::look(pool, topic, &mut out);
    }
    batch::overlaps(ranges, &mut out);
    tables::leaks(pool, &facts, &mut out);
    Look { findings: out, tally }
}

fn count(facts: &Facts) -> Tally {
    let used = |segment: &&crate::facts::Segment| {
        segment.what.is_none_or(|what| what.kind != SegmentKind::Free)
    };
    Tally {
        topics: facts.topics.iter().flatten().count() as u64,
        segments: facts.segments.len() as u64,
        segments_used: facts.segments.iter().filter(used).count() as u64,
        ..Tally::default()
    }
}

/// A topic's logs, rings and sessions.
fn one(walk: &mut Walk<'_>, topic: &TopicFacts, chains: &[(usize, Chain)], lines: &Lines) {
    let name = chains::name(topic, SEQUENCED_LOG);
    let mut sequences = Sequences::new(topic.order, &name, lines);
    for (log, chain) in chains {
        frontier_line(walk, topic, *log, chain, lines);
        entries::look(walk, topic, *log, chain, &mut sequences);
    }
    if topic.order.is_some_and(|order| order.is_sequenced()) {
        rings::slots(walk, topic);
        let retained = chains.iter().all(|(_, chain)| chain.oldest == 0);
        sessions::judge(walk.pool, topic, lines, &sequences, retained, walk.out);
    }
}

/// A frontier line that is about another topic reads as an empty log: is it one?
fn frontier_line(
    walk: &mut Walk<'_>,
    topic: &TopicFacts,
    log: usize,
    chain: &Chain,
    lines: &Lines,
) {
    let at = walk.pool.geometry().frontier(topic.id.slot(), log);
    let word = chains::frontier_topic(walk.pool, topic, log);
    if word == u64::from(topic.id.0) {
        return;
    }
    // One that came back from disk begins where its chain says, until its broker lands.
    let is_begun = log == SEQUENCED_LOG || !chain.links.is_empty();
    let used = chain.oldest > 0 && is_begun
        || log == SEQUENCED_LOG && lines.iter().any(|(_, line)| line.next_seq > 0)
        || log == SEQUENCED_LOG && rings::any_consumed(walk.pool, topic);
    if used || !is_stale(word, topic.id) {
        let found = format!("it is about topic {word:#x}, so the log reads as empty");
        let of = format!("frontier of {}", chains::name(topic, log));
        walk.out.error("frontier", of, at, found, mend::COPY_POOL);
    }
}
