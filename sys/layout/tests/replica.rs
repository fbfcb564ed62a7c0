//! Replica files: their bytes written out, and a parser that takes any bytes.

use landfall_layout::BrokerId;
use landfall_layout::batch::{BatchPreamble, crc32c};
use landfall_layout::frame::GapReason;
use landfall_layout::order::{ENTRY_HOLE, FrontierLine, OrderEntry};
use landfall_layout::replica::*;
use landfall_layout::topic::{Order, TopicEntry};
use proptest::prelude::*;
use zerocopy::FromZeros;

mod hex;
use hex::golden;

fn header() -> ReplicaHeader {
    let mut name = [0; 120];
    name[..2].copy_from_slice(b"ab");
    ReplicaHeader {
        magic: 0,
        version: 0,
        header_bytes: 0,
        pool_uuid: [0x11; 16],
        created_ns: 0x2827_2625_2423_2221,
        first_index: 0x0201,
        first_ordinal: 0x0403,
        previous_index: NO_FILE,
        opened_ns: 0x0605,
        topic: 0x4c4b_4a49,
        source: 3,
        replica: 1,
        log: 32,
        order: Order::Strong.raw(),
        broker: 4,
        replicas: 3,
        replica_brokers: 5,
        flags: 4,
        name_bytes: 2,
        name,
        mark: 0,
        reserved: [0; 4],
        reserved32: 0,
        crc: 0,
    }
    .seal()
}

/// The bytes of a file's header.
fn header_bytes() -> Vec<u8> {
    let mut file = header().to_bytes().to_vec();
    file.resize(REPLICA_HEADER_BYTES as usize, 0);
    file
}

/// Appends a record with a batch of `payload_bytes` bytes.
fn append(file: &mut Vec<u8>, index: u64, ordinal: u64, payload_bytes: usize) {
    let payload: Vec<u8> = (0..payload_bytes).map(|i| (i as u64 + index) as u8).collect();
    let preamble = BatchPreamble {
        client: 7,
        batch_seq: ordinal,
        session_epoch: 1,
        payload_bytes: payload_bytes as u32,
        payload_crc: crc32c(&payload),
        count: 1,
        ..BatchPreamble::default()
    }
    .seal();
    let entry = OrderEntry {
        first_position: index * 10,
        client: 7,
        batch_seq: ordinal,
        session_epoch: 1,
        checksum: preamble.header_crc,
        bytes: 64 + payload_bytes as u32,
        count: 1,
        broker: 3,
        commit: index + 1,
        ..OrderEntry::default()
    };
    let record = record(file, index, ordinal);
    file.extend_from_slice(&record.seal_batch(&entry, &preamble));
    file.extend_from_slice(&preamble.to_bytes());
    file.extend_from_slice(&payload);
    file.resize(file.len().next_multiple_of(64), 0);
}

fn append_frontier(file: &mut Vec<u8>, index: u64, ordinal: u64) {
    let line = FrontierLine { entries: index + 5, position: 77, ..FrontierLine::default() };
    let record = record(file, index, ordinal);
    file.extend_from_slice(&record.seal_frontier(&line));
}

/// Appends a hole of four positions.
fn append_hole(file: &mut Vec<u8>, index: u64, ordinal: u64) {
    let record = record(file, index, ordinal);
    file.extend_from_slice(&record.seal_hole(&hole(index), GapReason::Unwritten));
}

fn hole(index: u64) -> OrderEntry {
    OrderEntry {
        first_position: index * 10,
        client: 7,
        session_epoch: 1,
        count: 4,
        broker: 3,
        flags: ENTRY_HOLE,
        commit: index + 1,
        ..OrderEntry::default()
    }
}

fn record(file: &[u8], index: u64, ordinal: u64) -> RecordHeader {
    RecordHeader {
        index,
        ordinal,
        at: file.len() as u64,
        created_ns: header().created_ns,
        written_ns: 9,
        source: 3,
        ..RecordHeader::default()
    }
}

/// A file of three batches, a frontier and a hole.
fn file() -> Vec<u8> {
    let mut file = header_bytes();
    append(&mut file, 0x201, 0x403, 100);
    append(&mut file, 0x205, 0x404, 64);
    append_frontier(&mut file, 0x209, 0x405);
    append_hole(&mut file, 0x20a, 0x405);
    append(&mut file, 0x20b, 0x406, 17);
    file
}

#[test]
fn replica_header() {
    let value = header();
    golden(
        &value.to_bytes()[..252],
        "4c465245504c4943 03000000 00100000 11111111111111111111111111111111 \
         2122232425262728 0102000000000000 0304000000000000 ffffffffffffffff \
         0506000000000000 494a4b4c 03 01 20 05 04 03 05 04 02000000 6162 .",
    );
    assert_eq!(value.crc, crc32c(&value.to_bytes()[..252]));
    assert_eq!(ReplicaHeader::parse(&header_bytes()), Ok(value));
    assert_eq!(value.name(), "ab");
}

