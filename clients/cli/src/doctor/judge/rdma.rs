//! RDMA: libraries, kernel, devices, ports, and what clients will ask of them.

use landfall_layout::verbs::{EXTENT_SLOTS, RECEIVES};
use landfall_nic::fitness::{check_lock, check_windows, device_with, lock_mends};
use landfall_nic::{DeviceInfo, GidInfo, GidKind, InOrder, Link, PortInfo, PortState, Unavailable};

use super::{Finding, Status, bad, count};
use crate::doctor::facts::Facts;
use crate::out::{grouped, human_bytes};

/// READs that both sides of a connection ask to have under way.
const READS_WANTED: u32 = 16;

/// An interface's MTU that has room for RDMA's largest packets, 4096 bytes and headers.
const INTERFACE_MTU: u32 = 4200;

const WITHOUT: &str = "without it clients use memory and tcp";
const SOFT_DEVICE: &str = "sudo modprobe rdma_rxe && sudo rdma link add rxe0 type rxe netdev \
                           INTERFACE  (a device in software)";

pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![libraries(facts), kernel(facts)];
    findings.extend(connections(facts));
    match &facts.devices {
        Ok(devices) => {
            for info in devices {
                device_findings(facts, info, &mut findings);
            }
            findings.extend(address(facts, devices));
        }
        Err(why) => findings.push(no_device(facts, why)),
    }
    findings.push(lock(facts));
    findings
}

fn libraries(facts: &Facts) -> Finding {
    let name = "rdma libraries";
    match &facts.devices {
        Err(Unavailable::Library(what)) => {
            let why = format!("verbs are loaded when they are asked for; {WITHOUT}");
            Finding::new(name, bad(facts.verbs.is_some()), what, why)
                .mend("sudo apt install libibverbs1 ibverbs-providers librdmacm1")
        }
        _ => Finding::new(
            name,
            Status::Ok,
            "libibverbs.so.1 and librdmacm.so.1 load",
            "all functions that are called are in them",
        ),
    }
}

fn kernel(facts: &Facts) -> Finding {
    let kernel = &facts.kernel;
    let status = bad(facts.verbs.is_some());
    let finding =
        |status, found: String, why: &str| Finding::new("rdma kernel", status, found, why);
    if !kernel.uverbs {
        let why = format!("programs reach NICs through it; {WITHOUT}");
        return if kernel.has_modules {
            finding(status, "ib_uverbs is not loaded".into(), &why)
                .mend("sudo modprobe -a ib_uverbs rdma_ucm")
        } else {
            finding(
                status,
                "this kernel has no RDMA: neither built in nor as a module".into(),
                &why,
            )
            .mend(
                "sudo apt install linux-image-amd64 && sudo reboot  (any kernel with \
                       CONFIG_INFINIBAND_USER_ACCESS)",
            )
        };
    }
    if let Some(node) = kernel.nodes.iter().find(|node| node.refused.is_some()) {
        let refused = node.refused.as_deref().unwrap_or_default();
        return finding(status, format!("{}: {refused}", node.path), "devices are opened there")
            .mend("sudo usermod -aG rdma $USER  (from the next login on)")
            .mend(format!("sudo chmod 666 {}", node.path));
    }
    if kernel.nodes.is_empty() && !kernel.known.is_empty() {
        let known = kernel.known.join(", ");
        return finding(
            status,
            format!("the kernel knows {known}, and there is no /dev/infiniband/uverbs*"),
            "devices are opened there; a container shows only the nodes it was given",
        )
        .mend("docker run --device=/dev/infiniband --cap-add=IPC_LOCK ..  (in a container)")
        .mend("sudo udevadm trigger --subsystem-match=infiniband_verbs  (on a host)");
    }
    let rxe = if kernel.rxe { ", rdma_rxe" } else { "" };
    let found = format!("ib_uverbs{rxe} and {}", count(kernel.nodes.len(), "device node"));
    finding(Status::Ok, found, "programs reach NICs through it")
        .number("nodes", kernel.nodes.len() as u64)
}

