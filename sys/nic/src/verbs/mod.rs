//! RDMA: verbs and rdma_cm.
//!
//! | module | what |
//! |---|---|
//! | [`devices`](mod@devices) | what RDMA there is: devices, ports, GIDs, or why there is none |
//! | [`memory`] | protection domains and memory regions |
//! | [`queue`] | a connected queue pair: posting, polling, windows |
//! | [`shared_receive`] | receives that queues share |
//! | [`cm`] | making connections: [`Listener`] and [`Dialing`] |
//! | [`error`] | errors that name the call, the object and the numbers |
//!
//! Memory that a NIC may write to is always a `landfall_pool::Mapping`, whose words are shared
//! anyway and are read as atomics; a [`Region`] keeps it mapped while the NIC can reach it. A
//! `landfall_pool::slab::Slab` is only ever read by NICs. Every access flag is spelled out at each
//! registration, and none of them relaxes the order of writes: whoever sees the last word of a
//! batch has to see all of it.

mod address;
pub mod cm;
mod device;
pub mod devices;
pub mod error;
pub mod memory;
pub mod queue;
pub mod shared_receive;

pub use cm::{Dialing, Ending, Event, Listener, PeerId, Refused, Request};
pub use devices::{DeviceInfo, GidInfo, GidKind, InOrder, Link, PortInfo, PortState, devices};
pub use error::{NicError, Unavailable};
pub use memory::{Access, Domain, Region};
pub use queue::{
    Completion, Depths, Failure, Full, How, Local, Queue, RETRY_TIME, Remote, Rights, What, Window,
};
pub use shared_receive::Srq;
