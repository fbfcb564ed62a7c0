//! Which topics there are, and where their replicas lie.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use landfall_replica::deletions;
use landfall_replica::holes::Hole;
use landfall_replica::names::{self, Listing, SourceListing, TopicListing};
use landfall_replica::{Ended, FileError, Resumed, Skips, TopicFile, Unkept, watch};

use super::Kept;
use super::homes::Homes;
use super::work::is_at_work;
use crate::finding::{Finding, Severity, UNREAD};
use crate::mend;

/// A topic with its replicas, of all data directories.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// When it was created, nanoseconds.
    pub created_ns: u64,
    /// What its file says, of the first directory that has one which can be read.
    pub file: Option<TopicFile>,
    /// What its logs passed over when pools were lost, as all directories say.
    pub skips: BTreeMap<usize, Skips>,
    /// Where its logs ended in good order, before this pool or in it.
    pub ended: Vec<Ended>,
    /// How far each log was when a file of it was begun last, as all directories say.
    pub reached: BTreeMap<usize, Resumed>,
    /// The directories of all brokers of a system were looked at, as far as they are there.
    pub is_system: bool,
    /// What one of the directories says of it could not be read.
    pub is_unread: bool,
    /// A broker keeps replicas in one of the directories now: its pool may have what they have not.
    pub is_at_work: bool,
    /// Brokers whose directory of the topic is here, and how far each log's memory had moved on
    /// when it was made.
    pub homes: BTreeMap<u8, BTreeMap<usize, u64>>,
    /// What was in pools alone that are gone, as all directories say.
    pub unkept: BTreeSet<Unkept>,
    /// What is in the pool alone whose end the latest directories say.
    pub in_pool: BTreeSet<Unkept>,
    /// Words that do not hold, and the topic's files beside which they lie.
    pub word_faults: Vec<(PathBuf, Arc<FileError>)>,
    /// Its replicas.
    pub sources: Vec<SourceListing>,
}

impl Group {
    /// How far a log was, as the topic's files say: entries and positions. Files may have less.
    pub fn said(&self, log: usize) -> Option<(u64, u64)> {
        let ended = self.ended.iter().filter_map(|ended| ended.logs.get(&log));
        let ended = ended.map(|log| (log.index, log.position));
        let reached = self.reached.get(&log).map(|place| (place.index, place.position));
        ended.chain(reached).max()
    }

    /// Log indexes that files of each broker had come to when a log ended in good order.
    pub fn tails(&self, log: usize) -> BTreeMap<u8, u64> {
        let mut tails = BTreeMap::new();
        for ended in self.ended.iter().filter_map(|ended| ended.logs.get(&log)) {
            for (source, tail) in &ended.tails {
                let most: &mut u64 = tails.entry(*source).or_default();
                *most = (*most).max(*tail);
            }
        }
        tails
    }

    /// Takes what one more of its files says that only pools have or had. Those before it know of
    /// `latest` times that the topic went on: an end that it went on behind is none any more.
    fn also_says_of_pools(&mut self, file: &TopicFile, latest: u64) {
        self.unkept.extend(&file.places.unkept);
        if file.life > latest {
            self.in_pool.clear();
        }
        let ended = file.ended.iter().filter(|_| file.life >= latest).flat_map(|it| &it.logs);
        self.in_pool.extend(ended.flat_map(|(log, ended)| ended.unkept(*log)));
    }
}

