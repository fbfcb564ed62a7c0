//! One replica read from some log index on, batches and holes, while its broker appends to it and
//! retention takes its oldest files.

use std::io;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::frame::GapReason;
use landfall_layout::order::OrderEntry;
use landfall_layout::replica::{Body, NO_FILE, Place, Record, RecordHeader};

use crate::damage::Damage;
use crate::error::FileError;
use crate::names::list_source;
use crate::walk::{Broken, Sight, Walk};

/// Times that a directory is listed anew because retention took the file that was looked for.
const LISTINGS_MAX: usize = 8;

/// What a replica has from a wanted log index on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Says {
    /// Broker whose entries these are.
    pub source: BrokerId,
    /// Log index from which on the replica left nothing out.
    pub known_from: u64,
    /// Log index of the next entry; none when there is none now.
    pub next: Option<u64>,
    /// Log index below which it has no other entry, from `known_from` on.
    pub known_to: u64,
    /// The next entry's batch is lost, as far as this replica knows.
    pub is_lost: bool,
    /// The last log indexes among which it had some that do not hold any more, or whose file is
    /// missing: those were not let go of.
    pub torn: (u64, u64),
}

/// The file that is read now.
struct Open {
    first_index: u64,
    path: PathBuf,
    walk: Walk,
    /// What was appended since it was opened has been seen.
    is_fresh: bool,
    /// Byte from which nothing held, and the file's length then.
    ended: Option<(u64, u64)>,
    /// What it had when there was a later file has been seen: it gets no more.
    is_final: bool,
}

impl Open {
    fn new(first_index: u64, path: PathBuf, walk: Walk) -> Self {
        Self { first_index, path, walk, is_fresh: false, ended: None, is_final: false }
    }
}

/// What may still come at the end of the file that is read.
enum End {
    /// More of it: there is no later file.
    Grows,
    /// Nothing known: it is looked at once more.
    Again,
    /// Nothing.
    Final,
}

/// A replica's reader. It only goes forward.
pub struct CopyReader {
    source: BrokerId,
    created_ns: u64,
    directory: PathBuf,
    open: Option<Open>,
    known_from: u64,
    /// Log index of the entry that the walk found last.
    ahead: Option<u64>,
    /// The same entry, where its batch does not hold.
    lost: Option<(RecordHeader, OrderEntry)>,
    /// Batches that do not hold are entries that are lost, where it is known which they were.
    names_lost: bool,
    torn: (u64, u64),
    /// There is nothing more until somebody says that it may have grown.
    is_dry: bool,
}

impl CopyReader {
    /// Reads what lies in `directory`: batches of `source` in the topic created at `created_ns`.
    pub fn new(source: BrokerId, created_ns: u64, directory: PathBuf) -> Self {
        Self {
            source,
            created_ns,
            directory,
            open: None,
            known_from: 0,
            ahead: None,
            lost: None,
            names_lost: false,
            torn: (0, 0),
            is_dry: false,
        }
    }

    /// The same, with a hole of reason `Lost` for each batch that does not hold and of which it is
    /// known which it was. For readers: who fills a copy has no use for it.
    pub fn naming_lost(self) -> Self {
        Self { names_lost: true, ..self }
    }

    /// Broker whose batches these are.
    pub fn source(&self) -> BrokerId {
        self.source
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The files may have grown since it was last looked.
    pub fn look_again(&mut self) {
        self.is_dry = false;
        if let Some(open) = &mut self.open {
            open.is_fresh = false;
        }
    }

    /// The batch or hole that [`seek`](Self::seek) found.
    pub fn record(&self) -> Option<Record<'_>> {
        if let Some((header, entry)) = self.lost {
            return Some(Record { header, body: Body::Hole { entry, reason: GapReason::Lost } });
        }
        self.open.as_ref().and_then(|open| open.walk.current())
    }

    /// What [`seek`](Self::seek) says where it has nothing to read for that.
    pub(crate) fn known(&self, want: u64) -> Option<Says> {
        let is_known = self.ahead.is_some_and(|index| index >= want) || self.is_dry;
        is_known.then(|| self.says(want))
    }

