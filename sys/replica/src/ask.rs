//! Looks at data directories, with a deadline.
//!
//! A disk may stop answering, or a host that exports one: whoever looks there waits for as long as
//! that lasts, and nothing ends the wait. So a thread for each data directory looks, and whoever
//! asked it waits as long as it gets on, and [`SILENT`] longer. Until it gets on again nobody waits
//! for it any more. What this process cannot do without is looked at in place: see [`here`]. Who
//! cannot begin before the answer waits longer: see [`PATIENT`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::error::FileError;
use crate::{short, watch};

/// A directory from which nothing came for this long does not answer. A disk that spins up, or a
/// path that fails over, may need as long; who reads waits no longer than it has to.
pub const SILENT: Duration = Duration::from_secs(2);

/// The same for who cannot begin without the answer: disks that spin up one after the other, or a
/// path that fails over, are back by then.
pub const PATIENT: Duration = Duration::from_secs(60);
/// How often who waits that long is told so.
const TOLD_EVERY: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);

const WHY: &str = "does not answer: its disk, or the host that has it, hangs (dmesg may say more)";

/// A data directory that does not answer, or a file or directory that cannot be read now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Silent {
    /// Which.
    pub path: PathBuf,
    /// What the system said; none: nothing.
    pub(crate) why: Option<String>,
    /// That may last for ever: it is nothing that this process, or the system, is short of.
    pub(crate) may_last: bool,
}

impl Silent {
    /// A directory that does not answer.
    pub fn new(path: PathBuf) -> Self {
        Self { path, why: None, may_last: false }
    }

    /// Whether the system said no, and may say so for ever.
    pub fn may_last(&self) -> bool {
        self.may_last
    }