/// Finds every topic below `path`, and notes what does not belong there.
pub fn find(path: &Path, kept: &mut Kept) -> Result<Vec<Group>, FileError> {
    let mut groups: BTreeMap<(String, u64), Group> = BTreeMap::new();
    let mut lives: BTreeMap<(String, u64), Vec<(PathBuf, u64)>> = BTreeMap::new();
    let mut homes = Homes::default();
    let mut deleted = BTreeSet::new();
    let directories = data_directories(path)?;
    let is_at_work = is_at_work(directories.iter().map(|(directory, _)| directory.as_path()));
    let mut said = BTreeSet::new();
    for (directory, _) in &directories {
        said.extend(deletions::heard(directory)?);
    }
    for (directory, listing) in directories {
        // What is not here may be in a directory that does not answer.
        let is_system = directory != path && !watch::leaves_out();
        kept.tally.directories += 1;
        homes.look(&directory, kept);
        for stranger in &listing.strangers {
            strange(stranger, kept);
        }
        for topic in listing.topics {
            let key = (topic.name.clone(), topic.created_ns);
            let lives = lives.entry(key.clone()).or_default();
            let group = groups.entry(key).or_insert_with(|| Group {
                name: topic.name.clone(),
                created_ns: topic.created_ns,
                file: None,
                skips: BTreeMap::new(),
                ended: Vec::new(),
                reached: BTreeMap::new(),
                is_system,
                is_unread: false,
                is_at_work,
                homes: BTreeMap::new(),
                unkept: BTreeSet::new(),
                in_pool: BTreeSet::new(),
                word_faults: Vec::new(),
                sources: Vec::new(),
            });
            let of = topic.path.join(names::TOPIC_FILE);
            let read = TopicFile::read(&topic.path);
            match read {
                Ok(file) if (&file.name, file.created_ns) == (&topic.name, topic.created_ns) => {
                    let key = (topic.name, topic.created_ns);
                    if file.deleted || said.contains(&key) {
                        deleted.insert(key);
                        let found = "the topic was deleted; what is here goes when its broker \
                                     starts, and is not judged";
                        kept.findings.push(in_file(Severity::Note, "deleted", &of, None, found));
                        continue;
                    }
                    if TopicFile::is_half_made(&topic.path) {
                        let found = "it is not there yet, and its copy holds: its directory was \
                                     just being made, and its broker's next start ends that";
                        kept.findings.push(in_file(Severity::Warning, "topic", &of, None, found));
                    }
                    for fault in TopicFile::faults(&topic.path) {
                        if TopicFile::is_half_written(&topic.path) {
                            let found = format!("{fault}: who wrote them is at it, or ended in")
                                + " between; the later one is read";
                            let (severity, check) = (Severity::Warning, "topic");
                            kept.findings.push(Finding {
                                mend: mend::TOPIC_FILE,
                                ..in_file(severity, check, &of, None, found)
                            });
                            continue;
                        }
                        let is_refused = is_refused(&fault);
                        let check = if is_refused { UNREAD } else { "topic" };
                        let found = format!("{fault}; its other copy is read");
                        let found = in_file(Severity::Error, check, &of, None, found);
                        let mend = if is_refused { found.mend } else { mend::TOPIC_FILE };
                        kept.findings.push(Finding { mend, ..found });
                    }
                    let faults = TopicFile::word_faults(&topic.path).into_iter();
                    group.word_faults.extend(faults.map(|fault| (of.clone(), Arc::new(fault))));
                    file.holes.iter().for_each(|it| kept.findings.push(hole(it, &of)));
                    for (log, skips) in &file.skipped {
                        group.skips.entry(*log).or_default().join(skips);
                    }
                    // Of a log that nobody knew of it says so once somebody keeps some of it.
                    let kept_here = topic.sources.iter().filter(|it| !it.files.is_empty());
                    let kept_here = kept_here.map(|it| it.source.index());
                    for log in kept_here.chain(file.reached.keys().copied()) {
                        group.skips.entry(log).or_default().join(&file.skips_of(log));
                    }
                    for (log, reached) in &file.reached {
                        let most = group.reached.entry(*log).or_default();
                        if reached.index > most.index {
                            *most = *reached;
                        }
                    }
                    for broker in homes.brokers(&topic.path) {
                        group.homes.insert(broker, file.made_at.clone());
                    }
                    let latest = lives.iter().map(|(_, life)| *life).max().unwrap_or_default();
                    group.also_says_of_pools(&file, latest);
                    lives.push((of.clone(), file.life));
                    homes.add(&topic.path, &file);
                    group.ended.extend(file.began.iter().chain(&file.ended).cloned());
                    group.file.get_or_insert(file);
                }
                Ok(file) => {
                    let found = format!("it is about topic {}, created", file.name)
                        + &format!(" at {} ns", file.created_ns);
                    let found = in_file(Severity::Error, "topic", &of, None, found);
                    kept.findings.push(Finding { mend: mend::STRANGE, ..found });
                }
                Err(FileError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    let files = || topic.sources.iter().flat_map(|source| &source.files);
                    let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
                    let bytes: u64 = files().map(|(_, path)| length(path)).sum();
                    let (severity, found) = match files().count() {
                        0 => (
                            Severity::Warning,
                            "there is none: its directory was just being made".to_owned(),
                        ),
                        count => (
                            Severity::Error,
                            format!(
                                "there is none, and {count} files of {bytes} bytes lie beside "
                            ) + "it",
                        ),
                    };
                    kept.findings.push(in_file(severity, "topic", &of, None, found));
                }
                Err(error) => {
                    let is_unread = is_refused(&error);
                    group.is_unread |= is_unread;
                    let check = if is_unread { UNREAD } else { "topic" };
                    let found = error.to_string();
                    kept.findings.push(in_file(Severity::Error, check, &of, None, found));
                }
            }
            group.sources.extend(topic.sources);
        }
    }
    groups.retain(|key, _| !deleted.contains(key));
    lives.retain(|key, _| !deleted.contains(key));
    for (key, group) in &groups {
        let others = lives.get(key).map_or(0, Vec::len).saturating_sub(1);
        group.word_faults.iter().for_each(|(of, fault)| word(of, fault, others, kept));
    }
    lives.into_values().for_each(|lives| older(lives, kept));
    for group in groups.values().filter(|group| group.is_system) {
        homes.judge(group, kept);
    }
    Ok(groups.into_values().collect())
}

