//! What the replicas of a topic have, read from their files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::limits::{BROKERS_MAX, RECORDS_FILE_BYTES, SEQUENCED_LOG};
use landfall_layout::order::OrderEntry;
use landfall_layout::replica::{Body, HeaderError, REPLICA_HEADER_BYTES, ReplicaHeader};
use landfall_layout::topic::Order;
use landfall_replica::deletions::Deletion;
use landfall_replica::holes::Hole;
use landfall_replica::names::{TopicListing, list};
use landfall_replica::{
    Begins, Damage, EndedLog, FileError, Resumed, Row, Skipped, Skips, TopicFile, Unkept, Walk,
};

mod step;

use step::{Step, step};

use super::ColdError;
use super::absent::Absent;
use super::age::{self, Said};
use super::doubt::{Here, Run};
use super::fewer::Reach;
use super::named::{self, Latest, Listed};
use super::plan::{Span, Unread};
use super::sessions::SessionOf;
use super::tell;
use super::torn::{Copied, holes, torn};

/// A publisher's batch on disk, but for what it holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BatchOf {
    /// Index in the log.
    pub index: u64,
    /// Session epoch.
    pub epoch: u32,
    /// Sequence.
    pub seq: u64,
    /// When it landed, nanoseconds.
    pub landed_ns: u64,
    /// Its publisher's own number; 0 where its bytes do not hold.
    pub life: u32,
    /// Its record does not hold any more. After the same batch in one that does.
    pub is_lost: bool,
}

/// What is on disk of a log.
#[derive(Debug, Default)]
pub struct FoundLog {
    /// Batches and holes.
    pub spans: Vec<Span>,
    /// How far it was seen ordered.
    pub seen: Option<Resumed>,
    /// Where it went on after a loss.
    pub resumed: Option<Resumed>,
    /// How far it was when a file was begun last.
    pub reached: Option<Resumed>,
    /// What it passed over.
    pub skips: Skips,
    /// Where it ended in good order.
    pub ended: Option<EndedLog>,
    /// What its copies had when it ended so last, as directories say.
    pub had: Vec<EndedLog>,
    /// How far the files go of what each broker landed, by its number.
    pub reaches: BTreeMap<u8, Reach>,
    /// What copies show of what each broker landed, by its number.
    pub here: BTreeMap<u8, Here>,
    /// Log indexes that it came to and no file has, see [`FoundLog::gaps`].
    pub gaps: Vec<Run>,
    /// Those that an earlier start told of as lost.
    pub told: Vec<Run>,
    /// What was in pools alone that were stopped in good order.
    pub unkept: Vec<Unkept>,
    /// What files that do not hold may have had.
    pub unread: Unread,
    /// Where the copies of its brokers' batches begin.
    pub begins: Begins,
    /// Log indexes among which they lost something, see [`torn`].
    pub torn: Vec<(u64, u64)>,
    /// The brokers of whose batches those are.
    pub torn_of: BTreeSet<BrokerId>,
}

/// A topic on disk.
#[derive(Debug)]
pub struct Found {
    /// What one of its directories says; of how much the pool had, the most.
    pub file: TopicFile,
    /// Its directories.
    pub directories: Vec<PathBuf>,
    /// Pools that they name.
    pub pools: BTreeSet<String>,
    /// How often the topic went on, as the latest of them says.
    pub life: u64,
    /// Its logs of which anything is known.
    pub logs: BTreeMap<usize, FoundLog>,
    /// Where brokers' own logs began in the pool that was lost of which nothing was known.
    pub begins: Resumed,
    /// The same, for each log of which some directory says nothing else.
    late: BTreeMap<usize, Resumed>,
    /// It was stopped in good order: a log of which nothing is known was not there.
    pub is_ended: bool,
    /// Batches by client, as they were found: where sequences are not checked, one that says the
    /// most of all of them.
    pub batches: BTreeMap<u64, Vec<BatchOf>>,
    /// Log index behind the last entry of each source.
    pub tails: BTreeMap<BrokerId, u64>,
    /// Sources of which only directories have files that others are later than.
    pub aged: BTreeSet<BrokerId>,
    /// Holes that its directories say of their own copies, and that others have something of.
    pub holes: BTreeMap<PathBuf, BTreeSet<Hole>>,
    /// What the system refused to read first. It may be whole, so nothing is known of what it has.
    pub refused: Option<FileError>,
    /// Directories of an earlier topic of its name that nothing says was given up.
    pub earlier: Vec<PathBuf>,
}

