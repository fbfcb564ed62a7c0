//! Reading the logs in the pool, read-only: each batch is copied once, under a hold.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{Ordering, fence};

use landfall_layout::TopicId;
use landfall_layout::batch::{BatchPreamble, PREAMBLE_BYTES};
use landfall_layout::channel::CLIENT_PARKED_AT;
use landfall_layout::frame::{Frame, From, GapReason, LogPlace, Refusal};
use landfall_layout::limits::{BROKERS_MAX, SEQUENCED_LOG};
use landfall_layout::order::OrderEntry;
use landfall_pool::channel::{HOLD, TO_CLIENT, open as open_channel, set_parked};
use landfall_pool::ends::ends;
use landfall_pool::hold::{EntryName, Hold};
use landfall_pool::line_ring::LineConsumer;
use landfall_pool::log::{Found, LogReader};
use landfall_pool::stream::crc32c_far;
use landfall_pool::{Mapping, Memory, Pool};

use super::places::{Arrival, Places};
use super::{Place, Step, Wanted, check_entry, check_head};
use crate::connect::{Handed, Socket};
use crate::error::{Corruption, Error};
use crate::silence::Heartbeat;
use landfall_pool::clock::coarse_ns;

/// Time between two looks at whether the broker is there: it answers for the hold, and control
/// takes a broker for dead after 3 s.
const ALIVE_EVERY_NS: u64 = 250_000_000;

const HEAD_BYTES: usize = PREAMBLE_BYTES as usize;

/// A place in one log.
struct Cursor {
    reader: LogReader,
    next: u64,
    /// Entries there are, as last seen.
    frontier: u64,
    /// Entries there were when the subscription began.
    goal: u64,
    /// It began at the log's end, where it may lack all that was asked for.
    at_end: bool,
}

/// A batch found, whose payload is the reader's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    pub(crate) place: Place,
    pub(crate) preamble: BatchPreamble,
}

/// The connection.
pub(crate) struct MemoryReader {
    pub(crate) broker: u8,
    pub(crate) pool: Pool,
    socket: Socket,
    channel: Mapping,
    from_broker: LineConsumer,
    topic: TopicId,
    sequenced: bool,
    from: From,
    cursors: Vec<Cursor>,
    turn: usize,
    /// Payload of the batch that was found last. Publishers can write the pool at any time: what
    /// is checked and shown is this copy.
    payload: Vec<u8>,
    looked_ns: u64,
    /// Somebody has looked whether the broker is there, and not whether its heartbeat moves.
    pub(crate) has_looked: bool,
    heartbeat: Heartbeat,
    wanted: Wanted,
}

impl MemoryReader {
    /// Maps what a broker handed over and finds the places to read from.
    pub(crate) fn new(
        broker: u8,
        handed: Handed,
        (topic, sequenced): (TopicId, bool),
        from: From,
        places: &Places,
    ) -> Result<Self, Error> {
        let Handed { socket, pool, channel, .. } = handed;
        let channel =
            open_channel(channel).map_err(|e| Error::Channel { broker, source: Box::new(e) })?;
        let pool = Pool::attach_handed(File::from(pool), false)
            .map_err(|e| Error::Pool { broker, source: Box::new(e) })?;
        let wanted = Wanted { topic, batch_bytes_max: pool.geometry().batch_bytes_max() };
        let mut reader = Self {
            broker,
            pool,
            socket,
            from_broker: LineConsumer::resume(&channel, TO_CLIENT),
            channel,
            topic,
            sequenced,
            from,
            cursors: Vec::new(),
            turn: 0,
            payload: Vec::new(),
            looked_ns: coarse_ns(),
            has_looked: false,
            heartbeat: Heartbeat::of(broker),
            wanted,
        };
        reader.notice_logs(places, true);
        Ok(reader)
    }

    /// Takes up logs that began meanwhile. A log that began after the subscription is all later
    /// than its start.
    fn notice_logs(&mut self, places: &Places, at_start: bool) {
        let logs = if self.sequenced { SEQUENCED_LOG..SEQUENCED_LOG + 1 } else { 0..BROKERS_MAX };
        for log in logs {
            if self.cursors.iter().any(|cursor| cursor.reader.log() == log) {
                continue;
            }
            let frontier = self.pool.frontier(self.topic, log);
            let chain = self.pool.chain(self.topic, log);
            if !self.sequenced && frontier.entries == 0 && chain.is_none() {
                continue;
            }
            let mut reader = LogReader::new(self.topic, log);
            let end = frontier.entries;
            let oldest = chain.map_or(0, |chain| chain.oldest_index).min(end);
            let from = match self.from {
                From::Latest if !at_start => From::Earliest,
                from => from,
            };
            let seen = places.get(log as u8).and_then(|place| place.next);
            let next = match (seen, from) {
                (Some(next), _) => next,
                (None, From::Earliest) => oldest,
                (None, From::Latest) => end,
                (None, From::Position(position)) => {
                    let before = |entry: &OrderEntry| entry.end_position() <= position;
                    reader.partition(&self.pool, oldest, end, before)
                }
                (None, From::Time(ns)) => {
                    reader.partition(&self.pool, oldest, end, |entry| entry.landed_ns < ns)
                }
            };
            let goal = if at_start { end } else { 0 };
            let at_end = next == end;
            self.cursors.push(Cursor { reader, next, frontier: end, goal, at_end });
        }
    }

