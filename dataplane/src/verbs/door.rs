//! From a connection request to an accepted queue pair, or a rejection.

use std::rc::Rc;

use landfall_layout::counters::Counter;
use landfall_layout::frame::{Carrier, Frame, Hello, Refusal, Role};
use landfall_layout::limits::{LINE_BYTES, LOGS_PER_TOPIC};
use landfall_layout::pool::BrokerState;
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_layout::verbs::{GrantMode, Greeting, Intent, Knock, KnockError, RECEIVES, Rejection};
use landfall_nic::{Depths, Ending, Event, NicError, PeerId, Request};
use landfall_pool::clock::boot_ns;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::gate::Doors;
use super::link::{Link, SENDS, Staging};
use super::reader::Reading;
use super::{Knocking, Verbs};
use crate::broker::Broker;
use crate::conn::{Conn, Kind, Socket};
use crate::hello::{Refused, check_publisher, refused, usable};

/// Bytes that a work request should be able to carry in itself: four receipts.
const INLINE_BYTES: u32 = 256;
/// READs under way at a time, each way.
const READS: u8 = 16;

impl Broker {
    /// Takes what happened at the door; how much that was.
    #[cold]
    pub(crate) fn take_knocks(&mut self) -> usize {
        let mut taken = 0;
        while let Some(verbs) = &mut self.verbs {
            match verbs.listener.next() {
                Ok(None) => break,
                Ok(Some(Event::Request(request))) => self.knocked(request),
                Ok(Some(Event::Established(_))) => {}
                Ok(Some(Event::Ended(peer, ending))) => self.peer_ended(peer, ending),
                Err(error) => {
                    self.env.error(&format!("take connections over verbs: {error}"));
                    break;
                }
            }
            taken += 1;
        }
        taken
    }

    fn knocked(&mut self, request: Request) {
        match self.judge_knock(&request) {
            Ok((knock, hello, entry, order)) => self.let_in(request, knock, hello, &entry, order),
            Err(Refused { why, sentence }) => {
                self.env.count(Counter::Refused, 1);
                self.env.client_error(&format!("refused {} ({why:?}): {sentence}", request.peer));
                self.reject(request, &Rejection::refused(why, &sentence));
            }
        }
    }

    fn reject(&mut self, request: Request, rejection: &Rejection) {
        if let Err(error) = request.reject(&rejection.to_bytes()) {
            self.env.error(&format!("reject a connection over verbs: {error}"));
        }
    }

    /// What the knock asks for, if it may be asked for.
    fn judge_knock(
        &mut self,
        request: &Request,
    ) -> Result<(Knock, Hello, TopicEntry, Order), Refused> {
        let knock = Knock::from_bytes(&request.private).or_else(|error| {
            let why = match error {
                KnockError::Version { .. } => Refusal::Version,
                _ => Refusal::Malformed,
            };
            refused(why, error.to_string())
        })?;
        self.spend(&knock)?;
        let (has_room, _) = self.has_room();
        let Self { env, verbs, state, room, .. } = self;
        let Some(verbs) = verbs else { return refused(Refusal::NotServed, "no RDMA here") };
        if *state != BrokerState::Serving {
            return refused(Refusal::NotServed, "this broker is leaving; use another one");
        }
        if !has_room {
            return refused(Refusal::Busy, room.is_full());
        }
        check_wishes(verbs, &knock, env.pool.geometry().batch_bytes_max())?;
        let entry = env.pool.topic_in_slot(knock.topic.slot());
        let live =
            |entry: &TopicEntry| entry.id == knock.topic.0 && entry.state() == TopicState::Live;
        let Some(entry) = entry.filter(live) else {
            let text = format!("there is no topic with id {:#x} any more", knock.topic.0);
            return refused(Refusal::NoTopic, text);
        };
        let order = usable(&entry, entry.name())?;
        let is_publisher = knock.intent == Intent::Publish;
        let hello = Hello {
            role: if is_publisher { Role::Publish } else { Role::Subscribe },
            carrier: Carrier::Verbs,
            ack: knock.ack,
            client: knock.client,
            session_epoch: knock.session_epoch,
            life: knock.life,
            comes_back: knock.comes_back,
            from: knock.from,
            checked: false,
        };
        if is_publisher {
            check_publisher(&hello, &entry)?;
        }
        Ok((knock, hello, entry, order))
    }

    /// Uses the token up. It may be in the command ring still: control answers the client as soon
    /// as it is there.
    fn spend(&mut self, knock: &Knock) -> Result<(), Refused> {
        self.take_commands();
        let Some(verbs) = &mut self.verbs else { return Ok(()) };
        verbs.tokens.spend(knock.token, knock.topic, boot_ns()).or_else(|error| {
            self.env.count(Counter::TokensRefused, 1);
            refused(Refusal::NotServed, error.to_string())
        })
    }

    fn let_in(
        &mut self,
        request: Request,
        knock: Knock,
        hello: Hello,
        entry: &TopicEntry,
        order: Order,
    ) {
        let knocking = Knocking { request: Some(request), knock };
        let kind = Kind::Greeting(Box::new(crate::hello::Greeting::new()));
        let socket = Socket::Knocking(Box::new(knocking));
        let slot = self.conns.add(|token| Conn::new(token, socket, kind));
        if let Err(Refused { why, sentence }) = self.begin(slot, hello, entry, order) {
            self.refuse(slot, why, &sentence);
        }
    }

