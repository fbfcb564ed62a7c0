//! What the tables say, loaded once: everything else is held against it.

use std::ops::Range;

use landfall_layout::segment::{SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_layout::{SegmentId, TopicId};

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Topics in the table.
    pub topics: u64,
    /// Segments in use.
    pub segments_used: u64,
    /// Segments of the pool.
    pub segments: u64,
    /// Log entries.
    pub entries: u64,
    /// Ring slots that wait to be ordered.
    pub slots: u64,
    /// Batches read and summed.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Session lines in use.
    pub sessions: u64,
}

/// A topic that the table has.
#[derive(Clone, Debug)]
pub struct TopicFacts {
    /// Its id.
    pub id: TopicId,
    /// Its name, for sentences.
    pub name: String,
    /// Its order, unless the entry says none.
    pub order: Option<Order>,
    /// Its entry.
    pub entry: TopicEntry,
    /// Whether it may be used; else it is being deleted.
    pub live: bool,
}

/// A segment as its header says.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The header.
    pub header: SegmentHeader,
    /// What it is for; `None` when its first word says no known use.
    pub what: Option<What>,
    /// Whether something leads to it.
    pub reached: bool,
}

/// What the tables say.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Epoch of the leader.
    pub epoch: u64,
    /// Topics by slot.
    pub topics: Vec<Option<TopicFacts>>,
    /// Segments by number.
    pub segments: Vec<Segment>,
    /// Rings, each with the bytes of the segment that it lies in.
    pub rings: Vec<(SegmentId, Range<u64>, String)>,
}

impl Facts {
    /// The topic of that id, if the table has it.
    pub fn topic(&self, id: TopicId) -> Option<&TopicFacts> {
        self.topics.get(id.slot())?.as_ref().filter(|topic| topic.id == id)
    }

    /// A segment, if the pool has it.
    pub fn segment(&self, segment: SegmentId) -> Option<&Segment> {
        self.segments.get(segment.0 as usize)
    }

    /// Notes that something leads to a segment.
    pub fn reach(&mut self, segment: SegmentId) {
        if let Some(segment) = self.segments.get_mut(segment.0 as usize) {
            segment.reached = true;
        }
    }

    /// Notes where a ring lies; another one that lies there too, if there is one.
    pub fn lay(&mut self, segment: SegmentId, range: Range<u64>, of: &str) -> Option<String> {
        let meets = |(other, bytes, _): &&(SegmentId, Range<u64>, String)| {
            *other == segment && bytes.start < range.end && range.start < bytes.end
        };
        let other = self.rings.iter().find(meets).map(|(_, _, of)| of.clone());
        self.rings.push((segment, range, of.to_owned()));
        other
    }

    /// What a segment is, for a sentence.
    pub fn describe(&self, segment: SegmentId) -> String {
        let Some(known) = self.segment(segment) else {
            return format!("segment {segment}, which the pool of {} has not", self.segments.len());
        };
        let Some(what) = known.what else {
            return format!("segment {segment}, whose use {:#x} nobody knows", known.header.what);
        };
        let topic = match self.topic(what.topic) {
            Some(topic) => topic.name.clone(),
            None => format!("{:#x}", what.topic.0),
        };
        let state = match what.state {
            SegmentState::Idle => "idle",
            SegmentState::Open => "open",
            SegmentState::Sealed => "sealed",
            SegmentState::Retiring => "retiring",
        };
        match what.kind {
            SegmentKind::Free => format!("segment {segment}, which is free"),
            SegmentKind::Payload => {
                format!("segment {segment}, {state} payload of topic {topic}, owner {}", what.owner)
            }
            SegmentKind::Ring => {
                format!("segment {segment}, for rings of broker {}", what.owner)
            }
            SegmentKind::OrderLog => {
                format!("segment {segment}, of log {} of topic {topic}", what.log)
            }
        }
    }
}
