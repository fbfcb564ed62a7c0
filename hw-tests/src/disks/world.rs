//! The processes and the directories of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use landfall::Client;

use super::DISKS;
use super::plan::{End, Harm, Plan};
use crate::Failure;
use crate::device::slow;
use crate::faults::damage;
use crate::faults::fault::Spot;
use crate::flow::Random;
use crate::sweep::child::Child;

/// Longest that any one thing is waited for. Holes are judged again each minute.
pub fn patience() -> Duration {
    slow(Duration::from_secs(100))
}

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The processes and their folder. Dropping it kills them and removes the folder.
pub struct World {
    programs: PathBuf,
    folder: PathBuf,
    brokers: u8,
    reads: bool,
    control: Option<Child>,
    running: BTreeMap<u8, Child>,
    /// Disks that are away.
    pub away: BTreeSet<u8>,
    life: u32,
    /// It stays to be looked at.
    pub keep: bool,
}

impl World {
    /// Empty disks, in a folder on tmpfs.
    pub fn new(programs: &Path, plan: &Plan) -> Result<Self, Failure> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only the number matters.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("/dev/shm/landfall-disks-{}-{number}", std::process::id());
        let world = Self {
            programs: programs.to_owned(),
            folder: folder.into(),
            brokers: plan.brokers,
            reads: plan.reads,
            control: None,
            running: BTreeMap::new(),
            away: BTreeSet::new(),
            life: 0,
            keep: false,
        };
        for disk in 0..plan.brokers {
            fs::create_dir_all(world.disk(disk))?;
        }
        Ok(world)
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a broker's disk is mounted.
    pub fn disk(&self, disk: u8) -> PathBuf {
        self.folder.join(DISKS).join(format!("broker-{disk}"))
    }

    /// What is beside the disks, by name.
    fn beside(&self, what: &str, disk: u8) -> PathBuf {
        self.folder.join(format!("{what}-{disk}"))
    }

    /// Where what is on a disk is, also if it is away.
    pub fn really(&self, disk: u8) -> PathBuf {
        if self.away.contains(&disk) { self.beside("away", disk) } else { self.disk(disk) }
    }

