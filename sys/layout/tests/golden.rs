//! Bytes of every fixed structure, written out: a layout that changes by accident fails here even
//! when both its writer and its reader changed together. A change on purpose changes
//! `pool::VERSION` too.

use landfall_layout::BrokerId;
use landfall_layout::batch::BatchPreamble;
use landfall_layout::doubt::DoubtLine;
use landfall_layout::limits::{
    BATCH_BYTES_MAX, BROKERS_MAX, LINE_BYTES, SEGMENT_BYTES_MAX, SEGMENTS_MAX,
};
use landfall_layout::order::{ChainLine, ENTRY_HOLE, FrontierLine, OrderEntry};
use landfall_layout::pool::{BrokerLine, LeaderLine, PoolHeader, Term};
use landfall_layout::replica::LostLine;
use landfall_layout::segment::SegmentHeader;
use landfall_layout::session::SessionLine;
use landfall_layout::slot::{ConsumedLine, RingLine, RingSlot};

mod hex;
use hex::golden;

#[test]
fn pool_header() {
    let value = PoolHeader {
        magic: 0x0807_0605_0403_0201,
        version: 0x0c0b_0a09,
        coherence: 0x100f_0e0d,
        uuid: [
            0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e,
            0x1f, 0x20,
        ],
        pool_bytes: 0x2827_2625_2423_2221,
        segment_bytes: 0x302f_2e2d_2c2b_2a29,
        sessions: 0x3433_3231,
        segments: 0x3837_3635,
        created_ns: 0x403f_3e3d_3c3b_3a39,
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         21222324 25262728 292a2b2c 2d2e2f30 \
         31323334 35363738 393a3b3c 3d3e3f40",
    );
    assert_eq!(PoolHeader::from_words(value.to_words()).to_bytes(), value.to_bytes());
    assert_eq!(PoolHeader::from_bytes(value.to_bytes()).to_words(), value.to_words());
}

#[test]
fn leader_line() {
    let value = LeaderLine {
        term: 0x0807_0605_0403_0201,
        pid: 0x100f_0e0d_0c0b_0a09,
        host: 0x1817_1615_1413_1211,
        started_ns: 0x201f_1e1d_1c1b_1a19,
        locked: 0x2827_2625_2423_2221,
        ended: 0x302f_2e2d_2c2b_2a29,
        http: 0x3837_3635_3433_3231,
        short: 0x403f_3e3d_3c3b_3a39,
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         21222324 25262728 292a2b2c 2d2e2f30 \
         31323334 35363738 393a3b3c 3d3e3f40",
    );
    assert_eq!(LeaderLine::from_words(value.to_words()).to_bytes(), value.to_bytes());
    assert_eq!(LeaderLine::from_bytes(value.to_bytes()).to_words(), value.to_words());
}

#[test]
fn where_a_leader_is_asked_fits_a_word() {
    let line = |text: &str| {
        let http = LeaderLine::pack_http(text.parse().unwrap());
        LeaderLine { http, ..LeaderLine::default() }
    };
    assert_eq!(line("127.0.0.1:7400").http, 0x0001_7f00_0001_1ce8);
    assert_eq!(line("[::1]:7400").http, 0x0002_0000_0000_1ce8);
    let shown = |text: &str| line(text).http_address().map(|it| it.to_string());
    for text in ["127.0.0.1:7400", "0.0.0.0:1", "255.255.255.255:65535", "[::1]:7400"] {
        assert_eq!(shown(text).as_deref(), Some(text));
    }
    assert_eq!(shown("[::]:7400").as_deref(), Some("0.0.0.0:7400"), "it is IPv4's as well");
    assert_eq!(shown("[::ffff:10.0.0.1]:7400").as_deref(), Some("10.0.0.1:7400"));
    assert_eq!(shown("[2001:db8::1]:7400"), None);
    assert_eq!(LeaderLine::default().http_address(), None);
}

#[test]
fn term_word() {
    for (epoch, serves, word) in [
        (0, false, 0x17c0_017c_0000_0000_u64),
        (1, true, 0xf266_6e8f_0000_0003),
        (0x7fff_ffff, true, 0x7988_87cb_ffff_ffff),
    ] {
        let term = Term { epoch, serves };
        assert_eq!(term.pack(), word, "{term:?}: {:#x}", term.pack());
        assert_eq!(Term::unpack(word), Some(term));
    }
}

