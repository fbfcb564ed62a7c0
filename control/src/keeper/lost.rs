//! Segments with a page that cannot be read any more: marked, told, never given out again.

use landfall_layout::counters::Counter;
use landfall_layout::segment::SegmentKind;
use landfall_layout::{BrokerId, SegmentId};

use super::Keeper;
use landfall_pool::clock::wall_ns;
use landfall_pool::map::Room;

impl Keeper {
    /// Marks what this process has met, and tells of free segments that turned out to be lost.
    pub(super) fn look_at_losses(&mut self) {
        // Segments only become more, and all that this process met are marked in the end.
        if self.losses_seen != self.pool.loss().count() {
            self.losses_seen = self.pool.loss().count();
            for segment in self.pool.loss().segments() {
                self.lose(SegmentId(segment), None);
            }
        }
        let free = self.segments.take_found_lost();
        let Some(last) = free.last() else { return };
        self.count(Counter::SegmentsLost, free.len() as u64);
        let text = match free.len() {
            1 => format!("segment {last}, which was free, is lost"),
            more => format!("segments {} to {last}, {more} that were free, are lost", free[0]),
        };
        let why = why(self.pool.room(), self.pool.geometry().segment_bytes());
        self.note(&format!("{text}: {why}; not used again"));
    }

    /// A page of a segment cannot be read: a broker met it, or control itself.
    pub(super) fn lose(&mut self, segment: SegmentId, by: Option<BrokerId>) {
        if !self.segments.lose(segment, wall_ns()) {
            return;
        }
        // Control's own loads and stores then know of it too.
        self.pool.loss().mark(segment.0);
        self.count(Counter::SegmentsLost, 1);
        let what = match self.segments.get(segment).map(|used| used.what) {
            Some(what) => {
                let known = self.topic(what.topic);
                let topic = known.map_or("?", |topic| topic.entry.name());
                match what.kind {
                    SegmentKind::Payload => {
                        format!("batches of broker {} in topic {topic}", what.owner)
                    }
                    SegmentKind::OrderLog => format!("order log {} of topic {topic}", what.log),
                    SegmentKind::Ring => format!("rings of broker {}", what.owner),
                    SegmentKind::Free => "nothing".to_owned(),
                }
            }
            None => "nothing".to_owned(),
        };
        let why = why(self.pool.room(), self.pool.geometry().segment_bytes());
        let who = by.map_or_else(String::new, |broker| format!(" (broker {broker} met it)"));
        self.note(&format!(
            "segment {segment} is lost: {why}{who}. It holds {what}; what holds no more is read \
             from replicas"
        ));
    }
}

/// Why memory cannot be had, as far as the system says.
fn why(room: Option<Room>, segment_bytes: u64) -> String {
    match room {
        Some(Room { all, free }) if free < segment_bytes => format!(
            "the pool's file system is full ({free} of {all} bytes are free), and others have what \
             the pool, which is sparse, had not yet taken; make room there, and begin a new pool \
             without --sparse"
        ),
        _ => "the pool's memory cannot be read there".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_full_is_named() {
        let full = why(Some(Room { all: 300, free: 7 }), 8);
        assert!(full.contains("file system is full (7 of 300 bytes are free)"), "{full}");
        for room in [None, Some(Room { all: 300, free: 8 })] {
            assert_eq!(why(room, 8), "the pool's memory cannot be read there");
        }
    }
}
