//! What control tells the broker to do.

use landfall_layout::TopicId;
use landfall_layout::command::{Command, Denial, Request};
use landfall_layout::frame::Refusal;
use landfall_layout::segment::SegmentKind;
use landfall_pool::clock::boot_ns;

use crate::broker::Broker;
use crate::conn::{Conn, Kind, Publisher, Socket, Via};
use crate::conns::Token;
use crate::control_link::wants;
use crate::replica::Replicator;
use crate::segments::Granted;
use crate::topics::{Landing, Topic};
use crate::unused::PATIENCE;

/// Commands taken in one turn.
const COMMANDS_PER_TURN: usize = 64;
/// Ticks without a batch after which a segment that is not full may close: 5 s.
const REST: u32 = 5 * PATIENCE;
/// How long clients of a deleted topic have to close before it is released without them.
const DROP_WAIT_NS: u64 = 2_000_000_000;

/// How long a subscriber may go on reading what control wants back: as long as nobody keeps to the
/// hold of one whose broker died.
const HOLD_NS: u64 = 3_000_000_000;

/// A topic that is being deleted and still has memory clients.
pub struct Dropping {
    topic: TopicId,
    deadline_ns: u64,
    /// It was said for whom it waits.
    is_told: bool,
}

/// A segment that control wants back.
#[derive(Clone, Copy)]
pub struct LettingGo {
    granted: Granted,
    /// The replicator's round that may still read from it.
    round: Option<u64>,
    since_ns: u64,
}

impl Broker {
    /// Takes commands; how many there were.
    pub(crate) fn take_commands(&mut self) -> usize {
        let mut taken = 0;
        self.link.drain(&self.env);
        while taken < COMMANDS_PER_TURN
            && let Some(command) = self.link.next(&self.env)
        {
            taken += 1;
            // What comes before it is accepted was for the process before: control begins anew
            // with this one, and what it granted that one it grants again or keeps for it.
            let is_first = matches!(command, Command::Accepted { .. });
            if is_first || self.link.is_accepted() {
                self.obey(command);
            }
        }
        taken
    }

    #[cold]
    fn obey(&mut self, command: Command) {
        match command {
            Command::Accepted { incarnation, .. } => {
                if incarnation == self.env.incarnation {
                    self.link.answered(|r| matches!(r, Request::Register { .. }));
                    self.link.set_accepted();
                    self.env.standing.begin();
                }
            }
            Command::Grant { kind, topic, segment, generation, base_index } => {
                self.granted(kind, topic, Granted { segment, generation }, base_index);
            }
            Command::RingReady { topic } => self.ring_ready(topic),
            Command::Denied { topic, kind, why, free, segments } => {
                if (kind, why) == (SegmentKind::Ring, Denial::PoolFull) {
                    self.ring_denied(topic, (free, segments));
                }
                self.denied(topic, kind, why);
            }
            Command::SessionOpen { request, index, epoch, next_seq, is_own } => {
                self.session_open(request, (index, epoch), next_seq, is_own);
            }
            Command::SessionDenied { request, why, epoch, next_seq } => {
                if !self.positions_denied(request, next_seq) {
                    self.session_denied(request, why, epoch, next_seq);
                }
            }
            Command::Reserved { request, first, count } => {
                self.positions_granted(request, first, count);
            }
            Command::Retire { segment, generation } => {
                let granted = Granted { segment, generation };
                if !self.retiring.iter().any(|other| other.granted == granted) {
                    let round = self.replicator.as_ref().and_then(Replicator::reading);
                    self.retiring.push(LettingGo { granted, round, since_ns: boot_ns() });
                }
            }
            Command::DropTopic { topic } => self.drop_topic(topic),
            Command::Expect { topic, token, lease_ns } => {
                if let Some(verbs) = &mut self.verbs {
                    verbs.tokens.expect(token, topic, boot_ns().saturating_add(lease_ns));
                }
            }
        }
    }

    fn granted(&mut self, kind: SegmentKind, topic: TopicId, granted: Granted, base: u64) {
        self.link.answered(|request| wants(request, kind, topic));
        let Self { env, topics, link, .. } = self;
        // A repeated or late grant may name a segment that has gone on to another use.
        if env.pool.segment_generation(granted.segment) != granted.generation {
            return;
        }
        let Granted { segment, generation } = granted;
        // A control that takes over offers again what it is not sure that this broker was told of.
        if link.is_sealing(segment, generation) {
            return;
        }
        let Some(known) = topics[topic.slot()].as_mut().filter(|known| known.id == topic) else {
            // Nobody lands here any more: it goes back unused.
            link.sealed(env, Request::Sealed { segment, generation, through: 0 });
            return;
        };
        match (kind, &mut known.landing) {
            (SegmentKind::Payload, _) => {
                known.stock.grant(granted);
                known.is_full_noted = false;
            }
            (SegmentKind::OrderLog, Landing::Own(own)) => {
                own.grant(env, granted, base);
                known.begin_where_control_says(env);
            }
            _ => env.error(&format!(
                "control granted segment {segment} as {kind:?} for topic id {:#x}, which has no \
                 use for it here",
                topic.0
            )),
        }
        known.replenish(env, link);
    }

