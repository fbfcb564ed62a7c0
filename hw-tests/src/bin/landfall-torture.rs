//! `landfall-torture`: kills processes after given stores to shared memory, and judges what is
//! left. `scripts/torture` builds and starts it.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use landfall_hw_tests::Failure;
use landfall_hw_tests::sweep::campaign::{
    Means, Tally, Task, chosen, command, count, draw, points, run_all,
};
use landfall_hw_tests::sweep::plan::{Part, Plan};
use landfall_hw_tests::sweep::scenario::{Scenario, find};

/// Kills processes after given stores to shared memory, and judges what is left.
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
    /// One run, with these kills.
    One {
        /// The scenario.
        scenario: String,
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
    },
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
        Ok(tally) => conclude(&tally),
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

fn act(flags: &Flags) -> Result<Tally, Failure> {
    let own = std::env::current_exe()?;
    let beside = own.parent().map(PathBuf::from).unwrap_or_default();
    let means = Means {
        programs: flags.programs.clone().unwrap_or(beside),
        jobs: flags.jobs,
        verbose: flags.verbose,
    };
    match &flags.what {
        What::Count { only } => {
            for (scenario, stores) in counted(&means, only.as_deref())? {
                let parts: Vec<String> =
                    stores.iter().map(|(part, stores)| format!("{part} {stores}")).collect();
                println!("{}: {}", scenario.name, parts.join(", "));
            }
            Ok(Tally::default())
        }
        What::Sweep { only, part, points: wanted, seed, seconds } => {
            let mut counted = counted(&means, only.as_deref())?;
            if let Some(part) = part {
                counted.iter_mut().for_each(|(_, stores)| stores.retain(|it, _| it == part));
            }
            let tasks = points(&counted, *wanted, *seed);
            println!("{} points, seed {seed}", tasks.len());
            let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
            Ok(run_all(&means, deadline, |number| tasks.get(number).cloned()))
        }
        What::One { scenario, kill, after, all_ms, away_ms, times } => {
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
            let means = Means { verbose: true, ..means };
            Ok(run_all(&means, None, |number| ((number as u64) < *times).then(|| task.clone())))
        }
        What::Random { minutes, seed } => {
            let counted = counted(&means, None)?;
            let deadline = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
            println!("seeds from {seed} on, for {minutes} minutes");
            Ok(run_all(&means, Some(deadline), |number| Some(draw(&counted, seed + number as u64))))
        }
    }
}

fn counted(means: &Means, only: Option<&str>) -> Result<Counted, Failure> {
    let scenarios = chosen(only).map_err(Failure::new)?;
    scenarios.into_iter().map(|scenario| Ok((scenario, count(scenario, means)?))).collect()
}
