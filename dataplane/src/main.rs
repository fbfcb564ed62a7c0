//! `landfall-broker`: one broker of a pool.

#![forbid(unsafe_code)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use landfall_dataplane::{
    Broker, Config, Data, Ended, Faults, Idle, Plan, VerbsConfig, wait_for_number,
};
use landfall_layout::BrokerId;
use landfall_layout::limits::{BROKERS_MAX, RECORDS_FILE_BYTES, SESSION_LEASE_NS, VERBS_LEASE_NS};
use landfall_layout::pool::Attach;
use landfall_layout::verbs::GrantMode;
use landfall_nic::RETRY_TIME;
use landfall_nic::fitness::{self, MemoryLock};
use landfall_pool::Pool;
use landfall_pool::map::MapError;
use landfall_pool::owner::{SharedWith, own_what_is_made};
use landfall_pool::pool::PoolError;
use landfall_pool::process::{self, ignores_hangup, survive_file_size};
use landfall_pool::stderr;
use landfall_replica::ask::ask_all;
use landfall_replica::once::each_once;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// A pool that control is still making is waited for this long.
const POOL_WAIT: Duration = Duration::from_secs(10);
/// Most controls have made it by then, and nothing has to be said.
const POOL_QUIET: Duration = Duration::from_secs(1);

/// One broker: lands what publishers send, delivers the log to subscribers.
#[derive(Parser)]
#[command(name = "landfall-broker", version)]
struct Flags {
    /// The pool: a devdax device, a file on tmpfs or hugetlbfs, or /proc/PID/fd/N of a memfd.
    #[arg(long, value_name = "PATH")]
    pool: PathBuf,
    /// Number of this broker.
    #[arg(long, value_name = "N", value_parser = number)]
    number: BrokerId,
    /// TCP address to listen on; port 0 lets the system choose.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: String,
    /// Unix socket to listen on: a path, or @NAME for an abstract one.
    #[arg(long, value_name = "PATH|@NAME")]
    unix: Option<String>,
    /// Files, directories and sockets are for this group too, a name or a number; without it for
    /// this user alone.
    #[arg(long, value_name = "GROUP")]
    group: Option<SharedWith>,
    /// Directory for the sockets of the processes of this host, the same for all of them. Default:
    /// /run/landfall for root, else landfall in $XDG_RUNTIME_DIR or in /tmp.
    #[arg(long, value_name = "DIR")]
    sockets: Option<PathBuf>,
    /// How to wait: spin needs a core of its own.
    #[arg(long, value_enum, default_value_t = How::Backoff)]
    idle: How,
    /// Also take clients over RDMA, on this address of an RDMA device; port 0 lets the system
    /// choose.
    #[arg(long, value_name = "ADDRESS:PORT")]
    verbs: Option<String>,
    /// The most trusting way in which RDMA publishers may write: pull (the broker reads from them),
    /// window (through a memory window on one extent), open (a whole segment; for a trusted rack).
    #[arg(long, value_name = "MODE", default_value_t, requires = "verbs")]
    verbs_grant: GrantMode,
    /// An RDMA publisher that says nothing for this long is let go.
    #[arg(long, value_name = "MS", default_value_t = VERBS_LEASE_NS / 1_000_000,
        value_parser = lease, requires = "verbs")]
    verbs_lease_ms: u64,
    /// How long a publisher whose connection was lost may come back before its session is closed.
    #[arg(long, value_name = "MS", default_value_t = SESSION_LEASE_NS / 1_000_000)]
    session_lease_ms: u64,
    /// How long it waits, once it is told to stop, for publishers over memory that have not gone,
    /// and then for copies that are behind and still move.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    stop_wait_ms: u64,
    /// Keep replicas in this directory; it is made if it is not there. Without it, this broker
    /// keeps none.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Another broker's directory of replicas, where this host can read it: what memory has no more
    /// is read from there too. May be said many times.
    #[arg(long, value_name = "DIR")]
    read_data: Vec<PathBuf>,
    /// Bytes after which a replica's file is followed by another.
    #[arg(long, value_name = "BYTES", default_value_t = RECORDS_FILE_BYTES, requires = "data",
        value_parser = clap::value_parser!(u64).range(65_536..=1 << 40))]
    data_file_bytes: u64,
    /// Make the disk fail on purpose: write-fails=N, sync-fails=N, full-after=BYTES, short=BYTES,
    /// with commas between.
    #[arg(long, value_name = "FAULTS", requires = "data", hide = true)]
    data_faults: Option<Plan>,
    /// The host on which this number was a broker before is down, and its caches with it: take
    /// the number over from it. Said while that host runs, it may cost batches.
    #[arg(long)]
    host_is_down: bool,
    /// Core to run on.
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// End when this process ends.
    #[arg(long, value_name = "PID")]
    parent: Option<i32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    Spin,
    Backoff,
}

