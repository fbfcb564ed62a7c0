//! What all replicas of a topic have together.

mod agree;
mod pools;

use std::collections::BTreeMap;
use std::ops::Range;

use landfall_layout::BrokerId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::topic::Order;
use landfall_replica::{Begins, Skipped, Skips};

use pools::Pools;

use super::find::Group;
use super::gone;
use super::left;
use super::source::{self, Seen, Source};
use super::{Gap, Kept, LogKept, Missing, TopicKept};
use crate::finding::{Finding, Findings, Severity};
use crate::mend;
use crate::sequence::Sequences;

/// Looks at every replica of a topic, and at all of them together.
pub fn topic(group: &Group, kept: &mut Kept) -> TopicKept {
    let looked: Vec<(Source, Findings)> =
        group.sources.iter().map(|listing| source::look(group, listing, kept)).collect();
    let sources = left::told(group, looked, kept);
    let said = group.file.as_ref().and_then(|file| file.order());
    let order = said.or_else(|| sources.iter().find_map(|s| Order::from_raw(s.order?)));
    let mut by_log: BTreeMap<u8, Vec<&Source>> = BTreeMap::new();
    for source in &sources {
        if let Some(log) = source.log {
            by_log.entry(log).or_default().push(source);
        }
    }
    let brokers = group.file.as_ref().map_or(0, |file| file.replica_brokers);
    let is_unread = group.is_unread || sources.iter().any(|source| source.is_unread);
    let is_here = |log| by_log.keys().any(|there| usize::from(*there) == log);
    let gone = gone::logs(group, is_unread, is_here, kept);
    let mut logs: Vec<LogKept> = by_log
        .into_iter()
        .map(|(number, of)| log(group, order, (number, brokers, is_unread), &of, kept))
        .collect();
    logs.extend(gone);
    logs.sort_by_key(|log| log.log);
    TopicKept {
        name: group.name.clone(),
        created_ns: group.created_ns,
        order: order.map(Order::name),
        logs,
        sources: sources.into_iter().map(|source| source.kept).collect(),
    }
}

/// Looks at a log of a topic of `brokers` brokers. `is_unread`: something of the topic could not be
/// read.
fn log(
    group: &Group,
    order: Option<Order>,
    (number, brokers, is_unread): (u8, u8, bool),
    sources: &[&Source],
    kept: &mut Kept,
) -> LogKept {
    let of = format!("topic {}, log {number}", group.name);
    let entries = merge(&of, sources, kept);
    let written = sources.iter().filter_map(|source| source.ordered).max();
    let log = usize::from(number);
    let ordered = written.max(group.said(log));
    // The log of a broker has only that one's batches.
    let writers: Vec<u8> = match log {
        SEQUENCED_LOG => (0..brokers).collect(),
        _ => vec![number],
    };
    let none = Skips::default();
    let skips = group.skips.get(&log).unwrap_or(&none);
    let homes = group.homes.iter();
    let seen = entries.last().map_or(0, |seen| seen.index + 1);
    let known = Known {
        skips,
        writers: &writers,
        sources,
        is_unread,
        homes: homes
            .map(|(broker, made)| (*broker, made.get(&log).copied().unwrap_or_default()))
            .collect(),
        tails: if group.is_system { group.tails(log) } else { BTreeMap::new() },
        pools: Pools::of(group, log),
        gone_from: (group.is_system && !group.is_at_work)
            .then(|| seen.max(written.map_or(0, |(entries, _)| entries))),
    };
    let from = match group.file.as_ref().is_some_and(|file| file.disk_bytes | file.disk_ns == 0) {
        true => 0,
        false => retired(sources),
    };
    let mut gaps = gaps(&entries, from, ordered, &known);
    gaps.splice(..0, torn(&entries, from, sources));
    use Missing::{Damaged, Elsewhere, Gone, Lost, Memory, Past, Unread};
    for why in [Lost, Gone, Past, Memory, Damaged, Unread, Elsewhere] {
        say(&of, why, &gaps, kept);
    }
    if !is_unread {
        gone::fewer(group, &of, log, sources, kept);
    }
    say_skipped(&of, skips, kept);
    follows(&of, order, &entries, kept);
    let holes = entries.iter().filter(|seen| seen.is_hole()).count() as u64;
    let first = entries.first();
    let last = entries.last();
    LogKept {
        log: number,
        ordered,
        batches: entries.len() as u64 - holes,
        holes,
        entries: first.map_or(0, |b| b.index)..last.map_or(0, |b| b.index + 1),
        positions: first.map_or(0, |b| b.position)..last.map_or(0, Seen::end),
        gaps,
        skipped: skips.positions(),
    }
}

