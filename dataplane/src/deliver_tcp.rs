//! Subscribers over sockets: batches go from the segment to the socket, each behind its frame.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use landfall_layout::TopicId;
use landfall_layout::counters::{Counter, Stage};
use landfall_layout::frame::{FRAME_BYTES, Frame, From, LogPlace};
use landfall_layout::limits::{BROKERS_MAX, SEQUENCED_LOG};
use landfall_pool::clock::wall_ns;
use landfall_pool::hold::Hold;
use landfall_pool::map::is_poison;
use landfall_pool::shared::{Piece, send};
use landfall_replica::lookup::Start;

use crate::catch_up::{Block, Disk};
use crate::conn::Out;
use crate::cursor::{Beside, Cursor, Item};
use crate::env::Env;
use crate::poison::cover;

/// Batches in one send call.
pub const BATCHES_PER_SEND: usize = 16;
/// Bytes after which a send call is not made longer, and a connection's turn ends.
const BYTES_PER_SEND: usize = 1 << 20;
/// Entries passed over in one turn because the subscriber asked for later ones.
const SKIPS_PER_TURN: u32 = 1024;

/// A subscriber and what it has had.
pub struct Delivering {
    topic: TopicId,
    sequenced: bool,
    from: From,
    /// Where it goes on in logs of brokers, whatever `from` says.
    places: Vec<LogPlace>,
    pub cursors: Vec<Cursor>,
    /// Where what memory has no more can be read; none: nowhere.
    pub disk: Option<Disk>,
    /// Each batch is checked before it is sent, and read there where memory's does not hold.
    pub checked: bool,
    /// What was read there and is to be sent before anything else.
    pub blocks: VecDeque<Block>,
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

/// An item that the socket took a part of.
struct Partial {
    item: Item,
    sent: usize,
}

impl Delivering {
    /// A subscriber of `topic`, and the positions where it starts and where the log ends now.
    pub fn new(
        env: &Env,
        topic: TopicId,
        sequenced: bool,
        from: From,
        places: Vec<LogPlace>,
    ) -> (Self, u64, u64) {
        let mut delivering = Self {
            topic,
            sequenced,
            from,
            places,
            cursors: Vec::with_capacity(if sequenced { 1 } else { BROKERS_MAX }),
            disk: None,
            checked: false,
            blocks: VecDeque::new(),
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

    /// These logs begin with batches that only files have; the position of the first message of
    /// the sequenced log, if that is one of them. A subscriber whose connection files are not read
    /// for is told that position all the same, and has what memory has: that tells it what to look
    /// for over another connection, where one that waits for files would never be told anything.
    pub fn begin_on_disk(&mut self, disk: Option<Disk>, starts: &[(usize, Start)]) -> Option<u64> {
        self.disk = disk;
        let has_disk = self.disk.is_some();
        let mut position = None;
        for cursor in &mut self.cursors {
            let found = starts.iter().find(|(log, _)| *log == cursor.reader.log());
            if let Some((log, start)) = found {
                if has_disk {
                    cursor.begin_on_disk(start);
                }
                position = (*log == SEQUENCED_LOG).then_some(start.position);
            }
        }
        let keeps_all = self.disk.as_ref().is_some_and(Disk::keeps_all);
        self.cursors.iter_mut().for_each(|cursor| cursor.keeps_all = keeps_all);
        position
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
            if let Some(place) = self.places.iter().find(|place| usize::from(place.log) == log) {
                cursor.go_on(place, &frontier);
            }
            cursor.keeps_all = self.disk.as_ref().is_some_and(Disk::keeps_all);
            if !at_start {
                cursor.goal = 0;
            }
            self.cursors.push(cursor);
        }
    }

    /// Whether there may be something to send.
    #[inline]
    pub fn has_work(&mut self, env: &Env) -> bool {
        let topic = self.topic;
        self.partial.is_some()
            || !self.blocks.is_empty()
            || !self.caught_up
            || self.cursors.iter_mut().any(|cursor| cursor.is_behind(env, topic))
    }

    /// Whether something is sent in part, or waits for the socket.
    pub fn is_amid(&self) -> bool {
        self.blocked || self.partial.is_some() || self.blocks.front().is_some_and(Block::is_begun)
    }

    /// Sends what there is, as far as the socket and the turn's share go; whether there was any.
    pub fn send_on(&mut self, env: &Env, socket: BorrowedFd<'_>) -> io::Result<bool> {
        if self.partial.is_some() && !self.finish_partial(env, socket)? {
            return Ok(false);
        }
        if !self.blocks.is_empty() {
            return self.send_block(env, socket);
        }
        let mut items = [Item::NONE; BATCHES_PER_SEND];
        let count = self.gather(env, &mut items);
        if count > 0 {
            self.send(env, socket, &items[..count])?;
        }
        Ok(count > 0)
    }

    /// Sends what was read from files, one block a turn.
    fn send_block(&mut self, env: &Env, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let Some(block) = self.blocks.front_mut() else { return Ok(false) };
        let sent = match send(socket, &[Piece::new(block.rest())]) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let whole = block.sent(env, sent);
        if whole {
            self.blocks.pop_front();
        }
        self.blocked = !whole;
        Ok(sent > 0)
    }

    fn finish_partial(&mut self, env: &Env, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let Some(partial) = &mut self.partial else { return Ok(true) };
        let hold = Hold::by_broker(partial.item.segment);
        let (head, body) = partial.item.rest(env, &hold, partial.sent);
        match send(socket, &[Piece::new(head), body.piece()]) {
            Ok(sent) => partial.sent += sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if is_poison(&error) && cover(env, &[partial.item]) => {}
            Err(error) => return Err(error),
        }
        let whole = partial.sent >= partial.item.len();
        if whole {
            self.partial = None;
        }
        self.blocked = !whole;
        Ok(whole)
    }

    /// Collects the next items; how many there are.
    pub fn gather(&mut self, env: &Env, items: &mut [Item; BATCHES_PER_SEND]) -> usize {
        let (mut count, mut bytes) = (0, 0);
        let mut empty = 0;
        let mut skips = SKIPS_PER_TURN;
        // The last place is kept for `CaughtUp`.
        while count + 1 < items.len() && bytes < BYTES_PER_SEND && empty < self.cursors.len() {
            let at = self.turn % self.cursors.len();
            self.turn = (at + 1) % self.cursors.len();
            if self.cursors[at].feed.is_some() {
                empty += 1;
                continue;
            }
            let has_disk = self.disk.is_some();
            let beside = Beside { has_disk, checks: self.checked };
            match self.cursors[at].next_item(env, self.topic, at, beside, &mut skips) {
                Some(item) => {
                    bytes += item.len();
                    items[count] = item;
                    count += 1;
                    empty = 0;
                }
                None => empty += 1,
            }
        }
        if !self.caught_up && self.cursors.iter().all(Cursor::is_caught_up) {
            items[count] = Item::frame(Frame::CaughtUp);
            count += 1;
        }
        count
    }

    /// Sends items and puts back what the socket did not begin to take.
    fn send(&mut self, env: &Env, socket: BorrowedFd<'_>, items: &[Item]) -> io::Result<()> {
        let holds: [Hold; BATCHES_PER_SEND] =
            std::array::from_fn(|i| Hold::by_broker(items.get(i).map_or(0, |item| item.segment)));
        let mut pieces = [Piece::new(&[]); 2 * BATCHES_PER_SEND];
        for (i, item) in items.iter().enumerate() {
            let (head, body) = item.rest(env, &holds[i], 0);
            pieces[2 * i] = Piece::new(head);
            pieces[2 * i + 1] = body.piece();
        }
        let mut left = match send(socket, &pieces[..2 * items.len()]) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if is_poison(&error) && cover(env, items) => 0,
            Err(error) => return Err(error),
        };
        let now = wall_ns();
        let mut begun = 0;
        for item in items {
            if left == 0 {
                break;
            }
            begun += 1;
            self.account(env, item, now);
            if left < item.len() {
                self.keep_rest(env, *item, left);
                left = 0;
            } else {
                left -= item.len();
            }
        }
        self.blocked = begun < items.len() || self.is_amid();
        self.put_back(&items[begun..]);
        Ok(())
    }

