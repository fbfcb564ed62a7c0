//! What is done to files beside what is landed: those that do not hold are written again.

use super::Worker;

/// How long after a step in older files the next one follows at the earliest, nanoseconds: a step
/// reads a MiB at most, all of them together 64 MiB a second.
const STEP_EVERY_NS: u64 = 16_000_000;

/// Whose turn it is to have its older files looked at, and when.
#[derive(Debug, Default)]
pub(super) struct Mending {
    turn: usize,
    at_ns: u64,
}

impl Worker {
    /// Does the next bit of what there is to do in one replica's older files, one after the other.
    /// Whether there was something.
    pub fn mend(&mut self, now: u64) -> bool {
        if now < self.mending.at_ns {
            return false;
        }
        self.mending.at_ns = now + STEP_EVERY_NS;
        let count = self.replicas.len();
        for i in (0..count).map(|i| (self.mending.turn + i) % count) {
            // No round: a batch whose memory is used again meanwhile does not hold in the copy.
            if let Some(events) = self.replicas[i].mend(&self.pool, now) {
                events.into_iter().for_each(|event| self.heard(event));
                // It stays its turn until it has nothing to do.
                self.mending.turn = i;
                return true;
            }
        }
        false
    }
}
