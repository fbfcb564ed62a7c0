//! What is said of a topic beside its files, in `topic.json`, and by whom.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use landfall_layout::keepers::StandIn;
use landfall_layout::limits::{LOGS_PER_TOPIC, STAND_INS_MAX};
use landfall_layout::order::FrontierLine;
use landfall_layout::replica::{ReplicaLine, TAIL_UNKNOWN};
use landfall_layout::topic::TopicEntry;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::Pool;
use landfall_replica::end::{End, beyond};
use landfall_replica::mend::create_directory;
use landfall_replica::names::{TOPIC_COPY, TOPIC_FILE, topic_directory};
use landfall_replica::there::{Lack, Part};
use landfall_replica::{
    Ended, EndedLog, FileError, Numbers, Resumed, TopicFile, deletions, numbers,
};

use super::duties::Duty;
use super::had;
use super::place::Place;

/// Who keeps a replica, and when it began.
#[derive(Clone, Copy, Debug)]
pub struct Keeper {
    pub me: BrokerId,
    pub incarnation: u64,
    pub now_ns: u64,
    pub file_bytes: u64,
}

/// How often a number that could not be written is tried again, nanoseconds.
const NAME_EVERY_NS: u64 = 1_000_000_000;
/// How long others' directories are waited for: they may hang.
const OTHERS_WAIT: Duration = Duration::from_secs(1);

/// Whether this broker's number stands in its data directory.
#[derive(Debug, Default)]
pub struct Named {
    is_done: bool,
    is_told: bool,
    retry_at_ns: u64,
}

impl Named {
    /// Writes it, once the pool is served and its topics are said here: so an empty mount point
    /// never counts as a disk that has nothing of them. What could not be written is a sentence.
    pub fn say(&mut self, pool: &Pool, data: &Path, me: BrokerId, now: u64) -> Option<String> {
        if self.is_done || now < self.retry_at_ns {
            return None;
        }
        self.retry_at_ns = now + NAME_EVERY_NS;
        match numbers::name(data, me, &pool.uuid_text()) {
            Ok(()) => self.is_done = true,
            Err(error) if !self.is_told => {
                self.is_told = true;
                return Some(format!(
                    "broker {me} could not leave its number in its data directory ({error}): a \
                     cold start may not know the directory while it holds no topic"
                ));
            }
            Err(_) => {}
        }
        None
    }
}

/// Writes what the topic is, unless that is said already. The topic is alive in the table of a
/// leader that serves, so no end of its logs stands any more. A directory that is new to this pool
/// learns what those in `others` say of it. What is said of logs that went on in this pool right
/// where they had ended.
pub fn write_topic(
    pool: &Pool,
    me: BrokerId,
    directory: &Path,
    entry: &TopicEntry,
    others: &[PathBuf],
) -> Result<Option<Ended>, FileError> {
    let uuid = pool.uuid_text();
    refuse_deleted(directory, &uuid)?;
    create_directory(directory)?;
    let moved = moved_on(pool, entry);
    let elsewhere = match moved.is_empty() {
        true => Vec::new(),
        false => had::said(pool, directory, entry, others),
    };
    let Some(mine) = TopicFile::of(entry, &uuid, pool.header().pool_bytes) else {
        return Ok(None);
    };
    let place = Place::look(me, directory, entry, others);
    let began = TopicFile::change(directory, |there| {
        if let Some(there) = there.as_ref().filter(|it| it.went_on_elsewhere(&uuid, entry.life)) {
            let why = elsewhere_since(&there.pool_uuid);
            return (None, Err(FileError::Topic { path: directory.to_owned(), why }));
        }
        // Once it is said that they are this pool's, files that reach further say that the pool is
        // an older copy of itself.
        if there.as_ref().is_none_or(|it| it.pool_uuid != uuid)
            && let Some(beyond) = beyond(directory, entry, |log| frontier(pool, entry, log).index)
        {
            let why = another_life(&beyond);
            return (None, Err(FileError::Topic { path: directory.to_owned(), why }));
        }
        let is_new = there.is_none();
        let lacked = there.iter().flat_map(|file| &file.places.lacks);
        let lacked: Vec<Lack> = lacked.filter(|it| it.keeper == me.raw()).copied().collect();
        // What became of its logs in other pools is control's to say, and stays.
        let kept = there.unwrap_or_else(|| {
            // It may be all that is left of the topic, some day.
            let reached = moved.keys().map(|log| (*log, frontier(pool, entry, *log))).collect();
            TopicFile { made_at: moved, reached, ..mine.clone() }
        });
        let TopicFile { mut resumed, mut skipped, mut reached, mut places, .. } = kept;
        let TopicFile { made_at, began, had, pool_uuid, holes, .. } = kept;
        // What another pool began with says nothing of this one.
        let began = began.filter(|_| pool_uuid == uuid);
        let mut began_there = began.clone();
        for other in elsewhere {
            // A log that began though nobody knew of it began before this directory was made.
            for log in made_at.keys().filter(|log| other.begun_late(**log).is_some()) {
                resumed.extend(other.resumed_of(*log).map(|begun| (*log, begun)));
                skipped.entry(*log).or_default().join(&other.skips_of(*log));
            }
            resumed.extend(other.resumed);
            for (log, skips) in &other.skipped {
                skipped.entry(*log).or_default().join(skips);
            }
            for (log, place) in other.reached {
                let most = reached.entry(log).or_default();
                *most = if place.index > most.index { place } else { *most };
            }
            places.join(&other.places);
            began_there = began_there.or(other.began);
        }
        // What this directory lacks is its own to say.
        places.lacks.retain(|lack| lack.keeper != me.raw());
        places.lacks.extend(lacked);
        place.keep(pool, entry, &mut places, is_new);
        // An end that is said here was not taken back: this is a copy from before, or was away.
        let life = kept.life.saturating_add((kept.ended.is_some() && pool_uuid == uuid).into());
        let file = TopicFile { live_in: uuid, resumed, skipped, reached, made_at, life, ..mine };
        (Some(TopicFile { began: began_there, had, holes, places, ..file }), Ok(began))
    })
    .map_err(says_nothing)??;
    // A pool from before the deletion was put back: what is landed now comes back with it.
    if let Some(data) = directory.ancestors().nth(2) {
        deletions::take_back(data, &(entry.name().to_owned(), entry.created_ns))?;
    }
    place.tell(directory, entry, others);
    Ok(began)
}

