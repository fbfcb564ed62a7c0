//! Whose turn it is.
//!
//! A switch is tried only where it can matter. What another process does between two steps of this
//! one may as well happen later, up to this one's next load: until then this one would not know,
//! and the other sees older versions by its own loads' choices. It may not be moved across a load
//! or a fence of this process. So a switch is tried before a load and before a fence that has
//! lines to wait for, if this process has stored or invalidated something since the last such
//! place; never before a store. Processes of one host see each other's stores at once, so there
//! every operation on what they share is such a place.
//!
//! A process that finds nothing to do waits, and goes on when another has stored something. When
//! all wait, each goes on once more in the worst case: every load sees the oldest version it may.
//! If that moves nobody, something was never made visible.

use std::panic::Location;

use crate::choices::Choices;
use crate::plan::{Crash, Role};
use crate::site::{Kind, Site};
use crate::trace::{Event, Told};
use crate::world::{Moving, World};
use crate::{HostId, PROCESSES_MAX};

/// Steps after which a run is taken for endless.
const STEPS_MAX: u64 = 200_000;
/// Rounds in the worst case without a store after which nobody will ever move: one for lines that
/// a process drops and only then waits for, one to look.
const ROUNDS_MAX: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Waiting,
    Ended,
    Dead,
}

/// What a process is about to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Load,
    Store,
    /// A fence, with lines under way.
    Fence,
    /// Nothing that others could notice.
    Quiet,
}

/// Why a process was started during a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Birth {
    /// After the crash of this number.
    Recovery(usize),
    /// All others have ended.
    After,
}

pub(crate) struct Proc {
    pub host: HostId,
    role: Role,
    pub state: State,
    /// The other processes on its host, one bit each.
    pub neighbours: u16,
    /// It stored or invalidated something since a switch was last tried.
    pub acted: bool,
    pub moving: Vec<Moving>,
    /// Stores of its own in this run.
    pub stores: u64,
    /// Stores of others when it last began to look for work.
    known: u64,
    /// It begins to look for work when it next goes on.
    begins: bool,
    /// The line it looked at last.
    pub looked_at: u64,
}

impl Proc {
    fn new() -> Self {
        Self {
            host: HostId(0),
            role: Role::Worker,
            state: State::Ended,
            neighbours: 0,
            acted: false,
            moving: Vec::with_capacity(64),
            stores: 0,
            known: 0,
            begins: true,
            looked_at: 0,
        }
    }
}

/// One run: the memory, the choices, and who is where.
pub(crate) struct Run {
    pub world: World,
    pub choices: Choices,
    pub procs: Vec<Proc>,
    pub count: usize,
    pub current: usize,
    /// Switches away from a process that could go on, still to be spent.
    pub preemptions: u32,
    /// What may happen, and where what follows it would run.
    pub crashes: Vec<(Crash, Option<HostId>)>,
    /// Which crash there was.
    pub crashed: Option<usize>,
    /// Where a process is started when all others have ended.
    pub after: Option<HostId>,
    /// What was started during the run, in order.
    pub born: Vec<Birth>,
    /// Nobody is left to run.
    pub over: bool,
    pub everywhere: bool,
    /// What processes of one host share, as offsets from..to; empty: anything.
    pub shared: Vec<(u64, u64)>,
    pub worst: bool,
    rounds: u32,
    pub stores: u64,
    stores_at_round: u64,
    pub failure: Option<String>,
    pub steps: u64,
    /// Places in the schedule where something could have been chosen.
    pub places: u32,
    limit: u64,
    pub deleted: Option<Site>,
    /// Whether sites are noted as they are met.
    pub discover: bool,
    pub sites: Vec<Site>,
    pub trace: Option<Vec<Told>>,
}

