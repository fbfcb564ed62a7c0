//! What a reader from afar reads next, and what it makes of it.
//!
//! A pure value over memory that READs land in: it plans bursts of READs, somebody carries them
//! out in order, and it is told when a burst is done. Every burst ends with READs of the topic's
//! lines, fenced behind everything else in it: their oldest index, loaded after the bytes were
//! copied, decides whether what was read counts.

mod plan;

use std::collections::VecDeque;
use std::sync::Arc;

use landfall_layout::TopicId;
use landfall_layout::batch::PREAMBLE_BYTES;
use landfall_layout::frame::{From, GapReason};
use landfall_layout::limits::{BROKERS_MAX, LINE_BYTES, SEQUENCED_LOG};
use landfall_layout::order::{ChainLine, FrontierLine, OrderEntry};
use landfall_layout::segment::SegmentHeader;
use landfall_layout::verbs::Said;
use landfall_nic::Remote;
use landfall_pool::{Mapping, Memory};

pub(super) use self::plan::READS_MAX;
use super::log::Log;
use super::slots::{Granted, Slots};
use super::space::Space;
use crate::error::Corruption;
use crate::subscriber::places::{Arrival, Places};

/// Bursts under way at a time: one is looked at while the other travels.
pub(super) const BURSTS: usize = 2;
/// Lines of each burst that are not payload: the topic's, headers, entries.
const LINES_BYTES: u64 = 192 << 10;
/// Bytes of a log's frontier and chain lines.
const PAIR_BYTES: u64 = 2 * LINE_BYTES;

/// One READ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Read {
    pub(super) from: Remote,
    /// Where it lands.
    pub(super) into: u64,
    pub(super) bytes: u32,
    /// It begins when all READs before it are done.
    pub(super) fence: bool,
}

/// What a batch's payload has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// Under way, in the burst of that number.
    Reading {
        burst: u64,
        at: u64,
    },
    Here {
        at: u64,
    },
    /// Nothing was written to its positions.
    Hole,
    /// Retention was faster.
    Overtaken,
    Bad(Corruption),
}

/// An entry that was read, and its batch.
#[derive(Debug)]
struct Item {
    log: usize,
    index: u64,
    entry: OrderEntry,
    state: State,
    /// Space to give back with it.
    end: Option<u64>,
}

struct Burst {
    number: u64,
    area: u64,
    lines_at: u64,
    entries: Vec<EntryRead>,
    headers: Vec<HeaderRead>,
    slots: Vec<u8>,
}

struct EntryRead {
    log: usize,
    first: u64,
    count: u64,
    at: u64,
}

struct HeaderRead {
    log: usize,
    segment: u32,
    at: u64,
    next: Option<(u32, u64)>,
}

/// Where the topic's lines and the segment headers are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables {
    pub(super) topic: TopicId,
    pub(super) sequenced: bool,
    /// A place for log 0's frontier line, its chain line behind it, and so on for each log. Only
    /// the sequenced log's frontier is there.
    pub(super) lines: Remote,
    /// Frontier lines of the brokers' own logs.
    pub(super) frontiers: Remote,
    /// Segment 0's header.
    pub(super) headers: Remote,
    pub(super) batch_bytes_max: u32,
    /// Entries that a segment has room for, once one was opened.
    pub(super) capacity: u64,
}

/// What is next in the order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Front {
    Nothing,
    /// A batch, `at` in the landing memory.
    Batch {
        log: u8,
        index: u64,
        entry: OrderEntry,
        at: u64,
    },
    /// It cannot be read: what the log says of it makes no sense.
    Bad {
        log: u8,
        index: u64,
        position: u64,
        /// Its messages.
        count: u16,
        why: Corruption,
    },
    /// Messages before `resume` that will never be seen.
    Gap {
        log: u8,
        reason: GapReason,
        missed: u64,
        resume: u64,
    },
}

/// The reader.
pub(super) struct Machine {
    tables: Tables,
    from: From,
    landing: Arc<Mapping>,
    space: Space,
    pub(super) slots: Slots,
    logs: Vec<Log>,
    turn: usize,
    items: VecDeque<Item>,
    bursts: VecDeque<Burst>,
    next_burst: u64,
    started: bool,
    /// The segment that each broker's latest batch lies in, and those that were passed.
    latest: [Option<u32>; BROKERS_MAX],
    passed: Vec<u32>,
    /// The topic's lines are another's now.
    pub(super) is_gone: bool,
    /// Counts what got on.
    pub(super) progress: u64,
}

/// Bytes that READs land in, for `payload_bytes` of payload.
pub(super) fn landing_bytes(payload_bytes: u64) -> u64 {
    BURSTS as u64 * LINES_BYTES + payload_bytes
}

impl Machine {
    /// A reader that lands in all of `landing`.
    pub(super) fn new(tables: Tables, from: From, landing: Arc<Mapping>) -> Self {
        let payload = landing.bytes().saturating_sub(BURSTS as u64 * LINES_BYTES) / 64 * 64;
        Self {
            tables,
            from,
            landing,
            space: Space::new(payload),
            slots: Slots::default(),
            logs: Vec::new(),
            turn: 0,
            items: VecDeque::new(),
            bursts: VecDeque::new(),
            next_burst: 0,
            started: false,
            latest: [None; BROKERS_MAX],
            passed: Vec::new(),
            is_gone: false,
            progress: 0,
        }
    }

