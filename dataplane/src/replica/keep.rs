//! Which of a replica's files are kept, where a topic bounds what its disks keep.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use landfall_layout::topic::TopicEntry;
use landfall_pool::clock::{wall_age_ns, wall_ns};
use landfall_replica::FileError;
use landfall_replica::mend::sync_directory;
use landfall_replica::names::{list_aside, list_cuts, list_source};

/// How often a bounded replica's files are looked at, nanoseconds.
pub const LOOK_EVERY_NS: u64 = 500_000_000;

/// What a replica keeps at least; 0: everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Bytes of its newest files.
    pub bytes: u64,
    /// Age of a batch, nanoseconds.
    pub ns: u64,
}

impl Bounds {
    /// Those of a topic.
    pub fn of(entry: &TopicEntry) -> Self {
        Self { bytes: entry.disk_bytes, ns: entry.disk_ns }
    }

    /// Whether there are any.
    pub fn is_set(self) -> bool {
        self.bytes != 0 || self.ns != 0
    }

    /// Whether these may have let go of something in front of files with `bytes` bytes, of a topic
    /// that was created at wall time `created_ns`: they leave what they are, and nothing was older
    /// than the topic. A file that was written again may be smaller, by far less than `file_bytes`.
    pub fn may_have_taken(self, (bytes, file_bytes): (u64, u64), created_ns: u64) -> bool {
        let by_bytes = self.bytes != 0 && bytes.saturating_add(file_bytes) >= self.bytes;
        by_bytes || self.ns != 0 && wall_age_ns(created_ns, wall_ns()) >= self.ns
    }
}

/// One file.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Log index below which the files before it have everything.
    pub first_index: u64,
    /// Its path.
    pub path: PathBuf,
    /// Bytes it has.
    pub bytes: u64,
    /// When it was last written to, as the file system says: no batch in it is younger.
    pub written_ns: u64,
    /// How long ago that was, nanoseconds, as [`Ages`] tells.
    pub age_ns: u64,
}

/// How many files, oldest first, the bounds let go of. Of what is not below log index `needed`
/// everything stays: memory may have it too, and promises that it is here.
pub fn beyond(files: &[Kept], bounds: Bounds, needed: u64) -> usize {
    let mut left: u64 = files.iter().map(|file| file.bytes).sum();
    let goes = |pair: &&[Kept]| {
        let [file, next] = pair else { return false };
        left -= file.bytes;
        let by_bytes = bounds.bytes != 0 && left >= bounds.bytes;
        let by_age = bounds.ns != 0 && file.age_ns >= bounds.ns;
        next.first_index <= needed && (by_bytes || by_age)
    };
    files.windows(2).take_while(goes).count()
}

/// How old files are, by a clock that does not jump.
///
/// The file system stamps wall time. A file that is done counts from the first look at it on by
/// the time that passes: a clock that is set afterwards makes it neither older nor younger.
#[derive(Debug, Default)]
pub struct Ages(BTreeMap<u64, Seen>);

/// A file that is done, at the first look at it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    age_ns: u64,
    at_boot_ns: u64,
}

impl Ages {
    /// Says in `files`, which are all that there are, oldest first, how old each is now.
    pub fn tell(&mut self, files: &mut [Kept], boot_ns: u64, wall_ns: u64) {
        let done = files.len().saturating_sub(1);
        let mut seen = BTreeMap::new();
        for (i, file) in files.iter_mut().enumerate() {
            let by_wall = wall_age_ns(file.written_ns, wall_ns);
            let first = Seen { age_ns: by_wall, at_boot_ns: boot_ns };
            let known = *self.0.get(&file.first_index).unwrap_or(&first);
            file.age_ns = known.age_ns.saturating_add(boot_ns.saturating_sub(known.at_boot_ns));
            // The last one is still written to.
            if i < done {
                seen.insert(file.first_index, known);
            }
        }
        self.0 = seen;
    }
}

