//! Both sides of a connection in one process, over the device's own address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use landfall_nic::{
    Access, Completion, Depths, Dialing, Domain, Event, How, Listener, Local, PortState, Queue,
    Region, Remote, Request, devices,
};
use landfall_pool::map::{Backing, memfd};
use landfall_pool::{Mapping, Memory};

/// How long anything may take. An emulated host is slow; what hangs is cut off.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const DEPTHS: Depths<'static> =
    Depths { send: 16, receive: 16, inline: 64, reads: 4, shared_receive: None };

pub const ALL: Access =
    Access { local_write: true, remote_read: true, remote_write: true, windows: true };
/// What a pool has: only windows let anybody in.
pub const WINDOWED: Access =
    Access { local_write: true, remote_read: false, remote_write: false, windows: true };
/// What the memory has that is sent from.
pub const LOCAL: Access =
    Access { local_write: true, remote_read: false, remote_write: false, windows: false };

/// The address of an RDMA device; without one there is nothing to test, which is a failure.
pub fn address() -> IpAddr {
    let devices = devices().unwrap_or_else(|missing| panic!("{missing}"));
    let ports = devices.iter().flat_map(|device| &device.ports);
    let active = ports.filter(|port| port.state == PortState::Active);
    let mut addresses = active.flat_map(|port| &port.gids).filter_map(|gid| gid.ip);
    let found = addresses.find(IpAddr::is_ipv4);
    found.unwrap_or_else(|| panic!("no active port has an IPv4 address: {devices:#?}"))
}

/// A listener at a free port of the device's address.
pub fn listener(address: IpAddr) -> Listener {
    Listener::bind(SocketAddr::new(address, 0), 8).unwrap()
}

pub fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// Waits for something to become true.
#[track_caller]
pub fn wait<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = deadline();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_micros(200));
    }
}

#[track_caller]
pub fn next_event(listener: &mut Listener) -> Event {
    wait("an event at the listener", || listener.next().unwrap())
}

#[track_caller]
pub fn next_request(listener: &mut Listener) -> Request {
    wait("a request", || match listener.next().unwrap() {
        Some(Event::Request(request)) => Some(request),
        _ => None,
    })
}

#[track_caller]
pub fn next_completion(queue: &mut Queue) -> Completion {
    wait("a completion", || {
        let mut one = [Completion::EMPTY];
        (queue.poll(&mut one) == 1).then_some(one[0])
    })
}

/// The next completion, which is a success.
#[track_caller]
pub fn success(queue: &mut Queue) -> Completion {
    let completion = next_completion(queue);
    assert_eq!(completion.failure, None, "{completion:?}");
    completion
}

pub fn mapping(bytes: u64) -> Arc<Mapping> {
    let fd = memfd("nic-test", bytes).unwrap();
    Arc::new(Mapping::new(fd, bytes, Backing::Shmem, true).unwrap())
}

/// Fills a mapping with words that say where they are.
pub fn fill(mapping: &Mapping, salt: u64) {
    for at in (0..mapping.bytes()).step_by(8) {
        mapping.store(at, at ^ salt);
    }
}

/// All of its words.
pub fn words(mapping: &Mapping) -> Vec<u64> {
    (0..mapping.bytes()).step_by(8).map(|at| mapping.load(at)).collect()
}

/// One side of a connection, with memory that is registered on its domain.
pub struct Side {
    pub queue: Queue,
    pub memory: Arc<Mapping>,
    pub region: Region,
    pub domain: Domain,
}

impl Side {
    /// Writes `bytes` bytes at `from` of this side's memory to the other side's.
    #[track_caller]
    pub fn write(&mut self, from: u64, bytes: u32, to: Remote, immediate: Option<u32>) {
        let how = How { signalled: true, id: from, ..How::default() };
        let piece = Local { region: &self.region, at: from, bytes };
        self.queue.write(&[piece], to, immediate, how).unwrap();
    }

    /// Reads the other side's memory to `into` of this side's.
    #[track_caller]
    pub fn read(&mut self, into: u64, bytes: u32, from: Remote) {
        let how = How { signalled: true, id: into, ..How::default() };
        let piece = Local { region: &self.region, at: into, bytes };
        self.queue.read(&[piece], from, how).unwrap();
    }
}

/// A connected pair: the one that was called, and the one that called.
pub struct Pair {
    pub server: Side,
    pub client: Side,
    pub listener: Listener,
}

pub const MEMORY_BYTES: u64 = 64 << 10;

/// Connects with 16 receives on the server's side.
pub fn pair(address: IpAddr, server: Depths<'_>, client: Depths<'_>, access: Access) -> Pair {
    let mut listener = listener(address);
    let (server, client) = join(&mut listener, server, client, access);
    Pair { server, client, listener }
}

/// Connects once more at a listener.
pub fn join(
    listener: &mut Listener,
    server: Depths<'_>,
    client: Depths<'_>,
    access: Access,
) -> (Side, Side) {
    let to = listener.local_addr();
    thread::scope(|scope| {
        let dial = scope.spawn(move || {
            let dialing = Dialing::resolve(to, deadline()).unwrap();
            let domain = dialing.domain().unwrap();
            let memory = mapping(MEMORY_BYTES);
            let region = Region::of_mapping(&domain, &memory, 0, MEMORY_BYTES, LOCAL).unwrap();
            let mtu = |_: &[u8]| 4096;
            let (queue, _) =
                dialing.connect(&domain, client, &[], |_| Ok(()), mtu, deadline()).unwrap();
            Side { queue, memory, region, domain }
        });
        let request = next_request(listener);
        let domain = match server.shared_receive {
            Some(shared) => shared.domain().clone(),
            None => request.domain().unwrap(),
        };
        let memory = mapping(MEMORY_BYTES);
        fill(&memory, 0);
        let region = Region::of_mapping(&domain, &memory, 0, MEMORY_BYTES, access).unwrap();
        let receives = if server.shared_receive.is_some() { 0 } else { server.receive };
        let before = |queue: &mut Queue| {
            queue.receive(receives).expect("as many as the queue is deep");
            Ok(())
        };
        let queue = request.accept(&domain, server, 4096, &[], before).unwrap();
        (Side { queue, memory, region, domain }, dial.join().unwrap())
    })
}
