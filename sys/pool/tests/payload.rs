//! Payloads written straight into their place.

use std::sync::Arc;

use landfall_layout::batch::{Messages, crc32c};
use landfall_layout::pool::Coherence;
use landfall_pool::hold::Hold;
use landfall_pool::payload_writer::PayloadWriter;

mod common;
use common::pool;

#[test]
fn messages_lie_where_they_were_written_and_the_checksum_is_theirs() {
    let pool = Arc::new(pool(Coherence::Coherent));
    let mut writer = PayloadWriter::new(&pool, pool.geometry().head_bytes(), 4096).unwrap();
    let payloads: Vec<Vec<u8>> = (0..20_u8).map(|i| vec![i; usize::from(i) * 7]).collect();
    let mut bytes = 0;
    for payload in &payloads {
        writer.append([payload.len() as u64, 9], [b"", payload]);
        bytes += 16 + payload.len().next_multiple_of(8);
    }
    let crc = writer.finish();
    let hold = Hold::by_broker(0);
    let mut stored = Vec::new();
    let sum = pool.shared(&hold, 0, bytes as u32).unwrap().append_summed(&mut stored);
    assert_eq!((sum, crc32c(&stored)), (crc, crc));
    let mut messages = Messages::new(&stored, 20);
    let read: Vec<Vec<u8>> = messages.by_ref().map(|message| message.payload.to_vec()).collect();
    assert_eq!(read, payloads);
    assert!(messages.is_whole());
}

#[test]
fn places_outside_the_pool_or_off_a_line_are_refused() {
    let pool = Arc::new(pool(Coherence::Coherent));
    let bytes = pool.geometry().pool_bytes();
    assert!(PayloadWriter::new(&pool, bytes - 64, 128).is_err());
    assert!(PayloadWriter::new(&pool, 8, 64).is_err());
}
