//! A publisher's connection through the pool: extents it may write, frames in the channel.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use landfall_layout::SegmentId;
use landfall_layout::batch::{MESSAGE_HEADER_BYTES, PREAMBLE_BYTES};
use landfall_layout::channel::{BROKER_PARKED_AT, CLIENT_PARKED_AT};
use landfall_layout::frame::Frame;
use landfall_pool::channel::{TO_BROKER, TO_CLIENT, is_parked, open as open_channel, set_parked};
use landfall_pool::line_ring::{LineConsumer, LineProducer};
use landfall_pool::shared::{Piece, send};
use landfall_pool::stream::stream_fence;
use landfall_pool::{Mapping, Memory, Pool};

use super::batch::STREAM_BYTES_LEAST;
use super::receipts::LANES;
use super::session::Location;
use crate::connect::{Handed, Socket};
use crate::error::Error;
use crate::silence::Heartbeat;

/// Extents held and asked for at most; a broker grants a connection eight.
const EXTENTS_MAX: usize = 8;
/// Less room than this at the end of an extent is given up: no message fits.
const ROOM_LEAST: u32 = PREAMBLE_BYTES + MESSAGE_HEADER_BYTES as u32;

/// A grant, as far as it is used.
#[derive(Debug)]
struct Extent {
    number: u32,
    segment: u32,
    generation: u64,
    /// Where the next batch goes.
    next: u32,
    end: u32,
    lane: Option<usize>,
    /// Batches in it that the broker was not told of yet.
    unwritten: u32,
    /// Nothing more will be put into it.
    ending: bool,
}

impl Extent {
    fn room(&self) -> u32 {
        self.end - self.next
    }
}

/// Where a batch may be filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) location: Location,
    pub(crate) extent: u32,
    /// Bytes for preamble and payload.
    pub(crate) bytes: u32,
    /// Offset in the pool of the preamble.
    pub(crate) at: u64,
}

/// The connection.
pub(crate) struct MemoryLink {
    pub(crate) broker: u8,
    pub(crate) pool: Arc<Pool>,
    pub(crate) session_index: u32,
    socket: Socket,
    /// While it is open, what this broker granted is nobody else's.
    _writer: Option<OwnedFd>,
    channel: Mapping,
    to_broker: LineProducer,
    from_broker: LineConsumer,
    /// Frames that the ring had no room for.
    backlog: VecDeque<Frame>,
    /// Whether the broker is to be rung if it sleeps.
    ring: bool,
    extents: Vec<Extent>,
    current: [Option<u32>; LANES],
    /// Extents asked for and not granted yet.
    asked: usize,
    /// Extents used up so far: the first shows whether a publisher needs one ahead.
    used_up: u64,
    /// Bytes of a full batch.
    batch_bytes: u32,
    /// A segment of an extent that turned out to have a page that cannot be written.
    lost_segment: Option<u32>,
    heartbeat: Heartbeat,
}

impl MemoryLink {
    /// Maps what a broker handed over. `pool` is the same pool, when it is mapped already.
    pub(crate) fn new(
        broker: u8,
        handed: Handed,
        session_index: u32,
        known: Option<&Arc<Pool>>,
        batch_bytes: u32,
    ) -> Result<Self, Error> {
        let Handed { socket, pool, channel, writer } = handed;
        let channel =
            open_channel(channel).map_err(|e| Error::Channel { broker, source: Box::new(e) })?;
        let pool = Pool::attach_handed(File::from(pool), true)
            .map_err(|e| Error::Pool { broker, source: Box::new(e) })?;
        // One mapping serves all connections: its pages are then faulted in once.
        let pool = match known {
            Some(known) if known.header().uuid == pool.header().uuid => Arc::clone(known),
            _ => Arc::new(pool),
        };
        let mut link = Self {
            broker,
            pool,
            session_index,
            socket,
            _writer: writer,
            to_broker: LineProducer::resume(&channel, TO_BROKER),
            from_broker: LineConsumer::resume(&channel, TO_CLIENT),
            channel,
            backlog: VecDeque::new(),
            ring: false,
            extents: Vec::with_capacity(EXTENTS_MAX),
            current: [None; LANES],
            asked: 0,
            used_up: 0,
            batch_bytes: batch_bytes.next_multiple_of(64),
            lost_segment: None,
            heartbeat: Heartbeat::of(broker),
        };
        link.ask(link.batch_bytes);
        link.ring_if_parked()?;
        Ok(link)
    }

