//! What attaching finds: each outcome by name, and what is refused stays as it was.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use landfall_layout::geometry::GeometryError;
use landfall_layout::pool::{Attach, Coherence, MAGIC, PoolHeader, VERSION};
use landfall_pool::map::{Backing, MapError, Mapping, check_memory};
use landfall_pool::pool::{PoolError, Shape};
use landfall_pool::{Memory, Pool};

mod common;
use common::{memory, shape};

fn found(result: Result<Pool, PoolError>) -> Attach {
    match result {
        Err(PoolError::Attach { found, .. }) => found,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => Attach::Ready,
    }
}

fn file(path: &Path) -> File {
    File::options().read(true).write(true).open(path).expect("the memfd's path")
}

fn error(result: Result<Pool, PoolError>) -> PoolError {
    match result {
        Err(error) => error,
        Ok(_) => panic!("there is a pool"),
    }
}

/// A path on tmpfs that is removed at the end.
struct Shm(PathBuf);

impl Shm {
    fn new(name: &str) -> Self {
        Self(PathBuf::from(format!("/dev/shm/landfall-test-{}-{name}", std::process::id())))
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_pool_is_created_once_and_then_attached() {
    let (_fd, path) = memory();
    assert_eq!(found(Pool::attach(&path)), Attach::NotYet);
    let first = Pool::create_or_attach(&path, shape(Coherence::Coherent)).expect("created");
    assert_eq!(first.backing(), Backing::Shmem);
    assert_eq!(first.uuid_text(), "30313233343536373839616263646566");
    first.store_release(first.geometry().leader_heartbeat(), 77);

    let other = Shape { uuid: [9; 16], sessions: 99, ..shape(Coherence::Coherent) };
    let second = Pool::create_or_attach(&path, other).expect("attached");
    assert_eq!(second.header().uuid, first.header().uuid, "an existing pool keeps its shape");
    assert_eq!(second.geometry(), first.geometry());
    assert_eq!(second.leader_heartbeat(), 77);
}

#[test]
fn a_tmpfs_file_is_a_pool() {
    let shm = Shm::new("pool");
    let missing = error(Pool::attach(&shm.0));
    assert!(matches!(&missing, PoolError::Map(MapError::Io { .. })), "{missing}");
    assert!(missing.to_string().contains(&shm.0.display().to_string()), "{missing}");
    let pool = Pool::create_or_attach(&shm.0, shape(Coherence::Coherent)).expect("created");
    assert_eq!(pool.backing(), Backing::Shmem);
    assert_eq!(found(Pool::attach(&shm.0)), Attach::Ready);
    let reader = Pool::attach_read_only(&shm.0).expect("attached");
    pool.beat_leader(5);
    assert_eq!(reader.leader_heartbeat(), 5);
}

#[test]
fn what_is_foreign_is_refused_and_left_alone() {
    for bytes in [5, 4095, 4096, 40 << 20] {
        let (_fd, path) = memory();
        let file = file(&path);
        file.set_len(bytes).expect("sized");
        file.write_all_at(b"data!", 0).expect("written");
        let magic = u64::from_le_bytes(*b"data!\0\0\0");
        assert_eq!(found(Pool::attach(&path)), Attach::Foreign { magic }, "{bytes} bytes");
        let again = Pool::create_or_attach(&path, shape(Coherence::Coherent));
        assert_eq!(found(again), Attach::Foreign { magic }, "{bytes} bytes");
        let mut left = [0; 5];
        file.read_exact_at(&mut left, 0).expect("read");
        assert_eq!(&left, b"data!");
        assert_eq!(file.metadata().expect("metadata").len(), bytes);
    }
}

#[test]
fn another_version_is_named() {
    let (_fd, path) = memory();
    drop(Pool::create_or_attach(&path, shape(Coherence::Coherent)).expect("created"));
    file(&path).write_all_at(&(VERSION + 1).to_le_bytes(), 8).expect("written");
    let other = Attach::Other { theirs: VERSION + 1, ours: VERSION };
    assert_eq!(found(Pool::attach(&path)), other);
    let text = error(Pool::create_or_attach(&path, shape(Coherence::Coherent))).to_string();
    assert!(text.contains(&format!("version {}", VERSION + 1)), "{text}");
}

#[test]
fn a_pool_that_was_cut_short_is_named() {
    for have in [16 << 20, 4096, 100, 64] {
        let (_fd, path) = memory();
        drop(Pool::create_or_attach(&path, shape(Coherence::Coherent)).expect("created"));
        file(&path).set_len(have).expect("cut");
        let short = Attach::Short { need: 48 << 20, have };
        assert_eq!(found(Pool::attach(&path)), short);
        assert_eq!(found(Pool::create_or_attach(&path, shape(Coherence::Coherent))), short);
    }
    let text = PoolError::Attach {
        path: "/dev/shm/p".into(),
        found: Attach::Short { need: 48 << 20, have: 64 },
    };
    let text = text.to_string();
    assert!(text.contains("50331648") && text.contains("64"), "{text}");
}

#[test]
fn a_header_that_contradicts_itself_is_refused() {
    type Change = fn(&mut PoolHeader);
    let changes: [(Change, &str); 5] = [
        (|h| h.segment_bytes = 3 << 20, "3145728"),
        (|h| h.segments += 1, "segments"),
        (|h| h.sessions = 0, "0 sessions"),
        (|h| h.coherence = 7, "coherence mode 7"),
        (|h| h.pool_bytes = 1 << 20, "too small"),
    ];
    for (change, names) in changes {
        let (_fd, path) = memory();
        let pool = Pool::create_or_attach(&path, shape(Coherence::Coherent)).expect("created");
        let mut header = *pool.header();
        drop(pool);
        change(&mut header);
        file(&path).write_all_at(&header.to_bytes(), 0).expect("written");
        let error = error(Pool::attach(&path));
        assert!(matches!(error, PoolError::Header { .. }), "{error}");
        assert!(error.to_string().contains(names), "{error}");
    }
}

#[test]
fn a_creator_that_died_before_the_magic_left_nothing() {
    let (_fd, path) = memory();
    let pool = Pool::create_or_attach(&path, shape(Coherence::Coherent)).expect("created");
    pool.beat_leader(3);
    drop(pool);
    file(&path).write_all_at(&[0; 8], 0).expect("written");
    assert_eq!(found(Pool::attach(&path)), Attach::NotYet);
    let pool = Pool::create_or_attach(&path, shape(Coherence::Coherent)).expect("created again");
    assert_eq!(pool.header().magic, MAGIC);
    assert_eq!(pool.leader_heartbeat(), 0, "tables of an unfinished pool are zeroed");
}

#[test]
fn a_disk_file_is_refused_and_not_left_behind() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pool-on-a-disk");
    let _ = std::fs::remove_file(&path);
    let error = error(Pool::create_or_attach(&path, shape(Coherence::Coherent)));
    if let PoolError::Map(MapError::DiskFile { .. }) = error {
        let text = error.to_string();
        assert!(text.contains("disk") && text.contains("tmpfs"), "{text}");
    } else {
        panic!("{}: {error}; is the build directory on tmpfs?", path.display());
    }
    assert!(!path.exists(), "a refused pool left a file behind");
    std::fs::write(&path, [0; 8192]).expect("a file");
    assert!(Pool::attach(&path).is_err());
    assert!(path.exists(), "what was there stays there");
    std::fs::remove_file(&path).expect("removed");
}

#[test]
fn what_is_no_memory_is_refused() {
    for path in ["/dev/null", "/dev", "/proc/self/status"] {
        let error = error(Pool::attach_read_only(Path::new(path)));
        assert!(matches!(error, PoolError::Map(_)), "{error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn impossible_sizes_are_refused_and_leave_nothing() {
    let shm = Shm::new("sizes");
    let small = Shape { pool_bytes: 1 << 20, ..shape(Coherence::Coherent) };
    let error_small = error(Pool::create_or_attach(&shm.0, small));
    let too_small = matches!(
        error_small,
        PoolError::Geometry(GeometryError::TooSmall { bytes: 1_048_576, .. })
    );
    assert!(too_small, "{error_small}");
    assert!(!shm.0.exists(), "a refused pool left a file behind");

    let odd = Shape { pool_bytes: (48 << 20) + 100, ..shape(Coherence::Coherent) };
    let error_odd = error(Pool::create_or_attach(&shm.0, odd));
    assert!(matches!(error_odd, PoolError::Map(MapError::Unaligned { .. })), "{error_odd}");
    assert!(!shm.0.exists(), "a refused pool left a file behind");

    let huge = Shape { pool_bytes: 1 << 50, segment_bytes: 1 << 30, ..shape(Coherence::Coherent) };
    let error_huge = error(Pool::create_or_attach(&shm.0, huge));
    let no_room = matches!(error_huge, PoolError::Map(MapError::NoRoom { .. }));
    assert!(no_room, "more than /dev/shm has: {error_huge}");
    assert!(!shm.0.exists(), "a refused pool left a file behind");
}

#[test]
fn a_read_only_mapping_takes_no_bytes() {
    let (_fd, path) = memory();
    let pool = Pool::create_or_attach(&path, shape(Coherence::Coherent)).expect("created");
    let reader =
        Pool::attach_file(pool.read_only_file().expect("a second descriptor"), &path, false)
            .expect("attached");
    assert!(!reader.is_writable() && pool.is_writable());
    let kind = reader.write(4096, b"x").expect_err("read-only").kind();
    assert_eq!(kind, std::io::ErrorKind::PermissionDenied);
    let kind = reader.stream(4096, b"x").expect_err("read-only").kind();
    assert_eq!(kind, std::io::ErrorKind::PermissionDenied);
    let descriptor = pool.read_only_file().expect("a second descriptor");
    let mapped = Mapping::new(&descriptor, 4096, Backing::Shmem, true);
    assert!(mapped.is_err(), "a descriptor for reading was mapped for writing");
}

#[test]
#[should_panic(expected = "only for reading")]
fn a_store_to_a_read_only_mapping_is_a_fault_of_ours() {
    let (_fd, path) = memory();
    let pool = Pool::create_or_attach(&path, shape(Coherence::Coherent)).expect("created");
    let reader =
        Pool::attach_file(pool.read_only_file().expect("a second descriptor"), &path, false)
            .expect("attached");
    reader.store_release(4096, 1);
}

#[test]
fn a_channel_is_known_by_its_magic_and_cannot_be_cut() {
    let (broker, fd) = landfall_pool::channel::create().expect("a channel");
    let cut = File::from(fd.try_clone().expect("a second descriptor")).set_len(4096);
    assert!(cut.is_err(), "a client could end its broker");
    let client = landfall_pool::channel::open(fd).expect("opened");
    client.store_release(landfall_layout::channel::CLIENT_PARKED_AT, 1);
    assert_eq!(broker.load(landfall_layout::channel::CLIENT_PARKED_AT), 1);

    let (other, _) = memory();
    let text = landfall_pool::channel::open(other).err().expect("not a channel").to_string();
    assert!(text.contains("0 bytes"), "{text}");
    let (other, path) = memory();
    file(&path).set_len(landfall_layout::channel::CHANNEL_BYTES).expect("sized");
    let text = landfall_pool::channel::open(other).err().expect("not a channel").to_string();
    assert!(text.contains("begin with 0x0000000000000000"), "{text}");
}

#[test]
#[ignore = "needs 16 huge pages of 2 MiB: as root sysctl -w vm.nr_hugepages=32, then --ignored"]
fn huge_pages_make_a_pool() {
    let fd = nix::sys::memfd::memfd_create(
        "landfall-huge",
        nix::sys::memfd::MFdFlags::MFD_HUGETLB | nix::sys::memfd::MFdFlags::MFD_HUGE_2MB,
    )
    .expect("a memfd of huge pages");
    let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()));
    let pool = Pool::create_or_attach(&path, shape(Coherence::Coherent))
        .expect("16 huge pages: sysctl -w vm.nr_hugepages=32");
    assert_eq!(pool.backing(), Backing::HugePages);
    pool.prefault().expect("every page there");
    pool.beat_leader(9);
    let again = Pool::attach(&path).expect("attached");
    assert_eq!(again.leader_heartbeat(), 9);
}

#[test]
fn more_memory_than_there_is_is_not_touched() {
    let (memory, _) = memory();
    let refused = check_memory(&memory, 1 << 50).expect_err("a PiB");
    let text = refused.to_string();
    assert!(matches!(refused, MapError::NoMemory { bytes, .. } if bytes == 1 << 50), "{text}");
    assert!(text.contains("1125899906842624 bytes more"), "{text}");
    assert!(check_memory(&memory, 4096).is_ok());
}
