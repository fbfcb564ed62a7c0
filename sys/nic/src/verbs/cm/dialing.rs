//! The side that calls.

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::channel::{Channel, Kind, Taken};
use super::{Connection, Id, PeerId, REQUEST_PRIVATE_BYTES, Said, check_private};
use crate::verbs::address::Raw;
use crate::verbs::error::NicError;
use crate::verbs::memory::Domain;
use crate::verbs::queue::{Depths, Queue};

/// The reason of a rejection that the other side's program gave (`IB_CM_REJ_CONSUMER_DEFINED`).
const REASON_OF_THE_PROGRAM: i32 = 28;

/// Time between two questions whether to go on waiting for an answer.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A connection on the way: the address and the route are known.
pub struct Dialing {
    id: Id,
    to: SocketAddr,
    device: String,
    port_mtu: u32,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Refused {
    /// The other side said no. Its private data, filled up with zeros to 148 bytes; empty if it
    /// gave none or nobody listens there.
    Rejected(Vec<u8>),
    /// It could not be asked, or did not answer in time.
    Failed(NicError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(private) if private.is_empty() => {
                write!(f, "the connection was rejected, or nobody listens there")
            }
            Self::Rejected(private) => {
                write!(f, "the connection was rejected with {} bytes", private.len())
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

impl From<NicError> for Refused {
    fn from(error: NicError) -> Self {
        Self::Failed(error)
    }
}

impl Dialing {
    /// Finds the device and the route to an address.
    pub fn resolve(to: SocketAddr, deadline: Instant) -> Result<Self, NicError> {
        let channel = Arc::new(Channel::new()?);
        let id = Id::new(&channel)?;
        let cm = &channel.libraries().cm;
        let mut raw = Raw::from(to);
        let wait = milliseconds_until(deadline);
        // SAFETY: the id is live and the address is whole.
        let result =
            unsafe { cm.rdma_resolve_addr(id.raw, ptr::null_mut(), raw.as_mut_ptr(), wait) };
        if result != 0 {
            return Err(NicError::last("rdma_resolve_addr", to.to_string()));
        }
        expect(&channel, Kind::AddressResolved, "rdma_resolve_addr", to, deadline)?;
        // SAFETY: the id is live and has an address.
        if unsafe { cm.rdma_resolve_route(id.raw, milliseconds_until(deadline)) } != 0 {
            return Err(NicError::last("rdma_resolve_route", to.to_string()));
        }
        expect(&channel, Kind::RouteResolved, "rdma_resolve_route", to, deadline)?;
        let (device, port_mtu) = (id.device_name(), id.port_mtu()?);
        Ok(Self { id, to, device, port_mtu })
    }

    /// The device that it goes out through.
    pub fn device_name(&self) -> &str {
        &self.device
    }

    /// Bytes of the active MTU of the port that it goes out through.
    pub fn port_mtu(&self) -> u32 {
        self.port_mtu
    }

    /// A new domain on its device.
    pub fn domain(&self) -> Result<Domain, NicError> {
        Domain::on(&self.device)
    }

    /// Connects, and returns what the acceptance carried, filled up with zeros.
    ///
    /// `before` is called when receives can be posted and nothing can come in yet. `mtu_of` reads
    /// the other side's MTU out of the acceptance; the queue takes the lesser one.
    pub fn connect(
        self,
        domain: &Domain,
        depths: Depths<'_>,
        private: &[u8],
        before: impl FnOnce(&mut Queue) -> Result<(), NicError>,
        mtu_of: impl FnOnce(&[u8]) -> u32,
        deadline: Instant,
    ) -> Result<(Queue, Vec<u8>), Refused> {
        self.connect_while(domain, depths, private, before, mtu_of, (deadline, &mut || true))
    }

    /// The same, which asks about once a second, while no answer comes, whether to go on waiting.
    pub fn connect_while(
        self,
        domain: &Domain,
        depths: Depths<'_>,
        private: &[u8],
        before: impl FnOnce(&mut Queue) -> Result<(), NicError>,
        mtu_of: impl FnOnce(&[u8]) -> u32,
        patience: (Instant, &mut dyn FnMut() -> bool),
    ) -> Result<(Queue, Vec<u8>), Refused> {
        let Self { id, to, .. } = self;
        let object = || to.to_string();
        check_private("rdma_connect", object, private.len(), REQUEST_PRIVATE_BYTES)?;
        id.check_domain(domain, "rdma_connect")?;
        let reads = id.reads(domain, depths.reads)?;
        let channel = Arc::clone(&id.channel);
        let shares = depths.shared_receive.is_some();
        let connection = Connection::new(id, PeerId::fresh(), true);
        let mut queue = Queue::new(domain, depths, connection)?;
        before(&mut queue)?;
        let said = Said { private, reads, pair: queue.number(), shares };
        queue.connection().connect(&said)?;
        let answer = answered(&channel, to, patience)?;
        queue.enter_ready(mtu_of(&answer.private), None)?;
        queue.connection().establish()?;
        Ok((queue, answer.private))
    }
}

/// Waits for the answer to a request.
fn answered(
    channel: &Channel,
    to: SocketAddr,
    (deadline, goes_on): (Instant, &mut dyn FnMut() -> bool),
) -> Result<Taken, Refused> {
    loop {
        let until = deadline.min(Instant::now() + ASK_EVERY);
        let taken = match channel.wait(until) {
            Err(error)
                if error.source.kind() == ErrorKind::TimedOut
                    && Instant::now() < deadline
                    && goes_on() =>
            {
                continue;
            }
            taken => taken.map_err(|error| NicError {
                call: "rdma_connect",
                object: to.to_string(),
                ..error
            })?,
        };
        match taken.kind {
            Kind::Answered => return Ok(taken),
            Kind::Rejected => {
                let said = taken.status == REASON_OF_THE_PROGRAM
                    && taken.private.iter().any(|byte| *byte != 0);
                return Err(Refused::Rejected(if said { taken.private } else { Vec::new() }));
            }
            Kind::Other => {}
            _ => return Err(unexpected("rdma_connect", to, &taken).into()),
        }
    }
}

/// Waits for one kind of event.
fn expect(
    channel: &Channel,
    kind: Kind,
    call: &'static str,
    to: SocketAddr,
    deadline: Instant,
) -> Result<(), NicError> {
    loop {
        let taken = channel.wait(deadline).map_err(|error| NicError {
            call,
            object: to.to_string(),
            ..error
        })?;
        match taken.kind {
            found if found == kind => return Ok(()),
            Kind::Other => {}
            _ => return Err(unexpected(call, to, &taken)),
        }
    }
}

fn unexpected(call: &'static str, to: SocketAddr, taken: &Taken) -> NicError {
    let object = format!("{to} (rdma_cm event {}, status {})", taken.number, taken.status);
    match taken.status {
        number @ ..0 => NicError::number(call, object, number.saturating_neg()),
        _ => NicError::number(call, object, nix::libc::ECONNREFUSED),
    }
}

fn milliseconds_until(deadline: Instant) -> i32 {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    i32::try_from(left.as_millis()).unwrap_or(i32::MAX)
}
