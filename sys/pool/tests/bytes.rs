//! Lines, counters, errors and bytes over a real mapping, in both coherence modes: where lines are
//! written back and dropped the same is read as where they are not.

use std::io::Write;
use std::os::unix::net::UnixStream;

use landfall_layout::counters::{Counter, Stage};
use landfall_layout::limits::ERRORS_MAX;
use landfall_layout::order::FrontierLine;
use landfall_layout::pool::{BrokerAddress, BrokerLine, Coherence, LeaderLine, Term};
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::slot::{ConsumedLine, RingLine, RingSlot};
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::counters::{Counters, ErrorLog};
use landfall_pool::hold::{EntryName, Hold};
use landfall_pool::shared::{Piece, send};
use landfall_pool::{Memory, Pool, channel};

mod common;
use common::pool;

fn both(check: impl Fn(&Pool)) {
    for coherence in [Coherence::Coherent, Coherence::Flush] {
        let pool = pool(coherence);
        assert_eq!(pool.flushes(), coherence == Coherence::Flush);
        check(&pool);
    }
}

fn copy(pool: &Pool, hold: &Hold, offset: u32, bytes: u32) -> Vec<u8> {
    let mut copy = Vec::new();
    pool.shared(hold, offset, bytes).expect("in the segment").append_to(&mut copy);
    copy
}

fn entry(id: TopicId, name: &str) -> TopicEntry {
    let mut bytes = [0; 120];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    TopicEntry {
        version: 0,
        id: id.0,
        state: TopicState::Live as u8,
        order: Order::Strong.raw(),
        flags: 0,
        replicas: 1,
        ring_slots: 16,
        name_bytes: name.len() as u32,
        retention_bytes: 0,
        retention_ns: 0,
        created_ns: 1,
        session_lease_ns: 2,
        name: bytes,
        replica_brokers: 0,
        reserved8: [0; 7],
        disk_bytes: 0,
        disk_ns: 0,
        deleted_ns: 0,
        life: 0,
        begin_index: 0,
        begin_position: 0,
        reserved: [0; 3],
    }
}

#[test]
fn single_lines_come_back() {
    both(|pool| {
        let broker = BrokerId::new(31).expect("the last");
        let term = Term { epoch: 3, serves: false }.pack();
        assert!(pool.claim(1, &LeaderLine { term, pid: 4, ..LeaderLine::default() }));
        assert_eq!((pool.serving(), pool.highest_epoch()), (None, 3), "it only claims");
        assert!(pool.serve(3));
        assert_eq!((pool.leader_line(1).pid, pool.epoch_number()), (4, 3));
        pool.beat_leader(6);
        assert_eq!(pool.leader_heartbeat(), 6);

        assert_eq!(pool.known_brokers().count(), 0);
        let line = BrokerLine { incarnation: 9, pid: 10, ..BrokerLine::default() };
        let address = BrokerAddress::new("127.0.0.1:1", "@b", "").expect("short");
        pool.set_broker(broker, &line, &address);
        pool.beat_broker(broker, 11, 12, 1);
        let line = pool.broker(broker);
        assert_eq!(
            (line.incarnation, line.heartbeat_ns, line.epoch_seen, line.state),
            (9, 11, 12, 1)
        );
        assert_eq!(pool.broker_address(broker).tcp(), "127.0.0.1:1");
        assert_eq!(pool.broker_address(broker).unix(), "@b");
        assert_eq!(pool.known_brokers().collect::<Vec<_>>(), [broker]);

        let standing = Standing { epoch: 2, state: SessionState::Active };
        let line = SessionLine { standing: standing.pack(), client: 7, ..SessionLine::default() };
        pool.set_session(15, &line);
        pool.set_session_next(15, 99);
        assert_eq!(pool.session_standing(15), Some(standing));
        assert_eq!(pool.session(15).map(|line| (line.client, line.next_seq)), Some((7, 99)));
        assert!(pool.session(16).is_none() && pool.session_standing(u32::MAX).is_none());
        assert!(pool.segment_header(SegmentId(u32::MAX)).is_none());
        assert_eq!(pool.segment_generation(u32::MAX), 0);
    });
}

