//! What the system refuses for want of something that comes back: descriptors, memory.
//!
//! Who looked meanwhile found less than there is. A file that was not opened may have what is found
//! nowhere else, as one on a disk that does not answer may.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

/// How often that was, in this process.
static TIMES: AtomicU64 = AtomicU64::new(0);

/// Counts an error if it is of that kind.
pub(crate) fn note(error: &io::Error) {
    let errno = error.raw_os_error().map(Errno::from_raw);
    if let Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) = errno {
        // Relaxed, here and below: who asks has called what counts, or waited for who did.
        TIMES.fetch_add(1, Ordering::Relaxed);
    }
}

/// A number that changes whenever something was refused so.
pub fn times() -> u64 {
    TIMES.load(Ordering::Relaxed)
}
