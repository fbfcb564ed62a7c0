//! Brokers of other hosts that fell silent: nobody waits for them, and nobody knows that they are
//! gone.
//!
//! Such a process may be stopped between any two stores and go on later. It is told by a word that
//! it looks at before it writes anything, when it was away (`landfall_pool::lines::read_counted`).
//! What it may have begun to write into all the same is withheld: it is neither retired nor given
//! another use until the process is known to be gone, or was silent for `ELSEWHERE_GONE_NS`.

use landfall_layout::limits::HEARTBEAT_LEASE_NS;
use landfall_layout::pool::BrokerState;
use landfall_layout::segment::{SegmentKind, SegmentState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_pool::lock::{Byte, Locks, Process};

use super::Keeper;
use crate::life::Life;
use crate::segments::{Reason, Segments};

const SECOND_NS: u64 = 1_000_000_000;

/// Withholds, at a control's start, the segments of brokers whose last process the control before
/// did not count on: one that it gave up, or one before the process that is just starting.
pub fn withhold_uncounted(pool: &Pool, segments: &mut Segments) {
    for id in BrokerId::all().filter(|id| uncounted(pool, *id) != 0) {
        segments.withhold(id, Reason::Ghost, |_| true);
    }
}

/// Withholds, at a control's start, the segments that publishers of a broker's earlier processes
/// may write into: all that are finished, since nothing tells which of them it is.
pub fn withhold_written(pool: &Pool, locks: &Locks, segments: &mut Segments) {
    for id in BrokerId::all().filter(|id| may_have_earlier_writers(pool, locks, *id)) {
        segments.withhold(id, Reason::Writers, |what| {
            what.kind == SegmentKind::Payload && what.state != SegmentState::Open
        });
    }
}

/// Withholds, at a control's start, a payload segment that nothing leads to any more: its topic
/// was deleted, and the control before may have been told that somebody can still write into it.
/// Who told it tells this one too.
pub fn withhold_stray(pool: &Pool, locks: &Locks, segments: &mut Segments, stray: SegmentId) {
    let owner = segments.get(stray).and_then(|used| BrokerId::new(used.what.owner.into()));
    let Some(id) = owner else { return };
    if may_have_earlier_writers(pool, locks, id) {
        segments.withhold_one(stray, Reason::Writers);
    }
    let line = pool.broker(id);
    let is_seen = locks.is_here(line.host, line.locked);
    if !is_gone(pool, locks, id) && (!is_seen || locks.has_writers(id, None)) {
        segments.withhold_one(stray, Reason::Unsaid);
    }
}

/// Whether publishers of a process of this number may be there which is gone itself. Those of its
/// present process count too: which one that is is not known before it speaks to this control. The
/// next process has the lock of the number long before it writes the line, and the one that the
/// line names is gone then.
pub(super) fn may_have_earlier_writers(pool: &Pool, locks: &Locks, id: BrokerId) -> bool {
    pool.broker(id).incarnation != 0 && locks.has_writers(id, None)
}

/// Whether no process has this number, as far as is known.
fn is_gone(pool: &Pool, locks: &Locks, id: BrokerId) -> bool {
    let line = pool.broker(id);
    line.incarnation == 0
        || BrokerState::from_raw(line.state) == BrokerState::Absent
        || locks.process(Byte::Broker(id), line.host, line.locked) == Process::Gone
}

/// The process that has a broker's number and is not counted on; 0: there is none.
pub(super) fn uncounted(pool: &Pool, id: BrokerId) -> u64 {
    let line = pool.broker(id);
    let left = BrokerState::from_raw(line.state) == BrokerState::Absent;
    let is_counted = pool.counted(id) == line.incarnation;
    if left || is_counted { 0 } else { line.incarnation }
}

impl Keeper {
    /// Gives up a broker that is silent: its clients go elsewhere, and what it may still write
    /// into is withheld.
    pub(super) fn disown(&mut self, id: BrokerId) {
        let incarnation = self.pool.broker(id).incarnation;
        // Before anything is done that it must not interfere with.
        self.pool.count_on(id, 0);
        self.note(&format!(
            "broker {id}, which is on another host, has not moved its heartbeat for {} s and is \
             given up; what it may still write into is not used again for {} s, unless its number \
             is taken anew",
            HEARTBEAT_LEASE_NS / SECOND_NS,
            self.gone_ns / SECOND_NS
        ));
        let broker = &mut self.brokers[id.index()];
        (broker.ghost, broker.disowned) = (incarnation, incarnation);
        // What it has reported as finished it does not write into any more.
        self.segments.withhold(id, Reason::Ghost, |what| {
            what.kind != SegmentKind::Payload || what.state == SegmentState::Open
        });
        self.process_ended(id, self.grace_each_ns);
    }

    /// Lets go of what a silent broker may have written into, once it is known to be gone.
    pub(super) fn look_at_ghost(&mut self, id: BrokerId, incarnation: u64, age_ns: u64) {
        let broker = &self.brokers[id.index()];
        let is_gone = matches!(broker.life, Life::Gone { .. })
            || broker.ghost != incarnation
            || age_ns >= self.gone_ns;
        if broker.ghost != 0 && is_gone {
            self.lay_ghost(id);
        }
    }

    /// No process of this number but its present one can write any more.
    pub(super) fn lay_ghost(&mut self, id: BrokerId) {
        self.brokers[id.index()].ghost = 0;
        for segment in self.segments.withheld(id, Reason::Ghost) {
            // It may have landed something more after it was given up.
            let Some(topic) = self.segments.get(segment).map(|used| used.what.topic) else {
                continue;
            };
            let through = self.landed_through(topic, id);
            if let Some(used) = self.segments.get_mut(segment) {
                used.through = used.through.max(through);
            }
        }
        self.segments.release(id, Reason::Ghost);
    }

    /// Withholds what memory publishers of a broker's processes may write into, while any of them
    /// is there: also one that is stopped, and wakes when its broker is long gone.
    pub(super) fn withhold_from_writers(&mut self, id: BrokerId) {
        let has_writers = self.ballot.locks().has_writers(id, None);
        let ghost = (self.brokers[id.index()].ghost != 0).then_some(Reason::Ghost);
        let writers = has_writers.then_some(Reason::Writers);
        let heirs: Vec<Reason> = ghost.into_iter().chain(writers).collect();
        // What it asked for while it lived, and what it may have come to ask this leader for.
        self.segments.turn(id, Reason::Named, &heirs);
        self.segments.turn(id, Reason::Unsaid, &heirs);
        if !has_writers {
            return;
        }
        let topics = &self.topics;
        let is_live = |id: TopicId| {
            let topic = topics.get(id.slot()).and_then(Option::as_ref);
            topic.is_some_and(|topic| topic.id == id && topic.is_live())
        };
        // Of a topic that is deleted, whatever its state: it had not come to name it.
        self.segments.withhold(id, Reason::Writers, |what| {
            what.kind == SegmentKind::Payload
                && (what.state == SegmentState::Open || !is_live(what.topic))
        });
        if std::mem::replace(&mut self.brokers[id.index()].has_writers, true) {
            return;
        }
        self.note(&format!(
            "broker {id} is gone, and publishers of it over memory are not: what they may write \
             into is not used again before they close it, or end; a stopped one does neither"
        ));
    }

    /// Lets go of it once they are all gone. Those of a process that has spoken to this control
    /// write into what that process has still to let go of.
    pub(super) fn look_at_writers(&mut self, id: BrokerId) {
        let broker = &self.brokers[id.index()];
        let present = (broker.is_heard && !broker.ended).then_some(broker.incarnation);
        if broker.has_writers && !self.ballot.locks().has_writers(id, present) {
            self.brokers[id.index()].has_writers = false;
            self.segments.release(id, Reason::Writers);
        }
    }

    /// A broker names a segment of a deleted topic that clients of its may still write into.
    pub(super) fn named(&mut self, id: BrokerId, segment: u32, generation: u64) {
        self.segments.name(id, SegmentId(segment), generation);
        if self.brokers[id.index()].ended {
            // Said before it ended, and read after.
            self.withhold_from_writers(id);
        }
    }

    /// A broker has named all that clients of its may write into. Its word to another leader, or
    /// that of another process, says nothing here.
    pub(super) fn all_named(&mut self, id: BrokerId, epoch: u64, incarnation: u64) {
        let broker = &mut self.brokers[id.index()];
        if epoch == self.epoch && incarnation == broker.incarnation {
            broker.is_heard = true;
            self.segments.release(id, Reason::Unsaid);
        }
    }
}
