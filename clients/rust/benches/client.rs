//! What a 64-byte message costs its publisher and its reader.
//!
//! The publisher writes into the pool of this process: a thread plays the broker, grants extents
//! and sends receipts without looking at a byte, so nothing but the publisher's own work is in the
//! way: one copy into the stage, the checksum, and the copy into the extent. Expect 5 to 15 ns a
//! message on a machine of 2020 or later, with most of it in the copies; the bound we hold
//! ourselves to is 20 ns. Batches of 32 KiB go into the extent with ordinary stores, those of
//! 256 KiB past the caches: the two show what that choice costs the publisher.
//!
//! The reader walks the messages of one batch that is in its cache: a bounds check, two slices and
//! a step. Expect 1 to 3 ns a message; the bound is 10 ns.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::sync::Arc;

use common::pool::{broker, give, pool};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use landfall::{Idle, Transport};
use landfall_layout::batch::Messages;
use landfall_layout::frame::{Frame, Reached, Receipt};
use landfall_layout::segment::SegmentKind;
use landfall_pool::Memory;

/// Extents of the rig: the four quarters of one segment, again and again.
const EXTENT_BYTES: u32 = 512 << 10;

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    group.throughput(Throughput::Elements(1));
    for batch_bytes in [32 << 10, 256 << 10] {
        let (pool, _fd) = pool();
        give(&pool, 1, SegmentKind::Payload, 1);
        for word in 0..(2 << 17) {
            pool.store(pool.at(1, 0, 2 << 20).unwrap() + 8 * word, 1);
        }
        let broker_pool = Arc::clone(&pool);
        let (client, script) = broker(move |connections| {
            let mut peer = connections.publisher(&broker_pool, 1, 0);
            let (mut extents, mut position) = (0, 0);
            while let Some(frame) = peer.next_spinning() {
                match frame {
                    Frame::ExtentWanted { .. } => {
                        peer.send(Frame::Extent {
                            extent: extents,
                            segment: 1,
                            generation: 1,
                            offset: extents % 4 * EXTENT_BYTES,
                            bytes: EXTENT_BYTES,
                            key: 0,
                            at: 0,
                        });
                        extents += 1;
                    }
                    Frame::Written { batch_seq, .. } => {
                        peer.send(Frame::Receipt(Receipt {
                            reached: Reached::Ordered,
                            count: 1,
                            batch_seq,
                            position,
                            landed_ns: 5,
                            session_epoch: 1,
                        }));
                        position += 1;
                    }
                    _ => {}
                }
            }
        });
        let mut publisher = client
            .publisher("topic")
            .transport(Transport::Memory)
            .batch_bytes(batch_bytes)
            .idle(Idle::Spin)
            .build()
            .unwrap();
        let name = format!("64 bytes, batches of {} KiB", batch_bytes >> 10);
        group.bench_function(name, |bencher| {
            bencher.iter(|| publisher.publish(black_box(&[7; 64])).unwrap());
        });
        drop(publisher);
        script.join().unwrap();
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let count = 400_u16;
    let message = [7_u8; 64];
    let batch = common::batch(0, &vec![&message[..]; count.into()]);
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(count.into()));
    group.bench_function("64 bytes, from a batch of 400", |bencher| {
        bencher.iter(|| {
            Messages::new(black_box(&batch[64..]), count)
                .map(|message| message.payload.len() as u64 + u64::from(message.payload[0]))
                .sum::<u64>()
        });
    });
    group.finish();
}

criterion_group!(benches, publish, read);
criterion_main!(benches);
