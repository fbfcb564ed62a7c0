//! Writing pieces of the pool to files, and making them stay.
//!
//! A [`Disk`] does many calls at once and returns when all are done, so that what is being
//! written, slices of the mapping among it, is borrowed for as long as the kernel may read it.
//! [`write_all`] goes on where a call wrote less than it was given.
//!
//! Syncs may be begun and ended later ([`Syncs`]): what they make stable is the kernel's already,
//! so they borrow nothing, and more can be written meanwhile.
//!
//! | disk | how |
//! |---|---|
//! | [`uring::Uring`] | io_uring: all calls in one system call |
//! | [`plain::Plain`] | one system call each, where there is no io_uring |
//! | [`faulty::Faulty`] | another disk, with faults: full, errors, short writes, lost caches |

use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Arc;

#[cfg(feature = "kill-switch")]
mod driven;
pub mod faulty;
pub mod plain;
pub mod uring;

/// What one call does to its file.
#[derive(Debug)]
pub enum Call<'a> {
    /// Writes pieces one behind the other, from byte `at` on.
    Write {
        /// The pieces.
        pieces: &'a [IoSlice<'a>],
        /// Byte of the file.
        at: u64,
    },
    /// Puts what was written before on stable storage (fdatasync).
    Sync,
}

/// One call, and what became of it.
#[derive(Debug)]
pub struct Job<'a> {
    /// The file.
    pub file: &'a File,
    /// What is done to it.
    pub call: Call<'a>,
    /// Bytes written, possibly fewer than there are; 0 for a sync.
    pub result: io::Result<usize>,
}

impl<'a> Job<'a> {
    /// A call that was not made yet.
    pub fn new(file: &'a File, call: Call<'a>) -> Self {
        Self { file, call, result: Ok(0) }
    }
}

/// Syncs that were begun. The files stay open for as long as they are under way.
#[derive(Debug)]
#[must_use = "nothing is known to be stable before the syncs have ended"]
pub struct Syncs {
    files: Vec<Arc<File>>,
    /// One for each file, once it is there.
    answers: Vec<Option<io::Result<()>>>,
    /// What the disk calls the first of them; the others follow.
    first: u64,
}

impl Syncs {
    fn new(files: Vec<Arc<File>>, first: u64) -> Self {
        let answers = files.iter().map(|_| None).collect();
        Self { files, answers, first }
    }

    /// How many have no answer yet.
    fn under_way(&self) -> usize {
        self.answers.iter().filter(|answer| answer.is_none()).count()
    }

    /// All answers, if they are all there.
    fn into_answers(self) -> Result<Vec<io::Result<()>>, Self> {
        match self.under_way() {
            0 => Ok(self.answers.into_iter().flatten().collect()),
            _ => Err(self),
        }
    }
}

/// Something that makes calls on files.
pub trait Disk: Send {
    /// Makes the calls, in no order, and returns when all are done.
    fn run(&mut self, jobs: &mut [Job<'_>]);

    /// Begins to sync the files: what was written to them before. A disk that can do nothing
    /// meanwhile does it here.
    fn begin_syncs(&mut self, files: Vec<Arc<File>>) -> Syncs {
        let mut syncs = Syncs::new(files, 0);
        let files: Vec<&File> = syncs.files.iter().map(|file| &**file).collect();
        syncs.answers = sync_all(self, &files).into_iter().map(Some).collect();
        syncs
    }

    /// One answer for each file, in their order. While some are under way: waits for them, or, if
    /// it is not to `wait`, gives the syncs back.
    fn end_syncs(&mut self, syncs: Syncs, wait: bool) -> Result<Vec<io::Result<()>>, Syncs> {
        // They were done when they began.
        let _ = wait;
        syncs.into_answers()
    }

    /// What it is called, for people.
    fn name(&self) -> &'static str;
}

impl Disk for Box<dyn Disk> {
    fn run(&mut self, jobs: &mut [Job<'_>]) {
        (**self).run(jobs);
    }

    fn begin_syncs(&mut self, files: Vec<Arc<File>>) -> Syncs {
        (**self).begin_syncs(files)
    }

    fn end_syncs(&mut self, syncs: Syncs, wait: bool) -> Result<Vec<io::Result<()>>, Syncs> {
        (**self).end_syncs(syncs, wait)
    }

    fn name(&self) -> &'static str {
        (**self).name()
    }
}

/// The best disk there is: io_uring, and where the system has none, plain calls. The error says
/// why there is none.
pub fn open() -> (Box<dyn Disk>, Option<io::Error>) {
    let (disk, why): (Box<dyn Disk>, _) = match uring::Uring::new() {
        Ok(uring) => (Box::new(uring), None),
        Err(error) => (Box::new(plain::Plain), Some(error)),
    };
    #[cfg(feature = "kill-switch")]
    let disk = driven::wrap(disk);
    (disk, why)
}

/// Pieces that are to be in a file, one behind the other, and what became of that.
#[derive(Debug)]
pub struct Writing<'a> {
    /// The file.
    pub file: &'a File,
    /// Byte of the file that the first piece starts at.
    pub at: u64,
    /// The pieces.
    pub pieces: Vec<IoSlice<'a>>,
    /// Whether all of them are there.
    pub result: io::Result<()>,
}

impl<'a> Writing<'a> {
    /// Pieces that were not written yet.
    pub fn new(file: &'a File, at: u64, pieces: Vec<IoSlice<'a>>) -> Self {
        Self { file, at, pieces, result: Ok(()) }
    }
}

/// What is left of one of them.
struct Left<'w> {
    index: usize,
    file: &'w File,
    at: u64,
    first: usize,
    /// The first piece, without what is written of it; the rest are as they were given.
    head: IoSlice<'w>,
}

