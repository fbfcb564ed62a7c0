//! The sequencer against a model that searches lists, over random operations and crashes.
//!
//! `World` is what survives: rings, log, session lines, consumed indices. Both sequencers see the
//! same world and have to say the same; what must hold of the log itself is checked from the log
//! alone, so an error that the two share is found as well.

use std::collections::{BTreeMap, BTreeSet};

use landfall_layout::BrokerId;
use landfall_layout::order::OrderEntry;
use landfall_layout::session::SessionState;
use landfall_layout::slot::{RingSlot, SLOT_PADDING};
use landfall_layout::topic::Order;
use proptest::prelude::*;

use super::model::{BROKERS, LEASE_NS, Line, Model, SLOTS};
use super::{Cause, Frontier, SessionView, TopicSequencer, Wish};

const SESSIONS: u32 = 4;
/// Rings start where the low half of their indices is about to wrap.
const BASE: u64 = (3 << 32) - 10;

/// What is in the pool.
struct World {
    order: Order,
    rings: [Vec<RingSlot>; BROKERS],
    consumed: [u64; BROKERS],
    log: Vec<OrderEntry>,
    /// What retention has left of the log begins here.
    oldest: usize,
    lines: BTreeMap<u32, Line>,
    clients: u64,
    requests: u64,
    now: u64,
    sequencer: TopicSequencer,
    model: Model,
    /// Emitted, and not yet in the log.
    pending: Vec<OrderEntry>,
    /// Sessions whose lines are to be written.
    dirty: BTreeSet<u32>,
}

fn broker(number: usize) -> BrokerId {
    BrokerId::new(number).unwrap()
}

impl World {
    fn new(order: Order) -> Self {
        let mut world = Self {
            order,
            rings: Default::default(),
            consumed: [BASE; BROKERS],
            log: Vec::new(),
            oldest: 0,
            lines: BTreeMap::new(),
            clients: 0,
            requests: 0,
            now: 1,
            sequencer: TopicSequencer::new(order, LEASE_NS, Frontier::default()).unwrap(),
            model: Model::default(),
            pending: Vec::new(),
            dirty: BTreeSet::new(),
        };
        world.recover();
        world
    }

    /// Both sequencers anew, from what is in the pool.
    fn recover(&mut self) {
        (self.pending, self.dirty) = Default::default();
        let last = self.log.last().copied().unwrap_or_default();
        let start = Frontier {
            entries: self.log.len() as u64,
            position: last.end_position(),
            bytes: 0,
            landed_ns: last.landed_ns,
        };
        if self.order == Order::Token {
            // Nobody knows what was reserved.
            let active = |line: &&mut Line| line.standing.state == SessionState::Active;
            let lines = self.lines.values_mut().filter(active);
            lines.for_each(|line| line.standing.state = SessionState::Fenced);
        }
        self.sequencer = TopicSequencer::new(self.order, LEASE_NS, start).unwrap();
        self.model = Model {
            strong: self.order == Order::Strong,
            stream: self.order == Order::Stream,
            token: self.order == Order::Token,
            next: start.position,
            entries: start.entries,
            position: start.position,
            landed_ns: start.landed_ns,
            floor: self.consumed,
            lines: self.lines.clone(),
            ..Model::default()
        };
        for number in 0..BROKERS {
            self.sequencer.open_ring(broker(number), SLOTS, self.consumed[number]).unwrap();
        }
        for (index, line) in &self.lines {
            let (floor, known_from) = (line.floor, 0);
            let Line { client, standing, next_seq, .. } = *line;
            let index = *index;
            let line = SessionView { index, client, standing, next_seq, floor, known_from, had: 0 };
            self.sequencer.restore_session(&line);
        }
        for entry in &self.log[self.oldest..] {
            let mut lines = self.lines.iter();
            let session = lines.find(|(_, line)| line.client == entry.client).map(|(at, _)| *at);
            self.sequencer.replay(session, entry);
            if entry.is_hole() {
                continue;
            }
            let number = usize::from(entry.broker);
            let mut indices = BASE..BASE + self.rings[number].len() as u64;
            let index = indices.find(|index| *index as u32 == entry.ring_index).unwrap();
            self.model.resolved.insert((number, index));
            if let Some(session) = session {
                let next = entry.batch_seq + 1;
                let line = self.model.lines.get_mut(&session).unwrap();
                if self.order == Order::Strong {
                    line.next_seq = line.next_seq.max(next);
                } else if self.order == Order::Stream && entry.batch_seq >= line.floor {
                    let had = self.model.had.entry(session).or_default();
                    had.insert(entry.batch_seq);
                    line.take(entry.batch_seq, had);
                }
            }
        }
        for number in 0..BROKERS {
            self.model.scan[number] = self.model.consumed(number);
        }
        self.compare();
    }

