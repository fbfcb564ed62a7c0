//! What is written down when a pool is stopped in good order, and taken back when it goes on.
//!
//! Once nothing more is ordered, the data directories say where each log ended: a new pool then
//! goes on right there, and what of it is on no disk is lost for certain. They may say so only as
//! long as the pool stands still. So the pool says that they do, before they do; a control that
//! finds that takes it back in all of them before it serves, and does not serve where it cannot.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landfall_layout::limits::{LOGS_PER_TOPIC, SEQUENCED_LOG, TOPICS_MAX};
use landfall_layout::pool::BrokerState;
use landfall_layout::replica::{ReplicaLine, ReplicaState, TAIL_UNKNOWN};
use landfall_layout::topic::{Durability, TopicEntry, TopicState};
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::Pool;
use landfall_pool::log::{Found, LogReader};
use landfall_replica::holes::left;
use landfall_replica::names::topic_directory;
use landfall_replica::{Ended, EndedLog, FileError, Resumed, TopicFile};

use super::ColdError;
use super::wait::for_lock;

/// The topics of which there are copies on disk.
pub fn live(pool: &Pool) -> impl Iterator<Item = TopicEntry> {
    let topic = |slot| pool.topic_in_slot(slot);
    let is_kept =
        |entry: &TopicEntry| entry.state() == TopicState::Live && entry.disk_replicas() > 0;
    (0..TOPICS_MAX).filter_map(topic).filter(is_kept)
}

/// The topic's directories of this pool.
fn directories_of<'a>(
    pool: &Pool,
    entry: &TopicEntry,
    data: &'a [PathBuf],
) -> impl Iterator<Item = PathBuf> + use<'a> {
    let uuid = pool.uuid_text();
    let (name, created_ns) = (entry.name().to_owned(), entry.created_ns);
    let all = data.iter().map(move |data| topic_directory(data, &name, created_ns));
    all.filter(move |topic| TopicFile::read(topic).is_ok_and(|file| file.pool_uuid == uuid))
}

/// Why directories of a topic that are there do not say what it is: theirs may be the ends that are
/// missed.
fn saying_nothing(entry: &TopicEntry, data: &[PathBuf]) -> Vec<FileError> {
    let all = data.iter().map(|data| topic_directory(data, entry.name(), entry.created_ns));
    all.filter(|topic| topic.is_dir()).filter_map(|topic| TopicFile::read(&topic).err()).collect()
}

/// Changes what a directory says of a topic of this pool, for as long as this control leads it: one
/// that was stopped and wakes when another leads changes nothing. It looks under the lock, so who
/// claims the lead after that look writes after it.
fn change(
    pool: &Pool,
    topic: &Path,
    change: impl Fn(TopicFile) -> TopicFile,
) -> Result<(), FileError> {
    let uuid = pool.uuid_text();
    for_lock(|| {
        let is_its = |file: &TopicFile| file.pool_uuid == uuid && pool.leads(pool.epoch_number());
        TopicFile::change(topic, |file| (file.filter(is_its).map(&change), ()))
    })
}

/// Says in the data directories which of the topics that came back are in this pool's table, which
/// is served now: what is not there any more was deleted. What could not be said is a sentence.
pub fn say_alive(pool: &Pool, data: &[PathBuf]) -> Vec<String> {
    let mut notes = Vec::new();
    for entry in live(pool) {
        for topic in directories_of(pool, &entry, data) {
            let said = change(pool, &topic, |file| TopicFile { live_in: pool.uuid_text(), ..file });
            notes.extend(said.err().map(|error| format!("topic {}: {error}", entry.name())));
        }
    }
    notes
}

/// Logs, and brokers that landed something in them which no copy has all of.
type Uncounted = BTreeSet<(usize, u8)>;

