//! The `Memory` of the models: loom's atomics, and what may be weakened in it.

use std::collections::BTreeMap;

use landfall_pool::Memory;
use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// One thing that the memory does worse than the protocol asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weak {
    /// Nothing: the protocol as it is.
    Nothing,
    /// Release stores to this word are relaxed.
    Release(u64),
    /// Acquire loads of this word are relaxed.
    Acquire(u64),
    /// Full fences do nothing.
    FullFence,
    /// Acquire fences do nothing.
    AcquireFence,
    /// Release fences do nothing.
    ReleaseFence,
}

/// Words that take part in a model. Words that do not are zero for ever, which keeps the number of
/// schedules small.
pub struct Model {
    words: BTreeMap<u64, AtomicU64>,
    /// Touched with every access of a stepped memory.
    steps: Option<AtomicU64>,
    weak: Weak,
}

impl Model {
    /// Memory with zeros at these offsets.
    pub fn new(weak: Weak, offsets: impl IntoIterator<Item = u64>) -> Self {
        let words = offsets.into_iter().map(|at| (at, AtomicU64::new(0))).collect();
        Self { words, steps: None, weak }
    }

    /// The same, every access also touching one more word. Loom compares an access only with the
    /// last one to the same word, so a thread that loads what it stores hides the other thread's
    /// load from it; through that word every two accesses are compared. It is relaxed, so it
    /// orders nothing by itself; but fences would order through it, so models with fences do
    /// without, and load nothing that they store.
    pub fn stepped(weak: Weak, offsets: impl IntoIterator<Item = u64>) -> Self {
        Self { steps: Some(AtomicU64::new(0)), ..Self::new(weak, offsets) }
    }

    fn word(&self, at: u64) -> Option<&AtomicU64> {
        let word = self.words.get(&at)?;
        if let Some(steps) = &self.steps {
            steps.fetch_add(1, Ordering::Relaxed);
        }
        Some(word)
    }

    fn ordered(&self, weak: Weak, strong: Ordering) -> Ordering {
        if self.weak == weak { Ordering::Relaxed } else { strong }
    }
}

impl Memory for Model {
    fn load(&self, at: u64) -> u64 {
        let order = self.ordered(Weak::Acquire(at), Ordering::Acquire);
        self.word(at).map_or(0, |word| word.load(order))
    }

    fn load_relaxed(&self, at: u64) -> u64 {
        self.word(at).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn store(&self, at: u64, value: u64) {
        if let Some(word) = self.word(at) {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn store_release(&self, at: u64, value: u64) {
        let order = self.ordered(Weak::Release(at), Ordering::Release);
        if let Some(word) = self.word(at) {
            word.store(value, order);
        }
    }

    fn full_fence(&self) {
        if self.weak != Weak::FullFence {
            fence(Ordering::SeqCst);
        }
    }

    fn acquire_fence(&self) {
        if self.weak != Weak::AcquireFence {
            fence(Ordering::Acquire);
        }
    }

    fn release_fence(&self) {
        if self.weak != Weak::ReleaseFence {
            fence(Ordering::Release);
        }
    }

    fn flushes(&self) -> bool {
        false
    }
    fn write_back(&self, _: u64, _: u64) {}
    fn after_write_back(&self) {}
    fn invalidate(&self, _: u64, _: u64) {}
    fn after_invalidate(&self) {}
}

/// Runs a model over every schedule with at most this many preemptions.
pub fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
