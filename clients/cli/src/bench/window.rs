//! Publishers wait while the slowest subscriber is too far behind, so that retention, which takes
//! the oldest when the pool runs low, never takes what has not been read.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far publishers may be ahead of subscribers, in bytes as they lie in the pool.
#[derive(Debug)]
pub struct Window {
    most: u64,
    published: AtomicU64,
    read: Vec<AtomicU64>,
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
    fn without_subscribers_nobody_waits() {
        let window = Window::new(0, 0);
        window.published(u64::MAX);
        assert!(!window.is_full());
    }
}
