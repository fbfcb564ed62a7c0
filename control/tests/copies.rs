//! Who keeps a copy on disk while the broker that shall keep it is away.

mod fake;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fake::{Broker, Memory, System, create_on_disk, eventually, named, spec};
use landfall_control::answers::{ReplicaFacts, TopicSpec};
use landfall_control::election::Candidate;
use landfall_control::messages::Ask;
use landfall_control::{Control, Options};
use landfall_layout::command::Request;
use landfall_layout::keepers::Keepers;
use landfall_layout::pool::{BrokerAddress, BrokerLine, BrokerState, DISK_HANGS};
use landfall_layout::replica::{ReplicaLine, ReplicaState};
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::Pool;
use landfall_pool::clock::boot_ns;
use landfall_replica::names::topic_directory;
use landfall_replica::there::Part;
use landfall_replica::{TopicFile, numbers};

fn options() -> Options {
    Options { move_ns: 200_000_000, ..Options::default() }
}

/// A broker with a disk.
fn with_disk(pool: &Arc<Pool>, number: usize, incarnation: u64) -> Broker {
    let broker = Broker::register(pool, number, incarnation);
    let line = BrokerLine { disk: 1, ..pool.broker(broker.id) };
    let address = BrokerAddress::new("127.0.0.1:9", "@nowhere", "").unwrap();
    pool.set_broker(broker.id, &line, &address);
    broker
}

fn beat(pool: &Pool, live: &[usize]) {
    for number in live {
        let id = BrokerId::new(*number).unwrap();
        pool.beat_broker(id, boot_ns(), pool.epoch_number(), BrokerState::Serving.raw());
    }
}

fn line(durable: u64, incarnation: u64) -> ReplicaLine {
    let state = ReplicaState::Well.raw();
    ReplicaLine { durable, written: durable, state, incarnation, ..ReplicaLine::default() }
}

/// The second copy of what broker 0 landed, as it is shown.
fn shown(system: &System) -> ReplicaFacts {
    let copies = system.describe("a").unwrap().replicas_state;
    copies.into_iter().find(|copy| (copy.source, copy.replica) == (0, 1)).unwrap()
}

