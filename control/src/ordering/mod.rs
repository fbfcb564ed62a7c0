//! The sequencer thread: carries out what the sequencers of all topics decide.
//!
//! It owns the order: log entries, frontiers of sequenced logs, consumed indices, session lines.
//! Between two commands of the keeper it neither allocates nor locks nor writes a log line.

mod burst;
mod commands;
mod leases;
mod over;
mod sessions;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use landfall_layout::counters::Counter;
use landfall_layout::geometry::CONTROL_BLOCK;
use landfall_layout::topic::Order;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::Pool;
use landfall_pool::bell::{Bell, Ringer, Role};
use landfall_pool::counters::Counters;
use landfall_pool::idle::Waiter;
use landfall_pool::log::LogSegment;
use landfall_pool::slot_ring::SlotReader;

use crate::messages::{FromSequencer, Sender, Shared, ToSequencer};
use crate::sequencer::{Fencing, TopicSequencer, Wish};

pub use landfall_pool::idle::Idle;
use over::Over;
pub use sessions::SessionTable;

/// Longest sleep. Whoever has work rings; this only bounds what a lost ring would cost.
const SLEEP: Duration = Duration::from_millis(10);
/// How often gaps are looked at, nanoseconds: far below any lease.
const TICK_NS: u64 = 1_000_000;

/// One broker's ring, as the sequencer reads it.
struct Ring {
    broker: BrokerId,
    reader: SlotReader,
    /// Consumed index that its broker was told.
    told: u64,
}

/// One topic at work.
struct Work {
    topic: TopicId,
    order: Order,
    sequencer: TopicSequencer,
    rings: Vec<Ring>,
    /// Where the next entry goes.
    log: LogSegment,
    /// The segments behind it.
    spares: VecDeque<LogSegment>,
    /// More room has been asked for when it ended below this index.
    asked: u64,
    /// Positions that were asked for and not granted, in the order of asking.
    wishes: VecDeque<Wish>,
    /// Sessions that are to be fenced with the next burst, by line.
    over: Vec<Over>,
}

/// Ends of the channels and bells that the thread has.
pub struct Wiring {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// Its own bell.
    pub bell: Bell,
    /// Wakes the others.
    pub ringer: Ringer,
    /// From the keeper.
    pub from_keeper: Receiver<ToSequencer>,
    /// To the keeper.
    pub to_keeper: Sender<FromSequencer>,
    /// How it waits when there is nothing to do.
    pub idle: Idle,
}

/// The thread's whole state.
pub struct SequencerThread {
    pool: Arc<Pool>,
    epoch: u64,
    shared: Arc<Shared>,
    bell: Bell,
    ringer: Ringer,
    from_keeper: Receiver<ToSequencer>,
    to_keeper: Sender<FromSequencer>,
    idle: Idle,
    works: Vec<Work>,
    sessions: SessionTable,
    counters: Counters,
    origin: Instant,
    next_tick_ns: u64,
    /// When the turn before began, if nothing came between it and this one.
    turned_ns: Option<u64>,
    /// Entries or consumed indices moved since the brokers were last woken.
    moved: bool,
    /// Batches may have begun to wait, or ended to.
    recount: bool,
    /// Sessions fenced in this burst; kept for its room.
    fenced: Vec<Fencing>,
}

impl SequencerThread {
    /// A sequencer that leads in `epoch`, with the sessions that the pool's lines say.
    pub fn new(pool: Arc<Pool>, epoch: u64, wiring: Wiring, sessions: SessionTable) -> Self {
        Self {
            counters: Counters::new(&pool, CONTROL_BLOCK),
            pool,
            epoch,
            shared: wiring.shared,
            bell: wiring.bell,
            ringer: wiring.ringer,
            from_keeper: wiring.from_keeper,
            to_keeper: wiring.to_keeper,
            idle: wiring.idle,
            works: Vec::new(),
            sessions,
            origin: Instant::now(),
            next_tick_ns: 0,
            turned_ns: None,
            moved: false,
            recount: false,
            fenced: Vec::with_capacity(64),
        }
    }

    /// Works until it is told to stop, or finds that another control leads.
    pub fn run(mut self) {
        let mut waiter = Waiter::new(self.idle);
        while !self.shared.is_stopping() {
            match self.turn() {
                None => return,
                Some(true) => waiter.reset(),
                Some(false) => {
                    self.turned_ns = None;
                    if waiter.rest() && !self.sleep() {
                        return;
                    }
                }
            }
        }
    }

    /// Sleeps until a ring. False when another control leads.
    fn sleep(&mut self) -> bool {
        self.bell.park(&self.pool);
        let found = self.turn();
        if found == Some(false) {
            self.counters.add(&self.pool, Counter::Parks, 1);
            self.turned_ns = None;
            self.bell.wait(SLEEP);
        }
        self.bell.unpark(&self.pool);
        found.is_some()
    }

    /// One look at everything. Whether there was something; `None` when another control leads.
    fn turn(&mut self) -> Option<bool> {
        // Relaxed: `take_commands` looks at it in earnest.
        let told = self.shared.for_sequencer.load(Ordering::Relaxed) && self.take_commands();
        // Nanoseconds since the thread began fit 64 bits for 584 years.
        let clock_ns = self.origin.elapsed().as_nanos() as u64;
        if let Some(turned_ns) = self.turned_ns.replace(clock_ns) {
            let turn_ns = clock_ns.saturating_sub(turned_ns);
            self.counters.raise(&self.pool, Counter::SequencerTurnLongestNs, turn_ns);
        }
        let tick = clock_ns >= self.next_tick_ns;
        if tick {
            self.next_tick_ns = clock_ns + TICK_NS;
        }
        let mut busy = told;
        for i in 0..self.works.len() {
            busy |= self.burst(i, clock_ns, tick)?;
        }
        if std::mem::take(&mut self.recount) {
            let held = self.works.iter().map(|work| work.sequencer.held() as u64).sum();
            self.counters.set(&self.pool, Counter::Held, held);
        }
        if self.moved {
            self.moved = false;
            self.wake_brokers();
        }
        if self.to_keeper.is_backed_up() {
            self.to_keeper.flush();
        }
        Some(busy)
    }

    fn wake_brokers(&self) {
        // Relaxed: see `Shared::brokers`.
        let mut brokers = self.shared.brokers.load(Ordering::Relaxed);
        while brokers != 0 {
            let number = brokers.trailing_zeros() as usize;
            brokers &= brokers - 1;
            if let Some(broker) = BrokerId::new(number) {
                self.ringer.ring(&self.pool, Role::Broker(broker));
            }
        }
    }

    fn tell_keeper(&mut self, event: FromSequencer) {
        self.to_keeper.send(event);
        self.ringer.ring(&self.pool, Role::Keeper);
    }

    fn work_of(&mut self, topic: TopicId) -> Option<&mut Work> {
        self.works.iter_mut().find(|work| work.topic == topic)
    }
}