/// Where each log of a topic ended. What its copies on disk do not have of it is gone with the
/// pool, and a sentence each: the end says all the same how far the log was, so that a new pool
/// goes on behind it and tells of what is lost. What a broker landed is counted where a copy has
/// all of it, and only there: who reads no count takes no copy for whole.
fn ended(pool: &Pool, entry: &TopicEntry, notes: &mut Vec<String>) -> (Ended, Uncounted) {
    let id = TopicId(entry.id);
    let is_sequenced = entry.order().is_some_and(|order| order.is_sequenced());
    let (mut all, mut uncounted) = (Ended::default(), Uncounted::new());
    for log in (0..LOGS_PER_TOPIC).filter(|log| is_sequenced == (*log == SEQUENCED_LOG)) {
        let line = pool.frontier(id, log);
        // Where nothing ever landed nobody keeps anything.
        if line.entries == 0 {
            continue;
        }
        let mut ended =
            EndedLog { index: line.entries, position: line.position, ..EndedLog::default() };
        // What memory has of the log. Before that all is on disks, from before this pool or since.
        let oldest = pool.oldest(id, log);
        let lands = |source: BrokerId| match is_sequenced {
            true => pool.ring(id, source).is_some(),
            false => oldest < line.entries,
        };
        for source in BrokerId::all().filter(|source| is_sequenced || source.index() == log) {
            let numbered = (0..entry.disk_replicas())
                .map(|replica| (replica, pool.replica(id, source, replica)));
            // Of one that landed before this pool, and not since, what is looked after.
            let mut numbered = numbered.filter(|(_, kept)| lands(source) || kept.incarnation != 0);
            let copies = numbered.clone().map(|(_, kept)| kept);
            if copies.clone().next().is_none() {
                // It landed nothing in this pool: what disks had when the topic came back is all.
                let tail = Some(pool.tail_on_disk(id, source));
                let tail = tail.filter(|tail| is_sequenced && *tail > 0);
                ended.tails.extend(tail.map(|tail| (source.raw(), tail)));
                continue;
            }
            let is_whole = |kept: &ReplicaLine| {
                kept.state() == ReplicaState::Well
                    && (kept.durable >= line.entries
                        || landed_nothing(pool, (id, log), source, (kept.durable, line.entries)))
            };
            let whole = copies.clone().filter(is_whole);
            // One that begins behind the others has fewer.
            if let Some(entries) = whole.clone().map(|kept| kept.entries).max() {
                // Each that has them all says where they end; one may say it of entries of
                // others that came behind them.
                let tails = whole.clone().filter(|kept| kept.entries == entries);
                let tail = tails.map(|kept| kept.tail).min().unwrap_or_default();
                ended.entries.insert(source.raw(), entries);
                ended.tails.insert(source.raw(), tail);
            } else {
                uncounted.insert((log, source.raw()));
                let from = on_disk_below(pool, entry, source, oldest);
                ended.unkept.insert(source.raw(), from);
            }
            let whole = whole.count();
            if let Some((replica, kept)) = numbered.find(|(_, kept)| !is_whole(kept)) {
                let of = (id, log, source);
                let homes = usize::from(entry.replica_brokers.max(1));
                let home = (source.index() + replica) % homes;
                // Nothing is wrong with it.
                let state = match kept.state() {
                    ReplicaState::Well => "behind",
                    state => state.name(),
                };
                let lacks = lacks(pool, of, &kept, (oldest, line.entries), whole);
                notes.push(format!(
                    "topic {}: broker {home}'s copy on disk of what broker {source} landed is \
                     {state}: {lacks}",
                    entry.name(),
                ));
            }
        }
        if is_sequenced && !ended.unkept.is_empty() {
            say_of_others(&mut ended, entry.replica_brokers, oldest);
        }
        all.logs.insert(log, ended);
    }
    (all, uncounted)
}

/// What a copy lacks that is not whole, and where that is, as `whole` copies have all. `memory`:
/// from where to where that has the log.
fn lacks(
    pool: &Pool,
    (topic, log, source): (TopicId, usize, BrokerId),
    kept: &ReplicaLine,
    memory: (u64, u64),
    whole: usize,
) -> String {
    let (oldest, end) = memory;
    let is_absent = kept.state() == ReplicaState::Absent;
    let from = if is_absent { oldest } else { kept.durable };
    let has_nothing = landed_nothing(pool, (topic, log), source, (from, end));
    let place = match whole {
        _ if has_nothing => String::new(),
        0 => format!("is in the pool alone{}", way_on(pool)),
        1 => "is on 1 other disk; start its keeper to fill it".to_owned(),
        _ => format!("is on {whole} other disks; start its keeper to fill it"),
    };
    match (is_absent, has_nothing) {
        (true, false) => format!(
            "its keeper was not started on this pool, and what memory has, log index {oldest} to \
             {end}, {place}"
        ),
        (true, true) => format!(
            "its keeper was not started on this pool, and nothing that memory has, log index \
             {oldest} to {end}, is that broker's"
        ),
        (false, false) => format!(
            "it has everything below log index {from} of {end}, and what is behind that {place}"
        ),
        (false, true) => format!(
            "it has everything below log index {from} of {end}, and that broker landed nothing \
             behind that"
        ),
    }
}

