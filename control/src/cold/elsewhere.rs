//! A pool whose topics went on in another pool since: an older one that was kept, and is started
//! again on the same data directories. What it landed would have positions that the other one has
//! used, and the next start from disk would know nothing of it.

use std::path::PathBuf;
use std::time::Duration;

use landfall_layout::topic::TopicEntry;
use landfall_pool::Pool;
use landfall_replica::TopicFile;
use landfall_replica::ask::{self, Asked};
use landfall_replica::names::topic_directory;

use super::ColdError;
use super::end::live;
use crate::directories::say_waiting;

/// What a data directory says of one of the pool's topics.
struct Said {
    topic: u32,
    path: PathBuf,
    pool: String,
    is_elsewhere: bool,
}

/// Looks before a pool that was led before is served. Directories that another pool has taken up,
/// while others are this pool's still, are a sentence each: their brokers write nothing there. A
/// directory is waited for until it was silent for `bound`.
///
/// # Errors
///
/// [`ColdError::WentOn`]: all directories that say what a topic is are another pool's.
pub fn check(pool: &Pool, data: &[PathBuf], bound: Duration) -> Result<Vec<String>, ColdError> {
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
                Some(Said { topic: entry.id, path, pool: file.pool_uuid, is_elsewhere })
            };
            topics.iter().filter_map(said).collect::<Vec<_>>()
        })
    };
    let asked: Vec<Asked<_>> = data.iter().map(look).collect();
    // One that does not answer is told of by whoever needs it.
    let heard = asked.into_iter().filter_map(|asked| asked.wait_and_tell(say_waiting).ok());
    let all: Vec<Said> = heard.flatten().collect();
    let mut notes = Vec::new();
    for entry in &topics {
        let name = entry.name();
        let of_it = || all.iter().filter(|said| said.topic == entry.id);
        let elsewhere: Vec<&Said> = of_it().filter(|said| said.is_elsewhere).collect();
        if let Some(one) = elsewhere.first().filter(|_| of_it().all(|said| said.is_elsewhere)) {
            let (path, pool) = (one.path.clone(), one.pool.clone());
            return Err(ColdError::WentOn { name: name.to_owned(), path, pool });
        }
        notes.extend(elsewhere.iter().map(|said| {
            format!(
                "topic {name}: {} went on in another pool, {}; its broker writes nothing there: \
                 move it away, or end this system and start the other one",
                said.path.display(),
                said.pool
            )
        }));
    }
    Ok(notes)
}
