//! Batch-header rings: their line, how far they are consumed, every slot.

use landfall_layout::segment::SegmentKind;
use landfall_layout::slot::{ConsumedLine, RingLine, RingSlot, SLOT_PADDING};
use landfall_layout::topic::check_ring_slots;
use landfall_layout::{BrokerId, SegmentId};
use landfall_pool::lines::load_keyed;
use landfall_pool::{Memory, Pool};

use crate::batch::{self, Named, Range};
use crate::chains::{frontier_topic, is_stale};
use crate::entries::Walk;
use crate::facts::{Facts, TopicFacts};
use crate::finding::Findings;
use crate::mend;

/// A ring whose line holds.
struct Ring {
    /// Offset of its first slot.
    at: u64,
    slots: u64,
    consumed: u64,
    of: String,
    line_at: u64,
}

/// Looks at every ring of a sequenced topic: `facts` learns which segments they have.
pub fn lines(pool: &Pool, facts: &mut Facts, topic: &TopicFacts, out: &mut Findings) {
    for broker in BrokerId::all() {
        let at = pool.geometry().ring(topic.id.slot(), broker);
        let line = RingLine::from_words(load_keyed(pool, at, 0));
        let of = format!("ring of topic {}, broker {broker}", topic.name);
        if line.topic != u64::from(topic.id.0) {
            if !is_stale(line.topic, topic.id) {
                let found = format!("its line is about topic {:#x}, which", line.topic)
                    + " this slot never had";
                out.error("ring", &of, at, found, mend::COPY_POOL);
            }
            continue;
        }
        let segment = SegmentId(line.segment);
        let fits = facts.segment(segment).is_some_and(|known| {
            let what = known.what;
            known.header.generation == line.generation
                && what.is_some_and(|what| {
                    what.kind == SegmentKind::Ring && what.owner == broker.raw()
                })
        });
        if fits {
            facts.reach(segment);
        } else {
            let found = format!("it is in use {} of ", line.generation) + &facts.describe(segment);
            out.error("ring", &of, at, found, mend::COPY_POOL);
        }
        if let Err(error) = check_ring_slots(line.slots) {
            out.error("ring", &of, at, error.to_string(), mend::COPY_POOL);
        } else if line.slots != topic.entry.ring_slots {
            let found = format!("it has {} slots and the topic says", line.slots)
                + &format!(" {}", topic.entry.ring_slots);
            out.error("ring", &of, at, found, mend::COPY_POOL);
        } else if pool.slot_ring(topic.id, broker).is_none() {
            let found = format!("it begins at byte {} of segment {segment}", line.offset);
            out.error("ring", &of, at, found, mend::COPY_POOL);
        }
        if let Some(other) = facts.lay(segment, line.range(), &of) {
            let found = format!("it lies in segment {segment} where the {other} lies");
            out.error("ring", &of, at, found, mend::COPY_POOL);
        }
    }
}

/// Whether the sequencer took anything from a ring of the topic.
pub fn any_consumed(pool: &Pool, topic: &TopicFacts) -> bool {
    BrokerId::all()
        .filter_map(|broker| pool.slot_ring(topic.id, broker))
        .any(|ring| ring.consumed(pool) > 0)
}

/// Looks at every slot of a sequenced topic's rings.
pub fn slots(walk: &mut Walk<'_>, topic: &TopicFacts) {
    for broker in BrokerId::all() {
        let Some(ring) = open(walk.pool, topic, broker, walk.out) else { continue };
        let next = commits(walk.pool, &ring, walk.out);
        landed(walk.pool, topic, broker, &ring, next, walk.out);
        for index in ring.consumed..next {
            waiting(walk, topic, broker, &ring, index);
        }
    }
}

fn open(pool: &Pool, topic: &TopicFacts, broker: BrokerId, out: &mut Findings) -> Option<Ring> {
    let ring = pool.slot_ring(topic.id, broker)?;
    check_ring_slots(u32::try_from(ring.slots).ok()?).ok()?;
    let slot = topic.id.slot();
    let at = pool.geometry().consumed(slot, broker);
    let line = ConsumedLine::from_words(load_keyed(pool, at, 0));
    let of = format!("ring of topic {}, broker {broker}", topic.name);
    if line.topic != u64::from(topic.id.0) {
        let found = format!("its consumed line is about topic {:#x}", line.topic);
        out.error("ring", &of, at, found, mend::COPY_POOL);
    }
    let line_at = pool.geometry().ring(slot, broker);
    Some(Ring { at: ring.at, slots: ring.slots, consumed: line.through, of, line_at })
}

