//! Disks: everything that was given is written, in its place, whatever a single call does.

use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use landfall_pool::disk::faulty::{Faults, Faulty, Plan};
use landfall_pool::disk::plain::Plain;
use landfall_pool::disk::uring::Uring;
use landfall_pool::disk::{Call, Disk, Job, Writing, sync_all, write_all};

/// A file of its own for each test, removed at its end.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("disk-{name}-{}", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        Self { path, file }
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn disks() -> Vec<Box<dyn Disk>> {
    let mut disks: Vec<Box<dyn Disk>> = vec![Box::new(Plain)];
    match Uring::new() {
        Ok(uring) => disks.push(Box::new(uring)),
        Err(error) => eprintln!("SKIPPED io_uring: {error}"),
    }
    disks
}

/// `count` pieces of growing length, each of its own byte, some of them empty.
fn pieces(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| vec![i as u8; (i * 37) % 700]).collect()
}

fn write(disk: &mut dyn Disk, scratch: &Scratch, at: u64, pieces: &[Vec<u8>]) {
    let slices = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut writings = [Writing::new(&scratch.file, at, slices)];
    write_all(disk, &mut writings);
    writings[0].result.as_ref().expect("the disk has room");
}

#[test]
fn more_pieces_than_one_call_takes_end_up_one_behind_the_other() {
    for mut disk in disks() {
        let scratch = Scratch::new(&format!("pieces-{}", disk.name()));
        let given = pieces(3000);
        write(&mut *disk, &scratch, 100, &given);
        let written = scratch.bytes();
        assert_eq!(written[..100], [0; 100], "{}", disk.name());
        assert!(written[100..] == given.concat(), "{}", disk.name());
        assert!(sync_all(&mut *disk, &[&scratch.file])[0].is_ok());
    }
}

#[test]
fn many_files_are_written_at_once() {
    for mut disk in disks() {
        let name = disk.name();
        let files: Vec<Scratch> =
            (0..100).map(|i| Scratch::new(&format!("many-{name}-{i}"))).collect();
        let given: Vec<Vec<u8>> = (0..100).map(|i| vec![i as u8; 1000 + i]).collect();
        let mut writings: Vec<Writing<'_>> = files
            .iter()
            .zip(&given)
            .map(|(file, bytes)| Writing::new(&file.file, 0, vec![IoSlice::new(bytes)]))
            .collect();
        write_all(&mut *disk, &mut writings);
        assert!(writings.iter().all(|writing| writing.result.is_ok()), "{name}");
        for (file, bytes) in files.iter().zip(&given) {
            assert_eq!(&file.bytes(), bytes, "{name}");
        }
        let all: Vec<&File> = files.iter().map(|file| &file.file).collect();
        let synced = sync_all(&mut *disk, &all);
        assert!(synced.len() == 100 && synced.iter().all(Result::is_ok), "{name}");
    }
}

#[test]
fn a_short_write_is_gone_on_from() {
    for short in [1, 7, 699, 700, 701, 5000] {
        let scratch = Scratch::new(&format!("short-{short}"));
        let faults = Faults::default();
        faults.set(Plan { short: Some(short), ..Plan::default() });
        let given = pieces(if short == 1 { 5 } else { 60 });
        write(&mut Faulty::new(Plain, faults), &scratch, 0, &given);
        assert!(scratch.bytes() == given.concat(), "{short} bytes a call");
    }
}

#[test]
fn errors_are_those_of_the_system_and_of_one_file_only() {
    for mut disk in disks() {
        let scratch = Scratch::new(&format!("errors-{}", disk.name()));
        let read_only = File::open(&scratch.path).unwrap();
        let given = [7; 64];
        let mut writings = [
            Writing::new(&read_only, 0, vec![IoSlice::new(&given)]),
            Writing::new(&scratch.file, 0, vec![IoSlice::new(&given)]),
        ];
        write_all(&mut *disk, &mut writings);
        let errno = |i: usize| writings[i].result.as_ref().err().and_then(|e| e.raw_os_error());
        assert_eq!((errno(0), errno(1)), (Some(9), None), "EBADF on {}", disk.name());
        assert_eq!(scratch.bytes(), given);
    }
}

