//! What is said of a topic beside its files, in `topic.json`, and by whom.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landfall_layout::TopicId;
use landfall_layout::limits::LOGS_PER_TOPIC;
use landfall_layout::order::FrontierLine;
use landfall_layout::replica::{ReplicaLine, TAIL_UNKNOWN};
use landfall_layout::topic::TopicEntry;
use landfall_pool::Pool;
use landfall_replica::mend::create_directory;
use landfall_replica::{Ended, EndedLog, FileError, Resumed, TopicFile};

use super::duties::Duty;
use super::had;

/// Who keeps a replica, and when it began.
#[derive(Clone, Copy, Debug)]
pub struct Keeper {
    pub me: landfall_layout::BrokerId,
    pub incarnation: u64,
    pub now_ns: u64,
    pub file_bytes: u64,
}

/// Writes what the topic is, unless that is said already. The topic is alive in the table of a
/// leader that serves, so no end of its logs stands any more. A directory that is new to this pool
/// learns what those in `others` say of it. What is said of logs that went on in this pool right
/// where they had ended.
pub fn write_topic(
    pool: &Pool,
    directory: &Path,
    entry: &TopicEntry,
    others: &[PathBuf],
) -> Result<Option<Ended>, FileError> {
    create_directory(directory)?;
    let uuid = pool.uuid_text();
    let moved = moved_on(pool, entry);
    let elsewhere = match moved.is_empty() {
        true => Vec::new(),
        false => had::said(pool, directory, entry, others),
    };
    let Some(mine) = TopicFile::of(entry, &uuid, pool.header().pool_bytes) else {
        return Ok(None);
    };
    TopicFile::change(directory, |there| {
        // What became of its logs in other pools is control's to say, and stays.
        let kept = there.unwrap_or_else(|| {
            // It may be all that is left of the topic, some day.
            let reached = moved.keys().map(|log| (*log, frontier(pool, entry, *log))).collect();
            TopicFile { made_at: moved, reached, ..mine.clone() }
        });
        let TopicFile { mut resumed, mut skipped, mut reached, made_at, began, pool_uuid, .. } =
            kept;
        // What another pool began with says nothing of this one.
        let began = began.filter(|_| pool_uuid == uuid);
        let mut began_there = began.clone();
        for other in elsewhere {
            resumed.extend(other.resumed);
            for (log, skips) in &other.skipped {
                skipped.entry(*log).or_default().join(skips);
            }
            for (log, place) in other.reached {
                let most = reached.entry(log).or_default();
                *most = if place.index > most.index { place } else { *most };
            }
            began_there = began_there.or(other.began);
        }
        // An end that is said here was not taken back: this is a copy from before, or was away.
        let life = kept.life.saturating_add((kept.ended.is_some() && pool_uuid == uuid).into());
        let file = TopicFile { live_in: uuid, resumed, skipped, reached, made_at, life, ..mine };
        (Some(TopicFile { began: began_there, ..file }), began)
    })
}

/// The logs of a topic whose memory begins behind their first entry, and where.
fn moved_on(pool: &Pool, entry: &TopicEntry) -> BTreeMap<usize, u64> {
    let oldest = |log| (log, pool.oldest(TopicId(entry.id), log));
    (0..LOGS_PER_TOPIC).map(oldest).filter(|(_, oldest)| *oldest > 0).collect()
}

fn frontier(pool: &Pool, entry: &TopicEntry, log: usize) -> Resumed {
    let line = pool.frontier(TopicId(entry.id), log);
    Resumed { index: line.entries, position: line.position }
}

/// Log index below which a replica has everything because its log was whole on disk when the pool
/// before this one was stopped; 0: that is not known. Its files, which reach so far and have so
/// many entries if they hold, have to have what they had then.
pub fn began_at(began: Option<Ended>, duty: Duty, log: usize, has: Option<(u64, u64)>) -> u64 {
    let began = began.and_then(|mut began| began.logs.remove(&log));
    let has_all = |log: &EndedLog| {
        has.is_some_and(|(covers, entries)| log.is_reached(duty.source.raw(), covers, entries))
    };
    began.filter(has_all).map_or(0, |log| log.index)
}

/// How far the line `before` says that its copy is, for files that have all that it says. One that
/// could not be opened since says nothing, and nothing left memory meanwhile that they have not
/// got, unless somebody kept the copy `elsewhere`.
pub fn followed(before: &ReplicaLine, elsewhere: u64, oldest: u64) -> u64 {
    let was_shut = before.durable == 0 && !matches!(before.tail, 0 | TAIL_UNKNOWN);
    if was_shut && elsewhere == 0 { oldest } else { before.durable }
}

/// What the line of a copy that cannot be opened says of how far its files have to reach. They are
/// known to have all that left memory only where the line `before` was so far.
pub fn tail_of_shut(before: &ReplicaLine, oldest: u64) -> u64 {
    let was_shut = before.durable == 0 && before.tail != 0;
    match before.incarnation != 0 && (was_shut || before.durable >= oldest) {
        true => before.tail,
        false => TAIL_UNKNOWN,
    }
}

/// Says beside the files of a source, which lie in `source`, how far their log is: should one of
/// them not be readable some day, the log is known to have come so far.
pub fn say_reached(source: &Path, log: usize, frontier: &FrontierLine) -> Result<(), FileError> {
    let reached = Resumed { index: frontier.entries, position: frontier.position };
    TopicFile::change(source.parent().unwrap_or(source), |file| {
        let said = file.map(|mut file| {
            file.reached.insert(log, reached);
            file
        });
        (said, ())
    })
}
