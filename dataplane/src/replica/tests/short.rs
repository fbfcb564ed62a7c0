//! What the system has none left of, for a while: room, descriptors.

use landfall_layout::replica::ReplicaState;
use landfall_pool::clock::boot_ns;
use landfall_pool::disk::faulty::Plan;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Bench, work};

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
fn descriptors_that_are_short_are_waited_for() {
    const WITHIN: &str = "LANDFALL_TEST_WITHIN_LIMITS";
    if std::env::var_os(WITHIN).is_none() {
        // The limit is the whole process's, and other tests are not to meet it.
        let name = "replica::tests::short::descriptors_that_are_short_are_waited_for";
        let program = std::env::current_exe().expect("this program");
        let mut child = std::process::Command::new(program);
        let status = child.args(["--exact", name]).env(WITHIN, "1").status();
        assert!(status.expect("it starts").success());
        return;
    }
    let mut bench = Bench::new("descriptors", 0);
    bench.land(40, 1000);
    let mut worker = bench.worker_of(16 << 10);
    work(&mut worker);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there are limits");
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("it may be lower");
    // The file is full: the next one cannot be opened.
    bench.land(1, 1000);
    work(&mut worker);
    let (state, errno) = (bench.state().1, bench.line().errno);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("it was so before");
    assert_eq!((state, errno), (ReplicaState::Full, 24));
    while worker.round(boot_ns() + 300_000_000) {}
    assert_eq!((bench.state(), bench.batches()), ((41, ReplicaState::Well), 41));
}
