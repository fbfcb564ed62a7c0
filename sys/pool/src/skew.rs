//! Clocks that another process steps while this one runs. Only in builds with the feature
//! `kill-switch`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::kill::words_in;

/// Names a file of two words of eight bytes: nanoseconds that wall time and boot time are ahead of
/// the host's, negative for behind.
const CLOCK_FILE: &str = "LANDFALL_CLOCK_FILE";

static WORDS: OnceLock<Option<&'static [AtomicU64; 2]>> = OnceLock::new();

fn skewed(ns: u64, word: usize) -> u64 {
    let words = WORDS.get_or_init(|| {
        let path = std::env::var_os(CLOCK_FILE)?;
        loop {
            match words_in(&path) {
                Ok(words) => return Some(words),
                // Its descriptors were taken for a while: it is as if it were stopped.
                Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // A run whose clocks do not step would pass without having shown anything.
                Err(error) => panic!("{CLOCK_FILE}={path:?}: {error}"),
            }
        }
    });
    // Relaxed: a clock orders nothing.
    let ahead = words.map_or(0, |words| words[word].load(Ordering::Relaxed) as i64);
    ns.saturating_add_signed(ahead)
}

/// Wall time as this process is to see it.
pub(crate) fn wall(ns: u64) -> u64 {
    skewed(ns, 0)
}

/// Boot time as this process is to see it.
pub(crate) fn boot(ns: u64) -> u64 {
    skewed(ns, 1)
}
