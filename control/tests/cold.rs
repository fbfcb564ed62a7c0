//! A pool that is lost more than once: what was said at one loss holds at the next.

mod fake;

use std::fs;
use std::path::Path;

use fake::homes::{self, CREATED_NS, Two, lead};
use fake::{Memory, spec};
use landfall_control::cold::end::{go_on, say_ended};
use landfall_control::cold::restore;
use landfall_control::election::Candidate;
use landfall_control::messages::Ask;
use landfall_control::{Control, Options};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::FrontierLine;
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::replica::{ReplicaLine, ReplicaState};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_layout::{BrokerId, TopicId};
use landfall_replica::names::{TOPIC_COPY, TOPIC_FILE, topic_directory};
use landfall_replica::there::{Kept, Lack, Part};
use landfall_replica::{Ended, EndedLog, Numbers, Resumed, TopicFile, Unkept, numbers, owner};

fn entry() -> TopicEntry {
    homes::entry(Order::Strong, 3)
}

/// Writes what a broker's directory says of the topic, whose log went on at `index`.
fn say(directory: &Path, index: u64, pool_bytes: u64) {
    fs::create_dir_all(directory).unwrap();
    let mut file = TopicFile::of(&entry(), "a pool that is lost", pool_bytes).unwrap();
    file.resumed.insert(SEQUENCED_LOG, Resumed { index, position: 10 * index });
    file.write(directory).unwrap();
}

#[test]
fn a_log_that_nobody_copied_since_goes_on_behind_where_it_went_on_before() {
    let two = Two::new("twice");
    let [one, other] = two.topics();
    say(&one, 50, 64 << 20);
    say(&other, 40, 48 << 20);
    let mut reached = (50, 500);
    for lost_bytes in [64 << 20, 48 << 20, 48 << 20] {
        let memory = Memory::new();
        let pool = memory.pool(48);
        let news = restore(&pool, &two.data(), false, 1).unwrap().news;
        assert!(news[0].contains("topic t is back"), "{news:?}");
        let topic = TopicId(entry().id);
        let chain = pool.chain(topic, SEQUENCED_LOG).unwrap();
        let place = (chain.oldest_index, chain.skipped_to);
        assert_eq!(place, (reached.0 + lost_bytes / 128, reached.1 + lost_bytes / 16));
        // What was passed over is one range, and no message.
        let passed = (chain.skipped_positions, chain.skipped_entries);
        assert_eq!((chain.skipped_from, passed), (500, (place.1 - 500, place.0 - 50)));
        reached = place;
        for directory in two.topics() {
            let file = TopicFile::read(&directory).unwrap();
            assert_eq!((file.pool_uuid, file.pool_bytes), (pool.uuid_text(), 48 << 20));
            let resumed = Resumed { index: reached.0, position: reached.1 };
            assert_eq!(file.resumed[&SEQUENCED_LOG], resumed);
        }
    }
}

#[test]
fn a_directory_that_control_cannot_write_is_told_and_no_pool_is_served_if_none_can() {
    let two = Two::new("closed");
    let [one, other] = two.topics();
    say(&one, 50, 48 << 20);
    say(&other, 50, 48 << 20);
    // A directory in the place of one of the two: root could write anywhere else.
    let close = |topic: &Path| {
        fs::remove_file(topic.join(TOPIC_COPY)).unwrap();
        fs::create_dir(topic.join(TOPIC_COPY)).unwrap();
    };
    close(&one);
    let notes = restore(&Memory::new().pool(48), &two.data(), false, 1).unwrap().notes;
    let told = notes.iter().find(|note| note.contains("let control write there")).unwrap();
    assert!(told.contains("broker-0") && told.starts_with("topic t: "), "{told}");
    assert!(TopicFile::read(&other).unwrap().resumed[&SEQUENCED_LOG].index > 50);
    close(&other);
    let pool = Memory::new().pool(48);
    let error = restore(&pool, &two.data(), false, 1).unwrap_err().to_string();
    assert!(error.contains("used twice") && error.contains("broker-1"), "{error}");
    assert!(pool.topic(TopicId(entry().id)).is_none());
}

