//! `.brokers`: whose replicas a data directory has ever had, and under which pools.
//!
//! A mount point without its disk looks like an empty directory, and so does a new one. Only a
//! broker that found its pool served writes here, so what is written says that the disk was there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use landfall_layout::BrokerId;
use landfall_layout::batch::crc32c;

use crate::error::FileError;
use crate::{away, watch};

/// The file, in a data directory.
pub const NUMBERS_FILE: &str = ".brokers";
/// The same once more, for when that one does not hold. It is written first: where both hold and
/// differ, this one is the later.
pub const NUMBERS_COPY: &str = ".brokers.copy";
/// Either of the two while it is being written.
pub const NUMBERS_NEW: &str = ".brokers.new";
/// Pools that are kept of one number: topics know the latest.
const POOLS_MAX: usize = 16;

/// What the file says. Nothing, where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The directory's own number, drawn when the file was made; 0: an earlier program made it.
    pub id: u64,
    /// Brokers, and the pools that were served when they wrote here, in the order of writing. No
    /// pool in files of earlier programs.
    pub of: Vec<(u8, String)>,
}

impl Numbers {
    /// What a data directory says: its copy, which is as late as the file or later, or the file
    /// where that does not hold or is gone.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, or neither holds: whose the directory is, is then not known.
    pub fn read(data: &Path) -> Result<Self, FileError> {
        let copy = Self::read_one(&data.join(NUMBERS_COPY));
        // Whoever wrote a copy wrote checksums: without one, the file is not what was written.
        match (Self::read_one(&data.join(NUMBERS_FILE)), copy) {
            (_, Ok(Some((numbers, true)))) | (Ok(Some((numbers, true))), _) => Ok(numbers),
            (_, Err(error)) | (Err(error), _) => Err(error),
            (Ok(Some((numbers, false))), Ok(None)) => Ok(numbers),
            (Ok(_), Ok(Some(_))) => Err(without_sum(&data.join(NUMBERS_COPY))),
            (Ok(None), Ok(None)) => Ok(Self::default()),
        }
    }

    /// What is wrong with the file and its copy.
    pub fn faults(data: &Path) -> Vec<FileError> {
        let (path, copy) = (data.join(NUMBERS_FILE), data.join(NUMBERS_COPY));
        match (Self::read_one(&path), Self::read_one(&copy)) {
            (Ok(Some((old, false))), Ok(Some((new, true)))) if old.is_before(&new) => vec![],
            (Ok(Some((_, false))), Ok(Some(_))) => vec![without_sum(&path)],
            (Ok(_), Ok(Some((_, false)))) => vec![without_sum(&copy)],
            (one, other) => one.err().into_iter().chain(other.err()).collect(),
        }
    }

    /// Whether the copy is written and the file is not yet, as for a moment beside who writes, and
    /// for good where that one died in between: the copy says it all, and the next write both.
    pub fn is_half_written(data: &Path) -> bool {
        // Who writes changes the copy first: so it is read last, and never found older.
        let file = Self::read_one(&data.join(NUMBERS_FILE));
        let copy = Self::read_one(&data.join(NUMBERS_COPY));
        match (file, copy) {
            (Ok(None), Ok(Some((_, true)))) => true,
            (Ok(Some((old, false))), Ok(Some((new, true)))) => old.is_before(&new),
            (Ok(Some((old, true))), Ok(Some((new, true)))) => old != new,
            _ => false,
        }
    }

    /// Whether an earlier program may have written this, and `later` come after it.
    fn is_before(&self, later: &Self) -> bool {
        !self.of.is_empty() && self.brokers().is_subset(&later.brokers())
    }

    /// The brokers, whatever the pools were.
    pub fn brokers(&self) -> BTreeSet<u8> {
        self.of.iter().map(|(number, _)| *number).collect()
    }

    /// The broker that wrote here last, and those of which an earlier program does not say when:
    /// a number from before says only that its broker was here once.
    pub fn keepers(&self) -> BTreeSet<u8> {
        let (last, of) = (self.of.last(), self.of.iter());
        let old = of.filter(|(_, pool)| pool.is_empty()).chain(last);
        old.map(|(number, _)| *number).collect()
    }

    /// Whether the broker wrote here under one of the pools.
    pub fn is_under(&self, broker: u8, pools: &BTreeSet<String>) -> bool {
        self.of.iter().any(|(number, pool)| *number == broker && pools.contains(pool))
    }

    /// The pool that was served here last, where pool `pool` was before it.
    pub fn served_since(&self, pool: &str) -> Option<&str> {
        let was_here = self.of.iter().any(|(_, of)| of == pool);
        let last = self.of.last().map(|(_, last)| last.as_str());
        last.filter(|last| was_here && *last != pool)
    }

