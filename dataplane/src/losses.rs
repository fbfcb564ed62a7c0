//! Which batches replicas say they have not got and never will.

use landfall_layout::limits::BROKERS_MAX;
use landfall_layout::order::OrderEntry;
use landfall_layout::replica::LOST_NAMED;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::log::{Found, LogReader};

use crate::env::Env;
use crate::replica::check_batch;
use crate::topics::Topic;

/// What the copies of a topic have lost, as far as this broker has looked.
#[derive(Clone, Copy)]
pub struct Losses {
    /// How many each broker's copies had lost when that was last looked at.
    counts: [u64; BROKERS_MAX],
    /// Below this log index some were lost whose names were gone before they were looked at.
    unsure_below: u64,
}

impl Losses {
    /// Begins with what is lost by now: none of it is waited for.
    pub fn begin(env: &Env, topic: TopicId) -> Self {
        let mut counts = [0; BROKERS_MAX];
        for keeper in BrokerId::all() {
            counts[keeper.index()] = env.pool.lost(topic, keeper).count;
        }
        Self { counts, unsure_below: 0 }
    }
}

/// A look at what is lost.
pub struct Lost {
    /// Log indexes of this broker's batches; no room is needed while nothing is lost.
    named: Vec<u64>,
    unsure_below: u64,
}

impl Lost {
    /// What is lost of what this broker landed. After the replicas' lines were read: any broker may
    /// keep one.
    pub fn of(env: &Env, topic: &mut Topic) -> Self {
        let mut named = Vec::new();
        for keeper in BrokerId::all() {
            let line = env.pool.lost(topic.id, keeper);
            if line.count == 0 {
                continue;
            }
            named.extend(line.named().filter(|(source, _)| *source == env.me).map(|of| of.1));
            let before = std::mem::replace(&mut topic.losses.counts[keeper.index()], line.count);
            if line.count.saturating_sub(before) > LOST_NAMED as u64 {
                let entries = env.pool.frontier(topic.id, topic.log()).entries;
                topic.losses.unsure_below = entries;
            }
        }
        Self { named, unsure_below: topic.losses.unsure_below }
    }

    /// Whether a copy has lost the batch at `index`. Where more were lost at once than the lines
    /// name, it is lost if it does not hold in memory, which is what the copies met.
    #[inline]
    pub fn has(&self, env: &Env, topic: &Topic, index: u64) -> bool {
        self.named.contains(&index) || (index < self.unsure_below && !holds(env, topic, index))
    }
}

#[cold]
fn holds(env: &Env, topic: &Topic, index: u64) -> bool {
    match LogReader::new(topic.id, topic.log()).entry(&env.pool, index) {
        Found::Entry(entry) => check_batch(&env.pool, topic.id, &entry).is_ok(),
        Found::Lapped { .. } | Found::Gone => false,
    }
}

/// The client's batches that any copy has lost, of those that are named and whose entries are still
/// in the sequenced log.
#[cold]
pub fn lost_of(env: &Env, topic: TopicId, log: usize, client: u64) -> Vec<OrderEntry> {
    let mut lost: Vec<OrderEntry> = Vec::new();
    let mut reader = LogReader::new(topic, log);
    for (_, index) in BrokerId::all().flat_map(|keeper| env.pool.lost(topic, keeper).named()) {
        if index >= env.pool.frontier(topic, log).entries {
            continue;
        }
        let Found::Entry(entry) = reader.entry(&env.pool, index) else { continue };
        let is_known = lost.iter().any(|known| known.commit == entry.commit);
        if entry.client == client && !is_known {
            lost.push(entry);
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use landfall_layout::topic::Order;

    use super::*;
    use crate::replica::rig::Source;

    #[test]
    fn what_a_replica_has_lost_is_known_by_name_or_by_looking() {
        let mut source = Source::new(crate::rig::pool(), 0);
        for i in 0..10 {
            let entry = source.place(&[7; 100], i != 4);
            source.append(&entry);
        }
        source.publish();
        let entry = source.pool.topic(source.topic).expect("it was written");
        let me = BrokerId::new(0).expect("0 is below the bound");
        let env = Env::new(source.pool, me, 1).expect("the pool's own file opens again");
        let mut topic = Topic::new(&env, &entry, Order::None);
        let mut lost = || {
            let lost = Lost::of(&env, &mut topic);
            (0..10).filter(|index| lost.has(&env, &topic, *index)).collect::<Vec<_>>()
        };
        assert_eq!(lost(), [0_u64; 0]);
        env.pool.note_lost(source.topic, me, (me, 7));
        assert_eq!(lost(), [7], "whatever memory has by now");
        // More at once than are named, the first of them in this log.
        for index in [4].into_iter().chain(100..107) {
            env.pool.note_lost(source.topic, me, (me, index));
        }
        assert_eq!(lost(), [4]);
        assert!(
            lost_of(&env, source.topic, 0, 9).is_empty(),
            "none of those that are named is there"
        );
        env.pool.note_lost(source.topic, me, (me, 2));
        let named: Vec<u64> =
            lost_of(&env, source.topic, 0, 9).iter().map(|entry| entry.batch_seq).collect();
        assert_eq!(named, [2]);
        assert!(lost_of(&env, source.topic, 0, 10).is_empty(), "another client's");
    }
}