#[test]
fn a_directory_that_is_not_there_is_no_empty_one() {
    let two = Two::new("typo");
    let wrong = two.0.join("brokr-0");
    let error = restore(&Memory::new().pool(48), &[wrong], false, 1).unwrap_err().to_string();
    assert!(error.contains("brokr-0") && error.contains("name one that is there"), "{error}");
    assert!(error.contains("mount its disk first"), "an empty mount point helps nobody: {error}");
}

#[test]
fn what_another_program_wrote_ends_the_start() {
    let two = Two::new("newer");
    let [one, other] = two.topics();
    say(&one, 50, 48 << 20);
    say(&other, 50, 48 << 20);
    let path = other.join(TOPIC_FILE);
    let text = fs::read_to_string(&path).unwrap();
    let newer = text.replace("\"schema_version\": 4", "\"schema_version\": 5");
    // Without the checksum, which would no longer be that of this text.
    let end = newer.find(",\n  \"checksum\"").unwrap();
    fs::write(&path, format!("{}\n}}\n", &newer[..end])).unwrap();
    let error = restore(&Memory::new().pool(48), &two.data(), false, 1).unwrap_err().to_string();
    assert!(error.contains("broker-1") && error.contains("schema version 5"), "{error}");
    // Nor is one passed over of which nobody says what it is.
    for directory in [&one, &other] {
        for name in [TOPIC_FILE, TOPIC_COPY] {
            fs::write(directory.join(name), "{").unwrap();
        }
    }
    let error = restore(&Memory::new().pool(48), &two.data(), false, 1).unwrap_err().to_string();
    assert!(error.contains("put the file back"), "{error}");
    // One that can be read says enough.
    say(&one, 50, 48 << 20);
    let memory = Memory::new();
    restore(&memory.pool(48), &two.data(), false, 1).unwrap();
    assert_eq!(TopicFile::read(&other).unwrap(), TopicFile::read(&one).unwrap());
}

#[test]
fn a_topic_that_was_deleted_stays_so() {
    let two = Two::new("deleted");
    let [one, other] = two.topics();
    say(&one, 50, 48 << 20);
    say(&other, 50, 48 << 20);
    let file = TopicFile::read(&one).unwrap();
    TopicFile { deleted: true, ..file }.write(&one).unwrap();
    let memory = Memory::new();
    let pool = memory.pool(48);
    let notes = restore(&pool, &two.data(), false, 1).unwrap().notes;
    assert!(notes[0].contains("topic t was deleted"), "{notes:?}");
    assert!(pool.topic(TopicId(entry().id)).is_none());
}

#[test]
fn a_control_that_dies_before_it_serves_costs_no_position() {
    let two = Two::new("died");
    let [one, other] = two.topics();
    say(&one, 50, 48 << 20);
    say(&other, 50, 48 << 20);
    let memory = Memory::new();
    let pool = memory.pool(48);
    restore(&pool, &two.data(), false, 1).unwrap();
    let first = TopicFile::read(&one).unwrap();
    assert_eq!((&first.pool_uuid, &first.live_in), (&pool.uuid_text(), &String::new()));
    // It had written into one directory only; and its tables are nobody's.
    say(&other, 50, 48 << 20);
    pool.copy_tables(None);
    restore(&pool, &two.data(), false, 2).unwrap();
    assert_eq!(TopicFile::read(&one).unwrap(), first);
    assert_eq!(TopicFile::read(&other).unwrap(), first);
}

