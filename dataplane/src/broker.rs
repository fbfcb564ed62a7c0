//! A broker: taking a number on a pool, listening, and the loop around the turns.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use landfall_layout::command::Request;
use landfall_layout::limits::TOPICS_MAX;
use landfall_layout::pool::{BrokerAddress, BrokerLine, BrokerState};
use landfall_layout::topic::{TopicEntry, TopicState};
use landfall_layout::verbs::GrantMode;
use landfall_layout::{BrokerId, TopicId};
use landfall_nic::{Listener, fitness};
use landfall_pool::Pool;
use landfall_pool::bell::{Bell, Role};
use landfall_pool::clock::boot_ns;
use landfall_pool::idle::{Idle, Waiter};
use landfall_pool::lock::Locks;
use landfall_pool::peer;
use landfall_replica::ask::{self, SILENT};
use landfall_replica::end::behind;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::catch_up::CatchUp;
use crate::commands::{Dropping, LettingGo};
use crate::conns::{Conns, Token};
use crate::control_link::ControlLink;
use crate::env::Env;
use crate::free::Free;
use crate::joined::Naming;
use crate::led::Led;
use crate::lost::Lost;
use crate::number::{check_number, take_lock};
use crate::positions::Reserving;
use crate::publish_tcp::SCRATCH_BYTES;
use crate::replica::{Data, Replicator};
use crate::room::Room;
use crate::segments::Granted;
use crate::topics::Topic;
use crate::verbs::side::Side;
use crate::verbs::{Tokens, Verbs, VerbsConfig};

/// Marks of the descriptors in epoll that are no connection.
pub(crate) const TCP_LISTENER: u64 = u64::MAX;
pub(crate) const UNIX_LISTENER: u64 = u64::MAX - 1;
pub(crate) const BELL: u64 = u64::MAX - 2;
pub(crate) const VERBS_LISTENER: u64 = u64::MAX - 3;
pub(crate) const FILES: u64 = u64::MAX - 4;

/// How a broker is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its number.
    pub number: BrokerId,
    /// TCP address to listen on; port 0 lets the system choose.
    pub listen: String,
    /// Unix socket: a path, or `@name` for an abstract one; none: a path among the pool's sockets.
    pub unix: Option<String>,
    /// How it waits.
    pub idle: Idle,
    /// Clients over RDMA; none: none.
    pub verbs: Option<VerbsConfig>,
    /// How long a publisher whose connection was lost may come back, nanoseconds.
    pub session_lease_ns: u64,
    /// How long it waits, once it is told to stop, for clients that may write into the pool and
    /// have not gone, and for its disk to have what it keeps copies of, nanoseconds.
    pub stop_wait_ns: u64,
    /// Where it keeps replicas; none: it keeps none.
    pub data: Option<Data>,
    /// Directories where other brokers keep theirs, as far as this host can read them.
    pub read_data: Vec<PathBuf>,
    /// The host on which this number was a broker before is down, and its caches with it.
    pub host_is_down: bool,
}

/// How a broker's life ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// It was away, and control gave it up meanwhile. It has written nothing since it knows.
    CastOff,
}

/// Why a broker could not start.
#[derive(Debug)]
pub struct StartError {
    what: String,
    source: io::Error,
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

pub(crate) fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |source| StartError { what, source }
}

/// One broker on one pool. [`Broker::run`] is its whole life.
pub struct Broker {
    pub(crate) env: Env,
    pub(crate) link: ControlLink,
    pub(crate) topics: Vec<Option<Box<Topic>>>,
    /// Slots of the topics there are.
    pub(crate) live_topics: Vec<usize>,
    pub(crate) conns: Conns,
    pub(crate) epoll: Epoll,
    pub(crate) bell: Bell,
    pub(crate) tcp: TcpListener,
    pub(crate) unix: UnixListener,
    pub(crate) scratch: Vec<u8>,
    /// Connections whose session is being opened, by request number.
    pub(crate) opening: HashMap<u64, Token>,
    /// Connections that asked for positions, by request number.
    pub(crate) reserving: HashMap<u64, Reserving>,
    pub(crate) retiring: Vec<LettingGo>,
    pub(crate) dropping: Vec<Dropping>,
    /// Segments of deleted topics that clients may still write into, by connection.
    pub(crate) withheld: Vec<(Token, Granted)>,
    pub(crate) lost: Lost,
    /// Sessions that the present leader is still to be told of.
    pub(crate) naming: Option<Naming>,
    pub(crate) verbs: Option<Verbs>,
    pub(crate) replicator: Option<Replicator>,
    /// Reads what memory has no more; none where no replica can be read.
    pub(crate) catch_up: Option<CatchUp>,
    /// Brokers that deliver what this one lands in its own logs.
    pub(crate) peers: Vec<BrokerId>,
    pub(crate) events: Vec<EpollEvent>,
    /// What it says of itself.
    pub(crate) state: BrokerState,
    pub(crate) stop_wait_ns: u64,
    /// Listeners are watched.
    pub(crate) accepts: bool,
    pub(crate) room: Room,
    /// Publishers that wait for half batches are to look again.
    pub(crate) looks_at_halves: bool,
    pub(crate) led: Led,
    /// Turns until sockets are looked at again.
    pub(crate) sockets_in: u32,
    pub(crate) ticked_ns: u64,
    /// Segments that this process knew to be lost when it last told control.
    pub(crate) losses_seen: u32,
    pub(crate) turns: u32,
    /// When the turn before began, if it had something to do.
    pub(crate) turned_ns: Option<u64>,
    /// Which subscriber's turn it is.
    pub(crate) next_delivery: usize,
    pub(crate) free: Free,
    tcp_address: String,
    unix_address: String,
    verbs_address: String,
    idle: Idle,
    /// Dropped last: until then nobody else is this broker.
    _locks: Locks,
}

