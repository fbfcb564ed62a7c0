//! A whole system on this machine: control and its brokers as child processes.
//!
//! The pool is a memfd of this process unless a path is given, so nothing is left behind. The
//! children are told this process's id and die with it, even when it is killed.

mod command;
mod data;
mod error;
mod leader;
mod process;
mod spawner;
mod stop;

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use landfall_layout::limits::{
    BROKERS_MAX, COPY_MOVE_NS, POOL_BYTES_DEFAULT, RECORDS_FILE_BYTES, SEGMENT_BYTES_DEFAULT,
    SESSION_LEASE_NS, SESSIONS_DEFAULT, VERBS_LEASE_NS,
};
use landfall_layout::verbs::GrantMode;
use landfall_nic::PortState;

use self::command::{broker_command, control_command};
use self::data::{data_directories, make_data_directories};
use self::error::LocalError;
use self::leader::other_leader;
use self::process::{Process, Waited};
use self::spawner::Spawner;
use self::stop::{Ends, stop_all};
use crate::{Client, Error, Idle};

pub use self::stop::{Lingering, Stopping};

/// Longest wait for a child's `ready` line where nothing else is asked for.
const START_WAIT: Duration = Duration::from_secs(30);
/// How often it is asked whether a child is still waited for.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Time between SIGTERM and SIGKILL where nothing else is asked for. A process that is killed has
/// not said where its logs ended, and a slow disk takes a while to have what it is given last.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// What a local system shall be.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// Brokers, 1 to 32.
    pub brokers: usize,
    /// Bytes of the pool.
    pub pool_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Session lines.
    pub sessions: u32,
    /// Where control listens; port 0 takes any free one.
    pub control: String,
    /// The pool's file; `None`: a memfd of this process.
    pub pool: Option<PathBuf>,
    /// How the processes wait.
    pub idle: Idle,
    /// Folder of the two programs. `None`: `LANDFALL_BIN_DIR`, or beside this program.
    pub binaries: Option<PathBuf>,
    /// Whether [`LocalSystem::tick`] starts dead children again.
    pub restart: bool,
    /// Control's Unix socket: a path, or `@name`.
    pub unix: Option<String>,
    /// Names besides this machine's own by which control's HTTP API is asked, with commas between.
    /// By any other name it does not answer; by IP addresses it does.
    pub host: Option<String>,
    /// A group, by name or number, that has what the system makes too. `None`: this user alone.
    pub group: Option<String>,
    /// Directory for the sockets by which the processes wake each other; `None`: the usual one.
    pub sockets: Option<PathBuf>,
    /// Touch every page of the pool at the start.
    pub prefault: bool,
    /// Take the room of a new pool only as it is used: what is not there then is lost.
    pub sparse: bool,
    /// A new pool's hosts do not see each other's caches: lines are written back and dropped.
    pub flush: bool,
    /// Address of an RDMA device on which the brokers take clients too, each on a port that the
    /// system chooses.
    pub verbs: Option<IpAddr>,
    /// The most trusting way in which RDMA publishers may write.
    pub verbs_grant: GrantMode,
    /// An RDMA publisher that says nothing for this long is let go.
    pub verbs_lease: Duration,
    /// Where brokers keep replicas: broker N in `broker-N` of this directory, and each reads the
    /// others' too. `None`: they keep none.
    pub data: Option<PathBuf>,
    /// Bytes after which a replica's file is followed by another.
    pub data_file_bytes: u64,
    /// A copy on disk whose keeper has been away for this long is taken over by another broker.
    pub copy_move: Duration,
    /// A session that no broker has a connection of is closed after this long.
    pub session_lease: Duration,
    /// Goes on without what only data directories have that are not there: it is lost, and they
    /// must never come back.
    pub forget_lost: bool,
    /// Longest wait for one process at its start. Touching the pages of a large pool, or bringing
    /// many topics back from slow disks, takes longer than the usual 30 s.
    pub start_wait: Duration,
    /// Longest wait for a process at its end: then it is killed.
    pub stop_wait: Duration,
    /// Faults of a broker's disk, in the words of `landfall-broker --data-faults`. For tests.
    pub data_faults: Vec<(usize, String)>,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            brokers: 1,
            pool_bytes: POOL_BYTES_DEFAULT,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            sessions: SESSIONS_DEFAULT,
            control: "127.0.0.1:0".into(),
            pool: None,
            idle: Idle::Backoff,
            binaries: None,
            restart: false,
            unix: None,
            host: None,
            group: None,
            sockets: None,
            prefault: false,
            sparse: false,
            flush: false,
            verbs: None,
            verbs_grant: GrantMode::default(),
            verbs_lease: Duration::from_nanos(VERBS_LEASE_NS),
            data: None,
            data_file_bytes: RECORDS_FILE_BYTES,
            copy_move: Duration::from_nanos(COPY_MOVE_NS),
            session_lease: Duration::from_nanos(SESSION_LEASE_NS),
            forget_lost: false,
            start_wait: START_WAIT,
            stop_wait: STOP_WAIT,
            data_faults: Vec::new(),
        }
    }
}

