//! Sessions begin, are fenced and end.

use landfall_layout::session::SessionState;

use super::hold::Holds;
use super::{Rule, SessionView, TopicSequencer};

/// A session that was fenced. Its line is to say so once the frontier covers every entry that was
/// emitted before, and before any consumed index moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fencing {
    /// The session as it stands now.
    pub session: SessionView,
    /// Batches that were held of it and are dropped.
    pub dropped: u32,
    /// Why.
    pub cause: Cause,
}

/// Why a session was fenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// What it waited for, or positions that it had reserved, did not come within the lease.
    Late,
    /// It wrote positions that were not its own, or a sequence that is forgotten.
    Trespass,
    /// A batch of it came before the one that it follows was ordered.
    Turn,
    /// A batch of it was changed after it had landed.
    Rewritten,
    /// Its publisher is done with it.
    Closed,
}

impl TopicSequencer {
    /// Opens a session under a line's index, or its next epoch; what is held of an epoch before
    /// is dropped, and what still comes of it is fenced.
    ///
    /// A client that has the line already goes on where it was, or, but for order `stream`, at
    /// `next_seq` if that is later; another one begins there. The epoch that is active already is
    /// joined, and nothing changes.
    pub fn open_session(&mut self, index: u32, client: u64, epoch: u32, next_seq: u64) {
        let known = *self.sessions.make(index);
        if known.takes(client, epoch) {
            return;
        }
        self.drop_held(index);
        let goes_on = known.client == client && known.state != SessionState::Free;
        let session = self.sessions.make(index);
        session.client = client;
        session.epoch = epoch;
        session.state = SessionState::Active;
        if self.rule == Rule::Stream {
            let (session, window) = self.sessions.make_window(index);
            if !goes_on {
                window.begin(session, next_seq, next_seq, 0);
            }
        } else {
            session.next_seq = if goes_on { known.next_seq.max(next_seq) } else { next_seq };
        }
    }

    /// Fences a session's epoch: what is held of it is dropped, and nothing more of it is ever
    /// ordered. `None` if it is not active.
    pub fn fence_session(&mut self, index: u32, cause: Cause) -> Option<Fencing> {
        self.end_epoch(index, SessionState::Fenced, cause)
    }

    /// Ends a session that its publisher is done with; its sequences are remembered for as long
    /// as its line is. `None` if it is not active.
    pub fn close_session(&mut self, index: u32) -> Option<Fencing> {
        self.end_epoch(index, SessionState::Closed, Cause::Closed)
    }

    /// Forgets a session, because its line goes to another client or topic.
    pub fn forget_session(&mut self, index: u32) {
        self.drop_held(index);
        if let Some(session) = self.sessions.get_mut(index) {
            session.state = SessionState::Free;
        }
    }

    fn end_epoch(&mut self, index: u32, state: SessionState, cause: Cause) -> Option<Fencing> {
        self.sessions.get(index).filter(|session| session.state == SessionState::Active)?;
        let dropped = self.drop_held(index);
        let session = self.sessions.get_mut(index)?;
        session.state = state;
        let session = self.sessions.view(index)?;
        Some(Fencing { session, dropped, cause })
    }

    /// Drops what is held of a session: those slots are done with. Positions that it reserved
    /// become holes.
    fn drop_held(&mut self, index: u32) -> u32 {
        self.reservations.end(index);
        let mut dropped = 0;
        let Some(session) = self.sessions.get_mut(index) else { return 0 };
        while let Some(place) = self.holds.take_any(&mut session.first_held) {
            self.rings[Holds::broker_of(place)].resolve(self.holds.get(place).index);
            dropped += 1;
        }
        dropped
    }
}