    fn first_log(&self) -> usize {
        if self.tables.sequenced { SEQUENCED_LOG } else { 0 }
    }

    fn log_count(&self) -> usize {
        if self.tables.sequenced { 1 } else { BROKERS_MAX }
    }

    /// Whether everything that was there at the start has been shown.
    pub(super) fn is_caught_up(&self) -> bool {
        self.started && self.logs.iter().all(Log::is_caught_up)
    }

    /// Whether something is there that was not shown, or is not known to be.
    pub(super) fn is_behind(&self) -> bool {
        !self.started || !self.items.is_empty() || self.logs.iter().any(Log::is_behind)
    }

    /// Where reading stands, for people.
    pub(super) fn describe(&self) -> String {
        let of = |log: &Log| {
            let end = log.frontier.entries;
            format!("log {} stands at entry {} of {end}", log.log, log.next())
        };
        let behind: Vec<String> = self.logs.iter().filter(|log| log.is_behind()).map(of).collect();
        if behind.is_empty() {
            return format!("{} batches wait for their bytes", self.items.len());
        }
        behind.join(", ")
    }

    /// The broker opened a segment; what is wrong with that otherwise.
    pub(super) fn granted(&mut self, granted: Granted) -> Result<(), String> {
        // All segments of a pool have one size.
        self.tables.capacity = u64::from(granted.bytes) / OrderEntry::BYTES;
        self.slots.granted(granted)
    }

    /// The oldest burst is done: everything it read has landed.
    pub(super) fn complete(&mut self, places: &Places, say: &mut Vec<Said>) {
        let Some(burst) = self.bursts.pop_front() else { return };
        let landing = Arc::clone(&self.landing);
        landing.acquire_fence();
        for slot in &burst.slots {
            self.slots.end(*slot, say);
        }
        self.take_lines(&landing, burst.lines_at, places);
        let header_at = |at| SegmentHeader::from_words(landing.load_words(at));
        let mut ends = vec![None; self.logs.len()];
        for read in &burst.headers {
            let log = &mut self.logs[read.log];
            let before = log.progress();
            let next = read.next.map(|(next, at)| (next, header_at(at)));
            ends[read.log] = log.learn(read.segment, header_at(read.at), next);
            log.is_busy = false;
            self.progress += u64::from(log.progress() != before);
        }
        for read in &burst.entries {
            self.take_entries(&landing, read, ends[read.log]);
        }
        for item in &mut self.items {
            let overtaken = item.index < self.logs[item.log].oldest();
            match item.state {
                State::Reading { burst: number, at } if number == burst.number => {
                    self.progress += 1;
                    item.state = if overtaken { State::Overtaken } else { State::Here { at } };
                }
                State::Waiting if overtaken => item.state = State::Overtaken,
                _ => {}
            }
        }
    }

    fn take_lines(&mut self, landing: &Mapping, lines_at: u64, places: &Places) {
        let topic = self.tables.topic;
        for offset in 0..self.log_count() {
            let number = (self.first_log() + offset) as u8;
            let at = lines_at + offset as u64 * PAIR_BYTES;
            let frontier_at = match self.tables.sequenced {
                true => at,
                false => lines_at + self.lines_bytes() + u64::from(number) * LINE_BYTES,
            };
            let frontier = FrontierLine::from_words(landing.load_words(frontier_at));
            let chain = ChainLine::from_words(landing.load_words(at + LINE_BYTES));
            let is_ours = frontier.topic == u64::from(topic.0);
            let frontier = if is_ours { frontier } else { FrontierLine::default() };
            let chain = (chain.topic == u64::from(topic.0)).then_some(chain);
            let frontier = self.begun(frontier, chain.as_ref());
            if let Some(log) = self.logs.iter_mut().find(|log| log.log == number) {
                self.is_gone |= !log.refresh(frontier, chain);
                continue;
            }
            if !self.tables.sequenced && frontier.entries == 0 && chain.is_none() {
                continue;
            }
            let seen = places.get(number).and_then(|place| place.next);
            let is_start = !self.started;
            let lines = (frontier, chain);
            self.logs.push(Log::new((topic, number), lines, self.from, seen, is_start));
            self.progress += 1;
        }
        self.started = true;
    }

    /// A log that came back from disk begins where its chain says, until its broker lands.
    fn begun(&self, frontier: FrontierLine, chain: Option<&ChainLine>) -> FrontierLine {
        match chain {
            Some(chain) if !self.tables.sequenced && frontier.entries == 0 => FrontierLine {
                entries: chain.oldest_index,
                position: chain.oldest_position,
                ..frontier
            },
            _ => frontier,
        }
    }

