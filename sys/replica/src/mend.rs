//! Ends that a crash left, headers that do not hold, and making what was created stay.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use landfall_layout::limits::LINE_BYTES;
use landfall_layout::replica::{HeaderError, REPLICA_HEADER_BYTES, ReplicaHeader};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::damage::Damage;
use crate::error::FileError;
use crate::names::aside_file;
use crate::survey::FileSurvey;
use crate::walk::Walk;

/// What was done to the end of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub path: PathBuf,
    /// What was cut off it: no record that holds was in it.
    pub tail: Damage,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; they were cut off", self.path.display(), self.tail)
    }
}

/// Makes the names that were created in a directory stay there.
pub fn sync_directory(path: &Path) -> Result<(), FileError> {
    let directory = File::open(path).map_err(FileError::io("open", path))?;
    directory.sync_all().map_err(FileError::io("sync", path))
}

/// Creates a directory and those above it, and makes their names stay: also the name of one that
/// is there, since who created it may have died before it was made to stay.
pub fn create_directory(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent.is_some() => {
            create_directory(parent.unwrap_or(path))?;
            return create_directory(path);
        }
        Err(_) if path.is_dir() => {}
        Err(error) => return Err(FileError::io("create", path)(error)),
    }
    sync_directory(parent.unwrap_or(Path::new(".")))
}

/// Puts what the system still holds of a file on stable storage, and forgets the copies that it
/// has in memory: what is read afterwards comes from the disk. After a sync that failed, a copy
/// in memory may look written and not be.
pub fn settle(file: &File, path: &Path) -> Result<(), FileError> {
    file.sync_all().map_err(FileError::io("sync", path))?;
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .map_err(|error| FileError::io("forget the cached pages of", path)(error.into()))
}

/// Reads a source's last file as the disk has it, and cuts off an end in which no record holds.
/// What does not hold before one that does stays as it is. Records may be appended at the survey's
/// `end.at` then, and all of the file is on stable storage.
///
/// A file that ends inside its header never had a record, and is removed: `None`.
pub fn settle_and_cut(path: &Path) -> Result<Option<(FileSurvey, Option<Cut>)>, FileError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(FileError::io("open", path))?;
    settle(&file, path)?;
    let clone = file.try_clone().map_err(FileError::io("open", path))?;
    let mut walk = match Walk::of(clone, path) {
        Ok(walk) => walk,
        Err(FileError::Header { why, .. }) if is_creation(bytes_of(&file), &why) => {
            fs::remove_file(path).map_err(FileError::io("remove", path))?;
            if let Some(directory) = path.parent() {
                sync_directory(directory)?;
            }
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut survey = FileSurvey::of(&mut walk, path)?;
    let Some(tail) = survey.tail.take() else { return Ok(Some((survey, None))) };
    // A record that holds by itself stays too, though it does not fit behind those before it.
    if walk.find(tail.at, |_| true)?.is_some() {
        survey.end.at = survey.bytes.next_multiple_of(LINE_BYTES);
        survey.damage.push(tail);
        return Ok(Some((survey, None)));
    }
    file.set_len(tail.at).map_err(FileError::io("cut", path))?;
    file.sync_all().map_err(FileError::io("sync", path))?;
    survey.bytes = tail.at;
    Ok(Some((survey, Some(Cut { path: path.to_owned(), tail }))))
}

/// Gives a source's last file in which nothing holds another name, so that the one before it is the
/// last: whoever wants to look at it has all of its bytes. The name that it has now.
pub fn set_aside(path: &Path) -> Result<PathBuf, FileError> {
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    let mut names = (0..).map(|number| aside_file(path, number));
    let aside = names.find(|name| !is_there(name)).unwrap_or_else(|| aside_file(path, 0));
    fs::rename(path, &aside).map_err(FileError::io("rename", path))?;
    if let Some(directory) = path.parent() {
        sync_directory(directory)?;
    }
    Ok(aside)
}

/// Writes a file's header again, in both its places, and makes it stay. Records are not touched.
pub fn write_header(path: &Path, header: &ReplicaHeader) -> Result<(), FileError> {
    let file = OpenOptions::new().write(true).open(path).map_err(FileError::io("open", path))?;
    let page = header.seal().page();
    file.write_all_at(&page, 0).map_err(FileError::io("write", path))?;
    file.sync_all().map_err(FileError::io("sync", path))
}

/// Whether the file's creation never got as far as its first record: it is short, or its header
/// is still nothing but zeros.
pub fn is_unfinished(path: &Path) -> Result<bool, FileError> {
    match Walk::open(path) {
        Ok(_) => Ok(false),
        Err(FileError::Header { why, .. }) => {
            let metadata = fs::metadata(path).map_err(FileError::io("look at", path))?;
            Ok(is_creation(metadata.len(), &why))
        }
        Err(error) => Err(error),
    }
}

/// Bytes of an open file; more than any has, where the system does not say.
fn bytes_of(file: &File) -> u64 {
    file.metadata().map_or(u64::MAX, |metadata| metadata.len())
}

/// The same of a file of so many bytes, with that wrong in its header.
fn is_creation(bytes: u64, why: &HeaderError) -> bool {
    match why {
        HeaderError::Short { .. } => bytes < REPLICA_HEADER_BYTES,
        HeaderError::Magic { found: 0 } => bytes <= REPLICA_HEADER_BYTES,
        _ => false,
    }
}
