//! Checks that what subscribers saw is what the topic's order promises.
//!
//! Each subscriber's batches go in as they come. What can be judged from one subscriber alone is
//! judged at once: positions without holes or overlaps, first-in first-out, duplicates, epochs. In
//! the end the subscribers are compared with each other. Time is linear in the batches and memory
//! proportional to them.

use std::collections::{HashMap, HashSet};
use std::fmt;

use landfall_layout::frame::GapReason;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::session::life_of;
use landfall_layout::topic::Order;

use crate::subscriber::Batch;

/// Violations that are written out; more are only counted.
const VIOLATIONS_SHOWN: usize = 100;

/// What a subscriber saw of one batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Log it stands in.
    pub log: u8,
    /// Index in that log.
    pub index: u64,
    /// Position of its first message.
    pub first_position: u64,
    /// Its messages.
    pub count: u16,
    /// Broker that landed it.
    pub broker: u8,
    /// Client id of its publisher.
    pub client: u64,
    /// Session epoch it was sealed under.
    pub session_epoch: u32,
    /// Its sequence in the session.
    pub batch_seq: u64,
    /// Checksum of its payload.
    pub payload_crc: u32,
}

impl From<&Batch<'_>> for Seen {
    fn from(batch: &Batch<'_>) -> Self {
        Self {
            log: batch.log(),
            index: batch.index(),
            first_position: batch.first_position(),
            count: batch.count(),
            broker: batch.broker(),
            client: batch.client(),
            session_epoch: batch.session_epoch(),
            batch_seq: batch.batch_seq(),
            payload_crc: batch.preamble.payload_crc,
        }
    }
}

impl Seen {
    /// What two subscribers must agree on, in one number. FNV-1a over the fields: a difference is
    /// missed once in 2^64.
    fn digest(&self) -> u64 {
        let words = [
            self.first_position,
            u64::from(self.count) | u64::from(self.broker) << 16,
            self.client,
            u64::from(self.session_epoch) | u64::from(self.payload_crc) << 32,
            self.batch_seq,
        ];
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in words.iter().flat_map(|word| word.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash
    }
}

/// What an audit found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Whether every promise was kept.
    pub ok: bool,
    /// What was broken, a sentence each; the first hundred.
    pub violations: Vec<String>,
    /// Violations in all.
    pub violations_total: u64,
    /// Batches that the subscriber with the most saw.
    pub batches: u64,
    /// Messages in them.
    pub messages: u64,
    /// Positions at which subscribers were told that nothing comes.
    pub missed: u64,
    /// Subscribers.
    pub subscribers: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} batches with {} messages seen by {} subscribers, {} positions missed, \
             {} violations",
            self.batches, self.messages, self.subscribers, self.missed, self.violations_total
        )?;
        for violation in &self.violations {
            write!(f, "\n  {violation}")?;
        }
        Ok(())
    }
}

/// Where a subscriber is in one log.
#[derive(Debug, Default)]
struct Cursor {
    /// Index and position expected next; `None` before the first batch.
    next: Option<(u64, u64)>,
    /// Position that the last announced gap goes on from.
    resume: Option<u64>,
}

/// A publisher's stream as one subscriber sees it: how far it is in each life of its session line.
/// Where its line went to another client and the publisher came back, its epochs and sequences
/// begin anew.
#[derive(Debug, Default)]
struct Stream {
    /// Latest life, and the last epoch and sequence there.
    life: u32,
    last: Option<(u32, u64)>,
    /// Lives before it.
    over: HashSet<u32>,
}

impl Stream {
    /// A batch comes. Epoch and sequence before it in its life, and whether that life was over.
    fn take(&mut self, epoch: u32, batch_seq: u64) -> (Option<(u32, u64)>, bool) {
        let life = life_of(epoch);
        let is_over = self.over.contains(&life);
        let is_new = self.last.is_some() && life != self.life;
        if is_new && !is_over {
            self.over.insert(self.life);
            self.last = None;
        }
        if is_over {
            return (self.last, true);
        }
        self.life = life;
        (self.last.replace((epoch, batch_seq)), false)
    }
}

