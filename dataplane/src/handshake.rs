//! From the first byte of a connection to `Welcome` or `Refused`.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use landfall_layout::TopicId;
use landfall_layout::command::{Denial, Request};
use landfall_layout::counters::Counter;
use landfall_layout::frame::{
    Ack, Carrier, FRAME_BYTES, Frame, FrameError, Hello, Refusal, Role, TAIL_BYTES_MAX, Welcome,
};
use landfall_layout::limits::{IN_FLIGHT_BATCHES_MAX, TOPICS_MAX};
use landfall_layout::topic::{Order, TopicEntry, TopicState, check_name};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::broker::Broker;
use crate::conn::{Channel, Conn, Kind, Publisher, Reader, Socket, Via};
use crate::conns::Token;
use crate::deliver_tcp::Delivering;
use crate::env::{Env, now_ns};
use crate::land::Session;
use crate::publish_memory::Extents;
use crate::publish_tcp::Reading;
use crate::topics::Topic;

/// A handshake ends within this time.
pub const HANDSHAKE_NS: u64 = 5_000_000_000;

/// A connection that is not a publisher or subscriber yet.
pub struct Greeting {
    bytes: [u8; FRAME_BYTES + TAIL_BYTES_MAX],
    have: usize,
    pub deadline_ns: u64,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Its `Hello` is not whole.
    Reading,
    /// The topic's ring at this broker is being made.
    Ring { hello: Hello, topic: TopicId },
    /// Its session is being opened.
    Session { hello: Hello, topic: TopicId },
}

/// What a refused client is told.
pub struct Refused {
    pub why: Refusal,
    pub sentence: String,
}

fn refused<T>(why: Refusal, sentence: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { why, sentence: sentence.into() })
}

/// Whether the `Hello` is whole, and what it says.
enum Heard {
    More,
    Ended,
    Whole(Hello, String),
}

impl Greeting {
    pub fn new() -> Self {
        Self {
            bytes: [0; FRAME_BYTES + TAIL_BYTES_MAX],
            have: 0,
            deadline_ns: now_ns() + HANDSHAKE_NS,
            stage: Stage::Reading,
        }
    }

    pub fn topic(&self) -> Option<TopicId> {
        match self.stage {
            Stage::Reading => None,
            Stage::Ring { topic, .. } | Stage::Session { topic, .. } => Some(topic),
        }
    }

    /// Whether it waits for control, so that nothing is read from it.
    pub fn is_asking(&self) -> bool {
        !matches!(self.stage, Stage::Reading)
    }

    /// What a client is told whose handshake took too long.
    pub fn overdue(&self) -> Refused {
        let seconds = HANDSHAKE_NS / 1_000_000_000;
        let (why, sentence) = match self.stage {
            Stage::Reading => (
                Refusal::Malformed,
                format!("no whole Hello came within {seconds} s: {} bytes did", self.have),
            ),
            Stage::Ring { .. } => (
                Refusal::NoControl,
                format!("control gave this broker no ring for the topic within {seconds} s"),
            ),
            Stage::Session { .. } => {
                (Refusal::NoControl, format!("control did not open the session within {seconds} s"))
            }
        };
        Refused { why, sentence }
    }

    /// Reads exactly the frame and its tail: what is behind them belongs to the next stage.
    fn hear(&mut self, socket: &mut Socket) -> Result<Heard, Refused> {
        loop {
            let need = match self.have {
                0..FRAME_BYTES => FRAME_BYTES,
                _ => FRAME_BYTES + self.tail_bytes()?,
            };
            if self.have == need {
                return self.understand();
            }
            match socket.recv(&mut self.bytes[self.have..need]) {
                Ok(0) => return Ok(Heard::Ended),
                Ok(got) => self.have += got,
                Err(error) => match error.kind() {
                    std::io::ErrorKind::WouldBlock => return Ok(Heard::More),
                    std::io::ErrorKind::Interrupted => {}
                    _ => return Ok(Heard::Ended),
                },
            }
        }
    }

    fn decode(&self) -> Result<(Frame, usize), Refused> {
        let mut head = [0; FRAME_BYTES];
        head.copy_from_slice(&self.bytes[..FRAME_BYTES]);
        Frame::decode(head).or_else(|error| {
            let why = match error {
                FrameError::Version { .. } => Refusal::Version,
                _ => Refusal::Malformed,
            };
            refused(why, error.to_string())
        })
    }

    fn tail_bytes(&self) -> Result<usize, Refused> {
        self.decode().map(|(_, tail)| tail)
    }

