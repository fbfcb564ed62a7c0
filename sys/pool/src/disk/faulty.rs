//! A disk with faults: what programs have to survive, made to happen.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Call, Disk, Job, Syncs, sync_all};

/// Bytes that a disk keeps or loses together.
const BLOCK_BYTES: u64 = 4096;
/// The system's error numbers.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The write of this number, from 1, fails with EIO.
    pub write_fails: Option<u64>,
    /// The sync of this number, from 1, fails with EIO. What it would have covered is never on
    /// stable storage: the system forgets that it was not written.
    pub sync_fails: Option<u64>,
    /// The disk is full once this many bytes were written.
    pub full_after: Option<u64>,
    /// A write takes this many bytes at most.
    pub short: Option<usize>,
    /// Every write takes this long more.
    pub write_us: Option<u64>,
    /// Every sync takes this long more.
    pub sync_us: Option<u64>,
}

impl FromStr for Plan {
    type Err = String;

    /// `write-fails=N,sync-fails=N,full-after=BYTES,short=BYTES,write-us=N,sync-us=N`, each if it
    /// is wanted.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = Self::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let number: u64 =
                value.parse().map_err(|_| format!("{word:?} says no number behind ="))?;
            match name {
                "write-fails" => plan.write_fails = Some(number),
                "sync-fails" => plan.sync_fails = Some(number),
                "full-after" => plan.full_after = Some(number),
                "short" => plan.short = Some(number.max(1) as usize),
                "write-us" => plan.write_us = Some(number),
                "sync-us" => plan.sync_us = Some(number),
                _ => {
                    return Err(format!(
                        "{name:?} is no fault; say write-fails, sync-fails, full-after, short, \
                         write-us or sync-us"
                    ));
                }
            }
        }
        Ok(plan)
    }
}

/// A file that was written to.
struct Touched {
    file: File,
    device: u64,
    inode: u64,
    /// Bytes that stay whatever happens.
    stable: u64,
    /// Bytes that there were when the last sync began.
    begun: u64,
    /// A sync of it failed: nothing more becomes stable, and nobody is told.
    lost: bool,
}

#[derive(Default)]
struct State {
    plan: Plan,
    writes: u64,
    syncs: u64,
    bytes: u64,
    touched: Vec<Touched>,
}

/// The handle by which a test says what goes wrong.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here is left half done by a panic that a test catches.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this goes wrong; calls and bytes count from 1 again.
    pub fn set(&self, plan: Plan) {
        let mut state = self.state();
        state.plan = plan;
        (state.writes, state.syncs, state.bytes) = (0, 0, 0);
    }

    /// Syncs since the plan was set.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// The power goes: of what was written and not synced, some blocks are there and some are
    /// zeros, and the file may end earlier. What is lost follows from `seed`.
    pub fn lose_power(&self, seed: u64) -> io::Result<()> {
        let mut random = seed;
        let mut next = move || {
            // SplitMix64: any seed gives another course.
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (random ^ random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        };
        for touched in self.state().touched.drain(..) {
            let have = touched.file.metadata()?.len();
            let doubtful = have.saturating_sub(touched.stable);
            let keep = touched.stable + next() % (doubtful + 1);
            touched.file.set_len(keep)?;
            let mut at = touched.stable;
            while at < keep {
                let end = ((at / BLOCK_BYTES + 1) * BLOCK_BYTES).min(keep);
                if next() % 2 == 0 {
                    touched.file.write_all_at(&vec![0; (end - at) as usize], at)?;
                }
                at = end;
            }
        }
        Ok(())
    }
}

impl State {
    fn touched(&mut self, file: &File) -> io::Result<&mut Touched> {
        let metadata = file.metadata()?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        let same = |touched: &Touched| (touched.device, touched.inode) == (device, inode);
        let at = match self.touched.iter().position(same) {
            Some(at) => at,
            None => {
                let stable = metadata.len();
                let file = file.try_clone()?;
                self.touched.push(Touched { file, device, inode, stable, begun: 0, lost: false });
                self.touched.len() - 1
            }
        };
        Ok(&mut self.touched[at])
    }
}

