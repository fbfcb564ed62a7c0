//! Beats of a leader that does not serve yet: it may read disks for long, and is not to be deposed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use landfall_layout::limits::HEARTBEAT_EVERY_NS;
use landfall_pool::Pool;
use landfall_pool::clock::boot_ns;

/// A thread that beats for the leader that is taking over, until this is dropped: from then on its
/// keeper does.
pub struct TakingOver {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TakingOver {
    /// Begins. The leader has claimed its slot.
    pub fn begin(pool: &Arc<Pool>) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let (pool, is_over) = (Arc::clone(pool), Arc::clone(&over));
        let body = move || {
            // Relaxed: nothing else is handed over by it, and who ends it joins the thread.
            while !is_over.load(Ordering::Relaxed) {
                pool.beat_leader(boot_ns());
                std::thread::park_timeout(Duration::from_nanos(HEARTBEAT_EVERY_NS));
            }
        };
        let thread = std::thread::Builder::new().name("taking-over".to_owned()).spawn(body)?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for TakingOver {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It cannot panic: it only stores and waits.
            let _ = thread.join();
        }
    }
}