    /// Goes to the first batch or hole at or above log index `want`. Everything below `until` was
    /// written before this was asked: an end that does not hold there is a fault, and `faults` gets
    /// a sentence with the file and the byte. The reading goes on behind it.
    pub fn seek(&mut self, want: u64, until: u64, faults: &mut Vec<String>) -> Says {
        loop {
            if let Some(says) = self.known(want) {
                return says;
            }
            self.lost = None;
            let Some(open) = &mut self.open else {
                if !self.open_at(want, faults) {
                    self.is_dry = true;
                }
                continue;
            };
            match open.walk.look() {
                Ok(Sight::Record) => match open.walk.current() {
                    Some(Record { body: Body::Frontier(_), .. }) | None => {}
                    Some(record) => self.ahead = Some(record.header.index),
                },
                Ok(Sight::End) => self.ended(None, until, faults),
                Ok(Sight::Broken(broken)) => self.ended(Some(broken), until, faults),
                Err(error) => {
                    faults.push(error.to_string());
                    self.go_on(false, faults);
                }
            }
        }
    }

    fn says(&self, want: u64) -> Says {
        let next = self.ahead.filter(|index| *index >= want);
        let covered = self.open.as_ref().map_or(0, |open| open.walk.place().index);
        let known_to = next.unwrap_or(covered);
        let is_lost = next.is_some()
            && self.record().is_some_and(|record| {
                let Body::Hole { reason, .. } = record.body else { return false };
                matches!(reason, GapReason::Corrupt | GapReason::Lost)
            });
        let Self { source, known_from, torn, .. } = *self;
        Says { source, known_from, next, known_to, is_lost, torn }
    }

    /// The walk found nothing more in its file that holds, or something that does not.
    fn ended(&mut self, broken: Option<Broken>, until: u64, faults: &mut Vec<String>) {
        let Some(open) = &mut self.open else { return };
        if !std::mem::replace(&mut open.is_fresh, true) {
            if let Err(error) = open.walk.refresh() {
                faults.push(error.to_string());
                self.go_on(false, faults);
            }
            return;
        }
        let end = (open.walk.place().at, open.walk.bytes());
        let is_known = open.ended == Some(end);
        let Some(broken) = broken else {
            match self.end(faults) {
                End::Grows => self.is_dry = true,
                End::Again => {}
                End::Final => self.go_on(true, faults),
            }
            return;
        };
        if is_known && self.later_file().is_none() {
            self.is_dry = true;
            return;
        }
        let Some(open) = &mut self.open else { return };
        // What the broken record says of itself is known where its head holds.
        let is_named = broken.behind.is_some_and(|behind| behind.index <= until);
        let say = |open: &Open, damage: &Damage| format!("{}: {damage}", open.path.display());
        if self.names_lost
            && is_named
            && let Some((header, entry, damage)) = open.walk.named(&broken)
        {
            faults.push(say(open, &damage));
            open.walk.pass(damage);
            (self.ahead, self.lost) = (Some(header.index), Some((header, entry)));
            return;
        }
        match open.walk.measure(&broken) {
            Ok(damage) => match damage.behind {
                Some(behind) if is_named || behind.index < until => {
                    faults.push(say(open, &damage));
                    open.walk.pass(damage);
                    if damage.entries() != Some(0) {
                        self.known_from = behind.index;
                        self.torn = (damage.before.index, behind.index);
                    }
                }
                // What is being written at this moment looks the same; nobody needs it yet.
                Some(_) => self.is_dry = true,
                None => match self.end(faults) {
                    End::Grows => {
                        self.open.iter_mut().for_each(|open| open.ended = Some(end));
                        self.is_dry = true;
                    }
                    End::Again => {}
                    End::Final => {
                        faults.extend(self.open.as_ref().map(|open| say(open, &damage)));
                        self.go_on(false, faults);
                    }
                },
            },
            Err(error) => {
                faults.push(error.to_string());
                self.go_on(false, faults);
            }
        }
    }

    /// What may come behind where nothing more was found in the open file. Its broker finishes it
    /// and begins the next one, and may have done so since it was looked at: only what it has when
    /// there is a next one is all of it.
    fn end(&mut self, faults: &mut Vec<String>) -> End {
        if self.open.as_ref().is_some_and(|open| open.is_final) {
            return End::Final;
        }
        if self.later_file().is_none() {
            return End::Grows;
        }
        let Some(open) = &mut self.open else { return End::Grows };
        open.is_final = true;
        if let Err(error) = open.walk.refresh() {
            faults.push(error.to_string());
            self.go_on(false, faults);
        }
        End::Again
    }

    fn later_file(&self) -> Option<(u64, PathBuf)> {
        let here = self.open.as_ref().map(|open| open.first_index)?;
        let files = list_source(&self.directory, &mut Vec::new()).ok()?;
        files.into_iter().find(|(first_index, _)| *first_index > here)
    }

    /// Whether there is a file behind that one.
    fn has_behind(&self, first_index: u64) -> bool {
        let files = list_source(&self.directory, &mut Vec::new()).unwrap_or_default();
        files.last().is_some_and(|(last, _)| *last > first_index)
    }

