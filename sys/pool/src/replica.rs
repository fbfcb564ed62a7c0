//! Replica lines: how far the disk replicas of one broker's batches are.
//!
//! A line is written by the broker that keeps the replica. Brokers whose publishers wait for a
//! durable receipt, and control before it retires anything, read it.

use landfall_layout::limits::LINE_BYTES;
use landfall_layout::replica::{LostLine, ReplicaLine};
use landfall_layout::{BrokerId, TopicId};

use crate::lines::store_keyed;
use crate::memory::Memory;
use crate::pool::Pool;

/// Word of a replica line that says whose it is.
const REPLICA_TOPIC: u64 = 32;
/// Words of a replica line: what its files have to reach, its state with the error number, its
/// writer's incarnation, and the entries it counts.
const REPLICA_TAIL: u64 = 24;
const REPLICA_STATE: u64 = 40;
const REPLICA_INCARNATION: u64 = 48;
const REPLICA_ENTRIES: u64 = 56;

/// The replica line at `at`; zeros, and so nothing durable, when it is about another topic.
pub fn read_replica(memory: &impl Memory, at: u64, topic: TopicId) -> ReplicaLine {
    read_copy_line(memory, at, topic.0.into())
}

/// The replica line at `at`; zeros, and so nothing durable, when it is not about `key`.
pub fn read_copy_line(memory: &impl Memory, at: u64, key: u64) -> ReplicaLine {
    memory.refresh(at, LINE_BYTES);
    let fresh = ReplicaLine { topic: key, ..ReplicaLine::default() };
    if memory.load(at + REPLICA_TOPIC) != key {
        return fresh;
    }
    // EDGE replica, acquire half. Pairs with `move_replica`.
    let durable = memory.load(at);
    let mut words = memory.load_words::<8>(at);
    // Looked at last too: the line may have begun anew between the words.
    memory.acquire_fence();
    if memory.load_relaxed(at + REPLICA_TOPIC) != key {
        return fresh;
    }
    words[0] = durable;
    words[4] = key;
    ReplicaLine::from_words(words)
}

/// What the replica line at `at` is about; all ones while it is begun anew.
pub fn replica_key(memory: &impl Memory, at: u64) -> u64 {
    memory.refresh(at, LINE_BYTES);
    memory.load(at + REPLICA_TOPIC)
}

/// Begins the replica line at `at` for another topic, or with other numbers than it had: what was
/// read again from the disk may be less than a line from before says.
pub fn start_replica(memory: &impl Memory, at: u64, line: &ReplicaLine) {
    // A reader of the line as it was must not take new numbers for its own.
    memory.store_release(at + REPLICA_TOPIC, u64::MAX);
    memory.release_fence();
    memory.publish(at, LINE_BYTES);
    store_keyed(memory, at, &line.to_words(), 4);
}

/// Moves the replica line at `at`: after the sync that covers `durable`, and the writes that cover
/// `written`.
pub fn move_replica(memory: &impl Memory, at: u64, line: &ReplicaLine) {
    memory.store(at + 8, line.written);
    memory.store(at + 16, line.bytes);
    memory.store(at + REPLICA_TAIL, line.tail);
    memory.store(at + REPLICA_STATE, u64::from(line.state) | u64::from(line.errno) << 32);
    memory.store(at + REPLICA_INCARNATION, line.incarnation);
    memory.store(at + REPLICA_ENTRIES, line.entries);
    // EDGE replica, release half. Pairs with `read_replica`.
    memory.store_release(at, line.durable);
    memory.publish(at, LINE_BYTES);
}

/// What a broker's copies have lost, by its line at `at`; nothing, when that is about another
/// topic. Asked after the replica lines were read.
pub fn read_lost(memory: &impl Memory, at: u64, topic: TopicId) -> LostLine {
    memory.refresh(at, LINE_BYTES);
    let line = LostLine::from_words(memory.load_words(at));
    match line.topic == u64::from(topic.0) {
        true => line,
        false => LostLine { topic: topic.0.into(), ..LostLine::default() },
    }
}

/// Adds a batch to what a broker's copies have lost, by its line at `at`. Before the copy's line
/// moves past it: that edge, `replica`, is what orders this line too.
pub fn note_lost(memory: &impl Memory, at: u64, topic: TopicId, (source, index): (BrokerId, u64)) {
    let line = read_lost(memory, at, topic);
    if !line.names(source, index) {
        memory.store_words(at, &line.and(source, index).to_words());
    }
    memory.publish(at, LINE_BYTES);
}

impl<M: Memory> Pool<M> {
    /// What the copies that `keeper` keeps for `topic` have lost.
    pub fn lost(&self, topic: TopicId, keeper: BrokerId) -> LostLine {
        read_lost(self, self.geometry().lost(topic.slot(), keeper), topic)
    }

    /// Says that a copy of what `source` landed will never have the batch at log index `index`.
    /// Only `keeper`, before it moves that copy's line past it.
    pub fn note_lost(&self, topic: TopicId, keeper: BrokerId, of: (BrokerId, u64)) {
        note_lost(self, self.geometry().lost(topic.slot(), keeper), topic, of);
    }

    /// How far disk replica `replica` of what `source` landed for `topic` is.
    pub fn replica(&self, topic: TopicId, source: BrokerId, replica: usize) -> ReplicaLine {
        read_replica(self, self.geometry().replica(topic.slot(), source, replica), topic)
    }

    /// Begins a replica line. Only the broker that keeps the replica.
    pub fn start_replica(
        &self,
        topic: TopicId,
        source: BrokerId,
        replica: usize,
        line: &ReplicaLine,
    ) {
        start_replica(self, self.geometry().replica(topic.slot(), source, replica), line);
    }

    /// Moves a replica line. Only the broker that keeps the replica, after the sync that covers
    /// its `durable`.
    pub fn move_replica(
        &self,
        topic: TopicId,
        source: BrokerId,
        replica: usize,
        line: &ReplicaLine,
    ) {
        move_replica(self, self.geometry().replica(topic.slot(), source, replica), line);
    }
}
