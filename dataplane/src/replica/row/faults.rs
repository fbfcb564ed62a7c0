//! What is wrong with files of a row, and what is said of it.

use std::io;
use std::ops::Range;
use std::path::Path;

use landfall_layout::replica::{HeaderError, LOG_UNKNOWN, RecordError, ReplicaHeader};
use landfall_replica::FileError;

use super::Row;

/// The system's number for a disk that cannot read.
const EIO: i32 = 5;

/// What does not hold.
pub struct Fault {
    /// It was said that nobody has it.
    pub is_nowhere: bool,
}

/// What there is to be told.
#[derive(Debug)]
pub enum Told {
    /// Something is wrong with a file.
    Fault(String),
    /// Something was written again.
    Mended(String),
}

impl Row {
    /// Says what is wrong, if that was not said, and lets it be for now.
    pub(super) fn leave(&mut self, first_index: u64, path: &Path, why: &str) -> Vec<Told> {
        self.tried.insert(first_index);
        self.fault(first_index, path, (why, first_index..first_index)).into_iter().collect()
    }

    /// Notes what is wrong with a file or before it; says so the first time.
    pub(super) fn fault(
        &mut self,
        first_index: u64,
        path: &Path,
        (what, range): (&str, Range<u64>),
    ) -> Option<Told> {
        let (path, source) = (path.display().to_string(), self.template.source);
        let what = what.strip_prefix(&format!("{path}: ")).unwrap_or(what);
        if self.faults.contains_key(&first_index) {
            return None;
        }
        self.faults.insert(first_index, Fault { is_nowhere: false });
        let Range { start, end } = range;
        Some(Told::Fault(match start < end {
            true => format!(
                "{path}: {what}: what broker {source} landed at indexes {start} to {end} is not \
                 all on this disk; it is written again if memory or another copy that can be read \
                 here has it"
            ),
            false => format!("{path}: {what}; mend the cause and start this broker again"),
        }))
    }

    /// That nobody has it, if that was not said.
    pub(super) fn nowhere(&mut self, first_index: u64, path: &Path) -> Option<Told> {
        let fault = self.faults.get_mut(&first_index)?;
        if std::mem::replace(&mut fault.is_nowhere, true) {
            return None;
        }
        Some(Told::Fault(format!(
            "{}: neither memory nor a copy that can be read here has all that is missing in it or \
             in front of it; let this broker read the directories of all others (--read-data): it \
             looks again every minute",
            path.display()
        )))
    }

    /// Why a file is none of this row's.
    pub(super) fn why_strange(&self, header: &ReplicaHeader) -> Option<String> {
        let of = |header: &ReplicaHeader| (header.created_ns, header.source);
        let same_log = [self.template.log, LOG_UNKNOWN].contains(&header.log);
        let is_ours =
            of(header) == of(&self.template) && same_log && header.name() == self.template.name();
        (!is_ours).then(|| {
            format!(
                "it is about broker {} in log {} of topic {} of {}; move it away",
                header.source,
                header.log,
                header.name(),
                header.created_ns
            )
        })
    }

    /// What the system did not let it write; it is tried again.
    pub(super) fn cannot(&mut self, key: u64, path: &Path, error: &FileError) -> Vec<Told> {
        self.tried.insert(key);
        let Some(fault) = self.faults.get_mut(&key) else { return Vec::new() };
        if std::mem::replace(&mut fault.is_nowhere, true) {
            return Vec::new();
        }
        let path = path.display();
        vec![Told::Fault(format!(
            "{path}: {error}: what is missing in it or in front of it is not written again; it is \
             tried again every minute"
        ))]
    }
}

/// What a record has wrong.
pub fn say_broken(at: u64, why: &RecordError) -> String {
    format!("what stands at byte {at} does not hold: {why}")
}

/// Whether bounds took it, or somebody.
pub fn is_gone(error: &FileError) -> bool {
    matches!(error, FileError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// Whether a file's bytes are not what was written: it may be replaced then. A file of another
/// version holds, and what the system refuses may be there again.
pub fn is_damage(error: &FileError) -> bool {
    match error {
        FileError::Io { source, .. } => source.raw_os_error() == Some(EIO),
        FileError::Header { why, .. } => !matches!(why, HeaderError::Version { .. }),
        _ => false,
    }
}
