//! Subscribers over sockets: batches go from the segment to the socket, each behind its frame.

use std::io::{self, IoSlice};

use landfall_layout::TopicId;
use landfall_layout::counters::{Counter, Stage};
use landfall_layout::frame::{Delivery, FRAME_BYTES, Frame, From};
use landfall_layout::limits::{BROKERS_MAX, SEQUENCED_LOG};
use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_pool::hold::Hold;
use landfall_pool::log::{Found, LogReader};

use crate::conn::{Out, Socket};
use crate::env::{Env, now_ns};

/// Batches in one send call.
const BATCHES_PER_SEND: usize = 16;
/// Bytes after which a send call is not made longer, and a connection's turn ends.
const BYTES_PER_SEND: usize = 1 << 20;
/// Entries passed over in one turn because the subscriber asked for later ones.
const SKIPS_PER_TURN: u32 = 1024;

/// A subscriber and what it has had.
pub struct Delivering {
    topic: TopicId,
    sequenced: bool,
    from: From,
    cursors: Vec<Cursor>,
    /// The cursor whose turn it is.
    turn: usize,
    partial: Option<Partial>,
    caught_up: bool,
    /// The socket took nothing more: wait for it.
    pub blocked: bool,
    /// Start of a frame from the subscriber.
    pub inbox: [u8; FRAME_BYTES],
    pub have: usize,
}

/// A place in one log.
struct Cursor {
    reader: LogReader,
    next: u64,
    /// Position expected next: a jump is a gap.
    position: u64,
    /// Batches that end at or below this position were not asked for.
    skip_below: u64,
    /// Entries there were when the subscription began.
    goal: u64,
    frontier: u64,
}

/// One frame and the batch behind it, if there is one.
#[derive(Clone, Copy)]
struct Item {
    head: [u8; FRAME_BYTES],
    segment: u32,
    offset: u32,
    bytes: u32,
    landed_ns: u64,
    missed: u64,
    /// Where its cursor was before it.
    undo: Option<(usize, u64, u64)>,
}

/// An item that the socket took a part of.
struct Partial {
    item: Item,
    sent: usize,
}

impl Item {
    const NONE: Self = Self {
        head: [0; FRAME_BYTES],
        segment: 0,
        offset: 0,
        bytes: 0,
        landed_ns: 0,
        missed: 0,
        undo: None,
    };

    fn frame(frame: Frame) -> Self {
        Self { head: frame.encode(0), ..Self::NONE }
    }

    fn len(&self) -> usize {
        FRAME_BYTES + self.bytes as usize
    }

    /// What is left of it after `sent` bytes, in two pieces.
    fn rest<'a>(&'a self, env: &'a Env, hold: &'a Hold, sent: usize) -> (&'a [u8], &'a [u8]) {
        let body = env.pool.read(hold, self.offset, self.bytes).unwrap_or_default();
        let body = if self.bytes == 0 { &[] } else { body };
        let head = self.head.get(sent..).unwrap_or_default();
        (head, body.get(sent.saturating_sub(FRAME_BYTES)..).unwrap_or_default())
    }
}

/// What a call to [`Delivering::send_on`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// There was nothing to send.
    Nothing,
    /// Something went out.
    Some,
    /// The log is not what it was.
    Gone,
}

impl Delivering {
    /// A subscriber of `topic`, and the positions where it starts and where the log ends now.
    pub fn new(env: &Env, topic: TopicId, sequenced: bool, from: From) -> (Self, u64, u64) {
        let mut delivering = Self {
            topic,
            sequenced,
            from,
            cursors: Vec::with_capacity(if sequenced { 1 } else { BROKERS_MAX }),
            turn: 0,
            partial: None,
            caught_up: false,
            blocked: false,
            inbox: [0; FRAME_BYTES],
            have: 0,
        };
        if sequenced {
            let frontier = env.pool.frontier(topic, SEQUENCED_LOG);
            let cursor = Cursor::new(env, topic, SEQUENCED_LOG, from, &frontier);
            let start = cursor.position;
            delivering.cursors.push(cursor);
            return (delivering, start, frontier.position);
        }
        delivering.notice_logs(env, true);
        (delivering, 0, 0)
    }

    pub fn topic(&self) -> TopicId {
        self.topic
    }

    /// Takes up the logs of brokers that began to land for the topic.
    pub fn notice_logs(&mut self, env: &Env, at_start: bool) {
        if self.sequenced {
            return;
        }
        for log in 0..BROKERS_MAX {
            if self.cursors.iter().any(|cursor| cursor.reader.log() == log) {
                continue;
            }
            let frontier = env.pool.frontier(self.topic, log);
            if frontier.entries == 0 && env.pool.chain(self.topic, log).is_none() {
                continue;
            }
            // A log that began after the subscription is all later than "now".
            let from = match self.from {
                From::Latest if !at_start => From::Earliest,
                from => from,
            };
            let mut cursor = Cursor::new(env, self.topic, log, from, &frontier);
            if !at_start {
                cursor.goal = 0;
            }
            self.cursors.push(cursor);
        }
    }

