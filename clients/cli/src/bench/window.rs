//! Publishers wait while the slowest subscriber is too far behind, and the topic keeps as much as
//! they may be ahead, so that retention never takes what has not been read.

use std::sync::atomic::{AtomicU64, Ordering};

use landfall::api::Pool;

/// Segments that a broker may have beside full ones: open and spare for sockets and for memory
/// publishers, its ring, and one it is waiting for.
const SEGMENTS_PER_BROKER: u64 = 6;
/// Segments of a topic's order log: the current one and the next.
const SEGMENTS_OF_LOG: u64 = 2;
/// Retention starts when less than this part of the pool is free.
const FREE_PART: u64 = 8;

/// How far publishers may be ahead of subscribers, in bytes as they lie in the pool.
#[derive(Debug)]
pub struct Window {
    most: u64,
    published: AtomicU64,
    read: Vec<AtomicU64>,
}

/// Segments that cannot hold what waits to be read.
pub fn segments_beside(pool: &Pool, brokers: usize) -> u64 {
    SEGMENTS_PER_BROKER * brokers as u64 + SEGMENTS_OF_LOG + pool.segments / FREE_PART
}

/// Bytes that publishers may be ahead in this pool before anything of theirs is in danger: a third
/// of what there is room for, since the topic has to keep twice that. At least `least`, which a
/// publisher needs to move at all.
pub fn window_bytes(pool: &Pool, brokers: usize, least: u64) -> u64 {
    let room = pool.segments_free.saturating_sub(segments_beside(pool, brokers));
    (room * pool.segment_bytes / 3).max(least)
}

/// Bytes that a topic has to keep so that nothing inside the window is taken. Retention counts and
/// takes whole segments: one may be half empty where the next batch did not fit, and each broker's
/// may end with what is still unread.
pub fn kept_bytes(pool: &Pool, brokers: usize, window: u64) -> u64 {
    let kept = 2 * window + (brokers as u64 + 1) * pool.segment_bytes;
    // A pool that is too small for the window keeps what it has.
    kept.min(pool.segments * pool.segment_bytes)
}

// Relaxed everywhere: the numbers only steer; no other memory is published with them.
impl Window {
    /// A window of `most` bytes for `subscribers`; with none it is never full.
    pub fn new(most: u64, subscribers: usize) -> Self {
        let read = (0..subscribers).map(|_| AtomicU64::new(0)).collect();
        Self { most, published: AtomicU64::new(0), read }
    }

    /// Bytes were published.
    pub fn published(&self, bytes: u64) {
        self.published.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A subscriber has read bytes.
    pub fn read(&self, subscriber: usize, bytes: u64) {
        if let Some(read) = self.read.get(subscriber) {
            read.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Whether publishers should wait.
    pub fn is_full(&self) -> bool {
        let slowest = self.read.iter().map(|read| read.load(Ordering::Relaxed)).min();
        slowest.is_some_and(|read| {
            self.published.load(Ordering::Relaxed).saturating_sub(read) > self.most
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_subscriber_decides() {
        let window = Window::new(100, 2);
        window.published(150);
        assert!(window.is_full());
        window.read(0, 150);
        assert!(window.is_full(), "the other has read nothing");
        window.read(1, 50);
        assert!(!window.is_full());
    }

    #[test]
    fn a_window_leaves_room_for_what_is_not_full() {
        let pool = |segments: u64| Pool {
            uuid: String::new(),
            path: String::new(),
            bytes: 0,
            segment_bytes: 8,
            segments,
            segments_free: segments,
            segments_lost: 0,
            batch_bytes_max: 0,
            sessions: 0,
            coherence: String::new(),
        };
        assert_eq!(window_bytes(&pool(127), 1, 0), (127 - 6 - 2 - 15) * 8 / 3);
        assert_eq!(window_bytes(&pool(63), 4, 0), (63 - 24 - 2 - 7) * 8 / 3);
        assert_eq!(window_bytes(&pool(8), 4, 17), 17, "never less than a publisher needs");
    }

    #[test]
    fn without_subscribers_nobody_waits() {
        let window = Window::new(0, 0);
        window.published(u64::MAX);
        assert!(!window.is_full());
    }
}
