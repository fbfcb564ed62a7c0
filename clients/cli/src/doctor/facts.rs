//! What was found on this machine, before anybody judges it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use landfall_layout::pool::Coherence;
use landfall_nic::fitness::MemoryLock;
use landfall_nic::{DeviceInfo, PortInfo, Unavailable};
use landfall_pool::map::Backing;

/// Everything that a judgement may depend on. `None` is what could not be read.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The address that `--verbs` names.
    pub verbs: Option<IpAddr>,
    /// The pool that `--pool` names.
    pub pool: Option<PoolFacts>,
    /// Bytes that a pool has when nobody says otherwise.
    pub pool_bytes: u64,
    /// The kernel's part of RDMA.
    pub kernel: KernelRdma,
    /// RDMA devices, or why there are none.
    pub devices: Result<Vec<DeviceInfo>, Unavailable>,
    /// What listening on the address of `--verbs` said.
    pub listened: Option<Result<(), String>>,
    /// What this process may lock in memory.
    pub lock: Option<MemoryLock>,
    /// File systems in memory.
    pub places: Vec<Place>,
    /// Devdax devices.
    pub dax: Vec<Dax>,
    /// Huge pages by size.
    pub huge: Vec<HugePages>,
    /// The setting of huge pages for memfds.
    pub shmem_huge: Option<String>,
    /// The processor.
    pub cpu: Cpu,
    /// Cores.
    pub cores: Cores,
    /// 0: io_uring is for all, 1: for a group, 2: for nobody.
    pub io_uring_disabled: Option<u8>,
    /// The kernel's clock source.
    pub clock: Option<String>,
    /// What this process runs in.
    pub container: Container,
}

impl Facts {
    /// Bytes of the pool that a NIC would have to pin.
    pub fn pinned_bytes(&self) -> u64 {
        let bytes = self.pool.as_ref().and_then(PoolFacts::bytes);
        bytes.filter(|bytes| *bytes > 0).unwrap_or(self.pool_bytes)
    }

    /// Whether `--verbs` asks for this device.
    pub fn asks_for(&self, device: &DeviceInfo) -> bool {
        let of_device = device.ports.iter().any(|port| self.asks_for_port(port));
        // One that could not be asked for its ports may be the one that has the address.
        of_device || (self.verbs.is_some() && device.trouble.is_some())
    }

    /// Whether `--verbs` asks for this port.
    pub fn asks_for_port(&self, port: &PortInfo) -> bool {
        self.verbs.is_some_and(|address| port.gids.iter().any(|gid| gid.ip == Some(address)))
    }
}

impl PoolFacts {
    /// Bytes of the pool in it, else of the memory.
    pub fn bytes(&self) -> Option<u64> {
        match (&self.formatted, &self.memory) {
            (Some(Ok(formatted)), _) => Some(formatted.bytes),
            (_, Ok((_, bytes))) => Some(*bytes),
            _ => None,
        }
    }
}

/// The kernel's part of RDMA.
#[derive(Clone, Default, Debug)]
pub struct KernelRdma {
    /// Devices that the kernel knows, whether or not this process can reach them.
    pub known: Vec<String>,
    /// Whether `ib_uverbs` is there.
    pub uverbs: bool,
    /// Whether `rdma_ucm` is there.
    pub cm: bool,
    /// Whether soft-RoCE is there.
    pub rxe: bool,
    /// Whether this kernel has RDMA modules that could be loaded.
    pub has_modules: bool,
    /// The nodes of devices under `/dev/infiniband`, and whether this user may open them.
    pub nodes: Vec<Node>,
    /// The node of rdma_cm.
    pub cm_node: Option<Node>,
}

/// A device node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it is.
    pub path: String,
    /// Why it could not be opened.
    pub refused: Option<String>,
}

/// The pool to judge.
#[derive(Clone, Debug)]
pub struct PoolFacts {
    /// Where it is.
    pub path: String,
    /// The folder that it is in.
    pub folder: String,
    /// Whether the file is there already.
    pub exists: bool,
    /// What stands behind it and its bytes, or why nothing can.
    pub memory: Result<(Backing, u64), String>,
    /// Why the file system cannot hold what is not yet taken.
    pub no_room: Option<String>,
    /// The pool in it. `None`: there is none yet.
    pub formatted: Option<Result<Formatted, String>>,
}

/// A pool that was made.
#[derive(Clone, Copy, Debug)]
pub struct Formatted {
    /// Bytes.
    pub bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Coherence mode.
    pub coherence: Coherence,
    /// Brokers that serve it.
    pub brokers: usize,
    /// Hosts that these run on.
    pub hosts: usize,
}

/// A file system in memory.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where it is mounted.
    pub path: String,
    /// What a file in it is.
    pub backing: Backing,
    /// Bytes it may hold; `None`: as many as the machine has.
    pub bytes: Option<u64>,
    /// Bytes of those that are free.
    pub free: u64,
    /// Its `huge=` option; empty when it has none.
    pub huge: String,
}

/// A devdax device.
#[derive(Clone, Debug)]
pub struct Dax {
    /// Its name, such as `dax0.0`.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Multiple that mappings have to keep to.
    pub align: u64,
    /// The driver it is bound to; empty when to none.
    pub driver: String,
}

/// Huge pages of one size.
#[derive(Clone, Copy, Debug)]
pub struct HugePages {
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Pages set aside.
    pub total: u64,
    /// Pages that nobody has.
    pub free: u64,
}

/// The processor.
#[derive(Clone, Default, Debug)]
pub struct Cpu {
    /// Its maker, as it calls itself.
    pub vendor: String,
    /// Its model.
    pub model: String,
    /// Its features by the kernel's names; none were found when empty.
    pub features: BTreeSet<String>,
    /// Whether cache lines can be written back on it.
    pub can_flush: bool,
}

/// Cores.
#[derive(Clone, Default, Debug)]
pub struct Cores {
    /// Those that are on.
    pub online: Vec<usize>,
    /// Those that the scheduler leaves alone.
    pub isolated: Vec<usize>,
    /// Those without a timer tick while one task runs.
    pub tickless: Vec<usize>,
    /// How many this process may use.
    pub usable: usize,
    /// Frequency governors in use; none are known when empty.
    pub governors: BTreeSet<String>,
}

/// What this process runs in.
#[derive(Clone, Default, Debug)]
pub struct Container {
    /// The container's kind, when it is one.
    pub kind: Option<String>,
    /// The effective user.
    pub uid: u32,
    /// Bytes of memory that the control group allows.
    pub memory_max: Option<u64>,
}
