//! Mappings: memory that NICs can pin and other processes can map.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::fstat;
use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs};

use landfall_layout::channel::{CHANNEL_BYTES, CHANNEL_MAGIC};

use crate::memory::{Memory, lines_of};
use crate::room;
use crate::x86;

/// What stands behind a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backing {
    /// A tmpfs file or a memfd.
    Shmem,
    /// A hugetlbfs file or a memfd of huge pages.
    HugePages,
    /// A devdax device: CXL or persistent memory.
    DevDax,
}

/// Why memory could not be mapped.
#[derive(Debug)]
#[non_exhaustive]
pub enum MapError {
    /// The file could not be opened, sized or mapped.
    Io {
        /// What was tried, with the path.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A file on a disk: NICs cannot pin its pages, and the kernel writes them back.
    DiskFile {
        /// The path.
        path: String,
        /// The file system's magic number (statfs(2)).
        filesystem: i64,
    },
    /// Neither a file nor a devdax device.
    NotMemory {
        /// The path.
        path: String,
    },
    /// A file system that has less room than the pool needs. Pages are taken when they are
    /// touched, and without room for one the process would be killed.
    NoRoom {
        /// The path.
        path: String,
        /// Bytes still to be taken.
        bytes: u64,
        /// Bytes the file system has.
        free: u64,
    },
    /// A machine, or a control group, that has less memory than is to be touched: the kernel would
    /// end processes for it, one after the other.
    NoMemory {
        /// Bytes still to be taken.
        bytes: u64,
        /// Bytes there are.
        available: u64,
    },
    /// A file that may not become as long as the pool.
    FileSize {
        /// Bytes of the pool.
        bytes: u64,
        /// The bound.
        most: u64,
    },
    /// A channel of another size or without its magic.
    NotChannel {
        /// Bytes it has.
        bytes: u64,
        /// Its first word.
        magic: u64,
    },
    /// A size or offset that this memory cannot be mapped with.
    Unaligned {
        /// Bytes asked for.
        bytes: u64,
        /// Multiple that is needed.
        align: u64,
    },
}

impl std::fmt::Display for MapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::DiskFile { path, filesystem } => write!(
                f,
                "{path} lies on a disk file system ({filesystem:#x}): NICs cannot pin its pages; \
                 use a file on tmpfs (/dev/shm) or hugetlbfs, or a devdax device"
            ),
            Self::NotMemory { path } => {
                write!(f, "{path} is neither a file nor a devdax device, so it cannot be a pool")
            }
            Self::NoRoom { path, bytes, free } => write!(
                f,
                "{path} would take {bytes} bytes more and its file system has {free}; make the \
                 pool smaller, or the file system larger (mount -o remount,size=..)"
            ),
            Self::NoMemory { bytes, available } => write!(
                f,
                "the pool takes {bytes} bytes more of memory and {available} are available; make \
                 it smaller, or start with --sparse and without --prefault"
            ),
            Self::FileSize { bytes, most } => write!(
                f,
                "a file of {bytes} bytes may not be made here: the bound on files is {most} bytes \
                 (ulimit -f); raise it, or make the pool smaller"
            ),
            Self::NotChannel { bytes, magic } => write!(
                f,
                "the descriptor holds {bytes} bytes that begin with {magic:#018x}; a channel has \
                 {CHANNEL_BYTES} and begins with {CHANNEL_MAGIC:#018x}"
            ),
            Self::Unaligned { bytes, align } => {
                write!(f, "{bytes} bytes cannot be mapped here; say a multiple of {align}")
            }
        }
    }
}

impl std::error::Error for MapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Every store to shared memory says so here, right after it was made.
#[inline(always)]
pub(crate) fn stored() {
    #[cfg(feature = "kill-switch")]
    crate::kill::stored();
}

