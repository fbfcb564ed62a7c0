//! What a server says to people.

use std::fmt::Display;
use std::io::{Write, stderr};
use std::{panic, process};

/// Writes a line to stderr, whatever becomes of it: a log whose disk is full, or that nobody reads
/// any more, ends no process and no thread. `eprintln!` would panic.
pub fn note(line: impl Display) {
    // One write, so that the lines of several processes in one log stay lines.
    let _ = stderr().write_all(format!("{line}\n").as_bytes());
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