impl Run {
    pub(crate) fn new() -> Self {
        Self {
            world: World::new(),
            choices: Choices::new(),
            procs: (0..PROCESSES_MAX).map(|_| Proc::new()).collect(),
            count: 0,
            current: 0,
            preemptions: 0,
            crashes: Vec::new(),
            crashed: None,
            after: None,
            born: Vec::new(),
            over: false,
            everywhere: false,
            shared: Vec::new(),
            worst: false,
            rounds: 0,
            stores: 0,
            stores_at_round: 0,
            failure: None,
            steps: 0,
            places: 0,
            limit: 0,
            deleted: None,
            discover: false,
            sites: Vec::new(),
            trace: None,
        }
    }

    /// Starts a run with no process in it.
    pub(crate) fn begin(&mut self, preemptions: u32) {
        self.world.reset();
        self.count = 0;
        self.current = 0;
        self.preemptions = preemptions;
        self.crashes.clear();
        self.crashed = None;
        self.after = None;
        self.born.clear();
        self.over = false;
        self.worst = false;
        self.rounds = 0;
        self.stores = 0;
        self.stores_at_round = 0;
        self.failure = None;
        self.places = 0;
        self.limit = self.steps + STEPS_MAX;
    }

    /// Adds a process that is ready to run.
    pub(crate) fn add(&mut self, host: HostId, role: Role) {
        let new = self.count;
        let mut neighbours = 0;
        for (id, other) in self.procs[..new].iter_mut().enumerate() {
            // The dead share nothing.
            if other.host == host && matches!(other.state, State::Ready | State::Waiting) {
                other.neighbours |= 1 << new;
                neighbours |= 1 << id;
            }
        }
        let proc = &mut self.procs[new];
        proc.moving.clear();
        *proc = Proc {
            host,
            role,
            state: State::Ready,
            neighbours,
            acted: false,
            moving: std::mem::take(&mut proc.moving),
            stores: 0,
            known: 0,
            begins: true,
            looked_at: 0,
        };
        self.count += 1;
    }

