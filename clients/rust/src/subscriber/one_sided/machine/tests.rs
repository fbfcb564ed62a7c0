//! The machine against a pool in ordinary memory, whose READs are copies.

use std::collections::HashMap;

use landfall_layout::SegmentId;
use landfall_layout::order::ENTRY_HOLE;
use landfall_layout::segment::{SegmentKind, SegmentState, What};

use super::*;
use crate::verbs::ring::{copy_out, shared_memory};

const TOPIC: TopicId = TopicId(0x105);
const LOG: u8 = SEQUENCED_LOG as u8;
/// Bytes of a segment: 32 entries.
const SEGMENT: u32 = 2048;
const LINES_KEY: u32 = 1;
const HEADERS_KEY: u32 = 2;
const FRONTIERS_KEY: u32 = 3;
const FIRST_KEY: u32 = 100;

/// A pool that can be read from afar.
#[derive(Default)]
struct Fake {
    frontiers: HashMap<u8, FrontierLine>,
    chains: HashMap<u8, ChainLine>,
    headers: HashMap<u32, SegmentHeader>,
    segments: HashMap<u32, Vec<u8>>,
    slots: Vec<Option<u32>>,
    questions: Vec<u32>,
    refuse: Option<u32>,
}

impl Fake {
    fn segment(&mut self, segment: u32) -> &mut Vec<u8> {
        self.segments.entry(segment).or_insert_with(|| vec![0; SEGMENT as usize])
    }

    /// Makes `segment` the log's last one, from `base` on.
    fn chain(&mut self, log: u8, segment: u32, base: u64) {
        let what = What {
            kind: SegmentKind::OrderLog,
            state: SegmentState::Open,
            owner: 0xff,
            log,
            topic: TOPIC,
        };
        let header = SegmentHeader { what: what.pack(), base_index: base, ..SegmentHeader::FREE };
        self.segment(segment);
        self.headers.insert(segment, header);
        let topic = u64::from(TOPIC.0);
        match self.chains.get_mut(&log) {
            Some(chain) => {
                self.headers.get_mut(&chain.tail).unwrap().next = segment;
                chain.tail = segment;
            }
            None => {
                let line = ChainLine { head: segment, tail: segment, topic, ..Default::default() };
                self.chains.insert(log, line);
            }
        }
        self.frontiers.entry(log).or_insert(FrontierLine { topic, ..Default::default() });
    }

