//! What a topic's directories say was there, and is in no file.

use std::collections::BTreeSet;

use landfall_replica::Skips;

use super::find::Group;
use super::judge::{around, wrong};
use super::source::Source;
use super::{Gap, Kept, LogKept, Missing};
use crate::finding::{Finding, Severity};
use crate::mend;

/// Logs of which there is not one file, although a file was begun or had entries. `is_unread`:
/// there may be one, which could not be read.
pub fn logs(
    group: &Group,
    is_unread: bool,
    is_here: impl Fn(usize) -> bool,
    kept: &mut Kept,
) -> Vec<LogKept> {
    let ended = group.ended.iter().flat_map(|ended| &ended.logs);
    let had = ended.filter(|(_, log)| log.entries.values().any(|entries| *entries > 0));
    let said = had.map(|(number, log)| (*number, log.index));
    let said = said.chain(group.reached.iter().map(|(number, place)| (*number, place.index)));
    let mut all: Vec<(usize, u64)> = said.filter(|(number, _)| !is_here(*number)).collect();
    all.sort_unstable();
    let numbers: BTreeSet<usize> = all.iter().map(|(number, _)| *number).collect();
    let none = Skips::default();
    let mut gone = Vec::new();
    for number in numbers {
        let of = all.iter().filter(|(of, _)| *of == number);
        let end = of.map(|(_, index)| *index).max().unwrap_or_default();
        let skips = group.skips.get(&number).unwrap_or(&none);
        let why = match (is_unread, group.is_system) {
            (true, _) => Missing::Unread,
            (false, true) => Missing::Gone,
            (false, false) => Missing::Elsewhere,
        };
        let gap = |(entries, _)| Gap { entries, positions: None, why };
        let gaps: Vec<Gap> = around(0..end, None, skips).into_iter().map(gap).collect();
        if gaps.is_empty() {
            continue;
        }
        let which = if is_unread { "could be read" } else { "is here" };
        let found = format!("the log had come to entry {end}, and not one file of it {which}");
        let of = format!("topic {}, log {number}", group.name);
        let (severity, mend) = match why {
            Missing::Gone => (Severity::Error, mend::GONE),
            Missing::Unread => (Severity::Note, mend::UNREAD),
            _ => (Severity::Note, mend::LOOK_ELSEWHERE),
        };
        kept.findings.push(Finding { severity, mend, ..wrong("gap", &of, found) });
        gone.push(LogKept {
            log: number as u8,
            ordered: Some((end, 0)),
            batches: 0,
            holes: 0,
            entries: 0..0,
            positions: 0..0,
            gaps,
            skipped: skips.positions(),
        });
    }
    gone
}

/// Says which brokers' files have fewer entries than there were when the log ended in good order.
pub fn fewer(group: &Group, of: &str, log: usize, sources: &[&Source], kept: &mut Kept) {
    if !group.is_system {
        return;
    }
    let ended = group.ended.iter().filter_map(|ended| ended.logs.get(&log));
    let mut short: BTreeSet<(u8, u64, u64)> = BTreeSet::new();
    for (broker, had) in ended.flat_map(|log| &log.entries) {
        let copies = sources.iter().filter(|source| source.kept.source == *broker);
        let has = copies.map(|source| source.present).max().unwrap_or_default();
        if has < *had {
            short.insert((*broker, *had, has));
        }
    }
    for (broker, had, has) in short {
        let found = format!("broker {broker} had {had} entries on disk when the log ended in good")
            + &format!(" order, and the fullest of its copies here has {has}");
        kept.findings.push(Finding { mend: mend::GONE, ..wrong("fewer", of, found) });
    }
}
