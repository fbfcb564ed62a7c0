//! Files as a broker leaves them, and as a crash leaves them.

use std::fs;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::batch::{BatchPreamble, crc32c};
use landfall_layout::order::{FrontierLine, OrderEntry};
use landfall_layout::replica::{
    Body, HeaderError, NO_FILE, REPLICA_HEADER_BYTES, REPLICA_VERSION, Record, RecordHeader,
    ReplicaHeader, mark_bytes,
};
use landfall_layout::topic::{Order, TOPIC_WINDOW, TopicEntry};
use landfall_replica::mend::{create_directory, settle_and_cut, write_header};
use landfall_replica::names::{list, replica_file, source_directory, topic_directory};
use landfall_replica::survey::Seam;
use landfall_replica::{
    Damage, FileError, FileSurvey, Resumed, SourceSurvey, Step, TopicFile, Walk,
};

const CREATED: u64 = 1_700_000_000_000_000_000;

const MARK: u64 = 0x1234_5678_9abc;

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
    mark: u64,
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
        header.mark = MARK;
        Self { bytes: header.seal().page().to_vec(), ordinal, mark: MARK }
    }

    fn record(&self, index: u64) -> RecordHeader {
        RecordHeader {
            index,
            ordinal: self.ordinal,
            at: self.bytes.len() as u64,
            created_ns: CREATED,
            source: 1,
            mark: mark_bytes(self.mark),
            ..RecordHeader::default()
        }
    }

    /// The same file with another mark; before its first record.
    fn marked(self, mark: u64) -> Self {
        let (header, _) = ReplicaHeader::read(&self.bytes).unwrap();
        let bytes = ReplicaHeader { mark, ..header }.seal().page().to_vec();
        Self { bytes, mark, ..self }
    }

    fn batch(self, index: u64, payload_bytes: usize) -> Self {
        let payload: Vec<u8> = (0..payload_bytes).map(|i| (i as u64 * index) as u8).collect();
        self.batch_of(index, &payload)
    }

    fn batch_of(mut self, index: u64, payload: &[u8]) -> Self {
        let payload_bytes = payload.len();
        let preamble = BatchPreamble {
            client: 7,
            batch_seq: self.ordinal,
            payload_bytes: payload_bytes as u32,
            payload_crc: crc32c(payload),
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
        self.bytes.extend_from_slice(payload);
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
    assert_eq!(walk.damage(), []);
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
        assert_eq!(done.tail.at + done.tail.bytes, cut as u64);
        assert!(done.tail.is_unfinished(), "{:?}", done.tail);
        assert_eq!(fs::metadata(&path).unwrap().len(), done.tail.at);
        assert_eq!(survey.end.at, done.tail.at);
        let (again, nothing) = settle_and_cut(&path).unwrap().unwrap();
        assert_eq!((again.end, nothing), (survey.end, None), "cutting twice changes nothing");
    }
}

/// Log indexes of the batches of a file, and what does not hold between them.
fn read(path: &Path) -> (Vec<u64>, Vec<Damage>) {
    let mut walk = Walk::open(path).unwrap();
    let mut indexes = Vec::new();
    while let Some(step) = walk.step().unwrap() {
        match step {
            Step::Record(Record { header, body: Body::Batch { .. } }) => indexes.push(header.index),
            Step::Record(_) | Step::Damage(_) => {}
        }
    }
    (indexes, walk.damage().to_vec())
}