    /// What cannot be read now, for a reason that names it.
    pub(crate) fn refused(path: &Path, why: String) -> Self {
        Self { path: path.to_owned(), why: Some(why), may_last: true }
    }
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            None => write!(f, "{} {WHY}", self.path.display()),
            Some(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Silent {}

impl From<Silent> for FileError {
    fn from(silent: Silent) -> Self {
        let why = silent.why.unwrap_or_else(|| format!("it {WHY}"));
        let source = io::Error::new(io::ErrorKind::TimedOut, why);
        FileError::Io { call: "look at", path: silent.path, source }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A directory's thread, as those who ask it see it.
struct Desk {
    jobs: Sender<Job>,
    /// Looks that were asked for and are not done.
    open: Mutex<u64>,
    /// When the thread last got on with one, milliseconds of [`now_ms`].
    moved_ms: AtomicU64,
}

thread_local! {
    /// In a directory's thread, its desk.
    static DESK: RefCell<Option<Arc<Desk>>> = const { RefCell::new(None) };
    /// See [`ask_all`].
    static ASKS_OWN_TOO: Cell<bool> = const { Cell::new(false) };
}

/// A look that was asked for.
pub struct Asked<T>(Stand<T>);

enum Stand<T> {
    Done(T),
    Waits { desk: Arc<Desk>, path: PathBuf, answer: Receiver<Answer<T>>, bound: Duration },
    Silent(Silent),
}

/// What was found, and what the system refused meanwhile.
type Answer<T> = (T, Option<Silent>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

fn in_place() -> MutexGuard<'static, Vec<PathBuf>> {
    static HERE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    locked(&HERE)
}

/// Says that this process cannot work without that data directory: whoever asks it looks there
/// itself, and waits for as long as that takes.
pub fn here(data: &Path) {
    in_place().push(data.to_owned());
}

/// From now on this thread has those directories too looked at by their threads, or not any more.
pub fn ask_own_too(is_set: bool) {
    ASKS_OWN_TOO.set(is_set);
}

/// Whether somebody said so, and this thread goes by it.
pub fn is_here(data: &Path) -> bool {
    !ASKS_OWN_TOO.get() && in_place().iter().any(|here| here == data)
}

/// Looks at something in the data directory `data`, and waits for what is found.
pub fn ask<T: Send + 'static>(
    data: &Path,
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Silent> {
    begin(data, look).wait()
}

/// Looks at something in each of several data directories, at once: those that do not answer are
/// waited for together. What is found in each, in their order.
pub fn ask_all<P: AsRef<Path>, T: Send + 'static, L: FnOnce() -> T + Send + 'static>(
    looks: impl IntoIterator<Item = (P, L)>,
) -> Vec<Result<T, Silent>> {
    let begun = looks.into_iter().map(|(data, look)| begin(data.as_ref(), look));
    let asked: Vec<Asked<T>> = begun.collect();
    asked.into_iter().map(Asked::wait).collect()
}

/// Has something in the data directory `data` looked at. A look that nobody waits for any more is
/// done all the same, when the directory answers again.
pub fn begin<T: Send + 'static>(
    data: &Path,
    look: impl FnOnce() -> T + Send + 'static,
) -> Asked<T> {
    begin_within(data, SILENT, look)
}

/// The same where the directory is waited for until nothing came for `bound`.
pub fn begin_within<T: Send + 'static>(
    data: &Path,
    bound: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Asked<T> {
    if is_here(data) {
        return Asked(Stand::Done(watch::in_place(look)));
    }
    let silent = || Asked(Stand::Silent(Silent::new(data.to_owned())));
    let Some(desk) = desk(data) else { return silent() };
    if desk.is_silent(bound) {
        return silent();
    }
    let (say, answer) = channel();
    desk.take(Box::new(move || {
        // Whoever asked may have gone.
        let _ = say.send(short::during(look));
    }));
    Asked(Stand::Waits { desk, path: data.to_owned(), answer, bound })
}

/// The look that a directory's thread is at gets on: bytes came. Nothing in other threads.
pub fn moved() {
    DESK.with_borrow(|desk| desk.iter().for_each(|desk| desk.moved()));
}

/// The directory's desk; `None` where no thread can be had.
fn desk(data: &Path) -> Option<Arc<Desk>> {
    static DESKS: Mutex<BTreeMap<PathBuf, Arc<Desk>>> = Mutex::new(BTreeMap::new());
    let mut desks = locked(&DESKS);
    if let Some(desk) = desks.get(data) {
        return Some(Arc::clone(desk));
    }
    let (jobs, work) = channel();
    let desk = Arc::new(Desk { jobs, open: Mutex::new(0), moved_ms: AtomicU64::new(0) });
    let mine = Arc::clone(&desk);
    let thread = std::thread::Builder::new().name("directory".to_owned());
    // Nobody waits for its end: it may be in a call that does not return.
    thread.spawn(move || mine.work(&work)).ok()?;
    desks.insert(data.to_owned(), Arc::clone(&desk));
    Some(desk)
}

impl Desk {
    fn moved(&self) {
        // Relaxed: a number on its own.
        self.moved_ms.store(now_ms(), Ordering::Relaxed);
    }

    fn still_for(&self) -> Duration {
        let moved_ms = self.moved_ms.load(Ordering::Relaxed);
        Duration::from_millis(now_ms().saturating_sub(moved_ms))
    }

    fn is_silent(&self, bound: Duration) -> bool {
        *locked(&self.open) > 0 && self.still_for() >= bound
    }

    fn take(&self, job: Job) {
        let mut open = locked(&self.open);
        if *open == 0 {
            self.moved();
        }
        *open += 1;
        // Its receiver is the thread's, which does not end.
        let _ = self.jobs.send(job);
    }

    fn work(self: Arc<Self>, jobs: &Receiver<Job>) {
        DESK.with_borrow_mut(|desk| *desk = Some(Arc::clone(&self)));
        for job in jobs {
            self.moved();
            // One that panics has said so, and whoever asked hears of nothing.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            self.moved();
            *locked(&self.open) -= 1;
        }
    }
}

impl<T> Asked<T> {
    /// Waits for what is found, as long as the directory answers.
    pub fn wait(self) -> Result<T, Silent> {
        self.wait_and_tell(|_, _| {})
    }

    /// The same. Where nothing came for [`SILENT`], and every few seconds from then on, `tell` is
    /// called with the directory and for how long nothing came from it.
    pub fn wait_and_tell(self, mut tell: impl FnMut(&Path, Duration)) -> Result<T, Silent> {
        let (desk, path, answer, bound) = match self.0 {
            Stand::Done(found) => return Ok(found),
            Stand::Silent(silent) => return Err(silent),
            Stand::Waits { desk, path, answer, bound } => (desk, path, answer, bound),
        };
        let mut told: Option<Instant> = None;
        loop {
            let left = bound.min(SILENT).saturating_sub(desk.still_for());
            match answer.recv_timeout(left.max(LOOK_EVERY)) {
                Ok((found, refused)) => {
                    // What was refused there was refused to who asked.
                    refused.into_iter().for_each(|refused| short::say(|| refused));
                    return Ok(found);
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Silent::new(path)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let still = desk.still_for();
            if still >= bound {
                return Err(Silent::new(path));
            }
            if still >= SILENT && told.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
                told = Some(Instant::now());
                tell(&path, still);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory's name alone: nothing is there.
    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ask-{name}-{}", std::process::id()))
    }

    #[test]
    fn who_asks_a_directory_that_hangs_is_told_and_others_are_answered() {
        let (hangs, works) = (path("hangs"), path("works"));
        let (release, held) = channel::<()>();
        let first = begin(&hangs, move || held.recv().is_ok());
        // Behind it, and not in its place.
        let second = begin(&hangs, || 2);
        assert_eq!(ask(&works, || 1), Ok(1));
        let silent = Silent::new(hangs.clone());
        assert_eq!(first.wait(), Err(silent.clone()));
        assert_eq!(second.wait(), Err(silent.clone()));
        assert_eq!(ask(&hangs, || 3), Err(silent));
        drop(release);
        let again = || ask(&hangs, || 4).ok();
        while again().is_none() {}
        assert_eq!(again(), Some(4));
    }

    /// One after the other the first would be given up before the second is asked.
    #[test]
    fn several_directories_are_waited_for_together() {
        let (say, said) = channel::<()>();
        let first: Job = Box::new(move || said.recv().unwrap());
        let second: Job = Box::new(move || say.send(()).unwrap());
        let looks = [(path("first"), first), (path("second"), second)];
        assert_eq!(ask_all(looks), [Ok(()), Ok(())]);
    }

    #[test]
    fn a_look_that_gets_on_may_take_long() {
        let slow = path("slow");
        let found = ask(&slow, || {
            for _ in 0..5 {
                std::thread::sleep(SILENT / 4);
                moved();
            }
            5
        });
        assert_eq!(found, Ok(5));
    }

    /// It gets on only when both have been told: who asked with the short bound that it does not
    /// answer, who is patient that it is waited for.
    #[test]
    fn who_is_patient_is_told_and_waits_on_for_a_directory_that_others_leave_aside() {
        let slow = path("spins up");
        let (release, held) = channel::<()>();
        let first = begin(&slow, move || held.recv().is_ok());
        assert!(first.wait().is_err());
        assert!(ask(&slow, || 1).is_err());
        let mut told = Vec::new();
        let patient = begin_within(&slow, PATIENT, || 2);
        let found = patient.wait_and_tell(|path, still| {
            told.push(path.to_owned());
            assert!(still >= SILENT);
            let _ = release.send(());
        });
        assert_eq!((found, told), (Ok(2), vec![slow]));
    }

    #[test]
    fn what_is_here_is_looked_at_in_place() {
        let own = path("own");
        here(&own);
        let me = std::thread::current().id();
        assert_eq!(ask(&own, || std::thread::current().id()), Ok(me));
        assert_ne!(ask(&path("other"), || std::thread::current().id()), Ok(me));
    }
}