#[test]
fn replica_line() {
    let value = ReplicaLine {
        durable: 0x0807_0605_0403_0201,
        written: 0x100f_0e0d_0c0b_0a09,
        bytes: 0x1817_1615_1413_1211,
        tail: 0x201f_1e1d_1c1b_1a19,
        topic: 0x2827_2625_2423_2221,
        state: ReplicaState::Full.raw(),
        errno: 28,
        incarnation: 0x3837_3635_3433_3231,
        entries: 0x403f_3e3d_3c3b_3a39,
    };
    golden(
        &value.to_bytes(),
        "01020304 05060708 090a0b0c 0d0e0f10 \
         11121314 15161718 191a1b1c 1d1e1f20 \
         21222324 25262728 03000000 1c000000 \
         31323334 35363738 393a3b3c 3d3e3f40",
    );
    for state in
        [ReplicaState::Absent, ReplicaState::Well, ReplicaState::Failed, ReplicaState::Full]
    {
        assert_eq!(ReplicaState::from_raw(state.raw()), state);
    }
}

#[test]
fn a_frontier_record() {
    let mut file = header_bytes();
    append_frontier(&mut file, 0x209, 0x405);
    golden(
        &file[4096..4096 + 60],
        "4c465231 03 02 0000 0902000000000000 0504000000000000 0010000000000000 \
         2122232425262728 0900000000000000 00000000 03 00000000000000",
    );
    golden(&file[4096 + 64..], "0e02000000000000 4d00000000000000 .");
    let covered: Vec<u8> = [&file[4096..4096 + 60], &file[4096 + 64..]].concat();
    assert_eq!(file[4096 + 60..4096 + 64], crc32c(&covered).to_le_bytes());
}

#[test]
fn a_batch_record() {
    let mut file = header_bytes();
    append(&mut file, 0x201, 0x403, 100);
    let record = &file[4096..];
    golden(
        &record[..60],
        "4c465231 03 01 0000 0102000000000000 0304000000000000 0010000000000000 \
         2122232425262728 0900000000000000 a4000000 03 00000000000000",
    );
    let covered: Vec<u8> = [&record[..60], &record[64..192]].concat();
    assert_eq!(record[60..64], crc32c(&covered).to_le_bytes());
    assert_eq!(record.len(), 128 + 192, "the batch has 164 bytes and ends on a line");
    assert_eq!(record_bytes(164), 320);
}

#[test]
fn a_hole_record() {
    let mut file = header_bytes();
    append_hole(&mut file, 0x209, 0x405);
    assert_eq!(file.len(), 4096 + 128);
    golden(
        &file[4096..4096 + 60],
        "4c465231 03 03 0000 0902000000000000 0504000000000000 0010000000000000 \
         2122232425262728 0900000000000000 00000000 03 01 000000000000",
    );
    assert_eq!(file[4096 + 64..], hole(0x209).to_bytes());
    let covered: Vec<u8> = [&file[4096..4096 + 60], &file[4096 + 64..]].concat();
    assert_eq!(file[4096 + 60..4096 + 64], crc32c(&covered).to_le_bytes());
    let place = Place { ordinal: 0x405, ..Place::first(&header()) };
    let read = parse_record(&file[4096..], place).unwrap();
    assert_eq!(read.body, Body::Hole { entry: hole(0x209), reason: GapReason::Unwritten });
    assert_eq!((read.covers(), place.behind(&read).ordinal), (0x20a, 0x406));
}

