//! The model that the sequencer is held against.

use std::collections::{BTreeMap, BTreeSet};

use landfall_layout::order::OrderEntry;
use landfall_layout::session::{SessionState, Standing};
use landfall_layout::slot::{RingSlot, SLOT_PADDING};

use super::{Verdict, Wish, Wished};

/// Brokers of the model.
pub(super) const BROKERS: usize = 3;
/// Slots of each ring.
pub(super) const SLOTS: u32 = 16;
/// The longest wait for a missing batch.
pub(super) const LEASE_NS: u64 = 100;

/// Positions that a session was given.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub session: u32,
    pub first: u64,
    pub count: u64,
    pub whole: bool,
    pub at: u64,
    pub over: bool,
    pub filled: BTreeSet<u64>,
    /// Who it was given to.
    pub owner: (u64, u32, usize),
}

impl Given {
    fn end(&self) -> u64 {
        self.first + self.count
    }

    fn is_missing(&self) -> bool {
        !self.over && (self.filled.len() as u64) < self.count
    }
}

/// A session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    pub client: u64,
    pub standing: Standing,
    pub next_seq: u64,
    /// Order `stream`: everything below is in the log. Otherwise 0.
    pub floor: u64,
}

impl Line {
    /// That sequence is in the log now.
    pub fn take(&mut self, seq: u64, had: &BTreeSet<u64>) {
        self.next_seq = self.next_seq.max(seq + 1);
        self.floor = (self.floor..).find(|seq| !had.contains(seq)).unwrap();
    }
}

/// The model: no index, no list that is kept in order, nothing is remembered twice.
#[derive(Default)]
pub(super) struct Model {
    pub strong: bool,
    pub stream: bool,
    pub token: bool,
    pub next: u64,
    pub given: Vec<Given>,
    pub requests: BTreeMap<(u32, usize), u64>,
    pub trespassers: BTreeSet<u32>,
    pub entries: u64,
    pub position: u64,
    pub landed_ns: u64,
    pub scan: [u64; BROKERS],
    pub resolved: BTreeSet<(usize, u64)>,
    pub floor: [u64; BROKERS],
    pub lines: BTreeMap<u32, Line>,
    /// Order `stream`: what is in the log of each session, as far as that is known.
    pub had: BTreeMap<u32, BTreeSet<u64>>,
    pub held: Vec<(usize, u64, RingSlot)>,
}

impl Model {
    pub fn consumed(&self, broker: usize) -> u64 {
        (self.floor[broker]..).find(|at| !self.resolved.contains(&(broker, *at))).unwrap()
    }

    fn emit(&mut self, broker: usize, index: u64, slot: &RingSlot, out: &mut Vec<OrderEntry>) {
        self.landed_ns = self.landed_ns.max(slot.landed_ns);
        out.push(OrderEntry {
            first_position: self.position,
            client: slot.client,
            batch_seq: slot.batch_seq,
            landed_ns: self.landed_ns,
            session_epoch: slot.session_epoch,
            ring_index: index as u32,
            checksum: slot.checksum,
            segment: slot.segment,
            offset: slot.offset,
            bytes: slot.bytes,
            count: slot.count,
            broker: broker as u8,
            flags: 0,
            commit: self.entries + 1,
        });
        self.entries += 1;
        self.position += u64::from(slot.count);
        self.resolved.insert((broker, index));
    }

    pub fn offer(&mut self, broker: usize, slot: &RingSlot) -> (Verdict, Vec<OrderEntry>) {
        let index = self.scan[broker];
        let mut out = Vec::new();
        if index - self.consumed(broker) >= u64::from(SLOTS) {
            return (Verdict::Busy, out);
        }
        self.scan[broker] += 1;
        let verdict = self.judge(slot);
        match verdict {
            Verdict::Ordered => self.emit(broker, index, slot, &mut out),
            Verdict::Held => self.held.push((broker, index, *slot)),
            _ => {
                self.resolved.insert((broker, index));
            }
        }
        if verdict == Verdict::Ordered && self.token {
            self.settle(&mut out);
        }
        while self.resolved.contains(&(broker, self.scan[broker])) {
            self.scan[broker] += 1;
        }
        (verdict, out)
    }

    fn judge(&mut self, slot: &RingSlot) -> Verdict {
        if slot.count == 0 || slot.flags == SLOT_PADDING {
            return Verdict::Padding;
        }
        let Some(line) = self.lines.get_mut(&slot.session) else { return Verdict::Fenced };
        let standing = Standing { epoch: slot.session_epoch, state: SessionState::Active };
        if line.client != slot.client || line.standing != standing {
            return Verdict::Fenced;
        }
        let seq = slot.batch_seq;
        if self.stream {
            // Whatever broker, epoch or sequence came before: only what is in the log is there.
            let had = self.had.entry(slot.session).or_default();
            if seq < line.floor || !had.insert(seq) {
                return Verdict::Duplicate;
            }
            line.take(seq, had);
        }
        if self.strong {
            if seq < line.next_seq {
                return Verdict::Duplicate;
            }
            if seq > line.next_seq {
                self.end(slot.session, SessionState::Fenced);
                self.trespassers.insert(slot.session);
                return Verdict::Fenced;
            }
            line.next_seq += 1;
        }
        if self.token {
            return self.judge_reserved(slot);
        }
        Verdict::Ordered
    }

