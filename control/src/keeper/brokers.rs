//! Brokers: who lives, what they ask, what happens when one starts or dies.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use landfall_layout::command::{Command, Denial, Request};
use landfall_layout::limits::HEARTBEAT_LEASE_NS;
use landfall_layout::pool::{BrokerLine, BrokerState};
use landfall_layout::segment::{SegmentKind, SegmentState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::clock::wall_ns;
use landfall_pool::lock::Byte;
use landfall_pool::slot_ring::SlotWriter;
use landfall_pool::{Memory, Pool};

use super::Keeper;
use super::grants::Sort;
use crate::life::{Beats, Life, judge};
use crate::messages::{OpenSession, ToSequencer};
use crate::outbox::Outbox;
use crate::sequencer::Wish;

/// Requests of one broker taken in one pass, so that one does not keep the others waiting.
const REQUESTS_PER_PASS: usize = 256;
/// Session answers remembered for each broker: a request that is repeated gets the same answer
/// and opens nothing twice.
const ANSWERS_KEPT: usize = 4096;

/// Brokers whose process was killed on another host, a bit each, where hosts do not see each
/// other's caches.
pub fn stranded(pool: &Pool, life: impl Fn(BrokerId) -> Life) -> u32 {
    if !pool.flushes() {
        return 0;
    }
    let is_stranded = |id: &BrokerId| {
        let line = pool.broker(*id);
        let gone = match life(*id) {
            Life::Gone { cleanly } => !cleanly,
            Life::Silent => true,
            // It is not judged yet.
            Life::Never => BrokerState::from_raw(line.state) != BrokerState::Absent,
            Life::Live | Life::Frozen => false,
        };
        gone && line.incarnation != 0 && line.host != landfall_pool::host::id()
    };
    BrokerId::all().filter(is_stranded).fold(0, |mask, id| mask | 1 << id.index())
}

/// A broker as the keeper sees it.
#[derive(Debug)]
pub struct Broker {
    /// Its number.
    pub id: BrokerId,
    /// Its command rings.
    pub outbox: Outbox,
    /// How it is.
    pub life: Life,
    /// Its heartbeats.
    pub beats: Beats,
    /// The incarnation whose segments it may have open; 0: none.
    pub incarnation: u64,
    /// This control has taken a `Register` of that incarnation.
    pub registered: bool,
    /// The process of that incarnation has spoken to this control.
    pub(super) is_heard: bool,
    /// What its last process left behind has been dealt with.
    pub(super) ended: bool,
    /// Publishers over memory of an earlier process of it may still write.
    pub(super) has_writers: bool,
    /// Its dead process's subscribers may be reading until then, by control's own clock.
    pub grace_ns: u64,
    /// A process of this number that may still write, although nobody waits for it; 0: none is.
    pub(super) ghost: u64,
    /// The process that was told, by the word it looks at, that it is not counted on any more.
    pub(super) disowned: u64,
    /// Session requests by number, with their answers once there are.
    answers: HashMap<u64, Option<Command>>,
    /// Numbers that are answered, the oldest first.
    answered: VecDeque<u64>,
}

impl Broker {
    /// A broker at control's start.
    pub fn resume(pool: &Pool, id: BrokerId, epoch: u64) -> Self {
        Self {
            id,
            outbox: Outbox::begin(pool, id, epoch),
            life: Life::Never,
            beats: Beats::default(),
            incarnation: pool.broker(id).incarnation,
            registered: false,
            is_heard: false,
            ended: false,
            has_writers: false,
            grace_ns: 0,
            ghost: 0,
            disowned: 0,
            answers: HashMap::new(),
            answered: VecDeque::new(),
        }
    }

    /// Its bit in a mask.
    pub fn bit(&self) -> u32 {
        1 << self.id.index()
    }

    /// Its state for people and clients.
    pub fn state_name(&self, line: &BrokerLine) -> &'static str {
        match (self.life, BrokerState::from_raw(line.state)) {
            (Life::Live, BrokerState::Leaving | BrokerState::Landed) => "leaving",
            (Life::Live, _) => "serving",
            (Life::Frozen, _) => "frozen",
            _ => "dead",
        }
    }

    /// What a session request is to do: wait for its answer, get it again, or, when it is new,
    /// ask the sequencer.
    fn session_request(&mut self, request: u64) -> Option<Option<Command>> {
        if let Some(answer) = self.answers.get(&request) {
            return Some(*answer);
        }
        self.answers.insert(request, None);
        None
    }

    /// Keeps an answer, in case its request comes again. False when nobody waits for it: its
    /// broker is another process now, to which the number may mean something else.
    fn session_answer(&mut self, request: u64, answer: Command) -> bool {
        let Some(place) = self.answers.get_mut(&request) else { return false };
        *place = Some(answer);
        self.answered.push_back(request);
        if self.answered.len() > ANSWERS_KEPT
            && let Some(oldest) = self.answered.pop_front()
        {
            self.answers.remove(&oldest);
        }
        true
    }
}

