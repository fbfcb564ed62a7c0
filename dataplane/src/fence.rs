//! A publisher whose session is over: it is told once, and what it can write to is closed. Whoever
//! finds that a session is over comes here.

use landfall_layout::command::Request;
use landfall_layout::counters::Counter;
use landfall_layout::frame::Frame;

use crate::broker::Broker;
use crate::conn::{Conn, Kind, Publisher};
use crate::conns::Over;
use crate::land::{Session, Wait};

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

    /// Asks control to fence those whose sessions have waited for a batch for longer than the
    /// topic's session lease while later ones are here: it did not come through any broker. Time
    /// in which nobody led, or this broker was stopped, is none of the lease. Asked again a lease
    /// later, as a control that ended may have had the request.
    pub(crate) fn fence_late(&mut self, now_ns: u64) {
        let Self { env, topics, conns, link, led, .. } = self;
        let led_ns = led.look(now_ns, env.pool.leader_heartbeat());
        for i in 0..conns.waiting.len() {
            let slot = conns.waiting[i];
            let Some(Conn { kind: Kind::Publisher(publisher), .. }) = conns.get(slot) else {
                continue;
            };
            let Publisher { stalled: Some(stalled), topic, session, .. } = publisher else {
                continue;
            };
            if stalled.why != Wait::Turn {
                continue;
            }
            let next_seq = session.next_seq(env, *topic);
            if stalled.next_seq != Some(next_seq) {
                (stalled.next_seq, stalled.since_ns) = (Some(next_seq), led_ns);
                stalled.told_ns = 0;
            }
            let of = topics[topic.slot()].as_deref();
            let lease_ns = of.map_or(0, |topic| topic.session_lease_ns);
            if led_ns.saturating_sub(stalled.since_ns.max(stalled.told_ns)) > lease_ns {
                stalled.told_ns = led_ns;
                let Session { client, epoch, .. } = *session;
                let late = Some(next_seq);
                link.say(env, Request::Fence { topic: *topic, client, epoch, late });
            }
        }
    }

    /// Fences those whose batches the sequencer dropped.
    #[inline]
    pub(crate) fn fence_dropped(&mut self) {
        while let Some(over) = self.conns.over.pop() {
            self.fence(over);
        }
    }
}
