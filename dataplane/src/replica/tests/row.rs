//! Files behind which others were begun: a byte, an end, a header, or a whole one is gone.

mod holes;
mod last;

use landfall_layout::replica::{ENODATA, HEADER_COPY_AT};
use landfall_replica::holes::Hole;
use landfall_replica::names::{aside_of, replica_file, source_directory};
use landfall_replica::{Resumed, Skipped, Skips};

use super::disks::{Disks, follow, land, line, look_again, move_on, next_pool};
use super::*;

/// What the tests do to the files of the first of two copies.
type Spoil = fn(&[PathBuf]);

/// Two copies of six batches, each in a file of its own, and one in the last.
struct Two {
    disks: Disks,
    source: Source,
}

impl Two {
    fn new(name: &str) -> Self {
        Self::of(name, 3000)
    }

    /// Of batches of so many bytes.
    fn of(name: &str, bytes: usize) -> Self {
        let mut two = Self { disks: Disks::new(name), source: Source::new(pool(), 0) };
        let mut worker = two.worker(1, false, 1);
        for batch in 0..7 {
            let entry = two.source.place(&vec![batch; bytes], true);
            two.source.append(&entry);
            two.source.publish();
            work(&mut worker);
        }
        copy_all(&two.disks.0[1], &two.disks.0[0]);
        two
    }

    fn worker(&self, which: usize, reads: bool, incarnation: u64) -> Worker {
        let data = Data { file_bytes: 1, ..self.disks.data(which, reads) };
        self.source.worker(data, Box::new(Plain), incarnation).unwrap()
    }

    fn files(&self, which: usize) -> Vec<PathBuf> {
        let directory = source_directory(&self.disks.topic(which), broker(0));
        let mut strangers = Vec::new();
        let files = landfall_replica::names::list_source(&directory, &mut strangers).unwrap();
        strangers.retain(|path| aside_of(path).is_none());
        assert!(strangers.is_empty(), "{strangers:?}");
        files.into_iter().map(|(_, path)| path).collect()
    }

    fn survey(&self, which: usize) -> Option<SourceSurvey> {
        let files: Vec<_> = self.files(which).into_iter().map(|path| (0, path)).collect();
        SourceSurvey::take(&files).ok()
    }

    /// The first copy holds, and has what was landed.
    fn is_whole(&self) -> bool {
        let Some(survey) = self.survey(0) else { return false };
        let batches: u64 = survey.files.iter().map(|file| file.batches).sum();
        let end = survey.files.last().and_then(|file| file.positions);
        survey.seams.is_empty()
            && survey.files.iter().all(|file| file.is_whole())
            && (batches, end.map(|end| end.1)) == (7, Some(21))
    }

    /// Starts the broker, and lets it read on until it has nothing more to do. What its line said
    /// at first, and what there was to be told.
    fn start(&self, reads: bool, incarnation: u64) -> (u32, Vec<String>) {
        let mut worker = self.worker(0, reads, incarnation);
        work(&mut worker);
        let first = line(&self.source).3;
        rest(&mut worker);
        (first, worker.notes())
    }
}

/// Everything that is done bit by bit.
fn rest(worker: &mut Worker) {
    let mut now = boot_ns();
    while worker.mend(now) {
        now += 1_000_000_000;
    }
    work(worker);
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.unwrap().success());
}