/// What was passed over is no loss, and people wonder about the positions.
fn say_skipped(of: &str, skips: &Skips, kept: &mut Kept) {
    let (Some(first), Some(last)) = (skips.ranges().first(), skips.ranges().last()) else { return };
    let found = format!(
        "{} positions between {} and {} were passed over when a pool was lost: no disk knows of a \
         message there",
        skips.positions(),
        first.position,
        last.to_position
    );
    let (severity, check, of, at) = (Severity::Note, "skipped", of.to_owned(), None);
    kept.findings.push(Finding { severity, check, of, at, found, mend: "" });
}

impl Seen {
    /// Position behind its last.
    fn end(&self) -> u64 {
        self.position.saturating_add(self.count.into())
    }
}

pub(super) fn wrong(check: &'static str, of: &str, found: String) -> Finding {
    let (severity, mend) = (Severity::Error, mend::CONTRADICT);
    Finding { severity, check, of: of.to_owned(), at: None, found, mend }
}

/// All batches and holes of a log by index, each once. Replicas that have the same entry have to
/// agree.
fn merge(of: &str, sources: &[&Source], kept: &mut Kept) -> Vec<Seen> {
    let mut all: Vec<(Seen, usize)> = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        all.extend(source.entries.iter().map(|seen| (*seen, number)));
    }
    all.sort_by_key(|(seen, _)| seen.index);
    let mut merged: Vec<(Seen, usize)> = Vec::with_capacity(all.len());
    for (seen, number) in all {
        match merged.last() {
            Some((before, _)) if before.index == seen.index && before.is_lost => {
                merged.pop();
                merged.push((seen, number));
            }
            Some((before, other)) if before.index == seen.index => {
                if *before != seen && !seen.is_lost {
                    let found = format!("entry {} is batch {} of", seen.index, seen.batch_seq)
                        + &format!(" client {:#x} in", seen.client)
                        + &format!(" {}", sources[number].kept.path.display())
                        + &format!(" and batch {}", before.batch_seq)
                        + &format!(" of client {:#x} in", before.client)
                        + &format!(" {}", sources[*other].kept.path.display());
                    kept.findings.push(wrong("agree", of, found));
                }
            }
            _ => merged.push((seen, number)),
        }
    }
    agree::left_out(of, sources, kept);
    merged.into_iter().map(|(seen, _)| seen).collect()
}

/// Positions that ascend and meet where entries do, and the topic's order.
fn follows(of: &str, order: Option<Order>, entries: &[Seen], kept: &mut Kept) {
    let mut sequences = Sequences::new(order, of, &[]);
    for (number, seen) in entries.iter().enumerate() {
        let before = number.checked_sub(1).and_then(|before| entries.get(before));
        if let Some(before) = before {
            let meets = before.index + 1 == seen.index;
            let (end, position) = (before.end(), seen.position);
            if position < end || meets && position != end {
                let found = format!("entry {} begins at position {position}", seen.index)
                    + &format!(" and entry {} ends at {end}", before.index);
                kept.findings.push(wrong("position", of, found));
            }
            if !meets {
                sequences.forget();
            }
        }
        if seen.is_lost {
            let (index, count) = (seen.index, seen.count);
            let found = format!("entry {index}, {count} messages of client {:#x},", seen.client)
                + " is lost in every copy: its bytes changed before they were copied";
            let (severity, mend) = (Severity::Warning, mend::SPOILT);
            kept.findings.push(Finding { severity, mend, ..wrong("lost", of, found) });
        } else if seen.is_hole() {
            if order.is_some_and(|order| order != Order::Token) {
                let found = format!("entry {} is a hole, which only order token has", seen.index);
                kept.findings.push(wrong("hole", of, found));
            }
            continue;
        }
        let entry = landfall_layout::order::OrderEntry {
            client: seen.client,
            batch_seq: seen.batch_seq,
            session_epoch: seen.session_epoch,
            broker: seen.source,
            ..Default::default()
        };
        sequences.publisher(seen.index, None, &entry, &mut kept.findings);
    }
}

