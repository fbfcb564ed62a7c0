//! What other directories know of a topic that came back from disk, before anything is landed in it
//! here: whose files there are, and what became of its logs.

use std::path::{Path, PathBuf};

use landfall_layout::keepers::StandIn;
use landfall_layout::limits::STAND_INS_MAX;
use landfall_layout::topic::TopicEntry;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::Pool;
use landfall_replica::TopicFile;
use landfall_replica::ask::ask_all;
use landfall_replica::names::{list_source, source_directory, topic_directory};

/// The brokers whose files are in some directory, a bit each, and whether every directory answered:
/// what they landed before is to be kept whole also if they land nothing more.
pub fn sources(own: &Path, others: &[PathBuf], entry: &TopicEntry) -> (u32, bool) {
    let (mut all, mut is_known) = (0, true);
    let data = std::iter::once(own).chain(others.iter().map(PathBuf::as_path));
    let looks = data.map(|data| {
        let topic = topic_directory(data, entry.name(), entry.created_ns);
        (data, move || sources_in(&topic))
    });
    for found in ask_all(looks) {
        match found {
            Ok(sources) => all |= sources,
            Err(_) => is_known = false,
        }
    }
    (all, is_known)
}

/// The brokers of whose batches this broker had some on disk in this pool, by its own lines, a bit
/// each: where none of them can be read any more, they are missing. A copy that could not be opened
/// since says where its files ended. Also those whose batches came back from disk.
pub fn kept(pool: &Pool, entry: &TopicEntry, me: BrokerId) -> u32 {
    let id = TopicId(entry.id);
    let stand_ins = (0..STAND_INS_MAX).map(|line| Some(StandIn { broker: me, line }));
    let keepers: Vec<Option<StandIn>> = std::iter::once(None).chain(stand_ins).collect();
    let is_kept = |source: &BrokerId| {
        let came_back = pool.tail_on_disk(id, *source) > 0;
        came_back
            || (0..entry.disk_replicas()).any(|copy| {
                let is_home = entry.replica_broker(*source, copy) == Some(me);
                let mine = keepers.iter().filter(|keeper| keeper.is_some() || is_home);
                let mut lines = mine.map(|keeper| pool.copy_line(id, *source, copy, *keeper));
                lines.any(|line| {
                    let line = pool.copy_state(line);
                    line.incarnation != 0 && (line.entries > 0 || line.tail > 0)
                })
            })
    };
    BrokerId::all().filter(is_kept).fold(0, |all, source| all | 1 << source.index())
}

fn sources_in(topic: &Path) -> u32 {
    let has = |source: &BrokerId| {
        let files = list_source(&source_directory(topic, *source), &mut Vec::new());
        files.is_ok_and(|files| !files.is_empty())
    };
    BrokerId::all().filter(has).fold(0, |all, source| all | 1 << source.index())
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
    let said = ask_all(others.iter().map(|data| {
        let topic = topic_directory(data, entry.name(), entry.created_ns);
        (data, move || TopicFile::read(&topic))
    }));
    // One that does not answer says nothing.
    said.into_iter().filter_map(|said| said.ok()?.ok()).filter(is_ours).collect()
}
