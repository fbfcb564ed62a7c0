//! Messages that are filled where they are sent from.

use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use landfall_layout::batch::{MESSAGE_HAS_KEY, MESSAGE_HEADER_BYTES, PREAMBLE_BYTES, crc32c};
use landfall_layout::verbs::GrantMode;
use landfall_pool::slab::SlabBuffer;

use super::batch::{start_buffer, stride};
use super::receipts::{LANES, Lane, Ticket};
use super::session::{Bytes, Filled, Slot};
use super::{PublishError, Publisher, room_or};
use crate::error::Error;

/// A message to reserve room for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reservation<'a> {
    /// Bytes of its payload.
    pub bytes: usize,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its timestamp, nanoseconds; `None`: the publisher's clock when it is sealed.
    pub timestamp_ns: Option<u64>,
    /// How urgent it is.
    pub lane: Lane,
}

/// Memory for a batch, not filled yet.
pub(super) enum Room {
    Buffer(Vec<u8>),
    Slab(SlabBuffer),
}

/// Room for one message's payload, to be filled and then given to
/// [`Publisher::seal_reserved`]. Its bytes are what an earlier batch left there.
///
/// Over verbs this is memory that the NIC sends from: nothing is copied any more. Over tcp it is
/// the batch that the socket is given. Over memory it is copied once, into the extent. Dropping it
/// gives the room back.
pub struct Reserved {
    room: Room,
    payload: Range<usize>,
    key: Option<u16>,
    timestamp_ns: Option<u64>,
    lane: Lane,
}

impl Reserved {
    fn new(mut room: Room, message: &Reservation<'_>) -> Self {
        let key = message.key.unwrap_or(&[]);
        let at = PREAMBLE_BYTES as usize + MESSAGE_HEADER_BYTES;
        let start = at + key.len();
        if let Room::Buffer(buffer) = &mut room {
            start_buffer(buffer);
            buffer.resize(PREAMBLE_BYTES as usize + stride(key.len() + message.bytes), 0);
        }
        bytes_of(&mut room)[at..start].copy_from_slice(key);
        Self {
            room,
            payload: start..start + message.bytes,
            // It was checked that keys are no longer than 16 bits say.
            key: message.key.map(|key| key.len() as u16),
            timestamp_ns: message.timestamp_ns,
            lane: message.lane,
        }
    }

    /// Puts the header in front and zeros behind. Returns the bytes of the whole batch.
    fn finish(&mut self, now_ns: u64) -> usize {
        let Range { start, end } = self.payload.clone();
        let key_bytes = self.key.unwrap_or(0);
        let at = PREAMBLE_BYTES as usize;
        let flags = if self.key.is_some() { MESSAGE_HAS_KEY } else { 0 };
        let head = (end - start) as u64 | u64::from(key_bytes) << 32 | u64::from(flags) << 48;
        let whole = at + stride(usize::from(key_bytes) + end - start);
        let timestamp_ns = self.timestamp_ns.unwrap_or(now_ns);
        let bytes = bytes_of(&mut self.room);
        bytes[at..at + 8].copy_from_slice(&head.to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&timestamp_ns.to_le_bytes());
        bytes[end..whole].fill(0);
        whole
    }
}

fn bytes_of(room: &mut Room) -> &mut [u8] {
    match room {
        Room::Buffer(buffer) => buffer,
        Room::Slab(buffer) => buffer,
    }
}

impl Deref for Reserved {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.room {
            Room::Buffer(buffer) => &buffer[self.payload.clone()],
            Room::Slab(buffer) => &buffer[self.payload.clone()],
        }
    }
}

impl DerefMut for Reserved {
    fn deref_mut(&mut self) -> &mut [u8] {
        let payload = self.payload.clone();
        &mut bytes_of(&mut self.room)[payload]
    }
}

