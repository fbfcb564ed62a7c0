//! A broker: lands batches, delivers them, reports what happened to them.
//!
//! One thread runs one loop to completion: commands from control, sockets, memory clients'
//! channels, receipts, deliveries. Who does what with whom is in
//! `docs/PROTOCOL.md`.
//!
//! | module | what |
//! |---|---|
//! | `broker`, `park`, `leave`, `drain` | set-up, the loop around the turns, sleeping, going away |
//! | `poll` | one turn |
//! | `land`, `claim`, `segments` | the one way a batch becomes part of a log, and its room |
//! | `topics`, `receipts` | what the broker knows of a topic, and what became of its batches |
//! | `hello`, `handshake` | from a connection's first byte to `Welcome` or `Refused` |
//! | `conn`, `conns`, `connections`, `room`, `goodbye` | connections, and how they come and go |
//! | `publish_tcp`, `publish_memory`, `extents` | publishers by transport |
//! | `halves` | what batches hold that have not come whole |
//! | `unused` | extents that nothing is put into |
//! | `deliver_tcp`, `cursor`, `subscribe_memory` | subscribers by transport |
//! | `verbs` | clients over RDMA |
//! | `replica` | what this broker keeps on its disk |
//! | `catch_up` | what subscribers read from disks, because memory has it no more |
//! | `control_link`, `commands` | requests to control and its commands |
//! | [`rig`] | landing alone, for benchmarks |

#![forbid(unsafe_code)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod broker;
mod catch_up;
mod claim;
mod commands;
mod conn;
mod connections;
mod conns;
mod control_link;
mod cursor;
mod deliver_tcp;
mod drain;
mod env;
mod extents;
mod fence;
mod free;
mod goodbye;
mod halves;
mod handshake;
mod held;
mod hello;
mod joined;
mod land;
mod leave;
mod led;
mod losses;
mod lost;
mod number;
mod poison;
mod poll;
mod positions;
mod publish_memory;
mod publish_tcp;
mod receipts;
mod replica;
pub mod rig;
mod room;
mod segments;
mod standing;
mod subscribe_memory;
mod topics;
mod unused;
mod verbs;

pub use broker::{Broker, Config, Ended, StartError};
pub use landfall_pool::disk::faulty::{Faults, Plan};
pub use landfall_pool::idle::Idle;
pub use number::wait_for_number;
pub use replica::Data;
pub use verbs::VerbsConfig;