    fn understand(&self) -> Result<Heard, Refused> {
        let (frame, tail) = self.decode()?;
        let Frame::Hello(hello) = frame else {
            return refused(
                Refusal::Malformed,
                format!("a connection begins with Hello; found {frame:?}"),
            );
        };
        match std::str::from_utf8(&self.bytes[FRAME_BYTES..FRAME_BYTES + tail]) {
            Ok(name) => Ok(Heard::Whole(hello, name.to_owned())),
            Err(error) => refused(Refusal::Malformed, format!("the topic's name: {error}")),
        }
    }
}

/// The entry of the topic a client names, and its order.
fn find_topic(env: &Env, name: &str) -> Result<(TopicEntry, Order), Refused> {
    if let Err(error) = check_name(name) {
        return refused(Refusal::NoTopic, error.to_string());
    }
    let entries = || (0..TOPICS_MAX).filter_map(|slot| env.pool.topic_in_slot(slot));
    let Some(entry) =
        entries().find(|entry| entry.state() != TopicState::Absent && entry.name() == name)
    else {
        let near = entries()
            .filter(|entry| entry.state() == TopicState::Live)
            .map(|entry| (distance(name, entry.name()), entry.name().to_owned()))
            .filter(|(distance, near)| *distance <= 2.max(near.len() / 3))
            .min();
        let hint = near.map_or_else(String::new, |(_, near)| format!("; did you mean {near:?}?"));
        return refused(Refusal::NoTopic, format!("there is no topic {name:?}{hint}"));
    };
    if entry.state() != TopicState::Live {
        return refused(Refusal::TopicGone, format!("topic {name:?} is being deleted"));
    }
    match entry.order() {
        Some(Order::Token) | None => refused(
            Refusal::NotServed,
            format!("topic {name:?} has order {}, which this broker cannot serve", entry.order),
        ),
        Some(order) => Ok((entry, order)),
    }
}

/// Edit distance, for names that were mistyped.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.bytes().enumerate() {
            let swap = corner + usize::from(a != b);
            corner = row[j + 1];
            row[j + 1] = swap.min(row[j] + 1).min(corner + 1);
        }
    }
    row[right.len()]
}

/// A publisher's wishes that no topic can meet.
fn check_publisher(hello: &Hello, entry: &TopicEntry) -> Result<(), Refused> {
    if hello.client == 0 {
        return refused(Refusal::Malformed, "client id 0 names nobody; choose another");
    }
    if hello.ack == Ack::Durable {
        return refused(
            Refusal::BadAck,
            format!(
                "ack durable needs a disk replica; this topic keeps {} {}",
                entry.replicas.max(1),
                if entry.replicas > 1 { "copies, and this broker has no disk" } else { "copy" }
            ),
        );
    }
    Ok(())
}

/// Whether a connection may use the pool itself.
fn check_memory(env: &Env, socket: &Socket) -> Result<(), Refused> {
    let Socket::Unix(stream) = socket else {
        return refused(
            Refusal::NotServed,
            "the memory transport needs the broker's Unix socket; over TCP use transport tcp",
        );
    };
    let peer = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)
        .map_err(|error| Refused {
            why: Refusal::NotServed,
            sentence: format!("ask for the peer's user: {error}"),
        })?;
    if peer.uid() != env.uid && peer.uid() != 0 {
        return refused(
            Refusal::NotServed,
            format!("this socket serves user {} and root; you are user {}", env.uid, peer.uid()),
        );
    }
    Ok(())
}

impl Broker {
    /// Something came from a connection that has not begun.
    #[cold]
    pub(crate) fn greet(&mut self, slot: usize) {
        let Self { env, conns, .. } = self;
        let Some(conn) = conns.get(slot) else { return };
        let Kind::Greeting(greeting) = &mut conn.kind else { return };
        if greeting.is_asking() {
            return;
        }
        let heard = greeting.hear(&mut conn.socket);
        let begun = match heard {
            Ok(Heard::More) => return,
            Ok(Heard::Ended) => return self.drop_conn(slot),
            Err(refused) => Err(refused),
            Ok(Heard::Whole(hello, name)) => {
                let allowed = match &conn.socket {
                    // The Unix socket is for peers of this user, whatever they want.
                    Socket::Unix(_) => check_memory(env, &conn.socket),
                    Socket::Tcp(_) if hello.carrier == Carrier::Memory => {
                        check_memory(env, &conn.socket)
                    }
                    Socket::Tcp(_) => Ok(()),
                };
                allowed
                    .and_then(|()| find_topic(env, &name))
                    .and_then(|(entry, order)| self.begin(slot, hello, &entry, order))
            }
        };
        if let Err(Refused { why, sentence }) = begun {
            self.refuse(slot, why, &sentence);
        }
    }

