//! Each kind of damage is found by the check that is there for it.

use landfall_layout::batch::BatchPreamble;
use landfall_layout::geometry::Geometry;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{ENTRY_HOLE, OrderEntry};
use landfall_layout::pool::Term;
use landfall_layout::segment::{SegmentKind, What};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::{Memory, Pool};
use landfall_verify::Severity::{self, Error, Note, Warning};
use landfall_verify_fuzz::sample::{OWN, STREAM, STRONG};
use landfall_verify_fuzz::{Change, hold, sample, with_changes};

/// A kind of damage.
struct Case {
    /// What is done.
    name: &'static str,
    /// How.
    changes: Vec<Change>,
    /// Which check has to find it, how bad it is, and a word of the sentence.
    found: (&'static str, Severity, &'static str),
}

struct Cases<'p> {
    pool: &'p Pool,
    cases: Vec<Case>,
}

fn broker(number: usize) -> BrokerId {
    BrokerId::new(number).unwrap()
}

/// The segment of that use, the `nth` of them.
fn segment(pool: &Pool, kind: SegmentKind, topic: TopicId, nth: usize) -> u32 {
    let is = |segment: &u32| {
        let header = pool.segment_header(SegmentId(*segment)).unwrap();
        let what = What::unpack(header.what).unwrap();
        what.kind == kind && what.topic == topic
    };
    (0..pool.geometry().segments()).filter(is).nth(nth).unwrap()
}

/// What makes the entry at `at`, commit word apart, say `entry`.
fn changed(at: u64, entry: &OrderEntry) -> Vec<Change> {
    let words = entry.to_words().into_iter().take(7);
    (0..).map(|word| at + 8 * word).zip(words).collect()
}

