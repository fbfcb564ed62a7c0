//! A verbs publisher's extents: room at the broker that its NIC may write to.
//!
//! A pure value: it says what has to be said to the broker and where a batch goes.

use std::collections::VecDeque;

use landfall_layout::batch::{MESSAGE_HEADER_BYTES, PREAMBLE_BYTES};
use landfall_layout::limits::{LINE_BYTES, SEGMENT_BYTES_MAX};
use landfall_layout::verbs::{EXTENT_SLOTS, Said};

/// Less room than this at the end of an extent is given up: no message fits.
const ROOM_LEAST: u32 = PREAMBLE_BYTES + MESSAGE_HEADER_BYTES as u32;
const LINE: u32 = LINE_BYTES as u32;

/// A grant, as far as it is used.
#[derive(Clone, Copy, Debug)]
struct Extent {
    slot: u8,
    key: u32,
    /// Remote address of its first byte.
    at: u64,
    /// Bytes from there to where the next batch goes.
    next: u32,
    end: u32,
}

impl Extent {
    fn room(&self) -> u32 {
        self.end - self.next
    }
}

/// Where a batch goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) slot: u8,
    /// Lines from the extent's start.
    pub(crate) line: u32,
    /// Remote address.
    pub(crate) at: u64,
    pub(crate) key: u32,
}

/// An extent as a broker names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Granted {
    pub(crate) slot: u32,
    pub(crate) at: u64,
    pub(crate) key: u32,
    pub(crate) bytes: u32,
}

/// The extents. Batches go into the first; the others are what was asked for ahead.
#[derive(Debug)]
pub(crate) struct Extents {
    held: VecDeque<Extent>,
    /// Asked for and not here yet.
    asked: bool,
    /// Bytes of a full batch.
    batch_bytes: u32,
    /// Whether one was used up: this publisher will need the next.
    flows: bool,
}

impl Extents {
    /// None yet, for batches of `batch_bytes` bytes.
    pub(crate) fn new(batch_bytes: u32) -> Self {
        let held = VecDeque::with_capacity(EXTENT_SLOTS);
        Self { held, asked: false, batch_bytes, flows: false }
    }

    /// Asks for room, unless that was done or is there.
    pub(crate) fn ask(&mut self, bytes: u32, mut say: impl FnMut(Said)) {
        if !self.asked && self.held.len() < EXTENT_SLOTS {
            self.asked = true;
            say(Said::Wanted { lines: bytes.max(self.batch_bytes).div_ceil(LINE) });
        }
    }

    /// Takes an extent; what is wrong with it otherwise.
    pub(crate) fn granted(&mut self, granted: Granted) -> Result<(), String> {
        let Granted { slot, at, key, bytes } = granted;
        let is_new = |slot: &u8| {
            usize::from(*slot) < EXTENT_SLOTS && self.held.iter().all(|held| held.slot != *slot)
        };
        let slot_known = u8::try_from(slot).ok().filter(is_new);
        let fits = bytes >= ROOM_LEAST
            && u64::from(bytes) <= SEGMENT_BYTES_MAX
            && at.checked_add(bytes.into()).is_some();
        match slot_known {
            Some(slot) if fits && self.asked => {
                self.asked = false;
                // Whole lines: a batch begins on one.
                let end = bytes / LINE * LINE;
                self.held.push_back(Extent { slot, key, at, next: 0, end });
                Ok(())
            }
            _ => Err(format!(
                "granted an extent of {bytes} bytes at {at:#x} in slot {slot}, with {} held and \
                 {} asked for",
                self.held.len(),
                u8::from(self.asked)
            )),
        }
    }