    /// What the socket did not take of an item goes out before anything else. Of a batch that was
    /// checked, as it was then: memory may change until the socket has room.
    fn keep_rest(&mut self, env: &Env, item: Item, sent: usize) {
        if !self.checked || item.bytes == 0 {
            self.partial = Some(Partial { item, sent });
            return;
        }
        let hold = Hold::by_broker(item.segment);
        let (head, body) = item.rest(env, &hold, sent);
        let mut rest = head.to_vec();
        body.append_to(&mut rest);
        self.blocks.push_front(Block::begun(rest));
    }

    /// Goes back to before items that were gathered and not sent.
    pub fn put_back(&mut self, items: &[Item]) {
        for item in items.iter().rev() {
            if let Some((cursor, next, position)) = item.undo {
                self.cursors[cursor].go_back(next, position);
            }
        }
    }

    /// Counts an item that went out.
    pub fn account(&mut self, env: &Env, item: &Item, now_ns: u64) {
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
    /// that the segment can be reused. Whether there was any.
    #[cold]
    pub fn spill(&mut self, env: &Env, segment: u32, out: &mut Out) -> bool {
        let is_held = self.partial.as_ref().is_some_and(|partial| partial.item.segment == segment);
        if is_held {
            self.spill_partial(env, out);
        }
        is_held
    }

    /// The same, whatever the segment, and of a block that was read from files: a last frame is to
    /// be sent behind it, and nothing after that.
    #[cold]
    pub fn spill_any(&mut self, env: &Env, out: &mut Out) {
        if let Some(block) = self.blocks.pop_front().filter(Block::is_begun) {
            out.append(block.rest());
        }
        self.spill_partial(env, out);
    }

    fn spill_partial(&mut self, env: &Env, out: &mut Out) {
        let Some(partial) = self.partial.take() else { return };
        let hold = Hold::by_broker(partial.item.segment);
        let (head, body) = partial.item.rest(env, &hold, partial.sent);
        out.append(head);
        out.append_shared(body);
    }
}

#[cfg(test)]
mod tests {
    use landfall_layout::BrokerId;
    use landfall_layout::topic::{Order, TopicEntry};

