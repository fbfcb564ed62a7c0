//! Files as a broker leaves them, and as a crash leaves them.

use std::fs;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::batch::{BatchPreamble, crc32c};
use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::replica::{Body, NO_FILE, REPLICA_HEADER_BYTES, RecordHeader, ReplicaHeader};
use landfall_layout::topic::{Order, TOPIC_WINDOW, TopicEntry};
use landfall_replica::mend::{create_directory, settle_and_cut};
use landfall_replica::names::{list, replica_file, source_directory, topic_directory};
use landfall_replica::survey::Seam;
use landfall_replica::{FileError, FileSurvey, SourceSurvey, TopicFile, Walk};

const CREATED: u64 = 1_700_000_000_000_000_000;

/// A directory of its own for each test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("replica-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn broker(number: usize) -> BrokerId {
    BrokerId::new(number).unwrap()
}

/// A file being written in memory.
struct Writer {
    bytes: Vec<u8>,
    ordinal: u64,
}

impl Writer {
    fn new(first_index: u64, ordinal: u64, previous_index: u64) -> Self {
        let mut header = ReplicaHeader::from_bytes([0; 256]);
        header.created_ns = CREATED;
        header.first_index = first_index;
        header.first_ordinal = ordinal;
        header.previous_index = previous_index;
        header.source = 1;
        header.log = 32;
        header.name_bytes = 1;
        header.name[0] = b't';
        let mut bytes = header.seal().to_bytes().to_vec();
        bytes.resize(REPLICA_HEADER_BYTES as usize, 0);
        Self { bytes, ordinal }
    }

    fn record(&self, index: u64) -> RecordHeader {
        RecordHeader {
            index,
            ordinal: self.ordinal,
            at: self.bytes.len() as u64,
            created_ns: CREATED,
            source: 1,
            ..RecordHeader::default()
        }
    }

    fn batch(mut self, index: u64, payload_bytes: usize) -> Self {
        let payload: Vec<u8> = (0..payload_bytes).map(|i| (i as u64 * index) as u8).collect();
        let preamble = BatchPreamble {
            client: 7,
            batch_seq: self.ordinal,
            payload_bytes: payload_bytes as u32,
            payload_crc: crc32c(&payload),
            count: 2,
            ..BatchPreamble::default()
        }
        .seal();
        let entry = OrderEntry {
            first_position: index * 2,
            client: 7,
            batch_seq: self.ordinal,
            checksum: preamble.header_crc,
            bytes: 64 + payload_bytes as u32,
            count: 2,
            broker: 1,
            commit: index + 1,
            ..OrderEntry::default()
        };
        let head = self.record(index).seal_batch(&entry, &preamble);
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(&preamble.to_bytes());
        self.bytes.extend_from_slice(&payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        self.ordinal += 1;
        self
    }

    fn frontier(mut self, covers: u64, entries: u64) -> Self {
        let line = FrontierLine { entries, position: 2 * entries, ..FrontierLine::default() };
        let head = self.record(covers).seal_frontier(&line);
        self.bytes.extend_from_slice(&head);
        self
    }

    fn save(&self, directory: &Path, first_index: u64) -> PathBuf {
        let path = replica_file(directory, first_index);
        fs::write(&path, &self.bytes).unwrap();
        path
    }
}

fn whole() -> Writer {
    Writer::new(10, 3, NO_FILE).batch(10, 2000).batch(14, 3_000_000).frontier(20, 25).batch(21, 100)
}

#[test]
fn a_file_is_walked_also_where_a_batch_is_larger_than_the_window() {
    let scratch = Scratch::new("walk");
    let path = whole().save(&scratch.0, 10);
    let mut walk = Walk::open(&path).unwrap();
    let mut seen = Vec::new();
    while let Some(record) = walk.next().unwrap() {
        let bytes = match record.body {
            Body::Batch { payload, .. } => payload.len(),
            Body::Frontier(_) | Body::Hole { .. } => 0,
        };
        seen.push((record.header.index, bytes));
    }
    assert_eq!(seen, [(10, 2000), (14, 3_000_000), (20, 0), (21, 100)]);
    assert_eq!(walk.torn(), None);
    let survey = FileSurvey::take(&path).unwrap();
    assert_eq!((survey.batches, survey.messages), (3, 6));
    assert_eq!((survey.first, survey.last), (Some(10), Some(21)));
    assert_eq!(survey.positions, Some((20, 44)));
    assert_eq!((survey.end.index, survey.end.ordinal), (22, 6));
    assert_eq!(survey.ordered.map(|line| line.entries), Some(25));
}

#[test]
fn a_torn_tail_is_cut_behind_the_last_whole_record() {
    let scratch = Scratch::new("torn");
    let writer = whole();
    let end = writer.bytes.len();
    let whole_before = Writer::new(10, 3, NO_FILE).batch(10, 2000).bytes.len();
    // In the middle of the large batch: only the first stays.
    for cut in [whole_before + 1, whole_before + 1_000_000, end - 200 - 128 - 1] {
        let path = replica_file(&scratch.0, 10);
        fs::write(&path, &writer.bytes[..cut]).unwrap();
        let (survey, done) = settle_and_cut(&path).unwrap().unwrap();
        let done = done.expect("something was cut");
        assert_eq!(done.torn.at + done.torn.bytes, cut as u64);
        assert_eq!(done.kept, None, "nothing behind it holds");
        assert_eq!(fs::metadata(&path).unwrap().len(), done.torn.at);
        assert_eq!(survey.end.at, done.torn.at);
        let (again, nothing) = settle_and_cut(&path).unwrap().unwrap();
        assert_eq!((again.end, nothing), (survey.end, None), "cutting twice changes nothing");
    }
}

#[test]
fn what_holds_behind_a_torn_place_is_kept_beside_the_file() {
    let scratch = Scratch::new("kept");
    let mut writer = whole();
    let first = Writer::new(10, 3, NO_FILE).batch(10, 2000).bytes.len();
    writer.bytes[first + 500_000] ^= 1;
    let path = writer.save(&scratch.0, 10);
    let (survey, done) = settle_and_cut(&path).unwrap().unwrap();
    assert_eq!(survey.last, Some(10));
    let kept = done.and_then(|done| done.kept).expect("two records hold behind it");
    assert_eq!(fs::read(kept).unwrap(), writer.bytes[first..]);
    assert_eq!(fs::metadata(&path).unwrap().len(), first as u64);
}

#[test]
fn a_file_that_never_had_a_record_is_removed_and_a_stranger_is_not() {
    let scratch = Scratch::new("begun");
    let path = replica_file(&scratch.0, 0);
    for bytes in [&[][..], &[0; 100], &[0; 4096], &whole().bytes[..4095]] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(settle_and_cut(&path).unwrap(), None);
        assert!(!path.exists(), "{} bytes", bytes.len());
    }
    fs::write(&path, [7; 5000]).unwrap();
    let error = settle_and_cut(&path).unwrap_err();
    assert!(matches!(error, FileError::Header { .. }), "{error}");
    assert!(path.exists());
}

