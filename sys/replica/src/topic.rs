//! `topic.json`: a topic's identity and settings, in words.
//!
//! It is what is left of the topic's entry when the pool is gone: enough to make the topic again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use landfall_layout::limits::BROKERS_MAX;
use landfall_layout::topic::{Order, TOPIC_CHECK_INGEST, TOPIC_KEEP, TopicEntry, check_name};
use serde::{Deserialize, Serialize};

use crate::document;
use crate::error::FileError;
use crate::holes::Hole;
use crate::lives::{Ended, Resumed, Skipped, Skips};
use crate::names::{TOPIC_COPY, TOPIC_FILE, TOPIC_GRAVE};
use crate::own::lock;
use crate::there::Places;
use crate::watch;
use crate::word;

/// Version of the document. Earlier ones are read too: they lack what has a default, and those of
/// version 1 the checksum, and those before version 4 the generation.
pub const SCHEMA_VERSION: u32 = 4;

/// Looks at two files of which neither holds: one of them was just being written.
const LOOKS: u32 = 3;
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Looks for something wrong with them: a disk may be slow to make one of them stay.
const FAULT_LOOKS: u32 = 200;

/// A topic as its directory says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of the topic table")]
pub struct TopicFile {
    pub schema_version: u32,
    pub name: String,
    pub created_ns: u64,
    pub id: u32,
    pub order: String,
    pub ring_slots: u32,
    pub retention_bytes: u64,
    pub retention_ns: u64,
    pub keep: bool,
    pub check_ingest: bool,
    pub durability: String,
    pub replicas: u8,
    pub replica_brokers: u8,
    #[serde(default)]
    pub disk_bytes: u64,
    #[serde(default)]
    pub disk_ns: u64,
    pub session_lease_ns: u64,
    pub pool_uuid: String,
    #[serde(default)]
    pub pool_bytes: u64,
    /// The pool in whose table, under a leader that served, the topic was alive: where it is not in
    /// that pool's table any more, it was deleted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub live_in: String,
    /// It was deleted: what is left here goes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Where each log, by its number, went on in the pool `pool_uuid`; empty for a topic that was
    /// made in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resumed: BTreeMap<usize, Resumed>,
    /// Where a broker's own log begins in the pool `pool_uuid` of which nothing was known when the
    /// topic came there: nobody may have said of one before that it landed anything.
    #[serde(default, skip_serializing_if = "is_beginning")]
    pub begins: Resumed,
    /// What each log passed over when its pools were lost, ascending.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<usize, Skips>,
    /// How far each log was when a file was begun here last: what a file that cannot be read held
    /// is not below it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reached: BTreeMap<usize, Resumed>,
    /// How far each log's memory had moved on when this directory was made: what lies below may
    /// never have been here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub made_at: BTreeMap<usize, u64>,
    /// Logs that went on in the pool `pool_uuid` right where they had ended, and what their
    /// replicas had then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Ended>,
    /// What replicas had at earlier ends, at least, as far as later ones do not count it: whatever
    /// came after stays behind it. No copy is whole for having that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub had: Option<Ended>,
    /// Counts how often the topic went on behind a place where it may have ended: in a new pool, or
    /// in one that had been stopped in good order. A directory with less than another is older. 0:
    /// that is not known here.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub life: u64,
    /// Set while the pool `pool_uuid` stands still, stopped in good order: where each log ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// What this directory's own copies may lack, of what was not known to be nothing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub holes: BTreeSet<Hole>,
    /// Which directories have the topic, beside those that the rule names: a cold start asks for
    /// them.
    #[serde(default, skip_serializing_if = "Places::is_empty")]
    pub places: Places,
}