/// What a slow disk does.
fn dawdle(micros: Option<u64>) {
    if let Some(micros) = micros {
        std::thread::sleep(Duration::from_micros(micros));
    }
}

/// A disk that does what another one does, and fails by plan.
pub struct Faulty<D> {
    disk: D,
    faults: Faults,
}

impl<D: Disk> Faulty<D> {
    /// `disk`, failing by what `faults` says.
    pub fn new(disk: D, faults: Faults) -> Self {
        Self { disk, faults }
    }

    fn one(&mut self, job: &mut Job<'_>) -> io::Result<usize> {
        match job.call {
            Call::Write { pieces, at } => self.write(job.file, pieces, at),
            Call::Sync => {
                self.begin_sync(job.file).and_then(|()| self.end_sync(job.file)).map(|()| 0)
            }
        }
    }

    fn write(&mut self, file: &File, pieces: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        dawdle(self.faults.state().plan.write_us);
        let most = {
            let mut state = self.faults.state();
            state.writes += 1;
            if state.plan.write_fails == Some(state.writes) {
                return Err(io::Error::from_raw_os_error(EIO));
            }
            let room = state.plan.full_after.map(|full| full.saturating_sub(state.bytes));
            if room == Some(0) {
                return Err(io::Error::from_raw_os_error(ENOSPC));
            }
            state.touched(file)?;
            let short = state.plan.short.unwrap_or(usize::MAX);
            room.map_or(short, |room| short.min(usize::try_from(room).unwrap_or(usize::MAX)))
        };
        // All of it, or as much of the first piece as may be.
        let all: usize = pieces.iter().map(|piece| piece.len()).sum();
        let first = pieces.first().map_or(&[][..], |piece| &piece[..piece.len().min(most)]);
        let cut = [IoSlice::new(first)];
        let pieces = if all <= most { pieces } else { &cut };
        let mut jobs = [Job::new(file, Call::Write { pieces, at })];
        self.disk.run(&mut jobs);
        let [job] = jobs;
        if let Ok(bytes) = &job.result {
            self.faults.state().bytes += *bytes as u64;
        }
        job.result
    }

    /// Counts a sync that begins; an error if it is one that fails.
    fn begin_sync(&mut self, file: &File) -> io::Result<()> {
        let bytes = file.metadata()?.len();
        let mut state = self.faults.state();
        state.syncs += 1;
        let fails = state.plan.sync_fails == Some(state.syncs);
        let touched = state.touched(file)?;
        touched.lost |= fails;
        touched.begun = bytes;
        if fails { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }

    /// Makes stable what there was when the sync began.
    fn end_sync(&mut self, file: &File) -> io::Result<()> {
        dawdle(self.faults.state().plan.sync_us);
        sync_all(&mut self.disk, &[file]).into_iter().collect::<io::Result<()>>()?;
        let mut state = self.faults.state();
        let touched = state.touched(file)?;
        if !touched.lost {
            touched.stable = touched.begun;
        }
        Ok(())
    }
}

impl<D: Disk> Disk for Faulty<D> {
    fn run(&mut self, jobs: &mut [Job<'_>]) {
        for job in jobs {
            job.result = self.one(job);
        }
    }

    fn begin_syncs(&mut self, files: Vec<Arc<File>>) -> Syncs {
        let mut syncs = Syncs::new(files, 0);
        for (file, answer) in syncs.files.iter().zip(&mut syncs.answers) {
            *answer = self.begin_sync(file).err().map(Err);
        }
        syncs
    }

    /// A sync takes as long as it may: until it is waited for.
    fn end_syncs(&mut self, mut syncs: Syncs, wait: bool) -> Result<Vec<io::Result<()>>, Syncs> {
        for (file, answer) in syncs.files.iter().zip(&mut syncs.answers).filter(|_| wait) {
            answer.get_or_insert_with(|| self.end_sync(file));
        }
        match wait {
            true => syncs.into_answers(),
            false => Err(syncs),
        }
    }

    fn name(&self) -> &'static str {
        "faulty"
    }
}
