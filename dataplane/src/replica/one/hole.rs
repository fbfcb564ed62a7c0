//! What this broker's directory says of holes in its copy of a source, until they are filled: a
//! cold start asks for the disk that may have what lies there.

use std::path::Path;

use landfall_layout::replica::ReplicaState;
use landfall_pool::Pool;
use landfall_pool::stderr;
use landfall_replica::TopicFile;
use landfall_replica::holes::{Hole, left};

use super::known::Range;
use super::{Event, Replica};
use crate::replica::others::beginning_of;

impl Replica {
    /// Says that the files have not what the source may have landed between two log indexes.
    #[cold]
    pub(super) fn say_hole(&mut self, (from, to): (u64, u64)) -> Option<Event> {
        let hole = Hole { source: self.duty.source.raw(), from, to };
        if self.duty.stand_in.is_none() {
            self.holes.push(hole);
        }
        let said = hole.say(self.files.directory().parent()?);
        let told = |error| Event::Note(format!("{self}: {error}; the hole is not said there"));
        said.err().map(told)
    }

    /// Takes up what the topic's directory says. Where the first file begins behind a hole, no
    /// place between two files tells of it: the word does, at each start.
    #[cold]
    pub(super) fn look_for_holes(&mut self, pool: &Pool, topic: &Path) -> Option<Event> {
        // Nobody shows that a stand-in's is filled: control asks the files of all.
        if self.duty.stand_in.is_some() {
            return None;
        }
        let source = self.duty.source.raw();
        let said = TopicFile::read(topic).ok()?.holes;
        self.holes = said.into_iter().filter(|hole| hole.source == source).collect();
        let first = beginning_of(self.files.directory())?;
        let is_said = self.has_hole();
        let told = self.doubt_words(pool, &self.holes.clone());
        let hole = told.first().filter(|_| !is_said)?;
        let what = match hole.0 < first.index {
            true => format!("it begins at log index {}", first.index),
            false => format!("it goes on at log index {}", hole.1),
        };
        Some(self.say_lacking(*hole, (&what, "its directory says that it is a hole")))
    }

    /// Doubts what words speak of that is not here, as far as the files have come, and not known to
    /// be nothing: what of that was in no doubt before.
    fn doubt_words(&mut self, pool: &Pool, words: &[Hole]) -> Vec<Range> {
        let seams = self.seams.iter().map(|seam| (seam.from, seam.to));
        let known: Vec<Range> = seams.chain(self.doubts.holes().iter().copied()).collect();
        let mut told = Vec::new();
        for word in words {
            let missing = self.missing(pool, (word.from, word.to.min(self.next)));
            told.extend(missing.into_iter().flat_map(|part| left(part, known.iter().copied())));
        }
        told.iter().for_each(|part| self.doubts.add(*part));
        self.show_row();
        told
    }

    /// Strikes those words once the copy has everything there, or it is known that nothing was. A
    /// copy that looks well may have been filled elsewhere only: each word is asked once more.
    pub(super) fn settle_holes(&mut self, pool: &Pool) -> Option<Event> {
        let is_well = self.state() == ReplicaState::Well && self.line.errno == 0;
        let is_here = |hole: &Hole| hole.to <= self.line.durable;
        // Behind what is no file yet nothing is known of.
        let is_begun = !self.anew && self.seam.is_none();
        if !is_well || !is_begun || !self.holes.iter().all(is_here) {
            return None;
        }
        let words = std::mem::take(&mut self.holes);
        let (filled, left): (Vec<_>, Vec<_>) =
            words.into_iter().partition(|hole| self.missing(pool, (hole.from, hole.to)).is_empty());
        let topic = self.files.directory().parent()?;
        if !filled.is_empty()
            && let Err(error) = Hole::strike(topic, &filled)
        {
            stderr::note(format_args!("{self}: {error}; its directory says on that it has a hole"));
        }
        let told = self.doubt_words(pool, &left).first().copied();
        self.holes = left;
        let more = ("its files are whole", "its directory says that it is a hole");
        told.map(|hole| self.say_lacking(hole, more))
    }
}
