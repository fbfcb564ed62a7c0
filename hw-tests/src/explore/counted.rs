//! A broker that control gives up, and that wakes: it looks at a word before it writes anything.
//!
//! Nothing here knows of time. What is explored is that a look finds what control said before it,
//! as far as anything that came from there shows.

use landfall_layout::command::Body;
use landfall_model::mutate::{Redundant, Subject};
use landfall_model::{Image, Plan, Process, Scenario};
use landfall_pool::Memory;
use landfall_pool::line_ring::{LineConsumer, LineProducer, LineRing};
use landfall_pool::lines::{read_counted, say_counted};

use super::{A, B, C, Family};

/// The word, and the segment's line that another broker gets.
const COUNTED: u64 = 64;
const SEGMENT: u64 = 128;
const TO_BROKER: LineRing = LineRing::behind(256, 2);
const TO_OTHER: LineRing = LineRing::behind(512, 2);
const FROM_OTHER: LineRing = LineRing::behind(768, 2);
const LINE: Body = [1; 7];
/// The process that control counted on.
const INCARNATION: u64 = 9;
/// What the brokers write.
const OURS: u64 = 1;
const THEIRS: u64 = 2;

/// The family.
pub fn family() -> Family {
    Family {
        name: "a broker that is given up",
        scenarios: vec![Scenario {
            name: "it wakes behind the grant",
            image: &counted,
            plan: &wakes,
        }],
        subject: Subject {
            modules: &["lines::say_counted", "lines::read_counted"],
            redundant: &[
                Redundant {
                    site: "lines::read_counted.1 full fence",
                    why: "the ring's acquire is before the look; the fence is for a clock, which \
                          is not in the model",
                },
                Redundant { site: "lines::say_counted.1 write-back fence", why: TOLD_BEHIND },
                Redundant { site: "lines::say_counted.2 full fence", why: TOLD_BEHIND },
            ],
        },
    }
}

const TOLD_BEHIND: &str = "whoever learns of it does by a line that is written back behind it";

fn counted(image: &Image<'_>) {
    image.store(COUNTED, INCARNATION);
}

/// Its segment has gone to another broker when it goes on.
fn wakes(plan: &mut Plan) {
    plan.process(A, |memory| {
        say_counted(memory, COUNTED, 0);
        send(memory, TO_OTHER);
        receive(memory, FROM_OTHER);
        send(memory, TO_BROKER);
    });
    plan.process(C, |memory| {
        receive(memory, TO_OTHER);
        memory.store(SEGMENT, THEIRS);
        memory.publish(SEGMENT, 64);
        send(memory, FROM_OTHER);
    });
    broker(plan);
    plan.after(A, |memory| {
        memory.refresh(SEGMENT, 64);
        assert_eq!(memory.load(SEGMENT), THEIRS, "what the other broker wrote");
    });
}

/// It looked once, and was stopped: what wakes it comes from behind the grant.
fn broker(plan: &mut Plan) {
    plan.process(B, |memory| {
        read_counted(memory, COUNTED);
        receive(memory, TO_BROKER);
        if read_counted(memory, COUNTED) == INCARNATION {
            memory.store(SEGMENT, OURS);
            memory.publish(SEGMENT, 64);
            panic!("a broker that was given up wrote");
        }
    });
}

fn send(memory: &Process<'_>, ring: LineRing) {
    assert!(LineProducer::begin(ring, 0).push(memory, LINE), "the ring is empty");
}

fn receive(memory: &Process<'_>, ring: LineRing) {
    let mut ring = LineConsumer::begin(memory, ring, 0);
    assert_eq!(memory.wait_for(|| ring.pop(memory)), LINE);
}
