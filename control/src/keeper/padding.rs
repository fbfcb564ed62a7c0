//! What a dead broker had claimed and not committed becomes padding.

use landfall_layout::batch::{BatchPreamble, PREAMBLE_BYTES};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::segment::{SegmentKind, SegmentState};
use landfall_layout::{BrokerId, SegmentId};
use landfall_pool::Memory;
use landfall_pool::log::{Found, LogReader};
use landfall_pool::slot_ring::SlotReader;

use landfall_layout::counters::Counter;

use super::Keeper;

/// The parts of `[0, end)` that no range of `used` covers, as (offset, bytes). `used` is sorted
/// here; ranges are rounded up to whole lines, as claims are.
pub fn holes(used: &mut [(u32, u32)], end: u64) -> Vec<(u64, u64)> {
    used.sort_unstable();
    let mut holes = Vec::new();
    let mut reached = 0;
    for (offset, bytes) in used.iter() {
        let offset = u64::from(*offset);
        if offset > reached {
            holes.push((reached, offset - reached));
        }
        let after = (offset + u64::from(*bytes)).next_multiple_of(PREAMBLE_BYTES.into());
        reached = reached.max(after);
    }
    if reached < end {
        holes.push((reached, end - reached));
    }
    holes
}

impl Keeper {
    /// Pads the segments of dead brokers whose lease is over. Not before: a publisher that wrote
    /// into such a segment itself reads back from it what nobody has landed.
    pub(super) fn pad_what_is_due(&mut self) {
        let now = self.clock_ns();
        if self.unpadded.iter().all(|(_, due_ns)| *due_ns > now) {
            return;
        }
        let segments = &self.segments;
        let (due, later) = std::mem::take(&mut self.unpadded).into_iter().partition(
            |(segment, due_ns): &(SegmentId, u64)| {
                *due_ns <= now && !segments.is_withheld(*segment)
            },
        );
        self.unpadded = later;
        for (segment, _) in due {
            self.pad(segment);
        }
    }

    fn pad(&mut self, segment: SegmentId) {
        let Some(used) = self.segments.get(segment).copied() else { return };
        let sealed =
            used.what.kind == SegmentKind::Payload && used.what.state == SegmentState::Sealed;
        let (Some(at), Some(owner)) =
            (self.pool.geometry().segment(segment), BrokerId::new(used.what.owner.into()))
        else {
            return;
        };
        // A later leader has to see that the segment is sealed before anything is written into it.
        if !sealed || !self.still_leads() {
            return;
        }
        let mut landed = Vec::new();
        let topic = used.what.topic;
        let sequenced = self.topic(topic).is_some_and(|topic| topic.order.is_sequenced());
        // The ring first and the log after: what leaves the ring meanwhile is in the log by then.
        if sequenced && let Some(ring) = self.pool.slot_ring(topic, owner) {
            let reader = SlotReader::new(ring);
            let consumed = ring.consumed(&*self.pool);
            let slots = (consumed..consumed + ring.slots)
                .filter_map(|index| reader.peek(&*self.pool, index))
                .filter(|slot| slot.segment == segment.0)
                .filter(|slot| slot.segment_generation == used.generation);
            landed.extend(slots.map(|slot| (slot.offset, slot.bytes)));
        }
        let log = if sequenced { SEQUENCED_LOG } else { owner.index() };
        let mut reader = LogReader::new(topic, log);
        let oldest = self.pool.oldest(topic, log);
        for index in oldest..self.pool.frontier(topic, log).entries {
            if let Found::Entry(entry) = reader.entry(&self.pool, index)
                && entry.segment == segment.0
            {
                landed.push((entry.offset, entry.bytes));
            }
        }
        let end = self.pool.geometry().segment_bytes();
        let mut padded = 0;
        for (offset, bytes) in holes(&mut landed, end) {
            let words: [u64; 8] = BatchPreamble::padding(bytes as u32).to_words();
            self.pool.store_words(at + offset, &words);
            self.pool.publish(at + offset, PREAMBLE_BYTES.into());
            padded += 1;
        }
        self.count(Counter::ClaimsPadded, padded);
    }
}

#[cfg(test)]
mod tests {
    use super::holes;

    #[test]
    fn an_empty_segment_is_one_hole() {
        assert_eq!(holes(&mut [], 4096), [(0, 4096)]);
    }

    #[test]
    fn what_landed_is_never_a_hole() {
        let mut used = [(1024, 100), (0, 64), (64, 130)];
        assert_eq!(holes(&mut used, 4096), [(256, 768), (1152, 4096 - 1152)]);
    }

    #[test]
    fn a_full_segment_has_none() {
        assert_eq!(holes(&mut [(2048, 2048), (0, 2000), (2000, 48)], 4096), []);
    }
}
