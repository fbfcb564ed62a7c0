//! Where a replica's files begin, and what is not in them although other copies have it, or may.

use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::replica::{ENODATA, ReplicaLine, ReplicaState};
use landfall_layout::topic::TopicEntry;
use landfall_pool::Pool;

use super::doubt::Judged;
use super::{Event, Replica};
use crate::replica::begin::{Seam, is_last_in, seams_of};
use crate::replica::others::beginning_of;

impl Replica {
    /// Begins what has no files and is not known to have been kept by anybody (`is_new`), in a log
    /// whose memory begins at index `oldest`; looks at where there are files whether they begin
    /// behind those of another copy.
    pub(super) fn begin(
        &mut self,
        pool: &Pool,
        entry: &TopicEntry,
        (oldest, is_new): (u64, bool),
    ) -> Vec<Event> {
        if self.duty.stand_in.is_some() {
            return Vec::new();
        }
        self.look_for_old_words();
        if self.files.current.is_some() {
            let mut events = self.compare_beginnings(pool, entry);
            events.extend(self.compare_seams(pool));
            return events;
        }
        if oldest <= self.next {
            return Vec::new();
        }
        if is_new && !self.may_have_landed(pool, entry, (self.next, oldest)) {
            (self.next, self.anew) = (oldest, true);
            (self.line.written, self.line.durable) = (oldest, oldest);
            return Vec::new();
        }
        // Bounds let go of the same files here.
        if let Some(first) = self.others.beginning()
            && first.is_behind
            && self.bounds.is_set()
            && (self.next..oldest).contains(&first.index)
        {
            self.files.ordinal = first.ordinal;
            (self.next, self.anew) = (first.index, true);
            (self.line.written, self.line.durable) = (first.index, first.index);
        }
        Vec::new()
    }

    /// Whether the source may have landed something from log index `from` to below `to`, which no
    /// disk of this broker has. Nothing is retired before a source's replicas have it, so that a
    /// source without a replica has landed nothing; but a log that came back from disks begins
    /// behind what lies there, also where this broker's disk is another one by now.
    #[cold]
    fn may_have_landed(&self, pool: &Pool, entry: &TopicEntry, (from, to): (u64, u64)) -> bool {
        if self.others.beginning().is_some() || is_last_in((from, to), self.wanted) {
            return true;
        }
        if self.others.skips(self.log).has_passed(from, to) {
            return false;
        }
        if self.log != SEQUENCED_LOG {
            return true;
        }
        let (uuid, source) = (pool.uuid_text(), self.duty.source.raw());
        let said = self.others.said();
        let mut began = said.iter().filter(|file| file.pool_uuid == uuid).filter_map(|file| {
            let log = file.began.as_ref()?.logs.get(&self.log)?;
            Some(*log.entries.get(&source)? > 0)
        });
        let counted_whole = || !self.counted_with_hole();
        if let Some(had) = began.next().filter(|had| *had || counted_whole()) {
            return had || began.any(|had| had);
        }
        let is_young = said.first().is_none_or(|own| own.made_at.contains_key(&self.log));
        // Another broker has a copy of it, and its directory can be read: nothing is in it.
        let all = said.len() >= usize::from(entry.replica_brokers) && entry.disk_replicas() > 1;
        is_young && source < entry.replica_brokers && !all
    }

    /// Until it has what other copies have, what disks had when the topic came back, and what left
    /// memory, which `oldest` says, it is shown as one that lacks something.
    pub(super) fn owe(&mut self, pool: &Pool, oldest: u64) {
        if self.duty.stand_in.is_some() {
            return;
        }
        let lines = pool.copy_lines(self.topic, self.duty.source);
        let others = lines.filter(|(line, _)| line.at != self.at.at).map(|(_, line)| line.durable);
        let owes = others.fold(oldest.max(self.wanted), u64::max);
        self.owes = if self.line.durable < owes { owes } else { 0 };
        self.show_row();
    }

