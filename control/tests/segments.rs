//! Segments come and go: grants, retention, topics deleted, brokers that die.

mod fake;

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fake::{Batch, Broker, Granted, System, eventually, spec};
use landfall_control::Options;
use landfall_control::answers::TopicSpec;
use landfall_control::keeper::stranded;
use landfall_control::life::Life;
use landfall_control::messages::Ask;
use landfall_control::segments::{Purpose, Segments};
use landfall_layout::batch::{BatchPreamble, PADDING_MAGIC};
use landfall_layout::command::{Command, Denial, Request};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::pool::{BrokerAddress, BrokerLine, BrokerState, Coherence};
use landfall_layout::segment::{SegmentKind, SegmentState, What};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::log::LogSegment;
use landfall_pool::{Memory, Pool};

fn state(pool: &Pool, segment: u32) -> What {
    What::unpack(pool.segment_header(SegmentId(segment)).unwrap().what).unwrap()
}

fn retire(granted: Granted) -> impl Fn(Command) -> Option<()> {
    let Granted { segment, generation, .. } = granted;
    move |command| (command == Command::Retire { segment, generation }).then_some(())
}

#[test]
fn retention_moves_the_oldest_index_and_waits_for_every_broker() {
    let system = System::start(64);
    let bound = TopicSpec { retention_bytes: Some(1), ..spec("a", "total") };
    let topic = TopicId(system.create(bound).unwrap().id);
    let mut broker = Broker::register(&system.pool, 0, 1);
    let mut reader = Broker::register(&system.pool, 1, 2);
    let mut ring = broker.open_ring(topic);
    let (session, epoch, _) = broker.session(topic, 7, 0);
    let segments = [0, 1].map(|_| broker.want(topic, SegmentKind::Payload));
    for (i, granted) in segments.into_iter().enumerate() {
        let batch = Batch { topic, granted, client: 7, session, epoch, seq: i as u64, offset: 0 };
        let through = broker.land(&mut ring, batch) + 1;
        let Granted { segment, generation, .. } = granted;
        broker.ask(Request::Sealed { segment, generation, through });
    }
    let first = segments[0];
    broker.wait("Retire", retire(first));
    reader.wait("Retire", retire(first));
    assert_eq!(system.pool.oldest(topic, SEQUENCED_LOG), 1, "moved before anyone was asked");
    assert_eq!(system.describe("a").unwrap().oldest_position, 3);
    let free = system.free();
    let Granted { segment, generation, .. } = first;
    broker.ask(Request::Retired { segment, generation });
    broker.ask(Request::Retired { segment, generation });
    // An answer to a later request says that the one before was taken.
    broker.session(topic, 8, 0);
    assert_eq!(state(&system.pool, segment).state, SegmentState::Retiring);
    reader.ask(Request::Retired { segment, generation: generation + 1 });
    reader.ask(Request::Retired { segment, generation });
    eventually("a free segment", || (system.free() == free + 1).then_some(()));
    assert_eq!(state(&system.pool, segment), What::FREE);
    assert_eq!(
        state(&system.pool, segments[1].segment).state,
        SegmentState::Sealed,
        "the bytes in it are kept"
    );
}

#[test]
fn a_lost_segment_is_never_given_out_again_whoever_leads() {
    let mut system = System::start(64);
    let topic = system.topic("a", "total");
    let mut broker = Broker::register(&system.pool, 0, 1);
    let Granted { segment, generation, .. } = broker.want(topic, SegmentKind::Payload);
    let free = system.free();
    let lost = || system.asker.ask_now(Ask::Cluster).unwrap().pool.segments_lost;
    broker.ask(Request::Lost { segment });
    broker.ask(Request::Lost { segment });
    broker.ask(Request::Lost { segment: u32::MAX });
    eventually("lost", || (lost() == 1).then_some(()));
    let pool = system.pool.clone();
    let header = || pool.segment_header(SegmentId(segment)).unwrap();
    assert_ne!(header().lost_ns, 0);
    assert_eq!(system.describe("a").unwrap().segments_lost, 1);
    assert_eq!(state(&system.pool, segment).kind, SegmentKind::Payload, "what holds is read");
    broker.ask(Request::Sealed { segment, generation, through: 0 });
    // Everything that was free is given out, and then what the topic has comes back: without it.
    let mut broker = all_of_the_pool(&system, broker, topic, segment);
    assert_eq!(system.describe("a").unwrap().segments_lost, 1);
    let deleted = delete(&system, "a");
    broker.wait("DropTopic", |command| (command == Command::DropTopic { topic }).then_some(()));
    broker.ask(Request::TopicReleased { topic });
    deleted.join().unwrap();
    let back = eventually("all but one", || Some(system.free()).filter(|now| *now > free));
    system.stop();
    system.start_again();
    assert_eq!((system.free(), header().lost_ns != 0), (back, true), "the next control knows");
    let topic = system.topic("b", "total");
    let broker = Broker::register(&system.pool, 0, 2);
    all_of_the_pool(&system, broker, topic, segment);
}

