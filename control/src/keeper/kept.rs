//! What dead brokers leave behind is kept for publishers to read back, up to a bound.

use std::collections::BTreeSet;

use landfall_layout::segment::{SegmentKind, SegmentState};
use landfall_layout::{BrokerId, SegmentId};

use super::Keeper;

/// One part of the pool in so many is kept for the dead processes of one broker.
const KEPT_PART: u32 = 8;
/// Fewest segments that are kept for them: what one process has of one topic.
const KEPT_LEAST: usize = 2;

impl Keeper {
    /// Keeps no more than a part of the pool for the dead processes of a broker, so that one which
    /// dies again and again does not fill it with what nobody wrote. The oldest go first: whoever
    /// wrote there has met later processes since, and read it back.
    pub(super) fn bound_kept(&mut self, id: BrokerId, now_ns: u64) {
        let kept = self.segments.all().filter(|(_, used)| {
            used.what.owner == id.raw()
                && used.what.kind == SegmentKind::Payload
                && used.what.state == SegmentState::Sealed
                && used.kept_until_ns > now_ns
        });
        let mut kept: Vec<(u64, SegmentId)> =
            kept.map(|(segment, used)| (used.kept_until_ns, segment)).collect();
        let most = KEPT_LEAST.max((self.segments.total() / KEPT_PART) as usize);
        if kept.len() <= most {
            return;
        }
        kept.sort_unstable();
        kept.truncate(kept.len() - most);
        let let_go: BTreeSet<SegmentId> = kept.into_iter().map(|(_, segment)| segment).collect();
        for segment in &let_go {
            if let Some(used) = self.segments.get_mut(*segment) {
                used.kept_until_ns = now_ns;
            }
        }
        for (_, due_ns) in self.unpadded.iter_mut().filter(|(of, _)| let_go.contains(of)) {
            *due_ns = now_ns;
        }
    }
}