/// Log index below which bounds may have let go of files: what is missing there may have been in
/// one. A source has what any of its copies has, and one that stands in for another only what came
/// since it does: where some copy says that it had more, the earliest of them counts that was not
/// old by then.
fn retired(sources: &[&Source]) -> u64 {
    let mut begins = Begins::default();
    for source in sources {
        let Some(number) = BrokerId::new(source.kept.source.into()) else { continue };
        source.rows.iter().for_each(|row| begins.add(number, *row));
    }
    begins.retired_below()
}

/// The entries below index `from` that a source had and lost, in every copy that is not whole,
/// while no other one of it is known to have what was there. Bounds did not let go of those.
fn torn(entries: &[Seen], from: u64, sources: &[&Source]) -> Vec<Gap> {
    let mut torn: BTreeMap<u64, u64> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_whole) {
        let others = sources.iter().filter(|other| other.kept.source == source.kept.source);
        let has = |index: &u64| {
            entries.binary_search_by_key(index, |seen| seen.index).is_ok()
                || others.clone().any(|o| o.kept.covers.iter().any(|covers| covers.contains(index)))
        };
        for pair in source.kept.covers.windows(2) {
            let lost = pair[0].end..pair[1].start.min(from);
            torn.extend(lost.filter(|index| !has(index)).map(|index| (index, index + 1)));
        }
    }
    let mut gaps: Vec<Gap> = Vec::new();
    for (start, end) in torn {
        match gaps.last_mut() {
            Some(last) if last.entries.end == start => last.entries.end = end,
            _ => gaps.push(Gap { entries: start..end, positions: None, why: Missing::Damaged }),
        }
    }
    gaps
}

/// The entries that are not in `entries`, from index `from` to what was ordered.
fn gaps(entries: &[Seen], from: u64, ordered: Option<(u64, u64)>, known: &Known<'_>) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut next = from;
    // Positions are known behind an entry that is there, and at the very beginning.
    let mut position = (from == 0).then_some(0);
    for seen in entries.iter().filter(|seen| seen.index >= from) {
        if seen.index > next {
            let positions = position.map(|position| position..seen.position);
            for (entries, positions) in around(next..seen.index, positions, known.skips) {
                split(entries, positions, known, &mut gaps);
            }
        }
        next = seen.index + 1;
        position = Some(seen.end());
    }
    if let Some((ordered, end)) = ordered
        && ordered > next
    {
        let positions = position.map(|start| start..end);
        for (entries, positions) in around(next..ordered, positions, known.skips) {
            split(entries, positions, known, &mut gaps);
        }
    }
    gaps
}

/// What of missing entries was not passed over when a pool was lost.
pub(super) fn around(
    entries: Range<u64>,
    positions: Option<Range<u64>>,
    skips: &Skips,
) -> Vec<(Range<u64>, Option<Range<u64>>)> {
    let mut left = Vec::new();
    let (mut index, mut position) = (entries.start, positions.as_ref().map(|range| range.start));
    let is_inside = |range: &&Skipped| range.index < entries.end && range.to_index > entries.start;
    for range in skips.ranges().iter().filter(is_inside) {
        if index < range.index {
            left.push((index..range.index, position.map(|start| start..range.position)));
        }
        (index, position) = (range.to_index, Some(range.to_position));
    }
    if index < entries.end {
        let positions = position.zip(positions).map(|(start, range)| start..range.end);
        left.push((index..entries.end, positions));
    }
    left
}

