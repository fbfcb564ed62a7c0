//! What the bytes mean: the structures of the pool, the frames on the wire, units and limits.
//!
//! Nothing here touches memory, a file or a socket. A structure is a private copy of some lines;
//! `sys/pool` moves those lines between the copy and the shared mapping. Every size, offset and
//! the absence of holes is asserted at compile time, so a layout that changes by accident does
//! not build. Every decoder is total: any bytes give a value or an error that says what is wrong.
//!
//! All integers are little-endian; a big-endian host is refused at compile time.

#![forbid(unsafe_code)]

#[cfg(not(target_endian = "little"))]
compile_error!("the pool format is little-endian and is mapped, not translated");

#[macro_use]
mod line;

pub mod batch;
pub mod channel;
pub mod command;
pub mod counters;
pub mod doubt;
pub mod fate;
pub mod frame;
pub mod full;
pub mod geometry;
pub mod held;
pub mod ids;
pub mod keepers;
pub mod limits;
pub mod order;
pub mod pool;
pub mod replica;
pub mod segment;
pub mod session;
pub mod slot;
pub mod topic;
pub mod verbs;

pub use ids::{BrokerId, SegmentId, TopicId};
