//! Where the files are.

use std::path::{Path, PathBuf};
use std::{fs, io};

use landfall_layout::BrokerId;
use landfall_layout::topic::check_name;

use crate::deletions::DELETED;
use crate::error::FileError;
use crate::numbers::{NUMBERS_COPY, NUMBERS_FILE, NUMBERS_NEW};
use crate::owner::{OWNER_FILE, SYSTEM_FILE};
use crate::watch;
use crate::word::is_word;

/// The file that says which topic a directory is about.
pub const TOPIC_FILE: &str = "topic.json";
/// The same once more, for when that one does not hold.
pub const TOPIC_COPY: &str = "topic.json.copy";
/// A name of the copy that says that the topic was deleted: it needs no room, and no lock.
pub const TOPIC_GRAVE: &str = "topic.json.deleted";
/// What a replica file's name ends with.
pub const SUFFIX: &str = ".replica";
/// What stands between a replica file's name and a byte of it, in the name of what was cut off it.
const CUT: &str = ".cut-";
/// What stands between a replica file's name and a number, in the name of one that was set aside.
const ASIDE: &str = ".aside-";
/// Digits of a replica file's first index: as many as the largest has, so that names sort.
const DIGITS: usize = 20;

/// What a data directory has of its own beside topics.
pub const OWN_FILES: [&str; 6] =
    [OWNER_FILE, SYSTEM_FILE, NUMBERS_FILE, NUMBERS_COPY, NUMBERS_NEW, DELETED];

/// A topic's name as a directory's. `.` and `..` are names of topics too, and so are those of the
/// data directory's own files; `%` is in none.
fn escaped(name: &str) -> String {
    match name {
        "." | ".." => name.replace('.', "%2E"),
        _ if OWN_FILES.contains(&name) => name.replacen('.', "%2E", 1),
        _ => name.to_owned(),
    }
}

fn unescaped(directory: &str) -> Option<String> {
    let own = || directory.strip_prefix("%2E").map(|rest| format!(".{rest}"));
    let name = match directory {
        "%2E" | "%2E%2E" => directory.replace("%2E", "."),
        _ => own()
            .filter(|name| OWN_FILES.contains(&name.as_str()))
            .unwrap_or_else(|| directory.to_owned()),
    };
    check_name(&name).ok()?;
    Some(name)
}

/// The directory of a topic: one of that name that was created at `created_ns`.
pub fn topic_directory(data: &Path, name: &str, created_ns: u64) -> PathBuf {
    data.join(escaped(name)).join(created_ns.to_string())
}

/// The directory of what `source` landed, in a topic's.
pub fn source_directory(topic: &Path, source: BrokerId) -> PathBuf {
    topic.join(format!("b{source}"))
}

/// The data directory that the directory of a source is in.
pub fn data_of(source: &Path) -> &Path {
    source.ancestors().nth(3).unwrap_or(source)
}

/// The file that begins at log index `first_index`, in a source's directory.
pub fn replica_file(source: &Path, first_index: u64) -> PathBuf {
    source.join(format!("{first_index:0DIGITS$}{SUFFIX}"))
}

/// Where earlier programs kept what they cut off a replica file from byte `at` on: beside it.
pub fn cut_file(file: &Path, at: u64) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!("{CUT}{at}"));
    PathBuf::from(name)
}

/// First index of the replica file that this was cut off, by its name.
pub fn cut_of(path: &Path) -> Option<u64> {
    let (file, at) = path.file_name()?.to_str()?.split_once(CUT)?;
    number(at).and(first_index(file))
}

/// The file that this was cut off, and the byte from which on.
pub fn cut_from(path: &Path) -> Option<(PathBuf, u64)> {
    cut_of(path)?;
    let (file, at) = path.file_name()?.to_str()?.split_once(CUT)?;
    Some((path.with_file_name(file), number(at)?))
}

/// Where a replica file in which nothing holds is kept, beside those that hold: the first of such
/// names is number 0.
pub fn aside_file(file: &Path, number: u64) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!("{ASIDE}{number}"));
    PathBuf::from(name)
}

/// First index of the replica file that was set aside here, by its name.
pub fn aside_of(path: &Path) -> Option<u64> {
    let (file, at) = path.file_name()?.to_str()?.split_once(ASIDE)?;
    number(at).and(first_index(file))
}

fn number(text: &str) -> Option<u64> {
    // What `parse` takes and nobody writes: a sign, zeros in front.
    let number = text.parse::<u64>().ok()?;
    (number.to_string() == text).then_some(number)
}

fn first_index(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let all_digits = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok()).flatten()
}

