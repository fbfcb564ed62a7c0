//! One connection: its socket, what it is for, what is still to be sent.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use landfall_layout::TopicId;
use landfall_layout::channel::CLIENT_PARKED_AT;
use landfall_layout::command::Body;
use landfall_layout::frame::{
    Ack, FRAME_BYTES, Frame, FrameError, LogPlace, Refusal, Stall, TAIL_BYTES_MAX,
};
use landfall_layout::limits::IN_FLIGHT_BATCHES_MAX;
use landfall_pool::Mapping;
use landfall_pool::channel::{HOLD, is_parked};
use landfall_pool::line_ring::{LineConsumer, LineProducer};
use landfall_pool::shared::{Piece, SharedBytes, send};

use crate::conns::Token;
use crate::deliver_tcp::Delivering;
use crate::halves::Stillness;
use crate::hello::Greeting;
use crate::land::{Session, Wait};
use crate::publish_memory::Extents;
use crate::publish_tcp;
use crate::segments::Granted;
use crate::verbs::link::Link;
use crate::verbs::{Knocking, Reading, VerbsPublisher};

/// A connected socket.
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Over verbs, and not let in yet.
    Knocking(Box<Knocking>),
    /// Over verbs.
    Verbs(Box<Link>),
}

impl Socket {
    /// The stream, of a connection that is one.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(stream) => Some(stream.as_fd()),
            Self::Unix(stream) => Some(stream.as_fd()),
            Self::Knocking(_) | Self::Verbs(_) => None,
        }
    }

    pub fn is_verbs(&self) -> bool {
        matches!(self, Self::Knocking(_) | Self::Verbs(_))
    }

    pub fn recv(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
            Self::Knocking(_) | Self::Verbs(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    pub fn shutdown_write(&self) {
        // The other side may be gone already, which is what this is for.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
            // The client closes the connection when it has read its last frame.
            Self::Knocking(_) | Self::Verbs(_) => Ok(()),
        };
    }
}

/// What a connection is for.
pub enum Kind {
    /// Its first frame is not here yet, or not answered.
    Greeting(Box<Greeting>),
    Publisher(Publisher),
    /// A subscriber over the socket.
    Stream(Box<Delivering>),
    /// A subscriber that reads the pool.
    Reader(Reader),
    /// A subscriber that reads the pool from afar.
    RemoteReader(Box<Reading>),
    /// Only waits until the other side has read everything and closed, or for the deadline. A
    /// memory publisher's claims stand until then: it may still be writing.
    Closing {
        deadline_ns: u64,
        publisher: Option<Publisher>,
        said_all: bool,
    },
}

/// A publisher.
pub struct Publisher {
    pub topic: TopicId,
    pub session: Session,
    pub ack: Ack,
    /// Batches landed and not reported.
    pub in_flight: u32,
    /// It was told that its epoch is over: what it still sends is dropped.
    pub fenced: bool,
    /// Reservations that it asked for and that are not answered.
    pub wishes: u32,
    pub bye: bool,
    /// After its goodbye everything has its receipt, and its session is left.
    pub is_over: bool,
    pub stalled: Option<Stalled>,
    /// What it has brought: bytes over a socket, batches otherwise.
    pub brought: u64,
    pub still: Stillness,
    pub via: Via,
}

/// How its batches come.
pub enum Via {
    Stream(publish_tcp::Reading),
    Memory(Extents),
    Verbs(Box<VerbsPublisher>),
}

/// Since when a publisher waits, and when it was last told.
#[derive(Clone, Copy, Debug)]
pub struct Stalled {
    pub why: Wait,
    pub since_ns: u64,
    pub told_ns: u64,
    /// While it waits for its turn: its session's next sequence when that was looked at last, and
    /// the two above are times of `Led` from then on. While the sequence moves, others bring what
    /// this one waits for.
    pub next_seq: Option<u64>,
}

/// A memory subscriber.
pub struct Reader {
    pub topic: TopicId,
    pub sequenced: bool,
    /// Sum of the frontiers when the subscriber was last rung.
    pub rung_at: u64,
}

/// A memory client's channel.
pub struct Channel {
    pub mapping: Mapping,
    from_client: LineConsumer,
    to_client: LineProducer,
    /// Lines the ring had no room for: a client that sends and does not read.
    backlog: VecDeque<Body>,
    ring: bool,
}

impl Channel {
    pub fn new(mapping: Mapping) -> Self {
        use landfall_pool::channel::{TO_BROKER, TO_CLIENT};
        let from_client = LineConsumer::resume(&mapping, TO_BROKER);
        let to_client = LineProducer::resume(&mapping, TO_CLIENT);
        Self { mapping, from_client, to_client, backlog: VecDeque::new(), ring: false }
    }

