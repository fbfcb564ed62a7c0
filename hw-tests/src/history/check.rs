//! The promises of a topic, judged by what its clients noted.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use landfall::Order;
use landfall::audit::{Auditor, Seen};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::session::is_same_life;

use super::verdict::{At, Report, Violation};
use super::{BatchRead, Event, Level, Name, Promises};

/// Checks the events of one topic. Each client's are in their order; how the clients' are mixed
/// says nothing.
pub fn check(promises: Promises, events: &[Event]) -> Report {
    let mut checker = Checker {
        promises,
        auditor: Auditor::new(promises.order),
        report: Report::default(),
        sent: HashSet::new(),
        hostile: HashSet::new(),
        survivors: HashSet::new(),
        attempts: 0,
        acks: HashMap::new(),
        shown: HashMap::new(),
        places: HashMap::new(),
        in_epoch: HashMap::new(),
        readers: HashMap::new(),
        lost: Vec::new(),
        begun: Vec::new(),
        pool_lost: events.contains(&Event::PoolLost),
    };
    // What was sent first: files of publishers and readers come in any order.
    for event in events {
        match event {
            Event::Sent { name } => {
                checker.sent.insert(*name);
                checker.attempts += 1;
            }
            Event::Hostile { client } => {
                checker.hostile.insert(*client);
            }
            Event::Finished { reader } => {
                checker.survivors.insert(*reader);
            }
            _ => {}
        }
    }
    for event in events {
        checker.take(event);
    }
    checker.finish()
}

/// What a receipt said.
#[derive(Clone, Copy)]
struct Ack {
    level: Level,
    log: Option<u8>,
    position: Option<u64>,
}

/// A range of positions that a reader knows it has not seen.
#[derive(Clone, Copy)]
struct Range {
    log: u8,
    from: u64,
    to: u64,
}

impl Range {
    fn holds(&self, at: At) -> bool {
        at.log == self.log && (self.from..self.to).contains(&at.position)
    }
}

/// One reader's account.
#[derive(Default)]
struct Reader {
    /// Next position of each log.
    next: HashMap<u8, u64>,
    /// Logs where a gap was told and nothing was seen since.
    gaps: Vec<Range>,
    /// Where it was told that nothing was written.
    holes: Vec<Range>,
    /// The last number and epoch seen of each stream that has to ascend.
    streams: HashMap<(u64, u8), (u64, u32)>,
    seen: HashSet<Name>,
    /// Messages that it was told to have missed.
    missed: u64,
    /// Where batches were corrupt: log and first position. The next batch of the log says how many
    /// messages they had.
    corrupt: Vec<(u8, u64)>,
    finished: bool,
}

/// How often a client library sends a message at most in one life, in the orders that show it again
/// then: once for each broker that it goes to, and it goes to another only when one is gone.
const RESENDS: u64 = 16;

struct Checker {
    promises: Promises,
    auditor: Auditor,
    report: Report,
    sent: HashSet<Name>,
    /// Clients to whom nothing is promised.
    hostile: HashSet<u64>,
    /// Readers that saw everything: those of the pool that is there at the end.
    survivors: HashSet<u32>,
    /// Messages sent, those that a publisher sent again in a later life more than once.
    attempts: u64,
    acks: HashMap<Name, Ack>,
    /// What the first who saw a place saw there.
    shown: HashMap<At, (u32, Name)>,
    /// Where a message was first seen.
    places: HashMap<Name, At>,
    /// Order `token`: where a message was seen that was sealed under that epoch.
    in_epoch: HashMap<(Name, u32), At>,
    readers: HashMap<u32, Reader>,
    /// Ranges that were said to be lost with the pool.
    lost: Vec<Range>,
    /// Where a reader's first batch of a broker's own log was, though that is not its position 0.
    begun: Vec<(u32, At)>,
    pool_lost: bool,
}

/// Any broker, where the promise holds across brokers.
const EVERY_BROKER: u8 = u8::MAX;