    /// What one of the two says, and whether a checksum says that it holds; `None`: it is not
    /// there.
    fn read_one(path: &Path) -> Result<Option<(Self, bool)>, FileError> {
        watch::at(path);
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::io("read", path)(error)),
        };
        let wrong = |why: &str| FileError::Topic { path: path.to_owned(), why: why.to_owned() };
        let text = str::from_utf8(&text).map_err(|_| wrong("it does not hold: it is no text"))?;
        let Some((said, sum)) = text.split_once("checksum ") else {
            // An earlier program: numbers alone.
            let number = |line: &str| Some((line.parse().ok()?, String::new()));
            let of: Option<Vec<_>> = text.lines().map(number).collect();
            let of = of.ok_or_else(|| wrong("it does not hold: it has no checksum"))?;
            return Ok(Some((Self { id: 0, of }, false)));
        };
        let computed = crc32c(said.as_bytes());
        if sum.trim_end() != computed.to_string() {
            let why = format!("it does not hold: its bytes give checksum {computed}");
            return Err(wrong(&why));
        }
        let mut numbers = Self::default();
        for line in said.lines() {
            let mut words = line.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("directory"), Some(id), None) => {
                    numbers.id = u64::from_str_radix(id, 16).unwrap_or_default();
                }
                (Some("broker"), Some(number), Some(pool)) => {
                    let number = number.parse().map_err(|_| wrong("it has no such broker"))?;
                    numbers.of.push((number, pool.to_owned()));
                }
                _ => return Err(wrong("a later program wrote it")),
            }
        }
        Ok(Some((numbers, true)))
    }

    fn text(&self) -> Vec<u8> {
        let lines = self.of.iter().map(|(number, pool)| format!("broker {number} {pool}\n"));
        let said: String =
            std::iter::once(format!("directory {:016x}\n", self.id)).chain(lines).collect();
        let sum = crc32c(said.as_bytes());
        format!("{said}checksum {sum}\n").into_bytes()
    }
}

fn without_sum(path: &Path) -> FileError {
    let why = "it does not hold: it has no checksum".to_owned();
    FileError::Topic { path: path.to_owned(), why }
}

/// Writes the number of a broker into its data directory, where it stays, with the pool that is
/// served. What does not hold there is written anew.
///
/// # Errors
///
/// The system's, as on a full disk: what the directory holds then tells no less of it.
pub fn name(data: &Path, broker: BrokerId, pool: &str) -> Result<(), FileError> {
    let mut known = Numbers::read(data).unwrap_or_default();
    let is_said = known.of.last() == Some(&(broker.raw(), pool.to_owned()));
    let is_whole = Numbers::faults(data).is_empty()
        && !Numbers::is_half_written(data)
        && data.join(NUMBERS_COPY).exists();
    if is_said && is_whole {
        away::note(data);
        return Ok(());
    }
    // Of an earlier program's number nobody knows the pool; this one says more.
    known.of.retain(|(number, of)| *number != broker.raw() || !of.is_empty() && of != pool);
    let mine = known.of.iter().filter(|(number, _)| *number == broker.raw()).count();
    if mine >= POOLS_MAX
        && let Some(oldest) = known.of.iter().position(|(number, _)| *number == broker.raw())
    {
        known.of.remove(oldest);
    }
    known.of.push((broker.raw(), pool.to_owned()));
    save(data, known)?;
    away::note(data);
    Ok(())
}

/// The data directory's own number, which is drawn and written where it has none. No broker is
/// named by that: an empty mount point still has nobody's number. Where what is there does not
/// hold, the directory gets another one.
///
/// # Errors
///
/// The system's.
pub fn number(data: &Path) -> Result<u64, FileError> {
    let known = match Numbers::read(data) {
        Err(FileError::Topic { .. }) => Numbers::default(),
        known => known?,
    };
    if known.id == 0 { save(data, known) } else { Ok(known.id) }
}

/// Writes what a data directory says; its number.
fn save(data: &Path, mut known: Numbers) -> Result<u64, FileError> {
    if known.id == 0 {
        known.id = draw().map_err(FileError::io("read", "/dev/urandom".as_ref()))?;
    }
    let directory = File::open(data).map_err(FileError::io("open", data))?;
    for name in [NUMBERS_COPY, NUMBERS_FILE] {
        write_one(data, &data.join(name), &known.text())?;
        // The copy's new name stays before the file has its own: so it is the later one.
        directory.sync_all().map_err(FileError::io("sync", data))?;
    }
    Ok(known.id)
}

fn write_one(data: &Path, path: &Path, text: &[u8]) -> Result<(), FileError> {
    let fresh = data.join(NUMBERS_NEW);
    let write = || {
        let mut file = File::create(&fresh)?;
        file.write_all(text)?;
        file.sync_all()
    };
    let written = write().map_err(FileError::io("write", &fresh));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written?;
    fs::rename(&fresh, path).map_err(FileError::io("rename", &fresh))
}

