//! The ring in which a broker tells a client things, from the reader's side.
//!
//! The broker's NIC writes lines and says how many with an immediate. The memory is shared with
//! that NIC, so lines are copied out of it word by word; nothing is lent from it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use landfall_layout::frame::{FRAME_BYTES, Frame, FrameError};
use landfall_layout::limits::LINE_BYTES;
use landfall_layout::verbs::{Arrived, RECEIVES};
use landfall_pool::map::{Backing, MapError, memfd};
use landfall_pool::{Mapping, Memory};

/// Lines that the bytes behind a frame take.
pub(crate) fn lines_of(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(LINE_BYTES)
}

/// Memory of our own that NICs may write to.
pub(crate) fn shared_memory(name: &str, bytes: u64) -> Result<Arc<Mapping>, MapError> {
    let bytes = bytes.next_multiple_of(4096);
    let fd = memfd(name, bytes)?;
    Mapping::new(&fd, bytes, Backing::Shmem, true).map(Arc::new)
}

/// Copies bytes out of memory that a NIC wrote. `at` is a multiple of 8.
#[inline]
pub(crate) fn copy_out(memory: &Mapping, at: u64, into: &mut [u8]) {
    let mut at = at;
    let mut lines = into.chunks_exact_mut(64);
    for line in lines.by_ref() {
        let words: [u64; 8] = memory.load_words(at);
        for (bytes, word) in line.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        at += LINE_BYTES;
    }
    for bytes in lines.into_remainder().chunks_mut(8) {
        let word = memory.load_relaxed(at).to_le_bytes();
        bytes.copy_from_slice(&word[..bytes.len()]);
        at += 8;
    }
}

/// Which lines of a ring hold something. Lines are counted from the first that ever was.
#[derive(Debug)]
pub(crate) struct Cursor {
    lines: u64,
    /// What arrived and was not read. A piece ends where the rest of the ring was passed over.
    pieces: VecDeque<Range<u64>>,
    /// Lines in them.
    ready: u64,
    /// End of what arrived.
    arrived: u64,
    /// Lines that the broker was last told are taken.
    said: u64,
    /// Reads since then: each may have cost the broker one of its arrivals.
    passes: u32,
}

/// Lines arrived where others were not read yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Overrun {
    pub(crate) held: u64,
    pub(crate) lines: u64,
}

impl std::fmt::Display for Overrun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "wrote {} lines into a ring of {}", self.held, self.lines)
    }
}

impl Cursor {
    pub(crate) fn new(lines: u32) -> Self {
        Self {
            lines: lines.into(),
            pieces: VecDeque::with_capacity(4),
            ready: 0,
            arrived: 0,
            said: 0,
            passes: 0,
        }
    }

    /// Lines were written.
    pub(crate) fn arrived(&mut self, arrived: Arrived) -> Result<(), Overrun> {
        let lines = u64::from(arrived.lines);
        let start =
            if arrived.wrapped { self.arrived.next_multiple_of(self.lines) } else { self.arrived };
        let end = start + lines;
        // What was read and not said is the broker's to leave alone, too.
        if end - self.said > self.lines {
            return Err(Overrun { held: end - self.said, lines: self.lines });
        }
        if lines > 0 {
            match self.pieces.back_mut() {
                Some(piece) if piece.end == start => piece.end = end,
                _ => self.pieces.push_back(start..end),
            }
            self.ready += lines;
            self.arrived = end;
        }
        Ok(())
    }

    /// Lines that are there to be read.
    #[inline]
    pub(crate) fn ready(&self) -> u64 {
        self.ready
    }

    /// Lines taken in all, those that were passed over with them.
    pub(crate) fn taken(&self) -> u64 {
        self.pieces.front().map_or(self.arrived, |piece| piece.start)
    }