/// An address of an RDMA device of this machine whose port is up.
pub fn rdma_address() -> Result<IpAddr, Error> {
    let none = |why: String| Error::NoRdma { why };
    let devices = landfall_nic::devices().map_err(|why| none(why.to_string()))?;
    let ports = devices.iter().flat_map(|device| &device.ports);
    let up = ports.filter(|port| port.state == PortState::Active);
    let addresses = up.flat_map(|port| &port.gids).filter_map(|gid| gid.ip);
    // A link-local address would need the name of its interface beside it.
    let usable = |ip: &IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    addresses.filter(usable).min_by_key(IpAddr::is_ipv6).ok_or_else(|| {
        none("no RDMA here: no port that is up has an IP address; give its interface one".into())
    })
}

/// A process that is waited for at its start.
#[derive(Clone, Copy, Debug)]
pub struct Starting<'a> {
    /// Which one: `control` or `broker N`.
    pub name: &'a str,
    /// For how long so far.
    pub waited: Duration,
    /// What it has said on standard error.
    pub said: &'a str,
}

/// Control and brokers, running. Dropping it kills them; [`LocalSystem::stop`] asks first.
pub struct LocalSystem {
    config: LocalConfig,
    pool: PathBuf,
    /// Keeps the pool's memory: the children open it through this process.
    _memory: Option<OwnedFd>,
    control_binary: PathBuf,
    broker_binary: PathBuf,
    address: String,
    client: Client,
    control: Process,
    brokers: Vec<Process>,
    spawner: Spawner,
}

impl LocalSystem {
    /// Starts control and the brokers and returns when control has accepted every broker.
    pub fn start(config: LocalConfig) -> Result<Self, Error> {
        let system = Self::start_while(config, |_| true, |_| {})?;
        Ok(system.ok_or(LocalError::Unwanted)?)
    }

    /// The same as long as `goes_on` says so, which is asked again and again while a process is
    /// waited for. When it says no, what was started is stopped in good order, of which `tell`
    /// hears where that takes long, and there is no system. An error names who had to be killed.
    pub fn start_while(
        config: LocalConfig,
        mut goes_on: impl FnMut(Starting) -> bool,
        mut tell: impl FnMut(Stopping),
    ) -> Result<Option<Self>, Error> {
        Ok(Self::launch(config, &mut goes_on, &mut tell)?)
    }

