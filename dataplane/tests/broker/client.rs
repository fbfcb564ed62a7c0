//! Clients that say exactly what a test wants said.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use landfall_layout::TopicId;
use landfall_layout::batch::{BatchPreamble, MessageHeader, crc32c};
use landfall_layout::channel::CLIENT_PARKED_AT;
use landfall_layout::frame::{
    Ack, Carrier, Delivery, FRAME_BYTES, Frame, From, Hello, Receipt, Refusal, Role, Welcome,
};
use landfall_pool::channel::{TO_BROKER, TO_CLIENT, open, set_parked};
use landfall_pool::line_ring::{LineConsumer, LineProducer};
use landfall_pool::{Mapping, Pool};
use zerocopy::IntoBytes;

use crate::rig::until;

pub fn publisher(client: u64) -> Hello {
    Hello {
        role: Role::Publish,
        carrier: Carrier::Stream,
        ack: Ack::Ordered,
        client,
        session_epoch: 0,
        life: 0,
        comes_back: false,
        from: From::Earliest,
        checked: false,
    }
}

pub fn subscriber(from: From) -> Hello {
    Hello { role: Role::Subscribe, ack: Ack::None, from, ..publisher(0) }
}

/// One message of `payload` bytes, each of value `fill`, as a sealed batch.
pub fn batch(topic: TopicId, client: u64, epoch: u32, seq: u64, payload: &[u8]) -> Vec<u8> {
    let header = MessageHeader {
        payload_bytes: payload.len() as u32,
        key_bytes: 0,
        flags: 0,
        timestamp_ns: 0,
    };
    let mut body = header.as_bytes().to_vec();
    body.extend_from_slice(payload);
    body.resize(body.len().next_multiple_of(8), 0);
    let preamble = BatchPreamble {
        topic: topic.0,
        session_epoch: epoch,
        client,
        batch_seq: seq,
        sealed_ns: 1,
        payload_bytes: body.len() as u32,
        payload_crc: crc32c(&body),
        count: 1,
        ..BatchPreamble::default()
    };
    let mut bytes = preamble.seal().to_bytes().to_vec();
    bytes.extend_from_slice(&body);
    bytes
}

pub enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(into),
            Self::Unix(s) => s.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(from),
            Self::Unix(s) => s.write(from),
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub struct Client {
    pub wire: Wire,
    pub welcome: Option<Welcome>,
}

pub fn unix_stream(address: &str) -> UnixStream {
    UnixStream::connect(address).unwrap()
}

impl Client {
    pub fn raw(address: &str) -> Self {
        let wire = if address.starts_with('/') {
            let stream = unix_stream(address);
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            Wire::Unix(stream)
        } else {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            Wire::Tcp(stream)
        };
        Self { wire, welcome: None }
    }

    pub fn hello(address: &str, hello: Hello, topic: &str) -> (Self, Frame, String) {
        Self::hello_tail(address, hello, topic.as_bytes())
    }

    /// With anything behind the frame.
    pub fn hello_tail(address: &str, hello: Hello, tail: &[u8]) -> (Self, Frame, String) {
        let mut client = Self::raw(address);
        client.send(&Frame::Hello(hello).encode(tail.len()));
        client.send(tail);
        let (frame, tail) = client.frame();
        (client, frame, tail)
    }

    pub fn welcomed(address: &str, hello: Hello, topic: &str) -> Self {
        let (mut client, frame, tail) = Self::hello(address, hello, topic);
        let Frame::Welcome(welcome) = frame else { panic!("{frame:?} {tail}") };
        client.welcome = Some(welcome);
        client
    }

    pub fn welcome(&self) -> Welcome {
        self.welcome.unwrap()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.wire.write_all(bytes).unwrap();
    }