#[test]
fn files_of_a_source_have_to_fit_together() {
    let scratch = Scratch::new("seams");
    let first = Writer::new(0, 0, NO_FILE).batch(3, 40).batch(5, 40).frontier(9, 9);
    let second = Writer::new(9, 2, 0).batch(11, 40);
    let third = Writer::new(30, 3, NO_FILE).batch(30, 40);
    let files: Vec<(u64, PathBuf)> = [(0, &first), (9, &second), (30, &third)]
        .map(|(index, writer)| (index, writer.save(&scratch.0, index)))
        .into();
    let survey = SourceSurvey::take(&files).unwrap();
    assert_eq!(survey.covers(), 31);
    assert_eq!(
        survey.seams,
        [Seam::Hole { path: files[2].1.clone(), indexes: 12..30 }],
        "the third began anew"
    );
    let without = [files[0].clone(), (40, Writer::new(40, 9, 9).save(&scratch.0, 40))];
    let survey = SourceSurvey::take(&without).unwrap();
    let want = Seam::Missing { path: without[1].1.clone(), wanted: 9, found: Some(0) };
    assert_eq!(survey.seams, [want]);
    let lost = Writer::new(0, 0, NO_FILE).batch(3, 40).save(&scratch.0, 0);
    let survey = SourceSurvey::take(&files[..2]).unwrap();
    assert_eq!(survey.seams, [Seam::Short { path: lost, ordinal: 1, wanted: 2 }]);
}

#[test]
fn a_topic_is_found_again_by_name_and_age() {
    let scratch = Scratch::new("topic");
    let mut entry = TopicEntry::from_words([0; 32]);
    entry.name[..2].copy_from_slice(b"..");
    entry.name_bytes = 2;
    entry.created_ns = CREATED;
    entry.order = Order::Stream.raw();
    entry.flags = TOPIC_WINDOW;
    entry.replicas = 2;
    entry.replica_brokers = 3;
    let written = TopicFile::of(&entry, "abc", 1 << 30).unwrap();
    let directory = topic_directory(&scratch.0, "..", CREATED);
    let source = source_directory(&directory, broker(1));
    create_directory(&source).unwrap();
    written.write(&directory).unwrap();
    let file = whole().save(&source, 10);
    fs::write(directory.join("notes"), "hello").unwrap();
    assert_eq!(TopicFile::read(&directory).unwrap(), written);
    assert_eq!((written.durability.as_str(), written.order()), ("window", Some(Order::Stream)));
    let listing = list(&scratch.0).unwrap();
    assert_eq!(listing.strangers, [directory.join("notes")]);
    assert_eq!(listing.topics.len(), 1);
    let topic = &listing.topics[0];
    assert_eq!((topic.name.as_str(), topic.created_ns), ("..", CREATED));
    assert_eq!(topic.sources[0].source, broker(1));
    assert_eq!(topic.sources[0].files, [(10, file)]);
    fs::write(directory.join("topic.json"), "{}").unwrap();
    let error = TopicFile::read(&directory).unwrap_err().to_string();
    assert!(error.contains("topic.json") && error.contains("schema_version"), "{error}");
}
