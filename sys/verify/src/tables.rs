//! The topic table and the segment headers.

use std::collections::HashMap;

use landfall_layout::limits::{
    BROKERS_MAX, LOGS_PER_TOPIC, REPLICAS_MAX, SEQUENCED_LOG, TOPICS_MAX,
};
use landfall_layout::segment::{OWNER_CONTROL, SegmentKind, SegmentState, What};
use landfall_layout::topic::{TopicEntry, TopicState, check_name, check_ring_slots};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::{Memory, Pool};

use crate::facts::{Facts, Segment, TopicFacts};
use crate::finding::Findings;
use crate::mend;

/// Loads the topic table and says what is wrong with it.
pub fn topics(pool: &Pool, out: &mut Findings) -> Vec<Option<TopicFacts>> {
    let mut topics: Vec<Option<TopicFacts>> = Vec::with_capacity(TOPICS_MAX);
    for slot in 0..TOPICS_MAX {
        let topic = topic(pool, slot, out);
        if let Some(topic) = &topic
            && let Some(other) = topics.iter().flatten().find(|other| other.name == topic.name)
        {
            let at = pool.geometry().topic(slot);
            let found = format!("slot {} has a topic of that name too", other.id.slot());
            out.error("topic", of(slot, &topic.name), at, found, mend::DELETE_ONE);
        }
        topics.push(topic);
    }
    topics
}

fn of(slot: usize, name: &str) -> String {
    format!("topic table, slot {slot}, topic {name:?}")
}

fn topic(pool: &Pool, slot: usize, out: &mut Findings) -> Option<TopicFacts> {
    let at = pool.geometry().topic(slot);
    let whole = pool.topic_in_slot(slot);
    let entry = whole.unwrap_or_else(|| TopicEntry::from_words(pool.load_words(at)));
    let of = of(slot, entry.name());
    if whole.is_none() {
        let found = format!("its version {} is odd: it was being changed", entry.version);
        out.warning("topic", &of, at, found, mend::CONTROL_DELETES);
    }
    if entry.state > TopicState::Deleting as u8 {
        let found = format!("its state {} is none; everyone takes it for absent", entry.state);
        out.error("topic", &of, at, found, mend::COPY_POOL);
    }
    let state = entry.state();
    if whole.is_some() && state == TopicState::Absent {
        return None;
    }
    let id = TopicId(entry.id);
    if id.slot() != slot || id.generation() == 0 {
        let found = format!("its id {:#x} belongs to slot {}", entry.id, id.slot());
        out.error("topic", &of, at, found, mend::COPY_POOL);
    }
    let live = whole.is_some() && state == TopicState::Live;
    if state == TopicState::Deleting && whole.is_some() {
        out.note("topic", &of, at, "it is being deleted", mend::CONTROL_DELETES);
    }
    if live {
        judge(&entry, &of, at, out);
    }
    let name = match entry.name() {
        "" => format!("{:#x}", entry.id),
        name => name.to_owned(),
    };
    Some(TopicFacts { id, name, order: entry.order(), entry, live })
}

/// What a live topic's entry says of itself.
fn judge(entry: &TopicEntry, of: &str, at: u64, out: &mut Findings) {
    if let Err(error) = check_name(entry.name()) {
        out.error("topic", of, at, error.to_string(), mend::DELETE_ONE);
    }
    if entry.order().is_none() {
        let found = format!("its order {} is none that this program knows", entry.order);
        out.error("topic", of, at, found, mend::COPY_POOL);
    }
    if let Err(error) = check_ring_slots(entry.ring_slots) {
        out.error("topic", of, at, error.to_string(), mend::DELETE_ONE);
    }
    if usize::from(entry.replicas) > REPLICAS_MAX {
        let found = format!("it has {} replicas; at most {REPLICAS_MAX} can be", entry.replicas);
        out.error("topic", of, at, found, mend::DELETE_ONE);
    }
    if entry.session_lease_ns == 0 {
        out.warning("topic", of, at, "its session lease is 0", mend::DELETE_ONE);
    }
}

/// Loads the segment headers.
pub fn segments(pool: &Pool) -> Vec<Segment> {
    (0..pool.geometry().segments())
        .filter_map(|segment| pool.segment_header(SegmentId(segment)))
        .map(|header| Segment { header, what: What::unpack(header.what).ok(), reached: false })
        .collect()
}

/// Says what is wrong with each header by itself, and with generations that repeat.
pub fn headers(pool: &Pool, facts: &Facts, out: &mut Findings) {
    let mut generations: HashMap<u64, usize> = HashMap::new();
    for (number, segment) in facts.segments.iter().enumerate() {
        let id = SegmentId(number as u32);
        let Some(at) = pool.geometry().segment_header(id) else { continue };
        let of = format!("header of segment {number}");
        let header = &segment.header;
        if header.generation != 0
            && let Some(other) = generations.insert(header.generation, number)
        {
            let found = format!("its generation {} is segment {other}'s too", header.generation);
            out.error("segment", &of, at, found, mend::COPY_POOL);
        }
        if header.epoch > facts.epoch {
            let found = format!("its epoch {} is later than {}", header.epoch, facts.epoch);
            out.error("segment", &of, at, found, mend::COPY_POOL);
        }
        if header.lost_ns != 0 {
            let found = format!("a page of it could not be read at {} ns", header.lost_ns);
            out.warning("lost", &of, at, found, mend::NEVER_AGAIN);
        }
        match segment.what {
            None => {
                let found = format!("its first word {:#018x} is no use", header.what);
                out.error("segment", &of, at, found, mend::RECOVER);
            }
            Some(what) if what.kind == SegmentKind::Free => {
                if header.what != 0 {
                    let found = format!("it is free, and its first word is {:#x}", header.what);
                    out.warning("segment", &of, at, found, mend::CONTROL_IGNORES);
                }
            }
            Some(what) => used(facts, segment, what, (&of, at), out),
        }
    }
}