/// Splits entries that are not there by what the replicas say of them.
fn split(
    entries: Range<u64>,
    positions: Option<Range<u64>>,
    known: &Known<'_>,
    gaps: &mut Vec<Gap>,
) {
    let sources = known.sources;
    let ends = sources.iter().flat_map(|s| s.kept.covers.iter().flat_map(|c| [c.start, c.end]));
    let ends = ends.chain(sources.iter().map(|source| source.made_at));
    let ends = ends.chain(known.homes.values().chain(known.tails.values()).copied());
    let ends = ends.chain(known.gone_from).chain(known.pools.ends());
    let mut cuts: Vec<u64> = ends.filter(|cut| entries.contains(cut)).collect();
    cuts.extend([entries.start, entries.end]);
    cuts.sort_unstable();
    cuts.dedup();
    let mut parts: Vec<(Range<u64>, Missing)> = Vec::new();
    for cut in cuts.windows(2) {
        let [start, end] = *cut else { continue };
        let why = known.why(start);
        match parts.last_mut() {
            Some((last, before)) if *before == why => last.end = end,
            _ => parts.push((start..end, why)),
        }
    }
    let whole = parts.len() == 1;
    for (entries, why) in parts {
        // Which part has which positions is known of nobody.
        let positions = positions.clone().filter(|_| whole);
        gaps.push(Gap { entries, positions, why });
    }
}

/// What is known of a log beside its entries.
struct Known<'a> {
    skips: &'a Skips,
    /// Brokers that may have landed its entries.
    writers: &'a [u8],
    sources: &'a [&'a Source],
    /// Something of the topic could not be read, and may have what is not here.
    is_unread: bool,
    /// Those whose directory of the topic is here, and the log index below which it may never have
    /// had anything.
    homes: BTreeMap<u8, u64>,
    /// Log indexes that files of each broker had come to when the log ended in good order, where
    /// those of all brokers are here.
    tails: BTreeMap<u8, u64>,
    pools: Pools,
    /// From here on only the topic's file says that there was something: not one record saw it
    /// ordered, as the first one of a file does. None: it may be on its way, or lie elsewhere.
    gone_from: Option<u64>,
}

impl Known<'_> {
    /// Why there is no entry at an index.
    fn why(&self, index: u64) -> Missing {
        let is_said = self.gone_from.is_some_and(|from| index >= from);
        if let Some(why) = self.in_no_file(index).filter(|_| !self.is_unread) {
            return why;
        }
        match self.why_by_files(index) {
            _ if self.is_unread => Missing::Unread,
            // Something is passed over only when a pool is lost.
            Missing::Memory if self.skips.ranges().iter().any(|range| range.index > index) => {
                Missing::Past
            }
            Missing::Memory | Missing::Damaged if is_said => Missing::Gone,
            why => why,
        }
    }

    fn why_by_files(&self, index: u64) -> Missing {
        let (skips, sources) = (self.skips, self.sources);
        let of = |writer: u8| sources.iter().filter(move |source| source.kept.source == writer);
        // One whose directory is here, without a file of its own, landed nothing that is known of.
        let is_silent = |writer: &u8| self.homes.get(writer).is_some_and(|made| *made <= index);
        let (writers, silent): (Vec<u8>, Vec<u8>) =
            self.writers.iter().partition(|writer| of(**writer).next().is_some());
        if self.writers.is_empty() || !silent.iter().all(is_silent) {
            return Missing::Elsewhere;
        }
        let has = |writer: &u8| {
            of(*writer)
                .any(|source| source.kept.covers.iter().any(|covers| covers.contains(&index)))
        };
        if writers.iter().all(has) {
            // Of a first batch there may be no file yet.
            return if silent.is_empty() { Missing::Lost } else { Missing::Memory };
        }
        // What is durable is in all replicas: one that holds and has it not says that it never was.
        let is_taken = |source: &Source| source.taken.iter().any(|taken| taken.contains(&index));
        let is_told = |writer: &u8| {
            has(writer) || of(*writer).any(|source| source.is_whole || is_taken(source))
        };
        if !writers.iter().all(is_told) {
            return Missing::Damaged;
        }
        // One whose files begin behind it says so only if it was there before, or had none of it
        // when a pool was lost.
        let begins_behind = |source: &Source| {
            let Some(begin) = source.kept.covers.first().map(|covers| covers.start) else {
                return source.made_at > index;
            };
            let is_skip = |range: &Skipped| range.index >= index && range.to_index <= begin;
            let is_other_life = skips.ranges().iter().any(is_skip);
            begin > index && (source.made_at > index || !is_other_life)
        };
        // What is in memory alone lies behind what its copies have. Where each of them goes on
        // behind it, it was taken, or is a hole in them.
        let goes_on = |source: &Source| {
            let mut starts = source.kept.covers.iter().map(|covers| covers.start);
            let next = starts.find(|start| *start > index);
            let is_skip = |range: &Skipped, next| range.index >= index && range.to_index <= next;
            next.is_some_and(|next| !skips.ranges().iter().any(|range| is_skip(range, next)))
        };
        let is_passed = |writer: &u8| {
            let mut sources = of(*writer);
            !has(writer) && sources.all(|source| is_taken(source) || goes_on(source))
        };
        // It was on disk when the log ended in good order, if it was that broker's, and was not
        // lost with a pool before.
        let is_past = |tail: u64| {
            skips.ranges().iter().any(|range| range.index > index && range.to_index <= tail)
        };
        let is_beyond = |tail: u64| tail > index && !is_past(tail);
        let is_short =
            |writer: &u8| !has(writer) && self.tails.get(writer).is_some_and(|it| is_beyond(*it));
        if writers.iter().any(|writer| is_passed(writer) || is_short(writer)) {
            return Missing::Gone;
        }
        let is_gone = |writer: &u8| has(writer) || of(*writer).all(|source| begins_behind(source));
        if writers.iter().all(is_gone) { Missing::Gone } else { Missing::Memory }
    }
}

