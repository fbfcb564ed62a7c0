//! Bytes of every frame, command and request, written out, and their way back.

use landfall_layout::TopicId;
use landfall_layout::command::{Command, Denial, Request};
use landfall_layout::frame::*;
use landfall_layout::held::{Held, HeldBy};
use landfall_layout::segment::{OWNER_CONTROL, SegmentKind, SegmentState, What};
use landfall_layout::session::{SessionState, Standing};
use zerocopy::IntoBytes;

mod hex;
use hex::golden;

fn frame(frame: Frame, tail: usize, expected: &str) {
    let bytes = frame.encode(tail);
    golden(&bytes, expected);
    assert_eq!(Frame::decode(bytes), Ok((frame, tail)));
    // It never travels through a channel, whose lines have no room for its last word.
    if tail == 0 && !matches!(frame, Frame::Welcome(_)) {
        assert_eq!(Frame::from_line(frame.to_line()), Ok(frame));
    }
}

fn hello(from: From) -> Hello {
    Hello {
        role: Role::Subscribe,
        carrier: Carrier::Memory,
        ack: Ack::Durable,
        client: 0x0807_0605_0403_0201,
        session_epoch: 9,
        life: 0,
        comes_back: false,
        from,
        checked: false,
    }
}

#[test]
fn frames_that_open_a_connection() {
    let publish = Hello {
        role: Role::Publish,
        carrier: Carrier::Stream,
        ack: Ack::None,
        ..hello(From::Earliest)
    };
    frame(
        Frame::Hello(publish),
        5,
        "4c464631 03 01 0500 00 00 00 0000000000 0102030405060708 09000000 .",
    );
    frame(
        Frame::Hello(Hello { ack: Ack::Ordered, ..hello(From::Latest) }),
        512,
        "4c464631 03 01 0002 01 01 01 0100000000 0102030405060708 09000000 .",
    );
    frame(
        Frame::Hello(hello(From::Position(7))),
        0,
        "4c464631 03 01 0000 01 01 02 0200000000 0102030405060708 0900000000000000 07 .",
    );
    frame(
        Frame::Hello(hello(From::Time(8))),
        0,
        "4c464631 03 01 0000 01 01 02 0300000000 0102030405060708 0900000000000000 08 .",
    );
    frame(
        Frame::Hello(Hello { checked: true, ..hello(From::Position(7)) }),
        0,
        "4c464631 03 01 0000 01 01 02 0201000000 0102030405060708 0900000000000000 07 .",
    );
    frame(
        Frame::Hello(Hello { life: 3, comes_back: true, ..publish }),
        5,
        "4c464631 03 01 0500 00 00 00 0000010000 0102030405060708 09000000 03000000 .",
    );
    let welcome = Welcome {
        topic: TopicId(1),
        created_ns: 9,
        order: 5,
        broker: 31,
        in_flight_max: 512,
        session_epoch: 2,
        session_index: 3,
        batch_bytes_max: 4,
        next_seq: 5,
        start: 6,
        end: 7,
        copies: 8,
        is_own: true,
        has_bounds: true,
    };
    frame(
        Frame::Welcome(welcome),
        0,
        "4c464631 03 02 0000 01000000 02000000 03000000 04000000 0500000000000000 \
         0600000000000000 0700000000000000 05 1f 0002 08 01 01 00 09 .",
    );
    let refusals = [
        Refusal::Malformed,
        Refusal::Version,
        Refusal::NoTopic,
        Refusal::NotServed,
        Refusal::BadBatch,
        Refusal::SessionsFull,
        Refusal::NoControl,
        Refusal::BadAck,
        Refusal::Busy,
        Refusal::TopicGone,
    ];
    for (raw, refusal) in (1..).zip(refusals) {
        frame(Frame::Refused(refusal), 3, &format!("4c464631 03 03 0300 {raw:02x} ."));
    }
}

