//! What a turn of the loop does for clients over verbs.

use landfall_layout::counters::Counter;
use landfall_layout::frame::{Frame, Refusal};
use landfall_layout::limits::VERBS_BEAT_NS;
use landfall_layout::verbs::{Said, UnknownImmediate};

use super::Ways;
use super::gate::LinkGate;
use super::link::{Link, Lost};
use crate::broker::Broker;
use crate::conn::{Conn, Kind, Out, Publisher, Socket, Via};
use crate::conns::Over;
use crate::env::Env;

use crate::extents::From;
use crate::land::Wait;
use crate::publish_tcp::Stop;
use crate::topics::Topic;

/// Immediates acted on for one client in one turn, so that others get theirs.
const SAID_PER_TURN: u32 = 64;
/// Bursts of completions taken from one queue in one turn.
const BURSTS_PER_TURN: usize = 4;
/// Signs of life that a client may leave unanswered: more would use up its receives.
const BEATS_MAX: u32 = 256;

/// A publisher over verbs.
pub struct VerbsPublisher {
    pub ways: Ways,
    /// What it said and has to wait for room.
    pending: Option<(Said, u32)>,
    /// Times it asked for positions, which numbers them.
    wishes: u32,
}

impl VerbsPublisher {
    pub fn new(ways: Ways) -> Self {
        Self { ways, pending: None, wishes: 0 }
    }

    /// Whether something waits here that no completion will announce.
    pub fn is_waiting(&self) -> bool {
        match &self.ways {
            Ways::Grants(grants) => grants.is_ending(),
            Ways::Pulls(pulls) => !pulls.is_idle(),
        }
    }

    /// Whether batches that were announced are not landed yet: a goodbye behind them waits.
    pub fn is_pulling(&self) -> bool {
        matches!(&self.ways, Ways::Pulls(pulls) if !pulls.is_idle())
    }

    /// Whether as much was announced as may be.
    fn is_full(&self) -> bool {
        matches!(&self.ways, Ways::Pulls(pulls) if pulls.is_full())
    }

    /// Acts on what was said until something stops it. Says how much was taken and how many
    /// batches landed.
    pub fn read_on(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        mut from: From<'_>,
        link: &mut Link,
        out: &mut Out,
    ) -> (u32, u32, Stop) {
        let (mut taken, mut landed) = (0, 0);
        self.tidy(env, topic, link);
        loop {
            if landed >= from.allowance {
                return (taken, landed, Stop::Wait(Wait::InFlight));
            }
            let (said, bytes) = match self.pending.take() {
                Some(pending) => pending,
                None if taken >= SAID_PER_TURN => return (taken, landed, Stop::Share),
                None if self.is_full() => break,
                None => match link.next_said() {
                    None => break,
                    Some((Ok(said), bytes)) => (said, bytes),
                    Some((Err(UnknownImmediate(raw)), _)) => {
                        let text = UnknownImmediate(raw).to_string();
                        return (taken, landed, Stop::Refuse(Refusal::Malformed, text));
                    }
                },
            };
            taken += 1;
            let step = self.act(env, topic, &mut from, (said, bytes), link);
            match step {
                Ok((frame, has_landed)) => {
                    landed += u32::from(has_landed);
                    if let Some(frame) = frame {
                        out.push(frame, "");
                    }
                }
                Err(Stop::Wait(wait)) => {
                    self.pending = Some((said, bytes));
                    return (taken - 1, landed, Stop::Wait(wait));
                }
                Err(Stop::Fenced { .. }) if from.fenced => {}
                Err(stop) => return (taken, landed, stop),
            }
        }
        if let Ways::Pulls(pulls) = &mut self.ways {
            let allowance = from.allowance - landed;
            let mut from = From { allowance, ..from };
            let (pulled, outcome) = pulls.advance(env, topic, &mut from, link);
            landed += pulled;
            if let Err(stop) = outcome {
                return (taken + pulled, landed, stop);
            }
            taken += pulled;
        }
        (taken, landed, Stop::Dry)
    }

    #[inline]
    fn act(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        from: &mut From<'_>,
        (said, bytes): (Said, u32),
        link: &mut Link,
    ) -> Result<(Option<Frame>, bool), Stop> {
        match (&mut self.ways, said) {
            (_, Said::Bye) => Err(Stop::Bye),
            (_, Said::Reserve { count, whole }) => {
                let request = self.wishes;
                self.wishes = request.wrapping_add(1);
                Err(Stop::Reserve { request, count, whole })
            }
            (Ways::Grants(grants), said) => {
                let mut gate = gate(link);
                let outcome = grants.take(env, topic, from, (said, bytes), &mut gate);
                settle(env, gate);
                outcome
            }
            (Ways::Pulls(pulls), Said::Ready { line }) => {
                pulls.announced(line);
                Ok((None, false))
            }
            (Ways::Pulls(_), other) => Err(Stop::Refuse(
                Refusal::Malformed,
                format!("a publisher in grant mode pull does not say {other:?}"),
            )),
        }
    }

