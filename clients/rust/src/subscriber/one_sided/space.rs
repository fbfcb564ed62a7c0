//! Room for payloads that are on their way: handed out and given back in one order.

/// A ring of bytes.
#[derive(Debug)]
pub(super) struct Space {
    bytes: u64,
    /// Bytes handed out in all, and given back.
    head: u64,
    tail: u64,
}

/// A part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    /// Bytes from the start of the ring.
    pub(super) at: u64,
    /// What to give back when everything before it was.
    pub(super) end: u64,
}

impl Space {
    /// A ring of `bytes` bytes, a multiple of the line.
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, head: 0, tail: 0 }
    }

    /// `bytes` bytes in one piece, rounded up to whole lines. `None`: no room now.
    pub(super) fn take(&mut self, bytes: u64) -> Option<Part> {
        let bytes = bytes.next_multiple_of(64);
        let offset = self.head % self.bytes;
        let skipped = if offset + bytes > self.bytes { self.bytes - offset } else { 0 };
        let start = self.head + skipped;
        let end = start + bytes;
        if self.head == self.tail {
            // Nothing is in use: what is passed over is free as well.
            (self.head, self.tail) = (start, start);
        }
        if bytes > self.bytes || end - self.tail > self.bytes {
            return None;
        }
        self.head = end;
        Some(Part { at: start % self.bytes, end })
    }

    /// Gives back everything up to the end of a part.
    pub(super) fn give_back(&mut self, end: u64) {
        self.tail = self.tail.max(end.min(self.head));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_and_the_end_of_the_ring_is_passed_over() {
        let mut space = Space::new(1024);
        let first = space.take(600).unwrap();
        assert_eq!(first, Part { at: 0, end: 640 });
        let second = space.take(320).unwrap();
        assert_eq!(second, Part { at: 640, end: 960 });
        assert_eq!(space.take(128), None, "the end is too short and the start in use");
        assert_eq!(space.take(64).unwrap(), Part { at: 960, end: 1024 });
        space.give_back(first.end);
        assert_eq!(space.take(640).unwrap(), Part { at: 0, end: 1664 });
        assert_eq!(space.take(64), None);
        space.give_back(1664);
        assert_eq!(space.take(2048), None);
        assert_eq!(space.take(1024).unwrap(), Part { at: 0, end: 3072 }, "nothing is in use");
    }
}
