//! Round trips of everything that is encoded, and decoders that take any bytes.

use landfall_layout::batch::*;
use landfall_layout::command::{Command, Request};
use landfall_layout::frame::{
    FRAME_BYTES, FRAME_MAGIC, FRAME_VERSION, Frame, FrameError, TAIL_BYTES_MAX,
};
use landfall_layout::limits::*;
use landfall_layout::pool::BrokerAddress;
use landfall_layout::segment::What;
use landfall_layout::session::Standing;
use landfall_layout::topic::{Order, TopicError, check_name, check_ring_slots};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use proptest::prelude::*;
use zerocopy::IntoBytes;

/// A message as a publisher has it.
type Given = (Option<Vec<u8>>, Vec<u8>, u64);

/// The payload of a batch of these messages, by the rules alone.
fn encode(messages: &[Given]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (key, body, timestamp_ns) in messages {
        let key_bytes = key.as_ref().map_or(0, Vec::len);
        let header = MessageHeader {
            payload_bytes: body.len() as u32,
            key_bytes: key_bytes as u16,
            flags: if key.is_some() { MESSAGE_HAS_KEY } else { 0 },
            timestamp_ns: *timestamp_ns,
        };
        let start = payload.len();
        payload.extend_from_slice(header.as_bytes());
        payload.extend_from_slice(key.as_deref().unwrap_or_default());
        payload.extend_from_slice(body);
        payload.resize(payload.len().next_multiple_of(MESSAGE_ALIGN), 0);
        assert_eq!(Some(payload.len() - start), message_stride(key_bytes, body.len()));
    }
    payload
}

fn messages() -> impl Strategy<Value = Vec<Given>> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    proptest::collection::vec((proptest::option::of(bytes(20)), bytes(70), any::<u64>()), 1..40)
}

fn line() -> impl Strategy<Value = [u8; 64]> {
    proptest::array::uniform32(any::<u8>()).prop_flat_map(|low| {
        proptest::array::uniform32(any::<u8>()).prop_map(move |high| {
            let mut line = [0; 64];
            line[..32].copy_from_slice(&low);
            line[32..].copy_from_slice(&high);
            line
        })
    })
}

