//! Segments that a broker opened to a reader, each in a slot with a key of its own.
//!
//! A pure value: it says what has to be said to the broker.

use std::collections::VecDeque;

use landfall_layout::verbs::{SEGMENT_SLOTS, Said};
use landfall_nic::Remote;

/// A segment that may be read.
#[derive(Clone, Copy, Debug)]
struct Open {
    slot: u8,
    segment: u32,
    at: u64,
    key: u32,
    bytes: u32,
    /// READs that are under way.
    uses: u32,
    /// When it was used last.
    stamp: u64,
    /// The broker wants it back.
    closing: bool,
}

/// Where a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    pub(super) slot: u8,
    at: u64,
    key: u32,
    pub(super) bytes: u32,
}

impl Window {
    /// The remote place of `bytes` bytes at `offset`; `None` outside the segment.
    pub(super) fn at(&self, offset: u64, bytes: u32) -> Option<Remote> {
        let end = offset.checked_add(bytes.into())?;
        let at = self.at.checked_add(offset)?;
        (end <= u64::from(self.bytes)).then_some(Remote { at, key: self.key })
    }
}

/// What a broker grants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Granted {
    pub(super) slot: u32,
    pub(super) segment: u32,
    pub(super) at: u64,
    pub(super) key: u32,
    pub(super) bytes: u32,
}

/// The segments.
#[derive(Debug, Default)]
pub(super) struct Slots {
    open: Vec<Open>,
    /// Asked for and not answered, in the order of the answers.
    asked: VecDeque<u32>,
    clock: u64,
}

impl Slots {
    /// The window on a segment. `None`: it is asked for now, or was.
    pub(super) fn get(&mut self, segment: u32, say: &mut Vec<Said>) -> Option<Window> {
        self.clock += 1;
        let stamp = self.clock;
        let known = self.open.iter_mut().find(|open| open.segment == segment && !open.closing);
        if let Some(Open { slot, at, key, bytes, stamp: used, .. }) = known {
            *used = stamp;
            return Some(Window { slot: *slot, at: *at, key: *key, bytes: *bytes });
        }
        self.ask(segment, say);
        None
    }

    fn ask(&mut self, segment: u32, say: &mut Vec<Said>) {
        if self.asked.contains(&segment) {
            return;
        }
        if self.open.len() + self.asked.len() >= SEGMENT_SLOTS {
            // The one that was not used for the longest time makes room.
            let idle = self.open.iter().enumerate().filter(|(_, open)| open.uses == 0);
            let Some((at, _)) = idle.min_by_key(|(_, open)| open.stamp) else { return };
            say.push(Said::Done { slot: self.open.swap_remove(at).slot });
        }
        self.asked.push_back(segment);
        say.push(Said::Segment { segment });
    }

    /// A READ through a slot begins.
    pub(super) fn begin(&mut self, slot: u8) {
        if let Some(open) = self.open.iter_mut().find(|open| open.slot == slot) {
            open.uses += 1;
        }
    }

    /// A READ through a slot is done.
    pub(super) fn end(&mut self, slot: u8, say: &mut Vec<Said>) {
        if let Some(at) = self.open.iter().position(|open| open.slot == slot) {
            let open = &mut self.open[at];
            open.uses = open.uses.saturating_sub(1);
            if open.uses == 0 && open.closing {
                say.push(Said::Done { slot: self.open.swap_remove(at).slot });
            }
        }
    }

    /// A segment is no longer read from.
    pub(super) fn leave(&mut self, segment: u32, say: &mut Vec<Said>) {
        let idle = |open: &Open| open.segment == segment && open.uses == 0;
        if let Some(at) = self.open.iter().position(idle) {
            say.push(Said::Done { slot: self.open.swap_remove(at).slot });
        }
    }