/// Wants segments until there are no more. None of them is the one that is lost.
fn all_of_the_pool(system: &System, mut broker: Broker, topic: TopicId, lost: u32) -> Broker {
    let room = system.free();
    let reserved = 4;
    for _ in reserved..room {
        let granted = broker.want(topic, SegmentKind::Payload);
        assert_ne!(granted.segment, lost, "a lost segment was given out");
    }
    broker
}

/// Deletes a topic, which takes until its brokers have let go.
fn delete(system: &System, name: &str) -> std::thread::JoinHandle<()> {
    let (asker, name) = (system.asker.clone(), name.to_owned());
    std::thread::spawn(move || {
        let deleted = asker.ask_now(|reply| Ask::Delete(name, reply));
        deleted.expect("control answers").expect("it was there");
    })
}

#[test]
fn what_is_cut_off_is_found_lost_before_it_is_given_out() {
    let system = System::start(64);
    let topic = system.topic("a", "total");
    let mut broker = Broker::register(&system.pool, 0, 1);
    let first = broker.want(topic, SegmentKind::Payload).segment;
    let file = std::fs::OpenOptions::new().write(true).open(system.memory.path()).unwrap();
    let at = system.pool.geometry().segment(SegmentId(first + 4)).unwrap();
    file.set_len(at + 4096).unwrap();
    // Once one is known to be lost, the others are looked at before they are given out.
    broker.ask(Request::Lost { segment: first + 4 });
    let free = system.free();
    let given: Vec<u32> =
        (0..3).map(|_| broker.want(topic, SegmentKind::Payload).segment).collect();
    assert_eq!(given, [first + 1, first + 2, first + 3]);
    broker.ask(Request::Want { kind: SegmentKind::Payload, topic, is_ahead: false });
    let denied = |command| match command {
        Command::Denied { why: Denial::PoolFull, free, .. } => Some(free),
        _ => None,
    };
    assert_eq!(broker.wait("Denied", denied), 0);
    let pool = system.asker.ask_now(Ask::Cluster).unwrap().pool;
    assert_eq!((pool.segments_lost, pool.segments_free), (free - 3 + 1, 0));
}

#[test]
fn a_segment_is_not_retired_before_its_batches_are_ordered() {
    let mut system = System::start(64);
    let bound = TopicSpec { retention_ms: Some(1), ..spec("a", "total") };
    let topic = TopicId(system.create(bound).unwrap().id);
    let mut broker = Broker::register(&system.pool, 0, 1);
    let mut ring = broker.open_ring(topic);
    let (session, epoch, _) = broker.session(topic, 7, 0);
    let granted = broker.want(topic, SegmentKind::Payload);
    let Granted { segment, generation, .. } = granted;
    // The slot that the segment's last batch will have is not there yet.
    broker.ask(Request::Sealed { segment, generation, through: 1 });
    eventually("sealed", || {
        (state(&system.pool, segment).state == SegmentState::Sealed).then_some(())
    });
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(broker.find(retire(granted)), None);
    let batch = Batch { topic, granted, client: 7, session, epoch, seq: 0, offset: 0 };
    broker.land(&mut ring, batch);
    broker.wait("Retire", retire(granted));
    // A control that starts again asks again, because it does not know who answered.
    system.stop();
    system.start_again();
    broker.wait("Retire", retire(granted));
    broker.ask(Request::Retired { segment, generation });
    eventually("free", || (state(&system.pool, segment) == What::FREE).then_some(()));
}

