//! What a broker that leaves waits for: that its copies have what logs have.
//!
//! Those that are told to stop are told at about the same time, and each keeps copies of what the
//! others land. So nobody takes it that its copies have all before each of the others has landed
//! its last batch, serves on, or is gone. Whoever leaves says that it has landed its last batch
//! before it waits for anything of others' but receipts, for a bounded time: nobody waits for one
//! that waits for it.

use std::time::Duration;

use landfall_layout::limits::{BROKERS_MAX, HEARTBEAT_LEASE_NS, TOPICS_MAX};
use landfall_layout::pool::{BrokerState, DISK_HANGS};
use landfall_layout::topic::TopicState;
use landfall_pool::clock::boot_ns;

use crate::broker::Broker;
use crate::replica::Progress;

/// Who is told to stop together with others says so within this time.
const TOLD_NS: u64 = 1_000_000_000;
/// Copies of which none gets on are waited for this long: as long as a write or a sync may take.
const STILL_NS: u64 = 5_000_000_000;
/// The same where all of them meet a full disk, which is tried several times a second.
const FULL_NS: u64 = 1_000_000_000;
/// What one look counts at most: whoever looks was stopped as well, if it is longer.
const LOOK_NS: u64 = 100_000_000;

/// Time as somebody counts it who looks often.
#[derive(Clone, Copy, Debug, Default)]
struct Looks {
    looked_ns: Option<u64>,
}

impl Looks {
    /// What has passed since the last look.
    fn passed(&mut self, now_ns: u64) -> u64 {
        let before = self.looked_ns.replace(now_ns).unwrap_or(now_ns);
        now_ns.saturating_sub(before).min(LOOK_NS)
    }
}

/// The other brokers, as one that leaves sees them.
#[derive(Debug, Default)]
struct Others {
    looks: Looks,
    /// For how long they have been looked at.
    for_ns: u64,
    /// The last beat of each, and for how long there has been none since.
    beats: [(u64, u64); BROKERS_MAX],
}

impl Others {
    /// Whether one of them may land something that is waited for: their numbers, what each says of
    /// itself, and its beat. One that does not beat is frozen or gone.
    fn may_land(
        &mut self,
        all: impl Iterator<Item = (usize, BrokerState, u64)>,
        now_ns: u64,
    ) -> bool {
        let passed = self.looks.passed(now_ns);
        self.for_ns += passed;
        let mut may_one = |(number, state, beat): (usize, BrokerState, u64)| {
            let (last, silent_ns) = &mut self.beats[number];
            *silent_ns = if *last == beat { *silent_ns + passed } else { 0 };
            *last = beat;
            match state {
                BrokerState::Absent | BrokerState::Landed => false,
                BrokerState::Serving => self.for_ns < TOLD_NS,
                BrokerState::Leaving => *silent_ns < HEARTBEAT_LEASE_NS,
            }
        };
        // All of them are looked at.
        all.fold(false, |may, one| may_one(one) | may)
    }
}

/// What is known of copies that are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// They have what they are to have.
    Done,
    /// Some are behind, and get on as far as can be seen.
    GoesOn,
    /// Some are behind, and none has got on for long.
    Stuck,
}

/// Whether copies get on.
#[derive(Debug, Default)]
struct Pace {
    looks: Looks,
    moved: u64,
    still_ns: u64,
}

impl Pace {
    /// How it stands with them. `hangs`: their disk has not answered for long.
    fn look(&mut self, progress: Option<Progress>, hangs: bool, now_ns: u64) -> Course {
        let passed = self.looks.passed(now_ns);
        let moved = progress.map_or(0, |progress| progress.moved);
        self.still_ns = if moved != self.moved { 0 } else { self.still_ns + passed };
        self.moved = moved;
        let most_ns = match progress {
            Some(Progress { behind: 0, .. }) => return Course::Done,
            Some(Progress { behind, full, .. }) if full == behind => FULL_NS,
            _ => STILL_NS,
        };
        if hangs || self.still_ns >= most_ns { Course::Stuck } else { Course::GoesOn }
    }
}

