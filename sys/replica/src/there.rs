//! Which directories a topic has to have, and whether they are there: a disk that is not mounted
//! looks like an empty directory.
//!
//! A copy of what a broker landed is what its home and all who stood in for it have together. Of
//! each broker's batches one copy has to be there, whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::replica::Body;
use serde::{Deserialize, Serialize};

use crate::error::FileError;
use crate::lives::{Skips, Unkept};
use crate::names::{list_source, list_topic, source_directory};
use crate::numbers::Numbers;
use crate::reach::Reach;
use crate::topic::TopicFile;
use crate::walk::Walk;
use crate::word;

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
    /// Says it in the topic's directory of another broker.
    pub fn tell(&self, topic: &Path) -> Result<(), FileError> {
        let mut places = Places::default();
        places.add(*self);
        places.tell(topic)
    }

    /// Says it in the topic's directory of this broker.
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

/// What a broker had on disk when it began to keep a topic in another directory than before, which
/// says so: it does not count until all of that was copied there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lack {
    /// The broker.
    pub keeper: u8,
    /// Broker whose batches they are.
    pub source: u8,
    /// Batches and holes, as its pool said; [`UNCOUNTED`]: no line of its pool knew.
    pub entries: u64,
    /// Log index below which they lie.
    pub below: u64,
    /// Number of the directory that has them; 0: that is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disk: u64,
    /// The copy went on without some of them: only a directory that has them tells, and no line.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_torn: bool,
}

/// Entries of a lack that nobody has counted.
pub const UNCOUNTED: u64 = u64::MAX;

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The data directory that a broker keeps a topic in.
///
/// The latest word counts. A clock may be set back, so words are ordered by what is only counted
/// up, and by wall time where that is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// How often the topic had gone on in the pool in which it was said.
    #[serde(skip_serializing_if = "is_zero")]
    pub life: u64,
    /// Requests of the broker that control had taken in that pool: each of its processes makes
    /// some.
    #[serde(skip_serializing_if = "is_zero")]
    pub requests: u64,
    /// Wall time; later than that of a word that was known.
    pub said_ns: u64,
    /// The directory's number, or [`FORGOTTEN`].
    pub disk: u64,
}

/// In place of a number: it is given up, and the broker's next directory lacks nothing of it.
pub const FORGOTTEN: u64 = 0;

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
    /// In which data directory each broker keeps the topic, by its last word.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub disks: BTreeMap<u8, Kept>,
    /// What each log passed over when its pools were lost, for a directory that was made since and
    /// takes it up as its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<usize, Skips>,
    /// What was in pools alone that were stopped in good order and are gone, as far back as
    /// [`UNKEPT_MAX`] of them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unkept: BTreeSet<Unkept>,
    /// What the latest cold start told of as lost.
    #[serde(skip_serializing_if = "Lost::is_none")]
    pub lost: Lost,
}

/// Log indexes that no file had at a cold start, when all who could have had an entry there had
/// their directories here, or were given up: nobody is asked for it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// How often the topic had gone on then: of two words the later counts, since an older one may
    /// name what a file has again.
    pub life: u64,
    /// From one to before another, by the log's number, ascending.
    pub logs: BTreeMap<usize, Vec<(u64, u64)>>,
}

/// Ranges that are remembered of a log. Of more the first are asked for again.
const LOST_MAX: usize = 1024;

impl Lost {
    /// Nothing, said as the topic goes on for the time numbered `life`.
    pub fn of(life: u64) -> Self {
        Self { life, logs: BTreeMap::new() }
    }

    /// Adds all that a log lost.
    pub fn add(&mut self, log: usize, mut runs: Vec<(u64, u64)>) {
        runs.drain(..runs.len().saturating_sub(LOST_MAX));
        if !runs.is_empty() {
            self.logs.insert(log, runs);
        }
    }

    /// Whether something was lost.
    pub fn is_some(&self) -> bool {
        !self.logs.is_empty()
    }

    /// Nobody ever said anything.
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Takes the later word; of two of one time, what both say.
    fn join(&mut self, other: &Self) {
        if other.life > self.life {
            *self = other.clone();
        } else if other.life == self.life {
            for (log, runs) in &mut self.logs {
                let same = other.logs.get(log);
                runs.retain(|run| same.is_some_and(|same| same.contains(run)));
            }
        }
    }
}

/// What is remembered of what only pools had. Of more the oldest look as if files of theirs were
/// gone.
const UNKEPT_MAX: usize = 1024;

impl Places {
    /// Nothing is known but what the rule says.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Says it in the topic's directory of another broker, beside `topic.json`, under no lock: who
    /// has one may be stopped. A full disk has room in `topic.json` alone.
    pub fn tell(&self, topic: &Path) -> Result<(), FileError> {
        match word::say(topic, self) {
            Err(FileError::Io { source, .. })
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {}
            said => return said,
        }
        TopicFile::change(topic, |file| {
            let said = file.map(|mut file| {
                file.places.join(self);
                file
            });
            (said, ())
        })
    }

