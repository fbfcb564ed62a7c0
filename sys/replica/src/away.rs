//! Data directories whose disk went away while this process ran.
//!
//! A mount point that lost its disk looks like a directory that never had anything. One that had
//! the number of a broker once, see [`numbers`](crate::numbers), and has none now is no answer to
//! whether something was there. A new disk in its place counts once a broker was started on it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ask::{self, Silent};
use crate::error::FileError;
use crate::numbers::{NUMBERS_COPY, NUMBERS_FILE};
use crate::short;

/// Those that had a number.
static NAMED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn named() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    NAMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a data directory looked at that was not seen to have a number yet. Nobody waits for it.
pub fn watch(data: &Path) {
    if !named().contains(data) {
        let path = data.to_owned();
        drop(ask::begin(data, move || note(&path)));
    }
}

/// Looks whether a data directory still has its number: where it has not, all that is in it is
/// refused. In the directory's thread.
pub(crate) fn note(data: &Path) {
    let mut is_there = false;
    for name in [NUMBERS_FILE, NUMBERS_COPY] {
        let path = data.join(name);
        match path.symlink_metadata() {
            Ok(_) => is_there = true,
            Err(error) => drop(FileError::io("look at", &path)(error)),
        }
    }
    if is_there {
        if !named().contains(data) {
            named().insert(data.to_owned());
        }
    } else if named().contains(data) {
        short::say(|| {
            let why = format!(
                "{}: the broker's number that was there is gone: mount its disk again, or start a \
                 broker on the new one",
                data.display()
            );
            Silent::refused(data, why)
        });
    }
}

#[cfg(test)]
mod tests {
    use landfall_layout::BrokerId;

    use super::*;
    use crate::numbers;

    #[test]
    fn a_directory_that_lost_its_number_is_refused_until_it_has_one_again() {
        let data = std::env::temp_dir().join(format!("away-{}", std::process::id()));
        std::fs::create_dir_all(&data).unwrap();
        let refused = || {
            short::during(|| {
                ask::ask(&data, {
                    let data = data.clone();
                    move || note(&data)
                })
            })
            .1
        };
        assert_eq!(refused(), None, "nobody knows whether anything was there");
        let name = || numbers::name(&data, BrokerId::new(1).unwrap(), "pool").unwrap();
        name();
        assert_eq!(refused(), None);
        std::fs::remove_dir_all(&data).unwrap();
        assert!(refused().is_some_and(|refused| refused.path == data));
        std::fs::create_dir_all(&data).unwrap();
        assert!(refused().is_some_and(|refused| refused.path == data));
        name();
        assert_eq!(refused(), None);
        let _ = std::fs::remove_dir_all(&data);
    }
}
