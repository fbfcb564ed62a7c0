//! Grants: segments, rings and logs for brokers, ahead of their need.
//!
//! A payload segment is granted once. Should control die between the header and the ring, the
//! segment stays its broker's, unused, until that broker's process ends: granting it again could
//! meet a broker that has filled it, reported it and forgotten it.

use landfall_layout::command::{Command, Denial};
use landfall_layout::counters::Counter;
use landfall_layout::full::{kept_back, logs_may_have};
use landfall_layout::segment::{SegmentKind, SegmentState, What};
use landfall_layout::slot::{ConsumedLine, RingLine, RingSlot};
use landfall_layout::topic::Order;
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::Memory;

use super::Keeper;
use super::rings::Place;
use crate::answers::Problem;
use crate::messages::{NewRing, ToSequencer};
use crate::segments::Purpose;
use landfall_pool::clock::wall_ns;

/// A broker is told that there is no segment only after this long: retention may find one first.
const DENY_AFTER_NS: u64 = 50_000_000;

/// What a broker may want.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sort {
    /// A segment for batches.
    Payload,
    /// A segment for its own log.
    Log,
    /// A ring.
    Ring,
}

impl Sort {
    fn kind(self) -> SegmentKind {
        match self {
            Self::Payload => SegmentKind::Payload,
            Self::Log => SegmentKind::OrderLog,
            Self::Ring => SegmentKind::Ring,
        }
    }
}

/// Something wanted that there was no segment for yet.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Who.
    pub broker: BrokerId,
    /// For which topic.
    pub topic: TopicId,
    /// What.
    pub sort: Sort,
    /// It has one that has room: it is granted only where many are free, and nobody waits.
    pub is_ahead: bool,
    /// No segment that comes free helps: logs and rings have what they may have.
    pub is_barred: bool,
    /// When it is time to say that there is none, by control's own clock; `None`: said already.
    pub deny_ns: Option<u64>,
}

impl Keeper {
    /// Segments that shall stay free for what a full pool cannot do without: order logs and rings.
    pub(super) fn reserve(&self) -> u32 {
        kept_back(self.segments.total())
    }

    /// Refuses a topic whose order log would leave nothing for batches, of any topic and for as
    /// long as those that there are stay.
    pub(super) fn leaves_room(&self, name: &str, order: Order) -> Result<(), Problem> {
        let fixed = self.logs_and_rings();
        let all = self.segments.total() - self.segments.lost();
        // Whoever publishes first needs a ring, too; an own log begins then.
        let rings = if order.is_sequenced() { self.without_rings() } else { 0 };
        if fixed + 1 + rings <= logs_may_have(all) {
            return Ok(());
        }
        Err(Problem::full(
            "pool_full",
            format!(
                "topic {name} needs {} for its order log and rings, and these have {fixed} of \
                 {all} segments and may have {}, so that there is room for batches; delete a \
                 topic, or make a pool that is larger or has smaller segments",
                if rings == 0 { "a segment".to_owned() } else { format!("{} segments", 1 + rings) },
                logs_may_have(all)
            ),
        ))
    }

    /// Segments that stay for as long as their topics do.
    fn logs_and_rings(&self) -> u32 {
        let stays = |kind| matches!(kind, SegmentKind::OrderLog | SegmentKind::Ring);
        self.segments.all().filter(|(_, used)| stays(used.what.kind)).count() as u32
    }

    /// Whether a broker wants the first segment of a log of its own.
    fn begins_log(&self, wanted: &Wanted) -> bool {
        let logs = self.topic(wanted.topic).map(|topic| &topic.logs);
        let log = logs.and_then(|logs| logs.get(&wanted.broker.index()));
        wanted.sort == Sort::Log && log.is_none_or(|log| log.chain.is_empty())
    }

    /// Whether there are as many order logs and rings as there may be. What they have is there for
    /// batches no longer.
    fn bars_logs(&self) -> bool {
        self.logs_and_rings() >= logs_may_have(self.segments.total() - self.segments.lost())
    }