    /// A place for a batch of `bytes` bytes. `None`: room is asked for and not here yet. What is
    /// to be said to the broker goes before the batch.
    #[inline]
    pub(crate) fn place(&mut self, bytes: u32, mut say: impl FnMut(Said)) -> Option<Place> {
        let whole = bytes.next_multiple_of(LINE);
        while let Some(extent) = self.held.front_mut() {
            if extent.room() >= whole {
                let place = Place {
                    slot: extent.slot,
                    line: extent.next / LINE,
                    at: extent.at + u64::from(extent.next),
                    key: extent.key,
                };
                extent.next += whole;
                let room = extent.room();
                if room == 0 {
                    // The broker sees for itself that it is full, and may use the slot again: it
                    // must not be told that this one is done.
                    self.held.pop_front();
                    self.flows = true;
                }
                if self.held.len() < 2 && (self.flows || room < self.batch_bytes) {
                    self.ask(0, say);
                }
                return Some(place);
            }
            self.flows = true;
            say(Said::Done { slot: extent.slot });
            self.held.pop_front();
        }
        self.ask(bytes, say);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(slot: u32, bytes: u32) -> Granted {
        Granted { slot, at: 1 << 20, key: slot + 70, bytes }
    }

    /// What is said while something is done.
    fn during<T>(act: impl FnOnce(&mut Vec<Said>) -> T) -> (T, Vec<Said>) {
        let mut said = Vec::new();
        let done = act(&mut said);
        (done, said)
    }

    fn place(extents: &mut Extents, bytes: u32) -> (Option<Place>, Vec<Said>) {
        during(|said| extents.place(bytes, |word| said.push(word)))
    }

    #[test]
    fn batches_lie_behind_each_other_and_the_next_extent_is_asked_for_before_the_end() {
        let mut extents = Extents::new(1000);
        let wanted = Said::Wanted { lines: 16 };
        assert_eq!(place(&mut extents, 1000), (None, vec![wanted]));
        assert_eq!(place(&mut extents, 1000), (None, vec![]), "asked once");
        extents.granted(granted(3, 4096)).unwrap();
        let first = Place { slot: 3, line: 0, at: 1 << 20, key: 73 };
        assert_eq!(place(&mut extents, 1000), (Some(first), vec![]));
        let second = Place { slot: 3, line: 16, at: (1 << 20) + 1024, key: 73 };
        assert_eq!(place(&mut extents, 1000), (Some(second), vec![]));
        assert_eq!(place(&mut extents, 961).0.unwrap().line, 32);
        // The last of it: full to the last line, so nothing is said of its end.
        let (last, said) = place(&mut extents, 1024);
        assert_eq!((last.unwrap().line, said), (48, vec![wanted]));
        assert_eq!(place(&mut extents, 80), (None, vec![]));
    }

    #[test]
    fn what_is_left_of_an_extent_is_given_up() {
        let mut extents = Extents::new(1000);
        extents.ask(0, |_| {});
        extents.granted(granted(0, 2048)).unwrap();
        assert_eq!(place(&mut extents, 1100).0.unwrap().line, 0);
        // 896 bytes are left; the next was asked for, and is smaller than what comes.
        extents.granted(granted(1, 1024)).unwrap();
        let (none, said) = place(&mut extents, 3000);
        let wanted = Said::Wanted { lines: 47 };
        assert_eq!(
            (none, said),
            (None, vec![Said::Done { slot: 0 }, Said::Done { slot: 1 }, wanted])
        );
        extents.granted(granted(0, 4096)).unwrap();
        assert_eq!(place(&mut extents, 3000).0.unwrap().slot, 0, "the slot is used again");
    }

    #[test]
    fn a_publisher_that_flows_has_the_next_extent_before_it_needs_it() {
        let mut extents = Extents::new(64);
        extents.ask(0, |_| {});
        extents.granted(granted(0, 128)).unwrap();
        assert_eq!(place(&mut extents, 128).1, [Said::Wanted { lines: 1 }]);
        extents.granted(granted(1, 1 << 20)).unwrap();
        let (placed, said) = place(&mut extents, 80);
        assert_eq!((placed.unwrap().slot, said), (1, vec![Said::Wanted { lines: 1 }]));
        extents.granted(granted(0, 1 << 20)).unwrap();
        assert_eq!(place(&mut extents, 80).1, [], "one ahead is enough");
    }

    #[test]
    fn grants_that_cannot_be_are_refused_with_the_numbers() {
        let mut extents = Extents::new(64);
        assert!(extents.granted(granted(0, 4096)).is_err(), "nobody asked");
        extents.ask(0, |_| {});
        for bad in [granted(8, 4096), granted(0, 79), Granted { at: u64::MAX, ..granted(0, 4096) }]
        {
            let why = extents.granted(bad).unwrap_err();
            assert!(why.contains(&format!("{} bytes", bad.bytes)), "{why}");
        }
        extents.granted(granted(0, 4096)).unwrap();
        extents.ask(0, |_| {});
        assert!(extents.granted(granted(0, 4096)).is_err(), "that slot is in use");
    }
}