    /// Says what is in other copies, in front of where this one's files begin.
    #[cold]
    fn compare_beginnings(&mut self, pool: &Pool, entry: &TopicEntry) -> Vec<Event> {
        let Some(mine) = beginning_of(self.files.directory()) else { return Vec::new() };
        if !self.row.is_bounded() && mine.is_behind {
            // What other copies have of it is written again in front of it.
            return vec![Event::Note(format!(
                "{self}: it begins at log index {}, behind files that are gone: what broker {} \
                 landed before that is not on this disk, and nothing here let go of it; it is \
                 written again if another copy that can be read here (--read-data) has it",
                mine.index, self.duty.source
            ))];
        }
        if mine.is_behind {
            return Vec::new();
        }
        let theirs = self.others.beginning().filter(|theirs| theirs.index < mine.index);
        if let Some(theirs) = theirs {
            // Its own reader is wanted where these files end, and is not to go back from there.
            let mut others = self.others.again();
            let found = others.next(theirs.index, mine.index).and_then(|(found, _)| found);
            let Some(first) = found.map(|found| found.header.index) else { return Vec::new() };
            let what = format!("it begins at log index {}", mine.index);
            let more = "other copies have some of them";
            let said = self.say_hole((first, mine.index));
            let told = self.lacking(first, mine.index, (&what, more));
            return std::iter::once(told).chain(said).collect();
        }
        // Where no other copy says more, it counts how far the log was when the directory came.
        let said = self.others.said();
        let made_at = said.first().and_then(|own| own.made_at.get(&self.log)).copied();
        let is_unknown = made_at.is_some_and(|made_at| made_at <= mine.index)
            && self.others.beginning().is_none()
            && self.may_have_landed(pool, entry, (0, mine.index))
            && !self.missing(pool, (0, mine.index)).is_empty();
        let what = format!("it begins at log index {}", mine.index);
        let more = "no other copy of them can be read here";
        is_unknown.then(|| self.doubtful((0, mine.index), (&what, more))).into_iter().collect()
    }

    /// That the files do not reach what the line said they have to: how far they reach, and how
    /// far they have to.
    #[cold]
    pub(super) fn older(&self, (wanted, covers): (u64, u64), before: &ReplicaLine) -> Event {
        Event::Note(format!(
            "{self}: it had {} entries on stable storage, up to log index {wanted}, and its files \
             have {} and reach {covers}: some are gone, or they are older, or another disk's; what \
             the log or another copy has is copied again",
            before.entries, self.files.ordinal
        ))
    }

    /// That the files do not reach what disks had when the topic came back: another state of this
    /// disk was read then.
    #[cold]
    pub(super) fn short_of_disks(&self, covers: u64) -> Option<Event> {
        let is_short = self.files.current.is_some() && covers < self.wanted;
        is_short.then(|| {
            Event::Note(format!(
                "{self}: control knew of what broker {} landed up to log index {} when the topic \
                 came back, and these files have {} entries and reach {covers}: some are gone, or \
                 they are older, or another disk's; what another copy has is copied again",
                self.duty.source, self.wanted, self.files.ordinal
            ))
        })
    }

    /// Says that entries are not here, and shows it: `what` is wrong with the files.
    pub(super) fn lacking(&mut self, from: u64, to: u64, (what, more): (&str, &str)) -> Event {
        self.lacks = true;
        self.show_row();
        self.say_lacking((from, to), (what, more))
    }

    pub(super) fn say_lacking(&self, (from, to): (u64, u64), (what, more): (&str, &str)) -> Event {
        let whether = match self.others.beginning() {
            Some(_) => "",
            None => "if there is another copy, ",
        };
        Event::Note(format!(
            "{self}: {what}: what broker {} landed at indexes {from} to {to} \
             is not on this disk, and {more}; {whether}stop this broker, move {} away, let it \
             read the others' directories with --read-data, and start it again: it copies what \
             they have",
            self.duty.source,
            self.files.directory().display()
        ))
    }

