//! Locks on bytes of the pool's file: who is there, as the kernel knows it.
//!
//! A lock belongs to an open file description (`F_OFD_SETLK`, fcntl(2)), and the kernel gives it
//! back when the last descriptor of that is closed: with the process, however it ends, and never
//! while the process is only stopped. It is seen from every network, PID and mount namespace of
//! the host, as long as both sides opened the same inode; two device nodes of one device are two
//! inodes, so whoever holds a byte says in the pool what it locked ([`Locks::identity`]).
//!
//! Other hosts see nothing of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use landfall_layout::BrokerId;
use landfall_layout::limits::LEADERS_MAX;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::host;
use crate::pool::Pool;

/// The first byte of the brokers, one for each number.
const BROKERS: i64 = 64;
/// Bits of an incarnation that name the byte of its memory publishers, in a range for each broker.
const INCARNATION_BITS: u32 = 32;

const _: () = assert!((LEADERS_MAX as i64) < BROKERS, "no byte stands for two things");

/// What a byte stands for. A lock needs no byte to be there: nothing is read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Byte {
    /// Held while an election goes on.
    Ballot,
    /// Held by the control that has this leader slot.
    Leader(usize),
    /// Held by the process that is this broker.
    Broker(BrokerId),
    /// Held, shared, by everybody who may write into what this process of a broker granted.
    Writers(BrokerId, u64),
}

impl Byte {
    fn offset(self) -> i64 {
        match self {
            Self::Ballot => 0,
            Self::Leader(slot) => 1 + slot as i64,
            Self::Broker(id) => BROKERS + id.index() as i64,
            Self::Writers(id, incarnation) => {
                let low = incarnation & ((1 << INCARNATION_BITS) - 1);
                writers_of(id) + low as i64
            }
        }
    }
}

/// The first byte of those who write into what a broker's processes granted.
fn writers_of(id: BrokerId) -> i64 {
    (1 + id.index() as i64) << INCARNATION_BITS
}

/// The pool's file opened once more, for one who may write into what this process of a broker
/// grants: for as long as any process has that descriptor open, the kernel shows that somebody may
/// write there. The writer only keeps it, and may be stopped meanwhile. A mapping made by it would
/// hold it too, past the connection that it is for: the pool is mapped by another descriptor.
pub fn lend_to_writer(pool: &Pool, broker: BrokerId, incarnation: u64) -> io::Result<OwnedFd> {
    let file = open(pool)?;
    let range = range(libc::F_RDLCK, Byte::Writers(broker, incarnation));
    fcntl(&file, FcntlArg::F_OFD_SETLK(&range))?;
    Ok(file.into())
}

fn open(pool: &Pool) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", pool.fd().as_raw_fd());
    OpenOptions::new().read(true).write(true).open(path)
}

/// What the kernel knows of a process that took a byte and wrote down what it locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Process {
    /// It is there, running or stopped; or it could not be found out, which is no death.
    There,
    /// Its lock is free, so it is gone.
    Gone,
    /// It took its lock on another host, or another inode: nothing here can tell.
    Elsewhere,
}

/// The pool's file, opened once more for locks alone. Dropping it gives all of them back.
#[derive(Debug)]
pub struct Locks {
    file: File,
    identity: u64,
}

impl Locks {
    /// Opens the pool's file again. The descriptor is kept from then on, so that looking at locks
    /// needs no other, and it is not handed on to programs that this process starts.
    pub fn open(pool: &Pool) -> io::Result<Self> {
        let file = open(pool)?;
        let metadata = file.metadata()?;
        let identity = identity([metadata.dev(), metadata.ino(), metadata.rdev()]);
        Ok(Self { file, identity })
    }