impl Ring {
    fn slot(&self, index: u64) -> u64 {
        self.at + (index & (self.slots - 1)) * RingSlot::BYTES
    }
}

/// Holds every commit word against the only ones that can be there; the index behind the last
/// committed slot.
fn commits(pool: &Pool, ring: &Ring, out: &mut Findings) -> u64 {
    pool.refresh(ring.at, ring.slots * RingSlot::BYTES);
    let commit = |index: u64| pool.load(ring.slot(index) + 120);
    let Some(end) = ring.consumed.checked_add(ring.slots) else {
        let found = format!("it is consumed through {}", ring.consumed);
        out.error("ring", &ring.of, ring.line_at, found, mend::COPY_POOL);
        return ring.consumed;
    };
    let mut next = ring.consumed;
    while next < end && commit(next) == next + 1 {
        next += 1;
    }
    for index in next..end {
        let word = commit(index);
        // Behind the committed ones lies what the lap before left, or nothing in the first lap.
        let before = (index + 1).saturating_sub(ring.slots);
        if word != before {
            let found = format!("slot {index} has commit word {word}; the slots from")
                + &format!(" {} on are committed to {next}, so {before}", ring.consumed)
                + " belongs there";
            out.error("slot", &ring.of, ring.slot(index) + 120, found, mend::COPY_POOL);
        }
    }
    next
}

/// What the broker's landed line says against the ring.
fn landed(
    pool: &Pool,
    topic: &TopicFacts,
    broker: BrokerId,
    ring: &Ring,
    next: u64,
    out: &mut Findings,
) {
    let at = pool.geometry().frontier(topic.id.slot(), broker.index());
    let landed = pool.frontier(topic.id, broker.index()).entries;
    let of = format!("landed line of topic {}, broker {broker}", topic.name);
    let word = frontier_topic(pool, topic, broker.index());
    if word != u64::from(topic.id.0) && !is_stale(word, topic.id) {
        let found = format!("it is about topic {word:#x}, which this slot never had");
        out.error("frontier", of, at, found, mend::BROKER_RESUMES);
    } else if landed > next {
        let found = format!("it says {landed} slots and the ring has {next}");
        out.error("frontier", of, at, found, mend::COPY_POOL);
    } else if landed < ring.consumed {
        let found = format!("it says {landed} slots and {} are consumed", ring.consumed);
        out.note("frontier", of, at, found, mend::BROKER_RESUMES);
    }
}

/// A slot that waits to be ordered: everything it names has to be there.
fn waiting(walk: &mut Walk<'_>, topic: &TopicFacts, broker: BrokerId, ring: &Ring, index: u64) {
    let pool = walk.pool;
    let at = ring.slot(index);
    let slot = RingSlot::from_words(pool.load_words(at));
    let of = format!("{}, slot {index}", ring.of);
    walk.tally.slots += 1;
    if slot.commit != index + 1 || slot.flags & SLOT_PADDING != 0 {
        return;
    }
    if slot.topic != topic.id.0 {
        let found = format!("it is of topic {:#x}", slot.topic);
        walk.out.error("slot", &of, at, found, mend::COPY_POOL);
        return;
    }
    if slot.flags != 0 || slot.count == 0 {
        let found = format!("it has {} messages and flags {:#x}", slot.count, slot.flags);
        walk.out.error("slot", &of, at, found, mend::COPY_POOL);
    }
    if slot.session >= pool.geometry().sessions() {
        let found = format!("its session {} is none of the pool's", slot.session);
        walk.out.error("slot", &of, at, found, mend::COPY_POOL);
    }
    let named = Named::by_slot(broker, &slot);
    let Some(start) = batch::place(pool, walk.facts, &named, (&of, at), walk.out) else { return };
    walk.ranges.push(Range { waits: true, ..batch::range(&named, at) });
    batch::contents(pool, &named, start, &of, walk.buffer, walk.tally, walk.out);
}
