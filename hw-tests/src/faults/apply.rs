//! Faults, applied to processes.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::acts::Undo;
use super::fault::{End, Fault, Page, Who};
use super::story::DISKS;
use super::troupe::Troupe;
use super::{damage, twin};
use crate::Failure;

pub(super) fn begin(troupe: &mut Troupe, fault: &Fault) -> Result<(), Failure> {
    match fault {
        Fault::Kill { who, away } => {
            if let Some(seat) = troupe.seats.get_mut(who) {
                seat.kill(Duration::from_millis(*away));
            }
        }
        Fault::Pause { who, ms } => {
            if let Some(seat) = troupe.seats.get(who) {
                seat.pause();
                troupe.acts.later(*ms, Undo::Resume(*who));
            }
        }
        Fault::Clock { who, step } => {
            step_clock(troupe.folder(), &who.to_string(), step * 1_000_000, 0)?;
        }
        Fault::Suspend { ms } => {
            troupe.seats.values().for_each(super::seat::Seat::pause);
            troupe.acts.later(fault.lasts(), Undo::Wake(*ms));
        }
        Fault::Descriptors { who, more, ms } => {
            bound(troupe, *who, "nofile", *ms, |pid| {
                let open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
                Some(open + more)
            })?;
        }
        Fault::Memory { who, more, ms } => {
            bound(troupe, *who, "as", *ms, |pid| {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
                let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
                let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
                Some((kib + more) << 10)
            })?;
        }
        Fault::Disk { broker, plan, ms } => {
            set_disk(troupe.folder(), *broker, plan)?;
            troupe.acts.later(*ms, Undo::Disk(*broker));
        }
        Fault::Damage { broker, spot, running, seed } => {
            let data = troupe.folder().join(format!("{DISKS}/broker-{broker}"));
            let who = Who::Broker(*broker);
            if !running {
                end(troupe, End::Kill, &[who])?;
            }
            let done = damage::files(&data, *spot, *seed)?;
            troupe.tell(done);
            if !running {
                troupe.go_on(&[who])?;
            }
        }
        Fault::Pool { page: Page::Payload, seed } => {
            let done = damage::payload(&troupe.folder().join("pool"), *seed)?;
            troupe.tell(done);
        }
        Fault::Pool { page: Page::Table, seed } => lose_tables(troupe, *seed)?,
        // From the beginning on.
        Fault::KillAt { .. } | Fault::Space { .. } => {}
        Fault::Twin { who, apart, ms } => twin::begin(troupe, *who, *apart, *ms)?,
        Fault::TwinData { broker, ms } => twin::begin_on_data(troupe, *broker, *ms)?,
        Fault::Hostile { attack, ms } => twin::begin_hostile(troupe, *attack, *ms)?,
        Fault::Restart { end: how, order, away } => {
            end(troupe, *how, order)?;
            let until = Instant::now() + Duration::from_millis(*away);
            troupe.wait_until("the time away", |_| Ok(Instant::now() >= until))?;
            troupe.go_on(order)?;
        }
        Fault::Cold { end: how } => lose_pool(troupe, *how)?,
    }
    Ok(())
}

pub(super) fn undo(troupe: &mut Troupe, undo: Undo) -> Result<(), Failure> {
    match undo {
        Undo::Resume(who) => {
            if let Some(seat) = troupe.seats.get(&who) {
                seat.resume();
            }
        }
        Undo::Wake(ms) => {
            let ns = ms as i64 * 1_000_000;
            // Also who is not there yet: it is one host.
            let readers = (0..2).flat_map(|topic| (0..2).map(move |n| Who::Reader(topic, n)));
            let all = Who::ALL.into_iter().chain(readers).map(|who| who.to_string());
            for name in all.chain([twin::OTHERS.to_owned()]) {
                step_clock(troupe.folder(), &name, ns, ns)?;
            }
            troupe.seats.values().for_each(super::seat::Seat::resume);
        }
        Undo::Bound { pid, what, before } => {
            // It may have ended.
            let _ = prlimit(pid, what, &before);
        }
        Undo::Disk(broker) => set_disk(troupe.folder(), broker, "")?,
        Undo::Extra(extra) => {
            let said = extra.end(troupe)?;
            troupe.tell(said);
        }
    }
    Ok(())
}