    fn compare(&self) {
        for number in 0..BROKERS {
            assert_eq!(self.sequencer.consumed(broker(number)), self.model.consumed(number));
            assert_eq!(self.sequencer.scan_index(broker(number)), self.model.scan[number]);
        }
        for index in 0..=SESSIONS {
            let ours = self.sequencer.session(index).map(|view| Line {
                client: view.client,
                standing: view.standing,
                next_seq: view.next_seq,
                floor: if self.model.stream { view.floor } else { 0 },
            });
            assert_eq!(ours, self.model.lines.get(&index).copied(), "session {index}");
        }
        assert_eq!(self.sequencer.held(), self.model.held.len());
        let given = self.model.given.iter().filter(|given| !given.over).map(|given| given.at);
        let oldest = given.min();
        let oldest = oldest.map(|since| since + LEASE_NS);
        let deadline = self.sequencer.deadline_ns();
        if self.model.token {
            // Behind positions whose holes are to be written first it is not looked for.
            assert!(deadline <= oldest || self.sequencer.has_holes());
        } else {
            assert_eq!(deadline, None);
        }
        let frontier = self.sequencer.frontier();
        assert_eq!(
            (frontier.entries, frontier.position, frontier.landed_ns),
            (self.model.entries, self.model.position, self.model.landed_ns)
        );
    }

    /// A broker lands a batch of a session, of an epoch `back` before the line's.
    fn land(&mut self, number: usize, session: u32, shape: Shape) {
        let index = BASE + self.rings[number].len() as u64;
        if index - self.consumed[number] >= u64::from(SLOTS) {
            return;
        }
        let Some(line) = self.lines.get(&session) else { return };
        let next = self.model.lines.get(&session).map_or(0, |line| line.next_seq);
        let (batch_seq, count) = match self.order {
            Order::Token => self.aim(session, shape),
            Order::Strong => (self.turn(number, session, shape.ahead), shape.count),
            _ => ((next + u64::from(shape.ahead)).saturating_sub(3), shape.count),
        };
        self.rings[number].push(RingSlot {
            client: line.client + u64::from(shape.stranger),
            batch_seq,
            session_epoch: line.standing.epoch.saturating_sub(shape.back),
            session: session + SESSIONS * u32::from(shape.stranger) * 1000,
            segment: number as u32,
            offset: index as u32,
            bytes: 64,
            count,
            flags: if shape.padding { SLOT_PADDING } else { 0 },
            landed_ns: self.now.saturating_sub(u64::from(shape.ahead) * 7),
            ..RingSlot::default()
        });
    }

    /// Order `strong`: mostly the sequence behind the last one in the same ring, or the next one.
    fn turn(&self, number: usize, session: u32, ahead: u8) -> u64 {
        let line = &self.lines[&session];
        let next = self.model.lines.get(&session).map_or(0, |line| line.next_seq);
        let is_own = |slot: &&RingSlot| {
            (slot.client, slot.session_epoch) == (line.client, line.standing.epoch)
        };
        let last = self.rings[number].iter().rev().find(is_own).map(|slot| slot.batch_seq + 1);
        match ahead {
            0..3 => (next + u64::from(ahead)).saturating_sub(3),
            3..7 => last.unwrap_or(next),
            _ => next + 1,
        }
    }

