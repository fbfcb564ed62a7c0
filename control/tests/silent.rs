//! Brokers that are given up although nobody knows that they are gone, and deaths that others do
//! not wait for.

mod fake;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fake::{Batch, Broker, Granted, System, eventually, spec};
use landfall_control::Options;
use landfall_control::answers::TopicSpec;
use landfall_control::messages::Ask;
use landfall_layout::SegmentId;
use landfall_layout::TopicId;
use landfall_layout::command::{Command, Request};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::segment::{SegmentKind, SegmentState, What};
use landfall_pool::Pool;
use landfall_pool::lock::{Byte, Locks, lend_to_writer};
use landfall_pool::slot_ring::SlotWriter;

fn state_of(system: &System, number: u8) -> &'static str {
    let cluster = system.asker.ask_now(Ask::Cluster).unwrap();
    cluster.brokers.iter().find(|b| b.broker == number).map_or("unknown", |b| b.state)
}

fn what(pool: &Pool, segment: u32) -> What {
    What::unpack(pool.segment_header(SegmentId(segment)).unwrap().what).unwrap()
}

/// Broker 3 on another host, with a batch in a segment that it has not finished.
struct Ghost {
    broker: Broker,
    ring: SlotWriter,
    batch: Batch,
}

impl Ghost {
    fn new(system: &System, topic: TopicId) -> Self {
        let there = !landfall_pool::host::id();
        let mut broker = Broker::appear_on(&system.pool, 3, 1, there).accepted();
        let mut ring = broker.open_ring(topic);
        let (session, epoch, _) = broker.session(topic, 7, 0);
        let granted = broker.want(topic, SegmentKind::Payload);
        let batch = Batch { topic, granted, client: 7, session, epoch, seq: 0, offset: 0 };
        broker.land(&mut ring, batch);
        Self { broker, ring, batch }
    }

    /// One batch more, as by a process that goes on between its look and its store.
    fn land(&mut self) {
        self.batch.seq += 1;
        self.batch.offset += 128;
        self.broker.land(&mut self.ring, self.batch);
    }

    fn given_up(&self, system: &System) {
        assert_eq!(system.pool.counted(self.broker.id), 1);
        eventually("it is given up", || (state_of(system, 3) == "dead").then_some(()));
        assert_eq!(system.pool.counted(self.broker.id), 0);
    }
}

#[test]
fn what_a_silent_broker_may_write_into_is_used_again_when_its_number_is_taken() {
    let system = System::start(64);
    let topic = system.topic("a", "total");
    let free = system.free();
    let ghost = Ghost::new(&system, topic);
    ghost.given_up(&system);
    // What it says later changes nothing: it is told to begin anew.
    ghost.broker.beat();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(state_of(&system, 3), "dead");
    system.asker.ask_now(|reply| Ask::Delete("a".into(), reply)).unwrap().unwrap();
    // The log is back; its ring and its segment are not.
    assert_eq!(system.free() + 1, free);
    assert_eq!(what(&system.pool, ghost.batch.granted.segment).kind, SegmentKind::Payload);
    let _next = Broker::register(&system.pool, 3, 2);
    eventually("all is back", || (system.free() == free + 1).then_some(()));
    assert_eq!(state_of(&system, 3), "serving");
}

/// It is stopped while it writes, and its broker is killed: its time alone tells nothing.
#[test]
fn what_a_publisher_over_memory_may_write_into_waits_for_it_and_not_for_its_broker() {
    let options = Options { kept_ns: 1, grace_ns: 1, ..Options::default() };
    let mut system = System::with(64, options);
    let topic = system.topic("a", "total");
    let free = system.free();
    let mut broker = Broker::register(&system.pool, 0, 1);
    let publisher = lend_to_writer(&system.pool, broker.id, 1).unwrap();
    let granted = broker.want(topic, SegmentKind::Payload);
    broker.leave();
    eventually("it is gone", || (state_of(&system, 0) == "dead").then_some(()));
    // The next control finds it so too.
    system.stop();
    system.start_again();
    system.asker.ask_now(|reply| Ask::Delete("a".into(), reply)).unwrap().unwrap();
    assert_eq!(system.free(), free, "the log is back, and that one is not");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(what(&system.pool, granted.segment).kind, SegmentKind::Payload);
    drop(publisher);
    eventually("it is back", || (system.free() == free + 1).then_some(()));
}

