//! The two kinds of gates: a memory window for each extent, and the key of a whole segment.

use landfall_layout::verbs::{EXTENT_SLOTS, GrantMode};
use landfall_nic::{NicError, Rights, Window};

use super::link::{Link, Work};
use super::publish::{Closing, Gate};
use crate::claim::Claim;

/// What stands behind each slot of one connection.
pub enum Doors {
    /// Mode `window`: one window a slot.
    Windows([Window; EXTENT_SLOTS]),
    /// Mode `open`: where the segment of each slot begins.
    Segments([Option<u64>; EXTENT_SLOTS]),
    /// Mode `pull`, and subscribers: nothing is ever opened for writing.
    None,
}

impl Doors {
    /// The doors for a grant mode, on a queue that is connected.
    pub fn new(queue: &mut landfall_nic::Queue, mode: GrantMode) -> Result<Self, NicError> {
        Ok(match mode {
            GrantMode::Pull => Self::None,
            GrantMode::Open => Self::Segments([None; EXTENT_SLOTS]),
            GrantMode::Window => {
                let mut windows = Vec::with_capacity(EXTENT_SLOTS);
                for _ in 0..EXTENT_SLOTS {
                    windows.push(queue.window()?);
                }
                windows.try_into().map_or(Self::None, Self::Windows)
            }
        })
    }
}

/// A link with its doors: the gate that grants use.
pub struct LinkGate<'a> {
    pub link: &'a mut Link,
    /// Windows bound and invalidated, to be counted.
    pub bound: u64,
    pub begun: u64,
    /// What went wrong with a call, to be shown.
    pub trouble: Option<NicError>,
}

impl Gate for LinkGate<'_> {
    fn open(&mut self, slot: usize, claim: &Claim, at: u64) -> Option<u32> {
        let Link { queue, side, doors, .. } = &mut *self.link;
        match doors {
            Doors::Windows(windows) => {
                let rights = Rights { read: false, write: true };
                let how = Work::Bound(slot as u8).how();
                let bytes = claim.bytes.into();
                let key = queue.bind(&mut windows[slot], side.pool(), at, bytes, rights, how);
                if key.is_err() {
                    self.trouble = queue.take_trouble();
                }
                self.bound += u64::from(key.is_ok());
                key.ok()
            }
            Doors::Segments(segments) => {
                let segment_at = at - u64::from(claim.offset);
                match side.open_segment(segment_at) {
                    Ok(key) => {
                        segments[slot] = Some(segment_at);
                        Some(key)
                    }
                    Err(error) => {
                        self.trouble = Some(error);
                        None
                    }
                }
            }
            Doors::None => None,
        }
    }

    fn close(&mut self, slot: usize) -> Closing {
        let Link { queue, side, doors, .. } = &mut *self.link;
        match doors {
            Doors::Windows(windows) => {
                let window = &mut windows[slot];
                if !queue.is_bound(window) {
                    return Closing::Closed;
                }
                match queue.invalidate(window, Work::Invalidated(slot as u8).how()) {
                    Ok(()) => {
                        self.begun += 1;
                        Closing::Begun
                    }
                    // A queue that is over takes nothing more: its end closes every gate.
                    Err(_) => Closing::Later,
                }
            }
            Doors::Segments(segments) => {
                if let Some(at) = segments[slot].take() {
                    side.close_segment(at);
                }
                Closing::Closed
            }
            Doors::None => Closing::Closed,
        }
    }
}