#[test]
fn no_byte_that_changes_costs_a_record_that_it_is_not_in() {
    let scratch = Scratch::new("every-byte");
    let writer = Writer::new(10, 3, NO_FILE).batch(10, 300).batch(14, 90).frontier(20, 25);
    let writer = writer.batch(21, 100).batch(22, 70).frontier(23, 30);
    let path = writer.save(&scratch.0, 10);
    let mut walk = Walk::open(&path).unwrap();
    let mut places = Vec::new();
    while let Some(record) = walk.next().unwrap() {
        places.push((record.header.at, record.bytes(), record.header.index, record.header.kind));
    }
    for at in REPLICA_HEADER_BYTES as usize..writer.bytes.len() {
        let mut bytes = writer.bytes.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let hit =
            |(from, long, ..): &(u64, u64, u64, u8)| (*from..*from + *long).contains(&(at as u64));
        let batches = places.iter().filter(|place| !hit(place) && place.3 == 1);
        let (found, damage) = read(&path);
        assert_eq!(found, batches.map(|place| place.2).collect::<Vec<_>>(), "byte {at}");
        let place = places.iter().find(|place| hit(place)).unwrap();
        let [damage] = damage[..] else { panic!("byte {at}: {damage:?}") };
        assert_eq!((damage.at, damage.bytes), (place.0, place.1), "byte {at}");
        let is_last = place == places.last().unwrap();
        let entries = (!is_last).then_some(u64::from(place.3 == 1));
        assert_eq!(damage.entries(), entries, "byte {at}");
        assert_eq!(damage.indexes().contains(&place.2), entries == Some(1), "byte {at}");
        // Nothing but the last record, which nothing holds behind, is cut off.
        let (survey, cut) = settle_and_cut(&path).unwrap().unwrap();
        assert_eq!(cut.is_some(), is_last, "byte {at}");
        assert_eq!(survey.damage.len(), usize::from(!is_last), "byte {at}");
        let end = if is_last { place.0 as usize } else { bytes.len() };
        assert_eq!(fs::read(&path).unwrap(), bytes[..end], "byte {at}");
    }
}

#[test]
fn damage_over_several_records_is_one_range_and_says_how_many_were_there() {
    let scratch = Scratch::new("range");
    let mut writer = whole();
    let first = Writer::new(10, 3, NO_FILE).batch(10, 2000).bytes.len();
    let behind = Writer::new(10, 3, NO_FILE).batch(10, 2000).batch(14, 3_000_000).frontier(20, 25);
    writer.bytes[first - 100..behind.bytes.len()].fill(0xa5);
    let path = writer.save(&scratch.0, 10);
    let (found, damage) = read(&path);
    assert_eq!(found, [21]);
    assert_eq!((damage.len(), damage[0].at), (1, REPLICA_HEADER_BYTES));
    assert_eq!((damage[0].entries(), damage[0].indexes()), (Some(2), 10..21));
    let survey = FileSurvey::take(&path).unwrap();
    assert_eq!((survey.batches, survey.end.ordinal, survey.tail), (1, 6, None));
}

/// A record that a publisher put into its payload, as it would have to look where it lies.
#[test]
fn no_payload_is_taken_for_a_record_behind_damage() {
    let scratch = Scratch::new("forged");
    for (mark, knows) in [(0x0605_0403_0201, false), (0x0605_0403_0201, true)] {
        let outer = Writer::new(10, 3, NO_FILE).marked(mark);
        let begin = outer.bytes.len() as u64 + 192;
        let mut inner = Writer::new(10, 3, NO_FILE).marked(if knows { mark } else { 0 });
        inner.bytes.resize(begin as usize, 0);
        let inner = inner.batch(10, 100);
        let mut outer = outer.batch_of(10, &inner.bytes[begin as usize..]).batch(11, 50);
        outer.bytes[begin as usize - 192] ^= 1;
        let path = outer.save(&scratch.0, 10);
        let (found, damage) = read(&path);
        // Only who knows the mark can do it, and nobody who publishes does.
        let want: &[u64] = if knows { &[10, 11] } else { &[11] };
        assert_eq!((&found[..], damage.len()), (want, 1));
    }
}

