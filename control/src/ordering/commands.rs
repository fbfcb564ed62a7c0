//! What the keeper tells the sequencer: set-up, apart from the fast path.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use landfall_layout::TopicId;
use landfall_layout::command::{Command, Denial};
use landfall_layout::counters::Counter;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::topic::Order;
use landfall_pool::log::LogSegment;
use landfall_pool::slot_ring::SlotReader;

use super::over::Over;
use super::sessions::Session;
use super::{Ring, SequencerThread, Work};
use crate::messages::{FromSequencer, NewRing, NewTopic, OpenSession, ToSequencer};
use crate::sequencer::{SessionView, Wish, Wished};

/// Commands taken between two bursts.
const COMMANDS_PER_TURN: usize = 64;
/// Session lines looked at when the keeper says that time has passed.
const LINES_PER_LOOK: usize = 1024;

impl SequencerThread {
    /// Takes some commands, as long as answers find room. Whether there was one.
    #[cold]
    pub(super) fn take_commands(&mut self) -> bool {
        // EDGE for-sequencer, acquire half. Pairs with the keeper's `tell_sequencer`: a swap, so
        // that whatever was sent before the flag that it clears is in the channel.
        self.shared.for_sequencer.swap(false, Ordering::AcqRel);
        for _ in 0..COMMANDS_PER_TURN {
            if self.to_keeper.is_backed_up() {
                break;
            }
            let Ok(command) = self.from_keeper.try_recv() else { return true };
            self.obey(command);
        }
        self.shared.for_sequencer.store(true, Ordering::Relaxed);
        true
    }

    fn obey(&mut self, command: ToSequencer) {
        match command {
            ToSequencer::AddTopic(new) => self.add_topic(*new),
            ToSequencer::AddRing(new) => self.add_ring(new),
            ToSequencer::AddLog { topic, segment } => self.add_log(topic, segment),
            ToSequencer::DropTopic { topic } => self.drop_topic(topic),
            ToSequencer::OpenSession(open) => self.open_session(open),
            ToSequencer::CloseSession { broker, index, epoch } => {
                if let Some(session) = self.sessions.close(index, epoch, broker).copied() {
                    self.closed(index, &session);
                }
            }
            ToSequencer::Joined { broker, sessions } => {
                for (index, epoch) in sessions {
                    self.sessions.named(index, epoch, broker);
                }
            }
            ToSequencer::JoinedAll { broker } => self.sessions.said_all(broker),
            ToSequencer::CloseLeft { heard_ns, lease_ns } => self.close_left(heard_ns, lease_ns),
            ToSequencer::Fence { topic, client, epoch, late } => {
                self.fence(topic, client, epoch, late);
            }
            ToSequencer::Reserve { topic, wish } => self.reserve(topic, wish),
            ToSequencer::BrokerGone { broker } => self.sessions.broker_gone(broker),
        }
    }

    /// Closes sessions that no broker was in for a lease, among some lines: all of a pool of 16,384
    /// are looked at within two seconds.
    fn close_left(&mut self, heard_ns: u64, lease_ns: u64) {
        for _ in 0..self.sessions.lines().min(LINES_PER_LOOK) {
            let left = self.sessions.look_at_next(heard_ns, lease_ns);
            if let Some((index, session)) = left.map(|(index, session)| (index, *session)) {
                self.closed(index, &session);
            }
        }
    }

    /// Says that a session is closed.
    fn closed(&mut self, index: u32, session: &Session) {
        let topic = session.topic;
        if let Some(work) = self.work_of(topic)
            && work.order == Order::Token
        {
            // Everything that it was acknowledged is in the log: the rest is holes.
            work.sequencer.close_session(index);
        }
        let view = self.view(topic, index);
        self.pool.set_session(index, &session.line(view));
    }

    /// Ends an epoch whose batches do not stay what they were, or do not come. Where there is an
    /// order, the line says so only with the next burst, once the frontier covers what is ordered
    /// of it.
    #[cold]
    fn fence(&mut self, topic: TopicId, client: u64, epoch: u32, late: Option<u64>) {
        let Some(index) = self.sessions.index_of(topic, client) else { return };
        let wanted = Standing { epoch, state: SessionState::Active };
        if self.sessions.get(index).is_none_or(|session| session.standing != wanted) {
            return;
        }
        if let Some(work) = self.work_of(topic) {
            Over::new(index, epoch, late).note(&mut work.over);
        } else if let Some(session) = self.sessions.set_state(index, SessionState::Fenced) {
            let line = session.line(None);
            self.pool.set_session(index, &line);
            self.counters.add(&self.pool, Counter::Fenced, 1);
        }
    }

