//! The broker's own side of RDMA: its device, its domains, and the pool as NICs see it.
//!
//! All clients of windows, pulls and deliveries share one protection domain, in which the pool is
//! registered once, with no right for anybody afar. A domain for each client would add nothing to
//! that: a window of type 2B can only be used through the queue pair it was bound on (InfiniBand
//! Architecture Specification 1.4, 10.6.7.2.5), and registering a large pool takes seconds, which
//! would be part of every connection. Grants of mode `open`, whose keys anybody in the domain may
//! use, have a domain of their own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use landfall_layout::verbs::GrantMode;
use landfall_nic::{Access, Domain, NicError, Region, devices, fitness};
use landfall_pool::map::MapError;
use landfall_pool::{Mapping, Pool};

/// Device, domains and registrations of one broker.
pub struct Side {
    /// Where clients knock.
    pub device: String,
    /// Whether the device has memory windows of type 2B.
    pub has_windows: bool,
    closed: Domain,
    open: Domain,
    pool: Region,
    memory: Arc<Mapping>,
    segment_bytes: u64,
    opened: RefCell<HashMap<u64, Opened>>,
}

struct Opened {
    region: Region,
    users: u32,
}

/// Why a broker could not set RDMA up.
#[derive(Debug)]
pub enum SideError {
    /// There is none.
    None(String),
    /// The pool could not be mapped for it.
    Map(MapError),
    /// A call failed.
    Nic(NicError),
}

impl std::fmt::Display for SideError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None(why) => f.write_str(why),
            Self::Map(error) => write!(f, "map the pool for NICs: {error}"),
            Self::Nic(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SideError {}

impl Side {
    /// Opens the device that has `address`, and registers the pool there.
    pub fn new(pool: &Pool, address: SocketAddr) -> Result<Self, SideError> {
        let all = devices().map_err(|error| SideError::None(error.to_string()))?;
        let device = fitness::device_with(&all, address.ip())
            .map_err(|unfit| SideError::None(unfit.to_string()))?;
        let bytes = pool.geometry().pool_bytes();
        let memory =
            Mapping::new(pool.fd(), bytes, pool.backing(), true).map_err(SideError::Map)?;
        let memory = Arc::new(memory);
        let domain = || Domain::on(&device.name).map_err(SideError::Nic);
        let (closed, open) = (domain()?, domain()?);
        let access =
            Access { local_write: true, remote_read: false, remote_write: false, windows: true };
        let pinned = Region::of_mapping(&closed, &memory, 0, bytes, access);
        Ok(Self {
            device: device.name.clone(),
            has_windows: device.windows_2b,
            closed,
            open,
            pool: pinned.map_err(SideError::Nic)?,
            memory,
            segment_bytes: pool.geometry().segment_bytes(),
            opened: RefCell::new(HashMap::new()),
        })
    }

    /// The domain of clients that are granted room in this mode.
    pub fn domain(&self, mode: GrantMode) -> &Domain {
        if mode == GrantMode::Open { &self.open } else { &self.closed }
    }

    /// The whole pool, at its own offsets.
    pub fn pool(&self) -> &Region {
        &self.pool
    }

    /// Opens the segment that begins at `at`, or counts one more user of it; its remote key.
    pub fn open_segment(&self, at: u64) -> Result<u32, NicError> {
        let mut opened = self.opened.borrow_mut();
        if let Some(known) = opened.get_mut(&at) {
            known.users += 1;
            return Ok(known.region.remote_key());
        }
        let access =
            Access { local_write: true, remote_read: false, remote_write: true, windows: false };
        let region = Region::of_mapping(&self.open, &self.memory, at, self.segment_bytes, access)?;
        let key = region.remote_key();
        opened.insert(at, Opened { region, users: 1 });
        Ok(key)
    }

    /// One user less of the segment that begins at `at`; its key is void with the last.
    pub fn close_segment(&self, at: u64) {
        let mut opened = self.opened.borrow_mut();
        if let Some(known) = opened.get_mut(&at) {
            known.users -= 1;
            if known.users == 0 {
                opened.remove(&at);
            }
        }
    }
}