    /// Positions for a batch: mostly some that the session was given and has not used.
    fn aim(&self, session: u32, shape: Shape) -> (u64, u16) {
        let given = self.model.given.iter();
        let mine: Vec<_> = given.filter(|given| given.session == session && !given.over).collect();
        let Some(given) = mine.get(usize::from(shape.ahead) % mine.len().max(1)) else {
            return (self.model.position.saturating_sub(2), shape.count);
        };
        if given.whole {
            let count = if shape.count == 7 { 7 } else { given.count as u16 };
            return (given.first, count);
        }
        let landed = self.rings.iter().flatten().map(|slot| slot.batch_seq);
        let landed: BTreeSet<u64> = landed.collect();
        let mut free = (given.first..given.first + given.count).rev();
        let free = free.find(|at| !landed.contains(at) || shape.count == 9);
        (free.unwrap_or(given.first), if shape.count == 11 { 2 } else { 1 })
    }

    fn reserve(&mut self, number: usize, session: u32, count: u32, whole: bool, again: bool) {
        let Some(line) = self.model.lines.get(&session) else { return };
        self.requests += u64::from(!again);
        let (epoch, broker, request) = (line.standing.epoch, broker(number), self.requests);
        let wish = Wish { session, epoch, broker, request, count, whole };
        let expected = self.model.reserve(&wish, self.now);
        assert_eq!(self.sequencer.reserve(&wish, self.now), expected);
    }

    /// Positions that nothing will come for are put in order, and those who wrote elsewhere are
    /// told.
    fn settle(&mut self) {
        let mut out = Vec::new();
        self.sequencer.fill_holes(|entry| out.push(entry));
        let mut expected = Vec::new();
        self.model.settle(&mut expected);
        assert_eq!(out, expected);
        self.pending.extend(out);
        self.drain_trespassers();
    }

    fn drain_trespassers(&mut self) {
        let mut fenced = BTreeSet::new();
        self.sequencer.drain_trespassers(|fencing| {
            fenced.insert(fencing.session.index);
        });
        assert_eq!(fenced, std::mem::take(&mut self.model.trespassers));
        self.dirty.extend(fenced);
    }

    /// The sequencers look at one slot of a ring.
    fn scan(&mut self, number: usize) {
        let index = self.sequencer.scan_index(broker(number));
        let Some(slot) = self.rings[number].get((index - BASE) as usize).copied() else { return };
        let mut out = Vec::new();
        let verdict = self.sequencer.offer(broker(number), &slot, |entry| out.push(entry));
        let expected = self.model.offer(number, &slot);
        assert_eq!((verdict, out), expected);
        self.pending.extend(expected.1);
        if self.order == Order::Token && number == 1 {
            self.settle();
        } else if self.order == Order::Strong {
            self.drain_trespassers();
        }
    }

    fn tick(&mut self) {
        let mut fenced = BTreeSet::new();
        self.sequencer.tick(self.now, |fencing| {
            assert_eq!(fencing.session.standing.state, SessionState::Fenced);
            assert_eq!(self.order, Order::Token);
            fenced.insert(fencing.session.index);
        });
        assert_eq!(fenced, self.model.tick(self.now));
        self.dirty.extend(fenced);
    }

    /// A broker's ring fills with what comes too early.
    fn flood(&mut self, number: usize, session: u32) {
        for ahead in 0..SLOTS as u8 {
            let shape =
                Shape { ahead: 4 + ahead, back: 0, count: 1, padding: false, stranger: false };
            self.land(number, session, shape);
            self.scan(number);
        }
    }

    /// Carries a burst into the pool, as far as a crash lets it.
    fn commit(&mut self, stages: u8) {
        if stages == 0 {
            return;
        }
        if self.order == Order::Token {
            self.settle();
        }
        self.log.append(&mut self.pending);
        if stages == 1 {
            return;
        }
        self.sequencer.drain_touched(|view| {
            let moves = matches!(self.order, Order::Stream | Order::Strong);
            assert!(moves, "order {} moves no session", self.order);
            self.dirty.insert(view.index);
        });
        for index in std::mem::take(&mut self.dirty) {
            match self.model.lines.get(&index) {
                Some(line) => self.lines.insert(index, *line),
                None => self.lines.remove(&index),
            };
        }
        for number in 0..BROKERS.min(usize::from(stages - 2)) {
            self.consumed[number] = self.sequencer.consumed(broker(number));
        }
    }

