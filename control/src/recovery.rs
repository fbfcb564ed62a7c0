//! Reading a pool that another control left: segments, topics, logs, sessions, order.
//!
//! Everything is read from the pool alone; what a control before this one had in memory is gone.
//! The tables are a copy that nobody follows yet, so nobody sees any of this half done.

mod logs;
mod replay;

use std::collections::BTreeMap;
use std::sync::Arc;

use landfall_layout::limits::{LOGS_PER_TOPIC, SEQUENCED_LOG, TOPICS_MAX};
use landfall_layout::pool::BrokerState;
use landfall_layout::segment::{SegmentKind, SegmentState};
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::clock::{wall_age_ns, wall_ns};
use landfall_pool::lock::Locks;
use landfall_pool::slot_ring::SlotWriter;
use landfall_pool::{Memory, Pool};

use crate::keeper::{
    Log, State, Topic, stranded, withhold_stray, withhold_uncounted, withhold_written,
};
use crate::life::Life;
use crate::messages::{NewRing, ToSequencer};
use crate::ordering::SessionTable;
use crate::segments::{LastEntries, Segments};

/// What was found, ready for both threads.
pub struct Recovered {
    /// For the keeper.
    pub state: State,
    /// For the sequencer thread, before anything else.
    pub commands: Vec<ToSequencer>,
    /// For the sequencer thread.
    pub sessions: SessionTable,
    /// What people should know.
    pub notes: Vec<String>,
}

/// Which sealed segments a publisher may still want to read back.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Wall clock, nanoseconds.
    pub wall_ns: u64,
    /// Boot time, nanoseconds.
    pub boot_ns: u64,
    /// How long a dead broker's segments are kept, nanoseconds.
    pub kept_ns: u64,
}

/// Sequences that are in a log and have no entry in the pool, by topic and client: what came back
/// from disk of publishers of order `stream`.
pub type Had = BTreeMap<(TopicId, u64), Vec<u64>>;

/// A topic that this program cannot serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownTopic {
    /// Its slot.
    pub slot: usize,
    /// Its name.
    pub name: String,
    /// The order its entry says.
    pub order: u8,
}

impl std::fmt::Display for UnknownTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { slot, name, order } = self;
        write!(
            f,
            "topic {name:?} in slot {slot} of the pool has order number {order}, which this \
             program cannot serve; use the program that made it, or another pool"
        )
    }
}

impl std::error::Error for UnknownTopic {}

/// Reads the pool and makes it fit for the leader of `epoch`: a fresh segment for each sequenced
/// log, and segments that nothing leads to given back.
pub fn recover(
    pool: &Arc<Pool>,
    epoch: u64,
    last_entries: &LastEntries,
    kept: Kept,
    (locks, may_write): (&Locks, Option<u64>),
    had: &Had,
) -> Result<Recovered, UnknownTopic> {
    let (mut segments, mut notes) = Segments::read(Arc::clone(pool), epoch);
    if let Some(epoch) = may_write {
        segments.suspect(epoch);
    }
    segments.strand(stranded(pool, |_| Life::Never));
    withhold_uncounted(pool, &mut segments);
    withhold_written(pool, locks, &mut segments);
    let mut topics = read_topics(pool)?;
    for topic in topics.iter_mut().flatten() {
        topic.logs = logs::chains(pool, &segments, topic.id);
    }
    give_back_strays(pool, locks, &mut segments, &topics);
    let sessions = read_sessions(pool, &topics);
    let mut commands = Vec::new();
    for topic in topics.iter_mut().flatten() {
        let of = segments.of(topic.id).into_iter();
        topic.payload = of
            .filter(|segment| {
                segments.get(*segment).is_some_and(|used| {
                    used.what.kind == SegmentKind::Payload
                        && used.what.state != SegmentState::Retiring
                })
            })
            .collect();
        if topic.is_live() && topic.order.is_sequenced() {
            if let Err(error) = pool.seal_log(topic.id) {
                notes.push(format!(
                    "topic {} is sealed too early: {error}; the pool has lost lines",
                    topic.entry.name()
                ));
            }
            let log = match logs::begin_epoch(pool, &mut segments, topic, kept.wall_ns) {
                Some(log) => log,
                None => {
                    notes.push(format!(
                        "topic {} waits: its log needs a segment, and none of {} is free; it is \
                         ordered as soon as retention frees one, or a topic is deleted",
                        topic.entry.name(),
                        segments.total()
                    ));
                    logs::no_room(pool, topic)
                }
            };
            let new = replay::sequencer(pool, topic, &sessions, last_entries, had, log);
            commands.push(ToSequencer::AddTopic(Box::new(new)));
            commands.extend(rings(pool, topic.id).map(ToSequencer::AddRing));
        }
    }
    let unpadded = know_sealed(pool, &mut segments, &topics, kept);
    segments.await_followers();
    // Not what is withheld of a topic that is deleted: its broker, which has forgotten the topic,
    // would say of a segment that its client still writes into that it is finished.
    let is_offered = |used: &crate::segments::Use| {
        let topic = topics[used.what.topic.slot()].as_ref();
        used.what.kind == SegmentKind::Payload
            && used.what.state == SegmentState::Open
            && topic.is_some_and(|topic| topic.id == used.what.topic && topic.is_live())
    };
    let offers = segments.all().filter(|(_, used)| is_offered(used)).map(|(id, _)| id).collect();
    let state = State { segments, topics, unpadded, offers };
    Ok(Recovered { state, commands, sessions, notes })
}

