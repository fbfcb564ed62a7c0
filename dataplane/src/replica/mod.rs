//! Replicas: what other brokers and this one landed, on this broker's disk.
//!
//! A thread of its own follows the logs, so that no disk ever holds up the broker's loop. It
//! writes batches straight from the pool, syncs once a group, and then moves the replica's line.
//!
//! | module | what |
//! |---|---|
//! | `begin` | where a copy begins that is another's, and what it lacks |
//! | `duties` | which replicas this broker keeps |
//! | `one` | one replica: from the log to its files, and what went wrong |
//! | `group` | batches that are written together |
//! | `others` | batches that the pool has no more, in other replicas |
//! | `spoilt` | batches that do not hold: from there, or lost |
//! | `files` | a replica's files |
//! | `repair` | what the last of them lost, written again |
//! | `row` | the others: read once after a start, and written again where they do not hold |
//! | `had` | what other directories know of a topic that came back |
//! | `keep` | which files are kept where a topic bounds them |
//! | `goal` | what copies are to have before a broker ends |
//! | `place` | in which directory this broker keeps a topic |
//! | `said` | what is said of a topic beside its files |
//! | `thread` | the loop over all of them |
//! | `deleted` | files of topics that are gone |

mod begin;
mod deleted;
mod duties;
mod files;
mod forget;
mod given_back;
mod goal;
mod group;
mod had;
mod hang;
mod home;
mod keep;
mod one;
mod others;
mod place;
mod repair;
pub mod rig;
mod row;
mod said;
mod spoilt;
mod thread;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use landfall_layout::TopicId;
use landfall_layout::limits::{RECORDS_FILE_BYTES, TOPICS_MAX};
use landfall_pool::Pool;
use landfall_pool::disk::faulty::{Faults, Faulty};
use landfall_pool::disk::{self, Disk};
use landfall_pool::poison::Part;
use landfall_replica::mend::create_directory;
use landfall_replica::owner;

use crate::env::{Env, Unfaithful};
use hang::{Calls, Watch, Watched};
use thread::Worker;

pub(crate) use goal::Progress;
pub(crate) use group::check as check_batch;
pub(crate) use hang::CALL_NS as HANGS_NS;

/// A stop waits this long for what the disk is doing.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Where a broker keeps replicas.
#[derive(Clone)]
pub struct Data {
    /// The directory; made if it is not there.
    pub directory: PathBuf,
    /// Bytes after which a replica's file is followed by another.
    pub file_bytes: u64,
    /// Makes the disk fail on purpose, for tests.
    pub faults: Option<Faults>,
    /// Other brokers' directories that can be read here: a batch that memory has no more whole may
    /// be there.
    pub others: Vec<PathBuf>,
}

impl Data {
    /// Replicas in `directory`, in files of the usual size.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            file_bytes: RECORDS_FILE_BYTES,
            faults: None,
            others: Vec::new(),
        }
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes a file)", self.directory.display(), self.file_bytes)
    }
}

/// What the broker's loop and the replicator's thread share.
pub struct Shared {
    stop: AtomicBool,
    /// Odd while the thread may be reading batches in the pool.
    round: AtomicU64,
    /// Id of the topic that the thread has open in each slot; 0: none.
    using: [AtomicU32; TOPICS_MAX],
    notes: Mutex<Vec<String>>,
    unfaithful: Mutex<Vec<Unfaithful>>,
    /// Topics that the thread has said on disk and the loop has not told control of.
    said: Mutex<Vec<TopicId>>,
    has_said: AtomicBool,
    /// The broker leaves: what logs have from here on is the goal.
    aims: AtomicBool,
    /// How far the copies are from that; none: the thread has not looked yet.
    progress: Mutex<Option<Progress>>,
    /// What the thread has its disk do.
    calls: Arc<Calls>,
}

