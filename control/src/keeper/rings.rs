//! Where rings lie: those of one broker beside each other, as many in a segment as fit.
//!
//! A ring line says where its ring is, and nothing else does: what no line leads to is free. So
//! there is no second table that a control that dies could leave half written.

use std::ops::Range;

use landfall_layout::segment::SegmentKind;
use landfall_layout::slot::{RingLine, RingSlot};
use landfall_layout::{BrokerId, SegmentId, TopicId};

use super::Keeper;
use crate::life::Life;

/// Where a ring is to lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) segment: SegmentId,
    /// Bytes from the segment's beginning.
    pub(super) offset: u64,
}

/// The first place for `bytes`, a power of two, in a segment, beside those that are taken. It is
/// aligned to its size, so that rings of different sizes leave no gaps that none fits into.
fn room(segment_bytes: u64, bytes: u64, taken: &[Range<u64>]) -> Option<u64> {
    let is_free =
        |at: &u64| taken.iter().all(|range| range.end <= *at || at + bytes <= range.start);
    let last = segment_bytes.checked_sub(bytes)?;
    (0..=last).step_by(usize::try_from(bytes).ok()?).find(is_free)
}

impl Keeper {
    /// The rings of a broker.
    fn rings_of(&self, broker: BrokerId) -> impl Iterator<Item = RingLine> {
        let topics = self.topics.iter().flatten();
        topics.filter_map(move |topic| self.pool.ring(topic.id, broker))
    }

    /// Brokers that live and have no ring yet.
    pub(super) fn without_rings(&self) -> u32 {
        let has_none = |id: &BrokerId| self.rings_of(*id).next().is_none();
        let live = BrokerId::all().filter(|id| self.brokers[id.index()].life == Life::Live);
        live.filter(has_none).count() as u32
    }

    /// A place for a ring of a broker: in a segment that has some of its rings, or in a new one.
    pub(super) fn place_ring(&mut self, broker: BrokerId, slots: u32) -> Option<Place> {
        let bytes = u64::from(slots) * RingSlot::BYTES;
        if let Some(place) = self.place_beside(broker, bytes) {
            return Some(place);
        }
        let segment = self.take_for(broker, TopicId(0), SegmentKind::Ring)?;
        Some(Place { segment, offset: 0 })
    }

    /// Not where somebody may still write who is not waited for: into a ring that was there
    /// before, or zeros for one that a leader before this one was about to make.
    fn place_beside(&self, broker: BrokerId, bytes: u64) -> Option<Place> {
        if self.segments.awaits_followers() {
            return None;
        }
        let segment_bytes = self.pool.geometry().segment_bytes();
        let rings: Vec<RingLine> = self.rings_of(broker).collect();
        let used = self.segments.all().filter(|(segment, used)| {
            used.what.kind == SegmentKind::Ring
                && used.what.owner == broker.raw()
                && !self.segments.is_suspect(*segment)
                && !self.segments.is_withheld(*segment)
                && !self.segments.is_waiting(*segment)
                && !self.pool.is_lost(segment.0)
        });
        used.map(|(segment, _)| segment).find_map(|segment| {
            let of_it = rings.iter().filter(|ring| ring.segment == segment.0);
            let taken: Vec<Range<u64>> = of_it.map(RingLine::range).collect();
            room(segment_bytes, bytes, &taken).map(|offset| Place { segment, offset })
        })
    }

    /// Takes the rings of a topic away that nobody touches any more, and gives back what has none
    /// then.
    pub(super) fn erase_rings(&mut self, id: TopicId) {
        for broker in BrokerId::all() {
            let line = self.pool.ring(id, broker);
            self.pool.set_ring(id.slot(), broker, &RingLine::default());
            let Some(line) = line else { continue };
            let is_used = self.rings_of(broker).any(|ring| ring.segment == line.segment);
            if !is_used {
                self.give_back(SegmentId(line.segment));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_lies_in_the_first_place_that_it_fits_into() {
        assert_eq!(room(1024, 256, &[]), Some(0));
        assert_eq!(room(1024, 256, &[0..256, 512..768]), Some(256));
        assert_eq!(room(1024, 512, &[0..256, 256..512]), Some(512));
        assert_eq!(room(1024, 512, &[0..256, 512..768]), None, "two quarters are no half");
        assert_eq!(room(1024, 128, &[0..256, 256..512, 512..1024]), None);
        assert_eq!(room(1024, 2048, &[]), None);
        assert_eq!(room(1024, 1024, &[]), Some(0));
    }
}
