//! Topics that are gone, and what data directories still have of them.
//!
//! A broker that lives removes the files of a topic that is deleted. One that is dead keeps them,
//! and a pool that is lost would bring the topic back. So control itself writes into every data
//! directory that it was given that the topic was deleted, before it answers: into those that have
//! it, and into the others too, since a disk that has it may be away.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use landfall_replica::ask::{self, Asked};
use landfall_replica::deletions::{self, DELETIONS_MAX, Deletion};
use landfall_replica::names::{ages, topic_directory};
use landfall_replica::{FileError, TopicFile};

use crate::directories::say_waiting;

/// The data directories of brokers, and what topics there were.
#[derive(Clone, Debug, Default)]
pub struct Graves {
    data: Vec<PathBuf>,
    /// The age of the latest topic of each name.
    latest: HashMap<String, u64>,
    /// What directories say was deleted.
    said: Vec<(PathBuf, BTreeSet<Deletion>)>,
}

impl Graves {
    /// Reads names and ages. A directory that cannot be read has none: what cannot be read is not
    /// brought back either. One that is silent for `bound` is a sentence.
    pub fn read(data: &[PathBuf], bound: Duration) -> (Self, Vec<String>) {
        let mut graves = Self { data: data.to_vec(), ..Self::default() };
        let look = |data: &PathBuf| {
            let path = data.clone();
            ask::begin_within(data, bound, move || {
                (ages(&path).unwrap_or_default(), deletions::heard(&path).unwrap_or_default())
            })
        };
        let asked: Vec<Asked<_>> = data.iter().map(look).collect();
        let mut notes = Vec::new();
        for (data, asked) in data.iter().zip(asked) {
            match asked.wait_and_tell(say_waiting) {
                Ok((ages, said)) => {
                    ages.iter().chain(&said).for_each(|(name, age)| graves.note(name, *age));
                    graves.said.push((data.clone(), said));
                }
                Err(silent) => notes.push(format!("{silent}; control goes on without it")),
            }
        }
        (graves, notes)
    }

    /// Takes back that a topic was deleted which is alive in a pool that nobody serves yet: it is
    /// one that was put back, from before the deletion, and what is landed there now is not to be
    /// passed over when it is lost. What could not be taken back is a sentence.
    pub fn take_back(&self, is_alive: impl Fn(&str, u64) -> bool) -> Vec<String> {
        let mut notes = Vec::new();
        for (data, said) in &self.said {
            for deletion in said.iter().filter(|(name, created_ns)| is_alive(name, *created_ns)) {
                let (path, again) = (data.clone(), deletion.clone());
                let asked = ask::begin(data, move || deletions::take_back(&path, &again));
                let taken = asked.wait().unwrap_or_else(|silent| Err(silent.into()));
                notes.extend(taken.err().map(|error| {
                    format!(
                        "topic {} is alive in this pool, and {} says that it was deleted: \
                         {error}; remove {}@{} there, or the topic does not come back when this \
                         pool is lost",
                        deletion.0,
                        data.join(deletions::DELETED).display(),
                        deletion.0,
                        deletion.1
                    )
                }));
            }
        }
        notes
    }