fn number(word: &str) -> Result<BrokerId, String> {
    word.parse()
        .ok()
        .and_then(BrokerId::new)
        .ok_or_else(|| format!("say a number from 0 to {}", BROKERS_MAX - 1))
}

fn lease(word: &str) -> Result<u64, String> {
    // A shorter lease would call a peer dead that its own queue pair is still trying to reach.
    let bounds = RETRY_TIME.1.as_millis() as u64 + 1..=86_400_000;
    word.parse()
        .ok()
        .filter(|ms| bounds.contains(ms))
        .ok_or_else(|| format!("say {} to {} milliseconds", bounds.start(), bounds.end()))
}

fn main() -> ExitCode {
    stderr::end_on_panic();
    let flags = Flags::parse();
    match serve(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stderr::note(format_args!("landfall-broker {}: {error}", flags.number));
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn serve(flags: &Flags) -> Result<(), Failure> {
    if let Some(parent) = flags.parent {
        follow(parent)?;
    }
    // Blocked before anything else, so that a signal at any time ends the loop in good order.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    if !ignores_hangup() {
        signals.add(Signal::SIGHUP);
    }
    signals.thread_block().map_err(|error| format!("block signals: {error}"))?;
    let arrived = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|error| format!("watch for signals: {error}"))?;
    let stop = || arrived.read_signal().is_ok_and(|signal| signal.is_some());
    if let Some(core) = flags.core {
        pin(core)?;
    }
    own_what_is_made(flags.group)?;
    survive_file_size();
    raise_descriptors()?;
    let Some(pool) = attach(&flags.pool, POOL_WAIT, stop)? else { return Ok(()) };
    if let Some(base) = &flags.sockets {
        pool.keep_sockets_in(base).map_err(|error| format!("keep sockets: {error}"))?;
    }
    if flags.verbs.is_some() {
        raise_memory_lock(pool.geometry().pool_bytes())?;
    }
    let mut is_gone = flags.host_is_down;
    if !is_gone {
        let waited = wait_for_number(&pool, flags.number, stop);
        let Some(gone) = waited.map_err(|error| format!("take the number: {error}"))? else {
            return Ok(());
        };
        is_gone = gone;
    }
    let idle = match flags.idle {
        How::Spin => Idle::Spin,
        How::Backoff => Idle::Backoff,
    };
    let read_data = others(flags.data.as_ref(), &flags.read_data);
    let config = Config {
        number: flags.number,
        listen: flags.listen.clone(),
        unix: flags.unix.clone(),
        idle,
        verbs: flags.verbs.as_ref().map(|listen| VerbsConfig {
            listen: listen.clone(),
            grant: flags.verbs_grant,
            lease_ns: flags.verbs_lease_ms * 1_000_000,
        }),
        session_lease_ns: flags.session_lease_ms.saturating_mul(1_000_000),
        stop_wait_ns: flags.stop_wait_ms.saturating_mul(1_000_000),
        data: flags.data.as_ref().map(|directory| Data {
            directory: directory.clone(),
            file_bytes: flags.data_file_bytes,
            faults: flags.data_faults.map(|plan| {
                let faults = Faults::default();
                faults.set(plan);
                faults
            }),
            others: read_data.clone(),
        }),
        read_data: read_data.clone(),
        host_is_down: is_gone,
    };
    for sentence in not_there(&read_data) {
        stderr::note(format_args!("landfall-broker: {sentence}"));
    }
    let mut broker = Broker::start(pool, &config)?;
    let ended = broker.run(stop, |broker| {
        let (tcp, unix) = (broker.tcp_address(), broker.unix_address());
        let mut out = std::io::stdout();
        // Nobody may be reading, which is no reason not to serve.
        let verbs = match broker.verbs_address() {
            "" => String::new(),
            address => format!(" verbs {address}"),
        };
        let _ = writeln!(out, "ready broker {} tcp {tcp} unix {unix}{verbs}", flags.number);
        let _ = out.flush();
    });
    drop(broker);
    if ended == Ended::CastOff && !stop() {
        return Err(begin_anew(flags.number));
    }
    Ok(())
}

/// Begins this program anew, as another process of the same number: nothing of what this one had
/// open or mapped outlives that, nor any queue pair. Comes back only if the system does not let it.
fn begin_anew(number: BrokerId) -> Failure {
    stderr::note(format_args!(
        "landfall-broker {number}: it was away for so long that control gave it up: what it had \
         open is let go of, and it begins anew"
    ));
    let mut words = std::env::args_os();
    let mut again = std::process::Command::new("/proc/self/exe");
    if let Some(name) = words.next() {
        again.arg0(name);
    }
    format!("begin anew: {}; start it again", again.args(words).exec()).into()
}

