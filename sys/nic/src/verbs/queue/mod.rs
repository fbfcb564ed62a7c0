//! One reliable connected queue pair, with a completion queue and a completion channel of its own.
//!
//! [`post`](Queue::write) and [`poll`](Queue::poll) are the fast path: they allocate nothing and
//! call the device through one pointer. Everything else is set-up.
//!
//! A queue owns its windows. A device may count a bound window as a user of the queue pair that it
//! was bound by (soft-RoCE does, and waits minutes for it), so [`Queue`] frees its windows, then
//! the queue pair, then what the queue pair used. For the same reason windows are only made on a
//! queue that exists: when a process dies, the kernel frees what was made last first.

mod poll;
mod post;
mod setup;
mod window;

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::types::{
    IBV_WC_REM_ACCESS_ERR, IBV_WC_RETRY_EXC_ERR, IBV_WC_WR_FLUSH_ERR, ibv_comp_channel, ibv_cq,
    ibv_qp,
};

use crate::verbs::cm::{Connection, PeerId};
use crate::verbs::error::NicError;
use crate::verbs::memory::{Domain, Region, RegionInner};
use crate::verbs::shared_receive::Srq;

pub(crate) use post::{EMPTY_RECEIVE, link};
pub(crate) use setup::{NOT_READY_RETRIES, Reads, device_writes_in_order, never_block};
use window::MemoryWindow;
pub use window::Window;

/// How deep a queue is and what it can do.
#[derive(Clone, Copy)]
pub struct Depths<'a> {
    /// Work requests that may be on their way out.
    pub send: u32,
    /// Receives that may wait. Without meaning for a queue that shares them.
    pub receive: u32,
    /// Bytes that a work request should be able to carry in itself; the device may grant fewer,
    /// which [`Queue::inline_bytes`] tells.
    pub inline: u32,
    /// READs that this side has under way at most, and answers at once. The device's own bounds
    /// and the other side's hold as well.
    pub reads: u8,
    /// Take receives from here.
    pub shared_receive: Option<&'a Srq>,
}

/// A piece of this side's memory.
#[derive(Clone, Copy)]
pub struct Local<'a> {
    /// The region it lies in.
    pub region: &'a Region,
    /// Where it begins, in the mapping or slab that the region is of.
    pub at: u64,
    /// How long it is.
    pub bytes: u32,
}

/// A place in the other side's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remote {
    /// Where, in the mapping or slab that the other side's region is of.
    pub at: u64,
    /// The key of a region or of a window.
    pub key: u32,
}

/// How a work request is posted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct How {
    /// Comes back in the completion.
    pub id: u64,
    /// Ask for a completion. Without one its slot in the send queue becomes free with that of the
    /// next one that asked, so the last of a burst has to ask. A failure always makes one.
    pub signalled: bool,
    /// Copy the bytes into the work request: the memory may change as soon as the call returns.
    /// They have to fit into [`Queue::inline_bytes`].
    pub inline: bool,
    /// Begin only when the READs before it are done.
    pub fence: bool,
}

/// What a window lets the other side do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    /// Read.
    pub read: bool,
    /// Write.
    pub write: bool,
}

/// The queue has no room, or it failed or was stopped ([`Queue::is_over`]): poll, then try again
/// if it was not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the queue takes no more work requests until completions are polled")
    }
}

impl std::error::Error for Full {}

/// The end of a work request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// As it was given to [`How::id`]; 0 for receives.
    pub id: u64,
    /// What was completed.
    pub what: What,
    /// Why it failed, if it did. From then on everything on the queue fails.
    pub failure: Option<Failure>,
}

impl Completion {
    /// A value to fill an array with before it is handed to [`Queue::poll`].
    pub const EMPTY: Self = Self { id: 0, what: What::Unknown, failure: None };
}

/// What was completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// [`Queue::write`].
    Write,
    /// [`Queue::read`].
    Read,
    /// [`Queue::bind`].
    Bind,
    /// [`Queue::invalidate`].
    Invalidate,
    /// The other side's write took a receive.
    Received {
        /// The number that came with it.
        immediate: Option<u32>,
        /// Bytes that it wrote.
        bytes: u32,
    },
    /// The device named no work request of this queue.
    Unknown,
}

/// Why a work request failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The number of `enum ibv_wc_status`.
    pub status: u32,
    /// The vendor's own number.
    pub vendor: u32,
}

impl Failure {
    /// It was not tried, because something before it failed or the queue was stopped.
    pub fn is_flush(&self) -> bool {
        self.status == IBV_WC_WR_FLUSH_ERR
    }

    /// The other side's NIC refused the key, the range or the kind of access.
    pub fn is_remote_access(&self) -> bool {
        self.status == IBV_WC_REM_ACCESS_ERR
    }

    /// The other side did not answer for as long as [`RETRY_TIME`] says.
    pub fn is_retry_exceeded(&self) -> bool {
        self.status == IBV_WC_RETRY_EXC_ERR
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = STATUS_TEXT.get(self.status as usize).unwrap_or(&"unknown error");
        write!(f, "{what} (status {}, vendor {:#x})", self.status, self.vendor)
    }
}

impl std::error::Error for Failure {}