    fn launch(
        config: LocalConfig,
        goes_on: &mut dyn FnMut(Starting) -> bool,
        tell: &mut dyn FnMut(Stopping),
    ) -> Result<Option<Self>, LocalError> {
        if !(1..=BROKERS_MAX).contains(&config.brokers) {
            return Err(LocalError::Brokers { asked: config.brokers });
        }
        let control_binary = find("landfall-control", config.binaries.as_deref())?;
        let broker_binary = find("landfall-broker", config.binaries.as_deref())?;
        let (pool, memory) = match &config.pool {
            Some(path) => (path.clone(), None),
            None => {
                let fd = landfall_pool::map::memfd("landfall-pool", config.pool_bytes)
                    .map_err(|error| LocalError::Pool { why: error.to_string() })?;
                let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
                (PathBuf::from(path), Some(fd))
            }
        };
        if let Some(data) = &config.data {
            make_data_directories(data, config.brokers, config.group.is_some())?;
        }
        let spawner = Spawner::start()
            .map_err(|source| LocalError::Spawn { name: "the spawner".into(), source })?;
        let mut control = Process::new("control".into());
        let mut command = control_command(&control_binary, &config, &pool, &config.control);
        control.start(&spawner, &mut command)?;
        let found = ready(&mut control, config.start_wait, goes_on, &mut []).and_then(serves_at);
        let (address, client) = match found {
            Ok(found) => found,
            Err(why) => {
                // It may serve already, or be about to: only a stop in good order says where logs
                // end.
                let mut ends = Ends::default();
                stop_all(&mut [&mut control], config.stop_wait, tell, &mut ends);
                return gave_up(why, all_ended(ends, config.stop_wait));
            }
        };
        let mut system = Self {
            config,
            pool,
            _memory: memory,
            control_binary,
            broker_binary,
            address,
            client,
            control,
            brokers: Vec::new(),
            spawner,
        };
        match system.start_brokers(goes_on) {
            Ok(()) => Ok(Some(system)),
            // Control serves, and has taken back where logs ended: what was stopped in good order
            // before is so again.
            Err(why) => gave_up(why, system.end(tell)),
        }
    }

    fn start_brokers(
        &mut self,
        goes_on: &mut dyn FnMut(Starting) -> bool,
    ) -> Result<(), LocalError> {
        for number in 0..self.config.brokers {
            let mut broker = Process::new(format!("broker {number}"));
            broker.start(&self.spawner, &mut self.broker_command(number))?;
            self.brokers.push(broker);
        }
        let wait = self.config.start_wait;
        for number in 0..self.brokers.len() {
            // Whoever ends meanwhile is not waited for, nor are those that wait for it.
            let (before, rest) = self.brokers.split_at_mut(number);
            let Some((broker, after)) = rest.split_first_mut() else { break };
            let mut others = vec![&mut self.control];
            others.extend(before.iter_mut().chain(after));
            ready(broker, wait, goes_on, &mut others)?;
        }
        Ok(())
    }

    /// Control's address: `http://127.0.0.1:PORT`. It stays the same when control restarts.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A client of this system.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The pool's path, as the children open it.
    pub fn pool(&self) -> &Path {
        &self.pool
    }

    /// Brokers of this system.
    pub fn brokers(&self) -> usize {
        self.brokers.len()
    }

    /// Data directories of brokers that this system does not have, because it has fewer than one
    /// before it: they are read, and nothing more is kept there.
    pub fn data_left(&self) -> Vec<PathBuf> {
        let Some(data) = &self.config.data else { return Vec::new() };
        let mine: Vec<_> =
            (0..self.config.brokers).map(|number| data.join(format!("broker-{number}"))).collect();
        data_directories(data).into_iter().filter(|path| !mine.contains(path)).collect()
    }

    /// Looks after the children: starts dead ones again where the configuration says so, after
    /// 100 ms and then twice as long each time, up to 5 s. Returns what happened and what the
    /// children said, a line each. Call it a few times a second.
    pub fn tick(&mut self) -> Vec<String> {
        let mut notes = Vec::new();
        let now = Instant::now();
        let restart = self.config.restart;
        if self.control.look(now, restart, &mut notes) {
            let mut command = self.control_again();
            if let Some(pid) = other_leader(&self.pool, None) {
                command.arg("--standby");
                notes.push(format!(
                    "process {pid}, which this system did not start, leads the pool: control \
                     stands by, and leads again when that one is gone"
                ));
            }
            restarted(&mut self.control, &self.spawner, &mut command, &mut notes);
        }
        for number in 0..self.brokers.len() {
            if self.brokers[number].look(now, restart, &mut notes) {
                let mut command = self.broker_command(number);
                restarted(&mut self.brokers[number], &self.spawner, &mut command, &mut notes);
            }
        }
        notes
    }

