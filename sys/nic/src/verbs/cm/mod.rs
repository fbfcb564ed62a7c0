//! Making connections, with private data both ways.
//!
//! Queue pairs are made with `ibv_create_qp` and moved here, not by rdma_cm: the MTU, the timeout
//! and the retries of both sides are then what this crate says, and a device is opened once for
//! all of its queues.

mod channel;
mod dialing;
mod listener;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rdma_sys::types::{ibv_qp_attr, ibv_qp_state, rdma_cm_id, rdma_conn_param};

use crate::verbs::address;
use crate::verbs::device::{self, mtu_bytes, name_of};
use crate::verbs::error::NicError;
use crate::verbs::memory::Domain;
use crate::verbs::queue::{NOT_READY_RETRIES, RETRIES, Reads};

use channel::{Channel, Kind};
pub use dialing::{Dialing, Refused};
pub use listener::{Ending, Event, Listener, Request};

/// Bytes of private data that come with a request, whatever was sent: zeros fill them up.
pub const REQUEST_PRIVATE_BYTES: usize = 56;
/// Bytes of private data that an acceptance carries at most.
pub const ACCEPT_PRIVATE_BYTES: usize = 196;
/// Bytes of private data that a rejection carries at most.
pub const REJECT_PRIVATE_BYTES: usize = 148;

/// A connection of this process. Numbers are not used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PeerId(u64);

impl PeerId {
    fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Only that no two are equal is needed of them.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.0)
    }
}

/// An rdma_cm id, destroyed when it is dropped.
///
/// Destroying waits until every event of the id was acknowledged; [`Channel::take`] does that
/// before it returns, so the wait is short whoever reads the channel.
struct Id {
    raw: *mut rdma_cm_id,
    channel: Arc<Channel>,
}

// SAFETY: rdma_cm may be called from any thread at once.
unsafe impl Send for Id {}

impl Id {
    /// Takes over an id that came with a request.
    fn of(raw: *mut rdma_cm_id, channel: Arc<Channel>) -> Self {
        Self { raw, channel }
    }

    fn device_name(&self) -> String {
        // SAFETY: the id is live, and so is the device it was resolved to.
        unsafe {
            let context = (*self.raw).verbs;
            if context.is_null() {
                return String::new();
            }
            name_of(&self.channel.libraries().verbs, (*context).device)
        }
    }

    fn port(&self) -> u8 {
        // SAFETY: the id is live.
        unsafe { (*self.raw).port_num }
    }

    /// Bytes of the active MTU of the port it goes through.
    fn port_mtu(&self) -> Result<u32, NicError> {
        let verbs = &self.channel.libraries().verbs;
        // SAFETY: the id is live and resolved, so its context is open.
        let port =
            unsafe { device::port(verbs, (*self.raw).verbs, &self.device_name(), self.port()) }?;
        Ok(mtu_bytes(port.active_mtu))
    }

    fn local(&self) -> SocketAddr {
        // SAFETY: the id is live and has room for an address of every kind.
        let read =
            unsafe { address::read((&raw const (*self.raw).route.addr.__bindgen_anon_1).cast()) };
        read.unwrap_or_else(address::unknown)
    }

    fn peer(&self) -> SocketAddr {
        // SAFETY: the id is live and has room for an address of every kind.
        let read =
            unsafe { address::read((&raw const (*self.raw).route.addr.__bindgen_anon_2).cast()) };
        read.unwrap_or_else(address::unknown)
    }

    /// READs that a connection through this device may have, of those asked for.
    fn reads(&self, domain: &Domain, asked: u8) -> Result<Reads, NicError> {
        let most = domain.device().attributes()?.orig_attr;
        let within = |bound: i32| asked.min(u8::try_from(bound).unwrap_or(u8::MAX));
        Ok(Reads {
            answered: within(most.max_qp_rd_atom),
            issued: within(most.max_qp_init_rd_atom),
        })
    }

    /// Refuses a domain of another device: a queue pair lives on the device of its connection.
    fn check_domain(&self, domain: &Domain, call: &'static str) -> Result<(), NicError> {
        let name = self.device_name();
        if name == domain.device_name() {
            return Ok(());
        }
        let why = format!("the domain is of {}", domain.device_name());
        Err(NicError::refused(call, format!("a connection through {name}"), why))
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        // SAFETY: the id is live and destroyed once; its channel is still open.
        unsafe { self.channel.libraries().cm.rdma_destroy_id(self.raw) };
    }
}

/// A queue's side of rdma_cm.
pub(crate) struct Connection {
    /// `None` once the connection was ended from here.
    id: Option<Id>,
    peer_id: PeerId,
    peer: SocketAddr,
    port: u8,
    /// Whether the id's channel has no other reader: then this looks for the end itself.
    own_channel: bool,
    ended: bool,
}

impl Connection {
    fn new(id: Id, peer_id: PeerId, own_channel: bool) -> Self {
        let (peer, port) = (id.peer(), id.port());
        Self { id: Some(id), peer_id, peer, port, own_channel, ended: false }
    }