    fn ring_ready(&mut self, topic: TopicId) {
        let Self { env, topics, link, .. } = self;
        if let Some(known) = topics[topic.slot()].as_mut().filter(|known| known.id == topic)
            && known.try_ring(env)
        {
            link.answered(|request| *request == Request::OpenRing { topic });
            self.topic_ready(topic);
        }
    }

    fn denied(&mut self, topic: TopicId, kind: SegmentKind, why: Denial) {
        let is_it = move |request: &Request| match kind {
            SegmentKind::Ring => *request == Request::OpenRing { topic },
            _ => wants(request, kind, topic),
        };
        // A full pool keeps the request: control grants it when a segment comes back.
        if why != Denial::PoolFull {
            self.link.answered(is_it);
        }
    }

    /// Closes everything of a topic. It is released once no memory client can touch it.
    fn drop_topic(&mut self, topic: TopicId) {
        for slot in self.conns.slots() {
            let Some(conn) = self.conns.get(slot) else { continue };
            if conn.topic() == Some(topic) {
                self.refuse(slot, Refusal::TopicGone, "the topic was deleted");
            }
        }
        let Self { topics, link, dropping, live_topics, reserving, .. } = self;
        if topics[topic.slot()].as_ref().is_some_and(|known| known.id == topic) {
            topics[topic.slot()] = None;
            live_topics.retain(|slot| *slot != topic.slot());
        }
        link.forget(|request| names(request, topic));
        reserving.retain(|_, of| of.topic != topic);
        if !dropping.iter().any(|other| other.topic == topic) {
            let deadline_ns = boot_ns() + DROP_WAIT_NS;
            dropping.push(Dropping { topic, deadline_ns, is_told: false });
        }
    }

    /// Says of deleted topics that nobody here touches them, once that is so.
    pub(crate) fn release_topics(&mut self, now_ns: u64) {
        let Self { env, link, conns, dropping, replicator, withheld, .. } = self;
        let mut overdue = Vec::new();
        dropping.retain_mut(|drop| {
            let replicated = replicator.as_ref().is_some_and(|r| r.uses(drop.topic));
            let busy = replicated
                || conns.iter_mut().any(|conn| {
                    conn.was_topic == Some(drop.topic)
                        && match conn.held() {
                            Some(segment) => {
                                if now_ns > drop.deadline_ns + HOLD_NS {
                                    overdue.push((conn.token, segment));
                                }
                                true
                            }
                            None if conn.socket.is_verbs() => true,
                            None => conn.channel.is_some() && now_ns < drop.deadline_ns,
                        }
                });
            if busy && now_ns >= drop.deadline_ns && !std::mem::replace(&mut drop.is_told, true) {
                let topic = drop.topic;
                let mut used = conns.iter().filter(|conn| conn.was_topic == Some(topic));
                let who = used.find(|conn| conn.held().is_some() || conn.socket.is_verbs());
                env.error(&waits_for(env, topic, who));
            }
            if !busy {
                for conn in conns.iter_mut().filter(|conn| conn.was_topic == Some(drop.topic)) {
                    for Granted { segment, generation } in conn.written() {
                        withheld.push((conn.token, Granted { segment, generation }));
                        link.say(env, Request::Withhold { segment, generation });
                    }
                }
                link.say(env, Request::TopicReleased { topic: drop.topic });
            }
            busy
        });
        self.cut_off(overdue);
    }

    /// Names to a new leader what clients may still write into of topics that are deleted: what the
    /// one before was told it has forgotten.
    #[cold]
    pub(crate) fn say_withheld(&mut self) {
        let Self { env, link, withheld, .. } = self;
        for (_, Granted { segment, generation }) in withheld.iter().copied() {
            link.say(env, Request::Withhold { segment, generation });
        }
        let (epoch, incarnation) = (link.epoch(), env.incarnation);
        link.say(env, Request::AllWithheld { epoch, incarnation });
    }

    /// A connection is gone, and with it whoever could write what it was granted.
    #[cold]
    pub(crate) fn let_go_of(&mut self, gone: Token) {
        let Self { env, link, withheld, .. } = self;
        let (over, left): (Vec<_>, Vec<_>) =
            withheld.drain(..).partition(|(token, _)| *token == gone);
        *withheld = left;
        for (_, granted) in over {
            let Granted { segment, generation } = granted;
            if withheld.iter().all(|(_, other)| *other != granted) {
                link.say(env, Request::LetGo { segment, generation });
            }
        }
    }

