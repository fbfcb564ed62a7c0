//! Many runs, some at a time, and what fails made smaller.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::fault::{Kind, Timed};
use super::scene::Scene;
use super::shrink::shrink;
use super::story::{Outcome, run};
use super::troupe::Ends;
use crate::Failure;

/// How runs are made.
#[derive(Clone, Debug)]
pub struct Means {
    /// Folder of the programs, built with the kill switch.
    pub programs: PathBuf,
    /// Runs at a time.
    pub jobs: usize,
    /// Says a line for each run.
    pub verbose: bool,
    /// Runs that may be made to find a smaller failure.
    pub shrinks: u32,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Task {
    /// What it happens to.
    pub scene: &'static Scene,
    /// What goes wrong.
    pub faults: Vec<Timed>,
    /// What it was drawn from.
    pub seed: Option<u64>,
}

impl Task {
    /// The command that repeats it.
    pub fn command(&self) -> String {
        command(self.scene, &self.faults)
    }
}

fn command(scene: &Scene, faults: &[Timed]) -> String {
    let mut command = format!("scripts/torture one {}", scene.name);
    faults.iter().for_each(|timed| command.push_str(&format!(" --fault {timed}")));
    command
}

/// What a campaign did.
#[derive(Debug, Default)]
pub struct Tally {
    /// Runs that ended.
    pub runs: u64,
    /// Faults applied, by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// What happened to processes.
    pub ends: Ends,
    /// Messages that were sent, acknowledged, shown.
    pub messages: (u64, u64, u64),
    /// The commands that repeat what failed.
    pub failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, task: &Task, outcome: &Result<Outcome, Failure>) {
        self.runs += 1;
        for timed in &task.faults {
            *self.faults.entry(timed.fault.kind()).or_default() += 1;
        }
        if let Ok(outcome) = outcome {
            self.ends.killed += outcome.ends.killed;
            self.ends.servers += outcome.ends.servers;
            self.ends.clients += outcome.ends.clients;
            for report in &outcome.reports {
                self.messages.0 += report.sent;
                self.messages.1 += report.acked;
                self.messages.2 += report.shown;
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<String> =
            self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(
            f,
            "{} runs with {} faults ({}); {} processes killed, {} servers and {} clients gave up; \
             {} messages sent, {} acknowledged, {} read",
            self.runs,
            self.faults.values().sum::<u64>(),
            kinds.join(", "),
            self.ends.killed,
            self.ends.servers,
            self.ends.clients,
            self.messages.0,
            self.messages.1,
            self.messages.2
        )?;
        for command in &self.failures {
            writeln!(f, "failed; repeat with: {command}")?;
        }
        let failed = self.failures.len() as u64;
        write!(f, "{} passed, {failed} failed", self.runs - failed)
    }
}

/// Runs what `next` gives until it gives nothing more, or until the deadline.
pub fn run_all(
    means: &Means,
    deadline: Option<Instant>,
    next: impl Fn(usize) -> Option<Task> + Sync,
) -> Tally {
    let tally = Mutex::new(Tally::default());
    let number = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..means.jobs.max(1) {
            scope.spawn(|| {
                while deadline.is_none_or(|deadline| Instant::now() < deadline) {
                    // Relaxed: only the number matters.
                    let Some(task) = next(number.fetch_add(1, Ordering::Relaxed)) else { return };
                    let outcome = run(task.scene, &task.faults, &means.programs);
                    tally.lock().expect("no run panics").add(&task, &outcome);
                    if let Some(command) = say(means, &task, &outcome) {
                        tally.lock().expect("no run panics").failures.push(command);
                    }
                }
            });
        }
    });
    tally.into_inner().expect("no run panics")
}

/// Says what became of a run; of one that failed, the command that repeats the smallest failure.
fn say(means: &Means, task: &Task, outcome: &Result<Outcome, Failure>) -> Option<String> {
    let seed = task.seed.map(|seed| format!(" (seed {seed})")).unwrap_or_default();
    let faults: Vec<String> = task.faults.iter().map(Timed::to_string).collect();
    let faults = faults.join(" ");
    let failure = match outcome {
        Ok(outcome) => {
            if means.verbose {
                let Outcome { ends, took, .. } = outcome;
                println!("{}: {faults}{seed}: {ends:?}, {} ms", task.scene.name, took.as_millis());
            }
            return None;
        }
        Err(failure) => failure,
    };
    println!(
        "FAILED {}: {faults}{seed}\n  {failure}\n  repeat: {}",
        task.scene.name,
        task.command()
    );
    Some(smaller(means, task))
}

/// Drops faults as long as what is left fails at once.
fn smaller(means: &Means, task: &Task) -> String {
    let began = Instant::now();
    // A run that hangs takes minutes; a campaign is not to be all about one failure.
    let may_go_on = || began.elapsed() < Duration::from_secs(300);
    let left = shrink(task.faults.clone(), means.shrinks, |faults| {
        may_go_on() && run(task.scene, faults, &means.programs).is_err()
    });
    let smallest = command(task.scene, &left);
    if left.len() < task.faults.len() {
        println!("  smaller: {smallest}");
    }
    smallest
}
