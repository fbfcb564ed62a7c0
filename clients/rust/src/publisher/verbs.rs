//! A publisher's connection over verbs: its NIC writes batches into the broker's pool, or the
//! broker's reads them out of this publisher's memory.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use landfall_layout::frame::{Ack, Frame};
use landfall_layout::limits::LINE_BYTES;
use landfall_layout::verbs::{GrantMode, Said};
use landfall_nic::{Domain, Region, Remote};
use landfall_pool::slab::Slab;

use super::extents::{Extents, Granted};
use super::session::Slot;
use crate::connect::refusal_text;
use crate::error::Error;
use crate::verbs::dial::{Dialed, sent};
use crate::verbs::ring::lines_of;
use crate::verbs::wire::{Source, Wire};

/// Work requests that may wait for room in the send queue before no more batches are sealed: an
/// urgent batch is not stuck behind many.
const BACKLOG_MAX: usize = 64;
/// Longest wait, when a publisher is dropped, for what it sent to reach the broker.
const DRAIN: Duration = Duration::from_millis(250);

/// The connection.
pub(crate) struct VerbsLink {
    pub(crate) wire: Wire,
    domain: Domain,
    grant: GrantMode,
    extents: Extents,
    /// Memory that batches lie in, with its number in the wire. The first is the publisher's own;
    /// each of the others holds one batch that is larger than usual.
    slabs: Vec<(Arc<Slab>, usize)>,
    /// Batches that have settled, until the NIC has done with them.
    held: VecDeque<Slot>,
    /// Sequences of what was sent and completes later, where no receipts will come.
    unwatched: Option<VecDeque<(u64, u64)>>,
    /// What went wrong with no way on.
    fault: Option<Error>,
}

/// Something a broker said, and whether it was room.
pub(crate) enum Heard {
    Nothing,
    Granted,
    Frame(Frame),
    Refused(Error),
}

impl VerbsLink {
    pub(crate) fn new(dialed: Dialed, arena: &Arc<Slab>, ack: Ack, batch_bytes: u32) -> Self {
        let Dialed { wire, domain, grant, arena: region, .. } = dialed;
        let slabs = region.map(|region| (Arc::clone(arena), region)).into_iter().collect();
        let completes = ack == Ack::None && grant != GrantMode::Pull;
        let mut link = Self {
            wire,
            domain,
            grant,
            extents: Extents::new(batch_bytes),
            slabs,
            held: VecDeque::new(),
            unwatched: completes.then(VecDeque::new),
            fault: None,
        };
        if grant != GrantMode::Pull {
            link.extents.ask(0, |said| link.wire.say(said));
            link.wire.flush();
        }
        link
    }

    /// Whether another batch may be sealed for this connection.
    #[inline]
    pub(crate) fn takes(&self) -> bool {
        self.wire.backlog() < BACKLOG_MAX && !self.wire.is_lost()
    }

    /// Sends a sealed batch. False: there is no room for it yet.
    #[inline]
    pub(crate) fn send(&mut self, slot: &mut Slot, seq: u64) -> bool {
        let Some(region) = self.region_of(slot.buffer.slab()) else { return false };
        let (at, bytes) = (slot.buffer.at(), slot.batch().len() as u32);
        if self.grant == GrantMode::Pull {
            // Where it lies, in lines; what a NIC can register has fewer than 2^29 of them.
            self.wire.say(Said::Ready { line: (at / LINE_BYTES) as u32 });
            return true;
        }
        let wire = &mut self.wire;
        let Some(place) = self.extents.place(bytes, |said| wire.say(said)) else { return false };
        let said = Said::Batch { slot: place.slot, line: place.line };
        let to = Remote { at: place.at, key: place.key };
        slot.post = wire.write(said, Source { region, at, bytes }, to);
        if let Some(unwatched) = &mut self.unwatched {
            unwatched.push_back((slot.post, seq));
        }
        true
    }

