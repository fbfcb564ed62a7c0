//! Whether a hole in a copy is one: what is known of it when the copy is opened or goes on behind
//! it, and at each later look.

use landfall_layout::BrokerId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::replica::{Body, ReplicaState};
use landfall_pool::Pool;
use landfall_replica::names::list_source;
use landfall_replica::there::Places;
use landfall_replica::{Skips, TopicFile, Walk};

use super::{Event, Replica};
use crate::replica::begin::{Seam, is_last_in};
use crate::replica::others::Beginning;

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
}

impl Doubts {
    pub fn is_empty(&self) -> bool {
        self.holes.is_empty()
    }

    pub fn add(&mut self, hole: (u64, u64)) {
        self.holes.push(hole);
    }
}

impl Replica {
    /// Of a hole from log index `from` to below `to`: from where on it is in question whether the
    /// source landed something there, and whether nothing of the hole can be laid to these files.
    /// What lay between their end and what the log passed over was on no disk that could be read
    /// when a pool was lost, and was told of then; where there is no file, it is not known that
    /// this disk was one of them, nor where the directory says that it has that hole, nor where the
    /// files are older than their line and nobody counts what they lack.
    pub(super) fn judge(&self, pool: &Pool, (from, to): (u64, u64)) -> (u64, bool) {
        if is_last_in((from, to), self.wanted) {
            return (from, false);
        }
        let skips = self.others.skips(self.log);
        let is_read = self.files.current.is_some() && !self.is_older_than_told();
        let was_there = is_read && !self.says_hole((from, to)) || skips.has_passed(from, to);
        let start = if was_there { passed_over(&skips, (from, to)) } else { from };
        let start = self.in_no_file((start, to));
        // Nothing leaves memory before its copies have it: of a copy that nobody kept in this pool
        // nothing has come since the log went on here, nor of a source that never had a ring.
        let never_landed =
            self.log == SEQUENCED_LOG && pool.ring(self.topic, self.duty.source).is_none();
        let resumed = || {
            let uuid = pool.uuid_text();
            let said = self.others.said();
            let mut said = said.iter().filter(|file| file.pool_uuid == uuid);
            said.find_map(|file| file.resumed.get(&self.log).map(|resumed| resumed.index))
        };
        let is_empty = (self.is_first || never_landed)
            && resumed().is_some_and(|index| index <= start)
            || self.is_nothing(pool, (start, to));
        (start, is_empty)
    }

    /// Whether it is known that the source landed nothing that is missing from log index `from` to
    /// below `to`, whoever kept these files before.
    pub(super) fn is_nothing(&self, pool: &Pool, (from, to): (u64, u64)) -> bool {
        !is_last_in((from, to), self.wanted)
            && (from >= to
                || self.others.skips(self.log).has_passed(from, to)
                || self.landed_nothing(pool, (from, to))
                || self.is_first_behind(pool, to)
                || self.has_as_many(pool, to)
                || matches!(self.others.again().next(from, to), Some((None, true))))
    }

    /// Whether the directory says that it has a hole there.
    fn says_hole(&self, (from, to): (u64, u64)) -> bool {
        let own = self.files.directory().parent().and_then(|topic| TopicFile::read(topic).ok());
        let mut holes = own.into_iter().flat_map(|own| own.holes);
        let source = self.duty.source.raw();
        holes.any(|hole| hole.source == source && hole.from < to && from < hole.to)
    }

