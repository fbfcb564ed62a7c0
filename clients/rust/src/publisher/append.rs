//! Adding messages to open batches, and opening them.

use landfall_layout::batch::{MESSAGE_HEADER_BYTES, PREAMBLE_BYTES};
use landfall_layout::limits::{BATCH_MESSAGES_MAX, KEY_BYTES_MAX};
use landfall_layout::topic::Order;

use super::batch::{
    ExtentFiller, Filler, STREAM_BYTES_LEAST, SlabFiller, Spot, Streamed, header, start_buffer,
    stride,
};
use super::lanes::{LaneState, Open};
use super::link::Carrier;
use super::receipts::{LANES, Lane, Ticket};
use super::reserve::Room;
use super::{PublishError, Publisher};
use crate::error::Error;

impl Publisher {
    /// Adds a message to its lane's open batch; everything else is in `append_slow`.
    #[inline]
    pub(super) fn append(
        &mut self,
        lane: Lane,
        key: Option<&[u8]>,
        payload: &[u8],
        timestamp_ns: Option<u64>,
    ) -> Result<Ticket, PublishError> {
        let key_bytes = key.map_or(0, <[u8]>::len);
        if self.clock.left > 0
            && let Some(open) = &mut self.lanes[lane.index()].open
            && open.count < open.most
            && key_bytes <= KEY_BYTES_MAX
            // The room is a few MiB at most, so what follows cannot overflow.
            && key_bytes <= open.room
            && payload.len() <= open.room
        {
            let stride = stride(key_bytes + payload.len());
            if stride <= open.room {
                self.clock.left -= 1;
                let timestamp_ns = timestamp_ns.unwrap_or(self.clock.wall_ns);
                return Ok(open.append(lane, stride, key, payload, timestamp_ns));
            }
        }
        self.append_slow(lane, key, payload, timestamp_ns)
    }

    #[cold]
    #[inline(never)]
    fn append_slow(
        &mut self,
        lane: Lane,
        key: Option<&[u8]>,
        payload: &[u8],
        timestamp_ns: Option<u64>,
    ) -> Result<Ticket, PublishError> {
        self.check_failed().map_err(PublishError::Failed)?;
        let stride = self.check_lengths(key.map_or(0, <[u8]>::len), payload.len())?;
        self.clock.look();
        self.close_lingering();
        let at = lane.index();
        let is_full = |open: &Open| open.room < stride || open.count >= open.most;
        if self.lanes[at].open.as_ref().is_some_and(is_full) {
            self.close_through(at);
        }
        if self.lanes[at].open.is_none() {
            self.turn_over()?;
            if !self.open_batch(at, stride) {
                // What was in the way may just have settled or been granted.
                self.turn_over()?;
                if !self.open_batch(at, stride) {
                    return Err(PublishError::Full {
                        queued_bytes: self.queued_bytes(),
                        bound: self.setup.memory_bytes,
                    });
                }
            }
        } else if self.has_filled() {
            self.turn_over()?;
        }
        let Some(open) = &mut self.lanes[at].open else {
            return Err(PublishError::Full {
                queued_bytes: self.queued_bytes(),
                bound: self.setup.memory_bytes,
            });
        };
        let timestamp_ns = timestamp_ns.unwrap_or(self.clock.wall_ns);
        let ticket = open.append(lane, stride, key, payload, timestamp_ns);
        if self.linger_ns == 0 {
            self.clock.left = 0;
            self.close_through(at);
            self.turn_over()?;
        }
        Ok(ticket)
    }

    /// The connection that a batch opened now will probably take, if there is any. Its turn is over
    /// only when a batch is bound to it: otherwise batches that are picked a connection again when
    /// they are sealed would take two turns each, and with two connections always the same one.
    pub(super) fn link_in_turn(&self) -> Option<usize> {
        (!self.links.is_empty()).then(|| self.find_link().unwrap_or(self.next_link))
    }

    fn private_filler(&mut self, link: Option<usize>, whole: u32) -> Option<Filler> {
        Some(match self.private_room(link, whole)? {
            Room::Slab(buffer) => Filler::Slab(SlabFiller::start(buffer)),
            Room::Buffer(mut buffer) => {
                start_buffer(&mut buffer);
                Filler::Buffer(buffer)
            }
        })
    }

    /// Memory of our own for a batch: where verbs carry batches, memory that NICs send from.
    /// `None`: no room now.
    pub(super) fn private_room(&mut self, link: Option<usize>, whole: u32) -> Option<Room> {
        let by_verbs = link.map(|link| matches!(self.links[link].carrier, Carrier::Verbs(_)));
        if by_verbs.unwrap_or(self.store.is_mapped()) {
            match self.store.take(whole) {
                Some(buffer) => return Some(Room::Slab(buffer)),
                None if by_verbs.is_some() => return None,
                // Without a connection other memory does as well, up to the bound.
                None => {}
            }
        }
        let buffer = self.spare_buffers.pop();
        Some(Room::Buffer(buffer.unwrap_or_else(|| Vec::with_capacity(whole as usize))))
    }