    /// Sends what there is, as far as the socket and the turn's share go.
    pub fn send_on(&mut self, env: &Env, socket: &Socket) -> io::Result<Sent> {
        if self.partial.is_some() && !self.finish_partial(env, socket)? {
            return Ok(Sent::Nothing);
        }
        let mut items = [Item::NONE; BATCHES_PER_SEND];
        let (count, gone) = self.gather(env, &mut items);
        if count == 0 {
            return Ok(if gone { Sent::Gone } else { Sent::Nothing });
        }
        self.send(env, socket, &items[..count])?;
        Ok(Sent::Some)
    }

    fn finish_partial(&mut self, env: &Env, socket: &Socket) -> io::Result<bool> {
        let Some(partial) = &mut self.partial else { return Ok(true) };
        let hold = Hold::by_broker(partial.item.segment);
        let (head, body) = partial.item.rest(env, &hold, partial.sent);
        match landfall_pool::io::send(socket, &[IoSlice::new(head), IoSlice::new(body)]) {
            Ok(sent) => partial.sent += sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let whole = partial.sent >= partial.item.len();
        if whole {
            self.partial = None;
        }
        self.blocked = !whole;
        Ok(whole)
    }

    /// Collects the next items; also whether a log is gone.
    fn gather(&mut self, env: &Env, items: &mut [Item; BATCHES_PER_SEND]) -> (usize, bool) {
        let (mut count, mut bytes, mut gone) = (0, 0, false);
        let mut empty = 0;
        let mut skips = SKIPS_PER_TURN;
        // The last place is kept for `CaughtUp`.
        while count + 1 < items.len()
            && bytes < BYTES_PER_SEND
            && empty < self.cursors.len()
            && !gone
        {
            let at = self.turn % self.cursors.len();
            self.turn = (at + 1) % self.cursors.len();
            match self.cursors[at].next_item(env, self.topic, at, &mut skips) {
                Next::Item(item) => {
                    bytes += item.len();
                    items[count] = item;
                    count += 1;
                    empty = 0;
                }
                Next::Nothing => empty += 1,
                Next::Gone => gone = true,
            }
        }
        if !self.caught_up && self.cursors.iter().all(|cursor| cursor.next >= cursor.goal) {
            items[count] = Item::frame(Frame::CaughtUp);
            count += 1;
        }
        (count, gone)
    }

    /// Sends items and puts back what the socket did not begin to take.
    fn send(&mut self, env: &Env, socket: &Socket, items: &[Item]) -> io::Result<()> {
        let holds: [Hold; BATCHES_PER_SEND] =
            std::array::from_fn(|i| Hold::by_broker(items.get(i).map_or(0, |item| item.segment)));
        let mut pieces = [IoSlice::new(&[]); 2 * BATCHES_PER_SEND];
        for (i, item) in items.iter().enumerate() {
            let (head, body) = item.rest(env, &holds[i], 0);
            pieces[2 * i] = IoSlice::new(head);
            pieces[2 * i + 1] = IoSlice::new(body);
        }
        let mut left = match landfall_pool::io::send(socket, &pieces[..2 * items.len()]) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let now = now_ns();
        let mut begun = 0;
        for item in items {
            if left == 0 {
                break;
            }
            begun += 1;
            self.account(env, item, now);
            if left < item.len() {
                self.partial = Some(Partial { item: *item, sent: left });
                left = 0;
            } else {
                left -= item.len();
            }
        }
        self.blocked = begun < items.len() || self.partial.is_some();
        for item in items[begun..].iter().rev() {
            if let Some((cursor, next, position)) = item.undo {
                self.cursors[cursor].next = next;
                self.cursors[cursor].position = position;
            }
        }
        Ok(())
    }

    fn account(&mut self, env: &Env, item: &Item, now_ns: u64) {
        if item.bytes > 0 {
            env.count(Counter::BatchesDelivered, 1);
            env.count(Counter::BytesDelivered, item.bytes.into());
            env.latency(Stage::LandedToDelivered, item.landed_ns, now_ns);
        } else if item.undo.is_none() {
            self.caught_up = true;
        } else {
            env.count(Counter::MessagesMissed, item.missed);
        }
    }

    /// Copies what is left of a half-sent batch in `segment` to the connection's own buffer, so
    /// that the segment can be reused.
    #[cold]
    pub fn spill(&mut self, env: &Env, segment: u32, out: &mut Out) {
        if self.partial.as_ref().is_some_and(|partial| partial.item.segment == segment) {
            self.spill_any(env, out);
        }
    }

    /// The same, whatever the segment: something else is to be sent behind it.
    #[cold]
    pub fn spill_any(&mut self, env: &Env, out: &mut Out) {
        let Some(partial) = self.partial.take() else { return };
        let hold = Hold::by_broker(partial.item.segment);
        let (head, body) = partial.item.rest(env, &hold, partial.sent);
        out.append(head);
        out.append(body);
    }
}

enum Next {
    Item(Item),
    Nothing,
    Gone,
}

impl Cursor {
    fn new(env: &Env, topic: TopicId, log: usize, from: From, frontier: &FrontierLine) -> Self {
        let mut reader = LogReader::new(topic, log);
        let oldest = env.pool.chain(topic, log).map_or(0, |chain| chain.oldest_index);
        let end = frontier.entries;
        let start = oldest.min(end);
        let next = match from {
            From::Earliest => start,
            From::Latest => end,
            From::Position(position) => {
                reader.partition(&env.pool, start, end, |entry| entry.end_position() <= position)
            }
            From::Time(ns) => reader.partition(&env.pool, start, end, |entry| entry.landed_ns < ns),
        };
        let position = match reader.entry_below(env, next, end) {
            Some(entry) => entry.first_position,
            None => frontier.position,
        };
        let skip_below = if let From::Position(position) = from { position } else { 0 };
        Self { reader, next, position, skip_below, goal: end, frontier: end }
    }

