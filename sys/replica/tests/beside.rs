//! What others say in a topic's directory while somebody who was stopped has its lock.

use std::fs::{self, File};
use std::path::PathBuf;

use landfall_layout::topic::{Order, TopicEntry};
use landfall_replica::names::{list_topic, topic_directory};
use landfall_replica::there::{Part, Places};
use landfall_replica::{FileError, TopicFile};

fn topic(name: &str) -> (PathBuf, PathBuf) {
    let data = std::env::temp_dir().join(format!("landfall-{name}-{}", std::process::id()));
    let topic = topic_directory(&data, "t", 7);
    fs::create_dir_all(&topic).unwrap();
    let mut entry = TopicEntry::from_words([0; 32]);
    entry.name[0] = b't';
    (entry.name_bytes, entry.created_ns, entry.order) = (1, 7, Order::Strong.raw());
    TopicFile::of(&entry, "a pool", 1 << 30).unwrap().write(&topic).unwrap();
    (data, topic)
}

fn on_disk(broker: u8, disk: u64) -> Places {
    let mut places = Places::default();
    places.keep(broker, disk, disk);
    places
}

const PART: Part = Part { source: 0, copy: 1, keeper: 2, from: 44 };

#[test]
fn what_others_say_needs_no_lock_that_a_stopped_process_may_have() {
    let (data, topic) = topic("beside");
    let kept = File::open(&topic).unwrap();
    kept.lock().unwrap();
    let own = TopicFile::change(&topic, |file| (file, ()));
    assert!(matches!(own, Err(FileError::Locked { .. })), "{own:?}");
    PART.tell(&topic).unwrap();
    on_disk(1, 70).tell(&topic).unwrap();
    on_disk(1, 90).tell(&topic).unwrap();
    let mut all = on_disk(1, 90);
    all.add(PART);
    assert_eq!(TopicFile::read(&topic).unwrap().places, all);
    assert!(TopicFile::faults(&topic).is_empty() && TopicFile::word_faults(&topic).is_empty());
    let mut strangers = Vec::new();
    assert!(list_topic(&topic, &mut strangers).unwrap().is_empty());
    assert_eq!(strangers, Vec::<PathBuf>::new());
    // What is only called like it is passed over, as everything strange is.
    let strange = topic.join("said-old");
    fs::create_dir(&strange).unwrap();
    assert_eq!(TopicFile::read(&topic).unwrap().places, all);
    assert!(list_topic(&topic, &mut strangers).unwrap().is_empty());
    assert_eq!(strangers, [strange]);
    TopicFile::bury(&topic).unwrap();
    assert!(TopicFile::read(&topic).unwrap().deleted);
    drop(kept);
    fs::remove_dir_all(data).unwrap();
}

#[test]
fn what_others_said_is_kept_by_its_broker_and_goes_when_control_puts_it_together() {
    let (data, topic) = topic("together");
    PART.tell(&topic).unwrap();
    TopicFile::change(&topic, |file| {
        let file = file.unwrap();
        assert_eq!(file.places.parts.len(), 1, "the broker reads it too");
        (Some(TopicFile { life: 5, ..file }), ())
    })
    .unwrap();
    let said = fs::read_to_string(topic.join("topic.json")).unwrap();
    assert!(said.contains("\"keeper\": 2"), "{said}");
    // What is to be forgotten is not said again.
    let there = TopicFile::read(&topic).unwrap();
    let forgotten = TopicFile { places: Places::default(), ..there };
    let done: Result<(), ()> = forgotten.replace_if(&topic, |_| Ok(())).unwrap();
    done.unwrap();
    assert_eq!(TopicFile::read(&topic).unwrap(), forgotten);
    fs::remove_dir_all(data).unwrap();
}

#[test]
fn a_word_that_does_not_hold_is_a_fault_and_says_nothing() {
    let (data, topic) = topic("fault");
    PART.tell(&topic).unwrap();
    let mut listed = fs::read_dir(&topic).unwrap().map(|entry| entry.unwrap().path());
    let is_word = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("said-");
    let word = listed.find(is_word).unwrap();
    let mut bytes = fs::read(&word).unwrap();
    bytes[20] ^= 1;
    fs::write(&word, bytes).unwrap();
    assert!(TopicFile::read(&topic).unwrap().places.is_empty());
    assert!(TopicFile::faults(&topic).is_empty());
    let faults = TopicFile::word_faults(&topic);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].to_string().contains("said-"), "{}", faults[0]);
    fs::remove_dir_all(data).unwrap();
}
