//! Which session has which line. Pure: lines are written by the sequencer thread around it.

use std::collections::HashMap;

use landfall_layout::TopicId;
use landfall_layout::command::Denial;
use landfall_layout::session::{
    Opening, SessionLine, SessionState, Standing, first_epoch_after, next_epoch,
};

use crate::messages::OpenSession;
use crate::sequencer::SessionView;

/// What is known of one line.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Topic.
    pub topic: TopicId,
    /// Client.
    pub client: u64,
    /// Epoch and state.
    pub standing: Standing,
    /// Entries that the topic's log had when the line was given to this client.
    pub opened_at: u64,
    /// Sequences that may be lost although they were ordered: from, and up to.
    doubtful: (u64, u64),
    /// Who opened the epoch.
    opened_by: Opening,
    /// Brokers through which the epoch was opened or joined, a bit each.
    pub(super) joined: u32,
    /// A control before this one opened the epoch: a broker may be in it that has not said so yet.
    pub(super) is_restored: bool,
    /// A broker ended that was, or may have been, in it, and no publisher came since.
    pub(super) is_left: bool,
    /// Since when no broker is in it, in nanoseconds listened.
    pub(super) left_ns: Option<u64>,
    /// Counts openings and fencings of the whole table: the lower, the longer unused.
    used: u64,
}

impl Session {
    /// The line that says it, and what the sequencer says where there is one.
    pub fn line(&self, view: Option<SessionView>) -> SessionLine {
        let mut window = view.map_or((0, 0), |view| (view.floor_word(), view.known_from));
        if self.doubtful != (0, 0) {
            window = self.doubtful;
        }
        SessionLine {
            standing: self.standing.pack(),
            client: self.client,
            next_seq: view.map_or(0, |view| view.next_seq),
            topic: self.topic.0,
            opened_epoch: self.standing.epoch,
            opened_at: self.opened_at,
            opened_by: self.opened_by.pack(),
            floor: window.0,
            known_from: window.1,
        }
    }
}

/// A session that was opened or joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Index of its line.
    pub index: u32,
    /// Its epoch.
    pub epoch: u32,
    /// The topic of another session that had the line until now.
    pub evicted: Option<TopicId>,
    /// What came last in it was the same publisher's when it opened it in this pool first.
    pub is_own: bool,
}

/// Why a session was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The reason.
    pub why: Denial,
    /// Line and epoch of the client's session, when it has one.
    pub current: Option<(u32, u32)>,
}

/// All lines of the pool.
#[derive(Debug)]
pub struct SessionTable {
    pub(super) lines: Vec<Option<Session>>,
    by_client: HashMap<(TopicId, u64), u32>,
    free: Vec<u32>,
    /// Last epoch of each unused line that a control before this one had given to somebody.
    spent: HashMap<u32, u32>,
    uses: u64,
    /// Brokers that have not said yet which sessions they are in, a bit each.
    pub(super) untold: u32,
    /// The line that is looked at next.
    pub(super) next_look: usize,
}

/// An unused line, or one that somebody else has until now.
struct Taken {
    index: u32,
    epoch: u32,
    evicted: Option<TopicId>,
}

impl SessionTable {
    /// A table of `lines` unused lines.
    pub fn new(lines: u32) -> Self {
        Self {
            lines: vec![None; lines as usize],
            by_client: HashMap::new(),
            free: (0..lines).rev().collect(),
            spent: HashMap::new(),
            uses: 0,
            untold: 0,
            next_look: 0,
        }
    }

    /// A table of `lines` lines as a control before this one left them, by index. Any of the
    /// brokers in `untold` may be in any of the sessions, until it says in which it is.
    pub fn restored(
        lines: u32,
        found: impl IntoIterator<Item = (u32, SessionLine)>,
        untold: u32,
    ) -> Self {
        let mut table = Self { untold, ..Self::new(lines) };
        for (index, line) in found {
            let standing = Standing::unpack(line.standing);
            if index >= lines {
                continue;
            }
            if standing.state == SessionState::Free {
                table.spent.insert(index, standing.epoch);
                continue;
            }
            let (topic, client) = (TopicId(line.topic), line.client);
            let opened_at = line.opened_at;
            let is_doubtful = line.floor < line.known_from;
            let doubtful = if is_doubtful { (line.floor, line.known_from) } else { (0, 0) };
            // Of another epoch: its writer died while it opened that one.
            let is_whole = line.opened_epoch == standing.epoch;
            let opened_by = Opening::unpack(if is_whole { line.opened_by } else { 0 });
            let session = Session {
                topic,
                client,
                standing,
                opened_at,
                doubtful,
                opened_by,
                joined: 0,
                is_restored: true,
                is_left: true,
                left_ns: None,
                used: 0,
            };
            table.lines[index as usize] = Some(session);
            table.by_client.insert((topic, client), index);
        }
        let Self { lines, free, .. } = &mut table;
        free.retain(|index| lines[*index as usize].is_none());
        table
    }

