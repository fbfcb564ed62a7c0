//! What a process that was killed left in its host's caches, where hosts do not see each other's.
//!
//! A line that was stored to and not written back leaves the cache some time: over whatever
//! another host has written there meanwhile. So what a process wrote belongs to its host until
//! that host has written it back, or is down: [`Pool::write_back_of`] is the former, and a broker
//! does it before it says that it is there.

use landfall_layout::command::COMMAND_RING_BYTES;
use landfall_layout::counters::{COUNTER_BLOCK_BYTES, ERROR_LOG_BYTES};
use landfall_layout::limits::{
    BROKERS_MAX, DISK_REPLICAS_MAX, LINE_BYTES, STAND_INS_MAX, TOPICS_MAX,
};
use landfall_layout::segment::{SegmentKind, What};
use landfall_layout::{BrokerId, SegmentId};

use crate::memory::Memory;
use crate::pool::Pool;

/// Bytes written back between two fences.
const AT_ONCE: u64 = 1 << 20;

impl<M: Memory> Pool<M> {
    /// Writes back whatever an earlier process of that broker on this host may have stored and
    /// not written back: its lines, rings and segments. Nothing where no line is ever written
    /// back.
    pub fn write_back_of(&self, broker: BrokerId) {
        if !self.flushes() {
            return;
        }
        let geometry = self.geometry();
        let (at, end) = (geometry.broker_line(broker), geometry.commands_taken(broker));
        self.publish(at, end + LINE_BYTES - at);
        for slot in 0..TOPICS_MAX {
            self.publish(geometry.frontier(slot, broker.index()), LINE_BYTES);
            let stand_ins = geometry.stand_in(slot, broker, 0);
            self.publish(stand_ins, STAND_INS_MAX as u64 * LINE_BYTES);
            self.publish(geometry.lost(slot, broker), LINE_BYTES);
            // Which of them the broker keeps is each topic's: a line that is not this host's is
            // not modified in its caches.
            if let Some(first) = BrokerId::new(0) {
                let lines = (BROKERS_MAX * DISK_REPLICAS_MAX) as u64;
                self.publish(geometry.replica(slot, first, 0), lines * LINE_BYTES);
            }
        }
        self.publish(geometry.requests(broker), COMMAND_RING_BYTES);
        self.publish(geometry.counters(broker.index()), COUNTER_BLOCK_BYTES);
        self.publish(geometry.errors(broker.index()), ERROR_LOG_BYTES);
        for segment in (0..geometry.segments()).map(SegmentId) {
            let header = self.segment_header(segment).filter(|header| header.lost_ns == 0);
            let what = header.and_then(|header| What::unpack(header.what).ok());
            let owned = |what: What| what.kind != SegmentKind::Free && what.owner == broker.raw();
            if what.is_some_and(owned) {
                self.write_back_segment(segment);
            }
        }
    }

    /// Writes back what this host has of a segment, before it goes to another use. Nothing where
    /// no line is ever written back.
    pub fn write_back_segment(&self, segment: SegmentId) {
        let Some(at) = self.geometry().segment(segment).filter(|_| self.flushes()) else { return };
        let bytes = self.geometry().segment_bytes();
        for offset in (0..bytes).step_by(AT_ONCE as usize) {
            self.publish(at + offset, AT_ONCE.min(bytes - offset));
        }
    }
}