impl Cases<'_> {
    fn geometry(&self) -> &Geometry {
        self.pool.geometry()
    }

    fn add(
        &mut self,
        name: &'static str,
        changes: impl Into<Vec<Change>>,
        found: (&'static str, Severity, &'static str),
    ) {
        self.cases.push(Case { name, changes: changes.into(), found });
    }

    fn word(&self, at: u64) -> u64 {
        self.pool.load_relaxed(at)
    }

    fn entry(&self, at: u64) -> OrderEntry {
        OrderEntry::from_words(self.pool.load_words(at))
    }

    fn header(&self, segment: u32) -> u64 {
        self.geometry().segment_header(SegmentId(segment)).unwrap()
    }

    fn start(&self, segment: u32) -> u64 {
        self.geometry().segment(SegmentId(segment)).unwrap()
    }

    fn topics(&mut self) {
        let at = self.geometry().topic(STRONG.slot());
        let version = self.word(at);
        let state = self.word(at + 8);
        self.add("odd version", [(at, version + 1)], ("topic", Warning, "odd"));
        self.add("no state", [(at + 8, state | 0x70 << 32)], ("topic", Error, "state"));
        self.add("no order", [(at + 8, state | 0x70 << 40)], ("topic", Error, "order"));
        self.add("another's id", [(at + 8, state ^ 1)], ("topic", Error, "slot 1"));
        self.add("too many copies", [(at + 8, state | 9 << 56)], ("topic", Error, "replicas"));
        self.add("a ring that cannot be", [(at + 16, 6 << 32 | 17)], ("topic", Error, "slots"));
        self.add("no name", [(at + 16, 16)], ("topic", Error, "name"));
        let name = self.word(self.geometry().topic(OWN.slot()) + 56);
        let size = 3 << 32 | 16;
        let twice = [(at + 16, size), (at + 56, name)];
        self.add("two of a name", twice, ("topic", Error, "that name too"));
        self.add("gone from the table", [(at + 8, STRONG.0.into())], ("leak", Error, "no topic"));
    }

    fn segments(&mut self) {
        let payload = segment(self.pool, SegmentKind::Payload, STRONG, 0);
        let log = segment(self.pool, SegmentKind::OrderLog, STRONG, 0);
        let ring = segment(self.pool, SegmentKind::Ring, TopicId(0), 0);
        let (at, log_at, ring_at) = (self.header(payload), self.header(log), self.header(ring));
        let what = self.word(at);
        let generation = self.word(log_at + 8);
        self.add("no use", [(at, what | 0x40)], ("segment", Error, "no use"));
        self.add("idle in use", [(at, what & !0xff00)], ("segment", Error, "idle"));
        self.add("nobody's", [(at, what | 0xff << 16)], ("segment", Error, "owner 255"));
        self.add("of a later epoch", [(at + 16, 99)], ("segment", Error, "epoch 99"));
        self.add("used twice", [(at + 8, generation)], ("segment", Error, "generation"));
        self.add("never granted", [(at + 8, 0)], ("segment", Error, "0 as generation"));
        self.add("with a page that failed", [(at + 56, 7)], ("lost", Warning, "at 7 ns"));
        let free = self.header(self.geometry().segments() - 1);
        self.add("free with remains", [(free, 0x100)], ("segment", Warning, "free"));
        let owner = self.word(log_at) & !(0xff << 16);
        self.add("a broker's in the one log", [(log_at, owner)], ("segment", Error, "owner 0"));
        let of_own = self.word(ring_at) & 0xffff_ffff | u64::from(OWN.0) << 32;
        self.add("a ring without order", [(ring_at, of_own)], ("segment", Error, "order broker"));
        let stray = self.geometry().segments() - 1;
        let stray_at = self.header(stray);
        let of_log = [(stray_at + 8, 999), (stray_at + 16, 1), (stray_at, self.word(log_at))];
        self.add("a log segment in no chain", of_log, ("leak", Warning, "nothing leads"));
    }

    fn chains(&mut self) {
        let at = self.geometry().chain(STRONG.slot(), SEQUENCED_LOG);
        let first = segment(self.pool, SegmentKind::OrderLog, STRONG, 0);
        let second = segment(self.pool, SegmentKind::OrderLog, STRONG, 1);
        let payload = segment(self.pool, SegmentKind::Payload, STRONG, 0);
        let (first_at, second_at) = (self.header(first), self.header(second));
        let third = segment(self.pool, SegmentKind::OrderLog, STRONG, 2);
        let third_at = self.header(third);
        let ends = u64::from(first) | u64::from(third) << 32;
        assert_eq!(self.word(at + 16), ends);
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let none = u32::MAX;
        let head = [(at + 16, pair(payload, third))];
        self.add("a head that is payload", head, ("chain", Error, "head"));
        self.add("no head", [(at + 16, pair(none, third))], ("chain", Error, "head"));
        self.add("a head beyond the pool", [(at + 16, pair(5000, third))], ("chain", Error, "not"));
        self.add("a tail elsewhere", [(at + 16, pair(first, payload))], ("chain", Error, "tail"));
        self.add("a tail that is old", [(at + 16, pair(first, first))], ("chain", Warning, "tail"));
        self.add("a loop", [(third_at + 24, pair(second, first))], ("chain", Error, "back"));
        let cut = [(first_at + 24, pair(none, none)), (at + 16, pair(first, first))];
        self.add("a cut", cut, ("entry", Error, "commit word is 0"));
        self.add("what was cut off", cut, ("leak", Warning, "nothing leads"));
        let wrong = [(first_at + 24, pair(none, payload))];
        self.add("a link into payload", wrong, ("chain", Error, "leads to"));
        let link = [(second_at + 24, pair(payload, third))];
        self.add("a wrong way back", link, ("chain", Warning, "before it"));
        self.add("a base that falls", [(second_at + 32, 0)], ("chain", Error, "begins"));
        self.add("a base too far", [(second_at + 32, 1 << 40)], ("chain", Error, "begins"));
        self.add("a head too late", [(first_at + 32, 5)], ("chain", Error, "oldest"));
        self.add("oldest too far", [(at, 1000)], ("chain", Error, "oldest entry is 1000"));
        self.add("another position", [(at + 8, 7)], ("chain", Warning, "position"));
        self.add("a chain of nobody", [(at + 24, 0)], ("chain", Error, "nobody finds"));
        let own = self.geometry().chain(OWN.slot(), 7);
        self.add("a chain never had", [(own + 24, 0xbad00)], ("chain", Error, "never had"));
    }

    fn frontiers(&mut self) {
        let at = self.geometry().frontier(STRONG.slot(), SEQUENCED_LOG);
        let words: [u64; 5] = self.pool.load_words(at);
        self.add("further than the log", [(at, words[0] + 9)], ("entry", Error, "commit"));
        self.add("far beyond", [(at, 1 << 50)], ("frontier", Error, "segments end"));
        let back = [(at, words[0] - 1), (at + 8, words[1] - 3)];
        self.add("gone back", back, ("session", Error, "missing"));
        self.add("another position", [(at + 8, words[1] + 1)], ("frontier", Error, "position"));
        self.add("half moved", [(at, words[0] - 1)], ("frontier", Warning, "died while"));
        let written = at + 40;
        self.add("less written", [(written, 30)], ("frontier", Error, "30 written"));
        self.add("more written", [(written, 38)], ("entry", Error, "it was written"));
        self.add("too much written", [(written, 1 << 40)], ("frontier", Error, "segments end"));
        self.add("other bytes", [(at + 16, words[2] + 1)], ("frontier", Warning, "bytes"));
        self.add("nobody's", [(at + 32, 0)], ("frontier", Error, "reads as empty"));
        self.add("another's", [(at + 32, words[4] ^ 1 << 33)], ("frontier", Error, "empty"));
        let landed = self.geometry().frontier(STRONG.slot(), 0);
        self.add("more than landed", [(landed, 21)], ("frontier", Error, "21 slots"));
        self.add("less than consumed", [(landed, 2)], ("frontier", Note, "consumed"));
    }

    fn entries(&mut self) {
        let log = segment(self.pool, SegmentKind::OrderLog, STRONG, 1);
        // Entry 12, of broker 0: the second segment begins at entry 10.
        let at = self.start(log) + 2 * 64;
        let word = |cases: &Self, i: u64| cases.word(at + 8 * i);
        assert_eq!(word(self, 7), 13);
        self.add("commit of another", [(at + 56, 12)], ("entry", Error, "commit"));
        self.add("a gap", [(at, word(self, 0) + 1)], ("entry", Error, "first position"));
        self.add("time goes back", [(at + 24, 1)], ("entry", Error, "landed"));
        let it = self.entry(at);
        let no_broker = changed(at, &OrderEntry { broker: 255, ..it });
        self.add("no broker", no_broker, ("entry", Error, "broker 255"));
        let broker = it.broker ^ 1;
        let other = changed(at, &OrderEntry { broker, ..it });
        self.add("another broker", other, ("entry", Error, "payload"));
        let none = changed(at, &OrderEntry { count: 0, ..it });
        self.add("no messages", none, ("entry", Error, "no messages"));
        let few = changed(at, &OrderEntry { bytes: 10, ..it });
        self.add("no bytes", few, ("entry", Error, "10 bytes"));
        let many = changed(at, &OrderEntry { bytes: 0xff_ffff, ..it });
        self.add("too many", many, ("entry", Error, "bytes"));
        let hole = changed(at, &OrderEntry { flags: ENTRY_HOLE, ..it });
        self.add("a hole", hole, ("entry", Error, "order token"));
        let last = changed(at, &OrderEntry { offset: 0x1f_ffc0, ..it });
        self.add("past the end", last, ("entry", Error, "past the end"));
        let into = |segment| changed(at, &OrderEntry { segment, ..it });
        let free = self.geometry().segments() - 1;
        self.add("in a free segment", into(free), ("entry", Error, "free"));
        self.add("in no segment", into(70_000), ("entry", Error, "has not"));
        self.add("in a log", into(log), ("entry", Error, "of log"));
        self.add("another client", [(at + 8, 77)], ("batch", Error, "client 1"));
        self.add("another epoch", [(at + 32, word(self, 4) + 1)], ("batch", Error, "epoch"));
        self.add("another sequence", [(at + 16, 99)], ("batch", Error, "sequence"));
        let count = changed(at, &OrderEntry { count: it.count + 1, ..it });
        self.add("another count", count, ("batch", Error, "messages"));
        let checksum = changed(at, &OrderEntry { checksum: it.checksum ^ 1, ..it });
        self.add("another checksum", checksum, ("batch", Error, "has checksum"));
        let own = segment(self.pool, SegmentKind::OrderLog, OWN, 0);
        let own_at = self.start(own);
        let other = changed(own_at, &OrderEntry { broker: 1, ..self.entry(own_at) });
        self.add("in another's log", other, ("entry", Error, "log of"));
        let ring = self.word(own_at + 32) + (7 << 32);
        self.add("another index", [(own_at + 32, ring)], ("entry", Error, "index says 7"));
    }

    fn batches(&mut self) {
        let payload = segment(self.pool, SegmentKind::Payload, STRONG, 0);
        let at = self.start(payload);
        let flip = |cases: &Self, word: u64| (at + word, cases.word(at + word) ^ 1 << 20);
        self.add("no magic", [flip(self, 0)], ("batch", Error, "starts with"));
        self.add("a preamble's word", [flip(self, 24)], ("batch", Error, "preamble claims"));
        self.add("a payload's word", [flip(self, 64 + 16)], ("batch", Error, "payload checksum"));
        let anew = BatchPreamble::from_words(self.pool.load_words(at));
        let anew = BatchPreamble { sealed_ns: anew.sealed_ns + 1, ..anew }.seal().to_words();
        let anew = [(at + 32, anew[4]), (at + 56, anew[7])];
        self.add("sealed anew", anew, ("batch", Error, "has checksum"));
        let log = segment(self.pool, SegmentKind::OrderLog, STRONG, 0);
        let (first, second) = (self.start(log), self.start(log) + 64);
        let place = self.word(first + 40);
        self.add("two in one place", [(second + 40, place)], ("overlap", Error, "overlap"));
    }

    fn orders(&mut self) {
        // Entries 3 and 4 of the strong log, whole: the second named like the first, and the
        // first like the one after it.
        let log = segment(self.pool, SegmentKind::OrderLog, STRONG, 0);
        let entry = |index: u64| self.start(log) + index * 64;
        let named = |to: u64, from: u64| -> Vec<Change> {
            let fields = [8, 16, 32, 40, 48].map(|i| (entry(to) + i, self.word(entry(from) + i)));
            fields.to_vec()
        };
        let (again, skipped) = (named(4, 3), named(3, 5));
        self.add("once more", again, ("sequence", Error, "behind"));
        self.add("one left out", skipped, ("sequence", Error, "missing"));
        let log = segment(self.pool, SegmentKind::OrderLog, STREAM, 0);
        let entry = |index: u64| self.start(log) + index * 64;
        let again = [8, 16, 32, 40, 48].map(|i| (entry(1) + i, self.word(entry(0) + i)));
        self.add("a slot twice", again.to_vec(), ("sequence", Error, "same ring"));
        self.add("a stream's batch twice", again, ("sequence", Error, "comes behind its"));
    }

    fn rings(&mut self) {
        let line = self.geometry().ring(STRONG.slot(), broker(0));
        let consumed = self.geometry().consumed(STRONG.slot(), broker(0));
        let ring = segment(self.pool, SegmentKind::Ring, TopicId(0), 0);
        let payload = segment(self.pool, SegmentKind::Payload, STRONG, 0);
        let slots = 16_u64 << 32;
        let at = |index: u64| self.start(ring) + index % 16 * 128;
        // Slots 18 and 19 wait.
        let (waits, done) = (at(18), at(17));
        self.add("a ring of nobody", [(line, 0x7777)], ("ring", Error, "never had"));
        let elsewhere = slots | u64::from(payload);
        self.add("a ring in payload", [(line + 8, elsewhere)], ("ring", Error, "payload"));
        let more = 32 << 32 | u64::from(ring);
        self.add("another size", [(line + 8, more)], ("ring", Error, "32 slots"));
        let odd = 17 << 32 | u64::from(ring);
        self.add("no size", [(line + 8, odd)], ("ring", Error, "17 slots"));
        self.add("another use", [(line + 16, 500)], ("ring", Error, "use 500"));
        self.add("a ring lost", [(line, 0)], ("leak", Warning, "nothing leads"));
        self.add("consumed for nobody", [(consumed, 1)], ("ring", Error, "consumed line"));
        self.add("consumed too far", [(consumed + 8, 40)], ("slot", Error, "commit"));
        self.add("consumed for ever", [(consumed + 8, u64::MAX)], ("ring", Error, "through"));
        self.add("consumed too little", [(consumed + 8, 1)], ("slot", Error, "commit"));
        self.add("a slot torn", [(waits + 120, 500)], ("slot", Error, "commit"));
        self.add("an old slot torn", [(done + 120, 1)], ("slot", Error, "commit"));
        self.add("another topic's", [(waits + 48, 5)], ("slot", Error, "topic 0x5"));
        self.add("an old use", [(waits + 56, 600)], ("entry", Error, "use 600"));
        self.add("a slot elsewhere", [(waits + 24, 64 << 32 | 3)], ("entry", Error, "batch"));
        self.add("no session", [(waits + 16, 1 | 9999 << 32)], ("slot", Error, "session 9999"));
        self.add("a slot's client", [(waits, 5)], ("batch", Error, "client"));
        let shape = self.word(waits + 32) | 2 << 48;
        self.add("flags", [(waits + 32, shape)], ("slot", Error, "flags"));
    }

    fn sessions(&mut self) {
        let line = |index: u32| self.geometry().session(index).unwrap();
        let (first, second, free) = (line(0), line(1), line(9));
        self.add("behind the log", [(first + 16, 3)], ("session", Warning, "expects batch 3"));
        self.add("ahead of the log", [(first + 16, 30)], ("session", Error, "missing"));
        self.add("of nobody's batches", [(first + 8, 99)], ("session", Error, "no batch"));
        let standing = self.word(first);
        self.add("no state", [(first, standing | 8 << 32)], ("session", Error, "state"));
        self.add("lost", [(first, 0)], ("session", Error, "free"));
        self.add("epoch 0", [(first, standing & !0xffff_ffff)], ("session", Error, "epoch 0"));
        self.add("two of a client", [(second + 8, 1)], ("session", Error, "line 0"));
        self.add("of no topic", [(first + 24, 0x999)], ("session", Warning, "0x999"));
        self.add("just being opened", [(free + 8, 50)], ("session", Warning, "getting"));
    }

    fn head(&mut self) {
        let line = self.geometry().broker_line(broker(1));
        self.add("a state", [(line + 24, 9)], ("broker", Error, "state 9"));
        self.add("an epoch to come", [(line + 16, 9)], ("broker", Error, "epoch 9"));
        self.add("nobody's process", [(line, 0)], ("broker", Warning, "never taken"));
        let address = self.geometry().broker_address(broker(1));
        self.add("an address", [(address, u64::MAX)], ("broker", Warning, "addresses"));
        let ring = self.geometry().commands(broker(0));
        let taken = self.geometry().commands_taken(broker(0));
        // 259 lines were taken and one waits, which lies in place 3.
        let waits = ring + 3 * 64;
        self.add("no command", [(waits, 99)], ("command", Error, "nothing"));
        self.add("a torn line", [(waits + 56, 3)], ("command", Error, "commit"));
        let requests = self.geometry().requests_taken(broker(0));
        self.add("taken too few", [(requests, 2)], ("command", Error, "commit"));
        self.add("taken for ever", [(taken, u64::MAX)], ("command", Error, "taken"));
        let leader = self.geometry().leader_line(self.pool.leader_slot());
        let other = self.geometry().leader_line(0);
        let term = self.word(leader);
        let claim = |epoch| Term { epoch, serves: false }.pack();
        let nobody = [(leader, claim(3)), (other, claim(2))];
        self.add("nobody serves", nobody, ("leader", Error, "nobody"));
        self.add("no term", [(other, term ^ 1 << 7)], ("leader", Error, "is no term"));
        self.add("one epoch twice", [(other, term)], ("leader", Error, "slot 0's too"));
        self.add("an epoch claimed", [(other, claim(9))], ("leader", Note, "claims epoch 9"));
        let zero = Term { epoch: 0, serves: true }.pack();
        self.add("epoch 0", [(other, zero)], ("leader", Error, "epoch 0"));
        self.add("the leader before", [(leader, 0)], ("broker", Error, "epoch 3"));
        let error = self.geometry().errors(2);
        self.add("a sentence", [(error, 1), (error + 24, 900)], ("errors", Note, "900 bytes"));
        let replica = self.geometry().replica(STRONG.slot(), broker(1), 2);
        let of = u64::from(STRONG.0);
        let ahead = [(replica, 5), (replica + 8, 4), (replica + 32, of)];
        self.add("durable, not written", ahead, ("replica", Error, "written to 4"));
        let beyond = [(replica, 5), (replica + 8, 500), (replica + 32, of)];
        self.add("more than there is", beyond, ("replica", Error, "500 entries"));
        self.add(
            "a replica's state",
            [(replica + 32, of), (replica + 40, 9)],
            ("replica", Error, "9"),
        );
        let full = [(replica + 32, of), (replica + 40, 3 | 28 << 32)];
        self.add("a full disk", full, ("replica", Note, "full"));
        self.add("whose replica", [(replica + 32, 0x1234_5678)], ("replica", Error, "never had"));
    }
}

