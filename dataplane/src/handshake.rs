//! From the first byte of a connection to `Welcome` or `Refused`.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use landfall_layout::TopicId;
use landfall_layout::command::{Denial, Request};
use landfall_layout::counters::Counter;
use landfall_layout::frame::{Carrier, Frame, From, Hello, Refusal, Role, Welcome};
use landfall_layout::limits::IN_FLIGHT_BATCHES_MAX;
use landfall_layout::pool::BrokerState;
use landfall_layout::topic::{Order, TopicEntry};
use landfall_layout::verbs::GrantMode;
use landfall_pool::clock::boot_ns;
use landfall_pool::ends::ends;
use landfall_pool::lock::lend_to_writer;
use landfall_pool::peer;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};

use crate::broker::Broker;
use crate::catch_up::{Disk, Looked};
use crate::conn::{Channel, Conn, Kind, Publisher, Reader, Socket, Via};
use crate::conns::Token;
use crate::deliver_tcp::Delivering;
use crate::env::Env;
use crate::halves::Stillness;
use crate::hello::{
    Greeting, Heard, Refused, Stage, check_memory, check_publisher, find_topic, refused,
};
use crate::land::Session;
use crate::publish_memory::Extents;
use crate::publish_tcp::Reading;
use crate::topics::Topic;
use crate::verbs::{Pulls, VerbsPublisher, Ways};