fn connections(facts: &Facts) -> Option<Finding> {
    let kernel = &facts.kernel;
    let finding = |status, found: String| {
        Finding::new("rdma_cm", status, found, "connections over RDMA are made through it")
    };
    let status = bad(facts.verbs.is_some());
    if let Some(Err(why)) = &facts.listened {
        return Some(finding(status, why.clone()).mend("rdma link show; ip -brief address"));
    }
    if !kernel.uverbs {
        // One sentence about the kernel is enough.
        return None;
    }
    Some(match &kernel.cm_node {
        _ if !kernel.cm => {
            finding(status, "rdma_ucm is not loaded".into()).mend("sudo modprobe rdma_ucm")
        }
        None => finding(status, "there is no /dev/infiniband/rdma_cm".into())
            .mend("docker run --device=/dev/infiniband/rdma_cm ..  (in a container)"),
        Some(node) => match (&node.refused, facts.listened.is_some()) {
            (Some(refused), _) => finding(status, format!("{}: {refused}", node.path))
                .mend("sudo usermod -aG rdma $USER  (from the next login on)"),
            (None, true) => finding(Status::Ok, "listened on the address".into()),
            (None, false) => finding(Status::Ok, format!("{} can be opened", node.path)),
        },
    })
}

fn no_device(facts: &Facts, why: &Unavailable) -> Finding {
    let found = match (facts.kernel.known.is_empty(), why) {
        (false, _) => format!("{}, out of reach of this process", facts.kernel.known.join(", ")),
        (true, _) => "none".to_owned(),
    };
    let finding = Finding::new("rdma device", bad(facts.verbs.is_some()), found, WITHOUT);
    if facts.kernel.has_modules || facts.kernel.rxe {
        return finding.mend(SOFT_DEVICE);
    }
    finding.mend("lspci -nn | grep -iE 'ethernet|infiniband'  (a NIC with RDMA, and its driver)")
}

fn device_findings(facts: &Facts, info: &DeviceInfo, findings: &mut Vec<Finding>) {
    let asked = facts.asks_for(info);
    findings.push(device(asked, info));
    if info.trouble.is_some() {
        return;
    }
    for port_info in &info.ports {
        let of = format!("{} port {}", info.name, port_info.number);
        let asked = facts.asks_for_port(port_info);
        findings.push(port(asked, port_info).of(&of));
        findings.extend(mtu(port_info).map(|finding| finding.of(&of)));
        findings.push(addresses(port_info).of(&of));
    }
    let each = [windows(asked, info), limits(facts, asked, info), order(info), paging(info)];
    findings.extend(each.map(|finding| finding.of(&info.name)));
}

fn device(asked: bool, info: &DeviceInfo) -> Finding {
    let text = |text: &str, none: &str| if text.is_empty() { none.into() } else { text.to_owned() };
    let driver = text(&info.driver, "unknown");
    let name = "rdma device";
    if let Some(trouble) = &info.trouble {
        let why = "nothing can be said of a device that does not answer";
        return Finding::new(name, bad(asked), format!("driver {driver}; {trouble}"), why)
            .of(&info.name)
            .mend(format!("ibv_devinfo -d {}", info.name));
    }
    let firmware = text(&info.firmware, "none");
    let found =
        format!("driver {driver}, firmware {firmware}, {}", count(info.ports.len(), "port"));
    Finding::new(name, Status::Ok, found, "clients connect to it")
        .of(&info.name)
        .number("ports", info.ports.len() as u64)
        .number("vendor", info.vendor.into())
        .number("part", info.part.into())
}

fn interface_of(port: &PortInfo) -> &str {
    port.gids.iter().find_map(|gid| gid.interface.as_deref()).unwrap_or("INTERFACE")
}