/// The next process of the number has its lock, and the line still names the one before.
#[test]
fn what_is_withheld_is_so_while_the_next_process_of_its_broker_is_just_starting() {
    let options = Options { kept_ns: 1, grace_ns: 1, ..Options::default() };
    let mut system = System::with(64, options);
    let topic = system.topic("a", "total");
    let free = system.free();
    let mut broker = Broker::register(&system.pool, 0, 1);
    let publisher = lend_to_writer(&system.pool, broker.id, 1).unwrap();
    let granted = broker.want(topic, SegmentKind::Payload);
    let id = broker.id;
    drop(broker);
    eventually("it is gone", || (state_of(&system, 0) == "dead").then_some(()));
    system.stop();
    let locks = Locks::open(&system.pool).unwrap();
    assert!(locks.take(Byte::Broker(id)).unwrap());
    system.start_again();
    let next = Broker::appear(&system.pool, 0, 2).accepted();
    let _next = delete(&system, ("a", topic), next, None);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(system.free(), free, "the log is back, and that one is not");
    assert_eq!(what(&system.pool, granted.segment).kind, SegmentKind::Payload);
    drop(publisher);
    eventually("it is back", || (system.free() == free + 1).then_some(()));
}

/// Its topic is deleted while it is stopped, and all else of the topic is used again.
#[test]
fn a_segment_that_is_withheld_is_used_again_when_its_broker_lets_go_of_it() {
    let system = System::start(64);
    let free = system.free();
    let topic = system.topic("a", "total");
    let mut broker = Broker::register(&system.pool, 0, 1);
    let [Granted { segment, generation, .. }, _] =
        [0, 1].map(|_| broker.want(topic, SegmentKind::Payload));
    let pool = std::sync::Arc::clone(&system.pool);
    let answer = std::thread::spawn(move || {
        broker.wait("to drop it", |command| {
            matches!(command, Command::DropTopic { .. }).then_some(())
        });
        broker.ask(Request::Withhold { segment, generation });
        broker.ask(Request::Withhold { segment, generation: generation + 1 });
        broker.ask(Request::TopicReleased { topic });
        broker
    });
    system.asker.ask_now(|reply| Ask::Delete("a".into(), reply)).unwrap().unwrap();
    let mut broker = answer.join().unwrap();
    assert_eq!(system.free() + 1, free);
    assert_eq!(what(&pool, segment).kind, SegmentKind::Payload);
    broker.ask(Request::LetGo { segment, generation });
    eventually("it is back", || (system.free() == free).then_some(()));
}

/// Deletes a topic, of which this broker names that segment when it lets go of it.
fn delete(
    system: &System,
    (name, id): (&str, TopicId),
    mut broker: Broker,
    named: Option<Granted>,
) -> Broker {
    let answer = std::thread::spawn(move || {
        broker.wait("to drop it", |command| {
            (command == Command::DropTopic { topic: id }).then_some(())
        });
        if let Some(Granted { segment, generation, .. }) = named {
            broker.ask(Request::Withhold { segment, generation });
        }
        broker.ask(Request::TopicReleased { topic: id });
        broker
    });
    system.asker.ask_now(|reply| Ask::Delete(name.into(), reply)).unwrap().unwrap();
    answer.join().unwrap()
}

/// A segment of a deleted topic into which a publisher over memory may still write, named to
/// control by its broker.
struct Named {
    broker: Broker,
    granted: Granted,
    /// Held by the publisher.
    publisher: Option<std::os::fd::OwnedFd>,
}

impl Named {
    fn new(system: &System, topic: &str, mut broker: Broker) -> Self {
        let id = system.topic(topic, "total");
        let lent = lend_to_writer(&system.pool, broker.id, broker.incarnation).unwrap();
        let granted = broker.want(id, SegmentKind::Payload);
        let broker = delete(system, (topic, id), broker, Some(granted));
        Self { broker, granted, publisher: Some(lent) }
    }

    fn is_held(&self, system: &System) -> bool {
        what(&system.pool, self.granted.segment).kind == SegmentKind::Payload
    }

    /// It is not used again, however long one waits.
    fn stays_held(&self, system: &System, why: &str) {
        std::thread::sleep(Duration::from_millis(150));
        assert!(self.is_held(system), "{why}");
    }

    fn comes_back(&self, system: &System) {
        eventually("it is back", || (!self.is_held(system)).then_some(()));
    }

    fn say_all(&mut self, epoch: u64) {
        let incarnation = self.broker.incarnation;
        self.broker.ask(Request::AllWithheld { epoch, incarnation });
    }
}

