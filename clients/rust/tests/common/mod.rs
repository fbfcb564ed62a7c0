//! A control and a broker that say what a test tells them to.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use landfall::Client;
use landfall_layout::TopicId;
use landfall_layout::batch::{BatchPreamble, MESSAGE_HEADER_BYTES, MessageHeader, crc32c};
use landfall_layout::frame::{
    Delivery, Frame, Hello, HelloTail, LogPlace, Reached, Receipt, Welcome,
};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::topic::Order;

pub mod pool;

pub const TOPIC: TopicId = TopicId(0x105);
pub const LOG: u8 = SEQUENCED_LOG as u8;

/// A connection whose own port nobody listens on, and nobody can while it is open.
pub fn nobody() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    TcpStream::connect(listener.local_addr().unwrap()).unwrap()
}

/// A control that knows one broker at these addresses. It serves until the test ends.
pub fn control(tcp: &str, unix: &str) -> Client {
    control_of(tcp, unix, "")
}

/// The same, whose broker says that it has RDMA; control gives out no tokens.
pub fn control_of(tcp: &str, unix: &str, verbs: &str) -> Client {
    control_with(tcp, unix, verbs, 1)
}

/// The same, whose topic has so many copies of each batch.
pub fn control_with(tcp: &str, unix: &str, verbs: &str, replicas: u8) -> Client {
    control_saying(tcp, unix, verbs, replicas, States::default())
}

/// What control says of brokers that do not serve; a test may change its mind. With anything under
/// [`CONTROL`], control does not answer.
pub type States = Arc<Mutex<HashMap<usize, &'static str>>>;

/// Control itself, in [`States`].
pub const CONTROL: usize = usize::MAX;

/// The pool's uuid, in [`States`].
pub const POOL: usize = usize::MAX - 1;

/// What control answers to a question about its brokers.
fn cluster((tcp, unix, verbs): (&str, &str, &str), states: &States) -> String {
    // A broker for each address.
    let brokers = tcp.split(' ').enumerate().map(|(broker, tcp)| {
        let state = states.lock().unwrap().get(&broker).copied().unwrap_or("serving");
        let unix = unix.split(' ').nth(broker).unwrap_or(unix);
        format!(
            r#"{{"broker":{broker},"state":"{state}","tcp":"{tcp}","unix":"{unix}",
            "verbs":"{verbs}","pid":18,"heartbeat_age_ms":20,"epoch_seen":3}}"#
        )
    });
    let brokers = brokers.collect::<Vec<_>>().join(",");
    let uuid = states.lock().unwrap().get(&POOL).copied().unwrap_or("00");
    format!(
        r#"{{"schema_version":1,"epoch":3,"pid":17,"pool":{{"uuid":"{uuid}","path":"p","bytes":1,
        "segment_bytes":1,"segments":1,"segments_free":1,"batch_bytes_max":4194304,"sessions":1,
        "coherence":"coherent"}},"brokers":[{brokers}]}}"#
    )
}

/// The same, which says of its brokers what `states` says.
pub fn control_saying(tcp: &str, unix: &str, verbs: &str, replicas: u8, states: States) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let addresses = [tcp, unix, verbs].map(str::to_owned);
    let topic = format!(
        r#"{{"name":"topic","id":261,"order":"strong","ring_slots":1,"retention_bytes":0,
        "retention_ms":0,"keep":false,"check_ingest":false,"replicas":{replicas},
        "session_lease_ms":1,"created_ns":1,"messages":0,"batches":0,"bytes":0,
        "oldest_position":0,"next_position":0,"segments":1}}"#
    );
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let topic = topic.clone();
            let [tcp, unix, verbs] = &addresses;
            let mut stream = stream.unwrap();
            if states.lock().unwrap().contains_key(&CONTROL) {
                // Somebody listens, and nobody reads.
                held.push(stream);
                continue;
            }
            let body = cluster((tcp, unix, verbs), &states);
            thread::spawn(move || {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    request.push(byte[0]);
                }
                // What is not read resets the connection before the answer is.
                let text = String::from_utf8_lossy(&request).to_lowercase();
                let length = text.split("content-length: ").nth(1);
                let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
                let _ = stream.read_exact(&mut vec![0; length.unwrap_or(0)]);
                let (status, body) = if request.windows(7).any(|part| part == b"/tokens") {
                    let said = r#"{"error":{"code":"no_rdma","message":"broker 0 has no RDMA"}}"#;
                    ("409 Conflict", said.to_owned())
                } else if request.starts_with(b"GET /v1/topics/topic ") {
                    ("200 OK", topic)
                } else {
                    ("200 OK", body)
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: \
                     {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).and(stream.write_all(body.as_bytes()));
            });
        }
    });
    Client::new(&address).unwrap()
}

