//! A pool that is older than its data directories: its topics went on in another pool since, or it
//! is a copy of its file from before. What it landed would have positions that are used, and the
//! next start from disk would know nothing of it, or of two messages at one position.

use std::path::{Path, PathBuf};
use std::time::Duration;

use landfall_layout::TopicId;
use landfall_layout::limits::LOGS_PER_TOPIC;
use landfall_layout::topic::TopicEntry;
use landfall_pool::Pool;
use landfall_replica::ask::{self, Asked};
use landfall_replica::end::{Behind, behind};
use landfall_replica::names::topic_directory;
use landfall_replica::{Numbers, TopicFile};

use super::ColdError;
use super::end::live;
use crate::directories::say_waiting;

/// What a data directory says of one of the pool's topics.
struct Said {
    topic: u32,
    path: PathBuf,
    pool: String,
    is_elsewhere: bool,
    /// How far each log of the topic was, where the directory is of this pool.
    reached: Vec<(usize, u64)>,
}

/// Which pool was served last in a data directory that was one of this pool's.
enum Later {
    /// This one.
    Ours,
    /// Another one, by its number, since.
    Another(PathBuf, String),
    /// That is not known, or it was never this pool's.
    Unknown,
}

fn later_pool(data: &Path, uuid: &str) -> Later {
    let Ok(numbers) = Numbers::read(data) else { return Later::Unknown };
    match numbers.served_since(uuid) {
        Some(last) => Later::Another(data.to_owned(), last.to_owned()),
        None if numbers.of.iter().any(|(_, pool)| pool == uuid) => Later::Ours,
        None => Later::Unknown,
    }
}

/// Looks before a pool that was led before is served. A directory is waited for until it was silent
/// for `bound`. With `forgets_lost`, directories that another pool has taken up, while others are
/// this pool's still, are a sentence each: their brokers write nothing there.
///
/// # Errors
///
/// [`ColdError::WentOn`]: a directory of a topic is another pool's, which is the later one: what
/// this one ordered from here on would have positions that are used there.
/// [`ColdError::GoneSince`]: none has a topic, and another pool was served there since.
/// [`ColdError::Behind`]: one that is this pool's says that a log was further.
pub fn check(
    pool: &Pool,
    data: &[PathBuf],
    bound: Duration,
    forgets_lost: bool,
) -> Result<Vec<String>, ColdError> {
    let topics: Vec<TopicEntry> = live(pool).collect();
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let uuid = pool.uuid_text();
    let look = |data: &PathBuf| {
        let (path, topics, uuid) = (data.clone(), topics.clone(), uuid.clone());
        ask::begin_within(data, bound, move || {
            let said = |entry: &TopicEntry| {
                let path = topic_directory(&path, entry.name(), entry.created_ns);
                let file = TopicFile::read(&path).ok()?;
                let is_elsewhere = file.went_on_elsewhere(&uuid, entry.life);
                let reached = if file.pool_uuid == uuid { reached(&file) } else { Vec::new() };
                Some(Said { topic: entry.id, path, pool: file.pool_uuid, is_elsewhere, reached })
            };
            (later_pool(&path, &uuid), topics.iter().filter_map(said).collect::<Vec<_>>())
        })
    };
    let asked: Vec<Asked<_>> = data.iter().map(look).collect();
    // One that does not answer is told of by whoever needs it.
    let heard = asked.into_iter().filter_map(|asked| asked.wait_and_tell(say_waiting).ok());
    let (mut all, mut later) = (Vec::new(), Some(Vec::new()));
    for (pool, said) in heard {
        all.extend(said);
        match (pool, &mut later) {
            (Later::Another(path, pool), Some(later)) => later.push((path, pool)),
            (Later::Ours, later) => *later = None,
            _ => {}
        }
    }
    let later = later.and_then(|later| later.into_iter().next());
    let mut notes = Vec::new();
    for entry in &topics {
        let name = entry.name();
        let of_it = || all.iter().filter(|said| said.topic == entry.id);
        let elsewhere: Vec<&Said> = of_it().filter(|said| said.is_elsewhere).collect();
        let is_whole = of_it().all(|said| said.is_elsewhere);
        if let Some(one) = elsewhere.first().filter(|_| is_whole || !forgets_lost) {
            let (path, pool) = (one.path.clone(), one.pool.clone());
            return Err(ColdError::WentOn { name: name.to_owned(), path, pool, is_whole });
        }
        if let Some((path, pool)) = later.clone().filter(|_| of_it().next().is_none()) {
            return Err(ColdError::GoneSince { name: name.to_owned(), path, pool });
        }
        // Looked up only now: brokers that live land on, and say so in their directories.
        let here = |log| frontier(pool, entry, log);
        let ahead = of_it().find_map(|said| {
            let further = said.reached.iter().find(|(log, index)| *index > here(*log))?;
            Some((&said.path, *further))
        });
        if let Some((path, (log, index))) = ahead {
            let (name, path, here) = (name.to_owned(), path.clone(), here(log));
            return Err(ColdError::Behind(Behind { name, path, log, index, here }));
        }
        notes.extend(elsewhere.iter().map(|said| {
            format!(
                "topic {name}: {} went on in a later pool, {}: what was acknowledged there is in \
                 no log of this pool, which uses its positions again; this pool's brokers write \
                 nothing there. To go on with the later one, end this system and start control on \
                 that pool",
                said.path.display(),
                said.pool
            )
        }));
    }
    Ok(notes)
}

/// Looks, before anything is ordered in a pool that was led before, at how far its files in the
/// data directories reach. A directory is waited for until it was silent for `bound`.
///
/// # Errors
///
/// [`ColdError::Behind`]: a file reaches further than its log.
pub fn check_files(pool: &Pool, data: &[PathBuf], bound: Duration) -> Result<(), ColdError> {
    let topics: Vec<TopicEntry> = live(pool).collect();
    if topics.is_empty() {
        return Ok(());
    }
    // Nothing was ever shown behind what the last leader said that it had written: it says so
    // before it looks whether it still leads, and this one has claimed the lead.
    let reached = |entry: &TopicEntry, log| frontier(pool, entry, log);
    let uuid = (pool.header().uuid, &*pool.uuid_text());
    match behind(data, uuid, &topics, reached, (bound, say_waiting)) {
        Some(behind) => Err(ColdError::Behind(behind)),
        None => Ok(()),
    }
}

/// How far each log was when the directory was written last.
fn reached(file: &TopicFile) -> Vec<(usize, u64)> {
    let ended = file.ended.iter().flat_map(|ended| &ended.logs);
    let ended = ended.map(|(log, end)| (*log, end.index));
    let said = file.reached.iter().map(|(log, place)| (*log, place.index)).chain(ended);
    said.filter(|(log, _)| *log < LOGS_PER_TOPIC).collect()
}

/// How far a log is in the pool. The leader before may have shown what it wrote before it was
/// deposed after the tables were copied.
fn frontier(pool: &Pool, entry: &TopicEntry, log: usize) -> u64 {
    let line = pool.frontier(TopicId(entry.id), log);
    line.entries.max(line.written)
}
