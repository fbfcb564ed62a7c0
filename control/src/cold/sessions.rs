//! Sessions of publishers: what was ordered of them may not be ordered again.

use std::collections::BTreeMap;

use landfall_layout::TopicId;
use landfall_layout::session::{
    Opening, SessionLine, SessionState, Standing, counted_floor, is_same_life,
};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_pool::Pool;

use super::ColdError;
use super::absent::{Absent, Count};
use super::losses::Losses;
use super::read::BatchOf;
use crate::recovery::Had;
use crate::sequencer::StreamSet;

/// A publisher's session as its batches on disk say it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionOf {
    /// Session epoch.
    pub epoch: u32,
    /// The own number of the publisher whose batch came last.
    pub life: u32,
    /// When a batch of it landed last, nanoseconds.
    pub landed_ns: u64,
    /// The sequence behind the highest.
    pub next_seq: u64,
    /// The line's words of what is known below, see `SessionLine`.
    pub floor: u64,
    /// The same.
    pub known_from: u64,
    /// Order `stream`: sequences above `floor` that are on disk.
    pub had: Vec<u64>,
    /// Order `strong`: sequences that may be lost although they were ordered, ascending and apart:
    /// the first of each range, and the one behind its last.
    pub doubtful: Vec<(u64, u64)>,
    /// How many of these are lost for certain; the others bounds may have let go of.
    pub lost: u64,
}

impl SessionOf {
    /// The session whose batches those are; `None` without any. A client whose line went to
    /// another began at 0 again: what counts is what came last, in the order of the log.
    pub fn of(order: Option<Order>, mut batches: Vec<BatchOf>, absent: &Absent) -> Option<Self> {
        // The same batch may be in several files.
        batches.sort_unstable();
        batches.dedup_by_key(|batch| batch.index);
        // What came last can be ordered again.
        let here = batches.iter().rposition(|batch| !batch.is_lost)?;
        batches.truncate(here + 1);
        let last = batches.last()?;
        let mut session = Self {
            epoch: last.epoch,
            life: last.life,
            landed_ns: batches.iter().map(|batch| batch.landed_ns).max()?,
            next_seq: last.seq.saturating_add(1),
            floor: 0,
            known_from: 0,
            had: Vec::new(),
            doubtful: Vec::new(),
            lost: 0,
        };
        match order {
            Some(Order::Strong) => session.find_doubtful(&batches, absent),
            Some(Order::Stream) => session.find_had(&batches),
            _ => {}
        }
        Some(session)
    }

    /// Order `strong`: sequences follow each other in the log from 0 on, so one that is not there
    /// was ordered, and is lost or went with retention. It cannot be ordered behind its successors.
    /// As many of a gap as log indexes were lost there may be lost, which are the last of it; the
    /// others were in every copy once. Where a copy lost some of what bounds let go of in others,
    /// it may be any of the gap.
    fn find_doubtful(&mut self, batches: &[BatchOf], absent: &Absent) {
        let mut before: Option<&BatchOf> = None;
        let mut expected = 0;
        for batch in batches {
            let is_later_life = before.is_some_and(|before| begins_anew(before, batch));
            if batch.seq < expected || is_later_life {
                (self.lost, expected) = (0, 0);
                self.doubtful.clear();
            }
            if batch.seq > expected {
                let gap = batch.seq - expected;
                let from = before.map_or(0, |before| before.index + 1);
                let Count { lost, retired, is_mixed } = absent.between(from, batch.index);
                let most = if is_mixed { gap } else { gap.min(lost) };
                self.lost += gap.saturating_sub(retired).min(most);
                if most > 0 {
                    self.doubt(batch.seq - most, batch.seq);
                }
            }
            if batch.is_lost {
                self.lost += 1;
                self.doubt(batch.seq, batch.seq.saturating_add(1));
            }
            expected = batch.seq.saturating_add(1);
            before = Some(batch);
        }
        if let (Some(first), Some(last)) = (self.doubtful.first(), self.doubtful.last()) {
            (self.floor, self.known_from) = (first.0, last.1);
        }
    }