#[test]
fn a_log_that_ended_in_good_order_goes_on_there_once() {
    let two = Two::new("ended");
    let [one, other] = two.topics();
    say(&one, 50, 48 << 20);
    say(&other, 50, 48 << 20);
    let log = EndedLog { index: 60, position: 600, ..EndedLog::default() };
    let ended = Ended { logs: [(SEQUENCED_LOG, log)].into() };
    let file = TopicFile { life: 1, ..TopicFile::read(&one).unwrap() };
    // Control died before it said so in the other one.
    file.write(&other).unwrap();
    TopicFile { ended: Some(ended.clone()), ..file }.write(&one).unwrap();
    let topic = TopicId(entry().id);
    let mut places = Vec::new();
    for _ in 0..2 {
        let memory = Memory::new();
        let pool = memory.pool(48);
        restore(&pool, &two.data(), false, 1).unwrap();
        let chain = pool.chain(topic, SEQUENCED_LOG).unwrap();
        places.push((chain.oldest_index, chain.oldest_position, chain.skipped()));
        for directory in two.topics() {
            let file = TopicFile::read(&directory).unwrap();
            assert_eq!(file.ended, None, "the next pool is not stopped yet");
            let began = places.len() == 1;
            assert_eq!(file.began, began.then(|| ended.clone()));
        }
    }
    let (index, position) = (60 + (48 << 20) / 128, 600 + (48 << 20) / 16);
    assert_eq!(places, [(60, 600, None), (index, position, Some((600, position)))]);
}

/// A copy that is behind, as on a full disk: the end is known, and what is on no disk is lost.
#[test]
fn what_no_disk_had_at_the_end_is_counted_and_told() {
    let two = Two::new("behind");
    let [one, _] = two.topics();
    let memory = Memory::new();
    let pool = memory.pool(48);
    pool.claim(
        0,
        &LeaderLine { term: Term { epoch: 1, serves: false }.pack(), ..LeaderLine::default() },
    );
    pool.copy_tables(None);
    assert!(pool.serve(1));
    let mut entry = entry();
    (entry.order, entry.replicas) = (Order::None.raw(), 2);
    let topic = TopicId(entry.id);
    pool.set_topic(&entry);
    fs::create_dir_all(&one).unwrap();
    fs::create_dir_all(&two.data()[1]).unwrap();
    TopicFile::of(&entry, &pool.uuid_text(), 48 << 20).unwrap().write(&one).unwrap();
    let line = FrontierLine { topic: topic.0.into(), ..FrontierLine::default() };
    let line = FrontierLine { entries: 5, position: 50, ..line };
    pool.start_frontier(topic, 0);
    pool.advance_frontier(topic, 0, &line);
    let source = BrokerId::new(0).unwrap();
    let kept =
        ReplicaLine { topic: topic.0.into(), durable: 2, entries: 2, ..ReplicaLine::default() };
    let kept = ReplicaLine { tail: 2, incarnation: 1, ..kept };
    let kept = ReplicaLine { state: ReplicaState::Full.raw(), ..kept };
    pool.start_replica(topic, source, 0, &kept);
    let notes = say_ended(&pool, 1, &two.data());
    let [note] = &notes[..] else { panic!("{notes:?}") };
    assert!(note.contains("is full") && note.contains("log index 2 of 5"), "{note}");
    let ended = TopicFile::read(&one).unwrap().ended.unwrap();
    let log = EndedLog { index: 5, position: 50, ..EndedLog::default() };
    let log = EndedLog { unkept: [(0, 2)].into(), ..log };
    let logs = [(0, log), (1, EndedLog::default())].into();
    assert_eq!(ended, Ended { logs }, "nobody landed anything in the other log");
    // The pool is lost. Its directory says how far it was, and no file has anything.
    let memory = Memory::new();
    let next = memory.pool(48);
    // Nothing was ever kept of the other broker's log.
    let notes = restore(&next, &two.data(), true, 1).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("positions 0 to 49 were ordered")), "{notes:?}");
    let chain = next.chain(topic, 0).unwrap();
    assert_eq!((chain.oldest_index, chain.oldest_position, chain.skipped()), (5, 50, None));
    // That what lies between was in that pool alone stays known, whatever becomes of the next one.
    let known = |file: &TopicFile| Vec::from_iter(file.places.unkept.iter().copied());
    let unkept = [Unkept { index: 2, to_index: 5, log: 0, source: 0 }];
    let file = TopicFile::read(&one).unwrap();
    let left = file.began.as_ref().unwrap().logs[&0].unkept.len();
    assert_eq!((known(&file), left), (unkept.into(), 0));
    let memory = Memory::new();
    restore(&memory.pool(48), &two.data(), true, 2).unwrap();
    assert_eq!(known(&TopicFile::read(&one).unwrap()), unkept);
}

