//! Asking the machine. Nothing here fails: what cannot be read is not known.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use landfall_layout::BrokerId;
use landfall_layout::pool::{Attach, BrokerState, Coherence};
use landfall_nic::fitness::{MemoryLock, device_with};
use landfall_nic::{Listener, devices};
use landfall_pool::map::{Backing, MapError, Mapping, check_room, examine};
use landfall_pool::pool::PoolError;
use landfall_pool::{Memory, Pool};
use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, statfs};

use super::facts::{
    Container, Cores, Cpu, Dax, Facts, Formatted, HugePages, KernelRdma, Node, Place, PoolFacts,
};
use super::parse;

const CPUS: &str = "/sys/devices/system/cpu";

/// Everything about this machine.
pub fn facts(pool: Option<&Path>, verbs: Option<IpAddr>, pool_bytes: u64) -> Facts {
    let devices = devices();
    let listened = verbs.and_then(|address| {
        device_with(devices.as_ref().ok()?, address).ok()?;
        let bound = Listener::bind(SocketAddr::new(address, 0), 1);
        Some(bound.map(drop).map_err(|error| error.to_string()))
    });
    let huge = huge_pages();
    Facts {
        verbs,
        pool: pool.map(|path| pool_facts(path, pool_bytes, &huge)),
        pool_bytes,
        kernel: kernel(),
        devices,
        listened,
        lock: MemoryLock::here().ok(),
        places: places(&huge),
        dax: dax(),
        huge,
        shmem_huge: text("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
            .and_then(|text| parse::chosen(&text)),
        cpu: cpu(),
        cores: cores(),
        io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled")
            .and_then(|number| u8::try_from(number).ok()),
        clock: text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        container: container(),
    }
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    text(path)?.parse().ok()
}

/// The names in a folder, sorted; none where there is no such folder.
fn names(path: &str) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn is_there(path: impl AsRef<Path>) -> bool {
    path.as_ref().exists()
}

fn kernel() -> KernelRdma {
    let release = text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let folder = "/dev/infiniband";
    let node = |name: &str| {
        let path = format!("{folder}/{name}");
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        Node { path, refused: opened.err().map(|error| error.to_string()) }
    };
    let nodes = names(folder);
    KernelRdma {
        known: names("/sys/class/infiniband"),
        uverbs: is_there("/sys/class/infiniband_verbs"),
        cm: is_there("/sys/class/misc/rdma_cm"),
        rxe: is_there("/sys/module/rdma_rxe"),
        has_modules: is_there(format!("/lib/modules/{release}/kernel/drivers/infiniband")),
        nodes: nodes.iter().filter(|name| name.starts_with("uverbs")).map(|n| node(n)).collect(),
        cm_node: nodes.iter().find(|name| *name == "rdma_cm").map(|name| node(name)),
    }
}

fn pool_facts(path: &Path, pool_bytes: u64, huge: &[HugePages]) -> PoolFacts {
    let folder = folder_of(path);
    let mut facts = PoolFacts {
        path: path.display().to_string(),
        folder: folder.display().to_string(),
        exists: true,
        memory: Err(String::new()),
        no_room: None,
        formatted: None,
    };
    // Without O_NONBLOCK a pipe would wait for its other end.
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            new_file(folder, pool_bytes, &mut facts);
            facts.no_room = facts.no_room.or_else(|| no_pages(folder, pool_bytes, huge));
            return facts;
        }
        Err(error) => {
            facts.memory = Err(format!("open {}: {error}", facts.path));
            return facts;
        }
    };
    let (backing, bytes) = match examine(&file, path) {
        Ok(memory) => memory,
        Err(error) => {
            facts.memory = Err(error.to_string());
            return facts;
        }
    };
    facts.memory = Ok((backing, bytes));
    facts.formatted = match Pool::attach_read_only(path) {
        Ok(pool) => Some(Ok(formatted(&pool))),
        Err(PoolError::Attach { found: Attach::NotYet, .. }) => None,
        Err(error) => Some(Err(error.to_string())),
    };
    if backing == Backing::HugePages && facts.formatted.is_none() {
        facts.no_room = no_pages(path, facts.bytes().unwrap_or(0).max(pool_bytes), huge);
    }
    if backing == Backing::Shmem {
        let wanted = facts.bytes().filter(|bytes| *bytes > 0).unwrap_or(pool_bytes);
        facts.no_room = check_room(&file, path, wanted).err().map(|error| error.to_string());
    }
    facts
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Why a new pool on hugetlbfs would not find the huge pages it needs.
fn no_pages(at: &Path, wanted: u64, huge: &[HugePages]) -> Option<String> {
    let asked = statfs(at).ok()?;
    let block = asked.block_size().unsigned_abs();
    if asked.filesystem_type() != HUGETLBFS_MAGIC {
        return None;
    }
    let free: u64 = huge.iter().filter(|huge| huge.page_bytes == block).map(|huge| huge.free).sum();
    let have = free.saturating_mul(block);
    (have < wanted).then(|| {
        format!(
            "{} has {free} free huge pages of {block} bytes; a pool of {wanted} bytes needs {}",
            at.display(),
            wanted.div_ceil(block.max(1))
        )
    })
}

