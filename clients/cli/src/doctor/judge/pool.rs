//! The pool that was named.

use landfall_layout::pool::Coherence;
use landfall_pool::map::Backing;

use super::memory::reserve;
use super::{Finding, Status, count};
use crate::doctor::facts::{Facts, Formatted, PoolFacts};
use crate::out::human_bytes;

/// Where a pool can lie on any machine.
const ELSEWHERE: &str = "landfall up --pool /dev/shm/landfall";

pub fn judge(facts: &Facts) -> Vec<Finding> {
    let Some(pool) = &facts.pool else { return Vec::new() };
    let mut findings = vec![memory(facts, pool)];
    if pool.memory.is_ok() {
        findings.push(content(pool));
    }
    if let Some(Ok(formatted)) = &pool.formatted {
        findings.push(coherence(pool, formatted));
    }
    findings.into_iter().map(|finding| finding.of(&pool.path)).collect()
}

/// The words for what is behind a pool.
pub fn kind(backing: Backing) -> &'static str {
    match backing {
        Backing::Shmem => "tmpfs",
        Backing::HugePages => "hugetlbfs",
        Backing::DevDax => "devdax",
    }
}

fn memory(facts: &Facts, pool: &PoolFacts) -> Finding {
    let name = "pool memory";
    let why = "NICs pin it and other processes map it";
    match (&pool.memory, &pool.no_room) {
        (Err(unfit), _) => Finding::new(name, Status::Fail, unfit, why).mend(ELSEWHERE),
        (Ok((backing, bytes)), Some(no_room)) => {
            let why = "without room for a page a process is killed";
            let finding = Finding::new(name, Status::Fail, no_room, why);
            let wanted = facts.pinned_bytes();
            match backing {
                Backing::HugePages => finding.mend(reserve(wanted)),
                _ => finding.mend(format!(
                    "sudo mount -o remount,size={} $(findmnt -n -o TARGET -T {})",
                    wanted.saturating_mul(2),
                    pool.folder
                )),
            }
            .number("bytes", *bytes)
        }
        (Ok((backing, bytes)), None) => {
            let kind = kind(*backing);
            let found = match (pool.exists, *backing) {
                (false, _) => format!("{kind}, and no such file yet"),
                (true, _) => format!("{kind}, {}", human_bytes(*bytes as f64)),
            };
            Finding::new(name, Status::Ok, found, why).number("bytes", *bytes)
        }
    }
}

fn content(pool: &PoolFacts) -> Finding {
    let name = "pool";
    match &pool.formatted {
        None => Finding::new(name, Status::Ok, "none in it yet", "control makes it when it starts"),
        Some(Err(unfit)) => Finding::new(
            name,
            Status::Fail,
            unfit,
            "what is not a pool is never written over, so nothing starts on it",
        )
        .mend(match pool.memory {
            Ok((Backing::DevDax, _)) => ELSEWHERE.to_owned(),
            _ => format!("landfall up --pool {}.new  (leaves it as it is)", pool.path),
        }),
        Some(Ok(formatted)) => {
            let found = format!(
                "{}, segments of {}, {} on {}",
                human_bytes(formatted.bytes as f64),
                human_bytes(formatted.segment_bytes as f64),
                count(formatted.brokers, "broker"),
                count(formatted.hosts, "host")
            );
            Finding::new(name, Status::Ok, found, "control and brokers can open it")
                .number("bytes", formatted.bytes)
                .number("segment_bytes", formatted.segment_bytes)
                .number("brokers", formatted.brokers as u64)
                .number("hosts", formatted.hosts as u64)
        }
    }
}

fn coherence(pool: &PoolFacts, formatted: &Formatted) -> Finding {
    let name = "pool coherence";
    let new_pool = "landfall-control --pool PATH --coherence flush ..  (a new pool)";
    let hosts = formatted.hosts;
    let shown = count(hosts, "host");
    let is_device = matches!(pool.memory, Ok((Backing::DevDax, _)));
    match formatted.coherence {
        Coherence::Flush => Finding::new(
            name,
            Status::Ok,
            format!("flush; brokers on {shown}"),
            "lines are written back before they are published and dropped before they are read",
        ),
        Coherence::Coherent if hosts > 1 => Finding::new(
            name,
            Status::Warn,
            format!("coherent; brokers on {shown}"),
            "right only where the hardware keeps these hosts coherent (CXL 3 back-invalidation)",
        )
        .mend(new_pool),
        Coherence::Coherent if is_device => Finding::new(
            name,
            Status::Ok,
            format!("coherent; brokers on {shown}"),
            "nothing is flushed: a second host on this device would need flush mode",
        ),
        Coherence::Coherent => Finding::new(
            name,
            Status::Ok,
            format!("coherent; brokers on {shown}"),
            "nothing is flushed, which is right for one host",
        ),
    }
    .number("hosts", hosts as u64)
}
