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
/// that somebody puts in its place, so none goes before others need the room: those of the topics
/// that were created first.
const DELETIONS_MAX: usize = 16_384;

/// A topic that was deleted: its name, and when it was created.
pub type Deletion = (String, u64);

/// Says it in a data directory that is there, and makes it stay. It needs a name's room.
pub fn say<'a>(
    data: &Path,
    deletions: impl IntoIterator<Item = &'a Deletion>,
) -> Result<(), FileError> {
    let place = data.join(DELETED);
    match fs::create_dir(&place) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(FileError::io("create", &place)(error));
        }
        _ => {}
    }
    for deletion in deletions {
        let path = path_of(data, deletion);
        File::create(&path).map_err(FileError::io("create", &path))?;
    }
    let said = heard(data)?;
    let mut by_age: Vec<&Deletion> = said.iter().collect();
    by_age.sort_by_key(|(_, created_ns)| *created_ns);
    for deletion in by_age.into_iter().take(said.len().saturating_sub(DELETIONS_MAX)) {
        remove(data, deletion)?;
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
    fn the_earliest_go_where_there_are_too_many() {
        let data = directory("many");
        let said: Vec<Deletion> =
            (0..DELETIONS_MAX as u64 + 2).map(|at| ("t".to_owned(), at)).collect();
        say(&data, &said).unwrap();
        let heard = heard(&data).unwrap();
        assert_eq!(heard.len(), DELETIONS_MAX);
        assert_eq!(heard.iter().map(|(_, at)| *at).min(), Some(2));
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
