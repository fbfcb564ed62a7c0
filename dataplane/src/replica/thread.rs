//! The replicator's loop.

mod mending;
mod opening;

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use landfall_layout::counters::{Counter, Stage};
use landfall_layout::fate::Fate;
use landfall_layout::limits::{SEQUENCED_LOG, TOPICS_MAX};
use landfall_layout::topic::{TopicEntry, TopicState};
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::Pool;
use landfall_pool::bell::{Ringer, Role};
use landfall_pool::counters::Counters;
use landfall_pool::disk::{Disk, Syncs, Writing, write_all};
use landfall_pool::idle::{Idle, Waiter};
use landfall_replica::names::topic_directory;

use super::duties::{Duty, Lag};
use super::given_back::GivenBack;
use super::goal::Goals;
use super::group::Buffers;
use super::had;
use super::home::Home;
use super::one::{Event, Replica};
use super::said::{Named, lacks, write_topic};
use super::{Data, Shared};
use crate::standing::Standing;
use landfall_pool::clock::boot_ns;
use landfall_pool::stderr;
use mending::Mending;

/// Longest sleep: what nobody wakes the thread for is found this late.
const SLEEP: Duration = Duration::from_millis(2);
/// How often the topic table is looked at, nanoseconds.
const TABLE_EVERY_NS: u64 = 10_000_000;
/// Bytes of groups that a round has in memory: the replicas that come behind them wait for the
/// next.
const ROUND_BYTES: u64 = 64 << 20;
/// How often what could not be said or opened, as on a full disk, is tried again, nanoseconds.
const REOPEN_NS: u64 = 250_000_000;

/// A replica that could not be opened.
pub(super) struct Broken {
    pub(super) topic: TopicId,
    pub(super) duty: Duty,
    /// When to try again; none: not before the broker's next start.
    pub(super) retry_at_ns: Option<u64>,
}

/// A topic of which this broker keeps something.
pub(super) struct Known {
    pub(super) id: TopicId,
    pub(super) name: String,
    pub(super) created_ns: u64,
}

/// Syncs that are under way, one set at a time: while they are, the next groups are written.
struct UnderWay {
    syncs: Syncs,
    /// Places of the replicas in the thread's list.
    replicas: Vec<usize>,
    since: Instant,
}

/// The thread's whole state.
pub struct Worker {
    pub(super) pool: Pool,
    pub(super) me: BrokerId,
    incarnation: u64,
    standing: Standing,
    pub(super) data: Data,
    home: Home,
    disk: Box<dyn Disk>,
    pub(super) shared: Arc<Shared>,
    ringer: Ringer,
    counters: Counters,
    pub(super) topics: Vec<Known>,
    pub(super) replicas: Vec<Replica>,
    pub(super) given_back: GivenBack,
    under_way: Option<UnderWay>,
    buffers: Buffers,
    /// The replica whose turn it is to be first.
    turn: usize,
    pub(super) broken: Vec<Broken>,
    mending: Mending,
    table_at_ns: u64,
    /// Id of the topic in each slot whose files were looked for.
    looked: [u32; TOPICS_MAX],
    /// Brokers that had landed for it before this pool, a bit each.
    had: [u32; TOPICS_MAX],
    /// When to ask again what did not answer, boot clock; 0: all of them did.
    had_at_ns: [u64; TOPICS_MAX],
    /// Id of the topic in each slot of which could not be said here what it is.
    unsaid: [u32; TOPICS_MAX],
    /// When to try these again, boot clock.
    unsaid_at_ns: u64,
    /// This broker's number stands in its data directory.
    named: Named,
    /// There may be files here of topics that this thread has not open, and so is not told of when
    /// they are deleted.
    pub(super) forgets: bool,
    /// When to look for them again after something could not be removed, boot clock.
    pub(super) forget_at_ns: u64,
    /// It was said which topics are here that the pool does not have.
    pub(super) told: bool,
    /// What copies are to have before the broker ends.
    pub(super) goals: Option<Goals>,
}

