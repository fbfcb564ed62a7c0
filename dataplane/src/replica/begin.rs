//! Where a copy begins: its files' header, and the log index where it goes on in
//! place of another broker; and what a copy lacks that memory has no more.

use std::path::{Path, PathBuf};

use landfall_layout::replica::{Body, NO_FILE, ReplicaHeader};
use landfall_layout::topic::TopicEntry;
use landfall_pool::Pool;
use landfall_replica::names::list_source;
use landfall_replica::{FileError, FileSurvey, Walk};

use super::duties::Duty;
use super::group::Group;
use super::others::Others;
use super::said::Keeper;

/// Where a stand-in goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Begin {
    /// At this log index, in a file of its own if something is missing before it.
    At { index: u64, anew: bool },
    /// Nowhere: its files leave out what lies between, and begin behind it.
    Behind { files_from: u64, index: u64 },
}

impl Begin {
    /// Where a stand-in goes on whose files in `directory` reach `covers`, if there are some. Its
    /// copy is durable below `elsewhere` with other keepers. `resumes`: it has kept this very copy
    /// before, so that what it has begins where others ended.
    pub fn of(
        directory: &Path,
        covers: u64,
        elsewhere: u64,
        resumes: bool,
    ) -> Result<Self, FileError> {
        let from = run_from(directory)?;
        Ok(Self::judge(from.map(|from| (from, covers)), elsewhere, resumes))
    }

    /// The same, of files that have everything from one log index to another.
    fn judge(files: Option<(u64, u64)>, elsewhere: u64, resumes: bool) -> Self {
        match files {
            None => Self::At { index: elsewhere, anew: false },
            Some((_, covers)) if covers <= elsewhere => {
                Self::At { index: elsewhere, anew: covers < elsewhere }
            }
            Some((run_from, covers)) if resumes || run_from <= elsewhere => {
                Self::At { index: covers, anew: false }
            }
            Some((files_from, _)) => Self::Behind { files_from, index: elsewhere },
        }
    }

    /// Why a stand-in cannot begin.
    pub fn refusal(&self, directory: &Path) -> FileError {
        let why = match self {
            Self::At { index, .. } => format!("it goes on at log index {index}"),
            Self::Behind { files_from, index } => format!(
                "a copy is to go on here at log index {index} in place of its home, and the files \
                 begin behind that, at {files_from}; move them to a directory that is read with \
                 --read-data"
            ),
        };
        FileError::Topic { path: directory.to_owned(), why }
    }
}

/// That a stand-in has lost what it had kept.
pub fn lacking(directory: &Path, from: u64, oldest: u64) -> String {
    format!(
        "{}: the log begins at index {oldest} and what was kept here in place of another broker \
         reaches {from}: what lay between is not on this disk",
        directory.display()
    )
}

/// Log index from which on the files of a directory have everything, up to where the last one
/// ends.
fn run_from(directory: &Path) -> Result<Option<u64>, FileError> {
    let mut files = list_source(directory, &mut Vec::new())?;
    let mut from = None;
    while let Some((_, path)) = files.pop() {
        let header = *Walk::open(&path)?.header();
        from = Some(header.first_index);
        if header.previous_index == NO_FILE
            || files.last().is_none_or(|(first_index, _)| *first_index != header.previous_index)
        {
            break;
        }
    }
    Ok(from)
}

/// Log indexes that the files of a directory leave out, where one of them begins anew behind
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seam {
    /// Where the file in front ends.
    pub from: u64,
    /// Where the one behind begins.
    pub to: u64,
    /// Entries up to there, as the file in front has them.
    pub has: u64,
    /// The same, as the one behind says.
    pub had: u64,
}

impl Seam {
    /// Whether entries are gone that the copy had.
    pub fn is_short(&self) -> bool {
        self.has < self.had
    }
}