/// The topic table. An entry that was being changed belongs to a topic that was being created or
/// deleted, and nobody was told that it exists: it is deleted.
fn read_topics(pool: &Pool) -> Result<Vec<Option<Topic>>, UnknownTopic> {
    let mut topics: Vec<Option<Topic>> = (0..TOPICS_MAX).map(|_| None).collect();
    for (slot, place) in topics.iter_mut().enumerate() {
        let entry = match pool.topic_in_slot(slot) {
            Some(entry) => entry,
            None => {
                let words = pool.load_words(pool.geometry().topic(slot));
                let mut torn = TopicEntry::from_words(words);
                if TopicId(torn.id).slot() != slot {
                    torn.id = TopicId::new(slot, 1).0;
                }
                if torn.state() == TopicState::Live {
                    torn.state = TopicState::Deleting as u8;
                } else if torn.state() == TopicState::Deleting && torn.deleted_ns == 0 {
                    // When its deletion began was just being written.
                    torn.deleted_ns = wall_ns();
                }
                if torn.order().is_none() {
                    torn.order = Order::None.raw();
                }
                pool.set_topic(&torn);
                torn
            }
        };
        if entry.state() == TopicState::Absent {
            continue;
        }
        let Some(order) = entry.order() else {
            let name = entry.name().to_owned();
            return Err(UnknownTopic { slot, name, order: entry.order });
        };
        let id = TopicId(entry.id);
        *place = Some(Topic { entry, id, order, logs: BTreeMap::new(), payload: Vec::new() });
    }
    Ok(topics)
}

/// Gives back what nothing leads to: a control that died between two stores left it, or while
/// somebody could still write into it.
fn give_back_strays(pool: &Pool, locks: &Locks, segments: &mut Segments, topics: &[Option<Topic>]) {
    let is_stray = |segment: SegmentId, used: &crate::segments::Use| {
        let what = used.what;
        if what.kind == SegmentKind::Ring {
            let owner = BrokerId::new(what.owner.into());
            let rings = topics.iter().flatten().filter_map(|topic| pool.ring(topic.id, owner?));
            let mut rings = rings.map(|ring| (ring.segment, ring.generation));
            return !rings.any(|ring| ring == (segment.0, used.generation));
        }
        let topic = topics[what.topic.slot()].as_ref().filter(|topic| topic.id == what.topic);
        let Some(topic) = topic else { return true };
        match what.kind {
            SegmentKind::OrderLog => topic
                .logs
                .get(&usize::from(what.log))
                .is_none_or(|log| !log.chain.contains(&segment)),
            SegmentKind::Ring | SegmentKind::Payload | SegmentKind::Free => false,
        }
    };
    let strays: Vec<SegmentId> = segments
        .all()
        .filter(|(segment, used)| is_stray(*segment, used))
        .map(|(segment, _)| segment)
        .collect();
    for segment in strays {
        if segments.get(segment).is_some_and(|used| used.what.kind == SegmentKind::Payload) {
            withhold_stray(pool, locks, segments, segment);
        }
        segments.give_back(segment);
    }
}