    /// A session.
    pub fn get(&self, index: u32) -> Option<&Session> {
        self.lines.get(index as usize)?.as_ref()
    }

    /// Index and state of every session.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Session)> {
        self.lines.iter().enumerate().filter_map(|(i, line)| Some((i as u32, line.as_ref()?)))
    }

    /// The line of a client.
    pub fn index_of(&self, topic: TopicId, client: u64) -> Option<u32> {
        self.by_client.get(&(topic, client)).copied()
    }

    /// Opens the next epoch of a session, or joins the one that is named. A request that opened
    /// the epoch is answered with it as often as it comes, and opens it once: its answer may have
    /// been lost with the control that gave it, and the client takes a second epoch for another's.
    /// A publisher that comes back after another one of its client id opened the session is
    /// refused, and the other one's epoch stands.
    ///
    /// `entries` is how many the topic's log has.
    pub fn open(&mut self, open: &OpenSession, entries: u64) -> Result<Opened, Refused> {
        let bit = 1 << open.broker.index();
        let Some(index) = self.index_of(open.topic, open.client) else {
            if open.epoch != 0 {
                return Err(Refused { why: Denial::NoSession, current: None });
            }
            let Taken { index, epoch, evicted } =
                self.take_line().ok_or(Refused { why: Denial::SessionsFull, current: None })?;
            // What the line's last epoch was is over for good.
            let epoch = if epoch == 0 { 1 } else { first_epoch_after(epoch) };
            let session = Session {
                topic: open.topic,
                client: open.client,
                standing: Standing { epoch, state: SessionState::Active },
                opened_at: entries,
                doubtful: (0, 0),
                opened_by: Opening::by(open.life, open.request, false),
                joined: bit,
                is_restored: false,
                is_left: false,
                left_ns: None,
                used: self.next_use(),
            };
            self.lines[index as usize] = Some(session);
            self.by_client.insert((open.topic, open.client), index);
            return Ok(Opened { index, epoch, evicted, is_own: false });
        };
        let used = self.next_use();
        let session = self.lines[index as usize].as_mut().expect("a client's line is in use");
        let Standing { epoch, state } = session.standing;
        let refused = |why| Err(Refused { why, current: Some((index, epoch)) });
        let before = session.opened_by;
        let is_same = before.life == open.life && open.life != 0;
        let is_own = is_same && (before.is_own || !before.is_here());
        let opening = Opening::by(open.life, open.request, is_own);
        if open.epoch == 0
            && opening.is_here()
            && (before.life, before.request) == (opening.life, opening.request)
        {
            // Fenced meanwhile: the client learns of that by its batches, or never asks.
            session.joined |= bit;
        } else if open.epoch == 0
            && open.comes_back
            && open.life != 0
            && before.is_here()
            && !is_same
        {
            return refused(Denial::Superseded);
        } else if open.epoch == 0 {
            session.standing = Standing { epoch: next_epoch(epoch), state: SessionState::Active };
            session.opened_by = opening;
            (session.joined, session.is_restored) = (bit, false);
        } else if open.epoch > epoch {
            return refused(Denial::NoSession);
        } else if open.epoch < epoch || state == SessionState::Fenced {
            return refused(Denial::Fenced);
        } else {
            session.standing.state = SessionState::Active;
            session.joined |= bit;
        }
        if session.standing.state == SessionState::Closed {
            // It was because nobody came, and somebody may be coming now.
            session.standing.state = SessionState::Active;
        }
        (session.is_left, session.left_ns) = (false, None);
        session.used = used;
        let is_own = session.opened_by.is_own;
        Ok(Opened { index, epoch: session.standing.epoch, evicted: None, is_own })
    }

    /// Moves a session to another state.
    pub fn set_state(&mut self, index: u32, state: SessionState) -> Option<&Session> {
        let used = self.next_use();
        let session = self.lines.get_mut(index as usize)?.as_mut()?;
        session.standing.state = state;
        session.used = used;
        Some(session)
    }

    /// Forgets every session of a topic; the lines that are unused now.
    pub fn drop_topic(&mut self, topic: TopicId) -> Vec<u32> {
        let mut dropped = Vec::new();
        for (index, line) in self.lines.iter_mut().enumerate() {
            if let Some(session) = line.take_if(|session| session.topic == topic) {
                self.by_client.remove(&(topic, session.client));
                dropped.push(index as u32);
            }
        }
        self.free.extend(dropped.iter().rev());
        dropped
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// A line for a new session: an unused one, or that of the session closed or fenced longest.
    fn take_line(&mut self) -> Option<Taken> {
        if let Some(index) = self.free.pop() {
            let epoch = self.spent.remove(&index).unwrap_or(0);
            return Some(Taken { index, epoch, evicted: None });
        }
        let over = |session: &Session| match session.standing.state {
            SessionState::Closed => Some(0),
            SessionState::Fenced => Some(1),
            SessionState::Active | SessionState::Free => None,
        };
        let (_, _, index) = self
            .lines
            .iter()
            .enumerate()
            .filter_map(|(i, line)| line.as_ref().map(|session| (i, session)))
            .filter_map(|(i, session)| Some((over(session)?, session.used, i)))
            .min()?;
        let session = self.lines[index].take()?;
        self.by_client.remove(&(session.topic, session.client));
        let epoch = session.standing.epoch;
        Some(Taken { index: index as u32, epoch, evicted: Some(session.topic) })
    }
}

