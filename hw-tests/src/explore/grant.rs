//! A segment on its way: control grants it to one broker, takes it back, and grants it to another
//! on a third host. Nothing of the first may come over what the second writes.

use landfall_layout::command::Body;
use landfall_layout::segment::{SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::{SegmentId, TopicId};
use landfall_model::mutate::{Redundant, Subject};
use landfall_model::{Plan, Process, Scenario};
use landfall_pool::line_ring::{LineConsumer, LineProducer, LineRing};
use landfall_pool::{Memory, Pool};

use super::takeover::{led, pool};
use super::{A, B, C, Family};

const TOPIC: TopicId = TopicId(7);
/// Control's commands to both brokers and the first one's answers, in a page that nobody uses.
const TO_FIRST: LineRing = LineRing::behind(256, 2);
const FROM_FIRST: LineRing = LineRing::behind(512, 2);
const TO_SECOND: LineRing = LineRing::behind(768, 2);
const SEGMENT: SegmentId = SegmentId(1);
const LINE: Body = [1; 7];
/// What the brokers write.
const FIRST: u64 = 1;
const SECOND: u64 = 2;

/// The family.
pub fn family() -> Family {
    Family {
        name: "segment grant and return",
        scenarios: vec![Scenario { name: "granted twice", image: &led, plan: &grant_twice }],
        subject: Subject {
            modules: &["grant::"],
            redundant: &[Redundant {
                site: "grant::first.1 write-back fence",
                why: "the fence behind the second line waits for the first too",
            }],
        },
    }
}

fn grant_twice(plan: &mut Plan) {
    plan.process(A, |memory| {
        let pool = pool(*memory);
        give(&pool, 1);
        send(memory, TO_FIRST);
        receive(memory, FROM_FIRST);
        pool.set_segment_what(SEGMENT, What::FREE);
        give(&pool, 2);
        send(memory, TO_SECOND);
    });
    plan.process(B, first);
    plan.process(C, |memory| {
        let pool = pool(*memory);
        receive(memory, TO_SECOND);
        assert_eq!(granted(&pool), 2, "the generation of the second grant");
        let at = payload(&pool);
        for line in [at, at + 64] {
            memory.store(line, SECOND);
        }
        memory.publish(at, 128);
    });
    plan.after(A, |memory| {
        let at = payload(&pool(*memory));
        memory.refresh(at, 128);
        let seen = [memory.load(at), memory.load(at + 64)];
        assert_eq!(seen, [SECOND; 2], "what the second broker wrote");
    });
}

/// The first broker: a batch, and one that is dropped when half of it has come.
fn first(memory: &Process<'_>) {
    let pool = pool(*memory);
    receive(memory, TO_FIRST);
    assert_eq!(granted(&pool), 1, "the generation of the first grant");
    let at = payload(&pool);
    memory.store(at, FIRST);
    memory.publish(at, 64);
    memory.store(at + 64, FIRST);
    // As the broker's `pad` does with all of the claim.
    memory.publish(at + 64, 64);
    send(memory, FROM_FIRST);
}

fn payload(pool: &Pool<Process<'_>>) -> u64 {
    pool.at(SEGMENT.0, 0, 128).expect("two lines of a segment")
}

/// The generation in the segment's header, which is whole.
fn granted(pool: &Pool<Process<'_>>) -> u64 {
    let header = pool.segment_header(SEGMENT).expect("one of the pool's segments");
    let what = What::unpack(header.what).expect("a use that there is");
    assert_eq!((what.kind, what.topic), (SegmentKind::Payload, TOPIC), "the use of the segment");
    assert_eq!(pool.segment_generation(SEGMENT.0), header.generation);
    header.generation
}

fn give(pool: &Pool<Process<'_>>, generation: u64) {
    let what = What {
        kind: SegmentKind::Payload,
        state: SegmentState::Open,
        owner: 0,
        log: 0,
        topic: TOPIC,
    };
    let header = SegmentHeader {
        what: what.pack(),
        generation,
        epoch: 1,
        previous: SegmentId::NONE.0,
        next: SegmentId::NONE.0,
        base_index: 0,
        granted_ns: 0,
        sealed_ns: 0,
        lost_ns: 0,
    };
    pool.give_segment(SEGMENT, &header);
}

fn send(memory: &Process<'_>, ring: LineRing) {
    assert!(LineProducer::begin(ring, 0).push(memory, LINE), "the ring is empty");
}

fn receive(memory: &Process<'_>, ring: LineRing) {
    let mut ring = LineConsumer::begin(memory, ring, 0);
    assert_eq!(memory.wait_for(|| ring.pop(memory)), LINE);
}