    /// A number of the inode whose bytes these are, never 0, for those who look at its locks.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// Locks a byte until it is given back or this is dropped. False: another one has it.
    pub fn take(&self, byte: Byte) -> io::Result<bool> {
        let range = range(libc::F_WRLCK, byte);
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&range)) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a byte back.
    pub fn give_back(&self, byte: Byte) -> io::Result<()> {
        let range = range(libc::F_UNLCK, byte);
        fcntl(&self.file, FcntlArg::F_OFD_SETLK(&range)).map(drop).map_err(io::Error::from)
    }

    /// Whether a byte is locked through another open file description than this one.
    pub fn is_taken(&self, byte: Byte) -> io::Result<bool> {
        let mut range = range(libc::F_WRLCK, byte);
        fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut range))?;
        Ok(i32::from(range.l_type) != libc::F_UNLCK)
    }

    /// Whether somebody may write into what processes of a broker granted, that of `incarnation`
    /// aside. What cannot be found out may be.
    pub fn has_writers(&self, id: BrokerId, but: Option<u64>) -> bool {
        let all = writers_of(id)..writers_of(id) + (1 << INCARNATION_BITS);
        let parts = match but.map(|incarnation| Byte::Writers(id, incarnation).offset()) {
            Some(at) => [all.start..at, at + 1..all.end],
            None => [all.clone(), all.end..all.end],
        };
        parts.into_iter().filter(|part| !part.is_empty()).any(|part| {
            let mut range = libc::flock {
                l_start: part.start,
                l_len: part.end - part.start,
                ..range(libc::F_WRLCK, Byte::Ballot)
            };
            let asked = fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut range));
            asked.is_err() || i32::from(range.l_type) != libc::F_UNLCK
        })
    }

    /// What became of the process that took a byte on host `host`, and locked what `locked` names.
    pub fn process(&self, byte: Byte, host: u64, locked: u64) -> Process {
        judge(self.is_taken(byte), self.is_here(host, locked))
    }

    /// Whether a lock taken there is seen here.
    pub fn is_here(&self, host: u64, locked: u64) -> bool {
        host::is_this(host) && locked == self.identity
    }
}

fn judge(is_taken: io::Result<bool>, is_here: bool) -> Process {
    match is_taken {
        Ok(true) | Err(_) => Process::There,
        Ok(false) if is_here => Process::Gone,
        Ok(false) => Process::Elsewhere,
    }
}

fn range(kind: i32, byte: Byte) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: byte.offset(),
        l_len: 1,
        l_pid: 0,
    }
}

/// The words mixed into one (FNV-1a); equal words give equal numbers, and others hardly ever.
fn identity(words: [u64; 3]) -> u64 {
    let bytes = words.into_iter().flat_map(u64::to_le_bytes);
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.fold(0xcbf2_9ce4_8422_2325, mix).max(1)
}

#[cfg(test)]
mod tests {
    use landfall_layout::pool::Coherence;

    use super::*;
    use crate::pool::Shape;

    #[test]
    fn no_byte_stands_for_two_things() {
        let leaders = (0..LEADERS_MAX).map(Byte::Leader);
        let all = std::iter::once(Byte::Ballot).chain(leaders);
        let mut offsets: Vec<i64> =
            all.chain(BrokerId::all().map(Byte::Broker)).map(Byte::offset).collect();
        let count = offsets.len();
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), count);
    }

    #[test]
    fn writers_are_seen_for_as_long_as_their_descriptor_is_open_anywhere() {
        let file = crate::map::memfd("writers", 0).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let shape = Shape {
            pool_bytes: 64 << 20,
            segment_bytes: 2 << 20,
            sessions: 64,
            coherence: Coherence::Coherent,
            uuid: [1; 16],
            now_ns: 1,
            sparse: true,
        };
        let pool = Pool::create_or_attach(path.as_ref(), shape).unwrap();
        let locks = Locks::open(&pool).unwrap();
        let [zero, one] = [0, 1].map(|number| BrokerId::new(number).unwrap());
        let lent = lend_to_writer(&pool, one, 0x7_0000_0005).unwrap();
        let again = lend_to_writer(&pool, one, 0x7_0000_0005).unwrap();
        assert!(locks.has_writers(one, None) && !locks.has_writers(zero, None));
        assert!(!locks.has_writers(one, Some(0x7_0000_0005)));
        assert!(locks.has_writers(one, Some(0x7_0000_0006)));
        let handed = lent.try_clone().unwrap();
        drop((lent, again));
        assert!(locks.has_writers(one, None), "another process has it still");
        drop(handed);
        assert!(!locks.has_writers(one, None));
    }

    #[test]
    fn not_being_able_to_find_out_is_no_death() {
        let error = || Err(io::Error::from_raw_os_error(libc::EMFILE));
        assert_eq!(judge(error(), true), Process::There);
        assert_eq!(judge(error(), false), Process::There);
    }

    #[test]
    fn only_a_free_lock_on_the_same_inode_of_this_host_is_a_death() {
        assert_eq!(judge(Ok(true), true), Process::There);
        assert_eq!(judge(Ok(true), false), Process::There);
        assert_eq!(judge(Ok(false), true), Process::Gone);
        assert_eq!(judge(Ok(false), false), Process::Elsewhere);
    }

    #[test]
    fn other_inodes_have_other_numbers() {
        assert_ne!(identity([1, 2, 0]), identity([2, 1, 0]));
        assert_ne!(identity([0, 0, 0]), 0);
    }
}
