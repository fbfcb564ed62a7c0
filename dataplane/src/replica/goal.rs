//! What the copies are to have before their broker ends.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use landfall_layout::TopicId;
use landfall_layout::replica::ReplicaState;

use super::one::Replica;
use super::thread::Worker;

/// Log index that copies are to reach, by topic and log.
pub type Goals = BTreeMap<(TopicId, usize), u64>;

/// How far the copies are from what they are to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Copies that do not have it yet. One that has failed never will, and is none of them.
    pub behind: usize,
    /// Of these, such as a full disk holds up.
    pub full: usize,
    /// A number that changes whenever one of them gets on.
    pub moved: u64,
}

impl Worker {
    /// Where the broker leaves, syncs at once what is written, and says how far the copies are. A
    /// copy that is begun later is to have what its log has by then.
    pub(super) fn pursue(&mut self, now: u64) {
        if !self.shared.aims.load(Ordering::Acquire) {
            return;
        }
        if self.goals.is_none() {
            // The first batch of a source may have landed a moment ago.
            self.look_at_table(now);
        }
        self.begin_syncs(Replica::is_unsynced);
        let progress = self.progress();
        *self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    fn progress(&mut self) -> Progress {
        let Self { goals, replicas, broken, pool, .. } = self;
        let goals = goals.get_or_insert_default();
        let shut = broken.iter().filter(|broken| broken.retry_at_ns.is_some()).count();
        let mut progress = Progress { behind: shut, full: shut, moved: 0 };
        for replica in replicas.iter().filter(|one| one.state() != ReplicaState::Failed) {
            let (topic, log) = (replica.topic, replica.log());
            let goal =
                goals.entry((topic, log)).or_insert_with(|| pool.frontier(topic, log).entries);
            let line = replica.line();
            if line.durable < *goal {
                progress.moved = progress.moved.wrapping_add(line.written + line.durable);
                progress.behind += 1;
                progress.full += usize::from(replica.state() == ReplicaState::Full);
            }
        }
        progress
    }
}