    /// Adds what another directory says.
    pub fn join(&mut self, other: &Self) {
        other.parts.iter().for_each(|part| self.add(*part));
        self.lacks.extend(&other.lacks);
        self.join_disks(other);
        for (log, skips) in &other.skipped {
            self.skipped.entry(*log).or_default().join(skips);
        }
        self.add_unkept(other.unkept.iter().copied());
        self.lost.join(&other.lost);
    }

    /// Adds what was in a pool alone.
    pub fn add_unkept(&mut self, unkept: impl Iterator<Item = Unkept>) {
        self.unkept.extend(unkept);
        while self.unkept.len() > UNKEPT_MAX {
            self.unkept.pop_first();
        }
    }

    /// Takes the later of two words on where each broker keeps the topic.
    pub fn join_disks(&mut self, other: &Self) {
        for (broker, kept) in &other.disks {
            let known = self.disks.entry(*broker).or_insert(*kept);
            *known = (*known).max(*kept);
        }
    }

    /// Says that a broker keeps the topic in directory `disk` from now on.
    pub fn keep(&mut self, broker: u8, disk: u64, now_ns: u64) {
        self.say(broker, Kept { said_ns: now_ns, disk, ..Kept::default() });
    }

    /// The same as one of its processes says it, behind every word that is known.
    pub fn say(&mut self, broker: u8, kept: Kept) {
        let known = self.disks.get(&broker);
        if known.is_none_or(|known| known.disk != kept.disk) {
            let behind = known.map_or(kept, |known| {
                let said_ns = known.said_ns.saturating_add(1);
                Kept { said_ns, disk: kept.disk, ..*known }
            });
            self.disks.insert(broker, kept.max(behind));
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

    /// Whether another broker says later that it keeps the topic in the directory that this one
    /// kept it in. Two have none at a time: this one has another by now, as where disks were
    /// mounted in each other's places, and only that says so.
    fn is_anothers(&self, broker: u8) -> bool {
        let Some(own) = self.disks.get(&broker) else { return false };
        let mut others = self.disks.iter().filter(|(other, _)| **other != broker);
        others.any(|(_, kept)| kept.disk == own.disk && kept > own)
    }

    /// How often the topic had gone on at the latest word of a broker.
    pub fn life(&self) -> u64 {
        self.disks.values().map(|kept| kept.life).max().unwrap_or_default()
    }

    /// Asks nothing more of a broker's directory.
    pub fn forget(&mut self, broker: u8) {
        self.parts.retain(|part| part.keeper != broker);
        self.lacks.retain(|lack| lack.keeper != broker);
        self.keep(broker, FORGOTTEN, 0);
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

    /// Brokers whose it is, of a topic that does not say it and whose directory is `topic`: who was
    /// here last, by what it says, or else those that wrote the topic's files, or else by its name.
    pub fn brokers(&self, topic: &Path) -> BTreeSet<u8> {
        let said = self.numbers.keepers();
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
    let reach = Reach::new(file, topics);
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
                let whose = (*keeper, *keeper == home, source);
                let found = has(whose, (file, pools), topics, disks, &reach);
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
    (keeper, is_home, source): (u8, bool, u8),
    (file, pools): (&TopicFile, &BTreeSet<String>),
    topics: &[PathBuf],
    disks: &[Disk],
    reach: &Reach<'_>,
) -> Result<(), Vec<PathBuf>> {
    let (mut others, is_all) = (Vec::new(), is_all(file, topics, disks));
    for disk in disks {
        let topic = topics.iter().find(|topic| is_in(topic, &disk.path));
        let is_it = is_its((keeper, is_home), (file, pools), (disk, is_all), topic);
        let Some(topic) = topic else {
            if is_it {
                return Ok(());
            }
            continue;
        };
        let lacks = lacks_of(topic, file).into_iter();
        let mut lacks = lacks.filter(|lack| (lack.keeper, lack.source) == (keeper, source));
        let mut is_filled = |lack: Lack| {
            is_filled(&lack, topics, disks, &mut BTreeSet::new()) || is_whole(&lack, topic, reach)
        };
        if is_it && lacks.all(&mut is_filled) {
            return Ok(());
        }
        if is_it || disk.numbers.brokers().contains(&keeper) {
            others.push(disk.path.clone());
        }
    }
    Err(others)
}

/// Whether a data directory is the one that the broker keeps the topic in, or would keep it in.
fn is_its(
    (keeper, is_home): (u8, bool),
    (file, pools): (&TopicFile, &BTreeSet<String>),
    (disk, is_all): (&Disk, bool),
    topic: Option<&PathBuf>,
) -> bool {
    let known = file.places.disks.get(&keeper).map(|kept| kept.disk);
    let known = known.filter(|disk| *disk != FORGOTTEN);
    let Some(topic) = topic else {
        return is_home && known.is_none() && disk.numbers.is_under(keeper, pools);
    };
    match (known, disk.numbers.id) {
        (None, _) | (Some(_), 0) => disk.brokers(topic).contains(&keeper),
        (Some(known), id) => known == id && (is_all || !file.places.is_anothers(keeper)),
    }
}

/// Whether as many data directories have the topic as it has homes. Then each broker's own is among
/// them, whoever said last that it has which.
fn is_all(file: &TopicFile, topics: &[PathBuf], disks: &[Disk]) -> bool {
    let has_topic = |disk: &&Disk| topics.iter().any(|topic| is_in(topic, &disk.path));
    let known = disks.iter().filter(has_topic).map(|disk| disk.numbers.id).filter(|id| *id != 0);
    known.collect::<BTreeSet<u64>>().len() >= usize::from(file.replica_brokers)
}

/// Those who keep something of what `source` landed, at home or in place of others, and of whom no
/// directory is here, whatever it lacks; but for those that are given up. `file`, `pools`, `topics`
/// and `disks` are as for [`absent`].
pub fn away(
    file: &TopicFile,
    pools: &BTreeSet<String>,
    topics: &[PathBuf],
    disks: &[Disk],
    source: u8,
) -> BTreeSet<u8> {
    let homes = u16::from(file.replica_brokers.max(1));
    let home = |copy: u8| ((u16::from(source) + u16::from(copy)) % homes) as u8;
    let at_home = (0..file.replicas.saturating_sub(1)).map(|copy| (home(copy), true));
    let of = |part: &&Part| part.source == source;
    let stood_in = file.places.parts.iter().filter(of).map(|part| (part.keeper, false));
    let is_given_up =
        |keeper: u8| file.places.disks.get(&keeper).is_some_and(|kept| kept.disk == FORGOTTEN);
    let is_all = is_all(file, topics, disks);
    let is_here = |whose| {
        disks.iter().any(|disk| {
            let topic = topics.iter().find(|topic| is_in(topic, &disk.path));
            is_its(whose, (file, pools), (disk, is_all), topic)
        })
    };
    let all = at_home.chain(stood_in);
    let away = all.filter(|whose| !is_given_up(whose.0) && !is_here(*whose));
    away.map(|(keeper, _)| keeper).collect()
}

/// Whether a topic's directory lies in the data directory.
pub fn is_in(topic: &Path, data: &Path) -> bool {
    topic.parent().and_then(Path::parent) == Some(data)
}

/// What a topic's directory says that it lacks. Where it cannot be read, what others say of it,
/// some of which may be there by now.
fn lacks_of(topic: &Path, file: &TopicFile) -> BTreeSet<Lack> {
    let own = TopicFile::read(topic).map(|own| own.places.lacks);
    own.unwrap_or_else(|_| file.places.lacks.clone())
}

/// Leaves of the words on what brokers' directories lack those that these say themselves: the
/// others are of directories before them, or what they name was copied since.
pub fn retain_lacks(file: &mut TopicFile, topics: &[PathBuf], disks: &[Disk]) {
    let kept = std::mem::take(&mut file.places.lacks);
    let says = |lack: &Lack| {
        let known = file.places.disks.get(&lack.keeper);
        let disk = known.and_then(|kept| disks.iter().find(|disk| disk.numbers.id == kept.disk));
        let topic = disk.and_then(|disk| topics.iter().find(|topic| is_in(topic, &disk.path)));
        let own = topic.and_then(|topic| TopicFile::read(topic).ok());
        own.is_none_or(|own| own.places.lacks.contains(lack))
    };
    let lacks = kept.into_iter().filter(|lack| says(lack)).collect();
    file.places.lacks = lacks;
}

/// Whether nothing can be lacking in the directory `own`, since all of the log that was there when
/// the word was said is here. What nobody counted has no other end but this where no copy of it is
/// open.
fn is_whole(lack: &Lack, own: &Path, reach: &Reach<'_>) -> bool {
    let source = BrokerId::new(lack.source.into());
    source.is_none_or(|source| reach.is_whole(source, lack.below, own))
}

/// Whether what a directory lacked is in the topic's directories `topics`: as many entries, or the
/// very directory that had them, which may lack some that yet another had. Those in `seen` are
/// looked at already.
fn is_filled(lack: &Lack, topics: &[PathBuf], disks: &[Disk], seen: &mut BTreeSet<u64>) -> bool {
    let Some(source) = BrokerId::new(lack.source.into()) else { return true };
    let had = disks.iter().find(|disk| lack.disk != 0 && disk.numbers.id == lack.disk);
    let had = had.and_then(|disk| topics.iter().find(|topic| is_in(topic, &disk.path)));
    if let Some(topic) = had {
        let of = |lack: &Lack| (lack.keeper, lack.source);
        let says = TopicFile::read(topic).map(|file| file.places.lacks).unwrap_or_default();
        let mut more = says.into_iter().filter(|more| of(more) == of(lack));
        if !seen.insert(lack.disk) || more.all(|more| is_filled(&more, topics, disks, seen)) {
            return true;
        }
    }
    let files = topics.iter().flat_map(|topic| {
        list_source(&source_directory(topic, source), &mut Vec::new()).unwrap_or_default()
    });
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