    use landfall_pool::log::LogReader;

    use super::*;
    use crate::catch_up::{Feed, Place};
    use crate::cursor::begin;
    use crate::replica::rig::Source;

    /// Where memory begins in a topic whose first two batches only files have.
    const KEPT_FROM: u64 = 2;

    fn env_and_entry() -> (Env, TopicEntry) {
        let mut source = Source::new(crate::rig::pool(), 0);
        for _ in 0..=KEPT_FROM {
            let entry = source.place(&[7; 96], true);
            source.append(&entry);
        }
        source.publish();
        source.pool.raise_oldest(source.topic, 0, KEPT_FROM, 3 * KEPT_FROM);
        let entry = source.pool.topic(source.topic).expect("it was written");
        assert_eq!(entry.order(), Some(Order::None));
        let me = BrokerId::new(0).expect("0 is below the bound");
        (Env::new(source.pool, me, 1).expect("the pool's own file opens again"), entry)
    }

    /// What is gathered at first: batches, and whether the subscriber is told that it caught up.
    fn first_items(env: &Env, entry: &TopicEntry, disk: Option<Disk>) -> (usize, bool) {
        let topic = TopicId(entry.id);
        let (mut delivering, _, _) = Delivering::new(env, topic, false, From::Earliest, vec![]);
        let start = Start { index: 0, position: 0 };
        delivering.begin_on_disk(disk, &[(0, start)]);
        let mut items = [Item::NONE; BATCHES_PER_SEND];
        let count = delivering.gather(env, &mut items);
        let batches = items[..count].iter().filter(|item| item.bytes > 0).count();
        let caught_up = Item::frame(Frame::CaughtUp);
        (batches, items[..count].iter().any(|item| item.head() == caught_up.head()))
    }

    #[test]
    fn a_subscriber_that_no_files_are_read_for_has_what_memory_has_at_once() {
        let (env, entry) = env_and_entry();
        assert_eq!(first_items(&env, &entry, None), (1, true));
    }

    #[test]
    fn a_log_begins_with_what_retention_left_of_it() {
        let (env, entry) = env_and_entry();
        let mut reader = LogReader::new(TopicId(entry.id), 0);
        // Looked up before retention took the first ones.
        let begins = begin(&env, &mut reader, (0, KEPT_FROM + 1), 99);
        assert_eq!(begins, (KEPT_FROM, 3 * KEPT_FROM));
        assert_eq!(begin(&env, &mut reader, (0, KEPT_FROM), 99), (KEPT_FROM, 99));
    }

    #[test]
    fn only_a_batch_that_does_not_hold_is_read_from_files_when_what_is_before_it_was_not_sent() {
        let (env, entry) = env_and_entry();
        let topic = TopicId(entry.id);
        let (mut delivering, _, _) = Delivering::new(&env, topic, false, From::Earliest, vec![]);
        for (next, is_read) in [(7, true), (5, false)] {
            delivering.cursors[0].feed = Some(Feed::repair(7, None));
            delivering.cursors[0].go_back(next, next);
            assert_eq!(delivering.cursors[0].feed.is_some(), is_read, "back to {next}");
        }
    }