#[test]
fn a_header_that_does_not_hold_costs_no_record() {
    let scratch = Scratch::new("header");
    let directory = source_directory(&topic_directory(&scratch.0, "t", CREATED), broker(1));
    create_directory(&directory).unwrap();
    let (found, _) = read(&whole().save(&directory, 10));
    let header = *Walk::open(&replica_file(&directory, 10)).unwrap().header();
    // In either place, or in both: then the path says what it is about, and the records do.
    for (spoilt, is_mended) in
        [(0..1, false), (9..10, false), (0..256, false), (2048..2304, true), (0..4096, false)]
    {
        let whole_again = spoilt.end != 4096;
        for step in spoilt.clone().step_by(7) {
            let mut writer = whole();
            match whole_again {
                true => writer.bytes[step] ^= 4,
                false => writer.bytes[spoilt.clone()].fill(step as u8),
            }
            let path = writer.save(&directory, 10);
            let (again, damage) = read(&path);
            assert_eq!((&again, damage.len()), (&found, 0), "byte {step}");
            let survey = FileSurvey::take(&path).unwrap();
            assert_eq!(survey.header_fault.is_none(), is_mended, "byte {step}");
            let why = survey.header_fault;
            let other = matches!(why, Some(HeaderError::Version { .. }));
            assert!(!other, "byte {step} makes no other version of it: {why:?}");
            let of = |h: &ReplicaHeader| (h.created_ns, h.source, h.first_index, h.first_ordinal);
            assert_eq!(of(&survey.header), of(&header));
            assert_eq!((survey.header.name(), survey.header.mark), ("t", header.mark));
            if survey.header_fault.is_some() {
                write_header(&path, &survey.header).unwrap();
                assert_eq!(FileSurvey::take(&path).unwrap().header_fault, None);
            }
        }
    }
}

#[test]
fn a_file_of_another_version_stops_and_is_not_touched() {
    let scratch = Scratch::new("version");
    let directory = source_directory(&topic_directory(&scratch.0, "t", CREATED), broker(1));
    create_directory(&directory).unwrap();
    let mut writer = whole();
    // As a newer program would write it: its header holds, and so do its records.
    let newer = REPLICA_VERSION + 1;
    writer.bytes[8] = newer as u8;
    let crc = crc32c(&writer.bytes[..252]).to_le_bytes();
    writer.bytes[252..256].copy_from_slice(&crc);
    let path = writer.save(&directory, 10);
    for _ in 0..2 {
        let error = settle_and_cut(&path).unwrap_err();
        let FileError::Header { why, .. } = &error else { panic!("{error}") };
        assert_eq!(*why, HeaderError::Version { found: newer });
        assert_eq!(fs::read(&path).unwrap(), writer.bytes);
    }
    assert!(Walk::open(&path).err().unwrap().to_string().contains("the program that wrote it"));
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
    fs::remove_file(directory.join("topic.json.copy")).unwrap();
    fs::write(directory.join("topic.json"), "{}").unwrap();
    let error = TopicFile::read(&directory).unwrap_err().to_string();
    assert!(error.contains("topic.json") && error.contains("schema_version"), "{error}");
}

