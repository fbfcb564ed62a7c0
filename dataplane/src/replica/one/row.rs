//! What is found and done in a replica's older files, on its line.

use std::path::{Path, PathBuf};

use landfall_layout::TopicId;
use landfall_layout::replica::ReplicaState;
use landfall_layout::topic::TopicEntry;
use landfall_pool::Pool;
use landfall_pool::log::LogReader;

use super::{Bounds, Duty, Event, Files, Others, Replica};
use crate::replica::others::beginning_of;
use crate::replica::row::{Row, Told, Whose};

/// The row of a replica whose files were opened in the data directory `own`.
pub fn row_of(
    files: &Files,
    (own, others): (&Path, &[PathBuf]),
    (entry, duty): (&TopicEntry, Duty),
    file_bytes: u64,
) -> (Row, Vec<Told>) {
    let template = *files.template();
    let bounds = Bounds::of(entry);
    let others_have = || {
        let mine = beginning_of(files.directory()).filter(|mine| mine.is_behind)?;
        Others::new(own, others, entry, duty.source).bytes_behind(mine.index)
    };
    let others_have = bounds.is_set().then(others_have).flatten();
    let own = std::iter::once(own.to_owned());
    let whose = Whose {
        template,
        file_bytes,
        bounds,
        others_have,
        is_home: duty.stand_in.is_none(),
        reader: LogReader::new(TopicId(entry.id), usize::from(template.log)),
        data: own.chain(others.iter().cloned()).collect(),
    };
    Row::open(files.directory(), files.last(), whose)
}

impl Replica {
    /// Does the next bit of what there is to do in the older files; nothing, if there is nothing
    /// for now.
    pub fn mend(&mut self, pool: &Pool, now_ns: u64) -> Option<Vec<Event>> {
        if self.state() == ReplicaState::Failed {
            return None;
        }
        if let Some(events) = self.look_at_holes(pool, now_ns) {
            return Some(events);
        }
        let told = self.row.step(pool, now_ns)?;
        let is_mended = told.iter().any(|told| matches!(told, Told::Mended(_)));
        let mut events: Vec<Event> = told.into_iter().map(|told| self.told(told)).collect();
        if is_mended {
            self.doubts.look_again();
            events.extend(self.judge_seams(pool));
        }
        self.show_row();
        Some(events)
    }

    /// The line says whether all of it is here.
    pub(super) fn show_row(&mut self) {
        if self.state() == ReplicaState::Well {
            self.is_well();
        }
    }

    pub(super) fn told(&self, told: Told) -> Event {
        match told {
            Told::Fault(text) => Event::Note(format!("{self}: {text}")),
            Told::Mended(text) => Event::Repaired(format!("{self}: {text}")),
        }
    }
}
