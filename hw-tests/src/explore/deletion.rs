//! A leader is deposed while it deletes a topic: the next leader, on another host, copies the
//! topic's entry meanwhile, and a broker on a third acts on what it reads. What was said or removed
//! on disks is on the strength of an entry that the next leader has too.

use std::cell::Cell;
use std::rc::Rc;

use landfall_layout::TopicId;
use landfall_layout::limits::LINE_BYTES;
use landfall_layout::topic::{TopicEntry, TopicState};
use landfall_model::explore::{Explorer, Failure, Limits};
use landfall_model::mutate::{Redundant, Subject};
use landfall_model::{Image, Plan, Process, Scenario};
use landfall_pool::{Memory as _, Pool};

use super::takeover::{FENCED, leader_line, led, pool};
use super::{A, B, C, Family};

const TOPIC: TopicId = TopicId(7);
/// When the topic was deleted: on the entry's last line, its state is on the first.
const DELETED_NS: u64 = 9;

/// The family.
pub fn family() -> Family {
    Family {
        name: "deletion and takeover",
        scenarios: vec![
            Scenario {
                name: "old leader says it in directories",
                image: &alive,
                plan: &|plan| drop(takeover(plan, delete, Copying::Whole)),
            },
            Scenario {
                name: "broker removes files",
                image: &alive,
                plan: &|plan| {
                    let known = takeover(plan, |memory, _| mark(&pool(*memory)), Copying::Whole);
                    plan.process(C, move |memory| serve(memory, Looking::ForClaims, &known));
                },
            },
        ],
        subject: Subject {
            modules: &["leader::Pool::leads", "leader::terms"],
            redundant: &[Redundant { site: "leader::Pool::leads.1 full fence", why: FENCED }],
        },
    }
}

/// What goes wrong when a broker looks for no claim after it has read an entry.
pub fn believing() -> Option<Failure> {
    explore(&|plan| {
        let known = takeover(plan, |memory, _| mark(&pool(*memory)), Copying::Whole);
        plan.process(C, move |memory| serve(memory, Looking::AtEntries, &known));
    })
}

/// What goes wrong when the next leader copies an entry once, whatever happens to it meanwhile.
pub fn copied_once() -> Option<Failure> {
    explore(&|plan| drop(takeover(plan, delete, Copying::Once)))
}

fn explore(plan: &dyn Fn(&mut Plan)) -> Option<Failure> {
    let scenario = Scenario { name: "with a fault", image: &alive, plan };
    Explorer::new(scenario).exhaust(Limits::preemptions(2)).failure
}

/// How the next leader copies the entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copying {
    Whole,
    Once,
}

/// What a broker looks at before it removes files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looking {
    AtEntries,
    ForClaims,
}

/// What nobody reads from the pool.
#[derive(Clone, Default)]
struct Known {
    /// Disks say that the topic was deleted, or have it no more.
    is_gone: Rc<Cell<bool>>,
    /// The next leader serves.
    is_served: Rc<Cell<bool>>,
}

fn alive(image: &Image<'_>) {
    led(image);
    pool(*image).set_topic(&entry(TopicState::Live));
}

fn entry(state: TopicState) -> TopicEntry {
    let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
    (entry.id, entry.state) = (TOPIC.0, state as u8);
    entry.deleted_ns = if state == TopicState::Deleting { DELETED_NS } else { 0 };
    entry
}

/// The old leader does `old` while the next one takes over; at the end what is gone from disks is
/// alive in no table.
fn takeover(plan: &mut Plan, old: fn(&Process<'_>, &Known), copying: Copying) -> Known {
    let known = Known::default();
    let [first, next, last] = [known.clone(), known.clone(), known.clone()];
    plan.process(A, move |memory| old(memory, &first));
    plan.process(B, move |memory| take_over(memory, copying, &next));
    plan.after(C, move |memory| {
        let pool = pool(*memory);
        pool.follow();
        let read = pool.topic_in_slot(TOPIC.slot()).expect("nobody is changing it");
        let is_live = read.state() == TopicState::Live;
        assert!(is_live != (read.deleted_ns == DELETED_NS), "an entry in pieces: {read:?}");
        assert!(!(is_live && last.is_gone.get()), "a topic is alive and gone from disks");
    });
    known
}

fn mark(pool: &Pool<Process<'_>>) {
    // A leader wrote the entry itself, and its host has seen it: the image is of no host.
    pool.refresh(pool.geometry().topic(TOPIC.slot()), 8 * TopicEntry::WORDS as u64);
    pool.set_topic(&entry(TopicState::Deleting));
}

/// The old leader, as the keeper does it: the entry first, then a look, then the directories.
fn delete(memory: &Process<'_>, known: &Known) {
    let pool = pool(*memory);
    mark(&pool);
    if pool.leads(1) {
        known.is_gone.set(true);
    }
}

fn take_over(memory: &Process<'_>, copying: Copying, known: &Known) {
    let pool = pool(*memory);
    let (from, before) = pool.serving().expect("a leader serves");
    assert!(pool.claim(1, &leader_line(before + 1)), "nobody else stands");
    match copying {
        Copying::Whole => pool.copy_topic(from, TOPIC.slot()),
        Copying::Once => {
            let of = |slot| pool.geometry_of(slot).topic(TOPIC.slot());
            pool.copy_words(Some(of(from)), of(1), 8 * TopicEntry::WORDS as u64);
        }
    }
    // What its leader was just changing is a topic that it was deleting.
    if pool.topic_in_slot(TOPIC.slot()).is_none() {
        mark(&pool);
    }
    assert!(pool.serve(before + 1), "nobody else stands");
    known.is_served.set(true);
}

/// A broker that looks at the table until it finds the topic deleted, or another leader serves.
fn serve(memory: &Process<'_>, looking: Looking, known: &Known) {
    let pool = pool(*memory);
    memory.wait_for(|| {
        let (_, epoch) = pool.serving()?;
        pool.follow();
        let read = pool.topic_in_slot(TOPIC.slot());
        let is_deleted = read.is_some_and(|entry| entry.state() == TopicState::Deleting);
        if is_deleted && (looking == Looking::AtEntries || pool.leads(epoch)) {
            known.is_gone.set(true);
        }
        (known.is_gone.get() || known.is_served.get()).then_some(())
    });
}

const _: () =
    assert!(8 * TopicEntry::WORDS as u64 > LINE_BYTES, "an entry may be copied in pieces");
