//! Damage that the rest of a pool makes good, and torn files.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;

use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::segment::{SegmentKind, What};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::bell::{Bell, Role};
use landfall_pool::{Memory, Pool};
use landfall_replica::names::{cut_file, replica_file};
use landfall_verify::{Held, Severity, hold, look, recover, replicas};
use landfall_verify_fuzz::files::{Odd, SECOND_FILE, write};
use landfall_verify_fuzz::sample::{STREAM, STRONG};
use landfall_verify_fuzz::{Change, sample, words_in_use};

fn segment(pool: &Pool, kind: SegmentKind, nth: usize) -> u64 {
    let is = |segment: &u32| {
        let what = What::unpack(pool.segment_header(SegmentId(*segment)).unwrap().what).unwrap();
        what.kind == kind && (what.topic == STRONG || what.topic == TopicId(0))
    };
    let number = (0..pool.geometry().segments()).filter(is).nth(nth).unwrap();
    pool.geometry().segment_header(SegmentId(number)).unwrap()
}

/// Damages a sample, recovers it, and looks whether it is whole.
fn mended(name: &str, says: &str, damage: impl Fn(&Pool) -> Vec<Change>) {
    let pool = sample::pool();
    for (at, word) in damage(&pool) {
        pool.store(at, word);
    }
    let would = recover::pool(&pool, true);
    assert!(!would.left.is_empty(), "{name}: a dry run changes nothing");
    let recovered = recover::pool(&pool, false);
    assert!(!recovered.before.is_empty(), "{name}: nothing was wrong");
    assert_eq!(would.done, recovered.done, "{name}");
    let left: Vec<String> = recovered.left.kept().iter().map(ToString::to_string).collect();
    assert_eq!(left, [] as [String; 0], "{name}: {:?}", recovered.done);
    let [done] = &recovered.done[..] else { panic!("{name}: {:?}", recovered.done) };
    assert!(done.contains(says), "{name}: {done}");
    assert!(recover::pool(&pool, false).done.is_empty(), "{name}: nothing is left to do");
}

#[test]
fn what_follows_from_the_rest_is_mended() {
    let pool = recover::pool(&sample::pool(), false);
    assert!(pool.done.is_empty() && pool.left.is_empty());
    mended("no use", "sealed payload of broker 0", |pool| {
        vec![(segment(pool, SegmentKind::Payload, 0), 0x99)]
    });
    mended("no use and empty", "free", |pool| vec![(segment(pool, SegmentKind::Free, 1), 0x77)]);
    mended("an old tail", "it ends with segment", |pool| {
        let at = pool.geometry().chain(STRONG.slot(), SEQUENCED_LOG) + 16;
        let head = pool.load(at) & 0xffff_ffff;
        vec![(at, head | head << 32)]
    });
    mended("another oldest position", "begins at position 0", |pool| {
        vec![(pool.geometry().chain(STREAM.slot(), SEQUENCED_LOG) + 8, 3)]
    });
    mended("a wrong way back", "is before it", |pool| {
        let at = segment(pool, SegmentKind::OrderLog, 1) + 24;
        vec![(at, pool.load(at) ^ 0xff)]
    });
    mended("another position", "position 108", |pool| {
        vec![(pool.geometry().frontier(STRONG.slot(), SEQUENCED_LOG) + 8, 7)]
    });
    mended("other bytes", "bytes", |pool| {
        vec![(pool.geometry().frontier(STRONG.slot(), SEQUENCED_LOG) + 16, 7)]
    });
}

#[test]
fn a_free_segment_with_batches_in_it_is_taken_back() {
    // One that nothing else names: the rings of orders below `total` name none.
    let pool = sample::pool();
    let at = segment(&pool, SegmentKind::Payload, 1);
    pool.store(at, 0);
    let recovered = recover::pool(&pool, false);
    assert!(recovered.done[0].contains("sealed payload of broker 1"), "{:?}", recovered.done);
    assert!(recovered.left.is_empty(), "{:?}", recovered.left.kept());
}

#[test]
fn what_nobody_can_mend_is_left_and_said() {
    let pool = sample::pool();
    let log = segment(&pool, SegmentKind::OrderLog, 1);
    pool.store(log, 0x99);
    let recovered = recover::pool(&pool, false);
    assert!(recovered.left.count(Severity::Error) > 0);
    assert_eq!(pool.load(log), 0x99, "what a chain leads to is not given away");
}

