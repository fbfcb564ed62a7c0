//! What a process does to the memory when it is its turn.

use crate::schedule::{Run, State, Step};
use crate::trace::Event;
use crate::world::{Dma, Violation};

impl Run {
    /// Whether processes of one host may share what is at `at`.
    pub(crate) fn is_shared(&self, at: u64) -> bool {
        self.shared.is_empty() || self.shared.iter().any(|(from, to)| (*from..*to).contains(&at))
    }

    /// Finds lines that processes of one host share and nobody said so.
    #[inline]
    fn check_sharing(&mut self, at: u64, stores: bool) {
        let proc = &self.procs[self.current];
        if proc.neighbours != 0 && !self.shared.is_empty() && !self.is_shared(at) {
            let others = self.world.note(at, 1 << self.current, stores) & proc.neighbours;
            if others != 0 {
                self.fail(format!(
                    "processes of one host share {at:#x} and the plan does not say so (of the \
                     others there, bits {others:#b})"
                ));
            }
        }
    }

    #[inline]
    fn stored(&mut self) {
        self.stores += 1;
        let current = self.current;
        self.procs[current].acted = true;
        self.procs[current].stores += 1;
        for (id, proc) in self.procs[..self.count].iter_mut().enumerate() {
            if proc.state == State::Waiting && id != current {
                proc.state = State::Ready;
            }
        }
    }

    /// A line whose writer lost its power is settled before it is used.
    #[inline]
    fn settle(&mut self, at: u64, stores: bool) {
        self.check_sharing(at, stores);
        if self.crashed.is_some() {
            let versions = self.world.lost_versions(at);
            if versions > 1 {
                let age = if self.worst { 0 } else { self.choices.value(versions) };
                self.world.settle(at, age);
            }
        }
    }

    #[inline]
    pub(crate) fn load(&mut self, at: u64) -> u64 {
        self.settle(at, false);
        let current = self.current;
        self.procs[current].looked_at = at;
        let host = self.procs[current].host;
        let Self { world, choices, worst, .. } = self;
        let shown = world.load(host, at, |of| if *worst { of - 1 } else { choices.value(of) });
        self.tell(Event::Load { at, value: shown.value, stale: shown.stale }, None);
        shown.value
    }

    #[inline]
    pub(crate) fn store(&mut self, at: u64, value: u64) -> Result<(), Violation> {
        self.settle(at, true);
        self.stored();
        self.tell(Event::Store { at, value }, None);
        self.world.store(self.procs[self.current].host, at, value)
    }

    pub(crate) fn dma(&mut self, how: Dma, at: u64, value: u64) -> Result<(), Violation> {
        self.settle(at, true);
        self.stored();
        self.tell(Event::Dma { at, value }, None);
        self.world.dma(self.procs[self.current].host, how, at, value)
    }

    #[inline]
    pub(crate) fn write_back(&mut self, line: u64) {
        let proc = &mut self.procs[self.current];
        self.world.write_back(proc.host, line, &mut proc.moving);
    }

    #[inline]
    pub(crate) fn invalidate(&mut self, line: u64) {
        self.settle(line, false);
        let proc = &mut self.procs[self.current];
        proc.acted = true;
        self.world.invalidate(proc.host, line, &mut proc.moving);
    }

    /// Whether a fence would wait for anything that others could notice.
    #[inline]
    pub(crate) fn fence_step(&self) -> Step {
        let proc = &self.procs[self.current];
        if proc.moving.iter().any(|moved| moved.is_out()) { Step::Fence } else { Step::Quiet }
    }

    #[inline]
    pub(crate) fn fence(&mut self, out_only: bool) -> Result<(), Violation> {
        let proc = &mut self.procs[self.current];
        self.world.fence(proc.host, &mut proc.moving, out_only)
    }
}
