//! Many runs, some at a time: a sweep over the stores of every process, or random kills.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::plan::{Part, Plan};
use super::scenario::{SCENARIOS, Scenario, run};
use crate::Failure;
use crate::flow::Random;

/// How runs are made.
#[derive(Clone, Debug)]
pub struct Means {
    /// Folder of the programs, built with the kill switch.
    pub programs: PathBuf,
    /// Runs at a time.
    pub jobs: usize,
    /// Says a line for each run.
    pub verbose: bool,
}

/// A run of a campaign.
#[derive(Clone, Debug)]
pub struct Task {
    /// What it is about.
    pub scenario: &'static Scenario,
    /// Who is killed.
    pub plan: Plan,
    /// The command that repeats it.
    pub command: String,
}

/// What a campaign did.
#[derive(Debug, Default)]
pub struct Tally {
    /// Runs that ended.
    pub runs: u64,
    /// Processes killed.
    pub kills: u64,
    /// Kills of one process after one store, each counted once.
    pub points: BTreeSet<(&'static str, Part, u64)>,
    /// Runs that ended before the store was reached.
    pub unreached: u64,
    /// The commands that repeat the runs that failed, and why they did.
    pub failures: Vec<(String, String)>,
    /// Time of all runs together.
    pub took: Duration,
}

impl Tally {
    fn add(&mut self, task: &Task, outcome: Result<super::scenario::Outcome, Failure>) {
        self.runs += 1;
        match outcome {
            Ok(outcome) => {
                self.kills += u64::from(outcome.kills);
                self.took += outcome.took;
                if outcome.kills == 0 && !task.plan.kills.is_empty() {
                    self.unreached += 1;
                    return;
                }
                for (part, stores) in &task.plan.kills {
                    if let Some(store) = stores.first() {
                        self.points.insert((task.scenario.name, *part, *store));
                    }
                }
            }
            Err(failure) => self.failures.push((task.command.clone(), failure.to_string())),
        }
    }
}

/// How many stores each process makes in a scenario when nobody is killed.
pub fn count(scenario: &'static Scenario, means: &Means) -> Result<BTreeMap<Part, u64>, Failure> {
    let mut stores = run(scenario, Plan::quiet(), &means.programs)?.stores;
    // A publisher over tcp has no shared memory; every other process has.
    stores.remove(&Part::Publisher(1));
    for (part, stores) in &stores {
        ensure!(
            *stores > 0,
            "{part} counted no store: the programs in {} are built without the kill switch",
            means.programs.display()
        );
    }
    Ok(stores)
}

/// The points of a sweep: `points` of them in all, spread evenly over scenarios, processes and
/// stores, beginning where `seed` says; all there are when `points` is 0.
pub fn points(
    counted: &[(&'static Scenario, BTreeMap<Part, u64>)],
    points: u64,
    seed: u64,
) -> Vec<Task> {
    let mut random = Random::new(seed);
    let lines: u64 = counted.iter().map(|(_, stores)| stores.len() as u64).sum();
    let mut tasks = Vec::new();
    for (scenario, stores) in counted {
        for (part, stores) in stores {
            let wanted = if points == 0 { *stores } else { (points / lines.max(1)).max(1) };
            let stride = (stores / wanted.min(*stores).max(1)).max(1);
            let first = 1 + random.below(stride);
            let at = (first..=*stores).step_by(stride as usize);
            tasks.extend(at.map(|store| Task {
                scenario,
                plan: Plan::one(*part, store),
                command: command(scenario, &Plan::one(*part, store)),
            }));
        }
    }
    // Mixed, so that a sweep that is cut short has seen something of everything.
    for i in (1..tasks.len()).rev() {
        tasks.swap(i, random.below(i as u64 + 1) as usize);
    }
    tasks
}

/// The command that repeats a run.
pub fn command(scenario: &Scenario, plan: &Plan) -> String {
    let mut command = format!("scripts/torture one {}", scenario.name);
    for (part, stores) in &plan.kills {
        stores.iter().for_each(|store| command.push_str(&format!(" --kill {part}:{store}")));
    }
    for (part, after) in &plan.timed {
        command.push_str(&format!(" --after {part}:{}", after.as_millis()));
    }
    if let Some(at) = plan.all_at {
        command.push_str(&format!(" --all-ms {}", at.as_millis()));
    }
    if !plan.away.is_zero() {
        command.push_str(&format!(" --away-ms {}", plan.away.as_millis()));
    }
    command
}

/// A run drawn at random: several kills, of several processes, or of all at once.
pub fn draw(counted: &[(&'static Scenario, BTreeMap<Part, u64>)], seed: u64) -> Task {
    let mut random = Random::new(seed);
    // The first numbers of neighbouring seeds resemble each other.
    random.word();
    let (scenario, stores) = &counted[random.below(counted.len() as u64) as usize];
    let mut plan = Plan { away: Duration::from_millis(random.below(30)), ..Plan::default() };
    let parts: Vec<Part> = stores.keys().copied().collect();
    for _ in 0..1 + random.below(3) {
        let part = parts[random.below(parts.len() as u64) as usize];
        // The next life of a process begins with recovery, which is short: half of the later
        // kills come in the first tenth.
        let kills = plan.kills.entry(part).or_default();
        let most = stores[&part].max(1);
        let most = if kills.is_empty() || random.below(2) == 0 { most } else { most / 10 + 1 };
        kills.push(1 + random.below(most));
    }
    if random.below(4) == 0 {
        plan.timed.push((Part::Publisher(1), Duration::from_millis(50 + random.below(150))));
    }
    if random.below(4) == 0 {
        plan.all_at = Some(Duration::from_millis(random.below(300)));
    }
    Task { scenario, command: command(scenario, &plan), plan }
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
                    let outcome = run(task.scenario, task.plan.clone(), &means.programs);
                    say(means, &task, &outcome);
                    tally.lock().expect("no run panics").add(&task, outcome);
                }
            });
        }
    });
    tally.into_inner().expect("no run panics")
}

fn say(means: &Means, task: &Task, outcome: &Result<super::scenario::Outcome, Failure>) {
    match outcome {
        Ok(outcome) if means.verbose => println!(
            "{}: {}: {} killed, {} ms",
            task.scenario.name,
            task.plan,
            outcome.kills,
            outcome.took.as_millis()
        ),
        Ok(_) => {}
        Err(failure) => println!(
            "FAILED {}: {}\n  {failure}\n  repeat: {}",
            task.scenario.name, task.plan, task.command
        ),
    }
}

/// The scenarios of that name, or all.
pub fn chosen(only: Option<&str>) -> Result<Vec<&'static Scenario>, String> {
    match only {
        Some(name) => Ok(vec![super::scenario::find(name)?]),
        None => Ok(SCENARIOS.iter().collect()),
    }
}