    /// Adds a range behind all others.
    fn doubt(&mut self, from: u64, to: u64) {
        match self.doubtful.last_mut() {
            Some(last) if last.1 == from => last.1 = to,
            _ => self.doubtful.push((from, to)),
        }
    }

    fn find_had(&mut self, batches: &[BatchOf]) {
        let mut set = StreamSet::new();
        let mut since = 0;
        for (at, batch) in batches.iter().enumerate() {
            let is_later = at > since && begins_anew(&batches[at - 1], batch);
            if is_later || !set.take(batch.seq) {
                set = StreamSet::new();
                since = at;
                set.take(batch.seq);
            }
        }
        (self.next_seq, self.floor, self.known_from) = set.bounds();
        let life = batches[since..].iter().map(|batch| batch.seq);
        self.had = life.filter(|seq| *seq > self.floor).collect();
    }
}

/// Whether a batch is of a later life of its client than the one before: its line was another's in
/// between, and it began at 0 again. What came first of it may be on no disk.
fn begins_anew(before: &BatchOf, batch: &BatchOf) -> bool {
    batch.epoch < before.epoch || !is_same_life(before.epoch, batch.epoch)
}

/// The sessions of all topics.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Whether sequences are checked in its topic, its topic, its client, and how far it was.
    all: Vec<(bool, u32, u64, SessionOf)>,
    /// Topics by id, for people.
    names: BTreeMap<u32, String>,
}

impl Sessions {
    /// Adds a topic's.
    pub fn add(&mut self, topic: &TopicEntry, sessions: BTreeMap<u64, SessionOf>) {
        let is_checked = matches!(topic.order(), Some(Order::Strong | Order::Stream));
        self.names.insert(topic.id, topic.name().to_owned());
        let of = |(client, session)| (is_checked, topic.id, client, session);
        self.all.extend(sessions.into_iter().map(of));
    }

    /// Gives each a line, those first in whose topics sequences are checked, the latest first:
    /// there an unknown publisher's batches would be ordered again. In other orders a batch may
    /// come twice anyway.
    pub fn restore(mut self, pool: &Pool, notes: &mut Vec<String>) -> Result<Had, ColdError> {
        let names = std::mem::take(&mut self.names);
        self.all.sort_unstable_by_key(|(checked, topic, client, session)| {
            (std::cmp::Reverse((*checked, session.landed_ns)), *topic, *client)
        });
        let have = pool.geometry().sessions();
        let need = self.all.iter().filter(|(is_checked, ..)| *is_checked).count();
        if need > have as usize {
            return Err(ColdError::Sessions { need, have });
        }
        let all = self.all.len();
        if all > have as usize {
            notes.push(format!(
                "of {all} publishers' sessions on disk {have} are known again: those of order \
                 strong and stream, and the latest of the others"
            ));
        }
        let mut had = Had::new();
        let mut losses: BTreeMap<u32, Losses> = BTreeMap::new();
        for (number, (_, topic, client, session)) in (0..have).zip(self.all) {
            if !session.doubtful.is_empty() {
                losses.entry(topic).or_default().add(pool, (number, topic, client), &session);
            }
            let SessionOf { epoch, life, next_seq, floor, known_from, .. } = session;
            let standing = Standing { epoch, state: SessionState::Closed };
            // Whatever the log has in this pool is of this session: it begins with it.
            let line = SessionLine {
                standing: standing.pack(),
                client,
                next_seq,
                topic,
                opened_epoch: epoch,
                opened_at: 0,
                // Nobody opened it in this pool.
                opened_by: Opening { life, ..Opening::default() }.pack(),
                floor: counted_floor(next_seq, floor, session.had.len() as u64),
                known_from,
            };
            pool.set_session(number, &line);
            if !session.had.is_empty() {
                had.insert((TopicId(topic), client), session.had);
            }
        }
        for (topic, losses) in losses {
            let name = names.get(&topic).map_or("?", String::as_str);
            notes.extend(losses.sentences().map(|sentence| format!("topic {name}: {sentence}")));
        }
        Ok(had)
    }
}