#[test]
fn a_topic_is_gone_only_when_every_broker_has_let_go() {
    let system = System::start(64);
    let topic = system.topic("a", "strong");
    let before = system.free() + 1;
    let mut broker = Broker::register(&system.pool, 0, 1);
    let gone = Broker::register(&system.pool, 1, 2);
    broker.open_ring(topic);
    broker.want(topic, SegmentKind::Payload);
    let (index, ..) = broker.session(topic, 7, 0);
    let (done, answer) = channel();
    let asker = system.asker.clone();
    std::thread::spawn(move || {
        let deleted = asker.ask_now(|reply| Ask::Delete("a".into(), reply));
        done.send(deleted).unwrap();
    });
    broker.wait("DropTopic", |c| (c == Command::DropTopic { topic }).then_some(()));
    assert_eq!(system.describe("a").unwrap_err().status, 409);
    assert_eq!(system.create(spec("a", "total")).unwrap_err().status, 409);
    assert!(system.pool.topic(topic).is_none(), "nobody finds it any more");
    gone.leave();
    assert!(answer.recv_timeout(Duration::from_millis(100)).is_err(), "one has not let go");
    broker.ask(Request::TopicReleased { topic });
    assert_eq!(answer.recv_timeout(Duration::from_secs(20)), Ok(Some(Ok(()))));
    assert_eq!(system.describe("a").unwrap_err().status, 404);
    assert_eq!(system.free(), before);
    assert_eq!(system.pool.session(index).unwrap().client, 0);
    let again = system.topic("a", "total");
    assert_eq!((again.slot(), again != topic), (topic.slot(), true), "an id never comes back");
}

#[test]
fn a_deletion_goes_on_after_control_started_again() {
    let mut system = System::start(64);
    let topic = system.topic("a", "total");
    let before = system.free() + 1;
    let mut broker = Broker::register(&system.pool, 0, 1);
    broker.want(topic, SegmentKind::Payload);
    let asker = system.asker.clone();
    let waiter = std::thread::spawn(move || asker.ask_now(|reply| Ask::Delete("a".into(), reply)));
    broker.wait("DropTopic", |c| (c == Command::DropTopic { topic }).then_some(()));
    system.stop();
    assert_eq!(waiter.join().unwrap(), None, "that control did not finish it");
    system.start_again();
    broker.wait("DropTopic", |c| (c == Command::DropTopic { topic }).then_some(()));
    broker.ask(Request::TopicReleased { topic });
    eventually("all free", || (system.free() == before).then_some(()));
    assert_eq!(system.describe("a").unwrap_err().status, 404);
}

#[test]
fn a_full_pool_says_so_with_numbers_and_grants_when_there_is_room() {
    let system = System::start(48);
    let keep = TopicSpec { keep: Some(true), ..spec("a", "none") };
    let topic = TopicId(system.create(keep).unwrap().id);
    let mut broker = Broker::register(&system.pool, 0, 1);
    let want = Request::Want { kind: SegmentKind::Payload, topic, is_ahead: false };
    let mut granted = Vec::new();
    let (free, segments) = loop {
        broker.ask(want);
        let answer = broker.wait("an answer", |command| match command {
            Command::Grant { segment, generation, .. } => Some(Ok((segment, generation))),
            Command::Denied { why: Denial::PoolFull, free, segments, .. } => {
                Some(Err((free, segments)))
            }
            _ => None,
        });
        match answer {
            Ok(grant) => granted.push(grant),
            Err(numbers) => break numbers,
        }
    };
    assert_eq!(segments, system.pool.geometry().segments());
    assert_eq!(free as usize + granted.len(), segments as usize);
    assert!(free >= 1, "logs and rings have something left");
    assert!(system.pool.is_short(), "brokers are to take back what nobody uses");
    for i in 0..free {
        system.create(spec(&format!("t{i}"), "total")).unwrap();
    }
    let problem = system.create(spec("one-more", "total")).unwrap_err();
    assert_eq!(problem.status, 503);
    assert!(problem.message.contains(&format!("of {segments}")), "{}", problem.message);
    // Two segments come back unused; one is granted to the want that waits.
    for (segment, generation) in &granted[..2] {
        let (segment, generation) = (*segment, *generation);
        broker.ask(Request::Sealed { segment, generation, through: 0 });
        let granted = Granted { segment, generation, base_index: 0 };
        broker.wait("Retire", retire(granted));
        broker.ask(Request::Retired { segment, generation });
    }
    let again = broker.granted(topic, SegmentKind::Payload);
    eventually("nobody waits", || (!system.pool.is_short()).then_some(()));
    assert!(granted.iter().all(|(_, generation)| *generation < again.generation));
}