    /// The next frame from the broker. Extents are kept here and not shown; whether one came is
    /// the second value.
    #[inline]
    pub(crate) fn next_frame(&mut self) -> Result<(Option<Frame>, bool), Error> {
        let mut granted = false;
        loop {
            let Some(line) = self.from_broker.pop(&self.channel) else {
                return Ok((None, granted));
            };
            let frame = Frame::from_line(line)
                .map_err(|source| Error::Frame { broker: self.broker, source })?;
            let Frame::Extent { extent, segment, generation, offset, bytes, .. } = frame else {
                return Ok((Some(frame), granted));
            };
            self.granted(extent, Location { segment, generation, offset }, bytes)?;
            granted = true;
        }
    }

    fn granted(&mut self, number: u32, place: Location, bytes: u32) -> Result<(), Error> {
        let Location { segment, generation, offset } = place;
        let inside = self.pool.at(segment, offset, bytes).is_some();
        if !inside || !offset.is_multiple_of(64) || bytes < ROOM_LEAST || self.asked == 0 {
            let what = format!(
                "granted extent {number} of {bytes} bytes at {offset} of segment {segment}, with \
                 {} asked for; the pool has {} segments of {} bytes",
                self.asked,
                self.pool.geometry().segments(),
                self.pool.geometry().segment_bytes()
            );
            return Err(Error::Unexpected { broker: self.broker, what });
        }
        self.asked -= 1;
        self.extents.push(Extent {
            number,
            segment,
            generation,
            next: offset,
            // Whole lines: a batch begins on one.
            end: offset + bytes / 64 * 64,
            lane: None,
            unwritten: 0,
            ending: false,
        });
        Ok(())
    }

    /// Room for a batch of `lane` of at least `least` bytes, preamble included. `None`: an extent
    /// is asked for and not here yet.
    pub(crate) fn room(&mut self, lane: usize, least: u32) -> Option<Room> {
        let fits = |extent: &&mut Extent| !extent.ending && extent.room() >= least;
        let current = self.current[lane];
        if let Some(extent) = self.extents.iter_mut().find(|extent| Some(extent.number) == current)
        {
            if extent.room() >= least {
                let half = (extent.room() as u64) < self.batch_bytes.into();
                let room = take(&self.pool, extent)?;
                if half || self.used_up > 0 {
                    self.ask_ahead();
                }
                return Some(room);
            }
            extent.ending = true;
            self.current[lane] = None;
            self.used_up += 1;
            self.end_extents();
        }
        let spare = self.extents.iter_mut().filter(|extent| extent.lane.is_none()).find(fits);
        let Some(extent) = spare else {
            self.ask_for(least);
            return None;
        };
        extent.lane = Some(lane);
        self.current[lane] = Some(extent.number);
        let room = take(&self.pool, extent)?;
        if self.used_up > 0 {
            self.ask_ahead();
        }
        Some(room)
    }

    /// One extent beyond those that lanes write into, so that the next is there when one is full.
    fn ask_ahead(&mut self) {
        if self.asked == 0 && !self.extents.iter().any(|e| e.lane.is_none() && !e.ending) {
            self.ask(self.batch_bytes);
        }
    }

    /// An extent that has `least` bytes, unless one is on its way.
    fn ask_for(&mut self, least: u32) {
        if self.asked > 0 && least <= self.batch_bytes {
            return;
        }
        if self.asked == 0 && self.extents.len() >= EXTENTS_MAX {
            // Spares too small for what has to be placed make room for one that is not.
            for extent in self.extents.iter_mut().filter(|extent| extent.lane.is_none()) {
                extent.ending = true;
            }
            self.end_extents();
        }
        self.ask(least.max(self.batch_bytes));
    }

