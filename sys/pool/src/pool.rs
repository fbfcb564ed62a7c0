//! The pool: created once, attached by every process.

use std::fs::{File, OpenOptions};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use landfall_layout::geometry::{Geometry, GeometryError};
use landfall_layout::ids::SegmentId;
use landfall_layout::limits::LEADERS_MAX;
use landfall_layout::pool::{Attach, Coherence, MAGIC, PoolHeader, VERSION, inspect};
use landfall_layout::replica::REPLICA_MAGIC;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::map::{
    Backing, MapError, Mapping, Room, check_file_size, check_memory, check_room, examine, room_of,
};
use crate::memory::Memory;
use crate::once;
use crate::poison::{Guard, Loss, Part, loss_of};
use crate::sockets::Sockets;

/// A pool: its memory, where everything lies in it, and which leader's tables are followed.
///
/// It is itself a [`Memory`]. The memory is a [`Mapping`], to which such a pool derefs, or in
/// proofs a model.
pub struct Pool<M: Memory = Mapping> {
    /// Watches the mapping, and goes before it.
    guard: Option<Arc<Guard>>,
    memory: M,
    loss: Arc<Loss>,
    /// One for each leader slot.
    geometries: [Geometry; LEADERS_MAX],
    /// The slot whose tables are read, or written by the leader itself.
    leader: AtomicU8,
    /// This process leads: it follows nobody.
    leads: AtomicBool,
    header: PoolHeader,
    origin: Option<(Backing, File)>,
    pub(crate) sockets: OnceLock<Arc<Sockets>>,
}

/// Why a pool could not be created or attached.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolError {
    /// The memory itself.
    Map(MapError),
    /// The sizes.
    Geometry(GeometryError),
    /// What was found there is not a pool that this program can use.
    Attach {
        /// The path.
        path: PathBuf,
        /// What was found.
        found: Attach,
    },
    /// A header that contradicts itself.
    Header {
        /// The path.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The pool needs line flushes and this CPU has none that we know.
    CannotFlush,
}

impl std::fmt::Display for PoolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Map(error) => error.fmt(f),
            Self::Geometry(error) => error.fmt(f),
            Self::Attach { path, found } => {
                let path = path.display();
                match found {
                    Attach::NotYet => write!(
                        f,
                        "{path} holds no pool yet: its first word is 0; start control to create one"
                    ),
                    Attach::Foreign { magic } if *magic == REPLICA_MAGIC => write!(
                        f,
                        "{path} is a file of a replica, and no pool; landfall verify and recover \
                         take the broker's data directory that it is in"
                    ),
                    Attach::Foreign { magic } => write!(
                        f,
                        "{path} holds something else: its first word is {magic:#018x}; a pool \
                         starts with {MAGIC:#018x}"
                    ),
                    Attach::Other { theirs, ours } => write!(
                        f,
                        "{path} holds a pool of format version {theirs}; this program knows {ours}"
                    ),
                    Attach::Short { need, have } => write!(
                        f,
                        "{path} is too short: its header says {need} bytes and it has {have}; \
                         make a new pool, from the replicas where there are any \
                         (landfall-control --restore)"
                    ),
                    Attach::Ready => write!(f, "{path} already holds a pool"),
                }
            }
            Self::Header { path, what } => {
                write!(f, "{} has a pool header that cannot be: {what}", path.display())
            }
            Self::CannotFlush => f.write_str(
                "the pool is in flush mode and this CPU has no cache-line write-back we know",
            ),
        }
    }
}

impl std::error::Error for PoolError {}

impl From<MapError> for PoolError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

impl From<GeometryError> for PoolError {
    fn from(error: GeometryError) -> Self {
        Self::Geometry(error)
    }
}

/// Takes the room of every page, and touches none: a page that is first written when others have
/// used all there is could not be, and its segment would be lost. Refused where there is not as
/// much. A file system that does not know fallocate(2) is left as it is.
fn take_room(file: &File, path: &Path, bytes: u64) -> Result<(), MapError> {
    check_memory(file, bytes)?;
    match fallocate(file, FallocateFlags::empty(), 0, bytes as i64) {
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        Err(error) => Err(MapError::Io {
            what: format!(
                "take {bytes} bytes for {} (make the pool smaller, or start with --sparse)",
                path.display()
            ),
            source: error.into(),
        }),
    }
}

/// What a new pool shall be.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of the pool; for devdax 0 means the whole device.
    pub pool_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Session lines.
    pub sessions: u32,
    /// Coherence mode.
    pub coherence: Coherence,
    /// Its name, random.
    pub uuid: [u8; 16],
    /// Wall clock now, nanoseconds.
    pub now_ns: u64,
    /// Its room is taken only as it is used.
    pub sparse: bool,
}

