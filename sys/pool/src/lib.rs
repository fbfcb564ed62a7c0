//! Where the bytes are: mappings of the pool, checked views of its structures, coherence.
//!
//! Everything that two processes share is written and read through the [`Memory`] trait, so that
//! the protocols in this crate run unchanged over the real mapping, over loom's atomics in tests,
//! and over a model of hosts that do not see each other's caches.
//!
//! | module | what |
//! |---|---|
//! | [`map`], [`pool`] | mappings, kinds of memory, creating a pool and attaching to one |
//! | [`memory`] | the `Memory` trait and the coherence instructions |
//! | [`line_ring`], [`slot_ring`], [`log`], [`lines`] | the shared-line protocols |
//! | [`ends`] | where logs end, for who begins there |
//! | [`leader`] | who leads, and taking over |
//! | [`hold`], [`channel`] | memory clients: what they read must not be reused |
//! | [`payload_writer`], [`stream`], [`io`] | bytes into the mapping, and descriptors |
//! | [`shared`] | bytes of the mapping that others may be storing to: copied out, or sent |
//! | [`poison`] | pages of the pool that cannot be read any more |
//! | [`slab`] | private buffers that are registered once and sent from |
//! | [`clock`], [`silence`], [`attention`] | time that passes, and time that is shown |
//! | [`bell`], [`idle`] | how a loop waits, and waking a process that sleeps |
//! | [`sockets`], [`owner`] | whom sockets and files belong to, and who the other side is |
//! | [`host`], [`leftovers`] | which host this is; what may be left in its caches |
//! | [`lock`], [`process`] | which processes are there, as the kernel knows it |
//! | [`disk`], [`replica`] | writing to files, and the lines that say how far that is |
//! | [`stderr`] | what a server says to people, and that a panic ends it |
//! | [`stdio`] | what a tool was given to say it to |
//! | [`copies`] | who keeps each copy on disk now |
//! | [`room`] | how much memory there is |
//! | [`counters`] | counters and distinct errors that survive their process |

#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod attention;
pub mod bell;
pub mod channel;
pub mod clock;
pub mod copies;
pub mod counters;
pub mod disk;
pub mod ends;
pub mod hold;
pub mod host;
pub mod idle;
pub mod io;
#[cfg(feature = "kill-switch")]
mod kill;
pub mod leader;
pub mod leftovers;
pub mod line_ring;
pub mod lines;
pub mod lock;
pub mod log;
pub mod map;
pub mod memory;
mod once;
pub mod owner;
pub mod payload_writer;
pub mod peer;
pub mod poison;
pub mod pool;
pub mod process;
pub mod replica;
pub mod room;
pub mod shared;
pub mod silence;
#[cfg(feature = "kill-switch")]
mod skew;
pub mod slab;
pub mod slot_ring;
pub mod sockets;
pub mod stderr;
pub mod stdio;
pub mod stream;
pub mod topics;
mod x86;

pub use map::Mapping;
pub use memory::Memory;
pub use pool::Pool;