    /// Bytes that the message takes, or why it never fits.
    pub(super) fn check_lengths(
        &self,
        key_bytes: usize,
        payload_bytes: usize,
    ) -> Result<usize, PublishError> {
        let most = u64::from(self.message_batch_max());
        let around = u64::from(PREAMBLE_BYTES) + MESSAGE_HEADER_BYTES as u64;
        let parts = (key_bytes as u64).saturating_add(payload_bytes as u64);
        let bytes = parts.checked_next_multiple_of(8).unwrap_or(u64::MAX).saturating_add(around);
        if bytes > most {
            return Err(PublishError::TooLarge { bytes, most });
        }
        if key_bytes > KEY_BYTES_MAX {
            let why = format!("{key_bytes} bytes; at most {KEY_BYTES_MAX} are possible");
            return Err(PublishError::Failed(Error::Setting { setting: "key", why }));
        }
        Ok(stride(key_bytes + payload_bytes))
    }

    /// Takes and sends without blocking or reconnecting.
    pub(super) fn turn_over(&mut self) -> Result<(), PublishError> {
        if self.links.is_empty() {
            return Ok(());
        }
        match self.turn() {
            Ok(_) => Ok(()),
            Err(trouble) => self.suffer(trouble).map_err(PublishError::Failed),
        }
    }

    fn has_filled(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.filled.is_empty())
    }

    /// Whether a whole batch lies in private memory. The last one of a lane tells for all of it:
    /// none is filled in an extent before those are placed.
    fn has_unplaced(&mut self) -> bool {
        let in_buffer = |lane: &LaneState| {
            lane.filled.back().is_some_and(|filled| filled.bytes.private().is_some())
        };
        let unsent = match self.order {
            // Batches that wait for positions may lie where they will be sent from.
            Order::Token => self.session.is_last_private(),
            _ => self.session.next_resend().is_some(),
        };
        unsent || self.lanes.iter().any(in_buffer)
    }

    pub(super) fn queued_bytes(&self) -> u64 {
        let open = self.lanes.iter().filter_map(|lane| lane.open.as_ref());
        let open: u64 =
            open.map(|open| u64::from(PREAMBLE_BYTES) + open.payload_bytes as u64).sum();
        self.waiting_bytes + open
    }

    /// Opens a batch for a message of `stride` bytes. False: no room now.
    fn open_batch(&mut self, lane: usize, stride: usize) -> bool {
        if self.positions.own_left().is_some() {
            // Positions of the user's are filled in the order of publishing, whatever the lane.
            self.close_through(LANES - 1);
        }
        let least = PREAMBLE_BYTES + stride as u32;
        let queued = self.queued_bytes();
        if queued > 0 && queued + u64::from(least) > self.setup.memory_bytes {
            return false;
        }
        let whole = self.setup.batch_bytes.max(least);
        // Without a connection batches gather in private memory, whatever will carry them; and
        // while older ones still wait there for a place in an extent, since batches are written
        // one behind the other and these come first.
        let older = self.has_unplaced();
        let link = self.link_in_turn();
        let in_memory = |link: &usize| matches!(self.links[*link].carrier, Carrier::Memory(_));
        if let Some(link) = link.filter(in_memory).filter(|_| !older) {
            self.deal(link, whole.into());
        }
        let memory = match link.map(|link| &mut self.links[link].carrier) {
            Some(Carrier::Memory(memory)) if !older => Some(memory),
            _ => None,
        };
        let (filler, room) = match (memory, link) {
            (Some(memory), Some(link)) => {
                let Some(room) = memory.room(lane, least) else {
                    // The request for an extent has to reach the broker.
                    let flushed = memory.flush();
                    self.ended = self.ended.take().or(flushed.err());
                    return false;
                };
                let spot = Spot {
                    location: room.location,
                    extent: room.extent,
                    link,
                    payload_at: room.at + u64::from(PREAMBLE_BYTES),
                };
                let bytes = room.bytes.min(whole);
                let filler = if whole >= STREAM_BYTES_LEAST {
                    let payload_room = (bytes - PREAMBLE_BYTES) as usize;
                    Filler::Streamed(Streamed::start(&memory.pool, spot, payload_room))
                } else {
                    let spare = self.lanes[lane].spare_filler.take();
                    Filler::Extent(ExtentFiller::start(&memory.pool, spot, spare))
                };
                (filler, bytes)
            }
            (_, link) => {
                let Some(filler) = self.private_filler(link, whole) else { return false };
                (filler, whole)
            }
        };
        let most = self
            .positions
            .own_left()
            .map_or(BATCH_MESSAGES_MAX, |left| left.min(BATCH_MESSAGES_MAX));
        let state = &mut self.lanes[lane];
        let number = state.next_number;
        state.next_number += 1;
        state.open = Some(Open {
            filler,
            room: (room - PREAMBLE_BYTES) as usize,
            payload_bytes: 0,
            count: 0,
            most,
            number,
            since_ns: self.clock.steady_ns,
        });
        true
    }
}

impl Open {
    /// Adds a message of `stride` bytes, for which there is room.
    #[inline]
    fn append(
        &mut self,
        lane: Lane,
        stride: usize,
        key: Option<&[u8]>,
        payload: &[u8],
        timestamp_ns: u64,
    ) -> Ticket {
        let header = header(key, payload, timestamp_ns);
        self.filler.append(stride, header, key.unwrap_or(&[]), payload);
        let index = self.count as u16;
        self.room -= stride;
        self.payload_bytes += stride;
        self.count += 1;
        Ticket { batch: self.number, lane: lane as u8, index }
    }
}