/// Makes stores that are no point to be killed at: nothing is ever decided by what they leave.
#[inline(always)]
pub(crate) fn uncounted<T>(stores: impl FnOnce() -> T) -> T {
    #[cfg(feature = "kill-switch")]
    let _uncounted = crate::kill::Uncounted::begin();
    stores()
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> MapError {
    let what = what.into();
    move |source| MapError::Io { what, source }
}

/// A fresh anonymous file in memory that can be passed to other processes.
pub fn memfd(name: &str, bytes: u64) -> Result<OwnedFd, MapError> {
    check_file_size(bytes)?;
    let what = format!("make a memfd of {bytes} bytes");
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create(name, flags).map_err(|e| io_error(what.clone())(e.into()))?;
    nix::unistd::ftruncate(&fd, bytes as i64).map_err(|e| io_error(what)(e.into()))?;
    Ok(fd)
}

/// What a file is as memory, and how many bytes it has now.
pub fn examine(file: &File, path: &Path) -> Result<(Backing, u64), MapError> {
    let shown = path.display().to_string();
    let metadata = file.metadata().map_err(io_error(format!("look at {shown}")))?;
    if metadata.file_type().is_char_device() {
        return Ok((Backing::DevDax, devdax_size(path, metadata.rdev())?));
    }
    if !metadata.file_type().is_file() {
        return Err(MapError::NotMemory { path: shown });
    }
    let statfs = fstatfs(file)
        .map_err(|e| io_error(format!("ask for the file system of {shown}"))(e.into()))?;
    match statfs.filesystem_type() {
        TMPFS_MAGIC => Ok((Backing::Shmem, metadata.len())),
        HUGETLBFS_MAGIC => Ok((Backing::HugePages, metadata.len())),
        other => Err(MapError::DiskFile { path: shown, filesystem: other.0 }),
    }
}

/// Refuses a tmpfs that cannot hold `bytes` bytes of this file. One without a bound, such as that
/// of memfds, holds what the machine holds.
pub fn check_room(file: &File, path: &Path, bytes: u64) -> Result<(), MapError> {
    let shown = || path.display().to_string();
    let taken = file.metadata().map_err(io_error(format!("look at {}", shown())))?.blocks() * 512;
    let statfs = fstatfs(file)
        .map_err(|e| io_error(format!("ask for the room of {}", shown()))(e.into()))?;
    let free = statfs.blocks_available().saturating_mul(statfs.block_size().unsigned_abs());
    let wanted = bytes.saturating_sub(taken);
    if statfs.blocks() > 0 && wanted > free {
        return Err(MapError::NoRoom { path: shown(), bytes: wanted, free });
    }
    Ok(())
}

/// A file system that has a bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes of it.
    pub all: u64,
    /// Bytes that nobody has.
    pub free: u64,
}

/// The room of the file system that a file is in. `None`: it has no bound, as that of memfds, or
/// cannot be asked.
pub fn room_of(file: impl AsFd) -> Option<Room> {
    let statfs = fstatfs(file).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(statfs.block_size().unsigned_abs());
    let (all, free) = (bytes(statfs.blocks()), bytes(statfs.blocks_available()));
    (all > 0).then_some(Room { all, free })
}

/// Refuses what this process may not make a file of.
pub fn check_file_size(bytes: u64) -> Result<(), MapError> {
    match getrlimit(Resource::RLIMIT_FSIZE) {
        Ok((most, _)) if most < bytes => Err(MapError::FileSize { bytes, most }),
        _ => Ok(()),
    }
}

/// Refuses to touch every page of a file in memory where there is not as much memory.
pub fn check_memory(file: impl AsFd, bytes: u64) -> Result<(), MapError> {
    let Ok(stat) = fstat(file) else { return Ok(()) };
    let bytes = bytes.saturating_sub(stat.st_blocks.unsigned_abs() * 512);
    match room::available() {
        Some(available) if available < bytes => Err(MapError::NoMemory { bytes, available }),
        _ => Ok(()),
    }
}

/// A devdax device's size: `fstat` says 0 for it, so sysfs is asked.
fn devdax_size(path: &Path, rdev: u64) -> Result<u64, MapError> {
    let shown = path.display().to_string();
    let (major, minor) = (nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev));
    let device = std::fs::canonicalize(format!("/sys/dev/char/{major}:{minor}"))
        .map_err(|_| MapError::NotMemory { path: shown.clone() })?;
    let size = device.join("size");
    if !device.to_string_lossy().contains("/dax") {
        return Err(MapError::NotMemory { path: shown });
    }
    let text = std::fs::read_to_string(&size)
        .map_err(io_error(format!("read the size of {shown} from sysfs")))?;
    text.trim().parse().map_err(|_| MapError::Io {
        what: format!("read the size of {shown} from sysfs"),
        source: io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no number")),
    })
}

/// Whether a system call failed because memory that it was given cannot be read or written.
pub fn is_poison(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EHWPOISON))
}

/// Bytes of a page of that memory.
fn page_bytes(fd: &impl AsFd, backing: Backing) -> u64 {
    const HUGE: u64 = 2 << 20;
    match backing {
        Backing::Shmem => nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .map_or(4096, i64::unsigned_abs),
        Backing::HugePages => fstatfs(fd).map_or(HUGE, |is| is.block_size().unsigned_abs()),
        Backing::DevDax => HUGE,
    }
}

/// A shared mapping. All its words are atomics to us, since others write them at any time.
pub struct Mapping {
    /// Shared where the process has mapped the same once already ([`crate::once`]).
    raw: Arc<MmapRaw>,
    writable: bool,
    flushes: bool,
    page_bytes: u64,
    ops: x86::LineOps,
}

impl Mapping {
    /// Maps the first `bytes` bytes of a file or device, shared.
    ///
    /// `bytes` is a multiple of the page, for devdax of 2 MiB.
    pub fn new(
        fd: impl AsFd,
        bytes: u64,
        backing: Backing,
        writable: bool,
    ) -> Result<Self, MapError> {
        let align = if backing == Backing::Shmem { 4096 } else { 2 << 20 };
        if bytes == 0 || !bytes.is_multiple_of(align) {
            return Err(MapError::Unaligned { bytes, align });
        }
        let mut options = MmapOptions::new();
        options.len(bytes as usize);
        let page_bytes = page_bytes(&fd, backing);
        let fd = fd.as_fd().as_raw_fd();
        let raw = if writable { options.map_raw(fd) } else { options.map_raw_read_only(fd) }
            .map_err(io_error(format!("map {bytes} bytes")))?;
        if backing == Backing::Shmem {
            // A hint: where the system has no huge pages for shared memory, small ones do.
            let _ = raw.advise(Advice::HugePage);
        }
        let raw = Arc::new(raw);
        Ok(Self { raw, writable, flushes: false, page_bytes, ops: x86::detect() })
    }