fn flip(path: &PathBuf, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn zero(path: &PathBuf) {
    fs::write(path, vec![0; fs::metadata(path).unwrap().len() as usize]).unwrap();
}

fn cut(path: &PathBuf, bytes: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

const SPOILS: [(&str, Spoil); 27] = [
    ("headers", |files| [20, HEADER_COPY_AT + 20].iter().for_each(|at| flip(&files[3], *at))),
    ("headers-and-byte", |files| {
        [20, HEADER_COPY_AT + 20, 5000].iter().for_each(|at| flip(&files[3], *at));
    }),
    ("byte-first", |files| flip(&files[0], 5000)),
    ("byte", |files| flip(&files[2], 5000)),
    ("byte-twice", |files| [1, 4].iter().for_each(|at| flip(&files[*at], 6000))),
    ("byte-end", |files| flip(&files[5], fs::metadata(&files[5]).unwrap().len() - 10)),
    ("zero", |files| zero(&files[3])),
    ("zero-first", |files| zero(&files[0])),
    ("cut", |files| cut(&files[2], 5000)),
    ("empty", |files| cut(&files[2], 0)),
    ("no-entry", |files| cut(&files[2], REPLICA_HEADER_BYTES)),
    ("gone", |files| fs::remove_file(&files[2]).unwrap()),
    ("gone-first", |files| fs::remove_file(&files[0]).unwrap()),
    ("gone-three", |files| files[1..4].iter().for_each(|path| fs::remove_file(path).unwrap())),
    ("first-and-header", |files| {
        fs::remove_file(&files[0]).unwrap();
        cut(&files[1], 400);
    }),
    ("first-and-headers", |files| {
        fs::remove_file(&files[0]).unwrap();
        files[1..3].iter().for_each(zero);
    }),
    ("second-and-header", |files| {
        fs::remove_file(&files[2]).unwrap();
        cut(&files[3], 400);
    }),
    ("gone-and-headers-flipped", |files| {
        fs::remove_file(&files[2]).unwrap();
        [20, HEADER_COPY_AT + 20].iter().for_each(|at| flip(&files[3], *at));
    }),
    ("gone-and-bytes-around", |files| {
        [0, 2].iter().for_each(|at| flip(&files[*at], 5000));
        fs::remove_file(&files[1]).unwrap();
    }),
    ("gone-and-three-around", |files| {
        cut(&files[1], 5000);
        zero(&files[2]);
        fs::remove_file(&files[3]).unwrap();
        flip(&files[4], 5000);
    }),
    ("gone-and-zero-before", |files| {
        zero(&files[1]);
        fs::remove_file(&files[2]).unwrap();
    }),
    ("gone-before-the-last", |files| {
        zero(&files[4]);
        fs::remove_file(&files[5]).unwrap();
    }),
    ("gone-and-cut-before", |files| {
        cut(&files[3], 4500);
        [2, 4].iter().for_each(|at| fs::remove_file(&files[*at]).unwrap());
    }),
    ("zero-first-three", |files| files[..3].iter().for_each(zero)),
    ("zero-three", |files| files[2..5].iter().for_each(zero)),
    ("zero-all-but-the-last", |files| files[..6].iter().for_each(zero)),
    ("swapped", |files| {
        let bytes = fs::read(&files[1]).unwrap();
        fs::copy(&files[4], &files[1]).unwrap();
        fs::write(&files[4], bytes).unwrap();
    }),
];

#[test]
fn what_older_files_lost_is_written_again_from_another_copy() {
    for (name, spoil) in SPOILS {
        let two = Two::new(&format!("row-copy-{name}"));
        let entries = two.source.frontier.entries;
        two.source.pool.raise_oldest(two.source.topic, 0, entries, entries * 3);
        spoil(&two.files(0));
        assert!(!two.is_whole(), "{name}");
        let (_, said) = two.start(true, 2);
        assert!(two.is_whole(), "{name}: {said:?}");
        assert_eq!(line(&two.source), (7, 7, ReplicaState::Well, 0), "{name} {said:?}");
        assert!(said.iter().any(|text| text.contains("written again")), "{name}: {said:?}");
        assert!(!said.iter().any(|text| text.contains("neither memory")), "{name}: {said:?}");
        // Nothing is found the next time.
        assert_eq!(two.start(true, 3), (0, Vec::new()), "{name}");
    }
}

#[test]
fn what_older_files_lost_is_written_again_from_memory() {
    for (name, spoil) in SPOILS {
        let two = Two::new(&format!("row-memory-{name}"));
        spoil(&two.files(0));
        let (_, said) = two.start(false, 2);
        assert!(two.is_whole(), "{name}: {said:?}");
        assert_eq!(line(&two.source), (7, 7, ReplicaState::Well, 0), "{name}");
        assert!(!said.iter().any(|text| text.contains("neither memory")), "{name}: {said:?}");
    }
}

/// With bounds too, which are far from what there is.
#[test]
fn what_bounds_are_no_reason_for_is_written_again() {
    for (name, spoil) in SPOILS {
        for reads in [true, false] {
            let two = Two::new(&format!("row-bounded-{name}-{reads}"));
            let entry = two.source.pool.topic_in_slot(0).unwrap();
            two.source.pool.set_topic(&TopicEntry { disk_bytes: 1 << 40, ..entry });
            if reads {
                let entries = two.source.frontier.entries;
                two.source.pool.raise_oldest(two.source.topic, 0, entries, entries * 3);
            } else if matches!(name, "gone-first" | "first-and-header" | "first-and-headers") {
                // Without another copy nobody knows that they were not let go of.
                continue;
            }
            spoil(&two.files(0));
            let (_, said) = two.start(reads, 2);
            assert!(two.is_whole(), "{name} {reads}: {said:?}");
            assert_eq!(line(&two.source), (7, 7, ReplicaState::Well, 0), "{name} {reads}");
            assert_eq!(two.start(reads, 3), (0, Vec::new()), "{name} {reads}");
        }
    }
}

#[test]
fn what_nobody_has_is_told_and_shown_for_as_long_as_it_is_missing() {
    for (name, spoil) in SPOILS {
        let two = Two::new(&format!("row-nobody-{name}"));
        let entries = two.source.frontier.entries;
        two.source.pool.raise_oldest(two.source.topic, 0, entries, entries * 3);
        spoil(&two.files(0));
        if matches!(name, "swapped" | "byte-end" | "headers") {
            // All is here: but in other places, and without the word on how far the log was.
            continue;
        }
        for incarnation in 2..4 {
            let before = two.files(0);
            let (first, said) = two.start(false, incarnation);
            assert_eq!(two.files(0), before, "{name}");
            assert_eq!(line(&two.source), (7, 7, ReplicaState::Well, 61), "{name}: {said:?}");
            assert!(said.iter().any(|text| text.contains(".replica")), "{name}: {said:?}");
            assert!(said.iter().any(|text| text.contains("read here has")), "{name}: {said:?}");
            // A file that is missing is seen before anything else is done.
            assert_eq!(first == 61, name.starts_with("gone"), "{name}");
        }
        // Another disk comes while it runs.
        let mut worker = two.worker(0, true, 4);
        let away = two.disks.0[1].with_extension("away");
        fs::rename(&two.disks.0[1], &away).unwrap();
        work(&mut worker);
        rest_until_told(&mut worker);
        assert_eq!(line(&two.source).3, 61, "{name}");
        fs::rename(&away, &two.disks.0[1]).unwrap();
        let later = boot_ns() + 100_000_000_000;
        for step in 0..200 {
            worker.mend(later + step * 1_000_000_000);
        }
        work(&mut worker);
        assert_eq!(line(&two.source), (7, 7, ReplicaState::Well, 0), "{name}");
        assert!(two.is_whole(), "{name}: {:?}", worker.notes());
    }
}

/// As far as it comes before it rests.
fn rest_until_told(worker: &mut Worker) {
    let now = boot_ns();
    for step in 0..40 {
        worker.mend(now + step * 17_000_000);
    }
    work(worker);
}

#[test]
fn both_copies_lost_something_else_and_each_is_filled_from_the_other() {
    let two = Two::new("row-both");
    let entries = two.source.frontier.entries;
    two.source.pool.raise_oldest(two.source.topic, 0, entries, entries * 3);
    let (mine, theirs) = (two.files(0), two.files(1));
    flip(&mine[1], 5000);
    fs::remove_file(&mine[4]).unwrap();
    flip(&theirs[2], 5000);
    let (_, said) = two.start(true, 2);
    assert_eq!(line(&two.source), (7, 7, ReplicaState::Well, 0), "{said:?}");
    assert!(two.is_whole());
}

/// More than is written at once: what is whole of it counts at once.
#[test]
fn what_is_too_much_for_one_file_is_written_again_in_several() {
    let two = Two::of("row-many", 280_000);
    two.files(0)[1..6].iter().for_each(|path| fs::remove_file(path).unwrap());
    let (first, said) = two.start(false, 2);
    assert!(first == 61 && two.is_whole(), "{said:?}");
    assert_eq!((two.files(0).len(), line(&two.source).3), (4, 0), "{said:?}");
}

/// What was being written when a process ended is no file of the row, and goes.
#[test]
fn a_file_that_was_not_finished_is_begun_anew() {
    let two = Two::new("row-unfinished");
    let path = two.files(0).remove(2);
    flip(&path, 5000);
    let mut worker = two.worker(0, true, 2);
    work(&mut worker);
    let directory = path.parent().unwrap();
    let left = directory.join("00000000000000000002.replica.unfinished");
    fs::write(&left, [7; 9000]).unwrap();
    drop(worker);
    let (_, said) = two.start(true, 3);
    assert!(two.is_whole() && !left.exists(), "{said:?}");
}

#[test]
fn a_file_of_another_version_is_not_touched() {
    let two = Two::new("row-version");
    let path = two.files(0).remove(2);
    // In both its headers, behind the magic word.
    [8, HEADER_COPY_AT + 8].iter().for_each(|at| flip(&path, *at));
    let bytes = fs::read(&path).unwrap();
    let (_, said) = two.start(true, 2);
    assert!(said.iter().any(|text| text.contains("version")), "{said:?}");
    assert_eq!((fs::read(&path).unwrap(), line(&two.source).3), (bytes, 61));
}

/// Bounds take files from the front, and nothing is missing there.
#[test]
fn what_bounds_let_go_of_is_not_missing() {
    let two = Two::new("row-bounds");
    let entry = two.source.pool.topic_in_slot(0).unwrap();
    let files = two.files(0);
    let left = files[2..].iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    two.source.pool.set_topic(&TopicEntry { disk_bytes: left, ..entry });
    files[..2].iter().for_each(|path| fs::remove_file(path).unwrap());
    let entries = two.source.frontier.entries;
    two.source.pool.raise_oldest(two.source.topic, 0, entries, entries * 3);
    assert_eq!(two.start(true, 2), (0, Vec::new()));
    assert_eq!(two.files(0).len(), 5);
    // In the middle, it is.
    let written = fs::metadata(&files[4]).unwrap().modified().unwrap();
    fs::remove_file(&files[3]).unwrap();
    assert_eq!(two.start(true, 3).0, 61);
    assert_eq!((two.files(0).len(), line(&two.source).3), (5, 0));
    let path = replica_file(files[0].parent().unwrap(), 3);
    assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), written, "it is no younger");
}

