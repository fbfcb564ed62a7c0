//! The model on toy protocols, right ones and broken ones.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use landfall_model::mutate::{self, Bounds, Redundant, Subject};
use landfall_model::{Crash, Dma, Explorer, HostId, Image, Limits, Plan, Scenario};
use landfall_pool::Memory;

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const DATA: u64 = 0;
const FLAG: u64 = 64;
const ACK: u64 = 128;

fn nothing(_: &Image<'_>) {}

fn explore(plan: &dyn Fn(&mut Plan)) -> landfall_model::Outcome {
    let scenario = Scenario { name: "toy", image: &nothing, plan };
    Explorer::new(scenario).exhaust(Limits::preemptions(2))
}

#[track_caller]
fn fails(plan: &dyn Fn(&mut Plan), with: &str) {
    let outcome = explore(plan);
    let failure = outcome.failure.expect("the explorer finds it");
    assert!(failure.what.contains(with), "{failure}");
    // Its choices alone make it again.
    let scenario = Scenario { name: "toy", image: &nothing, plan };
    let choices = failure.choices.to_string().parse().unwrap();
    let again = Explorer::new(scenario).replay(&choices, 2).expect("it fails again");
    assert_eq!(again.what, failure.what);
}

#[track_caller]
fn holds(plan: &dyn Fn(&mut Plan)) -> landfall_model::Outcome {
    let outcome = explore(plan);
    if let Some(failure) = outcome.failure {
        panic!("{failure}");
    }
    assert!(outcome.complete);
    outcome
}

/// A writer that publishes a line and then a flag; a reader that waits for the flag.
fn message(data: bool, flag: bool, look: bool) -> impl Fn(&mut Plan) {
    move |plan| {
        plan.process(A, move |memory| {
            memory.store(DATA, 7);
            if data {
                memory.publish(DATA, 8);
            }
            memory.store_release(FLAG, 1);
            if flag {
                memory.publish(FLAG, 8);
            }
        });
        plan.process(B, move |memory| {
            assert!([0, 7].contains(&memory.load(DATA)));
            memory.wait_for(|| {
                memory.refresh(FLAG, 8);
                (memory.load(FLAG) == 1).then_some(())
            });
            if look {
                memory.refresh(DATA, 8);
            }
            assert_eq!(memory.load(DATA), 7, "the data behind the flag");
        });
    }
}

#[test]
fn a_message_arrives() {
    holds(&message(true, true, true));
}

#[test]
fn a_message_needs_its_write_back() {
    fails(&message(false, true, true), "the data behind the flag");
}

#[test]
fn a_message_needs_its_invalidation() {
    fails(&message(true, true, false), "the data behind the flag");
}

#[test]
fn a_flag_that_is_not_written_back_is_seen_by_luck_only() {
    fails(&message(true, false, true), "never made visible");
}

#[test]
fn a_line_may_be_seen_before_it_is_written_back() {
    let seen = Rc::new(Cell::new(false));
    let sees = seen.clone();
    holds(&move |plan: &mut Plan| {
        plan.process(A, |memory| memory.store(DATA, 1));
        let sees = sees.clone();
        plan.process(B, move |memory| {
            if memory.load(DATA) == 1 {
                sees.set(true);
            }
        });
    });
    assert!(seen.get());
}

#[test]
fn two_hosts_may_not_write_one_line() {
    let both = |plan: &mut Plan| {
        plan.process(A, |memory| memory.store(DATA, 1));
        plan.process(B, |memory| memory.store(DATA + 8, 1));
    };
    fails(&both, "two writers of line 0x0");
}

/// A line is handed from one host to another, which reads it anew before it writes, or does not.
fn handed_over(anew: bool) -> impl Fn(&mut Plan) {
    move |plan| {
        plan.process(A, |memory| {
            memory.store(DATA, 1);
            memory.publish(DATA, 8);
            memory.store(FLAG, 1);
            memory.publish(FLAG, 8);
        });
        plan.process(B, move |memory| {
            memory.wait_for(|| {
                memory.refresh(FLAG, 8);
                (memory.load(FLAG) == 1).then_some(())
            });
            if anew {
                memory.refresh(DATA, 8);
            }
            memory.store(DATA + 8, 2);
            memory.publish(DATA, 16);
            assert_eq!(memory.load(DATA), 1);
        });
    }
}

#[test]
fn a_line_may_be_handed_over() {
    holds(&handed_over(true));
}

#[test]
fn an_old_copy_may_not_be_written_back() {
    fails(&handed_over(false), "lost update on line 0x0");
}

#[test]
fn a_killed_process_loses_nothing_it_stored() {
    let plan = |plan: &mut Plan| {
        let stored = Rc::new(Cell::new(0));
        let stores = stored.clone();
        let writer = plan.process(A, move |memory| {
            for n in 1..=3 {
                memory.store(DATA, n);
                stores.set(n);
            }
        });
        plan.crash_then(Crash::Kill(writer), A, move |memory| {
            assert_eq!(memory.load(DATA), stored.get());
        });
    };
    let outcome = holds(&plan);
    assert!(outcome.runs >= 4, "a kill before each store and after the last: {}", outcome.runs);
}

/// What a host that loses its power leaves of two stores to one line and one to another.
fn left_by(publish: bool) -> BTreeSet<(u64, u64)> {
    let left = Rc::new(std::cell::RefCell::new(BTreeSet::new()));
    let seen = left.clone();
    holds(&move |plan: &mut Plan| {
        plan.process(A, move |memory| {
            memory.store(DATA, 1);
            memory.store(DATA, 2);
            if publish {
                memory.publish(DATA, 8);
            }
            memory.store(FLAG, 1);
        });
        plan.crash(Crash::PowerLoss(A));
        let seen = seen.clone();
        plan.after(B, move |memory| {
            memory.refresh(DATA, 128);
            if memory.has_crashed() {
                seen.borrow_mut().insert((memory.load(DATA), memory.load(FLAG)));
            }
        });
    });
    left.take()
}

#[test]
fn a_host_that_loses_power_may_lose_what_was_not_written_back() {
    let any: BTreeSet<_> = (0..3).flat_map(|data| [(data, 0), (data, 1)]).collect();
    assert_eq!(left_by(false), any);
    let ordered = BTreeSet::from([(0, 0), (1, 0), (2, 0), (2, 1)]);
    assert_eq!(left_by(true), ordered);
}

/// What a NIC wrote is seen by another host after its own host wrote it back, or without that.
fn from_nic(how: Dma, write_back: bool) -> impl Fn(&mut Plan) {
    move |plan| {
        plan.process(A, move |memory| {
            memory.dma(how, DATA, &[1, 2]);
            if write_back {
                memory.publish(DATA, 16);
            }
            memory.store(FLAG, 1);
            memory.publish(FLAG, 8);
        });
        plan.process(B, |memory| {
            assert!(memory.load(DATA) <= 1);
            memory.wait_for(|| {
                memory.refresh(FLAG, 8);
                (memory.load(FLAG) == 1).then_some(())
            });
            memory.refresh(DATA, 16);
            assert_eq!(memory.load_words::<2>(DATA), [1, 2], "the NIC's words");
        });
    }
}

#[test]
fn what_a_nic_put_into_a_cache_has_to_be_written_back() {
    holds(&from_nic(Dma::IntoMemory, true));
    holds(&from_nic(Dma::IntoMemory, false));
    holds(&from_nic(Dma::IntoCache, true));
    fails(&from_nic(Dma::IntoCache, false), "the NIC's words");
}

#[test]
fn coherent_lines_need_no_flush() {
    holds(&|plan: &mut Plan| {
        plan.keep_coherent(0, 128);
        message(false, false, false)(plan);
    });
}

#[test]
fn a_fence_is_too_late_for_what_was_invalidated_before_the_store() {
    // Until the fence a dropped line may be fetched again, as old as the memory had it then.
    let seen = Rc::new(Cell::new(false));
    let sees = seen.clone();
    holds(&move |plan: &mut Plan| {
        plan.process(A, |memory| {
            memory.store(DATA, 1);
            memory.publish(DATA, 8);
            memory.store(FLAG, 1);
            memory.publish(FLAG, 8);
        });
        let sees = sees.clone();
        plan.process(B, move |memory| {
            memory.invalidate(DATA, 8);
            let flag = memory.load(FLAG);
            memory.after_invalidate();
            if flag == 1 && memory.load(DATA) == 0 {
                sees.set(true);
            }
        });
    });
    assert!(seen.get());
}

#[test]
fn a_loop_that_never_waits_is_found() {
    let plan = |plan: &mut Plan| {
        plan.process(A, |memory| {
            loop {
                memory.store(DATA, 1);
                if memory.load(DATA) == 2 {
                    break;
                }
            }
        });
        plan.process(B, |_| {});
    };
    fails(&plan, "never waits");
}

fn ping(memory: &landfall_model::Process<'_>, from: u64, to: u64, rounds: u64, first: bool) {
    for round in 1..=rounds {
        let send = || {
            memory.store(to, round);
            memory.publish(to, 8);
        };
        if first {
            send();
        }
        memory.wait_for(|| {
            memory.refresh(from, 8);
            (memory.load(from) == round).then_some(())
        });
        if !first {
            send();
        }
    }
}

#[test]
fn a_fault_is_drawn_and_its_seed_makes_it_again() {
    let plan = message(false, true, true);
    let scenario = Scenario { name: "toy", image: &nothing, plan: &plan };
    let limits = Limits { preemptions: 0, runs: 10_000, time: Duration::MAX };
    let failure = Explorer::new(scenario).draw(1, limits).failure.expect("a seed finds it");
    let seed = failure.seed.expect("it was drawn");
    let again = Explorer::new(scenario).replay_seed(seed).expect("it fails again");
    assert_eq!(again.choices, failure.choices);
    let again = Explorer::new(scenario).replay(&failure.choices, u32::MAX);
    assert_eq!(again.expect("it fails again").what, failure.what);
}

fn ping_of(redundant: &[Redundant<'_>]) -> Result<mutate::Table, String> {
    let plan = |plan: &mut Plan| {
        plan.process(A, |memory| ping(memory, ACK, FLAG, 2, true));
        plan.process(B, |memory| ping(memory, FLAG, ACK, 2, false));
    };
    let scenario = Scenario { name: "ping", image: &nothing, plan: &plan };
    let bounds = Bounds { preemptions: 2, seeds: 100, time: Duration::MAX, draw: Duration::MAX };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    mutate::mutate("ping", &[scenario], &root, Subject { modules: &["toy::"], redundant }, bounds)
}

#[test]
fn each_deleted_flush_is_missed() {
    let table = ping_of(&[]).unwrap();
    let names: Vec<_> = table.mutants.iter().map(|mutant| mutant.name.as_str()).collect();
    let kinds = ["1 write-back", "1 write-back fence", "2 invalidate", "2 invalidate fence"];
    assert_eq!(names, kinds.map(|kind| format!("toy::ping.{kind}")));
    assert_eq!(table.caught(), 4);
}

#[test]
fn what_is_listed_as_redundant_has_to_be() {
    for site in ["toy::ping.2 invalidate", "toy::ping.9 invalidate"] {
        let wrong = ping_of(&[Redundant { site, why: "a wrong proof" }]).unwrap_err();
        assert!(wrong.contains(site), "{wrong}");
    }
}

#[test]
fn a_site_that_nobody_misses_is_told() {
    let plan = |plan: &mut Plan| {
        plan.process(A, |memory| memory.publish(DATA, 8));
    };
    let scenario = Scenario { name: "toy", image: &nothing, plan: &plan };
    let bounds = Bounds { preemptions: 1, seeds: 0, time: Duration::MAX, draw: Duration::MAX };
    let root = std::path::Path::new("/nowhere");
    let subject = Subject { modules: &[""], redundant: &[] };
    let wrong = mutate::mutate("toy", &[scenario], root, subject, bounds).unwrap_err();
    assert!(wrong.contains("nothing goes wrong"), "{wrong}");
}

/// Every outcome that two small programs can have is found with switches where they can matter
/// just as with switches everywhere.
#[test]
fn switches_left_out_make_no_difference() {
    // Each kind of place is needed by one of these: longer programs for the rarer ones.
    for (seed, steps) in (0..80).map(|seed| (seed, 7)).chain([(5, 10), (23, 10)]) {
        let outcomes = |everywhere: bool| {
            let seen = Rc::new(std::cell::RefCell::new(BTreeSet::new()));
            let sees = seen.clone();
            let plan = move |plan: &mut Plan| {
                if everywhere {
                    plan.switch_everywhere();
                }
                let loaded = Rc::new(std::cell::RefCell::new([Vec::new(), Vec::new()]));
                for host in 0..2_u8 {
                    let loaded = loaded.clone();
                    plan.process(HostId(host), move |memory| {
                        program(memory, seed * 2 + u64::from(host), steps, host, &loaded);
                    });
                }
                let sees = sees.clone();
                plan.after(B, move |_| {
                    sees.borrow_mut().insert(loaded.take());
                });
            };
            let scenario = Scenario { name: "toy", image: &nothing, plan: &plan };
            let outcome = Explorer::new(scenario).exhaust(Limits::preemptions(u32::MAX));
            assert!(outcome.complete && outcome.failure.is_none(), "{:?}", outcome.failure);
            (seen.take(), outcome.runs)
        };
        let (few, runs_few) = outcomes(false);
        let (all, runs_all) = outcomes(true);
        assert_eq!(few, all, "programs of seed {seed}");
        assert!(runs_few <= runs_all, "{runs_few} runs and {runs_all}");
    }
}

type Loaded = Rc<std::cell::RefCell<[Vec<u64>; 2]>>;

/// Steps drawn from a seed, on two lines that this host writes and two that the other does.
fn program(memory: &landfall_model::Process<'_>, seed: u64, steps: u64, host: u8, loaded: &Loaded) {
    let mut draw = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    let own = u64::from(host) * 128;
    let other = 128 - own;
    for step in 1..=steps {
        draw = draw.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        let line = draw >> 40 & 1;
        match draw >> 50 & 7 {
            0 | 1 => memory.store(own + 64 * line, step),
            2 => memory.publish(own + 64 * line, 8),
            3 => memory.write_back(own + 64 * line, 8),
            4 => memory.after_write_back(),
            5 => memory.refresh(other + 64 * line, 8),
            _ => {
                let value = memory.load(other + 64 * line);
                loaded.borrow_mut()[usize::from(host)].push(value);
            }
        }
    }
}
