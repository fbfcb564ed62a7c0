//! One connection of a publisher, whatever carries it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use landfall_layout::batch::PREAMBLE_BYTES;
use landfall_layout::frame::{Ack, Frame};
use landfall_pool::Pool;

use super::batch::Identity;
use super::memory::{MemoryLink, Place};
use super::session::{Bytes, Filled, Slot};
use super::store::Store;
use super::tcp::TcpLink;
use super::verbs::{Heard, VerbsLink};
use crate::connect::{Accepted, Transport, Way, refusal_text};
use crate::error::Error;
use crate::silence::Silence;
use crate::verbs::dial::wire_ack;

/// How bytes reach the broker.
pub(crate) enum Carrier {
    Memory(Box<MemoryLink>),
    Verbs(Box<VerbsLink>),
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
    pub(crate) silence: Silence,
}

/// Something a broker said.
pub(crate) enum Incoming {
    Frame(Frame),
    /// It refuses, and why.
    Refused(Error),
}

/// What a connection is made for.
#[derive(Clone, Copy)]
pub(crate) struct Purpose<'a> {
    pub(crate) ack: Ack,
    /// The pool, if it is mapped already.
    pub(crate) known: Option<&'a Arc<Pool>>,
    pub(crate) store: &'a Store,
    pub(crate) batch_bytes: u32,
}

impl Link {
    pub(crate) fn new(broker: u8, accepted: Accepted, purpose: Purpose<'_>) -> Result<Self, Error> {
        let Accepted { welcome, way } = accepted;
        let Purpose { ack, known, store, batch_bytes } = purpose;
        let mut receipts = ack;
        let carrier = match way {
            Way::Memory(handed) => {
                let index = welcome.session_index;
                let link = MemoryLink::new(broker, handed, index, known, batch_bytes)?;
                Carrier::Memory(Box::new(link))
            }
            Way::Verbs(dialed) => {
                let Some(arena) = store.arena.slab() else {
                    let what = "accepted a publisher over verbs without memory".to_owned();
                    return Err(Error::Unexpected { broker, what });
                };
                receipts = wire_ack(ack, dialed.grant);
                Carrier::Verbs(Box::new(VerbsLink::new(*dialed, arena, ack, batch_bytes)))
            }
            Way::Stream(socket) => Carrier::Tcp(TcpLink::new(broker, socket)),
        };
        let in_flight_max = match receipts {
            Ack::None => u32::MAX,
            _ => welcome.in_flight_max.into(),
        };
        let silence = Silence::default();
        Ok(Self { broker, carrier, in_flight: 0, in_flight_max, gone: false, silence })
    }

    /// The mapping, of a connection through memory.
    pub(crate) fn memory(&self) -> Option<&MemoryLink> {
        match &self.carrier {
            Carrier::Memory(memory) => Some(memory),
            Carrier::Verbs(_) | Carrier::Tcp(_) => None,
        }
    }

    /// Whether anything was heard of the broker since the last look.
    pub(crate) fn has_heard(&mut self) -> bool {
        match &mut self.carrier {
            Carrier::Memory(memory) => memory.has_beaten(),
            Carrier::Verbs(verbs) => std::mem::take(&mut verbs.wire.has_heard),
            Carrier::Tcp(tcp) => std::mem::take(&mut tcp.has_heard),
        }
    }

    /// The transport it is.
    pub(crate) fn transport(&self) -> Transport {
        match &self.carrier {
            Carrier::Memory(_) => Transport::Memory,
            Carrier::Verbs(_) => Transport::Verbs,
            Carrier::Tcp(_) => Transport::Tcp,
        }
    }

    /// Whether another batch may be sealed for it now.
    pub(crate) fn takes(&self) -> bool {
        !self.gone
            && self.in_flight < self.in_flight_max
            && match &self.carrier {
                Carrier::Memory(memory) => memory.takes(),
                Carrier::Verbs(verbs) => verbs.takes(),
                Carrier::Tcp(tcp) => tcp.takes(),
            }
    }

