//! What data directories are told before a copy moves: who keeps a part of it from then on.
//!
//! A cold start asks for the directory of everybody who is named so. What a stand-in keeps is on no
//! other disk, so others have to name it before anything that it keeps counts. The disk of the
//! home may be dead: all directories that control knows are told, also those of brokers that had
//! nothing of the topic.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use landfall_layout::TopicId;
use landfall_layout::keepers::StandIn;
use landfall_layout::limits::LOGS_PER_TOPIC;
use landfall_layout::topic::{TopicEntry, TopicState};
use landfall_pool::Pool;
use landfall_replica::mend::create_directory;
use landfall_replica::names::topic_directory;
use landfall_replica::there::Part;
use landfall_replica::{FileError, Numbers, TopicFile};

/// How long data directories are waited for, nanoseconds: one may hang, and what the others say is
/// enough as long as one of them is there.
const TELL_NS: u64 = 5_000_000_000;

/// Directories that are being told.
#[derive(Debug)]
pub struct Telling {
    /// Which copy of its source.
    pub replica: usize,
    /// Who keeps it once that is said.
    pub to: StandIn,
    until_ns: u64,
    awaited: Vec<PathBuf>,
    told: Receiver<(PathBuf, Result<(), FileError>)>,
    notes: Vec<String>,
}

/// Tells the data directories `data` in threads, since disks may be slow.
pub fn tell(
    pool: &Arc<Pool>,
    entry: &TopicEntry,
    (part, to): (Part, StandIn),
    data: &[PathBuf],
    now_ns: u64,
) -> Telling {
    let (say, told) = channel();
    let mut telling = Telling {
        replica: part.copy.into(),
        to,
        until_ns: now_ns + TELL_NS,
        awaited: data.to_vec(),
        told,
        notes: Vec::new(),
    };
    for directory in data {
        let (pool, entry, say, data) = (Arc::clone(pool), *entry, say.clone(), directory.clone());
        let body = move || {
            let said = tell_one(&pool, &entry, part, &data);
            // Nobody listens any more to one that was too late.
            let _ = say.send((data, said));
        };
        if let Err(error) = std::thread::Builder::new().name("parts".to_owned()).spawn(body) {
            telling.awaited.retain(|awaited| awaited != directory);
            telling
                .notes
                .push(format!("{}: no thread to write there: {error}", directory.display()));
        }
    }
    telling
}

impl Telling {
    /// What could not be told, a sentence each, once all have been told or are too late.
    pub fn end(&mut self, now_ns: u64) -> Option<Vec<String>> {
        loop {
            match self.told.try_recv() {
                Ok((data, said)) => {
                    self.awaited.retain(|awaited| *awaited != data);
                    self.notes.extend(said.err().map(|error| error.to_string()));
                }
                Err(TryRecvError::Disconnected) => self.awaited.clear(),
                Err(TryRecvError::Empty) => break,
            }
            if self.awaited.is_empty() {
                break;
            }
        }
        if !self.awaited.is_empty() && now_ns < self.until_ns {
            return None;
        }
        let late = self.awaited.drain(..);
        let late = late.map(|path| format!("{}: it does not answer", path.display()));
        self.notes.extend(late);
        Some(std::mem::take(&mut self.notes))
    }
}

/// Tells one data directory. A topic's directory is made only where a broker that is no home of it
/// has its disk: in that of a home it says that the home was there, and an empty mount point is
/// nobody's.
fn tell_one(pool: &Pool, entry: &TopicEntry, part: Part, data: &Path) -> Result<(), FileError> {
    let topic = topic_directory(data, entry.name(), entry.created_ns);
    if !topic.is_dir() {
        let brokers = Numbers::read(data)?.brokers();
        if brokers.is_empty() || brokers.iter().any(|broker| *broker < entry.replica_brokers) {
            return Ok(());
        }
        create_directory(&topic)?;
    }
    let said = match TopicFile::read(&topic) {
        Err(FileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            make(pool, entry, part, &topic)
        }
        _ => part.tell(&topic),
    };
    // Who deletes it looks for directories once it is marked: either this one sees the mark, or it
    // was there to be seen.
    pool.follow();
    let is_there = pool
        .topic_in_slot(TopicId(entry.id).slot())
        .is_none_or(|now| now.id == entry.id && now.state() == TopicState::Live);
    if !is_there && topic.is_dir() {
        TopicFile::bury(&topic)?;
    }
    said
}

/// Begins what a topic's directory says.
fn make(pool: &Pool, entry: &TopicEntry, part: Part, topic: &Path) -> Result<(), FileError> {
    TopicFile::change(topic, |there| {
        let made = || {
            let uuid = pool.uuid_text();
            let mut made = TopicFile::of(entry, &uuid, pool.header().pool_bytes)?;
            let oldest = |log| (log, pool.oldest(TopicId(entry.id), log));
            made.made_at =
                (0..LOGS_PER_TOPIC).map(oldest).filter(|(_, oldest)| *oldest > 0).collect();
            made.live_in = uuid;
            Some(made)
        };
        let said = there.or_else(made).map(|mut file| {
            file.places.add(part);
            file
        });
        (said, ())
    })
}
