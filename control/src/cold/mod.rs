//! Cold start: topics come back from their replicas on disk, into a pool that is new.
//!
//! What comes back is where each log goes on and whose sessions it had; the batches stay on disk,
//! from where they are read. All that is written into the pool is in this leader's slot: where a
//! broker's own log goes on stands in its chain line, and the broker takes it from there.
//!
//! | module | what |
//! |---|---|
//! | [`hold`] | keeping controls of other pools away meanwhile |
//! | [`read`] | what the files have |
//! | [`named`] | which of several topics of one name counts |
//! | [`age`] | which directories are older than others |
//! | [`gone`] | topics that were deleted, and disks that have them still |
//! | [`absent`] | log indexes that no file has |
//! | [`doubt`] | which evidence says that files have all, and what is left |
//! | [`torn`] | where copies had what no file has any more |
//! | [`plan`] | where a log goes on |
//! | [`sessions`] | whose batches may not be ordered again |
//! | [`losses`] | what publishers lost, for brokers and for people |
//! | [`whole`] | whether all directories were named |
//! | [`fewer`] | whether their files have what they had |
//! | [`tell`] | sentences |
//! | [`end`] | the other end: what is written down when a pool is stopped in good order |

mod absent;
mod age;
mod damaged;
mod doubt;
pub mod elsewhere;
pub mod end;
mod error;
mod fewer;
mod gone;
pub mod hold;
mod losses;
mod named;
pub mod plan;
pub mod read;
mod sessions;
mod tell;
mod torn;
mod wait;
mod whole;

use std::path::{Path, PathBuf};
use std::time::Duration;

use landfall_layout::limits::{SEQUENCED_LOG, TOPICS_MAX};
use landfall_layout::order::{ChainLine, FrontierLine};
use landfall_layout::topic::{
    Order, TOPIC_CHECK_INGEST, TOPIC_KEEP, TOPIC_WINDOW, TopicEntry, TopicState,
};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_replica::owner::is_anothers;
use landfall_replica::there::{Disk, Lost};
use landfall_replica::{Ended, EndedLog, FileError, Resumed, Skips, TopicFile};

pub use error::ColdError;
pub use fewer::Fewer;
use plan::{Plan, Told, lost_below, plan};
use read::{Found, FoundLog, find};
use sessions::Sessions;

use crate::recovery::Had;

/// Looks at a directory that another process has, before that counts.
const LOOKS: u32 = 20;
/// Time between two of them: a second in all, far more than it takes to write a name.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What came back.
#[derive(Debug, Default)]
pub struct Restored {
    /// Which logs are back, and with how much, a sentence each.
    pub news: Vec<String>,
    /// What of it is not as it should be.
    pub notes: Vec<String>,
    /// For the sequencers of this control. One that comes after it has the session lines, which
    /// say all but which batches came back behind a gap: sent again, those are ordered again.
    pub had: Had,
}