    fn ask(&mut self, bytes: u32) {
        if self.asked + self.extents.len() < EXTENTS_MAX && self.asked < 2 {
            self.asked += 1;
            self.push(Frame::ExtentWanted { bytes });
        }
    }

    /// The batch that was being filled in `extent` takes `bytes` bytes, preamble included.
    pub(crate) fn filled(&mut self, extent: u32, bytes: u32) {
        if let Some(extent) = self.extents.iter_mut().find(|e| e.number == extent) {
            // The extent ends on a line and the batch is inside it, so this stays inside it too.
            extent.next += bytes.next_multiple_of(64);
        }
    }

    /// Writes the preamble of a whole batch, last of all its bytes, and tells the broker.
    pub(crate) fn written(&mut self, room: Place, preamble: &[u8; 64], seq: u64) {
        let Place { location, extent, bytes } = room;
        let at = self.pool.at(location.segment, location.offset, bytes);
        let at = at.expect("the batch was placed in an extent that was checked");
        self.pool.write(at, preamble).expect("the pool is mapped for writing");
        if self.pool.is_lost(location.segment) {
            // What was stored may be seen by this process alone. It is read back from there, and
            // written elsewhere, over the next connection.
            self.lost_segment.get_or_insert(location.segment);
            return;
        }
        // The payload may have gone past the caches: it comes before the frame that names it.
        stream_fence();
        self.push(Frame::Written { extent, offset: location.offset, bytes, batch_seq: seq });
        if let Some(extent) = self.extents.iter_mut().find(|e| e.number == extent) {
            extent.unwritten = extent.unwritten.saturating_sub(1);
            if extent.ending {
                self.end_extents();
            }
        }
    }

    /// Puts a batch from private memory into an extent. `None`: no room yet.
    pub(crate) fn place(&mut self, lane: usize, buffer: &[u8]) -> Option<Place> {
        let bytes = buffer.len() as u32;
        let room = self.room(lane, bytes)?;
        let payload = &buffer[PREAMBLE_BYTES as usize..];
        let at = room.at + u64::from(PREAMBLE_BYTES);
        let stored = if bytes >= STREAM_BYTES_LEAST {
            self.pool.stream(at, payload)
        } else {
            self.pool.write(at, payload)
        };
        stored.expect("the room was checked against the pool");
        self.filled(room.extent, bytes);
        Some(Place { location: room.location, extent: room.extent, bytes })
    }

    /// Gives back extents that end and whose batches the broker all knows of.
    fn end_extents(&mut self) {
        let mut i = 0;
        while i < self.extents.len() {
            let extent = &self.extents[i];
            if extent.ending && extent.unwritten == 0 {
                let number = self.extents.remove(i).number;
                self.push(Frame::ExtentDone { extent: number });
            } else {
                i += 1;
            }
        }
    }

    /// Whether the channel takes another batch at once.
    pub(crate) fn takes(&self) -> bool {
        self.backlog.is_empty()
    }

    pub(crate) fn push(&mut self, frame: Frame) {
        if !self.backlog.is_empty() || !self.to_broker.push(&self.channel, frame.to_line()) {
            self.backlog.push_back(frame);
        }
        self.ring = true;
    }

