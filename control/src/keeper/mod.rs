//! The keeper: the thread that owns topics, segments and what is said to brokers.
//!
//! It writes the topic table, segment headers, chain and ring lines, command rings and the
//! leader's heartbeat. The sequencer thread writes the order; the two speak by channels only.

mod brokers;
mod deletion;
mod grants;
mod logs;
mod padding;
mod retire;
mod tokens;
mod topics;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use landfall_layout::counters::Counter;
use landfall_layout::geometry::CONTROL_BLOCK;
use landfall_layout::limits::HEARTBEAT_EVERY_NS;
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_pool::bell::{Bell, Ringer, Role};
use landfall_pool::counters::{Counters, ErrorLog};

use crate::clock::now_ns;
use crate::messages::{Ask, FromSequencer, Sender, Shared, ToSequencer};
use crate::segments::Segments;

pub use brokers::Broker;
pub use topics::{Log, Topic};

use deletion::Deletion;
use grants::Wanted;
use retire::Retiring;

/// Longest sleep of the keeper: work that nobody rings for waits at most this long.
const SLEEP: Duration = Duration::from_millis(10);
/// How often liveness, retention and log room are looked at, nanoseconds.
const ROUND_NS: u64 = 20_000_000;

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
}

/// What recovery has found, or fresh tables.
pub struct State {
    /// Segments.
    pub segments: Segments,
    /// Topics by slot.
    pub topics: Vec<Option<Topic>>,
    /// Segments whose holes are to be padded, of brokers that died before this control began.
    pub unpadded: Vec<(SegmentId, u64)>,
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
    asks: Receiver<Ask>,
    kept_ns: u64,
    segments: Segments,
    topics: Vec<Option<Topic>>,
    brokers: Vec<Broker>,
    wanted: Vec<Wanted>,
    retiring: Vec<Retiring>,
    deletions: Vec<Deletion>,
    unpadded: Vec<(SegmentId, u64)>,
    counters: Counters,
    errors: ErrorLog,
    origin: Instant,
    next_round_ns: u64,
    next_beat_ns: u64,
    retained_ns: u64,
}

impl Keeper {
    /// A keeper of the pool at `path`, leading in `epoch`.
    pub fn new(pool: Arc<Pool>, path: String, epoch: u64, wiring: Wiring, state: State) -> Self {
        let brokers = BrokerId::all().map(|id| Broker::resume(&pool, id)).collect();
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
            asks: wiring.asks,
            kept_ns: wiring.kept_ns,
            segments: state.segments,
            topics: state.topics,
            brokers,
            wanted: Vec::new(),
            retiring: Vec::new(),
            deletions: Vec::new(),
            unpadded: state.unpadded,
            origin: Instant::now(),
            next_round_ns: 0,
            next_beat_ns: 0,
            retained_ns: 0,
        };
        keeper.take_over();
        keeper
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        while !self.shared.is_stopping() {
            self.bell.park(&self.pool);
            if !self.work() {
                self.bell.wait(SLEEP);
            }
            self.bell.unpark(&self.pool);
        }
    }

    /// One pass over everything that may be waiting. True when there was something.
    fn work(&mut self) -> bool {
        let clock_ns = self.clock_ns();
        if clock_ns >= self.next_beat_ns {
            self.pool.beat_leader(now_ns());
            self.next_beat_ns = clock_ns + HEARTBEAT_EVERY_NS;
        }
        let mut busy = self.take_requests();
        busy |= self.take_events();
        busy |= self.take_asks();
        if clock_ns >= self.next_round_ns {
            self.next_round_ns = clock_ns + ROUND_NS;
            self.look_at_brokers();
            self.pad_what_is_due();
            self.room_for_logs();
        }
        self.finish_retirements();
        self.serve_wanted();
        if self.is_time_to_retain(clock_ns) {
            self.retain();
        }
        self.finish_deletions();
        busy | self.flush()
    }

    /// Everything that this control has to say and do first, after another one.
    fn take_over(&mut self) {
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
            FromSequencer::Fenced { topic, client, epoch, next_seq } => {
                let name = self.topic(topic).map_or("?", |topic| topic.entry.name());
                let text = format!(
                    "topic {name}: client {client:#x} is fenced in session epoch {epoch}: its \
                     batch {next_seq} did not come within the session lease"
                );
                self.note(&text);
            }
        }
    }

    fn take_asks(&mut self) -> bool {
        let mut busy = false;
        while let Ok(ask) = self.asks.try_recv() {
            busy = true;
            // Whoever asked may have gone; an answer that nobody takes is no failure.
            match ask {
                Ask::Health(reply) => drop(reply.send(self.health())),
                Ask::Cluster(reply) => drop(reply.send(self.cluster())),
                Ask::Topics(reply) => drop(reply.send(self.list_topics())),
                Ask::Topic(name, reply) => drop(reply.send(self.describe_topic(&name))),
                Ask::Create(spec, reply) => drop(reply.send(self.create_topic(&spec))),
                Ask::Delete(name, reply) => self.delete_topic(&name, reply),
                Ask::Token(name, spec, reply) => drop(reply.send(self.issue_token(&name, spec))),
            }
        }
        busy
    }

    /// Sends what is queued and wakes who sleeps.
    fn flush(&mut self) -> bool {
        let mut busy = false;
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

    fn clock_ns(&self) -> u64 {
        // Nanoseconds since this control began fit 64 bits for 584 years.
        self.origin.elapsed().as_nanos() as u64
    }

    fn note(&self, text: &str) {
        eprintln!("control: {text}");
        self.errors.note(&self.pool, now_ns(), text);
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