#[cfg(test)]
mod tests {
    use landfall_layout::BrokerId;

    use super::*;

    const TOPIC: TopicId = TopicId(256);

    fn ask(client: u64, epoch: u32, broker: usize) -> OpenSession {
        let broker = BrokerId::new(broker).unwrap();
        OpenSession { broker, request: 0, topic: TOPIC, client, epoch, life: 0, comes_back: false }
    }

    fn why(answer: Result<Opened, Refused>) -> Denial {
        answer.unwrap_err().why
    }

    #[test]
    fn zero_opens_the_next_epoch_and_a_number_joins_it() {
        let mut table = SessionTable::new(4);
        let first = table.open(&ask(7, 0, 0), 1).unwrap();
        assert_eq!((first.index, first.epoch), (0, 1));
        assert_eq!(table.open(&ask(7, 1, 1), 2).unwrap().epoch, 1);
        assert_eq!(table.open(&ask(7, 0, 0), 3).unwrap().epoch, 2);
        assert_eq!(why(table.open(&ask(7, 1, 0), 4)), Denial::Fenced);
        assert_eq!(why(table.open(&ask(7, 3, 0), 5)), Denial::NoSession);
        assert_eq!(why(table.open(&ask(8, 1, 0), 6)), Denial::NoSession);
        assert_eq!(table.get(0).unwrap().opened_at, 1, "the line is as old as its client");
    }

    #[test]
    fn a_publisher_that_another_one_took_over_from_opens_nothing() {
        let mut table = SessionTable::new(4);
        let ask_first = ask(7, 0, 0);
        let mut request = 0;
        let mut ask = |life, comes_back| {
            request += 1;
            table.open(&OpenSession { request, life, comes_back, ..ask_first }, 1)
        };
        assert_eq!(ask(1, false).unwrap().epoch, 1);
        assert_eq!(ask(1, true).unwrap().epoch, 2, "it is its own");
        assert_eq!(ask(2, false).unwrap().epoch, 3, "who begins takes over");
        let refused = ask(1, true).unwrap_err();
        assert_eq!((refused.why, refused.current), (Denial::Superseded, Some((0, 3))));
        assert_eq!(ask(2, true).unwrap().epoch, 4, "its epochs stand");
        let word = table.get(0).unwrap().line(None);
        let mut next = SessionTable::restored(4, [(0, word)], 0);
        let late = OpenSession { request: 9, life: 1, comes_back: true, ..ask_first };
        assert_eq!(why(next.open(&late, 1)), Denial::Superseded, "by the next control too");
    }

    #[test]
    fn what_came_back_from_disk_is_its_own_publishers_whoever_asks_and_however_often() {
        let standing = Standing { epoch: 1, state: SessionState::Closed }.pack();
        let opened_by = Opening { life: 1, ..Opening::default() }.pack();
        let line = SessionLine {
            standing,
            client: 7,
            topic: TOPIC.0,
            opened_epoch: 1,
            opened_by,
            ..SessionLine::default()
        };
        for (life, is_own) in [(1, true), (2, false)] {
            let mut table = SessionTable::restored(4, [(0, line)], 0);
            // The answers to the first ones are lost.
            for request in [3, 3, 4, 5] {
                let open = OpenSession { request, life, comes_back: true, ..ask(7, 0, 0) };
                assert_eq!(table.open(&open, 1).unwrap().is_own, is_own, "{life} {request}");
            }
            let other = OpenSession { request: 6, life: 3, comes_back: true, ..ask(7, 0, 0) };
            assert_eq!(why(table.open(&other, 1)), Denial::Superseded);
        }
    }