/// The end of an earlier process's publishers says nothing of those of the present one.
#[test]
fn what_the_present_process_names_outlives_the_publishers_of_the_one_before() {
    let options = Options { kept_ns: 1, grace_ns: 1, ..Options::default() };
    let system = System::with(64, options);
    let topic = system.topic("a", "total");
    let mut before = Broker::register(&system.pool, 0, 1);
    let earlier = lend_to_writer(&system.pool, before.id, 1).unwrap();
    let left = before.want(topic, SegmentKind::Payload);
    drop(before);
    let mut named = Named::new(&system, "b", Broker::register(&system.pool, 0, 2));
    named.broker = delete(&system, ("a", topic), named.broker, None);
    drop(earlier);
    eventually("what the one before left is back", || {
        (what(&system.pool, left.segment) == What::FREE).then_some(())
    });
    named.stays_held(&system, "the present process named it");
    let Granted { segment, generation, .. } = named.granted;
    named.broker.ask(Request::LetGo { segment, generation });
    named.comes_back(&system);
}

/// What a control was told of, the next one does not know before it is told again.
#[test]
fn the_next_control_uses_nothing_of_a_deleted_topic_before_its_broker_has_named_what_it_may_not() {
    let mut system = System::start(64);
    let mut named = Named::new(&system, "a", Broker::register(&system.pool, 0, 1));
    // One of the two dies before it is told.
    for _ in 0..2 {
        system.stop();
        system.start_again();
    }
    let Granted { segment, generation, .. } = named.granted;
    named.stays_held(&system, "its broker has not followed");
    named.broker.beat();
    named.stays_held(&system, "its broker has said nothing to this one");
    let epoch = system.pool.epoch_number();
    named.say_all(epoch - 1);
    named.stays_held(&system, "that was said to another leader");
    named.broker.ask(Request::Withhold { segment, generation });
    named.say_all(epoch);
    named.stays_held(&system, "it is named");
    named.broker.ask(Request::LetGo { segment, generation });
    named.comes_back(&system);
}

#[test]
fn what_a_broker_does_not_name_to_the_next_control_is_used_again() {
    let mut system = System::start(64);
    let mut named = Named::new(&system, "a", Broker::register(&system.pool, 0, 1));
    system.stop();
    system.start_again();
    // Its client went between the two.
    named.say_all(system.pool.epoch_number());
    named.comes_back(&system);
}

#[test]
fn the_next_control_uses_at_once_what_the_kernel_knows_nobody_can_write_into() {
    let mut system = System::start(64);
    let mut named = Named::new(&system, "a", Broker::register(&system.pool, 0, 1));
    system.stop();
    named.publisher = None;
    system.start_again();
    named.broker.beat();
    named.comes_back(&system);
}

/// It dies before it has named it to the next control, and so does a process after it.
#[test]
fn what_a_broker_had_named_waits_for_its_publishers_when_it_is_gone() {
    let options = Options { kept_ns: 1, grace_ns: 1, ..Options::default() };
    for dies_first in [false, true] {
        let mut system = System::with(64, options);
        let mut named = Named::new(&system, "a", Broker::register(&system.pool, 0, 1));
        if dies_first {
            // Neither control knows of it: the segment's header says that it is open.
            system.stop();
            named.broker = Broker::appear(&system.pool, 1, 9);
            system.start_again();
        } else {
            system.stop();
            system.start_again();
            named.broker = Broker::appear(&system.pool, 1, 9);
        }
        named.broker = named.broker.accepted();
        eventually("it is dead", || (state_of(&system, 0) == "dead").then_some(()));
        named.stays_held(&system, "a publisher of the dead process is there");
        let mut present = Broker::register(&system.pool, 0, 2);
        let (epoch, incarnation) = (system.pool.epoch_number(), 2);
        present.ask(Request::AllWithheld { epoch, incarnation });
        named.stays_held(&system, "the next process says nothing of it");
        named.publisher = None;
        named.comes_back(&system);
    }
}

/// Its host is another one, so that the kernel of this one knows nothing of its publishers.
#[test]
fn what_a_broker_named_is_withheld_when_it_is_given_up() {
    let system = System::start(64);
    let there = !landfall_pool::host::id();
    let broker = Broker::appear_on(&system.pool, 3, 1, there).accepted();
    let mut named = Named::new(&system, "a", broker);
    named.publisher = None;
    eventually("it is given up", || (state_of(&system, 3) == "dead").then_some(()));
    named.stays_held(&system, "it is not known to be gone");
    let _next = Broker::register(&system.pool, 3, 2);
    named.comes_back(&system);
}

