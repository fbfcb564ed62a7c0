//! What a topic's order promises about the batches of one publisher.

use std::collections::HashMap;

use landfall_layout::limits::BROKERS_MAX;
use landfall_layout::order::OrderEntry;
use landfall_layout::session::SessionLine;
use landfall_layout::topic::Order;

use crate::finding::{Finding, Findings, Severity};
use crate::mend;

/// The last batch of a publisher that the log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// Its sequence.
    pub seq: u64,
    /// Its session epoch.
    pub epoch: u32,
    /// Its index in the log.
    pub index: u64,
}

/// Publishers of one topic, as its log goes on.
pub struct Sequences {
    order: Option<Order>,
    /// What the log is called in sentences.
    name: String,
    /// Entries that the log had when each client got its line, from the session lines.
    opened: HashMap<u64, u64>,
    /// Order `strong`: a client. Order `stream`: a client at a broker.
    last: HashMap<(u64, u8), Last>,
    /// The highest of each in this life of its client. Order `stream`: one that comes back sends
    /// lower ones again.
    highest: HashMap<(u64, u8), Last>,
    /// Ring index of the last entry of each broker.
    rings: [Option<u32>; BROKERS_MAX],
}

/// The broker that stands for all where they do not matter.
const ANY: u8 = u8::MAX;

impl Sequences {
    /// Nothing seen yet of the publishers with those lines.
    pub fn new(order: Option<Order>, name: &str, lines: &[(u32, SessionLine)]) -> Self {
        let opened = lines.iter().map(|(_, line)| (line.client, line.opened_at)).collect();
        let order = order.filter(|order| order.is_sequenced());
        let rings = [None; BROKERS_MAX];
        let (last, highest) = (HashMap::new(), HashMap::new());
        Self { order, name: name.to_owned(), opened, last, highest, rings }
    }

    /// Entries are missing here: what follows may be anybody's next.
    pub fn forget(&mut self) {
        self.last.clear();
        self.highest.clear();
        self.rings = [None; BROKERS_MAX];
    }

    /// The highest sequence of a client, through whatever broker, among entries from `since` on.
    pub fn highest(&self, client: u64, since: u64) -> Option<Last> {
        let of = |broker: u8| self.highest.get(&(client, broker)).copied();
        let all = std::iter::once(ANY).chain(0..BROKERS_MAX as u8);
        all.filter_map(of).filter(|last| last.index >= since).max_by_key(|last| last.seq)
    }

    /// The next entry of a log in the pool.
    pub fn next(&mut self, index: u64, at: u64, entry: &OrderEntry, out: &mut Findings) {
        if matches!(self.order, Some(Order::Total | Order::Stream)) {
            let of = format!("{}, entry {index}", self.name);
            self.ring(entry, (&of, at), out);
        }
        self.publisher(index, Some(at), entry, out);
    }

    /// What the next entry says of its publisher.
    pub fn publisher(
        &mut self,
        index: u64,
        at: Option<u64>,
        entry: &OrderEntry,
        out: &mut Findings,
    ) {
        let (order, key) = match self.order {
            Some(Order::Strong) => (Order::Strong, (entry.client, ANY)),
            Some(Order::Stream) => (Order::Stream, (entry.client, entry.broker)),
            _ => return,
        };
        let this = Last { seq: entry.batch_seq, epoch: entry.session_epoch, index };
        let last = self.last.insert(key, this);
        let follows = last.filter(|last| !self.is_new_life(entry, last));
        let highest = self.highest.entry(key).or_insert(this);
        if follows.is_none() || this.seq >= highest.seq {
            *highest = this;
        }
        if let Some(last) = follows
            && let Some(found) = judge(order, entry, &last)
        {
            out.push(Finding {
                severity: Severity::Error,
                check: "sequence",
                of: format!("{}, entry {index}", self.name),
                at,
                found,
                mend: mend::COPY_POOL,
            });
        }
    }

    /// Slots of a ring are ordered one after the other where none waits for another.
    fn ring(&mut self, entry: &OrderEntry, (of, at): (&str, u64), out: &mut Findings) {
        let Some(last) = self.rings.get_mut(usize::from(entry.broker)) else { return };
        if let Some(before) = last.replace(entry.ring_index)
            && (entry.ring_index.wrapping_sub(before) as i32) <= 0
        {
            let found = format!("slot {} of broker {}", entry.ring_index, entry.broker)
                + &format!(" comes behind slot {before} of the same ring");
            out.error("sequence", of, at, found, mend::COPY_POOL);
        }
    }

    /// Whether the client began anew between the two: its line had gone to somebody else. Order
    /// `strong` then begins at batch 0 again.
    fn is_new_life(&self, entry: &OrderEntry, last: &Last) -> bool {
        let since = self.opened.get(&entry.client);
        entry.batch_seq <= last.seq
            && (entry.batch_seq == 0 || self.order != Some(Order::Strong))
            && since.is_none_or(|opened_at| *opened_at > last.index)
    }
}

fn judge(order: Order, entry: &OrderEntry, last: &Last) -> Option<String> {
    let client = entry.client;
    // What a publisher of order `stream` sends again may have been another broker's before.
    let begins_anew = order == Order::Stream && entry.session_epoch > last.epoch;
    if entry.batch_seq <= last.seq && !begins_anew {
        let found = format!("batch {} of client {client:#x} comes behind its", entry.batch_seq);
        return Some(found + &format!(" batch {}, which is entry {}", last.seq, last.index));
    }
    if order == Order::Strong && entry.batch_seq > last.seq.saturating_add(1) {
        let found = format!("batch {} of client {client:#x} follows its batch", entry.batch_seq);
        let between = format!(" {}, entry {}: those between are missing", last.seq, last.index);
        return Some(found + &between);
    }
    (entry.session_epoch < last.epoch).then(|| {
        format!("batch {} of client {client:#x} has session epoch", entry.batch_seq)
            + &format!(" {} behind epoch {}", entry.session_epoch, last.epoch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries of client 7 through broker 0, as epoch and sequence.
    fn highest(order: Order, opened_at: u64, entries: &[(u32, u64)]) -> Option<u64> {
        let line = SessionLine { client: 7, opened_at, ..SessionLine::default() };
        let mut sequences = Sequences::new(Some(order), "t", &[(0, line)]);
        let mut findings = Findings::default();
        for (index, (epoch, seq)) in entries.iter().enumerate() {
            let (client, session_epoch, batch_seq) = (7, *epoch, *seq);
            let entry = OrderEntry { client, session_epoch, batch_seq, ..OrderEntry::default() };
            sequences.publisher(index as u64, None, &entry, &mut findings);
        }
        assert!(findings.is_empty(), "{:?}", findings.kept());
        sequences.highest(7, opened_at).map(|last| last.seq)
    }

    #[test]
    fn the_highest_is_not_the_last_where_a_publisher_sends_again() {
        let again = [(1, 5), (1, 6), (1, 7), (2, 2), (2, 3)];
        assert_eq!(highest(Order::Stream, 0, &again), Some(7));
        assert_eq!(highest(Order::Stream, 3, &again), Some(3), "a life of its own");
        assert_eq!(highest(Order::Strong, 0, &[(1, 0), (1, 1), (2, 2)]), Some(2));
        assert_eq!(highest(Order::Strong, 2, &[(1, 0), (1, 1), (2, 0)]), Some(0));
        assert_eq!(highest(Order::Strong, 0, &[]), None);
    }
}
