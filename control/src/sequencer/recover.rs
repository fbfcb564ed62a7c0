//! What a new sequencer is told before it goes on where another stopped.

use landfall_layout::BrokerId;
use landfall_layout::order::OrderEntry;
use landfall_layout::session::SessionState;

use super::window::Known;
use super::{Rule, SessionView, TopicSequencer};

impl TopicSequencer {
    /// A session as its line says, whatever its state.
    pub fn restore_session(&mut self, line: &SessionView) {
        let SessionView { index, client, standing, next_seq, floor, known_from, .. } = *line;
        if standing.state == SessionState::Free {
            return;
        }
        self.open_session(index, client, standing.epoch, next_seq);
        if self.rule == Rule::Stream {
            let (session, window) = self.sessions.make_window(index);
            window.begin(session, next_seq, floor, known_from);
        }
        self.sessions.make(index).state = standing.state;
    }

    /// A sequence of a session of order `stream` that is in the log, though its entry is not in
    /// the pool.
    pub fn restore_ordered(&mut self, index: u32, seq: u64) {
        if let Some((session, window, touched)) = self.sessions.enter_window(index)
            && window.take(session, seq) == Known::New
        {
            session.touch(index, touched);
        }
    }

    /// After everything was replayed: if fewer sequences are known to be in the log than the
    /// session's line counted, retention took entries of some, and which these are nobody knows.
    pub fn forget_uncounted(&mut self, line: &SessionView) {
        if let Some((session, window, touched)) = self.sessions.enter_window(line.index)
            && window.count(session, line.floor) < line.had.into()
        {
            window.forget(session);
            session.touch(line.index, touched);
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
        // A line that is behind and left so would be no help once retention took the entries.
        match self.rule {
            Rule::Strong if after > known.next_seq => known.advance(index, after, touched),
            Rule::Stream => self.restore_ordered(index, entry.batch_seq),
            _ => {}
        }
    }
}