#[test]
fn any_damage_is_answered() {
    let mut random = 0x9e37_79b9_u64;
    let mut next = || {
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    for _ in 0..60 {
        let pool = sample::pool();
        let words = words_in_use(&pool);
        for _ in 0..1 + next() % 40 {
            let at = words[(next() % words.len() as u64) as usize];
            let word =
                if next().is_multiple_of(2) { next() } else { pool.load(at) ^ 1 << (next() % 64) };
            pool.store(at, word);
        }
        let recovered = recover::pool(&pool, false);
        let found = look(&pool).findings;
        assert_eq!(found.count(Severity::Error), recovered.left.count(Severity::Error));
    }
}

#[test]
fn a_pool_that_somebody_has_is_not_taken() {
    let pool = sample::pool();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&pool.fd().as_fd());
    let path = PathBuf::from(format!("/proc/self/fd/{fd}"));
    let held = hold(&pool, &path).unwrap();
    assert!(matches!(hold(&pool, &path), Err(Held::Locked)));
    drop(held);
    let broker = Role::Broker(BrokerId::new(3).unwrap());
    let bell = Bell::bind(&pool, broker).unwrap();
    let error = hold(&pool, &path).unwrap_err();
    assert!(matches!(error, Held::Rung { role } if role == broker), "{error}");
    drop(bell);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let beats = scope.spawn(|| {
            let mut now = sample::NOW_NS;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                now += 1;
                pool.beat_broker(broker_0(), now, sample::EPOCH, 1);
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        });
        let held = hold(&pool, &path);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        beats.join().unwrap();
        assert!(matches!(held, Err(Held::Beats)));
    });
    assert!(hold(&pool, &path).is_ok());
}

fn broker_0() -> BrokerId {
    BrokerId::new(0).unwrap()
}

#[test]
fn torn_ends_are_cut_and_files_of_living_brokers_are_not_touched() {
    let data = std::env::temp_dir().join(format!("recover-{}", std::process::id()));
    let [own, ..] = write(&data, Odd::default()).unwrap();
    let path = replica_file(&own, SECOND_FILE);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    let unfinished = replica_file(&own, 40);
    fs::write(&unfinished, [0; 100]).unwrap();

    let would = recover::files(&data, true).unwrap();
    assert_eq!(would.kept.findings.count(Severity::Error), 1, "{:?}", would.kept.findings.kept());
    let broker = fs::File::open(data.join("broker-0")).unwrap();
    broker.try_lock().unwrap();
    let error = recover::files(&data, false).unwrap_err().to_string();
    assert!(error.contains("broker-0: a broker keeps its replicas there"), "{error}");
    drop(broker);

    let recovered = recover::files(&data, false).unwrap();
    let [removed, cut] = &recovered.done[..] else { panic!("{:?}", recovered.done) };
    assert!(removed.contains("removed, it had no record"), "{removed}");
    assert!(cut.contains("were cut off"), "{cut}");
    assert!(recovered.kept.findings.is_empty(), "{:?}", recovered.kept.findings.kept());
    assert!(recover::files(&data, false).unwrap().done.is_empty());

    // Records that hold behind one that does not stay where they are, and verify says so.
    for at in [4096 + 200, whole.len() - 10] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        for _ in 0..2 {
            let left = recover::files(&data, false).unwrap();
            assert_eq!(left.done, [""; 0]);
            assert_eq!(left.kept.findings.count(Severity::Error), 1);
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
    }
    // What an earlier program cut off comes back, and its headers are mended in the same run.
    fs::write(&path, &whole[..4096 + 256]).unwrap();
    fs::write(cut_file(&path, 4096 + 256), &whole[4096 + 256..]).unwrap();
    let found = recover::files(&data, true).unwrap();
    assert!(found.kept.findings.kept().iter().any(|finding| finding.check == "cut"));
    let recovered = recover::files(&data, false).unwrap();
    assert!(recovered.done[0].contains("put back at the end of"), "{:?}", recovered.done);
    assert!(recovered.kept.findings.is_empty(), "{:?}", recovered.kept.findings.kept());
    assert_eq!(fs::read(&path).unwrap(), whole);
    for spoilt in [20..21, 0..4096] {
        let mut damaged = whole.clone();
        damaged[spoilt].fill(0x77);
        fs::write(&path, &damaged).unwrap();
        assert_eq!(replicas::look_at_rest(&data).unwrap().findings.count(Severity::Error), 1);
        let recovered = recover::files(&data, false).unwrap();
        assert!(recovered.done[0].contains("header written again"), "{:?}", recovered.done);
        assert_eq!(recovered.kept.findings.count(Severity::Error), 0);
        assert_eq!(fs::read(&path).unwrap()[4096..], whole[4096..]);
        assert!(recover::files(&data, false).unwrap().done.is_empty());
    }
    fs::remove_dir_all(&data).unwrap();
}