#[test]
fn a_deletion_that_waits_for_long_is_answered_and_says_for_whom() {
    let system = System::start(64);
    system.topic("a", "total");
    let mut broker = Broker::register(&system.pool, 0, 1);
    let deleted = system.asker.ask_now(|reply| Ask::Delete("a".into(), reply)).unwrap();
    let problem = deleted.unwrap_err();
    assert_eq!(problem.code, "deleting");
    assert!(problem.message.contains("broker 0 (frozen)"), "{}", problem.message);
    let topic = broker.wait("to drop it", |command| match command {
        Command::DropTopic { topic } => Some(topic),
        _ => None,
    });
    broker.ask(Request::TopicReleased { topic });
    eventually("it is gone", || system.describe("a").is_err().then_some(()));
}

#[test]
fn a_silent_broker_counts_as_gone_after_the_long_wait() {
    let system =
        System::with(64, Options { gone_ns: 8_000_000_000, grace_ns: 1, ..Options::default() });
    let topic = system.topic("a", "total");
    let free = system.free();
    let ghost = Ghost::new(&system, topic);
    ghost.given_up(&system);
    system.asker.ask_now(|reply| Ask::Delete("a".into(), reply)).unwrap().unwrap();
    assert_eq!(system.free() + 1, free);
    eventually("all is back", || (system.free() == free + 1).then_some(()));
}

#[test]
fn what_a_silent_broker_landed_late_is_retained_as_everything_is() {
    let options = Options { kept_ns: 1, ..Options::default() };
    let system = System::with(64, options);
    let bound = TopicSpec { retention_bytes: Some(1), ..spec("a", "total") };
    let topic = TopicId(system.create(bound).unwrap().id);
    let mut ghost = Ghost::new(&system, topic);
    ghost.given_up(&system);
    let mut other = Broker::register(&system.pool, 0, 9);
    let mut ring = other.open_ring(topic);
    let (session, epoch, _) = other.session(topic, 8, 0);
    let mut publish = |seq| {
        let granted = other.want(topic, SegmentKind::Payload);
        let batch = Batch { topic, granted, client: 8, session, epoch, seq, offset: 0 };
        let through = other.land(&mut ring, batch) + 1;
        let Granted { segment, generation, .. } = granted;
        other.ask(Request::Sealed { segment, generation, through });
    };
    publish(0);
    publish(1);
    system.wait_for_entries(topic, SEQUENCED_LOG, 3);
    let segment = ghost.batch.granted.segment;
    eventually("what is before it goes", || {
        (system.pool.oldest(topic, SEQUENCED_LOG) == 2).then_some(())
    });
    assert_eq!(what(&system.pool, segment).state, SegmentState::Sealed, "it is withheld");
    ghost.land();
    system.wait_for_entries(topic, SEQUENCED_LOG, 4);
    let _next = Broker::register(&system.pool, 3, 2);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(what(&system.pool, segment).state, SegmentState::Sealed, "the last of the log");
    publish(2);
    eventually("it goes", || {
        (what(&system.pool, segment).state == SegmentState::Retiring).then_some(())
    });
    assert_eq!(system.pool.oldest(topic, SEQUENCED_LOG), 4);
}

#[test]
fn the_next_control_withholds_what_the_one_before_did() {
    let mut system = System::start(64);
    let topic = system.topic("a", "total");
    let ghost = Ghost::new(&system, topic);
    ghost.given_up(&system);
    system.stop();
    system.start_again();
    assert_eq!(system.pool.counted(ghost.broker.id), 0);
    system.asker.ask_now(|reply| Ask::Delete("a".into(), reply)).unwrap().unwrap();
    assert_eq!(what(&system.pool, ghost.batch.granted.segment).kind, SegmentKind::Payload);
    let free = system.free();
    let _next = Broker::register(&system.pool, 3, 2);
    eventually("ring and segment are back", || (system.free() == free + 2).then_some(()));
}

#[test]
fn a_broker_that_is_there_and_silent_is_frozen_and_keeps_what_it_has() {
    let system = System::start(64);
    let topic = system.topic("a", "total");
    let mut broker = Broker::register(&system.pool, 3, 1);
    let granted = broker.want(topic, SegmentKind::Payload);
    eventually("it is frozen", || (state_of(&system, 3) == "frozen").then_some(()));
    assert_eq!(system.pool.counted(broker.id), 1);
    assert_eq!(what(&system.pool, granted.segment).state, SegmentState::Open);
    broker.beat();
    eventually("it serves", || (state_of(&system, 3) == "serving").then_some(()));
    drop(broker);
    eventually("it is dead at once", || (state_of(&system, 3) == "dead").then_some(()));
    assert_eq!(what(&system.pool, granted.segment).state, SegmentState::Sealed);
}

