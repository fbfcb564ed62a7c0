//! Which directories a topic has to have, and whether they are there: a disk that is not mounted
//! looks like an empty directory.
//!
//! A copy of what a broker landed is what its home and all who stood in for it have together. Of
//! each broker's batches one copy has to be there, whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::replica::Body;
use serde::{Deserialize, Serialize};

use crate::error::FileError;
use crate::names::{list_source, list_topic, source_directory};
use crate::numbers::Numbers;
use crate::topic::TopicFile;
use crate::walk::Walk;

/// A part of a copy that a broker keeps, or kept, in place of the copy's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// Broker whose batches it has.
    pub source: u8,
    /// Which of their copies.
    pub copy: u8,
    /// Who keeps it.
    pub keeper: u8,
    /// Log index from which on, or before.
    pub from: u64,
}

impl Part {
    /// Says it in a topic's directory.
    pub fn say(&self, topic: &Path) -> Result<(), FileError> {
        TopicFile::change(topic, |file| {
            let said = file.map(|mut file| {
                file.places.add(*self);
                file
            });
            (said, ())
        })
    }
}

/// What a broker had on disk, as its pool said, when it made its topic's directory anew: another
/// directory has it, unless it was copied here since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lack {
    /// The broker.
    pub keeper: u8,
    /// Broker whose batches they are.
    pub source: u8,
    /// Batches and holes.
    pub entries: u64,
    /// Log index below which they lie.
    pub below: u64,
}

/// Which directories have a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Places {
    /// Parts that brokers keep in place of others.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub parts: BTreeSet<Part>,
    /// What brokers had in directories that are not those that they have now.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub lacks: BTreeSet<Lack>,
    /// Numbers of the data directories that had the topic when it came back last, by broker.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub disks: BTreeMap<u8, BTreeSet<u64>>,
}

impl Places {
    /// Nothing is known but what the rule says.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what another directory says.
    pub fn join(&mut self, other: &Self) {
        other.parts.iter().for_each(|part| self.add(*part));
        self.lacks.extend(&other.lacks);
        for (broker, numbers) in &other.disks {
            self.disks.entry(*broker).or_default().extend(numbers);
        }
    }

    /// Adds a part; of one that is known, the further beginning stands.
    pub fn add(&mut self, part: Part) {
        let of = |part: &Part| (part.source, part.copy, part.keeper);
        let known = self.parts.iter().find(|known| of(known) == of(&part)).copied();
        if let Some(known) = known.filter(|known| known.from > part.from) {
            self.parts.remove(&known);
        }
        if known.is_none_or(|known| known.from > part.from) {
            self.parts.insert(part);
        }
    }

    /// Asks nothing more of a broker's directory.
    pub fn forget(&mut self, broker: u8) {
        self.parts.retain(|part| part.keeper != broker);
        self.lacks.retain(|lack| lack.keeper != broker);
        self.disks.remove(&broker);
    }
}

/// A data directory, and whose it is.
#[derive(Debug)]
pub struct Disk {
    /// The directory.
    pub path: PathBuf,
    /// What it says.
    pub numbers: Numbers,
    /// Why it is not known what it says.
    pub fault: Option<FileError>,
}

impl Disk {
    /// Looks at a data directory.
    pub fn look(path: &Path) -> Self {
        let (numbers, fault) = match Numbers::read(path) {
            Ok(numbers) => (numbers, None),
            Err(error) => (Numbers::default(), Some(error)),
        };
        Self { path: path.to_owned(), numbers, fault }
    }

    /// Brokers that had it with the topic in it, whose directory is `topic`: as it says, or else
    /// those that wrote the topic's files, or else by its name.
    pub fn brokers(&self, topic: &Path) -> BTreeSet<u8> {
        let said = self.numbers.brokers();
        if !said.is_empty() {
            return said;
        }
        let sources = list_topic(topic, &mut Vec::new()).unwrap_or_default();
        let files = sources.into_iter().flat_map(|source| source.files);
        let walks = files.filter_map(|(_, path)| Walk::open(&path).ok());
        let wrote: BTreeSet<u8> = walks.map(|walk| walk.header().broker).collect();
        let by_name = || {
            let number = self.path.file_name()?.to_str()?.strip_prefix("broker-")?;
            number.parse().ok()
        };
        if wrote.is_empty() { by_name().into_iter().collect() } else { wrote }
    }
}