    pub fn publish(&mut self, client: u64, seq: u64, payload: &[u8]) {
        let Welcome { topic, session_epoch, .. } = self.welcome();
        self.send(&batch(topic, client, session_epoch, seq, payload));
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.wire.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next frame that says more than that the broker is there.
    pub fn frame(&mut self) -> (Frame, String) {
        let since = Instant::now();
        loop {
            assert!(since.elapsed() < Duration::from_secs(20), "nothing but beats came");
            let head: [u8; FRAME_BYTES] = self.bytes(FRAME_BYTES).try_into().unwrap();
            let (frame, tail) = Frame::decode(head).unwrap();
            let tail = self.bytes(tail);
            if frame != Frame::Beat {
                return (frame, String::from_utf8(tail).unwrap());
            }
        }
    }

    /// The broker says that it is there, and nothing else.
    pub fn beat(&mut self) {
        let head: [u8; FRAME_BYTES] = self.bytes(FRAME_BYTES).try_into().unwrap();
        assert_eq!(Frame::decode(head), Ok((Frame::Beat, 0)));
    }

    pub fn receipt(&mut self) -> Receipt {
        match self.frame() {
            (Frame::Receipt(receipt), _) => receipt,
            other => panic!("{other:?}"),
        }
    }

    pub fn refused(&mut self) -> (Refusal, String) {
        match self.frame() {
            (Frame::Refused(why), sentence) => (why, sentence),
            other => panic!("{other:?}"),
        }
    }

    /// What it was refused for, if the broker has told it by now.
    pub fn last_word(&mut self) -> Option<(Refusal, String)> {
        match &self.wire {
            Wire::Tcp(stream) => stream.set_nonblocking(true).unwrap(),
            Wire::Unix(stream) => stream.set_nonblocking(true).unwrap(),
        }
        let mut bytes = [0; 1024];
        let got = self.wire.read(&mut bytes).ok()?;
        let head = *bytes[..got].first_chunk::<FRAME_BYTES>()?;
        match Frame::decode(head) {
            Ok((Frame::Refused(why), tail)) => {
                let sentence = bytes[FRAME_BYTES..FRAME_BYTES + tail].to_vec();
                Some((why, String::from_utf8(sentence).unwrap()))
            }
            other => panic!("{other:?}"),
        }
    }

    /// The next delivered batch; its bytes are checked.
    pub fn delivery(&mut self) -> (Delivery, Vec<u8>) {
        match self.frame() {
            (Frame::Delivery(delivery), _) => {
                let bytes = self.bytes(delivery.bytes as usize);
                let preamble = BatchPreamble::from_bytes(bytes[..64].try_into().unwrap());
                preamble.check(u32::MAX).unwrap();
                preamble.check_payload(&bytes[64..]).unwrap();
                (delivery, bytes)
            }
            other => panic!("{other:?}"),
        }
    }

    /// The broker closes the connection.
    pub fn assert_closed(&mut self) {
        let mut head = [0; FRAME_BYTES];
        // Beats come for as long as it is open.
        until("the connection ends", || match self.wire.read(&mut head[..1]) {
            Ok(0) => true,
            Ok(_) => {
                self.wire.read_exact(&mut head[1..]).unwrap();
                assert_eq!(Frame::decode(head), Ok((Frame::Beat, 0)), "more came");
                false
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                true
            }
        });
    }
}

/// A memory client.
pub struct Member {
    pub socket: UnixStream,
    pub welcome: Welcome,
    pub pool: Pool,
    pub channel: Mapping,
    /// What a publisher keeps while it may write.
    _writer: Option<OwnedFd>,
    to_broker: LineProducer,
    from_broker: LineConsumer,
}

impl Member {
    pub fn new(address: &str, hello: Hello, topic: &str) -> Self {
        let mut socket = unix_stream(address);
        let hello = Hello { carrier: Carrier::Memory, ..hello };
        socket.write_all(&Frame::Hello(hello).encode(topic.len())).unwrap();
        socket.write_all(topic.as_bytes()).unwrap();
        let mut bytes = [0; FRAME_BYTES];
        let (mut got, mut fds) = (0, Vec::new());
        until("Welcome comes with its descriptors", || {
            match landfall_pool::io::recv_with_fds(socket.as_fd(), &mut bytes[got..]) {
                Ok((count, more)) => {
                    got += count;
                    fds.extend(more);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            got == FRAME_BYTES
        });
        let (frame, _) = Frame::decode(bytes).unwrap();
        let Frame::Welcome(welcome) = frame else { panic!("{frame:?}") };
        let writes = hello.role == Role::Publish;
        let writer = writes.then(|| fds.pop().unwrap());
        assert_eq!(fds.len(), 2);
        let channel = open(fds.pop().unwrap()).unwrap();
        let file = File::from(fds.pop().unwrap());
        let pool = Pool::attach_file(file, Path::new("handed over"), writes).unwrap();
        let to_broker = LineProducer::resume(&channel, TO_BROKER);
        let from_broker = LineConsumer::resume(&channel, TO_CLIENT);
        socket.set_nonblocking(true).unwrap();
        Self { socket, welcome, pool, channel, _writer: writer, to_broker, from_broker }
    }

    pub fn say(&mut self, frame: Frame) {
        assert!(self.to_broker.push(&self.channel, frame.to_line()), "the channel is full");
        // Always rung, so that no test waits for a sleeping broker.
        let _ = self.socket.write(&[1]);
    }

    pub fn try_hear(&mut self) -> Option<Frame> {
        self.from_broker.pop(&self.channel).map(|line| Frame::from_line(line).unwrap())
    }

    pub fn hear(&mut self) -> Frame {
        let mut heard = None;
        until("a frame comes", || {
            heard = self.try_hear();
            heard.is_some()
        });
        heard.unwrap()
    }

    /// Whether the broker closed the connection.
    pub fn has_ended(&mut self) -> bool {
        let mut rings = [0; 64];
        loop {
            match self.socket.read(&mut rings) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }

    pub fn park(&self, parked: bool) {
        set_parked(&self.channel, CLIENT_PARKED_AT, parked);
    }

    /// Whether the broker rang.
    pub fn rung(&mut self) -> bool {
        let mut bytes = [0; 16];
        self.socket.read(&mut bytes).is_ok_and(|got| got > 0)
    }
}
