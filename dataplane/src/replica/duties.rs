//! Which replicas a broker keeps. Pure.

use landfall_layout::BrokerId;
use landfall_layout::keepers::{Keepers, StandIn};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::topic::TopicEntry;

/// One replica: of what `source` landed, the one of that number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Duty {
    pub source: BrokerId,
    pub replica: usize,
    /// As what this broker keeps it: in place of its home, or none, as its home.
    pub stand_in: Option<StandIn>,
}

/// What `me` keeps of a topic, of the brokers that land batches for it, where `keepers` says who
/// stands in for whom. A home keeps its own whoever else does meanwhile: so it has caught up when
/// it is to be the keeper again.
pub fn duties(
    entry: &TopicEntry,
    me: BrokerId,
    sources: impl Iterator<Item = BrokerId>,
    keepers: impl Fn(BrokerId) -> Keepers,
) -> Vec<Duty> {
    let of = |source: BrokerId| {
        let keepers = keepers(source);
        (0..entry.disk_replicas()).filter_map(move |replica| {
            let home = entry.replica_broker(source, replica)?;
            let stand_in = keepers.stand_in(replica).filter(|stand_in| stand_in.broker == me);
            (home == me).then_some(Duty { source, replica, stand_in: None }).or_else(|| {
                stand_in.map(|stand_in| Duty { source, replica, stand_in: Some(stand_in) })
            })
        })
    };
    sources.flat_map(of).collect()
}

/// The log whose indexes a replica of `source` counts.
pub fn log_of(entry: &TopicEntry, source: BrokerId) -> usize {
    match entry.order() {
        Some(order) if !order.is_sequenced() => source.index(),
        _ => SEQUENCED_LOG,
    }
}

/// What stands between a replica and its log's frontier, in entries and bytes of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    pub entries: u64,
    pub bytes: u64,
}

impl Lag {
    /// The more of each.
    pub fn max(self, other: Self) -> Self {
        Self { entries: self.entries.max(other.entries), bytes: self.bytes.max(other.bytes) }
    }
}

/// Counts the log's bytes along with its entries, so that a lag has both.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odometer {
    /// Bytes of the log's batches below the index that was passed last.
    bytes: u64,
}

impl Odometer {
    /// One that stands at `next`, with `ahead` bytes from there to the frontier.
    pub fn at(frontier: &FrontierLine, ahead: u64) -> Self {
        Self { bytes: frontier.bytes.saturating_sub(ahead) }
    }

    pub fn pass(&mut self, entry: &OrderEntry) {
        self.bytes = self.bytes.saturating_add(entry.bytes.into());
    }

    /// How far it is from `index`, which is where it stands, to the frontier.
    pub fn lag(&self, index: u64, frontier: &FrontierLine) -> Lag {
        Lag {
            entries: frontier.entries.saturating_sub(index),
            bytes: frontier.bytes.saturating_sub(self.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_layout::topic::Order;

    fn broker(number: usize) -> BrokerId {
        BrokerId::new(number).unwrap()
    }

    fn entry(replicas: u8, brokers: u8) -> TopicEntry {
        let mut entry = TopicEntry::from_words([0; 32]);
        (entry.replicas, entry.replica_brokers) = (replicas, brokers);
        entry.order = Order::Total.raw();
        entry
    }

    #[test]
    fn every_replica_is_kept_by_one_broker_and_no_broker_keeps_two_of_a_source() {
        for brokers in 1..=6_u8 {
            for replicas in 2..=(brokers + 1).min(4) {
                let entry = entry(replicas, brokers);
                let sources = || (0..8).map(broker);
                let mut kept = Vec::new();
                for me in 0..usize::from(brokers) {
                    let mine = duties(&entry, broker(me), sources(), |_| Keepers::default());
                    let mut of: Vec<_> = mine.iter().map(|duty| duty.source).collect();
                    of.dedup();
                    assert_eq!(of.len(), mine.len(), "{replicas} on {brokers}");
                    kept.extend(mine.iter().map(|duty| (duty.source, duty.replica)));
                }
                kept.sort();
                let want: Vec<_> = sources()
                    .flat_map(|source| (0..usize::from(replicas) - 1).map(move |i| (source, i)))
                    .collect();
                assert_eq!(kept, want);
            }
        }
    }

    #[test]
    fn with_one_copy_nobody_keeps_anything() {
        let all = || (0..4).map(broker);
        let nobody = |_| Keepers::default();
        assert_eq!(duties(&entry(1, 0), broker(0), all(), nobody), []);
        assert_eq!(duties(&entry(0, 4), broker(0), all(), nobody), []);
    }

    #[test]
    fn a_stand_in_keeps_what_control_says_and_a_home_keeps_its_own_all_the_same() {
        let entry = entry(2, 3);
        let stand_in = Some(StandIn { broker: broker(2), line: 1 });
        let keepers = |source| match source == broker(1) {
            true => Keepers::default().with(0, stand_in),
            false => Keepers::default(),
        };
        let of = |me: usize| duties(&entry, broker(me), (0..3).map(broker), keepers);
        let own = |number: usize| Duty { source: broker(number), replica: 0, stand_in: None };
        assert_eq!(of(0), [own(0)]);
        assert_eq!(of(1), [own(1)]);
        assert_eq!(of(2), [Duty { stand_in, ..own(1) }, own(2)]);
    }

    #[test]
    fn a_lag_counts_entries_and_bytes() {
        let frontier = FrontierLine { entries: 10, bytes: 1000, ..FrontierLine::default() };
        let mut odometer = Odometer::at(&frontier, 300);
        assert_eq!(odometer.lag(7, &frontier), Lag { entries: 3, bytes: 300 });
        odometer.pass(&OrderEntry { bytes: 120, ..OrderEntry::default() });
        assert_eq!(odometer.lag(8, &frontier), Lag { entries: 2, bytes: 180 });
    }
}
