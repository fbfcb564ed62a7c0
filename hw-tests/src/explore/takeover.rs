//! A leader is deposed while it orders: the old one on one host, the next on another, a reader on
//! a third. What was ever shown stays, and what was acked is inside the seal.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use landfall_layout::geometry::Geometry;
use landfall_layout::limits::{LINE_BYTES, SEGMENT_BYTES_MIN, SEQUENCED_LOG};
use landfall_layout::order::{ChainLine, FrontierLine, OrderEntry};
use landfall_layout::pool::{Coherence, LeaderLine, MAGIC, PoolHeader, Term, VERSION};
use landfall_layout::segment::{OWNER_CONTROL, SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::{SegmentId, TopicId};
use landfall_model::mutate::{Redundant, Subject};
use landfall_model::{Crash, Image, Plan, Process, Scenario};
use landfall_pool::log::{Found, LogReader, LogSegment};
use landfall_pool::{Memory, Pool};

use super::{A, B, C, Family};

const TOPIC: TopicId = TopicId(7);
/// Segments that the leaders take, one each.
const SEGMENTS: u32 = 3;

/// The family.
pub fn family() -> Family {
    Family {
        name: "takeover by seal",
        scenarios: vec![
            Scenario {
                name: "old leader orders on",
                image: &led,
                plan: &|plan| {
                    let known = start(plan, 2);
                    finish(plan, &known);
                },
            },
            Scenario {
                name: "reader follows",
                image: &led,
                plan: &|plan| {
                    let known = start(plan, 1);
                    follow(plan, &known);
                },
            },
            Scenario {
                name: "old leader's host lost",
                image: &led,
                plan: &|plan| {
                    let known = start(plan, 1);
                    known.is_lost.set(true);
                    plan.crash(Crash::PowerLoss(A));
                    finish(plan, &known);
                },
            },
            Scenario {
                name: "next leader's host lost",
                image: &led,
                plan: &|plan| {
                    let known = start(plan, 1);
                    let theirs = known.clone();
                    plan.crash_then(Crash::PowerLoss(B), C, move |memory| {
                        take_over(memory, 2, 3, &theirs);
                    });
                    finish(plan, &known);
                },
            },
            Scenario { name: "a slot that was used before", image: &nothing, plan: &used_slot },
        ],
        subject: Subject {
            modules: &["leader::"],
            redundant: &[
                Redundant { site: "leader::Pool::leads.1 full fence", why: FENCED },
                Redundant { site: "leader::Pool::claim.1 full fence", why: FENCED },
                Redundant {
                    site: "leader::Pool::copy_words.1 invalidate fence",
                    why: "the fence behind the second invalidation waits for the first too",
                },
                Redundant {
                    site: "leader::Pool::copy_words.3 write-back fence",
                    why: "nobody reads the tables before `serve`, which waits for them",
                },
                Redundant {
                    site: "leader::Pool::serve.1 write-back fence",
                    why: "whatever writes to the tables waits for its own lines",
                },
                Redundant {
                    site: "leader::Pool::serve.2 write-back fence",
                    why: "the fence behind the invalidation in `terms` waits for it too",
                },
            ],
        },
    }
}

/// Why a fence between a store and a load is not missed here.
pub(super) const FENCED: &str = "a write-back fence is before it and an invalidation's fence \
    behind it; only where hosts are coherent, and there is neither, this one orders the store and \
    the load";

fn nothing(_: &Image<'_>) {}

/// A line of a table in the slot 1, and what a leader of that slot left in it.
const LEFT: u64 = 5;

/// A leader has left something in a slot that the next leader in it empties. That one's host may
/// have looked at the slot before and seen it empty.
fn used_slot(plan: &mut Plan) {
    let table = geometry().of_leader(1).frontier(TOPIC.slot(), SEQUENCED_LOG);
    let [used, emptied] = [LINE_BYTES, 2 * LINE_BYTES];
    let sees = |memory: &Process<'_>, at: u64| {
        memory.wait_for(|| {
            memory.refresh(at, 8);
            (memory.load(at) == 1).then_some(())
        });
    };
    let says = |memory: &Process<'_>, at: u64| {
        memory.store_release(at, 1);
        memory.publish(at, 8);
    };
    plan.process(A, move |memory| {
        memory.store(table, LEFT);
        memory.publish(table, 8);
        says(memory, used);
    });
    plan.process(B, move |memory| {
        let pool = pool(*memory);
        sees(memory, used);
        pool.copy_words(None, table, LINE_BYTES);
        // As `serve` does.
        pool.after_write_back();
        says(memory, emptied);
    });
    plan.process(C, move |memory| {
        sees(memory, emptied);
        memory.refresh(table, 8);
        assert_eq!(memory.load(table), 0, "a word of a leader before, in a table that was emptied");
    });
}