impl Worker {
    pub fn new(
        pool: Pool,
        standing: Standing,
        data: Data,
        disk: Box<dyn Disk>,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let (me, incarnation) = standing.who();
        Ok(Self {
            ringer: Ringer::new(&pool)?,
            counters: Counters::new(&pool, me.index()),
            pool,
            me,
            incarnation,
            standing,
            home: Home::take(&data.directory)?,
            data,
            disk,
            shared,
            topics: Vec::new(),
            replicas: Vec::new(),
            given_back: GivenBack::default(),
            under_way: None,
            buffers: Buffers::default(),
            turn: 0,
            broken: Vec::new(),
            mending: Mending::default(),
            table_at_ns: 0,
            looked: [0; TOPICS_MAX],
            had: [0; TOPICS_MAX],
            had_at_ns: [0; TOPICS_MAX],
            unsaid: [0; TOPICS_MAX],
            unsaid_at_ns: 0,
            named: Named::default(),
            forgets: true,
            forget_at_ns: 0,
            told: false,
            goals: None,
        })
    }

    /// Works until it is told to stop, and leaves everything synced.
    pub fn run(mut self) {
        self.shared.calls.step(boot_ns());
        self.forget();
        let mut waiter = Waiter::new(Idle::Backoff);
        while !self.shared.stop.load(Ordering::Acquire) {
            let now = boot_ns();
            self.shared.calls.step(now);
            if !self.standing.holds(&self.pool, now) {
                // Its lines may be somebody else's, and the files are left as by a kill.
                return;
            }
            if now >= self.table_at_ns {
                self.table_at_ns = now + TABLE_EVERY_NS;
                self.look_at_table(now);
                self.forget();
                self.show_lag();
                self.let_go(now);
            }
            self.mend(now);
            self.pursue(now);
            if self.round(now) {
                waiter.reset();
            } else if waiter.rest() {
                park_timeout(SLEEP);
            }
        }
        if self.standing.holds(&self.pool, boot_ns()) {
            // A topic that was made a moment ago is to come back too.
            self.look_at_table(boot_ns());
            self.forget();
            self.finish();
        }
    }

    /// Waits for what is under way, and syncs what is written.
    pub fn finish(&mut self) {
        self.end_syncs(true);
        self.begin_syncs(Replica::is_unsynced);
        self.end_syncs(true);
        self.publish();
    }

    /// What there is to be told, for tests.
    #[cfg(test)]
    pub fn notes(&self) -> Vec<String> {
        self.shared.take_notes()
    }

    /// Says what nobody who looks only at the topics that there are would find out.
    pub(super) fn say(&self, text: String) {
        stderr::note(format_args!("landfall-broker {}: {text}", self.me));
        self.shared.note(text);
    }

    /// Does once everything there is to do; whether there was something.
    ///
    /// Syncs that are under way are waited for only where nothing can be written meanwhile, or
    /// where no more may be.
    pub fn round(&mut self, now: u64) -> bool {
        let went_on = self.write(now);
        // Whoever waits for `written` alone does not wait for the sync.
        let mut moved = self.publish();
        let goes_on = went_on && self.is_ready(now);
        let waited = self.under_way.is_some() && !goes_on;
        self.end_syncs(waited);
        moved |= self.publish();
        // What came while it waited is written first, if that is not too much: so one sync covers
        // what came during the one before.
        let is_late = |replica: &Replica| replica.is_due(now) && replica.is_behind();
        if !waited || !self.is_ready(now) || self.replicas.iter().any(is_late) {
            self.begin_syncs(|replica| replica.is_due(now));
        }
        if !waited && !goes_on {
            self.end_syncs(true);
            moved |= self.publish();
        }
        moved || waited
    }

    /// Whether some log has something that can be written.
    fn is_ready(&self, now: u64) -> bool {
        self.replicas.iter().any(|replica| replica.is_ready(&self.pool, now))
    }

