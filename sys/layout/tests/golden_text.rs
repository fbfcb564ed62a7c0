//! Bytes of the structures that carry text or checksums, written out.

use landfall_layout::batch::{BatchPreamble, MESSAGE_HAS_KEY, MessageHeader, crc32c};
use landfall_layout::counters::ErrorEntry;
use landfall_layout::pool::{BrokerAddress, MAGIC};
use landfall_layout::topic::{
    Durability, Order, TOPIC_CHECK_INGEST, TOPIC_KEEP, TOPIC_WINDOW, TopicEntry,
};
use zerocopy::IntoBytes;

mod hex;
use hex::golden;

#[test]
fn the_pools_first_word_reads_landfall() {
    assert_eq!(&MAGIC.to_le_bytes(), b"LANDFALL");
}

#[test]
fn topic_entry() {
    let mut name = [0; 120];
    name[..6].copy_from_slice(b"a.b_c-");
    let entry = TopicEntry {
        version: 6,
        id: 0x0000_0102,
        state: 1,
        order: Order::Strong.raw(),
        flags: TOPIC_KEEP | TOPIC_CHECK_INGEST | TOPIC_WINDOW,
        replicas: 3,
        ring_slots: 4096,
        name_bytes: 6,
        retention_bytes: 0x1122_3344_5566_7788,
        retention_ns: 9,
        created_ns: 10,
        session_lease_ns: 11,
        name,
        replica_brokers: 2,
        reserved8: [0; 7],
        disk_bytes: 0x0102_0304_0506_0708,
        disk_ns: 12,
        deleted_ns: 13,
        life: 14,
        begin_index: 15,
        begin_position: 16,
        reserved: [0; 3],
    };
    let bytes = entry.to_bytes();
    golden(
        &bytes[176..],
        "02 00000000000000 0807060504030201 0c00000000000000 0d00000000000000 \
         0e00000000000000 0f00000000000000 1000000000000000 .",
    );
    golden(
        &bytes[..176],
        "0600000000000000 02010000 01 05 07 03 \
         00100000 06000000 8877665544332211 \
         0900000000000000 0a00000000000000 0b00000000000000 \
         61 2e 62 5f 63 2d .",
    );
    assert_eq!(entry.to_bytes().len(), 256);
    let back = TopicEntry::from_words(entry.to_words());
    assert_eq!((back.name(), back.order()), ("a.b_c-", Some(Order::Strong)));
    assert!(back.keeps() && back.checks_ingest());
    assert_eq!(back.durability(), Durability::Window);
}

#[test]
fn broker_address() {
    let address = BrokerAddress::new("127.0.0.1:4", "@b/0", "[::1]:5").expect("short");
    golden(&address.to_bytes(), "0b00 0400 0700 3132372e302e302e313a34 40622f30 5b3a3a315d3a35 .");
    assert_eq!((address.tcp(), address.unix()), ("127.0.0.1:4", "@b/0"));
    assert_eq!(address.verbs(), "[::1]:5");
}

#[test]
fn error_entry() {
    let mut text = [0; 224];
    text[..2].copy_from_slice("é".as_bytes());
    let entry = ErrorEntry { count: 1, first_ns: 2, last_ns: 3, text_bytes: 2, level: 0, text };
    golden(
        &entry.to_bytes(),
        "0100000000000000 0200000000000000 0300000000000000 0200000000000000 c3a9 .",
    );
    assert_eq!(entry.text(), "é");
}

#[test]
fn message_header() {
    let header = MessageHeader {
        payload_bytes: 0x0403_0201,
        key_bytes: 0x0605,
        flags: MESSAGE_HAS_KEY,
        timestamp_ns: 0x1413_1211_100f_0e0d,
    };
    golden(header.as_bytes(), "01020304 0506 0100 0d0e0f1011121314");
}

#[test]
fn the_checksum_is_crc32c() {
    // RFC 3720, B.4: 32 bytes of zeros and 32 of ones; and the check value every catalogue gives.
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(b""), 0);
}

#[test]
fn a_sealed_preamble() {
    let preamble = BatchPreamble {
        topic: 0x0102,
        session_epoch: 3,
        client: 4,
        batch_seq: 5,
        sealed_ns: 6,
        payload_bytes: 16,
        payload_crc: crc32c(&[0; 16]),
        count: 1,
        ..BatchPreamble::default()
    }
    .seal();
    let bytes = preamble.to_bytes();
    // The checksum was computed by a program of another kind over these same bytes.
    golden(
        &bytes,
        "4c464231 01 00 00 00 02010000 03000000 0400000000000000 0500000000000000 \
         0600000000000000 10000000 ea9a7042 0100 0000 00000000 709baf62 00000000",
    );
    assert_eq!(preamble.check(64 + 16), Ok(()));
}

#[test]
fn a_padding_preamble() {
    golden(
        &BatchPreamble::padding(4096).to_bytes(),
        "4c465031 01 00 00 00 00000000 00000000 0000000000000000 0000000000000000 \
         0000000000000000 c00f0000 00000000 0000 0000 00000000 8db38644 00000000",
    );
}
