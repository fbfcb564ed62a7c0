//! Fuzz targets: each takes any bytes, decodes them, and holds what was decoded to its promises.
//!
//! They are plain functions, so that tests run them on any toolchain over the kept corpus and
//! seeded mutations of it; `fuzz_targets` has the same under libFuzzer.

#![forbid(unsafe_code)]

use landfall_layout::batch::{BatchPreamble, MESSAGE_HEADER_BYTES, Messages, crc32c};
use landfall_layout::command::{Body, Command, Request};
use landfall_layout::counters::ErrorEntry;
use landfall_layout::frame::{FRAME_BYTES, Frame, FrameError, HelloTail, LogPlace, TAIL_BYTES_MAX};
use landfall_layout::geometry::Geometry;
use landfall_layout::limits::BATCH_BYTES_MAX;
use landfall_layout::pool::{Attach, BrokerAddress, PoolHeader, inspect};
use landfall_layout::segment::What;
use landfall_layout::session::Standing;
use landfall_layout::topic::{Order, TopicEntry, check_name, check_ring_slots};
use landfall_layout::verbs::{Arrived, Greeting, Knock, Rejection, Said};

/// A target's name, for its corpus directory, and its function, which says whether the bytes were
/// something: a corpus that no decoder takes any more proves nothing.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// Every target.
pub const TARGETS: [Target; 7] = [
    ("frame", frame),
    ("hello", hello),
    ("batch", batch),
    ("command", command),
    ("pool", pool),
    ("name", name),
    ("verbs", verbs),
];

/// The first `N` bytes, zeros behind a shorter input.
fn take<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut taken = [0; N];
    let n = bytes.len().min(N);
    taken[..n].copy_from_slice(&bytes[..n]);
    taken
}

fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let word = |i: usize| u64::from_le_bytes(take(bytes.get(8 * i..).unwrap_or_default()));
    std::array::from_fn(word)
}