/// Brings back every topic that the data directories of brokers have; what people should know of
/// it, a sentence each. Where no keeper of what a broker landed has its directory among them, or
/// the system refuses to read a file, that is an error unless `forgets_lost`. Only on a pool that
/// no control ever led. An error leaves nothing that anybody would take for a topic: nobody may
/// serve the pool then.
pub fn restore(
    pool: &Pool,
    directories: &[PathBuf],
    forgets_lost: bool,
    now_ns: u64,
) -> Result<Restored, ColdError> {
    for directory in directories {
        await_free(directory, &pool.uuid_text())?;
    }
    let (mut news, mut notes) = (Vec::new(), Vec::new());
    let deleted = gone::heard(directories, forgets_lost, &mut notes)?;
    let found = find(directories, &deleted, &mut notes)?;
    let mut sessions = Sessions::default();
    let mut entries: Vec<(TopicEntry, Found)> = Vec::new();
    let disks: Vec<Disk> = directories.iter().map(|path| Disk::look(path)).collect();
    notes.extend(whole::unknown(&disks));
    for mut found in found {
        match named::check(&found) {
            Err(hidden) if forgets_lost => notes.push(hidden.to_string()),
            checked => checked?,
        }
        match whole::check(&found, &disks) {
            Err(missing) if forgets_lost => {
                notes.push(missing.to_string());
                whole::forget(&mut found, &disks);
            }
            checked => checked?,
        }
        match damaged::check(&found, &disks) {
            Err(damaged) if forgets_lost => {
                notes.push(damaged.to_string());
                damaged::forget(&mut found, &disks);
            }
            checked => checked?,
        }
        match fewer::check(&found) {
            Err(error) if forgets_lost => {
                notes.push(error.to_string());
                fewer::forget(&mut found);
            }
            checked => checked?,
        }
        whole::check_once(&mut found)?;
        whole::note_disks(&mut found, &disks);
        if let Some(error) = found.refused.take().filter(|_| !forgets_lost) {
            return Err(ColdError::Refused { error });
        }
        let Some(entry) = entry_of(pool, &entries, &found) else {
            return Err(ColdError::Topics { name: found.file.name });
        };
        sessions.add(&entry, found.sessions());
        entries.push((entry, found));
    }
    let had = sessions.restore(pool, &mut notes)?;
    notes.extend(gone::tell(pool, directories, &deleted)?);
    for (entry, mut found) in entries {
        let mut lives = Vec::new();
        if found.logs.is_empty() {
            // What was ordered may have been in memory alone, unless files say where it ended.
            let first = end::first_logs(&entry).map(|log| (log, FoundLog::default()));
            found.logs.extend(first);
            found.begin_late();
        }
        for (log, known) in std::mem::take(&mut found.logs) {
            lives.push((
                log,
                begin(pool, &entry, (log, known), &found, now_ns, (&mut news, &mut notes)),
            ));
        }
        for source in BrokerId::all() {
            let mut tail = found.tails.get(&source).copied().unwrap_or_default();
            // Whose files are older lost it, as far as can be told: they are not whole.
            if found.aged.contains(&source) {
                let log = found.log_of(source);
                let lost = lives.iter().filter(|(number, _)| *number == log);
                tail = lost.map(|(_, life)| life.lost_below).fold(tail, u64::max);
            }
            pool.set_tail_on_disk(TopicId(entry.id), source, tail);
        }
        notes.extend(adopt(pool, &found, &entry, lives)?);
        notes.extend(whole::carry_over(&found, &disks, &pool.uuid_text()));
        pool.set_topic(&entry);
    }
    Ok(Restored { news, notes, had })
}

/// How a log goes on in this pool.
struct Life {
    resumed: Resumed,
    skips: Skips,
    /// It goes on right where it ended.
    ended: Option<EndedLog>,
    /// What its copies had at ends in good order, at least.
    had: Option<EndedLog>,
    /// Log index behind the last entry that no file has and nothing let go of; 0: there is none.
    lost_below: u64,
    /// What no file has.
    gaps: Vec<doubt::Run>,
}

/// Begins a log where the one that was lost ended, or where it cannot have reached.
fn begin(
    pool: &Pool,
    entry: &TopicEntry,
    (log, mut known): (usize, FoundLog),
    found: &Found,
    now_ns: u64,
    (news, notes): (&mut Vec<String>, &mut Vec<String>),
) -> Life {
    let ended = known.ended.as_ref();
    let retired_below = found.retired_below(&known);
    let told = Told {
        retired_below,
        torn: &known.torn,
        seen: known.seen,
        resumed: known.resumed,
        reached: known.reached,
        skips: Some(&known.skips),
        ended: ended.map(|ended| Resumed { index: ended.index, position: ended.position }),
        unread: known.unread,
        pool_bytes: found.file.pool_bytes.max(pool.geometry().pool_bytes()),
        has_holes: entry.order() == Some(Order::Token),
        is_same_pool: found.pools.contains(&pool.uuid_text()),
    };
    let plan = plan(&mut known.spans, &told);
    let lost_below = lost_below(&known.spans, &told);
    news.push(tell::back(&found.file.name, log, &plan));
    notes.extend(tell::sentences(&found.file.name, log, &plan, &told));
    let had = fewer::carried(&known);
    let mut skips = known.skips;
    let ended = known.ended.filter(|_| plan.skipped.is_none());
    plan.skipped.into_iter().for_each(|skipped| skips.add(skipped));
    begin_log(pool, TopicId(entry.id), log, &plan, &skips, now_ns);
    let resumed = Resumed { index: plan.index, position: plan.position };
    Life { resumed, skips, ended, had, lost_below, gaps: known.gaps }
}

