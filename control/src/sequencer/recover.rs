//! What a new sequencer is told before it goes on where another stopped.

use landfall_layout::BrokerId;
use landfall_layout::order::OrderEntry;
use landfall_layout::session::{SessionState, Standing};

use super::{Rule, TopicSequencer};

impl TopicSequencer {
    /// A session as its line says, whatever its state.
    pub fn restore_session(&mut self, index: u32, client: u64, standing: Standing, next_seq: u64) {
        if standing.state == SessionState::Free {
            return;
        }
        self.open_session(index, client, standing.epoch, next_seq);
        self.sessions.make(index).state = standing.state;
    }

    /// What a (session, broker) of order `stream` has had: everything below `next`.
    pub fn restore_stream(&mut self, index: u32, broker: BrokerId, next: u64) {
        if self.rule == Rule::Stream && self.sessions.get(index).is_some() {
            let had = &mut self.sessions.make_streams(index)[broker.index()];
            *had = (*had).max(next);
        }
    }

    /// A slot that is in the log although its ring is not consumed so far, by the low 32 bits of
    /// its absolute index. It is not offered again.
    ///
    /// Entries of slots long consumed may be named too and change nothing, as long as the log
    /// holds fewer than 2^32 entries of one broker: beyond, two slots have the same name.
    pub fn mark_ordered(&mut self, broker: BrokerId, ring_index: u32) {
        let ring = &mut self.rings[broker.index()];
        if ring.is_open() {
            ring.mark(ring_index);
        }
    }

    /// An entry that the frontier has passed. Entries are named in log order, after the rings and
    /// sessions they are about; `session` is the index of the client's line, if it has one that
    /// is not newer than the entry.
    ///
    /// A session line is written after the frontier, so the log knows at least as much. Lines
    /// that turn out to be behind are among those that [`Self::drain_touched`] names next.
    pub fn replay(&mut self, session: Option<u32>, entry: &OrderEntry) {
        self.frontier.landed_ns = self.frontier.landed_ns.max(entry.landed_ns);
        if entry.is_hole() {
            return;
        }
        let Some(broker) = BrokerId::new(entry.broker.into()) else { return };
        self.mark_ordered(broker, entry.ring_index);
        let Some(index) = session else { return };
        let Some((known, touched)) = self.sessions.enter(index) else { return };
        if known.client != entry.client {
            return;
        }
        let after = entry.batch_seq.saturating_add(1);
        if matches!(self.rule, Rule::Stream | Rule::Strong) && after > known.next_seq {
            // The line is behind; were it left so, retention could take what makes up for it.
            known.advance(index, after, touched);
        }
        self.restore_stream(index, broker, after);
    }
}
