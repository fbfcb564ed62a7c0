//! The regular files under a folder.

use std::io;
use std::path::{Path, PathBuf};

use crate::out::note;

/// Sentences about what was skipped that are written out; more are only counted.
const NOTES_MOST: usize = 10;

/// What is published.
#[derive(Debug, Default)]
pub struct Files {
    /// Paths, sorted within their folders.
    pub list: Vec<PathBuf>,
    /// Bytes of all, as the folders say.
    pub bytes: u64,
    /// Folders and files that could not be looked at.
    pub skipped: usize,
}

impl Files {
    /// Every regular file under `dir`. Symbolic links are not followed, except `dir` itself.
    pub fn under(dir: &Path) -> io::Result<Self> {
        let mut files = Self::default();
        let mut open = vec![];
        files.folder(dir, &mut open)?;
        while let Some(dir) = open.pop() {
            if let Err(error) = files.folder(&dir, &mut open) {
                files.skip(&dir, &error);
            }
        }
        if files.skipped > NOTES_MOST {
            note(format_args!("skipped {} in all", files.skipped));
        }
        Ok(files)
    }

    fn folder(&mut self, dir: &Path, open: &mut Vec<PathBuf>) -> io::Result<()> {
        let mut entries = std::fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            // Of the link itself, not of what it points at.
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => open.push(path),
                Ok(metadata) if metadata.is_file() => {
                    self.bytes += metadata.len();
                    self.list.push(path);
                }
                Ok(_) => {}
                Err(error) => self.skip(&path, &error),
            }
        }
        Ok(())
    }

    fn skip(&mut self, path: &Path, error: &io::Error) {
        self.skipped += 1;
        if self.skipped <= NOTES_MOST {
            note(format_args!("skipped {}: {error}", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_are_found_and_links_are_not_followed() {
        let dir = std::env::temp_dir().join(format!("landfall-files-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("b/c")).unwrap();
        std::fs::write(dir.join("a"), "12345").unwrap();
        std::fs::write(dir.join("b/c/d"), "").unwrap();
        std::os::unix::fs::symlink(dir.join("a"), dir.join("link")).unwrap();
        std::os::unix::fs::symlink(&dir, dir.join("b/loop")).unwrap();
        let files = Files::under(&dir).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(files.list, [dir.join("a"), dir.join("b/c/d")]);
        assert_eq!((files.bytes, files.skipped), (5, 0));
        assert!(Files::under(&dir).is_err(), "it is gone");
    }
}
