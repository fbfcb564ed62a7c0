//! `.deleted`: which topics were deleted, said in every data directory, whether it has them or not.
//!
//! A disk that is away when a topic is deleted has it still. When it is back no other directory has
//! anything of the topic, so that it would seem to be what is left of one that others lost. Each
//! deletion is the name of an empty file: it is there or not, and takes no more than its name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use landfall_layout::topic::check_name;

use crate::error::FileError;

/// The directory of these names, in a data directory.
pub const DELETED: &str = ".deleted";
/// Deletions that one directory keeps. Nobody knows when a disk comes back, nor how old the copy is
/// that somebody puts in its place, so none goes before others need the room: those that were said
/// first.
pub const DELETIONS_MAX: usize = 16_384;

/// A topic that was deleted: its name, and when it was created.
pub type Deletion = (String, u64);

/// Says it in a data directory that is there, and makes it stay. It needs a name's room. What is
/// said now is not what goes for want of room.
pub fn say<'a>(
    data: &Path,
    deletions: impl IntoIterator<Item = &'a Deletion>,
) -> Result<(), FileError> {
    let deletions: BTreeSet<&Deletion> = deletions.into_iter().collect();
    let place = data.join(DELETED);
    match fs::create_dir(&place) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(FileError::io("create", &place)(error));
        }
        _ => {}
    }
    for deletion in &deletions {
        let path = path_of(data, deletion);
        File::create(&path).map_err(FileError::io("create", &path))?;
    }
    let said = heard(data)?;
    let excess = said.len().saturating_sub(DELETIONS_MAX);
    if excess > 0 {
        let mut earlier: Vec<&Deletion> =
            said.iter().filter(|deletion| !deletions.contains(deletion)).collect();
        // One that is gone meanwhile counts as the first.
        let said_at = |deletion: &Deletion| {
            fs::metadata(path_of(data, deletion)).and_then(|it| it.modified()).ok()
        };
        earlier.sort_by_cached_key(|deletion| (said_at(deletion), deletion.1));
        earlier
            .into_iter()
            .take(excess)
            .try_for_each(|deletion| remove(data, deletion).map(drop))?;
    }
    sync(&place)?;
    sync(data)
}

/// What a data directory says. What else lies there says nothing.
pub fn heard(data: &Path) -> Result<BTreeSet<Deletion>, FileError> {
    let place = data.join(DELETED);
    let listed = match fs::read_dir(&place) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(BTreeSet::new());
        }
        listed => listed.map_err(FileError::io("list", &place))?,
    };
    let mut said = BTreeSet::new();
    for entry in listed {
        let entry = entry.map_err(FileError::io("list", &place))?;
        said.extend(entry.file_name().to_str().and_then(deletion_of));
    }
    Ok(said)
}

/// Takes it back in a data directory: the topic is served, as where an earlier pool was put back.
pub fn take_back(data: &Path, deletion: &Deletion) -> Result<(), FileError> {
    match remove(data, deletion)? {
        true => sync(&data.join(DELETED)),
        false => Ok(()),
    }
}

/// Whether it was said.
fn remove(data: &Path, deletion: &Deletion) -> Result<bool, FileError> {
    let path = path_of(data, deletion);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(FileError::io("remove", &path)(error)),
    }
}

fn path_of(data: &Path, (name, created_ns): &Deletion) -> PathBuf {
    data.join(DELETED).join(format!("{name}@{created_ns}"))
}

fn deletion_of(file: &str) -> Option<Deletion> {
    let (name, created) = file.split_once('@')?;
    check_name(name).ok()?;
    let created_ns = created.parse::<u64>().ok()?;
    (created_ns.to_string() == created).then(|| (name.to_owned(), created_ns))
}

fn sync(directory: &Path) -> Result<(), FileError> {
    let file = File::open(directory).map_err(FileError::io("open", directory))?;
    file.sync_all().map_err(FileError::io("sync", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(what: &str) -> PathBuf {
        let name = format!("landfall-deletions-{what}-{}", std::process::id());
        let data = std::env::temp_dir().join(name);
        fs::create_dir_all(&data).unwrap();
        data
    }

    #[test]
    fn what_was_deleted_is_heard_until_it_is_taken_back() {
        let data = directory("said");
        assert!(heard(&data).unwrap().is_empty());
        // Names of topics that are no plain names of files.
        let said: BTreeSet<Deletion> =
            [("a", 7), ("a", 9), (".", 1), (DELETED, 2)].map(|(n, at)| (n.to_owned(), at)).into();
        say(&data, &said).unwrap();
        say(&data, &said).unwrap();
        for strange in ["a@", "a@07", "a@-1", "@7", "a", "a/@7"] {
            let _ = fs::write(data.join(DELETED).join(strange), "");
        }
        assert_eq!(heard(&data).unwrap(), said);
        take_back(&data, &("a".to_owned(), 7)).unwrap();
        take_back(&data, &("a".to_owned(), 7)).unwrap();
        assert_eq!(heard(&data).unwrap().len(), 3);
        let listing = crate::names::list(&data).unwrap();
        assert_eq!((listing.topics.len(), listing.strangers.len()), (0, 0));
        fs::remove_dir_all(&data).unwrap();
    }

    #[test]
    fn what_was_said_first_goes_where_there_are_too_many() {
        let data = directory("many");
        let of = |at: u64| ("t".to_owned(), at);
        let said: Vec<Deletion> = (2..DELETIONS_MAX as u64 + 2).map(of).collect();
        say(&data, &said).unwrap();
        let first = File::open(path_of(&data, &of(9))).unwrap();
        first.set_modified(std::time::UNIX_EPOCH).unwrap();
        // Of the topic that was created before all others.
        say(&data, &[of(1)]).unwrap();
        let after = heard(&data).unwrap();
        assert_eq!(after.len(), DELETIONS_MAX);
        assert!(after.contains(&of(1)) && after.contains(&of(2)) && !after.contains(&of(9)));
        // More at once than there is room for: all of it is kept until the next.
        let many: Vec<Deletion> = (0..DELETIONS_MAX as u64 + 2).map(of).collect();
        say(&data, &many).unwrap();
        let after = heard(&data).unwrap();
        assert!(many.iter().all(|deletion| after.contains(deletion)));
        fs::remove_dir_all(&data).unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there_cannot_be_told() {
        let data = directory("none").join("none");
        let error = say(&data, &[("a".to_owned(), 7)]).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
        fs::remove_dir_all(data.parent().unwrap()).unwrap();
    }
}
