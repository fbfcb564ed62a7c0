//! Whether a hole in a copy is one: what is known of it when the copy is opened or goes on behind
//! it, and at each later look.
//!
//! A hole is none where each of its log indexes is in the copy's files by now, or one of these says
//! that the source has no entry there. Nothing else does, and what is likely is not known:
//! - The log passed it over when a pool was lost: no index of that was ever given to a batch that
//!   a disk has.
//! - It was in a pool alone that is gone (`unkept`): control says so at the end of that pool.
//! - A line of another keeper, whose copy is whole: it followed the log from its tail to `durable`,
//!   and had nothing to write. A stand-in's tail is where it began, or behind that.
//! - The log left memory while the source had no copy that anybody kept, or no ring: memory lets go
//!   of nothing that the source landed before its copies have it.
//! - An end in good order counted as many entries as the files have in front of it, and no
//!   directory says that the copy which was counted may have had a hole.
//! - Another home begins behind it, is whole, and no directory says of a hole or a lack of it: it
//!   has all that the source ever landed.
//! - Another copy's files, which can be read, left nothing out there and have nothing there.
//! - Another source's files, which can be read, have an entry at that index: an index has one.
//!
//! Each of these stays true, since a log never changes: what was known once is kept. None holds
//! against the last entry that a disk had when the topic came back.
//!
//! Where files go on behind what the log passed over, and the directory does not say that it has a
//! hole there, what lay in between was on no disk when that pool was lost, and was told of then:
//! whoever leaves a hole of which that is not known says it in the directory.

use landfall_layout::BrokerId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::replica::{Body, ReplicaState};
use landfall_pool::Pool;
use landfall_replica::holes::left;
use landfall_replica::names::list_source;
use landfall_replica::there::Places;
use landfall_replica::{Skips, TopicFile, Walk};

use super::known::{Facts, Range, join};
use super::{Event, Replica};
use crate::replica::begin::{Seam, is_last_in, seams_of};
use crate::replica::others::{Beginning, beginning_of};

/// How often holes are judged again where nothing is known to have changed, nanoseconds.
const LOOK_EVERY_NS: u64 = 60_000_000_000;
/// How often at most, where a line of one of the copies changed.
const CHANGED_EVERY_NS: u64 = 1_000_000_000;

/// What a line says that may decide on a hole: incarnation, state, error, `durable` and `tail`.
type Said = (u64, u32, u32, u64, u64);

/// Log indexes of which the copy may lack what its source landed. Another copy that is opened later
/// may show that it landed nothing there.
#[derive(Debug, Default)]
pub struct Doubts {
    holes: Vec<(u64, u64)>,
    /// The directory said of a hole before this pool, or of one that nobody can date.
    is_old: bool,
    /// When they were judged last, and the lines by which they were.
    looked_ns: u64,
    lines: Vec<Said>,
    /// Log indexes at which the source is known to have landed nothing that is missing here.
    empty: Vec<Range>,
    /// Files of others have more to say than was read at once.
    is_reading: bool,
}

impl Doubts {
    pub fn is_empty(&self) -> bool {
        self.holes.is_empty()
    }

    pub fn add(&mut self, hole: Range) {
        if !self.holes.contains(&hole) {
            self.holes.push(hole);
        }
    }

    pub fn holes(&self) -> &[Range] {
        &self.holes
    }

    /// They are judged again at the next look.
    pub fn look_again(&mut self) {
        self.looked_ns = 0;
    }
}

/// When a hole is judged: what a later pool says of disks says nothing of what was on them when the
/// files went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The files are to go on behind it.
    Now,
    /// They went on behind it, and the directory says of a hole there if it was one.
    Before,
}

impl Replica {
    /// Of a hole from log index `from` to below `to`: from where on it is in question whether the
    /// source landed something there, and whether nothing of the hole can be laid to these files.
    /// What lay between their end and what the log passed over was on no disk that could be read
    /// when a pool was lost, and was told of then; where there is no file, it is not known that
    /// this disk was one of them, nor where the directory says that it has that hole, nor where the
    /// files are older than their line and nobody counts what they lack, or than what disks had.
    pub(super) fn judge(&mut self, pool: &Pool, hole: Range, when: Judged) -> (u64, bool) {
        let (from, to) = hole;
        if is_last_in(hole, self.wanted) {
            return (from, false);
        }
        let skips = self.others.skips(self.log);
        let is_read = self.files.current.is_some() && !self.is_older_than_told();
        let had_all = when == Judged::Before || self.wanted <= from;
        let was_there = is_read && had_all && !self.says_hole(hole);
        let mut start = match was_there || skips.has_passed(from, to) {
            true => passed_over(&skips, hole),
            false => from,
        };
        let passed = skips.ranges().iter().map(|range| (range.index, range.to_index));
        let told = left((from, start), passed.filter(|(from, to)| from < to));
        if told.into_iter().any(|part| self.is_elsewhere(part)) {
            start = from;
        }
        let start = self.in_no_file((start, to));
        (start, self.missing(pool, (start, to)).is_empty())
    }

