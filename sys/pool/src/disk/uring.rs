//! io_uring.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

use super::{Call, Disk, Job, Syncs};

/// Calls that are pushed at a time, and jobs under way at a time.
const CALLS: usize = 64;
/// What the calls of [`Syncs`] are called begins here; below it are places in a list of jobs.
const FIRST_SYNC: u64 = 1 << 32;

/// Calls of one burst go to the kernel together.
pub struct Uring {
    ring: IoUring,
    /// What the next call of [`Syncs`] is called.
    next_sync: u64,
    /// Answers to such calls that nobody has taken yet.
    synced: Vec<(u64, io::Result<()>)>,
}

impl Uring {
    /// A ring of its own. An error where the system has none, or forbids it.
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::new(CALLS as u32)?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let has = |code| probe.is_supported(code);
        if has(opcode::Writev::CODE) && has(opcode::Fsync::CODE) {
            Ok(Self { ring, next_sync: FIRST_SYNC, synced: Vec::new() })
        } else {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn run_some(&mut self, jobs: &mut [Job<'_>]) {
        let mut pushed = 0;
        for (i, job) in jobs.iter_mut().enumerate() {
            let fd = types::Fd(job.file.as_raw_fd());
            let entry = match &job.call {
                Call::Write { pieces, at } => {
                    // IoSlice is guaranteed to be laid out as iovec on Unix, and the kernel takes
                    // at most IOV_MAX of them.
                    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
                    opcode::Writev::new(fd, pieces.as_ptr().cast(), count).offset(*at).build()
                }
                Call::Sync => sync_of(job.file),
            };
            let entry = entry.user_data(i as u64);
            // SAFETY:
            // - the file is open, the list of pieces and the pieces themselves are borrowed by
            //   `jobs` for this whole function, which neither returns nor panics before the
            //   kernel has answered: `reap` waits for as many answers as entries were pushed, of
            //   which those to syncs, begun earlier, are none;
            // - the kernel only reads through the pieces.
            match unsafe { self.ring.submission().push(&entry) } {
                Ok(()) => pushed += 1,
                // There are never more jobs than the ring has room for, and it is empty here.
                Err(_) => job.result = Err(io::ErrorKind::WouldBlock.into()),
            }
        }
        self.reap(jobs, pushed);
    }

    /// Waits for that many answers.
    fn reap(&mut self, jobs: &mut [Job<'_>], pushed: usize) {
        let mut answered = 0;
        while answered < pushed {
            // Answers to syncs may count for it too: then it is called once more.
            if self.ring.submit_and_wait(pushed - answered).is_err() {
                // Interrupted, or short of memory for now. There is no way back: the kernel may
                // still read what the jobs borrow.
                std::thread::sleep(RETRY_AFTER);
            }
            answered += self.take_answers(jobs);
        }
    }

    /// Takes the answers that are there; how many of them were to `jobs`.
    fn take_answers(&mut self, jobs: &mut [Job<'_>]) -> usize {
        let mut answered = 0;
        for answer in self.ring.completion() {
            let result = usize::try_from(answer.result())
                .map_err(|_| io::Error::from_raw_os_error(-answer.result()));
            if answer.user_data() >= FIRST_SYNC {
                self.synced.push((answer.user_data(), result.map(drop)));
                continue;
            }
            answered += 1;
            let index = usize::try_from(answer.user_data()).unwrap_or(usize::MAX);
            if let Some(job) = jobs.get_mut(index) {
                job.result = result;
            }
        }
        answered
    }

    /// Hands everything that was pushed to the kernel.
    fn submit(&mut self) {
        while !self.ring.submission().is_empty() {
            if self.ring.submit().is_err() {
                // Interrupted, short of memory, or of room for answers.
                self.take_answers(&mut []);
                std::thread::sleep(RETRY_AFTER);
            }
        }
    }

    /// Gives answers that are there to those who asked.
    fn give_answers(&mut self, syncs: &mut Syncs) {
        self.take_answers(&mut []);
        let Syncs { answers, first, .. } = syncs;
        self.synced.retain_mut(|(name, result)| {
            let at = name.checked_sub(*first).and_then(|at| usize::try_from(at).ok());
            let Some(slot) = at.and_then(|at| answers.get_mut(at)) else { return true };
            *slot = Some(std::mem::replace(result, Ok(())));
            false
        });
    }
}

/// How long to wait after the kernel did not take a call.
const RETRY_AFTER: Duration = Duration::from_micros(100);

fn sync_of(file: &File) -> squeue::Entry {
    opcode::Fsync::new(types::Fd(file.as_raw_fd())).flags(types::FsyncFlags::DATASYNC).build()
}

impl Disk for Uring {
    fn run(&mut self, jobs: &mut [Job<'_>]) {
        for some in jobs.chunks_mut(CALLS) {
            self.run_some(some);
        }
    }

    fn begin_syncs(&mut self, files: Vec<Arc<File>>) -> Syncs {
        let mut syncs = Syncs::new(files, self.next_sync);
        self.next_sync += syncs.files.len() as u64;
        for (i, file) in syncs.files.iter().enumerate() {
            let entry = sync_of(file).user_data(syncs.first + i as u64);
            // SAFETY:
            // - the call names no memory;
            // - the file is open until the kernel has taken the call, and its own reference with
            //   it: `syncs` has the file, and `submit` below returns only then.
            if let Err(error) = unsafe { self.ring.submission().push(&entry) } {
                // There is room for one: the queue is handed over when it is full.
                syncs.answers[i] = Some(Err(io::Error::other(error)));
            }
            if self.ring.submission().is_full() {
                self.submit();
            }
        }
        self.submit();
        syncs
    }

    fn end_syncs(&mut self, mut syncs: Syncs, wait: bool) -> Result<Vec<io::Result<()>>, Syncs> {
        self.give_answers(&mut syncs);
        while wait && syncs.under_way() > 0 {
            if self.ring.submit_and_wait(syncs.under_way().min(CALLS)).is_err() {
                std::thread::sleep(RETRY_AFTER);
            }
            self.give_answers(&mut syncs);
        }
        syncs.into_answers()
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}