#[test]
fn no_byte_of_a_topics_file_that_changed_is_believed_or_costs_the_topic() {
    let scratch = Scratch::new("topic-bytes");
    let mut entry = TopicEntry::from_words([0; 32]);
    entry.name[0] = b't';
    (entry.name_bytes, entry.created_ns) = (1, CREATED);
    entry.order = Order::Strong.raw();
    let mut written = TopicFile::of(&entry, "abc", 1 << 30).unwrap();
    written.resumed.insert(32, Resumed { index: 1111, position: 2222 });
    written.write(&scratch.0).unwrap();
    assert!(TopicFile::faults_at_rest(&scratch.0).is_empty());
    for name in ["topic.json", "topic.json.copy"] {
        let path = scratch.0.join(name);
        let whole = fs::read(&path).unwrap();
        // The lines that are to spare at its end are all alike.
        for at in (0..whole.len()).filter(|at| *at < 1024 || at % 64 == 0) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(TopicFile::read(&scratch.0).unwrap(), written, "{name}, byte {at}");
            assert_eq!(TopicFile::faults_at_rest(&scratch.0).len(), 1, "{name}, byte {at}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(TopicFile::read(&scratch.0).unwrap(), written);
        fs::write(&path, &whole).unwrap();
    }
    // Damage that hides the checksum hides nothing else.
    let path = scratch.0.join("topic.json");
    let whole = fs::read_to_string(&path).unwrap();
    for (version, key) in [("4", "chacksum"), ("1", "chacksum"), ("4", "checksum")] {
        let text =
            whole.replace("\"schema_version\": 4", &format!("\"schema_version\": {version}"));
        let text = text.replace("\"checksum\"", &format!("\"{key}\""));
        let text = text.replace("\"keep\": false", "\"keep\": true ");
        assert_ne!(text, whole);
        fs::write(&path, text).unwrap();
        assert_eq!(TopicFile::read(&scratch.0).unwrap(), written, "{version} {key}");
        assert_eq!(TopicFile::faults_at_rest(&scratch.0).len(), 1, "{version} {key}");
        // Nor where it is all that there is.
        let (copy, away) = (scratch.0.join("topic.json.copy"), scratch.0.join("away"));
        fs::rename(&copy, &away).unwrap();
        TopicFile::read(&scratch.0).unwrap_err();
        fs::rename(&away, &copy).unwrap();
    }
    fs::write(&path, whole).unwrap();
    // Earlier programs wrote all but what has a default.
    let earlier = scratch.0.join("earlier");
    fs::create_dir(&earlier).unwrap();
    TopicFile { schema_version: 3, ..written.clone() }.write(&earlier).unwrap();
    assert_eq!(TopicFile::read(&earlier).unwrap(), written);
    // What a newer program wrote is not replaced by what an older one did.
    let newer = TopicFile { schema_version: 99, ..written.clone() };
    let other = scratch.0.join("newer");
    fs::create_dir(&other).unwrap();
    newer.write(&other).unwrap();
    fs::copy(scratch.0.join("topic.json"), other.join("topic.json.copy")).unwrap();
    assert!(TopicFile::read(&other).unwrap_err().to_string().contains("99"));
}

/// A power cut while one of the two was written: it has the first blocks of the new bytes.
#[test]
fn a_topic_file_of_which_half_was_written_leaves_the_other() {
    let scratch = Scratch::new("topic-torn");
    let mut entry = TopicEntry::from_words([0; 32]);
    entry.name[0] = b't';
    (entry.name_bytes, entry.created_ns, entry.order) = (1, CREATED, Order::Strong.raw());
    let mut file = TopicFile::of(&entry, "abc", 1 << 30).unwrap();
    for life in 1..4 {
        file.life = life;
        file.write(&scratch.0).unwrap();
    }
    let old = fs::read(scratch.0.join("topic.json")).unwrap();
    let said = file.clone();
    file.life = 4;
    file.resumed.insert(32, Resumed { index: 1, position: 1 });
    file.write(&scratch.0).unwrap();
    let new = fs::read(scratch.0.join("topic.json")).unwrap();
    assert_eq!(old.len(), new.len());
    // The copy goes first: then the file is as it was, and after that half of it is new.
    for cut in (0..new.len()).step_by(64) {
        let torn = [&new[..cut], &old[cut..]].concat();
        for (of_file, of_copy) in [(&old, &torn), (&torn, &new), (&old, &new)] {
            fs::write(scratch.0.join("topic.json"), of_file).unwrap();
            fs::write(scratch.0.join("topic.json.copy"), of_copy).unwrap();
            let read = TopicFile::read(&scratch.0).unwrap();
            let is_new = of_copy == &new;
            assert_eq!(read, if is_new { file.clone() } else { said.clone() }, "cut at {cut}");
        }
        // Whoever writes next begins with the one that does not hold.
        fs::write(scratch.0.join("topic.json"), &torn).unwrap();
        fs::write(scratch.0.join("topic.json.copy"), &new).unwrap();
        file.write(&scratch.0).unwrap();
        assert!(TopicFile::faults_at_rest(&scratch.0).is_empty());
        assert_eq!(TopicFile::read(&scratch.0).unwrap(), file);
    }
}
