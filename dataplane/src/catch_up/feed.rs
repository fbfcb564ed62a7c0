//! A subscriber's side: when it leaves memory, and when it comes back.

use landfall_layout::counters::Counter;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::topic::TopicEntry;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::clock::boot_ns;
use landfall_replica::merge::Wanted;

use super::{CatchUp, Chunk, Done, Lookup, Place, Reader, Task};
use crate::broker::Broker;
use crate::conn::Kind;
use crate::conns::Token;
use crate::deliver_tcp::Delivering;
use crate::env::Env;

/// Blocks of one subscriber: one that is being sent, and the next.
const BLOCKS_MAX: usize = 2;
/// A subscriber that takes nothing for this long gives its files up to others, nanoseconds.
const STUCK_NS: u64 = 1_000_000_000;

/// How often a directory that does not answer is asked again, nanoseconds.
const RETRY_NS: u64 = 250_000_000;

/// Where the replicas of a subscriber's topic are.
#[derive(Clone, Debug)]
pub struct Disk {
    name: String,
    created_ns: u64,
    /// Bounds let go of the oldest files.
    is_bounded: bool,
}

impl Disk {
    /// None, where the topic has no copy on a disk.
    pub fn of(entry: &TopicEntry) -> Option<Self> {
        let (name, created_ns) = (entry.name().to_owned(), entry.created_ns);
        let is_bounded = entry.disk_bytes != 0 || entry.disk_ns != 0;
        (entry.disk_replicas() > 0).then_some(Self { name, created_ns, is_bounded })
    }

    /// Whether copies keep everything: what none of them has was not taken by retention.
    pub fn keeps_all(&self) -> bool {
        !self.is_bounded
    }

    /// A log of it, which memory has from an index on.
    pub fn lookup(
        &self,
        env: &Env,
        catch_up: &CatchUp,
        topic: TopicId,
        (log, until): (usize, u64),
    ) -> Lookup {
        let wanted = self.wanted(env, catch_up, topic, log);
        let last_skip = env.pool.chain(topic, log).and_then(|chain| chain.skipped());
        Lookup { log, wanted, until, last_skip, is_bounded: self.is_bounded }
    }

    /// What there is to read of a log.
    fn wanted(&self, env: &Env, catch_up: &CatchUp, topic: TopicId, log: usize) -> Wanted {
        Wanted {
            data: catch_up.data().to_vec(),
            name: self.name.clone(),
            created_ns: self.created_ns,
            sources: sources(env, topic, log),
            is_shared: log == SEQUENCED_LOG,
            stood_in: Some(env.pool.stood_in(topic)),
        }
    }
}

/// Brokers that have landed batches of a log so far, or may have.
fn sources(env: &Env, topic: TopicId, log: usize) -> Vec<BrokerId> {
    match log {
        SEQUENCED_LOG => {
            BrokerId::all().filter(|source| env.pool.ring(topic, *source).is_some()).collect()
        }
        log => BrokerId::new(log).into_iter().collect(),
    }
}

/// How a log that memory does not have is read.
#[derive(Default)]
pub struct Feed {
    /// Its files; none: a thread has them, or they are not open.
    reader: Option<Box<Reader>>,
    /// A thread reads.
    is_asked: bool,
    /// Only the batch at this index is wanted: memory has it, and it does not hold there.
    repairs: Option<u64>,
    /// Not before this is more asked for: a directory did not answer. 0: at once.
    retry_at_ns: u64,
}

impl Feed {
    /// Reads the batch at `index`, from files that may be open.
    pub fn repair(index: u64, reader: Option<Box<Reader>>) -> Self {
        Self { reader, is_asked: false, repairs: Some(index), retry_at_ns: 0 }
    }

    /// Whether only a batch behind that index is wanted.
    pub fn repairs_behind(&self, next: u64) -> bool {
        self.repairs.is_some_and(|index| index > next)
    }

    /// Its files, if they are here.
    pub fn into_reader(self) -> Option<Box<Reader>> {
        self.reader
    }
}

