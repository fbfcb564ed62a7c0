//! Clients over RDMA verbs: `docs/PROTOCOL.md`, section 11.
//!
//! | module | what |
//! |---|---|
//! | `side` | the broker's own device, domains and registrations |
//! | `door`, `tokens` | from a connection request to an accepted queue pair, or a rejection |
//! | `link`, `ring` | one client's queue pair, and the ring in the client's memory |
//! | `publish`, `gate`, `pull` | publishers by grant mode |
//! | `serve` | what a turn of the loop does for verbs clients |
//! | `deliver`, `reader` | subscribers that are written to, and those that read by themselves |

mod deliver;
mod door;
mod gate;
pub mod link;
mod publish;
mod pull;
mod reader;
mod ring;
mod serve;
pub mod side;
mod tokens;

use std::collections::HashMap;
use std::rc::Rc;

use landfall_layout::verbs::{GrantMode, Knock};
use landfall_nic::{Listener, PeerId, Request};

use crate::conns::Token;

pub use publish::{Closing, Gate, Grants};
pub use pull::Pulls;
pub use reader::Reading;
pub use serve::VerbsPublisher;
use side::Side;
pub use tokens::Tokens;

/// How a broker takes clients over verbs.
#[derive(Clone, Debug)]
pub struct VerbsConfig {
    /// Address of the RDMA device to listen on; port 0 lets the system choose.
    pub listen: String,
    /// The most trusting grant mode that clients may ask for.
    pub grant: GrantMode,
    /// A publisher that says nothing for this long is let go, nanoseconds.
    pub lease_ns: u64,
}

/// The broker's RDMA.
pub struct Verbs {
    pub listener: Listener,
    pub side: Rc<Side>,
    pub tokens: Tokens,
    /// Connections by what the listener calls them.
    pub peers: HashMap<PeerId, Token>,
    pub grant: GrantMode,
    pub lease_ns: u64,
}

/// A client that has knocked and was not answered yet.
pub struct Knocking {
    pub request: Option<Request>,
    pub knock: Knock,
}

/// A publisher's ways into the pool.
pub enum Ways {
    /// It writes into extents.
    Grants(Box<Grants>),
    /// The broker reads from it.
    Pulls(Box<Pulls>),
}
