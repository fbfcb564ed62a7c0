//! Planning bursts: which READs come next.

use std::collections::VecDeque;

use landfall_layout::limits::{BROKERS_MAX, LINE_BYTES};
use landfall_layout::order::OrderEntry;
use landfall_layout::verbs::Said;
use landfall_nic::Remote;

use super::{
    BURSTS, Burst, EntryRead, HeaderRead, Item, LINES_BYTES, Machine, PAIR_BYTES, Read, State,
    Tables,
};
use crate::error::Corruption;
use crate::subscriber::one_sided::log::{ENTRIES_AT_ONCE, Want};

/// READs of a burst, at most. Two bursts fit the send queue.
pub(in crate::subscriber::one_sided) const READS_MAX: usize = 112;
/// Bytes of the frontier lines of the brokers' own logs.
const FRONTIERS_BYTES: u64 = BROKERS_MAX as u64 * LINE_BYTES;
/// READs of entries for one log in a burst.
const ENTRY_READS: u64 = 4;
/// Batches that lie behind each other are read together, up to this.
const TOGETHER_BYTES: u64 = 1 << 20;
/// Entries known ahead of what is shown.
const ITEMS_MAX: usize = 512;

impl Machine {
    /// Plans a burst into `reads`. False: none is needed, or enough are under way.
    pub(in crate::subscriber::one_sided) fn plan(
        &mut self,
        reads: &mut Vec<Read>,
        say: &mut Vec<Said>,
    ) -> bool {
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
        let lines_at = lines.take(self.lines_bytes() + FRONTIERS_BYTES);
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

    /// Bytes of the topic's pairs of lines.
    pub(super) fn lines_bytes(&self) -> u64 {
        self.log_count() as u64 * PAIR_BYTES
    }

    /// The topic's lines, behind everything else, and headers behind them.
    fn plan_lines(&self, burst: &Burst, reads: &mut Vec<Read>) {
        let Tables { lines, headers, .. } = self.tables;
        let fence = !reads.is_empty();
        let offset = self.first_log() as u64 * PAIR_BYTES;
        let from = Remote { at: lines.at.wrapping_add(offset), key: lines.key };
        let bytes = self.lines_bytes() as u32;
        reads.push(Read { from, into: burst.lines_at, bytes, fence });
        if !self.tables.sequenced {
            let (from, bytes) = (self.tables.frontiers, FRONTIERS_BYTES as u32);
            let into = burst.lines_at + self.lines_bytes();
            reads.push(Read { from, into, bytes, fence: false });
        }
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
        for item in self.items.range(from..).filter(|item| item.state != State::Hole) {
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
            if self.logs[i].is_busy || room == 0 || reads.len() + headers + 3 > READS_MAX {
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
                    while from < until && reads.len() + headers + 3 <= READS_MAX {
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
