//! Where the next group goes: into the current file, or into another one behind it.

use landfall_layout::order::FrontierLine;
use landfall_layout::replica::ReplicaState;
use landfall_pool::clock::wall_ns;
use landfall_pool::disk::{Disk, sync_all};

use super::{Event, GROUP_BYTES, Replica};
use crate::replica::group::{Buffers, Group, Marks};
use crate::replica::said::say_reached;

impl Replica {
    /// The place of the next group: in the current file, or in another one behind it.
    pub(super) fn begin_group(
        &mut self,
        frontier: &FrontierLine,
        disk: &mut dyn Disk,
        buffers: &mut Buffers,
        now_ns: u64,
        events: &mut Vec<Event>,
    ) -> Option<Group> {
        if (self.anew || self.files.is_full()) && !self.roll(frontier, disk, now_ns, events) {
            return None;
        }
        let current = self.files.current.as_ref()?;
        let marks = Marks {
            topic: self.topic,
            created_ns: self.created_ns,
            source: self.duty.source.raw(),
            mark: current.mark,
            now_ns: wall_ns(),
        };
        let buffer = buffers.take(GROUP_BYTES);
        Some(Group::new(marks, current.at, self.files.ordinal, self.next, buffer))
    }

    /// Begins another file, behind the current one. Whether that is there now.
    pub(super) fn roll(
        &mut self,
        frontier: &FrontierLine,
        disk: &mut dyn Disk,
        now_ns: u64,
        events: &mut Vec<Event>,
    ) -> bool {
        // A file that has one behind it is on stable storage.
        if self.is_unsynced()
            && let Some(file) = self.begin_sync()
        {
            let synced = sync_all(disk, &[&file]).pop().unwrap_or(Ok(()));
            events.extend(self.synced(synced));
            if self.state() == ReplicaState::Failed {
                return false;
            }
        }
        let said = say_reached(self.files.directory(), self.log, frontier);
        events.extend(said.err().map(|error| Event::Note(format!("{self}: {error}"))));
        let first_index = self.seam.unwrap_or(self.next);
        if let Err(error) = self.files.roll(disk, first_index, self.anew, wall_ns()) {
            events.push(self.file_failed(&error, now_ns));
            return false;
        }
        if self.seam.is_some() && self.state() == ReplicaState::Full {
            // No sync may follow that would say so.
            self.retry_at_ns = 0;
            self.is_well();
        }
        (self.anew, self.seam) = (false, None);
        true
    }
}