    /// Whether the broker has to be told how far reading has come. It holds back what does not fit
    /// the ring, and when the receives of small writes would run out: a quarter of either is early
    /// enough for the answer to be there before the rest is used.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.passes >= RECEIVES / 4 || self.taken() - self.said >= self.lines / 4
    }

    /// The broker is told now: the number to say, whose low bits go into the immediate.
    pub(crate) fn say(&mut self) -> u64 {
        self.passes = 0;
        self.said = self.taken();
        self.said
    }

    /// Passes over `lines` lines, which are there.
    pub(crate) fn pass(&mut self, lines: u64) {
        self.passes += 1;
        let mut left = lines.min(self.ready);
        self.ready -= left;
        while left > 0
            && let Some(piece) = self.pieces.front_mut()
        {
            let now = left.min(piece.end - piece.start);
            piece.start += now;
            left -= now;
            if piece.start == piece.end {
                self.pieces.pop_front();
            }
        }
    }

    /// The ring's lines, in pieces without a break, that hold the unread lines from the one that
    /// is `skip` behind the first.
    fn spans(&self, skip: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut skip = skip;
        self.pieces.iter().flat_map(move |piece| {
            let start = (piece.start + skip).min(piece.end);
            skip -= start - piece.start;
            // A piece is no longer than the ring, so it has at most two parts.
            let turn = start.next_multiple_of(self.lines).clamp(start, piece.end);
            let turn = if start % self.lines == 0 { piece.end } else { turn };
            [start..turn, turn..piece.end]
        })
    }
}

/// The ring: its memory, and what is in it.
pub(crate) struct Ring {
    memory: Arc<Mapping>,
    pub(crate) cursor: Cursor,
}

impl Ring {
    /// A ring of `lines` lines, a power of two.
    pub(crate) fn new(lines: u32) -> Result<Self, MapError> {
        let memory = shared_memory("landfall-ring", u64::from(lines) * LINE_BYTES)?;
        Ok(Self { memory, cursor: Cursor::new(lines) })
    }

    /// The memory, to register it.
    pub(crate) fn memory(&self) -> &Arc<Mapping> {
        &self.memory
    }

    /// Bytes of all lines.
    pub(crate) fn bytes(&self) -> u64 {
        self.cursor.lines * LINE_BYTES
    }

    /// Copies what lies `skip` lines behind the first unread one, as far as it has arrived.
    /// Returns how many bytes that are.
    pub(crate) fn copy(&self, skip: u64, into: &mut [u8]) -> usize {
        // The completion that told of these lines was taken before: what follows comes after it.
        self.memory.acquire_fence();
        let mut done = 0;
        for span in self.cursor.spans(skip) {
            let bytes = ((span.end - span.start) * LINE_BYTES) as usize;
            let bytes = bytes.min(into.len() - done);
            let at = span.start % self.cursor.lines * LINE_BYTES;
            copy_out(&self.memory, at, &mut into[done..done + bytes]);
            done += bytes;
            if done == into.len() {
                break;
            }
        }
        done
    }

    /// The frame in the first unread line, and the bytes of text behind it, once all of that is
    /// there. It stays there until it is passed.
    #[inline]
    pub(crate) fn frame(&self) -> Result<Option<(Frame, usize)>, FrameError> {
        if self.cursor.ready() == 0 {
            return Ok(None);
        }
        let mut line = [0; FRAME_BYTES];
        self.copy(0, &mut line);
        let (frame, tail) = Frame::decode(line)?;
        Ok((self.cursor.ready() > lines_of(tail)).then_some((frame, tail)))
    }