    /// Answers `Retire` for segments that nobody here reads.
    pub(crate) fn release_segments(&mut self) {
        let Self { env, link, conns, retiring, replicator, topics, .. } = self;
        let now_ns = boot_ns();
        let mut spilled = Vec::new();
        let mut overdue = Vec::new();
        retiring.retain(|LettingGo { granted, round, since_ns }| {
            let Granted { segment, generation } = *granted;
            // What it may still write into it does not let go of, whoever asks: control takes it
            // back when it is sealed.
            if topics.iter().flatten().any(|topic| topic.stock.has(*granted)) {
                return true;
            }
            let reads = |replicator: &Replicator| round.is_some_and(|r| replicator.still_reads(r));
            let mut held = replicator.as_ref().is_some_and(reads);
            for conn in conns.iter_mut() {
                let is_pushed =
                    matches!(&conn.socket, Socket::Verbs(link) if link.reads_from(segment));
                if is_pushed || conn.held() == Some(segment) {
                    held = true;
                    if now_ns.saturating_sub(*since_ns) > HOLD_NS {
                        overdue.push((conn.token, segment));
                    }
                }
                if let Kind::Stream(delivering) = &mut conn.kind
                    && delivering.spill(env, segment, &mut conn.out)
                {
                    spilled.push(conn.token.slot());
                }
                if let Socket::Verbs(link) = &mut conn.socket
                    && let Kind::RemoteReader(reading) = &mut conn.kind
                {
                    let (open, ask) = reading.release(segment, now_ns);
                    held |= open;
                    if let Some(frame) = ask {
                        conn.out.push(frame, "");
                    }
                    reading.close_ending(link);
                }
            }
            if !held {
                link.say(env, Request::Retired { segment, generation });
            }
            held
        });
        // Its socket may take something by now, and nobody asks it unless it is in want of that.
        spilled.into_iter().for_each(|slot| self.conns.touch(slot));
        self.cut_off(overdue);
    }

    /// Closes the connections of subscribers that read for too long what is wanted back. One over
    /// memory that goes on later finds out behind its copy that the batch is gone.
    fn cut_off(&mut self, overdue: Vec<(Token, u32)>) {
        for (token, segment) in overdue {
            let Some(conn) = self.conns.by_token(token) else { continue };
            let who = conn.client();
            self.env.client_error(&format!(
                "{who}, a subscriber, did not let go of segment {segment} for {} s after it was \
                 wanted back: its connection is closed, and when it comes again it is told how \
                 much it missed",
                HOLD_NS / 1_000_000_000
            ));
            self.drop_conn(token.slot());
        }
    }

    /// Gives back what a topic has ahead of need here when nobody publishes to it, or where others
    /// wait for room and little is published, and what it fills where that serves somebody. A
    /// segment that closes keeps all its room from batches for as long as one of them is kept.
    pub(crate) fn tidy_topic(topic: &mut Topic, env: &crate::env::Env) {
        let (quiet, is_short) = (topic.tick_quiet(), env.pool.is_short());
        let is_idle = quiet >= PATIENCE && topic.stock.has_room();
        if topic.publishers == 0 || is_idle && is_short {
            topic.stock.give_spare();
        }
        if quiet >= REST && !topic.stock.is_empty() && topic.closes(env, quiet, is_short) {
            topic.stock.close(env);
        }
    }

    /// Ends a publisher's claims. `polite`: it promised to write nothing more.
    pub(crate) fn end_claims(&mut self, publisher: &mut Publisher, polite: bool) {
        let Self { env, topics, link, .. } = self;
        let id = publisher.topic;
        let Some(topic) = topics[id.slot()].as_mut().filter(|topic| topic.id == id) else {
            return;
        };
        match &mut publisher.via {
            Via::Stream(reading) => reading.abandon(env, topic),
            Via::Memory(extents) => extents.end(env, topic, polite),
            Via::Verbs(via) => via.abandon(env, topic),
        }
        topic.report_sealed(env, link);
    }
}

/// Says for whom a deletion waits that takes long: a client, or else this broker's replicator.
#[cold]
fn waits_for(env: &crate::env::Env, topic: TopicId, who: Option<&Conn>) -> String {
    let entry = env.pool.topic_in_slot(topic.slot()).filter(|entry| entry.id == topic.0);
    let name = entry.map_or_else(String::new, |entry| entry.name().to_owned());
    let what = match who {
        Some(conn) if conn.socket.is_verbs() => "an RDMA client that has not gone".to_owned(),
        Some(conn) => format!(
            "{}, a subscriber over memory that stands still while it reads: if it does not go on \
             within {} s, its connection is closed",
            conn.client(),
            HOLD_NS / 1_000_000_000
        ),
        None => "this broker's replicator, which has not removed its files".to_owned(),
    };
    format!("topic {name:?}, which is deleted, waits for {what}")
}

fn names(request: &Request, dropped: TopicId) -> bool {
    match *request {
        Request::OpenRing { topic }
        | Request::Want { topic, .. }
        | Request::OpenSession { topic, .. }
        | Request::Reserve { topic, .. } => topic == dropped,
        _ => false,
    }
}
