//! What the system has none left of, for a while: room, descriptors.

use std::fs::File;
use std::os::fd::AsRawFd;

use landfall_layout::replica::ReplicaState;
use landfall_pool::clock::boot_ns;
use landfall_pool::disk::faulty::Plan;
use landfall_replica::names::{replica_file, topic_directory};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Bench, CREATED_NS, work};

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_skipped() {
    let mut bench = Bench::new("full", 0);
    bench.land(2, 1000);
    let mut worker = bench.worker();
    work(&mut worker);
    bench.faults.set(Plan { full_after: Some(1500), ..Plan::default() });
    bench.land(4, 1000);
    work(&mut worker);
    assert_eq!(bench.state(), (2, ReplicaState::Full));
    assert_eq!((bench.line().errno, bench.batches()), (28, 2), "no half record stays");
    work(&mut worker);
    assert_eq!(bench.state(), (2, ReplicaState::Full), "not before its time");
    bench.faults.set(Plan::default());
    while worker.round(boot_ns() + 300_000_000) {}
    assert_eq!((bench.state(), bench.batches()), ((6, ReplicaState::Well), 6));
}

#[test]
fn a_directory_whose_lock_is_kept_is_tried_again_and_opened_when_it_is_free() {
    let mut bench = Bench::new("kept", 0);
    bench.land(2, 1000);
    let topic = topic_directory(&bench.directory, "t", CREATED_NS);
    std::fs::create_dir_all(&topic).expect("it can be made");
    let kept = File::open(&topic).expect("it is there");
    kept.lock_shared().expect("nobody has it");
    let mut worker = bench.worker();
    work(&mut worker);
    assert_eq!((bench.state(), bench.line().errno), ((0, ReplicaState::Full), 11));
    drop(kept);
    worker.look_at_table(boot_ns() + 300_000_000);
    work(&mut worker);
    assert_eq!((bench.state(), bench.batches()), ((2, ReplicaState::Well), 2));
}

#[test]
fn descriptors_that_are_short_are_waited_for() {
    const WITHIN: &str = "LANDFALL_TEST_WITHIN_LIMITS";
    if std::env::var_os(WITHIN).is_none() {
        // The limit is the whole process's, and other tests are not to meet it.
        let name = "replica::tests::short::descriptors_that_are_short_are_waited_for";
        let program = std::env::current_exe().expect("this program");
        let mut child = std::process::Command::new(program);
        let output = child.args(["--exact", name]).env(WITHIN, "1").output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        return;
    }
    // Each try gets one further, until there are enough.
    for spare in 0.. {
        let mut bench = Bench::new(&format!("descriptors-{spare}"), 0);
        bench.land(40, 1000);
        let mut worker = bench.worker_of(16 << 10);
        work(&mut worker);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there are limits");
        let next = File::open("/dev/null").expect("it can be opened").as_raw_fd();
        let limit = next.unsigned_abs() + spare;
        setrlimit(Resource::RLIMIT_NOFILE, limit.into(), hard).expect("it may be lower");
        // The file is full: the next one cannot be opened.
        bench.land(1, 1000);
        work(&mut worker);
        let (state, errno) = (bench.state().1, bench.line().errno);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("it was so before");
        if state == ReplicaState::Well {
            assert!(spare >= 2, "the file and its directory take one each");
            break;
        }
        assert_eq!((state, errno), (ReplicaState::Full, 24), "{spare}");
        while worker.round(boot_ns() + 300_000_000) {}
        assert_eq!((bench.state(), bench.batches()), ((41, ReplicaState::Well), 41), "{spare}");
    }
}

/// What is not there yet has nothing to lose, whatever the system says.
#[test]
fn an_error_for_a_moment_where_the_next_file_is_made_is_waited_for() {
    let plan = |write_fails, sync_fails| Plan { write_fails, sync_fails, ..Plan::default() };
    let ways = [("name", plan(None, None)), ("header", plan(Some(1), None))];
    for (name, plan) in ways.into_iter().chain([("sync", plan(None, Some(1)))]) {
        let mut bench = Bench::new(&format!("moment-{name}"), 0);
        bench.land(40, 1000);
        let mut worker = bench.worker_of(16 << 10);
        work(&mut worker);
        assert_eq!(bench.state(), (40, ReplicaState::Well), "{name}");
        let source = topic_directory(&bench.directory, "t", CREATED_NS).join("b0");
        let kept = source.with_extension("kept");
        if name == "name" {
            std::fs::rename(&source, &kept).expect("it can be moved");
            std::os::unix::fs::symlink(&source, &source).expect("it can be made");
        }
        bench.faults.set(plan);
        bench.land(1, 1000);
        work(&mut worker);
        let errno = if name == "name" { 40 } else { 5 };
        assert_eq!(
            (bench.state(), bench.line().errno),
            ((40, ReplicaState::Full), errno),
            "{name}"
        );
        if name == "name" {
            std::fs::remove_file(&source).expect("it is there");
            std::fs::rename(&kept, &source).expect("it can be moved");
        }
        bench.faults.set(Plan::default());
        while worker.round(boot_ns() + 300_000_000) {}
        assert_eq!((bench.state(), bench.batches()), ((41, ReplicaState::Well), 41), "{name}");
    }
}

/// So it is where the files are opened when their broker starts.
#[test]
fn an_error_for_a_moment_where_the_files_are_opened_is_waited_for() {
    let mut bench = Bench::new("moment-open", 0);
    bench.land(2, 1000);
    work(&mut bench.worker());
    let source = topic_directory(&bench.directory, "t", CREATED_NS).join("b0");
    let path = replica_file(&source, 0);
    let kept = path.with_extension("kept");
    std::fs::rename(&path, &kept).expect("it can be moved");
    std::os::unix::fs::symlink(&path, &path).expect("it can be made");
    let mut worker = bench.worker();
    work(&mut worker);
    assert_eq!((bench.state().1, bench.line().errno), (ReplicaState::Full, 40));
    std::fs::remove_file(&path).expect("it is there");
    std::fs::rename(&kept, &path).expect("it can be moved");
    bench.land(1, 1000);
    worker.look_at_table(boot_ns() + 2_000_000_000);
    work(&mut worker);
    assert_eq!((bench.state(), bench.batches()), ((3, ReplicaState::Well), 3));
}
