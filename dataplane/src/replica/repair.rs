//! What a replica's last file lost, written again: from the pool's log, or from other copies.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use landfall_layout::frame::GapReason;
use landfall_layout::order::FrontierLine;
use landfall_layout::replica::{RECORD_HEAD_BYTES, record_bytes};
use landfall_pool::Pool;
use landfall_pool::log::{Found, LogReader};
use landfall_replica::Damage;

use super::group::{Group, Marks};
use super::others::{Kept, Others};

/// Bytes that are written at once.
const GROUP_BYTES: u64 = 8 << 20;

/// Where entries that are missing may be.
pub struct Repair<'a> {
    pub pool: &'a Pool,
    pub reader: &'a mut LogReader,
    pub others: &'a mut Others,
    pub marks: Marks,
    /// Log index below which the pool has nothing.
    pub oldest: u64,
    /// How far the log is ordered.
    pub frontier: FrontierLine,
}

/// A row of entries, and where their records begin.
struct Row {
    entries: Vec<(u64, Kept)>,
    at: u64,
    ordinal: u64,
}

impl Repair<'_> {
    /// Writes the records again that stood in damaged bytes, in their place. All of them where
    /// each is known; otherwise the last of them, which the log has without a hole. Nothing but
    /// those bytes is written to. How many entries are there again.
    pub fn fill(&mut self, file: &File, damage: &Damage) -> io::Result<u64> {
        let Some(row) = self.row(damage) else { return Ok(0) };
        let end = damage.at + damage.bytes;
        let (mut done, mut buffer) = (0, Vec::new());
        let (mut at, mut ordinal) = (row.at, row.ordinal);
        let mut left = row.entries.iter().peekable();
        while left.peek().is_some() {
            let mut group = Group::new(self.marks, at, ordinal, damage.before.index, buffer);
            let mut is_stuck = false;
            while let Some((index, kept)) = left.next_if(|_| !group.is_full(GROUP_BYTES)) {
                if !self.add(&mut group, *index, kept) {
                    is_stuck = true;
                    break;
                }
            }
            file.write_all_at(group.records(), at)?;
            done += group.ordinal - ordinal;
            (at, ordinal) = (group.end, group.ordinal);
            buffer = group.into_buffer();
            if is_stuck {
                return Ok(done);
            }
        }
        // Records that said how far the log was stood there too.
        let index = damage.behind.map_or(0, |behind| behind.index);
        while end - at >= RECORD_HEAD_BYTES && index <= self.frontier.entries {
            let mut group = Group::new(self.marks, at, ordinal, index, buffer);
            group.finish(index, &self.frontier);
            file.write_all_at(group.records(), at)?;
            at = group.end;
            buffer = group.into_buffer();
        }
        Ok(done)
    }

    /// The entries that belong into damaged bytes, as far as they are known to be all of them.
    fn row(&mut self, damage: &Damage) -> Option<Row> {
        let (count, indexes) = (damage.entries()?, damage.indexes());
        let mut known = BTreeMap::new();
        let here = indexes.start.max(self.oldest)..indexes.end.min(self.frontier.entries);
        for index in here.clone() {
            match self.reader.entry(self.pool, index) {
                Found::Entry(entry) if entry.broker == self.marks.source => {
                    known.insert(index, (entry, GapReason::Unwritten));
                }
                Found::Entry(_) => {}
                Found::Lapped { .. } | Found::Gone => return None,
            }
        }
        let in_log = known.len() as u64;
        if in_log < count {
            known.extend(self.others.entries(indexes.start..here.start.min(indexes.end)));
        }
        let is_whole = known.len() as u64 == count;
        if !is_whole && in_log <= count {
            // What the log has stood behind all the others.
            known = known.split_off(&here.start);
        }
        let count = known.len() as u64;
        let behind = damage.behind?;
        let bytes: u64 = known.values().map(|(entry, _)| record_bytes(entry.bytes)).sum();
        let ordinal = behind.ordinal.checked_sub(count)?;
        if bytes > damage.bytes || ordinal < damage.before.ordinal {
            return None;
        }
        let at = if is_whole { damage.at } else { damage.at + damage.bytes - bytes };
        Some(Row { entries: known.into_iter().collect(), at, ordinal })
    }

    /// Adds an entry's record, if its batch holds somewhere.
    fn add(&mut self, group: &mut Group, index: u64, (entry, reason): &Kept) -> bool {
        if entry.is_hole() {
            group.add_hole(index, entry, *reason);
            return true;
        }
        let is_here = (self.oldest..self.frontier.entries).contains(&index);
        if is_here && group.add(self.pool, index, entry).is_ok() {
            return true;
        }
        match self.others.batch(index, entry) {
            Some(copied) => {
                group.add_copy(index, entry, &copied);
                true
            }
            None => false,
        }
    }
}