/// After each power cut a file is begun anew, in every copy, and says nothing of what lies before
/// it: the log passed over that, but for what others landed behind the copy's last entry.
#[test]
fn a_file_between_two_lost_pools_is_written_again_from_another_copy() {
    let spoils: [(&str, Spoil); 6] = [
        ("gone", |files| fs::remove_file(&files[1]).unwrap()),
        ("gone-both", |files| files[..2].iter().for_each(|path| fs::remove_file(path).unwrap())),
        ("cut", |files| cut(&files[1], 4200)),
        ("zero", |files| zero(&files[1])),
        ("zero-first", |files| zero(&files[0])),
        ("first-and-header", |files| {
            fs::remove_file(&files[0]).unwrap();
            zero(&files[1]);
        }),
    ];
    for (name, spoil) in spoils {
        for (others, disk_bytes) in [(0, 0), (3, 0), (0, 1 << 40), (3, 1 << 40)] {
            let two = between_lost_pools(0, others, disk_bytes);
            spoil(&two.files(0));
            let what = format!("{name} {others} {disk_bytes}");
            let (_, said) = two.start(true, 2);
            let entries = two.source.frontier.entries;
            let whole = (entries, 3, ReplicaState::Well, 0);
            assert_eq!(line(&two.source), whole, "{what}: {said:?}");
            assert_eq!(
                two.survey(0).unwrap().files.iter().map(|file| file.batches).sum::<u64>(),
                3
            );
            assert!(!said.iter().any(|text| text.contains("away")), "{what}: {said:?}");
            assert_eq!(two.start(true, 3), (0, Vec::new()), "{what}");
        }
    }
}

