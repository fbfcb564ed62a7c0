//! One log of a topic as a reader follows it from afar: which entries it wants next, and where
//! they are.
//!
//! The chain of segments is followed as on the log's own host (`landfall_pool::log`): by the
//! headers' `next` and `base_index`. Where a segment ends is looked up anew after its entries were
//! read, since a new leader may cut it short: what an old one wrote beyond its frontier must not
//! be taken for an entry.

use landfall_layout::frame::From;
use landfall_layout::order::{ChainLine, FrontierLine, OrderEntry};
use landfall_layout::segment::{SegmentHeader, SegmentKind, What};
use landfall_layout::{SegmentId, TopicId};

/// Entries read with one READ, at most.
pub(super) const ENTRIES_AT_ONCE: u64 = 64;

/// What a log needs next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Want {
    /// Nothing: everything below the frontier was read.
    Nothing,
    /// The headers of these segments.
    Headers { segment: u32, next: Option<u32> },
    /// Entries from `first` to below `until`, which lie in `segment` from `base` on; and the
    /// headers again.
    Entries { segment: u32, next: Option<u32>, base: u64, first: u64, until: u64 },
}

/// The segment that is read.
#[derive(Clone, Copy, Debug)]
struct Here {
    segment: u32,
    header: Option<SegmentHeader>,
    /// The segment after it, and that one's header.
    next: Option<(u32, Option<SegmentHeader>)>,
}

impl Here {
    fn at(segment: u32) -> Self {
        Self { segment, header: None, next: None }
    }
}

/// A search for the first entry that is not before the start that was asked for.
#[derive(Clone, Copy, Debug)]
struct Seek {
    /// All entries below are before it.
    low: u64,
    /// No entry from here on is.
    high: u64,
    /// How far from `high` the next probe goes, while every one has missed: what is sought is
    /// near the end more often than not. 0: halve what is left.
    reach: u64,
}

impl Seek {
    fn probe(&self) -> Option<u64> {
        (self.low < self.high).then(|| {
            if self.reach > 0 {
                self.high.saturating_sub(self.reach).max(self.low)
            } else {
                self.low + (self.high - self.low) / 2
            }
        })
    }

    fn learn(&mut self, index: u64, is_before: bool) {
        if is_before {
            self.low = self.low.max(index + 1);
            self.reach = 0;
        } else {
            self.high = self.high.min(index);
            self.reach = self.reach.saturating_mul(2);
        }
    }
}

/// The log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) topic: TopicId,
    pub(super) log: u8,
    from: From,
    pub(super) frontier: FrontierLine,
    pub(super) chain: Option<ChainLine>,
    /// The next entry to read.
    next: u64,
    /// Entries there were when the subscription began.
    pub(super) goal: u64,
    /// Entries below were shown, or passed over.
    pub(super) shown: u64,
    seek: Option<Seek>,
    here: Option<Here>,
    /// The walk goes on from the head, since it found nothing from where it was.
    from_head: bool,
    /// Retention was faster.
    pub(super) lapped: bool,
    /// Something of it is being read.
    pub(super) is_busy: bool,
}

impl Log {
    /// A log, to be read from `next`, or from where `from` says. `at_start`: the subscription
    /// begins now; what a log holds that begins later is all later than its start.
    pub(super) fn new(
        (topic, log): (TopicId, u8),
        (frontier, chain): (FrontierLine, Option<ChainLine>),
        from: From,
        seen: Option<u64>,
        at_start: bool,
    ) -> Self {
        let end = frontier.entries;
        let oldest = chain.map_or(0, |chain| chain.oldest_index).min(end);
        let from = match from {
            From::Latest if !at_start => From::Earliest,
            from => from,
        };
        let sought = Seek { low: oldest, high: end, reach: 1 };
        let (next, seek) = match (seen, from) {
            (Some(next), _) => (next, None),
            (None, From::Earliest) => (oldest, None),
            (None, From::Latest) => (end, None),
            // Most start where the log ends.
            (None, From::Position(position)) if position >= frontier.position => (end, None),
            (None, From::Position(_) | From::Time(_)) => (oldest, Some(sought)),
        };
        let goal = if at_start { end } else { 0 };
        Self {
            topic,
            log,
            from,
            frontier,
            chain,
            next,
            goal,
            shown: next,
            seek,
            here: None,
            from_head: false,
            // It may begin behind all that was asked for.
            lapped: next == end,
            is_busy: false,
        }
    }

    fn is_before(&self, entry: &OrderEntry) -> bool {
        match self.from {
            From::Position(position) => entry.end_position() <= position,
            From::Time(ns) => entry.landed_ns < ns,
            From::Earliest | From::Latest => false,
        }
    }

    /// Whether everything that was there at the start has been shown.
    pub(super) fn is_caught_up(&self) -> bool {
        self.seek.is_none() && self.shown >= self.goal
    }

    /// The segment that is read, if one is.
    pub(super) fn segment(&self) -> Option<u32> {
        self.here.map(|here| here.segment)
    }

    /// Takes in the log's lines as they are now. False: the log is another topic's.
    pub(super) fn refresh(&mut self, frontier: FrontierLine, chain: Option<ChainLine>) -> bool {
        if self.chain.is_some() && chain.is_none() {
            return false;
        }
        if frontier.entries > self.frontier.entries {
            self.frontier = frontier;
        }
        self.chain = chain.or(self.chain);
        let oldest = self.oldest();
        if oldest > self.next {
            self.lapped = self.lapped || self.seek.is_none();
            self.next = oldest;
            self.here = None;
        }
        if let Some(seek) = &mut self.seek {
            seek.low = seek.low.max(oldest);
        }
        self.end_seek();
        true
    }