    /// The client's next frame, if there is one.
    #[inline]
    pub fn take(&mut self) -> Option<Result<Frame, FrameError>> {
        self.from_client.pop(&self.mapping).map(Frame::from_line)
    }

    /// Whether a frame or a line for the client waits.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.from_client.is_ready(&self.mapping) || self.is_behind()
    }

    /// Whether the client was sent something since it was last rung.
    pub fn has_news(&self) -> bool {
        self.ring || self.is_behind()
    }

    /// Puts a line in; one that has no room waits.
    pub fn push(&mut self, line: Body) {
        if !self.backlog.is_empty() || !self.to_client.push(&self.mapping, line) {
            self.backlog.push_back(line);
        }
        self.ring = true;
    }

    /// Whether the client does not take what it is sent.
    pub fn is_behind(&self) -> bool {
        !self.backlog.is_empty()
    }
}

/// Bytes that wait for the socket.
pub struct Out {
    bytes: Vec<u8>,
    sent: usize,
}

impl Out {
    pub fn new() -> Self {
        Self { bytes: Vec::new(), sent: 0 }
    }

    /// Makes room for every receipt a publisher can have outstanding, and a few words more.
    pub fn reserve(&mut self) {
        self.bytes.reserve((usize::from(IN_FLIGHT_BATCHES_MAX) + 16) * FRAME_BYTES);
    }

    pub fn frames(&self) -> usize {
        (self.bytes.len() - self.sent) / FRAME_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Whole lines sent over verbs: tails are rounded up to them.
    fn flush_lines(&mut self, link: &mut Link) {
        let sent = link.send_lines(&self.bytes[self.sent..]);
        self.sent += sent * FRAME_BYTES;
        if self.is_empty() {
            self.bytes.clear();
            self.sent = 0;
        }
    }

    fn round_up(&mut self) {
        let lines = self.bytes.len().next_multiple_of(FRAME_BYTES);
        self.bytes.resize(lines, 0);
    }

    pub fn push(&mut self, frame: Frame, sentence: &str) {
        let mut end = sentence.len().min(TAIL_BYTES_MAX);
        while !sentence.is_char_boundary(end) {
            end -= 1;
        }
        self.push_bytes(frame, &sentence.as_bytes()[..end]);
    }

    fn push_bytes(&mut self, frame: Frame, tail: &[u8]) {
        if self.sent > 0 && self.bytes.len() + FRAME_BYTES + tail.len() > self.bytes.capacity() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(&frame.encode(tail.len()));
        self.bytes.extend_from_slice(tail);
    }

    /// Bytes of something that was begun already.
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The same, of bytes in the pool.
    pub fn append_shared(&mut self, bytes: SharedBytes<'_>) {
        bytes.append_to(&mut self.bytes);
    }

    fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            let piece = [Piece::new(&self.bytes[self.sent..])];
            self.sent += send(socket, &piece)?;
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }
}

/// What a connection waits for in epoll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
    /// The other side hung up while nothing was read from it: epoll would say so for ever.
    pub detached: bool,
}

/// A connection.
pub struct Conn {
    pub token: Token,
    pub socket: Socket,
    pub kind: Kind,
    pub out: Out,
    pub channel: Option<Channel>,
    /// What epoll was told.
    pub interest: Interest,
    pub touched: bool,
    /// When it was last told that the broker is there.
    pub beat_ns: u64,
    /// The topic it came for, also while it is closing.
    pub was_topic: Option<TopicId>,
}

impl Conn {
    pub fn new(token: Token, socket: Socket, kind: Kind) -> Self {
        Self {
            token,
            socket,
            kind,
            out: Out::new(),
            channel: None,
            interest: Interest { read: true, write: false, detached: false },
            touched: false,
            beat_ns: 0,
            was_topic: None,
        }
    }

    /// Queues a frame; the caller touches the connection.
    #[inline]
    pub fn tell(&mut self, frame: Frame) {
        match &mut self.channel {
            Some(channel) => channel.push(frame.to_line()),
            None => self.out.push(frame, ""),
        }
    }

    /// Whether a frame may be queued now only to show that the broker is there: what is on its way
    /// shows it too, and must not be broken into.
    pub fn takes_beat(&self) -> bool {
        let is_free = match &self.kind {
            Kind::Publisher(publisher) => matches!(publisher.via, Via::Stream(_)),
            Kind::Stream(delivering) => !self.socket.is_verbs() && !delivering.is_amid(),
            _ => false,
        };
        is_free && self.out.is_empty()
    }