impl Shared {
    fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            round: AtomicU64::new(0),
            using: [const { AtomicU32::new(0) }; TOPICS_MAX],
            notes: Mutex::new(Vec::new()),
            unfaithful: Mutex::new(Vec::new()),
            said: Mutex::new(Vec::new()),
            has_said: AtomicBool::new(false),
            aims: AtomicBool::new(false),
            progress: Mutex::new(None),
            calls: Arc::default(),
        }
    }

    fn note(&self, text: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// What was noted since the last time.
    fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A batch of that session does not hold.
    fn is_unfaithful(&self, who: Unfaithful) {
        who.note(&mut self.unfaithful.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What the topic is stands on stable storage here: who creates it waits for that.
    fn topic_said(&self, topic: TopicId) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).push(topic);
        self.has_said.store(true, Ordering::Release);
    }

    /// The thread looks at logs and reads what they name, until `end_round`.
    fn begin_round(&self) {
        // EDGE replica-round, release half. Pairs with `round_under_way`: who asks either sees this
        // round, or this round sees every oldest index that was moved before it was asked.
        self.round.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    fn end_round(&self) {
        self.round.fetch_add(1, Ordering::Release);
    }

    /// The round that may be reading now; none between rounds.
    fn round_under_way(&self) -> Option<u64> {
        fence(Ordering::SeqCst);
        // EDGE replica-round, acquire half. Pairs with `begin_round` and `end_round`.
        let round = self.round.load(Ordering::Acquire);
        (round % 2 == 1).then_some(round)
    }

    /// Says that a topic is open; the caller looks at the topic's state once more after this.
    fn open_topic(&self, topic: TopicId) {
        self.using[topic.slot()].store(topic.0, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    fn close_topic(&self, slot: usize) {
        self.using[slot].store(0, Ordering::Release);
    }
}

/// The replicator as the broker's loop sees it.
pub struct Replicator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    watch: Watch,
    /// Held for as long as the broker lives: two brokers cannot keep replicas in one directory.
    _lock: File,
}

impl Replicator {
    /// Takes the directory, made if it is not there.
    pub fn take(env: &Env, data: &Data) -> io::Result<File> {
        create_directory(&data.directory).map_err(io::Error::other)?;
        owner::take(&data.directory, &env.pool.uuid_text())
    }

    /// Starts the thread in the directory that `lock` has.
    pub fn start(env: &Env, data: &Data, lock: File) -> io::Result<Self> {
        let (disk, why_plain) = disk::open();
        let disk: Box<dyn Disk> = match &data.faults {
            Some(faults) => Box::new(Faulty::new(disk, faults.clone())),
            None => disk,
        };
        let file = File::from(env.pool.fd().try_clone_to_owned()?);
        let pool = Pool::attach_file(file, "the pool".as_ref(), true).map_err(io::Error::other)?;
        pool.take_part(Part::System);
        let shared = Arc::new(Shared::new());
        if let Some(error) = why_plain {
            shared.note(format!(
                "there is no io_uring here ({error}): replicas are written with pwritev"
            ));
        }
        let disk = Box::new(Watched::new(disk, Arc::clone(&shared.calls)));
        let standing = env.standing.share();
        let worker = Worker::new(pool, standing, data.clone(), disk, shared.clone())?;
        let builder = std::thread::Builder::new().name(format!("replicas-{}", env.me));
        let thread = builder.spawn(move || worker.run())?;
        Ok(Self { shared, thread: Some(thread), watch: Watch::default(), _lock: lock })
    }

    /// Makes the thread look at once.
    #[inline]
    pub fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Whether its disk has not answered for too long. Asked several times a second.
    pub fn hangs(&mut self, now_ns: u64) -> bool {
        self.watch.hangs(&self.shared.calls, now_ns)
    }

    /// What the thread has to say since the last time.
    pub fn take_notes(&self) -> Vec<String> {
        self.shared.take_notes()
    }

    /// Sessions of which it found batches that do not hold, since the last time.
    pub fn take_unfaithful(&self) -> Vec<Unfaithful> {
        let unfaithful = self.shared.unfaithful.lock();
        std::mem::take(&mut *unfaithful.unwrap_or_else(PoisonError::into_inner))
    }

    /// What logs have by now is what the copies are to have before this broker ends.
    pub fn aim(&self) {
        self.shared.aims.store(true, Ordering::Release);
        self.wake();
    }

    /// How far the copies are from what they are to have; none: the thread has not looked yet.
    pub fn progress(&self) -> Option<Progress> {
        *self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `take_said` has something.
    #[inline]
    pub fn has_said(&self) -> bool {
        self.shared.has_said.load(Ordering::Relaxed)
    }

    /// Topics of which was said on disk what they are, since the last time.
    pub fn take_said(&self) -> Vec<TopicId> {
        self.shared.has_said.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.shared.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What may be reading batches that are about to be reused; none when nothing is. Asked after
    /// the logs' oldest indexes were moved past them.
    pub fn reading(&self) -> Option<u64> {
        self.shared.round_under_way()
    }

    /// Whether what `reading` said is still reading.
    pub fn still_reads(&self, round: u64) -> bool {
        self.shared.round_under_way() == Some(round)
    }

    /// Whether the thread has the topic open. Asked after the topic was marked as being deleted.
    pub fn uses(&self, topic: TopicId) -> bool {
        fence(Ordering::SeqCst);
        self.shared.using[topic.slot()].load(Ordering::Acquire) == topic.0
    }

    /// Syncs what is written and ends the thread. A disk that does not answer is not waited for.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        let Some(thread) = self.thread.take() else { return };
        let since = Instant::now();
        while !thread.is_finished() && since.elapsed() < STOP_WAIT {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            // It ended by itself; if it panicked, its last words are on standard error.
            let _ = thread.join();
        }
    }
}

impl Drop for Replicator {
    fn drop(&mut self) {
        self.stop();
    }
}
