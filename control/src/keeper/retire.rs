//! Retention carried out: the oldest index moves, brokers let go, the segment is free.

use std::collections::BTreeMap;

use landfall_layout::command::Command;
use landfall_layout::counters::Counter;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::segment::{SegmentKind, SegmentState};
use landfall_layout::topic::Durability;
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::clock::{wall_age_ns, wall_ns};
use landfall_pool::log::{Found, LogReader};

use super::{Keeper, ROUND_NS};
use crate::retention::{Candidate, PoolView, Retirement, TopicView, plan};
use crate::segments::Settled;

/// How often retention looks while segments are short, nanoseconds.
const SHORT_ROUND_NS: u64 = 1_000_000;

/// A segment that brokers have been asked to let go of.
#[derive(Clone, Copy, Debug)]
pub struct Retiring {
    /// The segment.
    pub segment: SegmentId,
    /// Which use of it.
    pub generation: u64,
    /// Its topic.
    pub topic: TopicId,
    /// Brokers that have not answered, a bit each.
    pub waiting: u32,
    /// Subscribers of brokers that died may be reading it until then, by control's own clock.
    pub not_before_ns: u64,
}

/// Segments that so many bytes may take in a pool of segments of that size, and that many. A batch
/// that does not fit any more leaves up to half of one empty. In more than half of the pool nothing
/// is kept for that.
fn may_fill(bytes: u64, (segment_bytes, segments): (u64, u32)) -> u64 {
    let full = bytes.div_ceil(segment_bytes);
    full.saturating_mul(2).min(full.max(u64::from(segments / 2)))
}

impl Keeper {
    /// Segments that shall be free: what somebody waits for, what is kept back and one, and as many
    /// as were taken a moment ago, so that whoever publishes fast finds them. Where nobody does,
    /// nothing that can be read goes for them.
    fn free_wanted(&self) -> u32 {
        let most = (self.segments.total() / 8).clamp(2, 64).max(self.kept_for_need() + 1);
        let least = most.min(self.reserve() + 1);
        self.taken.within(self.clock_ns()).clamp(least, most).saturating_add(self.needed())
    }

    /// Retention looks every round, and sooner when segments are short.
    pub(super) fn is_time_to_retain(&self, clock_ns: u64) -> bool {
        let since_ns = clock_ns.saturating_sub(self.retained_ns);
        let coming = self.segments.free() as usize + self.retiring.len();
        since_ns >= ROUND_NS || (since_ns >= SHORT_ROUND_NS && coming < self.free_wanted() as usize)
    }

    /// Looks at what retention may take, and begins to take it.
    pub(super) fn retain(&mut self) {
        self.retained_ns = self.clock_ns();
        let topics: Vec<TopicId> =
            self.topics.iter().flatten().filter(|t| t.is_live()).map(|t| t.id).collect();
        let views: Vec<TopicView> = topics.iter().filter_map(|id| self.view(*id)).collect();
        let view = PoolView {
            now_ns: self.retained_ns,
            free: self.segments.free() + self.retiring.len() as u32,
            wanted: self.free_wanted(),
        };
        let taken = plan(view, &views);
        if taken.is_empty() {
            return;
        }
        self.raise_oldest(&taken);
        for retirement in &taken {
            self.begin_retirement(retirement.topic, retirement.segment);
        }
    }

