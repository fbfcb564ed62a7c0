//! What this process was given as stdout.

use std::sync::atomic::{AtomicBool, Ordering};

/// Relaxed: stored once, before `main`, by the only thread there is.
static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether this process was started with its stdout closed, as by `>&-` in a shell. The standard
/// library opens /dev/null in its place before `main`, and then every write succeeds.
pub fn stdout_was_closed() -> bool {
    WAS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    // SAFETY: it asks about a number, and touches no memory.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
}

// SAFETY: the C library calls what stands in this section before `main`, with arguments that a
// function without any does not look at. `look` needs nothing that `main` would have set up.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
