//! What a reader from afar reads next, and what it makes of it.
//!
//! A pure value over memory that READs land in: it plans bursts of READs, somebody carries them
//! out in order, and it is told when a burst is done. Every burst ends with READs of the topic's
//! lines, fenced behind everything else in it: their oldest index, loaded after the bytes were
//! copied, decides whether what was read counts.

use std::collections::VecDeque;
use std::sync::Arc;

use landfall_layout::TopicId;
use landfall_layout::batch::PREAMBLE_BYTES;
use landfall_layout::frame::From;
use landfall_layout::limits::{BROKERS_MAX, LINE_BYTES, SEQUENCED_LOG};
use landfall_layout::order::{ChainLine, FrontierLine, OrderEntry};
use landfall_layout::segment::SegmentHeader;
use landfall_layout::verbs::Said;
use landfall_nic::Remote;
use landfall_pool::{Mapping, Memory};

use super::log::{ENTRIES_AT_ONCE, Log, Want};
use super::slots::{Granted, Slots};
use super::space::Space;
use crate::error::Corruption;
use crate::subscriber::places::{Arrival, Places};

/// Bursts under way at a time: one is looked at while the other travels.
pub(super) const BURSTS: usize = 2;
/// READs of a burst, at most. Two bursts fit the send queue.
pub(super) const READS_MAX: usize = 112;
/// Lines of each burst that are not payload: the topic's, headers, entries.
const LINES_BYTES: u64 = 192 << 10;
/// Entries known ahead of what is shown.
const ITEMS_MAX: usize = 512;
/// READs of entries for one log in a burst.
const ENTRY_READS: u64 = 4;
/// Batches that lie behind each other are read together, up to this.
const TOGETHER_BYTES: u64 = 1 << 20;
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
    /// Log 0's frontier line.
    pub(super) lines: Remote,
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
        why: Corruption,
    },
    /// Messages before `resume` that will never be seen.
    Gap {
        log: u8,
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

    /// Plans a burst into `reads`. False: none is needed, or enough are under way.
    pub(super) fn plan(&mut self, reads: &mut Vec<Read>, say: &mut Vec<Said>) -> bool {
        reads.clear();
        if self.bursts.len() >= BURSTS {
            return false;
        }
        for segment in self.passed.drain(..) {
            self.slots.leave(segment, say);
        }
        let taken = |area: u64| self.bursts.iter().any(|burst| burst.area == area);
        let Some(area) = (0..BURSTS as u64).find(|area| !taken(*area)) else { return false };
        let start = self.landing.bytes() / 64 * 64 - BURSTS as u64 * LINES_BYTES;
        let mut burst = Burst {
            number: self.next_burst,
            area,
            lines_at: start + area * LINES_BYTES,
            entries: Vec::new(),
            headers: Vec::new(),
            slots: Vec::new(),
        };
        let mut lines = Lines { at: burst.lines_at, end: burst.lines_at + LINES_BYTES };
        let lines_at = lines.take(self.log_count() as u64 * PAIR_BYTES);
        self.plan_payload(&mut burst, reads, say);
        self.plan_entries(&mut burst, &mut lines, reads, say);
        let is_useful = !reads.is_empty() || !burst.headers.is_empty();
        if !is_useful && !self.bursts.is_empty() {
            return false;
        }
        if let Some(lines_at) = lines_at {
            burst.lines_at = lines_at;
        }
        self.plan_lines(&burst, reads);
        self.next_burst += 1;
        self.bursts.push_back(burst);
        true
    }

    /// The topic's lines, behind everything else, and headers behind them.
    fn plan_lines(&self, burst: &Burst, reads: &mut Vec<Read>) {
        let Tables { lines, headers, .. } = self.tables;
        let fence = !reads.is_empty();
        let offset = self.first_log() as u64 * PAIR_BYTES;
        let from = Remote { at: lines.at.wrapping_add(offset), key: lines.key };
        let bytes = (self.log_count() as u64 * PAIR_BYTES) as u32;
        reads.push(Read { from, into: burst.lines_at, bytes, fence });
        for header in &burst.headers {
            let of = |segment: u32, into| {
                let at = headers.at.wrapping_add(u64::from(segment) * LINE_BYTES);
                let from = Remote { at, key: headers.key };
                Read { from, into, bytes: LINE_BYTES as u32, fence: false }
            };
            reads.push(of(header.segment, header.at));
            if let Some((next, at)) = header.next {
                reads.push(of(next, at));
            }
        }
    }

    /// Payloads, in the order in which they will be shown.
    fn plan_payload(&mut self, burst: &mut Burst, reads: &mut Vec<Read>, say: &mut Vec<Said>) {
        let mut i = 0;
        while i < self.items.len() && reads.len() < READS_MAX / 2 {
            if self.items[i].state != State::Waiting {
                i += 1;
                continue;
            }
            let entry = self.items[i].entry;
            let Some(window) = self.slots.get(entry.segment, say) else {
                self.ask_ahead(i, say);
                return;
            };
            let together = self.together(i);
            let bytes: u64 = span(&self.items, i, together);
            let Some(from) = window.at(entry.offset.into(), bytes as u32) else {
                let OrderEntry { segment, offset, bytes, .. } = entry;
                self.items[i].state = State::Bad(Corruption::Outside { segment, offset, bytes });
                i += 1;
                continue;
            };
            let Some(part) = self.space.take(bytes) else { return };
            self.slots.begin(window.slot);
            burst.slots.push(window.slot);
            reads.push(Read { from, into: part.at, bytes: bytes as u32, fence: false });
            for item in self.items.range_mut(i..i + together) {
                let at = part.at + u64::from(item.entry.offset - entry.offset);
                item.state = State::Reading { burst: burst.number, at };
            }
            // All of it is in use until the last is shown.
            self.items[i + together - 1].end = Some(part.end);
            i += together;
        }
    }

    /// Asks for the segments of what comes a little later, too.
    fn ask_ahead(&mut self, from: usize, say: &mut Vec<Said>) {
        let mut known = self.items[from].entry.segment;
        let mut asked = 0;
        for item in self.items.range(from..) {
            if item.entry.segment != known {
                known = item.entry.segment;
                self.slots.get(known, say);
                asked += 1;
            }
            if asked == 2 {
                return;
            }
        }
    }

    /// How many items from the one at `i` on lie behind each other.
    fn together(&self, i: usize) -> usize {
        let first = &self.items[i].entry;
        let mut end = first.offset as u64 + u64::from(first.bytes).next_multiple_of(LINE_BYTES);
        let follows = |item: &&Item| {
            let entry = &item.entry;
            let bytes = u64::from(entry.bytes).next_multiple_of(LINE_BYTES);
            let fits = item.state == State::Waiting
                && entry.segment == first.segment
                && u64::from(entry.offset) == end
                && end + bytes - u64::from(first.offset) <= TOGETHER_BYTES;
            end += bytes;
            fits
        };
        1 + self.items.range(i + 1..).take_while(follows).count()
    }

    /// Entries, as far ahead as there is room to know them, and the headers they need.
    fn plan_entries(
        &mut self,
        burst: &mut Burst,
        lines: &mut Lines,
        reads: &mut Vec<Read>,
        say: &mut Vec<Said>,
    ) {
        let count = self.logs.len();
        let mut room = ITEMS_MAX.saturating_sub(self.items.len()) as u64;
        for turn in 0..count {
            let i = (self.turn + turn) % count;
            // Behind the entries come the lines and two headers for each log.
            let headers = 2 * burst.headers.len() + 3;
            if self.logs[i].is_busy || room == 0 || reads.len() + headers + 2 > READS_MAX {
                continue;
            }
            let left = self.logs[i].segment();
            let want = self.logs[i].want(self.tables.capacity);
            if let Some(left) = left.filter(|left| Some(*left) != self.logs[i].segment()) {
                self.slots.leave(left, say);
            }
            let (segment, next) = match want {
                Want::Nothing => continue,
                Want::Headers { segment, next } => (segment, next),
                Want::Entries { segment, next, base, first, until } => {
                    let Some(window) = self.slots.get(segment, say) else { continue };
                    let most = ENTRIES_AT_ONCE * if count == 1 { ENTRY_READS } else { 1 };
                    let until = until.min(first + most.min(room));
                    let mut from = first;
                    while from < until && reads.len() + headers + 2 <= READS_MAX {
                        let count = (until - from).min(ENTRIES_AT_ONCE);
                        let bytes = count * OrderEntry::BYTES;
                        let remote = window.at((from - base) * OrderEntry::BYTES, bytes as u32);
                        let (Some(remote), Some(at)) = (remote, lines.take(bytes)) else { break };
                        self.slots.begin(window.slot);
                        burst.slots.push(window.slot);
                        let bytes = bytes as u32;
                        reads.push(Read { from: remote, into: at, bytes, fence: false });
                        burst.entries.push(EntryRead { log: i, first: from, count, at });
                        from += count;
                        room -= count;
                    }
                    (segment, next)
                }
            };
            let Some(at) = lines.take(2 * LINE_BYTES) else { break };
            let next = next.map(|next| (next, at + LINE_BYTES));
            burst.headers.push(HeaderRead { log: i, segment, at, next });
            self.logs[i].is_busy = true;
        }
        self.turn = (self.turn + 1) % count.max(1);
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
            let frontier = FrontierLine::from_words(landing.load_words(at));
            let chain = ChainLine::from_words(landing.load_words(at + LINE_BYTES));
            let is_ours = frontier.topic == u64::from(topic.0);
            let frontier = if is_ours { frontier } else { FrontierLine::default() };
            let chain = (chain.topic == u64::from(topic.0)).then_some(chain);
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
            if wanted {
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
                State::Bad(_) | State::Here { .. } => {}
            }
            match places.judge(log, index, first, end) {
                Arrival::Old => self.pass(),
                Arrival::AfterGap { missed } => {
                    places.resumed(log, first);
                    return Front::Gap { log, missed, resume: first };
                }
                Arrival::Next => {
                    return match &item.state {
                        State::Here { at } => {
                            Front::Batch { log, index, entry: item.entry, at: *at }
                        }
                        State::Bad(why) => {
                            Front::Bad { log, index, position: first, why: why.clone() }
                        }
                        _ => Front::Nothing,
                    };
                }
            }
        }
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
            self.note_passed(item.entry.segment, item.entry.broker);
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
                return Front::Gap { log: log.log, missed, resume };
            }
        }
        Front::Nothing
    }
}

/// Bytes of `count` items from the one at `i` on, which lie behind each other.
fn span(items: &VecDeque<Item>, i: usize, count: usize) -> u64 {
    let (first, last) = (&items[i].entry, &items[i + count - 1].entry);
    u64::from(last.offset - first.offset) + u64::from(last.bytes)
}

/// A part of the landing memory that is handed out line by line.
struct Lines {
    at: u64,
    end: u64,
}

impl Lines {
    fn take(&mut self, bytes: u64) -> Option<u64> {
        let at = self.at;
        let after = at + bytes;
        (after <= self.end).then(|| {
            self.at = after;
            at
        })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