    /// Turns a client away that has not been let in yet. False: it is in.
    pub(crate) fn turn_away(&mut self, slot: usize, frame: Frame, sentence: &str) -> bool {
        let Some(conn) = self.conns.get(slot) else { return false };
        let Socket::Knocking(knocking) = &mut conn.socket else { return false };
        let request = knocking.request.take();
        if let Some(request) = request {
            self.reject(request, &Rejection { frame, sentence: sentence.to_owned() });
        }
        self.drop_conn(slot);
        true
    }

    /// Accepts a client that knocked, with this `Welcome`. A reader of segments comes back with
    /// what stands open to it.
    ///
    /// # Errors
    ///
    /// A sentence; the client is still to be turned away, or has gone.
    pub(crate) fn accept_verbs(
        &mut self,
        slot: usize,
        welcome: Frame,
    ) -> Result<Option<Box<Reading>>, String> {
        let Self { env, conns, verbs, epoll, .. } = self;
        let (Some(verbs), Some(conn)) = (verbs, conns.get(slot)) else {
            return Err("no RDMA here".to_owned());
        };
        let Socket::Knocking(knocking) = &mut conn.socket else {
            return Err("this connection is not one over verbs".to_owned());
        };
        let knock = knocking.knock;
        let staging = Staging::new(&verbs.side, &knock)?;
        let Some(request) = knocking.request.take() else {
            return Err("it was answered already".to_owned());
        };
        let peer = request.id();
        let side = Rc::clone(&verbs.side);
        let depths = Depths {
            send: SENDS,
            receive: RECEIVES,
            inline: INLINE_BYTES,
            reads: READS,
            shared_receive: None,
        };
        let mut greeting = Greeting {
            welcome: welcome.encode(0),
            mtu: request.port_mtu(),
            tables_key: 0,
            tables_at: 0,
            frontiers_key: 0,
            frontiers_at: 0,
            logs: LOGS_PER_TOPIC as u32,
            headers_key: 0,
            headers_at: 0,
        };
        let mut doors = Doors::None;
        let mut reading = None;
        let queue = request
            .accept_with(side.domain(knock.grant), depths, knock.mtu, |queue| {
                queue.receive(RECEIVES).map_err(|_| no_room("ibv_post_recv", "receives"))?;
                match knock.intent {
                    Intent::Publish => doors = Doors::new(queue, knock.grant)?,
                    Intent::Subscribe => {}
                    Intent::Read => {
                        let opened = Reading::open(queue, env, &side, knock.topic, &mut greeting)?;
                        reading = Some(Box::new(opened));
                    }
                }
                Ok(greeting.to_bytes().to_vec())
            })
            .map_err(|error| error.to_string())?;
        let link = Link::new(queue, doors, side, knock, staging, boot_ns());
        let event = EpollEvent::new(EpollFlags::EPOLLIN, conn.token.0);
        epoll.add(&link, event).map_err(|error| format!("watch a connection: {error}"))?;
        verbs.peers.insert(peer, conn.token);
        conn.socket = Socket::Verbs(Box::new(link));
        conns.queues.push(slot);
        Ok(reading)
    }

    /// The other side closed its connection, or the connection never came to be.
    fn peer_ended(&mut self, peer: PeerId, _ending: Ending) {
        let Some(verbs) = &mut self.verbs else { return };
        let Some(token) = verbs.peers.remove(&peer) else { return };
        if self.conns.by_token(token).is_some() {
            // What it wrote before it left still counts.
            self.serve_queue(token.slot());
        }
        if self.conns.by_token(token).is_some() {
            self.drop_conn(token.slot());
        }
    }
}

/// A fresh queue that is smaller than it was asked to be.
pub fn no_room(call: &'static str, what: &str) -> NicError {
    let source = std::io::ErrorKind::StorageFull.into();
    NicError { call, object: format!("{what} on a fresh queue pair"), source }
}

fn check_wishes(verbs: &Verbs, knock: &Knock, batch_bytes_max: u32) -> Result<(), Refused> {
    if knock.intent == Intent::Publish && knock.grant > verbs.grant {
        let text = format!("grant mode {} is not given here; ask for {}", knock.grant, verbs.grant);
        return refused(Refusal::NotServed, text);
    }
    let needs_windows = match knock.intent {
        Intent::Publish => knock.grant == GrantMode::Window,
        Intent::Subscribe => false,
        Intent::Read => true,
    };
    if needs_windows && !verbs.side.has_windows {
        let text = format!("{} has no windows of type 2B; use grant pull", verbs.side.device);
        return refused(Refusal::NotServed, text);
    }
    let least = 2 * (u64::from(batch_bytes_max).div_ceil(LINE_BYTES) + 1);
    if knock.intent == Intent::Subscribe && u64::from(knock.ring_lines) < least {
        let text =
            format!("a ring of {} lines; two largest batches need {least}", knock.ring_lines);
        return refused(Refusal::Malformed, text);
    }
    Ok(())
}
