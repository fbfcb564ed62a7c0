//! Keeping everybody else away from a pool while it is mended.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use landfall_layout::BrokerId;
use landfall_pool::Pool;
use landfall_pool::bell::{Bell, Role};
use landfall_replica::FileError;
use nix::sys::stat::{major, minor};

use crate::pulse::{BEAT, Pulse};

/// Who has a pool, so that it cannot be mended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Held {
    /// Control has the lock on the file.
    Locked,
    /// A process answers to the pool's bells.
    Rung {
        /// Which.
        role: Role,
    },
    /// A heartbeat moves: somebody is at work, maybe on another host.
    Beats,
    /// A process of this host has it mapped.
    Mapped {
        /// The process.
        pid: u32,
    },
    /// It cannot be known.
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("control has its lock; stop it first"),
            Self::Rung { role: Role::Broker(id) } => {
                write!(f, "its broker {id} runs; stop it first")
            }
            Self::Rung { .. } => f.write_str("its control runs; stop it first"),
            Self::Beats => f.write_str(
                "a heartbeat in it moves: somebody is at work on it, maybe on another host; stop \
                 it first",
            ),
            Self::Mapped { pid } => write!(f, "process {pid} has it mapped; stop it first"),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for Held {}

/// Nobody else starts on the pool while this is there.
#[derive(Debug)]
pub struct Hold {
    _lock: File,
    _bells: Vec<Bell>,
}

/// Takes everything by which the processes of a pool know each other; refuses while one has it.
pub fn hold(pool: &Pool, path: &Path) -> Result<Hold, Held> {
    let io = |what| move |source| Held::Io { what, source };
    let file = File::options().read(true).write(true).open(path).map_err(io("open the pool"))?;
    let identity = file.metadata().map_err(io("look at the pool"))?;
    // The lock that control takes.
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => Held::Locked,
        TryLockError::Error(source) => Held::Io { what: "lock the pool", source },
    })?;
    let mut bells = Vec::new();
    let brokers = BrokerId::all().map(Role::Broker);
    for role in [Role::Keeper, Role::Sequencer].into_iter().chain(brokers) {
        bells.push(Bell::bind(pool, role).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Held::Rung { role },
            _ => Held::Io { what: "take the name of a bell", source },
        })?);
    }
    let before = Pulse::take(pool);
    std::thread::sleep(BEAT);
    if Pulse::take(pool) != before {
        return Err(Held::Beats);
    }
    if identity.file_type().is_file()
        && let Some(pid) = who_maps(identity.dev(), identity.ino())
    {
        return Err(Held::Mapped { pid });
    }
    Ok(Hold { _lock: file, _bells: bells })
}

/// A process of this host, other than this one, that has the file mapped. Those of other users are
/// only seen by root; they have no right to write a pool of this user's.
fn who_maps(device: u64, inode: u64) -> Option<u32> {
    let device = format!("{:02x}:{:02x}", major(device), minor(device));
    let inode = inode.to_string();
    let maps_it = |pid: &u32| {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        maps.lines().any(|line| {
            // address, rights, offset, device, inode, path (proc_pid_maps(5)).
            let mut fields = line.split_ascii_whitespace().skip(3);
            fields.next() == Some(&device) && fields.next() == Some(&inode)
        })
    };
    std::fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .find(maps_it)
}

/// Keeps brokers away from a data directory; refuses while one keeps its replicas there.
pub fn hold_directory(directory: &Path) -> Result<File, FileError> {
    let file = File::open(directory).map_err(FileError::io("open", directory))?;
    file.try_lock().map_err(|error| {
        let source = match error {
            TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::WouldBlock,
                "a broker keeps its replicas there; stop it first",
            ),
            TryLockError::Error(error) => error,
        };
        FileError::io("lock", directory)(source)
    })?;
    Ok(file)
}
