//! A model of memory that hosts share and that no hardware keeps coherent between them, and an
//! explorer that runs protocols on it.
//!
//! The protocol code is the code that runs in production: it is generic over
//! [`landfall_pool::Memory`], and [`Process`] is such a memory, as one process on one host sees
//! it. Each process runs on a stack of its own. The explorer decides where one is switched for
//! another, what each load sees of what it may see, and when a process or a host dies: depth first
//! through all of it up to a number of preemptions, or by seeds beyond that.
//!
//! | module | what |
//! |---|---|
//! | [`world`] | the memory: versions of lines, and what each host may see |
//! | [`process`] | the memory as protocol code sees it |
//! | [`plan`] | what is explored: processes, crashes, and what follows a crash |
//! | `schedule` | whose turn it is, where a switch can matter, and when all wait for ever |
//! | `steps` | what each operation does to the memory |
//! | `choices` | choices walked through, drawn, or replayed |
//! | [`explore`] | runs without end, and what they found |
//! | [`mutate`] | every flush and fence deleted in turn: which are caught |
//!
//! Within a host the model is sequentially consistent: orders between the processors of one host
//! are for tools that model those. It knows whole lines that arrive whole, hosts that lose power
//! and processes that are killed; it knows no poison and no broken links.

#![forbid(unsafe_code)]

mod choices;
pub mod explore;
mod lines;
pub mod mutate;
mod panics;
pub mod plan;
pub mod process;
mod schedule;
pub mod site;
mod steps;
mod trace;
pub mod world;

pub use choices::{NotChoices, Record};
pub use explore::{Explorer, Failure, Limits, Outcome};
pub use plan::{Crash, Image, Plan, ProcessId, Scenario};
pub use process::Process;
pub use site::{Kind, Site};
pub use world::{Dma, Violation};

/// Hosts that a scenario may have.
pub const HOSTS_MAX: usize = 4;
/// Processes that a scenario may have, with those that recover.
pub const PROCESSES_MAX: usize = 12;

/// A host: its processes share one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostId(pub u8);

impl HostId {
    #[inline]
    fn index(self) -> usize {
        self.0.into()
    }
}
