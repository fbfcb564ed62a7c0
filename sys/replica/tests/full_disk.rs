//! A disk without any room: a topic that is deleted goes all the same, which is what makes room.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use landfall_layout::topic::{Order, TopicEntry};
use landfall_replica::TopicFile;
use landfall_replica::names::{list, topic_directory};

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
    let disk = std::env::temp_dir().join(format!("landfall-small-{}", std::process::id()));
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