#[test]
fn a_hole_is_believed_only_where_its_entry_is_one() {
    let mut at = header_bytes();
    let place = Place { ordinal: 0x405, ..Place::first(&header()) };
    let start = record(&at, 0x209, 0x405);
    let mut field = |entry: OrderEntry, reason| {
        at.truncate(4096);
        at.extend_from_slice(&start.seal_hole(&entry, reason));
        match parse_record(&at[4096..], place) {
            Err(RecordError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    let (whole, why) = (hole(0x209), GapReason::Unwritten);
    assert_eq!(field(OrderEntry { flags: 0, ..whole }, why), "entry flags");
    assert_eq!(field(OrderEntry { bytes: 64, ..whole }, why), "entry bytes");
    assert_eq!(field(OrderEntry { broker: 4, ..whole }, why), "entry broker");
    assert_eq!(field(OrderEntry { commit: 1, ..whole }, why), "entry commit");
    assert_eq!(field(OrderEntry { count: 0, ..whole }, why), "entry count");
    assert_eq!(field(whole, GapReason::Retention), "reason");
}

#[test]
fn a_file_is_read_as_it_was_written() {
    let file = file();
    let (read, mut records) = scan(&file).unwrap();
    assert_eq!(read, header());
    let seen: Vec<(u64, u64, u8)> = records
        .by_ref()
        .map(|record| {
            let kind = match record.body {
                Body::Batch { .. } => RECORD_BATCH,
                Body::Frontier(_) => RECORD_FRONTIER,
                Body::Hole { .. } => RECORD_HOLE,
            };
            assert_eq!(record.header.kind, kind);
            (record.header.index, record.header.ordinal, kind)
        })
        .collect();
    let want = [
        (0x201, 0x403, 1),
        (0x205, 0x404, 1),
        (0x209, 0x405, 2),
        (0x20a, 0x405, 3),
        (0x20b, 0x406, 1),
    ];
    assert_eq!(seen, want);
    assert_eq!((records.error(), records.left()), (None, 0));
    assert_eq!((records.place().index, records.place().ordinal), (0x20c, 0x407));
}

#[test]
fn a_record_is_believed_only_where_it_belongs() {
    let file = file();
    let place = Place::first(&header());
    let at = &file[4096..];
    assert!(parse_record(at, place).is_ok());
    let field = |place| match parse_record(at, place) {
        Err(RecordError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(Place { at: 4160, ..place }), "at");
    assert_eq!(field(Place { created_ns: 1, ..place }), "created_ns");
    assert_eq!(field(Place { source: 2, ..place }), "source");
    assert_eq!(field(Place { ordinal: 0, ..place }), "ordinal");
    assert_eq!(field(Place { index: 0x202, ..place }), "index");
    assert!(parse_record(at, Place { index: 0, ..place }).is_ok(), "a log has other sources");
}

#[test]
fn replicas_live_on_the_brokers_behind_their_source() {
    let mut entry = TopicEntry::new_zeroed();
    let broker = |number| BrokerId::new(number).unwrap();
    (entry.replicas, entry.replica_brokers) = (3, 3);
    assert_eq!(entry.replica_broker(broker(2), 0), Some(broker(2)));
    assert_eq!(entry.replica_broker(broker(2), 1), Some(broker(0)));
    assert_eq!(entry.replica_broker(broker(2), 2), None);
    assert_eq!(entry.replica_broker(broker(4), 0), Some(broker(1)), "it joined later");
    entry.replicas = 200;
    assert_eq!(entry.disk_replicas(), 3);
    entry.replica_brokers = 0;
    assert_eq!(entry.replica_broker(broker(0), 0), None);
}

proptest! {
    #[test]
    fn a_file_that_is_cut_ends_at_a_whole_record(cut in 0_usize..1000) {
        let whole = file();
        let cut = cut.min(whole.len() - REPLICA_HEADER_BYTES as usize);
        let short = &whole[..whole.len() - cut];
        let (_, mut records) = scan(short).unwrap();
        let read = records.by_ref().count();
        let end = records.place().at as usize;
        prop_assert!(end <= short.len() && end.is_multiple_of(64));
        prop_assert_eq!(records.error().is_none(), end == short.len());
        let (_, of_whole) = scan(&whole).unwrap();
        let fitting = of_whole.filter(|record| record.header.at + record.bytes() <= end as u64);
        prop_assert_eq!(read, fitting.count());
    }

    #[test]
    fn no_flipped_bit_is_believed(at in 4096_usize.., bit in 0_u8..8) {
        let mut bytes = file();
        let at = 4096 + at % (bytes.len() - 4096);
        let before = file();
        bytes[at] ^= 1 << bit;
        let (_, mut records) = scan(&bytes).unwrap();
        let read: Vec<_> = records.by_ref().collect();
        prop_assert!(records.error().is_some(), "byte {at} bit {bit}");
        prop_assert!(records.place().at <= at as u64);
        let (_, whole) = scan(&before).unwrap();
        for (got, want) in read.iter().zip(whole) {
            prop_assert_eq!(got, &want);
        }
    }

    #[test]
    fn any_bytes_are_a_file_or_an_error(bytes: Vec<u8>, at in 0_usize..6000, with_header: bool) {
        let mut file = if with_header { file() } else { vec![0; 5000] };
        let at = at.min(file.len());
        file.splice(at.., bytes);
        if let Ok((_, mut records)) = scan(&file) {
            let read = records.by_ref().count();
            prop_assert!(read as u64 <= file.len() as u64 / RECORD_HEAD_BYTES);
            prop_assert!(records.next().is_none());
        }
    }
}
