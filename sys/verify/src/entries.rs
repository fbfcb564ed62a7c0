//! Entries of a log, from the oldest that may be read to the frontier.

use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::topic::Order;
use landfall_pool::{Memory, Pool};

use crate::batch::{self, Named, Range};
use crate::chains::{self, Chain, Link};
use crate::facts::{Facts, Tally, TopicFacts};
use crate::finding::Findings;
use crate::mend;
use crate::sequence::Sequences;

/// What the walk over a log carries.
pub struct Walk<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// What its tables say.
    pub facts: &'a Facts,
    /// How much was looked at.
    pub tally: &'a mut Tally,
    /// Where batches lie.
    pub ranges: &'a mut Vec<Range>,
    /// A batch's payload.
    pub buffer: &'a mut Vec<u8>,
    /// What was found.
    pub out: &'a mut Findings,
}

/// What follows from the entry before.
#[derive(Default)]
struct Before {
    /// Position behind it; unknown at first and behind an entry that says nothing.
    position: Option<u64>,
    /// When it landed.
    landed_ns: u64,
    /// Bytes of all batches so far.
    bytes: u64,
    /// The first entry that was read, and the position of its first message.
    first: Option<(u64, u64)>,
}

/// Looks at every entry of a log. Sequences of publishers go to `sequences`.
pub fn look(
    walk: &mut Walk<'_>,
    topic: &TopicFacts,
    log: usize,
    chain: &Chain,
    sequences: &mut Sequences,
) {
    let name = chains::name(topic, log);
    let frontier = walk.pool.frontier(topic.id, log);
    let (oldest, entries) = (chain.oldest, frontier.entries);
    let chain_at = walk.pool.geometry().chain(topic.id.slot(), log);
    let frontier_at = walk.pool.geometry().frontier(topic.id.slot(), log);
    if oldest > entries {
        let found = format!("its oldest entry is {oldest} and its frontier is {entries}");
        walk.out.error("chain", format!("chain of {name}"), chain_at, found, mend::COPY_POOL);
        return;
    }
    let end = chain.links.last().map_or(oldest, |last| last.end);
    if entries > end {
        let found = format!("it says {entries} entries and the segments end at {end}");
        let of = format!("frontier of {name}");
        walk.out.error("frontier", of, frontier_at, found, mend::COPY_POOL);
    }
    let mut before = Before::default();
    let mut gone = oldest;
    for link in &chain.links {
        // A link that begins behind what is next leaves a hole, which the chain's check names.
        for index in link.base.max(gone)..link.end.min(entries) {
            one(walk, topic, (log, &name), link, index, &mut before, sequences);
        }
        gone = gone.max(link.end.min(entries));
    }
    if log == SEQUENCED_LOG {
        judge_written(walk, &name, chain, &frontier, frontier_at);
    }
    if walk.pool.oldest(topic.id, log) == oldest {
        let whole = gone == entries;
        judge_ends(walk, (&name, frontier_at), chain, &frontier, &before, whole);
        let first = match before.first {
            Some((index, position)) => (index == oldest).then_some(position),
            None => (oldest == entries).then_some(frontier.position),
        };
        if let Some(first) = first.filter(|first| whole && *first != chain.oldest_position) {
            let found = format!("its oldest entry is {oldest}, at position")
                + &format!(" {}, and that is at {first}", chain.oldest_position);
            walk.out.warning("chain", format!("chain of {name}"), chain_at, found, mend::RECOVER);
        }
    }
}

fn one(
    walk: &mut Walk<'_>,
    topic: &TopicFacts,
    (log, name): (usize, &str),
    link: &Link,
    index: u64,
    before: &mut Before,
    sequences: &mut Sequences,
) {
    let pool = walk.pool;
    let Some(start) = pool.geometry().segment(link.segment) else { return };
    let at = start + (index - link.base) * OrderEntry::BYTES;
    pool.refresh(at, OrderEntry::BYTES);
    let entry = OrderEntry::from_words(pool.load_words(at));
    pool.acquire_fence();
    // What retention has passed meanwhile may be anything.
    if pool.oldest(topic.id, log) > index {
        *before = Before::default();
        return;
    }
    let of = format!("{name}, entry {index}");
    walk.tally.entries += 1;
    if entry.commit != index.wrapping_add(1) {
        let found = format!("its commit word is {} and not {}", entry.commit, index + 1);
        walk.out.error("entry", &of, at, found, mend::COPY_POOL);
        *before = Before::default();
        return;
    }
    before.first = before.first.or(Some((index, entry.first_position)));
    follows(&entry, before, (&of, at), walk.out);
    judge(topic, log, index, &entry, (&of, at), walk.out);
    sequences.next(index, at, &entry, walk.out);
    if entry.is_hole() {
        hole(topic, &entry, (&of, at), walk.out);
        return;
    }
    let named = Named::by_entry(topic.id, &entry);
    let Some(place) = batch::place(pool, walk.facts, &named, (&of, at), walk.out) else { return };
    let mut found = Findings::default();
    batch::contents(pool, &named, place, &of, walk.buffer, walk.tally, &mut found);
    pool.acquire_fence();
    if pool.oldest(topic.id, log) > index {
        return;
    }
    walk.ranges.push(batch::range(&named, at));
    found.kept().iter().for_each(|finding| walk.out.push(finding.clone()));
}

/// Positions that nobody wrote: only where they are handed out first.
fn hole(topic: &TopicFacts, entry: &OrderEntry, (of, at): (&str, u64), out: &mut Findings) {
    if topic.order != Some(Order::Token) {
        out.error("entry", of, at, "it is a hole, which only order token has", mend::COPY_POOL);
    } else if entry.bytes != 0 {
        let found = format!("it is a hole of {} bytes", entry.bytes);
        out.error("entry", of, at, found, mend::COPY_POOL);
    }
}

