//! A place in one log, and what is sent from there: batches and gaps.

use landfall_layout::TopicId;
use landfall_layout::frame::{Delivery, FRAME_BYTES, Frame, From, GapReason, LogPlace};
use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_pool::hold::Hold;
use landfall_pool::log::{Found, LogReader};
use landfall_pool::shared::SharedBytes;
use landfall_replica::lives::first_part;
use landfall_replica::lookup::Start;

use crate::catch_up::{Feed, Missing, Place, Reader};
use crate::env::{Env, Unfaithful};
use crate::replica::check_batch;

/// Entries of unwritten positions that one gap tells of.
const HOLES_PER_GAP: u32 = 1024;

/// A place in one log.
pub struct Cursor {
    pub reader: LogReader,
    pub next: u64,
    /// Position expected next: a jump is a gap.
    pub position: u64,
    /// What files said of what is missing before it.
    pub missing: Option<Missing>,
    /// Batches that end at or below this position were not asked for.
    skip_below: u64,
    /// Entries there were when the subscription began.
    pub goal: u64,
    frontier: u64,
    /// A gap was told of in part, and goes on up to this position.
    gap_until: Option<u64>,
    /// What it needs next is read from replica files.
    pub feed: Option<Feed>,
    /// Files that were open for a batch that did not hold: the next one is likely there too.
    pub spare: Option<Box<Reader>>,
    /// Entries below this index are sent as memory has them: they were checked.
    pub checked_below: u64,
    /// Index of an entry whose batch neither memory nor any copy has whole.
    pub nowhere: Option<u64>,
    /// Files are looked in before every gap, and keep everything: what is in none was lost.
    pub keeps_all: bool,
}

/// What a cursor may do beside sending what memory has.
#[derive(Clone, Copy)]
pub struct Beside {
    /// What is not in memory can be read from replica files.
    pub has_disk: bool,
    /// What memory has is checked first. What does not hold there is read from files too.
    pub checks: bool,
}

/// One frame and the batch behind it, if there is one.
#[derive(Clone, Copy)]
pub struct Item {
    head: [u8; FRAME_BYTES],
    pub segment: u32,
    offset: u32,
    pub bytes: u32,
    pub landed_ns: u64,
    pub missed: u64,
    /// Where its cursor was before it.
    pub undo: Option<(usize, u64, u64)>,
}

impl Item {
    pub const NONE: Self = Self {
        head: [0; FRAME_BYTES],
        segment: 0,
        offset: 0,
        bytes: 0,
        landed_ns: 0,
        missed: 0,
        undo: None,
    };

    pub fn frame(frame: Frame) -> Self {
        Self { head: frame.encode(0), ..Self::NONE }
    }

    pub fn head(&self) -> &[u8; FRAME_BYTES] {
        &self.head
    }

    /// Where its batch begins in the segment.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    pub fn len(&self) -> usize {
        FRAME_BYTES + self.bytes as usize
    }

    /// What is left of it after `sent` bytes, in two pieces.
    pub fn rest<'a>(
        &'a self,
        env: &'a Env,
        hold: &'a Hold,
        sent: usize,
    ) -> (&'a [u8], SharedBytes<'a>) {
        let body = match self.bytes {
            0 => SharedBytes::EMPTY,
            bytes => env.pool.shared(hold, self.offset, bytes).unwrap_or(SharedBytes::EMPTY),
        };
        let head = self.head.get(sent..).unwrap_or_default();
        (head, body.behind(sent.saturating_sub(FRAME_BYTES)))
    }
}

impl Cursor {
    pub fn new(env: &Env, topic: TopicId, log: usize, from: From, frontier: &FrontierLine) -> Self {
        let mut reader = LogReader::new(topic, log);
        let oldest = env.pool.chain(topic, log).map_or(0, |chain| chain.oldest_index);
        let end = frontier.entries;
        let start = oldest.min(end);
        let next = match from {
            From::Earliest => start,
            From::Latest => end,
            From::Position(position) => {
                reader.partition(&env.pool, start, end, |entry| entry.end_position() <= position)
            }
            From::Time(ns) => reader.partition(&env.pool, start, end, |entry| entry.landed_ns < ns),
        };
        let (next, begins) = begin(env, &mut reader, (next, end), frontier.position);
        // What is not there any more of what was asked for is a gap, and has a reason.
        let position = if let From::Position(wanted) = from { begins.min(wanted) } else { begins };
        let skip_below = if let From::Position(position) = from { position } else { 0 };
        // Nothing is left of it that the gap could be measured by.
        let gap_until = (next == end && position < begins).then_some(begins);
        Self {
            reader,
            next,
            position,
            missing: None,
            skip_below,
            goal: end,
            frontier: end,
            gap_until,
            feed: None,
            spare: None,
            checked_below: 0,
            nowhere: None,
            keeps_all: false,
        }
    }