/// A broker over TCP that runs `script` on each connection in turn, and the client of its control.
pub fn broker(script: impl FnOnce(&mut Connections) + Send + 'static) -> (Client, JoinHandle<()>) {
    broker_of("", script)
}

/// The same, of a topic that has a copy on disk.
pub fn broker_with_copies(
    script: impl FnOnce(&mut Connections) + Send + 'static,
) -> (Client, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = control_with(&listener.local_addr().unwrap().to_string(), "", "", 2);
    let handle = thread::spawn(move || script(&mut Connections { listener }));
    (client, handle)
}

/// The same, which says that it takes clients over RDMA at `verbs`.
pub fn broker_of(
    verbs: &str,
    script: impl FnOnce(&mut Connections) + Send + 'static,
) -> (Client, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = control_of(&listener.local_addr().unwrap().to_string(), "", verbs);
    let handle = thread::spawn(move || script(&mut Connections { listener }));
    (client, handle)
}

/// A broker over TCP without a control: its address.
pub fn alone(script: impl FnOnce(&mut Connections) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, thread::spawn(move || script(&mut Connections { listener })))
}

/// What a broker does with its connections.
pub type Script = Box<dyn FnOnce(&mut Connections) + Send>;

/// A control whose brokers, from 0, run the scripts, each over TCP.
pub fn brokers(scripts: Vec<Script>) -> (Client, Vec<JoinHandle<()>>) {
    brokers_saying(scripts, States::default())
}

/// The same, of which control says what `states` says.
pub fn brokers_saying(scripts: Vec<Script>, states: States) -> (Client, Vec<JoinHandle<()>>) {
    let (mut addresses, mut handles) = (Vec::new(), Vec::new());
    for script in scripts {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        addresses.push(listener.local_addr().unwrap().to_string());
        handles.push(thread::spawn(move || script(&mut Connections { listener })));
    }
    (control_saying(&addresses.join(" "), "", "", 1, states), handles)
}

pub struct Connections {
    listener: TcpListener,
}

impl Connections {
    /// The next connection, before it said anything.
    pub fn accept(&mut self) -> Peer {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Peer { stream }
    }

    /// The next connection and its hello.
    pub fn greet(&mut self) -> (Peer, Hello) {
        let (peer, hello, places) = self.greet_at();
        assert_eq!(places, [], "one log has its position");
        (peer, hello)
    }

    /// The next connection, its hello, and where it goes on.
    pub fn greet_at(&mut self) -> (Peer, Hello, Vec<LogPlace>) {
        let mut peer = self.accept();
        let (hello, tail) = peer.hello();
        assert_eq!(tail.topic, "topic");
        (peer, hello, tail.places)
    }

    /// The next publisher, welcomed.
    pub fn publisher(&mut self, epoch: u32, next_seq: u64) -> Peer {
        let (mut peer, _) = self.greet();
        peer.send(Frame::Welcome(welcome(Order::Strong, epoch, next_seq)));
        peer
    }
}

/// A welcome of a small pool.
pub fn welcome(order: Order, session_epoch: u32, next_seq: u64) -> Welcome {
    Welcome {
        topic: TOPIC,
        created_ns: 7,
        order: order.raw(),
        broker: 0,
        in_flight_max: 512,
        session_epoch,
        session_index: 0,
        batch_bytes_max: 1 << 20,
        next_seq,
        start: 0,
        end: 0,
        copies: 1,
        is_own: false,
        has_bounds: false,
    }
}