/// Of what a broker landed no copy is whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Absent {
    /// The broker that landed it.
    pub source: u8,
    /// Who keeps what is not there.
    pub keepers: Vec<u8>,
    /// They keep it in place of others.
    pub is_part: bool,
    /// Directories of theirs that were begun without it.
    pub anew: Vec<PathBuf>,
}

/// The brokers of whose batches no copy is whole. `file` says what all of the topic's directories
/// `topics` say together, and these name the pools `pools`.
pub fn absent(
    file: &TopicFile,
    pools: &BTreeSet<String>,
    topics: &[PathBuf],
    disks: &[Disk],
) -> Vec<Absent> {
    let homes = u16::from(file.replica_brokers);
    let copies = file.replicas.saturating_sub(1);
    let parts = &file.places.parts;
    let sources: BTreeSet<u8> =
        (0..file.replica_brokers).chain(parts.iter().map(|part| part.source)).collect();
    let mut lost = Vec::new();
    if homes == 0 || copies == 0 {
        return lost;
    }
    for source in sources {
        let (mut keepers, mut anew, mut is_part) = (BTreeSet::new(), BTreeSet::new(), true);
        let mut is_there = false;
        for copy in 0..copies {
            let home = ((u16::from(source) + u16::from(copy)) % homes) as u8;
            let of = |part: &&Part| (part.source, part.copy) == (source, copy);
            let stood_in = parts.iter().filter(of).map(|part| part.keeper);
            let mut all: Vec<u8> = std::iter::once(home).chain(stood_in).collect();
            all.retain(|keeper| {
                let found = has(*keeper, *keeper == home, source, (file, pools), topics, disks);
                anew.extend(found.as_ref().err().into_iter().flatten().cloned());
                found.is_err()
            });
            is_there |= all.is_empty();
            is_part &= !all.contains(&home);
            keepers.extend(all);
        }
        if !is_there {
            let (keepers, anew) = (keepers.into_iter().collect(), anew.into_iter().collect());
            lost.push(Absent { source, keepers, is_part, anew });
        }
    }
    lost
}

/// Whether a directory is there of what the broker keeps; if not, those that are its and others.
///
/// One without the topic counts only for a home which was there when the topic's pool was served,
/// and never had the topic: it keeps nothing of it yet. Who stood in has made the topic's directory
/// before anything counted.
fn has(
    keeper: u8,
    is_home: bool,
    source: u8,
    (file, pools): (&TopicFile, &BTreeSet<String>),
    topics: &[PathBuf],
    disks: &[Disk],
) -> Result<(), Vec<PathBuf>> {
    let known = file.places.disks.get(&keeper);
    let mut others = Vec::new();
    for disk in disks {
        let topic = topics.iter().find(|topic| is_in(topic, &disk.path));
        let Some(topic) = topic else {
            if is_home && known.is_none() && disk.numbers.is_under(keeper, pools) {
                return Ok(());
            }
            continue;
        };
        if !disk.brokers(topic).contains(&keeper) {
            continue;
        }
        let id = disk.numbers.id;
        let is_it = id == 0 || known.is_none_or(|known| known.contains(&id));
        let lacks = file.places.lacks.iter().filter(|lack| lack.keeper == keeper);
        let mut lacks = lacks.filter(|lack| lack.source == source);
        if is_it && lacks.all(|lack| is_filled(lack, topic)) {
            return Ok(());
        }
        others.push(disk.path.clone());
    }
    Err(others)
}

/// Whether a topic's directory lies in the data directory.
pub fn is_in(topic: &Path, data: &Path) -> bool {
    topic.parent().and_then(Path::parent) == Some(data)
}

/// Whether the topic's directory has as much as there was.
fn is_filled(lack: &Lack, topic: &Path) -> bool {
    let Some(source) = BrokerId::new(lack.source.into()) else { return true };
    let files = list_source(&source_directory(topic, source), &mut Vec::new()).unwrap_or_default();
    let mut indexes = BTreeSet::new();
    for (_, path) in files {
        let Ok(mut walk) = Walk::open(&path) else { continue };
        while let Ok(Some(record)) = walk.next() {
            let is_entry = matches!(record.body, Body::Batch { .. } | Body::Hole { .. });
            if is_entry && record.header.index < lack.below {
                indexes.insert(record.header.index);
            }
        }
    }
    indexes.len() as u64 >= lack.entries
}
