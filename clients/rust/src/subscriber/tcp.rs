//! Receiving batches over a socket, and reading them where they were received.

use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use landfall_layout::batch::{BatchPreamble, PREAMBLE_BYTES};
use landfall_layout::frame::{Delivery, FRAME_BYTES, Frame, TAIL_BYTES_MAX};

use super::frames::{self, Announced, Said, announced, check_delivery, end_of};
use super::places::Places;
use super::{Place, Step, Wanted, check_batch};
use crate::connect::Socket;
use crate::error::Error;

/// Bytes received ahead of what is needed, at most: small batches come many in one system call,
/// and what is left of a half-received one is little to move to the front.
const AHEAD_BYTES: usize = 256 << 10;

/// A batch found, and where its bytes are.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) place: Place,
    pub(crate) preamble: BatchPreamble,
    pub(crate) payload: Range<usize>,
}

/// The connection, with one buffer that is used again and again.
pub(crate) struct StreamReader {
    pub(crate) broker: u8,
    socket: Socket,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes from `start` on that the next item needs before it is whole.
    need: usize,
    wanted: Wanted,
    /// Something came since the last look at this.
    pub(crate) has_heard: bool,
}

impl StreamReader {
    pub(crate) fn new(broker: u8, socket: Socket, wanted: Wanted) -> Self {
        let room = wanted.batch_bytes_max as usize + FRAME_BYTES + TAIL_BYTES_MAX + AHEAD_BYTES;
        Self {
            broker,
            socket,
            buffer: vec![0; room],
            start: 0,
            end: 0,
            need: FRAME_BYTES,
            wanted,
            has_heard: false,
        }
    }

    /// The next thing that is whole in the buffer; receives as long as there is none and the
    /// socket has some. Never waits.
    pub(crate) fn step(
        &mut self,
        places: &mut Places,
        verify: bool,
    ) -> Result<Step<Received>, Error> {
        loop {
            match self.parse(places, verify)? {
                Step::Nothing => {}
                step => return Ok(step),
            }
            if self.end - self.start < self.need && !self.receive()? {
                return Ok(Step::Nothing);
            }
        }
    }

    /// What lies at the start of the buffer. `Nothing`: more is needed, or it was passed over.
    fn parse(&mut self, places: &mut Places, verify: bool) -> Result<Step<Received>, Error> {
        let broker = self.broker;
        let here = &self.buffer[self.start..self.end];
        let Some(head) = here.first_chunk::<FRAME_BYTES>() else {
            self.need = FRAME_BYTES;
            return Ok(Step::Nothing);
        };
        let (frame, tail) =
            Frame::decode(*head).map_err(|source| Error::Frame { broker, source })?;
        if let Frame::Delivery(delivery) = frame {
            return self.parse_batch(delivery, places, verify);
        }
        let whole = FRAME_BYTES + tail;
        if here.len() < whole {
            self.need = whole;
            return Ok(Step::Nothing);
        }
        let tail = &here[FRAME_BYTES..whole];
        let Said { step, is_all } = frames::step(broker, frame, tail, places)?;
        if is_all {
            self.pass(whole);
        }
        Ok(step)
    }

    fn parse_batch(
        &mut self,
        delivery: Delivery,
        places: &mut Places,
        verify: bool,
    ) -> Result<Step<Received>, Error> {
        let Delivery { log, bytes, index, first_position, .. } = delivery;
        check_delivery(self.broker, &delivery, self.wanted.batch_bytes_max, places)?;
        let whole = FRAME_BYTES + bytes as usize;
        if self.end - self.start < whole {
            self.need = whole;
            return Ok(Step::Nothing);
        }
        let place = match announced(&delivery, places) {
            Announced::Old => {
                self.pass(whole);
                return Ok(Step::Nothing);
            }
            Announced::AfterGap { missed } => {
                return Ok(Step::gap(log, missed, first_position));
            }
            Announced::Batch(place) => place,
        };
        let at = self.start + FRAME_BYTES;
        let batch = &self.buffer[at..at + bytes as usize];
        let checked = check_batch(batch, &place, self.wanted, verify);
        places.shown(log, index, end_of(&delivery));
        self.pass(whole);
        match checked {
            Ok(preamble) => {
                let payload = at + PREAMBLE_BYTES as usize..at + bytes as usize;
                Ok(Step::Batch(Received { place, preamble, payload }))
            }
            Err(why) => Err(Error::Corrupt {
                log,
                index,
                position: first_position,
                count: place.count,
                why,
            }),
        }
    }

    /// What was at the start of the buffer is done with, once something is received again.
    fn pass(&mut self, bytes: usize) {
        self.start += bytes;
        self.need = FRAME_BYTES;
    }

    /// Receives what the next item needs, and some more. Whether anything came.
    fn receive(&mut self) -> Result<bool, Error> {
        if self.start == self.end {
            // The front of the buffer is what the caches still have.
            (self.start, self.end) = (0, 0);
        } else if self.start + self.need > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let missing = self.need - (self.end - self.start);
        // A large batch is received to its end and the next frame's: nothing of the batch after it
        // has then to be moved to the front.
        let most = if missing >= AHEAD_BYTES { missing + FRAME_BYTES } else { AHEAD_BYTES };
        let until = self.buffer.len().min(self.end + most);
        match self.socket.read(&mut self.buffer[self.end..until]) {
            Ok(0) => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(got) => {
                self.end += got;
                self.has_heard = true;
                Ok(true)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Ok(false),
                io::ErrorKind::Interrupted => Ok(true),
                _ => Err(self.lost(error)),
            },
        }
    }

    fn lost(&self, source: io::Error) -> Error {
        Error::Connection { broker: self.broker, doing: "receiving", source }
    }

    /// The payload of the batch that was found last.
    #[inline]
    pub(crate) fn payload(&self, received: &Received) -> &[u8] {
        self.buffer.get(received.payload.clone()).unwrap_or_default()
    }
}

impl AsFd for StreamReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
