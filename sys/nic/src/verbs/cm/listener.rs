//! The side that is called.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::sync::Arc;

use rdma_sys::types::RDMA_PS_TCP;

use super::channel::{Channel, Kind, Taken};
use super::{
    ACCEPT_PRIVATE_BYTES, Connection, Id, PeerId, REJECT_PRIVATE_BYTES, Said, check_private,
};
use crate::verbs::address::Raw;
use crate::verbs::devices::{addresses, devices};
use crate::verbs::error::NicError;
use crate::verbs::memory::Domain;
use crate::verbs::queue::{Depths, Queue, Reads};

/// An address where connections are taken. Its event channel is its own and never blocks.
pub struct Listener {
    id: Id,
    address: SocketAddr,
}

/// What happened at a listener.
pub enum Event {
    /// Somebody wants to connect.
    Request(Request),
    /// The other side of an accepted connection has heard of it.
    Established(PeerId),
    /// A connection ended, or a request was taken back before it was answered.
    Ended(PeerId, Ending),
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The other side closed it, or its process ended.
    Disconnected,
    /// It could not be made; the number is what rdma_cm says.
    Failed(i32),
    /// The device was taken away.
    DeviceRemoved,
}

impl Listener {
    /// Listens at an address that an RDMA device has. Port 0 takes a free one.
    pub fn bind(address: SocketAddr, backlog: i32) -> Result<Self, NicError> {
        let channel = Arc::new(Channel::new()?);
        if address.ip().is_unspecified() {
            // Binding it says nothing about devices: it would work without any.
            devices()?;
        }
        let id = Id::new(&channel)?;
        let cm = &channel.libraries().cm;
        let mut raw = Raw::from(address);
        // SAFETY: the id is live and the address is whole.
        if unsafe { cm.rdma_bind_addr(id.raw, raw.as_mut_ptr()) } != 0 {
            return Err(not_here(address, NicError::last("rdma_bind_addr", address.to_string())));
        }
        // SAFETY: the id is live and bound.
        if unsafe { cm.rdma_listen(id.raw, backlog) } != 0 {
            return Err(not_here(address, NicError::last("rdma_listen", address.to_string())));
        }
        let address = id.local();
        Ok(Self { id, address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next event, if there is one. Never blocks.
    #[allow(clippy::should_implement_trait, reason = "no iterator: None is not the end")]
    pub fn next(&mut self) -> Result<Option<Event>, NicError> {
        while let Some(taken) = self.id.channel.take()? {
            if let Some(event) = self.event(taken)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn event(&mut self, taken: Taken) -> Result<Option<Event>, NicError> {
        if taken.kind == Kind::Requested {
            let id = Id::of(taken.id, Arc::clone(&self.id.channel));
            return Ok(Some(Event::Request(Request::new(id, taken))));
        }
        if taken.context == 0 {
            if taken.kind == Kind::DeviceRemoved {
                let object = format!("listening at {}", self.address);
                return Err(NicError::number("rdma_listen", object, nix::libc::ENODEV));
            }
            return Ok(None);
        }
        let peer = PeerId(taken.context as u64);
        Ok(match taken.kind {
            Kind::Established => Some(Event::Established(peer)),
            Kind::Disconnected => Some(Event::Ended(peer, Ending::Disconnected)),
            Kind::DeviceRemoved => Some(Event::Ended(peer, Ending::DeviceRemoved)),
            Kind::Failed | Kind::Rejected => Some(Event::Ended(peer, Ending::Failed(taken.status))),
            _ => None,
        })
    }
}

/// Readable when there are events.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.id.channel.as_fd()
    }
}

impl Id {
    /// A new id for a reliable connection.
    pub(super) fn new(channel: &Arc<Channel>) -> Result<Self, NicError> {
        let mut raw = ptr::null_mut();
        let cm = &channel.libraries().cm;
        // SAFETY: the channel is open and `raw` may be written.
        let result =
            unsafe { cm.rdma_create_id(channel.raw(), &mut raw, ptr::null_mut(), RDMA_PS_TCP) };
        if result != 0 {
            return Err(NicError::last("rdma_create_id", "a connection"));
        }
        Ok(Self::of(raw, Arc::clone(channel)))
    }
}

/// An error of binding, with the addresses that could be bound.
fn not_here(address: SocketAddr, error: NicError) -> NicError {
    let known = match addresses() {
        Ok(known) if known.is_empty() => "no RDMA device has an address".to_owned(),
        Ok(known) => {
            let known: Vec<_> =
                known.iter().map(|(ip, device)| format!("{ip} ({device})")).collect();
            format!("RDMA devices have {}", known.join(", "))
        }
        Err(reason) => reason.to_string(),
    };
    NicError { object: format!("{address} ({known})"), ..error }
}

/// Somebody who wants to connect. Dropped, it is rejected without a word.
pub struct Request {
    /// What came with it. The transport fills it up with zeros, to 56 bytes.
    pub private: Vec<u8>,
    /// Who it is.
    pub peer: SocketAddr,
    peer_id: PeerId,
    device: String,
    offered: Reads,
    /// `None` once it was answered.
    id: Option<Id>,
}

const UNANSWERED: &str = "a request holds its id until it is answered, which takes the request";

impl Request {
    fn new(id: Id, taken: Taken) -> Self {
        let peer_id = PeerId::fresh();
        // SAFETY: the id is live and not yet known to anybody else. A new id begins with the
        // listener's word, which is 0, so events before this are nobody's.
        unsafe { (*id.raw).context = peer_id.0 as *mut _ };
        Self {
            private: taken.private,
            peer: id.peer(),
            peer_id,
            device: id.device_name(),
            offered: Reads { answered: taken.answered, issued: taken.issued },
            id: Some(id),
        }
    }

    fn live(&self) -> &Id {
        self.id.as_ref().expect(UNANSWERED)
    }

    /// The device that it came in through.
    pub fn device_name(&self) -> &str {
        &self.device
    }

    /// Bytes of the active MTU of the port that it came in through; 256, the least there is, if
    /// the port cannot be asked.
    pub fn port_mtu(&self) -> u32 {
        self.live().port_mtu().unwrap_or(256)
    }

    /// What events call it.
    pub fn id(&self) -> PeerId {
        self.peer_id
    }

    /// A new domain on its device.
    pub fn domain(&self) -> Result<Domain, NicError> {
        Domain::on(&self.device)
    }

    /// Takes it. This may come long after the request did: the other side waits.
    ///
    /// `mtu_most` is the other side's MTU; the queue takes the lesser one. `before` is called when
    /// receives can be posted and nothing can come in yet.
    pub fn accept(
        self,
        domain: &Domain,
        depths: Depths<'_>,
        mtu_most: u32,
        private: &[u8],
        before: impl FnOnce(&mut Queue) -> Result<(), NicError>,
    ) -> Result<Queue, NicError> {
        self.check_answer(private.len())?;
        self.take(domain, depths, mtu_most, before, |_| Ok(private.to_vec()))
    }

    /// Takes it like [`accept`](Self::accept), with private data that is made on the queue itself:
    /// `prepare` is called when the queue can already bind windows and nothing can come in yet, so
    /// that what it returns may hold their keys.
    pub fn accept_with(
        self,
        domain: &Domain,
        depths: Depths<'_>,
        mtu_most: u32,
        prepare: impl FnOnce(&mut Queue) -> Result<Vec<u8>, NicError>,
    ) -> Result<Queue, NicError> {
        self.take(domain, depths, mtu_most, |_| Ok(()), prepare)
    }

    fn take(
        mut self,
        domain: &Domain,
        depths: Depths<'_>,
        mtu_most: u32,
        before: impl FnOnce(&mut Queue) -> Result<(), NicError>,
        prepare: impl FnOnce(&mut Queue) -> Result<Vec<u8>, NicError>,
    ) -> Result<Queue, NicError> {
        let id = self.live();
        id.check_domain(domain, "rdma_accept")?;
        let own = id.reads(domain, depths.reads)?;
        let reads = Reads {
            answered: own.answered.min(self.offered.answered),
            issued: own.issued.min(self.offered.issued),
        };
        let shares = depths.shared_receive.is_some();
        let id = self.id.take().expect(UNANSWERED);
        // From here on the queue owns the id. Dropped on an error, it destroys the id, and the
        // kernel rejects what was not answered.
        let mut queue = Queue::new(domain, depths, Connection::new(id, self.peer_id, false))?;
        before(&mut queue)?;
        queue.enter_ready(mtu_most, Some(reads))?;
        let private = prepare(&mut queue)?;
        self.check_answer(private.len())?;
        let said = Said { private: &private, reads, pair: queue.number(), shares };
        queue.connection().accept(&said)?;
        Ok(queue)
    }

    fn check_answer(&self, bytes: usize) -> Result<(), NicError> {
        let object = || format!("the request of {}", self.peer);
        check_private("rdma_accept", object, bytes, ACCEPT_PRIVATE_BYTES)
    }

    /// Turns it away, with a reason for the other side to read.
    pub fn reject(mut self, private: &[u8]) -> Result<(), NicError> {
        let object = || format!("the request of {}", self.peer);
        check_private("rdma_reject", object, private.len(), REJECT_PRIVATE_BYTES)?;
        let id = self.id.take().expect(UNANSWERED);
        reject(&id, private).map_err(|error| NicError::new("rdma_reject", object(), error))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            // The other side may have given up; then there is nobody to reject.
            let _ = reject(&id, &[]);
        }
    }
}

fn reject(id: &Id, private: &[u8]) -> std::io::Result<()> {
    let cm = &id.channel.libraries().cm;
    // SAFETY: the id is live and the private data outlives the call.
    let result = unsafe { cm.rdma_reject(id.raw, private.as_ptr().cast(), private.len() as u8) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