/// The words for `enum ibv_wc_status`, by number.
const STATUS_TEXT: [&str; 24] = [
    "success",
    "local length error",
    "local queue pair error",
    "local end-to-end context error",
    "local protection error",
    "work request flushed",
    "window bind error",
    "bad response",
    "local access error",
    "remote invalid request",
    "remote access error",
    "remote operation error",
    "transport retries exceeded",
    "receiver-not-ready retries exceeded",
    "local domain violation",
    "remote invalid domain request",
    "remote aborted",
    "invalid end-to-end context",
    "invalid end-to-end context state",
    "fatal error",
    "response timeout",
    "general error",
    "tag matching error",
    "tag matching rendezvous incomplete",
];

/// The exponent of the time that a queue pair waits for an answer: 4.096 us times two to it.
pub const ANSWER_TIMEOUT_EXPONENT: u8 = 16;
/// How often it tries again before it gives up. One less than there could be: soft-RoCE takes 7
/// for "for ever".
pub const RETRIES: u8 = 6;
/// How long a dead peer goes unnoticed by the queue pair, at least and at most: 1.8 s and 7.6 s.
/// The standard lets a device wait up to four times what it was told.
pub const RETRY_TIME: (std::time::Duration, std::time::Duration) = {
    let once_ns = 4096 << ANSWER_TIMEOUT_EXPONENT;
    let all_ns = once_ns * (RETRIES as u64 + 1);
    (std::time::Duration::from_nanos(all_ns), std::time::Duration::from_nanos(4 * all_ns))
};

/// What was posted at a position of the send queue.
struct Posted {
    id: u64,
    what: What,
    /// Given up by this work request, and freed when its place is used again: by then it has
    /// completed.
    keeps: Option<Kept>,
}

/// What a device may look at until a work request has completed.
#[allow(dead_code, reason = "held to be dropped in time, never read")]
enum Kept {
    Region(Arc<RegionInner>),
    Window(MemoryWindow),
}

/// A connected queue pair.
///
/// Dropping it stops it, frees its windows and then the queue pair; what was posted and has not
/// completed is lost.
pub struct Queue {
    pair: NonNull<ibv_qp>,
    completions: NonNull<ibv_cq>,
    channel: NonNull<ibv_comp_channel>,
    windows: Vec<window::Slot>,
    /// By position modulo its length, a power of two that is no less than `depth`.
    posted: Box<[Posted]>,
    /// Work requests that may be on their way out.
    depth: u32,
    /// Work requests posted so far. The position of the next one.
    next: u64,
    /// Work requests known to have completed: all of those before this position.
    done: u64,
    receives: u32,
    receives_most: u32,
    inline_bytes: u32,
    mtu: u32,
    port_mtu: u32,
    in_order: bool,
    stopped: bool,
    failed: bool,
    trouble: Option<NicError>,
    shared_receive: Option<Srq>,
    connection: Connection,
    domain: Domain,
}

// SAFETY: verbs may be called from any thread; the queue is one thread's at a time by `&mut`.
unsafe impl Send for Queue {}

impl Queue {
    /// The place of a position. Positions on their way out differ by less than the depth, so no
    /// two of them have the same place.
    #[inline]
    fn place(&self, position: u64) -> usize {
        (position & (self.posted.len() as u64 - 1)) as usize
    }

    /// Work requests that can be posted now.
    pub fn send_room(&self) -> u32 {
        if self.is_over() {
            return 0;
        }
        self.depth - (self.next - self.done) as u32
    }

    /// Whether it failed or was stopped: nothing will be posted any more.
    pub fn is_over(&self) -> bool {
        self.failed || self.stopped
    }

    /// Why the last [`bind`](Self::bind) was not posted, if it was not for want of room.
    pub fn take_trouble(&mut self) -> Option<NicError> {
        self.trouble.take()
    }

    /// Bytes that a work request can carry in itself.
    pub fn inline_bytes(&self) -> u32 {
        self.inline_bytes
    }

    /// Bytes of payload in a packet, once it is connected.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The other side's address.
    pub fn peer(&self) -> SocketAddr {
        self.connection.peer_address()
    }

    /// What events of a listener call it.
    pub fn id(&self) -> PeerId {
        self.connection.peer_id()
    }

    /// Whether the device promises that the bytes of a WRITE become visible in their order.
    pub fn data_in_order(&self) -> bool {
        self.in_order
    }

    /// The domain it belongs to.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The number of the queue pair on its device, as the device's own tools show it.
    pub fn number(&self) -> u32 {
        // SAFETY: the queue pair is live, and its number does not change.
        unsafe { self.pair.as_ref().qp_num }
    }

    /// Whether the connection ended: the other side closed it or died, or the device went away.
    ///
    /// A client's answer; a listener's connections end by an event of the listener. Never blocks.
    pub fn ended(&mut self) -> bool {
        self.stopped || self.connection.ended()
    }
}

/// The completion channel: readable when an armed queue has completions.
impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel is open until the queue is dropped.
        unsafe { BorrowedFd::borrow_raw(self.channel.as_ref().fd) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_its_status_in_words_and_numbers() {
        let failure = Failure { status: IBV_WC_REM_ACCESS_ERR, vendor: 0x88 };
        assert_eq!(failure.to_string(), "remote access error (status 10, vendor 0x88)");
        assert!(failure.is_remote_access() && !failure.is_flush());
        let failure = Failure { status: 99, vendor: 0 };
        assert_eq!(failure.to_string(), "unknown error (status 99, vendor 0x0)");
    }

    #[test]
    fn the_retry_time_is_what_its_documentation_says() {
        assert_eq!((RETRY_TIME.0.as_millis(), RETRY_TIME.1.as_millis()), (1879, 7516));
    }
}