#[test]
fn a_broker_that_dies_again_and_again_holds_up_nothing_that_has_begun() {
    let options = Options { grace_ns: 1_500_000_000, ..Options::default() };
    let system = System::with(64, options);
    let bound = TopicSpec { retention_bytes: Some(1), ..spec("a", "total") };
    let topic = TopicId(system.create(bound).unwrap().id);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Never long enough between two deaths for its subscribers' grace to end.
            for life in 2.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let looping = Broker::register(&system.pool, 5, life);
                std::thread::sleep(Duration::from_millis(20));
                drop(looping);
                std::thread::sleep(Duration::from_millis(80));
            }
        });
        let ends = scope.spawn(|| {
            let mut broker = Broker::register(&system.pool, 0, 1);
            let mut ring = broker.open_ring(topic);
            let (session, epoch, _) = broker.session(topic, 7, 0);
            let mut first = None;
            for seq in 0..2 {
                let granted = broker.want(topic, SegmentKind::Payload);
                let batch = Batch { topic, granted, client: 7, session, epoch, seq, offset: 0 };
                let through = broker.land(&mut ring, batch) + 1;
                let Granted { segment, generation, .. } = granted;
                broker.ask(Request::Sealed { segment, generation, through });
                first = first.or(Some(granted));
            }
            let Granted { segment, generation, .. } = first.unwrap();
            let is_it =
                |command| (command == Command::Retire { segment, generation }).then_some(());
            broker.wait("Retire", is_it);
            broker.ask(Request::Retired { segment, generation });
            eventually("it is free", || (what(&system.pool, segment) == What::FREE).then_some(()));
        });
        let outcome = ends.join();
        over.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
}

#[test]
fn what_is_kept_for_a_broker_that_dies_again_and_again_does_not_fill_the_pool() {
    let options = Options { kept_ns: u64::MAX / 2, grace_ns: 1, ..Options::default() };
    let system = System::with(64, options);
    let topic = system.topic("a", "total");
    let segments = u64::from(system.pool.geometry().segments());
    let mut witness = Broker::register(&system.pool, 0, 1);
    let mut last = None;
    for life in 2..2 + segments {
        let mut looping = Broker::register(&system.pool, 5, life);
        let granted = looping.want(topic, SegmentKind::Payload);
        last = Some(granted);
        drop(looping);
        // Asked to let go of what is not kept any more.
        while let Some((segment, generation)) = witness.find(|command| match command {
            Command::Retire { segment, generation } => Some((segment, generation)),
            _ => None,
        }) {
            witness.ask(Request::Retired { segment, generation });
        }
    }
    let kept = last.expect("it lived");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(what(&system.pool, kept.segment).state, SegmentState::Sealed, "the latest is");
}

/// Asks for `wanted` segments, and lets go of what is retired meanwhile.
fn want_and_let_go(broker: &mut Broker, topic: TopicId, wanted: u32) {
    for _ in 0..wanted {
        broker.ask(Request::Want { kind: SegmentKind::Payload, topic, is_ahead: false });
        eventually("a grant", || {
            while let Some((segment, generation)) = broker.find(|command| match command {
                Command::Retire { segment, generation } => Some((segment, generation)),
                _ => None,
            }) {
                broker.ask(Request::Retired { segment, generation });
            }
            broker.find(|command| {
                let kind = SegmentKind::Payload;
                matches!(command, Command::Grant { kind: of, .. } if of == kind).then_some(())
            })
        });
    }
}

#[test]
fn what_brokers_sealed_themselves_is_not_kept_when_control_starts_again() {
    let options = Options { kept_ns: u64::MAX / 2, grace_ns: 1, ..Options::default() };
    let mut system = System::with(64, options);
    let topic = system.topic("a", "total");
    let mut broker = Broker::register(&system.pool, 0, 1);
    let mut ring = broker.open_ring(topic);
    let (session, epoch, _) = broker.session(topic, 7, 0);
    for seq in 0..20 {
        let granted = broker.want(topic, SegmentKind::Payload);
        let batch = Batch { topic, granted, client: 7, session, epoch, seq, offset: 0 };
        let through = broker.land(&mut ring, batch) + 1;
        let Granted { segment, generation, .. } = granted;
        broker.ask(Request::Sealed { segment, generation, through });
        system.wait_for_consumed(topic, broker.id, through);
        eventually("that it is sealed", || {
            (what(&system.pool, segment).state == SegmentState::Sealed).then_some(())
        });
        let header = system.pool.segment_header(SegmentId(segment)).unwrap();
        assert_eq!(header.sealed_ns, 0, "nobody died");
    }
    system.stop();
    system.start_again();
    let free = system.free();
    want_and_let_go(&mut broker, topic, free + 16);
}
