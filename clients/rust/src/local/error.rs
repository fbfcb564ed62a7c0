//! Why a system on this machine did not start or stop.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use landfall_layout::limits::BROKERS_MAX;

use super::Lingering;
use crate::Error;

/// Why a local system did not start or stop.
#[derive(Debug)]
pub(super) enum LocalError {
    /// A number of brokers that no pool can have.
    Brokers {
        /// Brokers asked for.
        asked: usize,
    },
    /// A program of the system is not where it was looked for.
    Missing {
        /// The program.
        program: &'static str,
        /// Folders looked in.
        looked: Vec<PathBuf>,
    },
    /// A broker's data directory could not be made.
    Data {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        why: String,
    },
    /// The pool's memory could not be had.
    Pool {
        /// What was tried and the answer.
        why: String,
    },
    /// A program could not be started at all.
    Spawn {
        /// The program's part: `control`, `broker 0`.
        name: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A child ended before it was ready.
    Died {
        /// Its part.
        name: String,
        /// How it ended.
        status: String,
        /// The last it said on stderr.
        said: String,
    },
    /// A child lives and does not become ready.
    NotReady {
        /// Its part.
        name: String,
        /// How long it was given.
        waited: Duration,
        /// The last it said on stderr.
        said: String,
    },
    /// It was told to stop before it was ready.
    Unwanted,
    /// Children did not stop on SIGTERM and were killed.
    Killed {
        /// They.
        killed: Vec<Lingering>,
        /// How long each was given.
        waited: Duration,
    },
    /// Children ended with an error when they were told to stop.
    Failed {
        /// Which, and how each ended.
        failed: Vec<(String, String)>,
    },
    /// Control had ended before everything was stopped, and could not be started for the end.
    NoControl {
        /// Why not.
        why: Box<LocalError>,
    },
    /// One thing went wrong, and then another.
    Both {
        /// The first.
        first: Box<LocalError>,
        /// What went wrong behind it.
        then: Box<LocalError>,
    },
    /// Control's address cannot be used by a client.
    Address {
        /// The address and what is wrong.
        why: String,
    },
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Brokers { asked } => {
                write!(f, "{asked} brokers are not possible; say 1 to {BROKERS_MAX}")
            }
            Self::Missing { program, looked } => {
                let looked: Vec<_> = looked.iter().map(|dir| dir.display().to_string()).collect();
                write!(
                    f,
                    "{program} is not in {}; build it with `cargo build --workspace --bins`, or \
                     set LANDFALL_BIN_DIR to its folder",
                    looked.join(" or ")
                )
            }
            Self::Data { path, why } => {
                write!(f, "no directory {} for replicas: {why}", path.display())
            }
            Self::Pool { why } => write!(f, "no memory for the pool: {why}"),
            Self::Spawn { name, source } => write!(f, "{name} could not be started: {source}"),
            Self::Died { name, status, said } if said.is_empty() => {
                write!(f, "{name} ended before the system was ready ({status}) and said nothing")
            }
            Self::Died { name, status, said } => {
                write!(f, "{name} ended before the system was ready ({status}): {said}")
            }
            Self::NotReady { name, waited, said } => {
                write!(f, "{name} was not ready within {waited:?}; it said: {said:?}")
            }
            Self::Unwanted => f.write_str("it was told to stop before it was ready"),
            Self::Killed { killed, waited } => {
                let names: Vec<_> = killed.iter().map(Lingering::to_string).collect();
                let were = if names.len() == 1 { "was" } else { "were" };
                let names = names.join(", ");
                write!(f, "{names} did not end within {waited:?} of SIGTERM and {were} killed")
            }
            Self::Failed { failed } => {
                let one = |(name, status): &(String, String)| format!("{name} ({status})");
                let names: Vec<_> = failed.iter().map(one).collect();
                write!(f, "{} ended with an error when told to stop", names.join(", "))
            }
            Self::NoControl { why } => write!(
                f,
                "control had ended before the stop, and could not be started once more for the \
                 end, so no directory says where logs ended: {why}"
            ),
            Self::Both { first, then } => write!(f, "{first}; then {then}"),
            Self::Address { why } => f.write_str(why),
        }
    }
}

impl LocalError {
    /// The errors of a stop as one; none where there are none.
    pub(super) fn all(errors: impl IntoIterator<Item = Self>) -> Result<(), Self> {
        let both = |first, then| Self::Both { first: Box::new(first), then: Box::new(then) };
        errors.into_iter().reduce(both).map_or(Ok(()), Err)
    }
}

impl From<LocalError> for Error {
    fn from(error: LocalError) -> Self {
        Self::Local { what: error.to_string() }
    }
}
