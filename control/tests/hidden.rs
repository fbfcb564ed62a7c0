//! Two disks with different topics of one name: the later one hides the other only if that one was
//! given up.

mod fake;

use std::fs;

use fake::Memory;
use fake::homes::{self, CREATED_NS, Two};
use landfall_control::cold::{Restored, restore};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_replica::names::{replica_file, source_directory, topic_directory};
use landfall_replica::{TopicFile, deletions};

/// A topic on the first disk, with a file or without, and on the second one of its name that was
/// made later.
fn disks(name: &str, has_file: bool) -> Two {
    let two = Two::new(name);
    let first = homes::entry(Order::Total, 1);
    let later = TopicEntry { created_ns: CREATED_NS + 1, ..first };
    for (number, (data, entry)) in two.data().iter().zip([&first, &later]).enumerate() {
        let topic = topic_directory(data, "t", entry.created_ns);
        fs::create_dir_all(&topic).unwrap();
        homes::said(entry).write(&topic).unwrap();
        homes::name(data, number);
    }
    if has_file {
        let source = source_directory(&two.topics()[0], homes::broker(0));
        fs::create_dir_all(&source).unwrap();
        fs::write(replica_file(&source, 0), b"batches").unwrap();
    }
    two
}

fn start(two: &Two, forgets_lost: bool) -> Result<Restored, String> {
    let pool = Memory::new().pool(48);
    restore(&pool, &two.data(), forgets_lost, 1).map_err(|error| error.to_string())
}

fn says(restored: &Restored, what: &str) -> bool {
    restored.news.iter().chain(&restored.notes).any(|note| note.contains(what))
}

#[test]
fn a_later_topic_on_another_disk_hides_none_of_its_name() {
    let two = disks("hidden", true);
    let refused = start(&two, false).unwrap_err();
    for part in ["topic t: ", "broker-0/", "broker-1/", "nothing says that it was deleted"] {
        assert!(refused.contains(part), "{refused}");
    }
    let restored = start(&two, true).unwrap();
    assert!(says(&restored, "nothing says that it was deleted"), "{:?}", restored.notes);
    assert!(says(&restored, "topic t is back"), "{restored:?}");
}

#[test]
fn one_that_was_deleted_or_has_nothing_or_stood_beside_the_later_one_holds_nobody_up() {
    let two = disks("hidden-deleted", true);
    deletions::say(&two.data()[1], [&("t".to_owned(), CREATED_NS)]).unwrap();
    assert!(says(&start(&two, false).unwrap(), "of an earlier topic t"));

    let two = disks("hidden-buried", true);
    TopicFile::bury(&two.topics()[0]).unwrap();
    assert!(says(&start(&two, false).unwrap(), "of an earlier topic t"));

    let two = disks("hidden-empty", false);
    assert!(says(&start(&two, false).unwrap(), "of an earlier topic t"));

    // Whoever made it there was told of the other.
    let two = disks("hidden-beside", true);
    let beside = topic_directory(&two.data()[0], "t", CREATED_NS + 1);
    fs::create_dir_all(&beside).unwrap();
    let later = topic_directory(&two.data()[1], "t", CREATED_NS + 1);
    TopicFile::read(&later).unwrap().write(&beside).unwrap();
    assert!(says(&start(&two, false).unwrap(), "of an earlier topic t"));
}