#[test]
fn an_end_in_good_order_that_nobody_knows_of_says_why() {
    let memory = Memory::new();
    let pool = memory.pool(48);
    pool.claim(
        0,
        &LeaderLine { term: Term { epoch: 1, serves: false }.pack(), ..LeaderLine::default() },
    );
    pool.copy_tables(None);
    assert!(pool.serve(1));
    assert!(say_ended(&pool, 1, &[]).is_empty(), "nothing is kept on any disk");
    pool.set_topic(&entry());
    let notes = say_ended(&pool, 1, &[]);
    assert!(notes[0].contains("--restore"), "{notes:?}");
}

#[test]
fn a_pool_goes_on_without_directories_that_are_lost_only_where_that_is_said() {
    let memory = Memory::new();
    let pool = memory.pool(48);
    pool.claim(
        0,
        &LeaderLine { term: Term { epoch: 1, serves: false }.pack(), ..LeaderLine::default() },
    );
    pool.copy_tables(None);
    pool.say_ended(2);
    let error = go_on(&pool, Some(0), &[], false).unwrap_err().to_string();
    assert!(error.contains("--forget-lost"), "{error}");
    go_on(&pool, Some(0), &[], true).unwrap();
}

#[test]
fn a_directory_that_says_nothing_of_an_end_is_named() {
    let two = Two::new("says-nothing");
    let memory = Memory::new();
    let pool = memory.pool(48);
    let term = Term { epoch: 1, serves: false }.pack();
    assert!(pool.claim(0, &LeaderLine { term, ..LeaderLine::default() }) && pool.serve(1));
    pool.set_topic(&entry());
    for topic in two.topics() {
        fs::create_dir_all(&topic).unwrap();
        TopicFile::of(&entry(), &pool.uuid_text(), 48 << 20).unwrap().write(&topic).unwrap();
    }
    assert_eq!(say_ended(&pool, 1, &two.data()), [""; 0]);
    let [_, other] = two.topics().map(|topic| [TOPIC_FILE, TOPIC_COPY].map(|it| topic.join(it)));
    other.iter().for_each(|path| fs::write(path, "{").unwrap());
    let damaged = go_on(&pool, Some(0), &two.data(), false).unwrap_err().to_string();
    other.iter().for_each(|path| fs::remove_file(path).unwrap());
    let gone = go_on(&pool, Some(0), &two.data(), false).unwrap_err().to_string();
    for error in [damaged, gone] {
        assert!(
            error.contains("2 topic directories") && error.contains("and 1 of them"),
            "{error}"
        );
        assert!(error.contains(other[0].to_str().unwrap()), "{error}");
    }
    let other = TopicFile::read(&two.topics()[0]).unwrap();
    assert!(other.ended.is_some(), "a start that is refused takes nothing back");
    go_on(&pool, Some(0), &two.data(), true).unwrap();
}

