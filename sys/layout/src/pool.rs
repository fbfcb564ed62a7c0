//! The head of the pool: its header, and the lines of control and of each broker.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First word of a pool, stored last by its creator: "LANDFALL" read as little-endian bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"LANDFALL");
/// Version of the whole format, pool and wire. Any change of a layout changes it.
pub const VERSION: u32 = 7;

/// Whether hosts that map the pool see each other's stores without being told to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coherence {
    /// One host, or hardware that keeps hosts coherent: nothing is ever flushed.
    Coherent,
    /// Lines are written back before they are published and invalidated before they are read.
    Flush,
}

impl Coherence {
    /// The mode as the header carries it.
    pub fn raw(self) -> u32 {
        match self {
            Self::Coherent => 0,
            Self::Flush => 1,
        }
    }

    /// The mode that a header says.
    pub fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            0 => Some(Self::Coherent),
            1 => Some(Self::Flush),
            _ => None,
        }
    }
}

/// The pool's first line. Writer: its creator, once. Readers: everyone who attaches.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PoolHeader {
    /// [`MAGIC`], stored last: zero means that the creator has not finished.
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// A [`Coherence`].
    pub coherence: u32,
    /// Random; names the pool in doorbells and messages.
    pub uuid: [u8; 16],
    /// Bytes of the whole pool.
    pub pool_bytes: u64,
    /// Bytes of a segment, a power of two.
    pub segment_bytes: u64,
    /// Session lines.
    pub sessions: u32,
    /// Segments.
    pub segments: u32,
    /// Wall clock at creation, nanoseconds since 1970.
    pub created_ns: u64,
}

lines!(PoolHeader, 1, {
    magic @ 0, version @ 8, coherence @ 12, uuid @ 16, pool_bytes @ 32, segment_bytes @ 40,
    sessions @ 48, segments @ 52, created_ns @ 56,
});

/// One leader. Writer: the control that has this leader slot. Readers: everyone.
///
/// Who leads is the line with the highest epoch among those that serve. A control writes a higher
/// epoch before it reads what the leader before it has done, and serves only when its own tables
/// are whole; a leader that finds a higher epoch than its own does nothing more.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LeaderLine {
    /// [`Term`], packed.
    pub term: u64,
    /// Process id of the leader, on its host.
    pub pid: u64,
    /// Which host, as `landfall_pool::host` names it.
    pub host: u64,
    /// Wall clock when this epoch began, nanoseconds.
    pub started_ns: u64,
    /// The inode on which it holds its lock, as `landfall_pool::lock` names it.
    pub locked: u64,
    /// Directories of topics that say where logs ended, because this leader stopped the pool in
    /// good order: the next one has to take that back before it serves. 0: none do.
    pub ended: u64,
    /// [`http_address`](Self::http_address), packed: 48 bits, behind a number that says what it is,
    /// 1 for IPv4 and 2 for the port of IPv6's loopback. 0: none.
    pub http: u64,
    /// Not 0 while a broker waits for a segment that there is none for: then every broker takes
    /// back what nobody uses.
    pub short: u64,
}

lines!(LeaderLine, 1, {
    term @ 0, pid @ 8, host @ 16, started_ns @ 24, locked @ 32, ended @ 40, http @ 48,
    short @ 56,
});

impl LeaderLine {
    /// Offset of `ended` in the line.
    pub const ENDED_AT: u64 = 40;
    /// Offset of `short` in the line.
    pub const SHORT_AT: u64 = 56;

    /// Where its HTTP API listens, for `http`. An address of IPv6 does not fit, and is 0, but for
    /// the loopback and for `[::]`, which listens on every address of IPv4 too.
    pub fn pack_http(address: SocketAddr) -> u64 {
        let port = u64::from(address.port());
        let of_v4 = |ip: Ipv4Addr| 1 << 48 | u64::from(u32::from(ip)) << 16 | port;
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => of_v4(ip),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => of_v4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::LOCALHOST) => 2 << 48 | port,
            IpAddr::V6(_) => 0,
        }
    }

    /// Where its HTTP API listens, if that is known. 0.0.0.0 stands for every address of its host.
    pub fn http_address(&self) -> Option<SocketAddr> {
        let ip = match self.http >> 48 {
            1 => IpAddr::V4(Ipv4Addr::from((self.http >> 16) as u32)),
            2 => IpAddr::V6(Ipv6Addr::LOCALHOST),
            _ => return None,
        };
        Some(SocketAddr::new(ip, self.http as u16))
    }
}

/// An epoch, and whether its leader serves, in one word that checks itself.
///
/// The low half says both, the high half is a mixture of the low one that no two of them share. So
/// no damage within one half passes, a flipped bit or a byte least of all, and the word is stored
/// at once: there is no moment at which one that holds does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Term {
    /// The leader's generation, from 1; 0: nobody ever had this slot. At most 31 bits: a takeover a
    /// second for 68 years.
    pub epoch: u64,
    /// Its tables are whole: it leads unless a higher epoch serves.
    pub serves: bool,
}

impl Term {
    /// The highest epoch that there can be.
    pub const EPOCH_MAX: u64 = u32::MAX as u64 >> 1;

    /// The word as it lies in the line.
    pub fn pack(self) -> u64 {
        let low = (self.epoch << 1 | u64::from(self.serves)) as u32;
        u64::from(Self::check(low)) << 32 | u64::from(low)
    }

    /// What a word says; `None` when nobody can have stored it.
    #[inline]
    pub fn unpack(word: u64) -> Option<Self> {
        let low = word as u32;
        if (word >> 32) as u32 != Self::check(low) {
            // A line that nobody ever wrote.
            return (word == 0).then_some(Self::default());
        }
        Some(Self { epoch: u64::from(low >> 1), serves: low & 1 == 1 })
    }

