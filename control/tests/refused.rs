//! A system that refuses to read a file says nothing of what is in it.

mod fake;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use fake::Memory;
use fake::homes::{self, LOST, Two, broker, said};
use landfall_control::cold::{ColdError, restore};
use landfall_layout::TopicId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::topic::{Order, TopicEntry};
use landfall_replica::names::{TOPIC_FILE, replica_file, source_directory};
use landfall_replica::there::Part;
use landfall_replica::{Resumed, TopicFile};

/// Data directories of two brokers with topic t, gone with this value.
struct Refused(Two);

impl Refused {
    fn new(name: &str) -> Self {
        let two = Two::new(&format!("refused-{name}"));
        for (number, (data, topic)) in two.data().iter().zip(two.topics()).enumerate() {
            fs::create_dir_all(source_directory(&topic, broker(0))).unwrap();
            homes::name(data, number);
            let mut file = said(&entry());
            file.resumed.insert(SEQUENCED_LOG, Resumed { index: 50, position: 500 });
            file.write(&topic).unwrap();
        }
        Self(two)
    }

    fn topic(&self, which: usize) -> PathBuf {
        self.0.topics()[which].clone()
    }

    /// Brings the topic back into a new pool; the index at which its log goes on.
    fn restore(&self, forgets_lost: bool) -> Result<u64, ColdError> {
        let memory = Memory::new();
        let pool = memory.pool(48);
        restore(&pool, &self.0.data(), forgets_lost, 1)?;
        Ok(pool.chain(TopicId(entry().id), SEQUENCED_LOG).unwrap().oldest_index)
    }

    /// What the start is refused with, which names the path and what to do; no file was changed.
    fn refusal(&self, name: &str) -> String {
        let error = self.restore(false).unwrap_err();
        assert!(matches!(error, ColdError::Refused { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("os error"), "{text}");
        assert!(text.contains("--forget-lost"), "{text}");
        assert_eq!(TopicFile::read(&self.topic(0)).unwrap().pool_uuid, LOST);
        text
    }
}

fn entry() -> TopicEntry {
    homes::entry(Order::Strong, 3)
}

/// A file that the system does not read for root either: what follows a link without an end is
/// refused when it is opened, what is a directory when it is read.
#[test]
fn a_replica_file_that_the_system_refuses_is_not_taken_for_damage() {
    for is_open_refused in [true, false] {
        let two = Refused::new("replica");
        let path = replica_file(&source_directory(&two.topic(1), broker(0)), 60);
        match is_open_refused {
            true => symlink(&path, &path).unwrap(),
            false => fs::create_dir(&path).unwrap(),
        }
        two.refusal("00060.replica");
        two.restore(true).unwrap();
        // What its bytes say is damage, and the log goes on behind what they may have had.
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        fs::write(&path, vec![7; 1 << 14]).unwrap();
        assert!(two.restore(false).unwrap() > 60);
    }
}

#[test]
fn a_topic_file_that_the_system_refuses_ends_the_start_also_where_another_is_there() {
    let two = Refused::new("topic");
    let names = [TOPIC_FILE, "topic.json.copy"];
    for name in names {
        let path = two.topic(1).join(name);
        fs::remove_file(&path).unwrap();
        symlink(&path, &path).unwrap();
    }
    two.refusal(TOPIC_FILE);
    // Damaged, it is put together from the other directory.
    for name in names {
        let path = two.topic(1).join(name);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "{").unwrap();
    }
    two.restore(false).unwrap();
}

/// Files of the topic are there: the directory is as one whose topic's file does not hold.
#[test]
fn a_topic_file_that_is_gone_is_no_refusal() {
    let two = Refused::new("gone");
    let path = replica_file(&source_directory(&two.topic(1), broker(0)), 60);
    fs::write(&path, vec![7; 1 << 14]).unwrap();
    for name in [TOPIC_FILE, "topic.json.copy"] {
        fs::remove_file(two.topic(1).join(name)).unwrap();
    }
    assert!(two.restore(false).unwrap() > 60, "what is there counts");
}

#[test]
fn a_directory_that_the_system_does_not_look_at_is_not_passed_over() {
    let two = Refused::new("directory");
    let path = source_directory(&two.topic(1), broker(1));
    symlink(&path, &path).unwrap();
    let error = two.restore(false).unwrap_err();
    assert!(matches!(error, ColdError::Directory { .. }), "{error}");
    assert!(error.to_string().contains("/b1: "), "{error}");
}

#[test]
fn a_word_that_does_not_hold_is_told_of_and_what_is_only_called_like_one_is_passed_over() {
    let two = Refused::new("word");
    Part { source: 0, copy: 0, keeper: 1, from: 0 }.tell(&two.topic(0)).unwrap();
    let names = fs::read_dir(two.topic(0)).unwrap().map(|entry| entry.unwrap().path());
    let is_word = |path: &PathBuf| path.to_string_lossy().contains("/said-");
    let words: Vec<PathBuf> = names.filter(is_word).collect();
    assert_eq!(words.len(), 1, "{words:?}");
    fs::write(&words[0], "half").unwrap();
    fs::create_dir(two.topic(1).join("said-old")).unwrap();
    let memory = Memory::new();
    let notes = restore(&memory.pool(48), &two.0.data(), false, 1).unwrap().notes;
    let word = words[0].display().to_string();
    let told: Vec<&String> = notes.iter().filter(|note| note.contains("said-")).collect();
    assert_eq!(told.len(), 1, "{notes:?}");
    assert!(told[0].starts_with(&word) && told[0].contains("other directories"), "{told:?}");
}