    /// Writes a group of each replica, of as many as the round may have bytes of in memory. Whether
    /// one of them went on in its log.
    fn write(&mut self, now: u64) -> bool {
        let mut went_on = false;
        self.shared.begin_round();
        self.pool.follow();
        let (first, count, mut gathered) = (self.turn, self.replicas.len(), 0);
        for i in (0..count).map(|i| (first + i) % count) {
            if gathered >= ROUND_BYTES {
                self.turn = i;
                went_on = true;
                break;
            }
            let Self { replicas, pool, disk, buffers, .. } = self;
            let from = replicas[i].next();
            let events = replicas[i].gather(pool, &mut **disk, buffers, now);
            went_on |= replicas[i].next() != from;
            gathered += replicas[i].pending().map_or(0, |(group, _)| group.file_bytes());
            for event in events {
                self.heard(event);
            }
        }
        // Groups are copies: a disk that hangs keeps nothing in the pool.
        self.shared.end_round();
        let Self { replicas, disk, .. } = self;
        let pending: Vec<_> = replicas
            .iter()
            .enumerate()
            .filter_map(|(i, replica)| replica.pending().map(|(group, file)| (i, group, file)))
            .collect();
        if pending.is_empty() {
            return went_on;
        }
        let mut writings: Vec<Writing<'_>> = pending
            .iter()
            .map(|(_, group, file)| {
                Writing::new(file, group.at, vec![IoSlice::new(group.records())])
            })
            .collect();
        write_all(&mut **disk, &mut writings);
        let results: Vec<_> = pending
            .iter()
            .zip(writings)
            .map(|((i, group, _), writing)| (*i, group.batches, group.bytes, writing.result))
            .collect();
        // What stands before a write that failed is durable if its sync says so.
        if results.iter().any(|(.., result)| result.is_err()) {
            self.end_syncs(true);
        }
        for (i, batches, bytes, result) in results {
            if result.is_ok() {
                self.counters.add(&self.pool, Counter::BatchesReplicated, batches);
                self.counters.add(&self.pool, Counter::BytesReplicated, bytes);
            }
            if let Some(event) = self.replicas[i].wrote(result, &mut self.buffers, now) {
                self.heard(event);
            }
        }
        true
    }

    /// Begins to sync those of which `due` says so, unless syncs are under way.
    pub(super) fn begin_syncs(&mut self, due: impl Fn(&Replica) -> bool) {
        if self.under_way.is_some() {
            return;
        }
        let (mut replicas, mut files) = (Vec::new(), Vec::new());
        for (i, replica) in self.replicas.iter_mut().enumerate().filter(|(_, one)| due(one)) {
            if let Some(file) = replica.begin_sync() {
                replicas.push(i);
                files.push(file);
            }
        }
        if files.is_empty() {
            return;
        }
        self.counters.add(&self.pool, Counter::ReplicaSyncs, files.len() as u64);
        let since = Instant::now();
        self.under_way = Some(UnderWay { syncs: self.disk.begin_syncs(files), replicas, since });
    }

    /// Hears how the syncs ended that are under way, if they have, or waits until they have.
    fn end_syncs(&mut self, wait: bool) {
        let Some(UnderWay { syncs, replicas, since }) = self.under_way.take() else { return };
        let results = match self.disk.end_syncs(syncs, wait) {
            Ok(results) => results,
            Err(syncs) => {
                self.under_way = Some(UnderWay { syncs, replicas, since });
                return;
            }
        };
        let took_ns = since.elapsed().as_nanos() as u64;
        self.counters.latency(&self.pool, Stage::ReplicaSync, took_ns);
        for (i, result) in replicas.into_iter().zip(results) {
            if let Some(event) = self.replicas[i].synced(result) {
                self.heard(event);
            }
        }
    }