/// Finds the topics in the data directories of brokers. Of several topics of one name the latest
/// counts, and where that one is among `deleted`, none. What does not hold becomes a sentence; what
/// may not be passed over, an error.
pub fn find(
    directories: &[impl AsRef<Path>],
    deleted: &BTreeSet<Deletion>,
    notes: &mut Vec<String>,
) -> Result<Vec<Found>, ColdError> {
    let mut topics: BTreeMap<String, Vec<TopicListing>> = BTreeMap::new();
    for directory in directories {
        let path = directory.as_ref();
        let listing = list(path).map_err(|error| ColdError::Directory { error })?;
        for topic in listing.topics {
            topics.entry(topic.name.clone()).or_default().push(topic);
        }
    }
    let mut found = Vec::new();
    for listings in topics.into_values() {
        found.extend(read_topic(listings, deleted, notes)?);
    }
    Ok(found)
}

fn read_topic(
    listings: Vec<TopicListing>,
    deleted: &BTreeSet<Deletion>,
    notes: &mut Vec<String>,
) -> Result<Option<Found>, ColdError> {
    let mut said: Vec<Listed> = Vec::new();
    for listing in listings {
        let read = TopicFile::read(&listing.path);
        if read.is_ok() {
            // What only that one said is asked for by nobody.
            notes.extend(TopicFile::word_faults(&listing.path).into_iter().map(|fault| {
                format!("{fault}; what other directories say of who keeps the topic where counts")
            }));
        }
        said.push((listing, read));
    }
    let Latest { mine, earlier } = named::latest(said, deleted, notes);
    let is_deleted =
        |listing: &TopicListing| deleted.contains(&(listing.name.clone(), listing.created_ns));
    if let Some((listing, _)) = mine.first().filter(|(listing, _)| is_deleted(listing)) {
        let name = &listing.name;
        notes.extend(mine.iter().map(|(listing, _)| goes(name, &listing.path)));
        return Ok(None);
    }
    let mut found: Option<Found> = None;
    let (mut said, mut words) = (Vec::new(), BTreeMap::new());
    let (mut unreadable, mut refused) = (None, None);
    let mut listings = Vec::new();
    for (listing, read) in mine {
        match read {
            Ok(file) if file.deleted => {
                notes.push(goes(&listing.name, &listing.path));
                return Ok(None);
            }
            Ok(mut file) => {
                let (ended, began) = (file.ended.take(), file.began.clone());
                words.insert(listing.path.clone(), std::mem::take(&mut file.holes));
                let (had, path) = (file.had.take(), listing.path.clone());
                said.push(Said { path, life: file.life, ended, began, had });
                match &mut found {
                    Some(found) => found.also_says(file),
                    None => found = Some(Found::of(file)),
                }
            }
            Err(FileError::Newer { path, version }) => {
                let why = format!("schema version {version}");
                return Err(ColdError::Version { path, why });
            }
            Err(error) => {
                notes.push(format!("{error}; what other directories say of the topic counts"));
                match is_refusal(&error) && !is_missing(&error) {
                    true => refused = refused.or(Some(error)),
                    false => unreadable = Some(error),
                }
            }
        }
        listings.push(listing);
    }
    let Some(mut found) = found else {
        return match (refused, unreadable) {
            (Some(error), _) => Err(ColdError::Refused { error }),
            (None, Some(error)) => Err(ColdError::Topic { error }),
            (None, None) => Ok(None),
        };
    };
    (found.refused, found.holes, found.earlier) = (refused, words, earlier);
    found.judge_end(&said, notes);
    let mut copies: BTreeMap<usize, Vec<Copied>> = BTreeMap::new();
    found.aged = aged(&listings, &said);
    for listing in &listings {
        found.directories.push(listing.path.clone());
        for source in &listing.sources {
            let holes = found.holes_of(&listing.path, source.source);
            let copied = Copied::new(source.source, found.is_bounded()).with(holes);
            let (mut files, mut copied, mut present) = (Vec::new(), copied, 0);
            let mut reach = found.reach_of(source.source);
            for (first_index, path) in &source.files {
                match found.read(source.source, *first_index, path, notes)? {
                    None => {
                        copied.pass(*first_index);
                        reach.is_damaged = true;
                    }
                    Some(walk) => {
                        let begin = walk.header().first_index;
                        let first = files.is_empty() && found.is_bounded();
                        let before = if first { 0 } else { walk.header().first_ordinal };
                        let lost = walk.damage().iter().filter_map(Damage::entries).sum::<u64>();
                        present += walk.place().ordinal.saturating_sub(before + lost);
                        copied.behead(*first_index, begin);
                        reach.is_damaged |= walk.damage().iter().any(|it| it.behind.is_none());
                        copied.add(walk.header(), walk.damage(), walk.place());
                        files.push((*walk.header(), walk.place().index));
                    }
                }
            }
            if source.files.is_empty() {
                continue;
            }
            let log = found.log_of(source.source);
            let known = found.logs.entry(log).or_default();
            reach.entries = reach.entries.max(present);
            known.reaches.insert(source.source.raw(), reach);
            for row in Row::all(files.iter().map(|(header, end)| (header, *end))) {
                known.begins.add(source.source, row);
            }
            copies.entry(log).or_default().push(copied);
        }
    }
    for (listing, source) in listings.iter().flat_map(|it| BrokerId::all().map(move |of| (it, of)))
    {
        let has = listing.sources.iter().any(|it| it.source == source && !it.files.is_empty());
        let holes = found.holes_of(&listing.path, source);
        // A log that nobody says anything of does not come back.
        if !has && !holes.is_empty() {
            let copied = Copied::new(source, found.is_bounded()).with(holes);
            copies.entry(found.log_of(source)).or_default().push(copied);
        }
    }
    for log in copies.keys() {
        found.logs.entry(*log).or_default();
    }
    found.begin_late();
    let mut stay = BTreeSet::new();
    for (log, copies) in copies {
        let below = found.logs.get(&log).map_or(0, |known| found.retired_below(known));
        let known = found.logs.entry(log).or_default();
        (known.torn, known.torn_of) = torn(&copies);
        let holes = holes(&copies, &known.skips, &known.spans, below);
        known.torn_of.extend(holes.of);
        stay.extend(holes.stay);
        for copy in copies {
            copy.shows(known.here.entry(copy.source().raw()).or_default());
        }
    }
    found.holes.values_mut().for_each(|holes| holes.retain(|hole| stay.contains(hole)));
    found.bound_missing();
    found.look_for_gaps();
    Ok(Some(found))
}

