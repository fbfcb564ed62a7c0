//! What is said of copies when a pool is stopped in good order and some brokers were not started.

mod fake;

use std::fs;

use fake::Memory;
use landfall_control::cold::end::say_ended;
use landfall_layout::order::{ChainLine, FrontierLine};
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::replica::{ReplicaLine, ReplicaState};
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_replica::TopicFile;
use landfall_replica::names::topic_directory;

/// What is said at the end of a pool in which log 1 has 5 entries, `oldest` and later in memory,
/// and of whose copies broker 1 keeps the first, as `home` says, and broker 0 the second.
fn notes(name: &str, oldest: u64, home: ReplicaState, durable: u64) -> Vec<String> {
    let folder = std::env::temp_dir().join(format!("landfall-ended-{name}-{}", std::process::id()));
    let data = [folder.clone()];
    let memory = Memory::new();
    let pool = memory.pool(48);
    let term = Term { epoch: 1, serves: false }.pack();
    assert!(pool.claim(0, &LeaderLine { term, ..LeaderLine::default() }));
    pool.copy_tables(None);
    assert!(pool.serve(1));
    let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
    entry.id = TopicId::new(0, 1).0;
    entry.state = TopicState::Live as u8;
    (entry.order, entry.replicas, entry.replica_brokers) = (Order::Broker.raw(), 3, 2);
    (entry.ring_slots, entry.name_bytes, entry.created_ns) = (16, 1, 77);
    entry.name[0] = b't';
    pool.set_topic(&entry);
    let topic = topic_directory(&folder, "t", 77);
    fs::create_dir_all(&topic).unwrap();
    TopicFile::of(&entry, &pool.uuid_text(), 48 << 20).unwrap().write(&topic).unwrap();
    let (id, source) = (TopicId(entry.id), BrokerId::new(1).unwrap());
    pool.start_frontier(id, 1);
    let line = FrontierLine { topic: id.0.into(), entries: 5, position: 50, ..Default::default() };
    pool.advance_frontier(id, 1, &line);
    let head = SegmentId::NONE.0;
    let chain =
        ChainLine { topic: id.0.into(), head, oldest_index: oldest, ..ChainLine::default() };
    pool.set_chain(id, 1, &chain);
    let begin = |replica, state: ReplicaState, durable| {
        let (topic, state) = (id.0.into(), state.raw());
        let line = ReplicaLine { topic, durable, entries: durable, state, ..Default::default() };
        pool.start_replica(id, source, replica, &ReplicaLine { incarnation: 3, ..line });
    };
    if home != ReplicaState::Absent {
        begin(0, home, 5);
    }
    begin(1, ReplicaState::Well, durable);
    let notes = say_ended(&pool, 1, &data);
    assert!(TopicFile::read(&topic).unwrap().ended.is_some());
    fs::remove_dir_all(&folder).unwrap();
    notes
}

#[test]
fn what_is_on_a_disk_that_was_not_started_is_not_called_in_the_pool_alone() {
    assert_eq!(notes("none", 5, ReplicaState::Absent, 5), [""; 0]);
}

#[test]
fn what_only_memory_has_is_told_and_what_another_disk_has_is_told_so() {
    let said = notes("some", 3, ReplicaState::Absent, 4).join("\n");
    assert!(said.contains("is absent: its keeper was not started"), "{said}");
    assert!(said.contains("index 3 to 5, is in the pool alone"), "{said}");
    let said = notes("another", 3, ReplicaState::Absent, 5).join("\n");
    assert!(said.contains("is on 1 other disk") && !said.contains("alone"), "{said}");
    let said = notes("behind", 3, ReplicaState::Well, 4).join("\n");
    assert!(said.contains("below log index 4 of 5") && !said.contains("alone"), "{said}");
}