/// What the leaders promised and what readers saw.
#[derive(Clone, Default)]
struct Known {
    /// The old leader runs.
    is_led: Rc<Cell<bool>>,
    /// Its host may be gone before it does.
    is_lost: Rc<Cell<bool>>,
    /// Entries whose receipts went out.
    acked: Rc<Cell<u64>>,
    /// Clients of the entries that a reader saw, by index.
    shown: Rc<RefCell<Vec<u64>>>,
    /// Entries below which the log is as its last leader left it.
    ended: Rc<Cell<Option<u64>>>,
}

fn start(plan: &mut Plan, bursts: u64) -> Known {
    let known = Known::default();
    let [old, new] = [known.clone(), known.clone()];
    plan.process(A, move |memory| lead(memory, bursts, &old));
    plan.process(B, move |memory| {
        take_over(memory, 1, 2, &new);
    });
    known
}

/// Reads everything when all is over.
fn finish(plan: &mut Plan, known: &Known) {
    let known = known.clone();
    plan.after(C, move |memory| {
        let pool = pool(*memory);
        let mut reader = LogReader::new(TOPIC, SEQUENCED_LOG);
        let seen = read(&pool, &mut reader, 0, &known);
        let acked = known.acked.get();
        assert!(seen >= acked, "{acked} entries were acked and {seen} are there");
        if let Some(ended) = known.ended.get() {
            assert!(seen >= ended, "a leader went to {ended} and {seen} are there");
        }
    });
}

/// Reads as it comes, on a host of its own, until the next leader's entry.
fn follow(plan: &mut Plan, known: &Known) {
    let known = known.clone();
    plan.process(C, move |memory| {
        let pool = pool(*memory);
        let mut reader = LogReader::new(TOPIC, SEQUENCED_LOG);
        let mut seen = 0;
        memory.wait_for(|| {
            seen = read(&pool, &mut reader, seen, &known);
            let acked = known.acked.get();
            let last = known.shown.borrow().last() == Some(&client(2));
            assert!(!last || seen > acked, "{acked} entries were acked and {seen} are there");
            last.then_some(())
        });
    });
}

/// Reads what is new below the frontier, and says how far that is.
fn read(pool: &Pool<Process<'_>>, reader: &mut LogReader, seen: u64, known: &Known) -> u64 {
    let frontier = pool.frontier(TOPIC, SEQUENCED_LOG).entries;
    assert!(frontier >= seen, "a frontier that went back from {seen} to {frontier}");
    for index in seen..frontier {
        let entry = match reader.entry(pool, index) {
            Found::Entry(entry) => entry,
            found => panic!("entry {index} below the frontier {frontier} is {found:?}"),
        };
        assert_eq!(entry.first_position, index, "the position of entry {index}");
        let mut shown = known.shown.borrow_mut();
        match shown.get(index as usize) {
            Some(before) => assert_eq!(entry.client, *before, "entry {index} has changed"),
            None => shown.push(entry.client),
        }
        if index < known.acked.get() {
            assert_eq!(entry.client, client(1), "entry {index} was acked");
        }
    }
    frontier
}

fn client(epoch: u64) -> u64 {
    10 * epoch
}

fn geometry() -> Geometry {
    Geometry::new(32 * SEGMENT_BYTES_MIN, SEGMENT_BYTES_MIN, 1).expect("sizes of a small pool")
}

pub(super) fn pool<M: Memory>(memory: M) -> Pool<M> {
    let geometry = geometry();
    let header = PoolHeader {
        magic: MAGIC,
        version: VERSION,
        coherence: Coherence::Flush.raw(),
        uuid: [0; 16],
        pool_bytes: geometry.pool_bytes(),
        segment_bytes: geometry.segment_bytes(),
        sessions: 1,
        segments: geometry.segments(),
        created_ns: 0,
    };
    Pool::on(memory, geometry, header)
}

/// A pool that has a leader, in slot 0, and a topic with an empty log.
pub(super) fn led(image: &Image<'_>) {
    let pool = pool(*image);
    assert!(pool.claim(0, &leader_line(1)));
    pool.start_frontier(TOPIC, SEQUENCED_LOG);
    give(&pool, SegmentId(0), 0, SegmentId::NONE, 1);
    pool.set_chain(TOPIC, SEQUENCED_LOG, &chain(0, 0));
    assert!(pool.serve(1));
}

pub(super) fn leader_line(epoch: u64) -> LeaderLine {
    LeaderLine { term: Term { epoch, serves: false }.pack(), ..LeaderLine::default() }
}

fn chain(head: u32, tail: u32) -> ChainLine {
    ChainLine { head, tail, topic: TOPIC.0.into(), ..ChainLine::default() }
}

