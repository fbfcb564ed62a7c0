//! The last file of a copy: nothing in it holds, alone or with files before it.

use landfall_replica::names::{aside_of, list_aside};
use landfall_replica::survey::Seam;

use super::super::disks::move_on;
use super::*;

const LAST: [(&str, Spoil); 7] = [
    ("zero", |files| zero(&files[6])),
    ("garbage", |files| fs::write(&files[6], [0x5a; 50_000]).unwrap()),
    ("zero-two", |files| files[5..].iter().for_each(zero)),
    ("zero-all", |files| files.iter().for_each(zero)),
    ("gone-and-zero", |files| {
        fs::remove_file(&files[5]).unwrap();
        zero(&files[6]);
    }),
    ("headers-and-zero", |files| {
        [20, HEADER_COPY_AT + 20].iter().for_each(|at| flip(&files[5], *at));
        zero(&files[6]);
    }),
    ("byte-and-zero", |files| {
        [2, 5].iter().for_each(|at| flip(&files[*at], 5000));
        zero(&files[6]);
    }),
];

fn aside(two: &Two) -> usize {
    list_aside(&source_directory(&two.disks.topic(0), broker(0))).unwrap().len()
}

/// Everything is there. Only a header said that a file was not begun anew, right where it begins.
fn has_all(two: &Two) -> bool {
    has(two, 7)
}

fn has(two: &Two, all: u64) -> bool {
    let is_empty = |seam: &Seam| matches!(seam, Seam::Hole { indexes, .. } if indexes.is_empty());
    two.survey(0).is_some_and(|survey| {
        let batches: u64 = survey.files.iter().map(|file| file.batches).sum();
        let is_whole = survey.files.iter().all(|file| file.is_whole());
        is_whole && batches == all && survey.seams.iter().all(is_empty)
    })
}

#[test]
fn a_last_file_in_which_nothing_holds_is_set_aside_and_written_again() {
    for (name, spoil) in LAST {
        for reads in [true, false] {
            let two = Two::new(&format!("row-last-{name}-{reads}"));
            if reads {
                let entries = two.source.frontier.entries;
                two.source.pool.raise_oldest(two.source.topic, 0, entries, entries * 3);
            }
            let spoilt = two.files(0).len();
            spoil(&two.files(0));
            let (_, said) = two.start(reads, 2);
            assert_eq!(
                line(&two.source),
                (7, 7, ReplicaState::Well, 0),
                "{name} {reads}: {said:?}"
            );
            assert!(has_all(&two), "{name} {reads}: {said:?}");
            assert!(said.iter().any(|text| text.contains("set aside as")), "{name}: {said:?}");
            assert_eq!(two.start(reads, 3), (0, Vec::new()), "{name} {reads}");
            let kept = if name == "zero-all" { spoilt } else { aside(&two) };
            assert!(kept > 0 && aside(&two) == kept, "{name}: all of it is there to be looked at");
        }
    }
}

/// It counts as missing then, as one that is gone does.
#[test]
fn what_was_in_a_last_file_and_nobody_has_is_told_and_shown() {
    let two = Two::new("row-last-nobody");
    let entries = two.source.frontier.entries;
    two.source.pool.raise_oldest(two.source.topic, 0, entries, entries * 3);
    zero(&two.files(0)[6]);
    for incarnation in 2..4 {
        // The file that goes on behind it has nothing yet, and is not full.
        let data = Data { file_bytes: 1 << 20, ..two.disks.data(0, false) };
        let mut worker = two.source.worker(data, Box::new(Plain), incarnation).unwrap();
        work(&mut worker);
        rest(&mut worker);
        let said = worker.notes();
        assert_eq!(
            (line(&two.source).2, line(&two.source).3),
            (ReplicaState::Well, 61),
            "{said:?}"
        );
        assert!(said.iter().any(|text| text.contains("is not on this disk")), "{said:?}");
    }
    assert_eq!((two.files(0).len(), aside(&two)), (7, 1));
    assert!(two.files(0).iter().all(|path| aside_of(path).is_none()));
}

