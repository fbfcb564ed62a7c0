//! One replica of what one broker landed: its files, one behind the other.

use std::ops::Range;
use std::path::PathBuf;

use landfall_layout::frame::GapReason;
use landfall_layout::order::OrderEntry;
use landfall_layout::replica::{Body, HeaderError, LOG_UNKNOWN, NO_FILE, REPLICA_HEADER_BYTES};
use landfall_replica::names::{SourceListing, list_cuts, list_source};
use landfall_replica::survey::{Seam, seams};
use landfall_replica::{FileError, FileSurvey, Row, Skips, TopicFile, Walk};

use super::find::{Group, in_file, is_refused};
use super::{Kept, SourceKept};
use crate::finding::Severity::{Error, Note, Warning};
use crate::finding::{Finding, Findings, UNREAD};
use crate::mend;

/// Times that a directory is listed anew because files of it were taken while it was read. Each
/// time it begins behind those.
const LISTINGS_MAX: usize = 1000;

/// A batch or a hole that a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its index in the log.
    pub index: u64,
    /// Its first position.
    pub position: u64,
    /// Positions.
    pub count: u16,
    /// Broker that landed it.
    pub source: u8,
    /// Publisher.
    pub client: u64,
    /// Sequence in its session.
    pub batch_seq: u64,
    /// The session's epoch.
    pub session_epoch: u32,
    /// Its entry's checksum; none: a hole.
    pub checksum: Option<u32>,
    /// A hole where a batch was, whose bytes had changed before it was copied.
    pub is_lost: bool,
}

impl Seen {
    /// What stands behind an entry that holds.
    fn of(entry: &OrderEntry, checksum: Option<u32>) -> Self {
        Self {
            index: entry.commit.wrapping_sub(1),
            position: entry.first_position,
            count: entry.count,
            source: entry.broker,
            client: entry.client,
            batch_seq: entry.batch_seq,
            session_epoch: entry.session_epoch,
            checksum,
            is_lost: false,
        }
    }

    /// Whether nothing is at its positions.
    pub fn is_hole(&self) -> bool {
        self.checksum.is_none()
    }
}

/// What a source's files have.
#[derive(Clone, Debug)]
pub struct Source {
    /// The numbers.
    pub kept: SourceKept,
    /// The log that the indexes count.
    pub log: Option<u8>,
    /// An order, as headers say it.
    pub order: Option<u8>,
    /// Entries and positions that were ordered when a file was last written.
    pub ordered: Option<(u64, u64)>,
    /// Batches and holes, in order.
    pub entries: Vec<Seen>,
    /// All its files hold and are there, as far as they tell.
    pub is_whole: bool,
    /// Some of them could not be read: what they have may be whole.
    pub is_unread: bool,
    /// Entries of its broker up to the end of its files.
    pub ordinal: u64,
    /// Of these, those that are there, and those that bounds let go of.
    pub present: u64,
    /// Log indexes of files that are gone, though no bounds let go of them.
    pub taken: Vec<Range<u64>>,
    /// Log index below which everything may have been in another directory: this one was made then.
    pub made_at: u64,
    /// Its files, by where they were begun anew.
    pub rows: Vec<Row>,
    /// Log indexes among which something is missing that files had, or may have had.
    pub lost: Vec<Range<u64>>,
    /// Something that is no file of it lies among them.
    pub is_strange: bool,
}

/// Reads a source's files. Those of a system that runs change meanwhile: bounds take them from the
/// front. Where one is missing, what is there by then is what is judged. What is wrong with them
/// comes with it.
pub fn look(group: &Group, listing: &SourceListing, kept: &mut Kept) -> (Source, Findings) {
    let mut listing = listing.clone();
    let mut listings = 0;
    loop {
        listings += 1;
        let mut own = Kept::default();
        let is_last = listings == LISTINGS_MAX;
        match read(group, &listing, &mut own, |listing| changed(listing).filter(|_| !is_last)) {
            Ok(source) => {
                kept.tally.files += own.tally.files;
                kept.tally.bytes += own.tally.bytes;
                kept.tally.batches += own.tally.batches;
                return (source, own.findings);
            }
            Err(files) => listing.files = files,
        }
    }
}

/// The files of a directory, if others are there than were listed: more behind them do not count.
fn changed(listing: &SourceListing) -> Option<Vec<(u64, PathBuf)>> {
    let files = list_source(&listing.path, &mut Vec::new()).ok()?;
    let (last, _) = listing.files.last()?;
    let end = files.partition_point(|(first_index, _)| first_index <= last);
    (files[..end] != listing.files[..]).then_some(files)
}