/// Positions without a gap, times that do not go back.
fn follows(entry: &OrderEntry, before: &mut Before, (of, at): (&str, u64), out: &mut Findings) {
    if let Some(position) = before.position
        && entry.first_position != position
    {
        let found = format!("its first position is {}", entry.first_position)
            + &format!(" and the entry before it ends at {position}");
        out.error("entry", of, at, found, mend::COPY_POOL);
    }
    if entry.landed_ns < before.landed_ns {
        let found = format!("it landed at {} ns", entry.landed_ns)
            + &format!(" and the entry before it at {}", before.landed_ns);
        out.error("entry", of, at, found, mend::COPY_POOL);
    }
    before.position = Some(entry.end_position());
    before.landed_ns = before.landed_ns.max(entry.landed_ns);
    before.bytes = before.bytes.saturating_add(entry.bytes.into());
}

/// What an entry says of itself.
fn judge(
    topic: &TopicFacts,
    log: usize,
    index: u64,
    entry: &OrderEntry,
    (of, at): (&str, u64),
    out: &mut Findings,
) {
    if entry.count == 0 {
        out.error("entry", of, at, "it has no messages", mend::COPY_POOL);
    }
    if entry.first_position.checked_add(entry.count.into()).is_none() {
        let found = format!("its first position {} leaves no room", entry.first_position);
        out.error("entry", of, at, found, mend::COPY_POOL);
    }
    if log != SEQUENCED_LOG && usize::from(entry.broker) != log {
        let found = format!("it is of broker {} in the log of broker {log}", entry.broker);
        out.error("entry", of, at, found, mend::COPY_POOL);
    }
    if log != SEQUENCED_LOG && entry.ring_index != index as u32 {
        let found = format!("its index says {} in topic {}", entry.ring_index, topic.name);
        out.error("entry", of, at, found, mend::COPY_POOL);
    }
}

/// What the leader said it had written has to be there: the next one takes over from it.
fn judge_written(walk: &mut Walk<'_>, name: &str, chain: &Chain, frontier: &FrontierLine, at: u64) {
    let FrontierLine { entries, written, .. } = *frontier;
    let of = format!("frontier of {name}");
    if written < entries {
        let found = format!("it says {entries} entries and {written} written");
        walk.out.error("frontier", &of, at, found, mend::COPY_POOL);
    }
    let end = chain.links.last().map_or(0, |last| last.end);
    if written > entries.max(end) {
        let found = format!("it says {written} written and the segments end at {end}");
        walk.out.error("frontier", &of, at, found, mend::COPY_POOL);
    }
    for link in &chain.links {
        let Some(start) = walk.pool.geometry().segment(link.segment) else { continue };
        for index in link.base.max(entries)..link.end.min(written) {
            let at = start + (index - link.base) * OrderEntry::BYTES;
            walk.pool.refresh(at, OrderEntry::BYTES);
            let commit = walk.pool.load(at + 56);
            if commit != index.wrapping_add(1) {
                let found = format!("it was written, and its commit word is {commit}");
                let of = format!("{name}, entry {index}");
                walk.out.error("entry", of, at, found, mend::COPY_POOL);
            }
        }
    }
}

/// Whether the line's position or bytes are those of entries that are there and that it does not
/// count so far: its writer stores the count last.
fn was_moving(
    pool: &Pool,
    chain: &Chain,
    frontier: &FrontierLine,
    mut position: u64,
    mut bytes: u64,
) -> bool {
    let bytes_known = chain.oldest == 0;
    let Some(link) = chain.links.iter().find(|link| link.end > frontier.entries) else {
        return false;
    };
    let Some(start) = pool.geometry().segment(link.segment) else { return false };
    let (was_position, was_bytes) = (position, bytes);
    for index in frontier.entries.max(link.base)..link.end {
        let at = start + (index - link.base) * OrderEntry::BYTES;
        let entry = OrderEntry::from_words(pool.load_words(at));
        if entry.commit != index.wrapping_add(1) || entry.first_position != position {
            return false;
        }
        position = entry.end_position();
        bytes = bytes.saturating_add(entry.bytes.into());
        // Position first, bytes after it, so bytes may still be the old ones.
        let bytes_fit = [was_bytes, bytes].contains(&frontier.bytes) || !bytes_known;
        if frontier.position == position && position != was_position && bytes_fit {
            return true;
        }
    }
    false
}

/// What the lines say of the log's ends, against its entries.
fn judge_ends(
    walk: &mut Walk<'_>,
    (name, at): (&str, u64),
    chain: &Chain,
    frontier: &FrontierLine,
    before: &Before,
    whole: bool,
) {
    let Some(end) = before.position.filter(|_| whole) else { return };
    let of = format!("frontier of {name}");
    if was_moving(walk.pool, chain, frontier, end, before.bytes) {
        let found = format!("it says position {}, {} bytes", frontier.position, frontier.bytes)
            + &format!(" and {} entries: its writer died while it", frontier.entries)
            + " moved it";
        walk.out.warning("frontier", &of, at, found, mend::WRITER_RESUMES);
        return;
    }
    if frontier.position != end {
        let found = format!("it says position {} and the last entry ends", frontier.position)
            + &format!(" at {end}");
        walk.out.error("frontier", &of, at, found, mend::RECOVER);
    }
    let all = chain.oldest == 0;
    if frontier.bytes < before.bytes || all && frontier.bytes != before.bytes {
        let found = format!("it says {} bytes and the entries have", frontier.bytes)
            + &format!(" {}", before.bytes);
        walk.out.warning("frontier", &of, at, found, mend::RECOVER);
    }
}
