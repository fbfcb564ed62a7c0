//! Runs without end, and what they found.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};

use crate::choices::{Random, Record, Source};
use crate::panics;
use crate::plan::{Body, Image, Plan, Scenario};
use crate::process::Process;
use crate::schedule::{Birth, Run};
use crate::site::Site;

/// Bytes of a process's stack.
const STACK_BYTES: usize = 256 << 10;

/// How far to explore.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most switches away from a process that could have gone on.
    pub preemptions: u32,
    /// Most runs.
    pub runs: u64,
    /// Most time.
    pub time: Duration,
}

impl Limits {
    /// Everything up to a number of preemptions, however long it takes.
    pub fn preemptions(preemptions: u32) -> Self {
        Self { preemptions, runs: u64::MAX, time: Duration::MAX }
    }
}

/// What an exploration came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Runs made: different schedules, where all were walked through.
    pub runs: u64,
    /// Memory operations in them.
    pub steps: u64,
    /// Whether nothing within the bound was left out.
    pub complete: bool,
    /// What was found wrong, if anything was.
    pub failure: Option<Failure>,
}

/// A run in which something went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What.
    pub what: String,
    /// Makes the run again.
    pub choices: Record,
    /// The seed it came from, if it was drawn.
    pub seed: Option<u64>,
    /// What happened in it.
    pub trace: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}choices {}", self.what, self.trace, self.choices)?;
        match self.seed {
            Some(seed) => write!(f, ", seed {seed}"),
            None => Ok(()),
        }
    }
}

/// Events of a failing run that are told, counted from its end.
const TOLD_MAX: usize = 80;

/// Explores one scenario.
pub struct Explorer<'a> {
    scenario: Scenario<'a>,
    run: Rc<RefCell<Run>>,
    stacks: Vec<DefaultStack>,
    /// Choices of the plain schedule: how long runs are, for drawing crashes.
    length: u32,
}

type Stackful = Coroutine<(), (), (), DefaultStack>;

impl<'a> Explorer<'a> {
    /// An explorer of `scenario`, its memory laid out.
    pub fn new(scenario: Scenario<'a>) -> Self {
        let run = Rc::new(RefCell::new(Run::new()));
        (scenario.image)(&Image(&run));
        Self { scenario, run, stacks: Vec::new(), length: 0 }
    }

    /// Passes over one site from here on, or none.
    pub fn delete(&mut self, site: Option<Site>) {
        self.run.borrow_mut().deleted = site;
    }

    /// Notes the sites that are met from here on.
    pub fn discover(&mut self) {
        self.run.borrow_mut().discover = true;
    }

    /// The sites that were met.
    pub fn sites(&self) -> Vec<Site> {
        let mut run = self.run.borrow_mut();
        run.discover = false;
        let mut sites = std::mem::take(&mut run.sites);
        sites.sort_by_key(|site| (site.place.file(), site.place.line(), site.kind));
        sites
    }

    /// Walks through every schedule, up to a bound on preemptions.
    pub fn exhaust(&mut self, limits: Limits) -> Outcome {
        let began = Instant::now();
        self.run.borrow_mut().choices.restart(Source::Walk);
        let steps = self.run.borrow().steps;
        let mut outcome = Outcome::default();
        loop {
            let failure = self.once(limits.preemptions);
            outcome.runs += 1;
            outcome.steps = self.run.borrow().steps - steps;
            if let Some(what) = failure {
                outcome.failure = Some(self.tell(what, None, limits.preemptions));
                return outcome;
            }
            if !self.run.borrow_mut().choices.advance() {
                outcome.complete = true;
                return outcome;
            }
            if is_spent(&limits, outcome.runs, began) {
                return outcome;
            }
        }
    }

    /// Draws schedules from the seeds from `first` on, with any number of preemptions.
    pub fn draw(&mut self, first: u64, limits: Limits) -> Outcome {
        let began = Instant::now();
        let steps = self.run.borrow().steps;
        let mut outcome = Outcome::default();
        for seed in first.. {
            let failure = self.seed(seed);
            outcome.runs += 1;
            outcome.steps = self.run.borrow().steps - steps;
            if let Some(what) = failure {
                outcome.failure = Some(self.tell(what, Some(seed), u32::MAX));
                return outcome;
            }
            if is_spent(&limits, outcome.runs, began) {
                break;
            }
        }
        outcome
    }

    /// The run of one seed.
    fn seed(&mut self, seed: u64) -> Option<String> {
        if self.length == 0 {
            // The first walk is the plain schedule. Its length is the same every time, so a seed
            // alone makes a run again.
            let deleted = self.run.borrow_mut().deleted.take();
            self.run.borrow_mut().choices.restart(Source::Walk);
            let failure = self.once(0);
            self.run.borrow_mut().deleted = deleted;
            if failure.is_some() && deleted.is_none() {
                return failure;
            }
            self.length = self.run.borrow().places.max(1);
        }
        let random = Random::new(seed, self.length + self.length / 4);
        self.run.borrow_mut().choices.restart(Source::Random(random));
        self.once(u32::MAX)
    }