#[test]
fn frames_about_batches() {
    for (raw, reached) in [
        Reached::Landed,
        Reached::Ordered,
        Reached::Duplicate,
        Reached::Durable,
        Reached::Replicated,
        Reached::Lost,
    ]
    .into_iter()
    .enumerate()
    {
        let receipt = Receipt {
            reached,
            count: 0x0201,
            batch_seq: 3,
            position: 4,
            landed_ns: 5,
            session_epoch: 6,
        };
        frame(
            Frame::Receipt(receipt),
            0,
            &format!(
                "4c464631 03 04 0000 {raw:02x}00 0102 06000000 0300000000000000 04000000 00000000 \
                 05 ."
            ),
        );
    }
    frame(
        Frame::Fenced { session_epoch: 1, next_seq: 2 },
        0,
        "4c464631 03 05 0000 0100000000000000 02 .",
    );
    let delivery = Delivery {
        log: 32,
        broker: 1,
        count: 2,
        bytes: 3,
        index: 4,
        first_position: 5,
        landed_ns: 6,
        checksum: 7,
    };
    frame(
        Frame::Delivery(delivery),
        0,
        "4c464631 03 06 0000 20 01 0200 03000000 0400000000000000 0500000000000000 \
         0600000000000000 07 .",
    );
    let reasons = [
        GapReason::Retention,
        GapReason::Unwritten,
        GapReason::Lost,
        GapReason::Skipped,
        GapReason::Corrupt,
    ];
    for (raw, reason) in reasons.into_iter().enumerate() {
        frame(
            Frame::Gap { log: 32, reason, missed: 1, resume: 2 },
            0,
            &format!("4c464631 03 07 0000 20{raw:02x}000000000000 0100000000000000 02 ."),
        );
    }
    frame(Frame::CaughtUp, 0, "4c464631 03 08 .");
    frame(
        Frame::Stalled { why: Stall::RingFull, used: 1, of: 2 },
        0,
        "4c464631 03 09 0000 0000000000000000 01000000 02 .",
    );
    frame(
        Frame::Stalled { why: Stall::PoolFull, used: 1, of: 2 },
        0,
        "4c464631 03 09 0000 0100000000000000 01000000 02 .",
    );
    let held = Held {
        source: 1,
        replica: 2,
        keeper: 3,
        moved: true,
        by: HeldBy::Full,
        errno: 28,
        durable: 5,
        awaited: 6,
    };
    frame(Frame::Held(held), 0, "4c464631 03 11 0000 0102030103001c00 0500000000000000 06 .");
    frame(Frame::Ends, 17, "4c464631 03 13 1100 .");
    frame(Frame::Bye, 0, "4c464631 03 0a .");
    frame(Frame::Beat, 0, "4c464631 03 12 .");
}

#[test]
fn frames_of_memory_publishers() {
    frame(Frame::ExtentWanted { bytes: 0x1000 }, 0, "4c464631 03 0b 0000 0010 .");
    frame(
        Frame::Extent { extent: 1, segment: 2, generation: 3, offset: 4, bytes: 5, key: 6, at: 7 },
        0,
        "4c464631 03 0c 0000 01000000 02000000 0300000000000000 0400000005000000 \
         0600000000000000 07 .",
    );
    frame(
        Frame::Written { extent: 1, offset: 2, bytes: 3, batch_seq: 4 },
        0,
        "4c464631 03 0d 0000 0100000000000000 02000000 03000000 04 .",
    );
    frame(Frame::ExtentDone { extent: 1 }, 0, "4c464631 03 0e 0000 01 .");
}

#[test]
fn frames_about_positions() {
    frame(
        Frame::Reserve { request: 1, count: 2, whole: true },
        0,
        "4c464631 03 0f 0000 01000000 02000000 01 .",
    );
    frame(
        Frame::Reserved { request: 1, first: 3, count: 2 },
        0,
        "4c464631 03 10 0000 01000000 02000000 03 .",
    );
}

fn command(command: Command, expected: &str) {
    golden(command.pack().as_bytes(), expected);
    assert_eq!(Command::unpack(command.pack()), Some(command));
}

#[test]
fn commands() {
    let topic = TopicId(0x0102);
    command(
        Command::Accepted { epoch: 1, incarnation: 2 },
        "0100000000000000 0100000000000000 02 .",
    );
    for (raw, kind) in
        [(1, SegmentKind::Payload), (2, SegmentKind::Ring), (3, SegmentKind::OrderLog)]
    {
        command(
            Command::Grant { kind, topic, segment: 4, generation: 5, base_index: 6 },
            &format!(
                "0200000000000000 {raw:02x}00000000000000 0201000000000000 0400000000000000 \
                 0500000000000000 06 ."
            ),
        );
    }
    command(Command::RingReady { topic }, "0300000000000000 0201 .");
    let denials = [
        Denial::NoTopic,
        Denial::PoolFull,
        Denial::SessionsFull,
        Denial::Fenced,
        Denial::NoSession,
    ];
    for (raw, why) in (1..).zip(denials) {
        command(
            Command::Denied { topic, kind: SegmentKind::Payload, why, free: 7, segments: 8 },
            &format!(
                "0400000000000000 0201000000000000 0100000000000000 {raw:02x}00000000000000 \
                 0700000000000000 08 ."
            ),
        );
        command(
            Command::SessionDenied { request: 1, why, epoch: 2, next_seq: 3 },
            &format!(
                "0600000000000000 0100000000000000 {raw:02x}00000000000000 0200000000000000 03 ."
            ),
        );
    }
    command(
        Command::SessionOpen { request: 1, index: 2, epoch: 3, next_seq: 4, is_own: true },
        "0500000000000000 0100000000000000 0200000000000000 0300000000000000 0400000000000000 01 .",
    );
    command(
        Command::Retire { segment: 1, generation: 2 },
        "0700000000000000 0100000000000000 02 .",
    );
    command(Command::DropTopic { topic }, "0800000000000000 0201 .");
    command(
        Command::Reserved { request: 1, first: 2, count: 3 },
        "0a00000000000000 0100000000000000 0200000000000000 03 .",
    );
}