    fn view(&mut self, id: TopicId) -> Option<TopicView> {
        let topic = self.topic(id)?;
        let entry = topic.entry;
        let sequenced = topic.order.is_sequenced();
        let payload = topic.payload.clone();
        let now_ns = self.retained_ns;
        let candidates = payload
            .into_iter()
            .filter_map(|segment| {
                let settled = self.settle(id, segment)?;
                let used = self.segments.get(segment)?;
                let log = if sequenced { SEQUENCED_LOG } else { usize::from(used.what.owner) };
                let oldest = self.topic(id)?.logs.get(&log).map_or(0, |log| log.oldest_index);
                Some(Candidate {
                    segment,
                    log,
                    last: settled.last.filter(|last| *last >= oldest),
                    end_bytes: settled.end_bytes,
                    landed_ns: settled.landed_ns,
                    age_ns: settled.age_ns(now_ns),
                    kept_until_ns: used.kept_until_ns,
                })
            })
            .collect();
        let logs = self.topic(id)?.logs.keys();
        let log_bytes: BTreeMap<usize, u64> =
            logs.map(|log| (*log, self.pool.frontier(id, *log).bytes)).collect();
        let geometry = self.pool.geometry();
        let pool = (geometry.segment_bytes(), geometry.segments());
        let full = may_fill(entry.retention_bytes, pool);
        // In a sequenced topic each broker writes into a segment of its own.
        let open = if sequenced { self.landing(self.topic(id)?).len() } else { log_bytes.len() };
        Some(TopicView {
            filled: usize::try_from(full).unwrap_or(usize::MAX).saturating_add(open),
            topic: id,
            log_bytes,
            promised: self.promised(id)?,
            keeps: entry.keeps(),
            retention_bytes: entry.retention_bytes,
            retention_ns: entry.retention_ns,
            candidates,
        })
    }

    /// Index of each log below which every replica has what it shall have. A log's cut takes the
    /// entries of all brokers, so the one whose replicas are furthest behind counts.
    fn promised(&self, id: TopicId) -> Option<BTreeMap<usize, u64>> {
        let topic = self.topic(id)?;
        let disk_replicas = topic.entry.disk_replicas();
        let mut promised = BTreeMap::new();
        if disk_replicas == 0 {
            return Some(promised);
        }
        for source in self.landing(topic) {
            let log = if topic.order.is_sequenced() { SEQUENCED_LOG } else { source.index() };
            let reached = self.pool.replicated(id, source, disk_replicas);
            let index = match topic.entry.durability() {
                Durability::Sync => reached.durable,
                Durability::Window => reached.written,
            };
            let least = promised.entry(log).or_insert(index);
            *least = index.min(*least);
        }
        Some(promised)
    }

    /// What is known of a sealed payload segment once all its batches are ordered or dropped.
    fn settle(&mut self, topic: TopicId, segment: SegmentId) -> Option<Settled> {
        let used = *self.segments.get(segment)?;
        // A broker that was given up may land something more in what is withheld.
        if used.what.state != SegmentState::Sealed || self.segments.is_withheld(segment) {
            return None;
        }
        if used.settled.is_some() {
            return used.settled;
        }
        let owner = BrokerId::new(usize::from(used.what.owner))?;
        let (log, last) = if self.topic(topic)?.order.is_sequenced() {
            let consumed =
                self.pool.slot_ring(topic, owner).map_or(0, |ring| ring.consumed(&*self.pool));
            if consumed < used.through {
                return None;
            }
            (SEQUENCED_LOG, self.shared.last_entries.last(segment.0))
        } else {
            let reached = self.pool.frontier(topic, owner.index()).entries;
            if reached < used.through {
                return None;
            }
            (owner.index(), used.through.checked_sub(1))
        };
        let entry =
            last.and_then(|last| match LogReader::new(topic, log).entry(&self.pool, last) {
                Found::Entry(entry) => Some(entry),
                Found::Lapped { .. } | Found::Gone => None,
            });
        let end_bytes = match (self.topic(topic)?.entry.retention_bytes, last) {
            (0, _) | (_, None) => 0,
            (_, Some(last)) => self.bytes_through(topic, log, last)?,
        };
        let settled = Settled {
            last: entry.and(last),
            end_position: entry.map_or(0, |entry| entry.end_position()),
            end_bytes,
            landed_ns: entry.map_or(0, |entry| entry.landed_ns),
            landed_age_ns: entry.map_or(u64::MAX, |entry| wall_age_ns(entry.landed_ns, wall_ns())),
            settled_ns: self.clock_ns(),
        };
        self.segments.get_mut(segment)?.settled = Some(settled);
        Some(settled)
    }

