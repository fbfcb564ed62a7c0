//! Who keeps each copy now, and how far that one is.
//!
//! A copy is kept by its home, or while that one is away by a stand-in, on another line: no line
//! ever changes its writer. Whoever goes by a copy goes by the line of its present keeper.
//!
//! Each line of a copy is a true word about all keepers that it ever had together: a stand-in
//! begins at what some other line says, and goes on from there without leaving anything out. So a
//! keeper that was replaced, and wakes up and moves its line, says nothing that is wrong; nobody
//! goes by it all the same. The keepers' word is therefore loaded once more behind the lines: what
//! was read of a keeper that has been replaced meanwhile does not count.

use landfall_layout::keepers::{Keepers, StandIn, is_stand_in_of, stand_in_key};
use landfall_layout::limits::{DISK_REPLICAS_MAX, STAND_INS_MAX};
use landfall_layout::replica::{ReplicaLine, ReplicaState};
use landfall_layout::{BrokerId, TopicId};

use crate::memory::Memory;
use crate::pool::Pool;
use crate::replica::{move_replica, read_copy_line, replica_key, start_replica};

/// A line that says how far a copy is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyLine {
    /// Its offset.
    pub at: u64,
    /// What its word for the topic says when it is about this copy.
    pub key: u64,
}

/// How far all copies of one broker's batches are, in log indexes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reached {
    /// Below it everything is on stable storage.
    pub durable: u64,
    /// Below it everything is written.
    pub written: u64,
}

impl Reached {
    /// Nothing is waited for.
    pub const ALL: Self = Self { durable: u64::MAX, written: u64::MAX };
    /// Nothing is known.
    pub const NOTHING: Self = Self { durable: 0, written: 0 };

    /// The less of this and what one copy's line says.
    pub fn and(self, line: &ReplicaLine) -> Self {
        Self {
            durable: self.durable.min(line.durable),
            // A replica that stopped says so; what it wrote since its last sync may not be there.
            written: self.written.min(match line.state() {
                ReplicaState::Failed => line.durable,
                _ => line.written,
            }),
        }
    }
}

/// The keepers that the word at `at` names.
pub fn read_keepers(memory: &impl Memory, at: u64) -> Keepers {
    memory.refresh(at, 8);
    // EDGE keepers, acquire half. Pairs with `move_keepers`.
    Keepers::from_raw(memory.load(at))
}

/// Names other keepers in the word at `at`.
pub fn move_keepers(memory: &impl Memory, at: u64, keepers: Keepers) {
    // EDGE keepers, release half. Pairs with `read_keepers`.
    memory.store_release(at, keepers.raw());
    memory.publish(at, 8);
}

/// How far all of the first `copies` copies are, by the lines of their keepers; `line` says where
/// the line of a copy and its keeper is. Nothing, when a keeper was replaced meanwhile.
pub fn read_copies(
    memory: &impl Memory,
    keepers_at: u64,
    copies: usize,
    line: impl Fn(usize, Option<StandIn>) -> CopyLine,
) -> Reached {
    let keepers = read_keepers(memory, keepers_at);
    let lines = (0..copies).map(|copy| {
        let CopyLine { at, key } = line(copy, keepers.stand_in(copy));
        read_copy_line(memory, at, key)
    });
    let reached = lines.fold(Reached::ALL, |least, line| least.and(&line));
    memory.acquire_fence();
    if read_keepers(memory, keepers_at) == keepers { reached } else { Reached::NOTHING }
}

impl<M: Memory> Pool<M> {
    /// Who keeps the copies of what `source` landed for `topic`.
    pub fn keepers(&self, topic: TopicId, source: BrokerId) -> Keepers {
        read_keepers(self, self.geometry().keepers(topic.slot(), source))
    }

    /// Names other keepers. Only control.
    pub fn set_keepers(&self, topic: TopicId, source: BrokerId, keepers: Keepers) {
        move_keepers(self, self.geometry().keepers(topic.slot(), source), keepers);
    }