#[test]
fn a_full_disk_takes_what_fits() {
    let scratch = Scratch::new("full");
    let faults = Faults::default();
    faults.set(Plan { full_after: Some(100), ..Plan::default() });
    let mut disk = Faulty::new(Plain, faults.clone());
    let given = [1; 64];
    let pieces = vec![IoSlice::new(&given), IoSlice::new(&given)];
    let mut writings = [Writing::new(&scratch.file, 0, pieces)];
    write_all(&mut disk, &mut writings);
    let errno = writings[0].result.as_ref().unwrap_err().raw_os_error();
    assert_eq!((errno, scratch.bytes().len()), (Some(28), 100));
    faults.set(Plan::default());
    write_all(&mut disk, &mut writings);
    assert!(writings[0].result.is_ok());
    assert_eq!(scratch.bytes().len(), 128);
}

#[test]
fn what_was_synced_stays_when_the_power_goes_and_the_rest_may_not() {
    let mut lost = 0;
    for seed in 0..50 {
        let scratch = Scratch::new(&format!("power-{seed}"));
        let faults = Faults::default();
        let mut disk = Faulty::new(Plain, faults.clone());
        let (first, second) = (vec![1; 10_000], vec![2; 20_000]);
        write(&mut disk, &scratch, 0, std::slice::from_ref(&first));
        assert!(sync_all(&mut disk, &[&scratch.file])[0].is_ok());
        write(&mut disk, &scratch, 10_000, &[second]);
        faults.lose_power(seed).unwrap();
        let left = scratch.bytes();
        assert!(left[..10_000] == first, "seed {seed}");
        lost += usize::from(left.len() < 30_000 || left[10_000..].contains(&0));
    }
    assert!(lost > 40, "only {lost} of 50 losses lost anything");
}

#[test]
fn a_sync_that_failed_keeps_nothing_even_when_the_next_one_succeeds() {
    let scratch = Scratch::new("failed");
    let faults = Faults::default();
    faults.set(Plan { sync_fails: Some(1), ..Plan::default() });
    let mut disk = Faulty::new(Plain, faults.clone());
    write(&mut disk, &scratch, 0, &[vec![1; 50_000]]);
    let first = sync_all(&mut disk, &[&scratch.file]);
    assert_eq!(first[0].as_ref().unwrap_err().raw_os_error(), Some(5));
    assert!(sync_all(&mut disk, &[&scratch.file])[0].is_ok(), "the system forgot");
    faults.lose_power(3).unwrap();
    assert!(scratch.bytes() != vec![1; 50_000]);
}

#[test]
fn syncs_end_with_an_answer_for_each_file_whatever_is_called_meanwhile() {
    for mut disk in disks() {
        let name = disk.name();
        let scratch = Scratch::new(&format!("under-way-{name}"));
        let file = Arc::new(scratch.file.try_clone().unwrap());
        // Pipes have nothing to sync.
        let pipe = || Arc::new(File::from(std::os::fd::OwnedFd::from(std::io::pipe().unwrap().1)));
        for round in 0..20 {
            let given = pieces(100 + round);
            write(&mut *disk, &scratch, 0, &given);
            let bad = [3, 70, 299];
            let files = (0..300).map(|i| if bad.contains(&i) { pipe() } else { file.clone() });
            let mut syncs = disk.begin_syncs(files.collect());
            // Nobody asks for those.
            drop(disk.begin_syncs(vec![pipe(); 7]));
            write(&mut *disk, &scratch, 100_000, &given);
            assert!(sync_all(&mut *disk, &[&scratch.file])[0].is_ok(), "{name}");
            let ended = loop {
                match disk.end_syncs(syncs, round % 2 == 0) {
                    Ok(ended) => break ended,
                    Err(under_way) => {
                        assert!(round % 2 == 1, "{name}: it was to wait");
                        syncs = under_way;
                    }
                }
            };
            let errors: Vec<(usize, Option<i32>)> = ended
                .iter()
                .enumerate()
                .filter_map(|(i, one)| Some((i, one.as_ref().err()?.raw_os_error())))
                .collect();
            assert_eq!((ended.len(), errors), (300, bad.map(|i| (i, Some(22))).to_vec()), "{name}");
        }
        let nothing = disk.begin_syncs(Vec::new());
        assert!(disk.end_syncs(nothing, false).unwrap().is_empty());
    }
}

