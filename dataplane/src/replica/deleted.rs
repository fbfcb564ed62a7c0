//! Files of topics that are gone.

use std::fs;
use std::io;
use std::path::Path;

use landfall_layout::limits::TOPICS_MAX;
use landfall_layout::topic::TopicState;
use landfall_pool::Pool;
use landfall_replica::mend::sync_directory;
use landfall_replica::names::{TOPIC_FILE, list, topic_directory};
use landfall_replica::{FileError, TopicFile};

/// Removes the files of a topic that was deleted. That it was is written there first, and goes
/// last: who dies in between leaves files that nobody brings back, whatever becomes of the pool.
pub fn remove_topic(data: &Path, name: &str, created_ns: u64) -> Result<(), FileError> {
    let directory = topic_directory(data, name, created_ns);
    if directory.is_dir() {
        let deleted =
            |file: Option<TopicFile>| (file.map(|file| TopicFile { deleted: true, ..file }), ());
        // A file that cannot be understood says nothing either way.
        if let Err(error @ FileError::Io { .. }) = TopicFile::change(&directory, deleted) {
            return Err(error);
        }
        remove_but(&directory, TOPIC_FILE).map_err(FileError::io("empty", &directory))?;
        fs::remove_dir_all(&directory).map_err(FileError::io("remove", &directory))?;
    }
    if let Some(parent) = directory.parent() {
        // Another topic of that name, of another time, may be there still.
        let _ = fs::remove_dir(parent);
    }
    sync_directory(data)
}

/// Removes everything in a directory but the file `kept`.
pub fn remove_but(directory: &Path, kept: &str) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != kept {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What became of the files of topics that were deleted while this broker was away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Names of the topics whose files were removed.
    pub removed: Vec<String>,
    /// Some may be left: of a topic that is being deleted, or that nobody has opened yet.
    pub may_be_more: bool,
}

/// Topics that were deleted while this broker was away: their files say that they were, or that the
/// topic was alive in this very pool, whose table does not have it any more. Nothing is judged by a
/// table before a leader serves it: the one that makes a new pool writes into the files before the
/// table. Files of other pools are not touched: they may be all that is left of one. What `is_open`
/// says yes to, by name and age, goes with its topic.
pub fn remove_forgotten(
    pool: &Pool,
    data: &Path,
    is_open: impl Fn(&str, u64) -> bool,
) -> Result<Forgotten, FileError> {
    // The files first: what they say was alive by then is in the table, unless it was deleted.
    let uuid = pool.uuid_text();
    let mut ours = Vec::new();
    for topic in list(data)?.topics {
        let Ok(file) = TopicFile::read(&topic.path) else { continue };
        let is_its = file.name == topic.name && file.created_ns == topic.created_ns;
        if is_its && (file.deleted || file.live_in == uuid) {
            ours.push((file.deleted, topic));
        }
    }
    let Some(known) = table(pool) else {
        return Ok(Forgotten { removed: Vec::new(), may_be_more: true });
    };
    let mut forgotten = Forgotten::default();
    for (is_deleted, topic) in ours {
        if is_open(&topic.name, topic.created_ns) {
            continue;
        }
        let is_known = known.contains(&(topic.name.clone(), topic.created_ns));
        if is_known && !is_deleted {
            forgotten.may_be_more = true;
            continue;
        }
        remove_topic(data, &topic.name, topic.created_ns)?;
        forgotten.removed.push(topic.name);
    }
    Ok(forgotten)
}

/// Names and ages of all topics in the table of the leader that serves; none where nobody does, or
/// the table is being changed: nothing is known for sure then.
fn table(pool: &Pool) -> Option<Vec<(String, u64)>> {
    let serving = pool.serving()?;
    pool.follow();
    let mut known = Vec::new();
    for slot in 0..TOPICS_MAX {
        let entry = pool.topic_in_slot(slot)?;
        if entry.state() != TopicState::Absent {
            known.push((entry.name().to_owned(), entry.created_ns));
        }
    }
    // A slot that was left may be made anew meanwhile.
    (pool.serving() == Some(serving)).then_some(known)
}
