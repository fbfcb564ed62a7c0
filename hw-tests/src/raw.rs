//! A client that speaks the wire itself: what a well-behaved one never sends is sent from here.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use landfall::api::Topic;
use landfall_layout::batch::{BatchPreamble, MESSAGE_ALIGN, MESSAGE_HEADER_BYTES, crc32c};
use landfall_layout::frame::{
    Ack, Carrier, FRAME_BYTES, Frame, From, Hello, Receipt, Refusal, Role, Welcome,
};

use crate::rig::patience;
use crate::{Failure, Site};

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_read_timeout(&self, wait: Duration) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(wait)),
            Self::Unix(stream) => stream.set_read_timeout(Some(wait)),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

/// What came from the broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A frame and the text behind it.
    Frame(Frame, String),
    /// Nothing, for as long as was waited.
    Nothing,
    /// The connection ended.
    Closed,
}

/// A connection to a broker.
pub struct Raw {
    stream: Stream,
    inbox: Vec<u8>,
}

/// The greeting of a publisher that wants receipts.
pub fn publisher(client: u64, session_epoch: u32) -> Hello {
    Hello {
        role: Role::Publish,
        carrier: Carrier::Stream,
        ack: Ack::Ordered,
        client,
        session_epoch,
        life: 0,
        comes_back: false,
        from: From::Earliest,
        checked: false,
    }
}

impl Raw {
    /// Connects to `host:port`, a path, or an abstract `@name`.
    pub fn connect(address: &str) -> Result<Self, Failure> {
        let stream = if let Some(name) = address.strip_prefix('@') {
            let name = SocketAddr::from_abstract_name(name)?;
            Stream::Unix(UnixStream::connect_addr(&name)?)
        } else if address.starts_with('/') {
            Stream::Unix(UnixStream::connect(address)?)
        } else {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            Stream::Tcp(stream)
        };
        match &stream {
            Stream::Tcp(stream) => stream.set_write_timeout(Some(patience()))?,
            Stream::Unix(stream) => stream.set_write_timeout(Some(patience()))?,
        }
        Ok(Self { stream, inbox: Vec::new() })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends a frame with text behind it.
    pub fn send_frame(&mut self, frame: Frame, tail: &[u8]) -> Result<(), Failure> {
        let mut bytes = frame.encode(tail.len()).to_vec();
        bytes.extend_from_slice(tail);
        self.send(&bytes)
    }

    /// The next frame that says more than that the broker is there, if one comes within `wait`.
    pub fn hear(&mut self, wait: Duration) -> Result<Heard, Failure> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(head) = self.inbox.first_chunk::<FRAME_BYTES>() {
                let (frame, tail) = Frame::decode(*head)?;
                if self.inbox.len() >= FRAME_BYTES + tail {
                    let text = String::from_utf8_lossy(&self.inbox[FRAME_BYTES..][..tail]).into();
                    self.inbox.drain(..FRAME_BYTES + tail);
                    if frame == Frame::Beat {
                        continue;
                    }
                    return Ok(Heard::Frame(frame, text));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Heard::Nothing);
            }
            self.stream.set_read_timeout(left)?;
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(Heard::Closed),
                Ok(got) => self.inbox.extend_from_slice(&bytes[..got]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(Heard::Nothing),
                    ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                        return Ok(Heard::Closed);
                    }
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// The next frame; anything else is a failure.
    pub fn expect(&mut self) -> Result<(Frame, String), Failure> {
        match self.hear(patience())? {
            Heard::Frame(frame, text) => Ok((frame, text)),
            other => Err(Failure::new(format!("a frame was expected and there was {other:?}"))),
        }
    }

    /// Waits to be refused, and returns the reason and the sentence. The connection then ends.
    pub fn expect_refusal(&mut self) -> Result<(Refusal, String), Failure> {
        loop {
            match self.expect()? {
                (Frame::Refused(why), text) => {
                    ensure!(!text.is_empty(), "refused as {why:?} without a sentence");
                    match self.hear(patience())? {
                        Heard::Closed => return Ok((why, text)),
                        other => {
                            let what = format!("after a refusal came {other:?}");
                            return Err(Failure::new(what));
                        }
                    }
                }
                (
                    Frame::Receipt(_) | Frame::Welcome(_) | Frame::Stalled { .. } | Frame::Held(_),
                    _,
                ) => {}
                other => {
                    return Err(Failure::new(format!("a refusal was expected, not {other:?}")));
                }
            }
        }
    }
}

/// A raw publisher that was welcomed.
pub struct Session {
    /// Its connection.
    pub raw: Raw,
    /// What it was told.
    pub welcome: Welcome,
    /// Its client id.
    pub client: u64,
}

impl Session {
    /// Opens a session (epoch 0) or joins an epoch of it, through that broker.
    pub fn open(
        site: &Site,
        broker: usize,
        topic: &Topic,
        client: u64,
        epoch: u32,
    ) -> Result<Self, Failure> {
        let mut raw = Raw::connect(&site.address(broker)?)?;
        raw.send_frame(Frame::Hello(publisher(client, epoch)), topic.name.as_bytes())?;
        match raw.expect()? {
            (Frame::Welcome(welcome), _) => {
                ensure!(welcome.topic.0 == topic.id, "welcomed to topic {:#x}", welcome.topic.0);
                ensure!(usize::from(welcome.broker) == broker, "broker {}", welcome.broker);
                Ok(Self { raw, welcome, client })
            }
            (frame, text) => Err(Failure::new(format!("not welcomed: {frame:?} {text}"))),
        }
    }