    /// Whether every child lives.
    pub fn is_whole(&mut self) -> bool {
        self.control.is_alive() && self.brokers.iter_mut().all(Process::is_alive)
    }

    /// Kills a broker as a crash would and waits until it is gone.
    pub fn kill_broker(&mut self, number: usize) {
        if let Some(broker) = self.brokers.get_mut(number) {
            broker.kill();
        }
    }

    /// Kills control as a crash would and waits until it is gone.
    pub fn kill_control(&mut self) {
        self.control.kill();
    }

    /// Starts a dead broker again, now, and returns when it is accepted.
    pub fn start_broker(&mut self, number: usize) -> Result<(), Error> {
        let mut command = self.broker_command(number);
        let asked = self.brokers.len();
        let broker = self.brokers.get_mut(number).ok_or(LocalError::Brokers { asked })?;
        if !broker.is_alive() {
            broker.start(&self.spawner, &mut command)?;
        }
        ready(broker, self.config.start_wait, &mut |_| true, &mut [])?;
        Ok(())
    }

    /// Starts dead control again, now, at the address it had, and returns when it serves.
    pub fn start_control(&mut self) -> Result<(), Error> {
        Ok(self.restart_control(self.config.start_wait)?)
    }

    /// Waits until control serves, and starts it where it does not live.
    fn restart_control(&mut self, wait: Duration) -> Result<(), LocalError> {
        let mut command = self.control_again();
        if !self.control.is_alive() {
            self.control.start(&self.spawner, &mut command)?;
        }
        ready(&mut self.control, wait, &mut |_| true, &mut []).map(drop)
    }

    /// Changes the faults of brokers' disks, for brokers that are started from now on. For tests.
    pub fn set_data_faults(&mut self, faults: Vec<(usize, String)>) {
        self.config.data_faults = faults;
    }

    /// A broker's process id, while it lives.
    pub fn broker_pid(&self, number: usize) -> Option<u32> {
        self.brokers.get(number).and_then(Process::pid)
    }

    /// Control's process id, while it lives.
    pub fn control_pid(&self) -> Option<u32> {
        self.control.pid()
    }

    /// Stops all: brokers first, so that control hears them leave. SIGTERM, then SIGKILL after
    /// [`LocalConfig::stop_wait`], which is an error that names who had to be killed. So is one
    /// that ended with an error. Where control is between two lives and has directories to write
    /// into where logs ended, it is started once more for that; where another control leads, which
    /// somebody started beside the system, that one does so when it is stopped, and `tell` hears of
    /// it.
    pub fn stop(self) -> Result<(), Error> {
        self.stop_and_tell(|_| {})
    }

    /// The same. `tell` hears what they said at their end and, where it takes long, for whom it
    /// waits.
    pub fn stop_and_tell(self, mut tell: impl FnMut(Stopping)) -> Result<(), Error> {
        Ok(self.end(&mut tell)?)
    }

    fn end(mut self, tell: &mut dyn FnMut(Stopping)) -> Result<(), LocalError> {
        let (wait, mut ends) = (self.config.stop_wait, Ends::default());
        let other = other_leader(&self.pool, self.control.pid());
        // Only a control that serves writes down where logs end.
        let writes = self.config.restart && self.config.data.is_some() && other.is_none();
        let control = match writes {
            true => self.restart_control(self.config.start_wait.min(wait)),
            false => Ok(()),
        };
        let control = control.map_err(|why| LocalError::NoControl { why: Box::new(why) });
        let mut brokers: Vec<&mut Process> = self.brokers.iter_mut().collect();
        stop_all(&mut brokers, wait, tell, &mut ends);
        stop_all(&mut [&mut self.control], wait, tell, &mut ends);
        if let Some(pid) = other {
            tell(Stopping::Said(&format!(
                "process {pid}, which this system did not start, still leads the pool: stop it \
                 with kill {pid}, and it says where logs ended"
            )));
        }
        LocalError::all(control.err().into_iter().chain(all_ended(ends, wait).err()))
    }

