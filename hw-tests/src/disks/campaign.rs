//! Many runs, some at a time.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::plan::draw;
use super::run::{Outcome, run};

/// What a campaign did.
#[derive(Debug, Default)]
pub struct Tally {
    /// Runs that ended.
    pub runs: u64,
    /// What they did together.
    pub all: Outcome,
    /// The commands that repeat what failed.
    pub failures: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { messages, harms, refused, lacking } = self.all;
        writeln!(
            f,
            "{} runs with {harms} harms to disks; {messages} messages acknowledged, {refused} \
             starts refused until a disk was back, {lacking} lives with a copy that lacked \
             something and said so",
            self.runs
        )?;
        for command in &self.failures {
            writeln!(f, "failed; repeat with: {command}")?;
        }
        let failed = self.failures.len() as u64;
        write!(f, "{} passed, {failed} failed", self.runs - failed)
    }
}

/// Runs the plans of these seeds, so many at a time, until all are run or the time is up.
pub fn run_all(
    programs: &Path,
    jobs: usize,
    seeds: Range<u64>,
    until: Option<Instant>,
    verbose: bool,
) -> Tally {
    let tally = Mutex::new(Tally::default());
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while until.is_none_or(|until| Instant::now() < until) {
                    // Relaxed: only the number matters.
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    one(programs, seed, verbose, &tally);
                }
            });
        }
    });
    tally.into_inner().expect("no run panics")
}

fn one(programs: &Path, seed: u64, verbose: bool, tally: &Mutex<Tally>) {
    let (plan, began) = (draw(seed), Instant::now());
    let outcome = run(&plan, programs);
    let mut tally = tally.lock().expect("no run panics");
    tally.runs += 1;
    match outcome {
        Ok(Outcome { messages, harms, refused, lacking }) => {
            let all = &mut tally.all;
            all.messages += messages;
            all.harms += harms;
            all.refused += refused;
            all.lacking += lacking;
            if verbose {
                println!("seed {seed}, {} ms: {plan}", began.elapsed().as_millis());
            }
        }
        Err(failure) => {
            println!("FAILED seed {seed}: {plan}\n  {failure}");
            tally.failures.push(format!("scripts/torture disks --runs 1 --seed {seed}"));
        }
    }
}