/// Bytes that came from files and go to the socket as they are.
pub struct Block {
    bytes: Vec<u8>,
    sent: usize,
    batches: u64,
    batch_bytes: u64,
    missed: u64,
    since_ns: u64,
    /// Some went out before it was made.
    is_begun: bool,
}

impl Block {
    /// One frame.
    pub fn frame(bytes: &[u8], missed: u64) -> Self {
        let bytes = bytes.to_vec();
        let (sent, since_ns, is_begun) = (0, boot_ns(), false);
        Self { bytes, sent, batches: 0, batch_bytes: 0, missed, since_ns, is_begun }
    }

    /// The rest of what the socket has taken a part of, and counted.
    pub fn begun(rest: Vec<u8>) -> Self {
        Self { is_begun: true, ..Self::frame(&rest, 0) }
    }

    /// What is still to be sent.
    pub fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// So many bytes more went out; whether that was the last of it.
    pub fn sent(&mut self, env: &Env, bytes: usize) -> bool {
        if self.sent == 0 && bytes > 0 {
            env.count(Counter::BatchesDelivered, self.batches);
            env.count(Counter::BatchesFromDisk, self.batches);
            env.count(Counter::BytesDelivered, self.batch_bytes);
            env.count(Counter::MessagesMissed, self.missed);
        }
        self.sent += bytes;
        if bytes > 0 {
            self.since_ns = boot_ns();
        }
        self.sent >= self.bytes.len()
    }

    /// Whether some of it went out, so that the rest has to follow.
    pub fn is_begun(&self) -> bool {
        self.sent > 0 || self.is_begun
    }
}

impl Delivering {
    /// Sees that what memory does not have is being read, and goes back to memory where it has
    /// what comes next.
    pub fn feed(&mut self, env: &Env, catch_up: &CatchUp, token: Token) {
        let topic = self.topic();
        let Some(disk) = self.disk.clone() else { return };
        for at in 0..self.cursors.len() {
            let cursor = &mut self.cursors[at];
            let log = cursor.reader.log();
            let Some(feed) = &mut cursor.feed else { continue };
            if feed.is_asked || self.blocks.len() >= BLOCKS_MAX {
                continue;
            }
            if feed.retry_at_ns > 0 && boot_ns() < feed.retry_at_ns {
                continue;
            }
            let until = feed.repairs.map_or_else(|| env.pool.oldest(topic, log), |index| index + 1);
            if cursor.next >= until {
                if let Some(Feed { repairs: Some(_), reader, .. }) = cursor.feed.take() {
                    cursor.spare = reader;
                }
                if let Some(gap) = cursor.gap_to_end(env, topic, at) {
                    self.blocks.push_back(Block::frame(gap.head(), gap.missed));
                }
                continue;
            }
            if feed.reader.is_none() && !catch_up.has_room() {
                // All readers are in use: it is tried again in a later turn.
                continue;
            }
            let opened = feed
                .reader
                .take()
                .or_else(|| catch_up.reader(disk.lookup(env, catch_up, topic, (log, until))));
            let Some(mut reader) = opened else { continue };
            // After the look at memory: who landed what it has no more is among them.
            reader.hear_of(sources(env, topic, log), env.pool.stood_in(topic));
            feed.is_asked = true;
            let place =
                Place { missing: cursor.missing, ..Place::new(cursor.next, cursor.position) };
            catch_up.submit(Task::Read { token, log, reader, place, until });
        }
    }

    /// What a thread was asked for nobody reads any more: its reader stays with it.
    fn ask_again(&mut self, log: usize) {
        let cursor = self.cursors.iter_mut().find(|cursor| cursor.reader.log() == log);
        if let Some(feed) = cursor.and_then(|cursor| cursor.feed.as_mut()) {
            feed.is_asked = false;
        }
    }