/// The broker's end of a connection.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    pub fn hello(&mut self) -> (Hello, HelloTail) {
        let mut bytes = [0; 64];
        self.stream.read_exact(&mut bytes).unwrap();
        let (frame, tail) = Frame::decode(bytes).unwrap();
        let Frame::Hello(hello) = frame else { panic!("{frame:?} is no hello") };
        let mut tail = vec![0; tail];
        self.stream.read_exact(&mut tail).unwrap();
        (hello, HelloTail::decode(&tail).unwrap())
    }

    /// A client that has read enough may be gone by now. Whether it should be, its own side of the
    /// test looks at.
    fn put(&mut self, bytes: &[u8]) {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self.stream.write_all(bytes) {
            Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {}
            written => written.unwrap(),
        }
    }

    pub fn send(&mut self, frame: Frame) {
        self.put(&frame.encode(0));
    }

    pub fn refuse(&mut self, frame: Frame, sentence: &str) {
        self.put(&frame.encode(sentence.len()));
        self.put(sentence.as_bytes());
    }

    pub fn send_tail(&mut self, frame: Frame, tail: &[u8]) {
        self.put(&frame.encode(tail.len()));
        self.put(tail);
    }

    /// The next batch, checked; `None` at goodbye or the connection's end.
    pub fn batch(&mut self) -> Option<(BatchPreamble, Vec<u8>)> {
        let mut head = [0; 64];
        self.stream.read_exact(&mut head).ok()?;
        if Frame::decode(head).is_ok_and(|(frame, _)| frame == Frame::Bye) {
            return None;
        }
        let preamble = BatchPreamble::from_bytes(head);
        preamble.check(1 << 20).unwrap();
        let mut payload = vec![0; preamble.payload_bytes as usize];
        self.stream.read_exact(&mut payload).unwrap();
        preamble.check_payload(&payload).unwrap();
        Some((preamble, payload))
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

    /// Orders every batch that comes, from `position` on, until goodbye. Returns the sequences.
    pub fn order_all(&mut self, mut position: u64) -> Vec<u64> {
        let mut sequences = Vec::new();
        while let Some((preamble, _)) = self.batch() {
            self.receipt(&preamble, position);
            position += u64::from(preamble.count);
            sequences.push(preamble.batch_seq);
        }
        self.send(Frame::Bye);
        sequences
    }

    /// Delivers a batch of `messages` as the entry of `index`.
    pub fn deliver(&mut self, index: u64, first_position: u64, messages: &[&[u8]]) {
        self.deliver_in(LOG, index, first_position, messages);
    }

    /// The same, of any log.
    pub fn deliver_in(&mut self, log: u8, index: u64, first_position: u64, messages: &[&[u8]]) {
        let batch = batch(index, messages);
        let frame = Frame::Delivery(Delivery {
            log,
            broker: 0,
            count: messages.len() as u16,
            bytes: batch.len() as u32,
            index,
            first_position,
            landed_ns: 5,
            checksum: checksum_of(&batch),
        });
        self.send(frame);
        self.put(&batch);
    }

    /// Waits until the other side has closed.
    pub fn until_closed(mut self) {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
    }
}

/// What a broker takes of a batch for its entry.
pub fn checksum_of(batch: &[u8]) -> u32 {
    u32::from_le_bytes(batch[56..60].try_into().unwrap())
}

/// A sealed batch of client 9, epoch 1.
pub fn batch(batch_seq: u64, messages: &[&[u8]]) -> Vec<u8> {
    let mut payload = Vec::new();
    for message in messages {
        let header = MessageHeader { payload_bytes: message.len() as u32, ..Default::default() };
        payload.extend_from_slice(&header.payload_bytes.to_le_bytes());
        payload.resize(payload.len() + MESSAGE_HEADER_BYTES - 4, 0);
        payload.extend_from_slice(message);
        payload.resize(payload.len().next_multiple_of(8), 0);
    }
    let preamble = BatchPreamble {
        topic: TOPIC.0,
        session_epoch: 1,
        client: 9,
        batch_seq,
        sealed_ns: 3,
        payload_bytes: payload.len() as u32,
        payload_crc: crc32c(&payload),
        count: messages.len() as u16,
        ..BatchPreamble::default()
    }
    .seal();
    [&preamble.to_bytes()[..], &payload].concat()
}
