//! Doorbells: waking control or a broker that sleeps, on one host.
//!
//! A sleeper sets its parked word in the pool, looks for work once more, and waits on a datagram
//! socket in the pool's directory of sockets. Whoever publishes work looks at the word and, if it
//! is set, sends one byte: a byte that arrives early waits in the socket, so no wake-up is lost. A
//! name is taken by one process at a time, which also keeps two processes from being the same
//! broker. Other hosts never ring; they spin.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use landfall_layout::BrokerId;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::memory::Memory;
use crate::pool::Pool;
use crate::sockets::{Sockets, bind_datagram};

/// Who can be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Control's sequencer thread.
    Sequencer,
    /// Control's thread for segments, topics and brokers.
    Keeper,
    /// A broker.
    Broker(BrokerId),
}

impl Role {
    /// Control's names are those of its leader slot: one that was deposed keeps its own.
    fn name(self, leader: usize) -> String {
        match self {
            Self::Sequencer => format!("sequencer-{leader}"),
            Self::Keeper => format!("keeper-{leader}"),
            Self::Broker(broker) => format!("broker-{broker}"),
        }
    }

    fn parked_at(self, pool: &Pool) -> u64 {
        match self {
            Self::Sequencer => pool.geometry().sequencer_parked(),
            Self::Keeper => pool.geometry().keeper_parked(),
            Self::Broker(broker) => pool.geometry().broker_parked(broker),
        }
    }
}

/// Says in the word at `at` that its owner is about to sleep; work is looked for after this.
pub fn say_parked(memory: &impl Memory, at: u64) {
    // EDGE parked, release half. Pairs with `is_parked`; the fence makes it a Dekker pair with the
    // work that the ringer published.
    memory.store_release(at, 1);
    memory.publish(at, 8);
    memory.full_fence();
}

/// Whether the owner of the word at `at` sleeps. Asked after work was published.
#[inline]
pub fn is_parked(memory: &impl Memory, at: u64) -> bool {
    memory.full_fence();
    // EDGE parked, acquire half. Pairs with `say_parked`.
    memory.load(at) != 0
}

/// The sleeper's side.
#[derive(Debug)]
pub struct Bell {
    socket: UnixDatagram,
    parked_at: u64,
    path: PathBuf,
    _sockets: Arc<Sockets>,
}

impl Bell {
    /// Takes the name of `role` on this pool. [`io::ErrorKind::AddrInUse`] when a live process
    /// has it.
    pub fn bind(pool: &Pool, role: Role) -> io::Result<Self> {
        let sockets = pool.sockets()?;
        let path = sockets.path(&role.name(pool.leader_slot()))?;
        let socket = bind_datagram(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, parked_at: role.parked_at(pool), path, _sockets: sockets })
    }

    /// Says that this process is about to sleep. Look for work once more after this.
    pub fn park(&self, pool: &Pool) {
        say_parked(pool, self.parked_at);
    }

    /// Says that this process is awake, and forgets the rings so far.
    pub fn unpark(&self, pool: &Pool) {
        pool.store_release(self.parked_at, 0);
        pool.publish(self.parked_at, 8);
        let mut byte = [0; 8];
        while self.socket.recv(&mut byte).is_ok() {}
    }

    /// Sleeps until a ring or until `longest` has passed. Between `park` and `unpark`.
    pub fn wait(&self, longest: Duration) {
        let millis = u16::try_from(longest.as_millis().max(1)).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        // An interrupted or failed wait only means that the caller looks for work too early.
        let _ = poll(&mut fds, PollTimeout::from(millis));
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // While the socket still answers: the one that takes the name next keeps its own.
        let _ = fs::remove_file(&self.path);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The waker's side.
#[derive(Debug)]
pub struct Ringer {
    socket: UnixDatagram,
    sockets: Arc<Sockets>,
}

impl Ringer {
    /// A ringer for the processes of this pool.
    pub fn new(pool: &Pool) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, sockets: pool.sockets()? })
    }

    /// Wakes `role` if it says that it sleeps. Called after work was published.
    #[inline]
    pub fn ring(&self, pool: &Pool, role: Role) {
        if is_parked(pool, role.parked_at(pool)) {
            self.ring_now(role, pool.leader_slot());
        }
    }

    #[cold]
    fn ring_now(&self, role: Role, leader: usize) {
        if let Ok(path) = self.sockets.path(&role.name(leader)) {
            // Nobody there, or its socket full of rings: either way it need not be woken.
            let _ = self.socket.send_to(&[1], path);
        }
    }
}