impl Broker {
    /// Copies on until the copies that it keeps have what logs have, as long as they get on, and
    /// not beyond `until_ns`.
    pub(crate) fn drain(&mut self, until_ns: u64) {
        if self.replicator.is_none() || !self.has_copies() {
            return;
        }
        let left = || until_ns.saturating_sub(boot_ns());
        let mut others = Others::default();
        self.turn_until(left(), |broker| !others.may_land(broker.others(), boot_ns()));
        if let Some(replicator) = &self.replicator {
            replicator.aim();
        }
        let (mut pace, mut course, mut progress) = (Pace::default(), Course::GoesOn, None);
        self.turn_until(left(), |broker| {
            progress = broker.replicator.as_ref().and_then(|replicator| replicator.progress());
            let hangs = broker.env.pool.broker(broker.env.me).disk == DISK_HANGS;
            course = pace.look(progress, hangs, boot_ns());
            course != Course::GoesOn
        });
        let behind = progress.map_or(0, |progress| progress.behind);
        if course == Course::GoesOn && behind > 0 {
            self.tell(&format!(
                "ends while copies on its disk are behind and get on, {behind} of them: it waited \
                 for {:?}; give it longer (--stop-wait-ms, or --stop-timeout of landfall up)",
                Duration::from_nanos(self.stop_wait_ns)
            ));
        }
    }

    /// Whether there is a topic of which there are copies on disk.
    fn has_copies(&self) -> bool {
        let mut topics = (0..TOPICS_MAX).filter_map(|slot| self.env.pool.topic_in_slot(slot));
        topics.any(|it| it.state() == TopicState::Live && it.disk_replicas() > 0)
    }

    /// The other brokers: number, what each says of itself, and its beat.
    fn others(&self) -> impl Iterator<Item = (usize, BrokerState, u64)> {
        let env = &self.env;
        let others = env.pool.known_brokers().filter(|broker| *broker != env.me);
        others.map(|broker| {
            let line = env.pool.broker(broker);
            (broker.index(), BrokerState::from_raw(line.state), line.heartbeat_ns)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY_NS: u64 = 1_000_000;

    /// For how long somebody is waited for who looks each millisecond, up to ten seconds.
    fn waits(mut look: impl FnMut(u64) -> bool) -> u64 {
        let looks = (1..=10_000).map(|n| n * EVERY_NS);
        looks.into_iter().find(|now| !look(*now)).unwrap_or(u64::MAX)
    }

    fn one(state: BrokerState, beat: u64) -> impl Iterator<Item = (usize, BrokerState, u64)> {
        [(0, BrokerState::Absent, 0), (7, state, beat)].into_iter()
    }

    #[test]
    fn who_leaves_is_waited_for_until_it_has_landed_its_last_batch() {
        let for_ns = |state: BrokerState, beats: bool| {
            let mut others = Others::default();
            waits(|now| others.may_land(one(state, if beats { now } else { 5 }), now))
        };
        assert_eq!(for_ns(BrokerState::Leaving, true), u64::MAX);
        assert_eq!(for_ns(BrokerState::Leaving, false), HEARTBEAT_LEASE_NS + EVERY_NS, "frozen");
        for state in [BrokerState::Landed, BrokerState::Absent] {
            assert_eq!(for_ns(state, true), EVERY_NS);
        }
        // Another may be told a moment later, or serve on.
        assert_eq!(for_ns(BrokerState::Serving, true), TOLD_NS + EVERY_NS);
        let mut others = Others::default();
        assert!(others.may_land(one(BrokerState::Serving, 1), 1));
        assert!(others.may_land(one(BrokerState::Leaving, 1), 2 * TOLD_NS));
        assert!(!others.may_land(one(BrokerState::Landed, 1), 3 * TOLD_NS));
    }

    #[test]
    fn copies_are_waited_for_as_long_as_they_get_on() {
        let of = |behind, full, moved| Some(Progress { behind, full, moved });
        let for_ns = |progress: &dyn Fn(u64) -> Option<Progress>, hangs: bool| {
            let mut pace = Pace::default();
            waits(|now| pace.look(progress(now), hangs, now) == Course::GoesOn)
        };
        assert_eq!(for_ns(&|now| of(2, 1, now), false), u64::MAX);
        assert_eq!(for_ns(&|_| of(2, 1, 0), false), STILL_NS + EVERY_NS);
        assert_eq!(for_ns(&|_| of(2, 2, 0), false), FULL_NS + EVERY_NS);
        assert_eq!(for_ns(&|_| None, false), STILL_NS + EVERY_NS, "the thread says nothing");
        assert_eq!(for_ns(&|now| of(2, 0, now), true), EVERY_NS, "the disk hangs");
        assert_eq!(for_ns(&|_| of(0, 0, 0), true), EVERY_NS);
        let mut pace = Pace::default();
        assert_eq!(pace.look(of(1, 0, 8), false, 1), Course::GoesOn);
        assert_eq!(pace.look(of(1, 0, 8), false, 2 * STILL_NS), Course::GoesOn, "it was stopped");
        assert_eq!(pace.look(of(0, 0, 9), false, 3 * STILL_NS), Course::Done);
    }
}