    /// What the lines of all copies of `source` say, of whoever keeps one or may have kept it.
    pub fn copy_lines(
        &self,
        topic: TopicId,
        source: BrokerId,
    ) -> impl Iterator<Item = (CopyLine, ReplicaLine)> {
        let stand_ins = BrokerId::all()
            .flat_map(|broker| (0..STAND_INS_MAX).map(move |line| Some(StandIn { broker, line })));
        let keepers = std::iter::once(None).chain(stand_ins);
        let copies =
            keepers.flat_map(|keeper| (0..DISK_REPLICAS_MAX).map(move |copy| (copy, keeper)));
        copies.map(move |(copy, keeper)| {
            let at = self.copy_line(topic, source, copy, keeper);
            (at, self.copy_state(at))
        })
    }

    /// Brokers that stood in for the home of some copy of `topic`, whoever landed what it has: a
    /// line that serves another copy of the topic later is one of theirs still.
    pub fn stood_in(&self, topic: TopicId) -> Vec<BrokerId> {
        let is_its = |broker| {
            (0..STAND_INS_MAX).any(|line| {
                let at = self.geometry().stand_in(topic.slot(), broker, line);
                is_stand_in_of(topic, replica_key(self, at))
            })
        };
        BrokerId::all().filter(|broker| is_its(*broker)).collect()
    }

    /// Log index behind the last entry of `source` that a disk had when `topic` came back into this
    /// pool; 0: none had one, as far as could be read, or the topic was made here.
    pub fn tail_on_disk(&self, topic: TopicId, source: BrokerId) -> u64 {
        let at = self.geometry().tail(topic.slot(), source);
        self.refresh(at, 8);
        // Written before its leader serves, which whoever asks has seen.
        self.load(at)
    }

    /// Says how far disks have what `source` landed. Only control, before it serves the topic.
    pub fn set_tail_on_disk(&self, topic: TopicId, source: BrokerId, tail: u64) {
        let at = self.geometry().tail(topic.slot(), source);
        self.store(at, tail);
        self.publish(at, 8);
    }

    /// The line of a copy of what `source` landed for `topic`: its home's, or a stand-in's.
    pub fn copy_line(
        &self,
        topic: TopicId,
        source: BrokerId,
        replica: usize,
        stand_in: Option<StandIn>,
    ) -> CopyLine {
        let slot = topic.slot();
        match stand_in {
            None => {
                CopyLine { at: self.geometry().replica(slot, source, replica), key: topic.0.into() }
            }
            Some(StandIn { broker, line }) => CopyLine {
                at: self.geometry().stand_in(slot, broker, line),
                key: stand_in_key(topic, source, replica),
            },
        }
    }

    /// What a copy's line says; zeros when it is about another one.
    pub fn copy_state(&self, line: CopyLine) -> ReplicaLine {
        read_copy_line(self, line.at, line.key)
    }

    /// Begins a copy's line. Only the broker whose line it is.
    pub fn start_copy(&self, line: CopyLine, says: &ReplicaLine) {
        start_replica(self, line.at, &ReplicaLine { topic: line.key, ..*says });
    }

    /// Moves a copy's line, after the sync that covers its `durable`. Only the broker whose line
    /// it is.
    pub fn move_copy(&self, line: CopyLine, says: &ReplicaLine) {
        move_replica(self, line.at, says);
    }

    /// Log indexes below which every batch of `source` is durable, and written, on all of the
    /// topic's `disk_replicas` copies, wherever they are kept now. Everything is, where there is
    /// none.
    pub fn replicated(&self, topic: TopicId, source: BrokerId, disk_replicas: usize) -> Reached {
        if disk_replicas == 0 {
            return Reached::ALL;
        }
        self.follow();
        let at = self.geometry().keepers(topic.slot(), source);
        read_copies(self, at, disk_replicas, |replica, stand_in| {
            self.copy_line(topic, source, replica, stand_in)
        })
    }

    /// The furthest that any keeper of a copy but the one whose line is `but` says that the copy
    /// is durable, with all of its keepers together; 0 where there never was another.
    pub fn durable_elsewhere(
        &self,
        topic: TopicId,
        source: BrokerId,
        replica: usize,
        but: CopyLine,
    ) -> u64 {
        debug_assert!(replica < DISK_REPLICAS_MAX);
        let stand_ins = BrokerId::all()
            .flat_map(|broker| (0..STAND_INS_MAX).map(move |line| Some(StandIn { broker, line })));
        std::iter::once(None)
            .chain(stand_ins)
            .map(|stand_in| self.copy_line(topic, source, replica, stand_in))
            .filter(|line| line.at != but.at)
            .map(|line| self.copy_state(line).durable)
            .max()
            .unwrap_or(0)
    }
}