impl Broker {
    /// Takes the number on the pool, listens, and asks control to be accepted.
    ///
    /// Two processes cannot have one number: the second gets an error that says so.
    pub fn start(pool: Pool, config: &Config) -> Result<Self, StartError> {
        let me = config.number;
        if let Some(damaged) = pool.damaged_term() {
            return Err(failed("follow the leader of the pool")(io::Error::other(damaged)));
        }
        // Before anything else that it has: whoever holds this is the broker.
        let locks = take_lock(&pool, me)?;
        let bell = Bell::bind(&pool, Role::Broker(me))
            .map_err(failed(format!("take the bell of broker {me}")))?;
        let room = Room::here().map_err(failed("ask for the bound on descriptors"))?;
        let incarnation = random().map_err(failed("draw a random number"))?;
        let env = Env::new(pool, me, incarnation).map_err(failed("open the pool again"))?;
        let tcp = TcpListener::bind(&config.listen)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(failed(format!("listen on {}", config.listen)))?;
        let tcp_address = shown(tcp.local_addr().map_err(failed("ask for the TCP address"))?);
        let unix_address = match &config.unix {
            Some(address) => address.clone(),
            None => memory_socket(&env.pool, me).map_err(failed("make its unix socket"))?,
        };
        let unix = listen_unix(&unix_address)
            .map_err(failed(format!("listen on unix socket {unix_address}")))?;
        let epoll = watch(&tcp, &unix, &bell).map_err(failed("set up epoll"))?;
        let verbs =
            config.verbs.as_ref().map(|verbs| begin_verbs(&env, &epoll, verbs)).transpose()?;
        let verbs_address =
            verbs.as_ref().map_or_else(String::new, |v| v.listener.local_addr().to_string());
        let addresses = [&tcp_address[..], &unix_address, &verbs_address];
        check_number(&env.pool, &locks, me, config.host_is_down)
            .map_err(failed("take the number"))?;
        // Before the line: a start that fails is to leave no broker that people see as a dead one.
        check_age(&env.pool, config)?;
        let directory = config.data.as_ref().map(|data| take_directory(&env, data)).transpose()?;
        let catch_up = begin_catch_up(&epoll, config)?;
        // Once the line says that this broker is here, what it had may go to others.
        env.pool.write_back_of(me);
        take_number(&env, addresses, config.data.is_some(), locks.identity())?;
        // After the number is taken: the lines it writes are this broker's.
        let replicas = config.data.as_ref().zip(directory);
        let replicator =
            replicas.map(|(data, directory)| begin_replicas(&env, data, directory)).transpose()?;
        let mut link = ControlLink::new(&env);
        link.ask(&env, Request::Register { incarnation });
        Ok(Self {
            link,
            topics: (0..TOPICS_MAX).map(|_| None).collect(),
            live_topics: Vec::with_capacity(TOPICS_MAX),
            conns: Conns::new(),
            lost: Lost::new(config.session_lease_ns),
            naming: None,
            verbs,
            replicator,
            catch_up,
            epoll,
            bell,
            tcp,
            unix,
            scratch: vec![0; SCRATCH_BYTES],
            opening: HashMap::new(),
            reserving: HashMap::new(),
            retiring: Vec::with_capacity(64),
            dropping: Vec::new(),
            withheld: Vec::new(),
            peers: Vec::with_capacity(landfall_layout::limits::BROKERS_MAX),
            events: vec![EpollEvent::empty(); 256],
            state: BrokerState::Serving,
            stop_wait_ns: config.stop_wait_ns,
            accepts: true,
            room,
            looks_at_halves: false,
            led: Led::default(),
            sockets_in: 0,
            ticked_ns: 0,
            losses_seen: 0,
            turns: 0,
            turned_ns: None,
            next_delivery: 0,
            free: Free::default(),
            tcp_address,
            unix_address,
            verbs_address,
            idle: config.idle,
            env,
            _locks: locks,
        })
    }

