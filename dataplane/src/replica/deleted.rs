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

/// Removes the files of a topic that was deleted. What says whose they are goes last: who dies in
/// between leaves files that are still known as this topic's.
pub fn remove_topic(data: &Path, name: &str, created_ns: u64) -> Result<(), FileError> {
    let directory = topic_directory(data, name, created_ns);
    if directory.is_dir() {
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

/// Topics of this pool that were deleted while this broker was away: their files name this very
/// pool, and its table does not name them. Files of other pools are not touched: they may be all
/// that is left of one. What `is_open` says yes to, by name and age, goes with its topic.
pub fn remove_forgotten(
    pool: &Pool,
    data: &Path,
    is_open: impl Fn(&str, u64) -> bool,
) -> Result<Forgotten, FileError> {
    let mut known = Vec::new();
    for slot in 0..TOPICS_MAX {
        match pool.topic_in_slot(slot) {
            Some(entry) if entry.state() == TopicState::Absent => {}
            Some(entry) => known.push((entry.name().to_owned(), entry.created_ns)),
            // The table is being changed: nothing is known for sure now.
            None => return Ok(Forgotten { removed: Vec::new(), may_be_more: true }),
        }
    }
    let uuid = pool.uuid_text();
    let mut forgotten = Forgotten::default();
    for topic in list(data)?.topics {
        let is_ours = TopicFile::read(&topic.path).is_ok_and(|file| {
            file.pool_uuid == uuid && file.name == topic.name && file.created_ns == topic.created_ns
        });
        if !is_ours || is_open(&topic.name, topic.created_ns) {
            continue;
        }
        if known.contains(&(topic.name.clone(), topic.created_ns)) {
            forgotten.may_be_more = true;
            continue;
        }
        remove_topic(data, &topic.name, topic.created_ns)?;
        forgotten.removed.push(topic.name);
    }
    Ok(forgotten)
}
