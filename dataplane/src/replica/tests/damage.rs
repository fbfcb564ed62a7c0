//! Files that are not as they were written, met by a broker that starts.

use std::os::unix::fs::symlink;

use landfall_layout::replica::ReplicaHeader;
use landfall_replica::Walk;

use super::*;

/// Damages the second of the batches in the last file.
fn damage(bench: &Bench) -> PathBuf {
    let last = bench.survey().files.pop().unwrap();
    assert!(last.batches > 2, "{last:?}");
    let file = fs::OpenOptions::new().write(true).open(&last.path).unwrap();
    file.write_all_at(&[0xff], REPLICA_HEADER_BYTES + record_bytes(2064) + 500).unwrap();
    last.path
}

#[test]
fn a_byte_that_changed_costs_nothing_that_the_pool_still_has() {
    let mut bench = Bench::new("mended", 0);
    bench.land(4, 2000);
    bench.leave(3);
    bench.land(4, 2000);
    work(&mut bench.worker());
    let whole = fs::read(damage(&bench)).unwrap().len();
    work(&mut bench.worker());
    assert_eq!(bench.state(), (11, ReplicaState::Well));
    assert_eq!((bench.batches(), bench.holes()), (8, 3));
    let path = bench.survey().files.pop().unwrap().path;
    assert_eq!(fs::read(&path).unwrap().len(), whole);
    // So with more than one record, their batches, holes and frontiers.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0x55; 9000], REPLICA_HEADER_BYTES + 1000).unwrap();
    assert!(bench.survey().files[0].damage[0].entries() > Some(3));
    work(&mut bench.worker());
    assert_eq!((bench.batches(), bench.holes()), (8, 3));
    bench.land(4, 2000);
    work(&mut bench.worker());
    assert_eq!((bench.batches(), bench.state()), (12, (15, ReplicaState::Well)));
}

#[test]
fn what_nobody_has_any_more_costs_no_other_record() {
    let mut bench = Bench::new("stepped-over", 0);
    bench.land(8, 2000);
    work(&mut bench.worker());
    let path = damage(&bench);
    let bytes = fs::read(&path).unwrap();
    bench.pool.raise_oldest(bench.topic, 0, 3, 9);
    for _ in 0..2 {
        work(&mut bench.worker());
        assert_eq!(bench.state(), (8, ReplicaState::Well));
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing that holds is touched");
    }
    bench.land(2, 2000);
    work(&mut bench.worker());
    let survey = bench.survey().files.pop().unwrap();
    let [damage] = &survey.damage[..] else { panic!("{survey:?}") };
    assert_eq!((survey.batches, damage.entries(), damage.indexes()), (9, Some(1), 1..2));
    // What the log still has of the damage comes back, and the rest does not.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0x55; 7000], REPLICA_HEADER_BYTES + 1000).unwrap();
    assert_eq!(bench.survey().files[0].damage[0].indexes(), 0..4);
    work(&mut bench.worker());
    let survey = bench.survey().files.pop().unwrap();
    let [damage] = &survey.damage[..] else { panic!("{survey:?}") };
    assert_eq!((survey.batches, damage.entries(), damage.indexes()), (7, Some(3), 0..3));
}

#[test]
fn a_header_that_does_not_hold_is_written_again() {
    let mut bench = Bench::new("header", 0);
    bench.land(4, 2000);
    work(&mut bench.worker());
    let path = bench.survey().files.pop().unwrap().path;
    let header = *Walk::open(&path).unwrap().header();
    for spoilt in [&[7; 300][..], &[9; 4096]] {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(spoilt, 0).unwrap();
        assert_eq!(bench.survey().files[0].batches, 4);
        work(&mut bench.worker());
        assert_eq!((bench.state(), bench.batches()), ((4, ReplicaState::Well), 4));
        let again = *Walk::open(&path).unwrap().header();
        let times = |header: ReplicaHeader| ReplicaHeader { opened_ns: 0, crc: 0, ..header };
        assert_eq!(times(again), times(header));
    }
}

#[test]
fn a_file_whose_name_the_system_does_not_look_at_is_waited_for() {
    let mut bench = Bench::new("unnamed", 0);
    bench.land(3, 500);
    let mut worker = bench.worker();
    work(&mut worker);
    // A name that leads to itself: the system says neither that the file is there nor that it is
    // not, as of a disk whose server does not answer.
    let (topic, away) = (bench.directory.join("t"), bench.directory.join("u"));
    fs::rename(&topic, &away).unwrap();
    symlink(&topic, &topic).unwrap();
    for landed in [6, 9] {
        bench.land(3, 500);
        work(&mut worker);
        assert_eq!(bench.state(), (3, ReplicaState::Well), "{landed} are written");
    }
    worker.let_go(boot_ns() + 1_000_000_000);
    worker.round(boot_ns());
    assert_eq!(bench.state(), (3, ReplicaState::Well));
    fs::remove_file(&topic).unwrap();
    fs::rename(&away, &topic).unwrap();
    worker.let_go(boot_ns() + 2_000_000_000);
    worker.round(boot_ns());
    assert_eq!(bench.state(), (9, ReplicaState::Well));
    bench.land(1, 500);
    work(&mut worker);
    assert_eq!((bench.state(), bench.batches()), ((10, ReplicaState::Well), 10));
}

#[test]
fn a_file_that_lost_its_name_is_never_called_durable() {
    for (way, is_idle) in [("removed", false), ("moved", false), ("replaced", true)] {
        let mut bench = Bench::new(&format!("name-{way}"), 0);
        bench.land(3, 500);
        let mut worker = bench.worker();
        work(&mut worker);
        assert_eq!(bench.state(), (3, ReplicaState::Well), "{way}");
        let topic = bench.directory.join("t");
        match way {
            "removed" => fs::remove_dir_all(&topic).unwrap(),
            "moved" => fs::rename(&topic, bench.directory.join("u")).unwrap(),
            _ => {
                let path = bench.survey().files.pop().unwrap().path;
                let bytes = fs::read(&path).unwrap();
                fs::remove_file(&path).unwrap();
                fs::write(&path, bytes).unwrap();
            }
        }
        if is_idle {
            worker.let_go(boot_ns() + 1_000_000_000);
        } else {
            bench.land(3, 500);
            work(&mut worker);
        }
        worker.round(boot_ns());
        assert_eq!(bench.state(), (3, ReplicaState::Failed), "{way}");
    }
}
