//! What this broker's directory says that it lacks of a source, until a copy has it all.

use std::path::Path;

use landfall_layout::replica::{Body, ReplicaLine, ReplicaState, TAIL_UNKNOWN};
use landfall_replica::names::list_source;
use landfall_replica::there::{Lack, UNCOUNTED};
use landfall_replica::{TopicFile, Walk};

use super::{Event, Replica};
use crate::replica::begin::{is_last_in, seams_of};
use crate::replica::others::beginning_of;
use landfall_pool::stderr;

/// What a copy has to have before its directory lacks nothing of its source any more.
#[derive(Clone, Copy, Debug)]
pub struct OpenLack {
    /// Log index below which it lies.
    below: u64,
    /// So many batches and holes, or [`UNCOUNTED`].
    entries: u64,
    /// How many the files have below that index; known once they have come so far.
    has: Option<u64>,
    /// It is said that the copy went on without some of them.
    is_torn: bool,
}

impl Replica {
    fn is_lack(&self, lack: &Lack) -> bool {
        (lack.keeper, lack.source) == (self.me.raw(), self.duty.source.raw())
    }

    /// Says in the topic's directory what the line `before` had and the files have not: they are
    /// older, or some are gone. It may be in no memory and in no other copy, and a cold start has
    /// no lines to tell.
    #[cold]
    pub(super) fn say_fewer(&mut self, topic: &Path, before: &ReplicaLine) -> Option<Event> {
        self.is_older = before.incarnation != 0 && before.entries > self.files.ordinal;
        // Bounds may have let go of it since. Nobody strikes a word of a stand-in that is no count.
        let is_bounded = self.bounds.is_set();
        if !self.is_older || is_bounded && self.duty.stand_in.is_some() {
            return None;
        }
        // Nobody counts these: a hole up to there is one, whatever the log passed over. Where the
        // line stood behind such a place, control has said where the last entry before it is.
        let skips = self.others.skips(self.log);
        let is_behind =
            self.wanted > 0 && skips.ranges().iter().any(|range| range.to_index == before.tail);
        if is_bounded && before.tail != TAIL_UNKNOWN && !is_behind {
            self.wanted = self.wanted.max(before.tail);
        }
        let lack = Lack {
            keeper: self.me.raw(),
            source: self.duty.source.raw(),
            entries: if is_bounded { UNCOUNTED } else { before.entries },
            below: before.durable,
            disk: 0,
            is_torn: false,
        };
        self.say_lack(topic, lack)
    }

    /// Says that the files have not what disks had when the topic came back, and go on without it:
    /// a cold start asks for the directory that has it.
    #[cold]
    pub(super) fn say_short(&self) -> Option<Event> {
        let lack = Lack {
            keeper: self.me.raw(),
            source: self.duty.source.raw(),
            entries: UNCOUNTED,
            below: self.wanted,
            disk: 0,
            is_torn: true,
        };
        self.say_lack(self.files.directory().parent()?, lack)
    }

    fn say_lack(&self, topic: &Path, lack: Lack) -> Option<Event> {
        let said = TopicFile::change(topic, |file| {
            let said = file.map(|mut file| {
                let covers = |it: &Lack| it.entries >= lack.entries && it.below >= lack.below;
                if !file.places.lacks.iter().any(|it| self.is_lack(it) && covers(it)) {
                    file.places.lacks.insert(lack);
                }
                file
            });
            (said, ())
        });
        let told =
            |error| Event::Note(format!("{self}: {error}; what is lacking is not said there"));
        said.err().map(told)
    }

    /// Whether the files were older than their line, and neither a count nor another copy will show
    /// what they lack.
    #[cold]
    pub(super) fn is_older_than_told(&self) -> bool {
        self.is_older && self.bounds.is_set() && self.others.beginning().is_none()
    }

