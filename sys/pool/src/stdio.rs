//! What this process was given as stdin and stdout.

use std::sync::atomic::{AtomicBool, Ordering};

/// Relaxed, both: stored once, before `main`, by the only thread there is.
static STDIN_WAS_CLOSED: AtomicBool = AtomicBool::new(false);
static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether this process was started with its stdin closed, as by `<&-` in a shell. The standard
/// library opens /dev/null in its place before `main`, and then it is empty.
pub fn stdin_was_closed() -> bool {
    STDIN_WAS_CLOSED.load(Ordering::Relaxed)
}

/// Whether this process was started with its stdout closed, as by `>&-` in a shell. The standard
/// library opens /dev/null in its place before `main`, and then every write succeeds.
pub fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    let both = [(libc::STDIN_FILENO, &STDIN_WAS_CLOSED), (libc::STDOUT_FILENO, &STDOUT_WAS_CLOSED)];
    for (number, was_closed) in both {
        // SAFETY: it asks about a number, and touches no memory.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        was_closed.store(flags == -1, Ordering::Relaxed);
    }
}

// SAFETY: the C library calls what stands in this section before `main`, with arguments that a
// function without any does not look at. `look` needs nothing that `main` would have set up.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
