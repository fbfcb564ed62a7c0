//! Connections go: refused, after goodbye, or because the other side is gone.

use landfall_layout::counters::Counter;
use landfall_layout::frame::{Frame, Refusal};
use landfall_layout::limits::STREAM_BEAT_NS;
use landfall_pool::clock::boot_ns;

use crate::broker::Broker;
use crate::catch_up::CatchUp;
use crate::conn::{Conn, Kind, Publisher, Socket, Via};
use crate::hello::Refused;
use crate::publish_tcp::Reading;

/// A connection that is told to go has this long to close by itself, if it cannot write the pool.
const CLOSING_NS: u64 = 1_000_000_000;

impl Broker {
    /// Refuses a connection and lets it go.
    #[cold]
    pub(crate) fn refuse(&mut self, slot: usize, why: Refusal, sentence: &str) {
        let Self { env, conns, .. } = self;
        let Some(conn) = conns.get(slot) else { return };
        env.count(Counter::Refused, 1);
        env.client_error(&format!("refused ({why:?}): {sentence}"));
        if matches!(conn.socket, Socket::Knocking(_)) {
            self.turn_away(slot, Frame::Refused(why), sentence);
            return;
        }
        if let Kind::Stream(delivering) = &mut conn.kind {
            delivering.spill_any(env, &mut conn.out);
        }
        conn.refuse(why, sentence);
        self.begin_closing(slot);
    }

    /// A connection's last frame is queued: it has a little while to read it and close.
    #[cold]
    pub(crate) fn begin_closing(&mut self, slot: usize) {
        let deadline_ns = boot_ns() + CLOSING_NS;
        let Some(conn) = self.conns.get(slot) else { return };
        let closing = Kind::Closing { deadline_ns, publisher: None, said_all: false };
        let old = std::mem::replace(&mut conn.kind, closing);
        for list in [
            &mut self.conns.channels,
            &mut self.conns.readers,
            &mut self.conns.deliveries,
            &mut self.conns.waiting,
        ] {
            list.retain(|other| *other != slot);
        }
        if let Kind::Greeting(greeting) = &old {
            self.cancel(greeting);
        }
        if let Kind::Publisher(mut publisher) = old {
            self.leave_topic(&publisher);
            self.lose(&publisher);
            if matches!(publisher.via, Via::Stream(_)) {
                self.end_claims(&mut publisher, false);
            } else if let Some(Conn { kind: Kind::Closing { publisher: place, .. }, .. }) =
                self.conns.get(slot)
            {
                *place = Some(publisher);
                self.shut_out(slot);
            }
        }
        self.want_read(slot, true);
        self.conns.touch(slot);
    }

