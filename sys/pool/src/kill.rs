//! The kill switch: a process that ends itself right after its n-th store to shared memory.
//!
//! What a killed process leaves behind is a prefix of its stores: the host's caches stay coherent
//! and every retired store is visible. So a sweep of n over all stores of a run visits every state
//! that a kill can leave in that run. Only in builds with the feature `kill-switch`.
//!
//! One count is kept for the whole process. A copy into the mapping counts as one store. Counters
//! are not counted: nobody decides anything by them, and they are most of a busy broker's stores.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::stderr;
use memmap2::{MmapOptions, MmapRaw};
use nix::sys::signal::{Signal, kill};

/// Names the store after which the process kills itself; unset or 0: none.
const KILL_AT: &str = "LANDFALL_KILL_AT";
/// Names a file whose first eight bytes are the stores so far, also after the process was killed.
const STORES_FILE: &str = "LANDFALL_STORES_FILE";

struct Switch {
    stores: &'static AtomicU64,
    kill_at: u64,
}

static SWITCH: OnceLock<Switch> = OnceLock::new();

thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(true) };
}

/// While it lives, this thread's stores are not counted.
pub(crate) struct Uncounted;

impl Uncounted {
    pub(crate) fn begin() -> Self {
        COUNTS.set(false);
        Self
    }
}

impl Drop for Uncounted {
    fn drop(&mut self) {
        COUNTS.set(true);
    }
}

/// Counts a store that was just made, and ends the process if it was the one.
#[inline]
pub(crate) fn stored() {
    if !COUNTS.get() {
        return;
    }
    let switch = SWITCH.get_or_init(Switch::from_environment);
    // Relaxed: only the number matters.
    if switch.stores.fetch_add(1, Ordering::Relaxed) + 1 == switch.kill_at {
        die();
    }
}

/// Status of a process that ended as by SIGKILL: 128 and the signal's number.
const KILLED: i32 = 128 + 9;

#[cold]
fn die() -> ! {
    let _ = kill(nix::unistd::getpid(), Signal::SIGKILL);
    // The first process of a PID namespace is killed from outside only (pid_namespaces(7)). It ends
    // at once all the same, with the status that shells have for a kill.
    // SAFETY: `_exit` takes a number, touches no memory of this process, and does not return.
    unsafe { libc::_exit(KILLED) }
}

impl Switch {
    /// Panics when what the environment says cannot be done: a sweep that counts nothing would
    /// pass without having killed anything. A file that the system does not open just now, for
    /// want of descriptors say, ends the process with a sentence, as the program's own files do.
    fn from_environment() -> Self {
        let kill_at = std::env::var(KILL_AT).map_or(0, |text| {
            text.parse().unwrap_or_else(|_| panic!("{KILL_AT}={text}: say a number of stores"))
        });
        let stores = std::env::var_os(STORES_FILE).map_or_else(
            || &*Box::leak(Box::new(AtomicU64::new(0))),
            |path| {
                let words = words_in::<1>(&path);
                let end = |error| {
                    stderr::note(format_args!("{STORES_FILE}={path:?}: {error}"));
                    std::process::exit(1)
                };
                &words.unwrap_or_else(end)[0]
            },
        );
        Self { stores, kill_at }
    }
}

/// Words in a file, which is made if it is not there, mapped for as long as the process lives.
pub(crate) fn words_in<const N: usize>(
    path: &std::ffi::OsStr,
) -> std::io::Result<&'static [AtomicU64; N]> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let bytes = 8 * N;
    file.set_len(bytes as u64)?;
    let mapping: MmapRaw = MmapOptions::new().len(bytes).map_raw(&file)?;
    let mapping = Box::leak(Box::new(mapping));
    // SAFETY:
    // - valid: the mapping is as long as the words and leaked, so it lives as long as the process;
    // - aligned: a mapping starts on a page;
    // - no exclusive alias: nothing else in this process knows the mapping, and other processes
    //   that write the file do so through atomic words, which these are too.
    Ok(unsafe { &*mapping.as_mut_ptr().cast::<[AtomicU64; N]>() })
}
