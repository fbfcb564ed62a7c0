//! The machine: processor, cores, kernel, container.

use landfall_layout::pool::Coherence;

use super::{Finding, Status, ranges};
use crate::doctor::facts::{Cpu, Facts};
use crate::out::human_bytes;

pub fn judge(facts: &Facts) -> Vec<Finding> {
    vec![
        flush(&facts.cpu),
        copy(&facts.cpu),
        ddio(facts),
        cores(facts),
        isolated(facts),
        governor(facts),
        clock(facts),
        io_uring(facts),
        container(facts),
    ]
}

/// Which of these features there are and which are not: `clwb, no movdir64b`.
fn features(cpu: &Cpu, names: &[&str]) -> String {
    let has = |name: &&&str| cpu.features.contains(**name);
    let (there, missing): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| has(name));
    match (there.is_empty(), missing.is_empty()) {
        (_, true) => there.join(", "),
        (true, false) => format!("no {}", missing.join(", no ")),
        (false, false) => format!("{}, no {}", there.join(", "), missing.join(", no ")),
    }
}

fn flush(cpu: &Cpu) -> Finding {
    let name = "line flush";
    let found = features(cpu, &["clwb", "clflushopt", "movdir64b"]);
    if !cpu.can_flush {
        let why = "pools in flush mode cannot be opened here";
        return Finding::new(name, Status::Warn, "no instruction that is known", why)
            .mend("landfall-control --coherence coherent ..  (one host)");
    }
    if cpu.features.is_empty() {
        let why = "flush mode needs one; brokers ask the CPU itself";
        return Finding::new(name, Status::Unknown, "the kernel lists no features", why);
    }
    if cpu.features.contains("clwb") || cpu.features.contains("clflushopt") {
        return Finding::new(
            name,
            Status::Ok,
            found,
            "flush mode writes lines back in the background",
        );
    }
    let why = "flush mode works with CLFLUSH, which waits for each line: some 20 times slower";
    Finding::new(name, Status::Warn, found, why)
        .mend("qemu-system-x86_64 -cpu host ..  (in a virtual machine)")
}

fn copy(cpu: &Cpu) -> Finding {
    let name = "copy and checksum";
    if cpu.features.is_empty() {
        let why = "copies and checksums take the best that there is";
        return Finding::new(name, Status::Unknown, "the kernel lists no features", why);
    }
    let wanted = ["avx512f", "avx512bw", "vpclmulqdq", "pclmulqdq", "sse4_2"];
    let found = features(cpu, &wanted);
    let has = |name: &str| cpu.features.contains(name);
    if wanted[..3].iter().all(|name| has(name)) {
        let why = "a batch is copied and summed in one pass";
        return Finding::new(name, Status::Ok, found, why);
    }
    if has("pclmulqdq") && has("sse4_2") {
        let why = "checksums by folding, the copy beside them";
        return Finding::new(name, Status::Ok, found, why);
    }
    let why = "checksums by table cost more than the copy";
    Finding::new(name, Status::Warn, found, why)
        .mend("qemu-system-x86_64 -cpu host ..  (in a virtual machine)")
}

fn ddio(facts: &Facts) -> Finding {
    let found = match facts.cpu.vendor.as_str() {
        "GenuineIntel" => {
            "Intel says it only in model-specific registers and each root port's configuration"
        }
        _ => "no portable way to ask whether a NIC writes to the cache or to memory",
    };
    let mode = facts.pool.as_ref().and_then(|pool| match &pool.formatted {
        Some(Ok(formatted)) => Some(formatted.coherence),
        _ => None,
    });
    let why = match mode {
        Some(Coherence::Flush) => {
            "brokers write landed lines back before they are ordered, so either way is right"
        }
        Some(Coherence::Coherent) => "one host sees both; a second one would need flush mode",
        None => "one host sees both; flush mode writes landed lines back before they are ordered",
    };
    Finding::new("nic to cache (ddio)", Status::Unknown, found, why)
}

fn cores(facts: &Facts) -> Finding {
    let cores = &facts.cores;
    let online = cores.online.len().max(cores.usable);
    let model =
        if cores_known(&facts.cpu) { format!(", {}", facts.cpu.model) } else { String::new() };
    let found = format!("{} of {online} usable{model}", cores.usable);
    let (name, why) = ("cores", "control, each broker and each client that spins want one each");
    let finding = if cores.usable >= 4 {
        Finding::new(name, Status::Ok, found, why)
    } else {
        Finding::new(name, Status::Warn, found, why)
            .mend("landfall up --idle backoff  (shares cores; it is the default)")
    };
    finding.number("online", online as u64).number("usable", cores.usable as u64)
}