/// A file that is not there yet is judged by the file system it would be on.
fn new_file(folder: &Path, pool_bytes: u64, facts: &mut PoolFacts) {
    facts.exists = false;
    let asked = match statfs(folder) {
        Ok(asked) => asked,
        Err(error) => {
            let error = std::io::Error::from(error);
            facts.memory = Err(format!("look at {}: {error}", folder.display()));
            return;
        }
    };
    facts.memory = match asked.filesystem_type() {
        TMPFS_MAGIC => Ok((Backing::Shmem, 0)),
        HUGETLBFS_MAGIC => Ok((Backing::HugePages, 0)),
        other => {
            let refused = MapError::DiskFile { path: facts.path.clone(), filesystem: other.0 };
            Err(refused.to_string())
        }
    };
    let free = asked.blocks_available().saturating_mul(asked.block_size().unsigned_abs());
    let is_shmem = facts.memory == Ok((Backing::Shmem, 0));
    if is_shmem && asked.blocks() > 0 && pool_bytes > free {
        let refused = MapError::NoRoom { path: facts.path.clone(), bytes: pool_bytes, free };
        facts.no_room = Some(refused.to_string());
    }
}

fn formatted(pool: &Pool) -> Formatted {
    let serving =
        |id: &BrokerId| BrokerState::from_raw(pool.broker(*id).state) != BrokerState::Absent;
    let brokers: Vec<BrokerId> = BrokerId::all().filter(serving).collect();
    let hosts: BTreeSet<u64> = brokers.iter().map(|id| pool.broker(*id).host).collect();
    Formatted {
        bytes: pool.geometry().pool_bytes(),
        segment_bytes: pool.geometry().segment_bytes(),
        coherence: if pool.flushes() { Coherence::Flush } else { Coherence::Coherent },
        brokers: brokers.len(),
        hosts: hosts.len(),
    }
}

fn huge_pages() -> Vec<HugePages> {
    let at = "/sys/kernel/mm/hugepages";
    let each = names(at).into_iter().filter_map(|name| {
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(HugePages {
            page_bytes: kib << 10,
            total: number(format!("{at}/{name}/nr_hugepages"))?,
            free: number(format!("{at}/{name}/free_hugepages"))?,
        })
    });
    let mut all: Vec<HugePages> = each.collect();
    all.sort_by_key(|huge| huge.page_bytes);
    all
}

fn places(huge: &[HugePages]) -> Vec<Place> {
    let mounts = parse::mounts(&text("/proc/mounts").unwrap_or_default());
    mounts.into_iter().filter_map(|mount| place(mount, huge)).collect()
}

fn place(mount: parse::Mount, huge: &[HugePages]) -> Option<Place> {
    let asked = statfs(mount.path.as_str()).ok()?;
    let block = asked.block_size().unsigned_abs();
    let bounded = asked.blocks() > 0;
    let mut bytes = bounded.then(|| asked.blocks().saturating_mul(block));
    let mut free = asked.blocks_available().saturating_mul(block);
    let of_pages = huge.iter().find(|huge| huge.page_bytes == block);
    if let (Backing::HugePages, Some(pages)) = (mount.backing, of_pages) {
        // A mount without a bound of its own has the pages that were set aside.
        let set_aside = pages.total.saturating_mul(pages.page_bytes);
        let unused = pages.free.saturating_mul(pages.page_bytes);
        free = if bounded { free.min(unused) } else { unused };
        bytes = Some(bytes.map_or(set_aside, |bytes| bytes.min(set_aside)));
    }
    Some(Place { path: mount.path, backing: mount.backing, bytes, free, huge: mount.huge })
}

fn dax() -> Vec<Dax> {
    let at = "/sys/bus/dax/devices";
    let each = names(at).into_iter().filter_map(|name| {
        let folder = format!("{at}/{name}");
        let driver = fs::read_link(format!("{folder}/driver")).ok();
        let driver = driver.as_deref().and_then(Path::file_name);
        Some(Dax {
            bytes: number(format!("{folder}/size"))?,
            align: number(format!("{folder}/align")).unwrap_or(0),
            driver: driver.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            name,
        })
    });
    each.collect()
}

fn cpu() -> Cpu {
    let mut cpu = parse::cpu(&text("/proc/cpuinfo").unwrap_or_default());
    cpu.can_flush = Mapping::can_flush();
    cpu
}

fn cores() -> Cores {
    let list = |name: &str| {
        text(format!("{CPUS}/{name}")).map(|text| parse::ranges(&text)).unwrap_or_default()
    };
    let online = list("online");
    let governors = online
        .iter()
        .filter_map(|core| text(format!("{CPUS}/cpu{core}/cpufreq/scaling_governor")))
        .collect();
    Cores {
        isolated: list("isolated"),
        tickless: list("nohz_full"),
        usable: std::thread::available_parallelism().map_or(1, usize::from),
        online,
        governors,
    }
}

fn container() -> Container {
    let kind = if let Some(kind) = text("/run/systemd/container").filter(|kind| !kind.is_empty()) {
        Some(kind)
    } else if is_there("/.dockerenv") {
        Some("docker".to_owned())
    } else if is_there("/run/.containerenv") {
        Some("podman".to_owned())
    } else {
        std::env::var("container").ok().filter(|kind| !kind.is_empty())
    };
    Container { kind, uid: nix::unistd::geteuid().as_raw(), memory_max: memory_max() }
}

/// The smallest bound of this process's control group and those around it.
fn memory_max() -> Option<u64> {
    let groups = text("/proc/self/cgroup")?;
    let files = parse::memory_bounds(&groups);
    // The first version of control groups writes a number near 2^63 for no bound.
    files.iter().filter_map(number).filter(|bytes| *bytes < 1 << 62).min()
}
