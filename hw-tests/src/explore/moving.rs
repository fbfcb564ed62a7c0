//! A copy that moves from its home to another broker and back, each on a host of its own, while
//! somebody goes by it.

use std::cell::Cell;
use std::rc::Rc;

use landfall_layout::keepers::{Keepers, StandIn, stand_in_key};
use landfall_layout::replica::ReplicaLine;
use landfall_layout::{BrokerId, TopicId};
use landfall_model::mutate::Subject;
use landfall_model::{HostId, Image, Process, Scenario};
use landfall_pool::Memory;
use landfall_pool::copies::{CopyLine, Reached, move_keepers, read_copies, read_keepers};
use landfall_pool::replica::{move_replica, read_copy_line, start_replica};

use super::{A, B, C, Family};

const TOPIC: TopicId = TopicId(7);
const D: HostId = HostId(3);
const HOME_LINE: CopyLine = CopyLine { at: 0, key: TOPIC.0 as u64 };
const STAND_IN: u64 = 64;
const KEEPERS: u64 = 128;
/// Entries in the log, all of them from the beginning.
const ENTRIES: u64 = 2;

/// What is on the disks, below which index.
#[derive(Clone, Default)]
struct Disks {
    home: Rc<Cell<u64>>,
    stand_in: Rc<Cell<u64>>,
}

/// The family.
pub fn family() -> Family {
    Family {
        name: "moving copy",
        scenarios: vec![
            Scenario {
                name: "taken over",
                image: &at_home,
                plan: &|plan| {
                    let disks = Disks::default();
                    let (home, theirs, seen) =
                        (disks.home.clone(), disks.stand_in.clone(), disks.clone());
                    plan.process(A, |memory| {
                        let keepers = Keepers::default().with(0, Some(standing_in()));
                        move_keepers(memory, KEEPERS, keepers);
                    });
                    // It may be stopped, be replaced and go on.
                    plan.process(B, move |memory| go_on(memory, HOME_LINE, 1, &home));
                    plan.process(C, move |memory| {
                        memory.wait_for(|| read_keepers(memory, KEEPERS).stand_in(0));
                        let CopyLine { at, key } = HOME_LINE;
                        let base = read_copy_line(memory, at, key).durable;
                        theirs.set(base);
                        start_replica(memory, STAND_IN, &line(stand_in_line().key, base));
                        go_on(memory, stand_in_line(), ENTRIES, &theirs);
                    });
                    plan.process(D, move |memory| await_durable(memory, &seen));
                },
            },
            Scenario {
                name: "given back",
                image: &taken_over,
                plan: &|plan| {
                    let disks = Disks { home: Rc::new(Cell::new(1)), ..Disks::default() };
                    let home = disks.home.clone();
                    plan.process(B, move |memory| go_on(memory, HOME_LINE, ENTRIES, &home));
                    plan.process(A, |memory| {
                        let caught_up = || {
                            let CopyLine { at, key } = HOME_LINE;
                            (read_copy_line(memory, at, key).durable == ENTRIES).then_some(())
                        };
                        memory.wait_for(caught_up);
                        move_keepers(memory, KEEPERS, Keepers::default());
                    });
                    plan.process(D, move |memory| await_durable(memory, &disks));
                },
            },
        ],
        subject: Subject { modules: &["copies::"], redundant: &[] },
    }
}

fn line(key: u64, end: u64) -> ReplicaLine {
    ReplicaLine { durable: end, written: end, topic: key, ..ReplicaLine::default() }
}

fn at_home(image: &Image<'_>) {
    image.store_words(HOME_LINE.at, &line(HOME_LINE.key, 0).to_words());
}

fn taken_over(image: &Image<'_>) {
    image.store_words(HOME_LINE.at, &line(HOME_LINE.key, 1).to_words());
    image.store_words(STAND_IN, &line(stand_in_line().key, 1).to_words());
    image.store(KEEPERS, Keepers::default().with(0, Some(standing_in())).raw());
}

fn standing_in() -> StandIn {
    StandIn { broker: BrokerId::new(2).expect("below the bound"), line: 0 }
}

fn stand_in_line() -> CopyLine {
    let source = BrokerId::new(0).expect("below the bound");
    CopyLine { at: STAND_IN, key: stand_in_key(TOPIC, source, 0) }
}

/// Writes and syncs what is missing to `end`, and moves the line.
fn go_on(memory: &Process<'_>, CopyLine { at, key }: CopyLine, end: u64, disk: &Cell<u64>) {
    disk.set(end);
    move_replica(memory, at, &line(key, end));
}

/// Waits for the durable receipts of all entries. What the keepers have together is what the one
/// of them has that is furthest: the stand-in begins where the home says that it was.
fn await_durable(memory: &Process<'_>, disks: &Disks) {
    memory.wait_for(|| {
        let reached: Reached = read_copies(memory, KEEPERS, 1, |_, stand_in| match stand_in {
            None => HOME_LINE,
            Some(_) => stand_in_line(),
        });
        let there = disks.home.get().max(disks.stand_in.get());
        assert!(reached.durable <= there, "{} durable of {there}", reached.durable);
        (reached.durable == ENTRIES).then_some(())
    });
}
