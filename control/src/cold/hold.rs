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
use landfall_replica::owner::{Held, hold, taker};

use super::error::ColdError;
use super::{LOOK_EVERY, LOOKS};
use crate::directories::say_waiting;
use landfall_pool::stderr;

/// Looks after which it is said again for whom this process waits: 10 s.
const SAY_LOOKS: u32 = 10 * LOOKS;

/// Takes data directories for controls of the pool named `pool`, as long as the files that are
/// returned are open. What could not be taken, as on a full disk, is a sentence; a directory is
/// waited for until it was silent for `bound`. One that somebody is just taking is waited for as
/// long as that lasts where this control is to read it first: `tell` hears for whom. It may be a
/// control of this pool that is stopped.
///
/// # Errors
///
/// [`ColdError::Taken`]: a control of another pool has one. It may be ending, so this waits for a
/// second. [`ColdError::Busy`]: the same without `reads`, where somebody is just taking one.
pub fn hold_all(
    directories: &[PathBuf],
    pool: &str,
    (bound, reads): (Duration, bool),
    mut tell: impl FnMut(&ColdError),
) -> Result<(Vec<File>, Vec<String>), ColdError> {
    let (mut held, mut notes) = (Vec::new(), Vec::new());
    for directory in directories {
        let mut looks = 0;
        loop {
            let path = || directory.clone();
            let refused = match hold_once(directory, pool, bound) {
                Ok(Held::Ours(file)) => {
                    held.push(file);
                    break;
                }
                Ok(Held::Anothers) => ColdError::Taken { path: path() },
                Ok(Held::Busy) => ColdError::Busy { path: path(), process: taker(directory) },
                Err(error) => {
                    notes.push(format!(
                        "{error}; nothing keeps a control of another pool from bringing topics \
                         back from there meanwhile"
                    ));
                    break;
                }
            };
            looks += 1;
            let waits = reads && matches!(refused, ColdError::Busy { .. });
            if looks >= LOOKS && !waits {
                return Err(refused);
            }
            if waits && looks % SAY_LOOKS == LOOKS {
                tell(&refused);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
    Ok((held, notes))
}

/// Tells people for whom a control waits.
pub fn say_busy(busy: &ColdError) {
    stderr::note(format_args!("control: waiting: {busy}"));
}

fn hold_once(directory: &Path, pool: &str, bound: Duration) -> Result<Held, FileError> {
    let (path, pool) = (directory.to_owned(), pool.to_owned());
    let asked = ask::begin_within(directory, bound, move || hold(&path, &pool));
    let held = asked.wait_and_tell(say_waiting)?;
    held.map_err(FileError::io("lock", directory))
}

#[cfg(test)]
mod tests {
    use landfall_replica::ask::SILENT;
    use landfall_replica::owner::SYSTEM_FILE;

    use super::*;

    #[test]
    fn a_second_system_on_the_same_directories_is_refused_until_the_first_is_gone() {
        let name = format!("landfall-hold-{}", std::process::id());
        let data = vec![std::env::temp_dir().join(name)];
        std::fs::create_dir_all(&data[0]).unwrap();
        let (first, notes) = hold_all(&data, "one", (SILENT, true), |_| {}).unwrap();
        assert_eq!((first.len(), notes.len()), (1, 0));
        let standby = hold_all(&data, "one", (SILENT, true), |_| {}).unwrap();
        let error = hold_all(&data, "two", (SILENT, true), |_| {}).unwrap_err();
        assert!(matches!(error, ColdError::Taken { .. }), "{error}");
        drop((first, standby));
        let missing = [data.clone(), vec![data[0].join("none")]].concat();
        let (held, notes) = hold_all(&missing, "two", (SILENT, true), |_| {}).unwrap();
        assert_eq!((held.len(), notes.len()), (1, 1), "{notes:?}");
        assert!(notes[0].contains("none") && notes[0].contains("os error 2"), "{notes:?}");
        std::fs::remove_dir_all(&data[0]).unwrap();
    }

    /// As a control does that is stopped between the two locks that it takes: it may be one of this
    /// very pool, which the next one deposed.
    #[test]
    fn one_that_is_just_taking_a_directory_is_waited_for_and_named() {
        let name = format!("landfall-busy-{}", std::process::id());
        let data = vec![std::env::temp_dir().join(name)];
        std::fs::create_dir_all(&data[0]).unwrap();
        let stopped = File::create(data[0].join(SYSTEM_FILE)).unwrap();
        stopped.lock().unwrap();
        let mut stopped = Some(stopped);
        let takes_over = hold_all(&data, "one", (SILENT, false), |_| panic!("it does not wait"));
        let busy = takes_over.unwrap_err().to_string();
        let process = format!("process {}", std::process::id());
        assert!(busy.contains(&process) && busy.contains("is stopped"), "{busy}");
        let mut told = Vec::new();
        let (held, notes) = hold_all(&data, "one", (SILENT, true), |busy| {
            told.push(busy.to_string());
            drop(stopped.take());
        })
        .unwrap();
        assert_eq!((held.len(), notes.len(), told), (1, 0, vec![busy]));
        std::fs::remove_dir_all(&data[0]).unwrap();
    }
}