fn request(request: Request, expected: &str) {
    golden(request.pack().as_bytes(), expected);
    assert_eq!(Request::unpack(request.pack()), Some(request));
}

#[test]
fn requests() {
    let topic = TopicId(0x0102);
    request(Request::Register { incarnation: 1 }, "0100000000000000 01 .");
    request(Request::OpenRing { topic }, "0200000000000000 0201 .");
    request(
        Request::Want { kind: SegmentKind::OrderLog, topic, is_ahead: false },
        "0300000000000000 0300000000000000 0201 .",
    );
    request(
        Request::Want { kind: SegmentKind::OrderLog, topic, is_ahead: true },
        "0300000000000000 0300000000000000 0201000000000000 01 .",
    );
    request(
        Request::OpenSession { request: 1, topic, client: 2, epoch: 3, life: 4, comes_back: true },
        "0400000000000000 0100000000000000 0201000000000000 0200000000000000 0300000000000000 \
         0400000000000000 01 .",
    );
    request(Request::CloseSession { index: 1, epoch: 2 }, "0500000000000000 0100000000000000 02 .");
    request(
        Request::Sealed { segment: 1, generation: 2, through: 3 },
        "0600000000000000 0100000000000000 0200000000000000 03 .",
    );
    request(
        Request::Retired { segment: 1, generation: 2 },
        "0700000000000000 0100000000000000 02 .",
    );
    request(Request::TopicReleased { topic }, "0800000000000000 0201 .");
    request(
        Request::Reserve { request: 1, topic, session: 2, epoch: 3, count: 4, whole: true },
        "0900000000000000 0100000000000000 0201000000000000 0200000000000000 0300000000000000 \
         0400000000000000 01 .",
    );
    request(Request::Lost { segment: 7 }, "0a00000000000000 07 .");
    request(
        Request::Fence { topic: TopicId(0x102), client: 3, epoch: 4, late: Some(5) },
        "0b00000000000000 0201000000000000 0300000000000000 0400000000000000 0100000000000000 05 .",
    );
    request(
        Request::Withhold { segment: 1, generation: 2 },
        "0c00000000000000 0100000000000000 02 .",
    );
    request(Request::LetGo { segment: 1, generation: 2 }, "0d00000000000000 0100000000000000 02 .");
    request(
        Request::Joined { leader: 1, sessions: [(2, 3), (4, 5), (6, 7), (8, 9), (0, 0)] },
        "0e00000000000000 0100000000000000 0200000003000000 0400000005000000 0600000007000000 \
         0800000009 .",
    );
    request(Request::JoinedAll { leader: 1 }, "0f00000000000000 01 .");
    request(
        Request::AllWithheld { epoch: 1, incarnation: 2 },
        "1000000000000000 0100000000000000 02 .",
    );
    request(Request::TopicSaid { topic }, "1100000000000000 0201 .");
}

#[test]
fn packed_words() {
    let what = What {
        kind: SegmentKind::OrderLog,
        state: SegmentState::Retiring,
        owner: OWNER_CONTROL,
        log: 32,
        topic: TopicId(0x0102_0304),
    };
    golden(&what.pack().to_le_bytes(), "03 03 ff 20 04030201");
    assert_eq!(What::unpack(what.pack()), Ok(what));
    assert_eq!(What::FREE.pack(), 0);
    for (raw, state) in
        [SessionState::Free, SessionState::Active, SessionState::Fenced, SessionState::Closed]
            .into_iter()
            .enumerate()
    {
        let standing = Standing { epoch: 0x0102_0304, state };
        golden(&standing.pack().to_le_bytes(), &format!("04030201 {raw:02x}000000"));
        assert_eq!(Standing::unpack(standing.pack()), standing);
    }
}