#[test]
fn a_sync_covers_what_was_written_before_it_began_once_it_has_ended() {
    for seed in 0..30 {
        let scratch = Scratch::new(&format!("covers-{seed}"));
        let file = Arc::new(scratch.file.try_clone().unwrap());
        let faults = Faults::default();
        let mut disk = Faulty::new(Plain, faults.clone());
        write(&mut disk, &scratch, 0, &[vec![1; 10_000]]);
        let syncs = disk.begin_syncs(vec![file]);
        write(&mut disk, &scratch, 10_000, &[vec![2; 20_000]]);
        let syncs = disk.end_syncs(syncs, false).expect_err("a disk may take its time");
        let has_ended = seed % 2 == 0;
        if has_ended {
            assert!(disk.end_syncs(syncs, true).unwrap()[0].is_ok());
        }
        faults.lose_power(seed).unwrap();
        let left = scratch.bytes();
        assert!(left.len() < 30_000 || left.contains(&0), "seed {seed}: the rest may be lost");
        if has_ended {
            assert!(left[..10_000] == vec![1; 10_000], "seed {seed}");
        }
    }
}

#[test]
fn a_sync_that_fails_under_way_keeps_nothing() {
    let scratch = Scratch::new("failed-under-way");
    let file = Arc::new(scratch.file.try_clone().unwrap());
    let faults = Faults::default();
    faults.set(Plan { sync_fails: Some(1), ..Plan::default() });
    let mut disk = Faulty::new(Plain, faults.clone());
    write(&mut disk, &scratch, 0, &[vec![1; 50_000]]);
    let syncs = disk.begin_syncs(vec![file]);
    let ended = disk.end_syncs(syncs, true).unwrap();
    assert_eq!(ended[0].as_ref().unwrap_err().raw_os_error(), Some(5));
    faults.lose_power(3).unwrap();
    assert!(scratch.bytes() != vec![1; 50_000]);
}

#[test]
fn a_plan_is_said_in_words() {
    let plan: Plan = "sync-fails=3,full-after=1000".parse().unwrap();
    assert_eq!((plan.sync_fails, plan.full_after, plan.short), (Some(3), Some(1000), None));
    assert!("sync-fails".parse::<Plan>().unwrap_err().contains("sync-fails"));
    assert!("explode=1".parse::<Plan>().unwrap_err().contains("explode"));
}

/// Runs no call, and says that each wrote nothing.
struct Idle;

impl Disk for Idle {
    fn run(&mut self, jobs: &mut [Job<'_>]) {
        for job in jobs {
            assert!(matches!(job.call, Call::Write { .. }));
            job.result = Ok(0);
        }
    }

    fn name(&self) -> &'static str {
        "idle"
    }
}

#[test]
fn a_disk_that_writes_nothing_is_not_asked_for_ever() {
    let scratch = Scratch::new("idle");
    let mut writings = [Writing::new(&scratch.file, 0, vec![IoSlice::new(&[1])])];
    write_all(&mut Idle, &mut writings);
    let kind = writings[0].result.as_ref().unwrap_err().kind();
    assert_eq!(kind, std::io::ErrorKind::WriteZero);
}