    /// The text behind the first unread line.
    pub(crate) fn text(&self, bytes: usize) -> Vec<u8> {
        let mut text = vec![0; bytes];
        let got = self.copy(1, &mut text);
        text.truncate(got);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(wrapped: bool, lines: u32) -> Arrived {
        Arrived { wrapped, lines }
    }

    /// Writes a line as a broker's NIC would.
    fn put(ring: &Ring, line: u64, value: u64) {
        let at = line % ring.cursor.lines * LINE_BYTES;
        ring.memory.store_words(at, &[value; 8]);
    }

    #[test]
    fn lines_are_read_in_the_order_they_came_across_the_end() {
        let mut ring = Ring::new(8).unwrap();
        for line in 0..6 {
            put(&ring, line, line);
        }
        ring.cursor.arrived(arrived(false, 2)).unwrap();
        ring.cursor.arrived(arrived(false, 4)).unwrap();
        assert_eq!((ring.cursor.ready(), ring.cursor.pieces.len()), (6, 1));
        ring.cursor.pass(5);
        assert!(ring.cursor.is_due());
        assert_eq!(ring.cursor.say(), 5);
        // Two fill the end, two more begin at the start: nothing was passed over.
        for line in 6..10 {
            put(&ring, line, line);
        }
        ring.cursor.arrived(arrived(false, 2)).unwrap();
        ring.cursor.arrived(arrived(false, 2)).unwrap();
        let mut bytes = [0; 5 * 64];
        assert_eq!(ring.copy(0, &mut bytes), bytes.len());
        for (n, line) in bytes.chunks(64).enumerate() {
            assert_eq!(line[0], n as u8 + 5);
        }
        assert_eq!(ring.copy(4, &mut bytes), 64);
        assert_eq!(bytes[0], 9);
    }

    #[test]
    fn what_is_passed_over_at_the_end_counts_as_taken() {
        let mut ring = Ring::new(8).unwrap();
        ring.cursor.arrived(arrived(false, 6)).unwrap();
        ring.cursor.pass(4);
        assert_eq!(ring.cursor.say(), 4);
        ring.cursor.arrived(arrived(true, 3)).unwrap();
        put(&ring, 8, 80);
        assert_eq!((ring.cursor.ready(), ring.cursor.taken()), (5, 4));
        ring.cursor.pass(2);
        assert_eq!(ring.cursor.taken(), 8, "the two lines at the end too");
        let mut line = [0; 64];
        assert_eq!(ring.copy(0, &mut line), 64);
        assert_eq!(line[0], 80);
        ring.cursor.pass(3);
        assert_eq!((ring.cursor.taken(), ring.cursor.ready()), (11, 0));
        // At the very end there is nothing to pass over.
        ring.cursor.say();
        ring.cursor.arrived(arrived(false, 5)).unwrap();
        ring.cursor.arrived(arrived(true, 1)).unwrap();
        assert_eq!((ring.cursor.ready(), ring.cursor.taken()), (6, 11));
    }

    #[test]
    fn many_small_reads_are_told_long_before_the_ring_is_full() {
        let mut cursor = Cursor::new(1 << 20);
        for n in 1..=RECEIVES / 4 {
            assert!(!cursor.is_due(), "after {n}");
            cursor.arrived(arrived(false, 1)).unwrap();
            cursor.pass(1);
        }
        assert!(cursor.is_due());
        assert_eq!(cursor.say(), u64::from(RECEIVES / 4));
        assert!(!cursor.is_due());
    }

    #[test]
    fn a_broker_that_writes_over_what_was_not_taken_is_noticed() {
        let mut cursor = Cursor::new(8);
        cursor.arrived(arrived(false, 8)).unwrap();
        assert_eq!(cursor.arrived(arrived(false, 1)), Err(Overrun { held: 9, lines: 8 }));
        cursor.pass(8);
        assert!(cursor.arrived(arrived(false, 1)).is_err(), "it was not told yet");
        cursor.say();
        cursor.arrived(arrived(false, 1)).unwrap();
        assert_eq!(cursor.arrived(arrived(false, 0)), Ok(()), "a sign of life");
    }

    #[test]
    fn a_frame_is_there_when_its_text_is() {
        let mut ring = Ring::new(8).unwrap();
        assert_eq!(ring.frame(), Ok(None));
        let text = "seventy bytes, that is two lines of the ring, the second of them not full";
        let head = Frame::CaughtUp.encode(text.len());
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(192, 0);
        for (n, word) in bytes.chunks(8).enumerate() {
            let word = u64::from_le_bytes(word.try_into().unwrap());
            ring.memory.store(8 * n as u64, word);
        }
        ring.cursor.arrived(arrived(false, 2)).unwrap();
        assert_eq!(ring.frame(), Ok(None), "a line is missing");
        ring.cursor.arrived(arrived(false, 1)).unwrap();
        assert_eq!(ring.frame(), Ok(Some((Frame::CaughtUp, text.len()))));
        assert_eq!(ring.text(text.len()), text.as_bytes());
    }

    #[test]
    fn odd_lengths_are_copied_to_the_byte() {
        let memory = shared_memory("test", 4096).unwrap();
        for word in 0..512_u64 {
            memory.store(8 * word, 0x0706_0504_0302_0100 + 0x0808_0808_0808_0808 * (word % 31));
        }
        let expected: Vec<u8> = (0..512_u64)
            .flat_map(|word| {
                (0x0706_0504_0302_0100 + 0x0808_0808_0808_0808 * (word % 31)).to_le_bytes()
            })
            .collect();
        for bytes in [0, 1, 7, 8, 63, 64, 65, 200, 1000] {
            let mut into = vec![0; bytes];
            copy_out(&memory, 128, &mut into);
            assert_eq!(into, expected[128..128 + bytes]);
        }
    }
}
