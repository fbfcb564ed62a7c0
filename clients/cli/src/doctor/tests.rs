//! Judgements over made-up machines.

use landfall_layout::pool::Coherence;
use landfall_nic::fitness::{Unfit, check_lock, check_windows, device_with};
use landfall_nic::{PortState, Unavailable};
use landfall_pool::map::Backing;
use landfall_pool::pool::PoolError;
use serde_json::Value;

use super::facts::Facts;
use super::judge::{Finding, Status, judge};
use super::{machines, outcome, print};

fn all() -> Vec<(&'static str, Facts)> {
    vec![
        ("laptop", machines::laptop()),
        ("rack host", machines::rack_host()),
        ("soft-RoCE", machines::soft_roce()),
        ("container", machines::container()),
        ("disk file", machines::disk_file()),
    ]
}

fn find(facts: &Facts, name: &str) -> Finding {
    let findings = judge(facts);
    let found = findings.iter().find(|finding| finding.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {findings:#?}")).clone()
}

fn failed(facts: &Facts) -> Vec<&'static str> {
    let findings = judge(facts);
    findings.iter().filter(|f| f.status == Status::Fail).map(|f| f.name).collect()
}

#[test]
fn nothing_fails_where_nothing_was_asked_for() {
    for (machine, facts) in [
        ("laptop", machines::laptop()),
        ("soft-RoCE", machines::soft_roce()),
        ("container", machines::container()),
    ] {
        assert_eq!(failed(&facts), [""; 0], "{machine}");
        assert!(outcome(&judge(&facts)).is_ok(), "{machine}");
    }
}

#[test]
fn every_finding_has_its_reason_and_what_is_wrong_has_a_command() {
    for (machine, facts) in all() {
        for finding in judge(&facts) {
            let shown = format!("{machine}: {finding:?}");
            assert!(!finding.found.is_empty() && !finding.why.is_empty(), "{shown}");
            let wrong = matches!(finding.status, Status::Warn | Status::Fail);
            assert_eq!(wrong, !finding.mend.is_empty(), "{shown}");
            let lines = [&finding.found, &finding.why, &finding.of];
            assert!(lines.iter().all(|text| !text.contains('\n')), "{shown}");
        }
    }
}

#[test]
fn a_rack_host_that_is_set_up_has_only_ddio_unknown() {
    let findings = judge(&machines::rack_host());
    let other: Vec<&Finding> = findings.iter().filter(|f| f.status != Status::Ok).collect();
    assert_eq!(other.len(), 1, "{other:#?}");
    assert_eq!((other[0].name, other[0].status), ("nic to cache (ddio)", Status::Unknown));
    assert!(other[0].why.contains("either way is right"), "flush mode: {}", other[0].why);
}

#[test]
fn brokers_and_doctor_say_the_same_words() {
    let mut facts = machines::rack_host();
    let pool = facts.pinned_bytes();
    facts.lock.as_mut().unwrap().hard = pool - 1;
    let finding = find(&facts, "memory lock");
    assert_eq!(finding.status, Status::Fail);
    assert_eq!(finding.why, check_lock(facts.lock.unwrap(), pool).unwrap_err().to_string());

    let mut facts = machines::rack_host();
    let device = &mut facts.devices.as_mut().unwrap()[0];
    device.windows_2b = false;
    let finding = find(&facts, "memory windows");
    assert_eq!(finding.status, Status::Fail);
    assert_eq!(finding.found, check_windows("mlx5_0", false).unwrap_err().to_string());

    let mut facts = machines::rack_host();
    facts.verbs = Some("10.0.0.9".parse().unwrap());
    let finding = find(&facts, "verbs address");
    let refused = device_with(facts.devices.as_ref().unwrap(), "10.0.0.9".parse().unwrap());
    assert_eq!(finding.status, Status::Fail);
    assert_eq!(finding.found, refused.unwrap_err().to_string());

    let facts = machines::disk_file();
    let finding = find(&facts, "pool memory");
    assert_eq!(finding.status, Status::Fail);
    assert_eq!(&finding.found, facts.pool.as_ref().unwrap().memory.as_ref().unwrap_err());

    let mut facts = machines::rack_host();
    facts.pool.as_mut().unwrap().formatted = Some(Err(PoolError::CannotFlush.to_string()));
    assert_eq!(failed(&facts), ["pool"]);
    assert_eq!(find(&facts, "pool").found, PoolError::CannotFlush.to_string());
}

#[test]
fn what_is_asked_for_fails_and_what_is_not_only_warns() {
    let mut facts = machines::laptop();
    assert_eq!(find(&facts, "rdma libraries").status, Status::Warn);
    facts.verbs = Some("10.0.0.1".parse().unwrap());
    let expected = ["rdma libraries", "rdma kernel", "rdma device", "memory lock"];
    assert_eq!(failed(&facts), expected);
    assert!(outcome(&judge(&facts)).unwrap_err().to_string().contains("rdma kernel"));

    // A device that does not have the address may lack whatever it wants.
    let mut facts = machines::rack_host();
    let mut other = machines::nic();
    other.name = "mlx5_1".into();
    other.windows_2b = false;
    other.ports[0].gids.clear();
    other.ports[0].state = PortState::Down;
    facts.devices.as_mut().unwrap().push(other);
    assert_eq!(failed(&facts), [""; 0]);
    facts.devices.as_mut().unwrap()[0].ports[0].state = PortState::Down;
    assert_eq!(failed(&facts), ["rdma port"]);
}

#[test]
fn the_lock_limit_is_held_against_the_pool() {
    let mut facts = machines::laptop();
    assert_eq!(find(&facts, "memory lock").status, Status::Warn);
    let lock = facts.lock.as_mut().unwrap();
    lock.hard = 1 << 30;
    let finding = find(&facts, "memory lock");
    assert_eq!(finding.status, Status::Ok);
    assert!(finding.why.starts_with("brokers raise it themselves"), "{}", finding.why);
    facts.pool = Some(machines::pool(Backing::Shmem, 2 << 30, Coherence::Coherent, 1));
    assert_eq!(find(&facts, "memory lock").numbers["pool"], 2 << 30);
    assert_eq!(find(&facts, "memory lock").status, Status::Warn);
    facts.lock.as_mut().unwrap().exempt = true;
    assert_eq!(find(&facts, "memory lock").status, Status::Ok);
}

#[test]
fn a_coherent_pool_of_two_hosts_is_doubtful_and_one_of_a_single_host_is_not() {
    let mut facts = machines::rack_host();
    let mut status = |coherence, hosts| {
        facts.pool = Some(machines::pool(Backing::DevDax, 1 << 30, coherence, hosts));
        find(&facts, "pool coherence").status
    };
    assert_eq!(status(Coherence::Coherent, 2), Status::Warn);
    assert_eq!(status(Coherence::Coherent, 1), Status::Ok);
    assert_eq!(status(Coherence::Coherent, 0), Status::Ok);
    assert_eq!(status(Coherence::Flush, 2), Status::Ok);
}

#[test]
fn the_way_to_the_device_is_judged_step_by_step() {
    let mut facts = machines::container();
    let finding = find(&facts, "rdma kernel");
    assert!(finding.mend[0].contains("--device=/dev/infiniband"), "{finding:?}");
    assert!(find(&facts, "rdma device").found.contains("mlx5_0, out of reach"));
    facts.kernel.uverbs = false;
    assert!(find(&facts, "rdma kernel").mend[0].contains("modprobe"));
    facts.kernel.has_modules = false;
    assert!(find(&facts, "rdma kernel").found.contains("no RDMA"));

    let mut facts = machines::rack_host();
    facts.kernel.nodes[0].refused = Some("Permission denied".into());
    assert!(find(&facts, "rdma kernel").mend[0].contains("-aG rdma"));
    facts.listened = Some(Err("rdma_listen of 10.0.0.1:0: no".into()));
    assert_eq!(find(&facts, "rdma_cm").status, Status::Fail);
    facts.devices.as_mut().unwrap()[0].trouble = Some("ibv_open_device of mlx5_0: no".into());
    assert_eq!(find(&facts, "rdma device").status, Status::Fail);
}

#[test]
fn limits_of_a_device_are_held_against_what_clients_take() {
    let mut facts = machines::rack_host();
    assert_eq!(find(&facts, "device limits").status, Status::Ok);
    let finding = find(&facts, "memory windows");
    assert!(finding.found.contains("2_097_152 publishers"), "{}", finding.found);
    let device = &mut facts.devices.as_mut().unwrap()[0];
    device.max_rd_atom = 1;
    device.max_mw = 7;
    assert_eq!(find(&facts, "device limits").status, Status::Warn);
    assert_eq!(find(&facts, "memory windows").status, Status::Fail);
    facts.devices.as_mut().unwrap()[0].max_qp_wr = 1023;
    assert_eq!(find(&facts, "device limits").status, Status::Fail);
    let device = &mut facts.devices.as_mut().unwrap()[0];
    device.max_qp_wr = 1024;
    device.max_mr_bytes = 1 << 30;
    assert!(find(&facts, "device limits").why.contains("registered as one region"));
}

#[test]
fn soft_roce_is_told_what_it_lacks() {
    let facts = machines::soft_roce();
    let finding = find(&facts, "rdma mtu");
    assert_eq!((finding.status, finding.numbers["mtu"]), (Status::Warn, 1024));
    assert!(finding.mend[0].contains("dev eth0 mtu 4200"), "{finding:?}");
    assert!(find(&facts, "memory windows").found.contains("a region of its own"));
    assert_eq!(find(&facts, "write order").status, Status::Ok);
    let found = find(&facts, "rdma addresses").found;
    assert_eq!(found, "fe80::1 at 1 on eth0, 10.0.0.1 at 3 on eth0");
}

#[test]
fn memory_settings_are_told_with_their_commands() {
    let mut facts = machines::laptop();
    let finding = find(&facts, "transparent huge");
    assert_eq!(finding.found, "memfds never, /dev/shm huge=never");
    assert_eq!(finding.mend.len(), 2);
    assert!(find(&facts, "huge pages").mend[0].contains("nr_hugepages=512"));
    facts.places[0].free = 1 << 20;
    assert!(find(&facts, "pool place").mend[0].contains("size=9663676416 /dev/shm"));
    let mut facts = machines::rack_host();
    facts.dax[0].driver = "kmem".into();
    assert!(find(&facts, "devdax device").mend[0].contains("daxctl reconfigure-device"));
    let finding = find(&machines::container(), "surroundings");
    assert_eq!((finding.status, finding.numbers["memory_max"]), (Status::Warn, 512 << 20));
}

#[test]
fn a_pool_without_room_fails_with_the_command_that_makes_some() {
    let mut facts = machines::laptop();
    let mut pool = machines::pool(Backing::Shmem, 0, Coherence::Coherent, 0);
    (pool.exists, pool.formatted, pool.no_room) = (false, None, Some("it is full".into()));
    facts.pool = Some(pool);
    let finding = find(&facts, "pool memory");
    assert_eq!((finding.status, finding.found.as_str()), (Status::Fail, "it is full"));
    let expected = "sudo mount -o remount,size=2147483648 $(findmnt -n -o TARGET -T /dev)";
    assert_eq!(finding.mend, [expected]);
    facts.pool.as_mut().unwrap().memory = Ok((Backing::HugePages, 0));
    assert_eq!(find(&facts, "pool memory").mend, ["sudo sysctl vm.nr_hugepages=512"]);
}

#[test]
fn cpus_are_judged_by_their_instructions() {
    let mut facts = machines::laptop();
    assert_eq!(find(&facts, "line flush").found, "clflushopt, no clwb, no movdir64b");
    facts.cpu.features.remove("clflushopt");
    assert_eq!(find(&facts, "line flush").status, Status::Warn);
    facts.cpu.features.remove("pclmulqdq");
    assert_eq!(find(&facts, "copy and checksum").status, Status::Warn);
    facts.cpu.features.clear();
    assert_eq!(find(&facts, "line flush").status, Status::Unknown);
    facts.cpu.can_flush = false;
    assert_eq!(find(&facts, "line flush").status, Status::Warn);
    facts.clock = Some("hpet".into());
    assert_eq!(find(&facts, "clock source").status, Status::Warn);
}

#[test]
fn the_text_lines_up_and_mends_are_below() {
    let finding = |name, status, found: &str, mend: &[&str]| {
        let mut finding = Finding::new(name, status, found, "why");
        finding.mend = mend.iter().map(|text| (*text).to_owned()).collect();
        finding
    };
    let mut second = finding("longer name", Status::Unknown, "b", &["first", "second"]);
    second.of = "rxe0".into();
    let text = print::text(&[finding("name", Status::Ok, "a", &[]), second]);
    assert_eq!(
        text,
        "ok       name         a - why\n\
         unknown  longer name  rxe0: b - why\n           \
           $ first\n           \
           $ second\n\
         \n\
         1 ok, 1 unknown, 0 warn, 0 fail\n"
    );
}

#[test]
fn the_document_has_its_version_and_every_field() {
    let facts = machines::soft_roce();
    let findings = judge(&facts);
    let document = serde_json::to_value(print::Document::new(&facts, &findings)).unwrap();
    assert_eq!(document["status"], "warn");
    assert_eq!(document["pool"], Value::Null);
    assert_eq!(document["findings"].as_array().unwrap().len(), findings.len());
    let mtu = findings.iter().position(|finding| finding.name == "rdma mtu").unwrap();
    let expected = serde_json::json!({
        "name": "rdma mtu",
        "of": "rxe0 port 1",
        "status": "warn",
        "found": "1024 bytes of at most 4096",
        "why": "larger packets, fewer of them",
        "mend": ["sudo ip link set dev eth0 mtu 4200  (both sides, and the switch)"],
        "numbers": {"mtu": 1024, "mtu_max": 4096},
    });
    assert_eq!(document["findings"][mtu], expected);
    let facts = machines::rack_host();
    let document = serde_json::to_value(print::Document::new(&facts, &[])).unwrap();
    assert_eq!((&document["verbs"], &document["pool"]), (&"10.0.0.1".into(), &"/dev/pool".into()));
}

#[test]
fn a_machine_whose_kernel_answers_nothing_is_unknown_and_not_wrong() {
    let mut facts = machines::laptop();
    facts.devices = Err(Unavailable::NoDevice);
    (facts.lock, facts.clock, facts.shmem_huge) = (None, None, None);
    (facts.io_uring_disabled, facts.huge) = (None, Vec::new());
    facts.cores.governors.clear();
    facts.cpu = Default::default();
    facts.cpu.can_flush = true;
    let names = ["memory lock", "clock source", "io_uring", "cpu frequency", "line flush"];
    for name in names {
        assert_eq!(find(&facts, name).status, Status::Unknown, "{name}");
    }
    let refused = check_lock(machines::laptop().lock.unwrap(), u64::MAX);
    assert!(matches!(refused, Err(Unfit::MemoryLock { .. })));
}
