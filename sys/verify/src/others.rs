//! The tables of leaders that nobody follows any more, held against those that everybody follows.
//!
//! Each leader begins with the tables of the one before it, so those that are followed know every
//! topic that another slot has, or that its slot was given to a later one. Where they do not, they
//! are not the latest, whatever the leader lines say.

use std::collections::BTreeMap;

use landfall_layout::fate::Fate;
use landfall_layout::limits::{LEADERS_MAX, TOPICS_MAX};
use landfall_layout::pool::Term;
use landfall_layout::segment::{SegmentHeader, SegmentKind, What};
use landfall_layout::slot::RingLine;
use landfall_layout::topic::{TopicEntry, TopicState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::lines::load_keyed;
use landfall_pool::topics::read_versioned;
use landfall_pool::{Memory, Pool};

use crate::facts::Facts;
use crate::finding::Findings;
use crate::mend;

/// What a slot's tables say of a topic.
#[derive(Debug, Default)]
struct Known {
    /// Its entry, if it is alive there.
    entry: Option<TopicEntry>,
    /// Segments for it.
    segments: u64,
    /// Some are rings or payload: brokers were told of the topic.
    is_used: bool,
}

/// Says which topics other slots have that the tables of the leader do not.
pub fn look(pool: &Pool, facts: &Facts, out: &mut Findings) {
    if facts.epoch == 0 {
        return;
    }
    let leading = pool.geometry().leader_slot();
    for slot in (0..LEADERS_MAX).filter(|slot| *slot != leading) {
        let term = Term::unpack(pool.leader_line(slot).term).unwrap_or_default();
        if term.epoch == 0 {
            continue;
        }
        for (id, known) in topics(pool, slot) {
            if is_known(pool, id, known.entry.as_ref()) {
                continue;
            }
            let name = known.entry.as_ref().map_or("?", |entry| entry.name());
            let of = format!("leader slot {slot}, topic {name:?} of id {:#x}", id.0);
            let at = pool.geometry_of(slot).topic(id.slot());
            let found = format!("it has {} segments in the tables of epoch", known.segments)
                + &format!(" {}, and those of epoch {} in slot", term.epoch, facts.epoch)
                + &format!(" {leading}, which are followed, do not know it");
            match known.is_used || term.epoch > facts.epoch {
                true => out.error("older", of, at, found, mend::NOT_THE_LATEST),
                // A leader that was deposed before it could answer: nobody was told of it.
                false => out.warning("older", of, at, found, mend::CONTROL_IGNORES),
            }
        }
    }
}

/// Topics of a slot's tables: those that live, and those that segments are for.
fn topics(pool: &Pool, slot: usize) -> BTreeMap<TopicId, Known> {
    let tables = pool.geometry_of(slot);
    let mut topics: BTreeMap<TopicId, Known> = BTreeMap::new();
    for place in 0..TOPICS_MAX {
        let Some(words) = read_versioned(pool, tables.topic(place)) else { continue };
        let entry = TopicEntry::from_words(words);
        if entry.state() == TopicState::Live && TopicId(entry.id).slot() == place {
            let known = topics.entry(TopicId(entry.id)).or_default();
            known.entry = Some(entry);
            // Rings lie beside those of other topics: their lines say whose they are.
            known.is_used |= BrokerId::all().any(|broker| {
                let line = RingLine::from_words(load_keyed(pool, tables.ring(place, broker), 0));
                line.topic == u64::from(entry.id)
            });
        }
    }
    for segment in (0..tables.segments()).map(SegmentId) {
        let Some(at) = tables.segment_header(segment) else { continue };
        pool.refresh(at, SegmentHeader::BYTES);
        let header = SegmentHeader::from_words(pool.load_words(at));
        let Ok(what) = What::unpack(header.what) else { continue };
        let is_used = what.kind == SegmentKind::Payload;
        if is_used || what.kind == SegmentKind::OrderLog {
            let known = topics.entry(what.topic).or_default();
            known.segments += 1;
            known.is_used |= is_used;
        }
    }
    topics
}

/// Whether the tables that are followed know a topic, or have given its slot to a later one.
fn is_known(pool: &Pool, id: TopicId, entry: Option<&TopicEntry>) -> bool {
    // One that is being changed is known the next time.
    let Some(followed) = pool.topic_in_slot(id.slot()) else { return true };
    match entry {
        Some(entry) => followed.fate_of(id, entry.name(), entry.created_ns) != Fate::Unknown,
        None => followed.id == id.0 || TopicId(followed.id).is_after(id),
    }
}
