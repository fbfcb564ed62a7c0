//! An older pool that is started again on directories which another pool has taken up since.

mod fake;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fake::Memory;
use fake::homes::{CREATED_NS, Two, broker, entry, lead, name, remove, said};
use landfall_control::cold::elsewhere::check;
use landfall_control::cold::restore;
use landfall_control::election::Candidate;
use landfall_control::{Control, Options};
use landfall_layout::TopicId;
use landfall_layout::frame::GapReason;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::{ENTRY_HOLE, FrontierLine, OrderEntry};
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::replica::{NO_FILE, RecordHeader, ReplicaHeader, mark_bytes};
use landfall_layout::topic::Order;
use landfall_pool::Pool;
use landfall_replica::names::{TOPIC_COPY, TOPIC_FILE, replica_file, source_directory};
use landfall_replica::there::Kept;
use landfall_replica::{Numbers, Resumed, TopicFile, numbers};
use nix::sys::stat::Mode;

/// Directories of brokers 0 and 1 with topic t, of which both keep everything.
fn two(name_of: &str) -> Two {
    let two = Two::new(name_of);
    for (number, (data, topic)) in two.data().iter().zip(two.topics()).enumerate() {
        fs::create_dir_all(&topic).unwrap();
        name(data, number);
        said(&entry(Order::Total, 3)).write(&topic).unwrap();
    }
    two
}

#[test]
fn a_pool_whose_topics_went_on_in_another_is_not_served_again() {
    let two = two("elsewhere");
    let [first, second] = [Memory::new(), Memory::new()];
    for close in [false, true, false] {
        let control = lead(&first, &two.data()).unwrap();
        if close {
            control.close(&two.data());
        }
    }
    lead(&second, &two.data()).unwrap().stop();
    for _ in 0..2 {
        let why = lead(&first, &two.data()).map(|_| ()).unwrap_err();
        assert!(why.contains("topic t went on in another pool since"), "{why}");
        assert!(why.contains(&second.pool(48).uuid_text()), "{why}");
    }
    lead(&second, &two.data()).unwrap();
}

/// A directory that its broker made anew knows how often the topic went on by that broker's word.
/// The topic comes back from it alone, and the others are of an earlier time.
#[test]
fn a_pool_that_went_on_with_a_directory_made_anew_is_no_older_one() {
    let two = two("made-anew");
    let [first, second] = [Memory::new(), Memory::new()];
    lead(&first, &two.data()).unwrap().stop();
    let topic = &two.topics()[1];
    let mut anew = TopicFile::read(topic).unwrap();
    assert_eq!(anew.life, 1);
    let number = Numbers::read(&two.data()[1]).unwrap().id;
    let word = Kept { life: anew.life, requests: 1, said_ns: 5, disk: number };
    anew.places.disks.insert(1, word);
    anew.life = 0;
    anew.write(topic).unwrap();
    lead(&second, &two.data()[1..]).unwrap().stop();
    lead(&second, &two.data()).unwrap().stop();
    let why = lead(&first, &two.data()).map(|_| ()).unwrap_err();
    assert!(why.contains("topic t went on in another pool since"), "{why}");
}

/// What it ordered would have positions that the later pool has used, though it still has a
/// directory of its own.
#[test]
fn a_pool_of_which_one_directory_went_on_is_served_only_where_that_is_given_up() {
    let two = two("one-elsewhere");
    let [first, second] = [Memory::new(), Memory::new()];
    lead(&first, &two.data()).unwrap().stop();
    lead(&second, &two.data()[1..]).unwrap().stop();
    let pools = two.topics().map(|topic| TopicFile::read(&topic).unwrap().pool_uuid);
    assert_eq!(pools, [first.pool(48).uuid_text(), second.pool(48).uuid_text()]);
    let why = lead(&first, &two.data()).map(|_| ()).unwrap_err();
    let later = second.pool(48).uuid_text();
    assert!(
        why.contains(&format!("went on in another pool since this one had it, {later}")),
        "{why}"
    );
    assert!(why.contains("Start control on that pool") && why.contains("--forget-lost"), "{why}");
    assert!(!why.contains("move it away"), "the later one's is no directory to move away: {why}");
    let notes = check(&first.pool(48), &two.data(), Duration::from_secs(600), true).unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("a later pool") && notes[0].contains("start control on that pool"));
    lead(&second, &two.data()[1..]).unwrap();
}