    /// Takes note of gates that are closed, and closes those that had to wait.
    #[inline]
    fn tidy(&mut self, env: &Env, topic: &mut Topic, link: &mut Link) {
        let Ways::Grants(grants) = &mut self.ways else { return };
        let mut closed = std::mem::take(&mut link.invalidated);
        while closed != 0 {
            grants.closed(env, topic, closed.trailing_zeros() as usize);
            closed &= closed - 1;
        }
        if grants.is_ending() {
            let mut gate = gate(link);
            grants.close_ending(env, topic, &mut gate);
            settle(env, gate);
        }
    }

    /// Closes every gate.
    #[cold]
    pub fn close(&mut self, env: &Env, topic: &mut Topic, link: &mut Link) {
        if let Ways::Grants(grants) = &mut self.ways {
            let mut gate = gate(link);
            grants.close_all(env, topic, &mut gate);
            settle(env, gate);
        }
    }

    /// The queue pair is no more.
    pub fn abandon(&mut self, env: &Env, topic: &mut Topic) {
        match &mut self.ways {
            Ways::Grants(grants) => grants.abandon(env, topic),
            Ways::Pulls(pulls) => pulls.abandon(env, topic),
        }
    }
}

#[inline]
fn gate(link: &mut Link) -> LinkGate<'_> {
    LinkGate { link, bound: 0, begun: 0, trouble: None }
}

#[inline]
fn settle(env: &Env, gate: LinkGate<'_>) {
    if gate.bound + gate.begun > 0 {
        env.count(Counter::WindowsBound, gate.bound);
        env.count(Counter::WindowsInvalidated, gate.begun);
    }
    if let Some(error) = gate.trouble {
        env.error(&format!("open an extent: {error}"));
    }
}

impl Broker {
    /// Looks at the queues of all verbs clients.
    pub(crate) fn take_queues(&mut self) -> usize {
        let mut work = 0;
        let mut i = 0;
        while i < self.conns.queues.len() {
            let slot = self.conns.queues[i];
            work += self.serve_queue(slot);
            i += usize::from(self.conns.queues.get(i) == Some(&slot));
        }
        work
    }

    /// Takes one client's completions and acts on them; how much there was.
    pub(crate) fn serve_queue(&mut self, slot: usize) -> usize {
        let Some(Conn { socket: Socket::Verbs(link), kind, out, .. }) = self.conns.get(slot) else {
            return 0;
        };
        let mut completions = 0;
        for _ in 0..BURSTS_PER_TURN {
            let some = link.poll();
            completions += some;
            if some == 0 {
                break;
            }
        }
        let waits = match kind {
            Kind::Publisher(Publisher { stalled, via: Via::Verbs(via), .. }) => {
                stalled.is_none() && via.is_waiting()
            }
            Kind::RemoteReader(reading) => reading.is_ending(),
            _ => false,
        };
        let lost = link.lost;
        let unsent = !out.is_empty();
        if completions == 0 && !waits && !link.has_said() && lost.is_none() && !unsent {
            return 0;
        }
        let stalled = matches!(kind, Kind::Publisher(p) if p.stalled.is_some());
        let is_publisher = matches!(kind, Kind::Publisher(_));
        let mut work = completions;
        if !is_publisher {
            self.hear_client(slot);
        } else if !stalled {
            work += self.serve_publisher(slot);
        }
        if unsent {
            self.conns.touch(slot);
        }
        if let Some(lost) = lost {
            self.queue_lost(slot, lost);
            return work + 1;
        }
        if let Some(Conn { socket: Socket::Verbs(link), .. }) = self.conns.get(slot) {
            link.repost();
        }
        work
    }

