//! The payload segments a topic has at this broker: the one being filled, those with open claims,
//! the spare.

use std::collections::VecDeque;

use crate::claim::{Claim, lines_down, lines_up, pad};
use crate::env::Env;

/// A segment that control gave us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    pub segment: u32,
    pub generation: u64,
}

#[derive(Debug)]
struct Filling {
    granted: Granted,
    /// Bytes claimed so far, from the segment's start.
    used: u32,
    /// Claims that are still open.
    claims: u32,
    /// Log index behind the last batch that landed in it; 0: none has.
    landed: u64,
}

/// Segments of one topic.
#[derive(Debug)]
pub struct Stock {
    capacity: u32,
    current: Option<Filling>,
    /// No longer claimed from, with open claims.
    closing: Vec<Filling>,
    spare: VecDeque<Granted>,
    /// Somebody found no room since the last grant.
    missed: bool,
    /// Finished, to be said to control, each with the log index behind its last batch.
    sealed: Vec<(Granted, u64)>,
}

impl Stock {
    /// No segments yet; each will have `capacity` bytes.
    pub fn new(capacity: u32) -> Self {
        Self {
            capacity,
            current: None,
            closing: Vec::with_capacity(8),
            spare: VecDeque::with_capacity(4),
            missed: false,
            sealed: Vec::with_capacity(8),
        }
    }

    /// Takes a grant; false when it is already here.
    pub fn grant(&mut self, granted: Granted) -> bool {
        if self.has(granted) {
            return false;
        }
        self.spare.push_back(granted);
        self.missed = false;
        true
    }

    /// Whether a segment is here, to be written into or to be said to be finished.
    pub fn has(&self, granted: Granted) -> bool {
        self.current.iter().chain(&self.closing).any(|filling| filling.granted == granted)
            || self.spare.contains(&granted)
            || self.sealed.iter().any(|(sealed, _)| *sealed == granted)
    }

    /// Whether control should be asked for another one.
    pub fn is_short(&self) -> bool {
        self.spare.is_empty()
    }

    /// Whether the segment that is being filled has room: a quarter of it, and everybody found what
    /// was asked for.
    pub fn has_room(&self) -> bool {
        let is_left = |filling: &Filling| self.capacity - filling.used >= self.capacity / 4;
        !self.missed && self.current.as_ref().is_some_and(is_left)
    }

    /// A batch landed in a segment, and the log goes on at index `next`.
    #[inline]
    pub fn landed(&mut self, segment: u32, next: u64) {
        let mut all = self.current.iter_mut().chain(&mut self.closing);
        if let Some(filling) = all.find(|filling| filling.granted.segment == segment) {
            filling.landed = next;
        }
    }

    /// Whether nothing is here at all.
    pub fn is_empty(&self) -> bool {
        self.current.is_none() && self.spare.is_empty() && self.closing.is_empty()
    }

    /// Claims at least `least` and at most `most` bytes; `None` when there is no segment for it.
    pub fn claim(&mut self, env: &Env, least: u32, most: u32) -> Option<Claim> {
        let least = lines_up(least)?;
        if least > self.capacity {
            return None;
        }
        if env.pool.loss().count() != 0 {
            self.leave_lost(env);
        }
        if self.current.as_ref().is_none_or(|filling| self.capacity - filling.used < least) {
            let Some(granted) = self.spare.pop_front() else {
                self.missed = true;
                return None;
            };
            self.retire_current(env);
            self.current = Some(Filling { granted, used: 0, claims: 0, landed: 0 });
        }
        let filling = self.current.as_mut()?;
        let room = lines_down(self.capacity - filling.used);
        let bytes = lines_down(most).clamp(least, room);
        let claim = Claim {
            segment: filling.granted.segment,
            generation: filling.granted.generation,
            offset: filling.used,
            bytes,
        };
        filling.used += bytes;
        filling.claims += 1;
        Some(claim)
    }

    /// The segment that is being filled.
    pub fn filling(&self) -> Option<u32> {
        self.current.as_ref().map(|filling| filling.granted.segment)
    }

    /// Nothing more is claimed in segments with a page that cannot be read.
    #[cold]
    fn leave_lost(&mut self, env: &Env) {
        if self.filling().is_some_and(|segment| env.pool.is_lost(segment)) {
            self.retire_current(env);
        }
        while let Some(granted) = self.spare.pop_front_if(|spare| env.pool.is_lost(spare.segment)) {
            self.sealed.push((granted, 0));
        }
    }

    #[cold]
    fn retire_current(&mut self, env: &Env) {
        let Some(filling) = self.current.take() else { return };
        // The rest is padding, so that a walk over the segment reaches its end.
        pad(env, filling.granted.segment, filling.used, self.capacity - filling.used);
        if filling.claims == 0 {
            self.sealed.push((filling.granted, filling.landed));
        } else {
            self.closing.push(filling);
        }
    }

