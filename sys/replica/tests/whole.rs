//! Whether what a directory says that it lacks is missing, where bounds let go of files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::order::FrontierLine;
use landfall_layout::replica::{NO_FILE, RecordHeader, ReplicaHeader};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_replica::names::{replica_file, source_directory, topic_directory};
use landfall_replica::there::{Disk, Lack, Lost, Part, UNCOUNTED, absent};
use landfall_replica::{TopicFile, Unkept, numbers};

const CREATED: u64 = 7;
const POOL: &str = "a pool";

/// Data directories of three brokers, removed at the end.
struct Three(PathBuf);

impl Three {
    fn data(&self, broker: u8) -> PathBuf {
        self.0.join(format!("broker-{broker}"))
    }

    fn topic(&self, broker: u8) -> PathBuf {
        topic_directory(&self.data(broker), "t", CREATED)
    }

    /// The brokers of whose batches no copy is whole.
    fn absent(&self, file: &TopicFile) -> Vec<u8> {
        let topics: Vec<PathBuf> = (0..3).map(|broker| self.topic(broker)).collect();
        let disks: Vec<Disk> = (0..3).map(|broker| Disk::look(&self.data(broker))).collect();
        let lost = absent(file, &BTreeSet::new(), &topics, &disks);
        lost.into_iter().map(|absent| absent.source).collect()
    }
}

impl Drop for Three {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A file in which broker 0 landed nothing: first index, the one of the file before it, entries
/// before it, and its end.
fn file(topic: &Path, (first_index, previous_index, ordinal, index): (u64, u64, u64, u64)) {
    let directory = source_directory(topic, BrokerId::new(0).unwrap());
    fs::create_dir_all(&directory).unwrap();
    let mut header = ReplicaHeader::from_bytes([0; ReplicaHeader::BYTES as usize]);
    (header.created_ns, header.first_index) = (CREATED, first_index);
    (header.first_ordinal, header.previous_index) = (ordinal, previous_index);
    (header.name[0], header.name_bytes, header.log) = (b't', 1, 32);
    let mut bytes = header.seal().page().to_vec();
    let (at, created_ns) = (bytes.len() as u64, CREATED);
    let record = RecordHeader { index, ordinal, at, created_ns, ..RecordHeader::default() };
    let line = FrontierLine { entries: index, ..FrontierLine::default() };
    bytes.extend_from_slice(&record.seal_frontier(&line));
    fs::write(replica_file(&directory, first_index), bytes).unwrap();
}

/// Broker 2 stood in for broker 0 once, and has another disk now, which lacks what nobody counted
/// below log index 500.
fn lacking(name: &str, disk_bytes: u64) -> (Three, TopicFile) {
    let name = format!("landfall-whole-{name}-{}", std::process::id());
    let three = Three(std::env::temp_dir().join(name));
    let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
    (entry.name[0], entry.name_bytes, entry.created_ns) = (b't', 1, CREATED);
    (entry.order, entry.replicas, entry.replica_brokers) = (Order::Total.raw(), 2, 2);
    entry.disk_bytes = disk_bytes;
    let mut says = TopicFile::of(&entry, POOL, 1).unwrap();
    says.places.add(Part { source: 0, copy: 0, keeper: 2, from: 100 });
    for broker in 0..3 {
        fs::create_dir_all(three.topic(broker)).unwrap();
        numbers::name(&three.data(broker), BrokerId::new(broker.into()).unwrap(), POOL).unwrap();
        says.places.keep(broker, numbers::number(&three.data(broker)).unwrap(), 1);
    }
    (0..2).for_each(|broker| says.write(&three.topic(broker)).unwrap());
    let (keeper, source, below, disk) = (2, 0, 500, 77);
    let lack = Lack { keeper, source, entries: UNCOUNTED, below, disk, is_torn: false };
    says.places.lacks.insert(lack);
    says.write(&three.topic(2)).unwrap();
    (three, says)
}

#[test]
fn what_a_stand_in_lacks_is_not_missing_where_bounds_let_go_of_it() {
    let (three, says) = lacking("bounds", 1);
    assert_eq!(three.absent(&says), [0], "its home has nothing");
    let (home, own) = (three.topic(0), three.topic(2));
    // What the directory says of itself does not count.
    file(&own, (300, 200, 30, 500));
    assert_eq!(three.absent(&says), [0]);
    // Its home let go of what came first, and has the rest.
    file(&home, (300, 200, 30, 400));
    assert_eq!(three.absent(&says), [0], "it has not got as far");
    file(&home, (300, 200, 30, 500));
    assert!(three.absent(&says).is_empty());
    let endless = TopicFile { disk_bytes: 0, ..says.clone() };
    assert_eq!(three.absent(&endless), [0], "nothing lets go of anything");
    // It has what came first, too, and is without what the stand-in had.
    file(&home, (0, NO_FILE, 0, 100));
    file(&home, (300, NO_FILE, 30, 500));
    assert_eq!(three.absent(&says), [0]);
    file(&home, (100, 0, 0, 300));
    file(&home, (300, 100, 0, 500));
    assert!(three.absent(&says).is_empty(), "it copied that");
}

#[test]
fn what_is_on_no_disk_is_lacking_in_none() {
    let (three, mut says) = lacking("nowhere", 0);
    // It was in memory alone when a pool was stopped in good order, and that is gone.
    says.places.unkept.insert(Unkept { index: 0, to_index: 300, log: 32, source: 1 });
    says.places.unkept.insert(Unkept { index: 0, to_index: 300, log: 32, source: 0 });
    assert_eq!(three.absent(&says), [0]);
    // The rest was told as lost at a cold start.
    let mut told = says.clone();
    told.places.lost = Lost::of(3);
    told.places.lost.add(32, vec![(300, 500)]);
    assert!(three.absent(&told).is_empty());
    // A later start found a file that has it, which is away again.
    let mut later = says.clone();
    later.places.lost = Lost::of(4);
    told.places.join(&later.places);
    later.places.join(&told.places);
    assert_eq!((three.absent(&told), three.absent(&later)), (vec![0], vec![0]));
    says.places.unkept.insert(Unkept { index: 300, to_index: 500, log: 32, source: 1 });
    assert_eq!(three.absent(&says), [0], "that is another's");
    says.places.unkept.insert(Unkept { index: 300, to_index: 500, log: 32, source: 0 });
    assert!(three.absent(&says).is_empty());
}
