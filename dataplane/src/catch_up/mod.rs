//! Catching up: what has left memory is read from replica files.
//!
//! Threads of their own read and check the files, so that no disk ever holds up the broker's loop.
//! They hand over whole frames with the batches behind them, block by block; the loop only sends
//! blocks, as it sends batches from the pool. A subscriber has at most two blocks here, however
//! slow it is.
//!
//! | module | what |
//! |---|---|
//! | `chunk` | from the files to a block of frames and batches |
//! | `feed` | a subscriber's side: when it leaves memory, and when it comes back |
//! | `hang` | what becomes of it where this broker's own disk does not answer |
//! | `start` | subscriptions that begin before what memory has |

mod chunk;
mod feed;
mod hang;
#[cfg(test)]
mod held_back;
mod start;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use landfall_layout::BrokerId;
use landfall_layout::frame::From;
use landfall_layout::order::OrderEntry;
use landfall_replica::lookup::{Start, first, may_have_older};
use landfall_replica::merge::Wanted;
use landfall_replica::{Merge, Silent, Skips, Unheard, away, short};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::conns::Token;

use chunk::Reasons;
use hang::{Seen, Work};

pub use chunk::Chunk;
pub use feed::{Block, Disk, Feed};

/// Threads that read: two keep a disk busy while a third checks what came.
const THREADS: usize = 3;
/// Subscribers whose files are open at a time; more wait for their turn.
const READERS_MAX: usize = 64;
/// Subscribers whose first batch is looked for at a time; more are told to come back.
pub const STARTS_MAX: usize = 1024;

/// A log's files, open. It goes to a thread with each task and comes back with the answer.
pub struct Reader {
    wanted: Wanted,
    merge: Option<Merge>,
    /// What the log passed over when pools were lost: last, as the pool says it, and before, as the
    /// directories say.
    skips: Skips,
    last_skip: Option<(u64, u64)>,
    /// What of that could not be read yet.
    unread: Vec<Unheard>,
    /// Bounds let go of the oldest files.
    is_bounded: bool,
    /// Counts the readers there are.
    _permit: Arc<()>,
}

impl Reader {
    /// Says which brokers have landed by now, and which stood in. The files of one that had not
    /// when they were opened nobody has looked for: then they are opened anew.
    fn hear_of(&mut self, sources: Vec<BrokerId>, stood_in: Vec<BrokerId>) {
        if self.wanted.sources != sources {
            self.wanted.sources = sources;
            self.merge = None;
        }
        self.wanted.stood_in = Some(stood_in);
    }
}

/// A place in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Index of the next entry.
    pub next: u64,
    /// Position expected there.
    pub position: u64,
    /// What files said of what is missing before it, while the position is the same.
    pub missing: Option<Missing>,
}

impl Place {
    /// One before which nothing is missing.
    pub fn new(next: u64, position: u64) -> Self {
        Self { next, position, missing: None }
    }

    /// What is missing before it.
    pub fn missing(&self) -> Option<Missing> {
        self.missing.filter(|missing| missing.position == self.position)
    }
}

/// What no file had when it was looked for, from the last batch on. Where a block ends in it, the
/// next block, or memory, tells of it: by what was said of all of it, for files that had an end of
/// it say nothing of its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missing {
    /// Log index that it begins at.
    from: u64,
    /// Position that it begins at.
    position: u64,
    /// All of it is known to be nowhere.
    is_known: bool,
    /// Some of it is known to have been lost.
    is_torn: bool,
}

impl Missing {
    /// Nothing was looked for yet.
    fn new(place: &Place) -> Self {
        let Place { next: from, position, .. } = *place;
        Self { from, position, is_known: true, is_torn: false }
    }

    /// Retention did not take it.
    pub fn is_lost(&self) -> bool {
        self.is_known || self.is_torn
    }
}

/// One log in which a subscription's first batch is looked for.
#[derive(Clone)]
pub struct Lookup {
    pub log: usize,
    pub wanted: Wanted,
    /// Oldest index in memory.
    pub until: u64,
    /// What the log passed over last.
    pub last_skip: Option<(u64, u64)>,
    /// Bounds let go of the oldest files.
    pub is_bounded: bool,
}