fn give(pool: &Pool<impl Memory>, segment: SegmentId, base: u64, previous: SegmentId, epoch: u64) {
    let what = What {
        kind: SegmentKind::OrderLog,
        state: SegmentState::Open,
        owner: OWNER_CONTROL,
        log: SEQUENCED_LOG as u8,
        topic: TOPIC,
    };
    let header = SegmentHeader {
        what: what.pack(),
        generation: epoch,
        epoch,
        previous: previous.0,
        next: SegmentId::NONE.0,
        base_index: base,
        granted_ns: 0,
        sealed_ns: 0,
        lost_ns: 0,
    };
    pool.give_segment(segment, &header);
}

fn log(pool: &Pool<impl Memory>, segment: SegmentId, base: u64) -> LogSegment {
    let at = pool.geometry().segment(segment).expect("one of the pool's segments");
    LogSegment { segment, at, base, capacity: 4 }
}

/// The old leader: entries in bursts of one, each shown only if nobody has claimed a higher epoch.
fn lead(memory: &Process<'_>, bursts: u64, known: &Known) {
    let pool = pool(*memory);
    known.is_led.set(true);
    let log = log(&pool, SegmentId(0), 0);
    for index in 0..bursts {
        if !order(&pool, log, index, 1) {
            return;
        }
        known.acked.set(index + 1);
    }
}

/// One burst, as the sequencer does it. False: another leads, and nothing was shown.
fn order(pool: &Pool<Process<'_>>, log: LogSegment, index: u64, epoch: u64) -> bool {
    let entry = OrderEntry {
        first_position: index,
        client: client(epoch),
        count: 1,
        bytes: 64,
        ..OrderEntry::default()
    };
    log.write(pool, index, &entry);
    let bytes = 64 * (index + 1);
    pool.say_written(TOPIC, index + 1, bytes);
    if !pool.leads(epoch) {
        return false;
    }
    let line =
        FrontierLine { entries: index + 1, position: index + 1, bytes, ..FrontierLine::default() };
    pool.advance_frontier(TOPIC, SEQUENCED_LOG, &line);
    true
}

/// The next leader: claims, copies what matters here of the tables, seals, begins a segment of its
/// own, serves, and orders one entry.
fn take_over(memory: &Process<'_>, slot: usize, epoch: u64, known: &Known) {
    // Who never led is no old leader.
    let is_gone = || known.is_lost.get() && memory.has_crashed();
    memory.wait_for(|| (known.is_led.get() || is_gone()).then_some(()));
    let pool = pool(*memory);
    let (from, before) = pool.serving().expect("a leader serves");
    // Another that had claimed is gone, or this one would not have been elected.
    assert!(before < epoch && pool.claim(slot, &leader_line(epoch)), "nobody else stands");
    let tables = |slot: usize| {
        let of = pool.geometry_of(slot);
        let headers = of.segment_header(SegmentId(0)).expect("the first segment");
        [
            (of.frontier(TOPIC.slot(), SEQUENCED_LOG), 2 * LINE_BYTES),
            (headers, u64::from(SEGMENTS) * LINE_BYTES),
        ]
    };
    for ((source, bytes), (target, _)) in tables(from).into_iter().zip(tables(slot)) {
        pool.copy_words(Some(source), target, bytes);
    }
    pool.copy_frontier(from, TOPIC.slot());
    let sealed = pool.seal_log(TOPIC).expect("what was written is there");
    assert!(sealed.entries >= known.acked.get(), "the seal is below what was acked");
    let expected = 64 * sealed.entries;
    assert_eq!(sealed.bytes, expected, "bytes of {} sealed entries", sealed.entries);
    let fresh = begin_epoch(&pool, epoch, sealed.entries);
    if pool.serve(epoch) && order(&pool, fresh, sealed.entries, epoch) {
        known.ended.set(Some(sealed.entries + 1));
    }
}

/// Cuts the chain where the log was sealed, and goes on in a segment of this epoch's own.
fn begin_epoch(pool: &Pool<Process<'_>>, epoch: u64, reached: u64) -> LogSegment {
    let fresh = SegmentId(epoch as u32 - 1);
    let line = pool.chain(TOPIC, SEQUENCED_LOG).expect("the topic's chain");
    let mut last = SegmentId(line.tail).some();
    while let Some(tail) = last
        && pool.segment_base(tail).is_some_and(|base| base >= reached)
    {
        let header = pool.segment_header(tail).expect("one of the pool's segments");
        last = SegmentId(header.previous).some();
    }
    give(pool, fresh, reached, last.unwrap_or(SegmentId::NONE), epoch);
    if let Some(last) = last {
        pool.link_segment(last, fresh);
    }
    let head = if last.is_some() { line.head } else { fresh.0 };
    pool.set_chain(TOPIC, SEQUENCED_LOG, &chain(head, fresh.0));
    log(pool, fresh, reached)
}