/// Writes everything, going on behind short writes. What a file has behind an error is not known.
pub fn write_all(disk: &mut dyn Disk, writings: &mut [Writing<'_>]) {
    let mut results: Vec<io::Result<()>> = Vec::with_capacity(writings.len());
    let mut left: Vec<Left<'_>> = Vec::with_capacity(writings.len());
    for (index, writing) in writings.iter().enumerate() {
        results.push(Ok(()));
        // A call with nothing in it writes nothing, which looks like a disk that does not work.
        if let Some(first) = writing.pieces.iter().position(|piece| !piece.is_empty()) {
            let head = IoSlice::new(&writing.pieces[first]);
            left.push(Left { index, file: writing.file, at: writing.at, first, head });
        }
    }
    while !left.is_empty() {
        let outcomes = write_once(disk, &left, writings);
        let mut outcomes = outcomes.into_iter();
        left.retain_mut(|left| match outcomes.next() {
            Some(Ok(0)) => {
                // A call that writes nothing and fails for nothing would be repeated for ever.
                results[left.index] = Err(io::ErrorKind::WriteZero.into());
                false
            }
            Some(Ok(bytes)) => left.advance(bytes, &writings[left.index].pieces),
            Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => true,
            Some(Err(error)) => {
                results[left.index] = Err(error);
                false
            }
            None => false,
        });
    }
    for (writing, result) in writings.iter_mut().zip(results) {
        writing.result = result;
    }
}

/// One call for each of `left`.
fn write_once(
    disk: &mut dyn Disk,
    left: &[Left<'_>],
    writings: &[Writing<'_>],
) -> Vec<io::Result<usize>> {
    // The first piece may be cut, so it goes by itself where it is; whole lists go as they are.
    let heads: Vec<[IoSlice<'_>; 1]> = left.iter().map(|left| [IoSlice::new(&left.head)]).collect();
    let mut jobs: Vec<Job<'_>> = left
        .iter()
        .zip(&heads)
        .map(|(left, head)| {
            let pieces = &writings[left.index].pieces[left.first..];
            let is_cut = pieces.first().is_none_or(|piece| piece.len() != left.head.len());
            let pieces = if is_cut { &head[..] } else { pieces };
            let pieces = &pieces[..pieces.len().min(PIECES_MAX)];
            Job::new(left.file, Call::Write { pieces, at: left.at })
        })
        .collect();
    disk.run(&mut jobs);
    jobs.into_iter().map(|job| job.result).collect()
}

/// Most pieces of one call (IOV_MAX).
const PIECES_MAX: usize = 1024;

impl<'w> Left<'w> {
    /// Steps over what was written; whether something is left.
    fn advance(&mut self, bytes: usize, pieces: &'w [IoSlice<'w>]) -> bool {
        self.at += bytes as u64;
        let mut bytes = bytes;
        while bytes >= self.head.len() {
            bytes -= self.head.len();
            self.first += 1;
            match pieces.get(self.first) {
                Some(piece) => self.head = IoSlice::new(piece),
                None => return false,
            }
        }
        self.head.advance(bytes);
        true
    }
}

/// Syncs the files, each by its own call; one answer each.
pub fn sync_all<D: Disk + ?Sized>(disk: &mut D, files: &[&File]) -> Vec<io::Result<()>> {
    let mut jobs: Vec<Job<'_>> = files.iter().map(|file| Job::new(file, Call::Sync)).collect();
    disk.run(&mut jobs);
    jobs.into_iter().map(|job| job.result.map(drop)).collect()
}