/// A copy of the pool's file from before was put back.
#[test]
fn a_pool_that_is_behind_its_directories_is_not_served() {
    let two = two("behind");
    let memory = Memory::new();
    let control = lead(&memory, &two.data()).unwrap();
    assert!(control.close(&two.data()).is_empty());
    for topic in two.topics() {
        let whole = TopicFile::read(&topic).unwrap();
        let ended = whole.ended.as_ref().unwrap().logs[&SEQUENCED_LOG].index;
        let (mut further, mut reached) = (whole.clone(), whole.clone());
        let end = further.ended.as_mut().unwrap().logs.get_mut(&SEQUENCED_LOG).unwrap();
        end.index += 1;
        let place = Resumed { index: ended + 1, position: 0 };
        reached.reached.insert(SEQUENCED_LOG, place);
        for said in [further, reached] {
            said.write(&topic).unwrap();
            let why = lead(&memory, &two.data()).map(|_| ()).unwrap_err();
            assert!(why.contains("this pool is older than"), "{why}");
            assert!(
                why.contains(&format!("at index {} there and is at {ended}", ended + 1)),
                "{why}"
            );
        }
        whole.write(&topic).unwrap();
    }
    lead(&memory, &two.data()).unwrap();
}

/// The broker of a pool that lives lands on, and says so in its directory, while control reads it.
#[test]
fn a_broker_that_lands_on_is_not_ahead_of_its_pool() {
    let two = two("lands-on");
    for topic in two.topics() {
        said(&entry(Order::None, 3)).write(&topic).unwrap();
    }
    // Without a control, whose threads read directories too.
    let memory = Memory::new();
    let (pool, data, topic) = (memory.pool(48), &two.data()[..1], &two.topics()[0]);
    let term = Term { epoch: 1, serves: false }.pack();
    assert!(pool.claim(1, &LeaderLine { term, ..LeaderLine::default() }));
    pool.copy_tables(None);
    restore(&pool, &two.data(), false, 1).unwrap();
    assert!(pool.serve(1));
    let id = TopicId(entry(Order::None, 3).id);
    pool.start_frontier(id, 0);
    let here = pool.frontier(id, 0);
    let mut further = TopicFile::read(topic).unwrap();
    let place = Resumed { index: here.entries + 9, position: here.position + 9 };
    further.reached.insert(0, place);
    further.write(topic).unwrap();
    // Who opens it for reading waits for who writes.
    let (file, copy) = (topic.join(TOPIC_FILE), topic.join(TOPIC_COPY));
    let text = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::remove_file(copy).unwrap();
    nix::unistd::mkfifo(&file, Mode::S_IRWXU).unwrap();
    thread::scope(|scope| {
        let looks = scope.spawn(|| check(&pool, data, Duration::from_secs(600), false));
        let mut file = File::options().write(true).open(&file).unwrap();
        let line = FrontierLine { entries: place.index, position: place.position, ..here };
        pool.advance_frontier(id, 0, &line);
        file.write_all(&text).unwrap();
        drop(file);
        assert!(looks.join().unwrap().is_ok_and(|notes| notes.is_empty()));
    });
}

