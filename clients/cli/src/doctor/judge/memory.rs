//! Memory that a pool can lie in.

use landfall_pool::map::Backing;

use super::pool::kind;
use super::{Finding, Status};
use crate::doctor::facts::{Dax, Facts, Place};
use crate::out::{grouped, human_bytes};

/// Multiple that pools are made in.
const POOL_ALIGN: u64 = 2 << 20;

pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.pool.is_none() {
        findings.extend(facts.places.iter().map(|each| place(facts, each)));
        if facts.places.is_empty() {
            let found = "neither tmpfs nor hugetlbfs is mounted";
            let why = "a pool that has a name lies there; without one it is anonymous memory";
            findings.push(
                Finding::new("pool place", Status::Warn, found, why)
                    .mend("sudo mount -t tmpfs tmpfs /dev/shm"),
            );
        }
    }
    findings.push(huge_pages(facts));
    findings.push(transparent(facts));
    findings.extend(devdax(facts));
    findings
}

fn place(facts: &Facts, place: &Place) -> Finding {
    let name = "pool place";
    let kind = kind(place.backing);
    let size = match place.bytes {
        None => "as much as there is memory".to_owned(),
        Some(bytes) => {
            format!("{} of {} free", human_bytes(place.free as f64), human_bytes(bytes as f64))
        }
    };
    let found = format!("{kind}, {size}");
    let short = place.bytes.is_some() && place.free < facts.pool_bytes;
    let wanted = human_bytes(facts.pool_bytes as f64);
    let finding = if !short {
        Finding::new(name, Status::Ok, found, "NICs can pin it and a pool fits")
    } else {
        let why = format!("NICs can pin it, and a pool of {wanted} does not fit");
        let finding = Finding::new(name, Status::Warn, found, why);
        match place.backing {
            Backing::Shmem => finding.mend(format!(
                "sudo mount -o remount,size={} {}",
                place.bytes.unwrap_or(0).saturating_add(facts.pool_bytes),
                place.path
            )),
            _ => finding.mend(reserve(facts.pool_bytes)),
        }
    };
    let finding = finding.of(&place.path);
    match place.bytes {
        Some(bytes) => finding.number("bytes", bytes).number("free", place.free),
        None => finding,
    }
}

/// The command that sets huge pages of 2 MiB aside for so many bytes.
pub fn reserve(bytes: u64) -> String {
    format!("sudo sysctl vm.nr_hugepages={}", bytes.div_ceil(POOL_ALIGN))
}

fn huge_pages(facts: &Facts) -> Finding {
    let name = "huge pages";
    if facts.huge.is_empty() {
        let found = "none of this kernel's are known";
        return Finding::new(name, Status::Unknown, found, "fewer misses when a pool is walked");
    }
    let each = facts.huge.iter().map(|huge| {
        let (free, total) = (grouped(huge.free), grouped(huge.total));
        format!("{free} of {total} free of {}", human_bytes(huge.page_bytes as f64))
    });
    let found = each.collect::<Vec<_>>().join(", ");
    let free: u64 = facts.huge.iter().map(|huge| huge.free.saturating_mul(huge.page_bytes)).sum();
    let total: u64 = facts.huge.iter().map(|huge| huge.total).sum();
    let bytes = facts.pool_bytes;
    let finding = if facts.pool.is_some() {
        Finding::new(name, Status::Ok, found, "the pool that was named is judged by itself")
    } else if free >= bytes {
        Finding::new(name, Status::Ok, found, "a pool on hugetlbfs fits")
    } else {
        let why = format!("a pool of {} on hugetlbfs does not fit", human_bytes(bytes as f64));
        let mounted = facts.places.iter().any(|place| place.backing == Backing::HugePages);
        let finding = Finding::new(name, Status::Warn, found, why).mend(reserve(bytes));
        if mounted {
            finding
        } else {
            finding.mend(
                "sudo mkdir -p /dev/hugepages && sudo mount -t hugetlbfs hugetlbfs /dev/hugepages",
            )
        }
    };
    finding.number("free_bytes", free).number("pages", total)
}

fn transparent(facts: &Facts) -> Finding {
    let name = "transparent huge";
    let setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let named: Vec<&Place> =
        facts.places.iter().filter(|place| place.backing == Backing::Shmem).collect();
    let of_mounts = named.iter().map(|place| {
        let huge = if place.huge.is_empty() { "never" } else { &place.huge };
        format!("{} huge={huge}", place.path)
    });
    let Some(memfds) = &facts.shmem_huge else {
        let found = "this kernel has none for shared memory";
        let why = "the pool is mapped in small pages: more misses when it is walked";
        return Finding::new(name, Status::Unknown, found, why);
    };
    let found = std::iter::once(format!("memfds {memfds}")).chain(of_mounts).collect::<Vec<_>>();
    let is_on = |word: &str| matches!(word, "always" | "within_size" | "advise" | "force");
    let mut finding = Finding::new(
        name,
        Status::Ok,
        found.join(", "),
        "pools ask for huge pages, so that a walk misses less",
    );
    if !is_on(memfds) {
        finding.status = Status::Warn;
        finding = finding.mend(format!("echo advise | sudo tee {setting}  (anonymous pools)"));
    }
    for place in named.iter().filter(|place| memfds != "force" && !is_on(&place.huge)) {
        finding.status = Status::Warn;
        finding = finding.mend(format!("sudo mount -o remount,huge=advise {}", place.path));
    }
    finding
}

fn devdax(facts: &Facts) -> Vec<Finding> {
    let name = "devdax device";
    if facts.dax.is_empty() {
        let why = "hosts share a pool on one; a single host needs none";
        return vec![Finding::new(name, Status::Ok, "none", why)];
    }
    facts.dax.iter().map(|dax| one_devdax(dax).of(&dax.name)).collect()
}

fn one_devdax(dax: &Dax) -> Finding {
    let name = "devdax device";
    let driver = if dax.driver.is_empty() { "no driver" } else { &dax.driver };
    let found = format!(
        "{}, aligned to {}, {driver}",
        human_bytes(dax.bytes as f64),
        human_bytes(dax.align as f64)
    );
    let finding = if dax.driver != "device_dax" {
        let why = "it is not a device that programs can map";
        Finding::new(name, Status::Warn, found, why)
            .mend(format!("sudo daxctl reconfigure-device -f -m devdax {}", dax.name))
    } else if dax.align > POOL_ALIGN {
        let why = format!("the pool has to be a multiple of {} bytes", dax.align);
        let bytes = dax.bytes / dax.align.max(1) * dax.align;
        Finding::new(name, Status::Warn, found, why)
            .mend(format!("landfall up --pool /dev/{} --pool-bytes {bytes}", dax.name))
    } else {
        Finding::new(name, Status::Ok, found, "NICs can pin it, and other hosts may map it too")
    };
    finding.number("bytes", dax.bytes).number("align", dax.align)
}