#[test]
fn a_copy_whose_keeper_stays_away_goes_to_another_and_back() {
    let mut system = System::with(64, options());
    let pool = Arc::clone(&system.pool);
    let mut brokers: Vec<_> = (0..3).map(|i| with_disk(&pool, i, i as u64 + 1)).collect();
    beat(&pool, &[0, 1, 2]);
    let three = TopicSpec { replicas: Some(3), ..spec("a", "total") };
    let created = create_on_disk(&system.asker, &three, &mut brokers[0]);
    let topic = TopicId(created.unwrap().id);
    brokers[0].open_ring(topic);
    let source = brokers[0].id;
    let home = pool.copy_line(topic, source, 1, None);
    for (replica, incarnation) in [(0, 1), (1, 2)] {
        pool.start_copy(pool.copy_line(topic, source, replica, None), &line(4, incarnation));
    }
    assert_eq!((shown(&system).broker, shown(&system).state), (1, "well"));
    assert_eq!(pool.replicated(topic, source, 2).durable, 4);

    let gone = brokers.remove(1);
    gone.stop_beating();
    drop(gone);
    eventually("that it is not called well", || {
        beat(&pool, &[0, 2]);
        (shown(&system).state == "keeper gone").then_some(())
    });
    let stand_in = eventually("another keeper", || {
        beat(&pool, &[0, 2]);
        pool.keepers(topic, source).stand_in(1)
    });
    assert_eq!(stand_in.broker, brokers[1].id);
    assert_eq!(pool.keepers(topic, source).stand_in(0), None, "its keeper is there");
    assert_eq!(pool.replicated(topic, source, 2).durable, 0, "it has not begun");
    assert_eq!(shown(&system).state, "absent");
    let taken = pool.copy_line(topic, source, 1, Some(stand_in));
    pool.start_copy(taken, &line(7, 3));
    let facts = shown(&system);
    assert_eq!((facts.broker, facts.home, facts.durable, facts.state), (2, 1, 7, "moved"));

    // The next control finds it so.
    system.stop();
    beat(&pool, &[0, 2]);
    system.start_again();
    assert_eq!(pool.keepers(topic, source).stand_in(1), Some(stand_in));
    let facts = shown(&system);
    assert_eq!((facts.broker, facts.durable, facts.state), (2, 7, "moved"));

    // The home is back. What the process before it said counts for nothing, however far it was.
    pool.start_copy(home, &line(7, 2));
    let _again = with_disk(&pool, 1, 9);
    for _ in 0..100 {
        beat(&pool, &[0, 1, 2]);
        assert_eq!(pool.keepers(topic, source).stand_in(1), Some(stand_in));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    pool.start_copy(home, &line(7, 9));
    eventually("its copy at home", || {
        beat(&pool, &[0, 1, 2]);
        (pool.keepers(topic, source) == Keepers::default()).then_some(())
    });
    assert_eq!((shown(&system).broker, shown(&system).state), (1, "well"));
}

/// Its disk may have been wiped or replaced since: what its process of before said is of no disk
/// that is there.
#[test]
fn a_broker_that_has_not_looked_at_its_disk_yet_is_not_shown_as_well() {
    let system = System::with(64, options());
    let pool = Arc::clone(&system.pool);
    let mut brokers: Vec<_> = (0..2).map(|i| with_disk(&pool, i, i as u64 + 1)).collect();
    beat(&pool, &[0, 1]);
    let both = TopicSpec { replicas: Some(3), ..spec("a", "total") };
    let created = create_on_disk(&system.asker, &both, &mut brokers[0]);
    let topic = TopicId(created.unwrap().id);
    brokers[0].open_ring(topic);
    let home = pool.copy_line(topic, brokers[0].id, 1, None);
    pool.start_copy(home, &line(4, 2));
    let facts = shown(&system);
    assert_eq!((facts.broker, facts.durable, facts.state), (1, 4, "well"));
    let gone = brokers.remove(1);
    gone.stop_beating();
    drop(gone);
    let _again = with_disk(&pool, 1, 9);
    let facts = eventually("that it is seen again", || {
        beat(&pool, &[0, 1]);
        Some(shown(&system)).filter(|facts| facts.state != "keeper gone")
    });
    assert_eq!((facts.durable, facts.written, facts.state), (0, 0, "absent"));
    pool.start_copy(home, &line(3, 9));
    let facts = shown(&system);
    assert_eq!((facts.durable, facts.state), (3, "well"));
}

/// Its process is there, and says so.
#[test]
fn a_copy_whose_disk_hangs_goes_to_another_and_back_when_it_answers() {
    let system = System::with(64, options());
    let pool = Arc::clone(&system.pool);
    let mut brokers: Vec<_> = (0..3).map(|i| with_disk(&pool, i, i as u64 + 1)).collect();
    beat(&pool, &[0, 1, 2]);
    let three = TopicSpec { replicas: Some(3), ..spec("a", "total") };
    let created = create_on_disk(&system.asker, &three, &mut brokers[0]);
    let topic = TopicId(created.unwrap().id);
    brokers[0].open_ring(topic);
    let (source, home) = (brokers[0].id, brokers[1].id);
    for (replica, incarnation) in [(0, 1), (1, 2)] {
        pool.start_copy(pool.copy_line(topic, source, replica, None), &line(4, incarnation));
    }
    assert_eq!((shown(&system).broker, shown(&system).state), (1, "well"));
    pool.say_disk(home, DISK_HANGS);
    assert_eq!(shown(&system).state, "disk hangs");
    let stand_in = eventually("another keeper", || {
        beat(&pool, &[0, 1, 2]);
        pool.keepers(topic, source).stand_in(1)
    });
    assert_eq!(stand_in.broker, brokers[2].id);
    pool.start_copy(pool.copy_line(topic, source, 1, Some(stand_in)), &line(7, 3));
    assert_eq!((shown(&system).broker, shown(&system).state), (2, "moved"));
    // Nor does who hangs get a copy, however far it says that it is.
    pool.start_copy(pool.copy_line(topic, source, 1, None), &line(7, 2));
    for _ in 0..100 {
        beat(&pool, &[0, 1, 2]);
        assert_eq!(pool.keepers(topic, source).stand_in(1), Some(stand_in));
        std::thread::sleep(Duration::from_millis(5));
    }
    pool.say_disk(home, 1);
    eventually("its copy at home", || {
        beat(&pool, &[0, 1, 2]);
        (pool.keepers(topic, source) == Keepers::default()).then_some(())
    });
    assert_eq!((shown(&system).broker, shown(&system).state), (1, "well"));
}

/// A cold start asks for the stand-in's directory: others name it before anything counts there.
#[test]
fn data_directories_name_a_stand_in_before_it_is_one() {
    let folder = std::env::temp_dir().join(format!("landfall-parts-{}", std::process::id()));
    // Two homes, of which one never had the topic; a stand-in; one that has nothing to do with it;
    // and a mount point.
    let data: Vec<_> = (0..5).map(|number| folder.join(format!("broker-{number}"))).collect();
    for (number, data) in data.iter().enumerate() {
        std::fs::create_dir_all(data).unwrap();
        if number < 4 {
            numbers::name(data, BrokerId::new(number).unwrap(), "a pool").unwrap();
        }
    }
    let memory = Memory::new();
    let pool = memory.pool(64);
    let Ok(elected) = Candidate::new(&pool, 1).unwrap().stand(&pool) else { panic!("alone") };
    let control =
        Control::lead(Arc::clone(&pool), &memory.path(), options(), elected, &data).unwrap();
    let asker = control.asker().unwrap();
    let mut brokers: Vec<_> = (0..2).map(|i| with_disk(&pool, i, i as u64 + 1)).collect();
    beat(&pool, &[0, 1]);
    let two = TopicSpec { replicas: Some(2), ..spec("a", "total") };
    let topic = eventually("the topic", || {
        beat(&pool, &[0, 1]);
        create_on_disk(&asker, &two, &mut brokers[0]).ok()
    });
    let entry = pool.topic(TopicId(topic.id)).unwrap();
    let own = |data: &PathBuf| topic_directory(data, "a", entry.created_ns);
    std::fs::create_dir_all(own(&data[1])).unwrap();
    let file = TopicFile::of(&entry, &pool.uuid_text(), 64 << 20).unwrap();
    file.write(&own(&data[1])).unwrap();
    let _stand_in = with_disk(&pool, 2, 3);
    brokers[1].open_ring(TopicId(topic.id));
    let source = brokers[1].id;
    let gone = brokers.remove(1);
    gone.stop_beating();
    drop(gone);
    let to = eventually("another keeper", || {
        beat(&pool, &[0, 2]);
        pool.keepers(TopicId(topic.id), source).stand_in(0)
    });
    assert_eq!(to.broker.raw(), 2);
    let part = Part { source: 1, copy: 0, keeper: 2, from: 0 };
    for data in [&data[1], &data[2], &data[3]] {
        let file = TopicFile::read(&own(data)).unwrap();
        assert_eq!((file.places.parts, file.deleted), ([part].into(), false), "{data:?}");
    }
    assert!(!own(&data[0]).exists(), "it would say that this home was there");
    assert!(!own(&data[4]).exists(), "it is nobody's disk");
    control.stop();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn copies_that_no_live_broker_can_keep_are_refused() {
    let system = System::with(64, options());
    let [_live, dead] = [0, 1].map(|i| with_disk(&system.pool, i, i as u64 + 1));
    drop(dead);
    let three = || TopicSpec { replicas: Some(3), ..spec("a", "total") };
    eventually("that control knows", || {
        beat(&system.pool, &[0]);
        let live = system.asker.ask_now(landfall_control::messages::Ask::Health).unwrap().brokers;
        (live == 1).then_some(())
    });
    let refused = system.create(three()).unwrap_err();
    let text = refused.message;
    assert!(text.contains("1 live broker has a disk (not live: 1): start 1 more"), "{text}");
}

/// A power cut takes the pool's table along: what was answered has to be on a disk.
#[test]
fn a_topic_with_copies_is_answered_for_once_its_disks_have_it() {
    let system = System::with(64, options());
    let mut brokers = [0, 1].map(|i| with_disk(&system.pool, i, i as u64 + 1));
    beat(&system.pool, &[0, 1]);
    let two = TopicSpec { replicas: Some(2), ..spec("a", "total") };
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| system.create(two).unwrap());
        let topic = eventually("the topic", || named(&system.pool, "a"));
        // Answers go out in turn: one that was due before these has been given.
        for _ in 0..2 {
            system.asker.ask_now(Ask::Health).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
        assert!(!asked.is_finished(), "no disk has the topic");
        brokers[1].ask(Request::TopicSaid { topic: TopicId(topic.0 ^ 1) });
        brokers[1].ask(Request::TopicSaid { topic });
        for _ in 0..4 {
            system.asker.ask_now(Ask::Health).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
        assert!(!asked.is_finished(), "one disk has the topic, and a start asks for both");
        brokers[0].ask(Request::TopicSaid { topic });
        assert_eq!(asked.join().unwrap().id, topic.0);
    });
    // In the pool alone there is nothing to wait for.
    system.create(spec("b", "total")).unwrap();
}

#[test]
fn a_topic_that_no_disk_takes_is_answered_for_with_what_is_not_there() {
    let system = System::with(64, options());
    let _brokers = [0, 1].map(|i| with_disk(&system.pool, i, i as u64 + 1));
    beat(&system.pool, &[0, 1]);
    let asked = std::thread::scope(|scope| {
        let two = TopicSpec { replicas: Some(2), ..spec("a", "total") };
        let asked = scope.spawn(|| system.create(two));
        eventually("an answer", || {
            beat(&system.pool, &[0, 1]);
            asked.is_finished().then_some(())
        });
        asked.join().unwrap()
    });
    let problem = asked.unwrap_err();
    assert_eq!((problem.status, problem.code), (503, "not_on_disk"));
    assert!(problem.message.contains("broker 0, 1, none has written"), "{}", problem.message);
    assert_eq!(system.describe("a").unwrap().replicas, 2, "it is there");
}