fn cores_known(cpu: &Cpu) -> bool {
    !cpu.model.is_empty()
}

fn isolated(facts: &Facts) -> Finding {
    let cores = &facts.cores;
    let name = "isolated cores";
    let why = "a loop that spins is undisturbed on a core that the scheduler leaves alone";
    let list = |cores: &[usize]| match cores {
        [] => "none".to_owned(),
        cores => ranges(cores),
    };
    let found =
        format!("isolated {}, without a tick {}", list(&cores.isolated), list(&cores.tickless));
    let both = cores.isolated.iter().any(|core| cores.tickless.contains(core));
    let finding = if both {
        Finding::new(name, Status::Ok, found, why)
    } else {
        // The first core takes interrupts; the upper half is for loops.
        let half: Vec<usize> =
            cores.online.iter().skip(cores.online.len().div_ceil(2)).copied().collect();
        let finding = Finding::new(name, Status::Warn, found, why);
        match ranges(&half) {
            half if half.is_empty() => finding.mend("landfall up --idle backoff"),
            half => finding.mend(format!(
                "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&isolcpus={half} nohz_full={half} \
                 rcu_nocbs={half} /' /etc/default/grub && sudo update-grub && sudo reboot  (then \
                 landfall-broker --core N --idle spin)"
            )),
        }
    };
    finding
        .number("isolated", cores.isolated.len() as u64)
        .number("tickless", cores.tickless.len() as u64)
}

fn governor(facts: &Facts) -> Finding {
    let governors = &facts.cores.governors;
    let name = "cpu frequency";
    let why = "a core that slows down between batches adds its wake-up to their latency";
    let found = governors.iter().cloned().collect::<Vec<_>>().join(", ");
    if governors.is_empty() {
        let found = "no governor: the hypervisor or the firmware decides";
        return Finding::new(name, Status::Unknown, found, why);
    }
    if governors.len() == 1 && governors.contains("performance") {
        return Finding::new(name, Status::Ok, found, why);
    }
    Finding::new(name, Status::Warn, found, why)
        .mend("sudo cpupower frequency-set --governor performance")
}

fn clock(facts: &Facts) -> Finding {
    let name = "clock source";
    let why = "every batch is stamped; a clock read by a system call costs more than landing it";
    match facts.clock.as_deref() {
        None => Finding::new(name, Status::Unknown, "the kernel does not say", why),
        Some(
            clock @ ("tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter"),
        ) => Finding::new(name, Status::Ok, clock, "time is read without a system call"),
        Some(clock) => Finding::new(name, Status::Warn, clock, why).mend(
            "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource",
        ),
    }
}

fn io_uring(facts: &Facts) -> Finding {
    let name = "io_uring";
    let why = "sockets and RDMA are polled without it, so nothing stands still where it is off";
    let (status, found) = match facts.io_uring_disabled {
        Some(0) => (Status::Ok, "allowed"),
        Some(1) => (Status::Ok, "allowed for one group only"),
        Some(_) => (Status::Ok, "disabled"),
        None => (Status::Unknown, "the kernel does not say"),
    };
    Finding::new(name, status, found, why)
}

fn container(facts: &Facts) -> Finding {
    let container = &facts.container;
    let name = "surroundings";
    let user =
        if container.uid == 0 { "root".to_owned() } else { format!("user {}", container.uid) };
    let (place, why) = match &container.kind {
        Some(kind) => (
            format!("{user} in a container ({kind})"),
            "a container has the devices, limits and huge pages it was given",
        ),
        None => (format!("{user}, no container"), "what was found is the host's own"),
    };
    let bytes = facts.pinned_bytes();
    match container.memory_max {
        Some(most) if most < bytes => {
            let found = format!("{place}, {} of memory allowed", human_bytes(most as f64));
            let why = format!("a pool of {} would end the process", human_bytes(bytes as f64));
            Finding::new(name, Status::Warn, found, why)
                .mend(format!("docker run --memory {} ..", bytes.saturating_mul(2)))
                .number("memory_max", most)
        }
        Some(most) => {
            let found = format!("{place}, {} of memory allowed", human_bytes(most as f64));
            Finding::new(name, Status::Ok, found, why).number("memory_max", most)
        }
        None => Finding::new(name, Status::Ok, place, why),
    }
}