    /// Segments that stay free for those who have nothing left to write into: a broker gets none
    /// ahead of need below that.
    pub(super) fn kept_for_need(&self) -> u32 {
        self.reserve() + (self.segments.total() / 16).clamp(1, 32)
    }

    /// Notes what a broker wants. A request that is repeated while it waits is one request.
    pub(super) fn want(&mut self, broker: BrokerId, topic: TopicId, sort: Sort, is_ahead: bool) {
        let fits = |sequenced: bool| match sort {
            Sort::Payload => true,
            Sort::Log => !sequenced,
            Sort::Ring => sequenced,
        };
        let usable = self.live_topic(topic).is_some_and(|t| fits(t.order.is_sequenced()));
        if !usable {
            let command = self.denied(topic, sort.kind(), Denial::NoTopic);
            self.send(broker, command);
            return;
        }
        let kind = sort.kind();
        let on_its_way = |command: &Command| match *command {
            Command::Grant { topic: granted, kind: of, .. } => granted == topic && of == kind,
            _ => false,
        };
        if self.brokers[broker.index()].outbox.is_queued(on_its_way) {
            return;
        }
        let deny_ns = (!is_ahead).then(|| self.clock_ns() + DENY_AFTER_NS);
        let same = |w: &&mut Wanted| w.broker == broker && w.topic == topic && w.sort == sort;
        match self.wanted.iter_mut().find(same) {
            Some(wanted) => {
                wanted.is_ahead = is_ahead;
                wanted.deny_ns = deny_ns.and(wanted.deny_ns.or(deny_ns));
            }
            None => {
                let is_barred = false;
                self.wanted.push(Wanted { broker, topic, sort, is_ahead, is_barred, deny_ns });
            }
        }
    }

    /// Grants what can be granted; says of the rest, once, that it cannot.
    pub(super) fn serve_wanted(&mut self) {
        if self.wanted.is_empty() {
            self.say_short();
            return;
        }
        let clock_ns = self.clock_ns();
        let mut unserved = Vec::new();
        // Looked at once while nothing is granted that changes it: it looks at every segment.
        let mut bars = None;
        for mut wanted in std::mem::take(&mut self.wanted) {
            if self.live_topic(wanted.topic).is_none() {
                let command = self.denied(wanted.topic, wanted.sort.kind(), Denial::NoTopic);
                self.send(wanted.broker, command);
                continue;
            }
            wanted.is_barred =
                self.begins_log(&wanted) && *bars.get_or_insert_with(|| self.bars_logs());
            if let Some(command) = self.grant(wanted) {
                self.send(wanted.broker, command);
                if wanted.sort != Sort::Payload {
                    bars = None;
                }
                continue;
            }
            if wanted.deny_ns.is_some_and(|at| at <= clock_ns) {
                wanted.deny_ns = None;
                let command = self.denied(wanted.topic, wanted.sort.kind(), Denial::PoolFull);
                self.send(wanted.broker, command);
            }
            unserved.push(wanted);
        }
        self.wanted = unserved;
        self.say_short();
    }

    /// Segments that somebody waits for, and that may come free.
    pub(super) fn needed(&self) -> u32 {
        let waits = |wanted: &&Wanted| !wanted.is_ahead && !wanted.is_barred;
        self.wanted.iter().filter(waits).count() as u32
    }

    /// Lets brokers know whether somebody waits for a segment, wherever.
    fn say_short(&mut self) {
        let is_short = self.needed() > 0;
        if std::mem::replace(&mut self.says_short, is_short) != is_short {
            self.pool.say_short(is_short);
        }
    }

    pub(super) fn denied(&self, topic: TopicId, kind: SegmentKind, why: Denial) -> Command {
        let (free, segments) = (self.segments.free(), self.segments.total());
        Command::Denied { topic, kind, why, free, segments }
    }