    fn broker_command(&self, number: usize) -> Command {
        broker_command(&self.broker_binary, &self.config, &self.pool, number)
    }

    /// Control's command with the port that it had.
    fn control_again(&self) -> Command {
        let listen = self.address.strip_prefix("http://").unwrap_or(&self.address);
        let mut command = control_command(&self.control_binary, &self.config, &self.pool, listen);
        // Another pool in its place would be empty, with brokers that are still in the one before.
        command.arg("--existing");
        command
    }
}

impl Drop for LocalSystem {
    fn drop(&mut self) {
        for broker in &mut self.brokers {
            broker.kill();
        }
        self.control.kill();
    }
}

/// An error where somebody had to be killed, or ended with one.
fn all_ended(Ends { killed, failed }: Ends, waited: Duration) -> Result<(), LocalError> {
    let killed = (!killed.is_empty()).then_some(LocalError::Killed { killed, waited });
    let failed = (!failed.is_empty()).then_some(LocalError::Failed { failed });
    LocalError::all(killed.into_iter().chain(failed))
}

/// A start that came to nothing, and what was started is stopped. That nobody wants it any more is
/// no error.
fn gave_up(
    why: LocalError,
    stopped: Result<(), LocalError>,
) -> Result<Option<LocalSystem>, LocalError> {
    let why = (!matches!(why, LocalError::Unwanted)).then_some(why);
    LocalError::all(why.into_iter().chain(stopped.err())).map(|()| None)
}

/// Where control serves, by its `ready` line, and a client of it.
fn serves_at(line: String) -> Result<(String, Client), LocalError> {
    let named = line.strip_prefix("ready ").ok_or("control named no address".to_owned());
    let found = named.and_then(|address| match Client::new(address) {
        Ok(client) => Ok((address.to_owned(), client)),
        Err(error) => Err(error.to_string()),
    });
    found.map_err(|why| LocalError::Address { why })
}

/// Waits for a child's `ready` line and returns it. None of `others` may end meanwhile.
fn ready(
    process: &mut Process,
    wait: Duration,
    goes_on: &mut dyn FnMut(Starting) -> bool,
    others: &mut [&mut Process],
) -> Result<String, LocalError> {
    let (name, began) = (process.name().to_owned(), Instant::now());
    loop {
        let left = wait.saturating_sub(began.elapsed());
        match process.wait_ready(left.min(ASK_EVERY)) {
            Waited::Ready(line) => return Ok(line),
            Waited::Died { status, said } => return Err(LocalError::Died { name, status, said }),
            Waited::Late { said } => {
                for other in &mut *others {
                    if let Some((status, said)) = other.death() {
                        let name = other.name().to_owned();
                        return Err(LocalError::Died { name, status, said });
                    }
                }
                let waited = began.elapsed();
                if !goes_on(Starting { name: &name, waited, said: &said }) {
                    return Err(LocalError::Unwanted);
                }
                if waited >= wait {
                    return Err(LocalError::NotReady { name, waited, said });
                }
            }
        }
    }
}

fn restarted(
    process: &mut Process,
    spawner: &Spawner,
    command: &mut Command,
    notes: &mut Vec<String>,
) {
    match process.start(spawner, command) {
        Ok(()) => notes.push(format!("{} was started again", process.name())),
        Err(error) => notes.push(error.to_string()),
    }
}

/// The program `name` in `given`, or in `LANDFALL_BIN_DIR`, or beside this program, or one folder
/// up from it, where test and example programs have their siblings.
fn find(name: &'static str, given: Option<&Path>) -> Result<PathBuf, LocalError> {
    let from_environment = std::env::var_os("LANDFALL_BIN_DIR").map(PathBuf::from);
    let looked: Vec<PathBuf> = match given.map(Path::to_owned).or(from_environment) {
        Some(dir) => vec![dir],
        None => {
            let program = std::env::current_exe().unwrap_or_default();
            program.ancestors().skip(1).take(2).map(Path::to_owned).collect()
        }
    };
    looked
        .iter()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or(LocalError::Missing { program: name, looked })
}

#[cfg(test)]
mod tests;