    fn next_item(&mut self, env: &Env, topic: TopicId, me: usize, skips: &mut u32) -> Next {
        loop {
            if self.next >= self.frontier {
                self.frontier = env.pool.frontier(topic, self.reader.log()).entries;
                if self.next >= self.frontier {
                    return Next::Nothing;
                }
            }
            match self.reader.entry(&env.pool, self.next) {
                Found::Entry(entry) if entry.end_position() <= self.skip_below => {
                    self.next += 1;
                    self.position = entry.end_position();
                    *skips = skips.saturating_sub(1);
                    if *skips == 0 {
                        return Next::Nothing;
                    }
                }
                Found::Entry(entry) => return self.item(env, me, &entry),
                Found::Lapped { oldest } => {
                    self.next = oldest.max(self.next + 1);
                    if let Some(item) = self.gap_to_end(env, topic, me) {
                        return Next::Item(item);
                    }
                }
                Found::Gone => return Next::Gone,
            }
        }
    }

    fn item(&mut self, env: &Env, me: usize, entry: &OrderEntry) -> Next {
        let undo = Some((me, self.next, self.position));
        if entry.first_position > self.position {
            return Next::Item(self.gap(me, entry.first_position));
        }
        if env.pool.at(entry.segment, entry.offset, entry.bytes).is_none() || entry.bytes == 0 {
            broken(env, self.reader.log(), self.next, entry);
            return Next::Gone;
        }
        let frame = Frame::Delivery(Delivery {
            log: self.reader.log() as u8,
            broker: entry.broker,
            count: entry.count,
            bytes: entry.bytes,
            index: self.next,
            first_position: entry.first_position,
            landed_ns: entry.landed_ns,
        });
        self.next += 1;
        self.position = entry.end_position();
        Next::Item(Item {
            segment: entry.segment,
            offset: entry.offset,
            bytes: entry.bytes,
            landed_ns: entry.landed_ns,
            undo,
            ..Item::frame(frame)
        })
    }

    #[cold]
    fn gap(&mut self, me: usize, resume: u64) -> Item {
        let missed = resume - self.position;
        let undo = Some((me, self.next, self.position));
        self.position = resume;
        let log = self.reader.log() as u8;
        Item { missed, undo, ..Item::frame(Frame::Gap { log, missed, resume }) }
    }

    /// Retention took everything up to the end: there is no entry to measure the gap by.
    #[cold]
    fn gap_to_end(&mut self, env: &Env, topic: TopicId, me: usize) -> Option<Item> {
        let frontier = env.pool.frontier(topic, self.reader.log());
        if self.next < frontier.entries {
            return None;
        }
        let chain = env.pool.chain(topic, self.reader.log())?;
        (chain.oldest_index == self.next && chain.oldest_position > self.position)
            .then(|| self.gap(me, chain.oldest_position))
    }
}

#[cold]
fn broken(env: &Env, log: usize, index: u64, entry: &OrderEntry) {
    env.error(&format!(
        "entry {index} of log {log} names {} bytes at {} of segment {}, which the pool does not \
         have",
        entry.bytes, entry.offset, entry.segment
    ));
}

/// A reader that is asked about the end of its log, too.
trait EntryBelow {
    fn entry_below(&mut self, env: &Env, index: u64, end: u64) -> Option<OrderEntry>;
}

impl EntryBelow for LogReader {
    fn entry_below(&mut self, env: &Env, index: u64, end: u64) -> Option<OrderEntry> {
        if index >= end {
            return None;
        }
        match self.entry(&env.pool, index) {
            Found::Entry(entry) => Some(entry),
            _ => None,
        }
    }
}