    /// Retention takes the log away. The session lines say enough for `strong`, and `total` needs
    /// nothing; what a `stream` has above a gap is known only from the log.
    fn retain(&mut self) {
        self.commit(5);
        let consumed = |entry: &OrderEntry| {
            if entry.is_hole() {
                return true;
            }
            let low = self.consumed[usize::from(entry.broker)] as u32;
            entry.ring_index.wrapping_sub(low) > 1 << 31
        };
        let said = |entry: &OrderEntry| {
            let mut lines = self.lines.values().filter(|line| line.client == entry.client);
            self.order != Order::Stream || lines.all(|line| entry.batch_seq < line.floor)
        };
        let goes = |entry: &&OrderEntry| consumed(entry) && said(entry);
        let past = self.log[self.oldest..].iter().take_while(goes).count();
        self.oldest += past;
    }

    fn open(&mut self, session: u32, stranger: bool) {
        let line = self.model.lines.get(&session).copied();
        let (client, epoch) = match line {
            Some(line) if !stranger => (line.client, line.standing.epoch + 1),
            _ => {
                self.clients += 10;
                (self.clients, 1)
            }
        };
        self.sequencer.open_session(session, client, epoch, 0);
        self.model.open(session, client, epoch);
        // Whoever asked is told once the line says so.
        self.dirty.insert(session);
        self.commit(2);
    }

