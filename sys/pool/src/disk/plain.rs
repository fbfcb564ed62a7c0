//! One system call each.

use std::io;

use nix::sys::uio::pwritev;
use nix::unistd::fdatasync;

use super::{Call, Disk, Job};

/// pwritev and fdatasync.
#[derive(Debug)]
pub struct Plain;

impl Disk for Plain {
    fn run(&mut self, jobs: &mut [Job<'_>]) {
        for job in jobs {
            job.result = match job.call {
                Call::Write { pieces, at } => match i64::try_from(at) {
                    Ok(at) => pwritev(job.file, pieces, at).map_err(Into::into),
                    Err(_) => Err(io::ErrorKind::FileTooLarge.into()),
                },
                Call::Sync => fdatasync(job.file).map(|()| 0).map_err(Into::into),
            };
        }
    }

    fn name(&self) -> &'static str {
        "pwritev"
    }
}