proptest! {
    #[test]
    fn messages_come_back_as_they_were_given(given in messages()) {
        let payload = encode(&given);
        let mut read = Messages::new(&payload, given.len() as u16);
        for (key, body, timestamp_ns) in &given {
            let message = read.next().expect("as many as were given");
            prop_assert_eq!(message.key, key.as_deref());
            prop_assert_eq!(message.payload, &body[..]);
            prop_assert_eq!(message.timestamp_ns, *timestamp_ns);
        }
        prop_assert!(read.is_whole());
        prop_assert_eq!(read.next(), None);
    }

    #[test]
    fn a_payload_that_is_cut_or_too_long_is_not_whole(given in messages(), cut in 1_usize..90) {
        let payload = encode(&given);
        let count = given.len() as u16;
        let mut short = Messages::new(&payload[..payload.len().saturating_sub(cut)], count);
        let taken = short.by_ref().count();
        prop_assert!(!short.is_whole(), "{taken} of {count} messages of a cut payload were whole");
        prop_assert!(taken < given.len());

        let mut long = payload.clone();
        long.resize(payload.len() + cut, 0);
        let mut long = Messages::new(&long, count);
        prop_assert_eq!(long.by_ref().count(), given.len());
        prop_assert!(!long.is_whole());
    }

    #[test]
    fn messages_of_any_bytes_end(payload: Vec<u8>, count: u16) {
        let mut messages = Messages::new(&payload, count);
        let taken = messages.by_ref().count();
        prop_assert!(taken <= payload.len() / MESSAGE_HEADER_BYTES);
        prop_assert_eq!(usize::from(messages.left()) + taken, usize::from(count));
    }

    #[test]
    fn a_flipped_bit_of_a_sealed_preamble_is_seen(bit in 0_usize..60 * 8, given in messages()) {
        let payload = encode(&given);
        let preamble = BatchPreamble {
            topic: 1,
            client: 2,
            payload_bytes: payload.len() as u32,
            payload_crc: crc32c(&payload),
            count: given.len() as u16,
            ..BatchPreamble::default()
        }
        .seal();
        prop_assert_eq!(preamble.check(BATCH_BYTES_MAX), Ok(()));
        prop_assert_eq!(preamble.check_payload(&payload), Ok(()));
        let mut bytes = preamble.to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let bad = BatchPreamble::from_bytes(bytes);
        prop_assert!(bad.check(BATCH_BYTES_MAX).is_err(), "bit {bit}");
        let mut payload = payload;
        let at = bit % payload.len();
        payload[at] ^= 0x10;
        prop_assert!(preamble.check_payload(&payload).is_err());
    }

    #[test]
    fn any_line_is_a_frame_or_an_error(mut bytes in line(), ours: bool, kind in 0_u8..21) {
        if ours {
            bytes[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
            bytes[4..6].copy_from_slice(&[FRAME_VERSION, kind]);
        }
        match Frame::decode(bytes) {
            Ok((frame, tail)) => {
                prop_assert_eq!(Frame::decode(frame.encode(tail)), Ok((frame, tail)));
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_line_is_a_command_or_nothing(body: [u64; 7], tag in 0_u64..12) {
        for first in [body[0], tag] {
            let mut body = body;
            body[0] = first;
            if let Some(command) = Command::unpack(body) {
                prop_assert_eq!(Command::unpack(command.pack()), Some(command));
            }
            if let Some(request) = Request::unpack(body) {
                prop_assert_eq!(Request::unpack(request.pack()), Some(request));
            }
        }
    }

    #[test]
    fn any_word_is_a_use_or_an_error(word: u64, kind in 0_u64..6, state in 0_u64..6) {
        for word in [word, word & !0xffff | kind | state << 8] {
            match What::unpack(word) {
                Ok(what) if word & 0xff != 0 => prop_assert_eq!(what.pack(), word),
                Ok(what) => prop_assert_eq!(what, What::FREE),
                Err(error) => prop_assert_eq!(error.word, word),
            }
            let standing = Standing::unpack(word);
            prop_assert_eq!(Standing::unpack(standing.pack()), standing);
        }
    }

    #[test]
    fn addresses_come_back_or_do_not_fit(
        tcp in ".{0,90}", unix in ".{0,90}", verbs in ".{0,60}",
    ) {
        match BrokerAddress::new(&tcp, &unix, &verbs) {
            Some(address) => {
                prop_assert_eq!(address.tcp(), tcp);
                prop_assert_eq!(address.unix(), unix);
                prop_assert_eq!(address.verbs(), verbs);
            }
            None => prop_assert!(tcp.len() + unix.len() + verbs.len() > BrokerAddress::TEXT_BYTES),
        }
    }

    #[test]
    fn strides_hold_the_body_or_are_refused(key in 0_usize..70_000, body in 0_usize..5 << 20) {
        match message_stride(key, body) {
            Some(stride) => {
                prop_assert!(stride >= MESSAGE_HEADER_BYTES + key + body);
                prop_assert!(stride.is_multiple_of(MESSAGE_ALIGN));
                prop_assert!(stride + PREAMBLE_BYTES as usize <= BATCH_BYTES_MAX as usize);
            }
            None => prop_assert!(
                key > KEY_BYTES_MAX || key + body > MESSAGE_BYTES_MAX as usize
            ),
        }
    }

    #[test]
    fn names_of_other_characters_are_refused(name in "\\PC{0,130}") {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let good = (1..=120).contains(&name.len()) && name.chars().all(plain);
        prop_assert_eq!(check_name(&name).is_ok(), good);
    }
}

#[test]
fn a_preamble_says_what_is_wrong_with_it() {
    let good = BatchPreamble { payload_bytes: 32, count: 2, ..BatchPreamble::default() }.seal();
    let check = |change: fn(&mut BatchPreamble), most| {
        let mut preamble = good;
        change(&mut preamble);
        // `seal` sets the version; the checksum alone is set again by hand here.
        let mut bytes = preamble.to_bytes();
        let crc = crc32c(&bytes[..56]);
        bytes[56..60].copy_from_slice(&crc.to_le_bytes());
        BatchPreamble::from_bytes(bytes).check(most)
    };
    assert_eq!(check(|_| {}, 96), Ok(()));
    assert_eq!(check(|_| {}, 95), Err(BatchError::TooLarge { bytes: 96, most: 95 }));
    assert_eq!(check(|p| p.magic = 7, 96), Err(BatchError::Magic { found: 7 }));
    assert_eq!(check(|p| p.version = 2, 96), Err(BatchError::Version { found: 2 }));
    assert_eq!(check(|p| p.encoding = 1, 96), Err(BatchError::Encoding { encoding: 1, codec: 0 }));
    assert_eq!(check(|p| p.codec = 2, 96), Err(BatchError::Encoding { encoding: 0, codec: 2 }));
    assert_eq!(check(|p| p.count = 0, 96), Err(BatchError::Empty));
    assert_eq!(check(|p| p.count = 3, 96), Err(BatchError::TooShort { bytes: 32, count: 3 }));
    assert_eq!(
        check(|p| p.payload_bytes = u32::MAX, u32::MAX),
        Err(BatchError::TooLarge { bytes: u64::from(u32::MAX) + 64, most: BATCH_BYTES_MAX })
    );
    let padding = BatchPreamble::padding(64);
    assert_eq!(padding.payload_bytes, 0);
    assert_eq!(padding.check(96), Err(BatchError::Magic { found: PADDING_MAGIC }));
}

#[test]
fn the_largest_message_fits_the_largest_batch() {
    let stride = message_stride(0, MESSAGE_BYTES_MAX as usize).expect("the bound itself");
    assert_eq!(stride + PREAMBLE_BYTES as usize, BATCH_BYTES_MAX as usize);
    assert_eq!(message_stride(0, MESSAGE_BYTES_MAX as usize + 1), None);
    assert_eq!(message_stride(1, MESSAGE_BYTES_MAX as usize), None);
    assert_eq!(message_stride(KEY_BYTES_MAX + 1, 0), None);
    assert_eq!(message_stride(usize::MAX, usize::MAX), None);
}

#[test]
fn frames_of_other_versions_and_tails_past_the_bound_are_named() {
    let good = Frame::Bye.encode(0);
    let with = |at: usize, value: u8| {
        let mut bytes: [u8; FRAME_BYTES] = good;
        bytes[at] = value;
        Frame::decode(bytes).expect_err("changed")
    };
    for found in [FRAME_VERSION - 1, FRAME_VERSION + 1] {
        assert_eq!(with(4, found), FrameError::Version { found });
    }
    assert_eq!(with(7, 0xff), FrameError::Tail { bytes: 0xff00 });
    assert_eq!(with(5, 0), FrameError::Field { kind: 0, field: "kind", value: 0 });
    assert_eq!(with(0, b'X'), FrameError::Magic { found: u32::from_le_bytes(*b"XFF1") });
    let text = with(7, 0xff).to_string();
    assert!(text.contains("65280") && text.contains(&TAIL_BYTES_MAX.to_string()), "{text}");
}

#[test]
fn names_are_refused_with_what_is_wrong() {
    assert_eq!(check_name(""), Err(TopicError::NameEmpty));
    assert_eq!(check_name(&"n".repeat(120)), Ok(()));
    assert_eq!(check_name(&"n".repeat(121)), Err(TopicError::NameTooLong { bytes: 121 }));
    let bad = |name: &str| check_name(name).expect_err("a bad name").to_string();
    assert!(bad("a b").contains("' ' at byte 1"), "{}", bad("a b"));
    assert!(bad("ab/c").contains("'/' at byte 2"));
    assert!(bad("é").contains("at byte 0"));
    assert!(bad("a\0").contains("'\\0' at byte 1"));
    assert!(bad("a\n").contains("'\\n' at byte 1"), "a message stays one line");
}

#[test]
fn ring_sizes_are_powers_of_two_within_bounds() {
    for good in [RING_SLOTS_MIN, RING_SLOTS_DEFAULT, RING_SLOTS_MAX] {
        assert_eq!(check_ring_slots(good), Ok(()));
    }
    for bad in [0, 1, RING_SLOTS_MIN / 2, RING_SLOTS_MIN + 1, RING_SLOTS_MAX * 2, u32::MAX] {
        let text = check_ring_slots(bad).expect_err("a bad size").to_string();
        assert!(text.contains(&bad.to_string()) && text.contains("power of two"), "{text}");
    }
}

#[test]
fn orders_have_names_numbers_and_a_meaning() {
    for (order, name) in Order::ALL {
        assert_eq!(name.parse(), Ok(order));
        assert_eq!(order.to_string(), name);
        assert_eq!(Order::from_raw(order.raw()), Some(order));
    }
    assert_eq!(Order::from_raw(6), None);
    let unknown = "Strong".parse::<Order>().expect_err("names are in small letters").to_string();
    assert!(unknown.contains("\"Strong\"") && unknown.contains("none, broker"), "{unknown}");
    let sequenced: Vec<&str> = Order::ALL
        .iter()
        .filter(|(order, _)| order.is_sequenced())
        .map(|(_, name)| *name)
        .collect();
    assert_eq!(sequenced, ["total", "token", "stream", "strong"]);
}

#[test]
fn numbers_of_things_keep_their_bounds() {
    assert_eq!(BrokerId::new(32), None);
    assert_eq!(BrokerId::new(31).map(BrokerId::index), Some(31));
    assert_eq!(BrokerId::all().count(), BROKERS_MAX);
    let id = TopicId::new(255, 7);
    assert_eq!((id.slot(), id.generation(), id.0), (255, 7, 0x07ff));
    assert_ne!(TopicId::new(3, 1), TopicId::new(3, 2));
    assert_eq!(SegmentId::NONE.some(), None);
    assert_eq!(SegmentId(0).some(), Some(SegmentId(0)));
}
