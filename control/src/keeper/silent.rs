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
use landfall_layout::{BrokerId, SegmentId};
use landfall_pool::Pool;
use landfall_pool::lock::{Byte, Locks, Process};

use super::Keeper;
use crate::life::Life;
use crate::segments::Segments;

const SECOND_NS: u64 = 1_000_000_000;

/// Withholds, at a control's start, the segments of brokers whose last process the control before
/// did not count on: one that it gave up, or one before the process that is just starting.
pub fn withhold_uncounted(pool: &Pool, segments: &mut Segments) {
    for id in BrokerId::all().filter(|id| uncounted(pool, *id) != 0) {
        segments.withhold(id, |_| true);
    }
}

/// Withholds, at a control's start, the segments that publishers of a broker's earlier processes
/// may write into: all that are finished, since nothing tells which of them it is.
pub fn withhold_written(pool: &Pool, locks: &Locks, segments: &mut Segments) {
    for id in BrokerId::all().filter(|id| has_earlier_writers(pool, locks, *id)) {
        segments.withhold(id, |what| {
            what.kind == SegmentKind::Payload && what.state != SegmentState::Open
        });
    }
}

/// Whether publishers of a process of this number are there which is gone itself.
pub(super) fn has_earlier_writers(pool: &Pool, locks: &Locks, id: BrokerId) -> bool {
    let line = pool.broker(id);
    let is_gone = BrokerState::from_raw(line.state) == BrokerState::Absent
        || locks.process(Byte::Broker(id), line.host, line.locked) == Process::Gone;
    line.incarnation != 0 && locks.has_writers(id, (!is_gone).then_some(line.incarnation))
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
        self.segments.withhold(id, |what| {
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
        let withheld: Vec<SegmentId> = self.segments.withheld(id);
        for segment in withheld {
            // It may have landed something more after it was given up.
            let Some(topic) = self.segments.get(segment).map(|used| used.what.topic) else {
                continue;
            };
            let through = self.landed_through(topic, id);
            if let Some(used) = self.segments.get_mut(segment) {
                used.through = used.through.max(through);
            }
        }
        self.release_withheld(id);
    }

    /// Withholds what memory publishers of a broker's processes may write into, while any of them
    /// is there: also one that is stopped, and wakes when its broker is long gone.
    pub(super) fn withhold_from_writers(&mut self, id: BrokerId) {
        if !self.ballot.locks().has_writers(id, None) {
            // What it had asked for while it lived, too.
            return self.release_withheld(id);
        }
        self.segments.withhold(id, |what| {
            what.kind == SegmentKind::Payload && what.state == SegmentState::Open
        });
        if std::mem::replace(&mut self.brokers[id.index()].has_writers, true) {
            return;
        }
        self.note(&format!(
            "broker {id} is gone, and publishers of it over memory are not: what they may write \
             into is not used again before they close it, or end; a stopped one does neither"
        ));
    }

    /// Lets go of it once they are all gone.
    pub(super) fn look_at_writers(&mut self, id: BrokerId) {
        let broker = &self.brokers[id.index()];
        let present = (!broker.ended).then_some(broker.incarnation);
        if broker.has_writers && !self.ballot.locks().has_writers(id, present) {
            self.brokers[id.index()].has_writers = false;
            self.release_withheld(id);
        }
    }

    /// Lets go of what is withheld because of a broker, if nobody can write there any more.
    fn release_withheld(&mut self, id: BrokerId) {
        let broker = &self.brokers[id.index()];
        if broker.ghost == 0 && !broker.has_writers {
            self.segments.release(id);
        }
    }
}