    /// Where it listens for TCP, `host:port`.
    pub fn tcp_address(&self) -> &str {
        &self.tcp_address
    }

    /// Where it listens on a Unix socket: a path, or `@name`.
    pub fn unix_address(&self) -> &str {
        &self.unix_address
    }

    /// Where it listens for RDMA connections, `host:port`; empty: nowhere.
    pub fn verbs_address(&self) -> &str {
        &self.verbs_address
    }

    /// Serves until `stop` says so, then takes leave of everyone. `ready` is called once, when
    /// control has accepted the broker. A broker that control does not count on any more ends
    /// before that: its process has to begin anew, as another one.
    pub fn run(&mut self, mut stop: impl FnMut() -> bool, ready: impl FnOnce(&Self)) -> Ended {
        let mut ready = Some(ready);
        let mut waiter = Waiter::new(self.idle);
        let mut stopped_at = None;
        loop {
            if self.turn() > 0 || (waiter.rest() && self.park()) {
                waiter.reset();
            }
            if self.env.standing.is_cast_off() {
                return Ended::CastOff;
            }
            if self.ticked_ns == 0 {
                continue;
            }
            if self.link.is_accepted()
                && let Some(ready) = ready.take()
            {
                ready(self);
            }
            if stopped_at != Some(self.ticked_ns) {
                // Asked once a tick: the answer may cost a system call.
                stopped_at = Some(self.ticked_ns);
                if stop() {
                    break;
                }
            }
        }
        self.leave();
        if self.env.standing.is_cast_off() {
            return Ended::CastOff;
        }
        self.forget_address();
        Ended::Stopped
    }

    fn forget_address(&self) {
        if !self.unix_address.starts_with('@') {
            // Whoever comes next binds the path anew; a file that is gone already is no loss.
            let _ = fs::remove_file(&self.unix_address);
        }
    }
}

/// An address as clients on this host can use it.
fn shown(address: SocketAddr) -> String {
    address.to_string()
}

/// Where memory clients find a broker unless somebody says another place.
fn memory_socket(pool: &Pool, me: BrokerId) -> io::Result<String> {
    let path = pool.sockets()?.path(&format!("memory-{me}"))?;
    path.into_os_string().into_string().map_err(|path| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no text", path.display()))
    })
}

fn random() -> io::Result<u64> {
    use std::io::Read;
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes) | 1)
}

fn listen_unix(address: &str) -> io::Result<UnixListener> {
    let listener = match address.strip_prefix('@') {
        Some(name) => UnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?)?,
        None => {
            remove_stale(Path::new(address));
            UnixListener::bind(address)?
        }
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes a socket that a dead process left; one that answers stays, and binding then fails.
fn remove_stale(path: &Path) {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let is_dead = UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_socket && is_dead {
        // If it cannot be removed, binding says why.
        let _ = fs::remove_file(path);
    }
}

fn watch(tcp: &TcpListener, unix: &UnixListener, bell: &Bell) -> io::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let add = |fd: std::os::fd::BorrowedFd<'_>, mark| {
        epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, mark))
    };
    add(tcp.as_fd(), TCP_LISTENER)?;
    add(unix.as_fd(), UNIX_LISTENER)?;
    add(bell.as_fd(), BELL)?;
    Ok(epoll)
}

/// Opens the RDMA device that has the address, and listens there.
fn begin_verbs(env: &Env, epoll: &Epoll, config: &VerbsConfig) -> Result<Verbs, StartError> {
    let what = format!("serve RDMA on {}", config.listen);
    let other = |error: String| failed(what.clone())(io::Error::other(error));
    let mut addresses = config.listen.to_socket_addrs().map_err(failed(what.clone()))?;
    let address = addresses.next().ok_or_else(|| other("the name has no address".to_owned()))?;
    let side = Side::new(&env.pool, address).map_err(|error| other(error.to_string()))?;
    if config.grant == GrantMode::Window {
        let judged = fitness::check_windows(&side.device, side.has_windows);
        judged.map_err(|unfit| other(unfit.to_string()))?;
    }
    let listener = Listener::bind(address, 128).map_err(|error| other(error.to_string()))?;
    let event = EpollEvent::new(EpollFlags::EPOLLIN, VERBS_LISTENER);
    epoll.add(&listener, event).map_err(|errno| failed(what.clone())(errno.into()))?;
    Ok(Verbs {
        listener,
        side: Rc::new(side),
        tokens: Tokens::default(),
        peers: HashMap::new(),
        grant: config.grant,
        lease_ns: config.lease_ns,
    })
}

