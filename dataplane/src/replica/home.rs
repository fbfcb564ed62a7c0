//! The data directory that a broker took at its start, told from another one of that name.
//!
//! Under a mount point whose disk is gone lies an empty directory of another disk, and one that was
//! moved or removed may be made anew. What is kept there is not where anybody looks for it later.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use landfall_replica::FileError;
use landfall_replica::mend::create_directory;
use nix::libc::ESTALE;

/// The directory, and which one it was.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Home {
    /// The directory of that name as it is now, made if it is not there.
    pub fn take(path: &Path) -> io::Result<Self> {
        create_directory(path).map_err(io::Error::other)?;
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }

    /// Looks whether it still has its name.
    ///
    /// # Errors
    ///
    /// [`FileError::Io`]: with `ESTALE` where another has it, or none; else what the system says.
    pub fn look(&self) -> Result<(), FileError> {
        let is_gone = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        };
        match identity(&self.path) {
            Ok(found) if found == self.identity => Ok(()),
            Err(error) if !is_gone(&error) => Err(FileError::io("look at", &self.path)(error)),
            _ => Err(FileError::io(
                "keep copies in the directory that this broker took at its start, and that was \
                 removed, moved or unmounted since:",
                &self.path,
            )(io::Error::from_raw_os_error(ESTALE))),
        }
    }
}
