//! What is explored.

use std::cell::RefCell;

use landfall_pool::Memory;

use crate::process::Process;
use crate::schedule::Run;
use crate::{HOSTS_MAX, HostId, PROCESSES_MAX};

/// A program of one process.
pub(crate) type Body = Box<dyn FnOnce(&Process<'_>)>;

/// A scenario: the memory it begins with, and what runs on it.
#[derive(Clone, Copy)]
pub struct Scenario<'a> {
    /// Its name.
    pub name: &'a str,
    /// Writes the memory as every run finds it, once.
    pub image: &'a dyn Fn(&Image<'_>),
    /// Says what runs, anew for each run. It must not differ from run to run.
    pub plan: &'a dyn Fn(&mut Plan),
}

/// Names a process of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId(pub(crate) usize);

/// What may happen once in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// A process is killed. What it stored stays stored.
    Kill(ProcessId),
    /// A host loses its power: its processes are gone, and so may be what was only in its cache.
    PowerLoss(HostId),
}

/// Whether a run waits for a process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Worker,
    Server,
}

/// What runs in one run.
#[derive(Default)]
pub struct Plan {
    pub(crate) processes: Vec<(HostId, Role, Body)>,
    pub(crate) crashes: Vec<(Crash, Option<(HostId, Body)>)>,
    pub(crate) after: Option<(HostId, Body)>,
    pub(crate) everywhere: bool,
    pub(crate) coherent: Option<(u64, u64)>,
    pub(crate) shared: Vec<(u64, u64)>,
}

impl Plan {
    /// A process on a host, which runs to its end.
    pub fn process(
        &mut self,
        host: HostId,
        body: impl FnOnce(&Process<'_>) + 'static,
    ) -> ProcessId {
        self.add(host, Role::Worker, Box::new(body))
    }

    /// A process that may wait for ever; it is stopped when all others have ended.
    pub fn server(&mut self, host: HostId, body: impl FnOnce(&Process<'_>) + 'static) -> ProcessId {
        self.add(host, Role::Server, Box::new(body))
    }

    fn add(&mut self, host: HostId, role: Role, body: Body) -> ProcessId {
        assert!(host.index() < HOSTS_MAX, "host {} of {HOSTS_MAX}", host.0);
        assert!(self.processes.len() < PROCESSES_MAX - 2, "over {PROCESSES_MAX} processes");
        self.processes.push((host, role, body));
        ProcessId(self.processes.len() - 1)
    }

    /// Lets one crash happen at any step of a run, or none. One of several if this is called
    /// again.
    pub fn crash(&mut self, crash: Crash) {
        self.crashes.push((crash, None));
    }

    /// Lets a crash happen, after which `recovery` is started on `host`.
    pub fn crash_then(
        &mut self,
        crash: Crash,
        host: HostId,
        recovery: impl FnOnce(&Process<'_>) + 'static,
    ) {
        assert!(host.index() < HOSTS_MAX, "host {} of {HOSTS_MAX}", host.0);
        self.crashes.push((crash, Some((host, Box::new(recovery)))));
    }

    /// A process that is started when all others have ended.
    pub fn after(&mut self, host: HostId, body: impl FnOnce(&Process<'_>) + 'static) {
        assert!(host.index() < HOSTS_MAX, "host {} of {HOSTS_MAX}", host.0);
        self.after = Some((host, Box::new(body)));
    }

    /// Makes hardware keep `from..to` coherent between hosts.
    pub fn keep_coherent(&mut self, from: u64, to: u64) {
        self.coherent = Some((from, to));
    }

    /// Says that of all memory processes of one host share only `from..to`, and what else was said
    /// so. A run that finds this wrong fails. Without it they may share anything, and there are
    /// many more schedules.
    pub fn share(&mut self, from: u64, to: u64) {
        self.shared.push((from, to));
    }

    /// Lets processes be switched at every operation, also where it can make no difference. For
    /// checking that it makes none.
    pub fn switch_everywhere(&mut self) {
        self.everywhere = true;
    }
}

/// The memory before a run begins: a plain one, to write it with the protocols' own code.
#[derive(Clone, Copy)]
pub struct Image<'a>(pub(crate) &'a RefCell<Run>);

impl Memory for Image<'_> {
    fn load(&self, at: u64) -> u64 {
        self.0.borrow().world.image(at)
    }
    fn load_relaxed(&self, at: u64) -> u64 {
        self.load(at)
    }
    fn store(&self, at: u64, value: u64) {
        self.0.borrow_mut().world.set_image(at, value);
    }
    fn store_release(&self, at: u64, value: u64) {
        self.store(at, value);
    }
    fn full_fence(&self) {}
    fn flushes(&self) -> bool {
        false
    }
    fn write_back(&self, _at: u64, _bytes: u64) {}
    fn after_write_back(&self) {}
    fn invalidate(&self, _at: u64, _bytes: u64) {}
    fn after_invalidate(&self) {}
}