    /// Where the brokers' own logs end.
    pub(crate) fn ends(&self) -> Vec<LogPlace> {
        ends(&self.pool, self.topic)
    }

    /// Whether everything that was there at the start has been read.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.cursors.iter().all(|cursor| cursor.next >= cursor.goal)
    }

    /// The next thing, if there is one. Never waits.
    #[inline]
    pub(crate) fn step(
        &mut self,
        places: &mut Places,
        verify: bool,
    ) -> Result<Step<Located>, Error> {
        let count = self.cursors.len();
        for _ in 0..count {
            let at = self.turn % count;
            self.turn = (at + 1) % count;
            match self.step_log(at, places, verify)? {
                Step::Nothing => {}
                step => return Ok(step),
            }
        }
        Ok(Step::Nothing)
    }

    fn step_log(
        &mut self,
        at: usize,
        places: &mut Places,
        verify: bool,
    ) -> Result<Step<Located>, Error> {
        loop {
            let cursor = &mut self.cursors[at];
            let log = cursor.reader.log();
            if cursor.next >= cursor.frontier {
                cursor.frontier = self.pool.frontier(self.topic, log).entries;
                if cursor.next >= cursor.frontier {
                    let began_here = std::mem::take(&mut cursor.at_end);
                    let gap = began_here.then(|| self.gap_to_end(at, places)).flatten();
                    return Ok(gap.unwrap_or(Step::Nothing));
                }
            }
            let index = cursor.next;
            match cursor.reader.entry(&self.pool, index) {
                Found::Entry(entry) => {
                    let (first, end) = (entry.first_position, entry.end_position());
                    match places.judge(log as u8, index, first, end) {
                        Arrival::Old => cursor.next += 1,
                        Arrival::AfterGap { missed } => {
                            places.resumed(log as u8, first);
                            return Ok(Step::gap(log as u8, missed, first));
                        }
                        Arrival::Next if entry.is_hole() => {
                            return Ok(self.unwritten(at, first, places));
                        }
                        Arrival::Next => {
                            if let Some(found) = self.take(log, index, &entry, verify) {
                                self.cursors[at].next += 1;
                                places.shown(log as u8, index, end);
                                return found.map(Step::Batch);
                            }
                        }
                    }
                }
                Found::Lapped { oldest } => {
                    cursor.next = oldest.max(index + 1);
                    if let Some(step) = self.gap_to_end(at, places) {
                        return Ok(step);
                    }
                }
                Found::Gone => return self.gone(log, index).map(|()| Step::TopicGone),
            }
        }
    }

    /// Positions from `first` on that nothing was written to, as many entries as say so one behind
    /// the other.
    #[cold]
    fn unwritten(&mut self, at: usize, first: u64, places: &mut Places) -> Step<Located> {
        let cursor = &mut self.cursors[at];
        let log = cursor.reader.log() as u8;
        let from = places.get(log).and_then(|place| place.position).unwrap_or(first);
        let mut resume = from;
        while cursor.next < cursor.frontier {
            let Found::Entry(entry) = cursor.reader.entry(&self.pool, cursor.next) else { break };
            if !entry.is_hole() || entry.first_position > resume {
                break;
            }
            resume = resume.max(entry.end_position());
            places.shown(log, cursor.next, resume);
            cursor.next += 1;
        }
        match resume - from {
            0 => Step::Nothing,
            missed => Step::Gap { log, reason: GapReason::Unwritten, missed, resume },
        }
    }

    /// Retention took everything there was: the gap reaches to where the log goes on.
    fn gap_to_end(&mut self, at: usize, places: &mut Places) -> Option<Step<Located>> {
        let cursor = &self.cursors[at];
        let log = cursor.reader.log();
        if cursor.next < self.pool.frontier(self.topic, log).entries {
            return None;
        }
        let chain = self.pool.chain(self.topic, log)?;
        let position = places.get(log as u8)?.position?;
        let missed = chain.oldest_position.checked_sub(position)?;
        if chain.oldest_index != cursor.next || missed == 0 {
            return None;
        }
        places.resumed(log as u8, chain.oldest_position);
        Some(Step::gap(log as u8, missed, chain.oldest_position))
    }

    /// The log is not what it was: an error, unless the topic was deleted.
    #[cold]
    fn gone(&self, log: usize, index: u64) -> Result<(), Error> {
        if !self.is_live() {
            return Ok(());
        }
        let what = format!("log {log} of the topic has no entry {index} although it is there");
        Err(Error::Unexpected { broker: self.broker, what })
    }

    fn is_live(&self) -> bool {
        let epoch = self.pool.follow();
        // While control changes the entry there is none to be seen: the next look decides. So it is
        // while another control takes the lead, which may not have copied what is said here now.
        match self.pool.topic_in_slot(self.topic.slot()) {
            Some(_) => self.pool.topic(self.topic).is_some() || !self.pool.leads(epoch),
            None => true,
        }
    }

    /// Copies the entry's batch under a hold, and checks the copy. `None`: retention was first.
    fn take(
        &mut self,
        log: usize,
        index: u64,
        entry: &OrderEntry,
        verify: bool,
    ) -> Option<Result<Located, Error>> {
        let (position, count) = (entry.first_position, entry.count);
        let name = EntryName { topic: self.topic, log, index };
        let hold = HOLD.take(&self.channel, &self.pool, name, entry.segment)?;
        let copied = self.copy(&hold, entry, verify);
        // Nobody keeps to a hold whose broker has been dead for 3 s: what was copied is the
        // batch only if retention had not come to it even now.
        fence(Ordering::Acquire);
        let is_there = self.pool.oldest_of(self.topic, log).is_some_and(|oldest| oldest <= index);
        HOLD.release(&self.channel);
        if !is_there {
            return None;
        }
        let place = Place::of(log as u8, index, entry);
        let checked = copied.and_then(|(head, payload_crc)| {
            let preamble = check_head(&head, entry.bytes as usize, &place, self.wanted)?;
            check_entry(entry, &preamble)?;
            payload_crc.map_or(Ok(()), |crc| preamble.check_payload_crc(crc))?;
            Ok(Located { place, preamble })
        });
        let log = log as u8;
        Some(checked.map_err(|why| Error::Corrupt { log, index, position, count, why }))
    }

    /// Copies a batch: its preamble, and the checksum of its payload where it is to be verified.
    fn copy(
        &mut self,
        hold: &Hold,
        entry: &OrderEntry,
        verify: bool,
    ) -> Result<([u8; HEAD_BYTES], Option<u32>), Corruption> {
        let OrderEntry { segment, offset, bytes, .. } = *entry;
        let outside = || Corruption::Outside { segment, offset, bytes };
        let at = self.pool.at(segment, offset, bytes).ok_or_else(outside)?;
        self.pool.refresh(at, bytes.into());
        let batch = self.pool.shared(hold, offset, bytes).ok_or_else(outside)?;
        let head = batch.first().ok_or_else(outside)?;
        self.payload.clear();
        let payload = batch.behind(HEAD_BYTES);
        if verify {
            return Ok((head, Some(payload.append_summed(&mut self.payload))));
        }
        payload.append_to(&mut self.payload);
        // Part of a segment that is lost reads as zeros: that is shown to nobody for a payload.
        let is_lost = self.pool.is_lost(segment);
        Ok((head, is_lost.then(|| crc32c_far(&self.payload))))
    }

    /// The payload of the batch that was found last.
    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Looks whether the broker is there, now and then.
    #[inline]
    pub(crate) fn check_alive_sometimes(&mut self) -> Result<bool, Error> {
        let now = coarse_ns();
        if now.saturating_sub(self.looked_ns) < ALIVE_EVERY_NS {
            return Ok(true);
        }
        self.looked_ns = now;
        self.has_looked = true;
        self.check_alive()
    }

    /// Whether the broker's heartbeat has moved since the last look.
    pub(crate) fn has_beaten(&mut self) -> bool {
        self.heartbeat.has_moved(&self.pool)
    }

    /// What the broker said, and whether it is there. False: the topic is gone.
    pub(crate) fn check_alive(&mut self) -> Result<bool, Error> {
        let broker = self.broker;
        let lost = |source| Error::Connection { broker, doing: "listening", source };
        while let Some(line) = self.from_broker.pop(&self.channel) {
            match Frame::from_line(line).map_err(|source| Error::Frame { broker, source })? {
                Frame::Refused(Refusal::TopicGone | Refusal::NoTopic) => return Ok(false),
                Frame::Refused(why) => {
                    let sentence = crate::connect::refusal_text(why, &[]);
                    return Err(Error::Refused { broker, why, sentence });
                }
                Frame::Bye => return Err(lost(io::Error::other("it said goodbye"))),
                _ => {}
            }
        }
        let mut bells = [0; 64];
        loop {
            match self.socket.read(&mut bells) {
                Ok(0) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => {
                    return match error.kind() {
                        io::ErrorKind::WouldBlock => Ok(true),
                        io::ErrorKind::Interrupted => continue,
                        _ => Err(lost(error)),
                    };
                }
            }
        }
    }

    /// Before a wait: takes up new logs, and sees whether the topic is still there.
    pub(crate) fn rest(&mut self, places: &Places) -> Result<bool, Error> {
        if !self.sequenced {
            self.notice_logs(places, false);
        }
        Ok(self.check_alive()? && self.is_live())
    }

    /// Says that this side is about to sleep, or is awake. Returns whether it may sleep.
    pub(crate) fn park(&mut self, parked: bool) -> bool {
        set_parked(&self.channel, CLIENT_PARKED_AT, parked);
        parked
            && !self.from_broker.is_ready(&self.channel)
            && self.cursors.iter().all(|cursor| {
                self.pool.frontier(self.topic, cursor.reader.log()).entries <= cursor.next
            })
    }
}

impl AsFd for MemoryReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