impl Keeper {
    pub(super) fn send(&mut self, broker: BrokerId, command: Command) {
        self.brokers[broker.index()].outbox.send(command);
    }

    /// Brokers that may be reading or landing, a bit each.
    pub(super) fn acting(&self) -> u32 {
        let acting = self.brokers.iter().filter(|broker| broker.life.may_act());
        acting.fold(0, |mask, broker| mask | broker.bit())
    }

    /// When the last subscriber of the brokers that have died so far has let go, by control's own
    /// clock. What begins now waits that long and no longer: whoever begins to read later sees
    /// that it may not, whichever broker dies meanwhile.
    pub(super) fn grace_ns(&self) -> u64 {
        self.brokers.iter().map(|broker| broker.grace_ns).max().unwrap_or(0)
    }

    pub(super) fn take_requests(&mut self) -> bool {
        let mut busy = false;
        for id in BrokerId::all() {
            for _ in 0..REQUESTS_PER_PASS {
                let broker = &mut self.brokers[id.index()];
                let Some(request) = broker.outbox.next_request(&self.pool) else { break };
                busy = true;
                self.on_request(id, request);
            }
        }
        busy
    }

    fn on_request(&mut self, broker: BrokerId, request: Request) {
        let is_wish = matches!(
            request,
            Request::OpenRing { .. }
                | Request::Want { .. }
                | Request::OpenSession { .. }
                | Request::Joined { .. }
                | Request::Reserve { .. }
        );
        // Found in the ring of a process that is gone: nobody would take what it asked for.
        if is_wish && self.brokers[broker.index()].ended {
            return;
        }
        match request {
            Request::Register { incarnation } => self.register(broker, incarnation),
            Request::OpenRing { topic } => self.want(broker, topic, Sort::Ring, false),
            Request::Want { kind: SegmentKind::Payload, topic, is_ahead } => {
                self.want(broker, topic, Sort::Payload, is_ahead);
            }
            Request::Want { kind: SegmentKind::OrderLog, topic, is_ahead } => {
                self.want(broker, topic, Sort::Log, is_ahead);
            }
            Request::Want { kind, topic, .. } => {
                // Rings are asked for by `OpenRing`, and nothing else can be granted.
                let why = Denial::NoTopic;
                let command = self.denied(topic, kind, why);
                self.send(broker, command);
            }
            Request::OpenSession { request, topic, client, epoch, life, comes_back } => {
                self.open_session(OpenSession {
                    broker,
                    request,
                    topic,
                    client,
                    epoch,
                    life,
                    comes_back,
                });
            }
            Request::CloseSession { index, epoch } => {
                self.tell_sequencer(ToSequencer::CloseSession { broker, index, epoch });
            }
            // What was said to another leader is said to this one anew. A process that is gone is
            // in no session, and could not say later that it is not.
            Request::Joined { leader, sessions } => {
                if leader == self.epoch {
                    self.tell_sequencer(ToSequencer::Joined { broker, sessions });
                }
            }
            Request::JoinedAll { leader } => {
                if leader == self.epoch {
                    self.tell_sequencer(ToSequencer::JoinedAll { broker });
                }
            }
            Request::Reserve { request, topic, session, epoch, count, whole } => {
                let wish = Wish { session, epoch, broker, request, count, whole };
                self.reserve_positions(topic, wish);
            }
            Request::Sealed { segment, generation, through } => {
                self.sealed(broker, segment, generation, through);
            }
            Request::Retired { segment, generation } => self.retired(broker, segment, generation),
            Request::TopicReleased { topic } => self.topic_released(broker, topic),
            Request::TopicSaid { topic } => self.topic_said(broker, topic),
            Request::Lost { segment } => self.lose(SegmentId(segment), Some(broker)),
            Request::Withhold { segment, generation } => {
                self.named(broker, segment, generation);
            }
            Request::LetGo { segment, generation } => {
                self.segments.unname(broker, SegmentId(segment), generation);
            }
            Request::AllWithheld { epoch, incarnation } => {
                self.all_named(broker, epoch, incarnation);
            }
            Request::Fence { topic, client, epoch, late } => {
                self.tell_sequencer(ToSequencer::Fence { topic, client, epoch, late });
            }
        }
    }

