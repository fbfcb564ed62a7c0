//! Whether a broker's own disk gets on.
//!
//! Nothing ends a call that a disk does not answer, and the thread that made it says nothing any
//! more. So it leaves word when a call began, and the broker's loop looks at that.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use landfall_pool::clock::boot_ns;
use landfall_pool::disk::{Disk, Job, Syncs};

/// A disk whose oldest call has not ended for this long hangs. Longer than a slow disk takes under
/// load: copies move away from one that hangs.
pub const HANGS_NS: u64 = 5_000_000_000;

/// Since when calls are under way, boot clock; 0: none is. Writer: the replicator's thread.
#[derive(Debug, Default)]
pub struct Calls {
    /// Writes, and what is waited for at once.
    writes_ns: AtomicU64,
    /// Syncs that end later.
    syncs_ns: AtomicU64,
}

impl Calls {
    /// Whether one of them has been under way for too long.
    pub fn hang(&self, now_ns: u64) -> bool {
        // Relaxed: each is a number on its own.
        [&self.writes_ns, &self.syncs_ns].into_iter().any(|since| {
            let since = since.load(Ordering::Relaxed);
            since != 0 && now_ns.saturating_sub(since) >= HANGS_NS
        })
    }
}

/// A disk that leaves word of its calls.
pub struct Watched {
    disk: Box<dyn Disk>,
    calls: Arc<Calls>,
}

impl Watched {
    pub fn new(disk: Box<dyn Disk>, calls: Arc<Calls>) -> Self {
        Self { disk, calls }
    }
}

impl Disk for Watched {
    fn run(&mut self, jobs: &mut [Job<'_>]) {
        self.calls.writes_ns.store(boot_ns(), Ordering::Relaxed);
        self.disk.run(jobs);
        self.calls.writes_ns.store(0, Ordering::Relaxed);
    }

    fn begin_syncs(&mut self, files: Vec<Arc<File>>) -> Syncs {
        self.calls.syncs_ns.store(boot_ns(), Ordering::Relaxed);
        self.disk.begin_syncs(files)
    }

    fn end_syncs(&mut self, syncs: Syncs, wait: bool) -> Result<Vec<io::Result<()>>, Syncs> {
        let ended = self.disk.end_syncs(syncs, wait);
        if ended.is_ok() {
            self.calls.syncs_ns.store(0, Ordering::Relaxed);
        }
        ended
    }

    fn name(&self) -> &'static str {
        self.disk.name()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use landfall_pool::disk::plain::Plain;
    use landfall_pool::disk::{Call, sync_all};

    use super::*;

    /// A disk that says when a call reached it, and answers when it is told to.
    struct Hung {
        reached: Sender<()>,
        answers: Receiver<()>,
    }

    impl Disk for Hung {
        fn run(&mut self, jobs: &mut [Job<'_>]) {
            self.reached.send(()).unwrap();
            self.answers.recv().unwrap();
            Plain.run(jobs);
        }

        fn name(&self) -> &'static str {
            "hung"
        }
    }

    #[test]
    fn a_call_that_does_not_end_is_seen_from_outside_and_one_that_ended_is_none() {
        let file = Arc::new(File::open("/dev/null").unwrap());
        let calls = Arc::new(Calls::default());
        let in_time = |calls: &Calls| calls.hang(boot_ns() + HANGS_NS);
        assert!(!in_time(&calls));
        let works: [fn(&mut Watched, Arc<File>); 3] = [
            |disk, file| disk.run(&mut [Job::new(&file, Call::Sync)]),
            |disk, file| drop(sync_all(disk, &[&file])),
            |disk, file| {
                let syncs = disk.begin_syncs(vec![file]);
                drop(disk.end_syncs(syncs, true));
            },
        ];
        for work in works {
            let ((reached, is_reached), (answer, answers)) = (channel(), channel());
            let mut disk = Watched::new(Box::new(Hung { reached, answers }), Arc::clone(&calls));
            let file = Arc::clone(&file);
            let thread = std::thread::spawn(move || work(&mut disk, file));
            is_reached.recv().unwrap();
            assert!(in_time(&calls) && !calls.hang(0), "not at once");
            answer.send(()).unwrap();
            thread.join().unwrap();
            assert!(!in_time(&calls));
        }
    }
}
