//! Every flush and fence deleted in turn. One that nobody misses is either not needed, and then
//! there is a proof, or the scenarios are too weak.

use std::fmt::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::explore::{Explorer, Failure, Limits, Outcome};
use crate::plan::Scenario;
use crate::site::Site;

/// A site that nobody misses, and why.
#[derive(Clone, Copy, Debug)]
pub struct Redundant<'a> {
    /// The site's name, as [`Site::name`] gives it.
    pub site: &'a str,
    /// The proof.
    pub why: &'a str,
}

/// Which sites a family of scenarios answers for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What their names begin with; others that are met belong to another family.
    pub modules: &'a [&'a str],
    /// Those of them that nobody misses.
    pub redundant: &'a [Redundant<'a>],
}

/// How far the scenarios are explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Preemptions, for all schedules.
    pub preemptions: u32,
    /// Seeds after that, for each scenario.
    pub seeds: u64,
    /// Most time for each walk.
    pub time: Duration,
    /// Most time for the seeds of each scenario.
    pub draw: Duration,
}

/// What became of one deleted site.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The site.
    pub name: String,
    /// What its absence led to, and the scenario that showed it.
    pub caught: Option<(String, Failure)>,
    /// Runs made until then.
    pub runs: u64,
}

/// What a family of scenarios came to.
#[derive(Clone, Debug)]
pub struct Table {
    /// The family's name.
    pub name: String,
    /// Nothing deleted.
    pub sound: Outcome,
    /// Of those, runs that were drawn.
    pub drawn: u64,
    /// Time that took, for the speed.
    pub took: Duration,
    /// Each site deleted in turn.
    pub mutants: Vec<Mutant>,
}

impl Table {
    /// Mutants that were caught.
    pub fn caught(&self) -> usize {
        self.mutants.iter().filter(|mutant| mutant.caught.is_some()).count()
    }

    /// Steps a second, nothing deleted.
    pub fn steps_per_s(&self) -> f64 {
        self.sound.steps as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} schedules{}, {} drawn, {} steps, {:.1} million steps/s, {} of {} caught",
            self.name,
            self.sound.runs - self.drawn,
            if self.sound.complete { "" } else { " (not all)" },
            self.drawn,
            self.sound.steps,
            self.steps_per_s() / 1e6,
            self.caught(),
            self.mutants.len(),
        )?;
        for mutant in &self.mutants {
            let what = match &mutant.caught {
                Some((scenario, failure)) => {
                    let first = failure.what.lines().last().unwrap_or_default();
                    let short: String = first.chars().take(60).collect();
                    format!("caught in run {} of {scenario}: {short}", mutant.runs)
                }
                None => format!("NOT caught in {} runs", mutant.runs),
            };
            writeln!(f, "  {:<56} {what}", mutant.name)?;
        }
        Ok(())
    }
}

