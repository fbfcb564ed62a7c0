//! Which of several topics of one name counts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landfall_replica::deletions::Deletion;
use landfall_replica::names::TopicListing;
use landfall_replica::{FileError, TopicFile};

use super::ColdError;
use super::read::{Found, is_missing};

/// A topic's directory, and what its file says.
pub type Listed = (TopicListing, Result<TopicFile, FileError>);

/// The directories that count.
#[derive(Default)]
pub struct Latest {
    /// Those of the topic that was made last.
    pub mine: Vec<Listed>,
    /// Those of one that was made earlier, and that nothing says was given up for it: the later one
    /// may be another system's.
    pub earlier: Vec<PathBuf>,
}

/// Of several topics of one name the latest counts. An earlier one was given up for it where it is
/// among `deleted`, its own file says so, or one data directory has both: whoever made the later
/// one there was told what lay there. What is passed over becomes a sentence.
pub fn latest(all: Vec<Listed>, deleted: &BTreeSet<Deletion>, notes: &mut Vec<String>) -> Latest {
    let topics = all.iter().filter(|(listing, read)| is_topic(listing, read));
    let last = topics.map(|(listing, _)| listing.created_ns).max();
    let data = |listing: &TopicListing| listing.path.parent().map(Path::to_owned);
    let later = all.iter().filter(|(listing, _)| Some(listing.created_ns) == last);
    let later: BTreeSet<_> = later.map(|(listing, _)| data(listing)).collect();
    let stood_beside = |created_ns: u64| {
        let mut same = all.iter().filter(|(listing, _)| listing.created_ns == created_ns);
        same.any(|(listing, _)| later.contains(&data(listing)))
    };
    let given_up: BTreeSet<u64> = all
        .iter()
        .filter(|(listing, read)| {
            deleted.contains(&(listing.name.clone(), listing.created_ns))
                || read.as_ref().is_ok_and(|file| file.deleted)
                || stood_beside(listing.created_ns)
        })
        .map(|(listing, _)| listing.created_ns)
        .collect();
    let mut found = Latest::default();
    for (listing, read) in all {
        let (path, name) = (listing.path.display(), &listing.name);
        if !is_topic(&listing, &read) {
            // A broker that died while it made the directory, or a full disk.
            notes.push(format!("{path} has neither topic.json nor a file of topic {name}: passed"));
        } else if Some(listing.created_ns) == last {
            found.mine.push((listing, read));
        } else if given_up.contains(&listing.created_ns) || !has_files(&listing) {
            notes.push(format!("{path} is of an earlier topic {name}: left alone"));
        } else {
            found.earlier.push(listing.path);
        }
    }
    found
}

/// [`ColdError::Hidden`]: another topic of the name would be hidden by the one that counts.
pub fn check(found: &Found) -> Result<(), ColdError> {
    let Some(earlier) = found.earlier.first() else { return Ok(()) };
    Err(ColdError::Hidden {
        name: found.file.name.clone(),
        earlier: earlier.clone(),
        later: found.directories.first().cloned().unwrap_or_default(),
    })
}

/// Whether there is anything of a topic in a directory: it may be only a name, also of sources.
/// What cannot be read may be anything.
fn is_topic(listing: &TopicListing, read: &Result<TopicFile, FileError>) -> bool {
    !read.as_ref().is_err_and(is_missing) || has_files(listing)
}

fn has_files(listing: &TopicListing) -> bool {
    listing.sources.iter().any(|source| !source.files.is_empty())
}