    /// The number of the region of `slab`, which is registered now if it was not.
    #[inline]
    fn region_of(&mut self, slab: &Arc<Slab>) -> Option<usize> {
        match self.slabs.iter().find(|(known, _)| Arc::ptr_eq(known, slab)) {
            Some((_, region)) => Some(*region),
            None => self.register(slab),
        }
    }

    #[cold]
    fn register(&mut self, slab: &Arc<Slab>) -> Option<usize> {
        match Region::of_slab(&self.domain, slab, sent(self.grant)) {
            Ok(region) => {
                let region = self.wire.add_region(region);
                self.slabs.push((Arc::clone(slab), region));
                Some(region)
            }
            Err(source) => {
                let source = Box::new(source);
                self.fault = Some(Error::Verbs { broker: self.wire.broker, source });
                None
            }
        }
    }

    /// A batch has settled: its memory is used again once the NIC has done with it.
    #[inline]
    pub(crate) fn release(&mut self, slot: Slot) {
        self.held.push_back(slot);
        self.drop_done();
    }

    #[inline]
    fn drop_done(&mut self) {
        let completed = self.wire.completed();
        while let Some(slot) = self.held.pop_front_if(|slot| slot.post <= completed) {
            let slab = slot.buffer.slab();
            let larger = |(known, _): &(Arc<Slab>, usize)| Arc::ptr_eq(known, slab);
            if let Some(at) = self.slabs.iter().skip(1).position(larger) {
                let (_, region) = self.slabs.swap_remove(at + 1);
                self.wire.remove_region(region);
            }
        }
    }

    /// Tells of each batch that nobody sends a receipt for and that is at the broker now.
    pub(crate) fn take_unwatched(&mut self, mut arrived: impl FnMut(u64)) {
        let completed = self.wire.completed();
        let Some(unwatched) = &mut self.unwatched else { return };
        while let Some((_, seq)) = unwatched.pop_front_if(|(post, _)| *post <= completed) {
            arrived(seq);
        }
    }

    /// Posts what waits.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.wire.flush();
        self.fault.take().map_or(Ok(()), Err)
    }

    /// Takes what came; with `look`, sees whether the broker is there. Why the connection is lost,
    /// if it is: what came before that counts.
    pub(crate) fn receive(&mut self, now_ns: u64, look: bool) -> Option<Error> {
        self.wire.pump();
        if look {
            self.wire.check_alive(now_ns);
        }
        self.drop_done();
        self.wire.lost("publishing")
    }

    /// The next thing the broker said.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Heard, Error> {
        let broker = self.wire.broker;
        let frame = self.wire.ring.frame();
        let Some((frame, tail)) = frame.map_err(|source| Error::Frame { broker, source })? else {
            return Ok(Heard::Nothing);
        };
        let heard = match frame {
            Frame::Extent { extent: slot, at, key, bytes, .. } => {
                let granted = self.extents.granted(Granted { slot, at, key, bytes });
                granted.map_err(|what| Error::Unexpected { broker, what })?;
                Heard::Granted
            }
            Frame::Refused(why) => {
                let sentence = refusal_text(why, &self.wire.ring.text(tail));
                Heard::Refused(Error::Refused { broker, why, sentence })
            }
            frame => Heard::Frame(frame),
        };
        self.wire.ring.cursor.pass(1 + lines_of(tail));
        Ok(heard)
    }

    /// Asks for positions; the broker has no use for more than 28 bits of them.
    pub(crate) fn reserve(&mut self, count: u32, whole: bool) {
        self.wire.say(Said::Reserve { count: count.min((1 << 28) - 1), whole });
    }

    /// Says goodbye.
    pub(crate) fn say_bye(&mut self) {
        self.wire.say(Said::Bye);
    }

    /// Nobody comes back to this connection: gives what was sent a moment to arrive.
    pub(crate) fn drain(&mut self) {
        self.wire.drain(DRAIN);
    }
}

impl AsFd for VerbsLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}