    /// A batch of one message of this session.
    pub fn batch(&self, seq: u64, message: &[u8]) -> Batch {
        let preamble = BatchPreamble {
            topic: self.welcome.topic.0,
            session_epoch: self.welcome.session_epoch,
            client: self.client,
            batch_seq: seq,
            sealed_ns: 1,
            ..BatchPreamble::default()
        };
        Batch::new(preamble, &[message])
    }

    /// Sends batches of one message each, with these sequences: message `seq` of this client.
    pub fn send(&mut self, seqs: impl IntoIterator<Item = u64>) -> Result<(), Failure> {
        for seq in seqs {
            let batch = self.batch(seq, &crate::flow::message(self.client, seq, 100));
            self.raw.send(&batch.bytes())?;
        }
        Ok(())
    }

    /// The next receipt. Stalls on the way are passed over.
    pub fn receipt(&mut self) -> Result<Receipt, Failure> {
        loop {
            match self.raw.expect()? {
                (Frame::Receipt(receipt), _) => return Ok(receipt),
                (Frame::Stalled { .. } | Frame::Held(_), _) => {}
                other => {
                    return Err(Failure::new(format!("a receipt was expected, not {other:?}")));
                }
            }
        }
    }

    /// That many receipts.
    pub fn receipts(&mut self, count: usize) -> Result<Vec<Receipt>, Failure> {
        (0..count).map(|_| self.receipt()).collect()
    }

    /// Waits to be told that the epoch is over; returns the first sequence that is not ordered.
    /// Receipts before it are collected.
    pub fn fenced(&mut self, receipts: &mut Vec<Receipt>) -> Result<u64, Failure> {
        loop {
            match self.raw.expect()? {
                (Frame::Fenced { session_epoch, next_seq }, _) => {
                    let ours = self.welcome.session_epoch;
                    ensure!(session_epoch == ours, "epoch {session_epoch} fenced, ours is {ours}");
                    return Ok(next_seq);
                }
                (Frame::Receipt(receipt), _) => receipts.push(receipt),
                (Frame::Stalled { .. } | Frame::Held(_), _) => {}
                other => return Err(Failure::new(format!("Fenced was expected, not {other:?}"))),
            }
        }
    }

    /// Says goodbye and waits for the answer.
    pub fn bye(mut self) -> Result<(), Failure> {
        self.raw.send_frame(Frame::Bye, b"")?;
        loop {
            match self.raw.expect()? {
                (Frame::Bye, _) => return Ok(()),
                (Frame::Receipt(_), _) => {}
                other => return Err(Failure::new(format!("Bye was expected, not {other:?}"))),
            }
        }
    }
}

/// A batch that can still be spoiled.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its preamble, sealed.
    pub preamble: BatchPreamble,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Batch {
    /// A batch of these messages; `preamble` says whose.
    pub fn new(preamble: BatchPreamble, messages: &[&[u8]]) -> Self {
        let mut payload = Vec::new();
        for message in messages {
            let mut header = [0; MESSAGE_HEADER_BYTES];
            header[..4].copy_from_slice(&(message.len() as u32).to_le_bytes());
            payload.extend_from_slice(&header);
            payload.extend_from_slice(message);
            payload.resize(payload.len().next_multiple_of(MESSAGE_ALIGN), 0);
        }
        let preamble = BatchPreamble {
            payload_bytes: payload.len() as u32,
            payload_crc: crc32c(&payload),
            count: messages.len() as u16,
            ..preamble
        };
        Self { preamble: preamble.seal(), payload }
    }

    /// The same with something of the preamble changed; its checksum is made to hold.
    pub fn with(mut self, change: impl FnOnce(&mut BatchPreamble)) -> Self {
        change(&mut self.preamble);
        let mut bytes = self.preamble.to_bytes();
        let crc = crc32c(&bytes[..56]);
        bytes[56..60].copy_from_slice(&crc.to_le_bytes());
        self.preamble = BatchPreamble::from_bytes(bytes);
        self
    }

    /// Preamble and payload.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.preamble.to_bytes().to_vec();
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}
