//! Histories made from seeds that keep every promise of their order, and breaking them.

use std::collections::HashMap;

use landfall::Order;
use landfall_hw_tests::flow::Random;
use landfall_hw_tests::history::{
    BatchRead, Event, Level, Name, Promises, Report, Violation, check,
};
use landfall_layout::limits::SEQUENCED_LOG;

/// Histories for each test.
pub const SEEDS: u64 = 400;
pub const ORDERS: [Order; 6] =
    [Order::None, Order::Broker, Order::Total, Order::Token, Order::Stream, Order::Strong];
/// Those where a message that was sent again, under another epoch, may not stand twice.
pub const ONCE: [Order; 5] =
    [Order::None, Order::Broker, Order::Total, Order::Stream, Order::Strong];

/// A legal history, and what it was made from.
pub struct Legal {
    pub promises: Promises,
    /// The topic's batches by log, each log's in order.
    pub logs: Vec<Vec<BatchRead>>,
    /// Order `token`: for some batches, by index, the unwritten positions before them.
    pub holes: HashMap<u64, u64>,
    pub events: Vec<Event>,
    pub random: Random,
}

/// A batch, not yet placed.
#[derive(Clone)]
struct Batch {
    client: u64,
    broker: u8,
    seq: u64,
    epoch: u32,
    numbers: Vec<Option<u64>>,
}

/// Each client's batches, in its order.
fn batches(random: &mut Random, order: Order, brokers: u64) -> Vec<Vec<Batch>> {
    (1..=1 + random.below(3))
        .map(|client| {
            let mut n = 0;
            (0..4 + random.below(20))
                .map(|seq| {
                    let count = 1 + random.below(4);
                    let numbers = (n..n + count).map(Some).collect();
                    n += count;
                    // In order `broker` a client stays with one: its order is that of one log.
                    let broker = if order == Order::Broker { client } else { random.word() };
                    let broker = (broker % brokers) as u8;
                    Batch { client, broker, seq, epoch: 1 + seq as u32 / 8, numbers }
                })
                .collect()
        })
        .collect()
}

/// The clients' batches in one order that the topic's order allows.
fn interleaved(random: &mut Random, order: Order, mut clients: Vec<Vec<Batch>>) -> Vec<Batch> {
    let mut all = Vec::new();
    while clients.iter().any(|batches| !batches.is_empty()) {
        let who = random.below(clients.len() as u64) as usize;
        let batches = &mut clients[who];
        if batches.is_empty() {
            continue;
        }
        let ahead = random.below(batches.len().min(4) as u64) as usize;
        let at = match order {
            Order::Total | Order::Token | Order::None => ahead,
            // The first through some broker: those through others may be overtaken.
            Order::Stream => {
                let broker = batches[ahead].broker;
                batches.iter().position(|batch| batch.broker == broker).unwrap()
            }
            _ => 0,
        };
        all.push(batches.remove(at));
    }
    all
}

pub fn legal(seed: u64, order: Order) -> Legal {
    let mut random = Random::new(seed);
    random.word();
    let brokers = 1 + random.below(3);
    let clients = batches(&mut random, order, brokers);
    let mut events = Vec::new();
    for batch in clients.iter().flatten() {
        let name = |n| Name { client: batch.client, n };
        events.extend(batch.numbers.iter().flatten().map(|n| Event::Sent { name: name(*n) }));
    }
    let mut logs: Vec<Vec<BatchRead>> = vec![Vec::new(); 1 + SEQUENCED_LOG];
    let mut next = vec![0; 1 + SEQUENCED_LOG];
    let mut holes = HashMap::new();
    for batch in interleaved(&mut random, order, clients) {
        let log = if order.is_sequenced() { SEQUENCED_LOG } else { batch.broker.into() };
        let index = logs[log].len() as u64;
        if order == Order::Token && random.below(3) == 0 {
            let hole = 1 + random.below(5);
            next[log] += hole;
            holes.insert(index, hole);
        }
        let position = next[log];
        next[log] += batch.numbers.len() as u64;
        let Batch { client, broker, mut seq, epoch, numbers } = batch;
        if order == Order::Token {
            seq = position;
        }
        let log_number = log as u8;
        logs[log].push(BatchRead {
            reader: 0,
            log: log_number,
            index,
            position,
            broker,
            client,
            epoch,
            seq,
            crc: (client * 1000 + seq) as u32,
            numbers,
            stranger: None,
        });
    }
    logs.retain(|log| !log.is_empty());
    let mut legal =
        Legal { promises: Promises { order, repeats: false }, logs, holes, events, random };
    legal.acknowledge();
    legal.readings();
    legal
}

