//! Sessions that brokers want to be fenced.

use landfall_layout::limits::RING_SLOTS_MAX;

use super::burst::SLOTS_PER_RING;
use crate::sequencer::{Cause, Fencing, TopicSequencer};

/// Bursts that had room for all that they found, after which every slot was looked at that was
/// committed before.
const BURSTS: u32 = RING_SLOTS_MAX / SLOTS_PER_RING as u32 + 1;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Over {
    /// Its line.
    index: u32,
    epoch: u32,
    /// The batch that did not come; none where one of it was rewritten.
    late: Option<u64>,
    /// What it waits for may lie in a ring for so many bursts yet.
    bursts: u32,
}

impl Over {
    /// A session's epoch, and the batch that it waits for if that is why.
    pub fn new(index: u32, epoch: u32, late: Option<u64>) -> Self {
        Self { index, epoch, late, bursts: if late.is_some() { BURSTS } else { 0 } }
    }

    /// Notes it, once: a broker asks again each lease, also where the log has no room and nothing
    /// can be known meanwhile.
    pub fn note(self, all: &mut Vec<Self>) {
        let what = |over: &Self| (over.index, over.epoch, over.late);
        if !all.iter().any(|over| what(over) == what(&self)) {
            all.push(self);
        }
    }

    /// A burst is over, which had room for all that it found or not, or found nothing. Whether it
    /// is known now whether the batch that is waited for was there.
    pub fn is_known(&mut self, was_empty: bool, was_starved: bool) -> bool {
        if was_empty {
            self.bursts = 0;
        } else if !was_starved {
            self.bursts = self.bursts.saturating_sub(1);
        }
        self.bursts == 0
    }

    /// Fences it, if it waits for that batch still, or has not begun another epoch.
    pub fn fence(&self, sequencer: &mut TopicSequencer) -> Option<Fencing> {
        let session = sequencer.session(self.index)?;
        let waits = self.late.is_none_or(|seq| session.next_seq == seq);
        let cause = if self.late.is_some() { Cause::Late } else { Cause::Rewritten };
        let is_it = session.standing.epoch == self.epoch && waits;
        is_it.then(|| sequencer.fence_session(self.index, cause)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use landfall_layout::BrokerId;
    use landfall_layout::slot::RingSlot;
    use landfall_layout::topic::Order;

    use super::*;
    use crate::sequencer::Frontier;

    #[test]
    fn late_is_known_when_all_slots_of_before_were_looked_at() {
        let mut late = Over::new(1, 1, Some(7));
        assert!(!late.is_known(false, true) && !late.is_known(false, false));
        assert!(late.is_known(true, false), "nothing is in the rings");
        let mut busy = Over::new(1, 1, Some(7));
        let bursts = (1..).find(|_| busy.is_known(false, false)).unwrap();
        assert_eq!(bursts, BURSTS);
        let mut starved = Over::new(1, 1, Some(7));
        assert!((0..9 * BURSTS).all(|_| !starved.is_known(false, true)));
        assert!(Over::new(1, 1, None).is_known(false, true), "a rewritten one waits for nothing");
    }

    #[test]
    fn who_asks_again_is_noted_once() {
        let mut all = Vec::new();
        for late in [Some(7), Some(7), None, Some(8), Some(7), None] {
            Over::new(1, 1, late).note(&mut all);
        }
        Over::new(2, 1, Some(7)).note(&mut all);
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn a_session_that_moved_or_begun_anew_is_not_late() {
        let mut sequencer =
            TopicSequencer::new(Order::Strong, 1, Frontier::default()).expect("it has an order");
        let broker = BrokerId::new(0).expect("there is a broker 0");
        sequencer.open_ring(broker, 16, 0).expect("16 slots are a ring");
        sequencer.open_session(1, 9, 1, 0);
        let slot =
            RingSlot { client: 9, session_epoch: 1, session: 1, count: 1, ..RingSlot::default() };
        sequencer.offer(broker, &slot, |_| {});
        assert_eq!(Over::new(1, 1, Some(0)).fence(&mut sequencer), None, "batch 0 came");
        assert_eq!(Over::new(1, 2, Some(1)).fence(&mut sequencer), None, "another epoch");
        assert_eq!(Over::new(5, 1, Some(1)).fence(&mut sequencer), None, "nobody");
        let fenced = Over::new(1, 1, Some(1)).fence(&mut sequencer).expect("it waits for batch 1");
        assert_eq!(fenced.cause, Cause::Late);
        assert_eq!(Over::new(1, 1, None).fence(&mut sequencer), None, "once");
    }
}
