//! Sessions of publishers: what was ordered of them may not be ordered again.

use std::collections::BTreeMap;

use landfall_layout::TopicId;
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_pool::Pool;

use super::ColdError;
use super::read::BatchOf;
use crate::recovery::Had;
use crate::sequencer::StreamSet;

/// A publisher's session as its batches on disk say it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionOf {
    /// Session epoch.
    pub epoch: u32,
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
    /// Order `strong`: batches between those on disk that are on none.
    pub missing: u64,
}

impl SessionOf {
    /// The session whose batches those are; `None` without any. A client whose line went to
    /// another began at 0 again: what counts is what came last, in the order of the log.
    pub fn of(order: Option<Order>, mut batches: Vec<BatchOf>) -> Option<Self> {
        // The same batch may be in several files.
        batches.sort_unstable();
        batches.dedup_by_key(|batch| batch.index);
        let last = batches.last()?;
        let mut session = Self {
            epoch: last.epoch,
            landed_ns: batches.iter().map(|batch| batch.landed_ns).max()?,
            next_seq: last.seq.saturating_add(1),
            floor: 0,
            known_from: 0,
            had: Vec::new(),
            missing: 0,
        };
        match order {
            Some(Order::Strong) => session.find_doubtful(&batches),
            Some(Order::Stream) => session.find_had(&batches),
            _ => {}
        }
        Some(session)
    }

    /// Order `strong`: sequences follow each other in the log, so one that is not there was
    /// ordered and is lost, or went with retention. It cannot be ordered behind its successors.
    fn find_doubtful(&mut self, batches: &[BatchOf]) {
        let mut before: Option<&BatchOf> = None;
        for batch in batches {
            let expected = before.map_or(batch.seq, |before| before.seq.saturating_add(1));
            if batch.seq < expected {
                (self.floor, self.known_from, self.missing) = (0, 0, 0);
            } else if batch.seq > expected {
                if self.floor >= self.known_from {
                    self.floor = expected;
                }
                self.known_from = batch.seq;
                self.missing += batch.seq - expected;
            }
            before = Some(batch);
        }
    }

    fn find_had(&mut self, batches: &[BatchOf]) {
        let mut set = StreamSet::new();
        let mut since = 0;
        for (at, batch) in batches.iter().enumerate() {
            let is_later = at > since && batch.epoch < batches[at - 1].epoch;
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
        for (number, (_, topic, client, session)) in (0..have).zip(self.all) {
            let SessionOf { epoch, next_seq, floor, known_from, missing, .. } = session;
            if missing > 0 {
                let name = names.get(&topic).map_or("?", String::as_str);
                notes.push(format!(
                    "topic {name}: {missing} batches of client {client:#x} between sequences \
                     {floor} and {known_from} are on no disk, and later ones are: sent again, they \
                     are told to be lost; publish their messages anew"
                ));
            }
            let standing = Standing { epoch, state: SessionState::Closed };
            // Whatever the log has in this pool is of this session: it begins with it.
            let line = SessionLine {
                standing: standing.pack(),
                client,
                next_seq,
                topic,
                opened_at: 0,
                floor,
                known_from,
                ..SessionLine::default()
            };
            pool.set_session(number, &line);
            if !session.had.is_empty() {
                had.insert((TopicId(topic), client), session.had);
            }
        }
        Ok(had)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(order: Order, batches: &[(u64, u32, u64)]) -> SessionOf {
        let of = |(index, epoch, seq): &(u64, u32, u64)| BatchOf {
            index: *index,
            epoch: *epoch,
            seq: *seq,
            landed_ns: 7,
        };
        SessionOf::of(Some(order), batches.iter().map(of).collect()).unwrap()
    }

    #[test]
    fn a_gap_of_a_stream_is_not_in_the_log_and_what_is_behind_it_is() {
        let found =
            session(Order::Stream, &[(4, 1, 4), (0, 1, 0), (0, 1, 0), (3, 1, 1), (5, 1, 3)]);
        assert_eq!((found.next_seq, found.floor, found.known_from), (5, 2, 0));
        assert_eq!(found.had, [4, 3]);
    }

    #[test]
    fn what_strong_has_lost_in_front_of_what_it_has_is_doubtful() {
        let found = session(Order::Strong, &[(3, 1, 3), (4, 1, 4), (7, 1, 7), (9, 2, 8)]);
        assert_eq!((found.next_seq, found.floor, found.known_from), (9, 5, 7));
        let whole = session(Order::Strong, &[(3, 1, 3), (4, 1, 4)]);
        assert_eq!((whole.next_seq, whole.floor, whole.known_from), (5, 0, 0));
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
