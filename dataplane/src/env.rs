//! What every part of the broker needs: the pool, its own number, counters, bells.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;

use landfall_layout::counters::{Counter, Stage};
use landfall_layout::order::OrderEntry;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::Pool;
use landfall_pool::bell::{Ringer, Role};
use landfall_pool::clock::{boot_ns, wall_ns};
use landfall_pool::counters::{Counters, ErrorLog};
use landfall_pool::poison::Part;

use crate::halves::Halves;
use crate::standing::Standing;

/// Shared by all parts, changed by none.
pub struct Env {
    pub pool: Pool,
    pub me: BrokerId,
    pub incarnation: u64,
    pub read_only: File,
    pub ringer: Ringer,
    pub standing: Standing,
    pub halves: Halves,
    /// Wall time minus boot time, as of the last tick.
    wall_ahead_ns: Cell<u64>,
    counters: Counters,
    errors: ErrorLog,
    unfaithful: RefCell<Vec<Unfaithful>>,
}

/// A session of which a batch is not what it was when it landed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unfaithful {
    pub topic: TopicId,
    pub client: u64,
    pub epoch: u32,
}

/// Sessions that wait to be told of, at most: the next batch of one that found no room tells again.
const UNFAITHFUL_MAX: usize = 64;

impl Unfaithful {
    pub fn of(topic: TopicId, entry: &OrderEntry) -> Self {
        Self { topic, client: entry.client, epoch: entry.session_epoch }
    }

    /// Adds it, unless it is there.
    pub fn note(self, all: &mut Vec<Self>) {
        if all.len() < UNFAITHFUL_MAX && !all.contains(&self) {
            all.push(self);
        }
    }
}

impl fmt::Display for Unfaithful {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "client {:#x}, session epoch {}: batches of it are not what they were when they \
             landed; they are read from a copy, or lost, and the session is fenced",
            self.client, self.epoch
        )
    }
}

impl Env {
    pub fn new(pool: Pool, me: BrokerId, incarnation: u64) -> std::io::Result<Self> {
        pool.take_part(Part::System);
        let read_only = pool.read_only_file()?;
        let ringer = Ringer::new(&pool)?;
        let counters = Counters::new(&pool, me.index());
        let errors = ErrorLog::new(&pool, me.index());
        let halves = Halves::new(pool.geometry().pool_bytes());
        let env = Self {
            pool,
            me,
            incarnation,
            read_only,
            ringer,
            standing: Standing::new(me, incarnation),
            halves,
            wall_ahead_ns: Cell::new(0),
            counters,
            errors,
            unfaithful: RefCell::new(Vec::new()),
        };
        env.set_clock(boot_ns());
        Ok(env)
    }

    /// Whether this process may write into the pool at `now_ns`, by boot time.
    #[inline]
    pub fn stands(&self, now_ns: u64) -> bool {
        self.standing.holds(&self.pool, now_ns)
    }

    /// Looks what the wall clock says at a boot time.
    pub fn set_clock(&self, now_ns: u64) {
        self.wall_ahead_ns.set(wall_ns().wrapping_sub(now_ns));
    }

    /// The wall clock at a boot time since the last look at it, without asking for it: a clock that
    /// was set is followed with the next tick.
    #[inline]
    pub fn wall_at(&self, now_ns: u64) -> u64 {
        now_ns.wrapping_add(self.wall_ahead_ns.get())
    }

    #[inline]
    pub fn count(&self, counter: Counter, amount: u64) {
        self.counters.add(&self.pool, counter, amount);
    }

    /// Shows a counter that is the greatest of some values.
    #[inline]
    pub fn raise(&self, counter: Counter, value: u64) {
        self.counters.raise(&self.pool, counter, value);
    }

    /// Shows a counter that is a level.
    pub fn set(&self, counter: Counter, value: u64) {
        self.counters.set(&self.pool, counter, value);
    }

    #[inline]
    pub fn latency(&self, stage: Stage, from_ns: u64, to_ns: u64) {
        self.counters.latency(&self.pool, stage, to_ns.saturating_sub(from_ns));
    }

    /// Notes an error where tools find it.
    #[cold]
    pub fn error(&self, text: &str) {
        self.errors.note(&self.pool, wall_ns(), text);
    }

    /// The same of what a client caused, who may cause as many as it likes.
    #[cold]
    pub fn client_error(&self, text: &str) {
        self.errors.note_client(&self.pool, wall_ns(), text);
    }

    /// Notes whose batch it is that does not hold: its session is to be fenced.
    #[cold]
    pub fn is_unfaithful(&self, who: Unfaithful) {
        who.note(&mut self.unfaithful.borrow_mut());
    }

    /// The sessions that were noted since the last time.
    pub fn take_unfaithful(&self) -> Vec<Unfaithful> {
        self.unfaithful.take()
    }

    /// Wakes control's threads after a request.
    pub fn ring_control(&self) {
        self.ringer.ring(&self.pool, Role::Keeper);
        self.ringer.ring(&self.pool, Role::Sequencer);
    }
}