/// Judges a header of a segment in use.
fn used(facts: &Facts, segment: &Segment, what: What, (of, at): (&str, u64), out: &mut Findings) {
    let header = &segment.header;
    if header.generation == 0 || header.epoch == 0 {
        let found = format!("it is in use with {} as generation", header.generation)
            + &format!(" and {} as epoch", header.epoch);
        out.error("segment", of, at, found, mend::COPY_POOL);
    }
    if what.state == SegmentState::Idle {
        out.error("segment", of, at, "it is in use and idle, which nobody sets", mend::COPY_POOL);
    }
    let owner = usize::from(what.owner);
    let fits = match (what.kind, usize::from(what.log)) {
        (SegmentKind::OrderLog, SEQUENCED_LOG) => what.owner == OWNER_CONTROL,
        (SegmentKind::OrderLog, log) => owner == log && log < BROKERS_MAX,
        (_, log) => log == 0 && owner < BROKERS_MAX,
    };
    if !fits {
        let found = format!("a {:?} has owner {owner} and log {}", what.kind, what.log);
        out.error("segment", of, at, found, mend::COPY_POOL);
    }
    let order = facts.topic(what.topic).and_then(|topic| topic.order);
    let sequenced = order.is_some_and(|order| order.is_sequenced());
    let wrong = match (what.kind, order) {
        (_, None) | (SegmentKind::Payload, _) | (SegmentKind::Free, _) => false,
        // Rings of several topics lie there, and their lines say which.
        (SegmentKind::Ring, _) => true,
        (SegmentKind::OrderLog, _) => (usize::from(what.log) == SEQUENCED_LOG) != sequenced,
    };
    if wrong {
        let found = format!("a {:?} of log {} in a topic of order", what.kind, what.log)
            + &format!(" {}", order.map_or("?", |order| order.name()));
        out.error("segment", of, at, found, mend::COPY_POOL);
    }
}

/// Says which segments in use nothing leads to. A topic that is being deleted, and one whose entry
/// says too little to follow, keeps what it has.
pub fn leaks(pool: &Pool, facts: &Facts, out: &mut Findings) {
    for (number, segment) in facts.segments.iter().enumerate() {
        let id = SegmentId(number as u32);
        let (Some(what), Some(at)) = (segment.what, pool.geometry().segment_header(id)) else {
            continue;
        };
        if what.kind == SegmentKind::Free || segment.reached {
            continue;
        }
        let of = format!("header of segment {number}");
        if what.kind == SegmentKind::Ring {
            let found = format!("nothing leads to {}", facts.describe(id));
            out.warning("leak", of, at, found, mend::CONTROL_FREES);
            continue;
        }
        match facts.topic(what.topic) {
            Some(topic) if !topic.live || topic.order.is_none() => {}
            Some(_) if what.kind == SegmentKind::Payload => {}
            Some(_) => {
                let found = format!("nothing leads to {}", facts.describe(id));
                out.warning("leak", of, at, found, mend::CONTROL_FREES);
            }
            None if was_deleted(pool, what.topic) => {
                let found = format!("its topic {:#x} was deleted", what.topic.0);
                out.warning("leak", of, at, found, mend::CONTROL_FREES);
            }
            None if was_being_created(pool, facts, segment, what) => {
                let found = format!("it is for topic {:#x}, which was never made", what.topic.0);
                out.warning("leak", of, at, found, mend::CONTROL_FREES);
            }
            None => {
                let found = format!("no topic has the id {:#x} that it serves", what.topic.0);
                out.error("leak", of, at, found, mend::COPY_POOL);
            }
        }
    }
}

/// Whether the topic was deleted in order: then no line of its slot is about it any more. Its
/// segments may wait until nobody follows the leader before, who may still read them.
fn was_deleted(pool: &Pool, topic: TopicId) -> bool {
    let entry = pool.topic_in_slot(topic.slot());
    let absent = |entry: &TopicEntry| entry.id == topic.0 && entry.state() == TopicState::Absent;
    let unchained = (0..LOGS_PER_TOPIC).all(|log| pool.chain(topic, log).is_none());
    let unringed = BrokerId::all().all(|broker| pool.ring(topic, broker).is_none());
    entry.as_ref().is_some_and(absent) && unchained && unringed
}

/// Whether a control that died while it created the topic left this: the first log segment of the
/// next topic of its slot.
fn was_being_created(pool: &Pool, facts: &Facts, segment: &Segment, what: What) -> bool {
    let slot = what.topic.slot();
    let before = pool.topic_in_slot(slot).map_or(0, |entry| TopicId(entry.id).generation());
    what.kind == SegmentKind::OrderLog
        && segment.header.base_index == 0
        && facts.topics.get(slot).is_some_and(Option::is_none)
        && what.topic.generation() == before + 1
}
