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
//! is as good as the last: a session of it is fenced at once. Nothing is lost by it, since its
//! publisher opens the next epoch and sends again what is not ordered.
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
    /// Fences one session of several that full rings wait for and that wait for full rings, the one
    /// whose gap is youngest: so the one that has waited longest is never sent back, and moves.
    /// To be asked again until there is none.
    ///
    /// `joined` says through which brokers a session's epoch was opened or joined, a bit each;
    /// more of them than there are only make it see less.
    pub fn fence_stuck(&mut self, joined: impl Fn(u32) -> u32) -> Option<Fencing> {
        if self.rule != Rule::Strong || self.holds.len() == 0 {
            return None;
        }
        loop {
            let mut stuck = self.stuck_rings(&joined);
            let mut youngest: Option<(u64, u32)> = None;
            let mut first: Option<u32> = None;
            let (mut is_sure, mut is_mutual) = (true, false);
            while let Some(ring) = take_first(&mut stuck) {
                let index = self.first_waiter(ring);
                is_sure &= !self.count_rings(index);
                is_mutual |= *first.get_or_insert(index) != index;
                let since_ns = self.sessions.gap_of(index).map_or(0, |(_, since_ns)| since_ns);
                youngest = youngest.max(Some((since_ns, index)));
            }
            if is_sure {
                let (_, index) = youngest.filter(|_| is_mutual)?;
                let fencing = self.fence_session(index)?;
                return Some(Fencing { cause: Cause::Stuck, ..fencing });
            }
        }
    }

    /// Full rings, without those that may move on because their first slot's session may.
    fn stuck_rings(&self, joined: &impl Fn(u32) -> u32) -> Mask {
        let rings = self.rings.iter().enumerate();
        let mut stuck =
            rings.filter(|(_, ring)| ring.is_full()).fold(0, |mask, (at, _)| mask | 1 << at);
        loop {
            let mut left = stuck;
            let mut still = 0;
            while let Some(ring) = take_first(&mut left) {
                let index = self.first_waiter(ring);
                let holding = self.sessions.gap_of(index).map_or(0, |(rings, _)| rings);
                if joined(index) & !holding & !stuck == 0 {
                    still |= 1 << ring;
                }
            }
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

    /// Finds out anew in which rings a session holds something. Whether they are fewer than was
    /// thought: they are noted one by one, and forgotten only when nothing is held.
    fn count_rings(&mut self, index: u32) -> bool {
        let Some((noted, _)) = self.sessions.gap_of(index) else { return false };
        let mut rings = 0;
        let first = self.sessions.get(index).map(|session| session.first_held);
        for place in first.into_iter().flat_map(|first| self.holds.list(first)) {
            rings |= 1 << Holds::broker_of(place);
            if rings == noted {
                return false;
            }
        }
        self.sessions.set_gap_rings(index, rings);
        true
    }
}

fn take_first(mask: &mut Mask) -> Option<usize> {
    let first = (*mask != 0).then(|| mask.trailing_zeros() as usize)?;
    *mask &= *mask - 1;
    Some(first)
}
