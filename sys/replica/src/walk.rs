//! The records of one file, one after the other, over what does not hold between them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use landfall_layout::order::OrderEntry;
use landfall_layout::replica::{
    HeaderError, Place, RECORD_BYTES_MAX, RECORD_JUDGED_BYTES, REPLICA_HEADER_BYTES, Record,
    RecordError, RecordHeader, ReplicaHeader, check_head, check_record, record_bytes, view_head,
    view_record,
};

use crate::ask;
use crate::damage::Damage;
use crate::error::FileError;
use crate::rebuilt;
use crate::watch;

/// Bytes read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// What is next in a file.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Step<'a> {
    /// A record that holds.
    Record(Record<'a>),
    /// Bytes that do not, up to the next record that does or to the file's end.
    Damage(Damage),
}

/// What stands where the walk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// A record that holds; the walk is behind it now, and has it as its current one.
    Record,
    /// The file's end.
    End,
    /// Something that does not hold; the walk is still before it.
    Broken(Broken),
}

/// What does not hold, and how far it is known to reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken {
    /// What is wrong.
    pub why: RecordError,
    /// The place behind it, where the record's head holds and its batch alone does not.
    pub behind: Option<Place>,
}

/// A file's records. What is read is checked in every respect, so a record that comes out of
/// here is one that was written whole.
///
/// Behind damage the walk goes on at the next record that holds. Nothing else is ever taken for
/// one: a record has checksums over all of it, and names its own byte of the file, the topic, the
/// source, its number among the file's entries, which has to fit between those around it, and the
/// file's mark, which nobody who makes payloads knows.
pub struct Walk {
    file: File,
    path: PathBuf,
    bytes: u64,
    header: ReplicaHeader,
    header_fault: Option<HeaderError>,
    place: Place,
    /// Damage that nothing behind holds was seen.
    ended: bool,
    /// Where the record lies that was found last.
    found_at: Option<u64>,
    damage: Vec<Damage>,
    window: Vec<u8>,
    window_at: u64,
}

