//! Clients of one process share what they map of a pool.

use std::fs::File;
use std::os::fd::AsRawFd;

use landfall_layout::pool::Coherence;
use landfall_pool::{Memory, Pool};

mod common;
use common::{memory, shape};

#[test]
fn a_process_maps_a_pool_once_for_all_of_its_clients() {
    let (memory, path) = memory();
    let shape = shape(Coherence::Coherent);
    // A size of its own: tests beside this one map others.
    let own = landfall_pool::pool::Shape { pool_bytes: 50 << 20, ..shape };
    let pool = Pool::create_or_attach(&path, own).unwrap();
    let name = std::fs::read_link(format!("/proc/self/fd/{}", memory.as_raw_fd())).unwrap();
    let inode =
        std::os::unix::fs::MetadataExt::ino(&File::open(&path).unwrap().metadata().unwrap());
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let of_pool = |line: &&str| line.split_whitespace().nth(4) == Some(&inode.to_string());
        maps.lines().filter(of_pool).count()
    };
    assert_eq!(mapped(), 1, "{name:?}");
    let writable =
        || Pool::attach_handed(File::options().read(true).write(true).open(&path).unwrap(), true);
    let readable = || Pool::attach_handed(pool.read_only_file().unwrap(), false);
    let publishers: Vec<Pool> = (0..20).map(|_| writable().unwrap()).collect();
    let subscribers: Vec<Pool> = (0..20).map(|_| readable().unwrap()).collect();
    assert_eq!(mapped(), 3, "the pool's own, one for writing, one for reading");
    let at = pool.geometry().pool_bytes() - 8;
    publishers[7].store(at, 17);
    assert!(subscribers.iter().all(|pool| pool.load(at) == 17));
    assert!(!subscribers[0].is_writable() && publishers[0].is_writable());
    drop((publishers, subscribers));
    assert_eq!(mapped(), 1, "the last one takes it along");
    assert_eq!(readable().unwrap().load(at), 17);
}
