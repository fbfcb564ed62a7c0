//! Whose the data directories are, and whether those are there that a topic has to have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use landfall_replica::numbers::NUMBERS_FILE;
use landfall_replica::there::{Disk, absent};
use landfall_replica::{FileError, Numbers, TopicFile};

use super::Kept;
use super::find::{Group, in_file, is_refused};
use crate::finding::{Finding, Severity, UNREAD};
use crate::mend;

/// What all directories of a topic say together.
#[derive(Debug)]
struct Said {
    file: TopicFile,
    pools: BTreeSet<String>,
    topics: Vec<PathBuf>,
}

/// Data directories, and the topics that say which of them they have to have.
#[derive(Debug, Default)]
pub struct Homes {
    disks: Vec<Disk>,
    said: BTreeMap<(String, u64), Said>,
}

impl Homes {
    /// Looks whose a data directory is.
    pub fn look(&mut self, data: &Path, kept: &mut Kept) {
        let disk = Disk::look(data);
        for fault in Numbers::faults(data) {
            let of = data.join(NUMBERS_FILE);
            let why = match &disk.fault {
                Some(_) => "it is not known whose the directory is",
                None => "its other copy is read",
            };
            let found = format!("{fault}; {why}");
            if is_refused(&fault) {
                kept.findings.push(in_file(Severity::Error, UNREAD, &of, None, found));
                continue;
            }
            let found = in_file(Severity::Error, "brokers", &of, None, found);
            kept.findings.push(Finding { mend: mend::BROKER_NAMES, ..found });
        }
        if Numbers::is_half_written(data) {
            let found = "its copy is later and holds: who wrote it is at it, or ended in between";
            let of = data.join(NUMBERS_FILE);
            let found = in_file(Severity::Warning, "brokers", &of, None, found);
            kept.findings.push(Finding { mend: mend::BROKER_NAMES, ..found });
        }
        self.disks.push(disk);
    }

    /// Brokers whose the data directory is that was looked at last, of a topic's directory in it.
    pub fn brokers(&self, topic: &Path) -> BTreeSet<u8> {
        self.disks.last().map(|disk| disk.brokers(topic)).unwrap_or_default()
    }

    /// Takes what a topic's directory says.
    pub fn add(&mut self, topic: &Path, file: &TopicFile) {
        let key = (file.name.clone(), file.created_ns);
        let said = self.said.entry(key).or_insert_with(|| Said {
            file: file.clone(),
            pools: BTreeSet::new(),
            topics: Vec::new(),
        });
        said.file.places.join(&file.places);
        said.pools.insert(file.pool_uuid.clone());
        said.topics.push(topic.to_owned());
    }

    /// Looks that everybody is there who kept a part of a copy, and that nobody's directory is
    /// another than the one that had the topic. Of homes that are not there what they had is said
    /// with what is missing, and where something could not be read nobody knows.
    pub fn judge(&self, group: &Group, kept: &mut Kept) {
        let mut faults = self.disks.iter().filter_map(|disk| disk.fault.as_ref());
        let files = group.sources.iter().flat_map(|source| &source.files);
        let refuses = |path: &Path| File::open(path).map_err(FileError::io("open", path)).err();
        let mut refused = files.filter_map(|(_, path)| refuses(path));
        if group.is_unread || faults.any(is_refused) || refused.any(|error| is_refused(&error)) {
            return;
        }
        let Some(said) = self.said.get(&(group.name.clone(), group.created_ns)) else { return };
        for absent in absent(&said.file, &said.pools, &said.topics, &self.disks) {
            let stood_in =
                said.file.places.parts.iter().any(|part| {
                    part.source == absent.source && absent.keepers.contains(&part.keeper)
                });
            if !stood_in && absent.anew.is_empty() {
                continue;
            }
            let keepers: Vec<String> = absent.keepers.iter().map(u8::to_string).collect();
            let what = if absent.is_part { "a part of what" } else { "what" };
            let anew: String = absent
                .anew
                .iter()
                .map(|path| format!("; {} was begun without it", path.display()))
                .collect();
            kept.findings.push(Finding {
                severity: Severity::Error,
                check: "keeper",
                of: format!("topic {}", group.name),
                at: None,
                found: format!(
                    "{what} broker {} landed is kept by broker {}, and no such directory of the \
                     topic is here{anew}",
                    absent.source,
                    keepers.join(" and ")
                ),
                mend: mend::MOUNT,
            });
        }
    }
}