impl Checker {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Sent { .. } | Event::Hostile { .. } | Event::PoolLost => {}
            Event::Acked { name, level, log, position } => {
                self.take_ack(*name, Ack { level: *level, log: *log, position: *position });
            }
            Event::Opened { reader, start } => {
                let account = self.readers.entry(*reader).or_default();
                if let Some(start) = start {
                    let log = SEQUENCED_LOG as u8;
                    account.next.insert(log, *start);
                    account.gaps.push(Range { log, from: 0, to: *start });
                }
            }
            Event::Read(batch) => self.take_batch(batch),
            Event::Gap { reader, log, missed, resume, unwritten } => {
                let account = self.readers.entry(*reader).or_default();
                let from = resume.saturating_sub(*missed);
                let range = Range { log: *log, from, to: *resume };
                if *unwritten {
                    account.holes.push(range);
                } else {
                    self.report.missed = self.report.missed.saturating_add(*missed);
                    account.missed = account.missed.saturating_add(*missed);
                    account.gaps.push(range);
                }
                let mut expected = account.next.insert(*log, *resume).unwrap_or(0);
                if account.corrupt.contains(&(*log, expected)) && expected < from {
                    account.gaps.push(Range { log: *log, from: expected, to: from });
                    self.auditor.gap(*reader as usize, *log, from - expected, from);
                    expected = from;
                }
                self.auditor.gap(*reader as usize, *log, *missed, *resume);
                account.corrupt.retain(|(corrupt, _)| corrupt != log);
                if expected.checked_add(*missed) != Some(*resume) {
                    let expected = At { log: *log, position: expected };
                    self.report.add(Violation::Hole { reader: *reader, expected, saw: from });
                }
            }
            Event::Skipped { reader, log, count, resume } => {
                self.auditor.gap(*reader as usize, *log, *count, *resume);
                let account = self.readers.entry(*reader).or_default();
                let from = resume.saturating_sub(*count);
                account.gaps.push(Range { log: *log, from, to: *resume });
                let expected = account.next.insert(*log, *resume).unwrap_or(0);
                if expected != from {
                    let expected = At { log: *log, position: expected };
                    self.report.add(Violation::Hole { reader: *reader, expected, saw: from });
                }
            }
            Event::Corrupt { reader, log, position } => {
                self.report.corrupt += 1;
                let account = self.readers.entry(*reader).or_default();
                account.corrupt.push((*log, *position));
            }
            Event::Finished { reader } => {
                self.readers.entry(*reader).or_default().finished = true;
            }
            Event::Lost { log, from, to } => {
                self.lost.push(Range { log: *log, from: *from, to: *to });
            }
        }
    }

    fn take_ack(&mut self, name: Name, ack: Ack) {
        let once = self.once();
        match self.acks.entry(name) {
            Entry::Vacant(place) => {
                place.insert(ack);
            }
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.level = known.level.max(ack.level);
                match (known.position, ack.position) {
                    // Without exactly once a message may stand, and be acknowledged, twice.
                    (Some(first), Some(second)) if first != second && once => {
                        let positions = (first, second);
                        self.report.add(Violation::TwoReceipts { name, positions });
                    }
                    (None, Some(_)) => (known.log, known.position) = (ack.log, ack.position),
                    _ => {}
                }
            }
        }
    }

    /// Whether a message may stand in one place only. In order `token` a publisher that is fenced
    /// publishes again under another epoch; under one epoch a message has one place. In order
    /// `stream` what is sent again may come through two brokers; twice through one is against its
    /// order there.
    fn once(&self) -> bool {
        self.promises.order == Order::Strong || !self.promises.repeats
    }

    fn take_batch(&mut self, batch: &BatchRead) {
        self.take_place(batch);
        if self.is_unbound(batch) {
            let (count, at) = (batch.numbers.len() as u64, batch.position);
            self.auditor.gap(batch.reader as usize, batch.log, count, at.saturating_add(count));
        } else {
            self.auditor.batch(batch.reader as usize, seen(batch));
        }
        if let Some(whose) = batch.stranger {
            let at = At { log: batch.log, position: batch.position };
            let (reader, client) = (batch.reader, batch.client);
            self.report.add(Violation::Strange { reader, at, client, whose });
        }
        self.report.brokers.insert(batch.broker);
        for (position, n) in (batch.position..).zip(&batch.numbers) {
            let at = At { log: batch.log, position };
            let (reader, client) = (batch.reader, batch.client);
            let Some(n) = *n else {
                self.report.add(Violation::Foreign { reader, at, client });
                continue;
            };
            let name = Name { client, n };
            if !self.sent.contains(&name) {
                self.report.add(Violation::NotSent { reader, at, name });
            }
            self.take_message(batch, at, name);
        }
    }

    /// Whether nothing is promised about what else a batch comes with: it is of a client that
    /// breaks the rules, or it was seen in a pool that is lost. There it may have been ordered and
    /// not durable, and then it was sent again.
    fn is_unbound(&self, batch: &BatchRead) -> bool {
        let is_of_lost = self.pool_lost && !self.survivors.contains(&batch.reader);
        self.hostile.contains(&batch.client) || is_of_lost
    }

    /// Positions follow each other, but for gaps that were told.
    fn take_place(&mut self, batch: &BatchRead) {
        let account = self.readers.entry(batch.reader).or_default();
        let end = batch.position.saturating_add(batch.numbers.len() as u64);
        // A log begins at 0; where it does not any more, the reader was told so.
        let before = account.next.insert(batch.log, end);
        let expected = before.unwrap_or(0);
        let is_corrupt = account.corrupt.contains(&(batch.log, expected));
        account.corrupt.retain(|(log, _)| *log != batch.log);
        if is_corrupt && expected < batch.position {
            let missed = batch.position - expected;
            self.report.missed = self.report.missed.saturating_add(missed);
            account.missed = account.missed.saturating_add(missed);
            account.gaps.push(Range { log: batch.log, from: expected, to: batch.position });
            self.auditor.gap(batch.reader as usize, batch.log, missed, batch.position);
        } else if expected != batch.position {
            let own_log = usize::from(batch.log) != SEQUENCED_LOG;
            if before.is_none() && own_log && self.pool_lost {
                self.begun.push((batch.reader, At { log: batch.log, position: batch.position }));
                return;
            }
            let expected = At { log: batch.log, position: expected };
            let (reader, saw) = (batch.reader, batch.position);
            self.report.add(Violation::Hole { reader, expected, saw });
        }
    }

    fn take_message(&mut self, batch: &BatchRead, at: At, name: Name) {
        let reader = batch.reader;
        match self.shown.entry(at) {
            Entry::Vacant(place) => {
                place.insert((reader, name));
                self.report.shown += 1;
            }
            Entry::Occupied(place) if place.get().1 == name => {}
            Entry::Occupied(place) => {
                let (first, then) = (*place.get(), (reader, name));
                self.report.add(Violation::Changed { at, first, then });
            }
        }
        if self.is_unbound(batch) {
            return;
        }
        let mut first = *self.places.entry(name).or_insert(at);
        let mut once = self.once();
        if self.promises.order == Order::Token {
            first = *self.in_epoch.entry((name, batch.epoch)).or_insert(at);
            once = true;
        }
        if first != at && once {
            self.report.add(Violation::Twice { name, places: (first, at) });
        }
        self.take_stream(batch, at, name);
        self.readers.entry(reader).or_default().seen.insert(name);
    }

    /// A publisher's messages are in their order, where that is promised.
    fn take_stream(&mut self, batch: &BatchRead, at: At, name: Name) {
        let broker = match self.promises.order {
            Order::Strong => EVERY_BROKER,
            Order::Stream | Order::Broker => batch.broker,
            Order::None | Order::Total | Order::Token => return,
        };
        // What is sent again under a later epoch begins anew: without exactly once, and where it
        // may have been another broker's before.
        let again = match self.promises.order {
            Order::Broker => self.promises.repeats,
            order => order == Order::Stream,
        };
        let account = self.readers.entry(batch.reader).or_default();
        let last = account.streams.insert((batch.client, broker), (name.n, batch.epoch));
        let Some((after, epoch)) = last else { return };
        let is_later = batch.epoch > epoch || !is_same_life(batch.epoch, epoch);
        if name.n <= after && !(again && is_later) {
            let reader = batch.reader;
            self.report.add(Violation::Swapped { reader, at, name, after });
        }
    }

    /// A broker's own log of which nothing was durable when the pool was lost begins behind
    /// whatever that pool may have had: no position in front of it had a durable receipt.
    fn judge_beginnings(&mut self) {
        for (reader, at) in std::mem::take(&mut self.begun) {
            let durable = self.acks.values().filter(|ack| ack.level == Level::Durable);
            let mut places = durable.filter_map(|ack| ack.log.zip(ack.position));
            if places.any(|(log, position)| log == at.log && position < at.position) {
                let expected = At { log: at.log, position: 0 };
                self.report.add(Violation::Hole { reader, expected, saw: at.position });
            }
        }
    }

    fn finish(mut self) -> Report {
        self.report.sent = self.sent.len() as u64;
        self.report.attempts = self.attempts;
        self.report.acked = self.acks.len() as u64;
        self.report.readers = self.readers.len() as u64;
        self.judge_beginnings();
        self.judge_holes();
        self.judge_losses();
        let mut acks: Vec<(Name, Ack)> = std::mem::take(&mut self.acks).into_iter().collect();
        // The order of a map is another in every run; a report's is not.
        acks.sort_unstable_by_key(|(name, _)| *name);
        let mut readers: Vec<(u32, Reader)> =
            std::mem::take(&mut self.readers).into_iter().collect();
        readers.retain(|(_, reader)| reader.finished);
        readers.sort_unstable_by_key(|(number, _)| *number);
        self.report.finished = readers.len() as u64;
        let mut hidden: Vec<u64> =
            readers.iter().map(|(_, reader)| self.hidden(reader, &acks)).collect();
        for (name, ack) in acks {
            self.judge_place(name, ack);
            for ((number, reader), hidden) in readers.iter().zip(&mut hidden) {
                self.judge_presence(*number, reader, hidden, name, ack);
            }
        }
        let audit = self.auditor.finish();
        for text in audit.violations {
            self.report.add(Violation::Audit(text));
        }
        self.report
    }

    /// Nobody was told of more messages than there can have been.
    fn judge_losses(&mut self) {
        let sent = self.sent.len() as u64;
        // In order `token` what was reserved and not written may be among what is missed.
        // What a lost pool had ordered stands again further on.
        let exact = self.once() && self.promises.order != Order::Token && !self.pool_lost;
        let most = if exact { sent } else { self.attempts.saturating_mul(RESENDS) };
        let mut readers: Vec<(&u32, &Reader)> = self.readers.iter().collect();
        readers.sort_unstable_by_key(|(number, _)| **number);
        for (reader, account) in readers {
            let (seen, missed) = (account.seen.len() as u64, account.missed);
            if missed > 0 && seen.saturating_add(missed) > most {
                let reader = *reader;
                self.report.add(Violation::Invented { reader, seen, missed, most });
            }
        }
    }

    /// Nothing stands, and no receipt says that anything does, where readers were told that nothing
    /// was written.
    fn judge_holes(&mut self) {
        let acked = self.acks.iter().filter_map(|(name, ack)| {
            let (log, position) = (ack.log?, ack.position?);
            Some((At { log, position }, *name))
        });
        let shown = self.shown.iter().map(|(at, (_, name))| (*at, *name));
        let mut full: Vec<(At, Name)> = acked.chain(shown).collect();
        full.sort_unstable();
        let mut readers: Vec<(&u32, &Reader)> = self.readers.iter().collect();
        readers.sort_unstable_by_key(|(number, _)| **number);
        for (reader, account) in readers {
            let reader = *reader;
            let mut unwritten = 0_u64;
            for hole in &account.holes {
                unwritten = unwritten.saturating_add(hole.to.saturating_sub(hole.from));
                let at = At { log: hole.log, position: hole.from };
                if self.promises.order != Order::Token {
                    self.report.add(Violation::Unwritten { reader, at });
                }
                let next = full.partition_point(|(place, _)| *place < at);
                if let Some((at, found)) = full.get(next).filter(|(place, _)| hole.holds(*place)) {
                    let (at, found) = (*at, *found);
                    self.report.add(Violation::Filled { reader, at, found });
                }
            }
            self.report.unwritten = self.report.unwritten.max(unwritten);
        }
    }

    /// What stands where a receipt says.
    fn judge_place(&mut self, name: Name, ack: Ack) {
        let (Some(log), Some(position)) = (ack.log, ack.position) else { return };
        let at = At { log, position };
        if let Some((_, found)) = self.shown.get(&at)
            && *found != name
        {
            self.report.add(Violation::Elsewhere { name, at, found: *found });
        }
        if ack.level == Level::Durable && self.lost.iter().any(|lost| lost.holds(at)) {
            self.report.add(Violation::DurableLost { name, at });
        }
    }

    /// Where a message stands, if its receipt or anybody who read it tells.
    fn place(&self, name: Name, ack: Ack) -> Option<At> {
        match (ack.log, ack.position) {
            (Some(log), Some(position)) => Some(At { log, position }),
            _ => self.places.get(&name).copied(),
        }
    }

    /// Positions in a reader's gaps of which nobody knows what stood there.
    fn hidden(&self, reader: &Reader, acks: &[(Name, Ack)]) -> u64 {
        let missed = reader.gaps.iter().map(|gap| gap.to.saturating_sub(gap.from));
        let missed = missed.fold(0, u64::saturating_add);
        let known = acks.iter().filter_map(|(name, ack)| self.place(*name, *ack));
        let known: HashSet<At> = known.chain(self.shown.keys().copied()).collect();
        let known = known.iter().filter(|at| reader.gaps.iter().any(|gap| gap.holds(**at)));
        missed.saturating_sub(known.count() as u64)
    }

    /// Whether a reader who saw everything saw what had a receipt, or was told of the gap.
    /// A receipt for a batch that was sent twice does not say a position: then one of the `hidden`
    /// places is taken for its.
    fn judge_presence(
        &mut self,
        number: u32,
        reader: &Reader,
        hidden: &mut u64,
        name: Name,
        ack: Ack,
    ) {
        if reader.seen.contains(&name) {
            return;
        }
        let at = self.place(name, ack);
        if at.is_none() && *hidden > 0 && !(self.pool_lost && ack.level == Level::Durable) {
            *hidden -= 1;
            return;
        }
        // After the loss of the pool a gap does not excuse what was durable: retention would not
        // have taken what the replicas still have.
        let told = |at: At| {
            let gap = reader.gaps.iter().any(|gap| gap.holds(at));
            let lost = self.lost.iter().any(|lost| lost.holds(at));
            if ack.level == Level::Durable { gap && !self.pool_lost } else { gap || lost }
        };
        if !at.is_some_and(told) {
            let (level, position) = (ack.level, ack.position);
            self.report.add(Violation::Missing { reader: number, name, level, position });
        }
    }
}

fn seen(batch: &BatchRead) -> Seen {
    Seen {
        log: batch.log,
        index: batch.index,
        first_position: batch.position,
        count: batch.numbers.len() as u16,
        broker: batch.broker,
        client: batch.client,
        session_epoch: batch.epoch,
        batch_seq: batch.seq,
        payload_crc: batch.crc,
    }
}