    /// A block that was read.
    fn fed(&mut self, env: &Env, log: usize, reader: Box<Reader>, chunk: Chunk) {
        let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.reader.log() == log) else {
            return;
        };
        let Some(feed) = &mut cursor.feed else { return };
        feed.is_asked = false;
        feed.reader = Some(reader);
        feed.retry_at_ns = if chunk.is_blind { boot_ns() + RETRY_NS } else { 0 };
        if chunk.is_blind && chunk.bytes.is_empty() {
            return;
        }
        if let Some(index) = feed.repairs {
            if chunk.batches == 0 {
                // No copy has it: whoever asked is told of a gap.
                cursor.nowhere = Some(index);
                cursor.spare = cursor.feed.take().and_then(|feed| feed.reader);
                return;
            }
            env.count(Counter::BatchesRepaired, chunk.batches);
        }
        cursor.go_to(chunk.place);
        if !chunk.bytes.is_empty() {
            self.blocks.push_back(Block {
                bytes: chunk.bytes,
                sent: 0,
                batches: chunk.batches,
                batch_bytes: chunk.batch_bytes,
                missed: chunk.missed,
                since_ns: boot_ns(),
                is_begun: false,
            });
        }
    }

    /// Whether a log of it is read from files.
    #[inline]
    pub fn is_fed(&self) -> bool {
        self.disk.is_some() && self.cursors.iter().any(|cursor| cursor.feed.is_some())
    }

    /// Closes the files of a subscriber that takes nothing; they are opened again when it does.
    pub fn let_go_if_stuck(&mut self, now_ns: u64) {
        let is_stuck = self.blocks.len() >= BLOCKS_MAX
            && self.blocks.iter().all(|block| now_ns.saturating_sub(block.since_ns) > STUCK_NS);
        if is_stuck {
            for feed in self.cursors.iter_mut().filter_map(|cursor| cursor.feed.as_mut()) {
                feed.reader = None;
            }
        }
    }
}

impl Broker {
    /// Takes what was read; how much that was.
    pub(crate) fn take_fed(&mut self) -> usize {
        let Some(catch_up) = &self.catch_up else { return 0 };
        let done = catch_up.take_done();
        let count = done.len();
        for done in done {
            match done {
                Done::Read { token, log, reader, chunk } => {
                    for fault in &chunk.faults {
                        self.env.error(fault);
                    }
                    let conn = self.conns.by_token(token);
                    if let Some(Kind::Stream(delivering)) = conn.map(|conn| &mut conn.kind) {
                        delivering.fed(&self.env, log, reader, chunk);
                    }
                }
                Done::Start { token, looked, faults } => {
                    for fault in &faults {
                        self.env.error(fault);
                    }
                    self.start_found(token, &looked);
                }
            }
        }
        count
    }

    /// Asks the threads for what subscribers need next.
    #[inline]
    pub(crate) fn feed(&mut self, slot: usize) {
        let Self { env, conns, catch_up, .. } = self;
        let (Some(catch_up), Some(conn)) = (catch_up, conns.get(slot)) else { return };
        let token = conn.token;
        if let Kind::Stream(delivering) = &mut conn.kind
            && delivering.is_fed()
        {
            delivering.feed(env, catch_up, token);
        }
    }

    /// Shows how many catch up, and lets nobody keep files open for nothing.
    pub(crate) fn tick_feeds(&mut self, now_ns: u64) {
        let Self { env, conns, catch_up, .. } = self;
        let Some(catch_up) = catch_up else { return };
        let (again, told) = catch_up.leave_hung(now_ns);
        told.iter().for_each(|told| env.error(told));
        for (token, log) in again {
            let conn = conns.by_token(token);
            if let Some(Kind::Stream(delivering)) = conn.map(|conn| &mut conn.kind) {
                delivering.ask_again(log);
            }
        }
        let mut catching_up = 0;
        for conn in conns.iter_mut() {
            if let Kind::Stream(delivering) = &mut conn.kind
                && delivering.is_fed()
            {
                catching_up += 1;
                delivering.let_go_if_stuck(now_ns);
            }
        }
        env.set(Counter::CatchingUp, catching_up);
    }
}