    /// What of a hole is not in the files, and not known to be nothing, whoever kept them before.
    pub(super) fn missing(&mut self, pool: &Pool, hole: Range) -> Vec<Range> {
        let lacks = left(hole, self.here());
        if lacks.is_empty() || lacks.iter().any(|part| is_last_in(*part, self.wanted)) {
            return lacks;
        }
        let facts = self.facts(pool);
        join(&mut self.doubts.empty, facts.empty());
        let of = |part: Range| left(part, self.doubts.empty.iter().copied());
        let parts: Vec<Range> = lacks.into_iter().flat_map(of).collect();
        parts.into_iter().filter(|part| !self.is_nothing_elsewhere(*part)).collect()
    }

    /// Log indexes in which the files have everything, or bounds let go of it.
    fn here(&self) -> Vec<Range> {
        // Behind what is no file yet nothing is known of.
        let is_begun = !self.anew && self.seam.is_none();
        let Some(first) = beginning_of(self.files.directory()).filter(|_| is_begun) else {
            return Vec::new();
        };
        let is_let_go = first.is_behind && self.row.is_bounded();
        let from = if is_let_go { 0 } else { first.index };
        let seams = seams_of(self.files.directory()).into_iter().map(|seam| (seam.from, seam.to));
        left((from, self.line.durable), seams)
    }

    /// Whether another copy that can be read has something there.
    fn is_elsewhere(&self, (from, to): Range) -> bool {
        matches!(self.others.again().next(from, to), Some((Some(_), _)))
    }

    /// Whether files that can be read say that the source has nothing there.
    fn is_nothing_elsewhere(&mut self, (from, to): Range) -> bool {
        let found = match self.others.again().next(from, to) {
            Some((None, true)) => to,
            Some((Some(_), _)) => return false,
            Some((None, false)) | None if self.log == SEQUENCED_LOG => {
                let (reached, is_all) = self.others.of_other_sources(from, to);
                self.doubts.is_reading |= !is_all;
                reached
            }
            Some((None, false)) | None => from,
        };
        join(&mut self.doubts.empty, [(from, found)]);
        found >= to
    }

    /// What is known without a look into files of others.
    fn facts(&self, pool: &Pool) -> Facts {
        let (uuid, source) = (pool.uuid_text(), self.duty.source);
        let said = self.others.said();
        let mut facts = Facts {
            skips: self.others.skips(self.log),
            begins: self.first_of_another(pool, &said),
            ..Facts::default()
        };
        let unkept = said.iter().flat_map(|file| &file.places.unkept);
        facts.unkept = unkept.filter(|it| it.is_of(self.log, source.raw())).copied().collect();
        let lines = pool.copy_lines(self.topic, source);
        let lines = lines.filter(|(line, _)| line.at != self.at.at);
        facts.lines = lines.map(|(_, line)| line).collect();
        let said: Vec<TopicFile> = said.into_iter().filter(|it| it.pool_uuid == uuid).collect();
        // Nothing leaves memory before its copies have it: of a copy that nobody kept in this pool
        // nothing has come since the log went on here, nor of a source that never had a ring.
        let is_silent = self.log == SEQUENCED_LOG && pool.ring(self.topic, source).is_none();
        let silent = is_silent.then(|| pool.oldest(self.topic, self.log));
        let resumed = said.iter().find_map(|file| Some(file.resumed_of(self.log)?.index));
        facts.quiet = resumed.zip(silent.max(self.unkept_to));
        facts.counted = self.as_many(&said);
        facts
    }

    /// Whether the directory says that it has a hole there.
    fn says_hole(&self, (from, to): (u64, u64)) -> bool {
        let own = self.files.directory().parent().and_then(|topic| TopicFile::read(topic).ok());
        let mut holes = own.into_iter().flat_map(|own| own.holes);
        let source = self.duty.source.raw();
        holes.any(|hole| hole.source == source && hole.from < to && from < hole.to)
    }

    /// Where the log had ended in good order before this pool, where the files have as many entries
    /// as the source had landed by then: those are all. It was counted by copies, so not where one
    /// of them said that it had a hole. `said`: by directories of this pool.
    fn as_many(&self, said: &[TopicFile]) -> Option<u64> {
        let source = self.duty.source.raw();
        if self.doubts.is_old || self.counted_with_hole() {
            return None;
        }
        let counts = |index: u64| match self.next <= index {
            true => Some(self.files.ordinal),
            false => self.entries_at(index),
        };
        let ends = said.iter().filter_map(|file| file.began.as_ref()?.logs.get(&self.log));
        let counted = ends.filter_map(|end| Some((end.index, *end.entries.get(&source)?)));
        let same = counted.filter(|(index, had)| counts(*index) == Some(*had));
        same.map(|(index, _)| index).max()
    }