/// Others landed before the source did: its copies begin behind that, and say nothing of it.
#[test]
fn a_first_file_that_begins_late_is_written_again_from_another_copy() {
    let spoils: [(&str, Spoil); 2] = [
        ("gone", |files| fs::remove_file(&files[0]).unwrap()),
        ("gone-both", |files| files[..2].iter().for_each(|path| fs::remove_file(path).unwrap())),
    ];
    for (name, spoil) in spoils {
        for has_hole in [false, true] {
            let two = between_lost_pools(2, 3, 0);
            if has_hole {
                let hole = Hole { source: 0, from: 0, to: 2 };
                hole.say(&two.disks.topic(0)).unwrap();
            }
            spoil(&two.files(0));
            let (_, said) = two.start(true, 2);
            let (.., entries, _, errno) = line(&two.source);
            let expected = if has_hole { ENODATA } else { 0 };
            assert_eq!((entries, errno), (3, expected), "{name} {has_hole}: {said:?}");
            if !has_hole {
                assert_eq!(two.disks.batches(0), (2, 3), "{name}");
                assert_eq!(two.start(true, 3), (0, Vec::new()), "{name}");
            }
        }
    }
}

/// Two copies with a batch of each of three pools, of which two were lost. Others landed as many
/// entries behind each, and so many in front of all.
fn between_lost_pools(first: u64, others: u64, disk_bytes: u64) -> Two {
    let disks = Disks::new(&format!("row-between-{first}-{others}-{disk_bytes}"));
    let mut source = if first == 0 { Source::new(pool(), 0) } else { next_pool(first) };
    if first > 0 {
        let entry = source.pool.topic_in_slot(0).unwrap();
        let mut file = TopicFile::of(&entry, &source.pool.uuid_text(), 1 << 30).unwrap();
        let passed = file.skipped.entry(0).or_default();
        passed.add(Skipped { position: 0, to_position: 3 * first, index: 0, to_index: first });
        fs::create_dir_all(disks.topic(1)).unwrap();
        file.replace(&disks.topic(1)).unwrap();
    }
    let keep = |source: &mut Source| {
        land(source, 1);
        work(&mut source.worker(disks.data(1, false), Box::new(Plain), 1).unwrap());
        follow(source, others);
    };
    keep(&mut source);
    let mut passed = Skips::default();
    for to_index in [9, 20] {
        let index = source.frontier.entries;
        let (position, to_position) = (3 * index, 3 * to_index);
        passed.add(Skipped { position, to_position, index, to_index });
        source = next_pool(to_index);
        // The last entry that a disk had.
        source.pool.set_tail_on_disk(source.topic, broker(0), index - others);
        let entry = source.pool.topic_in_slot(0).unwrap();
        let entry = TopicEntry { disk_bytes, ..entry };
        source.pool.set_topic(&entry);
        let mut file = TopicFile::of(&entry, &source.pool.uuid_text(), 1 << 30).unwrap();
        file.skipped.insert(0, passed.clone());
        file.resumed.insert(0, Resumed { index: to_index, position: to_position });
        file.replace(&disks.topic(1)).unwrap();
        keep(&mut source);
    }
    copy_all(&disks.0[1], &disks.0[0]);
    Two { disks, source }
}
