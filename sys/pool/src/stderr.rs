//! What a server says to people.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{Write, stderr};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::{Mutex, PoisonError};
use std::{panic, process};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest piece of a write: a pipe that takes anything takes as much (`PIPE_BUF`, pipe(7)).
const PIECE_BYTES: usize = 4096;

/// What came of lines up to here.
static SAID: Mutex<Said> = Mutex::new(Said { own: None, left_out: 0 });

/// Writes a line to stderr, whatever becomes of it: a log whose disk is full, that nobody reads any
/// more, or that nobody reads for now, ends no process and holds up no thread. `eprintln!` would
/// panic, or wait. Lines that a full pipe or a stopped terminal does not take are counted, and the
/// next one that it takes says how many they were.
pub fn note(line: impl Display) {
    SAID.lock().unwrap_or_else(PoisonError::into_inner).note(&line.to_string());
}

struct Said {
    /// Stderr opened once more, so that a write does not wait: what it was opened as belongs to
    /// others, too. None within: it cannot be, as where it is a file, which never waits.
    own: Option<Option<File>>,
    /// Lines that were not written since the last one that was.
    left_out: u64,
}

impl Said {
    fn note(&mut self, line: &str) {
        let text = match self.left_out {
            0 => format!("{line}\n"),
            left_out => format!("({left_out} lines before this one are left out)\n{line}\n"),
        };
        // One write, so that the lines of several processes in one log stay lines.
        let is_taken = match self.own.get_or_insert_with(without_waiting) {
            Some(own) => take(own, text.as_bytes(), || true),
            None => take(&mut stderr(), text.as_bytes(), is_ready),
        };
        self.left_out = if is_taken { 0 } else { self.left_out + 1 };
    }
}

/// Writes piece by piece, for as long as `is_ready`. Whether all of it was taken.
fn take(out: &mut impl Write, text: &[u8], is_ready: impl Fn() -> bool) -> bool {
    text.chunks(PIECE_BYTES).all(|piece| is_ready() && out.write_all(piece).is_ok())
}

/// A pipe or a terminal, opened for this process alone.
fn without_waiting() -> Option<File> {
    let path = "/proc/self/fd/2";
    let kind = std::fs::metadata(path).ok()?.file_type();
    if !kind.is_fifo() && !kind.is_char_device() {
        return None;
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

/// Whether stderr takes a piece. A socket may be filled by somebody else in between.
fn is_ready() -> bool {
    let stderr = stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// From now on a panic of any thread ends the process, behind its words on stderr: a server without
/// one of its threads would be shown as one that serves. Where programs are built to unwind, only
/// that thread would end.
pub fn end_on_panic() {
    let words = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        words(panic);
        process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;

    use super::*;

    #[test]
    fn a_full_pipe_holds_nobody_up_and_what_it_missed_is_counted() {
        let (read, write) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let (mut read, mut full) = (File::from(read), File::from(write));
        let mut said = Said { own: Some(Some(full.try_clone().unwrap())), left_out: 0 };
        said.note("first");
        while full.write(&[b'x'; PIECE_BYTES]).is_ok() {}
        said.note("second");
        said.note(&"third".repeat(PIECE_BYTES));
        let mut bytes = vec![0; 1 << 20];
        let mut count = 0;
        while let Ok(more) = read.read(&mut bytes[count..]) {
            count += more;
        }
        assert!(bytes[..count].starts_with(b"first\nxxx"));
        said.note("fourth");
        let count = read.read(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..count]);
        assert_eq!(text, "(2 lines before this one are left out)\nfourth\n");
    }
}