    fn begin(
        &mut self,
        slot: usize,
        hello: Hello,
        entry: &TopicEntry,
        order: Order,
    ) -> Result<(), Refused> {
        if self.leaving {
            return refused(Refusal::NotServed, "this broker is leaving; use another one");
        }
        match hello.role {
            Role::Subscribe => self.begin_subscriber(slot, hello, entry, order),
            Role::Publish => {
                check_publisher(&hello, entry)?;
                self.begin_publisher(slot, hello, entry, order)
            }
        }
    }

    fn begin_publisher(
        &mut self,
        slot: usize,
        hello: Hello,
        entry: &TopicEntry,
        order: Order,
    ) -> Result<(), Refused> {
        let id = TopicId(entry.id);
        let Self { env, topics, link, conns, live_topics, .. } = self;
        let place = &mut topics[id.slot()];
        if place.as_ref().is_some_and(|known| known.id != id) {
            return refused(
                Refusal::TopicGone,
                "the topic before this one is still being deleted; try again",
            );
        }
        if place.is_none() {
            live_topics.push(id.slot());
        }
        let topic = place.get_or_insert_with(|| Box::new(Topic::new(env, entry, order)));
        topic.idle_since_ns = now_ns();
        let ready = topic.try_ring(env);
        if !ready {
            link.ask(env, Request::OpenRing { topic: id });
        }
        // Asked for now, so that it is here when the first batch is.
        topic.publishers += 1;
        topic.replenish(env, link);
        topic.publishers -= 1;
        let Some(conn) = conns.get(slot) else { return Ok(()) };
        conn.was_topic = Some(id);
        if let Kind::Greeting(greeting) = &mut conn.kind {
            greeting.stage = Stage::Ring { hello, topic: id };
        }
        self.want_read(slot, false);
        if ready {
            self.ask_session(slot);
        }
        Ok(())
    }

    /// The ring of a topic is there: everyone who waited for it goes on.
    pub(crate) fn topic_ready(&mut self, topic: TopicId) {
        for slot in self.conns.slots() {
            let waits = self.conns.get(slot).is_some_and(|conn| match &conn.kind {
                Kind::Greeting(greeting) => {
                    matches!(greeting.stage, Stage::Ring { topic: other, .. } if other == topic)
                }
                _ => false,
            });
            if waits {
                self.ask_session(slot);
            }
        }
    }

    fn ask_session(&mut self, slot: usize) {
        let Self { env, link, conns, opening, .. } = self;
        let Some(conn) = conns.get(slot) else { return };
        let token = conn.token;
        let Kind::Greeting(greeting) = &mut conn.kind else { return };
        let Stage::Ring { hello, topic } = greeting.stage else { return };
        greeting.stage = Stage::Session { hello, topic };
        let request = link.number();
        opening.insert(request, token);
        let (client, epoch) = (hello.client, hello.session_epoch);
        link.ask(env, Request::OpenSession { request, topic, client, epoch });
    }

    /// The connection that an answer is for, if it is still there.
    fn asked(&mut self, request: u64) -> Option<(usize, Hello, TopicId)> {
        let number = request;
        self.link.answered(
            |open| matches!(open, Request::OpenSession { request, .. } if *request == number),
        );
        let token: Token = self.opening.remove(&request)?;
        let conn = self.conns.by_token(token)?;
        let Kind::Greeting(greeting) = &conn.kind else { return None };
        match greeting.stage {
            Stage::Session { hello, topic } => Some((token.slot(), hello, topic)),
            Stage::Reading | Stage::Ring { .. } => None,
        }
    }

    pub(crate) fn session_open(&mut self, request: u64, index: u32, epoch: u32, next_seq: u64) {
        let Some((slot, hello, id)) = self.asked(request) else { return };
        let session = Session { client: hello.client, epoch, index, last_seq: None };
        let Self { env, topics, link, conns, .. } = self;
        let Some(topic) = topics[id.slot()].as_deref_mut().filter(|topic| topic.id == id) else {
            return self.refuse(slot, Refusal::TopicGone, "the topic was deleted");
        };
        let Some(conn) = conns.get(slot) else { return };
        let welcome = Frame::Welcome(Welcome {
            topic: id,
            order: topic.order.raw(),
            broker: env.me.raw(),
            in_flight_max: IN_FLIGHT_BATCHES_MAX,
            session_epoch: epoch,
            session_index: index,
            batch_bytes_max: env.pool.geometry().batch_bytes_max(),
            next_seq,
            start: 0,
            end: 0,
        });
        let via = match hello.carrier {
            Carrier::Stream => Via::Stream(Reading::new()),
            Carrier::Memory => Via::Memory(Extents::new()),
        };
        if let Err(sentence) = welcome_to(env, conn, hello.carrier, true, welcome) {
            return self.refuse(slot, Refusal::NotServed, &sentence);
        }
        let is_memory = matches!(via, Via::Memory(_));
        conn.out.reserve();
        conn.kind = Kind::Publisher(Publisher {
            topic: id,
            session,
            ack: hello.ack,
            in_flight: 0,
            fenced: false,
            bye: false,
            stalled: None,
            via,
        });
        topic.publishers += 1;
        topic.replenish(env, link);
        env.count(Counter::Publishers, 1);
        if is_memory {
            conns.channels.push(slot);
        }
        conns.touch(slot);
        self.want_read(slot, true);
    }