/// Makes no directory of a topic where another pool was served since this one: it was deleted in
/// that, and would be there again.
fn refuse_deleted(directory: &Path, uuid: &str) -> Result<(), FileError> {
    let data = directory.ancestors().nth(2).filter(|_| !directory.exists());
    let numbers = data.and_then(|data| Numbers::read(data).ok()).unwrap_or_default();
    let Some(since) = numbers.served_since(uuid) else { return Ok(()) };
    let why = format!(
        "nothing of the topic is here any more, and another pool was served on this data directory \
         since, {since}: it was deleted there, and is not made again for this older pool. Start \
         the system on that pool; if that is gone, remove this one's file and start control with \
         --restore, which brings back what is durable"
    );
    Err(FileError::Topic { path: directory.to_owned(), why })
}

/// How to go on where neither the topic's file nor its copy holds. What they said may matter, so
/// they are not written over here.
fn says_nothing(error: FileError) -> FileError {
    let FileError::Topic { path, why } = error else { return error };
    let why = format!(
        "{why}; nor does a copy of it hold. Stop this broker, move {TOPIC_FILE} and {TOPIC_COPY} \
         away, and start it again: they are made anew from what the pool and other directories say"
    );
    FileError::Topic { path, why }
}

/// What is wrong with a directory that another pool has taken up: what this pool wrote there would
/// have positions that the other one has used.
fn elsewhere_since(pool: &str) -> String {
    format!(
        "the topic went on in another pool since, {pool}: nothing of this older pool is written \
         there. Start the system on that pool; if that is gone, remove this one's file and start \
         control with --restore, which brings back what is durable"
    )
}

/// What is wrong with files of another pool that reach further than the log does in this one.
fn another_life((end, here): &(End, u64)) -> String {
    let (index, source) = (end.index, end.source);
    format!(
        "its files of broker {source} reach log index {index} and the log only {here}: they are of \
         another life of this topic; move the directory away"
    )
}

/// The logs of a topic whose memory begins behind their first entry, and where.
pub fn moved_on(pool: &Pool, entry: &TopicEntry) -> BTreeMap<usize, u64> {
    let oldest = |log| (log, pool.oldest(TopicId(entry.id), log));
    (0..LOGS_PER_TOPIC).map(oldest).filter(|(_, oldest)| *oldest > 0).collect()
}

fn frontier(pool: &Pool, entry: &TopicEntry, log: usize) -> Resumed {
    let line = pool.frontier(TopicId(entry.id), log);
    Resumed { index: line.entries, position: line.position }
}