    /// One to one, as a sum and a product with an odd number are.
    const fn check(low: u32) -> u32 {
        low.wrapping_add(0x5a5a_3c3c).wrapping_mul(0x9e37_79b1)
    }
}

/// A broker's status line. Writer: that broker. Reader: control.
///
/// `incarnation` is stored last at registration, so a reader that knows it has a whole line; the
/// heartbeat and the epoch then move by single words.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BrokerLine {
    /// Random for each process that takes this number; zero: never taken.
    pub incarnation: u64,
    /// Boot time of its host at the last beat, nanoseconds: another value is a beat, and nothing
    /// else follows from it.
    pub heartbeat_ns: u64,
    /// The epoch this broker has seen.
    pub epoch_seen: u64,
    /// A [`BrokerState`].
    pub state: u64,
    /// Process id on its host.
    pub pid: u64,
    /// Which host, as `landfall_pool::host` names it: pids of another host say nothing here.
    pub host: u64,
    /// 1: it keeps replicas on a disk. [`DISK_HANGS`]: that one hangs.
    pub disk: u64,
    /// The inode on which it holds its lock, as `landfall_pool::lock` names it.
    pub locked: u64,
}

lines!(BrokerLine, 1, {
    incarnation @ 0, heartbeat_ns @ 8, epoch_seen @ 16, state @ 24, pid @ 32, host @ 40,
    disk @ 48, locked @ 56,
});

/// What a broker's line says of its disk while something that it was asked does not end.
pub const DISK_HANGS: u64 = 2;

/// What a broker says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BrokerState {
    /// Never started on this pool, or stopped cleanly.
    Absent,
    /// Landing and delivering.
    Serving,
    /// Finishing what it has; takes no new connection.
    Leaving,
    /// It has landed its last batch, and copies on until its disk has what logs have.
    Landed,
}

impl BrokerState {
    /// The state as the line carries it.
    pub fn raw(self) -> u64 {
        self as u64
    }

    /// The state that a line says; anything unknown is absent.
    pub fn from_raw(raw: u64) -> Self {
        match raw {
            1 => Self::Serving,
            2 => Self::Leaving,
            3 => Self::Landed,
            _ => Self::Absent,
        }
    }
}

/// Where a broker listens. Writer: that broker, before it registers. Reader: control.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BrokerAddress {
    /// Bytes of the TCP address at the start of `text`.
    pub tcp_bytes: u16,
    /// Bytes of the Unix socket's path right after it.
    pub unix_bytes: u16,
    /// Bytes of the verbs address right after that; none: no RDMA there.
    pub verbs_bytes: u16,
    /// All three, one after the other.
    pub text: [u8; Self::TEXT_BYTES],
}

lines!(BrokerAddress, 3, { tcp_bytes @ 0, unix_bytes @ 2, verbs_bytes @ 4, text @ 6 });

impl BrokerAddress {
    /// Bytes that the addresses may have together.
    pub const TEXT_BYTES: usize = 186;

    /// The addresses in one line set, `verbs` empty where there is none; `None` when they are
    /// longer than [`Self::TEXT_BYTES`] together.
    pub fn new(tcp: &str, unix: &str, verbs: &str) -> Option<Self> {
        let mut text = [0; Self::TEXT_BYTES];
        let mut at = 0;
        for part in [tcp, unix, verbs] {
            text.get_mut(at..at + part.len())?.copy_from_slice(part.as_bytes());
            at += part.len();
        }
        Some(Self {
            tcp_bytes: tcp.len() as u16,
            unix_bytes: unix.len() as u16,
            verbs_bytes: verbs.len() as u16,
            text,
        })
    }

    fn part(&self, start: usize, bytes: u16) -> &str {
        self.text
            .get(start..start + usize::from(bytes))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or("")
    }

    /// The TCP address; empty when the line says nothing readable.
    pub fn tcp(&self) -> &str {
        self.part(0, self.tcp_bytes)
    }

    /// The Unix socket's path; empty when the line says nothing readable.
    pub fn unix(&self) -> &str {
        self.part(self.tcp_bytes.into(), self.unix_bytes)
    }

    /// The verbs address; empty when there is none, or the line says nothing readable.
    pub fn verbs(&self) -> &str {
        self.part(usize::from(self.tcp_bytes) + usize::from(self.unix_bytes), self.verbs_bytes)
    }
}

/// What a mapping holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attach {
    /// All zero: its creator has not finished, or never began.
    NotYet,
    /// Something else lives there.
    Foreign {
        /// The first word found.
        magic: u64,
    },
    /// A pool of another version of the format.
    Other {
        /// Version found.
        theirs: u32,
        /// Version of this program.
        ours: u32,
    },
    /// A pool, but the mapping is shorter than the header says.
    Short {
        /// Bytes the header says.
        need: u64,
        /// Bytes mapped.
        have: u64,
    },
    /// A pool of ours.
    Ready,
}

/// Judges a header that was loaded once from a mapping of `mapped_bytes`.
pub fn inspect(header: &PoolHeader, mapped_bytes: u64) -> Attach {
    match (header.magic, header.version) {
        (0, _) => Attach::NotYet,
        (MAGIC, VERSION) if header.pool_bytes > mapped_bytes => {
            Attach::Short { need: header.pool_bytes, have: mapped_bytes }
        }
        (MAGIC, VERSION) => Attach::Ready,
        (MAGIC, theirs) => Attach::Other { theirs, ours: VERSION },
        (magic, _) => Attach::Foreign { magic },
    }
}