    /// What a subscriber, or a client that is going, says.
    fn hear_client(&mut self, slot: usize) {
        loop {
            let Self { env, conns, .. } = self;
            let Some(Conn { socket: Socket::Verbs(link), kind, out, .. }) = conns.get(slot) else {
                return;
            };
            if let Kind::RemoteReader(reading) = kind {
                let mut closed = std::mem::take(&mut link.invalidated);
                while closed != 0 {
                    reading.closed(closed.trailing_zeros() as usize);
                    env.count(Counter::WindowsInvalidated, 1);
                    closed &= closed - 1;
                }
                reading.close_ending(link);
                if let Some(segment) = reading.take_pending() {
                    match reading.wanted(env, link, segment) {
                        Some(frame) => out.push(frame, ""),
                        None => return reading.wait_for(segment),
                    }
                    env.count(Counter::WindowsBound, 1);
                    conns.touch(slot);
                    continue;
                }
            }
            let Some((said, _)) = link.next_said() else { return };
            match (kind, said) {
                (Kind::Closing { .. } | Kind::Greeting(_), _) => {}
                (_, Ok(Said::Bye)) => return self.drop_conn(slot),
                (Kind::RemoteReader(reading), Ok(Said::Segment { segment })) => {
                    reading.wait_for(segment);
                }
                (Kind::RemoteReader(reading), Ok(Said::Done { slot: of })) => {
                    if !reading.done(link, of) {
                        let text = format!("slot {of} holds no segment of this connection");
                        return self.refuse(slot, Refusal::Malformed, &text);
                    }
                }
                (_, Ok(other)) => {
                    let text = format!("a subscriber does not say {other:?}");
                    return self.refuse(slot, Refusal::Malformed, &text);
                }
                (_, Err(error)) => {
                    return self.refuse(slot, Refusal::Malformed, &error.to_string());
                }
            }
        }
    }

    /// A queue pair failed: its client is lost, and where it did that itself, it is named.
    #[cold]
    fn queue_lost(&mut self, slot: usize, lost: Lost) {
        let Some(conn) = self.conns.get(slot) else { return };
        let Socket::Verbs(link) = &conn.socket else { return };
        let who = match &conn.kind {
            Kind::Publisher(publisher) => format!(
                "client {:#x} (session epoch {}) at {}",
                publisher.session.client,
                publisher.session.epoch,
                link.queue.peer()
            ),
            _ => format!("a client at {}", link.queue.peer()),
        };
        match lost {
            Lost::Access => {
                self.env.count(Counter::RemoteAccessErrors, 1);
                self.env.client_error(&format!(
                    "{who} touched what was not its own: the NIC ended its queue pair"
                ));
            }
            Lost::Failed(failure) => {
                self.env.count(Counter::QueuePairErrors, 1);
                self.env.client_error(&format!("the queue pair of {who} failed: {failure}"));
            }
        }
        self.drop_conn(slot);
    }

    /// The session of a verbs publisher is over: its ways into the pool are closed.
    #[cold]
    pub(crate) fn shut_out(&mut self, slot: usize) {
        let Self { env, topics, conns, .. } = self;
        let Some(Conn { socket: Socket::Verbs(link), kind, .. }) = conns.get(slot) else { return };
        let (Kind::Publisher(publisher) | Kind::Closing { publisher: Some(publisher), .. }) = kind
        else {
            return;
        };
        let (id, Via::Verbs(via)) = (publisher.topic, &mut publisher.via) else { return };
        if let Some(topic) = topics[id.slot()].as_deref_mut().filter(|topic| topic.id == id) {
            via.close(env, topic, link);
        }
    }

    /// What verbs clients need with every heartbeat: fencing, leases, signs of life.
    pub(crate) fn tick_queues(&mut self, now_ns: u64) {
        let Some(verbs) = &mut self.verbs else { return };
        verbs.tokens.tidy(now_ns);
        let lease_ns = verbs.lease_ns;
        let mut i = 0;
        while i < self.conns.queues.len() {
            let slot = self.conns.queues[i];
            self.tick_queue(slot, now_ns, lease_ns);
            i += usize::from(self.conns.queues.get(i) == Some(&slot));
        }
    }

    fn tick_queue(&mut self, slot: usize, now_ns: u64, lease_ns: u64) {
        let Self { env, conns, .. } = self;
        let Some(Conn { token, socket: Socket::Verbs(link), kind, .. }) = conns.get(slot) else {
            return;
        };
        if now_ns.saturating_sub(link.said_ns) >= VERBS_BEAT_NS && link.beats < BEATS_MAX {
            link.said_ns = now_ns;
            link.beat();
        }
        let Kind::Publisher(publisher) = kind else { return };
        let silent_ns = now_ns.saturating_sub(link.heard_ns);
        if silent_ns > lease_ns {
            env.count(Counter::LeasesExpired, 1);
            env.client_error(&format!(
                "client {:#x} at {} said nothing for {} ms, and its lease is {} ms: let go",
                publisher.session.client,
                link.queue.peer(),
                silent_ns / 1_000_000,
                lease_ns / 1_000_000
            ));
            return self.drop_conn(slot);
        }
        let (session, topic, owner) = (publisher.session, publisher.topic, *token);
        if !session.stands(env, topic) && !publisher.fenced {
            let next_seq = session.next_seq(env, topic);
            self.fence(Over { owner, epoch: session.epoch, next_seq });
        }
    }
}
