//! Keeping data directories from controls of other pools.
//!
//! Brokers lock their directories, each its own, a moment after control has brought topics back
//! from there. Between the two, and wherever no broker runs yet, a second system on the same
//! directories would bring the same topics back and serve them too.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use landfall_replica::FileError;
use landfall_replica::ask;
use landfall_replica::owner::{Held, hold};

use super::error::ColdError;
use super::{LOOK_EVERY, LOOKS};
use crate::directories::say_waiting;

/// Takes data directories for controls of the pool named `pool`, as long as the files that are
/// returned are open. What could not be taken, as on a full disk, is a sentence; a directory is
/// waited for until it was silent for `bound`.
///
/// # Errors
///
/// [`ColdError::Taken`]: a control of another pool has one. It may be ending, so this waits for a
/// second.
pub fn hold_all(
    directories: &[PathBuf],
    pool: &str,
    bound: Duration,
) -> Result<(Vec<File>, Vec<String>), ColdError> {
    let (mut held, mut notes) = (Vec::new(), Vec::new());
    for directory in directories {
        match hold_one(directory, pool, bound) {
            Ok(Some(file)) => held.push(file),
            Ok(None) => return Err(ColdError::Taken { path: directory.clone() }),
            Err(error) => notes.push(format!(
                "{error}; nothing keeps a control of another pool from bringing topics back from \
                 there meanwhile"
            )),
        }
    }
    Ok((held, notes))
}

/// None: another pool's control has it.
fn hold_one(directory: &Path, pool: &str, bound: Duration) -> Result<Option<File>, FileError> {
    for _ in 0..LOOKS {
        let (path, pool) = (directory.to_owned(), pool.to_owned());
        let asked = ask::begin_within(directory, bound, move || hold(&path, &pool));
        let held = asked.wait_and_tell(say_waiting)?;
        match held.map_err(|source| FileError::Io {
            call: "lock",
            path: directory.to_owned(),
            source,
        })? {
            Held::Ours(file) => return Ok(Some(file)),
            Held::Anothers | Held::Busy => std::thread::sleep(LOOK_EVERY),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use landfall_replica::ask::SILENT;

    use super::*;

    #[test]
    fn a_second_system_on_the_same_directories_is_refused_until_the_first_is_gone() {
        let name = format!("landfall-hold-{}", std::process::id());
        let data = vec![std::env::temp_dir().join(name)];
        std::fs::create_dir_all(&data[0]).unwrap();
        let (first, notes) = hold_all(&data, "one", SILENT).unwrap();
        assert_eq!((first.len(), notes.len()), (1, 0));
        let standby = hold_all(&data, "one", SILENT).unwrap();
        let error = hold_all(&data, "two", SILENT).unwrap_err();
        assert!(matches!(error, ColdError::Taken { .. }), "{error}");
        drop((first, standby));
        let missing = [data.clone(), vec![data[0].join("none")]].concat();
        let (held, notes) = hold_all(&missing, "two", SILENT).unwrap();
        assert_eq!((held.len(), notes.len()), (1, 1), "{notes:?}");
        assert!(notes[0].contains("none") && notes[0].contains("os error 2"), "{notes:?}");
        std::fs::remove_dir_all(&data[0]).unwrap();
    }
}
