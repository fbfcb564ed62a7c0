//! Cutting a torn tail, making what was created stay.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use landfall_layout::replica::{HeaderError, REPLICA_HEADER_BYTES};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::error::FileError;
use crate::names::cut_file;
use crate::survey::FileSurvey;
use crate::walk::{Torn, Walk};

/// What was done to the end of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub path: PathBuf,
    /// Where and why.
    pub torn: Torn,
    /// Where what was cut off lies now, because some of it may still be of use.
    pub kept: Option<PathBuf>,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; they were cut off", self.path.display(), self.torn)?;
        match &self.kept {
            Some(kept) => write!(f, " and kept in {}, for records that hold", kept.display()),
            None => Ok(()),
        }
    }
}

/// Makes the names that were created in a directory stay there.
pub fn sync_directory(path: &Path) -> Result<(), FileError> {
    let directory = File::open(path).map_err(FileError::io("open", path))?;
    directory.sync_all().map_err(FileError::io("sync", path))
}

/// Creates a directory and those above it, and makes their names stay.
pub fn create_directory(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_directory(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(FileError::io("create", path)(error));
        }
        _ => {}
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

/// Reads a source's last file as the disk has it, and cuts off what does not hold. The file ends
/// with a whole record then, and is on stable storage.
///
/// A file that ends inside its header never had a record, and is removed: `None`.
pub fn settle_and_cut(path: &Path) -> Result<Option<(FileSurvey, Option<Cut>)>, FileError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(FileError::io("open", path))?;
    settle(&file, path)?;
    let clone = file.try_clone().map_err(FileError::io("open", path))?;
    let mut walk = match Walk::of(clone, path) {
        Ok(walk) => walk,
        Err(FileError::Header { why, .. }) if is_unfinished(&file, &why) => {
            fs::remove_file(path).map_err(FileError::io("remove", path))?;
            if let Some(directory) = path.parent() {
                sync_directory(directory)?;
            }
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut survey = FileSurvey::of(&mut walk, path)?;
    let Some(torn) = survey.torn.take() else { return Ok(Some((survey, None))) };
    let kept = match survey.salvage.take() {
        Some(_) => Some(keep(&file, path, torn)?),
        None => None,
    };
    file.set_len(torn.at).map_err(FileError::io("cut", path))?;
    file.sync_all().map_err(FileError::io("sync", path))?;
    survey.bytes = torn.at;
    Ok(Some((survey, Some(Cut { path: path.to_owned(), torn, kept }))))
}

/// Whether the file's creation never got as far as its first record: it is short, or its header
/// is still nothing but zeros.
fn is_unfinished(file: &File, why: &HeaderError) -> bool {
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    match why {
        HeaderError::Short { .. } => true,
        HeaderError::Magic { found: 0 } => bytes <= REPLICA_HEADER_BYTES,
        _ => false,
    }
}

/// Copies what is about to be cut off into a file beside it.
fn keep(file: &File, path: &Path, torn: Torn) -> Result<PathBuf, FileError> {
    let kept = cut_file(path, torn.at);
    let mut from = file.try_clone().map_err(FileError::io("open", path))?;
    from.seek(SeekFrom::Start(torn.at)).map_err(FileError::io("seek in", path))?;
    let mut into = File::create(&kept).map_err(FileError::io("create", &kept))?;
    io::copy(&mut from.take(torn.bytes), &mut into).map_err(FileError::io("write", &kept))?;
    into.sync_all().map_err(FileError::io("sync", &kept))?;
    if let Some(directory) = kept.parent() {
        sync_directory(directory)?;
    }
    Ok(kept)
}
