//! `landfall-torture`: kills processes after given stores to shared memory, makes everything else
//! go wrong that can, and judges what is left. `scripts/torture` builds and starts it.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use landfall_hw_tests::Failure;
use landfall_hw_tests::disks::campaign as disks;
use landfall_hw_tests::faults::campaign as torture;
use landfall_hw_tests::faults::draw::{self, Choice};
use landfall_hw_tests::faults::fault::{Kind, Timed};
use landfall_hw_tests::faults::scene;
use landfall_hw_tests::sweep::campaign::{
    Means, Tally, Task, chosen, command, count, draw as campaign_draw, points, run_all,
};
use landfall_hw_tests::sweep::plan::{Part, Plan};
use landfall_hw_tests::sweep::scenario::{Scenario, find};

/// Kills processes after given stores to shared memory, makes everything else go wrong that can,
/// and judges what is left.
#[derive(Parser)]
#[command(name = "landfall-torture", version)]
#[command(after_help = "LANDFALL_SWEEP_KEEP=1 keeps the files of runs that fail.")]
struct Flags {
    /// Folder of the programs, built with the kill switch. Default: this program's.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Runs at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Says a line for each run.
    #[arg(long)]
    verbose: bool,
    /// Runs that may be made to find a smaller set of faults that fails, for each run that fails.
    #[arg(long, default_value_t = 12)]
    shrinks: u32,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Says how many stores each process makes in each scenario.
    Count {
        /// This scenario and no other.
        #[arg(long)]
        only: Option<String>,
    },
    /// One process killed once in each run, at points spread over all its stores.
    Sweep {
        /// This scenario and no other.
        #[arg(long)]
        only: Option<String>,
        /// This process and no other.
        #[arg(long)]
        part: Option<Part>,
        /// Points in all; 0: every store.
        #[arg(long, default_value_t = 300)]
        points: u64,
        /// Which of the points there are.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Ends after so many seconds, whatever was not run by then.
        #[arg(long)]
        seconds: Option<u64>,
    },
    /// One run, with these kills in a scenario, or with these faults in a scene.
    One {
        /// The scenario, or the scene.
        scenario: String,
        /// Makes that go wrong so many milliseconds after the clients began, as in
        /// pause:broker-0:4000@120; again for more.
        #[arg(long, value_name = "FAULT@MS", conflicts_with_all = ["kill", "after", "all_ms"])]
        fault: Vec<Timed>,
        /// Kills a process after a store, as in broker-0:17; again for its next life.
        #[arg(long, value_name = "PROCESS:STORE", value_parser = point)]
        kill: Vec<(Part, u64)>,
        /// Kills a process after so many milliseconds.
        #[arg(long, value_name = "PROCESS:MS", value_parser = point)]
        after: Vec<(Part, u64)>,
        /// Kills all processes after so many milliseconds.
        #[arg(long)]
        all_ms: Option<u64>,
        /// How long a killed process stays away.
        #[arg(long, default_value_t = 0)]
        away_ms: u64,
        /// So many runs: what other processes do meanwhile is another in each.
        #[arg(long, default_value_t = 1)]
        times: u64,
    },
    /// Random runs until the time is up.
    Random {
        /// Minutes.
        #[arg(long)]
        minutes: f64,
        /// The first seed; the runs take those that follow it.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Kinds of faults, with commas between; all: every kind; kill: kills after given stores.
        #[arg(long, default_value = "all")]
        faults: String,
        /// Scene, instead of any.
        #[arg(long)]
        scene: Option<String>,
    },
    /// Disks are swapped, emptied, older, damaged or away between two lives of a system.
    Disks {
        /// Runs.
        #[arg(long, default_value_t = 10)]
        runs: u64,
        /// Ends after so many minutes, whatever was not run by then.
        #[arg(long)]
        minutes: Option<f64>,
        /// The first seed; the runs take those that follow it.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Runs with at least one fault of each kind, the same whenever the seed is.
    Faults {
        /// Runs for each kind.
        #[arg(long, default_value_t = 1)]
        rounds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Kinds of faults, with commas between.
        #[arg(long, default_value = "all")]
        faults: String,
        /// Longest pause of a process, milliseconds.
        #[arg(long, default_value_t = 4000)]
        pause_ms: u64,
    },
}

fn kinds(text: &str) -> Result<Vec<Kind>, Failure> {
    if text == "all" {
        return Ok(Kind::ALL.to_vec());
    }
    text.split(',').map(|word| word.parse().map_err(Failure::new)).collect()
}

fn point(text: &str) -> Result<(Part, u64), String> {
    let (part, number) = text.split_once(':').ok_or("say PROCESS:NUMBER")?;
    let number = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    Ok((part.parse()?, number))
}

type Counted = Vec<(&'static Scenario, BTreeMap<Part, u64>)>;

fn main() -> ExitCode {
    let flags = Flags::parse();
    match act(&flags) {
        Ok(Done::Kills(tally)) => conclude(&tally),
        Ok(Done::Faults(tally)) => {
            println!("{tally}");
            if tally.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(Done::Disks(tally)) => {
            println!("{tally}");
            if tally.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            eprintln!("landfall-torture: {failure}");
            ExitCode::from(2)
        }
    }
}

fn conclude(tally: &Tally) -> ExitCode {
    println!(
        "{} runs, {} processes killed, {} points covered, {} runs ended before their point, {} \
         failed",
        tally.runs,
        tally.kills,
        tally.points.len(),
        tally.unreached,
        tally.failures.len()
    );
    for (command, _) in &tally.failures {
        println!("failed; repeat with: {command}");
    }
    println!(
        "{} passed, {} failed",
        tally.runs - tally.failures.len() as u64,
        tally.failures.len()
    );
    if tally.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

enum Done {
    Kills(Tally),
    Faults(torture::Tally),
    Disks(disks::Tally),
}

fn act(flags: &Flags) -> Result<Done, Failure> {
    let own = std::env::current_exe()?;
    let beside = own.parent().map(PathBuf::from).unwrap_or_default();
    let means = Means {
        programs: flags.programs.clone().unwrap_or(beside),
        jobs: flags.jobs,
        verbose: flags.verbose,
    };
    let wide = torture::Means {
        programs: means.programs.clone(),
        jobs: flags.jobs,
        verbose: flags.verbose,
        shrinks: flags.shrinks,
    };
    match &flags.what {
        What::One { scenario, fault, times, .. } if !fault.is_empty() => {
            let scene = scene::find(scenario).map_err(Failure::new)?;
            let task = torture::Task { scene, faults: fault.clone(), seed: None };
            let means = torture::Means { verbose: true, shrinks: 0, ..wide };
            let next = |number: usize| ((number as u64) < *times).then(|| task.clone());
            return Ok(Done::Faults(torture::run_all(&means, None, next)));
        }
        What::Random { minutes, seed, faults, scene } if faults != "kill" => {
            let choice = Choice { kinds: kinds(faults)?, pause_max: 12_000, most: 4 };
            let deadline = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
            let only = scene.as_deref().map(scene::find).transpose().map_err(Failure::new)?;
            println!("seeds from {seed} on, for {minutes} minutes");
            let next = |number: usize| Some(drawn(&choice, seed + number as u64, None, only));
            return Ok(Done::Faults(torture::run_all(&wide, Some(deadline), next)));
        }
        What::Faults { rounds, seed, faults, pause_ms } => {
            let choice = Choice { kinds: kinds(faults)?, pause_max: *pause_ms, most: 2 };
            let next = |number: usize| {
                let number = number as u64;
                let kind = choice.kinds[(number % choice.kinds.len() as u64) as usize];
                let is_left = number < rounds * choice.kinds.len() as u64;
                is_left.then(|| drawn(&choice, seed + number, Some(kind), None))
            };
            return Ok(Done::Faults(torture::run_all(&wide, None, next)));
        }
        What::Disks { runs, minutes, seed } => {
            let until = minutes.map(|it| Instant::now() + Duration::from_secs_f64(it * 60.0));
            let seeds = *seed..seed + runs;
            let (jobs, programs) = (flags.jobs, &means.programs);
            return Ok(Done::Disks(disks::run_all(programs, jobs, seeds, until, flags.verbose)));
        }
        _ => {}
    }
    kills(flags, &means).map(Done::Kills)
}

fn drawn(
    choice: &Choice,
    seed: u64,
    first: Option<Kind>,
    only: Option<&'static scene::Scene>,
) -> torture::Task {
    let (scene, faults) = draw::draw(choice, seed, first, only);
    torture::Task { scene, faults, seed: Some(seed) }
}

fn kills(flags: &Flags, means: &Means) -> Result<Tally, Failure> {
    match &flags.what {
        What::Count { only } => {
            for (scenario, stores) in counted(means, only.as_deref())? {
                let parts: Vec<String> =
                    stores.iter().map(|(part, stores)| format!("{part} {stores}")).collect();
                println!("{}: {}", scenario.name, parts.join(", "));
            }
            Ok(Tally::default())
        }
        What::Sweep { only, part, points: wanted, seed, seconds } => {
            let mut counted = counted(means, only.as_deref())?;
            if let Some(part) = part {
                counted.iter_mut().for_each(|(_, stores)| stores.retain(|it, _| it == part));
            }
            let tasks = points(&counted, *wanted, *seed);
            println!("{} points, seed {seed}", tasks.len());
            let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
            Ok(run_all(means, deadline, |number| tasks.get(number).cloned()))
        }
        What::One { scenario, kill, after, all_ms, away_ms, times, .. } => {
            let scenario = find(scenario).map_err(Failure::new)?;
            let mut plan = Plan {
                all_at: all_ms.map(Duration::from_millis),
                away: Duration::from_millis(*away_ms),
                ..Plan::default()
            };
            for (part, store) in kill {
                plan.kills.entry(*part).or_default().push(*store);
            }
            plan.timed =
                after.iter().map(|(part, ms)| (*part, Duration::from_millis(*ms))).collect();
            let task = Task { scenario, command: command(scenario, &plan), plan };
            let means = Means { verbose: true, ..means.clone() };
            Ok(run_all(&means, None, |number| ((number as u64) < *times).then(|| task.clone())))
        }
        What::Random { minutes, seed, .. } => {
            let counted = counted(means, None)?;
            let deadline = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
            println!("seeds from {seed} on, for {minutes} minutes");
            Ok(run_all(means, Some(deadline), |number| {
                Some(campaign_draw(&counted, seed + number as u64))
            }))
        }
        What::Faults { .. } | What::Disks { .. } => Ok(Tally::default()),
    }
}

fn counted(means: &Means, only: Option<&str>) -> Result<Counted, Failure> {
    let scenarios = chosen(only).map_err(Failure::new)?;
    scenarios.into_iter().map(|scenario| Ok((scenario, count(scenario, means)?))).collect()
}