/// Says what a directory says of its own copy: a cold start asks for whoever keeps another.
fn hole(hole: &Hole, of: &Path) -> Finding {
    let Hole { source, from, to } = hole;
    let found = format!(
        "it says that its copy of what broker {source} landed may lack entries {from} to {to}"
    );
    Finding { mend: mend::LEFT_OUT, ..in_file(Severity::Warning, "hole", of, None, found) }
}

/// Says which word does not hold. Where `others` of the topic's directories are here nothing is
/// lost: who said it said it in all of them.
fn word(of: &Path, fault: &FileError, others: usize, kept: &mut Kept) {
    let (severity, check) = match (is_refused(fault), others) {
        (true, _) => (Severity::Error, UNREAD),
        (false, 0) => (Severity::Error, "word"),
        (false, _) => (Severity::Warning, "word"),
    };
    let found = format!("{fault}; nothing that it said is read from here");
    kept.findings.push(in_file(severity, check, of, None, found));
}

/// Notes which of a topic's files are older than others: a process that died leaves them so, and so
/// does a copy of a directory that was put back.
fn older(lives: Vec<(PathBuf, u64)>, kept: &mut Kept) {
    let latest = lives.iter().map(|(_, life)| *life).max().unwrap_or_default();
    // One that knows nothing is of an earlier program, or was made a while ago.
    for (of, life) in lives.into_iter().filter(|(_, life)| (1..latest).contains(life)) {
        let found = format!(
            "it is older than the topic's in another directory: it knows of {life} times that the \
             topic went on, and that one of {latest}"
        );
        kept.findings.push(in_file(Severity::Warning, "topic", &of, None, found));
    }
}