    /// Ends its side of a connection whose client may write the pool: nothing is over of what the
    /// client was granted before the client has ended the other side.
    #[cold]
    pub(crate) fn hang_up(&mut self, slot: usize) {
        self.begin_closing(slot);
        if let Some(Conn { socket: Socket::Unix(stream), .. }) = self.conns.get(slot) {
            // An error means that the client is gone, which the next read says.
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }

    fn leave_topic(&mut self, publisher: &Publisher) {
        let id = publisher.topic;
        if let Some(topic) = self.topics[id.slot()].as_deref_mut().filter(|topic| topic.id == id) {
            topic.publishers = topic.publishers.saturating_sub(1);
        }
    }

    /// A publisher that said goodbye writes nothing more and waits for its last receipts.
    #[cold]
    pub(crate) fn said_bye(&mut self, slot: usize) {
        let Self { env, topics, link, conns, .. } = self;
        let Some(Conn { kind: Kind::Publisher(publisher), .. }) = conns.get(slot) else { return };
        let id = publisher.topic;
        publisher.bye = true;
        match &mut publisher.via {
            Via::Stream(reading) => *reading = Reading::Over,
            Via::Memory(extents) => {
                if let Some(topic) = topics[id.slot()].as_deref_mut().filter(|topic| topic.id == id)
                {
                    extents.end(env, topic, true);
                    topic.report_sealed(env, link);
                }
            }
            // What was announced before it is pulled still; its gates are closed.
            Via::Verbs(_) => self.shut_out(slot),
        }
        self.conns.touch(slot);
    }

    /// Says goodbye back once every batch has its receipt.
    #[cold]
    pub(crate) fn finish_bye(&mut self, slot: usize) {
        let conn = self.conns.get(slot);
        let Some(Conn { kind: Kind::Publisher(publisher), .. }) = conn else { return };
        let (index, epoch) = (publisher.session.index, publisher.session.epoch);
        publisher.is_over = true;
        self.leave_session(Some(slot), index, epoch);
        if let Some(conn) = self.conns.get(slot) {
            conn.tell(Frame::Bye);
        }
        self.begin_closing(slot);
    }

    /// Forgets a connection at once. What it had claimed becomes padding.
    pub(crate) fn drop_conn(&mut self, slot: usize) {
        let Some(conn) = self.conns.remove(slot) else { return };
        if let Some(fd) = conn.socket.fd()
            && !conn.interest.detached
        {
            // Closing the descriptor would do the same; it may have been removed already.
            let _ = self.epoll.delete(fd);
        }
        let Conn { token, socket, kind, .. } = *conn;
        if let (Socket::Verbs(link), Some(verbs)) = (&socket, &mut self.verbs) {
            verbs.peers.remove(&link.queue.id());
        }
        // A queue pair ends before the claims that its client could write to.
        drop(socket);
        self.let_go_of(token);
        match kind {
            Kind::Publisher(mut publisher) => {
                self.leave_topic(&publisher);
                self.lose(&publisher);
                let polite = publisher.bye;
                self.end_claims(&mut publisher, polite);
            }
            Kind::Closing { publisher: Some(mut publisher), .. } => {
                self.end_claims(&mut publisher, false);
            }
            Kind::Greeting(greeting) => self.cancel(&greeting),
            _ => {}
        }
    }

    /// Ends handshakes and goodbyes that take too long, hears memory subscribers out, and shows
    /// clients over sockets that it is there.
    pub(crate) fn tick_conns(&mut self, now_ns: u64) {
        self.close_lost(now_ns);
        let silent = self.catch_up.as_ref().and_then(CatchUp::silent);
        for slot in self.conns.slots() {
            let Self { env, conns, .. } = self;
            let Some(conn) = conns.get(slot) else { continue };
            if now_ns.saturating_sub(conn.beat_ns) >= STREAM_BEAT_NS && conn.takes_beat() {
                conn.beat_ns = now_ns;
                conn.tell(Frame::Beat);
                conns.touch(slot);
            }
            let Some(conn) = conns.get(slot) else { continue };
            let held = matches!(conn.kind, Kind::Closing { .. }) && conn.held().is_some();
            match &mut conn.kind {
                Kind::Greeting(greeting) if greeting.deadline_ns < now_ns => {
                    let Refused { why, sentence } = greeting.overdue(silent.clone());
                    self.refuse(slot, why, &sentence);
                }
                // A publisher that may write into what it was granted, and a subscriber that still
                // holds a segment, are waited for: the kernel says when they are gone.
                Kind::Closing { publisher: Some(publisher), .. } if publisher.writes_pool() => {}
                Kind::Closing { deadline_ns, .. } if *deadline_ns < now_ns && !held => {
                    self.drop_conn(slot);
                }
                Kind::Stream(delivering) => delivering.notice_logs(env, false),
                Kind::Reader(_) => {
                    let heard = conn.channel.as_mut().and_then(|channel| channel.take());
                    if matches!(heard, Some(Ok(Frame::Bye))) {
                        self.drop_conn(slot);
                    }
                }
                _ => {}
            }
        }
    }
}