/// Makes the kernel end this process when its parent ends.
fn follow(parent: i32) -> Result<(), Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| format!("ask to end with process {parent}: {error}"))?;
    // It may have ended before the kernel was asked.
    let now = nix::unistd::getppid().as_raw();
    if now == parent {
        Ok(())
    } else {
        Err(format!("the parent is process {now}, not {parent}: it has ended already").into())
    }
}

fn pin(core: usize) -> Result<(), Failure> {
    let mut set = nix::sched::CpuSet::new();
    set.set(core).map_err(|error| format!("core {core}: {error}"))?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
        .map_err(|error| format!("run on core {core}: {error}; leave --core off or say another"))?;
    Ok(())
}

/// As many descriptors as the system lets this process have: connections need one or two each.
fn raise_descriptors() -> Result<(), Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
            .map_err(|error| format!("raise the bound on descriptors to {hard}: {error}"))?;
    }
    Ok(())
}

/// As much locked memory as the system lets this process have, which has to be the pool: NICs pin
/// all of it. Told here, since registering it would fail with nothing but ENOMEM.
fn raise_memory_lock(pool_bytes: u64) -> Result<(), Failure> {
    let lock = MemoryLock::here().map_err(|error| format!("ask for RLIMIT_MEMLOCK: {error}"))?;
    let raised = lock
        .raise()
        .map_err(|error| format!("raise RLIMIT_MEMLOCK to {} bytes: {error}", lock.hard))?;
    Ok(fitness::check_lock(raised, pool_bytes)?)
}

/// Attaches to the pool, waiting for control to make it. `None` when a signal came first.
fn attach(path: &Path, wait: Duration, stop: impl Fn() -> bool) -> Result<Option<Pool>, Failure> {
    let since = Instant::now();
    let mut is_told = false;
    loop {
        let error = match Pool::attach(path) {
            Ok(pool) => return Ok(Some(pool)),
            Err(error) => error,
        };
        let is_early = match &error {
            PoolError::Attach { found: Attach::NotYet, .. } => true,
            PoolError::Map(MapError::Io { source, .. }) => {
                source.kind() == std::io::ErrorKind::NotFound
            }
            _ => false,
        };
        if !is_early {
            return Err(error.into());
        }
        if since.elapsed() > wait {
            // Another control would wait for the same lock.
            let Some(holder) = process::holder(path) else { return Err(error.into()) };
            let path = path.display();
            return Err(format!(
                "{path} holds no pool yet, and {holder} has the lock of it, as a control does that \
                 makes the pool: start this broker again when it has"
            )
            .into());
        }
        if stop() {
            return Ok(None);
        }
        if since.elapsed() > POOL_QUIET && !std::mem::replace(&mut is_told, true) {
            stderr::note(format_args!(
                "landfall-broker: waiting up to {} s for control to make the pool: {error}",
                wait.as_secs()
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Directories of other brokers, each once: what this broker's own has is in no other copy for
/// being named again.
fn others(own: Option<&PathBuf>, read_data: &[PathBuf]) -> Vec<PathBuf> {
    let all: Vec<PathBuf> = own.into_iter().chain(read_data).cloned().collect();
    each_once(&all).into_iter().skip(usize::from(own.is_some())).collect()
}

/// Directories of other brokers that are not there, a sentence each. They may come: a disk that is
/// mounted later is read from then on. One that does not answer is told of by whoever needs it.
fn not_there(read_data: &[PathBuf]) -> Vec<String> {
    let looks = read_data.iter().map(|data| {
        let path = data.clone();
        (data, move || path.is_dir())
    });
    let found = ask_all(looks).into_iter().zip(read_data);
    let missing = found.filter(|(is_there, _)| matches!(is_there, Ok(false)));
    missing
        .map(|(_, data)| {
            format!(
                "--read-data {}: there is no such directory; what only it has is not read until \
                 it is there",
                data.display()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn its_own_directory_is_none_of_the_others() {
        let own = std::env::temp_dir();
        let spelt = own.join(".");
        let other = PathBuf::from("/nowhere-at-all");
        let named = [spelt, other.clone(), own.clone(), other.clone()];
        assert_eq!(others(Some(&own), &named), std::slice::from_ref(&other));
        assert_eq!(others(None, &named).len(), 2);
    }

    #[test]
    fn who_keeps_the_lock_of_a_pool_that_is_being_made_is_named() {
        let file = File::from(landfall_pool::map::memfd("made", 4096).unwrap());
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let why = || attach(&path, Duration::ZERO, || false).map(drop).unwrap_err().to_string();
        assert!(why().contains("start control"), "{}", why());
        file.lock().unwrap();
        let told = why();
        let me = format!("process {} has the lock", std::process::id());
        assert!(told.contains(&me) && !told.contains("start control"), "{told}");
    }

    #[test]
    fn a_directory_to_read_that_is_not_there_is_said() {
        let there = std::env::temp_dir();
        let said = not_there(&[there, "/not/there".into()]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("--read-data /not/there"), "{said:?}");
    }
}