#[test]
fn a_new_process_of_a_broker_finds_its_log_and_its_old_segments_are_sealed_and_padded() {
    let options = Options { kept_ns: 200_000_000, ..Options::default() };
    let mut system = System::with(64, options);
    let topic = system.topic("a", "broker");
    let mut broker = Broker::register(&system.pool, 3, 1);
    let log = broker.want(topic, SegmentKind::OrderLog);
    assert_eq!(log.base_index, 0);
    let payload = broker.want(topic, SegmentKind::Payload);
    let pool = &system.pool;
    let at = pool.at(log.segment, 0, 64).unwrap();
    let capacity = pool.geometry().entries_per_segment();
    let segment = LogSegment { segment: SegmentId(log.segment), at, base: 0, capacity };
    pool.start_frontier(topic, 3);
    let entry = OrderEntry {
        client: 9,
        segment: payload.segment,
        offset: 256,
        bytes: 100,
        count: 4,
        broker: 3,
        ..OrderEntry::default()
    };
    segment.write(&**pool, 0, &entry);
    let line = FrontierLine { entries: 1, position: 4, bytes: 100, ..FrontierLine::default() };
    pool.advance_frontier(topic, 3, &line);
    let described = system.describe("a").unwrap();
    assert_eq!((described.messages, described.next_position, described.segments), (4, 4, 2));
    let next = broker.want(topic, SegmentKind::OrderLog);
    assert_eq!(next.base_index, capacity, "the next segment goes on where this one ends");

    let mut broker = Broker::register(pool, 3, 2);
    assert_eq!(state(pool, payload.segment).state, SegmentState::Sealed);
    assert_eq!(broker.want(topic, SegmentKind::OrderLog), log, "it goes on at its frontier");
    assert_eq!(broker.want(topic, SegmentKind::OrderLog), next);
    let start = pool.at(payload.segment, 0, 64).unwrap();
    let preamble = |offset: u64| BatchPreamble::from_words(pool.load_words(start + offset));
    let magic = |offset| (preamble(offset).magic == PADDING_MAGIC).then(|| preamble(offset));
    let head = eventually("padding", || magic(0));
    assert_eq!(head.batch_bytes(), 256);
    let tail = eventually("padding", || magic(384));
    assert_eq!(384 + tail.batch_bytes(), pool.geometry().segment_bytes());
    assert_eq!(preamble(256).magic, 0, "what landed is not touched");
    // And after control started again.
    system.stop();
    system.start_again();
    assert_eq!(broker.want(topic, SegmentKind::OrderLog), log);
}

#[test]
fn what_a_process_asked_for_that_is_gone_is_not_taken_from_the_next() {
    let system = System::start(64);
    let topic = system.topic("a", "broker");
    let mut dead = Broker::register(&system.pool, 3, 1);
    let free = system.free();
    dead.stop_beating();
    eventually("that it is found gone", || {
        let cluster = system.asker.ask_now(Ask::Cluster).unwrap();
        cluster.brokers.iter().all(|b| b.state != "serving").then_some(())
    });
    // They lay in its ring when it was killed.
    dead.ask(Request::Want { kind: SegmentKind::OrderLog, topic, is_ahead: false });
    dead.ask(Request::Want { kind: SegmentKind::Payload, topic, is_ahead: false });
    let mut broker = Broker::register(&system.pool, 3, 2);
    assert_eq!(system.free(), free, "nobody would take it");
    let log = broker.want(topic, SegmentKind::OrderLog);
    assert_eq!(log.base_index, 0, "its log begins where its frontier is");
}

