//! Which sequences of a session of order `stream` are in the log.
//!
//! Batches of one client come through several brokers, and one that never landed comes again
//! through another broker than before: that a higher sequence was ordered proves nothing. So a
//! duplicate is a sequence that is known to be in the log, and nothing else. What is known is kept
//! as a *floor*, with everything below it in the log, and a bit for each sequence between it and
//! the highest. A gap further than the window below the highest is given up: whether what is below
//! is in the log is not known from then on.

use landfall_layout::limits::STREAM_WINDOW;

use super::session::Session;

/// What is known of a sequence that is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// It was not in the log, and is now.
    New,
    /// It is in the log.
    InLog,
    /// Nothing: it was given up.
    Forgotten,
}

/// Bits of the sequences between a session's floor and its next one; all others are 0.
#[derive(Debug)]
pub(super) struct Window {
    bits: [u64; (STREAM_WINDOW / 64) as usize],
    /// Below this nothing is known. From here up to the floor everything is in the log.
    pub known_from: u64,
    /// Bits that are set.
    pub had: u16,
}

impl Window {
    /// The window of a session that has nothing in the log.
    pub fn new() -> Self {
        Self { bits: [0; (STREAM_WINDOW / 64) as usize], known_from: 0, had: 0 }
    }

    /// Begins where a line says, as far as one can be believed that was being changed.
    pub fn begin(&mut self, session: &mut Session, next_seq: u64, floor: u64, known_from: u64) {
        self.bits.fill(0);
        self.had = 0;
        let next_seq = next_seq.max(floor).max(known_from);
        let oldest = next_seq.saturating_sub(STREAM_WINDOW);
        self.known_from = if floor < oldest { oldest } else { known_from };
        session.next_seq = next_seq;
        session.behind = (next_seq - floor.max(self.known_from)) as u16;
    }

    /// Puts a sequence into the log, if it is not there.
    pub fn take(&mut self, session: &mut Session, seq: u64) -> Known {
        let (mut floor, mut next) = (session.floor(), session.next_seq);
        if seq < floor {
            return if seq < self.known_from { Known::Forgotten } else { Known::InLog };
        }
        if seq < next && self.has(seq) {
            return Known::InLog;
        }
        if seq >= next {
            // The largest sequence has no next one; it stays its own, and nothing overflows.
            next = seq.saturating_add(1);
            let oldest = next.saturating_sub(STREAM_WINDOW);
            if floor < oldest {
                self.clear(floor, oldest.min(session.next_seq));
                (floor, self.known_from) = (oldest, oldest);
            }
        }
        self.bits[place(seq)] |= bit(seq);
        self.had += 1;
        while floor < next && self.has(floor) {
            self.bits[place(floor)] &= !bit(floor);
            self.had -= 1;
            floor += 1;
        }
        session.next_seq = next;
        session.behind = (next - floor) as u16;
        Known::New
    }

    /// How many sequences from this one on are known to be in the log.
    pub fn count(&self, session: &Session, from: u64) -> u64 {
        let above = from.max(session.floor())..session.next_seq;
        let below = session.floor().saturating_sub(from);
        below + above.filter(|seq| self.has(*seq)).count() as u64
    }

    /// Gives up what is known of everything below the next sequence.
    pub fn forget(&mut self, session: &mut Session) {
        self.begin(session, session.next_seq, session.next_seq, session.next_seq);
    }

    fn has(&self, seq: u64) -> bool {
        self.bits[place(seq)] & bit(seq) != 0
    }

    /// Clears the bits from `from` up to `to`, a word at a time where it can.
    fn clear(&mut self, from: u64, to: u64) {
        let mut seq = from;
        while seq < to {
            if seq.is_multiple_of(64) && to - seq >= 64 {
                self.had -= self.bits[place(seq)].count_ones() as u16;
                self.bits[place(seq)] = 0;
                seq += 64;
            } else {
                self.had -= u16::from(self.has(seq));
                self.bits[place(seq)] &= !bit(seq);
                seq += 1;
            }
        }
    }
}

/// The sequences of one session that are in a log, found in the log's order.
#[derive(Debug)]
pub struct StreamSet {
    session: Session,
    window: Box<Window>,
}

impl Default for StreamSet {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamSet {
    /// Nothing.
    pub fn new() -> Self {
        Self { session: Session::FREE, window: Box::new(Window::new()) }
    }

    /// Adds one; false if it was there before, or so far below that it is not known.
    pub fn take(&mut self, seq: u64) -> bool {
        self.window.take(&mut self.session, seq) == Known::New
    }

    /// What the session's line says: next sequence, floor, and from where on is known.
    pub fn bounds(&self) -> (u64, u64, u64) {
        (self.session.next_seq, self.session.floor(), self.window.known_from)
    }
}

fn place(seq: u64) -> usize {
    (seq % STREAM_WINDOW / 64) as usize
}

fn bit(seq: u64) -> u64 {
    1 << (seq % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (Window, Session) {
        (Window::new(), Session::FREE)
    }

    #[test]
    fn a_lower_sequence_is_in_the_log_only_if_it_was_taken() {
        let (mut window, mut session) = session();
        let said = [0, 2, 4, 1, 1, 0, 3, 4].map(|seq| window.take(&mut session, seq));
        use Known::{InLog, New};
        assert_eq!(said, [New, New, New, New, InLog, InLog, New, InLog]);
        assert_eq!((session.next_seq, session.floor()), (5, 5));
        assert!(window.bits.iter().all(|word| *word == 0) && window.had == 0);
    }

    #[test]
    fn what_the_window_has_passed_is_forgotten_and_what_it_has_is_not() {
        let (mut window, mut session) = session();
        for seq in 1..=STREAM_WINDOW {
            assert_eq!(window.take(&mut session, seq), Known::New);
        }
        // Sequence 0 never came, and is a window behind the next one.
        assert_eq!((session.floor(), window.known_from), (STREAM_WINDOW + 1, 1));
        assert_eq!(window.had, 0);
        assert_eq!(window.take(&mut session, 0), Known::Forgotten);
        assert_eq!(window.take(&mut session, 1), Known::InLog);
        let far = 10 * STREAM_WINDOW;
        assert_eq!(window.take(&mut session, far), Known::New);
        assert_eq!(session.floor(), far + 1 - STREAM_WINDOW);
        assert_eq!(window.take(&mut session, far - STREAM_WINDOW), Known::Forgotten);
        assert_eq!(window.take(&mut session, far + 1 - STREAM_WINDOW), Known::New);
        assert_eq!(window.take(&mut session, far - 1), Known::New);
        assert_eq!(window.take(&mut session, far), Known::InLog);
        // The first two of these came behind the floor, one by one.
        assert_eq!((u64::from(window.had), session.floor()), (2, far + 2 - STREAM_WINDOW));
        assert_eq!(window.count(&session, 0), far + 4 - STREAM_WINDOW);
    }

    #[test]
    fn a_line_that_was_being_changed_proves_nothing_that_is_not_in_the_log() {
        for (next, floor, from) in [(5, 9, 0), (5, 3, 8), (0, 0, 0), (90_000, 3, 0)] {
            let (mut window, mut session) = session();
            window.begin(&mut session, next, floor, from);
            assert!(session.next_seq >= session.floor());
            assert!(session.next_seq - session.floor() <= STREAM_WINDOW);
            assert!(session.floor() >= window.known_from);
            let next = session.next_seq;
            assert_eq!(window.take(&mut session, next), Known::New);
        }
    }
}
