//! A publisher whose session is over: it is told once, and what it can write to is closed. Whoever
//! finds that a session is over comes here.

use landfall_layout::counters::Counter;
use landfall_layout::frame::Frame;

use crate::broker::Broker;
use crate::conn::Kind;
use crate::conns::Over;

impl Broker {
    /// Fences a publisher, once. A connection that is not there any more has nothing open.
    #[cold]
    pub(crate) fn fence(&mut self, over: Over) {
        let Over { owner, epoch, next_seq } = over;
        let Some(conn) = self.conns.by_token(owner) else { return };
        let Kind::Publisher(publisher) = &mut conn.kind else { return };
        if std::mem::replace(&mut publisher.fenced, true) {
            return;
        }
        conn.tell(Frame::Fenced { session_epoch: epoch, next_seq });
        self.env.count(Counter::Fenced, 1);
        self.conns.touch(owner.slot());
        self.shut_out(owner.slot());
    }

    /// Fences those whose batches the sequencer dropped.
    #[inline]
    pub(crate) fn fence_dropped(&mut self) {
        while let Some(over) = self.conns.over.pop() {
            self.fence(over);
        }
    }
}