#[test]
fn lines_of_another_topic_are_not_believed() {
    both(|pool| {
        let (old, new) = (TopicId::new(3, 1), TopicId::new(3, 2));
        let broker = BrokerId::new(0).expect("the first");
        pool.start_frontier(old, 32);
        let line =
            FrontierLine { entries: 5, position: 6, bytes: 7, at_ns: 8, ..FrontierLine::default() };
        pool.advance_frontier(old, 32, &line);
        assert_eq!(pool.frontier(old, 32), FrontierLine { topic: old.0.into(), ..line });
        assert_eq!(pool.frontier(new, 32).entries, 0);
        pool.start_frontier(new, 32);
        assert_eq!(pool.frontier(old, 32).entries, 0);
        assert!(pool.chain(new, 32).is_none());

        let ring = RingLine { topic: old.0.into(), segment: 1, slots: 16, ..RingLine::default() };
        pool.set_ring(3, broker, &ring);
        pool.set_consumed(3, broker, &ConsumedLine { through: 4, ..ConsumedLine::default() });
        let view = pool.slot_ring(old, broker).expect("set above");
        assert_eq!((view.slots, view.consumed(pool)), (16, 4));
        assert!(pool.ring(new, broker).is_none());
        for (segment, slots) in [(1, 0), (1, 3), (1, 1 << 31), (u32::MAX, 16), (1, 32_768)] {
            pool.set_ring(3, broker, &RingLine { segment, slots, ..ring });
            assert!(pool.slot_ring(old, broker).is_none(), "{slots} slots in segment {segment}");
        }
        let bytes = 16 * RingSlot::BYTES;
        for (offset, is_one) in [(bytes, true), (64, false), (u64::MAX - bytes + 1, false)] {
            pool.set_ring(3, broker, &RingLine { offset, ..ring });
            let found = pool.slot_ring(old, broker).map(|found| found.at - view.at);
            assert_eq!(found, is_one.then_some(offset));
        }
    });
}

#[test]
fn topics_are_found_whole_or_not_at_all() {
    both(|pool| {
        let id = TopicId::new(255, 4);
        assert!(pool.topic_by_name("a").is_none());
        pool.set_topic(&entry(id, "a"));
        pool.set_topic(&entry(TopicId::new(0, 1), "b"));
        assert_eq!(pool.topic_by_name("a").map(|entry| entry.id), Some(id.0));
        assert!(pool.topic(TopicId::new(255, 3)).is_none(), "another generation");
        let at = pool.geometry().topic(255);
        let version = pool.load(at);
        // A control that died in mid-change left the version odd; the next one mends it.
        pool.store_release(at, version + 1);
        assert!(pool.topic_in_slot(255).is_none() && pool.topic_by_name("a").is_none());
        pool.set_topic(&entry(id, "c"));
        assert_eq!(pool.topic(id).map(|entry| entry.name().to_owned()), Some("c".into()));
        pool.set_topic(&TopicEntry { state: TopicState::Deleting as u8, ..entry(id, "c") });
        assert!(pool.topic(id).is_none() && pool.topic_by_name("c").is_none());
        assert_eq!(pool.topic_in_slot(255).map(|e| e.state()), Some(TopicState::Deleting));
    });
}

#[test]
fn counters_add_up_and_histograms_count() {
    both(|pool| {
        let (mine, other) = (Counters::new(pool, 3), Counters::new(pool, 4));
        mine.add(pool, Counter::BatchesLanded, 2);
        mine.add(pool, Counter::BatchesLanded, u64::MAX);
        mine.set(pool, Counter::Held, 7);
        assert_eq!(mine.get(pool, Counter::BatchesLanded), 1, "counters wrap and never stop");
        assert_eq!(mine.get(pool, Counter::Held), 7);
        assert_eq!(other.get(pool, Counter::BatchesLanded), 0);
        for ns in [0, 1, 2, 3, 1024, u64::MAX] {
            mine.latency(pool, Stage::LandedToOrdered, ns);
        }
        let first = Stage::LandedToOrdered.first_counter();
        assert_eq!(mine.word(pool, first), 6);
        let bucket = |i: usize| mine.word(pool, first + 2 + i);
        assert_eq!([bucket(0), bucket(1), bucket(10), bucket(39)], [2, 2, 1, 1]);
    });
}

