//! The sweep's own machinery: its scenarios hold when nobody is killed and when somebody is killed
//! at some time, and it notices programs that could not be killed at a store. The sweep itself is
//! `scripts/torture sweep`, which builds programs with the kill switch.

use std::path::{Path, PathBuf};
use std::time::Duration;

use landfall_hw_tests::sweep::campaign::{Means, count, draw, points};
use landfall_hw_tests::sweep::plan::{Part, Plan};
use landfall_hw_tests::sweep::scenario::{SCENARIOS, find, run};

/// The folder of the usual programs.
fn programs() -> PathBuf {
    let client = Path::new(env!("CARGO_BIN_EXE_landfall-sweep-client"));
    client.parent().expect("a program is in a folder").to_owned()
}

#[test]
fn every_scenario_holds_when_nobody_is_killed() {
    for scenario in &SCENARIOS {
        let outcome = run(scenario, Plan::quiet(), &programs())
            .unwrap_or_else(|failure| panic!("{}: {failure}", scenario.name));
        assert_eq!(outcome.kills, 0);
        assert_eq!(outcome.reports.len(), scenario.topics as usize);
        // A reader may be overtaken where next to nothing is kept, by all of one broker's batches.
        let brokers = &outcome.reports[0].brokers;
        let is_kept = scenario.retention_bytes.is_none();
        assert!(brokers.len() == 2 || !is_kept, "{}: landed by {brokers:?}", scenario.name);
    }
}

#[test]
fn processes_killed_at_some_time_come_back() {
    for (at, scenario) in [30, 60, 90].into_iter().zip(["strong", "none", "topics"]) {
        let plan = Plan {
            timed: vec![
                (Part::Broker(0), Duration::from_millis(at)),
                (Part::Control, Duration::from_millis(at + 40)),
            ],
            all_at: Some(Duration::from_millis(at + 80)),
            ..Plan::default()
        };
        let scenario = find(scenario).expect("it is in the table");
        let outcome = run(scenario, plan, &programs())
            .unwrap_or_else(|failure| panic!("{} at {at}: {failure}", scenario.name));
        assert!(outcome.kills >= 3, "{} killed", outcome.kills);
    }
}

#[test]
fn programs_without_the_switch_are_noticed() {
    let means = Means { programs: programs(), jobs: 1, verbose: false };
    let failure = count(&SCENARIOS[0], &means).expect_err("they count nothing").to_string();
    assert!(failure.contains("without the kill switch"), "{failure}");
}

#[test]
fn a_plan_is_repeated_by_the_command_that_it_names() {
    let counted = [(&SCENARIOS[0], [(Part::Control, 1000), (Part::Broker(0), 50)].into())];
    let all = points(&counted, 0, 1);
    assert_eq!(all.len(), 1050, "without a bound every store is a point");
    let few = points(&counted, 20, 1);
    assert!((20..=24).contains(&few.len()), "{} points", few.len());
    assert!(few.iter().all(|task| task.command.starts_with("scripts/torture one strong --kill ")));
    for seed in 0..100 {
        let (task, again) = (draw(&counted, seed), draw(&counted, seed));
        assert_eq!(task.command, again.command);
        assert!(task.command.contains(" --kill "), "{}", task.command);
    }
}
