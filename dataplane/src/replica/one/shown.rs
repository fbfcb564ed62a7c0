//! What is shown of a replica.

use std::fmt;

use landfall_layout::replica::ReplicaLine;
use landfall_pool::Pool;

use super::{Event, Replica};
use crate::replica::duties::Duty;

impl Replica {
    /// Shows how far it is, if that is not shown yet. After the sync that covers it. What the line
    /// said before.
    pub fn publish(&mut self, pool: &Pool, events: &mut Vec<Event>) -> Option<ReplicaLine> {
        if self.owes > 0 && self.line.durable >= self.owes {
            self.owes = 0;
            self.show_row();
        }
        if self.open_lack.is_some() {
            events.extend(self.settle_lack());
        }
        if !self.holes.is_empty() {
            events.extend(self.settle_holes(pool));
        }
        if self.line == self.shown {
            return None;
        }
        pool.move_copy(self.at, &self.line);
        Some(std::mem::replace(&mut self.shown, self.line))
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Duty { source, replica, stand_in } = self.duty;
        write!(f, "topic {}: replica {replica} of broker {source}", self.name)?;
        match stand_in {
            Some(_) => f.write_str(", kept in place of its home"),
            None => Ok(()),
        }
    }
}