    fn grant(&mut self, wanted: Wanted) -> Option<Command> {
        let Wanted { broker, topic, sort, is_ahead, is_barred, .. } = wanted;
        match sort {
            Sort::Ring => self.grant_ring(broker, topic),
            Sort::Payload => {
                let kept = if is_ahead { self.kept_for_need() } else { self.reserve() };
                if self.segments.free() <= kept {
                    return None;
                }
                // Those that go on publishing count: one with a message in each of many topics
                // would never fill what it made others give up.
                let owned = |segment: &&SegmentId| {
                    self.segments.get(**segment).is_some_and(|it| it.what.owner == broker.raw())
                };
                if self.topic(topic)?.payload.iter().filter(owned).nth(3).is_some() {
                    self.taken.note(self.clock_ns());
                }
                let segment = self.take_for(broker, topic, SegmentKind::Payload)?;
                self.topic_mut(topic)?.payload.push(segment);
                self.grant_of(segment)
            }
            Sort::Log => {
                if is_barred {
                    return None;
                }
                let segment = self.next_own_log(topic, broker)?;
                self.grant_of(segment)
            }
        }
    }

    pub(super) fn take_for(
        &mut self,
        broker: BrokerId,
        topic: TopicId,
        kind: SegmentKind,
    ) -> Option<SegmentId> {
        let what = What { kind, state: SegmentState::Open, owner: broker.raw(), log: 0, topic };
        let purpose = Purpose { what, base_index: 0, previous: None };
        let segment = self.segments.take(purpose, wall_ns())?;
        self.shared.last_entries.reset(segment.0);
        self.count(Counter::SegmentsGranted, 1);
        Some(segment)
    }

    /// The grant of a segment that a broker owns.
    pub(super) fn grant_of(&self, segment: SegmentId) -> Option<Command> {
        let used = self.segments.get(segment)?;
        Some(Command::Grant {
            kind: used.what.kind,
            topic: used.what.topic,
            segment: segment.0,
            generation: used.generation,
            base_index: used.base_index,
        })
    }

    /// The ring of (topic, broker): the one there is, or a new one.
    fn grant_ring(&mut self, broker: BrokerId, topic: TopicId) -> Option<Command> {
        if self.pool.slot_ring(topic, broker).is_some() {
            return Some(Command::RingReady { topic });
        }
        let slots = self.topic(topic)?.entry.ring_slots;
        let Place { segment, offset } = self.place_ring(broker, slots)?;
        let at = self.pool.geometry().segment(segment)? + offset;
        let bytes = u64::from(slots) * RingSlot::BYTES;
        // Commit words of an earlier use must never match an index of this one.
        for word in (at..at + bytes).step_by(8) {
            self.pool.store(word, 0);
        }
        self.pool.publish(at, bytes);
        let generation = self.segments.get(segment)?.generation;
        let consumed = ConsumedLine { topic: topic.0.into(), through: 0, reserved: [0; 6] };
        self.pool.set_consumed(topic.slot(), broker, &consumed);
        let line = RingLine {
            topic: topic.0.into(),
            segment: segment.0,
            slots,
            generation,
            offset,
            reserved: [0; 4],
        };
        self.pool.set_ring(topic.slot(), broker, &line);
        let ring = self.pool.slot_ring(topic, broker)?;
        self.tell_sequencer(ToSequencer::AddRing(NewRing { topic, broker, ring }));
        Some(Command::RingReady { topic })
    }

    /// A broker will write nothing more into a segment.
    pub(super) fn sealed(&mut self, broker: BrokerId, segment: u32, generation: u64, through: u64) {
        let Some(used) = self.segments.named(segment, generation) else { return };
        let what = used.what;
        let kinds = [SegmentKind::Payload, SegmentKind::OrderLog];
        if what.owner != broker.raw()
            || !kinds.contains(&what.kind)
            || what.state != SegmentState::Open
        {
            return;
        }
        used.through = through;
        // No claim on it is open: a later control has nothing in it to keep for publishers.
        self.segments.set_state(SegmentId(segment), SegmentState::Sealed, 0);
    }
}
