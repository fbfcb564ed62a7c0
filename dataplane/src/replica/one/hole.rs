//! What this broker's directory says of holes in its copy of a source, until they are filled: a
//! cold start asks for the disk that may have what lies there.

use std::path::Path;

use landfall_layout::replica::ReplicaState;
use landfall_pool::Pool;
use landfall_pool::stderr;
use landfall_replica::TopicFile;
use landfall_replica::holes::Hole;

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
        let in_front = self.holes.iter().find(|hole| hole.from < first.index)?;
        let (from, to) = (in_front.from, in_front.to.min(first.index));
        if first.is_behind || self.has_hole() || self.judge(pool, (from, to)).1 {
            return None;
        }
        let what = format!("it begins at log index {}", first.index);
        let more = "its directory says that it is a hole";
        Some(self.doubtful((from, to), (&what, more)))
    }

    /// Strikes those words once the copy has everything there, or it is known that nothing was.
    pub(super) fn settle_holes(&mut self) {
        let is_well = self.state() == ReplicaState::Well && self.line.errno == 0;
        let is_here = |hole: &Hole| hole.to <= self.line.durable;
        if self.holes.is_empty() || !is_well || !self.holes.iter().all(is_here) {
            return;
        }
        let filled = std::mem::take(&mut self.holes);
        let Some(topic) = self.files.directory().parent() else { return };
        if let Err(error) = Hole::strike(topic, &filled) {
            stderr::note(format_args!("{self}: {error}; its directory says on that it has a hole"));
        }
    }
}