#[test]
fn each_kind_of_damage_is_found_by_its_check() {
    let pool = sample::pool();
    let mut cases = Cases { pool: &pool, cases: Vec::new() };
    cases.topics();
    cases.segments();
    cases.chains();
    cases.frontiers();
    cases.entries();
    cases.batches();
    cases.orders();
    cases.rings();
    cases.sessions();
    cases.head();
    let mut missed = Vec::new();
    for Case { name, changes, found: (check, severity, word) } in &cases.cases {
        let findings = with_changes(&pool, changes);
        hold(&pool, &findings);
        let is = |finding: &&landfall_verify::Finding| {
            finding.check == *check && finding.severity == *severity && finding.found.contains(word)
        };
        if findings.kept().iter().find(is).is_none() {
            let all: Vec<String> = findings.kept().iter().map(ToString::to_string).collect();
            missed.push(format!("{name}: no {check} with {word:?} in\n  {}", all.join("\n  ")));
        }
    }
    assert!(missed.is_empty(), "{} of {}:\n{}", missed.len(), cases.cases.len(), missed.join("\n"));
    assert!(cases.cases.len() >= 100, "{}", cases.cases.len());
    let after = landfall_verify::look(&pool).findings;
    assert!(after.is_empty(), "damage was left behind: {:?}", after.kept());
}
