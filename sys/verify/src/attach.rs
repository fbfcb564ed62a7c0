//! A pool to look at: where it lies, or a copy in memory of one that lies on a disk.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use landfall_pool::Pool;
use landfall_pool::map::{MapError, memfd};
use landfall_pool::pool::PoolError;

/// Why a pool could not be looked at.
#[derive(Debug)]
#[non_exhaustive]
pub enum Unchecked {
    /// There is no pool that this program knows.
    Pool(PoolError),
    /// A pool on a disk could not be copied into memory.
    Copy {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(error) => error.fmt(f),
            Self::Copy { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for Unchecked {}

/// Attaches to a pool for reading. One that was copied to a disk is copied back into memory.
pub fn read_only(path: &Path) -> Result<Pool, Unchecked> {
    match Pool::attach_read_only(path) {
        Err(PoolError::Map(MapError::DiskFile { .. })) => copied(path),
        other => other.map_err(Unchecked::Pool),
    }
}

/// Bytes that are copied at once.
const PIECE_BYTES: usize = 1 << 20;

fn copied(path: &Path) -> Result<Pool, Unchecked> {
    let shown = path.display();
    let failed = |what: String| move |source| Unchecked::Copy { what, source };
    let from = File::open(path).map_err(failed(format!("open {shown}")))?;
    let length = from.metadata().map_err(failed(format!("look at {shown}")))?.len();
    // Pages that are all zero stay unwritten, so a pool takes as much memory as it has in use.
    let bytes = length.next_multiple_of(4096);
    let memory =
        memfd("landfall-verify", bytes).map_err(|error| Unchecked::Pool(PoolError::Map(error)))?;
    let memory = File::from(memory);
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let read = from.read_at(&mut piece, at).map_err(failed(format!("read {shown}")))?;
        if read == 0 {
            break;
        }
        if piece[..read].iter().any(|byte| *byte != 0) {
            let what = format!("copy {read} bytes at {at} of {shown} into memory");
            memory.write_all_at(&piece[..read], at).map_err(failed(what))?;
        }
        at += read as u64;
    }
    memory.set_len(length).map_err(failed(format!("size the copy of {shown}")))?;
    Pool::attach_file(memory, path, false).map_err(Unchecked::Pool)
}