    /// Shows the lines that moved, and wakes the brokers whose publishers may wait for that.
    fn publish(&mut self) -> bool {
        // A sync may have taken longer than a lease.
        if !self.standing.holds(&self.pool, boot_ns()) {
            return false;
        }
        let (mut ring, mut moved, mut events) = (0_u32, false, Vec::new());
        for replica in &mut self.replicas {
            let Some(before) = replica.publish(&self.pool, &mut events) else { continue };
            let line = replica.line();
            if line.entries != before.entries || line.bytes != before.bytes {
                ring |= 1 << replica.duty.source.index();
            }
            moved = true;
        }
        events.into_iter().for_each(|event| self.heard(event));
        for source in BrokerId::all().filter(|source| ring >> source.index() & 1 == 1) {
            self.ringer.ring(&self.pool, Role::Broker(source));
        }
        moved
    }

    pub(super) fn heard(&self, event: Event) {
        let (counter, text) = match event {
            Event::Failed(text) => (Some(Counter::ReplicaFailures), text),
            Event::Full(text) => (Some(Counter::ReplicaFull), text),
            Event::Repaired(text) => (Some(Counter::BatchesRepaired), text),
            Event::Lost(text) => (Some(Counter::BatchesLost), text),
            Event::Note(text) => (None, text),
            Event::Unfaithful(who) => return self.shared.is_unfaithful(who),
        };
        if let Some(counter) = counter {
            self.counters.add(&self.pool, counter, 1);
        }
        self.shared.note(text);
    }

    /// Opens what is new in the topic table and closes what is gone. A table that no leader serves
    /// says nothing: it may still be made. Nor does one of a leader that another has claimed the
    /// lead from: what it says now the next one may not have copied, and then it is not so. That
    /// is looked at after the entry was read: either the next leader copies it, or its claim is
    /// found.
    pub fn look_at_table(&mut self, now: u64) {
        let Some((_, epoch)) = self.pool.serving() else { return };
        self.pool.follow();
        let mut are_said = true;
        for slot in 0..TOPICS_MAX {
            self.shared.calls.step(boot_ns());
            // An entry that is being changed is looked at the next time.
            let Some(entry) = self.pool.topic_in_slot(slot) else {
                are_said = false;
                continue;
            };
            if self.is_news(slot, &entry) && !self.pool.leads(epoch) {
                return;
            }
            self.close_gone(slot, &entry);
            if entry.state() == TopicState::Live && entry.disk_replicas() > 0 {
                self.look_for_files(slot, &entry);
                are_said &= self.looked[slot] == entry.id;
                self.open_new(&entry, now);
            }
        }
        // Behind the topics: whoever finds the number and no topic takes it that there was none.
        if are_said {
            let note = self.named.say(&self.pool, &self.data.directory, self.me, now);
            note.into_iter().for_each(|note| self.shared.note(note));
        }
    }

    /// Whether the entry says something that was not done here yet.
    fn is_news(&self, slot: usize, entry: &TopicEntry) -> bool {
        let known = self.topics.iter().find(|topic| topic.id.slot() == slot);
        let is_live = entry.state() == TopicState::Live;
        let is_known = known.is_none_or(|topic| topic.id.0 == entry.id && is_live);
        !is_known || is_live && entry.disk_replicas() > 0 && self.looked[slot] != entry.id
    }

