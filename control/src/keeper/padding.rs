//! What a dead broker had claimed and not committed becomes padding.

use std::collections::BTreeMap;

use landfall_layout::batch::{BatchPreamble, PREAMBLE_BYTES};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::segment::{SegmentKind, SegmentState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::log::{Found, LogReader};
use landfall_pool::slot_ring::SlotReader;
use landfall_pool::{Memory, Pool};

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

/// Segments of one log of which it is gathered what landed in them.
#[derive(Debug)]
pub struct Gathering {
    topic: TopicId,
    log: usize,
    reader: LogReader,
    /// The entry to look at next.
    next: u64,
    /// Where the log ended once the rings were read: all that had left them is below.
    end: u64,
    /// Each segment's use, and the places in it where batches landed, as (offset, bytes).
    landed: BTreeMap<SegmentId, (u64, Vec<(u32, u32)>)>,
}

impl Gathering {
    /// Looks at entries until it has seen all of them or `left` is used up. Whether it has.
    fn go_on(&mut self, pool: &Pool, left: &mut u64) -> bool {
        while self.next < self.end && *left > 0 {
            *left -= 1;
            match self.reader.entry(pool, self.next) {
                Found::Entry(entry) => {
                    if let Some((_, landed)) = self.landed.get_mut(&SegmentId(entry.segment)) {
                        landed.push((entry.offset, entry.bytes));
                    }
                    self.next += 1;
                }
                Found::Lapped { oldest } => self.next = oldest.max(self.next + 1),
                Found::Gone => self.next = self.end,
            }
        }
        self.next >= self.end
    }
}

impl Keeper {
    /// Pads the segments of dead brokers whose lease is over. Not before: a publisher that wrote
    /// into such a segment itself reads back from it what nobody has landed. Whether there is more
    /// to do at once.
    pub(super) fn pad_what_is_due(&mut self) -> bool {
        let now = self.clock_ns();
        let segments = &self.segments;
        let is_due = |(segment, due_ns): &(SegmentId, u64)| {
            *due_ns <= now && !segments.is_withheld(*segment)
        };
        if self.unpadded.iter().any(is_due) {
            let (due, later) = std::mem::take(&mut self.unpadded).into_iter().partition(is_due);
            self.unpadded = later;
            self.begin_gathering(due);
        }
        while let Some(gathering) = self.gatherings.front_mut() {
            if !gathering.go_on(&self.pool, &mut self.entries_left) {
                return true;
            }
            if let Some(whole) = self.gatherings.pop_front() {
                self.pad(whole);
            }
        }
        false
    }

    /// Begins to gather what landed in these segments: a walk over each log, and not one for each
    /// segment.
    fn begin_gathering(&mut self, due: Vec<(SegmentId, u64)>) {
        let mut logs: BTreeMap<(TopicId, usize), Gathering> = BTreeMap::new();
        for (segment, _) in due {
            let Some(used) = self.segments.get(segment).copied() else { continue };
            let Some(owner) = BrokerId::new(used.what.owner.into()) else { continue };
            let topic = used.what.topic;
            let sequenced = self.topic(topic).is_some_and(|topic| topic.order.is_sequenced());
            let log = if sequenced { SEQUENCED_LOG } else { owner.index() };
            let gathering = logs.entry((topic, log)).or_insert_with(|| Gathering {
                topic,
                log,
                reader: LogReader::new(topic, log),
                next: 0,
                end: 0,
                landed: BTreeMap::new(),
            });
            gathering.landed.insert(segment, (used.generation, Vec::new()));
        }
        for mut gathering in logs.into_values() {
            // The rings first and the log after: what leaves a ring meanwhile is in the log then.
            if gathering.log == SEQUENCED_LOG {
                self.gather_from_rings(&mut gathering);
            }
            gathering.next = self.pool.oldest(gathering.topic, gathering.log);
            gathering.end = self.pool.frontier(gathering.topic, gathering.log).entries;
            self.gatherings.push_back(gathering);
        }
    }

    fn gather_from_rings(&self, gathering: &mut Gathering) {
        for broker in BrokerId::all() {
            let Some(ring) = self.pool.slot_ring(gathering.topic, broker) else { continue };
            let reader = SlotReader::new(ring);
            let consumed = ring.consumed(&*self.pool);
            let slots = (consumed..consumed + ring.slots)
                .filter_map(|index| reader.peek(&*self.pool, index));
            for slot in slots {
                if let Some((generation, landed)) =
                    gathering.landed.get_mut(&SegmentId(slot.segment))
                    && *generation == slot.segment_generation
                {
                    landed.push((slot.offset, slot.bytes));
                }
            }
        }
    }

    fn pad(&mut self, whole: Gathering) {
        let end = self.pool.geometry().segment_bytes();
        let mut padded = 0;
        for (segment, (generation, mut landed)) in whole.landed {
            let Some(used) = self.segments.named(segment.0, generation).copied() else { continue };
            let Some(at) = self.pool.geometry().segment(segment) else { continue };
            if used.what.kind != SegmentKind::Payload || used.what.state != SegmentState::Sealed {
                continue;
            }
            // Somebody may write there again since it was begun: not yet, then.
            if self.segments.is_withheld(segment) {
                self.unpadded.push((segment, used.kept_until_ns));
                continue;
            }
            // A later leader has to see that the segment is sealed before anything is written
            // into it.
            if !self.still_leads() {
                return;
            }
            if landed.is_empty()
                && whole.log != SEQUENCED_LOG
                && let Some(used) = self.segments.get_mut(segment)
            {
                // It is nobody's to read: not the last entry of its broker's log either.
                (used.through, used.settled) = (0, None);
            }
            for (offset, bytes) in holes(&mut landed, end) {
                let words: [u64; 8] = BatchPreamble::padding(bytes as u32).to_words();
                self.pool.store_words(at + offset, &words);
                self.pool.publish(at + offset, PREAMBLE_BYTES.into());
                padded += 1;
            }
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