/// Explores `scenarios` as they are and then once for each site of `subject` that they meet, with
/// the site deleted. An error is a failure of the scenarios as they are, a site that is not missed
/// and not listed as redundant, or one listed that is missed or does not exist.
pub fn mutate(
    name: &str,
    scenarios: &[Scenario<'_>],
    root: &Path,
    subject: Subject<'_>,
    bounds: Bounds,
) -> Result<Table, String> {
    let Subject { modules, redundant } = subject;
    let began = std::time::Instant::now();
    let mut explorers: Vec<_> = scenarios.iter().map(|it| (it.name, Explorer::new(*it))).collect();
    let mut sites: Vec<Site> = Vec::new();
    let mut sound = Outcome { complete: true, ..Outcome::default() };
    let mut drawn = 0;
    for (scenario, explorer) in &mut explorers {
        explorer.discover();
        let walked = explorer.exhaust(walk(bounds, bounds.preemptions));
        for site in explorer.sites() {
            if !sites.contains(&site) {
                sites.push(site);
            }
        }
        let mut outcomes = vec![walked];
        if bounds.seeds > 0 {
            let limits = Limits { preemptions: 0, runs: bounds.seeds, time: bounds.draw };
            outcomes.push(explorer.draw(1, limits));
            drawn += outcomes[1].runs;
        }
        sound.complete &= outcomes[0].complete;
        for outcome in outcomes {
            sound.runs += outcome.runs;
            sound.steps += outcome.steps;
            if let Some(failure) = outcome.failure {
                return Err(format!("{scenario}: {failure}"));
            }
        }
    }
    let took = began.elapsed();
    let mut named: Vec<(String, Site)> =
        sites.into_iter().map(|site| (site.name(root), site)).collect();
    named.retain(|(name, _)| modules.iter().any(|module| name.starts_with(module)));
    let mutants = named.into_iter().map(|(name, site)| {
        // What is expected to survive needs the whole walk at once.
        let first = match redundant.iter().any(|listed| listed.site == name) {
            true => bounds.preemptions,
            false => 0,
        };
        delete(name, site, &mut explorers, first, bounds)
    });
    let mutants = mutants.collect();
    let table = Table { name: name.to_owned(), sound, drawn, took, mutants };
    match judge(&table, redundant) {
        Ok(()) => Ok(table),
        Err(what) => Err(format!("{what}{table}")),
    }
}

/// Most seeds for a scenario with something deleted: longer draws are for what is not known.
const MUTANT_SEEDS: u64 = 10_000;

fn walk(bounds: Bounds, preemptions: u32) -> Limits {
    Limits { preemptions, runs: u64::MAX, time: bounds.time }
}

fn delete(
    name: String,
    site: Site,
    explorers: &mut [(&str, Explorer<'_>)],
    first: u32,
    bounds: Bounds,
) -> Mutant {
    let mut mutant = Mutant { name, caught: None, runs: 0 };
    let mut caught = |name: &str, outcome: Outcome| {
        mutant.runs += outcome.runs;
        if let Some(failure) = outcome.failure {
            mutant.caught = Some((name.to_owned(), failure));
        }
        mutant.caught.is_some()
    };
    for (_, explorer) in explorers.iter_mut() {
        explorer.delete(Some(site));
    }
    // Few preemptions first: most faults need none.
    'found: {
        for preemptions in first..=bounds.preemptions {
            for (name, explorer) in explorers.iter_mut() {
                if caught(name, explorer.exhaust(walk(bounds, preemptions))) {
                    break 'found;
                }
            }
        }
        if bounds.seeds > 0 {
            let runs = bounds.seeds.min(MUTANT_SEEDS);
            let limits = Limits { preemptions: 0, runs, time: bounds.draw };
            for (name, explorer) in explorers.iter_mut() {
                if caught(name, explorer.draw(1, limits)) {
                    break 'found;
                }
            }
        }
    }
    for (_, explorer) in explorers.iter_mut() {
        explorer.delete(None);
    }
    mutant
}

fn judge(table: &Table, redundant: &[Redundant<'_>]) -> Result<(), String> {
    let mut wrong = String::new();
    for mutant in &table.mutants {
        let listed = redundant.iter().find(|listed| listed.site == mutant.name);
        match (&mutant.caught, listed) {
            (None, None) => {
                let _ = writeln!(
                    wrong,
                    "{}: without {} nothing goes wrong: strengthen the scenarios, or list it as \
                     redundant with a proof",
                    table.name, mutant.name
                );
            }
            (Some((scenario, failure)), Some(listed)) => {
                let _ = writeln!(
                    wrong,
                    "{}: {} is listed as redundant ({}), and {scenario} fails without it: \
                     {failure}",
                    table.name, mutant.name, listed.why
                );
            }
            _ => {}
        }
    }
    for listed in redundant {
        if !table.mutants.iter().any(|mutant| mutant.name == listed.site) {
            let _ = writeln!(
                wrong,
                "{}: {} is listed as redundant and no scenario meets it",
                table.name, listed.site
            );
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}