/// Nobody published to it, or what was ordered was in memory alone: an end in good order tells.
#[test]
fn a_topic_without_a_file_goes_on_at_its_begin_only_if_it_ended_there() {
    let two = Two::new("empty");
    let lost = Memory::new();
    let lost = lost.pool(48);
    let term = Term { epoch: 1, serves: false }.pack();
    assert!(lost.claim(0, &LeaderLine { term, ..LeaderLine::default() }) && lost.serve(1));
    lost.set_topic(&entry());
    let written = TopicFile::of(&entry(), &lost.uuid_text(), 48 << 20).unwrap();
    for is_in_order in [true, false] {
        for directory in two.topics() {
            fs::create_dir_all(&directory).unwrap();
            written.write(&directory).unwrap();
        }
        if is_in_order {
            assert_eq!(say_ended(&lost, 1, &two.data()), [""; 0]);
        }
        let memory = Memory::new();
        let pool = memory.pool(48);
        let notes = restore(&pool, &two.data(), false, 1).unwrap().notes;
        let topic = TopicId(entry().id);
        assert!(pool.topic(topic).is_some(), "{notes:?}");
        let passed = if is_in_order { (0, 0) } else { ((48 << 20) / 128, (48 << 20) / 16) };
        let chain = pool.chain(topic, SEQUENCED_LOG).unwrap();
        assert_eq!((chain.oldest_index, chain.oldest_position), passed);
        assert_eq!((chain.skipped_entries, chain.skipped_positions), passed);
    }
}

#[test]
fn an_end_that_another_pool_came_after_is_none() {
    let two = Two::new("stale");
    let [one, other] = two.topics();
    say(&one, 50, 48 << 20);
    say(&other, 50, 48 << 20);
    let log = EndedLog { index: 60, position: 600, ..EndedLog::default() };
    let ended = Some(Ended { logs: [(SEQUENCED_LOG, log)].into() });
    // By number neither is older.
    let file = TopicFile { life: 1, ..TopicFile::read(&one).unwrap() };
    TopicFile { ended, ..file.clone() }.write(&one).unwrap();
    TopicFile { pool_uuid: "a later one".to_owned(), ..file }.write(&other).unwrap();
    let memory = Memory::new();
    let pool = memory.pool(48);
    restore(&pool, &two.data(), false, 1).unwrap();
    let chain = pool.chain(TopicId(entry().id), SEQUENCED_LOG).unwrap();
    assert!(chain.oldest_index > 60 && chain.skipped().is_some(), "{chain:?}");
}

/// A copy of a directory that was made while the pool stood still, and put back after it went on.
#[test]
fn an_end_that_was_taken_back_is_none_wherever_it_is_still_said() {
    let two = Two::new("backup");
    let lost = Memory::new();
    let lost = lost.pool(48);
    let term = Term { epoch: 1, serves: false }.pack();
    assert!(lost.claim(0, &LeaderLine { term, ..LeaderLine::default() }) && lost.serve(1));
    lost.set_topic(&entry());
    for directory in two.topics() {
        fs::create_dir_all(&directory).unwrap();
        TopicFile::of(&entry(), &lost.uuid_text(), 48 << 20).unwrap().write(&directory).unwrap();
    }
    let [one, other] = two.topics();
    let mut lives = Vec::new();
    let mut backup = None;
    for _ in 0..2 {
        assert_eq!(say_ended(&lost, 1, &two.data()), [""; 0]);
        backup.get_or_insert_with(|| TopicFile::read(&one).unwrap());
        lives.push([&one, &other].map(|topic| TopicFile::read(topic).unwrap().life));
        go_on(&lost, Some(0), &two.data(), false).unwrap();
    }
    assert_eq!(lives, [[1, 1], [2, 2]]);
    // It went on, and its pool was lost.
    backup.unwrap().write(&one).unwrap();
    let memory = Memory::new();
    let pool = memory.pool(48);
    let notes = restore(&pool, &two.data(), false, 1).unwrap().notes;
    let told = notes.iter().find(|note| note.contains("is older than another")).unwrap();
    assert!(told.contains("broker-0"), "{told}");
    let chain = pool.chain(TopicId(entry().id), SEQUENCED_LOG).unwrap();
    assert!(chain.oldest_index > 0 && chain.skipped().is_some(), "{chain:?}");
    let lives = [&one, &other].map(|topic| TopicFile::read(topic).unwrap().life);
    assert_eq!(lives, [4, 4], "in the new pool it went on once more");
}

