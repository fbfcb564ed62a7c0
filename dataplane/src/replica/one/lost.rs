//! What a replica's files lost: put back when they are opened, seen when it is their name, and
//! let go of by the topic's bounds.

use landfall_layout::replica::ReplicaState;
use landfall_pool::Pool;
use landfall_pool::clock::wall_ns;
use landfall_replica::{Damage, FileError};

use super::{ESTALE, Event, Replica, keep};
use crate::replica::files::{Current, Named};
use crate::replica::group::Marks;
use crate::replica::repair::Repair;

impl Replica {
    /// Where entries that the files lost may be.
    fn repairer<'a>(&'a mut self, pool: &'a Pool) -> Option<(Repair<'a>, &'a Current)> {
        let Self { files, reader, others, created_ns, duty, topic, log, .. } = self;
        let current = files.current.as_ref()?;
        let source = duty.source.raw();
        let marks = Marks {
            created_ns: *created_ns,
            source,
            mark: current.mark,
            topic: *topic,
            now_ns: wall_ns(),
        };
        let (oldest, frontier) = (pool.oldest(*topic, *log), pool.frontier(*topic, *log));
        Some((Repair { pool, reader, others, marks, oldest, frontier }, current))
    }

    /// Writes again what damage in the last file took, from the pool or another copy.
    pub(super) fn repair(
        &mut self,
        pool: &Pool,
        damage: &[Damage],
    ) -> Result<Vec<Event>, FileError> {
        let Some((mut repair, current)) = self.repairer(pool) else {
            return Ok(Vec::new());
        };
        if damage.is_empty() {
            return Ok(Vec::new());
        }
        let path = &current.path;
        let mut done = 0;
        for one in damage {
            done += repair.fill(&current.file, one).map_err(FileError::io("write", path))?;
        }
        current.file.sync_all().map_err(FileError::io("sync", path))?;
        let left = current.damage()?;
        let path = path.display().to_string();
        let mut events = Vec::new();
        if done > 0 {
            let text = format!("{self}: {path}: {done} entries that damage took are there again");
            events.push(Event::Repaired(text));
        }
        for left in left.iter().filter(|left| left.entries() != Some(0)) {
            self.row.last_is_torn();
            let text = "neither the pool nor another copy has them; they are lost to this copy";
            events.push(Event::Note(format!("{self}: {path}: {left}; {text}")));
        }
        Ok(events)
    }

    /// A file without its name is on no disk, though it can be written and synced: nothing more is
    /// called durable then.
    ///
    /// Where the system does not say whether it has its name, a sync of it that went well counts
    /// once it does.
    pub(super) fn look_for_file(&mut self) -> Option<Event> {
        let current = self.files.current.as_ref()?;
        let named = current.named();
        let path = current.path.display().to_string();
        if let Named::There = named {
            if let Some(covered) = self.unnamed.take() {
                self.is_durable(covered);
            }
            return None;
        }
        if let Named::Unknown(error) = named {
            return Some(Event::Note(format!(
                "{self}: look at {path}: {error}; nothing more is called durable until the system \
                 says again whether it is there"
            )));
        }
        Some(self.fail(
            ESTALE,
            &format!(
                "{path} is not there under that name any more: it was removed, or its directory \
                 was removed, moved or replaced, while this broker had it open; what it had is \
                 not on this disk"
            ),
        ))
    }

    /// Removes the files that the topic's bounds let go of. What memory still has stays, and what
    /// is not durable.
    pub fn let_go(&mut self, pool: &Pool, now_ns: u64) -> Option<Event> {
        let is_due = now_ns.saturating_sub(self.looked_ns) >= keep::LOOK_EVERY_NS;
        if !is_due || self.state() == ReplicaState::Failed {
            return None;
        }
        self.looked_ns = now_ns;
        if let Some(event) = self.look_for_file() {
            return Some(event);
        }
        if !self.bounds.is_set() {
            return None;
        }
        let needed = pool.oldest(self.topic, self.log).min(self.line.durable);
        let directory = self.files.directory();
        let ages = &mut self.ages;
        let removed = keep::files(directory).and_then(|mut files| {
            ages.tell(&mut files, now_ns, wall_ns());
            let beyond = keep::beyond(&files, self.bounds, needed);
            keep::remove(directory, &files, beyond)
        });
        removed.err().map(|error| Event::Note(format!("{self}: {error}")))
    }
}