impl TopicFile {
    /// The topic of an entry that serves, in the pool `pool_uuid` of `pool_bytes`; `None` where its
    /// order is one this program does not know.
    pub fn of(entry: &TopicEntry, pool_uuid: &str, pool_bytes: u64) -> Option<Self> {
        Some(Self {
            schema_version: SCHEMA_VERSION,
            name: entry.name().to_owned(),
            created_ns: entry.created_ns,
            id: entry.id,
            order: entry.order()?.name().to_owned(),
            ring_slots: entry.ring_slots,
            retention_bytes: entry.retention_bytes,
            retention_ns: entry.retention_ns,
            keep: entry.flags & TOPIC_KEEP != 0,
            check_ingest: entry.flags & TOPIC_CHECK_INGEST != 0,
            durability: entry.durability().name().to_owned(),
            replicas: entry.replicas,
            replica_brokers: entry.replica_brokers,
            disk_bytes: entry.disk_bytes,
            disk_ns: entry.disk_ns,
            session_lease_ns: entry.session_lease_ns,
            pool_uuid: pool_uuid.to_owned(),
            pool_bytes,
            live_in: String::new(),
            deleted: false,
            resumed: BTreeMap::new(),
            begins: Resumed { index: entry.begin_index, position: entry.begin_position },
            skipped: BTreeMap::new(),
            reached: BTreeMap::new(),
            made_at: BTreeMap::new(),
            began: None,
            had: None,
            life: 0,
            ended: None,
            holes: BTreeSet::new(),
            places: Places::default(),
        })
    }

    /// The topic's order.
    pub fn order(&self) -> Option<Order> {
        self.order.parse().ok()
    }

    /// Where a log began, or begins, in the pool `pool_uuid`, of which nothing was known when the
    /// topic came there. None: that is said, nothing is known of it here, or it is not a broker's.
    pub fn begun_late(&self, log: usize) -> Option<Resumed> {
        let is_own = log < BROKERS_MAX && self.order().is_some_and(|it| !it.is_sequenced());
        let is_said = self.resumed.contains_key(&log) || self.made_at.contains_key(&log);
        (is_own && !is_said && !is_beginning(&self.begins)).then_some(self.begins)
    }

    /// Where a log went on in the pool `pool_uuid`.
    pub fn resumed_of(&self, log: usize) -> Option<Resumed> {
        self.resumed.get(&log).copied().or_else(|| self.begun_late(log))
    }

    /// What a log passed over when its pools were lost.
    pub fn skips_of(&self, log: usize) -> Skips {
        let mut skips = self.skipped.get(&log).cloned().unwrap_or_default();
        self.begun_late(log).into_iter().for_each(|begins| skips.add(Skipped::below(begins)));
        skips
    }

    /// Whether the topic went on in another pool than `pool`, which had it when it had gone on
    /// `life` times: its table says so. Where it came into both from the same files, it is the
    /// other's.
    pub fn went_on_elsewhere(&self, pool: &str, life: u64) -> bool {
        self.pool_uuid != pool && self.life >= life.max(1)
    }

