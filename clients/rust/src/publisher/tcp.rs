//! A publisher's connection over a socket: batches out, receipts in.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use landfall_layout::frame::{FRAME_BYTES, Frame, TAIL_BYTES_MAX};
use landfall_pool::shared::{Piece, send};

use super::session::Session;
use crate::connect::Socket;
use crate::error::Error;

/// Bytes that wait for the socket before no more batches are sealed: enough to keep it busy, and
/// little enough that an urgent batch is not stuck behind much.
const UNSENT_BYTES_MAX: u64 = 512 << 10;
/// Pieces given to the system at once.
const PIECES: usize = 32;
/// Bytes of the receive buffer: some hundred receipts.
const INBOX_BYTES: usize = 32 << 10;

/// Something that waits for the socket.
enum Item {
    /// The batch of that sequence.
    Batch(u64),
    Frame([u8; FRAME_BYTES]),
}

/// The connection.
pub(crate) struct TcpLink {
    pub(crate) broker: u8,
    socket: Socket,
    inbox: Box<[u8]>,
    start: usize,
    end: usize,
    /// What waits for the socket.
    outbox: VecDeque<Item>,
    /// Bytes of the first that are sent.
    sent: usize,
    unsent_bytes: u64,
    /// A frame behind all batches: goodbye.
    farewell: Option<[u8; FRAME_BYTES]>,
    farewell_sent: usize,
    /// Something came since the last look at this.
    pub(crate) has_heard: bool,
}

impl TcpLink {
    pub(crate) fn new(broker: u8, socket: Socket) -> Self {
        Self {
            broker,
            socket,
            inbox: vec![0; INBOX_BYTES].into(),
            start: 0,
            end: 0,
            outbox: VecDeque::new(),
            sent: 0,
            unsent_bytes: 0,
            farewell: None,
            farewell_sent: 0,
            has_heard: false,
        }
    }

    /// Whether another batch may be sealed for this connection.
    pub(crate) fn takes(&self) -> bool {
        self.unsent_bytes < UNSENT_BYTES_MAX
    }

    /// Whether bytes wait for the socket.
    pub(crate) fn wants_write(&self) -> bool {
        !self.outbox.is_empty() || self.farewell.is_some()
    }

    /// Queues a sealed batch, whose buffer the session holds.
    pub(crate) fn queue(&mut self, seq: u64, bytes: u64) {
        self.outbox.push_back(Item::Batch(seq));
        self.unsent_bytes += bytes;
    }

    /// Queues a frame behind the batches that wait.
    pub(crate) fn say(&mut self, frame: Frame) {
        self.outbox.push_back(Item::Frame(frame.encode(0)));
        self.unsent_bytes += FRAME_BYTES as u64;
    }

    /// Whether that batch is out of our hands. Sequences go out in order.
    pub(crate) fn is_sent(&self, seq: u64) -> bool {
        let first = self.outbox.iter().find_map(|item| match item {
            Item::Batch(first) => Some(*first),
            Item::Frame(_) => None,
        });
        first.is_none_or(|first| seq < first)
    }

    /// Queues goodbye.
    pub(crate) fn say_bye(&mut self) {
        self.farewell = Some(Frame::Bye.encode(0));
    }

    /// Sends as much as the socket takes. `written` is told each batch that is out of our hands.
    /// Returns bytes sent.
    pub(crate) fn write(
        &mut self,
        session: &Session,
        mut written: impl FnMut(u64),
    ) -> Result<u64, Error> {
        let mut total = 0;
        loop {
            let mut pieces = [Piece::new(&[]); PIECES];
            let mut used = 0;
            let mut skip = self.sent;
            for item in &self.outbox {
                if used == PIECES {
                    break;
                }
                // A batch that settled while it waited here is not known any more: its receipt
                // came from before a reconnect, and its bytes are gone.
                let bytes = match item {
                    Item::Batch(seq) => {
                        session.get(*seq).and_then(|batch| batch.filled.bytes.private())
                    }
                    Item::Frame(frame) => Some(&frame[..]),
                };
                let Some(buffer) = bytes else { break };
                pieces[used] = Piece::new(&buffer[skip.min(buffer.len())..]);
                used += 1;
                skip = 0;
            }
            if used < PIECES
                && self.outbox.len() == used
                && let Some(farewell) = &self.farewell
            {
                pieces[used] = Piece::new(&farewell[self.farewell_sent..]);
                used += 1;
            }
            if used == 0 {
                return Ok(total);
            }
            match send(&self.socket, &pieces[..used]) {
                Ok(sent) => {
                    total += sent as u64;
                    self.advance(session, sent, &mut written);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(total),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(self.lost("sending", error)),
                },
            }
        }
    }

