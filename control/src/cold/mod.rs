//! Cold start: topics come back from their replicas on disk, into a pool that is new.
//!
//! What comes back is where each log goes on and whose sessions it had; the batches stay on disk,
//! from where they are read. The pool is nobody's yet, so its creator may write all of it, also
//! the frontier lines of brokers' own logs.

pub mod plan;
pub mod read;

use std::collections::BTreeMap;
use std::path::PathBuf;

use landfall_layout::limits::{LOGS_PER_TOPIC, SEQUENCED_LOG, TOPICS_MAX};
use landfall_layout::order::{ChainLine, FrontierLine};
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::topic::{
    TOPIC_CHECK_INGEST, TOPIC_KEEP, TOPIC_WINDOW, TopicEntry, TopicState,
};
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_replica::mend::sync_directory;
use landfall_replica::names::topic_directory;
use landfall_replica::{Resumed, TopicFile};

use plan::{Plan, plan};
use read::{Found, find};

/// Brings back every topic that the data directories of brokers have; what people should know of
/// it, a sentence each. Only on a pool that no control ever led.
pub fn restore(pool: &Pool, directories: &[PathBuf], now_ns: u64) -> Vec<String> {
    let mut notes = Vec::new();
    let mut sessions = 0;
    for mut found in find(directories, &mut notes) {
        let Some(entry) = entry_of(pool, &found) else {
            notes.push(format!(
                "topic {} is not brought back: the pool has {TOPICS_MAX} topics already",
                found.file.name
            ));
            continue;
        };
        let id = TopicId(entry.id);
        let mut resumed = BTreeMap::new();
        for log in 0..LOGS_PER_TOPIC {
            let mut spans = found.spans.remove(&log).unwrap_or_default();
            let (seen, before) = (found.seen.get(&log), found.file.resumed.get(&log).copied());
            if spans.is_empty() && seen.is_none() && before.is_none() {
                continue;
            }
            let lost_pool = found.file.pool_bytes.max(pool.geometry().pool_bytes());
            let plan = plan(&mut spans, seen, before, lost_pool);
            resumed.insert(log, Resumed { index: plan.index, position: plan.position });
            begin_log(pool, id, log, &plan, now_ns);
            notes.extend(tell(&found, log, &plan));
        }
        for (client, last) in &found.sessions {
            let standing = Standing { epoch: last.epoch, state: SessionState::Closed };
            let line = SessionLine {
                standing: standing.pack(),
                client: *client,
                next_seq: last.seq.saturating_add(1),
                topic: id.0,
                opened_ns: now_ns,
                ..SessionLine::default()
            };
            if pool.geometry().session(sessions).is_none() {
                notes.push(format!(
                    "topic {}: client {client:#x} is not known any more: the pool has {sessions} \
                     session lines",
                    found.file.name
                ));
                break;
            }
            pool.set_session(sessions, &line);
            sessions += 1;
        }
        notes.extend(adopt(pool, &found, &entry, resumed));
        pool.set_topic(&entry);
    }
    notes
}

/// Says in the data directories which of the topics that came back are in this pool's table, which
/// is served now: what is not there any more was deleted. What could not be said is a sentence.
pub fn say_alive(pool: &Pool, directories: &[PathBuf]) -> Vec<String> {
    let uuid = pool.uuid_text();
    let mut notes = Vec::new();
    let live = |slot| pool.topic_in_slot(slot).filter(|entry| entry.state() == TopicState::Live);
    for entry in (0..TOPICS_MAX).filter_map(live).filter(|entry| entry.disk_replicas() > 0) {
        for data in directories {
            let directory = topic_directory(data, entry.name(), entry.created_ns);
            if !directory.is_dir() {
                continue;
            }
            let said = TopicFile::change(&directory, |file| {
                let is_ours = |file: &TopicFile| file.pool_uuid == uuid;
                (file.filter(is_ours).map(|file| TopicFile { live_in: uuid.clone(), ..file }), ())
            });
            notes.extend(said.err().map(|error| format!("topic {}: {error}", entry.name())));
        }
    }
    notes
}