/// What becomes of what is in the pool alone. A file that has no name is gone with whoever has it
/// open.
fn way_on(pool: &Pool) -> &'static str {
    match nix::sys::stat::fstat(pool.fd()) {
        Ok(stat) if stat.st_nlink == 0 => {
            ", which has no name: it is lost once no process has that open"
        }
        _ => "; keep the pool and start again on it, or that is lost",
    }
}

/// Logs in which nobody ever landed anything: no file says so, and one of which no end is said may
/// have been anywhere.
fn empty_logs(pool: &Pool, entry: &TopicEntry, topics: &[PathBuf]) -> BTreeSet<usize> {
    let said = topics.iter().filter_map(|topic| TopicFile::read(topic).ok());
    let resumed: Vec<(usize, Resumed)> = said.flat_map(|file| file.resumed).collect();
    let had_some = |log: usize| {
        pool.frontier(TopicId(entry.id), log).entries > 0
            || resumed.iter().any(|(of, at)| *of == log && at.index > 0)
    };
    let known = resumed.iter().map(|(log, _)| *log);
    // Where each log begins of which nothing is known, the topic itself says.
    let first = first_logs(entry).filter(|_| entry.begin_index == 0);
    first.chain(known).filter(|log| !had_some(*log)).collect()
}

/// Says of the homes that are not said to have landed anything that only the pool has from which
/// log index on there is nothing of theirs: the log has the batches of all. Of one that landed
/// nothing in this pool that is where its memory begins.
fn say_of_others(ended: &mut EndedLog, homes: u8, oldest: u64) {
    for source in 0..homes {
        let counted = ended.tails.get(&source).filter(|_| ended.entries.contains_key(&source));
        let from = counted.copied().unwrap_or(oldest);
        ended.unkept.entry(source).or_insert(from);
    }
}

/// Log index from which on no file has anything of what `source` landed, of which no copy is whole:
/// behind the last entry that the copy has which got furthest, and of what lay before this pool, at
/// log indexes below `oldest`, nothing.
fn on_disk_below(pool: &Pool, entry: &TopicEntry, source: BrokerId, oldest: u64) -> u64 {
    let lines = pool.copy_lines(TopicId(entry.id), source).map(|(_, line)| line);
    // Of one that was shut before it had come to this pool no file has anything of it.
    let lines = lines.filter(|line| line.incarnation != 0 && line.tail != TAIL_UNKNOWN);
    let lines: Vec<_> = lines.collect();
    let durable = lines.iter().map(|line| line.durable).max().unwrap_or_default();
    // Each that got so far says where the last entry is; one may say it of entries of others that
    // came behind it. Of a copy that cannot be opened only this says what its files have.
    let furthest = lines.iter().filter(|line| line.durable == durable).map(|line| line.tail).min();
    let shut = lines.iter().filter(|line| line.durable == 0).map(|line| line.tail).max();
    let before = if durable < oldest { oldest } else { 0 };
    // What a receipt was given for without a sync is missing where it is not there.
    let is_window = entry.durability() == Durability::Window;
    let written = lines.iter().filter(|_| is_window).map(|line| line.written).max();
    [furthest, shut, written].into_iter().flatten().fold(before, u64::max)
}