/// A file of broker 0's batches that was begun at log index `first_index` in a pool.
fn begin_file(topic: &Path, pool: [u8; 16], first_index: u64) -> PathBuf {
    let mut header = ReplicaHeader::from_bytes([0; ReplicaHeader::BYTES as usize]);
    let of = entry(Order::Total, 3);
    (header.pool_uuid, header.first_index, header.previous_index) = (pool, first_index, NO_FILE);
    (header.created_ns, header.topic, header.mark) = (CREATED_NS, of.id, 5);
    (header.log, header.order, header.opened_ns) = (SEQUENCED_LOG as u8, of.order, 1);
    (header.name_bytes, header.name) = (of.name_bytes, of.name);
    let directory = source_directory(topic, broker(0));
    fs::create_dir_all(&directory).unwrap();
    let path = replica_file(&directory, first_index);
    fs::write(&path, header.seal().page()).unwrap();
    path
}

fn end_of(pool: &Pool) -> u64 {
    pool.frontier(landfall_layout::TopicId(entry(Order::Total, 3).id), SEQUENCED_LOG).entries
}

/// No directory says in words how far the log was: the system was killed, or the copy was made
/// while it ran.
#[test]
fn a_pool_that_is_behind_its_files_is_not_served() {
    let two = two("behind-files");
    let memory = Memory::new();
    lead(&memory, &two.data()).unwrap().stop();
    let pool = memory.pool(48);
    let (uuid, end) = (pool.header().uuid, end_of(&pool));
    for topic in two.topics() {
        let at_the_end = begin_file(&topic, uuid, end);
        lead(&memory, &two.data()).unwrap().stop();
        fs::remove_file(at_the_end).unwrap();
        // One that the pool before began goes on in this one.
        for begun_in in [uuid, [9; 16]] {
            let file = begin_file(&topic, begun_in, end + 1);
            let why = lead(&memory, &two.data()).map(|_| ()).unwrap_err();
            let says =
                format!("older than {} says: log {SEQUENCED_LOG} of topic t", file.display());
            assert!(why.contains(&says), "{why}");
            let says = format!("was at index {} there and is at {end} here", end + 1);
            assert!(why.contains(&says) && why.contains("start with --restore"), "{why}");
        }
        let (file, copy) = (topic.join(TOPIC_FILE), topic.join(TOPIC_COPY));
        let text = fs::read(&file).unwrap();
        // Whose files they are only they say.
        [&file, &copy].iter().for_each(|path| fs::write(path, "{").unwrap());
        lead(&memory, &two.data()).unwrap().stop();
        begin_file(&topic, uuid, end + 1);
        assert!(lead(&memory, &two.data()).is_err());
        // A directory that was away when the topic came back.
        let elsewhere = TopicFile { life: 0, ..said(&entry(Order::Total, 3)) };
        elsewhere.replace(&topic).unwrap();
        lead(&memory, &two.data()).unwrap().stop();
        [&file, &copy].iter().for_each(|path| fs::write(path, &text).unwrap());
        remove(&source_directory(&topic, broker(0)));
    }
    lead(&memory, &two.data()).unwrap();
}

/// A standby takes a running system over, whose files grow. One that saw a control that only looks
/// whether it may serve looks itself.
#[test]
fn only_who_saw_a_leader_that_serves_does_not_look_at_files() {
    let two = two("behind-standby");
    let memory = Memory::new();
    lead(&memory, &two.data()).unwrap().stop();
    let pool = memory.pool(48);
    let stands = |serves: bool| {
        let other = memory.pool(48);
        let led = Candidate::new(&other, 1).unwrap();
        let Ok(first) = led.stand(&other) else { panic!("nobody else is there") };
        if serves {
            other.copy_tables(first.from);
            assert!(other.serve(first.epoch));
        }
        let mut standby = Candidate::new(&pool, 60_000_000_000).unwrap();
        for beat in 1..3 {
            other.beat_leader(beat);
            let Err((again, _)) = standby.stand(&pool) else { panic!("another one leads") };
            standby = again;
        }
        drop(first);
        let Ok(elected) = standby.stand(&pool) else { panic!("it is gone") };
        elected
    };
    assert!(!stands(false).has_seen_leader);
    let elected = stands(true);
    assert!(elected.has_seen_leader);
    begin_file(&two.topics()[0], pool.header().uuid, end_of(&pool) + 1);
    let (path, options) = (memory.path(), Options::default());
    Control::lead(memory.pool(48), &path, options, elected, &two.data()).map(|_| ()).unwrap();
    assert!(lead(&memory, &two.data()).is_err());
}

