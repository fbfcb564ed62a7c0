//! A pool in this process, and the broker's end of memory clients.

use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use landfall::Client;
use landfall_layout::batch::BatchPreamble;
use landfall_layout::channel::CLIENT_PARKED_AT;
use landfall_layout::frame::{Frame, Hello, Reached, Receipt, Welcome};
use landfall_layout::order::{ChainLine, FrontierLine, OrderEntry};
use landfall_layout::pool::Coherence;
use landfall_layout::segment::{SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::channel::{TO_BROKER, TO_CLIENT, create, is_parked};
use landfall_pool::line_ring::{LineConsumer, LineProducer};
use landfall_pool::log::LogSegment;
use landfall_pool::map::memfd;
use landfall_pool::pool::Shape;
use landfall_pool::shared::{Piece, send};
use landfall_pool::{Mapping, Memory, Pool};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::{TOPIC, welcome};

const POOL_BYTES: u64 = 64 << 20;

/// A pool in a memfd. The descriptor is the one of the pool's path.
pub fn pool() -> (Arc<Pool>, OwnedFd) {
    let fd = memfd("test-pool", POOL_BYTES).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let shape = Shape {
        pool_bytes: POOL_BYTES,
        segment_bytes: 2 << 20,
        sessions: 16,
        coherence: Coherence::Coherent,
        uuid: [7; 16],
        now_ns: 1,
        sparse: true,
    };
    (Arc::new(Pool::create_or_attach(&path, shape).unwrap()), fd)
}

/// Gives `segment` a use.
pub fn give(pool: &Pool, segment: u32, kind: SegmentKind, generation: u64) {
    let what = What { kind, state: SegmentState::Open, owner: 0, log: super::LOG, topic: TOPIC };
    let header = SegmentHeader { what: what.pack(), generation, ..SegmentHeader::FREE };
    pool.give_segment(SegmentId(segment), &header);
}

/// A broker on a Unix socket that runs `script`, and the client of its control.
pub fn broker(script: impl FnOnce(&mut Connections) + Send + 'static) -> (Client, JoinHandle<()>) {
    broker_of("", script)
}

/// The same, which says that it takes clients over TCP at `tcp`.
pub fn broker_of(
    tcp: &str,
    script: impl FnOnce(&mut Connections) + Send + 'static,
) -> (Client, JoinHandle<()>) {
    let (unix, handle) = alone(script);
    (super::control(tcp, &unix), handle)
}

/// A broker on a Unix socket without a control: its address.
pub fn alone(script: impl FnOnce(&mut Connections) + Send + 'static) -> (String, JoinHandle<()>) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("landfall-test/{}/{number}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let handle = thread::spawn(move || script(&mut Connections { listener }));
    (format!("@{name}"), handle)
}

pub struct Connections {
    listener: UnixListener,
}

impl Connections {
    /// The next connection and its hello.
    pub fn greet(&mut self) -> (UnixStream, Hello) {
        let (mut stream, _) = self.listener.accept().unwrap();
        let mut bytes = [0; 64];
        stream.read_exact(&mut bytes).unwrap();
        let (Frame::Hello(hello), tail) = Frame::decode(bytes).unwrap() else { panic!() };
        let mut name = vec![0; tail];
        stream.read_exact(&mut name).unwrap();
        assert_eq!(name, b"topic");
        (stream, hello)
    }

    /// The next memory client, welcomed with the pool and a channel.
    pub fn welcome(&mut self, pool: &Pool, writes: bool, welcome: Welcome) -> Peer {
        let (stream, _) = self.greet();
        let (channel, theirs) = create().unwrap();
        let read_only = pool.read_only_file().unwrap();
        let all = pool.fd().as_raw_fd();
        let fds = match writes {
            true => vec![all, theirs.as_raw_fd(), all],
            false => vec![read_only.as_raw_fd(), theirs.as_raw_fd()],
        };
        let bytes = Frame::Welcome(welcome).encode(0);
        let control = [ControlMessage::ScmRights(&fds)];
        let pieces = [IoSlice::new(&bytes)];
        let flags = MsgFlags::empty();
        sendmsg::<()>(stream.as_raw_fd(), &pieces, &control, flags, None).unwrap();
        Peer {
            from_client: LineConsumer::resume(&channel, TO_BROKER),
            to_client: LineProducer::resume(&channel, TO_CLIENT),
            channel,
            stream,
        }
    }

    /// The next memory publisher.
    pub fn publisher(&mut self, pool: &Pool, epoch: u32, next_seq: u64) -> Peer {
        self.welcome(pool, true, super::welcome(Order::Strong, epoch, next_seq))
    }

    /// The next memory subscriber, at `start` of a log that ends at `end`.
    pub fn subscriber(&mut self, pool: &Pool, start: u64, end: u64) -> Peer {
        self.welcome(pool, false, Welcome { start, end, ..welcome(Order::Strong, 0, 0) })
    }
}

/// The broker's end of a channel.
pub struct Peer {
    pub channel: Mapping,
    pub stream: UnixStream,
    from_client: LineConsumer,
    to_client: LineProducer,
}

impl Peer {
    pub fn send(&mut self, frame: Frame) {
        assert!(self.to_client.push(&self.channel, frame.to_line()));
        if is_parked(&self.channel, CLIENT_PARKED_AT) {
            let _ = send(&self.stream, &[Piece::new(&[1])]);
        }
    }

    /// The next frame; `None` when the client is gone.
    pub fn next(&mut self) -> Option<Frame> {
        self.stream.set_nonblocking(true).unwrap();
        loop {
            if let Some(line) = self.from_client.pop(&self.channel) {
                return Some(Frame::from_line(line).unwrap());
            }
            if matches!(self.stream.read(&mut [0; 8]), Ok(0)) {
                return None;
            }
            thread::sleep(Duration::from_micros(50));
        }
    }

    /// The same without ever sleeping, for measuring.
    pub fn next_spinning(&mut self) -> Option<Frame> {
        self.stream.set_nonblocking(true).unwrap();
        loop {
            for _ in 0..10_000 {
                if let Some(line) = self.from_client.pop(&self.channel) {
                    return Some(Frame::from_line(line).unwrap());
                }
                std::hint::spin_loop();
            }
            if matches!(self.stream.read(&mut [0; 8]), Ok(0)) {
                return None;
            }
        }
    }

    /// Answers the next wish with `bytes` bytes at `offset` of `segment`.
    pub fn grant(&mut self, extent: u32, segment: u32, offset: u32, bytes: u32) {
        let Some(Frame::ExtentWanted { .. }) = self.next() else { panic!("no wish") };
        self.send(Frame::Extent { extent, segment, generation: 1, offset, bytes, key: 0, at: 0 });
    }

    /// A receipt that `preamble` is ordered at `position`.
    pub fn receipt(&mut self, preamble: &BatchPreamble, position: u64) {
        self.send(Frame::Receipt(Receipt {
            reached: Reached::Ordered,
            count: preamble.count,
            batch_seq: preamble.batch_seq,
            position,
            landed_ns: 5,
            session_epoch: preamble.session_epoch,
        }));
    }
}

/// The batch at `offset` of `segment`, checked.
pub fn batch_at(pool: &Pool, segment: u32, offset: u32) -> (BatchPreamble, Vec<u8>) {
    let at = pool.at(segment, offset, 64).unwrap();
    let preamble = BatchPreamble::from_words(pool.load_words(at));
    preamble.check(1 << 20).unwrap();
    let words = preamble.payload_bytes.div_ceil(8).into();
    let mut payload: Vec<u8> =
        (0..words).flat_map(|word: u64| pool.load(at + 64 + 8 * word).to_le_bytes()).collect();
    payload.truncate(preamble.payload_bytes as usize);
    preamble.check_payload(&payload).unwrap();
    (preamble, payload)
}

/// A sequenced log that a test writes: entries in segment 0, batches in those that it names.
pub struct Log {
    pub pool: Arc<Pool>,
    segment: LogSegment,
    frontier: FrontierLine,
}

impl Log {
    pub fn new(pool: &Arc<Pool>) -> Self {
        let mut name = [0; 120];
        name[..5].copy_from_slice(b"topic");
        pool.set_topic(&TopicEntry {
            version: 0,
            id: TOPIC.0,
            state: 1,
            order: Order::Strong.raw(),
            flags: 0,
            replicas: 1,
            ring_slots: 4096,
            name_bytes: 5,
            retention_bytes: 0,
            retention_ns: 0,
            created_ns: 1,
            session_lease_ns: 1,
            name,
            replica_brokers: 0,
            reserved8: [0; 7],
            disk_bytes: 0,
            disk_ns: 0,
            deleted_ns: 0,
            life: 0,
            begin_index: 0,
            begin_position: 0,
            reserved: [0; 3],
        });
        give(pool, 0, SegmentKind::OrderLog, 1);
        let log = super::LOG.into();
        pool.start_frontier(TOPIC, log);
        let chain = ChainLine { head: 0, tail: 0, topic: TOPIC.0.into(), ..ChainLine::default() };
        pool.set_chain(TOPIC, log, &chain);
        let geometry = pool.geometry();
        let segment = LogSegment {
            segment: SegmentId(0),
            at: geometry.segment(SegmentId(0)).unwrap(),
            base: 0,
            capacity: geometry.entries_per_segment(),
        };
        let frontier = FrontierLine { topic: TOPIC.0.into(), ..FrontierLine::default() };
        Self { pool: Arc::clone(pool), segment, frontier }
    }

    /// Appends a batch of `messages`, whose bytes are put at `offset` of `segment`.
    pub fn append(&mut self, segment: u32, offset: u32, messages: &[&[u8]]) {
        let index = self.frontier.entries;
        let batch = super::batch(index, messages);
        let at = self.pool.at(segment, offset, batch.len() as u32).unwrap();
        self.pool.write(at, &batch).unwrap();
        let entry = OrderEntry {
            first_position: self.frontier.position,
            client: 9,
            batch_seq: index,
            landed_ns: 100 + index,
            session_epoch: 1,
            checksum: super::checksum_of(&batch),
            segment,
            offset,
            bytes: batch.len() as u32,
            count: messages.len() as u16,
            ..OrderEntry::default()
        };
        self.segment.write(&*self.pool, index, &entry);
        self.frontier.entries += 1;
        self.frontier.position += messages.len() as u64;
        self.pool.advance_frontier(TOPIC, super::LOG.into(), &self.frontier);
    }

    /// Retention: the log now starts at `index`, whose first message has `position`.
    pub fn retire(&self, index: u64, position: u64) {
        self.pool.raise_oldest(TOPIC, super::LOG.into(), index, position);
    }

    /// The topic is gone.
    pub fn delete(&self) {
        let mut entry = self.pool.topic_in_slot(TopicId::slot(TOPIC)).unwrap();
        entry.state = 2;
        self.pool.set_topic(&entry);
    }
}
