//! Rings of single lines between one producer and one consumer: command rings and channels.
//!
//! ```text
//! at       consumer's line: absolute index of the next line it will take. Writer: the consumer
//! at + 64  lines: seven words and a commit word (absolute index + 1). Writer: the producer
//! ```
//!
//! Both indices are in the memory, so either side may die and a successor goes on where it was.

use landfall_layout::command::Body;
use landfall_layout::limits::LINE_BYTES;

use crate::memory::Memory;

/// Where a ring lies.
#[derive(Clone, Copy, Debug)]
pub struct LineRing {
    /// Offset of the consumer's line.
    pub at: u64,
    /// Lines in the ring.
    pub lines: u64,
}

impl LineRing {
    fn line(&self, index: u64) -> u64 {
        self.at + LINE_BYTES + index % self.lines * LINE_BYTES
    }

    fn commit(&self, index: u64) -> u64 {
        self.line(index) + 56
    }
}

/// The writing side.
#[derive(Debug)]
pub struct LineProducer {
    ring: LineRing,
    next: u64,
    /// What the consumer's index was when last looked at; it only grows.
    taken: u64,
}

impl LineProducer {
    /// Goes on after the last line that was committed: at 0 in fresh memory.
    pub fn resume(memory: &impl Memory, ring: LineRing) -> Self {
        memory.refresh(ring.at, LINE_BYTES * (1 + ring.lines));
        let taken = memory.load(ring.at);
        let mut next = taken;
        while next.wrapping_sub(taken) < ring.lines
            && memory.load(ring.commit(next)) == next.wrapping_add(1)
        {
            next = next.wrapping_add(1);
        }
        Self { ring, next, taken }
    }

    /// Puts a line in; false when the ring is full.
    #[must_use = "a full ring took nothing"]
    pub fn push(&mut self, memory: &impl Memory, body: Body) -> bool {
        if self.pending() == self.ring.lines {
            memory.refresh(self.ring.at, LINE_BYTES);
            // EDGE line-taken, acquire half. Pairs with `LineConsumer::pop`: the consumer has
            // copied the line that is written over.
            let taken = memory.load(self.ring.at);
            // The other side may be a stranger's process: what goes back or runs ahead is no
            // index of a consumer, and the ring stays full.
            if self.next.wrapping_sub(taken) >= self.pending() {
                return false;
            }
            self.taken = taken;
        }
        let line = self.ring.line(self.next);
        memory.store_words(line, &body);
        // EDGE line-commit, release half. Pairs with `LineConsumer::pop`.
        self.next = self.next.wrapping_add(1);
        memory.store_release(line + 56, self.next);
        memory.publish(line, LINE_BYTES);
        true
    }

    /// Lines put in and not yet taken, as far as was last seen; never too few.
    pub fn pending(&self) -> u64 {
        self.next.wrapping_sub(self.taken)
    }
}

/// The reading side.
#[derive(Debug)]
pub struct LineConsumer {
    ring: LineRing,
    next: u64,
}

impl LineConsumer {
    /// Goes on at the first line that was not taken: at 0 in fresh memory.
    pub fn resume(memory: &impl Memory, ring: LineRing) -> Self {
        memory.refresh(ring.at, LINE_BYTES);
        Self { ring, next: memory.load(ring.at) }
    }

    /// Whether a line is waiting.
    pub fn is_ready(&self, memory: &impl Memory) -> bool {
        let line = self.ring.line(self.next);
        memory.refresh(line, LINE_BYTES);
        memory.load(line + 56) == self.next.wrapping_add(1)
    }

    /// Takes the next line, if there is one.
    pub fn pop(&mut self, memory: &impl Memory) -> Option<Body> {
        let line = self.ring.line(self.next);
        memory.refresh(line, LINE_BYTES);
        // EDGE line-commit, acquire half. Pairs with `LineProducer::push`.
        if memory.load(line + 56) != self.next.wrapping_add(1) {
            return None;
        }
        let body = memory.load_words(line);
        self.next = self.next.wrapping_add(1);
        // EDGE line-taken, release half. Pairs with `LineProducer::push`.
        memory.store_release(self.ring.at, self.next);
        memory.publish(self.ring.at, LINE_BYTES);
        Some(body)
    }
}
