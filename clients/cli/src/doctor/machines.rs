//! Made-up machines.

use landfall_layout::pool::Coherence;
use landfall_nic::fitness::MemoryLock;
use landfall_nic::{DeviceInfo, GidInfo, GidKind, InOrder, Link, PortInfo, PortState, Unavailable};
use landfall_pool::map::{Backing, MapError};

use super::facts::{
    Container, Cores, Cpu, Dax, Facts, Formatted, HugePages, KernelRdma, Node, Place, PoolFacts,
};

const GIB: u64 = 1 << 30;

fn words<T: FromIterator<String>>(text: &str) -> T {
    text.split_whitespace().map(str::to_owned).collect()
}

fn node(name: &str) -> Node {
    Node { path: format!("/dev/infiniband/{name}"), refused: None }
}

/// No RDMA at all, little memory set aside, an older CPU that slows down.
pub fn laptop() -> Facts {
    let cpu = Cpu {
        vendor: "GenuineIntel".into(),
        model: "Core i7".into(),
        features: words("sse4_2 pclmulqdq avx clflushopt"),
        can_flush: true,
    };
    let missing = "libibverbs.so.1: cannot open shared object file; install libibverbs1 \
                   ibverbs-providers librdmacm1";
    let shm = Place {
        path: "/dev/shm".into(),
        backing: Backing::Shmem,
        bytes: Some(8 * GIB),
        free: 7 * GIB,
        huge: String::new(),
    };
    Facts {
        verbs: None,
        pool: None,
        pool_bytes: GIB,
        kernel: KernelRdma { has_modules: true, ..KernelRdma::default() },
        devices: Err(Unavailable::Library(missing.into())),
        listened: None,
        lock: Some(MemoryLock { soft: 8 << 20, hard: 8 << 20, exempt: false }),
        places: vec![shm],
        dax: Vec::new(),
        huge: vec![HugePages { page_bytes: 2 << 20, total: 0, free: 0 }],
        shmem_huge: Some("never".into()),
        cpu,
        cores: Cores {
            online: (0..8).collect(),
            usable: 8,
            governors: words("powersave"),
            ..Cores::default()
        },
        io_uring_disabled: Some(0),
        clock: Some("tsc".into()),
        container: Container { kind: None, uid: 1000, memory_max: None },
    }
}

fn gid(index: u32, kind: GidKind, ip: Option<&str>) -> GidInfo {
    GidInfo {
        index,
        gid: [0; 16],
        kind,
        interface: Some("eth0".into()),
        ip: ip.map(|ip| ip.parse().unwrap()),
    }
}

/// A NIC with everything, in the manner of mlx5.
pub fn nic() -> DeviceInfo {
    DeviceInfo {
        name: "mlx5_0".into(),
        driver: "mlx5_core".into(),
        firmware: "28.39.1002".into(),
        max_mr_bytes: u64::MAX,
        max_mr: 1 << 24,
        max_qp: 1 << 17,
        max_qp_wr: 1 << 15,
        max_mw: 1 << 24,
        max_rd_atom: 16,
        windows_2b: true,
        bounds_windows: true,
        odp: true,
        in_order: Some(InOrder::WholeMessage),
        ports: vec![PortInfo {
            number: 1,
            state: PortState::Active,
            mtu: 4096,
            mtu_max: 4096,
            link: Link::Ethernet,
            gids: vec![
                gid(0, GidKind::RoceV1, None),
                gid(1, GidKind::RoceV2, Some("fe80::1")),
                gid(3, GidKind::RoceV2, Some("10.0.0.1")),
            ],
            lid: 0,
        }],
        ..DeviceInfo::default()
    }
}

/// A host that was set up for it, with a CXL device that two hosts share in flush mode.
pub fn rack_host() -> Facts {
    let mut facts = laptop();
    let device = Dax {
        name: "dax0.0".into(),
        bytes: 256 * GIB,
        align: 2 << 20,
        driver: "device_dax".into(),
    };
    facts.kernel = KernelRdma {
        known: vec!["mlx5_0".into()],
        uverbs: true,
        cm: true,
        rxe: false,
        has_modules: true,
        nodes: vec![node("uverbs0")],
        cm_node: Some(node("rdma_cm")),
    };
    facts.verbs = Some("10.0.0.1".parse().unwrap());
    facts.listened = Some(Ok(()));
    facts.devices = Ok(vec![nic()]);
    facts.lock = Some(MemoryLock { soft: u64::MAX, hard: u64::MAX, exempt: false });
    facts.dax = vec![device];
    facts.pool = Some(pool(Backing::DevDax, 256 * GIB, Coherence::Flush, 2));
    facts.huge = vec![HugePages { page_bytes: 2 << 20, total: 4096, free: 4096 }];
    facts.shmem_huge = Some("advise".into());
    facts.places[0].huge = "advise".into();
    facts.cpu.features =
        words("sse4_2 pclmulqdq vpclmulqdq avx512f avx512bw clwb clflushopt movdir64b");
    facts.cores.isolated = vec![4, 5, 6, 7];
    facts.cores.tickless = vec![4, 5, 6, 7];
    facts.cores.governors = words("performance");
    facts
}

/// A pool that brokers on so many hosts serve.
pub fn pool(backing: Backing, bytes: u64, coherence: Coherence, hosts: usize) -> PoolFacts {
    let formatted =
        Formatted { bytes, segment_bytes: 8 << 20, coherence, brokers: 2 * hosts, hosts };
    PoolFacts {
        path: "/dev/pool".into(),
        folder: "/dev".into(),
        exists: true,
        memory: Ok((backing, bytes)),
        no_room: None,
        formatted: Some(Ok(formatted)),
    }
}

/// Soft-RoCE on a laptop, on an interface with the usual MTU.
pub fn soft_roce() -> Facts {
    let mut facts = laptop();
    facts.kernel = KernelRdma { rxe: true, known: vec!["rxe0".into()], ..rack_host().kernel };
    let mut device = nic();
    device.name = "rxe0".into();
    device.driver = "rdma_rxe".into();
    device.firmware = String::new();
    device.bounds_windows = false;
    device.odp = false;
    device.max_mw = 4096;
    device.in_order = Some(InOrder::NotPromised);
    device.ports[0].mtu = 1024;
    facts.devices = Ok(vec![device]);
    facts
}

/// A container that was given neither the device nodes nor memory enough.
pub fn container() -> Facts {
    let mut facts = rack_host();
    facts.verbs = None;
    facts.listened = None;
    facts.pool = None;
    facts.kernel.nodes = Vec::new();
    facts.kernel.cm_node = None;
    facts.devices = Err(Unavailable::NoDevice);
    facts.lock = Some(MemoryLock { soft: 64 << 10, hard: 64 << 10, exempt: false });
    facts.container =
        Container { kind: Some("docker".into()), uid: 0, memory_max: Some(512 << 20) };
    facts
}

/// The laptop, asked for a pool on its disk.
pub fn disk_file() -> Facts {
    let mut facts = laptop();
    let path = "/home/me/pool".to_owned();
    let refused = MapError::DiskFile { path: path.clone(), filesystem: 0xef53 };
    facts.pool = Some(PoolFacts {
        path,
        folder: "/home/me".into(),
        exists: true,
        memory: Err(refused.to_string()),
        no_room: None,
        formatted: None,
    });
    facts
}
