//! The lock of a topic's directory, under which what it says is changed.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use crate::error::FileError;

/// Who changes a small file is done in a moment.
const LOOKS: u32 = 50;
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Takes the lock of a topic's directory: both who keeps the replicas and control do so. It is
/// given back when the directory is closed, however that comes.
///
/// # Errors
///
/// [`FileError::Locked`]: somebody else has had it for 100 ms, as a process does that was stopped
/// while it wrote. To wait for it would be to be stopped too.
pub(crate) fn lock(topic: &Path) -> Result<File, FileError> {
    let directory = File::open(topic).map_err(FileError::io("open", topic))?;
    for _ in 0..LOOKS {
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_EVERY),
            Err(TryLockError::Error(error)) => return Err(FileError::io("lock", topic)(error)),
        }
    }
    Err(FileError::Locked { path: topic.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_somebody_keeps_is_an_error_and_one_that_is_given_back_is_taken() {
        let topic = std::env::temp_dir().join(format!("landfall-own-{}", std::process::id()));
        std::fs::create_dir_all(&topic).unwrap();
        let kept = File::open(&topic).unwrap();
        kept.lock_shared().unwrap();
        let error = lock(&topic).unwrap_err();
        assert!(matches!(error, FileError::Locked { .. }), "{error}");
        drop(kept);
        lock(&topic).unwrap();
        std::fs::remove_dir_all(&topic).unwrap();
    }
}