    /// Whether the files have as many entries as the source had landed when its log ended in good
    /// order, before this pool, at log index `to` or behind it: those are all. It was counted by
    /// copies, so not where one of them said that it had a hole.
    fn has_as_many(&self, pool: &Pool, to: u64) -> bool {
        let (uuid, source) = (pool.uuid_text(), self.duty.source.raw());
        let elsewhere = self.others.said_elsewhere();
        if self.doubts.is_old || elsewhere.iter().any(|file| self.says_of_old(file, None)) {
            return false;
        }
        let said = self.others.said().into_iter().filter(|file| file.pool_uuid == uuid);
        let ends = said.filter_map(|file| file.began?.logs.remove(&self.log));
        let counts = |index: u64| match self.next <= index {
            true => Some(self.files.ordinal),
            false => self.entries_at(index),
        };
        ends.filter(|end| end.index >= to).any(|end| {
            let had = end.entries.get(&source).copied();
            had.is_some() && counts(end.index) == had
        })
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
        if since < LOOK_EVERY_NS && lines == self.doubts.lines {
            return None;
        }
        (self.doubts.looked_ns, self.doubts.lines) = (now_ns, lines);
        let (holes, seams) = (std::mem::take(&mut self.doubts.holes), self.seams.clone());
        let (empty, left): (Vec<_>, Vec<_>) =
            holes.into_iter().partition(|hole| self.is_nothing(pool, *hole));
        self.doubts.holes = left;
        let is_empty = |seam: &Seam| !seam.is_short() && self.judge(pool, (seam.from, seam.to)).1;
        let (closed, seams): (Vec<_>, Vec<_>) = seams.into_iter().partition(is_empty);
        self.seams = seams;
        let closed = closed.into_iter().map(|seam| (seam.from, seam.to));
        let all: Vec<(u64, u64)> = empty.into_iter().chain(closed).collect();
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

    /// Whether another copy of this pool says that the source landed nothing from log index `from`
    /// to below `to`.
    fn landed_nothing(&self, pool: &Pool, (from, to): (u64, u64)) -> bool {
        pool.copy_lines(self.topic, self.duty.source)
            .filter(|(line, _)| line.at != self.at.at)
            .any(|(_, line)| line.incarnation != 0 && line.tail <= from && line.durable >= to)
    }

    /// Whether a home has all that the source ever landed, as its line says, and the first entry of
    /// that lies at log index `to` or behind it. One that says of its directory that it lacks
    /// something may have begun there for want of it.
    fn is_first_behind(&self, pool: &Pool, to: u64) -> bool {
        let Some(entry) = pool.topic(self.topic) else { return false };
        let source = self.duty.source;
        let begins = self.others.beginnings();
        let said = self.others.said();
        let mut places = Places::default();
        said.iter().for_each(|file| places.join(&file.places));
        let disks = places.disks;
        let lacks = |home: BrokerId| {
            let mut lacks = said.iter().flat_map(|file| &file.places.lacks);
            lacks.any(|lack| (lack.keeper, lack.source) == (home.raw(), source.raw()))
        };
        let is_whole = |copy: usize, home: BrokerId| {
            let line = pool.replica(self.topic, source, copy);
            let is_well = line.state() == ReplicaState::Well && line.errno == 0;
            line.incarnation != 0 && is_well && line.durable >= to && !lacks(home)
        };
        let is_first = |home: BrokerId| {
            // Its disk may have been another's when the file was written.
            let disk = disks.get(&home.raw()).map(|kept| kept.disk).filter(|disk| *disk != 0);
            let is_its = |begin: &&Beginning| match disk {
                Some(disk) => begin.disk == disk,
                None => begin.broker == home.raw(),
            };
            let mut its = begins.iter().filter(is_its).peekable();
            let Some(from) = its.peek().map(|it| it.index) else { return false };
            // Its file begins where the log went on, and entries of others may come first.
            its.all(|it| (it.index, it.ordinal, it.is_behind) == (from, 0, false))
                && (from >= to || matches!(self.others.again().next(from, to), Some((None, true))))
        };
        let copies = (0..entry.disk_replicas()).filter(|copy| *copy != self.duty.replica);
        let homes = copies.filter_map(|copy| Some((copy, entry.replica_broker(source, copy)?)));
        homes.into_iter().any(|(copy, home)| is_whole(copy, home) && is_first(home))
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
