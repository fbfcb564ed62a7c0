//! A disk without any room: what is said of a topic changes all the same, and one that is deleted
//! goes, which is what makes room.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use landfall_layout::batch::crc32c;
use landfall_layout::topic::{Order, TopicEntry};
use landfall_replica::names::{list, topic_directory};
use landfall_replica::{Ended, Resumed, TopicFile};

/// Names the directory that the small disk is mounted at.
const DISK: &str = "LANDFALL_TEST_SMALL_DISK";

/// Runs this test again with a disk of 256 KiB, where this process may make one.
fn on_a_small_disk(name: &str, test: impl Fn(PathBuf)) {
    if let Some(disk) = std::env::var_os(DISK) {
        return test(disk.into());
    }
    let may = Command::new("unshare").args(["-m", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("NOT RUN: this process may not make a mount namespace (unshare -m true)");
        return;
    }
    let number = std::process::id();
    let disk = std::env::temp_dir().join(format!("landfall-small-{name}-{number}"));
    fs::create_dir_all(&disk).unwrap();
    let program = std::env::current_exe().unwrap();
    let script =
        format!("mount -t tmpfs -o size=256k none \"${DISK}\" && exec \"$0\" --exact {name}");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).arg(program).env(DISK, &disk);
    let output = command.output().unwrap();
    fs::remove_dir(&disk).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

#[test]
fn a_topic_is_buried_without_any_room() {
    on_a_small_disk("a_topic_is_buried_without_any_room", |disk| {
        let mut entry = TopicEntry::from_words([0; 32]);
        entry.name[0] = b't';
        (entry.name_bytes, entry.created_ns, entry.order) = (1, 7, Order::Strong.raw());
        let topic = topic_directory(&disk, "t", 7);
        fs::create_dir_all(&topic).unwrap();
        TopicFile::of(&entry, "a pool", 1 << 30).unwrap().write(&topic).unwrap();
        let mut filler = fs::File::create(disk.join("filler")).unwrap();
        while filler.write_all(&[1; 512]).is_ok() {}
        TopicFile::bury(&topic).unwrap();
        assert!(TopicFile::read(&topic).unwrap().deleted);
        // Once more, as a broker does that died in between.
        TopicFile::bury(&topic).unwrap();
        // The file that says whose they are may be damaged by then.
        fs::write(topic.join("topic.json"), b"").unwrap();
        assert!(TopicFile::read(&topic).unwrap().deleted);
        let listing = list(&disk).unwrap();
        assert_eq!((listing.topics.len(), listing.topics[0].sources.len()), (1, 0));
    });
}

#[test]
fn what_is_said_of_a_topic_changes_without_any_room() {
    on_a_small_disk("what_is_said_of_a_topic_changes_without_any_room", |disk| {
        let mut entry = TopicEntry::from_words([0; 32]);
        entry.name[0] = b't';
        (entry.name_bytes, entry.created_ns, entry.order) = (1, 7, Order::Strong.raw());
        let mut file = TopicFile::of(&entry, "a pool", 1 << 30).unwrap();
        // One as an earlier program left it, without a generation and nothing to spare.
        let topic = topic_directory(&disk, "t", 7);
        let earlier = topic_directory(&disk, "u", 7);
        [&topic, &earlier].into_iter().for_each(|path| fs::create_dir_all(path).unwrap());
        file.write(&topic).unwrap();
        let old = TopicFile { schema_version: 3, ..file.clone() };
        let mut text = serde_json::to_vec_pretty(&old).unwrap();
        text.truncate(text.len() - 2);
        let sum = format!(",\n  \"checksum\": {}\n}}\n", crc32c(&text));
        text.extend(sum.as_bytes());
        for name in ["topic.json", "topic.json.copy"] {
            fs::write(earlier.join(name), &text).unwrap();
        }
        let mut filler = fs::File::create(disk.join("filler")).unwrap();
        while filler.write_all(&[1; 512]).is_ok() {}
        for life in 1..200 {
            file.life = life;
            file.resumed.insert(32, Resumed { index: life << 40, position: u64::MAX - life });
            file.ended = (life % 2 == 0).then(Ended::default);
            for path in [&topic, &earlier] {
                let change = |there: Option<TopicFile>| {
                    assert_eq!(there.unwrap().life, life - 1);
                    (Some(file.clone()), ())
                };
                TopicFile::change(path, change).unwrap();
                assert_eq!(TopicFile::read(path).unwrap(), file);
                assert!(TopicFile::faults(path).is_empty());
            }
        }
        // What does not fit says so, and what was said stays.
        let mut large = file.clone();
        large.reached.extend((0..200).map(|log| (log, Resumed { index: 1, position: 1 })));
        TopicFile::change(&topic, |_| (Some(large.clone()), ())).unwrap_err();
        assert_eq!(TopicFile::read(&topic).unwrap(), file);
        assert!(TopicFile::faults(&topic).is_empty());
    });
}
