//! Extents that publishers were granted and put nothing into: taken back where others wait for
//! room.
//!
//! A segment is sealed only when no extent in it is open. So a publisher that asks for extents and
//! lands nothing keeps whole segments from everybody. While nobody needs them it may: it goes on
//! without asking again.

use std::fmt;

use landfall_layout::frame::Refusal;
use landfall_layout::limits::HEARTBEAT_EVERY_NS;

use crate::broker::Broker;
use crate::conn::{Conn, Kind, Publisher, Stalled, Via};
use crate::conns::Token;
use crate::land::Wait;
use crate::verbs::Ways;

/// Ticks without a batch after which what is kept ahead may be taken back: 1 s.
pub const PATIENCE: u32 = (1_000_000_000 / HEARTBEAT_EVERY_NS) as u32;
/// Extents without a batch that a publisher can have a use for while it waits for another one: one
/// that it fills for each of its two kinds of receipts.
const IN_USE: usize = 2;

/// Open extents of one publisher.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Open {
    /// Bytes in them behind the last batch that landed, or pulled and not landed.
    pub bytes: u64,
    /// Those in which none has landed.
    pub untouched: usize,
}

impl Open {
    /// With one more, of which `left` bytes are left.
    pub fn with(self, left: u32, is_untouched: bool) -> Self {
        let untouched = self.untouched + usize::from(is_untouched);
        Self { bytes: self.bytes + u64::from(left), untouched }
    }
}

/// A publisher that has open extents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Holder {
    owner: Token,
    open: Open,
    /// Ticks without a batch of it.
    ticks: u32,
    /// It waits for room itself.
    waits: bool,
}

impl Holder {
    /// What it holds serves nobody.
    fn is_idle(&self) -> bool {
        self.open.bytes > 0
            && self.ticks >= PATIENCE
            && (!self.waits || self.open.untouched > IN_USE)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::from(self.ticks) * HEARTBEAT_EVERY_NS / 1_000_000;
        write!(
            f,
            "it holds {} bytes in which nothing landed for {ms} ms, while others wait for room: \
             they are taken back; connect again when there is something to publish",
            self.open.bytes
        )
    }
}

/// Who gives back what it holds: the one that has landed nothing for longest.
fn takes_from(all: &[Holder]) -> Option<Holder> {
    all.iter().copied().filter(Holder::is_idle).max_by_key(|holder| holder.ticks)
}

impl Broker {
    /// Takes extents back from one publisher, if others wait for room: the next tick sees whether
    /// that was enough.
    pub(crate) fn tick_unused(&mut self) {
        let mut all = Vec::new();
        // At another broker, or here.
        let mut is_short = self.env.pool.is_short();
        for Conn { token, kind, .. } in self.conns.iter_mut() {
            let Kind::Publisher(publisher) = kind else { continue };
            let Publisher { via, still, stalled, brought, .. } = publisher;
            let why = stalled.map(|Stalled { why, .. }| why);
            let waits = why == Some(Wait::Segment);
            is_short |= waits;
            let open = match via {
                Via::Stream(_) => continue,
                Via::Memory(extents) => extents.open(),
                Via::Verbs(via) => match &via.ways {
                    Ways::Grants(grants) => grants.open(),
                    Ways::Pulls(pulls) if why == Some(Wait::Turn) => pulls.open(),
                    Ways::Pulls(_) => continue,
                },
            };
            let ticks = still.look(*brought);
            // Whoever waits for something else has batches that were not looked at. What waits for
            // its turn waits for its own publisher.
            if matches!(why, None | Some(Wait::Segment | Wait::Turn)) {
                all.push(Holder { owner: *token, open, ticks, waits });
            }
        }
        if let Some(holder) = takes_from(&all).filter(|_| is_short) {
            self.refuse(holder.owner.slot(), Refusal::Busy, &holder.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(owner: u64, untouched: usize, ticks: u32, waits: bool) -> Holder {
        let open = Open { bytes: 1 << 20, untouched };
        Holder { owner: Token(owner), open, ticks, waits }
    }

    #[test]
    fn the_longest_idle_gives_back_first_and_whoever_publishes_never() {
        let busy = holder(1, 1, PATIENCE - 1, false);
        let idle = holder(2, 1, PATIENCE, false);
        let longer = holder(3, 0, PATIENCE + 1, false);
        let empty = Holder { open: Open::default(), ..holder(4, 0, 99, false) };
        assert_eq!(takes_from(&[busy, idle, longer, empty]), Some(longer));
        assert_eq!(takes_from(&[busy, empty]), None);
    }

    #[test]
    fn whoever_waits_for_room_keeps_what_it_can_fill_meanwhile() {
        let honest = holder(1, IN_USE, 99, true);
        assert_eq!(takes_from(&[honest]), None);
        let greedy = holder(2, IN_USE + 1, PATIENCE, true);
        assert_eq!(takes_from(&[honest, greedy]), Some(greedy));
    }

    #[test]
    fn what_is_open_adds_up() {
        let open = Open::default().with(64, true).with(100, false);
        assert_eq!(open, Open { bytes: 164, untouched: 1 });
    }
}