/// What a broker had of a topic on disk, by the pool's lines. Where a topic's bounds let go of
/// files nobody can tell what of it is to be there.
pub fn lacks(pool: &Pool, entry: &TopicEntry, me: BrokerId) -> Vec<Lack> {
    let topic = TopicId(entry.id);
    if entry.disk_bytes > 0 || entry.disk_ns > 0 {
        return Vec::new();
    }
    let stand_ins = (0..STAND_INS_MAX).map(|line| Some(StandIn { broker: me, line }));
    let keepers: Vec<Option<StandIn>> = std::iter::once(None).chain(stand_ins).collect();
    let mut had = Vec::new();
    for source in BrokerId::all() {
        for copy in 0..entry.disk_replicas() {
            let is_home = entry.replica_broker(source, copy) == Some(me);
            for keeper in keepers.iter().filter(|keeper| keeper.is_some() || is_home) {
                let line = pool.copy_state(pool.copy_line(topic, source, copy, *keeper));
                if line.entries > 0 {
                    had.push(Lack {
                        keeper: me.raw(),
                        source: source.raw(),
                        entries: line.entries,
                        below: line.durable,
                        disk: 0,
                        is_torn: false,
                    });
                }
            }
        }
    }
    had
}

/// Says that this broker keeps a part of a copy in place of its home, from log index `from` on, in
/// its own directory of the topic, and in those of others that can be read here and have it: a cold
/// start asks for the directory then, though its disk is not mounted. Control says it too, in those
/// that it knows; what one of the others cannot take, or takes too late, is left to it.
pub fn say_part(
    (directory, others): (&Path, &[PathBuf]),
    entry: &TopicEntry,
    me: BrokerId,
    duty: Duty,
    from: u64,
) -> Result<(), FileError> {
    let (source, copy, keeper) = (duty.source.raw(), duty.replica as u8, me.raw());
    let part = Part { source, copy, keeper, from };
    part.say(directory)?;
    tell_others(entry, others, move |topic| part.tell(topic));
    Ok(())
}

/// Has something said in those of others' directories that have the topic, and waits for a while.
pub fn tell_others(
    entry: &TopicEntry,
    others: &[PathBuf],
    say: impl Fn(&Path) -> Result<(), FileError> + Clone + Send + 'static,
) {
    let (done, said) = channel::<()>();
    for other in others {
        let topic = topic_directory(other, entry.name(), entry.created_ns);
        let (done, say) = (done.clone(), say.clone());
        let body = move || {
            if topic.is_dir() {
                let _ = say(&topic);
            }
            drop(done);
        };
        // Without a thread nobody waits for it.
        let _ = std::thread::Builder::new().name("parts".to_owned()).spawn(body);
    }
    drop(done);
    let _ = said.recv_timeout(OTHERS_WAIT);
}

/// Log index below which a replica has everything because its log was whole on disk when the pool
/// before this one was stopped; 0: that is not known. Its files, which reach so far and have so
/// many entries if they hold, have to have what they had then.
pub fn began_at(began: Option<Ended>, duty: Duty, log: usize, has: Option<(u64, u64)>) -> u64 {
    let began = began.and_then(|mut began| began.logs.remove(&log));
    let has_all = |log: &EndedLog| {
        has.is_some_and(|(covers, entries)| log.is_reached(duty.source.raw(), covers, entries))
    };
    began.filter(has_all).map_or(0, |log| log.index)
}

/// How far the line `before` says that its copy is, for files that have all that it says. One that
/// could not be opened since says nothing, and nothing left memory meanwhile that they have not
/// got, unless somebody kept the copy `elsewhere`.
pub fn followed(before: &ReplicaLine, elsewhere: u64, oldest: u64) -> u64 {
    let was_shut = before.durable == 0 && !matches!(before.tail, 0 | TAIL_UNKNOWN);
    if was_shut && elsewhere == 0 { oldest } else { before.durable }
}

/// What the line of a copy that cannot be opened says of how far its files have to reach. They are
/// known to have all that left memory only where the line `before` was so far.
pub fn tail_of_shut(before: &ReplicaLine, oldest: u64) -> u64 {
    let was_shut = before.durable == 0 && before.tail != 0;
    match before.incarnation != 0 && (was_shut || before.durable >= oldest) {
        true => before.tail,
        false => TAIL_UNKNOWN,
    }
}

/// Says beside the files of a source, which lie in `source`, how far their log is: should one of
/// them not be readable some day, the log is known to have come so far.
pub fn say_reached(source: &Path, log: usize, frontier: &FrontierLine) -> Result<(), FileError> {
    let reached = Resumed { index: frontier.entries, position: frontier.position };
    TopicFile::change(source.parent().unwrap_or(source), |file| {
        let said = file.map(|mut file| {
            file.reached.insert(log, reached);
            file
        });
        (said, ())
    })
}