impl Broker {
    /// Something came from a connection that has not begun.
    #[cold]
    pub(crate) fn greet(&mut self, slot: usize) {
        let Self { conns, .. } = self;
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
                    Socket::Unix(_) if hello.carrier == Carrier::Verbs => {
                        refused(Refusal::NotServed, "verbs connections begin with a knock")
                    }
                    Socket::Unix(_) => check_memory(&conn.socket),
                    Socket::Tcp(_) if hello.carrier == Carrier::Memory => {
                        check_memory(&conn.socket)
                    }
                    Socket::Tcp(_) if hello.carrier == Carrier::Verbs => {
                        refused(Refusal::NotServed, "verbs connections begin with a knock")
                    }
                    Socket::Tcp(_) => Ok(()),
                    Socket::Knocking(_) | Socket::Verbs(_) => return,
                };
                allowed
                    .and_then(|()| {
                        // A topic that the leader of this moment has just made may be the one.
                        self.follow_leader(boot_ns());
                        find_topic(&self.env, &name)
                    })
                    .and_then(|(entry, order)| self.begin(slot, hello, &entry, order))
            }
        };
        if let Err(Refused { why, sentence }) = begun {
            self.refuse(slot, why, &sentence);
        }
    }

    pub(crate) fn begin(
        &mut self,
        slot: usize,
        hello: Hello,
        entry: &TopicEntry,
        order: Order,
    ) -> Result<(), Refused> {
        if self.state != BrokerState::Serving {
            return refused(Refusal::NotServed, "this broker is leaving; use another one");
        }
        match hello.role {
            Role::Subscribe => {
                self.welcome_subscriber(slot, hello, entry, order, &Looked::default())
            }
            Role::Publish => {
                check_publisher(&hello, entry)?;
                if self.has_ended(slot) {
                    // It gave this broker up, which may have slept since: the epoch that would be
                    // opened for it would end the one that it has by now.
                    self.drop_conn(slot);
                    return Ok(());
                }
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
            greeting.stage = Stage::Ring { hello, topic: id, full: None };
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
            if waits && self.has_ended(slot) {
                self.drop_conn(slot);
            } else if waits {
                self.ask_session(slot);
            }
        }
    }

    /// The pool has no segment for a topic's ring: whoever waits for it in vain is told so.
    pub(crate) fn ring_denied(&mut self, topic: TopicId, numbers: (u32, u32)) {
        for conn in self.conns.iter_mut() {
            if let Kind::Greeting(greeting) = &mut conn.kind
                && let Stage::Ring { topic: other, full, .. } = &mut greeting.stage
                && *other == topic
            {
                *full = Some(numbers);
            }
        }
    }

    /// Whether the client has gone while nothing was read from it. A session opened for one that
    /// was killed would fence the session of its next life, which may have asked before.
    fn has_ended(&mut self, slot: usize) -> bool {
        let Some(conn) = self.conns.get(slot) else { return true };
        let Some(socket) = conn.socket.fd() else { return false };
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(socket.as_raw_fd(), &mut [0], flags) {
            Ok(bytes) => bytes == 0,
            Err(errno) => errno != Errno::EAGAIN && errno != Errno::EINTR,
        }
    }

    fn ask_session(&mut self, slot: usize) {
        let Self { env, link, conns, opening, .. } = self;
        let Some(conn) = conns.get(slot) else { return };
        let token = conn.token;
        let Kind::Greeting(greeting) = &mut conn.kind else { return };
        let Stage::Ring { hello, topic, .. } = greeting.stage else { return };
        let request = link.number();
        greeting.stage = Stage::Session { hello, topic, request };
        opening.insert(request, token);
        let (client, epoch) = (hello.client, hello.session_epoch);
        let Hello { life, comes_back, .. } = hello;
        link.ask(env, Request::OpenSession { request, topic, client, epoch, life, comes_back });
    }

    /// A handshake ended before its answer came: the request is not repeated for it.
    pub(crate) fn cancel(&mut self, greeting: &Greeting) {
        if let Stage::Session { request, .. } = greeting.stage {
            self.opening.remove(&request);
            self.link.forget(
                |open| matches!(open, Request::OpenSession { request: of, .. } if *of == request),
            );
        }
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
            Stage::Session { hello, topic, .. } => Some((token.slot(), hello, topic)),
            Stage::Reading | Stage::Ring { .. } | Stage::Files { .. } => None,
        }
    }

    pub(crate) fn session_open(
        &mut self,
        request: u64,
        (index, epoch): (u32, u32),
        next_seq: u64,
        is_own: bool,
    ) {
        let Some((slot, hello, id)) = self.asked(request) else {
            // Its connection ended before it was welcome, or this was said twice.
            return self.lost.note(index, epoch);
        };
        let session = Session { client: hello.client, epoch, index, last_seq: None };
        let Self { env, topics, .. } = self;
        let Some(topic) = topics[id.slot()].as_deref_mut().filter(|topic| topic.id == id) else {
            return self.refuse(slot, Refusal::TopicGone, "the topic was deleted");
        };
        let entry = env.pool.topic_in_slot(id.slot());
        let has_bounds = entry.is_some_and(|entry| entry.disk_bytes != 0 || entry.disk_ns != 0);
        let welcome = Frame::Welcome(Welcome {
            topic: id,
            created_ns: topic.created_ns,
            order: topic.order.raw(),
            broker: env.me.raw(),
            in_flight_max: IN_FLIGHT_BATCHES_MAX,
            session_epoch: epoch,
            session_index: index,
            batch_bytes_max: env.pool.geometry().batch_bytes_max(),
            next_seq,
            start: 0,
            end: 0,
            copies: 1 + topic.disk_replicas as u8,
            is_own,
            has_bounds,
        });
        let via = match self.welcome_publisher(slot, hello.carrier, welcome) {
            Ok(via) => via,
            Err(sentence) => {
                self.lost.note(index, epoch);
                return self.refuse(slot, Refusal::NotServed, &sentence);
            }
        };
        let Self { env, topics, link, conns, .. } = self;
        let Some(topic) = topics[id.slot()].as_deref_mut() else { return };
        let Some(conn) = conns.get(slot) else { return };
        let is_memory = matches!(via, Via::Memory(_));
        conn.out.reserve();
        conn.kind = Kind::Publisher(Publisher {
            topic: id,
            session,
            ack: hello.ack,
            in_flight: 0,
            fenced: false,
            wishes: 0,
            bye: false,
            is_over: false,
            stalled: None,
            brought: 0,
            still: Stillness::default(),
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

    /// Says `Welcome` to a publisher, and how its batches will come.
    fn welcome_publisher(
        &mut self,
        slot: usize,
        carrier: Carrier,
        welcome: Frame,
    ) -> Result<Via, String> {
        if carrier == Carrier::Verbs {
            self.accept_verbs(slot, welcome)?;
        }
        let Self { env, conns, .. } = self;
        let conn = conns.get(slot).ok_or("the connection is gone")?;
        match (carrier, &conn.socket) {
            (Carrier::Stream, _) => {
                welcome_to(env, conn, carrier, true, welcome)?;
                Ok(Via::Stream(Reading::new()))
            }
            (Carrier::Memory, _) => {
                welcome_to(env, conn, carrier, true, welcome)?;
                Ok(Via::Memory(Extents::new()))
            }
            (Carrier::Verbs, Socket::Verbs(link)) => {
                let ways = match link.knock.grant {
                    GrantMode::Pull => Ways::Pulls(Box::new(Pulls::new(&link.side, link)?)),
                    GrantMode::Window | GrantMode::Open => Ways::Grants(Box::default()),
                };
                Ok(Via::Verbs(Box::new(VerbsPublisher::new(ways))))
            }
            (Carrier::Verbs, _) => Err("this connection is not one over verbs".to_owned()),
        }
    }

    pub(crate) fn session_denied(&mut self, request: u64, why: Denial, epoch: u32, next_seq: u64) {
        let Some((slot, hello, _)) = self.asked(request) else { return };
        let wanted = hello.session_epoch;
        let (refusal, sentence) = match why {
            Denial::Fenced | Denial::Superseded => {
                self.env.count(Counter::Fenced, 1);
                let session_epoch = match why {
                    // The epoch that is there, not the one that is over: nobody opened one for it.
                    Denial::Superseded => epoch,
                    _ => wanted,
                };
                let fenced = Frame::Fenced { session_epoch, next_seq };
                if self.turn_away(slot, fenced, "") {
                    return;
                }
                let Some(conn) = self.conns.get(slot) else { return };
                conn.tell(fenced);
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

    /// Lets a subscriber in, once it is known which logs begin with a batch that only replica files
    /// have.
    pub(crate) fn welcome_subscriber(
        &mut self,
        slot: usize,
        hello: Hello,
        entry: &TopicEntry,
        order: Order,
        looked: &Looked,
    ) -> Result<(), Refused> {
        let Self { env, conns, .. } = self;
        let topic = TopicId(entry.id);
        let Some(conn) = conns.get(slot) else { return Ok(()) };
        let sequenced = order.is_sequenced();
        let places = match &conn.kind {
            Kind::Greeting(greeting) => greeting.places.clone(),
            _ => Vec::new(),
        };
        let (mut delivering, start, end) =
            Delivering::new(env, topic, sequenced, hello.from, places);
        if self.look_for_start(slot, hello, entry, order, looked)? {
            return Ok(());
        }
        let Self { env, conns, catch_up, .. } = self;
        let Some(conn) = conns.get(slot) else { return Ok(()) };
        let reads_files = hello.carrier == Carrier::Stream && catch_up.is_some();
        let disk = Disk::of(entry).filter(|_| reads_files);
        delivering.checked = hello.checked;
        let start = delivering.begin_on_disk(disk, &looked.starts).unwrap_or(start);
        // Behind the look at where each log ends that its delivery begins with: what came between
        // the two it is sent and passes over. Who reads memory looks for itself.
        let wants_ends = !sequenced && hello.from == From::Latest;
        let is_told = wants_ends && hello.carrier != Carrier::Memory;
        let ends = is_told.then(|| ends(&env.pool, topic));
        let welcome = Frame::Welcome(Welcome {
            topic,
            created_ns: entry.created_ns,
            order: order.raw(),
            broker: env.me.raw(),
            in_flight_max: IN_FLIGHT_BATCHES_MAX,
            session_epoch: 0,
            session_index: 0,
            batch_bytes_max: env.pool.geometry().batch_bytes_max(),
            next_seq: 0,
            start,
            end,
            copies: 1 + entry.disk_replicas() as u8,
            is_own: false,
            has_bounds: false,
        });
        conn.was_topic = Some(topic);
        let mut reading = None;
        let welcomed = match hello.carrier {
            Carrier::Verbs => self.accept_verbs(slot, welcome).map(|opened| reading = opened),
            carrier => welcome_to(env, conn, carrier, false, welcome),
        };
        if let Err(sentence) = welcomed {
            return refused(Refusal::NotServed, sentence);
        }
        let Self { env, conns, .. } = self;
        let Some(conn) = conns.get(slot) else { return Ok(()) };
        if let Socket::Tcp(stream) = &conn.socket {
            // It may read when it likes. Of a connected socket this can be said.
            let _ = peer::must_take(stream, false);
        }
        if let Some(ends) = ends {
            conn.tell_ends(&ends);
        }
        env.count(Counter::Subscribers, 1);
        match hello.carrier {
            Carrier::Verbs if reading.is_some() => {
                if let Some(reading) = reading {
                    conn.kind = Kind::RemoteReader(reading);
                }
            }
            Carrier::Stream | Carrier::Verbs => {
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
    // Nothing that it is granted is used again before it is gone, even if this process goes first.
    let lent = writes
        .then(|| lend_to_writer(&env.pool, env.me, env.incarnation))
        .transpose()
        .map_err(|error| format!("open the pool for a publisher: {error}"))?;
    let pool = if writes { env.pool.fd().as_raw_fd() } else { env.read_only.as_raw_fd() };
    let fds = [Some(pool), Some(client_end.as_raw_fd()), lent.as_ref().map(AsRawFd::as_raw_fd)];
    let fds: Vec<_> = fds.into_iter().flatten().collect();
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
