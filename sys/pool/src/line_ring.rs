//! Rings of single lines between one producer and one consumer: command rings and channels.
//!
//! The consumer's line has the absolute index of the next line it will take. A ring's lines have
//! seven words and a commit word (absolute index + 1), and belong to the producer. Both indices are
//! in the memory, so either side may die and a successor goes on where it was.

use landfall_layout::command::Body;
use landfall_layout::limits::LINE_BYTES;

use crate::memory::Memory;

/// Where a ring lies.
#[derive(Clone, Copy, Debug)]
pub struct LineRing {
    /// Offset of the consumer's line.
    pub taken_at: u64,
    /// Offset of the first line.
    pub at: u64,
    /// Lines in the ring, a power of two.
    pub lines: u64,
}

impl LineRing {
    /// A ring whose consumer's line lies right in front of its lines.
    pub const fn behind(at: u64, lines: u64) -> Self {
        Self { taken_at: at, at: at + LINE_BYTES, lines }
    }

    fn line(&self, index: u64) -> u64 {
        self.at + index % self.lines * LINE_BYTES
    }

    fn commit(&self, index: u64) -> u64 {
        self.line(index) + 56
    }
}

/// The commit word of a line that is being written: no index that a ring comes to.
const UNDONE: u64 = u64::MAX / 2;

/// How far ahead of `index` the index behind the newest line of a ring is.
fn ahead(memory: &impl Memory, ring: &LineRing, index: u64) -> u64 {
    let behind = |line: u64| {
        let next = memory.load(ring.commit(line));
        let is_its_own = next.wrapping_sub(1) % ring.lines == line;
        // What is no index of this ring, or far behind, is not ahead.
        let ahead = next.wrapping_sub(index);
        if is_its_own && ahead < 1 << 32 { ahead } else { 0 }
    };
    (0..ring.lines).map(behind).max().unwrap_or_default()
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
        memory.refresh(ring.taken_at, LINE_BYTES);
        memory.refresh(ring.at, LINE_BYTES * ring.lines);
        // An earlier producer on this host may have died before it wrote a line back.
        memory.publish(ring.at, LINE_BYTES * ring.lines);
        let taken = memory.load(ring.taken_at);
        let mut next = taken;
        while next.wrapping_sub(taken) < ring.lines
            && memory.load(ring.commit(next)) == next.wrapping_add(1)
        {
            next = next.wrapping_add(1);
        }
        let ahead = ahead(memory, &ring, taken);
        let is_undone = memory.load(ring.commit(taken)) == UNDONE;
        if next == taken && (ahead > ring.lines || is_undone && ahead > 0) {
            // The consumer's word is late: another consumer had taken more.
            next = taken.wrapping_add(ahead);
            let passed = ahead.saturating_sub(ring.lines);
            return Self { ring, next, taken: taken.wrapping_add(passed) };
        }
        Self { ring, next, taken }
    }

    /// Begins at `first`, whatever an earlier producer of this ring left: a consumer that comes to
    /// this ring begins there too, with [`LineConsumer::begin`].
    pub fn begin(ring: LineRing, first: u64) -> Self {
        Self { ring, next: first, taken: first }
    }

    /// Goes on in the same lines, whose consumer says elsewhere what it has taken.
    pub fn heed(&mut self, memory: &impl Memory, taken_at: u64) {
        self.ring.taken_at = taken_at;
        memory.refresh(taken_at, LINE_BYTES);
        // Another consumer may be behind the one before it; what that one had taken, it passes
        // over.
        let taken = memory.load(taken_at);
        if self.next.wrapping_sub(taken) <= self.ring.lines {
            self.taken = taken;
        }
    }

    /// Puts a line in; false when the ring is full.
    #[must_use = "a full ring took nothing"]
    pub fn push(&mut self, memory: &impl Memory, body: Body) -> bool {
        if self.pending() >= self.ring.lines {
            memory.refresh(self.ring.taken_at, LINE_BYTES);
            // EDGE line-taken, acquire half. Pairs with `LineConsumer::pop`: the consumer has
            // copied the line that is written over.
            let taken = memory.load(self.ring.taken_at);
            // The other side may be a stranger's process: what goes back or runs ahead is no
            // index of a consumer, and the ring stays full.
            if self.next.wrapping_sub(taken) >= self.pending() {
                return false;
            }
            self.taken = taken;
        }
        let line = self.ring.line(self.next);
        // A consumer that comes while another is heeded may be reading the line that is written
        // over. It finds that out by this: the words that follow are seen only with it.
        memory.store(line + 56, UNDONE);
        memory.release_fence();
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
        memory.refresh(ring.taken_at, LINE_BYTES);
        Self { ring, next: memory.load(ring.taken_at) }
    }

    /// Comes to a ring that begins at `first`, or goes on in it after what was taken.
    pub fn begin(memory: &impl Memory, ring: LineRing, first: u64) -> Self {
        memory.refresh(ring.taken_at, LINE_BYTES);
        Self { ring, next: memory.load(ring.taken_at).max(first) }
    }

    /// Passes over what the producer has written over already, when an earlier consumer's word
    /// that it was taken reached the producer and not this one.
    pub fn catch_up(&mut self, memory: &impl Memory) {
        memory.refresh(self.ring.at, LINE_BYTES * self.ring.lines);
        let ahead = ahead(memory, &self.ring, self.next);
        let mut passed = ahead.saturating_sub(self.ring.lines);
        if passed == 0 && ahead > 0 {
            // With newer lines there, one that is being written is being written over.
            memory.refresh(self.ring.line(self.next), LINE_BYTES);
            passed = u64::from(memory.load(self.ring.commit(self.next)) == UNDONE);
        }
        self.next = self.next.wrapping_add(passed);
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
        let commit = memory.load(line + 56);
        let ahead = commit.wrapping_sub(self.next.wrapping_add(1));
        if ahead > 0 {
            if ahead < 1 << 32 || commit == UNDONE {
                self.catch_up(memory);
            }
            return None;
        }
        let body = memory.load_words(line);
        memory.acquire_fence();
        if memory.load_relaxed(line + 56) != self.next.wrapping_add(1) {
            return None;
        }
        self.next = self.next.wrapping_add(1);
        // EDGE line-taken, release half. Pairs with `LineProducer::push`.
        memory.store_release(self.ring.taken_at, self.next);
        memory.publish(self.ring.taken_at, LINE_BYTES);
        Some(body)
    }
}