fn keep_replicas(data: &Data) -> String {
    format!("keep replicas in {}", data.directory.display())
}

/// Takes the directory that no other process may keep replicas in.
fn take_directory(env: &Env, data: &Data) -> Result<fs::File, StartError> {
    // Without its own disk a broker serves nobody from it: whoever looks there waits for it.
    ask::here(&data.directory);
    Replicator::take(env, data).map_err(failed(keep_replicas(data)))
}

/// Looks whether the pool is an older copy of the one that files here are of: what this broker took
/// would have positions that are used. A directory that does not answer is not waited for.
fn check_age(pool: &Pool, config: &Config) -> Result<(), StartError> {
    let topics: Vec<TopicEntry> = (0..TOPICS_MAX)
        .filter_map(|slot| pool.topic_in_slot(slot))
        .filter(|entry| entry.state() == TopicState::Live && entry.disk_replicas() > 0)
        .collect();
    let own = config.data.iter().map(|data| &data.directory);
    let data: Vec<PathBuf> = own.chain(&config.read_data).cloned().collect();
    let reached = |entry: &TopicEntry, log| pool.frontier(TopicId(entry.id), log).entries;
    let uuid = (pool.header().uuid, &*pool.uuid_text());
    match behind(&data, uuid, &topics, reached, (SILENT, |_: &Path, _| {})) {
        Some(behind) => Err(failed("begin on the pool")(io::Error::other(behind))),
        None => Ok(()),
    }
}

fn begin_replicas(env: &Env, data: &Data, lock: fs::File) -> Result<Replicator, StartError> {
    Replicator::start(env, data, lock).map_err(failed(keep_replicas(data)))
}

fn begin_catch_up(epoll: &Epoll, config: &Config) -> Result<Option<CatchUp>, StartError> {
    let own = config.data.iter().map(|data| &data.directory);
    let data: Vec<PathBuf> = own.chain(&config.read_data).cloned().collect();
    if data.is_empty() {
        return Ok(None);
    }
    let what = "start the threads that read replicas";
    let catch_up = CatchUp::start(data).map_err(failed(what))?;
    let event = EpollEvent::new(EpollFlags::EPOLLIN, FILES);
    epoll.add(catch_up.bell(), event).map_err(|errno| failed(what)(errno.into()))?;
    Ok(Some(catch_up))
}

fn take_number(env: &Env, addresses: [&str; 3], disk: bool, locked: u64) -> Result<(), StartError> {
    let [tcp, unix, verbs] = addresses;
    let address = BrokerAddress::new(tcp, unix, verbs).ok_or_else(|| {
        let (bytes, most) = (tcp.len() + unix.len() + verbs.len(), BrokerAddress::TEXT_BYTES);
        let source =
            io::Error::new(io::ErrorKind::InvalidInput, format!("{bytes} bytes; {most} fit"));
        failed("the TCP, Unix and verbs addresses are too long together")(source)
    })?;
    let line = BrokerLine {
        incarnation: env.incarnation,
        heartbeat_ns: boot_ns(),
        epoch_seen: env.pool.epoch_number(),
        state: BrokerState::Serving.raw(),
        pid: std::process::id().into(),
        host: landfall_pool::host::id(),
        disk: disk.into(),
        locked,
    };
    env.pool.set_broker(env.me, &line, &address);
    Ok(())
}

/// Makes a fresh connection ready for this loop.
pub(crate) fn prepare_tcp(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    peer::ask_for(stream)?;
    peer::must_take(stream, true)
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;
    use nix::sys::socket::sockopt::{KeepAlive, TcpUserTimeout};

    use super::*;

    #[test]
    fn connections_end_whose_client_is_gone_without_a_word() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a port");
        let client = TcpStream::connect(listener.local_addr().expect("it is bound"));
        let (stream, _) = listener.accept().expect("somebody has connected");
        prepare_tcp(&stream).expect("it is connected");
        assert!(client.is_ok() && getsockopt(&stream, KeepAlive) == Ok(true));
        assert_eq!(getsockopt(&stream, TcpUserTimeout), Ok(30_000));
    }
}