    fn judge_reserved(&mut self, slot: &RingSlot) -> Verdict {
        let places: BTreeSet<u64> =
            (slot.batch_seq..slot.batch_seq + u64::from(slot.count)).collect();
        if places.iter().all(|at| *at < self.position) {
            return Verdict::Duplicate;
        }
        let is_held = self
            .held
            .iter()
            .any(|(.., held)| (held.session, held.batch_seq) == (slot.session, slot.batch_seq));
        let fits = |given: &&mut Given| {
            !given.over
                && given.session == slot.session
                && places.iter().all(|at| (given.first..given.end()).contains(at))
                && (!given.whole || places.len() as u64 == given.count)
        };
        let found = self.given.iter_mut().find(fits);
        match found {
            Some(given) if given.filled.is_disjoint(&places) => {
                given.filled.extend(&places);
                if slot.batch_seq == self.position { Verdict::Ordered } else { Verdict::Held }
            }
            Some(given) if given.filled.is_superset(&places) && is_held => Verdict::Held,
            _ => {
                self.end(slot.session, SessionState::Fenced);
                self.trespassers.insert(slot.session);
                Verdict::Fenced
            }
        }
    }

    /// What the next positions may be given to; `None`: not now.
    pub fn reserve(&mut self, wish: &Wish, now: u64) -> Wished {
        let standing = Standing { epoch: wish.epoch, state: SessionState::Active };
        let line = self.lines.get(&wish.session).filter(|line| line.standing == standing);
        let Some(line) = line.filter(|_| self.token) else { return Wished::Over };
        let key = (wish.session, wish.broker.index());
        if self.requests.get(&key).is_some_and(|last| *last >= wish.request) {
            return Wished::Again;
        }
        let bound = u64::from(SLOTS) / 4;
        let cost = |whole: bool, count: u64| if whole { 1 } else { count };
        let used: u64 = self.given.iter().map(|given| cost(given.whole, given.count)).sum();
        let count = u64::from(wish.count);
        let count = if wish.whole { count } else { count.min(bound) };
        if used + cost(wish.whole, count) > bound {
            return Wished::Later;
        }
        self.requests.insert(key, wish.request);
        let first = self.next;
        self.next += count;
        self.given.push(Given {
            session: wish.session,
            first,
            count,
            whole: wish.whole,
            at: now,
            over: false,
            filled: BTreeSet::new(),
            owner: (line.client, wish.epoch, wish.broker.index()),
        });
        Wished::Granted { first, count: count as u32 }
    }

    /// Orders what is there of the given positions, and what never will be.
    pub fn settle(&mut self, out: &mut Vec<OrderEntry>) {
        while let Some(given) = self.given.first().cloned() {
            if self.position == given.end() {
                self.given.remove(0);
                continue;
            }
            let (client, epoch, broker) = given.owner;
            if given.over {
                self.entries += 1;
                out.push(OrderEntry {
                    first_position: self.position,
                    client,
                    landed_ns: self.landed_ns,
                    session_epoch: epoch,
                    segment: u32::MAX,
                    count: (given.end() - self.position) as u16,
                    broker: broker as u8,
                    flags: 1,
                    commit: self.entries,
                    ..OrderEntry::default()
                });
                self.position = given.end();
                continue;
            }
            let next = (given.session, self.position);
            let is_next =
                |held: &(usize, u64, RingSlot)| (held.2.session, held.2.batch_seq) == next;
            let Some(at) = self.held.iter().position(is_next) else { return };
            let (broker, index, slot) = self.held.remove(at);
            self.emit(broker, index, &slot, out);
            for (broker, index, _) in self.held.extract_if(.., |held| is_next(held)) {
                self.resolved.insert((broker, index));
            }
        }
    }

    pub fn drop_held(&mut self, session: u32) {
        self.requests.retain(|(of, _), _| *of != session);
        let given = self.given.iter_mut();
        given.filter(|given| given.session == session).for_each(|given| given.over = true);
        for (broker, index, _) in self.held.extract_if(.., |(.., slot)| slot.session == session) {
            self.resolved.insert((broker, index));
        }
    }

    pub fn open(&mut self, session: u32, client: u64, epoch: u32) {
        self.drop_held(session);
        let standing = Standing { epoch, state: SessionState::Active };
        let fresh = Line { client, standing, next_seq: 0, floor: 0 };
        let line = self.lines.entry(session).or_insert(fresh);
        if line.client == client {
            line.standing = standing;
        } else {
            *line = fresh;
            self.had.remove(&session);
        }
    }

    pub fn end(&mut self, session: u32, state: SessionState) {
        if let Some(line) = self.lines.get_mut(&session)
            && line.standing.state == SessionState::Active
        {
            line.standing.state = state;
            self.drop_held(session);
        }
    }

    pub fn tick(&mut self, now: u64) -> BTreeSet<u32> {
        let late = |since: &u64| now.saturating_sub(*since) > LEASE_NS;
        let given = self.given.iter().filter(|given| given.is_missing() && late(&given.at));
        let expired: BTreeSet<u32> = given.map(|given| given.session).collect();
        expired.iter().for_each(|session| self.end(*session, SessionState::Fenced));
        expired
    }
}
