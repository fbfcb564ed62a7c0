//! Two controls on one pool: the one that was stopped wakes up later and harms nothing.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use landfall::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::flow::Random;
use crate::scenarios::crashes::disturbed;
use crate::scenarios::tools::tool;
use crate::{Failure, Rig, Site};

/// How long a leader may be silent before the standby takes over, milliseconds.
const SILENT_MS: u64 = 400;
/// This takes seconds, and the pool holds what is published meanwhile.
const REST: Duration = Duration::from_millis(20);

/// A second control on the site's pool. It dies with this value.
struct Standby {
    child: Child,
    /// Asks it, and nobody else.
    client: Client,
}

impl Standby {
    fn start(site: &Site) -> Result<Self, Failure> {
        let name = format!("unix:@{}-standby", site.system.pool().display());
        let child = Command::new(tool("landfall-control")?)
            .arg("--pool")
            .arg(site.system.pool())
            .args(["--listen", "127.0.0.1:0", "--standby", "--unix", &name["unix:".len()..]])
            .args(["--silent-ms", &SILENT_MS.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, client: Client::new(&name)? })
    }

    /// Waits until it leads.
    fn leads(&mut self) -> Result<(), Failure> {
        let out = self.child.stdout.take().ok_or_else(|| Failure::new("no stdout"))?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        ensure!(line.starts_with("ready "), "the standby ended: {line:?}");
        Ok(())
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn signal(pid: u32, what: Signal) -> Result<(), Failure> {
    let pid = Pid::from_raw(pid.cast_signed());
    kill(pid, what).map_err(|error| Failure::new(format!("{what} to process {pid}: {error}")))
}

/// Whether a process that nobody has waited for has ended.
fn has_ended(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(stat[stat.rfind(')')? + 2..].starts_with('Z')))
        .unwrap_or(true)
}

/// Stops the leader, lets another control take over while publishers go on, and wakes it again.
fn depose(site: &mut Site, pause: Duration) -> Result<(), Failure> {
    let pid = site.system.control_pid().ok_or_else(|| Failure::new("no control"))?;
    std::thread::sleep(pause);
    signal(pid, Signal::SIGSTOP)?;
    let mut standby = Standby::start(site)?;
    standby.leads()?;
    std::thread::sleep(Duration::from_millis(200));
    signal(pid, Signal::SIGCONT)?;
    site.wait_until("that the control that was deposed ends", |_| Ok(has_ended(pid)))?;
    std::thread::sleep(Duration::from_millis(100));
    drop(standby);
    site.system.kill_control();
    Ok(site.system.start_control()?)
}

/// A leader that is stopped anywhere and woken after another one took over: nothing acknowledged
/// is lost, nothing comes twice, no order that was shown changes, and it finds out and ends.
pub fn a_stopped_control_is_deposed_and_harms_nothing(rig: &Rig) -> Result<(), Failure> {
    let mut random = Random::new(7);
    disturbed(rig, REST, move |site| {
        let before = site.client.cluster()?.epoch;
        for _ in 0..3 {
            depose(site, Duration::from_micros(random.below(20_000)))?;
        }
        let after = site.client.cluster()?.epoch;
        ensure!(after == before + 6, "the epoch was {before} and is {after}");
        Ok(())
    })
}

/// A standby waits as long as the leader beats, and takes over at once when its process is gone.
pub fn a_standby_waits_and_takes_over(rig: &Rig) -> Result<(), Failure> {
    disturbed(rig, REST, |site| {
        let before = site.client.cluster()?.epoch;
        let mut standby = Standby::start(site)?;
        std::thread::sleep(Duration::from_millis(3 * SILENT_MS));
        ensure!(site.client.cluster()?.epoch == before, "it did not wait");
        // It names the one that leads, and its client asks there.
        let (led, said) = (site.client.cluster()?.pid, standby.client.cluster()?);
        ensure!(said.pid == led, "asked while it stands by, process {} answers", said.pid);
        site.system.kill_control();
        standby.leads()?;
        ensure!(standby.client.cluster()?.epoch == before + 1, "it says that it leads");
        std::thread::sleep(Duration::from_millis(100));
        drop(standby);
        site.system.start_control()?;
        let after = site.client.cluster()?.epoch;
        ensure!(after == before + 2, "the epoch was {before} and is {after}");
        Ok(())
    })
}
