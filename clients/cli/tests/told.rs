//! What people are told of what cannot be, and of what came between.

mod common;

use std::path::PathBuf;

use common::{System, text};

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("landfall-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A topic whose receipts say replicated never gives durable: what is told of it is what there is.
#[test]
fn a_level_that_a_topic_never_gives_is_refused_before_anything_is_sent() {
    let data = Dir::new("levels");
    let system = System::start_with(1, &["--data", data.path()]);
    system.ok(&["topic", "create", "w", "--replicas", "2", "--durability", "window"], b"");
    system.ok(&["topic", "create", "s", "--replicas", "2"], b"");
    system.ok(&["topic", "create", "m"], b"");
    let cases = [
        ("w", "durable", &["durability window", "--ack replicated", "--durability sync"][..]),
        ("m", "replicated", &["no copy on a disk", "--ack ordered", "--replicas 2"]),
    ];
    for (topic, level, said) in cases {
        let output = system.run(&["publish", topic, "--ack", level], b"x\n");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(said.iter().all(|said| stderr.contains(said)), "{stderr}");
        let described = system.json(&["topic", "describe", topic, "-o", "json"]);
        assert_eq!(described["messages"], 0);
    }
    for (topic, level) in [("w", "replicated"), ("s", "replicated"), ("s", "durable")] {
        let output = system.run(&["publish", topic, "--ack", level], b"x\n");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(stderr.contains(&format!("1 messages reached the level {level}")), "{stderr}");
    }
}
