//! The memory as one process on one host sees it.

use std::cell::RefCell;
use std::panic::Location;

use corosensei::Yielder;
use landfall_pool::Memory;
use landfall_pool::memory::lines_of;

use crate::HostId;
use crate::schedule::{Run, Step};
use crate::site::Kind;
use crate::trace::Event;
use crate::world::{Dma, Violation};

/// Where a fence is: no place that anybody shares.
const NOWHERE: u64 = u64::MAX;

/// One process on one host. It is the [`Memory`] of that process's code.
#[derive(Clone, Copy)]
pub struct Process<'a> {
    run: &'a RefCell<Run>,
    yielder: &'a Yielder<(), ()>,
    id: usize,
}

impl<'a> Process<'a> {
    pub(crate) fn new(run: &'a RefCell<Run>, yielder: &'a Yielder<(), ()>, id: usize) -> Self {
        Self { run, yielder, id }
    }

    /// The host it runs on.
    pub fn host(&self) -> HostId {
        self.run.borrow().host_of(self.id)
    }

    /// Waits until another process has stored something: to be called when there was nothing to
    /// do, or the run never ends.
    pub fn wait(&self) {
        if self.is_over() {
            return;
        }
        self.run.borrow_mut().wait();
        self.yielder.suspend(());
    }

    /// Waits until `look` finds something.
    pub fn wait_for<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            if let Some(found) = look() {
                return found;
            }
            self.wait();
        }
    }

    /// Whether there was a crash in this run, as nobody in a real system could know.
    pub fn has_crashed(&self) -> bool {
        self.run.borrow().crashed.is_some()
    }

    /// A NIC of this host writes words.
    pub fn dma(&self, how: Dma, at: u64, words: &[u64]) {
        for (i, word) in words.iter().enumerate() {
            let at = at + 8 * i as u64;
            self.act(Step::Store, at, |run| run.dma(how, at, *word));
        }
    }

    /// Memory operations in a destructor do nothing: the process that unwinds is dead, and in a
    /// test that failed its message is what counts.
    #[inline]
    fn is_over(&self) -> bool {
        self.run.borrow().is_dead(self.id) || std::thread::panicking()
    }

    /// Lets others go first if it is their turn, then acts.
    #[inline]
    fn act<T: Default>(
        &self,
        step: Step,
        at: u64,
        act: impl FnOnce(&mut Run) -> Result<T, Violation>,
    ) -> T {
        let mut run = self.run.borrow_mut();
        if run.is_dead(self.id) {
            return T::default();
        }
        if run.before(step, at) {
            drop(run);
            self.yielder.suspend(());
            run = self.run.borrow_mut();
        }
        match act(&mut run) {
            Ok(value) => value,
            Err(violation) => {
                run.fail(violation.to_string());
                drop(run);
                // The run ends here, and with it this process.
                self.yielder.suspend(());
                T::default()
            }
        }
    }

    /// Whether the site at `place` is there, in this run.
    #[inline]
    fn has(&self, place: &'static Location<'static>, kind: Kind) -> bool {
        !self.run.borrow_mut().is_deleted(place, kind)
    }

    fn start_write_back(&self, place: &'static Location<'static>, at: u64, bytes: u64) {
        if self.has(place, Kind::WriteBack) {
            self.act(Step::Quiet, at, |run| {
                run.tell(Event::Moved { what: "write back", at, bytes }, Some(place));
                lines_of(at, bytes).for_each(|line| run.write_back(line));
                Ok(())
            });
        }
    }

    fn start_invalidate(&self, place: &'static Location<'static>, at: u64, bytes: u64) {
        if self.has(place, Kind::Invalidate) {
            self.act(Step::Quiet, at, |run| {
                run.tell(Event::Moved { what: "invalidate", at, bytes }, Some(place));
                lines_of(at, bytes).for_each(|line| run.invalidate(line));
                Ok(())
            });
        }
    }

    fn fence(&self, place: &'static Location<'static>, kind: Kind) {
        if self.has(place, kind) {
            let step = self.run.borrow().fence_step();
            self.act(step, NOWHERE, |run| {
                let out_only = kind == Kind::WriteBackFence;
                let what = if out_only { "write-back fence" } else { "invalidate fence" };
                run.tell(Event::Fence { what }, Some(place));
                run.fence(out_only)
            });
        }
    }
}

impl Memory for Process<'_> {
    #[inline]
    fn load(&self, at: u64) -> u64 {
        self.act(Step::Load, at, |run| Ok(run.load(at)))
    }

    #[inline]
    fn load_relaxed(&self, at: u64) -> u64 {
        self.load(at)
    }

    #[inline]
    fn store(&self, at: u64, value: u64) {
        self.act(Step::Store, at, |run| run.store(at, value));
    }

    #[inline]
    fn store_release(&self, at: u64, value: u64) {
        self.store(at, value);
    }

    /// Orders nothing here: within a host the model is sequentially consistent, and lines on their
    /// way are no business of this fence.
    fn full_fence(&self) {
        if self.has(Location::caller(), Kind::FullFence) {
            self.act(Step::Quiet, NOWHERE, |run| {
                run.tell(Event::Fence { what: "full fence" }, Some(Location::caller()));
                Ok(())
            });
        }
    }

    fn acquire_fence(&self) {}

    fn release_fence(&self) {}

    fn flushes(&self) -> bool {
        true
    }

    fn write_back(&self, at: u64, bytes: u64) {
        self.start_write_back(Location::caller(), at, bytes);
    }

    fn after_write_back(&self) {
        self.fence(Location::caller(), Kind::WriteBackFence);
    }

    fn invalidate(&self, at: u64, bytes: u64) {
        self.start_invalidate(Location::caller(), at, bytes);
    }

    fn after_invalidate(&self) {
        self.fence(Location::caller(), Kind::InvalidateFence);
    }

    fn publish(&self, at: u64, bytes: u64) {
        let place = Location::caller();
        self.start_write_back(place, at, bytes);
        self.fence(place, Kind::WriteBackFence);
    }

    fn refresh(&self, at: u64, bytes: u64) {
        let place = Location::caller();
        self.start_invalidate(place, at, bytes);
        self.fence(place, Kind::InvalidateFence);
    }
}