    /// What the file in a topic's directory says or its copy: the later of those that hold; and
    /// what others say beside it of who keeps the topic where. One of a newer program is an error
    /// whatever the other says.
    pub fn read(topic: &Path) -> Result<Self, FileError> {
        let grave = topic.join(TOPIC_GRAVE);
        let mut read = Self::latest(topic);
        for _ in 1..LOOKS {
            if !matches!(read, Err(FileError::Topic { .. })) {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
            read = Self::latest(topic);
        }
        let read = match read {
            Err(error) if !matches!(error, FileError::Newer { .. }) => {
                Self::read_one(&grave).map(|(file, _)| file).map_err(|_| error)
            }
            read => read,
        };
        let mut file = read?;
        file.deleted |= grave.exists();
        file.places.join(&word::heard(topic)?.0);
        for (log, skips) in std::mem::take(&mut file.places.skipped) {
            file.skipped.entry(log).or_default().join(&skips);
        }
        Ok(file)
    }

    fn latest(topic: &Path) -> Result<Self, FileError> {
        match [TOPIC_FILE, TOPIC_COPY].map(|name| Self::read_one(&topic.join(name))) {
            [Err(error @ FileError::Newer { .. }), _]
            | [_, Err(error @ FileError::Newer { .. })] => Err(error),
            [Ok(file), Ok(copy)] if copy.1 > file.1 => Ok(copy.0),
            [Ok(file), _] | [Err(_), Ok(file)] => Ok(file.0),
            [Err(error), Err(_)] => Err(error),
        }
    }

    /// What is wrong with the file and its copy. Files of earlier programs have no copy. What
    /// others say beside them has faults of its own, see [`word_faults`](Self::word_faults).
    pub fn faults(topic: &Path) -> Vec<FileError> {
        let mut faults = Self::faults_at_rest(topic);
        // Whoever writes them just now is done in a moment. Who only looks takes no lock: it may
        // be stopped, and the broker would wait for it.
        for _ in 1..FAULT_LOOKS {
            if faults.is_empty() {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
            faults = Self::faults_at_rest(topic);
        }
        if Self::is_half_made(topic) {
            faults.clear();
        }
        faults
    }

    /// What does not hold of what others say in a topic's directory: it has no other copy there.
    /// The topic's other directories say the same, as far as those who said it reached them.
    pub fn word_faults(topic: &Path) -> Vec<FileError> {
        word::heard(topic).map_or_else(|error| vec![error], |heard| heard.1)
    }

    /// Whether the file's directory was just being made: the copy was written once, and the file
    /// not yet. One that was written again and is not there was taken.
    pub fn is_half_made(topic: &Path) -> bool {
        let file = fs::metadata(topic.join(TOPIC_FILE));
        file.is_err_and(|error| error.kind() == ErrorKind::NotFound)
            && Self::read_one(&topic.join(TOPIC_COPY)).is_ok_and(|(_, made)| made == 1)
    }

    /// Whether both hold and one of them is the next that was to be written after the other: who
    /// wrote them is at it, or ended in between.
    pub fn is_half_written(topic: &Path) -> bool {
        let generation = |name: &str| Some(Self::read_one(&topic.join(name)).ok()?.1);
        let (file, copy) = (generation(TOPIC_FILE), generation(TOPIC_COPY));
        file.zip(copy).is_some_and(|(file, copy)| file.abs_diff(copy) == 1)
    }

    /// The same as [`faults`](Self::faults), where nobody writes them.
    pub fn faults_at_rest(topic: &Path) -> Vec<FileError> {
        let (path, copy) = (topic.join(TOPIC_FILE), topic.join(TOPIC_COPY));
        let mut faults: Vec<FileError> = Self::read_one(&path).err().into_iter().collect();
        if copy.exists() {
            faults.extend(Self::read_one(&copy).err());
            if faults.is_empty() && fs::read(&path).ok() != fs::read(&copy).ok() {
                let why = format!("it differs from {TOPIC_FILE}, and ought to say the same");
                faults.push(FileError::Topic { path: copy, why });
            }
        }
        faults
    }

    /// One of the two, and its generation.
    fn read_one(path: &Path) -> Result<(Self, u64), FileError> {
        watch::at(path);
        let text = fs::read(path).map_err(FileError::io("read", path))?;
        let wrong = |why: String| FileError::Topic { path: path.to_owned(), why };
        let document = document::parse(&text).map_err(wrong)?;
        let body = document.body.as_slice();
        let json = |error: serde_json::Error| wrong(error.to_string());
        let Version { schema_version: version } = serde_json::from_slice(body).map_err(json)?;
        if !(1..=SCHEMA_VERSION).contains(&version) {
            return Err(FileError::Newer { path: path.to_owned(), version });
        }
        if version > 1 && !document.is_summed {
            return Err(wrong("it does not hold: it has no checksum".to_owned()));
        }
        let file: Self = serde_json::from_slice(body).map_err(json)?;
        let file = Self { schema_version: SCHEMA_VERSION, ..file };
        check_name(&file.name).map_err(|error| wrong(error.to_string()))?;
        if file.order().is_none() {
            return Err(wrong(format!("{:?} is no order", file.order)));
        }
        Ok((file, document.generation))
    }

    /// Writes the file in a topic's directory and its copy, the better one last: one of them holds
    /// at any moment. Both are written over in place, so that no room is needed for it on a full
    /// disk as long as they do not grow beyond what they have to spare. The caller syncs the
    /// directory.
    pub fn write(&self, topic: &Path) -> Result<(), FileError> {
        let [file, copy] = [TOPIC_FILE, TOPIC_COPY].map(|name| topic.join(name));
        let json = |error: serde_json::Error| FileError::Topic {
            path: file.clone(),
            why: error.to_string(),
        };
        let body = serde_json::to_vec_pretty(self).map_err(json)?;
        let known = |path| {
            let (_, generation) = Self::read_one(path).ok()?;
            Some((generation, fs::metadata(path).map_or(0, |found| found.len())))
        };
        let (of_file, of_copy) = (known(&file), known(&copy));
        let both = || [of_file, of_copy].into_iter().flatten();
        let generation = both().map(|(generation, _)| generation).max().unwrap_or_default();
        let generation = generation.saturating_add(1);
        let have = both().map(|(_, bytes)| bytes as usize).max().unwrap_or_default();
        let text = document::text(body, generation, have);
        let order = if of_file < of_copy { [&file, &copy] } else { [&copy, &file] };
        order.into_iter().try_for_each(|path| document::write(path, &text))
    }

    /// Writes the file whatever is there, and nobody else changes it meanwhile; it stays.
    pub fn replace(&self, topic: &Path) -> Result<(), FileError> {
        let directory = lock(topic)?;
        self.write(topic)?;
        directory.sync_all().map_err(FileError::io("sync", topic))
    }

    /// The same if `may` has nothing against it, which is asked under the lock and told what is
    /// there; `None` where that is not there or cannot be understood. What others said beside it
    /// goes: the new file has it, or it is to be forgotten.
    pub fn replace_if<E>(
        &self,
        topic: &Path,
        may: impl FnOnce(Option<&Self>) -> Result<(), E>,
    ) -> Result<Result<(), E>, FileError> {
        let directory = lock(topic)?;
        if let Err(why) = may(Self::read(topic).ok().as_ref()) {
            return Ok(Err(why));
        }
        self.write(topic)?;
        directory.sync_all().map_err(FileError::io("sync", topic))?;
        word::forget(topic)?;
        Ok(Ok(()))
    }

    /// Reads the file in a topic's directory, lets `change` make another of it, and writes that
    /// if it differs: nobody else changes it meanwhile, and it stays. `None` is for one that is not
    /// there; one that cannot be read is an error, since what it says would be lost.
    pub fn change<T>(
        topic: &Path,
        change: impl FnOnce(Option<Self>) -> (Option<Self>, T),
    ) -> Result<T, FileError> {
        let directory = lock(topic)?;
        let there = match Self::read(topic) {
            Ok(file) => Some(file),
            Err(FileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let (file, value) = change(there.clone());
        let is_new = |file: &Self| {
            there.as_ref() != Some(file)
                || !topic.join(TOPIC_COPY).exists()
                || !Self::faults_at_rest(topic).is_empty()
        };
        if let Some(file) = file.filter(is_new) {
            file.write(topic)?;
        }
        // Also where it says the same: whoever wrote it may have died before its name stayed.
        directory.sync_all().map_err(FileError::io("sync", topic))?;
        Ok(value)
    }

    /// Says in a topic's directory that the topic was deleted. A file that cannot be understood
    /// says nothing either way, and stays. The file's copy gets one more name, which needs no room
    /// on a full disk, and no lock that a stopped process may have.
    pub fn bury(topic: &Path) -> Result<(), FileError> {
        let [file, copy, grave] =
            [TOPIC_FILE, TOPIC_COPY, TOPIC_GRAVE].map(|name| topic.join(name));
        match Self::read(topic) {
            Err(FileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(error @ FileError::Io { .. }) => return Err(error),
            Err(_) => return Ok(()),
            Ok(_) if grave.exists() => {}
            Ok(_) => {
                // An earlier program made no copy.
                let named = fs::hard_link(&copy, &grave).or_else(|_| fs::hard_link(&file, &grave));
                let is_there = |error: &io::Error| error.kind() == ErrorKind::AlreadyExists;
                if named.is_err_and(|error| !is_there(&error)) {
                    // A file system without such names. A file without bytes takes next to nothing.
                    File::create(&grave).map_err(FileError::io("create", &grave))?;
                }
            }
        }
        let directory = File::open(topic).map_err(FileError::io("open", topic))?;
        directory.sync_all().map_err(FileError::io("sync", topic))
    }
}

fn is_beginning(place: &Resumed) -> bool {
    *place == Resumed::default()
}

fn is_unknown(life: &u64) -> bool {
    *life == 0
}

/// What every version of the document says.
#[derive(Deserialize)]
struct Version {
    schema_version: u32,
}