#[test]
fn a_directory_that_another_system_is_at_work_in_is_left_alone() {
    let two = Two::new("taken");
    let [one, other] = two.topics();
    say(&one, 50, 48 << 20);
    say(&other, 50, 48 << 20);
    let before = fs::read_to_string(other.join(TOPIC_FILE)).unwrap();
    let pool = Memory::new().pool(48);
    let _broker = owner::take(&two.data()[1], "another pool").unwrap();
    let error = restore(&pool, &two.data(), false, 1).unwrap_err().to_string();
    assert!(error.contains("broker-1") && error.contains("stop it first"), "{error}");
    assert_eq!(fs::read_to_string(other.join(TOPIC_FILE)).unwrap(), before);
    // A broker of this very pool may be there before its control.
    fs::write(two.data()[1].join(owner::OWNER_FILE), pool.uuid_text()).unwrap();
    restore(&pool, &two.data(), false, 1).unwrap();
}

#[test]
fn a_directory_that_is_not_there_ends_the_start_unless_it_is_to_be_forgotten() {
    let two = Two::new("unmounted");
    let [one, _] = two.topics();
    let [first, second] = two.data();
    fs::create_dir_all(&one).unwrap();
    // One copy of what each of two brokers landed.
    let entry = TopicEntry { replicas: 2, ..entry() };
    let file = TopicFile::of(&entry, "a pool that is lost", 48 << 20).unwrap();
    file.write(&one).unwrap();
    let topic = TopicId(entry.id);
    for is_there in [false, true] {
        if is_there {
            // The mount point, and no disk on it.
            fs::create_dir_all(&second).unwrap();
        }
        let mut named = vec![first.clone()];
        named.extend(is_there.then(|| second.clone()));
        let pool = Memory::new().pool(48);
        let error = restore(&pool, &named, false, 1).unwrap_err().to_string();
        assert!(error.starts_with("topic t: what broker 1 landed is kept by broker 1"), "{error}");
        assert!(error.contains("--forget-lost"), "{error}");
        assert!(pool.topic(topic).is_none());
    }
    assert_eq!(TopicFile::read(&one).unwrap(), file, "nothing was written");
    // A broker that kept nothing of the topic so far.
    numbers::name(&second, BrokerId::new(1).unwrap(), "a pool that is lost").unwrap();
    restore(&Memory::new().pool(48), &two.data(), false, 1).unwrap();
    let notes = restore(&Memory::new().pool(48), &[first], true, 1).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("what broker 1 landed")), "{notes:?}");
}