    #[test]
    fn a_fenced_epoch_cannot_be_joined_and_the_next_can_be_opened() {
        let mut table = SessionTable::new(4);
        table.open(&ask(7, 0, 0), 1).unwrap();
        table.set_state(0, SessionState::Fenced);
        assert_eq!(table.open(&ask(7, 1, 0), 1).unwrap_err().current, Some((0, 1)));
        assert_eq!(table.open(&ask(7, 0, 0), 1).unwrap().epoch, 2);
    }

    #[test]
    fn a_session_closes_with_its_last_broker() {
        let mut table = SessionTable::new(4);
        table.open(&ask(7, 0, 0), 1).unwrap();
        table.open(&ask(7, 1, 3), 1).unwrap();
        let broker = |number| BrokerId::new(number).unwrap();
        assert!(table.close(0, 1, broker(0)).is_none());
        assert!(table.close(0, 9, broker(3)).is_none(), "another epoch");
        assert_eq!(table.close(0, 1, broker(3)).unwrap().standing.state, SessionState::Closed);
        assert_eq!(table.open(&ask(7, 1, 0), 1).unwrap().epoch, 1, "it may come back");
    }

    #[test]
    fn a_full_table_gives_up_closed_lines_then_fenced_ones_and_never_active_ones() {
        let mut table = SessionTable::new(3);
        for client in 1..=3 {
            table.open(&ask(client, 0, 0), 1).unwrap();
        }
        assert_eq!(why(table.open(&ask(4, 0, 0), 1)), Denial::SessionsFull);
        table.set_state(2, SessionState::Fenced);
        table.set_state(1, SessionState::Fenced);
        table.close(0, 1, BrokerId::new(0).unwrap()).unwrap();
        let mut line = |client| table.open(&ask(client, 0, 0), 1).map(|opened| opened.index);
        assert_eq!((line(4), line(5), line(6)), (Ok(0), Ok(2), Ok(1)));
        assert!(line(7).is_err());
        assert_eq!(table.index_of(TOPIC, 1), None);
    }

    #[test]
    fn a_deleted_topics_lines_are_free_again() {
        let mut table = SessionTable::new(2);
        table.open(&ask(1, 0, 0), 1).unwrap();
        table.open(&ask(2, 0, 0), 1).unwrap();
        assert_eq!(table.drop_topic(TOPIC), [0, 1]);
        assert_eq!(table.open(&ask(1, 0, 0), 1).unwrap().epoch, 1);
    }

    #[test]
    fn no_two_epochs_of_a_line_are_the_same_whoever_has_it() {
        let mut table = SessionTable::new(1);
        let mut epochs = Vec::new();
        for client in [1, 2, 1, 3, 1] {
            epochs.push(table.open(&ask(client, 0, 0), 9).unwrap().epoch);
            epochs.push(table.open(&ask(client, 0, 0), 9).unwrap().epoch);
            table.set_state(0, SessionState::Fenced);
        }
        // A control that dies while the line goes to another leaves it free.
        let epoch = *epochs.last().unwrap();
        let free = Standing { epoch, state: SessionState::Free }.pack();
        let line = SessionLine { standing: free, ..SessionLine::default() };
        let mut next = SessionTable::restored(1, [(0, line)], 0);
        epochs.push(next.open(&ask(1, 0, 0), 9).unwrap().epoch);
        let distinct: std::collections::BTreeSet<u32> = epochs.iter().copied().collect();
        assert_eq!(distinct.len(), epochs.len(), "{epochs:?}");
    }

    #[test]
    fn lines_are_restored_as_they_say() {
        let mut table = SessionTable::new(3);
        table.open(&ask(7, 0, 0), 5).unwrap();
        table.open(&ask(7, 0, 0), 6).unwrap();
        let line = table.get(0).unwrap().line(None);
        let found = [(0, line), (1, SessionLine::default()), (99, line)];
        let mut next = SessionTable::restored(3, found, 1);
        assert_eq!(next.open(&ask(7, 2, 1), 7).unwrap().index, 0);
        assert_eq!(next.open(&ask(8, 0, 1), 7).unwrap().index, 1);
        next.said_all(BrokerId::new(0).unwrap());
        assert!(next.close(0, 2, BrokerId::new(1).unwrap()).is_some());
    }
}
