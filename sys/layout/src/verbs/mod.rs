//! What travels over RDMA verbs beside the batches themselves: the private data of a connection's
//! handshake, immediates, and the ring in which a client is told things.
//!
//! A client knocks with [`Knock`] in the connection request's private data. The broker accepts
//! with [`Greeting`], or rejects with [`Rejection`]. From then on the client says everything with
//! the 32 bits of RDMA_WRITE_WITH_IMM ([`Said`]), and the broker writes lines into the client's
//! ring and says with an immediate how many ([`Arrived`]).

mod knock;
mod said;

pub use knock::{GrantMode, Greeting, Intent, Knock, KnockError, Rejection};
pub use said::{Arrived, Said, UnknownImmediate, taken_in_all};

/// Bytes of private data in a connection request. InfiniBand's connection manager has 92 and
/// rdma_cm takes 36 of them (`rdma_connect(3)`).
pub const KNOCK_BYTES: usize = 56;
/// Bytes of private data in an accept (`rdma_accept(3)`).
pub const GREETING_BYTES: usize = 196;
/// Bytes of private data in a reject (`rdma_reject(3)`).
pub const REJECTION_BYTES: usize = 148;
/// First word of a knock: "LFV1".
pub const KNOCK_MAGIC: u32 = u32::from_le_bytes(*b"LFV1");
/// Version of this handshake and of the immediates.
pub const VERBS_VERSION: u8 = 3;

/// Extents a publisher may hold at a time, each with a memory window of its own.
pub const EXTENT_SLOTS: usize = 8;
/// Segments a subscriber that reads by itself may hold open at a time, each with a window.
pub const SEGMENT_SLOTS: usize = 16;
/// Receives that each side keeps posted: immediates that may be on their way to it.
pub const RECEIVES: u32 = 1024;
/// Lines of the ring of a client that is sent frames only.
pub const FRAME_RING_LINES: u32 = 1024;
/// Most lines a client's ring may have.
pub const RING_LINES_MAX: u32 = 1 << 24;