/// The sources of which every directory that has files of them is older than another one.
fn aged(listings: &[TopicListing], said: &[Said]) -> BTreeSet<BrokerId> {
    let is_older = |listing: &TopicListing| age::is_older(&listing.path, said);
    let sources = |older: bool| {
        let of = listings.iter().filter(move |listing| is_older(listing) == older);
        let has = of.flat_map(|listing| &listing.sources).filter(|it| !it.files.is_empty());
        has.map(|source| source.source).collect::<BTreeSet<_>>()
    };
    &sources(true) - &sources(false)
}

fn goes(name: &str, path: &Path) -> String {
    format!("topic {name} was deleted; {} goes with its broker's start", path.display())
}

/// Whether a topic's file is not there: it says as little as one that does not hold.
pub fn is_missing(error: &FileError) -> bool {
    matches!(error, FileError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

fn further(one: Option<Resumed>, other: Resumed) -> Option<Resumed> {
    Some(furthest(one.unwrap_or_default(), other))
}

fn furthest(one: Resumed, other: Resumed) -> Resumed {
    Resumed { index: one.index.max(other.index), position: one.position.max(other.position) }
}

impl Found {
    fn of(file: TopicFile) -> Self {
        let mut found = Self {
            file: TopicFile { pool_bytes: 0, ..file.clone() },
            directories: Vec::new(),
            pools: BTreeSet::new(),
            life: 0,
            logs: BTreeMap::new(),
            begins: Resumed::default(),
            late: BTreeMap::new(),
            is_ended: false,
            batches: BTreeMap::new(),
            tails: BTreeMap::new(),
            aged: BTreeSet::new(),
            holes: BTreeMap::new(),
            refused: None,
            earlier: Vec::new(),
        };
        found.also_says(file);
        found
    }

    /// Takes what another directory says.
    fn also_says(&mut self, file: TopicFile) {
        self.file.pool_bytes = self.file.pool_bytes.max(file.pool_bytes);
        self.file.places.join(&file.places);
        self.begins = furthest(self.begins, file.begins);
        for (log, begun) in (0..BROKERS_MAX).filter_map(|log| Some((log, file.begun_late(log)?))) {
            let late = self.late.entry(log).or_default();
            *late = furthest(*late, begun);
        }
        self.pools.insert(file.pool_uuid);
        for (log, place) in file.resumed {
            let log = self.logs.entry(log).or_default();
            log.resumed = further(log.resumed, place);
        }
        for (log, place) in file.reached {
            let log = self.logs.entry(log).or_default();
            log.reached = further(log.reached, place);
        }
        for (log, skips) in &file.skipped {
            self.logs.entry(*log).or_default().skips.join(skips);
        }
    }

    /// Takes where the logs ended in good order, if the directories agree on it, and every one is
    /// of that pool: in another one a log may have gone on behind it. Where they do not agree each
    /// end is a place that the log came to all the same.
    fn judge_end(&mut self, said: &[Said], notes: &mut Vec<String>) {
        // A directory that was made while the logs went on knows nothing of its age, and may be all
        // that is here: its broker's word on it was said in that time.
        self.life = age::latest(said).max(self.file.places.life());
        notes.extend(age::older(&self.file.name, said));
        for (log, had) in age::had(said) {
            let known = &mut self.logs.entry(log).or_default().had;
            if !known.contains(&had) {
                known.push(had);
            }
        }
        if self.pools.len() > 1 {
            return;
        }
        let end = age::end(said);
        self.is_ended = end.is_some();
        for (log, place) in age::passed(said).filter(|_| end.is_none()) {
            let log = self.logs.entry(log).or_default();
            log.reached = further(log.reached, place);
        }
        for (log, ended) in end.into_iter().flat_map(|ended| ended.logs) {
            self.logs.entry(log).or_default().ended = Some(ended);
        }
    }

    /// Where logs began that were not known when the topic came into the pool that was lost.
    pub fn begin_late(&mut self) {
        let Self { logs, late, begins, .. } = self;
        for (log, known) in logs.iter_mut().filter(|(log, _)| **log < BROKERS_MAX) {
            let late = late.get(log).filter(|_| known.resumed.is_none());
            late.into_iter().for_each(|late| known.skips.add(Skipped::below(*late)));
            known.resumed = further(known.resumed, *begins);
        }
    }

    /// Whether bounds let go of files.
    pub fn is_bounded(&self) -> bool {
        self.file.disk_bytes | self.file.disk_ns != 0
    }

    /// What a directory says of holes in its copy of a source.
    fn holes_of(&self, directory: &Path, source: BrokerId) -> Vec<Hole> {
        let said = self.holes.get(directory).into_iter().flatten();
        said.filter(|hole| hole.source == source.raw()).copied().collect()
    }

    /// How far the files go of what a broker landed, as far as they are read.
    fn reach_of(&self, source: BrokerId) -> Reach {
        let log = self.logs.get(&self.log_of(source));
        log.and_then(|log| log.reaches.get(&source.raw())).copied().unwrap_or_default()
    }

    fn order(&self) -> Option<Order> {
        self.file.order()
    }

    /// The log that has a source's batches.
    pub fn log_of(&self, source: BrokerId) -> usize {
        match self.order() {
            Some(order) if !order.is_sequenced() => source.index(),
            _ => SEQUENCED_LOG,
        }
    }

    /// Reads a file to its end, if it has a header. What its last bytes had is bounded by their
    /// number where nothing behind them holds; before records that hold there was nothing beyond
    /// those.
    fn read(
        &mut self,
        source: BrokerId,
        first_index: u64,
        path: &Path,
        notes: &mut Vec<String>,
    ) -> Result<Option<Walk>, ColdError> {
        let number = self.log_of(source);
        let has_holes = self.order() == Some(Order::Token);
        let begun = Resumed { index: first_index, position: 0 };
        let log = self.logs.entry(number).or_default();
        let mut walk = match Walk::open(path) {
            Ok(walk) => walk,
            Err(error) => {
                if let FileError::Header { why: HeaderError::Version { found }, .. } = &error
                    && is_foreign(path)
                {
                    let why = format!("format version {found}");
                    return Err(ColdError::Version { path: path.to_owned(), why });
                }
                log.reached = further(log.reached, begun);
                let bytes = fs::metadata(path).map_or(FILE_BYTES_MOST, |found| found.len());
                let records = bytes.saturating_sub(REPLICA_HEADER_BYTES);
                if records > 0 {
                    log.unread.add(records, has_holes);
                    notes.push(format!(
                        "{error}; no record of it can be read, and the log goes on behind all that \
                         its {records} bytes may have had"
                    ));
                }
                self.refuse(error);
                return Ok(None);
            }
        };
        loop {
            match step(&mut walk) {
                Ok(Some(Step::Entry(index, entry, life))) => {
                    let tail = self.tails.entry(source).or_default();
                    *tail = (*tail).max(index + 1);
                    self.take(number, index, &entry, life);
                }
                Ok(Some(Step::Frontier(place))) => {
                    let log = self.logs.entry(number).or_default();
                    log.seen = further(log.seen, place);
                }
                Ok(Some(Step::Nothing)) => {}
                Ok(None) => break,
                Err(error) => {
                    let bytes = walk.bytes().saturating_sub(walk.place().at);
                    self.logs.entry(number).or_default().unread.add(bytes, has_holes);
                    notes.push(error.to_string());
                    self.refuse(error);
                    break;
                }
            }
        }
        if let Some(why) = walk.header_fault() {
            notes.push(format!("{}: {why}; its records are read", path.display()));
        }
        for damage in walk.damage() {
            if damage.behind.is_none() {
                self.logs.entry(number).or_default().unread.add(damage.bytes, has_holes);
            }
        }
        notes.extend(tell::damage(path, walk.damage()));
        Ok(Some(walk))
    }

    fn refuse(&mut self, error: FileError) {
        if is_refusal(&error) {
            self.refused.get_or_insert(error);
        }
    }

    fn take(&mut self, log: usize, index: u64, entry: &OrderEntry, life: Option<u32>) {
        let (is_lost, life) = (life.is_none(), life.unwrap_or(0));
        let (first, end, is_hole) = (entry.first_position, entry.end_position(), entry.is_hole());
        let log = self.logs.entry(log).or_default();
        log.spans.push(Span { index, first, end, is_hole, is_lost });
        // A hole's session had an epoch, and no batch there: its sequence is 0.
        let (epoch, seq, landed_ns) = (entry.session_epoch, entry.batch_seq, entry.landed_ns);
        let is_checked = self.is_checked();
        // Only where each sequence follows the one before it does one that is lost matter.
        if is_lost && self.order() != Some(Order::Strong) {
            return;
        }
        let batches = self.batches.entry(entry.client).or_default();
        match batches.last_mut() {
            Some(known) if !is_checked => {
                known.epoch = known.epoch.max(epoch);
                known.seq = known.seq.max(seq);
                known.landed_ns = known.landed_ns.max(landed_ns);
            }
            _ => batches.push(BatchOf { index, epoch, seq, landed_ns, life, is_lost }),
        }
    }

    /// Whether sequences are checked in the topic.
    fn is_checked(&self) -> bool {
        matches!(self.order(), Some(Order::Strong | Order::Stream))
    }

    /// Log index of a log below which the topic's bounds may have let go of what is in no file.
    pub fn retired_below(&self, log: &FoundLog) -> u64 {
        if self.is_bounded() { log.begins.retired_below() } else { 0 }
    }

    /// The topic's sessions, by client. After its spans were sorted.
    pub fn sessions(&mut self) -> BTreeMap<u64, SessionOf> {
        let order = self.order();
        let log = self.logs.get(&SEQUENCED_LOG).filter(|_| order == Some(Order::Strong));
        let absent =
            log.map(|log| Absent::of(&log.spans, &log.skips, (self.retired_below(log), &log.torn)));
        let absent = absent.unwrap_or_default();
        let of = |batches| SessionOf::of(order, batches, &absent);
        let all = std::mem::take(&mut self.batches).into_iter();
        all.filter_map(|(client, batches)| Some((client, of(batches)?))).collect()
    }

    /// A file that was begun and is not there may have had as much as a file has.
    fn bound_missing(&mut self) {
        let has_holes = self.order() == Some(Order::Token);
        for log in self.logs.values_mut() {
            let last = log.spans.iter().map(|span| span.index + 1).max().unwrap_or_default();
            let read = last.max(log.seen.map_or(0, |seen| seen.index));
            let read = read.max(log.resumed.map_or(0, |resumed| resumed.index));
            if log.reached.is_some_and(|reached| reached.index > read) {
                log.unread.add(FILE_BYTES_MOST, has_holes);
            }
        }
    }
}

/// The entry of a batch or a hole.
pub fn entry_of<'a>(body: &'a Body<'_>) -> Option<&'a OrderEntry> {
    match body {
        Body::Batch { entry, .. } | Body::Hole { entry, .. } => Some(entry),
        Body::Frontier(_) => None,
    }
}

/// Whether the system refused, as where rights, descriptors or memory are missing or a disk does
/// not answer. Only what the bytes of a file say is damage.
fn is_refusal(error: &FileError) -> bool {
    matches!(error, FileError::Io { .. })
}

/// What a file of the usual size has at most: a last group goes beyond it.
const FILE_BYTES_MOST: u64 = 2 * RECORDS_FILE_BYTES;

/// Whether a file is of another version of the format: no damage made it so.
fn is_foreign(path: &Path) -> bool {
    let mut head = [0; REPLICA_HEADER_BYTES as usize];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && ReplicaHeader::is_foreign(&head)
}