    /// Index of the oldest entry that may be read.
    pub(super) fn oldest(&self) -> u64 {
        self.chain.map_or(0, |chain| chain.oldest_index)
    }

    /// The search ends when there is nothing left to probe.
    fn end_seek(&mut self) {
        if let Some(seek) = self.seek
            && seek.probe().is_none()
        {
            self.next = self.next.max(seek.low);
            self.shown = self.next;
            self.seek = None;
            self.here = None;
        }
    }

    fn is_ours(&self, header: &SegmentHeader) -> bool {
        What::unpack(header.what).is_ok_and(|what| {
            what.kind == SegmentKind::OrderLog && what.topic == self.topic && what.log == self.log
        })
    }

    /// What to read next, by what is known now. `capacity`: entries a segment has room for.
    pub(super) fn want(&mut self, capacity: u64) -> Want {
        let wanted = match self.seek {
            Some(seek) => seek.probe(),
            None => Some(self.next).filter(|next| *next < self.frontier.entries),
        };
        let (Some(wanted), Some(chain)) = (wanted, self.chain) else { return Want::Nothing };
        // A walk in one call takes at most as many steps as it knows segments: two.
        for _ in 0..2 {
            let here = match self.here {
                Some(here) => here,
                None => {
                    let start = if self.from_head { chain.head } else { chain.tail };
                    *self.here.insert(Here::at(start))
                }
            };
            let headers =
                Want::Headers { segment: here.segment, next: here.next.map(|(next, _)| next) };
            let Some(header) = here.header else { return headers };
            if !self.is_ours(&header) || header.base_index > wanted {
                // Not this one, nor any after it.
                self.here = None;
                if std::mem::replace(&mut self.from_head, true) {
                    // Nor the head: retention moved meanwhile, and the lines will say so.
                    self.from_head = false;
                    return Want::Nothing;
                }
                continue;
            }
            let end = match here.next {
                Some((_, None)) => return headers,
                Some((next, Some(of_next))) if self.is_ours(&of_next) => {
                    if of_next.base_index <= wanted {
                        self.here = Some(Here {
                            segment: next,
                            header: Some(of_next),
                            next: next_of(&of_next),
                        });
                        continue;
                    }
                    of_next.base_index
                }
                // The chain was changed between two looks.
                Some(_) => {
                    self.here = None;
                    return Want::Nothing;
                }
                None => u64::MAX,
            };
            let base = header.base_index;
            let end = end.min(base.saturating_add(capacity)).min(self.frontier.entries);
            if wanted >= end {
                return headers;
            }
            let until = if self.seek.is_some() { wanted + 1 } else { end };
            let next = here.next.map(|(next, _)| next);
            return Want::Entries { segment: here.segment, next, base, first: wanted, until };
        }
        match self.here {
            Some(here) => Want::Headers { segment: here.segment, next: None },
            None => Want::Nothing,
        }
    }

    /// Takes in the headers of the segment that is read and of the one after it. Returns the index
    /// below which entries of the segment are the log's; `None`: that is not known.
    pub(super) fn learn(
        &mut self,
        segment: u32,
        header: SegmentHeader,
        next: Option<(u32, SegmentHeader)>,
    ) -> Option<u64> {
        if self.here.is_none_or(|here| here.segment != segment) {
            return None;
        }
        if !self.is_ours(&header) {
            self.here = None;
            return None;
        }
        let after = SegmentId(header.next).some().map(|id| id.0);
        let known = next.filter(|(id, _)| Some(*id) == after);
        let of_next = known.map(|(_, of_next)| of_next);
        self.here =
            Some(Here { segment, header: Some(header), next: after.map(|id| (id, of_next)) });
        match (after, of_next) {
            (None, _) => Some(u64::MAX),
            (Some(_), Some(of_next)) if self.is_ours(&of_next) => Some(of_next.base_index),
            (Some(_), _) => None,
        }
    }

    /// Takes in an entry that was read. Whether it is to be shown, and the next one wanted.
    pub(super) fn take(&mut self, index: u64, entry: &OrderEntry) -> bool {
        if entry.commit != index.wrapping_add(1) || index < self.oldest() {
            return false;
        }
        let is_before = self.is_before(entry);
        match &mut self.seek {
            Some(seek) => {
                seek.learn(index, is_before);
                self.end_seek();
                false
            }
            None if index == self.next => {
                self.next += 1;
                true
            }
            None => false,
        }
    }

    /// Nothing is left to read, and retention took what came before.
    pub(super) fn is_at_gap(&self) -> bool {
        self.lapped && self.next >= self.frontier.entries && self.next == self.oldest()
    }

    /// A number that changes whenever the log gets on.
    pub(super) fn progress(&self) -> u64 {
        let seek = self.seek.map_or(0, |seek| seek.high - seek.low + 1);
        let here = self
            .here
            .map_or(0, |here| u64::from(here.segment) + 1 + u64::from(here.header.is_some()) * 7);
        self.next.wrapping_mul(31).wrapping_add(seek).wrapping_mul(31).wrapping_add(here)
    }

    /// Whether there is something below the frontier that was not read.
    pub(super) fn is_behind(&self) -> bool {
        self.seek.is_some() || self.next < self.frontier.entries
    }

    /// The next entry that will be read.
    pub(super) fn next(&self) -> u64 {
        self.next
    }
}

fn next_of(header: &SegmentHeader) -> Option<(u32, Option<SegmentHeader>)> {
    SegmentId(header.next).some().map(|id| (id.0, None))
}