/// A replica's files, oldest first.
pub fn files(directory: &Path) -> Result<Vec<Kept>, FileError> {
    let mut files = Vec::new();
    for (first_index, path) in list_source(directory, &mut Vec::new())? {
        let metadata = path.metadata().map_err(FileError::io("look at", &path))?;
        // A time before 1970 counts as 1970.
        let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
        let written_ns = seconds.saturating_mul(1_000_000_000) + metadata.mtime_nsec() as u64;
        files.push(Kept { first_index, path, bytes: metadata.len(), written_ns, age_ns: 0 });
    }
    Ok(files)
}

/// Removes the first `beyond` files, oldest first, so that what is left has no hole whenever this
/// is interrupted; before them, what was cut off them and kept, and what was set aside.
pub fn remove(directory: &Path, files: &[Kept], beyond: usize) -> Result<(), FileError> {
    let (files, left) = files.split_at(beyond.min(files.len()));
    let Some(left) = left.first().filter(|_| !files.is_empty()) else { return Ok(()) };
    for (first_index, beside) in list_cuts(directory)?.into_iter().chain(list_aside(directory)?) {
        if first_index < left.first_index {
            fs::remove_file(&beside).map_err(FileError::io("remove", &beside))?;
        }
    }
    for file in files {
        fs::remove_file(&file.path).map_err(FileError::io("remove", &file.path))?;
        sync_directory(directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(first_index: u64, written_ns: u64) -> Kept {
        Kept { first_index, path: PathBuf::new(), bytes: 100, written_ns, age_ns: 0 }
    }

    /// Files that are looked at for the first time, at a wall time.
    fn four_at(wall_ns: u64) -> [Kept; 4] {
        let mut files = four();
        Ages::default().tell(&mut files, 7, wall_ns);
        files
    }

    fn four() -> [Kept; 4] {
        [file(0, 1000), file(10, 2000), file(20, 3000), file(30, 4000)]
    }

    fn bytes(bytes: u64) -> Bounds {
        Bounds { bytes, ns: 0 }
    }

    #[test]
    fn what_is_left_is_never_less_than_the_bound() {
        assert_eq!(beyond(&four(), bytes(200), u64::MAX), 2);
        assert_eq!(beyond(&four(), bytes(201), u64::MAX), 1);
        assert_eq!(beyond(&four(), bytes(400), u64::MAX), 0);
        assert_eq!(beyond(&four(), Bounds::default(), u64::MAX), 0);
    }

    #[test]
    fn the_newest_file_stays_however_small_the_bound_is() {
        assert_eq!(beyond(&four(), bytes(1), u64::MAX), 3);
        assert_eq!(beyond(&[], bytes(1), u64::MAX), 0);
        assert_eq!(beyond(&four()[..1], bytes(1), u64::MAX), 0);
    }

    #[test]
    fn nothing_goes_that_memory_may_have_too() {
        assert_eq!(beyond(&four(), bytes(1), 20), 2, "the third has what comes from 20 on");
        assert_eq!(beyond(&four(), bytes(1), 29), 2);
        assert_eq!(beyond(&four(), bytes(1), 9), 0);
    }

    #[test]
    fn a_file_goes_when_its_youngest_batch_is_old_enough() {
        let aged = Bounds { bytes: 0, ns: 500 };
        assert_eq!(beyond(&four_at(1499), aged, u64::MAX), 0);
        assert_eq!(beyond(&four_at(1500), aged, u64::MAX), 1);
        assert_eq!(beyond(&four_at(9000), aged, u64::MAX), 3);
        // One bound is enough.
        let both = Bounds { bytes: 400, ns: 500 };
        assert_eq!(beyond(&four_at(2500), both, u64::MAX), 2);
    }

    #[test]
    fn a_clock_that_is_set_makes_a_file_neither_older_nor_younger() {
        const HOUR: u64 = 3_600_000_000_000;
        let mut ages = Ages::default();
        let mut files = four();
        ages.tell(&mut files, 50, 5_000);
        assert_eq!(files[0].age_ns, 4_000);
        ages.tell(&mut files, 60, 5_000 + HOUR);
        assert_eq!(
            files[..3].iter().map(|file| file.age_ns).collect::<Vec<_>>(),
            [4_010, 3_010, 2_010]
        );
        ages.tell(&mut files, 70, 0);
        assert_eq!(files[2].age_ns, 2_020);
        assert_eq!(files[3].age_ns, 0, "the last one is written to, and goes by its stamp");
    }
}