#[test]
fn errors_are_kept_once_each() {
    both(|pool| {
        let log = ErrorLog::new(pool, 32);
        log.note(pool, 10, "first");
        log.note(pool, 20, "second");
        log.note(pool, 30, "first");
        let seen = |log: &ErrorLog| -> Vec<(String, u64)> {
            let entries = log.entries(pool).into_iter().filter(|entry| entry.count > 0);
            entries.map(|entry| (entry.text().to_owned(), entry.count)).collect()
        };
        assert_eq!(seen(&log), [("first".into(), 2), ("second".into(), 1)]);
        let first = log.entries(pool)[0];
        assert_eq!((first.first_ns, first.last_ns), (10, 30));
        // With no room left the one not seen for longest makes place.
        let most = ERRORS_MAX - ERRORS_MAX / 4;
        for n in 0..most as u64 - 1 {
            log.note(pool, 40 + n, &format!("error {n}"));
        }
        let now = seen(&log);
        assert_eq!(now.len(), most);
        assert!(now.iter().any(|(text, _)| text == "first"), "seen at 30");
        assert!(!now.iter().any(|(text, _)| text == "second"), "seen at 20");
        // A long sentence is cut between characters, says so, and is the same sentence when it
        // comes again. Of one that is longer than two entries the middle is left out.
        let long = "é".repeat(300);
        log.note(pool, 1_000, &long);
        log.note(pool, 1_001, &long);
        let both = ["é".repeat(110) + " ...", "... ".to_owned() + &"é".repeat(110)];
        let all = seen(&log);
        assert!(both.iter().all(|part| all.contains(&(part.clone(), 2))), "{all:?}");
        // All of another one is in both, in whole words.
        let about = "/data/broker-0/orders/1700000000000000000/b0/00000000000000000000.replica";
        let why = "of which nothing holds ".repeat(9);
        let whole = format!("{about}: it is a file {why}; remove it, and start it again");
        log.note(pool, 1_002, &whole);
        let of = |is_it: &dyn Fn(&str) -> bool| {
            let all = log.entries(pool).into_iter().filter(|entry| entry.last_ns == 1_002);
            let mut all = all.map(|entry| entry.text().to_owned());
            all.find(|text| is_it(text)).expect("noted")
        };
        let head = of(&|text| text.starts_with(about) && text.ends_with(" ..."));
        let rest = of(&|text| text.starts_with("... ") && text.ends_with("start it again"));
        assert_eq!(format!("{} {}", &head[..head.len() - 4], &rest[4..]), whole);
        // One that just fits is whole.
        let fits = "e".repeat(224);
        log.note(pool, 1_003, &fits);
        assert!(seen(&log).contains(&(fits, 1)));
        assert!(ErrorLog::new(pool, 0).entries(pool).iter().all(|entry| entry.count == 0));
    });
}

#[test]
fn an_error_outlives_whatever_clients_cause() {
    both(|pool| {
        let log = ErrorLog::new(pool, 32);
        log.note(pool, 1, "the disk hangs");
        for n in 0..10_000 {
            log.note_client(pool, 2 + n, &format!("refused (NoTopic): there is no topic {n}"));
        }
        let texts = || -> Vec<String> {
            let entries = log.entries(pool).into_iter().filter(|entry| entry.count > 0);
            entries.map(|entry| entry.text().to_owned()).collect()
        };
        let kept = texts();
        assert_eq!(kept[0], "the disk hangs");
        assert_eq!(kept.len(), 1 + ERRORS_MAX / 4);
        assert!(kept[1..].contains(&"refused (NoTopic): there is no topic 9999".to_owned()));
        // Nor do errors take the room of what clients cause.
        for n in 0..100 {
            log.note(pool, 20_000 + n, &format!("error {n}"));
        }
        assert_eq!(texts().iter().filter(|text| text.starts_with("refused")).count(), 8);
    });
}

#[test]
fn bytes_outside_the_mapping_are_refused() {
    both(|pool| {
        let end = pool.bytes();
        for (at, bytes) in [(end, 1), (end - 1, 2), (u64::MAX, 1), (u64::MAX - 1, 8)] {
            let error = pool.write(at, &vec![0; bytes]).expect_err("outside");
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&end.to_string()), "{error}");
        }
        assert!(pool.write(end, &[]).is_ok(), "nothing fits anywhere");
        let at = pool.geometry().head_bytes();
        assert!(pool.stream(at + 8, b"x").is_err(), "streams begin on a line");
        assert!(pool.stream(end - 64, &[0; 65]).is_err());
        let hold = Hold::by_broker(1);
        let whole = pool.geometry().segment_bytes() as u32;
        assert!(pool.shared(&hold, 0, whole).is_some());
        assert!(pool.shared(&hold, 1, whole).is_none());
        assert!(pool.shared(&hold, u32::MAX, u32::MAX).is_none());
        assert!(pool.shared(&Hold::by_broker(u32::MAX), 0, 1).is_none());
    });
}

