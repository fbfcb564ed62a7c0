//! The files of one replica: opened, rolled.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use landfall_layout::BrokerId;
use landfall_layout::order::FrontierLine;
use landfall_layout::replica::{
    HeaderError, LOG_UNKNOWN, NO_FILE, REPLICA_HEADER_BYTES, ReplicaHeader, mark_bytes,
};
use landfall_pool::clock::wall_ns;
use landfall_pool::disk::{Disk, Writing, sync_all, write_all};
use landfall_replica::mend::{
    Cut, create_directory, set_aside, settle_and_cut, sync_directory, write_header,
};
use landfall_replica::names::{list_source, replica_file, source_directory};
use landfall_replica::{Damage, FileError, FileSurvey};

/// The file that records are appended to.
pub struct Current {
    pub file: Arc<File>,
    pub path: PathBuf,
    first_index: u64,
    /// Byte behind its last whole record.
    pub at: u64,
    /// What its records carry.
    pub mark: [u8; 6],
}

/// The files of one replica.
pub struct Files {
    directory: PathBuf,
    /// What every file's header says, but for where it begins.
    template: ReplicaHeader,
    pub current: Option<Current>,
    /// Bytes after which a file is followed by another.
    file_bytes: u64,
    /// Entries that they have: batches and holes.
    pub ordinal: u64,
    /// A file that was begun, failed, and could not be removed again: nothing is in it.
    left: Option<PathBuf>,
}

/// What was there when a replica's files were opened.
#[derive(Debug)]
pub struct Opened {
    /// Log index below which they have everything.
    pub covers: u64,
    /// How far the log was ordered when the last of it was committed.
    pub ordered: Option<FrontierLine>,
    /// Bytes of the files, headers included.
    pub bytes: u64,
    /// What did not hold at the end of the last one, and is gone.
    pub cut: Option<Cut>,
    /// What does not hold in the last one, before records that do.
    pub damage: Vec<Damage>,
    /// What was wrong with the last one's header, which was written again.
    pub header_fault: Option<HeaderError>,
    /// The last one's header and first records are gone: it is written again once another one is
    /// behind it.
    pub is_beheaded: bool,
    /// Files behind it in which nothing held, and which are under other names now.
    pub aside: Vec<Aside>,
}

/// A file in which nothing held: neither its header nor a record.
#[derive(Debug)]
pub struct Aside {
    path: PathBuf,
    /// The name that it has now.
    now: PathBuf,
    bytes: u64,
    why: HeaderError,
}

impl Aside {
    /// Sets the file aside.
    fn set(path: PathBuf, why: HeaderError) -> Result<Self, FileError> {
        let metadata = path.metadata().map_err(FileError::io("look at", &path))?;
        let now = set_aside(&path)?;
        Ok(Self { path, now, bytes: metadata.len(), why })
    }
}

impl fmt::Display for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = self.now.file_name().unwrap_or_default().display();
        write!(
            f,
            "{}: nothing in it holds: it is set aside as {now}; what was in it is written again if \
             memory or another copy that can be read here has it ({})",
            self.path.display(),
            self.why
        )
    }
}

/// What a file's name says of it.
#[derive(Debug)]
pub enum Named {
    /// It is there.
    There,
    /// Another file is, or none: nobody will find it there, whatever is synced.
    Lost,
    /// The system did not say. It may be there again a moment later.
    Unknown(io::Error),
}

impl Current {
    /// Whether the file still has the name that it was begun under.
    pub fn named(&self) -> Named {
        let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let is_gone = |error: &io::Error| {
            matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        };
        match (self.file.metadata(), self.path.metadata()) {
            (Ok(open), Ok(named)) if same(&open, &named) => Named::There,
            (Ok(_), Ok(_)) => Named::Lost,
            (_, Err(error)) if is_gone(&error) => Named::Lost,
            (Err(error), _) | (_, Err(error)) => Named::Unknown(error),
        }
    }

