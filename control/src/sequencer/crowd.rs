//! Rings that fill behind a batch whose predecessor does not come.
//!
//! A ring is given back in its order. So one held batch keeps all slots behind it from use, also
//! those of others that are ordered long since, until its session moves on. Where that holds half
//! of a ring, its session has less time than its lease: after `CROWDING_NS` without a batch of it
//! that is next, it is fenced, and sends again in its next epoch what is not ordered.
//!
//! Whoever fills a ring alone is in nobody's way and has its lease. More than one connection may
//! have landed is never taken for that.

use landfall_layout::BrokerId;
use landfall_layout::limits::IN_FLIGHT_BATCHES_MAX;

use super::hold::Holds;
use super::{Cause, Fencing, Rule, TopicSequencer};

/// How long a session may keep others from half of a ring. Nanoseconds.
pub const CROWDING_NS: u64 = 500_000_000;

impl TopicSequencer {
    /// Fences one session that keeps others from a ring. To be asked again until there is none.
    ///
    /// `since_ns` is the time from which this process has looked without a break: what came before
    /// it may not have been seen.
    pub fn fence_crowding(&mut self, now_ns: u64, since_ns: u64) -> Option<Fencing> {
        if self.rule != Rule::Strong || self.holds.len() == 0 {
            return None;
        }
        let index = BrokerId::all().find_map(|broker| self.crowder(broker, now_ns, since_ns))?;
        let fencing = self.fence_session(index)?;
        Some(Fencing { cause: Cause::Crowding, ..fencing })
    }

    /// The session that the first slot of a ring waits for, if that is in others' way.
    fn crowder(&self, broker: BrokerId, now_ns: u64, since_ns: u64) -> Option<u32> {
        let ring = &self.rings[broker.index()];
        let used = ring.scan() - ring.consumed();
        if !ring.is_open() || 2 * used < u64::from(ring.slots()) {
            return None;
        }
        let index = self.first_waiter(broker.index());
        let (_, gap_ns) = self.sessions.gap_of(index)?;
        if now_ns.saturating_sub(gap_ns.max(since_ns)) < CROWDING_NS {
            return None;
        }
        let first = self.sessions.get(index)?.first_held;
        let is_alone = used <= u64::from(IN_FLIGHT_BATCHES_MAX)
            && self.holds.list(first).filter(|at| Holds::broker_of(*at) == broker.index()).count()
                as u64
                == used;
        (!is_alone).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use landfall_layout::slot::RingSlot;
    use landfall_layout::topic::Order;

    use super::super::{Frontier, Verdict};
    use super::*;

    const SLOTS: u32 = 2048;

    struct World {
        sequencer: TopicSequencer,
        now_ns: u64,
        landed: u64,
    }

    fn broker() -> BrokerId {
        BrokerId::new(0).unwrap()
    }

    impl World {
        fn new(sessions: u32, slots: u32) -> Self {
            let mut sequencer =
                TopicSequencer::new(Order::Strong, u64::MAX, Frontier::default()).unwrap();
            sequencer.open_ring(broker(), slots, 0).unwrap();
            for index in 0..sessions {
                sequencer.open_session(index, 1 + u64::from(index), 1, 0);
            }
            Self { sequencer, now_ns: 1_000 * CROWDING_NS, landed: 0 }
        }

        fn offer(&mut self, session: u32, batch_seq: u64) -> Verdict {
            let slot = RingSlot {
                client: 1 + u64::from(session),
                batch_seq,
                session_epoch: 1,
                session,
                count: 1,
                bytes: 64,
                ..RingSlot::default()
            };
            self.landed += 1;
            self.sequencer.offer(broker(), &slot, self.now_ns, |_| {})
        }

        /// Who is fenced, one after the other.
        fn fenced(&mut self, since_ns: u64) -> Vec<u32> {
            let (sequencer, now_ns) = (&mut self.sequencer, self.now_ns);
            let fenced = std::iter::from_fn(|| sequencer.fence_crowding(now_ns, since_ns));
            fenced.map(|fencing| fencing.session.index).collect()
        }
    }

    #[test]
    fn nine_that_never_send_their_first_keep_nobody_up_for_long() {
        let mut world = World::new(10, SLOTS);
        // A ring of theirs, but for one slot, behind all of them.
        for seq in 1..=u64::from(SLOTS / 9) {
            for session in 0..9 {
                assert_eq!(world.offer(session, seq), Verdict::Held);
            }
        }
        while world.landed < SLOTS.into() {
            world.offer(9, world.landed);
        }
        assert_eq!(world.offer(9, u64::MAX), Verdict::Busy);
        assert_eq!(world.fenced(0), [0; 0]);
        world.now_ns += CROWDING_NS;
        assert_eq!(world.fenced(world.now_ns - 1), [0; 0], "this process was away until now");
        let fenced = world.fenced(0);
        assert!(fenced.iter().all(|session| *session < 9) && fenced.len() >= 4, "{fenced:?}");
        let used = world.sequencer.scan_index(broker()) - world.sequencer.consumed(broker());
        assert!(used < u64::from(SLOTS / 2), "{used} slots are in use still");
    }

    #[test]
    fn one_slot_in_front_of_others_that_are_ordered_is_enough() {
        let mut world = World::new(2, SLOTS);
        world.offer(0, 1);
        (0..u64::from(SLOTS / 2) - 2)
            .for_each(|seq| assert_eq!(world.offer(1, seq), Verdict::Ordered));
        world.now_ns += CROWDING_NS;
        assert_eq!(world.fenced(0), [0; 0], "half of the ring is free");
        world.offer(1, u64::from(SLOTS / 2) - 2);
        assert_eq!(world.fenced(0), [0]);
        assert_eq!(world.sequencer.consumed(broker()), u64::from(SLOTS / 2));
    }

    #[test]
    fn who_moves_on_is_waited_for_again() {
        let mut world = World::new(2, 16);
        world.offer(0, 1);
        world.offer(0, 3);
        (0..10).for_each(|seq| assert_eq!(world.offer(1, seq), Verdict::Ordered));
        world.now_ns += CROWDING_NS - 1;
        assert_eq!(world.offer(0, 0), Verdict::Ordered);
        world.offer(0, 4);
        (10..20).for_each(|seq| {
            world.offer(1, seq);
        });
        world.now_ns += 1;
        assert_eq!(world.fenced(0), [0; 0]);
        world.now_ns += CROWDING_NS;
        assert_eq!(world.fenced(0), [0]);
    }

    #[test]
    fn who_fills_a_ring_alone_has_its_lease_but_not_over_many_connections() {
        let mut world = World::new(1, 16);
        (1..=16).for_each(|seq| assert_eq!(world.offer(0, seq), Verdict::Held));
        world.now_ns += 100 * CROWDING_NS;
        assert_eq!(world.fenced(0), [0; 0]);
        let mut world = World::new(1, SLOTS);
        (1..=u64::from(SLOTS)).for_each(|seq| assert_eq!(world.offer(0, seq), Verdict::Held));
        world.now_ns += CROWDING_NS;
        assert_eq!(world.fenced(0), [0], "more than one connection may have landed");
    }
}
