//! The records of one file, one after the other.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use landfall_layout::limits::LINE_BYTES;
use landfall_layout::replica::{
    Place, RECORD_BYTES_MAX, RECORD_HEAD_BYTES, RECORD_MAGIC, REPLICA_HEADER_BYTES, Record,
    RecordError, RecordHeader, ReplicaHeader, check_record, measure, view_record,
};

use crate::error::FileError;

/// Bytes read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// Where a file's records end although the file does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Torn {
    /// Byte of the file from which nothing holds.
    pub at: u64,
    /// Bytes from there to the file's end.
    pub bytes: u64,
    /// What is wrong there.
    pub why: RecordError,
}

impl std::fmt::Display for Torn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, bytes, why } = self;
        write!(f, "the last {bytes} bytes, from byte {at} on, do not hold: {why}")
    }
}

/// A file's records. What is read is checked in every respect, so a record that comes out of
/// here is one that was written whole.
pub struct Walk {
    file: File,
    path: PathBuf,
    bytes: u64,
    header: ReplicaHeader,
    place: Place,
    torn: Option<Torn>,
    /// Where the record lies that was found last.
    found_at: Option<u64>,
    window: Vec<u8>,
    window_at: u64,
}

impl Walk {
    /// Opens the file at `path` and checks its header.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::io("open", path))?;
        Self::of(file, path)
    }

    /// The records of an open file; `path` is for messages.
    pub fn of(file: File, path: &Path) -> Result<Self, FileError> {
        let metadata = file.metadata().map_err(FileError::io("look at", path))?;
        let mut walk = Self {
            file,
            path: path.to_owned(),
            bytes: metadata.len(),
            header: ReplicaHeader::from_bytes([0; ReplicaHeader::BYTES as usize]),
            place: Place { at: 0, created_ns: 0, source: 0, index: 0, ordinal: 0 },
            torn: None,
            found_at: None,
            window: Vec::new(),
            window_at: 0,
        };
        walk.load(0, REPLICA_HEADER_BYTES)?;
        let why = |why| FileError::Header { path: path.to_owned(), why };
        walk.header = ReplicaHeader::parse(&walk.window).map_err(why)?;
        walk.place = Place::first(&walk.header);
        Ok(walk)
    }

    /// What the file is about.
    pub fn header(&self) -> &ReplicaHeader {
        &self.header
    }

    /// Bytes of the file when it was opened.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the next record is looked for.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Where and why the walk ended before the file did; none before it ended.
    pub fn torn(&self) -> Option<Torn> {
        self.torn
    }

    /// Goes on from a place that an earlier walk of this file was at.
    pub fn go_to(&mut self, place: Place) {
        self.place = place;
        self.torn = None;
        self.found_at = None;
    }

    /// Sees what was appended since the file was opened.
    pub fn refresh(&mut self) -> Result<(), FileError> {
        let metadata = self.file.metadata().map_err(FileError::io("look at", &self.path))?;
        self.bytes = metadata.len();
        // What was read beyond the old end is not what is there now.
        self.window.clear();
        self.torn = None;
        self.found_at = None;
        Ok(())
    }

    /// The next record; `None` at the end, which is the file's if [`Walk::torn`] says nothing.
    /// (Not an `Iterator`: a record is lent from the walk's window.)
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend from itself")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, FileError> {
        let at = self.place.at;
        if self.torn.is_some() || at >= self.bytes {
            return Ok(None);
        }
        self.load(at, RECORD_HEAD_BYTES)?;
        let need = measure(self.loaded(at));
        if let Ok(need) = need {
            self.load(at, need)?;
        }
        if let Err(why) = check_record(self.loaded(at), self.place) {
            self.torn = Some(Torn { at, bytes: self.bytes - at, why });
            return Ok(None);
        }
        let start = (at - self.window_at) as usize;
        let record = view_record(&self.window[start..]);
        if let Some(record) = &record {
            self.found_at = Some(at);
            self.place = self.place.behind(record);
        }
        Ok(record)
    }

    /// The record that was found last, until the walk is told to do something else.
    pub fn current(&self) -> Option<Record<'_>> {
        view_record(self.loaded(self.found_at?))
    }

    /// The first record at or behind byte `from` that holds by itself, wherever the walk is:
    /// after a torn place there may be records that reached the disk earlier than it.
    pub fn salvage(&mut self, from: u64) -> Result<Option<Place>, FileError> {
        self.found_at = None;
        let mut at = from.max(REPLICA_HEADER_BYTES).next_multiple_of(LINE_BYTES);
        while at.saturating_add(RECORD_HEAD_BYTES) <= self.bytes {
            self.load(at, RECORD_HEAD_BYTES)?;
            if let Some(place) = self.self_named(at) {
                if let Ok(need) = measure(self.loaded(at)) {
                    self.load(at, need)?;
                }
                if check_record(self.loaded(at), place).is_ok() {
                    return Ok(Some(place));
                }
            }
            at += LINE_BYTES;
        }
        Ok(None)
    }

    /// The place that a record's header at byte `at` claims, if it can be this file's.
    fn self_named(&self, at: u64) -> Option<Place> {
        let bytes = self.loaded(at).first_chunk::<64>()?;
        let header = RecordHeader::from_bytes(*bytes);
        let is_here = header.magic == RECORD_MAGIC && header.at == at;
        is_here.then_some(Place {
            at,
            index: header.index,
            ordinal: header.ordinal,
            ..Place::first(&self.header)
        })
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
            let read = self.file.read_at(&mut self.window[filled..], at + filled as u64);
            match read {
                // Somebody made the file shorter: what is not there reads as an end.
                Ok(0) => {
                    self.window.truncate(filled);
                    self.bytes = at + filled as u64;
                }
                Ok(read) => filled += read,
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