    /// Takes up what the topic's directory lacks of this source. Where the copy went on without
    /// some of it, the files tell, whatever became of the log since: each later start says so.
    #[cold]
    pub(super) fn look_for_lack(&mut self, topic: &Path) -> Option<Event> {
        if self.duty.stand_in.is_some() {
            return None;
        }
        let lacks = TopicFile::read(topic).ok()?.places.lacks;
        let mine = lacks.iter().filter(|lack| self.is_lack(lack));
        // Such a word speaks of the entry right below its end, which disks had.
        let is_short =
            |lack: &Lack| lack.is_torn && lack.entries == UNCOUNTED && lack.below <= self.wanted;
        let is_filled = |lack: &Lack| is_short(lack) && self.reaches(lack.below);
        let (filled, mine): (Vec<&Lack>, Vec<&Lack>) = mine.partition(|lack| is_filled(lack));
        self.strike(topic, filled.into_iter().copied().collect());
        let torn = mine.iter().filter(|lack| lack.is_torn && lack.entries == UNCOUNTED);
        let torn: Vec<(u64, bool)> = torn.map(|lack| (lack.below, is_short(lack))).collect();
        if !torn.is_empty() {
            return self.doubt_lacks(&torn);
        }
        let is_torn = mine.iter().any(|lack| lack.is_torn);
        let mine: Vec<Lack> = mine.into_iter().copied().collect();
        self.begin_lack(&mine, is_torn);
        None
    }

    /// Doubts the places that words may speak of which nobody counts: each says below which log
    /// index, and whether it speaks of the entry right before that.
    fn doubt_lacks(&mut self, torn: &[(u64, bool)]) -> Option<Event> {
        let is_said = self.has_hole();
        let first = beginning_of(self.files.directory()).filter(|first| !first.is_behind);
        let front = first.map(|first| (0, first.index)).filter(|(_, index)| *index > 0);
        let seams = seams_of(self.files.directory()).into_iter().map(|seam| (seam.from, seam.to));
        let speaks_of = |(from, to): &(u64, u64)| {
            let of = |(below, is_last): &(u64, bool)| match is_last {
                true => is_last_in((*from, *to), *below),
                false => from < below,
            };
            torn.iter().any(of)
        };
        let is_front = |front: &(u64, u64)| {
            torn.iter().any(|(below, is_last)| *is_last && is_last_in(*front, *below))
        };
        let holes: Vec<_> =
            front.filter(is_front).into_iter().chain(seams.filter(speaks_of)).collect();
        holes.iter().for_each(|hole| self.doubts.add(*hole));
        self.show_row();
        let first = holes.first().filter(|_| !is_said)?;
        let what = "it goes on behind what its directory says that it lacks";
        Some(self.say_lacking(*first, (what, "nobody counted it")))
    }

    /// Takes those words up once more after it turned out that no hole is one.
    #[cold]
    pub(super) fn take_up_lacks(&mut self) {
        let topic = self.files.directory().parent().and_then(|topic| TopicFile::read(topic).ok());
        let lacks = topic.into_iter().flat_map(|file| file.places.lacks);
        let mine: Vec<Lack> = lacks.filter(|lack| self.is_lack(lack)).collect();
        self.begin_lack(&mine, false);
    }

    fn begin_lack(&mut self, mine: &[Lack], is_torn: bool) {
        let Some(below) = mine.iter().map(|lack| lack.below).max() else { return };
        let counted = mine.iter().map(|lack| lack.entries).filter(|entries| *entries != UNCOUNTED);
        let entries = counted.max().unwrap_or(UNCOUNTED);
        let is_counted = self.next >= below && entries != UNCOUNTED;
        let has = is_counted.then(|| entries_below(self.files.directory(), below));
        self.open_lack = Some(OpenLack { below, entries, has, is_torn });
    }