    /// A claim is over, its bytes landed or padded.
    pub fn done(&mut self, claim: Claim) {
        let granted = Granted { segment: claim.segment, generation: claim.generation };
        if let Some(filling) = self.current.as_mut()
            && filling.granted == granted
        {
            filling.claims -= 1;
            return;
        }
        let Some(i) = self.closing.iter().position(|filling| filling.granted == granted) else {
            return;
        };
        self.closing[i].claims -= 1;
        if self.closing[i].claims == 0 {
            let Filling { granted, landed, .. } = self.closing.swap_remove(i);
            self.sealed.push((granted, landed));
        }
    }

    /// A claim is dropped: from `from` to its end it becomes padding.
    #[cold]
    pub fn abandon(&mut self, env: &Env, claim: Claim, from: u32) {
        pad(env, claim.segment, from, claim.end().saturating_sub(from));
        self.done(claim);
    }

    /// A claim is over and its holder promised not to write from `from` on: where nothing was
    /// claimed behind it, the rest can be claimed again.
    pub fn give_back(&mut self, env: &Env, claim: Claim, from: u32) {
        if let Some(filling) = self.current.as_mut()
            && filling.granted.segment == claim.segment
            && filling.granted.generation == claim.generation
            && filling.used == claim.end()
        {
            filling.used = from;
            self.done(claim);
        } else {
            self.abandon(env, claim, from);
        }
    }

    /// Lets go of everything that has no open claim.
    pub fn close(&mut self, env: &Env) {
        self.retire_current(env);
        self.give_spare();
    }

    /// Lets go of what is kept ahead.
    pub fn give_spare(&mut self) {
        self.sealed.extend(self.spare.drain(..).map(|granted| (granted, 0)));
    }

    /// The next segment to report as sealed, and the log index behind its last batch.
    pub fn next_sealed(&mut self) -> Option<(Granted, u64)> {
        self.sealed.pop()
    }
}

#[cfg(test)]
mod tests {
    use landfall_layout::batch::BatchPreamble;
    use landfall_pool::Memory;

    use super::*;
    use crate::rig::pool;

    const CAPACITY: u32 = 2 << 20;

    fn stock(grants: u32) -> (Env, Stock) {
        let me = landfall_layout::BrokerId::new(0).unwrap();
        let env = Env::new(pool(), me, 1).unwrap();
        let mut stock = Stock::new(CAPACITY);
        for segment in 0..grants {
            assert!(stock.grant(Granted { segment, generation: 1 }));
        }
        (env, stock)
    }

    fn padding(env: &Env, segment: u32, offset: u32) -> BatchPreamble {
        let at = env.pool.at(segment, offset, 64).unwrap();
        BatchPreamble::from_words(env.pool.load_words(at))
    }

    #[test]
    fn claims_are_whole_lines_one_behind_the_other() {
        let (env, mut stock) = stock(1);
        let first = stock.claim(&env, 65, 65).unwrap();
        let second = stock.claim(&env, 64, 1000).unwrap();
        assert_eq!((first.offset, first.bytes), (0, 128));
        assert_eq!((second.offset, second.bytes), (128, 960));
        stock.done(first);
        stock.done(second);
    }

    #[test]
    fn a_repeated_grant_changes_nothing() {
        let (env, mut stock) = stock(1);
        assert!(!stock.grant(Granted { segment: 0, generation: 1 }));
        let claim = stock.claim(&env, 64, 64).unwrap();
        assert!(!stock.grant(Granted { segment: 0, generation: 1 }));
        assert!(stock.is_short());
        stock.done(claim);
    }

    #[test]
    fn without_a_spare_the_segment_stays_for_what_still_fits() {
        let (env, mut stock) = stock(1);
        let large = stock.claim(&env, CAPACITY - 128, CAPACITY - 128).unwrap();
        assert_eq!(stock.claim(&env, 129, 129), None);
        let small = stock.claim(&env, 100, 100).unwrap();
        assert_eq!(small.end(), CAPACITY);
        assert!(!stock.has_room());
        stock.done(large);
        stock.done(small);
        assert_eq!(stock.next_sealed(), None);
    }

    #[test]
    fn who_finds_no_room_in_a_segment_that_has_some_needs_the_next() {
        let (env, mut stock) = stock(1);
        let half = stock.claim(&env, CAPACITY / 2, CAPACITY / 2).unwrap();
        assert!(stock.has_room());
        assert_eq!(stock.claim(&env, CAPACITY, CAPACITY), None);
        assert!(!stock.has_room());
        assert!(stock.grant(Granted { segment: 1, generation: 1 }));
        assert!(stock.has_room());
        stock.done(half);
        let most = stock.claim(&env, CAPACITY / 4 + 64, CAPACITY / 4 + 64).unwrap();
        assert!(!stock.has_room(), "less than a quarter is left");
        stock.done(most);
    }

