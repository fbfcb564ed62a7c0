//! The torture's own machinery: what is drawn follows from the seed and can be said on a command
//! line, scenes hold when nothing goes wrong, and so they do with some faults. These are the usual
//! programs, whose clocks and disks nobody sets: `scripts/torture` builds others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landfall_hw_tests::faults::draw::{Choice, draw};
use landfall_hw_tests::faults::fault::{Fault, Kind, Timed, Who};
use landfall_hw_tests::faults::scene::{SCENES, find};
use landfall_hw_tests::faults::story::{check, run};

/// The folder of the usual programs.
fn programs() -> PathBuf {
    let client = Path::new(env!("CARGO_BIN_EXE_landfall-sweep-client"));
    client.parent().expect("a program is in a folder").to_owned()
}

fn choice() -> Choice {
    Choice { kinds: Kind::ALL.to_vec(), pause_max: 12_000, most: 4 }
}

#[test]
fn a_seed_gives_the_same_faults_and_each_is_said_and_read_back() {
    let mut kinds = BTreeSet::new();
    for seed in 0..2000 {
        let (scene, faults) = draw(&choice(), seed, None, None);
        let (again, same) = draw(&choice(), seed, None, None);
        assert_eq!((scene.name, &faults), (again.name, &same), "seed {seed}");
        check(scene, &faults).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        for timed in faults {
            let text = timed.to_string();
            assert_eq!(text.parse::<Timed>().as_ref(), Ok(&timed), "{text}");
            kinds.insert(timed.fault.kind());
        }
    }
    assert_eq!(kinds.len(), Kind::ALL.len(), "only {kinds:?}");
}

#[test]
fn a_run_that_is_to_have_a_kind_has_it() {
    for (seed, kind) in (0..200).zip(Kind::ALL.iter().cycle()) {
        let (_, faults) = draw(&choice(), seed, Some(*kind), None);
        let has = faults.iter().any(|timed| timed.fault.kind() == *kind);
        assert!(has, "seed {seed}: no {kind} in {faults:?}");
    }
}

#[test]
fn what_is_no_fault_is_told_with_an_example() {
    for wrong in ["", "pause", "pause:broker-9:1", "clock:control:soon", "disk:0:rust=1:5", "x:y"] {
        let said = wrong.parse::<Timed>().expect_err(wrong);
        assert!(!said.is_empty(), "{wrong}");
    }
    let needs = [Timed { fault: "cold:kill".parse().unwrap(), at: 0 }];
    let said = check(find("strong").unwrap(), &needs).expect_err("no replicas").to_string();
    assert!(said.contains("needs replicas"), "{said}");
}

fn holds(scene: &str, faults: &[&str]) {
    let faults: Vec<Timed> = faults.iter().map(|text| text.parse().expect("a fault")).collect();
    let scene = find(scene).expect("it is in the table");
    let outcome = run(scene, &faults, &programs())
        .unwrap_or_else(|failure| panic!("{}: {failure}", scene.name));
    for report in &outcome.reports {
        assert!(report.acked > 30 && report.finished >= 2, "{}: {report}", scene.name);
    }
}

#[test]
fn every_scene_holds_when_nothing_goes_wrong() {
    for scene in &SCENES {
        holds(scene.name, &[]);
    }
}

#[test]
fn processes_that_stand_still_go_on() {
    holds("strong", &["pause:broker-0:700@50", "pause:publisher-1:300@100", "kill:broker-1:50@90"]);
}

#[test]
fn faults_are_applied_to_the_right_process() {
    let fault = Fault::Kill { who: Who::Publisher(1), away: 0 };
    let faults = [Timed { fault, at: 100 }];
    let outcome = run(find("total").unwrap(), &faults, &programs()).expect("it holds");
    assert_eq!((outcome.ends.killed, outcome.ends.servers), (1, 0));
}