/// The places where the files of a directory leave something out. Only what is in front of such a
/// place is read.
pub fn seams_of(directory: &Path) -> Vec<Seam> {
    let files = list_source(directory, &mut Vec::new()).unwrap_or_default();
    let is_anew = |path: &Path| {
        let header = *Walk::open(path).ok()?.header();
        (header.previous_index == NO_FILE).then_some(header)
    };
    let seam = |pair: &[(u64, PathBuf)]| {
        let [(_, before), (_, after)] = pair else { return None };
        let header = is_anew(after)?;
        let to = header.first_index;
        // What does not hold is told of as damage.
        let survey = FileSurvey::take(before).ok()?;
        let (from, has, had) = (survey.end.index, survey.end.ordinal, header.first_ordinal);
        (from < to).then_some(Seam { from, to, has, had })
    };
    files.windows(2).filter_map(seam).collect()
}

/// What became of a look for what memory has no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Everything below this index is in the group, or is nowhere and never was.
    To(u64),
    /// What lies below this index may be somewhere that cannot be read here.
    Not(u64),
}

/// Looks for the next entry from `index` on and below `oldest` that other replicas have, and copies
/// it into the group, if there is one. The source has an entry right below `tail`, whatever others
/// say: they may have no copy of it.
#[cold]
pub fn fill(
    group: Option<&mut Group>,
    others: &mut Others,
    (index, tail): (u64, u64),
    oldest: u64,
) -> Filled {
    let Some((found, is_known)) = others.next(index, oldest) else { return Filled::Not(oldest) };
    let Some(record) = found else {
        let is_nothing = is_known && !is_last_in((index, oldest), tail);
        return if is_nothing { Filled::To(oldest) } else { Filled::Not(oldest) };
    };
    let next = record.header.index;
    if !is_known && next > index {
        return Filled::Not(next);
    }
    let Some(group) = group else { return Filled::To(next) };
    match record.body {
        Body::Batch { entry, preamble, payload } => {
            group.add_copy(next, &entry, &(preamble, payload.to_vec()));
        }
        Body::Hole { entry, reason } => group.add_hole(next, &entry, reason),
        Body::Frontier(_) => {}
    }
    Filled::To(next + 1)
}

/// Whether the entry right below `tail` is at an index of that range; there is none where it is 0.
pub fn is_last_in((from, to): (u64, u64), tail: u64) -> bool {
    tail.checked_sub(1).is_some_and(|last| (from..to).contains(&last))
}

/// What the header of each of a replica's files says, but for where it begins.
pub fn template(
    pool: &Pool,
    entry: &TopicEntry,
    duty: Duty,
    log: usize,
    keeper: Keeper,
) -> ReplicaHeader {
    let mut header = ReplicaHeader::from_bytes([0; ReplicaHeader::BYTES as usize]);
    header.pool_uuid = pool.header().uuid;
    header.created_ns = entry.created_ns;
    header.topic = entry.id;
    header.source = duty.source.raw();
    header.replica = duty.replica as u8;
    header.log = log as u8;
    header.order = entry.order;
    header.broker = keeper.me.raw();
    header.replicas = entry.replicas;
    header.replica_brokers = entry.replica_brokers;
    header.flags = entry.flags;
    header.name_bytes = entry.name_bytes;
    header.name = entry.name;
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_begins_where_the_others_ended() {
        assert_eq!(Begin::judge(None, 70, false), Begin::At { index: 70, anew: false });
        assert_eq!(Begin::judge(Some((0, 70)), 70, false), Begin::At { index: 70, anew: false });
        assert_eq!(Begin::judge(Some((0, 50)), 70, false), Begin::At { index: 70, anew: true });
    }

    #[test]
    fn what_it_has_itself_counts_where_nothing_is_missing_before_it() {
        assert_eq!(Begin::judge(Some((60, 90)), 70, false), Begin::At { index: 90, anew: false });
        assert_eq!(Begin::judge(Some((80, 90)), 70, true), Begin::At { index: 90, anew: false });
        let behind = Begin::Behind { files_from: 80, index: 70 };
        assert_eq!(Begin::judge(Some((80, 90)), 70, false), behind);
    }
}
