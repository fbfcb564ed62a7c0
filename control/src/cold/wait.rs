//! Waiting for the lock of a topic's directory.

use std::time::Duration;

use landfall_pool::clock::boot_ns;
use landfall_pool::stderr;
use landfall_replica::FileError;

/// How often it is said that this process waits, nanoseconds.
const SAY_EVERY_NS: u64 = 10_000_000_000;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Does what needs the lock of a topic's directory, as soon as that is free. Whoever has it keeps
/// it for as long as it takes to write a small file, unless it is stopped: to go on without what is
/// written there could use positions twice, so this waits, and says for what.
pub fn for_lock<T>(mut attempt: impl FnMut() -> Result<T, FileError>) -> Result<T, FileError> {
    let mut say_at_ns = 0;
    loop {
        match attempt() {
            Err(error @ FileError::Locked { .. }) => {
                if boot_ns() >= say_at_ns {
                    say_at_ns = boot_ns() + SAY_EVERY_NS;
                    stderr::note(format_args!("control: waiting: {error}"));
                }
                std::thread::sleep(LOOK_EVERY);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_lock_is_waited_for_and_nothing_else_is() {
        let mut looks = 0;
        let outcome = for_lock(|| {
            looks += 1;
            match looks {
                1 | 2 => Err(FileError::Locked { path: PathBuf::from("topic") }),
                _ => Ok(looks),
            }
        });
        assert_eq!(outcome.unwrap(), 3);
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = for_lock(|| {
            let path = PathBuf::from("topic");
            Err::<(), _>(FileError::Io { call: "open", path, source: missing() })
        });
        assert!(matches!(error, Err(FileError::Io { .. })));
    }
}
