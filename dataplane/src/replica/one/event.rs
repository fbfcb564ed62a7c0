//! What became of a step of a replica.

use crate::env::Unfaithful;

/// What became of a step, for people and counters.
#[derive(Debug)]
pub enum Event {
    /// The replica stopped.
    Failed(String),
    /// The disk is full, or descriptors or memory are short.
    Full(String),
    /// A batch that did not hold in the pool was copied from another replica.
    Repaired(String),
    /// A batch holds nowhere.
    Lost(String),
    /// Whose batch did not hold.
    Unfaithful(Unfaithful),
    /// Something else to know.
    Note(String),
}