/// Servers end, each after the one before has.
fn end(troupe: &mut Troupe, how: End, order: &[Who]) -> Result<(), Failure> {
    if how == End::Kill {
        for who in order {
            if let Some(seat) = troupe.seats.get_mut(who) {
                (seat.held, seat.stopping) = (true, true);
                seat.kill(Duration::ZERO);
            }
        }
    }
    troupe.stop(order)
}

/// Tables of the pool cannot be read: servers that need them end with their sentence, and then
/// there is another pool.
fn lose_tables(troupe: &mut Troupe, seed: u64) -> Result<(), Failure> {
    let servers: Vec<Who> = troupe.seats.keys().copied().filter(|who| who.is_server()).collect();
    for who in &servers {
        if let Some(seat) = troupe.seats.get_mut(who) {
            seat.held = true;
            seat.resume();
        }
    }
    let done = damage::tables(&troupe.folder().join("pool"), seed)?;
    troupe.tell(done);
    // Whoever does not look at that part goes on without it.
    let until = Instant::now() + Duration::from_secs(3);
    troupe.wait_until("a look at what is left", |troupe| {
        let all_ended = servers.iter().all(|who| !troupe.seats[who].is_running());
        Ok(all_ended || Instant::now() >= until)
    })?;
    lose_pool(troupe, End::Kill)
}

/// The pool is gone; a control makes another from the replicas.
pub(super) fn lose_pool(troupe: &mut Troupe, how: End) -> Result<(), Failure> {
    let servers: Vec<Who> = troupe.seats.keys().copied().filter(|who| who.is_server()).collect();
    let (mut order, controls): (Vec<Who>, Vec<Who>) =
        servers.iter().copied().partition(|who| !who.is_control());
    order.extend(&controls);
    end(troupe, how, &order)?;
    match std::fs::remove_file(troupe.folder().join("pool")) {
        // Lost twice at once: no control has made the next one yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    let folder = troupe.folder().display().to_string();
    for who in &controls {
        if let Some(seat) = troupe.seats.get_mut(who) {
            twin::add_restores(&mut seat.arguments, &folder);
        }
    }
    order.reverse();
    troupe.go_on(&order)
}

/// A process's clocks step: wall time and boot time, nanoseconds.
fn step_clock(folder: &Path, name: &str, wall: i64, boot: i64) -> Result<(), Failure> {
    let path = folder.join(format!("{name}.clock"));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if file.metadata()?.len() < 16 {
        file.set_len(16)?;
    }
    for (at, step) in [(0, wall), (8, boot)] {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, at)?;
        let stepped = i64::from_ne_bytes(word).saturating_add(step);
        file.write_all_at(&stepped.to_ne_bytes(), at)?;
    }
    Ok(())
}

fn set_disk(folder: &Path, broker: u8, plan: &str) -> Result<(), Failure> {
    // At once, so that nobody reads half of it.
    let (path, fresh) = (format!("broker-{broker}.disk"), format!("broker-{broker}.disk.new"));
    std::fs::write(folder.join(&fresh), plan)?;
    Ok(std::fs::rename(folder.join(fresh), folder.join(path))?)
}

/// A process's soft bound on a resource becomes what `most` says, for a while.
fn bound(
    troupe: &mut Troupe,
    who: Who,
    what: &'static str,
    ms: u64,
    most: impl FnOnce(i32) -> Option<u64>,
) -> Result<(), Failure> {
    let Some(pid) = troupe.seats.get(&who).and_then(super::seat::Seat::pid) else { return Ok(()) };
    let pid = pid.as_raw();
    let Some(most) = most(pid) else { return Ok(()) };
    let before = match troupe.acts.bound_before(pid, what) {
        Some(before) => before,
        None => limit_of(pid, what)?,
    };
    if prlimit(pid, what, &most.to_string())? {
        troupe.acts.later(ms, Undo::Bound { pid, what, before });
    }
    Ok(())
}

fn limit_of(pid: i32, what: &str) -> Result<String, Failure> {
    let mut command = Command::new("prlimit");
    command.args([&format!("--pid={pid}"), &format!("--{what}"), "--output=SOFT", "--noheadings"]);
    let output = command.output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether it could be set: the process may have ended.
fn prlimit(pid: i32, what: &str, soft: &str) -> Result<bool, Failure> {
    let mut command = Command::new("prlimit");
    command.args([format!("--pid={pid}"), format!("--{what}={soft}:")]);
    Ok(command.output()?.status.success())
}