/// Its disk is in no rule: only those that it was named to know of it.
#[test]
fn a_stand_in_whose_directory_is_not_there_ends_the_start_unless_it_is_to_be_forgotten() {
    let two = Two::new("stood-in");
    let entry = TopicEntry { replicas: 2, ..entry() };
    let mut file = TopicFile::of(&entry, "a pool that is lost", 48 << 20).unwrap();
    let topics = two.topics();
    topics.each_ref().iter().for_each(|topic| fs::create_dir_all(topic).unwrap());
    file.write(&topics[0]).unwrap();
    file.places.add(Part { source: 0, copy: 0, keeper: 2, from: 7 });
    file.write(&topics[1]).unwrap();
    let stand_in = two.0.join("broker-2");
    fs::create_dir_all(&stand_in).unwrap();
    let all = [&two.data()[..], std::slice::from_ref(&stand_in)].concat();
    for named in [&all[..2], &all] {
        let pool = Memory::new().pool(48);
        let error = restore(&pool, named, false, 1).unwrap_err().to_string();
        let told = "topic t: a part of what broker 0 landed is kept by broker 2, and no directory";
        assert!(error.starts_with(told) && error.contains("--forget-lost"), "{error}");
        assert!(pool.topic(TopicId(entry.id)).is_none());
    }
    // Under its number it may be a mount point too.
    numbers::name(&stand_in, BrokerId::new(2).unwrap(), "a pool that is lost").unwrap();
    restore(&Memory::new().pool(48), &all, false, 1).unwrap_err();
    let own = topic_directory(&stand_in, "t", CREATED_NS);
    fs::create_dir_all(&own).unwrap();
    file.write(&own).unwrap();
    restore(&Memory::new().pool(48), &all, false, 1).unwrap();
    // Everybody knows it from now on, and which directory it was.
    let places = topics.each_ref().map(|topic| TopicFile::read(topic).unwrap().places);
    let number = Numbers::read(&stand_in).unwrap().id;
    for places in &places {
        let kept = Kept { disk: number, ..Kept::default() };
        assert_eq!((places.parts.len(), &places.disks), (1, &[(2, kept)].into()));
    }
    // Another one in its place, with the same topic in it.
    fs::remove_file(stand_in.join(numbers::NUMBERS_FILE)).unwrap();
    fs::remove_file(stand_in.join(numbers::NUMBERS_COPY)).unwrap();
    numbers::name(&stand_in, BrokerId::new(2).unwrap(), "another").unwrap();
    let error = restore(&Memory::new().pool(48), &all, false, 1).unwrap_err().to_string();
    assert!(error.contains("broker-2 is, and was begun without"), "{error}");
    let notes = restore(&Memory::new().pool(48), &all, true, 1).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("kept by broker 2")), "{notes:?}");
    let places = TopicFile::read(&topics[0]).unwrap().places;
    assert!(places.parts.is_empty(), "it was forgotten: {places:?}");
    restore(&Memory::new().pool(48), &two.data(), false, 1).unwrap();
}

/// What one broker had when it began a directory anew is asked for: it is on another disk.
#[test]
fn a_directory_that_was_begun_anew_does_not_count_for_what_its_broker_had_before() {
    let two = Two::new("anew");
    let entry = TopicEntry { replicas: 2, ..entry() };
    let mut file = TopicFile::of(&entry, "a pool that is lost", 48 << 20).unwrap();
    for (topic, data) in two.topics().iter().zip(two.data()) {
        fs::create_dir_all(topic).unwrap();
        file.write(topic).unwrap();
        let lack = Lack { keeper: 1, source: 1, entries: 5, below: 9, disk: 0, is_torn: false };
        file.places.lacks.insert(lack);
        let number = data.to_str().unwrap().ends_with("-1").into();
        numbers::name(&data, BrokerId::new(number).unwrap(), "a pool that is lost").unwrap();
    }
    let error = restore(&Memory::new().pool(48), &two.data(), false, 1).unwrap_err().to_string();
    assert!(error.contains("kept by broker 1") && error.contains("broker-1 is, and"), "{error}");
    restore(&Memory::new().pool(48), &two.data(), true, 1).unwrap();
    restore(&Memory::new().pool(48), &two.data(), false, 1).unwrap();
}

#[test]
fn a_directory_that_does_not_say_whose_it_is_is_told_as_damaged_and_known_by_its_name() {
    let two = Two::new("numbers");
    let entry = TopicEntry { replicas: 2, ..entry() };
    let file = TopicFile::of(&entry, "a pool that is lost", 48 << 20).unwrap();
    for (number, (topic, data)) in two.topics().iter().zip(two.data()).enumerate() {
        fs::create_dir_all(topic).unwrap();
        file.write(topic).unwrap();
        numbers::name(&data, BrokerId::new(number).unwrap(), "a pool that is lost").unwrap();
    }
    let damage = |data: &Path| {
        for name in [numbers::NUMBERS_FILE, numbers::NUMBERS_COPY] {
            let said = fs::read_to_string(data.join(name)).unwrap();
            fs::write(data.join(name), said.replace("broker 0", "broker 8")).unwrap();
        }
    };
    let [first, _] = two.data();
    damage(&first);
    let notes = restore(&Memory::new().pool(48), &two.data(), false, 1).unwrap().notes;
    let told = notes.iter().find(|note| note.contains("it does not hold")).unwrap();
    assert!(told.contains(".brokers"), "{told}");
    // Where nothing else says it, the sentence does.
    fs::remove_dir_all(first.join("t")).unwrap();
    let error = restore(&Memory::new().pool(48), &two.data(), false, 1).unwrap_err().to_string();
    assert!(error.contains("kept by broker 0") && error.contains("it does not hold"), "{error}");
}