/// A finding in a file.
pub(super) fn in_file(
    severity: Severity,
    check: &'static str,
    path: &Path,
    at: Option<u64>,
    found: impl Into<String>,
) -> Finding {
    let mend = match (severity, check) {
        (_, UNREAD) => mend::UNREAD,
        (_, "word") => mend::WORD,
        (Severity::Error, "topic") => mend::TOPIC_BACK,
        (Severity::Error, _) => mend::BROKER_FILLS,
        (_, "tail") => mend::RECOVER_FILES,
        _ => "",
    };
    Finding { severity, check, of: path.display().to_string(), at, found: found.into(), mend }
}

/// Whether the system refused to read it, as where rights are missing or a disk does not answer:
/// what it has may be whole.
pub(super) fn is_refused(error: &FileError) -> bool {
    matches!(
        error,
        FileError::Io { source, .. } if source.kind() != std::io::ErrorKind::NotFound
    )
}

/// Whether the directory of a topic has anything of it.
pub(super) fn has_topic(topic: &TopicListing) -> bool {
    let mut names = [names::TOPIC_FILE, names::TOPIC_COPY, names::TOPIC_GRAVE].into_iter();
    // What the system does not say may be there.
    let is_there = |name: &str| {
        let found = std::fs::symlink_metadata(topic.path.join(name));
        found.map_or_else(|error| error.kind() != std::io::ErrorKind::NotFound, |_| true)
    };
    topic.sources.iter().any(|source| !source.files.is_empty()) || names.any(is_there)
}

fn strange(stranger: &Path, kept: &mut Kept) {
    if names::aside_of(stranger).is_some() {
        let bytes = std::fs::metadata(stranger).map_or(0, |metadata| metadata.len());
        let of = stranger.display().to_string();
        let found =
            format!("{bytes} bytes of a file in which nothing held, and which was set aside");
        let (severity, check, mend) = (Severity::Note, "aside", mend::ASIDE);
        kept.findings.push(Finding { severity, check, of, at: None, found, mend });
        return;
    }
    if names::cut_of(stranger).is_none() {
        let found = "nothing that a replica has";
        kept.findings.push(in_file(Severity::Note, "name", stranger, None, found));
        return;
    }
    let bytes = std::fs::metadata(stranger).map_or(0, |metadata| metadata.len());
    let found = format!("{bytes} bytes that were cut off a file, and may have records that hold");
    let of = stranger.display().to_string();
    let (severity, check, mend) = (Severity::Note, "cut", mend::CUT_OFF);
    kept.findings.push(Finding { severity, check, of, at: None, found, mend });
}

/// The data directories at or below `path`.
pub fn directories(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    Ok(data_directories(path)?.into_iter().map(|(directory, _)| directory).collect())
}

/// The data directory at `path`, or those of the brokers in it, each with what it holds.
fn data_directories(path: &Path) -> Result<Vec<(PathBuf, Listing)>, FileError> {
    let listing = names::list(path)?;
    // A topic may be called broker-0 too: then its directory has directories by age, and those
    // have sources or the topic's file.
    let is_data = listing
        .topics
        .iter()
        .any(|topic| !topic.sources.is_empty() || is_there(&topic.path.join(names::TOPIC_FILE)));
    let mut found = Vec::new();
    if !is_data {
        let entries = std::fs::read_dir(path).map_err(FileError::io("list", path))?;
        for entry in entries {
            let entry = entry.map_err(FileError::io("list", path))?.path();
            if !watch::is_aside(&entry) && is_brokers(&entry) && is_directory(&entry) {
                let listing = names::list(&entry)?;
                found.push((entry, listing));
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    if found.is_empty() {
        found.push((path.to_owned(), listing));
    }
    Ok(found)
}

/// The directories right below `path` that are called as brokers' are.
pub(super) fn brokers_below(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let paths = paths.filter(|path| !watch::is_aside(path));
    paths.filter(|path| is_brokers(path) && is_directory(path)).collect()
}

fn is_directory(path: &Path) -> bool {
    watch::at(path);
    path.is_dir()
}

fn is_there(path: &Path) -> bool {
    watch::at(path);
    path.exists()
}

fn is_brokers(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix("broker-")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}
