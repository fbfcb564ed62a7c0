//! Sequences of publishers that were ordered and are in no file. Pure.
//!
//! The copies of different brokers' batches are at different points when a pool is lost, so what
//! is on disk of a publisher that used several has holes. A batch in one cannot be ordered any
//! more, since later ones of its publisher stand in the log; and it is no duplicate, since nobody
//! has it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use landfall_layout::topic::Order;
use landfall_replica::TopicFile;

/// Ranges of lost sequences by client, ascending.
pub type Lost = BTreeMap<u64, Vec<Range<u64>>>;

/// Ranges that a sentence names.
const RANGES_TOLD: usize = 8;

/// The sequences that files have, of a topic whose order checks them.
#[derive(Debug, Default)]
pub struct Sequences {
    is_checked: bool,
    /// Log index from which on disks have removed nothing by age or size, where they may have.
    kept_from: Option<u64>,
    by_client: BTreeMap<u64, Vec<u64>>,
}

impl Sequences {
    /// None so far. `begun`: sources, and where the first file of a copy of each begins.
    pub fn of(file: &TopicFile, begun: impl Iterator<Item = (u8, u64)>) -> Self {
        let mut first = BTreeMap::new();
        for (source, index) in begun {
            let known = first.entry(source).or_insert(index);
            *known = index.min(*known);
        }
        let removes = file.disk_bytes > 0 || file.disk_ns > 0;
        Self {
            is_checked: matches!(file.order(), Some(Order::Strong | Order::Stream)),
            kept_from: removes.then(|| first.into_values().max().unwrap_or_default()),
            by_client: BTreeMap::new(),
        }
    }

    /// A batch that a file has, at a log index.
    pub fn take(&mut self, client: u64, index: u64, seq: u64) {
        if self.is_checked && self.kept_from.is_none_or(|from| index >= from) {
            self.by_client.entry(client).or_default().push(seq);
        }
    }

    /// What is in no file below the last that is. A publisher's sequences begin at 0; where disks
    /// remove what is old, at the first that is there.
    pub fn lost(&mut self) -> Lost {
        let mut lost = Lost::new();
        for (client, mut seqs) in std::mem::take(&mut self.by_client) {
            seqs.sort_unstable();
            let first = seqs.first().copied().unwrap_or_default();
            let mut next = if self.kept_from.is_some() { first } else { 0 };
            for seq in seqs {
                if seq > next {
                    lost.entry(client).or_default().push(next..seq);
                }
                next = next.max(seq.saturating_add(1));
            }
        }
        lost
    }
}

/// What people should know of a publisher's lost sequences.
pub fn sentence(file: &TopicFile, client: u64, lost: &[Range<u64>]) -> String {
    let mut named = String::new();
    for range in lost.iter().take(RANGES_TOLD) {
        let comma = if named.is_empty() { "" } else { ", " };
        let _ = match range.end - range.start {
            1 => write!(named, "{comma}{}", range.start),
            _ => write!(named, "{comma}{} to {}", range.start, range.end - 1),
        };
    }
    let more = match lost.len().saturating_sub(RANGES_TOLD) {
        0 => String::new(),
        more => format!(" and {more} ranges more"),
    };
    let all: u64 = lost.iter().map(|range| range.end - range.start).sum();
    let what = match file.order() {
        Some(Order::Strong) => "were ordered",
        _ => "were ordered or never landed",
    };
    format!(
        "topic {}: {all} batches of client {client} {what} and are in no file here, while later \
         ones are: sequences {named}{more}; they are lost, and if it sends one of them again it is \
         told so: publish their messages again",
        file.name
    )
}

#[cfg(test)]
mod tests {
    use landfall_layout::TopicId;
    use landfall_layout::topic::{TopicEntry, TopicState};

    use super::*;

    fn file(order: Order, disk_bytes: u64) -> TopicFile {
        let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
        (entry.id, entry.state) = (TopicId::new(0, 1).0, TopicState::Live as u8);
        (entry.order, entry.disk_bytes, entry.name_bytes) = (order.raw(), disk_bytes, 1);
        entry.name[0] = b't';
        TopicFile::of(&entry, "a pool", 0).unwrap()
    }

    /// What is lost of client 7, of which copies of two brokers' batches have these.
    fn lost(order: Order, disk_bytes: u64, has: &[(u64, u64)]) -> Vec<Range<u64>> {
        let begun = [(0, 0), (1, 20), (0, 10), (0, 30)];
        let mut sequences = Sequences::of(&file(order, disk_bytes), begun.into_iter());
        has.iter().for_each(|(index, seq)| sequences.take(7, *index, *seq));
        sequences.lost().remove(&7).unwrap_or_default()
    }

    #[test]
    fn what_is_between_sequences_on_disk_and_in_no_file_is_lost() {
        let has = [(3, 3), (9, 8), (0, 0), (3, 3), (1, 1), (5, 5)];
        assert_eq!(lost(Order::Strong, 0, &has), [2..3, 4..5, 6..8]);
        assert_eq!(lost(Order::Stream, 0, &has), [2..3, 4..5, 6..8]);
        assert_eq!(lost(Order::Strong, 0, &[(4, 2), (6, 4)]), [0..2, 3..4], "the first ones too");
        assert!(lost(Order::Strong, 0, &[(0, 0), (1, 1)]).is_empty());
        assert!(lost(Order::Total, 0, &has).is_empty(), "a batch comes again there anyway");
    }

    #[test]
    fn what_a_disk_removed_by_its_bounds_is_not_lost() {
        // One broker's files begin at index 20, the other's at 0.
        let has = [(4, 4), (7, 7), (21, 21), (22, 22), (25, 25)];
        assert_eq!(lost(Order::Strong, 1 << 20, &has), vec![23..25]);
        assert_eq!(lost(Order::Strong, 0, &has).len(), 4);
    }

    #[test]
    fn the_sentence_names_client_and_sequences() {
        let said = sentence(&file(Order::Strong, 0), 77, &[2..3, 6..8]);
        assert!(said.starts_with("topic t: 3 batches of client 77 were ordered"), "{said}");
        assert!(said.contains("sequences 2, 6 to 7;"), "{said}");
        let many: Vec<Range<u64>> = (0..20).map(|n| 2 * n..2 * n + 1).collect();
        let said = sentence(&file(Order::Strong, 0), 77, &many);
        assert!(said.contains("20 batches") && said.contains("14 and 12 ranges more"), "{said}");
    }
}