    fn open_session(&mut self, open: OpenSession) {
        let OpenSession { broker, request, topic, client, .. } = open;
        match self.brokers[broker.index()].session_request(request) {
            Some(Some(answer)) => self.send(broker, answer),
            Some(None) => {}
            None if client == 0 || self.live_topic(topic).is_none() => {
                let why = if client == 0 { Denial::NoSession } else { Denial::NoTopic };
                let denied = Command::SessionDenied { request, why, epoch: 0, next_seq: 0 };
                self.answer_session(broker, denied);
            }
            None => self.tell_sequencer(ToSequencer::OpenSession(open)),
        }
    }

    fn reserve_positions(&mut self, topic: TopicId, wish: Wish) {
        let Wish { broker, request, .. } = wish;
        match self.brokers[broker.index()].session_request(request) {
            Some(Some(answer)) => self.send(broker, answer),
            Some(None) => {}
            None if self.live_topic(topic).is_none() => {
                let why = Denial::NoTopic;
                let denied = Command::SessionDenied { request, why, epoch: 0, next_seq: 0 };
                self.answer_session(broker, denied);
            }
            None => self.tell_sequencer(ToSequencer::Reserve { topic, wish }),
        }
    }

    /// Sends a session's answer, and keeps it in case the request comes again.
    pub(super) fn answer_session(&mut self, broker: BrokerId, command: Command) {
        if let Command::SessionOpen { request, .. }
        | Command::SessionDenied { request, .. }
        | Command::Reserved { request, .. } = command
            && self.brokers[broker.index()].session_answer(request, command)
        {
            self.send(broker, command);
        }
    }

    /// A process took this broker's number, or asks again whether it may begin.
    fn register(&mut self, id: BrokerId, incarnation: u64) {
        let broker = &self.brokers[id.index()];
        // A control that has just begun cannot know whether the one before it took this request.
        // Either way the process has not had its answer, so it has no segment of its own yet.
        if !broker.registered || broker.incarnation != incarnation {
            match broker.ended {
                // It takes nothing that was sent before it is accepted, and is waited for no more.
                true => self.forget_process(id),
                false => self.process_ended(id, self.grace_each_ns),
            }
            let broker = &mut self.brokers[id.index()];
            broker.incarnation = incarnation;
            (broker.registered, broker.is_heard) = (true, true);
            broker.ended = false;
            // Nobody takes a number before the process that had it is known to be gone.
            self.lay_ghost(id);
            self.pool.count_on(id, incarnation);
            self.look_at_brokers();
        }
        let epoch = self.epoch;
        self.send(id, Command::Accepted { epoch, incarnation });
    }

    /// A broker's process is gone. Its subscribers, which read the pool by themselves, have
    /// `grace_ns` from now to see that their connection ended.
    pub(super) fn process_ended(&mut self, id: BrokerId, grace_ns: u64) {
        let until_ns = self.clock_ns().saturating_add(grace_ns);
        self.wait_for_subscribers(id, until_ns);
        self.forget_process(id);
        let broker = &mut self.brokers[id.index()];
        broker.ended = true;
        if broker.incarnation != 0 {
            broker.grace_ns = until_ns;
        }
        self.tell_sequencer(ToSequencer::BrokerGone { broker: id });
    }

    /// What still waits for the answer of a broker whose process is gone waits for its subscribers
    /// instead. What has its answer waits for none of them: they let go of it before it was given.
    fn wait_for_subscribers(&mut self, id: BrokerId, until_ns: u64) {
        let bit: u32 = 1 << id.index();
        for retiring in self.retiring.iter_mut().filter(|retiring| retiring.waiting & bit != 0) {
            retiring.not_before_ns = retiring.not_before_ns.max(until_ns);
        }
        for deletion in self.deletions.iter_mut().filter(|deletion| deletion.waiting & bit != 0) {
            deletion.not_before_ns = deletion.not_before_ns.max(until_ns);
        }
    }