    /// Gives it a whole batch under `seq`. False: there is no place for it yet. What the batch no
    /// longer needs is left in `spare`.
    pub(crate) fn ship(
        &mut self,
        filled: &mut Filled,
        (identity, seq, sealed_ns): (Identity, u64, u64),
        store: &mut Store,
        spare: &mut Vec<u8>,
    ) -> bool {
        // What the broker knows it by.
        let named = filled.position.unwrap_or(seq);
        let preamble = identity.seal(filled, named, sealed_ns).to_bytes();
        match (&mut self.carrier, &mut filled.bytes) {
            (Carrier::Memory(memory), Bytes::Extent(location)) => {
                let bytes = PREAMBLE_BYTES + filled.payload_bytes;
                let place = Place { location: *location, extent: filled.extent, bytes };
                memory.written(place, &preamble, named);
            }
            (Carrier::Memory(memory), bytes) => {
                let Some(batch) = bytes.private() else { return false };
                let Some(place) = memory.place(filled.lane.into(), batch) else { return false };
                if let Bytes::Buffer(buffer) = bytes {
                    *spare = std::mem::take(buffer);
                }
                filled.extent = place.extent;
                filled.bytes = Bytes::Extent(place.location);
                memory.written(place, &preamble, named);
            }
            (Carrier::Verbs(verbs), bytes) => {
                if let Bytes::Buffer(buffer) = bytes {
                    let Some(slot) = moved(buffer, store) else { return false };
                    *spare = std::mem::take(buffer);
                    *bytes = Bytes::Slab(slot);
                }
                let Bytes::Slab(slot) = bytes else { return false };
                slot.batch_mut()[..PREAMBLE_BYTES as usize].copy_from_slice(&preamble);
                if !verbs.send(slot, seq) {
                    return false;
                }
            }
            (Carrier::Tcp(tcp), bytes) => {
                // A batch in an extent is read back before its connection is replaced, and one
                // that has settled is not sent: neither comes here.
                let Some(batch) = bytes.private_mut() else { return false };
                batch[..PREAMBLE_BYTES as usize].copy_from_slice(&preamble);
                let length = batch.len() as u64;
                tcp.queue(seq, length);
            }
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
            Carrier::Verbs(verbs) => {
                let mut granted = false;
                loop {
                    let incoming = match verbs.next()? {
                        Heard::Granted => {
                            granted = true;
                            continue;
                        }
                        Heard::Nothing => None,
                        Heard::Frame(frame) => Some(Incoming::Frame(frame)),
                        Heard::Refused(error) => Some(Incoming::Refused(error)),
                    };
                    return Ok((incoming, granted));
                }
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

    /// Asks for positions, for one whole batch or for the user.
    pub(crate) fn reserve(&mut self, request: u32, count: u32, whole: bool) {
        let frame = Frame::Reserve { request, count, whole };
        match &mut self.carrier {
            Carrier::Memory(memory) => memory.push(frame),
            // The broker numbers what comes through a queue pair by itself, from 0 as we do.
            Carrier::Verbs(verbs) => verbs.reserve(count, whole),
            Carrier::Tcp(tcp) => tcp.say(frame),
        }
    }

    /// Says goodbye.
    pub(crate) fn say_bye(&mut self) {
        match &mut self.carrier {
            Carrier::Memory(memory) => memory.push(Frame::Bye),
            Carrier::Verbs(verbs) => verbs.say_bye(),
            Carrier::Tcp(tcp) => tcp.say_bye(),
        }
    }
}

/// A batch that another transport had, where a NIC can send it from. `None`: no room yet.
#[cold]
fn moved(buffer: &[u8], store: &mut Store) -> Option<Slot> {
    let mut to = store.take_for_sealed(buffer.len() as u32)?;
    to[..buffer.len()].copy_from_slice(buffer);
    Some(Slot::new(to, buffer.len()))
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.carrier {
            Carrier::Memory(memory) => memory.as_fd(),
            Carrier::Verbs(verbs) => verbs.as_fd(),
            Carrier::Tcp(tcp) => tcp.as_fd(),
        }
    }
}