    /// Moves what waits for the ring, and wakes the broker if there is something and it sleeps.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        if let Some(segment) = self.lost_segment {
            let why = format!("segment {segment} of the pool cannot be written everywhere");
            return Err(self.lost("writing", io::Error::other(why)));
        }
        while let Some(frame) = self.backlog.front() {
            if !self.to_broker.push(&self.channel, frame.to_line()) {
                break;
            }
            self.backlog.pop_front();
        }
        self.ring_if_parked()
    }

    fn ring_if_parked(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.ring) || !is_parked(&self.channel, BROKER_PARKED_AT) {
            return Ok(());
        }
        match send(&self.socket, &[Piece::new(&[1])]) {
            // A full socket holds enough to wake anybody.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                Err(self.lost("ringing", error))
            }
            _ => Ok(()),
        }
    }

    /// Says that this side is about to sleep, or is awake. Returns whether it may sleep: nothing
    /// has come meanwhile.
    pub(crate) fn park(&mut self, parked: bool) -> bool {
        set_parked(&self.channel, CLIENT_PARKED_AT, parked);
        parked && !self.from_broker.is_ready(&self.channel)
    }

    /// Takes the bells from the socket and sees whether it has ended: the broker is gone then.
    pub(crate) fn check_alive(&mut self) -> Result<(), Error> {
        let mut bells = [0; 64];
        loop {
            match self.socket.read(&mut bells) {
                Ok(0) => {
                    return Err(self.lost("listening", io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(_) => {}
                Err(error) => {
                    return match error.kind() {
                        io::ErrorKind::WouldBlock => Ok(()),
                        io::ErrorKind::Interrupted => continue,
                        _ => Err(self.lost("listening", error)),
                    };
                }
            }
        }
    }

    /// Whether the broker's heartbeat has moved since the last look.
    pub(crate) fn has_beaten(&mut self) -> bool {
        self.heartbeat.has_moved(&self.pool)
    }

    fn lost(&self, doing: &'static str, source: io::Error) -> Error {
        Error::Connection { broker: self.broker, doing, source }
    }

    /// The session's epoch as its line says it now.
    pub(crate) fn session_epoch_now(&self) -> Option<u32> {
        self.pool.session_standing(self.session_index).map(|standing| standing.epoch)
    }
}

impl AsFd for MemoryLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A whole batch's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) location: Location,
    pub(crate) extent: u32,
    /// Bytes of preamble and payload.
    pub(crate) bytes: u32,
}

fn take(pool: &Pool, extent: &mut Extent) -> Option<Room> {
    let bytes = extent.room();
    let at = pool.at(extent.segment, extent.next, bytes)?;
    extent.unwritten += 1;
    let location =
        Location { segment: extent.segment, generation: extent.generation, offset: extent.next };
    Some(Room { location, extent: extent.number, bytes, at })
}

/// Reads a payload back that was written at `location`, with 64 bytes for a preamble in front.
/// The segment's generation is looked at before and after: a segment that was given another use
/// holds other bytes. They are copied word by word, since by then others may be writing them.
pub(crate) fn read_back(
    pool: &Pool,
    location: Location,
    payload_bytes: u32,
) -> Result<Vec<u8>, String> {
    let Location { segment, generation, offset } = location;
    let gone = || {
        format!(
            "segment {segment} has generation {} now and had {generation} when they were written",
            pool.segment_generation(segment)
        )
    };
    let still = || {
        pool.follow();
        let header = pool.segment_header(SegmentId(segment));
        header.is_some_and(|header| header.generation == generation)
    };
    if !still() {
        return Err(gone());
    }
    let span = payload_bytes.next_multiple_of(8);
    let at = offset
        .checked_add(PREAMBLE_BYTES)
        .and_then(|offset| pool.at(segment, offset, span))
        .ok_or_else(|| {
        format!("{payload_bytes} bytes at {offset} are not in segment {segment}")
    })?;
    pool.refresh(at, span.into());
    let mut buffer = Vec::with_capacity((PREAMBLE_BYTES + span) as usize);
    buffer.resize(PREAMBLE_BYTES as usize, 0);
    for word in 0..u64::from(span / 8) {
        buffer.extend_from_slice(&pool.load_relaxed(at + 8 * word).to_le_bytes());
    }
    buffer.truncate((PREAMBLE_BYTES + payload_bytes) as usize);
    // The generation is loaded after the copy was made.
    std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
    if still() { Ok(buffer) } else { Err(gone()) }
}
