//! The keeper: the thread that owns topics, segments and what is said to brokers.
//!
//! It writes the topic table, segment headers, chain and ring lines, command rings and the
//! leader's heartbeat. The sequencer thread writes the order; the two speak by channels only.

mod asks;
mod brokers;
mod coming;
mod copies;
mod creation;
mod deletion;
mod fences;
mod grants;
mod graves;
mod kept;
mod known;
mod logs;
mod lost;
mod padding;
mod parts;
mod retire;
mod rings;
mod silent;
mod skips;
mod sums;
mod taken;
mod tokens;
mod topics;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use landfall_layout::counters::Counter;
use landfall_layout::geometry::CONTROL_BLOCK;
use landfall_layout::limits::HEARTBEAT_EVERY_NS;
use landfall_layout::segment::{SegmentKind, SegmentState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_pool::attention::Attention;
use landfall_pool::bell::{Bell, Ringer, Role};
use landfall_pool::clock::{boot_ns, wall_ns};
use landfall_pool::counters::{Counters, ErrorLog};
use landfall_pool::stderr;

use crate::election::Ballot;
use crate::messages::{Ask, FromSequencer, Reply, Sender, Shared, ToSequencer};
use crate::segments::{Reason, Segments};

pub use brokers::{Broker, stranded};
pub use graves::Graves;
pub use silent::{withhold_stray, withhold_uncounted, withhold_written};
pub use topics::{Log, Passed, Topic};

use asks::Asks;
use copies::Copies;
use creation::Creation;
use deletion::Deletion;
use grants::Wanted;
use padding::Gathering;
use retire::Retiring;
use skips::TellSkips;
use taken::Taken;

/// Longest sleep of the keeper: work that nobody rings for waits at most this long.
const SLEEP: Duration = Duration::from_millis(10);
/// How often liveness, retention and log room are looked at, nanoseconds.
const ROUND_NS: u64 = 20_000_000;
/// Entries of logs that one turn reads, for sums and for padding: some milliseconds, far below
/// every lease. What is not done then goes on in the next one.
const ENTRIES_PER_TURN: u64 = 1 << 16;

/// Ends of the channels and bells that the keeper has.
pub struct Wiring {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// Its own bell.
    pub bell: Bell,
    /// Wakes the others.
    pub ringer: Ringer,
    /// To the sequencer thread.
    pub to_sequencer: Sender<ToSequencer>,
    /// From the sequencer thread.
    pub from_sequencer: Receiver<FromSequencer>,
    /// From HTTP.
    pub asks: Receiver<Ask>,
    /// How long a dead broker's segments are kept, nanoseconds.
    pub kept_ns: u64,
    /// How long a dead broker's memory subscribers have to let go, nanoseconds.
    pub grace_ns: u64,
    /// How long the keeper of a copy on disk is away before another takes it over, nanoseconds.
    pub move_ns: u64,
    /// How long a broker of another host is silent until it counts as gone, nanoseconds.
    pub gone_ns: u64,
    /// How long a session is kept open that no broker is in, nanoseconds.
    pub session_lease_ns: u64,
    /// This leader's slot, and what tells whether the processes of others still run.
    pub ballot: Arc<Ballot>,
    /// Leaders of which the processes could still be running at the takeover, by slot and epoch.
    pub earlier: Vec<(usize, u64)>,
    /// What data directories have of topics.
    pub graves: Graves,
}

/// What recovery has found, or fresh tables.
pub struct State {
    /// Segments.
    pub segments: Segments,
    /// Topics by slot.
    pub topics: Vec<Option<Topic>>,
    /// Segments whose holes are to be padded, of brokers that died before this control began.
    pub unpadded: Vec<(SegmentId, u64)>,
    /// Open payload segments: their brokers may not have been told of them.
    pub offers: Vec<SegmentId>,
}

/// The thread's whole state.
pub struct Keeper {
    pool: Arc<Pool>,
    path: String,
    epoch: u64,
    shared: Arc<Shared>,
    bell: Bell,
    ringer: Ringer,
    to_sequencer: Sender<ToSequencer>,
    from_sequencer: Receiver<FromSequencer>,
    asks: Asks<Ask>,
    kept_ns: u64,
    grace_each_ns: u64,
    gone_ns: u64,
    session_lease_ns: u64,
    attention: Attention,
    /// When it began to lead.
    began_ns: u64,
    ballot: Arc<Ballot>,
    earlier: Vec<(usize, u64)>,
    segments: Segments,
    topics: Vec<Option<Topic>>,
    brokers: Vec<Broker>,
    wanted: Vec<Wanted>,
    taken: Taken,
    /// It has said that these wait.
    says_short: bool,
    retiring: Vec<Retiring>,
    creations: Vec<Creation>,
    deletions: Vec<Deletion>,
    graves: Graves,
    tokens: tokens::Issued,
    skips: TellSkips,
    copies: Copies,
    unpadded: Vec<(SegmentId, u64)>,
    gatherings: VecDeque<Gathering>,
    offers: Vec<SegmentId>,
    counters: Counters,
    errors: ErrorLog,
    next_round_ns: u64,
    next_beat_ns: u64,
    next_lease_ns: u64,
    retained_ns: u64,
    /// Segments that this process knew to be lost when it last looked.
    losses_seen: u32,
    /// Entries of logs that this turn may still read.
    entries_left: u64,
    /// Answers to those who asked, ready to be given.
    answers: Vec<Box<dyn FnOnce() + Send>>,
}

impl Keeper {
    /// A keeper of the pool at `path`, leading in `epoch`.
    pub fn new(pool: Arc<Pool>, path: String, epoch: u64, wiring: Wiring, state: State) -> Self {
        let brokers = BrokerId::all().map(|id| Broker::resume(&pool, id, epoch)).collect();
        let mut keeper = Self {
            counters: Counters::new(&pool, CONTROL_BLOCK),
            errors: ErrorLog::new(&pool, CONTROL_BLOCK),
            pool,
            path,
            epoch,
            shared: wiring.shared,
            bell: wiring.bell,
            ringer: wiring.ringer,
            to_sequencer: wiring.to_sequencer,
            from_sequencer: wiring.from_sequencer,
            asks: Asks::new(wiring.asks),
            kept_ns: wiring.kept_ns,
            grace_each_ns: wiring.grace_ns,
            gone_ns: wiring.gone_ns,
            session_lease_ns: wiring.session_lease_ns,
            attention: Attention::default(),
            began_ns: boot_ns(),
            ballot: wiring.ballot,
            earlier: wiring.earlier,
            segments: state.segments,
            topics: state.topics,
            brokers,
            wanted: Vec::new(),
            taken: Taken::default(),
            says_short: false,
            retiring: Vec::new(),
            creations: Vec::new(),
            deletions: Vec::new(),
            graves: wiring.graves,
            tokens: tokens::Issued::default(),
            skips: TellSkips::default(),
            copies: Copies::new(wiring.move_ns),
            unpadded: state.unpadded,
            gatherings: VecDeque::new(),
            offers: state.offers,
            next_round_ns: 0,
            next_beat_ns: 0,
            next_lease_ns: 0,
            retained_ns: 0,
            losses_seen: 0,
            entries_left: ENTRIES_PER_TURN,
            answers: Vec::new(),
        };
        keeper.take_over();
        keeper
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        while !self.shared.is_stopping() {
            self.bell.park(&self.pool);
            let began_ns = self.clock_ns();
            let busy = self.work(began_ns);
            let turn_ns = self.clock_ns().saturating_sub(began_ns);
            self.counters.raise(&self.pool, Counter::KeeperTurnLongestNs, turn_ns);
            if !busy {
                self.bell.wait(SLEEP);
            }
            self.bell.unpark(&self.pool);
        }
    }

    /// One pass over everything that may be waiting. True when there was something.
    fn work(&mut self, clock_ns: u64) -> bool {
        if clock_ns >= self.next_beat_ns {
            // Also where there is nothing to say: the next leader waits for this process to end.
            if !self.still_leads() {
                return false;
            }
            self.pool.beat_leader(clock_ns);
            self.next_beat_ns = clock_ns + HEARTBEAT_EVERY_NS;
        }
        self.read_again();
        let mut busy = self.take_requests();
        busy |= self.take_events();
        busy |= self.take_asks();
        if clock_ns >= self.next_round_ns {
            self.next_round_ns = clock_ns + ROUND_NS;
            self.look_at_brokers();
            self.look_at_copies();
            self.look_at_earlier();
            self.look_at_losses();
            self.offer_again();
            self.room_for_logs();
            self.look_at_leases(clock_ns);
        }
        busy |= self.pad_what_is_due();
        self.finish_retirements();
        busy |= self.segments.finish_return();
        self.serve_wanted();
        if self.is_time_to_retain(clock_ns) {
            self.retain();
        }
        self.finish_deletions();
        self.finish_creations(clock_ns);
        busy | self.flush()
    }

    /// Lets the sequencer close sessions that no broker is in: whatever brokers said until now, it
    /// hears before.
    fn look_at_leases(&mut self, clock_ns: u64) {
        let heard_ns = self.attention.look(clock_ns);
        if clock_ns < self.next_lease_ns || self.to_sequencer.is_backed_up() {
            return;
        }
        self.next_lease_ns = clock_ns + HEARTBEAT_EVERY_NS;
        let lease_ns = self.session_lease_ns;
        self.tell_sequencer(ToSequencer::CloseLeft { heard_ns, lease_ns });
    }

    /// Everything that this control has to say and do first, after another one.
    fn take_over(&mut self) {
        for id in BrokerId::all() {
            // Those that were there when the segments were read may have gone since.
            let has_writers = !self.segments.withheld(id, Reason::Writers).is_empty()
                || silent::may_have_earlier_writers(&self.pool, self.ballot.locks(), id);
            let broker = &mut self.brokers[id.index()];
            broker.ghost = silent::uncounted(&self.pool, id);
            broker.has_writers = has_writers;
            self.bound_kept(id, self.clock_ns());
        }
        self.look_at_brokers();
        self.retire_again();
        self.delete_again();
        self.flush();
    }

    fn take_events(&mut self) -> bool {
        let mut busy = false;
        loop {
            match self.from_sequencer.try_recv() {
                Ok(event) => self.on_event(event),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return busy,
            }
            busy = true;
        }
    }

    fn on_event(&mut self, event: FromSequencer) {
        match event {
            FromSequencer::Answer { broker, command } => self.answer_session(broker, command),
            FromSequencer::LogWanted { topic, room } => self.extend_sequenced(topic, room),
            FromSequencer::Dropped { topic } => self.sequencer_dropped(topic),
            FromSequencer::Fenced { topic, client, cause } => self.fenced(topic, client, cause),
        }
    }

    /// Segments that leaders before may still write into are free once all those processes are
    /// gone.
    fn look_at_earlier(&mut self) {
        if self.segments.suspects() {
            let (ballot, pool) = (&self.ballot, &self.pool);
            self.earlier.retain(|(slot, _)| ballot.may_run(pool, *slot));
            if self.earlier.is_empty() {
                self.segments.clear();
            }
        }
        if self.segments.awaits_followers() {
            let acting = self.acting();
            if BrokerId::all().all(|id| acting >> id.index() & 1 == 0 || self.is_followed_by(id)) {
                self.segments.followed();
            }
        }
    }

    fn is_followed_by(&self, broker: BrokerId) -> bool {
        self.pool.broker(broker).epoch_seen >= self.epoch
    }

    /// Offers brokers that follow this leader the payload segments again that are theirs in the
    /// tables: the grant of one may never have reached its broker, which passes over one it knows.
    fn offer_again(&mut self) {
        for segment in std::mem::take(&mut self.offers) {
            let Some(used) = self.segments.get(segment) else { continue };
            let is_open =
                used.what.kind == SegmentKind::Payload && used.what.state == SegmentState::Open;
            let owner = BrokerId::new(used.what.owner.into()).filter(|_| is_open);
            let Some(owner) = owner else { continue };
            if self.acting() >> owner.index() & 1 == 0 || !self.is_followed_by(owner) {
                self.offers.push(segment);
            } else if let Some(command) = self.grant_of(segment) {
                self.send(owner, command);
            }
        }
    }

    /// Sends what is queued and wakes who sleeps. Everything that is told was written before, and
    /// counts only while nobody else has claimed the lead.
    fn flush(&mut self) -> bool {
        let has_news = self.brokers.iter().any(|broker| !broker.outbox.is_empty());
        if (has_news || !self.answers.is_empty()) && !self.still_leads() {
            self.answers.clear();
            return false;
        }
        let mut busy = !self.answers.is_empty();
        self.answers.drain(..).for_each(|answer| answer());
        for broker in &mut self.brokers {
            if broker.outbox.flush(&self.pool) {
                self.ringer.ring(&self.pool, Role::Broker(broker.id));
                busy = true;
            }
        }
        if self.to_sequencer.is_backed_up() && self.to_sequencer.flush() {
            self.wake_sequencer();
        }
        busy
    }

    /// Whether this control still leads; if not, it stops.
    fn still_leads(&self) -> bool {
        let leads = self.pool.leads(self.epoch);
        if !leads {
            self.shared.depose(self.pool.highest_epoch());
        }
        leads
    }

    /// Answers once it is certain that this control led when it decided. Whoever asked may have
    /// gone; an answer that nobody takes is no failure.
    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, answer: T) {
        self.answers.push(Box::new(move || drop(reply.send(answer))));
    }

    fn tell_sequencer(&mut self, message: ToSequencer) {
        self.to_sequencer.send(message);
        self.wake_sequencer();
    }

    fn wake_sequencer(&self) {
        // EDGE for-sequencer, release half. Pairs with the sequencer's `take_commands`; the
        // channel carries the messages, the flag only says that it is worth looking.
        self.shared.for_sequencer.store(true, Ordering::Release);
        self.ringer.ring(&self.pool, Role::Sequencer);
    }

    /// The clock of everything that takes time here.
    fn clock_ns(&self) -> u64 {
        boot_ns()
    }

    fn note(&self, text: &str) {
        stderr::note(format_args!("control: {text}"));
        self.errors.note(&self.pool, wall_ns(), text);
    }

    /// The same of what a client caused, who may cause as many as it likes.
    fn note_client(&self, text: &str) {
        stderr::note(format_args!("control: {text}"));
        self.errors.note_client(&self.pool, wall_ns(), text);
    }

    /// The same of what is as it should be.
    fn tell(&self, text: &str) {
        stderr::note(format_args!("control: {text}"));
        self.errors.tell(&self.pool, wall_ns(), text);
    }

    fn count(&self, counter: Counter, amount: u64) {
        self.counters.add(&self.pool, counter, amount);
    }

    fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(id.slot())?.as_ref().filter(|topic| topic.id == id)
    }

    fn topic_mut(&mut self, id: TopicId) -> Option<&mut Topic> {
        self.topics.get_mut(id.slot())?.as_mut().filter(|topic| topic.id == id)
    }

    fn live_topic(&self, id: TopicId) -> Option<&Topic> {
        self.topic(id).filter(|topic| topic.is_live())
    }
}
