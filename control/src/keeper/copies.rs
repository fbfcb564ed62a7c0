//! Copies on disk: who keeps each, moved when its keeper stays away, and shown.

use std::collections::{BTreeMap, BTreeSet};

use landfall_layout::keepers::{Keepers, StandIn};
use landfall_layout::limits::{BROKERS_MAX, SEQUENCED_LOG, TOPICS_MAX};
use landfall_layout::pool::{BrokerState, DISK_HANGS};
use landfall_layout::replica::{ENODATA, ReplicaLine, ReplicaState};
use landfall_layout::{BrokerId, TopicId};

use landfall_replica::there::Part;

use super::parts::{Telling, tell};
use super::{Keeper, Topic};
use crate::answers::ReplicaFacts;
use crate::copies::{Copy, Move, Peer, View, decide};
use crate::life::Life;

/// Topics whose copies are looked at in one round.
const TOPICS_PER_ROUND: usize = 16;

/// A copy: of what a broker landed for a topic, the one of that number.
type CopyOf = (TopicId, BrokerId, usize);

/// What the keeper knows of copies that moved. Who keeps them is in the pool.
#[derive(Debug, Default)]
pub struct Copies {
    /// How long a keeper is away before its copies move, nanoseconds.
    move_ns: u64,
    /// Since when each broker has not been live, by control's own clock.
    away_since_ns: [Option<u64>; BROKERS_MAX],
    /// Copies that are not with their homes.
    moved: BTreeMap<CopyOf, Moved>,
    /// Copies whose keeper is away and that nobody can take, of which somebody was told.
    stuck: BTreeSet<CopyOf>,
    /// Moves that data directories are being told of, one of each topic's sources.
    telling: BTreeMap<(TopicId, BrokerId), Telling>,
    /// The slot in the topic table that is looked at next.
    next_slot: usize,
}

/// A copy that is with a stand-in.
#[derive(Clone, Copy, Debug)]
struct Moved {
    to: StandIn,
    /// When it moved there, or this control saw it there first, by control's own clock.
    since_ns: u64,
    /// How far the stand-in was at the last look.
    mark: Option<u64>,
}

impl Copies {
    /// Of copies that move when their keeper has been away for `move_ns`.
    pub fn new(move_ns: u64) -> Self {
        Self { move_ns, ..Self::default() }
    }
}

impl Keeper {
    /// Moves copies of some topics whose keepers stay away, and gives back those whose homes have
    /// caught up.
    pub(super) fn look_at_copies(&mut self) {
        let now = self.clock_ns();
        for broker in &self.brokers {
            let since = &mut self.copies.away_since_ns[broker.id.index()];
            let keeps = broker.life == Life::Live && self.pool.broker(broker.id).disk != DISK_HANGS;
            *since = if keeps { None } else { Some(since.unwrap_or(now)) };
        }
        for _ in 0..TOPICS_PER_ROUND {
            let slot = self.copies.next_slot;
            self.copies.next_slot = (slot + 1) % TOPICS_MAX;
            let live = self.topics[slot].as_ref().filter(|topic| topic.is_live());
            let id = live.filter(|topic| topic.entry.disk_replicas() > 0).map(|topic| topic.id);
            self.copies.moved.retain(|(of, ..), _| of.slot() != slot || Some(*of) == id);
            self.copies.stuck.retain(|(of, ..)| of.slot() != slot || Some(*of) == id);
            self.copies.telling.retain(|(of, _), _| of.slot() != slot || Some(*of) == id);
            if let Some(id) = id {
                self.look_at_copies_of(id, now);
            }
        }
    }

    fn look_at_copies_of(&mut self, id: TopicId, now: u64) {
        let Some(topic) = self.topic(id) else { return };
        let sources = self.landing(topic);
        for source in &sources {
            self.know_moved(id, *source, now);
        }
        let peers = self.peers(now);
        for source in sources {
            let Some(topic) = self.topic(id) else { return };
            let keepers = self.pool.keepers(id, source);
            let copies = self.copies_of(topic, source, keepers, now);
            let log = if topic.order.is_sequenced() { SEQUENCED_LOG } else { source.index() };
            let mut lines = [0; BROKERS_MAX];
            for moved in self.copies.moved.iter().filter(|((of, ..), _)| *of == id) {
                let to = moved.1.to;
                lines[to.broker.index()] |= 1 << to.line;
            }
            for (_, telling) in
                self.copies.telling.iter().filter(|((of, from), _)| *of == id && *from != source)
            {
                lines[telling.to.broker.index()] |= 1 << telling.to.line;
            }
            let view = View {
                peers: &peers,
                copies: &copies,
                keepers,
                lines: &lines,
                oldest: topic.logs.get(&log).map_or(0, |log| log.oldest_index),
                move_ns: self.copies.move_ns,
            };
            match decide(&view) {
                Some(to) => {
                    if let Some(to) = self.tell_of(id, source, to, now) {
                        self.move_copy((id, source, to.replica), keepers, to, now);
                    }
                }
                None => {
                    self.copies.telling.remove(&(id, source));
                    self.tell_stuck(id, source, &copies, keepers);
                }
            }
            self.mark(id, source, keepers);
        }
    }