/// One subscriber's account.
#[derive(Debug, Default)]
struct Account {
    cursors: HashMap<u8, Cursor>,
    streams: HashMap<(u64, u8), Stream>,
    /// Orders without first-in first-out: the sequences seen of each client and epoch. Order
    /// `stream`: of each client and life of its line.
    sequences: HashSet<(u64, u64, u32)>,
    batches: u64,
    messages: u64,
    missed: u64,
    /// A pool was lost under its log: what was only in memory may be missing without being counted.
    has_skipped: bool,
}

/// Judges what subscribers of one topic see.
#[derive(Debug)]
pub struct Auditor {
    order: Order,
    accounts: Vec<Account>,
    /// What the first subscriber who saw an entry saw there.
    agreed: HashMap<(u8, u64), (u64, usize)>,
    violations: Vec<String>,
    violations_total: u64,
}

/// Any broker, where the promise holds across brokers.
const EVERY_BROKER: u8 = u8::MAX;

impl Auditor {
    /// An auditor of a topic of that order.
    pub fn new(order: Order) -> Self {
        Self {
            order,
            accounts: Vec::new(),
            agreed: HashMap::new(),
            violations: Vec::new(),
            violations_total: 0,
        }
    }

    /// The subscriber of that number, from 0, saw a batch.
    pub fn batch(&mut self, subscriber: usize, seen: Seen) {
        let sequenced = usize::from(seen.log) == SEQUENCED_LOG;
        if sequenced != self.order.is_sequenced() {
            self.violation(format!(
                "subscriber {subscriber} saw log {} of a topic of order {}",
                seen.log, self.order
            ));
        }
        if seen.count == 0 {
            self.violation(format!(
                "subscriber {subscriber} saw an empty batch at position {}",
                seen.first_position
            ));
        }
        self.check_place(subscriber, &seen);
        self.check_stream(subscriber, &seen);
        self.check_agreement(subscriber, &seen);
        let account = self.account(subscriber);
        account.batches += 1;
        account.messages += u64::from(seen.count);
    }

    /// The subscriber of that number was told that it missed messages.
    pub fn gap(&mut self, subscriber: usize, log: u8, missed: u64, resume: u64) {
        let account = self.account(subscriber);
        account.missed = account.missed.saturating_add(missed);
        let cursor = account.cursors.entry(log).or_default();
        // A subscriber that goes on being overtaken is told of one gap behind the other.
        let before = cursor.resume.or(cursor.next.map(|(_, position)| position));
        cursor.resume = Some(resume);
        if let Some(position) = before
            && position.checked_add(missed) != Some(resume)
        {
            self.violation(format!(
                "subscriber {subscriber} was at position {position} of log {log} and was told that \
                 it missed {missed} messages and goes on at {resume}"
            ));
        }
    }

    /// The same, of a gap with that reason: positions that were passed over are none that anybody
    /// is known to have missed.
    pub fn told(
        &mut self,
        subscriber: usize,
        log: u8,
        reason: GapReason,
        missed: u64,
        resume: u64,
    ) {
        let before = self.account(subscriber).missed;
        self.gap(subscriber, log, missed, resume);
        if reason == GapReason::Skipped {
            let account = self.account(subscriber);
            account.missed = before;
            account.has_skipped = true;
        }
    }

    /// What was found.
    pub fn finish(&self) -> Report {
        let most = self.accounts.iter().max_by_key(|account| account.messages);
        Report {
            ok: self.violations_total == 0,
            violations: self.violations.clone(),
            violations_total: self.violations_total,
            batches: most.map_or(0, |account| account.batches),
            messages: most.map_or(0, |account| account.messages),
            missed: self.accounts.iter().map(|account| account.missed).fold(0, u64::saturating_add),
            subscribers: self.accounts.len(),
        }
    }

    fn account(&mut self, subscriber: usize) -> &mut Account {
        if self.accounts.len() <= subscriber {
            self.accounts.resize_with(subscriber + 1, Account::default);
        }
        &mut self.accounts[subscriber]
    }

    fn violation(&mut self, text: String) {
        self.violations_total += 1;
        if self.violations.len() < VIOLATIONS_SHOWN {
            self.violations.push(text);
        }
    }