impl Pool {
    /// Attaches to the pool at `path`, or creates it there when the memory is all new.
    ///
    /// One process at a time may do this: control, under its lock. What is not a pool and not
    /// zero is refused, never overwritten.
    pub fn create_or_attach(path: &Path, shape: Shape) -> Result<Self, PoolError> {
        match Self::attach(path) {
            Err(PoolError::Attach { found: Attach::NotYet, .. }) => {}
            Err(PoolError::Map(MapError::Io { source, .. }))
                if source.kind() == std::io::ErrorKind::NotFound => {}
            other => return other,
        }
        let existed = path.exists();
        Self::create(path, shape).inspect_err(|_| {
            if !existed {
                // A file that did not become a pool is not left behind; if it cannot be removed,
                // the error that is returned is still the one that matters.
                let _ = std::fs::remove_file(path);
            }
        })
    }

    fn create(path: &Path, shape: Shape) -> Result<Self, PoolError> {
        let file = open(path, true, true)?;
        let (backing, have) = examine(&file, path)?;
        let pool_bytes = match (backing, shape.pool_bytes) {
            (Backing::DevDax, 0) => have,
            (_, wanted) => wanted,
        };
        let geometry = Geometry::new(pool_bytes, shape.segment_bytes, shape.sessions)?;
        if backing == Backing::DevDax && pool_bytes > have {
            let found = Attach::Short { need: pool_bytes, have };
            return Err(PoolError::Attach { path: path.to_owned(), found });
        }
        if backing == Backing::Shmem {
            check_room(&file, path, pool_bytes)?;
        }
        if backing != Backing::DevDax && have < pool_bytes {
            check_file_size(pool_bytes)?;
            file.set_len(pool_bytes).map_err(|source| MapError::Io {
                what: format!("size {} to {pool_bytes} bytes", path.display()),
                source,
            })?;
        }
        if backing != Backing::DevDax && !shape.sparse {
            take_room(&file, path, pool_bytes)?;
        }
        let mut mapping = Mapping::new(&file, pool_bytes, backing, true)?;
        set_mode(&mut mapping, shape.coherence)?;
        let header = PoolHeader {
            magic: MAGIC,
            version: VERSION,
            coherence: shape.coherence.raw(),
            uuid: shape.uuid,
            pool_bytes,
            segment_bytes: shape.segment_bytes,
            sessions: shape.sessions,
            segments: geometry.segments(),
            created_ns: shape.now_ns,
        };
        format(&mapping, &geometry, &header);
        Ok(Self::mapped(mapping, geometry, header, (backing, file)))
    }

    /// Attaches to the pool at `path` for reading and writing.
    pub fn attach(path: &Path) -> Result<Self, PoolError> {
        Self::attach_file(open(path, true, false)?, path, true)
    }

    /// Attaches for reading only.
    pub fn attach_read_only(path: &Path) -> Result<Self, PoolError> {
        Self::attach_file(open(path, false, false)?, path, false)
    }

    /// Attaches to the pool behind an open file; `path` is only for messages and devdax sizes.
    pub fn attach_file(file: File, path: &Path, writable: bool) -> Result<Self, PoolError> {
        Self::attach_to(file, path, writable, false)
    }

    /// Attaches to the pool behind a descriptor that one of its brokers handed over. It is a pool,
    /// then, and brokers serve it: if its file was cut short meanwhile, what lay behind is lost
    /// and the rest is not.
    pub fn attach_handed(file: File, writable: bool) -> Result<Self, PoolError> {
        Self::attach_to(file, Path::new("the broker's pool"), writable, true)
    }

    fn attach_to(
        file: File,
        path: &Path,
        writable: bool,
        may_be_cut: bool,
    ) -> Result<Self, PoolError> {
        let refused = |found| PoolError::Attach { path: path.to_owned(), found };
        let (backing, have) = examine(&file, path)?;
        let least = if backing == Backing::Shmem { 4096 } else { 2 << 20 };
        if have < least {
            // Nothing that long was ever a pool; but what is not zero is somebody's, and is not
            // to be written over.
            return Err(refused(inspect(&first_line(&file, path)?, have)));
        }
        // The header says how much to map; it is read through a mapping of its own.
        let probe = Mapping::new(&file, least, backing, false)?;
        // EDGE pool-magic, acquire half. Pairs with `format`.
        let first = probe.load(0);
        let mut words = probe.load_words::<8>(0);
        words[0] = first;
        let header = PoolHeader::from_words(words);
        let found = inspect(&header, have);
        match found {
            Attach::Ready => {}
            Attach::Short { .. } if may_be_cut => {}
            found => return Err(refused(found)),
        }
        let bad = |what: String| PoolError::Header { path: path.to_owned(), what };
        let geometry = Geometry::new(header.pool_bytes, header.segment_bytes, header.sessions)
            .map_err(|error| bad(error.to_string()))?;
        if geometry.segments() != header.segments {
            let what = format!(
                "it says {} segments and its sizes give {}",
                header.segments,
                geometry.segments()
            );
            return Err(bad(what));
        }
        if have < geometry.head_bytes() {
            return Err(refused(found));
        }
        let coherence = Coherence::from_raw(header.coherence)
            .ok_or_else(|| bad(format!("coherence mode {}", header.coherence)))?;
        let mut mapping = match may_be_cut {
            // Clients may be many in one process.
            true => once::mapping(&file, header.pool_bytes, backing, writable)?,
            false => Mapping::new(&file, header.pool_bytes, backing, writable)?,
        };
        set_mode(&mut mapping, coherence)?;
        Ok(Self::mapped(mapping, geometry, header, (backing, file)))
    }