    fn advance(&mut self, session: &Session, mut sent: usize, written: &mut impl FnMut(u64)) {
        self.unsent_bytes = self.unsent_bytes.saturating_sub(sent as u64);
        while sent > 0 {
            let Some(item) = self.outbox.front() else {
                self.farewell_sent += sent;
                if self.farewell_sent >= FRAME_BYTES {
                    self.farewell = None;
                }
                return;
            };
            let (seq, length) = match item {
                Item::Batch(seq) => {
                    let batch = session.get(*seq);
                    (Some(*seq), batch.map_or(0, |batch| batch.filled.batch_bytes() as usize))
                }
                Item::Frame(frame) => (None, frame.len()),
            };
            let left = length - self.sent.min(length);
            if sent < left {
                self.sent += sent;
                return;
            }
            sent -= left;
            self.sent = 0;
            self.outbox.pop_front();
            seq.into_iter().for_each(&mut *written);
        }
    }

    /// Receives what is there. Returns whether anything came.
    pub(crate) fn receive(&mut self) -> Result<bool, Error> {
        if self.start > 0 {
            self.inbox.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        match self.socket.read(&mut self.inbox[self.end..]) {
            Ok(0) => Err(self.lost("listening", io::ErrorKind::UnexpectedEof.into())),
            Ok(got) => {
                self.end += got;
                self.has_heard = true;
                Ok(true)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(false),
                _ => Err(self.lost("listening", error)),
            },
        }
    }

    /// The next whole frame that was received, and its tail.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(Frame, &[u8])>, Error> {
        let Some(head) = self.inbox[self.start..self.end].first_chunk::<FRAME_BYTES>() else {
            return Ok(None);
        };
        let (frame, tail) =
            Frame::decode(*head).map_err(|source| Error::Frame { broker: self.broker, source })?;
        let whole = FRAME_BYTES + tail;
        if self.end - self.start < whole {
            return Ok(None);
        }
        let at = self.start + FRAME_BYTES;
        self.start += whole;
        Ok(Some((frame, &self.inbox[at..at + tail])))
    }

    fn lost(&self, doing: &'static str, source: io::Error) -> Error {
        Error::Connection { broker: self.broker, doing, source }
    }
}

impl AsFd for TcpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

const _: () = assert!(INBOX_BYTES >= 2 * (FRAME_BYTES + TAIL_BYTES_MAX), "a frame always fits");

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use landfall_pool::slab::Slab;

    use super::*;
    use crate::publisher::session::{Bytes, Filled, Slot};

    #[test]
    fn batches_that_lie_where_nics_send_from_go_over_a_socket_as_they_are() {
        let slab = Slab::new(2, 128).unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut link = TcpLink::new(3, Socket::Unix(near));
        let mut session = Session::default();
        for number in 0..3_u8 {
            let bytes = match slab.take() {
                Some(mut buffer) => {
                    buffer.fill(number);
                    Bytes::Slab(Slot::new(buffer, 80))
                }
                None => Bytes::Buffer(vec![number; 80]),
            };
            let filled = Filled {
                lane: 1,
                number: number.into(),
                count: 1,
                payload_bytes: 16,
                payload_crc: 0,
                bytes,
                link: 0,
                extent: 0,
                position: None,
            };
            session.push(filled, 1);
            link.queue(number.into(), 80);
        }
        let mut written = Vec::new();
        assert_eq!(link.write(&session, |seq| written.push(seq)).unwrap(), 240);
        assert_eq!(written, [0, 1, 2]);
        let mut bytes = [9; 240];
        far.read_exact(&mut bytes).unwrap();
        for (number, batch) in bytes.chunks(80).enumerate() {
            assert_eq!(batch, [number as u8; 80]);
        }
        assert!(slab.take().is_none());
        session.settle(0);
        assert!(slab.take().is_some(), "its receipt gives a buffer back");
    }
}