    pub(crate) fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    pub(crate) fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn port(&self) -> u8 {
        self.port
    }

    /// The id, if the connection was not ended from here.
    fn live(&self, call: &'static str) -> Result<&Id, NicError> {
        let gone = || NicError::number(call, self.peer.to_string(), nix::libc::ENOTCONN);
        self.id.as_ref().ok_or_else(gone)
    }

    /// What a queue pair has to be told to come to a state, as far as the connection knows it.
    pub(crate) fn pair_attributes(
        &self,
        state: ibv_qp_state,
    ) -> Result<(ibv_qp_attr, i32), NicError> {
        let id = self.live("rdma_init_qp_attr")?;
        // SAFETY: the structure holds integers and arrays of them, for which zeros are values.
        let mut attributes: ibv_qp_attr = unsafe { std::mem::zeroed() };
        attributes.qp_state = state;
        let mut mask = 0;
        let cm = &id.channel.libraries().cm;
        // SAFETY: the id is live, and both places may be written.
        if unsafe { cm.rdma_init_qp_attr(id.raw, &mut attributes, &mut mask) } != 0 {
            let object = format!("state {state} of the connection to {}", self.peer);
            return Err(NicError::last("rdma_init_qp_attr", object));
        }
        Ok((attributes, mask))
    }

    /// Asks for the connection.
    fn connect(&self, said: &Said<'_>) -> Result<(), NicError> {
        let id = self.live("rdma_connect")?;
        let mut parameters = said.parameters();
        let cm = &id.channel.libraries().cm;
        // SAFETY: the id is live, and `said` holds the private data until the call returns.
        let result = unsafe { cm.rdma_connect(id.raw, &mut parameters) };
        self.check(result, "rdma_connect")
    }

    /// Says that this side is ready, after the answer.
    fn establish(&self) -> Result<(), NicError> {
        let id = self.live("rdma_establish")?;
        // SAFETY: the id is live and was answered.
        let result = unsafe { id.channel.libraries().cm.rdma_establish(id.raw) };
        self.check(result, "rdma_establish")
    }

    /// Answers the request.
    fn accept(&self, said: &Said<'_>) -> Result<(), NicError> {
        let id = self.live("rdma_accept")?;
        let mut parameters = said.parameters();
        let cm = &id.channel.libraries().cm;
        // SAFETY: the id is live, and `said` holds the private data until the call returns.
        let result = unsafe { cm.rdma_accept(id.raw, &mut parameters) };
        self.check(result, "rdma_accept")
    }

    fn check(&self, result: i32, call: &'static str) -> Result<(), NicError> {
        if result == 0 { Ok(()) } else { Err(NicError::last(call, self.peer.to_string())) }
    }

    /// Tells the other side that this is the end. There is no one to tell of an error: the other
    /// side may be gone.
    ///
    /// The id goes too. To disconnect says nothing to a side from which this one has not yet heard
    /// that it is connected; that the id is destroyed it is told always.
    pub(crate) fn disconnect(&mut self) {
        let Some(id) = self.id.take() else { return };
        // SAFETY: the id is live.
        unsafe { id.channel.libraries().cm.rdma_disconnect(id.raw) };
    }

    pub(crate) fn ended(&mut self) -> bool {
        let Some(id) = &self.id else { return true };
        while self.own_channel && !self.ended {
            match id.channel.take() {
                Ok(Some(event)) => {
                    let ends = [Kind::Disconnected, Kind::DeviceRemoved, Kind::Failed];
                    // A side that goes before it has heard of the connection rejects it.
                    self.ended = ends.contains(&event.kind) || event.kind == Kind::Rejected;
                }
                Ok(None) => break,
                Err(_) => self.ended = true,
            }
        }
        self.ended
    }
}

/// What a side says of its queue pair when it connects.
struct Said<'a> {
    private: &'a [u8],
    reads: Reads,
    pair: u32,
    shares: bool,
}

impl Said<'_> {
    /// The same in C's form, good as long as this is.
    fn parameters(&self) -> rdma_conn_param {
        rdma_conn_param {
            private_data: self.private.as_ptr().cast(),
            private_data_len: self.private.len() as u8,
            responder_resources: self.reads.answered,
            initiator_depth: self.reads.issued,
            flow_control: 1,
            retry_count: RETRIES,
            rnr_retry_count: NOT_READY_RETRIES,
            srq: u8::from(self.shares),
            qp_num: self.pair,
        }
    }
}

/// Refuses private data that does not fit.
fn check_private(
    call: &'static str,
    object: impl FnOnce() -> String,
    bytes: usize,
    most: usize,
) -> Result<(), NicError> {
    if bytes <= most {
        return Ok(());
    }
    let why = format!("{bytes} bytes of private data, and there is room for {most}");
    Err(NicError::refused(call, object(), why))
}