/// Says in the topic's directories that their files are this pool's, and where its logs go on: the
/// pool may be lost again before any replica has anything from there. What could not be said is a
/// sentence.
fn adopt(
    pool: &Pool,
    found: &Found,
    entry: &TopicEntry,
    resumed: BTreeMap<usize, Resumed>,
) -> Vec<String> {
    let mine = TopicFile::of(entry, &pool.uuid_text(), pool.geometry().pool_bytes());
    let Some(file) = mine.map(|file| TopicFile { resumed, ..file }) else { return Vec::new() };
    let written = found.directories.iter().map(|directory| {
        file.write(directory).and_then(|()| sync_directory(directory)).err().map(|error| {
            format!(
                "topic {}: {error}; let control write there: should this pool be lost before \
                 anything new is on disk, what was only in memory may have its positions again",
                file.name
            )
        })
    });
    written.flatten().collect()
}

/// The topic as it was, in its own slot if that is free.
fn entry_of(pool: &Pool, found: &Found) -> Option<TopicEntry> {
    let file = &found.file;
    let is_free = |slot: usize| {
        pool.topic_in_slot(slot).is_some_and(|entry| entry.state() == TopicState::Absent)
    };
    let own = TopicId(file.id);
    let id = match own.0 != 0 && is_free(own.slot()) {
        true => own,
        false => TopicId::new((0..TOPICS_MAX).find(|slot| is_free(*slot))?, 1),
    };
    let mut name = [0; 120];
    name.get_mut(..file.name.len())?.copy_from_slice(file.name.as_bytes());
    let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
    Some(TopicEntry {
        version: 0,
        id: id.0,
        state: TopicState::Live as u8,
        order: file.order()?.raw(),
        flags: flag(file.keep, TOPIC_KEEP)
            | flag(file.check_ingest, TOPIC_CHECK_INGEST)
            | flag(file.durability == "window", TOPIC_WINDOW),
        replicas: file.replicas,
        ring_slots: file.ring_slots,
        name_bytes: file.name.len() as u32,
        retention_bytes: file.retention_bytes,
        retention_ns: file.retention_ns,
        created_ns: file.created_ns,
        session_lease_ns: file.session_lease_ns,
        name,
        replica_brokers: file.replica_brokers,
        reserved8: [0; 7],
        disk_bytes: file.disk_bytes,
        disk_ns: file.disk_ns,
        reserved: [0; 7],
    })
}

/// A log that begins where the one that was lost cannot have reached.
fn begin_log(pool: &Pool, id: TopicId, log: usize, plan: &Plan, now_ns: u64) {
    pool.start_frontier(id, log);
    let line = FrontierLine {
        entries: plan.index,
        position: plan.position,
        at_ns: now_ns,
        ..FrontierLine::default()
    };
    pool.advance_frontier(id, log, &line);
    if log == SEQUENCED_LOG {
        pool.say_written(id, plan.index, 0);
    }
    let chain = ChainLine {
        oldest_index: plan.index,
        oldest_position: plan.position,
        head: SegmentId::NONE.0,
        tail: SegmentId::NONE.0,
        topic: id.0.into(),
        restored_position: plan.position,
        ..ChainLine::default()
    };
    pool.set_chain(id, log, &chain);
}

fn tell(found: &Found, log: usize, plan: &Plan) -> Vec<String> {
    let name = &found.file.name;
    let of = match log {
        SEQUENCED_LOG => format!("topic {name}"),
        log => format!("topic {name}, log of broker {log}"),
    };
    let holes = match plan.unwritten {
        0 => String::new(),
        unwritten => format!(", {unwritten} positions that nobody wrote"),
    };
    let mut told = vec![format!(
        "{of} is back: {} batches on disk from position {}{holes}; it goes on at position {}",
        plan.batches, plan.oldest, plan.position
    )];
    told.extend(plan.lost.iter().map(|lost| {
        format!(
            "{of}: positions {} to {} were ordered and are lost: they were only in memory",
            lost.first,
            lost.end - 1
        )
    }));
    told
}
