//! Retention takes a segment while a memory subscriber reads it: control on one host, the broker
//! and its subscriber on another, the segment's next owner on a third.

use landfall_layout::TopicId;
use landfall_layout::command::Body;
use landfall_layout::order::FrontierLine;
use landfall_model::mutate::{Redundant, Subject};
use landfall_model::{Image, Plan, Process, Scenario};
use landfall_pool::Memory;
use landfall_pool::hold::HoldWord;
use landfall_pool::line_ring::{LineConsumer, LineProducer, LineRing};
use landfall_pool::lines::{move_frontier, move_oldest, read_frontier, read_oldest};

use super::{A, B, Family};

const TOPIC: TopicId = TopicId(7);
/// Control's commands to the broker, and its answers.
const COMMANDS: LineRing = LineRing::behind(0, 2);
const ANSWERS: LineRing = LineRing::behind(192, 2);
const FRONTIER: u64 = 512;
const CHAIN: u64 = 576;
/// Word of the chain line that says whose it is.
const CHAIN_TOPIC: u64 = CHAIN + 24;
/// In memory of the broker's host, which only it and its subscriber use.
const HOLD: HoldWord = HoldWord { at: 640 };
const PAYLOAD: [u64; 2] = [704, 768];
const SEGMENT: u32 = 3;
/// The payload of the entry 0, and what the segment's next owner writes over it.
const OLD: u64 = 1;
const NEW: u64 = 2;
const LINE: Body = [1; 7];

/// The family.
pub fn family() -> Family {
    Family {
        name: "retirement and holds",
        scenarios: vec![Scenario { name: "retired while read", image: &image, plan: &plan }],
        subject: Subject {
            modules: &["hold::", "lines::move_oldest", "lines::read_oldest"],
            redundant: &[
                Redundant { site: "hold::HoldWord::announce.1 full fence", why: SAME_HOST },
                Redundant { site: "hold::HoldWord::held.1 full fence", why: SAME_HOST },
                Redundant { site: "lines::move_oldest.2 full fence", why: SAME_HOST },
            ],
        },
    }
}

const SAME_HOST: &str = "both are on one host, where the model is sequentially consistent: the \
    pool's tests by loom fail without it";

fn image(image: &Image<'_>) {
    image.store(CHAIN_TOPIC, TOPIC.0.into());
    image.store(FRONTIER + 32, TOPIC.0.into());
}

fn plan(plan: &mut Plan) {
    plan.share(HOLD.at, HOLD.at + 8);
    plan.process(A, |memory| {
        for at in PAYLOAD {
            memory.store(at, OLD);
            memory.write_back(at, 8);
        }
        let line = FrontierLine { entries: 1, ..FrontierLine::default() };
        move_frontier(memory, FRONTIER, &line);
        move_oldest(memory, CHAIN, 1, 1);
        send(memory, COMMANDS);
        receive(memory, ANSWERS);
        for at in PAYLOAD {
            memory.store(at, NEW);
        }
    });
    plan.process(B, |memory| {
        receive(memory, COMMANDS);
        memory.wait_for(|| (HOLD.held(memory) != Some(SEGMENT)).then_some(()));
        send(memory, ANSWERS);
    });
    plan.process(B, |memory| {
        memory.wait_for(|| (read_frontier(memory, FRONTIER, TOPIC).entries == 1).then_some(()));
        let is_there = || read_oldest(memory, CHAIN, TOPIC).is_some_and(|oldest| oldest == 0);
        if HOLD.take_if(memory, SEGMENT, is_there).is_some() {
            memory.refresh(PAYLOAD[0], 128);
            for at in PAYLOAD {
                assert_eq!(memory.load(at), OLD, "a payload that was written over under a hold");
            }
            HOLD.release(memory);
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