    /// Whether another directory says that the copy which was counted before this pool may have had
    /// a hole.
    pub(super) fn counted_with_hole(&self) -> bool {
        self.others.said_elsewhere().iter().any(|file| self.says_of_old(file, None))
    }

    /// Whether a directory says of a hole of the source, or of what it lacks, and may have said so
    /// before this pool. In that of another, words of this broker are none of its own; in its own,
    /// only what `keeper` says counts, and what it has gone on without.
    fn says_of_old(&self, file: &TopicFile, keeper: Option<u8>) -> bool {
        let (me, source) = (self.me.raw(), self.duty.source.raw());
        let mut lacks = file.places.lacks.iter().filter(|lack| lack.source == source);
        let lacks = lacks.any(|lack| match keeper {
            Some(keeper) => lack.keeper == keeper && lack.is_torn,
            None => lack.keeper != me,
        });
        let has_hole = || file.holes.iter().any(|hole| hole.source == source);
        // One that was made in this pool said nothing before.
        file.made_at.is_empty() && (lacks || has_hole())
    }

    /// Takes up whether this broker's directory says so when the files are opened.
    pub(super) fn look_for_old_words(&mut self) {
        let own = self.files.directory().parent().and_then(|topic| TopicFile::read(topic).ok());
        self.doubts.is_old = own.is_none_or(|own| self.says_of_old(&own, Some(self.me.raw())));
    }

    /// Entries of the copy below log index `below`, where a file reaches so far.
    fn entries_at(&self, below: u64) -> Option<u64> {
        let files = list_source(self.files.directory(), &mut Vec::new()).ok()?;
        let (_, path) = files.into_iter().rev().find(|(first_index, _)| *first_index <= below)?;
        let mut walk = Walk::open(&path).ok()?;
        let mut entries = walk.header().first_ordinal;
        while let Some(record) = walk.next().ok()? {
            if record.header.index >= below {
                break;
            }
            let is_entry = matches!(record.body, Body::Batch { .. } | Body::Hole { .. });
            entries += u64::from(is_entry);
        }
        Some(entries)
    }

    /// Says that something may be missing there, as `what` shows.
    pub(super) fn doubtful(&mut self, hole: (u64, u64), (what, more): (&str, &str)) -> Event {
        self.doubts.add(hole);
        self.show_row();
        self.say_lacking(hole, (what, more))
    }

    /// Judges holes again, each minute and when a line of one of the source's copies changed: what
    /// nothing was in is none. The words on it are struck with the last one.
    pub(super) fn look_at_holes(&mut self, pool: &Pool, now_ns: u64) -> Option<Vec<Event>> {
        let since = now_ns.saturating_sub(self.doubts.looked_ns);
        let is_due = since >= CHANGED_EVERY_NS && self.duty.stand_in.is_none();
        if !is_due || self.doubts.is_empty() && self.seams.iter().all(Seam::is_short) {
            return None;
        }
        let lines = self.lines(pool);
        let is_reading = std::mem::take(&mut self.doubts.is_reading);
        if since < LOOK_EVERY_NS && !is_reading && lines == self.doubts.lines {
            return None;
        }
        (self.doubts.looked_ns, self.doubts.lines) = (now_ns, lines);
        let mut all = Vec::new();
        for hole in std::mem::take(&mut self.doubts.holes) {
            match self.missing(pool, hole).is_empty() {
                true => all.push(hole),
                false => self.doubts.holes.push(hole),
            }
        }
        for seam in std::mem::take(&mut self.seams) {
            let hole = (seam.from, seam.to);
            match !seam.is_short() && self.judge(pool, hole, Judged::Before).1 {
                true => all.push(hole),
                false => self.seams.push(seam),
            }
        }
        if !all.is_empty() && !self.has_hole() {
            self.doubts.is_old = false;
            self.take_up_lacks();
        }
        self.show_row();
        let source = self.duty.source;
        let note = |(from, to)| {
            Event::Note(format!(
                "{self}: nothing that broker {source} landed is missing at indexes {from} to {to}, \
                 as what is known by now says"
            ))
        };
        Some(all.into_iter().map(note).collect())
    }

