//! What can go wrong with a file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use landfall_layout::replica::HeaderError;

use crate::short;
use crate::topic::SCHEMA_VERSION;

/// The system's number for what may be tried again.
const EAGAIN: u32 = 11;

/// A file or directory that could not be used, with its path.
#[derive(Debug)]
pub enum FileError {
    /// The system refused something.
    Io {
        /// What was being done.
        call: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// The lock of a topic's directory is another process's.
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It is no replica file.
    Header {
        /// The file.
        path: PathBuf,
        /// What its header has wrong.
        why: HeaderError,
    },
    /// `topic.json` is of a later program.
    Newer {
        /// The file.
        path: PathBuf,
        /// Version that it has.
        version: u32,
    },
    /// `topic.json` cannot be understood.
    Topic {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl FileError {
    /// For `map_err`: names the call and the path.
    pub fn io(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| {
            short::note(call, &path, &source);
            Self::Io { call, path, source }
        }
    }

    /// The system's error number; 0 where it was not the system's.
    pub fn errno(&self) -> u32 {
        match self {
            Self::Io { source, .. } => source.raw_os_error().unwrap_or_default().unsigned_abs(),
            Self::Locked { .. } => EAGAIN,
            Self::Header { .. } | Self::Newer { .. } | Self::Topic { .. } => 0,
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { call, path, source } => write!(f, "{call} {}: {source}", path.display()),
            Self::Locked { path } => write!(
                f,
                "{}: another process keeps the lock of this directory, as one does that is stopped \
                 (lslocks shows which); let it go on, or end it",
                path.display()
            ),
            Self::Header { path, why } => write!(f, "{}: {why}", path.display()),
            Self::Newer { path, version } => write!(
                f,
                "{}: it has schema version {version}; this program knows {SCHEMA_VERSION}",
                path.display()
            ),
            Self::Topic { path, why } => write!(f, "{}: {why}", path.display()),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Header { why, .. } => Some(why),
            Self::Locked { .. } | Self::Newer { .. } | Self::Topic { .. } => None,
        }
    }
}