#[test]
fn wants_of_topics_and_kinds_that_are_not_are_denied() {
    let system = System::start(64);
    let topic = system.topic("a", "total");
    let mut broker = Broker::register(&system.pool, 0, 1);
    for (asked, denied) in [
        (
            Request::Want { kind: SegmentKind::OrderLog, topic, is_ahead: false },
            SegmentKind::OrderLog,
        ),
        (
            Request::Want { kind: SegmentKind::Payload, topic: TopicId(1), is_ahead: false },
            SegmentKind::Payload,
        ),
        (Request::OpenRing { topic: TopicId(1) }, SegmentKind::Ring),
    ] {
        broker.ask(asked);
        broker.wait("Denied", |command| match command {
            Command::Denied { kind, why: Denial::NoTopic, .. } if kind == denied => Some(()),
            _ => None,
        });
    }
}

#[test]
fn the_last_batch_of_a_dead_broker_is_still_ordered() {
    let options = Options { kept_ns: 100_000_000, ..Options::default() };
    let mut system = System::with(64, options);
    let bound = TopicSpec { retention_ms: Some(1), ..spec("a", "total") };
    let topic = TopicId(system.create(bound).unwrap().id);
    let mut broker = Broker::register(&system.pool, 0, 1);
    let mut ring = broker.open_ring(topic);
    let (session, epoch, _) = broker.session(topic, 7, 0);
    let granted = broker.want(topic, SegmentKind::Payload);
    system.stop();
    let batch = Batch { topic, granted, client: 7, session, epoch, seq: 0, offset: 0 };
    broker.land(&mut ring, batch);
    broker.leave();
    system.start_again();
    system.wait_for_entries(topic, SEQUENCED_LOG, 1);
    eventually("free", || (state(&system.pool, granted.segment) == What::FREE).then_some(()));
    let described = system.describe("a").unwrap();
    assert_eq!((described.oldest_position, described.next_position), (3, 3));
}

#[test]
fn what_a_broker_left_that_was_killed_on_another_host_waits_for_it() {
    let memory = fake::Memory::new();
    let pool = memory.pool(48);
    let (mut segments, _) = Segments::read(std::sync::Arc::clone(&pool), 1);
    let of = |owner| {
        let (kind, state) = (SegmentKind::Payload, SegmentState::Open);
        let what = What { kind, state, owner, log: 0, topic: TopicId(256) };
        Purpose { what, base_index: 0, previous: None }
    };
    let [here, there] = [1, 2].map(|owner| segments.take(of(owner), 1).unwrap());
    let free = segments.free();
    segments.strand(1 << 2);
    segments.give_back(here);
    segments.give_back(there);
    assert_eq!(segments.free(), free + 1);
    assert_eq!(state(&pool, there.0).kind, SegmentKind::Payload, "its host may write there yet");
    // Another broker that is stranded too changes nothing for this one.
    segments.strand(1 << 2 | 1 << 4);
    assert_eq!(segments.free(), free + 1);
    segments.strand(1 << 4);
    assert_eq!(segments.free(), free + 2);
    assert_eq!(state(&pool, there.0).kind, SegmentKind::Free);
}

#[test]
fn only_what_was_killed_elsewhere_is_stranded_and_only_where_caches_are_not_seen() {
    let here = landfall_pool::host::id();
    let gone = |cleanly| Life::Gone { cleanly };
    for (coherence, host, state, life, expected) in [
        (Coherence::Flush, !here, BrokerState::Serving, gone(false), true),
        (Coherence::Flush, !here, BrokerState::Serving, Life::Never, true),
        (Coherence::Flush, !here, BrokerState::Absent, Life::Never, false),
        (Coherence::Flush, !here, BrokerState::Absent, gone(true), false),
        (Coherence::Flush, !here, BrokerState::Serving, Life::Live, false),
        (Coherence::Flush, here, BrokerState::Serving, gone(false), false),
        (Coherence::Coherent, !here, BrokerState::Serving, gone(false), false),
    ] {
        let memory = fake::Memory::new();
        let pool = memory.pool_of(48, coherence);
        let id = BrokerId::new(5).unwrap();
        let line = BrokerLine { incarnation: 3, state: state.raw(), host, ..BrokerLine::default() };
        pool.set_broker(id, &line, &BrokerAddress::new("", "", "").unwrap());
        let found = stranded(&pool, |_| life);
        assert_eq!(found, u32::from(expected) << 5, "{coherence:?} {state:?} {life:?}");
    }
}

