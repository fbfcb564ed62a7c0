//! Files of topics that are gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landfall_layout::TopicId;
use landfall_layout::fate::Fate;
use landfall_layout::limits::TOPICS_MAX;
use landfall_layout::topic::{TopicEntry, TopicState};
use landfall_pool::Pool;
use landfall_replica::deletions;
use landfall_replica::mend::sync_directory;
use landfall_replica::names::{TOPIC_FILE, TOPIC_GRAVE, TopicListing, list, topic_directory};
use landfall_replica::{FileError, TopicFile};

/// Removes the files of a topic that was deleted. That it was is written there first, and goes
/// last: who dies in between leaves files that nobody brings back, whatever becomes of the pool.
pub fn remove_topic(data: &Path, name: &str, created_ns: u64) -> Result<(), FileError> {
    let directory = topic_directory(data, name, created_ns);
    if directory.is_dir() {
        TopicFile::bury(&directory)?;
        for kept in [&[TOPIC_FILE, TOPIC_GRAVE][..], &[TOPIC_GRAVE]] {
            remove_but(&directory, kept).map_err(FileError::io("empty", &directory))?;
        }
        // Another disk that is away may have the topic still. On a full one there is room by now.
        deletions::say(data, [&(name.to_owned(), created_ns)])?;
        fs::remove_dir_all(&directory).map_err(FileError::io("remove", &directory))?;
    }
    if let Some(parent) = directory.parent() {
        // Another topic of that name, of another time, may be there still.
        let _ = fs::remove_dir(parent);
    }
    sync_directory(data)
}

/// Removes everything in a directory but the files `kept`.
pub fn remove_but(directory: &Path, kept: &[&str]) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if !kept.iter().any(|kept| entry.file_name() == *kept) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What became of the topics in a data directory that this broker has not open.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Names of the topics whose files were removed.
    pub removed: Vec<String>,
    /// Some may be left to remove: of a topic that is being deleted, or that nobody has opened yet.
    pub may_be_more: bool,
    /// Topics that the pool does not have, and that nobody is known to have deleted, a sentence
    /// each.
    pub strangers: Vec<String>,
}

/// A topic of a data directory.
struct Stored {
    path: PathBuf,
    file: TopicFile,
}

/// Looks for topics that were deleted while this broker was away: their files say that they were,
/// or that the topic was alive in this very pool, whose table shows that it was deleted since. That
/// the topic is only not there is no sign of it: the table may be older than the files, or damaged.
/// Then nothing is removed, now and later. Nothing is judged by a table before a leader serves it:
/// the one that makes a new pool writes into the files before the table. Files of other pools are
/// not touched: they may be all that is left of one. What `is_open` says yes to, by name and age,
/// goes with its topic.
pub fn remove_forgotten(
    pool: &Pool,
    data: &Path,
    is_open: impl Fn(&str, u64) -> bool,
) -> Result<Forgotten, FileError> {
    // The files first: what they say was alive by then is in the table, unless it was deleted.
    let stored = stored(data)?;
    let Some(table) = table(pool) else {
        return Ok(Forgotten { may_be_more: true, ..Forgotten::default() });
    };
    let uuid = pool.uuid_text();
    let mut forgotten = Forgotten::default();
    for Stored { path, file } in stored {
        if is_open(&file.name, file.created_ns) {
            continue;
        }
        let id = TopicId(file.id);
        let fate = |entry: &TopicEntry| entry.fate_of(id, &file.name, file.created_ns);
        let fates = || table.iter().map(fate);
        let own = table.get(id.slot());
        let is_ours = file.live_in == uuid;
        if file.deleted || is_ours && own.map(fate) == Some(Fate::Deleted) {
            remove_topic(data, &file.name, file.created_ns)?;
            forgotten.removed.push(file.name);
        } else if fates().any(|fate| matches!(fate, Fate::Here | Fate::Leaving)) {
            forgotten.may_be_more |= is_ours;
        } else if is_ours {
            let reached = own.map_or(0, |entry| entry.id);
            forgotten.strangers.push(keep(&path, &file, reached)?);
        } else {
            forgotten.strangers.push(foreign(&path, &file, &table));
        }
    }
    Ok(forgotten)
}

/// Topics of a data directory that say what they are.
fn stored(data: &Path) -> Result<Vec<Stored>, FileError> {
    let read = |topic: TopicListing| {
        let file = TopicFile::read(&topic.path).ok()?;
        let is_its = file.name == topic.name && file.created_ns == topic.created_ns;
        is_its.then_some(Stored { path: topic.path, file })
    };
    Ok(list(data)?.topics.into_iter().filter_map(read).collect())
}

/// Keeps the files of a topic that was alive in this pool, whose table does not show that it was
/// deleted. They are no longer of this pool from here on: a table that is older goes on to give out
/// the ids which the topic's time had given out already, and would look as if it had been deleted.
pub fn keep(path: &Path, file: &TopicFile, reached: u32) -> Result<String, FileError> {
    TopicFile::change(path, |there| {
        (there.map(|there| TopicFile { live_in: String::new(), ..there }), ())
    })?;
    let (name, path, id) = (&file.name, path.display(), file.id);
    // The log of errors has room for two hundred bytes.
    Ok(format!(
        "topic {name}, id {id:#x}, of {path}: the pool's tables are at id {reached:#x} there, so \
         it is older or damaged. Nothing is removed. landfall verify it; stop all, remove it, \
         start control with --restore"
    ))
}

/// What is said of a topic that was never alive in this pool.
fn foreign(path: &Path, file: &TopicFile, table: &[TopicEntry]) -> String {
    let is_named =
        |entry: &TopicEntry| entry.state() != TopicState::Absent && entry.name() == file.name;
    let (name, path) = (&file.name, path.display());
    match table.iter().find(|entry| is_named(entry)) {
        Some(other) => format!(
            "topic {name}: {path} is of an earlier one, hidden by the pool's own of id {:#x}: copy \
             it away if it is needed, and remove it here",
            other.id
        ),
        None => format!(
            "topic {name} is in {path} and not in the pool: a new one of that name would hide it. \
             To have it again stop all, remove the pool and start control with --restore; else \
             move it away"
        ),
    }
}

/// The table of the leader that serves; none where nobody does, another has claimed the lead, which
/// may not have copied all of that table, or the table is being changed: nothing is known for sure
/// then.
fn table(pool: &Pool) -> Option<Vec<TopicEntry>> {
    let serving = pool.serving()?;
    pool.follow();
    let table: Option<Vec<_>> = (0..TOPICS_MAX).map(|slot| pool.topic_in_slot(slot)).collect();
    // A slot that was left may be made anew meanwhile.
    table.filter(|_| pool.serving() == Some(serving) && pool.leads(serving.1))
}