    pub(crate) fn session_denied(&mut self, request: u64, why: Denial, epoch: u32, next_seq: u64) {
        let Some((slot, hello, _)) = self.asked(request) else { return };
        let wanted = hello.session_epoch;
        let (refusal, sentence) = match why {
            Denial::Fenced => {
                self.env.count(Counter::Fenced, 1);
                let Some(conn) = self.conns.get(slot) else { return };
                conn.tell(Frame::Fenced { session_epoch: wanted, next_seq });
                return self.begin_closing(slot);
            }
            Denial::NoTopic => (Refusal::TopicGone, "the topic was deleted".to_owned()),
            Denial::SessionsFull => (
                Refusal::SessionsFull,
                format!(
                    "all {} session lines of the pool are in use; close publishers, or make the \
                     pool with more",
                    self.env.pool.geometry().sessions()
                ),
            ),
            Denial::NoSession => (
                Refusal::Malformed,
                format!(
                    "client {:#x} never had session epoch {wanted} (it is at {epoch}); say 0 to \
                     open the next",
                    hello.client
                ),
            ),
            Denial::PoolFull => (Refusal::NoControl, "the pool is full".to_owned()),
        };
        self.refuse(slot, refusal, &sentence);
    }

    fn begin_subscriber(
        &mut self,
        slot: usize,
        hello: Hello,
        entry: &TopicEntry,
        order: Order,
    ) -> Result<(), Refused> {
        let Self { env, conns, .. } = self;
        let topic = TopicId(entry.id);
        let Some(conn) = conns.get(slot) else { return Ok(()) };
        let sequenced = order.is_sequenced();
        let (delivering, start, end) = Delivering::new(env, topic, sequenced, hello.from);
        let welcome = Frame::Welcome(Welcome {
            topic,
            order: order.raw(),
            broker: env.me.raw(),
            in_flight_max: IN_FLIGHT_BATCHES_MAX,
            session_epoch: 0,
            session_index: 0,
            batch_bytes_max: env.pool.geometry().batch_bytes_max(),
            next_seq: 0,
            start,
            end,
        });
        conn.was_topic = Some(topic);
        if let Err(sentence) = welcome_to(env, conn, hello.carrier, false, welcome) {
            return refused(Refusal::NotServed, sentence);
        }
        env.count(Counter::Subscribers, 1);
        match hello.carrier {
            Carrier::Stream => {
                conn.kind = Kind::Stream(Box::new(delivering));
                conns.deliveries.push(slot);
            }
            Carrier::Memory => {
                conn.kind = Kind::Reader(Reader { topic, sequenced, rung_at: 0 });
                conns.readers.push(slot);
            }
        }
        conns.touch(slot);
        Ok(())
    }
}

/// Says `Welcome`; to a memory client with the pool and a new channel.
fn welcome_to(
    env: &Env,
    conn: &mut Conn,
    carrier: Carrier,
    writes: bool,
    welcome: Frame,
) -> Result<(), String> {
    if carrier == Carrier::Stream {
        conn.tell(welcome);
        return Ok(());
    }
    let (mapping, client_end): (_, OwnedFd) =
        landfall_pool::channel::create().map_err(|error| format!("make a channel: {error}"))?;
    let pool = if writes { env.pool.fd().as_raw_fd() } else { env.read_only.as_raw_fd() };
    let fds = [pool, client_end.as_raw_fd()];
    let Socket::Unix(stream) = &conn.socket else {
        return Err("descriptors travel only over Unix sockets".to_owned());
    };
    let bytes = welcome.encode(0);
    let sent = sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )
    .map_err(|error| format!("hand out the pool and a channel: {error}"))?;
    if sent != bytes.len() {
        return Err(format!("only {sent} of {} bytes of Welcome went out", bytes.len()));
    }
    conn.channel = Some(Channel::new(mapping));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_edits() {
        assert_eq!(distance("orders", "orders"), 0);
        assert_eq!(distance("order", "orders"), 1);
        assert_eq!(distance("odrers", "orders"), 2);
        assert_eq!(distance("", "abc"), 3);
    }
}
