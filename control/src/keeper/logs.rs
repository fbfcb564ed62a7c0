//! Log segments: chains that grow ahead of their frontier.

use landfall_layout::counters::Counter;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::ChainLine;
use landfall_layout::segment::{OWNER_CONTROL, SegmentKind, SegmentState, What};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::log::LogSegment;

use super::Keeper;
use super::topics::{Log, Passed};
use crate::messages::ToSequencer;
use crate::segments::Purpose;
use landfall_pool::clock::wall_ns;

impl Keeper {
    /// A log segment as its writer needs it.
    pub(super) fn log_segment(&self, segment: SegmentId) -> Option<LogSegment> {
        Some(LogSegment {
            segment,
            at: self.pool.geometry().segment(segment)?,
            base: self.segments.get(segment)?.base_index,
            capacity: self.pool.geometry().entries_per_segment(),
        })
    }

    fn take_log_segment(
        &mut self,
        topic: TopicId,
        log: usize,
        owner: u8,
        place: (u64, Option<SegmentId>),
    ) -> Option<SegmentId> {
        let what = What {
            kind: SegmentKind::OrderLog,
            state: SegmentState::Open,
            owner,
            log: u8::try_from(log).ok()?,
            topic,
        };
        let (base_index, previous) = place;
        let segment = self.segments.take(Purpose { what, base_index, previous }, wall_ns())?;
        self.count(Counter::SegmentsGranted, 1);
        Some(segment)
    }

    /// Starts a log at `base`: its first segment and its chain line. What lies in front of a
    /// broker's own log of which nothing was known it has passed over.
    pub(super) fn begin_log(&mut self, topic: TopicId, log: usize, base: u64) -> Option<Log> {
        let owner = if log == SEQUENCED_LOG { OWNER_CONTROL } else { log as u8 };
        let segment = self.take_log_segment(topic, log, owner, (base, None))?;
        // One that came back from disk is there already, without a segment.
        let known = self.topic(topic).and_then(|topic| topic.logs.get(&log));
        let begins = known.is_none().then(|| self.begins(topic, log)).flatten();
        let position = self.pool.frontier(topic, log).position;
        let passed = begins.map(|(entries, to)| Passed { from: 0, to, positions: to, entries });
        let begun = Log {
            chain: [segment].into(),
            oldest_index: base,
            oldest_position: begins.map_or(position, |(_, to)| to),
            passed: known.map(|known| known.passed).or(passed).unwrap_or_default(),
            ..Log::default()
        };
        self.pool.set_chain(topic, log, &begun.line(topic));
        Some(begun)
    }

    /// Log index and position at which a broker's own log begins that is not there yet, where the
    /// topic was in another pool before.
    fn begins(&self, topic: TopicId, log: usize) -> Option<(u64, u64)> {
        let entry = self.topic(topic)?.entry;
        (log != SEQUENCED_LOG && entry.begin_index > 0)
            .then_some((entry.begin_index, entry.begin_position))
    }

    /// Puts one more segment behind a log, starting it if need be. Readers need the link only
    /// once the frontier has passed into the segment, which nobody can write before it is granted.
    pub(super) fn extend_log(
        &mut self,
        topic: TopicId,
        log: usize,
        owner: u8,
    ) -> Option<SegmentId> {
        let known = self.topic(topic)?.logs.get(&log);
        let begins = known.is_none().then(|| self.begins(topic, log)).flatten();
        let Some(tail) = known.and_then(|log| log.chain.back().copied()) else {
            let reached = self.pool.frontier(topic, log).entries;
            let base = begins.map_or(reached, |(index, _)| index);
            let begun = self.begin_log(topic, log, base)?;
            let first = begun.chain[0];
            self.topic_mut(topic)?.logs.insert(log, begun);
            return Some(first);
        };
        let end = self.segments.get(tail)?.base_index + self.pool.geometry().entries_per_segment();
        let awaits_from = self.topic(topic)?.logs.get(&log)?.awaits_from;
        let place = (awaits_from.unwrap_or(end), Some(tail));
        let segment = self.take_log_segment(topic, log, owner, place)?;
        self.pool.link_segment(tail, segment);
        let known = self.topic_mut(topic)?.logs.get_mut(&log)?;
        known.chain.push_back(segment);
        known.awaits_from = None;
        let line = known.line(topic);
        self.pool.set_chain(topic, log, &line);
        Some(segment)
    }