impl Walk {
    /// Opens the file at `path` and checks its header.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        watch::at(path);
        let file = File::open(path).map_err(FileError::io("open", path))?;
        Self::of(file, path)
    }

    /// The records of an open file. A header that holds in neither of its places is put together
    /// again from `path` and the first record that holds; a file without either is an error, and
    /// so is one that a program of another version wrote.
    pub fn of(file: File, path: &Path) -> Result<Self, FileError> {
        let metadata = file.metadata().map_err(FileError::io("look at", path))?;
        let none = ReplicaHeader::from_bytes([0; ReplicaHeader::BYTES as usize]);
        let mut walk = Self {
            file,
            path: path.to_owned(),
            bytes: metadata.len(),
            header: none,
            header_fault: None,
            place: Place::first(&none),
            ended: false,
            found_at: None,
            damage: Vec::new(),
            window: Vec::new(),
            window_at: 0,
        };
        walk.load(0, REPLICA_HEADER_BYTES)?;
        match ReplicaHeader::read(&walk.window) {
            Ok((header, fault)) => (walk.header, walk.header_fault) = (header, fault),
            Err(why) => {
                let is_ours = !ReplicaHeader::is_foreign(&walk.window);
                let rebuilt = if is_ours { rebuilt::header(&mut walk)? } else { None };
                let wrong = || FileError::Header { path: path.to_owned(), why };
                walk.header = rebuilt.ok_or_else(wrong)?;
                walk.header_fault = Some(why);
            }
        }
        walk.place = Place::first(&walk.header);
        Ok(walk)
    }

    /// What the file is about.
    pub fn header(&self) -> &ReplicaHeader {
        &self.header
    }

    /// What is wrong with the file's header, although what it is about is known.
    pub fn header_fault(&self) -> Option<HeaderError> {
        self.header_fault
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file when it was opened.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the next record is looked for.
    pub fn place(&self) -> Place {
        self.place
    }

    /// What did not hold so far, in the order of the file.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Goes on from a place that an earlier walk of this file was at.
    pub fn go_to(&mut self, place: Place) {
        self.place = place;
        self.ended = false;
        self.found_at = None;
        self.damage.retain(|damage| damage.at < place.at);
    }

    /// Sees what was appended since the file was opened.
    pub fn refresh(&mut self) -> Result<(), FileError> {
        let metadata = self.file.metadata().map_err(FileError::io("look at", &self.path))?;
        self.bytes = metadata.len();
        // What was read beyond the old end is not what is there now.
        self.window.clear();
        self.go_to(self.place);
        Ok(())
    }

    /// The next record that holds or range that does not; `None` at the file's end.
    pub fn step(&mut self) -> Result<Option<Step<'_>>, FileError> {
        match self.look()? {
            Sight::End => Ok(None),
            Sight::Record => Ok(self.current().map(Step::Record)),
            Sight::Broken(broken) => {
                let damage = self.measure(&broken)?;
                self.pass(damage);
                Ok(Some(Step::Damage(damage)))
            }
        }
    }

    /// The next record that holds, over all damage before it, which [`Walk::damage`] has then;
    /// `None` at the file's end. (Not an `Iterator`: a record is lent from the walk's window.)
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend from itself")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, FileError> {
        loop {
            match self.look()? {
                Sight::End => return Ok(None),
                Sight::Record => return Ok(self.current()),
                Sight::Broken(broken) => {
                    let damage = self.measure(&broken)?;
                    self.pass(damage);
                }
            }
        }
    }

    /// What stands where the walk is. Only a record moves it.
    pub fn look(&mut self) -> Result<Sight, FileError> {
        let place = self.place;
        let at = place.at;
        if self.ended || at >= self.bytes {
            return Ok(Sight::End);
        }
        self.load(at, RECORD_JUDGED_BYTES)?;
        let header = match check_head(self.loaded(at), place) {
            Ok(header) => header,
            Err(why) => return Ok(Sight::Broken(Broken { why, behind: None })),
        };
        self.load(at, record_bytes(header.bytes))?;
        let behind = place.behind_head(&header);
        if let Err(why) = check_record(self.loaded(at), place) {
            return Ok(Sight::Broken(Broken { why, behind: Some(behind) }));
        }
        self.found_at = Some(at);
        self.place = behind;
        Ok(Sight::Record)
    }

    /// Goes behind the last record whose head holds, without a look at what records have; the log
    /// index there.
    pub fn skim(&mut self) -> Result<u64, FileError> {
        self.found_at = None;
        while self.place.at < self.bytes {
            let place = self.place;
            self.load(place.at, RECORD_JUDGED_BYTES)?;
            self.place = match check_head(self.loaded(place.at), place) {
                Ok(header) => place.behind_head(&header),
                Err(_) => match self.find(place.at + 1, |found| found.fits_behind(&place))? {
                    Some(found) => found,
                    None => break,
                },
            };
        }
        Ok(self.place.index)
    }

    /// How far the damage reaches that the walk stands before.
    pub fn measure(&mut self, broken: &Broken) -> Result<Damage, FileError> {
        let before = self.place;
        // A record whose head holds says where the next one is: its payload is nobody's record.
        let from = match broken.behind {
            Some(behind) => behind,
            None => Place { at: before.at + 1, ..before },
        };
        let fits = |found: &Place| found.fits_behind(&before);
        let behind = self.find(from.at, fits)?;
        let end = behind.map_or(self.bytes, |behind| behind.at);
        Ok(Damage { at: before.at, bytes: end - before.at, why: broken.why, before, behind })
    }

    /// Goes on behind damage.
    pub fn pass(&mut self, damage: Damage) {
        self.damage.push(damage);
        self.found_at = None;
        match damage.behind {
            Some(behind) => self.place = behind,
            None => self.ended = true,
        }
    }

    /// The record that was found last, until the walk is told to do something else.
    pub fn current(&self) -> Option<Record<'_>> {
        view_record(self.loaded(self.found_at?))
    }

    /// The entry of a batch whose record does not hold, where its head does: which batch it was is
    /// known then, and the damage ends with it. What is behind it is judged by itself.
    pub fn named(&self, broken: &Broken) -> Option<(RecordHeader, OrderEntry, Damage)> {
        let (before, behind) = (self.place, broken.behind?);
        let (header, entry) = view_head(self.loaded(before.at))?;
        // Others' batches are in front of it, and none of these bytes were theirs.
        let before = Place { index: header.index, ..before };
        let bytes = behind.at.min(self.bytes) - before.at;
        let damage = Damage { at: before.at, bytes, why: broken.why, before, behind: Some(behind) };
        Some((header, entry, damage))
    }

    /// The first record at or behind byte `from` that holds by itself, wherever the walk is, and
    /// of which `fits` says yes.
    pub fn find(
        &mut self,
        from: u64,
        fits: impl Fn(&Place) -> bool,
    ) -> Result<Option<Place>, FileError> {
        self.found_at = None;
        let line = landfall_layout::limits::LINE_BYTES;
        let mut at = from.max(REPLICA_HEADER_BYTES).next_multiple_of(line);
        while at < self.bytes {
            self.load(at, RECORD_JUDGED_BYTES)?;
            if let Some(place) = Place::named(self.loaded(at), at).filter(|place| {
                // What is another file's or nobody's is no record here.
                self.is_mine(place) && fits(place)
            }) && let Ok(header) = check_head(self.loaded(at), place)
            {
                self.load(at, record_bytes(header.bytes))?;
                if check_record(self.loaded(at), place).is_ok() {
                    return Ok(Some(place));
                }
            }
            at += line;
        }
        Ok(None)
    }

    fn is_mine(&self, place: &Place) -> bool {
        let first = Place::first(&self.header);
        let whose = |place: &Place| (place.created_ns, place.source, place.mark);
        whose(place) == whose(&first)
    }

    /// The record at byte `at` by its own word, if its head holds and it is of a topic and source.
    pub(crate) fn claim(
        &mut self,
        at: u64,
        (created_ns, source): (u64, u8),
    ) -> Result<Option<Place>, FileError> {
        self.load(at, RECORD_JUDGED_BYTES)?;
        let place = Place::named(self.loaded(at), at);
        let place = place.filter(|place| (place.created_ns, place.source) == (created_ns, source));
        Ok(place.filter(|place| check_head(self.loaded(at), *place).is_ok()))
    }

    /// What of the file the window has from byte `at` on.
    fn loaded(&self, at: u64) -> &[u8] {
        let start = usize::try_from(at.saturating_sub(self.window_at)).unwrap_or(usize::MAX);
        self.window.get(start..).unwrap_or_default()
    }

    /// Makes the window have `need` bytes from `at` on, or all up to the file's end.
    fn load(&mut self, at: u64, need: u64) -> Result<(), FileError> {
        let end = at.saturating_add(need).min(self.bytes);
        let has = self.window_at..self.window_at + self.window.len() as u64;
        if has.start <= at && end <= has.end {
            return Ok(());
        }
        let wanted = need.clamp(WINDOW_BYTES, RECORD_BYTES_MAX).min(self.bytes.saturating_sub(at));
        self.window.resize(wanted as usize, 0);
        self.window_at = at;
        let mut filled = 0;
        while filled < self.window.len() {
            watch::at(&self.path);
            let read = self.file.read_at(&mut self.window[filled..], at + filled as u64);
            match read {
                // Somebody made the file shorter: what is not there reads as an end.
                Ok(0) => {
                    self.window.truncate(filled);
                    self.bytes = at + filled as u64;
                }
                Ok(read) => {
                    filled += read;
                    ask::moved();
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.window.clear();
                    return Err(FileError::io("read", &self.path)(error));
                }
            }
        }
        Ok(())
    }
}