impl Legal {
    /// Most batches have receipts; some of them do not say the position.
    fn acknowledge(&mut self) {
        for batch in self.logs.iter().flatten() {
            if self.random.below(8) == 0 {
                continue;
            }
            let tells = self.random.below(6) > 0;
            self.events.extend(receipts(batch, tells, Level::Ordered));
        }
    }

    /// Two readers from the beginning to the end, one that stops on the way, one that is overtaken.
    fn readings(&mut self) {
        for reader in 1..=4 {
            self.events.push(Event::Opened { reader, start: None });
            for log in &self.logs {
                let all = log.len() as u64;
                let stop = if reader == 3 { self.random.below(all + 1) } else { all };
                let lost = self.random.below(all);
                let resume = lost + 1 + self.random.below(all - lost);
                let mut next = 0;
                for batch in &log[..stop as usize] {
                    let missed = (lost..resume).contains(&batch.index);
                    if let Some(resumed) = log.get(resume as usize)
                        && reader == 4
                        && missed
                    {
                        if batch.index == lost {
                            let (from, log) = (next, batch.log);
                            next = resumed.position;
                            self.events.push(gap(reader, log, next - from, next, false));
                        }
                        continue;
                    }
                    if batch.position > next {
                        let missed = batch.position - next;
                        self.events.push(gap(reader, batch.log, missed, batch.position, true));
                    }
                    next = batch.position + batch.numbers.len() as u64;
                    self.events.push(Event::Read(BatchRead { reader, ..batch.clone() }));
                }
            }
            if reader != 3 {
                self.events.push(Event::Finished { reader });
            }
        }
    }

    pub fn check(&self) -> Report {
        check(self.promises, &self.events)
    }

    /// The events that are readings of one reader, by their place in the history.
    pub fn readings_of(&self, of: u32) -> Vec<usize> {
        let is = |event: &Event| matches!(event, Event::Read(batch) if batch.reader == of);
        (0..self.events.len()).filter(|i| is(&self.events[*i])).collect()
    }

    pub fn batch(&mut self, at: usize) -> &mut BatchRead {
        match &mut self.events[at] {
            Event::Read(batch) => batch,
            other => panic!("{other:?} is no reading"),
        }
    }
}

pub fn gap(reader: u32, log: u8, missed: u64, resume: u64, unwritten: bool) -> Event {
    Event::Gap { reader, log, missed, resume, unwritten }
}

pub fn receipts(batch: &BatchRead, tells: bool, level: Level) -> Vec<Event> {
    let client = batch.client;
    (batch.position..)
        .zip(batch.numbers.iter().flatten())
        .map(|(position, n)| Event::Acked {
            name: Name { client, n: *n },
            level,
            log: tells.then_some(batch.log),
            position: tells.then_some(position),
        })
        .collect()
}

/// Breaks a legal history of each seed and order by `change`, which says whether it could, and
/// looks that a violation like `expected` is found.
pub fn broken(
    orders: &[Order],
    mut change: impl FnMut(&mut Legal) -> bool,
    expected: impl Fn(&Violation) -> bool,
) {
    let mut changed = 0;
    for seed in 0..SEEDS {
        for order in orders {
            let mut history = legal(seed, *order);
            if !change(&mut history) {
                continue;
            }
            changed += 1;
            let report = history.check();
            assert!(
                report.violations.iter().any(&expected),
                "seed {seed}, order {order}: not found: {report}"
            );
        }
    }
    let all = SEEDS * orders.len() as u64;
    assert!(changed * 4 > all, "only {changed} of {all} histories could be broken");
}
