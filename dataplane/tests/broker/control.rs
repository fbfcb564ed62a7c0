//! A control of few words: answers every request, orders every slot in the order seen.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use landfall_layout::command::{Command, Denial, Request, first_command};
use landfall_layout::limits::{COMMAND_LINES, SEQUENCED_LOG};
use landfall_layout::order::{ChainLine, ENTRY_HOLE, FrontierLine, OrderEntry};
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::segment::{OWNER_CONTROL, SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::slot::{ConsumedLine, RingLine, RingSlot};
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_pool::bell::{Ringer, Role};
use landfall_pool::clock::wall_ns;
use landfall_pool::line_ring::{LineConsumer, LineProducer, LineRing};
use landfall_pool::log::LogSegment;
use landfall_pool::slot_ring::SlotReader;

struct Side {
    id: BrokerId,
    requests: LineConsumer,
    commands: LineProducer,
}

struct Log {
    segments: Vec<LogSegment>,
    next: u64,
    position: u64,
}

pub struct Control {
    pub pool: Arc<Pool>,
    ringer: Ringer,
    sides: Vec<Side>,
    next_segment: u32,
    generation: u64,
    next_session: u32,
    /// Positions handed out.
    reserved: u64,
    sessions: HashMap<(u32, u64), (u32, u32)>,
    topics: Vec<(TopicId, Order)>,
    logs: HashMap<(u32, usize), Log>,
    rings: HashMap<(u32, usize), (SlotReader, u64)>,
    /// What tests look at and turn.
    pub sealed: Vec<(u32, u64)>,
    pub retired: Vec<(u8, u32)>,
    pub released: Vec<(u8, u32)>,
    /// Segments that may not be used again yet.
    pub withheld: Vec<u32>,
    /// Whose word that that is all has come, to the leader of which epoch.
    pub all_withheld: Vec<(u64, u64)>,
    pub closed: Vec<(u32, u32)>,
    pub fenced: Vec<(u64, u32)>,
    pub paused: bool,
    pub deny: bool,
    pub deny_rings: bool,
    pub silent: bool,
    /// Sequences that are duplicates.
    pub drop_seqs: HashSet<u64>,
    /// Sequences whose positions become holes.
    pub hole_seqs: HashSet<u64>,
    /// Log index and position at which brokers' own logs begin.
    pub begins: (u64, u64),
    offer: HashSet<(u32, usize)>,
}

impl Control {
    pub fn new(pool: Arc<Pool>, brokers: usize) -> Self {
        let term = Term { epoch: 1, serves: false }.pack();
        assert!(pool.claim(0, &LeaderLine { term, ..LeaderLine::default() }));
        assert!(pool.serve(1));
        let geometry = *pool.geometry();
        let ring = |taken_at, at| LineRing { taken_at, at, lines: COMMAND_LINES };
        let requests = |id| ring(geometry.requests_taken(id), geometry.requests(id));
        let commands = |id| ring(geometry.commands_taken(id), geometry.commands(id));
        let sides = (0..brokers)
            .filter_map(BrokerId::new)
            .map(|id| Side {
                id,
                requests: LineConsumer::resume(&*pool, requests(id)),
                commands: LineProducer::begin(commands(id), first_command(1)),
            })
            .collect();
        Self {
            ringer: Ringer::new(&pool).unwrap(),
            sides,
            next_segment: 0,
            generation: 0,
            next_session: 0,
            reserved: 0,
            sessions: HashMap::new(),
            topics: Vec::new(),
            logs: HashMap::new(),
            rings: HashMap::new(),
            sealed: Vec::new(),
            retired: Vec::new(),
            released: Vec::new(),
            withheld: Vec::new(),
            all_withheld: Vec::new(),
            closed: Vec::new(),
            fenced: Vec::new(),
            paused: false,
            deny: false,
            deny_rings: false,
            silent: false,
            drop_seqs: HashSet::new(),
            hole_seqs: HashSet::new(),
            begins: (0, 0),
            offer: HashSet::new(),
            pool,
        }
    }

    pub fn topic(&mut self, name: &str, order: Order, ring_slots: u32, flags: u8) -> TopicId {
        let id = TopicId::new(self.topics.len(), 1);
        let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
        entry.id = id.0;
        entry.state = 1;
        entry.order = order.raw();
        entry.flags = flags;
        entry.ring_slots = ring_slots;
        entry.created_ns = wall_ns();
        entry.session_lease_ns = 10_000_000_000;
        entry.name_bytes = name.len() as u32;
        entry.name[..name.len()].copy_from_slice(name.as_bytes());
        self.topics.push((id, order));
        if order.is_sequenced() {
            self.pool.start_frontier(id, SEQUENCED_LOG);
            self.extend(id, SEQUENCED_LOG);
        }
        self.pool.set_topic(&entry);
        id
    }

    pub fn delete(&mut self, id: TopicId) {
        let mut entry = self.pool.topic(id).unwrap();
        (entry.state, entry.deleted_ns) = (TopicState::Deleting as u8, 1);
        self.pool.set_topic(&entry);
        self.tell_all(Command::DropTopic { topic: id });
    }

    pub fn tell_all(&mut self, command: Command) {
        for side in &mut self.sides {
            assert!(side.commands.push(&*self.pool, command.pack()));
            self.ringer.ring(&self.pool, Role::Broker(side.id));
        }
    }

    /// Sessions that were opened.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Ends the present epoch of a client's session.
    pub fn fence(&mut self, topic: TopicId, client: u64) {
        let (index, epoch) = self.sessions[&(topic.0, client)];
        let mut line = self.pool.session(index).unwrap();
        line.standing = Standing { epoch, state: SessionState::Fenced }.pack();
        self.pool.set_session(index, &line);
    }

    fn take(&mut self, what: What, base_index: u64, previous: SegmentId) -> (u32, u64) {
        let segment = self.next_segment;
        assert!(segment < self.pool.geometry().segments(), "the rig's pool is too small");
        self.next_segment += 1;
        self.generation += 1;
        let header = SegmentHeader {
            what: what.pack(),
            generation: self.generation,
            base_index,
            previous: previous.0,
            ..SegmentHeader::FREE
        };
        self.pool.give_segment(SegmentId(segment), &header);
        (segment, self.generation)
    }

    fn extend(&mut self, topic: TopicId, log: usize) -> (LogSegment, u64) {
        let capacity = self.pool.geometry().entries_per_segment();
        let last = self.logs.get(&(topic.0, log)).and_then(|log| log.segments.last().copied());
        let begins = if log == SEQUENCED_LOG { (0, 0) } else { self.begins };
        let base = last.map_or(begins.0, |last| last.base + capacity);
        let owner = if log == SEQUENCED_LOG { OWNER_CONTROL } else { log as u8 };
        let what = What {
            kind: SegmentKind::OrderLog,
            state: SegmentState::Open,
            owner,
            log: log as u8,
            topic,
        };
        let previous = last.map_or(SegmentId::NONE, |last| last.segment);
        let (number, generation) = self.take(what, base, previous);
        let segment = SegmentId(number);
        let at = self.pool.geometry().segment(segment).unwrap();
        let added = LogSegment { segment, at, base, capacity };
        match last {
            Some(last) => self.pool.link_segment(last.segment, segment),
            None => self.pool.set_chain(
                topic,
                log,
                &ChainLine {
                    head: number,
                    tail: number,
                    topic: topic.0.into(),
                    oldest_index: begins.0,
                    oldest_position: begins.1,
                    ..ChainLine::default()
                },
            ),
        }
        let known = self.logs.entry((topic.0, log)).or_insert(Log {
            segments: Vec::new(),
            next: 0,
            position: 0,
        });
        known.segments.push(added);
        (added, generation)
    }

    /// Does once all there is to do; whether there was any.
    pub fn step(&mut self) -> bool {
        let mut busy = false;
        for i in 0..self.sides.len() {
            while !self.silent
                && let Some(body) = self.sides[i].requests.pop(&*self.pool)
            {
                busy = true;
                let request = Request::unpack(body).expect("brokers send what exists");
                let answer = self.answer(self.sides[i].id, request);
                if let Some(answer) = answer {
                    assert!(self.sides[i].commands.push(&*self.pool, answer.pack()));
                    self.ringer.ring(&self.pool, Role::Broker(self.sides[i].id));
                }
            }
        }
        if !self.paused {
            for i in 0..self.topics.len() {
                busy |= self.order(self.topics[i].0);
            }
        }
        busy
    }

    fn answer(&mut self, broker: BrokerId, request: Request) -> Option<Command> {
        match request {
            Request::Register { incarnation } => {
                self.pool.count_on(broker, incarnation);
                Some(Command::Accepted { epoch: 1, incarnation })
            }
            Request::OpenRing { topic } if self.deny_rings => {
                let (kind, why) = (SegmentKind::Ring, Denial::PoolFull);
                let segments = self.pool.geometry().segments();
                Some(Command::Denied { topic, kind, why, free: 0, segments })
            }
            Request::OpenRing { topic } => Some(self.open_ring(broker, topic)),
            Request::Want { kind, topic, .. } if self.deny && kind == SegmentKind::Payload => {
                let segments = self.pool.geometry().segments();
                let why = Denial::PoolFull;
                Some(Command::Denied { topic, kind, why, free: 0, segments })
            }
            Request::Want { kind: SegmentKind::OrderLog, topic, .. } => {
                let key = (topic.0, broker.index());
                let (added, generation) = if self.offer.remove(&key) {
                    let added = self.logs[&key].segments[0];
                    (added, self.pool.segment_generation(added.segment.0))
                } else {
                    self.extend(topic, broker.index())
                };
                Some(Command::Grant {
                    kind: SegmentKind::OrderLog,
                    topic,
                    segment: added.segment.0,
                    generation,
                    base_index: added.base,
                })
            }
            Request::Want { kind, topic, .. } => {
                let owner = broker.raw();
                let what = What { kind, state: SegmentState::Open, owner, log: 0, topic };
                let (segment, generation) = self.take(what, 0, SegmentId::NONE);
                Some(Command::Grant { kind, topic, segment, generation, base_index: 0 })
            }
            Request::OpenSession { request, topic, client, epoch, .. } => {
                Some(self.open_session(request, topic, client, epoch))
            }
            Request::Reserve { request, session, epoch, count, .. } => {
                let line = self.pool.session(session).unwrap();
                let active = Standing { epoch, state: SessionState::Active };
                if Standing::unpack(line.standing) != active {
                    let why = Denial::Fenced;
                    return Some(Command::SessionDenied { request, why, epoch, next_seq: 0 });
                }
                let first = self.reserved;
                self.reserved += u64::from(count);
                Some(Command::Reserved { request, first, count })
            }
            Request::CloseSession { index, epoch } => {
                self.closed.push((index, epoch));
                None
            }
            // This control begins with the pool, so nobody was with a broker before.
            Request::Joined { .. } | Request::JoinedAll { .. } => None,
            Request::Sealed { segment, through, .. } => {
                let id = SegmentId(segment);
                let header = self.pool.segment_header(id).unwrap();
                let what = What::unpack(header.what).unwrap();
                self.pool.set_segment_what(id, What { state: SegmentState::Sealed, ..what });
                if !self.sealed.iter().any(|(other, _)| *other == segment) {
                    self.sealed.push((segment, through));
                }
                None
            }
            Request::Retired { segment, .. } => {
                self.retired.push((broker.raw(), segment));
                None
            }
            Request::TopicReleased { topic } => {
                self.released.push((broker.raw(), topic.0));
                None
            }
            Request::Lost { segment } => {
                self.pool.set_segment_lost(SegmentId(segment), 1);
                None
            }
            Request::Withhold { segment, .. } => {
                self.withheld.push(segment);
                None
            }
            Request::LetGo { segment, .. } => {
                self.withheld.retain(|other| *other != segment);
                None
            }
            Request::AllWithheld { epoch, incarnation } => {
                self.all_withheld.push((epoch, incarnation));
                None
            }
            // This control awaits nobody's disk.
            Request::TopicSaid { .. } => None,
            Request::Fence { client, epoch, .. } => {
                self.fenced.push((client, epoch));
                None
            }
        }
    }

    fn open_ring(&mut self, broker: BrokerId, topic: TopicId) -> Command {
        if self.rings.contains_key(&(topic.0, broker.index())) {
            return Command::RingReady { topic };
        }
        let slots = self.pool.topic(topic).unwrap().ring_slots;
        let what = What {
            kind: SegmentKind::Ring,
            state: SegmentState::Open,
            owner: broker.raw(),
            log: 0,
            topic,
        };
        let (segment, generation) = self.take(what, 0, SegmentId::NONE);
        let consumed = ConsumedLine { topic: topic.0.into(), ..ConsumedLine::default() };
        self.pool.set_consumed(topic.slot(), broker, &consumed);
        let line =
            RingLine { topic: topic.0.into(), segment, slots, generation, ..RingLine::default() };
        self.pool.set_ring(topic.slot(), broker, &line);
        let reader = SlotReader::new(self.pool.slot_ring(topic, broker).unwrap());
        self.rings.insert((topic.0, broker.index()), (reader, 0));
        Command::RingReady { topic }
    }

    fn open_session(&mut self, request: u64, topic: TopicId, client: u64, epoch: u32) -> Command {
        let known = self.sessions.get(&(topic.0, client)).copied();
        let (index, now) = known.unwrap_or((self.next_session, 0));
        let next_seq = known.map_or(0, |(index, _)| self.pool.session(index).unwrap().next_seq);
        if epoch != 0 {
            let why = if epoch > now { Denial::NoSession } else { Denial::Fenced };
            self.closed.retain(|closed| epoch != now || *closed != (index, epoch));
            return if epoch == now {
                Command::SessionOpen { request, index, epoch, next_seq, is_own: false }
            } else {
                Command::SessionDenied { request, why, epoch: now, next_seq }
            };
        }
        self.next_session += u32::from(known.is_none());
        let epoch = now + 1;
        self.sessions.insert((topic.0, client), (index, epoch));
        let line = SessionLine {
            standing: Standing { epoch, state: SessionState::Active }.pack(),
            client,
            next_seq,
            topic: topic.0,
            ..SessionLine::default()
        };
        self.pool.set_session(index, &line);
        Command::SessionOpen { request, index, epoch, next_seq, is_own: false }
    }

    fn order(&mut self, topic: TopicId) -> bool {
        let mut busy = false;
        for i in 0..self.sides.len() {
            let broker = self.sides[i].id;
            let key = (topic.0, broker.index());
            while let Some((reader, scan)) = self.rings.get(&key).copied()
                && let Some(slot) = reader.peek(&*self.pool, scan)
            {
                busy = true;
                self.place(topic, broker, scan, &slot);
                reader.release(&*self.pool, scan + 1);
                self.rings.insert(key, (reader, scan + 1));
                self.ringer.ring(&self.pool, Role::Broker(broker));
            }
        }
        busy
    }

    fn place(&mut self, topic: TopicId, broker: BrokerId, index: u64, slot: &RingSlot) {
        let standing = self.pool.session_standing(slot.session).unwrap();
        let stands = standing.epoch == slot.session_epoch && standing.state == SessionState::Active;
        if !stands {
            return;
        }
        if self.drop_seqs.contains(&slot.batch_seq) {
            // The session is behind it, so that the drop can only be that of a duplicate.
            let next_seq = self.pool.session(slot.session).unwrap().next_seq;
            self.pool.set_session_next(slot.session, next_seq.max(slot.batch_seq + 1));
            return;
        }
        let key = (topic.0, SEQUENCED_LOG);
        let room = self.logs[&key].segments.iter().any(|s| s.holds(self.logs[&key].next));
        if !room {
            self.extend(topic, SEQUENCED_LOG);
        }
        let log = self.logs.get_mut(&key).unwrap();
        let entry = OrderEntry {
            first_position: log.position,
            client: slot.client,
            batch_seq: slot.batch_seq,
            landed_ns: slot.landed_ns,
            session_epoch: slot.session_epoch,
            ring_index: index as u32,
            checksum: slot.checksum,
            segment: slot.segment,
            offset: slot.offset,
            bytes: slot.bytes,
            count: slot.count,
            broker: broker.raw(),
            flags: 0,
            commit: 0,
        };
        let entry = match self.hole_seqs.contains(&slot.batch_seq) {
            true => OrderEntry {
                ring_index: 0,
                checksum: 0,
                segment: 0,
                offset: 0,
                bytes: 0,
                flags: ENTRY_HOLE,
                ..entry
            },
            false => entry,
        };
        let segment = log.segments.iter().rev().find(|s| s.holds(log.next)).unwrap();
        segment.write(&*self.pool, log.next, &entry);
        log.next += 1;
        log.position += u64::from(slot.count);
        let line = FrontierLine {
            entries: log.next,
            position: log.position,
            topic: topic.0.into(),
            ..FrontierLine::default()
        };
        self.pool.advance_frontier(topic, SEQUENCED_LOG, &line);
        self.pool.set_session_next(slot.session, slot.batch_seq + 1);
    }

    /// The grant of the first segment of a broker's own log.
    pub fn grant_of_log(&self, topic: TopicId, broker: usize) -> Command {
        let first = self.logs[&(topic.0, broker)].segments[0];
        Command::Grant {
            kind: SegmentKind::OrderLog,
            topic,
            segment: first.segment.0,
            generation: self.pool.segment_generation(first.segment.0),
            base_index: first.base,
        }
    }

    /// The next process of a broker gets the segments of its own logs again.
    pub fn offer_logs_again(&mut self) {
        self.offer.extend(self.logs.keys().filter(|(_, log)| *log != SEQUENCED_LOG).copied());
    }

    /// Entry `index` of the sequenced log, for tests that look closely.
    pub fn entry(&self, topic: TopicId, index: u64) -> Option<OrderEntry> {
        let log = self.logs.get(&(topic.0, SEQUENCED_LOG))?;
        (index < log.next).then_some(())?;
        log.segments.iter().find(|s| s.holds(index))?.read(&*self.pool, index)
    }
}