    /// One more user of what another one has mapped.
    pub(crate) fn again(
        raw: Arc<MmapRaw>,
        fd: impl AsFd,
        backing: Backing,
        writable: bool,
    ) -> Self {
        let page_bytes = page_bytes(&fd, backing);
        Self { raw, writable, flushes: false, page_bytes, ops: x86::detect() }
    }

    pub(crate) fn raw(&self) -> &Arc<MmapRaw> {
        &self.raw
    }

    /// Bytes mapped.
    pub fn bytes(&self) -> u64 {
        self.raw.len() as u64
    }

    /// Where the mapping begins, for registering it with a NIC; [`bytes`](Self::bytes) of it are
    /// mapped until this is dropped. What a NIC writes there, this side loads as atomics or under
    /// a hold, like everything else that is shared.
    pub fn base(&self) -> *mut u8 {
        self.raw.as_mut_ptr()
    }

    /// Bytes of the pages that stand behind it: what is lost is lost in these.
    pub(crate) fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    /// Whether all of these bytes can be read, found out without touching them. Takes pages for
    /// what had none. `true` where the system cannot tell.
    pub fn can_be_read(&self, at: u64, bytes: u64) -> bool {
        if self.span(at, bytes).is_none() {
            return false;
        }
        match self.raw.advise_range(Advice::PopulateRead, at as usize, bytes as usize) {
            Ok(()) => true,
            Err(error) => !is_poison(&error),
        }
    }

    /// Whether stores are possible. A store to a read-only mapping would end the process.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether this CPU can write lines back and drop them one by one.
    pub fn can_flush() -> bool {
        cfg!(target_arch = "x86_64")
    }

    pub(crate) fn set_flushes(&mut self, flushes: bool) {
        self.flushes = flushes;
    }

    /// Touches every page, so that no page fault meets the fast path.
    pub fn prefault(&self) -> io::Result<()> {
        self.raw.advise(if self.writable { Advice::PopulateWrite } else { Advice::PopulateRead })
    }

    /// The mapping as words.
    fn words(&self) -> &[AtomicU64] {
        // SAFETY:
        // - valid: the mapping is `len` bytes long and lives as long as `self`;
        // - aligned: a mapping starts on a page;
        // - no exclusive alias: this crate hands out words as atomics, and bytes never as slices;
        // - read-only mappings: atomics are only loaded, which `store` checks.
        unsafe {
            std::slice::from_raw_parts(
                self.raw.as_mut_ptr().cast::<AtomicU64>(),
                self.raw.len() / 8,
            )
        }
    }

    #[inline]
    fn word(&self, at: u64) -> &AtomicU64 {
        debug_assert!(at.is_multiple_of(8), "word offset {at}");
        &self.words()[(at / 8) as usize]
    }

    /// The address of `bytes` bytes at `at`, if they are inside the mapping.
    pub(crate) fn span(&self, at: u64, bytes: u64) -> Option<*mut u8> {
        let end = at.checked_add(bytes)?;
        if end > self.bytes() {
            return None;
        }
        // SAFETY: `at <= end <= len`, so the result is inside the mapping or one past its end.
        Some(unsafe { self.raw.as_mut_ptr().add(at as usize) })
    }
}

impl Memory for Mapping {
    #[inline]
    fn load(&self, at: u64) -> u64 {
        self.word(at).load(Ordering::Acquire)
    }

    #[inline]
    fn load_relaxed(&self, at: u64) -> u64 {
        self.word(at).load(Ordering::Relaxed)
    }

    #[inline]
    fn store(&self, at: u64, value: u64) {
        assert!(self.writable, "store to a mapping that is only for reading");
        self.word(at).store(value, Ordering::Relaxed);
        stored();
    }

    #[inline]
    fn store_release(&self, at: u64, value: u64) {
        assert!(self.writable, "store to a mapping that is only for reading");
        self.word(at).store(value, Ordering::Release);
        stored();
    }

    #[inline]
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }

    #[inline]
    fn flushes(&self) -> bool {
        self.flushes
    }

    fn write_back(&self, at: u64, bytes: u64) {
        for line in lines_of(at, bytes) {
            let Some(address) = self.span(line, 1) else { return };
            // SAFETY: `span` checked that the address is inside the mapping.
            unsafe { x86::write_back(self.ops, address) }
        }
    }

    fn after_write_back(&self) {
        x86::store_fence();
    }

    fn invalidate(&self, at: u64, bytes: u64) {
        for line in lines_of(at, bytes) {
            let Some(address) = self.span(line, 1) else { return };
            // SAFETY: `span` checked that the address is inside the mapping.
            unsafe { x86::drop_line(self.ops, address) }
        }
    }

    fn after_invalidate(&self) {
        x86::memory_fence();
    }
}
