//! Topics that are gone, and what data directories still have of them.
//!
//! A broker that lives removes the files of a topic that is deleted. One that is dead keeps them,
//! and a pool that is lost would bring the topic back. So control itself writes into every data
//! directory that it was given that the topic was deleted, before it answers.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use landfall_replica::names::{ages, topic_directory};
use landfall_replica::{FileError, TopicFile};

/// The data directories of brokers, and what topics there were.
#[derive(Debug, Default)]
pub struct Graves {
    data: Vec<PathBuf>,
    /// The age of the latest topic of each name.
    latest: HashMap<String, u64>,
}

impl Graves {
    /// Reads names and ages. A directory that cannot be read has none: what cannot be read is not
    /// brought back either.
    pub fn read(data: &[PathBuf]) -> Self {
        let mut graves = Self { data: data.to_vec(), latest: HashMap::new() };
        for (name, created_ns) in data.iter().filter_map(|data| ages(data).ok()).flatten() {
            graves.note(&name, created_ns);
        }
        graves
    }

    /// The data directories.
    pub fn data(&self) -> &[PathBuf] {
        &self.data
    }

    /// There is, or was, such a topic.
    pub fn note(&mut self, name: &str, created_ns: u64) {
        let latest = self.latest.entry(name.to_owned()).or_default();
        *latest = created_ns.max(*latest);
    }

    /// The age of a new topic: later than of every one of its name, however the clock was set,
    /// since of several on disk the latest counts.
    pub fn age(&mut self, name: &str, now_ns: u64) -> u64 {
        let age = self.latest.get(name).map_or(now_ns, |latest| now_ns.max(latest + 1));
        self.note(name, age);
        age
    }

    /// Says in every directory that the topic was deleted. A thread does it, since disks may be
    /// slow: what could not be said comes as sentences when it is done. `None` where there is
    /// nothing to say.
    pub fn bury(&self, name: &str, created_ns: u64) -> Option<Receiver<Vec<String>>> {
        let topic = |data: &PathBuf| topic_directory(data, name, created_ns);
        let topics: Vec<PathBuf> =
            self.data.iter().map(topic).filter(|path| path.is_dir()).collect();
        if topics.is_empty() {
            return None;
        }
        let (say, said) = channel();
        let name = name.to_owned();
        let body = move || {
            let notes = topics.iter().filter_map(|topic| {
                let error = mark(topic).err()?;
                Some(format!(
                    "topic {name} is deleted, and {} may bring it back when the pool is lost: \
                     {error}; remove that directory",
                    topic.display()
                ))
            });
            // Nobody listens where control is ending.
            let _ = say.send(notes.collect());
        };
        match std::thread::Builder::new().name("graves".to_owned()).spawn(body) {
            Ok(_) => Some(said),
            Err(error) => {
                let (say, said) = channel();
                let _ = say.send(vec![format!(
                    "no thread could be started to say in data directories that a topic is \
                     deleted: {error}; what brokers that are away have of it may come back when \
                     the pool is lost"
                )]);
                Some(said)
            }
        }
    }
}

fn mark(topic: &Path) -> Result<(), FileError> {
    match TopicFile::bury(topic) {
        // Its broker is back, and faster.
        Err(FileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_topic_is_later_than_every_one_of_its_name() {
        let data = std::env::temp_dir().join(format!("landfall-graves-{}", std::process::id()));
        fs::create_dir_all(topic_directory(&data, "t", 70)).unwrap();
        fs::create_dir_all(topic_directory(&data, "t", 90)).unwrap();
        let mut graves = Graves::read(&[data.clone(), data.join("not there")]);
        // The clock was set back.
        assert_eq!((graves.age("t", 50), graves.age("t", 50), graves.age("u", 50)), (91, 92, 50));
        assert_eq!(graves.age("t", 200), 200);
        fs::remove_dir_all(&data).unwrap();
    }
}
