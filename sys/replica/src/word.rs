//! What others say in a topic's directory. Each word is a file of its own, which is whole from the
//! moment it has its name, and is not written again.
//!
//! `topic.json` is changed under a lock by the broker whose directory it is. Somebody else who took
//! that lock and was stopped would keep the broker from its own files for as long.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use landfall_layout::batch::crc32c;

use crate::document;
use crate::error::FileError;
use crate::there::Places;
use crate::watch;

/// What the name of a word begins with.
const WORD: &str = "said-";
/// What the name of one that is being written ends with.
const NEW: &str = ".new";

/// Tells two threads of a process apart.
static WRITERS: AtomicU32 = AtomicU32::new(0);

/// Whether what lies there is a word, or was to become one: a file with such a name. Anything else
/// was put there by nobody who says something.
pub(crate) fn is_word(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(is_called) && is_file(path)
}

/// Whether a name is a word's: its sum and a turn, and before it has that name who writes it too.
fn is_called(name: &str) -> bool {
    let Some(said) = name.strip_prefix(WORD) else { return false };
    let (said, numbers) = match said.strip_suffix(NEW) {
        Some(said) => (said, 3),
        None => (said, 1),
    };
    let mut parts = said.split('-');
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_sum = parts.next().is_some_and(|sum| sum.len() == 8 && sum.bytes().all(is_hex));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    is_sum && parts.clone().count() == numbers && parts.all(is_number)
}

/// Whether it is a file, and no name of one. What the system does not say may be.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .map_or_else(|error| error.kind() != ErrorKind::NotFound, |found| found.is_file())
}

/// Says it in a topic's directory, and makes it stay there. What is said already stays as it is.
pub(crate) fn say(topic: &Path, places: &Places) -> Result<(), FileError> {
    let unfit = |error: serde_json::Error| FileError::Topic {
        path: topic.to_owned(),
        why: error.to_string(),
    };
    let body = serde_json::to_vec_pretty(places).map_err(unfit)?;
    let sum = crc32c(&body);
    let names = (0..).map(|turn: u32| topic.join(format!("{WORD}{sum:08x}-{turn}")));
    // Something else may have that name.
    for path in names.filter(|path| fs::symlink_metadata(path).is_err() || is_file(path)) {
        match read(&path) {
            Ok(said) if said == *places => break,
            // Another word, with the same sum.
            Ok(_) => {}
            Err(FileError::Io { source, .. }) if source.kind() != ErrorKind::NotFound => {
                return Err(FileError::io("read", &path)(source));
            }
            Err(_) => {
                write(&path, &document::text(body, 1, 0))?;
                break;
            }
        }
    }
    // Also where it was there: whoever wrote it may have died before its name stayed.
    let directory = File::open(topic).map_err(FileError::io("open", topic))?;
    directory.sync_all().map_err(FileError::io("sync", topic))
}

fn write(path: &Path, text: &[u8]) -> Result<(), FileError> {
    let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!("-{}-{writer}{NEW}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let written = File::create(&fresh)
        .and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&fresh, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&fresh);
        FileError::io("write", path)(error)
    })
}

fn read(path: &Path) -> Result<Places, FileError> {
    let text = fs::read(path).map_err(FileError::io("read", path))?;
    let wrong = |why: String| FileError::Topic { path: path.to_owned(), why };
    let document = document::parse(&text).map_err(wrong)?;
    if !document.is_summed {
        return Err(wrong("it does not hold: it has no checksum".to_owned()));
    }
    serde_json::from_slice(&document.body).map_err(|error| wrong(error.to_string()))
}

