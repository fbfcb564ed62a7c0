//! What a broker knows of a client's ring: what it has written there and what the client took.

use std::collections::VecDeque;

use landfall_layout::verbs::{RECEIVES, UnknownImmediate, taken_in_all};

/// Immediates that may be on their way: a few receives are left for what needs no room.
const ARRIVALS_MAX: usize = RECEIVES as usize - 16;

/// The ring in a client's memory, from the writer's side.
#[derive(Debug)]
pub struct ClientRing {
    lines: u64,
    written: u64,
    taken: u64,
    /// Where each write ended that the client may not have taken. Each cost one of its receives.
    arrivals: VecDeque<u64>,
}

/// Where lines go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot {
    /// Line of the ring.
    pub line: u32,
    /// They begin at the start, and what was left at the end is passed over.
    pub wrapped: bool,
    /// How many.
    pub lines: u32,
}

impl ClientRing {
    /// An empty ring of `lines` lines, a power of two.
    pub fn new(lines: u32) -> Self {
        Self {
            lines: lines.into(),
            written: 0,
            taken: 0,
            arrivals: VecDeque::with_capacity(ARRIVALS_MAX),
        }
    }

    /// Room for `lines` lines one behind the other.
    pub fn place(&self, lines: u32) -> Option<Spot> {
        let at = self.written % self.lines;
        let to_end = self.lines - at;
        let wrapped = u64::from(lines) > to_end;
        let skipped = if wrapped { to_end } else { 0 };
        let used = self.written - self.taken;
        let fits = used + skipped + u64::from(lines) <= self.lines;
        (fits && self.arrivals.len() < ARRIVALS_MAX).then_some(Spot {
            line: if wrapped { 0 } else { at as u32 },
            wrapped,
            lines,
        })
    }

    /// Room for some of `lines` lines that need not stay together, without passing any over.
    pub fn place_some(&self, lines: u32) -> Option<Spot> {
        let at = self.written % self.lines;
        let free = self.lines - (self.written - self.taken);
        let lines = u64::from(lines).min(self.lines - at).min(free) as u32;
        (lines > 0 && self.arrivals.len() < ARRIVALS_MAX).then_some(Spot {
            line: at as u32,
            wrapped: false,
            lines,
        })
    }

    /// The lines of a spot were written.
    pub fn wrote(&mut self, spot: Spot) {
        if spot.wrapped {
            self.written = self.written.next_multiple_of(self.lines);
        }
        self.written += u64::from(spot.lines);
        self.arrivals.push_back(self.written);
    }

    /// The client says how many lines it has taken in all, in low bits.
    ///
    /// # Errors
    ///
    /// More than were ever written: the immediate `raw` is a lie.
    pub fn took(&mut self, low: u32, raw: u32) -> Result<(), UnknownImmediate> {
        self.taken = taken_in_all(self.taken, low, self.written).ok_or(UnknownImmediate(raw))?;
        while self.arrivals.front().is_some_and(|end| *end <= self.taken) {
            self.arrivals.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_behind_each_other_until_the_ring_is_full() {
        let mut ring = ClientRing::new(8);
        for line in [0, 3] {
            let spot = ring.place(3).unwrap();
            assert_eq!(spot, Spot { line, wrapped: false, lines: 3 });
            ring.wrote(spot);
        }
        assert_eq!(ring.place(3), None, "two are left, and the start is not free");
        ring.took(3, 0).unwrap();
        assert_eq!(ring.place(3), Some(Spot { line: 0, wrapped: true, lines: 3 }));
        assert_eq!(ring.place(4), None, "the two at the end are lost");
        let spot = ring.place(3).unwrap();
        ring.wrote(spot);
        assert_eq!(ring.place(1), None, "full to the last line");
        ring.took(11, 0).unwrap();
        assert_eq!(ring.place(5), Some(Spot { line: 3, wrapped: false, lines: 5 }));
    }

    #[test]
    fn lines_that_need_not_stay_together_fill_the_end_first() {
        let mut ring = ClientRing::new(8);
        ring.wrote(ring.place(6).unwrap());
        assert_eq!(ring.place_some(5), Some(Spot { line: 6, wrapped: false, lines: 2 }));
        ring.wrote(ring.place_some(5).unwrap());
        assert_eq!(ring.place_some(5), None);
        ring.took(2, 0).unwrap();
        assert_eq!(ring.place_some(5), Some(Spot { line: 0, wrapped: false, lines: 2 }));
    }

    #[test]
    fn a_client_that_took_more_than_there_was_lies() {
        let mut ring = ClientRing::new(8);
        ring.wrote(ring.place(2).unwrap());
        assert_eq!(ring.took(3, 9), Err(UnknownImmediate(9)));
        assert_eq!(ring.took(2, 9), Ok(()));
        assert!(ring.took(1, 9).is_err(), "nor does the count go back");
    }

    #[test]
    fn small_writes_stop_before_the_receives_run_out() {
        let mut ring = ClientRing::new(1 << 16);
        for _ in 0..ARRIVALS_MAX {
            ring.wrote(ring.place(1).unwrap());
        }
        assert_eq!((ring.place(1), ring.place_some(1)), (None, None));
        ring.took(1, 0).unwrap();
        assert!(ring.place(1).is_some());
    }
}