/// Frames: what decodes is encoded and decoded again to the same; an error says something.
pub fn frame(bytes: &[u8]) -> bool {
    let bytes: [u8; FRAME_BYTES] = take(bytes);
    let decoded = Frame::decode(bytes);
    match decoded {
        Ok((frame, tail)) => {
            assert!(tail <= TAIL_BYTES_MAX, "a tail of {tail} bytes");
            assert_eq!(Frame::decode(frame.encode(tail)), Ok((frame, tail)));
            // It never travels through a channel, whose lines have no room for its last word.
            if !matches!(frame, Frame::Welcome(_)) {
                assert_eq!(Frame::from_line(frame.to_line()), Ok(frame));
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if let FrameError::Tail { bytes } = error {
                assert!(usize::from(bytes) > TAIL_BYTES_MAX);
            }
        }
    }
    let _ = Frame::from_line(words(&bytes));
    decoded.is_ok()
}

/// The tail of a `Hello`, and of an `Ends`: what decodes is encoded to the same bytes; an error
/// says something.
pub fn hello(bytes: &[u8]) -> bool {
    let hello = HelloTail::decode(bytes);
    match &hello {
        Ok(tail) => assert_eq!(tail.encode(), bytes),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let ends = LogPlace::decode_all(bytes);
    match &ends {
        Ok(places) => assert_eq!(LogPlace::encode_all(places), bytes),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    hello.is_ok() || ends.is_ok_and(|places| !places.is_empty())
}

/// A preamble and the payload behind it: checks, then the messages.
pub fn batch(bytes: &[u8]) -> bool {
    let preamble = BatchPreamble::from_bytes(take(bytes));
    let payload = bytes.get(64..).unwrap_or_default();
    for most in [0, 64, bytes.len() as u32, BATCH_BYTES_MAX, u32::MAX] {
        match preamble.check(most) {
            Ok(()) => {
                assert!(preamble.batch_bytes() <= u64::from(most.min(BATCH_BYTES_MAX)));
                assert!(preamble.count > 0);
                let headers = usize::from(preamble.count) * MESSAGE_HEADER_BYTES;
                assert!(preamble.payload_bytes as usize >= headers);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert_eq!(preamble.check_payload(payload).is_ok(), preamble.payload_crc == crc32c(payload));
    // A preamble that is sealed again has nothing wrong with its checksum.
    let sealed = preamble.seal();
    assert_eq!(sealed.seal(), sealed);

    let mut messages = Messages::new(payload, preamble.count);
    let mut bytes_seen = 0;
    for message in messages.by_ref() {
        let body = message.key.unwrap_or_default().len() + message.payload.len();
        bytes_seen += MESSAGE_HEADER_BYTES + body;
        assert!(bytes_seen <= payload.len(), "messages reach past their payload");
    }
    assert_eq!(messages.next(), None, "an iterator that ended goes on");
    if messages.is_whole() {
        assert_eq!(messages.left(), 0);
    }
    preamble.check(BATCH_BYTES_MAX).is_ok() && preamble.check_payload(payload).is_ok()
}

/// Lines of command rings, in both directions.
pub fn command(bytes: &[u8]) -> bool {
    let body: Body = words(bytes);
    let (command, request) = (Command::unpack(body), Request::unpack(body));
    if let Some(command) = command {
        assert_eq!(Command::unpack(command.pack()), Some(command));
    }
    if let Some(request) = request {
        assert_eq!(Request::unpack(request.pack()), Some(request));
    }
    command.is_some() || request.is_some()
}

/// Structures of the pool whose values come from whoever wrote them.
pub fn pool(bytes: &[u8]) -> bool {
    let header = PoolHeader::from_bytes(take(bytes));
    let mapped = u64::from_le_bytes(take(bytes.get(64..).unwrap_or_default()));
    let found = inspect(&header, mapped);
    if found == Attach::Ready {
        assert!(header.pool_bytes <= mapped);
    }
    match Geometry::new(header.pool_bytes, header.segment_bytes, header.sessions) {
        Ok(geometry) => assert!(geometry.head_bytes() < header.pool_bytes),
        Err(error) => assert!(!error.to_string().is_empty()),
    }

    let [first, second] = words(bytes);
    let what = What::unpack(first);
    match what {
        Ok(what) => assert_eq!(What::unpack(what.pack()), Ok(what)),
        Err(error) => assert!(error.to_string().contains(&format!("{first:#018x}"))),
    }
    let standing = Standing::unpack(second);
    assert_eq!(Standing::unpack(standing.pack()), standing);

    let entry = TopicEntry::from_bytes(take(bytes));
    assert!(entry.name().len() <= 120);
    let _ = (entry.state(), entry.order(), entry.keeps(), entry.checks_ingest());
    let _ = check_ring_slots(entry.ring_slots);
    let address = BrokerAddress::from_bytes(take(bytes));
    let spoken = address.tcp().len() + address.unix().len() + address.verbs().len();
    assert!(spoken <= 3 * BrokerAddress::TEXT_BYTES);
    assert!(ErrorEntry::from_bytes(take(bytes)).text().len() <= 224);
    found == Attach::Ready || what.is_ok() || !entry.name().is_empty() || spoken > 0
}

/// The private data of a verbs handshake, and immediates.
pub fn verbs(bytes: &[u8]) -> bool {
    let mut is_one = false;
    if let Ok(knock) = Knock::from_bytes(bytes) {
        is_one = true;
        assert!(knock.ring_lines.is_power_of_two());
        assert_eq!(Knock::from_bytes(&knock.to_bytes()), Ok(knock));
    }
    if let Some(greeting) = Greeting::from_bytes(bytes) {
        is_one = true;
        assert_eq!(Greeting::from_bytes(&greeting.to_bytes()), Some(greeting));
    }
    if let Some(rejection) = Rejection::from_bytes(bytes) {
        is_one = true;
        assert!(Rejection::from_bytes(&rejection.to_bytes()).is_some());
    }
    for word in bytes.chunks_exact(4) {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        if let Ok(said) = Said::decode(word) {
            is_one = true;
            assert_eq!(said.encode(), Some(word), "{said:?}");
        }
        let arrived = Arrived::decode(word);
        assert_eq!(Arrived::decode(arrived.encode()), arrived);
    }
    is_one
}

/// Topic names and order words, as people and peers write them.
pub fn name(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let name = check_name(&text);
    match &name {
        Ok(()) => {
            assert!((1..=120).contains(&text.len()));
            let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
            assert!(text.bytes().all(plain), "{text:?} passed");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let order = text.parse::<Order>();
    match &order {
        Ok(order) => assert_eq!(order.name(), text),
        Err(error) => assert!(error.to_string().contains("strong")),
    }
    name.is_ok() || order.is_ok()
}