    /// Reads again what does not hold, after some of it was written anew.
    pub fn damage(&self) -> Result<Vec<Damage>, FileError> {
        Ok(FileSurvey::take(&self.path)?.damage)
    }
}

impl Opened {
    /// Bytes that did not hold.
    pub fn damaged_bytes(&self) -> u64 {
        let tail = self.cut.as_ref().map(|cut| &cut.tail);
        let damaged: u64 = self.damage.iter().chain(tail).map(|damage| damage.bytes).sum();
        damaged + self.aside.iter().map(|aside| aside.bytes).sum::<u64>()
    }

    /// Sentences about what does not hold.
    pub fn faults(&self, files: &Files) -> Vec<String> {
        let mut faults: Vec<String> = self.aside.iter().map(ToString::to_string).collect();
        faults.extend(self.cut.iter().map(ToString::to_string));
        if let Some(current) = &files.current {
            let path = current.path.display();
            let say = |damage: &Damage| format!("{path}: {damage}");
            faults.extend(self.damage.iter().map(say));
            let again = |why: &HeaderError| format!("{path}: {why}; it was written again");
            faults.extend(self.header_fault.iter().map(again));
        }
        faults
    }
}

impl Files {
    /// Opens the files in `topic`'s directory: reads the last one as the disk has it, cuts off an
    /// end in which nothing holds, and goes on behind it. One in which nothing at all holds is set
    /// aside, and the one before it is the last.
    pub fn open(
        topic: &Path,
        template: ReplicaHeader,
        file_bytes: u64,
    ) -> Result<(Self, Opened), FileError> {
        let source = BrokerId::new(usize::from(template.source));
        let source = source.expect("a duty names a broker");
        let directory = source_directory(topic, source);
        create_directory(&directory)?;
        // Who began the last of them may have died before its name was made to stay.
        sync_directory(&directory)?;
        let mut listed = list_source(&directory, &mut Vec::new())?;
        let mut files =
            Self { directory, template, current: None, file_bytes, ordinal: 0, left: None };
        let mut opened = Opened {
            covers: 0,
            ordered: None,
            bytes: 0,
            cut: None,
            damage: Vec::new(),
            header_fault: None,
            is_beheaded: false,
            aside: Vec::new(),
        };
        // A file that was begun and never had a header is gone then, and the one before is last.
        while let Some((first_index, path)) = listed.pop() {
            let settled = match settle_and_cut(&path) {
                // What another version wrote holds.
                Err(FileError::Header { why, .. })
                    if !matches!(why, HeaderError::Version { .. }) =>
                {
                    opened.aside.push(Aside::set(path, why)?);
                    continue;
                }
                settled => settled?,
            };
            let Some((survey, cut)) = settled else { continue };
            files.check(&survey.header, &path)?;
            if survey.header_fault.is_some() {
                write_header(&path, &files.whole_header(&survey.header))?;
            }
            let file = OpenOptions::new().read(true).write(true).open(&path);
            let file = file.map_err(FileError::io("open", &path))?;
            files.ordinal = survey.end.ordinal;
            opened.covers = survey.end.index;
            opened.ordered = survey.ordered;
            opened.cut = cut;
            opened.damage = survey.damage;
            opened.header_fault = survey.header_fault;
            opened.is_beheaded = survey.header.first_index != first_index;
            opened.bytes = survey.bytes;
            let (at, mark) = (survey.end.at, survey.end.mark);
            files.current = Some(Current { file: file.into(), path, first_index, at, mark });
            break;
        }
        for (_, path) in listed {
            let metadata = path.metadata().map_err(FileError::io("look at", &path))?;
            opened.bytes += metadata.len();
        }
        Ok((files, opened))
    }

