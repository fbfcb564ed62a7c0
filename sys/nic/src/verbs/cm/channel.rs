//! An event channel of rdma_cm that never blocks.

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rdma_sys::Libraries;
use rdma_sys::types::{
    RDMA_CM_EVENT_ADDR_ERROR, RDMA_CM_EVENT_ADDR_RESOLVED, RDMA_CM_EVENT_CONNECT_ERROR,
    RDMA_CM_EVENT_CONNECT_REQUEST, RDMA_CM_EVENT_CONNECT_RESPONSE, RDMA_CM_EVENT_DEVICE_REMOVAL,
    RDMA_CM_EVENT_DISCONNECTED, RDMA_CM_EVENT_ESTABLISHED, RDMA_CM_EVENT_REJECTED,
    RDMA_CM_EVENT_ROUTE_ERROR, RDMA_CM_EVENT_ROUTE_RESOLVED, RDMA_CM_EVENT_UNREACHABLE,
    rdma_cm_event, rdma_cm_event_type, rdma_cm_id, rdma_event_channel,
};

use crate::verbs::device::loaded;
use crate::verbs::error::NicError;
use crate::verbs::queue::never_block;

/// What happened to an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    AddressResolved,
    RouteResolved,
    Requested,
    Answered,
    Established,
    Rejected,
    Disconnected,
    DeviceRemoved,
    /// Any of the errors.
    Failed,
    /// Nothing that anybody here acts on.
    Other,
}

impl Kind {
    fn of(event: rdma_cm_event_type) -> Self {
        match event {
            RDMA_CM_EVENT_ADDR_RESOLVED => Self::AddressResolved,
            RDMA_CM_EVENT_ROUTE_RESOLVED => Self::RouteResolved,
            RDMA_CM_EVENT_CONNECT_REQUEST => Self::Requested,
            RDMA_CM_EVENT_CONNECT_RESPONSE => Self::Answered,
            RDMA_CM_EVENT_ESTABLISHED => Self::Established,
            RDMA_CM_EVENT_REJECTED => Self::Rejected,
            RDMA_CM_EVENT_DISCONNECTED => Self::Disconnected,
            RDMA_CM_EVENT_DEVICE_REMOVAL => Self::DeviceRemoved,
            RDMA_CM_EVENT_ADDR_ERROR
            | RDMA_CM_EVENT_ROUTE_ERROR
            | RDMA_CM_EVENT_CONNECT_ERROR
            | RDMA_CM_EVENT_UNREACHABLE => Self::Failed,
            _ => Self::Other,
        }
    }
}

/// An event, copied: the library's own was acknowledged.
pub(super) struct Taken {
    pub(super) kind: Kind,
    /// The number of `enum rdma_cm_event_type`.
    pub(super) number: rdma_cm_event_type,
    /// What the library says about it: an error is negative, a reason of a rejection positive.
    pub(super) status: i32,
    /// The new id of a request. For anything else it is only a name, for its owner may have
    /// destroyed it by now.
    pub(super) id: *mut rdma_cm_id,
    /// What the id's owner wrote into it.
    pub(super) context: usize,
    /// READs that the other side offers to answer and to issue, seen from here.
    pub(super) answered: u8,
    pub(super) issued: u8,
    pub(super) private: Vec<u8>,
}

/// An event channel, open until the last id on it is gone.
pub(super) struct Channel {
    libraries: &'static Libraries,
    raw: NonNull<rdma_event_channel>,
}

// SAFETY: rdma_cm may be called from any thread at once, and hands out each event once.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl Channel {
    pub(super) fn new() -> Result<Self, NicError> {
        let libraries = loaded()?;
        // SAFETY: no arguments.
        let raw = unsafe { libraries.cm.rdma_create_event_channel() };
        let Some(raw) = NonNull::new(raw) else {
            return Err(NicError::last(
                "rdma_create_event_channel",
                "/dev/infiniband/rdma_cm (modprobe rdma_ucm makes it)",
            ));
        };
        let channel = Self { libraries, raw };
        never_block(&channel)
            .map_err(|error| NicError::new("fcntl", "an rdma_cm event channel", error))?;
        Ok(channel)
    }

    pub(super) fn libraries(&self) -> &'static Libraries {
        self.libraries
    }

    pub(super) fn raw(&self) -> *mut rdma_event_channel {
        self.raw.as_ptr()
    }

    /// The next event, if there is one. Never blocks.
    pub(super) fn take(&self) -> Result<Option<Taken>, NicError> {
        let cm = &self.libraries.cm;
        let mut event: *mut rdma_cm_event = ptr::null_mut();
        // SAFETY: the channel is open and `event` may be written.
        if unsafe { cm.rdma_get_cm_event(self.raw(), &mut event) } != 0 {
            let error = NicError::last("rdma_get_cm_event", "an rdma_cm event channel");
            return match error.source.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: the event is ours until it is acknowledged, and until then its id is live. Its
        // private data is as long as it says.
        let taken = unsafe { copy(&*event) };
        // SAFETY: acknowledged once, and not touched afterwards.
        unsafe { cm.rdma_ack_cm_event(event) };
        Ok(Some(taken))
    }

    /// The next event, waited for.
    pub(super) fn wait(&self, deadline: Instant) -> Result<Taken, NicError> {
        loop {
            if let Some(taken) = self.take()? {
                return Ok(taken);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time");
                return Err(NicError::new("rdma_get_cm_event", "an rdma_cm event channel", late));
            }
            // Rounded up, so that the last part of a millisecond is not spent spinning.
            let wait = left.as_millis().saturating_add(1).min(1000) as u16;
            let mut ready = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::from(wait)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => {
                    let object = "an rdma_cm event channel";
                    return Err(NicError::new("poll", object, error.into()));
                }
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel is open until this is dropped.
        unsafe { BorrowedFd::borrow_raw(self.raw.as_ref().fd) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: every id of the channel held it and is gone; it is destroyed once.
        unsafe { self.libraries.cm.rdma_destroy_event_channel(self.raw()) };
    }
}

/// Copies an event.
///
/// # Safety
/// The event was not acknowledged, so its id is live and its private data can be read.
unsafe fn copy(event: &rdma_cm_event) -> Taken {
    let kind = Kind::of(event.event);
    // SAFETY: the member for connected ids; all ids here are of RDMA_PS_TCP.
    let conn = unsafe { event.param.conn };
    let carries =
        matches!(kind, Kind::Requested | Kind::Answered | Kind::Established | Kind::Rejected);
    let private = if carries && !conn.private_data.is_null() {
        let bytes = usize::from(conn.private_data_len);
        // SAFETY: the library holds as many bytes until the event is acknowledged.
        unsafe { std::slice::from_raw_parts(conn.private_data.cast::<u8>(), bytes) }.to_vec()
    } else {
        Vec::new()
    };
    Taken {
        kind,
        number: event.event,
        status: event.status,
        id: event.id,
        // SAFETY: the caller vouches for the id.
        context: unsafe { (*event.id).context } as usize,
        answered: conn.responder_resources,
        issued: conn.initiator_depth,
        private,
    }
}