    /// Queues where each log ends.
    #[cold]
    pub fn tell_ends(&mut self, ends: &[LogPlace]) {
        self.out.push_bytes(Frame::Ends, &LogPlace::encode_all(ends));
        if self.socket.is_verbs() {
            self.out.round_up();
        }
    }

    /// Queues a refusal. Lines of a channel have no tail, so there only the reason travels.
    #[cold]
    pub fn refuse(&mut self, why: Refusal, sentence: &str) {
        match &mut self.channel {
            Some(channel) => channel.push(Frame::Refused(why).to_line()),
            None => self.out.push(Frame::Refused(why), sentence),
        }
        if self.socket.is_verbs() {
            self.out.round_up();
        }
    }

    /// Sends what is queued, as far as the socket takes it, and rings a sleeping memory client.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(channel) = &mut self.channel {
            while let Some(line) = channel.backlog.front() {
                if !channel.to_client.push(&channel.mapping, *line) {
                    break;
                }
                channel.backlog.pop_front();
            }
            if std::mem::take(&mut channel.ring) && is_parked(&channel.mapping, CLIENT_PARKED_AT) {
                return self.ring();
            }
        }
        if let Socket::Verbs(link) = &mut self.socket {
            self.out.flush_lines(link);
            return Ok(());
        }
        let Some(socket) = self.socket.fd() else { return Ok(()) };
        match self.out.flush(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    /// Wakes a memory client. A full socket already holds enough to wake it.
    pub fn ring(&self) -> io::Result<()> {
        let Some(socket) = self.socket.fd() else { return Ok(()) };
        match send(socket, &[Piece::new(&[1])]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// The segment that a memory subscriber says it reads. Whoever may write the pool reads none of
    /// it: its connection is never closed for a hold, since its claims stand until it ends.
    pub fn held(&self) -> Option<u32> {
        if self.may_write() {
            return None;
        }
        self.channel.as_ref().and_then(|channel| HOLD.held(&channel.mapping))
    }

    pub fn topic(&self) -> Option<TopicId> {
        match &self.kind {
            Kind::Greeting(greeting) => greeting.topic(),
            Kind::Publisher(publisher) => Some(publisher.topic),
            Kind::Stream(delivering) => Some(delivering.topic()),
            Kind::Reader(reader) => Some(reader.topic),
            Kind::RemoteReader(reading) => Some(reading.topic),
            Kind::Closing { .. } => None,
        }
    }

    /// Its client for people: a process, if it is one that this host's kernel names here.
    #[cold]
    pub fn client(&self) -> String {
        let stream = match &self.socket {
            Socket::Unix(stream) => stream,
            Socket::Verbs(link) => return format!("a client at {}", link.queue.peer()),
            Socket::Tcp(_) | Socket::Knocking(_) => return "a client".to_owned(),
        };
        let peer = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials);
        match peer.map_or(0, |peer| peer.pid()) {
            0 => "a process that cannot be seen from here".to_owned(),
            pid => format!("process {pid}"),
        }
    }

    /// Whether its client may write into the pool, also one that was told to go.
    pub fn may_write(&self) -> bool {
        match &self.kind {
            Kind::Publisher(publisher) => publisher.writes_pool(),
            Kind::Closing { publisher, .. } => {
                publisher.as_ref().is_some_and(|publisher| publisher.writes_pool())
            }
            _ => false,
        }
    }

    /// Segments that its client may write into, also one that was told to go, each at least once.
    pub fn written(&self) -> Vec<Granted> {
        let publisher = match &self.kind {
            Kind::Publisher(publisher) => publisher,
            Kind::Closing { publisher: Some(publisher), .. } => publisher,
            _ => return Vec::new(),
        };
        match &publisher.via {
            Via::Memory(extents) if publisher.writes_pool() => extents.granted().collect(),
            _ => Vec::new(),
        }
    }
}

impl Publisher {
    /// Whether it may write into what it was granted: over memory, until it says goodbye.
    pub fn writes_pool(&self) -> bool {
        !self.bye && matches!(self.via, Via::Memory(_))
    }
}

impl Stalled {
    /// What a client is told about a wait, if it is one that others cause.
    pub fn shown(self) -> Option<Stall> {
        match self.why {
            Wait::Ring => Some(Stall::RingFull),
            Wait::Segment => Some(Stall::PoolFull),
            Wait::Log => Some(Stall::LogsFull),
            Wait::Halves => Some(Stall::HalvesFull),
            Wait::InFlight | Wait::Queue | Wait::Turn => None,
        }
    }
}