    fn mapped(
        mapping: Mapping,
        geometry: Geometry,
        header: PoolHeader,
        origin: (Backing, File),
    ) -> Self {
        let loss = loss_of(&origin.1, geometry.segments());
        let mut pool = Self::new(mapping, geometry, header, Some(origin));
        pool.loss = loss;
        let watch = || Guard::new(&pool.memory, pool.geometry(), &pool.loss);
        pool.guard = Some(once::guard(&pool.memory, watch));
        pool
    }

    /// Says what this process is to the pool: control and brokers end where a ring or an order log
    /// cannot be read, clients only where the tables cannot.
    pub fn take_part(&self, part: Part) {
        if let Some(guard) = &self.guard {
            guard.set_part(part);
        }
    }

    /// Reads something of every page of `bytes` bytes at `offset` in a segment, so that what
    /// cannot be read is known to be lost. Whether the segment is.
    #[cold]
    pub fn probe(&self, segment: u32, offset: u32, bytes: u32) -> bool {
        let Some(at) = self.at(segment, offset, bytes) else { return false };
        let page_bytes = self.memory.page_bytes();
        let first = at - at % page_bytes;
        for page in (first..at + u64::from(bytes)).step_by(page_bytes as usize) {
            std::hint::black_box(self.load_relaxed(page.max(at - at % 8)));
        }
        self.loss.is_lost(segment)
    }

    /// Touches every page, so that no page fault meets the fast path. Refused where the memory of
    /// the machine is not as much.
    pub fn touch(&self) -> Result<(), MapError> {
        let (backing, file) = self.origin();
        if *backing == Backing::Shmem {
            check_memory(file, self.memory.bytes())?;
        }
        let what = || "touch every page of the pool".to_owned();
        self.memory.prefault().map_err(|source| MapError::Io { what: what(), source })
    }

    /// The room of the file system that the pool is in, where that has a bound.
    pub fn room(&self) -> Option<Room> {
        let (backing, file) = self.origin.as_ref()?;
        if *backing == Backing::Shmem { room_of(file) } else { None }
    }

    /// Whether all of a segment can be read, found out without touching it.
    pub fn is_whole(&self, segment: SegmentId) -> bool {
        let bytes = self.geometry().segment_bytes();
        self.geometry().segment(segment).is_some_and(|at| self.memory.can_be_read(at, bytes))
    }

    /// What stands behind the mapping.
    pub fn backing(&self) -> Backing {
        self.origin().0
    }

    /// The file behind the mapping, to pass to another process.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.origin().1.as_fd()
    }

    /// A second descriptor of the pool that can only be read.
    pub fn read_only_file(&self) -> std::io::Result<File> {
        use std::os::fd::AsRawFd;
        File::open(format!("/proc/self/fd/{}", self.fd().as_raw_fd()))
    }

    fn origin(&self) -> &(Backing, File) {
        self.origin.as_ref().expect("a mapped pool is made with its file")
    }
}

impl<M: Memory> Pool<M> {
    fn new(
        memory: M,
        geometry: Geometry,
        header: PoolHeader,
        origin: Option<(Backing, File)>,
    ) -> Self {
        let pool = Self {
            guard: None,
            memory,
            loss: Arc::new(Loss::none(geometry.segments())),
            geometries: std::array::from_fn(|slot| geometry.of_leader(slot)),
            leader: AtomicU8::new(0),
            leads: AtomicBool::new(false),
            header,
            origin,
            sockets: OnceLock::new(),
        };
        pool.follow();
        pool
    }