impl std::fmt::Debug for Reserved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reserved").field("bytes", &self.payload.len()).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Room for a message of `bytes` bytes in the normal lane, waiting for it if need be. Such a
    /// message becomes a batch of its own, so this is for large ones.
    ///
    /// ```no_run
    /// # fn example(publisher: &mut landfall::Publisher) -> Result<(), landfall::Error> {
    /// let mut room = publisher.reserve(1 << 20)?;
    /// room.fill(7); // Read a file into it, for example.
    /// let ticket = publisher.seal_reserved(room)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn reserve(&mut self, bytes: usize) -> Result<Reserved, Error> {
        self.reserve_message(Reservation { bytes, ..Reservation::default() })
    }

    /// Room for a message, waiting for it if need be.
    pub fn reserve_message(&mut self, message: Reservation<'_>) -> Result<Reserved, Error> {
        match room_or(self.try_reserve(message))? {
            Some(reserved) => Ok(reserved),
            None => self
                .wait_until("room to reserve", |publisher| room_or(publisher.try_reserve(message))),
        }
    }

    /// Room for a message, without ever blocking.
    pub fn try_reserve(&mut self, message: Reservation<'_>) -> Result<Reserved, PublishError> {
        self.check_failed().map_err(PublishError::Failed)?;
        let key_bytes = message.key.map_or(0, <[u8]>::len);
        let whole = PREAMBLE_BYTES + self.check_lengths(key_bytes, message.bytes)? as u32;
        self.clock.look();
        self.close_lingering();
        self.turn_over()?;
        let queued = self.queued_bytes();
        let fits = queued == 0 || queued + u64::from(whole) <= self.setup.memory_bytes;
        let link = self.link_in_turn();
        match fits.then(|| self.private_room(link, whole)).flatten() {
            Some(room) => Ok(Reserved::new(room, &message)),
            None => {
                Err(PublishError::Full { queued_bytes: queued, bound: self.setup.memory_bytes })
            }
        }
    }

    /// Publishes a reserved message as a batch of its own, behind everything that was published
    /// in its lane before.
    pub fn seal_reserved(&mut self, mut reserved: Reserved) -> Result<Ticket, Error> {
        self.check_failed()?;
        self.clock.look();
        let whole = reserved.finish(self.clock.wall_ns);
        let lane = reserved.lane.index();
        // Positions of the user's are filled in the order of publishing, whatever the lane.
        let own = self.positions.own_left().is_some();
        self.close_through(if own { LANES - 1 } else { lane });
        let position = self.positions.take_own(1);
        let payload = PREAMBLE_BYTES as usize..whole;
        let payload_crc = crc32c(&bytes_of(&mut reserved.room)[payload.clone()]);
        let bytes = match reserved.room {
            Room::Buffer(buffer) => Bytes::Buffer(buffer),
            Room::Slab(buffer) if self.may_send_from(&buffer) => {
                Bytes::Slab(Slot::new(buffer, whole))
            }
            // Another publisher's: this one's broker may not read there.
            Room::Slab(buffer) => Bytes::Buffer(buffer[..whole].to_vec()),
        };
        let state = &mut self.lanes[lane];
        let number = state.next_number;
        state.next_number += 1;
        let filled = Filled {
            lane: lane as u8,
            number,
            count: 1,
            payload_bytes: payload.len() as u32,
            payload_crc,
            bytes,
            link: 0,
            extent: 0,
            position,
        };
        self.waiting_bytes += filled.batch_bytes();
        self.lanes[lane].filled.push_back(filled);
        room_or(self.turn_over())?;
        Ok(Ticket { batch: number, lane: lane as u8, index: 0 })
    }

    fn may_send_from(&self, buffer: &SlabBuffer) -> bool {
        let own = self.store.arena.slab();
        self.setup.grant != GrantMode::Pull
            || own.is_some_and(|own| Arc::ptr_eq(own, buffer.slab()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_layout::batch::Messages;
    use landfall_pool::slab::Slab;

    fn rooms() -> [Room; 2] {
        let mut dirty = Slab::new(1, 4096).unwrap().take().unwrap();
        dirty.fill(0xaa);
        [Room::Slab(dirty), Room::Buffer(vec![0xaa; 17])]
    }

    #[test]
    fn a_reserved_message_is_a_batch_of_its_own() {
        for key in [None, Some(&b""[..]), Some(b"key")] {
            for bytes in [0, 1, 8, 1001] {
                for room in rooms() {
                    let message =
                        Reservation { bytes, key, timestamp_ns: Some(5), ..Reservation::default() };
                    let mut reserved = Reserved::new(room, &message);
                    assert_eq!(reserved.len(), bytes);
                    reserved.fill(7);
                    let whole = reserved.finish(9);
                    let batch = &bytes_of(&mut reserved.room)[..whole];
                    let mut messages = Messages::new(&batch[64..], 1);
                    let found = messages.next().unwrap();
                    assert_eq!((found.key, found.payload), (key, &vec![7; bytes][..]));
                    assert_eq!(found.timestamp_ns, 5);
                    assert!(messages.is_whole());
                }
            }
        }
    }
}