    /// Whether the files have the entry right below log index `tail`: where they were moved away,
    /// all that others had was copied. Files that begin there, behind nothing, have it not.
    fn reaches(&self, tail: u64) -> bool {
        let files = list_source(self.files.directory(), &mut Vec::new()).unwrap_or_default();
        let first = files.first().and_then(|(_, path)| Some(*Walk::open(path).ok()?.header()));
        if first.is_some_and(|first| first.first_index >= tail && first.first_ordinal == 0) {
            return false;
        }
        let seams = seams_of(self.files.directory());
        self.tail >= tail && !seams.iter().any(|seam| is_last_in((seam.from, seam.to), tail))
    }

    /// Takes words back on what is lacking: it is there.
    fn strike(&self, topic: &Path, filled: Vec<Lack>) {
        if filled.is_empty() {
            return;
        }
        let said = TopicFile::change(topic, |file| {
            let said = file.map(|mut file| {
                file.places.lacks.retain(|lack| !filled.contains(lack));
                file
            });
            (said, ())
        });
        if let Err(error) = said {
            stderr::note(format_args!(
                "{self}: {error}; its directory says on that something is lacking"
            ));
        }
    }

    /// Counts what is there of what the directory lacks once all below its end was looked for.
    /// Log index that nothing is to be written behind until then.
    pub(super) fn count_lack(&mut self) -> u64 {
        let (next, ordinal) = (self.next, self.files.ordinal);
        match &mut self.open_lack {
            Some(open) if next < open.below => open.below,
            Some(open) => {
                open.has.get_or_insert(ordinal);
                u64::MAX
            }
            None => u64::MAX,
        }
    }

    /// Strikes the word on what is lacking once all of it is stable here, or marks it where the
    /// files went on without some of it: a later process of this broker, which finds them as they
    /// are, cannot tell. What cannot be said is counted at a cold start. That too few are here is
    /// said, whatever the log passed over.
    #[cold]
    pub(super) fn settle_lack(&mut self) -> Option<Event> {
        self.count_lack();
        let open = self.open_lack?;
        let is_well = self.state() == ReplicaState::Well && self.line.errno == 0;
        let is_whole = is_well && self.line.durable >= open.below;
        if !self.has_hole() && !is_whole {
            return None;
        }
        self.open_lack = None;
        let has = open.has.filter(|has| *has < open.entries && open.entries != UNCOUNTED);
        let event = has.filter(|_| !self.has_hole()).map(|has| {
            let what = format!(
                "its directory had {} entries below log index {} and {has} are here",
                open.entries, open.below
            );
            self.lacking(0, open.below, (&what, "the log has gone on without the rest"))
        });
        if !(self.has_hole() && open.is_torn) {
            self.say_settled();
        }
        event
    }

    fn say_settled(&self) {
        let is_torn = self.has_hole();
        let topic = self.files.directory().parent().unwrap_or(self.files.directory());
        let said = TopicFile::change(topic, |file| {
            let said = file.map(|mut file| {
                let lacks = std::mem::take(&mut file.places.lacks).into_iter();
                let lacks = lacks.filter(|lack| !self.is_lack(lack) || is_torn);
                let mark = |lack: Lack| match self.is_lack(&lack) {
                    true => Lack { is_torn: true, ..lack },
                    false => lack,
                };
                file.places.lacks = lacks.map(mark).collect();
                file
            });
            (said, ())
        });
        if let Err(error) = said {
            stderr::note(format_args!(
                "{self}: {error}; a cold start counts what was lacking here"
            ));
        }
    }
}

/// Batches and holes below a log index in the files of a directory. What does not hold is none.
fn entries_below(directory: &Path, below: u64) -> u64 {
    let mut entries = 0;
    for (_, path) in list_source(directory, &mut Vec::new()).unwrap_or_default() {
        let Ok(mut walk) = Walk::open(&path) else { continue };
        while let Ok(Some(record)) = walk.next() {
            let is_entry = matches!(record.body, Body::Batch { .. } | Body::Hole { .. });
            entries += u64::from(is_entry && record.header.index < below);
        }
    }
    entries
}
