//! What is said of copies when a pool is stopped in good order and some brokers were not started.

mod fake;

use std::collections::BTreeMap;
use std::fs;

use fake::Memory;
use landfall_control::cold::end::say_ended;
use landfall_layout::keepers::StandIn;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{ChainLine, FrontierLine, OrderEntry};
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::replica::{ReplicaLine, ReplicaState, TAIL_UNKNOWN};
use landfall_layout::segment::{SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::topic::{Order, TopicEntry, TopicState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::log::LogSegment;
use landfall_replica::names::topic_directory;
use landfall_replica::there::Lack;
use landfall_replica::{Ended, EndedLog, Resumed, TopicFile};

/// What is said at the end of a pool in which log 1 has 5 entries, `oldest` and later in memory,
/// and of whose copies broker 1 keeps the first, as `home` says, and broker 0 the second.
fn notes(name: &str, oldest: u64, home: ReplicaState, durable: u64) -> Vec<String> {
    end(name, oldest, (home, 5), (ReplicaState::Well, durable), None).0
}

/// The same, with how far each copy is, and what the directory says that broker 1 had landed when
/// the pool began; what is counted of it at the end, too.
fn end(
    name: &str,
    oldest: u64,
    home: (ReplicaState, u64),
    other: (ReplicaState, u64),
    had: Option<u64>,
) -> (Vec<String>, Option<u64>) {
    let kept = |(state, durable)| (state, durable, durable);
    let (notes, log) = end_of(name, oldest, [kept(home), kept(other)], had, false);
    (notes, log.entries.get(&1).copied())
}

/// The same of copies by state, how far they are, and where their files end; what is said of the
/// log. `lacks`: the directory says that it lacks something of it.
fn end_of(
    name: &str,
    oldest: u64,
    copies: [(ReplicaState, u64, u64); 2],
    had: Option<u64>,
    lacks: bool,
) -> (Vec<String>, EndedLog) {
    let (notes, mut ended) = ends_of(name, oldest, copies, (had, lacks), None);
    (notes, ended.logs.remove(&1).unwrap())
}

/// The same, with what is said of all logs. `other`: where the directory says that log 0 went on.
fn ends_of(
    name: &str,
    oldest: u64,
    copies: [(ReplicaState, u64, u64); 2],
    (had, lacks): (Option<u64>, bool),
    other: Option<Resumed>,
) -> (Vec<String>, Ended) {
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
    let counted = |had| EndedLog { entries: BTreeMap::from([(1, had)]), ..EndedLog::default() };
    let began = had.map(|had| Ended { logs: BTreeMap::from([(1, counted(had))]) });
    let mut file = TopicFile::of(&entry, &pool.uuid_text(), 48 << 20).unwrap();
    let lack = Lack { keeper: 0, source: 1, entries: 9, below: 3, disk: 0, is_torn: false };
    file.places.lacks.extend(lacks.then_some(lack));
    file.resumed.extend(other.map(|at| (0, at)));
    TopicFile { began, ..file }.write(&topic).unwrap();
    let (id, source) = (TopicId(entry.id), BrokerId::new(1).unwrap());
    pool.start_frontier(id, 1);
    let line = FrontierLine { topic: id.0.into(), entries: 5, position: 50, ..Default::default() };
    pool.advance_frontier(id, 1, &line);
    let head = SegmentId::NONE.0;
    let chain =
        ChainLine { topic: id.0.into(), head, oldest_index: oldest, ..ChainLine::default() };
    pool.set_chain(id, 1, &chain);
    let begin = |replica, state: ReplicaState, durable, tail| {
        let (topic, state) = (id.0.into(), state.raw());
        let line = ReplicaLine { topic, durable, tail, state, ..Default::default() };
        let line = ReplicaLine { entries: durable, ..line };
        pool.start_replica(id, source, replica, &ReplicaLine { incarnation: 3, ..line });
    };
    for (replica, (state, durable, tail)) in copies.into_iter().enumerate() {
        if state != ReplicaState::Absent {
            begin(replica, state, durable, tail);
        }
    }
    let notes = say_ended(&pool, 1, &data);
    let ended = TopicFile::read(&topic).unwrap().ended.unwrap();
    fs::remove_dir_all(&folder).unwrap();
    (notes, ended)
}

/// What is not named may have been anywhere, and positions of it would be passed over.
#[test]
fn of_a_log_in_which_nobody_landed_anything_the_end_is_said_too() {
    let well = (ReplicaState::Well, 5, 5);
    let end = |name, other| {
        let (_, ended) = ends_of(&format!("empty-{name}"), 0, [well; 2], (None, false), other);
        ended.logs.get(&0).cloned()
    };
    let at = |index| Some(Resumed { index, position: 10 * index });
    assert_eq!(end("never", None), Some(EndedLog::default()));
    assert_eq!(end("resumed", at(0)), Some(EndedLog::default()));
    assert_eq!(end("had-some", at(3)), None, "this pool knows nothing of it");
}

/// What a copy had is not in the pool alone, though it is in no file once somebody removes it.
#[test]
fn what_is_in_the_pool_alone_begins_where_the_fullest_copy_ends() {
    use ReplicaState::{Absent, Failed, Full, Well};
    let unkept = |name, oldest, copies, lacks| {
        let (_, log) = end_of(&format!("alone-{name}"), oldest, copies, None, lacks);
        (log.unkept.get(&1).copied(), log.entries.contains_key(&1))
    };
    let none = (Absent, 0, 0);
    assert_eq!(unkept("failed", 0, [(Failed, 3, 2), none], false), (Some(2), false));
    assert_eq!(unkept("fullest", 0, [(Failed, 3, 3), (Full, 4, 4)], false), (Some(4), false));
    assert_eq!(unkept("never", 3, [none, none], false), (Some(3), false), "before this pool");
    assert_eq!(unkept("filled", 3, [(Failed, 2, 2), none], false), (Some(3), false), "the same");
    assert_eq!(unkept("shut", 0, [(Failed, 0, 4), (Full, 3, 3)], false), (Some(4), false));
    let shut = (Failed, 0, TAIL_UNKNOWN);
    assert_eq!(unkept("before", 3, [shut, none], false), (Some(3), false), "it never came here");
    // Nobody knows what files had.
    assert_eq!(unkept("lacks", 0, [(Failed, 3, 3), none], true), (None, false));
    // Or one has all of it.
    assert_eq!(unkept("whole", 0, [(Failed, 3, 3), (Well, 5, 5)], false), (None, true));
}

/// A new pool after a power cut, stopped before any broker came: its end counts what no line says
/// only where the directories do.
#[test]
fn what_nobody_looked_at_in_this_pool_is_counted_as_it_was_or_not_at_all() {
    let absent = (ReplicaState::Absent, 0);
    let counted = |name, had| end(name, 5, absent, absent, had);
    assert_eq!(counted("nobody", None), (Vec::new(), None));
    assert_eq!(counted("earlier", Some(3)), (Vec::new(), Some(3)));
}

/// Copies with as many as there were before are not whole: more was landed since.
#[test]
fn a_count_from_before_does_not_stand_for_what_no_copy_has_all_of() {
    let (full, well) = (ReplicaState::Full, ReplicaState::Well);
    let (notes, counted) = end("since", 3, (full, 4), (full, 4), Some(3));
    assert!(notes.join(" ").contains("is in the pool alone"), "{notes:?}");
    assert_eq!(counted, None);
    assert_eq!(end("one-has", 3, (full, 4), (well, 5), Some(3)).1, Some(5));
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

/// A pool that is stopped in good order after broker 1 had left it with three entries, of which the
/// log had others' behind them; how many of them memory has, or what a line of somebody who stood
/// in for it says: how far it goes, and behind which entry.
fn left(name: &str, in_memory: &[u8], stand_in: Option<(u64, u64)>) -> (Vec<String>, Option<u64>) {
    let well = Some(ReplicaState::Well);
    let (notes, log) = left_or_away(name, well, in_memory, stand_in);
    assert!(!log.entries.contains_key(&1) || log.tails[&1] == 3);
    (notes, log.entries.get(&1).copied())
}

/// The same with how its copy is, also of one that never came in this pool.
fn left_or_away(
    name: &str,
    came: Option<ReplicaState>,
    in_memory: &[u8],
    stand_in: Option<(u64, u64)>,
) -> (Vec<String>, EndedLog) {
    let folder = std::env::temp_dir().join(format!("landfall-left-{name}-{}", std::process::id()));
    let data = [folder.clone()];
    let memory = Memory::new();
    let pool = memory.pool(48);
    let term = Term { epoch: 1, serves: false }.pack();
    assert!(pool.claim(0, &LeaderLine { term, ..LeaderLine::default() }));
    pool.copy_tables(None);
    assert!(pool.serve(1));
    let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
    let (id, source, log) = (TopicId::new(0, 1), BrokerId::new(1).unwrap(), SEQUENCED_LOG);
    (entry.id, entry.state) = (id.0, TopicState::Live as u8);
    (entry.order, entry.replicas, entry.replica_brokers) = (Order::Total.raw(), 2, 2);
    (entry.ring_slots, entry.name_bytes, entry.created_ns) = (16, 1, 77);
    entry.name[0] = b't';
    pool.set_topic(&entry);
    let topic = topic_directory(&folder, "t", 77);
    fs::create_dir_all(&topic).unwrap();
    TopicFile::of(&entry, &pool.uuid_text(), 48 << 20).unwrap().write(&topic).unwrap();
    let what = What {
        kind: SegmentKind::OrderLog,
        state: SegmentState::Open,
        owner: 0,
        log: log as u8,
        topic: id,
    };
    let none = SegmentId::NONE.0;
    let header = SegmentHeader {
        what: what.pack(),
        generation: 1,
        previous: none,
        next: none,
        ..SegmentHeader::from_words([0; SegmentHeader::WORDS])
    };
    pool.give_segment(SegmentId(1), &header);
    let oldest_index = 6 - in_memory.len() as u64;
    let chain =
        ChainLine { topic: id.0.into(), head: 1, tail: 1, oldest_index, ..Default::default() };
    pool.set_chain(id, log, &chain);
    let at = pool.geometry().segment(SegmentId(1)).unwrap();
    let capacity = pool.geometry().entries_per_segment();
    let segment = LogSegment { segment: SegmentId(1), at, base: 0, capacity };
    for (index, broker) in (oldest_index..6).zip(in_memory) {
        segment.write(
            &*pool,
            index,
            &OrderEntry { broker: *broker, count: 1, ..Default::default() },
        );
    }
    pool.start_frontier(id, log);
    let line = FrontierLine { topic: id.0.into(), entries: 6, position: 60, ..Default::default() };
    pool.advance_frontier(id, log, &line);
    let of = |durable, tail| ReplicaLine {
        durable,
        tail,
        entries: 3,
        incarnation: 3,
        state: ReplicaState::Well.raw(),
        ..Default::default()
    };
    if let Some(state) = came {
        let line = ReplicaLine { state: state.raw(), ..of(4, 3) };
        pool.start_copy(pool.copy_line(id, source, 0, None), &line);
    }
    pool.set_tail_on_disk(id, source, 3);
    if let Some((durable, tail)) = stand_in {
        let other = StandIn { broker: BrokerId::new(0).unwrap(), line: 0 };
        pool.start_copy(pool.copy_line(id, source, 0, Some(other)), &of(durable, tail));
    }
    let notes = say_ended(&pool, 1, &data);
    let ended = TopicFile::read(&topic).unwrap().ended.unwrap();
    fs::remove_dir_all(&folder).unwrap();
    (notes, ended.logs[&log].clone())
}

#[test]
fn what_a_broker_had_that_left_before_others_went_on_is_counted() {
    let whole = (Vec::new(), Some(3));
    // What it has not followed is in memory, and others landed it.
    assert_eq!(left("memory", &[1, 0, 0], None), whole);
    assert_eq!(left("memory-behind", &[0, 0], None), whole);
    // Memory has let go of it, and who stood in says so.
    assert_eq!(left("stand-in", &[], Some((6, 3))), whole);
    for (name, in_memory, stand_in) in [
        ("landed", &[0, 1][..], None),
        ("landed-before", &[0], None),
        ("kept", &[], Some((6, 5))),
        ("kept-less", &[], Some((5, 3))),
    ] {
        let (notes, counted) = left(name, in_memory, stand_in);
        assert!(notes.join(" ").contains("is in the pool alone"), "{name}: {notes:?}");
        assert_eq!(counted, None, "{name}");
    }
}

/// As where its disk failed, and others went on.
#[test]
fn nothing_is_called_lost_that_another_broker_landed() {
    let failed = ReplicaState::Failed;
    let of = |name, in_memory| left_or_away(name, Some(failed), in_memory, None).0.join(" ");
    let at_the_end = end("at-the-end", 0, (failed, 5), (failed, 4), None).0.join(" ");
    for said in [of("others", &[1, 0, 0]), at_the_end] {
        assert!(said.contains("is failed: it has everything below log index"), "{said}");
        assert!(said.contains("that broker landed nothing behind that"), "{said}");
        assert!(!said.contains("alone") && !said.contains("lost"), "{said}");
    }
    let said = of("its-own", &[0, 1]);
    assert!(said.contains("below log index 4 of 6, and what is behind that"), "{said}");
    assert!(said.contains("is in the pool alone, which has no name: it is lost"), "{said}");
}

/// After a power cut, which nobody counts anything at.
#[test]
fn what_disks_had_of_a_broker_that_never_came_is_said() {
    let (notes, log) = left_or_away("away", None, &[0, 0], None);
    assert_eq!((notes, log.tails.get(&1), log.entries.get(&1)), (Vec::new(), Some(&3), None));
}

/// Whose a missing entry is is not known, so of each home it is said from where on it has none.
#[test]
fn what_is_in_the_pool_alone_is_said_of_all_who_may_have_landed_it() {
    let (_, log) = left_or_away("others", Some(ReplicaState::Well), &[0, 1], None);
    assert_eq!(log.unkept, BTreeMap::from([(0, 4), (1, 3)]));
    let (_, log) = left_or_away("others-none", Some(ReplicaState::Well), &[0, 0], None);
    assert_eq!(log.unkept, BTreeMap::new(), "it is on disk");
}
