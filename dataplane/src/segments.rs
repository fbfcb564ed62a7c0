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
}

/// Segments of one topic.
#[derive(Debug)]
pub struct Stock {
    capacity: u32,
    current: Option<Filling>,
    /// No longer claimed from, with open claims.
    closing: Vec<Filling>,
    spare: VecDeque<Granted>,
    /// Finished; to be said to control.
    sealed: Vec<Granted>,
}

impl Stock {
    /// No segments yet; each will have `capacity` bytes.
    pub fn new(capacity: u32) -> Self {
        Self {
            capacity,
            current: None,
            closing: Vec::with_capacity(8),
            spare: VecDeque::with_capacity(4),
            sealed: Vec::with_capacity(8),
        }
    }

    /// Takes a grant; false when it is already here.
    pub fn grant(&mut self, granted: Granted) -> bool {
        if self.has(granted) {
            return false;
        }
        self.spare.push_back(granted);
        true
    }

    fn has(&self, granted: Granted) -> bool {
        self.current.iter().chain(&self.closing).any(|filling| filling.granted == granted)
            || self.spare.contains(&granted)
            || self.sealed.contains(&granted)
    }

    /// Whether control should be asked for another one.
    pub fn is_short(&self) -> bool {
        self.spare.is_empty()
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
        if self.current.as_ref().is_none_or(|filling| self.capacity - filling.used < least) {
            let granted = self.spare.pop_front()?;
            self.retire_current(env);
            self.current = Some(Filling { granted, used: 0, claims: 0 });
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

    #[cold]
    fn retire_current(&mut self, env: &Env) {
        let Some(filling) = self.current.take() else { return };
        // The rest is padding, so that a walk over the segment reaches its end.
        pad(env, filling.granted.segment, filling.used, self.capacity - filling.used);
        if filling.claims == 0 {
            self.sealed.push(filling.granted);
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
            self.closing.swap_remove(i);
            self.sealed.push(granted);
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
        self.sealed.extend(self.spare.drain(..));
    }

    /// The next segment to report as sealed.
    pub fn next_sealed(&mut self) -> Option<Granted> {
        self.sealed.pop()
    }
}
