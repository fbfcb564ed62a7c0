//! io_uring.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{IoUring, opcode, types};

use super::{Call, Disk, Job};

/// Calls under way at a time.
const CALLS: usize = 64;

/// Calls of one burst go to the kernel together.
pub struct Uring {
    ring: IoUring,
}

impl Uring {
    /// A ring of its own. An error where the system has none, or forbids it.
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::new(CALLS as u32)?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let has = |code| probe.is_supported(code);
        if has(opcode::Writev::CODE) && has(opcode::Fsync::CODE) {
            Ok(Self { ring })
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
                Call::Sync => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
            };
            let entry = entry.user_data(i as u64);
            // SAFETY:
            // - the file is open, the list of pieces and the pieces themselves are borrowed by
            //   `jobs` for this whole function, which neither returns nor panics before the
            //   kernel has answered: `reap` waits for as many answers as entries were pushed;
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
            if self.ring.submit_and_wait(pushed - answered).is_err() {
                // Interrupted, or short of memory for now. There is no way back: the kernel may
                // still read what the jobs borrow.
                std::thread::sleep(Duration::from_micros(100));
            }
            for answer in self.ring.completion() {
                answered += 1;
                let index = usize::try_from(answer.user_data()).unwrap_or(usize::MAX);
                if let Some(job) = jobs.get_mut(index) {
                    job.result = usize::try_from(answer.result())
                        .map_err(|_| io::Error::from_raw_os_error(-answer.result()));
                }
            }
        }
    }
}

impl Disk for Uring {
    fn run(&mut self, jobs: &mut [Job<'_>]) {
        for some in jobs.chunks_mut(CALLS) {
            self.run_some(some);
        }
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}