#[test]
fn no_flipped_bit_and_no_other_byte_makes_a_term_of_another() {
    assert_eq!(Term::unpack(0), Some(Term::default()), "nobody ever had the slot");
    let terms = (0..200).flat_map(|epoch| [false, true].map(|serves| Term { epoch, serves }));
    for word in terms.map(Term::pack).chain([0]) {
        for byte in 0..8 {
            for other in 1..=255_u64 {
                let damaged = word ^ other << (8 * byte);
                assert_eq!(Term::unpack(damaged), None, "{word:#x} as {damaged:#x}");
            }
        }
    }
}

#[test]
fn broker_line() {
    let value = BrokerLine {
        incarnation: 0x0807_0605_0403_0201,
        heartbeat_ns: 0x100f_0e0d_0c0b_0a09,
        epoch_seen: 0x1817_1615_1413_1211,
        state: 0x201f_1e1d_1c1b_1a19,
        pid: 0x2827_2625_2423_2221,
        host: 0x302f_2e2d_2c2b_2a29,
        disk: 0x3837_3635_3433_3231,
        locked: 0x403f_3e3d_3c3b_3a39,
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         21222324 25262728 292a2b2c 2d2e2f30 \
         31323334 35363738 393a3b3c 3d3e3f40",
    );
    assert_eq!(BrokerLine::from_words(value.to_words()).to_bytes(), value.to_bytes());
    assert_eq!(BrokerLine::from_bytes(value.to_bytes()).to_words(), value.to_words());
}

#[test]
fn segment_header() {
    let value = SegmentHeader {
        what: 0x0807_0605_0403_0201,
        generation: 0x100f_0e0d_0c0b_0a09,
        epoch: 0x1817_1615_1413_1211,
        previous: 0x1c1b_1a19,
        next: 0x201f_1e1d,
        base_index: 0x2827_2625_2423_2221,
        granted_ns: 0x302f_2e2d_2c2b_2a29,
        sealed_ns: 0x3837_3635_3433_3231,
        lost_ns: 0x403f_3e3d_3c3b_3a39,
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         21222324 25262728 292a2b2c 2d2e2f30 \
         31323334 35363738 393a3b3c 3d3e3f40",
    );
    assert_eq!(SegmentHeader::from_words(value.to_words()).to_bytes(), value.to_bytes());
    assert_eq!(SegmentHeader::from_bytes(value.to_bytes()).to_words(), value.to_words());
}

#[test]
fn frontier_line() {
    let value = FrontierLine {
        entries: 0x0807_0605_0403_0201,
        position: 0x100f_0e0d_0c0b_0a09,
        bytes: 0x1817_1615_1413_1211,
        at_ns: 0x201f_1e1d_1c1b_1a19,
        topic: 0x2827_2625_2423_2221,
        written: 0x302f_2e2d_2c2b_2a29,
        written_bytes: 0x3837_3635_3433_3231,
        reserved: 0,
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         21222324 25262728 292a2b2c 2d2e2f30 \
         31323334 35363738 00000000 00000000",
    );
    assert_eq!(FrontierLine::from_words(value.to_words()).to_bytes(), value.to_bytes());
    assert_eq!(FrontierLine::from_bytes(value.to_bytes()).to_words(), value.to_words());
}

#[test]
fn chain_line() {
    let value = ChainLine {
        oldest_index: 0x0807_0605_0403_0201,
        oldest_position: 0x100f_0e0d_0c0b_0a09,
        head: 0x1413_1211,
        tail: 0x1817_1615,
        topic: 0x201f_1e1d_1c1b_1a19,
        skipped_from: 0x2827_2625_2423_2221,
        skipped_to: 0x302f_2e2d_2c2b_2a29,
        skipped_positions: 0x3837_3635_3433_3231,
        skipped_entries: 0x403f_3e3d_3c3b_3a39,
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         21222324 25262728 292a2b2c 2d2e2f30 \
         31323334 35363738 393a3b3c 3d3e3f40",
    );
    assert_eq!(ChainLine::from_words(value.to_words()).to_bytes(), value.to_bytes());
    assert_eq!(ChainLine::from_bytes(value.to_bytes()).to_words(), value.to_words());
}

