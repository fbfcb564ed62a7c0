//! A leader is deposed and does not know it: it fences a session and gives back the slots that it
//! held of it. The broker of the ring, on another host, may follow it still; the next leader, on a
//! third, has to find every slot that it has yet to look at, and every session as its slots were
//! judged.

use std::cell::Cell;
use std::rc::Rc;

use landfall_layout::limits::SEGMENT_BYTES_MIN;
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::slot::RingSlot;
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_model::explore::{Explorer, Failure, Limits};
use landfall_model::mutate::{Redundant, Subject};
use landfall_model::{Image, Plan, Process, Scenario};
use landfall_pool::slot_ring::{SlotReader, SlotRing, SlotWriter};
use landfall_pool::{Memory, Pool};

use super::takeover::{FENCED, leader_line, led, pool};
use super::{A, B, C, Family};

const TOPIC: TopicId = TopicId(7);
/// Slots of the ring.
const SLOTS: u64 = 1;
/// Slots committed: the last needs one that was given back.
const COMMITTED: u64 = SLOTS + 1;
/// Line of the only session.
const SESSION: u32 = 0;

/// The family.
pub fn family() -> Family {
    Family {
        name: "late release",
        scenarios: vec![Scenario { name: "old leader goes on", image: &opened, plan: &deposed }],
        subject: Subject {
            modules: &["slot_ring::SlotRing::is_led", "leader::terms"],
            redundant: &[Redundant {
                site: "slot_ring::SlotRing::is_led.1 full fence",
                why: FENCED,
            }],
        },
    }
}

/// What goes wrong when the broker takes whatever its leader gives back; `None` if nothing does.
pub fn believing() -> Option<Failure> {
    explore(Scenario {
        name: "broker believes a deposed leader",
        image: &opened,
        plan: &|plan| {
            let known = leaders(plan, Copying::SessionsLast);
            known.believes.set(true);
            plan.process(C, move |memory| serve(memory, &known));
        },
    })
}

/// What goes wrong when the next leader copies the sessions before the consumed words.
pub fn sessions_first() -> Option<Failure> {
    explore(Scenario {
        name: "sessions copied first",
        image: &opened,
        plan: &|plan| {
            let known = leaders(plan, Copying::SessionsFirst);
            plan.process(C, move |memory| serve(memory, &known));
        },
    })
}