    #[test]
    fn a_segment_is_sealed_when_it_is_left_and_its_last_claim_ends() {
        let (env, mut stock) = stock(2);
        let open = stock.claim(&env, 1 << 20, 1 << 20).unwrap();
        let next = stock.claim(&env, CAPACITY, CAPACITY).unwrap();
        assert_eq!((next.segment, next.offset), (1, 0));
        assert_eq!(padding(&env, 0, 1 << 20), BatchPreamble::padding(1 << 20), "the rest");
        assert_eq!(stock.next_sealed(), None, "a claim is open");
        stock.done(open);
        assert_eq!(stock.next_sealed(), Some((Granted { segment: 0, generation: 1 }, 0)));
        stock.done(next);
        assert_eq!(stock.next_sealed(), None, "still the one that is filled");
    }

    #[test]
    fn nothing_more_is_claimed_in_a_lost_segment() {
        let (env, mut stock) = stock(3);
        let open = stock.claim(&env, 4096, 4096).unwrap();
        let lost = |segment: u32| env.pool.loss().mark(segment);
        assert!(lost(0) && lost(1));
        let next = stock.claim(&env, 64, 64).unwrap();
        assert_eq!((next.segment, next.offset), (2, 0));
        assert_eq!(stock.next_sealed(), Some((Granted { segment: 1, generation: 1 }, 0)), "unused");
        assert_eq!(stock.next_sealed(), None, "a claim is open");
        stock.abandon(&env, open, 0);
        assert_eq!(stock.next_sealed(), Some((Granted { segment: 0, generation: 1 }, 0)));
        stock.done(next);
        lost(2);
        assert_eq!(stock.claim(&env, 64, 64), None, "there is no other");
        assert!(stock.is_empty() && stock.is_short());
    }

    #[test]
    fn a_dropped_claim_is_padding() {
        let (env, mut stock) = stock(1);
        let claim = stock.claim(&env, 4096, 4096).unwrap();
        let from = claim.offset + 1024;
        stock.abandon(&env, claim, from);
        assert_eq!(padding(&env, 0, 1024), BatchPreamble::padding(3072));
        assert_eq!(stock.claim(&env, 64, 64).map(|claim| claim.offset), Some(4096));
    }

    #[test]
    fn what_is_given_back_at_the_end_is_claimed_again() {
        let (env, mut stock) = stock(1);
        let first = stock.claim(&env, 4096, 4096).unwrap();
        let second = stock.claim(&env, 4096, 4096).unwrap();
        stock.give_back(&env, second, 4160);
        let third = stock.claim(&env, 64, 64).unwrap();
        assert_eq!(third.offset, 4160);
        stock.give_back(&env, first, 64);
        assert_eq!(padding(&env, 0, 64), BatchPreamble::padding(4032), "others lie behind it");
        stock.done(third);
    }

    #[test]
    fn a_segment_is_here_until_its_last_claim_ends() {
        let (env, mut stock) = stock(2);
        let granted = |segment: u32| Granted { segment, generation: 1 };
        let claim = stock.claim(&env, CAPACITY, CAPACITY).unwrap();
        assert!(
            stock.has(granted(0)) && stock.has(granted(1)),
            "the one that is filled, the spare"
        );
        assert!(!stock.has(Granted { segment: 0, generation: 9 }), "another use");
        let next = stock.claim(&env, 64, 64).unwrap();
        assert!(stock.has(granted(0)), "a claim is open");
        stock.done(claim);
        assert_eq!(stock.next_sealed(), Some((granted(0), 0)));
        assert!(!stock.has(granted(0)) && stock.has(granted(1)));
        stock.done(next);
    }

    #[test]
    fn a_sealed_segment_says_where_the_last_batch_in_it_stands() {
        let (env, mut stock) = stock(3);
        assert!(!stock.has_room(), "nothing is filled");
        let first = stock.claim(&env, CAPACITY, CAPACITY).unwrap();
        let second = stock.claim(&env, 64, 64).unwrap();
        assert!(stock.has_room());
        stock.landed(second.segment, 7);
        stock.landed(first.segment, 8);
        stock.landed(99, 9);
        stock.done(first);
        assert_eq!(stock.next_sealed(), Some((Granted { segment: 0, generation: 1 }, 8)));
        stock.give_spare();
        assert_eq!(stock.next_sealed(), Some((Granted { segment: 2, generation: 1 }, 0)), "unused");
        stock.done(second);
        stock.close(&env);
        assert_eq!(stock.next_sealed(), Some((Granted { segment: 1, generation: 1 }, 7)));
    }

    #[test]
    fn closing_gives_everything_back() {
        let (env, mut stock) = stock(3);
        let claim = stock.claim(&env, 64, 64).unwrap();
        stock.close(&env);
        assert_eq!((stock.next_sealed().is_some(), stock.next_sealed().is_some()), (true, true));
        assert_eq!(stock.next_sealed(), None);
        stock.done(claim);
        assert!(stock.next_sealed().is_some());
        assert!(stock.is_empty());
    }

    #[test]
    fn more_than_a_segment_is_never_claimed() {
        let (env, mut stock) = stock(2);
        assert_eq!(stock.claim(&env, CAPACITY + 1, CAPACITY + 1), None);
        assert_eq!(stock.claim(&env, u32::MAX, u32::MAX), None);
    }
}
