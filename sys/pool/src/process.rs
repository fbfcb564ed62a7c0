//! Other processes of this host, as the kernel knows them.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::{SigHandler, Signal};

/// A process that has the lock of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// See [`is_stopped`].
    pub is_stopped: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, is_stopped } = self;
        match is_stopped {
            true => write!(f, "process {pid} (which is stopped: kill -CONT {pid} lets it go on)"),
            false => write!(f, "process {pid}"),
        }
    }
}

/// Whether this process was started so that SIGHUP does nothing, as under nohup (signal(7)): who
/// takes it as a word to stop would end where its terminal is closed, which was not wanted.
pub fn ignores_hangup() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| says_ignored(&status, 1))
}

/// From now on a file that may not become longer (`ulimit -f`) is an error of whoever writes it:
/// the signal would end the process without a word. Programs that this one starts inherit it.
pub fn survive_file_size() {
    // SAFETY: nothing runs when the signal comes, so that no handler can do anything wrong.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

/// Whether a signal, by its number, is among those that are ignored (proc_pid_status(5)).
fn says_ignored(status: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (signal - 1) != 0)
}

/// Whether somebody has stopped a process, as SIGSTOP or a debugger does.
pub fn is_stopped(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| says_stopped(&stat))
}

/// Whether `/proc/PID/stat` says so. The process's name, in brackets, may contain anything.
fn says_stopped(stat: &str) -> bool {
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| state.starts_with(['T', 't']))
}

/// Who has the lock of a file alone (flock(2)), as far as the system's table of locks says it: it
/// names no process of another PID namespace.
pub fn holder(path: &Path) -> Option<Holder> {
    let inode = fs::metadata(path).ok()?.ino();
    let pid = holder_in(&fs::read_to_string("/proc/locks").ok()?, inode)?;
    Some(Holder { pid, is_stopped: is_stopped(pid) })
}

/// The same of an inode, in such a table.
fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    let inode = inode.to_string();
    // 1: FLOCK  ADVISORY  WRITE 708 00:13:1524 0 EOF. File systems name devices in two ways.
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, _, mode) = (words.next()?, words.next()?, words.next()?);
        let (process, file) = (words.next()?, words.next()?);
        let is_it = kind == "FLOCK" && mode == "WRITE" && file.rsplit(':').next()? == inode;
        process.parse().ok().filter(|_| is_it)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_ignored_is_known_by_its_bit() {
        let status =
            "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(says_ignored(status, 1) && says_ignored(status, 13));
        assert!(!says_ignored(status, 2) && !says_ignored("", 1));
    }

    #[test]
    fn a_stopped_process_is_told_by_the_kernels_word_and_not_by_its_name() {
        assert!(says_stopped("17 (landfall-contro) T 1 17"));
        assert!(says_stopped("17 (a) S (b) t 1 17"));
        assert!(!says_stopped("17 (a) T) S 1 17"));
        assert!(!says_stopped(""));
    }

    #[test]
    fn who_has_a_lock_alone_is_named_and_who_waits_for_it_or_shares_one_is_not() {
        let locks = "1: FLOCK  ADVISORY  READ 7 00:13:15 0 EOF\n\
                     2: OFDLCK ADVISORY  WRITE -1 00:13:15 0 0\n\
                     3: FLOCK  ADVISORY  WRITE 8 00:13:15 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 9 00:13:16 0 EOF\n";
        assert_eq!(holder_in(locks, 15), Some(8));
        assert_eq!((holder_in(locks, 16), holder_in(locks, 5)), (None, None));
        let path = std::env::temp_dir().join(format!("holder-{}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        assert_eq!(holder(&path), None);
        file.lock().unwrap();
        let me = Holder { pid: std::process::id(), is_stopped: false };
        assert_eq!(holder(&path), Some(me));
        fs::remove_file(&path).unwrap();
    }
}