/// A log stays for as long as its topic, so that the pool would be full of them for good.
#[test]
fn own_logs_begin_in_half_of_the_pool_and_no_more() {
    let system = System::start(64);
    let half = landfall_layout::full::logs_may_have(system.free());
    let mut broker = Broker::register(&system.pool, 0, 1);
    let topics: Vec<TopicId> =
        (0..half + 1).map(|i| system.topic(&format!("own-{i}"), "none")).collect();
    for topic in &topics[1..] {
        broker.want(*topic, SegmentKind::OrderLog);
    }
    let refused = system.create(spec("another", "broker")).unwrap_err().message;
    let words = format!("these have {half} of");
    assert!(refused.contains(&words), "{refused}");
    let (kind, topic) = (SegmentKind::OrderLog, topics[0]);
    broker.ask(Request::Want { kind, topic, is_ahead: false });
    let is_denied =
        |command| matches!(command, Command::Denied { topic: of, .. } if of == topic).then_some(());
    broker.wait("Denied", is_denied);
    assert!(!system.pool.is_short(), "no segment that somebody gives back helps");
    // Logs that have begun grow, and batches have their place.
    broker.want(topics[1], SegmentKind::OrderLog);
    for _ in 0..4 {
        broker.want(topics[2], SegmentKind::Payload);
    }
    assert_eq!(broker.find(|command| is_log_of(command, topic)), None);
    for name in ["own-1", "own-2"] {
        let (asker, name) = (system.asker.clone(), name.to_owned());
        let deleted = std::thread::spawn(move || asker.ask_now(|reply| Ask::Delete(name, reply)));
        let topic = broker.wait("DropTopic", |command| match command {
            Command::DropTopic { topic } => Some(topic),
            _ => None,
        });
        broker.ask(Request::TopicReleased { topic });
        deleted.join().unwrap().unwrap().unwrap();
    }
    broker.wait("the log that had to wait", |command| is_log_of(command, topic));
}

fn is_log_of(command: Command, wanted: TopicId) -> Option<()> {
    matches!(command, Command::Grant { kind: SegmentKind::OrderLog, topic, .. } if topic == wanted)
        .then_some(())
}

/// A broker that has room asks ahead of need. What somebody can read is no price for that.
#[test]
fn nothing_that_can_be_read_goes_for_what_is_wanted_ahead_of_need() {
    let system = System::start(64);
    let mut broker = Broker::register(&system.pool, 0, 1);
    let topic = system.topic("a", "total");
    let mut ring = broker.open_ring(topic);
    let (session, epoch, _) = broker.session(topic, 7, 0);
    // Batches of a topic that bounds nothing fill the pool.
    let kind = SegmentKind::Payload;
    let mut seq = 0;
    while system.free() > 4 {
        let granted = broker.want(topic, kind);
        let batch = Batch { topic, granted, client: 7, session, epoch, seq, offset: 0 };
        let through = broker.land(&mut ring, batch) + 1;
        let Granted { segment, generation, .. } = granted;
        broker.ask(Request::Sealed { segment, generation, through });
        seq += 1;
    }
    // What was taken a moment ago was taken fast, and so much is made free once more.
    let retire = |command| match command {
        Command::Retire { segment, generation } => Some((segment, generation)),
        _ => None,
    };
    let quiet = Instant::now() + Duration::from_millis(2_500);
    while Instant::now() < quiet {
        if let Some((segment, generation)) = broker.find(retire) {
            broker.ask(Request::Retired { segment, generation });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let oldest = system.pool.oldest(topic, SEQUENCED_LOG);
    assert!(oldest < seq, "some of it can be read");
    let topics: Vec<TopicId> = (0..8).map(|i| system.topic(&format!("b-{i}"), "none")).collect();
    for topic in &topics {
        broker.ask(Request::Want { kind, topic: *topic, is_ahead: true });
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(system.pool.oldest(topic, SEQUENCED_LOG), oldest, "it was wanted ahead of need");
    assert!(!system.pool.is_short());
    for topic in &topics {
        broker.ask(Request::Want { kind, topic: *topic, is_ahead: false });
    }
    eventually("what is needed is made free", || {
        (system.pool.oldest(topic, SEQUENCED_LOG) > oldest).then_some(())
    });
}