#[test]
fn lost_line() {
    let (one, other) = (BrokerId::new(1).unwrap(), BrokerId::new(2).unwrap());
    let line = LostLine { topic: 0x0201, count: 0, latest: [0; 6] };
    let line = (0x10..0x17).fold(line, |line, index| line.and(one, index));
    golden(
        &line.to_bytes(),
        "0102000000000000 0700000000000000 1600000000000001 1100000000000001 \
         1200000000000001 1300000000000001 1400000000000001 1500000000000001",
    );
    assert!((0x11..0x17).all(|index| line.names(one, index)) && !line.names(one, 0x10));
    assert!(!line.names(other, 0x11) && !LostLine::default().names(one, 0));
}

#[test]
fn order_entry() {
    let value = OrderEntry {
        first_position: 0x0807_0605_0403_0201,
        client: 0x100f_0e0d_0c0b_0a09,
        batch_seq: 0x1817_1615_1413_1211,
        landed_ns: 0x201f_1e1d_1c1b_1a19,
        session_epoch: 0x2423_2221,
        ring_index: 0x2827_2625,
        checksum: 0x2c2b_2a29,
        segment: 0x000f_2e2d,
        flags: 0x2,
        offset: 0x0032_3130 << 6,
        bytes: 0x0035_3433,
        count: 0x3736,
        broker: 0x38,
        commit: 0x403f_3e3d_3c3b_3a39,
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         21222324 25262728 292a2b2c 2d2e2f30 \
         31323334 35363738 393a3b3c 3d3e3f40",
    );
    assert_eq!(OrderEntry::from_words(value.to_words()), value);
    assert_eq!(OrderEntry::from_bytes(value.to_bytes()), value);
}

#[test]
fn order_entry_holds_the_bounds_and_nothing_beyond_them() {
    let most = OrderEntry {
        segment: (SEGMENTS_MAX - 1) as u32,
        offset: (SEGMENT_BYTES_MAX - LINE_BYTES) as u32,
        bytes: BATCH_BYTES_MAX,
        count: u16::MAX,
        broker: BROKERS_MAX as u8 - 1,
        flags: ENTRY_HOLE,
        checksum: u32::MAX,
        ..OrderEntry::default()
    };
    assert_eq!(OrderEntry::from_words(most.to_words()), most);
    let beyond = OrderEntry {
        segment: u32::MAX,
        offset: u32::MAX,
        bytes: u32::MAX,
        flags: u8::MAX,
        ..OrderEntry::default()
    };
    let last = OrderEntry {
        segment: (1 << 20) - 1,
        offset: (1 << 30) - 64,
        bytes: (1 << 24) - 1,
        flags: 15,
        ..OrderEntry::default()
    };
    assert_eq!(OrderEntry::from_words(beyond.to_words()), last);
}

#[test]
fn ring_slot() {
    let value = RingSlot {
        client: 0x0807_0605_0403_0201,
        batch_seq: 0x100f_0e0d_0c0b_0a09,
        session_epoch: 0x1413_1211,
        session: 0x1817_1615,
        segment: 0x1c1b_1a19,
        offset: 0x201f_1e1d,
        bytes: 0x2423_2221,
        count: 0x2625,
        flags: 0x2827,
        landed_ns: 0x302f_2e2d_2c2b_2a29,
        topic: 0x3433_3231,
        checksum: 0x3837_3635,
        segment_generation: 0x403f_3e3d_3c3b_3a39,
        sealed_ns: 0x4847_4645_4443_4241,
        reserved: [0; 6],
        commit: 0x504f_4e4d_4c4b_4a49,
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         21222324 25262728 292a2b2c 2d2e2f30 \
         31323334 35363738 393a3b3c 3d3e3f40 \
         41424344 45464748 00000000 00000000 \
         00000000 00000000 00000000 00000000 \
         00000000 00000000 00000000 00000000 \
         00000000 00000000 494a4b4c 4d4e4f50",
    );
    assert_eq!(RingSlot::from_words(value.to_words()).to_bytes(), value.to_bytes());
    assert_eq!(RingSlot::from_bytes(value.to_bytes()).to_words(), value.to_words());
}