    /// Positions follow each other, but for gaps that were announced.
    fn check_place(&mut self, subscriber: usize, seen: &Seen) {
        let cursor = self.account(subscriber).cursors.entry(seen.log).or_default();
        let (before, resume) = (cursor.next, cursor.resume.take());
        let end = seen.first_position.saturating_add(seen.count.into());
        cursor.next = Some((seen.index.saturating_add(1), end));
        let Some((index, position)) = before else { return };
        let (expected, after_gap) = resume.map_or((position, false), |resume| (resume, true));
        let index_ok = if after_gap { seen.index >= index } else { seen.index == index };
        if seen.first_position == expected && index_ok {
            return;
        }
        let what = match seen.first_position.cmp(&expected) {
            std::cmp::Ordering::Greater => "a hole",
            std::cmp::Ordering::Less => "an overlap",
            std::cmp::Ordering::Equal => "another index",
        };
        self.violation(format!(
            "subscriber {subscriber}, log {}: {what}: expected position {expected} at index \
             {index}, saw position {} at index {}",
            seen.log, seen.first_position, seen.index
        ));
    }

    /// What is promised of one publisher's batches.
    fn check_stream(&mut self, subscriber: usize, seen: &Seen) {
        let broker = match self.order {
            Order::Strong => EVERY_BROKER,
            Order::Broker | Order::Stream => seen.broker,
            Order::None | Order::Total | Order::Token => {
                if self.order == Order::Token && seen.batch_seq != seen.first_position {
                    self.violation(format!(
                        "subscriber {subscriber} saw the batch for position {} of client {:#x} at \
                         position {}",
                        seen.batch_seq, seen.client, seen.first_position
                    ));
                }
                // No order and no exactly-once among a client's batches: but one sealed batch
                // stands in one place, and only a batch sent again after a loss has another epoch.
                let identity = (seen.client, seen.batch_seq, seen.session_epoch);
                if !self.account(subscriber).sequences.insert(identity) {
                    self.violation(format!(
                        "subscriber {subscriber} saw batch {} of client {:#x} in session epoch {} \
                         twice, the second time at position {}",
                        seen.batch_seq, seen.client, seen.session_epoch, seen.first_position
                    ));
                }
                return;
            }
        };
        let strong = self.order == Order::Strong;
        // What was sent again after a loss begins anew, through whatever broker. In order `stream`
        // it may be a batch that another broker never had; that none comes twice is looked at
        // across brokers.
        let begins_anew = matches!(self.order, Order::Broker | Order::Stream);
        let is_again = self.order == Order::Stream && {
            let identity = (seen.client, seen.batch_seq, life_of(seen.session_epoch));
            !self.account(subscriber).sequences.insert(identity)
        };
        let account = self.account(subscriber);
        let lapped = account.missed > 0 || account.has_skipped;
        let stream = account.streams.entry((seen.client, broker)).or_default();
        let (last, is_over) = stream.take(seen.session_epoch, seen.batch_seq);
        if is_again {
            self.violation(format!(
                "subscriber {subscriber}, client {:#x}: a duplicate: batch {} of epoch {} from \
                 broker {} at position {}",
                seen.client, seen.batch_seq, seen.session_epoch, seen.broker, seen.first_position
            ));
            return;
        }
        let Some((epoch, batch_seq)) = last else { return };
        let what = if is_over || seen.session_epoch < epoch {
            "an earlier epoch"
        } else if begins_anew && seen.session_epoch > epoch {
            return;
        } else if seen.batch_seq == batch_seq {
            "a duplicate"
        } else if seen.batch_seq < batch_seq {
            "a step back"
        } else if strong && !lapped && Some(seen.batch_seq) != batch_seq.checked_add(1) {
            "a missing batch"
        } else {
            return;
        };
        self.violation(format!(
            "subscriber {subscriber}, client {:#x}: {what}: batch {} of epoch {} from broker {} at \
             position {} after batch {batch_seq} of epoch {epoch}",
            seen.client, seen.batch_seq, seen.session_epoch, seen.broker, seen.first_position
        ));
    }

    /// All subscribers see the same batch in the same place.
    fn check_agreement(&mut self, subscriber: usize, seen: &Seen) {
        let digest = seen.digest();
        let (first, who) =
            *self.agreed.entry((seen.log, seen.index)).or_insert((digest, subscriber));
        if first != digest {
            self.violation(format!(
                "subscribers {who} and {subscriber} disagree about batch {} of log {}: the latter \
                 saw batch {} of client {:#x} at position {}",
                seen.index, seen.log, seen.batch_seq, seen.client, seen.first_position
            ));
        }
    }
}

#[cfg(test)]
mod tests;
