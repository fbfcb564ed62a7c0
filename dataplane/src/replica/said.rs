//! What is said of a topic beside its files, in `topic.json`.

use std::path::Path;

use landfall_layout::topic::TopicEntry;
use landfall_pool::Pool;
use landfall_replica::mend::create_directory;
use landfall_replica::{FileError, TopicFile};

/// Writes what the topic is, unless that is said already. The topic is alive in the table of a
/// leader that serves.
pub fn write_topic(pool: &Pool, directory: &Path, entry: &TopicEntry) -> Result<(), FileError> {
    create_directory(directory)?;
    let uuid = pool.uuid_text();
    let Some(mine) = TopicFile::of(entry, &uuid, pool.header().pool_bytes) else {
        return Ok(());
    };
    TopicFile::change(directory, |there| {
        // What became of its logs in other pools is control's to say, and stays.
        let kept = there.unwrap_or_else(|| mine.clone());
        let TopicFile { resumed, skipped, reached, ended, .. } = kept;
        (Some(TopicFile { live_in: uuid, resumed, skipped, reached, ended, ..mine }), ())
    })
}