    /// The broker opened what was asked for first; what is wrong with that otherwise.
    pub(super) fn granted(&mut self, granted: Granted) -> Result<(), String> {
        let Granted { slot, segment, at, key, bytes } = granted;
        let free = |slot: &u8| {
            usize::from(*slot) < SEGMENT_SLOTS && self.open.iter().all(|open| open.slot != *slot)
        };
        let slot_known = u8::try_from(slot).ok().filter(free);
        match (slot_known, self.asked.front()) {
            (Some(slot), Some(asked)) if *asked == segment => {
                self.asked.pop_front();
                let stamp = self.clock;
                self.open.push(Open {
                    slot,
                    segment,
                    at,
                    key,
                    bytes,
                    uses: 0,
                    stamp,
                    closing: false,
                });
                Ok(())
            }
            (_, asked) => Err(format!(
                "opened segment {segment} in slot {slot}, with {} slots in use and {asked:?} \
                 asked for",
                self.open.len()
            )),
        }
    }

    /// What was asked for first is not to be had. Which segment that was.
    pub(super) fn refused(&mut self) -> Option<u32> {
        self.asked.pop_front()
    }

    /// The broker wants a slot back. One that was given back meanwhile is another's already.
    pub(super) fn called_in(&mut self, slot: u32, say: &mut Vec<Said>) {
        if let Some(at) = self.open.iter().position(|open| u32::from(open.slot) == slot) {
            if self.open[at].uses == 0 {
                say.push(Said::Done { slot: self.open.swap_remove(at).slot });
            } else {
                self.open[at].closing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(slot: u32, segment: u32) -> Granted {
        Granted { slot, segment, at: 1 << 21, key: 9, bytes: 1 << 21 }
    }

    #[test]
    fn a_segment_is_asked_for_once_and_read_inside_its_bounds() {
        let (mut slots, mut say) = (Slots::default(), Vec::new());
        assert_eq!(slots.get(7, &mut say), None);
        assert_eq!(slots.get(7, &mut say), None);
        assert_eq!(say, [Said::Segment { segment: 7 }]);
        slots.granted(granted(3, 7)).unwrap();
        let window = slots.get(7, &mut say).unwrap();
        let bytes = 1 << 21;
        assert_eq!(window.at(64, 10), Some(Remote { at: bytes + 64, key: 9 }));
        assert_eq!(window.at(bytes - 64, 64).unwrap().at, 2 * bytes - 64);
        assert_eq!(window.at(bytes - 64, 65), None);
        assert_eq!(window.at(u64::MAX, 65), None);
        assert_eq!(say.len(), 1);
    }

    #[test]
    fn the_slot_that_was_idle_longest_makes_room() {
        let (mut slots, mut say) = (Slots::default(), Vec::new());
        for segment in 0..SEGMENT_SLOTS as u32 {
            slots.get(segment, &mut say);
            slots.granted(granted(segment, segment)).unwrap();
            slots.get(segment, &mut say);
        }
        slots.begin(0);
        say.clear();
        assert_eq!(slots.get(99, &mut say), None);
        // Slot 0 is in use, so slot 1 it is; the broker may use it for the answer.
        assert_eq!(say, [Said::Done { slot: 1 }, Said::Segment { segment: 99 }]);
        slots.granted(granted(1, 99)).unwrap();
        assert_eq!(slots.get(99, &mut say).unwrap().slot, 1);
    }

    #[test]
    fn a_slot_that_is_called_in_is_given_back_once_nothing_reads_through_it() {
        let (mut slots, mut say) = (Slots::default(), Vec::new());
        slots.get(5, &mut say);
        slots.granted(granted(2, 5)).unwrap();
        slots.begin(2);
        slots.begin(2);
        say.clear();
        slots.called_in(2, &mut say);
        slots.end(2, &mut say);
        assert_eq!(say, []);
        assert_eq!(slots.get(5, &mut say), None, "nothing more is read through it");
        say.clear();
        slots.end(2, &mut say);
        assert_eq!(say, [Said::Done { slot: 2 }]);
        slots.called_in(2, &mut say);
        slots.called_in(0xffff_ffff, &mut say);
        assert_eq!(say.len(), 1, "what is not held is not given back twice");
    }

    #[test]
    fn answers_come_in_the_order_of_the_questions() {
        let (mut slots, mut say) = (Slots::default(), Vec::new());
        slots.get(5, &mut say);
        slots.get(6, &mut say);
        assert_eq!(slots.refused(), Some(5));
        assert!(slots.granted(granted(0, 5)).is_err());
        slots.granted(granted(0, 6)).unwrap();
        assert!(slots.granted(granted(0, 6)).is_err(), "nothing was asked");
        assert_eq!(slots.refused(), None);
    }
}
