//! A broker is killed with lines in its host's caches that it did not write back. Its segment goes
//! to another host once the next process of that broker, on the same host, has written back what
//! there was.

use landfall_layout::limits::{LINE_BYTES, SEQUENCED_LOG};
use landfall_layout::segment::{SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_model::explore::{Explorer, Limits, Outcome};
use landfall_model::{Crash, Image, Plan, Process, Scenario};
use landfall_pool::{Memory, Pool};

use super::takeover::{led, pool};
use super::{A, B};

/// The broker's segment.
const SEGMENT: SegmentId = SegmentId(2);
/// Lines of a batch.
const LINES: u64 = 2;
/// What the next user of the segment stores.
const THEIRS: u64 = 2;

/// The next process of the broker writes back what the one before had.
pub fn written_back() -> Outcome {
    explore(|memory| {
        let pool = pool(*memory);
        pool.follow();
        pool.write_back_of(broker());
        say(memory, &pool);
    })
}

/// It does not.
pub fn forgotten() -> Outcome {
    explore(|memory| say(memory, &pool(*memory)))
}

fn explore(again: fn(&Process<'_>)) -> Outcome {
    let plan = |plan: &mut Plan| {
        let killed = plan.process(A, |memory| {
            let pool = pool(*memory);
            for line in 0..LINES {
                memory.store(payload(&pool) + line * LINE_BYTES, 1);
            }
            memory.publish(payload(&pool), LINES * LINE_BYTES);
            // Who ends in good order has written back all it had.
            say(memory, &pool);
        });
        plan.crash_then(Crash::Kill(killed), A, again);
        plan.process(B, use_again);
    };
    let scenario = Scenario { name: "a segment changes hosts", image: &granted, plan: &plan };
    Explorer::new(scenario).exhaust(Limits::preemptions(1))
}

fn broker() -> BrokerId {
    BrokerId::new(0).expect("the first broker")
}

fn granted(image: &Image<'_>) {
    led(image);
    let pool = pool(*image);
    let what = What {
        kind: SegmentKind::Payload,
        state: SegmentState::Open,
        owner: broker().raw(),
        log: SEQUENCED_LOG as u8,
        topic: TopicId(7),
    };
    let header = SegmentHeader { what: what.pack(), generation: 1, ..SegmentHeader::FREE };
    pool.give_segment(SEGMENT, &header);
}

fn payload(pool: &Pool<impl Memory>) -> u64 {
    pool.geometry().segment(SEGMENT).expect("one of the pool's segments")
}

/// The word by which the broker says that it is there: its heartbeat's place.
fn said(pool: &Pool<impl Memory>) -> u64 {
    pool.geometry().broker_line(broker()) + 8
}

fn say(memory: &Process<'_>, pool: &Pool<Process<'_>>) {
    memory.store_release(said(pool), 1);
    memory.publish(said(pool), 8);
}

/// Another host's broker, to which the segment is given once its owner is back or has ended.
fn use_again(memory: &Process<'_>) {
    let pool = pool(*memory);
    memory.wait_for(|| {
        memory.refresh(said(&pool), 8);
        (memory.load(said(&pool)) == 1).then_some(())
    });
    for line in 0..LINES {
        let at = payload(&pool) + line * LINE_BYTES;
        memory.refresh(at, LINE_BYTES);
        memory.store(at, THEIRS);
        memory.publish(at, LINE_BYTES);
    }
}