    /// Goes on in the next file, if there is one. `is_whole`: this one was read to its end.
    fn go_on(&mut self, is_whole: bool, faults: &mut Vec<String>) {
        for _ in 0..LISTINGS_MAX {
            let Some((first_index, path)) = self.later_file() else { break };
            match self.walk(&path) {
                Ok(walk) => return self.go_to(walk, (first_index, path), is_whole),
                Err(error) if is_gone(&error) => continue,
                // Nobody begins a file behind one that has no header: it had one.
                Err(error) if is_begun(&error) && !self.has_behind(first_index) => {}
                Err(error) => {
                    faults.push(error.to_string());
                    // A file that cannot be read is passed over, if there is another behind it.
                    if let Some(open) = &mut self.open {
                        open.first_index = first_index;
                        self.known_from = u64::MAX;
                        if self.later_file().is_some() {
                            return;
                        }
                    }
                }
            }
            break;
        }
        self.is_dry = true;
    }

    /// Goes on in a later file. `is_whole`: the one before it was read to its end.
    fn go_to(&mut self, walk: Walk, (first_index, path): (u64, PathBuf), is_whole: bool) {
        // Bounds take files from the front, also those that are being read.
        let is_taken = self.open.as_ref().is_some_and(|open| is_taken(&open.path));
        let before = self.open.as_ref().map(|open| (open.first_index, open.walk.place()));
        let header = walk.header();
        let follows = |(here, place): (u64, Place)| {
            header.previous_index == here && header.first_ordinal == place.ordinal
        };
        let is_begun = header.previous_index == NO_FILE;
        if !is_whole || is_begun || !before.is_some_and(follows) {
            self.known_from = header.first_index;
            // What a copy left out when it was begun anew, others may have let go of.
            if let Some((_, place)) = before.filter(|_| !is_whole || !(is_begun || is_taken)) {
                self.torn = (place.index, header.first_index);
            }
        }
        self.open = Some(Open::new(first_index, path, walk));
    }

    /// Opens the file in which log index `want` is, or the first one behind it.
    fn open_at(&mut self, want: u64, faults: &mut Vec<String>) -> bool {
        for _ in 0..LISTINGS_MAX {
            let files = match list_source(&self.directory, &mut Vec::new()) {
                Ok(files) => files,
                Err(error) => {
                    if !is_gone(&error) {
                        faults.push(error.to_string());
                    }
                    return false;
                }
            };
            let at = files.partition_point(|(first_index, _)| *first_index <= want);
            let (mut taken, mut unread) = (false, None);
            for (first_index, path) in &files[at.saturating_sub(1)..] {
                match self.walk(path) {
                    Ok(walk) => {
                        self.known_from = walk.header().first_index;
                        self.torn = unread.map_or((0, 0), |from| (from, self.known_from));
                        self.open = Some(Open::new(*first_index, path.clone(), walk));
                        return true;
                    }
                    Err(error) if is_gone(&error) => {
                        taken = true;
                        break;
                    }
                    // One behind it is opened next, if there is one.
                    Err(error) if is_begun(&error) => unread = unread.or(Some(*first_index)),
                    Err(error) => {
                        unread = unread.or(Some(*first_index));
                        faults.push(error.to_string());
                    }
                }
            }
            if !taken {
                return false;
            }
        }
        false
    }

    /// A file of this replica.
    fn walk(&self, path: &Path) -> Result<Walk, FileError> {
        let walk = Walk::open(path)?;
        let header = walk.header();
        if header.created_ns == self.created_ns && header.source == self.source.raw() {
            return Ok(walk);
        }
        Err(FileError::Topic {
            path: path.to_owned(),
            why: format!(
                "it is about broker {} in topic {} of {}, and lies where those of broker {} of {} \
                 belong",
                header.source,
                header.name(),
                header.created_ns,
                self.source,
                self.created_ns
            ),
        })
    }
}

/// Whether a file is not there any more.
fn is_taken(path: &Path) -> bool {
    let found = path.symlink_metadata().map_err(FileError::io("look at", path));
    found.is_err_and(|error| is_gone(&error))
}

/// Whether retention, or the topic's end, was first.
fn is_gone(error: &FileError) -> bool {
    matches!(error, FileError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// Whether the file's header is not written yet.
fn is_begun(error: &FileError) -> bool {
    use landfall_layout::replica::HeaderError::{Magic, Short};
    matches!(error, FileError::Header { why: Short { .. } | Magic { found: 0 }, .. })
}