    #[test]
    fn what_was_checked_and_not_sent_is_checked_again() {
        let (env, entry) = env_and_entry();
        let topic = TopicId(entry.id);
        let (mut delivering, _, _) = Delivering::new(&env, topic, false, From::Earliest, vec![]);
        delivering.checked = true;
        let mut items = [Item::NONE; BATCHES_PER_SEND];
        let batches = |items: &[Item]| items.iter().filter(|item| item.bytes > 0).count();
        let count = delivering.gather(&env, &mut items);
        assert_eq!(batches(&items[..count]), 1);
        let whole = items[..count].iter().find(|item| item.bytes > 0).expect("there is one");
        let at = env.pool.at(whole.segment, whole.offset(), whole.bytes).expect("it is a place");
        delivering.put_back(&items[..count]);
        env.pool.write(at + u64::from(whole.bytes) - 1, b"!").expect("the pool is writable");
        let count = delivering.gather(&env, &mut items);
        assert_eq!(batches(&items[..count]), 0, "it does not hold any more");
    }

    #[test]
    fn a_gap_that_files_have_told_of_is_not_told_again() {
        let (env, entry) = env_and_entry();
        let topic = TopicId(entry.id);
        let (mut delivering, _, _) = Delivering::new(&env, topic, false, From::Earliest, vec![]);
        let cursor = &mut delivering.cursors[0];
        assert_eq!((cursor.next, cursor.position), (KEPT_FROM, 3 * KEPT_FROM));
        // The socket did not take the gap in front of the first batch.
        cursor.go_back(KEPT_FROM, 0);
        cursor.go_to(Place::new(KEPT_FROM, 3 * KEPT_FROM - 1));
        assert!(!cursor.is_caught_up(), "one position of it is left");
        cursor.go_to(Place::new(KEPT_FROM + 1, 3 * KEPT_FROM + 3));
        assert!(cursor.is_caught_up());
    }

    #[test]
    fn of_a_checked_batch_the_rest_goes_out_as_it_was_when_it_was_checked() {
        let (env, entry) = env_and_entry();
        let topic = TopicId(entry.id);
        let (mut delivering, _, _) = Delivering::new(&env, topic, false, From::Earliest, vec![]);
        delivering.checked = true;
        let mut items = [Item::NONE; BATCHES_PER_SEND];
        let count = delivering.gather(&env, &mut items);
        let item = *items[..count].iter().find(|item| item.bytes > 0).expect("there is one");
        let at = env.pool.at(item.segment, item.offset(), item.bytes).expect("it is a place");
        delivering.keep_rest(&env, item, FRAME_BYTES + 10);
        env.pool.write(at + u64::from(item.bytes) - 1, b"!").expect("the pool is writable");
        assert!(delivering.partial.is_none() && delivering.is_amid());
        let rest = delivering.blocks[0].rest();
        assert_eq!((rest.len(), rest.last()), (item.bytes as usize - 10, Some(&7)));
    }

    /// What was read from files comes behind a batch of which the socket has a part.
    #[test]
    fn what_is_to_follow_a_half_sent_batch_stays_when_its_segment_goes() {
        let (env, entry) = env_and_entry();
        let topic = TopicId(entry.id);
        let (mut delivering, _, _) = Delivering::new(&env, topic, false, From::Earliest, vec![]);
        let item = Item::frame(Frame::CaughtUp);
        delivering.partial = Some(Partial { item, sent: 1 });
        delivering.blocks.push_back(Block::frame(&[7; FRAME_BYTES], 0));
        let mut out = Out::new();
        assert!(delivering.spill(&env, item.segment, &mut out));
        assert!(delivering.partial.is_none() && !out.is_empty());
        let rest: Vec<&[u8]> = delivering.blocks.iter().map(Block::rest).collect();
        assert_eq!(rest, [&[7; FRAME_BYTES]]);
    }

    #[test]
    fn one_that_files_are_read_for_waits_for_them() {
        let (env, entry) = env_and_entry();
        let disk = Disk::of(&entry);
        assert!(disk.is_some());
        assert_eq!(first_items(&env, &entry, disk), (0, false));
    }
}