    fn add_topic(&mut self, new: NewTopic) {
        let NewTopic { topic, order, sequencer, is_new, log } = new;
        if is_new {
            self.pool.start_frontier(topic, SEQUENCED_LOG);
        }
        self.works.push(Work {
            topic,
            order,
            sequencer,
            rings: Vec::new(),
            log,
            spares: VecDeque::with_capacity(8),
            asked: 0,
            wishes: VecDeque::new(),
            over: Vec::new(),
        });
    }

    fn add_ring(&mut self, new: NewRing) {
        let NewRing { topic, broker, ring } = new;
        let consumed = ring.consumed(&*self.pool);
        let Some(work) = self.work_of(topic) else { return };
        // A topic that was recovered has its rings open already; its slots were checked before.
        let opened = work.sequencer.open_ring(broker, ring.slots as u32, consumed);
        if opened.is_ok() && work.rings.iter().all(|ring| ring.broker != broker) {
            work.rings.push(Ring { broker, reader: SlotReader::new(ring), told: consumed });
        }
    }

    fn add_log(&mut self, topic: TopicId, segment: LogSegment) {
        if let Some(work) = self.work_of(topic) {
            work.spares.push_back(segment);
        }
    }

    fn drop_topic(&mut self, topic: TopicId) {
        self.works.retain(|work| work.topic != topic);
        for index in self.sessions.drop_topic(topic) {
            self.pool.set_session(index, &SessionLine::default());
        }
        self.tell_keeper(FromSequencer::Dropped { topic });
    }

    /// Positions for a session. They are handed out in the order in which they were asked for.
    fn reserve(&mut self, topic: TopicId, wish: Wish) {
        match self.work_of(topic) {
            Some(work) => work.wishes.push_back(wish),
            None => {
                let Wish { broker, request, .. } = wish;
                let why = Denial::NoTopic;
                let command = Command::SessionDenied { request, why, epoch: 0, next_seq: 0 };
                self.tell_keeper(FromSequencer::Answer { broker, command });
            }
        }
    }

    /// Hands out positions, as far as the bound on what is outstanding allows.
    #[cold]
    pub(super) fn grant_wishes(&mut self, i: usize, clock_ns: u64) {
        while let Some(wish) = self.works[i].wishes.front().copied() {
            let Wish { session, broker, request, .. } = wish;
            let command = match self.works[i].sequencer.reserve(&wish, clock_ns) {
                Wished::Later => return,
                Wished::Granted { first, count } => {
                    Some(Command::Reserved { request, first, count })
                }
                Wished::Over => {
                    let epoch = self.sessions.get(session).map_or(0, |of| of.standing.epoch);
                    let why = Denial::Fenced;
                    Some(Command::SessionDenied { request, why, epoch, next_seq: 0 })
                }
                Wished::Again => None,
            };
            self.works[i].wishes.pop_front();
            if let Some(command) = command {
                self.tell_keeper(FromSequencer::Answer { broker, command });
            }
        }
    }

    fn view(&mut self, topic: TopicId, index: u32) -> Option<SessionView> {
        self.work_of(topic).and_then(|work| work.sequencer.session(index))
    }

    fn open_session(&mut self, open: OpenSession) {
        let OpenSession { broker, request, topic, client, .. } = open;
        // Between two bursts every entry that was emitted is below the frontier in the pool.
        let entries = self.pool.frontier(topic, SEQUENCED_LOG).entries;
        let command = match self.sessions.open(&open, entries) {
            Ok(opened) => {
                let (index, epoch) = (opened.index, opened.epoch);
                if let Some(before) = opened.evicted
                    && let Some(work) = self.work_of(before)
                {
                    work.sequencer.forget_session(index);
                }
                if let Some(work) = self.work_of(topic) {
                    work.sequencer.open_session(index, client, epoch, 0);
                }
                let view = self.view(topic, index);
                if let Some(session) = self.sessions.get(index) {
                    self.pool.set_session(index, &session.line(view));
                }
                let next_seq = view.map_or(0, |view| view.next_seq);
                Command::SessionOpen { request, index, epoch, next_seq, is_own: opened.is_own }
            }
            Err(refused) => {
                let (index, epoch) = refused.current.unwrap_or_default();
                let next_seq = match refused.current {
                    Some(_) => self.view(topic, index).map_or(0, |view| view.next_seq),
                    None => 0,
                };
                Command::SessionDenied { request, why: refused.why, epoch, next_seq }
            }
        };
        self.tell_keeper(FromSequencer::Answer { broker, command });
    }
}