    /// What holds of a log, whatever led to it.
    fn check(&self) {
        let mut position = 0;
        let mut slots = BTreeSet::new();
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        let mut had = BTreeSet::new();
        let mut places: BTreeMap<(u64, u8), u32> = BTreeMap::new();
        let mut epochs: BTreeMap<u64, u32> = BTreeMap::new();
        let mut landed_ns = 0;
        for (index, entry) in self.log.iter().enumerate() {
            assert_eq!((entry.commit, entry.first_position), (index as u64 + 1, position));
            position = entry.end_position();
            assert!(entry.landed_ns >= landed_ns);
            landed_ns = entry.landed_ns;
            if entry.is_hole() {
                continue;
            }
            assert!(slots.insert((entry.broker, entry.ring_index)), "a slot is ordered once");
            let epoch = epochs.entry(entry.client).or_default();
            assert!(entry.session_epoch >= *epoch, "an epoch that was over came back");
            *epoch = entry.session_epoch;
            let next = next.entry(entry.client).or_default();
            match self.order {
                Order::Strong => assert_eq!(entry.batch_seq, *next, "each once, in sequence"),
                Order::Stream => {
                    assert!(had.insert((entry.client, entry.batch_seq)), "each once");
                    let low = BASE as u32;
                    let place = entry.ring_index.wrapping_sub(low);
                    let before = places.insert((entry.client, entry.broker), place);
                    assert!(before.is_none_or(|before| before < place), "as its broker landed it");
                }
                Order::Token => assert_eq!(entry.batch_seq, entry.first_position),
                _ => {}
            }
            *next = entry.batch_seq + 1;
        }
        for number in 0..BROKERS {
            let given_back = (self.consumed[number] - BASE) as usize;
            for (at, slot) in self.rings[number][..given_back].iter().enumerate() {
                let index = (BASE + at as u64) as u32;
                if slots.contains(&(number as u8, index)) || slot.count == 0 || slot.flags != 0 {
                    continue;
                }
                let line = self.lines.get(&slot.session).filter(|l| l.client == slot.client);
                let over = line.is_none_or(|line| {
                    line.standing.epoch != slot.session_epoch
                        || line.standing.state != SessionState::Active
                });
                // Positions do not come again, so what is below the log's end is there already.
                let twice = match self.order {
                    Order::Strong => {
                        next.get(&slot.client).is_some_and(|next| slot.batch_seq < *next)
                    }
                    Order::Stream => had.contains(&(slot.client, slot.batch_seq)),
                    Order::Token => slot.batch_seq < position,
                    _ => false,
                };
                assert!(over || twice, "slot {index} of broker {number} is lost: {slot:?}");
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    ahead: u8,
    back: u32,
    count: u16,
    padding: bool,
    stranger: bool,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Land(usize, u32, Shape),
    Scan(usize),
    Pass(u64),
    Reserve(usize, u32, u32, bool, bool),
    Tick,
    Flood(usize, u32),
    Open(u32, bool),
    End(u32, bool),
    Forget(u32),
    Commit,
    Retain,
    Crash(u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let rare = || prop::bool::weighted(0.03);
    // Mostly the next sequence, by which the model is led into long runs.
    let ahead = prop_oneof![4 => Just(3_u8), 3 => 4_u8..8, 1 => 0_u8..3];
    let shape = (ahead, prop::bool::weighted(0.05), 0_u16..40, rare(), rare()).prop_map(
        |(ahead, back, count, padding, stranger)| Shape {
            ahead,
            back: back.into(),
            count: count.saturating_sub(1),
            padding,
            stranger,
        },
    );
    let op = prop_oneof![
        40 => (0..BROKERS, 0..SESSIONS, shape).prop_map(|(b, s, shape)| Op::Land(b, s, shape)),
        40 => (0..BROKERS).prop_map(Op::Scan),
        6 => (0_u64..60).prop_map(Op::Pass),
        14 => (0..BROKERS, 0..SESSIONS, 1_u32..9, any::<bool>(), rare())
            .prop_map(|(b, s, count, whole, again)| Op::Reserve(b, s, count, whole, again)),
        4 => Just(Op::Tick),
        3 => (0..BROKERS, 0..SESSIONS).prop_map(|(b, s)| Op::Flood(b, s)),
        6 => (0..SESSIONS, rare()).prop_map(|(session, stranger)| Op::Open(session, stranger)),
        1 => (0..SESSIONS, any::<bool>()).prop_map(|(session, fence)| Op::End(session, fence)),
        1 => (0..SESSIONS).prop_map(Op::Forget),
        10 => Just(Op::Commit),
        2 => Just(Op::Retain),
        3 => (0_u8..6).prop_map(Op::Crash),
    ];
    prop::collection::vec(op, 0..400)
}

fn run(order: Order, ops: &[Op]) {
    let mut world = World::new(order);
    (0..SESSIONS).for_each(|session| world.open(session, true));
    for op in ops {
        match *op {
            Op::Land(number, session, shape) => world.land(number, session, shape),
            Op::Scan(number) => world.scan(number),
            Op::Pass(ns) => world.now += ns,
            Op::Reserve(number, session, count, whole, again) => {
                world.reserve(number, session, count, whole, again);
            }
            Op::Tick => world.tick(),
            Op::Flood(number, session) => world.flood(number, session),
            Op::Open(session, stranger) => world.open(session, stranger),
            Op::End(session, fence) => {
                let (ended, state) = match fence {
                    true => (
                        world.sequencer.fence_session(session, Cause::Rewritten),
                        SessionState::Fenced,
                    ),
                    false => (world.sequencer.close_session(session), SessionState::Closed),
                };
                world.model.end(session, state);
                world.dirty.extend(ended.map(|fencing| fencing.session.index));
            }
            Op::Forget(session) => {
                world.sequencer.forget_session(session);
                world.model.drop_held(session);
                world.model.lines.remove(&session);
                world.model.had.remove(&session);
                world.dirty.insert(session);
            }
            Op::Commit => world.commit(5),
            Op::Retain => world.retain(),
            Op::Crash(stages) => {
                world.commit(stages);
                world.recover();
            }
        }
        world.compare();
    }
    for number in (0..BROKERS).cycle().take(BROKERS * 64) {
        world.scan(number);
    }
    world.commit(5);
    world.compare();
    world.check();
    for number in 0..BROKERS {
        let end = BASE + world.rings[number].len() as u64;
        assert_eq!(world.sequencer.scan_index(broker(number)), end, "every slot was looked at");
    }
    // Whatever is held goes with its gap's lease, and the rings are empty.
    world.now += LEASE_NS + 1;
    world.tick();
    world.commit(5);
    world.check();
    for number in 0..BROKERS {
        assert_eq!(world.consumed[number], BASE + world.rings[number].len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn total_is_as_the_model(ops in ops()) {
        run(Order::Total, &ops);
    }

    #[test]
    fn token_is_as_the_model(ops in ops()) {
        run(Order::Token, &ops);
    }

    #[test]
    fn stream_is_as_the_model(ops in ops()) {
        run(Order::Stream, &ops);
    }

    #[test]
    fn strong_is_as_the_model(ops in ops()) {
        run(Order::Strong, &ops);
    }
}
