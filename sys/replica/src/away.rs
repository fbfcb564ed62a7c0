//! Data directories whose disk went away while this process ran.
//!
//! A mount point that lost its disk looks like a directory that never had anything. One that had
//! the number of a broker once, see [`numbers`](crate::numbers), and has none now is no answer to
//! whether something was there. A new disk in its place counts once a broker was started on it.
//!
//! Whose it was says what may be there: see [`Landed::may_be_in`](crate::landed::Landed).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ask::{self, Silent};
use crate::error::FileError;
use crate::numbers::{NUMBERS_COPY, NUMBERS_FILE, Numbers};
use crate::short;

/// Those that had a number, and what they said last; none: it could not be read.
type Named = BTreeMap<PathBuf, Option<Numbers>>;

static NAMED: Mutex<Named> = Mutex::new(Named::new());

fn named() -> MutexGuard<'static, Named> {
    NAMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a data directory looked at, and what it says kept in mind. Nobody waits for it.
pub fn watch(data: &Path) {
    let path = data.to_owned();
    drop(ask::begin(data, move || note(&path)));
}

/// What a data directory said last of whose it is. None: it never said it to this process.
pub(crate) fn last_said(data: &Path) -> Option<Numbers> {
    named().get(data).cloned().flatten()
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
        // Who may not read it, or finds that it does not hold, may read replicas all the same.
        let said = short::unsaid(|| Numbers::read(data));
        let mut named = named();
        let known = named.entry(data.to_owned()).or_default();
        if let Some(said) = said.ok().filter(|said| !said.of.is_empty()) {
            *known = Some(said);
        }
    } else if named().contains_key(data) {
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
        assert_eq!(last_said(&data), Some(Numbers::read(&data).unwrap()));
        // Who may not read whose it is may read all the rest, and it is whose it was.
        for name in [NUMBERS_FILE, NUMBERS_COPY] {
            std::fs::remove_file(data.join(name)).unwrap();
            std::os::unix::fs::symlink(name, data.join(name)).unwrap();
        }
        assert!(short::unsaid(|| Numbers::read(&data)).is_err());
        assert_eq!(refused(), None);
        assert!(last_said(&data).is_some_and(|said| said.brokers() == [1].into()));
        let _ = std::fs::remove_dir_all(&data);
    }
}