    /// What the lines of all the source's copies say, as far as it may decide on what memory does
    /// not have any more.
    fn lines(&self, pool: &Pool) -> Vec<Said> {
        let oldest = pool.oldest(self.topic, self.log);
        let lines = pool.copy_lines(self.topic, self.duty.source);
        let lines = lines.filter(|(_, line)| line.incarnation != 0).map(|(_, line)| line);
        lines
            .map(|line| {
                let (durable, tail) = (line.durable.min(oldest), line.tail.min(oldest));
                (line.incarnation, line.state, line.errno, durable, tail)
            })
            .collect()
    }

    /// Up to where nothing that the source landed in the hole `from` to `to` was in any file when a
    /// pool was stopped in good order, with which it is gone; `from`: nowhere.
    fn in_no_file(&self, (from, to): (u64, u64)) -> u64 {
        let unkept = self.others.unkept().into_iter();
        let mine = unkept.filter(|it| it.is_of(self.log, self.duty.source.raw()));
        let within = mine.filter(|it| it.index <= from && it.to_index <= to);
        within.map(|it| it.to_index).fold(from, u64::max)
    }

    /// Where another home begins that has all that the source ever landed, as its line says: there
    /// is nothing before that. One that says of its directory that it lacks something may have
    /// begun there for want of it. `said`: by all directories that can be read.
    fn first_of_another(&self, pool: &Pool, said: &[TopicFile]) -> Option<u64> {
        let entry = pool.topic(self.topic)?;
        let source = self.duty.source;
        let begins = self.others.beginnings();
        let elsewhere = self.others.said_elsewhere();
        let mut holes = elsewhere.iter().flat_map(|file| &file.holes);
        if begins.is_empty() || holes.any(|hole| hole.source == source.raw()) {
            return None;
        }
        let mut places = Places::default();
        said.iter().for_each(|file| places.join(&file.places));
        let lacks = |home: BrokerId| {
            let mut lacks = places.lacks.iter();
            lacks.any(|lack| (lack.keeper, lack.source) == (home.raw(), source.raw()))
        };
        let first = |home: BrokerId| {
            // Its disk may have been another's when the file was written.
            let disk = places.disks.get(&home.raw()).map(|kept| kept.disk);
            let disk = disk.filter(|disk| *disk != 0);
            let is_its = |begin: &&Beginning| match disk {
                Some(disk) => begin.disk == disk,
                None => begin.broker == home.raw(),
            };
            let mut its = begins.iter().filter(is_its).peekable();
            let from = its.peek()?.index;
            let is_first = its.all(|it| (it.index, it.ordinal, it.is_behind) == (from, 0, false));
            is_first.then_some(from)
        };
        let copies = (0..entry.disk_replicas()).filter(|copy| *copy != self.duty.replica);
        let firsts = copies.filter_map(|copy| {
            let home = entry.replica_broker(source, copy).filter(|home| !lacks(*home))?;
            let line = pool.replica(self.topic, source, copy);
            let is_well = line.state() == ReplicaState::Well && line.errno == 0;
            let is_whole = line.incarnation != 0 && is_well;
            first(home).filter(|first| is_whole && line.durable >= *first)
        });
        firsts.max()
    }

    /// Whether the log ended in good order at `to` or behind it, before this pool, and the files
    /// reach as far as any copy had to then: there is nothing that they lack.
    pub(super) fn was_whole(&self, pool: &Pool, to: u64) -> bool {
        let (uuid, source) = (pool.uuid_text(), self.duty.source.raw());
        self.others.said().iter().filter(|file| file.pool_uuid == uuid).any(|file| {
            let log = file.began.as_ref().and_then(|began| began.logs.get(&self.log));
            log.is_some_and(|log| {
                log.index >= to && log.is_reached(source, self.next, self.files.ordinal)
            })
        })
    }
}

/// Up to where the log passed something over in the hole `from` to `to`; `from`: nowhere. What it
/// passed over behind the hole says nothing of it.
fn passed_over(skips: &Skips, (from, to): (u64, u64)) -> u64 {
    let within = skips.ranges().iter().filter(|range| range.index < to);
    let ends = within.map(|range| range.to_index.min(to));
    ends.filter(|end| *end >= from).max().unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use landfall_replica::Skipped;

    use super::*;

    #[test]
    fn what_was_passed_over_behind_a_hole_is_none_of_it() {
        let mut skips = Skips::default();
        skips.add(Skipped { position: 960, to_position: 7_865_280, index: 96, to_index: 786_528 });
        for (hole, start) in [
            ((70, 71), 70),
            ((70, 96), 70),
            ((70, 97), 97),
            ((90, 786_528), 786_528),
            ((90, 786_600), 786_528),
            ((786_528, 786_600), 786_528),
            ((786_600, 786_700), 786_600),
        ] {
            assert_eq!(passed_over(&skips, hole), start, "{hole:?}");
        }
    }
}