/// What was found of the logs in which a first batch was looked for.
#[derive(Debug, Default)]
pub struct Looked {
    /// Where those begin that begin on disk; others begin in memory.
    pub starts: Vec<(usize, Start)>,
    /// Indexes below which nothing was found on disk.
    nothing_below: Vec<(usize, u64)>,
}

impl Looked {
    /// Whether there may be something on disk, in a log whose oldest index in memory is `oldest`,
    /// that nobody has looked for: memory may have moved on since.
    fn lacks(&self, log: usize, oldest: u64) -> bool {
        !self.starts.iter().any(|(of, _)| *of == log)
            && !self.nothing_below.iter().any(|(of, below)| *of == log && *below >= oldest)
    }
}

/// What a thread is to do.
pub enum Task {
    /// Find where a subscription begins.
    Start { token: Token, from: From, logs: Vec<Lookup> },
    /// Read on, up to an index that is in memory.
    Read { token: Token, log: usize, reader: Box<Reader>, place: Place, until: u64 },
}

/// What became of a task.
pub enum Done {
    /// Where each log is to be begun, and why not.
    Start { token: Token, looked: Result<Looked, Silent>, faults: Vec<String> },
    /// The next block.
    Read { token: Token, log: usize, reader: Box<Reader>, chunk: Chunk },
}

/// What the loop and the threads share.
struct Shared {
    tasks: Mutex<VecDeque<Task>>,
    more: Condvar,
    done: Mutex<Vec<Done>>,
    has_done: AtomicBool,
    stop: AtomicBool,
    /// Threads that are left in calls which do not return.
    left: AtomicU32,
    bell: EventFd,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The threads, as the broker's loop sees them.
pub struct CatchUp {
    /// Directories whose replicas can be read here.
    data: Vec<PathBuf>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// What each is at, but for those that are left, and what was seen of it.
    works: Vec<(Arc<Mutex<Work>>, Seen)>,
    looked_ns: u64,
    watched_ns: u64,
    permit: Arc<()>,
}

impl CatchUp {
    /// Starts the threads, which sleep until there is something to read.
    pub fn start(data: Vec<PathBuf>) -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let shared = Arc::new(Shared {
            tasks: Mutex::new(VecDeque::new()),
            more: Condvar::new(),
            done: Mutex::new(Vec::new()),
            has_done: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            left: AtomicU32::new(0),
            bell: EventFd::from_value_and_flags(0, flags)?,
        });
        data.iter().for_each(|data| away::watch(data));
        let (mut threads, mut works) = (Vec::with_capacity(THREADS), Vec::with_capacity(THREADS));
        for _ in 0..THREADS {
            let work = Arc::default();
            threads.push(hang::begin(&shared, &work)?);
            works.push((work, Seen::default()));
        }
        Ok(Self { data, shared, threads, works, looked_ns: 0, watched_ns: 0, permit: Arc::new(()) })
    }

    /// Becomes readable when a task is done.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }

    /// The bell was heard.
    pub fn hush(&self) {
        // Nothing to read: another look has heard it.
        let _ = self.shared.bell.read();
    }

    /// Directories whose replicas can be read here.
    pub fn data(&self) -> &[PathBuf] {
        &self.data
    }

    /// Readers there are.
    pub fn readers(&self) -> usize {
        Arc::strong_count(&self.permit) - 1
    }

    /// Whether another subscriber's files may be opened.
    pub fn has_room(&self) -> bool {
        self.readers() < READERS_MAX
    }

    /// A reader of a log's files; `None`: there are as many as may be.
    pub fn reader(&self, lookup: Lookup) -> Option<Box<Reader>> {
        let (merge, skips, _permit) = (None, Skips::default(), self.permit.clone());
        let Lookup { wanted, last_skip, is_bounded, .. } = lookup;
        let unread = Vec::new();
        let reader = || Reader { wanted, merge, skips, last_skip, unread, is_bounded, _permit };
        self.has_room().then(|| Box::new(reader()))
    }

    /// Gives the threads something to do.
    pub fn submit(&self, task: Task) {
        locked(&self.shared.tasks).push_back(task);
        self.shared.more.notify_one();
    }

    /// Subscriptions whose beginning is being looked for, those that a thread has aside.
    pub fn starts(&self) -> usize {
        let tasks = locked(&self.shared.tasks);
        tasks.iter().filter(|task| matches!(task, Task::Start { .. })).count()
    }