fn source_of(name: &str) -> Option<BrokerId> {
    let number = number(name.strip_prefix('b')?)?;
    usize::try_from(number).ok().and_then(BrokerId::new)
}

/// What a replica file is about, as its path says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The topic's name.
    pub name: String,
    /// When the topic was created.
    pub created_ns: u64,
    /// Broker whose batches are there.
    pub source: BrokerId,
    /// Log index that the file begins at.
    pub first_index: u64,
}

/// What the path of a replica file says of it; none where it lies elsewhere than such files do.
pub fn named(path: &Path) -> Option<Named> {
    let mut parts = path.iter().rev().map(|part| part.to_str());
    let first_index = first_index(parts.next()??)?;
    let source = source_of(parts.next()??)?;
    let created_ns = number(parts.next()??)?;
    let name = unescaped(parts.next()??)?;
    Some(Named { name, created_ns, source, first_index })
}

/// What a data directory holds, by name alone: no file was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Topics, by name and age.
    pub topics: Vec<TopicListing>,
    /// What is neither.
    pub strangers: Vec<PathBuf>,
}

/// A topic's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicListing {
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created_ns: u64,
    /// The directory.
    pub path: PathBuf,
    /// Sources, by number.
    pub sources: Vec<SourceListing>,
}

/// A source's directory in a topic's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceListing {
    /// The broker whose batches are there.
    pub source: BrokerId,
    /// The directory.
    pub path: PathBuf,
    /// First index and path of each file, ascending.
    pub files: Vec<(u64, PathBuf)>,
}