#[test]
fn ring_line() {
    let value = RingLine {
        topic: 0x0807_0605_0403_0201,
        segment: 0x0c0b_0a09,
        slots: 0x100f_0e0d,
        generation: 0x1817_1615_1413_1211,
        offset: 0x201f_1e1d_1c1b_1a19,
        reserved: [0; 4],
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         00000000 00000000 00000000 00000000 \
         00000000 00000000 00000000 00000000",
    );
    assert_eq!(RingLine::from_words(value.to_words()).to_bytes(), value.to_bytes());
    assert_eq!(RingLine::from_bytes(value.to_bytes()).to_words(), value.to_words());
}

#[test]
fn consumed_line() {
    let value = ConsumedLine {
        topic: 0x0807_0605_0403_0201,
        through: 0x100f_0e0d_0c0b_0a09,
        reserved: [0; 6],
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         00000000 00000000 00000000 00000000 \
         00000000 00000000 00000000 00000000 \
         00000000 00000000 00000000 00000000",
    );
    assert_eq!(ConsumedLine::from_words(value.to_words()).to_bytes(), value.to_bytes());
    assert_eq!(ConsumedLine::from_bytes(value.to_bytes()).to_words(), value.to_words());
}

#[test]
fn session_line() {
    let value = SessionLine {
        standing: 0x0807_0605_0403_0201,
        client: 0x100f_0e0d_0c0b_0a09,
        next_seq: 0x1817_1615_1413_1211,
        topic: 0x1c1b_1a19,
        opened_epoch: 0x201f_1e1d,
        opened_at: 0x2827_2625_2423_2221,
        opened_by: 0x302f_2e2d_2c2b_2a29,
        floor: 0x3837_3635_3433_3231,
        known_from: 0x403f_3e3d_3c3b_3a39,
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         21222324 25262728 292a2b2c 2d2e2f30 \
         31323334 35363738 393a3b3c 3d3e3f40",
    );
    assert_eq!(SessionLine::from_words(value.to_words()).to_bytes(), value.to_bytes());
    assert_eq!(SessionLine::from_bytes(value.to_bytes()).to_words(), value.to_words());
}

#[test]
fn doubt_line() {
    let value = DoubtLine {
        first: 0x0807_0605_0403_0201,
        run: 0x100f_0e0d_0c0b_0a09,
        reserved: 0x1817_1615_1413_1211,
        topic: 0x1c1b_1a19,
        session: 0x201f_1e1d,
        bits: [
            0x2827_2625_2423_2221,
            0x302f_2e2d_2c2b_2a29,
            0x3837_3635_3433_3231,
            0x403f_3e3d_3c3b_3a39,
        ],
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         21222324 25262728 292a2b2c 2d2e2f30 \
         31323334 35363738 393a3b3c 3d3e3f40",
    );
    assert_eq!(DoubtLine::from_words(value.to_words()).to_bytes(), value.to_bytes());
    assert_eq!(DoubtLine::from_bytes(value.to_bytes()).to_words(), value.to_words());
}

#[test]
fn batch_preamble() {
    let value = BatchPreamble {
        magic: 0x0403_0201,
        version: 0x05,
        encoding: 0x06,
        codec: 0x07,
        flags: 0x08,
        topic: 0x0c0b_0a09,
        session_epoch: 0x100f_0e0d,
        client: 0x1817_1615_1413_1211,
        batch_seq: 0x201f_1e1d_1c1b_1a19,
        sealed_ns: 0x2827_2625_2423_2221,
        payload_bytes: 0x2c2b_2a29,
        payload_crc: 0x302f_2e2d,
        count: 0x3231,
        reserved16: 0,
        life: 0,
        header_crc: 0x3635_3433,
        reserved_tail: 0,
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         21222324 25262728 292a2b2c 2d2e2f30 \
         31320000 00000000 33343536 00000000",
    );
    assert_eq!(BatchPreamble::from_words(value.to_words()).to_bytes(), value.to_bytes());
    assert_eq!(BatchPreamble::from_bytes(value.to_bytes()).to_words(), value.to_words());
}