    fn take_entries(&mut self, landing: &Mapping, read: &EntryRead, end: Option<u64>) {
        let log = &mut self.logs[read.log];
        for i in 0..read.count {
            let index = read.first + i;
            if end.is_none_or(|end| index >= end) {
                return;
            }
            let at = read.at + i * OrderEntry::BYTES;
            let entry = OrderEntry::from_words(landing.load_words(at));
            let before = log.progress();
            let wanted = log.take(index, &entry);
            self.progress += u64::from(log.progress() != before);
            if wanted && entry.is_hole() {
                let state = State::Hole;
                self.items.push_back(Item { log: read.log, index, entry, state, end: None });
            } else if wanted {
                let fits = (PREAMBLE_BYTES..=self.tables.batch_bytes_max).contains(&entry.bytes);
                let OrderEntry { segment, offset, bytes, .. } = entry;
                let latest = self.latest.get_mut(usize::from(entry.broker));
                let left = latest.and_then(|latest| latest.replace(segment));
                if let Some(left) = left.filter(|left| *left != segment)
                    && self.items.iter().all(|item| item.entry.segment != left)
                {
                    self.passed.push(left);
                }
                let state = if fits {
                    State::Waiting
                } else {
                    State::Bad(Corruption::Outside { segment, offset, bytes })
                };
                self.items.push_back(Item { log: read.log, index, entry, state, end: None });
            }
        }
    }

    /// What comes next in the order. It stays there until [`pass`](Self::pass).
    pub(super) fn front(&mut self, places: &mut Places) -> Front {
        loop {
            let Some(item) = self.items.front() else { return self.gap_to_end(places) };
            let (log, index) = (self.logs[item.log].log, item.index);
            let (first, end) = (item.entry.first_position, item.entry.end_position());
            match &item.state {
                State::Waiting | State::Reading { .. } => return Front::Nothing,
                State::Overtaken => {
                    self.logs[item.log].lapped = true;
                    self.pass();
                    continue;
                }
                State::Hole | State::Bad(_) | State::Here { .. } => {}
            }
            match places.judge(log, index, first, end) {
                Arrival::Old => self.pass(),
                Arrival::AfterGap { missed } => {
                    places.resumed(log, first);
                    let reason = GapReason::Retention;
                    return Front::Gap { log, reason, missed, resume: first };
                }
                Arrival::Next if item.state == State::Hole => {
                    let from = places.get(log).and_then(|place| place.position).unwrap_or(first);
                    let resume = self.pass_holes(places, from);
                    if let missed @ 1.. = resume - from {
                        let reason = GapReason::Unwritten;
                        return Front::Gap { log, reason, missed, resume };
                    }
                }
                Arrival::Next => {
                    return match &item.state {
                        State::Here { at } => {
                            Front::Batch { log, index, entry: item.entry, at: *at }
                        }
                        State::Bad(why) => {
                            let (position, count) = (first, item.entry.count);
                            Front::Bad { log, index, position, count, why: why.clone() }
                        }
                        _ => Front::Nothing,
                    };
                }
            }
        }
    }

    /// Passes what is at the front and says that nothing was written from position `from` on; the
    /// position that reading goes on from.
    #[cold]
    fn pass_holes(&mut self, places: &mut Places, from: u64) -> u64 {
        let mut resume = from;
        let of = self.items.front().map(|item| item.log);
        while let Some(Item { log, index, entry, state: State::Hole, .. }) = self.items.front()
            && Some(*log) == of
            && entry.first_position <= resume
        {
            resume = resume.max(entry.end_position());
            places.shown(self.logs[*log].log, *index, resume);
            self.pass();
        }
        resume
    }

    /// What was at the front is done with: its bytes were copied out, or are not wanted.
    pub(super) fn pass(&mut self) {
        if let Some(item) = self.items.pop_front() {
            let log = &mut self.logs[item.log];
            log.shown = log.shown.max(item.index + 1);
            self.progress += 1;
            if let Some(end) = item.end {
                self.space.give_back(end);
            }
            if item.state != State::Hole {
                self.note_passed(item.entry.segment, item.entry.broker);
            }
        }
    }

    /// A segment that a broker has left, and from which nothing is wanted any more, goes back.
    #[inline]
    fn note_passed(&mut self, segment: u32, broker: u8) {
        let latest = self.latest.get(usize::from(broker)).copied().flatten();
        let follows = self.items.front().is_some_and(|item| item.entry.segment == segment);
        if latest == Some(segment) || follows {
            return;
        }
        if self.items.iter().all(|item| item.entry.segment != segment) {
            self.passed.push(segment);
        }
    }

    /// Retention took everything there was: the gap reaches to where the log goes on.
    fn gap_to_end(&mut self, places: &mut Places) -> Front {
        for log in self.logs.iter_mut().filter(|log| log.is_at_gap()) {
            log.lapped = false;
            log.shown = log.next();
            let resume = log.chain.map_or(0, |chain| chain.oldest_position);
            let known = places.get(log.log).and_then(|place| place.position);
            let missed = known.map_or(0, |position| resume.saturating_sub(position));
            if missed > 0 {
                places.resumed(log.log, resume);
                let reason = GapReason::Retention;
                return Front::Gap { log: log.log, reason, missed, resume };
            }
        }
        Front::Nothing
    }
}

#[cfg(test)]
mod tests;
