//! Looks at several directories in one go, and leaves those aside that do not answer.
//!
//! Whoever judges what all of them have together reads file by file, from one directory to the
//! next, and computes in between. A thread does so and leaves word of the path that it is at;
//! somebody else looks at that thread: one that has been in a call of the system for [`HANGS`],
//! without a moment of work, is left in it, and the look is made anew without that directory.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ask::Silent;

/// A directory in which one call of the system does not end for this long hangs. Longer than a
/// disk takes to spin up.
pub const HANGS: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a look leaves word of.
#[derive(Debug, Default)]
struct Marks {
    /// Where it is, and how many paths it was at before.
    at: Mutex<(PathBuf, u64)>,
    /// Its thread's number in the system.
    thread: Mutex<Option<i32>>,
    /// Directories that it leaves out.
    aside: Vec<PathBuf>,
    /// It looks at a directory itself, see [`Moves`].
    is_in_place: AtomicBool,
}

thread_local! {
    /// In a thread that is looked at.
    static MARKS: RefCell<Option<Arc<Marks>>> = const { RefCell::new(None) };
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This thread is about to look at a path. Nothing, where nobody looks at the thread.
pub fn at(path: &Path) {
    MARKS.with_borrow(|marks| {
        let Some(marks) = marks else { return };
        let mut at = locked(&marks.at);
        at.0.clear();
        at.0.push(path);
        at.1 += 1;
    });
}

/// What a thread leaves word of that somebody else looks at.
#[derive(Debug)]
pub struct Moves(Arc<Marks>);

/// Has this thread leave word.
pub fn moves() -> Moves {
    let marks = Arc::new(Marks::default());
    MARKS.with_borrow_mut(|mine| *mine = Some(Arc::clone(&marks)));
    Moves(marks)
}

impl Moves {
    /// The number of the step that the thread is at in a directory which it looks at itself, and
    /// no other thread for it.
    pub fn in_place(&self) -> Option<u64> {
        // Relaxed: the number is looked at more than once.
        self.0.is_in_place.load(Ordering::Relaxed).then(|| locked(&self.0.at).1)
    }
}

/// Looks at a directory in this thread.
pub(crate) fn in_place<T>(look: impl FnOnce() -> T) -> T {
    let says = |is_in_place| {
        MARKS.with_borrow(|marks| {
            let Some(marks) = marks else { return };
            locked(&marks.at).1 += 1;
            marks.is_in_place.store(is_in_place, Ordering::Relaxed);
        });
    };
    says(true);
    let found = look();
    says(false);
    found
}

/// Whether this thread's look leaves the directory out.
pub fn is_aside(path: &Path) -> bool {
    MARKS.with_borrow(|marks| {
        marks.as_ref().is_some_and(|marks| marks.aside.iter().any(|aside| aside == path))
    })
}

/// Whether it leaves any out.
pub fn leaves_out() -> bool {
    MARKS.with_borrow(|marks| marks.as_ref().is_some_and(|marks| !marks.aside.is_empty()))
}

/// A thread in a call of the system has been there since it was seen so first.
#[derive(Debug)]
struct Still {
    /// The path and the thread's time of work.
    seen: Option<(u64, u64)>,
    since: Instant,
}

impl Still {
    /// Whether it has been in one call for `bound`; where that is.
    fn look(&mut self, marks: &Marks, bound: Duration) -> Option<PathBuf> {
        let (path, number) = locked(&marks.at).clone();
        let now = worked(*locked(&marks.thread)).map(|work| (number, work));
        if now.is_none() || now != self.seen {
            (self.seen, self.since) = (now, Instant::now());
        }
        (now.is_some() && self.since.elapsed() >= bound).then_some(path)
    }
}

/// How long a thread of this process has worked, ticks, while it is in a call that it waits for.
/// None: it works, or cannot be looked at.
fn worked(thread: Option<i32>) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/task/{}/stat", thread?)).ok()?;
    // The name in front may have blanks and brackets.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let waits = matches!(fields.next(), Some("S" | "D"));
    let mut times = fields.skip(10).map_while(|field| field.parse::<u64>().ok());
    waits.then_some(times.next()? + times.next()?)
}

