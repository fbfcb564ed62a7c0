//! Whose a data directory is now: the lock of the broker that keeps replicas there, that of the
//! controls which bring topics back from there, and their pool.
//!
//! The kernel gives a lock back with the process. The name says to whoever finds the directory
//! locked whether that is by its own system, where a broker may well be there before control.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use landfall_pool::process::holder;

/// The file in a data directory that names the pool of the broker which has the directory, or had
/// it last. Read only where the directory is locked.
pub const OWNER_FILE: &str = ".pool";

/// Takes a data directory for a broker of the pool named `pool`, for as long as the file that is
/// returned is open.
///
/// # Errors
///
/// [`io::ErrorKind::AddrInUse`], with the path and what to do, where another process has it. A name
/// that cannot be written, as on a full disk, is none: the directory is then nobody's by name.
pub fn take(directory: &Path, pool: &str) -> io::Result<File> {
    let lock = File::open(directory)?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "{}: another broker, of this system or another, keeps its replicas there; give \
                 each its own directory, or stop that one",
                directory.display()
            ),
        ),
        TryLockError::Error(error) => error,
    })?;
    let name = directory.join(OWNER_FILE);
    if fs::write(&name, pool).is_err() {
        // A disk without room is to be read from and waited for, not to be stayed away from. An
        // old name would be a wrong one; without one, nobody takes the directory for its own.
        match fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(lock)
}

/// Whether a process that is not of the pool named `pool` has a data directory now.
///
/// # Errors
///
/// The system's, where that cannot be found out.
pub fn is_anothers(directory: &Path, pool: &str) -> io::Result<bool> {
    match File::open(directory)?.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => {
            let owner = fs::read_to_string(directory.join(OWNER_FILE)).unwrap_or_default();
            Ok(owner != pool)
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The file in a data directory that the controls of one pool lock together, and which names it.
pub const SYSTEM_FILE: &str = ".system";

/// What became of an attempt to [`hold`] a data directory.
#[derive(Debug)]
pub enum Held {
    /// It is this pool's, for as long as the file is open.
    Ours(File),
    /// A control of another pool has it.
    Anothers,
    /// Somebody is just taking it: ask again in a moment.
    Busy,
}

/// Takes a data directory for the controls of the pool named `pool`: several of one pool may have
/// it, and none of another. A broker's own lock is another one, and says nothing of control.
///
/// # Errors
///
/// The system's, as on a full disk where the file is not there yet.
pub fn hold(directory: &Path, pool: &str) -> io::Result<Held> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false);
    let file = file.open(directory.join(SYSTEM_FILE))?;
    match file.try_lock() {
        // Nobody has it. Its name is there before the lock is shared: who comes then reads it.
        Ok(()) => {
            file.set_len(0)?;
            file.write_all_at(pool.as_bytes(), 0)?;
        }
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // flock(2): a lock is not changed in one step, so somebody else may have taken it in between.
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Held::Busy),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(match fs::read_to_string(directory.join(SYSTEM_FILE))? == pool {
        true => Held::Ours(file),
        false => Held::Anothers,
    })
}

/// The process that is just taking the data directory, by its number, as far as the system's table
/// of locks says it.
pub fn taker(directory: &Path) -> Option<u32> {
    holder(&directory.join(SYSTEM_FILE)).map(|holder| holder.pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_of_one_pool_hold_a_directory_together_and_those_of_two_do_not() {
        let name = format!("landfall-held-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let ours = |pool| matches!(hold(&directory, pool).unwrap(), Held::Ours(_));
        let first = hold(&directory, "one").unwrap();
        let second = hold(&directory, "one").unwrap();
        assert!(matches!((&first, &second), (Held::Ours(_), Held::Ours(_))));
        assert!(matches!(hold(&directory, "two").unwrap(), Held::Anothers));
        drop(first);
        assert!(!ours("two"), "one of them is left");
        drop(second);
        // A broker's lock is another one.
        let _taken = take(&directory, "one").unwrap();
        assert!(ours("two") && ours("one"));
        let writes = File::open(directory.join(SYSTEM_FILE)).unwrap();
        writes.lock().unwrap();
        assert!(matches!(hold(&directory, "one").unwrap(), Held::Busy));
        assert_eq!(taker(&directory), Some(std::process::id()));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_directory_is_anothers_while_a_process_of_another_pool_has_it() {
        let name = format!("landfall-owner-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        assert!(!is_anothers(&directory, "one").unwrap(), "nobody has it");
        let taken = take(&directory, "one").unwrap();
        assert!(!is_anothers(&directory, "one").unwrap(), "a broker was there before its control");
        assert!(is_anothers(&directory, "two").unwrap());
        let again = take(&directory, "two").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        drop(taken);
        assert!(!is_anothers(&directory, "two").unwrap());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_directory_is_taken_though_its_disk_has_no_room_for_the_name() {
        let name = format!("landfall-owner-full-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        // What is written there finds no room, as on a full disk.
        std::os::unix::fs::symlink("/dev/full", directory.join(OWNER_FILE)).unwrap();
        let taken = take(&directory, "one").unwrap();
        assert!(is_anothers(&directory, "one").unwrap(), "it has no name");
        drop(taken);
        assert!(!is_anothers(&directory, "one").unwrap());
        let _taken = take(&directory, "one").unwrap();
        assert!(!is_anothers(&directory, "one").unwrap(), "there is room again");
        fs::remove_dir_all(&directory).unwrap();
    }
}