    /// What was done since the last time.
    #[inline]
    pub fn take_done(&self) -> Vec<Done> {
        // EDGE catch-up-done, acquire half. Pairs with `work`; the lock does the rest.
        if !self.shared.has_done.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *locked(&self.shared.done))
    }
}

impl Drop for CatchUp {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        locked(&self.shared.tasks).clear();
        self.shared.more.notify_all();
        // A disk that does not answer is not waited for: the process is about to end.
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            // If it panicked, its last words are on standard error.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self, mine: &Mutex<Work>) {
        locked(mine).begin();
        while let Some(task) = self.next_task() {
            self.ask_as_told();
            locked(mine).take(&task);
            let done = carry_out(task);
            if !locked(mine).end() {
                return self.came_back();
            }
            locked(&self.done).push(done);
            // EDGE catch-up-done, release half. After the push, so that who sees it finds it.
            self.has_done.store(true, Ordering::Release);
            // A bell that cannot count further has been rung already.
            let _ = self.bell.write(1);
        }
    }

    fn next_task(&self) -> Option<Task> {
        let mut tasks = locked(&self.tasks);
        loop {
            if self.stop.load(Ordering::Acquire) {
                return None;
            }
            if let Some(task) = tasks.pop_front() {
                return Some(task);
            }
            tasks = self.more.wait(tasks).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn carry_out(task: Task) -> Done {
    match task {
        Task::Start { token, from, logs } => {
            let mut faults = Vec::new();
            let looked = look_all(&logs, from, &mut faults);
            Done::Start { token, looked, faults }
        }
        Task::Read { token, log, mut reader, place, until } => {
            let Reader { wanted, merge, skips, last_skip, unread, is_bounded, .. } = &mut *reader;
            if merge.is_none() || !unread.is_empty() {
                (*skips, *unread) = skips_of(wanted, log, *last_skip);
            }
            let merge = merge.get_or_insert_with(|| Merge::naming_lost(wanted));
            wanted.stood_in.iter().for_each(|stood_in| merge.hear_of(stood_in));
            let bounded = is_bounded.then_some(&*wanted);
            let reasons = Reasons { skips, unread, bounded };
            let chunk = chunk::read(merge, log as u8, place, until, &reasons);
            Done::Read { token, log, reader, chunk }
        }
    }
}

/// What a log passed over when pools were lost, as its directories say, and the pool; and which
/// directories could not be read.
fn skips_of(wanted: &Wanted, log: usize, last: Option<(u64, u64)>) -> (Skips, Vec<Unheard>) {
    let (mut skips, unread) = wanted.skips(log);
    last.into_iter().for_each(|last| skips.add_positions(last));
    (skips, unread)
}

fn look_all(logs: &[Lookup], from: From, faults: &mut Vec<String>) -> Result<Looked, Silent> {
    let mut looked = Looked::default();
    for lookup in logs {
        let start = find(lookup, from, faults)?;
        match start.filter(|start| start.index < lookup.until) {
            Some(start) => looked.starts.push((lookup.log, start)),
            None => looked.nothing_below.push((lookup.log, lookup.until)),
        }
    }
    Ok(looked)
}

/// Where a subscription begins in a log, unless that may be where nobody answers.
fn find(lookup: &Lookup, from: From, faults: &mut Vec<String>) -> Result<Option<Start>, Silent> {
    let Lookup { wanted, until, .. } = lookup;
    if from == From::Latest {
        return Ok(None);
    }
    let begins = (from == From::Earliest).then(|| short::during(|| beginning(lookup)));
    let (begins, refused) = begins.unwrap_or_default();
    if begins.is_some() && refused.is_none() {
        return Ok(begins);
    }
    let is_before = move |entry: &OrderEntry| match from {
        From::Position(position) => entry.end_position() <= position,
        From::Time(ns) => entry.landed_ns < ns,
        From::Earliest | From::Latest => false,
    };
    let looked = first(wanted, *until, is_before, faults);
    let found = looked.start;
    let is_there = |position| found.is_some_and(|found| found.position <= position);
    let may_be_older = match from {
        From::Position(position) if is_there(position) => None,
        // Where others have all that there ever was, a disk that is dead holds nobody up.
        _ => may_have_older(wanted, &looked.unheard),
    };
    if let Some(silent) = may_be_older {
        return Err(silent);
    }
    if begins.is_some() {
        // What was refused has no part in it.
        return Ok(begins);
    }
    let From::Position(_) = from else { return Ok(found) };
    // What is missing before the first that there is begins with the log.
    Ok(found.map(|found| {
        let oldest = first(wanted, *until, |_| false, &mut Vec::new()).start;
        let index = if oldest == Some(found) { 0 } else { found.index };
        Start { index, ..found }
    }))
}

/// Where a log begins that retention took nothing of: what is not there from there on was lost.
fn beginning(lookup: &Lookup) -> Option<Start> {
    let Lookup { log, wanted, last_skip, is_bounded, until } = lookup;
    if *is_bounded && wanted.retired_below() > 0 {
        // Who had what came first, and lost it, let go of nothing.
        let mut merge = Merge::naming_lost(wanted);
        merge.next(0, *until, &mut Vec::new());
        return (merge.torn() == Some(0)).then_some(Start { index: 0, position: 0 });
    }
    // Nobody had landed anything where it passed over its very beginning.
    let (skips, _) = skips_of(wanted, *log, *last_skip);
    let passed = skips.behind(0).filter(|range| range.position == 0);
    let position = passed.map_or(0, |range| range.to_position);
    Some(Start { index: 0, position })
}

#[cfg(test)]
mod tests {
    use landfall_layout::limits::SEQUENCED_LOG;

    use super::*;

    /// Everything that disks had is gone: readers from the beginning are told so.
    #[test]
    fn a_log_begins_where_it_began_though_that_is_lost() {
        let sources = Vec::new();
        let (data, name) = (Vec::new(), "t".to_owned());
        let wanted =
            Wanted { data, name, created_ns: 1, sources, is_shared: false, stood_in: None };
        let lookup = |last_skip| Lookup {
            log: 1,
            wanted: wanted.clone(),
            until: 9,
            last_skip,
            is_bounded: false,
        };
        let begin = |last_skip| find(&lookup(last_skip), From::Earliest, &mut Vec::new()).unwrap();
        assert_eq!(begin(None), Some(Start { index: 0, position: 0 }));
        assert_eq!(begin(Some((5, 10))), Some(Start { index: 0, position: 0 }));
        // Nothing was landed before the first pool was lost.
        assert_eq!(begin(Some((0, 10))), Some(Start { index: 0, position: 10 }));
        let lost = find(&lookup(None), From::Position(3), &mut Vec::new()).unwrap();
        assert_eq!(lost, None, "memory says what is missing from there on");
    }

    #[test]
    fn files_are_opened_anew_for_a_broker_that_has_begun_meanwhile() {
        let [one, two] = [0, 1].map(|number| BrokerId::new(number).unwrap());
        let wanted = Wanted {
            data: Vec::new(),
            name: "any".into(),
            created_ns: 1,
            sources: vec![one],
            is_shared: true,
            stood_in: None,
        };
        let (log, until, last_skip, is_bounded) = (SEQUENCED_LOG, 9, None, false);
        let lookup = Lookup { log, wanted, until, last_skip, is_bounded };
        let catch_up = CatchUp::start(Vec::new()).unwrap();
        let mut reader = catch_up.reader(lookup).unwrap();
        reader.merge = Some(Merge::naming_lost(&reader.wanted));
        reader.hear_of(vec![one], vec![two]);
        assert!(reader.merge.is_some() && reader.wanted.stood_in == Some(vec![two]));
        reader.hear_of(vec![one, two], vec![]);
        assert!(reader.merge.is_none() && reader.wanted.sources == [one, two]);
    }

    #[test]
    fn what_left_memory_while_files_were_searched_is_looked_for_too() {
        let start = Start { index: 3, position: 9 };
        let looked = Looked { starts: vec![(1, start)], nothing_below: vec![(2, 40)] };
        assert!(
            !looked.lacks(1, 40) && !looked.lacks(1, 90),
            "it begins on disk, wherever that ends"
        );
        assert!(!looked.lacks(2, 40));
        assert!(looked.lacks(2, 41), "40 has left memory, and was not looked for");
        assert!(looked.lacks(3, 1), "it had not left anything behind when it was looked at");
    }
}