/// Waits until no process of another pool has the directory. One of this pool may have it, which
/// says so a moment after it took it.
fn await_free(directory: &Path, pool: &str) -> Result<(), ColdError> {
    let mut looks = 0;
    loop {
        let io = |source| ColdError::Directory { error: FileError::io("lock", directory)(source) };
        if !is_anothers(directory, pool).map_err(io)? {
            return Ok(());
        }
        looks += 1;
        if looks == LOOKS {
            return Err(ColdError::Taken { path: directory.to_owned() });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Says in the topic's directories that their files are this pool's, and where its logs go on: the
/// pool may be lost again before any replica has anything from there. That the topic is alive in
/// the pool is said when it is served: until then nobody takes it for deleted. What could not be
/// said is a sentence; that none could be told, or that it is not this control's to say, an error.
fn adopt(
    pool: &Pool,
    found: &Found,
    entry: &TopicEntry,
    lives: Vec<(usize, Life)>,
) -> Result<Vec<String>, ColdError> {
    let mine = TopicFile::of(entry, &pool.uuid_text(), pool.geometry().pool_bytes());
    let Some(mut file) = mine else { return Ok(Vec::new()) };
    file.places = found.file.places.clone();
    file.life = entry.life;
    let (mut began, mut had) = (Ended::default(), Ended::default());
    let mut lost = Lost::of(entry.life);
    for (log, life) in lives {
        file.resumed.insert(log, life.resumed);
        file.reached.insert(log, life.resumed);
        if !life.skips.ranges().is_empty() {
            file.skipped.insert(log, life.skips);
        }
        if let Some(mut ended) = life.ended {
            // It was in the pool before this one.
            file.places.add_unkept(ended.unkept(log).collect::<Vec<_>>().into_iter());
            ended.unkept.clear();
            began.logs.insert(log, ended);
        }
        had.logs.extend(life.had.map(|had| (log, had)));
        lost.add(log, life.gaps);
    }
    // Also that it is nothing by now, where it was something once.
    if lost.is_some() || file.places.lost.is_some() {
        file.places.lost = lost;
    }
    file.had = (!had.logs.is_empty()).then_some(had);
    file.began = (!began.logs.is_empty()).then_some(began);
    let (mut notes, mut last) = (Vec::new(), None);
    for directory in &found.directories {
        file.holes = found.holes.get(directory).cloned().unwrap_or_default();
        // It may be damaged here and whole elsewhere: what counts was put together from all.
        let may = |there: Option<&TopicFile>| may_adopt(pool, found, directory, there);
        match wait::for_lock(|| file.replace_if(directory, may)) {
            Ok(done) => done?,
            Err(error) => {
                notes.push(format!(
                    "topic {}: {error}; let control write there: should this pool be lost before \
                     anything new is on disk, what was only in memory may have its positions again",
                    file.name
                ));
                last = Some(error);
            }
        }
    }
    // What is shown at positions that no disk knows of is shown there twice.
    match last.filter(|_| notes.len() == found.directories.len()) {
        Some(error) => Err(ColdError::Untold { name: file.name, error }),
        None => Ok(notes),
    }
}

/// Whether a topic's directory is still this control's to change, asked under its lock: `there` is
/// what it says by now. Who was stopped since it read the directories may wake when another control
/// of this pool serves, or when another pool has the topic. Whoever claims the lead after this look
/// writes here after this control, under the same lock.
fn may_adopt(
    pool: &Pool,
    found: &Found,
    directory: &Path,
    there: Option<&TopicFile>,
) -> Result<(), ColdError> {
    let own = pool.uuid_text();
    let is_known = |uuid: &String| *uuid == own || found.pools.contains(uuid);
    match there {
        _ if !pool.leads(pool.epoch_number()) => {
            Err(ColdError::Overtaken { epoch: pool.highest_epoch() })
        }
        Some(file) if !is_known(&file.pool_uuid) => {
            Err(ColdError::Elsewhere { path: directory.to_owned() })
        }
        _ => Ok(()),
    }
}

/// How often the topic went on, this pool included: in one that it came back into already it did
/// not go on since.
fn life_of(pool: &Pool, found: &Found) -> u64 {
    found.life.saturating_add(u64::from(!found.pools.contains(&pool.uuid_text())))
}

/// Where a broker's own log begins in this pool of which no directory knows: it may have been in
/// the one that was lost, in memory alone. Where the topic ended in good order it was not.
fn begins(pool: &Pool, found: &Found) -> Resumed {
    if found.file.order().is_none_or(Order::is_sequenced) {
        return Resumed::default();
    }
    let told = Told {
        resumed: Some(found.begins),
        ended: found.is_ended.then_some(found.begins),
        pool_bytes: found.file.pool_bytes.max(pool.geometry().pool_bytes()),
        is_same_pool: found.pools.contains(&pool.uuid_text()),
        ..Told::default()
    };
    let Plan { index, position, .. } = plan(&mut Vec::new(), &told);
    Resumed { index, position }
}

/// The topic as it was, in its own slot if that is free.
fn entry_of(pool: &Pool, taken: &[(TopicEntry, Found)], found: &Found) -> Option<TopicEntry> {
    let file = &found.file;
    let is_free = |slot: usize| {
        pool.topic_in_slot(slot).is_some_and(|entry| entry.state() == TopicState::Absent)
            && taken.iter().all(|(entry, _)| TopicId(entry.id).slot() != slot)
    };
    let own = TopicId(file.id);
    let id = match own.0 != 0 && is_free(own.slot()) {
        true => own,
        false => TopicId::new((0..TOPICS_MAX).find(|slot| is_free(*slot))?, 1),
    };
    let mut name = [0; 120];
    name.get_mut(..file.name.len())?.copy_from_slice(file.name.as_bytes());
    let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
    let begins = begins(pool, found);
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
        deleted_ns: 0,
        life: life_of(pool, found),
        begin_index: begins.index,
        begin_position: begins.position,
        reserved: [0; 3],
    })
}

/// Writes into this leader's slot alone: the frontier line of a broker's own log is the broker's,
/// and who leads next may have let it land already.
fn begin_log(pool: &Pool, id: TopicId, log: usize, plan: &Plan, skips: &Skips, now_ns: u64) {
    if log == SEQUENCED_LOG {
        pool.start_frontier(id, log);
        let line = FrontierLine {
            entries: plan.index,
            position: plan.position,
            at_ns: now_ns,
            ..FrontierLine::default()
        };
        pool.advance_frontier(id, log, &line);
        pool.say_written(id, plan.index, 0);
    }
    let last = skips.ranges().last();
    let chain = ChainLine {
        oldest_index: plan.index,
        oldest_position: plan.position,
        head: SegmentId::NONE.0,
        tail: SegmentId::NONE.0,
        topic: id.0.into(),
        skipped_from: last.map_or(0, |range| range.position),
        skipped_to: last.map_or(0, |range| range.to_position),
        skipped_positions: skips.positions(),
        skipped_entries: skips.entries(),
    };
    pool.set_chain(id, log, &chain);
}