/// Reads the files of a listing, or says what there is in their place: what `changed` says where
/// one of them is missing.
fn read(
    group: &Group,
    listing: &SourceListing,
    kept: &mut Kept,
    changed: impl Fn(&SourceListing) -> Option<Vec<(u64, PathBuf)>>,
) -> Result<Source, Vec<(u64, PathBuf)>> {
    let mut source = Source {
        kept: SourceKept {
            path: listing.path.clone(),
            source: listing.source.raw(),
            files: listing.files.len() as u64,
            batches: 0,
            bytes: 0,
            covers: Vec::new(),
            torn_bytes: 0,
        },
        log: None,
        order: None,
        ordered: None,
        entries: Vec::new(),
        is_whole: list_cuts(&listing.path).is_ok_and(|cuts| cuts.is_empty()),
        is_unread: false,
        ordinal: 0,
        present: 0,
        taken: Vec::new(),
        made_at: 0,
        rows: Vec::new(),
        lost: Vec::new(),
        is_strange: false,
    };
    let mut surveys = Vec::new();
    for (number, (first_index, path)) in listing.files.iter().enumerate() {
        let is_last = number + 1 == listing.files.len();
        kept.tally.files += 1;
        match file(path, &mut source, kept) {
            Ok(survey) => {
                source.is_strange |= !header(group, listing, *first_index, &survey, kept);
                damage(&survey, is_last, kept);
                source.log.get_or_insert(survey.header.log);
                source.order.get_or_insert(survey.header.order);
                source.kept.torn_bytes += survey.damaged_bytes();
                source.is_whole &= survey.damaged_bytes() == 0;
                if is_last && survey.tail.is_some() {
                    source.lost.push(survey.end.index..u64::MAX);
                }
                surveys.push(survey);
            }
            Err(error) => {
                if let Some(files) = changed(listing).filter(|_| is_gone(&error)) {
                    return Err(files);
                }
                if is_refused(&error) {
                    (source.is_unread, source.is_whole) = (true, false);
                    let found = error.to_string();
                    kept.findings.push(in_file(Error, UNREAD, path, None, found));
                    continue;
                }
                let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
                let begun = bytes > REPLICA_HEADER_BYTES;
                let unfinished = match &error {
                    FileError::Header { why: HeaderError::Short { .. }, .. } => true,
                    FileError::Header { why: HeaderError::Magic { found: 0 }, .. } => !begun,
                    _ => false,
                };
                let before = surveys.last().map_or(0, |survey: &FileSurvey| survey.end.ordinal);
                let had = source.had(group).filter(|had| *had > before);
                let finding = match (unfinished && is_last, had) {
                    (true, Some(had)) => {
                        let found = format!("{error}; {had} entries of broker {}", listing.source)
                            + " were on disk when its log ended in good order, and the files"
                            + &format!(" before this one have {before}");
                        in_file(Error, "file", path, Some(0), found)
                    }
                    (true, None) => in_file(
                        Warning,
                        "tail",
                        path,
                        Some(0),
                        format!("{error}; its broker ") + "died before it had a record",
                    ),
                    (false, _) => in_file(Error, "file", path, Some(0), error.to_string()),
                };
                source.is_whole &= unfinished && is_last && had.is_none();
                let next = listing.files.get(number + 1);
                source.lost.push(*first_index..next.map_or(u64::MAX, |(next, _)| *next));
                kept.findings.push(finding);
            }
        }
    }
    source.kept.covers = covers(&surveys);
    let seams = seams(&surveys);
    source.is_strange |= seams.iter().any(|seam| matches!(seam, Seam::Stranger { .. }));
    let is_broken = |seam: &Seam| !matches!(seam, Seam::Hole { .. });
    source.is_whole &= !seams.iter().any(is_broken);
    source.ordinal = surveys.last().map_or(0, |survey| survey.end.ordinal);
    // Around one that could not be read nothing is missing for certain.
    let mut unsaid = Kept::default();
    let kept = if source.is_unread { &mut unsaid } else { kept };
    source.count(group, &surveys, kept);
    // A directory that changes while it is listed may show a file and not the one before it.
    let is_missing = |seam: &Seam| matches!(seam, Seam::Missing { .. });
    if (seams.iter().any(is_missing) || !source.taken.is_empty())
        && let Some(files) = changed(listing)
    {
        return Err(files);
    }
    let between = source.kept.covers.windows(2).map(|pair| pair[0].end..pair[1].start);
    source.lost.extend(between.chain(source.taken.iter().cloned()));
    source.reach_ends(group, source.ordinal);
    source.rows = Row::all(surveys.iter().map(|survey| (&survey.header, survey.end.index)));
    if let (Some(topic), Some(log)) = (listing.path.parent(), source.log)
        && let Ok(file) = TopicFile::read(topic)
    {
        source.made_at = file.made_at.get(&usize::from(log)).copied().unwrap_or_default();
    }
    let skips = source.log.and_then(|log| group.skips.get(&log.into()));
    rows(seams, skips, kept);
    Ok(source)
}