    /// Makes one run again, with as many preemptions allowed as when it was found.
    pub fn replay(&mut self, choices: &Record, preemptions: u32) -> Option<Failure> {
        self.run.borrow_mut().choices.replay(choices);
        let what = self.once(preemptions)?;
        Some(self.tell(what, None, preemptions))
    }

    /// Makes the run of a seed again.
    pub fn replay_seed(&mut self, seed: u64) -> Option<Failure> {
        let what = self.seed(seed)?;
        Some(self.tell(what, Some(seed), u32::MAX))
    }

    /// Makes the last run again and notes what happens.
    fn tell(&mut self, what: String, seed: Option<u64>, preemptions: u32) -> Failure {
        let choices = self.run.borrow().choices.record();
        self.run.borrow_mut().choices.replay(&choices);
        self.run.borrow_mut().trace = Some(Vec::new());
        let again = self.once(preemptions);
        let told = self.run.borrow_mut().trace.take().unwrap_or_default();
        let mut trace = String::new();
        if told.len() > TOLD_MAX {
            trace += &format!("  ({} events before)\n", told.len() - TOLD_MAX);
        }
        for event in &told[told.len().saturating_sub(TOLD_MAX)..] {
            trace += &format!("  {event}\n");
        }
        assert!(
            again.is_some(),
            "the run did not fail again, so the scenario is not the same program in every run: \
             {what}\n{trace}"
        );
        Failure { what, choices, seed, trace }
    }

    /// One run with the choices as they are set. Says what went wrong.
    fn once(&mut self, preemptions: u32) -> Option<String> {
        let mut plan = Plan::default();
        (self.scenario.plan)(&mut plan);
        let mut parts = Parts::new(&self.run, plan, preemptions);
        let mut started: Vec<Option<Stackful>> = Vec::with_capacity(crate::PROCESSES_MAX);
        let failure = panics::caught(|| {
            loop {
                let (current, count) = {
                    let run = self.run.borrow();
                    if run.over || run.failure.is_some() {
                        break;
                    }
                    (run.current, run.count())
                };
                while started.len() < count {
                    let id = started.len();
                    let body = parts.body(id, &self.run.borrow().born);
                    let stack = self.stacks.pop().unwrap_or_else(|| {
                        DefaultStack::new(STACK_BYTES).expect("memory for a stack")
                    });
                    started.push(Some(stackful(stack, self.run.clone(), id, body)));
                }
                let process = started[current].as_mut().expect("taken only after the run");
                match process.resume(()) {
                    CoroutineResult::Yield(()) => {}
                    CoroutineResult::Return(()) => self.run.borrow_mut().end(),
                }
            }
        });
        self.run.borrow_mut().stop_all();
        for process in &mut started {
            let Some(mut process) = process.take() else { continue };
            if !process.done() {
                process.force_unwind();
            }
            self.stacks.push(process.into_stack());
        }
        let mut run = self.run.borrow_mut();
        match failure {
            Ok(()) => run.failure.take(),
            Err(said) => Some(said),
        }
    }
}

/// A plan's bodies, to be started in turn.
struct Parts {
    bodies: Vec<Option<Body>>,
    recoveries: Vec<Option<Body>>,
    after: Option<Body>,
}

impl Parts {
    /// Sets a run up by its plan.
    fn new(run: &RefCell<Run>, plan: Plan, preemptions: u32) -> Self {
        let mut run = run.borrow_mut();
        run.begin(preemptions);
        run.everywhere = plan.everywhere;
        run.shared = plan.shared;
        if let Some((from, to)) = plan.coherent {
            run.world.keep_coherent(from, to);
        }
        let mut bodies = Vec::with_capacity(plan.processes.len());
        for (host, role, body) in plan.processes {
            run.add(host, role);
            bodies.push(Some(body));
        }
        let mut recoveries = Vec::with_capacity(plan.crashes.len());
        for (crash, recovery) in plan.crashes {
            let (host, body) = recovery.unzip();
            run.crashes.push((crash, host));
            recoveries.push(body);
        }
        let (host, after) = plan.after.unzip();
        run.after = host;
        run.pick(false);
        Self { bodies, recoveries, after }
    }

    fn body(&mut self, id: usize, born: &[Birth]) -> Body {
        let body = match id.checked_sub(self.bodies.len()) {
            None => self.bodies[id].take(),
            Some(birth) => match born[birth] {
                Birth::Recovery(crash) => self.recoveries[crash].take(),
                Birth::After => self.after.take(),
            },
        };
        body.expect("each process is started once")
    }
}

fn stackful(stack: DefaultStack, run: Rc<RefCell<Run>>, id: usize, body: Body) -> Stackful {
    Coroutine::with_stack(stack, move |yielder, ()| body(&Process::new(&run, yielder, id)))
}

fn is_spent(limits: &Limits, runs: u64, began: Instant) -> bool {
    runs >= limits.runs || (runs.is_multiple_of(64) && began.elapsed() >= limits.time)
}