/// The session lines; those of topics that are gone are cleared. Positions that were reserved in
/// order `token` are not in the pool: whoever has some is fenced, so that none has two owners.
fn read_sessions(pool: &Pool, topics: &[Option<Topic>]) -> SessionTable {
    let order_of = |id: TopicId| {
        topics[id.slot()].as_ref().filter(|topic| topic.id == id).map(|topic| topic.order)
    };
    let untold = BrokerId::all()
        .filter(|broker| BrokerState::from_raw(pool.broker(*broker).state) != BrokerState::Absent)
        .fold(0, |mask, broker| mask | 1 << broker.index());
    let lines = pool.geometry().sessions();
    let mut found = Vec::new();
    for index in 0..lines {
        let Some(mut line) = pool.session(index) else { continue };
        let Standing { epoch, state } = Standing::unpack(line.standing);
        if state == SessionState::Free {
            // A control that died while it cleared the line or gave it away left some of its
            // words. The epochs up to that one were used.
            let standing = line.standing;
            let free = SessionLine { standing, ..SessionLine::default() };
            if line.to_words() != free.to_words() {
                pool.set_session(index, &free);
            }
            if epoch != 0 {
                found.push((index, free));
            }
            continue;
        }
        match order_of(TopicId(line.topic)) {
            None => pool.set_session(index, &SessionLine::default()),
            Some(order) => {
                if order == Order::Token && state == SessionState::Active {
                    line.standing = Standing { epoch, state: SessionState::Fenced }.pack();
                    pool.set_session(index, &line);
                }
                found.push((index, line));
            }
        }
    }
    SessionTable::restored(lines, found, untold)
}

/// The rings that brokers have of a topic.
fn rings(pool: &Pool, topic: TopicId) -> impl Iterator<Item = NewRing> {
    BrokerId::all().filter_map(move |broker| {
        Some(NewRing { topic, broker, ring: pool.slot_ring(topic, broker)? })
    })
}

/// Finds out again below which index the batches of each sealed segment are. Those that a broker
/// left that died within the last lease are kept, and padded.
fn know_sealed(
    pool: &Pool,
    segments: &mut Segments,
    topics: &[Option<Topic>],
    kept: Kept,
) -> Vec<(SegmentId, u64)> {
    let mut unpadded = Vec::new();
    for topic in topics.iter().flatten().filter(|topic| topic.is_live()) {
        let lasts = match topic.order.is_sequenced() {
            true => BTreeMap::new(),
            false => replay::last_entries(pool, topic.id),
        };
        for segment in &topic.payload {
            let Some(used) = segments.get_mut(*segment) else { continue };
            let owner = BrokerId::new(used.what.owner.into());
            let (SegmentState::Sealed, Some(owner)) = (used.what.state, owner) else { continue };
            used.through = match topic.order.is_sequenced() {
                true => pool
                    .slot_ring(topic.id, owner)
                    .map_or(0, |ring| SlotWriter::resume(pool, ring).next()),
                false => lasts.get(&segment.0).map_or(0, |last| last + 1),
            };
            let sealed_ns = pool.segment_header(*segment).map_or(0, |header| header.sealed_ns);
            // All that there is of another control's time is the wall clock's word.
            let age_ns = wall_age_ns(sealed_ns, kept.wall_ns);
            if age_ns < kept.kept_ns {
                let until = kept.boot_ns.saturating_add(kept.kept_ns - age_ns);
                used.kept_until_ns = until;
                unpadded.push((*segment, until));
            }
        }
    }
    unpadded
}

/// The log numbers that a topic of that order may have.
fn log_numbers(order: Order) -> std::ops::Range<usize> {
    if order.is_sequenced() { SEQUENCED_LOG..LOGS_PER_TOPIC } else { 0..SEQUENCED_LOG }
}

impl Topic {
    /// The log that the sequencer writes, if the topic has it.
    fn sequenced(&self) -> Option<&Log> {
        self.logs.get(&SEQUENCED_LOG)
    }
}
