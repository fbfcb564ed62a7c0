//! Files of brokers that stood in for others and have given the copies back: nobody opens them any
//! more, so that nobody mends them. What is missing there is an error only while a home lacks it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use landfall_replica::there::Disk;

use super::Kept;
use super::find::Group;
use super::source::Source;
use crate::finding::Findings;
use crate::mend;

/// What is said of such files beside what is wrong with them.
const MORE: &str = "they were kept in place of another broker, and the homes of the copies have \
                    all that is missing here";

/// Takes over what was found in each source's files, as it counts beside all others.
pub fn told(group: &Group, looked: Vec<(Source, Findings)>, kept: &mut Kept) -> Vec<Source> {
    let (sources, found): (Vec<Source>, Vec<Findings>) = looked.into_iter().unzip();
    for (source, findings) in sources.iter().zip(found) {
        let is_moot = !source.lost.is_empty() || !findings.is_empty();
        kept.findings.add(match is_moot && is_left_over(group, source, &sources) {
            true => findings.as_notes(MORE, mend::LEFT_OVER),
            false => findings,
        });
    }
    sources
}

/// Whether the files are no home's, and each home of their copies has all that is missing there.
fn is_left_over(group: &Group, source: &Source, all: &[Source]) -> bool {
    let Some(file) = group.file.as_ref() else { return false };
    let homes = homes(source.kept.source, file.replica_brokers, file.replicas);
    let is_home = |source: &Source| !homes.is_disjoint(&keepers(&source.kept.path));
    if source.is_strange || source.is_unread || homes.is_empty() || is_home(source) {
        return false;
    }
    let same = all.iter().filter(|other| other.kept.source == source.kept.source);
    let at_home: Vec<&Source> = same.filter(|other| is_home(other)).collect();
    // Of a log that nobody knows more of, files that go so far have everything.
    let ordered = all.iter().filter(|other| other.log == source.log || source.log.is_none());
    let ordered = ordered.filter_map(|other| other.ordered).map(|(entries, _)| entries);
    let said = source.log.and_then(|log| group.said(log.into())).map(|(entries, _)| entries);
    let end = ordered.chain(said).max().unwrap_or(u64::MAX);
    let is_bound = file.disk_bytes | file.disk_ns != 0;
    at_home.len() >= homes.len()
        && at_home.iter().all(|home| has_all(home, &source.lost, (end, is_bound)))
}

/// Whether files have everything in these ranges below log index `end`, but for what bounds let go
/// of in front of them.
fn has_all(home: &Source, lost: &[Range<u64>], (end, is_bound): (u64, bool)) -> bool {
    let cut = home.rows.first().filter(|row| is_bound && row.is_cut).map_or(0, |row| row.start);
    let has = |from: u64, to: u64| {
        from >= to || home.kept.covers.iter().any(|it| it.start <= from && to <= it.end)
    };
    lost.iter().all(|lost| has(lost.start.max(cut), lost.end.min(end)))
}

/// The brokers that keep copies of what `source` landed, by the rule.
fn homes(source: u8, brokers: u8, replicas: u8) -> BTreeSet<u8> {
    let brokers = u16::from(brokers);
    let home = |copy: u8| (u16::from(source) + u16::from(copy)).checked_rem(brokers);
    (0..replicas.saturating_sub(1)).filter_map(home).map(|home| home as u8).collect()
}

/// The brokers whose the data directory is in which a source's files lie.
fn keepers(source: &Path) -> BTreeSet<u8> {
    let topic = source.parent();
    let disk = topic.and_then(|topic| topic.ancestors().nth(2)).map(Disk::look);
    disk.zip(topic).map(|(disk, topic)| disk.brokers(topic)).unwrap_or_default()
}