#[cfg(test)]
mod tests {
    use landfall_layout::session::first_epoch_after;
    use landfall_replica::Skips;

    use super::*;
    use crate::cold::plan::Span;

    /// A session whose batches are all that its log has; bounds let go of what is missing below
    /// log index `retired_below`.
    fn session_behind(order: Order, retired_below: u64, batches: &[(u64, u32, u64)]) -> SessionOf {
        let of = |(index, epoch, seq): &(u64, u32, u64)| BatchOf {
            index: *index,
            epoch: *epoch,
            seq: *seq,
            landed_ns: 7,
            life: 0,
            is_lost: false,
        };
        let batches: Vec<BatchOf> = batches.iter().map(of).collect();
        let span = |batch: &BatchOf| {
            let BatchOf { index, .. } = *batch;
            Span { index, first: index, end: index + 1, is_hole: false, is_lost: false }
        };
        let mut spans: Vec<Span> = batches.iter().map(span).collect();
        spans.sort_unstable();
        let absent = Absent::of(&spans, &Skips::default(), (retired_below, &[]));
        SessionOf::of(Some(order), batches, &absent).unwrap()
    }

    fn session(order: Order, batches: &[(u64, u32, u64)]) -> SessionOf {
        session_behind(order, 0, batches)
    }

    #[test]
    fn a_gap_of_a_stream_is_not_in_the_log_and_what_is_behind_it_is() {
        let found =
            session(Order::Stream, &[(4, 1, 4), (0, 1, 0), (0, 1, 0), (3, 1, 1), (5, 1, 3)]);
        assert_eq!((found.next_seq, found.floor, found.known_from), (5, 2, 0));
        assert_eq!(found.had, [4, 3]);
    }

    #[test]
    fn what_strong_has_lost_in_front_of_what_it_has_is_doubtful_and_nothing_else() {
        let found =
            session(Order::Strong, &[(0, 1, 0), (2, 1, 2), (3, 1, 3), (7, 1, 7), (9, 2, 8)]);
        assert_eq!((found.next_seq, found.floor, found.known_from), (9, 1, 7));
        assert_eq!((found.doubtful, found.lost), (vec![(1, 2), (4, 7)], 4));
        let whole = session(Order::Strong, &[(3, 1, 0), (4, 1, 1)]);
        assert_eq!((whole.next_seq, whole.floor, whole.known_from), (2, 0, 0));
        assert_eq!(whole.doubtful, [], "what is missing in front is another's");
        let first = session(Order::Strong, &[(3, 1, 2), (4, 1, 3)]);
        assert_eq!((first.doubtful, first.lost), (vec![(0, 2)], 2), "one came before it");
    }

    #[test]
    fn what_retention_took_of_one_copy_is_not_lost() {
        // A broker's files begin at 720; the other's, with every second batch, at the beginning.
        let batches: Vec<(u64, u32, u64)> =
            (1..800).filter(|n| *n >= 720 || n % 2 == 1).map(|n| (n, 1, n)).collect();
        let found = session_behind(Order::Strong, 720, &batches);
        assert_eq!((found.next_seq, found.floor, found.known_from), (800, 0, 0));
        assert_eq!((found.doubtful, found.lost), (Vec::new(), 0));
        // Behind that it was lost.
        let batches: Vec<_> = batches.into_iter().filter(|(n, ..)| *n != 790).collect();
        let found = session_behind(Order::Strong, 720, &batches);
        assert_eq!((found.doubtful, found.lost), (vec![(790, 791)], 1));
    }

