//! Whether a broker's own disk gets on.
//!
//! Nothing ends a call that a disk does not answer, and the thread that made it says nothing any
//! more. So it leaves word when a call began, and when it came round last, since it opens, looks up
//! and removes files too; and the broker's loop looks at that.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use landfall_pool::clock::boot_ns;
use landfall_pool::disk::{Disk, Job, Syncs};

/// A disk whose oldest write or sync has not ended for this long hangs. Longer than a slow disk
/// takes under load: copies move away from one that hangs.
pub const CALL_NS: u64 = 5_000_000_000;
/// The same for everything else, where one step may read or remove a whole file.
const STEP_NS: u64 = 15_000_000_000;
/// What one look counts at most: whoever looks was stopped as well, if it is longer.
const LOOK_NS: u64 = 500_000_000;

/// Since when calls are under way, boot clock; 0: none is. Writer: the replicator's thread.
#[derive(Debug, Default)]
pub struct Calls {
    /// Writes, and what is waited for at once.
    writes_ns: AtomicU64,
    /// Syncs that end later.
    syncs_ns: AtomicU64,
    /// The step that the thread is at.
    step_ns: AtomicU64,
}

impl Calls {
    /// The thread begins its next step: a round, or a topic that it looks at.
    pub fn step(&self, now_ns: u64) {
        // Relaxed, here and below: each is a number on its own.
        self.step_ns.store(now_ns, Ordering::Relaxed);
    }
}

/// What the broker's loop saw of the calls.
#[derive(Debug, Default)]
pub struct Watch {
    seen: [Seen; 3],
    looked_ns: u64,
}

/// One of them.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    since_ns: u64,
    /// For how long it has been seen so.
    for_ns: u64,
}

impl Watch {
    /// Whether one of them has been under way for too long. Time in which nobody looked is not
    /// counted: the whole process was stopped, and the disk had nothing to answer.
    pub fn hangs(&mut self, calls: &Calls, now_ns: u64) -> bool {
        let passed = now_ns.saturating_sub(self.looked_ns).min(LOOK_NS);
        self.looked_ns = now_ns;
        let all =
            [(&calls.writes_ns, CALL_NS), (&calls.syncs_ns, CALL_NS), (&calls.step_ns, STEP_NS)];
        let hang = |seen: &mut Seen, (since, bound): (&AtomicU64, u64)| {
            let since_ns = since.load(Ordering::Relaxed);
            let is_same = since_ns != 0 && since_ns == seen.since_ns;
            *seen = Seen { since_ns, for_ns: if is_same { seen.for_ns + passed } else { 0 } };
            seen.for_ns >= bound
        };
        // All of them are looked at.
        self.seen.iter_mut().zip(all).fold(false, |hangs, (seen, one)| hang(seen, one) | hangs)
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

    /// What is seen by somebody who looks every 100 ms, for so long.
    fn hangs(watch: &mut Watch, calls: &Calls, from_ns: u64, for_ns: u64) -> bool {
        let looks = (from_ns..=from_ns + for_ns).step_by(100_000_000);
        looks.fold(false, |_, now| watch.hangs(calls, now))
    }

    #[test]
    fn a_call_that_does_not_end_is_seen_from_outside_and_one_that_ended_is_none() {
        let file = Arc::new(File::open("/dev/null").unwrap());
        let calls = Arc::new(Calls::default());
        let mut watch = Watch::default();
        let mut now = 1_000_000_000;
        let mut in_time = |calls: &Calls| {
            now += 2 * CALL_NS;
            hangs(&mut watch, calls, now, CALL_NS + LOOK_NS)
        };
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
            assert!(in_time(&calls));
            answer.send(()).unwrap();
            thread.join().unwrap();
            assert!(!in_time(&calls));
        }
    }

    #[test]
    fn a_step_that_does_not_end_hangs_and_a_process_that_was_stopped_does_not() {
        let (calls, mut watch) = (Calls::default(), Watch::default());
        calls.step(7);
        assert!(!hangs(&mut watch, &calls, 1_000_000_000, STEP_NS - 2 * LOOK_NS));
        // Nobody looked for an hour.
        assert!(!watch.hangs(&calls, 3_600_000_000_000));
        assert!(hangs(&mut watch, &calls, 3_600_100_000_000, STEP_NS));
        calls.step(8);
        assert!(!watch.hangs(&calls, 3_700_000_000_000));
    }
}