/// Whether a broker landed nothing from log index `from` to below `to`, where its log ends: lines
/// of its copies say so, or memory has all of the log from there on.
fn landed_nothing(
    pool: &Pool,
    (topic, log): (TopicId, usize),
    source: BrokerId,
    (from, to): (u64, u64),
) -> bool {
    let lines = pool.copy_lines(topic, source).filter(|(_, line)| line.incarnation != 0);
    let lines: Vec<_> =
        lines.map(|(at, line)| (at.key == u64::from(topic.0), line.tail, line.durable)).collect();
    if lines.iter().any(|(is_home, tail, _)| *is_home && *tail > from) {
        return false;
    }
    let mut reader = LogReader::new(topic, log);
    let is_anothers = |index| match reader.entry(pool, index) {
        Found::Entry(entry) => entry.broker != source.raw(),
        Found::Lapped { .. } | Found::Gone => false,
    };
    let followed = lines.into_iter().map(|(_, tail, durable)| (tail, durable));
    is_followed((from, to), followed)
        || pool.oldest(topic, log) <= from && (from..to).all(is_anothers)
}

/// Whether keepers followed a log at each index of a range, from where their files end on. One that
/// stands in for another begins where that ended, and its files before it keeps anything.
fn is_followed(range: (u64, u64), keepers: impl Iterator<Item = (u64, u64)>) -> bool {
    left(range, keepers.filter(|(tail, durable)| tail < durable)).is_empty()
}

/// Logs of a topic that nothing is known of: that of its order, or those of its homes.
pub fn first_logs(entry: &TopicEntry) -> std::ops::Range<usize> {
    match entry.order().is_some_and(|order| order.is_sequenced()) {
        true => SEQUENCED_LOG..SEQUENCED_LOG + 1,
        false => 0..usize::from(entry.replica_brokers).min(SEQUENCED_LOG),
    }
}

/// The brokers of whose batches directories lack some: their lines are not all that files had.
fn lacked(topics: &[PathBuf]) -> BTreeSet<u8> {
    let said = topics.iter().filter_map(|topic| TopicFile::read(topic).ok());
    said.flat_map(|file| file.places.lacks).map(|lack| lack.source).collect()
}

/// The most that topic directories say of how often the topic went on.
fn latest_life(topics: &[PathBuf]) -> u64 {
    let lives = topics.iter().filter_map(|topic| Some(TopicFile::read(topic).ok()?.life));
    lives.max().unwrap_or_default()
}

/// Lets directories that know less, as one that was made a while ago, say how often their topic
/// went on: among those that say the same, one may name the end that another has not heard of. What
/// could not be said is a sentence.
fn say_life(pool: &Pool, topics: &[PathBuf], life: u64) -> Vec<String> {
    let knows = |topic: &Path| TopicFile::read(topic).is_ok_and(|file| file.life == life);
    let less = topics.iter().filter(|topic| !knows(topic));
    let said = less.map(|topic| change(pool, topic, |file| TopicFile { life, ..file }));
    said.filter_map(|said| Some(said.err()?.to_string())).collect()
}

/// At the very end of a control that leads in `epoch`: if all brokers have left in good order, says
/// in the data directories where the logs ended. Nothing is ordered any more, and whoever leads
/// next finds in the pool that they say so. What could not be said, and what is on no disk, is a
/// sentence each.
pub fn say_ended(pool: &Pool, epoch: u64, data: &[PathBuf]) -> Vec<String> {
    if !pool.leads(epoch) || live(pool).next().is_none() {
        return Vec::new();
    }
    let is_there = |broker| BrokerState::from_raw(pool.broker(broker).state) != BrokerState::Absent;
    let why = match BrokerId::all().find(|broker| is_there(*broker)) {
        Some(broker) => format!("broker {broker} has not left in good order"),
        None if data.is_empty() => "control knows no data directory (--restore)".to_owned(),
        None => String::new(),
    };
    if !why.is_empty() {
        return vec![format!(
            "{why}, so no directory says where logs ended; should this pool be lost, the next one \
             passes over as many positions as it could have had"
        )];
    }
    let (mut all, mut notes) = (Vec::new(), Vec::new());
    for entry in live(pool) {
        let topics: Vec<PathBuf> = directories_of(pool, &entry, data).collect();
        let (mut ended, uncounted) = ended(pool, &entry, &mut notes);
        let empty = empty_logs(pool, &entry, &topics).into_iter();
        ended.logs.extend(empty.map(|log| (log, EndedLog::default())));
        if !ended.logs.is_empty() {
            let lacked = lacked(&topics);
            let logs = ended.logs.values_mut();
            logs.for_each(|log| log.unkept.retain(|source, _| !lacked.contains(source)));
            notes.extend(say_life(pool, &topics, latest_life(&topics).max(1)));
            let said = |topic| (topic, ended.clone(), uncounted.clone());
            all.extend(topics.into_iter().map(said));
        }
    }
    if all.is_empty() {
        return notes;
    }
    pool.say_ended(all.len() as u64);
    if !pool.leads(epoch) {
        // The next one may have looked already.
        return Vec::new();
    }
    for (topic, ended, uncounted) in all {
        // The next leader has claimed its epoch before it takes anything back here, under the same
        // lock: what is said after it looked was said by nobody who still leads.
        let say = |file| match pool.leads(epoch) {
            true => {
                let ended = with_earlier(ended.clone(), &uncounted, &file);
                TopicFile { ended: Some(ended), ..file }
            }
            false => file,
        };
        notes.extend(change(pool, &topic, say).err().map(|error| error.to_string()));
    }
    notes
}