    #[test]
    fn a_batch_whose_record_does_not_hold_is_lost_among_those_that_bounds_let_go_of() {
        let of =
            |(seq, is_lost)| BatchOf { index: seq, epoch: 1, seq, landed_ns: 7, life: 0, is_lost };
        let found = |batches: &[(u64, bool)]| {
            let batches: Vec<BatchOf> = batches.iter().copied().map(of).collect();
            let span = |batch: &BatchOf| {
                let BatchOf { index, is_lost, .. } = *batch;
                Span { index, first: index, end: index + 1, is_hole: false, is_lost }
            };
            let mut spans: Vec<Span> = batches.iter().map(span).collect();
            spans.sort_unstable();
            let absent = Absent::of(&spans, &Skips::default(), (9, &[]));
            let found = SessionOf::of(Some(Order::Strong), batches, &absent).unwrap();
            (found.doubtful, found.lost, found.next_seq)
        };
        let all = [(1, false), (3, true), (5, false), (9, false), (10, true)];
        assert_eq!(found(&all), (vec![(3, 4)], 1, 10), "the last one is ordered again");
        // Another copy has it.
        assert_eq!(found(&[&all[..], &[(3, false)]].concat()), (vec![], 0, 10));
        let side_by_side = [(0, false), (1, true), (2, true), (3, false)];
        assert_eq!(found(&side_by_side), (vec![(1, 3)], 2, 4));
    }

    #[test]
    fn where_it_cannot_be_told_which_was_lost_the_last_ones_may_be() {
        // Those in between lay at index 1 or 3, which retention took, or at 11, which was lost.
        let here = [0, 2, 4, 5, 6, 7, 8, 9, 10, 12];
        let at = |index| (index, index + 1);
        let spans = here.map(at).map(|(index, end)| Span {
            index,
            first: index,
            end,
            is_hole: false,
            is_lost: false,
        });
        let of =
            |(index, seq)| BatchOf { index, epoch: 1, seq, landed_ns: 7, life: 0, is_lost: false };
        let found_with = |torn: &[(u64, u64)], seq| {
            let absent = Absent::of(&spans, &Skips::default(), (8, torn));
            let batches = vec![of((0, 0)), of((12, seq))];
            let found = SessionOf::of(Some(Order::Strong), batches, &absent).unwrap();
            (found.doubtful, found.lost)
        };
        let found = |seq| found_with(&[], seq);
        assert_eq!(found(1), (Vec::new(), 0));
        assert_eq!(found(2), (vec![(1, 2)], 0), "one of three places");
        assert_eq!(found(3), (vec![(2, 3)], 0));
        assert_eq!(found(4), (vec![(3, 4)], 1), "all three");
        // A copy lost what it had at index 1: any of them may be that one.
        assert_eq!(found_with(&[(1, 2)], 3), (vec![(1, 3)], 1));
        assert_eq!(found_with(&[(1, 4)], 3), (vec![(1, 3)], 2), "retention took none");
    }

    #[test]
    fn what_was_lost_at_the_beginning_of_a_later_life_is_no_duplicate() {
        let later = first_epoch_after(1);
        let batches = [(0, 1, 0), (1, 1, 1), (4, later, 2), (5, later, 3)];
        let strong = session(Order::Strong, &batches);
        assert_eq!((strong.doubtful, strong.lost), (vec![(0, 2)], 2));
        assert_eq!((strong.next_seq, strong.floor, strong.known_from), (4, 0, 2));
        let stream = session(Order::Stream, &batches);
        assert_eq!((stream.next_seq, stream.floor, stream.had), (4, 0, vec![2, 3]));
    }

    #[test]
    fn a_client_that_began_again_has_had_only_what_came_after() {
        for order in [Order::Strong, Order::Stream] {
            let found = session(order, &[(1, 1, 70), (2, 2, 71), (8, 1, 0), (9, 1, 1)]);
            assert_eq!((found.next_seq, found.epoch), (2, 1), "{order}");
            let same = session(order, &[(1, 1, 0), (2, 1, 1), (8, 1, 0)]);
            assert_eq!(same.next_seq, 1, "{order}");
        }
    }
}