/// A number that no other directory has.
fn draw() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes).max(1))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn directory(name: &str) -> PathBuf {
        let name = format!("landfall-numbers-{name}-{}", std::process::id());
        let data = std::env::temp_dir().join(name);
        fs::create_dir_all(&data).unwrap();
        data
    }

    fn broker(number: usize) -> BrokerId {
        BrokerId::new(number).unwrap()
    }

    #[test]
    fn a_directory_says_whose_it_is_and_under_which_pools_and_an_empty_one_does_not() {
        let data = directory("says");
        assert_eq!(Numbers::read(&data).unwrap(), Numbers::default());
        for (number, pool) in [(3, "a"), (0, "a"), (3, "a"), (3, "b")] {
            name(&data, broker(number), pool).unwrap();
        }
        let numbers = Numbers::read(&data).unwrap();
        assert_eq!(numbers.brokers(), [0, 3].into());
        let under = |number, pool: &str| numbers.is_under(number, &[pool.to_owned()].into());
        assert!(under(3, "a") && under(3, "b") && under(0, "a") && !under(0, "b"));
        assert!(numbers.id != 0);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 2);
        for pool in 0..2 * POOLS_MAX {
            name(&data, broker(3), &format!("pool{pool}")).unwrap();
        }
        let later = Numbers::read(&data).unwrap();
        assert_eq!((later.of.len(), later.id), (POOLS_MAX + 1, numbers.id));
        fs::remove_dir_all(&data).unwrap();
    }

    #[test]
    fn a_damaged_byte_is_read_over_by_the_copy_and_told_where_both_are() {
        let data = directory("damaged");
        name(&data, broker(1), "a").unwrap();
        let said = Numbers::read(&data).unwrap();
        let (file, copy) = (data.join(NUMBERS_FILE), data.join(NUMBERS_COPY));
        let whole = fs::read(&file).unwrap();
        for at in 0..whole.len() - 1 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&file, &bytes).unwrap();
            assert_eq!(Numbers::read(&data).unwrap(), said, "byte {at}");
            assert_eq!(Numbers::faults(&data).len(), 1, "byte {at}");
            fs::write(&copy, &bytes).unwrap();
            assert!(Numbers::read(&data).is_err(), "byte {at}");
            fs::write(&copy, &whole).unwrap();
        }
        for old in ["8\n", "", "1\n8\n"] {
            fs::write(&file, old).unwrap();
            assert_eq!(Numbers::read(&data).unwrap(), said);
            assert_eq!(Numbers::faults(&data).len(), 1, "{old:?}");
        }
        name(&data, broker(1), "a").unwrap();
        assert!(Numbers::faults(&data).is_empty() && fs::read(&file).unwrap() == whole);
        // Of an earlier program.
        fs::remove_file(&copy).unwrap();
        fs::write(&file, "1\n4\n").unwrap();
        let old = Numbers::read(&data).unwrap();
        assert_eq!(
            (old.brokers(), old.is_under(1, &[String::new()].into())),
            ([1, 4].into(), true)
        );
        fs::remove_dir_all(&data).unwrap();
    }

    /// Who writes may die behind the first of the two.
    #[test]
    fn what_only_the_copy_says_yet_counts_and_stands_in_both_after_the_next_write() {
        let data = directory("between");
        let (file, copy) = (data.join(NUMBERS_FILE), data.join(NUMBERS_COPY));
        let of = |number, pool: &str| (number, pool.to_owned());
        let mut numbers = Numbers { id: 7, of: vec![of(1, "a")] };
        let old = |text: &str| fs::write(&file, text).unwrap();
        let befores: [&dyn Fn(); 3] =
            [&|| (), &|| old("1\n"), &|| name(&data, broker(1), "before").unwrap()];
        for before in befores {
            for half in [NUMBERS_FILE, NUMBERS_COPY] {
                let _ = fs::remove_file(data.join(half));
            }
            before();
            numbers.of.push(of(1, "b"));
            write_one(&data, &copy, &numbers.text()).unwrap();
            assert_eq!(Numbers::read(&data).unwrap(), numbers);
            assert!(Numbers::is_half_written(&data) && Numbers::faults(&data).is_empty());
            assert_eq!(number(&data).unwrap(), 7, "it has one");
            name(&data, broker(1), "b").unwrap();
            assert!(!Numbers::is_half_written(&data) && Numbers::faults(&data).is_empty());
            assert_eq!(fs::read(&file).unwrap(), fs::read(&copy).unwrap());
            numbers = Numbers::read(&data).unwrap();
            assert_eq!((numbers.id, numbers.of.last()), (7, Some(&of(1, "b"))));
        }
        fs::remove_dir_all(&data).unwrap();
    }
}
