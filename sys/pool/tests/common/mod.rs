//! Pools for tests.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use landfall_layout::pool::Coherence;
use landfall_pool::Pool;
use landfall_pool::map::memfd;
use landfall_pool::pool::Shape;

/// The smallest segments, few of them, few sessions.
pub fn shape(coherence: Coherence) -> Shape {
    Shape {
        pool_bytes: 48 << 20,
        segment_bytes: 2 << 20,
        sessions: 16,
        coherence,
        uuid: *b"0123456789abcdef",
        now_ns: 1,
        sparse: true,
    }
}

/// An empty memfd, and the path under which it can be opened.
pub fn memory() -> (OwnedFd, PathBuf) {
    let fd = memfd("landfall-test", 0).expect("a memfd");
    let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    (fd, path)
}

/// A fresh pool on a memfd.
pub fn pool(coherence: Coherence) -> Pool {
    let (_fd, path) = memory();
    Pool::create_or_attach(&path, shape(coherence)).expect("a pool on a memfd")
}

/// Numbers that look random and are the same on every run.
pub struct Random(pub u64);

impl Random {
    /// The next one: xorshift64*.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