/// A broker that starts goes by it: its disk may be another one by then.
#[test]
fn what_disks_had_of_each_source_is_said_in_the_pool() {
    let two = two("tails");
    let file = begin_file(&two.topics()[0], [9; 16], 0);
    let mut bytes = fs::read(&file).unwrap();
    for (ordinal, index) in [(0, 3), (1, 7)] {
        let mut head = RecordHeader::from_words([0; RecordHeader::WORDS]);
        (head.index, head.ordinal, head.at) = (index, ordinal, bytes.len() as u64);
        (head.created_ns, head.mark) = (CREATED_NS, mark_bytes(5));
        let hole = OrderEntry {
            first_position: 10 * index,
            count: 4,
            flags: ENTRY_HOLE,
            commit: index + 1,
            ..OrderEntry::default()
        };
        bytes.extend(head.seal_hole(&hole, GapReason::Unwritten));
    }
    fs::write(&file, bytes).unwrap();
    let topic = landfall_layout::TopicId(entry(Order::Total, 3).id);
    let tails = |pool: &Pool| [0, 1].map(|source| pool.tail_on_disk(topic, broker(source)));
    let memory = Memory::new();
    for _ in 0..2 {
        lead(&memory, &two.data()).unwrap().stop();
        assert_eq!(tails(&memory.pool(48)), [8, 0]);
    }
    // The other directory is later, and knows of more: what only the older one can have had.
    for (life, is_lost) in [(1, true), (2, false)] {
        for (number, directory) in two.topics().iter().enumerate() {
            let mut file = TopicFile { life, ..said(&entry(Order::Total, 3)) };
            if number == 1 {
                file.life = 2;
                file.reached.insert(SEQUENCED_LOG, Resumed { index: 12, position: 200 });
            }
            file.replace(directory).unwrap();
        }
        let memory = Memory::new();
        lead(&memory, &two.data()).unwrap().stop();
        assert_eq!(tails(&memory.pool(48)), [if is_lost { 12 } else { 8 }, 0]);
    }
}

#[test]
fn a_pool_whose_topic_was_deleted_in_a_later_one_is_not_served() {
    let two = two("gone-since");
    let first = Memory::new();
    lead(&first, &two.data()).unwrap().stop();
    let uuid = first.pool(48).uuid_text();
    let name_all = |pool: &str| {
        for (number, data) in two.data().iter().enumerate() {
            numbers::name(data, broker(number), pool).unwrap();
        }
    };
    name_all(&uuid);
    let files: Vec<TopicFile> =
        two.topics().iter().map(|topic| TopicFile::read(topic).unwrap()).collect();
    // Wiped disks, of this pool still: brokers say anew what the topic is.
    two.topics().iter().for_each(|topic| remove(topic));
    lead(&first, &two.data()).unwrap().stop();
    name_all("a later pool");
    let why = lead(&first, &two.data()).map(|_| ()).unwrap_err();
    assert!(why.contains("since, a later pool, and no directory has anything of topic t"), "{why}");
    // One that still has it, or that was this pool's last, says that it is not gone.
    fs::create_dir_all(&two.topics()[0]).unwrap();
    files[0].replace(&two.topics()[0]).unwrap();
    lead(&first, &two.data()).unwrap().stop();
    remove(&two.topics()[0]);
    numbers::name(&two.data()[1], broker(1), &uuid).unwrap();
    lead(&first, &two.data()).unwrap();
}