/// All that is said in a topic's directory, together; and what of it does not hold, which says
/// nothing. Other directories say the same.
pub(crate) fn heard(topic: &Path) -> Result<(Places, Vec<FileError>), FileError> {
    let (mut places, mut faults) = (Places::default(), Vec::new());
    for path in words(topic)?.into_iter().filter(|path| !is_new(path)) {
        match read(&path) {
            Ok(said) => places.join(&said),
            // Control has put all of them together meanwhile.
            Err(FileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(error @ FileError::Io { .. }) => return Err(error),
            Err(error) => faults.push(error),
        }
    }
    Ok((places, faults))
}

/// Takes all words away, and what was left of those that were never said: `topic.json` says what
/// is to be said.
pub(crate) fn forget(topic: &Path) -> Result<(), FileError> {
    for path in words(topic)? {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(FileError::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_new(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(NEW.as_bytes())
}

fn words(topic: &Path) -> Result<Vec<PathBuf>, FileError> {
    watch::at(topic);
    let listed = fs::read_dir(topic).map_err(FileError::io("list", topic))?;
    let mut words = Vec::new();
    for entry in listed {
        let entry = entry.map_err(FileError::io("list", topic))?;
        if is_word(&entry.path()) {
            words.push(entry.path());
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(broker: u8, disk: u64) -> Places {
        let mut places = Places::default();
        places.keep(broker, disk, disk);
        places
    }

    #[test]
    fn words_are_put_together_said_once_and_forgotten_together() {
        let topic = std::env::temp_dir().join(format!("landfall-word-{}", std::process::id()));
        fs::create_dir_all(&topic).unwrap();
        for said in [kept(1, 7), kept(2, 8), kept(1, 9), kept(1, 7)] {
            say(&topic, &said).unwrap();
        }
        assert_eq!(words(&topic).unwrap().len(), 3, "one was said twice");
        let mut all = kept(2, 8);
        all.join(&kept(1, 9));
        assert!(matches!(heard(&topic), Ok((said, faults)) if said == all && faults.is_empty()));
        let damaged = topic.join("said-00000000-0");
        fs::write(&damaged, "{}").unwrap();
        fs::write(topic.join("said-00000000-0-1-1.new"), "{").unwrap();
        let (said, faults) = heard(&topic).unwrap();
        assert_eq!((said, faults.len()), (all, 1), "{faults:?}");
        forget(&topic).unwrap();
        assert!(words(&topic).unwrap().is_empty());
        fs::remove_dir_all(&topic).unwrap();
    }

    #[test]
    fn what_is_only_called_like_a_word_is_none() {
        for name in ["said-0123abcd-0", "said-00000000-17", "said-00000000-0-1-1.new"] {
            assert!(is_called(name), "{name}");
        }
        let strange =
            ["said-old", "said-x", "said-0123abcd", "said-0123ABCD-0", "said-00000000-0~"];
        let more =
            ["said-00000000-", "said-000000000-0", "said-00000000-0.new", "said-00000000-0-1"];
        for name in strange.into_iter().chain(more) {
            assert!(!is_called(name), "{name}");
        }
        let topic = std::env::temp_dir().join(format!("landfall-called-{}", std::process::id()));
        fs::create_dir_all(topic.join("said-old")).unwrap();
        fs::create_dir_all(topic.join("said-00000000-0")).unwrap();
        std::os::unix::fs::symlink("said-old", topic.join("said-00000000-1")).unwrap();
        assert!(words(&topic).unwrap().is_empty());
        // Nor does it keep anybody from saying something.
        say(&topic, &kept(1, 7)).unwrap();
        let word = words(&topic).unwrap().pop().unwrap();
        fs::remove_file(&word).unwrap();
        fs::create_dir_all(&word).unwrap();
        say(&topic, &kept(1, 7)).unwrap();
        assert!(
            matches!(heard(&topic), Ok((said, faults)) if said == kept(1, 7) && faults.is_empty())
        );
        forget(&topic).unwrap();
        assert!(words(&topic).unwrap().is_empty() && word.is_dir());
        fs::remove_dir_all(&topic).unwrap();
    }

    /// Whoever comes again mends what does not hold.
    #[test]
    fn a_word_that_does_not_hold_is_said_anew() {
        let topic = std::env::temp_dir().join(format!("landfall-anew-{}", std::process::id()));
        fs::create_dir_all(&topic).unwrap();
        say(&topic, &kept(3, 4)).unwrap();
        let path = words(&topic).unwrap().pop().unwrap();
        fs::write(&path, "half").unwrap();
        assert_eq!(heard(&topic).unwrap().1.len(), 1);
        say(&topic, &kept(3, 4)).unwrap();
        let (said, faults) = heard(&topic).unwrap();
        assert_eq!((said, faults.len()), (kept(3, 4), 0));
        fs::remove_dir_all(&topic).unwrap();
    }
}