#[test]
fn bytes_go_in_by_every_way_and_come_out() {
    both(|pool| {
        let at = pool.at(1, 0, 8192).expect("in the segment");
        let bytes: Vec<u8> = (0..4001_u32).map(|i| (i % 251) as u8).collect();
        let hold = Hold::by_broker(1);
        pool.write(at + 3, &bytes).expect("inside");
        assert_eq!(copy(pool, &hold, 3, 4001), bytes);
        pool.stream(at + 64, &bytes).expect("inside");
        landfall_pool::stream::stream_fence();
        pool.publish(at, 8192);
        pool.refresh(at, 8192);
        assert_eq!(copy(pool, &hold, 64, 4001), bytes);

        let (mut from, to) = UnixStream::pair().expect("a pair");
        let none = pool.recv(&to, at, 10).expect_err("nothing there");
        assert_eq!(none.kind(), std::io::ErrorKind::WouldBlock);
        from.write_all(&bytes).expect("sent");
        let mut got = 0;
        while got < bytes.len() {
            got += pool.recv(&to, at + 128 + got as u64, bytes.len() - got).expect("received");
        }
        assert_eq!(copy(pool, &hold, 128, 4001), bytes);
        assert!(pool.recv(&to, pool.bytes(), 1).is_err());
        let lent = pool.shared(&hold, 128, 4001).expect("inside");
        let sent = send(&to, &[Piece::new(b"head"), lent.piece()]).expect("sent");
        assert_eq!(sent, 4005);
        drop(from);
        let gone = send(&to, &[Piece::new(b"x")]).expect_err("nobody there");
        assert_eq!(gone.kind(), std::io::ErrorKind::BrokenPipe, "an error and no signal");
    });
}

#[test]
fn a_hold_is_refused_once_retention_was_first() {
    both(|pool| {
        let topic = TopicId::new(1, 1);
        let (channel, _fd) = channel::create().expect("a channel");
        let name = |index| EntryName { topic, log: 32, index };
        let line = landfall_layout::order::ChainLine {
            oldest_index: 5,
            topic: topic.0.into(),
            ..Default::default()
        };
        assert_eq!(channel::HOLD.take(&channel, pool, name(5), 7), None, "no such log yet");
        pool.set_chain(topic, 32, &line);
        assert_eq!(channel::HOLD.take(&channel, pool, name(4), 7), None);
        assert_eq!(channel::HOLD.held(&channel), None, "a refused hold holds nothing");
        let hold = channel::HOLD.take(&channel, pool, name(5), 7).expect("still there");
        assert_eq!((hold.segment(), channel::HOLD.held(&channel)), (7, Some(7)));
        channel::HOLD.release(&channel);
        assert_eq!(channel::HOLD.held(&channel), None);
        for garbage in [u64::MAX, 1 << 33] {
            channel.store_release(channel::HOLD.at, garbage);
            assert_eq!(channel::HOLD.held(&channel), None);
        }
    });
}

/// A memory whose process dies after some stores: those after it are not made.
struct Dies<'p> {
    pool: &'p Pool,
    left: std::cell::Cell<u64>,
}

impl Memory for Dies<'_> {
    fn load(&self, at: u64) -> u64 {
        self.pool.load(at)
    }
    fn load_relaxed(&self, at: u64) -> u64 {
        self.pool.load_relaxed(at)
    }
    fn store(&self, at: u64, value: u64) {
        if let Some(left) = self.left.get().checked_sub(1) {
            self.left.set(left);
            self.pool.store(at, value);
        }
    }
    fn store_release(&self, at: u64, value: u64) {
        self.store(at, value);
    }
    fn full_fence(&self) {}
    fn flushes(&self) -> bool {
        false
    }
    fn write_back(&self, _: u64, _: u64) {}
    fn after_write_back(&self) {}
    fn invalidate(&self, _: u64, _: u64) {}
    fn after_invalidate(&self) {}
}

#[test]
fn a_session_line_that_goes_to_another_client_is_never_half_of_each() {
    use landfall_layout::session::{SessionLine, SessionState, Standing};
    let line = |client, next_seq, state| SessionLine {
        standing: Standing { epoch: 1, state }.pack(),
        client,
        next_seq,
        topic: 256,
        opened_at: client,
        ..SessionLine::default()
    };
    let (old, new) = (line(7, 900, SessionState::Closed), line(8, 0, SessionState::Active));
    for stores in 0..20 {
        let pool = pool(Coherence::Coherent);
        pool.set_session(3, &old);
        let dying = Dies { pool: &pool, left: stores.into() };
        let (geometry, header) = (*pool.geometry(), *pool.header());
        Pool::on(dying, geometry, header).set_session(3, &new);
        let left = pool.session(3).expect("a line");
        if Standing::unpack(left.standing).state != SessionState::Free {
            let is_one = left.to_words() == old.to_words() || left.to_words() == new.to_words();
            assert!(is_one, "after {stores} stores: {left:?}");
        }
    }
}
