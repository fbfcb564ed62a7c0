//! What did not answer, or was refused: what is found nowhere may be there.

use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;

use crate::ask::Silent;
use crate::names::data_of;

/// A data directory, or what is there of one broker's batches, of which nobody knows what it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unheard {
    /// What it is, and what the system said.
    pub silent: Silent,
    /// The data directory.
    pub data: PathBuf,
    /// Broker whose batches are there; none: anything of the topic may be there.
    pub source: Option<BrokerId>,
}

impl Unheard {
    /// A data directory as a whole.
    pub(crate) fn whole(data: &Path, silent: Silent) -> Self {
        Self { silent, data: data.to_owned(), source: None }
    }

    /// What is there of one source, in `directory`.
    pub(crate) fn of(source: BrokerId, directory: &Path, silent: Silent) -> Self {
        Self { silent, data: data_of(directory).to_owned(), source: Some(source) }
    }
}