/// A second one of the same name hides nothing of the first.
#[test]
fn each_file_that_is_set_aside_has_a_name_of_its_own() {
    let two = Two::new("row-last-twice");
    for incarnation in [2, 3] {
        zero(&two.files(0)[6]);
        let (_, said) = two.start(false, incarnation);
        assert!(two.is_whole(), "{said:?}");
    }
    assert_eq!(aside(&two), 2);
}

#[test]
fn a_last_file_of_another_version_stays_where_it_is() {
    let two = Two::new("row-last-version");
    let path = two.files(0).remove(6);
    [8, HEADER_COPY_AT + 8].iter().for_each(|at| flip(&path, *at));
    let bytes = fs::read(&path).unwrap();
    let (_, said) = two.start(true, 2);
    assert!(said.iter().any(|text| text.contains("version")), "{said:?}");
    assert_eq!((fs::read(&path).unwrap(), aside(&two)), (bytes, 0));
    assert_eq!(line(&two.source).2, ReplicaState::Failed);
}

/// Two copies whose last file has four batches. The header and the first of them are gone in one.
fn beheaded(name: &str) -> Two {
    let mut two = Two::new(name);
    for batch in 7..10 {
        let entry = two.source.place(&vec![batch; 3000], true);
        two.source.append(&entry);
    }
    two.source.publish();
    let data = Data { file_bytes: 1 << 20, ..two.disks.data(1, false) };
    work(&mut two.source.worker(data, Box::new(Plain), 1).unwrap());
    fs::remove_dir_all(&two.disks.0[0]).unwrap();
    copy_all(&two.disks.0[1], &two.disks.0[0]);
    let file = fs::OpenOptions::new().write(true).open(&two.files(0)[6]).unwrap();
    file.write_all_at(&[7; 4096 + 500], 0).unwrap();
    two
}

/// Starts the broker of the first copy. A file that has nothing yet is not full.
fn start(two: &Two, reads: bool, incarnation: u64) -> (u32, Vec<String>) {
    let data = Data { file_bytes: 1 << 20, ..two.disks.data(0, reads) };
    let mut worker = two.source.worker(data, Box::new(Plain), incarnation).unwrap();
    work(&mut worker);
    let first = line(&two.source).3;
    rest(&mut worker);
    (first, worker.notes())
}

#[test]
fn a_last_file_without_its_beginning_is_written_again() {
    for reads in [true, false] {
        let two = beheaded(&format!("row-last-beheaded-{reads}"));
        if reads {
            move_on(&two.source);
        }
        let (first, said) = start(&two, reads, 2);
        assert_eq!((first, line(&two.source)), (61, (10, 10, ReplicaState::Well, 0)), "{said:?}");
        assert!(has(&two, 10), "{said:?}");
        assert_eq!(start(&two, reads, 3), (0, Vec::new()), "{reads}");
    }
}

/// Nobody has what it lacks: what it has stays, and one file more is enough.
#[test]
fn a_last_file_whose_beginning_nobody_has_is_shown() {
    let two = beheaded("row-last-beheaded-nobody");
    move_on(&two.source);
    for incarnation in 2..4 {
        let (_, said) = start(&two, false, incarnation);
        assert_eq!(line(&two.source).3, 61, "{said:?}");
        assert!(said.iter().any(|text| text.contains("neither memory nor a copy")), "{said:?}");
        let batches: u64 = two.survey(0).unwrap().files.iter().map(|file| file.batches).sum();
        assert_eq!((two.files(0).len(), batches), (8, 9), "{said:?}");
    }
    let (_, said) = start(&two, true, 4);
    assert_eq!(line(&two.source), (10, 10, ReplicaState::Well, 0), "{said:?}");
    assert!(has(&two, 10), "{said:?}");
}