    /// Goes on where its subscriber was, in memory or not. A place that the log has not come to is
    /// of another life of the topic: then it begins where it would, and what was seen the
    /// subscriber passes over.
    pub fn go_on(&mut self, place: &LogPlace, frontier: &FrontierLine) {
        if place.next <= frontier.entries && place.position <= frontier.position {
            (self.next, self.position, self.skip_below) = (place.next, place.position, 0);
            self.gap_until = None;
        }
    }

    /// Begins with a batch that memory does not have.
    pub fn begin_on_disk(&mut self, start: &Start) {
        self.next = start.index;
        self.gap_until = None;
        self.position = self.position.min(start.position);
        self.feed = Some(Feed::default());
    }

    /// Whether it has sent what there was when its subscriber came, and what there was not.
    pub fn is_caught_up(&self) -> bool {
        self.next >= self.goal && self.gap_until.is_none()
    }

    #[inline]
    pub fn is_behind(&mut self, env: &Env, topic: TopicId) -> bool {
        if self.next >= self.frontier {
            self.frontier = env.pool.frontier(topic, self.reader.log()).entries;
        }
        self.next < self.frontier || self.gap_until.is_some()
    }

    pub fn next_item(
        &mut self,
        env: &Env,
        topic: TopicId,
        me: usize,
        beside: Beside,
        skips: &mut u32,
    ) -> Option<Item> {
        while *skips > 0 && self.is_behind(env, topic) {
            if let Some(until) = self.gap_until {
                return Some(self.gap(env, topic, me, until));
            }
            match self.reader.entry(&env.pool, self.next) {
                Found::Entry(entry) if entry.end_position() <= self.skip_below => {
                    self.next += 1;
                    self.position = entry.end_position();
                    *skips -= 1;
                }
                Found::Entry(entry) if entry.first_position > self.position => {
                    return Some(self.gap(env, topic, me, entry.first_position));
                }
                Found::Entry(entry) if entry.is_hole() => {
                    return Some(self.unwritten(env, topic, me));
                }
                Found::Entry(entry) if beside.checks && !self.holds(env, topic, &entry) => {
                    if beside.has_disk && self.nowhere != Some(self.next) {
                        self.feed = Some(Feed::repair(self.next, self.spare.take()));
                        return None;
                    }
                    return Some(self.corrupt(me, &entry));
                }
                Found::Entry(entry) => match self.item(env, me, &entry) {
                    Some(item) => return Some(item),
                    None => *skips -= 1,
                },
                Found::Lapped { .. } if beside.has_disk => {
                    self.feed = Some(Feed::default());
                    return None;
                }
                Found::Lapped { oldest } => {
                    self.next = oldest.max(self.next + 1);
                    if let Some(item) = self.gap_to_end(env, topic, me) {
                        return Some(item);
                    }
                }
                // The topic is being deleted, or the chain moved while it was read.
                Found::Gone => return None,
            }
        }
        None
    }

    /// Whether memory has the batch of the next entry as its broker landed it. Where it has not,
    /// and the memory can be read, somebody has written there since: its publisher can, and is
    /// named.
    #[cold]
    fn holds(&mut self, env: &Env, topic: TopicId, entry: &OrderEntry) -> bool {
        if self.next < self.checked_below {
            return true;
        }
        if self.nowhere == Some(self.next) {
            return false;
        }
        if check_batch(&env.pool, topic, entry).is_ok() {
            self.checked_below = self.next + 1;
            return true;
        }
        if env.pool.is_lost(entry.segment) {
            // One sentence for a segment, or a thousand batches would crowd out other errors.
            env.error(&format!(
                "batches in segment {} do not hold in memory any more: they are read from \
                 replicas, for subscribers that find it out",
                entry.segment
            ));
        } else {
            env.is_unfaithful(Unfaithful::of(topic, entry));
        }
        false
    }

    /// Tells of a batch that nobody has whole.
    #[cold]
    fn corrupt(&mut self, me: usize, entry: &OrderEntry) -> Item {
        let undo = Some((me, self.next, self.position));
        self.nowhere = Some(self.next);
        self.next += 1;
        let end = entry.end_position().max(self.position);
        self.gap_of(GapReason::Corrupt, end, undo)
    }