    /// The next segment for a broker's own log. A new process first gets those again that the one
    /// before it had, from its frontier on.
    pub(super) fn next_own_log(&mut self, topic: TopicId, broker: BrokerId) -> Option<SegmentId> {
        let log = broker.index();
        let capacity = self.pool.geometry().entries_per_segment();
        let reached = self.pool.frontier(topic, log).entries;
        let known = self.topic(topic)?.logs.get(&log);
        let there = known.and_then(|known| {
            let from = known.granted.and_then(|last| known.chain.iter().position(|s| *s == last));
            known.chain.iter().skip(from.map_or(0, |at| at + 1)).copied().find(|segment| {
                self.segments.get(*segment).is_some_and(|u| u.base_index + capacity > reached)
            })
        });
        let segment = match there {
            Some(segment) => segment,
            None => self.extend_log(topic, log, broker.raw())?,
        };
        self.topic_mut(topic)?.logs.get_mut(&log)?.granted = Some(segment);
        Some(segment)
    }

    /// A broker's process ended: the next one begins at the frontiers of its logs.
    pub(super) fn offer_logs_again(&mut self, broker: BrokerId) {
        for topic in self.topics.iter_mut().flatten().filter(|t| !t.order.is_sequenced()) {
            if let Some(log) = topic.logs.get_mut(&broker.index()) {
                log.granted = None;
            }
        }
    }

    /// Gives the sequencer room for `room` entries behind the topic's frontier, if there is any.
    pub(super) fn extend_sequenced(&mut self, topic: TopicId, room: u64) {
        let capacity = self.pool.geometry().entries_per_segment();
        loop {
            let Some(log) = self.live_topic(topic).and_then(|it| it.logs.get(&SEQUENCED_LOG))
            else {
                return;
            };
            let reached = self.pool.frontier(topic, SEQUENCED_LOG).entries;
            let (tail, awaits_from) = (log.chain.back().copied(), log.awaits_from);
            let Some(end) =
                awaits_from.or_else(|| Some(self.segments.get(tail?)?.base_index + capacity))
            else {
                return;
            };
            if end.saturating_sub(reached) >= room {
                return;
            }
            if awaits_from.is_some()
                && let Some(rest) = self.rest_of(tail, reached)
            {
                self.has_segment(topic);
                self.tell_sequencer(ToSequencer::AddLog { topic, segment: rest });
                continue;
            }
            let Some(segment) = self.extend_log(topic, SEQUENCED_LOG, OWNER_CONTROL) else {
                return;
            };
            let Some(segment) = self.log_segment(segment) else { return };
            self.tell_sequencer(ToSequencer::AddLog { topic, segment });
        }
    }

    /// What is left of a log's last segment from `reached` on, once nobody writes there any more.
    fn rest_of(&self, tail: Option<SegmentId>, reached: u64) -> Option<LogSegment> {
        let tail = tail.filter(|tail| !self.segments.is_suspect(*tail))?;
        self.log_segment(tail).filter(|rest| rest.holds(reached))
    }

    fn has_segment(&mut self, topic: TopicId) {
        let log = self.topic_mut(topic).and_then(|topic| topic.logs.get_mut(&SEQUENCED_LOG));
        log.into_iter().for_each(|log| log.awaits_from = None);
    }

    /// Keeps every sequenced log at least half a segment ahead of its frontier.
    pub(super) fn room_for_logs(&mut self) {
        let half = self.pool.geometry().entries_per_segment() / 2;
        let sequenced: Vec<TopicId> = self
            .topics
            .iter()
            .flatten()
            .filter(|topic| topic.is_live() && topic.order.is_sequenced())
            .map(|topic| topic.id)
            .collect();
        for topic in sequenced {
            self.extend_sequenced(topic, half);
        }
    }

    /// Frees the segments of a log that lie wholly below its oldest index. Readers copy entries
    /// and look at the oldest index after, so nobody has to be asked.
    pub(super) fn trim_log(&mut self, topic: TopicId, log: usize) {
        loop {
            let Some(known) = self.topic(topic).and_then(|topic| topic.logs.get(&log)) else {
                return;
            };
            let (Some(head), Some(next)) = (known.chain.front(), known.chain.get(1)) else {
                return;
            };
            let head = *head;
            let base = self.segments.get(*next).map_or(u64::MAX, |used| used.base_index);
            if base > known.oldest_index {
                return;
            }
            let Some(known) = self.topic_mut(topic).and_then(|topic| topic.logs.get_mut(&log))
            else {
                return;
            };
            known.chain.pop_front();
            let line = known.line(topic);
            self.pool.set_chain(topic, log, &line);
            self.segments.give_back(head);
            self.count(Counter::SegmentsFreed, 1);
        }
    }
}

impl Log {
    /// The log's chain line.
    pub fn line(&self, topic: TopicId) -> ChainLine {
        let end = |segment: Option<&SegmentId>| segment.map_or(SegmentId::NONE.0, |s| s.0);
        ChainLine {
            oldest_index: self.oldest_index,
            oldest_position: self.oldest_position,
            head: end(self.chain.front()),
            tail: end(self.chain.back()),
            topic: topic.0.into(),
            skipped_from: self.passed.from,
            skipped_to: self.passed.to,
            skipped_positions: self.passed.positions,
            skipped_entries: self.passed.entries,
        }
    }
}