/// Says all gaps of a kind in one sentence: where brokers land in turns, each entry may be one.
fn say(of: &str, why: Missing, gaps: &[Gap], kept: &mut Kept) {
    let gaps: Vec<&Gap> = gaps.iter().filter(|gap| gap.why == why).collect();
    let (Some(first), Some(last)) = (gaps.first(), gaps.last()) else { return };
    let count: u64 = gaps.iter().map(|gap| gap.entries.end - gap.entries.start).sum();
    let (start, end) = (first.entries.start, last.entries.end);
    let whole = end - start == count;
    let entries = match whole {
        true => format!("entries {start} to {end}"),
        false => format!("{count} entries between {start} and {end}"),
    };
    let at = match (&first.positions, &last.positions) {
        (Some(first), Some(last)) if whole => {
            format!(", positions {} to {},", first.start, last.end)
        }
        (Some(first), Some(last)) => {
            format!(", at positions between {} and {},", first.start, last.end)
        }
        _ => String::new(),
    };
    let (severity, tail, mend) = match why {
        Missing::Lost => (
            Severity::Error,
            "are in no replica, and all of them say that they have everything there",
            mend::NOWHERE,
        ),
        Missing::Memory => (
            Severity::Note,
            "were ordered, and no copy that is here reaches them",
            mend::ONLY_MEMORY,
        ),
        Missing::Past => (
            Severity::Note,
            "were ordered and are lost: no copy that is here reaches them, and the pool that had \
             them is gone",
            mend::PAST,
        ),
        Missing::Gone => (
            Severity::Error,
            "were ordered and are in no file that is here: files that had them, or may have had \
             them, are gone, cut short or older",
            mend::GONE,
        ),
        Missing::Damaged => (
            Severity::Note,
            "were ordered, and may have stood in files that are gone or do not hold any more",
            mend::DAMAGED,
        ),
        Missing::Unread => (
            Severity::Note,
            "are in no file that could be read, and those that could not be may have them",
            mend::UNREAD,
        ),
        Missing::Elsewhere => (
            Severity::Note,
            "are not here; they may be of brokers whose replicas are not",
            mend::LOOK_ELSEWHERE,
        ),
    };
    let found = format!("{entries}{at} {tail}");
    let of = of.to_owned();
    kept.findings.push(Finding { severity, check: "gap", of, at: None, found, mend });
}

#[cfg(test)]
mod tests;
