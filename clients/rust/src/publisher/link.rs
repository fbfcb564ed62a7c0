//! One connection of a publisher, whatever carries it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use landfall_layout::batch::PREAMBLE_BYTES;
use landfall_layout::frame::{Ack, Frame};
use landfall_pool::Pool;

use super::batch::Identity;
use super::memory::{MemoryLink, Place};
use super::session::{Bytes, Filled};
use super::tcp::TcpLink;
use crate::connect::{Accepted, refusal_text};
use crate::error::Error;

/// How bytes reach the broker.
pub(crate) enum Carrier {
    Memory(Box<MemoryLink>),
    Tcp(TcpLink),
}

/// The connection.
pub(crate) struct Link {
    pub(crate) broker: u8,
    pub(crate) carrier: Carrier,
    /// Batches that it has and that have no receipt.
    pub(crate) in_flight: u32,
    in_flight_max: u32,
    /// It has said goodbye.
    pub(crate) gone: bool,
}

/// Something a broker said.
pub(crate) enum Incoming {
    Frame(Frame),
    /// It refuses, and why.
    Refused(Error),
}

impl Link {
    pub(crate) fn new(
        broker: u8,
        accepted: Accepted,
        ack: Ack,
        known: Option<&Arc<Pool>>,
        batch_bytes: u32,
    ) -> Result<Self, Error> {
        let in_flight_max = match ack {
            Ack::None => u32::MAX,
            _ => accepted.welcome.in_flight_max.into(),
        };
        let carrier = if accepted.memory.is_some() {
            let link = MemoryLink::new(broker, accepted, known, batch_bytes)?;
            Carrier::Memory(Box::new(link))
        } else {
            Carrier::Tcp(TcpLink::new(broker, accepted))
        };
        Ok(Self { broker, carrier, in_flight: 0, in_flight_max, gone: false })
    }

    /// The mapping, of a connection through memory.
    pub(crate) fn memory(&self) -> Option<&MemoryLink> {
        match &self.carrier {
            Carrier::Memory(memory) => Some(memory),
            Carrier::Tcp(_) => None,
        }
    }

    /// Whether another batch may be sealed for it now.
    pub(crate) fn takes(&self) -> bool {
        !self.gone
            && self.in_flight < self.in_flight_max
            && match &self.carrier {
                Carrier::Memory(memory) => memory.takes(),
                Carrier::Tcp(tcp) => tcp.takes(),
            }
    }

    /// Gives it a whole batch under `seq`. False: there is no place for it yet. What the batch no
    /// longer needs is left in `spare`.
    pub(crate) fn ship(
        &mut self,
        filled: &mut Filled,
        identity: Identity,
        seq: u64,
        sealed_ns: u64,
        spare: &mut Vec<u8>,
    ) -> bool {
        let preamble = identity.seal(filled, seq, sealed_ns).to_bytes();
        match (&mut self.carrier, &mut filled.bytes) {
            (Carrier::Memory(memory), Bytes::Buffer(buffer)) => {
                let Some(place) = memory.place(filled.lane.into(), buffer) else { return false };
                *spare = std::mem::take(buffer);
                filled.extent = place.extent;
                filled.bytes = Bytes::Extent(place.location);
                memory.written(place, &preamble, seq);
            }
            (Carrier::Memory(memory), Bytes::Extent(location)) => {
                let bytes = PREAMBLE_BYTES + filled.payload_bytes;
                let place = Place { location: *location, extent: filled.extent, bytes };
                memory.written(place, &preamble, seq);
            }
            (Carrier::Tcp(tcp), Bytes::Buffer(buffer)) => {
                buffer[..PREAMBLE_BYTES as usize].copy_from_slice(&preamble);
                tcp.queue(seq, buffer.len() as u64);
            }
            // A batch in an extent is read back before its connection is replaced, and one that
            // has settled is not sent: neither comes here.
            (Carrier::Tcp(_), Bytes::Extent(_)) | (_, Bytes::Gone) => return false,
        }
        self.in_flight += 1;
        true
    }

    /// The next thing the broker said. The second value tells whether room was granted.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<(Option<Incoming>, bool), Error> {
        let broker = self.broker;
        let refused = |why, sentence: &[u8]| {
            let sentence = refusal_text(why, sentence);
            Incoming::Refused(Error::Refused { broker, why, sentence })
        };
        match &mut self.carrier {
            Carrier::Memory(memory) => {
                let (frame, granted) = memory.next_frame()?;
                let incoming = frame.map(|frame| match frame {
                    Frame::Refused(why) => refused(why, &[]),
                    frame => Incoming::Frame(frame),
                });
                Ok((incoming, granted))
            }
            Carrier::Tcp(tcp) => {
                let incoming = tcp.next_frame()?.map(|(frame, tail)| match frame {
                    Frame::Refused(why) => refused(why, tail),
                    frame => Incoming::Frame(frame),
                });
                Ok((incoming, false))
            }
        }
    }

    /// Says goodbye.
    pub(crate) fn say_bye(&mut self) {
        match &mut self.carrier {
            Carrier::Memory(memory) => memory.push(Frame::Bye),
            Carrier::Tcp(tcp) => tcp.say_bye(),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.carrier {
            Carrier::Memory(memory) => memory.as_fd(),
            Carrier::Tcp(tcp) => tcp.as_fd(),
        }
    }
}