/// Adds what replicas had when the pool began, of brokers that landed nothing since. `uncounted`
/// may have: an earlier count would call copies whole that have nothing of what came since.
fn with_earlier(mut ended: Ended, uncounted: &Uncounted, file: &TopicFile) -> Ended {
    for (number, log) in &mut ended.logs {
        let began = file.began.as_ref().and_then(|began| began.logs.get(number));
        let counts = |source: &u8| !uncounted.contains(&(*number, *source));
        let Some(began) = began else { continue };
        for (source, entries) in began.entries.iter().filter(|(source, _)| counts(source)) {
            if !log.entries.contains_key(source) {
                log.entries.insert(*source, *entries);
                log.tails.extend(began.tails.get(source).map(|tail| (*source, *tail)));
            }
        }
    }
    ended
}

fn take_back(pool: &Pool, topic: &Path, life: u64) -> Result<(), FileError> {
    change(pool, topic, |mut file| {
        // What was on disk by then stays there.
        if let Some(ended) = file.ended.take() {
            file.had.get_or_insert_with(|| file.began.clone().unwrap_or_default()).go_on(&ended);
        }
        TopicFile { life, ..file }
    })
}

/// Before a control serves a pool whose last leader stopped it in good order, in slot `from`: the
/// directories may not say any more where logs ended, and a copy of one from before is known by the
/// life that it lacks. `forgets`: those that are not there never come back.
pub fn go_on(
    pool: &Pool,
    from: Option<usize>,
    data: &[PathBuf],
    forgets: bool,
) -> Result<(), ColdError> {
    let said = from.map_or(0, |slot| pool.ended_by(slot));
    if said == 0 {
        return Ok(());
    }
    let (mut found, mut silent, mut all) = (0, Vec::new(), Vec::new());
    for entry in live(pool) {
        silent.extend(saying_nothing(&entry, data));
        let topics: Vec<PathBuf> = directories_of(pool, &entry, data).collect();
        found += topics.len() as u64;
        all.push(topics);
    }
    // A start that is refused changes nothing: another one, with all directories, may follow.
    if found < said && !forgets {
        return Err(ColdError::Ended { said, found, silent });
    }
    for topics in all {
        let life = latest_life(&topics).saturating_add(1);
        let take_back = |topic: &PathBuf| take_back(pool, topic, life);
        topics.iter().try_for_each(take_back).map_err(|error| ColdError::Unsaid { error })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use landfall_layout::replica::TAIL_UNKNOWN;

    use super::*;

    /// A home that went at 10, and one after the other in its place.
    #[test]
    fn keepers_that_come_after_each_other_say_together_that_nothing_came() {
        let is_followed = |lines: &[(u64, u64)]| is_followed((10, 50), lines.iter().copied());
        assert!(is_followed(&[(7, 10), (10, 30), (30, 50)]));
        assert!(!is_followed(&[(7, 10), (10, 30), (31, 50)]));
        assert!(!is_followed(&[(7, 10), (30, 50)]), "what came before it began nobody followed");
        assert!(!is_followed(&[(7, 10), (TAIL_UNKNOWN, 50)]));
        assert!(is_followed(&[(7, 60)]));
    }
}