fn port(asked: bool, port: &PortInfo) -> Finding {
    let state = match port.state {
        PortState::Down => "down".to_owned(),
        PortState::Init => "waits for a subnet manager".to_owned(),
        PortState::Armed => "armed, not yet active".to_owned(),
        PortState::Active => "active".to_owned(),
        PortState::ActiveDefer => "active, its link gone for a moment".to_owned(),
        PortState::Unknown(number) => format!("in state {number}"),
    };
    let link = match port.link {
        Link::Ethernet => "Ethernet".to_owned(),
        Link::InfiniBand => "InfiniBand".to_owned(),
        Link::Unknown(number) => format!("link {number}"),
    };
    let found = format!("{state}, {link}");
    let name = "rdma port";
    if matches!(port.state, PortState::Active | PortState::ActiveDefer) {
        return Finding::new(name, Status::Ok, found, "traffic passes");
    }
    let finding = Finding::new(name, bad(asked), found, "no traffic passes");
    match port.link {
        Link::InfiniBand => {
            finding.mend("sudo systemctl start opensm  (on one host of the subnet)")
        }
        _ => finding.mend(format!("sudo ip link set dev {} up", interface_of(port))),
    }
}

fn mtu(port: &PortInfo) -> Option<Finding> {
    if port.state != PortState::Active {
        return None;
    }
    let found = format!("{} bytes of at most {}", port.mtu, port.mtu_max);
    let (name, why) = ("rdma mtu", "larger packets, fewer of them");
    let finding = if port.mtu >= port.mtu_max {
        Finding::new(name, Status::Ok, found, why)
    } else {
        let finding = Finding::new(name, Status::Warn, found, why);
        match port.link {
            Link::InfiniBand => finding.mend(
                "echo 'Default=0x7fff,ipoib,mtu=5:ALL=full;' | sudo tee \
                 /etc/opensm/partitions.conf  (where opensm runs; then restart it)",
            ),
            _ => finding.mend(format!(
                "sudo ip link set dev {} mtu {INTERFACE_MTU}  (both sides, and the switch)",
                interface_of(port)
            )),
        }
    };
    Some(finding.number("mtu", port.mtu.into()).number("mtu_max", port.mtu_max.into()))
}

fn addresses(port: &PortInfo) -> Finding {
    let name = "rdma addresses";
    let usable: Vec<String> = port.gids.iter().filter_map(usable_gid).collect();
    let why = "brokers listen on one; the kernel's choice of place in the table is never assumed";
    let finding = if usable.is_empty() {
        let older = port.gids.iter().filter(|gid| gid.kind != GidKind::RoceV2).count();
        let found = format!("none of RoCE version 2 among {} ({older} older)", port.gids.len());
        Finding::new(name, Status::Warn, found, why)
            .mend(format!("sudo ip address add ADDRESS/24 dev {}", interface_of(port)))
    } else {
        Finding::new(name, Status::Ok, usable.join(", "), why)
    };
    finding.number("usable", usable.len() as u64).number("gids", port.gids.len() as u64)
}

fn usable_gid(gid: &GidInfo) -> Option<String> {
    let on = gid.interface.as_deref().map(|name| format!(" on {name}")).unwrap_or_default();
    gid.ip.map(|ip| format!("{ip} at {}{on}", gid.index))
}

fn address(facts: &Facts, devices: &[DeviceInfo]) -> Option<Finding> {
    let address = facts.verbs?;
    let name = "verbs address";
    let why = "a broker takes clients over RDMA there";
    Some(match device_with(devices, address) {
        Ok(device) => Finding::new(name, Status::Ok, format!("{address} is {}", device.name), why),
        Err(unfit) => Finding::new(name, Status::Fail, unfit.to_string(), why).mends(unfit.mends()),
    })
}

fn windows(asked: bool, info: &DeviceInfo) -> Finding {
    let name = "memory windows";
    let why = "a publisher can write its own extent and nothing else";
    let publishers = u64::from(info.max_mw) / EXTENT_SLOTS as u64;
    let finding = match check_windows(&info.name, info.windows_2b) {
        Err(unfit) => Finding::new(name, bad(asked), unfit.to_string(), why).mends(unfit.mends()),
        Ok(()) if publishers == 0 => {
            let found = format!("type 2B, and only {} of them", info.max_mw);
            Finding::new(name, bad(asked), found, why)
                .mend("landfall up --verbs --verbs-grant pull")
        }
        Ok(()) => {
            let bounds = if info.bounds_windows {
                ""
            } else {
                "; the device checks their region only, so each has a region of its own"
            };
            let found = format!(
                "type 2B, {}: {} publishers{bounds}",
                grouped(info.max_mw.into()),
                grouped(publishers)
            );
            Finding::new(name, Status::Ok, found, why)
        }
    };
    finding
        .number("max_mw", info.max_mw.into())
        .number("type_2a", info.windows_2a.into())
        .number("type_2b", info.windows_2b.into())
        .number("bounded", info.bounds_windows.into())
}