    #[inline]
    pub(crate) fn is_dead(&self, id: usize) -> bool {
        self.procs[id].state == State::Dead
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn host_of(&self, id: usize) -> HostId {
        self.procs[id].host
    }

    /// Ends a run early: what still runs is dead.
    pub(crate) fn stop_all(&mut self) {
        for proc in &mut self.procs[..self.count] {
            if proc.state != State::Ended {
                proc.state = State::Dead;
            }
        }
    }

    /// Whether `site` is to be passed over. Notes it.
    #[inline]
    pub(crate) fn is_deleted(&mut self, place: &'static Location<'static>, kind: Kind) -> bool {
        let site = Site { place, kind };
        if self.discover && !self.sites.contains(&site) {
            self.sites.push(site);
        }
        self.deleted == Some(site)
    }

    #[inline]
    pub(crate) fn tell(&mut self, event: Event, place: Option<&'static Location<'static>>) {
        if let Some(trace) = &mut self.trace {
            trace.push(Told { process: self.current, event, place });
        }
    }

    pub(crate) fn fail(&mut self, what: String) {
        if self.failure.is_none() {
            self.failure = Some(what);
        }
    }

    /// Before a step of the current process: true if it is another's turn first, or nobody's.
    #[inline]
    pub(crate) fn before(&mut self, step: Step, at: u64) -> bool {
        self.steps += 1;
        let proc = &self.procs[self.current];
        let everywhere = self.everywhere || (proc.neighbours != 0 && self.is_shared(at));
        let switch = match step {
            Step::Quiet => false,
            Step::Store => everywhere,
            Step::Load | Step::Fence => proc.acted || everywhere,
        };
        let die = matches!(step, Step::Store | Step::Fence) && !self.crashes.is_empty();
        (switch || die) && self.choose(switch)
    }

    /// Chooses between going on, another process and a crash.
    fn choose(&mut self, switch: bool) -> bool {
        if self.worst {
            return false;
        }
        if self.steps > self.limit {
            self.fail(format!("a run of over {STEPS_MAX} steps: a loop that never waits"));
            return true;
        }
        let mut others = [0; PROCESSES_MAX];
        let mut ready = 0;
        if switch {
            self.procs[self.current].acted = false;
            if self.preemptions > 0 {
                (others, ready) = self.ready(Some(self.current));
            }
        }
        let (crashes, due) = self.crashes_due(!switch);
        if ready + due == 0 {
            return false;
        }
        self.places += 1;
        let choice = self.choices.step(ready, due);
        if choice == 0 {
            return false;
        }
        if choice <= ready {
            self.preemptions = self.preemptions.saturating_sub(1);
            self.turn_to(others[choice - 1]);
            return true;
        }
        self.crash(crashes[choice - 1 - ready]);
        if self.procs[self.current].state == State::Dead {
            self.pick(false);
            return true;
        }
        false
    }

    fn ready(&self, but: Option<usize>) -> ([usize; PROCESSES_MAX], usize) {
        let mut ready = [0; PROCESSES_MAX];
        let mut count = 0;
        for (id, proc) in self.procs[..self.count].iter().enumerate() {
            if proc.state == State::Ready && but != Some(id) {
                ready[count] = id;
                count += 1;
            }
        }
        (ready, count)
    }

    /// The crashes that may happen now: a kill of the current process, and where a switch can
    /// matter also a power loss.
    fn crashes_due(&mut self, kills_only: bool) -> ([usize; PROCESSES_MAX], usize) {
        let mut due = [0; PROCESSES_MAX];
        let mut count = 0;
        if self.crashed.is_some() || self.crashes.is_empty() {
            return (due, 0);
        }
        for index in 0..self.crashes.len() {
            let may = match self.crashes[index].0 {
                Crash::Kill(process) => process.0 == self.current,
                Crash::PowerLoss(_) if kills_only => false,
                Crash::PowerLoss(host) => {
                    let here = |proc: &Proc| proc.host == host;
                    let alive = |proc: &Proc| matches!(proc.state, State::Ready | State::Waiting);
                    let procs = &self.procs[..self.count];
                    procs.iter().any(|proc| here(proc) && alive(proc))
                        || self.world.has_unwritten(host)
                }
            };
            if may {
                due[count] = index;
                count += 1;
            }
        }
        (due, count)
    }

    fn crash(&mut self, index: usize) {
        self.crashed = Some(index);
        let (crash, recovery) = self.crashes[index];
        match crash {
            Crash::Kill(process) => {
                self.tell(Event::Crash("is killed"), None);
                self.procs[process.0].state = State::Dead;
            }
            Crash::PowerLoss(host) => {
                self.tell(Event::Crash(POWER_LOSS[host.index()]), None);
                self.world.lose_power(host);
                for proc in &mut self.procs[..self.count] {
                    if proc.host == host && proc.state != State::Ended {
                        proc.state = State::Dead;
                    }
                }
            }
        }
        // Whoever waits may want to know.
        self.stores += 1;
        self.wake();
        if let Some(host) = recovery {
            self.add(host, Role::Worker);
            self.born.push(Birth::Recovery(index));
        }
    }

    fn turn_to(&mut self, id: usize) {
        self.current = id;
        let proc = &mut self.procs[id];
        proc.acted = false;
        if proc.begins {
            proc.begins = false;
            proc.known = self.stores - proc.stores;
        }
        self.tell(Event::Switch, None);
    }

    /// The current process has nothing to do until others have stored something.
    pub(crate) fn wait(&mut self) {
        self.steps += 1;
        if self.steps > self.limit {
            self.fail(format!("a run of over {STEPS_MAX} steps"));
            return;
        }
        self.tell(Event::Idle, None);
        let others = self.stores - self.procs[self.current].stores;
        let proc = &mut self.procs[self.current];
        if others == proc.known {
            proc.state = State::Waiting;
        }
        proc.begins = true;
        self.pick(true);
    }

    /// The current process has ended.
    pub(crate) fn end(&mut self) {
        let proc = &mut self.procs[self.current];
        if proc.state != State::Dead {
            proc.state = State::Ended;
        }
        self.pick(true);
    }

    /// Finds the process that goes on, after the current one stopped.
    pub(crate) fn pick(&mut self, may_crash: bool) {
        loop {
            let workers = self.procs[..self.count].iter();
            let mut left = workers.filter(|proc| {
                proc.role == Role::Worker && matches!(proc.state, State::Ready | State::Waiting)
            });
            if left.next().is_none() {
                return self.finish(may_crash);
            }
            let (ready, count) = self.ready(None);
            if self.worst && count > 0 {
                let next = ready[..count].iter().find(|id| **id > self.current);
                return self.turn_to(*next.unwrap_or(&ready[0]));
            }
            if count > 0 {
                let (crashes, due) = if may_crash { self.crashes_due(false) } else { ([0; _], 0) };
                self.places += 1;
                let choice = self.choices.next(count, due);
                if choice < count {
                    return self.turn_to(ready[choice]);
                }
                self.crash(crashes[choice - count]);
                continue;
            }
            if !self.worst_case(may_crash) {
                self.over = true;
                return;
            }
        }
    }

    /// All wait: another round in the worst case. False if that was tried often enough.
    fn worst_case(&mut self, may_crash: bool) -> bool {
        if !self.worst {
            if may_crash {
                let (crashes, due) = self.crashes_due(false);
                match self.choices.step(0, due) {
                    0 => {}
                    choice => {
                        self.crash(crashes[choice - 1]);
                        return true;
                    }
                }
            }
            self.worst = true;
            self.tell(Event::WorstCase, None);
        }
        if self.stores == self.stores_at_round {
            self.rounds += 1;
        } else {
            self.rounds = 0;
        }
        self.stores_at_round = self.stores;
        if self.rounds > ROUNDS_MAX {
            let what = self.stuck();
            self.fail(what);
            return false;
        }
        for proc in &mut self.procs[..self.count] {
            if proc.state == State::Waiting {
                proc.state = State::Ready;
            }
        }
        true
    }

    fn stuck(&mut self) -> String {
        let mut what = String::from("a value was never made visible: all wait.");
        for id in 0..self.count {
            let Proc { host, state, looked_at, .. } = self.procs[id];
            if state == State::Waiting {
                let [low, kept, latest] = self.world.interval(host, looked_at);
                what += &format!(
                    " Process {id} on host {} last looked at {looked_at:#x}, of which it may see \
                     versions {low} to {latest} for ever; in the memory for certain is {kept}.",
                    host.0
                );
            }
        }
        what
    }

    /// All that had to end has ended.
    fn finish(&mut self, may_crash: bool) {
        if may_crash
            && (self.after.is_some() || self.crashes.iter().any(|(_, then)| then.is_some()))
        {
            let (crashes, due) = self.crashes_due(false);
            if let Some(choice) = self.choices.step(0, due).checked_sub(1) {
                self.crash(crashes[choice]);
                return self.pick(false);
            }
        }
        for proc in &mut self.procs[..self.count] {
            if proc.state != State::Ended {
                proc.state = State::Dead;
            }
        }
        match self.after.take() {
            Some(host) => {
                self.add(host, Role::Worker);
                self.born.push(Birth::After);
                self.turn_to(self.count - 1);
            }
            None => self.over = true,
        }
    }

    fn wake(&mut self) {
        for proc in &mut self.procs[..self.count] {
            if proc.state == State::Waiting {
                proc.state = State::Ready;
            }
        }
    }
}

const POWER_LOSS: [&str; crate::HOSTS_MAX] = [
    "is interrupted: host 0 loses its power",
    "is interrupted: host 1 loses its power",
    "is interrupted: host 2 loses its power",
    "is interrupted: host 3 loses its power",
];