/// Names in a directory with their paths, sorted; `(None, path)` for one that is no UTF-8.
fn entries(path: &Path) -> Result<Vec<(Option<String>, PathBuf)>, FileError> {
    let mut found = Vec::new();
    watch::at(path);
    for entry in fs::read_dir(path).map_err(FileError::io("list", path))? {
        let entry = entry.map_err(FileError::io("list", path))?;
        if !watch::is_aside(&entry.path()) {
            found.push((entry.file_name().into_string().ok(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether there is a directory. What the system does not say is no answer: taken for none, what
/// lies in it would be passed over in silence.
pub(crate) fn is_directory(path: &Path) -> Result<bool, FileError> {
    watch::at(path);
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::io("look at", path)(error)),
    }
}

/// What the data directory `data` holds.
pub fn list(data: &Path) -> Result<Listing, FileError> {
    let mut listing = Listing::default();
    for (name, path) in entries(data)? {
        if name.as_deref().is_some_and(|name| OWN_FILES.contains(&name)) {
            continue;
        }
        let is_one = is_directory(&path)?;
        let Some(name) = name.as_deref().and_then(unescaped).filter(|_| is_one) else {
            listing.strangers.push(path);
            continue;
        };
        for (created, path) in entries(&path)? {
            let is_one = is_directory(&path)?;
            let created_ns = created.as_deref().and_then(number).filter(|_| is_one);
            let Some(created_ns) = created_ns else {
                listing.strangers.push(path);
                continue;
            };
            let sources = list_topic(&path, &mut listing.strangers)?;
            listing.topics.push(TopicListing { name: name.clone(), created_ns, path, sources });
        }
    }
    listing.topics.sort_by(|a, b| (&a.name, a.created_ns).cmp(&(&b.name, b.created_ns)));
    Ok(listing)
}

/// Names and ages of the topics that the data directory `data` has directories of. Nothing below
/// these is looked at.
pub fn ages(data: &Path) -> Result<Vec<(String, u64)>, FileError> {
    let mut ages = Vec::new();
    for (name, path) in entries(data)? {
        let is_own = name.as_deref().is_some_and(|name| OWN_FILES.contains(&name));
        let name = name.as_deref().and_then(unescaped).filter(|_| !is_own && path.is_dir());
        let Some(name) = name else { continue };
        let created = entries(&path)?.into_iter().filter_map(|(created, _)| number(&created?));
        ages.extend(created.map(|created_ns| (name.clone(), created_ns)));
    }
    Ok(ages)
}

/// The sources in a topic's directory.
pub fn list_topic(
    topic: &Path,
    strangers: &mut Vec<PathBuf>,
) -> Result<Vec<SourceListing>, FileError> {
    let mut sources = Vec::new();
    for (name, path) in entries(topic)? {
        let is_own = |name| matches!(name, TOPIC_FILE | TOPIC_COPY | TOPIC_GRAVE);
        if name.as_deref().is_some_and(is_own) || is_word(&path) {
            continue;
        }
        let is_one = is_directory(&path)?;
        match name.as_deref().and_then(source_of).filter(|_| is_one) {
            Some(source) => {
                let files = list_source(&path, strangers)?;
                sources.push(SourceListing { source, path, files });
            }
            None => strangers.push(path),
        }
    }
    sources.sort_by_key(|listing| listing.source);
    Ok(sources)
}

/// First index and path of each replica file in a source's directory, ascending.
pub fn list_source(
    source: &Path,
    strangers: &mut Vec<PathBuf>,
) -> Result<Vec<(u64, PathBuf)>, FileError> {
    let mut files = Vec::new();
    for (name, path) in entries(source)? {
        match name.as_deref().and_then(first_index) {
            Some(index) => files.push((index, path)),
            None => strangers.push(path),
        }
    }
    files.sort();
    Ok(files)
}

/// What was cut off replica files in a source's directory and kept: first index of the file, and
/// path.
pub fn list_cuts(source: &Path) -> Result<Vec<(u64, PathBuf)>, FileError> {
    let mut strangers = Vec::new();
    list_source(source, &mut strangers)?;
    let cut = |path: PathBuf| Some((cut_of(&path)?, path));
    Ok(strangers.into_iter().filter_map(cut).collect())
}

/// Replica files in a source's directory that were set aside: first index that the name had, and
/// path.
pub fn list_aside(source: &Path) -> Result<Vec<(u64, PathBuf)>, FileError> {
    let mut strangers = Vec::new();
    list_source(source, &mut strangers)?;
    let aside = |path: PathBuf| Some((aside_of(&path)?, path));
    Ok(strangers.into_iter().filter_map(aside).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(number: usize) -> BrokerId {
        BrokerId::new(number).unwrap()
    }

    #[test]
    fn a_topic_called_like_a_parent_directory_stays_inside() {
        for name in [".", "..", "a", "...", "orders.v1", ".hidden"].into_iter().chain(OWN_FILES) {
            let path = topic_directory(Path::new("/data"), name, 7);
            let directory = path.strip_prefix("/data").unwrap();
            let parts: Vec<_> = directory.components().map(|part| part.as_os_str()).collect();
            assert_eq!(parts.len(), 2, "{name:?} is in {}", path.display());
            assert_eq!(unescaped(parts[0].to_str().unwrap()).as_deref(), Some(name));
            assert!(!OWN_FILES.iter().any(|own| directory.starts_with(own)), "{name}");
        }
        assert_eq!(unescaped("a b"), None);
        assert_eq!(unescaped("%2Fetc"), None);
    }

    #[test]
    fn names_are_read_as_they_are_written_and_no_others_are() {
        let file = replica_file(Path::new("d"), 4711);
        assert_eq!(file, Path::new("d/00000000000000004711.replica"));
        assert_eq!(first_index("00000000000000004711.replica"), Some(4711));
        assert_eq!(first_index(&format!("{}{SUFFIX}", u64::MAX)), Some(u64::MAX));
        let too_large = "99999999999999999999.replica";
        for wrong in ["4711.replica", "0000000000000000471x.replica", too_large] {
            assert_eq!(first_index(wrong), None, "{wrong}");
        }
        let cut = cut_file(&file, 8192);
        assert_eq!(cut, Path::new("d/00000000000000004711.replica.cut-8192"));
        assert_eq!((cut_of(&cut), cut_of(&file)), (Some(4711), None));
        for wrong in ["4711.replica.cut-1", "00000000000000004711.replica.cut-", "x.cut-7"] {
            assert_eq!(cut_of(Path::new(wrong)), None, "{wrong}");
        }
        let aside = aside_file(&file, 1);
        assert_eq!(aside, Path::new("d/00000000000000004711.replica.aside-1"));
        assert_eq!((aside_of(&aside), aside_of(&file), aside_of(&cut)), (Some(4711), None, None));
        assert_eq!(
            (cut_of(&aside), first_index("00000000000000004711.replica.aside-1")),
            (None, None)
        );
        let path = replica_file(
            &source_directory(&topic_directory(Path::new("d"), "..", 77), broker(3)),
            12,
        );
        let said =
            Named { name: "..".to_owned(), created_ns: 77, source: broker(3), first_index: 12 };
        assert_eq!(named(&path), Some(said));
        for wrong in ["d/t/77/b3", "b3/00000000000000000012.replica", "d/t/x/b3/0.replica"] {
            assert_eq!(named(Path::new(wrong)), None, "{wrong}");
        }
        assert_eq!(source_of("b31"), Some(broker(31)));
        for wrong in ["b32", "b01", "b", "c1", "b+1"] {
            assert_eq!(source_of(wrong), None, "{wrong}");
        }
    }
}