    /// A pool in a memory of another kind, formatted already or all zero.
    pub fn on(memory: M, geometry: Geometry, header: PoolHeader) -> Self {
        Self::new(memory, geometry, header, None)
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Where everything lies, control's tables as the leader that is followed writes them.
    #[inline]
    pub fn geometry(&self) -> &Geometry {
        // Relaxed: offsets only; what lies there has edges of its own.
        &self.geometries[usize::from(self.leader.load(Ordering::Relaxed)) % LEADERS_MAX]
    }

    /// The leader slot whose tables are read.
    #[inline]
    pub fn leader_slot(&self) -> usize {
        self.geometry().leader_slot()
    }

    /// Where everything lies as the leader in `slot` writes it.
    pub fn geometry_of(&self, slot: usize) -> &Geometry {
        &self.geometries[slot]
    }

    pub(crate) fn turn_to(&self, slot: usize) {
        // Relaxed: see `geometry`.
        self.leader.store(slot as u8, Ordering::Relaxed);
        if let Some(guard) = &self.guard {
            guard.follow(self.geometry());
        }
    }

    pub(crate) fn set_leads(&self, leads: bool) {
        // Relaxed: set before any other thread has the pool.
        self.leads.store(leads, Ordering::Relaxed);
    }

    pub(crate) fn is_leading(&self) -> bool {
        // Relaxed: see `set_leads`.
        self.leads.load(Ordering::Relaxed)
    }

    /// What this process has lost of it.
    #[inline]
    pub fn loss(&self) -> &Loss {
        &self.loss
    }

    /// Whether this process knows that a segment is lost.
    #[inline]
    pub fn is_lost(&self, segment: u32) -> bool {
        self.loss.is_lost(segment)
    }

    /// The header, as it was at attach.
    pub fn header(&self) -> &PoolHeader {
        &self.header
    }

    /// The pool's name as 32 hexadecimal digits.
    pub fn uuid_text(&self) -> String {
        self.header.uuid.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Offset of `bytes` bytes at `offset` in `segment`, if they lie inside it.
    pub fn at(&self, segment: u32, offset: u32, bytes: u32) -> Option<u64> {
        self.geometry().span(SegmentId(segment), offset, bytes)
    }
}

impl Deref for Pool {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        &self.memory
    }
}

impl<M: Memory> Memory for Pool<M> {
    #[inline]
    fn load(&self, at: u64) -> u64 {
        self.memory.load(at)
    }
    #[inline]
    fn load_relaxed(&self, at: u64) -> u64 {
        self.memory.load_relaxed(at)
    }
    #[inline]
    fn store(&self, at: u64, value: u64) {
        self.memory.store(at, value);
    }
    #[inline]
    fn store_release(&self, at: u64, value: u64) {
        self.memory.store_release(at, value);
    }
    #[inline]
    fn full_fence(&self) {
        self.memory.full_fence();
    }
    #[inline]
    fn flushes(&self) -> bool {
        self.memory.flushes()
    }
    #[inline]
    fn write_back(&self, at: u64, bytes: u64) {
        self.memory.write_back(at, bytes);
    }
    #[inline]
    fn after_write_back(&self) {
        self.memory.after_write_back();
    }
    #[inline]
    fn invalidate(&self, at: u64, bytes: u64) {
        self.memory.invalidate(at, bytes);
    }
    #[inline]
    fn after_invalidate(&self) {
        self.memory.after_invalidate();
    }
    #[inline]
    fn publish(&self, at: u64, bytes: u64) {
        self.memory.publish(at, bytes);
    }
    #[inline]
    fn refresh(&self, at: u64, bytes: u64) {
        self.memory.refresh(at, bytes);
    }
}

fn open(path: &Path, write: bool, create: bool) -> Result<File, MapError> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .create(create)
        .truncate(false)
        .open(path)
        .map_err(|source| MapError::Io { what: format!("open {}", path.display()), source })
}

/// The first line of a file too short to be mapped as a pool, zeros behind its end.
fn first_line(file: &File, path: &Path) -> Result<PoolHeader, MapError> {
    let mut bytes = [0; PoolHeader::BYTES as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(source) => {
                return Err(MapError::Io { what: format!("read {}", path.display()), source });
            }
        }
    }
    Ok(PoolHeader::from_bytes(bytes))
}

fn set_mode(mapping: &mut Mapping, coherence: Coherence) -> Result<(), PoolError> {
    if coherence == Coherence::Flush {
        if !Mapping::can_flush() {
            return Err(PoolError::CannotFlush);
        }
        mapping.set_flushes(true);
    }
    Ok(())
}

/// Zeroes the tables and writes the header, magic last.
fn format(mapping: &Mapping, geometry: &Geometry, header: &PoolHeader) {
    let words = header.to_words();
    // Fresh memory is zero already and reading it does not fault pages in for good; a device may
    // hold anything.
    for at in (0..geometry.head_bytes()).step_by(8) {
        if mapping.load_relaxed(at) != 0 {
            mapping.store(at, 0);
        }
    }
    mapping.store_words(8, &words[1..]);
    mapping.publish(0, geometry.head_bytes());
    // EDGE pool-magic, release half. Pairs with `attach_file`: whoever sees the magic sees the
    // header and zeroed tables.
    mapping.store_release(0, words[0]);
    mapping.publish(0, 8);
}