/// Makes the look at `root`, a data directory or one that has those of several brokers, again
/// and again without those in it that do not answer; each of these is told as soon as that is
/// known. None is left where `root` itself does not.
pub fn watched<T: Send + 'static>(
    root: &Path,
    look: impl Fn() -> T + Clone + Send + 'static,
    tell: impl FnMut(&Silent),
) -> Result<(T, Vec<Silent>), Silent> {
    watched_for(root, HANGS, look, tell)
}

fn watched_for<T: Send + 'static>(
    root: &Path,
    bound: Duration,
    look: impl Fn() -> T + Clone + Send + 'static,
    mut tell: impl FnMut(&Silent),
) -> Result<(T, Vec<Silent>), Silent> {
    let mut aside: Vec<PathBuf> = Vec::new();
    loop {
        let at = Mutex::new((root.to_owned(), 0));
        let marks = Arc::new(Marks { at, aside: aside.clone(), ..Marks::default() });
        let (say, answer) = channel();
        let (look, mine) = (look.clone(), Arc::clone(&marks));
        let body = move || {
            *locked(&mine.thread) = Some(nix::unistd::gettid().as_raw());
            MARKS.with_borrow_mut(|marks| *marks = Some(mine));
            // Whoever asked may look without this one by now.
            let _ = say.send(look());
        };
        // Nobody waits for its end: it may be in a call that does not return.
        let thread = std::thread::Builder::new().name("look".to_owned()).spawn(body);
        let Ok(thread) = thread else { return Err(Silent::new(root.to_owned())) };
        let mut still = Still { seen: None, since: Instant::now() };
        let hung = loop {
            match answer.recv_timeout(LOOK_EVERY) {
                Ok(found) => {
                    let silent = aside.into_iter().map(Silent::new).collect();
                    return Ok((found, silent));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => match thread.join() {
                    Err(panic) => std::panic::resume_unwind(panic),
                    Ok(()) => unreachable!("a look that ends says what it found"),
                },
            }
            if let Some(path) = still.look(&marks, bound) {
                break path;
            }
        };
        // The directory right below `root` that it is in.
        let below = hung.strip_prefix(root).ok().and_then(|rest| rest.iter().next());
        let silent = Silent::new(below.map_or(root.to_owned(), |name| root.join(name)));
        if below.is_none() || aside.contains(&silent.path) {
            return Err(silent);
        }
        tell(&silent);
        aside.push(silent.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(700);

    /// Opens what is not aside of two, as a look at `root` does.
    fn look(root: &Path) -> Vec<&'static str> {
        let mut found = Vec::new();
        for name in ["broker-0", "broker-1"] {
            let path = root.join(name);
            if is_aside(&path) {
                continue;
            }
            at(&path);
            if fs::File::open(path.join("file")).is_ok() {
                found.push(name);
            }
        }
        found
    }

    #[test]
    fn one_that_hangs_is_named_and_left_out_and_one_that_works_for_long_is_waited_for() {
        let root = std::env::temp_dir().join(format!("watch-{}", std::process::id()));
        for name in ["broker-0", "broker-1"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let hung = root.join("broker-0").join("file");
        nix::unistd::mkfifo(&hung, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(root.join("broker-1").join("file"), "").unwrap();
        let (whole, mut told) = (root.clone(), Vec::new());
        let hangs = Silent::new(root.join("broker-0"));
        let found = watched_for(&root, SOON, move || look(&whole), |it| told.push(it.clone()));
        assert_eq!(found, Ok((vec!["broker-1"], vec![hangs.clone()])));
        assert_eq!(told, vec![hangs]);
        // The only one that there is.
        let (whole, own) = (root.clone(), root.join("broker-0"));
        let found = watched_for(&own, SOON, move || look(&whole), |_| {});
        assert_eq!(found, Err(Silent::new(own)));
        // It computes, and says of no path that it gets on.
        let works = || {
            let (begun, mut sum) = (Instant::now(), 0_u64);
            while begun.elapsed() < 2 * SOON {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
            sum > 0
        };
        assert_eq!(watched_for(&root, SOON, works, |_| {}), Ok((true, Vec::new())));
        fs::remove_dir_all(&root).unwrap();
    }
}