fn explore(scenario: Scenario<'_>) -> Option<Failure> {
    Explorer::new(scenario).exhaust(Limits::preemptions(2)).failure
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Copying {
    SessionsFirst,
    SessionsLast,
}

/// What nobody reads from the pool.
#[derive(Clone, Default)]
struct Known {
    /// The old leader runs.
    is_led: Rc<Cell<bool>>,
    /// Slots that were ordered, a bit each. A broker finds them below the frontier.
    ordered: Rc<Cell<u64>>,
    /// The broker asks nobody whether its leader leads.
    believes: Rc<Cell<bool>>,
}

fn deposed(plan: &mut Plan) {
    let known = leaders(plan, Copying::SessionsLast);
    plan.process(C, move |memory| serve(memory, &known));
}

fn leaders(plan: &mut Plan, copying: Copying) -> Known {
    let known = Known::default();
    let [old, new] = [known.clone(), known.clone()];
    plan.process(A, move |memory| lead(memory, &old));
    plan.process(B, move |memory| take_over(memory, copying, &new));
    known
}

/// A pool that is led, with a session that is active.
fn opened(image: &Image<'_>) {
    led(image);
    pool(*image).set_session(SESSION, &session(SessionState::Active));
}

fn session(state: SessionState) -> SessionLine {
    let standing = Standing { epoch: 1, state }.pack();
    SessionLine { standing, client: 10, topic: TOPIC.0, ..SessionLine::default() }
}

fn is_active(pool: &Pool<Process<'_>>) -> bool {
    pool.session_standing(SESSION).is_some_and(|standing| standing.state == SessionState::Active)
}

/// The ring as the leader says it whose tables are followed.
fn ring(pool: &Pool<impl Memory>) -> SlotRing {
    let at = pool.geometry().segment(SegmentId(3)).expect("one of the pool's segments");
    const { assert!(SLOTS * RingSlot::BYTES <= SEGMENT_BYTES_MIN) };
    let (consumed_at, leader) = pool.told(TOPIC, broker());
    SlotRing { at, slots: SLOTS, consumed_at, leader }
}

fn broker() -> BrokerId {
    BrokerId::new(0).expect("the first broker")
}

fn slot(index: u64) -> RingSlot {
    RingSlot { client: 10 + index, ..RingSlot::default() }
}

/// The broker: commits slots as there is room, and says of each that is consumed and not ordered
/// why, as it does for receipts.
fn serve(memory: &Process<'_>, known: &Known) {
    let pool = pool(*memory);
    let told = |pool: &Pool<Process<'_>>| {
        let ring = ring(pool);
        let leader = ring.leader.filter(|_| !known.believes.get());
        SlotRing { leader, ..ring }
    };
    pool.follow();
    let mut follows = pool.leader_slot();
    let mut writer = SlotWriter::resume(memory, told(&pool));
    let mut judged = 0;
    while judged < COMMITTED {
        memory.wait_for(|| {
            pool.follow();
            if pool.leader_slot() != follows {
                follows = pool.leader_slot();
                let SlotRing { consumed_at, leader, .. } = told(&pool);
                writer.heed(consumed_at, leader);
            }
            let consumed = writer.consumed(memory);
            let news = consumed.saturating_sub(judged);
            while judged < consumed {
                let is_ordered = known.ordered.get() >> judged & 1 == 1;
                assert!(
                    is_ordered || !is_active(&pool),
                    "slot {judged} would be called a duplicate, and is nowhere"
                );
                judged += 1;
            }
            let next = writer.next();
            let pushed = next < COMMITTED && writer.push(memory, &slot(next)).is_some();
            (news > 0 || pushed).then_some(())
        });
    }
}

/// The old leader holds what it sees, until the session is fenced and all of it dropped.
fn lead(memory: &Process<'_>, known: &Known) {
    let pool = pool(*memory);
    pool.follow();
    known.is_led.set(true);
    let reader = SlotReader::new(ring(&pool));
    for index in 0..SLOTS {
        // What the next leader gave back is perhaps there no more.
        memory.wait_for(|| {
            (reader.peek(memory, index).is_some() || pool.highest_epoch() > 1).then_some(())
        });
    }
    if !pool.leads(1) {
        return;
    }
    pool.set_session(SESSION, &session(SessionState::Fenced));
    reader.release(memory, SLOTS);
}

/// The next leader takes what is there and goes on.
fn take_over(memory: &Process<'_>, copying: Copying, known: &Known) {
    memory.wait_for(|| known.is_led.get().then_some(()));
    let pool = pool(*memory);
    let (from, before) = pool.serving().expect("a leader serves");
    assert!(pool.claim(1, &leader_line(before + 1)), "nobody else stands");
    if copying == Copying::SessionsFirst {
        pool.copy_sessions(from);
    }
    let consumed = |slot: usize| pool.geometry_of(slot).consumed(TOPIC.slot(), broker());
    pool.copy_words(Some(consumed(from)), consumed(1), 64);
    if copying == Copying::SessionsLast {
        pool.copy_sessions(from);
    }
    assert!(pool.serve(before + 1), "nobody else stands");
    let ring = ring(&pool);
    let reader = SlotReader::new(ring);
    let takes = is_active(&pool);
    for index in ring.consumed(memory)..COMMITTED {
        let found = memory.wait_for(|| reader.peek(memory, index));
        assert_eq!(found, RingSlot { commit: index + 1, ..slot(index) }, "slot {index}");
        known.ordered.set(known.ordered.get() | u64::from(takes) << index);
        reader.release(memory, index + 1);
    }
}