    /// What the log no longer has, and no other copy that can be read, cannot be copied: the files
    /// go on behind it, at `to`.
    #[cold]
    pub(super) fn leave_hole(&mut self, pool: &Pool, to: u64) -> Vec<Event> {
        let from = self.next;
        let was_whole = !is_last_in((from, to), self.wanted) && self.was_whole(pool, to);
        let (start, is_known) = match was_whole {
            true => (from, true),
            false => self.judge(pool, (from, to), Judged::Now),
        };
        // Where the files go on to have everything.
        let begin = if is_known { start } else { to };
        self.next = to;
        self.line.written = to;
        if begin > from {
            self.anew = true;
            self.seam = Some(begin);
            self.tail = begin;
        }
        if self.is_synced() {
            (self.line.durable, self.line.tail) = (to, self.tail);
        }
        if is_known {
            return Vec::new();
        }
        if self.duty.stand_in.is_none() {
            // What the log passes over behind the hole excuses nothing of it at a later start.
            let mut said: Vec<Event> = self.say_hole((from, to)).into_iter().collect();
            match is_last_in((from, to), self.wanted) {
                true => {
                    self.lacks = true;
                    said.extend(self.say_short());
                }
                false => self.doubts.add((start, to)),
            }
            self.show_row();
            return std::iter::once(self.hole(from, to)).chain(said).collect();
        }
        let said = self.say_hole((from, to));
        let note = Event::Note(format!(
            "{self}: the log begins at index {to} and the replica had everything up to {from}: \
             what lay between is not on this disk"
        ));
        std::iter::once(note).chain(said).collect()
    }

    /// That what the source landed between two log indexes is not here, and cannot be had.
    fn hole(&self, from: u64, to: u64) -> Event {
        let more = match self.others.beginning() {
            Some(_) => "no other copy that can be read here has them",
            None => "no other copy can be read here",
        };
        let what = match self.files.current {
            Some(_) => format!("it goes on at log index {to} and has everything only up to {from}"),
            None => format!("it begins at log index {to}"),
        };
        self.say_lacking((from, to), (&what, more))
    }

    /// Says of each place where the files go on anew what is not in them, in front of it. What is
    /// short there the row tells of, and writes again if it can.
    #[cold]
    pub(super) fn compare_seams(&mut self, pool: &Pool) -> Vec<Event> {
        let seams = seams_of(self.files.directory()).into_iter();
        let (short, other): (Vec<_>, Vec<_>) = seams.partition(Seam::is_short);
        for seam in other {
            if !self.judge(pool, (seam.from, seam.to), Judged::Before).1 {
                self.seams.push(seam);
            }
        }
        let events = self.seams.iter().map(|seam| self.hole(seam.from, seam.to)).collect();
        self.seams.extend(short);
        self.show_row();
        events
    }

    /// Judges those places again in front of which something was written again.
    #[cold]
    pub(super) fn judge_seams(&mut self, pool: &Pool) -> Vec<Event> {
        let mut events = Vec::new();
        for was in std::mem::take(&mut self.seams) {
            let (from, has) = self.row.end_before(was.to).unwrap_or((was.from, was.has));
            let seam = Seam { from, has, ..was };
            let is_filled = from > was.from && !seam.is_short();
            if is_filled && self.judge(pool, (from, seam.to), Judged::Before).1 {
                continue;
            }
            if is_filled && was.is_short() {
                events.push(self.hole(from, seam.to));
                events.extend(self.say_hole((from, seam.to)));
            }
            self.seams.push(seam);
        }
        events
    }

    /// The line says that the replica follows its log, and whether all of it is here.
    pub(super) fn is_well(&mut self) {
        self.line.state = ReplicaState::Well.raw();
        let is_torn = self.lacks || !self.doubts.is_empty() || self.row.is_torn();
        let is_whole = !is_torn && self.owes == 0 && self.seams.is_empty();
        self.line.errno = if is_whole { 0 } else { ENODATA };
    }

    /// Whether something is not in its files that other copies have, or may have, and that its row
    /// does not look for.
    pub(super) fn has_hole(&self) -> bool {
        let is_hole = self.lacks || !self.doubts.is_empty();
        is_hole || self.seams.iter().any(|seam| !seam.is_short())
    }
}
