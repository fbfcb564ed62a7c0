//! Rings that are full of batches which wait for each other.
//!
//! A held batch keeps its slot, for the slot is all that outlives this process. Rings can
//! therefore fill with batches whose predecessors find no slot: two publishers that deal their
//! batches out over two brokers need no more. Nothing would move until a lease ends.
//!
//! Sequences through one broker only grow within an epoch, so what a session waits for comes
//! through a ring in which it holds nothing. That is a graph: a full ring waits for the session of
//! its first slot, and a session for any of the rings that may bring its next batch. What is left
//! when everything that may still move is taken away is stuck for ever, and the first look at it
//! is as good as the last: sessions of it are fenced at once. Nothing is lost by it, since their
//! publishers open the next epoch and send again what is not ordered.
//!
//! Publishers that are fenced send at once, and fill what became free. So whom to fence is chosen
//! for the one that has waited longest: everybody who is stuck in its way. One at a time, chosen by
//! its own age or by how often it was fenced, leaves others where they are for ever.
//!
//! Where a ring has room that may bring a session's next batch, it is waited for, and if the batch
//! comes through another one, nobody but its publisher knows: that session has its lease.
//!
//! A session alone, that left a batch out and filled its own rings, waits for nobody but itself:
//! it may still join another broker with what is missing, and has its lease for that.

use landfall_layout::BrokerId;
use landfall_layout::limits::BROKERS_MAX;

use super::hold::Holds;
use super::{Cause, Fencing, Rule, TopicSequencer};

/// Rings or brokers, a bit each.
type Mask = u32;

const _: () = assert!(BROKERS_MAX as u32 <= Mask::BITS);

impl TopicSequencer {
    /// Fences sessions that full rings wait for and that wait for full rings: those that are in
    /// the way of the one that has waited longest, in every ring that may bring its next batch. So
    /// these rings have room for it, whoever fills them again, and none that waits is passed by for
    /// ever. To be asked again until there is nobody.
    ///
    /// `joined` says through which brokers a session's epoch was opened or joined, a bit each;
    /// more of them than there are only make it see less.
    pub fn fence_stuck(&mut self, joined: impl Fn(u32) -> u32) -> Vec<Fencing> {
        if self.rule != Rule::Strong || self.holds.len() == 0 {
            return Vec::new();
        }
        if self.waiters(self.stuck_rings(&joined)).len() < 2 {
            return Vec::new();
        }
        self.count_rings();
        let others = self.in_the_way(&joined).into_iter();
        let fenced = others.filter_map(|index| self.fence_session(index, Cause::Stuck));
        fenced.collect()
    }

    /// Who keeps rings full that the one needs that has waited longest, and waits for full rings
    /// too. One in whose way nobody else is has left a batch out, and has its lease for that.
    fn in_the_way(&self, joined: &impl Fn(u32) -> u32) -> Vec<u32> {
        let stuck = self.stuck_rings(joined);
        let needs = |index: u32| joined(index) & !self.gap_of(index).0;
        let holders = |rings: Mask| {
            let holders =
                self.sessions.with_gaps().filter(|index| self.gap_of(*index).0 & rings != 0);
            holders.filter(|index| needs(*index) & !stuck == 0).collect::<Vec<u32>>()
        };
        let others = self.waiters(stuck).into_iter().map(|index| holders(needs(index)));
        others.into_iter().find(|others| !others.is_empty()).unwrap_or_default()
    }

    /// The sessions that rings wait for; the one that has waited longest is the first.
    fn waiters(&self, rings: Mask) -> Vec<u32> {
        let mut waiters: Vec<u32> = rings_of(rings).map(|ring| self.first_waiter(ring)).collect();
        waiters.sort_unstable_by_key(|index| (self.gap_of(*index).1, *index));
        waiters.dedup();
        waiters
    }

    /// In which rings something is held of a session, and since when it waits.
    fn gap_of(&self, index: u32) -> (Mask, u64) {
        self.sessions.gap_of(index).unwrap_or_default()
    }

    /// Full rings, without those that may move on because their first slot's session may.
    fn stuck_rings(&self, joined: &impl Fn(u32) -> u32) -> Mask {
        let rings = self.rings.iter().enumerate();
        let mut stuck =
            rings.filter(|(_, ring)| ring.is_full()).fold(0, |mask, (at, _)| mask | 1 << at);
        loop {
            let is_stuck = |index: u32| joined(index) & !self.gap_of(index).0 & !stuck == 0;
            let still = rings_of(stuck).filter(|ring| is_stuck(self.first_waiter(*ring)));
            let still = still.fold(0, |mask, ring| mask | 1 << ring);
            if still == stuck {
                return stuck;
            }
            stuck = still;
        }
    }

    /// The session that a full ring's first slot is of: what is looked at and not resolved is held.
    pub(super) fn first_waiter(&self, ring: usize) -> u32 {
        let index = self.rings[ring].consumed();
        let place = BrokerId::new(ring).map(|broker| self.holds.place(broker, index));
        place.map_or(u32::MAX, |place| self.holds.get(place).session)
    }

    /// Finds out anew in which rings sessions hold something: rings are noted one by one, and
    /// forgotten only when nothing is held.
    fn count_rings(&mut self) {
        for at in 0..self.sessions.gaps() {
            let (index, noted) = self.sessions.gap_at(at);
            let mut rings = 0;
            let first = self.sessions.get(index).map(|session| session.first_held);
            for place in first.into_iter().flat_map(|first| self.holds.list(first)) {
                rings |= 1 << Holds::broker_of(place);
                if rings == noted {
                    break;
                }
            }
            self.sessions.set_gap_rings(at, rings);
        }
    }
}

fn rings_of(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = (mask != 0).then(|| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(first)
    })
}