    /// Moves each log past the last entry that goes, before anything is reused.
    fn raise_oldest(&mut self, taken: &[Retirement]) {
        let mut raised: BTreeMap<(TopicId, usize), (u64, u64)> = BTreeMap::new();
        for retirement in taken {
            let Some(past) = retirement.past else { continue };
            let end = self
                .segments
                .get(retirement.segment)
                .and_then(|used| used.settled)
                .map_or(0, |settled| settled.end_position);
            let place = raised.entry((retirement.topic, retirement.log)).or_default();
            *place = (*place).max((past + 1, end));
        }
        for ((id, log), (index, position)) in raised {
            let Some(known) = self.topic_mut(id).and_then(|topic| topic.logs.get_mut(&log)) else {
                continue;
            };
            known.oldest_index = index;
            known.oldest_position = position;
            self.pool.raise_oldest(id, log, index, position);
            self.trim_log(id, log);
        }
    }

    fn begin_retirement(&mut self, topic: TopicId, segment: SegmentId) {
        let Some(used) = self.segments.get(segment) else { return };
        let generation = used.generation;
        self.segments.set_state(segment, SegmentState::Retiring, wall_ns());
        if let Some(topic) = self.topic_mut(topic) {
            topic.payload.retain(|payload| *payload != segment);
        }
        let waiting = self.acting();
        for id in BrokerId::all().filter(|id| waiting >> id.index() & 1 == 1) {
            self.send(id, Command::Retire { segment: segment.0, generation });
        }
        let not_before_ns = self.grace_ns();
        self.retiring.push(Retiring { segment, generation, topic, waiting, not_before_ns });
    }

    /// Retirements that the control before this one had begun: the oldest index has moved, the
    /// answers are not known.
    pub(super) fn retire_again(&mut self) {
        let begun: Vec<(SegmentId, TopicId)> = self
            .segments
            .all()
            .filter(|(_, used)| {
                used.what.kind == SegmentKind::Payload
                    && used.what.state == SegmentState::Retiring
                    && self.live_topic(used.what.topic).is_some()
            })
            .map(|(segment, used)| (segment, used.what.topic))
            .collect();
        for (segment, topic) in begun {
            self.begin_retirement(topic, segment);
        }
    }

    /// A broker has let go of a segment.
    pub(super) fn retired(&mut self, broker: BrokerId, segment: u32, generation: u64) {
        let same = |r: &&mut Retiring| r.segment.0 == segment && r.generation == generation;
        if let Some(retiring) = self.retiring.iter_mut().find(same) {
            retiring.waiting &= !(1 << broker.index());
        }
    }

    /// Frees what every broker has let go of.
    pub(super) fn finish_retirements(&mut self) {
        let clock_ns = self.clock_ns();
        let is_free = |r: &Retiring| r.waiting == 0 && r.not_before_ns <= clock_ns;
        if !self.retiring.iter().any(is_free) {
            return;
        }
        let (free, left) = std::mem::take(&mut self.retiring).into_iter().partition(is_free);
        self.retiring = left;
        for retiring in free {
            self.segments.give_back(retiring.segment);
            self.count(Counter::SegmentsFreed, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::may_fill;

    #[test]
    fn bytes_may_take_twice_their_segments_in_half_of_the_pool() {
        assert_eq!(may_fill(0, (8, 100)), 0);
        assert_eq!(may_fill(9, (8, 100)), 4);
        assert_eq!(may_fill(25 * 8, (8, 100)), 50);
        assert_eq!(may_fill(40 * 8, (8, 100)), 50);
        assert_eq!(may_fill(70 * 8, (8, 100)), 70);
        assert_eq!(may_fill(u64::MAX, (8, 100)), u64::MAX / 8 + 1);
    }
}