/// Whether somebody took the file.
fn is_gone(error: &FileError) -> bool {
    matches!(error, FileError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

impl Source {
    /// Entries of its broker that some copy had when a log ended in good order.
    fn had(&self, group: &Group) -> Option<u64> {
        let logs = group.ended.iter().flat_map(|ended| ended.logs.values());
        logs.filter_map(|log| log.entries.get(&self.kept.source).copied()).max()
    }

    /// Counts what is there, and says where files are gone: one that begins anew still says how
    /// many entries the copy had before it.
    fn count(&mut self, group: &Group, surveys: &[FileSurvey], kept: &mut Kept) {
        // Only of a topic that is known to have no bounds.
        let is_bound = group.file.as_ref().is_none_or(|file| file.disk_bytes | file.disk_ns != 0);
        let lawful = surveys.first().filter(|_| is_bound);
        let mut before = lawful
            .map_or((0, 0), |survey| (survey.header.first_ordinal, survey.header.first_index));
        self.present = before.0;
        for (number, survey) in surveys.iter().enumerate() {
            let (header, (ordinal, index)) = (&survey.header, before);
            self.present += survey.batches + survey.holes;
            before = (survey.end.ordinal, survey.end.index);
            // A row that is broken otherwise is told of as that.
            let is_anew = header.previous_index == NO_FILE || number == 0;
            if !is_anew || header.first_ordinal <= ordinal {
                continue;
            }
            self.taken.push(index..header.first_index);
            let found =
                format!("{} entries of broker {}", header.first_ordinal - ordinal, header.source)
                    + &format!(" stood before it, between log indexes {index} and")
                    + &format!(" {}, and are not here", header.first_index);
            kept.findings.push(Finding {
                mend: mend::GONE,
                ..in_file(Error, "row", &survey.path, None, found)
            });
        }
    }

    /// Where its log ended in good order this replica had everything up to there, also what no
    /// record of it says, as long as it reaches what it had then. `ordinal`: entries that it has.
    fn reach_ends(&mut self, group: &Group, ordinal: u64) {
        let (source, log) = (self.kept.source, self.log.map(usize::from));
        for ended in group.ended.iter().filter_map(|ended| ended.logs.get(&log?)) {
            if let Some(last) = self.kept.covers.last_mut()
                && self.is_whole
                && ended.is_reached(source, last.end, ordinal)
            {
                last.end = last.end.max(ended.index);
            }
        }
    }
}

/// Reads one file from its first to its last byte.
fn file(
    path: &std::path::Path,
    source: &mut Source,
    kept: &mut Kept,
) -> Result<FileSurvey, FileError> {
    let mut walk = Walk::open(path)?;
    let survey = FileSurvey::of(&mut walk, path)?;
    walk.go_to(landfall_layout::replica::Place::first(&survey.header));
    while let Some(record) = walk.next()? {
        match record.body {
            Body::Batch { entry, .. } => {
                source.entries.push(Seen::of(&entry, Some(entry.checksum)));
            }
            Body::Hole { entry, reason } => {
                let is_lost = reason == GapReason::Corrupt;
                source.entries.push(Seen { is_lost, ..Seen::of(&entry, None) });
            }
            Body::Frontier(line) => {
                if line.entries < record.header.index {
                    let found = format!("the log had {} entries when all of the", line.entries)
                        + &format!(" broker's below {} were there", record.header.index);
                    let at = Some(record.header.at);
                    kept.findings.push(in_file(Error, "frontier", path, at, found));
                }
                source.ordered = source.ordered.max(Some((line.entries, line.position)));
            }
        }
    }
    kept.tally.bytes += survey.bytes;
    kept.tally.batches += survey.batches;
    source.kept.batches += survey.batches;
    source.kept.bytes += survey.batch_bytes;
    Ok(survey)
}

/// Whether a file is where it belongs.
fn header(
    group: &Group,
    listing: &SourceListing,
    first_index: u64,
    survey: &FileSurvey,
    kept: &mut Kept,
) -> bool {
    let header = &survey.header;
    let mut is_its = true;
    let mut wrong = |found: String| {
        is_its = false;
        let found = in_file(Error, "file", &survey.path, Some(0), found);
        kept.findings.push(Finding { mend: mend::STRANGE, ..found });
    };
    if header.name() != group.name || header.created_ns != group.created_ns {
        wrong(format!("it is of topic {}, created at {}", header.name(), header.created_ns));
    }
    if header.source != listing.source.raw() {
        wrong(format!("it is of broker {} and lies with {}'s", header.source, listing.source));
    }
    if header.first_index != first_index {
        wrong(format!("it begins at entry {} and is called otherwise", header.first_index));
    }
    is_its
}

/// What does not hold in a file.
fn damage(survey: &FileSurvey, is_last: bool, kept: &mut Kept) {
    let path = &survey.path;
    if let Some(why) = survey.header_fault {
        let found = format!("{why}; its records are read all the same");
        // Without its log nobody writes it again but its broker, who knows the topic.
        let finding = match survey.header.log {
            LOG_UNKNOWN => in_file(Error, "file", path, Some(0), found),
            _ => Finding {
                mend: if is_last { mend::HEADER } else { mend::HEADER_BEFORE },
                ..in_file(Error, super::HEADER, path, Some(0), found)
            },
        };
        kept.findings.push(finding);
    }
    for damage in &survey.damage {
        kept.findings.push(in_file(Error, "record", path, Some(damage.at), damage.to_string()));
    }
    let Some(tail) = &survey.tail else { return };
    let (severity, check, more) = match (is_last, tail.is_unfinished()) {
        (true, true) => (Warning, "tail", ""),
        (true, false) => (Error, "record", "; that is not how a crash leaves an end"),
        (false, _) => (Error, "record", "; other files follow this one"),
    };
    let found = format!("{tail}{more}");
    kept.findings.push(in_file(severity, check, path, Some(tail.at), found));
}

/// The log indexes within which a row of files has everything of its broker.
fn covers(surveys: &[FileSurvey]) -> Vec<Range<u64>> {
    let mut covers: Vec<Range<u64>> = Vec::new();
    for (number, survey) in surveys.iter().enumerate() {
        let joins = number.checked_sub(1).and_then(|before| surveys.get(before..=number));
        let joined = joins.is_some_and(|pair| seams(pair).is_empty());
        let mut start = survey.header.first_index;
        if let Some(last) = covers.pop_if(|_| joined) {
            // A file says that those before it have everything below its first index.
            start = last.start;
        }
        for damage in survey.damage.iter().filter(|damage| damage.entries() != Some(0)) {
            let missing = damage.indexes();
            covers.push(start..missing.start);
            start = missing.end;
        }
        covers.push(start..survey.end.index);
    }
    covers
}

/// What of a hole in a row of files the log did not pass over when a pool was lost: what it did
/// nobody wrote, and no copy has it.
fn unexplained(hole: Range<u64>, skips: Option<&Skips>) -> Option<Range<u64>> {
    let Range { mut start, mut end } = hole;
    let ranges = || skips.into_iter().flat_map(Skips::ranges);
    for range in ranges().filter(|range| range.index < range.to_index) {
        if range.index <= start {
            start = start.max(range.to_index);
        }
    }
    for range in ranges().rev() {
        if end <= range.to_index {
            end = end.min(range.index);
        }
    }
    (start < end).then_some(start..end)
}

/// What is wrong from one file to the next.
fn rows(seams: Vec<Seam>, skips: Option<&Skips>, kept: &mut Kept) {
    for seam in seams {
        let is_strange = matches!(seam, Seam::Stranger { .. });
        let (severity, path, found) = match seam {
            Seam::Missing { path, wanted, found } => {
                let found = found.map_or("none".to_owned(), |found| format!("that from {found}"));
                (
                    Error,
                    path,
                    format!("the file from entry {wanted} is missing before it; {found} is"),
                )
            }
            Seam::Short { path, ordinal, wanted } => (
                Error,
                path,
                format!(
                    "it ends with entry {ordinal} of its broker and the next file begins \
                                       with entry {wanted}"
                ),
            ),
            Seam::Hole { path, indexes } => {
                let Some(Range { start, end }) = unexplained(indexes, skips) else { continue };
                (
                    Note,
                    path,
                    format!(
                        "the replica began anew here: entries {start} to {end} are not \
                                      known to be in it"
                    ),
                )
            }
            Seam::Stranger { path } => (
                Error,
                path,
                "it is not of the same topic, broker and log as the one before".into(),
            ),
        };
        let found = in_file(severity, "row", &path, None, found);
        let mend = if is_strange { mend::STRANGE } else { found.mend };
        kept.findings.push(Finding { mend, ..found });
    }
}

#[cfg(test)]
mod tests {
    use landfall_replica::lives::Skipped;

    use super::*;

    #[test]
    fn what_the_log_passed_over_is_missing_in_no_copy() {
        let mut skips = Skips::default();
        for (index, to_index) in [(8, 100), (200, 300)] {
            skips.add(Skipped { position: index, to_position: to_index, index, to_index });
        }
        let left = |hole| unexplained(hole, Some(&skips));
        assert_eq!(left(8..100), None, "nobody wrote it");
        assert_eq!((left(5..100), left(8..110)), (Some(5..8), Some(100..110)));
        assert_eq!((left(5..300), left(100..200)), (Some(5..200), Some(100..200)));
        assert_eq!(left(90..250), Some(100..200));
        assert_eq!(unexplained(8..100, None), Some(8..100));
    }
}