    /// The batch of an entry. One that cannot be is passed over, and is a gap by its positions.
    fn item(&mut self, env: &Env, me: usize, entry: &OrderEntry) -> Option<Item> {
        let undo = Some((me, self.next, self.position));
        let index = self.next;
        self.next += 1;
        if env.pool.at(entry.segment, entry.offset, entry.bytes).is_none() || entry.bytes == 0 {
            broken(env, self.reader.log(), index, entry);
            return None;
        }
        self.position = entry.end_position();
        let frame = Frame::Delivery(Delivery {
            log: self.reader.log() as u8,
            broker: entry.broker,
            count: entry.count,
            bytes: entry.bytes,
            index,
            first_position: entry.first_position,
            landed_ns: entry.landed_ns,
            checksum: entry.checksum,
        });
        Some(Item {
            segment: entry.segment,
            offset: entry.offset,
            bytes: entry.bytes,
            landed_ns: entry.landed_ns,
            undo,
            ..Item::frame(frame)
        })
    }

    #[cold]
    fn gap(&mut self, env: &Env, topic: TopicId, me: usize, resume: u64) -> Item {
        let undo = Some((me, self.next, self.position));
        let chain = env.pool.chain(topic, self.reader.log());
        let skipped = chain.and_then(|chain| chain.skipped());
        let part = first_part(self.position, resume, skipped);
        self.gap_until = (part.end < resume).then_some(resume);
        let place = Place { missing: self.missing, ..Place::new(self.next, self.position) };
        let is_lost = self.keeps_all || place.missing().is_some_and(|missing| missing.is_lost());
        self.gap_of(part.reason(is_lost), part.end, undo)
    }

    /// Goes on behind what was read from files. What was read tells of a gap that a part was told
    /// of before, as far as it came.
    pub fn go_to(&mut self, place: Place) {
        self.next = place.next;
        self.position = place.position;
        self.missing = place.missing;
        self.gap_until = self.gap_until.filter(|until| *until > self.position);
    }

    /// Goes back to before an item that was not sent.
    pub fn go_back(&mut self, next: u64, position: u64) {
        // The rest of a gap at the log's end has no entry to be measured by.
        self.gap_until = self
            .gap_until
            .or((self.next == next && position < self.position).then_some(self.position));
        (self.next, self.position) = (next, position);
        // It may be a long while until they are sent, and memory can change meanwhile.
        self.checked_below = self.checked_below.min(next);
        // A batch that does not hold is come to again; what is before it, memory has.
        if self.feed.as_ref().is_some_and(|feed| feed.repairs_behind(next)) {
            self.spare = self.feed.take().and_then(Feed::into_reader);
        }
    }

    /// Positions that nothing was written to, as many entries as say so one behind the other.
    #[cold]
    fn unwritten(&mut self, env: &Env, topic: TopicId, me: usize) -> Item {
        let undo = Some((me, self.next, self.position));
        let mut resume = self.position;
        for _ in 0..HOLES_PER_GAP {
            if !self.is_behind(env, topic) {
                break;
            }
            let Found::Entry(entry) = self.reader.entry(&env.pool, self.next) else { break };
            if !entry.is_hole() || entry.first_position > resume {
                break;
            }
            self.next += 1;
            resume = resume.max(entry.end_position());
        }
        self.gap_of(GapReason::Unwritten, resume, undo)
    }

    fn gap_of(&mut self, reason: GapReason, resume: u64, undo: Option<(usize, u64, u64)>) -> Item {
        let resume = resume.max(self.position);
        let missed = resume - self.position;
        self.position = resume;
        let log = self.reader.log() as u8;
        let counted = if reason == GapReason::Skipped { 0 } else { missed };
        Item { missed: counted, undo, ..Item::frame(Frame::Gap { log, reason, missed, resume }) }
    }

    /// Retention took everything up to the end: there is no entry to measure the gap by.
    #[cold]
    pub fn gap_to_end(&mut self, env: &Env, topic: TopicId, me: usize) -> Option<Item> {
        let frontier = env.pool.frontier(topic, self.reader.log());
        if self.next < frontier.entries {
            return None;
        }
        let chain = env.pool.chain(topic, self.reader.log())?;
        (chain.oldest_index == self.next && chain.oldest_position > self.position)
            .then(|| self.gap(env, topic, me, chain.oldest_position))
    }
}

#[cold]
fn broken(env: &Env, log: usize, index: u64, entry: &OrderEntry) {
    env.error(&format!(
        "entry {index} of log {log} names {} bytes at {} of segment {}, which the pool does not \
         have",
        entry.bytes, entry.offset, entry.segment
    ));
}

/// The first entry from `next` on that is there, below the `end` of a log that has come to
/// `position`, and where it stands; the end, where there is none. Retention may take the ones that
/// were there a moment before.
pub fn begin(
    env: &Env,
    reader: &mut LogReader,
    (mut next, end): (u64, u64),
    position: u64,
) -> (u64, u64) {
    while next < end {
        match reader.entry(&env.pool, next) {
            Found::Entry(entry) => return (next, entry.first_position),
            Found::Lapped { oldest } => next = oldest.max(next + 1),
            Found::Gone => break,
        }
    }
    (end, position)
}
