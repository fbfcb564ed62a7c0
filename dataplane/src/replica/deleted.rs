//! Files of topics that are gone.

use std::fs;
use std::io;
use std::path::Path;

use landfall_layout::limits::TOPICS_MAX;
use landfall_layout::topic::TopicState;
use landfall_pool::Pool;
use landfall_replica::mend::sync_directory;
use landfall_replica::names::{list, topic_directory};
use landfall_replica::{FileError, TopicFile};

/// Removes the files of a topic that was deleted.
pub fn remove_topic(data: &Path, name: &str, created_ns: u64) -> Result<(), FileError> {
    let directory = topic_directory(data, name, created_ns);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(FileError::io("remove", &directory)(error));
        }
        _ => {}
    }
    if let Some(parent) = directory.parent() {
        // Another topic of that name, of another time, may be there still.
        let _ = fs::remove_dir(parent);
    }
    sync_directory(data)
}

/// Whether no topic is just being made or deleted.
pub fn is_settled(pool: &Pool) -> bool {
    (0..TOPICS_MAX).all(|slot| {
        pool.topic_in_slot(slot).is_some_and(|entry| entry.state() != TopicState::Deleting)
    })
}

/// Topics of this pool that were deleted while this broker was away: their files name this very
/// pool, and its table does not name them. Files of other pools are not touched: they may be all
/// that is left of one.
pub fn remove_forgotten(pool: &Pool, data: &Path) -> Result<Vec<String>, FileError> {
    let mut known = Vec::new();
    for slot in 0..TOPICS_MAX {
        match pool.topic_in_slot(slot) {
            Some(entry) if entry.state() == TopicState::Absent => {}
            Some(entry) => known.push((entry.name().to_owned(), entry.created_ns)),
            // The table is being changed: nothing is known for sure now.
            None => return Ok(Vec::new()),
        }
    }
    let uuid = pool.uuid_text();
    let mut removed = Vec::new();
    for topic in list(data)?.topics {
        let is_ours = TopicFile::read(&topic.path).is_ok_and(|file| {
            file.pool_uuid == uuid && file.name == topic.name && file.created_ns == topic.created_ns
        });
        if is_ours && !known.contains(&(topic.name.clone(), topic.created_ns)) {
            remove_topic(data, &topic.name, topic.created_ns)?;
            removed.push(topic.name);
        }
    }
    Ok(removed)
}