    /// What a broker's process leaves behind when it is gone: its payload segments are sealed and
    /// kept for the session lease, and it is waited for no more.
    fn forget_process(&mut self, id: BrokerId) {
        let (now, clock_ns) = (wall_ns(), self.clock_ns());
        self.withhold_from_writers(id);
        let owned: Vec<_> = self
            .segments
            .all()
            .filter(|(_, used)| {
                used.what.owner == id.raw()
                    && used.what.kind == SegmentKind::Payload
                    && used.what.state == SegmentState::Open
            })
            .map(|(segment, used)| (segment, used.what.topic))
            .collect();
        for (segment, topic) in &owned {
            let through = self.landed_through(*topic, id);
            let until = clock_ns.saturating_add(self.kept_ns);
            if let Some(used) = self.segments.get_mut(*segment) {
                used.through = through;
                used.kept_until_ns = until;
            }
            self.segments.set_state(*segment, SegmentState::Sealed, now);
            self.unpadded.push((*segment, until));
        }
        self.bound_kept(id, clock_ns);
        self.wanted.retain(|wanted| wanted.broker != id);
        self.offer_logs_again(id);
        let bit: u32 = 1 << id.index();
        self.retiring.iter_mut().for_each(|retiring| retiring.waiting &= !bit);
        self.deletions.iter_mut().for_each(|deletion| deletion.waiting &= !bit);
        let broker = &mut self.brokers[id.index()];
        broker.outbox.clear();
        broker.answers.clear();
        broker.answered.clear();
    }

    /// Ring or log index below which everything is that the broker has committed for a topic.
    pub(super) fn landed_through(&self, topic: landfall_layout::TopicId, broker: BrokerId) -> u64 {
        match self.topic(topic) {
            Some(known) if known.order.is_sequenced() => self
                .pool
                .slot_ring(topic, broker)
                .map_or(0, |ring| SlotWriter::resume(&*self.pool, ring).next()),
            _ => self.pool.frontier(topic, broker.index()).entries,
        }
    }

    /// Judges every broker anew.
    pub(super) fn look_at_brokers(&mut self) {
        let clock_ns = self.clock_ns();
        let ballot = Arc::clone(&self.ballot);
        let locks = ballot.locks();
        for id in BrokerId::all() {
            let line = self.pool.broker(id);
            if line.incarnation == 0 {
                continue;
            }
            let broker = &mut self.brokers[id.index()];
            let age_ns = broker.beats.look(&line, clock_ns);
            let process = locks.process(Byte::Broker(id), line.host, line.locked);
            let mut life = judge(&line, age_ns, process);
            if life.may_act() && broker.disowned == line.incarnation {
                // It beats again, and has not looked yet. What it had is given up for good.
                life = Life::Silent;
            }
            let before = std::mem::replace(&mut broker.life, life);
            if before != life {
                self.life_changed(id, before, life);
            }
            self.look_at_ghost(id, line.incarnation, age_ns);
            self.look_at_writers(id);
        }
        self.segments.strand(stranded(&self.pool, |id| self.brokers[id.index()].life));
        // Relaxed: a broker that is missed for one burst sleeps a millisecond longer.
        self.shared.brokers.store(self.acting(), Ordering::Relaxed);
    }

    fn life_changed(&mut self, id: BrokerId, before: Life, life: Life) {
        match life {
            Life::Gone { cleanly } => {
                if before != Life::Never && !cleanly {
                    self.note(&format!("broker {id} died: its process is gone"));
                }
                let age_ns = self.brokers[id.index()].beats.age_ns(self.clock_ns());
                let grace_ns = match before {
                    _ if cleanly => 0,
                    // Found dead at the start: it was not there for as long as it did not beat.
                    Life::Never => self.grace_each_ns.saturating_sub(age_ns),
                    _ => self.grace_each_ns,
                };
                self.process_ended(id, grace_ns);
            }
            Life::Silent => self.disown(id),
            Life::Frozen => self.note(&format!(
                "broker {id} has not moved its heartbeat for {} s and its process is still there: \
                 it is frozen, and what it reads or writes waits for it",
                HEARTBEAT_LEASE_NS / 1_000_000_000
            )),
            Life::Live | Life::Never => {}
        }
    }
}