    /// Says in each directory what others say was deleted, as much as there is room for: a disk
    /// that was replaced has nothing of it, and those that have may be replaced next. Of what does
    /// not fit, the topics that were created last are said. Before each it is asked whether this
    /// may be said still. What could not be said is a sentence.
    pub fn pass_on(
        &self,
        is_alive: impl Fn(&str, u64) -> bool,
        may: impl Fn() -> bool,
    ) -> Vec<String> {
        let all = self.said.iter().flat_map(|(_, said)| said);
        let all: BTreeSet<&Deletion> = all.filter(|(name, age)| !is_alive(name, *age)).collect();
        let mut notes = Vec::new();
        for (data, said) in &self.said {
            let missing = to_pass_on(&all, said);
            if missing.is_empty() || !may() {
                continue;
            }
            let path = data.clone();
            let asked = ask::begin(data, move || deletions::say(&path, &missing));
            let told = asked.wait().unwrap_or_else(|silent| Err(silent.into()));
            notes.extend(told.err().map(|error| {
                format!("{error}; topics that were deleted while it was away may come back")
            }));
        }
        notes
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
    /// slow, or not answer: what could not be said comes as sentences when it is done. `None` where
    /// there is nothing to say.
    pub fn bury(&self, name: &str, created_ns: u64) -> Option<Receiver<Vec<String>>> {
        if self.data.is_empty() {
            return None;
        }
        let (say, said) = channel();
        let (data, name) = (self.data.clone(), name.to_owned());
        let body = move || {
            // Nobody listens where control is ending.
            let _ = say.send(bury_in(&data, &name, created_ns));
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

/// What of all deletions is to be said where some of them are said: those whose topics were created
/// last, as many as there is room for. What is said in place of others could be older than they
/// are.
fn to_pass_on(all: &BTreeSet<&Deletion>, said: &BTreeSet<Deletion>) -> Vec<Deletion> {
    let missing = all.iter().filter(|deletion| !said.contains(**deletion));
    let mut missing: Vec<Deletion> = missing.map(|deletion| (*deletion).clone()).collect();
    missing.sort_unstable_by_key(|(_, created_ns)| Reverse(*created_ns));
    missing.truncate(DELETIONS_MAX.saturating_sub(said.len()));
    missing
}

/// Says in all of these directories at once that the topic was deleted; a sentence for each that it
/// could not be said in.
fn bury_in(data: &[PathBuf], name: &str, created_ns: u64) -> Vec<String> {
    let begun: Vec<(PathBuf, Asked<_>)> = data
        .iter()
        .map(|data| {
            let topic = topic_directory(data, name, created_ns);
            let place = topic.clone();
            let (data, deletion) = (data.clone(), (name.to_owned(), created_ns));
            (topic, ask::begin(&data.clone(), move || bury_one(&data, &place, &deletion)))
        })
        .collect();
    let (mut told, mut notes) = (0, Vec::new());
    for (topic, asked) in begun {
        match asked.wait().unwrap_or_else(|silent| Err(silent.into())) {
            Ok(is_told) => told += u32::from(is_told),
            Err(error) => notes.push(format!(
                "topic {name} is deleted, and {} may bring it back when the pool is lost: {error}; \
                 remove that directory",
                topic.display()
            )),
        }
    }
    if told == 0 {
        notes.push(format!(
            "topic {name} is deleted, and no data directory could be told: a disk that is away \
             may bring it back when the pool is lost"
        ));
    }
    notes
}

/// Whether the directory is there and was told. One that has nothing of the topic, and cannot be
/// told, brings nothing back.
fn bury_one(data: &Path, topic: &Path, deletion: &Deletion) -> Result<bool, FileError> {
    let is_told = deletions::say(data, [deletion]).is_ok();
    if topic.is_dir() {
        mark(topic)?;
    }
    Ok(is_told)
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

    use landfall_replica::ask::SILENT;

    use super::*;

    #[test]
    fn a_topic_is_later_than_every_one_of_its_name() {
        let data = std::env::temp_dir().join(format!("landfall-graves-{}", std::process::id()));
        fs::create_dir_all(topic_directory(&data, "t", 70)).unwrap();
        fs::create_dir_all(topic_directory(&data, "t", 90)).unwrap();
        let (mut graves, notes) = Graves::read(&[data.clone(), data.join("not there")], SILENT);
        assert!(notes.is_empty(), "{notes:?}");
        // The clock was set back.
        assert_eq!((graves.age("t", 50), graves.age("t", 50), graves.age("u", 50)), (91, 92, 50));
        assert_eq!(graves.age("t", 200), 200);
        fs::remove_dir_all(&data).unwrap();
    }

    #[test]
    fn what_is_passed_on_takes_nobodys_place() {
        let of = |age: u64| ("t".to_owned(), age);
        let said: BTreeSet<Deletion> = (10..10 + DELETIONS_MAX as u64 - 2).map(of).collect();
        let others: Vec<Deletion> = [3, 1, 2, u64::MAX].map(of).into();
        let all: BTreeSet<&Deletion> = said.iter().chain(&others).collect();
        assert_eq!(to_pass_on(&all, &said), [of(u64::MAX), of(3)]);
        let full: BTreeSet<Deletion> = (10..10 + DELETIONS_MAX as u64).map(of).collect();
        assert_eq!(to_pass_on(&all, &full), []);
        assert_eq!(to_pass_on(&all, &BTreeSet::new()).len(), DELETIONS_MAX);
    }

    /// The disk of a broker that is gone does not answer.
    #[test]
    fn a_directory_that_hangs_holds_up_no_deletion_and_is_named() {
        let path = |which| format!("landfall-hangs-{which}-{}", std::process::id());
        let [well, hangs] = ["well", "hangs"].map(|which| std::env::temp_dir().join(path(which)));
        fs::create_dir_all(topic_directory(&well, "u", 70)).unwrap();
        let (graves, _) = Graves::read(&[hangs.clone(), well.clone()], SILENT);
        let (_release, held) = channel::<()>();
        let _hung = ask::begin(&hangs, move || held.recv().is_ok());
        // The keeper's own thread: it gets an answer to wait for, and looks nowhere itself.
        let said = graves.bury("t", 70).unwrap().recv().unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(hangs.to_str().unwrap()), "{said:?}");
        assert!(said[0].contains("does not answer"), "{said:?}");
        let (_, notes) = Graves::read(&[hangs, well.clone()], SILENT);
        assert_eq!(notes.len(), 1, "{notes:?}");
        fs::remove_dir_all(&well).unwrap();
    }
}