    /// Copies with stand-ins, as the pool says: a control before this one may have moved them.
    fn know_moved(&mut self, id: TopicId, source: BrokerId, now: u64) {
        let keepers = self.pool.keepers(id, source);
        let copies = self.topic(id).map_or(0, |topic| topic.entry.disk_replicas());
        for replica in 0..copies {
            let of = (id, source, replica);
            match keepers.stand_in(replica) {
                None => drop(self.copies.moved.remove(&of)),
                Some(to) => {
                    let known = self.copies.moved.get(&of).is_some_and(|moved| moved.to == to);
                    if !known {
                        let moved = Moved { to, since_ns: now, mark: None };
                        self.copies.moved.insert(of, moved);
                    }
                }
            }
        }
    }

    fn peers(&self, now: u64) -> [Peer; BROKERS_MAX] {
        let mut peers: [Peer; BROKERS_MAX] = std::array::from_fn(|number| {
            let broker = &self.brokers[number];
            let line = self.pool.broker(broker.id);
            let serves = BrokerState::from_raw(line.state) == BrokerState::Serving;
            Peer {
                is_live: broker.life == Life::Live && serves && line.disk != DISK_HANGS,
                has_disk: line.disk != 0,
                away_ns: self.copies.away_since_ns[number].map(|since| now.saturating_sub(since)),
                stand_ins: 0,
            }
        });
        let moving = self.copies.telling.values().map(|telling| telling.to);
        for to in self.copies.moved.values().map(|moved| moved.to).chain(moving) {
            peers[to.broker.index()].stand_ins += 1;
        }
        peers
    }

    fn copies_of(&self, topic: &Topic, source: BrokerId, keepers: Keepers, now: u64) -> Vec<Copy> {
        let of = |replica: usize| {
            let home = topic.entry.replica_broker(source, replica)?;
            let at_home = self.of_this_life(home, self.pool.replica(topic.id, source, replica));
            let stand_in = keepers.stand_in(replica);
            let line = self.pool.copy_line(topic.id, source, replica, stand_in);
            let moved = self.copies.moved.get(&(topic.id, source, replica));
            // One that failed has as long as one that is gone: what fails at once everywhere does
            // not go round and round.
            let may_move =
                moved.is_none_or(|moved| now.saturating_sub(moved.since_ns) >= self.copies.move_ns);
            Some(Copy {
                replica,
                home,
                home_durable: at_home.durable,
                home_state: at_home.state(),
                stand_in_state: match stand_in {
                    Some(stand_in) if may_move => {
                        self.of_this_life(stand_in.broker, self.pool.copy_state(line)).state()
                    }
                    _ => ReplicaState::Well,
                },
                mark: moved.and_then(|moved| moved.mark),
            })
        };
        (0..topic.entry.disk_replicas()).filter_map(of).collect()
    }

    /// A line as it is once its broker's present process has begun it: what one before it left says
    /// nothing of what is on the disk now.
    fn of_this_life(&self, broker: BrokerId, line: ReplicaLine) -> ReplicaLine {
        match line.incarnation == self.pool.broker(broker).incarnation {
            true => line,
            false => ReplicaLine::default(),
        }
    }

    /// Lets data directories know of a move to a stand-in before it is made: the move, once they
    /// do, or are too late.
    fn tell_of(&mut self, id: TopicId, source: BrokerId, to: Move, now: u64) -> Option<Move> {
        let key = (id, source);
        let (Some(stand_in), false) = (to.to, self.graves.data().is_empty()) else {
            self.copies.telling.remove(&key);
            return Some(to);
        };
        let is_live = |stand_in: StandIn| self.brokers[stand_in.broker.index()].life == Life::Live;
        let going = self.copies.telling.get_mut(&key);
        let Some(going) = going.filter(|it| it.replica == to.replica && is_live(it.to)) else {
            let entry = self.topic(id)?.entry;
            let from = self.pool.replica(id, source, to.replica).durable;
            let (copy, keeper) = (to.replica as u8, stand_in.broker.raw());
            let part = (Part { source: source.raw(), copy, keeper, from }, stand_in);
            let telling = tell(&self.pool, &entry, part, self.graves.data(), now);
            self.copies.telling.insert(key, telling);
            return None;
        };
        let (notes, stand_in) = (going.end(now)?, going.to);
        self.copies.telling.remove(&key);
        let name = self.topic(id)?.entry.name().to_owned();
        for note in notes {
            self.note(&format!(
                "topic {name}: broker {} is to keep a part of what broker {source} landed, and \
                 that could not be written into a data directory: {note}",
                stand_in.broker
            ));
        }
        Some(Move { to: Some(stand_in), ..to })
    }