    /// Writes an entry into `segment` as its writer would.
    fn write(&mut self, segment: u32, index: u64, entry: &OrderEntry) {
        let at = ((index - self.headers[&segment].base_index) * 64) as usize;
        let entry = OrderEntry { commit: index + 1, ..*entry };
        for (i, word) in entry.to_words().into_iter().enumerate() {
            let bytes = &mut self.segment(segment)[at + 8 * i..at + 8 * i + 8];
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Orders a batch of two messages, whose 100 bytes all say `index`, in payload segment
    /// `payload`; 16 of them fit.
    fn order(&mut self, log: u8, payload: u32) {
        let frontier = self.frontiers[&log];
        let index = frontier.entries;
        let offset = (index % 16 * 128) as u32;
        self.segment(payload)[offset as usize..][..100].fill(index as u8);
        let entry = OrderEntry {
            first_position: 2 * index,
            landed_ns: 1000 + index,
            segment: payload,
            offset,
            bytes: 100,
            count: 2,
            ..OrderEntry::default()
        };
        let mut segment = self.chains[&log].head;
        while self.headers.contains_key(&self.headers[&segment].next)
            && self.headers[&self.headers[&segment].next].base_index <= index
        {
            segment = self.headers[&segment].next;
        }
        self.write(segment, index, &entry);
        let frontier = self.frontiers.get_mut(&log).unwrap();
        frontier.entries += 1;
        frontier.position += 2;
    }

    fn raise_oldest(&mut self, log: u8, index: u64) {
        let chain = self.chains.get_mut(&log).unwrap();
        (chain.oldest_index, chain.oldest_position) = (index, 2 * index);
    }

    fn bytes(&self, from: Remote, bytes: u32) -> Vec<u8> {
        let line = |at: u64| -> Vec<u8> {
            let words = if from.key == FRONTIERS_KEY {
                let frontier = self.frontiers.get(&((at / 64) as u8)).filter(|_| at / 64 < 32);
                frontier.copied().unwrap_or_default().to_words()
            } else if from.key == HEADERS_KEY {
                let header = self.headers.get(&((at / 64) as u32));
                header.copied().unwrap_or(SegmentHeader::FREE).to_words()
            } else {
                let log = (at / 128) as u8;
                match at % 128 {
                    0 if log < 32 => FrontierLine::default().to_words(),
                    0 => self.frontiers.get(&log).copied().unwrap_or_default().to_words(),
                    _ => self.chains.get(&log).copied().unwrap_or_default().to_words(),
                }
            };
            words.into_iter().flat_map(u64::to_le_bytes).collect()
        };
        if from.key >= FIRST_KEY {
            let at = (from.at & 0xffff_ffff) as usize;
            return self.segments[&(from.key - FIRST_KEY)][at..at + bytes as usize].to_vec();
        }
        (0..u64::from(bytes) / 64).flat_map(|i| line(from.at + 64 * i)).collect()
    }
}

struct Rig {
    fake: Fake,
    machine: Machine,
    landing: Arc<Mapping>,
    places: Places,
    say: Vec<Said>,
}

impl Rig {
    fn new(fake: Fake, sequenced: bool, from: From) -> Self {
        let landing = shared_memory("test", landing_bytes(4096)).unwrap();
        let tables = Tables {
            topic: TOPIC,
            sequenced,
            lines: Remote { at: 0, key: LINES_KEY },
            frontiers: Remote { at: 0, key: FRONTIERS_KEY },
            headers: Remote { at: 0, key: HEADERS_KEY },
            batch_bytes_max: 1024,
            capacity: u64::MAX,
        };
        let machine = Machine::new(tables, from, Arc::clone(&landing));
        Self { fake, machine, landing, places: Places::new(), say: Vec::new() }
    }

    /// What a broker does with what it is told.
    fn answer(&mut self) {
        for said in std::mem::take(&mut self.say) {
            match said {
                Said::Segment { segment } if self.fake.refuse == Some(segment) => {
                    assert_eq!(self.machine.slots.refused(), Some(segment));
                }
                Said::Segment { segment } => {
                    let slots = &mut self.fake.slots;
                    let slot = slots.iter().position(Option::is_none).unwrap_or(slots.len());
                    assert!(slot < 16, "no slot is left for segment {segment}");
                    slots.resize(slots.len().max(slot + 1), None);
                    slots[slot] = Some(segment);
                    self.fake.questions.push(segment);
                    let granted = Granted {
                        slot: slot as u32,
                        segment,
                        at: u64::from(segment) << 32,
                        key: FIRST_KEY + segment,
                        bytes: SEGMENT,
                    };
                    self.machine.granted(granted).unwrap();
                }
                Said::Done { slot } => {
                    assert!(self.fake.slots[usize::from(slot)].take().is_some(), "slot {slot}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Carries one burst out; `between` comes before its fenced READ.
    fn burst(&mut self, between: impl FnOnce(&mut Fake)) -> Vec<Read> {
        let mut reads = Vec::new();
        let planned = self.machine.plan(&mut reads, &mut self.say);
        self.answer();
        let mut between = Some(between);
        for read in &reads {
            if read.fence
                && let Some(between) = between.take()
            {
                between(&mut self.fake);
            }
            let bytes = self.fake.bytes(read.from, read.bytes);
            let mut whole = bytes;
            whole.resize(whole.len().next_multiple_of(8), 0);
            for (i, word) in whole.chunks(8).enumerate() {
                let word = u64::from_le_bytes(word.try_into().unwrap());
                self.landing.store(read.into + 8 * i as u64, word);
            }
        }
        if planned {
            self.machine.complete(&self.places, &mut self.say);
        }
        self.answer();
        reads
    }

    /// Shows what there is, after a burst.
    fn shown(&mut self) -> Vec<Shown> {
        let mut all = Vec::new();
        loop {
            match self.machine.front(&mut self.places) {
                Front::Nothing => return all,
                Front::Gap { reason: GapReason::Unwritten, missed, resume, .. } => {
                    all.push(Shown::Hole(missed, resume));
                }
                Front::Gap { missed, resume, .. } => all.push(Shown::Gap(missed, resume)),
                Front::Batch { log, index, entry, at } => {
                    let mut bytes = [0; 100];
                    copy_out(&self.landing, at, &mut bytes);
                    assert_eq!(bytes, [index as u8; 100], "batch {index} of log {log}");
                    self.places.shown(log, index, entry.end_position());
                    self.machine.pass();
                    all.push(Shown::Batch(log, index));
                }
                Front::Bad { log, index, position, .. } => {
                    self.places.shown(log, index, position);
                    self.machine.pass();
                    all.push(Shown::Bad(index));
                }
            }
        }
    }

    /// Goes on until nothing more comes.
    fn run(&mut self) -> Vec<Shown> {
        let mut all = Vec::new();
        let mut quiet = 0;
        while quiet < 10 || (quiet < 200 && self.machine.is_behind()) {
            self.burst(|_| {});
            let shown = self.shown();
            quiet = if shown.is_empty() { quiet + 1 } else { 0 };
            all.extend(shown);
        }
        all
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shown {
    Batch(u8, u64),
    Bad(u64),
    Gap(u64, u64),
    Hole(u64, u64),
}

fn batches(log: u8, indices: std::ops::Range<u64>) -> Vec<Shown> {
    indices.map(|index| Shown::Batch(log, index)).collect()
}

/// `count` batches in log segments 1, 2, .. and payload segments 50, 51, ..
fn ordered(count: u64) -> Fake {
    let mut fake = Fake::default();
    for index in 0..count {
        if index % 32 == 0 {
            fake.chain(LOG, 1 + (index / 32) as u32, index);
        }
        fake.order(LOG, 50 + (index / 16) as u32);
    }
    fake
}

#[test]
fn everything_is_read_in_order_across_segments() {
    let mut rig = Rig::new(ordered(100), true, From::Earliest);
    assert!(!rig.machine.is_caught_up());
    assert_eq!(rig.run(), batches(LOG, 0..100));
    assert!(rig.machine.is_caught_up() && !rig.machine.is_behind());
    let open: Vec<u32> = rig.fake.slots.iter().flatten().copied().collect();
    assert!(open.len() <= 3, "segments that were passed are kept: {open:?}");
    rig.fake.order(LOG, 56);
    rig.fake.order(LOG, 56);
    assert_eq!(rig.run(), batches(LOG, 100..102));
}

#[test]
fn batches_that_lie_together_are_read_together() {
    let mut rig = Rig::new(ordered(16), true, From::Earliest);
    let mut reads = Vec::new();
    while rig.machine.items.is_empty() {
        rig.burst(|_| {});
    }
    while !reads.iter().any(|read: &Read| read.from.key == FIRST_KEY + 50) {
        reads = rig.burst(|_| {});
    }
    let payload: Vec<&Read> = reads.iter().filter(|r| r.from.key == FIRST_KEY + 50).collect();
    assert_eq!((payload.len(), payload[0].bytes), (1, 15 * 128 + 100));
    assert!(reads.iter().filter(|read| read.fence).count() == 1, "{reads:?}");
}

#[test]
fn what_an_old_leader_wrote_beyond_its_frontier_is_no_entry() {
    let mut fake = ordered(10);
    // A new leader goes on at 10 in a segment of its own. The old one had written two more.
    for index in 10..12 {
        let stale = OrderEntry { segment: 77, bytes: 100, count: 9, ..OrderEntry::default() };
        fake.write(1, index, &stale);
    }
    fake.chain(LOG, 2, 10);
    for _ in 0..5 {
        fake.order(LOG, 51);
    }
    assert_eq!(Rig::new(fake, true, From::Earliest).run(), batches(LOG, 0..15));
}

#[test]
fn a_segment_that_is_cut_while_it_is_read_is_not_believed() {
    let mut rig = Rig::new(ordered(10), true, From::Earliest);
    assert_eq!(rig.run(), batches(LOG, 0..10));
    let stale = OrderEntry { segment: 77, bytes: 100, count: 9, ..OrderEntry::default() };
    rig.fake.write(1, 10, &stale);
    // The frontier moves past an entry of the next segment before this reader knows of that.
    rig.fake.chain(LOG, 2, 10);
    rig.fake.order(LOG, 51);
    assert_eq!(rig.run(), batches(LOG, 10..11));
}

#[test]
fn a_batch_that_was_overtaken_while_it_was_read_is_a_counted_gap() {
    let mut rig = Rig::new(ordered(40), true, From::Earliest);
    let mut all = Vec::new();
    let mut overtaken = false;
    for _ in 0..40 {
        let mut hit = false;
        rig.burst(|fake| {
            if !overtaken && fake.questions.contains(&50) {
                // Retention takes the first payload segment while its bytes travel.
                fake.raise_oldest(LOG, 16);
                fake.segment(50).fill(0xee);
                fake.refuse = Some(50);
                hit = true;
            }
        });
        overtaken |= hit;
        all.extend(rig.shown());
    }
    assert!(overtaken);
    // Nothing was seen before, so that reading begins at what is left.
    assert_eq!(all, batches(LOG, 16..40));

    let mut rig = Rig::new(ordered(40), true, From::Position(0));
    rig.places.expect_start(From::Position(0), None);
    rig.burst(|_| {});
    rig.fake.raise_oldest(LOG, 16);
    let all = rig.run();
    assert_eq!(all[0], Shown::Gap(32, 32));
    assert_eq!(all[1..], batches(LOG, 16..40));
}

#[test]
fn holes_are_told_of_and_nothing_is_read_for_them() {
    let mut fake = ordered(40);
    for index in [0, 5, 6, 7, 31, 32, 39] {
        let hole = OrderEntry {
            first_position: 2 * index,
            landed_ns: 1000 + index,
            segment: SegmentId::NONE.0,
            count: 2,
            flags: ENTRY_HOLE,
            ..OrderEntry::default()
        };
        fake.write(1 + (index / 32) as u32, index, &hole);
    }
    let mut rig = Rig::new(fake, true, From::Position(0));
    rig.places.expect_start(From::Position(0), None);
    let (mut told, mut holes) = (Vec::new(), Vec::new());
    for shown in rig.run() {
        match shown {
            Shown::Hole(missed, resume) => holes.extend((resume - missed)..resume),
            other => told.push(other),
        }
    }
    let all = [1..5, 8..31, 33..39].into_iter().flat_map(|range| batches(LOG, range));
    assert_eq!(told, all.collect::<Vec<_>>());
    let expected = [0..2, 10..16, 62..66, 78..80].into_iter().flatten();
    assert_eq!(holes, expected.collect::<Vec<_>>());
    assert!(rig.machine.is_caught_up() && !rig.machine.is_behind());
}

#[test]
fn a_gap_to_the_end_is_counted_without_anything_behind_it() {
    let mut rig = Rig::new(ordered(20), true, From::Earliest);
    assert_eq!(rig.run(), batches(LOG, 0..20));
    for _ in 20..25 {
        rig.fake.order(LOG, 51);
    }
    rig.fake.raise_oldest(LOG, 25);
    assert_eq!(rig.run(), [Shown::Gap(10, 50)]);
    assert!(rig.machine.is_caught_up());
    rig.fake.order(LOG, 51);
    assert_eq!(rig.run(), batches(LOG, 25..26));
}

#[test]
fn reading_starts_at_a_position_or_a_time() {
    for index in [0, 1, 15, 31, 32, 63, 90, 99] {
        for from in
            [From::Position(2 * index), From::Position(2 * index + 1), From::Time(1000 + index)]
        {
            let mut rig = Rig::new(ordered(100), true, from);
            assert_eq!(rig.run(), batches(LOG, index..100), "{from:?}");
        }
    }
    for from in [From::Latest, From::Position(200), From::Time(2000)] {
        let mut rig = Rig::new(ordered(100), true, from);
        assert_eq!(rig.run(), []);
        assert!(rig.machine.is_caught_up(), "{from:?}");
        rig.fake.chain(LOG, 40, 100);
        rig.fake.order(LOG, 58);
        let expected = batches(LOG, 100..101);
        assert_eq!(rig.run(), expected, "{from:?}");
    }
}

#[test]
fn a_reader_that_comes_back_goes_on_where_it_was() {
    let mut rig = Rig::new(ordered(50), true, From::Earliest);
    rig.places.shown(LOG, 29, 60);
    assert_eq!(rig.run(), batches(LOG, 30..50));
}

#[test]
fn logs_of_brokers_are_all_read_and_new_ones_are_found() {
    let mut fake = Fake::default();
    for log in [3, 7] {
        fake.chain(log, 1 + u32::from(log), 0);
        for _ in 0..5 {
            fake.order(log, 50 + u32::from(log));
        }
    }
    let mut rig = Rig::new(fake, false, From::Latest);
    assert_eq!(rig.run(), []);
    rig.fake.order(7, 57);
    rig.fake.chain(12, 20, 0);
    rig.fake.order(12, 62);
    rig.fake.order(12, 62);
    let mut all = rig.run();
    all.sort_by_key(|shown| match shown {
        Shown::Batch(log, index) => (*log, *index),
        _ => (0, 0),
    });
    // A log that begins after the subscription is all later than its start.
    assert_eq!(all, [Shown::Batch(7, 5), Shown::Batch(12, 0), Shown::Batch(12, 1)]);
}

#[test]
fn more_segments_than_slots_are_read_all_the_same() {
    let mut fake = Fake::default();
    for log in 0..24 {
        fake.chain(log, 1 + u32::from(log), 0);
        for _ in 0..20 {
            let index = fake.frontiers[&log].entries;
            fake.order(log, 100 + 2 * u32::from(log) + (index / 16) as u32);
        }
    }
    let mut rig = Rig::new(fake, false, From::Earliest);
    assert_eq!(rig.run().len(), 24 * 20);
}

#[test]
fn an_entry_that_makes_no_sense_is_told_and_passed_over() {
    let mut fake = ordered(3);
    let bad = |bytes, offset| OrderEntry {
        first_position: 2,
        count: 2,
        bytes,
        segment: 50,
        offset,
        ..OrderEntry::default()
    };
    for entry in [bad(10, 0), bad(5000, 0), bad(100, SEGMENT - 64), bad(100, u32::MAX)] {
        fake.write(1, 1, &entry);
        let fake = Fake {
            frontiers: fake.frontiers.clone(),
            chains: fake.chains.clone(),
            headers: fake.headers.clone(),
            segments: fake.segments.clone(),
            ..Fake::default()
        };
        let all = Rig::new(fake, true, From::Earliest).run();
        assert!(all.contains(&Shown::Bad(1)) && all.contains(&Shown::Batch(LOG, 2)), "{all:?}");
    }
}

#[test]
fn a_topic_whose_lines_are_anothers_is_gone() {
    let mut rig = Rig::new(ordered(3), true, From::Earliest);
    rig.run();
    rig.fake.chains.get_mut(&LOG).unwrap().topic = 0x205;
    rig.run();
    assert!(rig.machine.is_gone);
}

#[test]
fn a_log_that_came_back_from_disk_begins_where_its_chain_says_until_its_broker_lands() {
    for from in [From::Latest, From::Earliest, From::Position(60)] {
        let mut fake = Fake::default();
        let chain = ChainLine { topic: TOPIC.0.into(), oldest_index: 40, ..ChainLine::default() };
        fake.chains.insert(0, ChainLine { oldest_position: 80, ..chain });
        let mut rig = Rig::new(fake, false, from);
        assert_eq!(rig.run(), []);
        assert!(rig.machine.is_caught_up());
        // Its broker begins its line there, and lands.
        let topic = TOPIC.0.into();
        let line = FrontierLine { topic, entries: 40, position: 80, ..FrontierLine::default() };
        rig.fake.frontiers.insert(0, line);
        rig.fake.chains.remove(&0);
        rig.fake.chain(0, 1, 40);
        rig.fake.raise_oldest(0, 40);
        rig.fake.order(0, 50);
        rig.fake.order(0, 50);
        assert_eq!(rig.run(), batches(0, 40..42));
    }
}