#[test]
fn a_later_directory_without_anything_of_the_topic_hides_no_earlier_one() {
    let two = Two::new("hidden");
    two.topics().iter().for_each(|topic| say(topic, 50, 48 << 20));
    let [first, second] = two.data();
    fs::create_dir_all(topic_directory(&first, "t", 9 * CREATED_NS)).unwrap();
    fs::create_dir_all(topic_directory(&second, "t", 8 * CREATED_NS).join("b0")).unwrap();
    fs::create_dir_all(topic_directory(&first, "foo", 123).join("b0")).unwrap();
    let pool = Memory::new().pool(48);
    let notes = restore(&pool, &two.data(), false, 1).unwrap().notes;
    assert!(pool.topic(TopicId(entry().id)).is_some(), "{notes:?}");
    let passed = notes.iter().filter(|note| note.contains("neither topic.json nor a file"));
    assert_eq!(passed.count(), 3, "{notes:?}");
    // One that cannot be read may be anything.
    let later = topic_directory(&first, "t", 9 * CREATED_NS);
    fs::write(later.join(TOPIC_FILE), "{}").unwrap();
    restore(&Memory::new().pool(48), &two.data(), false, 1).unwrap_err();
}

#[test]
fn a_topic_that_is_deleted_while_its_brokers_are_away_does_not_come_back() {
    let two = Two::new("graves");
    let topics = two.topics();
    topics.each_ref().iter().for_each(|topic| say(topic, 50, 48 << 20));
    // Somebody's clock was ahead.
    let [first, second] = two.data();
    let ahead = u64::MAX / 2;
    fs::create_dir_all(topic_directory(&first, "u", ahead)).unwrap();
    let memory = Memory::new();
    let pool = memory.pool(48);
    let candidate = Candidate::new(&pool, 1).unwrap();
    let Ok(elected) = candidate.stand(&pool) else { panic!("nobody else is there") };
    let data = [first, second];
    let control = Control::lead(pool, &memory.path(), Options::default(), elected, &data).unwrap();
    let asker = control.asker().unwrap();
    asker.ask_now(|reply| Ask::Delete("t".into(), reply)).unwrap().unwrap();
    for topic in &topics {
        assert!(TopicFile::read(topic).unwrap().deleted, "{}", topic.display());
    }
    let again = asker.ask_now(|reply| Ask::Create(spec("u", "strong"), reply)).unwrap().unwrap();
    assert_eq!(again.created_ns, ahead + 1);
    control.stop();
    let pool = Memory::new().pool(48);
    restore(&pool, &two.data(), false, 1).unwrap();
    assert!(pool.topic(TopicId(entry().id)).is_none());
}

/// No broker has a directory yet, so that their locks say nothing.
#[test]
fn a_second_system_brings_nothing_back_while_a_control_has_the_directories() {
    let two = Two::new("second-system");
    two.topics().each_ref().iter().for_each(|topic| say(topic, 50, 48 << 20));
    let (first, second) = (Memory::new(), Memory::new());
    let control = lead(&first, &two.data()).unwrap();
    let pools = || two.topics().map(|topic| TopicFile::read(&topic).unwrap().pool_uuid);
    let before = pools();
    let error = lead(&second, &two.data()[1..]).err().unwrap();
    assert!(error.contains("a broker or control of another pool"), "{error}");
    assert_eq!(pools(), before);
    control.stop();
    lead(&Memory::new(), &two.data()).unwrap().stop();
}