    /// A topic of which there are files here is known also while nothing is appended to them, as
    /// after the loss of a pool: they go with the topic. So is one that this broker is to keep
    /// copies of: that there is such a topic stays though nobody publishes to it.
    fn look_for_files(&mut self, slot: usize, entry: &TopicEntry) {
        let waits = self.unsaid[slot] == entry.id && boot_ns() < self.unsaid_at_ns;
        if waits || self.looked[slot] == entry.id {
            if !waits && (1..=boot_ns()).contains(&self.had_at_ns[slot]) {
                self.look_whose(slot, entry);
            }
            return;
        }
        let directory = topic_directory(&self.data.directory, entry.name(), entry.created_ns);
        let is_home = self.me.index() < usize::from(entry.replica_brokers);
        // One that stood in has a directory, or is to say that it has another than it had.
        let keeps = is_home || directory.is_dir();
        if !keeps && lacks(&self.pool, entry, self.me).is_empty() {
            self.looked[slot] = entry.id;
        } else if self.know(entry) {
            // Should this process end before the topic does, the next one knows what became of it.
            let written = self.home.look().and_then(|()| {
                write_topic(&self.pool, self.me, &directory, entry, &self.data.others)
            });
            match written {
                Ok(_) => {
                    self.looked[slot] = entry.id;
                    if is_home {
                        self.shared.topic_said(TopicId(entry.id));
                        self.ringer.ring(&self.pool, Role::Broker(self.me));
                    }
                    self.look_whose(slot, entry);
                }
                // It is tried again.
                Err(error) => {
                    self.unsaid_at_ns = boot_ns() + REOPEN_NS;
                    if self.unsaid[slot] != entry.id {
                        self.unsaid[slot] = entry.id;
                        self.shared.note(error.to_string());
                    }
                }
            }
        }
    }

    /// Looks for brokers whose files there are, where the log's memory does not go back to its
    /// beginning, or were. Who has a log of its own keeps its frontier in any pool. A directory
    /// that did not answer is asked again.
    fn look_whose(&mut self, slot: usize, entry: &TopicEntry) {
        let (had, is_known) = match self.pool.oldest(TopicId(entry.id), SEQUENCED_LOG) {
            0 => (0, true),
            _ => had::sources(&self.data.directory, &self.data.others, entry),
        };
        self.had[slot] = had | had::kept(&self.pool, entry, self.me);
        self.had_at_ns[slot] = if is_known { 0 } else { boot_ns() + REOPEN_NS };
    }

    /// Keeps a topic from being released before its files are closed. Whether it still lives.
    fn know(&mut self, entry: &TopicEntry) -> bool {
        let id = TopicId(entry.id);
        if self.topics.iter().any(|topic| topic.id == id) {
            return true;
        }
        self.shared.open_topic(id);
        if self.pool.topic(id).is_none() {
            // Deleted just now: nothing was touched yet.
            self.shared.close_topic(id.slot());
            return false;
        }
        let (name, created_ns) = (entry.name().to_owned(), entry.created_ns);
        self.topics.push(Known { id, name, created_ns });
        true
    }

    fn close_gone(&mut self, slot: usize, entry: &TopicEntry) {
        let Some(at) = self.topics.iter().position(|topic| topic.id.slot() == slot) else {
            let looked = std::mem::take(&mut self.looked[slot]);
            match looked == entry.id && entry.state() != TopicState::Absent {
                true => self.looked[slot] = looked,
                // Control may have said here who keeps it.
                false => self.forgets |= looked != 0,
            }
            return;
        };
        let id = self.topics[at].id;
        if entry.id == id.0 && entry.state() == TopicState::Live {
            return;
        }
        // Places in the list change, and its files are closed.
        self.end_syncs(true);
        self.replicas.retain(|replica| replica.topic != id);
        self.broken.retain(|broken| broken.topic != id);
        let gone = self.topics.swap_remove(at);
        match entry.fate_of(id, &gone.name, gone.created_ns) {
            Fate::Leaving | Fate::Deleted => self.remove(&gone),
            // Somebody gave it another id, which is opened next.
            Fate::Here => {}
            Fate::Unknown => self.keep(&gone, entry.id),
        }
        self.shared.close_topic(slot);
    }

    /// How far the replica that is furthest behind is.
    fn show_lag(&self) {
        let lags = self.replicas.iter().map(|replica| replica.lag(&self.pool));
        let most = lags.fold(Lag::default(), Lag::max);
        self.counters.set(&self.pool, Counter::ReplicaLagEntries, most.entries);
        self.counters.set(&self.pool, Counter::ReplicaLagBytes, most.bytes);
    }
}