    fn check(&self, header: &ReplicaHeader, path: &Path) -> Result<(), FileError> {
        let of = |header: &ReplicaHeader| (header.created_ns, header.source);
        let same_log = [self.template.log, LOG_UNKNOWN].contains(&header.log);
        if of(header) == of(&self.template) && same_log && header.name() == self.template.name() {
            return Ok(());
        }
        Err(FileError::Topic {
            path: path.to_owned(),
            why: format!(
                "it is about broker {} in log {} of topic {} of {}, and lies where those of \
                 broker {} in log {} of topic {} of {} belong; move it away",
                header.source,
                header.log,
                header.name(),
                header.created_ns,
                self.template.source,
                self.template.log,
                self.template.name(),
                self.template.created_ns
            ),
        })
    }

    /// What a file's header said that does not hold any more: from its copy, or from the file's
    /// name and records and what is known of the topic.
    fn whole_header(&self, read: &ReplicaHeader) -> ReplicaHeader {
        if read.opened_ns != 0 {
            return *read;
        }
        ReplicaHeader {
            first_index: read.first_index,
            first_ordinal: read.first_ordinal,
            previous_index: read.previous_index,
            mark: read.mark,
            opened_ns: wall_ns(),
            ..self.template
        }
    }

    /// What every file's header says, but for where it begins.
    pub fn template(&self) -> &ReplicaHeader {
        &self.template
    }

    /// First index of the last of them.
    pub fn last(&self) -> Option<u64> {
        self.current.as_ref().map(|current| current.first_index)
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether the next group belongs in another file.
    pub fn is_full(&self) -> bool {
        self.current.as_ref().is_none_or(|current| current.at >= self.file_bytes)
    }

    /// Begins the next file, which has everything from `first_index` on. The one before is on
    /// stable storage: the caller synced it. `anew`: something in between is missing.
    pub fn roll(
        &mut self,
        disk: &mut dyn Disk,
        first_index: u64,
        anew: bool,
        now_ns: u64,
    ) -> Result<(), FileError> {
        let before = self.current.as_ref().filter(|_| !anew);
        let mut header = self.template;
        header.first_index = first_index;
        header.first_ordinal = self.ordinal;
        header.previous_index = before.map_or(NO_FILE, |current| current.first_index);
        header.opened_ns = now_ns;
        header.mark = new_mark()?;
        let path = replica_file(&self.directory, first_index);
        if let Some(left) = &self.left {
            match std::fs::remove_file(left) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(FileError::io("remove", left)(error));
                }
                _ => self.left = None,
            }
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(FileError::io("create", &path))?;
        let begun = begin(disk, &file, &path, &header);
        if let Err(error) = begun.and_then(|()| sync_directory(&self.directory)) {
            // Nothing is in it, and the next try makes it anew.
            if std::fs::remove_file(&path).is_err() {
                self.left = Some(path);
            }
            return Err(error);
        }
        let at = REPLICA_HEADER_BYTES;
        let mark = mark_bytes(header.mark);
        self.current = Some(Current { file: file.into(), path, first_index, at, mark });
        Ok(())
    }
}

/// A file's mark: nobody can guess it. A time would be guessed.
pub fn new_mark() -> Result<u64, FileError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 6];
    let mut source = File::open(path).map_err(FileError::io("open", path))?;
    source.read_exact(&mut bytes).map_err(FileError::io("read", path))?;
    Ok(bytes.iter().fold(0, |mark, byte| mark << 8 | u64::from(*byte)))
}

fn begin(
    disk: &mut dyn Disk,
    file: &File,
    path: &Path,
    header: &ReplicaHeader,
) -> Result<(), FileError> {
    let page = header.seal().page();
    let mut writings = [Writing::new(file, 0, vec![IoSlice::new(&page)])];
    write_all(disk, &mut writings);
    let [writing] = writings;
    writing.result.map_err(FileError::io("write", path))?;
    let synced = sync_all(disk, &[file]).pop().unwrap_or(Ok(()));
    synced.map_err(FileError::io("sync", path))
}