fn limits(facts: &Facts, asked: bool, info: &DeviceInfo) -> Finding {
    let found = format!(
        "regions {} of up to {}, work requests {}, READs {}, queue pairs {}",
        grouped(info.max_mr.into()),
        human_bytes(info.max_mr_bytes as f64),
        grouped(info.max_qp_wr.into()),
        info.max_rd_atom,
        grouped(info.max_qp.into()),
    );
    let pool = facts.pinned_bytes();
    let (status, why) = if info.max_mr_bytes < pool {
        (bad(asked), format!("the pool, {pool} bytes, is registered as one region"))
    } else if info.max_qp_wr < RECEIVES {
        (bad(asked), format!("a connection keeps {RECEIVES} receives posted"))
    } else if info.max_rd_atom < READS_WANTED {
        (Status::Warn, format!("pulls and readers have up to {READS_WANTED} READs under way"))
    } else {
        (Status::Ok, "each client takes one queue pair".to_owned())
    };
    let finding = Finding::new("device limits", status, found, why)
        .number("max_mr", info.max_mr.into())
        .number("max_mr_bytes", info.max_mr_bytes)
        .number("max_qp", info.max_qp.into())
        .number("max_qp_wr", info.max_qp_wr.into())
        .number("max_rd_atom", info.max_rd_atom.into());
    if info.max_mr_bytes < pool {
        return finding.mend(format!("landfall up --pool-bytes {}", info.max_mr_bytes));
    }
    finding
}

fn order(info: &DeviceInfo) -> Finding {
    let name = "write order";
    let why = "landfall waits for completions and relies on nothing else";
    match info.in_order {
        Some(InOrder::WholeMessage) => {
            Finding::new(name, Status::Ok, "a WRITE's bytes become visible first to last", why)
        }
        Some(InOrder::NotPromised) => {
            Finding::new(name, Status::Ok, "not promised within a WRITE", why)
        }
        None => Finding::new(name, Status::Unknown, "the library or the device does not say", why),
    }
}

fn paging(info: &DeviceInfo) -> Finding {
    let found = if info.odp { "possible, and not used" } else { "not possible" };
    let why = "the pool is pinned at the start, so that no WRITE meets a page fault";
    Finding::new("paging on demand", Status::Ok, found, why).number("odp", info.odp.into())
}

/// Told on every machine: it is the usual reason why a NIC cannot have the pool.
fn lock(facts: &Facts) -> Finding {
    let name = "memory lock";
    let bytes = facts.pinned_bytes();
    let asked = facts.verbs.is_some();
    let Some(lock) = facts.lock else {
        return Finding::new(name, Status::Unknown, "it could not be read", "NICs pin the pool");
    };
    let limit = |bytes| match bytes {
        u64::MAX => "unlimited".to_owned(),
        bytes => human_bytes(bytes as f64),
    };
    let found = format!("soft {}, hard {}", limit(lock.soft), limit(lock.hard));
    let numbered = |finding: Finding| {
        finding
            .number("soft", lock.soft)
            .number("hard", lock.hard)
            .number("exempt", lock.exempt.into())
            .number("pool", bytes)
    };
    let room = human_bytes(bytes as f64);
    numbered(match check_lock(lock, bytes) {
        Err(unfit) => Finding::new(name, bad(asked), found, unfit.to_string()).mends(lock_mends()),
        Ok(()) if lock.exempt => {
            Finding::new(name, Status::Ok, found, "CAP_IPC_LOCK: no limit holds for this user")
        }
        Ok(()) if lock.soft < bytes => {
            let why = format!("brokers raise it themselves; NICs pin a pool of {room}");
            Finding::new(name, Status::Ok, found, why)
        }
        Ok(()) => Finding::new(name, Status::Ok, found, format!("NICs pin a pool of {room}")),
    })
}
