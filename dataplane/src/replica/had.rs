//! What other directories know of a topic that came back from disk, before anything is landed in it
//! here: whose files there are, and what became of its logs.

use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::topic::TopicEntry;
use landfall_pool::Pool;
use landfall_replica::TopicFile;
use landfall_replica::names::{list_source, source_directory, topic_directory};

/// The topic's directories in data directories.
fn topics<'a>(
    data: impl Iterator<Item = &'a PathBuf>,
    entry: &TopicEntry,
) -> impl Iterator<Item = PathBuf> {
    data.map(|data| topic_directory(data, entry.name(), entry.created_ns))
}

/// The brokers whose files are in some directory, a bit each: what they landed before is to be kept
/// whole also if they land nothing more.
pub fn sources(own: &PathBuf, others: &[PathBuf], entry: &TopicEntry) -> u32 {
    let topics: Vec<PathBuf> = topics(std::iter::once(own).chain(others), entry).collect();
    let has = |source: BrokerId| {
        let files =
            |topic: &PathBuf| list_source(&source_directory(topic, source), &mut Vec::new());
        topics.iter().any(|topic| files(topic).is_ok_and(|files| !files.is_empty()))
    };
    BrokerId::all().filter(|source| has(*source)).fold(0, |all, source| all | 1 << source.index())
}

/// What other directories say of the topic's logs in this pool, if the one in `topic` may not know:
/// it is to be made, or was made when control had said it in the others already.
pub fn said(pool: &Pool, topic: &Path, entry: &TopicEntry, others: &[PathBuf]) -> Vec<TopicFile> {
    let uuid = pool.uuid_text();
    let is_ours = |file: &TopicFile| file.pool_uuid == uuid;
    let own = TopicFile::read(topic).ok().filter(is_ours);
    if own.is_some_and(|own| own.made_at.is_empty() || !own.resumed.is_empty()) {
        return Vec::new();
    }
    let read = |topic: PathBuf| TopicFile::read(&topic).ok();
    topics(others.iter(), entry).filter_map(read).filter(is_ours).collect()
}