    fn move_copy(&mut self, of: CopyOf, keepers: Keepers, Move { replica, to }: Move, now: u64) {
        let (id, source, _) = of;
        let Some(topic) = self.topic(id) else { return };
        let (name, home) =
            (topic.entry.name().to_owned(), topic.entry.replica_broker(source, replica));
        let Some(home) = home else { return };
        if !self.still_leads() {
            return;
        }
        let before = keepers.stand_in(replica).map_or(home, |stand_in| stand_in.broker);
        let after = to.map_or(home, |stand_in| stand_in.broker);
        self.pool.set_keepers(id, source, keepers.with(replica, to));
        self.copies.stuck.remove(&of);
        match to {
            Some(to) => {
                self.copies.moved.insert(of, Moved { to, since_ns: now, mark: None });
            }
            None => drop(self.copies.moved.remove(&of)),
        }
        match to {
            Some(_) => self.note(&format!(
                "topic {name}: copy {replica} of what broker {source} landed is kept by broker \
                 {after} from now on: broker {before} is away, or its disk hangs"
            )),
            None => self.tell(&format!(
                "topic {name}: copy {replica} of what broker {source} landed is kept by its home, \
                 broker {home}, again"
            )),
        }
    }

    /// Says once for each copy that nobody can take it over.
    fn tell_stuck(&mut self, id: TopicId, source: BrokerId, copies: &[Copy], keepers: Keepers) {
        for copy in copies {
            let of = (id, source, copy.replica);
            let stand_in = keepers.stand_in(copy.replica);
            let keeper = stand_in.map_or(copy.home, |stand_in| stand_in.broker);
            let away = self.copies.away_since_ns[keeper.index()];
            let now = self.clock_ns();
            let is_away =
                away.is_some_and(|since| now.saturating_sub(since) >= self.copies.move_ns);
            if !is_away {
                self.copies.stuck.remove(&of);
            } else if self.copies.stuck.insert(of) {
                let name = self.topic(id).map_or("?", |topic| topic.entry.name()).to_owned();
                self.note(&format!(
                    "topic {name}: broker {keeper}, which keeps copy {} of what broker {source} \
                     landed, is away, or its disk hangs, and no live broker with a disk is \
                     without a copy: nothing that broker {source} lands becomes durable; start \
                     broker {keeper}, or another one with --data DIR",
                    copy.replica
                ));
            }
        }
    }

    /// Notes how far stand-ins are, for the next look.
    fn mark(&mut self, id: TopicId, source: BrokerId, before: Keepers) {
        if self.pool.keepers(id, source) != before {
            return;
        }
        for ((of, from, replica), moved) in &mut self.copies.moved {
            if *of == id && *from == source {
                let line = self.pool.copy_line(id, source, *replica, Some(moved.to));
                let line = self.pool.copy_state(line);
                // One that has not begun says nothing of how far the copy is.
                moved.mark = (line.state() != ReplicaState::Absent).then_some(line.durable);
            }
        }
    }

    /// Nobody stands in for anybody in a topic that is new to its slot.
    pub(super) fn forget_keepers(&self, id: TopicId) {
        for source in BrokerId::all() {
            self.pool.set_keepers(id, source, Keepers::default());
            self.pool.set_tail_on_disk(id, source, 0);
        }
    }

    pub(super) fn replicas_of(&self, topic: &Topic) -> Vec<ReplicaFacts> {
        let entry = &topic.entry;
        let mut facts = Vec::new();
        let landing = self.landing(topic);
        // What somebody landed before this pool is kept too.
        let is_kept = |source: &BrokerId| {
            let line = |replica| self.pool.replica(topic.id, *source, replica);
            landing.contains(source)
                || (0..entry.disk_replicas()).any(|replica| line(replica).incarnation != 0)
        };
        for source in BrokerId::all().filter(is_kept) {
            let keepers = self.pool.keepers(topic.id, source);
            for replica in 0..entry.disk_replicas() {
                let Some(home) = entry.replica_broker(source, replica) else { continue };
                let stand_in = keepers.stand_in(replica);
                let broker = stand_in.map_or(home, |stand_in| stand_in.broker);
                let line = self.pool.copy_line(topic.id, source, replica, stand_in);
                let line = self.of_this_life(broker, self.pool.copy_state(line));
                let hangs = self.pool.broker(broker).disk == DISK_HANGS;
                facts.push(ReplicaFacts {
                    broker: broker.raw(),
                    home: home.raw(),
                    source: source.raw(),
                    replica: replica as u8,
                    durable: line.durable,
                    written: line.written,
                    state: match (self.brokers[broker.index()].life, line.state()) {
                        (Life::Live, ReplicaState::Absent | ReplicaState::Well) if hangs => {
                            "disk hangs"
                        }
                        (Life::Live, ReplicaState::Well) if stand_in.is_some() => "moved",
                        (Life::Live, ReplicaState::Well) if line.errno == ENODATA => "incomplete",
                        (Life::Live, state) => state.name(),
                        (Life::Frozen, _) => "keeper frozen",
                        (Life::Silent, _) => "keeper silent",
                        _ => "keeper gone",
                    },
                    errno: line.errno,
                });
            }
        }
        facts
    }
}