    /// A client of control.
    pub fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(&format!("unix:{}", self.folder.join("control.sock").display()))?)
    }

    /// Brokers that run.
    pub fn on(&self) -> Vec<u8> {
        self.running.keys().copied().collect()
    }

    /// Starts control, and the brokers whose disks are not away; what control refused it with.
    pub fn start(&mut self) -> Result<Option<String>, Failure> {
        self.life += 1;
        let folder = self.folder.display();
        let mut arguments = vec![
            format!("--pool={folder}/pool"),
            "--pool-bytes=96M".to_owned(),
            "--segment-bytes=2M".to_owned(),
            "--sessions=256".to_owned(),
            "--sparse".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            format!("--unix={folder}/control.sock"),
            "--copy-move-ms=1500".to_owned(),
        ];
        let disks = (0..self.brokers).map(|disk| self.disk(disk));
        arguments.extend(disks.map(|disk| format!("--restore={}", disk.display())));
        // A control that was killed leaves it.
        let _ = fs::remove_file(self.folder.join("control.sock"));
        let mut control = self.begin("landfall-control", "control", arguments)?;
        if !ready(&mut control)? {
            return Ok(Some(control.said()));
        }
        self.control = Some(control);
        for broker in (0..self.brokers).filter(|disk| !self.away.contains(disk)) {
            let mut arguments = vec![
                format!("--pool={folder}/pool"),
                format!("--number={broker}"),
                format!("--unix={folder}/broker-{broker}.sock"),
                "--listen=127.0.0.1:0".to_owned(),
                format!("--data={}", self.disk(broker).display()),
                "--data-file-bytes=65536".to_owned(),
            ];
            let others = (0..self.brokers).filter(|other| self.reads && *other != broker);
            let others = others.map(|other| format!("--read-data={}", self.disk(other).display()));
            arguments.extend(others);
            let child = self.begin("landfall-broker", &format!("broker-{broker}"), arguments)?;
            self.running.insert(broker, child);
        }
        for (broker, child) in &mut self.running {
            ensure!(ready(child)?, "broker {broker} ended: {}", child.said());
        }
        Ok(None)
    }

    fn begin(&self, program: &str, name: &str, arguments: Vec<String>) -> Result<Child, Failure> {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).arg(format!("--parent={}", std::process::id()));
        let stem = self.folder.join(format!("{name}-{}.x", self.life));
        Ok(Child::start(command, &stem, None)?)
    }

    /// Kills a broker.
    pub fn kill(&mut self, broker: u8) {
        self.running.remove(&broker);
    }

    /// Everything ends.
    pub fn end(&mut self, end: End, keeps_pool: bool) -> Result<(), Failure> {
        if end == End::Stop {
            for child in self.running.values_mut() {
                child.terminate();
            }
            for (broker, child) in &mut self.running {
                in_good_order(child).map_err(|why| why.with(&format!(" (broker {broker})")))?;
            }
            if let Some(control) = &mut self.control {
                control.terminate();
                in_good_order(control).map_err(|why| why.with(" (control)"))?;
            }
        }
        self.running.clear();
        self.control = None;
        if !keeps_pool {
            fs::remove_file(self.folder.join("pool"))?;
        }
        Ok(())
    }

    /// Disks that were away are back.
    pub fn mount(&mut self) -> Result<(), Failure> {
        for disk in std::mem::take(&mut self.away) {
            fs::remove_dir_all(self.disk(disk))?;
            fs::rename(self.beside("away", disk), self.disk(disk))?;
        }
        Ok(())
    }

    /// Keeps copies of the disks, beside those of the life before.
    pub fn copy(&self) -> Result<(), Failure> {
        for disk in 0..self.brokers {
            let (last, before) = (self.beside("last", disk), self.beside("before", disk));
            if before.exists() {
                fs::remove_dir_all(&before)?;
            }
            if last.exists() {
                fs::rename(&last, &before)?;
            }
            copy(&self.disk(disk), &last)?;
        }
        Ok(())
    }

    /// Does what is to happen to disks; what it was, and none where it cannot happen.
    pub fn harm(&mut self, harm: Harm) -> Result<Option<String>, Failure> {
        let what = match harm {
            Harm::None => return Ok(None),
            Harm::Swap(one, other) => {
                self.swap(|disk| self.disk(disk), one, other)?;
                // Their copies go with them: of one disk there are not two at a time.
                self.swap(|disk| self.beside("last", disk), one, other)?;
                self.swap(|disk| self.beside("before", disk), one, other)?;
                String::new()
            }
            Harm::Wipe(disk) => {
                fs::remove_dir_all(self.disk(disk))?;
                fs::create_dir(self.disk(disk))?;
                String::new()
            }
            Harm::Older(disk) => {
                let before = self.beside("before", disk);
                if !before.exists() {
                    return Ok(None);
                }
                fs::remove_dir_all(self.disk(disk))?;
                copy(&before, &self.disk(disk))?;
                String::new()
            }
            Harm::Away(disk) => {
                fs::rename(self.disk(disk), self.beside("away", disk))?;
                // Its mount point.
                fs::create_dir(self.disk(disk))?;
                self.away.insert(disk);
                String::new()
            }
            Harm::Damage(disk, seed) => {
                let spots = [Spot::Header, Spot::Record, Spot::Payload, Spot::End, Spot::Page];
                let spot = spots[(seed % spots.len() as u64) as usize];
                damage::files(&self.disk(disk), spot, seed)?
            }
            Harm::Lose(disk, seed) => {
                let files = damage::replicas(&self.disk(disk))?;
                if files.is_empty() {
                    return Ok(None);
                }
                let file = &files[Random::new(seed).below(files.len() as u64) as usize];
                fs::remove_file(file)?;
                file.display().to_string()
            }
        };
        Ok(Some(format!("{harm:?} {what}")))
    }

    fn swap(&self, place: impl Fn(u8) -> PathBuf, one: u8, other: u8) -> Result<(), Failure> {
        if place(one).exists() {
            let aside = self.beside("swapped", one);
            fs::rename(place(one), &aside)?;
            fs::rename(place(other), place(one))?;
            fs::rename(aside, place(other))?;
        }
        Ok(())
    }

    /// Puts back what the disks had before they were harmed.
    pub fn undo(&mut self) -> Result<(), Failure> {
        self.away.iter().try_for_each(|disk| fs::remove_dir_all(self.beside("away", *disk)))?;
        self.away.clear();
        for disk in 0..self.brokers {
            fs::remove_dir_all(self.disk(disk))?;
            copy(&self.beside("last", disk), &self.disk(disk))?;
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.running.clear();
        self.control = None;
        if !self.keep {
            // What cannot be removed stays to be seen.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Whether it serves; it does not if it has ended.
fn ready(child: &mut Child) -> Result<bool, Failure> {
    let deadline = Instant::now() + patience();
    while !child.is_ready() {
        if child.ended()?.is_some() {
            return Ok(false);
        }
        ensure!(Instant::now() < deadline, "not ready in time: {}", child.said());
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(true)
}

fn in_good_order(child: &mut Child) -> Result<(), Failure> {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(status) = child.ended()? {
            ensure!(status.success(), "it ended with {status}: {}", child.said());
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it was told to end and does not: {}", child.said());
        std::thread::sleep(LOOK_EVERY);
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
